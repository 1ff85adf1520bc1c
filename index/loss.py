"""Finds acknowledged changes that an index has lost, before SQLite opens it, and reports them until they are accepted.

SQLite ends its recovery at the first bad frame of a log, says nothing of it, and writes over the rest. So the log is compared
with the notes of `acknowledged` first, and one that is damaged is copied aside.
"""

from __future__ import annotations

import hashlib
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rankone.index import faults
from rankone.index.acknowledged import Note, last_note
from rankone.index.database import publish_bytes, read_about, wal_files
from rankone.index.errors import IndexProblem
from rankone.index.log import Log, first_pages, rewrite, scan
from rankone.index.spec import Spec
from rankone.model.files import sync

_TRIES: Final = 20


@dataclass(frozen=True)
class _State:
    """What is on disk. `kept` is the last sequence number that SQLite would find, None if it finds none."""

    note: Note
    log: Log | None
    kept: int | None

    @property
    def is_whole(self) -> bool:
        if not self.note.turn:  # made by an earlier version
            return self.log is None or not self.log.has_more
        return self.note.is_borne_out(self.log) and (self.kept is None or self.kept >= self.note.sequence)

    @property
    def must_drop_log(self) -> bool:
        """Whether the log has older pages than the database: with them, SQLite would call a healthy file malformed."""
        return self.note.supersedes(self.log)

    def text(self, path: Path) -> str:
        kept = "an unknown one" if self.kept is None else str(self.kept)
        last = f", up to {self.note.sequence}," if self.note.turn else ""
        return (
            f"{path.name} or its write-ahead log is damaged: the last sequence number that is kept is {kept}, and the changes "
            f"after it{last} are lost"
        )


def loss(path: Path) -> str | None:
    """What the index at `path` has lost, in a sentence, or None. Changes nothing; works beside a running service.

    Raises IndexProblem if the files cannot be read.
    """
    with faults.told(path):
        return outstanding(path) or (None if (state := _state(path)).is_whole else state.text(path))


def read_spec(path: Path) -> Spec:
    """What the index at `path` is, whatever its log is like. For the errors see `database.read_about`.

    With the first frames of a damaged log, SQLite calls a healthy file malformed; without its log, also one that a power cut
    left half written.
    """
    with faults.told(path):
        state = _state(path)
        with closing(first_pages(path, None if state.must_drop_log else state.log)) as connection:
            return read_about(connection, path).spec


def ignores_log(path: Path) -> bool:
    """Whether the index at `path` must be read without its log, which is older than the database."""
    try:
        return _state(path).must_drop_log
    except OSError:  # told by whoever reads the index
        return False


def settle(path: Path) -> None:
    """Makes the log of an index that nobody has open fit to be recovered by SQLite, and writes down what is lost.

    A damaged log is copied aside first.

    Raises IndexProblem if the files cannot be read or written.
    """
    with faults.told(path):
        state, (log_file, _) = _state(path), wal_files(path)
        if not state.is_whole:
            kept_as = _copied_aside(log_file)
            where = f"; the damaged log is kept as {kept_as.name}" if kept_as else ""
            _write_down(path, state.text(path) + where)
        if state.log is not None:
            rewrite(log_file, 0 if state.must_drop_log else state.log.num_bytes)


def loss_file(path: Path) -> Path:
    """The file that says what the index at `path` has lost."""
    return path.with_name(f"{path.name}-loss")


def outstanding(path: Path) -> str | None:
    """What was lost and not accepted yet."""
    try:
        lines = loss_file(path).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return None
    except OSError as error:
        lines = [f"what {path.name} has lost cannot be read: {error}"]
    return "; ".join([*lines, f"restore a backup, or accept it with: rankone index accept {path.parent} {path.stem}"])


def accept(path: Path) -> str | None:
    """Ends the report of a loss; returns what was lost, None if nothing was. The copy of a damaged log stays.

    Raises IndexProblem if the file cannot be removed.
    """
    with faults.told(path):
        if not (file := loss_file(path)).exists():
            return None
        text = "; ".join(file.read_text(encoding="utf-8").splitlines())
        file.unlink()
        sync(path.parent)
        return text


def _state(path: Path) -> _State:
    """Beside a running service, a log may be begun anew while it is read; then it is read again."""
    note = last_note(path)
    for _ in range(_TRIES):
        log = scan(wal_files(path)[0])
        state = _State(note, log, _sequence(path, None if note.supersedes(log) else log))
        note = last_note(path)
        if state.is_whole or note == state.note:
            break
    return state


def _sequence(path: Path, log: Log | None) -> int | None:
    with closing(first_pages(path, log)) as connection, suppress(IndexProblem):
        return read_about(connection, path).sequence
    return None


def _copied_aside(log_file: Path) -> Path | None:
    """A copy of the log, named by its content, so that a start that was interrupted does not make another."""
    try:
        data = log_file.read_bytes()
    except FileNotFoundError:
        return None
    target = log_file.with_name(f"{log_file.name}-{hashlib.sha256(data).hexdigest()[:12]}")
    if not target.exists():
        publish_bytes(target, data)
    return target


def _write_down(path: Path, text: str) -> None:
    file = loss_file(path)
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    if text not in lines:
        publish_bytes(file, "".join(f"{line}\n" for line in [*lines, text]).encode())
