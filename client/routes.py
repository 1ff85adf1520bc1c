"""The routes that take one request: nothing here sends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypedDict
from urllib.parse import quote

import httpx
import numpy as np
import orjson

from rankone.client.call import Call, Json, json_body, json_of, path_of
from rankone.client.results import Facts, IndexDescription, Item, Model, Neighbour
from rankone.client.retries import ONCE, Failure

DEFAULT_INDEX: Final = "default"
_PAGE: Final = 1000
_FIRST: Final = frozenset({Failure.BUSY, Failure.UNAVAILABLE})
"""For a client's first words: where nobody listens, that is said at once."""


class SearchOptions(TypedDict, total=False):
    """What a search may be asked beside its queries; the service's own defaults hold for what is not given."""

    k: int
    """Neighbours of a query, 10 unless given."""
    filter: Json
    """Only items whose metadata matches, as `{"year": {"$gte": 2020}}`."""
    min_score: float
    """Only items with a cosine of at least this."""
    exclude_self: bool
    """Without the item itself, where the queries are ids."""
    group_by: str
    """Only the best item for every value of this field of the metadata."""


@dataclass(frozen=True)
class Page:
    """Some items of an index, and the call for those that follow."""

    items: Sequence[Item]
    following: Call[Page] | None


def neighbours_of(entries: Sequence[Json]) -> list[Neighbour]:
    """The hits of one query."""
    return [Neighbour(entry["id"], entry["score"], entry.get("metadata", {})) for entry in entries]


def info() -> Call[Json]:
    """`GET /info`."""
    return Call("GET", "/info", json_of, again_after=_FIRST)


def facts() -> Call[Facts]:
    """What `/info` says of the limits."""

    def read(response: httpx.Response) -> Facts:
        body = json_of(response)
        return Facts(body["dim"], body["limits"]["max_images"], body["limits"]["max_request_bytes"])

    return Call("GET", "/info", read, again_after=_FIRST)


def ready() -> Call[Json]:
    """`GET /readyz`, whose 503 is an answer."""
    return Call("GET", "/readyz", json_of, again_after=frozenset())


def models() -> Call[list[Model]]:
    """`GET /models`."""

    def read(response: httpx.Response) -> list[Model]:
        return [Model(entry["model"], entry["version"], entry["state"], entry) for entry in json_of(response)["models"]]

    return Call("GET", "/models", read)


def load_model(name: str, version: str) -> Call[Json]:
    """`POST /models/{name}/{version}/load`."""
    return Call("POST", f"/models/{quote(name, safe='')}/{quote(version, safe='')}/load", json_of)


def indexes() -> Call[list[IndexDescription]]:
    """`GET /indexes`."""
    return Call("GET", "/indexes", lambda r: [_description(entry) for entry in json_of(r)["indexes"]])


def describe_index(index: str) -> Call[IndexDescription]:
    """`GET /indexes/{index}`."""
    return Call("GET", path_of(index), lambda r: _description(json_of(r)))


def create_index(index: str, options: Json) -> Call[IndexDescription]:
    """`PUT /indexes/{index}`."""
    return Call("PUT", path_of(index), lambda r: _description(json_of(r)), json_body(options) if options else {})


def drop_index(index: str) -> Call[None]:
    """`DELETE /indexes/{index}`; sent twice, the second would say that there is none."""
    return Call("DELETE", path_of(index), lambda _: None, again_after=ONCE)


def item(index: str, item_id: str, vector: bool) -> Call[Item]:
    """`GET /indexes/{index}/items/{id}`."""
    params = {"vector": "true"} if vector else {}
    return Call("GET", path_of(index, "items", item_id), lambda r: _item(json_of(r)), {"params": params})


def items(index: str, condition: Json | None, cursor: str | None = None) -> Call[Page]:
    """`GET /indexes/{index}/items`, from `cursor` on."""
    params: dict[str, str | int] = {"limit": _PAGE}
    if condition is not None:
        params["filter"] = orjson.dumps(condition).decode()
    if cursor is not None:
        params["cursor"] = cursor

    def read(response: httpx.Response) -> Page:
        body = json_of(response)
        following = body["next_cursor"]
        return Page(
            [_item(entry) for entry in body["items"]],
            None if following is None else items(index, condition, following),
        )

    return Call("GET", path_of(index, "items"), read, {"params": params})


def delete(index: str, ids: Sequence[str]) -> Call[int]:
    """`POST /indexes/{index}/items/delete` by ids."""
    return Call("POST", path_of(index, "items", "delete"), _deleted, json_body({"ids": list(ids)}))


def delete_where(index: str, condition: Json) -> Call[int]:
    """The same by filter; sent twice, it could delete what was added in between."""
    return Call("POST", path_of(index, "items", "delete"), _deleted, json_body({"filter": condition}), again_after=ONCE)


def more_like(
    index: str, positive: Sequence[str], negative: Sequence[str], options: SearchOptions
) -> Call[list[Neighbour]]:
    """`POST /indexes/{index}/search` by examples: one query, one list of hits."""
    body = {**options, "positive": list(positive), **({"negative": list(negative)} if negative else {})}

    def read(response: httpx.Response) -> list[Neighbour]:
        (hits,) = json_of(response)["results"]
        return neighbours_of(hits)

    return Call("POST", path_of(index, "search"), read, json_body(body))


def _description(entry: Json) -> IndexDescription:
    return IndexDescription(entry["name"], entry["count"], entry)


def _item(entry: Json) -> Item:
    vector = entry.get("vector")
    return Item(entry["id"], entry["metadata"], None if vector is None else np.asarray(vector, np.float32))


def _deleted(response: httpx.Response) -> int:
    return int(json_of(response)["deleted"])
