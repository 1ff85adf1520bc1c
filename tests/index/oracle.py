"""What an index should do, slowly: a dictionary, NumPy in float64, and filters by Python itself."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from rankone.index import Item

MISSING = object()
ORDER: dict[str, Callable[[Any, Any], bool]] = {
    "$gt": operator.gt,
    "$gte": operator.ge,
    "$lt": operator.lt,
    "$lte": operator.le,
}


def unit(count: int, dim: int, seed: int = 0) -> npt.NDArray[np.float32]:
    """Directions drawn at random."""
    drawn = np.random.default_rng(seed).standard_normal((count, dim))
    return np.asarray(drawn / np.linalg.norm(drawn, axis=1, keepdims=True), np.float32)


def kind(value: Any) -> str:
    """Types that can be equal."""
    if value is None or isinstance(value, bool):
        return repr(value)
    if isinstance(value, int | float):
        return "number"
    return "text" if isinstance(value, str) else "other"


def equals(found: Any, value: Any) -> bool:
    return found is not MISSING and kind(found) == kind(value) != "other" and bool(found == value)


def names_of(path: str) -> list[str]:
    """The names of a dotted path, some of them between backticks, read character by character."""
    names, rest = [], list(path)
    while rest:
        name = ""
        if rest[0] == "`":
            del rest[0]
            while rest[0] != "`" or rest[1:2] == ["`"]:
                if rest[0] == "`":
                    del rest[0]
                name += rest.pop(0)
            del rest[0]
        else:
            while rest and rest[0] != ".":
                name += rest.pop(0)
        names.append(name)
        del rest[:1]
    return names


def lookup(metadata: Any, path: str) -> Any:
    for name in names_of(path):
        if not isinstance(metadata, dict) or name not in metadata:
            return MISSING
        metadata = metadata[name]
    return metadata


def contains(found: Any, value: Any) -> bool:
    if isinstance(found, list):
        return any(equals(element, value) for element in found)
    return isinstance(found, str) and isinstance(value, str) and value in found


def compares(found: Any, name: str, operand: Any) -> bool:
    if name in ("$eq", "$ne"):
        return equals(found, operand) == (name == "$eq")
    if name in ("$in", "$nin"):
        return any(equals(found, value) for value in operand) == (name == "$in")
    if name == "$contains":
        return contains(found, operand)
    if name == "$exists":
        return bool((found is not MISSING) == operand)
    return found is not MISSING and kind(found) == kind(operand) and bool(ORDER[name](found, operand))


def holds(source: dict[str, Any], metadata: dict[str, Any]) -> bool:
    """Whether a filter holds, by its table."""
    for name, value in source.items():
        if name == "$and":
            fits = all(holds(part, metadata) for part in value)
        elif name == "$or":
            fits = any(holds(part, metadata) for part in value)
        elif name == "$not":
            fits = not holds(value, metadata)
        else:
            operations = value if isinstance(value, dict) else {"$eq": value}
            found = lookup(metadata, name)
            fits = all(compares(found, operation, operand) for operation, operand in operations.items())
        if not fits:
            return False
    return True


@dataclass
class Oracle:
    """Items by id, in the order in which they were added last; vectors rounded as they are kept."""

    items: dict[str, Item] = field(default_factory=dict)

    def put(self, new: Sequence[Item]) -> None:
        for item in new:
            self.items.pop(item.id, None)
            self.items[item.id] = item

    def delete(self, ids: Sequence[str]) -> int:
        return sum(self.items.pop(item_id, None) is not None for item_id in set(ids))

    def matching(self, source: dict[str, Any] | None) -> list[Item]:
        return [item for item in self.items.values() if source is None or holds(source, item.metadata)]

    def scores(self, query: npt.NDArray[np.float32], source: dict[str, Any] | None = None) -> dict[str, float]:
        """Every item that takes part with its cosine."""
        kept = ((item.id, np.asarray(item.vector).astype(np.float16)) for item in self.matching(source))
        return {item_id: float(vector.astype(np.float64) @ query.astype(np.float64)) for item_id, vector in kept}
