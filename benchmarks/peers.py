"""The index against other embedded vector databases, set up for exact search by their documentation.

`make peers` installs them.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol

import torch

from benchmarks.gallery import K, ids_of, noisy, recall
from benchmarks.timing import Call, Goal, console, print_comparison
from rankone.index import Index, Vectors

OURS: Final = "the index"


class Missing(ImportError):
    """A peer that is not installed."""


class Peer(Protocol):
    """Vectors (n, dim) of length 1 by id, searched by inner product."""

    def add(self, ids: Sequence[str], vectors: Vectors) -> None: ...
    def search(self, queries: Vectors, k: int) -> list[list[str]]: ...


class LanceDB:
    """A table without an index, searched by brute force."""

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
    """The local mode of its client: NumPy over all vectors, stored in SQLite."""

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
        answers = self._client.query_batch_points("items", requests)
        return [[str(point.id) for point in found.points] for found in answers]


class Chroma:
    """A persistent collection; HNSW, its only index, with a thousand candidates a query."""

    def __init__(self, folder: Path, dim: int) -> None:  # noqa: ARG002 - it finds the dimension itself
        client = _imported("chromadb").PersistentClient(path=str(folder))
        self._collection = client.create_collection("items", metadata={"hnsw:space": "ip", "hnsw:search_ef": 1000})

    def add(self, ids: Sequence[str], vectors: Vectors) -> None:
        self._collection.add(ids=list(ids), embeddings=vectors)

    def search(self, queries: Vectors, k: int) -> list[list[str]]:
        found = self._collection.query(query_embeddings=queries, n_results=k, include=[])
        return [list(ids) for ids in found["ids"]]


PEERS: Final[dict[str, Callable[[Path, int], Peer]]] = {"LanceDB": LanceDB, "Qdrant local": Qdrant, "Chroma": Chroma}


def against_peers(folder: Path, real: Vectors, queries: Vectors, rows: int, rounds: int) -> None:
    """Prints times, recall and adds/s of the databases on the vectors of `exact.sqlite`; missing ones are named."""
    index = Index(folder / "exact.sqlite", torch.get_num_threads())
    expected = ids_of(index.search(queries, K))
    peers: dict[str, Peer] = {}
    more: dict[str, dict[str, str]] = {"recall": {OURS: "1.000"}, "adds/s": {}}
    for name, make_peer in PEERS.items():
        try:
            peers[name] = make_peer(folder / name, real.shape[1])
        except Missing as missing:
            console.print(f"{name}: {missing}")
            continue
        more["adds/s"][name] = f"{rows / _seconds_to_fill(peers[name], real, rows):,.0f}"
        more["recall"][name] = f"{recall(expected, peers[name].search(queries, K)):.3f}"
    for asked, title in ((queries, f"{len(queries)} queries"), (queries[:1], "one query")):
        calls: dict[str, Call] = {OURS: partial(index.search, asked, K)}
        calls |= {name: partial(peer.search, asked, K) for name, peer in peers.items()}
        goals = (Goal(OURS, name, 1) for name in peers)
        print_comparison(f"{rows:,} rows, {title}, against others", calls, OURS, rounds, *goals, more=more)
    index.close()


def _seconds_to_fill(peer: Peer, real: Vectors, rows: int) -> float:
    seconds, number = 0.0, 0
    for batch in noisy(real, rows, seed=0):
        ids = [str(number + place) for place in range(len(batch))]
        number += len(batch)
        started = time.perf_counter()
        peer.add(ids, batch)
        seconds += time.perf_counter() - started
    return seconds


def _imported(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise Missing(f"not compared, {name} is not installed: make peers") from error
