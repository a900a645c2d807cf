/* The same in C++, as a program for the original says it. */
#include <Communicator.h>

#include <iostream>

#if defined(LEAST_CXX) && __cplusplus < LEAST_CXX
#error "compiled as an older C++ than asked for"
#endif

int main()
{
    const std::string config = R"({"backends":{"Memory":{"enabled":true},"Direct":{"enabled":false}}})";
    try {
        auto comm = FMI::Communicator(0, 1, config, "hello", 128);
        FMI::Comm::Data<int> data(41), result;
        FMI::Utils::Function<int> sum([](auto a, auto b) { return a + b; }, true, true);
        comm.allreduce(data, result, sum);
        std::cout << "FMI " << fmi_version_string() << ": " << result.get() + 1 << std::endl;
        return result == 41 ? 0 : 1;
    } catch (const std::exception &error) {
        std::cerr << error.what() << std::endl;
        return 1;
    }
}
