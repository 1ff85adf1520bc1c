"""`rankone bench fine-tuning`: what phase 2 gains, for seven poolings, two data sets, three seeds and learned filters.

Networks are trained by `training.fit`, as `rankone train` does it. Each is a JSON file in data/quality/rows/ when it is
measured; the same command measures what is missing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from benchmarks.markdown import markdown, spread
from benchmarks.paper.measure import Measured, Workshop
from benchmarks.paper.plan import Setting, seeded
from benchmarks.quality.pictures import objects, textures
from benchmarks.quality.sources import HOME, learned_filters
from benchmarks.timing import console
from rankone.model.engine.torch_engine import has_instructions
from rankone.training.data import DataSet
from rankone.training.processes import stop_on_signal
from rankone.training.recipe import PoolingRecipe, Recipe, load_recipe
from rankone.training.run import replace_file

SEEDS: Final = (0, 1, 2)
SYSTEMS: Final = ("cbp-run", "cbp-ts", "sum", "max", "bcnn", "bcnn-ns", "monet-2")
"""In the order in which they are measured."""
_FIGURES: Final = {"top1": "accuracy", "recall_at_1": "recall@1"}


def main() -> None:
    """Measures what is missing and prints the tables, which are also written to data/quality/fine-tuning.md."""
    default, *others = SYSTEMS  # the default has all of its seeds first
    order = [(default, seed) for seed in SEEDS] + [(name, seed) for seed in SEEDS for name in others]
    sets = (textures(), objects())
    plan = ((name, setting_of(name, data, seed)) for name, seed in order for data in sets)
    measure(plan, HOME / "rows", HOME / "fine-tuning.md", "pooling")


def measure(plan: Iterable[tuple[str, Setting]], folder: Path, page: Path, column: str) -> None:
    """Measures what of `plan`, names and settings, is missing in `folder`, and prints and writes the tables."""
    found = dict[str, dict[str, list[Measured]]]()
    with stop_on_signal() as stop:
        workshop = Workshop(HOME / "work", stop)
        for name, setting in plan:
            data = setting.data.name
            one = workshop.measured(setting, folder / f"{data}-{setting.key}.json")
            found.setdefault(data, {}).setdefault(name, []).append(one)
            console.print(f"{data}, {name}, seed {setting.recipe.seed}: {summary(one)}")
            text = "\n".join(table(data, rows, column) for data, rows in found.items())
            replace_file(page, text.encode())
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


def table(title: str, found: Mapping[str, Sequence[Measured]], column: str) -> str:
    """Markdown: figures on the test images after each phase, as mean, lowest and highest over the seeds, by `column`."""
    columns = [f"{name}, {when}" for name in _FIGURES.values() for when in ("phase 1", "phase 2", "gain")]
    lines = []
    for name, several in found.items():
        cells = [f"`{name}`", f"{len(several)}"]
        for key in _FIGURES:
            before, after = [one.phase1[key] for one in several if one.phase1], [one.metrics[key] for one in several]
            gains = [100 * (late - early) for early, late in zip(before, after, strict=True)]
            patterns = ((before, "{:.3f}"), (after, "{:.3f}"), (gains, "{:+.1f}"))
            cells += [spread(values, pattern, dash=" – ") for values, pattern in patterns]
        lines.append(cells)
    return f"**{title}**\n\n{markdown([column, 'seeds', *columns], lines)}"


def summary(found: Measured) -> str:
    """One line: the figures on the test images after each phase, and the time that both took."""
    before = found.phase1 or {}
    figures = [f"{name} {before.get(key, 0):.3f} to {found.metrics[key]:.3f}" for key, name in _FIGURES.items()]
    return f"{', '.join(figures)} ({found.seconds:.0f} s)"
