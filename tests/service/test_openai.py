"""`/v1/embeddings` as the `openai` client itself uses it, against a running service."""

from __future__ import annotations

import base64
from datetime import datetime
from typing import Any

import httpx
import numpy as np
import openai
import pytest
from fastapi import FastAPI

from tests.services import multipart

pytestmark = pytest.mark.anyio


@pytest.fixture
def client(app: FastAPI) -> openai.AsyncOpenAI:
    http: Any = httpx.AsyncClient(transport=httpx.ASGITransport(app=app))
    return openai.AsyncOpenAI(api_key="none", base_url="http://localhost/v1", http_client=http, max_retries=0)


def encoded(image: bytes) -> str:
    return base64.b64encode(image).decode()


@pytest.mark.parametrize("encoding", [None, "float", "base64"])
async def test_the_openai_client_gets_the_same_embeddings(
    client: openai.AsyncOpenAI, http: httpx.AsyncClient, images: list[bytes], encoding: str | None
) -> None:
    expected = (await http.post("/embed", files=multipart(images[:3]))).json()
    options = {} if encoding is None else {"encoding_format": encoding}
    answer = await client.embeddings.create(
        model=expected["model"],
        input=[encoded(image) for image in images[:2]] + [f"data:image/png;base64,{encoded(images[2])}"],
        **options,  # type: ignore[arg-type]
    )
    assert [entry.index for entry in answer.data] == [0, 1, 2]
    for entry, row in zip(answer.data, expected["embeddings"], strict=True):
        values: Any = entry.embedding
        if isinstance(values, str):
            values = np.frombuffer(base64.b64decode(values), "<f4").tolist()
        assert np.abs(np.array(values) - row).max() < 1e-6


async def test_one_string_is_one_image(
    client: openai.AsyncOpenAI, http: httpx.AsyncClient, images: list[bytes]
) -> None:
    model = (await http.get("/info")).json()["model"]
    answer = await client.embeddings.create(model=model, input=encoded(images[0]), dimensions=10_000)
    assert (len(answer.data), answer.model, answer.usage.total_tokens) == (1, model, 0)


async def test_what_cannot_be_had_is_refused(
    client: openai.AsyncOpenAI, http: httpx.AsyncClient, images: list[bytes]
) -> None:
    model = (await http.get("/info")).json()["model"]
    with pytest.raises(openai.NotFoundError, match=f"no model 'gpt'.*{model}"):
        await client.embeddings.create(model="gpt", input=encoded(images[0]))
    with pytest.raises(
        openai.UnprocessableEntityError, match="dimensions is 256; short embeddings have 1 to 95 numbers"
    ):
        await client.embeddings.create(model=model, input=encoded(images[0]), dimensions=256)
    with pytest.raises(openai.UnprocessableEntityError, match="image 1: not base64"):
        await client.embeddings.create(model=model, input=[encoded(images[0]), "a sentence"])
    lists: tuple[Any, ...] = ([1, 2, 3], [[1, 2], [3]])
    for tokens in lists:
        with pytest.raises(openai.UnprocessableEntityError, match="lists of tokens are not accepted.*string of base64"):
            await client.embeddings.create(model=model, input=tokens)
    for part in ({"image": encoded(images[0])}, {"type": "image_url", "image_url": {"url": "x"}}):
        for given in (part, [part]):
            body = {"model": model, "input": given}
            refused = await http.post("/v1/embeddings", json=body)
            assert (refused.status_code, "objects are not accepted" in refused.json()["error"]["message"]) == (
                422,
                True,
            )


async def test_models_are_listed_as_openai_lists_them(client: openai.AsyncOpenAI, http: httpx.AsyncClient) -> None:
    (served,) = (await http.get("/models")).json()["models"]
    (model,) = [model async for model in client.models.list()]
    assert (model.id, model.object, model.owned_by) == (served["model"], "model", "rankone")
    assert model.created == int(datetime.fromisoformat(served["created"]).timestamp())
    assert await client.models.retrieve(model.id) == model
    with pytest.raises(openai.NotFoundError, match=f"no model 'gpt'.*{model.id}"):
        await client.models.retrieve("gpt")


async def test_null_is_what_is_not_said(http: httpx.AsyncClient, images: list[bytes]) -> None:
    model = (await http.get("/info")).json()["model"]
    body = {"model": model, "input": encoded(images[0]), "encoding_format": None, "dimensions": None, "user": None}
    answer = await http.post("/v1/embeddings", json=body)
    assert answer.status_code == 200, answer.text
    assert len(answer.json()["data"][0]["embedding"]) == 10_000
