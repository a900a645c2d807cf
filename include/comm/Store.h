/*
 * What the library's stores have in common.
 */
#include "Channel.h"

#ifndef FMI_COMM_STORE_H
#define FMI_COMM_STORE_H

#include "BuiltIn.h"
#include "ClientServer.h"

namespace FMI::detail {

/** A BuiltIn of the client-server family: its object functions are the store's primitives. */
template <typename Self>
class Store : public BuiltIn<Self, Comm::ClientServer> {
public:
    /** fmi_channel_upload() */
    void upload_object(channel_data buf, std::string name) override
    {
        fmi_channel *const store = this->fmi_library().handle();
        call(store, [&] { return fmi_channel_upload(store, name.c_str(), buf.buf, buf.len); });
    }

    /** fmi_channel_download() */
    bool download_object(channel_data buf, std::string name) override
    {
        fmi_channel *const store = this->fmi_library().handle();
        std::int32_t found = 0;
        call(store, [&] { return fmi_channel_download(store, name.c_str(), buf.buf, buf.len, &found); });
        return found != 0;
    }

    /** fmi_channel_delete() */
    void delete_object(std::string name) override
    {
        fmi_channel *const store = this->fmi_library().handle();
        call(store, [&] { return fmi_channel_delete(store, name.c_str()); });
    }

    /** fmi_channel_list() */
    std::vector<std::string> get_object_names() override
    {
        fmi_channel *const store = this->fmi_library().handle();
        std::vector<std::string> names;
        const auto visit = [](void *user, const char *name) {
            return callback([&] { static_cast<std::vector<std::string> *>(user)->emplace_back(name); });
        };
        call(store, [&] { return fmi_channel_list(store, visit, &names); });
        return names;
    }

protected:
    Store(std::map<std::string, std::string> backend, std::map<std::string, std::string> model)
        : BuiltIn<Self, Comm::ClientServer>(backend, std::move(model), backend)
    {
    }
};

} // namespace FMI::detail

#endif /* FMI_COMM_STORE_H */
