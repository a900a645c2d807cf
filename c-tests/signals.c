/* Signals: one whose handler writes to the wake-up pipe reaches a blocked call, any other ends neither the
 * call nor the job, SIGPIPE is never caused, and no disposition and no mask is changed. */
#include "host.h"

#include <pthread.h>

static volatile sig_atomic_t caught;
static volatile sig_atomic_t wakeup = -1;

static void handler(int number)
{
    int before = errno;
    (void)number;
    caught++;
    if (wakeup >= 0 && write((int)wakeup, "!", 1) < 0 && errno != EAGAIN) {
        abort();
    }
    errno = before;
}

static void handle(int number, int flags)
{
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = handler;
    action.sa_flags = flags;
    sigemptyset(&action.sa_mask);
    CHECK(sigaction(number, &action, NULL) == 0);
}

/* A thread that signals another. */
typedef struct {
    pthread_t thread, target;
    int number, count;
    long pause;
    volatile sig_atomic_t stop;
} Signaller;

static void *signaller(void *argument)
{
    Signaller *s = (Signaller *)argument;
    int i;
    for (i = 0; i != s->count && !s->stop; i++) {
        pause_ms(s->pause);
        pthread_kill(s->target, s->number);
    }
    return NULL;
}

/* `count` signals (-1 = until stopped) to this thread, and to no other. */
static void start_signals(Signaller *s, int number, int count, long pause)
{
    sigset_t all, before;
    s->target = pthread_self();
    s->number = number;
    s->count = count;
    s->pause = pause;
    s->stop = 0;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    CHECK(pthread_create(&s->thread, NULL, signaller, s) == 0);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

static void join(Signaller *s)
{
    CHECK(pthread_join(s->thread, NULL) == 0);
}

static const char *job(void)
{
    static char name[32];
    static int count;
    snprintf(name, sizeof name, "signals %d", count++);
    return name;
}

static int32_t answer;
static int asked;

static int32_t check(void *user)
{
    CHECK(user == &answer);
    asked++;
    return answer;
}

/* Rank 0 of 2; the other never comes. */
static fmi_comm *waiting_rank(const char *json, int with_interrupt)
{
    fmi_config *config;
    fmi_comm *comm;
    OK(fmi_config_create(&config));
    if (json != NULL) {
        OK(fmi_config_parse(config, json, strlen(json)));
    }
    if (with_interrupt) {
        OK(fmi_config_set_interrupt(config, check, &answer, NULL));
    }
    OK(fmi_comm_create_with(0, 2, job(), config, &comm));
    fmi_config_destroy(config);
    return comm;
}

static void a_handler_that_writes_interrupts(const char *json, int flags)
{
    fmi_comm *comm = waiting_rank(json, 0);
    Signaller s;
    unsigned char byte = 0x55;
    double start = seconds();
    OK(fmi_comm_set_timeout(comm, 60000));
    handle(SIGUSR1, flags);
    caught = 0;
    wakeup = fmi_comm_wakeup_fd(comm);
    CHECK(wakeup >= 0);
    /* More than one: on a busy machine the first may come before the call waits. */
    start_signals(&s, SIGUSR1, -1, 50);
    STATUS(FMI_ERR_INTERRUPTED, fmi_recv(comm, &byte, 1, 1));
    s.stop = 1;
    join(&s);
    wakeup = -1;
    CHECK(caught >= 1 && byte == 0x55);
    printf("interrupted after %.1f ms\n", 1e3 * (seconds() - start));
    CHECK(seconds() - start < 30);
    /* It goes for one call only. */
    OK(fmi_comm_set_timeout(comm, 20));
    CHECK(fmi_recv(comm, &byte, 1, 1) != FMI_ERR_INTERRUPTED);
    fmi_comm_destroy(comm);
}

/* Until the server has answered: what a call then waits for is the other rank. */
static void join_alone(fmi_comm *comm)
{
    unsigned char byte;
    int i;
    fmi_status status = FMI_ERR_CONNECT;
    OK(fmi_comm_set_timeout(comm, 300));
    for (i = 0; i < 100 && status == FMI_ERR_CONNECT; i++) {
        status = fmi_recv(comm, &byte, 1, 1);
    }
    CHECK(status == FMI_ERR_TIMEOUT);
}

static void the_interrupt_function_decides(const char *json)
{
    fmi_comm *comm = waiting_rank(json, 1);
    Signaller s;
    unsigned char byte;
    join_alone(comm);
    handle(SIGUSR1, 0);
    wakeup = fmi_comm_wakeup_fd(comm);

    answer = 0;
    asked = 0;
    OK(fmi_comm_set_timeout(comm, 400));
    start_signals(&s, SIGUSR1, 3, 50);
    STATUS(FMI_ERR_TIMEOUT, fmi_recv(comm, &byte, 1, 1));
    join(&s);
    CHECK(asked >= 1 && asked <= 3);

    answer = 1;
    OK(fmi_comm_set_timeout(comm, 60000));
    start_signals(&s, SIGUSR1, 1, 50);
    STATUS(FMI_ERR_INTERRUPTED, fmi_recv(comm, &byte, 1, 1));
    join(&s);
    wakeup = -1;
    fmi_comm_destroy(comm);
}

/* A rank that is a thread: answers each byte, after a while. */
typedef struct {
    const char *json, *job;
    int rounds;
    size_t size;
} Echo;

static fmi_comm *rank_of_two(uint32_t rank, const char *json, const char *name)
{
    fmi_comm *comm;
    OK(fmi_comm_create(rank, 2, json, name, 0, &comm));
    OK(fmi_comm_set_timeout(comm, 60000));
    return comm;
}

static void *echo(void *argument)
{
    const Echo *e = (const Echo *)argument;
    fmi_comm *comm = rank_of_two(1, e->json, e->job);
    unsigned char *data = (unsigned char *)malloc(e->size);
    int round;
    CHECK(data != NULL);
    for (round = 0; round < e->rounds; round++) {
        OK(fmi_recv(comm, data, e->size, 0));
        if (e->size == 1) {
            pause_ms(60);
        }
        OK(fmi_send(comm, data, e->size, 0));
    }
    free(data);
    fmi_comm_destroy(comm);
    return NULL;
}

/* Signals meet a call that blocks, and transfers; the results are as without. */
static void stray_signals_end_nothing(const char *json, int number, int flags, int rounds, size_t size)
{
    Echo e;
    Signaller s;
    pthread_t thread;
    sigset_t all, before;
    fmi_comm *comm;
    unsigned char *data = (unsigned char *)malloc(size), *back = (unsigned char *)malloc(size);
    int round;
    CHECK(data != NULL && back != NULL);
    e.json = json;
    e.job = job();
    e.rounds = rounds;
    e.size = size;
    handle(number, flags);
    caught = 0;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    CHECK(pthread_create(&thread, NULL, echo, &e) == 0);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    start_signals(&s, number, -1, 2);
    comm = rank_of_two(0, json, e.job);
    for (round = 0; round < rounds; round++) {
        memset(data, round + 1, size);
        memset(back, 0, size);
        OK(fmi_send(comm, data, size, 1));
        OK(fmi_recv(comm, back, size, 1));
        CHECK(memcmp(data, back, size) == 0);
    }
    s.stop = 1;
    join(&s);
    CHECK(caught > 0);
    fmi_comm_destroy(comm);
    CHECK(pthread_join(thread, NULL) == 0);
    free(data);
    free(back);
}

/* The same with the signal that a child's end is. */
static void a_child_ends_during_a_call(void)
{
    fmi_comm *comm = waiting_rank(MEMORY_CONFIG, 0);
    unsigned char byte;
    pid_t child;
    handle(SIGCHLD, 0);
    caught = 0;
    child = fork_child();
    if (child == 0) {
        pause_ms(50);
        child_is_done();
    }
    OK(fmi_comm_set_timeout(comm, 300));
    STATUS(FMI_ERR_TIMEOUT, fmi_recv(comm, &byte, 1, 1));
    CHECK(caught == 1);
    ENDS_WELL(child);
    fmi_comm_destroy(comm);
}

/* The server is gone, and is spoken to: the first words are answered by a reset, the next would raise the
 * signal. */
static void a_server_that_closed_raises_nothing(void)
{
    pid_t server = start_server();
    fmi_comm *comm = direct_rank(0, 2, "no server");
    unsigned char byte;
    int i;
    join_alone(comm);
    stop_server(server);
    for (i = 0; i < 3; i++) {
        OK(fmi_comm_abort(comm, 1));
        pause_ms(20);
    }
    CHECK(fmi_recv(comm, &byte, 1, 1) != FMI_OK);
    OK(fmi_comm_abort(comm, 1));
    fmi_comm_destroy(comm);
}

/* A peer that is killed, and one that leaves, while this rank computes. */
static void a_peer_that_closed_raises_nothing(int in_order)
{
    char text[1000] = { 0 };
    fmi_comm *comm;
    const char *name = job();
    fmi_status status = FMI_OK;
    int i;
    pid_t peer = fork_child();
    if (peer == 0) {
        comm = direct_rank(1, 2, name);
        check_sum(comm);
        if (in_order) {
            OK(fmi_comm_set_timeout(comm, 100));
            fmi_comm_destroy(comm);
        }
        _exit(0);
    }
    comm = direct_rank(0, 2, name);
    check_sum(comm);
    ENDS_WELL(peer);
    for (i = 0; i < 10000 && status == FMI_OK; i++) {
        status = fmi_send(comm, text, sizeof text, 1);
    }
    CHECK(status == (in_order ? FMI_ERR_PEER_LEFT : FMI_ERR_PEER_LOST));
    CHECK(fmi_send(comm, text, sizeof text, 1) == status);
    fmi_comm_destroy(comm);
}

/* What is logged has no reader. */
static void a_log_without_a_reader_raises_nothing(void)
{
    pid_t child = fork_child();
    if (child == 0) {
        int ends[2];
        sigset_t pending;
        fmi_comm *comm;
        CHECK(setenv("FMI_LOG", "debug", 1) == 0);
        comm = waiting_rank(NULL, 0);
        CHECK(pipe(ends) == 0 && dup2(ends[1], 2) == 2);
        close(ends[0]);
        join_alone(comm);
        fmi_comm_destroy(comm);
        sigpending(&pending);
        _exit(sigismember(&pending, SIGPIPE) ? 3 : 0);
    }
    ENDS_WELL(child);
}

/* A name that is looked up by a helper thread of the library. */
static void a_host_name_is_looked_up(void)
{
    fmi_comm *comm;
    unsigned char byte;
    CHECK(setenv("FMI_RENDEZVOUS", "no-such-host.invalid:1", 1) == 0);
    comm = direct_rank(0, 2, "lookup");
    OK(fmi_comm_set_timeout(comm, 200));
    STATUS(FMI_ERR_CONNECT, fmi_recv(comm, &byte, 1, 1));
    fmi_comm_destroy(comm);
}

typedef struct {
    void (*handlers[65])(int);
    int flags[65];
    sigset_t mask;
} Dispositions;

static Dispositions dispositions(void)
{
    Dispositions d;
    int number;
    memset(&d, 0, sizeof d);
    for (number = 1; number <= 64; number++) {
        struct sigaction action;
        memset(&action, 0, sizeof action);
        if (sigaction(number, NULL, &action) == 0) {
            d.handlers[number] = action.sa_handler;
            d.flags[number] = action.sa_flags;
        }
    }
    pthread_sigmask(SIG_SETMASK, NULL, &d.mask);
    return d;
}

static void check_unchanged(const Dispositions *before)
{
    Dispositions now = dispositions();
    int number;
    for (number = 1; number <= 64; number++) {
        CHECK(now.handlers[number] == before->handlers[number]);
        CHECK(now.flags[number] == before->flags[number]);
        CHECK(sigismember(&now.mask, number) == sigismember(&before->mask, number));
    }
}

int main(void)
{
    const char *channels[2] = { MEMORY_CONFIG, NULL };
    const int numbers[3] = { SIGUSR1, SIGALRM, SIGCHLD };
    const int flags[2] = { 0, SA_RESTART };
    Dispositions before;
    pid_t server = start_server();
    int i, k;

    /* As C programs are started; what starts the tests may ignore it. */
    CHECK(signal(SIGPIPE, SIG_DFL) != SIG_ERR);
    before = dispositions();
    a_server_that_closed_raises_nothing();
    stop_server(server);
    server = start_server();
    a_peer_that_closed_raises_nothing(0);
    a_peer_that_closed_raises_nothing(1);
    a_log_without_a_reader_raises_nothing();
    check_unchanged(&before);

    for (i = 0; i < 2; i++) {
        for (k = 0; k < 2; k++) {
            a_handler_that_writes_interrupts(channels[i], flags[k]);
        }
        the_interrupt_function_decides(channels[i]);
        for (k = 0; k < 6; k++) {
            stray_signals_end_nothing(channels[i], numbers[k % 3], flags[k / 3], 2, 1);
        }
        stray_signals_end_nothing(channels[i], SIGALRM, 0, 20, 2000000);
    }
    a_child_ends_during_a_call();

    /* Only this program's own handlers are new. */
    for (i = 0; i < 3; i++) {
        CHECK(signal(numbers[i], SIG_DFL) == handler);
    }
    CHECK(signal(SIGPIPE, SIG_DFL) == SIG_DFL);
    stop_server(server);

    /* Last, because a child would inherit the memory of the thread that looks up. */
    before = dispositions();
    a_host_name_is_looked_up();
    check_unchanged(&before);
    return 0;
}
