"""Bodies as other programs send them: gzip, base64 with line breaks, and forms with another kind of file name."""

from __future__ import annotations

import base64
import gzip
import zlib
from collections.abc import AsyncIterator
from typing import Any

import httpx
import numpy as np
import orjson
import pytest
from fastapi import FastAPI

from rankone.service.limits import gunzip
from tests.services import exchange, multipart

pytestmark = pytest.mark.anyio

JSON = {"content-type": "application/json"}


@pytest.fixture
async def expected(http: httpx.AsyncClient, images: list[bytes]) -> list[float]:
    values: list[float] = (await http.post("/embed", files=multipart(images[:1]))).json()["embeddings"][0]
    return values


async def stream(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), 1000):
        yield body[start : start + 1000]


async def test_gzip_is_decoded(http: httpx.AsyncClient, images: list[bytes], expected: list[float]) -> None:
    body = orjson.dumps({"images": [base64.b64encode(images[0]).decode()]})
    members = gzip.compress(body[:100]) + gzip.compress(b"") + gzip.compress(body[100:])
    form = httpx.Request("POST", "http://service/embed", files=multipart(images[:1]))
    png = {"content-type": "image/png"}
    for content, kind, encoding in (
        (gzip.compress(body), JSON, "gzip"),
        (members, JSON, "X-GZip"),
        (body, JSON, "identity"),
        (gzip.compress(images[0]), png, "gzip"),
        (gzip.compress(form.read()), {"content-type": form.headers["content-type"]}, "gzip"),
    ):
        forms: tuple[bytes | AsyncIterator[bytes], ...] = (content, stream(content))
        for sent in forms:
            answer = await http.post("/embed", content=sent, headers={**kind, "content-encoding": encoding})
            assert answer.status_code == 200, answer.text
            np.testing.assert_allclose(answer.json()["embeddings"][0], expected, atol=1e-6)
    assert (await http.get("/info", headers={"content-encoding": "gzip"})).status_code == 200


EMPTY = gzip.compress(b"{}", mtime=0)  # with the time in it, two test processes would collect different tests


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"{}", "not gzip"),
        (EMPTY[:-4], "ends too early"),
        (EMPTY[:5], "ends too early"),
        (EMPTY + b"more", "not gzip"),
        (zlib.compress(b"{}"), "not gzip"),
        (EMPTY[:-8] + bytes(8), "not gzip"),
    ],
)
async def test_what_is_no_gzip_is_a_malformed_body(http: httpx.AsyncClient, body: bytes, reason: str) -> None:
    response = await http.post("/embed", content=body, headers={**JSON, "content-encoding": "gzip"})
    assert (response.status_code, reason in response.json()["detail"]) == (400, True), response.text


@pytest.mark.parametrize("encoding", ["br", "deflate", "zstd", "gzip, gzip", "gzip, identity", "é"])
async def test_other_encodings_are_refused_with_what_is_accepted(http: httpx.AsyncClient, encoding: str) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-encoding", encoding.encode())]
    response = await http.post("/embed", content=b"{}", headers=headers)
    assert (response.status_code, response.headers["accept-encoding"]) == (415, "gzip")
    assert "gzip" in response.json()["detail"]


async def test_a_bomb_is_counted_as_it_unfolds(app: FastAPI, http: httpx.AsyncClient) -> None:
    """The service of the tests accepts 2 MB."""
    bomb = gzip.compress(bytes(50_000_000))
    response = await http.post(
        "/embed", content=bomb, headers={"content-type": "image/png", "content-encoding": "gzip"}
    )
    assert (response.status_code, "longer than 2,000,000" in response.json()["detail"]) == (413, True)
    nothing = gzip.compress(b"") * 100_001  # decodes to nothing at all
    sent = [(b"content-encoding", b"gzip"), (b"content-type", b"image/png")]
    statuses, _ = await exchange(app, "POST", "/embed", nothing, sent)
    assert statuses == [413]


async def test_a_bomb_is_decoded_in_small_parts() -> None:
    messages: list[dict[str, Any]] = [
        {"type": "http.request", "body": gzip.compress(bytes(9_000_000)), "more_body": False}
    ]

    async def receive() -> dict[str, Any]:
        return messages.pop() if messages else {"type": "http.disconnect"}

    body, sizes = gunzip(receive, 100_000).__anext__, list[int]()
    while (message := await body()).get("more_body"):
        sizes.append(len(message["body"]))
    assert (sum(sizes), max(sizes)) == (9_000_000, 1 << 20)
    assert (await body())["type"] == "http.disconnect"


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\n\t ", " \n"])
async def test_base64_may_have_line_breaks(
    http: httpx.AsyncClient, images: list[bytes], expected: list[float], ending: str
) -> None:
    text = base64.encodebytes(images[0]).decode().replace("\n", ending)
    answer = await http.post("/embed", json={"images": [text, f"data:image/png;base64,{text}"]})
    assert answer.status_code == 200, answer.text
    for row in answer.json()["embeddings"]:
        np.testing.assert_allclose(row, expected, atol=1e-6)
    for wrong in ("é", "A-_A", "AAA"):
        refused = await http.post("/embed", json={"images": [wrong]})
        assert (refused.status_code, "not base64" in refused.json()["detail"]) == (422, True)


@pytest.mark.parametrize(
    "part",
    [
        "form-data; name=\"images\"; filename*=UTF-8''fl%C3%B6te.png",
        "form-data; name=\"images\"; FILENAME*=UTF-8''a.png",
        'form-data; name="images"; filename="a.png"; filename*=UTF-8\'\'fl%C3%B6te.png',
        'form-data; name="images"\r\nContent-Type: image/png',
        'form-data; name="images"\r\nContent-Type: application/octet-stream',
        'form-data; name="images"; filename=""',
    ],
)
async def test_a_file_is_one_however_its_name_is_sent(
    http: httpx.AsyncClient, images: list[bytes], expected: list[float], part: str
) -> None:
    head = f"--x\r\nContent-Disposition: {part}\r\n\r\n".encode()
    headers = {"content-type": "multipart/form-data; boundary=x"}
    answer = await http.post("/embed", content=head + images[0] + b"\r\n--x--\r\n", headers=headers)
    assert answer.status_code == 200, answer.text
    np.testing.assert_allclose(answer.json()["embeddings"][0], expected, atol=1e-6)


async def test_a_text_in_place_of_a_file_is_still_refused(http: httpx.AsyncClient) -> None:
    body = b'--x\r\nContent-Disposition: form-data; name="images"\r\n\r\nphoto.png\r\n--x--\r\n'
    refused = await http.post("/embed", content=body, headers={"content-type": "multipart/form-data; boundary=x"})
    assert (refused.status_code, "must be a file" in refused.json()["detail"]) == (400, True)
