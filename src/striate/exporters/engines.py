"""Open an image classifier for an engine: torch, or ONNX Runtime through an export in the cache.

Only what runs in torch, and making an export, loads torch.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from striate import bundle
from striate.bundle import Description
from striate.device import may_have_gpu
from striate.errors import UsageError, unknown_name
from striate.inference import export_cache, onnx_classifier
from striate.inference.onnx_classifier import FEATURES, OnnxClassifier
from striate.inference.prediction import ImagePredictor
from striate.models import is_foreign

AUTO, TORCH, ONNXRUNTIME = "auto", "torch", "onnxruntime"
ENGINES = (AUTO, TORCH, ONNXRUNTIME)
_SUFFIX = ".onnx"


def load(
    path: str | os.PathLike[str],
    device: str = "auto",
    *,
    engine: str = "",
    network: Any = None,
    trust: str = "",
    few: bool = False,
) -> ImagePredictor:
    """Open a bundle, a run folder or an ONNX file.

    Args:
        path: the suffix `.onnx` decides.
        device: where it will run.
        engine: of a bundle; by default torch. `onnxruntime` exports it when it is used for the first time,
            compares the export with it, and keeps the export in the cache. `auto` uses an export that is in
            the cache if the model will run on the CPU, and torch otherwise. All give the same answers, up to
            rounding.
        network: as for `striate.inference.classifier.load`; needs torch.
        trust: as for `striate.inference.classifier.load`; needs torch.
        few: as for `striate.inference.onnx_classifier.load`.

    Raises:
        BundleError, UsageError: as `striate.inference.classifier.load` or
            `striate.inference.onnx_classifier.load`; or the engine cannot run the model.
        WriteError: the export cannot be written, or differs from the original.
    """
    require(engine, ("", *ENGINES))
    if bundle.is_onnx(path):
        if engine == TORCH:
            fix = "Leave out --engine, or give the bundle"
            raise UsageError(f"--engine torch with {os.fspath(path)!r}", "torch cannot run ONNX files", fix)
        return onnx_classifier.load(path, device, few=few)
    is_on_cpu = device == "cpu" or (device == "auto" and not may_have_gpu())
    if engine == ONNXRUNTIME or (engine == AUTO and is_on_cpu and network is None and not trust):
        found = _with_onnxruntime(bundle.path_of(path), device, make=engine == ONNXRUNTIME, few=few)
        if found is not None:
            return found
    from striate.inference import classifier

    return classifier.load(path, device, network=network, trust=trust)


def require(engine: str, known: Sequence[str]) -> None:
    """Raises UsageError for an unknown engine."""
    if engine not in known:
        raise unknown_name("engine", engine, filter(None, known))


def _with_onnxruntime(path: Path, device: str, *, make: bool, few: bool) -> OnnxClassifier | None:
    """A bundle in ONNX Runtime; None if it cannot run there, or is not in the cache and is not to be made.

    Raises:
        UsageError: it cannot run there, and `make`.
    """
    description, digest = bundle.identity(path)
    what = f"--engine onnxruntime with {str(path)!r}"
    if refused := _refused(description, device):
        if make:
            raise UsageError(what, *refused)
        return None
    try:
        if make:
            import onnxruntime  # noqa: F401 - before torch exports a model that cannot run
        key = export_cache.key(digest, f"onnx {bool(description.unknown)}")
        found = _opened(export_cache.find(key, _SUFFIX), description, path, few)
        if found is None and make:
            found = _opened(_made(key, path, what), description, path, few)
            export_cache.prune()
    except ImportError as error:
        if not make:
            return None
        raise UsageError(what, "ONNX Runtime is not installed", "pip install 'striate[onnx]'") from error
    return found


def _refused(description: Description, device: str) -> tuple[str, str] | None:
    """Why a model cannot run in ONNX Runtime, and what to do; None if it can."""
    if description.task != "classification":
        return f"it is a {description.task} model", "Use --engine torch"
    if device not in ("auto", "cpu"):
        return f"it runs on the CPU, not on {device}", "Use --engine torch, or --device cpu"
    if is_foreign(description.architecture):
        fix = "Use `striate export --to onnx`, and give that file"
        return "Striate does not define its network, so its code may have changed since an export", fix
    return None


def _opened(export: Path | None, description: Description, path: Path, few: bool) -> OnnxClassifier | None:
    """An export with the description of its bundle, which may have been calibrated since then.

    None if there is no export, or this version of ONNX Runtime cannot read it.

    Raises:
        ImportError: ONNX Runtime is not installed.
    """
    if export is None:
        return None
    try:
        session = onnx_classifier.open_session(export, few=few)
    except ImportError:
        raise
    except Exception:  # onnxruntime's own exceptions share no base class
        return None
    return OnnxClassifier(session, description, str(path))


def _made(key: str, path: Path, what: str) -> Path:
    """Export a bundle into the cache; its path there.

    Raises:
        UsageError: the network cannot be exported, or not with all that its predictions say.
        WriteError: it cannot be written, or differs from the original.
    """
    from striate.device import standard_settings
    from striate.exporters import write_compared
    from striate.exporters.inputs import photographs
    from striate.inference import classifier

    original = classifier.load(path, "cpu")

    def write(new: Path) -> None:
        with standard_settings():
            write_compared(original, new, "onnx", inputs=photographs(original.preprocess))
        outputs = onnx_classifier.open_session(new).get_outputs()
        if original.description.unknown and FEATURES not in [output.name for output in outputs]:
            why = (
                "it would not mark images unlike the training images: the input of its last layer is unknown"
            )
            raise UsageError(what, why, "Use --engine torch")

    return export_cache.add(key, _SUFFIX, write, what)
