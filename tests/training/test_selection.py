from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from rankone.training import pipeline
from rankone.training.data import DataError, DataSet, Split
from rankone.training.recipe import Phase
from rankone.training.selection import hold_out, steering_of
from rankone.training.state import Progress
from tests.training.test_fit import SMALL

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


def test_images_of_the_training_set_steer_unless_there_are_others(photos: DataSet) -> None:
    held_out = steering_of(photos, SMALL)
    assert held_out.images is not None
    assert set(held_out.images.paths) | set(held_out.fitted.paths) == set(photos.train.paths)
    assert not set(held_out.images.paths) & set(held_out.fitted.paths)
    assert held_out.words == "4 images held out of the training images (20 % of every class, seed 0)."

    own = steering_of(replace(photos, validation=photos.test), SMALL)
    assert (own.fitted, own.images) == (photos.train, photos.test)
    assert own.words == "16 images of the data set's own for validation."

    nothing = steering_of(photos, SMALL.model_copy(update={"validation": 0.0}))
    assert (nothing.fitted, nothing.images) == (photos.train, None)
    assert (nothing.selecting, held_out.selecting) == (photos.train, held_out.images)
    assert "selected the epoch by their loss" in nothing.words
    single = replace(photos, train=photos.train.at([0, 6, 12, 18]))
    assert steering_of(single, SMALL) == replace(nothing, fitted=single.train)


def test_only_the_papers_protocol_lets_test_images_steer_and_says_so(photos: DataSet) -> None:
    steering = steering_of(photos, SMALL.model_copy(update={"protocol": "paper"}))
    assert (steering.fitted, steering.images) == (photos.train, photos.test)
    assert "test images themselves" in steering.words
    assert "flatter" in steering.words


def test_training_does_not_look_at_the_test_images(photos: DataSet, tmp_path: Path) -> None:
    """They are no images at all here: with a hold-out nobody minds, with the paper's protocol training cannot go on."""
    files = []
    for number in range(len(photos.test)):
        files.append(tmp_path / f"{number}.png")
        files[-1].write_bytes(b"not an image")
    data = replace(photos, test=replace(photos.test, paths=tuple(files)))
    recipe = SMALL.model_copy(update={"phase2": Phase(epochs=0, learning_rate=1)})
    assert pipeline.train(data, recipe, tmp_path / "held-out").finished
    with pytest.raises(DataError, match="no image that can be read"):
        pipeline.train(data, recipe.model_copy(update={"protocol": "paper"}), tmp_path / "paper")


def test_the_best_epoch_is_the_one_with_the_fewest_errors_then_the_lowest_loss() -> None:
    progress = Progress(phase=2, best=(0.5, 3.0))
    for steered, better in (((0.5, 2.0), True), ((0.5, 2.5), False), ((0.5, 1.0), True), ((0.6, 0.1), False)):
        progress.num_seen = 1
        progress.end_epoch(steered, 1.0)
        assert progress.choose(steered, by_loss=False) is better
    assert (progress.chosen, progress.best) == ((2, 2), (0.5, 1.0))


def test_the_best_epoch_on_training_images_is_the_one_with_the_lowest_loss() -> None:
    progress = Progress(phase=2)
    for measured, better in (((0.0, 2.0), True), ((0.5, 1.0), True), ((0.0, 1.5), False)):
        progress.num_seen = 1
        progress.end_epoch(None, 1.0)
        assert progress.choose(measured, by_loss=True) is better
    assert (progress.chosen, progress.best) == ((2, 1), (0.5, 1.0))


def test_of_phase_1_the_last_epoch_counts() -> None:
    """Or phase 2 would have to beat the luckiest of fifty."""
    progress = Progress()
    for measured in ((0.1, 2.0), (0.5, 1.0)):
        progress.num_seen = 1
        progress.end_epoch(measured, 1.0)
        assert progress.choose(measured, by_loss=False)
    assert (progress.chosen, progress.best) == ((1, 1), (0.5, 1.0))


def test_the_network_is_that_of_the_chosen_epoch(photos: DataSet, tmp_path: Path) -> None:
    """With a rate at which phase 2 destroys what phase 1 reached, the network of phase 1 is kept."""
    recipe = SMALL.model_copy(update={"phase2": Phase(epochs=2, learning_rate=10.0, batch_size=8), "momentum": 0.9})
    progress = pipeline.train(photos, recipe, tmp_path)
    steering = steering_of(photos, recipe)
    assert steering.images is not None
    assert progress.best is not None
    assert progress.chosen is not None
    errors = [(record.validation_error, record.validation_loss) for record in progress.history]
    assert errors[3 * (progress.chosen[0] - 1) + progress.chosen[1]] == min(errors[2:]) == progress.best
    assert min(errors[2:]) < errors[-1]
    assert progress.handed_over == errors[2][0]
    network = pipeline.trained(tmp_path, photos)[1]
    report = pipeline.measured(network, recipe, replace(photos, test=steering.images))
    assert report.top1 == pytest.approx(1 - progress.best[0])
