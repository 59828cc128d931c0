"""VCF 4.1 to 4.5 (4.0 is read as 4.1): header and records to Arrow batches of the `variants` table,
rule breakers to `quarantine`.

Sections are those of the VCF specification 4.3 unless a version is named. Coordinates are 1-based and closed,
2,147,483,647 at most, as BCF has them. A line that breaks the specification is set aside with its number and reason:
of records any, of the header those that records can be read without. Each record is judged alone:
order and repeats are not, since the table has no order and keys rows by line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genodl_spark.core import packing, storage
from genodl_spark.core.errors import InputError, Refused
from genodl_spark.formats import bgzf, streams
from genodl_spark.formats.streams import Note, Split, line_blocks
from genodl_spark.formats.vcf import bcf
from genodl_spark.formats.vcf.header import RESERVED_INFO, Field, Header, read_header
from genodl_spark.formats.vcf.normalise import Normalised, Normaliser, needs
from genodl_spark.formats.vcf.rules import Format, Record, Rules, value_count
from genodl_spark.genome.contigs import shared_contig
from genodl_spark.lake.tables.ingested import QUARANTINE, VARIANTS
from genodl_spark.native import kernels

SOURCE = "vcf"
FILE_NAME = re.compile(r"\.(g?vcf|bcf)(\.b?gz)?$", re.IGNORECASE)  # of a file taken from a directory
KEPT_TEXT = 4096
LONGEST_LINE = 1 << 27  # bytes, unless said otherwise: a record of a million samples has some 50 MB
# bytes of text that go through the kernels at a time: less costs more calls, more leaves the processor's cache
_BLOCK = 8 << 20
BIN_WIDTH = 1 << 26
VARIANTS_SCHEMA, QUARANTINE_SCHEMA = VARIANTS.arrow_schema(), QUARANTINE.arrow_schema()


_COLUMNS_LINE = re.compile(rb"#CHROM|[^\t]*\tPOS\t", re.IGNORECASE)


@dataclass
class _Formats:
    """Distinct FORMATs as the kernels have them: where the keys of each start, int32 (F + 1,),
    type uint8 and number of values int32 of each key, and whether a FORMAT has GT, uint8 (F,)."""

    offsets: np.ndarray
    types: np.ndarray
    counts: np.ndarray
    has_gt: np.ndarray


_TYPES = {"Integer": 1, "Float": 2, "Character": 3}  # as the kernels have them; 0 is text
_JUDGE, _FLAG, _ANY, _PER = 5, 4, -1, {"A": -2, "R": -3, "G": -4}
_STRIDE = 11
_Bad = tuple[int, str, bytes]  # line, reason, text


class _Keys:
    """INFO keys that the header or the specification types, in the form that the kernels take."""

    def __init__(self, header: Header) -> None:
        fields = {
            **header.info,
            **{key: reserved[0] for key, reserved in RESERVED_INFO.items() if key not in header.info},
        }
        names = [key.encode() for key in fields]
        self.n = len(names)
        self.names = np.frombuffer(b"".join(names) or b"\0", np.uint8)
        self.offsets = np.cumsum([0, *map(len, names)]).astype(np.int32)
        self.type = np.array([self._type(key, field) for key, field in fields.items()], np.uint8)
        self.natural = np.array([field.natural for field in fields.values()], np.uint8)
        self.count = np.array([self._count(field) for field in fields.values()], np.int32)

    @staticmethod
    def _type(key: str, field: Field) -> int:
        if field.type == "Flag":
            return _FLAG
        if field.values is not None and field.values != r"[^,]+":
            return _JUDGE
        return 0 if field.number == "." and key not in RESERVED_INFO else _TYPES.get(field.type, 0)

    @staticmethod
    def _count(field: Field) -> int:
        expected = value_count(field, 0)
        return _PER[field.number] if field.number in ("A", "R") else _ANY if expected is None else expected


class Reader:
    """Turns lines below one header into Arrow batches.

    The compiled kernels take what is surely right, which is nearly all of a file; the rules judge the rest,
    a record at a time. `bin_width`: bases per position bin. With a `normaliser` every record is first read as it is,
    so that what breaks the specification is found, then normalised. `note` is told of lines that are passed over.
    """

    def __init__(
        self,
        header: Header,
        cohort: str,
        file: str,
        bin_width: int = BIN_WIDTH,
        normaliser: Normaliser | None = None,
        note: Note = lambda line, what: None,
    ) -> None:
        self.header = header
        self.cohort = cohort
        self.file = file
        self.bin_width = bin_width
        self.normaliser = normaliser
        self._note = note
        self._header_lines = frozenset([*header.text.split("\n"), *(text for _, _, text in header.aside)])
        self._rules = Rules(header, cohort, file, bin_width)
        self._columns = self._rules.columns
        self._kinds = lru_cache(4096)(self._kinds_of)
        self._keys = _Keys(header)
        # that the kernels pack into; asking the system for it again costs more than the packing
        self._gt_room = np.empty(0, np.uint8)

    def batches(self, number: int, block: bytes, most: int) -> Iterator[tuple[pa.RecordBatch, pa.RecordBatch]]:
        """Records of a block of whole lines, the first of them line `number` of the file, `most` lines at a time:
        rows of `variants`, and of `quarantine`.

        Blank lines hold no record, nor do lines of the header that stand there again, as where files were joined.
        Every other line is in one of the two. InputError for another #CHROM line than the header's:
        whose calls stand below it cannot be told.
        """
        text = np.frombuffer(block, np.uint8)
        assert len(text) < 2**31 - 1  # the kernels' places are int32; `line_blocks` gives far smaller blocks
        # a column and its separator take two bytes at least, but on blank lines
        room = max(1, min(most, len(text) // (2 * self._columns) + 1))
        starts, flags = np.empty((room, _STRIDE), np.int32), np.empty(room, np.uint8)
        at = 0
        while at < len(text):
            piece = text[at:]
            found = kernels.call("lines", piece, len(piece), self._columns, room, starts, flags)
            rows, bad = self._records(number, piece, starts[:found], flags[:found])
            if self.normaliser is not None:
                rows, bad = self._normalised(number, piece, starts, rows, bad)
            yield rows, self._set_aside(sorted(bad))
            number += found
            at += int(starts[found - 1, -1]) + 1

    def _records(
        self, number: int, text: np.ndarray, starts: np.ndarray, flags: np.ndarray
    ) -> tuple[pa.RecordBatch, list[_Bad]]:
        certain = self._certain(number, text, starts, flags)
        rest = [(number + i, text[starts[i, 0] : starts[i, -1]].tobytes()) for i in np.flatnonzero(flags == 1).tolist()]
        if not rest:
            return certain, []
        judged, bad = self._judged(rest)
        return _in_order([certain, _batch(judged, VARIANTS_SCHEMA)]), bad

    def _normalised(
        self, number: int, text: np.ndarray, starts: np.ndarray, rows: pa.RecordBatch, bad: list[_Bad]
    ) -> tuple[pa.RecordBatch, list[_Bad]]:
        """The records of `rows` normalised, each that changes replaced by what it becomes,
        with its source beside it."""
        assert self.normaliser is not None
        kept = np.ones(rows.num_rows, bool)
        changed: list[Normalised] = []
        lines: list[int] = []
        for row, line in enumerate(rows.column("line").to_pylist()):
            columns = starts[line - number]
            ref, alt = (text[columns[k] : columns[k + 1] - 1].tobytes() for k in (3, 4))
            certain = not needs(ref, alt)
            if certain and self.normaliser.reference is None:
                continue
            record = text[columns[0] : columns[-1]].tobytes()
            try:
                if certain:
                    self.normaliser.check_reference(record)
                    continue
                pieces = self.normaliser.lines(record)
            except Refused as refused:
                kept[row] = False
                bad.append((line, str(refused), record))
                continue
            if len(pieces) == 1 and pieces[0].text == record:
                continue
            kept[row] = False
            changed += pieces
            lines += [line] * len(pieces)
        if kept.all():
            return rows, bad
        whole = rows.filter(pa.array(kept))
        if not changed:
            return whole, bad
        block = np.frombuffer(b"\n".join(piece.text for piece in changed) + b"\n", np.uint8)
        places, flags = np.empty((len(changed), _STRIDE), np.int32), np.empty(len(changed), np.uint8)
        kernels.call("lines", block, len(block), self._columns, len(changed), places, flags)
        new, refused_rows = self._records(0, block, places, flags)
        bad += [(lines[i], reason, record) for i, reason, record in refused_rows]
        of = new.column("line").to_pylist()
        replaced = {
            "line": [lines[i] for i in of],
            "alt_number": [changed[i].alt_number for i in of],
            "source_pos": [changed[i].source_pos for i in of],
            "source_ref": [changed[i].source_ref for i in of],
            "source_alts": [changed[i].source_alts for i in of],
        }
        arrays = [
            pa.array(replaced[f.name], f.type) if f.name in replaced else new.column(f.name) for f in VARIANTS_SCHEMA
        ]
        return _in_order([whole, pa.RecordBatch.from_arrays(arrays, schema=VARIANTS_SCHEMA)]), bad

    def _certain(self, number: int, text: np.ndarray, starts: np.ndarray, flags: np.ndarray) -> pa.RecordBatch:
        """Rows of the records that the kernels are sure of; the others are flagged 1."""
        header, keys, records = self.header, self._keys, len(starts)
        samples = len(header.samples)
        pos, end = np.zeros(records, np.int64), np.zeros(records, np.int64)
        n_alts = np.zeros(records, np.int32)
        new_contig, new_format = np.zeros(records, np.uint8), np.zeros(records, np.uint8)
        key_arrays = (keys.names, keys.offsets, keys.type, keys.natural, keys.count, keys.n)
        kernels.call(
            "fixed",
            text,
            records,
            starts,
            flags,
            header.minor,
            *key_arrays,
            header.has_format,
            pos,
            end,
            n_alts,
            new_contig,
            new_format,
        )
        contig_run = np.cumsum(new_contig) - 1
        first = np.flatnonzero(new_contig)
        contigs = [text[starts[i, 0] : starts[i, 1] - 1].tobytes() for i in first.tolist()]
        known = np.array([self._known_contig(c) for c in contigs], bool)
        if not known.all():
            flags[(flags == 0) & ~known[np.maximum(contig_run, 0)]] = 1
        format_run = np.cumsum(new_format) - 1
        formats: list[bytes] = []
        gt = fields = None
        if header.has_format:
            first = np.flatnonzero(new_format)
            formats = [
                text[starts[i, 8] : min(int(starts[i, 9]) - 1, int(starts[i, 10]))].tobytes() for i in first.tolist()
            ]
            numbers, table = self._numbered_formats(formats)
            format_of = np.where(flags == 0, numbers[np.maximum(format_run, 0)] if len(numbers) else -1, -1).astype(
                np.int32
            )
            flags[(flags == 0) & (format_of < 0)] = 1
            if samples:
                gt, fields = self._sample_columns(text, starts, flags, n_alts, format_of, table)
        chosen = np.flatnonzero(flags == 0)
        sel = np.ascontiguousarray(starts[chosen])
        n = len(chosen)
        last = _STRIDE - 1 if not header.has_format else 8

        def column(k: int) -> pa.Array:
            stops = np.ascontiguousarray(sel[:, k + 1] - 1 if k + 1 != 8 or header.has_format else sel[:, last])
            out, offsets = np.empty(int((stops - sel[:, k]).sum()), np.uint8), np.empty(n + 1, np.int32)
            kernels.call("gather", text, n, np.ascontiguousarray(sel[:, k]), stops, 1, out, offsets)
            return packing.binary_array(out, offsets, type_=pa.string())

        def lists(k: int, separator: str) -> tuple[np.ndarray, pa.Array]:
            stops = np.ascontiguousarray(sel[:, k + 1] - 1)
            room = int((stops - sel[:, k]).sum())
            out, pieces, of = np.empty(room, np.uint8), np.empty(room + n + 1, np.int32), np.empty(n + 1, np.int32)
            found = kernels.call(
                "gather_lists", text, n, np.ascontiguousarray(sel[:, k]), stops, 1, ord(separator), out, pieces, of
            )
            return of, packing.binary_array(out, pieces[: found + 1], type_=pa.string())

        alts = pa.ListArray.from_arrays(*lists(4, ","))
        of, codes = lists(6, ";")
        filters = pa.Array.from_buffers(
            pa.list_(pa.string()),
            n,
            [pa.py_buffer(np.packbits(np.diff(of) > 0, bitorder="little")), pa.py_buffer(of)],
            children=[codes],
        )
        ids = column(2)
        qualities = column(5)
        missing = pc.equal(qualities, ".")
        names = pa.array([c.decode("ascii", "replace") for c in contigs], pa.string())
        shared = pa.array([shared_contig(c.decode("ascii", "replace")) for c in contigs], pa.string())
        run = pa.array(contig_run[chosen])
        columns = {
            "cohort": _constant(self.cohort, n, pa.string()),
            "contig": shared.take(run),
            "bin": pa.array((pos[chosen] // self.bin_width).astype(np.int32)),
            "chrom": names.take(run),
            "pos": pa.array(pos[chosen]),
            "end": pa.array(end[chosen]),
            "id": pc.if_else(pc.equal(ids, "."), pa.scalar(None, pa.string()), ids),
            "ref": column(3),
            "alts": alts,
            "qual": pc.cast(pc.if_else(missing, pa.scalar(None, pa.string()), qualities), pa.float64()),
            "filters": filters,
            "info": column(7),
            "n_samples": _constant(samples, n, pa.int32()),
            "sample_set": _constant(header.sample_set, n, pa.string()),
            "alt_number": _constant(0, n, pa.int32()),
            "file": _constant(self.file, n, pa.string()),
            "line": pa.array(number + chosen),
        }
        if header.has_format:
            columns["format"] = pa.array([f.decode("ascii", "replace") for f in formats], pa.string()).take(
                pa.array(format_run[chosen])
            )
        if gt is not None and fields is not None:
            if n < records:
                gt, fields = gt.take(pa.array(chosen)), fields.take(pa.array(chosen))
            columns["gt"], columns["fields"] = gt, fields
        return pa.RecordBatch.from_arrays(
            [columns.get(f.name, pa.nulls(n, f.type)) for f in VARIANTS_SCHEMA], schema=VARIANTS_SCHEMA
        )

    def _known_contig(self, name: bytes) -> bool:
        try:
            self._rules.contig(name.decode("ascii"))
        except (Refused, UnicodeDecodeError):
            return False
        return True

    def _numbered_formats(self, texts: list[bytes]) -> tuple[np.ndarray, _Formats | None]:
        """Of each FORMAT its number among the distinct ones that hold, int32, -1 for one that breaks a rule;
        and these, None where there are none."""
        numbers: dict[bytes, int] = {}
        kinds: list[tuple[list[tuple[int, int]], bool]] = []
        for text in texts:
            if text not in numbers:
                try:
                    kinds.append(self._kinds(text.decode("ascii")))
                    numbers[text] = len(kinds) - 1
                except (Refused, UnicodeDecodeError):
                    numbers[text] = -1
        of = np.array([numbers[text] for text in texts], np.int32)
        if not kinds:
            return of, None
        keys = np.array([kind for found, _ in kinds for kind in found], np.int32)
        offsets = np.cumsum([0, *(len(found) for found, _ in kinds)]).astype(np.int32)
        types, counts = keys[:, 0].astype(np.uint8), np.ascontiguousarray(keys[:, 1])
        return of, _Formats(offsets, types, counts, np.array([has_gt for _, has_gt in kinds], np.uint8))

    def _kinds_of(self, text: str) -> tuple[list[tuple[int, int]], bool]:
        """Type and number of each key of a FORMAT, and whether it has GT. Refused as for `_check_format`."""
        format_ = self._rules.format(text)
        return [
            self._kind(format_, key, field) for key, field in zip(format_.keys, format_.fields, strict=True)
        ], format_.has_gt

    def _kind(self, format_: Format, key: str, field: Field | None) -> tuple[int, int]:
        """Type and number of a FORMAT key as the kernels have them."""
        if field is None or key == "GT":
            return 0, _ANY
        if (key == "LEN" and self.header.minor >= 5) or (field.number == "P" and format_.has_gt):
            return _JUDGE, _ANY
        if field.number in ("A", "R") or (field.number == "G" and format_.has_gt):
            return _TYPES.get(field.type, 0), _PER[field.number]
        expected = value_count(field, 0)
        return _TYPES.get(field.type, 0), _ANY if expected is None else expected

    def _sample_columns(
        self,
        text: np.ndarray,
        starts: np.ndarray,
        flags: np.ndarray,
        n_alts: np.ndarray,
        format_of: np.ndarray,
        table: _Formats | None,
    ) -> tuple[pa.Array, pa.Array]:
        """Columns `gt` and `fields` of all records; flags those that the kernels are not sure of."""
        samples, records = len(self.header.samples), len(starts)
        if table is None:  # no record has a FORMAT that holds
            return pa.nulls(records, pa.binary()), pa.nulls(records, pa.binary())
        offsets, types, counts, has_gt = table.offsets, table.types, table.counts, table.has_gt
        room = records * (64 + 16 * samples)
        if len(self._gt_room) < room:
            self._gt_room = np.empty(room, np.uint8)
        gt, gt_offsets = self._gt_room, np.empty(records + 1, np.int32)
        kept = has_gt.min() == 0 or len(types) > len(has_gt)  # subfields other than GT, as text
        fields, field_offsets = (
            np.empty((len(text) + records if kept else 0) + samples + 1, np.uint8),
            np.empty(records + 1, np.int32),
        )
        kernels.call(
            *("samples", text, records, starts, flags, samples, self.header.minor >= 4, n_alts, format_of),
            *(offsets, types, counts, has_gt, gt, gt_offsets, fields, field_offsets),
        )
        of = np.maximum(format_of, 0)
        with_gt = (flags == 0) & has_gt[of].astype(bool)
        with_fields = (flags == 0) & ~(with_gt & (np.diff(offsets)[of] == 1))
        # The text is not copied: of the room that was asked for, only what was written takes memory.
        packed = packing.binary_array(gt[: gt_offsets[-1]].copy(), gt_offsets, with_gt)
        return packed, packing.binary_array(fields[: field_offsets[-1]], field_offsets, with_fields)

    def _judged(self, lines: list[tuple[int, bytes]]) -> tuple[list[dict[str, object]], list[_Bad]]:
        """Rows of `variants` by the rules, and (line, reason, text) of the records that break one."""
        records: list[Record] = []
        bad: list[_Bad] = []
        for number, line in lines:
            try:
                if line.startswith(b"#") or _COLUMNS_LINE.match(line):
                    self._meet_header_line(number, line)
                else:
                    records.append(self._rules.record(number, line))
            except Refused as refused:
                bad.append((number, str(refused), line))
        by_format: dict[int, list[Record]] = {}
        for record in records:
            by_format.setdefault(id(record.format), []).append(record)
        reasons: dict[int, str] = {}
        for group in by_format.values():
            if group[0].format is not None and self.header.samples:
                reasons.update(self._rules.genotypes(group, group[0].format))
        bad += [(record.line, reasons[record.line], record.text) for record in records if record.line in reasons]
        return [record.row for record in records if record.line not in reasons], sorted(bad)

    def _meet_header_line(self, number: int, line: bytes) -> None:
        if line.decode("utf-8", "replace") in self._header_lines:
            self._note(number, "are passed over, as they repeat a line of its header")
            return
        if _COLUMNS_LINE.match(line):
            found = "another #CHROM line than the header's, so that nobody knows whose the calls below it are"
            raise InputError(
                f"found {found}; expected records, give the parts that were joined here one by one", self.file, number
            )
        raise Refused("found a line of a header among the records; expected it above the #CHROM line")

    def of_header(self) -> pa.RecordBatch:
        """Rows of `quarantine` for the lines of the header that were set aside."""
        return self._set_aside([(line, reason, text.encode()) for line, reason, text in self.header.aside])

    def _set_aside(self, bad: list[_Bad]) -> pa.RecordBatch:
        rows: list[dict[str, object]] = [
            {
                "cohort": self.cohort,
                "source": SOURCE,
                "file": self.file,
                "line": line,
                "reason": reason,
                "text": text[: 4 * KEPT_TEXT].decode("utf-8", "replace")[:KEPT_TEXT],
            }
            for line, reason, text in bad
        ]
        return _batch(rows, QUARANTINE_SCHEMA)


def _batch(rows: list[dict[str, object]], schema: pa.Schema) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays(
        [pa.array([row.get(f.name) for row in rows], f.type) for f in schema], schema=schema
    )


def _in_order(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    """One batch of all rows, by line and number of the ALT."""
    rows = pa.Table.from_batches(batches).combine_chunks()
    order = np.lexsort([rows.column("alt_number").to_numpy(), rows.column("line").to_numpy()])
    found = rows.take(pa.array(order)).combine_chunks().to_batches()
    return found[0] if found else batches[0]


def _constant(value: object, n: int, type_: pa.DataType) -> pa.Array:
    return pa.repeat(pa.scalar(value, type_), n)


def read(
    raw: BinaryIO, uri: str, cohort: str, file: str, batch: int
) -> Iterator[tuple[pa.RecordBatch, pa.RecordBatch]]:
    """Batches of (`variants`, `quarantine`) rows of one VCF, each of at most `batch` records and one block
    of text (see `line_blocks`).

    InputError for a header that records cannot be read below, or a compressed stream that is not whole;
    what else breaks the specification, lines of the header first, is in the second batch.
    """
    header, blocks = read_header(line_blocks(raw, uri), uri)
    reader = Reader(header, cohort, file)
    if header.aside:
        yield _batch([], VARIANTS_SCHEMA), reader.of_header()
    for number, block in blocks:
        yield from reader.batches(number, block, batch)


def header_of(uri: str, strict: bool = False) -> Header:
    """The header of the VCF or BCF at `uri`. InputError as for `read_header`."""
    if _is_bcf(uri):
        return read_header(bcf.header_block(uri), uri, strict)[0]
    with storage.open_input(uri) as raw:
        return read_header(line_blocks(raw, uri), uri, strict)[0]


def _is_bcf(uri: str) -> bool:
    with storage.open_input(uri) as raw:
        return bcf.is_bcf(raw.read(bgzf.LARGEST))


def splits(uri: str, target: int) -> list[Split]:
    """The pieces of a VCF or BCF that tasks read on their own, of about `target` stored bytes; a BCF is one piece."""
    found = streams.splits(uri, target)
    return found if len(found) == 1 or not _is_bcf(uri) else [Split(0, found[-1].end)]


def split_lines(
    uri: str, split: Split, first: int, header: Header, longest: int = LONGEST_LINE
) -> Iterator[tuple[int, bytes]]:
    """(line number, block of whole lines) of a piece, without the header's;
    `first`: the number of its first line, from 1.

    InputError for a compressed stream that is not whole, with the last line read where the piece is the file;
    and for a line, or a record of BCF, of more than `longest` bytes.
    """
    if _is_bcf(uri):
        yield from read_header(bcf.line_blocks_of_bcf(uri, longest=longest), uri)[1]
        return
    if streams.splits(uri, split.end - split.start or 1) == [split]:
        with storage.open_input(uri) as raw:
            yield from read_header(line_blocks(raw, uri, _BLOCK, longest), uri)[1]
        return
    for block in streams.split_blocks(uri, split, _BLOCK, longest):
        skipped = min(max(0, header.lines + 1 - first), kernels.call("count_lines", block, len(block)))
        at = 0
        for _ in range(skipped):
            at = block.index(b"\n", at) + 1
        if at < len(block):
            yield first + skipped, block[at:] if at else block
        first += skipped + (kernels.call("count_lines", np.frombuffer(block, np.uint8)[at:], len(block) - at))
