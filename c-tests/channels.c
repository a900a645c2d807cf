/* Channels of one's own, and channels by themselves: what the header says of them, sentence by sentence. The ranks
 * are threads; what they hand over lies in tables of this program. */
#include "check.h"

#include <pthread.h>
#include <time.h>

enum { MAX_RANKS = 5, MAX_LETTERS = 64, MAX_OBJECTS = 256, NAME_LENGTH = 256 };

/* What lies between the ranks: letters of each pair in order, and objects under names. */
typedef struct {
    char *data;
    size_t len;
} piece;

typedef struct {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    piece letters[MAX_RANKS][MAX_RANKS][MAX_LETTERS];
    int waiting[MAX_RANKS][MAX_RANKS];
    char names[MAX_OBJECTS][NAME_LENGTH];
    piece objects[MAX_OBJECTS];
} table;

/* One rank's end of it, which is `user`. */
typedef struct {
    table *between;
    uint32_t rank;
    /* What the next functions return, in place of their work; 0 = they work. */
    int32_t failure;
    fmi_comm *inner;
    fmi_channel *self;
    int finalized, dropped, downloads;
} end;

static piece copy_of(const void *data, size_t len)
{
    piece copy;
    copy.data = (char *)malloc(len + 1);
    copy.len = len;
    CHECK(copy.data != NULL);
    if (len > 0) {
        memcpy(copy.data, data, len);
    }
    return copy;
}

static table *new_table(void)
{
    table *made = (table *)calloc(1, sizeof *made);
    CHECK(made != NULL);
    pthread_mutex_init(&made->mutex, NULL);
    pthread_cond_init(&made->changed, NULL);
    return made;
}

static int left_in(const table *between)
{
    int i, left = 0;
    for (i = 0; i < MAX_OBJECTS; i++) {
        left += between->names[i][0] != 0;
    }
    return left;
}

static void free_table(table *between)
{
    CHECK(left_in(between) == 0);
    pthread_mutex_destroy(&between->mutex);
    pthread_cond_destroy(&between->changed);
    free(between);
}

/* Peer-to-peer */

static int32_t send_object(void *user, const void *data, size_t len, uint32_t dest)
{
    end *mine = (end *)user;
    table *between = mine->between;
    int *waiting;
    if (mine->failure != 0) {
        return mine->failure;
    }
    pthread_mutex_lock(&between->mutex);
    waiting = &between->waiting[mine->rank][dest];
    CHECK(*waiting < MAX_LETTERS);
    between->letters[mine->rank][dest][(*waiting)++] = copy_of(data, len);
    pthread_cond_broadcast(&between->changed);
    pthread_mutex_unlock(&between->mutex);
    return 0;
}

static int32_t recv_object(void *user, void *buf, size_t len, uint32_t src)
{
    end *mine = (end *)user;
    table *between = mine->between;
    piece *letters;
    int *waiting, i;
    if (mine->failure != 0) {
        return mine->failure;
    }
    pthread_mutex_lock(&between->mutex);
    waiting = &between->waiting[src][mine->rank];
    letters = between->letters[src][mine->rank];
    while (*waiting == 0) {
        pthread_cond_wait(&between->changed, &between->mutex);
    }
    CHECK(letters[0].len == len);
    memcpy(buf, letters[0].data, len);
    free(letters[0].data);
    (*waiting)--;
    for (i = 0; i < *waiting; i++) {
        letters[i] = letters[i + 1];
    }
    pthread_mutex_unlock(&between->mutex);
    return 0;
}

/* Client-server */

static int place_of(table *between, const char *name)
{
    int i;
    for (i = 0; i < MAX_OBJECTS; i++) {
        if (strcmp(between->names[i], name) == 0) {
            return i;
        }
    }
    return -1;
}

static int32_t upload_object(void *user, const char *name, const void *data, size_t len)
{
    end *mine = (end *)user;
    table *between = mine->between;
    int place;
    if (mine->failure != 0) {
        return mine->failure;
    }
    CHECK(len > 0 && strlen(name) <= 200 && strlen(name) > 0);
    pthread_mutex_lock(&between->mutex);
    CHECK(place_of(between, name) < 0);
    place = place_of(between, "");
    CHECK(place >= 0);
    strcpy(between->names[place], name);
    between->objects[place] = copy_of(data, len);
    pthread_mutex_unlock(&between->mutex);
    return 0;
}

static int32_t download_object(void *user, const char *name, void *buf, size_t capacity, int32_t *found)
{
    end *mine = (end *)user;
    table *between = mine->between;
    int place;
    if (mine->failure != 0) {
        return mine->failure;
    }
    mine->downloads++;
    pthread_mutex_lock(&between->mutex);
    place = place_of(between, name);
    *found = place >= 0;
    if (place >= 0) {
        size_t len = between->objects[place].len;
        memcpy(buf, between->objects[place].data, len < capacity ? len : capacity);
    }
    pthread_mutex_unlock(&between->mutex);
    return 0;
}

static int32_t delete_object(void *user, const char *name)
{
    table *between = ((end *)user)->between;
    int place;
    pthread_mutex_lock(&between->mutex);
    place = place_of(between, name);
    if (place >= 0) {
        between->names[place][0] = 0;
        free(between->objects[place].data);
    }
    pthread_mutex_unlock(&between->mutex);
    return 0;
}

static int32_t list_objects(void *user, int32_t (*visit)(void *context, const char *name), void *context)
{
    table *between = ((end *)user)->between;
    int i;
    for (i = 0; i < MAX_OBJECTS; i++) {
        char name[NAME_LENGTH];
        pthread_mutex_lock(&between->mutex);
        strcpy(name, between->names[i]);
        pthread_mutex_unlock(&between->mutex);
        if (name[0] != 0 && visit(context, name) != 0) {
            break;
        }
    }
    return 0;
}

/* Whole: everything goes to a communicator of its own. Its reductions are gathered, and combined here. */

static int32_t whole_send(void *user, const void *data, size_t len, uint32_t dest)
{
    return fmi_send(((end *)user)->inner, data, len, dest);
}

static int32_t whole_recv(void *user, void *buf, size_t len, uint32_t src)
{
    return fmi_recv(((end *)user)->inner, buf, len, src);
}

static int32_t whole_bcast(void *user, void *buf, size_t len, uint32_t root)
{
    end *mine = (end *)user;
    return mine->failure != 0 ? mine->failure : fmi_bcast(mine->inner, buf, len, root);
}

static int32_t whole_barrier(void *user) { return fmi_barrier(((end *)user)->inner); }

static int32_t whole_gather(void *user, const void *send, size_t send_len, void *recv, size_t recv_len, uint32_t root)
{
    end *mine = (end *)user;
    CHECK(mine->rank == root || (recv == NULL && recv_len == 0));
    return fmi_gather(mine->inner, send, send_len, recv, recv_len, root);
}

static int32_t whole_scatter(void *user, const void *send, size_t send_len, void *recv, size_t recv_len, uint32_t root)
{
    end *mine = (end *)user;
    CHECK(mine->rank == root || (send == NULL && send_len == 0));
    return fmi_scatter(mine->inner, send, send_len, recv, recv_len, root);
}

/* The operands of the ranks up to `last`, combined from left to right. */
static int32_t combined(end *mine, const void *send, void *recv, size_t len, const fmi_reduction *reduction,
    uint32_t last)
{
    uint32_t size, rank;
    char *all;
    OK(fmi_comm_size(mine->inner, &size));
    all = (char *)calloc(size, len + 1);
    CHECK(all != NULL);
    OK(fmi_gather(mine->inner, send, len, all, len * size, 0));
    OK(fmi_bcast(mine->inner, all, len * size, 0));
    for (rank = 1; rank <= last; rank++) {
        fmi_status status = fmi_reduction_apply(reduction, all, all + rank * len, len);
        if (status != FMI_OK) {
            free(all);
            return status;
        }
    }
    if (recv != NULL && len > 0) {
        memcpy(recv, all, len);
    }
    free(all);
    return 0;
}

static int32_t whole_reduce(void *user, const void *send, void *recv, size_t len, const fmi_reduction *reduction,
    uint32_t root)
{
    end *mine = (end *)user;
    uint32_t size;
    CHECK((mine->rank == root) == (recv != NULL) || len == 0);
    OK(fmi_comm_size(mine->inner, &size));
    return combined(mine, send, recv, len, reduction, size - 1);
}

static int32_t whole_allreduce(void *user, const void *send, void *recv, size_t len, const fmi_reduction *reduction)
{
    end *mine = (end *)user;
    uint32_t size;
    OK(fmi_comm_size(mine->inner, &size));
    return combined(mine, send, recv, len, reduction, size - 1);
}

static int32_t whole_scan(void *user, const void *send, void *recv, size_t len, const fmi_reduction *reduction)
{
    return combined((end *)user, send, recv, len, reduction, ((end *)user)->rank);
}

static void finalize(void *user) { ((end *)user)->finalized++; }

static void drop_end(void *user) { ((end *)user)->dropped++; }

static double latency(void *user, uint32_t producers, uint32_t consumers, size_t bytes)
{
    (void)user;
    return producers + 10.0 * consumers + 100.0 * (double)bytes;
}

static double double_price(void *user, uint32_t producers, uint32_t consumers, size_t bytes)
{
    return 2 * latency(user, producers, consumers, bytes);
}

static double operation_number(void *user, int32_t operation, size_t bytes, int32_t left_to_right)
{
    (void)user;
    return operation + 1000.0 * (double)bytes + 0.5 * left_to_right;
}

static fmi_channel_vtable functions_of(int32_t family)
{
    fmi_channel_vtable functions;
    memset(&functions, 0, sizeof functions);
    functions.struct_size = sizeof functions;
    functions.family = family;
    functions.timeout_ms = 20000;
    functions.poll_ms = 1;
    functions.finalize = finalize;
    functions.drop = drop_end;
    switch (family) {
    case FMI_CHANNEL_PEER_TO_PEER:
        functions.flags = FMI_CHANNEL_FULL_DUPLEX;
        functions.send_object = send_object;
        functions.recv_object = recv_object;
        break;
    case FMI_CHANNEL_CLIENT_SERVER:
        functions.upload_object = upload_object;
        functions.download_object = download_object;
        functions.delete_object = delete_object;
        functions.list_objects = list_objects;
        break;
    default:
        functions.send = whole_send;
        functions.recv = whole_recv;
        functions.bcast = whole_bcast;
        functions.barrier = whole_barrier;
        functions.gather = whole_gather;
        functions.scatter = whole_scatter;
        functions.reduce = whole_reduce;
        functions.allreduce = whole_allreduce;
        functions.scan = whole_scan;
    }
    return functions;
}

/* Ranks that are threads. */

typedef struct {
    void (*body)(uint32_t rank, uint32_t size, int32_t family, table *between, const char *job);
    uint32_t rank, size;
    int32_t family;
    table *between;
    const char *job;
} start;

static void *run_rank(void *argument)
{
    start *me = (start *)argument;
    me->body(me->rank, me->size, me->family, me->between, me->job);
    return NULL;
}

static void job_of(uint32_t size, int32_t family,
    void (*body)(uint32_t rank, uint32_t size, int32_t family, table *between, const char *job))
{
    static int jobs = 0;
    pthread_t threads[MAX_RANKS];
    start starts[MAX_RANKS];
    table *between = new_table();
    char job[40];
    uint32_t rank;
    snprintf(job, sizeof job, "channels %d %d", (int)getpid(), jobs++);
    for (rank = 0; rank < size; rank++) {
        start begin;
        begin.body = body;
        begin.rank = rank;
        begin.size = size;
        begin.family = family;
        begin.between = between;
        begin.job = job;
        starts[rank] = begin;
        CHECK(pthread_create(&threads[rank], NULL, run_rank, &starts[rank]) == 0);
    }
    for (rank = 0; rank < size; rank++) {
        CHECK(pthread_join(threads[rank], NULL) == 0);
    }
    free_table(between);
}

static fmi_channel *channel_of(end *mine, uint32_t rank, uint32_t size, int32_t family, table *between, const char *job)
{
    fmi_channel_vtable functions = functions_of(family);
    fmi_channel *channel = NULL;
    memset(mine, 0, sizeof *mine);
    mine->between = between;
    mine->rank = rank;
    if (family == FMI_CHANNEL_WHOLE) {
        OK(fmi_comm_create(rank, size, MEMORY_CONFIG, job, 0, &mine->inner));
    }
    OK(fmi_channel_create_custom(&functions, mine, rank, size, job, &channel));
    mine->self = channel;
    return channel;
}

/* A communicator over nothing but this channel. */
static fmi_comm *comm_over(fmi_channel *channel, uint32_t rank, uint32_t size)
{
    fmi_comm *comm = NULL;
    OK(fmi_comm_create(rank, size, "{\"backends\":{}}", "unused", 0, &comm));
    OK(fmi_comm_register_channel(comm, "mine", channel));
    return comm;
}

static void dropped_once(end *mine)
{
    CHECK(mine->dropped == 1);
    fmi_comm_destroy(mine->inner);
}

static int32_t twice_left(void *user, void *inout, const void *in, size_t count, fmi_datatype type)
{
    int32_t *left = (int32_t *)inout;
    const int32_t *right = (const int32_t *)in;
    size_t i;
    (void)user;
    CHECK(type == FMI_INT32);
    for (i = 0; i < count; i++) {
        left[i] = 2 * left[i] + right[i];
    }
    return 0;
}

/* All nine operations, over the channel itself or over a communicator that it is registered with. */
#define EVERY_OPERATION(handle, prefix)                                                             \
    do {                                                                                            \
        int32_t mine[3], other[3], all[3 * MAX_RANKS], expected = 0, i, scanned = 0;                \
        uint32_t root = size - 1, r;                                                                \
        for (i = 0; i < 3; i++) {                                                                   \
            mine[i] = (int32_t)rank + i;                                                            \
        }                                                                                           \
        OK(prefix##_barrier(handle));                                                               \
        memcpy(other, mine, sizeof other);                                                          \
        OK(prefix##_bcast(handle, other, sizeof other, root));                                      \
        CHECK(other[2] == (int32_t)root + 2);                                                       \
        OK(prefix##_gather(handle, mine, sizeof mine, rank == root ? all : NULL,                    \
            rank == root ? size * sizeof mine : 7, root));                                          \
        for (r = 0; rank == root && r < size; r++) {                                                \
            CHECK(all[3 * r + 1] == (int32_t)r + 1);                                                \
        }                                                                                           \
        OK(prefix##_scatter(handle, rank == root ? all : NULL, rank == root ? size * sizeof mine : 0, other, \
            sizeof other, root));                                                                   \
        CHECK(memcmp(other, mine, sizeof mine) == 0);                                               \
        for (r = 0; r < size; r++) {                                                                \
            expected = r == 0 ? 0 : 2 * expected + (int32_t)r;                                      \
            scanned = r <= rank ? expected : scanned;                                               \
        }                                                                                           \
        OK(prefix##_reduce(handle, mine, rank == root ? other : NULL, 3, FMI_INT32, twice, root));  \
        CHECK(rank != root || other[0] == expected);                                                \
        OK(prefix##_allreduce(handle, mine, other, 3, FMI_INT32, twice));                           \
        CHECK(other[0] == expected);                                                                \
        OK(prefix##_allreduce(handle, mine, other, 3, FMI_INT32, FMI_SUM));                         \
        CHECK(other[1] == (int32_t)(size * (size - 1) / 2 + size));                                 \
        OK(prefix##_scan(handle, mine, other, 3, FMI_INT32, twice));                                \
        CHECK(other[0] == scanned);                                                                 \
        OK(prefix##_send(handle, mine, sizeof mine, (rank + 1) % size));                            \
        OK(prefix##_recv(handle, other, sizeof other, (rank + size - 1) % size));                   \
        CHECK(other[0] == (int32_t)((rank + size - 1) % size));                                     \
        OK(prefix##_send(handle, NULL, 0, (rank + 1) % size));                                      \
        OK(prefix##_recv(handle, NULL, 0, (rank + size - 1) % size));                               \
        CHECK(mine[2] == (int32_t)rank + 2);                                                        \
    } while (0)

static fmi_op twice;

static void by_itself(uint32_t rank, uint32_t size, int32_t family, table *between, const char *job)
{
    end mine;
    fmi_channel *channel = channel_of(&mine, rank, size, family, between, job);
    OK(fmi_channel_set_timeout(channel, 20000));
    EVERY_OPERATION(channel, fmi_channel);
    OK(fmi_channel_close(channel, 5000));
    STATUS(FMI_ERR_CLOSED, fmi_channel_barrier(channel));
    CHECK(mine.finalized == 1 && mine.dropped == 0);
    fmi_channel_destroy(channel);
    CHECK(mine.finalized == 1);
    dropped_once(&mine);
}

static void registered(uint32_t rank, uint32_t size, int32_t family, table *between, const char *job)
{
    end mine;
    fmi_channel *channel = channel_of(&mine, rank, size, family, between, job);
    fmi_comm *comm = comm_over(channel, rank, size);
    /* The communicator keeps what it needs. */
    fmi_channel_destroy(channel);
    CHECK(mine.dropped == 0 && mine.finalized == 0);
    OK(fmi_comm_set_channel(comm, "mine"));
    EVERY_OPERATION(comm, fmi);
    OK(fmi_comm_close(comm, 5000));
    fmi_comm_destroy(comm);
    CHECK(mine.finalized == 1);
    dropped_once(&mine);
}

static void every_family(void)
{
    static const uint32_t sizes[] = {1, 2, 3, 5};
    size_t i;
    int32_t family;
    for (family = FMI_CHANNEL_PEER_TO_PEER; family <= FMI_CHANNEL_WHOLE; family++) {
        for (i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            job_of(sizes[i], family, by_itself);
            job_of(sizes[i], family, registered);
        }
    }
}

/* What fails, and what is left. */

static fmi_error_info info_of(const fmi_channel *channel)
{
    fmi_error_info info;
    info.struct_size = sizeof info;
    OK(fmi_channel_error_info(channel, &info));
    return info;
}

static void failures(uint32_t rank, uint32_t size, int32_t family, table *between, const char *job)
{
    end mine;
    fmi_channel *channel = channel_of(&mine, rank, size, family, between, job);
    char byte = 1;
    OK(fmi_channel_barrier(channel));
    mine.failure = family == FMI_CHANNEL_CLIENT_SERVER ? 77 : FMI_ERR_TIMEOUT;
    if (family != FMI_CHANNEL_WHOLE) {
        /* A message may be sent again. */
        STATUS(FMI_ERR_CALLBACK, fmi_channel_send(channel, &byte, 1, 1 - rank));
        CHECK(info_of(channel).cause == (mine.failure == 77 ? FMI_ERR_CALLBACK : FMI_ERR_TIMEOUT));
        CHECK(info_of(channel).operation == FMI_OPERATION_SEND && info_of(channel).peer == (int32_t)(1 - rank));
    }
    STATUS(FMI_ERR_CALLBACK, fmi_channel_bcast(channel, &byte, 1, 0));
    CHECK(info_of(channel).operation == FMI_OPERATION_BCAST);
    mine.failure = 0;
    STATUS(FMI_ERR_POISONED, fmi_channel_barrier(channel));
    CHECK(last_error_mentions("bcast") || last_error_mentions("object"));
    OK(fmi_channel_send(channel, &byte, 1, 1 - rank));
    byte = 0;
    OK(fmi_channel_recv(channel, &byte, 1, 1 - rank));
    CHECK(byte == 1);
    fmi_channel_destroy(channel);
    dropped_once(&mine);
}

/* Lengths. */
static void lengths(uint32_t rank, uint32_t size, int32_t family, table *between, const char *job)
{
    end mine;
    fmi_channel *channel = channel_of(&mine, rank, size, family, between, job);
    char four[4] = "abc", two[2];
    if (rank == 0) {
        OK(fmi_channel_send(channel, four, 4, 1));
        OK(fmi_channel_send(channel, four, 2, 1));
    } else {
        STATUS(FMI_ERR_SIZE_MISMATCH, fmi_channel_recv(channel, two, 2, 0));
        OK(fmi_channel_recv(channel, two, 2, 0));
        CHECK(two[0] == 'a' && two[1] == 'b');
    }
    fmi_channel_destroy(channel);
    dropped_once(&mine);
}

/* A function of the channel that uses the channel. */
static int32_t entangled_send(void *user, const void *data, size_t len, uint32_t dest)
{
    end *mine = (end *)user;
    (void)data;
    (void)len;
    STATUS(FMI_ERR_BUSY, fmi_channel_send(mine->self, NULL, 0, dest));
    return 0;
}

static int32_t no_recv(void *user, void *buf, size_t len, uint32_t src)
{
    (void)user;
    (void)src;
    memset(buf, 0, len);
    return 0;
}

static int32_t meddling(void *user, void *inout, const void *in, size_t count, fmi_datatype type)
{
    fmi_channel *channel = (fmi_channel *)user;
    double number;
    (void)inout;
    (void)in;
    (void)count;
    (void)type;
    STATUS(FMI_ERR_REENTRANT, fmi_channel_barrier(channel));
    STATUS(FMI_ERR_REENTRANT, fmi_channel_latency(channel, 1, 1, 1, &number));
    fmi_channel_destroy(channel);
    return 0;
}

static void reductions_that_meddle(uint32_t rank, uint32_t size, int32_t family, table *between, const char *job)
{
    end mine;
    fmi_channel *channel = channel_of(&mine, rank, size, family, between, job);
    fmi_op op;
    char byte = 0, result;
    OK(fmi_op_create(meddling, channel, NULL, FMI_OP_COMMUTATIVE | FMI_OP_ASSOCIATIVE, 0, &op));
    OK(fmi_channel_allreduce(channel, &byte, &result, 1, FMI_BYTE, op));
    OK(fmi_op_destroy(op));
    fmi_channel_destroy(channel);
    dropped_once(&mine);
}

static void entangled(void)
{
    fmi_channel_vtable functions = functions_of(FMI_CHANNEL_PEER_TO_PEER);
    end mine;
    memset(&mine, 0, sizeof mine);
    /* send and recv are enough, too. */
    functions.send_object = NULL;
    functions.recv_object = NULL;
    functions.send = entangled_send;
    functions.recv = no_recv;
    OK(fmi_channel_create_custom(&functions, &mine, 0, 2, "entangled", &mine.self));
    OK(fmi_channel_send(mine.self, "x", 1, 1));
    OK(fmi_channel_barrier(mine.self));
    fmi_channel_destroy(mine.self);
    CHECK(mine.dropped == 1);
}

/* Making. */

static void made_wrong(void)
{
    end mine;
    fmi_channel_vtable functions;
    fmi_channel *channel = (fmi_channel *)&mine;
    int drops = 0;
    memset(&mine, 0, sizeof mine);
#define MADE_WRONG(expected, named, change)                                                         \
    do {                                                                                            \
        functions = functions_of(FMI_CHANNEL_PEER_TO_PEER);                                         \
        change;                                                                                     \
        channel = (fmi_channel *)&mine;                                                             \
        REFUSED(expected, named, fmi_channel_create_custom(&functions, &mine, 0, 1, "wrong", &channel)); \
        CHECK(channel == NULL);                                                                     \
        drops++;                                                                                    \
        CHECK(mine.dropped == drops);                                                               \
    } while (0)
    MADE_WRONG(FMI_ERR_ARG, "family", functions.family = 0);
    MADE_WRONG(FMI_ERR_ARG, "family", functions.family = 4);
    MADE_WRONG(FMI_ERR_ARG, "flags", functions.flags = 2);
    MADE_WRONG(FMI_ERR_NULL, "send_object", functions.send_object = NULL);
    MADE_WRONG(FMI_ERR_NULL, "recv_object", functions.recv_object = NULL);
    MADE_WRONG(FMI_ERR_NULL, "send_object", functions.send_object = NULL; functions.send = whole_send);
    MADE_WRONG(FMI_ERR_NULL, "list_objects", functions = functions_of(FMI_CHANNEL_CLIENT_SERVER);
               functions.list_objects = NULL);
    MADE_WRONG(FMI_ERR_NULL, "scan", functions = functions_of(FMI_CHANNEL_WHOLE); functions.scan = NULL);
    functions = functions_of(FMI_CHANNEL_PEER_TO_PEER);
    STATUS(FMI_ERR_ARG, fmi_channel_create_custom(&functions, &mine, 1, 1, "wrong", &channel));
    STATUS(FMI_ERR_ARG, fmi_channel_create_custom(&functions, &mine, 0, 0, "wrong", &channel));
    STATUS(FMI_ERR_ARG, fmi_channel_create_custom(&functions, &mine, 0, 1, "\xff", &channel));
    REFUSED(FMI_ERR_NULL, "name", fmi_channel_create_custom(&functions, &mine, 0, 1, NULL, &channel));
    REFUSED(FMI_ERR_NULL, "out", fmi_channel_create_custom(&functions, &mine, 0, 1, "wrong", NULL));
    CHECK(mine.dropped == drops + 5);
    drops = mine.dropped;

    /* Without a table nobody knows how to drop. */
    REFUSED(FMI_ERR_NULL, "vtable", fmi_channel_create_custom(NULL, &mine, 0, 1, "wrong", &channel));
    functions.struct_size = 0;
    REFUSED(FMI_ERR_ARG, "struct_size", fmi_channel_create_custom(&functions, &mine, 0, 1, "wrong", &channel));
    functions.struct_size = sizeof functions - 1;
    REFUSED(FMI_ERR_ARG, "struct_size", fmi_channel_create_custom(&functions, &mine, 0, 1, "wrong", &channel));
    CHECK(mine.dropped == drops);
}

/* A program of an older version has a smaller table; one of a newer version a larger. */
static void tables_of_other_versions(void)
{
    struct {
        fmi_channel_vtable functions;
        void (*newer[4])(void);
    } larger;
    end mine;
    fmi_channel *channel;
    char byte = 1;
    memset(&mine, 0, sizeof mine);
    memset(&larger, 0xff, sizeof larger);
    larger.functions = functions_of(FMI_CHANNEL_PEER_TO_PEER);
    larger.functions.struct_size = sizeof larger;
    OK(fmi_channel_create_custom(&larger.functions, &mine, 0, 1, "larger", &channel));
    fmi_channel_destroy(channel);
    CHECK(mine.dropped == 1);

    larger.functions.struct_size = offsetof(fmi_channel_vtable, upload_object);
    memset((char *)&larger.functions + larger.functions.struct_size, 0xff,
        sizeof larger.functions - larger.functions.struct_size);
    OK(fmi_channel_create_custom(&larger.functions, &mine, 0, 1, "smaller", &channel));
    OK(fmi_channel_bcast(channel, &byte, 1, 0));
    fmi_channel_destroy(channel);
    CHECK(mine.dropped == 1);
}

/* Registering. */
static void registering(void)
{
    fmi_channel_vtable functions = functions_of(FMI_CHANNEL_PEER_TO_PEER);
    end first, second, other;
    fmi_channel *channels[3];
    fmi_comm *comm = lone_rank();
    int32_t one = 1, sum = 0;
    memset(&first, 0, sizeof first);
    memset(&second, 0, sizeof second);
    memset(&other, 0, sizeof other);
    OK(fmi_channel_create_custom(&functions, &first, 0, 1, "", &channels[0]));
    OK(fmi_channel_create_custom(&functions, &second, 0, 1, "", &channels[1]));
    OK(fmi_channel_create_custom(&functions, &other, 1, 2, "", &channels[2]));
    STATUS(FMI_ERR_ARG, fmi_comm_register_channel(comm, "mine", channels[2]));
    STATUS(FMI_ERR_ARG, fmi_comm_register_channel(comm, "", channels[0]));
    STATUS(FMI_ERR_ARG, fmi_comm_register_channel(comm, "\xff", channels[0]));
    REFUSED(FMI_ERR_NULL, "name", fmi_comm_register_channel(comm, NULL, channels[0]));
    REFUSED(FMI_ERR_NULL, "channel", fmi_comm_register_channel(comm, "mine", NULL));
    REFUSED(FMI_ERR_NULL, "comm", fmi_comm_register_channel(NULL, "mine", channels[0]));

    STATUS(FMI_ERR_ARG, fmi_comm_set_channel(comm, "mine"));
    OK(fmi_comm_register_channel(comm, "mine", channels[0]));
    OK(fmi_comm_set_channel(comm, "mine"));
    OK(fmi_allreduce(comm, &one, &sum, 1, FMI_INT32, FMI_SUM));
    CHECK(sum == 1 && first.finalized == 0);
    OK(fmi_comm_register_channel(comm, "mine", channels[1]));
    CHECK(first.finalized == 1 && first.dropped == 0);
    /* Built-in ones, too, are replaced. */
    OK(fmi_comm_register_channel(comm, "Memory", channels[0]));
    OK(fmi_comm_set_channel(comm, "Memory"));
    OK(fmi_barrier(comm));
    fmi_channel_destroy(channels[0]);
    fmi_channel_destroy(channels[1]);
    fmi_channel_destroy(channels[2]);
    CHECK(first.dropped == 0 && second.dropped == 0 && other.dropped == 1 && other.finalized == 0);
    fmi_comm_destroy(comm);
    CHECK(first.finalized == 2 && first.dropped == 1 && second.finalized == 1 && second.dropped == 1);
}

/* The model. */

static double asked(fmi_status (*ask)(const fmi_channel *, uint32_t, uint32_t, size_t, double *), fmi_channel *channel,
    uint32_t producers, uint32_t consumers, size_t bytes)
{
    double number = -1;
    OK(ask(channel, producers, consumers, bytes, &number));
    return number;
}

static double asked_of(fmi_status (*ask)(const fmi_channel *, int32_t, size_t, int32_t, double *), fmi_channel *channel,
    int32_t operation, size_t bytes, int32_t left_to_right)
{
    double number = -1;
    OK(ask(channel, operation, bytes, left_to_right, &number));
    return number;
}

static void near_to(double number, double expected) { CHECK(number > expected * 0.999999 && number < expected * 1.000001); }

static void predictions(void)
{
    fmi_channel_vtable functions = functions_of(FMI_CHANNEL_PEER_TO_PEER);
    end mine;
    fmi_channel *channel;
    double number = 7;
    memset(&mine, 0, sizeof mine);
    OK(fmi_channel_create_custom(&functions, &mine, 0, 4, "model", &channel));
    CHECK(asked(fmi_channel_latency, channel, 1, 1, 8) == 0);
    CHECK(asked_of(fmi_channel_operation_price, channel, FMI_OPERATION_BCAST, 8, 0) == 0);
    REFUSED(FMI_ERR_ARG, "operation", fmi_channel_operation_latency(channel, 0, 8, 0, &number));
    STATUS(FMI_ERR_ARG, fmi_channel_operation_latency(channel, FMI_OPERATION_CLOSE, 8, 0, &number));
    REFUSED(FMI_ERR_NULL, "out", fmi_channel_price(channel, 1, 1, 1, NULL));
    REFUSED(FMI_ERR_NULL, "channel", fmi_channel_price(NULL, 1, 1, 1, &number));
    CHECK(number == 7);
    fmi_channel_destroy(channel);

    functions.latency = latency;
    functions.price = double_price;
    OK(fmi_channel_create_custom(&functions, &mine, 0, 4, "model", &channel));
    CHECK(asked(fmi_channel_latency, channel, 1, 2, 3) == 321);
    CHECK(asked(fmi_channel_price, channel, 1, 2, 3) == 642);
    /* Two rounds of one message; three messages in all. */
    CHECK(asked_of(fmi_channel_operation_latency, channel, FMI_OPERATION_BCAST, 8, 0) == 2 * 811);
    CHECK(asked_of(fmi_channel_operation_price, channel, FMI_OPERATION_BCAST, 8, 0) == 3 * 2 * 811);
    fmi_channel_destroy(channel);

    functions.operation_latency = operation_number;
    functions.operation_price = operation_number;
    OK(fmi_channel_create_custom(&functions, &mine, 0, 4, "model", &channel));
    CHECK(asked_of(fmi_channel_operation_latency, channel, FMI_OPERATION_SCAN, 2, 5) == FMI_OPERATION_SCAN + 2000.5);
    CHECK(asked_of(fmi_channel_operation_price, channel, FMI_OPERATION_SEND, 0, 0) == FMI_OPERATION_SEND);
    fmi_channel_destroy(channel);
    CHECK(mine.dropped == 3);
}

static void built_in_channels(void)
{
    fmi_channel *channel = NULL;
    char byte = 1;
    int32_t found = 7;
    OK(fmi_channel_create("Direct", "{\"host\":\"192.0.2.1\",\"port\":\"1\"}", NULL, 0, 4, "built in", &channel));
    near_to(asked(fmi_channel_latency, channel, 1, 1, 400000), 0.34 + 1);
    near_to(asked(fmi_channel_price, channel, 1, 1, 400000), 0.0134 / 1000);
    STATUS(FMI_ERR_UNSUPPORTED, fmi_channel_upload(channel, "name", &byte, 1));
    fmi_channel_destroy(channel);

    OK(fmi_channel_create("S3", NULL, "{\"overhead\":10,\"bandwidth\":\"1\"}", 0, 4, "built in", &channel));
    CHECK(asked(fmi_channel_latency, channel, 1, 1, 1000) > 11);
    REFUSED(FMI_ERR_UNSUPPORTED, "S3", fmi_channel_barrier(channel));
    REFUSED(FMI_ERR_UNSUPPORTED, "S3", fmi_channel_download(channel, "name", &byte, 1, &found));
    CHECK(found == 7);
    fmi_channel_destroy(channel);

    OK(fmi_channel_create("Memory", "", "", 0, 1, "built in", &channel));
    OK(fmi_channel_send(channel, &byte, 1, 0));
    byte = 0;
    OK(fmi_channel_recv(channel, &byte, 1, 0));
    CHECK(byte == 1);
    OK(fmi_channel_barrier(channel));
    CHECK(asked(fmi_channel_latency, channel, 1, 1, 1000) == 0);
    fmi_channel_destroy(channel);

    REFUSED(FMI_ERR_ARG, "Pigeon", fmi_channel_create("Pigeon", NULL, NULL, 0, 1, "x", &channel));
    CHECK(channel == NULL);
    REFUSED(FMI_ERR_CONFIG, "params", fmi_channel_create("Direct", "[]", NULL, 0, 1, "x", &channel));
    REFUSED(FMI_ERR_CONFIG, "port", fmi_channel_create("Direct", "{\"port\":0}", NULL, 0, 1, "x", &channel));
    REFUSED(FMI_ERR_CONFIG, "overhead", fmi_channel_create("Direct", "", "{\"overhead\":-1}", 0, 1, "x", &channel));
    REFUSED(FMI_ERR_NULL, "kind", fmi_channel_create(NULL, NULL, NULL, 0, 1, "x", &channel));
    REFUSED(FMI_ERR_NULL, "name", fmi_channel_create("Direct", NULL, NULL, 0, 1, NULL, &channel));
    REFUSED(FMI_ERR_NULL, "out", fmi_channel_create("Direct", NULL, NULL, 0, 1, "x", NULL));
    STATUS(FMI_ERR_ARG, fmi_channel_create("Direct", NULL, NULL, 1, 1, "x", &channel));
    fmi_channel_destroy(NULL);
    REFUSED(FMI_ERR_NULL, "channel", fmi_channel_send(NULL, &byte, 1, 0));
    REFUSED(FMI_ERR_NULL, "channel", fmi_channel_close(NULL, 1));
    REFUSED(FMI_ERR_NULL, "channel", fmi_channel_list(NULL, NULL, NULL));
}

/* The objects of a store, as they are. */

static int32_t count_names(void *user, const char *name)
{
    int *count = (int *)user;
    CHECK(name[0] != 0);
    return ++*count == 2;
}

static void objects(void)
{
    table *between = new_table();
    end mine;
    fmi_channel *channel = channel_of(&mine, 0, 1, FMI_CHANNEL_CLIENT_SERVER, between, "objects");
    char buffer[8] = "", big[8] = "";
    int32_t found = 7;
    int count = 0;
    OK(fmi_channel_upload(channel, "a", "12345", 5));
    OK(fmi_channel_download(channel, "a", buffer, 3, &found));
    CHECK(found == 1 && strcmp(buffer, "123") == 0);
    OK(fmi_channel_download(channel, "a", big, 8, &found));
    CHECK(strcmp(big, "12345") == 0);
    OK(fmi_channel_download(channel, "b", buffer, 3, &found));
    CHECK(found == 0);
    OK(fmi_channel_upload(channel, "b", "1", 1));
    OK(fmi_channel_upload(channel, "c", "1", 1));
    /* The second visit ends it. */
    STATUS(FMI_ERR_CALLBACK, fmi_channel_list(channel, count_names, &count));
    CHECK(count == 2);
    REFUSED(FMI_ERR_NULL, "visit", fmi_channel_list(channel, NULL, NULL));
    REFUSED(FMI_ERR_NULL, "name", fmi_channel_delete(channel, NULL));
    REFUSED(FMI_ERR_NULL, "found", fmi_channel_download(channel, "a", buffer, 3, NULL));
    mine.failure = FMI_ERR_AUTH;
    STATUS(FMI_ERR_CALLBACK, fmi_channel_upload(channel, "d", "1", 1));
    CHECK(info_of(channel).cause == FMI_ERR_AUTH);
    mine.failure = 0;
    OK(fmi_channel_delete(channel, "a"));
    OK(fmi_channel_delete(channel, "a"));
    OK(fmi_channel_delete(channel, "b"));
    OK(fmi_channel_delete(channel, "c"));
    fmi_channel_destroy(channel);
    dropped_once(&mine);
    free_table(between);
}

/* What a whole channel is told of a reduction. */

static int32_t seen_flags;

static int32_t looking_allreduce(void *user, const void *send, void *recv, size_t len, const fmi_reduction *reduction)
{
    int32_t left[2] = {5, 6}, right[2] = {7, 8};
    (void)user;
    seen_flags = fmi_reduction_flags(reduction);
    OK(fmi_reduction_apply(reduction, left, right, sizeof left));
    REFUSED(FMI_ERR_ARG, "overlap", fmi_reduction_apply(reduction, left, (char *)left + 2, 6));
    STATUS(FMI_ERR_ARG, fmi_reduction_apply(reduction, left, right, 7));
    REFUSED(FMI_ERR_NULL, "reduction", fmi_reduction_apply(NULL, left, right, 8));
    REFUSED(FMI_ERR_NULL, "inout", fmi_reduction_apply(reduction, NULL, right, 8));
    CHECK(fmi_reduction_flags(NULL) == FMI_ERR_NULL);
    OK(fmi_reduction_apply(reduction, NULL, NULL, 0));
    memcpy(recv, left, len);
    (void)send;
    return 0;
}

static void reductions(void)
{
    fmi_channel_vtable functions = functions_of(FMI_CHANNEL_WHOLE);
    end mine;
    fmi_channel *channel;
    int32_t data[2] = {1, 2}, result[2];
    fmi_op op;
    memset(&mine, 0, sizeof mine);
    functions.allreduce = looking_allreduce;
    OK(fmi_channel_create_custom(&functions, &mine, 0, 1, "reductions", &channel));
    OK(fmi_channel_allreduce(channel, data, result, 2, FMI_INT32, FMI_SUM));
    CHECK(result[0] == 12 && result[1] == 14);
    CHECK(seen_flags == (FMI_OP_COMMUTATIVE | FMI_OP_ASSOCIATIVE | FMI_OP_ELEMENTWISE));
    OK(fmi_channel_allreduce(channel, data, result, 2, FMI_INT32, twice));
    CHECK(result[0] == 17 && result[1] == 20 && seen_flags == 0);
    OK(fmi_op_create(twice_left, NULL, NULL, FMI_OP_ASSOCIATIVE | FMI_OP_ELEMENTWISE, 0, &op));
    OK(fmi_channel_allreduce(channel, data, result, 2, FMI_INT32, op));
    CHECK(seen_flags == (FMI_OP_ASSOCIATIVE | FMI_OP_ELEMENTWISE));
    OK(fmi_op_destroy(op));
    fmi_channel_destroy(channel);
    CHECK(mine.dropped == 1);
}

int main(void)
{
    watchdog(100);
    OK(fmi_op_create(twice_left, NULL, NULL, 0, 0, &twice));
    every_family();
    job_of(2, FMI_CHANNEL_PEER_TO_PEER, failures);
    job_of(2, FMI_CHANNEL_CLIENT_SERVER, failures);
    job_of(2, FMI_CHANNEL_WHOLE, failures);
    job_of(2, FMI_CHANNEL_PEER_TO_PEER, lengths);
    job_of(2, FMI_CHANNEL_CLIENT_SERVER, lengths);
    job_of(2, FMI_CHANNEL_PEER_TO_PEER, reductions_that_meddle);
    entangled();
    made_wrong();
    tables_of_other_versions();
    registering();
    predictions();
    built_in_channels();
    objects();
    reductions();
    OK(fmi_op_destroy(twice));
    return 0;
}
