"""The commands that ask a service: before a real one, and before one that fails."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from functools import partial
from pathlib import Path
from subprocess import CompletedProcess

import httpx
import numpy as np
import pyarrow.parquet as pq
import pytest

from rankone.__main__ import run
from rankone.client import AsyncClient, Client, Retries
from rankone.training.data import DataSet
from tests.cli.test_commands import rankone, service
from tests.client.conftest import INFO, json_response, npy, npy_response
from tests.pages import Shell
from tests.services import Process, Start, start

__all__ = ["service", "start"]

Served = Callable[[httpx.Request], httpx.Response]


def test_images_and_folders_to_embeddings_predictions_and_neighbours(
    service: Process, photos: DataSet, tmp_path: Path
) -> None:
    folder = photos.test.paths[0].parents[1]
    names = [str(path) for path in photos.test.paths]
    url = ("--url", service.url)
    with Client(service.url) as client:
        expected = client.embed(photos.test.paths)

    npy_file = rankone("embed", folder, "--out", tmp_path / "e.npy", *url)
    assert npy_file.stdout.split() == names, npy_file.stderr
    assert np.allclose(np.load(tmp_path / "e.npy"), expected, atol=1e-6)

    shell = Shell(tmp_path, here=True)  # of the other commands none starts a process

    def asked(*words: object) -> CompletedProcess[str]:
        return shell.attempt(shlex.join(["rankone", *map(str, words)]))

    assert asked("embed", folder, "--out", tmp_path / "e.json", *url).returncode == 0
    records = json.loads((tmp_path / "e.json").read_text())
    assert [record["path"] for record in records] == names
    assert np.allclose([record["embedding"] for record in records], expected, atol=1e-6)

    lines = asked("classify", *photos.test.paths[:2], "--top-k", 2, *url).stdout.splitlines()
    assert [len(json.loads(line)["predictions"]) for line in lines] == [2, 2]

    assert "16 images added; the index holds 16" in asked("add", folder, *url).stdout
    assert asked("search", folder, "--k", 3, "--out", tmp_path / "n.parquet", *url).returncode == 0
    rows = pq.read_table(tmp_path / "n.parquet").to_pylist()
    assert [row["path"] for row in rows] == [row["neighbours"][0]["id"] for row in rows] == names
    assert {len(row["neighbours"]) for row in rows} == {3}

    for fields, metadata in (
        ('{"year": 2020, "draft": true}', {"year": 2020, "draft": True}),
        ('{"draft": null}', {"year": 2020}),
    ):
        assert json.loads(asked("update", names[0], "--metadata", fields, *url).stdout) == metadata
    with Client(service.url) as client:
        assert [item.id for item in client.items(filter={"year": 2020})] == names[:1]
    assert "there is no item 'none'" in asked("update", "none", "--metadata", "{}", *url).stderr


@pytest.mark.parametrize(("wrong", "reason"), [("{", "not JSON"), ("[1]", "not an object")])
def test_metadata_to_set_is_an_object(wrong: str, reason: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run("update", ["a", "--metadata", wrong]) == 2
    assert f"--metadata {wrong}: {reason}" in capfd.readouterr().err


def test_an_image_that_cannot_be_used_is_named_and_the_others_are_answered(
    service: Process, photos: DataSet, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "0.png").write_text("not an image")
    for n, path in enumerate(photos.test.paths[:3], 1):
        (tmp_path / f"{n}.png").write_bytes(path.read_bytes())
    (tmp_path / "4.png").write_bytes(photos.test.paths[3].read_bytes()[:300])
    (tmp_path / "5.tif").write_bytes(b"II*\0")
    for command, arguments in (
        ("add", []),
        ("search", ["--out", str(tmp_path / "n.jsonl")]),
        ("embed", ["--out", str(tmp_path / "e.npy")]),
    ):
        with pytest.raises(SystemExit) as ended:
            run(command, [str(tmp_path), "--url", service.url, *arguments])
        assert "3 of 6 images could not be used" in str(ended.value.code)
        out, errors = capfd.readouterr()
        assert f"{tmp_path}/0.png: not an image: this is text" in errors
        assert f"{tmp_path}/4.png: " in errors
        assert f"{tmp_path}/5.tif: cannot be read: cannot be decoded: this TIFF is damaged; save it again" in errors
        if command == "add":
            assert "3 images added; the index holds 3" in out
    found = [json.loads(line) for line in (tmp_path / "n.jsonl").read_text().splitlines()]
    assert [record["neighbours"][0]["id"] for record in found] == [record["path"] for record in found]
    assert [Path(record["path"]).name for record in found] == ["1.png", "2.png", "3.png"]
    assert np.load(tmp_path / "e.npy").shape == (3, 10_000)
    assert run("embed", [str(tmp_path / "0.png"), "--url", service.url, "--out", str(tmp_path / "x.json")]) == 2
    assert "no image could be used; nothing is written" in capfd.readouterr().err
    assert not (tmp_path / "x.json").exists()


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> Callable[[Served], None]:
    """Puts a service whose answers are written in the test in front of the commands."""

    def put(answer: Served) -> None:
        transport = httpx.MockTransport(answer)
        client = partial(AsyncClient, transport=transport, retries=Retries(attempts=2, first_s=0))
        monkeypatch.setattr("rankone.cli.images.AsyncClient", client)

    return put


def test_a_service_that_goes_away_leaves_no_half_of_a_file(
    answering: Callable[[Served], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for n in range(40):
        (tmp_path / f"{n:02}.png").write_bytes(b"image")
    num_answered = 0

    def service(request: httpx.Request) -> httpx.Response:
        nonlocal num_answered
        if request.url.path in ("/readyz", "/info"):
            return json_response(INFO)
        num_answered += 1
        if num_answered > 3:
            raise httpx.ConnectError("refused", request=request)
        return npy_response(npy(np.ones((request.content.count(b"filename"), 3))))

    answering(service)
    (tmp_path / "e.npy").write_text("of yesterday")
    assert run("embed", [str(tmp_path), "--out", str(tmp_path / "e.npy")]) == 2
    printed = capsys.readouterr()
    assert "no service answers" in printed.err
    assert (tmp_path / "e.npy").read_text() == "of yesterday"
    rows = len(np.load(tmp_path / "e.partial.npy"))
    assert 0 < rows < 40
    assert printed.out.split() == [f"{tmp_path}/{n:02}.png" for n in range(rows)]
    assert f"e.partial.npy holds the {rows} answers that came before" in printed.err.replace("\n", "")
    assert f"(the {rows} inputs before were answered)" in printed.err.replace("\n", "")
    assert not list(tmp_path.glob(".*"))
    assert num_answered > 3


def test_a_command_waits_for_a_service_that_is_starting(
    start: Start, photos: DataSet, capfd: pytest.CaptureFixture[str]
) -> None:
    """Its address refuses connections at first."""
    image, starting = str(photos.test.paths[0]), start()
    assert run("classify", [image, "--url", starting.url]) == 0
    answered = capfd.readouterr()
    assert json.loads(answered.out)["path"] == image
    assert f"rankone: waiting for the service at {starting.url}" in answered.err.replace("\n", "")


def test_a_service_that_never_starts_is_an_error(
    photos: DataSet, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("rankone.cli.images.WAIT_S", 0.3)
    monkeypatch.setattr("rankone.cli.images._NOTICE_S", 0.1)
    assert run("embed", [str(photos.test.paths[0]), "--url", "http://127.0.0.1:1"]) == 2
    error = capsys.readouterr().err
    assert error.count("waiting for the service at http://127.0.0.1:1\n") == 1
    assert "no service answers at http://127.0.0.1:1" in error


def test_the_key_goes_with_every_request(answering: Callable[[Served], None], tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"image")
    keys: list[str] = []

    def service(request: httpx.Request) -> httpx.Response:
        keys.append(request.headers["authorization"])
        return json_response(INFO if request.url.path == "/info" else {"results": [[]]})

    answering(service)
    assert run("search", [str(tmp_path), "--key", "secret", "--index", "mine"]) == 0
    assert keys == ["Bearer secret"] * 3  # ready? which limits? search


def test_a_search_is_narrowed_by_filter_and_score(
    service: Process, photos: DataSet, capfd: pytest.CaptureFixture[str]
) -> None:
    paths = photos.test.paths[:8]
    with Client(service.url) as client:
        client.create_index("narrow")
        metadata = [{"n": n, "half": n // 4} for n in range(8)]
        client.add(paths, [str(path) for path in paths], metadata, "narrow")
        scores = [hit.score for hit in client.search(paths[:1], "narrow", k=8)[0]]
    ask = [str(paths[0]), "--url", service.url, "--index", "narrow"]

    def found(*flags: str) -> list[str]:
        assert run("search", [*ask, *flags]) == 0
        return [hit["id"] for hit in json.loads(capfd.readouterr().out)["neighbours"]]

    assert set(found("--filter", '{"n": {"$gte": 5}}')) == {str(path) for path in paths[5:]}
    between = (scores[3] + scores[4]) / 2
    assert len(found()) == 8
    assert len(found("--min-score", str(between))) == 4
    assert len(found("--group-by", "half")) == 2
    for wrong, words in (
        ("n > 5", "--filter n > 5: not JSON ("),
        ('{"n": {"$above": 5}}', "$above"),
        ("[]", "filter"),
    ):
        assert run("search", [*ask, "--filter", wrong]) == 2
        assert words in capfd.readouterr().err
