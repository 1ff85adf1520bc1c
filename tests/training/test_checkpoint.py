from __future__ import annotations

import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from rankone.training import checkpoint, pipeline
from rankone.training.checkpoint import CheckpointError, State, latest, load, save
from rankone.training.data import DataSet
from rankone.training.recipe import Phase
from rankone.training.run import Run
from rankone.training.state import Progress
from tests.training.test_fit import SMALL

pytestmark = pytest.mark.usefixtures("light_backbone")

ABOUT = {"recipe": {"size": 32}, "data": {"name": "few"}, "libraries": {"torch": "2"}, "git_revision": None}


def state(value: float = 1.0, step: int = 3) -> State:
    network = {"weight": torch.full((1000,), value), "channels_last": torch.ones(1, 2, 3, 4).permute(0, 2, 3, 1)}
    momentum = {"momentum_buffer": torch.full((3,), value)}
    return State(Progress(step=step), {"network": network, "best": {"weight": torch.zeros(2)}}, {"state": momentum})


@contextmanager
def files_limited_to(num_bytes: int) -> Iterator[None]:
    """Within, writing further into any file fails, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    assert load(tmp_path) is None
    path = save(tmp_path, state(), ABOUT)
    found = load(tmp_path)
    assert found is not None
    assert found.progress == Progress(step=3)
    assert {name: sorted(tensors) for name, tensors in found.tensors.items()} == {
        "network": ["channels_last", "weight"],
        "best": ["weight"],
    }
    assert torch.equal(found.tensors["network"]["weight"], torch.ones(1000))
    assert torch.equal(found.optimizer["state"]["momentum_buffer"], torch.ones(3))
    sidecar = json.loads((path / "checkpoint.json").read_text())
    assert {name: sidecar[name] for name in ABOUT} == ABOUT
    assert sidecar["progress"]["step"] == 3


def test_there_is_one_checkpoint_and_what_was_left_half_written_is_none(tmp_path: Path) -> None:
    first = save(tmp_path, state(step=1), ABOUT)
    second = save(tmp_path, state(step=2), ABOUT)
    assert (first.exists(), latest(tmp_path)) == (False, second)
    (tmp_path / ".checkpoint-000003.partial").mkdir()
    (tmp_path / ".checkpoint-000003.partial" / "network.safetensors").write_bytes(b"half")
    found = load(tmp_path)
    assert found is not None
    assert found.progress.step == 2
    assert save(tmp_path, state(step=3), ABOUT) == latest(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-000003"]


@pytest.mark.parametrize("limit", [0, 100, 4000])
def test_a_full_disk_leaves_the_checkpoint_that_was_there(tmp_path: Path, limit: int) -> None:
    """Full before the first byte, within the header and within the tensors."""
    kept = save(tmp_path, state(1.0), ABOUT)
    with files_limited_to(limit), pytest.raises(CheckpointError, match="The one before is as it was; make room"):
        save(tmp_path, state(2.0), ABOUT)
    assert list(tmp_path.iterdir()) == [kept]
    found = load(tmp_path)
    assert found is not None
    assert torch.equal(found.tensors["network"]["weight"], torch.ones(1000))
    assert torch.equal(found.optimizer["state"]["momentum_buffer"], torch.ones(3))


def test_a_disk_that_fills_up_in_training_loses_nothing(photos: DataSet, tmp_path: Path) -> None:
    """Room for the embeddings, none for a second checkpoint; when there is room again, the run goes on to its end."""
    recipe = SMALL.model_copy(update={"phase2": Phase(epochs=1, learning_rate=1e-3, batch_size=8)})
    run = Run.start(tmp_path, recipe, photos)
    network = pipeline.network_of(recipe, len(photos.classes))
    run.save(State(Progress(), {"network": network.state_dict()}))
    with files_limited_to(1_000_000), pytest.raises(CheckpointError, match="make room"):
        pipeline.train(photos, recipe, tmp_path)
    assert pipeline.trained(tmp_path, photos)[2].position == (1, 0, 0)
    assert pipeline.train(photos, recipe, tmp_path).finished


def test_a_damaged_checkpoint_or_one_of_another_version_says_so(tmp_path: Path) -> None:
    path = save(tmp_path, state(), ABOUT)
    data = (path / "network.safetensors").read_bytes()
    (path / "network.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(CheckpointError, match="checkpoint-000001 cannot be read"):
        load(tmp_path)
    sidecar = json.loads((path / "checkpoint.json").read_text())
    (path / "checkpoint.json").write_text(json.dumps({**sidecar, "schema_version": 1}))
    with pytest.raises(CheckpointError, match="written by another version of rankone; train again"):
        load(tmp_path)


def test_an_optimizer_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path, state(), ABOUT)
    torch.save({"evil": print}, path / "optimizer.pt")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load(tmp_path)


def test_a_checkpoint_of_another_network_is_refused(photos: DataSet, tmp_path: Path) -> None:
    run = Run.start(tmp_path, SMALL, photos)
    run.save(state())
    with pytest.raises(CheckpointError, match="is of another network"):
        run.load(pipeline.network_of(SMALL, 4))


def test_the_sidecar_tells_which_source_wrote_it(monkeypatch: pytest.MonkeyPatch) -> None:
    revision = checkpoint.git_revision()
    assert revision is None or len(revision.removesuffix("+")) == 40
    monkeypatch.setenv("PATH", "")
    assert checkpoint.git_revision() is None
