"""What ends a job with a single line: input or configuration that the user has to mend (exit 2),
another run in the way (exit 4), or machines that lack something (exit 1)."""

from __future__ import annotations

import errno
import platform
import re
from collections.abc import Iterator
from urllib.parse import unquote

# the advice for what the lake holds no longer whole
MEND = "genodl verify names the damaged file and the ingest that brings it back"


class InputError(Exception):
    """What the user gave is at fault.

    `message` says what was found, what was expected and what to do; `file` (path or URI) and `line` (1-based)
    say where, when there is such a place. Survives pickling between Spark workers and the driver.
    """

    def __init__(self, message: str, file: str | None = None, line: int | None = None) -> None:
        self.message = " ".join(message.split())
        self.file = file
        self.line = line
        super().__init__(message, file, line)

    def __str__(self) -> str:
        place = "" if self.file is None else f"{self.file}: " if self.line is None else f"{self.file}:{self.line}: "
        return place + self.message

    def __reduce__(self) -> tuple[type[InputError], tuple[str, str | None, int | None]]:
        return (type(self), (self.message, self.file, self.line))


class Damaged(InputError, ValueError):
    """What the lake has stored is not what was written: bits have rotted, or somebody has changed them.

    `file` is the damaged one where it is known; `genodl verify` finds it, and what brings it back.
    """


class Conflict(Exception):
    """Another run holds what this one needs, or has won the race for it: nothing was committed,
    and the same command may be run again.

    `message` says what was found, what was expected and what to do, as one line.
    """

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


class Outage(Exception):
    """The machines lack something, such as room on a disk or a master that answers: nothing was half-written,
    and the same command may be run again once it is there.

    `message` says what was found, what was expected and what to do, as one line. Survives pickling.
    """

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


# What Spark says of a file of a scan; the path is percent-encoded.
_UNREADABLE = re.compile(r"\[FAILED_READ_FILE\.[A-Z_]+\] Encountered error while reading file (.+?\.parquet)\.")
_CAUSE = re.compile(r"^Caused by: (?:[\w$]+\.)*[\w$]+: (.+)$", re.MULTILINE)
_IN_TRACEBACK = re.compile(r"^(?:\w+\.)*(?:InputError|Damaged): (.+)$", re.MULTILINE)


def input_error_within(error: BaseException) -> InputError | None:
    """The InputError that `error` is, or that a Spark task raised and Spark reported as text;
    None when there is none."""
    if isinstance(error, InputError):
        return error
    text = str(error)
    if found := _IN_TRACEBACK.search(text):
        return InputError(found.group(1).strip())
    if found := _UNREADABLE.search(text):
        causes = _CAUSE.findall(text)
        reason = f" ({causes[-1].strip()[:200]})" if causes else ""
        return Damaged(
            f"found a file that Spark cannot read{reason}; expected whole Parquet, {MEND}",
            re.sub("^file:/(?!/)", "file:///", unquote(found.group(1))),
        )
    return None


# How the C library, SQLite and DuckDB say it; the path behind it where there is one.
_FULL = re.compile(
    r"(?:No space left on device|Disk quota exceeded|database or disk is full)(?:: ['\"]?(?P<path>/[^'\"\n]+))?"
)
_TASK = re.compile(r"\(TID \d+\) \(([\w.:-]+) executor \w+\)")


def outage_within(error: BaseException) -> Outage | None:
    """The Outage that `error` is or that led to it: a full disk, here or where a Spark task ran, in Python or in Java.
    None where there is none."""
    for one in _causes(error):
        if isinstance(one, Outage):
            return one
        text = str(one)
        found = _FULL.search(text)
        if found or (isinstance(one, OSError) and one.errno in (errno.ENOSPC, errno.EDQUOT)):
            path = getattr(one, "filename", None) or (found and found["path"])
            host = (_TASK.findall(text) or [platform.node()])[-1]
            found_none = f"found no space left on a disk of {host}" + (f" for {path}" if path else "")
            return Outage(f"{found_none}; expected some, make room and run the same command again")
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error, what it came from, and so on."""
    seen: list[BaseException] = []
    one: BaseException | None = error
    while one is not None and one not in seen:
        seen.append(one)
        yield one
        one = one.__cause__ or one.__context__


class Refused(Exception):
    """Why a meta line or a record breaks the specification."""
