"""Series matrices of GEO: `!Series_` and `!Sample_` lines, then one table of features x samples between
`!series_matrix_table_begin` and `!series_matrix_table_end`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from genodl_spark.core import storage
from genodl_spark.core.errors import InputError
from genodl_spark.core.text_values import known, shown
from genodl_spark.formats import delimited
from genodl_spark.formats.delimited import Unreadable
from genodl_spark.formats.matrix import Header, MatrixFile, Samples, header_of, in_runs, rows_of
from genodl_spark.formats.sample_table import SampleTable, column_names
from genodl_spark.formats.streams import line_blocks

BEGIN, END = b"!series_matrix_table_begin", b"!series_matrix_table_end"
_TAG = re.compile(rb"!(series|sample)_", re.IGNORECASE)
# Who handed a sample in, and how it was worked on, is the same text for all.
_LEFT = re.compile(r"(contact_|.*_protocol|data_processing|supplementary_file|status|.*_date$|data_row_count)", re.I)


@dataclass(frozen=True)
class GeoSeries(MatrixFile):
    """`above`: lines up to the table's header; `table`: that header; `tail`: tabs behind its last cell."""

    samples: list[str]
    above: int
    tail: int
    table: Header
    columns: SampleTable | None

    odd = False

    def described(self) -> str:
        return "GEO series matrix"

    def runs(self, uri: str, size: int) -> Iterator[Samples]:
        with storage.open_input(uri) as raw:
            rows = self._rows(line_blocks(raw, uri), uri)
            if self.tail:
                ends = re.compile(rb"\t{%d}(?=\n)" % self.tail)
                rows = ((first, ends.sub(b"", block)) for first, block in rows)
            yield from in_runs(rows_of(rows, self.table, uri), self.samples, size, uri)

    def _rows(self, blocks: Iterable[tuple[int, bytes]], uri: str) -> Iterator[tuple[int, bytes]]:
        """Blocks of the table alone. InputError where it has no end, no row, or another one follows."""
        ended = rows = 0
        number = 1
        for first, block in blocks:
            number = first + block.count(b"\n")
            while first <= self.above and block:
                block, first = block.partition(b"\n")[2], first + 1
            at = 0
            for tag in re.finditer(rb"(?m)^!.*$", block):
                line = first + block.count(b"\n", 0, tag.start())
                said = tag.group().strip().lower()
                if said == BEGIN:
                    raise InputError("found a second table; expected one, put each into a file of its own", uri, line)
                if said == END and not ended:
                    ended = line
                    rows += block.count(b"\n", at, tag.start())
                    yield first, block[: tag.start()]
                    at = tag.end() + 1
                elif not ended:
                    raise InputError(
                        f"found {shown(said.decode('utf-8', 'replace'))} in the table; expected rows", uri, line
                    )
            if not ended:
                rows += block.count(b"\n")
                yield first, block
            elif block[at:].strip() and not block[at:].lstrip().startswith(b"!"):
                raise InputError("found text behind the table's end; expected none", uri, ended + 1)
        if not ended:
            found = f"found no {END.decode()} up to the file's end"
            raise InputError(f"{found}; expected it behind the table: fetch the file again", uri, number)
        if not rows:
            raise InputError(
                "found a table without a row; expected values: series of sequencing have theirs in supplementary files",
                uri,
                ended,
            )


def recognised(head: list[bytes]) -> bool:
    return next((bool(_TAG.match(line)) for line in head if line.strip()), False)


def read_header(uri: str) -> GeoSeries:
    """The lines of a series before its table's rows. InputError where no table begins, or samples of tags and of the
    table differ."""
    tags: list[tuple[str, list[str], int]] = []
    with storage.open_input(uri) as raw:
        lines = (
            (number, line)
            for first, block in line_blocks(raw, uri)
            for number, line in enumerate(block.split(b"\n")[:-1], first)
        )
        number = 0
        for number, line in lines:
            said = line.strip()
            if said.lower() == BEGIN:
                break
            if not said:
                continue
            if not said.startswith(b"!"):
                raise InputError(
                    f"found a line without a tag before {BEGIN.decode()}; expected tags up to it, mend the file",
                    uri,
                    number,
                )
            try:
                name, *cells = delimited.cells(line.rstrip(b"\t"), "\t")
            except Unreadable as error:
                raise InputError(str(error), uri, number) from error
            tags.append((name.strip(), cells, number))
        else:
            found = f"found no {BEGIN.decode()}"
            raise InputError(f"{found}; expected it before the table of values: fetch the file again", uri, number or 1)
        number, head = next(((at, line) for at, line in lines if line.strip()), (number, b""))
    if not head or head.strip().lower() == END:
        raise InputError("found no header in the table; expected ID_REF and samples", uri, number)
    table = header_of(head.rstrip(b"\t"), None, uri, number)
    if table.corner.strip().upper() != "ID_REF":
        raise InputError(
            f"found {shown(table.corner)} above the first column; expected ID_REF, and samples behind it", uri, number
        )
    tail = len(head) - len(head.rstrip(b"\t"))
    return GeoSeries(table.samples, number, tail, table, _columns(tags, table.samples, uri))


def _columns(tags: list[tuple[str, list[str], int]], samples: list[str], uri: str) -> SampleTable | None:
    """What `!Sample_` lines say of each sample; those of one tag that do not differ in name are told apart."""
    own = [(name[len("!sample_") :], cells, line) for name, cells, line in tags if name.lower().startswith("!sample_")]
    if not own:
        return None
    order = next((cells for name, cells, _ in own if name.lower() == "geo_accession"), None)
    if order is None:
        raise InputError(
            "found !Sample_ lines without !Sample_geo_accession; expected it, as it says whose the others are",
            uri,
            own[0][2],
        )
    if sorted(order) != sorted(samples):
        differing = sorted(set(order) ^ set(samples)) or ["one twice"]
        raise InputError(
            f"found {len(order)} samples in !Sample_geo_accession and {len(samples)} in the table, {differing[0]} the "
            "first that differs; expected the same: fetch the file again",
            uri,
            next(line for name, _, line in own if name.lower() == "geo_accession"),
        )
    said: list[dict[str, list[str]]] = [{} for _ in order]
    for name, cells, line in own:
        if len(cells) != len(order):
            raise InputError(f"found {len(cells)} cells; expected {len(order)}, one for each sample", uri, line)
        for values, cell in zip(said, cells, strict=True):
            add(values, name, cell)
    return table_of(dict(zip(order, said, strict=True)), samples)


def add(values: dict[str, list[str]], tag: str, cell: str) -> None:
    """Takes what a tag says of a sample: of characteristics, which are `key: value`, by their key."""
    if _LEFT.match(tag) or not cell.strip():
        return
    key, parted, value = cell.partition(":")
    if tag.lower().startswith("characteristics") and parted and 0 < len(key.strip()) <= 60:
        tag, cell = key.strip(), value
    values.setdefault(tag, []).append(cell.strip())


def table_of(said: dict[str, dict[str, list[str]]], samples: list[str]) -> SampleTable:
    """Rows of what was said of samples. Several values of one tag stand with semicolons between them; tags that
    differ in case alone are one."""
    folded: dict[str, str] = {}
    for values in said.values():
        for name in values:
            folded.setdefault(name.lower(), name)
    stored = column_names(folded.values())
    rows: dict[str, list[str | None]] = {}
    for sample in samples:
        own: dict[str, list[str]] = {}
        for name, texts in said.get(sample, {}).items():
            own.setdefault(name.lower(), []).extend(texts)
        rows[sample] = [known("; ".join(dict.fromkeys(own.get(name, [])))) for name in folded]
    return SampleTable(list(stored.values()), rows, {})
