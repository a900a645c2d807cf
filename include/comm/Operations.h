/*
 * The library's channels, as the classes of channels use them.
 */
#ifndef FMI_COMM_OPERATIONS_H
#define FMI_COMM_OPERATIONS_H

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <utility>

#include "../utils/CApi.h"
#include "../utils/Common.h"
#include "../utils/Errors.h"
#include "../utils/Reduction.h"
#include "../utils/Text.h"

namespace FMI::detail {

/** The FMI_OPERATION_... number of an operation. */
inline std::int32_t operation_code(Utils::Operation operation)
{
    switch (operation) {
    case Utils::send:
        return FMI_OPERATION_SEND;
    case Utils::bcast:
        return FMI_OPERATION_BCAST;
    case Utils::barrier:
        return FMI_OPERATION_BARRIER;
    case Utils::gather:
        return FMI_OPERATION_GATHER;
    case Utils::scatter:
        return FMI_OPERATION_SCATTER;
    case Utils::reduce:
        return FMI_OPERATION_REDUCE;
    case Utils::allreduce:
        return FMI_OPERATION_ALLREDUCE;
    case Utils::scan:
        return FMI_OPERATION_SCAN;
    }
    throw std::runtime_error("FMI: no such operation");
}

/** The operation of an FMI_OPERATION_... number: a newer one is the nearest of those that the original has. */
inline Utils::Operation operation_of(std::int32_t code) noexcept
{
    switch (code) {
    case FMI_OPERATION_BCAST:
        return Utils::bcast;
    case FMI_OPERATION_BARRIER:
        return Utils::barrier;
    case FMI_OPERATION_GATHER:
        return Utils::gather;
    case FMI_OPERATION_SCATTER:
        return Utils::scatter;
    case FMI_OPERATION_REDUCE:
        return Utils::reduce;
    case FMI_OPERATION_ALLREDUCE:
        return Utils::allreduce;
    case FMI_OPERATION_SCAN:
        return Utils::scan;
    default:
        return Utils::send;
    }
}

/** What a callback is given to send, as a channel takes it, which will not write to it. */
inline channel_data readable(const void *data, std::size_t len) noexcept
{
    return {static_cast<char *>(const_cast<void *>(data)), len};
}

/** What a callback is given to fill. */
inline channel_data writable(void *buf, std::size_t len) noexcept { return {static_cast<char *>(buf), len}; }

/** Throws std::runtime_error unless `buf` has room for `len` bytes. */
inline void require_room(channel_data buf, std::size_t len)
{
    if (buf.len < len) {
        throw std::runtime_error("FMI: a buffer of " + std::to_string(buf.len) + " bytes is too small for " +
                                 std::to_string(len));
    }
}

/** The part of the root's buffer that holds a block of `len` bytes of every rank. */
inline channel_data blocks(channel_data buf, std::size_t len, Utils::peer_num ranks)
{
    if (len > 0 && buf.len / len < ranks) {
        throw std::runtime_error("FMI: the root's buffer of " + std::to_string(buf.len) +
                                 " bytes is too small for " + std::to_string(ranks) + " blocks of " +
                                 std::to_string(len));
    }
    return {buf.buf, len * ranks};
}

/** Copies within or between buffers, which may be the same. */
inline void copy(char *to, const char *from, std::size_t len)
{
    if (len > 0 && to != from) {
        std::memmove(to, from, len);
    }
}

/** Which rank of which job a channel is. The texts belong to the channel. */
struct Member {
    Utils::peer_num rank;
    Utils::peer_num size;
    const std::string &job;
    /** What tells channels of one job apart; may be empty. */
    const std::string &channel;
    /** Another number for each communicator that has had the channel. */
    unsigned edition;
};

/** A channel of the library at work: fmi_channel_send() and its kin, with exceptions in place of statuses. */
class Operations {
public:
    explicit Operations(fmi_channel *handle) noexcept : channel(handle) {}

    fmi_channel *handle() const noexcept { return channel; }

    void send(channel_data data, Utils::peer_num dest) const
    {
        call(channel, [&] { return fmi_channel_send(channel, data.buf, data.len, dest); });
    }

    void recv(channel_data data, Utils::peer_num src) const
    {
        call(channel, [&] { return fmi_channel_recv(channel, data.buf, data.len, src); });
    }

    void bcast(channel_data data, Utils::peer_num root) const
    {
        call(channel, [&] { return fmi_channel_bcast(channel, data.buf, data.len, root); });
    }

    void barrier() const
    {
        call(channel, [&] { return fmi_channel_barrier(channel); });
    }

    void gather(channel_data send, channel_data recv, Utils::peer_num root) const
    {
        call(channel, [&] { return fmi_channel_gather(channel, send.buf, send.len, recv.buf, recv.len, root); });
    }

    void scatter(channel_data send, channel_data recv, Utils::peer_num root) const
    {
        call(channel, [&] { return fmi_channel_scatter(channel, send.buf, send.len, recv.buf, recv.len, root); });
    }

    void reduce(channel_data send, channel_data recv, Utils::peer_num root, const raw_function &f) const
    {
        const fmi_op op = op_of(f);
        call(
            channel,
            [&] { return fmi_channel_reduce(channel, send.buf, recv.buf, send.len, FMI_BYTE, op, root); }, &f);
    }

    void allreduce(channel_data send, channel_data recv, const raw_function &f) const
    {
        const fmi_op op = op_of(f);
        call(
            channel, [&] { return fmi_channel_allreduce(channel, send.buf, recv.buf, send.len, FMI_BYTE, op); },
            &f);
    }

    void scan(channel_data send, channel_data recv, const raw_function &f) const
    {
        const fmi_op op = op_of(f);
        call(
            channel, [&] { return fmi_channel_scan(channel, send.buf, recv.buf, send.len, FMI_BYTE, op); }, &f);
    }

    double latency(Utils::peer_num producers, Utils::peer_num consumers, std::size_t bytes) const
    {
        return ask([&](double *out) { return fmi_channel_latency(channel, producers, consumers, bytes, out); });
    }

    double price(Utils::peer_num producers, Utils::peer_num consumers, std::size_t bytes) const
    {
        return ask([&](double *out) { return fmi_channel_price(channel, producers, consumers, bytes, out); });
    }

    double operation_latency(const Utils::OperationInfo &info) const
    {
        const std::int32_t operation = operation_code(info.op);
        return ask([&](double *out) {
            return fmi_channel_operation_latency(channel, operation, info.data_size, info.left_to_right, out);
        });
    }

    double operation_price(const Utils::OperationInfo &info) const
    {
        const std::int32_t operation = operation_code(info.op);
        return ask([&](double *out) {
            return fmi_channel_operation_price(channel, operation, info.data_size, info.left_to_right, out);
        });
    }

private:
    /* A callback of the model returns a number, and cannot say that it threw. */
    template <typename Function>
    double ask(Function &&function) const
    {
        double answer = 0;
        call(channel, [&] {
            const fmi_status status = function(&answer);
            return status >= FMI_OK && Call::current->thrown ? FMI_ERR_CALLBACK : status;
        });
        return answer;
    }

    fmi_channel *channel;
};

/**
 * A channel of the library that belongs to an object: made when it is first
 * needed, and made anew when the object has become another rank, one of another
 * job, or the channel of another communicator, and so leaves behind what has
 * failed. A copy of the object makes one of its own.
 */
class Handle {
public:
    Handle() = default;
    Handle(const Handle &) noexcept {}
    Handle &operator=(const Handle &) noexcept
    {
        reset();
        return *this;
    }
    ~Handle() { reset(); }

    /**
     * @param member  the rank and the job that the object is now.
     * @param make    makes the channel: (rank, size, job, out) -> fmi_status.
     */
    template <typename Make>
    Operations get(const Member &member, Make &&make)
    {
        if (!channel || edition != member.edition || rank != member.rank || size != member.size ||
            job != member.job || name != member.channel) {
            reset();
            job = member.job;
            name = member.channel;
            rank = member.rank;
            size = member.size;
            edition = member.edition;
            /* The model can be asked before anybody has said which rank this is. */
            check(size == 0 ? make(0, 1, c_name(job), &channel) : make(rank, size, c_name(job), &channel));
        }
        return Operations(channel);
    }

    /**
     * As get(), for a channel that calls `object` back, by entries that begin with on().
     *
     * @param make_vtable  () -> fmi_channel_vtable.
     */
    template <typename Make>
    Operations custom(const Member &member, void *object, Make &&make_vtable)
    {
        const Operations operations = get(member, [&](Utils::peer_num own_rank, Utils::peer_num own_size,
                                                      const std::string &own_job, fmi_channel **out) {
            const fmi_channel_vtable vtable = make_vtable();
            return fmi_channel_create_custom(&vtable, this, own_rank, own_size, own_job.c_str(), out);
        });
        owner = object;
        return operations;
    }

    /** Gives the channel back (fmi_channel_destroy()), which may wait for what was sent to arrive. */
    void reset() noexcept
    {
        /* The object may be half gone: nothing calls it any more. */
        owner = nullptr;
        fmi_channel_destroy(std::exchange(channel, nullptr));
    }

    /**
     * The body of a callback of a custom() channel.
     *
     * @param user  what the callback was given.
     * @param body  (Owner &) -> void.
     */
    template <typename Owner, typename Body>
    static std::int32_t on(void *user, Body &&body) noexcept
    {
        auto *const object = static_cast<Owner *>(static_cast<Handle *>(user)->owner);
        return object ? callback([&] { body(*object); }) : FMI_ERR_CLOSED;
    }

    /** The entry `latency` of a custom() channel. */
    template <typename Owner>
    static double latency(void *user, std::uint32_t producers, std::uint32_t consumers, std::size_t bytes) noexcept
    {
        double milliseconds = 0;
        on<Owner>(user, [&](Owner &self) { milliseconds = self.get_latency(producers, consumers, bytes); });
        return milliseconds;
    }

    /** The entry `price` of a custom() channel. */
    template <typename Owner>
    static double price(void *user, std::uint32_t producers, std::uint32_t consumers, std::size_t bytes) noexcept
    {
        double dollars = 0;
        on<Owner>(user, [&](Owner &self) { dollars = self.get_price(producers, consumers, bytes); });
        return dollars;
    }

private:
    fmi_channel *channel = nullptr;
    void *owner = nullptr;
    Utils::peer_num rank = 0;
    Utils::peer_num size = 0;
    unsigned edition = 0;
    std::string job;
    std::string name;
};

} // namespace FMI::detail

#endif /* FMI_COMM_OPERATIONS_H */
