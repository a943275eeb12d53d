// The two COCO JSON layouts, read in one pass straight into columns.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace striate {

struct Box {
    double side[4];  // x, y, width, height
};

// Ids of any order; of equal ones the last counts.
class Places {
  public:
    Places(const std::int64_t *known, std::size_t count);

    std::int32_t of(std::int64_t id) const { return values_[slot(id)]; }  // -1 where it is not known

  private:
    std::size_t slot(std::int64_t id) const {
        std::size_t s = static_cast<std::size_t>(static_cast<std::uint64_t>(id) * 0x9e3779b97f4a7c15u >> shift_);
        while (values_[s] >= 0 && keys_[s] != id) s = (s + 1) & (keys_.size() - 1);
        return s;
    }

    int shift_ = 60;
    std::vector<std::int64_t> keys_;
    std::vector<std::int32_t> values_;
};

// What the ids of detections refer to.
struct Known {
    Places images, categories;
};

struct Columns {
    std::vector<std::int64_t> id, image, category;  // ids; of unknown ones alone, where `Known` was given
    std::vector<std::int32_t> image_place, category_place;  // their places, if so; -1 for unknown ones
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
// `known`: null, or what the ids of detections refer to. Throws Refusal (json_reader.hpp).
void read_json(const char *text, std::size_t size, bool results, const Known *known, int threads, Dataset &out);

// For each id its place in `known`, or -1. Of equal known ids the last one counts.
void places(const std::int64_t *ids, std::size_t count, const std::int64_t *known, std::size_t known_count,
            std::int32_t *out);

}  // namespace striate
