// Ranks that are processes: forks before and after, exits right after a send, deaths.
#include "support.h"

using FMI::Comm::Data;
using Ints = std::vector<int>;

// The usual shape of a test of old code: fork, create in each child; and fork again later.
static void forks_before_and_after(const std::string &config)
{
    on_processes(3, [&config](peer_num rank) {
        FMI::Communicator comm(rank, 3, config, "forks");
        check_sum(comm, rank, 3);

        // A helper that knows nothing of FMI, and one that ends by exit: the copy of the communicator in it
        // does not disturb the job.
        pid_t helper = fork_child();
        if (helper == 0) {
            _exit(0);
        }
        ENDS_WELL(helper);
        check_sum(comm, rank, 3);
        helper = fork_child();
        if (helper == 0) {
            {
                FMI::Communicator copy = std::move(comm);
                THROWS(std::runtime_error, copy.barrier());
            }
            _exit(0);
        }
        ENDS_WELL(helper);
        check_sum(comm, rank, 3);

        // A child with a job of its own.
        const pid_t child = fork_child();
        if (child == 0) {
            {
                FMI::Communicator own(rank, 3, config, "children");
                check_sum(own, rank, 3);
            }
            _exit(0);
        }
        check_sum(comm, rank, 3);
        ENDS_WELL(child);
        check_sum(comm, rank, 3);
    });
}

// The parent is a rank too, and had used the library before it forked.
static void parent_takes_part(const std::string &config)
{
    {
        FMI::Communicator before(0, 1, config, "before");
        check_sum(before, 0, 1);
    }
    const pid_t child = fork_child();
    const peer_num rank = child == 0 ? 1 : 0;
    {
        FMI::Communicator comm(rank, 2, config, "parent");
        check_sum(comm, rank, 2);
    }
    if (child == 0) {
        child_is_done();
    }
    ENDS_WELL(child);
}

// What send accepted arrives, although the sender is gone before the receiver looks.
static void gone_after_a_send(const std::string &config)
{
    for (std::size_t count : {1, 1000, 100000, 1000000}) {
        on_processes(2, [&config, count](peer_num rank) {
            FMI::Communicator comm(rank, 2, config, "gone " + std::to_string(count));
            Data<Ints> data(rank == 0 ? Ints(count, 7) : Ints(count));
            if (rank == 0) {
                comm.send(data, 1);
            } else {
                pause_ms(200);
                comm.recv(data, 0);
                CHECK(data.get() == Ints(count, 7));
            }
        });
    }
}

// The same where the communicator is a global, and main returns.
static std::unique_ptr<FMI::Communicator> global;

static void a_global_communicator(const std::string &config)
{
    const pid_t receiver = fork_child();
    if (receiver == 0) {
        {
            FMI::Communicator comm(1, 2, config, "global");
            Data<Ints> data(300000);
            pause_ms(300);
            comm.recv(data, 0);
            CHECK(data.get() == Ints(300000, 5));
        }
        child_is_done();
    }
    const pid_t sender = fork_child();
    if (sender == 0) {
        global = std::make_unique<FMI::Communicator>(0, 2, config, "global");
        Data<Ints> data(Ints(300000, 5));
        global->send(data, 1);
        std::exit(0);
    }
    ENDS_WELL(sender);
    ENDS_WELL(receiver);
}

// A rank that is killed is an error of the others, and not a timeout; never a wrong result.
static void killed(const std::string &config)
{
    std::vector<pid_t> ranks;
    for (peer_num rank = 0; rank < 4; rank++) {
        ranks.push_back(fork_child());
        if (ranks.back() != 0) {
            continue;
        }
        {
            FMI::Communicator comm(rank, 4, config, "killed");
            for (int round = 0;; round++) {
                if (rank == 2 && round == 20) {
                    raise(SIGKILL);
                }
                try {
                    check_sum(comm, rank, 4);
                } catch (const std::runtime_error &) {
                    break;
                }
            }
        }
        child_is_done();
    }
    for (peer_num rank = 0; rank < 4; rank++) {
        const int status = status_of(ranks[rank]);
        CHECK(rank == 2 ? WIFSIGNALED(status) : status == 0);
    }
}

// An exception that unwinds a rank is finalized on its way: the others are told.
static void unwound(const std::string &config)
{
    on_processes(2, [&config](peer_num rank) {
        try {
            FMI::Communicator comm(rank, 2, config, "unwound");
            check_sum(comm, rank, 2);
            if (rank == 1) {
                throw std::domain_error("user's own");
            }
            Data<int> data;
            THROWS(FMI::Utils::Timeout, comm.recv(data, 1));
        } catch (const std::domain_error &) {
            CHECK(rank == 1);
        }
    });
}

int main()
{
    watchdog(120);
    Server server;
    const std::string config = server.config();
    forks_before_and_after(config);
    parent_takes_part(config);
    gone_after_a_send(config);
    a_global_communicator(config);
    killed(config);
    unwound(config);
    return 0;
}
