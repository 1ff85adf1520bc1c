"""Every method against the HTTP contract: the request it sends, and the result it makes of a response."""

from __future__ import annotations

import base64
import inspect
import pickle
from typing import Any

import httpx
import numpy as np
import orjson
import pytest

from rankone.client import Client, Fault, IndexDescription, Item, Model, Neighbour, NewItem, Prediction, ServiceError
from rankone.client.connection import http_options
from tests.client.conftest import INFO, URL, Call, json_response, npy, npy_response

HIT = {"id": "a", "score": 0.5, "metadata": {"n": 1}}
A = Neighbour("a", 0.5, {"n": 1})
IMAGE = base64.b64encode(b"image").decode()
ABOUT: dict[str, Any] = {"name": "my/own", "count": 2, "kind": "exact"}
DESCRIBED = IndexDescription("my/own", 2, ABOUT)
MODEL = {"model": "few", "version": "7", "fingerprint": "f", "state": "served"}
BROKEN = {"model": "torn", "version": None, "fingerprint": None, "state": "broken", "detail": "no manifest"}
OLD = {"year": {"$lt": 2000}}

CONTRACT: list[tuple[str, tuple[Any, ...], dict[str, Any], str, Any, Any, Any]] = [
    ("info", (), {}, "GET /info", None, INFO, INFO),
    ("ready", (), {}, "GET /readyz", None, {"status": "ready"}, True),
    (
        "models",
        (),
        {},
        "GET /models",
        None,
        {"models": [MODEL, BROKEN]},
        [Model("few", "7", "served", MODEL), Model("torn", None, "broken", BROKEN)],
    ),
    ("load_model", ("few", "7 b"), {}, "POST /models/few/7%20b/load", None, MODEL, MODEL),
    (
        "classify",
        ([b"image"],),
        {"top_k": 1},
        "POST /classify?top_k=1",
        None,
        {"predictions": [[{"label": "x", "index": 2, "probability": 0.9}]]},
        [[Prediction("x", 2, 0.9)]],
    ),
    ("search", ([b"image"],), {}, "POST /indexes/default/search", {"images": [IMAGE]}, {"results": [[HIT]]}, [[A]]),
    (
        "search",
        ([b"image"], "my/own"),
        {"k": 3, "filter": OLD, "min_score": 0.1, "group_by": "n"},
        "POST /indexes/my%2Fown/search",
        {"images": [IMAGE], "k": 3, "filter": OLD, "min_score": 0.1, "group_by": "n"},
        {"results": [[HIT, HIT]]},
        [[A, A]],
    ),
    (
        "search_vectors",
        (np.eye(2, 3),),
        {"k": 1},
        "POST /indexes/default/search",
        {"vectors": [[1, 0, 0], [0, 1, 0]], "k": 1},
        {"results": [[HIT], []]},
        [[A], []],
    ),
    (
        "search_ids",
        (["b"],),
        {"exclude_self": True},
        "POST /indexes/default/search",
        {"ids": ["b"], "exclude_self": True},
        {"results": [[HIT]]},
        [[A]],
    ),
    (
        "more_like",
        (["b", "c"], ["d"]),
        {"k": 1},
        "POST /indexes/default/search",
        {"positive": ["b", "c"], "negative": ["d"], "k": 1},
        {"results": [[HIT]]},
        [A],
    ),
    (
        "add",
        ([b"image", b"image"], ["a", "b"], [{"n": 1}, {}]),
        {},
        "POST /indexes/default/items",
        {"items": [{"id": "a", "image": IMAGE, "metadata": {"n": 1}}, {"id": "b", "image": IMAGE, "metadata": {}}]},
        {"ids": ["a", "b"], "sequence": 2},
        ["a", "b"],
    ),
    (
        "add_vectors",
        ([np.array([1.0, 0, 0], np.float16)], ["a"]),
        {},
        "POST /indexes/default/items",
        {"items": [{"id": "a", "vector": [1, 0, 0], "metadata": {}}]},
        {"ids": ["a"], "sequence": 1},
        ["a"],
    ),
    ("delete", (["a", "b"],), {}, "POST /indexes/default/items/delete", {"ids": ["a", "b"]}, {"deleted": 1}, 1),
    ("delete_where", (), {"filter": OLD}, "POST /indexes/default/items/delete", {"filter": OLD}, {"deleted": 5}, 5),
    (
        "item",
        ("a/b.png",),
        {},
        "GET /indexes/default/items/a%2Fb.png",
        None,
        {"id": "a", "metadata": {}},
        Item("a", {}),
    ),
    ("item", ("..",), {}, "GET /indexes/default/items/%2E%2E", None, {"id": "..", "metadata": {}}, Item("..", {})),
    ("indexes", (), {}, "GET /indexes", None, {"indexes": [ABOUT]}, [DESCRIBED]),
    ("create_index", ("my/own",), {}, "PUT /indexes/my%2Fown", {}, ABOUT, DESCRIBED),
    ("create_index", ("my/own",), {"kind": "exact"}, "PUT /indexes/my%2Fown", {"kind": "exact"}, ABOUT, DESCRIBED),
    ("describe_index", ("my/own",), {}, "GET /indexes/my%2Fown", None, ABOUT, DESCRIBED),
    ("count", (), {}, "GET /indexes/default", None, ABOUT, 2),
    (
        "update",
        ("a/b", {"year": None, "n": 1}, "my/own"),
        {},
        "PATCH /indexes/my%2Fown/items/a%2Fb",
        {"metadata": {"year": None, "n": 1}},
        {"id": "a/b", "metadata": {"n": 1}, "sequence": 7},
        {"n": 1},
    ),
    ("drop_index", ("my/own",), {}, "DELETE /indexes/my%2Fown?confirm=my%2Fown", None, {}, None),
]


@pytest.mark.parametrize(("method", "arguments", "named", "route", "sent", "response", "expected"), CONTRACT)
def test_request_and_result(
    call: Call,
    method: str,
    arguments: tuple[Any, ...],
    named: dict[str, Any],
    route: str,
    sent: Any,
    response: Any,
    expected: Any,
) -> None:
    seen: list[tuple[str, Any]] = []

    def service(request: httpx.Request) -> httpx.Response:
        path = request.url.raw_path.decode()
        is_json = request.headers.get("content-type") == "application/json"
        seen.append((f"{request.method} {path}", orjson.loads(request.content) if is_json else None))
        return json_response(INFO if path == "/info" else response)

    assert call(service, method, *arguments, **named) == expected
    assert [entry for entry in seen if entry[0] != "GET /info" or route == "GET /info"] == [(route, sent)]


def test_the_contract_covers_every_method() -> None:
    streams = {
        "embed",
        "embed_iter",
        "classify_iter",
        "explain",
        "search_iter",
        "add_iter",
        "items",
    }  # tested separately
    rest = {"close", "url", "wait_until_ready"}
    public = {name for name, _ in inspect.getmembers(Client) if not name.startswith("_")}
    assert public == {entry[0] for entry in CONTRACT} | streams | rest


def test_embed_sends_the_bytes_of_images_and_reads_an_array(call: Call) -> None:
    rows = np.arange(6, dtype=np.float32).reshape(2, 3)

    def service(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/info":
            return json_response(INFO)
        assert request.headers["accept"] == "application/x-npy"
        assert request.content.count(b'name="images"; filename="image"') == 2
        assert b"\r\n\r\none\r\n" in request.content
        return npy_response(npy(rows))

    embeddings = call(service, "embed", [b"one", b"two"])
    assert (embeddings.dtype, embeddings.tolist()) == (np.float32, rows.tolist())
    assert call(service, "embed", []).shape == (0, 3)


def test_explain_asks_for_a_class_or_for_both_sides_of_a_match(call: Call) -> None:
    asked: list[tuple[dict[str, str], int]] = []

    def service(request: httpx.Request) -> httpx.Response:
        asked.append((dict(request.url.params), request.content.count(b'name="images"')))
        one = {"side": "query", "label": "x", "score": 1.5, "rest": 0.5, "shares": [[1, 0]], "overlay": IMAGE}
        return json_response({"explanations": [one]})

    (found,) = call(service, "explain", b"image", "x", overlay=True)
    assert (found.side, found.label, found.id, found.score, found.rest) == ("query", "x", None, 1.5, 0.5)
    assert (found.shares.tolist(), found.shares.dtype, found.overlay) == ([[1, 0]], np.float32, b"image")
    call(service, "explain", b"image", item_id="a/b", item_image=b"other", index="my/own")
    assert asked == [
        ({"target": "class", "label": "x", "format": "json", "overlay": "true"}, 1),
        ({"target": "item", "id": "a/b", "index": "my/own", "format": "json", "overlay": "false"}, 2),
    ]
    with pytest.raises(ServiceError, match="give its item_id too"):
        call(service, "explain", b"image", item_image=b"other")
    with pytest.raises(ServiceError, match="image 1: cannot be read"):
        call(service, "explain", b"image", item_id="a", item_image="no/such.jpg")


def test_ids_to_delete_are_an_iterable(call: Call) -> None:
    """As those to search are."""
    sent: list[Any] = []

    def service(request: httpx.Request) -> httpx.Response:
        sent.append(orjson.loads(request.content)["ids"])
        return json_response({"deleted": len(sent[-1])})

    assert call(service, "delete", (str(n) for n in range(1001))) == 1001
    assert [len(ids) for ids in sent] == [1000, 1]


def test_another_model_has_another_dimension() -> None:
    dim = 3

    def service(request: httpx.Request) -> httpx.Response:
        nonlocal dim
        if request.method == "POST":
            dim = 5
        return json_response({**INFO, "dim": dim})

    with Client(URL, transport=httpx.MockTransport(service)) as client:
        assert client.embed([]).shape == (0, 3)
        client.load_model("few", "7")
        assert client.embed([]).shape == (0, 5)


def test_an_item_has_its_vector_if_it_is_requested(call: Call) -> None:
    def service(request: httpx.Request) -> httpx.Response:
        assert request.url.query == b"vector=true"
        return json_response({"id": "a", "metadata": {}, "vector": [0.5, 1]})

    vector = call(service, "item", "a", vector=True).vector
    assert (vector.dtype, vector.tolist()) == (np.float32, [0.5, 1])


def test_items_are_requested_page_by_page_with_one_filter(call: Call) -> None:
    queries: list[dict[str, str]] = []

    def service(request: httpx.Request) -> httpx.Response:
        query = dict(request.url.params)
        queries.append(query)
        page = int(query.get("cursor", 0))
        items = [{"id": str(page), "metadata": {"n": page}}]
        return json_response({"items": items, "next_cursor": str(page + 1) if page < 2 else None})

    assert call(service, "items", filter=OLD) == [Item(str(n), {"n": n}) for n in range(3)]
    assert [query.pop("cursor", None) for query in queries] == [None, "1", "2"]
    assert all(query == {"limit": "1000", "filter": '{"year":{"$lt":2000}}'} for query in queries)


def test_every_request_has_the_key_and_the_timeout(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    headers: list[httpx.Headers] = []

    def service(request: httpx.Request) -> httpx.Response:
        headers.append(request.headers)
        return json_response(INFO)

    monkeypatch.delenv("RANKONE_KEY", raising=False)
    call(service, "info")
    monkeypatch.setenv("RANKONE_KEY", "from-the-environment")
    call(service, "info")
    call(service, "info", options={"key": "given"})
    authorization = [entry.get("authorization") for entry in headers]
    assert authorization == [None, "Bearer from-the-environment", "Bearer given"]
    assert not any("x-request-timeout" in entry for entry in headers)
    call(service, "info", options={"timeout_s": 7.5})
    assert headers[-1]["x-request-timeout"] == "7.5"


def test_the_client_waits_for_the_answer_that_the_deadline_has_passed() -> None:
    """So the service gets a shorter time than the connection."""
    options = http_options(URL, None, 7.5)
    assert options["headers"]["x-request-timeout"] == "7.5"
    assert options["timeout"].read > 7.5
    assert options["timeout"].connect <= 7.5
    assert http_options(URL, None, None)["timeout"].read == 300


def test_ids_are_deleted_by_the_thousand(call: Call) -> None:
    sent: list[str] = []

    def service(request: httpx.Request) -> httpx.Response:
        ids = orjson.loads(request.content)["ids"]
        assert len(ids) <= 1000
        sent.extend(ids)
        return json_response({"deleted": len(ids)})

    ids = [str(n) for n in range(2500)]
    assert call(service, "delete", ids) == 2500
    assert sent == ids
    assert call(service, "delete", []) == 0


@pytest.mark.parametrize(
    "value",
    [
        ServiceError(422, "image 1: bad", [Fault(1, "bad")]),
        NewItem(b"image", "a", {"n": 1}),
        Prediction("x", 2, 0.9),
        A,
        Item("a", {}),
        DESCRIBED,
        Model("few", "7", "served", MODEL),
    ],
    ids=lambda value: type(value).__name__,
)
def test_errors_inputs_and_results_can_be_pickled(value: Any) -> None:
    restored = pickle.loads(pickle.dumps(value))  # noqa: S301
    assert (type(restored), str(restored), vars(restored)) == (type(value), str(value), vars(value))
