"""How a command ends: with a sentence for what the user can mend, with a traceback for what we must."""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from pydantic import ValidationError

from rankone.model.errors import Interrupted, RankoneError

_OF_THE_MACHINE: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM})
"""A full, read-only or forbidden disk: nothing that a change of our code would mend."""
_LEFT_OUT: Final = frozenset({"matplotlib", "onnx", "onnxscript", "skimage", "torch", "torchvision"})
"""What an installation that only serves may lack, as the image `cpu` does; no route and no query needs it."""


@dataclass
class Outcome:
    """The exit status of a command: 0 done, 2 refused, 130 interrupted."""

    status: int = 0


@contextmanager
def explained() -> Iterator[Outcome]:
    """Turns errors meant for the user into one sentence on standard error."""
    outcome = Outcome()
    try:
        yield outcome
    except KeyboardInterrupt:
        outcome.status = 130
    except RankoneError as error:
        outcome.status = 130 if isinstance(error, Interrupted) else 2
        print(f"rankone: {error}", file=sys.stderr)
    except ModuleNotFoundError as error:
        if error.name not in _LEFT_OUT:
            raise
        outcome.status = 2
        print(
            f"rankone: this command needs {error.name}, which an installation that only serves leaves out",
            file=sys.stderr,
        )
    except OSError as error:
        if error.errno not in _OF_THE_MACHINE:
            raise
        outcome.status = 2
        print(f"rankone: {error}; mend that, and repeat the command", file=sys.stderr)
    except ValidationError as error:
        outcome.status = 2
        for part in error.errors():
            field = ".".join(map(str, part["loc"])) or "settings"
            print(f"rankone: {field}: {part['msg']}", file=sys.stderr)
