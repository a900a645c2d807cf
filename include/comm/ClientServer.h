/*
 * Channels on which ranks meet at a store.
 */
#include "Channel.h"

#ifndef FMI_COMM_CLIENTSERVER_H
#define FMI_COMM_CLIENTSERVER_H

#include <algorithm>
#include <chrono>
#include <thread>
#include <vector>

namespace FMI::detail {

/** A parameter in ms, or what it is where it is not given. */
inline unsigned milliseconds(const std::map<std::string, std::string> &params, const char *key, unsigned fallback)
{
    const auto found = params.find(key);
    if (found == params.end()) {
        return fallback;
    }
    const std::string &text = found->second;
    const bool is_number =
        !text.empty() && text.size() <= 9 && text.find_first_not_of("0123456789") == std::string::npos;
    if (!is_number) {
        throw std::runtime_error("FMI: " + std::string(key) + ": expected a number of ms below 10^9, found '" +
                                 text + "'");
    }
    return static_cast<unsigned>(std::stoul(text));
}

/** Sleeps until it is time to look again, or `end` has come. */
inline void pause(unsigned interval, std::chrono::steady_clock::time_point end)
{
    const auto next = std::chrono::steady_clock::now() + std::chrono::milliseconds(std::max(interval, 1U));
    std::this_thread::sleep_until(std::min(next, end));
}

/** The table of the channel that an Object, a Comm::ClientServer, works by. Times are in ms. */
template <typename Object>
fmi_channel_vtable store_table(unsigned timeout, unsigned max_timeout)
{
    fmi_channel_vtable table{};
    table.struct_size = sizeof table;
    table.family = FMI_CHANNEL_CLIENT_SERVER;
    /* To the library 0 is its default. */
    table.timeout_ms = std::max(max_timeout, 1U);
    table.poll_ms = std::max(timeout, 1U);
    table.upload_object = [](void *user, const char *name, const void *data, std::size_t len) {
        return Handle::on<Object>(user, [&](Object &self) { self.upload(readable(data, len), name); });
    };
    table.download_object = [](void *user, const char *name, void *buf, std::size_t capacity, std::int32_t *found) {
        return Handle::on<Object>(
            user, [&](Object &self) { *found = self.download_object(writable(buf, capacity), name); });
    };
    table.download = [](void *user, const char *name, void *buf, std::size_t capacity) {
        return Handle::on<Object>(user, [&](Object &self) { self.download(writable(buf, capacity), name); });
    };
    table.delete_object = [](void *user, const char *name) {
        return Handle::on<Object>(user, [&](Object &self) { self.delete_object(name); });
    };
    table.list_objects = [](void *user, std::int32_t (*visit)(void *, const char *), void *context) {
        return Handle::on<Object>(user, [&](Object &self) {
            for (const std::string &name : self.get_object_names()) {
                if (visit(context, name.c_str()) != 0) {
                    break;
                }
            }
        });
    };
    table.latency = Handle::latency<Object>;
    table.price = Handle::price<Object>;
    return table;
}

} // namespace FMI::detail

namespace FMI::Comm {

/**
 * A channel on which ranks meet at a store: derive from it and supply
 * upload_object(), download_object(), delete_object(), get_object_names(),
 * get_latency() and get_price().
 *
 * All operations are fmi_channel_send() and its kin on a channel of the
 * library (fmi_channel_create_custom() with FMI_CHANNEL_CLIENT_SERVER), which
 * calls upload(), download() for messages and download_object() to look
 * whether a rank has joined, delete_object() and get_object_names(). Names of
 * objects are flat and unique, of at most 200 bytes: letters, digits, '.', '_',
 * '-', and the name of the job as it is. Objects are never empty: they hold the
 * library's header, too.
 */
class ClientServer : public Channel {
public:
    /** @param params  `timeout`, the pause in ms between two looks for an object, and `max_timeout`. */
    explicit ClientServer(std::map<std::string, std::string> params)
        : timeout(detail::milliseconds(params, "timeout", 10)),
          max_timeout(detail::milliseconds(params, "max_timeout", 60000))
    {
    }

    void send(channel_data buf, Utils::peer_num dest) override { fmi_store_for("send").send(buf, dest); }

    void recv(channel_data buf, Utils::peer_num src) override { fmi_store_for("recv").recv(buf, src); }

    void bcast(channel_data buf, Utils::peer_num root) override { fmi_store_for("bcast").bcast(buf, root); }

    void barrier() override { fmi_store_for("barrier").barrier(); }

    void gather(channel_data sendbuf, channel_data recvbuf, Utils::peer_num root) override
    {
        if (peer_id == root) {
            recvbuf = detail::blocks(recvbuf, sendbuf.len, num_peers);
        }
        fmi_store_for("gather").gather(sendbuf, recvbuf, root);
    }

    void scatter(channel_data sendbuf, channel_data recvbuf, Utils::peer_num root) override
    {
        if (peer_id == root) {
            sendbuf = detail::blocks(sendbuf, recvbuf.len, num_peers);
        }
        fmi_store_for("scatter").scatter(sendbuf, recvbuf, root);
    }

    void reduce(channel_data sendbuf, channel_data recvbuf, Utils::peer_num root, raw_function f) override
    {
        if (peer_id == root) {
            detail::require_room(recvbuf, sendbuf.len);
        }
        fmi_store_for("reduce").reduce(sendbuf, recvbuf, root, f);
    }

    void allreduce(channel_data sendbuf, channel_data recvbuf, raw_function f) override
    {
        detail::require_room(recvbuf, sendbuf.len);
        fmi_store_for("allreduce").allreduce(sendbuf, recvbuf, f);
    }

    void scan(channel_data sendbuf, channel_data recvbuf, raw_function f) override
    {
        detail::require_room(recvbuf, sendbuf.len);
        fmi_store_for("scan").scan(sendbuf, recvbuf, f);
    }

    /**
     * Waits for the objects that this rank made to be read, which deletes them,
     * for max_timeout at most; then deletes what is left of them.
     */
    void finalize() override
    {
        try {
            const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(max_timeout);
            while (fmi_is_any_left() && std::chrono::steady_clock::now() < end) {
                detail::pause(timeout, end);
            }
        } catch (...) {
            /* A store that does not answer may still delete. */
        }
        for (const std::string &name : created_objects) {
            try {
                delete_object(name);
            } catch (...) {
                /* The next one may be deleted. */
            }
        }
        created_objects.clear();
    }

    /** Stores an object under a name, in place of one that is there. */
    virtual void upload_object(channel_data buf, std::string name) = 0;

    /**
     * Fetches an object, up to buf.len bytes of it.
     *
     * @return false if it is not there (yet).
     */
    virtual bool download_object(channel_data buf, std::string name) = 0;

    /** Deletes an object; one that is not there is no failure. */
    virtual void delete_object(std::string name) = 0;

    /** The names of all objects. */
    virtual std::vector<std::string> get_object_names() = 0;

    /** Stores an object, and remembers it for finalize(). */
    virtual void upload(channel_data buf, std::string name)
    {
        if (created_objects.size() >= fmi_forget_at) {
            fmi_forget_read();
        }
        created_objects.push_back(name);
        upload_object(buf, std::move(name));
    }

    /**
     * Fetches an object, and waits until it is there.
     *
     * @throws Utils::Timeout  when it is not there after max_timeout.
     */
    virtual void download(channel_data buf, std::string name)
    {
        const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(max_timeout);
        while (!download_object(buf, name)) {
            if (std::chrono::steady_clock::now() >= end) {
                throw Utils::Timeout("FMI: nobody stored the object '" + name + "' within " +
                                     std::to_string(max_timeout) + " ms");
            }
            detail::pause(timeout, end);
        }
    }

    /** What the library's algorithms cost by get_latency() (fmi_channel_operation_latency()). */
    double get_operation_latency(Utils::OperationInfo op_info) override
    {
        return fmi_store().operation_latency(op_info);
    }

    /** What the library's algorithms cost by get_price() (fmi_channel_operation_price()). */
    double get_operation_price(Utils::OperationInfo op_info) override
    {
        return fmi_store().operation_price(op_info);
    }

protected:
    /** How often each operation was called. */
    std::map<std::string, unsigned> num_operations;

    /** The objects that this rank has made and finalize() has not deleted. */
    std::vector<std::string> created_objects;

    /** The pause between two looks for an object, in ms. */
    unsigned timeout;

    /** How long an object is waited for, in ms. */
    unsigned max_timeout;

private:
    /* Forgets the objects that have been read, and so deleted: a long job would remember every message. */
    void fmi_forget_read()
    {
        try {
            std::vector<std::string> names = get_object_names();
            std::sort(names.begin(), names.end());
            const auto is_gone = [&](const std::string &name) {
                return !std::binary_search(names.begin(), names.end(), name);
            };
            created_objects.erase(std::remove_if(created_objects.begin(), created_objects.end(), is_gone),
                                  created_objects.end());
        } catch (...) {
            /* What is remembered too long is only deleted twice. */
        }
        fmi_forget_at = std::max(fmi_forget_least, 2 * created_objects.size());
    }

    bool fmi_is_any_left()
    {
        if (created_objects.empty()) {
            return false;
        }
        std::vector<std::string> names = get_object_names();
        std::sort(names.begin(), names.end());
        return std::any_of(created_objects.begin(), created_objects.end(), [&](const std::string &name) {
            return std::binary_search(names.begin(), names.end(), name);
        });
    }

    detail::Operations fmi_store()
    {
        return fmi_store_handle.custom(fmi_member(), this, [this] {
            return detail::store_table<ClientServer>(timeout, max_timeout);
        });
    }

    /* The same, for an operation that is counted. */
    detail::Operations fmi_store_for(const char *operation)
    {
        ++num_operations[operation];
        return fmi_store();
    }

    /* So many that a look at the names, one request of 1,000 of them on S3, is cheap beside the uploads. */
    static constexpr std::size_t fmi_forget_least = 1024;

    std::size_t fmi_forget_at = fmi_forget_least;
    detail::Handle fmi_store_handle;
};

} // namespace FMI::Comm

#endif /* FMI_COMM_CLIENTSERVER_H */
