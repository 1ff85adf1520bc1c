"""`metrics.jsonl`: every step and epoch of a run as a line of JSON; and TensorBoard, if asked for.

A run that resumes repeats the steps after its checkpoint: their lines are removed first, so that every step is there once.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from rankone.model.errors import RankoneError
from rankone.training.run import replace_file
from rankone.training.state import TrainingState

METRICS: Final = "metrics.jsonl"
TENSORBOARD: Final = "tensorboard"


class ExtraMissing(RankoneError, ImportError):
    """An optional package that is not installed."""


class Journal:
    """Appends to the files of `folder` what happens after `state`; without a folder, writes nothing."""

    def __init__(self, folder: Path | None, state: TrainingState, *, tensorboard: bool = False) -> None:
        self._boards: dict[int, Any] = {}
        self._board_folder = folder / TENSORBOARD if tensorboard and folder else None
        if self._board_folder:
            _summary_writer()  # a missing package is reported now, and not after the first epoch
        self._path = folder / METRICS if folder else None
        self._open(state)

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file:
            self._file.close()
        for board in self._boards.values():
            board.close()

    def step(self, state: TrainingState, **values: float) -> None:
        """A step that is about to be counted."""
        phase, epoch, step = state.position
        self._write({"kind": "step", "phase": phase, "epoch": epoch, "step": step, **values})

    def attempt(self, state: TrainingState, **values: float | None) -> None:
        """A classifier that phase 1 solved, before its only epoch ends."""
        self._write({"kind": "fit", "phase": state.phase, "epoch": state.epoch, **values})

    def epoch(self, record: Mapping[str, Any]) -> None:
        """An epoch that has ended."""
        self._write({"kind": "epoch", **record})
        if self._board_folder:
            phase, epoch = record["phase"], record["epoch"]
            if phase not in self._boards:  # hides what a killed process wrote of this epoch and later ones
                writer = _summary_writer()
                self._boards[phase] = writer(self._board_folder / f"phase{phase}", purge_step=epoch)
            for name, value in record.items():
                if isinstance(value, float):
                    self._boards[phase].add_scalar(name, value, epoch)

    def roll_back(self, state: TrainingState) -> None:
        """The current epoch diverged and is repeated: a line that says why replaces its lines."""
        record = state.rollbacks[-1]
        self._write({"kind": "rollback", "phase": state.phase, "number": len(state.rollbacks), **record.model_dump()})
        if self._file:
            self._file.close()
        self._open(state)

    def sync(self) -> None:
        """Waits until the lines are on disk: a checkpoint must not know of steps that the file has lost."""
        if self._file:
            os.fsync(self._file.fileno())

    def _open(self, state: TrainingState) -> None:
        self._file = None
        if self._path:
            _remove_lines_after(self._path, state)
            self._file = self._path.open("a", buffering=1, encoding="utf-8")

    def _write(self, line: Mapping[str, Any]) -> None:
        if self._file:
            self._file.write(json.dumps(line) + "\n")


def _remove_lines_after(path: Path, state: TrainingState) -> None:
    """Keeps the lines that precede `state`; an unfinished last line goes too."""
    if not path.exists():
        return
    kept = ""
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            fields = json.loads(line)
        except ValueError:
            continue
        if fields["kind"] in ("rollback", "return"):  # as earlier versions wrote it
            keep = fields["number"] <= len(state.rollbacks)
        else:
            step = fields["step"] if fields["kind"] == "step" else -1
            epoch = fields["epoch"] + (fields["kind"] in ("epoch", "fit"))  # these lines end it
            keep = (fields["phase"], epoch, step) < state.position
        if keep:
            kept += f"{line}\n"
    replace_file(path, kept.encode())


def _summary_writer() -> Callable[..., Any]:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ExtraMissing("--tensorboard needs the package tensorboard: pip install 'rankone[tensorboard]'") from error
    return SummaryWriter
