"""Reading the records of a published version."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from rankone.index.backend import AnyReader
from rankone.index.cancellation import should_stop
from rankone.index.errors import Cancelled, IndexDamaged
from rankone.index.filters import Filter
from rankone.index.items import Record, Row, Summary
from rankone.index.lance.filters import quoted, sql_of
from rankone.index.lance.store import Published, faults
from rankone.index.spec import About

COLUMNS: Final = ("sequence", "id", "metadata", "sha256", "vector", "thumbnail", "checksum")
_TILE: Final = 256
"""Rows that are fetched at once."""
_WINDOW: Final = 100_000
"""Rows among which a page looks for matches first."""


class LanceReader(AnyReader):
    """Reads a version, whose rows lie in the order of their sequence numbers: 1, 2, 3, …"""

    def __init__(self, found: Published) -> None:
        self._found, self._dataset, self._spec = found, found.dataset, found.spec

    def about(self) -> About:
        return About(self._spec, self._found.count, self._found.recall)

    def check(self) -> None:
        with faults(self._found.name):
            self._dataset.validate()
        if (last := self._found.count) and [number for number, _ in self.at([last])] != [last]:
            raise IndexDamaged(
                f"the index {self._found.name!r} has {last:,} items that are not in order: publish it again"
            )

    def count(self) -> int:
        return self._found.count

    def summaries(self) -> Iterator[Summary]:
        return map(Summary._make, self._each(["sequence", "id", "metadata", "sha256", "checksum"]))

    def records(self, ids: Iterable[str]) -> dict[str, Record]:
        wanted = ", ".join(map(quoted, dict.fromkeys(ids)))
        return {record.id: record for _, record in self._rows(filter=f"id IN ({wanted})")} if wanted else {}

    def page(self, limit: int, after: int, where: Filter | None = None) -> list[Row]:
        found, width = list[Row](), max(_WINDOW, limit)
        while len(found) < limit and after < self._found.count:
            if should_stop():
                raise Cancelled("the read was cancelled")
            sql = f"sequence > {after} AND sequence <= {after + width} AND {sql_of(where)}"
            found += self._rows(filter=sql, limit=limit - len(found))
            after, width = after + width, 4 * width
        return found

    def everything(self) -> Iterator[Row]:
        return self._rows()

    def at(self, sequences: Sequence[int]) -> Iterator[Row]:
        return self._rows(filter=f"sequence IN ({', '.join(map(str, sequences))})") if sequences else iter(())

    def _rows(self, **options: Any) -> Iterator[Row]:
        for number, item_id, metadata, sha256, vector, thumbnail, checksum in self._each(COLUMNS, **options):
            data = vector.tobytes()
            yield number, Record(item_id, metadata, sha256, self._spec.fingerprint, data, thumbnail, checksum)

    def _each(self, columns: Sequence[str], **options: Any) -> Iterator[tuple[Any, ...]]:
        scanner = {"columns": list(columns), "batch_size": _TILE, "scan_in_order": True, **options}
        with faults(self._found.name):
            for batch in self._dataset.scanner(**scanner).to_batches():
                yield from zip(*(values_of(batch, name) for name in columns), strict=True)


def values_of(batch: Any, name: str) -> Any:
    """A column of a batch; the vectors (n, dim) as an array."""
    column = batch.column(name)
    if name != "vector":
        return column.to_pylist()
    return column.flatten().to_numpy(zero_copy_only=False).reshape(batch.num_rows, -1)
