/*
 * FMI, the FaaS Message Interface: MPI-style message passing for serverless
 * functions and anything else that can open a socket.
 *
 * Generated from src/capi by cbindgen; see tests/header.rs. Do not edit.
 *
 * Unless a function says otherwise:
 * - Pointers are checked for NULL; a pointer to a buffer is ignored where the length of the buffer
 *   is 0. Every other pointer must be valid for what the function does with it. Buffers of
 *   operations may have any alignment. A misaligned handle or output pointer is FMI_ERR_ARG.
 * - Outputs are written on success only; a handle output is NULL (of an fmi_op: 0) on failure. Not so
 *   the buffers that an operation receives into: after a failure their content is unspecified.
 * - Texts are NUL-terminated UTF-8; they are copied.
 * - Lengths are in bytes, times in milliseconds.
 * - Any function that returns a status may return FMI_ERR_INTERNAL, for a bug in FMI.
 * - Every function but those that ask for rank, size, version and errors returns FMI_ERR_REENTRANT
 *   inside a reduction function.
 */


#ifndef FMI_H
#define FMI_H

#include <stddef.h>
#include <stdint.h>

/**
 * Major version of this header. While it is 0, minor versions are
 * incompatible with each other.
 */
#define FMI_VERSION_MAJOR 0

/**
 * Minor version of this header.
 */
#define FMI_VERSION_MINOR 1

/**
 * Patch version of this header.
 */
#define FMI_VERSION_PATCH 0

/**
 * A timeout in ms that never passes. It has to be asked for: no function takes
 * it by default.
 */
#define FMI_TIMEOUT_NEVER UINT32_MAX

/**
 * `operation` in fmi_error_info: no operation of a communicator.
 */
#define FMI_OPERATION_NONE 0

/**
 * `operation` in fmi_error_info: fmi_send().
 */
#define FMI_OPERATION_SEND 1

/**
 * `operation` in fmi_error_info: fmi_recv().
 */
#define FMI_OPERATION_RECV 2

/**
 * `operation` in fmi_error_info: fmi_sendrecv().
 */
#define FMI_OPERATION_SENDRECV 3

/**
 * `operation` in fmi_error_info: fmi_bcast().
 */
#define FMI_OPERATION_BCAST 16

/**
 * `operation` in fmi_error_info: fmi_barrier().
 */
#define FMI_OPERATION_BARRIER 17

/**
 * `operation` in fmi_error_info: fmi_gather().
 */
#define FMI_OPERATION_GATHER 18

/**
 * `operation` in fmi_error_info: fmi_scatter().
 */
#define FMI_OPERATION_SCATTER 19

/**
 * `operation` in fmi_error_info: fmi_reduce().
 */
#define FMI_OPERATION_REDUCE 20

/**
 * `operation` in fmi_error_info: fmi_allreduce().
 */
#define FMI_OPERATION_ALLREDUCE 21

/**
 * `operation` in fmi_error_info: fmi_scan().
 */
#define FMI_OPERATION_SCAN 22

/**
 * `operation` in fmi_error_info: making a communicator, or joining the job.
 */
#define FMI_OPERATION_CREATE 64

/**
 * `operation` in fmi_error_info: fmi_comm_close().
 */
#define FMI_OPERATION_CLOSE 65

/**
 * Log level: nothing.
 */
#define FMI_LOG_OFF 0

/**
 * Log level: what made a call fail.
 */
#define FMI_LOG_ERROR 1

/**
 * Log level: also what is odd, such as an unknown configuration key.
 */
#define FMI_LOG_WARN 2

/**
 * Log level: also one line per event: joined, linked, left.
 */
#define FMI_LOG_INFO 3

/**
 * Log level: everything of interest to somebody who looks for a fault.
 */
#define FMI_LOG_DEBUG 4

/**
 * Flag of fmi_op_create(): a . b equals b . a.
 */
#define FMI_OP_COMMUTATIVE 1

/**
 * Flag of fmi_op_create(): (a . b) . c equals a . (b . c). Without it the
 * operands are combined strictly from left to right by rank.
 */
#define FMI_OP_ASSOCIATIVE 2

/**
 * Flag of fmi_op_create(): the function treats every element alike and apart
 * from the others, so that it may be given pieces of a buffer. Without it, it
 * is given whole buffers only.
 */
#define FMI_OP_ELEMENTWISE 4

/**
 * `family` in fmi_channel_vtable: ranks address each other.
 */
#define FMI_CHANNEL_PEER_TO_PEER 1

/**
 * `family` in fmi_channel_vtable: ranks meet at a store that keeps objects under
 * names.
 */
#define FMI_CHANNEL_CLIENT_SERVER 2

/**
 * `family` in fmi_channel_vtable: the channel carries out every operation
 * itself.
 */
#define FMI_CHANNEL_WHOLE 3

/**
 * Flag in fmi_channel_vtable, of peer-to-peer channels: sending never waits for
 * the peer to receive. Without it every exchange runs in order: a rank receives
 * first if its source's rank is higher than its own, else it sends first.
 */
#define FMI_CHANNEL_FULL_DUPLEX 1

/**
 * A channel for one rank of a job: one of the library's with parameters of its
 * own, see fmi_channel_create(), or one of yours, see
 * fmi_channel_create_custom().
 *
 * Register it with a communicator, or use it by itself: fmi_channel_send() and
 * its kin. One call at a time may move data over a channel; a second one, of
 * another thread or out of a function of the channel, gets FMI_ERR_BUSY.
 */
typedef struct fmi_channel fmi_channel;

/**
 * A group of ranks and the operations among them. See fmi_comm_create().
 *
 * One thread at a time may be inside a call on a communicator; a second one
 * gets FMI_ERR_BUSY. Different communicators are independent of each other.
 */
typedef struct fmi_comm fmi_comm;

/**
 * A configuration: what a file, the environment and the program say. See
 * fmi_config_create().
 *
 * What the program sets wins over the environment, that over what was loaded,
 * that over the defaults, whatever the order of calls. An unknown key is a
 * warning that names it. Several threads may use one configuration at once.
 */
typedef struct fmi_config fmi_config;

/**
 * How a whole channel's reduction combines operands: see fmi_reduction_apply()
 * and fmi_reduction_flags(). It lives until the channel's function returns.
 */
typedef struct fmi_reduction fmi_reduction;

/**
 * What a function returns: FMI_OK, or a negative number that says what kind of
 * failure it was. The numbers are fixed and never reused. Positive ones are
 * reserved: treat them as success.
 *
 * fmi_status_name() gives the name, fmi_last_error_message() the whole story.
 */
typedef int32_t fmi_status;

/**
 * What is known of a failure.
 *
 * Set struct_size to sizeof(fmi_error_info) before you pass it. A program that
 * was compiled with an older, smaller structure gets the fields that it knows.
 */
typedef struct {
    /**
     * Set by the caller: the size of the structure in bytes.
     */
    size_t struct_size;
    /**
     * What the call returned; FMI_OK where no call has failed.
     */
    fmi_status status;
    /**
     * The first failure that led to this one, perhaps on another rank; the
     * same as status where there was no earlier.
     */
    fmi_status cause;
    /**
     * The operation that failed: one of the FMI_OPERATION_... constants.
     */
    int32_t operation;
    /**
     * The rank of the peer that the failure concerns; -1 = none.
     */
    int32_t peer;
    /**
     * The rank on which the first failure was seen; -1 = not known.
     */
    int32_t cause_rank;
    /**
     * The errno of the operating system; 0 = none.
     */
    int32_t os_errno;
    /**
     * How long the call had waited, in ms.
     */
    uint64_t waited_ms;
    /**
     * The name of the channel, NUL-terminated and cut where it is longer;
     * empty = none.
     */
    char channel[32];
} fmi_error_info;

/**
 * Frees what a callback works on. Called exactly once, when FMI needs it no
 * more, also when the call that was given it fails; on any thread that is
 * inside an FMI call. May not unwind (throw).
 *
 * @param user  what was registered with it.
 */
typedef void (*fmi_drop_fn)(void *user);

/**
 * What the choice of channel and algorithm goes by: FMI_HINT_CHEAP or
 * FMI_HINT_FAST.
 */
typedef int32_t fmi_hint;

/**
 * The type of the elements of a reduction: one of the FMI_... constants from
 * FMI_BYTE to FMI_DOUBLE. The numbers are fixed and never reused.
 */
typedef int32_t fmi_datatype;

/**
 * A reduction function: inout = inout . in for `count` elements of `type`.
 *
 * Both buffers are aligned to 16 bytes (copied if need be) and do not overlap.
 * It runs on the thread that called the collective, during that call. It may
 * not call FMI, except to ask for rank, size, version and errors
 * (FMI_ERR_REENTRANT), and may not unwind (throw) or longjmp out.
 *
 * @param user   what fmi_op_create() was given.
 * @param inout  the left operand (of the lower ranks), to be replaced by the result.
 * @param in     the right operand.
 * @param count  the number of elements of `type` in each.
 * @param type   what the collective was given.
 * @return 0; anything else = failed: the collective returns FMI_ERR_CALLBACK.
 */
typedef int32_t (*fmi_reduce_fn)(void *user,
                                 void *inout,
                                 const void *in,
                                 size_t count,
                                 fmi_datatype type);

/**
 * A reduction operation: one of the constants from FMI_SUM to FMI_BXOR, or
 * what fmi_op_create() gave. Built-in ones are less than 256; the numbers are
 * fixed and never reused. 0 and negative numbers are no operations.
 *
 * Integer sum and product wrap; minimum and maximum propagate NaN; the logical
 * operations are for integers and give 0 or 1; the bitwise ones are for
 * integers and FMI_BYTE. What is not defined for a type is FMI_ERR_ARG.
 */
typedef int32_t fmi_op;

/**
 * The functions of a channel of your own. Set all of it to 0, then struct_size,
 * family, and what the family needs.
 *
 * Functions return 0, or other than 0 for a failure: the operation then returns
 * FMI_ERR_CALLBACK, and where the number is a status, such as FMI_ERR_TIMEOUT, it
 * is the `cause` in fmi_error_info. They run on the thread that is inside the
 * operation, one at a time, and may use other communicators and channels; the
 * channel that they belong to is FMI_ERR_BUSY. They may not unwind (throw) or
 * longjmp out. The four of the model may be called by any thread at any time.
 *
 * The library looks at deadlines, aborts and the wake-up descriptor between two
 * functions, not inside one.
 */
typedef struct {
    /**
     * sizeof(fmi_channel_vtable).
     */
    size_t struct_size;
    /**
     * FMI_CHANNEL_PEER_TO_PEER, FMI_CHANNEL_CLIENT_SERVER or FMI_CHANNEL_WHOLE.
     */
    int32_t family;
    /**
     * FMI_CHANNEL_FULL_DUPLEX, or 0.
     */
    uint32_t flags;
    /**
     * How long an operation may take over the channel, in ms, where neither the
     * environment nor fmi_comm_set_timeout() says so; 0 = the default (60 s),
     * FMI_TIMEOUT_NEVER = no limit.
     */
    uint32_t timeout_ms;
    /**
     * Client-server: how long to wait between two looks for an object, in ms; 0 =
     * the default (10).
     */
    uint32_t poll_ms;
    /**
     * Peer-to-peer: moves len bytes to a rank, which calls recv_object with the same
     * length; calls between two ranks match in their order. May wait for that. Needed,
     * with recv_object, unless there are send and recv.
     */
    int32_t (*send_object)(void *user, const void *data, size_t len, uint32_t dest);
    /**
     * Peer-to-peer: fills buf with the len bytes that a rank sends.
     */
    int32_t (*recv_object)(void *user, void *buf, size_t len, uint32_t src);
    /**
     * Client-server, needed: stores len bytes, at least one, under a name of at most 200
     * bytes, which has the job's name and otherwise only A-Z a-z 0-9 . _ and -.
     */
    int32_t (*upload_object)(void *user, const char *name, const void *data, size_t len);
    /**
     * Client-server, needed: sets *found to 1 and copies as much of the object as there
     * is and the capacity allows; or sets it to 0: there is none. Does not wait for one.
     */
    int32_t (*download_object)(void *user,
                               const char *name,
                               void *buf,
                               size_t capacity,
                               int32_t *found);
    /**
     * Client-server, needed: removes the object, if there is one.
     */
    int32_t (*delete_object)(void *user, const char *name);
    /**
     * Client-server, needed: calls visit with context and the name of every object,
     * until it returns other than 0.
     */
    int32_t (*list_objects)(void *user,
                            int32_t (*visit)(void *context, const char *name),
                            void *context);
    /**
     * Client-server: as download_object, but waits until the object is there, as long as
     * the channel likes. NULL = the library looks every poll_ms.
     */
    int32_t (*download)(void *user, const char *name, void *buf, size_t capacity);
    /**
     * How long an exchange takes, in ms: see fmi_channel_latency(). NULL = 0.
     */
    double (*latency)(void *user, uint32_t producers, uint32_t consumers, size_t bytes);
    /**
     * What it costs, in USD: see fmi_channel_price(). NULL = 0.
     */
    double (*price)(void *user, uint32_t producers, uint32_t consumers, size_t bytes);
    /**
     * How long an operation takes, in ms: see fmi_channel_operation_latency(). NULL =
     * what follows from latency and the library's algorithm.
     */
    double (*operation_latency)(void *user, int32_t operation, size_t bytes, int32_t left_to_right);
    /**
     * What it costs, in USD: see fmi_channel_operation_price(). NULL = what follows from
     * price and the library's algorithm.
     */
    double (*operation_price)(void *user, int32_t operation, size_t bytes, int32_t left_to_right);
    /**
     * As fmi_send(). Of this and the eight below NULL = as the library does it by the
     * functions above; a whole channel needs all nine. The library has checked the
     * arguments. Messages to oneself come here in a whole channel only.
     */
    int32_t (*send)(void *user, const void *data, size_t len, uint32_t dest);
    /**
     * As fmi_recv().
     */
    int32_t (*recv)(void *user, void *buf, size_t len, uint32_t src);
    /**
     * As fmi_bcast().
     */
    int32_t (*bcast)(void *user, void *buf, size_t len, uint32_t root);
    /**
     * As fmi_barrier().
     */
    int32_t (*barrier)(void *user);
    /**
     * As fmi_gather(); recv is NULL and recv_len 0 where this rank is not the root.
     */
    int32_t (*gather)(void *user,
                      const void *send,
                      size_t send_len,
                      void *recv,
                      size_t recv_len,
                      uint32_t root);
    /**
     * As fmi_scatter(); send is NULL and send_len 0 where this rank is not the root.
     */
    int32_t (*scatter)(void *user,
                       const void *send,
                       size_t send_len,
                       void *recv,
                       size_t recv_len,
                       uint32_t root);
    /**
     * As fmi_reduce(), with len in bytes; recv is NULL where this rank is not the root.
     */
    int32_t (*reduce)(void *user,
                      const void *send,
                      void *recv,
                      size_t len,
                      const fmi_reduction *reduction,
                      uint32_t root);
    /**
     * As fmi_allreduce(), with len in bytes.
     */
    int32_t (*allreduce)(void *user,
                         const void *send,
                         void *recv,
                         size_t len,
                         const fmi_reduction *reduction);
    /**
     * As fmi_scan(), with len in bytes.
     */
    int32_t (*scan)(void *user,
                    const void *send,
                    void *recv,
                    size_t len,
                    const fmi_reduction *reduction);
    /**
     * A communicator that the channel is registered with, or the channel itself, is
     * closed: once for each. NULL = nothing to do.
     */
    void (*finalize)(void *user);
    /**
     * Called with user exactly once, when neither the channel nor a communicator needs it
     * any more, also when fmi_channel_create_custom() fails; may be NULL.
     */
    fmi_drop_fn drop;
} fmi_channel_vtable;

/**
 * The call succeeded.
 */
#define FMI_OK 0

/**
 * An argument is out of range or contradicts another. Nothing was sent, the
 * communicator stays usable.
 */
#define FMI_ERR_ARG -1

/**
 * A pointer that must not be NULL is NULL; the message names the parameter.
 * Nothing was sent, the communicator stays usable.
 */
#define FMI_ERR_NULL -2

/**
 * The configuration is missing, malformed, or holds a wrong value; the message
 * names the file and the key.
 */
#define FMI_ERR_CONFIG -3

/**
 * This build of the library, or the channel, cannot do this.
 */
#define FMI_ERR_UNSUPPORTED -4

/**
 * Memory could not be had.
 */
#define FMI_ERR_NOMEM -5

/**
 * Another thread is inside a call on the same communicator.
 */
#define FMI_ERR_BUSY -6

/**
 * FMI was called from a place where it may not be called: a reduction
 * function.
 */
#define FMI_ERR_REENTRANT -7

/**
 * The communicator was made before a fork, by the parent process.
 */
#define FMI_ERR_FORKED -8

/**
 * The communicator is closed.
 */
#define FMI_ERR_CLOSED -9

/**
 * The deadline passed; see fmi_comm_set_timeout().
 */
#define FMI_ERR_TIMEOUT -10

/**
 * The call was interrupted; see fmi_comm_wakeup_fd().
 */
#define FMI_ERR_INTERRUPTED -11

/**
 * The sender withdrew the message half way, because of its deadline.
 */
#define FMI_ERR_CANCELLED -12

/**
 * A message is longer or shorter than the buffer of its receive. The message
 * is gone, the next one is received correctly.
 */
#define FMI_ERR_SIZE_MISMATCH -13

/**
 * The ranks do not call the same collective with the same arguments.
 */
#define FMI_ERR_MISMATCH -14

/**
 * A rank died, or its connection broke.
 */
#define FMI_ERR_PEER_LOST -15

/**
 * A rank closed its communicator in order, and is gone.
 */
#define FMI_ERR_PEER_LEFT -16

/**
 * The job was aborted; see fmi_comm_abort().
 */
#define FMI_ERR_ABORTED -17

/**
 * An earlier collective of this communicator failed, so that none can work any
 * more; `cause` in fmi_error_info says how. Messages between two ranks still
 * work.
 */
#define FMI_ERR_POISONED -18

/**
 * A server, a store or a peer cannot be reached.
 */
#define FMI_ERR_CONNECT -19

/**
 * Another live process already has this rank.
 */
#define FMI_ERR_RANK_TAKEN -20

/**
 * The secret is wrong or missing.
 */
#define FMI_ERR_AUTH -21

/**
 * The other side speaks another protocol or version, or sends garbage.
 */
#define FMI_ERR_PROTOCOL -22

/**
 * The operating system reported an error; `os_errno` in fmi_error_info says
 * which.
 */
#define FMI_ERR_IO -23

/**
 * A function supplied by the user failed: it returned other than 0.
 */
#define FMI_ERR_CALLBACK -24

/**
 * A bug in FMI.
 */
#define FMI_ERR_INTERNAL -25

/**
 * Least price. The default.
 */
#define FMI_HINT_CHEAP 1

/**
 * Least latency.
 */
#define FMI_HINT_FAST 2

/**
 * Uninterpreted bytes, of size 1: for bitwise operations and user operations.
 */
#define FMI_BYTE 1

/**
 * int8_t
 */
#define FMI_INT8 2

/**
 * int16_t
 */
#define FMI_INT16 3

/**
 * int32_t
 */
#define FMI_INT32 4

/**
 * int64_t
 */
#define FMI_INT64 5

/**
 * uint8_t
 */
#define FMI_UINT8 6

/**
 * uint16_t
 */
#define FMI_UINT16 7

/**
 * uint32_t
 */
#define FMI_UINT32 8

/**
 * uint64_t
 */
#define FMI_UINT64 9

/**
 * float, of 4 bytes (IEEE 754)
 */
#define FMI_FLOAT 10

/**
 * double, of 8 bytes (IEEE 754)
 */
#define FMI_DOUBLE 11

/**
 * Sum.
 */
#define FMI_SUM 1

/**
 * Product.
 */
#define FMI_PROD 2

/**
 * Minimum.
 */
#define FMI_MIN 3

/**
 * Maximum.
 */
#define FMI_MAX 4

/**
 * Logical and, of integers: 0 or 1.
 */
#define FMI_LAND 5

/**
 * Logical or, of integers: 0 or 1.
 */
#define FMI_LOR 6

/**
 * Logical exclusive or, of integers: 0 or 1.
 */
#define FMI_LXOR 7

/**
 * Bitwise and, of integers and bytes.
 */
#define FMI_BAND 8

/**
 * Bitwise or, of integers and bytes.
 */
#define FMI_BOR 9

/**
 * Bitwise exclusive or, of integers and bytes.
 */
#define FMI_BXOR 10

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * The version of the library that is linked, such as "0.1.0".
 *
 * @return a static text, never NULL and not to be freed.
 */
const char *fmi_version_string(void);

/**
 * The version of the library that is linked as a number that grows with it:
 * major * 1000000 + minor * 1000 + patch. Compare it with FMI_VERSION_MAJOR,
 * FMI_VERSION_MINOR and FMI_VERSION_PATCH, which are those of the header.
 *
 * @return the number.
 */
uint32_t fmi_version_number(void);

/**
 * The name of a status code, such as "FMI_ERR_TIMEOUT".
 *
 * @param status  any number.
 * @return a static text, never NULL and not to be freed; "FMI_UNKNOWN_STATUS" for a
 *         number that is no status code.
 */
const char *fmi_status_name(fmi_status status);

/**
 * Tells what is known of the last failure of a call on this communicator. May
 * be called from any thread, also while another is inside a call, and from a
 * reduction function.
 *
 * @param comm  the communicator.
 * @param out   filled as far as out->struct_size, which the caller has set, reaches; untouched on
 *              failure. `status` is FMI_OK where no call has failed.
 * @return FMI_OK; FMI_ERR_NULL; FMI_ERR_ARG where out->struct_size is too small for any field.
 */
fmi_status fmi_comm_error_info(const fmi_comm *comm, fmi_error_info *out);

/**
 * Tells the last failure of a call on this communicator as text. May be called
 * from any thread, also while another is inside a call, and from a reduction
 * function.
 *
 * @param comm  the communicator; NULL gives the empty text.
 * @param buf   filled as snprintf() would: at most len - 1 bytes of the text, never a part of a
 *              character, and a NUL. May be NULL where len is 0.
 * @param len   the size of buf in bytes.
 * @return the length of the whole text in bytes, without NUL: not less than len means that buf holds
 *         only its beginning. 0 = no call has failed.
 */
size_t fmi_comm_error_message(const fmi_comm *comm,
                              char *buf,
                              size_t len);

/**
 * Tells this thread's last failure as text, also one without a communicator.
 * A call that succeeds leaves it as it is.
 *
 * @param buf  filled as snprintf() would: at most len - 1 bytes of the text, never a part of a
 *             character, and a NUL. May be NULL where len is 0.
 * @param len  the size of buf in bytes.
 * @return the length of the whole text in bytes, without NUL: not less than len means that buf holds
 *         only its beginning. 0 = no call of this thread has failed.
 */
size_t fmi_last_error_message(char *buf,
                              size_t len);

/**
 * Makes a configuration of defaults and environment.
 *
 * @param out  the configuration, to be freed with fmi_config_destroy(); NULL on failure.
 * @return FMI_OK; FMI_ERR_NULL; FMI_ERR_REENTRANT.
 */
fmi_status fmi_config_create(fmi_config **out);

/**
 * Loads a configuration file (JSON).
 *
 * @param config  the configuration; unchanged on failure.
 * @param path    the file's path, NUL-terminated UTF-8.
 * @return FMI_OK; FMI_ERR_NULL; FMI_ERR_ARG where path is not UTF-8; FMI_ERR_CONFIG where the file is
 *         missing or malformed or holds a wrong value (the message names file, key and what was
 *         expected); FMI_ERR_REENTRANT.
 */
fmi_status fmi_config_load(fmi_config *config,
                           const char *path);

/**
 * Loads a configuration from text: what would stand in a file.
 *
 * @param config  the configuration; unchanged on failure.
 * @param json    the text, UTF-8; it need not be NUL-terminated.
 * @param len     its length in bytes.
 * @return FMI_OK; FMI_ERR_NULL; FMI_ERR_ARG where the text is not UTF-8; FMI_ERR_CONFIG where it is
 *         malformed or holds a wrong value; FMI_ERR_REENTRANT.
 */
fmi_status fmi_config_parse(fmi_config *config, const char *json, size_t len);

/**
 * Sets one value. It wins over environment and files.
 *
 * @param config  the configuration; unchanged on failure.
 * @param key     the path of the key in the file, such as "backends.Direct.host", NUL-terminated
 *                UTF-8.
 * @param value   the value as text, NUL-terminated UTF-8.
 * @return FMI_OK; FMI_ERR_NULL; FMI_ERR_ARG where a text is not UTF-8; FMI_ERR_CONFIG for a value
 *         that the key cannot have; FMI_ERR_REENTRANT.
 */
fmi_status fmi_config_set(fmi_config *config, const char *key, const char *value);

/**
 * Calls a function for every key that has a value, with all sources merged.
 * The function may change the configuration: it is shown the values of before.
 *
 * @param config  the configuration.
 * @param visit   called with user, a key such as "backends.Direct.host" and its value; both texts
 *                are UTF-8 and live until it returns. Other than 0 ends the visit. May not unwind.
 * @param user    passed to visit.
 * @return FMI_OK; FMI_ERR_CALLBACK where visit returned other than 0; FMI_ERR_NULL;
 *         FMI_ERR_REENTRANT.
 */
fmi_status fmi_config_each(const fmi_config *config,
                           int32_t (*visit)(void *user, const char *key, const char *value),
                           void *user);

/**
 * Calls a function for every key that is spelt out, in what was loaded or by
 * fmi_config_set(), with its value as it stands there: without environment and
 * defaults. The function may change the configuration: it is shown the values of
 * before.
 *
 * @param config  the configuration.
 * @param visit   as in fmi_config_each().
 * @param user    passed to visit.
 * @return as fmi_config_each().
 */
fmi_status fmi_config_each_given(const fmi_config *config,
                                 int32_t (*visit)(void *user, const char *key, const char *value),
                                 void *user);

/**
 * Sets the function that says whether a blocked call shall end, when a byte
 * was written to fmi_comm_wakeup_fd(). Without such a function the byte itself
 * ends the call.
 *
 * @param config  the configuration; communicators that are made of it later use the function.
 * @param check   called on the thread that is inside the call: 0 = go on waiting, anything else =
 *                the call returns FMI_ERR_INTERRUPTED. May not unwind.
 * @param user    passed to check and drop.
 * @param drop    called with user exactly once, when neither the configuration nor a communicator
 *                needs it any more, also when this function fails; may be NULL.
 * @return FMI_OK; FMI_ERR_NULL; FMI_ERR_REENTRANT.
 */
fmi_status fmi_config_set_interrupt(fmi_config *config,
                                    int32_t (*check)(void *user),
                                    void *user,
                                    fmi_drop_fn drop);

/**
 * Sets the function that is given log lines. Without it nothing is printed,
 * unless the environment variable FMI_LOG (off, error, warn, info, debug) asks
 * for lines on standard error.
 *
 * @param config  the configuration; communicators that are made of it later use the function.
 * @param level   one of the FMI_LOG_... constants: lines up to this level are given.
 * @param log     called on the thread that is inside a call, with user, the line's level and its
 *                text, which is UTF-8 without line break and lives until it returns. May not unwind.
 * @param user    passed to log and drop.
 * @param drop    called with user exactly once, when neither the configuration nor a communicator
 *                needs it any more, also when this function fails; may be NULL.
 * @return FMI_OK; FMI_ERR_NULL; FMI_ERR_ARG where there is no such level;
 *         FMI_ERR_REENTRANT.
 */
fmi_status fmi_config_set_log(fmi_config *config,
                              int32_t level,
                              void (*log)(void *user, int32_t level, const char *text),
                              void *user,
                              fmi_drop_fn drop);

/**
 * Frees a configuration. Communicators made of it are not concerned.
 *
 * @param config  the configuration; NULL does nothing.
 */
void fmi_config_destroy(fmi_config *config);

/**
 * Makes a communicator. Does no network I/O: an absent server shows at the
 * first operation.
 *
 * @param rank             this rank, from 0 to size - 1.
 * @param size             the number of ranks of the job.
 * @param config_path      path of the configuration file, NUL-terminated UTF-8; or text that starts
 *                         with '{': the configuration itself, as JSON; or NULL or "": environment and
 *                         defaults only.
 * @param name             name of the job, NUL-terminated UTF-8, the same on all its ranks; may be
 *                         empty.
 * @param faas_memory_mib  memory of the function in MiB, for prices; 0 = what the configuration says.
 * @param out              the communicator, to be freed with fmi_comm_destroy(); NULL on failure.
 * @return FMI_OK; FMI_ERR_NULL; FMI_ERR_ARG where rank is not less than size, or a text is not UTF-8;
 *         FMI_ERR_CONFIG; FMI_ERR_NOMEM; FMI_ERR_IO; FMI_ERR_REENTRANT.
 */
fmi_status fmi_comm_create(uint32_t rank,
                           uint32_t size,
                           const char *config_path,
                           const char *name,
                           uint32_t faas_memory_mib,
                           fmi_comm **out);

/**
 * Makes a communicator of a configuration object. Does no network I/O.
 *
 * @param rank    this rank, from 0 to size - 1.
 * @param size    the number of ranks of the job.
 * @param name    name of the job, NUL-terminated UTF-8, the same on all its ranks; may be empty.
 * @param config  the configuration; stays the caller's, later changes have no effect.
 * @param out     the communicator, to be freed with fmi_comm_destroy(); NULL on failure.
 * @return as fmi_comm_create().
 */
fmi_status fmi_comm_create_with(uint32_t rank,
                                uint32_t size,
                                const char *name,
                                const fmi_config *config,
                                fmi_comm **out);

/**
 * Makes a communicator of what the environment says: rank, size and the rest
 * as `fmi run` hands them to each process (FMI_RANK, FMI_SIZE, FMI_JOB_ID,
 * FMI_RENDEZVOUS, FMI_SECRET, ...), or rank and size as PMI, Open MPI and
 * Slurm state them. Does no network I/O.
 *
 * @param name  name of the job, NUL-terminated UTF-8, the same on all its ranks; may be empty.
 * @param out   the communicator, to be freed with fmi_comm_destroy(); NULL on failure.
 * @return as fmi_comm_create(); FMI_ERR_CONFIG also where the environment states no rank and size.
 */
fmi_status fmi_comm_create_from_env(const char *name, fmi_comm **out);

/**
 * Leaves the job in order, and tells what fmi_comm_destroy() cannot: whether the
 * peers have read everything that was sent to them. A peer that leaves too has
 * chosen not to read the rest; one that computes outside of FMI calls does not say
 * what it has read. However it ends, later calls on the communicator return
 * FMI_ERR_CLOSED; it must still be destroyed.
 *
 * @param comm        the communicator.
 * @param timeout_ms  how long to wait for the peers, in ms; FMI_TIMEOUT_NEVER = no limit.
 * @return FMI_OK; FMI_ERR_TIMEOUT where a peer has not read all, FMI_ERR_PEER_LOST where it was lost
 *         before it had: the message says who, and what is left; FMI_ERR_MISMATCH where a peer sent
 *         what no call of ours asked for; FMI_ERR_INTERRUPTED; FMI_ERR_ABORTED; FMI_ERR_ARG where
 *         timeout_ms is 0; FMI_ERR_CLOSED where it is closed already; FMI_ERR_NULL; FMI_ERR_BUSY;
 *         FMI_ERR_FORKED; FMI_ERR_REENTRANT.
 */
fmi_status fmi_comm_close(fmi_comm *comm,
                          uint32_t timeout_ms);

/**
 * Leaves the job, unless fmi_comm_close() did, and frees the communicator.
 * Never fails; waits until what was sent is with the hosts of its receivers,
 * within the communicator's timeout, and then up to a second for the peers to
 * hear of the departure. In a process forked after the communicator was made,
 * it only frees memory. Must not be called while another thread is inside a
 * call on the communicator, and does nothing inside a reduction function.
 *
 * @param comm  the communicator; NULL does nothing.
 */
void fmi_comm_destroy(fmi_comm *comm);

/**
 * The write end of a non-blocking pipe, for a signal handler or another
 * thread: a byte written to it interrupts a call that is blocked on the
 * communicator; see fmi_config_set_interrupt(). A call that begins later does
 * not see the byte.
 *
 * @param comm  the communicator, which keeps the descriptor: do not close it.
 * @return the descriptor, or a negative status: FMI_ERR_NULL; FMI_ERR_UNSUPPORTED; FMI_ERR_IO;
 *         FMI_ERR_CLOSED; FMI_ERR_FORKED; FMI_ERR_REENTRANT.
 */
int32_t fmi_comm_wakeup_fd(fmi_comm *comm);

/**
 * Ends the job's collectives. All ranks are told; their collectives, and one
 * that another thread is blocked in here, return FMI_ERR_ABORTED. May be called
 * from any thread at any time.
 *
 * @param comm  the communicator.
 * @param code  a number of your own, which the messages of the other ranks mention.
 * @return FMI_OK; FMI_ERR_NULL; FMI_ERR_CLOSED; FMI_ERR_FORKED; FMI_ERR_REENTRANT.
 */
fmi_status fmi_comm_abort(fmi_comm *comm, int32_t code);

/**
 * This rank. May be asked from any thread at any time, and from a reduction
 * function.
 *
 * @param comm  the communicator.
 * @param out   the rank, from 0 to size - 1; untouched on failure.
 * @return FMI_OK; FMI_ERR_NULL.
 */
fmi_status fmi_comm_rank(const fmi_comm *comm, uint32_t *out);

/**
 * The number of ranks. May be asked from any thread at any time, and from a
 * reduction function.
 *
 * @param comm  the communicator.
 * @param out   the number, at least 1; untouched on failure.
 * @return FMI_OK; FMI_ERR_NULL.
 */
fmi_status fmi_comm_size(const fmi_comm *comm, uint32_t *out);

/**
 * Sets what the choice of channel and algorithm goes by.
 *
 * @param comm  the communicator.
 * @param hint  FMI_HINT_CHEAP (the default) or FMI_HINT_FAST; the same on all ranks.
 * @return FMI_OK; FMI_ERR_ARG for any other number; FMI_ERR_NULL; FMI_ERR_FORKED; FMI_ERR_REENTRANT.
 */
fmi_status fmi_comm_set_hint(fmi_comm *comm,
                             fmi_hint hint);

/**
 * Sets how long a call may take, connecting included. Wins over the
 * configuration; the default is 60 s.
 *
 * @param comm        the communicator.
 * @param timeout_ms  the time in ms; FMI_TIMEOUT_NEVER = no limit.
 * @return FMI_OK; FMI_ERR_ARG where timeout_ms is 0; FMI_ERR_NULL; FMI_ERR_FORKED; FMI_ERR_REENTRANT.
 */
fmi_status fmi_comm_set_timeout(fmi_comm *comm,
                                uint32_t timeout_ms);

/**
 * Pins the channel that carries the operations.
 *
 * @param comm  the communicator.
 * @param name  the channel's name, such as "Direct", NUL-terminated UTF-8, the same on all ranks;
 *              NULL = the policy chooses.
 * @return FMI_OK; FMI_ERR_ARG where there is no such channel, or name is not UTF-8;
 *         FMI_ERR_UNSUPPORTED where it is not enabled; FMI_ERR_NULL; FMI_ERR_FORKED;
 *         FMI_ERR_REENTRANT.
 */
fmi_status fmi_comm_set_channel(fmi_comm *comm, const char *name);

/**
 * Sends a message. Messages to one rank arrive in the order in which they were
 * sent. Returns when the buffer may be reused, which may be before the peer
 * has called fmi_recv().
 *
 * @param comm  the communicator.
 * @param buf   the message; ignored where len is 0. Never modified.
 * @param len   its length in bytes; may be 0.
 * @param dest  the rank that receives it; may be this one.
 * @return FMI_OK; FMI_ERR_ARG where dest is no rank; FMI_ERR_TIMEOUT; FMI_ERR_PEER_LOST;
 *         FMI_ERR_PEER_LEFT; FMI_ERR_CONNECT; FMI_ERR_INTERRUPTED; FMI_ERR_NULL; FMI_ERR_BUSY;
 *         FMI_ERR_CLOSED; FMI_ERR_FORKED; FMI_ERR_REENTRANT, and other statuses that say what happened
 *         to the connection. The communicator stays usable.
 */
fmi_status fmi_send(fmi_comm *comm,
                    const void *buf,
                    size_t len,
                    uint32_t dest);

/**
 * Receives a message of exactly len bytes.
 *
 * @param comm  the communicator.
 * @param buf   filled with the message; ignored where len is 0. What it holds after a failure is not
 *              specified.
 * @param len   the length of the message in bytes; may be 0.
 * @param src   the rank that sends it; may be this one.
 * @return FMI_OK; FMI_ERR_SIZE_MISMATCH where the message is longer or shorter (it is gone, the next
 *         one is received correctly); FMI_ERR_CANCELLED where the sender withdrew it half way;
 *         otherwise as fmi_send(). The communicator stays usable.
 */
fmi_status fmi_recv(fmi_comm *comm,
                    void *buf,
                    size_t len,
                    uint32_t src);

/**
 * Sends one message and receives another at once, so that ranks that exchange
 * messages do not wait for each other. Either half may meet fmi_send() or
 * fmi_recv() on the other side.
 *
 * @param comm      the communicator.
 * @param send      the message to send; ignored where send_len is 0. Never modified; must not overlap
 *                  recv.
 * @param send_len  its length in bytes; may be 0.
 * @param dest      the rank that receives it; may be this one.
 * @param recv      filled with the message that is received; ignored where recv_len is 0.
 * @param recv_len  the length of that message in bytes; may be 0.
 * @param src       the rank that sends it; may be this one, and dest.
 * @return as fmi_send() and fmi_recv(); FMI_ERR_ARG also where send and recv overlap.
 */
fmi_status fmi_sendrecv(fmi_comm *comm,
                        const void *send,
                        size_t send_len,
                        uint32_t dest,
                        void *recv,
                        size_t recv_len,
                        uint32_t src);

/**
 * Makes a reduction operation of your own. It belongs to the process: every
 * communicator and every thread may use it. A process forked later has a copy of
 * its own.
 *
 * @param fn            the function; see fmi_reduce_fn.
 * @param user          passed to fn and drop.
 * @param drop          called with user exactly once: after fmi_op_destroy() when the last call that
 *                      uses the operation has ended, or before this function returns if it fails; may
 *                      be NULL.
 * @param flags         FMI_OP_COMMUTATIVE, FMI_OP_ASSOCIATIVE and FMI_OP_ELEMENTWISE, or-ed: what
 *                      FMI may rely on. 0 is always right, and slowest.
 * @param element_size  with FMI_OP_ELEMENTWISE, the size of one element in bytes, where it is not
 *                      that of the datatype: pieces of a buffer then begin and end at its multiples,
 *                      and a buffer whose length is no multiple is FMI_ERR_ARG. 0 = that of the
 *                      datatype. Without FMI_OP_ELEMENTWISE it is ignored.
 * @param out           the operation, to be freed with fmi_op_destroy(); 0 on failure.
 * @return FMI_OK; FMI_ERR_NULL; FMI_ERR_ARG for unknown flags; FMI_ERR_NOMEM; FMI_ERR_REENTRANT.
 */
fmi_status fmi_op_create(fmi_reduce_fn fn,
                         void *user,
                         fmi_drop_fn drop,
                         uint32_t flags,
                         size_t element_size,
                         fmi_op *out);

/**
 * Gives an operation back. A call in another thread that uses it goes on
 * undisturbed; afterwards the number is no operation any more.
 *
 * @param op  what fmi_op_create() gave.
 * @return FMI_OK; FMI_ERR_ARG where it is none, is destroyed already, or is built in;
 *         FMI_ERR_REENTRANT.
 */
fmi_status fmi_op_destroy(fmi_op op);

/**
 * Gives the root's buffer to all. A collective: all ranks call it, in the same
 * order among their collectives.
 *
 * @param comm  the communicator.
 * @param buf   at the root what all shall have, elsewhere filled with it; ignored where len is 0.
 * @param len   its length in bytes, the same on all ranks; may be 0.
 * @param root  the rank whose buffer counts, the same on all ranks.
 * @return FMI_OK; FMI_ERR_ARG where root is no rank; FMI_ERR_MISMATCH where the ranks do not call the
 *         same; FMI_ERR_TIMEOUT; FMI_ERR_PEER_LOST; FMI_ERR_PEER_LEFT; FMI_ERR_ABORTED;
 *         FMI_ERR_POISONED; FMI_ERR_CONNECT; FMI_ERR_INTERRUPTED; FMI_ERR_NULL; FMI_ERR_BUSY;
 *         FMI_ERR_CLOSED; FMI_ERR_FORKED; FMI_ERR_REENTRANT, and other statuses that say what happened
 *         to the connections. After a failure other than of its arguments the communicator's
 *         collectives return FMI_ERR_POISONED.
 */
fmi_status fmi_bcast(fmi_comm *comm,
                     void *buf,
                     size_t len,
                     uint32_t root);

/**
 * Returns when all ranks have called it. A collective: all ranks call it, in
 * the same order among their collectives.
 *
 * @param comm  the communicator.
 * @return as fmi_bcast().
 */
fmi_status fmi_barrier(fmi_comm *comm);

/**
 * Collects a block of every rank at the root, in the order of ranks. A
 * collective: all ranks call it, in the same order among their collectives.
 *
 * @param comm      the communicator.
 * @param send      this rank's block; ignored where send_len is 0. Never modified. At the root it may
 *                  be recv + rank * send_len: the block is in its place already. Any other overlap is
 *                  FMI_ERR_ARG.
 * @param send_len  the length of a block in bytes, the same on all ranks; may be 0.
 * @param recv      at the root, filled with all blocks; elsewhere ignored, whatever it is.
 * @param recv_len  at the root, size * send_len; elsewhere ignored.
 * @param root      the rank that gets the blocks, the same on all ranks.
 * @return as fmi_bcast(); FMI_ERR_ARG also where recv_len is not size * send_len at the root.
 */
fmi_status fmi_gather(fmi_comm *comm,
                      const void *send,
                      size_t send_len,
                      void *recv,
                      size_t recv_len,
                      uint32_t root);

/**
 * Gives every rank its block of the root's buffer. A collective: all ranks
 * call it, in the same order among their collectives.
 *
 * @param comm      the communicator.
 * @param send      at the root, the blocks of all ranks in the order of ranks, never modified;
 *                  elsewhere ignored, whatever it is.
 * @param send_len  at the root, size * recv_len; elsewhere ignored.
 * @param recv      filled with this rank's block; ignored where recv_len is 0. At the root it may be
 *                  send + root * recv_len: the block stays where it is. Any other overlap is
 *                  FMI_ERR_ARG.
 * @param recv_len  the length of a block in bytes, the same on all ranks; may be 0.
 * @param root      the rank whose buffer counts, the same on all ranks.
 * @return as fmi_bcast(); FMI_ERR_ARG also where send_len is not size * recv_len at the root.
 */
fmi_status fmi_scatter(fmi_comm *comm,
                       const void *send,
                       size_t send_len,
                       void *recv,
                       size_t recv_len,
                       uint32_t root);

/**
 * Combines the buffers of all ranks, element by element, at the root. A
 * collective: all ranks call it, in the same order among their collectives.
 *
 * The order of operands is fixed, so that results are the same from run to
 * run: those of an operation that is not associative are combined strictly
 * from left to right by rank; of one that is associative only, in the order of
 * ranks.
 *
 * @param comm   the communicator.
 * @param send   this rank's operand; ignored where count is 0. Any alignment. Never modified, unless
 *               it is also recv.
 * @param recv   at the root, filled with the result; may be send; any other overlap is FMI_ERR_ARG.
 *               Elsewhere ignored, whatever it is.
 * @param count  the number of elements, the same on all ranks; may be 0.
 * @param type   their type, the same on all ranks.
 * @param op     the operation, the same on all ranks: FMI_SUM, ... or of fmi_op_create().
 * @param root   the rank that gets the result, the same on all ranks.
 * @return as fmi_bcast(); FMI_ERR_CALLBACK where the operation's function failed; FMI_ERR_ARG also for
 *         an unknown type or operation, an operation that is not defined for the type, and a length
 *         that no buffer can have.
 */
fmi_status fmi_reduce(fmi_comm *comm,
                      const void *send,
                      void *recv,
                      size_t count,
                      fmi_datatype type,
                      fmi_op op,
                      uint32_t root);

/**
 * Combines the buffers of all ranks, element by element, at all of them, which
 * get the same bits. A collective: all ranks call it, in the same order among
 * their collectives. On the order of operands see fmi_reduce().
 *
 * @param comm   the communicator.
 * @param send   this rank's operand; ignored where count is 0. Any alignment. Never modified, unless
 *               it is also recv.
 * @param recv   filled with the result; may be send; any other overlap is FMI_ERR_ARG.
 * @param count  the number of elements, the same on all ranks; may be 0.
 * @param type   their type, the same on all ranks.
 * @param op     the operation, the same on all ranks: FMI_SUM, ... or of fmi_op_create().
 * @return as fmi_reduce().
 */
fmi_status fmi_allreduce(fmi_comm *comm,
                         const void *send,
                         void *recv,
                         size_t count,
                         fmi_datatype type,
                         fmi_op op);

/**
 * Combines, element by element, the buffers of the ranks from 0 to this one
 * (inclusive scan). A collective: all ranks call it, in the same order among
 * their collectives. On the order of operands see fmi_reduce().
 *
 * @param comm   the communicator.
 * @param send   this rank's operand; ignored where count is 0. Any alignment. Never modified, unless
 *               it is also recv.
 * @param recv   filled with the result; may be send; any other overlap is FMI_ERR_ARG.
 * @param count  the number of elements, the same on all ranks; may be 0.
 * @param type   their type, the same on all ranks.
 * @param op     the operation, the same on all ranks: FMI_SUM, ... or of fmi_op_create().
 * @return as fmi_reduce().
 */
fmi_status fmi_scan(fmi_comm *comm,
                    const void *send,
                    void *recv,
                    size_t count,
                    fmi_datatype type,
                    fmi_op op);

/**
 * Makes one of the library's channels. Does no network I/O: an absent server
 * shows at the first operation, and latency and price need none.
 *
 * @param kind          "Direct", "Redis", "S3" or "Memory" (between threads of one process),
 *                      NUL-terminated UTF-8.
 * @param params        its parameters, as a configuration has them under `backends`: a JSON object as
 *                      NUL-terminated UTF-8, or NULL or "" for the defaults.
 * @param model_params  its parameters for the model, as a configuration has them under `model`;
 *                      likewise.
 * @param rank          this rank, from 0 to size - 1.
 * @param size          the number of ranks.
 * @param name          name of the job, NUL-terminated UTF-8, the same on all ranks; may be empty. A
 *                      rank can be in a job of one name only once: a channel beside a communicator's
 *                      own needs another name.
 * @param out           the channel, to be freed with fmi_channel_destroy(); NULL on failure.
 * @return FMI_OK; FMI_ERR_NULL; FMI_ERR_ARG where there is no such kind, rank is not less than size,
 *         or a text is not UTF-8; FMI_ERR_CONFIG for wrong parameters; FMI_ERR_REENTRANT. A channel
 *         that is not in this build can be made and asked for latency and price; its operations are
 *         FMI_ERR_UNSUPPORTED.
 */
fmi_status fmi_channel_create(const char *kind,
                              const char *params,
                              const char *model_params,
                              uint32_t rank,
                              uint32_t size,
                              const char *name,
                              fmi_channel **out);

/**
 * Ends the use of the channel by itself, as fmi_comm_close() does of a
 * communicator. Communicators that it is registered with are not concerned.
 *
 * @param channel     the channel.
 * @param timeout_ms  how long to wait for the peers, in ms; FMI_TIMEOUT_NEVER = no limit.
 * @return as fmi_comm_close().
 */
fmi_status fmi_channel_close(fmi_channel *channel, uint32_t timeout_ms);

/**
 * Frees a channel, and leaves the job as fmi_comm_destroy() does where it was
 * used by itself. Communicators that it is registered with go on using it. Must
 * not be called while another thread is inside a call on the channel, and does
 * nothing inside a reduction function.
 *
 * @param channel  the channel; NULL does nothing.
 */
void fmi_channel_destroy(fmi_channel *channel);

/**
 * Sets how long a call on the channel may take, connecting included.
 *
 * @param channel     the channel.
 * @param timeout_ms  the time in ms; FMI_TIMEOUT_NEVER = no limit.
 * @return as fmi_comm_set_timeout().
 */
fmi_status fmi_channel_set_timeout(fmi_channel *channel, uint32_t timeout_ms);

/**
 * Has a communicator use a channel from its next operation on; pin it with
 * fmi_comm_set_channel() where it is not the only one. All ranks must register
 * alike. The communicator keeps what it needs of the channel: the handle may be
 * destroyed.
 *
 * @param comm     the communicator.
 * @param name     what the communicator calls the channel, NUL-terminated UTF-8, not empty. A channel
 *                 that has the name already is replaced and left in order, also one of the library's.
 * @param channel  the channel, for the same rank and size as the communicator.
 * @return FMI_OK; FMI_ERR_ARG where rank or size differ, or name is empty or not UTF-8;
 *         FMI_ERR_UNSUPPORTED where the channel is not in this build; FMI_ERR_IO; FMI_ERR_NULL;
 *         FMI_ERR_CLOSED; FMI_ERR_FORKED; FMI_ERR_REENTRANT.
 */
fmi_status fmi_comm_register_channel(fmi_comm *comm,
                                     const char *name,
                                     fmi_channel *channel);

/**
 * Tells what is known of the last failure of a call on this channel, as
 * fmi_comm_error_info() does.
 *
 * @param channel  the channel.
 * @param out      filled as far as out->struct_size, which the caller has set, reaches; untouched on
 *                 failure. `status` is FMI_OK where no call has failed.
 * @return FMI_OK; FMI_ERR_NULL; FMI_ERR_ARG where out->struct_size is too small for any field.
 */
fmi_status fmi_channel_error_info(const fmi_channel *channel,
                                  fmi_error_info *out);

/**
 * How long it takes until each of some ranks has the bytes of each of others,
 * as the model predicts. May be asked from any thread at any time.
 *
 * @param channel    the channel.
 * @param producers  the number of ranks that send.
 * @param consumers  the number of ranks that receive.
 * @param bytes      how many bytes each producer has for each consumer.
 * @param out        the time in ms; untouched on failure.
 * @return FMI_OK; FMI_ERR_NULL; FMI_ERR_REENTRANT.
 */
fmi_status fmi_channel_latency(const fmi_channel *channel,
                               uint32_t producers,
                               uint32_t consumers,
                               size_t bytes,
                               double *out);

/**
 * What such an exchange costs, as the model predicts. May be asked from any
 * thread at any time.
 *
 * @param channel    the channel.
 * @param producers  the number of ranks that send.
 * @param consumers  the number of ranks that receive.
 * @param bytes      how many bytes each producer has for each consumer.
 * @param out        the price in USD, without the time of the functions; untouched on failure.
 * @return FMI_OK; FMI_ERR_NULL; FMI_ERR_REENTRANT.
 */
fmi_status fmi_channel_price(const fmi_channel *channel,
                             uint32_t producers,
                             uint32_t consumers,
                             size_t bytes,
                             double *out);

/**
 * How long an operation takes among the channel's ranks, as the model predicts.
 * May be asked from any thread at any time.
 *
 * @param channel        the channel.
 * @param operation      one of FMI_OPERATION_SEND to FMI_OPERATION_SCAN.
 * @param bytes          what each rank passes, in bytes.
 * @param left_to_right  other than 0: a reduction whose operands are combined strictly from left to
 *                       right.
 * @param out            the time in ms; untouched on failure.
 * @return FMI_OK; FMI_ERR_ARG where there is no such operation; FMI_ERR_NULL; FMI_ERR_REENTRANT.
 */
fmi_status fmi_channel_operation_latency(const fmi_channel *channel,
                                         int32_t operation,
                                         size_t bytes,
                                         int32_t left_to_right,
                                         double *out);

/**
 * What an operation among the channel's ranks costs, as the model predicts. May
 * be asked from any thread at any time.
 *
 * @param channel        the channel.
 * @param operation      one of FMI_OPERATION_SEND to FMI_OPERATION_SCAN.
 * @param bytes          what each rank passes, in bytes.
 * @param left_to_right  other than 0: a reduction whose operands are combined strictly from left to
 *                       right.
 * @param out            the price in USD, without the time of the functions; untouched on failure.
 * @return FMI_OK; FMI_ERR_ARG where there is no such operation; FMI_ERR_NULL; FMI_ERR_REENTRANT.
 */
fmi_status fmi_channel_operation_price(const fmi_channel *channel,
                                       int32_t operation,
                                       size_t bytes,
                                       int32_t left_to_right,
                                       double *out);

/**
 * Stores an object in a client-server channel, as it is. For messages there is
 * fmi_channel_send().
 *
 * @param channel  the channel.
 * @param name     the object's name, NUL-terminated UTF-8.
 * @param data     the object; ignored where len is 0.
 * @param len      its length in bytes.
 * @return FMI_OK; FMI_ERR_UNSUPPORTED where the channel keeps no objects, or is not in this build;
 *         FMI_ERR_CALLBACK where a function of yours failed; FMI_ERR_ARG where name is not UTF-8;
 *         FMI_ERR_NULL; FMI_ERR_BUSY; FMI_ERR_REENTRANT.
 */
fmi_status fmi_channel_upload(fmi_channel *channel, const char *name, const void *data, size_t len);

/**
 * Looks for an object in a client-server channel. Does not wait for one.
 *
 * @param channel   the channel.
 * @param name      the object's name, NUL-terminated UTF-8.
 * @param buf       filled with the object, as far as both reach; ignored where capacity is 0.
 * @param capacity  the size of buf in bytes.
 * @param found     1 = there was one, 0 = there was none; untouched on failure.
 * @return as fmi_channel_upload().
 */
fmi_status fmi_channel_download(fmi_channel *channel,
                                const char *name,
                                void *buf,
                                size_t capacity,
                                int32_t *found);

/**
 * Removes an object from a client-server channel, if there is one.
 *
 * @param channel  the channel.
 * @param name     the object's name, NUL-terminated UTF-8.
 * @return as fmi_channel_upload().
 */
fmi_status fmi_channel_delete(fmi_channel *channel, const char *name);

/**
 * Calls a function with the name of every object of a client-server channel.
 *
 * @param channel  the channel.
 * @param visit    called with user and a name, which is UTF-8 and lives until it returns. Other than 0
 *                 ends the visit. May not unwind.
 * @param user     passed to visit.
 * @return as fmi_channel_upload(); FMI_ERR_CALLBACK also where visit returned other than 0.
 */
fmi_status fmi_channel_list(fmi_channel *channel,
                            int32_t (*visit)(void *user, const char *name),
                            void *user);

/**
 * Makes a channel of your own. The functions are copied.
 *
 * @param vtable  the functions.
 * @param user    passed to all of them.
 * @param rank    this rank, from 0 to size - 1.
 * @param size    the number of ranks.
 * @param name    name of the job, NUL-terminated UTF-8, the same on all ranks; may be empty.
 * @param out     the channel, to be freed with fmi_channel_destroy(); NULL on failure.
 * @return FMI_OK; FMI_ERR_NULL also where a function is missing that the family needs; FMI_ERR_ARG
 *         for an unknown family or flags, a struct_size that is too small, rank not less than size, or
 *         a name that is not UTF-8; FMI_ERR_REENTRANT.
 */
fmi_status fmi_channel_create_custom(const fmi_channel_vtable *vtable,
                                     void *user,
                                     uint32_t rank,
                                     uint32_t size,
                                     const char *name,
                                     fmi_channel **out);

/**
 * How a whole channel's reduction may combine its operands.
 *
 * @param reduction  what the channel's function was given.
 * @return FMI_OP_COMMUTATIVE, FMI_OP_ASSOCIATIVE and FMI_OP_ELEMENTWISE, or-ed: what may be relied on,
 *         as in fmi_op_create(); FMI_ERR_NULL.
 */
int32_t fmi_reduction_flags(const fmi_reduction *reduction);

/**
 * Combines two operands of a whole channel's reduction: inout = inout . in. May be
 * called from a reduction function, too, by which the channel has another do the work.
 *
 * @param reduction  what the channel's function was given.
 * @param inout      the left operand (of the lower ranks), to be replaced by the result. Any alignment.
 * @param in         the right operand, which must not overlap inout; what it holds afterwards is not
 *                   specified: never give it the buffer that is to be sent.
 * @param len        the length of each in bytes: that of the channel's function, or a part of it where
 *                   the reduction is element-wise.
 * @return FMI_OK; FMI_ERR_CALLBACK where the user's function failed; FMI_ERR_ARG for a length that
 *         cannot be, and where the operands overlap; FMI_ERR_NULL; FMI_ERR_NOMEM.
 */
fmi_status fmi_reduction_apply(const fmi_reduction *reduction,
                               void *inout,
                               void *in,
                               size_t len);

/**
 * Sends a message over the channel, as fmi_send() does.
 *
 * @param channel  the channel.
 * @param buf      the message; ignored where len is 0. Never modified.
 * @param len      its length in bytes; may be 0.
 * @param dest     the rank that receives it; may be this one.
 * @return as fmi_send().
 */
fmi_status fmi_channel_send(fmi_channel *channel, const void *buf, size_t len, uint32_t dest);

/**
 * Receives a message of exactly len bytes over the channel, as fmi_recv() does.
 *
 * @param channel  the channel.
 * @param buf      filled with the message; ignored where len is 0.
 * @param len      the length of the message in bytes; may be 0.
 * @param src      the rank that sends it; may be this one.
 * @return as fmi_recv().
 */
fmi_status fmi_channel_recv(fmi_channel *channel, void *buf, size_t len, uint32_t src);

/**
 * Gives the root's buffer to all over the channel, as fmi_bcast() does.
 *
 * @param channel  the channel.
 * @param buf      at the root what all shall have, elsewhere filled with it; ignored where len
 *                 is 0.
 * @param len      its length in bytes, the same on all ranks; may be 0.
 * @param root     the rank whose buffer counts, the same on all ranks.
 * @return as fmi_bcast().
 */
fmi_status fmi_channel_bcast(fmi_channel *channel, void *buf, size_t len, uint32_t root);

/**
 * Returns when all ranks have called it on their channels, as fmi_barrier() does.
 *
 * @param channel  the channel.
 * @return as fmi_barrier().
 */
fmi_status fmi_channel_barrier(fmi_channel *channel);

/**
 * Collects a block of every rank at the root over the channel, as fmi_gather() does.
 *
 * @param channel   the channel.
 * @param send      this rank's block; ignored where send_len is 0.
 * @param send_len  the length of a block in bytes, the same on all ranks; may be 0.
 * @param recv      at the root, filled with all blocks; elsewhere ignored, whatever it is.
 * @param recv_len  at the root, size * send_len; elsewhere ignored.
 * @param root      the rank that gets the blocks, the same on all ranks.
 * @return as fmi_gather().
 */
fmi_status fmi_channel_gather(fmi_channel *channel,
                              const void *send,
                              size_t send_len,
                              void *recv,
                              size_t recv_len,
                              uint32_t root);

/**
 * Gives every rank its block of the root's buffer over the channel, as fmi_scatter() does.
 *
 * @param channel   the channel.
 * @param send      at the root, the blocks of all ranks; elsewhere ignored, whatever it is.
 * @param send_len  at the root, size * recv_len; elsewhere ignored.
 * @param recv      filled with this rank's block; ignored where recv_len is 0.
 * @param recv_len  the length of a block in bytes, the same on all ranks; may be 0.
 * @param root      the rank whose buffer counts, the same on all ranks.
 * @return as fmi_scatter().
 */
fmi_status fmi_channel_scatter(fmi_channel *channel,
                               const void *send,
                               size_t send_len,
                               void *recv,
                               size_t recv_len,
                               uint32_t root);

/**
 * Combines the buffers of all ranks at the root over the channel, as fmi_reduce() does.
 *
 * @param channel  the channel.
 * @param send     this rank's operand; ignored where count is 0.
 * @param recv     at the root, filled with the result; may be send. Elsewhere ignored, whatever
 *                 it is.
 * @param count    the number of elements, the same on all ranks; may be 0.
 * @param type     their type, the same on all ranks.
 * @param op       the operation, the same on all ranks: FMI_SUM, ... or of fmi_op_create().
 * @param root     the rank that gets the result, the same on all ranks.
 * @return as fmi_reduce().
 */
fmi_status fmi_channel_reduce(fmi_channel *channel,
                              const void *send,
                              void *recv,
                              size_t count,
                              fmi_datatype type,
                              fmi_op op,
                              uint32_t root);

/**
 * Combines the buffers of all ranks at all of them over the channel, as fmi_allreduce()
 * does.
 *
 * @param channel  the channel.
 * @param send     this rank's operand; ignored where count is 0.
 * @param recv     filled with the result; may be send.
 * @param count    the number of elements, the same on all ranks; may be 0.
 * @param type     their type, the same on all ranks.
 * @param op       the operation, the same on all ranks: FMI_SUM, ... or of fmi_op_create().
 * @return as fmi_allreduce().
 */
fmi_status fmi_channel_allreduce(fmi_channel *channel,
                                 const void *send,
                                 void *recv,
                                 size_t count,
                                 fmi_datatype type,
                                 fmi_op op);

/**
 * Combines the buffers of the ranks from 0 to this one over the channel, as fmi_scan()
 * does.
 *
 * @param channel  the channel.
 * @param send     this rank's operand; ignored where count is 0.
 * @param recv     filled with the result; may be send.
 * @param count    the number of elements, the same on all ranks; may be 0.
 * @param type     their type, the same on all ranks.
 * @param op       the operation, the same on all ranks: FMI_SUM, ... or of fmi_op_create().
 * @return as fmi_scan().
 */
fmi_status fmi_channel_scan(fmi_channel *channel,
                            const void *send,
                            void *recv,
                            size_t count,
                            fmi_datatype type,
                            fmi_op op);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* FMI_H */

#if defined(__cplusplus) && __cplusplus >= 201703L && !defined(FMI_SKIP_CXX) && !defined(FMI_INSIDE_CXX_LAYER)
#include "Communicator.h"
#endif
