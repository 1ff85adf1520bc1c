"""What can go wrong with an index.

RankoneError
├── Cancelled            the caller no longer wants what was being read
└── IndexProblem
    ├── UnknownIndex     there is no index of that name
    ├── UnknownItem      there is no item with that id
    ├── UnknownMap       there is no map of the index, or one that is not of it
    ├── MetadataTooLong  an item's metadata would grow over the limit
    ├── IndexConflict    the request contradicts what is stored, or itself
    │   └── IndexPublished   the index is a published version, which is only read
    ├── IndexFull        the disk or the memory is full; nothing of the request was stored
    ├── IndexReadOnly    a commit failed; searches go on, but nothing more is stored
    ├── IndexUnavailable the disk failed or the file cannot be opened; a later try may succeed
    ├── IndexDamaged     the file is not an index, or is damaged
    ├── DeviceProblem    the GPU cannot be used, or is full
    └── InvalidFilter    the filter is not in the language of `rankone.index.filters`
"""

from rankone.model.errors import RankoneError


class Cancelled(RankoneError):
    """The read was cancelled before it was complete; the file is unchanged."""


class IndexProblem(RankoneError):
    """An index cannot do what it was asked to; the message says why."""


class UnknownIndex(IndexProblem):
    """There is no index of that name."""


class UnknownItem(IndexProblem):
    """There is no item with that id in the index."""


class UnknownMap(IndexProblem):
    """There is no map of the index, or one of another index or version; the message says how to make one."""


class MetadataTooLong(IndexProblem):
    """The metadata of an item would be longer than is allowed; the item is unchanged."""


class IndexConflict(IndexProblem):
    """The index belongs to another model or has other options, a file exists already, or an id was sent twice."""


class IndexPublished(IndexConflict):
    """The index is a published version, in which nothing is ever stored."""

    def __init__(self) -> None:
        super().__init__(
            "indexes in lance:… are published versions, which are only read: `rankone index publish` makes the next"
        )


class IndexFull(IndexProblem):
    """The disk, or the memory that is searched, has no room for the request; earlier items are safe."""


class IndexReadOnly(IndexProblem):
    """The disk failed during a commit. Whether that commit is stored is unknown, so the index accepts no more writes."""


class IndexUnavailable(IndexProblem):
    """The disk failed, or the file cannot be opened. It need not be damaged, so a later try may succeed."""


class IndexDamaged(IndexProblem):
    """The file cannot be read as an index, or an item in it is damaged."""


class DeviceProblem(IndexProblem):
    """The GPU cannot be used to search indexes, or has no memory left."""


class InvalidFilter(IndexProblem, ValueError):
    """A filter on metadata that is not in the language of `rankone.index.filters`."""
