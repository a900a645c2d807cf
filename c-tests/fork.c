/* Forks: what a child may do with the parent's communicators, and with its own.
 *
 *   ./fork [--one-thread]    for valgrind, to which the memory of a thread that a child has not is lost */
#include "host.h"

#include <pthread.h>

/* Every call on a communicator of the parent's: refused, or a question that may always be asked. */
static void refuses_everything(fmi_comm *comm)
{
    fmi_error_info info;
    int32_t in = 1, out = 0;
    uint32_t number = 77;

    STATUS(FMI_ERR_FORKED, fmi_send(comm, &in, sizeof in, 0));
    STATUS(FMI_ERR_FORKED, fmi_recv(comm, &out, sizeof out, 0));
    STATUS(FMI_ERR_FORKED, fmi_sendrecv(comm, &in, sizeof in, 0, &out, sizeof out, 0));
    STATUS(FMI_ERR_FORKED, fmi_bcast(comm, &in, sizeof in, 0));
    STATUS(FMI_ERR_FORKED, fmi_barrier(comm));
    STATUS(FMI_ERR_FORKED, fmi_gather(comm, &in, sizeof in, &out, sizeof out, 0));
    STATUS(FMI_ERR_FORKED, fmi_scatter(comm, &in, sizeof in, &out, sizeof out, 0));
    STATUS(FMI_ERR_FORKED, fmi_reduce(comm, &in, &out, 1, FMI_INT32, FMI_SUM, 0));
    STATUS(FMI_ERR_FORKED, fmi_allreduce(comm, &in, &out, 1, FMI_INT32, FMI_SUM));
    STATUS(FMI_ERR_FORKED, fmi_scan(comm, &in, &out, 1, FMI_INT32, FMI_SUM));
    STATUS(FMI_ERR_FORKED, fmi_comm_close(comm, 1000));
    STATUS(FMI_ERR_FORKED, fmi_comm_abort(comm, 1));
    STATUS(FMI_ERR_FORKED, fmi_comm_set_hint(comm, FMI_HINT_FAST));
    STATUS(FMI_ERR_FORKED, fmi_comm_set_timeout(comm, 1000));
    STATUS(FMI_ERR_FORKED, fmi_comm_set_channel(comm, NULL));
    CHECK(fmi_comm_wakeup_fd(comm) == FMI_ERR_FORKED);
    CHECK(last_error_mentions("parent"));
    CHECK(in == 1 && out == 0);

    OK(fmi_comm_rank(comm, &number));
    CHECK(number == 0);
    OK(fmi_comm_size(comm, &number));
    CHECK(number > 0);
    memset(&info, 0, sizeof info);
    info.struct_size = sizeof info;
    OK(fmi_comm_error_info(comm, &info));
    CHECK(info.status == FMI_ERR_FORKED);
    CHECK(fmi_comm_error_message(comm, NULL, 0) > 0);
}

/* The child's own descriptors take the numbers of the parent's communicators, and stay open. */
static void destroys_nothing_but_memory(fmi_comm *first, fmi_comm *second)
{
    int own[20][2], i;
    for (i = 0; i < 20; i++) {
        CHECK(pipe(own[i]) == 0);
    }
    fmi_comm_destroy(first);
    fmi_comm_destroy(second);
    for (i = 0; i < 20; i++) {
        CHECK(write(own[i][1], "x", 1) == 1);
        CHECK(close(own[i][0]) == 0 && close(own[i][1]) == 0);
    }
}

static void a_child_is_refused(void)
{
    fmi_comm *memory = lone_rank(), *direct = direct_rank(0, 2, "refused");
    pid_t rank = fork_child(), child;
    if (rank == 0) {
        refuses_everything(direct);
        fmi_comm_destroy(direct);
        fmi_comm_destroy(memory);
        direct = direct_rank(1, 2, "refused");
        check_sum(direct);
        check_sum(direct);
        fmi_comm_destroy(direct);
        child_is_done();
    }
    check_sum(direct);
    /* Now there are connections. */
    child = fork_child();
    if (child == 0) {
        refuses_everything(memory);
        refuses_everything(direct);
        destroys_nothing_but_memory(memory, direct);
        child_is_done();
    }
    ENDS_WELL(child);
    check_sum(direct);
    check_sum(memory);
    fmi_comm_destroy(direct);
    fmi_comm_destroy(memory);
    ENDS_WELL(rank);
}

/* A parent that uses the library makes ranks, which make ranks in their turn. What a child inherits and
 * does not destroy stays in these, by depth: valgrind finds it there. */
static fmi_comm *ranks[3], *lone[4];

static void generation(fmi_comm *parents, int depth)
{
    char job[32];
    pid_t children[3];
    uint32_t rank;
    snprintf(job, sizeof job, "generation %d", depth);
    for (rank = 0; rank < 3; rank++) {
        children[rank] = fork_child();
        if (children[rank] == 0) {
            lone[depth] = lone_rank();
            STATUS(FMI_ERR_FORKED, fmi_barrier(parents));
            ranks[depth] = direct_rank(rank, 3, job);
            check_sum(ranks[depth]);
            if (depth < 2 && rank == 1) {
                generation(ranks[depth], depth + 1);
            }
            check_sum(ranks[depth]);
            check_sum(lone[depth]);
            fmi_comm_destroy(ranks[depth]);
            fmi_comm_destroy(lone[depth]);
            if (depth > 0) {
                fmi_comm_destroy(parents);
            }
            child_is_done();
        }
    }
    for (rank = 0; rank < 3; rank++) {
        ENDS_WELL(children[rank]);
    }
}

static int32_t add(void *user, void *inout, const void *in, size_t count, fmi_datatype type)
{
    size_t i;
    CHECK(user == NULL && type == FMI_INT32);
    for (i = 0; i < count; i++) {
        ((int32_t *)inout)[i] += ((const int32_t *)in)[i];
    }
    return 0;
}

static volatile int stop;

static void *makes_operations(void *argument)
{
    fmi_op op;
    while (!stop) {
        OK(fmi_op_create(add, NULL, NULL, 0, 0, &op));
        OK(fmi_op_destroy(op));
    }
    return argument;
}

/* A child has the parent's operations, and may make and destroy some, whatever another thread of the parent
 * was doing with its own. */
static void operations_are_inherited(void)
{
    pthread_t thread;
    fmi_op parents, own;
    int round;
    OK(fmi_op_create(add, NULL, NULL, 0, 0, &parents));
    CHECK(pthread_create(&thread, NULL, makes_operations, NULL) == 0);
    for (round = 0; round < 100; round++) {
        pid_t child = fork_child();
        if (child == 0) {
            fmi_comm *comm = lone_rank();
            int32_t in = 3, out = 0;
            watchdog(60);
            OK(fmi_op_create(add, NULL, NULL, 0, 0, &own));
            OK(fmi_allreduce(comm, &in, &out, 1, FMI_INT32, own));
            OK(fmi_allreduce(comm, &in, &out, 1, FMI_INT32, parents));
            CHECK(out == 3);
            OK(fmi_op_destroy(own));
            OK(fmi_op_destroy(parents));
            fmi_comm_destroy(comm);
            child_is_done();
        }
        ENDS_WELL(child);
    }
    stop = 1;
    CHECK(pthread_join(thread, NULL) == 0);
    OK(fmi_op_destroy(parents));
}

/* The interrupt function of a blocked call forks: the call ends in the child, and goes on in the parent. */
static pid_t asked_child = -1;

static int32_t forks(void *user)
{
    CHECK(user == NULL);
    if (asked_child < 0) {
        asked_child = fork_child();
    }
    return 0;
}

static void a_function_that_is_called_may_fork(void)
{
    fmi_config *config;
    static fmi_comm *comm;
    unsigned char byte = 1;
    fmi_status status;
    pid_t peer = fork_child();
    if (peer == 0) {
        comm = direct_rank(1, 2, "asks");
        check_sum(comm);
        pause_ms(300);
        OK(fmi_send(comm, &byte, 1, 0));
        fmi_comm_destroy(comm);
        child_is_done();
    }
    OK(fmi_config_create(&config));
    OK(fmi_config_set_interrupt(config, forks, NULL, NULL));
    OK(fmi_comm_create_with(0, 2, "asks", config, &comm));
    fmi_config_destroy(config);
    OK(fmi_comm_set_timeout(comm, 30000));
    check_sum(comm);
    CHECK(write(fmi_comm_wakeup_fd(comm), "!", 1) == 1);
    status = fmi_recv(comm, &byte, 1, 1);
    if (asked_child == 0) {
        CHECK(status == FMI_ERR_FORKED);
        fmi_comm_destroy(comm);
        child_is_done();
    }
    CHECK(status == FMI_OK && asked_child > 0);
    ENDS_WELL(asked_child);
    fmi_comm_destroy(comm);
    ENDS_WELL(peer);
}

/* A rank forks a helper and is killed: its peer hears of it while the helper lives. */
static void a_helper_keeps_nothing_open(void)
{
    static fmi_comm *comm;
    int ends[2];
    pid_t rank, helper = 0;
    unsigned char byte;
    double start;
    CHECK(pipe(ends) == 0);
    rank = fork_child();
    if (rank == 0) {
        comm = direct_rank(1, 2, "helper");
        check_sum(comm);
        helper = fork();
        CHECK(helper >= 0);
        if (helper == 0) {
            pause_ms(60000);
            child_is_done();
        }
        CHECK(write(ends[1], &helper, sizeof helper) == (ssize_t)sizeof helper);
        raise(SIGKILL);
    }
    comm = direct_rank(0, 2, "helper");
    check_sum(comm);
    CHECK(read(ends[0], &helper, sizeof helper) == (ssize_t)sizeof helper);
    start = seconds();
    STATUS(FMI_ERR_PEER_LOST, fmi_recv(comm, &byte, 1, 1));
    printf("lost after %.1f ms\n", 1e3 * (seconds() - start));
    CHECK(kill(helper, SIGKILL) == 0);
    CHECK(status_of(rank) == SIGKILL);
    fmi_comm_destroy(comm);
    close(ends[0]);
    close(ends[1]);
}

int main(int count, char **arguments)
{
    pid_t server = start_server();
    watchdog(200);
    lone[3] = lone_rank();
    check_sum(lone[3]);
    a_child_is_refused();
    generation(lone[3], 0);
    if (count < 2 || strcmp(arguments[1], "--one-thread") != 0) {
        operations_are_inherited();
    }
    a_function_that_is_called_may_fork();
    a_helper_keeps_nothing_open();
    check_sum(lone[3]);
    fmi_comm_destroy(lone[3]);
    stop_server(server);
    return 0;
}
