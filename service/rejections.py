"""What single inputs of a request were refused for: every one at fault is named, at its place in the request."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from rankone.model.errors import RankoneError


class InvalidVector(RankoneError, ValueError):
    """A vector that cannot be an embedding of the bundle being served."""


@dataclass(frozen=True)
class Rejection:
    """The input at `index` of a request, and why it was refused."""

    index: int
    error: RankoneError


class InputsRejected(ValueError):
    """Some inputs of a request cannot be used; `rejections` names each of them, in order."""

    def __init__(self, rejections: Sequence[Rejection]) -> None:
        super().__init__(f"{len(rejections)} inputs of the request cannot be used")
        self.rejections = sorted(rejections, key=lambda rejection: rejection.index)


@contextmanager
def at_places(places: Sequence[int]) -> Iterator[None]:
    """Within, inputs are counted among those of their kind; what is raised names their places in the whole request."""
    try:
        yield
    except InputsRejected as rejected:
        raise InputsRejected(
            [replace(rejection, index=places[rejection.index]) for rejection in rejected.rejections]
        ) from None
