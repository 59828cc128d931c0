"""Takes verbs and SQL line by line, in one warm Spark session: a terminal with history,
completion and paging, or a script."""

from __future__ import annotations

import contextlib
import importlib
import io
import select
import sys
import threading
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING

import jobs
from genodl_spark.core import session
from genodl_spark.core.errors import InputError
from genodl_spark.core.output import printable
from genodl_spark.job.cli import Arguments, lake_option, parser, run_job

if TYPE_CHECKING:
    from genodl_spark.job.run import Run
    from genodl_spark.job.shell import History

VERBS = [name for name in jobs.verbs() if name != "shell"]
_HELP = (
    "SQL ends with a ;. A line that begins with a verb is as on the command line, --lake may be left out. "
    "exit leaves. Verbs: "
)


def shell(run: Run, given: Arguments) -> int:
    """Runs statements until there are no more; returns the exit code of the first that failed, 0 where none did."""
    from genodl_spark.job.shell import LEAVE, History, statements

    run.require_lake()
    ready = _warmed(run)
    common = {"--lake": [run.lake_uri], "--set": given.set}
    common |= {f"--{name}": [value] for name in ("config", "master") if (value := getattr(given, name))}
    terminal = sys.stdin.isatty() and sys.stdout.isatty()
    history = History()
    if terminal:
        _prepare(history)
    codes = []
    source = statements(_prompted() if terminal else sys.stdin, VERBS)
    with session.shared():
        while True:
            try:
                statement = next(source)
            except StopIteration:
                break
            except KeyboardInterrupt:  # at the prompt: what was begun is forgotten
                print()
                source = statements(_prompted(), VERBS)
                continue
            if statement in LEAVE:
                break
            if terminal and history.add(statement):
                _remember(statement)
            ready.wait()
            codes.append(_run(statement, common, terminal))
    run.report.metrics.update(statements=len(codes), failed=sum(1 for code in codes if code))
    return next((code for code in codes if code), 0)


def _warmed(run: Run) -> threading.Event:
    """Has a session on this machine start while nobody has asked for anything yet; the event says when statements may
    run. A script has its statements there already, which may ask for no session at all."""
    with contextlib.suppress(OSError, ValueError):  # standard input that is no file
        if session.place(run.master) == "local" and not select.select([sys.stdin], [], [], 0)[0]:
            from genodl_spark.pipelines.query import warm

            return warm(run)
    ready = threading.Event()
    ready.set()
    return ready


def _run(statement: str, common: dict[str, list[str]], terminal: bool) -> int:
    """Runs one statement; what it prints is all but the run report of SQL."""
    from genodl_spark.job.shell import WithoutLast, completed, is_verb, paged, without_result, words_of

    if statement == "help":
        print(_HELP + ", ".join(VERBS))
        return 0
    try:
        verb, *words = words_of(statement) if is_verb(statement, VERBS) else ("query", "--", statement)
        arguments = completed(words, _options(verb), common)
        with paged(terminal), contextlib.redirect_stdout(WithoutLast(sys.stdout)) as shown:
            code = int(importlib.import_module(f"jobs.{verb}").main(arguments))
        if is_verb(statement, VERBS):
            print(without_result(shown.last) if terminal else shown.last, end="", flush=True)
        return code
    except InputError as error:
        print(printable(f"genodl: error: {error}"), file=sys.stderr, flush=True)
        return 2
    except KeyboardInterrupt:
        print("genodl: interrupted", file=sys.stderr, flush=True)
        return 130


@cache
def _options(verb: str) -> list[str]:
    from genodl_spark.job.shell import options_of

    with contextlib.redirect_stdout(io.StringIO()) as shown:
        importlib.import_module(f"jobs.{verb}").main(["--help"])
    return options_of(shown.getvalue())


def _prompted() -> Iterator[str]:
    """Lines that are entered; a statement that goes on has another prompt."""
    from genodl_spark.job.shell import is_verb

    held = False
    while True:
        try:
            line = input("   ...> " if held else "genodl> ")
        except EOFError:
            print()
            return
        held = (held or (bool(line.strip()) and not is_verb(line, VERBS))) and not line.rstrip().endswith(";")
        yield line


def _prepare(history: History) -> None:
    import readline

    from genodl_spark.job.shell import candidates

    readline.set_auto_history(False)
    for line in history.lines():
        readline.add_history(line)
    readline.set_completer_delims(" \t\n,()=<>;")

    def complete(text: str, state: int) -> str | None:
        found = candidates(text, readline.get_line_buffer()[: readline.get_endidx()], VERBS, _options)
        return found[state] if state < len(found) else None

    readline.set_completer(complete)
    readline.parse_and_bind("tab: complete")


def _remember(statement: str) -> None:
    import readline

    readline.add_history(" ".join(statement.split()))


def main(argv: list[str] | None = None) -> int:
    made = parser("shell", __doc__)
    lake_option(made)
    codes: list[int] = []
    code = run_job("shell", made, lambda run, arguments: codes.append(shell(run, arguments)), argv)
    return code or (codes[0] if codes else 0)


if __name__ == "__main__":
    sys.exit(main())
