"""`striate doctor`: versions, devices and cache."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from striate.cli.options import Json

_CLEAR = "Clear the cache of decoded images and exports (your files are not touched)."


def doctor(
    clear_cache: Annotated[bool, typer.Option("--clear-cache", help=_CLEAR)] = False,
    as_json: Json = False,
) -> None:
    """Show versions, devices and the cache of decoded images and exports, or clear the cache.

    Python: striate.data.images.cache.clear()
    """
    from striate.cli.console import print_json, say

    if clear_cache:
        from striate.data.images.cache import clear
        from striate.files import cache_folder
        from striate.inference import export_cache

        freed = clear() + export_cache.clear()
        if as_json:
            print_json({"cleared_bytes": freed})
        else:
            say(f"{_size(freed)} of decoded images and exports deleted from {cache_folder()}")
        return
    found = _examine()
    if as_json:
        print_json(found)
        return
    cache = found["cache"]
    lines = {
        **found["versions"],
        "devices": ", ".join(found["devices"]),
        "CPU cores": f"{found['processors']} for this process",
        "image formats": ", ".join(found["formats"]),
        "weights": ", ".join(found["weights"]) or "none installed (pip install 'striate[pretrained]')",
        "detection": "native kernel" if found["native"] else "NumPy (slower): no compiler at installation",
        "cache": f"{cache['folder']}: {_size(cache['bytes'])} of at most {_size(cache['limit_bytes'])}",
    }
    for name, value in lines.items():
        say(f"{name:14} {value}")


def _examine() -> dict[str, Any]:
    import platform

    import numpy
    import PIL
    from PIL import features

    from striate.data.images.cache import LIMIT_VARIABLE, limit, segments
    from striate.device import cpu_count
    from striate.files import cache_folder
    from striate.inference import export_cache
    from striate.metrics.detection.kernel import native
    from striate.version import __version__
    from striate.weights.catalog import CATALOG
    from striate.weights.installed import path_of

    torch, devices = _torch()
    codecs = {"jpg": "JPEG", "libjpeg_turbo": "libjpeg-turbo", "webp": "WebP", "avif": "AVIF"}
    return {
        "versions": {
            "striate": __version__, "python": platform.python_version(), "torch": torch,
            "numpy": numpy.__version__, "pillow": PIL.__version__,
        },
        "devices": devices,
        "processors": cpu_count(),
        "formats": [name for codec, name in codecs.items() if features.check(codec)],
        "native": native() is not None,
        "weights": [entry.name for entry in CATALOG.values() if path_of(entry) is not None],
        "cache": {
            "folder": str(cache_folder()),
            "bytes": sum(part.size for part in segments()) + sum(e.size for e in export_cache.entries()),
            "limit_bytes": limit(), "limit_variable": LIMIT_VARIABLE,
        },
    }  # fmt: skip


def _torch() -> tuple[str, list[str]]:
    """The version of torch, and the devices that it has."""
    try:
        import torch
    except ModuleNotFoundError:
        return "not installed: only prediction with .onnx files works", ["cpu"]
    gpus = [f"cuda:{i} ({torch.cuda.get_device_name(i)})" for i in range(torch.cuda.device_count())]
    return torch.__version__, ["cpu", *gpus, *(["mps"] if torch.backends.mps.is_available() else [])]


def _size(count: int) -> str:
    """Format bytes: 1.2 GB."""
    size, units = float(count), ["B", "kB", "MB", "GB", "TB"]
    while size >= 1000 and len(units) > 1:
        size /= 1000
        del units[0]
    return f"{size:.0f} B" if units[0] == "B" else f"{size:.1f} {units[0]}"
