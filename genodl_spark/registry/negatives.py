"""Negatives that the positives of a data set bring (`sequence.negatives`): which rows bring some, and what these are.

They are rows of the data set, behind those that are labelled, with the group and the part of the split of their
positive, so that no split divides the two. A shuffle is stored as it is drawn by the names of its positive and its own
number alone: so it is to baselines and where it is held out. Training draws another one in every epoch (group.py).
Windows of a genome are chosen once, beside all sequences of the cohort whose places are known.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genodl_spark.core import packing, splitmix
from genodl_spark.core.errors import InputError
from genodl_spark.features import windows as windows_of
from genodl_spark.features.protocol import ROWS, Features, batch_of, entity_of
from genodl_spark.features.windows import Wanted, Windows
from genodl_spark.genome import loci, shuffles
from genodl_spark.genome.loci import NOWHERE, Loci
from genodl_spark.job.config import Settings
from genodl_spark.job.run import Run
from genodl_spark.lake.schema import SEQUENCE
from genodl_spark.lake.tables.genomes import REFERENCE, REFERENCE_BASES
from genodl_spark.lake.tables.ingested import SEQUENCES
from genodl_spark.lake.tables.learning import SPLITS
from genodl_spark.learning.heads import Head, targets
from genodl_spark.learning.splits import ROLES, TRAIN, UNUSED, Assignment
from genodl_spark.registry.labels import Labels
from genodl_spark.registry.places import CHROMOSOME, places_of

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, Row

GIVEN, SHUFFLED, GENOME = "given", "shuffled", "genome"


@dataclass(frozen=True)
class Negatives:
    """`of` int64 (n,): the labelled row that brought each; `names`: what each is, behind the name of its positive.
    `target` float64 (n, numbers): of the negative class of those heads that know its row as a positive. `numbers`
    int64 (n,): which shuffle of that row each is, from 1; or `windows`: where they lie in the reference of cohort
    `reference`."""

    of: np.ndarray
    names: list[str]
    target: np.ndarray
    numbers: np.ndarray
    windows: Windows | None = None
    reference: str = ""
    warnings: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.of)

    def entities(self, labelled: Sequence[str]) -> list[str]:
        """What they are called."""
        return [f"{labelled[i]}~{name}" for i, name in zip(self.of.tolist(), self.names, strict=True)]


def check(settings: Settings, features: Features) -> None:
    """InputError where positives are to bring negatives and are no sequences."""
    kind, scheme = entity_of(features), settings.sequence.negatives
    if scheme != GIVEN and kind != SEQUENCE:
        raise InputError(f"found {scheme} for features of each {kind}; expected {GIVEN}", "sequence.negatives")


def bringing(target: np.ndarray, heads: list[Head], codes: np.ndarray, folds: int) -> np.ndarray:
    """Whether each row brings negatives of each head, bool (rows, heads): the positives, those of class 1.

    Of a fixed split those that are held out bring some only where their part of it has no negative of the head.
    `target` float64 (rows, numbers), `codes` int8 (rows, repeats) as in the table `examples`.
    InputError for a head without two classes.
    """
    found = np.zeros((len(target), len(heads)), bool)
    for number, (head, own) in enumerate(zip(heads, targets(heads), strict=True)):
        if len(head.classes) != 2:
            what = f"{len(head.classes)} classes" if head.classes else "no classes"
            text = f"found {what} in {head.label}; expected two, the last one positive"
            raise InputError(f"{text}, or sequence.negatives={GIVEN}", "sequence.negatives")
        classes = target[:, own][:, 0]
        found[:, number] = (classes == 1) & (codes[:, 0] != UNUSED)
        for code in ROLES.values() if not folds else ():
            inside = codes[:, 0] == code
            if code != TRAIN and (classes[inside] == 0).any():
                found[inside, number] = False
    return found


def reference_of(run: Run, scheme: str) -> str | None:
    """The cohort of the reference that negatives are windows of; None where they are none.
    InputError where there is none, or a choice."""
    if scheme != GENOME:
        return None
    named, among = run.settings.reference, run.sources.cohorts(REFERENCE_BASES)
    if named in among or (not named and len(among) == 1):
        return named or among[0]
    found = f"found {named or 'no name'} among {', '.join(among[:5]) or 'none'} for negatives of the genome"
    raise InputError(f"{found}; expected one: genodl ingest reference, or --set reference=NAME", "reference")


def brought(
    run: Run,
    features: Features,
    cohort: str,
    labels: Labels,
    codes: np.ndarray,
    folds: int,
    beside: Loci = NOWHERE,
) -> Negatives | None:
    """Negatives of a data set; None where those given are all. `codes` int8 (rows, repeats): its split.
    `beside`: see `of_rows`."""
    s = run.settings.sequence
    if s.negatives == GIVEN:
        return None
    brings = bringing(labels.target, labels.heads, codes, folds)
    return of_rows(run, s.negatives, features, cohort, labels.entities, brings, s.negatives_each, beside)


def windows_of_split(run: Run, model: Row) -> Loci:
    """Where windows of a genome lie that stand in the split of a row of `models`: those that trained it among them."""
    stored = run.lake.rows(SPLITS, {"split_hash": model.split_hash, "task": model.task}, columns=["entity_id"])
    names = pc.unique(stored.column("entity_id")).to_pylist()
    found = (loci.window(name.rpartition("~")[2]) for name in names if "~" in name)
    return Loci.of(None if place is None else (place[0], place[1] - 1, place[2]) for place in found)


def of_rows(
    run: Run,
    scheme: str,
    features: Features,
    cohort: str,
    entities: list[str],
    brings: np.ndarray,
    each: int,
    beside: Loci = NOWHERE,
) -> Negatives:
    """Negatives of labelled rows, `each` of a row. `brings` bool (rows, heads): of which heads, as of `bringing`.
    `beside`: what no window may meet, but for sequences of the cohort."""
    of = np.repeat(np.flatnonzero(brings.any(1)), each)
    numbers = np.arange(len(of)) % each + 1
    target, reference = np.where(brings[of], 0.0, np.nan), reference_of(run, scheme)
    if reference is None:
        return Negatives(of, [f"{SHUFFLED}:{k}" for k in numbers.tolist()], target, numbers)
    windows = _windows(run, features, cohort, reference, entities, of, numbers, beside)
    there = windows.length > 0
    told = f"{(~there).sum()} of {len(there)} negatives are wanting: reference {reference} has no such windows for them"
    windows = windows[there]
    names = windows.places()
    return Negatives(of[there], names, target[there], numbers[there], windows, reference, [told] * (not there.all()))


def _windows(
    run: Run,
    features: Features,
    cohort: str,
    reference: str,
    entities: list[str],
    of: np.ndarray,
    numbers: np.ndarray,
    beside: Loci,
) -> Windows:
    """A window for each row of `of`. Where a split is by chromosome, on that of its positive."""
    from pyspark.sql import functions as F

    stored = run.sources.read(SEQUENCES, cohort).where(F.col("cohort") == cohort)
    named = stored.select(F.col("sequence_id").alias("entity_id"), "codes", F.xxhash64("sequence_id").alias("key"))
    asked = pa.table({"entity_id": pa.array(entities, pa.string()).take(pa.array(np.unique(of)))})
    found = windows_of.measured(named.join(run.spark.createDataFrame(asked), "entity_id")).toArrow()  # no base
    place = pc.index_in(pa.array(entities, pa.string()).take(pa.array(of)), found.column("entity_id")).to_numpy()
    key = found.column("key").to_numpy().view(np.uint64)[place]
    places = places_of(run.sources, entity_of(features), cohort, entities)
    within = run.settings.split.group in CHROMOSOME
    wanted = Wanted(
        found.column("length").to_numpy().astype(np.int64)[place],
        found.column("share").to_numpy()[place],
        splitmix.mixed(key + splitmix.keys_of(numbers)),
        places.contig[of] if within else np.full(len(of), "", str),
    )
    total: Counter[str] = Counter()
    for row in run.sources.rows(REFERENCE, {"cohort": reference}, ["contig", "length"]).to_pylist():
        total[row["contig"]] += row["length"]
    return windows_of.matched(run.sources, reference, wanted, places + beside, dict(total))


def behind(labels: Labels, assignment: Assignment, negatives: Negatives) -> tuple[Labels, Assignment]:
    """Labels and split of all rows, the negatives last. A positive and what it brought are of one group."""
    groups = labels.groups if labels.groups is not None else labels.entities
    whole = replace(
        labels,
        entities=[*labels.entities, *negatives.entities(labels.entities)],
        target=np.concatenate([labels.target, negatives.target]),
        groups=[*groups, *(groups[i] for i in negatives.of.tolist())],
        published=None,
        together=None,  # of values, which bring none
        warnings=[*labels.warnings, *negatives.warnings],
    )
    return whole, replace(assignment, codes=np.concatenate([assignment.codes, assignment.codes[negatives.of]]))


def rows(run: Run, positives: DataFrame, width: int, entities: list[str], negatives: Negatives) -> DataFrame:
    """Rows of negatives, as `Features.rows` has those of `positives`, of `width` base codes each; `entities`: all that
    are labelled."""
    from pyspark.sql import functions as F

    called = negatives.entities(entities)
    if negatives.windows is not None:
        return windows_of.rows(run.sources, negatives.reference, negatives.windows, called, width)
    names = pa.array(entities, pa.string()).take(pa.array(negatives.of))
    asked = {"entity_id": names, "name": called, "number": negatives.numbers}
    met = positives.join(run.spark.createDataFrame(pa.table(asked)), "entity_id")
    keyed = met.select("name", "x", "missing", F.xxhash64("entity_id", "number").alias("key"))
    return keyed.mapInArrow(partial(_shuffled, width=width), ROWS)


def _shuffled(batches: Iterable[pa.RecordBatch], width: int) -> Iterator[pa.RecordBatch]:
    """For mapInArrow over name, x, missing and key of positives."""
    for batch in batches:
        codes = packing.rows(batch.column("x"), "int8", width)
        drawn = shuffles.shuffled(codes, batch.column("key").to_numpy().view(np.uint64))
        yield batch_of(batch.column("name"), drawn, batch.column("missing").to_numpy())
