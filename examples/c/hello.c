/* Every rank greets its right neighbour, then all add up their ranks.
 *
 *   fmi run -n 4 -- ./hello
 */
#include <fmi.h>
#include <stdio.h>
#include <stdlib.h>

static void check(fmi_status status)
{
    char message[512];
    if (status == FMI_OK)
        return;
    fmi_last_error_message(message, sizeof message);
    fprintf(stderr, "%s: %s\n", fmi_status_name(status), message);
    exit(1);
}

int main(void)
{
    fmi_comm *comm;
    uint32_t rank, size, left, sum;
    check(fmi_comm_create_from_env("hello", &comm));
    check(fmi_comm_rank(comm, &rank));
    check(fmi_comm_size(comm, &size));

    check(fmi_sendrecv(comm, &rank, sizeof rank, (rank + 1) % size, /* to the right */
                       &left, sizeof left, (rank + size - 1) % size)); /* from the left */
    check(fmi_allreduce(comm, &rank, &sum, 1, FMI_UINT32, FMI_SUM));

    printf("rank %u of %u: greeted by rank %u, the ranks sum to %u\n", rank, size, left, sum);
    fmi_comm_destroy(comm);
    return 0;
}
