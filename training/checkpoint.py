"""Checkpoints: a training state on disk, replaced whole or not at all.

checkpoint-000012/
    checkpoint.json       counters and history; recipe, data, library versions, git revision: readable without torch
    network.safetensors   the network in training
    best.safetensors      the weights in which the best network so far differs
    average.safetensors   the moving average of the weights, if the recipe has one
    optimizer.pt          optimizer and schedule, between two epochs or steps

A new one is written under another name, synced and renamed; only then is the old one removed. A full disk or a kill at any
moment leaves the last complete one.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import load_file, save_file

from rankone.model.errors import RankoneError
from rankone.model.files import sync
from rankone.training.state import TrainingState

SCHEMA: Final = 3
_PREFIX: Final = "checkpoint-"
_SIDECAR: Final = "checkpoint.json"
_OPTIMIZER: Final = "optimizer.pt"
_LIBRARIES: Final = ("torch", "torchvision", "onnx", "onnxscript", "onnxruntime-gpu", "numpy", "pillow", "rankone")


class CheckpointError(RankoneError, ValueError):
    """A checkpoint that cannot be read or written."""


def save(folder: Path, state: TrainingState, recipe: dict[str, Any], data: dict[str, Any]) -> Path:
    """Replaces the checkpoint of `folder` by `state`; recipe and data are written for the reader.

    Raises:
        CheckpointError: it could not be written, for instance to a full disk; the previous one is unchanged.
    """
    before = _all(folder)
    path = folder / f"{_PREFIX}{_number(before[-1]) + 1 if before else 1:06d}"
    partial = folder / f".{path.name}.partial"
    about = {
        "schema_version": SCHEMA,
        "state": state.model_dump(mode="json"),
        "recipe": recipe,
        "data": data,
        "libraries": training_libraries(),
        "git_revision": git_revision(),
    }
    try:
        _write(partial, state, f"{json.dumps(about, indent=2)}\n")
        partial.rename(path)
        sync(folder)
    except Exception as error:  # safetensors and torch each raise errors of their own for a full disk
        raise not_written(folder, error) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    for old in before:
        shutil.rmtree(old, ignore_errors=True)
    return path


def not_written(folder: Path, error: Exception) -> CheckpointError:
    """The error to raise if a checkpoint could not be written."""
    return CheckpointError(
        f"the checkpoint could not be written to {folder}: {error}. The one before is as it was; make room, and the same "
        "command resumes from it"
    )


def load(folder: Path) -> TrainingState | None:
    """The checkpoint of `folder`, on the CPU; None if there is none.

    Raises:
        CheckpointError: it cannot be read, or another version wrote it.
    """
    path, about = latest(folder), sidecar(folder)
    if path is None or about is None:
        return None
    if about.get("schema_version") != SCHEMA:
        raise CheckpointError(
            f"{path} was written by another version of rankone (checkpoint format {about.get('schema_version')}, this one "
            f"reads {SCHEMA}); train again in another directory, or finish this run with that version"
        )
    try:
        tensors = {file.stem: load_file(file) for file in path.glob("*.safetensors")}
        file = path / _OPTIMIZER
        optimizer = torch.load(file, map_location="cpu", weights_only=True) if file.exists() else {}
        return TrainingState(**about["state"], tensors=tensors, optimizer=optimizer)
    except Exception as error:  # torch and safetensors raise many kinds for a damaged file
        raise CheckpointError(f"{path} cannot be read: {error}") from error


def latest(folder: Path) -> Path | None:
    """The directory of the checkpoint, if there is one."""
    found = _all(folder)
    return found[-1] if found else None


def sidecar(folder: Path) -> dict[str, Any] | None:
    """What the checkpoint of `folder` says of itself, without its tensors, whatever version wrote it; None if there is none.

    Raises:
        CheckpointError: it cannot be read.
    """
    path = latest(folder)
    if path is None:
        return None
    try:
        found = json.loads((path / _SIDECAR).read_bytes())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    return found if isinstance(found, dict) else {}


def discard_untrained(folder: Path) -> bool:
    """Removes checkpoints of before the first step; returns whether nothing of the run in `folder` is trained."""
    if is_trained(folder):
        return False
    for path in _all(folder):
        shutil.rmtree(path, ignore_errors=True)
    return True


def is_trained(folder: Path) -> bool:
    """Whether `folder` has a checkpoint of after the first step."""
    try:
        about = sidecar(folder)
        return about is not None and [about["state"][name] for name in ("phase", "epoch", "step")] > [1, 0, 0]
    except (CheckpointError, KeyError, TypeError):
        return True  # `load` says what is wrong with it


def training_libraries() -> dict[str, str]:
    """The versions of the libraries that decide the numbers of a training."""
    return {name: version(name) for name in _LIBRARIES}


def git_revision() -> str | None:
    """The commit of this source, with `+` if it was changed; None if it is not a git checkout."""
    here = Path(__file__).parent
    try:
        # installed, this file may lie within the checkout of another project
        _git(here, "ls-files", "--error-unmatch", Path(__file__).name)
        return _git(here, "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    command = ("git", "-C", str(folder), *arguments)
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()  # noqa: S603


def _write(partial: Path, state: TrainingState, sidecar: str) -> None:
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for name, tensors in state.tensors.items():
        if tensors:
            plain = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
            save_file(plain, partial / f"{name}.safetensors")
    if state.optimizer:
        torch.save(state.optimizer, partial / _OPTIMIZER)
    (partial / _SIDECAR).write_text(sidecar, encoding="utf-8")
    for entry in (*partial.iterdir(), partial):
        sync(entry)


def _all(folder: Path) -> list[Path]:
    return sorted((path for path in folder.glob(f"{_PREFIX}*") if path.name[len(_PREFIX) :].isdigit()), key=_number)


def _number(path: Path) -> int:
    return int(path.name.removeprefix(_PREFIX))
