from __future__ import annotations

import numpy as np
import pytest
import torch

from rankone.model.catalogue import composition
from rankone.model.composition import compose
from rankone.model.network import Network, build_network
from rankone.model.normalization import RankOneUpdate
from rankone.model.preprocessing import Preprocessing, preprocess
from rankone.training.data import DataSet
from rankone.training.report.findings import NUM_IMAGES, singular_values, spectrum

SPEC = Preprocessing(size=32)


def test_values_are_those_of_the_features_and_of_the_updated_features() -> None:
    features = torch.randn(2, 12, 5)
    update = RankOneUpdate(5, eta=1.0, iterations=30)
    before, after = singular_values(features, update)
    for row, image in zip(before, features, strict=True):
        expected = np.linalg.svd(image.numpy() / 12**0.5, compute_uv=False)
        assert row.numpy() == pytest.approx(expected, rel=1e-5)
    # eta = 1 after many iterations takes the first value away, the others move up
    assert torch.allclose(after[:, :4], before[:, 1:], rtol=1e-2)
    assert (after[:, 4] < 1e-3).all()


@pytest.mark.parametrize(
    ("pooling", "eta", "iterations", "own"),
    [
        (composition("cbp-run", eta=0.3, iterations=4, dim=50), 0.3, 4, True),
        (compose("moment", {"name": "rank-one-update", "eta": 0.9}), 0.9, 2, True),
        (composition("cbp-ts", dim=50), 0.6, 2, False),
        (composition("max"), 0.6, 2, False),
    ],
)
def test_the_networks_own_update_or_the_papers(
    photos: DataSet, pooling: object, eta: float, iterations: int, own: bool
) -> None:
    network = build_network(weights="random", pooling=pooling)  # type: ignore[arg-type]
    found = spectrum(network, photos.test, SPEC)
    assert (found.eta, found.iterations, found.own) == (eta, iterations, own)
    assert found.before.shape == found.after.shape == (len(photos.test), 4)
    assert (found.after[:, 0] < found.before[:, 0]).all()
    image = torch.from_numpy(preprocess(photos.test.paths[3].read_bytes(), SPEC))[None]
    with torch.no_grad():
        features = network.backbone(image)[0].numpy()
    assert found.before[3] == pytest.approx(np.linalg.svd(features / 2, compute_uv=False), rel=1e-4)


def test_of_many_images_some_are_taken_from_all_over(photos: DataSet, monkeypatch: pytest.MonkeyPatch) -> None:
    network: Network = build_network(weights="random", pooling=composition("max"))
    monkeypatch.setattr("rankone.training.report.findings.NUM_IMAGES", 3)
    found = spectrum(network, photos.test, SPEC)
    assert NUM_IMAGES == 64
    whole = spectrum(network, photos.test.at([0, 8, 15]), SPEC)
    assert np.allclose(found.before, whole.before)
