"""Speed of reading images for training, compared with the loops of torchvision and timm in one run.

    python benchmarks/bench_input.py --peers PEERS/bin/python --out benchmarks/results

* `batches`: training batches of 224 pixels from a folder of photographs, with RandomResizedCrop, flip and
  normalization, without a network: the first pass, which decodes and caches, and later passes from the cache.
  `cpu_ms` is per image, over all threads and processes.
* `large`: the same batches from photographs of 4000x3000 pixels, enlarged from some of these.
* `reading`: images read for `evaluate` and `predict`; from files and from the cache.
* `transforms`: CPU milliseconds per image; a batch of 64 here, one by one with torchvision.

Peers run in a separate environment (`python -m venv PEERS`, `pip install torch torchvision timm`); without
it only Striate is measured. All run in separate processes, in turns; medians of the rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from record import write_results

HERE = Path(__file__).resolve()
SHARED = HERE.parents[1].parent / "shared" / "data"
CAMERA = (4000, 3000)
SPIN = {"GOMP_SPINCOUNT": "2000"}  # as the command line: threads of torch that wait leave the cores to others
PHOTOS = ("hymenoptera_data", "cats_dogs", "imagenet_samples")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--photos", type=Path, nargs="*", default=[SHARED / name for name in PHOTOS])
    parser.add_argument("--peers", help="a Python that has torchvision and timm")
    parser.add_argument("--only", default="batches,large,reading,transforms")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="folder for a results file")
    parser.add_argument("--role", nargs=2, help=argparse.SUPPRESS)  # one measurement, in a separate process
    given = parser.parse_args()
    if given.role:
        print(json.dumps(ROLES[given.role[0]](Path(given.role[1]))))
        return
    if not given.peers:
        print("no --peers: torchvision and timm are not measured", file=sys.stderr)
    with tempfile.TemporaryDirectory() as scratch:
        figures = measure(given, Path(scratch))
    print(json.dumps(figures, indent=2))
    if given.out:
        write_results(figures, given.out, "input", keep_others=True)


def measure(given: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    import torch

    figures: dict[str, Any] = {
        "processors": os.cpu_count(),
        "torch": torch.__version__,
        "rounds": given.rounds,
    }
    photos = scratch / "photos"
    collect(given.photos, photos)
    time.sleep(3)  # files that were just written are not cached
    if "batches" in given.only:
        figures["batches"] = batches(given, photos, scratch)
    if "large" in given.only:
        enlarge(photos, scratch / "large")
        figures["large"] = batches(given, scratch / "large", scratch)
    if "reading" in given.only:
        env = {"XDG_CACHE_HOME": str(scratch / "reading")}
        figures["reading"] = {"files": here("reading", photos, env), "cached": here("reading", photos, env)}
        figures["reading"]["predict"] = here("predicting", photos, env)
    if "transforms" in given.only:
        figures["transforms_cpu_ms"] = transforms(given, photos)
    return figures


def collect(folders: list[Path], root: Path) -> None:
    """A folder of links to photographs, in two classes; four per photograph, so that a pass takes seconds."""
    found = sorted(
        p for folder in folders for p in folder.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg")
    )
    for i, path in enumerate(4 * found):
        place = root / "ab"[i % 2] / f"{i:05}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(path.resolve())


def enlarge(photos: Path, root: Path) -> None:
    """A folder of links to a few photographs of the size that cameras store, in two classes."""
    from PIL import Image

    root.mkdir()
    for i, path in enumerate(sorted(photos.rglob("*.jpg"))[: 8 * 40 : 40]):
        with Image.open(path) as photo:
            enlarged = photo.convert("RGB").resize(CAMERA, Image.Resampling.BICUBIC)
        enlarged.save(root.parent / f"{i}.jpg", quality=90)
    for i in range(128):
        place = root / "ab"[i % 2] / f"{i:03}.jpg"
        place.parent.mkdir(exist_ok=True)
        place.symlink_to(root.parent / f"{i // 2 % 8}.jpg")
    time.sleep(3)


def batches(given: argparse.Namespace, photos: Path, scratch: Path) -> dict[str, Any]:
    rounds: dict[str, list[dict[str, float]]] = {}
    for number in range(given.rounds):
        for kind in peers(given):
            rounds.setdefault(kind, []).append(timed(peer(given, "batches", kind, photos)))
        env = {"XDG_CACHE_HOME": str(scratch / f"{photos.name}{number}")}
        rounds.setdefault("striate, first pass", []).append(here("first", photos, env))
        rounds.setdefault("striate, cached", []).append(here("cached", photos, env))
    return compared(rounds, ("images_per_second", "cpu_ms"))


def transforms(given: argparse.Namespace, photos: Path) -> dict[str, Any]:
    found = {"striate": here("transforms", photos, {})}
    if given.peers:
        found["torchvision"] = timed(peer(given, "transforms", "torchvision", photos))
    return {
        side: {k: round(v, 3) for k, v in values.items() if "seconds" not in k}
        for side, values in found.items()
    }


def peers(given: argparse.Namespace) -> tuple[str, ...]:
    return ("torchvision", "timm") if given.peers else ()


def peer(given: argparse.Namespace, what: str, kind: str, folder: Path) -> list[str]:
    return [given.peers, str(HERE.parent / "input_peers.py"), what, kind, str(folder)]


def here(role: str, folder: Path, env: dict[str, str]) -> dict[str, float]:
    return timed([sys.executable, str(HERE), "--role", role, str(folder)], {**SPIN, **env})


def timed(command: list[str], env: dict[str, str] | None = None) -> dict[str, float]:
    """The JSON that a process prints, with its seconds and CPU seconds from start to end."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.PIPE, env={**os.environ, **(env or {})}, check=True)
    seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    found: dict[str, Any] = json.loads(done.stdout)
    return {**found, "seconds": seconds, "cpu_seconds": cpu}


def compared(rounds: dict[str, list[dict[str, float]]], names: tuple[str, ...]) -> dict[str, Any]:
    """Medians, and how many times as fast as torchvision each is."""
    medians = {
        side: {name: statistics.median(one[name] for one in found) for name in names}
        for side, found in rounds.items()
    }
    out: dict[str, Any] = {"rounds": len(next(iter(rounds.values()))), "load": round(os.getloadavg()[0], 1)}
    out |= {
        side: {name: round(value, 3 if value < 100 else 0) for name, value in values.items()}
        for side, values in medians.items()
    }
    if "torchvision" in medians:
        base = medians["torchvision"]
        for side, values in medians.items():
            out[side]["times_torchvision"] = {
                name: round(v / base[name] if name == "images_per_second" else base[name] / v, 2)
                for name, v in values.items()
            }
    return out


def one_pass(folder: Path, passes: int) -> dict[str, float]:
    """Training batches of 224 pixels as the training loop makes them."""
    import numpy as np

    from striate.data import DecodedImages, open_data
    from striate.data.images.loader import stream
    from striate.device import choose
    from striate.kernels.allocator import keep
    from striate.training.schedule import shuffled_batches
    from striate.transforms.augment import augment
    from striate.transforms.preprocess import Preprocess

    keep()  # as training does
    data, preprocess = open_data(folder), Preprocess.for_size(224, reducing_gap=2.0)  # as training
    device = choose("cpu")
    rates, count, before = [], 0, time.process_time()
    source = DecodedImages(data.splits["all"], preprocess, crop=False, root=data.root)
    for epoch in range(passes):
        began, seen = time.perf_counter(), 0
        for batch in stream(
            source, shuffled_batches(len(source), 64, seed=0, epoch=epoch), device, workers=2
        ):
            pixels = augment(
                batch.pixels,
                preprocess.size,
                "standard",
                seed=0,
                epoch=epoch,
                samples=np.asarray(batch.samples),
            )
            seen += len(preprocess.normalize(pixels))
        rates.append(seen / (time.perf_counter() - began))
        count += seen
    cpu = time.process_time() - before
    return {"images_per_second": statistics.median(rates), "cpu_ms": 1e3 * cpu / count}


def reading(folder: Path) -> dict[str, float]:
    """The images of an evaluation."""
    import numpy as np
    import torch

    from striate.data import DecodedImages, open_data
    from striate.data.images.loader import stream
    from striate.transforms.preprocess import Preprocess

    data, preprocess = open_data(folder), Preprocess.for_size(224, reducing_gap=2.0)
    before, began = time.process_time(), time.perf_counter()
    source = DecodedImages(data.splits["all"], preprocess, root=data.root)
    order = np.split(np.arange(len(source)), range(64, len(source), 64))
    for batch in stream(source, order, torch.device("cpu"), workers=2):
        preprocess.normalize(batch.pixels)
    seconds, cpu = time.perf_counter() - began, time.process_time() - before
    return {"images_per_second": round(len(source) / seconds), "cpu_ms": round(1e3 * cpu / len(source), 3)}


def predicting(folder: Path) -> dict[str, float]:
    """`Classifier.predict_many` with a network that takes almost no time."""
    from corner import corner_classifier

    from striate.data.images.folders import find_images
    from striate.transforms.preprocess import Preprocess

    classifier = corner_classifier(Preprocess.for_size(224))
    paths = find_images(str(folder))
    before, began = time.process_time(), time.perf_counter()
    count = sum(1 for _ in classifier.predict_many(paths, workers=2))
    seconds, cpu = time.perf_counter() - began, time.process_time() - before
    return {"images_per_second": round(count / seconds), "cpu_ms": round(1e3 * cpu / count, 3)}


def transforms_alone(folder: Path) -> dict[str, float]:
    """CPU milliseconds per image in a batch of 64."""
    import numpy as np
    import torch
    from PIL import Image

    from striate import transforms as T
    from striate.kernels.allocator import keep
    from striate.transforms.preprocess import Preprocess

    keep()  # as training does
    torch.set_num_threads(1)
    paths = sorted(folder.rglob("*.jpg"))[:64]
    pixels = np.stack([np.asarray(Image.open(p).convert("RGB").resize((256, 256))) for p in paths])
    batch = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    preprocess = Preprocess.for_size(256)
    chains: dict[str, Any] = {
        "RandomCrop": T.RandomCrop(224), "RandomResizedCrop": T.RandomResizedCrop(224),
        "RandomHorizontalFlip": T.RandomHorizontalFlip(), "RandomRotation": T.RandomRotation(15),
        "ColorJitter": T.ColorJitter(0.4, 0.4, 0.4), "GaussianBlur": T.GaussianBlur(5),
        "TrivialAugmentWide": T.TrivialAugmentWide(), "RandAugment": T.RandAugment(),
        "ToTensor, Normalize": lambda x: preprocess.normalize(x.permute(0, 2, 3, 1)),
    }  # fmt: skip
    found = {}
    for name, chain in chains.items():
        for _ in range(2):  # the first is to warm up
            began = time.process_time()
            for _ in range(3):
                chain(batch)
            found[name] = 1e3 * (time.process_time() - began) / (3 * len(batch))
    return found


ROLES = {
    "first": lambda folder: one_pass(folder, 1),
    "cached": lambda folder: one_pass(folder, 5),
    "reading": reading,
    "predicting": predicting,
    "transforms": transforms_alone,
}

if __name__ == "__main__":
    main()
