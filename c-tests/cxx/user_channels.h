// Channels as users of the original write them: of every kind.
#ifndef FMI_TEST_CXX_USER_CHANNELS_H
#define FMI_TEST_CXX_USER_CHANNELS_H

#include "support.h"

#include <fstream>
#include <set>

#include <sys/stat.h>

namespace user {

// A pipe between every two ranks that are processes. The ends are opened before the fork.
class Pipes : public FMI::Comm::PeerToPeer {
public:
    class Ends {
    public:
        explicit Ends(peer_num size) : size(size), ends(size * size)
        {
            for (auto &pair : ends) {
                CHECK(pipe(pair.data()) == 0);
            }
        }

        ~Ends()
        {
            for (auto &pair : ends) {
                close(pair[0]);
                close(pair[1]);
            }
        }

        int reading(peer_num from, peer_num to) const { return ends[from * size + to][0]; }
        int writing(peer_num from, peer_num to) const { return ends[from * size + to][1]; }

    private:
        peer_num size;
        std::vector<std::array<int, 2>> ends;
    };

    explicit Pipes(const Ends &ends) : ends(ends) {}

    void send_object(channel_data buf, peer_num dest) override
    {
        while (buf.len > 0) {
            const ssize_t written = write(ends.writing(peer_id, dest), buf.buf, buf.len);
            if (written <= 0) {
                throw std::runtime_error("the pipe is broken");
            }
            buf = {buf.buf + written, buf.len - static_cast<std::size_t>(written)};
        }
    }

    void recv_object(channel_data buf, peer_num src) override
    {
        while (buf.len > 0) {
            const ssize_t got = read(ends.reading(src, peer_id), buf.buf, buf.len);
            if (got <= 0) {
                throw std::runtime_error("the pipe is broken");
            }
            buf = {buf.buf + got, buf.len - static_cast<std::size_t>(got)};
        }
    }

    double get_latency(peer_num producer, peer_num consumer, std::size_t bytes) override
    {
        return producer * consumer * 0.01 + static_cast<double>(bytes) * 1e-6;
    }

    double get_price(peer_num, peer_num, std::size_t) override { return 0; }

private:
    const Ends &ends;
};

// Ranks that are threads; whoever sends waits until the other has it.
class HandOver : public FMI::Comm::PeerToPeer {
public:
    struct Table {
        std::mutex mutex;
        std::condition_variable changed;
        std::map<std::pair<peer_num, peer_num>, channel_data> objects;
    };

    explicit HandOver(std::shared_ptr<Table> table) : table(std::move(table)) {}

    void send_object(channel_data buf, peer_num dest) override
    {
        std::unique_lock<std::mutex> lock(table->mutex);
        const auto place = std::make_pair(peer_id, dest);
        CHECK(table->objects.emplace(place, buf).second);
        table->changed.notify_all();
        wait(lock, [&] { return table->objects.count(place) == 0; });
    }

    void recv_object(channel_data buf, peer_num src) override
    {
        std::unique_lock<std::mutex> lock(table->mutex);
        const auto place = std::make_pair(src, peer_id);
        wait(lock, [&] { return table->objects.count(place) != 0; });
        const channel_data object = table->objects.at(place);
        CHECK(object.len == buf.len);
        std::memcpy(buf.buf, object.buf, buf.len);
        table->objects.erase(place);
        table->changed.notify_all();
    }

    double get_latency(peer_num, peer_num, std::size_t) override { return 0.001; }
    double get_price(peer_num, peer_num, std::size_t) override { return 0; }

private:
    template <typename Condition>
    void wait(std::unique_lock<std::mutex> &lock, Condition condition)
    {
        if (!table->changed.wait_for(lock, std::chrono::seconds(20), condition)) {
            throw FMI::Utils::Timeout();
        }
    }

    std::shared_ptr<Table> table;
};

// Files in a directory.
class Directory : public FMI::Comm::ClientServer {
public:
    // A new directory, gone with the object.
    class Path {
    public:
        Path()
        {
            char pattern[] = "/tmp/fmi-test-XXXXXX";
            CHECK(mkdtemp(pattern) != nullptr);
            path = pattern;
        }

        ~Path()
        {
            for (const std::string &name : names()) {
                unlink((path + "/" + name).c_str());
            }
            rmdir(path.c_str());
        }

        Path(const Path &) = delete;
        Path &operator=(const Path &) = delete;

        std::vector<std::string> names() const
        {
            std::vector<std::string> names;
            DIR *const directory = opendir(path.c_str());
            CHECK(directory != nullptr);
            while (const dirent *const entry = readdir(directory)) {
                const std::string name = entry->d_name;
                if (name != "." && name != ".." && name.rfind(unfinished, 0) != 0) {
                    names.push_back(name);
                }
            }
            closedir(directory);
            return names;
        }

        std::string path;
    };

    // What the names of files begin with that are being written.
    static constexpr const char *unfinished = ".unfinished-";

    explicit Directory(const Path &path, std::map<std::string, std::string> params = {{"timeout", "1"},
                                             {"max_timeout", "20000"}})
        : ClientServer(std::move(params)), path(path)
    {
    }

    void upload_object(channel_data buf, std::string name) override
    {
        CHECK(buf.len > 0 && name.size() <= 200 && name.find('/') == std::string::npos);
        // Nobody sees half of it: files appear by their last name when they are whole.
        const std::string file = path.path + "/" + unfinished + std::to_string(getpid()) + "-" +
                                 std::to_string(peer_id) + "-" + name.substr(0, 150);
        std::ofstream(file, std::ios::binary).write(buf.buf, static_cast<std::streamsize>(buf.len));
        CHECK(rename(file.c_str(), (path.path + "/" + name).c_str()) == 0);
    }

    bool download_object(channel_data buf, std::string name) override
    {
        std::ifstream file(path.path + "/" + name, std::ios::binary);
        if (!file) {
            return false;
        }
        file.read(buf.buf, static_cast<std::streamsize>(buf.len));
        return true;
    }

    void delete_object(std::string name) override { unlink((path.path + "/" + name).c_str()); }

    std::vector<std::string> get_object_names() override { return path.names(); }

    double get_latency(peer_num, peer_num, std::size_t) override { return 1; }
    double get_price(peer_num producer, peer_num consumer, std::size_t) override { return producer + consumer; }

private:
    const Path &path;
};

// Everything from scratch, as simple as it can be: ranks are threads with letter boxes, and the operations are
// loops over send and recv.
class Letters : public FMI::Comm::Channel {
public:
    struct Boxes {
        std::mutex mutex;
        std::condition_variable changed;
        std::map<std::pair<peer_num, peer_num>, std::vector<std::vector<char>>> letters;
    };

    explicit Letters(std::shared_ptr<Boxes> boxes) : boxes(std::move(boxes)) {}

    void send(channel_data buf, peer_num dest) override
    {
        const std::lock_guard<std::mutex> lock(boxes->mutex);
        boxes->letters[{peer_id, dest}].emplace_back(buf.buf, buf.buf + buf.len);
        boxes->changed.notify_all();
    }

    void recv(channel_data buf, peer_num src) override
    {
        std::unique_lock<std::mutex> lock(boxes->mutex);
        auto &letters = boxes->letters[{src, peer_id}];
        if (!boxes->changed.wait_for(lock, std::chrono::seconds(20), [&] { return !letters.empty(); })) {
            throw FMI::Utils::Timeout();
        }
        CHECK(letters.front().size() == buf.len);
        std::copy(letters.front().begin(), letters.front().end(), buf.buf);
        letters.erase(letters.begin());
    }

    void bcast(channel_data buf, peer_num root) override
    {
        if (peer_id != root) {
            recv(buf, root);
            return;
        }
        for (peer_num rank = 0; rank < num_peers; rank++) {
            if (rank != root) {
                send(buf, rank);
            }
        }
    }

    void barrier() override
    {
        char token = 0;
        reduce({&token, 1}, {&token, 1}, 0, {[](char *, char *) {}, true, true});
        bcast({&token, 1}, 0);
    }

    void reduce(channel_data sendbuf, channel_data recvbuf, peer_num root, raw_function f) override
    {
        std::vector<char> all(peer_id == root ? sendbuf.len * num_peers : 0);
        gather(sendbuf, {all.data(), all.size()}, root);
        if (peer_id == root) {
            fold(all, recvbuf, num_peers, sendbuf.len, f);
        }
    }

    void scan(channel_data sendbuf, channel_data recvbuf, raw_function f) override
    {
        std::vector<char> all(sendbuf.len * num_peers);
        gather(sendbuf, {all.data(), all.size()}, 0);
        bcast({all.data(), all.size()}, 0);
        fold(all, recvbuf, peer_id + 1, sendbuf.len, f);
    }

    double get_latency(peer_num, peer_num, std::size_t) override { return 5; }
    double get_price(peer_num, peer_num, std::size_t) override { return 7; }
    double get_operation_latency(FMI::Utils::OperationInfo) override { return 5; }
    double get_operation_price(FMI::Utils::OperationInfo) override { return 7; }

    void finalize() override { finalized++; }

    int finalized = 0;

private:
    static void fold(std::vector<char> &all, channel_data recvbuf, peer_num ranks, std::size_t len,
        const raw_function &f)
    {
        for (peer_num rank = 1; rank < ranks; rank++) {
            f.f(all.data(), all.data() + rank * len);
        }
        std::copy_n(all.data(), len, recvbuf.buf);
    }

    std::shared_ptr<Boxes> boxes;
};

// Direct, but nothing that is sent can be read on the way.
class Secretive : public FMI::Comm::Direct {
public:
    using Direct::Direct;

    void send_object(channel_data buf, peer_num dest) override
    {
        objects++;
        std::vector<char> hidden(buf.buf, buf.buf + buf.len);
        hide(hidden.data(), buf.len);
        Direct::send_object({hidden.data(), buf.len}, dest);
    }

    void recv_object(channel_data buf, peer_num src) override
    {
        objects++;
        Direct::recv_object(buf, src);
        hide(buf.buf, buf.len);
    }

    int objects = 0;

private:
    static void hide(char *bytes, std::size_t len)
    {
        for (std::size_t i = 0; i < len; i++) {
            bytes[i] = static_cast<char>(bytes[i] ^ 0x5a);
        }
    }
};

} // namespace user

#endif
