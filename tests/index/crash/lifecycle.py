"""An index that is made, filled, dropped and restored from another's backup, and what may be found of it at each stage.

python -m tests.index.crash.lifecycle ROOT
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

from rankone.index import DEFAULT, Index, Indexes, Item, Spec
from rankone.index.backup import back_up, restore
from rankone.index.database import PARTIAL, SUFFIX
from tests.index.crash.copies import silent
from tests.index.oracle import unit

_DIM: Final = 32
_SPECS: Final = {DEFAULT: Spec("a" * 64, _DIM), "mine": Spec("a" * 64, _DIM, kind="compact")}
_ITEMS: Final = {DEFAULT: ["a", "b", "c"], "mine": ["d", "e"]}

Found = list[str] | None
"""The ids of the items of `mine`; None where there is no such index."""
_MAY: Final[dict[str, list[Found]]] = {
    "default is filled": [None],
    "mine is being made": [None, []],
    "mine is made": [[], _ITEMS["mine"]],
    "mine is filled": [_ITEMS["mine"]],
    "mine is being dropped": [_ITEMS["mine"], None],
    "mine is dropped": [None],
    "mine is being restored": [None, _ITEMS[DEFAULT]],
    "mine is restored": [_ITEMS[DEFAULT]],
}
"""By the last stage that was written down, on disk before the work goes on."""


def live(root: Path) -> None:
    """All stages, one after another; the index `default` lies beside it all the time."""
    folder, stages = root / "index", os.open(root / "stages", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def reached(stage: str) -> None:
        os.write(stages, f"{stage}\n".encode())
        os.fsync(stages)

    indexes = Indexes(folder)
    _make(indexes, DEFAULT)
    _fill(indexes, DEFAULT)
    reached("default is filled")
    reached("mine is being made")
    _make(indexes, "mine")
    reached("mine is made")
    _fill(indexes, "mine")
    reached("mine is filled")
    reached("mine is being dropped")
    indexes.drop("mine")
    reached("mine is dropped")
    indexes.close()
    back_up(folder / f"{DEFAULT}{SUFFIX}", root / "backup", silent)
    reached("mine is being restored")
    restore(root / "backup", folder / f"mine{SUFFIX}", silent)
    reached("mine is restored")


def found(root: Path) -> dict[str, list[str]]:
    """What indexes there are after a power cut, and their items, which count, listing and search must all tell alike.

    What was being written or dropped leaves nothing behind.
    """
    indexes = Indexes(root / "index")
    try:
        ids = {name: _ids(indexes.open(name)) for name in indexes.names()}
        left = [path.name for path in (root / "index").iterdir() if PARTIAL in path.name]
        assert left == []
        return ids
    finally:
        indexes.close()


def may_be_found(stages: bytes) -> list[dict[str, list[str]]]:
    """What `found` may return once these stages were written down."""
    last = stages.split(b"\n")[-2]
    return [{DEFAULT: _ITEMS[DEFAULT]} | ({} if ids is None else {"mine": ids}) for ids in _MAY[last.decode()]]


def _ids(index: Index) -> list[str]:
    ids = [item.id for _, item in index.page(100)]
    (hits,) = index.search(unit(1, _DIM, 1), 100)
    assert sorted(hit.id for hit in hits) == ids
    assert len(index) == len(ids)
    return ids


def _make(indexes: Indexes, name: str) -> None:
    indexes.create(name, _SPECS[name])


def _fill(indexes: Indexes, name: str) -> None:
    vectors = unit(len(_ITEMS[name]), _DIM)
    indexes.open(name).put([Item(item_id, vector) for item_id, vector in zip(_ITEMS[name], vectors, strict=True)])


if __name__ == "__main__":
    live(Path(sys.argv[1]))
