"""What a terminal and a program are shown of text and numbers that data may hold."""

from __future__ import annotations

import io
import json
import logging
import unicodedata
from datetime import datetime, timedelta

import pytest

from genodl_spark.core.output import JsonFormatter, LogFormatter, as_json, cell, plain, printable
from genodl_spark.report import content

COMMANDS = "\x1b]0;owned\x07\x1b[2J\x9b31m\r\x7f\u202eevil\u2066\u200f\ud800"


def test_what_would_command_a_terminal_is_shown_as_its_escape() -> None:
    assert printable(COMMANDS) == r"\x1b]0;owned\x07\x1b[2J\x9b31m\r\x7f\u202eevil\u2066\u200f\ud800"
    for text in ("Müller ø 中文 עברית C:\\x é", "", "a b"):
        assert printable(text) == text
    every = [chr(i) for i in range(0x110000)]
    turning = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
    for c in every:
        if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") or unicodedata.bidirectional(c) in turning:
            assert printable(c).isascii() and printable(c).isprintable() and printable(c).startswith("\\"), hex(ord(c))


def test_a_cell_of_tsv_gives_its_text_back() -> None:
    for text in (COMMANDS, "a\tb\nc\\td\\\\", "\\", "x"):
        written = cell(text)
        assert "\t" not in written and "\n" not in written and written.isprintable()
        assert written.encode("utf-8").decode("unicode_escape") == text
    assert [cell(v) for v in (None, "", True, 3, 0.1, plain(float("nan")), {"b": "\x1b", "a": [1]})] == [
        "",
        "",
        "True",
        "3",
        "0.1",
        "NaN",
        '{"a": [1], "b": "\\u001b"}',
    ]


def test_numbers_that_json_lacks_are_their_names() -> None:
    document = {"a": float("inf"), "b": [float("-inf"), {"c": float("nan")}, (1.5, None, True)], 3: b"xy"}

    def strict(name: str) -> float:
        raise ValueError(name)

    assert json.loads(as_json(document), parse_constant=strict) == {
        "a": "Infinity",
        "b": ["-Infinity", {"c": "NaN"}, [1.5, None, True]],
        "3": "<2 bytes>",
    }


def test_log_lines_are_printable() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(LogFormatter("%(levelname)s %(message)s"))
    log = logging.Logger("shown")
    log.addHandler(handler)
    log.warning("sample %s", "a\x1b[31m\nERROR faked")
    try:
        raise ValueError("\x1b]0;x\x07")
    except ValueError:
        log.exception("job failed")
    lines = stream.getvalue().splitlines()
    assert lines[0] == r"WARNING sample a\x1b[31m\nERROR faked"
    assert lines[1] == "ERROR job failed" and lines[-1] == r"ValueError: \x1b]0;x\x07" and len(lines) > 3
    assert "\x1b" not in stream.getvalue()


def test_log_lines_as_json_say_which_run_they_are_of() -> None:
    stream, said = io.StringIO(), {"run": "r1", "tables": {"read": {}}}
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter(lambda: said))
    log = logging.Logger("shown")
    log.addHandler(handler)
    log.warning("sample %s", "a\x1b[31m\nb")
    said["tables"] = {"read": {"samples": 3}}
    try:
        raise ValueError("at postgresql://me:hunter22@host/db")
    except ValueError:
        log.exception("job failed")
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert {name: first[name] for name in ("level", "message", "run", "tables")} == {
        "level": "WARNING",
        "message": "sample a\x1b[31m\nb",
        "run": "r1",
        "tables": {"read": {}},
    }
    assert datetime.fromisoformat(first["time"]).utcoffset() == timedelta(0)
    assert second["tables"] == {"read": {"samples": 3}} and "ValueError: at postgresql" in second["exception"]
    assert "hunter22" not in stream.getvalue() and "\x1b" not in stream.getvalue()


@pytest.mark.parametrize("write", [content.escape, lambda text: content.table([[text]], ["x"])])
def test_pages_and_tables_hold_no_such_character(write) -> None:
    shown = write("a<b\x1b[31m\u202e")
    assert "\x1b" not in shown and "\u202e" not in shown and "[31m" in shown
