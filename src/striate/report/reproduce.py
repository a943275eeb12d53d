"""The part of a training report that says how to train the same model again, and what it took."""

from __future__ import annotations

import dataclasses
import os
import platform
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from striate.device import cpu_count
from striate.sections import Listing, Phrase, Section
from striate.training.options import as_flags

if TYPE_CHECKING:
    from striate.training.run_folder import TrainingRun

_NOT_OPTIONS = ("task", "data", "progress")


def section(run: TrainingRun) -> Section:
    """Command, versions, seed, hashes, hardware, time and energy of a run."""
    known = run.description.provenance
    device = run.task.context.device
    items: list[tuple[str, str]] = [
        (Phrase("versions"), _versions(known)),
        (Phrase("seed"), str(run.config.seed)),
        (Phrase("created"), str(known.get("created", ""))),
        (Phrase("device"), _device(device)),
        (Phrase("processor"), f"{_processor()}, {cpu_count()} cores"),
        (Phrase("system"), platform.platform()),
        (Phrase("time"), f"{run.seconds:,.1f} s"),
    ]
    if run.joules is not None:
        items.append((Phrase("energy of the processors"), f"{run.joules / 3600:,.2f} Wh"))
    items += [(f"SHA-256, {name}", values["sha256"]) for name, values in run.fingerprints(None).items()]
    note = Phrase("On the same processor and versions, this command gives the same weights on a CPU.")
    return Section(Phrase("Reproduce"), (Listing(tuple(items), command(run.config)),), note)


def command(config: Any) -> str:
    """The command line of a configuration: its data, and the options that are not at their defaults."""
    defaults = {field.name: field.default for field in dataclasses.fields(config)}
    values = {
        name: value
        for name, value in config.to_json().items()
        if name not in _NOT_OPTIONS and value != defaults.get(name)
    }
    data = config.source if isinstance(config.data, str) or config.task != "seq2seq" else config.data
    paths = [data] if isinstance(data, (str, os.PathLike)) else data
    prefix = "striate seq2seq train" if config.task == "seq2seq" else "striate train"
    words = [prefix, *(shlex.quote(str(path)) for path in paths), as_flags(type(config), values)]
    return " ".join(filter(None, words))


def _versions(known: dict[str, Any]) -> str:
    versions = {
        "Striate": known.get("striate"), "PyTorch": known.get("torch"), "NumPy": np.__version__,
        "Python": platform.python_version(),
    }  # fmt: skip
    return ", ".join(f"{name} {version}" for name, version in versions.items() if version)


def _device(device: Any) -> str:
    """A device with the name of the GPU."""
    import torch

    return f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)


def _processor() -> str:
    """The name of the processor, as the system knows it."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
