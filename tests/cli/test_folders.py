"""`embed`, `add`, `classify` and `search` on folders as people have them, before a real service."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import httpx
import numpy as np
import pytest
from PIL import Image

from rankone.__main__ import run
from rankone.cli.additions import read_metadata
from rankone.cli.output import InputError
from rankone.client import Client
from rankone.model.bundle import Bundle
from rankone.model.folders import name_of
from rankone.service.job.sources import id_of
from tests.model.files import encoded, noise
from tests.services import Process

ODD = {
    "latin-1": os.fsdecode(b"caf\xe9.png"),
    "break": "two\nlines.png",
    "escape": "\x1b[31mred.png",
    "long": f"{'n' * 251}.png",
}


@pytest.fixture(scope="module")
def service(tiny: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    process = Process(tiny.path, tmp_path_factory.mktemp("folders"))
    try:
        with process.ready() as client:
            yield client
    finally:
        process.close()


def photograph(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (8, 8, 3), np.uint8)).save(path, "png")
    return path


def write_bad_files(folder: Path) -> dict[str, str]:
    """Every kind of file that cannot be used, with what is said of it."""
    whole = encoded(noise(64, 64), "JPEG")
    bad = {
        "empty.jpg": (b"", "the file is empty"),
        "text.png": (b"not an image", "not an image: this is text"),
        "page.jpg": (b"<!doctype html><html>", "not an image: this is"),
        "half.jpg": (whole[: len(whole) // 2], "cannot be decoded: this JPEG breaks off"),
        "half.png": (encoded(noise(64, 64), "PNG")[:300], "cannot be decoded: this PNG breaks off"),
        "half.tif": (encoded(noise(64, 64), "TIFF")[:2000], "this TIFF is damaged"),
        "zeros.jpg": (bytes(1000), "not an image"),
        "drawing.jpg": (b"8BPS" + bytes(60), "Photoshop (PSD)"),
        "video.jpg": (b"\0\0\0\x18ftypisom" + bytes(60), "a video (MP4 or MOV)"),
        "archive.png": (b"PK\3\4" + bytes(60), "not an image"),
        "paper.jpg": (b"%PDF-1.7" + bytes(60), "PDF"),
        "raw.tif": (b"II*\0\x10\0\0\0CR\2\0" + bytes(60), "a raw file of a camera (CR2)"),
        "bomb.png": (bomb(), "no side may be longer than"),
    }
    for name, (data, _) in bad.items():
        (folder / name).write_bytes(data)
    (folder / "gone.jpg").symlink_to("nowhere")
    for name in ("Thumbs.db", ".hidden.jpg", "._1.jpg", "notes.txt", "drawing.psd", "raw.cr2"):
        (folder / name).write_bytes(b"something")
    for name in ("@eaDir", "__MACOSX", ".Trash-1000"):
        photograph(folder / name / "1.jpg")
    (folder / "loop").symlink_to(folder)
    return {name: words for name, (_, words) in bad.items()}


def bomb() -> bytes:
    """A PNG whose header promises 2.5 gigapixels."""
    return encoded(noise(1, 1), "PNG").replace(struct.pack(">II", 1, 1), struct.pack(">II", 50_000, 50_000), 1)


def test_every_bad_file_is_named_with_what_it_is_and_the_good_ones_are_embedded(
    service: Client, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "pictures"
    good = [photograph(folder / f"{n:04}.png", n) for n in range(20)]
    good += [photograph(folder / name, n) for n, name in enumerate(ODD.values(), 100)]
    (folder / "more").symlink_to(photograph(tmp_path / "store" / "linked.png", 200).parent)
    good.append(folder / "more" / "linked.png")
    bad = write_bad_files(folder)
    with pytest.raises(SystemExit) as ended:
        run("embed", [str(folder), "--url", service.url, "--out", str(tmp_path / "e.npy")])
    num_bad = len(bad) + 1  # a link to nothing
    words = f"rankone: {num_bad} of {num_bad + len(good)} images could not be used: they are named above"
    assert ended.value.code == words
    out, errors = capfd.readouterr()
    assert out.splitlines() == [name_of(path) for path in sorted(good)], "one line a row"
    assert np.load(tmp_path / "e.npy").shape == (len(good), 10_000)
    for name, words in bad.items():
        (line,) = (line for line in errors.splitlines() if line.startswith(f"rankone: {folder / name}: "))
        assert words in line
    for words in (
        f"left out: 3: hidden (the first is {folder}/.Trash-1000)",
        "left out: 3: not the user's",
        f"left out: {folder}/gone.jpg: a link to nothing",
        f"left out: 1 .psd: not read, convert it to JPEG or PNG ({folder}/drawing.psd)",
        f"left out: 1: a link to a folder that is looked through already, or that it lies in ({folder}/loop)",
    ):
        assert words in errors


def test_what_is_added_can_be_reached_by_a_plain_url(
    service: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Under names that are no text, from a folder beside this one, with a path that is too long and one given twice."""
    folder = tmp_path / "pictures"
    photograph(folder / "1 a?#%.png")
    for name in ODD.values():
        photograph(folder / name)
    long = photograph(folder / ("d" * 200) / f"{'n' * 80}.png")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    service.create_index("odd")
    with pytest.raises(SystemExit) as ended:
        run("add", ["../pictures", "../pictures/1 a?#%.png", "--index", "odd", "--url", service.url])
    assert "could not be used" in str(ended.value.code)
    out, errors = capfd.readouterr()
    assert f"{os.path.relpath(long)}: its path has {len(str(long))} characters, an id at most 255" in errors
    assert "../pictures/1 a?#%.png: given twice; it is added once" in errors
    ids = [item.id for item in service.items("odd")]
    assert f"{len(ids)} images added; the index holds {len(ids)}" in out
    expected = {id_of(path.absolute()) for path in folder.iterdir() if path.is_file()}
    assert set(ids) == {item_id for item_id in expected if len(item_id) <= 255} >= {id_of(folder / "1 a?#%.png")}
    for item_id in ids:
        answer = httpx.get(f"{service.url}/indexes/odd/items/{quote(item_id)}")
        assert answer.json()["id"] == item_id


def test_metadata_is_set_and_never_lost(
    service: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("rose/1.png", "rose/2.png", "daisy/3.png"):
        photograph(Path("flowers") / name)
    lines = ('{"path": "./flowers/rose/1.png", "metadata": {"year": 2020, "by": "me"}}', "",
             '{"id": "flowers/daisy/3.png", "metadata": {"year": 2021, "label": "own"}, "sha256": null}',
             '{"path": "elsewhere.png", "metadata": {}}')  # fmt: skip
    Path("m.jsonl").write_text("\n".join(lines))
    service.create_index("flowers")
    add = ["flowers", "--index", "flowers", "--url", service.url]

    def found() -> dict[str, object]:
        return {item.id: item.metadata for item in service.items("flowers")}

    assert run("add", [*add, "--metadata", "m.jsonl"]) == 0
    assert "1 lines of m.jsonl are of no image added, such as elsewhere.png" in capfd.readouterr().err
    given = {"flowers/rose/1.png": {"year": 2020, "by": "me"}, "flowers/rose/2.png": {},
             "flowers/daisy/3.png": {"year": 2021, "label": "own"}}  # fmt: skip
    assert found() == given
    assert run("add", add) == 0
    assert found() == given, "nothing was given, so nothing is overwritten"
    Path("m.jsonl").write_text('{"path": "flowers/rose/1.png", "metadata": {"year": 1999}}')
    assert run("add", [*add, "--metadata", "m.jsonl", "--label-from-folder"]) == 0
    assert found() == {
        "flowers/rose/1.png": {"year": 1999, "by": "me", "label": "rose"},
        "flowers/rose/2.png": {"label": "rose"},
        "flowers/daisy/3.png": {"year": 2021, "label": "daisy"},
    }


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", r"m.jsonl, line 2: not JSON \("),
        ('{"path": "a.png"}', r"m.jsonl, line 2: expected \{\"path\""),
        ('{"path": "a.png", "metadata": [1]}', "line 2: expected"),
        ('{"path": "a.png", "metadata": {}, "label": 1}', "line 2: expected"),
        ('{"path": "./b.png", "metadata": {}}', r"line 2: b.png is there twice"),
    ],
)
def test_a_line_of_metadata_that_is_not_understood_is_named(tmp_path: Path, line: str, words: str) -> None:
    file = tmp_path / "m.jsonl"
    file.write_text(f"{json.dumps({'path': 'b.png', 'metadata': {}})}\n{line}")
    with pytest.raises(InputError, match=words):
        read_metadata(file)
    with pytest.raises(InputError, match="nowhere.jsonl: No such file"):
        read_metadata(tmp_path / "nowhere.jsonl")


def test_names_that_no_file_can_have_are_a_sentence(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    image, too_long = str(photograph(tmp_path / "1.png")), str(tmp_path / ("n" * 300))
    for arguments, words in (
        ([too_long], "is not there"),
        ([image, "--out", f"{too_long}.jsonl"], "File name too long"),
        ([os.fsdecode(b"caf\xe9")], r"caf\udce9 is not there"),
    ):
        assert run("classify", arguments) == 2
        assert words in capfd.readouterr().err
