"""API keys: random, shown once, kept as SHA-256 in a JSON file that the service reads again when it changes."""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import logging
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError

from rankone.model.errors import RankoneError
from rankone.model.files import sync
from rankone.service.settings import Settings

logger = logging.getLogger("rankone")

KeyScope = Literal["read", "write", "admin"]

_OWN_FILE: Final = "keys.json"
_FIRST_KEY: Final = "first.key"


class KeyFileError(RankoneError, ValueError):
    """A key file that cannot be read or written as asked."""


class Key(BaseModel):
    """A key as it is kept: everything but the key itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    scopes: frozenset[KeyScope]
    requests_per_minute: PositiveInt | None = None
    created: datetime


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    keys: tuple[Key, ...] = ()


def load_keys(path: Path) -> tuple[Key, ...]:
    """The keys in a file; an empty file has none.

    Raises:
        KeyFileError: it cannot be read, or is not a key file.
    """
    try:
        return _File.model_validate_json(path.read_bytes().strip() or b"{}").keys
    except OSError as error:
        raise KeyFileError(
            f"the keys in {path} cannot be read: {error.strerror}; make one with `rankone keys add`"
        ) from error
    except ValidationError as error:
        raise KeyFileError(f"{path} is not a key file: {error.errors()[0]['msg']}") from error


def add_key(
    path: Path, name: str | None, scopes: frozenset[KeyScope], requests_per_minute: int | None = None
) -> tuple[str, Key]:
    """Adds a key to the file, made if it does not exist, and returns the key itself, which is not kept anywhere.

    Raises:
        KeyFileError: there is a key of that name, the name cannot be printed, or the file cannot be read or written.
    """
    if name is not None and not name.isprintable():
        raise KeyFileError(
            f"a key cannot be named {name!r}: names are printed and logged, so they hold no control characters"
        )
    secret, key = _new_key(name, scopes, requests_per_minute)
    with _locked(path):
        keys = load_keys(path) if path.exists() else ()
        if any(other.name == name for other in keys):
            raise KeyFileError(f"{path} has a key {name!r} already; choose another name, or revoke that one first")
        _write(path, (*keys, key))
    return secret, key


def revoke_key(path: Path, name: str) -> None:
    """Removes a key from the file; a running service refuses it within a second.

    Raises:
        KeyFileError: there is no such key, or the file cannot be read or written.
    """
    with _locked(path):
        keys = load_keys(path)
        left, names = tuple(key for key in keys if key.name != name), [key.name for key in keys]
        if len(left) == len(keys):
            raise KeyFileError(f"{path} has no key {name!r}; it has: {', '.join(map(printable, names)) or 'none'}")
        _write(path, left)


def printable(name: str) -> str:
    """A name as it can be printed: what controls a terminal is escaped, as files of keys can be written by hand."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in name)


def with_own_keys(settings: Settings) -> Settings:
    """The settings with `keys`, if the service keeps keys of its own. The first start makes one of every scope.

    The key is in a file that the service's user alone can read, and the log says which.

    Raises:
        KeyFileError: the folder cannot be written.
    """
    keys = own_key_file(settings)
    if keys is None:
        return settings
    first = keys.with_name(_FIRST_KEY)
    with _locked(keys):
        if not keys.exists():
            secret, key = _new_key("first", frozenset(get_args(KeyScope)), None)
            first.unlink(missing_ok=True)
            with os.fdopen(os.open(first, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
                file.write(f"{secret}\n")
            sync(first)
            _write(keys, (key,))  # last: if there are keys, their secret is on disk
            logger.warning("made a key of every scope, which is needed from now on: it is in the file %s", first)
    return settings.model_copy(update={"keys": keys})


def own_key_file(settings: Settings) -> Path | None:
    """The file of the keys that the service keeps of its own, None if it keeps none."""
    if settings.own_keys is None or settings.keys is not None or settings.allow_anonymous:
        return None
    return settings.own_keys / _OWN_FILE


class KeyRing:
    """The keys of a file, which is read again within a second of a change. A file that cannot be read has no valid keys.

    Raises:
        KeyFileError: the file cannot be read at the start.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._keys: tuple[Key, ...] = ()
        self._stamp: tuple[int, ...] | None = ()
        self._read()

    def find(self, secret: str) -> Key | None:
        """The key that this is. Every key is compared, each in constant time."""
        if time.monotonic() - self._looked_at >= 1:
            try:
                self._read()
            except KeyFileError as error:
                self._keys, self._stamp = (), None  # so that it is tried again: permissions leave no stamp
                logger.error("no key is valid until its file can be read: %s", error)
        digest, found = _digest(secret), None
        for key in self._keys:
            if hmac.compare_digest(key.sha256, digest):
                found = key
        return found

    def _read(self) -> None:
        self._looked_at = time.monotonic()
        if (stamp := _stamp(self._path)) == self._stamp:
            return
        self._keys, self._stamp = load_keys(self._path), stamp
        if not self._keys:
            logger.warning(
                "%s holds no keys, so nobody can use the service: add one with `rankone keys add`", self._path
            )


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


def _new_key(name: str | None, scopes: frozenset[KeyScope], requests_per_minute: int | None) -> tuple[str, Key]:
    secret = "r1_" + secrets.token_urlsafe(32)
    digest = _digest(secret)
    return secret, Key(
        name=name or f"key-{digest[:8]}",
        sha256=digest,
        scopes=scopes,
        requests_per_minute=requests_per_minute,
        created=datetime.now(UTC).replace(microsecond=0),
    )


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One process at a time changes the file. The folder is locked, as the file is replaced."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield
        finally:
            os.close(folder)
    except OSError as error:
        raise KeyFileError(f"{path} cannot be written: {error.strerror}") from error


def _write(path: Path, keys: tuple[Key, ...]) -> None:
    """Replaces the file by one of the same mode; a new one is readable by its owner alone."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(_File(keys=keys).model_dump_json(indent=2) + "\n")
    if path.exists():
        shutil.copymode(path, name)
    sync(Path(name))
    Path(name).replace(path)
    sync(path.parent)
