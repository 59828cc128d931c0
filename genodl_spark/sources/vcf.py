"""VCF 4.1 to 4.5 (4.0 is read as 4.1): header and records to Arrow batches of the `variants` table, rule breakers to `quarantine`.

Sections are those of the VCF specification 4.3 unless a version is named. Coordinates are 1-based and closed. A header that
breaks the specification is an InputError, as nothing below it can be trusted; a record that does is set aside with its line
and reason. Each record is judged alone: order and repeats are not, since the table has no order and keys rows by line.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import BinaryIO
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genodl_spark import encode, storage
from genodl_spark.errors import InputError
from genodl_spark.sources.streams import line_blocks
from genodl_spark.tables import QUARANTINE, VARIANTS, Table

SOURCE = "vcf"
KEPT_TEXT = 4096
_FIXED = ["#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO"]
_ARROW = {"string": pa.string(), "bigint": pa.int64(), "int": pa.int32(), "double": pa.float64(), "binary": pa.binary()}
_ARROW["array<string>"] = pa.list_(pa.string())


def _schema(table: Table) -> pa.Schema:
    # Table.arrow_schema() goes through Spark's parser, which needs a JVM.
    return pa.schema([pa.field(c.name, _ARROW[c.type], c.nullable) for c in table.columns])


VARIANTS_SCHEMA, QUARANTINE_SCHEMA = _schema(VARIANTS), _schema(QUARANTINE)


@dataclass(frozen=True)
class Field:
    """What an INFO or FORMAT key holds: Number and Type (section 1.4.2). `natural`: no value is negative. `values`: regular expression."""

    number: str
    type: str
    natural: bool = False
    values: str | None = None


@dataclass(frozen=True)
class Header:
    """A VCF header. `minor`: y of VCFv4.y. `text`: its lines as read, #CHROM line included. `lines`: how many."""

    minor: int
    text: str
    lines: int
    samples: list[str]
    info: dict[str, Field]
    format: dict[str, Field]
    contigs: frozenset[str]
    has_format: bool

    @property
    def sample_set(self) -> str:
        """Identifier of the ordered samples."""
        return hashlib.sha256("\n".join(self.samples).encode()).hexdigest()[:16]


# Reserved keys (section 1.6.1, tables 1 and 2): Number and Type of the specification, then what a header may say as well.
# Callers in wide use write "." for a number that depends on alleles, as VCF 4.0 did, and a few keys as another type.
_RESERVED_INFO = {
    "AA": (Field("1", "String", values=r"[^,]+"), {"1"}, {"String"}),
    "AC": (Field("A", "Integer", natural=True), {"A", "."}, {"Integer"}),
    "AF": (Field("A", "Float", natural=True), {"A", "."}, {"Float"}),
    "AN": (Field("1", "Integer", natural=True), {"1"}, {"Integer"}),
    "BQ": (Field("1", "Float"), {"1"}, {"Float"}),
    "CIGAR": (Field("A", "String", values=r"(?:(?:[0-9]+[MIDNSHPX=])+|\.)"), {"A", "."}, {"String"}),
    "DP": (Field("1", "Integer", natural=True), {"1"}, {"Integer"}),
    "END": (Field("1", "Integer", natural=True), {"1"}, {"Integer"}),
    "MQ": (Field("1", "Float"), {"1"}, {"Float", "Integer"}),
    "MQ0": (Field("1", "Integer", natural=True), {"1"}, {"Integer"}),
    "NS": (Field("1", "Integer", natural=True), {"1"}, {"Integer"}),
    **{key: (Field("0", "Flag"), {"0"}, {"Flag"}) for key in ("DB", "H2", "H3", "SOMATIC", "VALIDATED", "1000G")},
}
_RESERVED_FORMAT = {
    "GT": (Field("1", "String"), {"1"}, {"String"}),
    "DP": (Field("1", "Integer"), {"1"}, {"Integer"}),
    "EC": (Field("A", "Integer"), {"A", "."}, {"Integer"}),
    "FT": (Field("1", "String"), {"1", "."}, {"String"}),
    "GL": (Field("G", "Float"), {"G", "."}, {"Float"}),
    "GLE": (Field(".", "String"), {"G", "."}, {"String"}),
    "GP": (Field("G", "Float"), {"G", "."}, {"Float"}),
    "GQ": (Field("1", "Integer"), {"1", "."}, {"Integer", "Float"}),
    "HQ": (Field("2", "Integer"), {"2"}, {"Integer"}),
    "MQ": (Field("1", "Integer"), {"1"}, {"Integer"}),
    "PL": (Field("G", "Integer"), {"G", "."}, {"Integer"}),
    "PQ": (Field("1", "Integer"), {"1"}, {"Integer"}),
    "PS": (Field("1", "Integer"), {"1"}, {"Integer", "String"}),
}
_SV_TYPES = {"DEL", "INS", "DUP", "INV", "CNV", "BND"}

_VERSION = re.compile(r"VCFv4\.([0-5])")
_PAIR = re.compile(r'([A-Za-z0-9_.-]+)=("(?:[^"\\]|\\.)*"|[^",<>]*)(?:,|$)')
_URL = re.compile(r"<?[A-Za-z][A-Za-z0-9+.-]*://(?:[^/@\s]*@)?(?!\d+[:/>]|\d+$)[^\s/:@<>]+(?::\d+)?(?:[/?#][^\s<>]*)?>?")
_STRUCTURED = {"INFO", "FORMAT", "FILTER", "ALT", "contig", "SAMPLE", "PEDIGREE"}


def read_header(blocks: Iterator[tuple[int, bytes]], file: str) -> tuple[Header, Iterator[tuple[int, bytes]]]:
    """The header at the front of `blocks` (see `line_blocks`), and the blocks of records below it.

    InputError, with the line, for a file that does not start as a VCF, a version that is not read, a malformed meta line, a
    reserved key declared otherwise than the specification does, wrong fixed columns, samples without a name or named twice.
    """
    lines: list[str] = []
    for number, block in blocks:
        if number == 1 and not block.startswith(b"##fileformat="):
            raise _no_vcf(block, file)
        at = 0
        while at < len(block):
            end = block.index(b"\n", at)
            text = _decoded(block[at:end], file, len(lines) + 1)
            at = end + 1
            if not text.startswith("#"):
                raise InputError(f"found {text[:60]!r} in the header; expected lines with ## up to the #CHROM line, mend it", file, len(lines) + 1)
            lines.append(text)
            if not text.startswith("##"):
                rest = [(len(lines) + 1, block[at:])] if at < len(block) else []
                return _described(lines, file), itertools.chain(rest, blocks)
    if not lines:
        raise _no_vcf(b"", file)
    raise InputError("the file ends before its #CHROM line; expected one below the ## lines, fetch the whole file", file, len(lines))


def _no_vcf(block: bytes, file: str) -> InputError:
    if block.startswith(b"BCF"):
        return InputError("found a BCF file; expected VCF text, convert it with bcftools view", file, 1)
    found = "an empty file" if not block.strip() else repr(block.partition(b"\n")[0][:60].decode("utf-8", "replace"))
    return InputError(f"found {found} and no VCF header; expected ##fileformat=VCFv4.1 to 4.5 first, check that the file is a VCF", file, 1)


def _decoded(line: bytes, file: str, number: int) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError("bytes that are not UTF-8 in the header; expected UTF-8 text, convert the header", file, number) from error


def _described(lines: list[str], file: str) -> Header:
    version = _VERSION.fullmatch(lines[0].removeprefix("##fileformat="))
    if version is None:
        raise InputError(f"found {lines[0][:60]!r}; expected ##fileformat=VCFv4.1 to VCFv4.5, convert the file", file, 1)
    minor = int(version.group(1))
    fields: dict[str, dict[str, Field]] = {"INFO": {}, "FORMAT": {}}
    contigs = set()
    for number, line in enumerate(lines[:-1], 1):
        try:
            key, pairs = _meta(line)
            _check_meta(key, pairs, minor)
        except _Refused as refused:
            raise InputError(f"{refused} in the header line {line[:60]}; mend the line", file, number) from refused
        if key in fields:
            fields[key].setdefault(pairs["ID"], _declared(key, pairs))
        elif key == "contig":
            contigs.add(pairs["ID"])
    columns = lines[-1].split("\t")
    number = len(lines)
    if columns[:8] != _FIXED or (len(columns) > 8 and columns[8] != "FORMAT"):
        wrong = next((f for f, e in zip(columns, [*_FIXED, "FORMAT"], strict=False) if f != e), f"{len(columns)} columns")
        raise InputError(f"found {wrong[:40]!r} in the #CHROM line; expected {' '.join(_FIXED)} [FORMAT SAMPLE...], tab separated", file, number)
    samples = columns[9:]
    if len(columns) == 9 and minor < 3:
        raise InputError("found a FORMAT column and no sample; expected samples after it, or drop the column", file, number)
    seen: set[str] = set()
    for sample in samples:
        if not sample or sample in seen:
            what = f"sample {sample} stands twice" if sample else "found a sample without a name"
            raise InputError(f"{what} in the #CHROM line; expected distinct names, rename it", file, number)
        seen.add(sample)
    text = "\n".join(lines)
    return Header(minor, text, number, samples, fields["INFO"], fields["FORMAT"], frozenset(contigs), len(columns) > 8)


class _Refused(Exception):
    """Why a meta line or a record breaks the specification."""


def _meta(line: str) -> tuple[str, dict[str, str]]:
    """Key of a meta line, and its pairs where it is one of those that the specification structures (section 1.4)."""
    key, separator, value = line[2:].partition("=")
    if not separator or not key or not value or value == "<>":
        raise _Refused("found no KEY=VALUE; expected a key and a value")
    if key not in _STRUCTURED:
        return key, {"": value}
    if not (value.startswith("<") and value.endswith(">")):
        raise _Refused("found no pair of angle brackets; expected <KEY=VALUE,...>")
    pairs: dict[str, str] = {}
    inside, at = value[1:-1], 0
    while at < len(inside):
        pair = _PAIR.match(inside, at)
        if pair is None:
            raise _Refused(f"found {inside[at : at + 30]!r}; expected KEY=VALUE pairs, text with commas, quotes or brackets in double quotes")
        pairs.setdefault(pair.group(1), pair.group(2))
        at = pair.end()
    return key, pairs


def _check_meta(key: str, pairs: dict[str, str], minor: int) -> None:
    if key in ("assembly", "pedigreeDB"):
        if "://" in pairs[""] and _URL.fullmatch(pairs[""]) is None:
            raise _Refused("found no valid URL; expected scheme://host/path")
        return
    if key == "PEDIGREE" and minor < 3:
        for value in pairs.values():
            if re.search(r"[\s:;]", value):
                raise _Refused(f"found {value[:30]!r}; expected genome names without whitespace, colon or semicolon")
        return
    if key not in _STRUCTURED or key == "PEDIGREE":
        return
    name = pairs.get("ID", "")
    if not name or (key != "contig" and next(iter(pairs)) != "ID"):
        raise _Refused("found no ID; expected ID=NAME first")
    if re.search(r"\s", name):
        raise _Refused(f"found whitespace in ID {name!r}; expected none")
    if key == "SAMPLE":
        for listed in ("Genomes", "Mixture"):
            if pairs.get(listed, "").startswith('"'):
                raise _Refused(f"found quotes around {listed}; expected them around Description only")
    if key in ("INFO", "FORMAT", "ALT") and not pairs.get("Description", "").startswith('"'):
        raise _Refused("found no Description in double quotes; expected one")
    if key == "ALT":
        if "Number" in pairs or "Type" in pairs:
            raise _Refused("found Number or Type; expected ID and Description, the others belong to INFO and FORMAT")
        first, separator, _ = name.partition(":")
        if separator and minor < 3 and first not in _SV_TYPES:
            raise _Refused(f"found type {first}; expected {', '.join(sorted(_SV_TYPES))} before the first colon")
    if key in ("INFO", "FORMAT"):
        _check_field(key, pairs, minor)


def _check_field(key: str, pairs: dict[str, str], minor: int) -> None:
    number, type_ = pairs.get("Number", ""), pairs.get("Type", "")
    numbers = r"[0-9]+|[AGR.]" if key == "INFO" or minor < 4 else r"[0-9]+|[AGRPM.]|L[AGR]"
    if not re.fullmatch(numbers, number) and not (minor == 0 and number == "-1"):
        raise _Refused(f"found Number={number}; expected a count, A, R, G or .")
    types = ["Integer", "Float", "Character", "String", *(["Flag"] if key == "INFO" else [])]
    if type_ not in types:
        raise _Refused(f"found Type={type_}; expected {', '.join(types)}")
    reserved = (_RESERVED_INFO if key == "INFO" else _RESERVED_FORMAT).get(pairs["ID"])
    if reserved is not None and minor >= 1:  # VCF 4.0 did not say how to declare them
        field, allowed_numbers, allowed_types = reserved
        if number not in allowed_numbers or type_ not in allowed_types:
            raise _Refused(f"found Number={number},Type={type_} for the reserved {pairs['ID']}; expected Number={field.number},Type={field.type}")


def _declared(key: str, pairs: dict[str, str]) -> Field:
    reserved = (_RESERVED_INFO if key == "INFO" else _RESERVED_FORMAT).get(pairs["ID"])
    natural, values = (reserved[0].natural, reserved[0].values) if reserved else (False, None)
    return Field("." if pairs["Number"] == "-1" else pairs["Number"], pairs["Type"], natural, values)


_INTEGER = r"(?:[-+]?[0-9]+|\.)"
_FLOAT = r"(?:[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[-+]?(?i:nan|inf|infinity)|\.)"
# One character of UTF-8, as bytes and as text.
_BYTE_CHARACTER = r"(?:[\x21-\x2b\x2d-\x7e]|[\xc2-\xf4][\x80-\xbf]{1,3})"
_VALUE = {"Integer": _INTEGER, "Float": _FLOAT, "Character": r"[^,\s]"}
_BYTE_VALUE = {**_VALUE, "Character": _BYTE_CHARACTER}
_FLOAT_TEXT = re.compile(_FLOAT)
_CONTIG = re.compile(r"[0-9A-Za-z!#$%&+./:;?@^_|~-][0-9A-Za-z!#$%&*+./:;=?@^_|~-]*")
_BRACKETED = re.compile(r"<[^\s<>]+>")
_BASES = re.compile(r"[ACGTNacgtn]+")
_B, _P = r"(?:[ACGTNacgtn]+|\.)", r"(?:<[^\s<>,]+>|[^\s\[\]<>,]+):[0-9]+"
# Section 1.6.1 item 5 and section 5.4: bases, *, symbolic alleles (also after bases: an inserted contig), breakends, single breakends.
_ALT = re.compile(rf"[ACGTNacgtn]+|\*|[ACGTNacgtn]*<[^\s<>,]+>|{_B}\[{_P}\[|{_B}\]{_P}\]|\[{_P}\[{_B}|\]{_P}\]{_B}|\.[ACGTNacgtn]+|[ACGTNacgtn]+\.")
_SIZED = re.compile(r"<(?:DEL|DUP|INV|CNV)[:>]")
_KEY = re.compile(r"[A-Za-z_][0-9A-Za-z_.]*|1000G")
_WHOLE = re.compile(r"-?[0-9]{1,18}")


@lru_cache(4096)
def _alts(text: str) -> tuple[str, ...]:
    if text == ".":
        return ()
    alts = tuple(text.split(","))
    for alt in alts:
        if _ALT.fullmatch(alt) is None:
            raise _Refused(f"found ALT {alt[:40]!r}; expected bases of ACGTN, *, <ID> or a breakend")
    return alts


@lru_cache(4096)
def _filters(text: str) -> tuple[str, ...] | None:
    if text == ".":
        return None
    codes = tuple(text.split(";"))
    for code in codes:
        if code in ("", ".", "0") or re.search(r"[\s,]", code):
            raise _Refused(f"found FILTER {text[:40]!r}; expected PASS, . or codes with semicolons between, none of them 0 or empty")
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
class _Record:
    """A record whose fixed columns hold; its genotypes are still text."""

    line: int
    text: bytes
    row: dict[str, object]
    n_alts: int
    format: _Format | None
    samples: bytes


class Reader:
    """Turns lines below one header into Arrow batches."""

    def __init__(self, header: Header, cohort: str, file: str) -> None:
        self.header = header
        self.cohort = cohort
        self.file = file
        self._columns = 8 + header.has_format + len(header.samples)
        self._sample_set = header.sample_set
        self._contig = lru_cache(4096)(self._check_contig)
        self._format = lru_cache(4096)(self._check_format)
        self._field = lru_cache(4096)(self._info_field)

    def batch(self, number: int, lines: list[bytes]) -> tuple[pa.RecordBatch, pa.RecordBatch]:
        """Records of consecutive lines, the first of them line `number` of the file: rows of `variants`, and of `quarantine`.

        Blank lines hold no record. Every other line is in one of the two batches.
        """
        records: list[_Record] = []
        bad: list[tuple[int, str, bytes]] = []
        for offset, line in enumerate(lines):
            if not line or line == b"\r":
                continue
            try:
                records.append(self._record(number + offset, line))
            except _Refused as refused:
                bad.append((number + offset, str(refused), line))
        by_format: dict[int, list[_Record]] = {}
        for record in records:
            by_format.setdefault(id(record.format), []).append(record)
        reasons: dict[int, str] = {}
        for group in by_format.values():
            if group[0].format is not None and self.header.samples:
                reasons.update(self._genotypes(group, group[0].format))
        bad += [(record.line, reasons[record.line], record.text) for record in records if record.line in reasons]
        rows = [record.row for record in records if record.line not in reasons]
        return _batch(rows, VARIANTS_SCHEMA), self._set_aside(sorted(bad))

    def _set_aside(self, bad: list[tuple[int, str, bytes]]) -> pa.RecordBatch:
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
        parts = line.split(b"\t", 9)
        found = len(parts) if len(parts) < 10 else 10 + parts[9].count(b"\t")
        if found != self._columns:
            raise _Refused(f"found {found} columns; expected {self._columns}, as many as the #CHROM line has")
        try:
            chrom, pos_text, id_, ref, alt_text, qual_text, filter_text, info, *form = [part.decode("utf-8") for part in parts[:9]]
        except UnicodeDecodeError as error:
            raise _Refused("found bytes that are not UTF-8; expected UTF-8 text") from error
        self._contig(chrom)
        if not (pos_text.isascii() and pos_text.isdigit() and len(pos_text) <= 18):
            raise _Refused(f"found POS {pos_text[:40]!r}; expected a whole number, 0 or more")
        pos = int(pos_text)
        if not id_ or re.search(r"\s", id_) or "" in id_.split(";"):
            raise _Refused(f"found ID {id_[:40]!r}; expected . or names with semicolons between, without whitespace")
        if _BASES.fullmatch(ref) is None:
            raise _Refused(f"found REF {ref[:40]!r}; expected bases of ACGTN")
        alts = _alts(alt_text)
        filters = _filters(filter_text)
        kept = self._check_info(info, len(alts))
        form_text = form[0] if form else None
        row: dict[str, object] = {
            "cohort": self.cohort,
            "contig": chrom,
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
            "file": self.file,
            "line": number,
        }
        format_ = None if form_text is None else self._format(form_text)
        return _Record(number, line, row, len(alts), format_, parts[9] if len(parts) > 9 else b"")

    def _check_contig(self, name: str) -> None:
        """Section 1.6.1 item 1. Up to 4.2 a colon is legal only in a declared name (the HLA contigs of GRCh38 have them)."""
        fine = name in self.header.contigs or _BRACKETED.fullmatch(name) is not None
        if not fine and (_CONTIG.fullmatch(name) is None or (":" in name and self.header.minor < 3)):
            raise _Refused(f"found CHROM {name[:40]!r}; expected a contig's name without whitespace, comma, bracket or undeclared colon")
        if name == "__HIVE_DEFAULT_PARTITION__":
            raise _Refused(f"found CHROM {name}; expected another name, this one stands for NULL where tables are stored")
        if len(quote(name)) > 200:  # it becomes the name of a directory
            raise _Refused(f"found a CHROM of {len(name)} characters; expected at most about 200")

    def _info_field(self, key: str) -> Field | None:
        """What an INFO key holds; None when nothing is known of it. Refuses what is no key."""
        if key in self.header.info:
            return self.header.info[key]
        if key in _RESERVED_INFO:
            return _RESERVED_INFO[key][0]
        if not key or re.search(r"\s", key) or (self.header.minor >= 3 and _KEY.fullmatch(key) is None):
            raise _Refused(f"found INFO key {key[:40]!r}; expected a name of letters, digits, _ and .")
        return None

    def _check_info(self, text: str, n_alts: int) -> dict[str, str]:
        """Checks INFO against the header and the reserved keys; returns the values that bear on the record's end."""
        kept: dict[str, str] = {}
        if text == ".":
            return kept
        seen: set[str] = set()
        for entry in text.removesuffix(";").split(";"):  # Hail and others end INFO with a semicolon
            key, separator, value = entry.partition("=")
            field = self._field(key)
            if key in seen and self.header.minor >= 3:
                raise _Refused(f"found INFO key {key} twice; expected each key once")
            seen.add(key)
            if key in ("END", "SVLEN", "SVTYPE"):
                kept[key] = value
            if field is None:
                continue
            if field.type == "Flag":
                if value not in ("", "0", "1"):
                    raise _Refused(f"found INFO {entry[:40]!r}; expected the flag {key} without a value")
                continue
            if not separator:
                raise _Refused(f"found INFO {key} without a value; expected {key}=VALUE")
            if value == ".":
                continue
            expected = _count(field, n_alts)
            if expected is not None and value.count(",") + 1 != expected:
                raise _Refused(f"found {value.count(',') + 1} values in INFO {entry[:40]!r}; expected {expected} (Number={field.number})")
            # A list of any length under a key that is not reserved is text to us: GIAB's truth sets declare names as Integer.
            pattern = None if field.number == "." and key not in _RESERVED_INFO else _values(field.type, field.values)
            if pattern is not None and pattern.fullmatch(value) is None:
                raise _Refused(f"found INFO {entry[:40]!r}; expected values of type {field.type}")
            if field.natural and (value.startswith("-") or ",-" in value):
                raise _Refused(f"found INFO {entry[:40]!r}; expected no negative value")
        return kept

    def _end(self, pos: int, ref: str, alts: tuple[str, ...], info: dict[str, str]) -> int:
        """Last base of the record: REF's last, or beyond it END; for 4.5 (rlen, section 1.6.1 item 8 there) the farthest of END and SVLEN.

        END of a translocation lies on another contig and says nothing. Where END is given up to 4.4 it stands alone.
        """
        end = pos + len(ref) - 1
        stated = info.get("END", "")
        if _WHOLE.fullmatch(stated) and info.get("SVTYPE") not in ("BND", "TRA"):
            end = max(end, int(stated))
            if self.header.minor < 5:
                return end
        lengths = info["SVLEN"].split(",") if "SVLEN" in info else []
        if len(lengths) == 1:
            lengths *= len(alts)
        for alt, length in zip(alts, lengths, strict=False):
            if _SIZED.match(alt) and _WHOLE.fullmatch(length):
                end = max(end, pos + abs(int(length)))
        return end

    def _check_format(self, text: str) -> _Format:
        keys = text.split(":")
        if text == ".":
            return _Format(keys, [None])
        fields: list[Field | None] = []
        for place, key in enumerate(keys):
            declared = self.header.format.get(key)
            reserved = _RESERVED_FORMAT.get(key)
            regular = re.fullmatch(r"[A-Za-z0-9]+", key) is not None or (self.header.minor >= 3 and _KEY.fullmatch(key) is not None)
            if declared is None and not regular:
                raise _Refused(f"found FORMAT key {key[:40]!r}; expected a name of letters and digits, or one that the header declares")
            if key == "GT" and place > 0:
                raise _Refused("found GT after another FORMAT key; expected it first")
            fields.append(declared if declared is not None else reserved[0] if reserved is not None else None)
        if len(set(keys)) < len(keys):
            raise _Refused(f"found a key twice in FORMAT {text[:40]!r}; expected each key once")
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
            calls = encode.parse_calls(texts, np.full(len(records), len(format_.keys)), n_alleles, samples, self.header.minor >= 4)
            reasons = {records[i].line: reason for i, reason in calls.errors.items()}
            for i, packed in self._packed(calls):
                records[i].row.update(packed)
            for record, kept in zip(records, calls.fields, strict=True):
                record.row["fields"] = kept
            present = calls.alleles != encode.ABSENT
            ploidy = present.sum(2)
            # A lone dot is a call of unknown ploidy, not a haploid one.
            ploidy[(ploidy == 1) & (calls.alleles[:, :, 0] == encode.MISSING)] = 0
        else:
            for record in records:
                record.row["fields"] = record.samples
        if len(format_.keys) > format_.has_gt:
            for i, reason in self._check_subfields(texts, format_, np.array([r.n_alts for r in records]), ploidy, records).items():
                reasons.setdefault(records[i].line, reason)
        return reasons

    def _packed(self, calls: encode.Calls) -> Iterator[tuple[int, dict[str, object]]]:
        """Columns gt, gt_ploidy and gt_width of each record, packed together where ploidy and width agree."""
        wide = calls.alleles.reshape(len(calls.alleles), -1).max(1, initial=0) > encode.HIGHEST_ALLELE[1]
        groups: dict[tuple[int, bool], list[int]] = {}
        for i, key in enumerate(zip(np.minimum(calls.ploidy, calls.alleles.shape[2]).tolist(), wide.tolist(), strict=True)):
            if i not in calls.errors:
                groups.setdefault(key, []).append(i)
        for (ploidy, _), members in groups.items():
            packed, width = encode.pack(calls.alleles[members][:, :, :ploidy], calls.phased[members][:, :, :ploidy])
            for i, values in zip(members, packed, strict=True):
                yield i, {"gt": values.tobytes(), "gt_ploidy": ploidy, "gt_width": width}

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
            length = (ends[chosen] - offsets[chosen]).astype(np.int64)
            lone = (length == 1) & (data[offsets[chosen]] == ord("."))
            # 4.5: an empty subfield is a list of no values, where the number of values is free.
            lone |= (length == 0) & (self.header.minor >= 5) & (not field.number.isdigit())
            value = _BYTE_VALUE.get(field.type)
            expected = self._expected(field, n_alts[columns // samples], None if ploidy is None else ploidy.reshape(-1)[columns])
            needs_end = key == "LEN" and self.header.minor >= 5
            if value is None and expected is None:
                continue
            taken = subfields.take(pa.array(chosen))
            if value is not None:
                right = pc.match_substring_regex(taken, rf"^{value}(?:,{value})*[:\t]$").to_numpy(zero_copy_only=False)
                refuse(columns[~(right | lone)], f"found a {key} that is no {field.type}")
            if expected is not None:
                found = pc.count_substring(taken, b",").to_numpy() + 1
                refuse(columns[(found != expected) & (expected >= 0) & ~lone], f"found a wrong number of values in {key} (Number={field.number})")
            if needs_end:
                self._extend(taken, columns // samples, records)
        return reasons

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

    def _extend(self, lengths: pa.BinaryArray, of: np.ndarray, records: list[_Record]) -> None:
        for i, text in zip(of.tolist(), lengths.to_pylist(), strict=True):
            length, row = text[:-1].decode("ascii", "replace"), records[i].row
            if "<*>" in row["alts"] and _WHOLE.fullmatch(length):
                row["end"] = max(row["end"], row["pos"] + int(length) - 1)


def _count(field: Field, n_alts: int) -> int | None:
    """Values that an INFO key has in a record; None where any number goes.

    A text that stands alone may have commas in it. Without an ALT the numbers that depend on alleles bind nothing: callers
    keep the values of the alleles that they dropped. G is not defined in INFO.
    """
    if field.number in ("A", "R"):
        return n_alts + (field.number == "R") if n_alts else None
    free = not field.number.isdigit() or (field.number == "1" and field.type == "String" and field.values is None)
    return None if free else int(field.number)


def _quality(text: str) -> float | None:
    if text == ".":
        return None
    if _FLOAT_TEXT.fullmatch(text) is None or float(text) < 0:
        raise _Refused(f"found QUAL {text[:40]!r}; expected . or a number, 0 or more")
    return float(text)


def _batch(rows: list[dict[str, object]], schema: pa.Schema) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([pa.array([row.get(f.name) for row in rows], f.type) for f in schema], schema=schema)


def read(raw: BinaryIO, uri: str, cohort: str, file: str, batch: int) -> Iterator[tuple[pa.RecordBatch, pa.RecordBatch]]:
    """Batches of (`variants`, `quarantine`) rows of one VCF, each of at most `batch` records and one block of text (see `line_blocks`).

    InputError for a header or a compressed stream that is not whole; records that break the specification are in the second
    batch, never an error.
    """
    header, blocks = read_header(line_blocks(raw, uri), uri)
    reader = Reader(header, cohort, file)
    for number, block in blocks:
        lines = block.split(b"\n")[:-1]
        for start in range(0, len(lines), batch):
            yield reader.batch(number + start, lines[start : start + batch])


def header_of(uri: str) -> Header:
    """The header of the VCF at `uri`. InputError as for `read_header`."""
    with storage.open_input(uri) as raw:
        return read_header(line_blocks(raw, uri), uri)[0]


def count_lines(batches: Iterable[pa.RecordBatch], files: list[tuple[str, str]]) -> Iterator[pa.RecordBatch]:
    """For mapInArrow over indices into `files` (URI, name): reads each file to its end and gives (file, lines below the header)."""
    for uri, name in _chosen(batches, files):
        with storage.open_input(uri) as raw:
            blocks = read_header(line_blocks(raw, uri), uri)[1]
            lines = sum(block.count(b"\n") for _, block in blocks)
        yield pa.RecordBatch.from_arrays([pa.array([name]), pa.array([lines])], ["file", "lines"])


def variant_rows(batches: Iterable[pa.RecordBatch], files: list[tuple[str, str]], cohort: str, batch: int) -> Iterator[pa.RecordBatch]:
    """For mapInArrow over indices into `files`: their rows of `variants`."""
    return (good for good, _ in _read_all(batches, files, cohort, batch) if good.num_rows)


def quarantine_rows(batches: Iterable[pa.RecordBatch], files: list[tuple[str, str]], cohort: str, batch: int) -> Iterator[pa.RecordBatch]:
    """For mapInArrow over indices into `files`: their rows of `quarantine`."""
    return (bad for _, bad in _read_all(batches, files, cohort, batch) if bad.num_rows)


def _read_all(
    batches: Iterable[pa.RecordBatch], files: list[tuple[str, str]], cohort: str, batch: int
) -> Iterator[tuple[pa.RecordBatch, pa.RecordBatch]]:
    for uri, name in _chosen(batches, files):
        with storage.open_input(uri) as raw:
            yield from read(raw, uri, cohort, name, batch)


def _chosen(batches: Iterable[pa.RecordBatch], files: list[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    for batch in batches:
        for index in batch.column(0).to_pylist():
            yield files[index]
