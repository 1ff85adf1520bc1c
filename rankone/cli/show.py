"""What the commands print: a few lines for a person at a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rankone.model.bundle import Bundle, summary
from rankone.model.folders import name_of

if TYPE_CHECKING:  # the commands that only talk to a service start without torch
    from rankone.training.evaluate import Report
    from rankone.training.short import LengthFigures, ShortReport
    from rankone.training.state import TrainingState

console = Console(highlight=False)
_NUM_CLASSES: Final = 10


def step(name: str, text: str) -> None:
    """A step of the work, and what came of it."""
    console.print(f"[bold]{name}[/bold]: {escape(text)}")


def alarm(name: str, text: str) -> None:
    """What must not be missed."""
    console.print(f"[bold red]WARNING, {name}: {escape(text)}[/bold red]")


def left_out(groups: Sequence[str]) -> None:
    """What folders hold beside the images that are used, a line for every ending and reason."""
    for group in groups:
        print(f"left out: {group}")


def training(state: TrainingState, run: Path) -> None:
    """The last epoch of each phase."""
    for phase in (1, 2):
        epochs = [record for record in state.history if record.phase == phase]
        if epochs:
            last = epochs[-1]
            held_out = "" if last.validation_error is None else f", held-out {1 - last.validation_error:.3f}"
            accuracy = f"training accuracy {1 - last.train_error:.3f}{held_out}"
            fit = state.phase1_fit if phase == 1 else None
            steps = f"{len(epochs)} epochs" if fit is None else f"{fit.final.iterations} iterations of L-BFGS"
            console.print(f"phase {phase}: {steps}, loss {last.loss:.3f}, {accuracy}")
    if state.chosen is not None:
        phase, epoch = state.chosen
        console.print(f"chosen: epoch {epoch + 1} of phase {phase}, the best on the images that select")
    console.print(escape(f"run: {name_of(run)}"))


def report(measured: Report, home: Path) -> None:
    """What phase 2 gained, the figures with their intervals, the worst classes, and where the whole report is."""
    from rankone.training.evaluate import gain

    if gained := gain(measured):
        step("gain", gained)
    figures = {name: _figure(measured, name) for name in measured.metrics}
    lines({"test images": str(measured.num_images), **figures})
    if measured.short is not None:
        short(measured.short)
    accuracies = {name: value for name, value in (measured.per_class or {}).items() if value is not None}
    worst = sorted(accuracies.items(), key=lambda pair: pair[1])[:_NUM_CLASSES]
    if worst:
        listed = ", ".join(f"{name} {value:.2f}" for name, value in worst)
        console.print(escape(f"lowest of {len(accuracies)} classes: {listed}"))
    console.print(escape(f"report: {name_of(home)}/report.html"))


def short(measured: ShortReport) -> None:
    """Recall@1 by the length of the embedding, and the recommended length."""
    table = Table("numbers", "recall@1 on test images", "on unseen classes", box=None, pad_edge=False)
    unseen = measured.unseen or []
    others = {
        (one.length, one is unseen[-1]): one for one in unseen
    }  # the full embedding may be as long as a short one
    for one in measured.test:
        is_full = one is measured.test[-1]
        other = others.get((one.length, is_full))
        cells = [_with_interval(one), "" if other is None else _with_interval(other)]
        table.add_row(f"{one.length:,}{' (full)' if is_full else ''}", *cells)
    console.print(table)
    step("short embeddings", f"{measured.recommended} numbers are recommended: more gain less than a point of recall@1")


def _with_interval(one: LengthFigures) -> str:
    low, high = one.intervals["recall_at_1"]
    return f"{one.recall_at_1:.3f}  ({low:.3f} - {high:.3f})"


def _figure(measured: Report, name: str) -> str:
    low, high = measured.intervals.get(name, (None, None))
    return f"{measured.metrics[name]:.3f}" + ("" if low is None else f"  ({low:.3f} - {high:.3f})")


def doubts(measured: Report | None) -> None:
    """Warns of a network that should not be used."""
    from rankone.training.evaluate import doubts as reasons

    for reason in [] if measured is None else reasons(measured):
        alarm("weak network", reason)


def bundle(written: Bundle) -> None:
    """What the bundle is, and how its forms agree with the network."""
    parity = {
        name: f"cosine >= {record.min_cosine:.7f} on {record.num_images} images"
        for name, record in written.manifest.parity.items()
    }
    lines({"bundle": name_of(written.path), **summary(written), **parity})


def lines(pairs: dict[str, str]) -> None:
    """Names and values, aligned."""
    table = Table.grid(padding=(0, 2))
    for name, value in pairs.items():
        table.add_row(f"[dim]{name}[/dim]", escape(value))
    console.print(table)
