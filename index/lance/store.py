"""Datasets in a folder or an object store, each an index, and the version of each that is published: the one with a tag.

Only `rankone.index.lance.publish` writes. A version is never changed, so what a reader has opened stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import lance
import orjson
import pyarrow as pa
from lance.namespace import DirectoryNamespace
from lance_namespace import ListTablesRequest
from lance_namespace.errors import LanceNamespaceError

from rankone.index.errors import IndexDamaged, IndexProblem, IndexUnavailable, UnknownIndex
from rankone.index.spec import NAME, Spec

TAG: Final = "published"
SPEC: Final = b"rankone"
"""Of the schema's metadata: the spec of the index."""
MEASURED: Final = ("version", "recall", "depth")
"""Of the tag's metadata: what `rankone index check` measured, and of which version."""


@dataclass(frozen=True)
class Published:
    """A published version of an index."""

    dataset: Any = field(repr=False, compare=False)
    version: int
    name: str
    spec: Spec
    count: int
    recall: float | None
    depth: int | None
    """Candidates whose vectors a search reads, if it was measured."""


def names(root: str) -> list[str]:
    """The indexes in a folder or under an address, sorted. Raises IndexUnavailable."""
    with faults(root):
        found = DirectoryNamespace(root=root, manifest_enabled="false").list_tables(ListTablesRequest(id=[]))
        return sorted(name for name in found.tables if re.fullmatch(NAME, name))


def address(root: str, name: str) -> str:
    """Where the dataset of an index is."""
    return f"{root.rstrip('/')}/{name}.lance"


def published(root: str, name: str, session: Any = None) -> Published:
    """The published version of an index.

    Raises:
        UnknownIndex: there is no dataset of that name.
        IndexUnavailable: none of its versions is published yet, or the store cannot be read.
        IndexDamaged: another program made it.
    """
    if name not in names(root):
        raise UnknownIndex(f"there is no index {name!r}")
    with faults(address(root, name)):
        tag = lance.dataset(address(root, name)).tags.list().get(TAG)
        if tag is None:
            raise IndexUnavailable(
                f"no version of the index {name!r} is published yet: `rankone index publish` does it"
            )
        version = tag["version"]
        dataset = lance.dataset(address(root, name), version=version, session=session)
        kept = (dataset.schema.metadata or {}).get(SPEC)
        if kept is None:
            raise IndexDamaged(f"{address(root, name)} is not an index: it was not made by `rankone index publish`")
        measured = tag.get("metadata") or {}
        recall, depth = None, None
        if measured.get("version") == str(version):
            recall, depth = float(measured["recall"]), int(measured["depth"])
        return Published(dataset, version, name, Spec(**orjson.loads(kept)), dataset.count_rows(), recall, depth)


def keep_measured(found: Published, recall: float, depth: int) -> None:
    """Keeps with the tag what was measured of this version."""
    with faults(found.name):
        values = (str(found.version), repr(recall), str(depth))
        found.dataset.tags.replace_metadata(TAG, dict(zip(MEASURED, values, strict=True)))


@contextmanager
def faults(where: str) -> Iterator[None]:
    """Turns what Lance raises of a folder or store that cannot be read into IndexUnavailable."""
    try:
        yield
    except IndexProblem:
        raise
    except (OSError, ValueError, RuntimeError, pa.ArrowException, LanceNamespaceError) as error:
        what = str(error).partition(", /")[0].strip()[:300]  # what follows is a line of Lance's source
        raise IndexUnavailable(f"{where} cannot be read ({what})") from error
