/*
 * Reduction functions on values.
 */
#ifndef FMI_UTILS_FUNCTION_H
#define FMI_UTILS_FUNCTION_H

#include <functional>
#include <utility>

#include "CApi.h"

namespace FMI::Utils {

/**
 * A function that combines two values of the ranks, the left one of the lower
 * ranks, and what may be relied on: unless it is both commutative and
 * associative, values are combined strictly from left to right by rank.
 *
 * Of a std::vector the function combines whole vectors, and returns one of the
 * same length. The built-in operations in FMI::Ops need no function and no copy.
 */
template <typename T>
class Function {
public:
    Function(std::function<T(T, T)> combine, bool is_commutative, bool is_associative)
        : commutative(is_commutative), associative(is_associative), f(std::move(combine))
    {
    }

    T operator()(T a, T b) const { return f(std::move(a), std::move(b)); }

    bool commutative;
    bool associative;

private:
    std::function<T(T, T)> f;
};

} // namespace FMI::Utils

#endif /* FMI_UTILS_FUNCTION_H */
