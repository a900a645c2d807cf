/*
 * The choice of the channel.
 */
#ifndef FMI_UTILS_CHANNELPOLICY_H
#define FMI_UTILS_CHANNELPOLICY_H

#include <cstddef>
#include <limits>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>

#include "../comm/Channel.h"
#include "Common.h"

namespace FMI::Utils {

/**
 * Chooses the channel of every operation by what the channels predict
 * (Channel::get_operation_latency(), Channel::get_operation_price()). Derive
 * from it to choose otherwise; all ranks must choose alike.
 */
class ChannelPolicy {
public:
    /**
     * @param known          the channels by name; the map is not copied: what is added later counts.
     * @param ranks          the number of ranks, all of which are billed while they wait.
     * @param price_of_time  the price of one function's time, in USD per second.
     * @param preference     what to go by.
     */
    ChannelPolicy(std::map<std::string, std::shared_ptr<Comm::Channel>> &known, peer_num ranks,
                  double price_of_time, Hint preference)
        : channels(known), num_peers(ranks), faas_price(price_of_time), hint(preference)
    {
    }

    virtual ~ChannelPolicy() = default;

    /**
     * The name of the channel with the least latency or price; of equal ones
     * the first by name. For messages it is always the same one, whatever their
     * length: sender and receiver may hold different ones, and have to meet.
     */
    virtual std::string get_channel(OperationInfo op_info)
    {
        if (op_info.op == send) {
            op_info.data_size = typical_message;
        }
        const std::string *best = nullptr;
        double least = 0;
        for (const auto &[name, channel] : channels) {
            const double cost = hint == fast ? channel->get_operation_latency(op_info) : price(*channel, op_info);
            /* A channel whose cost is no number is as dear as can be. */
            const double known = cost == cost ? cost : std::numeric_limits<double>::infinity();
            if (!best || known < least) {
                best = &name;
                least = known;
            }
        }
        if (!best) {
            throw std::runtime_error("FMI: there is no channel to choose from");
        }
        return *best;
    }

    /** Says what to go by from now on. */
    virtual void set_hint(Hint new_hint) { hint = new_hint; }

private:
    /* In bytes: where start-up and bandwidth both count on most channels. */
    static constexpr std::size_t typical_message = 64 * 1024;

    /* What the channel asks for, and the time of the functions. */
    double price(Comm::Channel &channel, const OperationInfo &op_info) const
    {
        const double seconds = channel.get_operation_latency(op_info) / 1000;
        return channel.get_operation_price(op_info) + num_peers * seconds * faas_price;
    }

    std::map<std::string, std::shared_ptr<Comm::Channel>> &channels;
    peer_num num_peers;
    double faas_price;
    Hint hint;
};

} // namespace FMI::Utils

#endif /* FMI_UTILS_CHANNELPOLICY_H */
