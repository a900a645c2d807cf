/* Ping-pong (time one way) and full-duplex exchange through FMI's C API: the
 * same loops as benches/peers/tcp_floor.c, so that the two can be compared.
 *
 *   fmi run -n 2 -- pingpong BYTES:ITERATIONS:BATCHES[:OFFSET]...
 */
#define _GNU_SOURCE
#include "bench.h"
#include <fmi.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <sys/socket.h>

static fmi_comm *comm;

static void check(fmi_status status)
{
    if (status == FMI_OK)
        return;
    char message[512];
    fmi_last_error_message(message, sizeof message);
    fprintf(stderr, "pingpong: %s: %s\n", fmi_status_name(status), message);
    exit(1);
}

static void ping_pong(uint32_t rank, char *out, char *in, size_t bytes)
{
    if (rank == 0) {
        check(fmi_send(comm, out, bytes, 1));
        check(fmi_recv(comm, in, bytes, 1));
    } else {
        check(fmi_recv(comm, in, bytes, 0));
        check(fmi_send(comm, out, bytes, 0));
    }
}

static void exchange(uint32_t rank, char *out, char *in, size_t bytes)
{
    check(fmi_sendrecv(comm, out, bytes, 1 - rank, in, bytes, 1 - rank));
}

/* Runs one pattern; at rank 0 `batches` gets its times and the sleeps of both. */
static void measure(void (*pattern)(uint32_t, char *, char *, size_t), int messages, uint32_t rank, struct plan plan,
                    struct batch *batches)
{
    size_t slept_len = (size_t)plan.batches * sizeof(double);
    char *out = plan_buffer(plan), *in = plan_buffer(plan);
    double *slept = malloc(slept_len), *all_slept = malloc(2 * slept_len);
    if (!slept || !all_slept)
        abort();
    for (int i = 0; i < 10; i++)
        pattern(rank, out, in, plan.bytes);
    for (int b = 0; b < plan.batches; b++) {
        double start = now_us(), before = sleeps();
        for (int i = 0; i < plan.iterations; i++)
            pattern(rank, out, in, plan.bytes);
        batches[b].us = (now_us() - start) / plan.iterations / messages;
        slept[b] = sleeps() - before;
    }
    check(fmi_gather(comm, slept, slept_len, all_slept, 2 * slept_len, 0));
    for (int b = 0; b < plan.batches && rank == 0; b++)
        batches[b].parked = all_slept[b] + all_slept[plan.batches + b];
    free(slept);
    free(all_slept);
}

/* The congestion control of the TCP socket that has carried most: the link to
 * the other rank. Asked of the kernel, not of FMI, because what is in force may
 * differ from what was configured. */
static void congestion_in_force(char name[16])
{
    uint64_t most = 0;
    strcpy(name, "none");
    for (int fd = 0; fd < 1024; fd++) {
        struct tcp_info info = {0};
        char found[16] = "";
        socklen_t info_len = sizeof info, found_len = sizeof found - 1;
        if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &info_len) || info.tcpi_bytes_acked <= most)
            continue;
        if (getsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, found, &found_len))
            continue;
        most = info.tcpi_bytes_acked;
        memcpy(name, found, sizeof found);
    }
}

int main(int argc, char **argv)
{
    uint32_t rank, size;
    check(fmi_comm_create_from_env("pingpong", &comm));
    check(fmi_comm_rank(comm, &rank));
    check(fmi_comm_size(comm, &size));
    if (size != 2 || argc < 2) {
        fprintf(stderr, "usage: fmi run -n 2 -- %s " PLAN_USAGE "...\n", argv[0]);
        return 2;
    }

    bool first = rank == 0;
    const char *wait = getenv("FMI_WAIT");
    for (int i = 1; i < argc; i++) {
        struct plan plan = plan_parse(argv[i]);
        struct batch *batches = calloc(2 * (size_t)plan.batches, sizeof *batches);
        if (!batches)
            abort();
        measure(ping_pong, 2, rank, plan, batches);
        measure(exchange, 1, rank, plan, batches + plan.batches);
        if (rank == 0) {
            if (first) {
                char congestion[16];
                congestion_in_force(congestion);
                printf("{\"program\":\"fmi\",\"version\":\"%s\",\"congestion\":\"%s\",\"wait\":\"%s\",\"sizes\":[",
                       fmi_version_string(), congestion, wait ? wait : "auto");
                first = false;
            } else {
                printf(",");
            }
            printf("{\"bytes\":%zu,\"offset\":%zu,", plan.bytes, plan.offset);
            print_batches("pingpong", batches, plan.batches);
            printf(",");
            print_batches("exchange", batches + plan.batches, plan.batches);
            printf("}");
        }
        free(batches);
    }
    if (rank == 0)
        printf("]}\n");
    fmi_comm_destroy(comm);
    return 0;
}
