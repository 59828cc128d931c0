"""Features of what variants do to genes: copies of alleles of a cohort, added up by gene and by class of consequence.

Genotypes are taken apart in tasks, and are added up for a range of people and of features at a time. A missing call
adds nothing, as in regenie's masks: the burden is missing where no site of it is called.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genodl_spark.core.errors import InputError
from genodl_spark.features.genotypes import SITE, GenotypeFeatures, distinct, site_columns, spelled_alleles
from genodl_spark.features.protocol import ROWS, Changed, Choice, StoredRows, batch_of
from genodl_spark.genetics import genotypes
from genodl_spark.genetics.cohort import Samples, samples_of
from genodl_spark.genetics.genotype_text import MISSING
from genodl_spark.genome.consequences import CLASSES, TERMS
from genodl_spark.lake.schema import PERSON, Table
from genodl_spark.lake.tables.consequences import CONSEQUENCES
from genodl_spark.lake.tables.ingested import SAMPLE_SETS, VARIANTS

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql import DataFrame

    from genodl_spark.lake.snapshot import Snapshot

_PEOPLE, _FEATURES = 256, 2048  # that are added up at once
_CALLS = 1 << 22  # genotypes taken apart at once
_SHOWN = 3  # names in a message
_PIECES = "chunk int, bucket int, people binary, sites binary, counts binary, features binary, copies binary"
_PIECE = pa.schema(
    [
        (name, pa.int32() if kind == "int" else pa.binary())
        for name, kind in (part.split() for part in _PIECES.split(", "))
    ]
)


@dataclass(frozen=True)
class BurdenFeatures:
    """Copies of alleles whose most severe consequence for a gene is of a class, over all its transcripts.

    A feature's identifier is `GENE:CLASS`: the gene's identifier, or its symbol where that is of one gene; one of
    CLASSES or a term of the Sequence Ontology. `classes`: those that `choose` takes, of every gene that a training set
    has copies of. 0 where the cohort's consequences know the gene and have no such allele.
    """

    classes: list[str] = field(default_factory=lambda: list(CLASSES))
    dtype: str = "float32"
    encoding: str | None = None
    entity: str = PERSON

    @property
    def tables(self) -> tuple[Table, ...]:
        return (CONSEQUENCES, VARIANTS, SAMPLE_SETS)

    def cohorts(self, lake: Snapshot) -> list[str]:
        annotated = set(lake.cohorts(CONSEQUENCES))
        return [cohort for cohort in GenotypeFeatures().cohorts(lake) if cohort in annotated]

    def entities(self, lake: Snapshot, cohort: str) -> list[str]:
        return samples_of(lake, cohort).names

    def choose(self, lake: Snapshot, cohort: str, entities: list[str], learns: np.ndarray) -> Choice:
        from pyspark.sql import functions as F

        genes = sorted({gene for ids in self._genes(lake, cohort).values() for gene in ids})
        names = [f"{gene}:{kind}" for gene in genes for kind in self.classes]
        samples, index = samples_of(lake, cohort), {entity: row for row, entity in enumerate(entities)}
        rows = np.array([index.get(name, -1) for name in samples.names], np.int64)
        learnt = learns[:, rows] & (rows >= 0)
        members = {name: learnt[:, places] for name, places in samples.places.items()}
        sets = len(learns)

        def count(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            for batch in batches:
                copies = np.zeros((batch.num_rows, sets), np.int64)
                for some, records, size, sample_set in genotypes.alike(batch):
                    allele = records.column("allele").to_numpy()
                    for s, mine in enumerate(members[sample_set]):
                        copies[some, s] = genotypes.counts(records.column("gt"), size, allele, mine)[:, 0]
                features = batch.column("features")
                of = pc.list_parent_indices(features).to_numpy()
                ends = pa.array(np.arange(len(of) + 1, dtype=np.int32) * sets)
                yield pa.RecordBatch.from_arrays(
                    [features.flatten(), pa.ListArray.from_arrays(ends, pa.array(copies[of].ravel()))],
                    ["feature", "copies"],
                )

        counted = self._alleles(lake, cohort, names).mapInArrow(count, "feature int, copies array<bigint>")
        sums = counted.groupBy("feature").agg(*(F.sum(F.col("copies")[s]).alias(f"s{s}") for s in range(sets)))
        carried = np.zeros((sets, len(names)), bool)
        for row in sums.collect():
            carried[:, row.feature] = [total > 0 for total in row[1:]]
        return Choice.of(names, carried)

    def rows(self, lake: Snapshot, cohort: str, features: list[str]) -> DataFrame:
        from pyspark.sql import functions as F

        samples, width = samples_of(lake, cohort), len(features)
        genes = self._genes(lake, cohort)
        known = np.array([len(genes.get(name.rpartition(":")[0], ())) == 1 for name in features], bool)
        alleles = self._alleles(lake, cohort, features)
        found = alleles.select(F.explode("features").alias("feature")).distinct().toArrow()  # numbers of features
        has = np.zeros(width, bool)
        has[found.column("feature").to_numpy()] = True
        pieces = alleles.mapInArrow(_pieces(samples), _PIECES)
        parts = pieces.groupBy("chunk", "bucket").applyInPandas(_added, "person int, bucket int, x binary")
        by_person = parts.groupBy("person").agg(F.collect_list(F.struct("bucket", "x")).alias("parts"))
        numbers = pa.array(np.arange(len(samples.names), dtype=np.int32))
        people = lake.spark.createDataFrame(
            pa.table({"entity_id": pa.array(samples.names, pa.string()), "person": numbers})
        )
        usual = np.where(known & ~has, 0, np.nan).astype(np.float32)

        def kernel(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            for batch in batches:
                x = np.tile(usual, (batch.num_rows, 1))
                # one step per person and range of features, not per value
                for row, parts in enumerate(batch.column("parts").to_pylist()):
                    for part in parts or ():
                        own = slice(part["bucket"] * _FEATURES, min((part["bucket"] + 1) * _FEATURES, width))
                        values = np.frombuffer(part["x"], np.float32)[: own.stop - own.start]
                        x[row, own] = np.where(has[own], values, usual[own])
                yield batch_of(batch.column("entity_id"), x, np.full(batch.num_rows, (~known).sum()))

        return people.join(by_person, "person", "left").select("entity_id", "parts").mapInArrow(kernel, ROWS)

    def stored(self, lake: Snapshot, cohort: str, features: list[str]) -> StoredRows | None:
        return None

    def changed(self, lake: Snapshot, cohort: str, since: Mapping[str, int]) -> Changed | None:
        """Other consequences change what is known of everybody."""
        key = [name for name in CONSEQUENCES.key if name != "cohort"]
        found = lake.changed(CONSEQUENCES, cohort, since.get(CONSEQUENCES.name), key, ["gene_id", "rank"])
        if found is None or not found[0].isEmpty():
            return None
        return GenotypeFeatures().changed(lake, cohort, since)

    def check(self, lake: Snapshot, cohort: str, features: list[str], place: str) -> None:
        """InputError, at `place`, for a feature that the cohort cannot have, or whose gene is not one."""
        genes = self._genes(lake, cohort)
        if not genes:
            raise InputError(f"found no consequences of cohort {cohort}; expected some: genodl annotate", place)
        for name in features:
            gene, _, kind = name.rpartition(":")
            _terms(kind, place)
            if gene not in genes:
                asked, there = (
                    ", ".join(sorted(some)[:_SHOWN]) for some in ({name.rpartition(":")[0] for name in features}, genes)
                )
                raise InputError(
                    f"found no gene {gene!r} in the consequences of cohort {cohort}: {asked} asked for, {there} there; "
                    "expected the identifier or symbol of one of these",
                    place,
                )
            if len(genes[gene]) > 1:
                several = ", ".join(genes[gene][:_SHOWN])
                raise InputError(f"found {len(genes[gene])} genes called {gene}; expected one of {several}", place)

    def _genes(self, lake: Snapshot, cohort: str) -> dict[str, list[str]]:
        """Identifiers of the genes of a cohort's consequences, by identifier and by symbol."""
        found: dict[str, list[str]] = lake.once(("genes", cohort), lambda: _read_genes(lake, cohort))
        return found

    def _alleles(self, lake: Snapshot, cohort: str, features: list[str]) -> DataFrame:
        """Alleles that count for a feature, once for each range of features: `site` (a hash of SITE), `bucket` and
        `features` (numbers), and what `spelled_alleles` says. InputError where an allele has no consequences."""
        from pyspark.sql import functions as F

        alleles = spelled_alleles(lake, cohort)
        genes, gene_ids, terms, numbers = self._genes(lake, cohort), [], [], []
        for number, name in enumerate(features):
            gene, _, kind = name.rpartition(":")
            for term in _terms(kind, "blocks") if len(genes.get(gene, ())) == 1 else ():
                gene_ids.append(genes[gene][0])
                terms.append(term)
                numbers.append(number)
        wanted = pa.table(
            {
                "gene_id": pa.array(gene_ids, pa.string()),
                "term": pa.array(terms, pa.string()),
                "feature": pa.array(numbers, pa.int32()),
            }
        )
        wanted_rows = F.broadcast(lake.spark.createDataFrame(wanted))
        first = F.struct("rank", F.col("terms")[0].alias("term"))
        found = _consequences(lake, cohort).select(*site_columns(), "gene_id", first.alias("first"))
        _check_annotated(lake, cohort, alleles, found)
        worst = found.groupBy(*SITE, "gene_id").agg(F.min("first")["term"].alias("term"))
        worst = worst.join(wanted_rows, ["gene_id", "term"])
        bucket = F.floor(F.col("feature") / _FEATURES).cast("int").alias("bucket")
        members = worst.groupBy(*SITE, bucket).agg(F.collect_list("feature").alias("features"))
        columns = ["bucket", "features", "allele", "sample_set", "n_samples", "gt"]
        return alleles.join(members, SITE).select(F.xxhash64(*SITE).alias("site"), *columns)


def _consequences(lake: Snapshot, cohort: str) -> DataFrame:
    from pyspark.sql import functions as F

    return lake.read(CONSEQUENCES, cohort).where(F.col("cohort") == cohort)


def _read_genes(lake: Snapshot, cohort: str) -> dict[str, list[str]]:
    from pyspark.sql import functions as F

    if cohort not in lake.cohorts(CONSEQUENCES):
        return {}
    rows = _consequences(lake, cohort).where(F.col("gene_id").isNotNull()).select("gene_id", "gene_name").distinct()
    found: dict[str, set[str]] = {}
    for gene, symbol in sorted((row.gene_id, row.gene_name or "") for row in rows.collect()):  # names of genes
        found.setdefault(gene, set()).add(gene)
        if symbol and symbol not in found:
            found[symbol] = {gene}
        elif symbol:
            found[symbol].add(gene)
    return {name: sorted(ids) for name, ids in found.items()}


def _terms(kind: str, place: str) -> list[str]:
    """Terms of a class. InputError for one that is none."""
    terms = CLASSES.get(kind, [kind])
    if unknown := [term for term in terms if term not in TERMS]:
        expected = f"one of {', '.join(CLASSES)}, or a term of the Sequence Ontology as in the table consequences"
        raise InputError(f"found {unknown[0]!r} as a class of consequences; expected {expected}", place)
    return terms


def _check_annotated(lake: Snapshot, cohort: str, alleles: DataFrame, found: DataFrame) -> None:
    from pyspark.sql import functions as F

    def missing() -> list[Any]:
        changes = alleles.where(F.col("ref").rlike("^[ACGTN]+$") & (F.col("ref") != F.col("alt"))).select(*SITE)
        return changes.join(found.select(*SITE), SITE, "left_anti").limit(1).collect()

    if rows := lake.once(("not annotated", cohort), missing):
        site = ":".join(map(str, rows[0]))
        raise InputError(
            f"found no consequences of {site}, which cohort {cohort} has; expected those of all its variants: "
            "run genodl annotate again",
            "consequences",
        )


def _pieces(samples: Samples) -> Any:
    """For mapInArrow over `_alleles`: copies of each allele, for a range of the cohort's people at a time."""
    orders = {name: np.argsort(places, kind="stable") for name, places in samples.places.items()}

    def kernel(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for _, records, size, sample_set in genotypes.alike(batch, _CALLS):
                order = orders[sample_set]
                people = samples.places[sample_set][order].astype(np.int32)
                allele, site, bucket = (records.column(name).to_numpy() for name in ("allele", "site", "bucket"))
                copies = genotypes.dosages(records.column("gt"), size, allele, chosen=order)
                lists = records.column("features")
                counts = pc.list_value_length(lists).to_numpy().astype(np.int32)
                rows: list[tuple[Any, ...]] = []
                for one in np.unique(bucket).tolist():
                    mine = np.flatnonzero(bucket == one)
                    said = [site[mine], counts[mine], lists.take(pa.array(mine)).flatten().to_numpy().astype(np.int32)]
                    first = int(people[0]) // _PEOPLE if len(people) else 0
                    for chunk in range(first, int(people[-1]) // _PEOPLE + 1 if len(people) else 0):
                        a, b = np.searchsorted(people, (chunk * _PEOPLE, (chunk + 1) * _PEOPLE))
                        part = [people[a:b] - chunk * _PEOPLE, *said, copies[mine, a:b].T]
                        rows.append((chunk, one, *(values.tobytes() for values in part)))
                columns = zip(*rows, strict=True) if rows else [[]] * len(_PIECE)
                yield pa.RecordBatch.from_arrays(
                    [pa.array(values, kind) for values, kind in zip(columns, _PIECE.types, strict=True)], schema=_PIECE
                )

    return kernel


def _added(pieces: pd.DataFrame) -> pd.DataFrame:
    """Burdens of a range of people and of features. A site that stands in several records, or in several call sets of
    a person, counts once: what was called in any of them."""
    import pandas as pd

    def arrays(name: str, dtype: Any) -> list[np.ndarray]:
        return [np.frombuffer(packed, dtype) for packed in pieces[name]]

    chunk, bucket = int(pieces["chunk"].iloc[0]), int(pieces["bucket"].iloc[0])
    people, sites, copies = arrays("people", np.int32), arrays("sites", np.int64), arrays("copies", np.int8)
    keys = np.unique(np.concatenate(sites))
    x = np.full((_PEOPLE, len(keys)), MISSING, np.int8)
    for who, of, packed in zip(people, sites, copies, strict=True):
        values, columns = packed.reshape(len(who), len(of)), np.searchsorted(keys, of)
        for some in distinct(columns):
            at = np.ix_(who, columns[some])
            x[at] = np.maximum(x[at], values[:, some])
    site = np.repeat(np.searchsorted(keys, np.concatenate(sites)), np.concatenate(arrays("counts", np.int32)))
    feature = np.concatenate(arrays("features", np.int32)) - bucket * _FEATURES
    pairs = np.unique(site * _FEATURES + feature)
    present = np.unique(np.concatenate(people))
    made = burdens(x[present], pairs // _FEATURES, pairs % _FEATURES, _FEATURES)
    packed_rows = [row.tobytes() for row in made]
    return pd.DataFrame({"person": present + chunk * _PEOPLE, "bucket": bucket, "x": packed_rows})


def burdens(x: np.ndarray, site: np.ndarray, feature: np.ndarray, width: int) -> np.ndarray:
    """Copies of alleles added up, float32 (n, width): of `x` int8 (n, sites), -1 missing, those at site[k] count for
    feature[k]. NaN where no site of a feature is called, and for features without a site."""
    made = np.full((len(x), width), np.nan, np.float32)
    if len(site):
        order = np.argsort(feature, kind="stable")
        features, starts = np.unique(feature[order], return_index=True)
        copies = x[:, site[order]]
        called = np.logical_or.reduceat(copies >= 0, starts, axis=1)
        sums = np.add.reduceat(np.maximum(copies, 0), starts, axis=1, dtype=np.int32)
        made[:, features] = np.where(called, sums, np.nan)
    return made
