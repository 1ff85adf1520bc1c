"""docs/api.md: every curl answers as the page shows, and the page has every route and parameter of the service."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from rankone.client import Client
from rankone.model.bundle import Bundle
from tests.pages import ROOT, Shell

TEXT = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
SHOWN = re.findall(r"^\$ (curl .*)\n((?:[^$`].*\n)?)", TEXT, re.MULTILINE)
"""Each command with the answer below it."""
STATUSES = {400, 401, 403, 404, 405, 406, 408, 409, 413, 415, 422, 429, 500, 503, 504, 507}


@pytest.fixture(scope="module")
def shell(photos_root: Path, bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """A service as `make demo` leaves it: photographs in data/photos, those for testing in the index."""
    folder = tmp_path_factory.mktemp("api")
    (folder / "data").mkdir()
    (folder / "data" / "photos").symlink_to(photos_root)
    (folder / "README.md").write_text("not an image")
    gallery = [path for name in ("brick", "coins", "moon") for path in sorted((photos_root / "test" / name).iterdir())]
    shell = Shell(folder)
    with shell.serving(f"rankone serve --bundle {bundle.path}"), Client(shell.url) as client:
        ids, metadata = zip(*((f"{p.parent.name}/{p.name}", {"label": p.parent.name}) for p in gallery), strict=True)
        client.add(gallery, ids, metadata)
        shell.run("rankone index map indexes")
        yield shell


def test_every_curl_answers_as_shown(shell: Shell, bundle: Bundle) -> None:
    answers: dict[str, str] = {}
    for command, shown in SHOWN:
        answers[command] = text = shell.run(command.replace("photos-cbp-run", bundle.manifest.name))
        if shown.startswith("{"):
            found, expected = json.loads(text), json.loads(shown.replace(",…", ""))
            assert differences(expected, found, is_cut="…" in shown) == [], f"{command}\n{text[:500]}"
        elif shown:
            assert shown.split()[0] in text, command
    check_values(answers)
    array = np.load(shell.folder / "embedding.npy")
    assert array.shape == (1, 10_000)
    assert np.linalg.norm(array) == pytest.approx(1, abs=1e-5)
    with Client(shell.url) as client:
        assert [(index.name, index.count) for index in client.indexes()] == [("default", 36)]


def differences(expected: Any, found: Any, *, is_cut: bool, where: str = "answer") -> list[str]:
    """How an answer differs from what the page shows: its fields, the types of their values, their number, its status."""
    if isinstance(expected, dict) and isinstance(found, dict):
        names = expected.keys() - found.keys() if is_cut else expected.keys() ^ found.keys()
        pairs = {name: (expected[name], found[name]) for name in expected.keys() & found.keys()}
        faults = [f"{where}: only one has {name}" for name in names]
    elif isinstance(expected, list) and isinstance(found, list):
        is_alike = len(expected) <= len(found) if is_cut else len(expected) == len(found)
        pairs = {str(place): pair for place, pair in enumerate(zip(expected, found, strict=False))}
        faults = [] if is_alike else [f"{where}: {len(expected)} entries are shown, not {len(found)}"]
    else:
        by_value = isinstance(expected, bool | None) or where.endswith("status")
        is_alike = expected == found if by_value else isinstance(expected, str) == isinstance(found, str)
        return [] if is_alike else [f"{where}: {expected!r} is shown, not {found!r}"]
    for name, (shown, answered) in pairs.items():
        faults += differences(shown, answered, is_cut=is_cut, where=f"{where}.{name}")
    return faults


def check_values(answers: dict[str, str]) -> None:
    """What the numbers and ids of the answers must be, which `differences` does not compare."""

    def answer(part: str) -> Any:
        (text,) = [text for command, text in answers.items() if part in f"{command}'"]
        return json.loads(text)

    embedding = np.array(answer("png localhost:8000/embed'")["embeddings"][0])
    halves = np.frombuffer(base64.b64decode(answer("dtype=float16")["embeddings"][0]), "<f2")
    assert np.linalg.norm(embedding) == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(halves, embedding, atol=1e-4)
    np.testing.assert_allclose(answer("/v1/embeddings")["data"][0]["embedding"], embedding, atol=1e-6)
    assert answer("classify")["predictions"][0][0]["label"] == "coins"
    assert answer("items=[")["ids"] == ["moon-1", "coins-1", "coins-2"]
    assert [item["id"] for item in answer("-G")["items"]] == ["moon-1"]
    assert base64.b64decode(answer("thumbnail=true")["thumbnail"]).startswith(b"\xff\xd8")
    assert [class_of(hit) for hit in answer("search?k=2")["results"][0]] == ["coins", "coins"]
    ((copy,),) = answer("k=1&index=mine")["results"]
    assert (copy["id"], copy["score"]) == ("moon-1", pytest.approx(1, abs=1e-3))
    others = answer("exclude_self")["results"][0]
    assert class_of(others[0]) == "moon"
    assert "moon/00.png" not in [hit["id"] for hit in others]
    assert class_of(answer("positive")["results"][0][0]) == "moon"
    deletions = ("items/coins-1'", "coins-3", '"filter"', "indexes/mine?confirm=mine'")
    assert [answer(part)["deleted"] for part in deletions] == [1, 1, 1, 0]


def class_of(hit: dict[str, Any]) -> str:
    return str(hit["id"]).partition("/")[0]


def test_every_route_is_shown_and_every_parameter_is_named(shell: Shell) -> None:
    schema = httpx.get(f"{shell.url}/openapi.json").json()
    called = {called_route(command) for command, _ in SHOWN}
    for path, operations in schema["paths"].items():
        pattern = re.sub(r"\{[^}]+\}", "[^/]+", path)
        for method, operation in operations.items():
            assert any(verb == method and re.fullmatch(pattern, asked) for verb, asked in called), f"{method} {path}"
            bodies = operation.get("requestBody", {}).get("content", {})
            fields = {name for body in bodies.values() for name in body["schema"].get("properties", {})}
            parameters = {entry["name"] for entry in operation.get("parameters", []) if entry["in"] == "query"}
            assert [name for name in fields | parameters if f"`{name}`" not in TEXT] == [], f"{method} {path}"


def called_route(command: str) -> tuple[str, str]:
    (path,) = re.findall(r"localhost:8000([^\s'?]*)", command)
    method = re.search(r"-X (\w+)", command)
    has_body = re.search(r" -(F|d|-data-binary) ", command)
    return (method[1].lower() if method else "post" if has_body else "get"), path


def test_every_status_of_an_error_is_explained() -> None:
    rows = re.findall(r"^\| ([\d, ]+) \|", TEXT, re.MULTILINE)
    assert {int(status) for row in rows for status in row.split(", ")} == STATUSES


def test_it_stays_short() -> None:
    prose = re.sub(r"```console\n.*?```", "", TEXT, flags=re.DOTALL)
    assert sum(word != "|" for word in prose.split()) <= 935
