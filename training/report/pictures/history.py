"""Loss, error and learning rate over both phases, with the epoch whose network was kept."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rankone.model.bundle import EpochRecord, TrainingRecord
from rankone.training.report.blocks import Picture
from rankone.training.report.pictures.canvas import Theme, figure, plain_numbers, rendered

_ALT = (
    "Three curves over the epochs of both phases: loss, error, and learning rate; lines mark the chosen epoch, and where "
    "training diverged and went back."
)


def history(training: TrainingRecord) -> Picture:
    """One panel each; epochs of phase 2 follow those of phase 1."""
    return rendered("history", _ALT, lambda theme: _draw(training, theme))


def _draw(training: TrainingRecord, theme: Theme) -> Figure:
    drawn = figure(3.0)
    loss, error, rate = drawn.subplots(1, 3)
    epochs = training.history
    _line(loss, [e.loss for e in epochs], theme.first, "training images")
    _line(loss, [e.validation_loss for e in epochs], theme.second, "images that steer")
    _line(error, [100 * e.train_error for e in epochs], theme.first, "training images")
    _line(error, [_percent(e) for e in epochs], theme.second, "images that steer")
    _line(rate, [e.learning_rate for e in epochs], theme.first, "", drawstyle="steps-mid")
    rate.set_yscale("log")
    plain_numbers(rate, "y")
    for axes, title in ((loss, "loss"), (error, "error in %"), (rate, "learning rate")):
        axes.set_title(title)
        axes.set_xlabel("epoch")
        _mark(axes, training, theme)
    loss.set_ylim(bottom=0)
    error.set_ylim(bottom=0)
    handles, labels = error.get_legend_handles_labels()
    drawn.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    return drawn


def _percent(epoch: EpochRecord) -> float | None:
    return None if epoch.validation_error is None else 100 * epoch.validation_error


def _line(axes: Axes, values: Sequence[float | None], color: str, label: str, drawstyle: str = "default") -> None:
    points = [(place, value) for place, value in enumerate(values, 1) if value is not None]
    if points:
        marker = "o" if len(points) < 4 else ""
        places, shown = zip(*points, strict=True)
        axes.plot(places, shown, color=color, label=label, marker=marker, markersize=4, drawstyle=drawstyle)


def _mark(axes: Axes, training: TrainingRecord, theme: Theme) -> None:
    """Where phase 2 begins, and the chosen epoch."""
    phases = [epoch.phase for epoch in training.history]
    if 0 < (border := phases.count(1)) < len(phases):
        axes.axvspan(border + 0.5, len(phases) + 0.5, color=theme.faint, alpha=0.25, linewidth=0, label="phase 2")
    places = [(epoch.phase, epoch.epoch) for epoch in training.history]
    if training.chosen in places:
        place = places.index(training.chosen) + 1
        axes.axvline(place, color=theme.ink, linestyle=(0, (4, 3)), linewidth=1, label="chosen epoch")
    for number, record in enumerate(training.returns):
        label = "went back to the best network" if number == 0 else ""
        axes.axvline(border + record.epoch + 0.5, color=theme.second, linestyle="dotted", linewidth=1.5, label=label)
    axes.set_xlim(0.5, len(phases) + 0.5)
