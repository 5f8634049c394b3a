"""Training on several processes, as started by ``torchrun``; plain calls on a single one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel


@contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Join the group that ``torchrun`` describes in the environment, if it does, and leave it."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def is_first() -> bool:
    return rank() == 0


def my_part(count: int) -> slice:
    """This process's share of ``count`` images; the shares are equal where that is possible."""
    return slice(count * rank() // world_size(), count * (rank() + 1) // world_size())


def total(values: list[float], device: torch.device) -> list[float]:
    """Sums over the processes."""
    if not dist.is_initialized():
        return values
    tensor = torch.tensor(values, dtype=torch.float64, device=device)
    dist.all_reduce(tensor)
    return [float(v) for v in tensor.tolist()]


def gathered(value: Any) -> list[Any]:
    """The value of each process, in the order of their ranks."""
    if not dist.is_initialized():
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def wrapped(net: nn.Module, device: torch.device) -> nn.Module:
    """``net`` with gradients averaged over the processes."""
    if not dist.is_initialized():
        return net
    return DistributedDataParallel(net, device_ids=[device] if device.type == "cuda" else None)
