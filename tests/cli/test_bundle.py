from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import save_file

from rankone.__main__ import run
from rankone.cli.bundle import bundle as command
from rankone.model.backbone import WeightsError
from rankone.model.bundle import ONNX, open_bundle
from rankone.model.engine import load_engine
from rankone.training.data import DataSet
from rankone.training.recipe import Phase, PoolingRecipe
from tests.conftest import CLASSES, RECIPE
from tests.light import one_layer

pytestmark = pytest.mark.usefixtures("light_backbone", "_undrawn")

SMALL = RECIPE.model_copy(
    update={
        "size": 32,
        "pooling": PoolingRecipe(options={"dim": 300}),
        "phase1": Phase(epochs=2, learning_rate=1),
        "phase2": Phase(epochs=0, learning_rate=1),
    }
)


@pytest.fixture
def home(tmp_path: Path, photos: DataSet, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a small recipe and few photographs, where ImageNet weights are neither cached nor to be had."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "photos").symlink_to(photos.train.paths[0].parents[2])
    (tmp_path / "small.yaml").write_text(SMALL.yaml())
    (tmp_path / "imagenet.yaml").write_text(SMALL.model_copy(update={"weights": "imagenet"}).yaml())
    return tmp_path


def test_pretrained_weights_become_a_bundle_that_embeds_and_knows_no_classes(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_file(one_layer().convolutions.state_dict(), home / "mine.safetensors")
    arguments = ["init", "bundles", "--recipe", "small.yaml", "--weights", "mine.safetensors", "--work", "work"]
    command(arguments)
    made = open_bundle(home / "bundles" / "first")
    assert (made.manifest.name, made.manifest.classes, made.manifest.dim) == ("mine-cbp-run", None, 300)
    assert made.manifest.parity[ONNX].num_images == 14
    assert (made.manifest.dataset, made.manifest.training, made.manifest.metrics) == (None, None, {})
    outputs = load_engine(made, "onnx", "cpu", 1).run(np.ones((2, 3, 32, 32), np.float32))
    assert outputs.embedding.shape == (2, 300)
    assert outputs.logits is None

    (made.path / ONNX).write_bytes(b"something else")  # for the service to refuse, not for this command to mend
    made.path.rename(home / "bundles" / "mine")
    command(arguments)
    assert "bundles holds mine; the service" in " ".join(capsys.readouterr().out.split())
    assert not made.path.exists()


def test_without_weights_it_stops_and_says_so_unless_a_fallback_is_named(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["init", "bundles", "--recipe", "imagenet.yaml", "--work", "work"]
    with pytest.raises(WeightsError, match=r"could not be downloaded.* nothing is served.* set RANKONE_DEMO=true"):
        command(arguments)
    assert not (home / "bundles").exists()
    command([*arguments, "--fallback", "small.yaml"])
    said = " ".join(capsys.readouterr().out.split())
    assert "WARNING, another bundle: the ImageNet weights of vgg16 could not be downloaded" in said
    assert "Training by the recipe 'small.yaml' on the photographs instead" in said
    made = open_bundle(home / "bundles" / "first").manifest
    assert (made.name, made.classes) == ("photos-cbp-run", CLASSES)


@pytest.mark.parametrize(("value", "fallback"), [("true", "demo"), ("1", "demo"), ("false", None), ("", None)])
def test_a_demo_is_made_only_where_the_variable_says_so(
    value: str, fallback: str | None, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made: list[str] = []
    monkeypatch.setenv("RANKONE_DEMO", value)
    monkeypatch.setattr("rankone.cli.bundle._train", lambda _path, recipe, _work: made.append(recipe))
    status = run("bundle", ["init", "bundles", "--recipe", "imagenet.yaml", "--work", str(home / "work")])
    assert (status, made) == ((0, [fallback]) if fallback else (2, []))
    assert ("nothing is served" in capsys.readouterr().err) is (fallback is None)


def test_a_variable_that_says_neither_is_named(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANKONE_DEMO", "perhaps")
    assert run("bundle", ["init", str(home / "bundles")]) == 2
    assert "RANKONE_DEMO=perhaps: set it to true or false" in capsys.readouterr().err
