"""What is found of backups after a restart, held against the ledger."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from rankone.index import DEFAULT, IndexProblem
from rankone.index.backup import back_up, restore
from rankone.index.database import SUFFIX
from rankone.index.source import reading
from rankone.model.files import make_folder
from tests.index.crash.audit import Content, audit
from tests.index.crash.copies import silent
from tests.index.crash.ledger import Account

Seen = dict[bytes, list[str]]
"""By name and content, what was wrong with a backup."""


def audit_copies(folder: Path, source: Path, now: Account, story: Account, content: Content, seen: Seen) -> list[str]:
    """What is wrong with the backups in `folder`, of which `now` tells what was promised, and `story` what they may hold.

    Each is there if it was told to be. Whatever bears a backup's name can be restored, and the index is then as it was at one
    moment, not before the backup was begun. One that was broken off is taken again of `source` with nothing of it left over.
    Those that were `seen` are not looked at again.
    """
    faults = [
        f"the backup {name} was acknowledged and is not there"
        for name, copying in now.copies.items()
        if copying.is_done and not (folder / name).exists()
    ]
    for path in sorted(folder.glob(f"[!.]*{SUFFIX}")):
        digest = hashlib.sha256(path.name.encode() + path.read_bytes()).digest()
        if digest not in seen:
            seen[digest] = [f"backup {path.name}: {fault}" for fault in _faults(path, story, content)]
        faults += seen[digest]
    return [*faults, *_unfinished(folder, source, now)]


def _faults(path: Path, story: Account, content: Content) -> Iterator[str]:
    with tempfile.TemporaryDirectory() as name:
        restored = Path(name) / f"{DEFAULT}{SUFFIX}"
        try:
            restore(path, restored, silent)
            with reading(restored) as (reader, _):
                state = reader.about().sequence
        except IndexProblem as problem:
            yield f"it is not whole: {problem}"
            return
        if state < story.copies[path.name].since:
            yield f"it is of the state {state}, and {story.copies[path.name].since} was acknowledged before"
        yield from audit(restored.parent, story.at(state), content)[1]


def _unfinished(folder: Path, source: Path, now: Account) -> Iterator[str]:
    """Takes those again that are not there."""
    for name, copying in now.copies.items():
        if copying.is_done or (folder / name).exists():
            continue
        make_folder(folder)
        back_up(source, folder / name, silent)
        if left := [path.name for path in folder.glob(f".{name}*")]:
            yield f"of the backup {name} is left over: {left}"
