"""What can be wrong with an index, in words for whoever asked.

IndexProblem
├── UnknownIndex     no index of that name
├── UnknownItem      no item of that id
├── IndexConflict    made with another bundle or other options, or an id twice in one request
├── IndexFull        the disk is full, or the memory that is searched; nothing of the request was stored
├── IndexReadOnly    a commit failed: what was acknowledged is searched, nothing is stored any more
├── IndexDamaged     the file is no index, or not whole
├── DeviceProblem    where it is to be searched there is no such device, or no room
└── InvalidFilter    a filter that means nothing
"""

from rankone.model.errors import RankoneError


class IndexProblem(RankoneError):
    """An index cannot do what was asked of it; the message says why."""


class UnknownIndex(IndexProblem):
    """There is no index of that name."""


class UnknownItem(IndexProblem):
    """There is no item of that id in the index."""


class IndexConflict(IndexProblem):
    """What was asked does not go with what is there."""


class IndexFull(IndexProblem):
    """No room on disk, or in the memory where it is to be searched; what was acknowledged before is safe."""


class IndexReadOnly(IndexProblem):
    """The disk failed a commit; whether that one is on it is not known, so nothing more is promised."""


class IndexDamaged(IndexProblem):
    """The file of an index cannot be read as one."""


class DeviceProblem(IndexProblem):
    """The device that indexes are to be searched on cannot be had, or has no memory left."""


class InvalidFilter(IndexProblem, ValueError):
    """A filter on metadata that is not in the language of `rankone.index.filters`."""
