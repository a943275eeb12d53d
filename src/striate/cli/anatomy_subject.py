"""The networks that `striate anatomy` is about: by name, from a bundle, or of another library."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from striate.errors import UsageError

if TYPE_CHECKING:
    from torch import nn

    from striate.transforms.preprocess import Preprocess

MOST = 1_000_000  # pixels, or channels, of the calculator


@dataclass(frozen=True)
class Subject:
    """A network by name or as a module, its image size, and the preprocessing of a bundle."""

    network: str | nn.Module
    size: tuple[int, int] | None
    preprocess: Preprocess | None = None


def find_subject(name: str, imgsz: str | None, trust: str) -> Subject:
    """Find the network for an argument: a name, a bundle or run folder, or a factory.

    Raises:
        UsageError: a factory cannot be imported or called.
        BundleError: the file is not a bundle.
    """
    from striate.models import MODELS, is_foreign

    size = _size(imgsz)
    if name not in MODELS and (name.endswith(".safetensors") or Path(name).is_dir()):
        from striate.inference.classifier import load

        classifier = load(name, "cpu", trust=trust)
        return Subject(classifier.network, size or classifier.preprocess.size, classifier.preprocess)
    if is_foreign(name):
        return Subject(*_foreign(name, size))
    return Subject(name, size)  # `trace` checks the name and lists near matches


def _foreign(name: str, size: tuple[int, int] | None) -> tuple[nn.Module, tuple[int, int] | None]:
    """A network of another library, or of a module that the user names, and its image size."""
    from striate.models import foreign
    from striate.models.references import Permission, Reference
    from striate.weights.libraries import preprocess_of

    made_for = preprocess_of(name)
    size = size or (made_for.size if made_for is not None else None)
    reference = Reference(1000, 3, size or (224, 224))
    return foreign.make(name, reference, Permission(trust=name.rpartition(":")[0])), size


def _size(text: str | None) -> tuple[int, int] | None:
    """Height and width from 224 or 480x640."""
    if text is None:
        return None
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(re.fullmatch(r"\s*[0-9]{1,9}\s*", part) for part in parts):
        raise UsageError(f"image size {text[:80]!r}", "it is not a number of pixels", "Use 224, or 480x640")
    if not all(0 < int(part) <= MOST for part in parts):
        raise UsageError(f"image size {text!r}", f"sides are from 1 to {MOST:,} pixels", "Use 224")
    return int(parts[0]), int(parts[-1])
