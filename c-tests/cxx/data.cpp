// Data<T> for every kind of T.
#include "support.h"

#include <iostream>

using FMI::Comm::Data;

// Whether == and << can be asked of a type.
template <typename T, typename = void>
struct has_equal : std::false_type {};
template <typename T>
struct has_equal<T, decltype(void(std::declval<const T &>() == std::declval<const T &>()))> : std::true_type {};
template <typename T, typename = void>
struct has_output : std::false_type {};
template <typename T>
struct has_output<T, decltype(void(std::declval<std::ostream &>() << std::declval<const T &>()))> : std::true_type {};

template <typename T>
static void fundamental(T value)
{
    static_assert(std::is_convertible<T, Data<T>>::value, "implicit from T");
    static_assert(std::is_default_constructible<Data<T>>::value, "default");
    static_assert(std::is_copy_constructible<Data<T>>::value && std::is_copy_assignable<Data<T>>::value, "a value");
    static_assert(std::is_same<decltype(std::declval<const Data<T> &>().get()), T>::value, "get by value, const");
    static_assert(std::is_same<decltype(std::declval<Data<T> &>().data()), char *>::value, "data");
    static_assert(std::is_same<decltype(std::declval<Data<T> &>().size_in_bytes()), std::size_t>::value, "size");

    Data<T> data = value;
    CHECK(data.get() == value);
    CHECK(data.size_in_bytes() == sizeof(T));
    T copy;
    std::memcpy(&copy, data.data(), sizeof copy);
    CHECK(copy == value);

    // What comes from elsewhere is written through data().
    Data<T> other;
    CHECK(other.size_in_bytes() == sizeof(T));
    std::memcpy(other.data(), &value, sizeof value);
    CHECK(other.get() == value);
    CHECK(other == data && data == value && value == data);
    other = static_cast<T>(0);
    CHECK(!(other == data));
    CHECK(data == Data<T>(value));

    // A copy is another buffer.
    Data<T> third(data);
    CHECK(third.data() != data.data() && third == data);
}

// What has an output for char streams.
template <typename T>
static void printed(T value)
{
    std::ostringstream by_data, by_value;
    by_data << Data<T>(value) << ' ' << 1;
    by_value << value << ' ' << 1;
    CHECK(by_data.str() == by_value.str());
}

static void all_fundamental()
{
    fundamental<bool>(true);
    fundamental<char>('x');
    fundamental<signed char>(-7);
    fundamental<unsigned char>(200);
    fundamental<wchar_t>(L'w');
    fundamental<char16_t>(u'u');
    fundamental<char32_t>(U'U');
    fundamental<short>(-30000);
    fundamental<unsigned short>(60000);
    fundamental<int>(-2000000000);
    fundamental<unsigned int>(4000000000U);
    fundamental<long>(std::numeric_limits<long>::min());
    fundamental<unsigned long>(~0UL);
    fundamental<long long>(std::numeric_limits<long long>::min());
    fundamental<unsigned long long>(~0ULL);
    fundamental<float>(1.5F);
    fundamental<double>(42.0);
    fundamental<long double>(0.1L);
    printed<bool>(true);
    printed<char>('x');
    printed<int>(-3);
    printed<unsigned long long>(~0ULL);
    printed<double>(42.5);

    Data<double> d = 42;
    CHECK(d == 42.0);
    CHECK(d == 42);
    CHECK(42.0 == d);
    Data<int> i(7);
    i = 8;
    CHECK(i == 8);
    std::cout << "d = " << d << ", i = " << i << std::endl;
}

// Other types can be held, but not sent.

struct Point {
    double x, y;
};

struct Rich {
    explicit Rich(int number) : number(number) {}
    Rich(const Rich &) = default;
    Rich &operator=(const Rich &) = default;
    int number;
};

enum class Colour { red, green };

static void structures()
{
    Data<Point> none;
    Data<Point> point = Point{1, 2};
    CHECK(point.get().x == 1 && point.get().y == 2);
    THROWS(std::runtime_error, point.size_in_bytes());
    none = point;
    CHECK(none.get().y == 2);

    // Without a default constructor.
    Data<Rich> rich = Rich(3);
    CHECK(rich.get().number == 3);
    THROWS(std::runtime_error, rich.size_in_bytes());

    Data<std::string> text = std::string("text");
    CHECK(text.get() == "text" && text == std::string("text"));
    std::ostringstream out;
    out << text;
    CHECK(out.str() == "text");
    THROWS(std::runtime_error, text.size_in_bytes());

    Data<Colour> colour = Colour::green;
    CHECK(colour == Colour::green);
    THROWS(std::runtime_error, colour.size_in_bytes());

    int target = 0;
    Data<int *> pointer = &target;
    CHECK(pointer.get() == &target);
    THROWS(std::runtime_error, pointer.size_in_bytes());

    std::map<std::string, Data<Point>> kept;
    kept["a"] = Point{3, 4};
    CHECK(kept["a"].get().x == 3);

    // It is found out before anything is sent.
    FMI::Communicator comm(0, 1, memory_config(), "structures");
    THROWS(std::runtime_error, comm.send(point, 0));
    THROWS(std::runtime_error, comm.bcast(text, 0));
    check_sum(comm, 0, 1);
}

template <typename A>
static void vectors(std::vector<A> values)
{
    using D = Data<std::vector<A>>;
    static_assert(std::is_default_constructible<D>::value, "the first constructor");
    static_assert(std::is_convertible<std::size_t, D>::value, "the second, not explicit");
    static_assert(std::is_convertible<std::vector<A>, D>::value, "the third, not explicit");
    static_assert(!std::is_constructible<D, A, A>::value, "no more");
    static_assert(!std::is_constructible<D, std::size_t, A>::value, "no more");
    static_assert(!std::is_constructible<D, char *, std::size_t>::value, "no more");
    static_assert(!std::is_constructible<D, const A *, const A *>::value, "no more");
    static_assert(std::is_same<decltype(std::declval<D &>().get()), std::vector<A>>::value, "get by value");
    static_assert(std::is_same<decltype(std::declval<D &>().data()), char *>::value, "data");
    static_assert(!has_equal<D>::value && !has_output<D>::value, "no == and no <<");

    D empty;
    CHECK(empty.size_in_bytes() == 0 && empty.get().empty());
    D counted(3);
    CHECK(counted.size_in_bytes() == 3 * sizeof(A) && counted.get().size() == 3);
    CHECK(counted.get() == std::vector<A>(3));
    D braces{5};
    CHECK(braces.size_in_bytes() == 5 * sizeof(A));
    D copied = {6};
    CHECK(copied.size_in_bytes() == 6 * sizeof(A));
    D list({7});
    CHECK(list.size_in_bytes() == 7 * sizeof(A));
    D filled(values);
    CHECK(filled.get() == values && filled.size_in_bytes() == values.size() * sizeof(A));
    CHECK(std::equal(values.begin(), values.end(), reinterpret_cast<const A *>(filled.data())));
    D moved(std::vector<A>{values});
    CHECK(moved.get() == values);
    D elements({values[0], values[1]});
    CHECK(elements.get().size() == 2 && elements.get()[1] == values[1]);

    D received(values.size());
    std::memcpy(received.data(), values.data(), received.size_in_bytes());
    CHECK(received.get() == values);
    D copy = received;
    CHECK(copy.data() != received.data() && copy.get() == values);
    copy = std::vector<A>();
    CHECK(copy.size_in_bytes() == 0 && received.get() == values);
}

static void all_vectors()
{
    vectors<char>({1, 2, 3});
    vectors<unsigned char>({1, 2, 3});
    vectors<short>({1, 2, 3});
    vectors<int>({1, 2, 3});
    vectors<long long>({1, 2, 3});
    vectors<float>({1, 2, 3});
    vectors<double>({1, 2, 3});
    vectors<long double>({1, 2, 3});
}

static void raw_memory()
{
    using D = Data<void *>;
    static_assert(std::is_default_constructible<D>::value, "default");
    static_assert(std::is_same<decltype(std::declval<D &>().get()), void *>::value, "get");
    static_assert(std::is_same<decltype(std::declval<D &>().data()), char *>::value, "data");
    D none;
    CHECK(none.size_in_bytes() == 0);
    double values[3] = {1, 2, 3};
    {
        D data(values, sizeof values);
        CHECK(data.get() == values && data.data() == reinterpret_cast<char *>(values));
        CHECK(data.size_in_bytes() == sizeof values);
        D copy = data;
        CHECK(copy.get() == values);
        none = copy;
    }
    // Nothing was freed, nothing was copied.
    CHECK(values[2] == 3 && none.get() == values);
}

// Every kind travels.
static void travels()
{
    const std::string config = memory_config();
    on_threads(2, [&config](peer_num rank) {
        FMI::Communicator comm(rank, 2, config, "travels");
        const bool sends = rank == 0;

        Data<double> number = sends ? 42.5 : 0;
        Data<bool> truth = sends;
        Data<char32_t> character = sends ? U'\x1f600' : U'a';
        Data<long double> precise = sends ? 0.1L : 0;
        std::vector<short> some(1000);
        for (std::size_t i = 0; i < some.size(); i++) {
            some[i] = static_cast<short>(i * i);
        }
        Data<std::vector<short>> vector = sends ? Data<std::vector<short>>(some) : Data<std::vector<short>>(1000);
        Data<std::vector<double>> nothing;
        Point points[2] = {{0, 0}, {0, 0}};
        if (sends) {
            points[0] = {1, 2};
            points[1] = {3, 4};
        }
        Data<void *> raw(points, sizeof points);
        if (sends) {
            comm.send(number, 1);
            comm.send(truth, 1);
            comm.send(character, 1);
            comm.send(precise, 1);
            comm.send(vector, 1);
            comm.send<std::vector<short>>(vector, 1);
            comm.send(nothing, 1);
            comm.send(raw, 1);
        } else {
            comm.recv(number, 0);
            comm.recv(truth, 0);
            comm.recv(character, 0);
            comm.recv(precise, 0);
            comm.recv(vector, 0);
            comm.recv<std::vector<short>>(vector, 0);
            comm.recv(nothing, 0);
            comm.recv(raw, 0);
        }
        CHECK(number == 42.5 && truth == true && character == U'\x1f600' && precise == 0.1L);
        CHECK(vector.get() == some && nothing.get().empty());
        CHECK(points[0].x == 1 && points[1].y == 4);

        // Raw memory in all operations that move data.
        int mine[2] = {static_cast<int>(rank), 10}, all[4] = {-1, -1, -1, -1}, back[2] = {-1, -1};
        Data<void *> part(mine, sizeof mine), whole(all, sizeof all), piece(back, sizeof back);
        comm.gather(part, whole, 0);
        CHECK(rank != 0 || (all[0] == 0 && all[1] == 10 && all[2] == 1 && all[3] == 10));
        comm.scatter(whole, piece, 0);
        CHECK(back[0] == static_cast<int>(rank) && back[1] == 10);
        comm.bcast(whole, 0);
        CHECK(all[2] == 1 && all[3] == 10);
        Data<void *> empty;
        comm.bcast(empty, 1);
    });
}

int main()
{
    watchdog(60);
    all_fundamental();
    structures();
    all_vectors();
    raw_memory();
    travels();
    return 0;
}
