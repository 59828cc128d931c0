"""VCF 4.1 to 4.5 (4.0 is read as 4.1): header and records to Arrow batches of the `variants` table, rule breakers to `quarantine`.

Sections are those of the VCF specification 4.3 unless a version is named. Coordinates are 1-based and closed, 2,147,483,647 at
most, as BCF has them. A line that breaks the specification is set aside with its number and reason: of records any, of the header
those that records can be read without. Each record is judged alone: order and repeats are not, since the table has no order
and keys rows by line.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import BinaryIO
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genodl_spark.core import packing, storage
from genodl_spark.core.errors import InputError, Refused
from genodl_spark.formats import bgzf, streams
from genodl_spark.formats.streams import Note, Split, line_blocks
from genodl_spark.formats.vcf import bcf
from genodl_spark.formats.vcf.header import RESERVED_FORMAT, RESERVED_INFO, Field, Header, control_in, read_header
from genodl_spark.formats.vcf.normalise import Normalised, Normaliser, needs
from genodl_spark.genetics import genotype_text, genotypes
from genodl_spark.genome.contigs import shared_contig
from genodl_spark.lake.tables import QUARANTINE, VARIANTS
from genodl_spark.native import kernels

SOURCE = "vcf"
FILE_NAME = re.compile(r"\.(g?vcf|bcf)(\.b?gz)?$", re.IGNORECASE)  # of a file taken from a directory
KEPT_TEXT = 4096
LONGEST_LINE = 1 << 27  # bytes, unless said otherwise: a record of a million samples has some 50 MB
_BLOCK = 8 << 20  # bytes of text that go through the kernels at a time: less costs more calls, more leaves the processor's cache
BIN_WIDTH = 1 << 26
VARIANTS_SCHEMA, QUARANTINE_SCHEMA = VARIANTS.arrow_schema(), QUARANTINE.arrow_schema()


_INTEGER = r"(?:[-+]?[0-9]+|\.)"
_FLOAT = r"(?:[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[-+]?(?i:nan|inf|infinity)|\.)"
# One character of UTF-8, as bytes and as text.
_BYTE_CHARACTER = r"(?:[\x21-\x2b\x2d-\x7e]|[\xc2-\xf4][\x80-\xbf]{1,3})"
_VALUE = {"Integer": _INTEGER, "Float": _FLOAT, "Character": r"[^,\s]"}
_BYTE_VALUE = {**_VALUE, "Character": _BYTE_CHARACTER}
_FLOAT_TEXT = re.compile(_FLOAT)
_CONTIG = re.compile(r"[0-9A-Za-z!#$%&+./:;?@^_|~-][0-9A-Za-z!#$%&*+./:;=?@^_|~-]*")
_BRACKETED = re.compile(r"<[^\s<>\x00-\x1f]+>")
_BASES = re.compile(r"[ACGTNacgtn]+")
_B, _P = r"(?:[ACGTNacgtn]+|\.)", r"(?:<[^\s<>,]+>|[^\s\[\]<>,]+):[0-9]+"
# Section 1.6.1 item 5 and section 5.4: bases, *, symbolic alleles (also after bases: an inserted contig), breakends, single breakends.
_ALT = re.compile(rf"[ACGTNacgtn]+|\*|[ACGTNacgtn]*<[^\s<>,]+>|{_B}\[{_P}\[|{_B}\]{_P}\]|\[{_P}\[{_B}|\]{_P}\]{_B}|\.[ACGTNacgtn]+|[ACGTNacgtn]+\.")
_SIZED = re.compile(r"<(?:DEL|DUP|INV|CNV)[:>]")
_KEY = re.compile(r"[A-Za-z_][0-9A-Za-z_.]*|1000G")
_WHOLE = re.compile(r"-?0*([0-9]+)")
_COLUMNS_LINE = re.compile(rb"#CHROM|[^\t]*\tPOS\t", re.IGNORECASE)
_LAST_BASE = (1 << 31) - 1


@lru_cache(4096)
def _alts(text: str) -> tuple[str, ...]:
    if text == ".":
        return ()
    alts = tuple(text.split(","))
    for alt in alts:
        if _ALT.fullmatch(alt) is None:
            raise Refused(f"found ALT {alt[:40]!r}; expected bases of ACGTN, *, <ID> or a breakend")
    return alts


@lru_cache(4096)
def _filters(text: str) -> tuple[str, ...] | None:
    if text == ".":
        return None
    codes = tuple(text.split(";"))
    for code in codes:
        if code in ("", ".", "0") or re.search(r"[\s,]", code):
            raise Refused(f"found FILTER {text[:40]!r}; expected PASS, . or codes with semicolons between, none of them 0 or empty")
    return codes


@lru_cache(4096)
def _values(type_: str, values: str | None) -> re.Pattern[str] | None:
    one = values if values is not None else _VALUE.get(type_)
    return None if one is None else re.compile(f"{one}(?:,{one})*")


@dataclass
class _Format:
    """A FORMAT column taken apart: its keys, and per key what it holds (None: not checked)."""

    keys: list[str]
    fields: list[Field | None]

    @property
    def has_gt(self) -> bool:
        return self.keys[0] == "GT"


@dataclass
class _Formats:
    """Distinct FORMATs as the kernels have them: where the keys of each start, int32 (F + 1,), type uint8 and number of values int32 of
    each key, and whether a FORMAT has GT, uint8 (F,)."""

    offsets: np.ndarray
    types: np.ndarray
    counts: np.ndarray
    has_gt: np.ndarray


@dataclass
class _Record:
    """A record whose fixed columns hold; its genotypes are still text."""

    line: int
    text: bytes
    row: dict[str, object]
    n_alts: int
    format: _Format | None
    samples: bytes


_TYPES = {"Integer": 1, "Float": 2, "Character": 3}  # as the kernels have them; 0 is text
_JUDGE, _FLAG, _ANY, _PER = 5, 4, -1, {"A": -2, "R": -3, "G": -4}
_STRIDE = 11
_Bad = tuple[int, str, bytes]  # line, reason, text


class _Keys:
    """INFO keys that the header or the specification types, in the form that the kernels take."""

    def __init__(self, header: Header) -> None:
        fields = {**header.info, **{key: reserved[0] for key, reserved in RESERVED_INFO.items() if key not in header.info}}
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
        expected = _count(field, 0)
        return _PER[field.number] if field.number in ("A", "R") else _ANY if expected is None else expected


class Reader:
    """Turns lines below one header into Arrow batches.

    The compiled kernels take what is surely right, which is nearly all of a file; the rules below judge the rest, a record at
    a time. `bin_width`: bases per position bin. With a `normaliser` every record is first read as it is, so that what breaks the
    specification is found, then normalised. `note` is told of lines that are passed over.
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
        self._columns = 8 + header.has_format + len(header.samples)
        self._sample_set = header.sample_set
        self._contig = lru_cache(4096)(self._check_contig)
        self._format = lru_cache(4096)(self._check_format)
        self._kinds = lru_cache(4096)(self._kinds_of)
        self._field = lru_cache(4096)(self._info_field)
        self._keys = _Keys(header)
        self._gt_room = np.empty(0, np.uint8)  # that the kernels pack into; asking the system for it again costs more than the packing

    def batches(self, number: int, block: bytes, most: int) -> Iterator[tuple[pa.RecordBatch, pa.RecordBatch]]:
        """Records of a block of whole lines, the first of them line `number` of the file, `most` lines at a time: rows of
        `variants`, and of `quarantine`.

        Blank lines hold no record, nor do lines of the header that stand there again, as where files were joined. Every other
        line is in one of the two. InputError for another #CHROM line than the header's: whose calls stand below it cannot be
        told.
        """
        text = np.frombuffer(block, np.uint8)
        assert len(text) < 2**31 - 1  # the kernels' places are int32; `line_blocks` gives far smaller blocks
        room = max(1, min(most, len(text) // (2 * self._columns) + 1))  # a column and its separator take two bytes at least, but on blank lines
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

    def _records(self, number: int, text: np.ndarray, starts: np.ndarray, flags: np.ndarray) -> tuple[pa.RecordBatch, list[_Bad]]:
        certain = self._certain(number, text, starts, flags)
        rest = [(number + i, text[starts[i, 0] : starts[i, -1]].tobytes()) for i in np.flatnonzero(flags == 1).tolist()]
        if not rest:
            return certain, []
        judged, bad = self._judged(rest)
        return _in_order([certain, _batch(judged, VARIANTS_SCHEMA)]), bad

    def _normalised(
        self, number: int, text: np.ndarray, starts: np.ndarray, rows: pa.RecordBatch, bad: list[_Bad]
    ) -> tuple[pa.RecordBatch, list[_Bad]]:
        """The records of `rows` normalised, each that changes replaced by what it becomes, with its source beside it."""
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
        arrays = [pa.array(replaced[f.name], f.type) if f.name in replaced else new.column(f.name) for f in VARIANTS_SCHEMA]
        return _in_order([whole, pa.RecordBatch.from_arrays(arrays, schema=VARIANTS_SCHEMA)]), bad

    def _certain(self, number: int, text: np.ndarray, starts: np.ndarray, flags: np.ndarray) -> pa.RecordBatch:
        """Rows of the records that the kernels are sure of; the others are flagged 1."""
        header, keys, records = self.header, self._keys, len(starts)
        samples = len(header.samples)
        pos, end = np.zeros(records, np.int64), np.zeros(records, np.int64)
        n_alts = np.zeros(records, np.int32)
        new_contig, new_format = np.zeros(records, np.uint8), np.zeros(records, np.uint8)
        key_arrays = (keys.names, keys.offsets, keys.type, keys.natural, keys.count, keys.n)
        kernels.call("fixed", text, records, starts, flags, header.minor, *key_arrays, header.has_format, pos, end, n_alts, new_contig, new_format)
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
            formats = [text[starts[i, 8] : min(int(starts[i, 9]) - 1, int(starts[i, 10]))].tobytes() for i in first.tolist()]
            numbers, table = self._numbered_formats(formats)
            format_of = np.where(flags == 0, numbers[np.maximum(format_run, 0)] if len(numbers) else -1, -1).astype(np.int32)
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
            found = kernels.call("gather_lists", text, n, np.ascontiguousarray(sel[:, k]), stops, 1, ord(separator), out, pieces, of)
            return of, packing.binary_array(out, pieces[: found + 1], type_=pa.string())

        alts = pa.ListArray.from_arrays(*lists(4, ","))
        of, codes = lists(6, ";")
        filters = pa.Array.from_buffers(
            pa.list_(pa.string()), n, [pa.py_buffer(np.packbits(np.diff(of) > 0, bitorder="little")), pa.py_buffer(of)], children=[codes]
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
            "sample_set": _constant(self._sample_set, n, pa.string()),
            "alt_number": _constant(0, n, pa.int32()),
            "file": _constant(self.file, n, pa.string()),
            "line": pa.array(number + chosen),
        }
        if header.has_format:
            columns["format"] = pa.array([f.decode("ascii", "replace") for f in formats], pa.string()).take(pa.array(format_run[chosen]))
        if gt is not None and fields is not None:
            if n < records:
                gt, fields = gt.take(pa.array(chosen)), fields.take(pa.array(chosen))
            columns["gt"], columns["fields"] = gt, fields
        return pa.RecordBatch.from_arrays([columns.get(f.name, pa.nulls(n, f.type)) for f in VARIANTS_SCHEMA], schema=VARIANTS_SCHEMA)

    def _known_contig(self, name: bytes) -> bool:
        try:
            self._contig(name.decode("ascii"))
        except (Refused, UnicodeDecodeError):
            return False
        return True

    def _numbered_formats(self, texts: list[bytes]) -> tuple[np.ndarray, _Formats | None]:
        """Of each FORMAT its number among the distinct ones that hold, int32, -1 for one that breaks a rule; and these, None where there are none."""
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
        format_ = self._format(text)
        return [self._kind(format_, key, field) for key, field in zip(format_.keys, format_.fields, strict=True)], format_.has_gt

    def _kind(self, format_: _Format, key: str, field: Field | None) -> tuple[int, int]:
        """Type and number of a FORMAT key as the kernels have them."""
        if field is None or key == "GT":
            return 0, _ANY
        if (key == "LEN" and self.header.minor >= 5) or (field.number == "P" and format_.has_gt):
            return _JUDGE, _ANY
        if field.number in ("A", "R") or (field.number == "G" and format_.has_gt):
            return _TYPES.get(field.type, 0), _PER[field.number]
        expected = _count(field, 0)
        return _TYPES.get(field.type, 0), _ANY if expected is None else expected

    def _sample_columns(
        self, text: np.ndarray, starts: np.ndarray, flags: np.ndarray, n_alts: np.ndarray, format_of: np.ndarray, table: _Formats | None
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
        fields, field_offsets = np.empty((len(text) + records if kept else 0) + samples + 1, np.uint8), np.empty(records + 1, np.int32)
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
        """Rows of `variants` by the rules below, and (line, reason, text) of the records that break one."""
        records: list[_Record] = []
        bad: list[_Bad] = []
        for number, line in lines:
            try:
                if line.startswith(b"#") or _COLUMNS_LINE.match(line):
                    self._meet_header_line(number, line)
                else:
                    records.append(self._record(number, line))
            except Refused as refused:
                bad.append((number, str(refused), line))
        by_format: dict[int, list[_Record]] = {}
        for record in records:
            by_format.setdefault(id(record.format), []).append(record)
        reasons: dict[int, str] = {}
        for group in by_format.values():
            if group[0].format is not None and self.header.samples:
                reasons.update(self._genotypes(group, group[0].format))
        bad += [(record.line, reasons[record.line], record.text) for record in records if record.line in reasons]
        return [record.row for record in records if record.line not in reasons], sorted(bad)

    def _meet_header_line(self, number: int, line: bytes) -> None:
        if line.decode("utf-8", "replace") in self._header_lines:
            self._note(number, "are passed over, as they repeat a line of its header")
            return
        if _COLUMNS_LINE.match(line):
            found = "another #CHROM line than the header's, so that nobody knows whose the calls below it are"
            raise InputError(f"found {found}; expected records, give the parts that were joined here one by one", self.file, number)
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

    def _record(self, number: int, line: bytes) -> _Record:
        control = control_in(line)
        if control is not None:
            raise Refused(f"found the control character {control}; expected text without, as htslib would cut it there or show it otherwise")
        parts = line.split(b"\t", 9)
        found = len(parts) if len(parts) < 10 else 10 + parts[9].count(b"\t")
        if found == 7 and self._columns == 8:  # sites written without their INFO, as bcftools reads them too
            parts.append(b".")
        elif found != self._columns and not (found == 8 and self._columns == 9):  # a header with FORMAT and no sample over sites
            raise Refused(f"found {found} columns; expected {self._columns}, as many as the #CHROM line has")
        try:
            chrom, pos_text, id_, ref, alt_text, qual_text, filter_text, info, *form = [part.decode("utf-8") for part in parts[:9]]
        except UnicodeDecodeError as error:
            raise Refused("found bytes that are not UTF-8; expected UTF-8 text") from error
        self._contig(chrom)
        if not (pos_text.isascii() and pos_text.isdigit()):
            raise Refused(f"found POS {pos_text[:40]!r}; expected a whole number, 0 or more")
        pos = int(pos_text) if len(pos_text) <= 18 else _LAST_BASE + 1
        if pos > _LAST_BASE:
            raise Refused(f"found POS {pos_text[:40]}; expected at most {_LAST_BASE:,}, the highest that BCF has")
        if not id_ or re.search(r"\s", id_) or "" in id_.split(";"):
            raise Refused(f"found ID {id_[:40]!r}; expected . or names with semicolons between, without whitespace")
        if _BASES.fullmatch(ref) is None:
            raise Refused(f"found REF {ref[:40]!r}; expected bases of ACGTN")
        alts = _alts(alt_text)
        filters = _filters(filter_text)
        kept = self._check_info(info, len(alts))
        form_text = form[0] if form else None
        row: dict[str, object] = {
            "cohort": self.cohort,
            "contig": shared_contig(chrom),
            "bin": pos // self.bin_width,
            "chrom": chrom,
            "pos": pos,
            "end": self._end(pos, ref, alts, kept),
            "id": None if id_ == "." else id_,
            "ref": ref,
            "alts": alts,
            "qual": _quality(qual_text),
            "filters": filters,
            "info": info,
            "format": form_text,
            "n_samples": len(self.header.samples),
            "sample_set": self._sample_set,
            "alt_number": 0,
            "file": self.file,
            "line": number,
        }
        format_ = None if form_text is None else self._format(form_text)
        return _Record(number, line, row, len(alts), format_, parts[9] if len(parts) > 9 else b"")

    def _check_contig(self, name: str) -> None:
        """Section 1.6.1 item 1. Up to 4.2 a colon is legal only in a declared name (the HLA contigs of GRCh38 have them)."""
        fine = name in self.header.contigs or _BRACKETED.fullmatch(name) is not None
        if not fine and (_CONTIG.fullmatch(name) is None or (":" in name and self.header.minor < 3)):
            raise Refused(f"found CHROM {name[:40]!r}; expected a contig's name without whitespace, comma, bracket or undeclared colon")
        if name == "__HIVE_DEFAULT_PARTITION__":
            raise Refused(f"found CHROM {name}; expected another name, this one stands for NULL where tables are stored")
        if len(quote(name)) > 200:  # it becomes the name of a directory
            raise Refused(f"found a CHROM of {len(name)} characters; expected at most about 200")

    def _info_field(self, key: str) -> Field | None:
        """What an INFO key holds; None when nothing is known of it. Refuses what is no key."""
        if key in self.header.info:
            return self.header.info[key]
        if key in RESERVED_INFO:
            return RESERVED_INFO[key][0]
        if not key or re.search(r"\s", key) or (self.header.minor >= 3 and _KEY.fullmatch(key) is None):
            raise Refused(f"found INFO key {key[:40]!r}; expected a name of letters, digits, _ and .")
        return None

    def _check_info(self, text: str, n_alts: int) -> dict[str, str]:
        """Checks INFO against the header and the reserved keys; returns the values that bear on the record's end."""
        kept: dict[str, str] = {}
        if text == ".":
            return kept
        seen: set[str] = set()
        for entry in text.removesuffix(";").split(";"):  # Hail and others end INFO with a semicolon
            key, _, value = entry.partition("=")
            field = self._field(key)
            if key in seen and self.header.minor >= 3:
                raise Refused(f"found INFO key {key} twice; expected each key once")
            seen.add(key)
            if key in ("END", "SVLEN", "SVTYPE"):
                kept[key] = value
            if field is not None:
                refusals = [_info_refusal(way, key, entry, n_alts) for way in field.ways]
                if all(refusals):
                    raise Refused(str(refusals[0]))
        return kept

    def _end(self, pos: int, ref: str, alts: tuple[str, ...], info: dict[str, str]) -> int:
        """Last base of the record: REF's last, or beyond it END; for 4.5 (rlen, section 1.6.1 item 8 there) the farthest of END and SVLEN.

        END of a translocation lies on another contig and says nothing. Where END is given up to 4.4 it stands alone. Refused beyond
        the highest position.
        """
        end = self._farthest(pos, ref, alts, info)
        if end > _LAST_BASE:
            raise Refused(f"found a record that ends at {end}; expected at most {_LAST_BASE:,}, the highest that BCF has")
        return end

    def _farthest(self, pos: int, ref: str, alts: tuple[str, ...], info: dict[str, str]) -> int:
        end = pos + len(ref) - 1
        stated = _whole(info.get("END", ""))
        if stated is not None and info.get("SVTYPE") not in ("BND", "TRA"):
            end = max(end, stated)
            if self.header.minor < 5:
                return end
        lengths = info["SVLEN"].split(",") if "SVLEN" in info else []
        if len(lengths) == 1:
            lengths *= len(alts)
        for alt, length in zip(alts, map(_whole, lengths), strict=False):
            if _SIZED.match(alt) and length is not None:
                end = max(end, pos + abs(length))
        return end

    def _check_format(self, text: str) -> _Format:
        keys = text.split(":")
        if text == ".":
            return _Format(keys, [None])
        fields: list[Field | None] = []
        for place, key in enumerate(keys):
            declared = self.header.format.get(key)
            reserved = RESERVED_FORMAT.get(key)
            regular = re.fullmatch(r"[A-Za-z0-9]+", key) is not None or (self.header.minor >= 3 and _KEY.fullmatch(key) is not None)
            if declared is None and not regular:
                raise Refused(f"found FORMAT key {key[:40]!r}; expected a name of letters and digits, or one that the header declares")
            if key == "GT" and place > 0:
                raise Refused("found GT after another FORMAT key; expected it first")
            fields.append(declared if declared is not None else reserved[0] if reserved is not None else None)
        if len(set(keys)) < len(keys):
            raise Refused(f"found a key twice in FORMAT {text[:40]!r}; expected each key once")
        return _Format(keys, fields)

    def _genotypes(self, records: list[_Record], format_: _Format) -> dict[int, str]:
        """Packs GT and keeps the other subfields, for records of one FORMAT; returns line -> reason for those that break a rule."""
        texts = [record.samples for record in records]
        samples = len(self.header.samples)
        reasons: dict[int, str] = {}
        ploidy: np.ndarray | None = None
        if format_.has_gt:
            # A missing ALT stands for an allele that is not named, so calls may count one.
            n_alleles = np.array([max(record.n_alts, 1) + 1 for record in records])
            calls = genotype_text.parse_calls(texts, np.full(len(records), len(format_.keys)), n_alleles, samples, self.header.minor >= 4)
            reasons = {records[i].line: reason for i, reason in calls.errors.items()}
            for i, (record, kept) in enumerate(zip(records, calls.fields, strict=True)):
                record.row["fields"] = kept
                if i not in calls.errors:
                    ploidy_of = int(calls.ploidy[i])
                    record.row["gt"] = genotypes.pack(calls.alleles[i : i + 1, :, :ploidy_of], calls.phased[i : i + 1, :, :ploidy_of])[0].as_py()
            present = calls.alleles != genotype_text.ABSENT
            ploidy = present.sum(2)
            # A lone dot is a call of unknown ploidy, not a haploid one.
            ploidy[(ploidy == 1) & (calls.alleles[:, :, 0] == genotype_text.MISSING)] = 0
        else:
            for record in records:
                record.row["fields"] = record.samples
        if len(format_.keys) > format_.has_gt:
            for i, reason in self._check_subfields(texts, format_, np.array([r.n_alts for r in records]), ploidy, records).items():
                reasons.setdefault(records[i].line, reason)
        return reasons

    def _check_subfields(
        self, texts: list[bytes], format_: _Format, n_alts: np.ndarray, ploidy: np.ndarray | None, records: list[_Record]
    ) -> dict[int, str]:
        """Number and Type of every subfield but GT, as Arrow and NumPy columns: record -> reason for those that break them.

        `ploidy` int (R, S): alleles of each call, 0 unknown. For 4.5 also moves the end of a record to that of its longest
        <*> block (FORMAT LEN, section 1.6.2 there).
        """
        samples = len(self.header.samples)
        data = np.frombuffer(b"\t".join(texts) + b"\t", np.uint8)
        ends = np.flatnonzero((data == ord(":")) | (data == ord("\t"))).astype(np.int32)
        last = data[ends] == ord("\t")
        counts = np.diff(np.concatenate([[0], np.flatnonzero(last) + 1]))  # subfields of each sample column
        first = np.cumsum(counts) - counts
        reasons: dict[int, str] = {}

        def refuse(columns: np.ndarray, reason: str) -> None:
            for record, places in zip(*np.unique(columns // samples, return_index=True), strict=True):
                where = self.header.samples[columns[places] % samples]
                reasons.setdefault(int(record), f"{reason}, sample {where[:40]}")

        over = np.flatnonzero(counts > len(format_.keys))
        refuse(over, f"found more subfields than the {len(format_.keys)} keys of FORMAT")
        offsets = np.concatenate([[0], ends + 1]).astype(np.int32)
        subfields = pa.BinaryArray.from_buffers(pa.binary(), len(ends), [None, pa.py_buffer(offsets), pa.py_buffer(data)])  # each with its separator
        for place, (key, field) in enumerate(zip(format_.keys, format_.fields, strict=True)):
            if field is None or key == "GT":
                continue
            columns = np.flatnonzero(counts > place)
            chosen = first[columns] + place
            taken = subfields.take(pa.array(chosen))
            length = (ends[chosen] - offsets[chosen]).astype(np.int64)
            lone = (length == 1) & (data[offsets[chosen]] == ord("."))
            of, calls = n_alts[columns // samples], None if ploidy is None else ploidy.reshape(-1)[columns]
            verdicts = [self._verdict(way, taken, lone, length == 0, of, calls) for way in field.ways]
            bad = np.logical_and.reduce([no_value | miscounted for no_value, miscounted in verdicts])
            no_value, miscounted = verdicts[0]
            refuse(columns[bad & no_value], f"found a {key} that is no {field.type}")
            refuse(columns[bad & miscounted], f"found a wrong number of values in {key} (Number={field.number})")
            needs_end = key == "LEN" and self.header.minor >= 5
            if needs_end:
                for record in self._extend(taken, columns // samples, records):
                    reasons.setdefault(record, f"found a LEN that ends beyond {_LAST_BASE:,}; expected a position that BCF has")
        return reasons

    def _verdict(
        self, field: Field, taken: pa.Array, lone: np.ndarray, empty: np.ndarray, n_alts: np.ndarray, ploidy: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Which of n subfields (each with its separator) are not of the field's Type, and which have not its Number of values, bool (n,) each."""
        # 4.5: an empty subfield is a list of no values, where the number of values is free.
        free = lone | (empty & (self.header.minor >= 5) & (not field.number.isdigit()))
        no_value, miscounted = np.zeros(len(taken), bool), np.zeros(len(taken), bool)
        value = _BYTE_VALUE.get(field.type)
        if value is not None:
            no_value = ~(pc.match_substring_regex(taken, rf"^{value}(?:,{value})*[:\t]$").to_numpy(zero_copy_only=False) | free)
        expected = self._expected(field, n_alts, ploidy)
        if expected is not None:
            found = pc.count_substring(taken, b",").to_numpy() + 1
            miscounted = (found != expected) & (expected >= 0) & ~free
        return no_value, miscounted

    def _expected(self, field: Field, n_alts: np.ndarray, ploidy: np.ndarray | None) -> np.ndarray | None:
        """As `_count`, for a subfield in each sample column; -1 where any number goes."""
        if field.number == "P" and ploidy is not None:
            return np.where(ploidy > 0, ploidy, -1)
        if field.number == "G" and ploidy is not None:
            pairs, where = np.unique(np.stack([n_alts, ploidy]), axis=1, return_inverse=True)
            # Genotypes: choices of p from n + 1 alleles with repetition.
            counts = [math.comb(n + p, p) if n and p else -1 for n, p in pairs.T.tolist()]
            return np.array([min(count, np.iinfo(np.int64).max) for count in counts], np.int64)[where.reshape(-1)]
        distinct = np.unique(n_alts).tolist()
        of = {n: _count(field, n) for n in distinct}
        if all(count is None for count in of.values()):
            return None
        return np.array([-1 if of[n] is None else of[n] for n in distinct])[np.searchsorted(distinct, n_alts)]

    def _extend(self, lengths: pa.BinaryArray, of: np.ndarray, records: list[_Record]) -> Iterator[int]:
        """Moves the ends of records to those of their <*> blocks; yields the records whose block ends beyond the highest position."""
        for i, text in zip(of.tolist(), lengths.to_pylist(), strict=True):
            length, row = _whole(text[:-1].decode("ascii", "replace")), records[i].row
            if "<*>" in row["alts"] and length is not None:
                row["end"] = max(row["end"], row["pos"] + length - 1)
                if row["end"] > _LAST_BASE:
                    yield i


def _info_refusal(field: Field, key: str, entry: str, n_alts: int) -> str | None:
    """Why an INFO entry is no `key` of that kind; None where it is."""
    _, separator, value = entry.partition("=")
    if field.type == "Flag":
        return None if value in ("", "0", "1") else f"found INFO {entry[:40]!r}; expected the flag {key} without a value"
    if not separator:
        return f"found INFO {key} without a value; expected {key}=VALUE"
    if value == ".":
        return None
    expected = _count(field, n_alts)
    if expected is not None and value.count(",") + 1 != expected:
        return f"found {value.count(',') + 1} values in INFO {entry[:40]!r}; expected {expected} (Number={field.number})"
    # A list of any length under a key that is not reserved is text to us: GIAB's truth sets declare names as Integer.
    pattern = None if field.number == "." and key not in RESERVED_INFO else _values(field.type, field.values)
    if pattern is not None and pattern.fullmatch(value) is None:
        return f"found INFO {entry[:40]!r}; expected values of type {field.type}"
    negative = field.natural and (value.startswith("-") or ",-" in value)
    return f"found INFO {entry[:40]!r}; expected no negative value" if negative else None


def _count(field: Field, n_alts: int) -> int | None:
    """Values that an INFO key has in a record; None where any number goes.

    A text that stands alone may have commas in it. Without an ALT the numbers that depend on alleles bind nothing: callers
    keep the values of the alleles that they dropped. G is not defined in INFO.
    """
    if field.number in ("A", "R"):
        return n_alts + (field.number == "R") if n_alts else None
    free = not field.number.isdigit() or (field.number == "1" and field.type == "String" and field.values is None)
    return None if free else int(field.number)


def _whole(text: str) -> int | None:
    """A whole number, one of more digits than a position has as a large one; None for other text."""
    match = _WHOLE.fullmatch(text)
    return None if match is None else int(text) if len(match[1]) <= 18 else 10**18


def _quality(text: str) -> float | None:
    if text == ".":
        return None
    value = float(text) if _FLOAT_TEXT.fullmatch(text) is not None else -1.0
    if value < 0 or (math.isinf(value) and "n" not in text.lower()):  # a number that is too large is no infinity
        raise Refused(f"found QUAL {text[:40]!r}; expected . or a number, 0 or more, below 1.8e308")
    return value


def _batch(rows: list[dict[str, object]], schema: pa.Schema) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([pa.array([row.get(f.name) for row in rows], f.type) for f in schema], schema=schema)


def _in_order(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    """One batch of all rows, by line and number of the ALT."""
    rows = pa.Table.from_batches(batches).combine_chunks()
    order = np.lexsort([rows.column("alt_number").to_numpy(), rows.column("line").to_numpy()])
    found = rows.take(pa.array(order)).combine_chunks().to_batches()
    return found[0] if found else batches[0]


def _constant(value: object, n: int, type_: pa.DataType) -> pa.Array:
    return pa.repeat(pa.scalar(value, type_), n)


def read(raw: BinaryIO, uri: str, cohort: str, file: str, batch: int) -> Iterator[tuple[pa.RecordBatch, pa.RecordBatch]]:
    """Batches of (`variants`, `quarantine`) rows of one VCF, each of at most `batch` records and one block of text (see `line_blocks`).

    InputError for a header that records cannot be read below, or a compressed stream that is not whole; what else breaks the
    specification, lines of the header first, is in the second batch.
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


def split_lines(uri: str, split: Split, first: int, header: Header, longest: int = LONGEST_LINE) -> Iterator[tuple[int, bytes]]:
    """(line number, block of whole lines) of a piece, without the header's; `first`: the number of its first line, from 1.

    InputError for a compressed stream that is not whole, with the last line read where the piece is the file; and for a line, or
    a record of BCF, of more than `longest` bytes.
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
