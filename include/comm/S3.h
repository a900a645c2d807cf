/*
 * The channel S3.
 */
#include "Channel.h"

#ifndef FMI_COMM_S3_H
#define FMI_COMM_S3_H

#include "Store.h"

namespace FMI::Comm {

/**
 * A bucket of an object store in between: fmi_channel_create() of "S3". See detail::BuiltIn on classes that
 * are derived from it.
 */
class S3 : public detail::Store<S3> {
public:
    static constexpr const char *fmi_kind = "S3";

    /**
     * @param backend  the keys of backends.S3: bucket_name, s3_region, timeout, max_timeout, ...
     * @param model    the keys of model.S3: bandwidth, overhead, ...
     */
    explicit S3(std::map<std::string, std::string> backend, std::map<std::string, std::string> model)
        : Store(std::move(backend), std::move(model))
    {
    }
};

} // namespace FMI::Comm

#endif /* FMI_COMM_S3_H */
