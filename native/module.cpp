// striate.metrics.detection._native: the kernels as Python functions over buffers. No NumPy headers are
// needed: what comes in and what goes out has the buffer protocol, and every length is checked here.
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <memory>
#include <new>
#include <optional>
#include <type_traits>
#include <utility>
#include <vector>

#include "json_columns.hpp"
#include "json_reader.hpp"
#include "matching.hpp"

namespace {

// ---- a column that Python owns and NumPy looks at without a copy

struct ColumnObject {
    PyObject_HEAD
    void *data;
    Py_ssize_t size;
    void *owner;  // the vector that holds `data`
    void (*free)(void *);
};

void column_dealloc(PyObject *self) {
    ColumnObject *column = reinterpret_cast<ColumnObject *>(self);
    if (column->free) column->free(column->owner);
    PyTypeObject *type = Py_TYPE(self);
    type->tp_free(self);
    Py_DECREF(type);
}

int column_getbuffer(PyObject *self, Py_buffer *view, int flags) {
    ColumnObject *column = reinterpret_cast<ColumnObject *>(self);
    static char nothing;
    return PyBuffer_FillInfo(view, self, column->size ? column->data : &nothing, column->size, 0, flags);
}

PyType_Slot column_slots[] = {
    {Py_tp_dealloc, reinterpret_cast<void *>(column_dealloc)},
    {Py_bf_getbuffer, reinterpret_cast<void *>(column_getbuffer)},
    {Py_tp_doc, const_cast<char *>("A column of numbers, read through the buffer protocol.")},
    {0, nullptr},
};
PyType_Spec column_spec = {"striate.metrics.detection._native.Column", sizeof(ColumnObject), 0,
                           Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION, column_slots};
PyObject *column_type = nullptr;

template <typename T>
PyObject *column(std::vector<T> &&values) {
    auto *owner = new (std::nothrow) std::vector<T>(std::move(values));
    if (!owner) return PyErr_NoMemory();
    PyTypeObject *type = reinterpret_cast<PyTypeObject *>(column_type);
    ColumnObject *self = reinterpret_cast<ColumnObject *>(type->tp_alloc(type, 0));
    if (!self) {
        delete owner;
        return nullptr;
    }
    self->data = owner->data();
    self->size = static_cast<Py_ssize_t>(owner->size() * sizeof(T));
    self->owner = owner;
    self->free = [](void *p) { delete static_cast<std::vector<T> *>(p); };
    return reinterpret_cast<PyObject *>(self);
}

// ---- buffers that come in

class Buffers {
  public:
    Buffers() = default;
    Buffers(const Buffers &) = delete;
    Buffers &operator=(const Buffers &) = delete;
    ~Buffers() {
        for (auto &view : views_) PyBuffer_Release(view.get());
    }

    // The `count` items behind `object` (any count where it is negative), or null and a Python error.
    template <typename T>
    T *get(PyObject *object, const char *name, Py_ssize_t count, bool writable = false) {
        auto view = std::make_unique<Py_buffer>();
        if (PyObject_GetBuffer(object, view.get(), PyBUF_C_CONTIGUOUS | (writable ? PyBUF_WRITABLE : 0)) < 0) return nullptr;
        views_.push_back(std::move(view));
        Py_buffer &b = *views_.back();
        length = b.len / static_cast<Py_ssize_t>(sizeof(T));
        if (b.itemsize != static_cast<Py_ssize_t>(sizeof(T)) || (count >= 0 && length != count)) {
            PyErr_Format(PyExc_ValueError, "%s: %zd items of %zd bytes, not %zd of %zu", name, b.itemsize ? b.len / b.itemsize : 0,
                         b.itemsize, count, sizeof(T));
            return nullptr;
        }
        static T nothing[1];
        return b.buf ? static_cast<T *>(b.buf) : nothing;
    }

    Py_ssize_t length = 0;

  private:
    std::vector<std::unique_ptr<Py_buffer>> views_;
};

// ---- read_json(text, results, threads, known)

PyObject *refusal(const striate::Refusal &r) {
    return Py_BuildValue("(nsi)", static_cast<Py_ssize_t>(r.at), r.why, static_cast<int>(r.general));
}

PyObject *read_json(PyObject *, PyObject *args) {
    PyObject *text, *images_object = nullptr, *categories_object = nullptr;
    int results, threads;
    if (!PyArg_ParseTuple(args, "Opi|(OO)", &text, &results, &threads, &images_object, &categories_object)) return nullptr;
    Buffers buffers;
    const char *bytes = buffers.get<char>(text, "text", -1);
    if (!bytes) return nullptr;
    const size_t size = static_cast<size_t>(buffers.length);
    const std::int64_t *images = nullptr, *categories = nullptr;
    size_t image_count = 0, category_count = 0;
    if (images_object) {
        if (!(images = buffers.get<std::int64_t>(images_object, "known images", -1))) return nullptr;
        image_count = static_cast<size_t>(buffers.length);
        if (!(categories = buffers.get<std::int64_t>(categories_object, "known categories", -1))) return nullptr;
        category_count = static_cast<size_t>(buffers.length);
    }
    striate::Dataset data;
    striate::Refusal refused{0, nullptr, false};
    bool no_memory = false;
    Py_BEGIN_ALLOW_THREADS
    try {
        std::optional<striate::Known> known;
        if (images) known.emplace(striate::Known{{images, image_count}, {categories, category_count}});
        striate::read_json(bytes, size, results != 0, known ? &*known : nullptr, threads, data);
    } catch (const striate::Refusal &r) {
        refused = r;
    } catch (const std::exception &) {
        no_memory = true;
    }
    Py_END_ALLOW_THREADS
    if (no_memory) return PyErr_NoMemory();
    if (refused.why) return refusal(refused);
    striate::Columns &c = data.annotations;
    return Py_BuildValue("{sNsNsNsNsNsNsNsNsNsNsNsLsOs(nn)s(nn)s(nn)}", "id", column(std::move(c.id)), "image",
                         column(std::move(c.image)), "category", column(std::move(c.category)), "image_place", column(std::move(c.image_place)), "category_place", column(std::move(c.category_place)), "box",
                         column(std::move(c.box)), "score", column(std::move(c.score)), "area", column(std::move(c.area)),
                         "crowd", column(std::move(c.crowd)), "images", column(std::move(data.images)), "sizes", column(std::move(data.sizes)), "areas_missing",
                         static_cast<long long>(c.areas_missing), "has_annotations", data.has_annotations ? Py_True : Py_False,
                         "info_at", static_cast<Py_ssize_t>(data.info_begin), static_cast<Py_ssize_t>(data.info_end), "images_at",
                         static_cast<Py_ssize_t>(data.images_begin), static_cast<Py_ssize_t>(data.images_end),
                         "categories_at", static_cast<Py_ssize_t>(data.categories_begin),
                         static_cast<Py_ssize_t>(data.categories_end));
}

// ---- places(ids, known, out)

PyObject *places(PyObject *, PyObject *args) {
    PyObject *ids_object, *known_object, *out_object;
    if (!PyArg_ParseTuple(args, "OOO", &ids_object, &known_object, &out_object)) return nullptr;
    Buffers buffers;
    const std::int64_t *ids = buffers.get<std::int64_t>(ids_object, "ids", -1);
    if (!ids) return nullptr;
    const Py_ssize_t count = buffers.length;
    const std::int64_t *known = buffers.get<std::int64_t>(known_object, "known", -1);
    if (!known) return nullptr;
    const Py_ssize_t known_count = buffers.length;
    std::int32_t *out = buffers.get<std::int32_t>(out_object, "out", count, true);
    if (!out) return nullptr;
    bool no_memory = false;
    Py_BEGIN_ALLOW_THREADS
    try {
        striate::places(ids, static_cast<size_t>(count), known, static_cast<size_t>(known_count), out);
    } catch (const std::exception &) {
        no_memory = true;
    }
    Py_END_ALLOW_THREADS
    if (no_memory) return PyErr_NoMemory();
    Py_RETURN_NONE;
}

// ---- evaluate(images, categories, truths, detections, overlaps, settings, curves, matches, threads)

// An optional buffer: None is null.
template <typename T>
bool maybe(Buffers &buffers, PyObject *object, const char *name, Py_ssize_t count, T *&out, bool writable = false) {
    if (object == Py_None) {
        out = nullptr;
        return true;
    }
    out = buffers.get<std::remove_const_t<T>>(object, name, count, writable);
    return out != nullptr;
}

bool in_range(const std::int32_t *values, std::int64_t n, std::int64_t limit, const char *name) {
    for (std::int64_t i = 0; i < n; ++i)
        if (values[i] >= limit) {
            PyErr_Format(PyExc_ValueError, "%s: %d is not below %lld", name, values[i], static_cast<long long>(limit));
            return false;
        }
    return true;
}

PyObject *evaluate(PyObject *, PyObject *args) {
    striate::Problem p{};
    long long images, categories;
    PyObject *gi, *gc, *gb, *ga, *gk, *gn, *gv, *di, *dc, *db, *ds, *da, *dm, *de, *ov, *iou, *rec, *ar, *md, *pr, *sc, *re, *m1, *m2, *m3, *m4;
    int first, threads;
    if (!PyArg_ParseTuple(args, "LL(OOOOOOO)(OOOOOOO)O(OOOOi)(OOO)(OOOO)i", &images, &categories, &gi, &gc, &gb, &ga, &gk, &gn,
                          &gv, &di, &dc, &db, &ds, &da, &dm, &de, &ov, &iou, &rec, &ar, &md, &first, &pr, &sc, &re, &m1, &m2, &m3, &m4, &threads))
        return nullptr;
    Buffers b;
    p.images = images;
    p.categories = categories;
    if (!(p.gt_image = b.get<std::int32_t>(gi, "truths.image", -1))) return nullptr;
    const Py_ssize_t G = b.length;
    if (!(p.dt_image = b.get<std::int32_t>(di, "detections.image", -1))) return nullptr;
    const Py_ssize_t D = b.length;
    if (!(p.iou = b.get<double>(iou, "thresholds", -1))) return nullptr;
    const Py_ssize_t T = b.length;
    if (!(p.recall_at = b.get<double>(rec, "recalls", -1))) return nullptr;
    const Py_ssize_t R = b.length;
    if (!(p.area_range = b.get<double>(ar, "areas", -1))) return nullptr;
    const Py_ssize_t A = b.length / 2;
    if (!(p.max_detections = b.get<std::int64_t>(md, "limits", -1))) return nullptr;
    const Py_ssize_t M = b.length;
    if (T > 32 || A > 32 || images < 0 || categories < 0 || G > 0x7fffffff || D > 0x7fffffff) {
        PyErr_SetString(PyExc_ValueError, "at most 32 thresholds, 32 areas and 2**31 - 1 rows");
        return nullptr;
    }
    if (first < 0 || first > M) {
        PyErr_Format(PyExc_ValueError, "settings.first: %d, but there are %zd limits", first, M);
        return nullptr;
    }
    const Py_ssize_t recalls = static_cast<Py_ssize_t>(categories) * A * M * T, curves = static_cast<Py_ssize_t>(categories) * A * (M - first) * T * R;
    const bool ok = (p.gt_category = b.get<std::int32_t>(gc, "truths.category", G)) && (p.gt_box = b.get<double>(gb, "truths.box", 4 * G)) &&
                    (p.gt_area = b.get<double>(ga, "truths.area", G)) && (p.gt_crowd = b.get<std::uint8_t>(gk, "truths.crowd", G)) &&
                    (p.gt_ignore = b.get<std::uint8_t>(gn, "truths.ignore", G)) && (p.gt_void = b.get<std::uint8_t>(gv, "truths.void", G)) &&
                    (p.dt_category = b.get<std::int32_t>(dc, "detections.category", D)) &&
                    (p.dt_box = b.get<double>(db, "detections.box", 4 * D)) && (p.dt_score = b.get<double>(ds, "detections.score", D)) &&
                    maybe(b, da, "detections.area", D, p.dt_area) && maybe(b, dm, "detections.meek", D, p.dt_meek) &&
                    maybe(b, de, "detections.excused", D, p.dt_excused) &&
                    maybe(b, ov, "overlaps", -1, p.overlaps);
    if (!ok) return nullptr;
    p.overlap_count = p.overlaps ? b.length : 0;
    if (!(p.precision = b.get<double>(pr, "precision", curves, true)) || !maybe(b, sc, "scores", curves, p.scores, true) ||
        !(p.recall = b.get<double>(re, "recall", recalls, true)) || !maybe(b, m1, "dt_match", A * T * D, p.dt_match, true) ||
        !maybe(b, m2, "gt_match", A * T * G, p.gt_match, true) || !maybe(b, m3, "dt_ignored", A * T * D, p.dt_ignored, true) ||
        !maybe(b, m4, "dt_rank", D, p.dt_rank, true))
        return nullptr;
    if (!in_range(p.gt_image, G, images, "truths.image") || !in_range(p.gt_category, G, categories, "truths.category") ||
        !in_range(p.dt_image, D, images, "detections.image") || !in_range(p.dt_category, D, categories, "detections.category"))
        return nullptr;
    p.truths = G;
    p.detections = D;
    p.thresholds = static_cast<int>(T);
    p.levels = static_cast<int>(R);
    p.areas = static_cast<int>(A);
    p.limits = static_cast<int>(M);
    p.first = first;
    std::int64_t cut = 0;
    bool no_memory = false;
    Py_BEGIN_ALLOW_THREADS
    try {
        cut = striate::evaluate(p, threads);
    } catch (const std::exception &) {
        no_memory = true;
    }
    Py_END_ALLOW_THREADS
    if (no_memory) return PyErr_NoMemory();
    if (cut < 0) {
        PyErr_SetString(PyExc_ValueError, "overlaps: not as many values as the groups need");
        return nullptr;
    }
    return PyLong_FromLongLong(cut);
}

PyMethodDef methods[] = {
    {"read_json", read_json, METH_VARARGS, "read_json(text, results, threads, (images, categories)=None): columns as a dict, or (offset, why, general)."},
    {"places", places, METH_VARARGS, "places(ids, known, out): for each id its place among the known ones, or -1."},
    {"evaluate", evaluate, METH_VARARGS, "Matches detections and fills precision, scores and recall; returns how many lie beyond the last limit."},
    {nullptr, nullptr, 0, nullptr},
};

PyModuleDef module = {PyModuleDef_HEAD_INIT, "_native", "The detection kernels.", -1, methods, nullptr, nullptr, nullptr, nullptr};

}  // namespace

// VERSION is that of the functions' arguments; striate/metrics/detection/kernel.py expects the same.
PyMODINIT_FUNC PyInit__native(void) {
    PyObject *m = PyModule_Create(&module);
    if (!m) return nullptr;
    column_type = PyType_FromSpec(&column_spec);
    if (PyModule_AddIntConstant(m, "VERSION", 6) < 0 || !column_type || PyModule_AddObjectRef(m, "Column", column_type) < 0) {
        Py_DECREF(m);
        return nullptr;
    }
    return m;
}
