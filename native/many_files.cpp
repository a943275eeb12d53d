// striate.transforms._files: reads many small files at once, without Python's lock. A PNG file that is damaged,
// or holds more than pixels, is left to Python, which knows what to say about it.
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <new>
#include <vector>

namespace {

using Byte = std::uint8_t;

constexpr Byte SIGNATURE[8] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};
constexpr size_t HEADER = 13, FRAME = 12;  // bytes of IHDR; of a chunk's length, kind and checksum
constexpr size_t OTHER_CHUNKS = 4096;      // bytes that a file may have beyond twice its pixels
constexpr Py_ssize_t MAX_SIDE = 1 << 13;   // pixels; products of two sides do not overflow

std::uint32_t big_endian(const Byte *p) { return std::uint32_t{p[0]} << 24 | p[1] << 16 | p[2] << 8 | p[3]; }

bool is_kind(const Byte *kind, const char *name) { return std::memcmp(kind, name, 4) == 0; }

// Chunks that change no pixel, with their lengths; as in striate/transforms/plain_png.py.
bool is_ignored(const Byte *kind, size_t length) {
    return (is_kind(kind, "pHYs") && length == 9) || (is_kind(kind, "tIME") && length == 7) || (is_kind(kind, "gAMA") && length == 4) ||
           (is_kind(kind, "sRGB") && length == 1) || (is_kind(kind, "cHRM") && length == 32);
}

// The first bytes of a regular file: at most `most`, or nothing if there are more and `whole` is asked for.
bool load(const char *path, size_t most, bool whole, std::vector<Byte> &data) {
    struct stat state;
    if (stat(path, &state) != 0 || !S_ISREG(state.st_mode)) return false;  // opening a device may act on it
    const int file = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (file < 0) return false;
    bool loaded = fstat(file, &state) == 0 && S_ISREG(state.st_mode);
    const size_t size = loaded ? static_cast<size_t>(state.st_size) : 0;
    loaded = loaded && (!whole || size <= most);
    if (loaded) {
        data.resize(size < most ? size : most);
        loaded = ::read(file, data.data(), data.size()) == static_cast<ssize_t>(data.size());
    }
    close(file);
    return loaded;
}

Byte paeth(int left, int above, int corner) {
    const int estimate = left + above - corner;
    const int to_left = std::abs(estimate - left), to_above = std::abs(estimate - above), to_corner = std::abs(estimate - corner);
    if (to_left <= to_above && to_left <= to_corner) return static_cast<Byte>(left);
    return static_cast<Byte>(to_above <= to_corner ? above : corner);
}

// Decodes files of one size, one after the other.
class Reader {
  public:
    Reader(size_t height, size_t width, size_t channels)
        : height_(height), width_(width), channels_(channels), stride_(width * channels), raw_(height * (1 + stride_) + 1), none_(stride_) {
        if (inflateInit(&stream_) != Z_OK) throw std::bad_alloc();
    }
    Reader(const Reader &) = delete;
    Reader &operator=(const Reader &) = delete;
    ~Reader() { inflateEnd(&stream_); }

    // Whether the file is a PNG of this size, of 8-bit gray or RGB values; `out` then has its pixels.
    bool read(const char *path, Byte *out) {
        return load(path, 2 * raw_.size() + OTHER_CHUNKS, true, data_) && inflate_pixels() && undo_filters(out);
    }

  private:
    bool inflate_pixels() {
        if (data_.size() < sizeof SIGNATURE || std::memcmp(data_.data(), SIGNATURE, sizeof SIGNATURE) != 0) return false;
        if (inflateReset(&stream_) != Z_OK) return false;
        stream_.next_out = raw_.data();
        stream_.avail_out = static_cast<uInt>(raw_.size());  // one more than the pixels need
        int state = Z_OK;
        bool started = false;
        for (size_t at = sizeof SIGNATURE; data_.size() - at >= FRAME;) {
            Byte *chunk = data_.data() + at, *kind = chunk + 4, *body = chunk + 8;
            const size_t length = big_endian(chunk);
            if (length > data_.size() - at - FRAME) return false;
            if (crc32(0, kind, static_cast<uInt>(length + 4)) != big_endian(body + length)) return false;
            if (at == sizeof SIGNATURE) {
                if (!is_header(kind, body, length)) return false;
            } else if (is_kind(kind, "IDAT")) {
                started = true;
                if (length && state != Z_OK) return false;  // after the end of the pixels
                stream_.next_in = body;
                stream_.avail_in = static_cast<uInt>(length);
                if (length) state = inflate(&stream_, Z_NO_FLUSH);
                if ((state != Z_OK && state != Z_STREAM_END) || stream_.avail_in) return false;
            } else if (is_kind(kind, "IEND")) {
                return state == Z_STREAM_END && stream_.avail_out == 1;
            } else if (started || !is_ignored(kind, length)) {
                return false;
            }
            at += FRAME + length;
        }
        return false;
    }

    bool is_header(const Byte *kind, const Byte *body, size_t length) const {
        return is_kind(kind, "IHDR") && length == HEADER && big_endian(body) == width_ && big_endian(body + 4) == height_ && body[8] == 8 &&
               body[9] == (channels_ == 3 ? 2 : 0) && !body[10] && !body[11] && !body[12];
    }

    // Filters of the PNG specification, section 9: each row is the difference to a prediction.
    bool undo_filters(Byte *out) const {
        const size_t step = channels_;
        const Byte *in = raw_.data(), *above = none_.data();
        for (size_t y = 0; y < height_; ++y, above = out, out += stride_, in += stride_) {
            const Byte filter = *in++;
            switch (filter) {
                case 0: std::memcpy(out, in, stride_); break;
                case 1:
                    for (size_t x = 0; x < stride_; ++x) out[x] = static_cast<Byte>(in[x] + (x < step ? 0 : out[x - step]));
                    break;
                case 2:
                    for (size_t x = 0; x < stride_; ++x) out[x] = static_cast<Byte>(in[x] + above[x]);
                    break;
                case 3:
                    for (size_t x = 0; x < stride_; ++x) out[x] = static_cast<Byte>(in[x] + ((x < step ? 0 : out[x - step]) + above[x]) / 2);
                    break;
                case 4:
                    for (size_t x = 0; x < stride_; ++x)
                        out[x] = static_cast<Byte>(in[x] + (x < step ? above[x] : paeth(out[x - step], above[x], above[x - step])));
                    break;
                default: return false;
            }
        }
        return true;
    }

    const size_t height_, width_, channels_, stride_;
    std::vector<Byte> data_, raw_, none_;
    z_stream stream_{};
};

// ---- arguments: a list of paths, and a buffer for the results

class Arguments {
  public:
    Arguments() = default;
    Arguments(const Arguments &) = delete;
    Arguments &operator=(const Arguments &) = delete;
    ~Arguments() {
        for (PyObject *one : paths_) Py_XDECREF(one);
        if (out.obj) PyBuffer_Release(&out);
    }

    // Takes the names of a list; false with a Python error if the buffer has another length.
    bool take(PyObject *list, size_t bytes_each) {
        count = static_cast<size_t>(PyList_GET_SIZE(list));
        if (static_cast<size_t>(out.len) != count * bytes_each) {
            PyErr_Format(PyExc_ValueError, "out: %zd bytes for %zu files", out.len, count);
            return false;
        }
        paths_.resize(count, nullptr);
        for (size_t i = 0; i < count; ++i)
            if (!PyUnicode_FSConverter(PyList_GET_ITEM(list, static_cast<Py_ssize_t>(i)), &paths_[i])) PyErr_Clear();
        return true;
    }

    // Null for a name that no file can have.
    const char *path(size_t i) const { return paths_[i] ? PyBytes_AS_STRING(paths_[i]) : nullptr; }

    Py_buffer out{};
    size_t count = 0;

  private:
    std::vector<PyObject *> paths_;
};

// Calls `work` without Python's lock; None, or a MemoryError.
template <typename Work>
PyObject *unlocked(Work work) {
    bool no_memory = false;
    Py_BEGIN_ALLOW_THREADS
    try {
        work();
    } catch (const std::exception &) {
        no_memory = true;
    }
    Py_END_ALLOW_THREADS
    if (no_memory) return PyErr_NoMemory();
    Py_RETURN_NONE;
}

// ---- read_pngs(paths, height, width, channels, out, readable)

PyObject *read_pngs(PyObject *, PyObject *args) {
    PyObject *list;
    Py_ssize_t height, width, channels;
    Arguments pixels, readable;
    if (!PyArg_ParseTuple(args, "O!nnnw*w*", &PyList_Type, &list, &height, &width, &channels, &pixels.out, &readable.out)) return nullptr;
    if (height < 1 || width < 1 || height > MAX_SIDE || width > MAX_SIDE || (channels != 1 && channels != 3)) {
        PyErr_Format(PyExc_ValueError, "images of %zdx%zdx%zd", height, width, channels);
        return nullptr;
    }
    const size_t size = static_cast<size_t>(height * width * channels);
    try {
        if (!pixels.take(list, size) || !readable.take(list, 1)) return nullptr;
    } catch (const std::exception &) {
        return PyErr_NoMemory();
    }
    return unlocked([&] {
        Reader reader(static_cast<size_t>(height), static_cast<size_t>(width), static_cast<size_t>(channels));
        Byte *out = static_cast<Byte *>(pixels.out.buf), *found = static_cast<Byte *>(readable.out.buf);
        for (size_t i = 0; i < pixels.count; ++i) found[i] = pixels.path(i) && reader.read(pixels.path(i), out + i * size);
    });
}

// ---- examine(paths, most, out)

PyObject *examine(PyObject *, PyObject *args) {
    PyObject *list;
    Py_ssize_t most;
    Arguments files;
    if (!PyArg_ParseTuple(args, "O!nw*", &PyList_Type, &list, &most, &files.out)) return nullptr;
    try {
        if (!files.take(list, 2 * sizeof(std::int64_t))) return nullptr;
    } catch (const std::exception &) {
        return PyErr_NoMemory();
    }
    return unlocked([&] {
        auto *out = static_cast<std::int64_t *>(files.out.buf);
        std::vector<Byte> data;
        for (size_t i = 0; i < files.count; ++i, out += 2) {
            struct stat state;
            out[0] = files.path(i) && stat(files.path(i), &state) == 0 ? static_cast<std::int64_t>(state.st_size) : -1;
            out[1] = 0;
            if (out[0] < 0 || most <= 0) continue;
            if (!load(files.path(i), static_cast<size_t>(most), false, data)) {
                out[0] = -1;
                continue;
            }
            const uInt size = static_cast<uInt>(data.size());
            out[1] = static_cast<std::int64_t>(std::uint64_t{crc32(0, data.data(), size)} << 32 | adler32(1, data.data(), size));
        }
    });
}

PyMethodDef methods[] = {
    {"read_pngs", read_pngs, METH_VARARGS, "read_pngs(paths, height, width, channels, out, readable): pixels of PNG files, and for each 1 if they were read, else 0."},
    {"examine", examine, METH_VARARGS, "examine(paths, most, out): for each file its size, -1 if it cannot be read, and a checksum of its first `most` bytes."},
    {nullptr, nullptr, 0, nullptr},
};

PyModuleDef module = {PyModuleDef_HEAD_INIT, "_files", "Reads many small files.", -1, methods, nullptr, nullptr, nullptr, nullptr};

}  // namespace

// VERSION is that of the functions' arguments; striate/transforms/many_files.py expects the same.
PyMODINIT_FUNC PyInit__files(void) {
    PyObject *m = PyModule_Create(&module);
    if (m && PyModule_AddIntConstant(m, "VERSION", 1) < 0) {
        Py_DECREF(m);
        return nullptr;
    }
    return m;
}
