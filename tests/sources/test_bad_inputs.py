"""Every reader, as the sources call it, refuses what it cannot store in one line: with the file, its line where it has
lines, what was found and what was expected."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from genodl_spark import sources
from genodl_spark.core.errors import InputError
from genodl_spark.formats import streams
from genodl_spark.job import config
from genodl_spark.job.run import Report
from genodl_spark.sources import cells, labelled
from genodl_spark.sources.engine import Brought, Piece, SourceFile
from genodl_spark.sources.matrices import MatrixKind
from genodl_spark.sources.protocol import RecordSource
from tests.sources.bad_inputs import CASES


def read_whole(name: str, given: Path) -> None:
    """What `ingest` does of a command before it commits, without a lake."""
    settings = config.load()
    run: Any = SimpleNamespace(settings=settings, report=Report("ingest"))
    kind = sources.load(name)
    uris = [path.as_uri() for path in sorted(given.iterdir())] if given.is_dir() else [given.as_uri()]
    headers = kind.together(run, {uri: kind.header(uri, settings) for uri in uris}, None)
    for uri, header in headers.items():
        kind.beside(uri)
        piece = Piece(uri, uri.rpartition("/")[2], streams.whole(uri))
        brought = Brought()
        for rows, bad in _read(kind, piece, header):
            brought.rows += rows
            if bad and brought.first_bad is None:
                brought.first_bad = bad[0]
            brought.quarantined += len(bad)
        file = SourceFile(uri, piece.name, "", 1)
        if isinstance(kind, RecordSource):
            kind.check_brought(run, "c", [file], {piece.name: brought})
        elif isinstance(kind, labelled.LabelledKind):
            labelled._check(run, "c", kind, {file: header}, "", None, {piece.name: brought})


def _read(kind: Any, piece: Piece, header: Any) -> Iterator[tuple[int, list[tuple[int, str]]]]:
    """Rows stored, and records set aside, of a file."""
    none: Any = lambda *_: None  # noqa: E731
    if isinstance(kind, MatrixKind):
        yield from ((len(run.samples), []) for run in header.runs(piece.uri, 8))
        return
    if isinstance(kind, cells.Source):
        found = cells._CellReader("c", "", {piece.uri: header}, "", "", "", kind.name).batches(piece, none)
    elif isinstance(kind, RecordSource):
        found = kind.read(piece, header, "c", none)
    elif isinstance(kind, labelled.LabelledKind):
        found = kind.read(piece, header, "c", None, none)
    else:
        return  # alignments, genotypes and sample tables: their headers are all that is looked at before a commit
    for rows, *_, bad in found:
        yield rows.num_rows, list(zip(bad.column("line").to_pylist(), bad.column("reason").to_pylist(), strict=True))


def test_every_kind_of_source_has_bad_inputs() -> None:
    counts = Counter(source for source, *_ in CASES.values())
    assert set(counts) == set(sources.kinds()) and min(counts.values()) >= 2 and len(CASES) >= 40


@pytest.mark.parametrize("case", CASES)
def test_a_bad_input_is_refused_in_one_line_with_its_place(tmp_path: Path, case: str) -> None:
    source, make, place, words = CASES[case]
    given = make(tmp_path)
    with pytest.raises(InputError) as caught:
        read_whole(source, given)
    line = str(caught.value)
    assert "\n" not in line and words in line and "; expected " in line, line
    assert re.search(rf"/{re.escape(place)}: ", line), line
