"""Features of several tables side by side: blocks of matrices, and genotypes, of the same people."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import reduce
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genodl_spark.core import packing
from genodl_spark.core.errors import InputError
from genodl_spark.features.genotypes import GenotypeFeatures
from genodl_spark.features.matrices import MatrixFeatures
from genodl_spark.features.protocol import ROWS, Changed, Choice, Features, StoredRows, batch_of
from genodl_spark.lake.schema import PERSON, Table
from genodl_spark.lake.tables.ingested import EXPRESSION, METHYLATION, SAMPLES, VARIANTS
from genodl_spark.learning.encodings.values import Values

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from genodl_spark.lake.snapshot import Snapshot

_STORED = Values()
_MATRICES = (EXPRESSION, METHYLATION)
_NOBODY = -1  # number of a part that says that there is such a person, and nothing else


@dataclass(frozen=True)
class BlockFeatures:
    """Features of people out of expression, methylation and variants: all blocks of a cohort, or those named.

    A block is called as `ingest --block` named it, or after its table where that gave no name; copies of alleles are
    the block `variants`. A feature's identifier is `block:identifier`, also where there is one block only. `blocks`:
    names of blocks, or of tables for all blocks of one. Who has any block has a row, in which values of the blocks that
    a person lacks are NaN; a person of the cohort without any has a row of nothing else, and trains no model.
    """

    blocks: list[str] = field(default_factory=list)
    max_missing: float = 1.0
    genotypes: GenotypeFeatures = field(default_factory=GenotypeFeatures)
    dtype: str = "float32"
    encoding: str | None = None
    entity: str = PERSON

    @property
    def tables(self) -> tuple[Table, ...]:
        every = (*MatrixFeatures(EXPRESSION).tables, METHYLATION, *self.genotypes.tables, SAMPLES)
        return tuple({table.name: table for table in every}.values())

    def _parts(self, lake: Snapshot, cohort: str) -> dict[str, Features]:
        """Features of each block that a cohort has, by name, in the order in which they stand in a row."""
        found: dict[str, Features] = lake.once(("blocks", cohort, *self.blocks), lambda: self._read_parts(lake, cohort))
        return found

    def _read_parts(self, lake: Snapshot, cohort: str) -> dict[str, Features]:
        found: list[tuple[str, str, Features]] = []
        for table in _MATRICES:
            if cohort in lake.cohorts(table):
                for block in MatrixFeatures(table).blocks_of(lake, cohort):
                    one = MatrixFeatures(table, [block], self.max_missing)
                    found.append((block or table.name, table.name, one))
        if cohort in self.genotypes.cohorts(lake):
            found.append((VARIANTS.name, VARIANTS.name, self.genotypes))
        chosen = [one for one in found if not self.blocks or {one[0], one[1]} & set(self.blocks)]
        names = [name for name, _, _ in chosen]
        for name, table_name, _ in chosen:
            if names.count(name) > 1 or ":" in name:
                text = f"found the block {name!r} of {table_name} in cohort {cohort}"
                expected = "expected names of its own for each block, without a colon"
                raise InputError(f"{text}; {expected}: ingest it with another --block", "blocks")
        if not chosen:
            text = f"found none of the blocks {', '.join(self.blocks)} in cohort {cohort}"
            raise InputError(f"{text}; expected some of {', '.join(name for name, _, _ in found)}", "blocks")
        return {name: part for name, _, part in chosen}

    def cohorts(self, lake: Snapshot) -> list[str]:
        matrices = (cohort for table in _MATRICES for cohort in lake.cohorts(table))
        return sorted({*matrices, *self.genotypes.cohorts(lake)})

    def entities(self, lake: Snapshot, cohort: str) -> list[str]:
        return sorted(set().union(*self._people(lake, cohort).values()))

    def _people(self, lake: Snapshot, cohort: str) -> dict[str, set[str]]:
        """Who has each block."""
        key = ("people of blocks", cohort, *self.blocks)
        found: dict[str, set[str]] = lake.once(
            key,
            lambda: {name: set(part.entities(lake, cohort)) for name, part in self._parts(lake, cohort).items()},
        )
        return found

    def choose(self, lake: Snapshot, cohort: str, entities: list[str], learns: np.ndarray) -> Choice:
        """Each block's features are judged over those who have the block."""
        parts = self._parts(lake, cohort)
        known = {*parts, *(part.tables[0].name for part in parts.values())}
        if unknown := [name for name in self.blocks if name not in known]:
            every = ", ".join(BlockFeatures()._parts(lake, cohort))
            raise InputError(f"found no block {unknown[0]!r} in cohort {cohort}; expected some of {every}", "blocks")
        people = self._people(lake, cohort)
        names: list[str] = []
        allowed: list[np.ndarray] = []
        for block, part in parts.items():
            has = np.array([entity in people[block] for entity in entities], bool)
            choice = part.choose(lake, cohort, entities, learns & has)
            names += [f"{block}:{name}" for name in choice.names]
            whole = np.ones((len(learns), len(choice.names)), bool)
            allowed.append(whole if choice.allowed is None else choice.allowed)
        return Choice.of(names, np.concatenate(allowed, 1))

    def positions(self, names: list[str]) -> dict[str, np.ndarray]:
        """Where the features of each block stand among `names`, int64, in order; a name of another kind is of none."""
        found: dict[str, list[int]] = {}
        for place, name in enumerate(names):
            block, separator, _ = name.partition(":")
            if separator:
                found.setdefault(block, []).append(place)
        return {block: np.array(places, np.int64) for block, places in found.items()}

    def rows(self, lake: Snapshot, cohort: str, features: list[str]) -> DataFrame:
        from pyspark.sql import functions as F

        width, parts = len(features), self._parts(lake, cohort)
        wanted = [(parts[block], places) for block, places in self.positions(features).items() if block in parts]
        people = lake.read(SAMPLES, cohort).where(F.col("cohort") == cohort)
        people = people.select(F.col("sample_id").alias("entity_id"))
        nothing = {"part": F.lit(_NOBODY), "x": F.lit(None).cast("binary"), "missing": F.lit(width)}
        frames = [people.withColumns(nothing)]
        for number, (part, places) in enumerate(wanted):
            own = part.rows(lake, cohort, [features[place].partition(":")[2] for place in places])
            frames.append(own.select("entity_id", F.lit(number).alias("part"), "x", "missing"))
        together = reduce(lambda a, b: a.unionByName(b), frames).groupBy("entity_id")
        rows = together.agg(F.collect_list(F.struct("part", "x", "missing")).alias("parts"))
        shapes = [(part.dtype, places) for part, places in wanted]

        def kernel(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            for batch in batches:
                x = np.full((batch.num_rows, width), np.nan, np.float32)
                lacking, there = np.zeros(batch.num_rows, np.int64), np.zeros(batch.num_rows, bool)
                given = batch.column("parts")
                of_row, flat = pc.list_parent_indices(given).to_numpy(), given.flatten()
                numbers, of_part = flat.field("part").to_numpy(), flat.field("missing").to_numpy()
                for number, (dtype, places) in enumerate(shapes):
                    mine = np.flatnonzero(numbers == number)
                    packed = packing.rows(flat.field("x").take(pa.array(mine)), dtype, len(places))
                    x[np.ix_(of_row[mine], places)] = _STORED.floats(packed)
                    lacking[of_row[mine]] += of_part[mine]
                    there[of_row[mine]] = True
                # what a row lacks whole blocks of is told apart from features that a cohort has under no such name
                yield batch_of(batch.column("entity_id"), x, np.where(there, lacking, width))

        return rows.mapInArrow(kernel, ROWS)

    def stored(self, lake: Snapshot, cohort: str, features: list[str]) -> StoredRows | None:
        return None

    def changed(self, lake: Snapshot, cohort: str, since: Mapping[str, int]) -> Changed | None:
        from pyspark.sql import functions as F

        found = [part.changed(lake, cohort, since) for part in self._parts(lake, cohort).values()]
        people = lake.changed(SAMPLES, cohort, since.get(SAMPLES.name), ["sample_id"], [])
        if people is None or any(one is None for one in found):
            return None
        rows = people[0].select(F.col("sample_id").alias("entity_id"))
        for one in found:
            assert one is not None
            rows = rows.union(one.entities)
        return Changed(rows.distinct(), None)

    def told(self, lake: Snapshot, cohort: str, names: list[str]) -> list[str]:
        """Who has which of the blocks of `names`, where somebody lacks one."""
        people, blocks = self._people(lake, cohort), list(self.positions(names))
        everybody = set().union(*people.values())
        had = {block: len(people.get(block, ())) for block in blocks}
        if all(count == len(everybody) for count in had.values()):
            return []
        counts = ", ".join(f"{block} {count}" for block, count in had.items())
        return [f"of {len(everybody)} people of cohort {cohort} with a block, so many have each: {counts}"]
