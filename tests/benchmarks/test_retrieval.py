"""What the retrieval benchmark times is the same search, each time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import lance, peers, postgres
from benchmarks.compact import bytes_a_code
from benchmarks.gallery import K, filled, ids_of, noisy, recall, stored_rows
from benchmarks.retrieval import BARE, FLOOR, ON_GPU, contenders, on_device
from rankone.index import Hit
from rankone.index.postgres import PostgresIndexes
from tests.docker.files import pinned
from tests.index.oracle import unit

REAL = unit(30, 512)


def test_repetitions_are_near_what_they_repeat_and_the_same_every_time() -> None:
    first, again = (np.concatenate(list(noisy(REAL, 700, seed=1))) for _ in range(2))
    assert first.shape == (700, 512)
    assert np.array_equal(first, again)
    assert np.linalg.norm(first, axis=1) == pytest.approx(np.ones(700), abs=1e-5)
    assert (first @ REAL.T).max(axis=1) == pytest.approx(np.full(700, 1 / np.hypot(1, 0.3)), abs=0.03)


def test_every_contender_finds_what_it_should(tmp_path: Path) -> None:
    index, seconds = filled(tmp_path / "index.sqlite", REAL, 600, "exact")
    assert (len(index), seconds > 0) == (600, True)
    matrix = stored_rows(REAL, 600)
    queries = next(noisy(REAL, 8, seed=1))
    answers: dict[str, Any] = {name: call() for name, call in contenders(index, matrix, queries, 600).items()}
    _, rows = answers.pop(BARE)
    found = {name: [[int(hit.id) for hit in hits] for hits in answer] for name, answer in answers.items()}
    assert found[peers.OURS] == found["filtered: all"] == rows.tolist()
    for hits in found["filtered: first half"]:
        assert max(hits) < 300
    for hits in found["filtered: every second"]:
        assert {hit % 2 for hit in hits} == {0}
    index.close()


def test_what_is_measured_on_a_gpu_finds_what_it_should() -> None:
    matrix = stored_rows(REAL, 600)
    queries = next(noisy(REAL, 8, seed=1))
    calls: dict[str, Any] = on_device(REAL, queries, 600, "cpu")
    calls[FLOOR]()
    found = [[place.row for place in places] for places in calls[ON_GPU]()]
    assert found == np.argsort(-queries @ matrix.T, axis=1)[:, :K].tolist()


def test_recall_and_memory_of_compact_codes() -> None:
    assert bytes_a_code(10_000) == pytest.approx(1260, rel=0.01)
    assert recall(["abcd", "ab"], ["abxy", "ab"]) == 0.75
    assert ids_of([[Hit("a", 1, {}), Hit("b", 1, {})], []]) == [["a", "b"], []]


def test_peers_that_are_not_installed_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr("importlib.import_module", missing)
    for make in peers.PEERS.values():
        with pytest.raises(peers.Missing, match=r"is not installed: make peers"):
            make(tmp_path, 8)


def test_the_peers_take_the_place_of_nothing_that_is_tested() -> None:
    """Files of onnxruntime are where those of onnxruntime-gpu are, and the last to be installed would be measured."""
    tested, added = (
        {name: {version for version, _ in pins} for name, pins in pinned(lock).items()}
        for lock in ("requirements.lock", "requirements-peers.lock")
    )
    shared = tested.keys() & added.keys()
    assert {"numpy", "uvicorn"} <= shared
    assert {name: added[name] for name in shared} == {name: tested[name] for name in shared}
    assert not {"onnxruntime", "faiss-cpu"} & added.keys()


@pytest.mark.slow
def test_indexes_in_postgres_are_measured_beside_files(
    database: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(postgres.DatabaseMissing, match="set RANKONE_INDEX"):
        postgres.main()
    monkeypatch.setattr("benchmarks.postgres.photographs", lambda: unit(20, 300))
    monkeypatch.setattr("benchmarks.postgres.ROWS", 600)
    monkeypatch.setattr("benchmarks.postgres.ROUNDS", 2)
    monkeypatch.setenv("RANKONE_INDEX", database)
    postgres.main()
    printed = capsys.readouterr().out
    assert printed.count("64 queries in one request") == 4
    assert printed.count("in PostgreSQL: recall@10") == 2
    indexes = PostgresIndexes(database, 60)
    assert indexes.names() == []
    indexes.close()


@pytest.mark.slow
def test_published_versions_are_measured_beside_files(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("lance", reason="pylance, of rankone[lance], is not installed")
    monkeypatch.setattr("benchmarks.lance.photographs", lambda: unit(20, 320))
    monkeypatch.setattr("benchmarks.lance.ROWS", 600)
    monkeypatch.setattr("benchmarks.lance.ROUNDS", 2)
    lance.main()
    printed = capsys.readouterr().out
    assert printed.count("16 queries one by one") == 6
    assert printed.count("in Lance: recall@10") == 2
