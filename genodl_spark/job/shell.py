"""The lines of genodl shell: which of them are verbs and which SQL, what is kept of them, what completes them,
and how answers are shown."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol, TextIO

from genodl_spark.core import redaction
from genodl_spark.core.errors import InputError
from genodl_spark.lake.tables import TABLES

LEAVE = ("exit", "quit")
_KEPT = 10_000  # lines of the history
# What stands between quotes, and comments: a semicolon in it ends nothing.
_PIECE = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|`[^`]*`|--[^\n]*|/\*.*?\*/|;|[^'"`;/-]+|.""", re.DOTALL)
_KEYWORDS = (
    "SELECT",
    "FROM",
    "WHERE",
    "GROUP BY",
    "ORDER BY",
    "LIMIT",
    "WITH",
    "JOIN",
    "HAVING",
    "DISTINCT",
    "count(*)",
)
_VIEWS = ("predictions_latest", "predictions_compared")


def statements(lines: Iterable[str], verbs: Sequence[str]) -> Iterator[str]:
    """Statements among lines: a line that begins with a verb; SQL over any number of lines up to a `;`, without it;
    what is left at the end."""
    held = ""
    for line in lines:
        if not held.strip():
            if is_verb(line, verbs):
                yield line.strip().removesuffix(";")
                continue
            held = ""
        held += line if line.endswith("\n") else line + "\n"
        ended, held = _ended(held)
        yield from ended
    if _says_something(held):
        yield held.strip()


def _ended(text: str) -> tuple[list[str], str]:
    """Statements that a `;` ends, and the rest. A quote or a comment that is still open takes all that follows."""
    found, start = [], 0
    for piece in _PIECE.finditer(text):
        if len(piece[0]) == 1 and (piece[0] in "'\"`" or text.startswith("/*", piece.start())):
            break
        if piece[0] == ";":
            found.append(text[start : piece.start()].strip())
            start = piece.end()
    return [one for one in found if _says_something(one)], text[start:]


def _says_something(text: str) -> bool:
    return bool(re.sub(r"--[^\n]*|/\*.*?\*/", "", text, flags=re.DOTALL).strip())


def is_verb(line: str, verbs: Sequence[str]) -> bool:
    words = line.split(maxsplit=1)
    return bool(words) and words[0].removesuffix(";") in (*verbs, *LEAVE, "help")


def words_of(line: str) -> list[str]:
    """The words of a verb's line, as a command line has them. InputError for a quote that is not closed."""
    try:
        return shlex.split(line)
    except ValueError as error:
        raise InputError(f"found a line that has no end ({error}); expected quotes in pairs", line[:40]) from error


def completed(words: Sequence[str], options: Sequence[str], common: Mapping[str, Sequence[str]]) -> list[str]:
    """Arguments of a verb: those of its line, after those of the shell that the verb takes (`options`)
    and the line does not give itself."""
    given = {word.partition("=")[0] for word in words}
    # --set may be repeated
    wanted = [option for option in common if option in options and (option == "--set" or option not in given)]
    return [*(word for option in wanted for value in common[option] for word in (option, value)), *words]


def options_of(shown: str) -> list[str]:
    """Options that a verb's help shows."""
    return sorted(set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", shown)))


def candidates(text: str, line: str, verbs: Sequence[str], options: Callable[[str], Sequence[str]]) -> list[str]:
    """What may stand in place of `text`, the word at the end of `line`: verbs, options of a line's verb,
    and for SQL tables, columns, keywords."""
    first = line.split(maxsplit=1)[0] if line.strip() else ""
    before = line[: len(line) - len(text)]
    if first in verbs and before.strip():
        found = [*options(first), *TABLES]
    else:
        columns = {column.name for table in TABLES.values() for column in table.columns}
        found = [*(verbs if not before.strip() else ()), *TABLES, *_VIEWS, *sorted(columns), *_KEYWORDS]
    folded = text.lower()
    return [one for one in dict.fromkeys(found) if one.lower().startswith(folded)]


class History:
    """Lines that were entered, in a file that no other user can read; without those that hold a secret."""

    def __init__(self, path: Path | None = None) -> None:
        state = os.environ.get("XDG_STATE_HOME", "")
        self.path = (
            path or (Path(state) if os.path.isabs(state) else Path.home() / ".local" / "state") / "genodl" / "history"
        )

    def lines(self) -> list[str]:
        """The newest lines, the last one last; none where the file is not this user's own."""
        try:
            with self._opened(os.O_RDONLY) as stream:
                return stream.read().splitlines()[-_KEPT:]
        except OSError:
            return []

    def add(self, statement: str) -> bool:
        """Keeps a statement as one line; returns whether it did."""
        line = " ".join(statement.split())
        if not line or holds_secret(line):
            return False
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._opened(os.O_WRONLY | os.O_CREAT | os.O_APPEND) as stream:
                stream.write(line + "\n")
        except OSError:
            return False
        return True

    def _opened(self, flags: int) -> TextIO:
        """OSError for a link, or another user's file."""
        opened = os.open(self.path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        found = os.fstat(opened)
        if found.st_uid != os.getuid() or not stat.S_ISREG(found.st_mode):
            os.close(opened)
            raise PermissionError(str(self.path))
        os.fchmod(opened, 0o600)
        return os.fdopen(opened, "a" if flags & os.O_APPEND else "r", encoding="utf-8", errors="replace")


def holds_secret(line: str) -> bool:
    """Whether something of a line is hidden where it is stored."""
    with contextlib.suppress(ValueError):
        words = shlex.split(line)
        if redaction.arguments(words) != words:
            return True
    return redaction.text(line) != line


class _Sink(Protocol):
    def write(self, text: str, /) -> int: ...
    def flush(self) -> None: ...


class WithoutLast(io.TextIOBase):
    """Hands lines on to another file, but for the last one, `last`: a run report, where a verb has ended."""

    def __init__(self, sink: _Sink) -> None:
        self._sink, self._held = sink, ""

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        lines = (self._held + text).splitlines(keepends=True)
        self._sink.write("".join(lines[:-1]))
        self._held = lines[-1] if lines else ""
        return len(text)

    def flush(self) -> None:
        self._sink.flush()

    @property
    def last(self) -> str:
        return self._held


def without_result(report: str) -> str:
    """A line of a run report without its `result`, whose rows were shown before; other lines as they are."""
    try:
        document = json.loads(report)
    except ValueError:
        return report
    return (
        json.dumps({name: value for name, value in document.items() if name != "result"}) + "\n"
        if isinstance(document, dict)
        else report
    )


@contextlib.contextmanager
def paged(terminal: bool) -> Iterator[None]:
    """On a terminal, what is printed within goes through $PAGER where it has more lines than the screen."""
    if not terminal:
        yield
        return
    with tempfile.TemporaryFile("w+", encoding="utf-8") as held:
        try:
            with contextlib.redirect_stdout(held):
                yield
        finally:
            held.seek(0)
            shown = sum(1 for _ in held)
            held.seek(0)
            if shown < shutil.get_terminal_size().lines or not _through_pager(held):
                shutil.copyfileobj(held, sys.stdout)
                sys.stdout.flush()


def _through_pager(held: TextIO) -> bool:
    pager = os.environ.get("PAGER") or shutil.which("less") or shutil.which("more")
    if not pager:
        return False
    try:
        done = subprocess.run(["/bin/sh", "-c", pager], stdin=held, env={"LESS": "FRSX", **os.environ}, check=False)
    except OSError:
        return False
    return done.returncode not in (126, 127)
