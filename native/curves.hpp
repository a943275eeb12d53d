// Precision-recall curves of one class, for all area ranges, limits and IoU thresholds.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "matching.hpp"
#include "memory.hpp"

namespace striate {

inline int lowest_bit(uint32_t mask) {
#if defined(__GNUC__)
    return __builtin_ctz(mask);
#else
    int t = 0;
    while (!(mask >> t & 1)) ++t;
    return t;
#endif
}

// Of a detection that has a candidate, in one area range: one bit for each IoU threshold.
struct Masks {
    uint32_t tp, ignored;
};

// The detections of one class, by falling score over all images.
struct Ranking {
    std::vector<double> score;     // empty where nobody asks for scores
    std::vector<uint32_t> out;     // the area ranges in which it counts for nothing if it matches nothing
    std::vector<int32_t> level;    // the first limit that its rank is within; M beyond all limits
    std::vector<int32_t> matched;  // where its masks are, A of them; -1: it matches nothing anywhere

    void resize(size_t n, bool scores) {
        score.resize(scores ? n : 0);
        out.resize(n);
        level.resize(n);
        matched.assign(n, -1);
    }
};

class Curves {
  public:
    explicit Curves(const Problem &problem)
        : p_(problem), T_(static_cast<size_t>(problem.thresholds)), A_(static_cast<size_t>(problem.areas)),
          M_(static_cast<size_t>(problem.limits)), first_(static_cast<size_t>(problem.first)), P_(M_ - first_),
          R_(static_cast<size_t>(problem.levels)),
          all_(problem.thresholds == 32 ? ~uint32_t{0} : (uint32_t{1} << problem.thresholds) - 1), needed_(R_), end_(P_ * T_) {}

    // Of category k: nothing but -1, where there is no ground truth.
    void nothing(int64_t k) {
        for (size_t a = 0; a < A_; ++a) nothing(k, a);
    }

    // Of category k: `positives` ground truths count in each area range.
    void category(int64_t k, const Ranking &ranking, const std::vector<Masks> &masks, const std::vector<int64_t> &positives) {
        count_missed(ranking, masks.size() / std::max<size_t>(A_, 1));
        for (size_t a = 0; a < A_; ++a) {
            if (positives[a] == 0) {
                nothing(k, a);
                continue;
            }
            find_needed(positives[a]);
            // Without meek detections every true positive takes a ground truth of its own.
            room_ = p_.dt_meek ? matched_.size() : std::min(matched_.size(), static_cast<size_t>(positives[a]));
            find_points(masks, a);
            recalls(first_recall(k, a), positives[a]);
            for (size_t p = 0; p < P_; ++p) limit(first_curve(k, a) + p * T_, p, ranking);
        }
    }

  private:
    // A detection that has a candidate.
    struct Matched {
        uint32_t rank;  // among the class's, by score
        int32_t level, masks;
    };

    // Limits that have curves are counted from the first of them.
    size_t place(size_t level) const { return level > first_ ? level - first_ : 0; }

    // A true positive: how many detections that count there are up to it, itself included, and its rank.
    struct Point {
        int32_t seen;
        uint32_t rank;
    };

    size_t first_recall(int64_t k, size_t a) const { return (static_cast<size_t>(k) * A_ + a) * M_ * T_; }
    size_t first_curve(int64_t k, size_t a) const { return (static_cast<size_t>(k) * A_ + a) * P_ * T_; }

    void nothing(int64_t k, size_t a) {
        const size_t first = first_curve(k, a) * R_, count = P_ * T_ * R_;
        std::fill_n(p_.recall + first_recall(k, a), M_ * T_, -1.0);
        std::fill_n(p_.precision + first, count, -1.0);
        if (p_.scores) std::fill_n(p_.scores + first, count, -1.0);
    }

    // One walk over all detections: which have a candidate, and how many without one come before each, by area
    // range and limit with curves. Area ranges are counted four at a time.
    void count_missed(const Ranking &ranking, size_t matched) {
        static constexpr int32_t kOnes[16][4] = {
            {1, 1, 1, 1}, {0, 1, 1, 1}, {1, 0, 1, 1}, {0, 0, 1, 1}, {1, 1, 0, 1}, {0, 1, 0, 1}, {1, 0, 0, 1}, {0, 0, 0, 1},
            {1, 1, 1, 0}, {0, 1, 1, 0}, {1, 0, 1, 0}, {0, 0, 1, 0}, {1, 1, 0, 0}, {0, 1, 0, 0}, {1, 0, 0, 0}, {0, 0, 0, 0}};
        const size_t blocks = (A_ + 3) / 4, width = 4 * blocks, n = ranking.level.size();
        missed_.assign((P_ + 1) * width, 0);  // by the level of the detections
        used_.assign(P_ + 1, 0);
        top_.assign(P_ + 1, n);
        matched_.clear();
        if (before_.size() < matched * P_ * width) before_ = Large<int32_t>(matched * P_ * width, true);
        for (size_t i = 0; i < n; ++i) {
            const size_t p = place(static_cast<size_t>(ranking.level[i]));
            if (top_[p] == n) top_[p] = i;
            if (ranking.matched[i] < 0) {
                int32_t *missed = &missed_[p * width];
                for (size_t b = 0; b < blocks; ++b) {
                    const int32_t *ones = kOnes[ranking.out[i] >> (4 * b) & 15];
                    for (size_t x = 0; x < 4; ++x) missed[4 * b + x] += ones[x];
                }
                continue;
            }
            matched_.push_back({static_cast<uint32_t>(i), ranking.level[i], ranking.matched[i]});
            int32_t *before = before_.data() + (matched_.size() - 1) * P_ * width;
            for (size_t x = 0; x < width && P_; ++x) before[x] = missed_[x];
            for (size_t q = 1; q < P_; ++q)
                for (size_t x = 0; x < width; ++x) before[q * width + x] = before[(q - 1) * width + x] + missed_[q * width + x];
        }
        for (size_t q = 0; q < P_; ++q) used_[q] = q == 0 || top_[q] < n;
        for (size_t q = 1; q < P_; ++q) top_[q] = std::min(top_[q], top_[q - 1]);
    }

    // The true positives of an area range: how many, for each level and threshold; and all of them, for each
    // limit with curves and threshold.
    void find_points(const std::vector<Masks> &masks, size_t a) {
        const size_t width = (A_ + 3) / 4 * 4;
        if (points_.size() < P_ * T_ * room_) points_ = Large<Point>(P_ * T_ * room_, false);
        for (size_t at = 0; at < P_ * T_; ++at) end_[at] = points(at);
        found_.assign((M_ + 1) * T_, 0);
        ignored_.assign(P_ * T_, 0);  // at some thresholds, by detections that count at others
        counted_.assign(P_, 0);
        for (size_t i = 0; i < matched_.size(); ++i) {
            const Matched item = matched_[i];
            const Masks mask = masks[static_cast<size_t>(item.masks) + a];
            if (mask.ignored == all_) continue;
            const size_t level = static_cast<size_t>(item.level);
            int64_t *found = &found_[level * T_];
            for (uint32_t bits = mask.tp; bits; bits &= bits - 1) ++found[lowest_bit(bits)];
            const int32_t *before = before_.data() + i * P_ * width + a;
            for (size_t p = place(level); p < P_; ++p) {
                int32_t *ignored = &ignored_[p * T_];
                for (uint32_t bits = mask.ignored; bits; bits &= bits - 1) ++ignored[lowest_bit(bits)];
                const int32_t seen = before[p * width] + ++counted_[p];
                Point **end = &end_[p * T_];
                for (uint32_t bits = mask.tp; bits; bits &= bits - 1) {
                    const int t = lowest_bit(bits);
                    *end[t]++ = {seen - ignored[t], item.rank};
                }
            }
        }
    }

    Point *points(size_t at) { return points_.data() + at * room_; }

    // How many true positives reach each recall level: the first i with i / positives >= level.
    void find_needed(int64_t positives) {
        for (size_t r = 0; r < R_; ++r) {
            const double level = p_.recall_at[r], n = static_cast<double>(positives);
            if (level != level || level > 1e9) {
                needed_[r] = std::numeric_limits<size_t>::max();
                continue;
            }
            int64_t i = level <= 0 ? 0 : static_cast<int64_t>(std::ceil(level * n));
            while (i > 0 && static_cast<double>(i - 1) / n >= level) --i;
            while (static_cast<double>(i) / n < level) ++i;
            needed_[r] = static_cast<size_t>(i);
        }
        ascending_ = std::is_sorted(needed_.begin(), needed_.end());
    }

    // Of all limits and thresholds.
    void recalls(size_t at, int64_t positives) {
        for (size_t m = 0; m < M_; ++m)
            for (size_t t = 0; t < T_; ++t) {
                int64_t &found = found_[m * T_ + t];
                if (m) found += found_[(m - 1) * T_ + t];
                p_.recall[at + m * T_ + t] = static_cast<double>(found) / static_cast<double>(positives);
            }
    }

    // The curves of all thresholds at one limit.
    void limit(size_t at, size_t p, const Ranking &ranking) {
        double *precision = p_.precision + at * R_, *score = p_.scores ? p_.scores + at * R_ : nullptr;
        if (!used_[p]) {  // no detection is within this limit and beyond the one before
            std::memcpy(precision, precision - T_ * R_, T_ * R_ * sizeof(double));
            if (score) std::memcpy(score, score - T_ * R_, T_ * R_ * sizeof(double));
            return;
        }
        for (size_t t = 0; t < T_; ++t) {
            const Point *first = points(p * T_ + t);
            curve(first, static_cast<size_t>(end_[p * T_ + t] - first), top_[p], ranking, precision + t * R_,
                  score ? score + t * R_ : nullptr);
        }
    }

    // Precision at a recall level is the highest one there and beyond, and it peaks at true positives.
    void curve(const Point *point, size_t points, size_t top, const Ranking &ranking, double *precision, double *score) {
        size_t reached = 0;
        if (top < ranking.level.size())
            while (reached < R_ && needed_[reached] <= points) ++reached;
        std::fill(precision + reached, precision + R_, 0.0);
        if (score) std::fill(score + reached, score + R_, 0.0);
        if (!reached) return;
        if (heights_.size() < points) heights_.resize(points);
        double *heights = heights_.data();
        for (size_t i = 0; i < points; ++i)
            heights[i] = static_cast<double>(static_cast<int32_t>(i) + 1) / (static_cast<double>(point[i].seen) + std::numeric_limits<double>::epsilon());
        if (!ascending_)
            for (size_t i = points; i > 1; --i) heights[i - 2] = std::max(heights[i - 2], heights[i - 1]);
        double highest = 0;
        for (size_t r = reached, i = points; r-- > 0;) {
            const size_t need = needed_[r], first = need ? need - 1 : 0;
            double here = 0;  // between this level and the next one: these chains of comparisons are short
            for (; i > first; --i) here = std::max(here, heights[i - 1]);
            highest = std::max(highest, here);
            precision[r] = ascending_ || !points ? highest : heights[first];
            if (score) score[r] = ranking.score[need ? point[first].rank : top];
        }
    }

    const Problem &p_;
    const size_t T_, A_, M_, first_, P_, R_;
    const uint32_t all_;
    std::vector<size_t> needed_;   // [R]
    bool ascending_ = true;        // they are, as a rule
    std::vector<int32_t> missed_;  // [P + 1, width]
    std::vector<char> used_;       // [P + 1]
    std::vector<size_t> top_;      // [P + 1] the first of all detections within the limit, ignored ones too
    std::vector<Matched> matched_;
    Large<int32_t> before_;        // [matched, P, width]
    size_t room_ = 0;              // for the true positives of one limit and threshold
    Large<Point> points_;          // [P, T, room]
    std::vector<Point *> end_;     // [P, T]
    std::vector<int64_t> found_;   // [M + 1, T]
    std::vector<int32_t> ignored_, counted_;
    std::vector<double> heights_;
};

}  // namespace striate
