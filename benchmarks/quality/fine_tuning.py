"""What phase 2 gains: seven poolings, two data sets, three seeds, learned filters; the default recipe, but smaller.

Every network is trained by `training.fit`, as `rankone train` does it, and is a JSON file in data/quality/rows/ when it is
measured; the same command measures what is missing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Final

from benchmarks.paper.measure import Measured, Setting, Workshop
from benchmarks.paper.plan import Row, Table
from benchmarks.quality.filters import learned_filters
from benchmarks.quality.pictures import objects, textures
from benchmarks.quality.sources import HOME
from benchmarks.timing import console, machine
from rankone.training.checkpoint import training_libraries
from rankone.training.data import DataSet
from rankone.training.processes import stop_on_signal
from rankone.training.recipe import PoolingRecipe, Recipe, load_recipe

SEEDS: Final = (0, 1, 2)
SYSTEMS: Final[Mapping[str, PoolingRecipe]] = {
    "cbp-run": PoolingRecipe(system="cbp-run"),
    "cbp-ts": PoolingRecipe(system="cbp-ts"),
    "sum": PoolingRecipe(system="sum"),
    "max": PoolingRecipe(system="max"),
    "bcnn": PoolingRecipe(system="bcnn"),
    "bcnn-ns": PoolingRecipe(system="bcnn-ns"),
    "monet-2": PoolingRecipe(system="monet-2"),
}
"""In the order in which they are measured."""

TITLE: Final = "What phase 2 gains"
_FIGURES: Final = {"top1": "accuracy", "recall_at_1": "recall@1"}


def main() -> None:
    """Measures what is missing and prints the tables; data/quality/fine-tuning.md holds them too."""
    data = (textures(), objects())
    with stop_on_signal() as stop:
        workshop = Workshop(HOME / "work", stop)
        for name, one, seed in _order(data):
            found = _measured(name, one, seed, workshop)
            console.print(f"{one.name}, {name}, seed {seed}: {_summary(found)}")
    text = "\n\n".join(table(one.name, rows(one)) for one in data)
    (HOME / "fine-tuning.md").write_text(f"{text}\n", encoding="utf-8")
    console.print(text)


def recipe_of(weights: Path) -> Recipe:
    """The default recipe at the paper's rates, on two cores: small images, six epochs of phase 2, a backbone in bfloat16.

    Nothing is held out: one image of a class would tell little, and there are only eight to learn from.
    """
    default = load_recipe("default")
    second = default.phase2.model_copy(update={"epochs": 6})
    return default.model_copy(
        update={"weights": weights.as_posix(), "size": 96, "precision": "bfloat16", "validation": 0.0, "phase2": second}
    )


def rows(data: DataSet) -> dict[str, list[Measured]]:
    """What was measured on `data`, by pooling, one a seed."""
    found = {name: [_read(_path(_setting(name, data, seed))) for seed in SEEDS] for name in SYSTEMS}
    return {name: [one for one in several if one] for name, several in found.items() if any(several)}


def table(title: str, found: Mapping[str, Sequence[Measured]]) -> str:
    """Markdown: figures on the test images after each phase, means over the seeds with the lowest and the highest."""
    head = [
        "pooling",
        "seeds",
        *(f"{figure}, {when}" for figure in _FIGURES.values() for when in ("phase 1", "phase 2", "gain")),
    ]
    lines = [f"**{title}**", "", f"| {' | '.join(head)} |", f"|---|{'---:|' * (len(head) - 1)}"]
    for name, several in found.items():
        cells = [f"`{name}`", f"{len(several)}"]
        for key in _FIGURES:
            before, after = [one.phase1[key] for one in several if one.phase1], [one.metrics[key] for one in several]
            gains = [100 * (late - early) for early, late in zip(before, after, strict=True)]
            cells += [_spread(before, "{:.3f}"), _spread(after, "{:.3f}"), _spread(gains, "{:+.1f}")]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _order(data: Sequence[DataSet]) -> Iterator[tuple[str, DataSet, int]]:
    """The default system first, with all seeds; then all others, seed by seed."""
    default, *others = SYSTEMS
    places = [(default, seed) for seed in SEEDS] + [(name, seed) for seed in SEEDS for name in others]
    for name, seed in places:
        for one in data:
            yield name, one, seed


def _setting(name: str, data: DataSet, seed: int) -> Setting:
    row = Row(label=name, pooling=SYSTEMS[name])
    return Setting.of(Table(title=TITLE, rows=(row,)), row, recipe_of(learned_filters()), data, seed, fast=False)


def _measured(name: str, data: DataSet, seed: int, workshop: Workshop) -> Measured:
    setting = _setting(name, data, seed)
    path = _path(setting)
    if not path.exists():
        found = workshop.measure(setting, machine(), training_libraries())
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        partial.write_text(found.model_dump_json(indent=2), encoding="utf-8")
        partial.replace(path)
    return Measured.model_validate_json(path.read_bytes())


def _path(setting: Setting) -> Path:
    return HOME / "rows" / f"{setting.data.name}-{setting.key}.json"


def _read(path: Path) -> Measured | None:
    return Measured.model_validate_json(path.read_bytes()) if path.exists() else None


def _summary(found: Measured) -> str:
    before = found.phase1 or {}
    figures = [f"{name} {before.get(key, 0):.3f} to {found.metrics[key]:.3f}" for key, name in _FIGURES.items()]
    return f"{', '.join(figures)} ({found.seconds:.0f} s)"


def _spread(values: Sequence[float], pattern: str) -> str:
    return f"{pattern.format(mean(values))} ({pattern.format(min(values))} – {pattern.format(max(values))})"
