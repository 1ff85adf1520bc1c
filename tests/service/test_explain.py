"""Evidence over HTTP: exact shares as JSON, a picture as PNG, and a sentence where there is none."""

from __future__ import annotations

import base64
import io
from dataclasses import replace
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import pytest
from fastapi import FastAPI
from PIL import Image

from rankone.model.bundle import Bundle
from rankone.model.catalogue import SYSTEMS
from tests.services import Start, client_of, multipart

pytestmark = pytest.mark.anyio


async def explained(http: httpx.AsyncClient, images: list[bytes], **query: Any) -> list[dict[str, Any]]:
    answer = await http.post("/explain", files=multipart(images), params=query)
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert (body["rows"], body["columns"], body["target"]) == (4, 4, query["target"])
    for one in body["explanations"]:
        assert np.shape(one["shares"]) == (4, 4)
        assert np.sum(one["shares"]) + one["rest"] == pytest.approx(one["score"], abs=1e-4)
    return list(body["explanations"])


async def test_shares_of_a_class_add_up_to_the_logit(
    http: httpx.AsyncClient, images: list[bytes], bundle: Bundle
) -> None:
    """Of the most probable class where none is named; logits differ as the logarithms of probabilities do."""
    classified = (await http.post("/classify", files=multipart(images[:3]))).json()["predictions"]
    best = await explained(http, images[:3], target="class")
    assert [one["label"] for one in best] == [row[0]["label"] for row in classified]
    second = classified[0][1]
    (other,) = await explained(http, images[:1], target="class", label=second["label"])
    apart = np.log(classified[0][0]["probability"]) - np.log(second["probability"])
    assert best[0]["score"] - other["score"] == pytest.approx(apart, abs=1e-3)


@pytest.mark.parametrize("dim", [None, 24])
async def test_shares_of_a_match_add_up_to_the_score_of_the_search(
    http: httpx.AsyncClient, images: list[bytes], dim: int | None
) -> None:
    """On both sides, for full and short vectors."""
    if dim is not None:
        await http.put("/indexes/short", json={"dim": dim})
    index = "default" if dim is None else "short"
    await http.post(f"/indexes/{index}/items", files=[*multipart([images[4]]), ("items", (None, '[{"id": "a/b"}]'))])
    found = (await http.post(f"/search?index={index}", files=multipart(images[:1]))).json()["results"][0][0]
    query, item = await explained(http, [images[0], images[4]], target="item", index=index, id="a/b")
    assert (query["side"], item["side"], item["id"]) == ("query", "item", "a/b")
    assert query["score"] == pytest.approx(found["score"], abs=1e-3)  # stored in float16
    assert item["score"] == pytest.approx(found["score"], abs=1e-3)
    assert item["likeness"] == pytest.approx(1, abs=1e-3)
    assert query["shares"] != item["shares"]
    assert await explained(http, [images[0]], target="item", index=index, id="a/b") == [query]


async def test_the_second_image_must_be_that_of_the_item(http: httpx.AsyncClient, images: list[bytes]) -> None:
    await http.post("/indexes/default/items", files=[*multipart([images[4]]), ("items", (None, '[{"id": "x"}]'))])
    gray = io.BytesIO()
    Image.new("RGB", (64, 64)).save(gray, "PNG")
    answer = await http.post("/explain?target=item&id=x", files=multipart([images[0], gray.getvalue()]))
    assert answer.status_code == 422
    assert "the second image is not that of the item 'x': its cosine" in answer.json()["detail"]


async def test_images_come_in_every_form(http: httpx.AsyncClient, images: list[bytes]) -> None:
    form = (await http.post("/explain?target=class", files=multipart(images[:1]))).json()
    raw = await http.post("/explain?target=class", content=images[0], headers={"content-type": "image/png"})
    as_json = await http.post("/explain?target=class", json={"images": [base64.b64encode(images[0]).decode()]})
    assert raw.json() == as_json.json() == form


def pixels(answer: httpx.Response) -> npt.NDArray[np.float64]:
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png"), answer.text
    return np.asarray(Image.open(io.BytesIO(answer.content)), np.float64)


async def test_a_picture_is_coloured_where_the_shares_are(http: httpx.AsyncClient, images: list[bytes]) -> None:
    """Orange over the largest share for the score; what the network does not see is dark."""
    wide = Image.open(io.BytesIO(images[0])).convert("L").convert("RGB")
    wide = wide.resize((120, 60))
    file = io.BytesIO()
    wide.save(file, "PNG")
    sent: dict[str, Any] = {"content": file.getvalue(), "headers": {"content-type": "image/png", "accept": "image/png"}}
    found = pixels(await http.post("/explain?target=class", **sent))
    assert found.shape == (256, 512, 3)
    (one,) = await explained(http, [file.getvalue()], target="class")
    row, column = np.unravel_index(np.argmax(one["shares"]), (4, 4))
    y, x = 64 * row + 32, 128 + 64 * column + 32
    warmth = found[..., 0] - found[..., 2]
    assert warmth[y, x] > 100
    assert warmth[:, :120].max() < 8
    assert found[:, :120].mean() < 0.4 * found[:, 128:384].mean()
    asked = await http.post("/explain?target=class&format=png", files=multipart([file.getvalue()]))
    assert np.array_equal(pixels(asked), found)
    (both,) = await explained(http, [file.getvalue()], target="class", overlay=True)
    assert base64.b64decode(both["overlay"]) == asked.content


async def test_the_picture_of_a_match_shows_both_sides(http: httpx.AsyncClient, images: list[bytes]) -> None:
    await http.post("/indexes/default/items", files=[*multipart([images[4]]), ("items", (None, '[{"id": "x"}]'))])
    accept = {"accept": "image/png"}
    one = pixels(await http.post("/explain?target=item&id=x", files=multipart([images[0]]), headers=accept))
    sides = [images[0], images[4]]
    both = pixels(await http.post("/explain?target=item&id=x", files=multipart(sides), headers=accept))
    assert both.shape[1] > 1.5 * one.shape[1]
    assert np.array_equal(both[: one.shape[0], : one.shape[1]], one)


@pytest.mark.parametrize(
    ("query", "status", "message"),
    [
        ("", 422, "target: Field required"),
        ("target=pixel", 422, "target"),
        ("target=class&id=x", 422, "id does not go with target=class"),
        ("target=class&index=other", 422, "index does not go with target=class"),
        ("target=item&id=x&label=coins", 422, "label does not go with target=item"),
        ("target=item", 422, "target=item needs the id of the item"),
        ("target=class&label=tulip", 422, "there is no class 'tulip'"),
        ("target=class&format=gif", 422, "format"),
        ("target=class&format=png&overlay=true", 422, "does not go with format=png"),
        ("target=class&treshold=1", 422, "treshold"),
        ("target=item&id=unknown", 404, "there is no item 'unknown'"),
        ("target=item&id=x&index=unknown", 404, "unknown"),
    ],
)
async def test_what_is_not_understood_is_named(
    http: httpx.AsyncClient, images: list[bytes], query: str, status: int, message: str
) -> None:
    answer = await http.post(f"/explain?{query}", files=multipart(images[:1]))
    assert answer.status_code == status, answer.text
    assert message in answer.json()["detail"]


async def test_a_match_has_two_sides_and_a_picture_one_image(http: httpx.AsyncClient, images: list[bytes]) -> None:
    await http.post("/indexes/default/items", files=[*multipart([images[4]]), ("items", (None, '[{"id": "x"}]'))])
    three = await http.post("/explain?target=item&id=x", files=multipart(images[:3]))
    assert (three.status_code, "3 images were sent; a match has" in three.json()["detail"]) == (422, True)
    two = await http.post("/explain?target=class&format=png", files=multipart(images[:2]))
    assert (two.status_code, "a PNG shows one" in two.json()["detail"]) == (422, True)
    neither = await http.post("/explain?target=class", files=multipart(images[:1]), headers={"accept": "text/html"})
    assert (neither.status_code, "image/png" in neither.json()["detail"]) == (406, True)


async def test_an_older_bundle_says_to_export_it_again(light_http: httpx.AsyncClient, images: list[bytes]) -> None:
    old = await light_http.post("/explain?target=class", files=multipart(images[:1]))
    assert (old.status_code, "export it again (rankone export)" in old.json()["detail"]) == (409, True)


async def test_bundles_without_evidence_say_why(app: FastAPI, images: list[bytes]) -> None:
    """One whose pooling has none; one without classes."""
    served = app.state.service.runtime
    manifest = served.bundle.manifest
    root = manifest.pooling.model_copy(update={"parts": SYSTEMS["isqrt-cov"].composition.describe()})
    for change, message in (
        ({"pooling": root, "evidence": None}, "newton-schulz acts on the matrix of all locations together"),
        ({"classes": None}, "has no classifier; explain a match"),
    ):
        other = served.bundle.model_copy(update={"manifest": manifest.model_copy(update=change)})
        app.state.service.runtime = replace(served, bundle=other)
        async with client_of(app) as http:
            answer = await http.post("/explain?target=class", files=multipart(images[:1]))
        assert (answer.status_code, message in answer.json()["detail"]) == (409, True), answer.text


def test_a_service_without_torch_explains(start: Start, images: list[bytes]) -> None:
    process = start()
    process.ready().close()
    answer = httpx.post(f"{process.url}/explain?target=class", files=multipart(images[:1]), timeout=60)
    assert answer.status_code == 200, answer.text
