/*
 * FMI for C++: the communicator, and with it everything else.
 *
 * The classes keep the interface of the original C++ FMI, and do their work by
 * the C API of fmi.h. New names stand in FMI::Ops and FMI::detail only.
 */
#ifndef FMI_COMMUNICATOR_H
#define FMI_COMMUNICATOR_H

/* What the original's headers brought, and programs rely on. */
#include <algorithm>
#include <any>
#include <array>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <exception>
#include <functional>
#include <iterator>
#include <limits>
#include <map>
#include <memory>
#include <ostream>
#include <sstream>
#include <stdexcept>
#include <string>
#include <tuple>
#include <type_traits>
#include <unordered_map>
#include <utility>
#include <vector>

#include <unistd.h>

#include "comm/Channel.h"
#include "comm/ClientServer.h"
#include "comm/Data.h"
#include "comm/Direct.h"
#include "comm/Memory.h"
#include "comm/PeerToPeer.h"
#include "comm/Redis.h"
#include "comm/Registered.h"
#include "comm/S3.h"
#include "utils/CApi.h"
#include "utils/ChannelPolicy.h"
#include "utils/Common.h"
#include "utils/Configuration.h"
#include "utils/Errors.h"
#include "utils/Function.h"
#include "utils/Reduction.h"
#include "utils/Text.h"

namespace FMI {

/**
 * One rank of a job, and the operations among the ranks.
 *
 * It is an fmi_comm; every operation is the C function of its name. Operations
 * throw Utils::Timeout when the time is over, std::runtime_error on other
 * failures, and what a function or channel of the user's threw. One thread at a
 * time may use a communicator.
 */
class Communicator {
public:
    /**
     * Makes rank `peer_id` of `num_peers` (fmi_comm_create_with()). No network I/O.
     *
     * @param peer_id      this rank, from 0 to num_peers - 1.
     * @param num_peers    the number of ranks.
     * @param config_path  see Utils::Configuration.
     * @param comm_name    name of the job, the same on all ranks; any bytes.
     * @param faas_memory  memory of one function in MiB, for prices.
     * @throws std::runtime_error  for a wrong configuration, or an enabled channel that FMI does not know.
     */
    Communicator(Utils::peer_num peer_id, Utils::peer_num num_peers, std::string config_path,
                 std::string comm_name, unsigned int faas_memory = 128)
        : state(std::make_unique<State>(peer_id, num_peers, config_path, std::move(comm_name), faas_memory))
    {
    }

    Communicator(Communicator &&) noexcept = default;
    Communicator &operator=(Communicator &&) noexcept = default;

    /** Sends `buf` to the rank `dest` (fmi_send()). */
    template <typename T>
    void send(Comm::Data<T> &buf, Utils::peer_num dest)
    {
        const channel_data data = bytes_of(buf);
        choose({Utils::send, data.len});
        run([&](fmi_comm *comm) { return fmi_send(comm, data.buf, data.len, dest); });
    }

    /** Receives a message of the length of `buf` from the rank `src` (fmi_recv()). */
    template <typename T>
    void recv(Comm::Data<T> &buf, Utils::peer_num src)
    {
        const channel_data data = bytes_of(buf);
        choose({Utils::send, data.len});
        run([&](fmi_comm *comm) { return fmi_recv(comm, data.buf, data.len, src); });
    }

    /** Gives the root's `buf` to all (fmi_bcast()). */
    template <typename T>
    void bcast(Comm::Data<T> &buf, Utils::peer_num root)
    {
        const channel_data data = bytes_of(buf);
        choose({Utils::bcast, data.len});
        run([&](fmi_comm *comm) { return fmi_bcast(comm, data.buf, data.len, root); });
    }

    /** Returns when all ranks have called it (fmi_barrier()). */
    void barrier()
    {
        choose({Utils::barrier, 0});
        run([](fmi_comm *comm) { return fmi_barrier(comm); });
    }

    /** Collects the `sendbuf` of all ranks in the root's `recvbuf`, in the order of ranks (fmi_gather()). */
    template <typename T>
    void gather(Comm::Data<T> &sendbuf, Comm::Data<T> &recvbuf, Utils::peer_num root)
    {
        const channel_data block = bytes_of(sendbuf);
        const channel_data all = is_root(root) ? blocks(recvbuf, block.len) : channel_data{};
        choose({Utils::gather, block.len});
        run([&](fmi_comm *comm) { return fmi_gather(comm, block.buf, block.len, all.buf, all.len, root); });
    }

    /** Gives every rank its block of the root's `sendbuf` (fmi_scatter()). */
    template <typename T>
    void scatter(Comm::Data<T> &sendbuf, Comm::Data<T> &recvbuf, Utils::peer_num root)
    {
        const channel_data block = bytes_of(recvbuf);
        const channel_data all = is_root(root) ? blocks(sendbuf, block.len) : channel_data{};
        choose({Utils::scatter, block.len});
        run([&](fmi_comm *comm) { return fmi_scatter(comm, all.buf, all.len, block.buf, block.len, root); });
    }

    /** Combines the `sendbuf` of all ranks in the root's `recvbuf` (fmi_reduce()). */
    template <typename T>
    void reduce(Comm::Data<T> &sendbuf, Comm::Data<T> &recvbuf, Utils::peer_num root, Utils::Function<T> f)
    {
        combine(Utils::reduce, sendbuf, recvbuf, is_root(root), by(f), Reduce{root});
    }

    /** As above, with an operation of the library, element by element. */
    template <typename T>
    void reduce(Comm::Data<T> &sendbuf, Comm::Data<T> &recvbuf, Utils::peer_num root,
                Ops::BuiltIn<typename detail::Element<T>::type> op)
    {
        combine(Utils::reduce, sendbuf, recvbuf, is_root(root), by<T>(op), Reduce{root});
    }

    /** Combines the `sendbuf` of all ranks in the `recvbuf` of all (fmi_allreduce()). */
    template <typename T>
    void allreduce(Comm::Data<T> &sendbuf, Comm::Data<T> &recvbuf, Utils::Function<T> f)
    {
        combine(Utils::allreduce, sendbuf, recvbuf, true, by(f), fmi_allreduce);
    }

    /** As above, with an operation of the library, element by element. */
    template <typename T>
    void allreduce(Comm::Data<T> &sendbuf, Comm::Data<T> &recvbuf,
                   Ops::BuiltIn<typename detail::Element<T>::type> op)
    {
        combine(Utils::allreduce, sendbuf, recvbuf, true, by<T>(op), fmi_allreduce);
    }

    /** Combines the `sendbuf` of the ranks from 0 to this one (fmi_scan()). */
    template <typename T>
    void scan(Comm::Data<T> &sendbuf, Comm::Data<T> &recvbuf, Utils::Function<T> f)
    {
        combine(Utils::scan, sendbuf, recvbuf, true, by(f), fmi_scan);
    }

    /** As above, with an operation of the library, element by element. */
    template <typename T>
    void scan(Comm::Data<T> &sendbuf, Comm::Data<T> &recvbuf,
              Ops::BuiltIn<typename detail::Element<T>::type> op)
    {
        combine(Utils::scan, sendbuf, recvbuf, true, by<T>(op), fmi_scan);
    }

    /**
     * Adds a channel to those that are chosen from, in place of one of that name
     * (fmi_comm_register_channel()). The object learns which rank this is. All
     * ranks must register alike.
     */
    void register_channel(std::string name, std::shared_ptr<Comm::Channel> channel)
    {
        if (!channel) {
            throw std::runtime_error("FMI: register_channel(\"" + name + "\") without a channel");
        }
        State &self = at_work();
        auto *const library = dynamic_cast<detail::LibraryChannel *>(channel.get());
        /* A second channel of a kind joins a job of its own. */
        self.introduce(*channel, library && name == library->fmi_kind_name() ? std::string() : name);
        fmi_channel *const as_it_is = library ? library->fmi_as_it_is() : nullptr;
        if (as_it_is) {
            self.add(name, as_it_is);
        } else {
            const std::unique_ptr<fmi_channel, decltype(&fmi_channel_destroy)> custom(
                detail::Registered::make(channel, self.rank, self.size, detail::c_name(self.job)),
                &fmi_channel_destroy);
            self.add(name, custom.get());
        }
        self.channels[std::move(name)] = std::move(channel);
    }

    /** Has `policy` choose the channels from now on. */
    void set_channel_policy(std::shared_ptr<Utils::ChannelPolicy> policy)
    {
        if (!policy) {
            throw std::runtime_error("FMI: set_channel_policy() without a policy");
        }
        at_work().policy = std::move(policy);
        at_work().has_default_policy = false;
    }

    /** Says whether the policy shall go by latency or by price. */
    void hint(Utils::Hint hint) { at_work().policy->set_hint(hint); }

private:
    /* It does not move, for policies keep a reference to its channels. */
    struct State {
        State(Utils::peer_num peer_id, Utils::peer_num num_peers, const std::string &config_path,
              std::string comm_name, unsigned int faas_memory)
            : rank(peer_id), size(num_peers), job(std::move(comm_name))
        {
            const Utils::Configuration configuration(config_path);
            std::map<std::string, std::shared_ptr<Comm::Channel>> enabled;
            for (const auto &[name, parameters] : configuration.get_active_channels()) {
                enabled[name] = built_in(name, parameters);
            }
            fmi_config *const config = configuration.config.get();
            if (faas_memory > 0) {
                detail::check(fmi_config_set(config, "faas_memory_mib", std::to_string(faas_memory).c_str()));
            }
            fmi_comm *created = nullptr;
            detail::check(fmi_comm_create_with(rank, size, detail::c_name(job).c_str(), config, &created));
            owner.reset(created);
            for (auto &[name, channel] : enabled) {
                /* One that is not in this build cannot be chosen, and cannot be pinned. */
                if (fmi_comm_set_channel(comm(), name.c_str()) == FMI_OK) {
                    introduce(*channel, std::string());
                    channels.emplace(name, std::move(channel));
                }
            }
            fmi_comm_set_channel(comm(), nullptr);
            policy = std::make_shared<Utils::ChannelPolicy>(
                channels, size, configuration.get_faas_price() * faas_memory / 1024, Utils::cheap);
        }

        fmi_comm *comm() const { return owner.get(); }

        static std::shared_ptr<Comm::Channel> built_in(const std::string &name,
                                                       const Utils::Configuration::Parameters &parameters)
        {
            if (name == detail::Memory::fmi_kind) {
                return std::make_shared<detail::Memory>(parameters.first, parameters.second);
            }
            return Comm::Channel::get_channel(name, parameters.first, parameters.second);
        }

        /** Tells a channel which rank of which job this is; `name` tells the jobs of its channels apart. */
        void introduce(Comm::Channel &channel, const std::string &name) const
        {
            channel.set_peer_id(rank);
            channel.set_num_peers(size);
            channel.set_comm_name(job);
            channel.fmi_registered_name = name;
            ++channel.fmi_edition;
        }

        void add(const std::string &name, fmi_channel *channel)
        {
            detail::call(comm(), [&] {
                return fmi_comm_register_channel(comm(), detail::c_name(name).c_str(), channel);
            });
        }

        Utils::peer_num rank;
        Utils::peer_num size;
        std::string job;
        std::map<std::string, std::shared_ptr<Comm::Channel>> channels;
        std::shared_ptr<Utils::ChannelPolicy> policy;
        bool has_default_policy = true;
        std::string pinned;

    private:
        struct Destroy {
            void operator()(fmi_comm *comm) const { fmi_comm_destroy(comm); }
        };

        /* The last member, and so the first to go: it leaves the job in order, and finalizes the channels. */
        std::unique_ptr<fmi_comm, Destroy> owner;
    };

    /* How a reduction combines: by a function, or by an operation of the library. */
    template <typename T>
    struct ByFunction {
        const Utils::Function<T> &function;
    };
    struct ByOperation {
        fmi_op op;
        fmi_datatype type;
        std::size_t element;
    };

    /* fmi_reduce() with its root, called like the others. */
    struct Reduce {
        Utils::peer_num root;

        fmi_status operator()(fmi_comm *comm, const void *send, void *recv, std::size_t count, fmi_datatype type,
                              fmi_op op) const
        {
            return fmi_reduce(comm, send, recv, count, type, op, root);
        }
    };

    template <typename T>
    static ByFunction<T> by(const Utils::Function<T> &function)
    {
        return {function};
    }

    template <typename T, typename E>
    static ByOperation by(Ops::BuiltIn<E> op)
    {
        return {op.op, detail::datatype_of<E>(), sizeof(E)};
    }

    template <typename T>
    static channel_data bytes_of(Comm::Data<T> &buf)
    {
        const std::size_t len = buf.size_in_bytes();
        return {buf.data(), len};
    }

    /* The part of the root's buffer that holds a block of every rank. */
    template <typename T>
    channel_data blocks(Comm::Data<T> &buf, std::size_t block) const
    {
        return detail::blocks(bytes_of(buf), block, at_work().size);
    }

    bool is_root(Utils::peer_num root) const { return at_work().rank == root; }

    template <typename T, typename Function>
    void combine(Utils::Operation operation, Comm::Data<T> &sendbuf, Comm::Data<T> &recvbuf, bool has_result,
                 ByFunction<T> by, const Function &function)
    {
        const auto [send, recv] = operands(sendbuf, recvbuf, has_result);
        const raw_function raw = detail::on_buffers(by.function, send.len);
        choose({operation, send.len, detail::is_ordered(raw.commutative, raw.associative)});
        const fmi_op op = detail::op_of(raw);
        run([&, s = send, r = recv](
                fmi_comm *comm) { return function(comm, s.buf, r.buf, s.len, FMI_BYTE, op); },
            &raw);
    }

    template <typename T, typename Function>
    void combine(Utils::Operation operation, Comm::Data<T> &sendbuf, Comm::Data<T> &recvbuf, bool has_result,
                 ByOperation by, const Function &function)
    {
        const auto [send, recv] = operands(sendbuf, recvbuf, has_result);
        choose({operation, send.len});
        run([&, s = send, r = recv](
                fmi_comm *comm) { return function(comm, s.buf, r.buf, s.len / by.element, by.type, by.op); });
    }

    template <typename T>
    static std::pair<channel_data, channel_data> operands(Comm::Data<T> &sendbuf, Comm::Data<T> &recvbuf,
                                                          bool has_result)
    {
        const channel_data send = bytes_of(sendbuf);
        if (!has_result) {
            return {send, {}};
        }
        const channel_data recv = bytes_of(recvbuf);
        if (send.len != recv.len) {
            throw std::runtime_error("FMI: sendbuf has " + std::to_string(send.len) + " bytes and recvbuf has " +
                                     std::to_string(recv.len) + ": they must be the same");
        }
        return {send, recv};
    }

    /* Has the policy choose the channel of the next operation (fmi_comm_set_channel()), if there is a choice. */
    void choose(Utils::OperationInfo info)
    {
        State &self = at_work();
        if (self.has_default_policy && self.channels.size() < 2) {
            return;
        }
        const std::string name = self.policy->get_channel(info);
        if (name == self.pinned) {
            return;
        }
        if (self.channels.count(name) == 0) {
            throw std::runtime_error("FMI: the policy chose the channel \"" + name + "\", which is not there");
        }
        detail::call(self.comm(), [&] { return fmi_comm_set_channel(self.comm(), detail::c_name(name).c_str()); });
        self.pinned = name;
    }

    template <typename Function>
    void run(const Function &function, const raw_function *reduction = nullptr)
    {
        fmi_comm *const comm = at_work().comm();
        detail::call(comm, [&] { return function(comm); }, reduction);
    }

    State &at_work() const
    {
        if (!state) {
            throw std::runtime_error("FMI: the communicator was moved from");
        }
        return *state;
    }

    std::unique_ptr<State> state;
};

} // namespace FMI

#endif /* FMI_COMMUNICATOR_H */
