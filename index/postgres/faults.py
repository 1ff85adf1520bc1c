"""Turns errors of PostgreSQL into IndexProblem, with what to do about them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import psycopg
from psycopg import errors

from rankone.index.errors import (
    Cancelled,
    IndexDamaged,
    IndexFull,
    IndexProblem,
    IndexReadOnly,
    IndexUnavailable,
    UnknownIndex,
)
from rankone.model.errors import RankoneError

_KNOWN: Final[Sequence[tuple[tuple[type[psycopg.Error], ...], type[RankoneError], str]]] = (
    ((errors.QueryCanceled,), Cancelled, "a read from the database {where} was cancelled"),
    ((errors.LockNotAvailable,), IndexUnavailable, "another change of the database {where} is in the way; try again"),
    ((errors.UndefinedTable,), UnknownIndex, "the index has been dropped"),
    (
        (errors.ReadOnlySqlTransaction,),
        IndexReadOnly,
        "the database {where} is read-only, as a standby is: name the primary",
    ),
    (
        (errors.DiskFull, errors.OutOfMemory, errors.InsufficientResources),
        IndexFull,
        "the database {where} has no room left ({what}); nothing of this request was stored",
    ),
    (
        (errors.DataCorrupted, errors.IndexCorrupted),
        IndexDamaged,
        "the database {where} is damaged ({what}); restore a backup of it",
    ),
    (
        (errors.UntranslatableCharacter,),
        IndexProblem,
        "metadata holds the character U+0000, which PostgreSQL cannot keep",
    ),
    (
        (errors.InsufficientPrivilege,),
        IndexProblem,
        "the database {where} does not allow it ({what}): give its user the rights",
    ),
    (
        (psycopg.OperationalError, psycopg.InterfaceError),
        IndexUnavailable,
        "the database {where} cannot be reached ({what}); it is tried again with every request",
    ),
)
"""In this order: most are kinds of OperationalError."""


def of_postgres(error: psycopg.Error, where: str) -> RankoneError:
    """An error of PostgreSQL as a problem of the indexes in the database `where`, as `Database.name` has it."""
    what = (error.diag.message_primary or str(error).strip() or type(error).__name__).splitlines()[0]
    if isinstance(error, errors.QueryCanceled) and "timeout" in what:
        return IndexUnavailable(f"the database {where} took too long to answer")
    for kinds, problem, sentence in _KNOWN:
        if isinstance(error, kinds):
            return problem(sentence.format(where=where, what=what))
    return IndexProblem(f"the database {where} refused: {what}")
