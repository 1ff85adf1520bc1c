"""The indexes of a folder as one model can use them."""

from __future__ import annotations

from dataclasses import dataclass

from rankone.index.errors import IndexConflict, IndexProblem, UnknownIndex
from rankone.index.index import Index
from rankone.index.registry import Indexes
from rankone.index.schema import Device, Dtype, Kind, Spec


@dataclass(frozen=True)
class Description:
    """An index as it is listed: what it is, how many items it holds, and what is wrong with it, if something is."""

    name: str
    spec: Spec | None
    count: int | None
    detail: str | None
    recall: float | None = None
    device: Device | None = None


@dataclass(frozen=True)
class Serving:
    """The indexes as one model can use them: a light view, of which there may be several. `serve` makes them."""

    indexes: Indexes
    fingerprint: str
    dim: int

    def __getitem__(self, name: str) -> Index:
        """The index of that name.

        Raises:
            UnknownIndex: there is none.
            IndexConflict: it was made with another model.
            IndexProblem: it cannot be read.
        """
        try:
            self.indexes.spec(name).check_serves(self.fingerprint)
        except IndexConflict as conflict:
            raise IndexConflict(f"index {name!r}: {conflict}") from None
        return self.indexes.open(name)

    def names(self) -> list[str]:
        """The names of all indexes, also of those that cannot be used with this model."""
        return self.indexes.names()

    def create(self, name: str, dtype: Dtype = "float16", kind: Kind = "exact", *, thumbnails: bool = False) -> bool:
        """Makes an index of this model; see `Indexes.create`."""
        return self.indexes.create(name, Spec(self.fingerprint, self.dim, dtype, kind, thumbnails))

    def drop(self, name: str) -> None:
        """Removes an index, of whichever model; see `Indexes.drop`."""
        self.indexes.drop(name)

    def describe(self, name: str) -> Description:
        """The index of that name.

        Raises:
            UnknownIndex: there is none.
        """
        try:
            index = self[name]
        except UnknownIndex:
            raise
        except IndexProblem as problem:
            return Description(name, None, None, str(problem))
        return Description(name, index.spec, len(index), index.problem, index.recall, index.device)

    def count(self, name: str) -> int:
        """How many items the index holds; 0 where it cannot be used with this model."""
        try:
            return len(self[name])
        except IndexProblem:
            return 0

    def problems(self) -> dict[str, str]:
        """What is wrong with which index: its file, its disk, or some of its items."""
        return self.indexes.problems()

    def close(self) -> None:
        """To be called once when nobody uses it any more: with the last one of a model, its indexes are closed."""
        self.indexes.release(self.fingerprint)


def serve(indexes: Indexes, fingerprint: str, dim: int) -> Serving:
    """The indexes as the model `fingerprint` can use them, opened; `default` is made where there is none.

    Raises:
        IndexProblem: it cannot be made.
    """
    indexes.acquire(fingerprint, dim)
    return Serving(indexes, fingerprint, dim)
