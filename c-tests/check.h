/* What all test programs use: checks that say where they failed, and a watchdog. */
#ifndef FMI_TEST_CHECK_H
#define FMI_TEST_CHECK_H

#include <fmi.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Channels inside the process only: no server is needed. */
#define MEMORY_CONFIG "{\"backends\":{\"Memory\":{\"enabled\":true},\"Direct\":{\"enabled\":false}}}"

#define CHECK(condition)                                                                            \
    do {                                                                                            \
        if (!(condition)) {                                                                         \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);                 \
            print_last_error();                                                                     \
            exit(1);                                                                                \
        }                                                                                           \
    } while (0)

/* The call must return this status. */
#define STATUS(expected, call)                                                                      \
    do {                                                                                            \
        fmi_status status_ = (call);                                                                \
        if (status_ != (expected)) {                                                                \
            fprintf(stderr, "%s:%d: %s instead of %s: %s\n", __FILE__, __LINE__,                    \
                fmi_status_name(status_), fmi_status_name(expected), #call);                        \
            print_last_error();                                                                     \
            exit(1);                                                                                \
        }                                                                                           \
    } while (0)

#define OK(call) STATUS(FMI_OK, call)

/* The call must return this status, with a message that names the culprit. */
#define REFUSED(expected, named, call)                                                              \
    do {                                                                                            \
        STATUS(expected, call);                                                                     \
        CHECK(last_error_mentions(named));                                                          \
    } while (0)

static inline void print_last_error(void)
{
    char text[512];
    if (fmi_last_error_message(text, sizeof text) > 0) {
        fprintf(stderr, "  this thread's last error: %s\n", text);
    }
}

static inline int last_error_mentions(const char *what)
{
    char text[512];
    fmi_last_error_message(text, sizeof text);
    return strstr(text, what) != NULL;
}

/* A hang is a failure, not a wait: SIGALRM ends the program. */
static inline void watchdog(unsigned int seconds)
{
    alarm(seconds);
}

/* The only rank of a job, without any server. */
static inline fmi_comm *lone_rank(void)
{
    fmi_comm *comm = NULL;
    OK(fmi_comm_create(0, 1, MEMORY_CONFIG, "lone", 0, &comm));
    CHECK(comm != NULL);
    return comm;
}

#endif
