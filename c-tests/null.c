/* Every pointer of every function, NULL in turn: FMI_ERR_NULL names the parameter. And what is
 * allowed to be NULL. */
#include "check.h"

#define NULL_NAMED(name, call) REFUSED(FMI_ERR_NULL, "parameter " name " is NULL", call)

static int32_t visit(void *user, const char *key, const char *value)
{
    (void)user, (void)key, (void)value;
    return 0;
}

static int32_t reduce(void *user, void *inout, const void *in, size_t count, fmi_datatype type)
{
    (void)user, (void)inout, (void)in, (void)count, (void)type;
    return 0;
}

static void without_handle(void)
{
    fmi_error_info info;
    uint32_t number;
    char text[8] = "x";
    int32_t data = 0, result;
    info.struct_size = sizeof info;

    NULL_NAMED("config", fmi_config_load(NULL, "x"));
    NULL_NAMED("config", fmi_config_parse(NULL, "{}", 2));
    NULL_NAMED("config", fmi_config_set(NULL, "timeout", "1"));
    NULL_NAMED("config", fmi_config_each(NULL, visit, NULL));
    NULL_NAMED("config", fmi_config_each_given(NULL, visit, NULL));
    NULL_NAMED("config", fmi_config_set_interrupt(NULL, NULL, NULL, NULL));
    NULL_NAMED("config", fmi_config_set_log(NULL, FMI_LOG_INFO, NULL, NULL, NULL));
    fmi_config_destroy(NULL);

    NULL_NAMED("comm", fmi_comm_close(NULL, 1));
    fmi_comm_destroy(NULL);
    NULL_NAMED("comm", fmi_comm_wakeup_fd(NULL));
    NULL_NAMED("comm", fmi_comm_abort(NULL, 1));
    NULL_NAMED("comm", fmi_comm_rank(NULL, &number));
    NULL_NAMED("comm", fmi_comm_size(NULL, &number));
    NULL_NAMED("comm", fmi_comm_set_hint(NULL, FMI_HINT_FAST));
    NULL_NAMED("comm", fmi_comm_set_timeout(NULL, 1));
    NULL_NAMED("comm", fmi_comm_set_channel(NULL, NULL));
    NULL_NAMED("comm", fmi_comm_error_info(NULL, &info));
    CHECK(fmi_comm_error_message(NULL, text, sizeof text) == 0 && text[0] == 0);

    NULL_NAMED("comm", fmi_send(NULL, &data, sizeof data, 0));
    NULL_NAMED("comm", fmi_recv(NULL, &data, sizeof data, 0));
    NULL_NAMED("comm", fmi_sendrecv(NULL, &data, sizeof data, 0, &result, sizeof result, 0));
    NULL_NAMED("comm", fmi_bcast(NULL, &data, sizeof data, 0));
    NULL_NAMED("comm", fmi_barrier(NULL));
    NULL_NAMED("comm", fmi_gather(NULL, &data, sizeof data, &result, sizeof result, 0));
    NULL_NAMED("comm", fmi_scatter(NULL, &data, sizeof data, &result, sizeof result, 0));
    NULL_NAMED("comm", fmi_reduce(NULL, &data, &result, 1, FMI_INT32, FMI_SUM, 0));
    NULL_NAMED("comm", fmi_allreduce(NULL, &data, &result, 1, FMI_INT32, FMI_SUM));
    NULL_NAMED("comm", fmi_scan(NULL, &data, &result, 1, FMI_INT32, FMI_SUM));
}

static void creation(void)
{
    fmi_config *config = NULL;
    fmi_comm *comm;
    fmi_op op;

    NULL_NAMED("out", fmi_config_create(NULL));
    OK(fmi_config_create(&config));
    OK(fmi_config_parse(config, MEMORY_CONFIG, strlen(MEMORY_CONFIG)));
    NULL_NAMED("path", fmi_config_load(config, NULL));
    NULL_NAMED("json", fmi_config_parse(config, NULL, 2));
    NULL_NAMED("key", fmi_config_set(config, NULL, "1"));
    NULL_NAMED("value", fmi_config_set(config, "timeout", NULL));
    NULL_NAMED("visit", fmi_config_each(config, NULL, NULL));
    NULL_NAMED("visit", fmi_config_each_given(config, NULL, NULL));
    NULL_NAMED("check", fmi_config_set_interrupt(config, NULL, NULL, NULL));
    NULL_NAMED("log", fmi_config_set_log(config, FMI_LOG_INFO, NULL, NULL, NULL));

    NULL_NAMED("out", fmi_comm_create(0, 1, MEMORY_CONFIG, "n", 0, NULL));
    comm = (fmi_comm *)&op;
    NULL_NAMED("name", fmi_comm_create(0, 1, MEMORY_CONFIG, NULL, 0, &comm));
    CHECK(comm == NULL);
    NULL_NAMED("out", fmi_comm_create_with(0, 1, "n", config, NULL));
    comm = (fmi_comm *)&op;
    NULL_NAMED("name", fmi_comm_create_with(0, 1, NULL, config, &comm));
    CHECK(comm == NULL);
    comm = (fmi_comm *)&op;
    NULL_NAMED("config", fmi_comm_create_with(0, 1, "n", NULL, &comm));
    CHECK(comm == NULL);
    NULL_NAMED("out", fmi_comm_create_from_env("n", NULL));
    comm = (fmi_comm *)&op;
    NULL_NAMED("name", fmi_comm_create_from_env(NULL, &comm));
    CHECK(comm == NULL);

    NULL_NAMED("out", fmi_op_create(reduce, NULL, NULL, 0, 0, NULL));
    op = 77;
    NULL_NAMED("fn", fmi_op_create(NULL, NULL, NULL, 0, 0, &op));
    CHECK(op == 0);
    fmi_config_destroy(config);
}

static void operations(void)
{
    fmi_comm *comm = lone_rank();
    int32_t data = 7, result = 0;

    NULL_NAMED("out", fmi_comm_rank(comm, NULL));
    NULL_NAMED("out", fmi_comm_size(comm, NULL));
    NULL_NAMED("out", fmi_comm_error_info(comm, NULL));
    NULL_NAMED("buf", fmi_send(comm, NULL, 1, 0));
    NULL_NAMED("buf", fmi_recv(comm, NULL, 1, 0));
    NULL_NAMED("send", fmi_sendrecv(comm, NULL, 1, 0, &result, 1, 0));
    NULL_NAMED("recv", fmi_sendrecv(comm, &data, 1, 0, NULL, 1, 0));
    NULL_NAMED("buf", fmi_bcast(comm, NULL, 1, 0));
    NULL_NAMED("send", fmi_gather(comm, NULL, 4, &result, 4, 0));
    NULL_NAMED("recv", fmi_gather(comm, &data, 4, NULL, 4, 0));
    NULL_NAMED("send", fmi_scatter(comm, NULL, 4, &result, 4, 0));
    NULL_NAMED("recv", fmi_scatter(comm, &data, 4, NULL, 4, 0));
    NULL_NAMED("send", fmi_reduce(comm, NULL, &result, 1, FMI_INT32, FMI_SUM, 0));
    NULL_NAMED("recv", fmi_reduce(comm, &data, NULL, 1, FMI_INT32, FMI_SUM, 0));
    NULL_NAMED("send", fmi_allreduce(comm, NULL, &result, 1, FMI_INT32, FMI_SUM));
    NULL_NAMED("recv", fmi_allreduce(comm, &data, NULL, 1, FMI_INT32, FMI_SUM));
    NULL_NAMED("send", fmi_scan(comm, NULL, &result, 1, FMI_INT32, FMI_SUM));
    NULL_NAMED("recv", fmi_scan(comm, &data, NULL, 1, FMI_INT32, FMI_SUM));
    CHECK(data == 7 && result == 0);

    /* A pointer is ignored where the length is 0. */
    OK(fmi_send(comm, NULL, 0, 0));
    OK(fmi_recv(comm, NULL, 0, 0));
    OK(fmi_sendrecv(comm, (void *)1, 0, 0, (void *)1, 0, 0));
    OK(fmi_bcast(comm, NULL, 0, 0));
    OK(fmi_gather(comm, NULL, 0, NULL, 0, 0));
    OK(fmi_scatter(comm, NULL, 0, NULL, 0, 0));
    OK(fmi_reduce(comm, NULL, NULL, 0, FMI_INT32, FMI_SUM, 0));
    OK(fmi_allreduce(comm, (void *)1, NULL, 0, FMI_INT32, FMI_SUM));
    OK(fmi_scan(comm, NULL, (void *)1, 0, FMI_INT32, FMI_SUM));
    OK(fmi_comm_set_channel(comm, NULL));
    fmi_comm_destroy(comm);
}

int main(void)
{
    watchdog(60);
    without_handle();
    creation();
    operations();
    return 0;
}
