/* Operations of the user's own: handles, drop functions, what a reduction function may do. */
#include "check.h"

typedef struct {
    int calls, drops, answer;
    fmi_comm *comm;
    fmi_op self;
    fmi_status seen[32];
    int count;
} Context;

static int32_t add(void *user, void *inout, const void *in, size_t count, fmi_datatype type)
{
    Context *context = (Context *)user;
    size_t i;
    CHECK(type == FMI_INT32);
    CHECK((uintptr_t)inout % 16 == 0 && (uintptr_t)in % 16 == 0);
    context->calls++;
    for (i = 0; i < count; i++) {
        ((int32_t *)inout)[i] += ((const int32_t *)in)[i];
    }
    return context->answer;
}

static void drop(void *user)
{
    ((Context *)user)->drops++;
}

static void handles(void)
{
    Context context = { 0, 0, 0, NULL, 0, { 0 }, 0 };
    fmi_op first, second, op;
    int i;
    OK(fmi_op_create(add, &context, drop, 0, 0, &first));
    CHECK(first >= 256);
    OK(fmi_op_create(add, &context, drop, FMI_OP_COMMUTATIVE | FMI_OP_ASSOCIATIVE | FMI_OP_ELEMENTWISE, 4, &second));
    CHECK(second >= 256 && second != first);
    OK(fmi_op_destroy(first));
    CHECK(context.drops == 1);
    REFUSED(FMI_ERR_ARG, "destroyed", fmi_op_destroy(first));
    CHECK(context.drops == 1);
    /* A number does not come back soon. */
    for (i = 0; i < 1000; i++) {
        OK(fmi_op_create(add, NULL, NULL, 0, 0, &op));
        CHECK(op != first && op != second);
        OK(fmi_op_destroy(op));
    }
    REFUSED(FMI_ERR_ARG, "parameter op", fmi_op_destroy(first));
    OK(fmi_op_destroy(second));
    CHECK(context.drops == 2 && context.calls == 0);
    REFUSED(FMI_ERR_ARG, "built in", fmi_op_destroy(FMI_SUM));
    REFUSED(FMI_ERR_ARG, "parameter op", fmi_op_destroy(0));
}

/* Also when create fails, and with a NULL user. */
static void drops_exactly_once(void)
{
    Context context = { 0, 0, 0, NULL, 0, { 0 }, 0 };
    fmi_op op = 77;
    REFUSED(FMI_ERR_ARG, "flags", fmi_op_create(add, &context, drop, 8, 0, &op));
    CHECK(context.drops == 1 && op == 0);
    STATUS(FMI_ERR_NULL, fmi_op_create(NULL, &context, drop, 0, 0, &op));
    CHECK(context.drops == 2);
    STATUS(FMI_ERR_NULL, fmi_op_create(add, &context, drop, 0, 0, NULL));
    CHECK(context.drops == 3);
    REFUSED(FMI_ERR_ARG, "misaligned", fmi_op_create(add, &context, drop, 0, 0, (fmi_op *)(void *)((char *)&op + 1)));
    CHECK(context.drops == 4);
}

static void drop_that_makes_another(void *user)
{
    Context *context = (Context *)user;
    fmi_op op;
    context->drops++;
    OK(fmi_op_create(add, context, NULL, 0, 0, &op));
    OK(fmi_op_destroy(op));
}

/* No lock is held while a drop function runs. */
static void drops_outside_locks(void)
{
    Context context = { 0, 0, 0, NULL, 0, { 0 }, 0 };
    fmi_op op;
    OK(fmi_op_create(add, &context, drop_that_makes_another, 0, 0, &op));
    OK(fmi_op_destroy(op));
    CHECK(context.drops == 1);
}

static void stale_handles(void)
{
    Context context = { 0, 0, 0, NULL, 0, { 0 }, 0 };
    fmi_comm *comm = lone_rank();
    int32_t data[3] = { 1, 2, 3 }, result[3] = { 0, 0, 0 };
    fmi_op op;
    OK(fmi_op_create(add, &context, drop, 0, 0, &op));
    OK(fmi_allreduce(comm, data, result, 3, FMI_INT32, op));
    CHECK(result[0] == 1 && result[1] == 2 && result[2] == 3);
    OK(fmi_op_destroy(op));
    CHECK(context.drops == 1);
    result[0] = 0;
    REFUSED(FMI_ERR_ARG, "destroyed", fmi_allreduce(comm, data, result, 3, FMI_INT32, op));
    REFUSED(FMI_ERR_ARG, "destroyed", fmi_reduce(comm, data, result, 3, FMI_INT32, op, 0));
    REFUSED(FMI_ERR_ARG, "destroyed", fmi_scan(comm, data, result, 3, FMI_INT32, op));
    CHECK(result[0] == 0);
    fmi_comm_destroy(comm);
}

static void element_sizes(void)
{
    Context context = { 0, 0, 0, NULL, 0, { 0 }, 0 };
    fmi_comm *comm = lone_rank();
    int32_t data[3] = { 1, 2, 3 }, result[3] = { 0, 0, 0 };
    fmi_op op;
    OK(fmi_op_create(add, &context, drop, FMI_OP_ELEMENTWISE, 8, &op));
    STATUS(FMI_ERR_ARG, fmi_allreduce(comm, data, result, 3, FMI_INT32, op));
    CHECK(result[0] == 0);
    OK(fmi_allreduce(comm, data, result, 2, FMI_INT32, op));
    CHECK(result[0] == 1 && result[1] == 2 && result[2] == 0);
    OK(fmi_op_destroy(op));
    fmi_comm_destroy(comm);
}

#define SEE(call) (context->seen[context->count++] = (call))

static int32_t visit(void *user, const char *key, const char *value)
{
    (void)user, (void)key, (void)value;
    return 0;
}

/* Calls everything there is from inside a reduction. */
static int32_t calls_fmi(void *user, void *inout, const void *in, size_t count, fmi_datatype type)
{
    Context *context = (Context *)user;
    fmi_comm *comm = context->comm, *other;
    fmi_config *config;
    fmi_error_info info;
    fmi_op op = 77;
    uint32_t number = 77;
    int32_t a = 1, b = 2;
    char text[64];
    (void)inout, (void)in, (void)count, (void)type;
    if (context->calls++ > 0) {
        return 0;
    }
    other = comm;
    SEE(fmi_comm_create(0, 1, MEMORY_CONFIG, "n", 0, &other));
    CHECK(other == NULL);
    SEE(fmi_comm_create_from_env("n", &other));
    config = (fmi_config *)comm;
    SEE(fmi_config_create(&config));
    CHECK(config == NULL);
    SEE(fmi_config_each(NULL, visit, NULL));
    SEE(fmi_op_create(calls_fmi, context, drop, 0, 0, &op));
    CHECK(op == 0 && context->drops == 1);
    SEE(fmi_op_destroy(context->self));
    SEE(fmi_comm_close(comm, 1));
    SEE(fmi_comm_wakeup_fd(comm));
    SEE(fmi_comm_abort(comm, 1));
    SEE(fmi_comm_set_hint(comm, FMI_HINT_FAST));
    SEE(fmi_comm_set_timeout(comm, 1));
    SEE(fmi_comm_set_channel(comm, NULL));
    SEE(fmi_send(comm, &a, 4, 0));
    SEE(fmi_recv(comm, &b, 4, 0));
    SEE(fmi_sendrecv(comm, &a, 4, 0, &b, 4, 0));
    SEE(fmi_bcast(comm, &a, 4, 0));
    SEE(fmi_barrier(comm));
    SEE(fmi_gather(comm, &a, 4, &b, 4, 0));
    SEE(fmi_scatter(comm, &a, 4, &b, 4, 0));
    SEE(fmi_reduce(comm, &a, &b, 1, FMI_INT32, FMI_SUM, 0));
    SEE(fmi_allreduce(comm, &a, &b, 1, FMI_INT32, FMI_SUM));
    SEE(fmi_scan(comm, &a, &b, 1, FMI_INT32, FMI_SUM));
    CHECK(b == 2);
    CHECK(last_error_mentions("FMI_ERR_REENTRANT"));
    fmi_comm_destroy(comm);

    /* To ask is allowed. */
    info.struct_size = sizeof info;
    OK(fmi_comm_rank(comm, &number));
    CHECK(number < 2);
    OK(fmi_comm_size(comm, &number));
    CHECK(number == 2);
    OK(fmi_comm_error_info(comm, &info));
    CHECK(info.status == FMI_ERR_REENTRANT);
    CHECK(fmi_comm_error_message(comm, text, sizeof text) > 0);
    CHECK(fmi_version_number() > 0 && strlen(fmi_version_string()) > 0);
    CHECK(strcmp(fmi_status_name(FMI_OK), "FMI_OK") == 0);
    return 0;
}

#include <pthread.h>

/* The second of two ranks that are threads: a reduction function runs for two operands only. */
typedef struct {
    uint32_t rank;
    Context *context;
    fmi_status status;
} Rank;

static int32_t nothing(void *user, void *inout, const void *in, size_t count, fmi_datatype type)
{
    (void)user, (void)inout, (void)in, (void)count, (void)type;
    return 0;
}

static void *allreduce_with(void *argument)
{
    Rank *rank = (Rank *)argument;
    int32_t data = (int32_t)rank->rank + 1, result = 0;
    fmi_comm *comm;
    OK(fmi_comm_create(rank->rank, 2, MEMORY_CONFIG, "two", 0, &comm));
    OK(fmi_comm_set_timeout(comm, 20000));
    rank->context->comm = comm;
    rank->status = fmi_allreduce(comm, &data, &result, 1, FMI_INT32, rank->context->self);
    if (rank->status != FMI_OK) {
        fmi_error_info info;
        info.struct_size = sizeof info;
        OK(fmi_comm_error_info(comm, &info));
        CHECK(info.status == rank->status);
    }
    fmi_comm_destroy(comm);
    return NULL;
}

/* Two ranks, each with an operation of its own over its own context. */
static void on_two_ranks(fmi_reduce_fn fn, Context contexts[2], fmi_status statuses[2])
{
    pthread_t threads[2];
    Rank ranks[2];
    uint32_t r;
    for (r = 0; r < 2; r++) {
        OK(fmi_op_create(fn, &contexts[r], NULL, FMI_OP_COMMUTATIVE | FMI_OP_ASSOCIATIVE, 0, &contexts[r].self));
        ranks[r].rank = r;
        ranks[r].context = &contexts[r];
        ranks[r].status = FMI_OK;
    }
    for (r = 0; r < 2; r++) {
        CHECK(pthread_create(&threads[r], NULL, allreduce_with, &ranks[r]) == 0);
    }
    for (r = 0; r < 2; r++) {
        CHECK(pthread_join(threads[r], NULL) == 0);
        statuses[r] = ranks[r].status;
        OK(fmi_op_destroy(contexts[r].self));
    }
}

static void reentrancy(void)
{
    static Context contexts[2];
    fmi_status statuses[2];
    int r, i;
    on_two_ranks(calls_fmi, contexts, statuses);
    CHECK(statuses[0] == FMI_OK && statuses[1] == FMI_OK);
    CHECK(contexts[0].calls + contexts[1].calls > 0);
    for (r = 0; r < 2; r++) {
        CHECK(contexts[r].calls == 0 || contexts[r].count == 22);
        for (i = 0; i < contexts[r].count; i++) {
            if (contexts[r].seen[i] != FMI_ERR_REENTRANT) {
                fprintf(stderr, "call %d gave %s\n", i, fmi_status_name(contexts[r].seen[i]));
            }
            CHECK(contexts[r].seen[i] == FMI_ERR_REENTRANT);
        }
    }
}

/* Other than 0 = failed; at least one rank sees it so, no rank a success. */
static void failing_function(void)
{
    static Context contexts[2];
    fmi_status statuses[2];
    int r;
    contexts[0].answer = contexts[1].answer = 42;
    on_two_ranks(add, contexts, statuses);
    CHECK(statuses[0] == FMI_ERR_CALLBACK || statuses[1] == FMI_ERR_CALLBACK);
    for (r = 0; r < 2; r++) {
        CHECK(statuses[r] == FMI_ERR_CALLBACK || statuses[r] == FMI_ERR_ABORTED || statuses[r] == FMI_ERR_POISONED);
    }
}

/* After a reduction the thread may call FMI again: reentrancy() destroys communicators. */
static void afterwards(void)
{
    fmi_op op;
    OK(fmi_op_create(nothing, NULL, NULL, 0, 0, &op));
    OK(fmi_op_destroy(op));
}

int main(void)
{
    watchdog(120);
    handles();
    drops_exactly_once();
    drops_outside_locks();
    stale_handles();
    element_sizes();
    reentrancy();
    failing_function();
    afterwards();
    return 0;
}
