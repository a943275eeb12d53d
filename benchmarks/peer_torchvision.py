"""torchvision's usual training loop on a folder of images, and its bare loop in turns, for bench_engine.py.

    PYTHON peer_torchvision.py FOLDER BATCH IMGSZ ROUNDS

As pytorch/vision's references/classification have it: ImageFolder, RandomResizedCrop and flip on Pillow
images, a DataLoader whose processes are kept, AdamW. The first epoch is not counted.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

import torch
import torch.nn.functional as F
import torchvision  # type: ignore[import-not-found]
from torchvision import transforms


def main() -> None:
    folder, (batch, size, rounds) = sys.argv[1], map(int, sys.argv[2:])
    torch.set_num_threads(2)
    change = transforms.Compose([
        transforms.RandomResizedCrop(size), transforms.RandomHorizontalFlip(), transforms.PILToTensor(),
        transforms.ConvertImageDtype(torch.float32),
        transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ])  # fmt: skip
    images = torchvision.datasets.ImageFolder(f"{folder}/train", change)
    loader = torch.utils.data.DataLoader(
        images, batch, shuffle=True, num_workers=2, persistent_workers=True, drop_last=True
    )
    networks = [torchvision.models.resnet18(num_classes=2).train() for _ in range(2)]
    optimizers = [torch.optim.AdamW(network.parameters(), lr=1e-3) for network in networks]
    same = [(torch.randn(batch, 3, size, size), torch.randint(0, 2, (batch,)))] * (len(images) // batch)
    seconds: dict[str, list[tuple[float, float]]] = {"loop": [], "bare": []}
    for _ in range(1 + rounds):
        kinds: tuple[Any, ...] = (loader, same)
        for name, batches, network, optimizer in zip(seconds, kinds, networks, optimizers, strict=True):
            wall, processor = time.perf_counter(), time.process_time()
            for pixels, truth in batches:
                loss = F.cross_entropy(network(pixels), truth)
                optimizer.zero_grad()
                torch.autograd.backward(loss)
                optimizer.step()
            seconds[name].append((time.perf_counter() - wall, time.process_time() - processor))
    counted = {name: taken[1:] for name, taken in seconds.items()}
    versions = {"torch": torch.__version__, "torchvision": torchvision.__version__}
    print(json.dumps({**counted, "versions": versions}))
    os._exit(0)  # without waiting for the loader's processes


if __name__ == "__main__":
    main()
