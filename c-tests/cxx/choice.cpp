// Which channel carries an operation: registered channels, policies, hints, and the model behind them. No
// server runs here.
#include "support.h"

#include <cmath>

using FMI::Comm::Channel;
using FMI::Comm::Data;
using FMI::Utils::ChannelPolicy;
using FMI::Utils::OperationInfo;
using Ints = std::vector<int>;
using Channels = std::map<std::string, std::shared_ptr<Channel>>;

// A channel of one rank, that counts what it is asked for.
class Counting : public SilentChannel {
public:
    explicit Counting(double latency = 0, double price = 0) : latency(latency), price(price) {}

    void send(channel_data, peer_num) override { calls++; }
    void recv(channel_data, peer_num) override { calls++; }
    void bcast(channel_data, peer_num) override { calls++; }
    void barrier() override { calls++; }
    void gather(channel_data send, channel_data recv, peer_num) override { copy(send, recv); }
    void scatter(channel_data send, channel_data recv, peer_num) override { copy(send, recv); }
    void reduce(channel_data send, channel_data recv, peer_num, raw_function) override { copy(send, recv); }
    void allreduce(channel_data send, channel_data recv, raw_function) override { copy(send, recv); }
    void scan(channel_data send, channel_data recv, raw_function) override { copy(send, recv); }
    double get_latency(peer_num, peer_num, std::size_t) override { return latency; }
    double get_price(peer_num, peer_num, std::size_t) override { return price; }
    double get_operation_latency(OperationInfo) override { return latency; }
    double get_operation_price(OperationInfo) override { return price; }
    void finalize() override { finalized++; }

    peer_num id() const { return peer_id; }
    peer_num peers() const { return num_peers; }
    std::string name() const { return comm_name; }

    double latency, price;
    int calls = 0, finalized = 0;

private:
    void copy(channel_data send, channel_data recv)
    {
        calls++;
        std::memcpy(recv.buf, send.buf, std::min(send.len, recv.len));
    }
};

static std::shared_ptr<Counting> counting(double latency = 0, double price = 0)
{
    return std::make_shared<Counting>(latency, price);
}

// All operations that a communicator of one rank may run over a Counting channel.
static void run_all(FMI::Communicator &comm)
{
    Data<Ints> four(Ints{1, 2, 3, 4}), also(4);
    Data<int> one(1), other(0);
    comm.send(four, 0);
    comm.recv(four, 0);
    comm.bcast(one, 0);
    comm.barrier();
    comm.gather(four, also, 0);
    comm.scatter(four, also, 0);
    comm.reduce(one, other, 0, add());
    comm.allreduce(one, other, add());
    comm.scan(one, other, {[](int a, int b) { return a - b; }, false, false});
}

static void registered()
{
    auto channel = counting();
    std::weak_ptr<Counting> watched = channel;
    {
        FMI::Communicator comm(0, 1, empty_config(), "the name");
        THROWS(std::runtime_error, comm.barrier());
        comm.register_channel("mine", channel);
        CHECK(channel->id() == 0 && channel->peers() == 1 && channel->name() == "the name");
        run_all(comm);
        CHECK(channel->calls == 9);

        // One of the same name takes its place.
        auto second = counting();
        comm.register_channel("mine", second);
        comm.barrier();
        CHECK(channel->calls == 9 && second->calls == 1);
        CHECK(second->finalized == 0);
    }
    CHECK(channel->finalized <= 1);
    channel.reset();
    CHECK(watched.expired());

    // Finalized once, by the destructor; the object stays the user's.
    channel = counting();
    {
        FMI::Communicator comm(0, 1, empty_config(), "finalized");
        comm.register_channel("mine", channel);
        comm.barrier();
        CHECK(channel->finalized == 0);
        FMI::Communicator moved = std::move(comm);
        moved.barrier();
        CHECK(channel->finalized == 0);
    }
    CHECK(channel->finalized == 1 && channel.use_count() == 1);

    // Rank, size and name of a larger job, without any operation; not even one was finalized that was
    // never used.
    {
        FMI::Communicator comm(3, 7, empty_config(), std::string("\xff\0name", 6));
        comm.register_channel("mine", channel);
        CHECK(channel->id() == 3 && channel->peers() == 7 && channel->name() == std::string("\xff\0name", 6));
    }
    CHECK(channel->finalized == 2);
}

// Also in the place of those that the library has.
static void replaces_built_in_ones()
{
    FMI::Communicator comm(0, 1, memory_config(), "replaced");
    check_sum(comm, 0, 1);
    auto channel = counting();
    comm.register_channel("Memory", channel);
    run_all(comm);
    CHECK(channel->calls == 9);

    // And it may be one that the library has.
    FMI::Communicator other(0, 1, empty_config(), "built-in");
    other.register_channel("mine", Channel::get_channel("Direct", {}, {}));
    check_sum(other, 0, 1);
    Data<int> out(5), in(0);
    other.send(out, 0);
    other.recv(in, 0);
    CHECK(in == 5);
}

static void a_channel_that_fails_to_finalize()
{
    class Failing : public Counting {
        void finalize() override { throw std::runtime_error("not in order"); }
    };
    FMI::Communicator comm(0, 1, empty_config(), "failing");
    comm.register_channel("mine", std::make_shared<Failing>());
    comm.barrier();
}

static void hints()
{
    auto quick = counting(1, 100), thrifty = counting(100, 1);
    FMI::Communicator comm(0, 1, empty_config(), "hints");
    comm.register_channel("a", quick);
    comm.register_channel("b", thrifty);
    run_all(comm);
    CHECK(quick->calls == 0 && thrifty->calls == 9);
    comm.hint(FMI::Utils::Hint::fast);
    run_all(comm);
    CHECK(quick->calls == 9 && thrifty->calls == 9);
    comm.hint(FMI::Utils::cheap);
    run_all(comm);
    CHECK(quick->calls == 9 && thrifty->calls == 18);

    // A channel that is registered later counts for the next choice.
    auto free_of_charge = counting(1000, 0);
    comm.register_channel("c", free_of_charge);
    run_all(comm);
    CHECK(free_of_charge->calls == 9 && thrifty->calls == 18);
}

// A policy of the user's own sees every operation, and its choice is what runs.
class Recording : public ChannelPolicy {
public:
    Recording(Channels &channels, std::string choice) :
        ChannelPolicy(channels, 1, 0, FMI::Utils::cheap), choice(std::move(choice))
    {
    }

    std::string get_channel(OperationInfo info) override
    {
        asked.push_back(info);
        return choice;
    }

    void set_hint(FMI::Utils::Hint hint) override { hints.push_back(hint); }

    std::string choice;
    std::vector<OperationInfo> asked;
    std::vector<FMI::Utils::Hint> hints;
};

static void policies()
{
    Channels none;
    auto a = counting(1, 1), b = counting(2, 2);
    auto policy = std::make_shared<Recording>(none, "b");
    FMI::Communicator comm(0, 1, empty_config(), "policies");
    comm.register_channel("a", a);
    comm.register_channel("b", b);
    comm.barrier();
    CHECK(a->calls == 1);
    comm.set_channel_policy(policy);
    comm.barrier();
    CHECK(a->calls == 1 && b->calls == 1);
    policy->asked.clear();

    Data<Ints> two(2), four(4), many(100);
    Data<double> one(1), other;
    comm.send(two, 0);
    comm.recv(four, 0);
    comm.bcast(one, 0);
    comm.barrier();
    comm.gather(two, many, 0);
    comm.scatter(many, four, 0);
    comm.reduce(one, other, 0, {[](double x, double y) { return x + y; }, true, true});
    comm.reduce(one, other, 0, {[](double x, double y) { return x + y; }, true, false});
    comm.reduce(one, other, 0, {[](double x, double y) { return x + y; }, false, true});
    comm.allreduce(one, other, {[](double x, double y) { return x + y; }, true, true});
    comm.allreduce(one, other, {[](double x, double y) { return x + y; }, false, false});
    comm.scan(one, other, {[](double x, double y) { return x + y; }, true, true});
    comm.scan(one, other, {[](double x, double y) { return x + y; }, false, false});

    using FMI::Utils::Operation;
    struct Expected {
        Operation op;
        std::size_t size;
        bool left_to_right;
    };
    static const Expected EXPECTED[] = {
        {Operation::send, 8, false},
        {Operation::send, 16, false}, // a receive is asked for as a send
        {Operation::bcast, 8, false},
        {Operation::barrier, 0, false}, // of any size
        {Operation::gather, 8, false},
        {Operation::scatter, 16, false},
        {Operation::reduce, 8, false},
        {Operation::reduce, 8, true},
        {Operation::reduce, 8, true},
        {Operation::allreduce, 8, false},
        {Operation::allreduce, 8, true},
        {Operation::scan, 8, false},
        {Operation::scan, 8, true},
    };
    CHECK(policy->asked.size() == 13);
    for (std::size_t i = 0; i < 13; i++) {
        const OperationInfo &asked = policy->asked[i];
        CHECK(asked.op == EXPECTED[i].op);
        CHECK(asked.data_size == EXPECTED[i].size || asked.op == Operation::barrier);
        CHECK(asked.left_to_right == EXPECTED[i].left_to_right);
    }
    CHECK(a->calls == 1 && b->calls == 14);

    // Another choice, at once; and one that there is not.
    policy->choice = "a";
    comm.barrier();
    CHECK(a->calls == 2 && b->calls == 14);
    policy->choice = "nowhere";
    THROWS(std::runtime_error, comm.barrier());
    policy->choice = "a";
    comm.barrier();
    CHECK(a->calls == 3 && b->calls == 14);

    // Hints go to the policy, and so does nothing else.
    comm.hint(FMI::Utils::fast);
    comm.hint(FMI::Utils::cheap);
    CHECK(policy->hints == (std::vector<FMI::Utils::Hint>{FMI::Utils::fast, FMI::Utils::cheap}));
    CHECK(policy.use_count() == 2);

    // A policy that fails.
    class Failing : public ChannelPolicy {
    public:
        explicit Failing(Channels &channels) : ChannelPolicy(channels, 1, 0, FMI::Utils::cheap) {}
        std::string get_channel(OperationInfo) override { throw std::domain_error("no choice"); }
    };
    comm.set_channel_policy(std::make_shared<Failing>(none));
    THROWS(std::domain_error, comm.barrier());
    comm.set_channel_policy(policy);
    comm.barrier();
}

// The policy alone.
static void choices()
{
    Channels channels;
    ChannelPolicy cheap(channels, 4, 0.1, FMI::Utils::cheap), fast(channels, 4, 0.1, FMI::Utils::Hint::fast);
    const OperationInfo send{FMI::Utils::send, 100};
    THROWS(std::runtime_error, cheap.get_channel(send));

    // The map is the user's, and later entries count.
    channels["z"] = counting(1000, 0.5);
    CHECK(cheap.get_channel(send) == "z" && fast.get_channel(send) == "z");
    channels["y"] = counting(1, 10);
    CHECK(cheap.get_channel(send) == "z" && fast.get_channel(send) == "y");

    // Every waiting rank is billed: 0.7 + 4 ranks * 1 s * 0.1 USD/s is more than 1, and 0.7 + 0.1 is not.
    channels.clear();
    channels["slow"] = counting(1000, 0.7);
    channels["quick"] = counting(0, 1);
    CHECK(cheap.get_channel(send) == "quick");
    ChannelPolicy alone(channels, 1, 0.1, FMI::Utils::cheap);
    CHECK(alone.get_channel(send) == "slow");
    ChannelPolicy free_of_charge(channels, 4, 0, FMI::Utils::cheap);
    CHECK(free_of_charge.get_channel(send) == "slow");
    // Latencies are in ms: 0.7 + 4 * 0.001 s * 0.1 USD/s.
    channels["slow"] = counting(1, 0.7);
    CHECK(cheap.get_channel(send) == "slow");

    // A channel that cannot say what it costs is the last to be taken.
    Channels silent = {{"a", counting(std::numeric_limits<double>::quiet_NaN(), 0)}, {"b", counting(5, 0)}};
    ChannelPolicy of_silent(silent, 2, 0.1, FMI::Utils::Hint::fast);
    CHECK(of_silent.get_channel(send) == "b");

    // Sender and receiver choose alike, whatever lengths they hold: by 64 KiB.
    class Line : public Counting {
    public:
        Line(double start, double bandwidth) : start(start), bandwidth(bandwidth) {}
        double get_operation_latency(OperationInfo info) override
        {
            return start + static_cast<double>(info.data_size) / bandwidth;
        }

    private:
        double start, bandwidth;
    };
    Channels lines = {{"long", std::make_shared<Line>(100, 65536)}, {"short", std::make_shared<Line>(1, 655.36)}};
    ChannelPolicy by_length(lines, 2, 0.1, FMI::Utils::Hint::fast);
    for (std::size_t size : {0, 8, 65536, 100000000}) {
        // 64 KiB take 101 ms on both: of equal ones the first by name.
        CHECK(by_length.get_channel({FMI::Utils::send, size}) == "long");
    }
    CHECK(by_length.get_channel({FMI::Utils::bcast, 8}) == "short");
    CHECK(by_length.get_channel({FMI::Utils::bcast, 100000000}) == "long");

    alone.set_hint(FMI::Utils::fast);
    CHECK(alone.get_channel(send) == "quick");
    alone.set_hint(FMI::Utils::Hint::cheap);
    CHECK(alone.get_channel(send) == "slow");

    // The first of the map wins a tie.
    channels.clear();
    for (const char *name : {"c", "a", "b"}) {
        channels[name] = counting(1, 1);
    }
    CHECK(cheap.get_channel(send) == "a" && fast.get_channel(send) == "a");
    channels.erase("a");
    CHECK(cheap.get_channel(send) == "b" && fast.get_channel(send) == "b");
    CHECK(channels["b"].use_count() == 1);
}

// Prices and latencies

static bool near(double a, double b)
{
    return std::fabs(a - b) <= 1e-9 * std::max(std::fabs(a), std::fabs(b));
}

static const Parameters NOBODY = {{"host", "127.0.0.1"}, {"port", "1"}, {"max_timeout", "100"}, {"timeout", "10"},
    {"bucket_name", "none"}, {"s3_region", "eu-central-1"}};

static void direct_model()
{
    const auto direct = Channel::get_channel("Direct", NOBODY,
        {{"bandwidth", "400.0"}, {"overhead", "0.34"}, {"transfer_price", "0.01"}, {"vm_price", "0.0134"},
            {"requests_per_hour", "1000"}, {"include_infrastructure_costs", "true"}});
    CHECK(std::dynamic_pointer_cast<FMI::Comm::Direct>(direct) != nullptr);
    CHECK(std::dynamic_pointer_cast<FMI::Comm::PeerToPeer>(direct) != nullptr);
    // log2(p + c) * overhead + p * c * s / bandwidth, in ms
    CHECK(near(direct->get_latency(1, 1, 4000000), 0.34 + 10));
    CHECK(near(direct->get_latency(1, 3, 4000000), 2 * 0.34 + 30));
    CHECK(near(direct->get_latency(4, 4, 0), 3 * 0.34));
    // 2 * p * c * s * transfer_price + vm_price / requests_per_hour, in USD
    CHECK(near(direct->get_price(1, 1, 1000000000), 0.02 + 0.0134 / 1000));
    CHECK(near(direct->get_price(2, 3, 1000000000), 0.12 + 0.0134 / 1000));

    const auto without = Channel::get_channel(
        "Direct", {}, {{"transfer_price", "0.01"}, {"include_infrastructure_costs", "false"}});
    CHECK(near(without->get_price(1, 1, 1000000000), 0.02));
}

static void redis_model()
{
    const auto redis = Channel::get_channel("Redis", NOBODY,
        {{"bandwidth_single", "100"}, {"bandwidth_multiple", "400"}, {"overhead", "5.2"}, {"transfer_price", "0.01"},
            {"instance_price", "0.0038"}, {"requests_per_hour", "1000"}, {"include_infrastructure_costs", "true"}});
    CHECK(std::dynamic_pointer_cast<FMI::Comm::Redis>(redis) != nullptr);
    CHECK(std::dynamic_pointer_cast<FMI::Comm::ClientServer>(redis) != nullptr);
    CHECK(near(redis->get_latency(1, 1, 1000000), 5.2 + 10));
    CHECK(near(redis->get_latency(1, 3, 1000000), 2 * 5.2 + 10));
    CHECK(near(redis->get_latency(1, 7, 1000000), 3 * 5.2 + 17.5));
    CHECK(near(redis->get_price(1, 2, 1000000000), 0.03 + 0.0038 / 1000));
}

static void s3_model()
{
    const auto s3 = Channel::get_channel("S3", NOBODY,
        {{"bandwidth", "50"}, {"overhead", "40.4"}, {"transfer_price", "0"}, {"download_price", "0.00000043"},
            {"upload_price", "0.0000054"}});
    CHECK(std::dynamic_pointer_cast<FMI::Comm::S3>(s3) != nullptr);
    CHECK(s3->get_latency(1, 1, 0) >= 40.4);
    CHECK(near(s3->get_latency(1, 1, 50000000) - s3->get_latency(1, 1, 0), 1000));
    CHECK(s3->get_price(1, 1, 0) >= 5.4e-6 + 4.3e-7);
    CHECK(s3->get_price(1, 1, 0) < 1e-3);
}

static void operations_of_the_model()
{
    for (const char *name : {"Direct", "Redis", "S3"}) {
        const auto channel = Channel::get_channel(name, NOBODY, {});
        channel->set_peer_id(0);
        channel->set_num_peers(8);
        channel->set_comm_name("model");
        for (int op = 0; op < 8; op++) {
            for (const bool left_to_right : {false, true}) {
                const auto operation = static_cast<FMI::Utils::Operation>(op);
                const double small = channel->get_operation_latency({operation, 8, left_to_right});
                const double large = channel->get_operation_latency({operation, 80000000, left_to_right});
                CHECK(small > 0 && std::isfinite(large));
                CHECK(operation == FMI::Utils::barrier ? large >= small : large > small);
                CHECK(channel->get_operation_price({operation, 8, left_to_right}) > 0);
            }
        }
        // What a tree of eight takes is at least one message, and less than one of each rank to each.
        const double one = channel->get_operation_latency({FMI::Utils::send, 1000});
        const double eight = channel->get_operation_latency({FMI::Utils::bcast, 1000});
        CHECK(eight >= one && eight < 56 * one);
    }
    THROWS(std::runtime_error, Channel::get_channel("Telepathy", {}, {}));
    THROWS(std::runtime_error, Channel::get_channel("", {}, {}));
    THROWS(std::runtime_error, Channel::get_channel("Direct", {{"port", "a hundred"}}, {}));
}

// Channels of the user's own get the model of operations from that of messages.
static void model_of_custom_channels()
{
    class Mail : public FMI::Comm::PeerToPeer {
    public:
        void send_object(channel_data, peer_num) override {}
        void recv_object(channel_data, peer_num) override {}
        double get_latency(peer_num, peer_num, std::size_t bytes) override { return 10 + static_cast<double>(bytes); }
        double get_price(peer_num, peer_num, std::size_t) override { return 0.25; }
    };
    Mail mail;
    mail.set_peer_id(0);
    mail.set_num_peers(8);
    mail.set_comm_name("mail");
    CHECK(near(mail.get_operation_latency({FMI::Utils::send, 100}), 110));
    CHECK(near(mail.get_operation_price({FMI::Utils::send, 100}), 0.25));
    for (int op = 1; op < 8; op++) {
        const auto operation = static_cast<FMI::Utils::Operation>(op);
        CHECK(mail.get_operation_latency({operation, 100}) >= 10);
        CHECK(mail.get_operation_price({operation, 100}) >= 0.25);
        CHECK(mail.get_operation_price({operation, 100, true}) >= 0.25);
    }
}

int main()
{
    watchdog(60);
    registered();
    replaces_built_in_ones();
    a_channel_that_fails_to_finalize();
    hints();
    policies();
    choices();
    direct_model();
    redis_model();
    s3_model();
    operations_of_the_model();
    model_of_custom_channels();
    return 0;
}
