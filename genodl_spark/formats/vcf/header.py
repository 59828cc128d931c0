"""The header of a VCF: its meta lines checked, its fields typed, its samples and contigs.

Sections are those of the VCF specification 4.3 unless a version is named. A meta line that breaks the specification
is set aside with its reason, as records can be read without it. What they cannot be read without is an InputError:
the version, the #CHROM line, and samples that can be told apart.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass

from genodl_spark.core.errors import InputError, Refused
from genodl_spark.core.text_values import order_hash

FIXED = ["#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO"]


@dataclass(frozen=True)
class Field:
    """What an INFO or FORMAT key holds: Number and Type (section 1.4.2). `natural`: no value is negative.
    `values`: regular expression.

    `otherwise`: what the specification reserves the key for, where the header declares it as something else.
    """

    number: str
    type: str
    natural: bool = False
    values: str | None = None
    otherwise: Field | None = None

    @property
    def ways(self) -> tuple[Field, ...]:
        """What a value may be: of these one has to hold."""
        return (self,) if self.otherwise is None else (self, self.otherwise)


@dataclass(frozen=True)
class Header:
    """A VCF header. `minor`: y of VCFv4.y. `text`: its lines as read, #CHROM line included,
    without those that are no text of a header. `lines`: how many were read.

    `contigs`: declared names, with their length in bases where it is stated. `aside`: line number,
    reason and text of what breaks the specification and is not needed to read records.
    """

    minor: int
    text: str
    lines: int
    samples: list[str]
    info: dict[str, Field]
    format: dict[str, Field]
    contigs: dict[str, int | None]
    has_format: bool
    aside: tuple[tuple[int, str, str], ...] = ()

    @property
    def sample_set(self) -> str:
        """Identifier of the ordered samples."""
        return order_hash(self.samples)


# Reserved keys (section 1.6.1, tables 1 and 2): Number and Type of the specification,
# then what a header may say as well. Callers in wide use write "." for a number that depends on alleles,
# as VCF 4.0 did, and a few keys as another type.
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
_RESERVED = {"INFO": RESERVED_INFO, "FORMAT": RESERVED_FORMAT}
_SV_TYPES = {"DEL", "INS", "DUP", "INV", "CNV", "BND"}

_VERSION = re.compile(r"VCFv4\.([0-5])")
PAIR = re.compile(r'([A-Za-z0-9_.-]+)=("(?:[^"\\]|\\.)*"|[^",<>]*)(?:,|$)')
_URL = re.compile(
    r"<?[A-Za-z][A-Za-z0-9+.-]*://(?:[^/@\s]*@)?(?!\d+[:/>]|\d+$)[^\s/:@<>]+(?::\d+)?(?:[/?#][^\s<>]*)?>?"
)
_STRUCTURED = {"INFO", "FORMAT", "FILTER", "ALT", "contig", "SAMPLE", "PEDIGREE"}
# Section 1.2: none of these stands in a VCF but the tab between columns and what ends a line;
# htslib takes NUL for the end of a text.
CONTROL = re.compile(rb"[\x00-\x08\x0b-\x1f]")


def read_header(
    blocks: Iterator[tuple[int, bytes]], file: str, strict: bool = False
) -> tuple[Header, Iterator[tuple[int, bytes]]]:
    """The header at the front of `blocks` (see `line_blocks`), and the blocks of records below it.

    InputError, with the line, for a file that does not start as a VCF, a version that is not read, a record above
    the #CHROM line, wrong fixed columns, samples without a name or named twice; with `strict` also for what else goes
    to `Header.aside`: a malformed meta line, a reserved key declared otherwise than the specification does.
    """
    lines: list[bytes] = []
    for number, block in blocks:
        if number == 1 and not block.startswith(b"##fileformat="):
            raise _no_vcf(block, file)
        at = 0
        while at < len(block):
            end = block.index(b"\n", at)
            line = block[at:end]
            at = end + 1
            if line and not line.startswith(b"#"):
                found = repr(line[:60].decode("utf-8", "replace"))
                raise InputError(
                    f"found {found} in the header; expected lines with ## up to the #CHROM line, mend it",
                    file,
                    len(lines) + 1,
                )
            lines.append(line)
            if line.startswith(b"#CHROM"):
                rest = [(len(lines) + 1, block[at:])] if at < len(block) else []
                return _described(lines, file, strict), itertools.chain(rest, blocks)
    if not lines:
        raise _no_vcf(b"", file)
    raise InputError(
        "the file ends before its #CHROM line; expected one below the ## lines, fetch the whole file", file, len(lines)
    )


def _no_vcf(block: bytes, file: str) -> InputError:
    if block.startswith(b"BCF"):
        return InputError("found a BCF file; expected VCF text, convert it with bcftools view", file, 1)
    first = block.partition(b"\n")[0][:60]
    found = "an empty file" if not block.strip() else repr(first.decode("utf-8", "replace"))
    if CONTROL.search(first.replace(b"\r", b"")):
        found = "binary data"
    return InputError(
        f"found {found} and no VCF header; expected ##fileformat=VCFv4.1 to 4.5 first, check that the file is a VCF",
        file,
        1,
    )


def control_in(text: bytes) -> str | None:
    """The first control character of a text as it is written in Python, without quotes; None where there is none."""
    match = CONTROL.search(text)
    return None if match is None else repr(match.group().decode("ascii"))[1:-1]


def _described(lines: list[bytes], file: str, strict: bool) -> Header:
    version = _VERSION.fullmatch(lines[0].decode("utf-8", "replace").removeprefix("##fileformat="))
    if version is None:
        found = repr(lines[0][:60].decode("utf-8", "replace"))
        raise InputError(f"found {found}; expected ##fileformat=VCFv4.1 to VCFv4.5, convert the file", file, 1)
    minor = int(version.group(1))
    fields: dict[str, dict[str, Field]] = {"INFO": {}, "FORMAT": {}}
    contigs: dict[str, int | None] = {}
    kept: list[str] = []
    aside: list[tuple[int, str, str]] = []

    def set_aside(number: int, refused: str, text: str) -> None:
        if strict:
            raise InputError(f"{refused} in the header line {text[:60]}; mend the line", file, number)
        aside.append((number, refused, text))

    for number, line in enumerate(lines[:-1], 1):
        key, pairs, text = "", dict[str, str](), line.decode("utf-8", "replace")
        try:
            _check_text(line)
            kept.append(text)
            key, pairs = _meta(text)
            _check_meta(key, pairs, minor)
        except Refused as refused:
            set_aside(number, str(refused), text)
        # A line that says less or other than it should may still say what its key holds.
        if not pairs.get("ID"):
            continue
        if key in fields:
            field = _declared(key, pairs, minor)
            if field is not None:
                fields[key].setdefault(pairs["ID"], field)
        elif key == "contig":
            length = pairs.get("length", "")
            contigs[pairs["ID"]] = int(length) if length.isascii() and length.isdigit() else None
    number = len(lines)
    try:
        columns = lines[-1].decode("utf-8").split("\t")
    except UnicodeDecodeError as error:
        raise InputError(
            "found bytes that are not UTF-8 in the #CHROM line; expected UTF-8 text, convert it", file, number
        ) from error
    control = control_in(lines[-1])
    if control is not None:
        raise InputError(
            f"found the control character {control} in the #CHROM line; expected names without, rename the sample",
            file,
            number,
        )
    if columns[:8] != FIXED or (len(columns) > 8 and columns[8] != "FORMAT"):
        wrong = next(
            (f for f, e in zip(columns, [*FIXED, "FORMAT"], strict=False) if f != e), f"{len(columns)} columns"
        )
        raise InputError(
            f"found {wrong[:40]!r} in the #CHROM line; expected {' '.join(FIXED)} [FORMAT SAMPLE...], tab separated",
            file,
            number,
        )
    samples = columns[9:]
    if len(columns) == 9 and minor < 3:
        set_aside(
            number,
            "found a FORMAT column and no sample; expected samples after it, or no such column",
            "\t".join(columns),
        )
    seen: set[str] = set()
    for sample in samples:
        if not sample or sample in seen:
            what = f"sample {sample} stands twice" if sample else "found a sample without a name"
            raise InputError(f"{what} in the #CHROM line; expected distinct names, rename it", file, number)
        seen.add(sample)
    text = "\n".join([*kept, "\t".join(columns)])
    return Header(
        minor, text, number, samples, fields["INFO"], fields["FORMAT"], contigs, len(columns) > 8, tuple(aside)
    )


def _check_text(line: bytes) -> None:
    """Refuses what is no line of a header at all."""
    try:
        line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Refused("found bytes that are not UTF-8; expected UTF-8 text") from error
    control = control_in(line)
    if control is not None:
        raise Refused(f"found the control character {control}; expected text without")
    if not line.startswith(b"##"):
        raise Refused("found no ## at its start; expected ##KEY=VALUE")


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
        pair = PAIR.match(inside, at)
        if pair is None:
            raise Refused(
                f"found {inside[at : at + 30]!r}; expected KEY=VALUE pairs, text with commas, "
                "quotes or brackets in double quotes"
            )
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
    if key == "SAMPLE" and minor < 3:
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
    number, type_ = _number_and_type(key, pairs, minor)
    reserved = _RESERVED[key].get(pairs["ID"])
    if reserved is not None and minor >= 1:  # VCF 4.0 did not say how to declare them
        field, allowed_numbers, allowed_types = reserved
        if number not in allowed_numbers or type_ not in allowed_types:
            raise Refused(
                f"found Number={number},Type={type_} for the reserved {pairs['ID']}; "
                f"expected Number={field.number},Type={field.type}"
            )


def _number_and_type(key: str, pairs: dict[str, str], minor: int) -> tuple[str, str]:
    number, type_ = pairs.get("Number", ""), pairs.get("Type", "")
    numbers = r"[0-9]{1,9}|[AGR.]" if key == "INFO" or minor < 4 else r"[0-9]{1,9}|[AGRPM.]|L[AGR]"
    if not re.fullmatch(numbers, number) and not (minor == 0 and number == "-1"):
        raise Refused(f"found Number={number[:40]}; expected a count, A, R, G or .")
    types = ["Integer", "Float", "Character", "String", *(["Flag"] if key == "INFO" else [])]
    if type_ not in types:
        raise Refused(f"found Type={type_[:40]}; expected {', '.join(types)}")
    return number, type_


def _declared(key: str, pairs: dict[str, str], minor: int) -> Field | None:
    """What a line says that its key holds; None where its Number or Type cannot be read."""
    try:
        number, type_ = _number_and_type(key, pairs, minor)
    except Refused:
        return None
    number = "." if number == "-1" else number
    reserved = _RESERVED[key].get(pairs["ID"])
    if reserved is None:
        return Field(number, type_)
    field, numbers, types = reserved
    natural, values = (field.natural, field.values) if type_ in types else (False, None)
    return Field(number, type_, natural, values, None if number in numbers and type_ in types else field)
