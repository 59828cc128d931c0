"""What a page says of references, annotations, alignments and mutations: what there is of each kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genodl_spark.lake.snapshot import Snapshot
from genodl_spark.lake.summaries import Reading
from genodl_spark.lake.tables.genomes import ALIGNMENTS, ANNOTATIONS, REFERENCE
from genodl_spark.lake.tables.portals import MUTATIONS
from genodl_spark.report.facts import Facts, Listing
from genodl_spark.report.measures import Spread, bars_of

_LISTED = 25


class Tallies:
    """How many rows each value of some columns has."""

    def __init__(self, *columns: str) -> None:
        self.rows = 0
        self.of: dict[str, Counter[str | None]] = {name: Counter() for name in columns}

    def add(self, rows: pa.RecordBatch) -> None:
        self.rows += rows.num_rows
        for name, counts in self.of.items():
            counts.update({row["values"]: row["counts"] for row in pc.value_counts(rows.column(name)).to_pylist()})

    def merge(self, other: Tallies) -> None:
        self.rows += other.rows
        for name, counts in other.of.items():
            self.of[name].update(counts)

    def listing(self, name: str, title: str, what: str) -> Listing:
        ordered = sorted(self.of[name].items(), key=lambda item: (-item[1], item[0] or ""))
        left = len(ordered) - _LISTED
        note = f"{left:,} more are left out." if left > 0 else ""
        return Listing(
            title, [title.removeprefix("By ").capitalize(), what], [list(row) for row in ordered[:_LISTED]], note
        )


def of_mutations(lake: Snapshot, cohort: str) -> list[Facts]:
    columns = ("sample_id", "classification", "type", "gene", "build")
    found = Reading(MUTATIONS, {"cohort": cohort}, columns).summarise(lake, Tallies(*columns))
    if not found.rows:
        return []
    each = Spread()
    each.add(np.array(list(found.of["sample_id"].values())))
    builds = ", ".join(sorted(filter(None, found.of["build"]))) or "no build told"
    said = [f"{found.rows:,} mutations of {each.n:,} samples, {builds}. Samples without a mutation do not count."]
    listings = [
        found.listing("classification", "By classification", "Mutations"),
        found.listing("type", "By type", "Mutations"),
        found.listing("gene", "By gene", "Mutations"),
    ]
    return [Facts("Mutations", said, [bars_of("Mutations per sample", each, "Mutations", "Samples")], listings)]


def of_annotations(lake: Snapshot, cohort: str) -> list[Facts]:
    found = Reading(ANNOTATIONS, {"cohort": cohort}, ("type", "contig")).summarise(lake, Tallies("type", "contig"))
    if not found.rows:
        return []
    said = [f"{found.rows:,} features on {len(found.of['contig']):,} contigs."]
    listings = [found.listing("type", "By type", "Features"), found.listing("contig", "By contig", "Features")]
    return [Facts("Annotation", said, [], listings)]


class Contigs:
    """Rows of `reference`, or of `alignments`, by contig: bases, and mapped reads; and reads by file."""

    def __init__(self) -> None:
        self.bases: dict[str, int] = {}
        self.mapped: Counter[str] = Counter()
        self.reads, self.unmapped = Spread(), Spread()
        self.rows = self.unknown = 0
        self.builds: set[str] = set()
        self.files: set[str] = set()

    def add(self, rows: pa.RecordBatch) -> None:
        for row in rows.to_pylist():  # a row for each file, or for each sequence of a genome
            self.rows += 1
            self.builds |= {row["build"]} - {None}
            if "name" in row:
                self.bases[row["name"]] = row["length"]
                continue
            if row["file"] in self.files:  # a row for each sample of it
                continue
            self.files.add(row["file"])
            self.bases |= dict(zip(row["contigs"], row["lengths"], strict=True))
            if row["mapped"] is None:
                self.unknown += 1
                continue
            self.mapped.update(dict(zip(row["contigs"], row["mapped"], strict=True)))
            mapped = sum(row["mapped"])
            lost = sum(row["unmapped"] or ()) + (row["unplaced"] or 0)
            self.reads.add(np.array([mapped + lost]))
            self.unmapped.add(np.array([lost / max(mapped + lost, 1)]))

    def merge(self, other: Contigs) -> None:
        self.bases |= other.bases
        self.mapped.update(other.mapped)
        self.reads.merge(other.reads)
        self.unmapped.merge(other.unmapped)
        self.rows, self.unknown = self.rows + other.rows, self.unknown + other.unknown
        self.builds |= other.builds
        self.files |= other.files

    def listing(self, header: Sequence[str]) -> Listing:
        ordered = sorted(self.bases, key=lambda name: (-self.bases[name], name))
        rows = [
            [name, self.bases[name], *([self.mapped[name]] if len(header) > 2 else [])] for name in ordered[:_LISTED]
        ]
        left = len(ordered) - _LISTED
        return Listing("The longest contigs", header, rows, f"{left:,} more are left out." if left > 0 else "")

    @property
    def built(self) -> str:
        return ", ".join(sorted(self.builds)) or "of no known build"


def of_reference(lake: Snapshot, cohort: str) -> list[Facts]:
    found = Reading(REFERENCE, {"cohort": cohort}, ("name", "length", "build")).summarise(lake, Contigs())
    if not found.rows:
        return []
    said = [f"{found.rows:,} sequences, {sum(found.bases.values()):,} bases, {found.built}."]
    return [Facts("Reference", said, [], [found.listing(["Sequence", "Bases"])])]


def of_alignments(lake: Snapshot, cohort: str) -> list[Facts]:
    columns = ("file", "build", "contigs", "lengths", "mapped", "unmapped", "unplaced")
    found = Reading(ALIGNMENTS, {"cohort": cohort}, columns).summarise(lake, Contigs())
    if not found.rows:
        return []
    said = [f"{len(found.files):,} files on {len(found.bases):,} contigs, {found.built}."]
    if found.unknown:
        said.append(f"The reads of {found.unknown:,} files are not known: no index counts them.")
    if not found.reads.n:
        return [Facts("Alignments", said, [], [found.listing(["Contig", "Bases"])])]
    bars = [
        bars_of("Reads of each file", found.reads, "Reads", "Files"),
        bars_of("Reads that are not mapped", found.unmapped, "Share of a file's reads", "Files", True),
    ]
    return [Facts("Alignments", said, bars, [found.listing(["Contig", "Bases", "Mapped reads"])])]
