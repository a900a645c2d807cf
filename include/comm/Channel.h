/*
 * The interface of channels: what a communicator sends over, and what you
 * derive from to supply a channel of your own. The classes that do most of the
 * work for you are PeerToPeer and ClientServer.
 */
#ifndef FMI_COMM_CHANNEL_H
#define FMI_COMM_CHANNEL_H

#include <cstddef>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>

#include "../utils/CApi.h"
#include "../utils/Common.h"
#include "Operations.h"

namespace FMI {

class Communicator;

namespace Comm {

/**
 * A way to move bytes between the ranks of a job.
 *
 * Operations block until the buffers may be used again; they throw
 * Utils::Timeout when the time is over and any other exception on other
 * failures. What matters only at the root is ignored elsewhere. The three
 * operations that have a default here need no more than send, recv, reduce and
 * bcast. A communicator calls the virtual functions of any object but those
 * that are exactly a Direct, Redis or S3.
 *
 * In this class and those derived from it, members that the original's have not
 * begin with fmi_: any other name would hide the one that your own class means.
 */
class Channel {
public:
    Channel() = default;
    Channel(const Channel &) = default;
    Channel &operator=(const Channel &) = default;
    virtual ~Channel() = default;

    /** Sends a message to the rank `dest`. */
    virtual void send(channel_data buf, Utils::peer_num dest) = 0;

    /** Receives a message of exactly buf.len bytes from the rank `src`. */
    virtual void recv(channel_data buf, Utils::peer_num src) = 0;

    /** Gives the root's buffer to all. */
    virtual void bcast(channel_data buf, Utils::peer_num root) = 0;

    /** Returns when all ranks have called it. */
    virtual void barrier() = 0;

    /** Collects the buffers of all at the root, in the order of ranks. */
    virtual void gather(channel_data sendbuf, channel_data recvbuf, Utils::peer_num root)
    {
        if (peer_id != root) {
            send(sendbuf, root);
            return;
        }
        const std::size_t len = sendbuf.len;
        recvbuf = detail::blocks(recvbuf, len, num_peers);
        for (Utils::peer_num rank = 0; rank < num_peers; ++rank) {
            const channel_data block{recvbuf.buf + rank * len, len};
            if (rank == root) {
                detail::copy(block.buf, sendbuf.buf, len);
            } else {
                recv(block, rank);
            }
        }
    }

    /** Gives every rank its block of the root's buffer, in the order of ranks. */
    virtual void scatter(channel_data sendbuf, channel_data recvbuf, Utils::peer_num root)
    {
        if (peer_id != root) {
            recv(recvbuf, root);
            return;
        }
        const std::size_t len = recvbuf.len;
        sendbuf = detail::blocks(sendbuf, len, num_peers);
        for (Utils::peer_num rank = 0; rank < num_peers; ++rank) {
            const channel_data block{sendbuf.buf + rank * len, len};
            if (rank == root) {
                detail::copy(recvbuf.buf, block.buf, len);
            } else {
                send(block, rank);
            }
        }
    }

    /** Combines the buffers of all at the root. sendbuf is not modified, unless it is recvbuf. */
    virtual void reduce(channel_data sendbuf, channel_data recvbuf, Utils::peer_num root, raw_function f) = 0;

    /** Combines the buffers of all at all of them. sendbuf is not modified, unless it is recvbuf. */
    virtual void allreduce(channel_data sendbuf, channel_data recvbuf, raw_function f)
    {
        reduce(sendbuf, recvbuf, 0, std::move(f));
        bcast(recvbuf, 0);
    }

    /** Combines the buffers of the ranks from 0 to this one. sendbuf is not modified, unless it is recvbuf. */
    virtual void scan(channel_data sendbuf, channel_data recvbuf, raw_function f) = 0;

    /** Says which rank this is, from 0 to the number of ranks - 1. */
    void set_peer_id(Utils::peer_num id) { peer_id = id; }

    /** Says how many ranks there are. */
    void set_num_peers(Utils::peer_num num) { num_peers = num; }

    /** Says which job this is: the same on all ranks, and of no other job at that time. */
    void set_comm_name(std::string name) { comm_name = std::move(name); }

    /** Called when a communicator that has the channel ends. Must not throw. */
    virtual void finalize() {}

    /**
     * Makes a channel of the library's.
     *
     * @param name          "Direct", "Redis" or "S3".
     * @param params        the keys of its section in `backends`.
     * @param model_params  the keys of its section in `model`.
     * @throws std::runtime_error  for any other name.
     */
    static std::shared_ptr<Channel> get_channel(std::string name, std::map<std::string, std::string> params,
                                                std::map<std::string, std::string> model_params);

    /** The latency in ms of a simple exchange: every producer's `bytes` to every consumer. */
    virtual double get_latency(Utils::peer_num producer, Utils::peer_num consumer, std::size_t bytes) = 0;

    /** The price in USD of the same. */
    virtual double get_price(Utils::peer_num producer, Utils::peer_num consumer, std::size_t bytes) = 0;

    /** The latency in ms of an operation of all ranks. */
    virtual double get_operation_latency(Utils::OperationInfo op_info) = 0;

    /** The price in USD of an operation of all ranks, without that of their time. */
    virtual double get_operation_price(Utils::OperationInfo op_info) = 0;

protected:
    Utils::peer_num peer_id = 0;
    Utils::peer_num num_peers = 0;
    std::string comm_name;

    /** Who this is, for channels of the library that the object works by. */
    detail::Member fmi_member() const
    {
        return {peer_id, num_peers, comm_name, fmi_registered_name, fmi_edition};
    }

private:
    friend class FMI::Communicator;

    /* The communicator's name for the channel. */
    std::string fmi_registered_name;

    /* How many communicators have had the channel: for each it begins anew. */
    unsigned fmi_edition = 0;
};

} // namespace Comm
} // namespace FMI

/*
 * get_channel() makes all of these. They include this file before their own
 * guards, so that whichever header comes first, the order is that of here.
 */
#include "Direct.h"
#include "Redis.h"
#include "S3.h"

inline std::shared_ptr<FMI::Comm::Channel>
FMI::Comm::Channel::get_channel(std::string name, std::map<std::string, std::string> params,
                                std::map<std::string, std::string> model_params)
{
    if (name == "Direct") {
        return std::make_shared<Direct>(std::move(params), std::move(model_params));
    }
    if (name == "Redis") {
        return std::make_shared<Redis>(std::move(params), std::move(model_params));
    }
    if (name == "S3") {
        return std::make_shared<S3>(std::move(params), std::move(model_params));
    }
    throw std::runtime_error("FMI: there is no channel '" + name + "'");
}

#endif /* FMI_COMM_CHANNEL_H */
