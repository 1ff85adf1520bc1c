"""Bad images are found before anything is trained: all of them, in every split; or they are left out and listed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from rankone.model.preprocessing import Preprocessing
from rankone.training import pipeline
from rankone.training.checkpoint import is_trained, latest
from rankone.training.data import DataError, DataSet, load_folder
from rankone.training.export import Description, ExportError, write_bundle
from rankone.training.processes import Resources, StopRequest
from rankone.training.run import Run, RunError
from rankone.training.state import TrainingState
from rankone.training.usable import usable
from tests.training.data.trees import image
from tests.training.helpers import SMALL
from tests.training.test_checkpoint import files_limited_to

SPEC = Preprocessing(size=32)
SHORT = SMALL.model_copy(update={"phase2": SMALL.phase2.model_copy(update={"epochs": 0})})

pytestmark = pytest.mark.usefixtures("light_backbone", "_undrawn")


@pytest.fixture
def data(tmp_path: Path) -> DataSet:
    """Two classes, three images of each to train on, one for validation, three for testing."""
    for split, count in (("train", 3), ("val", 1), ("test", 3)):
        for label in "ab":
            for number in range(count):
                image(tmp_path / "data" / split / label / f"{number}.png", form="PNG", size=(40, 40))
    return load_folder(tmp_path / "data")


def spoil(data: DataSet) -> list[Path]:
    assert data.validation is not None
    bad = [data.train.paths[1], data.validation.paths[0], data.test.paths[4]]
    bad[0].write_text("not an image")
    bad[1].write_bytes(bad[1].read_bytes()[:90])
    bad[2].unlink()
    return bad


def test_all_bad_images_are_named_at_once_and_nothing_begins(data: DataSet, tmp_path: Path) -> None:
    bad = spoil(data)
    with pytest.raises(DataError) as raised:
        pipeline.train(data, SHORT, tmp_path / "run")
    first, *lines = str(raised.value).splitlines()
    assert first.startswith("3 of 14 images cannot be used; mend or remove them, or give --skip-bad")
    assert [line.split(": ")[0].strip() for line in lines] == [str(bad[2]), str(bad[0]), str(bad[1])]
    assert [line.rpartition(" ")[2] for line in lines] == ["(test)", "(train)", "(validation)"]
    assert not (tmp_path / "run").exists()


def test_they_can_be_left_out_and_are_listed_in_the_report(
    data: DataSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad, run = spoil(data), tmp_path / "run"
    assert pipeline.train(data, SHORT, run, skip_bad=True).is_finished
    printed = capsys.readouterr().out
    assert printed.count("skipped: ") == 3
    assert "not exported: an export is checked on at least 7 test images, and there are 5" in printed
    record = json.loads((run / "dataset.json").read_text())
    assert [record[name] for name in ("num_train", "num_validation", "num_test")] == [5, 1, 5]
    assert pipeline.evaluate(run, data).num_images == 5
    report = (run / "report.md").read_text()
    assert "Skipped images" in report
    assert all(str(path) in report for path in bad)
    with pytest.raises(ExportError, match="at least 7 images, got 5"):
        pipeline.export(run, data, tmp_path / "bundle")


def test_a_class_without_any_good_image_is_not_left_out(data: DataSet) -> None:
    for path in data.test.paths[:3]:
        path.write_bytes(b"")
    with pytest.raises(DataError, match=r"no image of these classes can be used: a \(test\)"):
        usable(data, SPEC, Resources(), skip_bad=True)
    assert usable(data, SPEC, Resources(), splits=("train",)) == (data, ())


def test_the_check_can_be_stopped(data: DataSet, tmp_path: Path) -> None:
    stop = StopRequest()
    stop.requested = True
    with pytest.raises(Exception, match="stopped while the images were checked; nothing is trained yet"):
        usable(data, SPEC, Resources(stop=stop))


def test_a_run_in_which_nothing_was_trained_is_started_again_with_the_mended_data(
    data: DataSet, tmp_path: Path
) -> None:
    """Also if a checkpoint of before the first step is there; once something is trained, other data is refused."""
    run, mended = tmp_path / "run", replace(data, train=data.train.at([0, 1, 3, 4]))
    started = Run.start(run, SHORT, data)
    network = SHORT.build_network(2)
    state = TrainingState()
    state.capture(network, None)
    started.save(state)
    assert latest(run) is not None
    assert not is_trained(run)
    assert pipeline.train(mended, SHORT, run).is_finished
    assert json.loads((run / "dataset.json").read_text())["num_train"] == 4
    pipeline.train(mended, SHORT, tmp_path / "other")
    one, other = (pipeline.trained(path, mended)[1].state_dict() for path in (run, tmp_path / "other"))
    assert all(torch.equal(one[name], other[name]) for name in one), "it starts from the recipe's weights"
    with pytest.raises(RunError, match=r"another recipe or other data \(data.num_train, data.fingerprint\)"):
        pipeline.train(data, SHORT, run)


def test_a_full_disk_in_an_export_is_a_sentence(tmp_path: Path) -> None:
    network, images = SHORT.build_network(2), np.zeros((7, 3, 32, 32), np.float32)
    alone = Description(name="n", version="1", classes=None, metrics={}, dataset=None)
    with files_limited_to(1000), pytest.raises(ExportError, match="the disk is full. Nothing is left of it; make room"):
        write_bundle(network, SHORT, images, tmp_path / "bundle", alone)
    assert not list(tmp_path.iterdir())
