"""The log: lines for people, or one JSON object a line for machines."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Final, Literal

import orjson

_FIELDS: Final = ("request_id", "route", "status", "ms", "images", "key", "parts_ms")


class JsonFormatter(logging.Formatter):
    """Time, level, logger and message, what the access log knows of a request, and tracebacks."""

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **{name: value for name in _FIELDS if (value := getattr(record, name, None)) is not None},
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return orjson.dumps(entry, default=str).decode()


class TextFormatter(logging.Formatter):
    """The same in a line to read; of a request its time and id."""

    def format(self, record: logging.LogRecord) -> str:
        line = f"{record.levelname} {record.name}: {super().format(record)}"
        return (
            line
            if (ms := getattr(record, "ms", None)) is None
            else f"{line} {ms:.1f} ms {record.__dict__['request_id']}"
        )


def configure(log_format: Literal["text", "json"]) -> None:
    """Makes the whole process log to standard error in this format.

    Neither says where in the code or in which thread something was logged, so nobody looks for it: that is a fifth of the
    cost of a line.
    """
    logging._srcfile = None  # as "Optimization" in Python's logging HOWTO has it
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging.logAsyncioTasks = False  # type: ignore[attr-defined]  # Python 3.12
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
