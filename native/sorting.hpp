// Rows by class and image, and detections by score: counting and radix sorts, all of them stable.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "memory.hpp"

namespace striate {

// Rows are visited in an order that the processor cannot foresee: it is told some steps ahead.
inline constexpr size_t kAhead = 16;

inline void fetch([[maybe_unused]] const void *p) {
#if defined(__GNUC__)
    __builtin_prefetch(p);
#endif
}

// Rows ordered by category, then image, then as given.
template <typename Row>
struct Grouped {
    Large<Row> rows;
    std::vector<size_t> start;  // of each category, and the end
};

// Two stable counting sorts; `make` turns a row number into a Row, `look_ahead` is told which one comes soon. Rows with a negative image or category
// are left out.
template <typename Row, typename Make, typename LookAhead>
Grouped<Row> group(const int32_t *image, const int32_t *category, int64_t n, int64_t images, int64_t categories, Make make, LookAhead look_ahead) {
    std::vector<size_t> at(static_cast<size_t>(images) + 1, 0);
    Grouped<Row> out;
    out.start.assign(static_cast<size_t>(categories) + 1, 0);
    for (int64_t i = 0; i < n; ++i) {
        if (image[i] < 0 || category[i] < 0) continue;
        ++at[static_cast<size_t>(image[i]) + 1];
        ++out.start[static_cast<size_t>(category[i]) + 1];
    }
    for (size_t i = 1; i < at.size(); ++i) at[i] += at[i - 1];
    for (size_t k = 1; k < out.start.size(); ++k) out.start[k] += out.start[k - 1];
    Large<int32_t> by_image(at.back(), true);
    for (int64_t i = 0; i < n; ++i) {
        if (image[i] < 0 || category[i] < 0) continue;
        by_image[at[static_cast<size_t>(image[i])]++] = static_cast<int32_t>(i);
    }
    out.rows = Large<Row>(by_image.size(), true);
    std::vector<size_t> next(out.start);
    for (size_t i = 0; i < by_image.size(); ++i) {
        const int32_t row = by_image[i];
        if (i + kAhead < by_image.size()) look_ahead(by_image[i + kAhead]);
        out.rows[next[static_cast<size_t>(category[row])]++] = make(row);
    }
    return out;
}

// A key that ascends as the score descends; NaN last, both zeros alike, as NumPy sorts -score.
inline uint64_t descending(double score) {
    if (score != score) return std::numeric_limits<uint64_t>::max();
    if (score == 0) score = 0;
    uint64_t bits;
    std::memcpy(&bits, &score, sizeof bits);
    const uint64_t ascending = (bits >> 63) ? ~bits : bits | (uint64_t{1} << 63);
    return ~ascending;
}

struct Entry {
    uint32_t key, at;  // the upper half of the key of a score, and which row it is of
};

// Stable radix sort by the upper halves of the keys, digits that are all alike skipped.
inline void sort_upper_halves(std::vector<Entry> &items, std::vector<Entry> &spare) {
    constexpr int kBits = 11, kPasses = 3, kBuckets = 1 << kBits;
    const size_t n = items.size();
    if (n < 400) {
        std::stable_sort(items.begin(), items.end(), [](const Entry &a, const Entry &b) { return a.key < b.key; });
        return;
    }
    uint32_t counts[kPasses][kBuckets] = {};
    for (const Entry &item : items)
        for (int pass = 0; pass < kPasses; ++pass) ++counts[pass][(item.key >> (pass * kBits)) & (kBuckets - 1)];
    spare.resize(n);
    for (int pass = 0; pass < kPasses; ++pass) {
        uint32_t *count = counts[pass];
        if (count[(items[0].key >> (pass * kBits)) & (kBuckets - 1)] == n) continue;
        uint32_t total = 0;
        for (int b = 0; b < kBuckets; ++b) {
            const uint32_t here = count[b];
            count[b] = total;
            total += here;
        }
        for (const Entry &item : items) spare[count[(item.key >> (pass * kBits)) & (kBuckets - 1)]++] = item;
        items.swap(spare);
    }
}

// Entries of equal keys ordered by the lower halves of their keys.
template <typename LowerHalf>
void order_equal_halves(std::vector<Entry> &items, LowerHalf lower_half) {
    for (size_t begin = 0, end; begin < items.size(); begin = end) {
        const uint32_t key = items[begin].key;
        end = begin + 1;
        if (end == items.size() || items[end].key != key) continue;
        bool differ = false;
        const uint32_t lower = lower_half(items[begin]);
        for (; end < items.size() && items[end].key == key; ++end) differ |= lower_half(items[end]) != lower;
        if (!differ) continue;
        std::stable_sort(&items[begin], &items[begin] + (end - begin),
                         [&](const Entry &a, const Entry &b) { return lower_half(a) < lower_half(b); });
    }
}

}  // namespace striate
