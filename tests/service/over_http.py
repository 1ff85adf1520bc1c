"""Clients of a running service that work on its index, for crash tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx

from rankone.index import Item
from tests.index.crash.clients import Client, Refused, content
from tests.index.crash.ledger import Account, Ledger

DIM = 10_000
URL = "/indexes/default"


def sent(item_id: str, version: int) -> Item:
    """An item as a client sends it that has a vector and no image."""
    return replace(content(item_id, version, DIM), sha256=None, thumbnail=None)


def body(items: Sequence[Item]) -> dict[str, Any]:
    return {"items": [{"id": i.id, "vector": i.vector.tolist(), "metadata": i.metadata} for i in items]}


class OverHttp:
    """The index of a running service, as a client sees it."""

    def __init__(self, url: str) -> None:
        self._url = url

    def put(self, items: Sequence[Item]) -> int:
        return int(self._post(f"{URL}/items", body(items))["sequence"])

    def delete(self, ids: Sequence[str], where: Mapping[str, Any] | None) -> int:
        self._post(f"{URL}/items/delete", {"filter": where} if where else {"ids": list(ids)})
        return 0

    def nearest(self, item: Item, k: int) -> list[tuple[str, Mapping[str, Any]]]:
        (hits,) = self._post(f"{URL}/search", {"vectors": [item.vector.tolist()], "k": k})["results"]
        return [(hit["id"], hit["metadata"]) for hit in hits]

    def _post(self, path: str, json: Mapping[str, Any]) -> dict[str, Any]:
        try:
            response = httpx.post(self._url + path, json=json, timeout=60, trust_env=False)
        except httpx.TransportError as error:
            raise Refused from error
        if response.status_code in (503, 507):
            raise Refused(response.text)
        assert response.is_success, response.text
        answer: dict[str, Any] = response.json()
        return answer


def clients_of(url: str, ledger: Ledger, folder: Path, seed: str) -> list[Client]:
    """Two of them; what is in the index is known from the ledger."""
    settled = Account.of((folder / "ledger").read_bytes()).settled
    clients = [Client(f"c{n}", OverHttp(url), ledger, settled, seed, DIM) for n in range(2)]
    for client in clients:
        client.shares = False
    return clients
