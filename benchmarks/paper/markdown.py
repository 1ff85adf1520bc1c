"""A filled table as Markdown: our figures, and the paper's beside them."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean

from benchmarks.paper.book import Filled
from benchmarks.paper.cost import Cost
from benchmarks.paper.measure import Measured
from benchmarks.paper.plan import Row

Cells = dict[str, str]


def markdown(filled: Filled) -> str:
    """The table with its title and how it was made."""
    lines = [_cells(filled, row) for row in filled.table.rows]
    columns = list(dict.fromkeys(column for cells in lines for column in cells))
    rule = ["---"] + ["---:"] * (len(columns) - 1)
    body = [[cells.get(column, "") for column in columns] for cells in lines]
    table = "\n".join("| " + " | ".join(row) + " |" for row in (columns, rule, *body))
    picture = f"![{heading(filled)}](table-{filled.name}.png)"
    return f"# {heading(filled)}\n\n{filled.table.title}.\n\n{table}\n\n{picture}\n\n{footer(filled)}\n"


def heading(filled: Filled) -> str:
    """`Table 4` or `Figure 2`."""
    kind, number = ("Figure", filled.name.removeprefix("figure")) if "figure" in filled.name else ("Table", filled.name)
    return f"{kind} {number}"


def spread(values: Sequence[float], pattern: str = "{:.3f}") -> str:
    """Mean, lowest and highest."""
    low, high = pattern.format(min(values)), pattern.format(max(values))
    return f"{pattern.format(mean(values))} ({low} - {high})"


def human(count: int) -> str:
    """A count of FLOPs in M or G, with three figures."""
    return f"{count / 1e9:.2f} G" if count >= 1e8 else f"{count / 1e6:.1f} M"


def _cells(filled: Filled, row: Row) -> Cells:
    measured = filled.measured[row.title]
    cells = {filled.table.axis or "": row.title}
    if row.contender is not None:
        cost = filled.costs[row.contender]
        slowest = max(other.median_ms for other in filled.costs.values())
        cells |= {
            "FLOPs": human(cost.flops),
            f"ms, batch of {cost.batch} (quartiles)": f"{cost.median_ms:.1f} ({cost.low_ms:.1f} - {cost.high_ms:.1f})",
            "times faster": f"{slowest / cost.median_ms:.1f}",
        }
    if filled.table.kind in {"ratio", "scatter"}:
        cells["sigma1 / sigma2"] = spread([one.mean_ratio for one in measured], "{:.2f}")
    if filled.table.kind == "scatter":
        cells["after RUN"] = spread([one.mean_ratio_after for one in measured], "{:.2f}")
    if filled.table.kind == "curve":
        cells |= {f"after phase {phase}": _held_out(measured, phase) for phase in (1, 2)}
    cells |= {"test accuracy": _metric(measured, "top1"), "recall@1": _metric(measured, "recall_at_1")}
    return cells | {f"paper: {column}": figure for column, figure in row.paper.items()}


def _metric(measured: Sequence[Measured], name: str) -> str:
    return spread([one.metrics[name] for one in measured])


def _held_out(measured: Sequence[Measured], phase: int) -> str:
    """Accuracy on the held-out images in the last epoch of the phase; nothing where there are none."""
    last = [[e for e in one.history if e.phase == phase and e.validation_error is not None][-1:] for one in measured]
    values = [1 - epoch.validation_error for epochs in last for epoch in epochs if epoch.validation_error is not None]
    return spread(values) if values else ""


def _epochs(filled: Filled, phase: str) -> str:
    """How many the rows were trained for; Table 3 holds two lengths against each other."""
    counts = {one.recipe[phase]["epochs"] for measured in filled.measured.values() for one in measured}
    return " or ".join(map(str, sorted(counts)))


def _machines(filled: Filled) -> list[str]:
    """Where the rows were measured: a table that was broken off may have gone on elsewhere."""
    return list(dict.fromkeys(one.machine for measured in filled.measured.values() for one in measured))


def _versions(filled: Filled) -> str:
    """Of every library, each that a row was measured with."""
    found: dict[str, dict[str, None]] = {}
    for one in (one for measured in filled.measured.values() for one in measured):
        for name, version in one.libraries.items():
            found.setdefault(name, {})[version] = None
    return ", ".join(f"{name} {' or '.join(versions)}" for name, versions in found.items())


def footer(filled: Filled) -> str:
    """Data, recipe, seeds, machines and versions: what the figures belong to."""
    plan = filled.plan
    one = next(iter(filled.measured.values()))[0]
    recipe, machines = plan.recipe, _machines(filled)
    lines = [
        "Ours: mean (lowest - highest) over the seeds; accuracies lie in [0, 1]. The paper's are in percent, on other data.",
        f"Data: {one.data.name}, {len(one.data.classes)} classes, {one.data.num_train} images to train on, "
        f"{one.data.num_test} to test. Seeds: {', '.join(map(str, plan.seeds))}.",
        f"Recipe: {recipe.backbone} with {recipe.weights} weights, {recipe.size} x {recipe.size}, "
        f"{_epochs(filled, 'phase1')} epochs of phase 1 at {recipe.phase1.learning_rate:g}, "
        f"{_epochs(filled, 'phase2')} of phase 2 at {recipe.phase2.learning_rate:g}.",
        f"{'Machine' if len(machines) == 1 else 'Machines'}: {'; '.join(machines)}.",
        f"Versions: {_versions(filled)}.",
    ]
    if filled.costs:
        lines.insert(1, _times(next(iter(filled.costs.values())), machines))
    return "\n".join(f"- {line}" for line in lines)


def _times(cost: Cost, machines: list[str]) -> str:
    elsewhere = "" if machines == [cost.machine] else f" on {cost.machine}"
    return (
        f"Times: {cost.locations} x {cost.channels} features, float32, forward, {cost.device}, {cost.rounds} rounds in turn"
        f"{elsewhere}. FLOPs of one image: products and decompositions (docs/systems.md). 'Times faster' is against the "
        "slowest."
    )
