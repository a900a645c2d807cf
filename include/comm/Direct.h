/*
 * The channel Direct.
 */
#include "Channel.h"

#ifndef FMI_COMM_DIRECT_H
#define FMI_COMM_DIRECT_H

#include "BuiltIn.h"
#include "PeerToPeer.h"

namespace FMI::Comm {

/**
 * TCP connections between the ranks, through NATs too, made with the help of a
 * rendezvous server: fmi_channel_create() of "Direct". See detail::BuiltIn on
 * classes that are derived from it.
 */
class Direct : public detail::BuiltIn<Direct, PeerToPeer> {
public:
    static constexpr const char *fmi_kind = "Direct";

    /**
     * @param backend  the keys of backends.Direct: host, port, max_timeout, ...
     * @param model    the keys of model.Direct: bandwidth, overhead, ...
     */
    explicit Direct(std::map<std::string, std::string> backend, std::map<std::string, std::string> model)
        : BuiltIn(std::move(backend), std::move(model))
    {
    }

    /** Sends bytes as a message (fmi_channel_send()). */
    void send_object(channel_data buf, Utils::peer_num dest) override { fmi_library().send(buf, dest); }

    /** Receives a message of that length (fmi_channel_recv()). */
    void recv_object(channel_data buf, Utils::peer_num src) override { fmi_library().recv(buf, src); }
};

} // namespace FMI::Comm

#endif /* FMI_COMM_DIRECT_H */
