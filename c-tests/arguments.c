/* Arguments that are out of range or contradict each other: FMI_ERR_ARG with the culprit's name, and
 * the communicator works on. */
#include "check.h"

#define WRONG(named, call) REFUSED(FMI_ERR_ARG, named, call)

static void creation(void)
{
    fmi_comm *comm = (fmi_comm *)&comm;
    WRONG("", fmi_comm_create(1, 1, MEMORY_CONFIG, "n", 0, &comm));
    CHECK(comm == NULL);
    WRONG("", fmi_comm_create(0, 0, MEMORY_CONFIG, "n", 0, &comm));
    WRONG("", fmi_comm_create(7, 3, MEMORY_CONFIG, "n", 0, &comm));
    WRONG("parameter name is not UTF-8", fmi_comm_create(0, 1, MEMORY_CONFIG, "n\xff", 0, &comm));
    WRONG("parameter config_path is not UTF-8", fmi_comm_create(0, 1, "\xff", "n", 0, &comm));
    WRONG("parameter name is not UTF-8", fmi_comm_create_from_env("n\xff", &comm));
    STATUS(FMI_ERR_CONFIG, fmi_comm_create(0, 1, "/nowhere/fmi.json", "n", 0, &comm));
    STATUS(FMI_ERR_CONFIG, fmi_comm_create(0, 1, "{\"backends\":", "n", 0, &comm));
    CHECK(comm == NULL);
    OK(fmi_comm_create(0, 1, MEMORY_CONFIG, "", 128, &comm));
    fmi_comm_destroy(comm);
}

static void misaligned_handles(fmi_comm *comm)
{
    uint32_t numbers[2];
    char *middle = (char *)numbers + 1;
    char *odd = (char *)comm + 1;
    fmi_comm *places[2];

    WRONG("parameter comm is misaligned", fmi_barrier((fmi_comm *)(void *)odd));
    WRONG("parameter comm is misaligned", fmi_comm_rank((fmi_comm *)(void *)odd, numbers));
    fmi_comm_destroy((fmi_comm *)(void *)odd);
    CHECK(last_error_mentions("parameter comm is misaligned"));
    WRONG("parameter config is misaligned", fmi_config_set((fmi_config *)(void *)odd, "a", "b"));
    WRONG("parameter out is misaligned", fmi_comm_rank(comm, (uint32_t *)(void *)middle));
    WRONG("parameter out is misaligned", fmi_comm_size(comm, (uint32_t *)(void *)middle));
    WRONG("parameter out is misaligned",
        fmi_comm_create(0, 1, MEMORY_CONFIG, "n", 0, (fmi_comm **)(void *)((char *)places + 1)));
}

static void settings(fmi_comm *comm)
{
    WRONG("hint", fmi_comm_set_hint(comm, 0));
    WRONG("hint", fmi_comm_set_hint(comm, 3));
    OK(fmi_comm_set_hint(comm, FMI_HINT_FAST));
    OK(fmi_comm_set_hint(comm, FMI_HINT_CHEAP));
    WRONG("timeout", fmi_comm_set_timeout(comm, 0));
    OK(fmi_comm_set_timeout(comm, FMI_TIMEOUT_NEVER));
    OK(fmi_comm_set_timeout(comm, 30000));
    WRONG("timeout", fmi_comm_close(comm, 0));
    WRONG("", fmi_comm_set_channel(comm, "no such channel"));
    WRONG("parameter name is not UTF-8", fmi_comm_set_channel(comm, "\xff"));
    OK(fmi_comm_set_channel(comm, "Memory"));
    OK(fmi_comm_set_channel(comm, NULL));
}

static void ranks(fmi_comm *comm)
{
    int32_t data = 7, result = 0;
    WRONG("", fmi_send(comm, &data, 4, 1));
    WRONG("", fmi_recv(comm, &result, 4, UINT32_MAX));
    WRONG("", fmi_sendrecv(comm, &data, 4, 1, &result, 4, 0));
    WRONG("", fmi_sendrecv(comm, &data, 4, 0, &result, 4, 1));
    WRONG("", fmi_bcast(comm, &data, 4, 1));
    WRONG("", fmi_gather(comm, &data, 4, &result, 4, 1));
    WRONG("", fmi_scatter(comm, &data, 4, &result, 4, 1));
    WRONG("", fmi_reduce(comm, &data, &result, 1, FMI_INT32, FMI_SUM, 1));
    CHECK(data == 7 && result == 0);
}

static void lengths(fmi_comm *comm)
{
    static char data[16], result[16];
    const size_t huge = (size_t)PTRDIFF_MAX + 1;

    WRONG("parameter buf", fmi_send(comm, data, huge, 0));
    WRONG("parameter buf", fmi_recv(comm, data, SIZE_MAX, 0));
    WRONG("parameter send", fmi_sendrecv(comm, data, huge, 0, result, 1, 0));
    WRONG("parameter recv", fmi_sendrecv(comm, data, 1, 0, result, huge, 0));
    WRONG("parameter buf", fmi_bcast(comm, data, huge, 0));
    WRONG("parameter send", fmi_gather(comm, data, huge, result, 1, 0));
    WRONG("parameter recv", fmi_gather(comm, data, 1, result, huge, 0));
    WRONG("parameter recv", fmi_scatter(comm, data, 1, result, huge, 0));
    /* One element more than fits the address space; a count whose product comes out small. */
    WRONG("", fmi_allreduce(comm, data, result, SIZE_MAX / 8 + 1, FMI_DOUBLE, FMI_SUM));
    WRONG("", fmi_reduce(comm, data, result, SIZE_MAX / 4 + 2, FMI_INT32, FMI_SUM, 0));
    WRONG("", fmi_scan(comm, data, result, (size_t)PTRDIFF_MAX / 2 + 1, FMI_INT16, FMI_SUM));
}

static void block_lengths(fmi_comm *comm)
{
    char data[16] = { 0 }, result[16] = { 0 };
    WRONG("recv_len", fmi_gather(comm, data, 4, result, 8, 0));
    WRONG("recv_len", fmi_gather(comm, data, 4, result, 3, 0));
    WRONG("send_len", fmi_scatter(comm, data, 8, result, 4, 0));
    WRONG("send_len", fmi_scatter(comm, data, 0, result, 4, 0));
}

static void overlaps(fmi_comm *comm)
{
    int32_t data[4] = { 1, 2, 3, 4 };
    WRONG("overlap", fmi_sendrecv(comm, data, 4, 0, data, 4, 0));
    WRONG("overlap", fmi_sendrecv(comm, data, 8, 0, (char *)data + 7, 8, 0));
    WRONG("overlap", fmi_gather(comm, (char *)data + 1, 4, data, 4, 0));
    WRONG("overlap", fmi_scatter(comm, data, 4, (char *)data + 1, 4, 0));
    WRONG("overlap", fmi_reduce(comm, data, data + 1, 2, FMI_INT32, FMI_SUM, 0));
    WRONG("overlap", fmi_reduce(comm, data + 1, data, 2, FMI_INT32, FMI_SUM, 0));
    WRONG("overlap", fmi_allreduce(comm, data, (char *)data + 3, 1, FMI_INT32, FMI_SUM));
    WRONG("overlap", fmi_scan(comm, data, data + 1, 2, FMI_INT32, FMI_SUM));
    CHECK(data[0] == 1 && data[1] == 2 && data[2] == 3 && data[3] == 4);

    /* Side by side is apart; the same is in place; of length 0 nothing overlaps. */
    OK(fmi_allreduce(comm, data, data + 2, 2, FMI_INT32, FMI_SUM));
    CHECK(data[2] == 1 && data[3] == 2);
    OK(fmi_allreduce(comm, data, data, 4, FMI_INT32, FMI_SUM));
    OK(fmi_scan(comm, data, data, 4, FMI_INT32, FMI_SUM));
    OK(fmi_reduce(comm, data, data, 4, FMI_INT32, FMI_SUM, 0));
    OK(fmi_gather(comm, data, 16, data, 16, 0));
    OK(fmi_scatter(comm, data, 16, data, 16, 0));
    OK(fmi_sendrecv(comm, data, 8, 0, data + 2, 8, 0));
    OK(fmi_allreduce(comm, data, data, 0, FMI_INT32, FMI_SUM));
}

static void types_and_operations(fmi_comm *comm)
{
    double data[2] = { 1, 2 }, result[2] = { 0, 0 };
    static const fmi_op NONE[] = { 0, -1, 11, 255, 256, 100000, INT32_MAX, INT32_MIN };
    size_t i;
    WRONG("datatype", fmi_allreduce(comm, data, result, 1, 0, FMI_SUM));
    WRONG("datatype", fmi_allreduce(comm, data, result, 1, 12, FMI_SUM));
    WRONG("datatype", fmi_reduce(comm, data, result, 1, -1, FMI_SUM, 0));
    for (i = 0; i < sizeof NONE / sizeof *NONE; i++) {
        WRONG("parameter op", fmi_scan(comm, data, result, 1, FMI_DOUBLE, NONE[i]));
        WRONG("parameter op", fmi_op_destroy(NONE[i]));
    }
    WRONG("", fmi_allreduce(comm, data, result, 1, FMI_DOUBLE, FMI_BXOR));
    WRONG("", fmi_allreduce(comm, data, result, 1, FMI_FLOAT, FMI_LAND));
    WRONG("", fmi_allreduce(comm, data, result, 1, FMI_BYTE, FMI_SUM));
    CHECK(result[0] == 0 && result[1] == 0);
}

static void error_info(fmi_comm *comm)
{
    fmi_error_info info;
    char text[256];
    size_t size;
    memset(&info, 0xff, sizeof info);
    info.struct_size = 0;
    WRONG("struct_size", fmi_comm_error_info(comm, &info));
    info.struct_size = sizeof(size_t) + 3;
    WRONG("struct_size", fmi_comm_error_info(comm, &info));
    CHECK(info.status == -1);

    STATUS(FMI_ERR_ARG, fmi_send(comm, text, 1, 5));
    info.struct_size = sizeof info;
    OK(fmi_comm_error_info(comm, &info));
    CHECK(info.struct_size == sizeof info);
    CHECK(info.status == FMI_ERR_ARG && info.cause == FMI_ERR_ARG);
    CHECK(info.cause_rank == -1 && info.os_errno == 0);
    CHECK(memchr(info.channel, 0, sizeof info.channel) != NULL);
    CHECK(fmi_comm_error_message(comm, text, sizeof text) > 0);
    CHECK(strstr(text, "FMI_ERR_ARG") != NULL);

    /* A smaller structure, of an older program, gets whole fields, and nothing behind its end. */
    for (size = sizeof(size_t) + sizeof(fmi_status); size < sizeof info; size++) {
        memset(&info, 0xee, sizeof info);
        info.struct_size = size;
        OK(fmi_comm_error_info(comm, &info));
        CHECK(info.status == FMI_ERR_ARG);
        CHECK(info.waited_ms == (size < offsetof(fmi_error_info, channel)
            ? UINT64_C(0xeeeeeeeeeeeeeeee) : 0));
        CHECK((unsigned char)info.channel[0] == 0xee);
    }
}

/* A success leaves the last error as it is; a new communicator has none. */
static void no_error_yet(void)
{
    fmi_comm *comm = lone_rank();
    fmi_error_info info;
    char text[8] = "x";
    info.struct_size = sizeof info;
    OK(fmi_comm_error_info(comm, &info));
    CHECK(info.status == FMI_OK && info.cause == FMI_OK && info.operation == FMI_OPERATION_NONE);
    CHECK(info.peer == -1 && info.cause_rank == -1 && info.waited_ms == 0 && info.channel[0] == 0);
    CHECK(fmi_comm_error_message(comm, text, sizeof text) == 0 && text[0] == 0);
    fmi_comm_destroy(comm);
}

static void closed(void)
{
    fmi_comm *comm = lone_rank();
    uint32_t number = 77;
    OK(fmi_comm_close(comm, 1000));
    STATUS(FMI_ERR_CLOSED, fmi_barrier(comm));
    STATUS(FMI_ERR_CLOSED, fmi_send(comm, NULL, 0, 0));
    OK(fmi_comm_rank(comm, &number));
    CHECK(number == 0);
    OK(fmi_comm_size(comm, &number));
    CHECK(number == 1);
    fmi_comm_destroy(comm);
}

int main(void)
{
    fmi_comm *comm;
    int32_t data = 7, result = 0;
    watchdog(60);
    creation();
    comm = lone_rank();
    misaligned_handles(comm);
    settings(comm);
    ranks(comm);
    lengths(comm);
    block_lengths(comm);
    overlaps(comm);
    types_and_operations(comm);
    error_info(comm);
    /* After all that the communicator is as good as new. */
    OK(fmi_allreduce(comm, &data, &result, 1, FMI_INT32, FMI_SUM));
    CHECK(result == 7);
    fmi_comm_destroy(comm);
    no_error_yet();
    closed();
    return 0;
}
