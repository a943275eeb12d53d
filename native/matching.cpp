#include "matching.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <new>
#include <system_error>
#include <thread>
#include <vector>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include "curves.hpp"
#include "memory.hpp"
#include "sorting.hpp"

namespace striate {
namespace {

// One bit for each area range that does not hold `area`.
inline uint32_t outside(const Problem &p, double area) {
    uint32_t bits = 0;
    for (int a = 0; a < p.areas; ++a)
        bits |= static_cast<uint32_t>((area < p.area_range[2 * a]) | (area > p.area_range[2 * a + 1])) << a;
    return bits;
}

struct Truth {
    int32_t row, image;
};

struct Detection {
    uint32_t upper, lower;  // halves of a key that ascends as the score descends
    int32_t row, image;
    uint32_t out;  // the area ranges in which it counts for nothing if it matches nothing
    double box[4];
};

struct Candidate {
    double iou;
    size_t truth;
    uint32_t passes;  // the thresholds that `iou` reaches
};

// A ground truth of the group that is being matched.
struct Target {
    double left, top, right, bottom, area;
    int32_t row;
    uint32_t ignored;  // area ranges
    bool crowd, is_void;
};

// What one thread works with; kept from category to category so that memory is asked for once.
class Worker {
  public:
    Worker(const Problem &problem, const Grouped<Truth> &truths, const Grouped<Detection> &detections,
           const std::vector<int64_t> &overlap_start)
        : p_(problem), truths_(truths), detections_(detections), overlap_start_(overlap_start), curves_(problem),
          all_(problem.thresholds == 32 ? ~uint32_t{0} : (uint32_t{1} << problem.thresholds) - 1),
          areas_(static_cast<size_t>(problem.areas)), bar_(static_cast<size_t>(problem.thresholds)) {
        for (size_t t = 0; t < bar_.size(); ++t) bar_[t] = std::min(p_.iou[t], 1 - 1e-10);
        lowest_ = bar_.empty() ? 1 : *std::min_element(bar_.begin(), bar_.end());
    }

    void category(int64_t k) {
        const size_t at = static_cast<size_t>(k);
        const Truth *gt = truths_.rows.data() + truths_.start[at];
        const size_t gts = truths_.start[at + 1] - truths_.start[at];
        dt_ = detections_.rows.data() + detections_.start[at];
        const size_t dts = detections_.start[at + 1] - detections_.start[at];
        find_groups(dts);
        if (gts == 0 && !p_.dt_match) {
            for (size_t g = 0; g + 1 < groups_.size(); ++g) cut_ += std::max<int64_t>(0, groups_[g + 1] - groups_[g] - most());
            curves_.nothing(k);
            return;
        }
        rank(dts);
        overlaps_ = p_.overlaps ? p_.overlaps + overlap_start_[at] : nullptr;
        match_groups(gt, gts);
        if (gts == 0) curves_.nothing(k);
        else curves_.category(k, ranking_, masks_, positives_);
    }

    int64_t cut() const { return cut_; }

  private:
    int64_t most() const { return p_.limits ? p_.max_detections[p_.limits - 1] : 0; }

    // Where each image's detections start, and the end.
    void find_groups(size_t dts) {
        groups_.clear();
        group_of_.resize(dts);
        int32_t image = 0;
        for (size_t d = 0; d < dts; ++d) {
            const int32_t here = dt_[d].image;
            if (d == 0 || here != image) groups_.push_back(static_cast<int32_t>(d));
            image = here;
            group_of_[d] = static_cast<int32_t>(groups_.size()) - 1;
        }
        groups_.push_back(static_cast<int32_t>(dts));
    }

    // Detections by falling score: over all images in `ranking_` and `order_`, and in each group of `by_score_`,
    // which has their places in `order_`.
    void rank(size_t dts) {
        order_.resize(dts);
        for (size_t i = 0; i < dts; ++i) order_[i] = {dt_[i].upper, static_cast<uint32_t>(i)};
        sort_upper_halves(order_, spare_);
        order_equal_halves(order_, [this](const Entry &item) { return dt_[item.at].lower; });
        ranking_.resize(dts, p_.scores != nullptr);
        for (size_t i = 0; i < ranking_.score.size(); ++i) {
            if (i + kAhead < dts) fetch(p_.dt_score + dt_[order_[i + kAhead].at].row);
            ranking_.score[i] = p_.dt_score[dt_[order_[i].at].row];
        }
        by_score_.resize(dts);
        next_.assign(groups_.begin(), groups_.end());
        for (size_t i = 0; i < dts; ++i) {
            const Detection &dt = dt_[order_[i].at];
            const size_t group = static_cast<size_t>(group_of_[order_[i].at]);
            const int32_t place = next_[group]++, rank = place - groups_[group];
            by_score_[static_cast<size_t>(place)] = static_cast<int32_t>(i);
            int32_t level = 0;
            for (int m = 0; m < p_.limits; ++m) level += rank >= p_.max_detections[m];
            ranking_.level[i] = level;
            ranking_.out[i] = dt.out;
            if (p_.dt_rank && level < p_.limits) p_.dt_rank[dt.row] = rank;
        }
    }

    const Detection &detection(int32_t place) const { return dt_[order_[static_cast<size_t>(place)].at]; }

    // ---- matching

    void match_groups(const Truth *gt, size_t gts) {
        masks_.clear();
        positives_.assign(areas_, 0);
        size_t g = 0;
        const auto targets_before = [&](int64_t image) {
            for (; g < gts && gt[g].image < image; ++g) add_target(gt, gts, g);
        };
        for (size_t i = 0; i + 1 < groups_.size(); ++i) {
            const int32_t *first = by_score_.data() + groups_[i];
            const int64_t size = groups_[i + 1] - groups_[i], kept = std::min(size, most());
            cut_ += size - kept;
            const int32_t image = dt_[groups_[i]].image;
            targets_before(image);
            targets_.clear();
            targets_before(int64_t{image} + 1);
            match_group(first, static_cast<size_t>(kept));
        }
        targets_before(std::numeric_limits<int64_t>::max());
    }

    void add_target(const Truth *gt, size_t gts, size_t g) {
        if (g + kAhead < gts) {
            fetch(p_.gt_box + 4 * static_cast<int64_t>(gt[g + kAhead].row));
            fetch(p_.gt_area + gt[g + kAhead].row);
        }
        const int32_t row = gt[g].row;
        const double *box = p_.gt_box + 4 * static_cast<int64_t>(row);
        const uint32_t ignored = p_.gt_ignore[row] ? ~uint32_t{0} : outside(p_, p_.gt_area[row]);
        for (size_t a = 0; a < areas_; ++a) positives_[a] += !(ignored >> a & 1);
        targets_.push_back({box[0], box[1], box[2] + box[0], box[3] + box[1], box[2] * box[3], row, ignored,
                            p_.gt_crowd[row] != 0, p_.gt_void[row] != 0});
    }

    // The detections at these places and `targets_`, of one image and one class.
    void match_group(const int32_t *places, size_t dts) {
        if (targets_.empty()) {
            if (p_.dt_match)
                for (size_t i = 0; i < dts; ++i) note_unmatched(detection(places[i]));
            return;
        }
        for (size_t i = 0; i < dts; ++i) fetch(detection(places[i]).box);
        const size_t begin = masks_.size();
        taken_.assign(targets_.size() * areas_, 0);
        bool plain = lowest_ > 0 && numbers();  // where 0 suffices, every pair is a candidate
        for (size_t i = 0; plain && i < dts; ++i) {
            const Detection &dt = detection(places[i]);
            plain = overlaps_ ? candidates_given(overlaps_ + i * targets_.size()) : candidates_of_boxes(dt.box);
            if (!plain) break;
            if (!candidates_.empty()) {
                ranking_.matched[static_cast<size_t>(places[i])] = static_cast<int32_t>(masks_.size());
                settle(dt);
            } else if (p_.dt_match) {
                note_unmatched(dt);
            }
        }
        if (!plain) {
            masks_.resize(begin);
            match_literally(places, dts);
        }
        if (overlaps_) overlaps_ += dts * targets_.size();
    }

    bool numbers() const {
        for (const Target &gt : targets_)
            if (gt.right != gt.right || gt.bottom != gt.bottom) return overlaps_ != nullptr;
        return true;
    }

    bool add_candidate(double iou, size_t truth) {  // false where the value is no number
        if (iou != iou) return false;
        if (iou < lowest_) return true;
        uint32_t passes = 0;
        for (size_t t = 0; t < bar_.size(); ++t) passes |= static_cast<uint32_t>(iou >= bar_[t]) << t;
        candidates_.push_back({iou, truth, passes});
        return true;
    }

    bool candidates_given(const double *iou) {
        candidates_.clear();
        for (size_t j = 0; j < targets_.size(); ++j)
            if (!add_candidate(iou[j], j)) return false;
        return true;
    }

    bool candidates_of_boxes(const double *d) {
        candidates_.clear();
        const double right = d[2] + d[0], bottom = d[3] + d[1], area = d[2] * d[3];
        if (!(std::fabs(right) <= std::numeric_limits<double>::max() && std::fabs(bottom) <= std::numeric_limits<double>::max()))
            return false;
#if defined(__SSE2__)
        const __m128d far = _mm_set_pd(bottom, right);
#endif
        const double enough = lowest_ * (1 - 1e-12);  // below this, no rounding of the quotient reaches `lowest_`
        const Target *targets = targets_.data();
        for (size_t j = 0, n = targets_.size(); j < n; ++j) {
            const Target &gt = targets[j];
#if defined(__SSE2__)  // width and height side by side
            const __m128d low = _mm_max_pd(_mm_loadu_pd(d), _mm_loadu_pd(&gt.left));
            const __m128d high = _mm_min_pd(far, _mm_loadu_pd(&gt.right));
            const __m128d sides = _mm_sub_pd(high, low);
            const int apart = _mm_movemask_pd(_mm_cmple_pd(sides, _mm_setzero_pd()));
            const double inter = _mm_cvtsd_f64(_mm_mul_sd(sides, _mm_unpackhi_pd(sides, sides)));
#else
            const double w = std::min(right, gt.right) - std::max(d[0], gt.left);
            const double h = std::min(bottom, gt.bottom) - std::max(d[1], gt.top);
            const int apart = (w <= 0) | (h <= 0);
            const double inter = w * h;
#endif
            const double all = gt.crowd ? area : area + gt.area - inter;
            if (apart | (inter < enough * all)) continue;  // one branch, mostly taken
            if (!add_candidate(inter / all, j)) return false;
        }
        return true;
    }

    void note_unmatched(const Detection &dt) {
        for (int a = 0; a < p_.areas; ++a)
            if (dt.out >> a & 1)
                for (int t = 0; t < p_.thresholds; ++t) p_.dt_ignored[cell(a, t, p_.detections, dt.row)] = 1;
    }

    int64_t cell(int a, int t, int64_t n, int64_t row) const { return (static_cast<int64_t>(a) * p_.thresholds + t) * n + row; }

    // All thresholds at once: a threshold takes the best candidate that is left to it, ground truths that
    // count before ignored ones, the later of two equals.
    void settle(const Detection &dt) {
        if (candidates_.size() == 1) return settle_one(dt, candidates_[0]);
        std::sort(candidates_.begin(), candidates_.end(), [](const Candidate &a, const Candidate &b) {
            return a.iou > b.iou || (a.iou == b.iou && a.truth > b.truth);
        });
        const bool takes = !(p_.dt_meek && p_.dt_meek[dt.row]);
        for (int a = 0; a < p_.areas; ++a) {
            uint32_t left = all_, matched = 0, ignored = 0;
            for (uint32_t pass = 0; pass < 2; ++pass) {
                for (const Candidate &c : candidates_) {
                    const Target &gt = targets_[c.truth];
                    if ((gt.ignored >> a & 1) != pass) continue;
                    uint32_t &taken = taken_[c.truth * areas_ + static_cast<size_t>(a)];
                    const uint32_t m = left & c.passes & (gt.crowd ? all_ : ~taken);
                    if (!m) continue;
                    if (takes) taken |= m;
                    left &= ~m;
                    if (!gt.is_void) matched |= m;
                    if (pass) ignored |= m;
                    if (p_.dt_match) note(a, m, dt.row, gt.row);
                }
            }
            masks_.push_back({});
            finish(a, dt, matched, ignored, masks_.back());
        }
    }

    void settle_one(const Detection &dt, const Candidate &c) {
        const Target &gt = targets_[c.truth];
        const uint32_t takes = p_.dt_meek && p_.dt_meek[dt.row] ? 0 : all_, counts = gt.is_void ? 0 : all_;
        uint32_t *taken = &taken_[c.truth * areas_];
        const size_t begin = masks_.size();
        masks_.resize(begin + areas_);
        for (size_t a = 0; a < areas_; ++a) {
            const uint32_t m = c.passes & (gt.crowd ? all_ : ~taken[a]);
            taken[a] |= m & takes;
            if (p_.dt_match) note(static_cast<int>(a), m, dt.row, gt.row);
            finish(static_cast<int>(a), dt, m & counts, gt.ignored >> a & 1 ? m : 0, masks_[begin + a]);
        }
    }

    void finish(int a, const Detection &dt, uint32_t matched, uint32_t ignored, Masks &masks) {
        if (dt.out >> a & 1) ignored |= all_ & ~matched;
        masks = {matched & ~ignored, ignored};
        if (p_.dt_match)
            for (int t = 0; t < p_.thresholds; ++t)
                p_.dt_ignored[cell(a, t, p_.detections, dt.row)] = ignored >> t & 1;
    }

    void note(int a, uint32_t thresholds, int32_t row, int32_t truth) {
        for (; thresholds; thresholds &= thresholds - 1) {
            const int t = lowest_bit(thresholds);
            p_.dt_match[cell(a, t, p_.detections, row)] = truth;
            p_.gt_match[cell(a, t, p_.truths, truth)] = row;
        }
    }

    // Takes back what the quick way noted before it met an overlap that is no number.
    void forget(const int32_t *places, size_t dts) {
        for (int a = 0; a < p_.areas; ++a)
            for (int t = 0; t < p_.thresholds; ++t) {
                for (size_t i = 0; i < dts; ++i) p_.dt_match[cell(a, t, p_.detections, detection(places[i]).row)] = -1;
                for (const Target &gt : targets_) p_.gt_match[cell(a, t, p_.truths, gt.row)] = -1;
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
    void match_literally(const int32_t *places, size_t dts) {
        const size_t gts = targets_.size();
        const size_t begin = masks_.size();
        masks_.resize(begin + dts * areas_);
        for (size_t i = 0; i < dts; ++i) ranking_.matched[static_cast<size_t>(places[i])] = static_cast<int32_t>(begin + i * areas_);
        std::vector<size_t> order(gts);
        std::vector<double> iou(dts * gts);
        if (p_.dt_match) forget(places, dts);
        for (size_t i = 0; i < dts; ++i)
            for (size_t j = 0; j < gts; ++j)
                iou[i * gts + j] = overlaps_ ? overlaps_[i * gts + j] : literal_iou(detection(places[i]).row, targets_[j].row);
        for (int a = 0; a < p_.areas; ++a) {
            for (size_t j = 0; j < gts; ++j) order[j] = j;
            std::stable_sort(order.begin(), order.end(),
                             [&](size_t x, size_t y) { return (targets_[x].ignored >> a & 1) < (targets_[y].ignored >> a & 1); });
            std::vector<uint32_t> taken(gts, 0);
            for (size_t i = 0; i < dts; ++i) {
                const Detection &dt = detection(places[i]);
                uint32_t matched = 0, ignored = 0;
                for (int t = 0; t < p_.thresholds; ++t) {
                    double best = bar_[static_cast<size_t>(t)];
                    int64_t found = -1;
                    for (size_t j : order) {
                        if ((taken[j] >> t & 1) && !targets_[j].crowd) continue;
                        if (found >= 0 && !(targets_[static_cast<size_t>(found)].ignored >> a & 1) && (targets_[j].ignored >> a & 1)) break;
                        if (iou[i * gts + j] < best) continue;
                        best = iou[i * gts + j];
                        found = static_cast<int64_t>(j);
                    }
                    if (found < 0) continue;
                    const size_t j = static_cast<size_t>(found);
                    if (!(p_.dt_meek && p_.dt_meek[dt.row])) taken[j] |= uint32_t{1} << t;
                    if (!targets_[j].is_void) matched |= uint32_t{1} << t;
                    if (targets_[j].ignored >> a & 1) ignored |= uint32_t{1} << t;
                    if (p_.dt_match) note(a, uint32_t{1} << t, dt.row, targets_[j].row);
                }
                finish(a, dt, matched, ignored, masks_[begin + i * areas_ + static_cast<size_t>(a)]);
            }
        }
    }

    const Problem &p_;
    const Grouped<Truth> &truths_;
    const Grouped<Detection> &detections_;
    const std::vector<int64_t> &overlap_start_;
    Curves curves_;
    const uint32_t all_;
    const size_t areas_;
    std::vector<double> bar_;
    double lowest_ = 1;
    int64_t cut_ = 0;
    const double *overlaps_ = nullptr;
    const Detection *dt_ = nullptr;  // of the category, by image
    std::vector<int32_t> groups_, group_of_, next_, by_score_;
    std::vector<Entry> order_, spare_;
    Ranking ranking_;
    std::vector<Masks> masks_;  // A for each detection that has a candidate
    std::vector<int64_t> positives_;
    std::vector<Target> targets_;
    std::vector<uint32_t> taken_;
    std::vector<Candidate> candidates_;
};

// Where each category's overlaps start, if there are as many as the groups need.
bool lay_out_overlaps(const Problem &p, const Grouped<Truth> &truths, const Grouped<Detection> &detections, std::vector<int64_t> &start) {
    const int64_t most = p.limits ? p.max_detections[p.limits - 1] : 0;
    int64_t total = 0;
    for (size_t k = 0; k < static_cast<size_t>(p.categories); ++k) {
        start.push_back(total);
        size_t g = truths.start[k];
        for (size_t d = detections.start[k]; d < detections.start[k + 1];) {
            const int32_t image = detections.rows[d].image;
            int64_t dts = 0, gts = 0;
            for (; d < detections.start[k + 1] && detections.rows[d].image == image; ++d) ++dts;
            while (g < truths.start[k + 1] && truths.rows[g].image < image) ++g;
            for (; g < truths.start[k + 1] && truths.rows[g].image == image; ++g) ++gts;
            total += std::min(dts, most) * gts;
        }
    }
    return total == p.overlap_count;
}

}  // namespace

int64_t evaluate(const Problem &p, int threads) {
    const Grouped<Truth> truths = group<Truth>(p.gt_image, p.gt_category, p.truths, p.images, p.categories,
                                               [&p](int32_t row) { return Truth{row, p.gt_image[row]}; }, [](int32_t) {});
    const auto make = [&p](int32_t row) {
        const double *box = p.dt_box + 4 * static_cast<int64_t>(row);
        const bool excused = p.dt_excused && p.dt_excused[row];
        const uint32_t out = excused ? ~uint32_t{0} : outside(p, p.dt_area ? p.dt_area[row] : box[2] * box[3]);
        const uint64_t key = descending(p.dt_score[row]);
        return Detection{static_cast<uint32_t>(key >> 32), static_cast<uint32_t>(key), row, p.dt_image[row], out, {box[0], box[1], box[2], box[3]}};
    };
    const auto look_ahead = [&p](int32_t row) {
        fetch(p.dt_category + row);
        fetch(p.dt_score + row);
        fetch(p.dt_box + 4 * static_cast<int64_t>(row));
    };
    const Grouped<Detection> detections =
        group<Detection>(p.dt_image, p.dt_category, p.detections, p.images, p.categories, make, look_ahead);
    std::vector<int64_t> overlap_start;
    if (p.overlaps && !lay_out_overlaps(p, truths, detections, overlap_start)) return -1;
    const size_t curves = static_cast<size_t>(p.categories) * static_cast<size_t>(p.areas) * static_cast<size_t>(p.limits - p.first) *
                          static_cast<size_t>(p.thresholds) * static_cast<size_t>(p.levels);
    will_write(p.precision, curves * sizeof(double));
    if (p.scores) will_write(p.scores, curves * sizeof(double));
    std::atomic<int64_t> next{0}, cut{0};
    std::atomic<bool> failed{false};
    auto work = [&] {
        try {
            Worker worker(p, truths, detections, overlap_start);
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
