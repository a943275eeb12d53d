"""Time, memory and recall of `striate check` on images with planted copies.

Run `python benchmarks/bench_check.py FOLDER...`. It takes all images below the folders and writes 10,000 JPEG
files to a temporary folder: the originals, then copies of four kinds (JPEG quality 70; 0.8 times the size;
mirrored; all three).

Recall is the share of copies that are grouped with their original. A false alarm is an image in a group with
one that it is not a copy of. Originals may be copies of each other; such groups are printed for inspection,
and count as false alarms. `striate check` runs in a separate process.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from striate.errors import DecodeError
from striate.transforms.decode import decode, is_image_name

KINDS = ("quality 70", "0.8x", "mirrored", "all three")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--count", type=int, default=10_000, help="images in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the figures here")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "data"
        copies = plant(given.folders, root, given.count, given.seed)
        figures = {**run(root), **judge(root, copies)}
    print(json.dumps(figures, indent=2))
    if given.json:
        given.json.write_text(json.dumps(figures, indent=2) + "\n", "utf-8")


def plant(folders: list[Path], root: Path, count: int, seed: int) -> dict[str, tuple[str, str]]:
    """Write the images in two classes; returns the name of each copy with its original and its kind."""
    sources = sorted(p for f in folders for p in f.rglob("*") if is_image_name(p.name))
    rng = np.random.default_rng(seed)
    for name in ("a", "b"):
        (root / name).mkdir(parents=True)
    chosen = [sources[i] for i in rng.permutation(len(sources))][: count * 2 // 3]
    jobs = [(i, path, "") for i, path in enumerate(chosen)]
    again = rng.permutation(len(chosen) * len(KINDS))[: count - len(chosen)]
    jobs += [
        (int(i) % len(chosen), chosen[int(i) % len(chosen)], KINDS[int(i) // len(chosen)]) for i in again
    ]

    def write(job: tuple[int, Path, str]) -> tuple[str, tuple[str, str]] | None:
        number, path, kind = job
        try:
            image = Image.fromarray(decode(path))
        except DecodeError:
            return None
        if kind in ("0.8x", "all three"):
            size = (max(1, round(image.width * 0.8)), max(1, round(image.height * 0.8)))
            image = image.resize(size, Image.Resampling.LANCZOS)
        if kind in ("mirrored", "all three"):
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        name = f"{'b' if kind else 'a'}/{number:05}{f'-{KINDS.index(kind)}' if kind else ''}.jpg"
        image.save(root / name, quality=70 if kind in ("quality 70", "all three") else 92)
        return name, (f"a/{number:05}.jpg", kind)

    with ThreadPoolExecutor(2) as pool:
        written = dict(pair for pair in pool.map(write, jobs) if pair is not None)
    with (root.parent / "names.tsv").open("w", encoding="utf-8") as names:
        for number, path in enumerate(chosen):
            print(f"a/{number:05}.jpg\t{path}", file=names)
    return {name: origin for name, origin in written.items() if origin[1]}


def run(root: Path) -> dict[str, float]:
    """`striate check` in its own process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with (root.parent / "found.json").open("w") as out:
        command = [sys.executable, "-m", "striate", "check", str(root), "--json"]
        subprocess.run([*command, "--out", str(root.parent / "page.html")], stdout=out, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    told = json.loads((root.parent / "found.json").read_text("utf-8"))
    return {
        "images": told["n"],
        "seconds": round(told["seconds"], 2),
        "cpu_seconds": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 2),
        "images_per_second": round(told["n"] / told["seconds"]),
        "peak_mib": round(after.ru_maxrss / 1024),
        "page_mib": round((root.parent / "page.html").stat().st_size / 2**20, 2),
        "processors": os.cpu_count() or 0,
    }


def judge(root: Path, copies: dict[str, tuple[str, str]]) -> dict[str, object]:
    """Recall by kind, and the images in groups with images that they are not copies of."""
    told = json.loads((root.parent / "found.json").read_text("utf-8"))
    groups: dict[str, set[str]] = {}
    for finding in told["findings"]:
        if finding["kind"] not in ("conflicting-labels", "duplicates", "near-duplicates", "leakage"):
            continue
        members = defaultdict(set)
        for item in finding["items"]:
            members[item["group"]].add(str(Path(item["path"]).relative_to(root)))
        for group in members.values():
            for name in group:
                groups[name] = group
    origin = {name: original for name, (original, _) in copies.items()}
    found = defaultdict(list)
    for name, (original, kind) in copies.items():
        found[kind].append(original in groups.get(name, ()))
    mixed = {
        frozenset(group) for group in groups.values() if len({origin.get(name, name) for name in group}) > 1
    }
    paths = dict(line.split("\t") for line in (root.parent / "names.tsv").read_text("utf-8").splitlines())
    for strange in mixed:
        print("together:", *(paths[o] for o in sorted({origin.get(n, n) for n in strange})), file=sys.stderr)
    strangers = sum(len(group) for group in mixed)
    return {
        "planted": len(copies),
        "recall": {kind: round(float(np.mean(hits)), 4) for kind, hits in sorted(found.items())},
        "recall_all": round(float(np.mean([hit for hits in found.values() for hit in hits])), 4),
        "images_with_strangers": strangers,
        "false_alarms": round(strangers / told["n"], 5),
    }


if __name__ == "__main__":
    main()
