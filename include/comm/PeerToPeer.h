/*
 * Channels on which ranks address each other.
 */
#include "Channel.h"

#ifndef FMI_COMM_PEERTOPEER_H
#define FMI_COMM_PEERTOPEER_H

#include <vector>

namespace FMI::detail {

/** The tables of the two channels that an Object, a Comm::PeerToPeer, works by. */
template <typename Object>
struct PeerTables {
    /** Messages, which become objects. */
    static fmi_channel_vtable messages()
    {
        fmi_channel_vtable table = model();
        table.send_object = [](void *user, const void *data, std::size_t len, std::uint32_t dest) {
            return Handle::on<Object>(user, [&](Object &self) { self.send_object(readable(data, len), dest); });
        };
        table.recv_object = [](void *user, void *buf, std::size_t len, std::uint32_t src) {
            return Handle::on<Object>(user, [&](Object &self) { self.recv_object(writable(buf, len), src); });
        };
        return table;
    }

    /** Collectives, which become messages. */
    static fmi_channel_vtable collectives()
    {
        fmi_channel_vtable table = model();
        table.send = [](void *user, const void *data, std::size_t len, std::uint32_t dest) {
            return Handle::on<Object>(user, [&](Object &self) { self.send(readable(data, len), dest); });
        };
        table.recv = [](void *user, void *buf, std::size_t len, std::uint32_t src) {
            return Handle::on<Object>(user, [&](Object &self) { self.recv(writable(buf, len), src); });
        };
        return table;
    }

private:
    static fmi_channel_vtable model()
    {
        fmi_channel_vtable table{};
        table.struct_size = sizeof table;
        table.family = FMI_CHANNEL_PEER_TO_PEER;
        /* Only the object waits, and it knows for how long. */
        table.timeout_ms = FMI_TIMEOUT_NEVER;
        table.latency = Handle::latency<Object>;
        table.price = Handle::price<Object>;
        return table;
    }
};

} // namespace FMI::detail

namespace FMI::Comm {

/**
 * A channel on which ranks address each other: derive from it and supply
 * send_object(), recv_object(), get_latency() and get_price().
 *
 * All else is the library's work, by two channels of its own
 * (fmi_channel_create_custom() with FMI_CHANNEL_PEER_TO_PEER). send() and
 * recv() are fmi_channel_send() and fmi_channel_recv() on the first, which
 * calls send_object() and recv_object(): a header, then the message. The
 * collectives are fmi_channel_bcast() and its kin on the second, which calls
 * the virtual send() and recv().
 *
 * Nothing here relies on buffering: where two ranks send to each other, the
 * lower one receives first.
 */
class PeerToPeer : public Channel {
public:
    void send(channel_data buf, Utils::peer_num dest) override { fmi_messages().send(buf, dest); }

    void recv(channel_data buf, Utils::peer_num src) override { fmi_messages().recv(buf, src); }

    void bcast(channel_data buf, Utils::peer_num root) override { fmi_collectives().bcast(buf, root); }

    /** An allreduce of one byte. */
    void barrier() override
    {
        char mine = 0;
        char all = 0;
        allreduce({&mine, 1}, {&all, 1}, {[](char *, char *) {}, true, true});
    }

    void gather(channel_data sendbuf, channel_data recvbuf, Utils::peer_num root) override
    {
        if (peer_id == root) {
            recvbuf = detail::blocks(recvbuf, sendbuf.len, num_peers);
        }
        fmi_collectives().gather(sendbuf, recvbuf, root);
    }

    void scatter(channel_data sendbuf, channel_data recvbuf, Utils::peer_num root) override
    {
        if (peer_id == root) {
            sendbuf = detail::blocks(sendbuf, recvbuf.len, num_peers);
        }
        fmi_collectives().scatter(sendbuf, recvbuf, root);
    }

    void reduce(channel_data sendbuf, channel_data recvbuf, Utils::peer_num root, raw_function f) override
    {
        if (peer_id == root) {
            detail::require_room(recvbuf, sendbuf.len);
        }
        if (detail::is_ordered(f.commutative, f.associative)) {
            reduce_ltr(sendbuf, recvbuf, root, f);
        } else {
            reduce_no_order(sendbuf, recvbuf, root, f);
        }
    }

    void allreduce(channel_data sendbuf, channel_data recvbuf, raw_function f) override
    {
        detail::require_room(recvbuf, sendbuf.len);
        if (detail::is_ordered(f.commutative, f.associative)) {
            reduce(sendbuf, recvbuf, 0, std::move(f));
            bcast({recvbuf.buf, sendbuf.len}, 0);
        } else {
            allreduce_no_order(sendbuf, recvbuf, f);
        }
    }

    void scan(channel_data sendbuf, channel_data recvbuf, raw_function f) override
    {
        detail::require_room(recvbuf, sendbuf.len);
        if (detail::is_ordered(f.commutative, f.associative)) {
            scan_ltr(sendbuf, recvbuf, f);
        } else {
            scan_no_order(sendbuf, recvbuf, f);
        }
    }

    /** Sends bytes to a rank. Every call meets one of recv_object() there, of the same length and in the same order. */
    virtual void send_object(channel_data buf, Utils::peer_num dest) = 0;

    /** Receives bytes from a rank. */
    virtual void recv_object(channel_data buf, Utils::peer_num src) = 0;

    /** What the library's algorithms cost by get_latency() (fmi_channel_operation_latency()). */
    double get_operation_latency(Utils::OperationInfo op_info) override
    {
        return fmi_messages().operation_latency(op_info);
    }

    /** What the library's algorithms cost by get_price() (fmi_channel_operation_price()). */
    double get_operation_price(Utils::OperationInfo op_info) override
    {
        return fmi_messages().operation_price(op_info);
    }

protected:
    /** Reduces strictly from left to right: gathers all at the root, which combines them. */
    void reduce_ltr(channel_data sendbuf, channel_data recvbuf, Utils::peer_num root, const raw_function &f)
    {
        if (peer_id != root) {
            gather(sendbuf, {}, root);
            return;
        }
        const std::size_t len = sendbuf.len;
        std::vector<char> all(len * num_peers);
        gather(sendbuf, {all.data(), all.size()}, root);
        detail::copy(recvbuf.buf, all.data(), len);
        for (Utils::peer_num rank = 1; rank < num_peers; ++rank) {
            f.f(recvbuf.buf, all.data() + rank * len);
        }
    }

    /** Reduces in an order that is the library's choice. */
    void reduce_no_order(channel_data sendbuf, channel_data recvbuf, Utils::peer_num root, const raw_function &f)
    {
        fmi_collectives().reduce(sendbuf, recvbuf, root, f);
    }

    /** Reduces at all ranks in an order that is the library's choice. */
    void allreduce_no_order(channel_data sendbuf, channel_data recvbuf, const raw_function &f)
    {
        fmi_collectives().allreduce(sendbuf, recvbuf, f);
    }

    /** Scans strictly from left to right. */
    void scan_ltr(channel_data sendbuf, channel_data recvbuf, const raw_function &f)
    {
        fmi_collectives().scan(sendbuf, recvbuf, f);
    }

    /** Scans in an order that is the library's choice. */
    void scan_no_order(channel_data sendbuf, channel_data recvbuf, const raw_function &f)
    {
        fmi_collectives().scan(sendbuf, recvbuf, f);
    }

private:
    detail::Operations fmi_messages()
    {
        return fmi_messages_handle.custom(fmi_member(), this, detail::PeerTables<PeerToPeer>::messages);
    }

    detail::Operations fmi_collectives()
    {
        return fmi_collectives_handle.custom(fmi_member(), this, detail::PeerTables<PeerToPeer>::collectives);
    }

    detail::Handle fmi_messages_handle;
    detail::Handle fmi_collectives_handle;
};

} // namespace FMI::Comm

#endif /* FMI_COMM_PEERTOPEER_H */
