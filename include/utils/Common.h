/*
 * The words that all parts of the C++ layer share.
 */
#ifndef FMI_UTILS_COMMON_H
#define FMI_UTILS_COMMON_H

#include <cstddef>
#include <exception>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "CApi.h"

/** A buffer that belongs to somebody else: where it begins, and its length in bytes. */
struct channel_data {
    char *buf;
    std::size_t len;
};

/**
 * Combines two buffers of one length: the second into the first. The second
 * one may be written to as well; it is never the buffer that a caller sends.
 */
using raw_func = std::function<void(char *, char *)>;

/** A reduction on buffers, and what may be relied on. */
struct raw_function {
    raw_func f;
    bool associative;
    bool commutative;
};

namespace FMI::Utils {

/** The number of a rank, or of ranks. */
using peer_num = unsigned int;

/** What the choice of a channel goes by: least latency, or least price. */
enum Hint { fast, cheap };

/** An operation, for the choice of a channel. A receive counts as send. */
enum Operation { send, bcast, barrier, gather, scatter, reduce, allreduce, scan };

/** What a channel is asked for: how long would this take, what would it cost? */
struct OperationInfo {
    Operation op;
    /** The bytes that every rank passes. */
    std::size_t data_size;
    /** Whether a reduction has to go strictly from left to right by rank. */
    bool left_to_right = false;
};

/**
 * The time was over: of this rank's call (FMI_ERR_TIMEOUT), of the first call
 * that failed on any rank, or for good, because the peer left in order
 * (FMI_ERR_PEER_LEFT). Channels of your own throw it too.
 */
struct Timeout : std::exception {
    Timeout() noexcept = default;

    /** @param message  what what() shall return. */
    explicit Timeout(std::string message) : text(std::make_shared<const std::string>(std::move(message))) {}

    const char *what() const noexcept override { return text ? text->c_str() : "Timeout was reached"; }

private:
    /* Shared, because a copy of an exception must not throw. */
    std::shared_ptr<const std::string> text;
};

} // namespace FMI::Utils

#endif /* FMI_UTILS_COMMON_H */
