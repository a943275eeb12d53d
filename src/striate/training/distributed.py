"""Several processes that train one network, as `torchrun` starts them; one process is a group of itself.

Each process takes its share of every batch, and torch's DistributedDataParallel sums their gradients. What a
run decides by a clock, a signal or a loss is decided together, so that all of them stand at the same step.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from striate.data.images.base import Indices
from striate.data.images.loader import Batch
from striate.device import choose, cpu_count
from striate.errors import DataError, UsageError
from striate.training.config import TrainConfig
from striate.training.saved import Saved
from striate.training.schedule import Pace, slices
from striate.training.state import TrainState
from striate.training.sync_norm import synchronized

Store = Any  # torch.distributed.Store, which has no types

_asked = Counter[str]()  # how often this process has trained with a configuration


class World:
    """The processes that train together: here, this one alone, so that every answer is its own.

    Attributes:
        rank: number of this process, from 0.
        size: how many there are.
    """

    rank, size = 0, 1

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.rank == 0

    def place(self, device: str) -> torch.device:
        """The device of this process; raises UsageError if it is not there."""
        return choose(device)

    def workers(self, asked: int | None) -> int:
        """Threads that decode for this process."""
        return asked or cpu_count()

    def prepared(self, network: nn.Module, sync_norm: bool) -> nn.Module:
        """The network as these processes train it; its parameters are the same objects."""
        return network

    def joint(self, network: nn.Module) -> nn.Module:
        """What computes as the network does, and whose gradients are those of all processes."""
        return network

    def holding_back(self, more: bool) -> contextlib.AbstractContextManager[None]:
        """Around one part of a batch: gradients are summed over the processes once no more parts follow."""
        return contextlib.nullcontext()

    def share(self, which: Indices) -> Indices:
        """The images of a batch that are this process's."""
        return which

    def usable(self, batch: Batch) -> Batch:
        """A share as it can be learnt from."""
        return batch

    def counts(self, *numbers: int) -> list[list[int]]:
        """Of each number what every process says, in their order."""
        return [[number] for number in numbers]

    def parts(self, counts: Sequence[int], parts: int) -> list[slice]:
        """Cut this process's share, all shares being of `counts` images."""
        return slices(counts[self.rank], parts)

    def untried(self, counts: Sequence[int]) -> bool:
        """Whether it must be tried first if the memory suffices: together no process can go back."""
        return False

    def rehearsing(self) -> contextlib.AbstractContextManager[None]:
        """Around such a try, in which each process is by itself."""
        return contextlib.nullcontext()

    def all(self, yes: bool) -> bool:
        """Whether every process says so."""
        return yes

    def largest(self, number: int) -> int:
        """The largest of what the processes say."""
        return number

    def add_up(self, values: torch.Tensor) -> None:
        """Replace a tensor by its sum over the processes."""

    def gather(self, value: Any) -> list[Any]:
        """What each process says, in their order; plain JSON values."""
        return [value]

    def first(self, value: Any) -> Any:
        """What the first process says; a plain JSON value."""
        return value

    def hand_out(self, kept: Saved | None) -> Saved:
        """A saved state that the first process has read."""
        assert kept is not None
        return kept

    def same_buffers(self, network: nn.Module) -> None:
        """Let the buffers of a network be those of the first process."""

    def paced(self, pace: Pace) -> Pace:
        """The same pace for all."""
        return pace

    def require_same(self, digest: str, what: str) -> None:
        """Refuse to go on where the processes do not see the same; raises DataError."""
        if len(set(self.gather(digest))) > 1:
            raise DataError(
                f"{what} is not the same for all processes",
                "its files or classes differ from machine to machine",
                "Copy it to each of them once more, or let them share a folder",
            )

    def lead(self, work: Callable[[], object]) -> None:
        """What only the process that leads has to do; where it fails, all fail."""
        if self.leads:
            work()

    def recall(self, config: TrainConfig) -> Path | None:
        """The folder of this very run, where the processes were started again; asked by the first."""
        return None

    def note(self, folder: Path) -> None:
        """Let a restart find the folder of the run that was asked for."""


ALONE = World()


class Group(World):
    """Processes that speak to each other: over gloo, and tensors on GPUs over NCCL.

    Args:
        store: of torchrun's agent, which outlives a restart.
        start: a name for this start of the processes.
    """

    def __init__(self, store: Store, start: str) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self._local = int(os.environ.get("LOCAL_RANK", "0"))
        self._beside = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # processes on this machine
        self._store, self._start, self._run = store, start, ""
        self._joint: DistributedDataParallel | None = None
        self._by_itself = False
        self._least, self._synchronized, self._tried = 1, False, 0

    def place(self, device: str) -> torch.device:
        """The CPU, or the GPU whose number is that of this process on its machine."""
        place = choose(device)
        if place.type != "cuda":
            return place
        if place.index is not None and self._beside > 1:
            raise UsageError(
                f"--device {device} for {self._beside} processes",
                "each takes a GPU of its own",
                "Leave it out",
            )
        place = choose(f"cuda:{self._local}")
        torch.cuda.set_device(place)
        return place

    def workers(self, asked: int | None) -> int:
        """As asked, else this process's share of the processors."""
        return asked or max(1, cpu_count() // self._beside)

    def prepared(self, network: nn.Module, sync_norm: bool) -> nn.Module:
        """With BatchNorm over all processes, if asked for."""
        norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d) and _trains(m)]
        self._synchronized = sync_norm and bool(norms)
        self._least = 2 if norms and not sync_norm else 1
        return synchronized(network) if self._synchronized else network

    def joint(self, network: nn.Module) -> nn.Module:
        """Wrapped by torch's DistributedDataParallel, when it is first asked for."""
        if self._by_itself:
            return network
        if self._joint is None:
            self._joint = DistributedDataParallel(network, gradient_as_bucket_view=True)
        return self._joint

    def holding_back(self, more: bool) -> contextlib.AbstractContextManager[None]:
        """Of a batch in parts, the last part's backward pass sums the gradients of all."""
        if self._joint is None or not more:
            return contextlib.nullcontext()
        return self._joint.no_sync()

    def share(self, which: Indices) -> Indices:
        """A run of images; two at least, as BatchNorm wants, so that of a small batch some have none."""
        shares = slices(len(which), self.size)
        return which[shares[self.rank]] if self.rank < len(shares) else which[:0]

    def usable(self, batch: Batch) -> Batch:
        """Without a single image left of several, where each process has its own batch statistics."""
        if len(batch) >= min(self._least, batch.requested):
            return batch
        return Batch(batch.pixels[:0], batch.labels[:0], batch.samples[:0], batch.requested)

    def counts(self, *numbers: int) -> list[list[int]]:
        """Of each number what every process says, in their order."""
        said = torch.zeros(len(numbers), self.size, dtype=torch.int64)
        said[:, self.rank] = torch.tensor(numbers)
        dist.all_reduce(said)
        return said.tolist()

    def parts(self, counts: Sequence[int], parts: int) -> list[slice]:
        """Cut this process's share; as often as the others, where their norms wait for each other."""
        if not self._synchronized:
            return slices(counts[self.rank], parts)
        parts = len(slices(max(counts), parts))
        cuts = [counts[self.rank] * i // parts for i in range(parts + 1)]
        return [slice(start, stop) for start, stop in itertools.pairwise(cuts)]

    def untried(self, counts: Sequence[int]) -> bool:
        """Whether one of the shares is larger than any before."""
        grown = max(counts) > self._tried
        self._tried = max(self._tried, *counts)
        return grown

    @contextlib.contextmanager
    def rehearsing(self) -> Iterator[None]:
        """`joint` gives the network itself meanwhile."""
        self._by_itself = True
        try:
            yield
        finally:
            self._by_itself = False

    def all(self, yes: bool) -> bool:
        """Whether every process says so."""
        return min(self.counts(int(yes))[0]) == 1

    def largest(self, number: int) -> int:
        """The largest of what the processes say."""
        return max(self.counts(number)[0])

    def add_up(self, values: torch.Tensor) -> None:
        """Replace a tensor by its sum over the processes."""
        dist.all_reduce(values)

    def gather(self, value: Any) -> list[Any]:
        """What each process says, in their order, as JSON."""
        return [self._told(value, by) for by in range(self.size)]

    def first(self, value: Any) -> Any:
        """What the first process says, as JSON."""
        return self._told(value, 0)

    def hand_out(self, kept: Saved | None) -> Saved:
        """The first process's state, in all of them."""
        table = None
        if kept is not None:
            table = {
                name: [str(t.dtype).removeprefix("torch."), *t.shape] for name, t in kept.tensors.items()
            }
        says = self.first(None if kept is None else [str(kept.path), kept.values, kept.facts, table])
        path, values, facts, table = says
        tensors = {}
        for name, (dtype, *shape) in table.items():
            tensors[name] = (
                torch.empty(shape, dtype=getattr(torch, dtype)) if kept is None else kept.tensors[name]
            )
            dist.broadcast(tensors[name], 0)
        return Saved(Path(path), values, facts, tensors)

    def same_buffers(self, network: nn.Module) -> None:
        """As DistributedDataParallel has it before each step."""
        for buffer in network.buffers():
            dist.broadcast(buffer, 0)

    def paced(self, pace: Pace) -> Pace:
        """The first process's pace: clocks differ."""
        return _Led(self, pace)

    def recall(self, config: TrainConfig) -> Path | None:
        """What `note` wrote down before a restart, for the same configuration asked for as often."""
        digest = hashlib.sha256(json.dumps(config.to_json()).encode()).hexdigest()
        _asked[digest] += 1
        self._run = f"striate/run/{digest}/{_asked[digest]}"
        return Path(self._store.get(self._run).decode()) if self._store.check([self._run]) else None

    def note(self, folder: Path) -> None:
        """Write it down where a restart does not forget it."""
        self._store.set(self._run, str(folder.absolute()))

    def leave(self) -> None:
        """Let go of what must not outlive the connections: it would wait for them forever."""
        self._joint = None

    def complain(self, message: str) -> None:
        """Let the others know why this process ends."""
        with contextlib.suppress(RuntimeError):
            name = f"process {self.rank} on {socket.gethostname()}"
            self._store.set(f"{self._start}/complaint", f"{name}: {message}")

    def complaint(self) -> str:
        """What another process ended with; empty where it had no time to say."""
        with contextlib.suppress(RuntimeError):
            for _ in range(20):
                if self._store.check([f"{self._start}/complaint"]):
                    return str(self._store.get(f"{self._start}/complaint").decode())
                time.sleep(0.05)
        return ""

    def _told(self, value: Any, by: int) -> Any:
        text = bytearray(json.dumps(value).encode()) if self.rank == by else bytearray()
        length = torch.tensor([len(text)])
        dist.broadcast(length, by)
        if self.rank != by:
            text = bytearray(int(length))
        dist.broadcast(torch.frombuffer(text, dtype=torch.uint8), by)
        return json.loads(text)


class _Led:
    """A pace that the first process decides and the others follow."""

    def __init__(self, world: World, pace: Pace) -> None:
        self._world, self._pace = world, pace
        self.epochs = pace.epochs

    def rate(self, state: TrainState) -> float:
        """The learning rate of the next step."""
        return float(self._decided(lambda: self._pace.rate(state)))

    def ended(self, state: TrainState) -> bool:
        """Whether there is no next step."""
        return bool(self._decided(lambda: self._pace.ended(state)))

    def measures(self, state: TrainState) -> bool:
        """Whether the validation images measure the epoch that has just ended."""
        return bool(self._decided(lambda: self._pace.measures(state)))

    def left(self, state: TrainState) -> float:
        """Seconds until training ends, as this process sees it."""
        return self._pace.left(state)

    def _decided(self, decide: Callable[[], Any]) -> Any:
        return self._world.first(decide() if self._world.leads else None)


def _trains(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters())
