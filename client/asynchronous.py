"""The client for event loops."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Sequence
from typing import Any, Unpack

import numpy as np
import numpy.typing as npt

from rankone.client import bulk, exchange, routes
from rankone.client.bulk import Image
from rankone.client.call import Call, Json
from rankone.client.exchange import OnRejection
from rankone.client.results import (
    Answer,
    IndexDescription,
    Item,
    Metadata,
    Model,
    Neighbour,
    NewItem,
    Prediction,
    Vector,
)
from rankone.client.routes import DEFAULT_INDEX, SearchOptions
from rankone.client.sender import AsyncSender


class AsyncClient(AsyncSender):
    """`Client` for asyncio: the same methods, awaited; its iterators are asynchronous generators
    that keep the order.

    Of a stream, up to `concurrency` requests are on their way at once, and as many are in memory; the inputs are iterated
    over in a thread, one request ahead of need at the most.
    """

    async def info(self) -> Json:
        return await self._ask(routes.info())

    async def ready(self) -> bool:
        return await self._run(exchange.is_ready(self._retries))

    async def wait_until_ready(self, timeout_s: float = 60.0) -> None:
        await self._run(exchange.until_ready(timeout_s, self._retries))

    async def models(self) -> list[Model]:
        return await self._ask(routes.models())

    async def load_model(self, name: str, version: str) -> Json:
        return await self._ask(routes.load_model(name, version))

    async def embed(self, images: Iterable[Image]) -> npt.NDArray[np.float32]:
        rows = [answer.value async for answer in self.embed_iter(images)]
        return np.stack(rows) if rows else np.empty((0, (await self._facts()).dim), np.float32)

    def embed_iter(
        self, images: Iterable[Image], on_rejection: OnRejection | None = None
    ) -> AsyncGenerator[Answer[Image, npt.NDArray[np.float32]]]:
        return self._stream(bulk.embed(), images, on_rejection)

    async def classify(self, images: Iterable[Image], top_k: int = 5) -> list[list[Prediction]]:
        return [answer.value async for answer in self.classify_iter(images, top_k)]

    def classify_iter(
        self, images: Iterable[Image], top_k: int = 5, on_rejection: OnRejection | None = None
    ) -> AsyncGenerator[Answer[Image, list[Prediction]]]:
        return self._stream(bulk.classify(top_k), images, on_rejection)

    async def search(
        self, images: Iterable[Image], index: str = DEFAULT_INDEX, **options: Unpack[SearchOptions]
    ) -> list[list[Neighbour]]:
        return [answer.value async for answer in self.search_iter(images, index, **options)]

    def search_iter(
        self,
        images: Iterable[Image],
        index: str = DEFAULT_INDEX,
        on_rejection: OnRejection | None = None,
        **options: Unpack[SearchOptions],
    ) -> AsyncGenerator[Answer[Image, list[Neighbour]]]:
        return self._stream(bulk.search_images(index, options), images, on_rejection)

    async def search_vectors(
        self, vectors: Iterable[Vector], index: str = DEFAULT_INDEX, **options: Unpack[SearchOptions]
    ) -> list[list[Neighbour]]:
        return [answer.value async for answer in self._stream(bulk.search_vectors(index, options), vectors)]

    async def search_ids(
        self, ids: Iterable[str], index: str = DEFAULT_INDEX, **options: Unpack[SearchOptions]
    ) -> list[list[Neighbour]]:
        return [answer.value async for answer in self._stream(bulk.search_ids(index, options), ids)]

    async def more_like(
        self,
        positive: Sequence[str],
        negative: Sequence[str] = (),
        index: str = DEFAULT_INDEX,
        **options: Unpack[SearchOptions],
    ) -> list[Neighbour]:
        return await self._ask(routes.more_like(index, positive, negative, options))

    async def add(
        self,
        images: Iterable[Image],
        ids: Iterable[str] | None = None,
        metadata: Iterable[Metadata] | None = None,
        index: str = DEFAULT_INDEX,
    ) -> list[str]:
        return [answer.value async for answer in self.add_iter(bulk.new_items(images, ids, metadata), index)]

    async def add_vectors(
        self,
        vectors: Iterable[Vector],
        ids: Iterable[str] | None = None,
        metadata: Iterable[Metadata] | None = None,
        index: str = DEFAULT_INDEX,
    ) -> list[str]:
        items = bulk.new_items(vectors, ids, metadata)
        return [answer.value async for answer in self._stream(bulk.add_vectors(index), items)]

    def add_iter(
        self, items: Iterable[NewItem], index: str = DEFAULT_INDEX, on_rejection: OnRejection | None = None
    ) -> AsyncGenerator[Answer[NewItem, str]]:
        return self._stream(bulk.add(index), items, on_rejection)

    async def delete(self, ids: Sequence[str], index: str = DEFAULT_INDEX) -> int:
        return await self._run(exchange.delete(index, ids, self._retries))

    async def delete_where(self, condition: Json, index: str = DEFAULT_INDEX) -> int:
        return await self._ask(routes.delete_where(index, condition))

    async def item(self, item_id: str, index: str = DEFAULT_INDEX, *, vector: bool = False) -> Item:
        return await self._ask(routes.item(index, item_id, vector))

    async def items(self, index: str = DEFAULT_INDEX, condition: Json | None = None) -> AsyncGenerator[Item]:
        call: Call[routes.Page] | None = routes.items(index, condition)
        while call is not None:
            page = await self._ask(call)
            for item in page.items:
                yield item
            call = page.following

    async def indexes(self) -> list[IndexDescription]:
        return await self._ask(routes.indexes())

    async def create_index(self, index: str, **options: Any) -> IndexDescription:
        return await self._ask(routes.create_index(index, options))

    async def describe_index(self, index: str = DEFAULT_INDEX) -> IndexDescription:
        return await self._ask(routes.describe_index(index))

    async def count(self, index: str = DEFAULT_INDEX) -> int:
        return (await self.describe_index(index)).count or 0

    async def drop_index(self, index: str) -> None:
        await self._ask(routes.drop_index(index))
