"""docs/client.md: its code and its commands run as they are printed, with the answers that it promises."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from rankone.client import AsyncClient, Client
from rankone.model.bundle import Bundle
from tests.pages import FLOWERS, ROOT, Shell, blocks, commands, write_flowers

PAGE = "docs/client.md"
TEXT = (ROOT / PAGE).read_text(encoding="utf-8")
BLOCKING, ASYNCHRONOUS = blocks(PAGE, "python")


@pytest.fixture
def shell(photos_root: Path, bundle: Bundle, tmp_path: Path, here: bool) -> Shell:
    for split in ("train", "test"):
        write_flowers(photos_root / split, tmp_path / "flowers" / split, count=4)
    return Shell(tmp_path, here=here)


def run(code: str, shell: Shell) -> dict[str, Any]:
    """Runs a block in the folder of the shell; returns its variables."""
    file = shell.folder / "block.py"
    file.write_text(code.replace("http://127.0.0.1:8000", shell.url), encoding="utf-8")
    return runpy.run_path(str(file), run_name="__main__")


def test_code_and_commands_answer_as_the_page_says(
    shell: Shell, bundle: Bundle, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(shell.folder)
    with shell.serving(f"rankone serve --bundle {bundle.path}"):
        variables = run(BLOCKING, shell)
        check_variables(variables)
        *items, error = capsys.readouterr().out.splitlines()
        assert items == [f"{path} {{'flower': '{path.parent.name}'}}" for path in variables["images"]]
        (shown,) = re.findall(r"error\.errors\)\n +# (.*)", TEXT)
        assert error == shown
        run(ASYNCHRONOUS, shell)
        assert capsys.readouterr().out.splitlines() == [f"{path} (10000,)" for path in variables["images"]]
        check_commands(shell, variables["embeddings"])


def check_variables(variables: dict[str, Any]) -> None:
    images, embeddings, best, hits = (variables[name] for name in ("images", "embeddings", "best", "hits"))
    assert len(images) == 16
    assert (embeddings.shape, embeddings.dtype) == ((16, 10_000), np.float32)
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, rtol=1e-5)
    assert best.label == FLOWERS[images[0].parent.name]
    assert len(hits) == 3
    assert (hits[0].id, hits[0].metadata) == (str(images[0]), {"flower": images[0].parent.name})
    assert hits[0].score == pytest.approx(1, abs=1e-3)


def check_commands(shell: Shell, embeddings: np.ndarray[Any, Any]) -> None:
    embed, classify, add, search, filtered = commands(PAGE)[0]
    names = shell.run(embed).splitlines()
    np.testing.assert_allclose(np.load(shell.folder / "embeddings.npy"), embeddings, atol=1e-5)
    shell.run(classify)
    classified = [json.loads(line) for line in (shell.folder / "classes.jsonl").read_text().splitlines()]
    right = [line["predictions"][0]["label"] == FLOWERS[flower_of(line["path"])] for line in classified]
    assert sum(right) >= 12
    assert "16 images added; the index holds 32" in shell.run(add)
    shell.run(search)
    rows = pq.read_table(shell.folder / "neighbours.parquet").to_pylist()
    assert [row["path"] for row in rows] == names
    assert [row["neighbours"][0]["id"] for row in rows] == names  # the same files are in the index
    answers = [json.loads(line) for line in shell.run(filtered).splitlines()]
    assert [answer["path"] for answer in answers] == names
    for answer in answers:
        assert all(hit["score"] >= 0.8 and flower_of(hit["id"]) in ("rose", "tulip") for hit in answer["neighbours"])
        if flower_of(answer["path"]) in ("rose", "tulip"):
            assert answer["neighbours"][0]["id"] == answer["path"]


def flower_of(name: str) -> str:
    return Path(name).parent.name


def test_every_method_of_the_page_exists_and_none_is_left_out() -> None:
    public = {name for name in dir(Client) if not name.startswith("_")} - {"close", "url"}
    (table,) = re.findall(r"\| images \|.*?\n\n", TEXT, re.DOTALL)
    named = set(re.findall(r"`(\w+)`", table)) - {"k", "filter", "min_score", "exclude_self", "group_by", "_iter"}
    assert named | {"embed_iter", "classify_iter", "search_iter"} == public
    assert all(hasattr(AsyncClient, name) for name in public)


def test_it_stays_short() -> None:
    assert len(TEXT.split()) <= 480
