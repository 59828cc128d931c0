"""Lines of the shell: verbs and SQL told apart, history without secrets, completion, and what reaches the screen."""

from __future__ import annotations

import io
import json
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from genodl_spark.core.errors import InputError
from genodl_spark.job import config
from genodl_spark.job.run import Report, Run
from genodl_spark.job.shell import (
    History,
    WithoutLast,
    candidates,
    completed,
    holds_secret,
    options_of,
    paged,
    statements,
    without_result,
    words_of,
)
from genodl_spark.pipelines import query
from jobs import shell

VERBS = ("list", "query", "train")


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        (["list tables\n", "SELECT 1;\n"], ["list tables", "SELECT 1"]),
        (
            ["SELECT 1\n", "  FROM x\n", "WHERE a = ';' -- not here; either\n", ";\n"],
            ["SELECT 1\n  FROM x\nWHERE a = ';' -- not here; either"],
        ),
        (["SELECT 1; SELECT 2;\n", "SELECT 3\n"], ["SELECT 1", "SELECT 2", "SELECT 3"]),
        (["SELECT 'it\\'s; one' /* a; b */ ;\n"], ["SELECT 'it\\'s; one' /* a; b */"]),
        (['SELECT `a;b`, "c;d";'], ['SELECT `a;b`, "c;d"']),
        (["-- a remark\n", "\n", ";\n", "list runs;\n"], ["list runs"]),
        (["SELECT 1 FROM\n", "list\n", ";\n"], ["SELECT 1 FROM\nlist"]),
        (["SELECT 'open\n", "list tables;\n", "';\n"], ["SELECT 'open\nlist tables;\n'"]),
        (["lists;\n", "exit\n"], ["lists", "exit"]),
    ],
)
def test_lines_become_statements(lines: list[str], found: list[str]) -> None:
    assert list(statements(lines, VERBS)) == found


def test_arguments_of_the_shell_stand_before_those_of_a_line() -> None:
    common = {"--lake": ["L"], "--set": ["a=1", "b=2"], "--master": ["local[2]"]}
    options = ["--lake", "--set", "--master", "--engine"]
    assert completed(["tables"], options, common) == [
        "--lake",
        "L",
        "--set",
        "a=1",
        "--set",
        "b=2",
        "--master",
        "local[2]",
        "tables",
    ]
    assert completed(["tables", "--lake=K", "--set", "b=3"], options, common)[:4] == ["--set", "a=1", "--set", "b=2"]
    assert completed(["train.batch"], ["--set"], common) == ["--set", "a=1", "--set", "b=2", "train.batch"]
    assert words_of("query 'SELECT 1' --engine duckdb") == ["query", "SELECT 1", "--engine", "duckdb"]
    with pytest.raises(InputError, match="expected quotes in pairs"):
        words_of("query 'SELECT 1")


def test_the_history_is_private_and_has_no_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    history = History()
    assert history.lines() == [] and history.path == tmp_path / "state" / "genodl" / "history"
    assert history.add("SELECT 1\n  FROM x") and history.add("list tables")
    for line in (
        "train t --set spark.hadoop.fs.s3a.secret.key=abcdefgh",
        "train t --set=tracking.uri=postgresql://me:hunter22@host/db",
        "SELECT 'password=hunter22'",
        "",
    ):
        assert not history.add(line), line
    assert holds_secret("SELECT 'https://me:abcdefgh@host/'") and not holds_secret(
        "SELECT 'a;b' FROM samples WHERE x = 1"
    )
    assert history.lines() == ["SELECT 1 FROM x", "list tables"]
    assert (
        stat.S_IMODE(history.path.stat().st_mode) == 0o600 and stat.S_IMODE(history.path.parent.stat().st_mode) == 0o700
    )
    history.path.chmod(0o644)
    assert history.add("list runs") and stat.S_IMODE(history.path.stat().st_mode) == 0o600
    other = tmp_path / "other"
    other.write_text("mine\n")
    link = History(tmp_path / "link")
    link.path.symlink_to(other)
    assert not link.add("list runs") and link.lines() == [] and other.read_text() == "mine\n"
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    assert History().path == Path.home() / ".local" / "state" / "genodl" / "history"


def test_words_are_completed() -> None:
    def options(verb: str) -> list[str]:
        return options_of(f"usage: genodl {verb} [--lake URI] [--dry-run]\n  --lake URI  not a-word--here")

    assert options("list") == ["--dry-run", "--lake"]
    assert candidates("l", "l", VERBS, options)[0] == "list" and "label_column" in candidates("l", "l", VERBS, options)
    assert candidates("--d", "list --d", VERBS, options) == ["--dry-run"]
    assert candidates("samp", "list samp", VERBS, options)[:2] == ["samples", "sample_sets"]
    assert candidates("predictions_", "SELECT * FROM predictions_", VERBS, options) == [
        "predictions_latest",
        "predictions_compared",
    ]
    assert "list" not in candidates("li", "SELECT li", VERBS, options) and "LIMIT" in candidates(
        "li", "SELECT li", VERBS, options
    )
    assert candidates("zzz", "SELECT zzz", VERBS, options) == []


def test_the_last_line_is_held_back() -> None:
    sink = io.StringIO()
    shown = WithoutLast(sink)
    for text in ("a\tb\n", "1", "\t2\n{", '"job": 1}', "\n"):
        print(text, end="", file=shown)
    assert (sink.getvalue(), shown.last) == ("a\tb\n1\t2\n", '{"job": 1}\n')


def test_a_report_on_a_terminal_does_not_repeat_its_rows() -> None:
    assert without_result('{"job": "list", "result": [1]}\n') == '{"job": "list"}\n'
    assert without_result("  --lake URI\n") == "  --lake URI\n" and without_result("") == ""


def test_a_script_ends_with_the_code_of_its_first_failure(tmp_path: Path) -> None:
    (tmp_path / "lake").mkdir()
    script = (
        "settings lock.wait_seconds\nlist cohorts\nlist nonsense\nquery 'SELECT\nlist cohorts --lake "
        "nowhere\nquit\nlist cohorts\n"
    )
    command = [sys.executable, "-m", "jobs", "shell", "--lake", str(tmp_path / "lake"), "--set", "lock.wait_seconds=7"]
    done = subprocess.run(command, input=script, capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    reports = [json.loads(line) for line in lines if line.startswith("{")]
    assert (done.returncode, lines[0]) == (2, "lock.wait_seconds = 7.0")
    assert [(one["job"], one["status"]) for one in reports] == [
        *(("settings", "done"), ("list", "done"), ("list", "failed"), ("list", "failed"), ("shell", "done"))
    ]
    assert reports[-1]["metrics"] == {"statements": 5, "failed": 3}
    errors = [line for line in done.stderr.splitlines() if line.startswith("genodl: error: ")]
    words = ("'nonsense'", "quotes in pairs", "no lake there")
    assert len(errors) == len(words) and all(word in error for word, error in zip(words, errors, strict=True))
    assert subprocess.run(command, input="list cohorts\n", capture_output=True, text=True, check=False).returncode == 0


def test_an_interrupt_ends_the_statement_and_not_the_shell(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("jobs.list.main", interrupted)
    monkeypatch.setattr(shell, "_options", lambda verb: ["--lake"] if verb == "list" else [])
    monkeypatch.setattr("sys.stdin", io.StringIO("list cohorts\nsettings lock.wait_seconds\n"))
    assert shell.main(["--lake", str(tmp_path)]) == 130
    out = capsys.readouterr()
    assert "genodl: interrupted" in out.err.splitlines() and out.out.startswith("lock.wait_seconds = 60.0\n")


@pytest.mark.parametrize(
    ("rows", "pager", "through"),
    [(3, "cat > {}", False), (200, "cat > {}", True), (200, "no-such-pager-anywhere", False)],
)
def test_long_answers_go_through_the_pager(
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    rows: int,
    pager: str,
    through: bool,
) -> None:
    monkeypatch.setenv("PAGER", pager.format(tmp_path / "seen"))
    monkeypatch.setenv("LINES", "24")
    text = "".join(f"row {i}\n" for i in range(rows))
    with paged(True):
        sys.stdout.write(text)
    assert capfd.readouterr().out == ("" if through else text)
    assert os.path.exists(tmp_path / "seen") == through and (not through or (tmp_path / "seen").read_text() == text)


def test_a_session_is_warmed_while_nobody_asks_for_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def warm(run: Run) -> threading.Event:
        asked.append(run.lake_uri)
        return threading.Event()

    monkeypatch.setattr(query, "warm", warm)
    here, cluster = (Run(Report("shell"), config.load(), "L", master) for master in ("local[2]", "spark://a:7077"))
    reader, writer = os.pipe()
    with os.fdopen(reader) as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        assert shell._warmed(cluster).is_set() and asked == []
        assert not shell._warmed(here).is_set() and asked == ["L"]
        os.write(writer, b"list tables\n")
        assert shell._warmed(here).is_set() and asked == ["L"]  # a script
        os.close(writer)
    monkeypatch.setattr("sys.stdin", io.StringIO())
    assert shell._warmed(here).is_set() and asked == ["L"]
