/* The floor under message passing over TCP on this machine: two processes, one
 * loopback connection, TCP_NODELAY, and nothing but the bytes.
 *
 *   tcp_floor SPIN_US CONGESTION BYTES:ITERATIONS:BATCHES[:OFFSET]...
 *
 * Measures a ping-pong (time one way) and a full-duplex exchange (both sides
 * send and receive at once). A wait spins SPIN_US microseconds before it
 * sleeps, because to wake a sleeping process may cost ten times what the
 * transfer does: FMI spins too, and the comparison is fair only if both spin
 * equally long. CONGESTION is a congestion control, or "system" for what the
 * system gives.
 */
#define _GNU_SOURCE
#include "../c/bench.h"
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static double spin_us;

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

/* Returns at once while there is still time to spin, counted from the last
 * progress, else when one of the events has come. */
static void spin_or_sleep(int fd, short events, double last_progress)
{
    if (now_us() - last_progress < spin_us)
        return;
    struct pollfd wait = {.fd = fd, .events = events};
    if (poll(&wait, 1, -1) < 0 && errno != EINTR)
        fail("poll");
}

/* The bytes moved by a send or recv; 0 if it would block. */
static size_t moved(ssize_t result, const char *what)
{
    if (result > 0)
        return (size_t)result;
    if (result == 0) {
        fprintf(stderr, "%s: the peer has gone\n", what);
        exit(1);
    }
    if (errno != EAGAIN && errno != EINTR)
        fail(what);
    return 0;
}

/* Sends `out_len` bytes and receives `in_len` at the same time. One direction
 * alone is the case that the other length is 0. */
static void transfer(int fd, const char *out, size_t out_len, char *in, size_t in_len)
{
    size_t sent = 0, received = 0;
    double last_progress = now_us();
    while (sent < out_len || received < in_len) {
        size_t step = 0;
        if (sent < out_len)
            sent += step = moved(send(fd, out + sent, out_len - sent, MSG_DONTWAIT | MSG_NOSIGNAL), "send");
        if (received < in_len) {
            size_t got = moved(recv(fd, in + received, in_len - received, MSG_DONTWAIT), "recv");
            received += got;
            step += got;
        }
        if (step)
            last_progress = now_us();
        else
            spin_or_sleep(fd, (short)((sent < out_len ? POLLOUT : 0) | (received < in_len ? POLLIN : 0)),
                          last_progress);
    }
}

static void ping_pong(int fd, bool first, char *out, char *in, size_t bytes)
{
    if (first) {
        transfer(fd, out, bytes, NULL, 0);
        transfer(fd, NULL, 0, in, bytes);
    } else {
        transfer(fd, NULL, 0, in, bytes);
        transfer(fd, out, bytes, NULL, 0);
    }
}

static void exchange(int fd, bool first, char *out, char *in, size_t bytes)
{
    (void)first;
    transfer(fd, out, bytes, in, bytes);
}

/* Runs one pattern. What the parent measures goes to `batches`; the child adds
 * its sleeps in `child_sleeps`, which is memory that both share. */
static void measure(void (*pattern)(int, bool, char *, char *, size_t), int messages, int fd, bool parent,
                    struct plan plan, struct batch *batches, double *child_sleeps)
{
    char *out = plan_buffer(plan), *in = plan_buffer(plan);
    for (int i = 0; i < 10; i++)
        pattern(fd, parent, out, in, plan.bytes);
    for (int b = 0; b < plan.batches; b++) {
        double start = now_us(), slept = sleeps();
        for (int i = 0; i < plan.iterations; i++)
            pattern(fd, parent, out, in, plan.bytes);
        if (parent)
            batches[b] = (struct batch){(now_us() - start) / plan.iterations / messages, sleeps() - slept};
        else
            child_sleeps[b] = sleeps() - slept;
    }
}

static void set_options(int fd, const char *congestion)
{
    int on = 1;
    if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on))
        fail("TCP_NODELAY");
    if (strcmp(congestion, "system") &&
        setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, congestion, (socklen_t)strlen(congestion)))
        fail(congestion);
}

/* Connects two processes: true in the parent, false in the child. */
static bool connect_pair(const char *congestion, int *fd)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (listener < 0 || bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 1) ||
        getsockname(listener, (struct sockaddr *)&address, &length))
        fail("listen");
    pid_t child = fork();
    if (child < 0)
        fail("fork");
    if (child == 0) {
        *fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        set_options(*fd, congestion);
        if (connect(*fd, (struct sockaddr *)&address, sizeof address))
            fail("connect");
    } else {
        *fd = accept(listener, NULL, NULL);
        if (*fd < 0)
            fail("accept");
        set_options(*fd, congestion);
    }
    close(listener);
    return child != 0;
}

int main(int argc, char **argv)
{
    if (argc < 4) {
        fprintf(stderr, "usage: %s SPIN_US CONGESTION " PLAN_USAGE "...\n", argv[0]);
        return 2;
    }
    spin_us = atof(argv[1]);
    int most = 0;
    for (int i = 3; i < argc; i++)
        most = plan_parse(argv[i]).batches > most ? plan_parse(argv[i]).batches : most;
    size_t room = (size_t)most * sizeof(double);
    double *child_sleeps = mmap(NULL, 2 * room, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    struct batch *batches = calloc(2 * (size_t)most, sizeof *batches);
    if (child_sleeps == MAP_FAILED || !batches)
        fail("memory");

    int fd;
    bool parent = connect_pair(argv[2], &fd);
    char congestion[16] = "";
    socklen_t length = sizeof congestion - 1;
    getsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, congestion, &length);
    if (parent)
        printf("{\"program\":\"tcp_floor\",\"congestion\":\"%s\",\"spin_us\":%.0f,\"sizes\":[", congestion, spin_us);

    for (int i = 3; i < argc; i++) {
        struct plan plan = plan_parse(argv[i]);
        measure(ping_pong, 2, fd, parent, plan, batches, child_sleeps);
        measure(exchange, 1, fd, parent, plan, batches + most, child_sleeps + most);
        /* The child writes its last count before it answers here. */
        char token = 0;
        ping_pong(fd, parent, &token, &token, 1);
        if (!parent)
            continue;
        for (int b = 0; b < plan.batches; b++) {
            batches[b].parked += child_sleeps[b];
            batches[most + b].parked += child_sleeps[most + b];
        }
        printf("%s{\"bytes\":%zu,\"offset\":%zu,", i > 3 ? "," : "", plan.bytes, plan.offset);
        print_batches("pingpong", batches, plan.batches);
        printf(",");
        print_batches("exchange", batches + most, plan.batches);
        printf("}");
    }
    if (parent) {
        int status;
        if (wait(&status) < 0 || status != 0)
            return 1;
        printf("]}\n");
    }
    return 0;
}
