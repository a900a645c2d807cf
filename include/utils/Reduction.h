/*
 * Reductions: the built-in operations by name, and how functions on values and
 * on buffers become operations of the C API.
 */
#ifndef FMI_UTILS_REDUCTION_H
#define FMI_UTILS_REDUCTION_H

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <type_traits>
#include <utility>
#include <vector>

#include "CApi.h"
#include "Common.h"
#include "Errors.h"
#include "Function.h"

namespace FMI::detail {

/** The fmi_datatype of T; 0 = none. */
template <typename T>
constexpr fmi_datatype datatype_of() noexcept
{
    if constexpr (std::is_same_v<T, float>) {
        return FMI_FLOAT;
    } else if constexpr (std::is_same_v<T, double>) {
        return FMI_DOUBLE;
    } else if constexpr (std::is_integral_v<T> && std::is_signed_v<T>) {
        return sizeof(T) == 1 ? FMI_INT8 : sizeof(T) == 2 ? FMI_INT16 : sizeof(T) == 4 ? FMI_INT32 : FMI_INT64;
    } else if constexpr (std::is_integral_v<T>) {
        return sizeof(T) == 1 ? FMI_UINT8 : sizeof(T) == 2 ? FMI_UINT16 : sizeof(T) == 4 ? FMI_UINT32 : FMI_UINT64;
    } else {
        return 0;
    }
}

} // namespace FMI::detail

namespace FMI::detail {

/** What the built-in operations combine in a Data<T>: the value, or the elements of the vector. */
template <typename T>
struct Element {
    using type = T;
};

template <typename A>
struct Element<std::vector<A>> {
    using type = A;
};

} // namespace FMI::detail

/** The library's own operations, which need no function of yours, no copy, and may be split. */
namespace FMI::Ops {

/**
 * An operation of the library on values of type E, or element by element on
 * vectors of them.
 */
template <typename E>
struct BuiltIn {
    /** FMI_SUM, ... */
    fmi_op op;
};

/** Sum; of integers it wraps. */
template <typename E>
constexpr BuiltIn<E> sum() noexcept
{
    static_assert(detail::datatype_of<E>() != 0, "the built-in operations are for integers, float and double");
    static_assert(!std::is_same_v<E, bool>, "a sum of bool is no bool: use lor()");
    return {FMI_SUM};
}

/** Product; of integers it wraps. */
template <typename E>
constexpr BuiltIn<E> prod() noexcept
{
    static_assert(detail::datatype_of<E>() != 0, "the built-in operations are for integers, float and double");
    static_assert(!std::is_same_v<E, bool>, "use land()");
    return {FMI_PROD};
}

/** Minimum; NaN, if one is among the operands. */
template <typename E>
constexpr BuiltIn<E> min() noexcept
{
    static_assert(detail::datatype_of<E>() != 0, "the built-in operations are for integers, float and double");
    return {FMI_MIN};
}

/** Maximum; NaN, if one is among the operands. */
template <typename E>
constexpr BuiltIn<E> max() noexcept
{
    static_assert(detail::datatype_of<E>() != 0, "the built-in operations are for integers, float and double");
    return {FMI_MAX};
}

/** Logical and, of integers: 0 or 1. */
template <typename E>
constexpr BuiltIn<E> land() noexcept
{
    static_assert(std::is_integral_v<E>, "logical operations are for integers");
    return {FMI_LAND};
}

/** Logical or, of integers: 0 or 1. */
template <typename E>
constexpr BuiltIn<E> lor() noexcept
{
    static_assert(std::is_integral_v<E>, "logical operations are for integers");
    return {FMI_LOR};
}

/** Logical exclusive or, of integers: 0 or 1. */
template <typename E>
constexpr BuiltIn<E> lxor() noexcept
{
    static_assert(std::is_integral_v<E>, "logical operations are for integers");
    return {FMI_LXOR};
}

/** Bitwise and, of integers. */
template <typename E>
constexpr BuiltIn<E> band() noexcept
{
    static_assert(std::is_integral_v<E>, "bitwise operations are for integers");
    return {FMI_BAND};
}

/** Bitwise or, of integers. */
template <typename E>
constexpr BuiltIn<E> bor() noexcept
{
    static_assert(std::is_integral_v<E>, "bitwise operations are for integers");
    return {FMI_BOR};
}

/** Bitwise exclusive or, of integers. */
template <typename E>
constexpr BuiltIn<E> bxor() noexcept
{
    static_assert(std::is_integral_v<E>, "bitwise operations are for integers");
    return {FMI_BXOR};
}

} // namespace FMI::Ops

namespace FMI::detail {

/** Whether operands may be combined in any bracketing. The original asks for both properties. */
inline bool is_ordered(bool commutative, bool associative) noexcept { return !(commutative && associative); }

/**
 * The fmi_reduce_fn of every reduction by a function: what the call at work
 * reduces by. The second operand is the library's own copy, which the header
 * calls const for the sake of other functions.
 */
inline std::int32_t combine(void *, void *inout, const void *in, std::size_t, fmi_datatype)
{
    const Call *const call = Call::current;
    if (!call || !call->reduction) {
        return FMI_ERR_INTERNAL;
    }
    const raw_func &f = call->reduction->f;
    return callback([&] { f(static_cast<char *>(inout), static_cast<char *>(const_cast<void *>(in))); });
}

/** Makes an operation that combine() carries out (fmi_op_create()). */
inline fmi_op make_op(std::uint32_t flags)
{
    fmi_op op = 0;
    check(fmi_op_create(combine, nullptr, nullptr, flags, 0, &op));
    return op;
}

/**
 * The operation to give to the library with `function`, on FMI_BYTE. There
 * are two in a process, made when first needed: one strictly from left to
 * right, one in any order.
 */
inline fmi_op op_of(const raw_function &function)
{
    if (is_ordered(function.commutative, function.associative)) {
        static const fmi_op ordered = make_op(0);
        return ordered;
    }
    static const fmi_op unordered = make_op(FMI_OP_COMMUTATIVE | FMI_OP_ASSOCIATIVE);
    return unordered;
}

/** How a Function<T> works on a buffer: the values are taken out, combined, and put back. */
template <typename T>
struct Combiner {
    const Utils::Function<T> *function;
    std::size_t bytes;

    void operator()(char *inout, char *in) const
    {
        /* Data refuses all others. */
        if constexpr (std::is_fundamental_v<T>) {
            T a;
            T b;
            std::memcpy(&a, inout, sizeof a);
            std::memcpy(&b, in, sizeof b);
            a = (*function)(a, b);
            std::memcpy(inout, &a, sizeof a);
        }
    }
};

/** Of vectors, whole ones: three copies, two allocations, and what the function itself does. */
template <typename A>
struct Combiner<std::vector<A>> {
    const Utils::Function<std::vector<A>> *function;
    std::size_t bytes;

    void operator()(char *inout, char *in) const
    {
        /* Data refuses all others. */
        if constexpr (std::is_trivially_copyable_v<A>) {
            const std::vector<A> result = (*function)(load(inout), load(in));
            if (result.size() * sizeof(A) != bytes) {
                throw std::runtime_error("FMI: the reduction function returned a vector of another length");
            }
            if (bytes > 0) {
                std::memcpy(inout, result.data(), bytes);
            }
        }
    }

private:
    std::vector<A> load(const char *buffer) const
    {
        /* The library aligns operands; a channel of the user's may not. */
        if (reinterpret_cast<std::uintptr_t>(buffer) % alignof(A) == 0) {
            const A *const first = reinterpret_cast<const A *>(buffer);
            return std::vector<A>(first, first + bytes / sizeof(A));
        }
        std::vector<A> elements(bytes / sizeof(A));
        std::memcpy(elements.data(), buffer, bytes);
        return elements;
    }
};

/** Of memory, where it lies: the function is given the addresses, and returns that of the result. */
template <>
struct Combiner<void *> {
    const Utils::Function<void *> *function;
    std::size_t bytes;

    void operator()(char *inout, char *in) const
    {
        const void *const result = (*function)(inout, in);
        if (result != inout && bytes > 0) {
            std::memmove(inout, result, bytes);
        }
    }
};

/** `function` on buffers of `bytes` bytes. Must not outlive it. */
template <typename T>
raw_function on_buffers(const Utils::Function<T> &function, std::size_t bytes)
{
    return {Combiner<T>{&function, bytes}, function.associative, function.commutative};
}

} // namespace FMI::detail

#endif /* FMI_UTILS_REDUCTION_H */
