/* Many communicators, one after the other, used or failing: descriptors and threads as before.
 *
 *   ./cycles [COUNT] */
#include "host.h"

/* Nothing listens on port 1 of this machine, nor knows this name. */
static const char *const configs[] = {
    MEMORY_CONFIG,
    "{\"backends\":{\"Direct\":{\"host\":\"127.0.0.1\",\"port\":1}}}",
    "{\"backends\":{\"Direct\":{\"host\":\"no-such-host.invalid\",\"port\":1}}}",
    "{\"backends\":{\"Memory\":{\"enabled\":true},\"Direct\":{\"host\":\"127.0.0.1\",\"port\":1}}}",
};

static void cycle(int number)
{
    fmi_comm *comm = NULL;
    int32_t one = 1, sum = 0;
    uint32_t size = number % 3 == 0 ? 1 : 2;
    OK(fmi_comm_create(0, size, configs[number % 4], "cycles", 0, &comm));
    if (size == 1) {
        OK(fmi_allreduce(comm, &one, &sum, 1, FMI_INT32, FMI_SUM));
        CHECK(sum == 1);
    } else {
        OK(fmi_comm_set_timeout(comm, 1 + (uint32_t)number % 3));
        CHECK(fmi_allreduce(comm, &one, &sum, 1, FMI_INT32, FMI_SUM) != FMI_OK);
        OK(fmi_send(comm, &one, sizeof one, 0));
    }
    if (number % 2 == 0) {
        OK(fmi_comm_close(comm, 1));
    }
    fmi_comm_destroy(comm);
}

int main(int count, char **arguments)
{
    int cycles = count > 1 ? atoi(arguments[1]) : 1000;
    int number, descriptors, threads, late;
    watchdog(100);
    for (number = 0; number < 50; number++) {
        cycle(number);
    }
    descriptors = entries("/proc/self/fd");
    for (number = 0; number < cycles; number++) {
        cycle(number);
    }
    CHECK(entries("/proc/self/fd") <= descriptors + 2);
    threads = entries("/proc/self/task") - 2;
    /* This one, and a lookup that nobody waits for any more. */
    CHECK(threads <= 2);
    for (late = 0; entries("/proc/self/task") - 2 > 1 && late < 600; late++) {
        pause_ms(100);
    }
    CHECK(entries("/proc/self/fd") == descriptors || late == 600);
    return 0;
}
