"""Every picture can be drawn of everything a training may leave; what it shows is read off the axes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from matplotlib.figure import Figure

from rankone.model.training_record import EpochRecord, RollbackRecord, TrainingRecord
from rankone.training.evaluate import compute_report
from rankone.training.metrics import reliability
from rankone.training.report import canvas, plots
from rankone.training.report.document import Picture
from rankone.training.report.findings import Spectrum
from tests.training.report.conftest import HISTORY

NAMES = ("$x^{2$", "two\nlines", "右から", "<b>", "very long " * 9)


def spectrum(before: np.ndarray) -> Spectrum:
    return Spectrum(before, before / 2, eta=0.6, iterations=2, own=True)


def epoch(phase: int, number: int, validation: float | None) -> EpochRecord:
    return EpochRecord(
        phase=phase, epoch=number, loss=1.0, train_error=0.4, validation_error=validation, learning_rate=0.1
    )


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], Picture]], Figure]:
    """The figure that a picture is saved from, as drawn for a light page."""
    figures: list[Figure] = []
    save = Figure.savefig

    def keep(figure: Figure, *args: object, **options: object) -> None:
        figures.append(figure)
        save(figure, *args, **{**options, "dpi": 20})  # type: ignore[arg-type]

    monkeypatch.setattr(Figure, "savefig", keep)

    def draw(picture: Callable[[], Picture]) -> Figure:
        made = picture()
        assert made.alt
        assert made.light.startswith(b"\x89PNG")
        assert made.dark not in (None, made.light)
        return figures[-2]

    return draw


@pytest.mark.parametrize(
    ("history", "chosen"),
    [
        (HISTORY.history, (2, 1)),
        ((epoch(1, 0, None),), None),
        ((epoch(2, 0, 0.5), epoch(2, 1, 0.3)), (2, 0)),
        (tuple(epoch(1, i, 0.0) for i in range(5)), (1, 4)),
    ],
)
def test_curves_mark_the_chosen_epoch_and_phase_2(
    drawn: Callable[..., Figure], history: tuple[EpochRecord, ...], chosen: tuple[int, int] | None
) -> None:
    figure = drawn(lambda: plots.history(TrainingRecord(steered_by="", chosen=chosen, history=history)))
    for axes in figure.axes:
        lines = {str(line.get_label()): line for line in axes.lines}
        assert ("chosen epoch" in lines) == (chosen is not None)
        if chosen is not None:
            place = [(e.phase, e.epoch) for e in history].index(chosen) + 1
            assert lines["chosen epoch"].get_xdata() == [place, place]
    errors = {str(line.get_label()): line for line in figure.axes[1].lines}
    assert list(errors["training images"].get_ydata()) == [100 * e.train_error for e in history]  # type: ignore[arg-type]
    assert ("images that select" in errors) == (history[0].validation_error is not None)


def test_curves_mark_every_epoch_in_which_training_was_rolled_back(drawn: Callable[..., Figure]) -> None:
    """Two epochs of phase 1, then the second epoch of phase 2: at 3.5 between the third and the fourth."""
    rollback = RollbackRecord(epoch=1, step=20, reason="the loss is nan", learning_rate=0.5)
    training = HISTORY.model_copy(update={"rollbacks": (rollback,)})
    for axes in drawn(lambda: plots.history(training)).axes:
        (line,) = [line for line in axes.lines if line.get_linestyle() == ":"]
        assert list(line.get_xdata()) == [3.5, 3.5]  # type: ignore[arg-type]


@pytest.mark.parametrize("count", [1, 2, 30, 31, 200])
def test_bars_go_from_the_worst_class_up_and_many_are_summed_up(drawn: Callable[..., Figure], count: int) -> None:
    accuracy = {f"class {i}": (count - i) / count for i in range(count)}
    figure = drawn(lambda: plots.per_class(accuracy, dict.fromkeys(accuracy, 7)))
    shown = count if count <= plots.NUM_BARS else plots.NUM_WORST
    bars = figure.axes[0]
    assert len(bars.patches) == shown
    assert bars.get_yticklabels()[0].get_text() == f"class {count - 1}"
    assert bars.texts[0].get_text().endswith("% of 7")
    assert len(figure.axes) == (1 if count <= plots.NUM_BARS else 2)
    if len(figure.axes) == 2:
        assert sum(bar.get_height() for bar in figure.axes[1].patches) == count  # type: ignore[attr-defined]


@pytest.mark.parametrize("count", [1, 5, 25, 60])
def test_a_matrix_of_any_size_and_any_names(drawn: Callable[..., Figure], count: int) -> None:
    counts = np.diag(np.arange(count))
    counts[0, -1] += 3
    figure = drawn(lambda: plots.confusion(counts, [*NAMES, *map(str, range(count))][:count]))
    (axes,) = figure.axes
    numbers = {text.get_text() for text in axes.texts}
    assert numbers == ({str(n) for n in counts.flat if n} if count <= 20 else set())
    arrays: list[np.ma.MaskedArray] = [np.ma.asarray(image.get_array()) for image in axes.images]
    right, wrong = (array.filled(-1) for array in arrays)
    assert (np.diag(wrong) == -1).all()
    assert count == 1 or (right[0, -1] == -1 and wrong[0, -1] == 1)
    if count == 5:
        assert [label.get_text() for label in axes.get_yticklabels()][:2] == ["$x^{2$", "two lines"]


def test_reliability_shows_filled_bins_alone(drawn: Callable[..., Figure]) -> None:
    logits = np.log([[0.9, 0.1], [0.9, 0.1], [0.7, 0.3]])
    figure = drawn(lambda: plots.calibration(reliability(logits, np.array([0, 1, 0]))))
    accuracy, gap = figure.axes[0].containers
    assert [bar.get_height() for bar in accuracy] == pytest.approx([1, 0.5])
    assert [bar.get_height() for bar in gap] == pytest.approx([-0.3, 0.4])
    assert sum(bar.get_height() for bar in figure.axes[1].containers[0]) == 3


def test_retrieval_shows_its_figures(drawn: Callable[..., Figure]) -> None:
    vectors = np.random.default_rng(0).normal(size=(20, 4))
    report = compute_report(vectors, None, np.arange(20) % 4, tuple("abcd"))
    figure = drawn(lambda: plots.retrieval(report))
    line = figure.axes[0].lines[0]
    assert list(line.get_ydata()) == pytest.approx([100 * report.metrics[f"recall_at_{k}"] for k in (1, 2, 4, 8)])  # type: ignore[arg-type]
    heights = [bar.get_height() for bar in figure.axes[1].patches]  # type: ignore[attr-defined]
    assert heights == pytest.approx([100 * report.r_precision, 100 * report.map_at_r])


@pytest.mark.parametrize("shape", [(1, 1), (3, 1), (3, 16)])
def test_values_before_and_after_by_their_mean(drawn: Callable[..., Figure], shape: tuple[int, int]) -> None:
    before = -np.sort(-np.random.default_rng(0).random(shape) - 0.1)
    figure = drawn(lambda: plots.singular_values(spectrum(before)))
    first, second = (line.get_ydata() for line in figure.axes[0].lines)
    assert list(first) == pytest.approx(before.mean(0))  # type: ignore[arg-type]
    assert list(second) == pytest.approx(before.mean(0) / 2)  # type: ignore[arg-type]


def test_black_images_have_a_spectrum_too(drawn: Callable[..., Figure]) -> None:
    assert drawn(lambda: plots.singular_values(spectrum(np.zeros((2, 4)))))


def test_labels_are_one_line_of_what_can_be_printed() -> None:
    assert canvas.shortened("two\n lines\u202e!") == "two lines !"
    assert len(canvas.shortened("x" * 100)) == 28
    assert canvas.shortened("x" * 100).endswith("…")
