"""Peak memory of `predict` on one image file per process, compared with that of an ordinary photograph.

    python benchmarks/bench_memory.py --out benchmarks/results
    python benchmarks/bench_memory.py FILE ...                 # other files

By default all files in the shared folders `data/awkward` and `cases`, and files that are made here: very
long, very large, turned, transparent and 16-bit ones. A network that takes almost no memory reads images of
224 pixels. `peak_mb` is the largest resident memory (ru_maxrss) of a process forked for the file, once
all modules are loaded; `above_mb` is by how much it exceeds that of a photograph of 500x375 pixels;
`raster_mb` is the decoded image in Pillow's memory. A file may exceed the photograph by 400 MB, or by its
raster where that is larger; the exit code is 1 if one exceeds it by more.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from corner import corner_classifier
from PIL import Image
from record import write_results

from striate.transforms.preprocess import Preprocess

HERE = Path(__file__).resolve()
SHARED = HERE.parents[1].parent / "shared"
ALLOWED_MB = 400
RESIZES = ("crop", "squash", "letterbox")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("files", type=Path, nargs="*", metavar="FILE")
    parser.add_argument("--shared", type=Path, default=SHARED, help="folder of the shared material")
    parser.add_argument("--resize", default=",".join(RESIZES), help="modes of the preprocessing")
    parser.add_argument("--out", type=Path, help="folder for a results file")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        figures = measure(given, Path(scratch))
    print(json.dumps({key: value for key, value in figures.items() if key != "files"}, indent=2))
    if given.out:
        write_results(figures, given.out, "memory")
    sys.exit(bool(figures["above_the_limit"]))


def measure(given: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    folders = (given.shared / "data" / "awkward", given.shared / "cases")
    files = given.files or [
        path for folder in folders for path in sorted(folder.rglob("*")) if path.is_file()
    ]
    files += [] if given.files else forked(made, scratch)
    photograph = forked(photo, scratch)
    rows = []
    for resize in given.resize.split(","):
        base = one(photograph, resize)["peak_mb"]
        for path in files:
            row = {"file": path.name, "resize": resize, **one(path, resize)}
            row["above_mb"] = round(row["peak_mb"] - base, 1)
            rows.append(row)
            print(json.dumps(row), file=sys.stderr, flush=True)
    rows.sort(key=lambda row: row["above_mb"] - max(ALLOWED_MB, row["raster_mb"]), reverse=True)
    over = [row for row in rows if row["above_mb"] > max(ALLOWED_MB, row["raster_mb"])]
    return {
        "files_measured": len(rows),
        "allowed_mb_above_a_photograph": ALLOWED_MB,
        "above_the_limit": over,
        "nearest_to_the_limit": rows[:5],
        "most_above_among_small_rasters": max(
            (row for row in rows if row["raster_mb"] < ALLOWED_MB),
            key=lambda row: row["above_mb"],
            default=None,
        ),
        "files": rows,
    }


def one(path: Path, resize: str) -> dict[str, Any]:
    """The measurement of a file, in a new process."""
    found: dict[str, Any] = forked(predict, str(path), resize)
    return found


def forked(function: Callable[..., Any], *arguments: Any) -> Any:
    """What a function returns, called in a forked process."""
    with multiprocessing.get_context("fork").Pool(1) as pool:
        return pool.apply(function, arguments)


def predict(path: str, resize: Any) -> dict[str, Any]:
    classifier = corner_classifier(Preprocess.for_size(224, resize=resize))
    (prediction,) = classifier.predict_many([path])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"peak_mb": round(peak, 1), "raster_mb": round(raster(path), 1), "error": prediction.error}


def raster(path: str) -> float:
    """Megabytes of the decoded image: 4 bytes per pixel of color, else those of the type; 0 without one."""
    Image.MAX_IMAGE_PIXELS = None
    try:
        with Image.open(path) as image:
            size = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2}.get(image.mode, 4)
            return image.width * image.height * size / 2**20
    except Exception:  # whatever Pillow raises on a file that is no image
        return 0.0


def photo(folder: Path) -> Path:
    path = folder / "photograph.jpg"
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (24, 32, 3), np.uint8))
    small.resize((500, 375), Image.Resampling.BICUBIC).save(path)
    return path


def made(folder: Path) -> list[Path]:
    """Files of unusual shapes and sizes."""
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    images = {
        "60000x1.png": Image.new("RGB", (60_000, 1)),
        "1x60000.png": Image.new("RGB", (1, 60_000)),
        "4000000x1.png": Image.new("RGB", (4_000_000, 1)),
        "1x4000000.png": Image.new("RGBA", (1, 4_000_000)),
        "100x500000-gray.png": Image.new("L", (100, 500_000)),
        "9000x9000-alpha.png": Image.new("RGBA", (9000, 9000)),
        "9000x9000-16bit.png": Image.new("I;16", (9000, 9000)),
        "9000x9000-float.tif": Image.new("F", (9000, 9000)),
        "9000x9000-cmyk.tif": Image.new("CMYK", (9000, 9000)),
        "9000x9000-turned.jpg": Image.new("RGB", (9000, 9000)),
        "13000x13000.png": Image.new("RGB", (13_000, 13_000)),
    }
    paths = []
    for name, image in images.items():
        paths.append(folder / name)
        image.save(paths[-1], exif=exif if "turned" in name else Image.Exif())
    return paths


if __name__ == "__main__":
    main()
