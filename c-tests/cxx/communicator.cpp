// The life of a communicator: made without any server, moved, named by any bytes, finalized, its name used
// again at once.
#include "support.h"

#include <optional>

using FMI::Comm::Data;

// No network I/O: an absent server shows at the first operation, a wrong configuration at once.
static void made_without_a_server()
{
    const std::string nobody = file_with(
        R"({"backends": {"Direct": {"enabled": "true", "host": "127.0.0.1", "port": "1", "max_timeout": "500"}}})");
    FMI::Communicator comm(0, 2, nobody, "nobody");
    Data<int> one(1);
    THROWS(std::exception, comm.send(one, 1));
    FMI::Communicator unused(1, 2, nobody, "nobody", 512);
}

static void configurations()
{
    FMI::Communicator none(0, 1, empty_config(), "none");
    Data<int> one(1), other;
    THROWS(std::runtime_error, none.barrier());
    THROWS(std::runtime_error, none.bcast(one, 0));
    THROWS(std::runtime_error, none.allreduce(one, other, add()));

    THROWS(std::runtime_error, FMI::Communicator(0, 1, "/nonexistent/fmi.json", "n"));
    THROWS(std::runtime_error, FMI::Communicator(0, 1, file_with("{"), "n"));
    THROWS(std::runtime_error, FMI::Communicator(0, 1, file_with("[]"), "n"));
    THROWS(std::runtime_error,
        FMI::Communicator(0, 1, file_with(R"({"backends": {"Telepathy": {"enabled": "true"}}})"), "n"));
    THROWS(std::runtime_error, FMI::Communicator(0, 1, file_with(R"({"backends": {"Telepathy": {}}})"), "n"));
    FMI::Communicator disabled(
        0, 1, file_with(R"({"backends": {"Telepathy": {"enabled": "false"}, "Memory": {"enabled": "true"}}})"), "n");
    check_sum(disabled, 0, 1);
    THROWS(std::runtime_error, FMI::Communicator(2, 2, memory_config(), "n"));
    THROWS(std::runtime_error, FMI::Communicator(0, 0, memory_config(), "n"));
    // The text itself in place of a path.
    FMI::Communicator text(0, 1, R"({"backends": {"Memory": {"enabled": true}, "Direct": {"enabled": false}}})", "n");
    check_sum(text, 0, 1);
}

static FMI::Communicator made_by_a_function(const std::string &config, const std::string &name)
{
    auto comm = FMI::Communicator(0, 1, config, name, 256);
    check_sum(comm, 0, 1);
    return comm;
}

static void moved()
{
    const std::string config = memory_config();
    auto first = FMI::Communicator(0, 1, config, "moved");
    auto second = std::move(first);
    check_sum(second, 0, 1);
    THROWS(std::runtime_error, first.barrier());
    first = std::move(second);
    check_sum(first, 0, 1);
    first = made_by_a_function(config, "moved too");
    check_sum(first, 0, 1);
    // What it held was finalized: its name and rank are free.
    FMI::Communicator again(0, 1, config, "moved");
    check_sum(again, 0, 1);

    std::vector<FMI::Communicator> many;
    for (int i = 0; i < 10; i++) {
        many.emplace_back(0, 1, config, "of many " + std::to_string(i));
    }
    many.erase(many.begin());
    for (auto &comm : many) {
        check_sum(comm, 0, 1);
    }
    std::map<std::string, FMI::Communicator> by_name;
    by_name.emplace("a", FMI::Communicator(0, 1, config, "by name"));
    check_sum(by_name.at("a"), 0, 1);
    std::optional<FMI::Communicator> maybe;
    maybe.emplace(0U, 1U, config, "maybe");
    check_sum(*maybe, 0, 1);
    maybe.reset();
    auto shared = std::make_shared<FMI::Communicator>(0, 1, config, "shared", 128);
    auto unique = std::make_unique<FMI::Communicator>(0, 1, config.c_str(), "unique");
    check_sum(*shared, 0, 1);
    check_sum(*unique, 0, 1);
    std::swap(*shared, *unique);
    check_sum(*shared, 0, 1);

    // A channel and a policy follow; so does the deadline, in the middle of a job.
    on_threads(2, [&config](peer_num rank) {
        FMI::Communicator comm(rank, 2, config, "in the middle");
        check_sum(comm, rank, 2);
        FMI::Communicator target = std::move(comm);
        check_sum(target, rank, 2);
        comm = std::move(target);
        check_sum(comm, rank, 2);
    });
}

// Names of any bytes; two names that differ are two jobs, however alike they look when they are escaped.
static void names(const std::string &config)
{
    const std::vector<std::string> names = {
        "",
        " ",
        "a/b",
        "..",
        "a b\tc\nd",
        "%",
        "%ff",
        "%FF",
        "\xff",
        "\xfe",
        "\xff\xff",
        std::string("a\0b", 3),
        std::string("a\0c", 3),
        std::string(1, '\0'),
        std::string(2, '\0'),
        "a",
        "%00",
        "a%00b",
        "\xc3\xa9",
        "\xc3",
        "\"quoted\" {json}",
        std::string(1000, 'x'),
        std::string(1001, 'x'),
        std::string(5000, '\xff'),
        std::string(4999, '\xff') + "\xfe",
        std::string(100000, 'n'),
    };
    // All at once: what is not kept apart meets the others.
    std::vector<std::thread> jobs;
    for (std::size_t i = 0; i < names.size(); i++) {
        jobs.emplace_back([&, i] {
            on_threads(2, [&](peer_num rank) {
                FMI::Communicator comm(rank, 2, config, names[i]);
                Data<int> mine(static_cast<int>(i)), sum(0);
                for (int round = 0; round < 3; round++) {
                    comm.allreduce(mine, sum, add());
                    CHECK(sum == static_cast<int>(2 * i));
                }
            });
        });
    }
    for (auto &job : jobs) {
        job.join();
    }
}

// Nor does a channel that joins by itself meet a job whose name looks like that of both. Two jobs of one name
// may pass each other by luck, hence the rounds.
static void names_of_channels(const Server &server)
{
    for (int round = 0; round < 10; round++) {
        on_threads(2, [&server](peer_num rank) {
            FMI::Communicator comm(rank, 2, empty_config(), "job");
            comm.register_channel("mine", FMI::Comm::Channel::get_channel("Direct", server.parameters(), {}));
            FMI::Communicator other(rank, 2, server.config(), "job/mine");
            const auto meets_itself = [](FMI::Communicator &job, int number) {
                Data<int> mine(number), sum(0);
                job.allreduce(mine, sum, add());
                CHECK(sum == 2 * number);
            };
            std::thread at_once([&] { meets_itself(comm, 1); });
            meets_itself(other, 10);
            at_once.join();
        });
    }
}

// One name, by the same processes, at once, with another size each time. A rank that has no part in a job
// does not start the next one before it ends: that would be two jobs of one name at a time.
static void reused(const std::string &config)
{
    Meeting grows(4);
    on_threads(4, [&](peer_num rank) {
        for (int round = 0; round < 3; round++) {
            for (peer_num size : {4, 4, 3, 2, 2, 1}) {
                if (rank < size) {
                    FMI::Communicator comm(rank, size, config, "reused");
                    check_sum(comm, rank, size);
                    comm.barrier();
                }
            }
            grows.wait();
        }
    });
}

// As two programs of a pipeline: the second starts when the first has ended, whoever is the faster.
static void reused_by_processes(const std::string &config)
{
    for (peer_num size : {2, 3, 1, 2}) {
        on_processes(size, [&config, size](peer_num rank) {
            FMI::Communicator comm(rank, size, config, "programs");
            check_sum(comm, rank, size);
        });
    }
}

// Made by one thread, used by others, destroyed by yet another.
static void passed_on(const std::string &config)
{
    on_threads(2, [&config](peer_num rank) {
        std::unique_ptr<FMI::Communicator> comm;
        std::thread([&] { comm = std::make_unique<FMI::Communicator>(rank, 2, config, "passed on"); }).join();
        std::thread([&] { check_sum(*comm, rank, 2); }).join();
        check_sum(*comm, rank, 2);
        std::thread([&] { comm.reset(); }).join();
        comm = std::make_unique<FMI::Communicator>(rank, 2, config, "passed on");
        check_sum(*comm, rank, 2);
    });
}

// Several jobs in one process and thread, destroyed in any order.
static void side_by_side(const std::string &config)
{
    on_threads(2, [&config](peer_num rank) {
        auto a = std::make_unique<FMI::Communicator>(rank, 2, config, "a");
        auto b = std::make_unique<FMI::Communicator>(1 - rank, 2, config, "b");
        auto c = std::make_unique<FMI::Communicator>(rank, 2, config, "c");
        for (int i = 0; i < 3; i++) {
            check_sum(*a, rank, 2);
            check_sum(*b, 1 - rank, 2);
            check_sum(*c, rank, 2);
        }
        b.reset();
        check_sum(*a, rank, 2);
        a.reset();
        check_sum(*c, rank, 2);
    });
}

int main()
{
    watchdog(120);
    made_without_a_server();
    configurations();
    moved();
    Server server;
    for (const std::string &config : {memory_config(), server.config()}) {
        names(config);
        reused(config);
        passed_on(config);
        side_by_side(config);
    }
    names_of_channels(server);
    reused_by_processes(server.config());
    return 0;
}
