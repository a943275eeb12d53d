#include "json_columns.hpp"

#include <algorithm>
#include <cstring>
#include <limits>
#include <system_error>
#include <thread>

#include "json_reader.hpp"
#include "memory.hpp"

namespace striate {
namespace {

enum Field : unsigned { kOther = 0, kId = 1, kImage = 2, kCategory = 4, kBox = 8, kScore = 16, kArea = 32, kCrowd = 64 };

inline bool is(const char *key, size_t length, const char *name, size_t n) {
    return length == n && std::memcmp(key, name, n) == 0;
}
#define STRIATE_IS(name) is(key, length, name, sizeof(name) - 1)

template <bool results>
Field field_of(const char *key, size_t length) {
    if (STRIATE_IS("image_id")) return kImage;
    if (STRIATE_IS("category_id")) return kCategory;
    if (STRIATE_IS("bbox")) return kBox;
    if (results) return STRIATE_IS("score") ? kScore : kOther;
    return STRIATE_IS("id") ? kId : STRIATE_IS("area") ? kArea : STRIATE_IS("iscrowd") ? kCrowd : kOther;
}

// The keys of the first row, each with all that stands between the value before it and its own, as in the text:
// the rows of a file mostly have the same keys in the same order, and then they are only compared.
class Keys {
  public:
    // Before member n of a row: what its value is; false at the end of the row.
    template <bool results>
    bool next(Reader &in, size_t n, Field &field) {
        if (n < count_ && in.take_again(known_[n].begin, known_[n].length)) {
            field = known_[n].field;
            return true;
        }
        const char *begin = in.at(), *key;
        if (n > 0 && !in.another('}', "a comma or } was expected")) return false;
        size_t length;
        in.key(key, length);
        field = field_of<results>(key, length);
        if (n < kMost) {
            known_[n] = {begin, static_cast<size_t>(in.at() - begin), field};
            count_ = std::max(count_, n + 1);
        }
        return true;
    }

  private:
    static constexpr size_t kMost = 16;
    struct Known {
        const char *begin;
        size_t length;
        Field field;
    };
    Known known_[kMost];
    size_t count_ = 0;
};

void read_box(Reader &in, double *box) {
    if (!in.open('[', ']', "bbox should be an array")) in.refuse("bbox should have four numbers");
    if (in.four_numbers(box)) return;
    for (int i = 0; i < 4; ++i) {
        box[i] = in.number();
        if (in.another(']', "a comma or ] was expected") != (i < 3)) in.refuse("bbox should have four numbers");
    }
}

// An id and its place. Rows of one image mostly follow one another.
struct Recent {
    int64_t id;
    std::int32_t place;
};

// Of the row before; at first of the id 0, so that they are always true.
struct Before {
    explicit Before(const Known *known) : image{0, known ? known->images.of(0) : -1}, category{0, known ? known->categories.of(0) : -1} {}

    Recent image, category;
};

// Adds the place of an id; the id itself where it is not known.
void add_place(int64_t id, const Places &known, Recent &before, std::vector<std::int32_t> &places, std::vector<int64_t> &unknown) {
    if (id != before.id) before = {id, known.of(id)};
    places.push_back(before.place);
    if (before.place < 0) unknown.push_back(id);
}

template <bool results>
void read_row(Reader &in, Keys &keys, const Known *known, Before &before, Columns &out) {
    const size_t begin = in.offset();
    unsigned seen = 0;
    int64_t id = 0, image = 0, category = 0;
    double score = 0, area = 0;
    Box box{};
    bool crowd = false;
    if (in.open('{', '}', "an annotation should be an object")) {
        Field field;
        for (size_t n = 0; keys.next<results>(in, n, field); ++n) {
            seen |= field;
            switch (field) {
                case kImage: image = in.integer("image_id is no integer"); break;
                case kCategory: category = in.integer("category_id is no integer"); break;
                case kBox: read_box(in, box.side); break;
                case kScore: score = in.number(); break;
                case kId: id = in.integer("id is no integer"); break;
                case kArea: area = in.number(); break;
                case kCrowd: crowd = in.truth(); break;
                case kOther: in.skip_value(); break;
            }
        }
    }
    constexpr unsigned needed = kImage | kCategory | kBox | (results ? kScore : kId);
    if ((seen & needed) != needed) {
        const unsigned lacks = needed & ~seen;
        throw Refusal{begin,
                      lacks & kImage      ? "an annotation without image_id"
                      : lacks & kCategory ? "an annotation without category_id"
                      : lacks & kBox      ? "an annotation without bbox"
                      : lacks & kScore    ? "a detection without score"
                                          : "an annotation without id",
                      false};
    }
    if (results && known) {
        add_place(image, known->images, before.image, out.image_place, out.image);
        add_place(category, known->categories, before.category, out.category_place, out.category);
    } else {
        out.image.push_back(image);
        out.category.push_back(category);
    }
    out.box.push_back(box);
    if (results) {
        out.score.push_back(score);
    } else {
        if (!(seen & kArea)) {
            area = box.side[2] * box.side[3];
            ++out.areas_missing;
        }
        out.id.push_back(id);
        out.area.push_back(area);
        out.crowd.push_back(crowd);
    }
}

// Rows up to the first that starts at or after `stop`, or to the closing bracket. True where it was closed.
template <bool results>
bool read_rows(Reader &in, const char *stop, const Known *known, Columns &out) {
    Keys keys;
    Before before(known);
    do {
        in.blanks();
        if (in.at() >= stop) return false;
        read_row<results>(in, keys, known, before, out);
    } while (in.another(']', "a comma or ] was expected"));
    return true;
}

template <typename T>
void reserve(std::vector<T> &column, size_t most, size_t likely) {
    column.reserve(most);
    will_write(column.data(), std::min(most, likely) * sizeof(T));
}

template <bool results>
void reserve(Columns &out, const Known *known, const char *text, size_t bytes) {
    const size_t most = bytes / (results ? 84 : 200) + 16;  // a row is seldom shorter
    const size_t sample = std::min<size_t>(bytes, 1 << 16);
    const size_t in_sample = static_cast<size_t>(std::count(text, text + sample, '{'));
    const size_t likely = sample ? static_cast<size_t>(0.99 * static_cast<double>(bytes) / static_cast<double>(sample) * static_cast<double>(in_sample)) : 0;
    if (known) {
        reserve(out.image_place, most, likely);
        reserve(out.category_place, most, likely);
    } else {
        reserve(out.image, most, likely);
        reserve(out.category, most, likely);
    }
    reserve(out.box, most, likely);
    if (results) {
        reserve(out.score, most, likely);
    } else {
        reserve(out.id, most, likely);
        reserve(out.area, most, likely);
        reserve(out.crowd, most, likely);
    }
}

template <typename T>
void append(std::vector<T> &all, const std::vector<T> &more) {
    all.insert(all.end(), more.begin(), more.end());
}

// A place between two rows near `p`, by the look of it; whether it is one shows when the rows before
// it have been read up to there.
const char *guess_row(const char *p, const char *begin, const char *end) {
    const auto blank = [](char c) { return c == ' ' || c == '\n' || c == '\r' || c == '\t'; };
    for (; p < end; ++p) {
        if (*p != '{') continue;
        const char *q = p - 1;
        while (q > begin && blank(*q)) --q;
        if (q <= begin || *q != ',') continue;
        --q;
        while (q > begin && blank(*q)) --q;
        if (q > begin && *q == '}') return p;
    }
    return end;
}

struct Chunk {
    const char *begin, *stop, *reached;
    Columns columns;
    bool closed = false, failed = false;
};

// The rows of an array whose opening bracket has been read, shared out among threads.
template <bool results>
void read_array(Reader &in, const char *text, const char *end, const Known *known, int threads, Columns &out) {
    std::vector<Chunk> chunks;
    const char *first = in.at();
    const size_t share = static_cast<size_t>(end - first) / static_cast<size_t>(std::max(threads, 1));
    for (int i = 1; i < threads && share > (1 << 18); ++i) {
        const char *guess = guess_row(first + share * static_cast<size_t>(i), first, end);
        if (guess == end || (!chunks.empty() && guess <= chunks.back().begin)) break;
        if (!chunks.empty()) chunks.back().stop = guess;
        chunks.push_back({guess, end, guess, {}, false, false});
    }
    std::vector<std::thread> others;
    for (Chunk &chunk : chunks) {
        const auto work = [&chunk, known, text, end] {
            try {
                Reader mine(text, chunk.begin, end);
                reserve<results>(chunk.columns, known, chunk.begin, static_cast<size_t>(chunk.stop - chunk.begin));
                chunk.closed = read_rows<results>(mine, chunk.stop, known, chunk.columns);
                chunk.reached = mine.at();
            } catch (...) {  // a wrong guess, or a mistake in the text that the first thread will meet
                chunk.failed = true;
            }
        };
        try {
            others.emplace_back(work);
        } catch (const std::system_error &) {  // no more threads to be had
            chunk.failed = true;
        }
    }
    bool closed = false;
    try {
        reserve<results>(out, known, first, chunks.empty() ? static_cast<size_t>(end - first) : share);
        closed = read_rows<results>(in, chunks.empty() ? end : chunks[0].begin, known, out);
    } catch (...) {
        for (std::thread &thread : others) thread.join();
        throw;
    }
    for (std::thread &thread : others) thread.join();
    for (Chunk &chunk : chunks) {
        if (closed) break;
        if (in.at() != chunk.begin || chunk.failed) {
            closed = read_rows<results>(in, end, known, out);
            break;
        }
        append(out.image, chunk.columns.image);
        append(out.category, chunk.columns.category);
        append(out.image_place, chunk.columns.image_place);
        append(out.category_place, chunk.columns.category_place);
        append(out.box, chunk.columns.box);
        append(out.score, chunk.columns.score);
        append(out.id, chunk.columns.id);
        append(out.area, chunk.columns.area);
        append(out.crowd, chunk.columns.crowd);
        out.areas_missing += chunk.columns.areas_missing;
        in = Reader(text, chunk.reached, end);
        closed = chunk.closed;
        chunk.columns = Columns();
    }
    if (!closed) in.refuse("the text ends too early");
}

template <bool results>
void read_annotations(Reader &in, const char *text, const char *end, const Known *known, int threads, Dataset &out) {
    out.annotations = Columns();  // of a key that comes twice, the last one counts
    out.has_annotations = true;
    if (!in.open('[', ']', "annotations should be an array")) return;
    read_array<results>(in, text, end, known, threads, out.annotations);
}

constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

// A width or height; NaN where it is no number.
double read_size(Reader &in) {
    const char c = in.peek();
    if (c == '"' || c == '[' || c == '{' || c == 't' || c == 'f' || c == 'n') {
        in.skip_value();
        return kNone;
    }
    return in.number();
}

void read_images(Reader &in, Dataset &out) {
    out.images.clear();
    out.sizes.clear();
    if (!in.open('[', ']', "images should be an array")) return;
    do {
        in.blanks();
        const size_t begin = in.offset();
        bool seen = false;
        int64_t id = 0;
        double width = kNone, height = kNone;
        if (in.open('{', '}', "an image should be an object")) {
            do {
                const char *key;
                size_t length;
                in.key(key, length);
                if (STRIATE_IS("id")) id = in.integer("an image's id is no integer"), seen = true;
                else if (STRIATE_IS("width")) width = read_size(in);
                else if (STRIATE_IS("height")) height = read_size(in);
                else in.skip_value();
            } while (in.another('}', "a comma or } was expected"));
        }
        if (!seen) throw Refusal{begin, "an image without id", false};
        out.images.push_back(id);
        out.sizes.push_back(width == width && height == height ? width : kNone);
        out.sizes.push_back(width == width && height == height ? height : kNone);
    } while (in.another(']', "a comma or ] was expected"));
}

template <bool results>
void read_object(Reader &in, const char *text, const char *end, const Known *known, int threads, Dataset &out) {
    if (!in.open('{', '}', "an object was expected")) return;
    do {
        const char *key;
        size_t length;
        in.key(key, length);
        if (STRIATE_IS("annotations")) {
            read_annotations<results>(in, text, end, known, threads, out);
        } else if (!results && STRIATE_IS("images")) {
            out.images_begin = in.offset();
            read_images(in, out);
            out.images_end = in.offset();
        } else if (STRIATE_IS("categories")) {
            out.categories_begin = in.offset();
            in.skip_value();
            out.categories_end = in.offset();
        } else if (STRIATE_IS("info")) {
            out.info_begin = in.offset();
            in.skip_value();
            out.info_end = in.offset();
        } else {
            in.skip_value();
        }
    } while (in.another('}', "a comma or } was expected"));
}

}  // namespace

void read_json(const char *text, size_t size, bool results, const Known *known, int threads, Dataset &out) {
    const char *end = text + size;
    Reader in(text, text, end);
    in.literal("\xef\xbb\xbf");  // a byte order mark
    in.blanks();
    if (in.peek() == '[') {
        if (!results) in.refuse("ground truth should be an object with images, annotations and categories");
        read_annotations<true>(in, text, end, known, threads, out);
    } else if (results) {
        read_object<true>(in, text, end, known, threads, out);
    } else {
        read_object<false>(in, text, end, nullptr, threads, out);
    }
    in.blanks();
    if (!in.done()) in.refuse("something after the end");
}

Places::Places(const int64_t *known, size_t count) {
    size_t slots = 16;
    while (slots < 2 * count) slots *= 2, --shift_;
    keys_.resize(slots);
    values_.assign(slots, -1);
    for (size_t i = 0; i < count; ++i) {
        const size_t s = slot(known[i]);
        keys_[s] = known[i];
        values_[s] = static_cast<std::int32_t>(i);
    }
}

void places(const int64_t *ids, size_t count, const int64_t *known, size_t known_count, std::int32_t *out) {
    will_write(out, count * sizeof *out);
    const Places table(known, known_count);
    for (size_t i = 0; i < count; ++i) out[i] = i && ids[i] == ids[i - 1] ? out[i - 1] : table.of(ids[i]);
}

}  // namespace striate
