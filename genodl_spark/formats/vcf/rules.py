"""The rules of the VCF specification for one record, versions 4.0 to 4.5;
sections are those of 4.3 unless said otherwise."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genodl_spark.core.errors import Refused
from genodl_spark.formats.vcf.header import RESERVED_FORMAT, RESERVED_INFO, Field, Header, control_in
from genodl_spark.genetics import genotype_text
from genodl_spark.genetics.genotypes import pack
from genodl_spark.genome.contigs import shared_contig

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
# Section 1.6.1 item 5 and section 5.4: bases, *, symbolic alleles (also after bases:
# an inserted contig), breakends, single breakends.
_ALT = re.compile(
    rf"[ACGTNacgtn]+|\*|[ACGTNacgtn]*<[^\s<>,]+>|"
    rf"{_B}\[{_P}\[|{_B}\]{_P}\]|\[{_P}\[{_B}|\]{_P}\]{_B}|\.[ACGTNacgtn]+|[ACGTNacgtn]+\."
)
_SIZED = re.compile(r"<(?:DEL|DUP|INV|CNV)[:>]")
_KEY = re.compile(r"[A-Za-z_][0-9A-Za-z_.]*|1000G")
_WHOLE = re.compile(r"-?0*([0-9]+)")
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
            raise Refused(
                f"found FILTER {text[:40]!r}; expected PASS, . or codes with semicolons between, "
                "none of them 0 or empty"
            )
    return codes


@lru_cache(4096)
def _values(type_: str, values: str | None) -> re.Pattern[str] | None:
    one = values if values is not None else _VALUE.get(type_)
    return None if one is None else re.compile(f"{one}(?:,{one})*")


@dataclass
class Format:
    """A FORMAT column taken apart: its keys, and per key what it holds (None: not checked)."""

    keys: list[str]
    fields: list[Field | None]

    @property
    def has_gt(self) -> bool:
        return self.keys[0] == "GT"


@dataclass
class Record:
    """A record whose fixed columns hold; its genotypes are still text."""

    line: int
    text: bytes
    row: dict[str, object]
    n_alts: int
    format: Format | None
    samples: bytes


class Rules:
    """What the specification says of a record below one header, asked of one record at a time:
    `record` of its fixed columns, `genotypes` of the samples of several that have one FORMAT.

    Refused, with what was found and expected, by everything that breaks a rule. `bin_width`: bases per position bin.
    """

    def __init__(self, header: Header, cohort: str, file: str, bin_width: int) -> None:
        self.header, self.cohort, self.file, self.bin_width = header, cohort, file, bin_width
        self.columns = 8 + header.has_format + len(header.samples)
        self._sample_set = header.sample_set
        self.contig = lru_cache(4096)(self._check_contig)
        self.format = lru_cache(4096)(self._check_format)
        self._field = lru_cache(4096)(self._info_field)

    def record(self, number: int, line: bytes) -> Record:
        control = control_in(line)
        if control is not None:
            raise Refused(
                f"found the control character {control}; expected text without, as htslib would cut "
                "it there or show it otherwise"
            )
        parts = line.split(b"\t", 9)
        found = len(parts) if len(parts) < 10 else 10 + parts[9].count(b"\t")
        if found == 7 and self.columns == 8:  # sites written without their INFO, as bcftools reads them too
            parts.append(b".")
        elif found != self.columns and not (
            found == 8 and self.columns == 9
        ):  # a header with FORMAT and no sample over sites
            raise Refused(f"found {found} columns; expected {self.columns}, as many as the #CHROM line has")
        try:
            chrom, pos_text, id_, ref, alt_text, qual_text, filter_text, info, *form = [
                part.decode("utf-8") for part in parts[:9]
            ]
        except UnicodeDecodeError as error:
            raise Refused("found bytes that are not UTF-8; expected UTF-8 text") from error
        self.contig(chrom)
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
        format_ = None if form_text is None else self.format(form_text)
        return Record(number, line, row, len(alts), format_, parts[9] if len(parts) > 9 else b"")

    def _check_contig(self, name: str) -> None:
        """Section 1.6.1 item 1. Up to 4.2 a colon is legal only in a declared name (the HLA
        contigs of GRCh38 have them)."""
        fine = name in self.header.contigs or _BRACKETED.fullmatch(name) is not None
        if not fine and (_CONTIG.fullmatch(name) is None or (":" in name and self.header.minor < 3)):
            raise Refused(
                f"found CHROM {name[:40]!r}; expected a contig's name without whitespace, comma, "
                "bracket or undeclared colon"
            )
        if name == "__HIVE_DEFAULT_PARTITION__":
            raise Refused(
                f"found CHROM {name}; expected another name, this one stands for NULL where tables are stored"
            )
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
        """Last base of the record: REF's last, or beyond it END; for 4.5 (rlen, section 1.6.1 item 8 there)
        the farthest of END and SVLEN.

        END of a translocation lies on another contig and says nothing. Where END is given up to 4.4 it stands alone.
        Refused beyond the highest position.
        """
        end = self._farthest(pos, ref, alts, info)
        if end > _LAST_BASE:
            raise Refused(
                f"found a record that ends at {end}; expected at most {_LAST_BASE:,}, the highest that BCF has"
            )
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

    def _check_format(self, text: str) -> Format:
        keys = text.split(":")
        if text == ".":
            return Format(keys, [None])
        fields: list[Field | None] = []
        for place, key in enumerate(keys):
            declared = self.header.format.get(key)
            reserved = RESERVED_FORMAT.get(key)
            regular = re.fullmatch(r"[A-Za-z0-9]+", key) is not None or (
                self.header.minor >= 3 and _KEY.fullmatch(key) is not None
            )
            if declared is None and not regular:
                raise Refused(
                    f"found FORMAT key {key[:40]!r}; expected a name of letters and digits, "
                    "or one that the header declares"
                )
            if key == "GT" and place > 0:
                raise Refused("found GT after another FORMAT key; expected it first")
            fields.append(declared if declared is not None else reserved[0] if reserved is not None else None)
        if len(set(keys)) < len(keys):
            raise Refused(f"found a key twice in FORMAT {text[:40]!r}; expected each key once")
        return Format(keys, fields)

    def genotypes(self, records: list[Record], format_: Format) -> dict[int, str]:
        """Packs GT and keeps the other subfields, for records of one FORMAT;
        returns line -> reason for those that break a rule."""
        texts = [record.samples for record in records]
        samples = len(self.header.samples)
        reasons: dict[int, str] = {}
        ploidy: np.ndarray | None = None
        if format_.has_gt:
            # A missing ALT stands for an allele that is not named, so calls may count one.
            n_alleles = np.array([max(record.n_alts, 1) + 1 for record in records])
            calls = genotype_text.parse_calls(
                texts, np.full(len(records), len(format_.keys)), n_alleles, samples, self.header.minor >= 4
            )
            reasons = {records[i].line: reason for i, reason in calls.errors.items()}
            for i, (record, kept) in enumerate(zip(records, calls.fields, strict=True)):
                record.row["fields"] = kept
                if i not in calls.errors:
                    ploidy_of = int(calls.ploidy[i])
                    record.row["gt"] = pack(
                        calls.alleles[i : i + 1, :, :ploidy_of], calls.phased[i : i + 1, :, :ploidy_of]
                    )[0].as_py()
            present = calls.alleles != genotype_text.ABSENT
            ploidy = present.sum(2)
            # A lone dot is a call of unknown ploidy, not a haploid one.
            ploidy[(ploidy == 1) & (calls.alleles[:, :, 0] == genotype_text.MISSING)] = 0
        else:
            for record in records:
                record.row["fields"] = record.samples
        if len(format_.keys) > format_.has_gt:
            for i, reason in self._check_subfields(
                texts, format_, np.array([r.n_alts for r in records]), ploidy, records
            ).items():
                reasons.setdefault(records[i].line, reason)
        return reasons

    def _check_subfields(
        self, texts: list[bytes], format_: Format, n_alts: np.ndarray, ploidy: np.ndarray | None, records: list[Record]
    ) -> dict[int, str]:
        """Number and Type of every subfield but GT, as Arrow and NumPy columns:
        record -> reason for those that break them.

        `ploidy` int (R, S): alleles of each call, 0 unknown. For 4.5 also moves the end of a record
        to that of its longest <*> block (FORMAT LEN, section 1.6.2 there).
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
        # each with its separator
        subfields = pa.BinaryArray.from_buffers(
            pa.binary(), len(ends), [None, pa.py_buffer(offsets), pa.py_buffer(data)]
        )
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
                    reasons.setdefault(
                        record, f"found a LEN that ends beyond {_LAST_BASE:,}; expected a position that BCF has"
                    )
        return reasons

    def _verdict(
        self,
        field: Field,
        taken: pa.Array,
        lone: np.ndarray,
        empty: np.ndarray,
        n_alts: np.ndarray,
        ploidy: np.ndarray | None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Which of n subfields (each with its separator) are not of the field's Type, and which have not its Number
        of values, bool (n,) each."""
        # 4.5: an empty subfield is a list of no values, where the number of values is free.
        free = lone | (empty & (self.header.minor >= 5) & (not field.number.isdigit()))
        no_value, miscounted = np.zeros(len(taken), bool), np.zeros(len(taken), bool)
        value = _BYTE_VALUE.get(field.type)
        if value is not None:
            no_value = ~(
                pc.match_substring_regex(taken, rf"^{value}(?:,{value})*[:\t]$").to_numpy(zero_copy_only=False) | free
            )
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
        of = {n: value_count(field, n) for n in distinct}
        if all(count is None for count in of.values()):
            return None
        return np.array([-1 if of[n] is None else of[n] for n in distinct])[np.searchsorted(distinct, n_alts)]

    def _extend(self, lengths: pa.BinaryArray, of: np.ndarray, records: list[Record]) -> Iterator[int]:
        """Moves the ends of records to those of their <*> blocks; yields the records whose block ends
        beyond the highest position."""
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
        return (
            None if value in ("", "0", "1") else f"found INFO {entry[:40]!r}; expected the flag {key} without a value"
        )
    if not separator:
        return f"found INFO {key} without a value; expected {key}=VALUE"
    if value == ".":
        return None
    expected = value_count(field, n_alts)
    if expected is not None and value.count(",") + 1 != expected:
        return (
            f"found {value.count(',') + 1} values in INFO {entry[:40]!r}; expected {expected} (Number={field.number})"
        )
    # A list of any length under a key that is not reserved is text to us: GIAB's truth sets declare names as Integer.
    pattern = None if field.number == "." and key not in RESERVED_INFO else _values(field.type, field.values)
    if pattern is not None and pattern.fullmatch(value) is None:
        return f"found INFO {entry[:40]!r}; expected values of type {field.type}"
    negative = field.natural and (value.startswith("-") or ",-" in value)
    return f"found INFO {entry[:40]!r}; expected no negative value" if negative else None


def value_count(field: Field, n_alts: int) -> int | None:
    """Values that an INFO key has in a record; None where any number goes.

    A text that stands alone may have commas in it. Without an ALT the numbers that depend on alleles bind nothing:
    callers keep the values of the alleles that they dropped. G is not defined in INFO.
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
