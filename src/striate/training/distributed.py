"""Distributed training with `torchrun`; a single process is a group of one.

Each process takes its shard of every step, and DistributedDataParallel averages the gradients. Decisions that
depend on a clock, a signal or a loss are made together, so that all processes are always at the same step.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import itertools
import json
import os
import socket
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from striate.device import allow_forks, choose, cpu_count, fork_rng, standard_settings
from striate.errors import DataError, StriateError, TrainingError, UsageError
from striate.training.batchnorm import convert_sync_batchnorm
from striate.training.config import RunConfig
from striate.training.launcher import Launch, read_environment
from striate.training.schedule import Indices, split_evenly

Store = Any  # torch.distributed.Store, which is not typed

TIMEOUT_VARIABLE = "STRIATE_PEER_TIMEOUT"
_TIMEOUT = 300.0  # seconds that one process waits for another

_starts = Counter[str]()  # how often this process has trained with a configuration


class Distributed:
    """The processes that train together, over gloo, and over NCCL for tensors on GPUs; or one process alone.

    Args:
        launch: the place of this process; None for one process alone.
        store: of torchrun's agent, which outlives a restart.
        start: a name for this start of the processes.

    Attributes:
        synchronized: whether BatchNorm layers communicate in each forward pass.
    """

    def __init__(self, launch: Launch | None = None, store: Store = None, start: str = "") -> None:
        self.rank, self.size = (launch.rank, launch.size) if launch else (0, 1)
        self._local_rank = launch.local_rank if launch and self.size > 1 else 0
        self._local_size = launch.local_size if launch and self.size > 1 else 1
        self._store, self._start, self._run_key = store, start, ""
        self._wrapped: DistributedDataParallel | None = None
        self._alone = self.size == 1
        self._smallest_shard, self.synchronized, self._rehearsed = 1, False, 0

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and reports progress."""
        return self.rank == 0

    @contextlib.contextmanager
    def caller_unaffected(self, device: str) -> Iterator[None]:
        """A context in which caller and training do not change each other's settings or random numbers."""
        allow_forks()
        with fork_rng(self.device(device)), standard_settings():
            yield

    def device(self, name: str) -> torch.device:
        """The device of this process: of several, each takes the GPU of its local rank.

        Raises:
            UsageError: it is not available, or several processes are to share one GPU.
        """
        device = choose(name)
        if self.size == 1 or device.type != "cuda":
            return device
        if device.index is not None and self._local_size > 1:
            raise UsageError(
                f"--device {name} for {self._local_size} processes",
                "each needs a different GPU",
                "Leave it out",
            )
        device = choose(f"cuda:{self._local_rank}")
        torch.cuda.set_device(device)
        return device

    def workers(self, requested: int | None) -> int:
        """Threads that decode for this process: as requested, else its share of the CPU cores."""
        return requested or max(1, cpu_count() // self._local_size)

    # The network

    def sync_batchnorm(self, network: nn.Module, wanted: bool) -> nn.Module:
        """The network, with BatchNorm statistics over all processes if wanted."""
        if self.size == 1:
            return network
        norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d) and _trains(m)]
        self.synchronized = wanted and bool(norms)
        self._smallest_shard = 2 if norms and not wanted else 1
        return convert_sync_batchnorm(network) if self.synchronized else network

    def wrap(self, module: nn.Module) -> nn.Module:
        """The module in DistributedDataParallel, which averages its gradients over the processes."""
        if self._alone:
            return module
        if self._wrapped is None:
            self._wrapped = DistributedDataParallel(module, gradient_as_bucket_view=True)
        return self._wrapped

    def unwrap(self) -> None:
        """Wrap the module anew for the next step, after other parameters have become trainable."""
        self._wrapped = None
        gc.collect()  # the old wrapper must not reduce gradients any more

    def no_sync(self, more: bool) -> contextlib.AbstractContextManager[None]:
        """Around a micro-batch: gradients are averaged after the last one only."""
        return self._wrapped.no_sync() if self._wrapped is not None and more else contextlib.nullcontext()

    def broadcast_buffers(self, network: nn.Module) -> None:
        """Give a network the buffers of the main process."""
        for buffer in network.buffers() if self.size > 1 else ():
            dist.broadcast(buffer, 0)

    # The samples of a step

    def shard(self, samples: Indices) -> Indices:
        """A contiguous shard. It has two samples at least, for BatchNorm, or none in a small step."""
        if self.size == 1:
            return samples
        shards = split_evenly(len(samples), self.size)
        return samples[shards[self.rank]] if self.rank < len(shards) else samples[:0]

    def usable(self, batch: Any) -> Any:
        """The batch; for BatchNorm an empty one, if only one image of several is readable."""
        return batch if len(batch) >= min(self._smallest_shard, batch.requested) else batch.part(slice(0, 0))

    def split(self, counts: Sequence[int], parts: int) -> list[slice]:
        """Split this process's shard into micro-batches; `counts` are the sizes of all shards.

        With synchronized BatchNorm, every process has the same number of them.
        """
        if not self.synchronized:
            return split_evenly(counts[self.rank], parts)
        parts = len(split_evenly(max(counts), parts))
        cuts = [counts[self.rank] * i // parts for i in range(parts + 1)]
        return [slice(start, stop) for start, stop in itertools.pairwise(cuts)]

    def must_rehearse(self, counts: Sequence[int]) -> bool:
        """Whether to find out first if memory suffices, since a joint step cannot be undone."""
        larger = self.size > 1 and max(counts) > self._rehearsed
        self._rehearsed = max(self._rehearsed, *counts)
        return larger

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Around a rehearsal, in which processes do not communicate: `wrap` returns the module itself."""
        before, self._alone = self._alone, True
        try:
            yield
        finally:
            self._alone = before

    # Communication

    def all_gather(self, *numbers: int) -> list[list[int]]:
        """For each number, the values of all processes."""
        if self.size == 1:
            return [[number] for number in numbers]
        table = torch.zeros(len(numbers), self.size, dtype=torch.int64)
        table[:, self.rank] = torch.tensor(numbers)
        dist.all_reduce(table)
        return table.tolist()

    def all_true(self, value: bool) -> bool:
        """Whether the value is true in every process."""
        return min(self.all_gather(int(value))[0]) == 1

    def maximum(self, number: int) -> int:
        """The largest value of all processes."""
        return max(self.all_gather(number)[0])

    def all_reduce(self, values: torch.Tensor) -> None:
        """Replace a tensor by its sum over the processes."""
        if self.size > 1:
            dist.all_reduce(values)

    def gathered(self, rows: torch.Tensor) -> torch.Tensor:
        """The rows of all processes, one process after the other."""
        if self.size == 1:
            return rows
        counts = self.all_gather(len(rows))[0]
        found = torch.zeros((sum(counts), *rows.shape[1:]), dtype=rows.dtype)
        start = sum(counts[: self.rank])
        found[start : start + len(rows)] = rows
        dist.all_reduce(found)
        return found

    def all_gather_object(self, value: Any) -> list[Any]:
        """The JSON values of all processes."""
        return [self.broadcast_object(value, source) for source in range(self.size)]

    def broadcast_object(self, value: Any, source: int = 0) -> Any:
        """The JSON value of the main process, or of another one."""
        if self.size == 1:
            return value
        text = bytearray(json.dumps(value).encode()) if self.rank == source else bytearray()
        length = torch.tensor([len(text)])
        dist.broadcast(length, source)
        if self.rank != source:
            text = bytearray(int(length))
        dist.broadcast(torch.frombuffer(text, dtype=torch.uint8), source)
        return json.loads(text)

    def broadcast_tensors(self, tensors: dict[str, torch.Tensor] | None) -> dict[str, torch.Tensor]:
        """The named tensors of the main process."""
        if self.size == 1:
            return tensors or {}
        shapes = {n: [str(t.dtype).removeprefix("torch."), *t.shape] for n, t in (tensors or {}).items()}
        received = {}
        for name, (dtype, *shape) in self.broadcast_object(shapes).items():
            received[name] = tensors[name] if tensors else torch.empty(shape, dtype=getattr(torch, dtype))
            dist.broadcast(received[name], 0)
        return received

    def require_same(self, value: str, what: str) -> None:
        """Refuse to train if the processes see different data; raises DataError."""
        digest = hashlib.sha256(value.encode("utf-8", "surrogateescape")).hexdigest()
        if len(set(self.all_gather_object(digest))) > 1:
            raise DataError(
                f"{what} is not the same in all processes",
                "its files or classes differ between machines",
                "Copy it to each of them again, or use a shared folder",
            )

    # Restarts and failures

    def find_run(self, config: RunConfig) -> Path | None:
        """What `remember_run` stored before torchrun restarted the processes, for the same call."""
        if self.size == 1:
            return None
        digest = hashlib.sha256(json.dumps(config.to_json()).encode()).hexdigest()
        _starts[digest] += 1
        self._run_key = f"striate/run/{digest}/{_starts[digest]}"
        return Path(self._store.get(self._run_key).decode()) if self._store.check([self._run_key]) else None

    def remember_run(self, folder: Path) -> None:
        """Let a restart find the folder of this run, in the store of torchrun's agent."""
        if self.size > 1:
            self._store.set(self._run_key, str(folder.absolute()))

    def close(self) -> None:
        """Release DistributedDataParallel, which would wait for closed connections forever."""
        self._wrapped = None

    def announce_failure(self, message: str) -> None:
        """Tell the other processes why this one ends."""
        with contextlib.suppress(RuntimeError):
            name = f"process {self.rank} on {socket.gethostname()}"
            self._store.set(f"{self._start}/failure", f"{name}: {message}")

    def announced_failure(self) -> str:
        """Why another process ended; empty if it had no time to say."""
        with contextlib.suppress(RuntimeError):
            for _ in range(20):
                if self._store.check([f"{self._start}/failure"]):
                    return str(self._store.get(f"{self._start}/failure").decode())
                time.sleep(0.05)
        return ""


SINGLE = Distributed()


@contextlib.contextmanager
def init_distributed(device: str) -> Iterator[Distributed]:
    """Join the processes that torchrun has started, if it has; leave them at the end.

    Any launcher that sets torch's variables (RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT) works.

    Args:
        device: the name of the device that this process trains on.

    Raises:
        TrainingError: another process has ended; the message has its reason.
        UsageError: as `Distributed.device`, or the launcher's variables are impossible.
    """
    if (launch := read_environment()) is None:
        yield SINGLE
        return
    if dist.is_initialized():
        raise UsageError(
            "torch.distributed is already initialized",
            "striate initializes it",
            "Leave out init_process_group",
        )
    group: Distributed | None = None
    try:
        group = _join(launch, device)
        yield group
    except StriateError as error:
        if group is not None:
            group.announce_failure(str(error))
        raise
    except RuntimeError as error:
        if not (isinstance(error, dist.DistError) or "gloo" in str(error).lower()):
            raise
        reason = group.announced_failure() if group is not None else ""
        raise TrainingError(
            "another process of this run has ended, or cannot be reached",
            reason.rstrip(".") or f"it gave no reason ({' '.join(str(error).split())[:120]})",
            "" if reason else "With torchrun --max-restarts 3 the run continues from the last checkpoint",
        ) from error
    finally:
        if group is not None:
            group.close()
        if dist.is_initialized():
            dist.destroy_process_group()


def _join(launch: Launch, device: str) -> Distributed:
    rank, size = launch.rank, launch.size
    timeout = timedelta(seconds=_timeout())
    store = dist.TCPStore(  # type: ignore[attr-defined]
        launch.address, launch.port, is_master=not launch.has_agent and rank == 0,
        timeout=timeout, wait_for_workers=False, multi_tenant=True,
    )  # fmt: skip
    start = _agree_on_start(store, rank, size, timeout)
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if choose(device).type == "cuda" else "gloo",
        store=dist.PrefixStore(start, store),  # type: ignore[attr-defined]
        rank=rank, world_size=size, timeout=timeout,
    )  # fmt: skip
    return Distributed(launch, store, start)


def _agree_on_start(store: Store, rank: int, size: int, timeout: timedelta) -> str:
    """A name for this start, shared by its processes and by none that have ended.

    The agent's store outlives a restart and still has the addresses of the old processes, to which gloo and
    NCCL would try to connect (pytorch/pytorch#135712). So the first process makes up a name and answers
    everyone who greets it by that name; a process that has read an old name gets no answer, and reads again.
    """
    own = f"striate/{uuid.uuid4().hex}"
    if rank == 0:
        store.set("striate/start", own)
        for other in range(1, size):
            caller = store.get(f"{own}/greeting/{other}").decode()  # waits for it
            store.set(f"{own}/answer/{caller}", "")
        return own
    start, deadline = "", time.monotonic() + timeout.total_seconds()
    while time.monotonic() < deadline:
        if (announced := str(store.get("striate/start").decode())) != start:
            start = announced
            store.set(f"{start}/greeting/{rank}", own)
        if store.check([f"{start}/answer/{own}"]):
            return start
        time.sleep(0.02)
    raise dist.DistStoreError(f"process 0 did not answer within {timeout.total_seconds():.0f} seconds")


def _timeout() -> float:
    value = os.environ.get(TIMEOUT_VARIABLE, "")
    try:
        seconds = float(value or _TIMEOUT)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 1e6:
        raise UsageError(
            f"{TIMEOUT_VARIABLE}={value}", "it must be a number of seconds", "Use a value like 300"
        )
    return seconds


def _trains(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters())
