"""A job in this process: its files are those of an index, and whatever kills it, every image is there once at the end."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow.parquet as pq
import pytest

from benchmarks.bundles import tiny_bundle
from rankone.index import Index, Item
from rankone.index.database import create_file
from rankone.index.transfer import export, load_items
from rankone.model.bundle import Bundle
from rankone.model.folders import LeftOut
from rankone.service.job import shard
from rankone.service.job.embedder import Embedder, JobFailed
from rankone.service.job.plan import JobConflict, Plan, begun, images_of, plan_of
from rankone.service.job.run import here, run
from rankone.service.job.sources import JobImage, find
from rankone.service.settings import Settings
from tests.services import Process


@pytest.fixture
def folder(tmp_path: Path, images: list[bytes]) -> Path:
    """Seven photographs and two files that are no images."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, data in enumerate(images[:7]):
        (folder / f"{number}.png").write_bytes(data)
    (folder / "3-bad.png").write_bytes(b"no image")
    (folder / "4-gone.png").symlink_to(folder / "0.png")
    return folder


@pytest.fixture
def settings(tiny: Bundle) -> Settings:
    return Settings(bundle=tiny.path, threads=1, workers=1)


def sources(folder: Path) -> list[JobImage]:
    return find([str(folder)], LeftOut())


def rows_of(out: Path) -> list[dict[str, Any]]:
    return [row for path in sorted(out.glob("part-*.parquet")) for row in pq.ParquetFile(path).read().to_pylist()]


def quiet(_: int) -> None:
    pass


def test_every_image_is_in_one_file_or_on_a_list(folder: Path, settings: Settings, tmp_path: Path) -> None:
    found, out, told = sources(folder), tmp_path / "out", list[int]()
    (folder / "4-gone.png").unlink()  # after it was listed
    done = run(found, out, settings, shard_size=4, tell=told.append)
    assert (done.num_images, done.num_rejected, done.num_shards) == (9, 2, 3)
    assert sum(told) == 9
    rows = rows_of(out)
    assert [row["id"] for row in rows] == [image.id for image in found if image.id[-5] in "0123456"]
    first = rows[0]
    assert first["sha256"] == hashlib.sha256((folder / "0.png").read_bytes()).hexdigest()
    assert first["thumbnail"].startswith(b"\xff\xd8")
    assert np.linalg.norm(first["vector"]) == pytest.approx(1, abs=1e-2)
    bad = [orjson.loads(line) for path in out.glob("*.rejected.jsonl") for line in path.read_bytes().splitlines()]
    assert {Path(entry["id"]).name: entry["reason"] for entry in bad} == {
        "3-bad.png": "not an image: this is text; JPEG, PNG, WebP, AVIF and GIF are accepted",
        "4-gone.png": "it cannot be read: No such file or directory",
    }
    assert sorted(path.name for path in out.iterdir() if path.name.startswith(".")) == [".lock"]


def test_the_files_are_imported_and_are_what_an_index_exports(folder: Path, settings: Settings, tmp_path: Path) -> None:
    out, index = tmp_path / "out", tmp_path / "indexes" / "default.sqlite"
    run(sources(folder), out, settings, shard_size=4, tell=quiet)
    files = sorted(out.glob("part-*.parquet"))
    assert sum(load_items(path, index, None, quiet) for path in files) == 8
    assert sum(load_items(path, index, None, quiet) for path in files) == 0  # again
    export(index, tmp_path / "again.parquet", quiet)
    again = pq.ParquetFile(tmp_path / "again.parquet").read()
    key = {b"rankone"}
    for path in files:
        schema = pq.read_schema(path)
        assert schema.equals(again.schema)
        assert {name: schema.metadata[name] for name in key} == {name: again.schema.metadata[name] for name in key}
    assert sorted(again.to_pylist(), key=lambda row: row["id"]) == sorted(rows_of(out), key=lambda row: row["id"])


def test_vectors_are_those_of_the_service(folder: Path, tiny: Bundle, settings: Settings, tmp_path: Path) -> None:
    run(sources(folder), tmp_path / "out", settings, tell=quiet)
    rows = rows_of(tmp_path / "out")[:3]
    process = Process(tiny.path, tmp_path / "index", threads=1)
    try:
        with process.ready() as client:
            expected = client.embed([Path(row["id"]) for row in rows])
    finally:
        process.close()
    stored = np.array([row["vector"] for row in rows], np.float16)
    assert stored.tobytes() == expected.astype(np.float16).tobytes()


def stopping(out: Path, plan: Plan, settings: Settings, shards: Sequence[int], tell: Callable[[int], None]) -> None:
    """Writes two shards, then fails as a disk would."""
    here(out, plan, settings, shards[:2], tell)
    raise OSError(5, "the disk failed")


def test_a_job_goes_on_where_it_was(
    folder: Path, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, out, whole = sources(folder), tmp_path / "out", tmp_path / "whole"
    run(found, whole, settings, shard_size=2, tell=quiet)
    with monkeypatch.context() as patch:
        patch.setattr("rankone.service.job.run.here", stopping)
        with pytest.raises(OSError, match="the disk failed"):
            run(found, out, settings, shard_size=2, tell=quiet)
    kept = {path: path.stat().st_mtime_ns for path in out.glob("part-*.parquet")}
    assert len(kept) == 2
    (out / ".part-000003.parquet.1.partial").write_bytes(b"torn")
    told: list[int] = []
    run(found, out, settings, shard_size=2, tell=told.append)
    assert told[0] == 4
    assert sum(told) == 9
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert rows_of(out) == rows_of(whole)
    assert not (out / ".part-000003.parquet.1.partial").exists()


def test_a_done_job_starts_no_engine(
    folder: Path, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(sources(folder), tmp_path / "out", settings, tell=quiet)
    monkeypatch.setattr(Embedder, "__enter__", lambda _: pytest.fail("it was started"))
    assert run(sources(folder), tmp_path / "out", settings, tell=quiet).num_images == 9


def test_a_killed_process_loses_no_image_and_doubles_none(folder: Path, tiny: Bundle, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "rankone", "embed", "--bundle", str(tiny.path), str(folder), "--out", str(out)]
    for wanted in (1, 4):
        with subprocess.Popen([*command, "--shard", "1"], stderr=subprocess.DEVNULL) as process:
            while len([*out.glob("part-*.parquet")]) < wanted and process.poll() is None:
                time.sleep(0.01)
            process.send_signal(signal.SIGKILL)
    ended = subprocess.run([*command, "--shard", "1"], capture_output=True, text=True, check=False)
    assert ended.returncode == 1, ended.stderr
    assert ended.stdout == f"8 images in 9 files in {out}\n"
    assert "1 images could not be used: see" in ended.stderr
    names = [row["id"] for row in rows_of(out)]
    assert len(names) == len(set(names)) == 8


@pytest.mark.parametrize("change", ["bundle", "images", "shard_size", "dim"])
def test_a_folder_of_another_job_is_refused(change: str, folder: Path, settings: Settings, tmp_path: Path) -> None:
    run(sources(folder), tmp_path / "out", settings, tell=quiet)
    found, options = sources(folder), dict[str, Any]()
    if change == "bundle":
        settings = settings.model_copy(update={"bundle": tiny_bundle(tmp_path / "other", "2").path})
    elif change == "images":
        found = found[1:]
    elif change == "shard_size":
        options["shard_size"] = 7
    else:
        settings = settings.model_copy(update={"thumbnails": False})
    wrong = {"bundle": "fingerprint", "images": r"images \(9 then, 8 now\)", "dim": "thumbnails"}.get(change, change)
    with pytest.raises(JobConflict, match=f"was begun with other {wrong}: give the same again"):
        run(found, tmp_path / "out", settings, tell=quiet, **options)


def test_two_processes_cannot_be_at_one_job(folder: Path, settings: Settings, tmp_path: Path, tiny: Bundle) -> None:
    found = sources(folder)
    plan = plan_of(found, fingerprint=tiny.fingerprint, dim=10_000, thumbnails=True, shard_size=1000)
    with begun(tmp_path / "out", plan, found), pytest.raises(JobConflict, match="another process is at the job"):
        run(found, tmp_path / "out", settings, tell=quiet)


def test_a_foreign_or_torn_file_is_refused(folder: Path, settings: Settings, tmp_path: Path) -> None:
    found, out = sources(folder), tmp_path / "out"
    run(found, out, settings, shard_size=5, tell=quiet)
    first, second = sorted(out.glob("part-*.parquet"))
    first.write_bytes(second.read_bytes())
    with pytest.raises(JobConflict, match="is not of this job: move it away"):
        run(found, out, settings, shard_size=5, tell=quiet)
    first.write_bytes(b"torn")
    with pytest.raises(JobConflict, match="cannot be read: .* remove it, and it is made again"):
        run(found, out, settings, shard_size=5, tell=quiet)
    first.unlink()
    assert run(found, out, settings, shard_size=5, tell=quiet).num_rejected == 1


def test_a_folder_that_machines_do_not_share_is_found(
    folder: Path, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rankone.service.job.run.here", lambda *_: None)
    with pytest.raises(JobFailed, match=r"9 of 9 shards are not in .*out: it must be the same folder on every machine"):
        run(sources(folder), tmp_path / "out", settings, shard_size=1, tell=quiet)


def test_a_length_that_the_bundle_lacks_is_refused(folder: Path, settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(JobFailed, match="has no short embeddings"):
        run(sources(folder), tmp_path / "out", settings, dim=64, tell=quiet)


def test_the_list_is_divided_in_order(tmp_path: Path) -> None:
    found = [JobImage(f"{number:02}", f"/{number:02}") for number in range(10)]
    plan = plan_of(found, fingerprint="f", dim=2, thumbnails=False, shard_size=4)
    with begun(tmp_path, plan, found):
        parts = dict(images_of(tmp_path, plan, [0, 2]))
    assert parts == {0: found[:4], 2: found[8:]}
    assert [plan.size_of(number) for number in range(plan.num_shards)] == [4, 4, 2]


def test_a_file_is_on_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the list of bad images before the shard counts as done."""
    steps: list[str] = []
    replace = Path.replace

    def replaced(path: Path, target: Path) -> Path:
        steps.append(f"named {target.name}")
        return replace(path, target)

    monkeypatch.setattr("rankone.service.job.plan.sync", lambda path: steps.append(f"synced {path.is_dir()}"))
    monkeypatch.setattr(Path, "replace", replaced)
    plan = plan_of([JobImage("a", "a")], fingerprint="f", dim=3, thumbnails=True, shard_size=1)
    shard.write(tmp_path, plan, 0, [], [shard.Rejected("a", "bad")])
    assert steps == [
        step
        for name in ("part-000000.rejected.jsonl", "part-000000.parquet")
        for step in ("synced False", f"named {name}", "synced True")
    ]


def test_an_empty_shard_is_a_file_too(tmp_path: Path) -> None:
    """As where none of its images could be used."""
    plan = plan_of([JobImage("a", "a")], fingerprint="f" * 64, dim=3, thumbnails=True, shard_size=1)
    shard.write(tmp_path, plan, 0, [], [shard.Rejected("a", "bad")])
    assert shard.missing(tmp_path, plan) == []
    index = tmp_path / "i" / "default.sqlite"
    index.parent.mkdir()
    create_file(index, plan.spec)
    assert load_items(shard.file_of(tmp_path, 0), index, None, quiet) == 0
    opened = Index(index)
    opened.put([Item("x", np.array([1, 0, 0], np.float32))])
    opened.close()
