"""Files of a cohort's genotypes into the lake, VCF and BCF, PLINK and BGEN, told apart by their first bytes:
their records, their sample orders, and the builds that they may have."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from genodl_spark.core import storage
from genodl_spark.core.errors import InputError
from genodl_spark.formats import bgen, plink, sample_table
from genodl_spark.formats.sample_table import SampleTable
from genodl_spark.formats.sites import GenotypeHeader, Rows
from genodl_spark.formats.streams import Note, Split
from genodl_spark.formats.vcf import reader as vcf
from genodl_spark.formats.vcf.header import Header
from genodl_spark.formats.vcf.normalise import Normaliser
from genodl_spark.genome.builds import build_of
from genodl_spark.genome.contigs import shared_contig
from genodl_spark.genome.reference import Reference
from genodl_spark.job.config import Settings
from genodl_spark.job.run import Run
from genodl_spark.lake.parts import PartWriter
from genodl_spark.lake.schema import Table
from genodl_spark.lake.tables.ingested import QUARANTINE, SAMPLE_SETS, SOURCES, VARIANTS
from genodl_spark.sources.arrival import Arrival
from genodl_spark.sources.engine import Counts, Piece, Reader, SourceFile, counts, ingest_files, tell
from genodl_spark.sources.protocol import REFERENCE, SourceKind

if TYPE_CHECKING:
    from genodl_spark.lake.snapshot import Snapshot
    from genodl_spark.report.facts import Facts

_FIRST = 32  # bytes that tell PLINK and BGEN


def _format(uri: str) -> ModuleType:
    """What reads a file: `plink`, `bgen`, or `vcf` for all others."""
    with storage.open_input(uri) as raw:
        first = raw.read(_FIRST)
    return plink if plink.is_plink(first) else bgen if bgen.is_bgen(first) else vcf


class Source(SourceKind):
    """VCF and BCF, PLINK's .bed with its .bim and .fam, and BGEN."""

    files = re.compile(rf"{vcf.FILE_NAME.pattern}|\.(bed|bgen)$", re.IGNORECASE)
    table = VARIANTS
    takes = frozenset({REFERENCE})

    def facts(self, lake: Snapshot, cohort: str) -> list[Facts]:
        from genodl_spark.sources.genotype_facts import facts_of  # loads what draws pages

        return facts_of(lake, cohort)

    def is_one(self, uri: str) -> bool:
        return bool(vcf.FILE_NAME.search(uri)) or _format(uri) is not vcf  # a .bed may as well hold intervals

    def beside(self, uri: str) -> Sequence[str]:
        found = vcf if vcf.FILE_NAME.search(uri) else _format(uri)
        return () if found is vcf else [one for one in found.beside(uri) if storage.is_file(one)]

    def header(self, uri: str, settings: Settings) -> Header:
        found = _format(uri)
        header: Header = vcf.header_of(uri, settings.ingest.strict) if found is vcf else found.header_of(uri)
        return header

    def tables(self, headers: Mapping[str, Header]) -> list[SampleTable]:
        people = (header.people for header in headers.values() if isinstance(header, GenotypeHeader))
        return list(sample_table.joined([table for table in people if table is not None]))

    def samples(self, header: Header) -> list[str]:
        return header.samples

    def options(self, settings: Settings, reference: str | None) -> str:
        """The normalisation that is asked for, and from which probability on a genotype is a call."""
        s = settings.ingest
        chosen = ["split"] if s.split_alleles else []
        chosen += [f"align={reference}"] if reference else []
        usual = type(s)().call_probability
        return " ".join([*chosen, *([f"call={s.call_probability}"] if s.call_probability != usual else [])])

    def manifest(self, header: Header) -> dict[str, Any]:
        return {"header": header.text, "build": build_of(header.contigs)}

    def check(self, run: Run, cohort: str, files: Mapping[SourceFile, Header]) -> None:
        _check_builds(run, cohort, files)

    def stored_samples(self, run: Run, cohort: str, block: str, files: list[str]) -> dict[str, set[str]]:
        from pyspark.sql import functions as F

        mine = (F.col("cohort") == cohort) & F.col("file").isin(files) & (F.col("source") == self.name)
        rows = run.lake.read(SOURCES).where(mine & F.col("header").isNotNull())
        lines = rows.select("file", F.substring_index("header", "\n", -1).alias("columns")).collect()
        return {row.file: set(row.columns.split("\t")[9:]) for row in lines}

    def bring(self, arrival: Arrival, files: dict[SourceFile, Header]) -> dict[str, Counts]:
        """Records into `variants` and `quarantine`, lines of headers that break the specification too,
        and sample orders into `sample_sets`."""
        run, cohort, reference = arrival.run, arrival.cohort, arrival.reference
        if reference is not None:
            Reference(reference)  # makes its index before many tasks want it, and says what is wrong with it
        s, lake = run.settings.ingest, run.lake
        reader = _VcfReader(
            cohort,
            lake.path(VARIANTS),
            lake.path(QUARANTINE),
            s.batch,
            s.bin_width,
            s.line_bytes,
            s.split_alleles,
            reference,
            frozenset(f.uri for f, header in files.items() if isinstance(header, GenotypeHeader) and header.human),
            s.call_probability,
        )
        aside = [vcf.Reader(header, cohort, file.name).of_header() for file, header in files.items() if header.aside]
        beside = pa.Table.from_batches(aside, QUARANTINE.arrow_schema()).combine_chunks().to_batches()
        brought = ingest_files(
            run, cohort, VARIANTS, reader, list(files), arrival.settle, beside=beside[0] if beside else None
        )
        _tell_headers(run, files, reference is not None)
        _write_sample_sets(run, list(files.values()))
        return counts(brought)


@dataclass(frozen=True)
class _VcfReader(Reader):
    """Reads files of genotypes; `variants`, `quarantine`: URIs of the tables. `human`: URIs of files whose numbers of
    chromosomes are those of people. See `engine.Reader`.

    Tasks read headers again: those of many files would be long to send.
    """

    cohort: str
    variants: str
    quarantine: str
    batch: int
    bin_width: int
    line_bytes: int
    split_alleles: bool
    reference: str | None
    human: frozenset[str]
    call_probability: float
    source: str = vcf.SOURCE

    def splits(self, uri: str, target: int) -> list[Split]:
        found = _format(uri)
        if found is bgen:  # records can be told apart from the first one on alone
            return [Split(0, storage.size(uri))]
        return plink.splits(uri, target) if found is plink else vcf.splits(uri, target)

    def length(self, piece: Piece) -> int:
        return plink.length(piece.uri, piece.split) if _format(piece.uri) is plink else super().length(piece)

    def targets(self, piece: Piece) -> list[tuple[Table, str]]:
        return [(VARIANTS, self.variants), (QUARANTINE, self.quarantine)]

    def batches(self, piece: Piece, note: Note) -> Iterator[Sequence[pa.RecordBatch]]:
        found = _format(piece.uri)
        if found is not vcf:
            samples, human = found.samples_of(piece.uri), piece.uri in self.human
            of = Rows(self.cohort, piece.name, self.bin_width, samples, human, self.source)
            if found is plink:
                yield from plink.read(piece.uri, piece.split, of, self.reference, note)
            else:
                yield from bgen.read(piece.uri, of, self.reference, note, self.call_probability, self.split_alleles)
            return
        header = vcf.header_of(piece.uri)
        normaliser = None
        if self.split_alleles or self.reference is not None:
            normaliser = Normaliser(
                header, self.split_alleles, None if self.reference is None else Reference(self.reference)
            )
        reader = vcf.Reader(header, self.cohort, piece.name, self.bin_width, normaliser, note)
        for number, block in vcf.split_lines(piece.uri, piece.split, piece.first, header, self.line_bytes):
            yield from reader.batches(number, block, self.batch)


def _tell_headers(run: Run, files: Mapping[SourceFile, Header], aligned: bool) -> None:
    told = []
    for file, header in files.items():
        if isinstance(header, GenotypeHeader):
            told += [f"{file.name}: {note}" for note in header.notes]
            if not aligned:
                told.append(f"REF and ALT of {file.name} are as it has them; --reference holds them against a FASTA")
        for line, reason, _ in header.aside[:1]:
            found = f"{len(header.aside)} header lines of {file.name} break the specification"
            told.append(
                f"{found} and are in quarantine, its records are read all the same; first line {line}: {reason}"
            )
    tell(run, told)


def _check_builds(run: Run, cohort: str, files: Mapping[SourceFile, Header]) -> None:
    """Refuses files of another genome build than the cohort's; tells how contigs are named. InputError."""
    seen: dict[str, str] = {}
    known = run.lake.rows(SOURCES, {"cohort": cohort}, columns=["build", "file"]).to_pylist()
    for row in sorted(known, key=lambda row: str(row["file"])):
        if row["build"] is not None:
            seen.setdefault(row["build"], row["file"])
    names: set[str] = set()
    for file, header in files.items():
        build = build_of(header.contigs)
        other = next((b for b in seen if b != build), None)
        if build is not None and other is not None:
            found = f"the contig lengths of {build}, where {seen[other]} of cohort {cohort} has those of {other}"
            raise InputError(
                f"found {found}; expected one build in a cohort: lift the file over, or give it a cohort of its own",
                file.uri,
            )
        if build is not None:
            seen[build] = file.name
        names |= {c for c in header.contigs if shared_contig(c) != c}
    run.report.metrics["build"] = next(iter(seen), None)
    run.report.metrics["renamed_contigs"] = {name: shared_contig(name) for name in sorted(names)}


def _write_sample_sets(run: Run, headers: list[Header]) -> None:
    lake = run.lake
    known = set(lake.rows(SAMPLE_SETS, {}, columns=["sample_set"]).column("sample_set").unique().to_pylist())
    orders = {
        header.sample_set: header.samples for header in headers if header.sample_set not in known and header.samples
    }
    parts = []
    for name, order in orders.items():
        writer = PartWriter(SAMPLE_SETS, lake.path(SAMPLE_SETS), name)
        columns = [
            pa.repeat(pa.scalar(name), len(order)),
            pa.array(range(len(order)), pa.int32()),
            pa.array(order, pa.string()),
        ]
        writer.write(pa.RecordBatch.from_arrays(columns, schema=SAMPLE_SETS.arrow_schema()))
        parts += writer.close()
    lake.commit(SAMPLE_SETS, parts, {"sample_set": list(orders)})
    run.wrote(SAMPLE_SETS, sum(part.rows for part in parts))
