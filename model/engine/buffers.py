"""Buffers on the device, and pinned ones on the host, whose addresses do not change from batch to batch.

IO binding and CUDA graphs need fixed addresses, and no run waits for an allocation. The buffers of all batch sizes are views of
one allocation, as large as the largest batch so far.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from rankone.model.bundle import Manifest
from rankone.model.engine.base import Batch, Outputs
from rankone.model.evidence import FEATURES

_MAX_COPY_THREADS: Final = 4
"""Memory is no faster with more, and threads that wait for each other take cores from decoders."""

Step = Callable[[], object]


@dataclass(frozen=True)
class Buffers:
    """Images (n, 3, size, size), and what the network writes, by name in the order of `Manifest.shapes`, all float32."""

    images: Tensor
    outputs: dict[str, Tensor]

    def first(self, num: int) -> Buffers:
        """The buffers of a smaller batch, in the same memory."""
        return Buffers(self.images[:num], {name: buffer[:num] for name, buffer in self.outputs.items()})


class BufferedRunner:
    """Copies batches to a device, runs the network there, and copies its outputs back, all on one stream.

    Args:
        manifest: of the bundle, for its shapes.
        device: where the network runs; on the CPU there is no stream, and no memory is pinned.
        stream: of the device.
        threads: of the CPU that may be used. From now on, torch uses no more of them in this process than copying needs.
        prepare: called once for each batch size; returns what runs the network from the buffers' images to their outputs.
    """

    def __init__(
        self,
        manifest: Manifest,
        device: torch.device,
        stream: torch.cuda.Stream | None,
        threads: int,
        prepare: Callable[[Buffers], Step],
    ) -> None:
        torch.set_num_threads(min(threads, _MAX_COPY_THREADS))
        self._manifest, self._device, self._stream, self._prepare = manifest, device, stream, prepare
        self._host = self._remote = self._allocate(0, device)
        self._prepared: dict[int, tuple[Buffers, Buffers, Step]] = {}

    def run(self, images: Batch, *, features: bool = False) -> Outputs:
        """The outputs of a batch of any size, copied out of the buffers."""
        with torch.inference_mode(), self._on_stream():
            host, remote, step = self._buffers(len(images))
            for buffer, image in zip(host.images, images, strict=True):
                buffer.copy_(torch.from_numpy(image))  # with several threads, unlike NumPy's
            remote.images.copy_(host.images, non_blocking=True)
            step()
            names = [name for name in remote.outputs if features or name != FEATURES]
            for name in names:
                host.outputs[name].copy_(remote.outputs[name], non_blocking=True)
        if self._stream is not None:
            self._stream.synchronize()
        return Outputs(**{name: host.outputs[name].numpy().copy() for name in names})

    def close(self) -> None:
        """Frees every buffer and what `prepare` returned; nothing can be run any more."""
        self._prepared.clear()
        del self._prepare
        self._host = self._remote = self._allocate(0, torch.device("cpu"))

    def _buffers(self, num: int) -> tuple[Buffers, Buffers, Step]:
        if num > len(self._remote.images):
            self._prepared.clear()  # before the buffers: recordings and bindings hold their addresses
            self._host = self._remote = self._allocate(0, self._device)
            self._remote = self._allocate(num, self._device)
            self._host = self._allocate(num, torch.device("cpu"), pinned=self._device.type == "cuda")
        if num not in self._prepared:
            remote = self._remote.first(num)
            self._prepared[num] = self._host.first(num), remote, self._prepare(remote)
        return self._prepared[num]

    def _allocate(self, num: int, device: torch.device, *, pinned: bool = False) -> Buffers:
        size = self._manifest.preprocessing.size

        def empty(*shape: int) -> Tensor:
            return torch.zeros(num, *shape, device=device, pin_memory=pinned)

        return Buffers(empty(3, size, size), {name: empty(*shape) for name, shape in self._manifest.shapes.items()})

    def _on_stream(self) -> AbstractContextManager[object]:
        return nullcontext() if self._stream is None else torch.cuda.stream(self._stream)
