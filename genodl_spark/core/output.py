"""What people, terminals and programs are shown: text of one line, cells of TSV, and JSON.
Text from data may hold anything."""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

from genodl_spark.core import redaction


def printable(text: str) -> str:
    """`text` with escapes, as Python writes them, in place of characters that have no picture:
    control characters, which command a terminal, those that turn the direction of writing, invisible ones,
    and halves of surrogate pairs."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def cell(value: Any) -> str:
    """A value of `plain` as a cell of TSV: empty for NULL, JSON for lists and maps, else text,
    a backslash doubled and the rest as `printable`."""
    if value is None:
        return ""
    if isinstance(value, list | dict):
        return json.dumps(value, sort_keys=True)
    return printable(str(value).replace("\\", "\\\\"))


def plain(value: Any) -> Any:
    """A value, of a row of Spark or of a report, as JSON can hold it; NaN and the infinities,
    which JSON has no number for, are their names."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, bytes | bytearray):
        return f"<{len(value)} bytes>"
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if hasattr(value, "asDict"):
        return {k: plain(v) for k, v in value.asDict().items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    return str(value)


def as_json(document: Any) -> str:
    """JSON of one line, ASCII, by the standard: what is no number in it is no number here."""
    return json.dumps(plain(document), allow_nan=False)


def reader_left() -> None:
    """Lets all further output go nowhere: who reads it has closed early, as `head` does."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


class JsonFormatter(logging.Formatter):
    """Log records as JSON, a line each, without secrets: when (UTC), level and message, and what `about` says then."""

    def __init__(self, about: Callable[[], Mapping[str, Any]]) -> None:
        super().__init__()
        self.about = about

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = {"time": at, "level": record.levelname, "message": record.getMessage(), **self.about()}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return as_json(redaction.document(line))


class LogFormatter(redaction.Formatter):
    """Log lines without secrets and as `printable`: a message is one line, a traceback keeps its lines."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = printable(record.message)
        return super().formatMessage(record)

    def formatException(
        self, ei: tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]
    ) -> str:
        return "\n".join(map(printable, super().formatException(ei).split("\n")))
