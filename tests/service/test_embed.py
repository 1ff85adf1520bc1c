from __future__ import annotations

import base64
import io
import threading

import anyio
import anyio.to_thread
import httpx
import numpy as np
import pytest
from fastapi import FastAPI, Request

from rankone.model.bundle import Bundle
from rankone.model.engine import Outputs, load_engine
from rankone.model.preprocessing import preprocess
from rankone.service.errors import Problem
from rankone.service.routes.responses import JSON, NPY, negotiate
from tests.services import multipart

pytestmark = pytest.mark.anyio


def base64_of(images: list[bytes]) -> list[str]:
    return [base64.b64encode(image).decode() for image in images]


async def test_json_multipart_and_data_uris_agree_with_the_engine(
    http: httpx.AsyncClient, images: list[bytes], bundle: Bundle
) -> None:
    """Five images over batches of three: the order is that of the request."""
    sent = images[:5]
    pixels = np.stack([preprocess(image, bundle.manifest.preprocessing) for image in sent])
    expected = load_engine(bundle, "onnx", "cpu", 2).run(pixels).embedding
    for request in (
        {"files": multipart(sent)},
        {"json": {"images": base64_of(sent)}},
        {"json": {"images": [f"data:image/png;base64,{text}" for text in base64_of(sent)]}},
    ):
        response = await http.post("/embed", **request)
        assert response.status_code == 200, response.text
        body = response.json()
        assert (body["model"], body["version"], body["fingerprint"]) == ("few-cbp-run", "1", bundle.fingerprint)
        assert body["dim"] == 10_000
        assert np.abs(np.array(body["embeddings"]) - expected).max() < 1e-5


@pytest.mark.parametrize(
    "kind", ["image/png", "image/jpeg", "IMAGE/WEBP; q=1", "image/jpg", "image/pjpeg", "application/octet-stream"]
)
async def test_a_raw_body_is_one_image_whatever_its_type_says(
    http: httpx.AsyncClient, images: list[bytes], kind: str
) -> None:
    response = await http.post("/embed", content=images[0], headers={"content-type": kind})
    assert np.array(response.json()["embeddings"]).shape == (1, 10_000)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
async def test_every_form_of_answer_holds_the_same_numbers(
    http: httpx.AsyncClient, images: list[bytes], dtype: str
) -> None:
    files = multipart(images[:2])
    floats = await http.post(f"/embed?dtype={dtype}", files=files)
    coded = await http.post(f"/embed?encoding=base64&dtype={dtype}", files=files)
    npy = await http.post(f"/embed?dtype={dtype}", files=files, headers={"accept": "application/x-npy"})
    array = np.load(io.BytesIO(npy.content), allow_pickle=False)
    assert npy.headers["content-type"] == "application/x-npy"
    assert (array.shape, array.dtype) == ((2, 10_000), np.dtype(f"<f{(dtype[-2:] == '32' and 4) or 2}"))
    decoded = [np.frombuffer(base64.b64decode(text), array.dtype) for text in coded.json()["embeddings"]]
    assert np.array_equal(np.stack(decoded), array)
    assert np.array_equal(np.array(floats.json()["embeddings"], array.dtype), array)
    assert np.linalg.norm(array.astype(float), axis=1) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("accept", ["*/*", "application/x-npy"])
async def test_the_accept_header_is_honoured(http: httpx.AsyncClient, images: list[bytes], accept: str) -> None:
    response = await http.post("/embed", files=multipart(images[:1]), headers={"accept": accept})
    assert response.headers["content-type"] == (NPY if accept == NPY else JSON)


def asking(*accepts: str) -> Request:
    return Request({"type": "http", "headers": [(b"accept", accept.encode()) for accept in accepts]})


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("", JSON),
        ("*/*", JSON),
        ("application/*", JSON),
        ("application/x-npy, application/json", JSON),
        ("application/x-npy;q=0.5, application/json;q=0.5", JSON),
        ("application/json;q=0.5, application/x-npy", NPY),
        ("application/x-npy;q=0.001, application/json;q=0", NPY),
        ("text/html, application/json;q=0.9, */*;q=0.1", JSON),
        ("application/json;q=0, */*", NPY),
        ("*/*, application/json;q=0", NPY),
        ("application/json;q=0, application/*", NPY),
        ("application/x-npy;q=0.2, application/*;q=0.5, */*", JSON),
        ("application/json;q=0.2, application/*;q=0.5, */*;q=0.1", NPY),
        ("application/*;q=0, application/x-npy;q=0.1, */*", NPY),
        ("application/json;q=0.3, */*;q=0.4", NPY),
        ("application/json;q=0.1, application/x-npy;q=0.2, application/json;q=0.3", JSON),
        ("Application/JSON ; Q=0.1 , APPLICATION/X-NPY ; q=0.2", NPY),
        ("application/json;charset=utf-8;q=0.9, application/x-npy;q=0.8", JSON),
        ("application/json;q=nan, application/x-npy;q=0.1", NPY),
        ("application/json;q=7, application/x-npy;q=0.1", NPY),
        ("application/json;q=-1, */*;q=0.1", NPY),
    ],
)
def test_the_most_specific_range_says_how_much_a_type_is_wanted(accept: str, kind: str) -> None:
    assert negotiate(asking(accept)) == kind


def test_an_accept_header_may_come_in_parts() -> None:
    assert negotiate(asking("application/json;q=0.1", "application/x-npy")) == NPY
    assert negotiate(asking()) == JSON


@pytest.mark.parametrize(
    "accept", ["text/html", "application/json;q=0, application/x-npy;q=0, */*", "application/*;q=0, */*", "*/*;q=0"]
)
def test_what_is_in_no_range_or_in_one_of_no_quality_is_not_sent(accept: str) -> None:
    with pytest.raises(Problem, match="the request accepts") as raised:
        negotiate(asking(accept))
    assert raised.value.status == 406


async def test_a_form_nobody_offers_is_refused_before_the_work(http: httpx.AsyncClient, images: list[bytes]) -> None:
    for accept in ("text/html", "application/json;q=0", "application/json;q=high"):
        response = await http.post("/embed", files=multipart(images[:1]), headers={"accept": accept})
        assert response.status_code == 406
        assert "application/x-npy" in response.json()["detail"]


async def test_the_same_image_has_the_same_embedding_alone_and_in_company(
    http: httpx.AsyncClient, images: list[bytes]
) -> None:
    alone = (await http.post("/embed", files=multipart(images[:1]))).json()["embeddings"][0]
    company = (await http.post("/embed", files=multipart(images[:5] + images[:1]))).json()["embeddings"]
    assert np.abs(np.array(company[0]) - alone).max() < 1e-6
    assert np.abs(np.array(company[5]) - alone).max() < 1e-6


async def test_the_event_loop_answers_while_the_engine_works(
    app: FastAPI, http: httpx.AsyncClient, images: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine hangs until another request has been answered."""
    working, go_on = threading.Event(), threading.Event()
    run = app.state.service.runtime.engine.run

    def hang(pixels: np.ndarray) -> Outputs:
        working.set()
        assert go_on.wait(30)
        outputs: Outputs = run(pixels)
        return outputs

    monkeypatch.setattr(app.state.service.runtime.engine, "run", hang)
    answers: list[int] = []

    async def embed() -> None:
        answers.append((await http.post("/embed", files=multipart(images[:1]))).status_code)

    async with anyio.create_task_group() as group:
        group.start_soon(embed)
        assert await anyio.to_thread.run_sync(working.wait, 30)
        assert (await http.get("/healthz")).status_code == 200
        assert (await http.get("/info")).status_code == 200
        assert not answers
        go_on.set()
    assert answers == [200]


async def test_an_answer_that_cannot_be_right_is_no_answer(
    app: FastAPI, images: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = Outputs(np.full((1, 10_000), np.nan, np.float32), None)
    monkeypatch.setattr(app.state.service.runtime.engine, "run", lambda _: broken)
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        response = await client.post("/embed", files=multipart(images[:1]))
    assert response.status_code == 500
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["detail"] == "the network answered this image with NaN or infinity"
