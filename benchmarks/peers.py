"""Other embedded vector databases, each as its documentation says for exact search: `rankone[peers]`."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

from benchmarks.gallery import Vectors


class Missing(ImportError):
    """It is not installed."""


class Peer(Protocol):
    """Vectors (n, dim) of length 1 by id, searched by inner product."""

    def add(self, ids: Sequence[str], vectors: Vectors) -> None: ...
    def search(self, queries: Vectors, k: int) -> list[list[str]]: ...


class LanceDB:
    """A table without an index, which is searched by brute force."""

    def __init__(self, folder: Path, dim: int) -> None:
        arrow = _imported("pyarrow")
        self._dim, self._arrow = dim, arrow
        schema = arrow.schema([("id", arrow.string()), ("vector", arrow.list_(arrow.float32(), dim))])
        self._table = _imported("lancedb").connect(folder).create_table("items", schema=schema)

    def add(self, ids: Sequence[str], vectors: Vectors) -> None:
        rows = self._arrow.FixedSizeListArray.from_arrays(self._arrow.array(vectors.ravel()), self._dim)
        self._table.add(self._arrow.table({"id": list(ids), "vector": rows}))

    def search(self, queries: Vectors, k: int) -> list[list[str]]:
        search = self._table.search(queries if len(queries) > 1 else queries[0]).distance_type("dot")
        found: list[list[str]] = [[] for _ in queries]
        for row in search.limit(k).select(["id", "_distance"]).to_list():
            found[row.get("query_index", 0)].append(row["id"])
        return found


class Qdrant:
    """The local mode of its client: NumPy over all vectors, kept in SQLite."""

    def __init__(self, folder: Path, dim: int) -> None:
        client = _imported("qdrant_client")
        self._models = importlib.import_module("qdrant_client.models")
        self._client = client.QdrantClient(path=str(folder))
        vectors = self._models.VectorParams(size=dim, distance=self._models.Distance.DOT)
        self._client.create_collection("items", vectors_config=vectors)

    def add(self, ids: Sequence[str], vectors: Vectors) -> None:
        points = [self._models.PointStruct(id=int(i), vector=v.tolist()) for i, v in zip(ids, vectors, strict=True)]
        self._client.upsert("items", points)

    def search(self, queries: Vectors, k: int) -> list[list[str]]:
        requests = [self._models.QueryRequest(query=query.tolist(), limit=k) for query in queries]
        return [
            [str(point.id) for point in found.points] for found in self._client.query_batch_points("items", requests)
        ]


class Chroma:
    """A persistent collection; its index is HNSW, which is all that it has, looking at a thousand candidates a query."""

    def __init__(self, folder: Path, dim: int) -> None:  # noqa: ARG002 - it finds the dimension itself
        client = _imported("chromadb").PersistentClient(path=str(folder))
        self._collection = client.create_collection("items", metadata={"hnsw:space": "ip", "hnsw:search_ef": 1000})

    def add(self, ids: Sequence[str], vectors: Vectors) -> None:
        self._collection.add(ids=list(ids), embeddings=vectors)

    def search(self, queries: Vectors, k: int) -> list[list[str]]:
        found = self._collection.query(query_embeddings=queries, n_results=k, include=[])
        return [list(ids) for ids in found["ids"]]


PEERS: Final[dict[str, Callable[[Path, int], Peer]]] = {"LanceDB": LanceDB, "Qdrant local": Qdrant, "Chroma": Chroma}


def _imported(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise Missing(f"not compared, {name} is not installed: rankone[peers]") from error
