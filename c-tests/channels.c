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
    /* What was sent as letters, whose functions were called, and what is asked from inside one. */
    int sent, waited, overridden;
    size_t last_sent;
    fmi_comm *registered_with;
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
    mine->sent++;
    mine->last_sent = len;
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
    pthread_cond_broadcast(&between->changed);
    pthread_mutex_unlock(&between->mutex);
    return 0;
}

/* Waits for the peer to receive, as a channel without FMI_CHANNEL_FULL_DUPLEX may. */
static int32_t hand_over(void *user, const void *data, size_t len, uint32_t dest)
{
    end *mine = (end *)user;
    table *between = mine->between;
    int32_t failure = send_object(user, data, len, dest);
    pthread_mutex_lock(&between->mutex);
    while (between->waiting[mine->rank][dest] > 0) {
        pthread_cond_wait(&between->changed, &between->mutex);
    }
    pthread_mutex_unlock(&between->mutex);
    return failure;
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
    pthread_cond_broadcast(&between->changed);
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

static int32_t waiting_download(void *user, const char *name, void *buf, size_t capacity)
{
    end *mine = (end *)user;
    table *between = mine->between;
    int32_t found;
    mine->waited++;
    pthread_mutex_lock(&between->mutex);
    while (place_of(between, name) < 0) {
        pthread_cond_wait(&between->changed, &between->mutex);
    }
    pthread_mutex_unlock(&between->mutex);
    return download_object(user, name, buf, capacity, &found);
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

static fmi_channel *channel_with(const fmi_channel_vtable *functions, end *mine, uint32_t rank, uint32_t size,
    table *between, const char *job)
{
    fmi_channel *channel = NULL;
    memset(mine, 0, sizeof *mine);
    mine->between = between;
    mine->rank = rank;
    if (functions->family == FMI_CHANNEL_WHOLE) {
        OK(fmi_comm_create(rank, size, MEMORY_CONFIG, job, 0, &mine->inner));
    }
    OK(fmi_channel_create_custom(functions, mine, rank, size, job, &channel));
    mine->self = channel;
    return channel;
}

static fmi_channel *channel_of(end *mine, uint32_t rank, uint32_t size, int32_t family, table *between, const char *job)
{
    fmi_channel_vtable functions = functions_of(family);
    return channel_with(&functions, mine, rank, size, between, job);
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

/* The seven collectives, over the channel itself or over a communicator that it is registered with. */
#define EVERY_COLLECTIVE(handle, prefix)                                                            \
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
        CHECK(mine[2] == (int32_t)rank + 2);                                                        \
    } while (0)

/* And messages around a ring. */
#define EVERY_OPERATION(handle, prefix)                                                             \
    do {                                                                                            \
        int32_t mine[3] = {(int32_t)rank, 1, (int32_t)rank + 2}, other[3];                          \
        EVERY_COLLECTIVE(handle, prefix);                                                           \
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

/* An upload out of an upload. */
static int32_t nested_upload(void *user, const char *name, const void *data, size_t len)
{
    int32_t found;
    fmi_channel *self = ((end *)user)->self;
    STATUS(FMI_ERR_BUSY, fmi_channel_upload(self, name, data, len));
    STATUS(FMI_ERR_BUSY, fmi_channel_download(self, name, NULL, 0, &found));
    STATUS(FMI_ERR_BUSY, fmi_channel_delete(self, name));
    return 0;
}

static void nested(void)
{
    fmi_channel_vtable functions = functions_of(FMI_CHANNEL_CLIENT_SERVER);
    end mine;
    memset(&mine, 0, sizeof mine);
    functions.upload_object = nested_upload;
    OK(fmi_channel_create_custom(&functions, &mine, 0, 1, "nested", &mine.self));
    OK(fmi_channel_upload(mine.self, "a", "1", 1));
    fmi_channel_destroy(mine.self);
    CHECK(mine.dropped == 1);
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
    fmi_channel *channel = (fmi_channel *)user, *made = channel;
    fmi_channel_vtable functions = functions_of(FMI_CHANNEL_PEER_TO_PEER);
    end mine;
    double number;
    (void)inout;
    (void)in;
    (void)count;
    (void)type;
    STATUS(FMI_ERR_REENTRANT, fmi_channel_barrier(channel));
    STATUS(FMI_ERR_REENTRANT, fmi_channel_latency(channel, 1, 1, 1, &number));
    STATUS(FMI_ERR_REENTRANT, fmi_channel_upload(channel, "x", "x", 1));
    STATUS(FMI_ERR_REENTRANT, fmi_channel_set_timeout(channel, 1));
    STATUS(FMI_ERR_REENTRANT, fmi_channel_close(channel, 1));
    STATUS(FMI_ERR_REENTRANT, fmi_channel_create("Memory", NULL, NULL, 0, 1, "x", &made));
    CHECK(made == NULL);
    memset(&mine, 0, sizeof mine);
    made = channel;
    STATUS(FMI_ERR_REENTRANT, fmi_channel_create_custom(&functions, &mine, 0, 1, "x", &made));
    CHECK(made == NULL && mine.dropped == 1);
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
    count = 10;
    OK(fmi_channel_list(channel, count_names, &count));
    CHECK(count == 13);
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

static int32_t failing(void *user, void *inout, const void *in, size_t count, fmi_datatype type)
{
    (void)user;
    (void)inout;
    (void)in;
    (void)count;
    (void)type;
    return 1;
}

static int32_t whole_allreduce_of_itself(void *user, const void *send, void *recv, size_t len,
    const fmi_reduction *reduction)
{
    int32_t right[2] = {0, 0};
    fmi_status status;
    (void)user;
    (void)send;
    status = fmi_reduction_apply(reduction, recv, right, len);
    CHECK(status == FMI_ERR_CALLBACK);
    return status;
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
    /* A function that fails, fails the channel's, too. */
    functions.allreduce = whole_allreduce_of_itself;
    OK(fmi_op_create(failing, NULL, NULL, 0, 0, &op));
    fmi_channel_destroy(channel);
    OK(fmi_channel_create_custom(&functions, &mine, 0, 1, "reductions", &channel));
    STATUS(FMI_ERR_CALLBACK, fmi_channel_allreduce(channel, data, result, 2, FMI_INT32, op));
    OK(fmi_op_destroy(op));
    fmi_channel_destroy(channel);
    CHECK(mine.dropped == 2);
}

/* Without FMI_CHANNEL_FULL_DUPLEX no collective sends where the peer waits to send, too. */
static void hand_to_hand(uint32_t rank, uint32_t size, int32_t family, table *between, const char *job)
{
    fmi_channel_vtable functions = functions_of(family);
    end mine;
    fmi_channel *channel;
    functions.flags = 0;
    functions.send_object = hand_over;
    channel = channel_with(&functions, &mine, rank, size, between, job);
    EVERY_COLLECTIVE(channel, fmi_channel);
    fmi_channel_destroy(channel);
    dropped_once(&mine);
}

/* A message is a header and a payload, of which an empty one is left out; `send` is given the payload alone. */
static void letters(uint32_t rank, uint32_t size, int32_t family, table *between, const char *job)
{
    fmi_channel_vtable functions = functions_of(family);
    end mine;
    fmi_channel *channel = channel_with(&functions, &mine, rank, size, between, job);
    char three[3] = "ab";
    if (rank == 0) {
        OK(fmi_channel_send(channel, three, 3, 1));
        CHECK(mine.sent == 2 && mine.last_sent == 3);
        OK(fmi_channel_send(channel, NULL, 0, 1));
        CHECK(mine.sent == 3);
    } else {
        OK(fmi_channel_recv(channel, three, 3, 0));
        OK(fmi_channel_recv(channel, NULL, 0, 0));
    }
    mine.sent = 0;
    OK(fmi_channel_send(channel, three, 3, rank));
    OK(fmi_channel_recv(channel, three, 3, rank));
    CHECK(mine.sent == 0 && strcmp(three, "ab") == 0);
    fmi_channel_destroy(channel);
    dropped_once(&mine);
}

static int32_t counted_send(void *user, const void *data, size_t len, uint32_t dest)
{
    ((end *)user)->overridden++;
    return send_object(user, data, len, dest);
}

static int32_t counted_recv(void *user, void *buf, size_t len, uint32_t src)
{
    ((end *)user)->overridden++;
    return recv_object(user, buf, len, src);
}

static int32_t counted_barrier(void *user)
{
    ((end *)user)->overridden += 1000;
    return 0;
}

static void overrides(uint32_t rank, uint32_t size, int32_t family, table *between, const char *job)
{
    fmi_channel_vtable functions = functions_of(family);
    end mine;
    fmi_channel *channel;
    char three[3] = "ab";
    functions.send = counted_send;
    functions.recv = counted_recv;
    functions.send_object = NULL;
    functions.recv_object = NULL;
    functions.barrier = counted_barrier;
    channel = channel_with(&functions, &mine, rank, size, between, job);
    if (rank == 0) {
        OK(fmi_channel_send(channel, three, 3, 1));
        CHECK(mine.sent == 1 && mine.last_sent == 3);
    } else if (rank == 1) {
        OK(fmi_channel_recv(channel, three, 3, 0));
    }
    CHECK(mine.overridden == (rank < 2));
    OK(fmi_channel_bcast(channel, three, 3, 0));
    CHECK(mine.overridden > (rank < 2) && mine.overridden < 1000);
    OK(fmi_channel_barrier(channel));
    CHECK(mine.overridden > 1000);
    EVERY_COLLECTIVE(channel, fmi_channel);
    fmi_channel_destroy(channel);
    dropped_once(&mine);
}

/* A client-server channel that can wait. */
static void patience(uint32_t rank, uint32_t size, int32_t family, table *between, const char *job)
{
    fmi_channel_vtable functions = functions_of(family);
    end mine;
    fmi_channel *channel;
    functions.download = waiting_download;
    channel = channel_with(&functions, &mine, rank, size, between, job);
    EVERY_OPERATION(channel, fmi_channel);
    CHECK(mine.waited > 0);
    fmi_channel_destroy(channel);
    dropped_once(&mine);
}

/* The channel's deadline, then one that is set; what has timed out may be asked for again. */
static void deadlines(uint32_t rank, uint32_t size, int32_t family, table *between, const char *job)
{
    fmi_channel_vtable functions = functions_of(family);
    end mine;
    fmi_channel *channel;
    char byte = 3;
    if (rank == 0) {
        functions.timeout_ms = 60;
    }
    channel = channel_with(&functions, &mine, rank, size, between, job);
    CHECK(info_of(channel).status == FMI_OK);
    if (rank == 0) {
        STATUS(FMI_ERR_TIMEOUT, fmi_channel_recv(channel, &byte, 1, 1));
        CHECK(info_of(channel).status == FMI_ERR_TIMEOUT && info_of(channel).operation == FMI_OPERATION_RECV);
        CHECK(info_of(channel).peer == 1 && info_of(channel).waited_ms >= 60);
        CHECK(info_of(channel).waited_ms < 20000 && info_of(channel).channel[0] != 0);
        OK(fmi_channel_set_timeout(channel, 30));
        STATUS(FMI_ERR_TIMEOUT, fmi_channel_recv(channel, &byte, 1, 1));
        OK(fmi_channel_set_timeout(channel, 20000));
        OK(fmi_channel_send(channel, &byte, 1, 1));
        OK(fmi_channel_recv(channel, &byte, 1, 1));
        CHECK(byte == 4);
    } else {
        OK(fmi_channel_recv(channel, &byte, 1, 0));
        byte = 4;
        OK(fmi_channel_send(channel, &byte, 1, 0));
    }
    fmi_channel_destroy(channel);
    dropped_once(&mine);
}

/* A failure seen from the communicator, under the name that it has for the channel. */
static void registered_failures(uint32_t rank, uint32_t size, int32_t family, table *between, const char *job)
{
    end mine;
    fmi_channel *channel = channel_of(&mine, rank, size, family, between, job);
    fmi_comm *comm = comm_over(channel, rank, size);
    fmi_error_info info;
    char byte = 1;
    info.struct_size = sizeof info;
    OK(fmi_barrier(comm));
    mine.failure = FMI_ERR_AUTH;
    STATUS(FMI_ERR_CALLBACK, fmi_bcast(comm, &byte, 1, 0));
    OK(fmi_comm_error_info(comm, &info));
    CHECK(info.cause == FMI_ERR_AUTH && info.operation == FMI_OPERATION_BCAST && strcmp(info.channel, "mine") == 0);
    /* The channel by itself has not failed. */
    CHECK(info_of(channel).status == FMI_OK);
    mine.failure = 0;
    STATUS(FMI_ERR_POISONED, fmi_barrier(comm));
    OK(fmi_send(comm, &byte, 1, 1 - rank));
    OK(fmi_recv(comm, &byte, 1, 1 - rank));
    fmi_comm_destroy(comm);
    CHECK(mine.finalized == 1 && mine.dropped == 0);
    fmi_channel_destroy(channel);
    CHECK(mine.finalized == 1);
    dropped_once(&mine);
}

/* Every function that a family needs is named where it is missing; a table ends where it says. */
static void missing_functions(void)
{
    static const struct {
        int32_t family;
        const char *name;
        size_t offset;
    } needed[] = {
#define NEEDED(family, name) {family, "vtable->" #name " is NULL", offsetof(fmi_channel_vtable, name)}
        NEEDED(FMI_CHANNEL_PEER_TO_PEER, send_object), NEEDED(FMI_CHANNEL_PEER_TO_PEER, recv_object),
        NEEDED(FMI_CHANNEL_CLIENT_SERVER, upload_object), NEEDED(FMI_CHANNEL_CLIENT_SERVER, download_object),
        NEEDED(FMI_CHANNEL_CLIENT_SERVER, delete_object), NEEDED(FMI_CHANNEL_CLIENT_SERVER, list_objects),
        NEEDED(FMI_CHANNEL_WHOLE, send), NEEDED(FMI_CHANNEL_WHOLE, recv), NEEDED(FMI_CHANNEL_WHOLE, bcast),
        NEEDED(FMI_CHANNEL_WHOLE, barrier), NEEDED(FMI_CHANNEL_WHOLE, gather), NEEDED(FMI_CHANNEL_WHOLE, scatter),
        NEEDED(FMI_CHANNEL_WHOLE, reduce), NEEDED(FMI_CHANNEL_WHOLE, allreduce), NEEDED(FMI_CHANNEL_WHOLE, scan)
    };
    fmi_channel_vtable functions;
    fmi_channel *channel;
    end mine;
    size_t i;
    memset(&mine, 0, sizeof mine);
    for (i = 0; i < sizeof needed / sizeof *needed; i++) {
        functions = functions_of(needed[i].family);
        memset((char *)&functions + needed[i].offset, 0, sizeof functions.send);
        REFUSED(FMI_ERR_NULL, needed[i].name, fmi_channel_create_custom(&functions, &mine, 0, 1, "x", &channel));
        CHECK(channel == NULL && mine.dropped == (int)i + 1);
    }
    /* Before `drop` a table ends that cannot say how. */
    functions = functions_of(FMI_CHANNEL_WHOLE);
    mine.dropped = 0;
    for (i = 0; i < offsetof(fmi_channel_vtable, send_object); i++) {
        functions.struct_size = i;
        REFUSED(FMI_ERR_ARG, "struct_size", fmi_channel_create_custom(&functions, &mine, 0, 1, "x", &channel));
    }
    functions.struct_size = i;
    REFUSED(FMI_ERR_NULL, "send", fmi_channel_create_custom(&functions, &mine, 0, 1, "x", &channel));
    CHECK(mine.dropped == 0);
}

/* Calls every function with a handle that is none. */
static void no_channel(fmi_status expected, fmi_channel *none)
{
    char buf[8] = "";
    double number;
    int32_t found;
    fmi_error_info info;
    fmi_comm *comm = lone_rank();
    info.struct_size = sizeof info;
#define NONE(call) REFUSED(expected, "channel", call)
    NONE(fmi_channel_close(none, 1));
    NONE(fmi_channel_set_timeout(none, 1));
    NONE(fmi_comm_register_channel(comm, "x", none));
    NONE(fmi_channel_error_info(none, &info));
    NONE(fmi_channel_latency(none, 1, 1, 1, &number));
    NONE(fmi_channel_price(none, 1, 1, 1, &number));
    NONE(fmi_channel_operation_latency(none, FMI_OPERATION_SEND, 1, 0, &number));
    NONE(fmi_channel_operation_price(none, FMI_OPERATION_SEND, 1, 0, &number));
    NONE(fmi_channel_upload(none, "x", buf, 1));
    NONE(fmi_channel_download(none, "x", buf, 1, &found));
    NONE(fmi_channel_delete(none, "x"));
    NONE(fmi_channel_list(none, count_names, buf));
    NONE(fmi_channel_send(none, buf, 1, 0));
    NONE(fmi_channel_recv(none, buf, 1, 0));
    NONE(fmi_channel_bcast(none, buf, 1, 0));
    NONE(fmi_channel_barrier(none));
    NONE(fmi_channel_gather(none, buf, 1, buf + 1, 1, 0));
    NONE(fmi_channel_scatter(none, buf, 1, buf + 1, 1, 0));
    NONE(fmi_channel_reduce(none, buf, buf + 1, 1, FMI_BYTE, FMI_BOR, 0));
    NONE(fmi_channel_allreduce(none, buf, buf + 1, 1, FMI_BYTE, FMI_BOR));
    NONE(fmi_channel_scan(none, buf, buf + 1, 1, FMI_BYTE, FMI_BOR));
    fmi_channel_destroy(none);
    fmi_comm_destroy(comm);
}

static void wrong_pointers(void)
{
    fmi_channel_vtable functions = functions_of(FMI_CHANNEL_CLIENT_SERVER);
    table *between = new_table();
    end mine;
    fmi_channel *channel = channel_of(&mine, 0, 1, FMI_CHANNEL_CLIENT_SERVER, between, "pointers");
    union {
        double number;
        char bytes[2 * sizeof(fmi_channel_vtable)];
    } room;
    char *odd = room.bytes + 1;
    char byte;
    fmi_error_info info;
    no_channel(FMI_ERR_NULL, NULL);
    no_channel(FMI_ERR_ARG, (fmi_channel *)((char *)channel + 1));

    REFUSED(FMI_ERR_NULL, "buf", fmi_channel_send(channel, NULL, 1, 0));
    REFUSED(FMI_ERR_NULL, "buf", fmi_channel_recv(channel, NULL, 1, 0));
    REFUSED(FMI_ERR_NULL, "buf", fmi_channel_bcast(channel, NULL, 1, 0));
    REFUSED(FMI_ERR_NULL, "send", fmi_channel_gather(channel, NULL, 1, &byte, 1, 0));
    REFUSED(FMI_ERR_NULL, "recv", fmi_channel_gather(channel, "x", 1, NULL, 1, 0));
    REFUSED(FMI_ERR_NULL, "send", fmi_channel_scatter(channel, NULL, 1, &byte, 1, 0));
    REFUSED(FMI_ERR_NULL, "recv", fmi_channel_scatter(channel, "x", 1, NULL, 1, 0));
    REFUSED(FMI_ERR_NULL, "recv", fmi_channel_reduce(channel, "x", NULL, 1, FMI_BYTE, FMI_BOR, 0));
    REFUSED(FMI_ERR_NULL, "send", fmi_channel_allreduce(channel, NULL, &byte, 1, FMI_BYTE, FMI_BOR));
    REFUSED(FMI_ERR_NULL, "recv", fmi_channel_scan(channel, "x", NULL, 1, FMI_BYTE, FMI_BOR));
    REFUSED(FMI_ERR_ARG, "rank 1", fmi_channel_send(channel, "x", 1, 1));
    REFUSED(FMI_ERR_ARG, "1", fmi_channel_bcast(channel, &byte, 1, 1));
    REFUSED(FMI_ERR_NULL, "data", fmi_channel_upload(channel, "x", NULL, 1));
    REFUSED(FMI_ERR_NULL, "name", fmi_channel_upload(channel, NULL, "x", 1));
    REFUSED(FMI_ERR_NULL, "name", fmi_channel_download(channel, NULL, &byte, 1, (int32_t *)&room));
    REFUSED(FMI_ERR_NULL, "buf", fmi_channel_download(channel, "x", NULL, 1, (int32_t *)&room));
    STATUS(FMI_ERR_ARG, fmi_channel_delete(channel, "\xff"));
    REFUSED(FMI_ERR_ARG, "found", fmi_channel_download(channel, "x", &byte, 1, (int32_t *)odd));
    REFUSED(FMI_ERR_ARG, "out", fmi_channel_latency(channel, 1, 1, 1, (double *)odd));
    REFUSED(FMI_ERR_NULL, "out", fmi_channel_operation_price(channel, FMI_OPERATION_SEND, 1, 0, NULL));
    REFUSED(FMI_ERR_NULL, "out", fmi_channel_error_info(channel, NULL));
    REFUSED(FMI_ERR_ARG, "out", fmi_channel_error_info(channel, (fmi_error_info *)odd));
    info.struct_size = 0;
    STATUS(FMI_ERR_ARG, fmi_channel_error_info(channel, &info));
    REFUSED(FMI_ERR_ARG, "out", fmi_channel_create("Memory", NULL, NULL, 0, 1, "x", (fmi_channel **)odd));
    mine.dropped = 0;
    REFUSED(FMI_ERR_ARG, "out", fmi_channel_create_custom(&functions, &mine, 0, 1, "x", (fmi_channel **)odd));
    CHECK(mine.dropped == 1);
    REFUSED(FMI_ERR_ARG, "vtable", fmi_channel_create_custom((const fmi_channel_vtable *)odd, &mine, 0, 1, "x",
        (fmi_channel **)&room));
    CHECK(mine.dropped == 1);
    mine.dropped = 0;
    fmi_channel_destroy(channel);
    dropped_once(&mine);
    free_table(between);
}

/* The model of the library's channels, calculated by hand. */
static void built_in_predictions(void)
{
    fmi_channel *channel;
    OK(fmi_channel_create("Direct", NULL,
        "{\"bandwidth\":100,\"overhead\":1,\"transfer_price\":2,\"vm_price\":0.5,\"requests_per_hour\":1000,"
        "\"include_infrastructure_costs\":true}",
        0, 4, "model", &channel));
    /* Two rounds, 2 MB at 100 MB/s; 4 MB that leave and enter, and a thousandth of an hour. */
    near_to(asked(fmi_channel_latency, channel, 2, 1, 1000000), 2 * 1 + 20);
    near_to(asked(fmi_channel_price, channel, 2, 1, 1000000), 0.004 * 2 + 0.0005);
    near_to(asked_of(fmi_channel_operation_latency, channel, FMI_OPERATION_SEND, 1000000, 0), 1 + 10);
    near_to(asked_of(fmi_channel_operation_price, channel, FMI_OPERATION_SEND, 1000000, 0), 0.002 * 2 + 0.0005);
    fmi_channel_destroy(channel);

    OK(fmi_channel_create("Redis", NULL,
        "{\"bandwidth_single\":100,\"bandwidth_multiple\":250,\"overhead\":2,\"transfer_price\":0.5,"
        "\"instance_price\":0.2,\"requests_per_hour\":100,\"include_infrastructure_costs\":true}",
        0, 4, "model", &channel));
    /* Three readers share the server's bandwidth, one has that of a connection. */
    near_to(asked(fmi_channel_latency, channel, 1, 3, 1000000), 2 * 2 + 12);
    near_to(asked(fmi_channel_latency, channel, 1, 1, 1000000), 2 + 10);
    near_to(asked(fmi_channel_price, channel, 1, 3, 1000000), 0.004 * 0.5 + 0.002);
    STATUS(FMI_ERR_UNSUPPORTED, fmi_channel_barrier(channel));
    STATUS(FMI_ERR_UNSUPPORTED, fmi_channel_delete(channel, "x"));
    fmi_channel_destroy(channel);

    OK(fmi_channel_create("S3", NULL,
        "{\"bandwidth\":50,\"overhead\":10,\"transfer_price\":0.1,\"download_price\":0.001,\"upload_price\":0.01}",
        0, 4, "model", &channel));
    /* Two rounds, each with half of the 50 ms between two looks; two looks for each object. */
    near_to(asked(fmi_channel_latency, channel, 2, 2, 1000000), 2 * (10 + 25) + 20);
    near_to(asked(fmi_channel_price, channel, 2, 2, 1000000), 2 * 0.01 + 4 * 2 * 0.001 + 0.006 * 0.1);
    fmi_channel_destroy(channel);
}

/* What keeps no objects, or is not in this build, says so. */
static void unsupported(void)
{
    static const int32_t families[] = {FMI_CHANNEL_PEER_TO_PEER, FMI_CHANNEL_WHOLE};
    fmi_comm *comm = lone_rank();
    fmi_channel *channel;
    char byte = 0;
    int32_t found = 7;
    int i, names = 0;
    for (i = 0; i < 3; i++) {
        table *between = new_table();
        end mine;
        memset(&mine, 0, sizeof mine);
        if (i < 2) {
            channel = channel_of(&mine, 0, 1, families[i], between, "no store");
        } else {
            OK(fmi_channel_create("Memory", NULL, NULL, 0, 1, "no store", &channel));
        }
        STATUS(FMI_ERR_UNSUPPORTED, fmi_channel_upload(channel, "x", &byte, 1));
        STATUS(FMI_ERR_UNSUPPORTED, fmi_channel_download(channel, "x", &byte, 1, &found));
        STATUS(FMI_ERR_UNSUPPORTED, fmi_channel_delete(channel, "x"));
        STATUS(FMI_ERR_UNSUPPORTED, fmi_channel_list(channel, count_names, &names));
        CHECK(found == 7 && names == 0);
        fmi_channel_destroy(channel);
        fmi_comm_destroy(mine.inner);
        free_table(between);
    }
    OK(fmi_channel_create("Redis", NULL, NULL, 0, 1, "x", &channel));
    REFUSED(FMI_ERR_UNSUPPORTED, "Redis", fmi_comm_register_channel(comm, "mine", channel));
    fmi_channel_destroy(channel);
    OK(fmi_barrier(comm));
    fmi_comm_destroy(comm);
}

/* From inside a function of the channel: the channel and its communicator are busy, others are not. */
static int32_t asking_send(void *user, const void *data, size_t len, uint32_t dest)
{
    end *mine = (end *)user;
    fmi_comm *other = lone_rank();
    double number;
    (void)data;
    (void)len;
    (void)dest;
    if (mine->registered_with != NULL) {
        STATUS(FMI_ERR_BUSY, fmi_barrier(mine->registered_with));
    } else {
        char byte;
        STATUS(FMI_ERR_BUSY, fmi_channel_recv(mine->self, &byte, 1, 1));
        STATUS(FMI_ERR_BUSY, fmi_channel_barrier(mine->self));
        STATUS(FMI_ERR_BUSY, fmi_channel_close(mine->self, 1));
    }
    OK(fmi_channel_latency(mine->self, 1, 1, 1, &number));
    CHECK(number == 111);
    OK(fmi_barrier(other));
    fmi_comm_destroy(other);
    mine->overridden++;
    return 0;
}

static void busy_inside(void)
{
    fmi_channel_vtable functions = functions_of(FMI_CHANNEL_PEER_TO_PEER);
    end mine;
    memset(&mine, 0, sizeof mine);
    functions.send = asking_send;
    functions.recv = no_recv;
    functions.latency = latency;
    OK(fmi_channel_create_custom(&functions, &mine, 0, 2, "busy", &mine.self));
    OK(fmi_channel_send(mine.self, "x", 1, 1));
    mine.registered_with = comm_over(mine.self, 0, 2);
    OK(fmi_send(mine.registered_with, "x", 1, 1));
    CHECK(mine.overridden == 2);
    fmi_comm_destroy(mine.registered_with);
    fmi_channel_destroy(mine.self);
    CHECK(mine.dropped == 1 && mine.finalized == 2);
}

int main(void)
{
    uint32_t size;
    watchdog(100);
    OK(fmi_op_create(twice_left, NULL, NULL, 0, 0, &twice));
    every_family();
    job_of(2, FMI_CHANNEL_PEER_TO_PEER, failures);
    job_of(2, FMI_CHANNEL_CLIENT_SERVER, failures);
    job_of(2, FMI_CHANNEL_WHOLE, failures);
    job_of(2, FMI_CHANNEL_PEER_TO_PEER, lengths);
    job_of(2, FMI_CHANNEL_CLIENT_SERVER, lengths);
    job_of(2, FMI_CHANNEL_PEER_TO_PEER, reductions_that_meddle);
    for (size = 2; size <= MAX_RANKS; size++) {
        job_of(size, FMI_CHANNEL_PEER_TO_PEER, hand_to_hand);
        job_of(size, FMI_CHANNEL_PEER_TO_PEER, overrides);
        job_of(size, FMI_CHANNEL_CLIENT_SERVER, patience);
    }
    job_of(2, FMI_CHANNEL_PEER_TO_PEER, letters);
    job_of(2, FMI_CHANNEL_CLIENT_SERVER, deadlines);
    job_of(2, FMI_CHANNEL_PEER_TO_PEER, registered_failures);
    job_of(2, FMI_CHANNEL_CLIENT_SERVER, registered_failures);
    entangled();
    nested();
    busy_inside();
    made_wrong();
    missing_functions();
    wrong_pointers();
    tables_of_other_versions();
    registering();
    predictions();
    built_in_channels();
    built_in_predictions();
    unsupported();
    objects();
    reductions();
    OK(fmi_op_destroy(twice));
    return 0;
}
