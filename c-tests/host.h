/* What the tests of the host process use: a rendezvous server of their own, children, and what a process
 * holds. */
#ifndef FMI_TEST_HOST_H
#define FMI_TEST_HOST_H

#include "check.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>

static inline void pause_ms(long milliseconds)
{
    struct timespec time;
    time.tv_sec = milliseconds / 1000;
    time.tv_nsec = milliseconds % 1000 * 1000000;
    while (nanosleep(&time, &time) != 0 && errno == EINTR) {
    }
}

static inline double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* A child ends by these: nothing of the parent's is flushed or run twice. */
static inline void child_is_done(void)
{
    _exit(0);
}

/* Forks; a child dies with its parent. */
static inline pid_t fork_child(void)
{
    pid_t child;
    fflush(NULL);
    child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
    }
    return child;
}

static inline int status_of(pid_t child)
{
    int status = -1;
    while (waitpid(child, &status, 0) < 0) {
        CHECK(errno == EINTR);
    }
    return status;
}

#define ENDS_WELL(child) CHECK(status_of(child) == 0)

/* A process from the command in the environment variable FMI_COMMAND; FMI_RENDEZVOUS tells the ranks of
 * this process and its children where it is. */
static inline pid_t start_server(void)
{
    const char *command = getenv("FMI_COMMAND");
    char line[200], *address;
    int ends[2];
    FILE *output;
    pid_t server;
    CHECK(command != NULL);
    CHECK(pipe(ends) == 0);
    server = fork_child();
    if (server == 0) {
        dup2(ends[1], 1);
        close(ends[0]);
        close(ends[1]);
        execl(command, command, "serve", "--listen", "127.0.0.1:0", "--log", "off", (char *)NULL);
        _exit(127);
    }
    close(ends[1]);
    output = fdopen(ends[0], "r");
    CHECK(output != NULL && fgets(line, sizeof line, output) != NULL);
    fclose(output);
    line[strcspn(line, "\n")] = 0;
    address = strstr(line, "127.0.0.1:");
    CHECK(address != NULL);
    CHECK(setenv("FMI_RENDEZVOUS", address, 1) == 0);
    return server;
}

static inline void stop_server(pid_t server)
{
    CHECK(kill(server, SIGKILL) == 0);
    CHECK(WIFSIGNALED(status_of(server)));
}

/* A rank of a job over the server; configured by the environment. */
static inline fmi_comm *direct_rank(uint32_t rank, uint32_t size, const char *job)
{
    fmi_comm *comm = NULL;
    OK(fmi_comm_create(rank, size, NULL, job, 0, &comm));
    OK(fmi_comm_set_timeout(comm, 30000));
    return comm;
}

/* The ranks of a job add their numbers: it is one, and works. */
static inline void check_sum(fmi_comm *comm)
{
    uint32_t rank, size;
    int32_t mine, sum = -1;
    OK(fmi_comm_rank(comm, &rank));
    OK(fmi_comm_size(comm, &size));
    mine = (int32_t)rank;
    OK(fmi_allreduce(comm, &mine, &sum, 1, FMI_INT32, FMI_SUM));
    CHECK(sum == (int32_t)(size * (size - 1) / 2));
}

/* The entries of a directory: of /proc/self/fd the descriptors (and one more), of /proc/self/task the
 * threads. */
static inline int entries(const char *path)
{
    int count = 0;
    DIR *directory = opendir(path);
    CHECK(directory != NULL);
    while (readdir(directory) != NULL) {
        count++;
    }
    closedir(directory);
    return count;
}

#endif
