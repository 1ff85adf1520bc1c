from __future__ import annotations

from dataclasses import replace

import httpx
import numpy as np
import pytest
from fastapi import FastAPI

from rankone.model.bundle import Bundle
from rankone.service.routes.embed import softmax
from rankone.service.runtime import Runtime
from rankone.training.data import DataSet
from tests.services import client_of, multipart

pytestmark = pytest.mark.anyio


async def test_predictions_are_the_networks_best_first(
    http: httpx.AsyncClient, images: list[bytes], photos: DataSet, bundle: Bundle
) -> None:
    rows = []
    for start in range(0, len(images), 8):
        response = await http.post("/classify", files=multipart(images[start : start + 8]))
        assert response.status_code == 200
        assert response.json()["fingerprint"] == bundle.fingerprint
        rows += response.json()["predictions"]
    for row in rows:
        probabilities = [entry["probability"] for entry in row]
        assert probabilities == sorted(probabilities, reverse=True)
        assert sum(probabilities) == pytest.approx(1)
        assert [photos.classes[entry["index"]] for entry in row] == [entry["label"] for entry in row]
    accuracy = np.mean([row[0]["index"] == label for row, label in zip(rows, photos.test.labels, strict=True)])
    assert accuracy == pytest.approx(bundle.manifest.metrics["top1"])


async def test_top_k_gives_as_many_as_there_are(http: httpx.AsyncClient, images: list[bytes]) -> None:
    for top_k, count in ((1, 1), (2, 2), (100, 4)):
        response = await http.post(f"/classify?top_k={top_k}", files=multipart(images[:2]))
        assert [len(row) for row in response.json()["predictions"]] == [count, count]


async def test_a_bundle_without_classes_does_not_classify(app: FastAPI, images: list[bytes]) -> None:
    """409, before any work, where the manifest has no classes."""
    runtime: Runtime = app.state.service.runtime
    manifest = runtime.bundle.manifest.model_copy(update={"classes": None})
    bundle = runtime.bundle.model_copy(update={"manifest": manifest})
    app.state.service.runtime = replace(runtime, bundle=bundle)
    async with client_of(app) as http:
        response = await http.post("/classify", files=multipart(images[:1]))
    assert response.status_code == 409
    assert response.json()["detail"] == "the bundle being served has no classifier; it embeds only"


def test_softmax_of_large_logits_is_finite() -> None:
    found = softmax(np.array([[1e4, 0.0], [0.0, 0.0]], np.float32))
    assert found.tolist() == [[1.0, 0.0], [0.5, 0.5]]
