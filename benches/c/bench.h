/* What the benchmarks share: the clock, the count of waits that slept, the
 * list of what to measure, and the printing of a series as JSON.
 *
 * A benchmark prints one line of JSON with every single batch in it; medians
 * and comparisons are the business of scripts/bench.py.
 */
#ifndef FMI_BENCH_H
#define FMI_BENCH_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

/* `batches` times `iterations` messages of `bytes`; each batch is timed.
 *
 * The buffers begin `offset` bytes behind a page boundary. Both sides of a
 * comparison must have the same: on some processors the kernel copies up to
 * four times slower to a buffer that is not aligned to 32 bytes (AMD EPYC,
 * 1 MiB: 115 us one way at offset 0 or 32, 415 us at 8 or 16). 16 is what
 * glibc's malloc gives for large blocks. */
struct plan {
    size_t bytes;
    int iterations;
    int batches;
    size_t offset;
};

/* One timed batch. */
struct batch {
    double us;     /* per message (ping-pong: one way) */
    double parked; /* waits that slept, on both sides */
};

static inline double now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

/* How often this process has gone to sleep by itself. A wait that was over
 * before it slept does not count, nor does sched_yield. */
static inline double sleeps(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)usage.ru_nvcsw;
}

#define PLAN_USAGE "BYTES:ITERATIONS:BATCHES[:OFFSET]"

/* Reads a plan as PLAN_USAGE states, or ends the program. */
static inline struct plan plan_parse(const char *text)
{
    struct plan plan = {0};
    int fields = sscanf(text, "%zu:%d:%d:%zu", &plan.bytes, &plan.iterations, &plan.batches, &plan.offset);
    if (fields < 3 || plan.iterations < 1 || plan.batches < 1 || plan.offset >= 4096) {
        fprintf(stderr, "not " PLAN_USAGE ": %s\n", text);
        exit(2);
    }
    return plan;
}

/* A buffer for the plan, its pages touched. It lives as long as the program. */
static inline char *plan_buffer(struct plan plan)
{
    size_t room = (plan.offset + plan.bytes + 4095) / 4096 * 4096;
    char *pages = aligned_alloc(4096, room ? room : 4096);
    if (!pages) {
        perror("aligned_alloc");
        exit(1);
    }
    memset(pages, 1, room);
    return pages + plan.offset;
}

/* Prints "name_us":[...],"name_parked":[...]. */
static inline void print_batches(const char *name, const struct batch *batches, int count)
{
    printf("\"%s_us\":[", name);
    for (int i = 0; i < count; i++)
        printf("%s%.3f", i ? "," : "", batches[i].us);
    printf("],\"%s_parked\":[", name);
    for (int i = 0; i < count; i++)
        printf("%s%.0f", i ? "," : "", batches[i].parked);
    printf("]");
}

#endif
