"""What a client takes: one input or many, and every form that an image or a vector has in Python."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import orjson
import PIL.Image
import pytest

from rankone.client import NewItem, ServiceError
from tests.client.conftest import INFO, Call, Service, json_response

PIXELS = np.arange(5 * 4 * 3, dtype=np.uint8).reshape(5, 4, 3)


def recording(sent: list[Any]) -> Service:
    """A service that keeps the bodies that it is sent, and finds or stores as many as there are."""

    def service(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/info":
            return json_response({**INFO, "limits": {"max_images": 16, "max_request_bytes": 100_000}})
        sent.append(body := orjson.loads(request.content))
        if "items" in body:
            return json_response({"ids": [item["id"] for item in body["items"]]})
        queries = next(body[name] for name in ("images", "vectors", "ids", "positive") if name in body)
        return json_response({"results": [[] for _ in queries], "deleted": len(queries)})

    return service


def png() -> bytes:
    file = io.BytesIO()
    PIL.Image.fromarray(PIXELS).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("is_single", [True, False])
@pytest.mark.parametrize(
    "form",
    [
        str,
        Path,
        Path.read_bytes,
        lambda path: bytearray(path.read_bytes()),
        lambda path: io.BytesIO(path.read_bytes()),
        PIL.Image.open,
    ],
    ids=["str", "Path", "bytes", "bytearray", "file", "Pillow"],
)
def test_an_image_has_many_forms(call: Call, tmp_path: Path, form: Callable[[Path], Any], *, is_single: bool) -> None:
    (tmp_path / "a.png").write_bytes(png())
    image, sent = form(tmp_path / "a.png"), list[Any]()
    assert call(recording(sent), "search", image if is_single else [image]) == [[]]
    decoded = PIL.Image.open(io.BytesIO(base64.b64decode(sent[0]["images"][0])))
    assert np.array_equal(np.asarray(decoded), PIXELS)


@pytest.mark.parametrize(
    ("images", "shapes"),
    [
        (PIXELS, [(5, 4, 3)]),
        (PIXELS[..., 0], [(5, 4)]),
        ([PIXELS, PIXELS[..., 0]], [(5, 4, 3), (5, 4)]),
        (np.stack([PIXELS, PIXELS]), [(5, 4, 3)] * 2),
        (np.zeros((2, 3, 4), np.uint8), [(2, 3, 4)]),
    ],
)
def test_pixels_are_sent_as_png(call: Call, images: Any, shapes: list[tuple[int, ...]]) -> None:
    sent: list[Any] = []
    call(recording(sent), "search", images)
    decoded = [np.asarray(PIL.Image.open(io.BytesIO(base64.b64decode(text)))) for text in sent[0]["images"]]
    assert [image.shape for image in decoded] == shapes


def test_a_pillow_image_is_sent_upright(call: Call) -> None:
    """As the service shows the file that it was opened from."""
    image, exif, sent = PIL.Image.fromarray(PIXELS), PIL.Image.Exif(), list[Any]()
    exif[0x0112] = 6  # a quarter turn
    file = io.BytesIO()
    image.save(file, "PNG", exif=exif)
    call(recording(sent), "search", PIL.Image.open(file))
    assert PIL.Image.open(io.BytesIO(base64.b64decode(sent[0]["images"][0]))).size == (5, 4)


@pytest.mark.parametrize(
    ("image", "sentence"),
    [
        (None, "NoneType is no image: give a path, bytes"),
        (io.StringIO("text"), "opened as text: open it as bytes"),
        (PIXELS / 255, r"an array \(5, 4, 3\) of float64 is no image"),
        (PIL.Image.new("CMYK", (2, 2)), "cannot write mode CMYK as PNG"),
        ("nowhere.png", "No such file"),
        ("\0", "null"),
    ],
)
def test_what_is_no_image_is_named_by_its_place(call: Call, image: Any, sentence: str) -> None:
    with pytest.raises(ServiceError, match=f"image 1: .*{sentence}") as raised:
        call(recording([]), "search", [png(), image])
    assert raised.value.errors[0].index == 1


@pytest.mark.parametrize(
    ("vectors", "expected"),
    [
        ([1, 2, 3], [[1, 2, 3]]),
        ((1.5, 2, 3), [[1.5, 2, 3]]),
        (np.ones(3), [[1, 1, 1]]),
        ([[1, 2, 3], (4, 5, 6)], [[1, 2, 3], [4, 5, 6]]),
        (np.eye(2, 3), [[1, 0, 0], [0, 1, 0]]),
    ],
)
def test_vectors_are_lists_or_arrays_one_or_many(call: Call, vectors: Any, expected: list[list[float]]) -> None:
    sent: list[Any] = []
    call(recording(sent), "add_vectors", vectors)
    call(recording(sent), "search_vectors", vectors)
    assert [item["vector"] for item in sent[0]["items"]] == sent[1]["vectors"] == expected
    with pytest.raises(ServiceError, match="item 0: could not convert string to float"):
        call(recording(sent), "add_vectors", [["a", 2, 3]])


def test_a_single_id_is_not_its_characters(call: Call) -> None:
    sent: list[Any] = []
    service = recording(sent)
    assert call(service, "delete", "abc") == 1
    call(service, "search_ids", "abc")
    call(service, "more_like", "abc")
    call(service, "add", png(), "abc", {"n": 1})
    call(service, "add_iter", NewItem(png(), "abc", {"n": 1}))
    assert [body.get("ids", body.get("positive")) for body in sent[:3]] == [["abc"]] * 3
    assert [(item["id"], item["metadata"]) for body in sent[3:] for item in body["items"]] == [("abc", {"n": 1})] * 2


def test_a_batch_that_takes_too_long_is_halved(call: Call) -> None:
    sizes: list[int] = []

    def service(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/info":
            return json_response({**INFO, "limits": {"max_images": 8, "max_request_bytes": 100_000}})
        sizes.append(num := len(orjson.loads(request.content)["vectors"]))
        return json_response({"detail": "late"}, 504) if num > 2 else json_response({"results": [[]] * num})

    assert len(call(service, "search_vectors", np.eye(5, 3))) == 5
    assert sizes == [5, 3, 2, 1, 2]
    with pytest.raises(ServiceError, match="504: late"):
        call(
            lambda it: service(it) if it.url.path == "/info" else json_response({"detail": "late"}, 504),
            "search",
            png(),
        )


def test_an_error_that_is_not_the_services_is_a_lost_answer(call: Call, waits: list[float]) -> None:
    pages = [httpx.Response(status, html="<html>") for status in (502, 404, 504, 500)]

    def service(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/info":
            return json_response(INFO)
        return pages.pop() if pages else json_response({"results": [[]], "deleted": 1})

    assert call(service, "search", png()) == [[]]
    assert len(waits) == 4
    pages.append(httpx.Response(502, html="<html>"))
    with pytest.raises(ServiceError, match="502: <html>"):
        call(service, "delete_where", {})  # which may have been executed


def test_an_error_says_how_many_inputs_were_answered_before(call: Call) -> None:
    def service(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/info":
            return json_response(INFO)
        body = orjson.loads(request.content)["items"]
        if body[0]["id"] == "8":
            return json_response({"detail": "the disk is full"}, 507)
        return json_response({"ids": [item["id"] for item in body]})

    with pytest.raises(ServiceError, match=r"507: the disk is full \(the 8 inputs before were answered\)") as raised:
        call(service, "add", [b"image"] * 20, map(str, range(20)))
    assert raised.value.num_done == 8
