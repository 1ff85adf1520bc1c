"""The processes of one training, one a GPU, as `torchrun` starts them (or a single one), and how they are stopped."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from types import FrameType
from typing import Final, Literal, TypeVar

import torch
from torch import Tensor, distributed, nn

from rankone.model.engine.base import Device
from rankone.model.errors import Interrupted, RankoneError

DeviceChoice = Literal["auto", "cpu", "cuda"]

Item = TypeVar("Item")

_TIMEOUT: Final = timedelta(hours=12)
"""The other processes wait while the main one trains the classifier of phase 1."""


class DeviceError(RankoneError, ValueError):
    """A device that this machine does not have."""


@dataclass(frozen=True)
class Processes:
    """This process (`rank` of `size`, on its own `device`) and how it works with the others."""

    device: torch.device
    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and prints."""
        return self.rank == 0

    @property
    def description(self) -> str:
        """Number and device, for the user."""
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "the CPU"
        return name if self.size == 1 else f"{self.size} processes, the first on {name}"

    def shard(self, items: Sequence[Item]) -> list[Item]:
        """This process's share of the items: every `size`-th."""
        return list(items[self.rank :: self.size])

    def sum(self, *numbers: float) -> list[float]:
        """Each number, summed over all processes."""
        if self.size == 1:
            return list(numbers)
        total = torch.tensor(numbers, dtype=torch.float64, device=self.device)
        distributed.all_reduce(total)
        return [float(number) for number in total]

    def from_main(self, *numbers: float) -> list[float]:
        """The numbers of the main process, in every one."""
        return self.sum(*(number if self.is_main else 0.0 for number in numbers))

    def gather(self, items: list[Item]) -> list[Item]:
        """The items of all processes, in every process."""
        if self.size == 1:
            return items
        found: list[list[Item]] = [[] for _ in range(self.size)]
        distributed.all_gather_object(found, items)
        return [item for part in found for item in part]

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Sums the gradients over all processes, after the backward pass."""
        if self.size == 1:
            return
        gradients = []
        for parameter in parameters:
            if parameter.grad is None:  # fewer images than processes: this one had none
                parameter.grad = torch.zeros_like(parameter)
            gradients.append(parameter.grad)
        for work in [distributed.all_reduce(gradient, async_op=True) for gradient in gradients]:
            work.wait()

    def barrier(self) -> None:
        """Waits until every process is here."""
        if self.size > 1:
            distributed.barrier()

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        """Overwrites the tensors of every process with those of the main one."""
        if self.size > 1:
            for tensor in tensors:
                distributed.broadcast(tensor, 0)


class StopRequest:
    """True once SIGINT or SIGTERM was received."""

    def __init__(self) -> None:
        self.requested = False

    def __bool__(self) -> bool:
        return self.requested


_SINGLE: Final = Processes(torch.device("cpu"))


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What a training may use and how it is stopped; changes no result."""

    workers: int = 0
    """Processes that load images; 0 loads them in this one."""
    stop: StopRequest | None = None
    """Checked between two batches."""
    processes: Processes = _SINGLE

    def check_stop(self, words: str) -> None:
        """Raises Interrupted with these words if a stop was requested."""
        if self.stop:
            raise Interrupted(words)


def is_main_process() -> bool:
    """Whether this process writes and prints, also outside of `joined_processes`."""
    return os.environ.get("RANK", "0") == "0"


def choose_device(asked: DeviceChoice) -> tuple[Device, str]:
    """The device to use and, for the user, why: for `auto`, the GPU if torch finds one.

    Raises:
        DeviceError: this machine has no such device.
    """
    if asked != "auto":
        check_device(asked)
        return asked, f"--device {asked}"
    if torch.cuda.is_available():
        return "cuda", f"torch finds {torch.cuda.get_device_name()}; --device cpu does without it"
    return "cpu", "torch finds no GPU" if torch.version.cuda else "this build of torch is for CPUs alone"


def check_device(device: str) -> None:
    """Raises DeviceError if `device` is missing; no other one is used instead."""
    if device == "cuda" and not torch.cuda.is_available():
        raise DeviceError(
            "device 'cuda' was asked for, but torch finds no GPU (nvidia-smi tells more); use --device cpu"
        )


@contextmanager
def joined_processes(device: str) -> Iterator[Processes]:
    """The processes that `torchrun` describes in the environment (NCCL on GPUs, gloo on CPUs), or this one alone."""
    size, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    if size == 1:
        yield Processes(torch.device(device))
        return
    own = torch.device(device, int(os.environ["LOCAL_RANK"])) if device == "cuda" else torch.device(device)
    if device == "cuda":
        torch.cuda.set_device(own)
    distributed.init_process_group("nccl" if device == "cuda" else "gloo", timeout=_TIMEOUT)
    try:
        yield Processes(own, rank, size)
    finally:
        distributed.destroy_process_group()


@contextmanager
def stop_on_signal() -> Iterator[StopRequest]:
    """Within, the first SIGINT or SIGTERM only sets the request; the second one acts as usual. For the main thread."""
    request = StopRequest()
    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        request.requested = True
        restore()

    for number in previous:
        signal.signal(number, on_signal)
    try:
        yield request
    finally:
        restore()
