"""Fine-tuning beside the paper's recipe: varied images, a time limit, fields that leave older recipes as they were."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from rankone.training.data import DataSet, evenly_spaced
from rankone.training.data.batches import augmentation, batches
from rankone.training.data.picture import picture
from rankone.training.encoder import Encoder, centre_bottleneck
from rankone.training.fit import fit
from rankone.training.loop import Budget
from rankone.training.processes import Resources
from rankone.training.recipe import Phase, Recipe, RecipeError, load_recipe
from rankone.training.run import Run
from tests.training.helpers import CPU, SMALL, StopAfter

pytestmark = pytest.mark.usefixtures("light_backbone")
NEW = {"reduce", "augment", "sampling", "train_from", "rates", "minutes"}


def test_fields_that_were_added_are_written_only_when_they_are_used() -> None:
    """Keys of measured tables and recipes of runs are made of what is written."""
    fields = Recipe().model_dump(mode="json")
    assert not NEW & fields.keys()
    assert fields["phase2"].keys() == {"epochs", "learning_rate", "weight_decay", "batch_size"}
    used = Recipe(augment="crop", phase2=Phase(epochs=1, learning_rate=1e-4, optimizer="adamw"), reduce=None)
    assert used.model_dump()["augment"] == "crop"
    assert used.model_dump()["reduce"] is None
    assert used.model_dump()["phase2"]["optimizer"] == "adamw"
    assert Recipe.model_validate(used.model_dump()) == used


def test_a_run_with_another_value_of_an_added_field_is_another_run(photos: DataSet, tmp_path: Path) -> None:
    run = Run.start(tmp_path, SMALL, photos)
    assert run._differing(SMALL.model_copy(update={"augment": "crop"}), run.data) == ["recipe.augment"]


@pytest.mark.parametrize("kind", ["crop", "strong"])
def test_images_are_varied_by_seed_epoch_and_place_alone(kind: str, photos: DataSet) -> None:
    image, spec = picture(photos.train.paths[0]), SMALL.preprocessing

    def varied(seed: int, epoch: int, place: int) -> list[int]:
        augment = augmentation(kind, seed, epoch)  # type: ignore[arg-type]
        assert augment is not None
        found = augment(image, place, spec)
        assert (found.size, found.mode) == ((32, 32), "RGB")
        return np.asarray(found).ravel().tolist()

    before = torch.random.get_rng_state()
    first = varied(0, 0, 0)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert varied(0, 0, 0) == first
    assert all(varied(*numbers) != first for numbers in ((1, 0, 0), (0, 1, 0), (0, 0, 1)))
    assert augmentation("flip", 0, 0) is None


def test_loader_processes_vary_images_alike(photos: DataSet) -> None:
    augment = augmentation("strong", 0, 0)
    loaded = [
        torch.cat(list(batches(photos.train, SMALL.preprocessing, [[0, 1], [2]], workers=workers, augment=augment)))
        for workers in (0, 1)
    ]
    assert torch.equal(*loaded)


def test_the_schedule_fits_itself_to_the_minutes(
    photos: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock that a look moves by a fixed time: the first epoch tells how many fit."""
    left = iter([100.0] * 6 + [25.0] * 1000)
    monkeypatch.setattr(Budget, "left_s", property(lambda _: next(left)))
    monkeypatch.setattr("rankone.training.loop.time.monotonic", iter(range(0, 100_000, 5)).__next__)
    lines: list[str] = []
    recipe = SMALL.model_copy(
        update={"minutes": 5.0, "phase2": Phase(epochs=50, learning_rate=1e-3, batch_size=8), "augment": "crop"}
    )
    network = recipe.build_network(len(photos.classes))
    state = fit(network, photos, Run.start(tmp_path, recipe, photos), Resources(), report_line=lines.append)
    rates = [record.learning_rate for record in state.history if record.phase == 2]
    assert 1 < len(rates) < 50
    assert rates[0] == pytest.approx(1e-3)
    assert state.num_epochs is not None
    assert any("fit into 5 minutes" in line for line in lines)


def test_an_epoch_ends_when_the_minutes_are_spent(photos: DataSet, tmp_path: Path) -> None:
    lines: list[str] = []
    recipe = SMALL.model_copy(update={"minutes": 1e-6})
    network = recipe.build_network(len(photos.classes))
    state = fit(network, photos, Run.start(tmp_path, recipe, photos), Resources(), report_line=lines.append)
    assert [record.phase for record in state.history] == [1, 1, 1]
    assert state.is_finished
    assert state.spent_s > 0
    assert any("minutes are spent" in line for line in lines)


def test_only_a_cosine_ends_with_the_minutes() -> None:
    with pytest.raises(ValidationError, match="only schedule cosine ends when the minutes do, not plateau"):
        Recipe(minutes=5, schedule="plateau")


def test_a_modern_training_resumes_to_identical_weights(photos: DataSet, tmp_path: Path) -> None:
    second = Phase(epochs=2, learning_rate=1e-3, batch_size=8, optimizer="adamw", weight_decay=0.05)
    recipe = SMALL.model_copy(
        update={"augment": "strong", "sampling": "balanced", "rates": {"backbone": 0.1}, "phase2": second, "reduce": 64}
    )
    found = []
    for name, stops in (("whole", ()), ("stopped", (12,))):
        for checks in (*stops, 10**6):
            network = recipe.build_network(len(photos.classes))
            run = Run.start(tmp_path / name, recipe, photos)
            try:
                fit(network, photos, run, Resources(stop=StopAfter(checks)), report_line=lambda _: None)
            except Exception as error:
                assert "stopped" in str(error)  # noqa: PT017
        found.append(network.state_dict())
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_the_bottleneck_is_centred_on_training_images(photos: DataSet) -> None:
    network = SMALL.model_copy(update={"reduce": 16}).build_network(None)
    encoder = Encoder(network, CPU)
    centre_bottleneck(encoder, photos.train, SMALL.preprocessing, Resources())
    assert network.backbone.bottleneck is not None
    _, norm, _ = network.backbone.bottleneck
    assert len(photos.train) == 24  # one batch of 16, and no smaller one after it
    images = next(batches(photos.train, SMALL.preprocessing, [evenly_spaced(24, 16)]))
    with torch.no_grad():
        reduced = encoder.features(images)
        drawn = network.backbone.bottleneck[0](network.backbone.locations(images).transpose(1, 2))
    assert norm.momentum == 0.1
    assert torch.allclose(norm.running_mean, drawn.mean((0, 2)), atol=1e-5)  # type: ignore[arg-type]
    shares = (reduced > 0).float().mean((0, 1))
    assert shares.min() > 0.05
    assert shares.max() < 0.95


def test_weights_that_expect_other_colors_are_refused() -> None:
    with pytest.raises(RecipeError, match=r"the weights of timm/test_vit expect mean and std .*0\.5"):
        Recipe(backbone="timm/test_vit").build_network(None, "imagenet")


def test_the_recipe_modern_is_read() -> None:
    recipe = load_recipe("modern")
    assert (recipe.augment, recipe.phase2.optimizer, recipe.reduce) == ("strong", "adamw", 256)
