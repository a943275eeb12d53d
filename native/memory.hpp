// Memory that is about to be filled. Most of what a fresh array costs is the system's work for each page that
// is touched for the first time; asked for together, and as large pages where there are any, they cost a fraction.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>
#include <type_traits>
#include <utility>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace striate {

using std::int32_t;
using std::int64_t;
using std::size_t;
using std::uint32_t;
using std::uint64_t;

#if defined(MADV_HUGEPAGE) && defined(MADV_POPULATE_WRITE)
inline constexpr std::size_t kPage = 4096, kLargePage = std::size_t{1} << 21;

// Whole pages inside the array; refusals of older systems change nothing.
inline void advise(const void *data, std::size_t bytes, int advice) {
    const std::uintptr_t first = (reinterpret_cast<std::uintptr_t>(data) + kPage - 1) / kPage * kPage;
    const std::uintptr_t last = (reinterpret_cast<std::uintptr_t>(data) + bytes) / kPage * kPage;
    if (last >= first + 16 * kPage) madvise(reinterpret_cast<void *>(first), last - first, advice);
}

// The whole array will be written.
inline void will_write(void *data, std::size_t bytes) {
    if (bytes >= kLargePage) advise(data, bytes, MADV_HUGEPAGE);
    advise(data, bytes, MADV_POPULATE_WRITE);
}
#else
inline void will_write(void *, std::size_t) {}
#endif

// A fixed number of plain values, not set to zero; of all of them if `full`.
template <typename T>
class Large {
    static_assert(std::is_trivially_copyable<T>::value, "values are neither constructed nor destroyed");

  public:
    Large() = default;
    explicit Large(std::size_t size, bool full) : data_(static_cast<T *>(std::malloc(size * sizeof(T) + 1))), size_(size) {
        if (!data_) throw std::bad_alloc();
        if (full) will_write(data_, size * sizeof(T));
    }
    Large(Large &&other) noexcept : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
    Large &operator=(Large &&other) noexcept {
        std::swap(data_, other.data_);
        std::swap(size_, other.size_);
        return *this;
    }
    ~Large() { std::free(data_); }

    T *data() { return data_; }
    const T *data() const { return data_; }
    std::size_t size() const { return size_; }
    T &operator[](std::size_t i) { return data_[i]; }
    const T &operator[](std::size_t i) const { return data_[i]; }
    T *begin() { return data_; }
    T *end() { return data_ + size_; }

  private:
    T *data_ = nullptr;
    std::size_t size_ = 0;
};

}  // namespace striate
