"""What `rankone doctor` says of a service's settings, and that `rankone serve --check` says the same."""

from __future__ import annotations

import shutil
from pathlib import Path

import psycopg
import pytest

from rankone.index import Indexes, Spec
from rankone.index.postgres import PostgresIndexes
from rankone.model.bundle import Bundle
from rankone.model.errors import RankoneError
from rankone.model.findings import Finding
from rankone.service import doctor, preflight
from rankone.service.auth.keys import add_key
from rankone.service.disk import Disk, disk_of, file_system_of
from rankone.service.doctor import examine
from rankone.service.settings import Settings

MOUNTS = r"""
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:40 / /mnt rw - nfs4 server:/export rw
31 30 0:41 / /mnt/my\040disk rw,noatime shared:5 master:2 - xfs /dev/sdb1 rw
32 31 0:42 / /mnt/my\040disk rw - tmpfs tmpfs rw
"""


def problems(settings: Settings) -> dict[tuple[str, str], Finding]:
    found = {(one.area, one.name): one for one in examine(settings) if one.state == "problem"}
    assert all(one.mend for one in found.values())
    return found


def files(folder: Path) -> dict[Path, tuple[int, bytes]]:
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}


def test_what_is_sound_is_said_with_what_would_run_and_why_and_nothing_is_written(tiny: Bundle, tmp_path: Path) -> None:
    add_key(tmp_path / "keys.json", "joe", frozenset({"read"}))
    with_indexes = tmp_path / "indexes"
    indexes = Indexes(with_indexes)
    indexes.acquire(tiny.fingerprint, tiny.manifest.dim)
    indexes.close()
    settings = Settings(bundle=tiny.path, data=with_indexes, keys=tmp_path / "keys.json", host="0.0.0.0")
    before = files(tmp_path)
    found = {(one.area, one.name): one for one in examine(settings)}
    assert files(tmp_path) == before
    assert {one.state for one in found.values()} <= {"ok", "note"}
    engine = found["service", "engine"].says
    assert "tiny 1 by onnx on CPUExecutionProvider in float32" in engine
    assert "device cpu are set, precision float32, as none is set" in engine
    assert found["service", "keys"].says == "1 key"
    assert found["indexes", "default"].says.startswith(f"0 items of {tiny.manifest.dim:,} numbers, exact")
    assert found["bundles", tiny.path.name].says.startswith(f"tiny 1, {tiny.fingerprint[:16]}")


def broken(tiny: Bundle, folder: Path) -> dict[str, Settings]:
    """Settings that a service refuses, by the check that refuses them."""
    changed = folder / "changed"
    shutil.copytree(tiny.path, changed)
    (changed / "model.onnx").write_bytes(b"changed")
    return {
        "address": Settings(bundle=tiny.path, data=folder, host="0.0.0.0"),
        "bundle": Settings(bundle=folder / "nothing", data=folder),
        "keys": Settings(bundle=tiny.path, data=folder, keys=folder / "nothing.json"),
        "engine": Settings(bundle=tiny.path, data=folder, engine="torchscript"),
        "changed": Settings(bundle=changed, data=folder),
    }


@pytest.mark.parametrize("name", ["address", "bundle", "keys", "engine", "changed"])
def test_a_problem_is_what_the_check_of_serve_refuses_in_the_same_words(
    tiny: Bundle, tmp_path: Path, name: str
) -> None:
    settings = broken(tiny, tmp_path)[name]
    with pytest.raises(RankoneError) as refused:
        preflight.check(settings)
    ((place, found),) = problems(settings).items()
    assert found.says == str(refused.value)
    assert place == (("bundles", "changed") if name == "changed" else ("service", name))


def test_a_bundle_that_nobody_named_is_no_problem_before_the_first_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = {(one.area, one.name): one for one in examine(Settings(data=tmp_path))}
    assert (found["service", "bundle"].state, found["service", "engine"].state) == ("note", "skipped")
    assert "`rankone export`" in (found["service", "bundle"].mend or "")
    assert not problems(Settings(data=tmp_path))
    assert list(problems(Settings(bundles=tmp_path / "none", data=tmp_path))) == [("service", "bundle")]
    (tmp_path / "bundle").mkdir()
    assert list(problems(Settings(data=tmp_path))) == [("service", "bundle")]


def test_what_serve_only_warns_of_or_finds_later_is_a_problem_too(
    tiny: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "keys.json").write_text("")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RANKONE_MAX_BACTH", "3")
    found = problems(Settings(bundle=tiny.path, data=tmp_path / "file", keys=tmp_path / "keys.json"))
    assert set(found) == {("settings", "variable"), ("service", "keys"), ("disk", "writable"), ("indexes", "folder")}
    assert "did you mean RANKONE_MAX_BATCH?" in found["settings", "variable"].says


def test_a_broken_bundle_beside_a_good_one_is_named(tiny: Bundle, tmp_path: Path) -> None:
    for name in ("good", "bad"):
        shutil.copytree(tiny.path, tmp_path / "bundles" / name)
    (tmp_path / "bundles" / "bad" / "model.onnx").write_bytes(b"changed")
    settings = Settings(bundles=tmp_path / "bundles", data=tmp_path / "indexes")
    preflight.check(settings)
    assert set(problems(settings)) == {("bundles", "bad")}


def test_an_index_of_another_bundle_and_a_damaged_one_are_named(tiny: Bundle, tmp_path: Path) -> None:
    indexes = Indexes(tmp_path)
    indexes.create("other", Spec("f" * 64, 4))
    indexes.close()
    (tmp_path / "torn.sqlite").write_bytes(b"x" * 5000)
    found = problems(Settings(bundle=tiny.path, data=tmp_path))
    assert set(found) == {("indexes", "other"), ("indexes", "torn")}
    assert "made with the bundle ffffffffffffffff" in found["indexes", "other"].says


def test_an_engine_whose_loading_writes_is_not_loaded(tiny: Bundle, tmp_path: Path) -> None:
    settings = Settings(bundle=tiny.path, data=tmp_path / "i", device="cuda", tensorrt_cache=tmp_path / "cache")
    (found,) = (one for one in examine(settings) if one.name == "engine")
    assert (found.state, "rankone serve --check" in found.says) == ("skipped", True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("folder", "kind"), [("/data", "ext4"), ("/mnt/x", "nfs4"), ("/mnt/my disk/x", "tmpfs"), ("/mnt/my", "nfs4")]
)
def test_the_file_system_is_that_of_the_nearest_mount(folder: str, kind: str) -> None:
    assert file_system_of(Path(folder), MOUNTS.strip()) == kind
    assert file_system_of(Path(folder), "") is None


def test_the_disk_is_that_of_the_nearest_folder_that_exists(tmp_path: Path) -> None:
    disk = disk_of(tmp_path / "not" / "yet")
    assert (disk.folder, disk.is_writable, disk.is_read_only) == (tmp_path.resolve(), True, False)
    assert disk.free_bytes == pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.1)
    assert disk_of(Path("/proc/sys")).file_system == "proc"


@pytest.mark.parametrize(
    ("disk", "name", "state", "words"),
    [
        (Disk(Path("/d"), 10**10, True, True, "ext4"), "writable", "problem", "mounted read-only"),
        (Disk(Path("/d"), 10**10, False, False, "ext4"), "writable", "problem", "by this user"),
        (Disk(Path("/d"), 10**8, False, True, "ext4"), "free", "problem", "0.1 GB are free"),
        (Disk(Path("/d"), 10**10, False, True, "nfs4"), "file system", "problem", "nfs4, a network file system"),
        (Disk(Path("/d"), 10**10, False, True, "tmpfs"), "file system", "note", "in memory (tmpfs)"),
        (Disk(Path("/d"), 10**10, False, True, None), "file system", "skipped", "not known"),
    ],
)
def test_what_is_wrong_with_a_disk(
    disk: Disk, name: str, state: str, words: str, tiny: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "disk_of", lambda _: disk)
    found = {one.name: one for one in examine(Settings(bundle=tiny.path, data=tmp_path)) if one.area == "disk"}
    assert (found[name].state, words in found[name].says) == (state, True), found


def test_a_database_is_looked_at_and_nothing_is_made_in_it(tiny: Bundle, database: str) -> None:
    settings = Settings(bundle=tiny.path, index=database)
    found = {finding.name: finding for finding in examine(settings) if finding.area in ("indexes", "disk")}
    assert {name: finding.state for name, finding in found.items()} == {"database": "ok"}
    with psycopg.connect(database) as connection:
        assert connection.execute("SELECT to_regnamespace('rankone')").fetchone() == (None,)
    indexes = PostgresIndexes(database, 60)
    indexes.acquire(tiny.fingerprint, tiny.manifest.dim)
    indexes.create("other", Spec("b" * 64, 8))
    indexes.close()
    found = {finding.name: finding for finding in examine(settings) if finding.area in ("indexes", "disk")}
    assert {name: finding.state for name, finding in found.items()} == {
        "database": "ok",
        "default": "ok",
        "other": "problem",
    }
    away = Settings(bundle=tiny.path, index="postgresql://me:secret@127.0.0.1:1/x")
    (problem,) = (finding for finding in examine(away) if finding.area == "indexes")
    assert (problem.state, "cannot be reached" in problem.says, "secret" in problem.says) == ("problem", True, False)
