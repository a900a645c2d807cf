// What the programs of the C++ layer share: ranks that are threads or processes, configurations as files,
// a rendezvous server, checks of exceptions.
#ifndef FMI_TEST_CXX_SUPPORT_H
#define FMI_TEST_CXX_SUPPORT_H

#include <Communicator.h>

#include "host.h"

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>

#include <sys/mman.h>

using FMI::Utils::peer_num;
using Parameters = std::map<std::string, std::string>;

// What an exception is, for messages.
inline std::string description(const std::exception_ptr &thrown)
{
    try {
        std::rethrow_exception(thrown);
    } catch (const FMI::Utils::Timeout &e) {
        return std::string("Timeout: ") + e.what();
    } catch (const std::exception &e) {
        return e.what();
    } catch (...) {
        return "something else";
    }
}

// The body must end by an exception of this type.
template <typename Exception, typename Body>
void check_throws(Body body, const char *text, const char *file, int line)
{
    try {
        body();
    } catch (const Exception &) {
        return;
    } catch (...) {
        std::fprintf(stderr, "%s:%d: threw another exception: %s: %s\n", file, line, text,
            description(std::current_exception()).c_str());
        std::exit(1);
    }
    std::fprintf(stderr, "%s:%d: did not throw: %s\n", file, line, text);
    std::exit(1);
}

#define THROWS(exception, ...) \
    check_throws<exception>([&] { __VA_ARGS__; }, #__VA_ARGS__, __FILE__, __LINE__)

// A rank of a test ends the program when it throws.
template <typename Body>
void run_rank(Body &body, peer_num rank)
{
    try {
        body(rank);
    } catch (...) {
        std::fprintf(stderr, "rank %u: %s\n", rank, description(std::current_exception()).c_str());
        std::exit(1);
    }
}

// Runs body(rank) in a thread each.
template <typename Body>
void on_threads(peer_num size, Body body)
{
    std::vector<std::thread> ranks;
    for (peer_num rank = 0; rank < size; rank++) {
        ranks.emplace_back([&body, rank] { run_rank(body, rank); });
    }
    for (auto &rank : ranks) {
        rank.join();
    }
}

// Runs body(rank) in a child process each.
template <typename Body>
void on_processes(peer_num size, Body body)
{
    std::vector<pid_t> ranks;
    for (peer_num rank = 0; rank < size; rank++) {
        ranks.push_back(fork_child());
        if (ranks.back() == 0) {
            run_rank(body, rank);
            child_is_done();
        }
    }
    for (pid_t rank : ranks) {
        ENDS_WELL(rank);
    }
}

// Where ranks that are threads wait for each other, without FMI.
class Meeting {
public:
    explicit Meeting(peer_num ranks) : expected(ranks) {}

    void wait()
    {
        std::unique_lock<std::mutex> lock(mutex);
        const std::size_t round = arrived / expected;
        arrived++;
        changed.notify_all();
        changed.wait(lock, [&] { return arrived / expected > round; });
    }

private:
    std::size_t expected, arrived = 0;
    std::mutex mutex;
    std::condition_variable changed;
};

// The path of a file with this text. It has no name in any directory, so that nothing is left behind.
inline std::string file_with(const std::string &text)
{
    int file = memfd_create("fmi.json", 0);
    CHECK(file >= 0);
    CHECK(write(file, text.data(), text.size()) == static_cast<ssize_t>(text.size()));
    return "/proc/self/fd/" + std::to_string(file);
}

// No channel at all: programs register their own.
inline std::string empty_config()
{
    static const std::string path = file_with(R"({"backends": {"Direct": {"enabled": "false"}}})");
    return path;
}

// The channel inside the process. Operations wait this long, in ms.
inline std::string memory_config(int max_timeout = 30000)
{
    return file_with(R"({"backends": {"Memory": {"enabled": "true", "max_timeout": ")" + std::to_string(max_timeout) +
                     R"("}, "Direct": {"enabled": "false"}}})");
}

// A rendezvous server of this process and its children, that nothing but a configuration tells of.
class Server {
public:
    Server() : process(start_server())
    {
        const std::string address = getenv("FMI_RENDEZVOUS");
        host = address.substr(0, address.find(':'));
        port = address.substr(address.find(':') + 1);
        unsetenv("FMI_RENDEZVOUS");
    }

    Server(const Server &) = delete;
    Server &operator=(const Server &) = delete;

    ~Server() { stop_server(process); }

    // A configuration as the original ships it.
    std::string config(int max_timeout = 30000) const
    {
        return file_with(R"({
            "backends": {
                "S3": {"enabled": "false", "bucket_name": "fmibucket", "s3_region": "eu-central-1",
                    "timeout": "100", "max_timeout": "2000"},
                "Redis": {"enabled": "false", "host": "127.0.0.1", "port": "6379", "timeout": "1",
                    "max_timeout": "1000"},
                "Direct": {"enabled": "true", "host": ")" + host + R"(", "port": ")" + port +
            R"(", "max_timeout": ")" + std::to_string(max_timeout) + R"("}
            },
            "model": {"FaaS": {"gib_second_price": "0.0000166667"}}
        })");
    }

    // The same for Channel::get_channel().
    Parameters parameters(int max_timeout = 30000) const
    {
        return {{"host", host}, {"port", port}, {"max_timeout", std::to_string(max_timeout)}};
    }

private:
    pid_t process;
    std::string host, port;
};

inline FMI::Utils::Function<int> add()
{
    return {[](auto a, auto b) { return a + b; }, true, true};
}

// The ranks add their numbers: they are one job, and it works.
inline void check_sum(FMI::Communicator &comm, peer_num rank, peer_num size)
{
    FMI::Comm::Data<int> mine(static_cast<int>(rank)), sum(-1);
    comm.allreduce(mine, sum, add());
    CHECK(sum.get() == static_cast<int>(size * (size - 1) / 2));
}

// Nothing happens between ranks in these channels: a base for what is asked about model and names only.
class SilentChannel : public FMI::Comm::Channel {
public:
    void send(channel_data, peer_num) override {}
    void recv(channel_data, peer_num) override {}
    void bcast(channel_data, peer_num) override {}
    void barrier() override {}
    void gather(channel_data, channel_data, peer_num) override {}
    void scatter(channel_data, channel_data, peer_num) override {}
    void reduce(channel_data, channel_data, peer_num, raw_function) override {}
    void allreduce(channel_data, channel_data, raw_function) override {}
    void scan(channel_data, channel_data, raw_function) override {}
    double get_latency(peer_num, peer_num, std::size_t) override { return 0; }
    double get_price(peer_num, peer_num, std::size_t) override { return 0; }
    double get_operation_latency(FMI::Utils::OperationInfo) override { return 0; }
    double get_operation_price(FMI::Utils::OperationInfo) override { return 0; }
};

#endif
