/* Communicators that are destroyed when a process or a thread ends, after its thread-local storage is gone:
 * by a function of atexit, a static destructor, the destructor of a thread's key. The peer sees a rank that
 * leaves in order, after what it sent. */
#include "host.h"

#include <pthread.h>

/* In use until the end. */
static fmi_comm *global;
static const char *way = "";

/* The server is a name that nobody knows: it is looked up, in a helper thread. */
static void look_up(void)
{
    unsigned char byte = 0;
    fmi_comm *comm;
    char *before = getenv("FMI_RENDEZVOUS");
    before = before == NULL ? NULL : strcpy((char *)malloc(strlen(before) + 1), before);
    CHECK(before != NULL && setenv("FMI_RENDEZVOUS", "no-such-host.invalid:1", 1) == 0);
    comm = direct_rank(0, 2, "lookup");
    OK(fmi_comm_set_timeout(comm, 20));
    STATUS(FMI_ERR_CONNECT, fmi_send(comm, &byte, 1, 1));
    fmi_comm_destroy(comm);
    CHECK(setenv("FMI_RENDEZVOUS", before, 1) == 0);
    free(before);
}

/* Not only the end works then. */
static void leave(void)
{
    char text[8];
    int32_t message = 42;
    fmi_comm *comm = NULL;
    if (global == NULL) {
        return;
    }
    check_sum(global);
    STATUS(FMI_ERR_ARG, fmi_send(global, &message, sizeof message, 7));
    fmi_last_error_message(text, sizeof text);
    OK(fmi_send(global, &message, sizeof message, 0));
    OK(fmi_comm_create(0, 1, MEMORY_CONFIG, "late", 0, &comm));
    check_sum(comm);
    fmi_comm_destroy(comm);
    look_up();
    fmi_comm_destroy(global);
    global = NULL;
}

static void at_exit(void)
{
    if (strcmp(way, "atexit") == 0) {
        leave();
    }
}

/* After the functions of atexit, when the program's static objects go. */
#ifdef __cplusplus
struct StaticObject {
    ~StaticObject()
    {
        if (strcmp(way, "static") == 0) {
            leave();
        }
    }
};
static StaticObject object;
#else
__attribute__((destructor)) static void static_destructor(void)
{
    if (strcmp(way, "static") == 0) {
        leave();
    }
}
#endif

static pthread_key_t key;

static void at_thread_exit(void *value)
{
    CHECK(value == &key);
    leave();
}

/* Makes this rank, and whatever there is in this thread's storage: the text of a last error is. */
static void use(uint32_t rank)
{
    char text[200];
    look_up();
    global = direct_rank(rank, 2, way);
    check_sum(global);
    STATUS(FMI_ERR_NULL, fmi_barrier(NULL));
    CHECK(fmi_last_error_message(text, sizeof text) > 0);
}

static void *thread(void *argument)
{
    CHECK(pthread_setspecific(key, &key) == 0);
    use(1);
    return argument;
}

static void ends_by(const char *name)
{
    pid_t rank;
    fmi_comm *comm;
    int32_t message = 0;
    way = name;
    rank = fork_child();
    if (rank == 0) {
        if (strcmp(way, "thread") == 0) {
            pthread_t id;
            CHECK(pthread_create(&id, NULL, thread, NULL) == 0);
            CHECK(pthread_join(id, NULL) == 0);
            CHECK(global == NULL);
        } else {
            use(1);
        }
        exit(0);
    }
    comm = direct_rank(0, 2, way);
    check_sum(comm);
    check_sum(comm);
    OK(fmi_recv(comm, &message, sizeof message, 1));
    CHECK(message == 42);
    STATUS(FMI_ERR_PEER_LEFT, fmi_recv(comm, &message, sizeof message, 1));
    fmi_comm_destroy(comm);
    ENDS_WELL(rank);
}

/* A last communicator stays to the end of the whole program. */
static fmi_comm *last;

static void destroy_last(void)
{
    fmi_comm_destroy(last);
    last = NULL;
}

int main(void)
{
    pid_t server = start_server();
    watchdog(100);
    CHECK(pthread_key_create(&key, at_thread_exit) == 0);
    CHECK(atexit(at_exit) == 0);
    ends_by("atexit");
    ends_by("static");
    ends_by("thread");
    stop_server(server);
    last = lone_rank();
    check_sum(last);
    CHECK(atexit(destroy_last) == 0);
    return 0;
}
