"""Checkpoints: what a training goes on from, replaced whole or not at all.

checkpoint-000012/
    checkpoint.json       how far it is; recipe, data, library versions, git revision: readable without torch
    network.safetensors   the network in training
    best.safetensors      what differs in the chosen network, once one was chosen
    average.safetensors   the moving average of the weights, where the recipe has one
    optimizer.pt          optimizer and schedule, between two epochs or steps

A new one is written under another name, synced and renamed; only then is the one before removed. A full disk or a kill
at any moment leaves the last one that was whole.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
from pydantic import BaseModel
from safetensors.torch import load_file, save_file
from torch import Tensor

from rankone.model.errors import RankoneError
from rankone.model.files import sync
from rankone.training.state import Progress

SCHEMA: Final = 2
_PREFIX: Final = "checkpoint-"
_SIDECAR: Final = "checkpoint.json"
_OPTIMIZER: Final = "optimizer.pt"

Tensors = Mapping[str, Tensor]


class CheckpointError(RankoneError, ValueError):
    """A checkpoint that cannot be read, or not be written."""


class Sidecar(BaseModel):
    """What the JSON file of a checkpoint says."""

    schema_version: int = SCHEMA
    progress: Progress
    recipe: dict[str, Any]
    data: dict[str, Any]
    libraries: dict[str, str]
    git_revision: str | None


@dataclass(frozen=True)
class State:
    """What a checkpoint holds: how far it is, tensors by the name of their file, and the optimizer's state."""

    progress: Progress
    tensors: Mapping[str, Tensors]
    optimizer: dict[str, Any] = field(default_factory=dict)


def save(folder: Path, state: State, about: Mapping[str, Any]) -> Path:
    """Makes `state` the checkpoint of `folder`; `about` holds the sidecar's other fields.

    Raises:
        CheckpointError: it could not be written, for instance on a full disk; the one before is as it was.
    """
    before = _all(folder)
    path = folder / f"{_PREFIX}{_number(before[-1]) + 1 if before else 1:06d}"
    partial = folder / f".{path.name}.partial"
    try:
        _write(partial, state, Sidecar(progress=state.progress, **about))
        partial.rename(path)
        sync(folder)
    except Exception as error:  # safetensors and torch each raise errors of their own for a full disk
        raise unwritten(folder, error) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    for old in before:
        shutil.rmtree(old, ignore_errors=True)
    return path


def unwritten(folder: Path, error: Exception) -> CheckpointError:
    """The error to raise where a checkpoint could not be written."""
    return CheckpointError(
        f"the checkpoint could not be written to {folder}: {error}. The one before is as it was; make room, and the same "
        "command resumes from it"
    )


def load(folder: Path) -> State | None:
    """The checkpoint of `folder`, on the CPU; None where there is none.

    Raises:
        CheckpointError: it cannot be read, or another version wrote it.
    """
    path = latest(folder)
    if path is None:
        return None
    try:
        sidecar = Sidecar.model_validate_json((path / _SIDECAR).read_bytes())
        if sidecar.schema_version != SCHEMA:
            raise CheckpointError(f"{path} was written by another version of rankone; train again")
        tensors = {file.stem: load_file(file) for file in path.glob("*.safetensors")}
        optimizer = path / _OPTIMIZER
        states = torch.load(optimizer, map_location="cpu", weights_only=True) if optimizer.exists() else {}
        return State(sidecar.progress, tensors, states)
    except CheckpointError:
        raise
    except Exception as error:  # torch and safetensors raise many kinds for a damaged file
        raise CheckpointError(f"{path} cannot be read: {error}") from error


def latest(folder: Path) -> Path | None:
    """The directory of the checkpoint, if there is one."""
    found = _all(folder)
    return found[-1] if found else None


def git_revision() -> str | None:
    """The commit of this source, with `+` if it was changed; None where it is not a git checkout."""
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


def _write(partial: Path, state: State, sidecar: Sidecar) -> None:
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for name, tensors in state.tensors.items():
        plain = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
        save_file(plain, partial / f"{name}.safetensors")
    if state.optimizer:
        torch.save(state.optimizer, partial / _OPTIMIZER)
    (partial / _SIDECAR).write_text(sidecar.model_dump_json(indent=2) + "\n", encoding="utf-8")
    for entry in (*partial.iterdir(), partial):
        sync(entry)


def _all(folder: Path) -> list[Path]:
    return sorted((path for path in folder.glob(f"{_PREFIX}*") if path.name[len(_PREFIX) :].isdigit()), key=_number)


def _number(path: Path) -> int:
    return int(path.name.removeprefix(_PREFIX))
