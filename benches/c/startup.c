/* How long fresh ranks take to their first result: from main() to the end of
 * the first allreduce, joining and connecting included.
 *
 *   fmi run -n 8 -- startup
 *
 * `slowest_rank_ms` is the longest time that one rank took; `job_ms` lasts from
 * the first rank's main() to the last rank's result (one host, one clock), and
 * so includes that the launcher starts one rank after the other.
 */
#define _GNU_SOURCE
#include "bench.h"
#include <fmi.h>

static void check(fmi_status status)
{
    if (status == FMI_OK)
        return;
    char message[512];
    fmi_last_error_message(message, sizeof message);
    fprintf(stderr, "startup: %s: %s\n", fmi_status_name(status), message);
    exit(1);
}

int main(void)
{
    double start = now_us();
    fmi_comm *comm;
    check(fmi_comm_create_from_env("startup", &comm));
    double value = 1, sum = 0;
    check(fmi_allreduce(comm, &value, &sum, 1, FMI_DOUBLE, FMI_SUM));
    double end = now_us();

    uint32_t rank, size;
    check(fmi_comm_rank(comm, &rank));
    check(fmi_comm_size(comm, &size));
    if (sum != (double)size) {
        fprintf(stderr, "startup: the sum is %f, not %u\n", sum, size);
        return 1;
    }
    /* The first start is the negated maximum of the negated starts. */
    double mine[3] = {end - start, end, -start}, most[3];
    check(fmi_allreduce(comm, mine, most, 3, FMI_DOUBLE, FMI_MAX));
    if (rank == 0)
        printf("{\"program\":\"startup\",\"ranks\":%u,\"slowest_rank_ms\":%.3f,\"job_ms\":%.3f}\n", size,
               most[0] / 1e3, (most[1] + most[2]) / 1e3);
    fmi_comm_destroy(comm);
    return 0;
}
