/*
 * What operations send and receive.
 */
#ifndef FMI_COMM_DATA_H
#define FMI_COMM_DATA_H

#include <cstddef>
#include <ostream>
#include <stdexcept>
#include <type_traits>
#include <utility>
#include <vector>

#include "../utils/CApi.h"

namespace FMI::Comm {

/** One value. Only those of fundamental types can be sent. */
template <typename T>
class Data {
public:
    Data() = default;
    Data(T initial) : value(std::move(initial)) {}

    /** @throws std::runtime_error  for a type that is not fundamental. */
    std::size_t size_in_bytes() const
    {
        if constexpr (!std::is_fundamental_v<T>) {
            throw std::runtime_error("FMI: only values of fundamental types, vectors and void* can be sent");
        }
        return sizeof(T);
    }

    char *data() { return reinterpret_cast<char *>(&value); }

    T get() const { return value; }

    friend bool operator==(const Data &a, const Data &b) { return a.value == b.value; }

    friend std::ostream &operator<<(std::ostream &out, const Data &data) { return out << data.value; }

private:
    T value{};
};

/** A vector, which goes as the bytes of its elements. Its length is what is sent, and expected. */
template <typename A>
class Data<std::vector<A>> {
public:
    Data() = default;
    Data(std::size_t count) : elements(count) {}
    Data(std::vector<A> initial) : elements(std::move(initial)) {}

    /** @throws std::runtime_error  for elements that are more than their bytes, such as strings. */
    std::size_t size_in_bytes() const
    {
        if constexpr (!std::is_trivially_copyable_v<A>) {
            throw std::runtime_error("FMI: only vectors of trivially copyable elements can be sent");
        }
        return elements.size() * sizeof(A);
    }

    char *data() { return reinterpret_cast<char *>(elements.data()); }

    /** A copy of the vector. */
    std::vector<A> get() const { return elements; }

    /** The vector itself. */
    std::vector<A> &values() noexcept { return elements; }
    const std::vector<A> &values() const noexcept { return elements; }

private:
    std::vector<A> elements;
};

/** Memory of your own, which must live as long as this object is used. */
template <>
class Data<void *> {
public:
    Data() = default;
    Data(void *memory, std::size_t bytes) : buffer(memory), length(bytes) {}

    std::size_t size_in_bytes() const { return length; }

    char *data() { return static_cast<char *>(buffer); }

    void *get() { return buffer; }

private:
    void *buffer = nullptr;
    std::size_t length = 0;
};

} // namespace FMI::Comm

#endif /* FMI_COMM_DATA_H */
