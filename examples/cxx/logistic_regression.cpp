/* Logistic regression by gradient descent, the samples spread over the ranks.
 *
 *   fmi run -n 4 -- ./logistic_regression
 *
 * In every iteration each rank calculates the gradient of the loss over its own
 * samples; one allreduce adds the gradients of all ranks, and with the sum each
 * rank makes the same step. At the end rank 0 trains once more alone, over all
 * samples, and compares: the same samples are classified alike, and the weights
 * are equal but for the order in which floating-point numbers were added up.
 * Between the ranks they are equal to the last bit.
 */
#include <Communicator.h>

#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <iomanip>
#include <iostream>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

using Vector = std::vector<double>;
using FMI::Comm::Data;
using FMI::Utils::Function;
using FMI::Utils::peer_num;

constexpr std::size_t features = 20, samples = 10007, iterations = 100;
constexpr double rate = 4;

/* A number from -1 to 1 that follows from its place (SplitMix64). */
double number_at(std::uint64_t place)
{
    std::uint64_t bits = (place + 1) * 0x9e3779b97f4a7c15u;
    bits = (bits ^ bits >> 30) * 0xbf58476d1ce4e5b9u;
    bits = (bits ^ bits >> 27) * 0x94d049bb133111ebu;
    bits ^= bits >> 31;
    return static_cast<double>(bits >> 11) / (1ull << 52) - 1;
}

struct Sample {
    Vector x; /* the features, and 1 for the bias */
    double y; /* its class: 0 or 1 */
};

/* The class is the side of a plane on which a sample lies, a little blurred. */
Sample sample_at(std::size_t index)
{
    Sample sample{Vector(features + 1, 1.0), 0};
    const std::uint64_t place = index * (features + 1);
    double side = 0.25 * number_at(place + features);
    for (std::size_t i = 0; i < features; i++) {
        sample.x[i] = number_at(place + i);
        side += sample.x[i] * (i % 2 ? -1.0 : 0.5);
    }
    sample.y = side > 0;
    return sample;
}

/* Those from `first` to before `last`. */
std::vector<Sample> samples_in(std::size_t first, std::size_t last)
{
    std::vector<Sample> result;
    for (std::size_t index = first; index < last; index++)
        result.push_back(sample_at(index));
    return result;
}

double dot(const Vector &a, const Vector &b)
{
    double sum = 0;
    for (std::size_t i = 0; i < a.size(); i++)
        sum += a[i] * b[i];
    return sum;
}

Vector gradient(const std::vector<Sample> &of, const Vector &weights)
{
    Vector sum(features + 1);
    for (const Sample &sample : of) {
        const double error = 1 / (1 + std::exp(-dot(weights, sample.x))) - sample.y;
        for (std::size_t i = 0; i <= features; i++)
            sum[i] += error * sample.x[i];
    }
    return sum;
}

/* `total` makes of the gradient over these samples that over all. */
template <typename Total>
Vector train(const std::vector<Sample> &over, Total total)
{
    Vector weights(features + 1);
    for (std::size_t iteration = 0; iteration < iterations; iteration++) {
        const Vector sum = total(gradient(over, weights));
        for (std::size_t i = 0; i <= features; i++)
            weights[i] -= rate * sum[i] / samples;
    }
    return weights;
}

long correct(const std::vector<Sample> &of, const Vector &weights)
{
    long count = 0;
    for (const Sample &sample : of)
        count += (dot(weights, sample.x) > 0) == (sample.y > 0);
    return count;
}

peer_num number_in(const char *variable)
{
    const char *value = std::getenv(variable);
    if (!value)
        throw std::runtime_error(std::string(variable) + " is not set: start this program with fmi run");
    return static_cast<peer_num>(std::stoul(value));
}

void check(bool holds, const char *what)
{
    if (!holds)
        throw std::logic_error(what);
}

void run(const std::string &config)
{
    const peer_num rank = number_in("FMI_RANK"), size = number_in("FMI_SIZE");
    FMI::Communicator comm(rank, size, config, "logistic-regression");
    const auto own = samples_in(samples * rank / size, samples * (rank + 1) / size);

    const Function<Vector> add_vectors(
        [](Vector a, Vector b) {
            for (std::size_t i = 0; i < a.size(); i++)
                a[i] += b[i];
            return a;
        },
        true, true);
    double milliseconds = 0;
    const Vector weights = train(own, [&](Vector part) {
        Data<Vector> send(std::move(part)), recv(features + 1);
        const auto start = std::chrono::steady_clock::now();
        comm.allreduce(send, recv, add_vectors);
        milliseconds += std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
        return recv.get();
    });

    Data<long> right = correct(own, weights), all_right;
    Data<double> time = milliseconds, longest;
    Data<Vector> last(weights), all_last(size * weights.size());
    comm.reduce(right, all_right, 0, Function<long>([](long a, long b) { return a + b; }, true, true));
    comm.reduce(time, longest, 0, Function<double>([](double a, double b) { return a > b ? a : b; }, true, true));
    comm.gather(last, all_last, 0);
    if (rank != 0)
        return;

    const Vector everybodys = all_last.get();
    for (std::size_t i = 0; i < everybodys.size(); i++)
        check(everybodys[i] == weights[i % weights.size()], "a rank has other weights");
    const auto all = samples_in(0, samples);
    const Vector alone = train(all, [](Vector whole) { return whole; });
    for (std::size_t i = 0; i <= features; i++)
        check(std::abs(weights[i] - alone[i]) < 1e-9, "the weights are not those of the serial run");
    check(all_right.get() == correct(all, alone), "samples are not classified as in the serial run");

    std::cout << std::fixed << std::setprecision(4) << "accuracy: " << double(all_right.get()) / samples << " ("
              << all_right << " of " << samples << "), as of the serial run\n"
              << "communication: " << std::setprecision(3) << longest << " ms in " << iterations << " allreduces"
              << std::endl;
}

} // namespace

int main(int argc, char **argv)
try {
    run(argc > 1 ? argv[1] : "");
} catch (const std::exception &error) {
    std::cerr << "logistic_regression: " << error.what() << std::endl;
    return 1;
}
