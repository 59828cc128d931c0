"""Features of variants with measured effects: what they exchange, which motifs they change, what they do to splice
sites, transcripts and proteins.

They come in groups, of which `variants.features` names some. A group is a function of rows of `variant_effects`, of
what `annotate` says of them, or of columns of `labels` with HGVS; each is a pure kernel of `genodl_spark/genome/`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genodl_spark.core.errors import InputError
from genodl_spark.features import consequences
from genodl_spark.features.protocol import ROWS, Changed, Choice, StoredRows, batch_of
from genodl_spark.genome import motifs, orthologues
from genodl_spark.genome.coding import (
    RESIDUE_NAMES,
    SPLICING_NAMES,
    Coding,
    protein_features,
    splicing_features,
)
from genodl_spark.genome.substitutions import CONTEXT_NAMES, SUBSTITUTION_NAMES, context, substitutions
from genodl_spark.genome.surroundings import Surroundings
from genodl_spark.lake.entities import check_column, rows_about
from genodl_spark.lake.schema import VARIANT, Table, identifier
from genodl_spark.lake.tables.consequences import CONSEQUENCES
from genodl_spark.lake.tables.genomes import ORTHOLOGUES
from genodl_spark.lake.tables.ingested import LABELS, VARIANT_EFFECTS

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from genodl_spark.lake.snapshot import Snapshot

AUTO = "auto"
FLANK = 64  # bases on either side that features look at
_SITE = ["contig", "pos", "ref", "alt"]
_OWN = [*_SITE, "before", "after"]
_HGVS = ["hgvs_c", "hgvs_p", "strand"]
_ALIGNED = ["residue", "aligned"]
# the protein and the place that HGVS p. begins with, for Spark
_PROTEIN, _RESIDUE = r"^(.*):p\.", r"^(?:.*:)?p\.\(?(?:[A-Z][a-z]{2}|[A-Z*])([0-9]{1,9})"
_TOTALS = ("lowest", "highest", "loss", "gain", "size", "mean", "before", "after")
# what HGVS looks like, for Spark
_LIKE = {
    "hgvs_c": r"^(.*:)?c\.[-*]?[0-9]+([-+][0-9]+)?[^0-9].*$",
    "hgvs_p": r"^(.*:)?p\.\(?([A-Z][a-z]{2}|[A-Z*])[0-9]+([A-Z*=?(]|fs|del|dup|ins|_).*$|^(.*:)?p\.\(?=\)?$",
}


class _Rows:
    """Rows of variants, of which each thing is computed once, and only where it is asked for."""

    def __init__(self, batch: pa.RecordBatch) -> None:
        self.batch = batch

    def column(self, name: str) -> pa.Array:
        return self.batch.column(name)

    @cached_property
    def variants(self) -> Surroundings:
        before, ref, alt, after = (self.column(name) for name in ("before", "ref", "alt", "after"))
        return Surroundings.of(before, ref, alt, after, FLANK)

    @cached_property
    def coding(self) -> Coding:
        return Coding.read(*(self.column(name) for name in (*_HGVS, "ref", "alt")))

    @cached_property
    def motifs(self) -> tuple[np.ndarray, np.ndarray]:
        return motifs.changes(self.variants, motifs.jaspar())

    @cached_property
    def totals(self) -> np.ndarray:
        change, before = self.motifs
        after = before + change
        some = [change.min(1, initial=0), change.max(1, initial=0), np.minimum(change, 0).mean(1)]
        some += [np.maximum(change, 0).mean(1), np.abs(change).mean(1), change.mean(1), before.mean(1), after.mean(1)]
        return np.stack(some, 1)

    @cached_property
    def orthologues(self) -> np.ndarray:
        return orthologues.features(self.coding.old, self.coding.new, *(self.column(name) for name in _ALIGNED))

    @cached_property
    def protein(self) -> np.ndarray:
        """By the genetic code of each contig: there are two."""
        contigs = self.column("contig")
        x = protein_features(self.coding, self.variants, "")
        if (other := pc.equal(contigs, "MT").to_numpy(zero_copy_only=False)).any():
            x[other] = protein_features(self.coding, self.variants, "MT")[other]
        return x


@dataclass(frozen=True)
class _Group:
    """Features by name, and how they are computed, float32 (rows, names). `needs`: bases around variants, a transcript
    (HGVS), the consequences that `annotate` writes, or orthologues of the proteins that HGVS names."""

    names: Callable[[], list[str]]
    values: Callable[[_Rows], np.ndarray]
    needs: tuple[str, ...] = ("bases",)


GROUPS = {
    "substitution": _Group(lambda: SUBSTITUTION_NAMES, lambda rows: substitutions(rows.variants), ()),
    "context": _Group(lambda: CONTEXT_NAMES, lambda rows: context(rows.variants)),
    "motifs": _Group(lambda: [f"motif:{id_}" for id_ in motifs.jaspar().ids], lambda rows: rows.motifs[0]),
    "motif_families": _Group(
        lambda: [f"family:{name}" for name in motifs.jaspar().families],
        lambda rows: motifs.by_family(rows.motifs[0], motifs.jaspar()),
    ),
    "motif_totals": _Group(lambda: [f"motifs:{name}" for name in _TOTALS], lambda rows: rows.totals),
    "consequences": _Group(
        lambda: consequences.FEATURES, lambda rows: consequences.encoded(rows.batch), ("consequences",)
    ),
    "protein": _Group(lambda: RESIDUE_NAMES, lambda rows: rows.protein, ("bases", "transcript")),
    "splicing": _Group(
        lambda: SPLICING_NAMES, lambda rows: splicing_features(rows.coding, rows.variants), ("bases", "transcript")
    ),
    "orthologues": _Group(lambda: orthologues.NAMES, lambda rows: rows.orthologues, ("transcript", "orthologues")),
}
REGULATORY = ("substitution", "context", "motifs", "motif_families", "motif_totals")
CODING = ("substitution", "consequences", "protein", "splicing")


@dataclass(frozen=True)
class VariantFeatures:
    """Of variants of `variant_effects`, by `groups` of GROUPS: with `auto`, CODING where `annotate` or columns with
    HGVS say what they do to transcripts, REGULATORY where nothing does, as far as a cohort has what they need.

    Names are `substitution:A>C`, `trinucleotide:ACG`, `share:CG:20` (in so many bases on either side), `motif:MA0139.2`
    (what the other allele adds to the logarithm of the weight of bound sites, see `genome/motifs.py`),
    `family:Ets-related` (the mean over its motifs), `motifs:lowest`, those of `consequences`, `protein:missense`,
    `exchange:blosum62`, `neighbours:hydropathy:3`, `splice:donor:change` and so on.

    `hgvs_c`, `hgvs_p`: columns of `labels`; empty for those that hold HGVS and nothing else.
    Those that a training set has; others are the same for all its rows.
    """

    groups: tuple[str, ...] = (AUTO,)
    hgvs_c: str = ""
    hgvs_p: str = ""
    dtype: str = "float32"
    encoding: str | None = None
    entity: str = VARIANT

    @property
    def tables(self) -> tuple[Table, ...]:
        more = (ORTHOLOGUES,) if ORTHOLOGUES.name in self.groups else ()
        return (VARIANT_EFFECTS, CONSEQUENCES, LABELS, *more)

    def cohorts(self, lake: Snapshot) -> list[str]:
        return lake.cohorts(VARIANT_EFFECTS)

    def entities(self, lake: Snapshot, cohort: str) -> list[str]:
        found = self._stored(lake, cohort).select("variant_id").toArrow()  # identifiers
        return sorted(found.column("variant_id").to_pylist())

    def alike(self, lake: Snapshot, cohort: str, entities: list[str], identity: float) -> np.ndarray:
        """Numbers of groups, int (entities,): those of one position are one group."""
        found = self._stored(lake, cohort).select("variant_id", "build", "contig", "pos").toArrow().combine_chunks()
        place = pc.index_in(pa.array(entities, pa.string()), found.column("variant_id").combine_chunks())
        rows = found.take(place)
        joined = pc.binary_join_element_wise(
            pc.fill_null(rows.column("build"), ""), rows.column("contig"), rows.column("pos").cast(pa.string()), "\t"
        )
        groups: np.ndarray = pc.dictionary_encode(joined).combine_chunks().indices.to_numpy(zero_copy_only=False)
        return groups

    def shared(self, identity: float) -> str:
        """What those of a group of `alike` share."""
        return "their position"

    def choose(self, lake: Snapshot, cohort: str, entities: list[str], learns: np.ndarray) -> Choice:
        wanted = pa.array(entities, pa.string())
        names = [name for group in self._groups(lake, cohort) for name in GROUPS[group].names()]
        values = _values_of(names)

        def kernel(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            for batch in batches:
                place = pc.index_in(batch.column("entity_id"), wanted)
                kept = batch.filter(place.is_valid())
                there = np.nan_to_num(values(kept)) != 0
                some = learns[:, place.drop_null().to_numpy()].astype(np.float32) @ there.astype(np.float32) > 0
                yield pa.RecordBatch.from_arrays([pa.array([some.tobytes()])], ["some"])

        shape = len(learns), len(names)
        allowed = np.zeros(shape, bool)
        rows = self._rows(lake, cohort, _needs(names))
        for row in rows.mapInArrow(kernel, "some binary").toLocalIterator():
            allowed |= np.frombuffer(bytes(row.some), bool).reshape(shape)
        return Choice.of(names, allowed)

    def rows(self, lake: Snapshot, cohort: str, features: list[str]) -> DataFrame:
        values = _values_of(features)
        missing = sum(name not in _places() for name in features)  # of a version with further ones

        def kernel(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            for batch in batches:
                yield batch_of(batch.column("entity_id"), values(batch), np.full(batch.num_rows, missing))

        return self._rows(lake, cohort, _needs(features)).mapInArrow(kernel, ROWS)

    def stored(self, lake: Snapshot, cohort: str, features: list[str]) -> StoredRows | None:
        return None

    def changed(self, lake: Snapshot, cohort: str, since: Mapping[str, int]) -> Changed | None:
        from pyspark.sql import functions as F

        found = lake.changed(VARIANT_EFFECTS, cohort, since.get(VARIANT_EFFECTS.name), ["variant_id"], _OWN)
        if found is None or (self._transcripts(lake, cohort) == LABELS.name and not _same(LABELS, lake, since)):
            return None
        if ORTHOLOGUES in self.tables and not _same(ORTHOLOGUES, lake, since):
            return None
        ids = found[0].select(F.col("variant_id").alias("entity_id"))
        if _same(CONSEQUENCES, lake, since):
            return Changed(ids.distinct(), None)
        key = [name for name in CONSEQUENCES.key if name != "cohort"]
        read = [*consequences.READ, "strand", "hgvs_c", "hgvs_p"]
        other = lake.changed(CONSEQUENCES, cohort, since.get(CONSEQUENCES.name), key, ["picked", *read])
        if other is None:
            return None
        touched = self._stored(lake, cohort).join(other[0].select(*_SITE), _SITE, "left_semi")
        return Changed(touched.select(F.col("variant_id").alias("entity_id")).union(ids).distinct(), None)

    def told(self, lake: Snapshot, cohort: str, names: list[str]) -> list[str]:
        """Which groups the features `names` are of, where transcripts come from, and which groups a cohort cannot
        have."""
        counts = {group: len({*made.names()} & {*names}) for group, made in GROUPS.items()}
        there = ", ".join(f"{group} ({count})" for group, count in counts.items() if count)
        said = [f"features of variants, by group: {there or 'none'}"]
        if any(counts[group] for group in ("protein", "splicing")):
            by = "genodl annotate"
            if self._transcripts(lake, cohort) == LABELS.name:
                by = f"HGVS in {' and '.join(sorted(self._columns(lake, cohort).values()))}"
            said.append(f"transcripts of variants are those of {by}")
        if counts[ORTHOLOGUES.name]:
            said.append(self._told_of_orthologues(lake, cohort))
        if AUTO in self.groups:
            lacking = self._lacking(lake, cohort)
            without = [
                f"{group} ({': '.join(lacking[need])})"
                for group, made in GROUPS.items()
                for need in made.needs
                if need in lacking and group != ORTHOLOGUES.name  # which `auto` does not take
            ]
            if without:
                said.append(f"cohort {cohort} cannot have features {', '.join(without)}")
        return said

    # What a cohort has.

    def _stored(self, lake: Snapshot, cohort: str) -> DataFrame:
        from pyspark.sql import functions as F

        return lake.read(VARIANT_EFFECTS, cohort).where(F.col("cohort") == cohort)

    def _transcripts(self, lake: Snapshot, cohort: str) -> str:
        """The table that says what variants do to transcripts; empty for none. Columns that are named come first."""
        if not (self.hgvs_c or self.hgvs_p) and cohort in lake.cohorts(CONSEQUENCES):
            return CONSEQUENCES.name
        return LABELS.name if self._columns(lake, cohort) else ""

    def _columns(self, lake: Snapshot, cohort: str) -> dict[str, str]:
        """Columns of `labels` with HGVS, by _HGVS. InputError for a setting that names none."""
        found: dict[str, str] = lake.once(("hgvs", self.hgvs_c, self.hgvs_p, cohort), lambda: self._found(lake, cohort))
        return found

    def _found(self, lake: Snapshot, cohort: str) -> dict[str, str]:
        from pyspark.sql import functions as F

        rows = rows_about(lake, VARIANT).where(F.col("cohort") == cohort).drop("cohort", "entity_id")
        named = {"hgvs_c": self.hgvs_c, "hgvs_p": self.hgvs_p}
        for kind, column in named.items():
            if column:
                check_column(rows, VARIANT, column, f"variants.{kind}")
        asked = [(kind, column) for kind in named for column in rows.columns]
        if all(named.values()) or not asked:
            return {kind: column for kind, column in named.items() if column}
        like = (
            F.sum(F.col(identifier(column)).rlike(_LIKE[kind]).cast("bigint")).alias(f"a{i}")
            for i, (kind, column) in enumerate(asked)
        )
        there = (F.count(F.col(identifier(column))).alias(f"b{i}") for i, (_, column) in enumerate(asked))
        (counts,) = rows.agg(*like, *there).collect()  # two numbers a column
        for i, (kind, column) in enumerate(asked):
            if not named[kind] and counts[f"b{i}"] and counts[f"a{i}"] == counts[f"b{i}"]:
                named[kind] = column
        return {kind: column for kind, column in named.items() if column}

    def _lacking(self, lake: Snapshot, cohort: str) -> dict[str, tuple[str, str]]:
        """What groups need that a cohort does not have: what is not there, and what brings it."""
        found = {}
        if not self._has_bases(lake, cohort):
            found["bases"] = "no bases around variants", "ingest variants with --reference"
        if cohort not in lake.cohorts(CONSEQUENCES):
            found["consequences"] = "no consequences", "genodl annotate"
        if not self._transcripts(lake, cohort):
            found["transcript"] = "neither consequences nor a column with HGVS", "genodl annotate, or variants.hgvs_c"
        if cohort not in lake.cohorts(ORTHOLOGUES):
            found["orthologues"] = "no orthologues", "genodl ingest orthologues"
        return found

    def _has_bases(self, lake: Snapshot, cohort: str) -> bool:
        from pyspark.sql import functions as F

        def asked() -> bool:
            return not self._stored(lake, cohort).where(F.col("before").isNotNull()).limit(1).isEmpty()

        found: bool = lake.once(("bases", cohort), asked)
        return found

    def _groups(self, lake: Snapshot, cohort: str) -> list[str]:
        """Those to be taken, in the order of GROUPS. InputError for one that is unknown, or that a cohort cannot
        have."""
        for name in self.groups:
            if name not in GROUPS and name != AUTO:
                known = ", ".join([AUTO, *GROUPS])
                raise InputError(f"found {name!r}; expected some of {known}", "variants.features")
        lacking = self._lacking(lake, cohort)
        usual: Sequence[str] = ()
        if AUTO in self.groups:
            usual = REGULATORY if "transcript" in lacking else CODING
        usual = [name for name in usual if not set(GROUPS[name].needs) & set(lacking)]
        return [name for name in GROUPS if name in usual or name in self.groups]

    def _rows(self, lake: Snapshot, cohort: str, needs: set[str]) -> DataFrame:
        """entity_id and what groups that need `needs` read. InputError for what a cohort lacks."""
        from pyspark.sql import functions as F

        for need, (there, way) in self._lacking(lake, cohort).items():
            if need in needs:
                raise InputError(f"found {there} of cohort {cohort}; expected some: {way}", "variants.features")
        rows = self._stored(lake, cohort).where(F.col("ref") != F.col("alt"))
        if "bases" in needs:
            lacking = rows.where(F.col("before").isNull()).select("variant_id").limit(1)
            if found := lake.once(("no bases", cohort), lacking.collect):
                raise InputError(
                    f"found no bases around {found[0].variant_id} of cohort {cohort}; expected those of all its "
                    "variants: ingest their file again with --reference",
                    "variants.features",
                )
        rows = self._transcribed(lake, cohort, rows.select(F.col("variant_id").alias("entity_id"), *_OWN), needs)
        return self._aligned(lake, cohort, rows) if ORTHOLOGUES.name in needs else rows

    def _transcribed(self, lake: Snapshot, cohort: str, rows: DataFrame, needs: set[str]) -> DataFrame:
        """Rows with what says what they do to transcripts, where groups need that."""
        from pyspark.sql import functions as F

        annotated = self._transcripts(lake, cohort) == CONSEQUENCES.name
        if "consequences" in needs or ("transcript" in needs and annotated):
            return self._annotated(lake, cohort, rows)
        if "transcript" not in needs:
            return rows
        columns = self._columns(lake, cohort)
        named = rows_about(lake, VARIANT).where(F.col("cohort") == cohort)
        texts = [
            (F.col(identifier(columns[kind])) if kind in columns else F.lit(None).cast("string")).alias(kind)
            for kind in _HGVS
        ]
        return rows.join(named.select("entity_id", *texts), "entity_id", "left")

    def _aligned(self, lake: Snapshot, cohort: str, rows: DataFrame) -> DataFrame:
        """Rows with the residue at the place that HGVS p. begins with, and what orthologues have there: of the protein
        that it names, whatever the version, or, where it names none, of the only one that the cohort has."""
        from pyspark.sql import functions as F

        stored = lake.read(ORTHOLOGUES, cohort).where(F.col("cohort") == cohort)
        first = stored.where("position = 1").select("protein").limit(2)
        proteins = [row.protein for row in lake.once(("proteins", cohort), first.collect)]
        named = F.regexp_replace(F.regexp_extract("hgvs_p", _PROTEIN, 1), r"\.[0-9]+$", "")
        only = F.lit(proteins[0] if len(proteins) == 1 else None).cast("string")
        placed = rows.withColumn("protein", F.when(named == "", only).otherwise(named)).withColumn(
            "position", F.regexp_extract("hgvs_p", _RESIDUE, 1).try_cast("int")
        )
        there = stored.select("protein", "position", *_ALIGNED)
        return placed.join(there, ["protein", "position"], "left").drop("protein", "position")

    def _told_of_orthologues(self, lake: Snapshot, cohort: str) -> str:
        """Of how many variants that change a protein there is something to be told."""
        from pyspark.sql import functions as F

        known = _values_of(orthologues.NAMES[:1])

        def kernel(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            for batch in batches:
                some = known(batch)[:, 0] > 0
                yield pa.RecordBatch.from_arrays([pa.array([int(some.sum())]), pa.array([batch.num_rows])], ["a", "n"])

        rows = self._rows(lake, cohort, _needs(orthologues.NAMES)).where("hgvs_p LIKE '%p.%'")
        counted = rows.mapInArrow(kernel, "a bigint, n bigint").agg(F.sum("a").alias("a"), F.sum("n").alias("n"))
        (found,) = counted.collect()
        known_of = f"orthologues are known of {found.a or 0} of {found.n or 0} variants with HGVS p."
        return f"{known_of}; of the others there is no such protein, or it has another residue there"

    def _annotated(self, lake: Snapshot, cohort: str, rows: DataFrame) -> DataFrame:
        """Rows with what `consequences` says of the picked transcript. InputError for one that `annotate` has not
        seen."""
        from pyspark.sql import functions as F

        picked = lake.read(CONSEQUENCES, cohort).where((F.col("cohort") == cohort) & F.col("picked"))
        joined = rows.join(picked.select(*_SITE, *consequences.READ, *_HGVS), _SITE, "left")
        lacking = joined.where(F.col("terms").isNull()).select("entity_id").limit(1)
        if found := lake.once(("not annotated", "variant", cohort), lacking.collect):
            raise InputError(
                f"found no consequences of {found[0].entity_id}, which cohort {cohort} has; expected those of all its "
                "variants: run genodl annotate again",
                "consequences",
            )
        return joined


def _same(table: Table, lake: Snapshot, since: Mapping[str, int]) -> bool:
    return lake.version(table) == since.get(table.name)


@lru_cache(1)
def _places() -> dict[str, tuple[str, int]]:
    """Group and column of every feature."""
    return {name: (group, i) for group, made in GROUPS.items() for i, name in enumerate(made.names())}


def _needs(names: Sequence[str]) -> set[str]:
    groups = {_places()[name][0] for name in names if name in _places()}
    return {need for group in groups for need in GROUPS[group].needs}


def _values_of(names: Sequence[str]) -> Callable[[pa.RecordBatch], np.ndarray]:
    """What makes values of features, float32 (rows, names), of rows that have what their groups need; NaN for a name
    that there is not."""
    of: dict[str, tuple[list[int], list[int]]] = {}
    for place, name in enumerate(names):
        if name in _places():
            group, column = _places()[name]
            theirs, ours = of.setdefault(group, ([], []))
            theirs.append(column)
            ours.append(place)

    def values(batch: pa.RecordBatch) -> np.ndarray:
        rows = _Rows(batch)
        x = np.full((batch.num_rows, len(names)), np.nan, np.float32)
        for group, (theirs, ours) in of.items():
            x[:, ours] = GROUPS[group].values(rows)[:, theirs]
        return x

    return values
