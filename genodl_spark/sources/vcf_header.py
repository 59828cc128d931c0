"""The header of a VCF: its meta lines checked, its fields typed, its samples and contigs.

Sections are those of the VCF specification 4.3 unless a version is named. A header that breaks the specification is an
InputError, as nothing below it can be trusted.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass

from genodl_spark.errors import InputError
from genodl_spark.text_values import order_hash

FIXED = ["#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO"]


@dataclass(frozen=True)
class Field:
    """What an INFO or FORMAT key holds: Number and Type (section 1.4.2). `natural`: no value is negative. `values`: regular expression."""

    number: str
    type: str
    natural: bool = False
    values: str | None = None


@dataclass(frozen=True)
class Header:
    """A VCF header. `minor`: y of VCFv4.y. `text`: its lines as read, #CHROM line included. `lines`: how many.

    `contigs`: declared names, with their length in bases where it is stated.
    """

    minor: int
    text: str
    lines: int
    samples: list[str]
    info: dict[str, Field]
    format: dict[str, Field]
    contigs: dict[str, int | None]
    has_format: bool

    @property
    def sample_set(self) -> str:
        """Identifier of the ordered samples."""
        return order_hash(self.samples)


# Reserved keys (section 1.6.1, tables 1 and 2): Number and Type of the specification, then what a header may say as well.
# Callers in wide use write "." for a number that depends on alleles, as VCF 4.0 did, and a few keys as another type.
RESERVED_INFO = {
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
RESERVED_FORMAT = {
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


_SHARED_NAME = re.compile(r"(?:chr)?([0-9]{1,2}|X|Y|M|MT)")


def shared_contig(name: str) -> str:
    """The name under which cohorts share a contig: human chromosomes without chr, the mitochondrion MT, all others as they are."""
    match = _SHARED_NAME.fullmatch(name)
    return name if match is None else "MT" if match.group(1) == "M" else match.group(1)


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
    contigs: dict[str, int | None] = {}
    for number, line in enumerate(lines[:-1], 1):
        try:
            key, pairs = _meta(line)
            _check_meta(key, pairs, minor)
        except Refused as refused:
            raise InputError(f"{refused} in the header line {line[:60]}; mend the line", file, number) from refused
        if key in fields:
            fields[key].setdefault(pairs["ID"], _declared(key, pairs))
        elif key == "contig":
            length = pairs.get("length", "")
            contigs[pairs["ID"]] = int(length) if length.isascii() and length.isdigit() else None
    columns = lines[-1].split("\t")
    number = len(lines)
    if columns[:8] != FIXED or (len(columns) > 8 and columns[8] != "FORMAT"):
        wrong = next((f for f, e in zip(columns, [*FIXED, "FORMAT"], strict=False) if f != e), f"{len(columns)} columns")
        raise InputError(f"found {wrong[:40]!r} in the #CHROM line; expected {' '.join(FIXED)} [FORMAT SAMPLE...], tab separated", file, number)
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
    return Header(minor, text, number, samples, fields["INFO"], fields["FORMAT"], contigs, len(columns) > 8)


class Refused(Exception):
    """Why a meta line or a record breaks the specification."""


def _meta(line: str) -> tuple[str, dict[str, str]]:
    """Key of a meta line, and its pairs where it is one of those that the specification structures (section 1.4)."""
    key, separator, value = line[2:].partition("=")
    if not separator or not key or not value or value == "<>":
        raise Refused("found no KEY=VALUE; expected a key and a value")
    if key not in _STRUCTURED:
        return key, {"": value}
    if not (value.startswith("<") and value.endswith(">")):
        raise Refused("found no pair of angle brackets; expected <KEY=VALUE,...>")
    pairs: dict[str, str] = {}
    inside, at = value[1:-1], 0
    while at < len(inside):
        pair = _PAIR.match(inside, at)
        if pair is None:
            raise Refused(f"found {inside[at : at + 30]!r}; expected KEY=VALUE pairs, text with commas, quotes or brackets in double quotes")
        pairs.setdefault(pair.group(1), pair.group(2))
        at = pair.end()
    return key, pairs


def _check_meta(key: str, pairs: dict[str, str], minor: int) -> None:
    if key in ("assembly", "pedigreeDB"):
        if "://" in pairs[""] and _URL.fullmatch(pairs[""]) is None:
            raise Refused("found no valid URL; expected scheme://host/path")
        return
    if key == "PEDIGREE" and minor < 3:
        for value in pairs.values():
            if re.search(r"[\s:;]", value):
                raise Refused(f"found {value[:30]!r}; expected genome names without whitespace, colon or semicolon")
        return
    if key not in _STRUCTURED or key == "PEDIGREE":
        return
    name = pairs.get("ID", "")
    if not name or (key != "contig" and next(iter(pairs)) != "ID"):
        raise Refused("found no ID; expected ID=NAME first")
    if re.search(r"\s", name):
        raise Refused(f"found whitespace in ID {name!r}; expected none")
    if key == "SAMPLE":
        for listed in ("Genomes", "Mixture"):
            if pairs.get(listed, "").startswith('"'):
                raise Refused(f"found quotes around {listed}; expected them around Description only")
    if key in ("INFO", "FORMAT", "ALT") and not pairs.get("Description", "").startswith('"'):
        raise Refused("found no Description in double quotes; expected one")
    if key == "ALT":
        if "Number" in pairs or "Type" in pairs:
            raise Refused("found Number or Type; expected ID and Description, the others belong to INFO and FORMAT")
        first, separator, _ = name.partition(":")
        if separator and minor < 3 and first not in _SV_TYPES:
            raise Refused(f"found type {first}; expected {', '.join(sorted(_SV_TYPES))} before the first colon")
    if key in ("INFO", "FORMAT"):
        _check_field(key, pairs, minor)


def _check_field(key: str, pairs: dict[str, str], minor: int) -> None:
    number, type_ = pairs.get("Number", ""), pairs.get("Type", "")
    numbers = r"[0-9]+|[AGR.]" if key == "INFO" or minor < 4 else r"[0-9]+|[AGRPM.]|L[AGR]"
    if not re.fullmatch(numbers, number) and not (minor == 0 and number == "-1"):
        raise Refused(f"found Number={number}; expected a count, A, R, G or .")
    types = ["Integer", "Float", "Character", "String", *(["Flag"] if key == "INFO" else [])]
    if type_ not in types:
        raise Refused(f"found Type={type_}; expected {', '.join(types)}")
    reserved = (RESERVED_INFO if key == "INFO" else RESERVED_FORMAT).get(pairs["ID"])
    if reserved is not None and minor >= 1:  # VCF 4.0 did not say how to declare them
        field, allowed_numbers, allowed_types = reserved
        if number not in allowed_numbers or type_ not in allowed_types:
            raise Refused(f"found Number={number},Type={type_} for the reserved {pairs['ID']}; expected Number={field.number},Type={field.type}")


def _declared(key: str, pairs: dict[str, str]) -> Field:
    reserved = (RESERVED_INFO if key == "INFO" else RESERVED_FORMAT).get(pairs["ID"])
    natural, values = (reserved[0].natural, reserved[0].values) if reserved else (False, None)
    return Field("." if pairs["Number"] == "-1" else pairs["Number"], pairs["Type"], natural, values)
