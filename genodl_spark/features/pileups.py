"""Features of candidate alleles of a caller: counts, reads and evidence, as `ingest alignments --truth` has packed
them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genodl_spark.features.protocol import ROWS, Changed, Choice, StoredRows, batch_of
from genodl_spark.genetics.calling.pileups import EVIDENCE
from genodl_spark.lake.schema import VARIANT, Table
from genodl_spark.lake.tables.calls import PILEUPS

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from genodl_spark.lake.snapshot import Snapshot

NAMES = ["counts", "reads", *EVIDENCE]


def packed(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Rows as they are stored."""
    for batch in batches:
        yield batch_of(batch.column("variant_id"), batch.column("x"), np.zeros(batch.num_rows))


@dataclass(frozen=True)
class PileupFeatures:
    """NAMES, of which the first two are many values each: the encoding `pileups` takes them apart."""

    dtype: str = "uint8"
    encoding: str | None = "pileups"
    entity: str = VARIANT

    @property
    def tables(self) -> tuple[Table, ...]:
        return (PILEUPS,)

    def cohorts(self, lake: Snapshot) -> list[str]:
        return lake.cohorts(PILEUPS)

    def entities(self, lake: Snapshot, cohort: str) -> list[str]:
        found = self._stored(lake, cohort).select("variant_id").toArrow()  # identifiers
        return sorted(found.column("variant_id").to_pylist())

    def _stored(self, lake: Snapshot, cohort: str) -> DataFrame:
        from pyspark.sql import functions as F

        return lake.read(PILEUPS, cohort).where(F.col("cohort") == cohort)

    def alike(self, lake: Snapshot, cohort: str, entities: list[str], identity: float) -> np.ndarray:
        """Numbers of groups, int (entities,): those of one position, at whatever depth, are one group."""
        found = self._stored(lake, cohort).select("variant_id", "contig", "pos").toArrow().combine_chunks()
        rows = found.take(pc.index_in(pa.array(entities, pa.string()), found.column("variant_id").combine_chunks()))
        places = pc.binary_join_element_wise(rows.column("contig"), rows.column("pos").cast(pa.string()), "\t")
        groups: np.ndarray = pc.dictionary_encode(places).combine_chunks().indices.to_numpy(zero_copy_only=False)
        return groups

    def shared(self, identity: float) -> str:
        """What those of a group of `alike` share."""
        return "their position"

    def choose(self, lake: Snapshot, cohort: str, entities: list[str], learns: np.ndarray) -> Choice:
        return Choice(list(NAMES))

    def rows(self, lake: Snapshot, cohort: str, features: list[str]) -> DataFrame:
        whole = self.stored(lake, cohort, features)
        return self._stored(lake, cohort).select(*whole.columns).mapInArrow(whole.pack, ROWS)

    def stored(self, lake: Snapshot, cohort: str, features: list[str]) -> StoredRows:
        return StoredRows(lake.cohort_files(PILEUPS, cohort), ["variant_id", "x"], packed)

    def changed(self, lake: Snapshot, cohort: str, since: Mapping[str, int]) -> Changed | None:
        from pyspark.sql import functions as F

        found = lake.changed(PILEUPS, cohort, since.get(PILEUPS.name), ["variant_id"], ["x"])
        return found and Changed(found[0].select(F.col("variant_id").alias("entity_id")), found[1])
