/*
 * How failures cross the C API, in both directions: statuses become
 * exceptions, and an exception in a callback goes round the C frames, which it
 * must not cross, to the call that the callback belongs to.
 */
#ifndef FMI_UTILS_ERRORS_H
#define FMI_UTILS_ERRORS_H

#include <cstddef>
#include <cstdint>
#include <exception>
#include <stdexcept>
#include <string>
#include <utility>

#include "CApi.h"
#include "Common.h"

namespace FMI::detail {

/** A failure that the library reports, other than a Utils::Timeout. what() is the library's own message. */
class Error : public std::runtime_error {
public:
    Error(const std::string &message, const fmi_error_info &details) : std::runtime_error(message), info(details) {}

    /** The status: FMI_ERR_... */
    fmi_status status() const noexcept { return info.status; }

    /** The first failure that led to this one, perhaps on another rank; else the same as status(). */
    fmi_status cause() const noexcept { return info.cause; }

    /** The rank that the failure concerns; -1 = none. */
    int peer() const noexcept { return info.peer; }

    /** The channel's name; empty = none. */
    const char *channel() const noexcept { return info.channel; }

private:
    fmi_error_info info;
};

/**
 * A call into the library that may call back: on the stack while it runs, and
 * the innermost one of its thread in `current`.
 */
struct Call {
    explicit Call(const raw_function *by = nullptr) noexcept : reduction(by), outer(current)
    {
        current = this;
    }
    ~Call() { current = outer; }
    Call(const Call &) = delete;
    Call &operator=(const Call &) = delete;

    /** What a callback of this call threw. */
    std::exception_ptr thrown;
    /** What the call reduces by, where that is a function. */
    const raw_function *const reduction;

    /* A plain pointer, because it must work while the thread or the process ends. */
    static thread_local Call *current;

private:
    Call *const outer;
};

inline thread_local Call *Call::current = nullptr;

/** This thread's last failure (fmi_last_error_message()). */
inline std::string last_error_message()
{
    std::string text(fmi_last_error_message(nullptr, 0) + 1, '\0');
    text.resize(fmi_last_error_message(text.data(), text.size()));
    return text;
}

/** What is known of the last failure of a call on `comm` (fmi_comm_error_info()). */
inline void describe(const fmi_comm *comm, fmi_error_info &info) noexcept { fmi_comm_error_info(comm, &info); }

/** What is known of the last failure of a call on `channel` (fmi_channel_error_info()). */
inline void describe(const fmi_channel *channel, fmi_error_info &info) noexcept
{
    fmi_channel_error_info(channel, &info);
}

/** Nothing is known but the status, where there is no handle. */
inline void describe(std::nullptr_t, fmi_error_info &) noexcept {}

/** Throws what `status` stands for: Utils::Timeout or Error. */
template <typename Handle>
[[noreturn]] void fail(fmi_status status, Handle handle)
{
    const std::string message = last_error_message();
    fmi_error_info info{};
    info.struct_size = sizeof info;
    describe(handle, info);
    if (info.status != status) {
        info = fmi_error_info{};
        info.status = info.cause = status;
        info.peer = info.cause_rank = -1;
    }
    const auto is_timeout = [](fmi_status code) { return code == FMI_ERR_TIMEOUT || code == FMI_ERR_PEER_LEFT; };
    const bool has_cause = status == FMI_ERR_POISONED || status == FMI_ERR_ABORTED || status == FMI_ERR_CALLBACK;
    if (is_timeout(status) || (has_cause && is_timeout(info.cause))) {
        throw Utils::Timeout(message);
    }
    throw Error(message, info);
}

/** Throws if a call without handle and without callbacks failed. */
inline void check(fmi_status status)
{
    if (status < FMI_OK) {
        fail(status, nullptr);
    }
}

/**
 * Makes a call that may call back. What a callback threw is thrown on; any
 * other failure becomes a Utils::Timeout or an Error.
 *
 * @param handle     what the call works on, to be asked about a failure; nullptr where there is none.
 * @param function   makes the call and returns its status.
 * @param reduction  what the call reduces by, if anything.
 */
template <typename Handle, typename Function>
void call(Handle handle, Function &&function, const raw_function *reduction = nullptr)
{
    Call running(reduction);
    const fmi_status status = function();
    if (status >= FMI_OK) {
        return;
    }
    if (status == FMI_ERR_CALLBACK && running.thrown) {
        std::rethrow_exception(running.thrown);
    }
    fail(status, handle);
}

/**
 * The frame of every callback: what `body` throws is kept for the call that
 * the callback belongs to.
 *
 * @return what the callback shall return: 0, or a failure.
 */
template <typename Body>
std::int32_t callback(Body &&body) noexcept
{
    /* What the body calls is not part of our call. */
    Call *const call = std::exchange(Call::current, nullptr);
    std::int32_t result = 0;
    try {
        body();
    } catch (const Utils::Timeout &) {
        result = FMI_ERR_TIMEOUT;
        if (call) {
            call->thrown = std::current_exception();
        }
    } catch (...) {
        result = 1;
        if (call) {
            call->thrown = std::current_exception();
        }
    }
    Call::current = call;
    return result;
}

} // namespace FMI::detail

#endif /* FMI_UTILS_ERRORS_H */
