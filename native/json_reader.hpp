// Reading JSON (RFC 8259) from left to right: strings and numbers, and values that nobody asked for.
#pragma once

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>

#include "json_vectors.hpp"

namespace striate {

using std::int64_t;
using std::size_t;
using std::uint32_t;
using std::uint64_t;

// Why a text cannot be read, and where; `general` where it may well be valid, but holds what the columns
// cannot (an id that is no 64-bit integer), so that the general reader has to be asked.
struct Refusal {
    size_t at;
    const char *why;
    bool general;
};

inline constexpr size_t kDeepest = 500;  // levels of nesting; Python's own reader stops not far beyond

inline constexpr double kPowers[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                              1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};

inline bool digit(char c) { return static_cast<unsigned char>(c - '0') <= 9; }

// Eight characters at a time, on little-endian machines: which of them are no digits (the high bit of each).
#if defined(__GNUC__) && defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
inline constexpr bool kWide = true;
inline int trailing_zeros(uint64_t v) { return __builtin_ctzll(v); }
#else
inline constexpr bool kWide = false;
inline int trailing_zeros(uint64_t v) {
    int n = 0;
    while (!(v >> n & 1)) ++n;
    return n;
}
#endif

inline uint64_t load8(const char *p) {
    uint64_t v;
    std::memcpy(&v, p, 8);
    return v;
}

inline uint64_t non_digits(uint64_t v) {
    const uint64_t t = v ^ 0x3030303030303030u;
    return (((t & 0x7f7f7f7f7f7f7f7fu) + 0x7676767676767676u) | t) & 0x8080808080808080u;
}

// The value of eight digits, the first of them in the lowest byte, '0' taken off.
inline uint64_t eight_digits(uint64_t v) {
    v = v * 10 + (v >> 8);
    return (((v & 0x000000ff000000ffu) * 0x000f424000000064u) +
            (((v >> 16) & 0x000000ff000000ffu) * 0x0000271000000001u)) >> 32;
}

class Reader {
  public:
    Reader(const char *text, const char *at, const char *end) : text_(text), p_(at), end_(end) {}

    const char *at() const { return p_; }
    size_t offset() const { return static_cast<size_t>(p_ - text_); }
    bool done() const { return p_ == end_; }

    [[noreturn]] void refuse(const char *why) const { throw Refusal{offset(), why, false}; }
    [[noreturn]] void ask_general(const char *why) const { throw Refusal{offset(), why, true}; }

    void blanks() {
        while (p_ < end_ && (*p_ == ' ' || *p_ == '\n' || *p_ == '\r' || *p_ == '\t')) ++p_;
    }

    char peek() const { return p_ < end_ ? *p_ : '\0'; }

    bool take(char c) {
        if (p_ < end_ && *p_ == c) {
            ++p_;
            return true;
        }
        return false;
    }

    void expect(char c, const char *why) {
        blanks();
        if (!take(c)) refuse(p_ == end_ ? "the text ends too early" : why);
    }

    // After an element: true where another one follows, false at the closing bracket.
    bool another(char close, const char *why) {
        blanks();
        if (take(',')) {
            blanks();
            if (peek() == close) refuse("a comma with nothing after it");
            return true;
        }
        expect(close, why);
        return false;
    }

    bool open(char bracket, char close, const char *why) {  // false where it is empty
        expect(bracket, why);
        blanks();
        return !take(close);
    }

    // ---- strings

    void skip_string() {
        expect('"', "a string was expected");
        while (true) {
            if (kWide) {  // plain characters, eight at a time
                while (end_ - p_ >= 8) {
                    const uint64_t v = load8(p_), quote = v ^ 0x2222222222222222u, slash = v ^ 0x5c5c5c5c5c5c5c5cu;
                    constexpr uint64_t ones = 0x0101010101010101u, high = 0x8080808080808080u;
                    const uint64_t stop = (((v - 0x2020202020202020u) | (quote - ones) | (slash - ones)) | v) & high;
                    if (stop) {
                        p_ += trailing_zeros(stop) / 8;
                        break;
                    }
                    p_ += 8;
                }
            }
            if (p_ == end_) refuse("a string without an end");
            const unsigned char c = static_cast<unsigned char>(*p_);
            if (c == '"') {
                ++p_;
                return;
            }
            if (c == '\\') skip_escape();
            else if (c < 0x20) refuse("a control character in a string");
            else if (c < 0x80) ++p_;
            else skip_multibyte();
        }
    }

    // Takes the same bytes as at `begin`, if they come next.
    bool take_again(const char *begin, size_t length) {
        if (static_cast<size_t>(end_ - p_) < length + 8) return false;
        if (length >= 8 && length <= 24) {
            const size_t middle = (length - 8) / 2;
            if (load8(p_) != load8(begin) || load8(p_ + middle) != load8(begin + middle) ||
                load8(p_ + length - 8) != load8(begin + length - 8))
                return false;
        } else if (std::memcmp(p_, begin, length) != 0) {
            return false;
        }
        p_ += length;
        return true;
    }

    // The key of a member, and the colon after it. `key` points into the text, or into `decoded_`.
    void key(const char *&begin, size_t &length) {
        blanks();
        if (peek() != '"') refuse(p_ == end_ ? "the text ends too early" : "a key was expected");
        const char *first = p_ + 1;
        const char *q = first;
        while (q < end_ && *q != '"' && *q != '\\' && static_cast<unsigned char>(*q) >= 0x20 && static_cast<unsigned char>(*q) < 0x80) ++q;
        if (q < end_ && *q == '"') {
            p_ = q + 1;
            begin = first;
            length = static_cast<size_t>(q - first);
        } else {
            skip_string();
            decode(first, p_ - 1);
            begin = decoded_.data();
            length = decoded_.size();
        }
        expect(':', "a colon was expected");
        blanks();
    }

    // ---- numbers

    double number() {
        if (kWide && end_ - p_ >= 8) {
            const uint64_t v = load8(p_), stops = non_digits(v);
            if (stops) {
                const int whole = trailing_zeros(stops) / 8;
                const char next = static_cast<char>(v >> (8 * whole));
                if (whole > 0 && !(*p_ == '0' && whole > 1)) {
                    const uint64_t digits = v ^ 0x3030303030303030u;
                    const uint64_t rest = stops & (stops - 1);
                    if (next == '.' && rest) {
                        const int length = trailing_zeros(rest) / 8, decimals = length - whole - 1;
                        const char after = static_cast<char>(v >> (8 * length));
                        if (decimals > 0 && after != 'e' && after != 'E' && after != '.') {
                            const uint64_t low = digits & ((uint64_t{1} << (8 * whole)) - 1);
                            const uint64_t packed = low | ((digits >> 8) & ~((uint64_t{1} << (8 * whole)) - 1));
                            p_ += length;
                            return static_cast<double>(eight_digits(packed << (8 * (9 - length)))) / kPowers[decimals];
                        }
                    } else if (next != '.' && next != 'e' && next != 'E') {
                        p_ += whole;
                        return static_cast<double>(eight_digits(digits << (8 * (8 - whole))));
                    }
                }
            }
        }
        return any_number();
    }

    // Four plain numbers of at most eight characters each, up to the bracket behind them; false, and nothing is
    // read, where they look different. Their ends are found first, so that no number waits for the one before.
    bool four_numbers([[maybe_unused]] double *out) {
#if defined(STRIATE_VECTORS)
        if (kHasAvx2) return four_numbers_avx2(p_, end_, kPowers, out);
        if (end_ - p_ < 56) return false;  // 48, and what a number reads beyond its end
        uint64_t ends = 0;
        for (int i = 0; i < 3; ++i) {
            const __m128i v = _mm_loadu_si128(reinterpret_cast<const __m128i *>(p_) + i);
            const __m128i value = _mm_sub_epi8(v, _mm_set1_epi8('0'));
            const __m128i plain = _mm_or_si128(_mm_cmpeq_epi8(_mm_min_epu8(value, _mm_set1_epi8(9)), value),
                                               _mm_cmpeq_epi8(v, _mm_set1_epi8('.')));
            ends |= static_cast<uint64_t>(static_cast<uint32_t>(_mm_movemask_epi8(plain)) ^ 0xffffu) << (16 * i);
        }
        int begin = 0, end = 0;
        for (int i = 0; i < 4; ++i) {
            if (!ends) return false;
            end = trailing_zeros(ends);
            ends &= ends - 1;
            if (p_[end] != (i < 3 ? ',' : ']') || !plain_number(p_ + begin, end - begin, out[i])) return false;
            begin = end + 1;
            if (p_[begin] == ' ') ++begin, ends &= ends - 1;
        }
        p_ += end + 1;
        return true;
#else
        return false;
#endif
    }

    int64_t integer(const char *why) {
        if (kWide && end_ - p_ >= 9) {
            const uint64_t v = load8(p_), stops = non_digits(v);
            const int whole = stops ? trailing_zeros(stops) / 8 : 8;
            const char next = p_[whole];
            if (whole > 0 && !(*p_ == '0' && whole > 1) && next != '.' && next != 'e' && next != 'E' && !digit(next)) {
                p_ += whole;
                return static_cast<int64_t>(eight_digits((v ^ 0x3030303030303030u) << (8 * (8 - whole))));
            }
        }
        const char *first = p_;
        const bool negative = take('-');
        const char *digits = p_;
        uint64_t v = 0;
        while (p_ < end_ && digit(*p_) && p_ - digits < 19) v = v * 10 + static_cast<uint64_t>(*p_++ - '0');
        const bool plain = p_ > digits && !(*digits == '0' && p_ - digits > 1) && p_ < end_ &&
                           !digit(*p_) && *p_ != '.' && *p_ != 'e' && *p_ != 'E' && v <= static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
        if (!plain) {
            p_ = first;
            ask_general(why);
        }
        return negative ? -static_cast<int64_t>(v) : static_cast<int64_t>(v);
    }

    bool truth() {  // 0, 1, true, false, or another number
        if (literal("true")) return true;
        if (literal("false")) return false;
        return number() != 0;
    }

    // ---- values that nobody asked for

    void skip_value() {
        std::string open;  // the brackets that are open
        while (true) {
            blanks();
            const char c = peek();
            if (c == '[' || c == '{') {
                if (open.size() >= kDeepest) refuse("nested more than 500 levels deep");
                ++p_;
                blanks();
                if (peek() == (c == '[' ? ']' : '}')) {
                    ++p_;
                } else {
                    open.push_back(c);
                    if (c == '{') skip_key();
                    continue;
                }
            } else if (c == '"') {
                skip_string();
            } else if (c == 't' || c == 'f' || c == 'n') {
                if (!literal("true") && !literal("false") && !literal("null")) refuse("a value was expected");
            } else {
                if (kWide && !open.empty() && open.back() == '[') skip_plain_numbers();
                skip_number();
            }
            while (true) {  // after a value: the next one, or the ends of what holds it
                if (open.empty()) return;
                if (open.back() == '[') {
                    if (another(']', "a comma or ] was expected")) break;
                } else if (another('}', "a comma or } was expected")) {
                    skip_key();
                    break;
                }
                open.pop_back();
            }
        }
    }

    bool literal(const char *word) {
        const size_t n = std::strlen(word);
        if (static_cast<size_t>(end_ - p_) < n || std::memcmp(p_, word, n) != 0) return false;
        p_ += n;
        return true;
    }

  private:
    void skip_key() {
        blanks();
        skip_string();
        expect(':', "a colon was expected");
    }

    // A number such as 12 or 12.5 of so many characters, which are digits and points; false if it is none.
    static bool plain_number(const char *p, int length, double &out) {
        if (length < 1 || length > 8) return false;
        const uint64_t v = load8(p), past = length == 8 ? 0 : ~uint64_t{0} << (8 * length);
        const uint64_t points = non_digits(v) & ~past, digits = v ^ 0x3030303030303030u;
        if (!points) {
            out = static_cast<double>(eight_digits(digits << (8 * (8 - length))));
            return length == 1 || *p != '0';
        }
        const int whole = trailing_zeros(points) / 8, decimals = length - whole - 1;
        if (points & (points - 1) || whole == 0 || decimals == 0 || (*p == '0' && whole > 1)) return false;
        const uint64_t low = digits & ((uint64_t{1} << (8 * whole)) - 1);
        const uint64_t packed = low | ((digits >> 8) & ~((uint64_t{1} << (8 * whole)) - 1));
        out = static_cast<double>(eight_digits(packed << (8 * (9 - length)))) / kPowers[decimals];
        return true;
    }

    // Numbers such as 12 and 12.5 and the commas after them, up to one that is something else or the last.
    void skip_plain_numbers() {
#if defined(STRIATE_VECTORS)
        p_ = kHasAvx2 ? skip_numbers_avx2(p_, end_) : skip_numbers(p_, end_);
#endif
        while (end_ - p_ >= 16) {
            const uint64_t v = load8(p_), stops = non_digits(v), rest = stops & (stops - 1);
            const int whole = stops ? trailing_zeros(stops) / 8 : 0;
            if (whole == 0 || !rest || (*p_ == '0' && whole > 1)) return;
            int length = whole;
            if (p_[whole] == '.') {
                length = trailing_zeros(rest) / 8;
                if (length == whole + 1) return;
            }
            if (p_[length] != ',') return;
            length += p_[length + 1] == ' ' ? 2 : 1;
            if (!digit(p_[length])) return;
            p_ += length;
        }
    }

    void skip_number() {
        if (kWide && end_ - p_ >= 8) {  // as in number(), without the value
            const uint64_t v = load8(p_), stops = non_digits(v), rest = stops & (stops - 1);
            const int whole = stops ? trailing_zeros(stops) / 8 : 0;
            if (whole > 0 && rest && !(*p_ == '0' && whole > 1)) {
                const char next = static_cast<char>(v >> (8 * whole));
                const int length = next == '.' ? trailing_zeros(rest) / 8 : whole;
                const char after = static_cast<char>(v >> (8 * length));
                if (!(next == '.' && length == whole + 1) && after != '.' && after != 'e' && after != 'E') {
                    p_ += length;
                    return;
                }
            }
        }
        any_number();
    }

    // Any number of JSON, and NaN, Infinity and -Infinity, which Python writes.
    double any_number() {
        const char *first = p_;
        if (literal("NaN")) return std::numeric_limits<double>::quiet_NaN();
        const bool negative = take('-');
        if (literal("Infinity")) return negative ? -HUGE_VAL : HUGE_VAL;
        uint64_t mantissa = 0;
        int digits = 0, decimals = 0;
        const auto run = [&](int &count) {
            const char *start = p_;
            while (p_ < end_ && digit(*p_)) {
                if (digits < 19) mantissa = mantissa * 10 + static_cast<uint64_t>(*p_ - '0');
                if (digits < 100) digits += mantissa != 0;
                ++p_;
            }
            if (p_ == start) {
                p_ = p_ == end_ ? p_ : start;
                refuse(p_ == end_ ? "the text ends too early" : p_ == first ? "a value was expected" : "a digit was expected");
            }
            count = static_cast<int>(std::min<std::ptrdiff_t>(p_ - start, 1000));
        };
        int whole = 0;
        const char *start = p_;
        run(whole);
        if (*start == '0' && whole > 1) {
            p_ = start;
            refuse("a number with a leading zero");
        }
        const bool fraction = take('.');
        if (fraction) run(decimals);
        const bool exponent = take('e') || take('E');
        if (exponent) {
            if (!take('+')) take('-');
            const char *e = p_;
            while (p_ < end_ && digit(*p_)) ++p_;
            if (p_ == e) refuse(p_ == end_ ? "the text ends too early" : "a digit was expected");
        } else if (digits <= 19 && mantissa <= (uint64_t{1} << 53) && decimals <= 22) {
            const double value = static_cast<double>(mantissa) / kPowers[decimals];  // both exact: rounded once
            return negative ? -value : value;
        }
        double value = 0;
        const auto [ptr, error] = std::from_chars(first, p_, value);
        if (error == std::errc::result_out_of_range) {
            value = magnitude(first, p_) > 0 ? HUGE_VAL : 0.0;
            if (std::isinf(value) && !fraction && !exponent) {
                p_ = first;
                refuse("a number too large");
            }
            return negative ? -value : value;
        }
        if (error != std::errc() || ptr != p_) {
            p_ = first;
            refuse("a value was expected");
        }
        return value;
    }

    // Whether a number beyond the range of a double is large (above 0) or small (below).
    static int64_t magnitude(const char *p, const char *end) {
        int64_t point = 0, exponent = 0;
        bool seen = false, fraction = false;
        for (; p < end && *p != 'e' && *p != 'E'; ++p) {
            if (*p == '.') fraction = true;
            else if (digit(*p)) {
                seen = seen || *p != '0';
                if (seen && !fraction) ++point;
                if (!seen && fraction) --point;
            }
        }
        if (p < end) {
            const bool negative = *++p == '-';
            for (; p < end; ++p)
                if (digit(*p) && exponent < 1000000000000) exponent = exponent * 10 + (*p - '0');
            if (negative) exponent = -exponent;
        }
        return point + exponent;
    }

    uint32_t four_hex() {
        uint32_t v = 0;
        for (int i = 0; i < 4; ++i, ++p_) {
            const char c = peek();
            if (digit(c)) v = v * 16 + static_cast<uint32_t>(c - '0');
            else if ((c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F')) v = v * 16 + static_cast<uint32_t>((c | 0x20) - 'a' + 10);
            else refuse(p_ == end_ ? "a string without an end" : "four hexadecimal digits were expected");
        }
        return v;
    }

    void skip_escape() {
        ++p_;
        if (p_ == end_) refuse("a string without an end");
        const char c = *p_;
        if (c == 'u') {
            ++p_;
            four_hex();
        } else if (std::strchr("\"\\/bfnrt", c) && c) {
            ++p_;
        } else {
            refuse("an unknown escape in a string");
        }
    }

    void skip_multibyte() {  // one character of UTF-8 (RFC 3629, section 4)
        const auto byte = [&](int i) { return end_ - p_ > i ? static_cast<unsigned char>(p_[i]) : 0u; };
        const unsigned c = byte(0), d = byte(1);
        const auto tail = [&](int i) { return (byte(i) & 0xc0u) == 0x80u; };
        int n = 0;
        if (c >= 0xc2 && c <= 0xdf && tail(1)) n = 2;
        else if (c >= 0xe0 && c <= 0xef && tail(1) && tail(2) && !(c == 0xe0 && d < 0xa0) && !(c == 0xed && d > 0x9f)) n = 3;
        else if (c >= 0xf0 && c <= 0xf4 && tail(1) && tail(2) && tail(3) && !(c == 0xf0 && d < 0x90) && !(c == 0xf4 && d > 0x8f)) n = 4;
        if (!n) refuse("text that is not UTF-8");
        p_ += n;
    }

    // A key with escapes. What is not ASCII becomes '?': no key that matters has any.
    void decode(const char *first, const char *last) {
        decoded_.clear();
        for (const char *q = first; q < last; ++q) {
            if (*q != '\\') {
                decoded_.push_back(static_cast<unsigned char>(*q) < 0x80 ? *q : '?');
            } else if (*++q == 'u') {
                Reader hex(q, q + 1, last);
                const uint32_t v = hex.four_hex();
                decoded_.push_back(v < 0x80 ? static_cast<char>(v) : '?');
                q += 4;
            } else {
                decoded_.push_back(*q == '/' || *q == '"' || *q == '\\' ? *q : '?');
            }
        }
    }

    const char *text_, *p_, *end_;
    std::string decoded_;
};

}  // namespace striate
