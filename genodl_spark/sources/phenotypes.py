"""Tables of columns for samples that are there, and the sample tables that come beside data."""

from __future__ import annotations

from genodl_spark.formats import sample_table
from genodl_spark.formats.sample_table import SampleTable
from genodl_spark.job.config import Settings
from genodl_spark.lake.tables.ingested import SAMPLES
from genodl_spark.sources.arrival import Arrival
from genodl_spark.sources.engine import Counts, SourceFile
from genodl_spark.sources.protocol import SourceKind
from genodl_spark.sources.samples import merge_samples, read_samples


class Source(SourceKind):
    """Rows of a table are joined with what is known of a sample; the header is the table."""

    table = SAMPLES
    adds = True

    def header(self, uri: str, settings: Settings) -> SampleTable:
        return read_samples(uri)

    def people(self, header: SampleTable) -> list[str]:
        return list(header.rows)

    def bring(self, arrival: Arrival, files: dict[SourceFile, SampleTable]) -> dict[str, Counts]:
        arrival.settle()
        for alike in sample_table.joined(list(files.values())):
            merge_samples(arrival.run, arrival.cohort, alike)
        return {file.name: Counts(len(table.rows)) for file, table in files.items()}


BESIDE = Source("samples")
