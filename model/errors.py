"""The root of every error whose message is meant for the user. Anything else that is raised is a fault of ours.

Each package keeps the errors of its own beside the code that raises them. Warnings of libraries go to the log.
"""

from __future__ import annotations

import logging
import warnings

logger = logging.getLogger("rankone")


class RankoneError(Exception):
    """Something that the user can mend; the message says what was wrong and what to do."""


class Interrupted(RankoneError):
    """The work was asked to stop, and did."""


def log_warnings() -> None:
    """From now on Python's warnings, such as Pillow's about odd files, are lines of the log `rankone`, not raw on stderr."""
    warnings.showwarning = _log


def _log(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
    logger.warning("%s: %s", category.__name__, " ".join(str(message).split()))
