"""`rankone bench fine-tuning`: what phase 2 gains, for seven poolings, two data sets, three seeds and learned filters.

Networks are trained by `training.fit`, as `rankone train` does it. Each is a JSON file in data/quality/rows/ when it is
measured; the same command measures what is missing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from benchmarks.paper.markdown import spread
from benchmarks.paper.measure import Measured, Workshop, read
from benchmarks.paper.plan import Setting, seeded
from benchmarks.quality.pictures import objects, textures
from benchmarks.quality.sources import HOME, learned_filters
from benchmarks.timing import console
from rankone.model.engine.torch_engine import has_instructions
from rankone.training.data import DataSet
from rankone.training.processes import stop_on_signal
from rankone.training.recipe import PoolingRecipe, Recipe, load_recipe

SEEDS: Final = (0, 1, 2)
SYSTEMS: Final = ("cbp-run", "cbp-ts", "sum", "max", "bcnn", "bcnn-ns", "monet-2")
"""In the order in which they are measured."""
_FIGURES: Final = {"top1": "accuracy", "recall_at_1": "recall@1"}


def main() -> None:
    """Measures what is missing and prints the tables, which are also written to data/quality/fine-tuning.md."""
    sets = (textures(), objects())
    with stop_on_signal() as stop:
        workshop = Workshop(HOME / "work", stop)
        for name, seed in _order():
            for data in sets:
                setting = setting_of(name, data, seed)
                found = workshop.measured(setting, _path(setting))
                console.print(f"{data.name}, {name}, seed {seed}: {summary(found)}")
    text = "\n\n".join(table(data.name, rows(data)) for data in sets)
    (HOME / "fine-tuning.md").write_text(f"{text}\n", encoding="utf-8")
    console.print(text)


def recipe_of(weights: Path) -> Recipe:
    """The default recipe at the paper's rates, shortened for two cores: 96 x 96, six epochs of phase 2, bfloat16 if the CPU
    has instructions for it.

    Nothing is held out, as there are only eight images of a class.
    """
    default = load_recipe("default")
    precision = "bfloat16" if has_instructions("bfloat16") else "float32"
    phase2 = default.phase2.model_copy(update={"epochs": 6})
    return default.model_copy(
        update={"weights": weights.as_posix(), "size": 96, "precision": precision, "validation": 0.0, "phase2": phase2}
    )


def setting_of(name: str, data: DataSet, seed: int) -> Setting:
    """The setting of a pooling at a seed; its key names the file."""
    return Setting(seeded(recipe_of(learned_filters()), PoolingRecipe(system=name), seed, {}), data)


def rows(data: DataSet) -> dict[str, list[Measured]]:
    """The measurements on `data`, by pooling, one a seed."""
    paths = {name: [_path(setting_of(name, data, seed)) for seed in SEEDS] for name in SYSTEMS}
    found = {name: [read(path) for path in several if path.exists()] for name, several in paths.items()}
    return {name: several for name, several in found.items() if several}


def table(title: str, found: Mapping[str, Sequence[Measured]], column: str = "pooling") -> str:
    """Markdown: figures on the test images after each phase, as mean, lowest and highest over the seeds.

    `column` is the title of the names' column.
    """
    columns = [f"{name}, {when}" for name in _FIGURES.values() for when in ("phase 1", "phase 2", "gain")]
    head = [column, "seeds", *columns]
    lines = [f"**{title}**", "", f"| {' | '.join(head)} |", f"|---|{'---:|' * (len(head) - 1)}"]
    for name, several in found.items():
        cells = [f"`{name}`", f"{len(several)}"]
        for key in _FIGURES:
            before, after = [one.phase1[key] for one in several if one.phase1], [one.metrics[key] for one in several]
            gains = [100 * (late - early) for early, late in zip(before, after, strict=True)]
            patterns = ((before, "{:.3f}"), (after, "{:.3f}"), (gains, "{:+.1f}"))
            cells += [spread(values, pattern, dash=" – ") for values, pattern in patterns]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _order() -> Iterator[tuple[str, int]]:
    """The default system first, with all seeds; then the others, seed by seed."""
    default, *others = SYSTEMS
    yield from ((default, seed) for seed in SEEDS)
    yield from ((name, seed) for seed in SEEDS for name in others)


def _path(setting: Setting) -> Path:
    return HOME / "rows" / f"{setting.data.name}-{setting.key}.json"


def summary(found: Measured) -> str:
    """One line: the figures on the test images after each phase, and the time that both took."""
    before = found.phase1 or {}
    figures = [f"{name} {before.get(key, 0):.3f} to {found.metrics[key]:.3f}" for key, name in _FIGURES.items()]
    return f"{', '.join(figures)} ({found.seconds:.0f} s)"
