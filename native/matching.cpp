#include "matching.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <new>
#include <system_error>
#include <thread>
#include <vector>

#include "sorting.hpp"

namespace striate {
namespace {

inline int lowest_bit(uint32_t mask) {
#if defined(__GNUC__)
    return __builtin_ctz(mask);
#else
    int t = 0;
    while (!(mask >> t & 1)) ++t;
    return t;
#endif
}

// Rows are visited in an order that the processor cannot foresee: it is told some steps ahead.
constexpr size_t kAhead = 16;

inline void fetch([[maybe_unused]] const void *p) {
#if defined(__GNUC__)
    __builtin_prefetch(p);
#endif
}

struct Candidate {
    double iou;
    int truth;
    uint32_t passes;  // the thresholds that `iou` reaches
};

struct Masks {
    uint32_t tp, fp;  // one bit for each IoU threshold; neither where the detection is ignored
};

// A detection in the order of scores over all images.
struct Ranked {
    int32_t row;
    int32_t level;    // the first limit that its rank is within
    int32_t matched;  // where its masks are; -1: it matches nothing anywhere
    uint32_t out;     // the area ranges in which it counts for nothing if it matches nothing
};

// What one thread works with; kept from category to category so that memory is asked for once.
class Worker {
  public:
    Worker(const Problem &problem, const Grouped &truths, const Grouped &detections,
           const std::vector<int64_t> &overlap_start, const std::vector<uint32_t> &out)
        : p_(problem), truths_(truths), detections_(detections), overlap_start_(overlap_start), out_(out),
          all_(problem.thresholds == 32 ? ~uint32_t{0} : (uint32_t{1} << problem.thresholds) - 1),
          bar_(static_cast<size_t>(problem.thresholds)), needed_(static_cast<size_t>(problem.levels)),
          reached_(static_cast<size_t>(problem.thresholds) * static_cast<size_t>(problem.limits)),
          missed_(static_cast<size_t>(problem.thresholds) * static_cast<size_t>(problem.limits)),
          missed_by_all_(static_cast<size_t>(problem.limits)) {
        for (size_t t = 0; t < bar_.size(); ++t) bar_[t] = std::min(p_.iou[t], 1 - 1e-10);
        lowest_ = bar_.empty() ? 1 : *std::min_element(bar_.begin(), bar_.end());
    }

    void category(int64_t k) {
        const int32_t *gt = truths_.rows.data() + truths_.start[static_cast<size_t>(k)];
        const size_t gts = static_cast<size_t>(truths_.start[static_cast<size_t>(k) + 1] - truths_.start[static_cast<size_t>(k)]);
        const int64_t cells = static_cast<int64_t>(p_.areas) * p_.limits * p_.thresholds;
        std::fill_n(p_.recall + k * cells, cells, -1.0);
        std::fill_n(p_.precision + k * cells * p_.levels, cells * p_.levels, -1.0);
        std::fill_n(p_.scores + k * cells * p_.levels, cells * p_.levels, -1.0);
        if (gts == 0 && !p_.dt_match) {
            count_cut(k);
            return;
        }
        match_category(k, gt, gts);
        if (gts == 0) return;
        accumulate(k, gt, gts);
    }

    int64_t cut() const { return cut_; }

  private:
    // How many detections of a category lie beyond the last limit, if nobody matches them.
    void count_cut(int64_t k) {
        const int64_t most = p_.limits ? p_.max_detections[p_.limits - 1] : 0;
        const int32_t *dt = detections_.rows.data();
        int64_t d = detections_.start[static_cast<size_t>(k)];
        const int64_t end = detections_.start[static_cast<size_t>(k) + 1];
        while (d < end) {
            const int64_t first = d;
            while (d < end && p_.dt_image[dt[d]] == p_.dt_image[dt[first]]) ++d;
            cut_ += std::max<int64_t>(0, d - first - most);
        }
    }

    // ---- matching

    uint32_t outside(double area) const {  // one bit for each area range that does not hold `area`
        uint32_t bits = 0;
        for (int a = 0; a < p_.areas; ++a)
            bits |= static_cast<uint32_t>(area < p_.area_range[2 * a] || area > p_.area_range[2 * a + 1]) << a;
        return bits;
    }

    void match_category(int64_t k, const int32_t *gt, size_t gts) {
        const int32_t *dt = detections_.rows.data() + detections_.start[static_cast<size_t>(k)];
        const size_t dts = static_cast<size_t>(detections_.start[static_cast<size_t>(k) + 1] -
                                               detections_.start[static_cast<size_t>(k)]);
        const int64_t most = p_.limits ? p_.max_detections[p_.limits - 1] : 0;
        overlaps_ = p_.overlaps ? p_.overlaps + overlap_start_[static_cast<size_t>(k)] : nullptr;
        kept_.clear();
        masks_.clear();
        matched_.clear();
        size_t g = 0;
        for (size_t d = 0; d < dts;) {
            const int32_t image = p_.dt_image[dt[d]];
            const size_t first = kept_.size();
            for (; d < dts && p_.dt_image[dt[d]] == image; ++d) {
                if (d + kAhead < dts) {
                    fetch(p_.dt_box + 4 * static_cast<int64_t>(dt[d + kAhead]));
                    fetch(p_.dt_score + dt[d + kAhead]);
                    fetch(p_.dt_image + dt[d + kAhead]);
                }
                kept_.push_back({descending(p_.dt_score[dt[d]]), dt[d], 0});
            }
            sort_small(&kept_[first], kept_.size() - first);
            if (static_cast<int64_t>(kept_.size() - first) > most) {
                cut_ += static_cast<int64_t>(kept_.size() - first) - most;
                kept_.resize(first + static_cast<size_t>(most));
            }
            for (size_t i = first; i < kept_.size(); ++i) kept_[i].rank = static_cast<int32_t>(i - first);
            matched_.resize(kept_.size(), -1);
            while (g < gts && p_.gt_image[gt[g]] < image) ++g;
            size_t after = g;
            while (after < gts && p_.gt_image[gt[after]] == image) ++after;
            match_group(first, gt + g, after - g);
            g = after;
        }
        if (p_.dt_rank)
            for (const Keyed &item : kept_) p_.dt_rank[item.row] = item.rank;
    }

    // The detections kept_[first..] and the ground truths of one image and one class.
    void match_group(size_t first, const int32_t *gt, size_t gts) {
        const size_t begin = masks_.size();
        if (gts == 0) {
            if (p_.dt_match)
                for (size_t i = first; i < kept_.size(); ++i) note_unmatched(kept_[i].row);
            return;
        }
        ignored_.resize(gts);
        for (size_t j = 0; j < gts; ++j)
            ignored_[j] = p_.gt_ignore[gt[j]] ? ~uint32_t{0} : outside(p_.gt_area[gt[j]]);
        const size_t dts = kept_.size() - first;
        taken_.assign(gts * static_cast<size_t>(p_.areas), 0);
        bool plain = lowest_ > 0;  // where 0 suffices, every pair is a candidate
        for (size_t i = 0; plain && i < dts; ++i) {
            const int32_t row = kept_[first + i].row;
            plain = overlaps_ ? candidates_given(overlaps_ + i * gts, gts) : candidates_of_boxes(row, gt, gts);
            if (!plain) break;
            if (!candidates_.empty()) {
                matched_[first + i] = static_cast<int32_t>(masks_.size());
                settle(row, gt);
            } else if (p_.dt_match) {
                note_unmatched(row);
            }
        }
        if (!plain) {
            masks_.resize(begin);
            match_literally(first, gt, gts);
        }
        if (overlaps_) overlaps_ += dts * gts;
    }

    bool add_candidate(double iou, size_t truth) {  // false where the value is no number
        if (iou != iou) return false;
        if (iou < lowest_) return true;
        uint32_t passes = 0;
        for (size_t t = 0; t < bar_.size(); ++t) passes |= static_cast<uint32_t>(iou >= bar_[t]) << t;
        candidates_.push_back({iou, static_cast<int>(truth), passes});
        return true;
    }

    bool candidates_given(const double *iou, size_t gts) {
        candidates_.clear();
        for (size_t j = 0; j < gts; ++j)
            if (!add_candidate(iou[j], j)) return false;
        return true;
    }

    bool candidates_of_boxes(int32_t row, const int32_t *gt, size_t gts) {
        candidates_.clear();
        const double *d = p_.dt_box + 4 * static_cast<int64_t>(row);
        const double right = d[2] + d[0], bottom = d[3] + d[1], area = d[2] * d[3];
        if (!(std::fabs(right) <= std::numeric_limits<double>::max() && std::fabs(bottom) <= std::numeric_limits<double>::max()))
            return false;
        for (size_t j = 0; j < gts; ++j) {
            const double *g = p_.gt_box + 4 * static_cast<int64_t>(gt[j]);
            const double gt_right = g[2] + g[0], gt_bottom = g[3] + g[1];
            if (gt_right != gt_right || gt_bottom != gt_bottom) return false;
            const double w = std::min(right, gt_right) - std::max(d[0], g[0]);
            if (w <= 0) continue;
            const double h = std::min(bottom, gt_bottom) - std::max(d[1], g[1]);
            if (h <= 0) continue;
            const double inter = w * h;
            const double all = p_.gt_crowd[gt[j]] ? area : area + g[2] * g[3] - inter;
            if (!add_candidate(inter / all, j)) return false;
        }
        return true;
    }

    void note_unmatched(int32_t row) {
        const uint32_t out = out_[static_cast<size_t>(row)];
        for (int a = 0; a < p_.areas; ++a)
            if (out >> a & 1)
                for (int t = 0; t < p_.thresholds; ++t) p_.dt_ignored[cell(a, t, p_.detections, row)] = 1;
    }

    int64_t cell(int a, int t, int64_t n, int64_t row) const { return (static_cast<int64_t>(a) * p_.thresholds + t) * n + row; }

    // All thresholds at once: a threshold takes the best candidate that is left to it, ground truths that
    // count before ignored ones, the later of two equals.
    void settle(int32_t row, const int32_t *gt) {
        if (candidates_.size() > 1)
            std::sort(candidates_.begin(), candidates_.end(), [](const Candidate &a, const Candidate &b) {
                return a.iou > b.iou || (a.iou == b.iou && a.truth > b.truth);
            });
        const uint32_t out = out_[static_cast<size_t>(row)];
        const bool takes = !(p_.dt_meek && p_.dt_meek[row]);
        for (int a = 0; a < p_.areas; ++a) {
            uint32_t left = all_, matched = 0, ignored = 0;
            for (uint32_t pass = 0; pass < 2; ++pass) {
                for (const Candidate &c : candidates_) {
                    const size_t j = static_cast<size_t>(c.truth);
                    if ((ignored_[j] >> a & 1) != pass) continue;
                    uint32_t &taken = taken_[j * static_cast<size_t>(p_.areas) + static_cast<size_t>(a)];
                    const uint32_t m = left & c.passes & (p_.gt_crowd[gt[j]] ? all_ : ~taken);
                    if (!m) continue;
                    if (takes) taken |= m;
                    left &= ~m;
                    if (!p_.gt_void[gt[j]]) matched |= m;
                    if (pass) ignored |= m;
                    if (p_.dt_match) note(a, m, row, gt[j]);
                }
            }
            finish(a, row, matched, ignored, out);
        }
    }

    void finish(int a, int32_t row, uint32_t matched, uint32_t ignored, uint32_t out) {
        if (out >> a & 1) ignored |= all_ & ~matched;
        masks_.push_back({matched & ~ignored, all_ & ~matched & ~ignored});
        if (p_.dt_match)
            for (int t = 0; t < p_.thresholds; ++t)
                p_.dt_ignored[cell(a, t, p_.detections, row)] = ignored >> t & 1;
    }

    void note(int a, uint32_t thresholds, int32_t row, int32_t truth) {
        for (; thresholds; thresholds &= thresholds - 1) {
            const int t = lowest_bit(thresholds);
            p_.dt_match[cell(a, t, p_.detections, row)] = truth;
            p_.gt_match[cell(a, t, p_.truths, truth)] = row;
        }
    }

    // Takes back what the quick way noted before it met an overlap that is no number.
    void forget(size_t first, const int32_t *gt, size_t gts) {
        for (int a = 0; a < p_.areas; ++a)
            for (int t = 0; t < p_.thresholds; ++t) {
                for (size_t i = first; i < kept_.size(); ++i) p_.dt_match[cell(a, t, p_.detections, kept_[i].row)] = -1;
                for (size_t j = 0; j < gts; ++j) p_.gt_match[cell(a, t, p_.truths, gt[j])] = -1;
            }
    }

    double literal_iou(int32_t row, int32_t truth) const {
        const double *d = p_.dt_box + 4 * static_cast<int64_t>(row), *g = p_.gt_box + 4 * static_cast<int64_t>(truth);
        const double w = std::fmin(d[2] + d[0], g[2] + g[0]) - std::fmax(d[0], g[0]);
        if (w <= 0) return 0;
        const double h = std::fmin(d[3] + d[1], g[3] + g[1]) - std::fmax(d[1], g[1]);
        if (h <= 0) return 0;
        const double inter = w * h, area = d[2] * d[3];
        return inter / (p_.gt_crowd[truth] ? area : area + g[2] * g[3] - inter);
    }

    // The reference's loops as they stand, for the rare groups with overlaps that are no numbers.
    void match_literally(size_t first, const int32_t *gt, size_t gts) {
        const size_t dts = kept_.size() - first;
        const size_t begin = masks_.size();
        masks_.resize(begin + dts * static_cast<size_t>(p_.areas));
        for (size_t i = 0; i < dts; ++i) matched_[first + i] = static_cast<int32_t>(begin + i * static_cast<size_t>(p_.areas));
        std::vector<size_t> order(gts);
        std::vector<double> iou(dts * gts);
        if (p_.dt_match) forget(first, gt, gts);
        for (size_t i = 0; i < dts; ++i)
            for (size_t j = 0; j < gts; ++j)
                iou[i * gts + j] = overlaps_ ? overlaps_[i * gts + j] : literal_iou(kept_[first + i].row, gt[j]);
        for (int a = 0; a < p_.areas; ++a) {
            for (size_t j = 0; j < gts; ++j) order[j] = j;
            std::stable_sort(order.begin(), order.end(),
                             [&](size_t x, size_t y) { return (ignored_[x] >> a & 1) < (ignored_[y] >> a & 1); });
            std::vector<uint32_t> taken(gts, 0);
            for (size_t i = 0; i < dts; ++i) {
                const int32_t row = kept_[first + i].row;
                uint32_t matched = 0, ignored = 0;
                for (int t = 0; t < p_.thresholds; ++t) {
                    double best = bar_[static_cast<size_t>(t)];
                    int64_t found = -1;
                    for (size_t j : order) {
                        if ((taken[j] >> t & 1) && !p_.gt_crowd[gt[j]]) continue;
                        if (found >= 0 && !(ignored_[static_cast<size_t>(found)] >> a & 1) && (ignored_[j] >> a & 1)) break;
                        if (iou[i * gts + j] < best) continue;
                        best = iou[i * gts + j];
                        found = static_cast<int64_t>(j);
                    }
                    if (found < 0) continue;
                    const size_t j = static_cast<size_t>(found);
                    if (!(p_.dt_meek && p_.dt_meek[row])) taken[j] |= uint32_t{1} << t;
                    if (!p_.gt_void[gt[j]]) matched |= uint32_t{1} << t;
                    if (ignored_[j] >> a & 1) ignored |= uint32_t{1} << t;
                    if (p_.dt_match) note(a, uint32_t{1} << t, row, gt[j]);
                }
                const uint32_t out = out_[static_cast<size_t>(row)];
                if (out >> a & 1) ignored |= all_ & ~matched;
                masks_[begin + i * static_cast<size_t>(p_.areas) + static_cast<size_t>(a)] = {matched & ~ignored, all_ & ~matched & ~ignored};
                if (p_.dt_match)
                    for (int t = 0; t < p_.thresholds; ++t)
                        p_.dt_ignored[cell(a, t, p_.detections, row)] = ignored >> t & 1;
            }
        }
    }

    // ---- accumulating

    void accumulate(int64_t k, const int32_t *gt, size_t gts) {
        keyed_.resize(kept_.size());
        for (size_t i = 0; i < kept_.size(); ++i) keyed_[i] = {kept_[i].key, kept_[i].row, static_cast<int32_t>(i)};
        sort_large(keyed_, spare_);
        rank();
        for (int a = 0; a < p_.areas; ++a) {
            int64_t positives = 0;
            for (size_t j = 0; j < gts; ++j) {
                const double area = p_.gt_area[gt[j]];
                positives += !(p_.gt_ignore[gt[j]] || area < p_.area_range[2 * a] || area > p_.area_range[2 * a + 1]);
            }
            if (positives == 0) continue;
            find_needed(positives);
            count(a);
            for (int m = 0; m < p_.limits; ++m) curve(((k * p_.areas + a) * p_.limits + m), m, positives);
        }
    }

    // What all area ranges and limits need to know of each detection, in the order of scores.
    void rank() {
        ranked_.resize(keyed_.size());
        for (size_t i = 0; i < keyed_.size(); ++i) {
            if (i + kAhead < keyed_.size()) {
                const size_t ahead = static_cast<size_t>(keyed_[i + kAhead].rank);
                fetch(&kept_[ahead]);
                fetch(&matched_[ahead]);
                fetch(&out_[static_cast<size_t>(keyed_[i + kAhead].row)]);
            }
            const size_t at = static_cast<size_t>(keyed_[i].rank);
            int32_t level = 0;
            while (kept_[at].rank >= p_.max_detections[level]) ++level;  // the last limit is above all ranks
            ranked_[i] = {keyed_[i].row, level, matched_[at], out_[static_cast<size_t>(keyed_[i].row)]};
        }
    }

    // One walk over the detections for all limits and thresholds: where the true positives are, and their precision.
    // Precision peaks at true positives, so it is computed only there.
    void count(int a) {
        const size_t T = bar_.size(), M = missed_by_all_.size();
        for (std::vector<Point> &points : reached_) points.clear();
        std::fill(missed_.begin(), missed_.end(), 0);
        std::fill(missed_by_all_.begin(), missed_by_all_.end(), 0);
        for (const Ranked &item : ranked_) {
            const size_t level = static_cast<size_t>(item.level);
            if (item.matched < 0) {
                missed_by_all_[level] += !(item.out >> a & 1);
                continue;
            }
            const Masks masks = masks_[static_cast<size_t>(item.matched) + static_cast<size_t>(a)];
            for (uint32_t bits = masks.fp; bits; bits &= bits - 1) ++missed_[level * T + static_cast<size_t>(lowest_bit(bits))];
            for (uint32_t bits = masks.tp; bits; bits &= bits - 1) {
                const size_t t = static_cast<size_t>(lowest_bit(bits));
                int64_t missed = 0;  // by detections of all lower levels: those within the limit
                for (size_t m = 0; m < M; ++m) {
                    missed += missed_by_all_[m] + missed_[m * T + t];
                    if (m < level) continue;
                    std::vector<Point> &points = reached_[m * T + t];
                    const double tp = static_cast<double>(points.size() + 1), fp = static_cast<double>(missed);
                    points.push_back({tp / (fp + tp + std::numeric_limits<double>::epsilon()), p_.dt_score[item.row]});
                }
            }
        }
    }

    // How many true positives reach each recall level: the first i with i / positives >= level.
    void find_needed(int64_t positives) {
        for (size_t r = 0; r < needed_.size(); ++r) {
            const double level = p_.recall_at[r], n = static_cast<double>(positives);
            if (level != level || level > 1e9) {
                needed_[r] = std::numeric_limits<int64_t>::max();
                continue;
            }
            int64_t i = level <= 0 ? 0 : static_cast<int64_t>(std::ceil(level * n));
            while (i > 0 && static_cast<double>(i - 1) / n >= level) --i;
            while (static_cast<double>(i) / n < level) ++i;
            needed_[r] = i;
        }
    }

    // One precision-recall curve for each threshold.
    void curve(int64_t at, int m, int64_t positives) {
        const size_t T = bar_.size();
        const Ranked *top = nullptr;  // the first of all detections within the limit, ignored ones too
        for (size_t i = 0; i < ranked_.size() && !top; ++i)
            if (ranked_[i].level <= m) top = &ranked_[i];
        for (size_t t = 0; t < T; ++t) {
            std::vector<Point> &points = reached_[static_cast<size_t>(m) * T + t];
            p_.recall[at * p_.thresholds + static_cast<int64_t>(t)] = static_cast<double>(points.size()) / static_cast<double>(positives);
            for (size_t i = points.size(); i > 1; --i)
                if (points[i - 1].precision > points[i - 2].precision) points[i - 2].precision = points[i - 1].precision;
            double *precision = p_.precision + (at * p_.thresholds + static_cast<int64_t>(t)) * p_.levels;
            double *score = p_.scores + (at * p_.thresholds + static_cast<int64_t>(t)) * p_.levels;
            int r = 0;
            for (; r < p_.levels; ++r) {
                const int64_t need = needed_[static_cast<size_t>(r)];
                if (!top || need > static_cast<int64_t>(points.size())) break;
                if (need == 0) {
                    precision[r] = points.empty() ? 0 : points[0].precision;
                    score[r] = p_.dt_score[top->row];
                } else {
                    precision[r] = points[static_cast<size_t>(need) - 1].precision;
                    score[r] = points[static_cast<size_t>(need) - 1].score;
                }
            }
            for (; r < p_.levels; ++r) precision[r] = score[r] = 0;
        }
    }

    struct Point {
        double precision, score;
    };

    const Problem &p_;
    const Grouped &truths_, &detections_;
    const std::vector<int64_t> &overlap_start_;
    const std::vector<uint32_t> &out_;  // [D]
    const uint32_t all_;
    std::vector<double> bar_;
    double lowest_ = 1;
    int64_t cut_ = 0;
    const double *overlaps_ = nullptr;
    std::vector<Keyed> kept_, keyed_, spare_;
    std::vector<int32_t> matched_;  // of each kept one, where its masks begin, or -1
    std::vector<Masks> masks_;      // A for each detection that has a candidate
    std::vector<Ranked> ranked_;
    std::vector<uint32_t> ignored_, taken_;
    std::vector<Candidate> candidates_;
    std::vector<int64_t> needed_;
    std::vector<std::vector<Point>> reached_;      // [M, T]
    std::vector<int64_t> missed_, missed_by_all_;  // [M, T] and [M], by the level of the detections
};

// For each detection, one bit for each area range in which it counts for nothing if it matches nothing.
std::vector<uint32_t> ignored_unmatched(const Problem &p) {
    std::vector<uint32_t> out(static_cast<size_t>(p.detections), 0);
    for (int64_t i = 0; i < p.detections; ++i) {
        const double area = p.dt_area ? p.dt_area[i] : p.dt_box[4 * i + 2] * p.dt_box[4 * i + 3];
        uint32_t bits = 0;
        for (int a = 0; a < p.areas; ++a)
            bits |= static_cast<uint32_t>((area < p.area_range[2 * a]) | (area > p.area_range[2 * a + 1])) << a;
        out[static_cast<size_t>(i)] = p.dt_excused && p.dt_excused[i] ? ~uint32_t{0} : bits;
    }
    return out;
}

// Where each category's overlaps start, if there are as many as the groups need.
bool lay_out_overlaps(const Problem &p, const Grouped &truths, const Grouped &detections, std::vector<int64_t> &start) {
    const int64_t most = p.limits ? p.max_detections[p.limits - 1] : 0;
    int64_t total = 0;
    for (size_t k = 0; k < static_cast<size_t>(p.categories); ++k) {
        start.push_back(total);
        int64_t g = truths.start[k];
        for (int64_t d = detections.start[k]; d < detections.start[k + 1];) {
            const int32_t image = p.dt_image[detections.rows[static_cast<size_t>(d)]];
            int64_t dts = 0, gts = 0;
            for (; d < detections.start[k + 1] && p.dt_image[detections.rows[static_cast<size_t>(d)]] == image; ++d) ++dts;
            while (g < truths.start[k + 1] && p.gt_image[truths.rows[static_cast<size_t>(g)]] < image) ++g;
            for (; g < truths.start[k + 1] && p.gt_image[truths.rows[static_cast<size_t>(g)]] == image; ++g) ++gts;
            total += std::min(dts, most) * gts;
        }
    }
    return total == p.overlap_count;
}

}  // namespace

int64_t evaluate(const Problem &p, int threads) {
    const Grouped truths = group(p.gt_image, p.gt_category, p.truths, p.images, p.categories);
    const Grouped detections = group(p.dt_image, p.dt_category, p.detections, p.images, p.categories);
    std::vector<int64_t> overlap_start;
    if (p.overlaps && !lay_out_overlaps(p, truths, detections, overlap_start)) return -1;
    const std::vector<uint32_t> out = ignored_unmatched(p);
    std::atomic<int64_t> next{0}, cut{0};
    std::atomic<bool> failed{false};
    auto work = [&] {
        try {
            Worker worker(p, truths, detections, overlap_start, out);
            for (int64_t k; (k = next.fetch_add(1)) < p.categories;) worker.category(k);
            cut += worker.cut();
        } catch (...) {  // no memory
            failed = true;
        }
    };
    std::vector<std::thread> others;
    try {
        for (int i = 1; i < threads && i < p.categories; ++i) others.emplace_back(work);
    } catch (const std::system_error &) {  // no more threads to be had: fewer do the work
    }
    work();
    for (std::thread &thread : others) thread.join();
    if (failed) throw std::bad_alloc();
    return cut;
}

}  // namespace striate
