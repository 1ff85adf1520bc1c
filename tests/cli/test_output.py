"""What is written, read back by the libraries of each format; and that it is whole or not there."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from rankone.cli.errors import explained
from rankone.cli.output import InputError, _header, writing
from rankone.client import Neighbour, Prediction

NEIGHBOURS = [Neighbour("a", 0.5, {"n": [1, None]}), Neighbour("ü", -1.0)]


def write(out: Path | None, column: str, values: list[Any]) -> None:
    with writing(out, column) as answer:
        for place, value in enumerate(values):
            answer(f"{place}.png", value)


@pytest.fixture
def out(tmp_path: Path) -> Iterator[Path]:
    """A folder in which nothing temporary is left."""
    yield tmp_path
    assert not list(tmp_path.glob(".*"))


def test_an_array_of_rows_that_were_not_counted_before(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = np.random.default_rng(0).standard_normal((13, 7)).astype(np.float32)
    write(out / "e.npy", "embedding", list(rows))
    found = np.load(out / "e.npy", allow_pickle=False)
    assert (found.dtype, np.array_equal(found, rows)) == (np.float32, True)
    assert capsys.readouterr().out.split() == [f"{n}.png" for n in range(13)]
    assert len(_header(0, 10_000)) == len(_header(10**15, 10_000))


def test_json_and_json_lines(out: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    expected = [
        {"path": "0.png", "neighbours": [{"id": "a", "score": 0.5, "metadata": {"n": [1, None]}}]},
        {"path": "1.png", "neighbours": []},
    ]
    values = [NEIGHBOURS[:1], []]
    write(out / "n.json", "neighbours", values)
    assert json.loads((out / "n.json").read_text()) == expected
    write(out / "n.jsonl", "neighbours", values)
    assert [json.loads(line) for line in (out / "n.jsonl").read_text().splitlines()] == expected
    write(None, "neighbours", values)
    assert [json.loads(line) for line in capfdbinary.readouterr().out.splitlines()] == expected
    write(out / "e.json", "embedding", [np.array([1, 0.5], np.float32)])
    assert json.loads((out / "e.json").read_text()) == [{"path": "0.png", "embedding": [1, 0.5]}]


def test_parquet_in_row_groups(out: Path) -> None:
    write(out / "n.parquet", "neighbours", [NEIGHBOURS, [], *[NEIGHBOURS[:1]] * 2100])
    table = pq.ParquetFile(out / "n.parquet")
    assert table.num_row_groups == 3
    rows = table.read().to_pylist()
    assert [row["path"] for row in rows] == [f"{n}.png" for n in range(2102)]
    first = [(hit["id"], hit["score"], json.loads(hit["metadata"])) for hit in rows[0]["neighbours"]]
    assert first == [(n.id, n.score, n.metadata) for n in NEIGHBOURS]
    assert rows[1]["neighbours"] == []
    write(out / "p.parquet", "predictions", [[Prediction("x", 3, 0.25)]])
    (row,) = pq.read_table(out / "p.parquet").to_pylist()
    assert row == {"path": "0.png", "predictions": [{"label": "x", "index": 3, "probability": 0.25}]}
    vectors = np.random.default_rng(0).standard_normal((3, 5)).astype(np.float32)
    write(out / "e.parquet", "embedding", list(vectors))
    found = np.array(pq.read_table(out / "e.parquet")["embedding"].to_pylist(), np.float32)
    assert np.array_equal(found, vectors)


@pytest.mark.parametrize("suffix", [".npy", ".json", ".jsonl", ".parquet"])
def test_what_breaks_off_leaves_what_was_there(out: Path, suffix: str) -> None:
    path = out / f"e{suffix}"
    path.write_text("of yesterday")
    with pytest.raises(KeyError), writing(path, "embedding") as answer:  # noqa: PT012 - it has to break off inside
        answer("0.png", np.ones(3, np.float32))
        raise KeyError
    assert path.read_text() == "of yesterday"


def test_a_file_that_cannot_be_written_is_refused_before_anything_is_sent(
    out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for path, column, sentence in (
        (out / "e.csv", "embedding", "are written to .npy, .json, .jsonl or .parquet files"),
        (out / "e.npy", "neighbours", "are written to .json, .jsonl or .parquet files"),
        (out / "nowhere" / "e.npy", "embedding", "there is no folder"),
    ):
        with pytest.raises(InputError, match=sentence):
            writing(path, column)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with explained("embed") as outcome:
        writing(out / "e.parquet", "embedding")
    assert outcome.status == 2
    assert "needs pyarrow: pip install 'rankone[parquet]'" in capsys.readouterr().err
