// Matching detections to ground truth and accumulating precision and recall, with the semantics of
// pycocotools' COCOeval (evaluateImg and accumulate), for bounding boxes or for overlaps given from outside.
//
// Lin et al., "Microsoft COCO: Common Objects in Context", 2014; the exact rules are those of the
// reference evaluator, version 2.0.11. No multiply-add may be fused here (-ffp-contract=off): the
// results are equal to the reference's bit for bit.
#pragma once

#include <cstdint>

namespace striate {

// All arrays are C-contiguous. Rows whose image or category is negative are left out.
struct Problem {
    std::int64_t images, categories;

    std::int64_t truths;              // G
    const std::int32_t *gt_image;     // [G]
    const std::int32_t *gt_category;  // [G]
    const double *gt_box;             // [G, 4] x, y, width, height
    const double *gt_area;            // [G]
    const std::uint8_t *gt_crowd;     // [G] may match any number of detections
    const std::uint8_t *gt_ignore;    // [G] counts neither for nor against
    const std::uint8_t *gt_void;      // [G] its matches count as none (ids of 0 in the reference)

    std::int64_t detections;          // D
    const std::int32_t *dt_image;     // [D]
    const std::int32_t *dt_category;  // [D]
    const double *dt_box;             // [D, 4]
    const double *dt_score;           // [D]
    const double *dt_area;            // [D], or null: width times height
    const std::uint8_t *dt_meek;      // [D], or null: does not take what it matches (ids below 1)
    const std::uint8_t *dt_excused;   // [D], or null: counts for nothing if it matches nothing

    const double *overlaps;  // null: IoU of boxes; else for each (category, image) with both, [kept, truths]
    std::int64_t overlap_count;

    int thresholds;            // T, at most 32
    const double *iou;         // [T]
    int levels;                // R
    const double *recall_at;   // [R]
    int areas;                 // A, at most 32
    const double *area_range;  // [A, 2]
    int limits;                // M
    const std::int64_t *max_detections;  // [M], ascending
    int first;                 // of the limits that have curves: the last P = M - first

    double *precision;  // [K, A, P, T, R], -1 where there is no ground truth
    double *scores;     // [K, A, P, T, R], likewise; or null
    double *recall;     // [K, A, M, T], likewise

    // Who matched whom, where asked for; all of them or none.
    std::int32_t *dt_match;    // [A, T, D] row of the ground truth, or -1
    std::int32_t *gt_match;    // [A, T, G] row of the detection, or -1
    std::uint8_t *dt_ignored;  // [A, T, D]
    std::int32_t *dt_rank;     // [D] place by score in its image and class, -1 beyond the last limit
};

// Fills the outputs, categories shared out among `threads`. Returns how many detections lie beyond the last
// limit, or -1 where `overlaps` has not as many values as the groups need.
std::int64_t evaluate(const Problem &problem, int threads);

}  // namespace striate
