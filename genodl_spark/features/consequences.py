"""Features of variants with measured effects: what they do to transcripts, by the picked row of `consequences`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genodl_spark.core.errors import InputError
from genodl_spark.features.protocol import ROWS, Changed, Choice, StoredRows, batch_of
from genodl_spark.genome.consequences import TERMS
from genodl_spark.lake.schema import VARIANT, Table
from genodl_spark.lake.tables.consequences import CONSEQUENCES
from genodl_spark.lake.tables.ingested import VARIANT_EFFECTS

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from genodl_spark.lake.snapshot import Snapshot

_SITE = ["contig", "pos", "ref", "alt"]
_READ = ["terms", "cds_position", "protein_position", "codons", "amino_acids"]
_RESIDUES = "ACDEFGHIKLMNPQRSTVWY*"
NUMBERS = ("cds_position", "protein_position")
FEATURES = [
    *(f"term:{term}" for term in TERMS),
    *(f"codon_position:{place}" for place in (1, 2, 3)),
    *(f"amino_acid:{residue}" for residue in _RESIDUES),
    *(f"becomes:{residue}" for residue in _RESIDUES),
    *NUMBERS,
]


@dataclass(frozen=True)
class ConsequenceFeatures:
    """Of variants of `variant_effects`: whether each term of the Sequence Ontology holds (`term:missense_variant`),
    which base of its codon is changed (`codon_position:2`), the amino acid that was there and the one that is, of
    changes of one (`amino_acid:R`, `becomes:Q`), 1 or 0; positions in the coding sequence and the protein, missing
    outside.

    Those that a training set has; others are the same for all its rows.
    """

    dtype: str = "float32"
    encoding: str | None = None
    entity: str = VARIANT

    @property
    def tables(self) -> tuple[Table, ...]:
        return (VARIANT_EFFECTS, CONSEQUENCES)

    def cohorts(self, lake: Snapshot) -> list[str]:
        annotated = set(lake.cohorts(CONSEQUENCES))
        return [cohort for cohort in lake.cohorts(VARIANT_EFFECTS) if cohort in annotated]

    def entities(self, lake: Snapshot, cohort: str) -> list[str]:
        found = self._stored(lake, cohort).select("variant_id").toArrow()  # identifiers
        return sorted(found.column("variant_id").to_pylist())

    def _stored(self, lake: Snapshot, cohort: str) -> DataFrame:
        from pyspark.sql import functions as F

        return lake.read(VARIANT_EFFECTS, cohort).where(F.col("cohort") == cohort)

    def _annotated(self, lake: Snapshot, cohort: str) -> DataFrame:
        """entity_id and _READ of every variant. InputError for one that `annotate` has not seen."""
        from pyspark.sql import functions as F

        picked = lake.read(CONSEQUENCES, cohort).where((F.col("cohort") == cohort) & F.col("picked"))
        rows = self._stored(lake, cohort).select(*_SITE, F.col("variant_id").alias("entity_id"))
        rows = rows.where(F.col("ref") != F.col("alt")).join(picked.select(*_SITE, *_READ), _SITE, "left")
        lacking = rows.where(F.col("terms").isNull()).select("entity_id").limit(1)
        if found := lake.once(("not annotated", "variant", cohort), lacking.collect):
            raise InputError(
                f"found no consequences of {found[0].entity_id}, which cohort {cohort} has; expected those of all its "
                "variants: run genodl annotate again",
                "consequences",
            )
        return rows.select("entity_id", *_READ)

    def choose(self, lake: Snapshot, cohort: str, entities: list[str], learns: np.ndarray) -> Choice:
        wanted = pa.array(entities, pa.string())

        def kernel(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            for batch in batches:
                place = pc.index_in(batch.column("entity_id"), wanted)
                kept = batch.filter(place.is_valid())
                there = np.nan_to_num(encoded(kept)) != 0
                some = learns[:, place.drop_null().to_numpy()].astype(np.float32) @ there > 0
                yield pa.RecordBatch.from_arrays([pa.array([some.tobytes()])], ["some"])

        shape = len(learns), len(FEATURES)
        allowed = np.zeros(shape, bool)
        for row in self._annotated(lake, cohort).mapInArrow(kernel, "some binary").toLocalIterator():
            allowed |= np.frombuffer(bytes(row.some), bool).reshape(shape)
        return Choice.of(FEATURES, allowed)

    def rows(self, lake: Snapshot, cohort: str, features: list[str]) -> DataFrame:
        at = {name: i for i, name in enumerate(FEATURES)}
        places = np.array([at.get(name, len(FEATURES)) for name in features], np.int64)
        missing = int((places == len(FEATURES)).sum())  # of a version with further terms

        def kernel(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            for batch in batches:
                x = np.pad(encoded(batch), ((0, 0), (0, 1)), constant_values=np.nan)[:, places]
                yield batch_of(batch.column("entity_id"), x, np.full(batch.num_rows, missing))

        return self._annotated(lake, cohort).mapInArrow(kernel, ROWS)

    def stored(self, lake: Snapshot, cohort: str, features: list[str]) -> StoredRows | None:
        return None

    def changed(self, lake: Snapshot, cohort: str, since: Mapping[str, int]) -> Changed | None:
        from pyspark.sql import functions as F

        key = [name for name in CONSEQUENCES.key if name != "cohort"]
        other = lake.changed(CONSEQUENCES, cohort, since.get(CONSEQUENCES.name), key, ["picked", *_READ])
        found = lake.changed(VARIANT_EFFECTS, cohort, since.get(VARIANT_EFFECTS.name), ["variant_id"], _SITE)
        if found is None or other is None:
            return None
        touched = self._stored(lake, cohort).join(other[0].select(*_SITE), _SITE, "left_semi")
        ids = [rows.select(F.col("variant_id").alias("entity_id")) for rows in (touched, found[0])]
        return Changed(ids[0].union(ids[1]).distinct(), None)


def encoded(batch: pa.RecordBatch) -> np.ndarray:
    """Values of FEATURES, float32 (n, F), of rows with _READ of `consequences`."""
    n = batch.num_rows
    x = np.zeros((n, len(FEATURES)), np.float32)
    terms = batch.column("terms")
    place = pc.index_in(terms.flatten(), pa.array(TERMS))
    known = place.is_valid().to_numpy(zero_copy_only=False)
    x[pc.list_parent_indices(terms).to_numpy()[known], place.drop_null().to_numpy()] = 1
    for name in NUMBERS:
        x[:, FEATURES.index(name)] = batch.column(name).cast(pa.float32()).to_numpy(zero_copy_only=False)
    found = pc.fill_null(pc.find_substring_regex(batch.column("codons"), "[A-Z]"), -1).to_numpy()
    changed = np.flatnonzero((found >= 0) & (found < 3))  # upper case of a codon, as in cGg/cAg
    x[changed, FEATURES.index("codon_position:1") + found[changed]] = 1
    residues = batch.column("amino_acids")
    single = pc.fill_null(pc.match_substring_regex(residues, "^[A-Z*](/[A-Z*])?$"), False)
    rows = np.flatnonzero(single.to_numpy(zero_copy_only=False))
    texts = residues.filter(single)
    for name, place in (("amino_acid", 0), ("becomes", -1)):
        letters = pc.utf8_slice_codeunits(texts, place, None if place else 1)
        of = pc.fill_null(pc.index_in(letters, pa.array(list(_RESIDUES))), -1).to_numpy()
        x[rows[of >= 0], FEATURES.index(f"{name}:A") + of[of >= 0]] = 1
    return x
