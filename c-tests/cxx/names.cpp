// The small names: types, enumerations, aggregates, and what a class is to the compiler.
#include "support.h"

static_assert(std::is_same<FMI::Utils::peer_num, unsigned int>::value, "peer_num");

// Timeout

static_assert(std::is_base_of<std::exception, FMI::Utils::Timeout>::value, "an exception");
static_assert(!std::is_base_of<std::runtime_error, FMI::Utils::Timeout>::value, "directly");
static_assert(!std::is_base_of<std::logic_error, FMI::Utils::Timeout>::value, "directly");
static_assert(std::is_default_constructible<FMI::Utils::Timeout>::value, "thrown by user channels too");
static_assert(std::is_copy_constructible<FMI::Utils::Timeout>::value, "caught by value");
static_assert(std::is_copy_assignable<FMI::Utils::Timeout>::value, "an ordinary value");

static void timeouts()
{
    FMI::Utils::Timeout first;
    FMI::Utils::Timeout second = first;
    CHECK(std::string(first.what()) == "Timeout was reached");
    CHECK(std::string(second.what()) == "Timeout was reached");
    // Old code catches it by value.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wcatch-value"
    try {
        throw FMI::Utils::Timeout();
    } catch (FMI::Utils::Timeout t) {
        second = t;
    }
#pragma GCC diagnostic pop
    CHECK(std::string(second.what()) == "Timeout was reached");
    try {
        throw FMI::Utils::Timeout{};
    } catch (const std::exception &e) {
        CHECK(std::string(e.what()) == "Timeout was reached");
    }
}

// Enumerations

static_assert(std::is_enum<FMI::Utils::Hint>::value && std::is_enum<FMI::Utils::Operation>::value, "enum");
static_assert(std::is_convertible<FMI::Utils::Hint, int>::value, "unscoped");
static_assert(std::is_convertible<FMI::Utils::Operation, int>::value, "unscoped");
static_assert(FMI::Utils::fast == FMI::Utils::Hint::fast && FMI::Utils::cheap == FMI::Utils::Hint::cheap, "both");

#pragma GCC diagnostic push
#pragma GCC diagnostic error "-Wswitch-enum"
// No default: an operation more would be a warning, which is an error.
static const char *name_of(FMI::Utils::Operation operation)
{
    switch (operation) {
    case FMI::Utils::send: return "send";
    case FMI::Utils::bcast: return "bcast";
    case FMI::Utils::barrier: return "barrier";
    case FMI::Utils::gather: return "gather";
    case FMI::Utils::scatter: return "scatter";
    case FMI::Utils::reduce: return "reduce";
    case FMI::Utils::allreduce: return "allreduce";
    case FMI::Utils::scan: return "scan";
    }
    return "";
}

static int number_of(FMI::Utils::Hint hint)
{
    switch (hint) {
    case FMI::Utils::Hint::fast: return 0;
    case FMI::Utils::Hint::cheap: return 1;
    }
    return 2;
}
#pragma GCC diagnostic pop

static void enumerations()
{
    static const char *const NAMES[] = {
        "send", "bcast", "barrier", "gather", "scatter", "reduce", "allreduce", "scan"};
    for (int i = 0; i < 8; i++) {
        CHECK(std::string(name_of(static_cast<FMI::Utils::Operation>(i))) == NAMES[i]);
    }
    CHECK(std::string(name_of(FMI::Utils::Operation::scan)) == "scan");
    CHECK(number_of(FMI::Utils::fast) == FMI::Utils::fast && number_of(FMI::Utils::cheap) == FMI::Utils::cheap);
}

// Aggregates

static_assert(std::is_aggregate<FMI::Utils::OperationInfo>::value, "made with braces");
static_assert(std::is_aggregate<channel_data>::value, "made with braces");
static_assert(std::is_aggregate<raw_function>::value, "made with braces");
static_assert(std::is_same<raw_func, std::function<void(char *, char *)>>::value, "raw_func");
static_assert(std::is_same<decltype(channel_data::buf), char *>::value, "buf");
static_assert(std::is_same<decltype(channel_data::len), std::size_t>::value, "len");
static_assert(std::is_same<decltype(raw_function::f), raw_func>::value, "f");
static_assert(std::is_same<decltype(FMI::Utils::OperationInfo::data_size), std::size_t>::value, "data_size");

static void aggregates()
{
    const FMI::Utils::OperationInfo two{FMI::Utils::Operation::reduce, 100};
    CHECK(two.op == FMI::Utils::reduce && two.data_size == 100 && !two.left_to_right);
    const FMI::Utils::OperationInfo three = {FMI::Utils::scan, 7, true};
    CHECK(three.op == FMI::Utils::scan && three.data_size == 7 && three.left_to_right);

    const channel_data nothing{};
    CHECK(nothing.buf == nullptr && nothing.len == 0);
    char bytes[3] = {1, 2, 3};
    ::channel_data some = {bytes, sizeof bytes};
    CHECK(some.buf == bytes && some.len == 3);
    some = {};
    CHECK(some.buf == nullptr && some.len == 0);

    const raw_func f = [](char *a, char *b) { *a = static_cast<char>(*a + *b); };
    const raw_function function{f, true, false};
    CHECK(function.associative && !function.commutative);
    function.f(bytes, bytes + 1);
    CHECK(bytes[0] == 3 && bytes[1] == 2);
}

// Classes

using FMI::Comm::Channel;
using FMI::Comm::ClientServer;
using FMI::Comm::Direct;
using FMI::Comm::PeerToPeer;
using FMI::Comm::Redis;
using FMI::Comm::S3;

static_assert(std::is_abstract<Channel>::value && std::has_virtual_destructor<Channel>::value, "Channel");
static_assert(std::is_abstract<PeerToPeer>::value && std::is_base_of<Channel, PeerToPeer>::value, "PeerToPeer");
static_assert(std::is_abstract<ClientServer>::value && std::is_base_of<Channel, ClientServer>::value, "ClientServer");
static_assert(std::is_base_of<PeerToPeer, Direct>::value, "Direct");
static_assert(std::is_base_of<ClientServer, Redis>::value, "Redis");
static_assert(std::is_base_of<ClientServer, S3>::value, "S3");
static_assert(std::is_constructible<Direct, Parameters, Parameters>::value, "Direct");
static_assert(std::is_constructible<Redis, Parameters, Parameters>::value, "Redis");
static_assert(std::is_constructible<S3, Parameters, Parameters>::value, "S3");
static_assert(!std::is_final<Direct>::value && !std::is_final<Redis>::value && !std::is_final<S3>::value, "derived from");

// Explicit where the original is, so that no overload of a user's becomes ambiguous.
template <typename T, typename = void>
struct from_braces : std::false_type {};
template <typename T>
void take(T);
template <typename T>
struct from_braces<T, decltype(take<T>({Parameters(), Parameters()}))> : std::true_type {};
static_assert(!from_braces<Direct>::value && !from_braces<Redis>::value && !from_braces<S3>::value, "explicit");
static_assert(!std::is_convertible<Parameters, ClientServer &>::value, "explicit");

static_assert(std::is_constructible<FMI::Communicator, peer_num, peer_num, std::string, std::string>::value, "four");
static_assert(
    std::is_constructible<FMI::Communicator, peer_num, peer_num, std::string, std::string, unsigned int>::value, "five");
static_assert(std::is_constructible<FMI::Communicator, int, int, const char *, const char *, int>::value, "literals");
static_assert(!std::is_copy_constructible<FMI::Communicator>::value, "move only");
static_assert(!std::is_copy_assignable<FMI::Communicator>::value, "move only");
static_assert(std::is_nothrow_move_constructible<FMI::Communicator>::value, "noexcept");
static_assert(std::is_nothrow_move_assignable<FMI::Communicator>::value, "noexcept");
static_assert(std::is_nothrow_destructible<FMI::Communicator>::value, "never throws");

// Members have the types that old code takes the address of.
static void (Channel::*const SEND)(channel_data, peer_num) = &Channel::send;
static void (Channel::*const RECV)(channel_data, peer_num) = &Channel::recv;
static void (Channel::*const BCAST)(channel_data, peer_num) = &Channel::bcast;
static void (Channel::*const BARRIER)() = &Channel::barrier;
static void (Channel::*const GATHER)(channel_data, channel_data, peer_num) = &Channel::gather;
static void (Channel::*const SCATTER)(channel_data, channel_data, peer_num) = &Channel::scatter;
static void (Channel::*const REDUCE)(channel_data, channel_data, peer_num, raw_function) = &Channel::reduce;
static void (Channel::*const ALLREDUCE)(channel_data, channel_data, raw_function) = &Channel::allreduce;
static void (Channel::*const SCAN)(channel_data, channel_data, raw_function) = &Channel::scan;
static void (Channel::*const FINALIZE)() = &Channel::finalize;
static void (Channel::*const SET_PEER_ID)(peer_num) = &Channel::set_peer_id;
static void (Channel::*const SET_NUM_PEERS)(peer_num) = &Channel::set_num_peers;
static void (Channel::*const SET_COMM_NAME)(std::string) = &Channel::set_comm_name;
static double (Channel::*const LATENCY)(peer_num, peer_num, std::size_t) = &Channel::get_latency;
static double (Channel::*const PRICE)(peer_num, peer_num, std::size_t) = &Channel::get_price;
static double (Channel::*const OPERATION_LATENCY)(FMI::Utils::OperationInfo) = &Channel::get_operation_latency;
static double (Channel::*const OPERATION_PRICE)(FMI::Utils::OperationInfo) = &Channel::get_operation_price;

class Derived : public SilentChannel {
public:
    peer_num id() const { return peer_id; }
    peer_num peers() const { return num_peers; }
    std::string name() const { return comm_name; }
};

static void members()
{
    Derived channel;
    Channel &base = channel;
    (base.*SET_PEER_ID)(3);
    (base.*SET_NUM_PEERS)(5);
    (base.*SET_COMM_NAME)("a name");
    CHECK(channel.id() == 3 && channel.peers() == 5 && channel.name() == "a name");
    (base.*SEND)({}, 0);
    (base.*RECV)({}, 0);
    (base.*BCAST)({}, 0);
    (base.*BARRIER)();
    (base.*GATHER)({}, {}, 0);
    (base.*SCATTER)({}, {}, 0);
    (base.*REDUCE)({}, {}, 0, {});
    (base.*ALLREDUCE)({}, {}, {});
    (base.*SCAN)({}, {}, {});
    CHECK((base.*LATENCY)(1, 1, 1) == 0 && (base.*PRICE)(1, 1, 1) == 0);
    CHECK((base.*OPERATION_LATENCY)({FMI::Utils::send, 1}) == 0);
    CHECK((base.*OPERATION_PRICE)({FMI::Utils::send, 1}) == 0);
    (base.*FINALIZE)();
}

// What a user's file has at its top is what it means inside of a channel, too: the library's own members have
// names that nobody else has.
namespace globals {

#define GLOBAL(name) \
    template <typename... Arguments> \
    static int name(Arguments &&...) \
    { \
        return 1; \
    }
GLOBAL(blocks)
GLOBAL(channel)
GLOBAL(collectives)
GLOBAL(copy)
GLOBAL(handle)
GLOBAL(is_any_left)
GLOBAL(kind)
GLOBAL(kind_name)
GLOBAL(latency)
GLOBAL(library)
GLOBAL(make)
GLOBAL(member)
GLOBAL(messages)
GLOBAL(milliseconds)
GLOBAL(model)
GLOBAL(model_params)
GLOBAL(object)
GLOBAL(on)
GLOBAL(over_store)
GLOBAL(params)
GLOBAL(pause)
GLOBAL(price)
GLOBAL(registered_name)
GLOBAL(require_room)
GLOBAL(store)
GLOBAL(store_channel)
#undef GLOBAL

#define USES(Class, Base) \
    class Class : public FMI::Comm::Base { \
    public: \
        using FMI::Comm::Base::Base; \
        static int all() \
        { \
            return blocks(1) + channel(1) + collectives() + copy(1, 2, 3) + handle() + is_any_left() + kind(1) \
                + kind_name() + latency(1) + library() + make(1) + member() + messages(1) + milliseconds(1) + model() \
                + model_params(1) + object(1) + on(1) + over_store(1) + params(1) + pause(1) + price(1) \
                + registered_name(1) + require_room(1) + store(1) + store_channel(1); \
        } \
    }
USES(OfChannel, Channel);
USES(OfPeerToPeer, PeerToPeer);
USES(OfClientServer, ClientServer);
USES(OfDirect, Direct);
USES(OfRedis, Redis);
USES(OfS3, S3);
#undef USES

} // namespace globals

static void hidden()
{
    using namespace globals;
    for (const int sum : {OfChannel::all(), OfPeerToPeer::all(), OfClientServer::all(), OfDirect::all(),
             OfRedis::all(), OfS3::all()}) {
        CHECK(sum == 26);
    }
}

int main()
{
    watchdog(60);
    timeouts();
    enumerations();
    aggregates();
    members();
    hidden();
    return 0;
}
