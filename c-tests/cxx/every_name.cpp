// A program of the original's time: every name that it had, on as many ranks as it is started with.
//
//   fmi run -n 4 -- every_name
//
// It needs one include, and of CMake the three lines of docs/from-the-original.md.
#include <Communicator.h>

#include <iostream>

using FMI::Comm::Data;
using FMI::Utils::peer_num;

static peer_num rank, size;

static void check(bool condition, const char *what)
{
    if (!condition) {
        std::cerr << "rank " << rank << ": not so: " << what << std::endl;
        std::exit(1);
    }
}

#define CHECK(...) check((__VA_ARGS__), #__VA_ARGS__)

// As the original's Python binding has it.
namespace FMI::Utils {
enum Op { SUM, PROD, MAX, MIN, CUSTOM };
enum Type { INT, DOUBLE, INT_LIST, DOUBLE_LIST };
} // namespace FMI::Utils

// As programs have it that hide the classes.
template <typename T>
void fmi_send(FMI::Communicator &comm, T value, peer_num dest)
{
    Data<T> data(value);
    comm.send(data, dest);
}

// A channel of the user's that hands everything on to one of the library's, and counts.
class Counting : public FMI::Comm::PeerToPeer {
public:
    explicit Counting(std::shared_ptr<FMI::Comm::Direct> way) : way(std::move(way)) {}

    void send_object(channel_data buf, peer_num dest) override
    {
        ++objects;
        introduce();
        way->send_object(buf, dest);
    }

    void recv_object(channel_data buf, peer_num src) override
    {
        ++objects;
        introduce();
        way->recv_object(buf, src);
    }

    double get_latency(peer_num producer, peer_num consumer, std::size_t bytes) override
    {
        return way->get_latency(producer, consumer, bytes) + 1;
    }

    double get_price(peer_num producer, peer_num consumer, std::size_t bytes) override
    {
        return way->get_price(producer, consumer, bytes) + 1;
    }

    void finalize() override { way->finalize(); }

    // The protected parts of the collectives, one by one.
    void parts(channel_data mine, channel_data result)
    {
        const raw_function add{[](char *a, char *b) {
                                   int left, right;
                                   std::memcpy(&left, a, sizeof left);
                                   std::memcpy(&right, b, sizeof right);
                                   left += right;
                                   std::memcpy(a, &left, sizeof left);
                               },
            true, true};
        const int all = static_cast<int>(num_peers * (num_peers + 1) / 2);
        const int up_to_here = static_cast<int>((peer_id + 1) * (peer_id + 2) / 2);
        const auto is = [&](int expected) { return *reinterpret_cast<int *>(result.buf) == expected; };
        reduce_ltr(mine, result, 0, add);
        CHECK(peer_id != 0 || is(all));
        reduce_no_order(mine, result, num_peers - 1, add);
        CHECK(peer_id != num_peers - 1 || is(all));
        allreduce_no_order(mine, result, add);
        CHECK(is(all));
        scan_ltr(mine, result, add);
        CHECK(is(up_to_here));
        scan_no_order(mine, result, add);
        CHECK(is(up_to_here));
    }

    int objects = 0;

private:
    void introduce()
    {
        way->set_peer_id(peer_id);
        way->set_num_peers(num_peers);
        way->set_comm_name(comm_name + " underneath");
    }

    std::shared_ptr<FMI::Comm::Direct> way;
};

// A store that nobody uses: what can be asked about it.
class Nowhere : public FMI::Comm::ClientServer {
public:
    explicit Nowhere(std::map<std::string, std::string> params) : ClientServer(std::move(params))
    {
        CHECK(timeout == 7 && max_timeout == 1234);
        CHECK(num_operations.empty() && created_objects.empty());
    }

    void upload_object(channel_data, std::string) override {}
    bool download_object(channel_data, std::string) override { return false; }
    void delete_object(std::string) override {}
    std::vector<std::string> get_object_names() override { return {}; }
    double get_latency(peer_num, peer_num, std::size_t) override { return 1e9; }
    double get_price(peer_num, peer_num, std::size_t) override { return 1e9; }

    void keep(channel_data buf)
    {
        upload(buf, "an object");
        CHECK(created_objects == std::vector<std::string>{"an object"});
        finalize();
        CHECK(created_objects.empty());
    }
};

// Goes by the name.
class Alphabetical : public FMI::Utils::ChannelPolicy {
public:
    using ChannelPolicy::ChannelPolicy;

    std::string get_channel(FMI::Utils::OperationInfo) override { return "Counting"; }
    void set_hint(FMI::Utils::Hint) override {}
};

static void operations(FMI::Communicator &comm)
{
    const int me = static_cast<int>(rank), all = static_cast<int>(size);
    if (size > 1 && rank == 0) {
        fmi_send(comm, 42, 1);
    } else if (rank == 1) {
        Data<int> answer;
        comm.recv(answer, 0);
        CHECK(answer == 42);
    }

    Data<std::vector<int>> vector(3), row(size), block(1), blocks;
    if (rank == size - 1) {
        vector = std::vector<int>{1, 2, 3};
        blocks = std::vector<int>(size, 5);
    }
    comm.bcast(vector, size - 1);
    CHECK(vector.get() == std::vector<int>{1, 2, 3} && vector.size_in_bytes() == 3 * sizeof(int));
    comm.barrier();
    Data<std::vector<int>> own(std::vector<int>(1, me));
    comm.gather(own, row, 0);
    CHECK(rank != 0 || row.get().back() == all - 1);
    comm.scatter(blocks, block, size - 1);
    CHECK(block.get().at(0) == 5);
    char memory[4] = "abc";
    Data<void *> raw(memory, sizeof memory);
    comm.bcast(raw, 0);
    CHECK(raw.get() == memory && raw.data() == memory && raw.size_in_bytes() == 4);

    const FMI::Utils::Function<int> add([](auto a, auto b) { return a + b; }, true, true);
    CHECK(add.commutative && add.associative && add(1, 2) == 3);
    Data<int> mine(me + 1), sum, so_far, last;
    comm.reduce(mine, sum, 0, add);
    CHECK(rank != 0 || sum.get() == all * (all + 1) / 2);
    comm.scan(mine, so_far, {[](auto a, auto b) { return a + b; }, false, false});
    CHECK(so_far == (me + 1) * (me + 2) / 2);
    comm.allreduce(mine, last, {[](int, int b) { return b; }, false, true});
    CHECK(last == all && mine == me + 1);
}

static void choice(FMI::Communicator &comm, std::shared_ptr<Counting> counting)
{
    comm.hint(FMI::Utils::Hint::fast);
    comm.hint(FMI::Utils::cheap);
    comm.register_channel("Counting", counting);
    std::map<std::string, std::shared_ptr<FMI::Comm::Channel>> channels;
    const auto policy = std::make_shared<Alphabetical>(channels, size, 0.00001, FMI::Utils::fast);
    comm.set_channel_policy(policy);
    operations(comm);
    CHECK(size == 1 || counting->objects > 0);

    int mine = static_cast<int>(rank) + 1, result = 0;
    counting->parts({reinterpret_cast<char *>(&mine), sizeof mine}, {reinterpret_cast<char *>(&result), sizeof result});

    // Of two channels that are asked for the same.
    channels["a"] = counting;
    channels["b"] = std::make_shared<Nowhere>(
        std::map<std::string, std::string>{{"timeout", "7"}, {"max_timeout", "1234"}});
    channels["b"]->set_peer_id(rank);
    channels["b"]->set_num_peers(size);
    channels["b"]->set_comm_name("nowhere");
    FMI::Utils::ChannelPolicy by_model(channels, size, 0.00001, FMI::Utils::cheap);
    by_model.set_hint(FMI::Utils::fast);
    for (const FMI::Utils::Operation operation : {FMI::Utils::send, FMI::Utils::bcast, FMI::Utils::gather,
             FMI::Utils::scatter, FMI::Utils::reduce, FMI::Utils::allreduce, FMI::Utils::scan}) {
        FMI::Utils::OperationInfo info{operation, 1000};
        CHECK(!info.left_to_right);
        CHECK(by_model.get_channel(info) == "a");
        CHECK(counting->get_operation_latency(info) >= 0 && counting->get_operation_price({operation, 8, true}) >= 0);
    }
    char byte = 1;
    std::static_pointer_cast<Nowhere>(channels["b"])->keep({&byte, 1});
}

static void built_in_channels()
{
    const auto direct = FMI::Comm::Channel::get_channel("Direct", {{"host", "127.0.0.1"}}, {{"overhead", "2"}});
    CHECK(std::dynamic_pointer_cast<FMI::Comm::Direct>(direct) != nullptr);
    CHECK(direct->get_latency(1, 1, 0) == 2);
    const FMI::Comm::Redis redis({{"host", "127.0.0.1"}}, {});
    const auto s3 = FMI::Comm::Channel::get_channel("S3", {{"bucket_name", "b"}, {"s3_region", "r"}}, {});
    CHECK(std::dynamic_pointer_cast<FMI::Comm::S3>(s3)->get_price(1, 1, 8) > 0);
    try {
        FMI::Comm::Channel::get_channel("Pigeon", {}, {});
        CHECK(false);
    } catch (const std::runtime_error &) {
    }
    const FMI::Utils::Configuration configuration("{\"backends\": {\"S3\": {\"bucket_name\": \"b\"}}}");
    CHECK(configuration.get_active_channels().at("S3").first.at("bucket_name") == "b");
    CHECK(configuration.get_faas_price() > 0);
    try {
        throw FMI::Utils::Timeout();
    } catch (const std::exception &timeout) {
        CHECK(std::string(timeout.what()) == "Timeout was reached");
    }
}

int main()
{
    if (!std::getenv("FMI_RANK") || !std::getenv("FMI_SIZE")) {
        std::cerr << "start this program with fmi run" << std::endl;
        return 1;
    }
    rank = static_cast<peer_num>(std::atoi(std::getenv("FMI_RANK")));
    size = static_cast<peer_num>(std::atoi(std::getenv("FMI_SIZE")));
    built_in_channels();
    auto comm = FMI::Communicator(rank, size, "", "every name", 256);
    operations(comm);
    const auto way = std::make_shared<FMI::Comm::Direct>(
        std::map<std::string, std::string>{{"max_timeout", "30000"}}, std::map<std::string, std::string>{});
    choice(comm, std::make_shared<Counting>(way));
    std::cout << "rank " << rank << " of " << size << " is done" << std::endl;
}
