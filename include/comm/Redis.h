/*
 * The channel Redis.
 */
#include "Channel.h"

#ifndef FMI_COMM_REDIS_H
#define FMI_COMM_REDIS_H

#include "Store.h"

namespace FMI::Comm {

/**
 * A Redis server in between: fmi_channel_create() of "Redis". See detail::BuiltIn on classes that
 * are derived from it.
 */
class Redis : public detail::Store<Redis> {
public:
    static constexpr const char *fmi_kind = "Redis";

    /**
     * @param backend  the keys of backends.Redis: host, port, timeout, max_timeout, ...
     * @param model    the keys of model.Redis: bandwidth_single, bandwidth_multiple, overhead, ...
     */
    explicit Redis(std::map<std::string, std::string> backend, std::map<std::string, std::string> model)
        : Store(std::move(backend), std::move(model))
    {
    }
};

} // namespace FMI::Comm

#endif /* FMI_COMM_REDIS_H */
