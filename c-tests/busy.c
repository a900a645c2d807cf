/* Two threads and one communicator: the second is refused, whatever it calls, and may ask, abort and wake. */
#include "host.h"

#include <pthread.h>

typedef struct {
    fmi_comm *comm;
    fmi_status status;
} Blocked;

static void *blocks(void *argument)
{
    Blocked *b = (Blocked *)argument;
    unsigned char byte;
    do {
        b->status = fmi_recv(b->comm, &byte, 1, 1);
    } while (b->status == FMI_ERR_BUSY);
    return NULL;
}

static void refuses(fmi_comm *comm)
{
    int32_t in[2] = { 1, 2 }, out[2] = { 0, 0 };
    uint32_t number = 77;
    fmi_error_info info;
    STATUS(FMI_ERR_BUSY, fmi_send(comm, in, sizeof in, 1));
    STATUS(FMI_ERR_BUSY, fmi_recv(comm, out, sizeof out, 1));
    STATUS(FMI_ERR_BUSY, fmi_sendrecv(comm, in, sizeof in, 1, out, sizeof out, 1));
    STATUS(FMI_ERR_BUSY, fmi_bcast(comm, in, sizeof in, 0));
    STATUS(FMI_ERR_BUSY, fmi_barrier(comm));
    STATUS(FMI_ERR_BUSY, fmi_gather(comm, in, 4, out, sizeof out, 0));
    STATUS(FMI_ERR_BUSY, fmi_scatter(comm, in, sizeof in, out, 4, 0));
    STATUS(FMI_ERR_BUSY, fmi_reduce(comm, in, out, 2, FMI_INT32, FMI_SUM, 0));
    STATUS(FMI_ERR_BUSY, fmi_allreduce(comm, in, out, 2, FMI_INT32, FMI_SUM));
    STATUS(FMI_ERR_BUSY, fmi_scan(comm, in, out, 2, FMI_INT32, FMI_SUM));
    STATUS(FMI_ERR_BUSY, fmi_comm_close(comm, 1000));
    CHECK(last_error_mentions("another thread"));
    CHECK(out[0] == 0 && out[1] == 0);
    OK(fmi_comm_rank(comm, &number));
    CHECK(number == 0);
    OK(fmi_comm_size(comm, &number));
    CHECK(number == 2);
    memset(&info, 0, sizeof info);
    info.struct_size = sizeof info;
    OK(fmi_comm_error_info(comm, &info));
    CHECK(info.status == FMI_ERR_BUSY);
}

int main(void)
{
    int round;
    watchdog(60);
    for (round = 0; round < 2; round++) {
        Blocked b;
        pthread_t thread;
        fmi_comm *other = lone_rank();
        unsigned char byte = 7, back = 0;
        b.comm = NULL;
        b.status = FMI_OK;
        OK(fmi_comm_create(0, 2, MEMORY_CONFIG, "busy", 0, &b.comm));
        OK(fmi_comm_set_timeout(b.comm, 60000));
        CHECK(pthread_create(&thread, NULL, blocks, &b) == 0);
        /* Until the other thread is inside, which must have its turn: under valgrind one runs at a time. */
        while (fmi_sendrecv(b.comm, &byte, 1, 0, &back, 1, 0) == FMI_OK) {
            pause_ms(5);
        }
        refuses(b.comm);
        /* Other communicators are independent. */
        check_sum(other);
        if (round == 0) {
            OK(fmi_comm_abort(b.comm, 3));
        } else {
            CHECK(write(fmi_comm_wakeup_fd(b.comm), "!", 1) == 1);
        }
        CHECK(pthread_join(thread, NULL) == 0);
        CHECK(b.status == (round == 0 ? FMI_ERR_ABORTED : FMI_ERR_INTERRUPTED));
        OK(fmi_send(b.comm, &byte, 1, 0));
        OK(fmi_recv(b.comm, &back, 1, 0));
        CHECK(back == 7);
        fmi_comm_destroy(b.comm);
        fmi_comm_destroy(other);
    }
    return 0;
}
