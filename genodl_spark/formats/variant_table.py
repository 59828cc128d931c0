"""Tables of variants with measured effects: `chrom`, `pos` (1-based), `ref`, `alt`, and any other columns (label or
value, group columns), to rows of `variant_effects` and `labels`.

An allele is bases, in upper or lower case, or `-` for none. A variant is called `chrom:pos:ref:alt`. Where it stands
several times in a table, measured in several elements or given in several builds, the value of a column that tells its
rows apart stands behind: that of the first column, or else the first two, by which all can be told, of those that are
not numbers; else of all of these.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genodl_spark.core.errors import InputError, Refused
from genodl_spark.core.text_values import shown
from genodl_spark.formats import delimited, entity_table, streams
from genodl_spark.formats.entity_table import Batches, Header
from genodl_spark.formats.sample_table import column_name
from genodl_spark.formats.streams import Note, Split
from genodl_spark.formats.variant_tracks import VariantTracks
from genodl_spark.genome.contigs import shared_contig
from genodl_spark.genome.reference import Reference
from genodl_spark.lake.tables.ingested import LABELS, VARIANT_EFFECTS

SOURCE = "variants"
FILE_NAME = re.compile(r"\.(tsv|csv)(\.b?gz)?$", re.IGNORECASE)
OWN = ("chrom", "pos", "ref", "alt")
_HIGHEST = 2**31 - 1
_ALLELE = r"^(?:[ACGTNacgtn]+|-)$"
_NUMBER = r"^[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?$"
_FEW = 16  # values of a column that may be builds


@dataclass(frozen=True)
class VariantHeader(Header):
    """`repeated`: variants that stand several times. `told_by`: columns that tell their rows apart.
    `values`: of columns that have few. `contigs`: the first of the file. `flank`: bases of the reference on either side
    of a variant that are stored with it. `tracks`: URIs of bigWigs by the name of the column that their values are."""

    repeated: frozenset[str] = frozenset()
    told_by: tuple[str, ...] = ()
    values: dict[str, frozenset[str]] = field(default_factory=dict)
    contigs: tuple[str, ...] = ()
    flank: int = 0
    tracks: dict[str, str] = field(default_factory=dict)

    @property
    def others(self) -> dict[str, str]:
        return super().others | {name: LABELS.beside(column_name(name)) for name in self.tracks}

    def build_column(self, builds: list[str]) -> str | None:
        """The column that says which of several builds a row is of; None where there is none."""
        return next((name for name, found in self.values.items() if found and found <= set(builds)), None)


def _named(columns: dict[str, pa.Array]) -> pa.Array:
    """chrom:pos:ref:alt, alleles in upper case."""
    alleles = [pc.utf8_upper(columns[name]) for name in ("ref", "alt")]
    return pc.binary_join_element_wise(columns["chrom"], columns["pos"], *alleles, ":")


def header_of(uri: str) -> VariantHeader:
    """The header of a table, which is read through to see how its rows are told apart. InputError as for
    `entity_table.header_of`, and where a variant stands several times and no column tells its rows apart."""
    plain = entity_table.header_of(uri, OWN, repeated=True)
    parts: list[dict[str, pa.Array]] = []
    lines: list[np.ndarray] = []
    for number, block in entity_table.blocks(uri, streams.whole(uri), 1):
        columns, found, _ = entity_table.cells(block, plain)
        sound = pa.array(~_faults(columns))
        columns, found = {name: column.filter(sound) for name, column in columns.items()}, found[sound.to_numpy(False)]
        parts.append({"": _named(columns), **{n: columns[n].dictionary_encode() for n in ("chrom", *plain.others)}})
        lines.append(found + number)
    values, contigs, text = {}, (), []
    for name in ("chrom", *plain.others) if parts else ():
        distinct = pc.unique(pa.chunked_array([part[name].dictionary for part in parts]))
        if name == "chrom":
            contigs = tuple(distinct[:5].to_pylist())
            continue
        if len(distinct) <= _FEW:
            values[name] = frozenset(distinct.to_pylist())
        if name not in ("label", "value") and not pc.all(pc.match_substring_regex(distinct, _NUMBER)).as_py():
            text.append(name)
    header = VariantHeader(plain.columns, plain.delimiter, OWN, plain.repeats, values=values, contigs=contigs)
    counts = pc.value_counts(pa.chunked_array([part[""] for part in parts], pa.string()))
    again = counts.field(0).filter(pc.greater(counts.field(1), 1))
    if not len(again):
        return header
    rows = np.concatenate([_is_in(part[""], again) for part in parts])
    ids = pa.chunked_array([part[""] for part in parts]).filter(pa.array(rows))
    cells = {n: pa.chunked_array([part[n].cast(pa.string()) for part in parts]).filter(pa.array(rows)) for n in text}
    few = (itertools.combinations(text, size) for size in (1, 2))
    for told_by in (*itertools.chain(*few), tuple(text)):
        names = pc.binary_join_element_wise(ids, *(cells[name] for name in told_by), ":")
        if told_by and pc.count_distinct(names).as_py() == len(names):
            return replace(header, repeated=frozenset(again.to_pylist()), told_by=told_by)
    twice = pc.value_counts(pc.binary_join_element_wise(ids, *cells.values(), ":").combine_chunks())
    name = twice.field(0).filter(pc.greater(twice.field(1), 1))[0].as_py()
    joined = pc.binary_join_element_wise(ids, *cells.values(), ":")
    first, second = np.concatenate(lines)[rows][pc.equal(joined, name).to_numpy()][:2].tolist()
    raise InputError(
        f"variant {name} stands twice, first on line {first}, and no column tells the rows apart; "
        "expected a column that does, such as an element or a replicate, or each variant once",
        uri,
        second,
    )


def _is_in(ids: pa.Array, some: pa.Array) -> np.ndarray:
    found: np.ndarray = pc.is_in(ids, some).to_numpy(zero_copy_only=False)
    return found


class References:
    """What alleles are held against: a FASTA, of one build or of several, where a column of the table says which."""

    def __init__(self, path: str, header: VariantHeader) -> None:
        """InputError where the FASTA has several builds and the table does not say which a row is of."""
        builds = Reference.builds(path)
        self.column = header.build_column(builds) if len(builds) > 1 else None
        if len(builds) > 1 and self.column is None:
            raise InputError(
                f"found slices of {' and '.join(builds)}, and no column of the table with these values; "
                "expected one, such as release, or a FASTA of one build",
                path,
            )
        self._by_build = {build: Reference(path, build) for build in builds} if len(builds) > 1 else {}
        self._only = None if self._by_build else Reference(path)
        self.build = builds[0] if len(builds) == 1 else None

    def fault(self, build: str | None, chrom: str, pos: int, ref: str) -> str | None:
        """Why REF is not what the reference has there; None where it is."""
        reference = self._only or self._by_build[build or ""]
        try:
            held = reference.fetch(chrom, pos - 1, pos - 1 + (0 if ref == "-" else len(ref))).decode("ascii").upper()
        except Refused as refused:
            return str(refused)
        return (
            None if ref == "-" or held == ref else f"found REF {shown(ref)}; expected {held}, as the reference has it"
        )

    def around(self, build: str | None, chrom: str, pos: int, ref: str, flank: int) -> tuple[str, str]:
        """Bases before and behind a REF that is there, in upper case, up to `flank` of each."""
        reference, start = self._only or self._by_build[build or ""], pos - 1
        before, after = reference.around(chrom, start, start + (0 if ref == "-" else len(ref)), flank)
        return before.decode("ascii").upper(), after.decode("ascii").upper()

    @property
    def reaches(self) -> dict[str | None, dict[str, tuple[int, bool]]]:
        """`Reference.reaches` by build; of the only one by its name, None where it has none."""
        if self._only is not None:
            return {self.build: self._only.reaches}
        return {build: reference.reaches for build, reference in self._by_build.items()}

    def said(self) -> str:
        """Contigs and builds that it has, for a message."""
        every = [self._only] if self._only else list(self._by_build.values())
        return " and ".join(reference.said() for reference in every)


def read(
    uri: str,
    split: Split,
    first: int,
    header: VariantHeader,
    cohort: str,
    file: str,
    references: References | None,
    note: Note = lambda line, what: None,
    tracks: VariantTracks | None = None,
) -> Iterator[Batches]:
    """Rows of `variant_effects`, of `labels` (those of the header) and of `quarantine` for a piece of a file, block by
    block; the rows of the first two are of the same records.

    In quarantine are records of another number of columns than the header's, without a chromosome, position or alleles,
    with the same allele twice, and those whose REF `references` do not have there. `tracks`: those of the header.
    """
    for number, block in entity_table.blocks(uri, split, first):
        yield _parse(block, number, header, cohort, file, references, note, tracks)


def _parse(
    block: bytes,
    number: int,
    header: VariantHeader,
    cohort: str,
    file: str,
    references: References | None,
    note: Note,
    tracks: VariantTracks | None,
) -> Batches:
    columns, lines, bad = entity_table.cells(block, header)
    faults = _faults(columns)
    for row in np.flatnonzero(faults).tolist():
        bad[int(lines[row])] = _reason({name: columns[name][row].as_py() for name in OWN})
    columns, lines = entity_table.kept(columns, lines, bad)
    alleles = {name: pc.utf8_upper(columns[name]) for name in ("ref", "alt")}
    for name, upper in alleles.items():
        for row in np.flatnonzero(pc.not_equal(columns[name], upper).to_numpy(zero_copy_only=False)).tolist():
            note(number + int(lines[row]), f"have {name} in lower case, stored in upper case")
    columns |= alleles
    around: list[tuple[str | None, str | None]] = []
    if references is not None:
        builds = columns[references.column].to_pylist() if references.column else [None] * len(lines)
        every = zip(
            builds, *(columns[name].to_pylist() for name in ("chrom", "pos", "ref")), lines.tolist(), strict=True
        )
        wrong = {}
        for build, chrom, pos, ref, line in every:
            if (fault := references.fault(build, chrom, int(pos), ref)) is not None:
                wrong[line] = fault
            else:
                around.append(references.around(build, chrom, int(pos), ref, header.flank))
        columns, lines = entity_table.kept(columns, lines, wrong)
        bad |= wrong
    n = len(lines)
    ids = _named(columns)
    if header.repeated and n:
        again = pc.is_in(ids, pa.array(sorted(header.repeated)))
        ids = pc.if_else(again, pc.binary_join_element_wise(ids, *(columns[name] for name in header.told_by), ":"), ids)
    cohorts, files = (pa.repeat(pa.scalar(value, pa.string()), n) for value in (cohort, file))
    coded = columns["chrom"].dictionary_encode()
    contigs = pa.array([shared_contig(name) for name in coded.dictionary.to_pylist()], pa.string()).take(coded.indices)
    column = None if references is None else references.column
    build = (
        columns[column] if column else pa.repeat(pa.scalar(references.build if references else None, pa.string()), n)
    )
    if tracks is not None:
        columns |= tracks.texts(columns, columns[column] if column else None, lines + number, note)
    places = [files, pa.array(lines + number, pa.int64())]
    rows = [
        cohorts,
        ids,
        contigs,
        columns["chrom"],
        columns["pos"].cast(pa.int64()),
        columns["ref"],
        columns["alt"],
        build,
    ]
    flanks = [pa.array([pair[side] for pair in around] or [None] * n, pa.string()) for side in (0, 1)]
    named = [cohorts, pa.repeat(pa.scalar(VARIANT_EFFECTS.kind), n), ids, *places]
    return (
        pa.RecordBatch.from_arrays([*rows, *places, *flanks], schema=VARIANT_EFFECTS.arrow_schema()),
        entity_table.labels(header, columns, named, number, lines, note),
        entity_table.set_aside(block, number, bad, cohort, SOURCE, file),
    )


def _faults(columns: dict[str, pa.Array]) -> np.ndarray:
    """Which records are no variants, bool (n,)."""
    chrom, pos, ref, alt = (columns[name] for name in OWN)
    wrong = delimited.odd_names(chrom)
    wrong = pc.or_(wrong, pc.invert(pc.match_substring_regex(pos, r"^0*[1-9][0-9]{0,9}$")))
    for allele in (ref, alt):
        wrong = pc.or_(wrong, pc.invert(pc.match_substring_regex(allele, _ALLELE)))
    wrong = pc.or_(wrong, pc.equal(pc.utf8_upper(ref), pc.utf8_upper(alt))).to_numpy(zero_copy_only=False)
    large = pc.greater_equal(pc.utf8_length(pos), 10).to_numpy(zero_copy_only=False) & ~wrong
    for row in np.flatnonzero(large).tolist():
        wrong[row] = int(pos[row].as_py()) > _HIGHEST
    found: np.ndarray = wrong
    return found


def _reason(row: dict[str, str]) -> str:
    """Why a record is no variant."""
    if not re.fullmatch(r"[0-9]{1,12}", row["pos"]) or not 1 <= int(row["pos"]) <= _HIGHEST:
        return f"found position {shown(row['pos'])}; expected a whole number from 1 to {_HIGHEST:,}"
    for name in ("ref", "alt"):
        if not re.fullmatch(r"[ACGTNacgtn]+|-", row[name]):
            return f"found {shown(row[name])} as {name}; expected bases, or - for none"
    if row["ref"].upper() == row["alt"].upper():
        return f"found {shown(row['ref'])} as both alleles; expected two"
    return f"found {shown(row['chrom'])} as chromosome; expected its name"
