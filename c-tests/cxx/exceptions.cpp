// What the user's code throws arrives at the caller as it is, whatever lies between; and what a communicator is
// good for afterwards.
#include "user_channels.h"

using FMI::Comm::Data;

// Of no family of exceptions, and recognized when it comes back.
struct Mishap {
    int number;
    std::shared_ptr<int> self = std::make_shared<int>(0);
};

// The body must throw the Mishap that was thrown, not one like it.
template <typename Body>
static void arrives(const Mishap &thrown, Body body)
{
    try {
        body();
    } catch (const Mishap &caught) {
        CHECK(caught.number == thrown.number && caught.self == thrown.self);
        return;
    } catch (...) {
        std::fprintf(stderr, "caught something else: %s\n", description(std::current_exception()).c_str());
    }
    CHECK(!"the exception did not arrive");
}

static void collectives_are_over(FMI::Communicator &comm)
{
    THROWS(std::runtime_error, comm.barrier());
    Data<int> one(1), sum;
    THROWS(std::runtime_error, comm.allreduce(one, sum, add()));
}

static void messages_go_on(FMI::Communicator &comm, peer_num rank)
{
    Data<int> mine(static_cast<int>(rank)), got(-1);
    if (rank == 0) {
        comm.send(mine, 1);
        comm.recv(got, 1);
    } else {
        comm.recv(got, 0);
        comm.send(mine, 0);
    }
    CHECK(got == 1 - static_cast<int>(rank));
}

// What failed is left behind with the communicator that it failed in, also where the channel, and the names of
// both, stay the same.
class Moody : public FMI::Comm::PeerToPeer {
public:
    void send_object(channel_data, peer_num) override { respond(); }
    void recv_object(channel_data, peer_num) override { respond(); }
    double get_latency(peer_num, peer_num, std::size_t) override { return 1; }
    double get_price(peer_num, peer_num, std::size_t) override { return 1; }

    bool is_in_the_mood = false;

private:
    void respond() const
    {
        if (!is_in_the_mood) {
            throw FMI::Utils::Timeout();
        }
    }
};

static void the_channel_of_a_new_communicator()
{
    const auto channel = std::make_shared<Moody>();
    Data<int> one(1);
    {
        FMI::Communicator comm(0, 2, empty_config(), "again");
        comm.register_channel("mine", channel);
        THROWS(FMI::Utils::Timeout, comm.bcast(one, 0));
        channel->is_in_the_mood = true;
        THROWS(FMI::Utils::Timeout, comm.bcast(one, 0));
    }
    FMI::Communicator comm(0, 2, empty_config(), "again");
    comm.register_channel("mine", channel);
    comm.bcast(one, 0);

    // By itself: it goes on when it is told the same again, and begins anew in another job.
    channel->is_in_the_mood = false;
    const channel_data data{one.data(), one.size_in_bytes()};
    THROWS(FMI::Utils::Timeout, channel->bcast(data, 0));
    channel->is_in_the_mood = true;
    channel->set_comm_name("again");
    THROWS(FMI::Utils::Timeout, channel->bcast(data, 0));
    channel->set_comm_name("another");
    channel->bcast(data, 0);
}

// The function throws on one rank; the other hears of a failure.
static void in_a_function(const std::string &config, bool ordered)
{
    const Mishap mishap{1};
    on_threads(2, [&](peer_num rank) {
        FMI::Communicator comm(rank, 2, config, ordered ? "function, ordered" : "function");
        Data<std::vector<double>> mine(std::vector<double>(1000, 1.0)), sum(1000);
        const auto failing = [&](const std::vector<double> &a, const std::vector<double> &) {
            if (rank == 0) {
                throw mishap;
            }
            return a;
        };
        const FMI::Utils::Function<std::vector<double>> f(failing, !ordered, !ordered);
        if (rank == 0) {
            arrives(mishap, [&] { comm.allreduce(mine, sum, f); });
        } else {
            try {
                comm.allreduce(mine, sum, f);
            } catch (const FMI::detail::Error &error) {
                CHECK(error.status() == FMI_ERR_ABORTED && error.cause() == FMI_ERR_CALLBACK);
            }
        }
        collectives_are_over(comm);
        messages_go_on(comm, rank);
    });
}

// A vector of another length is refused as if the function had thrown.
static void a_wrong_length()
{
    const std::string config = memory_config();
    on_threads(2, [&](peer_num rank) {
        FMI::Communicator comm(rank, 2, config, "wrong length");
        Data<std::vector<int>> mine(std::vector<int>{1, 2}), sum(2);
        const auto shorter = [](const std::vector<int> &, const std::vector<int> &) { return std::vector<int>(1); };
        THROWS(std::runtime_error, comm.allreduce(mine, sum, {shorter, true, true}));
        collectives_are_over(comm);
    });
}

// Fails in whatever it is told to fail in.
template <typename Base>
class Failing : public Base {
public:
    using Base::Base;

    std::function<void(const char *)> before = [](const char *) {};

protected:
    void enter(const char *what) { before(what); }
};

class FailingHandOver : public Failing<user::HandOver> {
public:
    using Failing::Failing;

    void send_object(channel_data buf, peer_num dest) override
    {
        enter("send_object");
        HandOver::send_object(buf, dest);
    }

    void recv_object(channel_data buf, peer_num src) override
    {
        enter("recv_object");
        HandOver::recv_object(buf, src);
    }

    void finalize() override { enter("finalize"); }
};

class FailingDirectory : public Failing<user::Directory> {
public:
    using Failing::Failing;

    void upload_object(channel_data buf, std::string name) override
    {
        enter("upload_object");
        Directory::upload_object(buf, name);
    }

    bool download_object(channel_data buf, std::string name) override
    {
        enter("download_object");
        return Directory::download_object(buf, name);
    }

    void delete_object(std::string name) override
    {
        enter("delete_object");
        Directory::delete_object(name);
    }
};

class FailingLetters : public Failing<user::Letters> {
public:
    using Failing::Failing;

    void bcast(channel_data buf, peer_num root) override
    {
        enter("bcast");
        Letters::bcast(buf, root);
    }

    void scan(channel_data sendbuf, channel_data recvbuf, raw_function f) override
    {
        enter("scan");
        Letters::scan(sendbuf, recvbuf, f);
    }

    double get_operation_latency(FMI::Utils::OperationInfo) override
    {
        enter("get_operation_latency");
        return 1;
    }
};

// Throws when the named function is entered; once.
static std::function<void(const char *)> throw_in(const char *where, const Mishap &mishap)
{
    return [where, mishap, done = false](const char *what) mutable {
        if (std::strcmp(what, where) == 0 && !std::exchange(done, true)) {
            throw mishap;
        }
    };
}

static void in_objects_of_a_peer_to_peer_channel()
{
    const auto table = std::make_shared<user::HandOver::Table>();
    const Mishap mishap{2};
    on_threads(2, [&](peer_num rank) {
        const auto channel = std::make_shared<FailingHandOver>(table);
        FMI::Communicator comm(rank, 2, empty_config(), "objects");
        comm.register_channel("mine", channel);
        check_sum(comm, rank, 2);
        // A message that fails before any of it has left may be sent again, and so with receives.
        const char *const where = rank == 0 ? "send_object" : "recv_object";
        channel->before = throw_in(where, mishap);
        Data<int> data(5);
        if (rank == 0) {
            arrives(mishap, [&] { comm.send(data, 1); });
            comm.send(data, 1);
        } else {
            data = 0;
            arrives(mishap, [&] { comm.recv(data, 0); });
            comm.recv(data, 0);
            CHECK(data == 5);
        }
        check_sum(comm, rank, 2);
        // In a collective it is the end of collectives, though not of messages.
        channel->before = throw_in(where, mishap);
        arrives(mishap, [&] { comm.bcast(data, 0); });
        collectives_are_over(comm);
        messages_go_on(comm, rank);
        // Nobody is there to whom a destructor could throw.
        channel->before = throw_in("finalize", mishap);
    });
}

static void in_a_store()
{
    const user::Directory::Path path;
    const Mishap mishap{3};
    on_threads(2, [&](peer_num rank) {
        const auto channel = std::make_shared<FailingDirectory>(path);
        FMI::Communicator comm(rank, 2, empty_config(), "store");
        comm.register_channel("mine", channel);
        check_sum(comm, rank, 2);
        Data<int> data(5);
        if (rank == 0) {
            channel->before = throw_in("upload_object", mishap);
            arrives(mishap, [&] { comm.send(data, 1); });
            comm.send(data, 1);
        } else {
            channel->before = throw_in("download_object", mishap);
            data = 0;
            arrives(mishap, [&] { comm.recv(data, 0); });
            comm.recv(data, 0);
            CHECK(data == 5);
        }
        check_sum(comm, rank, 2);
        channel->before = throw_in(rank == 0 ? "upload_object" : "download_object", mishap);
        arrives(mishap, [&] { comm.bcast(data, 0); });
        collectives_are_over(comm);
    });
    CHECK(path.names().empty());
}

static void in_a_whole_channel()
{
    const auto boxes = std::make_shared<user::Letters::Boxes>();
    const Mishap mishap{4};
    on_threads(2, [&](peer_num rank) {
        const auto channel = std::make_shared<FailingLetters>(boxes);
        FMI::Communicator comm(rank, 2, empty_config(), "whole");
        comm.register_channel("mine", channel);
        check_sum(comm, rank, 2);
        channel->before = throw_in("bcast", mishap);
        Data<int> data(1), result;
        arrives(mishap, [&] { comm.bcast(data, 0); });
        collectives_are_over(comm);
        messages_go_on(comm, rank);
        // The channel itself does not know of communicators, and works.
        CHECK(channel->get_latency(1, 1, 1) == 5);
    });
}

// A user's Timeout is one, and its standard exceptions are what they are.
static void of_every_type()
{
    const auto boxes = std::make_shared<user::Letters::Boxes>();
    const auto channel = std::make_shared<FailingLetters>(boxes);
    Data<int> data(1);
    const auto throwing = [&](auto exception) {
        FMI::Communicator comm(0, 1, empty_config(), "types");
        comm.register_channel("mine", channel);
        channel->before = [exception](const char *what) {
            if (std::strcmp(what, "bcast") == 0) {
                throw exception;
            }
        };
        try {
            comm.bcast(data, 0);
        } catch (const decltype(exception) &) {
            if constexpr (std::is_same_v<decltype(exception), FMI::Utils::Timeout>) {
                // It is the first cause of all that follows, and so of the same kind.
                THROWS(FMI::Utils::Timeout, comm.barrier());
            } else {
                collectives_are_over(comm);
            }
            return;
        }
        CHECK(!"did not throw");
    };
    throwing(FMI::Utils::Timeout());
    throwing(std::out_of_range("out"));
    throwing(std::bad_alloc());
    throwing(42);
    throwing(std::string("text"));
}

// A channel over a communicator of its own, with a function that throws in the middle.
class Wrapping : public user::Letters {
public:
    Wrapping(std::shared_ptr<Boxes> boxes, FMI::Communicator inner) : Letters(std::move(boxes)), inner(std::move(inner)) {}

    void bcast(channel_data buf, peer_num root) override
    {
        Data<void *> data(buf.buf, buf.len);
        inner.bcast(data, root);
    }

    void allreduce(channel_data sendbuf, channel_data recvbuf, raw_function f) override
    {
        Data<void *> send(sendbuf.buf, sendbuf.len), recv(recvbuf.buf, recvbuf.len);
        inner.allreduce(send, recv,
            FMI::Utils::Function<void *>(
                [f](void *a, void *b) {
                    f.f(static_cast<char *>(a), static_cast<char *>(b));
                    return a;
                },
                f.commutative, f.associative));
    }

private:
    FMI::Communicator inner;
};

static void through_two_communicators()
{
    const std::string config = memory_config();
    const auto boxes = std::make_shared<user::Letters::Boxes>();
    const Mishap mishap{5};
    on_threads(2, [&](peer_num rank) {
        FMI::Communicator comm(rank, 2, empty_config(), "outer");
        comm.register_channel("mine",
            std::make_shared<Wrapping>(boxes, FMI::Communicator(rank, 2, config, "inner")));
        check_sum(comm, rank, 2);
        Data<int> mine(1), sum;
        comm.allreduce(mine, sum, FMI::Ops::sum<int>());
        CHECK(sum == 2);
        const auto failing = [&](int, int) -> int { throw mishap; };
        arrives(mishap, [&] { comm.allreduce(mine, sum, {failing, true, true}); });
        collectives_are_over(comm);
    });
}

// What is asked before an operation may throw as well: then nothing has happened.
static void in_the_choice()
{
    const Mishap mishap{6};
    const auto channel = std::make_shared<FailingLetters>(std::make_shared<user::Letters::Boxes>());
    FMI::Communicator comm(0, 1, memory_config(), "choice");
    comm.register_channel("mine", channel);
    comm.hint(FMI::Utils::fast);
    Data<int> data(1);
    channel->before = throw_in("get_operation_latency", mishap);
    arrives(mishap, [&] { comm.bcast(data, 0); });
    comm.bcast(data, 0);
    check_sum(comm, 0, 1);
}

// A reduction function may not use FMI, and the error comes out of it like any other.
static void a_function_that_uses_fmi()
{
    const std::string config = memory_config();
    on_threads(2, [&](peer_num rank) {
        FMI::Communicator comm(rank, 2, config, "reentrant");
        Data<int> mine(1), sum;
        const auto meddling = [&](int a, int) {
            comm.barrier();
            return a;
        };
        THROWS(std::runtime_error, comm.allreduce(mine, sum, {meddling, true, true}));
    });
}

int main()
{
    watchdog(100);
    const Server server;
    in_a_function(memory_config(), false);
    in_a_function(memory_config(), true);
    in_a_function(server.config(), false);
    a_wrong_length();
    in_objects_of_a_peer_to_peer_channel();
    in_a_store();
    in_a_whole_channel();
    of_every_type();
    through_two_communicators();
    in_the_choice();
    the_channel_of_a_new_communicator();
    a_function_that_uses_fmi();
    return 0;
}
