"""VCF records split and left-aligned as `bcftools norm -m -any -f` does it: text of a record in, text of records out.

Works before the record is parsed, so it says nothing of what breaks the specification: a record that it cannot
read comes back as it is, for the reader to refuse. POS is 1-based, spans of a Reference are 0-based and half open.
The behaviour is that of bcftools 1.24 (the one in pysam), but for what keeps data whole:
keys that the header does not declare stay in split records, symbolic alleles stay where they are,
and a record that bcftools would stop at is refused alone.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from genodl_spark.core.errors import Refused
from genodl_spark.formats.vcf.header import RESERVED_FORMAT, RESERVED_INFO, Field, Header
from genodl_spark.genome.reference import Piece, Reference

_BASES = re.compile(rb"[ACGTNacgtn]+")
_OTHER_ALT = re.compile(rb"\*|[^\s<>]*<[^\s<>]+>|[^\s,]*[\[\]][^\s,]+|\.[ACGTNacgtn]+|[ACGTNacgtn]+\.")
_CALL = re.compile(rb"[/|]?(?:\.|[0-9]+)(?:[/|](?:\.|[0-9]+))*")
_END = re.compile(rb"(?<![^;])END=[0-9]+(?![^;])")


# Splits a column of subfields, one per sample, into one column per ALT.
_Splitter = Callable[[list[bytes], int], list[list[bytes]]]


@dataclass(frozen=True)
class Normalised:
    """A record after normalisation. `text`: the record, tab separated.
    `source_*`: POS (0 where it is no number), REF and ALT as read.

    `alt_number`: which ALT of the source a split record holds, 1-based; 0 where the record was not split.
    """

    text: bytes
    source_pos: int
    source_ref: str
    source_alts: str
    alt_number: int


def needs(ref: bytes, alt: bytes) -> bool:
    """Whether a record of these REF and ALT may change; False is certain, for any Normaliser.

    Who skips such records skips the check of their REF against the reference too, which bcftools has for all.
    """
    if len(ref) == 1 and len(alt) == 1:
        return ref.upper() == alt.upper()
    if b"," in alt:
        return True
    if alt == b".":
        return True  # REF is cut to one base
    return not (alt == b"*" or b"<" in alt or b"[" in alt or b"]" in alt or alt[:1] == b"." or alt[-1:] == b".")


class Normaliser:
    """Splits records with several ALT alleles (`split`), and left-aligns and trims alleles against
    `reference` where there is one."""

    def __init__(self, header: Header, split: bool, reference: Reference | None) -> None:
        self.split = split
        self.reference = reference
        self._header = header
        self._columns = 8 + header.has_format + len(header.samples)
        self._calls = lru_cache(1 << 14)(_split_call)
        self._plan = lru_cache(1 << 12)(self._made_plan)

    def lines(self, line: bytes) -> list[Normalised]:
        """The records that the record `line` (no newline) becomes, in the order of its ALT;
        one, its text unchanged, where nothing changes.

        Refused: REF is not what the reference has there, the reference lacks it, an ALT that is REF,
        no room left to align, or vectors that cannot be split.
        """
        parts = line.split(b"\t", 9)
        found = len(parts) if len(parts) < 10 else 10 + parts[9].count(b"\t")
        if found < 8:
            return [Normalised(line, 0, "", "", 0)]
        pos_text, ref, alt = parts[1], parts[3], parts[4]
        pos = int(pos_text) if pos_text.isdigit() and len(pos_text) <= 18 else None
        source = (pos or 0, ref.decode("utf-8", "replace"), alt.decode("utf-8", "replace"))
        alts = [] if alt == b"." else alt.split(b",")
        readable = found == self._columns and pos is not None and _BASES.fullmatch(ref) is not None
        if not (readable and all(_BASES.fullmatch(a) or _OTHER_ALT.fullmatch(a) for a in alts)):
            return [Normalised(line, *source, 0)]
        assert pos is not None
        piece = None if self.reference is None else self._checked(parts[0], pos, ref, alts)
        if not self.split or len(alts) < 2:
            aligned = None if piece is None else self._aligned(piece, parts, pos - 1, alts)
            return [Normalised(line if aligned is None else b"\t".join(aligned), *source, 0)]
        records = []
        for number, record in enumerate(self._split(parts, alts), 1):
            aligned = None if piece is None else self._aligned(piece, record, pos - 1, [record[4]])
            records.append(Normalised(b"\t".join(record if aligned is None else aligned), *source, number))
        return records

    def check_reference(self, line: bytes) -> None:
        """Holds REF of a record that the specification allows against the reference, where there is one.
        Refused as `lines` says."""
        chrom, pos, _, ref, alt = line.split(b"\t", 5)[:5]
        if self.reference is not None:
            self._checked(chrom, int(pos), ref, [] if alt == b"." else alt.split(b","))

    def _checked(self, chrom: bytes, pos: int, ref: bytes, alts: list[bytes]) -> Piece | None:
        """The sequence to align to; None for what stands before the first base (a telomere).
        Refused as `lines` says."""
        assert self.reference is not None
        if pos == 0 and not any(map(_BASES.fullmatch, alts)):
            return None
        if pos == 0:
            raise Refused("found POS 0 with bases in ALT; expected a position of the reference, 1 or more")
        piece = self.reference.piece(chrom.decode("utf-8", "replace"), pos - 1, pos - 1 + len(ref))
        expected = self.reference.bases(piece, pos - 1, pos - 1 + len(ref)).upper()
        if ref.upper() != expected:
            raise Refused(f"found REF {_text(ref)}; expected {_text(expected)}, as the reference has it")
        if any(a.upper() == expected for a in alts):
            raise Refused(f"found REF {_text(ref)} in ALT as well; expected other alleles there")
        return piece

    def _aligned(self, piece: Piece, record: list[bytes], start: int, alts: list[bytes]) -> list[bytes] | None:
        """The columns of the record with its alleles left-aligned and trimmed; None where they are so already.
        `start`: of REF, 0-based."""
        ref = record[3]
        if not alts:
            return [*record[:3], ref[:1], *record[4:]] if len(ref) > 1 else None
        if not all(map(_BASES.fullmatch, alts)):
            return None
        moved, alleles = self._left(piece, start, [allele.upper() for allele in (ref, *alts)])
        if moved == start and len(alleles[0]) == len(ref):
            return None
        info = _END.sub(b"END=%d" % (moved + len(alleles[0])), record[7], count=1)
        return [
            record[0],
            b"%d" % (moved + 1),
            record[2],
            alleles[0],
            b",".join(alleles[1:]),
            *record[5:7],
            info,
            *record[8:],
        ]

    def _left(self, piece: Piece, start: int, alleles: list[bytes]) -> tuple[int, list[bytes]]:
        """Start and alleles, as far left and as short as they go; each keeps a base. No ALT is REF.

        The end that all share goes. Where that is all of the shortest, the bases of the reference before it are put
        before each, and as long as the ends agree still, they go too. Last, the beginning that all share goes.
        """
        shortest = min(map(len, alleles))
        cut = _shared_end(alleles, shortest)
        if cut == shortest and start == 0:
            cut -= 1
        rest = [allele[: len(allele) - cut] for allele in alleles]
        if cut == shortest:
            start, rest = self._shifted(piece, start, rest)
        trim = _shared_start(rest, min(map(len, rest)) - 1)
        return start + trim, [allele[trim:] for allele in rest]

    def _shifted(self, piece: Piece, start: int, alleles: list[bytes]) -> tuple[int, list[bytes]]:
        """Alleles, one of them empty, with bases of the reference before them, and the end that all share taken off."""
        assert self.reference is not None
        room = start - piece.start
        # The whole of a repeat has to be seen: windows that double keep it linear in its length.
        window = min(room, 128)
        while True:
            before = self.reference.bases(piece, start - window, start)
            upper = before.upper()
            cut = _shared_end([upper + allele for allele in alleles], window)
            if cut < window:
                break
            if window == room:
                if piece.start > 0:
                    raise Refused(
                        f"found an indel that moves left past {piece.start + 1}, where the reference's slice starts; "
                        "expected more of it"
                    )
                cut -= 1
                break
            window = min(room, 2 * window)
        padded = [before + allele for allele in alleles]
        return start - window, [allele[: len(allele) - cut] for allele in padded]

    def _split(self, record: list[bytes], alts: list[bytes]) -> list[list[bytes]]:
        """The columns of one record per ALT."""
        infos = self._split_info(record[7], len(alts))
        samples = self._split_samples(record[8], record[9], len(alts)) if len(record) > 9 else [b""] * len(alts)
        tails = [[record[8], text] if len(record) > 9 else record[8:] for text in samples]
        return [
            [*record[:4], alt, *record[5:7], info, *tail] for alt, info, tail in zip(alts, infos, tails, strict=True)
        ]

    def _split_info(self, text: bytes, n_alts: int) -> list[bytes]:
        entries: list[list[bytes]] = []
        for entry in text.split(b";"):
            key, _, value = entry.partition(b"=")
            values = value.split(b",")
            number = _of_ways(_numbers(self._header.info, key, RESERVED_INFO), len(values), n_alts, 2)
            if number not in ("A", "R", "G") or value in (b"", b"."):
                entries.append([entry] * n_alts)
                continue
            # G of INFO is that of diploid calls: there is no call whose ploidy it could have.
            picked = _picked(values, number, n_alts, 2)
            if picked is None:
                raise Refused(
                    f"found {len(values)} values in INFO {_text(entry)}; expected {_count(number, n_alts)} "
                    f"(Number={number}) to split them"
                )
            entries.append([key + b"=" + of_alt for of_alt in picked])
        return [b";".join(of_alt) for of_alt in zip(*entries, strict=True)]

    def _split_samples(self, form: bytes, text: bytes, n_alts: int) -> list[bytes]:
        plan = self._plan(form)
        if all(step is None for step in plan):
            return [text] * n_alts
        rows = [sample.split(b":") for sample in text.split(b"\t")]
        for row in rows:
            if len(row) > len(plan):
                raise Refused(f"found more subfields than the {len(plan)} keys of FORMAT")
            row += [b"."] * (len(plan) - len(row))
        columns = []
        for place, step in enumerate(plan):
            column = [row[place] for row in rows]
            columns.append([column] * n_alts if step is None else step(column, n_alts))
        return [b"\t".join(map(b":".join, zip(*of_alt, strict=True))) for of_alt in zip(*columns, strict=True)]

    def _made_plan(self, form: bytes) -> list[_Splitter | None]:
        """For each key of FORMAT, what splits a column of its subfields (one per sample) into one column
        per ALT; None: it stays."""
        plan: list[_Splitter | None] = []
        for key in form.split(b":"):
            name = key.decode("utf-8", "replace")
            numbers = _numbers(self._header.format, key, RESERVED_FORMAT)
            if name == "GT":
                plan.append(self._split_calls)
            elif name == "LAA" or numbers[0] in ("LA", "LR", "LG"):
                raise Refused(
                    f"found {name[:40]}, which counts local alleles, and several ALT; "
                    "expected values of all alleles, to split them"
                )
            elif {"A", "R", "G"}.intersection(numbers):
                field = self._header.format.get(name)
                plan.append(_vectors(name, numbers, field is None or field.type in ("Integer", "Float")))
            else:
                plan.append(None)
        return plan

    def _split_calls(self, column: list[bytes], n_alts: int) -> list[list[bytes]]:
        return [list(of_alt) for of_alt in zip(*[self._calls(call, n_alts) for call in column], strict=True)]


def _text(value: bytes) -> str:
    return repr(value[:40].decode("utf-8", "replace"))


def _numbers(
    declared: dict[str, Field], key: bytes, reserved: Mapping[str, tuple[Field, set[str], set[str]]]
) -> tuple[str, ...]:
    """Numbers that a key may have: as declared and, where that is otherwise, as reserved (callers leave out
    AC and the like), else "."."""
    name = key.decode("utf-8", "replace")
    field = declared[name] if name in declared else reserved[name][0] if name in reserved else None
    return (".",) if field is None else tuple(way.number for way in field.ways)


def _of_ways(numbers: tuple[str, ...], found: int, n_alts: int, ploidy: int | None) -> str:
    """The first of `numbers` that `found` values have; the first of all where they have none.
    `ploidy` as for `_picked`."""
    if len(numbers) == 1:
        return numbers[0]

    def holds(number: str) -> bool:
        if number == "G":
            return _genotypes(found, n_alts, ploidy) is not None
        return found == (_count(number, n_alts) if number in ("A", "R") else int(number) if number.isdigit() else found)

    return next(filter(holds, numbers), numbers[0])


def _count(number: str, n_alts: int) -> int:
    """Values of a diploid call."""
    return {"A": n_alts, "R": n_alts + 1, "G": math.comb(n_alts + 2, 2)}[number]


def _split_call(call: bytes, n_alts: int) -> tuple[bytes, ...]:
    """A GT for each ALT: that allele is 1, every other one 0; ploidy, phase and what is missing stay."""
    if _CALL.fullmatch(call) is None:
        if call == b"":
            return (call,) * n_alts
        raise Refused("found a malformed GT; expected allele numbers or . separated by / or |")
    pieces = re.split(rb"([0-9]+)", call)
    alleles = [int(allele) for allele in pieces[1::2]]
    if max(alleles, default=0) > n_alts:
        raise Refused(f"found allele {max(alleles)} in GT; expected at most {n_alts}, the number of ALT alleles")
    calls = []
    for kept in range(1, n_alts + 1):
        pieces[1::2] = [b"1" if allele == kept else b"0" for allele in alleles]
        calls.append(b"".join(pieces))
    return tuple(calls)


def _vectors(name: str, numbers: tuple[str, ...], numeric: bool) -> _Splitter:
    def split(column: list[bytes], n_alts: int) -> list[list[bytes]]:
        # bcftools writes a missing vector of numbers out, unless all of them are missing.
        wide = numbers[0] == "R" and numeric and any(b"," in value for value in column)
        rows = []
        for value in column:
            if value in (b".", b""):
                rows.append([b".,." if wide and value else value] * n_alts)
                continue
            values = value.split(b",")
            number = _of_ways(numbers, len(values), n_alts, None)
            if number not in ("A", "R", "G"):
                rows.append([value] * n_alts)
                continue
            picked = _picked(values, number, n_alts, None)
            if picked is None:
                raise Refused(
                    f"found {len(values)} values in {name[:40]}; expected {_count(number, n_alts)} "
                    f"(Number={number}) to split them"
                )
            rows.append(picked)
        return [list(of_alt) for of_alt in zip(*rows, strict=True)]

    return split


def _picked(values: list[bytes], number: str, n_alts: int, ploidy: int | None) -> list[bytes] | None:
    """What each ALT keeps of the values; None where their number is wrong. `ploidy` of a G, None:
    the one that has as many values."""
    if number == "G":
        places = _genotypes(len(values), n_alts, ploidy)
        return None if places is None else [b",".join([values[place] for place in kept]) for kept in places]
    if len(values) != n_alts + (number == "R"):
        return None
    return values if number == "A" else [values[0] + b"," + value for value in values[1:]]


@lru_cache(1 << 10)
def _genotypes(count: int, n_alts: int, ploidy: int | None) -> list[list[int]] | None:
    """For each ALT the places, among `count` genotypes in the order of section 1.6.2, of those of it and REF;
    None: no ploidy has as many."""
    found = ploidy or 1
    while ploidy is None and math.comb(n_alts + found, found) < count:
        found += 1
    if math.comb(n_alts + found, found) != count:
        return None
    # The place of alleles k1 <= ... <= kp is the sum of C(km + m - 1, m) over m; REF, 0, adds none.
    return [
        [sum(math.comb(alt + m - 1, m) for m in range(found - copies + 1, found + 1)) for copies in range(found + 1)]
        for alt in range(1, n_alts + 1)
    ]


def _shared_start(texts: list[bytes], most: int) -> int:
    """How many first bytes, `most` at most, all texts share. Halves, so that the comparing is left to C."""
    low, high, first = 0, most, texts[0]
    while low < high:
        middle = (low + high + 1) // 2
        part = first[low:middle]
        if all(text[low:middle] == part for text in texts[1:]):
            low = middle
        else:
            high = middle - 1
    return low


def _shared_end(texts: list[bytes], most: int) -> int:
    """As `_shared_start`, of the last bytes."""
    return _shared_start([text[len(text) - most :][::-1] for text in texts], most)
