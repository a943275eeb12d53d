"""ONNX with 8-bit integers: all of the arithmetic, or the weights alone.

Jacob et al. 2018 (arXiv:1712.05877) describe the arithmetic. Which ranges of activations are best depends on
the network, so a few ways to choose them are tried, on images that are not those of the measurement.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from striate.data import DataSet
from striate.device import cpu_count
from striate.errors import DataError, UsageError
from striate.exporters.inputs import Inputs, labelled_splits, read
from striate.exporters.onnx import graph, opened, write
from striate.exporters.onnx.file import Array, Graph, Node
from striate.exporters.records import Exported, Request
from striate.exporters.verification import in_batches, latencies
from striate.inference.classifier import Classifier
from striate.inference.onnx_classifier import SCORES, one_line
from striate.transforms.decode import Uint8Array

CALIBRATION, MEASURED = 64, 500  # images, at most
_AT_ONCE = 8  # calibration images: all activations of these are in memory
_RUNS = 20  # of the measurement of the latency
_METHODS = ("MinMax", "Percentile", "Entropy")
_WEIGHTS = {"Conv": 0, "Gemm": 0, "MatMul": -1}  # operator -> the axis of the outputs in its weights
_CPU = Path("/proc/cpuinfo")  # of Linux
_SMALLEST = 1024  # weights: smaller tensors are not quantized


def export_int8(classifier: Classifier, path: Path, request: Request) -> Exported:
    """Write the best of several int8 files; arguments as `striate.exporters.Format.target`.

    Raises:
        UsageError: onnxruntime or onnx is not installed, no labeled images are known, or images have
            several classes.
        DataError: there are too few of them.
        UnsupportedError, WriteError: as `striate.exporters.onnx.export`.
    """
    _require_tools()
    if classifier.description.is_multi_label:
        why = "the best of several files is chosen by top-1 accuracy, and its images have several classes"
        raise UsageError("cannot export to onnx-int8", why, "Export to onnx-int8-weights")
    dataset = labelled_splits(classifier, request.data)
    if dataset is None:
        raise UsageError(
            "cannot export to onnx-int8", "it is calibrated on labeled images, and none are known",
            "Give --data FOLDER, or export to onnx-int8-weights",
        )  # fmt: skip
    calibration, measured = _images(classifier, dataset)
    made = graph(classifier.network, classifier.preprocess)
    fp32 = path.with_name("float32.onnx")
    write(fp32, made, classifier)
    candidates, failed = [], []
    for method in _METHODS:
        try:
            ranges = _ranges(fp32, calibration.images, method)
        except ValueError as error:  # a histogram of values that hardly differ
            failed.append(f"{method.lower()} cannot be used: {one_line(error)}")
            continue
        for per_channel in (False, True):
            file = path.with_name(f"{method}-{per_channel}.onnx")
            _quantize(fp32, file, ranges, _kept_in_float(made), per_channel=per_channel)
            name = f"{'per channel' if per_channel else 'per tensor'}, {method.lower()}"
            candidates.append((_accuracy(file, measured), name, file))
    _, name, file = max(candidates, key=lambda candidate: candidate[0])
    bits = 8 if has_integer_products() else 7
    tried = "; ".join([*(f"{kind} {100 * share:.1f} %" for share, kind, _ in candidates), *failed])
    notes = [
        f"int8 after {len(calibration.images)} calibration images, with weights of {bits} bits.",
        f"Accuracy: {tried}.",
        f"Kept: {name}.",
        _compare_speed(fp32, file, measured.images[:1]),
    ]
    file.replace(path)
    return opened(path, max_loss=request.max_loss, inputs=measured, notes=tuple(notes))


def export_int8_weights(classifier: Classifier, path: Path, request: Request) -> Exported:
    """Write a file whose weights have 8 bits, and which computes in float32: a quarter of the bytes.

    Arguments and errors as for `striate.exporters.onnx.export`.
    """
    made = graph(classifier.network, classifier.preprocess)
    fp32 = sum(array.nbytes for array in made.initializers.values())
    small = with_int8_weights(made)
    write(path, small, classifier)
    size = sum(array.nbytes for array in small.initializers.values())
    note = f"Its weights take {size / 1e6:,.1f} MB instead of {fp32 / 1e6:,.1f}."
    return opened(path, max_loss=request.max_loss, notes=(note,))


def with_int8_weights(made: Graph) -> Graph:
    """The graph with int8 weights, and a scale for each output of a layer: w = scale * q, |q| <= 127."""
    initializers, nodes = dict(made.initializers), []
    names = {}
    for node in made.nodes:
        name = node.inputs[1] if node.op in _WEIGHTS else ""
        weight = made.initializers.get(name)
        is_large = weight is not None and weight.ndim > 1 and weight.size >= _SMALLEST
        if weight is not None and is_large and name not in names:
            names[name] = f"{name}_float"
            nodes.append(_dequantize(initializers, name, weight, _WEIGHTS[node.op] % weight.ndim))
    for node in made.nodes:
        inputs = tuple(names.get(name, name) for name in node.inputs)
        nodes.append(dataclasses.replace(node, inputs=inputs))
    return dataclasses.replace(made, nodes=nodes, initializers=initializers)


def _dequantize(initializers: dict[str, Array], name: str, weight: Array, axis: int) -> Node:
    others = tuple(i for i in range(weight.ndim) if i != axis)
    largest = np.abs(weight).max(axis=others, keepdims=True)
    scale = np.where(largest > 0, largest / 127, 1).astype(np.float32)
    initializers[name] = np.round(weight / scale).astype(np.int8)
    initializers[f"{name}_scale"] = scale.reshape(-1)
    return Node("DequantizeLinear", (name, f"{name}_scale"), (f"{name}_float",), {"axis": axis})


def _require_tools() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime.quantization  # noqa: F401
    except ImportError as error:
        why = f"ONNX Runtime quantizes with the package onnx, and {error.name} is not installed"
        raise UsageError("cannot export to onnx-int8", why, "pip install 'striate[onnx]' onnx") from error


def _images(classifier: Classifier, dataset: DataSet) -> tuple[Inputs, Inputs]:
    """Images for the calibration, and others for the measurement.

    These are val and test if there are both; else the halves of the one that is there.
    """
    splits, preprocess = dataset.splits, classifier.preprocess
    if {"val", "test"} <= splits.keys():
        name, first, second = "test", splits["val"], splits["test"]
    else:
        name = next(name for name in ("test", "val", "all", "train") if name in splits)
        order = np.random.default_rng(0).permutation(len(splits[name]))
        first, second = (splits[name].take(np.sort(half)) for half in np.array_split(order, 2))
    if min(len(first), len(second)) < 2:
        why = "int8 needs images for the calibration and others for the measurement"
        raise DataError(f"cannot use {dataset.source!r}: it has too few images", why, "Give more with --data")
    calibration = read(dataset, name, first, preprocess, CALIBRATION)
    return calibration, read(dataset, name, second, preprocess, MEASURED)


def _ranges(fp32: Path, images: Uint8Array, method: str) -> Any:
    """The range of each activation for the calibration images (`TensorsData` of ONNX Runtime)."""
    from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod
    from onnxruntime.quantization.calibrate import create_calibrator

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # it has no types
        def __init__(self, part: Uint8Array) -> None:
            self.rest = iter([{"images": image[None]} for image in part])

        def get_next(self) -> Any:
            return next(self.rest, None)

    calibrator = create_calibrator(
        fp32, augmented_model_path=str(fp32.with_name("augmented.onnx")),
        calibrate_method=CalibrationMethod[method],
    )  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does
        for at in range(0, len(images), _AT_ONCE):
            calibrator.collect_data(Reader(images[at : at + _AT_ONCE]))
        return calibrator.compute_data()


def _quantize(fp32: Path, out: Path, ranges: Any, exclude: Sequence[str], *, per_channel: bool) -> None:
    """Write a file with QuantizeLinear and DequantizeLinear, which runtimes merge with the layers."""
    import onnx
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
    from onnxruntime.quantization.registry import QDQRegistry

    model = onnx.load(str(fp32))
    quantizer = QDQQuantizer(
        model, per_channel=per_channel, reduce_range=not has_integer_products(),
        weight_qType=QuantType.QInt8, activation_qType=QuantType.QUInt8, tensors_range=ranges,
        nodes_to_quantize=[], nodes_to_exclude=list(exclude), op_types_to_quantize=list(QDQRegistry),
        extra_options={},
    )  # fmt: skip
    quantizer.quantize_model()
    quantizer.model.save_model_to_file(str(out))


def _kept_in_float(made: Graph) -> list[str]:
    """Names of the nodes that stay in float32: the normalization, and what follows the scores."""
    names = [node.outputs[0] for node in made.nodes]
    normalization = 1 + [node.op for node in made.nodes].index("Transpose")
    return [*names[:normalization], *names[names.index(SCORES) :]]


def has_integer_products() -> bool:
    """Whether the processor adds products of 8-bit integers without overflow (VNNI; ARM has it).

    Without them the weights have 7 bits, as ONNX Runtime advises.
    """
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return True
    try:
        flags = _CPU.read_text("utf-8", "replace").partition("flags")[2].partition("\n")[0]
    except OSError:
        return False
    return bool({"avx512_vnni", "avx_vnni"} & set(flags.split()))


def _accuracy(file: Path, measured: Inputs) -> float:
    exported = opened(file)
    assert exported.scores is not None
    assert measured.labels is not None
    return float((in_batches(exported.scores, measured.images).argmax(1) == measured.labels).mean())


def _compare_speed(fp32: Path, int8: Path, image: Uint8Array) -> str:
    """The time of one image with both files in turns, in a sentence."""
    one, other = (opened(file).scores for file in (fp32, int8))
    assert one is not None
    assert other is not None
    latencies(one, other, image)  # the first runs allocate memory
    slow, fast = latencies(one, other, np.repeat(image, _RUNS, axis=0))
    what = f"{fast:.2f} ms for an image instead of {slow:.2f} ms with float32, on {cpu_count()} cores"
    if fast > 0.95 * slow:
        return f"int8 is not faster here: {what}."
    return f"int8 is {slow / fast:.2f} times as fast: {what}."
