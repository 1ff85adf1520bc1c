"""A damaged, cut or missing write-ahead log: never silent, and nothing of it thrown away."""

from __future__ import annotations

import random
import shutil
import sqlite3
import struct
from contextlib import closing
from pathlib import Path

import pytest

from rankone.cli.index import accept, verify
from rankone.index import Index, Indexes, IndexProblem, Spec
from rankone.index.acknowledged import last_note, note_file
from rankone.index.backup import back_up, restore
from rankone.index.database import create_file, read_about, wal_files
from rankone.index.log import first_pages, scan
from rankone.index.loss import ignores_log, loss, loss_file, settle
from tests.index.conftest import DIM, MODEL, SPEC, some_items
from tests.index.crash import corruptions

FRAME = 4096 + 24
ROUNDS = 12


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an index whose process was killed: 12 items, one a change, and one deleted, all of it in the log."""
    folder, left = tmp_path_factory.mktemp("running"), tmp_path_factory.mktemp("killed") / "left"
    create_file(folder / "default.sqlite", SPEC)
    index = Index(folder / "default.sqlite")
    for item in some_items(ROUNDS):
        index.put([item])
    index.delete(["3"])
    shutil.copytree(folder, left)
    index.close()
    return left


@pytest.fixture
def left(killed: Path, tmp_path: Path) -> Path:
    """The file of such an index."""
    shutil.copytree(killed, tmp_path / "left")
    return tmp_path / "left" / "default.sqlite"


def ids(index: Index) -> list[str]:
    return [item.id for _, item in index.page(1000)]


def wal(path: Path) -> Path:
    return wal_files(path)[0]


def edit(path: Path, at: int, bit: int = 1) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= bit
    path.write_bytes(data)


def recovered(path: Path, target: Path) -> int:
    """The last sequence number that SQLite finds, in a copy."""
    shutil.copytree(path.parent, target)
    with closing(sqlite3.connect(target / path.name)) as connection:
        return int(connection.execute("SELECT value FROM about WHERE key = 'sequence'").fetchone()[0])


def test_a_log_is_read_as_sqlite_recovers_it(left: Path, tmp_path: Path) -> None:
    """With any bit flipped, at any length."""
    whole, draw = wal(left).read_bytes(), random.Random(0)
    found = set[int]()
    for number in range(60):
        data = bytearray(whole)
        if number % 2:
            data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        else:
            del data[draw.randrange(len(data)) :]
        wal(left).write_bytes(data)
        with closing(first_pages(left, scan(wal(left)))) as connection:
            kept = read_about(connection, left).sequence
        assert kept == recovered(left, tmp_path / str(number))
        found.add(kept)
    assert len(found) > 8
    wal(left).write_bytes(whole)
    log = scan(wal(left))
    assert log is not None
    assert (log.frames, log.num_bytes, log.has_more) == ((len(whole) - 32) // FRAME, len(whole), False)


@pytest.mark.parametrize("words", ["little", "big"])
def test_its_checksums_are_those_of_the_specification(tmp_path: Path, words: str) -> None:
    """Word by word as it is written there, in both orders; SQLite writes that of the machine."""
    sign, draw = "<" if words == "little" else ">", random.Random(1)

    def added(a: int, b: int, data: bytes) -> tuple[int, int]:
        for x, y in struct.iter_unpack(f"{sign}II", data):
            a = (a + x + b) % 2**32
            b = (b + y + a) % 2**32
        return a, b

    header = struct.pack(">IIII8s", 0x377F0682 + (words == "big"), 3007000, 4096, 7, b"saltsalt")
    a, b = added(0, 0, header)
    data = header + struct.pack(">II", a, b)
    for number in range(5):
        head, page = struct.pack(">II", 20 + number, number % 2), draw.randbytes(4096)
        a, b = added(a, b, head + page)
        data += head + b"saltsalt" + struct.pack(">II", a, b) + page
    (tmp_path / "log").write_bytes(data)
    log = scan(tmp_path / "log")
    assert log is not None
    assert (log.salts, log.frames, log.num_bytes) == (b"saltsalt", 4, 32 + 4 * FRAME)


@pytest.mark.parametrize("damage", ["flipped", "cut", "emptied", "removed", "header", "salts", "zeros"])
def test_what_a_log_has_lost_is_named_until_it_is_accepted(left: Path, damage: str) -> None:
    whole = wal(left).read_bytes()
    half = 32 + (len(whole) - 32) // FRAME // 2 * FRAME
    if damage == "flipped":
        edit(wal(left), half + 100)
    elif damage in ("cut", "emptied"):
        wal(left).write_bytes(whole[: half if damage == "cut" else 0])
    elif damage == "removed":
        wal(left).unlink()
    elif damage in ("header", "salts"):
        edit(wal(left), 5 if damage == "header" else 17)
    else:
        wal(left).write_bytes(whole[:half] + bytes(len(whole) - half))
    found = loss(left)
    assert found is not None
    kept = int(found.partition("kept is ")[2].partition(",")[0])
    assert 0 <= kept < ROUNDS
    assert f"up to {ROUNDS + 1}, are lost" in found
    damaged = wal(left).read_bytes() if wal(left).exists() else None
    for _ in range(2):  # also at every later start
        index = Index(left)
        assert ids(index) == [str(n) for n in range(kept)]
        problem = index.problem
        assert problem is not None
        assert problem.startswith(found)
        assert "rankone index accept" in problem
        index.close()
    copies = list(left.parent.glob("default.sqlite-wal-*"))
    assert [copy.read_bytes() for copy in copies] == ([damaged] if damaged is not None else [])
    with pytest.raises(SystemExit) as ended:
        verify(str(left.parent), "default")
    assert ended.value.code == 2
    accept(str(left.parent), "default")
    verify(str(left.parent), "default")
    index = Index(left)
    assert index.problem is None
    assert index.put(some_items(1)) == ROUNDS + 2  # no number is given twice
    index.close()
    assert loss(left) is None


def test_a_running_index_tells_of_its_loss_and_ends_when_it_is_accepted(left: Path) -> None:
    edit(wal(left), 32 + 5 * FRAME)
    indexes = Indexes(left.parent)
    index = indexes.open("default")
    assert "are lost" in indexes.problems()["default"]
    index.put(some_items(2))
    accept(str(left.parent))
    assert indexes.problems() == {}
    indexes.close()


def test_a_report_that_cannot_be_read_is_told(index: Index, path: Path) -> None:
    loss_file(path).mkdir()
    assert "what default.sqlite has lost cannot be read" in str(index.problem)
    loss_file(path).rmdir()
    assert index.problem is None


def test_a_log_that_the_database_no_longer_needs_may_be_damaged(path: Path, tmp_path: Path) -> None:
    """Its first frames are older than the database. With them, SQLite calls a healthy file malformed, or shows old items."""
    index = Index(path)
    for turn in range(4):
        index.put(some_items(150))
        index.delete([str(n) for n in range(turn, 150, 4)])
    number = index.put(some_items(3))
    index._store.checkpoint()
    expected = ids(index)
    shutil.copytree(path.parent, tmp_path / "left")
    index.close()
    left = tmp_path / "left" / path.name
    edit(wal(left), 32 + 8 * FRAME + 50)
    assert loss(left) is None
    assert ignores_log(left)
    verify(str(left.parent))
    restored = tmp_path / "restored.sqlite"
    back_up(left, restored, lambda *_: None)
    for file in (restored, left):
        opened = Index(file)
        assert opened.problem is None
        assert ids(opened) == expected
        assert opened.put(some_items(1)) == number + 1
        opened.close()


def test_changes_after_a_checkpoint_are_missed_too(path: Path, tmp_path: Path) -> None:
    """The log is not begun anew, as a reader is in it, and then is; each time the last change is damaged."""
    index = Index(path)
    index.put(some_items(5))
    with index._readers.borrow() as reader, reader.snapshot():
        index._store.checkpoint()
        index.delete(["2"])
        shutil.copytree(path.parent, tmp_path / "one")
    index._store.checkpoint()
    index.delete(["3"])
    shutil.copytree(path.parent, tmp_path / "two")
    index.close()
    for folder, kept in (("one", ["0", "1", "2", "3", "4"]), ("two", ["0", "1", "3", "4"])):
        left = tmp_path / folder / path.name
        log = scan(wal(left))
        note = last_note(left)
        assert log is not None
        assert (note.checkpointed > 0, note.frames > note.checkpointed) == (folder == "one", True)
        edit(wal(left), log.num_bytes - 10)
        opened = Index(left)
        assert "are lost" in str(opened.problem)
        assert ids(opened) == kept
        opened.close()


def test_a_log_newer_than_the_note_is_kept(left: Path) -> None:
    """The process was killed between the commit and its note. Nobody was told, and nothing is lost."""
    index = Index(left)
    index._store.checkpoint()
    before = note_file(left).read_bytes()
    index.put(some_items(2))  # begins the log anew
    folder = left.parent.parent / "copy"
    shutil.copytree(left.parent, folder)
    index.close()
    copy = folder / left.name
    note_file(copy).write_bytes(before)
    assert loss(copy) is None
    opened = Index(copy)
    assert opened.problem is None
    assert ids(opened)[-2:] == ["0", "1"]
    opened.close()


def test_what_no_commit_wrote_is_no_damage(left: Path) -> None:
    """A transaction that was broken off, torn at that, and nothing that was acknowledged."""
    whole = wal(left).read_bytes()
    wal(left).write_bytes(whole + whole[-3 * FRAME :][:1000] + bytes(500) + whole[-FRAME:])
    assert loss(left) is None
    index = Index(left)
    assert (index.problem, len(index)) == (None, ROUNDS - 1)
    assert wal(left).stat().st_size == len(whole)
    index.close()


@pytest.mark.parametrize("is_damaged", [False, True])
def test_without_a_note_the_log_itself_must_show_the_damage(left: Path, is_damaged: bool) -> None:
    """As an earlier version left it."""
    note_file(left).unlink()
    if is_damaged:
        edit(wal(left), 32 + 4 * FRAME + 30)
    index = Index(left)
    assert ("are lost" in str(index.problem), index.problem is None) == (is_damaged, not is_damaged)
    index.close()


def test_a_note_of_which_one_copy_is_torn_is_read(left: Path) -> None:
    data = note_file(left).read_bytes()
    for at in (10, 4096 + 10):
        note_file(left).write_bytes(data)
        edit(note_file(left), at)
        assert loss(left) is None
    wal(left).unlink()
    assert "are lost" in str(loss(left))


def test_an_older_file_in_the_place_of_an_index_is_seen(path: Path, tmp_path: Path) -> None:
    index = Index(path)
    index.put(some_items(2))
    index.close()
    old = path.read_bytes()
    index = Index(path)
    index.put(some_items(5))
    index.close()
    path.write_bytes(old)
    index = Index(path)
    assert "the last sequence number that is kept is 2, and the changes after it, up to 7, are lost" in str(
        index.problem
    )
    index.close()


def test_a_start_that_is_interrupted_while_it_saves_a_damaged_log_makes_no_second_copy(
    left: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit(wal(left), 32 + 6 * FRAME)

    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr("rankone.index.loss.rewrite", fail)
        with pytest.raises(IndexProblem, match="the disk failed"):
            settle(left)
    Index(left).close()
    assert len(list(left.parent.glob("default.sqlite-wal-*"))) == 1
    assert len(loss_file(left).read_text().splitlines()) == 1


def test_nothing_of_a_loss_stays_with_the_name(left: Path, tmp_path: Path) -> None:
    """Neither with a restored index nor with one that is made anew."""
    back_up(left, tmp_path / "backup", lambda *_: None)
    edit(wal(left), 32 + 6 * FRAME)
    Index(left).close()
    left.unlink()
    restore(tmp_path / "backup", left, lambda *_: None)
    index = Index(left)
    assert (index.problem, len(index)) == (None, ROUNDS - 1)
    index.close()
    other = left.with_name("mine.sqlite")
    for end in ("-ack", "-loss", "-wal", "-wal-0123456789ab"):
        other.with_name(other.name + end).write_bytes(b"of another")
    indexes = Indexes(left.parent)
    indexes.create("mine", Spec(MODEL, DIM))
    assert indexes.problems() == {}
    indexes.drop("mine")
    assert not list(left.parent.glob("*mine*"))
    indexes.close()


@pytest.mark.parametrize("which", ["database", "log"])
def test_no_damage_is_silent(tmp_path: Path, which: str) -> None:
    """Bits, sectors and ends of either file; 150 by `python -m tests.index.crash.corruptions`."""
    outcomes = corruptions.run(tmp_path, which, 12, 3, "exact")
    assert not [outcome for outcome in outcomes if "SILENT" in outcome]
    assert outcomes["a loss is named" if which == "log" else "items are named"] > 4
