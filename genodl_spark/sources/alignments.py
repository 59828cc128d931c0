"""BAM and CRAM files, known to the lake by what they hold; their reads stay where they are, see `formats.alignment`."""

from __future__ import annotations

import posixpath
import uuid
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import pyarrow as pa

from genodl_spark.core import storage
from genodl_spark.core.errors import Conflict, InputError
from genodl_spark.formats import alignment
from genodl_spark.formats.alignment import Header
from genodl_spark.genome.builds import build_of
from genodl_spark.genome.reference import Reference
from genodl_spark.job.config import Settings
from genodl_spark.job.run import Run
from genodl_spark.lake.discarded import discard
from genodl_spark.lake.parts import PartWriter
from genodl_spark.lake.tables.calls import PILEUPS
from genodl_spark.lake.tables.genomes import ALIGNMENTS
from genodl_spark.sources import candidates
from genodl_spark.sources.arrival import Arrival
from genodl_spark.sources.engine import Brought, Counts, SourceFile, parts_of, tell
from genodl_spark.sources.labelled import merge_labels
from genodl_spark.sources.protocol import REFERENCE, TRUTH, SourceKind

if TYPE_CHECKING:
    from genodl_spark.lake.snapshot import Snapshot
    from genodl_spark.report.facts import Facts


class Source(SourceKind):
    """BAM and CRAM. `--reference`: the FASTA that they were aligned to, which is held against their contigs."""

    files = alignment.FILE_NAME
    table = ALIGNMENTS
    takes = frozenset({REFERENCE, TRUTH})

    def beside(self, uri: str) -> list[str]:
        """The index: its counts are stored."""
        index = alignment.header_of(uri).index
        return [] if index is None else [index]

    def header(self, uri: str, settings: Settings) -> Header:
        return alignment.header_of(uri)

    def samples(self, header: Header) -> list[str]:
        return list(_samples(header))

    def options(self, settings: Settings, reference: str | None) -> str:
        return "" if reference is None else f"reference={reference}"

    def with_truth(
        self, headers: Mapping[str, Header], truth: str, confident: str, reference: str | None
    ) -> dict[str, Header]:
        found = candidates.known(headers, truth, confident, reference)
        return {uri: replace(header, known=found) for uri, header in headers.items()}

    def tell(self, run: Run, headers: Mapping[str, Header]) -> None:
        told = []
        for uri, header in headers.items():
            name = posixpath.basename(uri)
            if header.index is None:
                told.append(f"{name} has no index: its reads are not counted, and no region of them can be read")
            if not header.samples:
                sample = next(iter(_samples(header)))
                told.append(f"{name} has no read group that names a sample: it is stored as sample {sample}")
        tell(run, told)

    def facts(self, lake: Snapshot, cohort: str) -> list[Facts]:
        from genodl_spark.sources.genome_facts import of_alignments  # loads what draws pages

        return of_alignments(lake, cohort)

    def bring(self, arrival: Arrival, files: dict[SourceFile, Header]) -> dict[str, Counts]:
        """A row for each sample of each file; where a truth is given, its candidates with their labels besides, in
        place of those that the file had."""
        run, lake, name = arrival.run, arrival.run.lake, uuid.uuid4().hex[:12]
        if arrival.reference is not None:
            reference = Reference(arrival.reference)
            for header in files.values():
                alignment.check_reference(header, reference)
        labelled = any(header.known for header in files.values())
        tables = [ALIGNMENTS, PILEUPS] if labelled else [ALIGNMENTS]
        new = [table for table in tables if not lake.exists(table)]
        writer = PartWriter(ALIGNMENTS, lake.path(ALIGNMENTS), name)
        found: dict[str, Counts] = {}
        for file, header in files.items():
            rows = list(_rows(arrival.cohort, file.name, header, arrival.reference))
            writer.write(pa.RecordBatch.from_pylist(rows, schema=ALIGNMENTS.arrow_schema()))
            found[file.name] = Counts(len(rows))
        parts = writer.close()
        staging = storage.join(lake.uri, "_staging", f"ingest-{uuid.uuid4().hex[:12]}")
        where = {"cohort": arrival.cohort, "file": list(found)}
        try:
            brought = self._candidates(arrival, files, staging, name)
            arrival.settle()
            lake.commit(ALIGNMENTS, parts, where)
            if labelled or lake.exists(PILEUPS):
                lake.commit(PILEUPS, parts_of(brought, PILEUPS), where)
                merge_labels(
                    run,
                    arrival.cohort,
                    self,
                    PILEUPS,
                    {file: candidates.labelled() for file in files},
                    brought,
                    staging,
                )
        except (InputError, Conflict):
            discard(lake, run.run_id, tables, name, new, over=True)
            raise
        finally:
            storage.remove_directory(staging)
        run.wrote(ALIGNMENTS, sum(part.rows for part in parts))
        if labelled:
            run.wrote(PILEUPS, sum(one.rows for one in brought.values()))
        return found

    def _candidates(
        self, arrival: Arrival, files: dict[SourceFile, Header], staging: str, name: str
    ) -> dict[str, Brought]:
        """Written, and not committed yet. InputError where a file has none."""
        known = next((header.known for header in files.values() if header.known), None)
        if known is None:
            return {file.name: Brought() for file in files}
        assert arrival.reference is not None
        brought = candidates.bring(arrival.run, arrival.cohort, files, known, arrival.reference, staging, name)
        for file in files:
            if not brought[file.name].rows:
                what = "found no candidate in the confident regions; expected some: has it reads there?"
                raise InputError(what, file.uri)
        return brought


def _samples(header: Header) -> dict[str, list[str]]:
    """Read groups of each sample; the file's name stands for one that it does not name."""
    return header.samples or {posixpath.splitext(posixpath.basename(header.uri))[0]: []}


def _rows(cohort: str, file: str, header: Header, reference: str | None) -> list[dict[str, object]]:
    of_file = {
        "cohort": cohort,
        "format": header.format,
        "uri": header.uri,
        "index": header.index,
        "reference": reference,
        "sort_order": header.sort_order,
        "build": build_of(dict(zip(header.contigs, header.lengths, strict=True))),
        "contigs": header.contigs,
        "lengths": header.lengths,
        "mapped": None if header.counts is None else header.counts[:, 0].tolist(),
        "unmapped": None if header.counts is None else header.counts[:, 1].tolist(),
        "unplaced": header.unplaced,
        "header": header.text,
        "file": file,
    }
    return [{**of_file, "sample_id": sample, "read_groups": groups} for sample, groups in _samples(header).items()]
