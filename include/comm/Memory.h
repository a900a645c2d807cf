/*
 * The channel Memory.
 */
#include "Channel.h"

#ifndef FMI_COMM_MEMORY_H
#define FMI_COMM_MEMORY_H

#include "BuiltIn.h"
#include "PeerToPeer.h"

namespace FMI::detail {

/**
 * Memory that the ranks share, which are threads of one process:
 * fmi_channel_create() of "Memory". The original has none; a communicator makes
 * it where the configuration enables it.
 */
class Memory : public BuiltIn<Memory, Comm::PeerToPeer> {
public:
    static constexpr const char *fmi_kind = "Memory";

    explicit Memory(std::map<std::string, std::string> backend, std::map<std::string, std::string> model)
        : BuiltIn(std::move(backend), std::move(model))
    {
    }

    /** Sends bytes as a message (fmi_channel_send()). */
    void send_object(channel_data buf, Utils::peer_num dest) override { fmi_library().send(buf, dest); }

    /** Receives a message of that length (fmi_channel_recv()). */
    void recv_object(channel_data buf, Utils::peer_num src) override { fmi_library().recv(buf, src); }
};

} // namespace FMI::detail

#endif /* FMI_COMM_MEMORY_H */
