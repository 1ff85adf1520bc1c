"""Buffers that stay where they are: a lane for every batch size, on the device and, pinned, on the host.

Addresses that never change are what IO binding and CUDA graphs need, and what spares a GPU waiting for an allocation. All lanes
are views of one allocation, as large as the largest batch so far.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from rankone.model.bundle import Manifest
from rankone.model.engine.base import Images, Outputs

_MOST_COPIERS: Final = 4
"""Threads that copy pixels: memory is no faster for more, and those that wait for each other take cores from decoders."""

Step = Callable[[], object]


@dataclass(frozen=True)
class Lane:
    """Images (n, 3, size, size), embeddings (n, dim) and, where there are classes, logits (n, classes), all float32."""

    images: Tensor
    embedding: Tensor
    logits: Tensor | None

    @property
    def outputs(self) -> tuple[Tensor, ...]:
        """Those that the network writes."""
        return (self.embedding,) if self.logits is None else (self.embedding, self.logits)

    def first(self, num: int) -> Lane:
        """The lane of a smaller batch, in the same memory."""
        return Lane(self.images[:num], self.embedding[:num], None if self.logits is None else self.logits[:num])


class Lanes:
    """Carries batches to a device and back, through one stream.

    Args:
        manifest: of the bundle, for its shapes.
        device: where the network runs; on the CPU there is no stream and nothing is pinned.
        stream: of the device, on which all of it happens, in order.
        threads: of the CPU that may be taken. What torch does in this thread takes no more than copies need from now on.
        prepare: makes, once for every batch size, what runs the network from a lane's images to its outputs.
    """

    def __init__(
        self,
        manifest: Manifest,
        device: torch.device,
        stream: torch.cuda.Stream | None,
        threads: int,
        prepare: Callable[[Lane], Step],
    ) -> None:
        torch.set_num_threads(min(threads, _MOST_COPIERS))
        self._manifest, self._device, self._stream, self._prepare = manifest, device, stream, prepare
        self._host = self._remote = self._allocate(0, device)
        self._lanes: dict[int, tuple[Lane, Lane, Step]] = {}

    def run(self, images: Images) -> Outputs:
        """The outputs of a batch of any size, copied out of the buffers."""
        with torch.inference_mode(), self._on_stream():
            host, remote, step = self._lane(len(images))
            host.images.copy_(torch.from_numpy(images))  # by several threads, unlike NumPy's
            remote.images.copy_(host.images, non_blocking=True)
            step()
            for here, there in zip(host.outputs, remote.outputs, strict=True):
                here.copy_(there, non_blocking=True)
        if self._stream is not None:
            self._stream.synchronize()
        return Outputs(host.embedding.numpy().copy(), None if host.logits is None else host.logits.numpy().copy())

    def close(self) -> None:
        """Lets go of every buffer, and of `prepare` and all that it made, for good."""
        self._lanes.clear()
        del self._prepare
        self._host = self._remote = self._allocate(0, torch.device("cpu"))

    def _lane(self, num: int) -> tuple[Lane, Lane, Step]:
        if num > len(self._remote.images):
            self._lanes.clear()  # before the buffers: recordings and bindings hold their addresses
            self._host = self._remote = self._allocate(0, self._device)
            self._remote = self._allocate(num, self._device)
            self._host = self._allocate(num, torch.device("cpu"), pinned=self._device.type == "cuda")
        if num not in self._lanes:
            remote = self._remote.first(num)
            self._lanes[num] = self._host.first(num), remote, self._prepare(remote)
        return self._lanes[num]

    def _allocate(self, num: int, device: torch.device, *, pinned: bool = False) -> Lane:
        size, classes = self._manifest.preprocessing.size, self._manifest.classes

        def empty(*shape: int) -> Tensor:
            return torch.zeros(num, *shape, device=device, pin_memory=pinned)

        return Lane(empty(3, size, size), empty(self._manifest.dim), empty(len(classes)) if classes else None)

    def _on_stream(self) -> AbstractContextManager[object]:
        return nullcontext() if self._stream is None else torch.cuda.stream(self._stream)
