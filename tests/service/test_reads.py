"""Reads of an index end with the interest in them, and keep nobody waiting who wants something else."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from rankone.index.reader import Reader
from tests.services import exchange

pytestmark = pytest.mark.anyio

ITEMS = "/indexes/default/items"
LISTING = f'{ITEMS}?filter={{"a": 1}}'
VECTOR = [1.0] + [0.0] * 9_999
LONG = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200000000) SELECT max(i) FROM n"
SHORT = {"x-request-timeout": "0.3"}


def very_long(reader: Reader, *_: Any) -> list[Any]:
    return reader._fetch(LONG)


async def add_one(http: httpx.AsyncClient) -> None:
    added = await http.post(ITEMS, json={"items": [{"id": "x", "vector": VECTOR, "metadata": {"a": 1}}]})
    assert added.status_code == 201


async def test_reads_end_at_their_deadlines_and_give_their_threads_back(
    http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that run, and those that have had no thread by then."""
    await add_one(http)
    await asyncio.sleep(0)
    before = asyncio.all_tasks()
    with monkeypatch.context() as patch:
        patch.setattr(Reader, "page", very_long)
        patch.setattr(Reader, "records", very_long)
        requests = [http.get(url, headers=SHORT) for url in (ITEMS, f"{ITEMS}/x") for _ in range(5)]
        requests += [http.get(LISTING, headers=SHORT) for _ in range(5)]
        for body in ({"ids": ["x"]}, {"positive": ["x"]}):
            requests.append(http.post("/indexes/default/search", json=body, headers=SHORT))
        async with asyncio.timeout(10):
            answers = await asyncio.gather(*requests)
    assert {answer.status_code for answer in answers} == {504}
    assert answers[0].json()["detail"] == "no answer within the 0.3 s that this request allows"
    for url in (ITEMS, LISTING):
        assert [item["id"] for item in (await http.get(url)).json()["items"]] == ["x"]
    assert (await http.get(f"{ITEMS}/x")).status_code == 200
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before


async def test_a_search_ends_with_its_filter_at_the_deadline(
    http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    await add_one(http)
    body = {"vectors": [VECTOR], "filter": {"a": 1}}
    with monkeypatch.context() as patch:
        patch.setattr(Reader, "sequences", very_long)
        assert (await http.post("/indexes/default/search", json=body, headers=SHORT)).status_code == 504
    async with asyncio.timeout(10):
        found = await http.post("/indexes/default/search", json=body)
    assert [hit["id"] for hit in found.json()["results"][0]] == ["x"]


async def test_more_listings_than_there_are_threads_keep_nobody_else_waiting(
    http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """JSON is parsed and written, items are read by their ids; and one that waits for a thread keeps its deadline."""
    await add_one(http)
    go_on, page = threading.Event(), Reader.page

    def hang(reader: Reader, *arguments: Any) -> Any:
        assert go_on.wait(30)
        return page(reader, *arguments)

    monkeypatch.setattr(Reader, "page", hang)
    listings = [asyncio.create_task(http.get(LISTING)) for _ in range(50)]
    await asyncio.sleep(0.1)
    try:
        async with asyncio.timeout(10):
            assert (await http.post("/indexes/default/search", json={"vectors": [VECTOR]})).status_code == 200
            assert (await http.get(f"{ITEMS}/x")).status_code == 200
            assert (await http.get(LISTING, headers=SHORT)).status_code == 504
    finally:
        go_on.set()
        answers = await asyncio.gather(*listings)
    assert {answer.status_code for answer in answers} == {200}


@pytest.mark.parametrize("path", [ITEMS, f"{ITEMS}/x"])
async def test_a_read_ends_when_its_client_hangs_up(app: FastAPI, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.setattr(Reader, "page", very_long)
    monkeypatch.setattr(Reader, "records", very_long)
    leaves = asyncio.Event()
    asyncio.get_running_loop().call_later(0.1, leaves.set)
    async with asyncio.timeout(30):
        assert (await exchange(app, "GET", path, leaves=leaves))[0] == [499]
