"""Tables of variants with measured effects into the lake. Where a FASTA is given, their REF is held against it, and the
bases around them are stored with them; of tracks, the values at them become columns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from genodl_spark.core.errors import InputError
from genodl_spark.formats import streams, variant_table
from genodl_spark.formats.entity_table import Batches
from genodl_spark.formats.sample_table import column_name
from genodl_spark.formats.streams import Note, Split
from genodl_spark.formats.variant_table import References, VariantHeader
from genodl_spark.formats.variant_tracks import VariantTracks
from genodl_spark.job.config import Settings
from genodl_spark.job.run import Run
from genodl_spark.lake.tables.ingested import LABELS, VARIANT_EFFECTS
from genodl_spark.sources.arrival import Arrival
from genodl_spark.sources.engine import Counts, Piece, SourceFile
from genodl_spark.sources.labelled import LabelledKind
from genodl_spark.sources.protocol import REFERENCE, TRACKS


class Source(LabelledKind):
    """Variant tables."""

    files = variant_table.FILE_NAME
    table = VARIANT_EFFECTS
    takes = frozenset({REFERENCE, TRACKS})

    def header(self, uri: str, settings: Settings) -> VariantHeader:
        return replace(variant_table.header_of(uri), flank=settings.ingest.flank)

    def options(self, settings: Settings, reference: str | None) -> str:
        return f"reference={reference} flank={settings.ingest.flank}" if reference else ""

    def with_tracks(
        self, headers: Mapping[str, VariantHeader], tracks: Mapping[str, str], reference: str | None
    ) -> dict[str, VariantHeader]:
        for uri, header in headers.items():
            check_names([*header.others, *header.own], tracks, uri)
            VariantTracks(tracks, None if reference is None else References(reference, header).reaches)
        return {uri: replace(header, tracks=dict(tracks)) for uri, header in headers.items()}

    def tell(self, run: Run, headers: Mapping[str, VariantHeader]) -> None:
        for uri, header in headers.items():
            name = uri.rpartition("/")[2]
            if header.repeated:
                found = f"{len(header.repeated)} variants stand several times in {name}"
                run.report.warn(f"{found}: {', '.join(header.told_by)} stands behind their names")
            for place, first in header.repeats.items():
                column = f"column {place + 1} of {name} has the name and the values of column {first + 1}"
                run.report.warn(f"{column}, {header.columns[first]}, and is passed over")

    def bring(self, arrival: Arrival, files: dict[SourceFile, VariantHeader]) -> dict[str, Counts]:
        if arrival.reference is not None:
            for header in files.values():  # makes its index before many tasks want it, and says what is wrong with it
                References(arrival.reference, header)
        return super().bring(arrival, files)

    def splits(self, uri: str, header: VariantHeader, target: int) -> list[Split]:
        return streams.splits(uri, target)

    def read(
        self, piece: Piece, header: VariantHeader, cohort: str, reference: str | None, note: Note
    ) -> Iterator[Batches]:
        references = None if reference is None else References(reference, header)
        reaches = None if references is None else references.reaches
        tracks = VariantTracks(header.tracks, reaches) if header.tracks else None
        given = (header, cohort, piece.name, references, note, tracks)
        return variant_table.read(piece.uri, piece.split, piece.first, *given)

    def why_none(self, header: VariantHeader, reference: str | None) -> str:
        if reference is None:
            return ""
        said = References(reference, header).said()
        return f" against {said}, where the table has contigs {', '.join(header.contigs)}: is it the same build?"


def check_names(columns: Iterable[str], tracks: Iterable[str], uri: str) -> None:
    """InputError for a track whose values cannot be a column of that name beside those of the table at `uri`."""
    seen = {LABELS.beside(column_name(name)).lower() for name in columns}
    for name in tracks:
        stored = LABELS.beside(column_name(name)).lower()
        if stored in seen:
            raise InputError(
                f"found a track called {name}, as a column of {uri.rpartition('/')[2]} is, or another track; "
                "expected a name of its own",
                "--tracks",
            )
        seen.add(stored)
