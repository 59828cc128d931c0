"""Commands and SQL of README.md and docs/: those marked to be run are run, and every statement may be asked."""

from __future__ import annotations

import contextlib
import importlib
import io
import re
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from genodl_spark.core import session
from genodl_spark.core.errors import InputError
from genodl_spark.lake import statements
from genodl_spark.lake.tables import TABLES
from genodl_spark.registry.sql import FUNCTIONS
from tests.conftest import ONE_PROCESS
from tests.pages import Block, blocks, in_order, is_printed, pages, queries, verb

# Added to a command that the pages show: the store of MLflow takes ten seconds to make, and ranks as long to start.
_BESIDE = {"train": ["--set", "tracking.uri=off", *ONE_PROCESS]}


def printed(block: Block) -> str:
    """Standard output of a block's commands or Python, without run reports."""
    with contextlib.redirect_stdout(io.StringIO()) as captured:
        if block.language == "python":
            exec(compile(block.text, block.place, "exec"), {})
            return captured.getvalue()
        shown = ""
        for words in block.commands():
            asked = verb(words)
            assert asked is not None, words
            before = captured.tell()
            code = importlib.import_module(f"jobs.{asked[0]}").main(
                [*asked[1], *_BESIDE.get(asked[0], []), "--master", "local[2]"]
            )
            lines = captured.getvalue()[before:].splitlines(keepends=True)
            assert code == 0, (block.place, words, lines)
            shown += "".join(lines[:-1])
        return shown


def test_marked_blocks_run_and_print_what_the_pages_say(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "stop", lambda: None)
    monkeypatch.chdir(tmp_path)
    texts, shown, count = pages(), "", {"run": 0, "printed": 0, "file": 0}
    for block in (block for page in in_order(texts) for block in blocks(page, texts[page]) if block.mark):
        mark, _, name = block.mark.partition(": ")
        count[mark] += 1
        if mark == "file":
            Path(name).parent.mkdir(exist_ok=True)
            Path(name).write_text(block.text)
        elif mark == "run":
            shown = printed(block)
        else:
            assert is_printed(shown, block.text), f"{block.place}: {shown}"
    assert count["run"] >= 9 and count["printed"] >= 7 and count["file"] >= 2
    assert {path.name for path in tmp_path.iterdir()} >= {
        "LAKE",
        "people.vcf.gz",
        "people.samples.tsv",
        "part.vcf.gz",
        "part.vcf.gz.tbi",
    }


def test_every_statement_of_the_pages_may_be_asked(spark: SparkSession) -> None:
    jvm: Any = spark._jvm
    parser = spark._jsparkSession.sessionState().sqlParser()

    def relations(sql: str) -> frozenset[str]:
        return statements.judged(jvm, parser, sql, FUNCTIONS).relations

    texts = pages()
    found = queries(texts)
    assert len(found) >= 10
    made = [block.text for page, text in texts.items() for block in blocks(page, text) if block.mark.endswith(".py")]
    own = {name for text in made for name in re.findall(r"Table\(\s*\"(\w+)\"", text)}  # of a source that a page writes
    for place, sql in found:
        assert {name for name in relations(sql) if not name.startswith("predictions_")} <= {*TABLES, *own}, place
    with pytest.raises(InputError, match="found INSERT"):
        relations("INSERT INTO samples VALUES (1)")
