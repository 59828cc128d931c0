"""Sample-major features of a cohort, out of the lake's tables: matrices, genotypes, burdens, sequences, covariates.

Each kind of feature answers the same two questions: which features a cohort has (`choose`),
and what their values are for each entity, in a given order (`rows`). Preparing a dataset asks both;
scoring asks the second, with the model's features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa

from genodl_spark.core import packing
from genodl_spark.lake.files import StoredFile, rows_of
from genodl_spark.lake.schema import PERSON, Table

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from genodl_spark.lake.snapshot import Snapshot

Kernel = Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]
ROWS = "entity_id string, x binary, missing int"
ROW_TYPES = pa.schema([("entity_id", pa.string()), ("x", pa.binary()), ("missing", pa.int32())])
ROW_NAMES = ROW_TYPES.names


@dataclass(frozen=True)
class StoredRows:
    """Where every row holds all that one entity's features are made of: the files, the columns to read,
    that of the entity first, and the kernel that makes batches of ROWS of them."""

    files: list[StoredFile]
    columns: list[str]
    pack: Kernel

    def of(self, entity: str) -> pa.Table:
        """ROWS of one entity; of the files that may hold it, only the groups of rows that do are read whole.
        FileNotFoundError when one is gone."""
        key = self.columns[0]
        files = [file for file in self.files if file.may_hold(key, [entity])]
        found = self.pack(batch for file in files for batch in rows_of(file, self.columns, key, entity))
        return pa.Table.from_batches(batches := list(found), batches[0].schema if batches else ROW_TYPES)


@dataclass(frozen=True)
class Changed:
    """What has come, changed or gone since earlier versions: `entities` (entity_id, each once), and the files in which
    those that have come or changed stand, as far as `Features.stored` has such files; None where it has none."""

    entities: DataFrame
    files: list[StoredFile] | None

    def identifiers(self) -> pa.Array:
        """Those of `entities`, string; they come to the driver."""
        return self.entities.toArrow().column(0).cast(pa.string()).unique()


@dataclass(frozen=True)
class Choice:
    """Features to use, in order. `allowed` bool (S, F): which of them each training set may use, by its own rows;
    None where each may use all."""

    names: list[str]
    allowed: np.ndarray | None = None

    @classmethod
    def of(cls, names: Sequence[str], allowed: np.ndarray) -> Choice:
        """Those of `names` that any training set may use."""
        some = allowed.any(0)
        kept = allowed[:, some]
        return cls([name for name, is_kept in zip(names, some, strict=True) if is_kept], None if kept.all() else kept)


class Features(Protocol):
    """Features of one kind. `dtype` of the packed values, one of `packing.TYPES`: int8 with -1 missing,
    float32 with NaN missing, uint8 or uint16 without a missing value; `sparse:uint16` and so on for rows of which all
    but a few values are 0 (`packing.sparse_column`).

    `entity`: the kind of what has such features, person, sequence, variant, cell or site; a class that does not say so
    is about people. `encoding`: how networks take them (`transform` of a dataset) where the values alone do not decide:
    onehot for base codes; else None.
    """

    @property
    def dtype(self) -> str: ...

    @property
    def encoding(self) -> str | None: ...

    @property
    def entity(self) -> str: ...

    @property
    def tables(self) -> tuple[Table, ...]: ...

    def cohorts(self, lake: Snapshot) -> list[str]:
        """Cohorts that have such features, sorted."""

    def entities(self, lake: Snapshot, cohort: str) -> list[str]:
        """Identifiers of the entities that have such features, sorted."""

    def choose(self, lake: Snapshot, cohort: str, entities: list[str], learns: np.ndarray) -> Choice:
        """Features that training sets may use. `learns` bool (S, entities): the rows that each set learns from,
        over which alone it judges."""

    def rows(self, lake: Snapshot, cohort: str, features: list[str]) -> DataFrame:
        """One row per entity: entity_id string, x binary (packed in the order of `features`),
        missing int (features that the cohort lacks)."""

    def stored(self, lake: Snapshot, cohort: str, features: list[str]) -> StoredRows | None:
        """What `rows` reads, where every stored row becomes one of its rows; else None."""

    def changed(self, lake: Snapshot, cohort: str, since: Mapping[str, int]) -> Changed | None:
        """Entities whose features may be others than at earlier versions of `tables`;
        None where that is not known any more."""

    # A class may have `some_rows(lake, cohort, features, wanted)` besides: `rows` of some entities, those that a
    # broadcast holds, where it is dear to make those of all; and `positions(names)`, where its features are of blocks
    # that a row may lack.


def entity_of(features: Features) -> str:
    """The kind of entity that has such features."""
    return getattr(features, "entity", PERSON)


def stored_rows(features: Features, lake: Snapshot, cohort: str, names: list[str]) -> StoredRows | None:
    """`features.stored`, unless a class made from one of these answers `rows` in a way of its own."""
    kind = type(features).__mro__
    owners = [next(c for c in kind if name in vars(c)) for name in ("rows", "stored")]
    return features.stored(lake, cohort, names) if owners[0] is owners[1] else None


def some_rows(features: Features, lake: Snapshot, cohort: str, names: list[str], wanted: Any) -> DataFrame:
    """`features.rows`; where a class has `some_rows`, those alone of the entities that the broadcast `wanted` holds,
    all where it holds None."""
    if hasattr(features, "some_rows"):
        found: DataFrame = features.some_rows(lake, cohort, names, wanted)
        return found
    return features.rows(lake, cohort, names)


def blocks_among(features: Features, names: list[str]) -> dict[str, np.ndarray]:
    """Where the features of each block stand among `names`, int64, in order, where they are of blocks that a row may
    lack; nothing of others."""
    found: dict[str, np.ndarray] = features.positions(names) if hasattr(features, "positions") else {}
    return found


def batch_of(entities: pa.Array, x: np.ndarray | pa.BinaryArray, missing: np.ndarray) -> pa.RecordBatch:
    """A batch of ROWS; x (rows, values) is not copied where it is contiguous, nor where it is packed already."""
    packed = packing.column(x) if isinstance(x, np.ndarray) else x
    return pa.RecordBatch.from_arrays([entities, packed, pa.array(missing.astype(np.int32))], ROW_NAMES)
