from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from rankone.training import pipeline
from rankone.training.data import DataSet, Split
from rankone.training.recipe import Phase
from rankone.training.selection import hold_out, training_images
from tests.training.helpers import SMALL

pytestmark = pytest.mark.usefixtures("light_backbone")


def test_held_out_images_are_of_every_class_and_never_all() -> None:
    split = Split(tuple(Path(str(i)) for i in range(23)), (0,) * 20 + (1,) * 2 + (2,))
    fitted, held_out = hold_out(split, 0.1, seed=0)
    assert sorted(fitted + held_out) == list(range(23))
    assert [split.labels[i] for i in held_out].count(0) == 2
    assert [split.labels[i] for i in held_out].count(1) == 1
    assert [split.labels[i] for i in held_out].count(2) == 0
    assert hold_out(split, 0.0, seed=0) == (list(range(23)), [])
    assert hold_out(split, 0.1, seed=1) != (fitted, held_out)


def test_images_of_the_training_set_select_unless_there_are_others(photos: DataSet) -> None:
    held_out = training_images(photos, SMALL)
    assert held_out.held_out is not None
    assert set(held_out.held_out.paths) | set(held_out.fitted.paths) == set(photos.train.paths)
    assert not set(held_out.held_out.paths) & set(held_out.fitted.paths)
    assert held_out.description == "4 images held out of the training images (20 % of every class, seed 0)."

    own = training_images(replace(photos, validation=photos.test), SMALL)
    assert (own.fitted, own.held_out) == (photos.train, photos.test)
    assert own.description == "16 validation images of the data set."

    nothing = training_images(photos, SMALL.model_copy(update={"validation": 0.0}))
    assert (nothing.fitted, nothing.held_out) == (photos.train, None)
    assert (nothing.selecting, held_out.selecting) == (photos.train, held_out.held_out)
    assert "(the epoch by their loss), as no images were held out" in nothing.description
    single = replace(photos, train=photos.train.at([0, 6, 12, 18]))
    assert training_images(single, SMALL) == replace(nothing, fitted=single.train)


def test_only_the_papers_protocol_selects_on_test_images_and_says_so(photos: DataSet) -> None:
    images = training_images(photos, SMALL.model_copy(update={"protocol": "paper"}))
    assert (images.fitted, images.held_out) == (photos.train, photos.test)
    assert "test images themselves" in images.description
    assert "flatter" in images.description


def test_training_does_not_look_at_the_test_images(photos: DataSet, tmp_path: Path) -> None:
    """With a hold-out, other test images give the same network."""
    recipe = SMALL.model_copy(update={"phase2": Phase(epochs=1, learning_rate=1e-3, batch_size=8)})
    other = replace(photos, test=replace(photos.test, paths=photos.test.paths[::-1]))
    networks = []
    for name, data in (("one", photos), ("other", other)):
        assert pipeline.train(data, recipe, tmp_path / name).is_finished
        networks.append(pipeline.trained(tmp_path / name, data)[1].state_dict())
    assert all(torch.equal(value, networks[1][key]) for key, value in networks[0].items())


def test_the_network_is_that_of_the_chosen_epoch(photos: DataSet, tmp_path: Path) -> None:
    """With a rate at which phase 2 destroys what phase 1 reached, the network of phase 1 is kept."""
    recipe = SMALL.model_copy(update={"phase2": Phase(epochs=2, learning_rate=10.0, batch_size=8), "momentum": 0.9})
    state = pipeline.train(photos, recipe, tmp_path)
    images = training_images(photos, recipe)
    assert images.held_out is not None
    assert state.best is not None
    assert state.chosen is not None
    errors = [(record.validation_error, record.validation_loss) for record in state.history]
    assert errors[3 * (state.chosen[0] - 1) + state.chosen[1]] == min(errors[2:]) == state.best
    assert min(errors[2:]) < errors[-1]
    assert state.phase1_error == errors[2][0]
    network = pipeline.trained(tmp_path, photos)[1]
    report = pipeline.measure(network, recipe, replace(photos, test=images.held_out))
    assert report.top1 == pytest.approx(1 - state.best[0])
