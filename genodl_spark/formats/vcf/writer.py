"""Rows of `variants` back to the text of a VCF: the header that several files share, and a line for each record.

Coordinates are 1-based. Sections are those of the VCF specification 4.3.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genodl_spark.formats.vcf.header import FIXED
from genodl_spark.genetics import genotypes
from genodl_spark.genome import site
from genodl_spark.genome.contigs import shared_contig

_ID = re.compile(r'##(\w+)=<(?:[^"]*,)?ID=([^,>]+)')
_VERSION = re.compile(r"##fileformat=VCFv4\.([0-9]+)")
# What `record_lines` and `Joiner` take of a row; `first_phased`: its file is VCF 4.4 or later.
COLUMNS = [
    "chrom",
    "pos",
    "end",
    "id",
    "ref",
    "alts",
    "qual",
    "filters",
    "info",
    "format",
    "gt",
    "fields",
    "n_samples",
    "first_phased",
]


def minor_of(meta: str) -> int:
    """y of VCFv4.y, which the first line of a header states."""
    version = _VERSION.match(meta)
    return int(version.group(1)) if version else 0


def merged_meta(headers: Sequence[tuple[str, str]]) -> tuple[list[str], list[str]]:
    """The meta lines of several files (name, ## lines), and warnings.

    The lines of the first file stand as they are, then what the others add, by kind. The version is the highest.
    Where two declare the same ID the first holds; contigs are the same by the name that cohorts share.
    """
    first = headers[0][1].split("\n")
    kinds: dict[str, list[str]] = {}
    seen = set(first)
    declared: dict[tuple[str, str], tuple[str, str]] = {}
    warnings: dict[tuple[str, str], str] = {}
    for file, meta in headers:
        for line in meta.split("\n"):
            key = _declares(line)
            known = None if key is None else declared.setdefault(key, (line, file))
            if line in seen or line.startswith("##fileformat="):
                continue
            seen.add(line)
            if key is not None and known is not None and known[0] is not line:
                if known[1] != file and _without_name(known[0]) != _without_name(line):
                    warnings.setdefault(
                        key,
                        f"{key[0]} {key[1]} is declared otherwise in {file} than in {known[1]}; "
                        "the header has the latter",
                    )
                continue
            kinds.setdefault(line.partition("=")[0], []).append(line)
    version = max((meta.split("\n", 1)[0] for _, meta in headers), key=minor_of)
    return [version, *first[1:], *(line for lines in kinds.values() for line in lines)], list(warnings.values())


def _declares(line: str) -> tuple[str, str] | None:
    """Kind and ID that a meta line declares; None where it declares none."""
    match = _ID.match(line)
    if match is None:
        return None
    kind, name = match.groups()
    return kind, shared_contig(name) if kind == "contig" else name


def _without_name(line: str) -> str:
    return line.replace(match.group(2), "", 1) if (match := _ID.match(line)) and match.group(1) == "contig" else line


def contigs_of(meta: Iterable[str]) -> dict[str, int | None]:
    """Declared contigs in order, with their length in bases where it is stated."""
    found: dict[str, int | None] = {}
    for line in meta:
        match = _ID.match(line)
        if match is not None and match.group(1) == "contig":
            length = re.search(r"[<,]length=([0-9]+)[,>]", line)
            found[match.group(2)] = int(length.group(1)) if length else None
    return found


def header_text(meta: Sequence[str], contigs: Iterable[str], samples: Sequence[str], has_format: bool) -> str:
    """The whole header: `meta` with a line for each of `contigs` that it lacks, and the #CHROM line."""
    lines, known = list(meta), contigs_of(meta)
    added = [f"##contig=<ID={name}>" for name in contigs if name not in known]
    last = max((i for i, line in enumerate(lines) if line.startswith("##contig=")), default=len(lines) - 1)
    lines[last + 1 : last + 1] = added
    columns = [*FIXED, *(["FORMAT", *samples] if has_format else [])]
    return "\n".join([*lines, "\t".join(columns)]) + "\n"


def _quality(value: float | None) -> str:
    return "." if value is None else repr(value).removesuffix(".0")


def fixed_columns(batch: pa.RecordBatch) -> list[pa.Array]:
    """CHROM to INFO as text."""

    def text(name: str) -> pa.Array:
        return batch.column(batch.schema.get_field_index(name))

    alts = pc.binary_join(text("alts"), ",")
    return [
        text("chrom"),
        pc.cast(text("pos"), pa.string()),
        pc.fill_null(text("id"), "."),
        text("ref"),
        pc.if_else(pc.equal(alts, ""), ".", alts),
        pa.array(map(_quality, text("qual").to_pylist()), pa.string()),
        pc.fill_null(pc.binary_join(text("filters"), ";"), "."),
        text("info"),
    ]


def _joined(columns: Sequence[pa.Array]) -> list[bytes]:
    return pc.binary_join_element_wise(*columns, "\t").cast(pa.binary()).to_pylist()


def record_lines(batch: pa.RecordBatch, has_format: bool, chosen: np.ndarray | None = None) -> Iterator[bytes]:
    """Lines of rows (COLUMNS) of one set of samples, each with its newline.
    `chosen`: as for `genotypes.sample_text`."""
    columns = fixed_columns(batch)
    if not has_format:
        for line in _joined(columns):
            yield line + b"\n"
        return
    starts = _joined([*columns, pc.fill_null(batch.column("format"), ".")])
    rest = (batch.column(name).to_pylist() for name in ("gt", "fields", "n_samples", "first_phased"))
    for start, gt, fields, n_samples, first_phased in zip(starts, *rest, strict=True):
        if n_samples and (chosen is None or len(chosen)):
            yield b"%b\t%b\n" % (start, genotypes.sample_text(gt, fields, n_samples, first_phased, chosen))
        else:
            yield start + b"\n"


@dataclass
class _Row:
    """A record of one set of samples. `start`: CHROM to INFO."""

    place: tuple[str, int]
    site: site.Alleles
    start: bytes
    keys: list[str]
    gt: bytes | None
    fields: bytes | None
    n_samples: int
    first_phased: bool
    set: int


class Joiner:
    """Lines of rows of several sets of samples: those of one site (contig,
    POS and what site.py says) become one record.

    Rows (COLUMNS and `set`, the index into `sets`) come ordered by contig, POS, file and line.
    The first of a site gives ID to INFO. A set's several records at one site are paired by their order.
    FORMAT has the keys of all, GT first. A sample of several sets has the first call that is not missing.
    """

    def __init__(self, sets: Sequence[Sequence[str]], samples: Sequence[str]) -> None:
        where = {sample: i for i, sample in enumerate(samples)}
        self._n = len(samples)
        self._chosen = [np.array([p for p, s in enumerate(names) if s in where], np.int32) for names in sets]
        self._targets = [np.array([where[s] for s in names if s in where], np.int64) for names in sets]
        places = np.concatenate([*self._targets, np.empty(0, np.int64)])
        self._overlap = len(np.unique(places)) < len(places)
        # the sets' columns only have to follow each other
        self._in_order = not self._overlap and bool((np.diff(places) > 0).all())
        self._held: list[_Row] = []

    def lines(self, batch: pa.RecordBatch) -> Iterator[bytes]:
        """Lines of all positions that are complete: the last one is held back."""
        starts = _joined(fixed_columns(batch))
        names = (
            "chrom",
            "pos",
            "ref",
            "alts",
            "end",
            "info",
            "format",
            "gt",
            "fields",
            "n_samples",
            "first_phased",
            "set",
        )
        for start, chrom, pos, ref, alts, end, info, format_, *rest in zip(
            starts, *(batch.column(n).to_pylist() for n in names), strict=True
        ):
            keys = [] if format_ in (None, ".") else format_.split(":")
            row = _Row((chrom, pos), site.alleles(ref, alts, end, info), start, keys, *rest)
            if self._held and self._held[0].place != row.place:
                yield from self.rest()
            self._held.append(row)

    def rest(self) -> Iterator[bytes]:
        """Lines of the position held back."""
        held, self._held = self._held, []
        groups: dict[tuple[site.Alleles, int], list[_Row]] = {}
        times: dict[tuple[site.Alleles, int], int] = {}
        for row in held:
            nth = times[row.site, row.set] = times.get((row.site, row.set), 0) + 1
            groups.setdefault((row.site, nth), []).append(row)
        for rows in groups.values():
            yield self._line(rows)

    def _line(self, rows: list[_Row]) -> bytes:
        keys = list(dict.fromkeys(key for row in rows for key in row.keys))
        if "GT" in keys:
            keys = ["GT", *(key for key in keys if key != "GT")]
        start = rows[0].start + b"\t" + (":".join(keys) or ".").encode()
        if not self._n:
            return start + b"\n"
        missing = _missing(keys[0] if keys else "")
        texts = {row.set: self._text(row, keys) for row in rows}
        if self._in_order:
            blocks = [
                texts.get(i) or b"\t".join([missing] * len(chosen))
                for i, chosen in enumerate(self._chosen)
                if len(chosen)
            ]
            return b"%b\t%b\n" % (start, b"\t".join(blocks))
        pool = [missing]
        places: list[np.ndarray] = []
        for row in rows:
            places.append(np.arange(len(pool), len(pool) + len(self._chosen[row.set])))
            if len(places[-1]):
                pool += texts[row.set].split(b"\t")
        place = np.zeros(self._n, np.int64)
        for row, at in zip(reversed(rows), reversed(places), strict=True):
            place[self._targets[row.set]] = at
        if self._overlap and len(rows) > 1:
            for row, at in zip(reversed(rows), reversed(places), strict=True):
                called = _called(row, self._chosen[row.set])
                place[self._targets[row.set][called]] = at[called]
        picked = itemgetter(*place.tolist())(pool)
        return b"%b\t%b\n" % (start, picked if self._n == 1 else b"\t".join(picked))

    def _text(self, row: _Row, keys: list[str]) -> bytes:
        """The columns of those of the set's samples that are wanted, under `keys`."""
        chosen = self._chosen[row.set]
        if not row.keys or not len(chosen):
            return b"\t".join([_missing(keys[0] if keys else "")] * len(chosen))
        text = genotypes.sample_text(row.gt, row.fields, row.n_samples, row.first_phased, chosen)
        return text if keys[: len(row.keys)] == row.keys else b"\t".join(_rearranged(text.split(b"\t"), row.keys, keys))


def _missing(key: str) -> bytes:
    return b"./." if key == "GT" else b"."


def _rearranged(columns: list[bytes], old: list[str], new: list[str]) -> list[bytes]:
    """Sample columns under the keys `old`, under the keys `new`: all of the former and others."""
    # Subfields that were left out at the end are put there, so that each list has an element for every key.
    full = pc.binary_join_element_wise(pa.array(columns, pa.binary()), b":".join([b"."] * len(old)), b":")
    lists = pc.split_pattern(full, b":")
    parts = [pc.list_element(lists, old.index(key)) if key in old else pa.scalar(_missing(key)) for key in new]
    return pc.binary_join_element_wise(*parts, b":").to_pylist()


def _called(row: _Row, chosen: np.ndarray) -> np.ndarray:
    """Which of the samples have a call with an allele that is not missing; without GT, all."""
    if row.gt is None or not len(chosen):
        return np.full(len(chosen), bool(row.keys))
    alleles, _ = genotypes.unpack(pa.array([row.gt], pa.binary()), row.n_samples, chosen)
    return (alleles[0] >= 0).any(axis=1)


def union_of(sets: Iterable[Sequence[str]]) -> list[str]:
    """Samples of all sets, each once, in the order of the sets."""
    return list(dict.fromkeys(sample for names in sets for sample in names))


def positions(names: Sequence[str], chosen: Sequence[str]) -> np.ndarray | None:
    """Places of `chosen` among `names`, int32; None where they are the same."""
    if list(names) == list(chosen):
        return None
    where: Mapping[str, int] = {name: i for i, name in enumerate(names)}
    return np.array([where[name] for name in chosen], np.int32)
