"""Which mistakes a report shows, and the evidence in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rankone.model.bundle import Manifest, PoolingRecord
from rankone.model.composition import Composition, compose
from rankone.model.network import Network
from rankone.model.preprocessing import preprocess
from rankone.training.data import DataSet, Split
from rankone.training.report.findings import NUM_PAIRS, Confusion, contrasts, most_confused
from tests.light import one_layer
from tests.training.report.conftest import MANIFEST

LABELS = np.array([0, 0, 0, 1, 1, 2, 2])
LOGITS = np.array([[5.0, 0, 0], [0, 1, 0], [0, 3, 0], [0, 2, 0], [0, 4, 0], [0, 0, 9], [1, 0, 0]])


def test_pairs_come_by_number_each_with_the_clearest_mistake_and_the_clearest_of_the_other() -> None:
    first, second = most_confused(LOGITS, LABELS)
    assert first == Confusion(true=0, taken=1, count=2, mistake=2, typical=4)
    assert second == Confusion(true=2, taken=0, count=1, mistake=6, typical=0)
    assert most_confused(LOGITS, LABELS, limit=1) == [first]
    assert most_confused(LOGITS[:1], LABELS[:1]) == []


def test_where_none_is_recognized_the_nearest_is_typical_and_where_there_is_none_nothing() -> None:
    logits = np.array([[0.0, 5, 0], [3, 1, 0], [3, 2, 0]])
    pairs = {(pair.true, pair.taken): pair.typical for pair in most_confused(logits, np.array([0, 1, 1]))}
    assert pairs == {(0, 1): 2, (1, 0): 0}
    (pair,) = most_confused(np.array([[0.0, 0, 5]]), np.array([0]))
    assert pair.typical is None


def test_an_example_shows_what_it_stands_for_though_another_image_has_a_higher_probability() -> None:
    """Image 1 of class 0 goes to class 2 with 0.45 for class 1; image 3 of class 1 too. Both are examples of neither."""
    probabilities = np.array([[0.3, 0.4, 0.3], [0.05, 0.45, 0.5], [0.3, 0.4, 0.3], [0.05, 0.45, 0.5]])
    pairs = most_confused(np.log(probabilities), np.array([0, 0, 1, 1]))
    (pair,) = [one for one in pairs if (one.true, one.taken) == (0, 1)]
    assert (pair.mistake, pair.typical) == (0, 2)


SKETCH = compose("gram", "rank-one-update", {"name": "tensor-sketch", "dim": 500})
"""What the tests below are about is the same in every pooling that has evidence."""


class Counted(Network):
    """Of four classes and one layer; counts the images that it is given."""

    def __init__(self, pooling: Composition) -> None:
        layers = pooling.build(512)
        super().__init__(one_layer(), layers, nn.Linear(layers.out_dim, 4))
        self.num_images = 0
        self.backbone.register_forward_hook(self._count)

    def _count(self, _: nn.Module, __: object, features_BND: Tensor) -> None:
        self.num_images += len(features_BND)


def manifest(pooling: Composition) -> Manifest:
    record = PoolingRecord(system="any", options={}, parts=pooling.describe())
    return MANIFEST.model_copy(update={"pooling": record})


def labelled(split: Split, labels: Sequence[int]) -> Split:
    return replace(split, labels=tuple(labels))


def test_the_evidence_adds_up_to_both_logits_of_every_mistaken_image(photos: DataSet) -> None:
    """For the class that it was taken for, and for its own, which is another: image by image."""
    network = Counted(SKETCH).eval()
    images = np.stack([preprocess(path.read_bytes(), MANIFEST.preprocessing) for path in photos.test.paths])
    with torch.no_grad():
        found = network(torch.from_numpy(images))[1]
    assert found is not None
    logits = found.numpy()
    split = labelled(photos.test, (logits.argmax(1) + 1) % 4)
    explained = contrasts(network, manifest(SKETCH), split, logits)
    pairs = most_confused(logits, np.array(split.labels))
    assert explained is not None
    assert pairs
    assert list(explained) == [pair.mistake for pair in pairs]
    for pair in pairs:
        contrast = explained[pair.mistake]
        assert contrast.taken.shares.shape == contrast.true.shares.shape == (4, 4)
        assert contrast.taken.score == pytest.approx(logits[pair.mistake, pair.taken], abs=1e-4)
        assert contrast.true.score == pytest.approx(logits[pair.mistake, pair.true], abs=1e-4)
        assert contrast.true.score < contrast.taken.score - 1e-3


def test_only_the_images_that_are_shown_run_again(photos: DataSet) -> None:
    """Every image has a pair of its own, and there are more pairs than a report shows."""
    network = Counted(SKETCH)
    every = [(true, taken) for true in range(4) for taken in range(4) if taken != true]
    split = labelled(photos.test.at(range(len(every))), [true for true, _ in every])
    explained = contrasts(network, manifest(SKETCH), split, np.eye(4)[[taken for _, taken in every]])
    assert explained is not None
    assert network.num_images == len(explained) == NUM_PAIRS < len(every)


@pytest.mark.parametrize("pooling", [compose("max"), compose("gram", "newton-schulz", {"name": "low-rank", "rank": 5})])
def test_a_pooling_without_evidence_is_not_asked(pooling: Composition, photos: DataSet) -> None:
    network = Counted(pooling)
    assert contrasts(network, manifest(pooling), labelled(photos.test, [1] * 16), np.eye(4)[[0] * 16]) is None
    assert not network.num_images


def test_there_is_none_without_mistakes_or_without_a_classifier(photos: DataSet) -> None:
    network = Counted(SKETCH)
    assert contrasts(network, manifest(SKETCH), photos.test, np.eye(4)[list(photos.test.labels)]) == {}
    assert contrasts(network, manifest(SKETCH), photos.test, None) is None
    assert not network.num_images
