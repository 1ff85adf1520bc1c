"""`rankone keys add`, `list` and `revoke`: who may use a service."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Final

import tyro
from pydantic import PositiveInt
from tyro.conf import Positional, arg

from rankone.service.auth.keys import KeyFileError, KeyScope, add_key, load_keys, printable, revoke_key

_VARIABLE: Final = "RANKONE_KEYS"

File = Annotated[Path | None, arg(name="file")]


def keys(arguments: list[str]) -> None:
    """See the commands within."""
    tyro.extras.subcommand_cli_from_dict(
        {"add": _add, "list": _list, "revoke": _revoke},
        prog="rankone keys",
        description="The keys of a service, in a file that it reads again when it changes. Only their SHA-256 is kept.",
        args=arguments,
    )


def _add(
    name: Positional[str | None] = None,
    scope: tuple[KeyScope, ...] = ("read",),
    rate: PositiveInt | None = None,
    file: File = None,
) -> None:
    """Makes a key and prints it. It is shown this once.

    Args:
        name: who it is for, for the log and for revoking it; made up if not given.
        scope: what it may do: read (embed, classify, search, list), write (change indexes), admin (load models).
        rate: requests a minute that it may send, without a limit if not given.
        file: of the keys; RANKONE_KEYS if not given.
    """
    secret, key = add_key(_file(file), name, frozenset(scope), rate)
    print(secret)
    print(f"key {key.name!r} of scope {', '.join(scope)}: keep it now, it is not shown again", file=sys.stderr)


def _list(file: File = None) -> None:
    """Names, scopes, rates and dates of all keys.

    Args:
        file: of the keys; RANKONE_KEYS if not given.
    """
    for key in load_keys(_file(file)):
        rate = f"{key.requests_per_minute}/min" if key.requests_per_minute else "-"
        print(f"{printable(key.name)}\t{','.join(sorted(key.scopes))}\t{rate}\t{key.created:%Y-%m-%d}")


def _revoke(name: Positional[str], file: File = None) -> None:
    """Takes a key out; a running service refuses it within a second.

    Args:
        name: of the key.
        file: of the keys; RANKONE_KEYS if not given.
    """
    revoke_key(_file(file), name)


def _file(given: Path | None) -> Path:
    if given is None and _VARIABLE not in os.environ:
        raise KeyFileError(f"say which file the keys are in: --file FILE, or {_VARIABLE}")
    return given or Path(os.environ[_VARIABLE])
