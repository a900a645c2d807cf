/* The operations of FMI in C++, one after the other.
 *
 *   fmi run -n 4 -- ./getting_started examples/cxx/fmi.json
 *
 * Without an argument everything comes from the environment, which counts over
 * the file: fmi run starts a rendezvous server and tells where it is.
 */
#include <Communicator.h>

#include <cstdlib>
#include <iostream>
#include <stdexcept>
#include <string>
#include <vector>

/* Whoever starts the functions knows who they are; here that is fmi run. */
static FMI::Utils::peer_num number_in(const char *variable)
{
    const char *value = std::getenv(variable);
    if (!value)
        throw std::runtime_error(std::string(variable) + " is not set: start this program with fmi run");
    return static_cast<FMI::Utils::peer_num>(std::stoul(value));
}

static void run(const std::string &config)
{
    const FMI::Utils::peer_num rank = number_in("FMI_RANK"), size = number_in("FMI_SIZE");
    FMI::Communicator comm(rank, size, config, "getting-started", 512);
    comm.hint(FMI::Utils::Hint::fast);

    /* A token goes around once, and everybody adds one. */
    FMI::Comm::Data<int> token = 0;
    if (rank != 0)
        comm.recv(token, rank - 1);
    token = token.get() + 1;
    comm.send(token, (rank + 1) % size);
    if (rank == 0) {
        comm.recv(token, size - 1);
        std::cout << "the token has seen " << token << " of " << size << " ranks" << std::endl;
    }

    /* What only rank 0 knows, everybody knows. */
    FMI::Comm::Data<std::vector<double>> weights(3);
    if (rank == 0)
        weights = std::vector<double>{0.5, 1.5, 2.5};
    comm.bcast(weights, 0);
    std::cout << "rank " << rank << " has the weight " << weights.get()[2] << std::endl;

    comm.barrier();

    /* One number of each rank: in a row, added up, and added up so far. */
    const int number = static_cast<int>(rank) + 1;
    FMI::Comm::Data<std::vector<int>> block(std::vector<int>(1, number)), row(size);
    comm.gather(block, row, 0);

    FMI::Utils::Function<int> add([](auto a, auto b) { return a + b; }, true, true);
    FMI::Comm::Data<int> mine = number, sum, so_far;
    comm.reduce(mine, sum, 0, add);
    comm.scan(mine, so_far, add);
    std::cout << "up to rank " << rank << " the numbers add up to " << so_far << std::endl;
    if (rank == 0)
        std::cout << "the last number is " << row.get().back() << ", all add up to " << sum << std::endl;
}

int main(int argc, char **argv)
try {
    run(argc > 1 ? argv[1] : "");
} catch (const FMI::Utils::Timeout &timeout) {
    std::cerr << "getting_started: somebody is missing: " << timeout.what() << std::endl;
    return 1;
} catch (const std::exception &error) {
    std::cerr << "getting_started: " << error.what() << std::endl;
    return 1;
}
