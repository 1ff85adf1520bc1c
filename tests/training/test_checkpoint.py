from __future__ import annotations

import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

from rankone.training import checkpoint, pipeline
from rankone.training.checkpoint import CheckpointError, latest, load, save
from rankone.training.data import DataSet
from rankone.training.recipe import Phase
from rankone.training.run import Run
from rankone.training.state import TrainingState
from tests.training.helpers import SMALL

pytestmark = pytest.mark.usefixtures("light_backbone")

RECIPE, DATA = {"size": 32}, {"name": "few"}


def state(value: float = 1.0, step: int = 3) -> TrainingState:
    network = {"weight": torch.full((1000,), value), "channels_last": torch.ones(1, 2, 3, 4).permute(0, 2, 3, 1)}
    momentum = {"momentum_buffer": torch.full((3,), value)}
    tensors = {"network": network, "best": {"weight": torch.zeros(2)}}
    return TrainingState(step=step, tensors=tensors, optimizer={"state": momentum})


@contextmanager
def files_limited_to(num_bytes: int) -> Iterator[None]:
    """Within, writing further into any file fails, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_rollbacks_are_read_under_their_earlier_name(tmp_path: Path) -> None:
    before = state()
    before.roll_back("the loss is nan", 0.5)
    path = save(tmp_path, before, RECIPE, DATA) / "checkpoint.json"
    path.write_text(path.read_text().replace('"rollbacks"', '"returns"'))
    found = load(tmp_path)
    assert found is not None
    assert found.rollbacks == before.rollbacks


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    assert load(tmp_path) is None
    path = save(tmp_path, state(), RECIPE, DATA)
    found = load(tmp_path)
    assert found is not None
    assert found.model_dump() == TrainingState(step=3).model_dump()
    assert {name: sorted(tensors) for name, tensors in found.tensors.items()} == {
        "network": ["channels_last", "weight"],
        "best": ["weight"],
    }
    assert torch.equal(found.tensors["network"]["weight"], torch.ones(1000))
    assert torch.equal(found.optimizer["state"]["momentum_buffer"], torch.ones(3))
    sidecar = json.loads((path / "checkpoint.json").read_text())
    assert (sidecar["recipe"], sidecar["data"], sidecar["state"]["step"]) == (RECIPE, DATA, 3)
    assert sidecar["libraries"]["torch"] == version("torch")


def test_there_is_one_checkpoint_and_what_was_left_half_written_is_none(tmp_path: Path) -> None:
    first = save(tmp_path, state(step=1), RECIPE, DATA)
    second = save(tmp_path, state(step=2), RECIPE, DATA)
    assert (first.exists(), latest(tmp_path)) == (False, second)
    (tmp_path / ".checkpoint-000003.partial").mkdir()
    (tmp_path / ".checkpoint-000003.partial" / "network.safetensors").write_bytes(b"half")
    found = load(tmp_path)
    assert found is not None
    assert found.step == 2
    assert save(tmp_path, state(step=3), RECIPE, DATA) == latest(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-000003"]


@pytest.mark.parametrize("limit", [0, 100, 4000])
def test_a_full_disk_leaves_the_checkpoint_that_was_there(tmp_path: Path, limit: int) -> None:
    """Full before the first byte, within the header and within the tensors."""
    kept = save(tmp_path, state(1.0), RECIPE, DATA)
    with files_limited_to(limit), pytest.raises(CheckpointError, match="The one before is as it was; make room"):
        save(tmp_path, state(2.0), RECIPE, DATA)
    assert list(tmp_path.iterdir()) == [kept]
    found = load(tmp_path)
    assert found is not None
    assert torch.equal(found.tensors["network"]["weight"], torch.ones(1000))
    assert torch.equal(found.optimizer["state"]["momentum_buffer"], torch.ones(3))


def test_a_disk_that_fills_up_in_training_loses_nothing(photos: DataSet, tmp_path: Path) -> None:
    """Room for the embeddings, none for a second checkpoint; when there is room again, the run goes on to its end."""
    recipe = SMALL.model_copy(update={"phase2": Phase(epochs=1, learning_rate=1e-3, batch_size=8)})
    run = Run.start(tmp_path, recipe, photos)
    network = recipe.build_network(len(photos.classes))
    start = TrainingState()
    start.capture(network, None)
    run.save(start)
    with files_limited_to(1_000_000), pytest.raises(CheckpointError, match="make room"):
        pipeline.train(photos, recipe, tmp_path)
    assert pipeline.train(photos, recipe, tmp_path).is_finished


def test_a_damaged_checkpoint_or_one_of_another_version_says_so(tmp_path: Path) -> None:
    path = save(tmp_path, state(), RECIPE, DATA)
    data = (path / "network.safetensors").read_bytes()
    (path / "network.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(CheckpointError, match="checkpoint-000001 cannot be read"):
        load(tmp_path)
    sidecar = json.loads((path / "checkpoint.json").read_text())
    (path / "checkpoint.json").write_text(json.dumps({**sidecar, "schema_version": 2}))
    with pytest.raises(
        CheckpointError, match=r"another version of rankone \(checkpoint format 2, .* reads 3\); train again"
    ):
        load(tmp_path)


def test_an_optimizer_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path, state(), RECIPE, DATA)
    torch.save({"evil": print}, path / "optimizer.pt")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load(tmp_path)


def test_a_checkpoint_of_another_network_is_refused(photos: DataSet, tmp_path: Path) -> None:
    run = Run.start(tmp_path, SMALL, photos)
    run.save(state())
    with pytest.raises(CheckpointError, match="is of another network"):
        run.load(SMALL.build_network(4))


def test_the_sidecar_tells_which_source_wrote_it(monkeypatch: pytest.MonkeyPatch) -> None:
    revision = checkpoint.git_revision()
    assert revision is None or len(revision.removesuffix("+")) == 40
    monkeypatch.setenv("PATH", "")
    assert checkpoint.git_revision() is None
