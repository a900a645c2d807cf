// How much a reduction copies: of a vector by a function three times with two allocations, by an operation of the
// library not at all.
#include "support.h"

#include <new>

using FMI::Comm::Data;
using Vector = std::vector<double>;

static const std::size_t count = 10000;

// The allocations of this thread that could hold the vector.
static thread_local int large = 0;

static void *allocate(std::size_t size)
{
    large += size >= count * sizeof(double);
    if (void *const memory = std::malloc(size)) {
        return memory;
    }
    throw std::bad_alloc();
}

void *operator new(std::size_t size) { return allocate(size); }
void *operator new[](std::size_t size) { return allocate(size); }
void operator delete(void *memory) noexcept { std::free(memory); }
void operator delete[](void *memory) noexcept { std::free(memory); }
void operator delete(void *memory, std::size_t) noexcept { std::free(memory); }
void operator delete[](void *memory, std::size_t) noexcept { std::free(memory); }

// Two ranks: each combines once in an allreduce.
template <typename Reduce>
static void allocates(int expected, bool ordered, Reduce reduce)
{
    static int jobs = 0;
    const std::string config = memory_config(), name = "copies " + std::to_string(jobs++);
    on_threads(2, [&](peer_num rank) {
        FMI::Communicator comm(rank, 2, config, name);
        Data<Vector> mine(Vector(count, rank + 1.0)), sum(count);
        comm.barrier();
        large = 0;
        reduce(comm, mine, sum);
        // An ordered one is combined on rank 0 alone.
        CHECK(large == (ordered && rank == 1 ? 0 : expected));
        CHECK(sum.values().front() == 3 && sum.values().back() == 3);
        CHECK(mine.values().front() == rank + 1.0);
    });
}

static Vector add_in_place(Vector a, const Vector &b)
{
    for (std::size_t i = 0; i < a.size(); i++) {
        a[i] += b[i];
    }
    return a;
}

// The left operand's memory comes back as the result's: nothing is copied in between.
static void moved()
{
    const FMI::Utils::Function<Vector> same(
        [](Vector a, Vector) {
            const double *const memory = a.data();
            Vector result = std::move(a);
            CHECK(result.data() == memory);
            return result;
        },
        true, true);
    Vector left(count, 1.0);
    const double *const memory = left.data();
    large = 0;
    const Vector result = same(std::move(left), Vector());
    CHECK(result.data() == memory && large == 0);
}

int main()
{
    watchdog(60);
    for (const bool ordered : {false, true}) {
        allocates(2, ordered, [&](FMI::Communicator &comm, Data<Vector> &mine, Data<Vector> &sum) {
            comm.allreduce(mine, sum, {add_in_place, !ordered, !ordered});
        });
    }
    allocates(0, false, [](FMI::Communicator &comm, Data<Vector> &mine, Data<Vector> &sum) {
        comm.allreduce(mine, sum, FMI::Ops::sum<double>());
    });
    moved();
    return 0;
}
