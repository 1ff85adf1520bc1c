"""A table as Markdown, with the paper's figures beside ours."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.markdown import markdown, spread
from benchmarks.paper.book import Cost, Filled
from benchmarks.paper.measure import Measured
from benchmarks.paper.plan import Row


def page(filled: Filled) -> str:
    """The table with its title and how it was made."""
    rows = [_cells(filled, row) for row in filled.table.rows]
    columns = list(dict.fromkeys(column for cells in rows for column in cells))
    table = markdown(columns, ([cells.get(column, "") for column in columns] for cells in rows))
    title = heading(filled)
    picture = f"![{title}](table-{filled.name}.png)"
    return f"# {title}\n\n{filled.table.title}.\n\n{table}\n{picture}\n\n{footer(filled)}\n"


def heading(filled: Filled) -> str:
    """`Table 4` or `Figure 2`."""
    return f"Figure {filled.name.removeprefix('figure')}" if "figure" in filled.name else f"Table {filled.name}"


def human(count: int) -> str:
    """FLOPs in M or G, with three figures."""
    return f"{count / 1e9:.2f} G" if count >= 1e8 else f"{count / 1e6:.1f} M"


def _cells(filled: Filled, row: Row) -> dict[str, str]:
    """A row by column."""
    measured, kind, solved = filled.measured[row.title], filled.table.kind, filled.solved.get(row.title, [])
    cells = {filled.table.axis or "": row.title}
    if row.contender is not None:
        cost = filled.costs[row.contender]
        slowest = max(other.median_ms for other in filled.costs.values())
        cells |= {
            "FLOPs": human(cost.flops),
            f"ms, batch of {cost.batch} (quartiles)": f"{cost.median_ms:.1f} ({cost.low_ms:.1f} - {cost.high_ms:.1f})",
            "times faster": f"{slowest / cost.median_ms:.1f}",
        }
    if kind in {"ratio", "scatter"}:
        cells["sigma1 / sigma2"] = spread([one.mean_ratio for one in measured], "{:.2f}")
    if kind == "scatter":
        cells["after RUN"] = spread([one.mean_ratio_after for one in measured], "{:.2f}")
    if kind == "curve":
        cells |= {f"after phase {phase}": _held_out(measured, phase) for phase in (1, 2)}
    for column, name in (("test accuracy", "top1"), ("recall@1", "recall_at_1")):
        title = f"{column}, SGD" if solved and name == "top1" else column
        cells[title] = spread([one.metrics[name] for one in measured])
        if solved and (name == "top1" or _is_trained(solved)):
            cells[f"{column}, L-BFGS"] = spread([one.metrics[name] for one in solved])
    return cells | {f"paper: {column}": figure for column, figure in row.paper.items()}


def _is_trained(measured: Sequence[Measured]) -> bool:
    """Whether there is a phase 2: only then does the solver of phase 1 change the embeddings."""
    return any(one.recipe["phase2"]["epochs"] for one in measured)


def _held_out(measured: Sequence[Measured], phase: int) -> str:
    """Accuracy on the held-out images after the last epoch of the phase; empty where there are none."""
    found = [[e.validation_error for e in one.history if e.phase == phase] for one in measured]
    errors = [[error for error in one if error is not None] for one in found]
    return spread([1 - error[-1] for error in errors if error])


def footer(filled: Filled) -> str:
    """The data, recipe, seeds, machines and versions of the figures."""
    plan, recipe = filled.plan, filled.plan.recipe
    everything = [one for found in (filled.measured, filled.solved) for measured in found.values() for one in measured]
    data, machines = everything[0].data, list(dict.fromkeys(one.machine for one in everything))
    lines = [
        "Ours: mean (lowest - highest) over the seeds; accuracies lie in [0, 1]. The paper's are in percent, on other data.",
        f"Data: {data.name}, {len(data.classes)} classes, {data.num_train} images to train on, {data.num_test} to test. "
        f"Seeds: {', '.join(map(str, plan.seeds))}.",
        f"Recipe: {recipe.backbone} with {recipe.weights} weights, {recipe.size} x {recipe.size}, "
        f"{_epochs(everything, 'phase1')} epochs of phase 1 at {recipe.phase1.learning_rate:g}, "
        f"{_epochs(everything, 'phase2')} of phase 2 at {recipe.phase2.learning_rate:g}.",
        f"{'Machine' if len(machines) == 1 else 'Machines'}: {'; '.join(machines)}.",
        f"Versions: {_versions(everything)}.",
    ]
    if filled.solved:
        lines.append(
            "SGD: phase 1 by gradient descent, as in the recipe. L-BFGS: its classifier solved until it converges, with a "
            "penalty that held-out images, or a part of the training images, choose (docs/training.md)."
        )
    if filled.costs:
        lines.insert(1, _times(next(iter(filled.costs.values())), machines))
    return "\n".join(f"- {line}" for line in lines)


def _epochs(measured: Sequence[Measured], phase: str) -> str:
    """The numbers of epochs of the rows; Table 3 compares two."""
    return " or ".join(map(str, sorted({one.recipe[phase]["epochs"] for one in measured})))


def _versions(measured: Sequence[Measured]) -> str:
    """Every version of every library that a row was measured with."""
    found: dict[str, dict[str, None]] = {}
    for one in measured:
        for name, version in one.libraries.items():
            found.setdefault(name, {})[version] = None
    return ", ".join(f"{name} {' or '.join(versions)}" for name, versions in found.items())


def _times(cost: Cost, machines: list[str]) -> str:
    elsewhere = "" if machines == [cost.machine] else f" on {cost.machine}"
    return (
        f"Times: {cost.locations} x {cost.channels} features, float32, forward, {cost.device}, {cost.rounds} rounds in turn"
        f"{elsewhere}. FLOPs of one image: products and decompositions (docs/systems.md). 'Times faster' is against the "
        "slowest."
    )
