// One include, and the standard library's headers that old code has never had to include itself.
#include <Communicator.h>

// No header of a test's own before this line: it would bring what the layer forgot.

static_assert(std::is_same<FMI::Utils::peer_num, unsigned int>::value, "type_traits");

static int called_back(int a)
{
    return a + 1;
}

static bool is_so(bool condition, const char *what)
{
    if (!condition) {
        std::fprintf(stderr, "not so: %s\n", what);
    }
    return condition;
}

#define IS_SO(...) is_so((__VA_ARGS__), #__VA_ARGS__)

static bool containers()
{
    std::vector<int> numbers{3, 1, 2};
    std::sort(numbers.begin(), numbers.end());
    std::vector<int> copy;
    std::copy(numbers.begin(), numbers.end(), std::back_inserter(copy));
    const std::array<int, 3> sorted{{1, 2, 3}};
    const std::map<std::string, int> ordered{{"one", 1}};
    const std::unordered_map<std::string, int> hashed{{"two", 2}};
    const std::tuple<int, std::string> both(3, "three");
    const std::pair<int, int> pair = std::make_pair(4, 5);
    const std::any anything = std::string("anything");
    return IS_SO(copy == numbers && std::equal(sorted.begin(), sorted.end(), numbers.begin()))
        && IS_SO(ordered.at("one") == 1 && hashed.at("two") == 2 && std::get<0>(both) == 3 && pair.second == 5)
        && IS_SO(std::any_cast<std::string>(anything) == "anything");
}

static bool functions_and_memory()
{
    const std::function<int(int)> function = called_back;
    const auto bound = std::bind(std::plus<int>(), std::placeholders::_1, 2);
    const auto shared = std::make_shared<int>(1);
    const auto unique = std::make_unique<int>(2);
    return IS_SO(function(1) == 2 && bound(1) == 3 && *shared + *unique == 3);
}

static bool texts_and_errors()
{
    std::stringstream stream;
    std::ostream &out = stream;
    out << 1 << ' ' << std::string("text");
    bool caught = false;
    try {
        throw std::invalid_argument("wrong");
    } catch (const std::exception &e) {
        caught = std::strcmp(e.what(), "wrong") == 0;
    }
    const std::exception_ptr none;
    return IS_SO(stream.str() == "1 text" && caught && none == nullptr);
}

static bool of_c()
{
    errno = 0;
    char text[8];
    std::snprintf(text, sizeof text, "%d", std::atoi("42"));
    const std::uint64_t largest = std::numeric_limits<std::uint64_t>::max();
    const std::time_t now = std::time(nullptr);
    return IS_SO(errno == 0 && std::strlen(text) == 2 && largest == UINT64_MAX && now > 0)
        && IS_SO(::getpid() > 0 && std::getenv("PATH") != nullptr);
}

// None of the names that are macros of others' programs is one here.
#if defined(check) || defined(send) || defined(min) || defined(max) || defined(unlikely) || defined(CHECK) \
    || defined(VERSION) || defined(SUM) || defined(DEFAULT) || defined(ERROR)
#error "a macro whose name does not begin with FMI_"
#endif

int main()
{
    return containers() && functions_and_memory() && texts_and_errors() && of_c() ? 0 : 1;
}
