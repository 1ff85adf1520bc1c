"""What surrounds decoding in a process of its own: a limit of processor time, and warnings as lines of the log."""

from __future__ import annotations

import logging
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

logger = logging.getLogger("rankone")


@contextmanager
def processor_time(limit_s: float) -> Iterator[None]:
    """Ends the process by SIGPROF once the code within has used `limit_s` seconds of processor time, of all threads.

    The time that others keep the processor busy does not count. No exception is raised, because a decoder in C would not
    return to take it: whoever started the process sees the exit status -SIGPROF. Not on Windows.
    """
    signal.setitimer(signal.ITIMER_PROF, limit_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def log_warnings() -> None:
    """From now on Python's warnings, such as Pillow's about odd files, are lines of the log `rankone`, not raw on stderr."""
    warnings.showwarning = _log


def _log(
    message: Warning | str,
    category: type[Warning],
    filename: str,  # noqa: ARG001 - the caller's signature
    lineno: int,  # noqa: ARG001
    file: TextIO | None = None,  # noqa: ARG001
    line: str | None = None,  # noqa: ARG001
) -> None:
    logger.warning("%s: %s", category.__name__, " ".join(str(message).split()))
