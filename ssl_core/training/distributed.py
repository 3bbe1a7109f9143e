"""One process or several under torchrun: the few words that the loops need to not care."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist

from ssl_core.errors import ConfigError

T = TypeVar("T", bound=np.generic)
V = TypeVar("V")

_meeting: list[Any] = []
"""Where the processes of torchrun met, for as long as they are together."""


def join_torchrun() -> None:
    """Join the process group when started by torchrun; do nothing otherwise."""
    if "LOCAL_RANK" not in os.environ or dist.is_initialized():
        return
    place = int(os.environ["LOCAL_RANK"])
    if place < torch.cuda.device_count():  # else `check_devices` refuses CUDA, not the CPU
        torch.cuda.set_device(place)
    # Both are public, but exported only where torch was built with them.
    store, number, size = next(dist.rendezvous("env://"))  # type: ignore[attr-defined]
    _meeting.append(store)
    own = dist.PrefixStore("readloop", store)  # type: ignore[attr-defined]
    dist.init_process_group(_backend(), store=own, rank=number, world_size=size)


def leave_torchrun() -> None:
    """End when all are ready to, the main process last; do nothing when alone.

    One that ended right after the last barrier would close a connection on which another may still
    wait for that barrier, and which then fails. The main process may hold the store.
    """
    if not dist.is_initialized():
        return
    store, others = _meeting.pop(), world_size() - 1
    _count(store, "ready", others + 1)
    if is_main():
        _count(store, "gone", others, mine=0)
    else:
        store.add("gone", 1)
    dist.destroy_process_group()


def _count(store: Any, name: str, wanted: int, mine: int = 1) -> None:
    store.add(name, mine)
    while store.add(name, 0) < wanted:
        time.sleep(0.01)


def _backend() -> str:
    """Tensors travel where they are; numbers and arrays as memory of the CPU."""
    if torch.cuda.is_available() and dist.is_nccl_available():
        return "cpu:gloo,cuda:nccl"
    return "gloo"


def check_devices(device: str) -> None:
    """Refuse to put two processes of this machine on one CUDA device, which NCCL cannot do.

    Raises:
        ConfigError: `device` names one CUDA device for several processes, or there are too few.
    """
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if here == 1 or not device.startswith("cuda"):
        return
    if ":" in device:
        raise ConfigError(
            f"compute.device = {device!r} would hold all {here} processes of torchrun: "
            "use 'cuda', which gives each a device of its own."
        )
    if (devices := torch.cuda.device_count()) < here:
        raise ConfigError(
            f"torchrun started {here} processes on a machine with {devices} CUDA devices: "
            f"start {devices}, or set compute.device = 'cpu'."
        )


def rank() -> int:
    """This process's number, 0 when alone."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """How many processes work together, 1 when alone."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main() -> bool:
    """Whether this process is the one that writes."""
    return rank() == 0


def barrier() -> None:
    """Wait until every process is here."""
    if dist.is_initialized():
        dist.barrier()


def agree(value: V) -> V:
    """The main process's value, everywhere: for decisions that must not differ by rounding."""
    if not dist.is_initialized():
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def all_true(here: torch.Tensor) -> bool:
    """Whether a boolean holds in every process: one that stops alone leaves the others waiting."""
    if not dist.is_initialized():
        return bool(here)
    least = here.to(torch.int32)
    dist.all_reduce(least, op=dist.ReduceOp.MIN)
    return bool(least)


def copy_from_main(tensors: Iterable[torch.Tensor]) -> None:
    """Overwrite tensors with the main process's, everywhere."""
    if dist.is_initialized():
        for tensor in tensors:
            dist.broadcast(tensor, src=0)


def join_processes(part: torch.Tensor) -> torch.Tensor:
    """The rows `(n, …)` of all processes, in order of rank, everywhere; n is the same in each."""
    if not dist.is_initialized():
        return part
    parts = [torch.empty_like(part) for _ in range(world_size())]
    dist.all_gather(parts, part.contiguous())
    return torch.cat(parts)


def share_of(rows: npt.NDArray[T]) -> npt.NDArray[T]:
    """This process's part of `rows`: every world-size-th one."""
    return rows[rank() :: world_size()]


def gather_shares(part: npt.NDArray[T], axis: int = 0) -> npt.NDArray[T]:
    """Put the processes' parts of `share_of` back into the order of the whole."""
    if world_size() == 1:
        return part
    parts: list[npt.NDArray[T] | None] = [None] * world_size()
    dist.all_gather_object(parts, part)
    arrays = [np.moveaxis(p, axis, 0) for p in parts if p is not None]
    whole = np.empty((sum(len(a) for a in arrays), *arrays[0].shape[1:]), dtype=part.dtype)
    for position, array in enumerate(arrays):
        whole[position :: world_size()] = array
    return np.moveaxis(whole, 0, axis)
