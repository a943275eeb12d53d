// The two COCO JSON layouts, read in one pass straight into columns.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace striate {

struct Box {
    double side[4];  // x, y, width, height
};

struct Columns {
    std::vector<std::int64_t> id, image, category;
    std::vector<Box> box;
    std::vector<double> score, area;
    std::vector<std::uint8_t> crowd;
    std::int64_t areas_missing = 0;  // filled with width times height
};

struct Dataset {
    Columns annotations;
    std::vector<std::int64_t> images;
    std::vector<double> sizes;  // [images, 2] width and height; NaN where an image has none
    // Byte ranges of the values of "info", "images" and "categories"; empty where there is none.
    std::size_t info_begin = 0, info_end = 0, images_begin = 0, images_end = 0, categories_begin = 0, categories_end = 0;
    bool has_annotations = false;
};

// `results`: rows are detections (image_id, category_id, bbox, score), in an array or under "annotations";
// else the text is an object and its annotations are ground truth (id, area and iscrowd, and no score).
// Throws Refusal (json_reader.hpp).
void read_json(const char *text, std::size_t size, bool results, int threads, Dataset &out);

// For each id its place in `known`, or -1. Of equal known ids the last one counts.
void places(const std::int64_t *ids, std::size_t count, const std::int64_t *known, std::size_t known_count,
            std::int32_t *out);

}  // namespace striate
