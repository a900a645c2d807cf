/* How much memory an idle rank takes: VmRSS after the first barrier.
 *
 *   fmi run -n 8 -- idle_rss
 */
#include <fmi.h>
#include <stdio.h>
#include <stdlib.h>

static void check(fmi_status status)
{
    if (status == FMI_OK)
        return;
    char message[512];
    fmi_last_error_message(message, sizeof message);
    fprintf(stderr, "idle_rss: %s: %s\n", fmi_status_name(status), message);
    exit(1);
}

static uint64_t resident_kib(void)
{
    FILE *file = fopen("/proc/self/status", "r");
    char line[256];
    unsigned long kib = 0;
    while (file && fgets(line, sizeof line, file))
        if (sscanf(line, "VmRSS: %lu", &kib) == 1)
            break;
    if (file)
        fclose(file);
    return kib;
}

int main(void)
{
    fmi_comm *comm;
    uint32_t rank, size;
    check(fmi_comm_create_from_env("idle_rss", &comm));
    check(fmi_comm_rank(comm, &rank));
    check(fmi_comm_size(comm, &size));
    check(fmi_barrier(comm));
    uint64_t mine = resident_kib(), most;
    check(fmi_reduce(comm, &mine, &most, 1, FMI_UINT64, FMI_MAX, 0));
    if (rank == 0)
        printf("{\"program\":\"idle_rss\",\"ranks\":%u,\"largest_mib\":%.2f}\n", size, (double)most / 1024);
    fmi_comm_destroy(comm);
    return 0;
}
