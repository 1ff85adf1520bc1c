"""The log: lines for people, or one JSON object a line for machines."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Final, Literal

import orjson

from rankone.model.errors import log_warnings

LogFormat = Literal["text", "json"]

_FIELDS: Final = ("request_id", "client", "route", "status", "ms", "images", "key", "parts_ms")


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, the fields of a request, and tracebacks."""

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
    """A line to read; for a request with its time, its client's address and its id."""

    def format(self, record: logging.LogRecord) -> str:
        line = f"{record.levelname} {record.name}: {super().format(record)}"
        if (ms := getattr(record, "ms", None)) is not None:
            line += f" {ms:.1f} ms {record.__dict__['client']} {record.__dict__['request_id']}"
        return line


def configure(log_format: LogFormat) -> None:
    """Makes the whole process log to standard error in this format, warnings of libraries too."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    log_warnings()
