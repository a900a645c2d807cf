/*
 * What the library's own channels have in common.
 */
#include "Channel.h"

#ifndef FMI_COMM_BUILTIN_H
#define FMI_COMM_BUILTIN_H

#include <typeinfo>

namespace FMI::detail {

/** A channel of the library's, as an object. */
class LibraryChannel {
public:
    virtual ~LibraryChannel() = default;

    /** The channel for a communicator to use as it is; NULL for an object of a class of the user's. */
    virtual fmi_channel *fmi_as_it_is() = 0;

    /** What the library calls the channel: "Direct", ... */
    virtual const char *fmi_kind_name() const = 0;
};

/**
 * The class Self as an object for a channel of the library
 * (fmi_channel_create()).
 *
 * An object of exactly that class is that channel: its operations are
 * fmi_channel_send() and its kin. An object of a class that is derived from it
 * is a custom channel like any other of its Family, and only its object
 * functions work by the library's channel.
 *
 * @tparam Self    has a `static constexpr const char *fmi_kind`, for fmi_channel_create().
 * @tparam Family  Comm::PeerToPeer or Comm::ClientServer.
 */
template <typename Self, typename Family>
class BuiltIn : public Family, public LibraryChannel {
public:
    void send(channel_data buf, Utils::peer_num dest) override
    {
        fmi_is_itself() ? fmi_library().send(buf, dest) : Family::send(buf, dest);
    }

    void recv(channel_data buf, Utils::peer_num src) override
    {
        fmi_is_itself() ? fmi_library().recv(buf, src) : Family::recv(buf, src);
    }

    void bcast(channel_data buf, Utils::peer_num root) override
    {
        fmi_is_itself() ? fmi_library().bcast(buf, root) : Family::bcast(buf, root);
    }

    void barrier() override { fmi_is_itself() ? fmi_library().barrier() : Family::barrier(); }

    void gather(channel_data sendbuf, channel_data recvbuf, Utils::peer_num root) override
    {
        if (!fmi_is_itself()) {
            Family::gather(sendbuf, recvbuf, root);
            return;
        }
        if (this->peer_id == root) {
            recvbuf = blocks(recvbuf, sendbuf.len, this->num_peers);
        }
        fmi_library().gather(sendbuf, recvbuf, root);
    }

    void scatter(channel_data sendbuf, channel_data recvbuf, Utils::peer_num root) override
    {
        if (!fmi_is_itself()) {
            Family::scatter(sendbuf, recvbuf, root);
            return;
        }
        if (this->peer_id == root) {
            sendbuf = blocks(sendbuf, recvbuf.len, this->num_peers);
        }
        fmi_library().scatter(sendbuf, recvbuf, root);
    }

    void reduce(channel_data sendbuf, channel_data recvbuf, Utils::peer_num root, raw_function f) override
    {
        if (!fmi_is_itself()) {
            Family::reduce(sendbuf, recvbuf, root, std::move(f));
            return;
        }
        if (this->peer_id == root) {
            require_room(recvbuf, sendbuf.len);
        }
        fmi_library().reduce(sendbuf, recvbuf, root, f);
    }

    void allreduce(channel_data sendbuf, channel_data recvbuf, raw_function f) override
    {
        if (!fmi_is_itself()) {
            Family::allreduce(sendbuf, recvbuf, std::move(f));
            return;
        }
        require_room(recvbuf, sendbuf.len);
        fmi_library().allreduce(sendbuf, recvbuf, f);
    }

    void scan(channel_data sendbuf, channel_data recvbuf, raw_function f) override
    {
        if (!fmi_is_itself()) {
            Family::scan(sendbuf, recvbuf, std::move(f));
            return;
        }
        require_room(recvbuf, sendbuf.len);
        fmi_library().scan(sendbuf, recvbuf, f);
    }

    /** Leaves the job in order (fmi_channel_destroy()); an operation after it joins anew. */
    void finalize() override
    {
        Family::finalize();
        fmi_library_handle.reset();
    }

    /** fmi_channel_latency() */
    double get_latency(Utils::peer_num producer, Utils::peer_num consumer, std::size_t bytes) override
    {
        return fmi_library().latency(producer, consumer, bytes);
    }

    /** fmi_channel_price() */
    double get_price(Utils::peer_num producer, Utils::peer_num consumer, std::size_t bytes) override
    {
        return fmi_library().price(producer, consumer, bytes);
    }

    /** fmi_channel_operation_latency() */
    double get_operation_latency(Utils::OperationInfo op_info) override
    {
        return fmi_is_itself() ? fmi_library().operation_latency(op_info) : Family::get_operation_latency(op_info);
    }

    /** fmi_channel_operation_price() */
    double get_operation_price(Utils::OperationInfo op_info) override
    {
        return fmi_is_itself() ? fmi_library().operation_price(op_info) : Family::get_operation_price(op_info);
    }

    const char *fmi_kind_name() const override { return Self::fmi_kind; }

    fmi_channel *fmi_as_it_is() override { return fmi_is_itself() ? fmi_library().handle() : nullptr; }

protected:
    /** @param family  what the constructor of Family takes, if anything. */
    template <typename... Arguments>
    BuiltIn(std::map<std::string, std::string> own_params, std::map<std::string, std::string> own_model_params,
            const Arguments &...family)
        : Family(family...), fmi_params(std::move(own_params)), fmi_model_params(std::move(own_model_params))
    {
        /* Wrong parameters are told here, although the channel is not needed before its first use. */
        fmi_channel *probe = nullptr;
        check(fmi_make(0, 1, std::string(), &probe));
        fmi_channel_destroy(probe);
    }

    /** The library's channel. */
    Operations fmi_library()
    {
        const Member member = this->fmi_member();
        const auto make = [&](Utils::peer_num rank, Utils::peer_num size, const std::string &job, fmi_channel **out) {
            /* A process is one rank of a job once: a second channel needs a job of its own. */
            const bool is_second = !member.channel.empty();
            return fmi_make(rank, size, is_second ? job_of_channel(job, c_name(member.channel)) : job, out);
        };
        return fmi_library_handle.get(member, make);
    }

private:
    fmi_status fmi_make(Utils::peer_num rank, Utils::peer_num size, const std::string &job,
                        fmi_channel **out) const
    {
        return fmi_channel_create(Self::fmi_kind, json_object(fmi_params).c_str(),
                                  json_object(fmi_model_params).c_str(), rank, size, job.c_str(), out);
    }

    bool fmi_is_itself() const { return typeid(*this) == typeid(Self); }

    std::map<std::string, std::string> fmi_params;
    std::map<std::string, std::string> fmi_model_params;
    Handle fmi_library_handle;
};

} // namespace FMI::detail

#endif /* FMI_COMM_BUILTIN_H */
