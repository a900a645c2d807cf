// Which virtual functions call which: what a class overrides is called where the original called it, by a
// communicator and by the object itself.
#include "user_channels.h"

using FMI::Comm::Data;
using Calls = std::vector<std::string>;

// Notes every operation, and hands it on.
template <typename Base>
class Noting : public Base {
public:
    using Base::Base;

    void send(channel_data buf, peer_num dest) override
    {
        calls.push_back("send");
        Base::send(buf, dest);
    }

    void recv(channel_data buf, peer_num src) override
    {
        calls.push_back("recv");
        Base::recv(buf, src);
    }

    void bcast(channel_data buf, peer_num root) override
    {
        calls.push_back("bcast");
        Base::bcast(buf, root);
    }

    void barrier() override
    {
        calls.push_back("barrier");
        Base::barrier();
    }

    void gather(channel_data sendbuf, channel_data recvbuf, peer_num root) override
    {
        calls.push_back("gather");
        Base::gather(sendbuf, recvbuf, root);
    }

    void scatter(channel_data sendbuf, channel_data recvbuf, peer_num root) override
    {
        calls.push_back("scatter");
        Base::scatter(sendbuf, recvbuf, root);
    }

    void reduce(channel_data sendbuf, channel_data recvbuf, peer_num root, raw_function f) override
    {
        calls.push_back("reduce");
        Base::reduce(sendbuf, recvbuf, root, f);
    }

    void allreduce(channel_data sendbuf, channel_data recvbuf, raw_function f) override
    {
        calls.push_back("allreduce");
        Base::allreduce(sendbuf, recvbuf, f);
    }

    void scan(channel_data sendbuf, channel_data recvbuf, raw_function f) override
    {
        calls.push_back("scan");
        Base::scan(sendbuf, recvbuf, f);
    }

    Calls calls;
};

class Messages : public Noting<user::HandOver> {
public:
    using Noting::Noting;

    void send_object(channel_data buf, peer_num dest) override
    {
        calls.push_back("send_object");
        lengths.push_back(buf.len);
        HandOver::send_object(buf, dest);
    }

    void recv_object(channel_data buf, peer_num src) override
    {
        calls.push_back("recv_object");
        lengths.push_back(buf.len);
        HandOver::recv_object(buf, src);
    }

    std::vector<std::size_t> lengths;
};

class Store : public Noting<user::Directory> {
public:
    using Noting::Noting;

    void upload(channel_data buf, std::string name) override
    {
        calls.push_back("upload");
        Directory::upload(buf, name);
    }

    void download(channel_data buf, std::string name) override
    {
        calls.push_back("download");
        Directory::download(buf, name);
    }

    void upload_object(channel_data buf, std::string name) override
    {
        calls.push_back("upload_object");
        names.push_back(name);
        Directory::upload_object(buf, name);
    }

    bool download_object(channel_data buf, std::string name) override
    {
        calls.push_back("download_object");
        return Directory::download_object(buf, name);
    }

    void delete_object(std::string name) override
    {
        calls.push_back("delete_object");
        deleted.push_back(name);
        Directory::delete_object(name);
    }

    std::vector<std::string> &created() { return created_objects; }

    std::vector<std::string> names, deleted;
};

// Whether these come in the calls in this order, whatever is between them.
static bool in_order(const Calls &calls, const Calls &expected)
{
    auto next = calls.begin();
    for (const std::string &name : expected) {
        next = std::find(next, calls.end(), name);
        if (next == calls.end()) {
            std::fprintf(stderr, "no %s among:", name.c_str());
            for (const std::string &call : calls) {
                std::fprintf(stderr, " %s", call.c_str());
            }
            std::fprintf(stderr, "\n");
            return false;
        }
        ++next;
    }
    return true;
}

static std::ptrdiff_t number_of(const Calls &calls, const char *name)
{
    return std::count(calls.begin(), calls.end(), name);
}

// The calls of one operation.
template <typename Channel, typename Body>
static Calls calls_of(Channel &channel, Body body)
{
    channel.calls.clear();
    body();
    return channel.calls;
}

static raw_function sum_of_bytes(bool may_be_reordered)
{
    return {[](char *a, char *b) { *a = static_cast<char>(*a + *b); }, may_be_reordered, may_be_reordered};
}

template <typename Channel>
static void introduce(Channel &channel, peer_num rank, peer_num size, const std::string &name)
{
    channel.set_peer_id(rank);
    channel.set_num_peers(size);
    channel.set_comm_name(name);
}

// A message is two objects, or one if it is empty. Both sides see the same lengths.
static void objects_of_messages()
{
    const auto table = std::make_shared<user::HandOver::Table>();
    std::vector<std::size_t> lengths[2];
    on_threads(2, [&](peer_num rank) {
        Messages channel(table);
        introduce(channel, rank, 2, "objects");
        char bytes[100] = {};
        for (const std::size_t length : {0, 1, 100}) {
            if (rank == 0) {
                channel.send({bytes, length}, 1);
            } else {
                channel.recv({bytes, length}, 0);
            }
        }
        lengths[rank] = channel.lengths;
    });
    CHECK(lengths[0] == lengths[1] && lengths[0].size() == 5);
    const std::size_t header = lengths[0][0];
    CHECK(header > 0 && lengths[0] == (std::vector<std::size_t>{header, header, 1, header, 100}));
}

// Every message of a collective passes through send or recv, and then through the objects.
static void collectives_of_messages()
{
    const auto table = std::make_shared<user::HandOver::Table>();
    on_threads(2, [&](peer_num rank) {
        Messages channel(table);
        introduce(channel, rank, 2, "collectives");
        char one = 1, two[2] = {1, 1};
        const auto check = [&](const Calls &expected, auto body) {
            const Calls calls = calls_of(channel, body);
            CHECK(in_order(calls, expected));
            const std::ptrdiff_t messages = number_of(calls, "send") + number_of(calls, "recv");
            CHECK(messages > 0);
            CHECK(number_of(calls, "send_object") == 2 * number_of(calls, "send"));
            CHECK(number_of(calls, "recv_object") == 2 * number_of(calls, "recv"));
        };
        const channel_data single{&one, 1}, pair{two, 2};
        check({"bcast"}, [&] { channel.bcast(single, 0); });
        check({"gather"}, [&] { channel.gather(single, pair, 1); });
        check({"scatter"}, [&] { channel.scatter(pair, single, 0); });
        check({"barrier", "allreduce"}, [&] { channel.barrier(); });
        char result = 0;
        for (const bool may_be_reordered : {false, true}) {
            const raw_function f = sum_of_bytes(may_be_reordered);
            one = 1;
            // The steps of what must be combined in order are operations themselves.
            check(may_be_reordered ? Calls{"reduce"} : Calls{"reduce", "gather"},
                [&] { channel.reduce(single, {&result, 1}, 0, f); });
            check(may_be_reordered ? Calls{"allreduce"} : Calls{"allreduce", "reduce", "gather", "bcast"},
                [&] { channel.allreduce(single, {&result, 1}, f); });
            CHECK(result == 2);
            check({"scan"}, [&] { channel.scan(single, {&result, 1}, f); });
            CHECK(result == static_cast<char>(rank + 1));
        }
    });
}

// A communicator begins with the operation of its own name.
static void by_a_communicator()
{
    const auto table = std::make_shared<user::HandOver::Table>();
    on_threads(2, [&](peer_num rank) {
        const auto channel = std::make_shared<Messages>(table);
        FMI::Communicator comm(rank, 2, empty_config(), "communicator");
        comm.register_channel("mine", channel);
        Data<int> one(1), other;
        Data<std::vector<int>> single(1), pair(2);
        const auto first = [&](const char *name, auto body) {
            const Calls calls = calls_of(*channel, body);
            CHECK(!calls.empty() && calls.front() == name);
            CHECK(number_of(calls, "send_object") + number_of(calls, "recv_object") > 0);
        };
        const auto left = [](int a, int) { return a; };
        if (rank == 0) {
            first("send", [&] { comm.send(one, 1); });
        } else {
            first("recv", [&] { comm.recv(one, 0); });
        }
        first("bcast", [&] { comm.bcast(one, 0); });
        first("barrier", [&] { comm.barrier(); });
        first("gather", [&] { comm.gather(single, pair, 0); });
        first("scatter", [&] { comm.scatter(pair, single, 0); });
        first("reduce", [&] { comm.reduce(one, other, 0, {left, false, true}); });
        first("allreduce", [&] { comm.allreduce(one, other, {left, false, true}); });
        first("scan", [&] { comm.scan(one, other, {left, false, true}); });
    });
}

// What a channel from scratch leaves to the base class.
static void defaults()
{
    const auto boxes = std::make_shared<user::Letters::Boxes>();
    on_threads(3, [&](peer_num rank) {
        Noting<user::Letters> channel(boxes);
        introduce(channel, rank, 3, "defaults");
        char own = static_cast<char>(rank), all[3] = {}, sum = 0;
        Calls calls = calls_of(channel, [&] { channel.gather({&own, 1}, {all, 3}, 1); });
        CHECK(rank == 1 ? number_of(calls, "recv") == 2 && all[2] == 2 : number_of(calls, "send") == 1);
        calls = calls_of(channel, [&] { channel.scatter({all, 3}, {&own, 1}, 1); });
        CHECK(rank == 1 ? number_of(calls, "send") == 2 : number_of(calls, "recv") == 1);
        CHECK(own == static_cast<char>(rank));
        calls = calls_of(channel, [&] { channel.allreduce({&own, 1}, {&sum, 1}, sum_of_bytes(true)); });
        CHECK(in_order(calls, {"allreduce", "reduce", "bcast"}) && sum == 3);
    });
}

// The store: what is sent is uploaded, what is received is downloaded; what is left over goes in finalize.
static void objects_of_stores(const std::string &name)
{
    const user::Directory::Path path;
    std::vector<std::string> uploaded;
    std::mutex mutex;
    on_threads(2, [&](peer_num rank) {
        Store store(path);
        introduce(store, rank, 2, name);
        char byte = 7;
        const Calls way_out{"upload", "upload_object"}, way_in{"download", "download_object"};
        for (int round = 0; round < 3; round++) {
            const Calls sent = calls_of(store, [&] { rank == 0 ? store.send({&byte, 1}, 1) : store.recv({&byte, 1}, 0); });
            CHECK(in_order(sent, rank == 0 ? way_out : way_in));
            const Calls all = calls_of(store, [&] { store.bcast({&byte, 1}, 1); });
            CHECK(in_order(all, rank == 1 ? way_out : way_in));
        }
        store.barrier();
        store.finalize();
        CHECK(store.created().empty());
        const std::lock_guard<std::mutex> lock(mutex);
        uploaded.insert(uploaded.end(), store.names.begin(), store.names.end());
    });
    CHECK(path.names().empty());
    CHECK(std::set<std::string>(uploaded.begin(), uploaded.end()).size() == uploaded.size());
    for (const std::string &object : uploaded) {
        CHECK(object.size() <= 200);
        // Directories hide such files, and so do programs that list them.
        CHECK(object.front() != '.');
        const std::size_t place = object.find(name);
        CHECK(name.size() > 100 || place != std::string::npos);
        const std::string rest = name.size() > 100 ? "" : object.substr(0, place) + object.substr(place + name.size());
        CHECK(std::all_of(rest.begin(), rest.end(), [](unsigned char c) {
            return std::isalnum(c) || c == '.' || c == '_' || c == '-';
        }));
    }
}

// Also what nobody has read: as soon as nobody can be waited for any longer.
static void finalize_deletes()
{
    const user::Directory::Path path;
    Store store(path, {{"timeout", "1"}, {"max_timeout", "50"}});
    introduce(store, 0, 2, "unread");
    char byte = 7;
    store.upload({&byte, 1}, "an object");
    CHECK(store.created() == std::vector<std::string>{"an object"} && path.names().size() == 1);
    store.finalize();
    CHECK(in_order(store.deleted, {"an object"}));
    CHECK(path.names().empty() && store.created().empty());
    // What is not there is looked for until max_timeout.
    const double start = seconds();
    THROWS(FMI::Utils::Timeout, store.download({&byte, 1}, "nothing"));
    CHECK(seconds() - start >= 0.045 && number_of(store.calls, "download_object") >= 2);
}

int main()
{
    watchdog(60);
    objects_of_messages();
    collectives_of_messages();
    by_a_communicator();
    defaults();
    for (const std::string &name : {std::string("a-job.of_1"), std::string(), std::string("two words"), std::string(300, 'x')}) {
        objects_of_stores(name);
    }
    finalize_deletes();
    return 0;
}
