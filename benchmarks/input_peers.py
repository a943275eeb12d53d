"""Common training loops with torchvision and timm, for bench_input.py.

    PYTHON benchmarks/input_peers.py lenet|batches|transforms torchvision|timm FOLDER

Prints one JSON object. It does not import Striate, so it can run in a separate environment.
"""

from __future__ import annotations

import json
import resource
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
STARTED = time.perf_counter()


def cpu_seconds() -> float:
    """CPU seconds of this process and of its workers that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def gray(path: str) -> Image.Image:
    with open(path, "rb") as file:  # noqa: PTH123 - as torchvision's own loader
        return Image.open(file).convert("L")


def loader(kind: str, folder: Path, size: int, batch: int, *, train: bool) -> Any:
    """Batches of a folder: crop and flip for 28 pixels, RandomResizedCrop and flip beyond; two workers."""
    from torchvision import datasets, transforms  # type: ignore[import-not-found]

    small = size == 28
    if kind == "timm":
        from timm.data import create_dataset, create_loader  # type: ignore[import-not-found]

        data = create_dataset("", str(folder), input_img_mode="L" if small else "RGB")
        more: dict[str, Any] = {"scale": (0.8, 1.0)} if small else {}
        if small:
            more |= {"mean": (0.5,), "std": (0.5,)}
        return create_loader(
            data, (1 if small else 3, size, size), batch, is_training=train, num_workers=2, color_jitter=None,
            persistent_workers=True, pin_memory=False, device=torch.device("cpu"), **more,
        )  # fmt: skip
    random = [
        transforms.RandomCrop(28, padding=3) if small else transforms.RandomResizedCrop(size),
        transforms.RandomHorizontalFlip(),
    ]
    fixed = transforms.Normalize(*(((0.5,), (0.5,)) if small else (MEAN, STD)))
    chain = transforms.Compose([*(random if train else []), transforms.ToTensor(), fixed])
    data = datasets.ImageFolder(str(folder), chain, **({"loader": gray} if small else {}))
    return DataLoader(data, batch, shuffle=train, drop_last=train, num_workers=2, persistent_workers=True)


class LeNet(nn.Module):
    """LeNet as in PyTorch tutorials, for 28 pixels: 44,426 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 6, 5), nn.Conv2d(6, 16, 5)
        self.fc1, self.fc2, self.fc3 = nn.Linear(256, 120), nn.Linear(120, 84), nn.Linear(84, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scores `[batch, 10]`."""
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2).flatten(1)
        return self.fc3(F.relu(self.fc2(F.relu(self.fc1(x)))))  # type: ignore[no-any-return]


def lenet(kind: str, folder: Path) -> dict[str, float]:
    """Two epochs with validation; saves the weights."""
    train, val = (loader(kind, folder / part, 28, 64, train=part == "train") for part in ("train", "val"))
    network = LeNet()
    optimizer = torch.optim.AdamW(network.parameters(), 2e-3)
    rates = []
    for _ in range(2):
        began, count = time.perf_counter(), 0
        network.train()
        for x, y in train:
            optimizer.zero_grad()
            F.cross_entropy(network(x), y).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            count += len(x)
        rates.append(count / (time.perf_counter() - began))
        network.eval()
        with torch.no_grad():
            for x, _ in val:
                network(x)
    torch.save(network.state_dict(), folder.parent / f"{kind}.pth")
    return {"images_per_second": rates[-1]}


def batches(kind: str, folder: Path) -> dict[str, float]:
    """Passes over a folder of photographs after the first; CPU time includes the workers."""
    passes, rates, count = 3, [], 0
    before = cpu_seconds()
    data = loader(kind, folder, 224, 64, train=True)
    for _ in range(passes):
        began, seen = time.perf_counter(), 0
        for x, _ in data:
            seen += len(x)
        rates.append(seen / (time.perf_counter() - began))
        count += seen
    del data  # ends the workers, so that their time is counted
    return {
        "images_per_second": statistics.median(rates[1:]),
        "cpu_ms": 1e3 * (cpu_seconds() - before) / count,
    }


@contextmanager
def timed(into: dict[str, float], name: str, count: int) -> Iterator[None]:
    began = time.process_time()
    yield
    into[name] = 1e3 * (time.process_time() - began) / count


def transforms_alone(folder: Path) -> dict[str, float]:
    """CPU milliseconds per image of torchvision's transforms (v2) on Pillow images, one by one."""
    from torchvision.transforms import v2  # type: ignore[import-not-found]

    torch.set_num_threads(1)
    paths = sorted(folder.rglob("*.jpg"))[:64]
    images = [Image.open(path).convert("RGB").resize((256, 256)) for path in paths]
    chains = {
        "RandomCrop": v2.RandomCrop(224), "RandomResizedCrop": v2.RandomResizedCrop(224),
        "RandomHorizontalFlip": v2.RandomHorizontalFlip(), "RandomRotation": v2.RandomRotation(15),
        "ColorJitter": v2.ColorJitter(0.4, 0.4, 0.4), "GaussianBlur": v2.GaussianBlur(5),
        "TrivialAugmentWide": v2.TrivialAugmentWide(), "RandAugment": v2.RandAugment(),
        "ToTensor, Normalize": v2.Compose(
            [v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
        ),
    }  # fmt: skip
    found: dict[str, float] = {}
    for name, chain in chains.items():
        for _ in range(2):  # the first is to warm up
            with timed(found, name, 3 * len(images)):
                for image in images * 3:
                    chain(image)
    return found


def main() -> None:
    what, kind, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    if what == "transforms":
        print(json.dumps(transforms_alone(folder)))
        return
    found = lenet(kind, folder) if what == "lenet" else batches(kind, folder)
    print(json.dumps({**found, "seconds": time.perf_counter() - STARTED}))


if __name__ == "__main__":
    main()
