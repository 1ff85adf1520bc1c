"""The most memory that a call holds at a time, of what torch allocates for it; its inputs do not count.

On a GPU torch's allocator keeps count. On the CPU its profiler notes every allocation and release with its address,
also those within an operator, such as the workspace of a decomposition; replaying them in order gives the peak. What is
not seen: buffers that MKL's products and transforms keep for themselves.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch.profiler import ProfilerActivity, profile

os.environ.setdefault(
    "KINETO_LOG_LEVEL", "99"
)  # else the profiler reports on standard error that it started and stopped

Change = tuple[int, int]
"""Address and bytes; a release has negative bytes."""


def peak_bytes(call: Callable[[], object], device: str = "cpu") -> int:
    """Peak bytes of one call. What it releases counts only if it allocated it."""
    return _on_gpu(call) if device == "cuda" else highest(_changes(call))


def highest(changes: Iterable[Change]) -> int:
    """The most bytes held at a time, over allocations and releases in order."""
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
