"""The client for asyncio. `python tests/client/generate.py` makes the blocking client, sync.py, from this file."""

from __future__ import annotations

import asyncio  # async only
import time
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing
from functools import partial
from operator import itemgetter
from typing import Any, Final, Unpack

import httpx
import numpy as np
import orjson

from rankone.client import batches, connection, inputs, results
from rankone.client.asynchronous_transport import AsyncTransport
from rankone.client.batches import Answer, BatchRoute, EncodedInput, OnRejection, Source, Value
from rankone.client.concurrency import map_concurrently
from rankone.client.connection import RetryIf, is_temporary
from rankone.client.errors import ServiceError
from rankone.client.inputs import DEFAULT_INDEX, Image, Images, NewItem, SearchOptions, Vectors, json_body, path_of
from rankone.client.results import Embedding, Explanation, IndexDescription, Item, Json, Model, Neighbour, Prediction

_PAGE_SIZE: Final = 1000
_POLL_S: Final = 0.1


class AsyncClient(AsyncTransport):
    """A client of the service at `url` with `key`, by default those in the variables RANKONE_URL and RANKONE_KEY.

    Methods take one input or many, and divide them into requests, each of which is carried out completely or not at all. A
    call that fails halfway leaves what was added before: the error's `num_done` inputs. `…_iter` methods read inputs as they
    go and yield answers in order; at an unusable input they raise or, with `on_rejection`, call it and continue. Every method
    raises ServiceError if the service refuses or cannot be reached within `timeout_s`, after `retries`.
    """

    async def info(self) -> Json:
        """What the service says about itself: model, limits, versions."""
        return await self._request("GET", "/info", dict, connection.is_unavailable)

    async def ready(self) -> bool:
        """Whether the service is ready to answer."""
        try:
            return await self._request("GET", "/readyz", lambda _: True, connection.never)
        except ServiceError as error:
            if error.status != httpx.codes.SERVICE_UNAVAILABLE:
                raise
            return False

    async def wait_until_ready(self, timeout_s: float = 60.0) -> None:
        """Returns when the service is ready; raises ServiceError after `timeout_s`, or at once if waiting cannot help."""
        deadline = time.monotonic() + timeout_s
        while True:
            left_s = max(_POLL_S, deadline - time.monotonic())
            try:
                await self._request("GET", "/readyz", dict, connection.never, timeout=left_s)
                return
            except ServiceError as error:
                if error.status not in connection.STARTING or time.monotonic() >= deadline:
                    raise
            await asyncio.sleep(_POLL_S)

    async def models(self) -> list[Model]:
        """The models that the service has."""
        return await self._request("GET", "/models", lambda body: [*map(Model.from_json, body["models"])])

    async def load_model(self, name: str, version: str) -> Json:
        """Loads a model and serves it from then on; returns when it is served."""
        try:
            return await self._request("POST", f"/models/{inputs.quoted(name)}/{inputs.quoted(version)}/load", dict)
        finally:  # also if only the answer was lost
            self._known_limits = None

    async def embed(self, images: Images, dim: int | None = None) -> Embedding:
        """Embeddings (n, dim) of images, in order: full ones, or short ones if `dim` is given."""
        rows = [answer.value async for answer in self.embed_iter(images, dim=dim)]
        return np.stack(rows) if rows else np.empty((0, dim or (await self._limits()).dim), np.float32)

    def embed_iter(
        self, images: Images, on_rejection: OnRejection | None = None, *, dim: int | None = None
    ) -> AsyncGenerator[Answer[Image, Embedding]]:
        """The embedding (dim,) of each image, in order; see `embed`."""
        return self._stream(batches.embed(dim), images, on_rejection)

    async def classify(self, images: Images, top_k: int = 5) -> list[list[Prediction]]:
        """The most probable classes of each image, best first."""
        return [answer.value async for answer in self.classify_iter(images, top_k)]

    def classify_iter(
        self, images: Images, top_k: int = 5, on_rejection: OnRejection | None = None
    ) -> AsyncGenerator[Answer[Image, list[Prediction]]]:
        """The most probable classes of each image, best first, in order."""
        return self._stream(batches.classify(top_k), images, on_rejection)

    async def explain(
        self,
        image: Image,
        label: str | None = None,
        *,
        item_id: str | None = None,
        item_image: Image | None = None,
        index: str = DEFAULT_INDEX,
        overlay: bool = False,
    ) -> list[Explanation]:
        """Where in an image the evidence for a class, or for the match with an item, lies.

        The class is the most probable one if none is named. With `item_image`, the image of the item, its side follows as a
        second map. `overlay` adds pictures.
        """
        arguments = batches.explanation(image, label, item_id, item_image, index, overlay=overlay)
        return await self._request("POST", "/explain", results.to_explanations, **arguments)

    async def search(
        self, images: Images, index: str = DEFAULT_INDEX, **options: Unpack[SearchOptions]
    ) -> list[list[Neighbour]]:
        """The nearest items of the index to each image, best first."""
        return [answer.value async for answer in self.search_iter(images, index, **options)]

    def search_iter(
        self,
        images: Images,
        index: str = DEFAULT_INDEX,
        on_rejection: OnRejection | None = None,
        **options: Unpack[SearchOptions],
    ) -> AsyncGenerator[Answer[Image, list[Neighbour]]]:
        """The nearest items of the index to each image, best first, in order."""
        return self._stream(batches.search(index, "image", inputs.image_to_json, options), images, on_rejection)

    async def search_vectors(
        self, vectors: Vectors, index: str = DEFAULT_INDEX, **options: Unpack[SearchOptions]
    ) -> list[list[Neighbour]]:
        """The nearest items of the index to each vector (dim,), best first."""
        route = batches.search(index, "vector", inputs.vector_to_json, options)
        return [answer.value async for answer in self._stream(route, vectors)]

    async def search_ids(
        self, ids: Iterable[str], index: str = DEFAULT_INDEX, **options: Unpack[SearchOptions]
    ) -> list[list[Neighbour]]:
        """The nearest items to each item with one of these ids, best first."""
        return [answer.value async for answer in self._stream(batches.search(index, "id", orjson.dumps, options), ids)]

    async def more_like(
        self,
        positive: Iterable[str],
        negative: Iterable[str] = (),
        index: str = DEFAULT_INDEX,
        **options: Unpack[SearchOptions],
    ) -> list[Neighbour]:
        """The items nearest to those with the `positive` ids and far from those with the `negative` ids."""
        body = json_body({**options, **inputs.examples(positive, negative)})
        return await self._request("POST", path_of(index, "search"), batches.to_first_neighbours, **body)

    async def add(
        self,
        images: Images,
        ids: Iterable[str] | None = None,
        metadata: Iterable[Json] | Json | None = None,
        index: str = DEFAULT_INDEX,
    ) -> list[str]:
        """Adds images, or replaces the items with these ids; returns the ids when all are on the service's disk."""
        items = inputs.new_items(inputs.many_images(images), ids, metadata)
        return [answer.value async for answer in self.add_iter(items, index)]

    async def add_vectors(
        self,
        vectors: Vectors,
        ids: Iterable[str] | None = None,
        metadata: Iterable[Json] | Json | None = None,
        index: str = DEFAULT_INDEX,
    ) -> list[str]:
        """Like `add`, for embeddings (dim,) of the model being served."""
        items = inputs.new_items(inputs.many_vectors(vectors), ids, metadata)
        return [answer.value async for answer in self._stream(batches.add(index, batches.MAX_VECTORS), items)]

    def add_iter(
        self, items: Iterable[NewItem], index: str = DEFAULT_INDEX, on_rejection: OnRejection | None = None
    ) -> AsyncGenerator[Answer[NewItem, str]]:
        """Adds or replaces items, and yields the id of each when it is on the service's disk."""
        return self._stream(batches.add(index), items, on_rejection)

    async def delete(self, ids: Iterable[str], index: str = DEFAULT_INDEX) -> int:
        """Deletes items; returns how many existed. Items deleted by an attempt whose answer was lost are not counted."""
        pages = inputs.chunks([*inputs.many_ids(ids)], _PAGE_SIZE)
        return sum([await self._delete(index, {"ids": page}, is_temporary) for page in pages])

    async def delete_where(self, filter: Json, index: str = DEFAULT_INDEX) -> int:  # noqa: A002 - the name in the contract
        """Deletes the items whose metadata matches a filter; returns how many there were."""
        return await self._delete(index, {"filter": filter}, connection.not_executed)  # or it may delete new ones

    async def item(self, item_id: str, index: str = DEFAULT_INDEX, *, vector: bool = False) -> Item:
        """An item, with its embedding if `vector` is true."""
        path = path_of(index, "items", item_id)
        return await self._request("GET", path, Item.from_json, params={"vector": "true"} if vector else {})

    async def update(self, item_id: str, metadata: Json, index: str = DEFAULT_INDEX) -> Json:
        """Sets fields of an item's metadata and removes fields that are None; returns the new metadata."""
        body = json_body({"metadata": metadata})
        return await self._request("PATCH", path_of(index, "items", item_id), results.to_metadata, **body)

    async def items(self, index: str = DEFAULT_INDEX, filter: Json | None = None) -> AsyncGenerator[Item]:  # noqa: A002
        """All items, or those whose metadata matches a filter, requested page by page."""
        params: Json = {"limit": _PAGE_SIZE} | ({} if filter is None else {"filter": orjson.dumps(filter).decode()})
        while True:
            page, cursor = await self._request("GET", path_of(index, "items"), results.to_page, params=params)
            for item in page:
                yield item
            if cursor is None:
                return
            params["cursor"] = cursor

    async def indexes(self) -> list[IndexDescription]:
        """All indexes."""
        return await self._request("GET", "/indexes", lambda body: [*map(IndexDescription.from_json, body["indexes"])])

    async def create_index(self, index: str, **options: Any) -> IndexDescription:
        """Creates an index, if there is none of this name."""
        return await self._request("PUT", path_of(index), IndexDescription.from_json, **json_body(options))

    async def describe_index(self, index: str = DEFAULT_INDEX) -> IndexDescription:
        """An index and its properties."""
        return await self._request("GET", path_of(index), IndexDescription.from_json)

    async def count(self, index: str = DEFAULT_INDEX) -> int:
        """How many items the index holds."""
        return (await self.describe_index(index)).count or 0

    async def drop_index(self, index: str) -> None:
        """Deletes an index with all its items."""
        await self._request("DELETE", path_of(index), dict, connection.not_executed, params={"confirm": index})

    async def _stream(
        self, route: BatchRoute[Source, Value], sources: Any, on_rejection: OnRejection | None = None
    ) -> AsyncGenerator[Answer[Source, Value]]:
        """Sends inputs in batches and yields the answers in order."""
        divided = batches.divide(route, sources, await self._limits())
        send = partial(self._send_batch, route, on_rejection)
        async with aclosing(map_concurrently(send, divided, self._concurrency)) as answered:
            async for answers in answered:
                for answer in answers:
                    yield answer

    async def _send_batch(
        self, route: BatchRoute[Source, Value], on_rejection: OnRejection | None, batch: list[EncodedInput[Source]]
    ) -> list[Answer[Source, Value]]:
        """Sends a batch: in two halves if it takes too long, and without rejected inputs if `on_rejection` is given."""
        status, reasons = 0, {n: entry.error for n, entry in enumerate(batch) if entry.error}
        while batch := batches.without_rejected(batch, reasons, status, route.kind, on_rejection):
            body, size = route.body([entry.content for entry in batch]), len(batch)
            retry_if = connection.is_temporary_for(size)
            try:
                return await self._request("POST", route.path, partial(route.answers, batch), retry_if, **body)
            except ServiceError as error:
                if size > 1 and error.status == connection.TOO_SLOW:
                    halves = inputs.chunks(batch, (size + 1) // 2)
                    return [it for half in halves for it in await self._send_batch(route, on_rejection, half)]
                status, reasons = error.status, {f.index: f.reason for f in error.errors if 0 <= f.index < size}
                if not reasons:
                    error.num_done = batch[0].index  # answers come in order
                    raise
        return []

    async def _delete(self, index: str, body: Json, retry_if: RetryIf) -> int:
        to_count: Callable[[Json], int] = itemgetter("deleted")
        return await self._request("POST", path_of(index, "items", "delete"), to_count, retry_if, **json_body(body))
