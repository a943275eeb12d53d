"""Joining the processes that torchrun has started, at the first start and after each restart."""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from collections.abc import Iterator
from datetime import timedelta

import torch.distributed as dist

from striate.device import choose
from striate.errors import StriateError, TrainingError, UsageError
from striate.training.distributed import ALONE, Group, Store, World

PATIENCE_VARIABLE = "STRIATE_PEER_TIMEOUT"
_PATIENCE = 300.0  # seconds that one process waits for another
_STARTED_BY = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@contextlib.contextmanager
def joined(device: str) -> Iterator[World]:
    """The processes that torchrun has started, for as long as this is entered; alone where it has not.

    Anything else that sets torch's own variables (RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT) does as well.

    Args:
        device: that this process is going to train on.

    Raises:
        TrainingError: another process has ended, with what it said.
        UsageError: as `World.place`.
    """
    if not all(os.environ.get(name) for name in _STARTED_BY):
        yield ALONE
        return
    if dist.is_initialized():
        raise UsageError(
            "torch.distributed is initialized already",
            "striate joins the processes itself",
            "Leave out init_process_group",
        )
    group: Group | None = None
    try:
        group = _join(device)
        yield group
    except StriateError as error:
        if group is not None:
            group.complain(str(error))
        raise
    except RuntimeError as error:
        if not _is_loss_of_a_peer(error):
            raise
        said = group.complaint() if group is not None else ""
        raise TrainingError(
            "another process of this run has ended, or cannot be reached",
            said.rstrip(".") or f"it left no word ({' '.join(str(error).split())[:120]})",
            "" if said else "torchrun --max-restarts 3 would go on from the last saved state",
        ) from error
    finally:
        if group is not None:
            group.leave()
        if dist.is_initialized():
            dist.destroy_process_group()


def _join(device: str) -> Group:
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    patience = timedelta(seconds=_patience())
    agents = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    store = dist.TCPStore(  # type: ignore[attr-defined]
        os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=not agents and rank == 0,
        timeout=patience, wait_for_workers=False, multi_tenant=True,
    )  # fmt: skip
    start = _meet(store, rank, size, patience)
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if choose(device).type == "cuda" else "gloo",
        store=dist.PrefixStore(start, store),  # type: ignore[attr-defined]
        rank=rank, world_size=size, timeout=patience,
    )  # fmt: skip
    return Group(store, start)


def _meet(store: Store, rank: int, size: int, patience: timedelta) -> str:
    """A name for this start that its processes share with none that are gone.

    The agent's store outlives a restart, with the addresses of the processes before, to which gloo and NCCL
    would connect in vain (pytorch/pytorch#135712). So the first process makes up a name, and answers those
    that greet it by that name; whoever has read the name of an earlier start gets no answer, and reads again.
    """
    own = f"striate/{uuid.uuid4().hex}"
    if rank == 0:
        store.set("striate/start", own)
        for other in range(1, size):
            caller = store.get(f"{own}/greeting/{other}").decode()  # waits for it
            store.set(f"{own}/answer/{caller}", "")
        return own
    start, until = "", time.monotonic() + patience.total_seconds()
    while time.monotonic() < until:
        if (said := str(store.get("striate/start").decode())) != start:
            start = said
            store.set(f"{start}/greeting/{rank}", own)
        if store.check([f"{start}/answer/{own}"]):
            return start
        time.sleep(0.02)
    raise dist.DistStoreError(f"process 0 did not answer within {patience.total_seconds():.0f} seconds")


def _patience() -> float:
    given = os.environ.get(PATIENCE_VARIABLE, "")
    try:
        seconds = float(given or _PATIENCE)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 1e6:
        raise UsageError(f"{PATIENCE_VARIABLE}={given}", "it is no number of seconds", "Give such as 300")
    return seconds


def _is_loss_of_a_peer(error: RuntimeError) -> bool:
    return isinstance(error, dist.DistError) or "gloo" in str(error).lower()
