// Function<T>: how it is made, what it is given, and that its result is checked.
#include "support.h"

using FMI::Comm::Data;
using FMI::Utils::Function;
using Numbers = std::vector<double>;

static_assert(std::is_constructible<Function<int>, std::function<int(int, int)>, bool, bool>::value, "constructor");
static_assert(std::is_copy_constructible<Function<int>>::value && std::is_copy_assignable<Function<int>>::value, "a value");
static_assert(std::is_same<decltype(std::declval<const Function<int> &>()(1, 2)), int>::value, "const call");
static_assert(std::is_same<decltype(Function<int>::commutative), bool>::value, "public");
static_assert(std::is_same<decltype(Function<int>::associative), bool>::value, "public");

static int free_function(int a, int b)
{
    return a * b;
}

struct Functor {
    int base;
    int operator()(int a, int b) const { return base + a + b; }
};

static void made_from_anything()
{
    Function<int> generic([](auto a, auto b) { return a + b; }, true, false);
    CHECK(generic(1, 2) == 3 && generic.commutative && !generic.associative);
    const Function<int> braces{[](int a, int b) { return a - b; }, false, true};
    CHECK(braces(5, 3) == 2 && !braces.commutative && braces.associative);
    Function<int> pointer(free_function, true, true);
    CHECK(pointer(3, 4) == 12);
    Function<int> functor(Functor{10}, true, true);
    CHECK(functor(1, 2) == 13);
    Function<int> standard(std::plus<>(), true, true);
    CHECK(standard(1, 2) == 3);
    Function<double> wider([](const auto &a, const auto &b) { return a > b ? a : b; }, true, true);
    CHECK(wider(1.5, 2.5) == 2.5);
    std::function<int(int, int)> kept = [](int a, int b) { return 100 * a + b; };
    Function<int> from_kept(kept, false, false);
    CHECK(from_kept(1, 2) == 102);

    generic = braces;
    CHECK(generic(5, 3) == 2 && !generic.commutative && generic.associative);
    generic = {[](int a, int) { return a; }, false, true};
    CHECK(generic(5, 3) == 5);
    const Function<int> copy = functor;
    CHECK(copy(1, 2) == 13);
    std::map<std::string, Function<int>> by_name = {{"sum", pointer}};
    CHECK(by_name.at("sum")(2, 2) == 4);
    by_name.at("sum").associative = false;
    CHECK(pointer.associative);

    Function<Numbers> vectors(
        [](auto a, auto b) {
            std::transform(a.begin(), a.end(), b.begin(), a.begin(), std::plus<>());
            return a;
        },
        true, true);
    CHECK(vectors({1, 2}, {3, 4}) == (Numbers{4, 6}));
}

// In every place where a function is expected.
static void in_place()
{
    const std::string config = memory_config();
    constexpr peer_num SIZE = 3;
    on_threads(SIZE, [&config](peer_num rank) {
        FMI::Communicator comm(rank, SIZE, config, "in place");
        const int number = static_cast<int>(rank) + 1;
        Data<int> mine(number), result(-1);
        comm.reduce(mine, result, 1, {[](auto a, auto b) { return a + b; }, true, true});
        CHECK(rank != 1 || result == 6);
        comm.allreduce(mine, result, {[](auto a, auto b) { return a * b; }, true, true});
        CHECK(result == 6);
        comm.scan(mine, result, {[](int a, int b) { return a + b; }, true, true});
        CHECK(result == number * (number + 1) / 2);
        comm.allreduce<int>(mine, result, {free_function, true, true});
        CHECK(result == 6);
        comm.allreduce(mine, result, Function<int>(std::plus<>(), true, true));
        CHECK(result == 6);
        const Function<int> kept([](int a, int b) { return a > b ? a : b; }, true, true);
        comm.allreduce(mine, result, kept);
        CHECK(result == 3);

        // Captures live on the caller's stack.
        int calls = 0;
        comm.allreduce(mine, result, {[&calls](int a, int b) { calls++; return a + b; }, true, true});
        CHECK(result == 6);

        // Strictly from left to right by rank, wherever the root is.
        for (peer_num root = 0; root < SIZE; root++) {
            for (int flags = 0; flags < 4; flags++) {
                const bool commutative = flags & 1, associative = flags & 2;
                if (commutative && associative) {
                    continue;
                }
                const Function<int> ordered([](int a, int b) { return 10 * a + b; }, commutative, associative);
                result = -1;
                comm.reduce(mine, result, root, ordered);
                CHECK(rank == root ? result == 123 : result == -1);
                comm.allreduce(mine, result, ordered);
                CHECK(result == 123);
                comm.scan(mine, result, ordered);
                CHECK(result == (rank == 0 ? 1 : rank == 1 ? 12 : 123));
            }
        }
        CHECK(mine == number);
    });
}

// A function of vectors is given whole vectors: it may treat positions differently.
static void of_vectors()
{
    const std::string config = memory_config();
    constexpr peer_num SIZE = 4;
    on_threads(SIZE, [&config](peer_num rank) {
        FMI::Communicator comm(rank, SIZE, config, "vectors");
        const double number = rank;
        Data<Numbers> mine(Numbers{number, number, 1}), result(3);
        comm.allreduce(mine, result,
            {[](auto a, auto b) {
                 CHECK(a.size() == 3 && b.size() == 3);
                 return Numbers{std::min(a[0], b[0]), std::max(a[1], b[1]), a[2] + b[2]};
             },
                true, true});
        CHECK(result.get() == (Numbers{0, SIZE - 1, SIZE}));
        comm.scan(mine, result,
            {[](const Numbers &a, const Numbers &b) {
                 return Numbers{a[0] * 10 + b[0], b[1], a[2] + 1};
             },
                false, false});
        static const double FOLDED[] = {0, 1, 12, 123};
        CHECK(result.get() == (Numbers{FOLDED[rank], number, number + 1}));
        CHECK(mine.get() == (Numbers{number, number, 1}));

        // Empty ones.
        Data<Numbers> none, nothing;
        comm.allreduce(none, nothing, {[](auto a, auto) { return a; }, true, true});
        CHECK(nothing.get().empty());
    });
}

// Some other type than int and double.
template <typename T>
static void of_type(FMI::Communicator &comm, peer_num rank, peer_num size)
{
    Data<T> mine(static_cast<T>(rank + 1)), result;
    comm.allreduce(mine, result, {[](T a, T b) { return static_cast<T>(a + b); }, true, true});
    CHECK(result.get() == static_cast<T>(size * (size + 1) / 2));
    Data<std::vector<T>> some(std::vector<T>{static_cast<T>(rank), 1}), together(2);
    comm.reduce(some, together, 0,
        {[](std::vector<T> a, std::vector<T> b) {
             a[0] = std::max(a[0], b[0]);
             a[1] = static_cast<T>(a[1] + b[1]);
             return a;
         },
            true, true});
    CHECK(rank != 0 || together.get() == (std::vector<T>{static_cast<T>(size - 1), static_cast<T>(size)}));
}

static void of_every_type()
{
    const std::string config = memory_config();
    on_threads(3, [&config](peer_num rank) {
        FMI::Communicator comm(rank, 3, config, "types");
        of_type<char>(comm, rank, 3);
        of_type<unsigned char>(comm, rank, 3);
        of_type<short>(comm, rank, 3);
        of_type<unsigned long long>(comm, rank, 3);
        of_type<float>(comm, rank, 3);
        of_type<long double>(comm, rank, 3);
        Data<bool> truth(rank == 1), any;
        comm.allreduce(truth, any, {[](bool a, bool b) { return a || b; }, true, true});
        CHECK(any == true);
    });
}

// A vector of another length is an error, not a write past the end of a buffer.
static void wrong_length()
{
    for (std::size_t length : {0, 1, 3, 1000}) {
        const std::string config = memory_config(2000);
        std::atomic<int> thrown{0};
        on_threads(2, [&](peer_num rank) {
            FMI::Communicator comm(rank, 2, config, "wrong length");
            Data<Numbers> mine(Numbers{1, 2}), result(Numbers{-1, -2});
            try {
                comm.allreduce(mine, result, {[length](auto, auto) { return Numbers(length); }, true, true});
            } catch (const std::runtime_error &) {
                thrown++;
            } catch (const FMI::Utils::Timeout &) {
            }
        });
        CHECK(thrown >= 1);
    }
}

int main()
{
    watchdog(60);
    made_from_anything();
    in_place();
    of_vectors();
    of_every_type();
    wrong_length();
    return 0;
}
