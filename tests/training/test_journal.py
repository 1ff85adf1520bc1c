from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from rankone.training.journal import ExtraMissing, Journal
from rankone.training.state import TrainingState


def lines(folder: Path) -> list[tuple[object, ...]]:
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [(line["kind"], line["phase"], line["epoch"], line.get("step")) for line in found]


def write(folder: Path, epochs: int = 2, steps: int = 3) -> None:
    state = TrainingState()
    with Journal(folder, state) as journal:
        for _ in range(epochs):
            for _ in range(steps):
                journal.step(state, loss=0.5)
                state.add_step(0.5, 0, 1)
            journal.epoch(state.end_epoch(None, 1.0).model_dump())


def test_every_step_and_epoch_is_a_line(tmp_path: Path) -> None:
    write(tmp_path)
    assert lines(tmp_path) == [
        *(("step", 1, 0, step) for step in range(3)),
        ("epoch", 1, 0, None),
        *(("step", 1, 1, step) for step in range(3)),
        ("epoch", 1, 1, None),
    ]
    first = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[0])
    assert first["loss"] == 0.5


@pytest.mark.parametrize(
    ("position", "kept"), [((1, 0, 0), 0), ((1, 0, 2), 2), ((1, 1, 0), 4), ((1, 1, 3), 7), ((2, 0, 0), 8)]
)
def test_lines_of_what_will_be_repeated_are_removed(tmp_path: Path, position: tuple[int, int, int], kept: int) -> None:
    write(tmp_path)
    whole = lines(tmp_path)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "step", "phase": 1, "ep')  # as a power cut leaves it
    phase, epoch, step = position
    with Journal(tmp_path, TrainingState(phase=phase, epoch=epoch, step=step)):
        pass
    assert lines(tmp_path) == whole[:kept]


@pytest.mark.parametrize("kind", ["rollback", "return"])
def test_the_lines_of_rollbacks_stay(tmp_path: Path, kind: str) -> None:
    """Also under their earlier name; only the state knows which of them will be repeated."""
    state = TrainingState(phase=2)
    with Journal(tmp_path, state) as journal:
        for _ in range(2):
            journal.step(state, loss=9.0)
            state.add_step(9.0, 0, 1)
            state.roll_back("the loss is nan", 0.5)
            journal.roll_back(state)
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text().replace('"rollback"', f'"{kind}"'))
    with Journal(tmp_path, state.model_copy(update={"rollbacks": state.rollbacks[:1]})):
        pass
    assert lines(tmp_path) == [(kind, 2, 0, 1)]


def test_without_a_folder_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with Journal(None, TrainingState(), tensorboard=True) as journal:
        journal.step(TrainingState(), loss=1.0)
    assert not list(tmp_path.iterdir())


def test_tensorboard_gets_every_epoch(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    state = TrainingState(num_seen=1, loss_sum=0.25)
    with Journal(tmp_path, state, tensorboard=True) as journal:
        journal.epoch(state.end_epoch((0.5, 2.0), 1.0).model_dump())
    state = TrainingState(num_seen=1, loss_sum=0.75)  # killed before it was saved: the epoch is there again
    with Journal(tmp_path, state, tensorboard=True) as journal:
        journal.epoch(state.end_epoch((0.25, 2.0), 1.0).model_dump())
    events = EventAccumulator(str(tmp_path / "tensorboard" / "phase1"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(0, 0.75)]
    assert [(event.step, event.value) for event in events.Scalars("validation_error")] == [(0, 0.25)]


def test_tensorboard_that_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ExtraMissing, match=r"pip install 'rankone\[tensorboard\]'"):
        Journal(tmp_path, TrainingState(), tensorboard=True)
