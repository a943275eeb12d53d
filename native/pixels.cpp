// striate.transforms._native: changes of 8-bit images, and normalization, as Python functions over buffers.
//
// An image is uint8 [height, width, channels], with 1 or 3 channels. Results equal those of Pillow, bit for bit:
// its integers, and its float32 without fused multiply-add.
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

// The same loops for wider registers, chosen when the module is loaded.
#if defined(__x86_64__) && defined(__GLIBC__) && (!defined(__clang__) || __clang_major__ >= 14)
#define WIDER __attribute__((target_clones("avx2", "default")))
#else
#define WIDER
#endif

#ifdef __has_builtin
#if __has_builtin(__builtin_shufflevector)
#define SHUFFLE __builtin_shufflevector
#endif
#endif

namespace {

using Byte = std::uint8_t;

// A buffer that Python owns.
struct Buffer {
    Py_buffer view{};
    ~Buffer() { PyBuffer_Release(&view); }
    Byte *bytes() const { return static_cast<Byte *>(view.buf); }
    std::int64_t size() const { return view.len; }
};

PyObject *refuse(const char *why) {
    PyErr_SetString(PyExc_ValueError, why);
    return nullptr;
}

bool whole_pixels(const Buffer &image, int channels) {
    return (channels == 1 || channels == 3) && image.size() % channels == 0;
}

// ---- changes of color

inline Byte blend(int value, int other, float factor) {
    const float mixed = static_cast<float>(value - other) * factor + static_cast<float>(other);
    return static_cast<Byte>(mixed > 0 ? (mixed < 255 ? mixed : 255.0f) : 0.0f);
}

inline int luma(const Byte *rgb) {
    return static_cast<int>((19595u * rgb[0] + 38470u * rgb[1] + 7471u * rgb[2] + 0x8000u) >> 16);
}

WIDER std::int64_t luma_sum(const Byte *pixels, std::int64_t size, int channels) {
    std::int64_t sum = 0;
    if (channels == 1)
        for (std::int64_t i = 0; i < size; i++) sum += pixels[i];
    else
        for (std::int64_t i = 0; i < size; i += 3) sum += luma(pixels + i);
    return sum;
}

WIDER void saturate(Byte *pixels, std::int64_t size, float factor) {
    constexpr std::int64_t part = 3 * 256;
    Byte gray[part];
    for (std::int64_t start = 0; start < size; start += part) {
        Byte *rgb = pixels + start;
        const std::int64_t count = std::min(part, size - start);
        for (std::int64_t i = 0; i < count; i += 3) gray[i] = gray[i + 1] = gray[i + 2] = static_cast<Byte>(luma(rgb + i));
        for (std::int64_t i = 0; i < count; i++) rgb[i] = blend(rgb[i], gray[i], factor);
    }
}

// One table of 256 values for each channel.
struct Tables {
    Byte of[3][256];
};

template <typename Function>
void fill(Tables &tables, Function value) {
    for (auto &table : tables.of)
        for (int v = 0; v < 256; v++) table[v] = static_cast<Byte>(value(v));
}

void histogram(const Byte *pixels, std::int64_t size, int channels, std::int64_t (&counts)[3][256]) {
    // Two counters for each value, because equal neighbours would wait for each other.
    std::int64_t odd[3][256] = {};
    std::int64_t i = 0;
    for (; i + 2 * channels <= size; i += 2 * channels)
        for (int c = 0; c < channels; c++) {
            counts[c][pixels[i + c]]++;
            odd[c][pixels[i + channels + c]]++;
        }
    for (int c = 0; c < channels; c++) {
        if (i < size) counts[c][pixels[i + c]]++;
        for (int v = 0; v < 256; v++) counts[c][v] += odd[c][v];
    }
}

void stretch(const std::int64_t (&counts)[256], Byte (&table)[256]) {
    int low = 0, high = 255;
    while (low < 255 && !counts[low]) low++;
    while (high > 0 && !counts[high]) high--;
    if (high <= low) return;
    const double scale = 255.0 / (high - low), offset = -low * scale;
    for (int v = 0; v < 256; v++) table[v] = static_cast<Byte>(std::clamp(static_cast<int>(v * scale + offset), 0, 255));
}

void equalize(const std::int64_t (&counts)[256], std::int64_t pixels, Byte (&table)[256]) {
    int high = 255;
    while (high > 0 && !counts[high]) high--;
    const std::int64_t step = (pixels - counts[high]) / 255;
    if (!step) return;
    std::int64_t before = step / 2;
    for (int v = 0; v < 256; before += counts[v++]) table[v] = static_cast<Byte>(std::min<std::int64_t>(before / step, 255));
}

void look_up(Byte *pixels, std::int64_t size, int channels, const Tables &tables) {
    if (channels == 1)
        for (std::int64_t i = 0; i < size; i++) pixels[i] = tables.of[0][pixels[i]];
    else
        for (std::int64_t i = 0; i < size; i += 3)
            for (int c = 0; c < 3; c++) pixels[i + c] = tables.of[c][pixels[i + c]];
}

// Returns false for an unknown change.
bool change(Byte *pixels, std::int64_t size, int channels, char what, float amount) {
    if (what == 's') {
        if (channels == 3) saturate(pixels, size, amount);
        return true;
    }
    Tables tables;
    fill(tables, [](int v) { return v; });
    if (what == 'b') {
        fill(tables, [=](int v) { return blend(v, 0, amount); });
    } else if (what == 'c') {
        const auto sum = static_cast<double>(luma_sum(pixels, size, channels));
        const int mean = static_cast<int>(std::floor(static_cast<float>(sum / static_cast<double>(size / channels)) + 0.5f));
        fill(tables, [=](int v) { return blend(v, mean, amount); });
    } else if (what == 'o') {
        fill(tables, [=](int v) { return static_cast<float>(v) >= amount ? 255 - v : v; });
    } else if (what == 'a' || what == 'e') {
        std::int64_t counts[3][256] = {};
        histogram(pixels, size, channels, counts);
        for (int c = 0; c < channels; c++)
            if (what == 'a')
                stretch(counts[c], tables.of[c]);
            else
                equalize(counts[c], size / channels, tables.of[c]);
    } else {
        return false;
    }
    look_up(pixels, size, channels, tables);
    return true;
}

PyObject *enhance(PyObject *, PyObject *args) {
    Buffer image, changes, amounts;
    int channels;
    if (!PyArg_ParseTuple(args, "w*iy*y*", &image.view, &channels, &changes.view, &amounts.view)) return nullptr;
    if (!whole_pixels(image, channels)) return refuse("image: not whole pixels");
    if (amounts.size() != changes.size() * static_cast<std::int64_t>(sizeof(float))) return refuse("amounts: not one float32 for each change");
    bool known = true;
    Py_BEGIN_ALLOW_THREADS
    for (std::int64_t i = 0; image.size() && known && i < changes.size(); i++) {
        float amount;
        std::memcpy(&amount, amounts.bytes() + i * sizeof(float), sizeof(float));
        known = change(image.bytes(), image.size(), channels, static_cast<char>(changes.bytes()[i]), amount);
    }
    Py_END_ALLOW_THREADS
    if (!known) return refuse("changes: an unknown one");
    Py_RETURN_NONE;
}

// ---- flips and affine transforms

WIDER void mirror_rows(const Byte *from, Byte *to, std::int64_t rows, std::int64_t width, int channels) {
    for (std::int64_t y = 0; y < rows; y++, from += width * channels, to += width * channels) {
        if (channels == 1) {
            std::reverse_copy(from, from + width, to);
            continue;
        }
        std::int64_t x = 0;
#ifdef SHUFFLE
        // Five pixels and a byte of the next one, which overwrites it.
        typedef Byte Pixels __attribute__((vector_size(16)));
        for (; x + 6 <= width; x += 5) {
            Pixels five;
            std::memcpy(&five, from + 3 * (width - x) - 16, 16);
            five = SHUFFLE(five, five, 13, 14, 15, 10, 11, 12, 7, 8, 9, 4, 5, 6, 1, 2, 3, 0);
            std::memcpy(to + 3 * x, &five, 16);
        }
#endif
        for (; x < width; x++) std::memcpy(to + 3 * x, from + 3 * (width - 1 - x), 3);
    }
}

PyObject *mirror(PyObject *, PyObject *args) {
    Buffer image, out;
    long long width;
    int channels;
    if (!PyArg_ParseTuple(args, "y*w*Li", &image.view, &out.view, &width, &channels)) return nullptr;
    if (!whole_pixels(image, channels) || width < 1 || image.size() % (width * channels)) return refuse("image: not whole rows");
    if (out.size() != image.size()) return refuse("out: not as large as the image");
    Py_BEGIN_ALLOW_THREADS
    mirror_rows(image.bytes(), out.bytes(), image.size() / (width * channels), width, channels);
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

struct Affine {
    std::int64_t height, width;
    double m[6];  // from the centers of output pixels to input coordinates
};

// Whether all input coordinates fit 16.16 fixed point, the arithmetic of Pillow.
bool fits_fixed_point(const Affine &a) {
    for (const double x : {0.0, static_cast<double>(a.width)})
        for (const double y : {0.0, static_cast<double>(a.height)})
            for (const double *row : {a.m, a.m + 3})
                if (!(std::fabs(x * row[0] + y * row[1] + row[2]) < 32768.0)) return false;
    return a.width < 32768 && a.height < 32768;
}

std::int64_t fixed(double value) { return static_cast<std::int64_t>(std::floor(value * 65536.0 + 0.5)); }

template <int C>
void warp_fixed(const Byte *image, Byte *out, const Affine &a) {
    const double *m = a.m;
    const std::int64_t step_x = fixed(m[0]), step_y = fixed(m[3]), down_x = fixed(m[1]), down_y = fixed(m[4]);
    std::int64_t row_x = fixed(m[2] + m[0] * 0.5 + m[1] * 0.5), row_y = fixed(m[5] + m[3] * 0.5 + m[4] * 0.5);
    const auto height = static_cast<std::uint64_t>(a.height), width = static_cast<std::uint64_t>(a.width);
    for (std::uint64_t y = 0; y < height; y++, row_x += down_x, row_y += down_y) {
        std::int64_t from_x = row_x, from_y = row_y;
        for (std::uint64_t x = 0; x < width; x++, out += C, from_x += step_x, from_y += step_y) {
            const auto column = static_cast<std::uint64_t>(from_x >> 16), row = static_cast<std::uint64_t>(from_y >> 16);
            if (column < width && row < height) std::memcpy(out, image + C * (row * width + column), C);
        }
    }
}

// Without rotation and shear, where Pillow adds in double precision.
template <int C>
void warp_straight(const Byte *image, Byte *out, const Affine &a) {
    std::int32_t columns[32768];
    std::int64_t first = a.width, last = -1;  // of the output columns with input
    double from = a.m[2] + a.m[0] * 0.5;
    for (std::int64_t x = 0; x < a.width; x++, from += a.m[0])
        if (from >= 0 && from < static_cast<double>(a.width)) {
            columns[x] = static_cast<std::int32_t>(from);
            first = std::min(first, x);
            last = x;
        }
    if (last < 0) return;
    const std::int64_t count = last - first + 1;
    from = a.m[5] + a.m[4] * 0.5;
    for (std::int64_t y = 0; y < a.height; y++, from += a.m[4]) {
        if (from < 0 || from >= static_cast<double>(a.height)) continue;
        const Byte *row = image + C * a.width * static_cast<std::int64_t>(from);
        Byte *to = out + C * (y * a.width + first);
        if (columns[last] - columns[first] == last - first && a.m[0] > 0)
            std::memcpy(to, row + C * columns[first], C * count);
        else
            for (std::int64_t x = 0; x < count; x++) std::memcpy(to + C * x, row + C * columns[first + x], C);
    }
}

PyObject *warp(PyObject *, PyObject *args) {
    Buffer image, out;
    long long height, width;
    int channels, fill;
    Affine a{};
    if (!PyArg_ParseTuple(args, "y*w*LLi(dddddd)i", &image.view, &out.view, &height, &width, &channels, &a.m[0], &a.m[1],
                          &a.m[2], &a.m[3], &a.m[4], &a.m[5], &fill))
        return nullptr;
    if (!whole_pixels(image, channels) || height < 1 || width < 1 || image.size() / channels / width != height ||
        image.size() % (width * channels))
        return refuse("image: not height * width pixels");
    if (out.size() != image.size()) return refuse("out: not as large as the image");
    a.height = height;
    a.width = width;
    if (!fits_fixed_point(a)) Py_RETURN_FALSE;
    Py_BEGIN_ALLOW_THREADS
    std::memset(out.bytes(), std::clamp(fill, 0, 255), out.size());
    if (a.m[1] == 0 && a.m[3] == 0)
        (channels == 3 ? warp_straight<3> : warp_straight<1>)(image.bytes(), out.bytes(), a);
    else
        (channels == 3 ? warp_fixed<3> : warp_fixed<1>)(image.bytes(), out.bytes(), a);
    Py_END_ALLOW_THREADS
    Py_RETURN_TRUE;
}

// ---- normalization

// From [pixels, channels] to float32 [channels, pixels].
void normalize_planes(const Byte *from, float *to, std::int64_t pixels, std::int64_t channels, const float *tables) {
    for (std::int64_t c = 0; c < channels; c++, tables += 256)
        for (std::int64_t i = 0; i < pixels; i++) *to++ = tables[from[i * channels + c]];
}

PyObject *normalize(PyObject *, PyObject *args) {
    Buffer images, out, tables;
    long long pixels;
    if (!PyArg_ParseTuple(args, "y*w*y*L", &images.view, &out.view, &tables.view, &pixels)) return nullptr;
    constexpr std::int64_t size = sizeof(float), table = 256 * size;
    const std::int64_t channels = tables.size() / table;
    if (channels < 1 || tables.size() % table) return refuse("tables: not 256 float32 for each channel");
    if (pixels < 1 || images.size() / channels / pixels * channels * pixels != images.size()) return refuse("images: not whole images");
    if (out.size() != images.size() * size) return refuse("out: not one float32 for each value of the images");
    const Byte *from = images.bytes(), *end = from + images.size();
    auto *to = static_cast<float *>(out.view.buf);
    Py_BEGIN_ALLOW_THREADS
    for (const std::int64_t step = channels * pixels; from < end; from += step, to += step)
        normalize_planes(from, to, pixels, channels, static_cast<const float *>(tables.view.buf));
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

PyMethodDef methods[] = {
    {"enhance", enhance, METH_VARARGS,
     "enhance(image, channels, changes, amounts): brightness (b), contrast (c), saturation (s), solarize (o), autocontrast (a), "
     "equalize (e), one after the other, in place."},
    {"mirror", mirror, METH_VARARGS, "mirror(image, out, width, channels): flips left to right."},
    {"warp", warp, METH_VARARGS,
     "warp(image, out, height, width, channels, matrix, fill): the nearest pixels; False if coordinates exceed 16 bits."},
    {"normalize", normalize, METH_VARARGS,
     "normalize(images, out, tables, pixels): the value of each pixel in the table of its channel, channels first."},
    {nullptr, nullptr, 0, nullptr},
};

PyModuleDef module = {PyModuleDef_HEAD_INIT, "_native", "Changes of 8-bit images.", -1, methods, nullptr, nullptr, nullptr, nullptr};

}  // namespace

// VERSION is that of the functions' arguments; striate/transforms/native.py expects the same.
PyMODINIT_FUNC PyInit__native(void) {
    PyObject *m = PyModule_Create(&module);
    if (m && PyModule_AddIntConstant(m, "VERSION", 2) < 0) {
        Py_DECREF(m);
        return nullptr;
    }
    return m;
}
