"""How a command ends: with a sentence for what the user can mend, with a traceback for a fault of ours."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import select
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from pydantic import ValidationError

from rankone.model.errors import Interrupted, RankoneError

_DISK_ERRORS: Final = frozenset(
    {
        *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.EFBIG),
        *(errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.EMFILE, errno.ENFILE),
    }
)
"""A full, read-only or forbidden disk, or a path that cannot be: no change of our code would help."""
_PIPE_CLOSED: Final = 128 + signal.SIGPIPE
"""What a shell reports of `cat` in `cat FILE | head`."""
_TRAINING: Final = frozenset(["matplotlib", "onnx", "onnxscript", "safetensors", "skimage", "torchvision", "yaml"])
_SERVING: Final = frozenset(
    {
        *("faiss", "fastapi", "fastapi_offline", "onnxruntime", "prometheus_client", "pydantic_settings"),
        *("python_multipart", "starlette", "uvicorn", "uvloop"),
    }
)
_EITHER: Final = frozenset({"PIL", "torch"})
_TRAINS: Final = frozenset(
    {
        *("train", "runs", "compare", "evaluate", "export", "reduce", "quantize", "bundle"),
        *("data", "backbones", "tables", "bench", "demo"),
    }
)
"""The commands that need the extra `train`."""


@dataclass
class Outcome:
    """The exit status of a command: 0 done, 2 refused, 130 interrupted, 141 nobody reads its output any more."""

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
        say(str(error))
    except ModuleNotFoundError as error:
        advice = how_to_install(command, error.name)
        if advice is None:
            raise
        outcome.status = 2
        say(f"`rankone {command}` {advice}")
    except OSError as error:
        if isinstance(error, BrokenPipeError) and _nobody_reads():
            outcome.status = _PIPE_CLOSED
            return
        if error.errno not in _DISK_ERRORS:
            raise
        outcome.status = 2
        say(f"{error}; solve that, then repeat the command")
    except ValidationError as error:
        outcome.status = 2
        for part in error.errors():
            field = ".".join(map(str, part["loc"])) or "settings"
            say(f"{field}: {part['msg']}")


def say(words: str) -> None:
    """A line for the user on standard error, if there is one."""
    if sys.stderr is not None:
        with contextlib.suppress(OSError):
            print(f"rankone: {words}", file=sys.stderr)


def write_anything() -> None:
    """From now on characters that the terminal lacks are written as escapes, where Python would raise."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
            if stream.encoding.lower() != "utf-8":
                os.environ.setdefault("PYTHON_TYRO_UTF8_BOXES", "False")  # the frames of --help


def ended(status: int) -> int:
    """The status, once standard output is written; another one if it cannot be, which Python would tell as a traceback."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is still to be flushed at the exit
        if isinstance(error, BrokenPipeError):
            return _PIPE_CLOSED
        say(f"standard output cannot be written: {error.strerror}")
        return 2
    return status


def _nobody_reads() -> bool:
    """Whether standard output or error is a pipe whose other end is closed."""
    poll = select.poll()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):  # closed, or no file
            poll.register(stream.fileno(), 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def how_to_install(command: str, module: str | None) -> str | None:
    """What to install where `module` is missing; None where no extra brings it."""
    name = (module or "").partition(".")[0]
    if name == "benchmarks":
        return "measures, and is not part of the installed package; run it from a clone of the repository"
    if name == "ray":
        return "needs Ray for a cluster: pip install 'rankone[ray]' on every machine of it"
    if name == "pyarrow":
        return "needs pyarrow: pip install 'rankone[parquet]'"
    if name in _TRAINING or (name in _EITHER and command in _TRAINS):
        return f"needs {name}: pip install 'rankone[train]'"
    if name in _SERVING or name in _EITHER:
        return f"needs {name}: pip install 'rankone[cpu]', or 'rankone[gpu]' for an NVIDIA GPU"
    return None
