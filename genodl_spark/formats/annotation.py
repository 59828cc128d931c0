"""Annotations of genomes, GTF, GFF3 and BED, to rows of `annotations` in Arrow batches.

Which of the three a file is shows in its first line that is no comment. Lines go through NumPy a block at a time: the
places of tabs, quotes and semicolons cut the block's bytes into columns, keys and values, without a Python object for a
line. Features of GTF say which gene and transcript they belong to; those of GFF3 name a parent, perhaps before it
comes, so that such a file is read twice, first for its genes and transcripts.

GTF and GFF3 count from 1 with both ends, BED from 0 without the last base; rows are 1-based and closed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genodl_spark.core import packing, storage
from genodl_spark.core.errors import InputError
from genodl_spark.core.text_values import shown
from genodl_spark.formats import streams
from genodl_spark.formats.streams import Note, Split
from genodl_spark.genome.contigs import shared_contig
from genodl_spark.lake.tables.genomes import ANNOTATIONS

FILE_NAME = re.compile(r"\.(gtf|gff3?|bed)(\.b?gz)?$", re.IGNORECASE)
GTF, GFF3, BED = "GTF", "GFF3", "BED"
_TAB, _NEWLINE, _BLANK, _QUOTE, _COMMENT, _SEMICOLON, _EQUALS = (ord(c) for c in '\t\n "#;=')
_COLUMNS = 9
_BED_COLUMNS = (
    "chrom", "start", "end", "name", "score", "strand", "thickStart", "thickEnd", "itemRgb", "blockCount",
    "blockSizes", "blockStarts",
)  # fmt: skip
_BED_HEADINGS = (b"track", b"browser")
_NAMES = {"5utr": "five_prime_utr", "3utr": "three_prime_utr"}
# What a transcript consists of: no such feature is a transcript itself.
_PARTS = re.compile(r"(?:exon|cds|intron|polypeptide|start_codon|stop_codon|selenocysteine|.*utr)", re.IGNORECASE)
_GENE = re.compile(r".*gene", re.IGNORECASE)
# Accessions whose suffix is a version (Ensembl, Havana, RefSeq, UCSC). Elsewhere one may tell isoforms apart:
# AT1G01010.1 and AT1G01010.2, or genes that an assembler has numbered: MSTRG.1.
_VERSIONED = re.compile(
    r"((?:ENS[A-Z]*[EGPRT]|OTT[A-Z]{3}[EGPT])[0-9]{11}|[ANXWY][CGMPRTWZ]_[0-9]+|uc[0-9]{3}[a-z]{3})"
    r"\.([0-9]+(?:_[0-9]+)?)(_PAR_Y)?"
)
_GFF_PREFIX = re.compile(r"(?:gene|transcript|rna|CDS|exon)[:-](?=.)")
_NUMBER = r"^[0-9]{1,15}$"
_FLOAT = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"


def header_of(uri: str) -> str:
    """Which format a file has: GTF, GFF3 or BED, by its first line that is no comment.
    InputError for a file without one, or with one that is none of these."""
    with storage.open_input(uri) as raw:
        for number, block in streams.line_blocks(raw, uri):
            for line, text in enumerate(block.split(b"\n")[:-1], number):
                if text.strip() and not text.startswith((b"#", *_BED_HEADINGS)):
                    return _form(text.rstrip(), uri, line)
    raise InputError("found no feature in the file; expected lines of GTF, GFF3 or BED", uri)


def _form(line: bytes, uri: str, number: int) -> str:
    cells = line.split(b"\t")
    if len(cells) == _COLUMNS and cells[3].isdigit() and cells[4].isdigit():
        if re.match(rb"\s*[^\s=;\"]+\s*=", cells[8]):
            return GFF3
        if re.match(rb"\s*[^\s=;]+ +\S", cells[8]):
            return GTF
        found = f"attributes {shown(cells[8].decode('utf-8', 'replace'))}"
        raise InputError(f'found {found}; expected key "value"; as in GTF, or key=value; as in GFF3', uri, number)
    if len(cells) >= 3 and cells[1].isdigit() and cells[2].isdigit():
        return BED
    found = f"{len(cells)} columns between tabs, {shown(line[:80].decode('utf-8', 'replace'))}"
    raise InputError(
        f"found {found}; expected the 9 columns of GTF or GFF3, or 3 to 12 of BED, a start and an end among them",
        uri,
        number,
    )


Refused = list[tuple[int, str, str]]  # of lines: number, what was found and expected, text


def read(
    uri: str, split: Split, first: int, form: str, cohort: str, file: str, note: Note = lambda line, what: None
) -> Iterator[tuple[pa.RecordBatch, Refused]]:
    """Rows of `annotations` for a piece of a file, block by block, and the lines that are not stored.
    A GFF3 is one piece.

    These are lines of another number of columns, without contig, type or (GTF) gene_id, with an interval that has no
    base, or a strand, phase, score or attributes that are none; comments and blank lines are passed over.
    `first`: number of its first line, from 1. InputError for a compressed stream that is not whole.
    """
    graph = _graph(uri, split, first) if form == GFF3 else None
    for number, block in _until_sequences(streams.numbered_blocks(uri, split, first), form):
        yield parse(block, number, form, cohort, file, graph, note)


def _until_sequences(blocks: Iterator[tuple[int, bytes]], form: str) -> Iterator[tuple[int, bytes]]:
    """The blocks of a GFF3 before the sequences that may follow its features."""
    for number, block in blocks:
        end = re.search(rb"^(##FASTA|>)", block, re.MULTILINE) if form == GFF3 else None
        yield number, block if end is None else block[: end.start()]
        if end is not None:
            return


def parse(
    block: bytes,
    number: int,
    form: str,
    cohort: str,
    file: str,
    graph: Graph | None = None,
    note: Note = lambda line, what: None,
) -> tuple[pa.RecordBatch, Refused]:
    """One block of whole lines, of which `number` is the first, as `read` gives it.
    `graph`: genes and transcripts of the whole GFF3."""
    lines = _Lines.of(block, form)
    if form == BED:
        columns = _bed(lines)
    else:
        columns = _features(lines, _attributes(lines, 8, form), form, graph, lambda row, what: note(number + row, what))
    columns["cohort"], columns["file"] = (
        pa.repeat(pa.scalar(v, pa.string()), len(columns["line"])) for v in (cohort, file)
    )
    columns["contig"] = _mapped(columns["chrom"], shared_contig)
    columns["line"] = pa.array(columns["line"].to_numpy() + number, pa.int64())
    arrays = [
        columns[f.name].cast(f.type) if f.name in columns else pa.nulls(len(columns["line"]), f.type)
        for f in ANNOTATIONS.arrow_schema()
    ]
    texts = block.split(b"\n") if lines.bad else []
    bad = [(number + row, why, texts[row].decode("utf-8", "replace")) for row, why in sorted(lines.bad.items())]
    return pa.RecordBatch.from_arrays(arrays, schema=ANNOTATIONS.arrow_schema()), bad


@dataclass
class _Lines:
    """Lines of a block that are no comments: `numbers` from 0, and where their columns start and end in its bytes,
    int64 (lines, columns). `bad`: what is wrong with others, by number."""

    data: np.ndarray
    numbers: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    bad: dict[int, str] = field(default_factory=dict)

    @classmethod
    def of(cls, block: bytes, form: str) -> _Lines:
        """All lines with the columns of a GTF or GFF3, or as many as the BED's first line has."""
        data = np.frombuffer(block, np.uint8)
        ends = np.flatnonzero(data == _NEWLINE)
        starts = np.concatenate([[0], ends[:-1] + 1]) if len(ends) else ends
        head = data[np.minimum(starts, len(data) - 1)] if len(data) else data
        numbers = np.flatnonzero((ends > starts) & (head != _COMMENT))
        if form == BED:
            numbers = np.array([i for i in numbers if not block.startswith(_BED_HEADINGS, starts[i])], np.int64)
        starts, ends = starts[numbers], ends[numbers]
        tabs = np.flatnonzero(data == _TAB)
        at = np.searchsorted(tabs, starts)
        counts = np.searchsorted(tabs, ends) - at
        width = _COLUMNS if form != BED else min(int(counts[0]) + 1, len(_BED_COLUMNS)) if len(counts) else 3
        bad: dict[int, str] = {}
        kept = counts == width - 1
        for i in np.flatnonzero(~kept):
            text = block[starts[i] : ends[i]]
            if not text.strip():
                continue
            whole = text.rstrip(b"\t ")
            if whole.count(b"\t") == width - 1:  # tabs behind the last column say nothing
                kept[i], ends[i] = True, starts[i] + len(whole)
                continue
            bad[int(numbers[i])] = f"found {text.count(_TAB) + 1} columns between tabs; expected {width}"
        try:
            block.decode("utf-8")
        except UnicodeDecodeError:
            for i in np.flatnonzero(kept):
                try:
                    block[starts[i] : ends[i]].decode("utf-8")
                except UnicodeDecodeError:
                    kept[i], bad[int(numbers[i])] = False, "found bytes that are not UTF-8; expected UTF-8 text"
        numbers, starts, ends, at = numbers[kept], starts[kept], ends[kept], at[kept]
        cuts = (
            tabs[at[:, None] + np.arange(width - 1)].reshape(len(at), width - 1)
            if len(at)
            else np.empty((0, width - 1), np.int64)
        )
        return cls(data, numbers, np.c_[starts, cuts + 1], np.c_[cuts, ends], bad)

    def __len__(self) -> int:
        return len(self.numbers)

    def column(self, i: int) -> pa.StringArray:
        return _texts(self.data, self.starts[:, i], self.ends[:, i])

    def refuse(self, wrong: np.ndarray, says: Callable[[int], str]) -> None:
        """Notes of rows, bool (lines,), what `says` has of each, unless something was wrong with it before."""
        for row in np.flatnonzero(wrong):
            self.bad.setdefault(int(self.numbers[row]), says(int(row)))

    def good(self) -> np.ndarray:
        return ~np.isin(self.numbers, list(self.bad))


def _texts(data: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> pa.StringArray:
    """Runs of bytes as an Arrow array of text."""
    sizes = ends - starts
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(data[packing.runs(starts, sizes)])]
    return pa.StringArray.from_buffers(len(sizes), buffers[1], buffers[2])


def _mapped(texts: pa.Array, change: Callable[[str], str | None]) -> pa.Array:
    """Texts changed by a function of each different one."""
    coded = texts.dictionary_encode()
    return pa.array([change(text) for text in coded.dictionary.to_pylist()], pa.string()).take(coded.indices)


def _matches(texts: pa.Array, pattern: str) -> np.ndarray:
    return pc.match_substring_regex(texts, pattern).to_numpy(zero_copy_only=False).astype(bool)


def _or_null(texts: pa.Array, known: np.ndarray) -> pa.Array:
    return pc.if_else(pa.array(known), texts, pa.scalar(None, pa.string()))


@dataclass(frozen=True)
class _Attributes:
    """Attributes of rows: each key once in a row, with its values, in the order of the rows.
    `rows`, `keys` int64 (pairs,), keys into `names`."""

    count: int
    rows: np.ndarray
    keys: np.ndarray
    names: list[str]
    values: pa.StringArray

    def of(self, *names: str) -> pa.Array:
        """Values of the first of some keys that a row has and that is not empty; NULL without."""
        at = np.full(self.count, -1)
        for name in reversed(names):
            if name in self.names:
                pairs = np.flatnonzero(self.keys == self.names.index(name))
                at[self.rows[pairs]] = pairs
        found = self.values.take(pa.array(np.maximum(at, 0), mask=at < 0))
        return _or_null(found, np.asarray(pc.fill_null(pc.not_equal(found, ""), False)))

    def as_map(self) -> pa.MapArray:
        ends = np.concatenate([[0], np.cumsum(np.bincount(self.rows, minlength=self.count))]).astype(np.int32)
        keys = pa.array(self.names, pa.string()).take(pa.array(self.keys))
        return pa.MapArray.from_arrays(pa.array(ends), keys, self.values)


def _attributes(lines: _Lines, column: int, form: str) -> _Attributes:
    """The attributes of every line; what is wrong with them goes to its `bad`."""
    starts, sizes = lines.starts[:, column], lines.ends[:, column] - lines.starts[:, column]
    text = lines.data[packing.runs(starts, sizes)]
    ends = np.cumsum(sizes)
    starts = ends - sizes
    row_of = np.repeat(np.arange(len(lines)), sizes)
    cuts = text == _SEMICOLON
    if form == GTF:
        quotes = np.concatenate([[0], np.cumsum(text == _QUOTE)])
        lines.refuse(
            (quotes[ends] - quotes[starts]) % 2 == 1, lambda row: "found quotes that do not end in the attributes"
        )
        cuts &= (quotes[1:] - quotes[starts][row_of]) % 2 == 0
    at = np.flatnonzero(cuts)
    first = np.sort(np.concatenate([starts, at + 1]))
    last = np.sort(np.concatenate([at, ends]))
    row = np.searchsorted(ends, last, "left")
    full = np.flatnonzero(text != _BLANK)
    first = np.append(full, len(text))[np.searchsorted(full, first)]
    last = np.append(-1, full)[np.searchsorted(full, last)] + 1
    kept = first < last
    first, last, row = first[kept], last[kept], row[kept]
    if form == GTF and len(first):
        # What stands behind # after the attributes is a comment.
        comments = np.flatnonzero(text[first] == _COMMENT)
        begins = np.full(len(lines), len(first))
        np.minimum.at(begins, row[comments], comments)
        kept = np.arange(len(first)) < begins[row]
        first, last, row = first[kept], last[kept], row[kept]
    marks = np.flatnonzero(text == (_EQUALS if form == GFF3 else _BLANK))
    middle = np.append(marks, len(text))[np.searchsorted(marks, first)]
    alone = middle >= last
    if alone.any():
        of = {int(r): bytes(text[a:b]).decode() for r, a, b in zip(row[alone], first[alone], last[alone], strict=True)}
        wrong = np.zeros(len(lines), bool)
        wrong[list(of)] = True
        lines.refuse(wrong, lambda r: f"found attribute {shown(of[r])} without a value; expected a key and a value")
        first, last, row, middle = first[~alone], last[~alone], row[~alone], middle[~alone]
    value = np.append(full, len(text))[np.searchsorted(full, middle + 1)]
    value = np.minimum(value, last)
    if form == GTF:
        quoted = (last - value >= 2) & (text[np.minimum(value, len(text) - 1)] == _QUOTE) & (text[last - 1] == _QUOTE)
        value, last = value + quoted, last - quoted
    keys = _texts(text, first, middle).dictionary_encode()
    values: pa.Array = _texts(text, value, last)
    if form == GFF3:
        values = _decoded(values)
    return _once(len(lines), row, keys, values)


def _once(count: int, rows: np.ndarray, keys: pa.DictionaryArray, values: pa.Array) -> _Attributes:
    """Pairs with those of one key in a row as one, their values joined by commas."""
    names, codes = keys.dictionary.to_pylist(), keys.indices.to_numpy().astype(np.int64)
    codes = rows * max(len(names), 1) + codes
    order = np.argsort(codes, kind="stable")
    codes = codes[order]
    new = np.flatnonzero(np.concatenate([[True], codes[1:] != codes[:-1]])) if len(codes) else codes
    values = values.take(pa.array(order))
    if len(new) < len(codes):
        lists = pa.ListArray.from_arrays(pa.array(np.append(new, len(codes)), pa.int32()), values)
        values = pc.binary_join(lists, ",")
    found = codes[new]
    return _Attributes(count, found // max(len(names), 1), found % max(len(names), 1), names, values)


def _decoded(values: pa.Array) -> pa.Array:
    """Percent codes of GFF3 as what they stand for, but for that of the comma, which parts values."""
    if not _matches(values, "%").any():
        return values
    return _mapped(values, lambda text: "%2C".join(unquote(part) for part in re.split("%2[Cc]", text)))


def _lists(values: pa.Array) -> pa.Array:
    """Texts with commas as lists."""
    parts = pc.split_pattern(values, ",")
    if not _matches(pc.fill_null(values, ""), "%2C").any():
        return parts
    return pa.array(
        [None if part is None else [one.replace("%2C", ",") for one in part] for part in parts.to_pylist()],
        pa.list_(pa.string()),
    )


def _without_version(names: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Identifiers without their versions, and these."""

    def cut(name: str | None) -> tuple[str | None, str | None]:
        match = None if name is None else _VERSIONED.fullmatch(name)
        return (name, None) if match is None else (match[1] + (match[3] or ""), match[2])

    return _mapped(names, lambda name: cut(name)[0]), _mapped(names, lambda name: cut(name)[1])


def _features(
    lines: _Lines, attributes: _Attributes, form: str, graph: Graph | None, note: Callable[[int, str], None]
) -> dict[str, pa.Array]:
    """Columns of the lines of a GTF or GFF3 with nothing wrong; `line` from 0."""
    chrom, source, type_, start, end, score, strand, phase = (lines.column(i) for i in range(8))
    if form == GFF3:
        chrom, source, type_ = _decoded(chrom), _decoded(source), _decoded(type_)
    _refuse_empty(lines, {"contig": chrom, "type": type_})
    start, end = _interval(lines, start, end, 1)
    numbers = {"score": (score, _FLOAT, "a number"), "phase": (phase, "^[012]$", "0, 1 or 2")}
    columns = {"chrom": chrom, "source": _or_null(source, ~_matches(source, r"^\.?$")), "start": start, "end": end}
    for name, (texts, pattern, expected) in numbers.items():
        columns[name] = _number(lines, name, texts, pattern, expected)
    lines.refuse(
        ~_matches(strand, r"^[-+.?]$"), lambda row: f"found strand {shown(strand[row].as_py())}; expected + - . or ?"
    )
    columns["strand"] = _or_null(strand, ~_matches(strand, r"^\.$"))
    columns["type"] = _mapped(type_, lambda name: _NAMES.get(name.lower(), name))
    found = {
        "gene_id": attributes.of("gene_id"),
        "gene_version": attributes.of("gene_version"),
        "transcript_id": attributes.of("transcript_id"),
        "transcript_version": attributes.of("transcript_version"),
        "gene_name": attributes.of("gene_name"),
        "gene_biotype": attributes.of("gene_biotype", "gene_type"),
        "transcript_biotype": attributes.of("transcript_biotype", "transcript_type"),
    }
    columns["protein_id"], columns["tags"] = attributes.of("protein_id"), _lists(attributes.of("tag"))
    place = attributes.of("exon_number", "rank")
    columns["exon_number"] = _or_null(place, _matches(pc.fill_null(place, ""), "^[0-9]{1,9}$")).cast(pa.int32())
    columns["attributes"] = attributes.as_map()
    columns["line"] = pa.array(lines.numbers)
    columns["part"] = pa.array(np.zeros(len(lines), np.int32))
    if graph is None:
        lacking = np.asarray(found["gene_id"].is_null())
        lines.refuse(lacking, lambda row: "found no gene_id; expected one in the attributes of every line of a GTF")
    else:
        columns["id"], columns["parents"] = attributes.of("ID"), _lists(attributes.of("Parent"))
    good = np.flatnonzero(lines.good())
    columns = {name: values.take(pa.array(good)) for name, values in columns.items()}
    found = {name: values.take(pa.array(good)) for name, values in found.items()}
    if graph is not None:
        columns, found = graph.completed(columns, found, note)
    for name in ("gene", "transcript"):
        stable, version = _without_version(found[f"{name}_id"])
        found[f"{name}_id"], found[f"{name}_version"] = stable, pc.coalesce(found[f"{name}_version"], version)
    return columns | found


def _refuse_empty(lines: _Lines, columns: Mapping[str, pa.Array]) -> None:
    for name, texts in columns.items():
        lines.refuse(_matches(texts, r"^\s*\.?\s*$"), lambda row, name=name: f"found no {name}; expected one")  # type: ignore[misc]


def _interval(lines: _Lines, start: pa.Array, end: pa.Array, first: int) -> tuple[pa.Array, pa.Array]:
    """First and last base, 1-based, of a format that counts from `first`."""
    known = _matches(start, _NUMBER) & _matches(end, _NUMBER)
    low, high = (np.asarray(pc.fill_null(_or_null(texts, known).cast(pa.int64()), 0)) for texts in (start, end))
    low = low + 1 - first
    expected = "a start of at least 1, not behind the end" if first else "a start before the end"
    lines.refuse(
        ~known | (low < 1) | (high < low),
        lambda row: f"found start {shown(start[row].as_py())} and end {shown(end[row].as_py())}; expected {expected}",
    )
    return pa.array(low), pa.array(high)


def _number(lines: _Lines, name: str, texts: pa.Array, pattern: str, expected: str) -> pa.Array:
    """A column of numbers as double, NULL where it has a point."""
    none, known = _matches(texts, r"^\.?$"), _matches(texts, pattern)
    lines.refuse(
        ~none & ~known, lambda row: f"found {name} {shown(texts[row].as_py())}; expected {expected}, or . for none"
    )
    return _or_null(texts, known).cast(pa.float64())


def _bed(lines: _Lines) -> dict[str, pa.Array]:
    """Columns of the lines of a BED with nothing wrong, a row more for each of their blocks; `line` from 0."""
    width = lines.starts.shape[1]
    named = {name: lines.column(i) for i, name in enumerate(_BED_COLUMNS[:width])}
    empty = pa.array([""] * len(lines), pa.string())
    chrom, name, strand = (named.get(key, empty) for key in ("chrom", "name", "strand"))
    _refuse_empty(lines, {"contig": chrom})
    start, end = _interval(lines, named["start"], named["end"], 0)
    score = _number(lines, "score", named.get("score", empty), _FLOAT, "a number")
    lines.refuse(
        ~_matches(strand, r"^[-+.]?$"), lambda row: f"found strand {shown(strand[row].as_py())}; expected + - or ."
    )
    blocks = [_blocks(lines, named, row) if width == len(_BED_COLUMNS) else [] for row in range(len(lines))]
    good = np.flatnonzero(lines.good())
    counts = np.array([1 + len(blocks[row]) for row in good], np.int64)
    rows = np.repeat(good, counts)
    part = packing.runs(np.zeros(len(good), np.int64), counts)
    whole = part == 0
    low, high = np.asarray(start)[rows], np.asarray(end)[rows]
    if not whole.all():
        inside = np.array([block for row in good for block in blocks[row]])
        low[~whole], high[~whole] = low[~whole] + inside[:, 0], low[~whole] + inside[:, 0] + inside[:, 1] - 1
    at, no_text = pa.array(rows), pa.scalar(None, pa.string())
    names = _or_null(name, ~_matches(name, r"^\.?$")).take(at)
    more = list(_BED_COLUMNS[6:width])
    keys = pa.array(more * len(rows), pa.string())
    values = pa.array([v for row in rows for v in (named[key][row].as_py() for key in more)], pa.string())
    return {
        "chrom": chrom.take(at),
        "type": pc.if_else(pa.array(whole), "region", "block"),
        "start": pa.array(low),
        "end": pa.array(high),
        "score": score.take(at),
        "strand": _or_null(strand, ~_matches(strand, r"^\.?$")).take(at),
        "id": pc.if_else(pa.array(whole), names, no_text),
        "parents": pc.if_else(pa.array(whole), pa.scalar(None, pa.list_(pa.string())), _lists(names)),
        "attributes": pa.MapArray.from_arrays(
            pa.array(np.arange(len(rows) + 1, dtype=np.int32) * len(more)), keys, values
        ),
        "line": pa.array(lines.numbers[rows]),
        "part": pa.array(part.astype(np.int32)),
    }


def _blocks(lines: _Lines, named: Mapping[str, pa.Array], row: int) -> list[tuple[int, int]]:
    """Start, from that of the line, and size of each block of a line of 12 columns."""
    count, sizes, starts = (named[key][row].as_py() for key in ("blockCount", "blockSizes", "blockStarts"))
    lists = [[int(text) for text in one.rstrip(",").split(",") if text.isdecimal()] for one in (starts, sizes)]
    span = int(named["end"][row].as_py() or 0) - int(named["start"][row].as_py() or 0) if lines.good()[row] else 0
    fits = count.isdecimal() and all(len(one) == int(count) for one in lists)
    if not fits or any(size < 1 or at + size > span for at, size in zip(*lists, strict=True)):
        found = f"{shown(count)} blocks with sizes {shown(sizes)} and starts {shown(starts)}"
        expected = "as many of each, within the interval"
        lines.bad.setdefault(int(lines.numbers[row]), f"found {found}; expected {expected}")
        return []
    return list(zip(*lists, strict=True))


_ASKED = (
    *("ID", "Parent", "gene_id", "transcript_id", "gene_name", "gene", "Name", "version", "gene_version"),
    *("transcript_version", "biotype", "gene_biotype", "gene_type", "transcript_biotype", "transcript_type"),
)
_GIVEN = (
    "gene_id",
    "transcript_id",
    "gene_name",
    "gene_biotype",
    "transcript_biotype",
    "gene_version",
    "transcript_version",
)


@dataclass(frozen=True)
class _Node:
    """A gene or transcript of a GFF3, or what else may be a parent; `says`: its attributes."""

    type: str
    parents: list[str]
    says: dict[str, str | None]


class Graph:
    """Genes and transcripts of a GFF3, by ID. `inner`: all that its features name as parents."""

    def __init__(self, nodes: dict[str, _Node], inner: set[str]) -> None:
        self._nodes, self._inner = nodes, inner
        self._known: dict[str, dict[str, str | None]] = {}

    def of(self, name: str) -> dict[str, str | None]:
        """What features below a node, or the node itself, are part of: values of `_GIVEN`, None where not known.

        The gene is the nearest of the node and its ancestors whose type ends in gene; the transcript the nearest
        that is neither a gene nor a part of a transcript.
        """
        found = self._known.get(name)
        if found is None:
            found = self._known[name] = dict.fromkeys(_GIVEN)
            path: list[str] = []
            at: str | None = name
            while at is not None and at in self._nodes and at not in path:
                path.append(at)
                at = next(iter(self._nodes[at].parents), None)
            gene = next((n for n in path if _GENE.fullmatch(self._nodes[n].type)), None)
            transcript = next(
                (
                    n
                    for n in path
                    if not _GENE.fullmatch(self._nodes[n].type) and not _PARTS.fullmatch(self._nodes[n].type)
                ),
                None,
            )
            for level, node in (("gene", gene), ("transcript", transcript)):
                if node is None:
                    continue
                says = self._nodes[node].says
                found[f"{level}_id"] = says.get(f"{level}_id") or _GFF_PREFIX.sub("", node, count=1)
                found[f"{level}_version"] = says.get(f"{level}_version") or says.get("version")
                found[f"{level}_biotype"] = (
                    says.get(f"{level}_biotype") or says.get(f"{level}_type") or says.get("biotype")
                )
                if level == "gene":
                    found["gene_name"] = says.get("gene_name") or says.get("gene") or says.get("Name")
        return found

    def completed(
        self, columns: dict[str, pa.Array], found: dict[str, pa.Array], note: Callable[[int, str], None]
    ) -> tuple[dict[str, pa.Array], dict[str, pa.Array]]:
        """Rows once for each parent, with what the file says of these where it says nothing of the row itself."""
        count = len(columns["line"])
        parents = columns["parents"]
        sizes = np.asarray(pc.fill_null(pc.list_value_length(parents), 0))
        rows = np.repeat(np.arange(count), np.maximum(sizes, 1))
        of = np.full(len(rows), None, object)
        of[np.repeat(sizes > 0, np.maximum(sizes, 1))] = pc.list_flatten(parents).to_pylist()
        part = packing.runs(np.zeros(count, np.int64), np.maximum(sizes, 1))
        at = pa.array(rows)
        columns = {name: values.take(at) for name, values in columns.items()}
        columns["part"] = pa.array(part.astype(np.int32))
        found = {name: values.take(at) for name, values in found.items()}
        # A gene or transcript is its own; of any other feature the parent says whose it is.
        ids = columns["id"].to_pylist()
        owner = [
            one
            if one is not None
            and one in self._nodes
            and (one in self._inner or parent is not None or _GENE.fullmatch(self._nodes[one].type))
            else parent
            for one, parent in zip(ids, of, strict=True)
        ]
        coded = pa.array(owner, pa.string()).dictionary_encode()
        names = coded.dictionary.to_pylist()
        for name in _GIVEN:
            theirs = pa.array([self.of(one)[name] for one in names], pa.string()).take(coded.indices)
            several = pa.array(np.repeat(sizes > 1, np.maximum(sizes, 1)))
            own = (
                pc.if_else(several, pa.scalar(None, pa.string()), found[name]) if "transcript" in name else found[name]
            )
            found[name] = pc.coalesce(own, theirs)
        lost = [i for i, parent in enumerate(of) if parent is not None and parent not in self._nodes]
        for i in lost:
            note(int(columns["line"][i].as_py()), "name a Parent that the file lacks")
        return columns, found


def _graph(uri: str, split: Split, first: int) -> Graph:
    nodes: dict[str, _Node] = {}
    inner: set[str] = set()
    for _, block in _until_sequences(streams.numbered_blocks(uri, split, first), GFF3):
        lines = _Lines.of(block, GFF3)
        attributes = _attributes(lines, 8, GFF3)
        types = _decoded(lines.column(2))
        rows = ~_matches(types, f"(?i)^{_PARTS.pattern}$") & np.asarray(attributes.of("ID").is_valid())
        at = pa.array(np.flatnonzero(rows))
        says = {name: attributes.of(name).take(at).to_pylist() for name in _ASKED}
        above = _lists(attributes.of("Parent"))
        inner |= set(pc.unique(pc.list_flatten(above)).to_pylist())
        parents = above.take(at).to_pylist()
        for i, (name, type_) in enumerate(zip(says["ID"], types.take(at).to_pylist(), strict=True)):
            if name not in nodes:
                nodes[name] = _Node(
                    type_, parents[i] or [], {key: column[i] for key, column in says.items() if column[i]}
                )
    return Graph(nodes, inner)
