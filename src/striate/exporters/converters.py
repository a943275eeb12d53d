"""Image classifiers in formats of other tools, written by the converters that those tools maintain.

| format | converter | input of the model |
|---|---|---|
| `openvino` | `pip install openvino` | uint8 `[batch, height, width, channels]` |
| `tflite` | `pip install litert-torch` | uint8 `[1, height, width, channels]` |
| `coreml` | `pip install coremltools` | float32 `[1, channels, height, width]`, normalized; for Macs |
| `ncnn` | `pip install pnnx ncnn` | float32 `[channels, height, width]`, normalized |
| `tensorrt` | `pip install tensorrt` | uint8 `[1, height, width, channels]`; for this GPU only |
"""

from __future__ import annotations

import contextlib
import importlib
import os
import platform
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from striate import strict_json
from striate.errors import StriateError, UsageError, WriteError
from striate.exporters import onnx
from striate.exporters.records import Exported, Request, Scores
from striate.exporters.torch_programs import pixel_network
from striate.inference.classifier import Classifier
from striate.transforms.decode import Uint8Array


def export_openvino(classifier: Classifier, path: Path, request: Request) -> Exported:
    """Write a folder with `model.xml` and `model.bin`, in float32; arguments as `Format.target`."""
    (openvino,) = _installed("openvino", "openvino")
    path.mkdir()
    with _converter("OpenVINO", path):
        model = openvino.convert_model(_onnx(classifier, path))
        openvino.save_model(model, path / "model.xml", compress_to_fp16=False)
        core = openvino.Core()
        compiled = core.compile_model(path / "model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def scores(images: Uint8Array) -> Scores:
        found: Scores = compiled(images)["scores"]
        return found

    def store(comparison: str) -> None:
        model.set_rt_info(comparison, ["striate", "comparison"])
        openvino.save_model(model, path / "model.xml", compress_to_fp16=False)

    return Exported(scores=scores, store=store)


def export_ncnn(classifier: Classifier, path: Path, request: Request) -> Exported:
    """Write a folder with `model.ncnn.param` and `model.ncnn.bin`, in float32; as `Format.target`."""
    pnnx, ncnn = _installed("pnnx ncnn", "pnnx", "ncnn")
    path.mkdir()
    shape = (1, classifier.preprocess.channels, *classifier.preprocess.size)
    with _converter("pnnx", path):
        network = pixel_network(classifier)[0].network
        pnnx.export(network, str(path / "model.pt"), torch.zeros(shape), fp16=False)
        for file in path.iterdir():
            if not file.name.startswith("model.ncnn.") or file.suffix == ".py":
                file.unlink()
        net = ncnn.Net()
        net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
        if net.load_param(str(path / "model.ncnn.param")) or net.load_model(str(path / "model.ncnn.bin")):
            raise RuntimeError("ncnn cannot read what pnnx wrote")

    def scores(image: Uint8Array) -> Scores:
        normalized = classifier.preprocess.normalize(torch.from_numpy(image)).numpy()[0]
        extractor = net.create_extractor()
        extractor.input("in0", ncnn.Mat(np.ascontiguousarray(normalized)))
        return np.array(extractor.extract("out0")[1], np.float32).reshape(1, -1)

    return Exported(scores=_one_by_one(scores))


def export_coreml(classifier: Classifier, path: Path, request: Request) -> Exported:
    """Write an `.mlpackage` in float32; arguments as `Format.target`."""
    (coremltools,) = _installed("coremltools", "coremltools")
    shape = (1, classifier.preprocess.channels, *classifier.preprocess.size)
    with _converter("coremltools", path):
        network, example = pixel_network(classifier)[0].network, torch.zeros(shape)
        traced = torch.jit.trace(network, example, check_trace=False)  # type: ignore[no-untyped-call]
        model = coremltools.convert(
            traced, inputs=[coremltools.TensorType(name="images", shape=shape)],
            outputs=[coremltools.TensorType(name="scores")], convert_to="mlprogram",
            compute_precision=coremltools.precision.FLOAT32,
        )  # fmt: skip
        model.user_defined_metadata["classes"] = strict_json.dumps(list(classifier.classes))
        model.save(str(path))

    def scores(image: Uint8Array) -> Scores:
        normalized = classifier.preprocess.normalize(torch.from_numpy(image)).numpy()
        return np.array(model.predict({"images": normalized})["scores"], np.float32).reshape(1, -1)

    if platform.system() != "Darwin":
        return Exported(missing="Core ML runs on a Mac only; export it there")

    def store(comparison: str) -> None:
        model.user_defined_metadata["comparison"] = comparison
        model.save(str(path))

    return Exported(scores=_one_by_one(scores), store=store)


def export_tflite(classifier: Classifier, path: Path, request: Request) -> Exported:
    """Write a `.tflite` file in float32; arguments as `Format.target`."""
    litert, interpreters = _installed("litert-torch", "litert_torch", "ai_edge_litert.interpreter")
    with _converter("litert-torch", path):
        network, images = pixel_network(classifier)
        litert.convert(network, (images[:1],)).export(str(path))
        runner = interpreters.Interpreter(model_path=str(path)).get_signature_runner()

    def scores(image: Uint8Array) -> Scores:
        found: Scores = next(iter(runner(args_0=image).values()))
        return found

    return Exported(scores=_one_by_one(scores))


def export_tensorrt(classifier: Classifier, path: Path, request: Request) -> Exported:
    """Write an engine for the GPU of this machine, in float32; arguments as `Format.target`."""
    (tensorrt,) = _installed("tensorrt", "tensorrt")
    if not torch.cuda.is_available():
        raise UsageError(
            "cannot export to tensorrt", "an engine is written on the GPU that runs it, and there is none",
            "Run it there, or use --to onnx",
        )  # fmt: skip
    height, width = classifier.preprocess.size
    shape = (1, height, width, classifier.preprocess.channels)
    with _converter("TensorRT", path):
        logger = tensorrt.Logger(tensorrt.Logger.ERROR)
        builder = tensorrt.Builder(logger)
        network, config = builder.create_network(0), builder.create_builder_config()
        config.clear_flag(tensorrt.BuilderFlag.TF32)
        parser = tensorrt.OnnxParser(network, logger)
        if not parser.parse_from_file(str(_onnx(classifier, path))):
            raise RuntimeError(str(parser.get_error(0)))
        profile = builder.create_optimization_profile()
        profile.set_shape("images", shape, shape, shape)
        config.add_optimization_profile(profile)
        path.write_bytes(builder.build_serialized_network(network, config))
        engine = tensorrt.Runtime(logger).deserialize_cuda_engine(path.read_bytes())
        context = engine.create_execution_context()
        outputs = {
            name: torch.empty(tuple(context.get_tensor_shape(name)), device="cuda")
            for name in map(engine.get_tensor_name, range(engine.num_io_tensors))
            if name != "images"
        }

    def scores(image: Uint8Array) -> Scores:
        pixels = torch.from_numpy(image).cuda()
        for name, tensor in {"images": pixels, **outputs}.items():
            context.set_tensor_address(name, tensor.data_ptr())
        context.execute_async_v3(torch.cuda.current_stream().cuda_stream)
        found: Scores = outputs["scores"].cpu().numpy()
        return found

    return Exported(scores=_one_by_one(scores))


def _installed(packages: str, *modules: str) -> list[Any]:
    """Import the modules of a converter; raises UsageError with the command that installs it."""
    try:
        return [importlib.import_module(name) for name in modules]
    except ImportError as error:
        why = f"its converter is not installed ({' '.join(str(error).split())})"
        raise UsageError("cannot export to this format", why, f"pip install {packages}") from error


def _onnx(classifier: Classifier, path: Path) -> Path:
    """A temporary ONNX file with the scores alone, in the folder of `path`, which is itself temporary."""
    file = path.with_name("for-converter.onnx")
    made = onnx.graph(classifier.network, classifier.preprocess, maps=False)
    onnx.write(file, made, classifier)
    return file


@contextlib.contextmanager
def _converter(name: str, path: Path) -> Iterator[None]:
    """Silence a converter, and turn its exceptions into errors of one line."""
    with open(os.devnull, "w", encoding="utf-8") as nowhere, warnings.catch_warnings():  # noqa: PTH123
        warnings.simplefilter("ignore")
        try:
            with contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
                yield
        except StriateError:
            raise
        except Exception as error:  # each converter has its own exceptions
            why = f"{name} cannot convert it ({' '.join(str(error).split())[:200]})"
            raise WriteError(f"cannot write {path.name!r}", why, "Use --to onnx") from error


def _one_by_one(run: Callable[[Uint8Array], Scores]) -> Callable[[Uint8Array], Scores]:
    """Run a model that takes one image at a time on several."""
    return lambda images: np.concatenate([run(image[None]) for image in images])
