// Every operation over every kind of channel: the library's own, those of the user's, and both as objects without
// a communicator. One line per channel.
#include "conformance.h"
#include "user_channels.h"

using conformance::Job;

static const peer_num sizes[] = {1, 2, 3, 4, 5, 7, 8};
static const std::vector<std::size_t> few = {0, 1, 1000}, many = {0, 1, 1000, 100000};

static std::string job_name()
{
    static std::atomic<int> jobs{0};
    return "channels " + std::to_string(getpid()) + " " + std::to_string(jobs++);
}

// A communicator that has no channel but this one.
static void alone(std::shared_ptr<FMI::Comm::Channel> channel, Job job, const std::string &name,
    const std::vector<std::size_t> &counts)
{
    FMI::Communicator comm(job.rank, job.size, empty_config(), name);
    comm.register_channel("mine", std::move(channel));
    conformance::over(comm, job, counts);
}

// Without any communicator.
static void by_itself(FMI::Comm::Channel &channel, Job job, const std::string &name,
    const std::vector<std::size_t> &counts)
{
    channel.set_peer_id(job.rank);
    channel.set_num_peers(job.size);
    channel.set_comm_name(name);
    conformance::over(channel, job, counts);
    channel.finalize();
}

template <typename Body>
static void for_all_sizes(const char *what, Body body)
{
    const double start = seconds();
    for (const peer_num size : sizes) {
        body(size, job_name());
    }
    std::printf("%-28s %6.2f s\n", what, seconds() - start);
}

static void over_built_in(const std::string &config, const std::vector<std::size_t> &counts, const char *what)
{
    for_all_sizes(what, [&](peer_num size, const std::string &name) {
        on_threads(size, [&](peer_num rank) {
            FMI::Communicator comm(rank, size, config, name);
            conformance::over(comm, {rank, size}, counts);
        });
    });
}

// What the ranks share is made for each job by `share`; `make` makes the channel of a rank of it.
template <typename Share, typename Make>
static void over_threads(const char *what, const std::vector<std::size_t> &counts, Share share, Make make)
{
    for_all_sizes(what, [&](peer_num size, const std::string &name) {
        const auto shared = share();
        on_threads(size, [&](peer_num rank) { alone(make(shared), {rank, size}, name, counts); });
        on_threads(size, [&](peer_num rank) { by_itself(*make(shared), {rank, size}, name + " itself", few); });
    });
}

static void over_pipes()
{
    for_all_sizes("pipes", [](peer_num size, const std::string &name) {
        const user::Pipes::Ends ends(size);
        on_processes(size, [&](peer_num rank) { alone(std::make_shared<user::Pipes>(ends), {rank, size}, name, many); });
        on_processes(size, [&](peer_num rank) {
            user::Pipes pipes(ends);
            by_itself(pipes, {rank, size}, name + " itself", few);
        });
    });
}

static void leaves_nothing()
{
    const user::Directory::Path path;
    for (int run = 0; run < 2; run++) {
        on_threads(3, [&](peer_num rank) {
            FMI::Communicator comm(rank, 3, empty_config(), "leaves nothing");
            comm.register_channel("directory", std::make_shared<user::Directory>(path));
            check_sum(comm, rank, 3);
        });
        CHECK(path.names().empty());
    }
}

// Says how many of its objects it remembers.
class Remembering : public user::Directory {
public:
    using Directory::Directory;

    std::size_t remembered() const { return created_objects.size(); }
};

static void forgets_what_was_read()
{
    const user::Directory::Path path;
    on_threads(2, [&](peer_num rank) {
        auto channel = std::make_shared<Remembering>(path);
        FMI::Communicator comm(rank, 2, empty_config(), "forgets");
        comm.register_channel("directory", channel);
        FMI::Comm::Data<int> message = 1;
        // Never more than 100 are unread.
        for (int batch = 0; batch < 25; batch++) {
            for (int i = 0; i < 100; i++) {
                rank == 0 ? comm.send(message, 1) : comm.recv(message, 0);
            }
            rank == 0 ? comm.recv(message, 1) : comm.send(message, 0);
        }
        CHECK(channel->remembered() <= 1024 + 100);
    });
}

static void overrides_are_called(const Server &server)
{
    on_threads(3, [&](peer_num rank) {
        auto channel = std::make_shared<user::Secretive>(server.parameters(), Parameters());
        FMI::Communicator comm(rank, 3, empty_config(), "overridden");
        comm.register_channel("Direct", channel);
        check_sum(comm, rank, 3);
        CHECK(channel->objects >= 4);
    });
}

static void finalized_once()
{
    auto channel = std::make_shared<user::Letters>(std::make_shared<user::Letters::Boxes>());
    {
        FMI::Communicator comm(0, 1, empty_config(), "finalized");
        comm.register_channel("letters", channel);
        comm.barrier();
        CHECK(channel->finalized == 0);
    }
    CHECK(channel->finalized == 1);
    CHECK(channel.use_count() == 1);
}

int main()
{
    watchdog(280);
    const Server server;
    // The parallel sums of 8 spinning threads on few cores are for other tests.
    setenv("FMI_WAIT", "park", 0);
    over_built_in(memory_config(), many, "Memory");
    over_built_in(server.config(), many, "Direct");
    over_pipes();
    over_threads("a channel that keeps nothing", many, [] { return std::make_shared<user::HandOver::Table>(); },
        [](const auto &table) { return std::make_shared<user::HandOver>(table); });
    over_threads("a directory", few, [] { return std::make_shared<user::Directory::Path>(); },
        [](const auto &path) { return std::make_shared<user::Directory>(*path); });
    over_threads("a channel from scratch", many, [] { return std::make_shared<user::Letters::Boxes>(); },
        [](const auto &boxes) { return std::make_shared<user::Letters>(boxes); });
    over_threads("derived from Direct", few, [] { return 0; },
        [&](int) { return std::make_shared<user::Secretive>(server.parameters(), Parameters()); });
    over_threads("Direct, registered", few, [] { return 0; },
        [&](int) { return FMI::Comm::Channel::get_channel("Direct", server.parameters(), {}); });
    leaves_nothing();
    forgets_what_was_read();
    overrides_are_called(server);
    finalized_once();
    return 0;
}
