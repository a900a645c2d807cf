// One suite for every channel: each operation, many counts and roots, functions that may be reordered and such
// that may not, against what a loop computes. By a communicator, and by a channel object itself.
#ifndef FMI_TEST_CXX_CONFORMANCE_H
#define FMI_TEST_CXX_CONFORMANCE_H

#include "support.h"

namespace conformance {

using FMI::Comm::Data;
using Vector = std::vector<int>;

struct Job {
    peer_num rank, size;
};

inline int element(peer_num rank, std::size_t index)
{
    return static_cast<int>((rank + 1) * 1000 + index % 997);
}

inline Vector operand(peer_num rank, std::size_t count)
{
    Vector operand(count);
    for (std::size_t i = 0; i < count; i++) {
        operand[i] = element(rank, i);
    }
    return operand;
}

// The operands of the ranks 0 to size - 1, one after the other.
inline Vector all_operands(peer_num size, std::size_t count)
{
    Vector all;
    for (peer_num rank = 0; rank < size; rank++) {
        const Vector own = operand(rank, count);
        all.insert(all.end(), own.begin(), own.end());
    }
    return all;
}

inline int wrapping(unsigned a) { return static_cast<int>(a); }

// How two elements are combined, and what may be relied on.
struct Combination {
    int (*combine)(int, int);
    bool commutative, associative;
};

inline const Combination combinations[] = {
    {[](int a, int b) { return wrapping(static_cast<unsigned>(a) + static_cast<unsigned>(b)); }, true, true},
    {[](int a, int b) { return wrapping(2 * static_cast<unsigned>(a) + static_cast<unsigned>(b)); }, false, false},
    {[](int, int b) { return b; }, false, true},
    {[](int a, int b) { return (a + b) / 2; }, true, false},
};

inline Vector folded(peer_num ranks, std::size_t count, const Combination &by)
{
    Vector result = operand(0, count);
    for (peer_num rank = 1; rank < ranks; rank++) {
        for (std::size_t i = 0; i < count; i++) {
            result[i] = by.combine(result[i], element(rank, i));
        }
    }
    return result;
}

inline FMI::Utils::Function<Vector> function(const Combination &by)
{
    return {[combine = by.combine](Vector a, const Vector &b) {
                for (std::size_t i = 0; i < a.size(); i++) {
                    a[i] = combine(a[i], b[i]);
                }
                return a;
            },
        by.commutative, by.associative};
}

// Sends and receives only where somebody waits for them: no channel has to keep anything.
inline void in_turn(FMI::Communicator &comm, Job job, std::size_t count)
{
    const peer_num next = (job.rank + 1) % job.size, previous = (job.rank + job.size - 1) % job.size;
    Data<Vector> mine(operand(job.rank, count)), got(count);
    if (job.size == 1) {
        return;
    }
    if (job.rank == 0) {
        comm.send(mine, next);
        comm.recv(got, previous);
    } else {
        comm.recv(got, previous);
        comm.send(mine, next);
    }
    CHECK(got.values() == operand(previous, count));
    CHECK(mine.values() == operand(job.rank, count));
}

inline void collectives(FMI::Communicator &comm, Job job, std::size_t count, peer_num root)
{
    const Vector own = operand(job.rank, count), all = all_operands(job.size, count);
    Data<Vector> buffer(own), mine(own), nothing, block(count), row(job.rank == root ? all.size() : 0);
    comm.bcast(buffer, root);
    CHECK(buffer.values() == operand(root, count));
    comm.gather(mine, row, root);
    CHECK(job.rank != root || row.values() == all);
    Data<Vector> blocks(job.rank == root ? all : Vector());
    comm.scatter(blocks, block, root);
    CHECK(block.values() == own);
    for (const Combination &by : combinations) {
        Data<Vector> result(job.rank == root ? count : 0);
        comm.reduce(mine, result, root, function(by));
        CHECK(job.rank != root || result.values() == folded(job.size, count, by));
    }
    CHECK(mine.values() == own);
}

inline void reductions(FMI::Communicator &comm, Job job, std::size_t count)
{
    const Vector own = operand(job.rank, count);
    Data<Vector> mine(own);
    for (const Combination &by : combinations) {
        Data<Vector> result(count);
        comm.allreduce(mine, result, function(by));
        CHECK(result.values() == folded(job.size, count, by));
        comm.scan(mine, result, function(by));
        CHECK(result.values() == folded(job.rank + 1, count, by));
        Data<Vector> in_place(own);
        comm.allreduce(in_place, in_place, function(by));
        CHECK(in_place.values() == folded(job.size, count, by));
    }
    Data<Vector> sum(count);
    comm.allreduce(mine, sum, FMI::Ops::sum<int>());
    CHECK(sum.values() == folded(job.size, count, combinations[0]));
    comm.scan(mine, sum, FMI::Ops::sum<int>());
    CHECK(sum.values() == folded(job.rank + 1, count, combinations[0]));
    CHECK(mine.values() == own);
}

inline void scalars(FMI::Communicator &comm, Job job)
{
    const double expected = job.size * (job.size + 1) / 2.0;
    Data<double> mine(job.rank + 1.0), result(-1.0);
    comm.allreduce(mine, result, {[](auto a, auto b) { return a + b; }, true, true});
    CHECK(result == expected);
    comm.allreduce(mine, result, FMI::Ops::max<double>());
    CHECK(result == static_cast<double>(job.size));
    char bytes[3] = {static_cast<char>(job.rank), 2, 3};
    Data<void *> memory(bytes, sizeof bytes);
    comm.bcast(memory, job.size - 1);
    CHECK(bytes[0] == static_cast<char>(job.size - 1));
}

// Everything over the one channel that `comm` has.
inline void over(FMI::Communicator &comm, Job job, const std::vector<std::size_t> &counts)
{
    for (const std::size_t count : counts) {
        comm.barrier();
        in_turn(comm, job, count);
        for (const peer_num root : std::vector<peer_num>{0, job.size - 1}) {
            collectives(comm, job, count, root);
        }
        reductions(comm, job, count);
    }
    scalars(comm, job);
}

inline channel_data bytes(Vector &vector)
{
    return {reinterpret_cast<char *>(vector.data()), vector.size() * sizeof(int)};
}

// The operations of the object, without a communicator.
inline void over(FMI::Comm::Channel &channel, Job job, const std::vector<std::size_t> &counts)
{
    for (const std::size_t count : counts) {
        Vector mine = operand(job.rank, count);
        const Vector own = mine, all = all_operands(job.size, count);
        const peer_num root = job.size - 1;
        channel.barrier();
        Vector buffer = mine, row(job.rank == root ? all.size() : 0), blocks = all, block(count);
        channel.bcast(bytes(buffer), root);
        CHECK(buffer == operand(root, count));
        channel.gather(bytes(mine), bytes(row), root);
        CHECK(job.rank != root || row == all);
        channel.scatter(bytes(blocks), bytes(block), root);
        CHECK(block == own);
        for (const Combination &by : combinations) {
            const raw_function f = {[combine = by.combine, count](char *inout, char *in) {
                                        int *const left = reinterpret_cast<int *>(inout);
                                        int *const right = reinterpret_cast<int *>(in);
                                        for (std::size_t i = 0; i < count; i++) {
                                            left[i] = combine(left[i], right[i]);
                                            // The second one may be written to as well.
                                            right[i] = -1;
                                        }
                                    },
                by.associative, by.commutative};
            Vector result(count);
            channel.reduce(bytes(mine), bytes(result), root, f);
            CHECK(job.rank != root || result == folded(job.size, count, by));
            channel.allreduce(bytes(mine), bytes(result), f);
            CHECK(result == folded(job.size, count, by));
            channel.scan(bytes(mine), bytes(result), f);
            CHECK(result == folded(job.rank + 1, count, by));
            CHECK(mine == own);
        }
        if (job.size > 1 && job.rank < 2) {
            Vector got(count);
            if (job.rank == 0) {
                channel.send(bytes(mine), 1);
                channel.recv(bytes(got), 1);
            } else {
                channel.recv(bytes(got), 0);
                channel.send(bytes(mine), 0);
            }
            CHECK(got == operand(1 - job.rank, count));
        }
    }
    channel.barrier();
}

} // namespace conformance

#endif
