"""`metrics.jsonl`: every step and epoch of a run as a line of JSON; and TensorBoard, where it is asked for.

A run that goes on from a checkpoint repeats the steps that came after it: their lines are removed first, so that a step is
there once.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Protocol

from rankone.model.errors import RankoneError
from rankone.training.state import Progress

METRICS: Final = "metrics.jsonl"
BOARD: Final = "tensorboard"


class ExtraMissing(RankoneError, ImportError):
    """An optional package that is not installed."""


class _Board(Protocol):
    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None: ...

    def close(self) -> None: ...


class Journal:
    """Opened where `progress` is; `step` and `epoch` write what has just ended. Without a folder, it writes nothing."""

    def __init__(self, folder: Path | None, progress: Progress, *, board: bool = False) -> None:
        self._boards: dict[int, _Board] = {}
        self._home = folder / BOARD if board and folder else None
        self._file = None
        if self._home:
            _writer()  # a missing package is named now, and not after the first epoch
        if folder:
            self._path = folder / METRICS
            _keep_until(self._path, progress)
            self._file = self._path.open("a", buffering=1, encoding="utf-8")

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._file:
            self._file.close()
        for board in self._boards.values():
            board.close()

    def step(self, progress: Progress, **values: float) -> None:
        """A step that is about to be counted."""
        phase, epoch, step = progress.position
        self._write({"kind": "step", "phase": phase, "epoch": epoch, "step": step, **values})

    def epoch(self, record: Mapping[str, Any]) -> None:
        """An epoch that has ended."""
        self._write({"kind": "epoch", **record})
        if self._home:
            phase, epoch = record["phase"], record["epoch"]
            if phase not in self._boards:  # what a killed process wrote of this epoch and later ones is taken back
                self._boards[phase] = _writer()(self._home / f"phase{phase}", purge_step=epoch)
            for name, value in record.items():
                if isinstance(value, float):
                    self._boards[phase].add_scalar(name, value, epoch)

    def went_back(self, progress: Progress) -> None:
        """The epoch in work diverged and is done again: its lines go, and one that says why takes their place."""
        record = progress.returns[-1]
        line = {"kind": "return", "phase": progress.phase, "number": len(progress.returns), **record.model_dump()}
        self._write(line)
        if self._file:
            self._file.close()
            _keep_until(self._path, progress)
            self._file = self._path.open("a", buffering=1, encoding="utf-8")

    def sync(self) -> None:
        """To the disk: a checkpoint must not know of steps that the file has lost."""
        if self._file:
            os.fsync(self._file.fileno())

    def _write(self, line: Mapping[str, Any]) -> None:
        if self._file:
            self._file.write(json.dumps(line) + "\n")


def _keep_until(path: Path, progress: Progress) -> None:
    """Leaves the lines of what comes before `progress`; a last line that was cut off is none of them."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            fields = json.loads(line)
        except ValueError:
            continue
        if fields["kind"] == "return":
            keep = fields["number"] <= len(progress.returns)
        else:
            step = fields["step"] if fields["kind"] == "step" else -1
            epoch = fields["epoch"] + (fields["kind"] == "epoch")  # the line of an epoch ends it
            keep = (fields["phase"], epoch, step) < progress.position
        if keep:
            kept.append(line)
    partial = path.with_suffix(".partial")
    partial.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
    partial.replace(path)


def _writer() -> Callable[..., _Board]:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ExtraMissing("--tensorboard needs the package tensorboard: pip install 'rankone[tensorboard]'") from error
    return SummaryWriter
