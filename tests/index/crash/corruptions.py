"""Damage to the files of an index whose process was killed: of its database, and of its write-ahead log.

python -m tests.index.crash.corruptions [--database 100] [--log 50] [--seed 0]

A damage may be found (the index, items or a loss is named) or touch nothing that counts. It is silent if an item that was
acknowledged is missing or wrong, or one that was deleted is back, and nothing says so.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final

from rankone.index import DEFAULT, Index, Indexes, IndexProblem, Item, Kind, Spec
from rankone.index.database import SUFFIX, wal_files
from rankone.index.loss import loss
from rankone.index.source import damaged_rows
from tests.index.oracle import unit

_DIM: Final = 1000
_FILE: Final = f"{DEFAULT}{SUFFIX}"
Content = dict[str, tuple[bytes, object]]
Damage = Callable[[bytearray, random.Random], None]


def _flip(data: bytearray, draw: random.Random) -> None:
    data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)


def _zero(data: bytearray, draw: random.Random) -> None:
    """A sector."""
    at = draw.randrange(len(data)) // 512 * 512
    data[at : at + 512] = bytes(len(data[at : at + 512]))


def _scramble(data: bytearray, draw: random.Random) -> None:
    at = draw.randrange(len(data)) // 512 * 512
    data[at : at + 512] = draw.randbytes(len(data[at : at + 512]))


def _cut(data: bytearray, draw: random.Random) -> None:
    del data[draw.randrange(len(data)) :]


_DAMAGES: Final[tuple[Damage, ...]] = (_flip, _zero, _scramble, _cut)


def killed(folder: Path, kind: Kind) -> Content:
    """What is in the index of a process that was killed: half in its database, half in its log, and some deleted from it."""
    indexes = Indexes(folder / "running")
    indexes.create(DEFAULT, Spec("a" * 64, _DIM, kind=kind))
    index = indexes.open(DEFAULT)
    vectors = unit(200, _DIM)
    for first in range(0, 200, 10):
        index.put([Item(str(n), vectors[n], {"n": n}) for n in range(first, first + 10)])
        if first == 100:
            index._store.checkpoint()
        if first % 30 == 0:
            index.delete([str(first), str(first + 1)])
    expected = _content(index)
    shutil.copytree(folder / "running", folder / "killed")
    indexes.close()
    return expected


def outcome(folder: Path, expected: Content) -> str:
    """What becomes of the damaged index in `folder`: in a command beside no service, then in a service."""
    path = folder / _FILE
    try:
        told = bool(loss(path)) or bool(damaged_rows(path, lambda _: None))
    except IndexProblem:
        told = True
    indexes = Indexes(folder)
    try:
        found = _content(indexes.open(DEFAULT))
    except IndexProblem:
        return "the index is named" if indexes.problems() and told else "SILENT"
    finally:
        problems = indexes.problems()
        indexes.close()
    if problems:
        return (
            ("a loss is named" if "are lost" in problems[DEFAULT] else "items are named")
            if told
            else "SILENT in verify"
        )
    return "nothing that counts" if found == expected and not told else "SILENT"


def run(folder: Path, which: str, count: int, seed: int, kind: Kind) -> Counter[str]:
    """So many damages to the `database` or the `log`, each to a fresh copy."""
    expected, draw, outcomes = killed(folder, kind), random.Random(seed), Counter[str]()
    for number in range(count):
        copy = folder / str(number)
        shutil.copytree(folder / "killed", copy)
        path = copy / _FILE if which == "database" else wal_files(copy / _FILE)[0]
        data = bytearray(path.read_bytes())
        _DAMAGES[number % len(_DAMAGES)](data, draw)
        path.write_bytes(data)
        outcomes[outcome(copy, expected)] += 1
        shutil.rmtree(copy)
    return outcomes


def _content(index: Index) -> Content:
    return {item.id: (item.vector.tobytes(), item.metadata) for _, item in index.page(10_000)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--database", type=int, default=100)
    parser.add_argument("--log", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    is_silent = False
    for kind in ("exact", "compact"):
        for which, count in (("database", given.database), ("log", given.log)):
            with tempfile.TemporaryDirectory() as folder:
                outcomes = run(Path(folder), which, count, given.seed, kind)
            print(kind, which, dict(outcomes))
            is_silent |= any("SILENT" in name for name in outcomes)
    sys.exit(is_silent)


if __name__ == "__main__":
    main()
