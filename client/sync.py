"""The client that blocks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
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
from rankone.client.sender import Sender


class Client(Sender):
    """The service at `url`, asked with `key` or the variable RANKONE_KEY.

    No request lasts longer than `timeout_s`, or than the service's own deadline where that is not given.
    Any number of inputs goes into a call: they are divided into requests that the service takes, sent in order. A
    request is carried out whole or not at all, a call that fails half way is not: what was added before stays.
    The `…_iter` methods read their inputs as they go and keep one request of them in memory. They raise at the first
    input that cannot be used, or, with `on_rejection`, call that and go on without it.

    Every method raises ServiceError where the service refuses or cannot be reached, after the retries of `retries`.
    """

    def info(self) -> Json:
        """What the service says of itself."""
        return self._ask(routes.info())

    def ready(self) -> bool:
        """Whether it is ready to answer."""
        return self._run(exchange.is_ready(self._retries))

    def wait_until_ready(self, timeout_s: float = 60.0) -> None:
        """Returns when the service is ready; raises ServiceError if it is not within `timeout_s`."""
        self._run(exchange.until_ready(timeout_s, self._retries))

    def models(self) -> list[Model]:
        """The models that the service has."""
        return self._ask(routes.models())

    def load_model(self, name: str, version: str) -> Json:
        """Has the service load a model and serve it from then on; returns when it does."""
        return self._ask(routes.load_model(name, version))

    def embed(self, images: Iterable[Image]) -> npt.NDArray[np.float32]:
        """Embeddings (n, dim), in order."""
        rows = [answer.value for answer in self.embed_iter(images)]
        return np.stack(rows) if rows else np.empty((0, self._facts().dim), np.float32)

    def embed_iter(
        self, images: Iterable[Image], on_rejection: OnRejection | None = None
    ) -> Iterator[Answer[Image, npt.NDArray[np.float32]]]:
        """The embedding (dim,) of every image, in order."""
        return self._stream(bulk.embed(), images, on_rejection)

    def classify(self, images: Iterable[Image], top_k: int = 5) -> list[list[Prediction]]:
        """For every image its most probable classes, best first."""
        return [answer.value for answer in self.classify_iter(images, top_k)]

    def classify_iter(
        self, images: Iterable[Image], top_k: int = 5, on_rejection: OnRejection | None = None
    ) -> Iterator[Answer[Image, list[Prediction]]]:
        """For every image its most probable classes, best first, in order."""
        return self._stream(bulk.classify(top_k), images, on_rejection)

    def search(
        self, images: Iterable[Image], index: str = DEFAULT_INDEX, **options: Unpack[SearchOptions]
    ) -> list[list[Neighbour]]:
        """For every image its nearest items in the index, best first."""
        return [answer.value for answer in self.search_iter(images, index, **options)]

    def search_iter(
        self,
        images: Iterable[Image],
        index: str = DEFAULT_INDEX,
        on_rejection: OnRejection | None = None,
        **options: Unpack[SearchOptions],
    ) -> Iterator[Answer[Image, list[Neighbour]]]:
        """For every image its nearest items in the index, best first, in order."""
        return self._stream(bulk.search_images(index, options), images, on_rejection)

    def search_vectors(
        self, vectors: Iterable[Vector], index: str = DEFAULT_INDEX, **options: Unpack[SearchOptions]
    ) -> list[list[Neighbour]]:
        """For every vector (dim,) its nearest items, best first."""
        return [answer.value for answer in self._stream(bulk.search_vectors(index, options), vectors)]

    def search_ids(
        self, ids: Iterable[str], index: str = DEFAULT_INDEX, **options: Unpack[SearchOptions]
    ) -> list[list[Neighbour]]:
        """For every item with one of these ids its nearest items, best first."""
        return [answer.value for answer in self._stream(bulk.search_ids(index, options), ids)]

    def more_like(
        self,
        positive: Sequence[str],
        negative: Sequence[str] = (),
        index: str = DEFAULT_INDEX,
        **options: Unpack[SearchOptions],
    ) -> list[Neighbour]:
        """The items nearest to those with the `positive` ids and away from those with the `negative`."""
        return self._ask(routes.more_like(index, positive, negative, options))

    def add(
        self,
        images: Iterable[Image],
        ids: Iterable[str] | None = None,
        metadata: Iterable[Metadata] | None = None,
        index: str = DEFAULT_INDEX,
    ) -> list[str]:
        """Adds images, or replaces those with these ids; returns the ids when all is on the service's disk."""
        return [answer.value for answer in self.add_iter(bulk.new_items(images, ids, metadata), index)]

    def add_vectors(
        self,
        vectors: Iterable[Vector],
        ids: Iterable[str] | None = None,
        metadata: Iterable[Metadata] | None = None,
        index: str = DEFAULT_INDEX,
    ) -> list[str]:
        """The same for embeddings (dim,) of the model being served."""
        items = bulk.new_items(vectors, ids, metadata)
        return [answer.value for answer in self._stream(bulk.add_vectors(index), items)]

    def add_iter(
        self, items: Iterable[NewItem], index: str = DEFAULT_INDEX, on_rejection: OnRejection | None = None
    ) -> Iterator[Answer[NewItem, str]]:
        """Adds or replaces items as they come, and says the id of each when it is on the service's disk."""
        return self._stream(bulk.add(index), items, on_rejection)

    def delete(self, ids: Sequence[str], index: str = DEFAULT_INDEX) -> int:
        """Deletes items; returns how many there were."""
        return self._run(exchange.delete(index, ids, self._retries))

    def delete_where(self, condition: Json, index: str = DEFAULT_INDEX) -> int:
        """Deletes the items whose metadata matches a filter; returns how many there were."""
        return self._ask(routes.delete_where(index, condition))

    def item(self, item_id: str, index: str = DEFAULT_INDEX, *, vector: bool = False) -> Item:
        """One item, with its embedding if that is asked for."""
        return self._ask(routes.item(index, item_id, vector))

    def items(self, index: str = DEFAULT_INDEX, condition: Json | None = None) -> Iterator[Item]:
        """All items, or those whose metadata matches a filter, a page at a time."""
        call: Call[routes.Page] | None = routes.items(index, condition)
        while call is not None:
            page = self._ask(call)
            yield from page.items
            call = page.following

    def indexes(self) -> list[IndexDescription]:
        """All indexes."""
        return self._ask(routes.indexes())

    def create_index(self, index: str, **options: Any) -> IndexDescription:
        """Creates an index, where there is none of this name."""
        return self._ask(routes.create_index(index, options))

    def describe_index(self, index: str = DEFAULT_INDEX) -> IndexDescription:
        """One index."""
        return self._ask(routes.describe_index(index))

    def count(self, index: str = DEFAULT_INDEX) -> int:
        """How many items the index holds."""
        return self.describe_index(index).count or 0

    def drop_index(self, index: str) -> None:
        """Deletes an index with all its items."""
        self._ask(routes.drop_index(index))
