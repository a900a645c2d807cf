// The deadline of an operation is the max_timeout of its channel; when it passes, Timeout is thrown.
#include "support.h"

using FMI::Comm::Data;
using FMI::Utils::Timeout;
using Clock = std::chrono::steady_clock;

static long ms_since(Clock::time_point start)
{
    return static_cast<long>(std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - start).count());
}

// The test of old code: one rank stays out of the barrier, in each of the ways to stay out.
static void one_stays_out(const std::string &config)
{
    enum Way { NEVER_MADE, MADE_ONLY, JOINED, LEFT };
    for (const Way way : {NEVER_MADE, MADE_ONLY, JOINED, LEFT}) {
        Meeting all_joined(4), all_threw(4);
        std::atomic<int> timeouts{0};
        on_threads(4, [&](peer_num rank) {
            if (rank == 3 && way == NEVER_MADE) {
                all_joined.wait();
                all_threw.wait();
                return;
            }
            auto comm = std::make_unique<FMI::Communicator>(rank, 4, config, "stays out " + std::to_string(way));
            if (way == JOINED || way == LEFT) {
                check_sum(*comm, rank, 4);
            }
            all_joined.wait();
            if (rank == 3) {
                if (way == LEFT) {
                    comm.reset();
                }
                all_threw.wait();
                return;
            }
            try {
                comm->barrier();
            } catch (Timeout &) {
                timeouts++;
            } catch (...) {
                std::fprintf(stderr, "way %d, rank %u: %s\n", way, rank,
                    description(std::current_exception()).c_str());
            }
            // What comes then is for a new communicator; this one says so, and says why.
            THROWS(Timeout, comm->barrier());
            all_threw.wait();
        });
        if (timeouts != 3) {
            std::fprintf(stderr, "way %d: %d ranks threw Timeout\n", way, timeouts.load());
        }
        CHECK(timeouts == 3);
    }
}

// Every collective, not the barrier alone.
static void every_collective(const std::string &config)
{
    using Ints = std::vector<int>;
    for (int operation = 0; operation < 7; operation++) {
        Meeting all_threw(2);
        on_threads(2, [&](peer_num rank) {
            FMI::Communicator comm(rank, 2, config, "collective " + std::to_string(operation));
            check_sum(comm, rank, 2);
            if (rank == 0) {
                Data<int> one(1), other;
                Data<Ints> two(2), four(4);
                THROWS(Timeout, switch (operation) {
                    case 0: comm.barrier(); break;
                    case 1: comm.bcast(one, 1); break;
                    case 2: comm.gather(two, four, 0); break;
                    case 3: comm.scatter(four, two, 1); break;
                    case 4: comm.reduce(one, other, 0, add()); break;
                    case 5: comm.allreduce(one, other, add()); break;
                    default: comm.scan(one, other, add()); comm.barrier(); break;
                });
            }
            all_threw.wait();
        });
    }
}

// Old code polls by a loop around recv.
static void loop_around_recv(const std::string &config, int max_timeout)
{
    on_threads(2, [&](peer_num rank) {
        FMI::Communicator comm(rank, 2, config, "loop");
        Data<std::vector<double>> data(rank == 0 ? std::vector<double>(1000, 2.5) : std::vector<double>(1000));
        check_sum(comm, rank, 2);
        for (int round = 0; round < 2; round++) {
            if (rank == 0) {
                pause_ms(3 * max_timeout + max_timeout / 2);
                comm.send(data, 1);
                continue;
            }
            int timeouts = 0;
            for (;;) {
                const auto start = Clock::now();
                try {
                    comm.recv(data, 0);
                    break;
                } catch (FMI::Utils::Timeout &) {
                    timeouts++;
                    CHECK(ms_since(start) >= max_timeout - 1);
                }
            }
            CHECK(timeouts >= 2);
            CHECK(data.get() == std::vector<double>(1000, 2.5));
        }
        // A receive that timed out has not disturbed anything.
        check_sum(comm, rank, 2);
    });
}

// The first deadline that passes ends the operation on every rank, also where more time was left.
static void anybodys_deadline(const std::string &short_config, const std::string &long_config)
{
    Meeting all_threw(4);
    on_threads(4, [&](peer_num rank) {
        FMI::Communicator comm(rank, 4, rank == 1 ? short_config : long_config, "anybody's");
        check_sum(comm, rank, 4);
        if (rank != 3) {
            const auto start = Clock::now();
            THROWS(Timeout, comm.barrier());
            CHECK(ms_since(start) < 20000);
        }
        all_threw.wait();
    });
}

// A peer that is late is waited for.
static void late_is_in_time(const std::string &config)
{
    on_threads(3, [&config](peer_num rank) {
        pause_ms(100 * rank);
        FMI::Communicator comm(rank, 3, config, "late");
        pause_ms(100 * (2 - rank));
        comm.barrier();
        pause_ms(50 * rank);
        check_sum(comm, rank, 3);
    });
}

int main()
{
    watchdog(120);
    Server server;
    for (const bool direct : {false, true}) {
        const std::string brief = direct ? server.config(400) : memory_config(400);
        const std::string patient = direct ? server.config() : memory_config();
        one_stays_out(brief);
        every_collective(brief);
        loop_around_recv(direct ? server.config(200) : memory_config(200), 200);
        late_is_in_time(patient);
        if (direct) {
            anybodys_deadline(brief, patient);
        }
    }
    return 0;
}
