/*
 * Channels of the user's own, as a communicator uses them.
 */
#include "Channel.h"

#ifndef FMI_COMM_REGISTERED_H
#define FMI_COMM_REGISTERED_H

#include <limits>
#include <memory>

namespace FMI::detail {

/**
 * The table of a whole channel (FMI_CHANNEL_WHOLE) whose functions call an
 * object's virtual ones. Its `user` is a shared_ptr to the object, on the heap.
 */
class Registered {
public:
    /**
     * Makes a channel that keeps `object` alive (fmi_channel_create_custom()).
     *
     * @return to be freed with fmi_channel_destroy().
     */
    static fmi_channel *make(const std::shared_ptr<Comm::Channel> &object, Utils::peer_num rank,
                             Utils::peer_num size, const std::string &job)
    {
        const fmi_channel_vtable functions = vtable();
        fmi_channel *channel = nullptr;
        check(fmi_channel_create_custom(&functions, new std::shared_ptr<Comm::Channel>(object), rank, size,
                                        job.c_str(), &channel));
        return channel;
    }

private:
    static fmi_channel_vtable vtable()
    {
        fmi_channel_vtable table{};
        table.struct_size = sizeof table;
        table.family = FMI_CHANNEL_WHOLE;
        /* Only the object waits, and it knows for how long. */
        table.timeout_ms = FMI_TIMEOUT_NEVER;
        table.send = [](void *user, const void *data, std::size_t len, std::uint32_t dest) {
            return callback([&] { object(user).send(readable(data, len), dest); });
        };
        table.recv = [](void *user, void *buf, std::size_t len, std::uint32_t src) {
            return callback([&] { object(user).recv(writable(buf, len), src); });
        };
        table.bcast = [](void *user, void *buf, std::size_t len, std::uint32_t root) {
            return callback([&] { object(user).bcast(writable(buf, len), root); });
        };
        table.barrier = [](void *user) { return callback([&] { object(user).barrier(); }); };
        table.gather = [](void *user, const void *send, std::size_t send_len, void *recv, std::size_t recv_len,
                          std::uint32_t root) {
            return callback([&] { object(user).gather(readable(send, send_len), writable(recv, recv_len), root); });
        };
        table.scatter = [](void *user, const void *send, std::size_t send_len, void *recv, std::size_t recv_len,
                           std::uint32_t root) {
            return callback([&] { object(user).scatter(readable(send, send_len), writable(recv, recv_len), root); });
        };
        table.reduce = [](void *user, const void *send, void *recv, std::size_t len,
                          const fmi_reduction *reduction, std::uint32_t root) {
            const raw_function f = function(reduction, len);
            const std::size_t recv_len = recv ? len : 0;
            return callback([&] { object(user).reduce(readable(send, len), writable(recv, recv_len), root, f); });
        };
        table.allreduce = [](void *user, const void *send, void *recv, std::size_t len,
                             const fmi_reduction *reduction) {
            const raw_function f = function(reduction, len);
            return callback([&] { object(user).allreduce(readable(send, len), writable(recv, len), f); });
        };
        table.scan = [](void *user, const void *send, void *recv, std::size_t len, const fmi_reduction *reduction) {
            const raw_function f = function(reduction, len);
            return callback([&] { object(user).scan(readable(send, len), writable(recv, len), f); });
        };
        table.latency = [](void *user, std::uint32_t producers, std::uint32_t consumers, std::size_t bytes) {
            return answer([&] { return object(user).get_latency(producers, consumers, bytes); });
        };
        table.price = [](void *user, std::uint32_t producers, std::uint32_t consumers, std::size_t bytes) {
            return answer([&] { return object(user).get_price(producers, consumers, bytes); });
        };
        table.operation_latency = [](void *user, std::int32_t code, std::size_t bytes, std::int32_t left_to_right) {
            return answer([&] {
                return object(user).get_operation_latency({operation_of(code), bytes, left_to_right != 0});
            });
        };
        table.operation_price = [](void *user, std::int32_t code, std::size_t bytes, std::int32_t left_to_right) {
            return answer([&] {
                return object(user).get_operation_price({operation_of(code), bytes, left_to_right != 0});
            });
        };
        table.finalize = [](void *user) { callback([&] { object(user).finalize(); }); };
        table.drop = [](void *user) {
            callback([&] { delete static_cast<std::shared_ptr<Comm::Channel> *>(user); });
        };
        return table;
    }

    static Comm::Channel &object(void *user) { return **static_cast<std::shared_ptr<Comm::Channel> *>(user); }

    /* What the user's function says; where it throws, that nothing is dearer. */
    template <typename Body>
    static double answer(Body &&body) noexcept
    {
        double number = std::numeric_limits<double>::infinity();
        callback([&] { number = body(); });
        return number;
    }

    /* The running reduction on buffers of `len` bytes: the caller's function itself, or the library's operation. */
    static raw_function function(const fmi_reduction *reduction, std::size_t len)
    {
        if (Call::current && Call::current->reduction) {
            return *Call::current->reduction;
        }
        const auto flags = static_cast<std::uint32_t>(fmi_reduction_flags(reduction));
        const auto apply = [reduction, len](char *inout, char *in) {
            check(fmi_reduction_apply(reduction, inout, in, len));
        };
        return {apply, (flags & FMI_OP_ASSOCIATIVE) != 0, (flags & FMI_OP_COMMUTATIVE) != 0};
    }
};

} // namespace FMI::detail

#endif /* FMI_COMM_REGISTERED_H */
