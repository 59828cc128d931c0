"""Features of sequences: a base code at each position."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genodl_spark.core import packing
from genodl_spark.features.alike import links
from genodl_spark.features.protocol import ROW_NAMES, ROWS, Changed, Choice, StoredRows, batch_of
from genodl_spark.genome import bases
from genodl_spark.lake.schema import SEQUENCE, Table
from genodl_spark.lake.tables.ingested import SEQUENCES
from genodl_spark.learning.splits import connected

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from genodl_spark.lake.snapshot import Snapshot

POSITION = "position:"
_PACKED = 64 << 20  # bytes of rows in one Arrow batch


@dataclass(frozen=True)
class SequenceFeatures:
    """Base codes of a cohort's sequences, aligned at their centres: `position:1` to `position:L`,
    -1 beyond a sequence's ends.

    `length`: L; 0 for the longest sequence that any training set learns from. Longer sequences are cut on both sides:
    rows have a column more, length, the bases of the whole sequence.
    """

    length: int = 0
    dtype: str = "int8"
    encoding: str | None = "onehot"
    entity: str = SEQUENCE

    @property
    def tables(self) -> tuple[Table, ...]:
        return (SEQUENCES,)

    def cohorts(self, lake: Snapshot) -> list[str]:
        return lake.cohorts(SEQUENCES)

    def entities(self, lake: Snapshot, cohort: str) -> list[str]:
        # identifiers, not sequences
        return sorted(self._stored(lake, cohort).select("sequence_id").toArrow().column("sequence_id").to_pylist())

    def _stored(self, lake: Snapshot, cohort: str) -> DataFrame:
        from pyspark.sql import functions as F

        return lake.read(SEQUENCES, cohort).where(F.col("cohort") == cohort)

    def _longest(self, lake: Snapshot, cohort: str) -> int:
        from pyspark.sql import functions as F

        def asked() -> int:
            greatest = [file.ends("length")[1] for file in lake.cohort_files(SEQUENCES, cohort)]
            if None not in greatest:  # the log knows
                return max(greatest, default=0)
            return self._stored(lake, cohort).agg(F.max("length").alias("length")).collect()[0].length or 0

        longest: int = lake.once(("longest", cohort), asked)
        return longest

    def alike(self, lake: Snapshot, cohort: str, entities: list[str], identity: float) -> np.ndarray:
        """Numbers of groups, int (entities,): those of one hang together by pairs of which `identity` of the bases are
        the same (`genodl_spark/features/alike.py`)."""
        from pyspark.sql import functions as F

        wanted = lake.spark.createDataFrame(pa.table({"id": pa.array(entities, pa.string())}))
        stored = self._stored(lake, cohort).select(F.col("sequence_id").alias("id"), "codes").join(wanted, "id")
        linked = links(stored, identity).toArrow()  # identifiers, not sequences
        names = pa.array(entities, pa.string())
        first, second = (pc.index_in(linked.column(side), names).to_numpy() for side in ("a", "b"))
        return connected(len(entities), first, second)

    def shared(self, identity: float) -> str:
        """What those of a group of `alike` share."""
        return f"{identity:.4g} or more of the bases"

    def choose(self, lake: Snapshot, cohort: str, entities: list[str], learns: np.ndarray) -> Choice:
        longest = self.length
        if not longest:
            found = self._stored(lake, cohort).select("sequence_id", "length").toArrow()  # identifiers, not sequences
            wanted = pa.array(entities, pa.string()).filter(pa.array(learns.any(0)))
            longest = pc.max(found.column("length").filter(pc.is_in(found.column("sequence_id"), wanted))).as_py() or 0
        return Choice([f"{POSITION}{i + 1}" for i in range(longest)])

    def rows(self, lake: Snapshot, cohort: str, features: list[str]) -> DataFrame:
        whole = self.stored(lake, cohort, features)
        return self._stored(lake, cohort).select(*whole.columns).mapInArrow(whole.pack, f"{ROWS}, length int")

    def stored(self, lake: Snapshot, cohort: str, features: list[str]) -> StoredRows:
        width = len(features)
        missing = max(0, width - self._longest(lake, cohort))
        step = max(1, _PACKED // width)

        def pack(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            for whole in batches:
                for start in range(0, whole.num_rows, step):
                    batch = whole.slice(start, step)
                    codes, ends = packing.binary(batch.column("codes"))
                    x = bases.centred(codes.view(np.int8), ends, width)
                    columns = batch_of(batch.column("sequence_id"), x, np.full(len(x), missing)).columns
                    yield pa.RecordBatch.from_arrays(
                        [*columns, pa.array(np.diff(ends).astype(np.int32))], [*ROW_NAMES, "length"]
                    )

        return StoredRows(lake.cohort_files(SEQUENCES, cohort), ["sequence_id", "codes"], pack)

    def changed(self, lake: Snapshot, cohort: str, since: Mapping[str, int]) -> Changed | None:
        from pyspark.sql import functions as F

        found = lake.changed(SEQUENCES, cohort, since.get(SEQUENCES.name), ["sequence_id"], ["codes"])
        return found and Changed(found[0].select(F.col("sequence_id").alias("entity_id")), found[1])
