"""FLOPs and peak memory of a call.

FLOPs: torch's counter sees every matrix product, two FLOPs a multiply-add. Decompositions happen within LAPACK and are
counted by the formulas of Golub and Van Loan, Matrix Computations, for R-SVD and the symmetric QR algorithm. Element-wise
work is left out, as in the paper: it is bound by memory.

Memory: on a GPU torch's allocator keeps count. On the CPU torch's profiler records every allocation and release with its
address, also within an operator; replaying them in order gives the peak. Buffers of MKL are not seen.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # otherwise the profiler reports its start and stop on standard error

Shape = tuple[int, ...]
Change = tuple[int, int]
"""Address and bytes of an allocation; negative bytes are a release."""


def count_flops(call: Callable[[], object]) -> int:
    """The FLOPs of one call."""
    formulas = {torch.ops.aten._linalg_eigh: _eigh, torch.ops.aten._linalg_svd: _svd}
    with FlopCounterMode(display=False, custom_mapping=formulas) as counter:
        call()
    return int(counter.get_total_flops())


def eigh_flops(n: int) -> int:
    """Eigenvalues and eigenvectors of a symmetric n x n matrix, `9 n^3`."""
    return 9 * n**3


def svd_flops(rows: int, columns: int) -> int:
    """Thin SVD with both sides of vectors, `6 m n^2 + 20 n^3` with m >= n."""
    m, n = max(rows, columns), min(rows, columns)
    return 6 * m * n**2 + 20 * n**3


def _eigh(shape: Shape, *_: Any, **__: Any) -> int:
    return torch.Size(shape[:-2]).numel() * eigh_flops(shape[-1])


def _svd(shape: Shape, *_: Any, **__: Any) -> int:
    return torch.Size(shape[:-2]).numel() * svd_flops(shape[-2], shape[-1])


def peak_bytes(call: Callable[[], object], device: str = "cpu") -> int:
    """The most bytes that one call holds at a time, without its inputs."""
    return _on_gpu(call) if device == "cuda" else highest(_changes(call))


def highest(changes: Iterable[Change]) -> int:
    """The most bytes held at a time; releases of unknown addresses are ignored."""
    held: dict[int, int] = {}
    total = peak = 0
    for address, change in changes:
        total -= held.pop(address, 0)
        if change > 0:
            held[address] = change
            total += change
            peak = max(peak, total)
    return peak


def _changes(call: Callable[[], object]) -> list[Change]:
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        call()
    with TemporaryDirectory() as folder:
        path = Path(folder, "trace.json")
        profiler.export_chrome_trace(str(path))
        events = json.loads(path.read_bytes())["traceEvents"]
    memory = sorted((event for event in events if event.get("name") == "[memory]"), key=lambda event: event["ts"])
    return [(event["args"]["Addr"], event["args"]["Bytes"]) for event in memory]


def _on_gpu(call: Callable[[], object]) -> int:
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    torch.cuda.synchronize()
    return int(torch.cuda.max_memory_allocated() - before)
