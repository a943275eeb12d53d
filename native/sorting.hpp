// Rows by class and image, and detections by score: counting and radix sorts, all of them stable.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

namespace striate {

using std::int32_t;
using std::int64_t;
using std::size_t;
using std::uint32_t;
using std::uint64_t;

// Row numbers ordered by category, then image, then as given: two stable counting sorts.
struct Grouped {
    std::vector<int32_t> rows;
    std::vector<int64_t> start;  // of each category, and the end
};

inline Grouped group(const int32_t *image, const int32_t *category, int64_t n, int64_t images, int64_t categories) {
    std::vector<int64_t> at(static_cast<size_t>(images) + 1, 0);
    Grouped out;
    out.start.assign(static_cast<size_t>(categories) + 1, 0);
    for (int64_t i = 0; i < n; ++i) {
        if (image[i] < 0 || category[i] < 0) continue;
        ++at[static_cast<size_t>(image[i]) + 1];
        ++out.start[static_cast<size_t>(category[i]) + 1];
    }
    for (size_t i = 1; i < at.size(); ++i) at[i] += at[i - 1];
    for (size_t k = 1; k < out.start.size(); ++k) out.start[k] += out.start[k - 1];
    std::vector<int32_t> by_image(static_cast<size_t>(at.back()));
    for (int64_t i = 0; i < n; ++i) {
        if (image[i] < 0 || category[i] < 0) continue;
        by_image[static_cast<size_t>(at[static_cast<size_t>(image[i])]++)] = static_cast<int32_t>(i);
    }
    out.rows.resize(by_image.size());
    std::vector<int64_t> next(out.start);
    for (int32_t row : by_image) out.rows[static_cast<size_t>(next[static_cast<size_t>(category[row])]++)] = row;
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

struct Keyed {
    uint64_t key;
    int32_t row;   // of the detection
    int32_t rank;  // by score in its image and class; in the sort over images: where its masks are
};

inline void sort_small(Keyed *first, size_t n) {  // stable
    if (n > 24) {
        std::stable_sort(first, first + n, [](const Keyed &a, const Keyed &b) { return a.key < b.key; });
        return;
    }
    for (size_t i = 1; i < n; ++i) {
        const Keyed item = first[i];
        size_t j = i;
        for (; j > 0 && item.key < first[j - 1].key; --j) first[j] = first[j - 1];
        first[j] = item;
    }
}

// Stable sort by key: least significant digit first, digits that are all alike skipped.
inline void sort_large(std::vector<Keyed> &items, std::vector<Keyed> &spare) {
    constexpr int kBits = 11, kPasses = 6, kBuckets = 1 << kBits;
    const size_t n = items.size();
    if (n < 400) {
        std::stable_sort(items.begin(), items.end(), [](const Keyed &a, const Keyed &b) { return a.key < b.key; });
        return;
    }
    std::vector<uint32_t> counts(static_cast<size_t>(kPasses) * kBuckets, 0);
    for (const Keyed &item : items)
        for (int pass = 0; pass < kPasses; ++pass)
            ++counts[static_cast<size_t>(pass * kBuckets) + ((item.key >> (pass * kBits)) & (kBuckets - 1))];
    spare.resize(n);
    for (int pass = 0; pass < kPasses; ++pass) {
        uint32_t *count = &counts[static_cast<size_t>(pass * kBuckets)];
        if (count[(items[0].key >> (pass * kBits)) & (kBuckets - 1)] == n) continue;
        uint32_t total = 0;
        for (int b = 0; b < kBuckets; ++b) {
            const uint32_t here = count[b];
            count[b] = total;
            total += here;
        }
        for (const Keyed &item : items) spare[count[(item.key >> (pass * kBits)) & (kBuckets - 1)]++] = item;
        items.swap(spare);
    }
}

}  // namespace striate
