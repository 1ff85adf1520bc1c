"""The processes of one training, one a GPU, as `torchrun` starts them (or a single one), and how they are stopped."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from types import FrameType
from typing import Final, TypeVar

import torch
from torch import Tensor, distributed, nn

Item = TypeVar("Item")

_PATIENCE: Final = timedelta(hours=12)
"""Processes wait for one another while one of them trains the classifier of phase 1."""


@dataclass(frozen=True)
class World:
    """This process among all: `rank` of `size`, on its own `device`."""

    device: torch.device
    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """One process writes files and speaks."""
        return self.rank == 0

    @property
    def words(self) -> str:
        """What this is, for the person who waits."""
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "the CPU"
        return name if self.size == 1 else f"{self.size} processes, the first on {name}"

    def share(self, items: Sequence[Item]) -> list[Item]:
        """Those that are this process's to do."""
        return list(items[self.rank :: self.size])

    def sum(self, *numbers: float) -> list[float]:
        """Every number, added up over the processes."""
        if self.size == 1:
            return list(numbers)
        total = torch.tensor(numbers, dtype=torch.float64, device=self.device)
        distributed.all_reduce(total)
        return [float(number) for number in total]

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Adds the gradients up over the processes. After the backward, not beside it: a plain loop, and one way for all."""
        if self.size == 1:
            return
        gradients = []
        for parameter in parameters:
            if parameter.grad is None:  # there were fewer images than processes, and none for this one
                parameter.grad = torch.zeros_like(parameter)
            gradients.append(parameter.grad)
        for work in [distributed.all_reduce(gradient, async_op=True) for gradient in gradients]:
            work.wait()

    def wait(self) -> None:
        """Until every process is here."""
        if self.size > 1:
            distributed.barrier()

    def agree(self, tensors: Iterable[Tensor]) -> None:
        """Gives every process the tensors of the first one."""
        if self.size > 1:
            for tensor in tensors:
                distributed.broadcast(tensor, 0)


def leading() -> bool:
    """Whether this process is the one that writes and speaks, also before and after the others have joined."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def joined(device: str) -> Iterator[World]:
    """The world that `torchrun` describes in the environment (NCCL on GPUs, gloo on CPUs), or this process alone."""
    size, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    if size == 1:
        yield World(torch.device(device))
        return
    own = torch.device(device, int(os.environ["LOCAL_RANK"])) if device == "cuda" else torch.device(device)
    if device == "cuda":
        torch.cuda.set_device(own)
    distributed.init_process_group("nccl" if device == "cuda" else "gloo", timeout=_PATIENCE)
    try:
        yield World(own, rank, size)
    finally:
        distributed.destroy_process_group()


class StopRequest:
    """True once SIGINT or SIGTERM has come."""

    def __init__(self) -> None:
        self.requested = False

    def __bool__(self) -> bool:
        return self.requested


@contextmanager
def stop_on_signal() -> Iterator[StopRequest]:
    """Within, the first SIGINT or SIGTERM only sets the request; the second one acts as ever. For the main thread."""
    request = StopRequest()
    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def hear(_number: int, _frame: FrameType | None) -> None:
        request.requested = True
        restore()

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    for number in previous:
        signal.signal(number, hear)
    try:
        yield request
    finally:
        restore()
