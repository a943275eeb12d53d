// Numbers in JSON, many characters at a time: with SSE2, and with AVX2 where the processor has it. Both give the
// same bits as reading them one by one.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__x86_64__) && defined(__GNUC__)
#define STRIATE_VECTORS 1
#include <immintrin.h>

namespace striate {

using std::uint32_t;
using std::uint64_t;

#define STRIATE_AVX2 __attribute__((target("avx2,bmi,bmi2")))
inline const bool kHasAvx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");

// Which of 64 characters are what, a bit for each.
struct Characters {
    uint64_t digits, points, commas, blanks, zeros;
};

inline Characters characters(const char *p) {
    __m128i part[4];
    for (int i = 0; i < 4; ++i) part[i] = _mm_loadu_si128(reinterpret_cast<const __m128i *>(p) + i);
    const auto mask = [&part](auto test) {
        uint64_t bits = 0;
        for (int i = 0; i < 4; ++i) bits |= static_cast<uint64_t>(static_cast<uint32_t>(_mm_movemask_epi8(test(part[i])))) << (16 * i);
        return bits;
    };
    const auto equal = [&mask](char c) { return mask([c](__m128i v) { return _mm_cmpeq_epi8(v, _mm_set1_epi8(c)); }); };
    const uint64_t digits = mask([](__m128i v) {
        const __m128i value = _mm_sub_epi8(v, _mm_set1_epi8('0'));
        return _mm_cmpeq_epi8(_mm_min_epu8(value, _mm_set1_epi8(9)), value);
    });
    return {digits, equal('.'), equal(','), equal(' '), equal('0')};
}

// How many of these characters are numbers such as 12 and 12.5, each with the comma after it; another number
// follows. 0 where there are none, or something is wrong with them.
inline int length_of_numbers(const Characters &c) {
    uint64_t ends = c.commas & (c.digits >> 1 | (c.blanks >> 1 & c.digits >> 2));
    if (const uint64_t other = ~(c.digits | c.points | c.commas | c.blanks)) ends &= (other & -other) - 1;
    if (!ends) return 0;
    const int last = 63 - __builtin_clzll(ends);
    const uint64_t inside = ~uint64_t{0} >> (63 - last);
    const uint64_t digits = c.digits & inside, points = c.points & inside, commas = c.commas & inside, blanks = c.blanks & inside;
    const uint64_t after_digit = digits << 1, after_point = points << 1;
    const uint64_t wrong = ((points | commas) & ~after_digit) | (after_point & ~digits) | (blanks & ~(commas << 1)) |
                           (digits & ~(after_digit | after_point) & c.zeros & digits >> 1) |  // a leading zero
                           (points & (digits + after_point) & ~digits);  // a second point: the sum carries to the end of the digits
    return wrong ? 0 : last + 1;
}

// Past as many blocks of such numbers as there are from `p` on.
inline const char *skip_numbers(const char *p, const char *end) {
    while (end - p >= 64) {
        const int length = length_of_numbers(characters(p));
        if (!length) break;
        p += length + (p[length] == ' ');
    }
    return p;
}

STRIATE_AVX2 inline uint64_t mask_of(__m256i low, __m256i high) {
    return static_cast<uint32_t>(_mm256_movemask_epi8(low)) | static_cast<uint64_t>(static_cast<uint32_t>(_mm256_movemask_epi8(high))) << 32;
}

STRIATE_AVX2 inline uint64_t mask_of(__m256i low, __m256i high, char c) {
    return mask_of(_mm256_cmpeq_epi8(low, _mm256_set1_epi8(c)), _mm256_cmpeq_epi8(high, _mm256_set1_epi8(c)));
}

STRIATE_AVX2 inline __m256i digits_of(__m256i v) {
    const __m256i value = _mm256_sub_epi8(v, _mm256_set1_epi8('0'));
    return _mm256_cmpeq_epi8(_mm256_min_epu8(value, _mm256_set1_epi8(9)), value);
}

STRIATE_AVX2 inline Characters characters_avx2(const char *p) {
    const __m256i low = _mm256_loadu_si256(reinterpret_cast<const __m256i *>(p));
    const __m256i high = _mm256_loadu_si256(reinterpret_cast<const __m256i *>(p) + 1);
    return {mask_of(digits_of(low), digits_of(high)), mask_of(low, high, '.'), mask_of(low, high, ','), mask_of(low, high, ' '),
            mask_of(low, high, '0')};
}

STRIATE_AVX2 inline const char *skip_numbers_avx2(const char *p, const char *end) {
    while (end - p >= 64) {
        const int length = length_of_numbers(characters_avx2(p));
        if (!length) break;
        p += length + (p[length] == ' ');
    }
    return p;
}

STRIATE_AVX2 inline __m256i of_four(long long a, long long b, long long c, long long d) { return _mm256_set_epi64x(d, c, b, a); }

// The values of four numbers of at most eight characters, whose first characters are at `begin`. Their digits move
// together where there is a point, and to the upper end of eight bytes; then all four are added up at once.
STRIATE_AVX2 inline void values_of(const char *p, const int *begin, const int *whole, const int *count, const double *power, double *out) {
    long long text[4];
    for (int i = 0; i < 4; ++i) std::memcpy(text + i, p + begin[i], 8);
    const __m256i v = _mm256_xor_si256(of_four(text[0], text[1], text[2], text[3]), _mm256_set1_epi8('0'));
    const __m256i after = _mm256_sllv_epi64(_mm256_set1_epi64x(-1), of_four(8 * whole[0], 8 * whole[1], 8 * whole[2], 8 * whole[3]));
    const __m256i together = _mm256_blendv_epi8(v, _mm256_srli_epi64(v, 8), after);
    const __m256i digits = _mm256_sllv_epi64(together, of_four(64 - 8 * count[0], 64 - 8 * count[1], 64 - 8 * count[2], 64 - 8 * count[3]));
    const __m256i twos = _mm256_maddubs_epi16(digits, _mm256_set1_epi16(0x010a));
    const __m256i fours = _mm256_madd_epi16(twos, _mm256_set1_epi32(0x00010064));
    const __m256i eights = _mm256_add_epi32(_mm256_mul_epu32(fours, _mm256_set1_epi64x(10000)), _mm256_srli_epi64(fours, 32));
    const __m128i values = _mm256_castsi256_si128(_mm256_permutevar8x32_epi32(eights, _mm256_set_epi32(7, 5, 3, 1, 6, 4, 2, 0)));
    const __m256d powers = _mm256_set_pd(power[3], power[2], power[1], power[0]);
    _mm256_storeu_pd(out, _mm256_div_pd(_mm256_cvtepi32_pd(values), powers));
}

// Four numbers such as 12 or 12.5 of at most eight characters each, with commas between them and a bracket behind
// them; moves `p` past it. False, and nothing is read, where they look different. `powers`: of ten.
STRIATE_AVX2 inline bool four_numbers_avx2(const char *&p, const char *end, const double *powers, double *out) {
    if (end - p < 72) return false;  // 64, and what a number reads beyond its end
    const __m256i low = _mm256_loadu_si256(reinterpret_cast<const __m256i *>(p));
    const __m256i high = _mm256_loadu_si256(reinterpret_cast<const __m256i *>(p) + 1);
    const uint64_t digits = mask_of(digits_of(low), digits_of(high)), points = mask_of(low, high, '.');
    uint64_t others = ~(digits | points), starts = 0, ends = 0, second = 0;
    int begin[4], whole[4], count[4];
    double power[4];
    for (int i = 0, next = 0; i < 4; ++i) {
        if (!others) return false;
        const int stop = static_cast<int>(_tzcnt_u64(others)), length = stop - next;
        if (length < 1 || length > 8 || p[stop] != (i < 3 ? ',' : ']')) return false;
        others &= others - 1;
        const uint64_t inside = points >> next & ((uint64_t{1} << length) - 1);
        begin[i] = next;
        whole[i] = static_cast<int>(_tzcnt_u64(inside | uint64_t{1} << length));
        count[i] = length - (inside != 0);
        power[i] = powers[count[i] - whole[i]];
        second |= inside & (inside - 1);
        starts |= uint64_t{1} << next;
        ends |= uint64_t{1} << (stop - 1);
        next = stop + 1;
        if (i < 3 && p[next] == ' ') ++next, others &= others - 1;
    }
    const uint64_t zeros = mask_of(low, high, '0');
    if (second | ((starts | ends) & ~digits) | (starts & zeros & digits >> 1)) return false;
    values_of(p, begin, whole, count, power, out);
    p += begin[3] + (count[3] + (count[3] != whole[3])) + 1;
    return true;
}

}  // namespace striate
#endif
