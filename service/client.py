"""The service from Python: files or bytes in, arrays and typed results out."""

from __future__ import annotations

import io
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import httpx
import numpy as np
import numpy.typing as npt
import orjson

from model.errors import RankoneError

Image = bytes | Path

DEFAULT_URL: Final = "http://127.0.0.1:8000"


class ServiceError(RankoneError, RuntimeError):
    """The service answered with a problem, or could not be reached (status 0)."""

    def __init__(self, status: int, detail: str, errors: Sequence[dict[str, Any]] = ()) -> None:
        super().__init__(f"{status}: {detail}" if status else detail)
        self.status, self.detail, self.errors = status, detail, errors


@dataclass(frozen=True)
class Prediction:
    """A class with its probability."""

    label: str
    index: int
    probability: float


@dataclass(frozen=True)
class Neighbour:
    """An item that a search found, with its cosine in [-1, 1]."""

    id: str
    score: float
    metadata: dict[str, Any] = field(default_factory=dict)


class Client:
    """A service at `url`; one request a call, so the service's limit on images in a request holds for each.

    Every method raises ServiceError where the service refuses or cannot be reached.
    """

    def __init__(
        self, url: str = DEFAULT_URL, timeout_s: float = 300.0, transport: httpx.BaseTransport | None = None
    ) -> None:
        is_local = httpx.URL(url).host in (
            "127.0.0.1",
            "localhost",
            "::1",
        )  # which no proxy of the environment can reach
        self._http = httpx.Client(base_url=url, timeout=timeout_s, transport=transport, trust_env=not is_local)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes its connections."""
        self._http.close()

    @property
    def url(self) -> str:
        """Where the service is."""
        return str(self._http.base_url)

    def info(self) -> dict[str, Any]:
        """What the service says of itself."""
        return dict(self._json("GET", "/info"))

    def wait_until_ready(self, timeout_s: float = 60.0) -> None:
        """Returns when the service is ready; raises ServiceError if it is not within `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                self._json("GET", "/readyz")
            except ServiceError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
            else:
                return

    def embed(self, images: Iterable[Image]) -> npt.NDArray[np.float32]:
        """Embeddings (n, dim), in order."""
        response = self._request("POST", "/embed", files=_parts(images), headers={"accept": "application/x-npy"})
        return np.asarray(np.load(io.BytesIO(response.content), allow_pickle=False), np.float32)

    def classify(self, images: Iterable[Image], top_k: int = 5) -> list[list[Prediction]]:
        """For every image its most probable classes, best first."""
        body = self._json("POST", "/classify", files=_parts(images), params={"top_k": top_k})
        return [[Prediction(**entry) for entry in entries] for entries in body["predictions"]]

    def search(self, images: Iterable[Image], k: int = 10, index: str = "default") -> list[list[Neighbour]]:
        """For every image its nearest items in the index, best first."""
        body = self._json("POST", "/search", files=_parts(images), params={"k": k, "index": index})
        return [[Neighbour(**entry) for entry in entries] for entries in body["results"]]

    def add(
        self,
        images: Iterable[Image],
        ids: Sequence[str] | None = None,
        metadata: Sequence[dict[str, Any]] | None = None,
        index: str = "default",
    ) -> list[str]:
        """Adds images to the index, or replaces those with these ids; returns the ids when all is on the service's disk."""
        parts = _parts(images)
        described: list[dict[str, Any]] = [{} for _ in parts]
        for name, values in (("id", ids), ("metadata", metadata)):
            for entry, value in zip(described, values or [], strict=values is not None):
                entry[name] = value
        data = {"items": orjson.dumps(described).decode()}
        return list(self._json("POST", f"/indexes/{index}/items", files=parts, data=data)["ids"])

    def delete(self, ids: Sequence[str], index: str = "default") -> int:
        """Deletes items; returns how many there were."""
        return int(self._json("POST", f"/indexes/{index}/items/delete", json={"ids": list(ids)})["deleted"])

    def count(self, index: str = "default") -> int:
        """How many items the index holds."""
        return int(self._json("GET", f"/indexes/{index}")["count"])

    def _json(self, method: str, path: str, **arguments: Any) -> Any:
        return orjson.loads(self._request(method, path, **arguments).content)

    def _request(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        try:
            response = self._http.request(method, path, **arguments)
        except httpx.TransportError as error:
            raise ServiceError(0, f"no service answers at {self._http.base_url}: {error}") from error
        if response.is_success:
            return response
        try:
            problem = orjson.loads(response.content)
            raise ServiceError(response.status_code, problem["detail"], problem.get("errors", ()))
        except (orjson.JSONDecodeError, KeyError, TypeError) as error:
            raise ServiceError(response.status_code, response.text[:200]) from error


def _parts(images: Iterable[Image]) -> list[tuple[str, tuple[str, bytes]]]:
    return [("images", ("image", image if isinstance(image, bytes) else image.read_bytes())) for image in images]
