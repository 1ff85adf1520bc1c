"""How a command ends: with a sentence for what the user can mend, with a traceback for a fault of ours."""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from pydantic import ValidationError

from rankone.model.errors import Interrupted, RankoneError

_DISK_ERRORS: Final = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG}
)
"""A full, read-only or forbidden disk, or a name too long for it: no change of our code would help."""
_TRAINING: Final = frozenset({"matplotlib", "onnx", "onnxscript", "safetensors", "skimage", "torchvision", "yaml"})
_SERVING: Final = frozenset(
    {
        "faiss",
        "fastapi",
        "fastapi_offline",
        "onnxruntime",
        "prometheus_client",
        "pydantic_settings",
        "python_multipart",
        "starlette",
        "uvicorn",
        "uvloop",
    }
)
_EITHER: Final = frozenset({"PIL", "torch"})
_TRAINS: Final = frozenset({"train", "evaluate", "export", "bundle", "data", "backbones", "tables", "bench", "demo"})
"""The commands that need the extra `train`."""


@dataclass
class Outcome:
    """The exit status of a command: 0 done, 2 refused, 130 interrupted."""

    status: int = 0


@contextmanager
def explained(command: str) -> Iterator[Outcome]:
    """Prints errors that are meant for the user as one sentence on standard error."""
    outcome = Outcome()
    try:
        yield outcome
    except KeyboardInterrupt:
        outcome.status = 130
    except RankoneError as error:
        outcome.status = 130 if isinstance(error, Interrupted) else 2
        print(f"rankone: {error}", file=sys.stderr)
    except ModuleNotFoundError as error:
        advice = _how_to_install(command, error.name)
        if advice is None:
            raise
        outcome.status = 2
        print(f"rankone: `rankone {command}` {advice}", file=sys.stderr)
    except OSError as error:
        if error.errno not in _DISK_ERRORS:
            raise
        outcome.status = 2
        print(f"rankone: {error}; solve that, then repeat the command", file=sys.stderr)
    except ValidationError as error:
        outcome.status = 2
        for part in error.errors():
            field = ".".join(map(str, part["loc"])) or "settings"
            print(f"rankone: {field}: {part['msg']}", file=sys.stderr)


def _how_to_install(command: str, module: str | None) -> str | None:
    """What to install where `module` is missing; None where no extra brings it."""
    name = (module or "").partition(".")[0]
    if name == "benchmarks":
        return "measures, and is not part of the installed package; run it from a clone of the repository"
    if name in _TRAINING or (name in _EITHER and command in _TRAINS):
        return f"needs {name}: pip install 'rankone[train]'"
    if name in _SERVING or name in _EITHER:
        return f"needs {name}: pip install 'rankone[cpu]', or 'rankone[gpu]' for an NVIDIA GPU"
    return None
