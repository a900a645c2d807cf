// The nine operations of a communicator, as calls of old code spell them: sizes that are checked, arguments
// that are ignored, send buffers that stay.
#include "support.h"

using FMI::Comm::Data;
using Ints = std::vector<int>;

static Ints block(peer_num rank, std::size_t count)
{
    Ints values(count);
    for (std::size_t i = 0; i < count; i++) {
        values[i] = static_cast<int>(1000 * rank + i);
    }
    return values;
}

static void spellings(FMI::Communicator &comm, peer_num rank)
{
    Data<Ints> out(block(rank, 2)), in(2);
    Data<int> one(static_cast<int>(rank)), other(-1);
    if (rank == 0) {
        comm.send<Ints>(out, 1);
        comm.send(out, 1);
        comm.send<int>(one, 1);
        comm.recv<Ints>(in, 1);
        CHECK(in.get() == block(1, 2));
    } else if (rank == 1) {
        comm.recv<Ints>(in, 0);
        comm.recv(in, 0);
        CHECK(in.get() == block(0, 2));
        comm.recv<int>(other, 0);
        CHECK(other == 0);
        comm.send<Ints>(out, 0);
    }
    comm.bcast<Ints>(out, 0);
    CHECK(out.get() == block(0, 2));
    comm.bcast<int>(one, 1);
    CHECK(one == 1);
    comm.barrier();
    Data<Ints> all(8);
    comm.gather<Ints>(out, all, 0);
    comm.scatter<Ints>(all, out, 0);
    CHECK(out.get() == block(0, 2));
    comm.reduce<int>(one, other, 0, {[](auto a, auto b) { return a + b; }, true, true});
    comm.allreduce<int>(one, other, {[](auto a, auto b) { return a + b; }, true, true});
    CHECK(other == 4);
    comm.scan<int>(one, other, {[](auto a, auto b) { return a + b; }, true, true});
    CHECK(other == static_cast<int>(rank) + 1);
}

static void to_oneself(FMI::Communicator &comm, peer_num rank)
{
    Data<Ints> out(block(rank, 100)), in(100);
    comm.send(out, rank);
    comm.recv(in, rank);
    CHECK(in.get() == block(rank, 100));
}

// One element of each rank, gathered into an array that is not a Data's own.
static void scalars(FMI::Communicator &comm, peer_num rank, peer_num size)
{
    Data<int> mine(static_cast<int>(10 * rank));
    std::vector<int> storage(size, -1);
    Data<void *> all(storage.data(), storage.size() * sizeof(int)), single(mine.data(), mine.size_in_bytes());
    comm.gather(single, all, size - 1);
    for (peer_num r = 0; r < size && rank == size - 1; r++) {
        CHECK(storage[r] == static_cast<int>(10 * r));
    }
}

// What matters only at the root is ignored elsewhere, whatever it holds; a larger buffer is accepted there.
static void only_at_the_root(FMI::Communicator &comm, peer_num rank, peer_num size)
{
    for (peer_num root = 0; root < size; root++) {
        for (std::size_t elsewhere : {0, 1, 2, 100}) {
            const bool is_root = rank == root;
            Data<Ints> mine(block(rank, 2));

            Data<Ints> all(is_root ? Ints(2 * size + 3, -1) : Ints(elsewhere, -1));
            comm.gather(mine, all, root);
            if (is_root) {
                const Ints gathered = all.get();
                for (peer_num r = 0; r < size; r++) {
                    CHECK(Ints(gathered.begin() + 2 * r, gathered.begin() + 2 * r + 2) == block(r, 2));
                }
                CHECK(Ints(gathered.end() - 3, gathered.end()) == Ints(3, -1));
            } else {
                CHECK(all.get() == Ints(elsewhere, -1));
            }

            Data<Ints> piece(2);
            Data<Ints> whole(is_root ? block(7, 2 * size + 3) : Ints(elsewhere, -1));
            comm.scatter(whole, piece, root);
            CHECK(piece.get() == (Ints{7000 + 2 * static_cast<int>(rank), 7001 + 2 * static_cast<int>(rank)}));
            CHECK(whole.get() == (is_root ? block(7, 2 * size + 3) : Ints(elsewhere, -1)));

            Data<Ints> result(is_root ? Ints(2, -1) : Ints(elsewhere, -1));
            comm.reduce(mine, result, root,
                {[](Ints a, const Ints &b) {
                     a[0] += b[0];
                     a[1] = std::max(a[1], b[1]);
                     return a;
                 },
                    true, true});
            if (is_root) {
                const int ranks = static_cast<int>(size);
                CHECK(result.get() == (Ints{500 * ranks * (ranks - 1), 1000 * (ranks - 1) + 1}));
            } else {
                CHECK(result.get() == Ints(elsewhere, -1));
            }
            CHECK(mine.get() == block(rank, 2));
        }
    }
}

static FMI::Utils::Function<Ints> first()
{
    return {[](auto a, auto) { return a; }, false, true};
}

// Refused on all ranks before anything is sent: the communicator goes on.
static void sizes_on_all_ranks(FMI::Communicator &comm, peer_num rank, peer_num size)
{
    Data<Ints> three(block(rank, 3)), two(2), four(4), fitting(3);
    THROWS(std::runtime_error, comm.allreduce(three, two, first()));
    THROWS(std::runtime_error, comm.allreduce(three, four, first()));
    THROWS(std::runtime_error, comm.scan(three, two, first()));
    THROWS(std::runtime_error, comm.scan(three, four, first()));
    CHECK(two.get() == Ints(2) && four.get() == Ints(4));
    comm.allreduce(three, fitting, first());
    CHECK(fitting.get() == block(0, 3));
    comm.scan(three, fitting, first());
    CHECK(fitting.get() == block(0, 3));
    check_sum(comm, rank, size);
}

// The root's mistake is the root's alone: it may repeat its call, and nobody else has noticed.
static void sizes_at_the_root(FMI::Communicator &comm, peer_num rank, peer_num size)
{
    for (peer_num root = 0; root < size; root++) {
        Data<Ints> mine(block(rank, 2)), all(2 * size), piece(2), whole(block(7, 2 * size)), result(2);
        if (rank == root) {
            Data<Ints> short_all(2 * size - 1), short_whole(2 * size - 1), one(1), three(3);
            THROWS(std::runtime_error, comm.gather(mine, short_all, root));
            comm.gather(mine, all, root);
            THROWS(std::runtime_error, comm.scatter(short_whole, piece, root));
            comm.scatter(whole, piece, root);
            THROWS(std::runtime_error, comm.reduce(mine, one, root, first()));
            THROWS(std::runtime_error, comm.reduce(mine, three, root, first()));
            comm.reduce(mine, result, root, first());
            CHECK(all.get()[2 * size - 1] == static_cast<int>(1000 * (size - 1) + 1));
            CHECK(result.get() == block(0, 2));
        } else {
            comm.gather(mine, all, root);
            comm.scatter(whole, piece, root);
            comm.reduce(mine, result, root, first());
        }
        CHECK(piece.get()[0] == static_cast<int>(7000 + 2 * rank));
        check_sum(comm, rank, size);
    }
}

// Nothing is sent to a rank that there is not.
static void no_such_rank(FMI::Communicator &comm, peer_num rank, peer_num size)
{
    Data<int> one(1), other;
    for (peer_num wrong : {size, size + 1, std::numeric_limits<peer_num>::max()}) {
        THROWS(std::runtime_error, comm.send(one, wrong));
        THROWS(std::runtime_error, comm.recv(one, wrong));
        THROWS(std::runtime_error, comm.bcast(one, wrong));
        THROWS(std::runtime_error, comm.reduce(one, other, wrong, add()));
        Data<Ints> mine(2), all(2 * size);
        THROWS(std::runtime_error, comm.gather(mine, all, wrong));
        THROWS(std::runtime_error, comm.scatter(all, mine, wrong));
    }
    check_sum(comm, rank, size);
}

// A message of another length than the receive expects is an error there, and the next one is whole.
static void lengths_of_messages(FMI::Communicator &comm, peer_num rank, peer_num size)
{
    const peer_num next = (rank + 1) % size, previous = (rank + size - 1) % size;
    Data<Ints> four(block(rank, 4)), one(1), two(2), again(4);
    comm.send(four, next);
    comm.send(one, next);
    comm.send(four, next);
    THROWS(std::runtime_error, comm.recv(two, previous));
    THROWS(std::runtime_error, comm.recv(two, previous));
    comm.recv(again, previous);
    CHECK(again.get() == block(previous, 4));
}

// The same object on both sides.
static void in_place(FMI::Communicator &comm, peer_num rank, peer_num size)
{
    const int ranks = static_cast<int>(size);
    Data<int> number(static_cast<int>(rank) + 1);
    comm.allreduce(number, number, add());
    CHECK(number == ranks * (ranks + 1) / 2);
    number = static_cast<int>(rank) + 1;
    comm.scan(number, number, add());
    CHECK(number == static_cast<int>((rank + 1) * (rank + 2) / 2));
    number = static_cast<int>(rank) + 1;
    comm.reduce(number, number, 0, add());
    CHECK(number == (rank == 0 ? ranks * (ranks + 1) / 2 : static_cast<int>(rank) + 1));
}

// A message larger than what anybody buffers by itself.
static void large(FMI::Communicator &comm, peer_num rank, peer_num size)
{
    const peer_num next = (rank + 1) % size, previous = (rank + size - 1) % size;
    Data<Ints> out(block(rank, 1 << 20)), in(1 << 20);
    comm.send(out, next);
    comm.recv(in, previous);
    CHECK(in.get() == block(previous, 1 << 20));
}

static void all(const std::string &config, peer_num rank, peer_num size)
{
    FMI::Communicator comm(rank, size, config, "operations");
    if (size == 4) {
        spellings(comm, rank);
    }
    to_oneself(comm, rank);
    scalars(comm, rank, size);
    only_at_the_root(comm, rank, size);
    sizes_on_all_ranks(comm, rank, size);
    sizes_at_the_root(comm, rank, size);
    no_such_rank(comm, rank, size);
    lengths_of_messages(comm, rank, size);
    in_place(comm, rank, size);
    large(comm, rank, size);
    comm.barrier();
}

int main()
{
    watchdog(120);
    Server server;
    const std::string memory = memory_config(), direct = server.config();
    for (peer_num size : {1, 2, 4}) {
        on_threads(size, [&](peer_num rank) { all(memory, rank, size); });
        on_threads(size, [&](peer_num rank) { all(direct, rank, size); });
        on_processes(size, [&](peer_num rank) { all(direct, rank, size); });
    }
    return 0;
}
