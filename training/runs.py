"""`rankone runs`: what each run was asked for, how far it is, what it reached, and in what their recipes differ; as tables."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import AliasChoices, BaseModel, Field, ValidationError

from rankone.model.folders import name_of
from rankone.model.preprocessing import EARLIER
from rankone.model.training_record import EpochRecord, RollbackRecord
from rankone.training.checkpoint import SCHEMA, CheckpointError, sidecar
from rankone.training.evaluate import REPORT
from rankone.training.journal import METRICS
from rankone.training.recipe import PoolingRecipe, Recipe, RecipeError, load_recipe, packaged_names
from rankone.training.run import DataRecord, RunError

_RECIPE: Final = "recipe.yaml"
_DATA: Final = "dataset.json"
NOTE: Final = "Accuracy after each phase and recall@1 are those of the test images."
HEAD: Final = (
    *("run", "state", "recipe", "pooling", "backbone", "epochs"),
    *("after phase 1", "after phase 2", "recall@1", "best epoch", "returns", "minutes"),
)
DIFFERENCES: Final = "field"


class Summary(BaseModel):
    """A run as a row of a comparison. What is not known is None; `remarks` say why, and what else to know."""

    name: str
    state: str
    """finished, unfinished, diverged, or unreadable; diverged is finished too, with the best network before that."""
    recipe: str | None = None
    """Name of the recipe of the package that it equals, `own` otherwise."""
    backbone: str | None = None
    pooling: str | None = None
    data: str | None = None
    epochs: tuple[int, int] = (0, 0)
    """That ended, of each phase."""
    accuracy_phase1: float | None = None
    """On the test images, of the network that phase 1 ended with."""
    accuracy: float | None = None
    """On the test images, of the run's network."""
    recall_at_1: float | None = None
    best: tuple[int, int] | None = None
    """Phase, and epoch from 1, whose network it is."""
    rollbacks: int = 0
    """Times that phase 2 diverged, and training returned to the best network."""
    minutes: float | None = None
    """Of all epochs, without what comes before the first and after the last."""
    remarks: tuple[str, ...] = ()
    history: tuple[EpochRecord, ...] = ()


class _State(BaseModel):
    """What a comparison needs of a training state, by whichever version it was written."""

    phase: int = 0
    epoch: int = 0
    chosen: tuple[int, int] | None = None
    history: list[EpochRecord] = []
    rollbacks: list[RollbackRecord] = Field(default=[], validation_alias=AliasChoices("rollbacks", "returns"))

    @property
    def is_finished(self) -> bool:
        return self.phase > 2


class _Measured(BaseModel):
    """What it needs of a report."""

    top1: float | None = None
    recall_at_1: float | None = None
    phase1: dict[str, float] | None = None


@dataclass(frozen=True)
class RunComparison:
    """The runs in the order in which they were named. `differences` has a row for each field in which they differ."""

    runs: Sequence[Summary]
    differences: dict[str, dict[str, Any]]
    """Value by run, by field; runs whose recipe cannot be read are left out."""
    remarks: tuple[str, ...]


def compare_runs(folders: Sequence[Path]) -> RunComparison:
    """Compares the runs in `folders`; one that is no run stands for the runs in it.

    Raises:
        RunError: there is none.
    """
    paths = list(dict.fromkeys(path for folder in folders for path in _runs_in(folder)))
    if not any(_is_run(path) for path in paths):
        raise RunError(f"no training run in {', '.join(map(name_of, folders))}: `rankone train DATA RUN` makes one")
    read = [_read(path, name) for path, name in zip(paths, _names(paths), strict=True)]
    fields = {summary.name: asked for summary, asked in read if asked is not None}
    remarks = []
    if len({asked["data.images"] for asked in fields.values()}) > 1:
        remarks.append("The runs were trained on different images, so their figures do not compare.")
    if len({asked["protocol"] for asked in fields.values()}) > 1:
        remarks.append("Test images selected the epoch of the runs with protocol paper, which flatters their figures.")
    return RunComparison([summary for summary, _ in read], _differences(fields), tuple(remarks))


def rows(runs: Sequence[Summary]) -> list[tuple[str, ...]]:
    """A row of `HEAD` for every run; `-` for what is not known."""
    return [
        (
            run.name,
            run.state,
            run.recipe or "-",
            run.pooling or "-",
            run.backbone or "-",
            f"{run.epochs[0]} + {run.epochs[1]}",
            _percent(run.accuracy_phase1),
            _percent(run.accuracy),
            _percent(run.recall_at_1),
            "-" if run.best is None else f"{run.best[1]} of phase {run.best[0]}",
            str(run.rollbacks),
            "-" if run.minutes is None else f"{run.minutes:.1f}",
        )
        for run in runs
    ]


def difference_rows(comparison: RunComparison) -> list[tuple[str, ...]]:
    """A row for each field in which the runs differ, a cell for each run."""
    return [
        (field, *(value if isinstance(value, str) else json.dumps(value, default=str) for value in row.values()))
        for field, row in comparison.differences.items()
    ]


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"


def _runs_in(folder: Path) -> list[Path]:
    if _is_run(folder) or not folder.is_dir():
        return [folder]
    return sorted(path for path in folder.iterdir() if _is_run(path)) or [folder]


def _is_run(path: Path) -> bool:
    return (path / _RECIPE).is_file() or (path / _DATA).is_file()


def _names(paths: Sequence[Path]) -> list[str]:
    """The last part of each path; the whole path where two would have the same name."""
    short = [name_of(path.resolve().name) for path in paths]
    return [name if short.count(name) == 1 else name_of(path) for name, path in zip(short, paths, strict=True)]


def _read(path: Path, name: str) -> tuple[Summary, dict[str, Any] | None]:
    """The row of a run, and the fields of its recipe and data. Whatever cannot be read becomes a remark."""
    if not _is_run(path):
        what = "holds no training run" if path.is_dir() else "is not there"
        return Summary(name=name, state="unreadable", remarks=(f"{name_of(path)} {what}",)), None
    remarks: list[str] = []
    recipe, data = _recipe(path, remarks), _data(path, remarks)
    kept, figures = _checkpoint(path, remarks), _figures(path, remarks)
    history, minutes = _history(path, kept)
    diverged = bool(kept.rollbacks) and kept.rollbacks[-1].learning_rate is None
    if kept.phase in (1, 2):
        remarks.append(_progress(kept, recipe))
    if diverged:
        reason = kept.rollbacks[-1].reason
        remarks.append(f"diverged {len(kept.rollbacks)} times and ended at the best network before: {reason}")
    if kept.is_finished and figures.recall_at_1 is None:
        remarks.append("has no figures of test images: repeat its `rankone train` to measure it")
    summary = Summary(
        name=name,
        state="diverged" if diverged else "finished" if kept.is_finished else "unfinished",
        recipe=recipe and next((name for name in packaged_names() if load_recipe(name) == recipe), "own"),
        backbone=recipe and recipe.backbone,
        pooling=recipe and recipe.pooling.name,
        data=data and data.name,
        epochs=(sum(epoch.phase == 1 for epoch in history), sum(epoch.phase == 2 for epoch in history)),
        accuracy_phase1=(figures.phase1 or {}).get("top1"),
        accuracy=figures.top1,
        recall_at_1=figures.recall_at_1,
        best=kept.chosen and (kept.chosen[0], kept.chosen[1] + 1),
        rollbacks=len(kept.rollbacks),
        minutes=minutes,
        remarks=tuple(remarks),
        history=tuple(history),
    )
    if recipe is None or data is None:
        return summary, None
    images = f"{data.num_train:,} + {data.num_validation:,} + {data.num_test:,} ({data.fingerprint[:8]})"
    return summary, {**_fields(recipe), "data": data.name, "data.images": images}


def _recipe(path: Path, remarks: list[str]) -> Recipe | None:
    try:
        return load_recipe(path / _RECIPE, **EARLIER)
    except RecipeError as error:
        remarks.append(f"its recipe is of another version, or damaged: {error}")
        return None


def _data(path: Path, remarks: list[str]) -> DataRecord | None:
    try:
        return DataRecord.model_validate_json((path / _DATA).read_bytes())
    except (OSError, ValidationError):
        remarks.append(f"its {_DATA} is missing, damaged or of another version")
        return None


def _checkpoint(path: Path, remarks: list[str]) -> _State:
    """The state in the checkpoint, as far as it is known."""
    try:
        found = sidecar(path)
        if found is None:
            remarks.append("has no checkpoint yet: nothing is trained")
        elif found.get("schema_version") != SCHEMA:
            remarks.append(f"another version of rankone wrote its checkpoint (format {found.get('schema_version')})")
        return _State() if found is None else _State.model_validate(found.get("state"))
    except CheckpointError as error:
        remarks.append(str(error))
    except ValidationError:
        remarks.append("its checkpoint is of another version, or damaged")
    return _State()


def _figures(path: Path, remarks: list[str]) -> _Measured:
    try:
        return _Measured.model_validate_json((path / REPORT).read_bytes())
    except FileNotFoundError:
        pass
    except (OSError, ValidationError):
        remarks.append(f"its {REPORT} is damaged, or of another version")
    return _Measured()


def _progress(kept: _State, recipe: Recipe | None) -> str:
    total = "" if recipe is None else f" of {(recipe.phase1, recipe.phase2)[kept.phase - 1].epochs}"
    return f"is in phase {kept.phase}, after epoch {kept.epoch}{total}: the same command resumes it"


def _history(path: Path, kept: _State) -> tuple[list[EpochRecord], float | None]:
    """The epochs and their minutes, by `metrics.jsonl`; without it, the epochs of the checkpoint."""
    epochs, seconds = list[EpochRecord](), []
    try:
        text = (path / METRICS).read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    for line in text.splitlines():
        try:
            found = json.loads(line)
            if found["kind"] == "epoch":
                epochs.append(EpochRecord.model_validate({key: found.get(key) for key in EpochRecord.model_fields}))
                seconds.append(found.get("seconds"))
        except (ValueError, TypeError, KeyError):  # while it is being written, or of another version
            continue
    is_timed = epochs and all(isinstance(one, int | float) for one in seconds)
    return epochs or list(kept.history), sum(seconds) / 60 if is_timed else None


def _fields(model: BaseModel, prefix: str = "") -> dict[str, Any]:
    """Every field of a recipe by its name in flags; of the pooling, its name and what it is put together of."""
    found: dict[str, Any] = {}
    for name in type(model).model_fields:
        value = getattr(model, name)
        if isinstance(value, PoolingRecipe):
            found |= {name: value.name, **_flat(value.composition.describe(), f"{name}.")}
        elif isinstance(value, BaseModel):
            found |= _fields(value, f"{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found


def _flat(values: dict[str, Any], prefix: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return found


def _differences(fields: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    names = dict.fromkeys(name for asked in fields.values() for name in asked)
    rows = {name: {run: asked.get(name, "-") for run, asked in fields.items()} for name in names}
    return {
        name: row for name, row in rows.items() if len({json.dumps(value, default=str) for value in row.values()}) > 1
    }
