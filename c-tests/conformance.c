/* Every operation, through the C API, checked against a sequential oracle.
 *
 *   fmi run -n N ./conformance           the ranks are processes
 *   ./conformance --threads N            the ranks are threads, over the Memory channel
 *
 * The full grid is roots {0, last} x counts {0, 1, size - 1, size, 1000, 100000} x in place or not, for
 * the sum of int32 and for operations of the user's own that are not commutative, or not even
 * associative. All types x all built-in operations at counts {1, 1000}.
 *
 * Behind every buffer stand guard bytes; send buffers are compared after each call. */
#include "check.h"

#include <limits.h>
#include <math.h>
#include <pthread.h>

#define GUARD 16
#define MAX_RANKS 64

static uint32_t rank_of(fmi_comm *comm)
{
    uint32_t rank;
    OK(fmi_comm_rank(comm, &rank));
    return rank;
}

static uint32_t size_of(fmi_comm *comm)
{
    uint32_t size;
    OK(fmi_comm_size(comm, &size));
    return size;
}

/* Buffers with guards */

typedef struct {
    unsigned char *block, *data;
    size_t len;
} Buffer;

/* `offset` from an aligned address: operations take any alignment. */
static Buffer buffer(size_t len, size_t offset)
{
    Buffer b;
    b.block = (unsigned char *)malloc(len + offset + 2 * GUARD);
    CHECK(b.block != NULL);
    memset(b.block, 0xa5, len + offset + 2 * GUARD);
    b.data = b.block + GUARD + offset;
    b.len = len;
    return b;
}

static void done(Buffer *b)
{
    int i;
    for (i = 0; i < GUARD; i++) {
        CHECK(b->data[-1 - i] == 0xa5);
        CHECK(b->data[b->len + (size_t)i] == 0xa5);
    }
    free(b->block);
}

static int untouched(const Buffer *b)
{
    size_t i;
    for (i = 0; i < b->len; i++) {
        if (b->data[i] != 0xa5) {
            return 0;
        }
    }
    return 1;
}

/* Data: what a rank holds is known to all. */

static uint32_t value(uint32_t rank, size_t index, uint32_t salt)
{
    uint32_t x = rank * 0x9e3779b9u + (uint32_t)index * 0x85ebca6bu + salt * 0xc2b2ae35u;
    x ^= x >> 15;
    x *= 0x2c1b3c6du;
    x ^= x >> 13;
    return x;
}

static void fill(unsigned char *data, size_t count, uint32_t rank, size_t first, uint32_t salt)
{
    size_t i;
    for (i = 0; i < count; i++) {
        uint32_t v = value(rank, first + i, salt);
        memcpy(data + 4 * i, &v, 4);
    }
}

static int holds(const unsigned char *data, size_t count, uint32_t rank, size_t first, uint32_t salt)
{
    size_t i;
    for (i = 0; i < count; i++) {
        uint32_t v = value(rank, first + i, salt);
        if (memcmp(data + 4 * i, &v, 4) != 0) {
            return 0;
        }
    }
    return 1;
}

/* Operations of the user's own */

static uint32_t sum(uint32_t a, uint32_t b)
{
    return a + b;
}

/* The composition of x -> p x + q modulo 2^16, with p and q in one element: associative, not
 * commutative. */
static uint32_t compose(uint32_t a, uint32_t b)
{
    uint32_t p = (a >> 16) * (b >> 16), q = (a >> 16) * (b & 0xffff) + (a & 0xffff);
    return p << 16 | (q & 0xffff);
}

/* Neither associative nor commutative. */
static uint32_t left(uint32_t a, uint32_t b)
{
    return a * 31 + (b ^ (a >> 7));
}

typedef uint32_t (*Combine)(uint32_t, uint32_t);

typedef struct {
    Combine combine;
    size_t whole; /* the function must be given this many elements at once; SIZE_MAX = any number */
} User;

static int32_t apply(void *user, void *inout, const void *in, size_t count, fmi_datatype type)
{
    const User *u = (const User *)user;
    uint32_t *a = (uint32_t *)inout;
    const uint32_t *b = (const uint32_t *)in;
    size_t i;
    if (type != FMI_INT32 || (uintptr_t)inout % 16 != 0 || (uintptr_t)in % 16 != 0) {
        return 1;
    }
    if (u->whole != SIZE_MAX && u->whole != count) {
        return 2;
    }
    for (i = 0; i < count; i++) {
        a[i] = u->combine(a[i], b[i]);
    }
    return 0;
}

typedef struct {
    const char *name;
    fmi_op op;
    Combine combine;
    User *user;
} Operation;

/* Element i of the reduction over the ranks from 0 to `last`. */
static uint32_t folded(const Operation *o, uint32_t last, size_t i, uint32_t salt)
{
    uint32_t r, x = value(0, i, salt);
    for (r = 1; r <= last; r++) {
        x = o->combine(x, value(r, i, salt));
    }
    return x;
}

static int holds_fold(const unsigned char *data, size_t count, const Operation *o, uint32_t last, uint32_t salt)
{
    size_t i;
    for (i = 0; i < count; i++) {
        uint32_t x = folded(o, last, i, salt);
        if (memcmp(data + 4 * i, &x, 4) != 0) {
            fprintf(stderr, "%s: element %lu of %lu is wrong\n", o->name, (unsigned long)i, (unsigned long)count);
            return 0;
        }
    }
    return 1;
}

/* The grid */

static void point_to_point(fmi_comm *comm, size_t count, uint32_t salt)
{
    uint32_t rank = rank_of(comm), size = size_of(comm);
    uint32_t next = (rank + 1) % size, previous = (rank + size - 1) % size;
    size_t len = 4 * count;
    Buffer send = buffer(len, 0), recv = buffer(len, 1);
    fill(send.data, count, rank, 0, salt);

    OK(fmi_sendrecv(comm, send.data, len, next, recv.data, len, previous));
    CHECK(holds(recv.data, count, previous, 0, salt));

    /* A ring of sends, then of receives. */
    memset(recv.data, 0xa5, len);
    OK(fmi_send(comm, send.data, len, next));
    OK(fmi_recv(comm, recv.data, len, previous));
    CHECK(holds(recv.data, count, previous, 0, salt));

    /* A message to oneself. */
    memset(recv.data, 0xa5, len);
    OK(fmi_send(comm, send.data, len, rank));
    OK(fmi_recv(comm, recv.data, len, rank));
    CHECK(holds(recv.data, count, rank, 0, salt));

    CHECK(holds(send.data, count, rank, 0, salt));
    done(&send);
    done(&recv);
}

static void bcast(fmi_comm *comm, size_t count, uint32_t root, uint32_t salt)
{
    Buffer data = buffer(4 * count, count % 3);
    if (rank_of(comm) == root) {
        fill(data.data, count, root, 0, salt);
    }
    OK(fmi_bcast(comm, data.data, data.len, root));
    CHECK(holds(data.data, count, root, 0, salt));
    done(&data);
}

static void gather(fmi_comm *comm, size_t count, uint32_t root, int in_place, uint32_t salt)
{
    uint32_t rank = rank_of(comm), size = size_of(comm), r;
    size_t len = 4 * count;
    Buffer send = buffer(len, 0);
    fill(send.data, count, rank, 0, salt);
    if (rank == root) {
        Buffer recv = buffer(size * len, 2);
        if (in_place) {
            fill(recv.data + rank * len, count, rank, 0, salt);
            OK(fmi_gather(comm, recv.data + rank * len, len, recv.data, recv.len, root));
        } else {
            OK(fmi_gather(comm, send.data, len, recv.data, recv.len, root));
        }
        for (r = 0; r < size; r++) {
            CHECK(holds(recv.data + r * len, count, r, 0, salt));
        }
        done(&recv);
    } else if (in_place) {
        /* Whatever stands for recv elsewhere than at the root, the send buffer included. */
        OK(fmi_gather(comm, send.data, len, send.data, SIZE_MAX, root));
    } else {
        OK(fmi_gather(comm, send.data, len, NULL, 1, root));
    }
    CHECK(holds(send.data, count, rank, 0, salt));
    done(&send);
}

static void scatter(fmi_comm *comm, size_t count, uint32_t root, int in_place, uint32_t salt)
{
    uint32_t rank = rank_of(comm), size = size_of(comm);
    size_t len = 4 * count;
    Buffer recv = buffer(len, 1);
    if (rank == root) {
        Buffer send = buffer(size * len, 0);
        fill(send.data, size * count, root, 0, salt);
        if (in_place) {
            OK(fmi_scatter(comm, send.data, send.len, send.data + rank * len, len, root));
        } else {
            OK(fmi_scatter(comm, send.data, send.len, recv.data, len, root));
            CHECK(holds(recv.data, count, root, rank * count, salt));
        }
        CHECK(holds(send.data, size * count, root, 0, salt));
        done(&send);
    } else {
        OK(fmi_scatter(comm, in_place ? recv.data : NULL, in_place ? SIZE_MAX : 1, recv.data, len, root));
        CHECK(holds(recv.data, count, root, rank * count, salt));
    }
    done(&recv);
}

static void reduce(fmi_comm *comm, const Operation *o, size_t count, uint32_t root, int in_place, uint32_t salt)
{
    uint32_t rank = rank_of(comm), size = size_of(comm);
    Buffer send = buffer(4 * count, 0), recv = buffer(4 * count, 0);
    fill(send.data, count, rank, 0, salt);
    if (rank != root) {
        OK(fmi_reduce(comm, send.data, in_place ? send.data : NULL, count, FMI_INT32, o->op, root));
        CHECK(holds(send.data, count, rank, 0, salt));
    } else if (in_place) {
        OK(fmi_reduce(comm, send.data, send.data, count, FMI_INT32, o->op, root));
        CHECK(holds_fold(send.data, count, o, size - 1, salt));
    } else {
        OK(fmi_reduce(comm, send.data, recv.data, count, FMI_INT32, o->op, root));
        CHECK(holds_fold(recv.data, count, o, size - 1, salt));
        CHECK(holds(send.data, count, rank, 0, salt));
    }
    CHECK((rank == root && !in_place) || untouched(&recv));
    done(&send);
    done(&recv);
}

typedef fmi_status (*All)(fmi_comm *, const void *, void *, size_t, fmi_datatype, fmi_op);

/* allreduce, and scan, whose result is that of the ranks up to `last`. */
static void reduce_at_all(
    fmi_comm *comm, All operation, uint32_t last, const Operation *o, size_t count, int in_place, uint32_t salt)
{
    uint32_t rank = rank_of(comm);
    Buffer send = buffer(4 * count, 0), recv = buffer(4 * count, 0);
    fill(send.data, count, rank, 0, salt);
    if (in_place) {
        OK(operation(comm, send.data, send.data, count, FMI_INT32, o->op));
        CHECK(holds_fold(send.data, count, o, last, salt));
        CHECK(untouched(&recv));
    } else {
        OK(operation(comm, send.data, recv.data, count, FMI_INT32, o->op));
        CHECK(holds_fold(recv.data, count, o, last, salt));
        CHECK(holds(send.data, count, rank, 0, salt));
    }
    done(&send);
    done(&recv);
}

static void grid(fmi_comm *comm, uint32_t *salt)
{
    User users[4] = { { compose, 0 }, { compose, SIZE_MAX }, { left, 0 }, { sum, SIZE_MAX } };
    Operation ops[5];
    uint32_t rank = rank_of(comm), size = size_of(comm), roots[2];
    size_t counts[6], c, i;
    int root, in_place;

    ops[0].name = "sum";
    ops[0].op = FMI_SUM;
    ops[0].combine = sum;
    ops[0].user = NULL;
    for (i = 0; i < 4; i++) {
        static const char *const NAMES[] = { "compose", "compose by element", "left", "own sum" };
        static const uint32_t FLAGS[] = {
            FMI_OP_ASSOCIATIVE,
            FMI_OP_ASSOCIATIVE | FMI_OP_ELEMENTWISE,
            0,
            FMI_OP_ASSOCIATIVE | FMI_OP_COMMUTATIVE | FMI_OP_ELEMENTWISE,
        };
        ops[i + 1].name = NAMES[i];
        ops[i + 1].combine = users[i].combine;
        ops[i + 1].user = &users[i];
        OK(fmi_op_create(apply, &users[i], NULL, FLAGS[i], 0, &ops[i + 1].op));
    }
    roots[0] = 0;
    roots[1] = size - 1;
    counts[0] = 0;
    counts[1] = 1;
    counts[2] = size - 1;
    counts[3] = size;
    counts[4] = 1000;
    counts[5] = 100000;

    for (c = 0; c < 6; c++) {
        size_t count = counts[c];
        point_to_point(comm, count, ++*salt);
        OK(fmi_barrier(comm));
        for (root = 0; root < 2; root++) {
            bcast(comm, count, roots[root], ++*salt);
            for (in_place = 0; in_place < 2; in_place++) {
                gather(comm, count, roots[root], in_place, ++*salt);
                scatter(comm, count, roots[root], in_place, ++*salt);
            }
        }
        for (i = 0; i < 5; i++) {
            if (ops[i].user != NULL && ops[i].user->whole != SIZE_MAX) {
                ops[i].user->whole = count;
            }
            for (in_place = 0; in_place < 2; in_place++) {
                for (root = 0; root < 2; root++) {
                    reduce(comm, &ops[i], count, roots[root], in_place, ++*salt);
                }
                reduce_at_all(comm, fmi_allreduce, size - 1, &ops[i], count, in_place, ++*salt);
                reduce_at_all(comm, fmi_scan, rank, &ops[i], count, in_place, ++*salt);
            }
        }
    }
    for (i = 1; i < 5; i++) {
        OK(fmi_op_destroy(ops[i].op));
    }
}

/* All types, all built-in operations */

#define TRUTH(x) ((x) ? 1 : 0)

/* The oracle of one element; 0 = not defined. Arithmetic is modulo 2^64, which keeps what is modulo
 * less. */
#define INTEGER_ORACLE(T, name)                                                                     \
    static int name(fmi_op op, void *into, const void *other)                                       \
    {                                                                                               \
        T a, b;                                                                                     \
        memcpy(&a, into, sizeof a);                                                                 \
        memcpy(&b, other, sizeof b);                                                                \
        switch (op) {                                                                               \
        case FMI_SUM: a = (T)((uint64_t)a + (uint64_t)b); break;                                    \
        case FMI_PROD: a = (T)((uint64_t)a * (uint64_t)b); break;                                   \
        case FMI_MIN: a = a < b ? a : b; break;                                                     \
        case FMI_MAX: a = a > b ? a : b; break;                                                     \
        case FMI_LAND: a = (T)TRUTH(a && b); break;                                                 \
        case FMI_LOR: a = (T)TRUTH(a || b); break;                                                  \
        case FMI_LXOR: a = (T)TRUTH(!a != !b); break;                                               \
        case FMI_BAND: a = (T)(a & b); break;                                                       \
        case FMI_BOR: a = (T)(a | b); break;                                                        \
        case FMI_BXOR: a = (T)(a ^ b); break;                                                       \
        default: return 0;                                                                          \
        }                                                                                           \
        memcpy(into, &a, sizeof a);                                                                 \
        return 1;                                                                                   \
    }                                                                                               \
    static void name##_value(void *into, uint32_t v)                                                \
    {                                                                                               \
        T a = (T)(((uint64_t)v << 32) ^ v);                                                         \
        if (v % 4 == 0) {                                                                           \
            a = 0; /* for the logical operations */                                                 \
        }                                                                                           \
        memcpy(into, &a, sizeof a);                                                                 \
    }

/* Small whole numbers and powers of two: every sum and product is exact, in whatever order. */
#define FLOAT_ORACLE(T, name)                                                                       \
    static int name(fmi_op op, void *into, const void *other)                                       \
    {                                                                                               \
        T a, b;                                                                                     \
        memcpy(&a, into, sizeof a);                                                                 \
        memcpy(&b, other, sizeof b);                                                                \
        switch (op) {                                                                               \
        case FMI_SUM: a = a + b; break;                                                             \
        case FMI_PROD: a = a * b; break;                                                            \
        case FMI_MIN: a = a < b ? a : b; break;                                                     \
        case FMI_MAX: a = a > b ? a : b; break;                                                     \
        default: return 0;                                                                          \
        }                                                                                           \
        memcpy(into, &a, sizeof a);                                                                 \
        return 1;                                                                                   \
    }                                                                                               \
    static void name##_value(void *into, uint32_t v)                                                \
    {                                                                                               \
        T a = (T)(v % 2 == 0 ? 1 << v / 2 % 3 : -(1 << v / 2 % 2));                                 \
        memcpy(into, &a, sizeof a);                                                                 \
    }

INTEGER_ORACLE(int8_t, oracle_int8)
INTEGER_ORACLE(int16_t, oracle_int16)
INTEGER_ORACLE(int32_t, oracle_int32)
INTEGER_ORACLE(int64_t, oracle_int64)
INTEGER_ORACLE(uint8_t, oracle_uint8)
INTEGER_ORACLE(uint16_t, oracle_uint16)
INTEGER_ORACLE(uint32_t, oracle_uint32)
INTEGER_ORACLE(uint64_t, oracle_uint64)
FLOAT_ORACLE(float, oracle_float)
FLOAT_ORACLE(double, oracle_double)

static int oracle_byte(fmi_op op, void *into, const void *other)
{
    return op >= FMI_BAND && op <= FMI_BXOR && oracle_uint8(op, into, other);
}

static const struct {
    const char *name;
    fmi_datatype type;
    size_t size;
    int (*oracle)(fmi_op, void *, const void *);
    void (*value)(void *, uint32_t);
} TYPES[] = {
    { "byte", FMI_BYTE, 1, oracle_byte, oracle_uint8_value },
    { "int8", FMI_INT8, 1, oracle_int8, oracle_int8_value },
    { "int16", FMI_INT16, 2, oracle_int16, oracle_int16_value },
    { "int32", FMI_INT32, 4, oracle_int32, oracle_int32_value },
    { "int64", FMI_INT64, 8, oracle_int64, oracle_int64_value },
    { "uint8", FMI_UINT8, 1, oracle_uint8, oracle_uint8_value },
    { "uint16", FMI_UINT16, 2, oracle_uint16, oracle_uint16_value },
    { "uint32", FMI_UINT32, 4, oracle_uint32, oracle_uint32_value },
    { "uint64", FMI_UINT64, 8, oracle_uint64, oracle_uint64_value },
    { "float", FMI_FLOAT, 4, oracle_float, oracle_float_value },
    { "double", FMI_DOUBLE, 8, oracle_double, oracle_double_value },
};

static void typed(fmi_comm *comm, size_t t, fmi_op op, size_t count, uint32_t salt)
{
    uint32_t rank = rank_of(comm), size = size_of(comm), r;
    size_t width = TYPES[t].size, len = count * width, i;
    /* One byte off every alignment. */
    Buffer send = buffer(len, 1), copy = buffer(len, 0), expected = buffer(len, 0), partial = buffer(len, 0);
    Buffer recv = buffer(len, 1);
    int defined = 1;
    for (i = 0; i < count; i++) {
        unsigned char acc[8], other[8];
        TYPES[t].value(acc, value(0, i, salt));
        memcpy(partial.data + i * width, acc, width);
        for (r = 1; r < size; r++) {
            TYPES[t].value(other, value(r, i, salt));
            defined = TYPES[t].oracle(op, acc, other);
            if (r == rank) {
                memcpy(partial.data + i * width, acc, width);
            }
        }
        if (size == 1) {
            TYPES[t].value(other, 1);
            defined = TYPES[t].oracle(op, other, other);
        }
        memcpy(expected.data + i * width, acc, width);
        TYPES[t].value(send.data + i * width, value(rank, i, salt));
    }
    memcpy(copy.data, send.data, len);

    if (!defined) {
        STATUS(FMI_ERR_ARG, fmi_allreduce(comm, send.data, recv.data, count, TYPES[t].type, op));
        STATUS(FMI_ERR_ARG, fmi_scan(comm, send.data, recv.data, count, TYPES[t].type, op));
        STATUS(FMI_ERR_ARG, fmi_reduce(comm, send.data, recv.data, count, TYPES[t].type, op, 0));
        CHECK(untouched(&recv));
    } else {
        OK(fmi_allreduce(comm, send.data, recv.data, count, TYPES[t].type, op));
        if (memcmp(recv.data, expected.data, len) != 0) {
            fprintf(stderr, "allreduce of %s with operation %d is wrong\n", TYPES[t].name, op);
            exit(1);
        }
        OK(fmi_scan(comm, send.data, recv.data, count, TYPES[t].type, op));
        if (memcmp(recv.data, partial.data, len) != 0) {
            fprintf(stderr, "scan of %s with operation %d is wrong\n", TYPES[t].name, op);
            exit(1);
        }
        OK(fmi_reduce(comm, send.data, recv.data, count, TYPES[t].type, op, size - 1));
        if (rank == size - 1 && memcmp(recv.data, expected.data, len) != 0) {
            fprintf(stderr, "reduce of %s with operation %d is wrong\n", TYPES[t].name, op);
            exit(1);
        }
    }
    CHECK(memcmp(copy.data, send.data, len) == 0);
    done(&send);
    done(&copy);
    done(&expected);
    done(&partial);
    done(&recv);
}

static void all_types(fmi_comm *comm, uint32_t *salt)
{
    size_t t;
    fmi_op op;
    for (t = 0; t < sizeof TYPES / sizeof *TYPES; t++) {
        for (op = FMI_SUM; op <= FMI_BXOR; op++) {
            typed(comm, t, op, 1, ++*salt);
            typed(comm, t, op, 1000, ++*salt);
        }
    }
}

/* What else is promised of numbers */

static void not_a_number(fmi_comm *comm)
{
    uint32_t rank = rank_of(comm), size = size_of(comm);
    static const fmi_op OPS[] = { FMI_MIN, FMI_MAX };
    int i;
    for (i = 0; i < 2; i++) {
        double data[2], result[2] = { 0, 0 };
        data[0] = rank == size - 1 ? NAN : rank;
        data[1] = rank == 0 ? NAN : rank;
        OK(fmi_allreduce(comm, data, result, 2, FMI_DOUBLE, OPS[i]));
        CHECK(isnan(result[0]) && isnan(result[1]));
    }
}

/* The same bits from run to run, and on every rank, also where addition rounds. */
static void reproducible(fmi_comm *comm)
{
    enum { COUNT = 3000, RUNS = 3 };
    uint32_t rank = rank_of(comm), r;
    Buffer send = buffer(COUNT * sizeof(double), 0), first = buffer(send.len, 0), again = buffer(send.len, 0);
    int run;
    for (r = 0; r < COUNT; r++) {
        double x = 1.0 / (1 + value(rank, r, 99) % 1000) * (value(rank, r, 98) % 2 ? 1 : -1);
        memcpy(send.data + r * sizeof x, &x, sizeof x);
    }
    OK(fmi_allreduce(comm, send.data, first.data, COUNT, FMI_DOUBLE, FMI_SUM));
    for (run = 0; run < RUNS; run++) {
        OK(fmi_allreduce(comm, send.data, again.data, COUNT, FMI_DOUBLE, FMI_SUM));
        CHECK(memcmp(first.data, again.data, first.len) == 0);
    }
    memcpy(again.data, first.data, first.len);
    OK(fmi_bcast(comm, again.data, again.len, 0));
    CHECK(memcmp(first.data, again.data, first.len) == 0);
    done(&send);
    done(&first);
    done(&again);
}

/* A message of another length than expected is an error, and the next one is received correctly. */
static void wrong_lengths(fmi_comm *comm)
{
    uint32_t rank = rank_of(comm), size = size_of(comm);
    uint32_t next = (rank + 1) % size, previous = (rank + size - 1) % size;
    char data[100], result[100];
    memset(data, (int)rank, sizeof data);
    OK(fmi_send(comm, data, 100, next));
    OK(fmi_send(comm, data, 10, next));
    OK(fmi_send(comm, data, 0, next));
    OK(fmi_send(comm, data, 50, next));
    STATUS(FMI_ERR_SIZE_MISMATCH, fmi_recv(comm, result, 99, previous));
    STATUS(FMI_ERR_SIZE_MISMATCH, fmi_recv(comm, result, 11, previous));
    STATUS(FMI_ERR_SIZE_MISMATCH, fmi_recv(comm, result, 1, previous));
    OK(fmi_recv(comm, result, 50, previous));
    CHECK(result[0] == (char)previous && result[49] == (char)previous);
}

static void all(fmi_comm *comm)
{
    uint32_t salt = 0;
    wrong_lengths(comm);
    grid(comm, &salt);
    all_types(comm, &salt);
    not_a_number(comm);
    reproducible(comm);
    OK(fmi_barrier(comm));
    OK(fmi_comm_close(comm, 30000));
    fmi_comm_destroy(comm);
}

typedef struct {
    uint32_t rank, size;
    const fmi_config *config;
} Thread;

static void *rank_as_thread(void *argument)
{
    const Thread *thread = (const Thread *)argument;
    fmi_comm *comm;
    OK(fmi_comm_create_with(thread->rank, thread->size, "conformance", thread->config, &comm));
    all(comm);
    return NULL;
}

static void ranks_as_threads(uint32_t size)
{
    static pthread_t threads[MAX_RANKS];
    static Thread ranks[MAX_RANKS];
    fmi_config *config;
    uint32_t r;
    OK(fmi_config_create(&config));
    OK(fmi_config_parse(config, MEMORY_CONFIG, strlen(MEMORY_CONFIG)));
    for (r = 0; r < size; r++) {
        ranks[r].rank = r;
        ranks[r].size = size;
        ranks[r].config = config;
        CHECK(pthread_create(&threads[r], NULL, rank_as_thread, &ranks[r]) == 0);
    }
    for (r = 0; r < size; r++) {
        CHECK(pthread_join(threads[r], NULL) == 0);
    }
    fmi_config_destroy(config);
}

int main(int argc, char **argv)
{
    watchdog(300);
    if (argc == 3 && strcmp(argv[1], "--threads") == 0 && atoi(argv[2]) > 0 && atoi(argv[2]) <= MAX_RANKS) {
        ranks_as_threads((uint32_t)atoi(argv[2]));
    } else if (argc == 1) {
        fmi_comm *comm;
        OK(fmi_comm_create_from_env("conformance", &comm));
        all(comm);
    } else {
        fprintf(stderr, "usage: conformance [--threads N], with N up to %d\n", MAX_RANKS);
        return 2;
    }
    return 0;
}
