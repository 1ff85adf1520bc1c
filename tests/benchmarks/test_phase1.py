from __future__ import annotations

import pytest
import torch

from benchmarks import phase1
from rankone.training.data import DataSet

pytestmark = pytest.mark.usefixtures("light_backbone")


def test_both_ways_end_with_the_same_classifier(photos: DataSet) -> None:
    """The steps that are compared are the same ones, mirror images included."""
    recipe = phase1.recipe_of(size=32, epochs=3)
    ours, rival = phase1.from_disk(photos, recipe), phase1.through_network(photos, recipe, epochs=3)
    assert ours.classifier is not None
    assert rival.classifier is not None
    expected = rival.classifier.state_dict()
    assert expected["weight"].abs().max() > 0.01
    assert all(torch.allclose(value, expected[name], atol=1e-4) for name, value in ours.classifier.state_dict().items())
