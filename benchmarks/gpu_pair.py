"""One of the two processes of gpu.py's `two_processes`: torchrun starts it twice.

Each takes half of a batch; the averaged gradient must be that of the whole batch (nccl; gloo on a CPU).
"""

from __future__ import annotations

import json
import sys

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch.nn.parallel import DistributedDataParallel

from striate import models


def main(device_type: str) -> None:
    dist.init_process_group("nccl" if device_type == "cuda" else "gloo")
    rank = dist.get_rank()
    device = torch.device("cuda", rank) if device_type == "cuda" else torch.device("cpu")
    torch.manual_seed(0)
    network = models.build("lenet", num_classes=10).double().to(device)
    images = torch.randn(16, 3, 32, 32, dtype=torch.double).to(device)
    labels = torch.arange(16, device=device) % 10
    torch.autograd.backward(F.cross_entropy(network(images), labels))
    whole = [p.grad.clone() for p in network.parameters() if p.grad is not None]
    network.zero_grad()
    pair = DistributedDataParallel(network, device_ids=[rank] if device_type == "cuda" else None)
    half = slice(8 * rank, 8 * rank + 8)
    torch.autograd.backward(F.cross_entropy(pair(images[half]), labels[half]))
    gaps = [
        float((p.grad - w).abs().max() / w.abs().max())
        for p, w in zip(network.parameters(), whole, strict=True)
        if p.grad is not None
    ]
    if rank == 0:
        print(json.dumps({"backend": dist.get_backend(), "relative_error": max(gaps)}), flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1])
