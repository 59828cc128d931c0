"""Labels of a cohort: which entities have one, what it is, and the group that must not be divided by a split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import or_
from typing import Any, NamedTuple

import numpy as np

from genodl_spark.core.errors import InputError
from genodl_spark.core.text_values import known, number
from genodl_spark.features.protocol import Features, entity_of
from genodl_spark.job.config import Settings
from genodl_spark.job.run import Run
from genodl_spark.lake.entities import all_rows_about, check_column
from genodl_spark.lake.schema import PERSON, SEQUENCE, identifier
from genodl_spark.learning.heads import UNLABELLED as WITHOUT_LABELS
from genodl_spark.learning.heads import Head, labelled
from genodl_spark.learning.splits import DISTANCE, ROLES, connected, validating
from genodl_spark.learning.survival import horizons
from genodl_spark.registry.places import CHROMOSOME, LOCUS, groups_of

TCGA_PATIENT = "tcga_patient"  # the first 12 characters of a TCGA barcode
NEGATIVE = "negative"  # class of negatives, where labels name the positive one alone


@dataclass(frozen=True)
class Labels:
    """Entities with a label of one head at least, in the order of their identifiers; `target` float64 (entities,
    numbers) as `heads` have it. `together`: what was measured with what, where values are standard scores among it.
    `refused`: entities whose label nothing can be learnt of, each with the reason; they are none of `entities`."""

    entities: list[str]
    target: np.ndarray
    heads: list[Head]
    groups: list[str] | None
    published: list[str | None] | None
    warnings: list[str]
    together: list[str] | None = None
    refused: tuple[tuple[str, str], ...] = ()

    @property
    def strata(self) -> list[str] | None:
        """The class of each entity, where there is one column of classes and no more, or of times whether the event
        came; by it splits are stratified."""
        if [head.kind for head in self.heads] == ["time"]:
            return ["event" if came else "none" for came in self.target[:, 1]]
        if [head.kind for head in self.heads] != ["classes"]:
            return None
        return [self.heads[0].classes[int(index)] for index in self.target[:, 0]]

    def of(self, rows: Sequence[int]) -> Labels:
        """Those of some rows."""
        return replace(
            self,
            entities=[self.entities[i] for i in rows],
            target=self.target[np.asarray(rows, np.int64)],
            groups=None if self.groups is None else [self.groups[i] for i in rows],
            published=None if self.published is None else [self.published[i] for i in rows],
            together=None if self.together is None else [self.together[i] for i in rows],
        )


def label_of(settings: Settings, asked: str | None) -> str:
    """The label column that a command means, or several with commas between them.
    InputError for one where nothing is labelled."""
    if settings.target.kind not in WITHOUT_LABELS:
        return asked or settings.label
    if asked not in (None, UNLABELLED):
        raise InputError(
            f"found a label, {asked!r}, for target.kind {settings.target.kind}; expected none of the two", "--label"
        )
    return UNLABELLED


def several_of(label: str) -> list[str]:
    """Names that stand with commas between them."""
    return [name.strip() for name in label.split(",")]


def _columns(settings: Settings, label: str, known: Collection[str]) -> list[str]:
    """The columns that a label names; a comma may also stand in the name of one."""
    if settings.target.kind in WITHOUT_LABELS:
        return []
    several = several_of(label)
    if label in known or len(several) < 2:
        return [label]
    if twice := sorted({name for name in several if several.count(name) > 1}):
        raise InputError(f"found {twice[0]!r} twice in {label!r}; expected each column once", "--label")
    return several


def labelled_cohorts(run: Run, features: Features, label: str, named: str | None) -> list[str]:
    """Cohorts with features, less those without any label where that leaves a choice;
    the one `named` stays in any case."""
    from pyspark.sql import functions as F

    found = features.cohorts(run.sources)
    if len(found) < 2 or named is not None:
        return found
    rows = all_rows_about(run.sources, entity_of(features))
    columns = [name for name in _columns(run.settings, label, rows.columns) if name in rows.columns]
    if not columns:
        return found
    some = reduce(or_, (F.col(identifier(name)).isNotNull() for name in columns))
    labelled = {row.cohort for row in rows.where(some).select("cohort").distinct().collect()}
    return [name for name in found if name in labelled] or found


def read_labels(run: Run, features: Features, cohort: str, label: str, heads: list[Head] | None = None) -> Labels:
    """Labels of a cohort's entities that have features; those without any label are left out and counted.

    `heads`: those of a model; rows of other classes than theirs are left out. None: the task's own.
    """
    from pyspark.sql import functions as F

    s = run.settings
    kind = entity_of(features)
    kind_is = "sample" if kind == PERSON else kind
    described = all_rows_about(run.sources, kind, cohort).drop("cohort")
    group, published = s.split.group, s.split.column if heads is None else None
    # a model of one factor has a head by the name of its label
    factor = s.factor.column if heads is None or len(heads) > 1 else None
    # a clock that is given answers for whoever has features
    given = bool(s.clock.file) and heads is None
    names = _columns(s, label, described.columns) if heads is None else [head.label for head in heads if head.numbers]
    if factor is not None:
        names = [label] if heads is not None else names
        if len(names) != 1 or s.target.event is not None:
            raise InputError(f"found {factor!r} for {label}; expected one label, classes or values", "factor.column")
    if given and label not in described.columns:
        names = []
    event = s.target.event if heads is None or heads[0].kind == "time" else None
    within = s.target.within
    follows = group in (*CHROMOSOME, LOCUS)  # from places, where no column says it
    stands = group != TCGA_PATIENT and not (follows and group not in described.columns)
    wanted = [("--label", name) for name in names]
    beside = [
        ("factor.column", factor),
        ("target.event", event),
        ("target.within", within),
        ("split.group", group if stands else None),
        ("split.column", published),
    ]
    for key, column in [*wanted, *beside]:
        if column is not None:
            check_column(described, kind, column, key)
    if event is not None and len(names) > 1:
        raise InputError(f"found {event!r} for the labels {label!r}; expected one label, the time", "target.event")
    columns = [F.col(identifier(column)) if column else F.lit(None).cast("string") for _, column in [*wanted, *beside]]
    with_data = set(features.entities(run.sources, cohort))
    numbered = [column.alias(f"c{i}") for i, column in enumerate(columns)]
    # there may be millions of sequences, which are long as rows of Spark's
    found = described.select("entity_id", *numbered).toArrow().columns
    values = zip(*(column.to_pylist() for column in found), strict=True)
    rows = [
        _Described(entity, [None if text is None else known(text) for text in texts])
        for entity, *texts in values
        if entity in with_data
    ]
    if not names or given:  # whoever has features, described or not
        rows += [_Described(entity, [None] * len(columns)) for entity in with_data - {row.entity_id for row in rows}]
    rows.sort(key=lambda row: row.entity_id)
    against = kind == SEQUENCE and s.sequence.negatives != "given"
    reading = _Reading(s, kind_is, [row.entity_id for row in rows], against)
    parts: list[tuple[Head, np.ndarray]] = []
    for i, name in enumerate(names):
        texts = [row.texts[i] for row in rows]
        of_model = heads[i] if heads is not None else None
        if event is not None:
            came = [row.texts[len(names) + 1] for row in rows]
            parts.append(reading.times(name, texts, event, came, of_model))
        elif of_model.kind == "value" if of_model is not None else _is_value(s, name):
            parts.append(reading.values(name, texts, None if within is None else [row.texts[-3] for row in rows]))
        else:
            parts.append(reading.classes(name, texts, of_model))
    if factor is not None:
        parts = reading.factors(*parts[0], factor, [row.texts[1] for row in rows], heads)
    if not names and given:
        parts.append((Head(label, "value"), np.full((len(rows), 1), np.nan)))
    elif not names:
        kind_of_head = s.target.kind if heads is None else heads[0].kind
        parts.append((Head(label, kind_of_head), np.empty((len(rows), 0))))
    there = np.any([labelled(target) for _, target in parts], axis=0) | given
    if not there.any():
        advice = "ingest a sample table with it" if kind == PERSON else "ingest a table that has it"
        raise InputError(
            f"found no {kind_is} of cohort {cohort} with data and a {label}; expected some, {advice}", "--label"
        )
    kept = [row for row, is_labelled in zip(rows, there, strict=True) if is_labelled]
    entities = [row.entity_id for row in kept]
    groups = None
    if group == TCGA_PATIENT:
        groups = [entity[:12] for entity in entities]
    elif group is not None and not any(row.texts[-2] is not None for row in kept):
        if not follows:
            lacking = f"found no value of {group} for any {kind_is} of cohort {cohort}"
            raise InputError(f"{lacking}; expected some, name another column", "split.group")
        distance = DISTANCE if s.split.distance is None else s.split.distance
        groups = groups_of(run.sources, kind, cohort, entities, group, distance)
        if nowhere := sum(one.startswith("\0") for one in groups):
            reading.warnings.append(f"{nowhere} of {len(groups)} {kind_is}s lie at no known place: each is a group")
    elif group is not None:
        groups = [row.texts[-2] if row.texts[-2] is not None else f"\0{row.entity_id}" for row in kept]
    target = np.concatenate([target[there] for _, target in parts], 1)
    published_values = [row.texts[-1] for row in kept] if published else None
    together = None if within is None else [row.texts[-3] or "" for row in kept]
    read = [head for head, _ in parts]
    refused = tuple(reading.refused)
    return Labels(entities, target, read, groups, published_values, reading.warnings, together, refused)


def kept_together(run: Run, features: Features, cohort: str, labels: Labels) -> Labels:
    """The labels with groups in which sequences that are nearly the same hang together (`sequence.alike`), and variants
    of one position, beside those that the split asks for. Chromosomes are not joined: of sequences that are alike,
    those on another than most of them are left out. A published split stays as it is: a warning says how many of its
    rows for validation and test are like one of its training rows. But for `train.validation`: where none is marked for
    validation, a share of those marked train is, whole groups and what hangs together."""
    base: Any = getattr(features, "base", features)
    identity = run.settings.sequence.alike
    if not hasattr(base, "alike") or not identity:
        return _validated(run, labels, None)
    found = base.alike(run.sources, cohort, labels.entities, identity)
    labels = _validated(run, labels, found)
    several = np.bincount(found) > 1
    share, warnings = base.shared(identity), list(labels.warnings)
    if labels.published is not None:
        role = np.array([value or "" for value in labels.published])
        taught = np.isin(found, found[role == "train"])
        others = [name for name in ROLES if name != "train"]
        held = [f"{(taught & (role == name)).sum()} of {(role == name).sum()} {name} rows" for name in others]
        if (taught & np.isin(role, others)).any():
            warnings.append(f"{' and '.join(held)} share {share} with a training row, as the split was published")
        return replace(labels, warnings=warnings)
    if not several.any():
        return labels
    if labels.groups is not None and run.settings.split.group in CHROMOSOME:
        kept = on_one(np.unique(np.asarray(labels.groups, str), return_inverse=True)[1], found)
        if not kept.all():
            told = f"{(~kept).sum()} of {len(found)} {entity_of(features)}s share {share} with others"
            warnings.append(f"{told} on another chromosome: they are left out, so that none is tied to another")
        return replace(labels.of(np.flatnonzero(kept).tolist()), warnings=warnings)
    told = f"{several[found].sum()} of {len(found)} {entity_of(features)}s share {share} with another one"
    warnings.append(f"{told}: {several.sum()} groups of them are kept together")
    return replace(labels, groups=_tied(labels, found), warnings=warnings)


def _validated(run: Run, labels: Labels, alike: np.ndarray | None) -> Labels:
    """The labels of a published split with rows for validation out of those that train, where it has none
    (`train.validation`). `alike` int (rows,): what hangs together."""
    share, published = run.settings.train.validation, labels.published
    if not share or published is None or "validation" in published:
        return labels
    rows = np.array([i for i, value in enumerate(published) if value == "train"])
    groups, strata = labels.groups if alike is None else _tied(labels, alike), labels.strata
    if len(rows) < 2 or (groups is not None and len({groups[i] for i in rows}) < 2):
        return labels
    entities, of_class, of_group = (
        values if values is None else [values[i] for i in rows] for values in (labels.entities, strata, groups)
    )
    assert entities is not None
    found = rows[validating(entities, of_class, of_group, share, run.settings.seed)]
    told = (
        f"the published split has no rows for validation: {len(found)} of its {len(rows)} training rows are these "
        "(train.validation)"
    )
    changed = list(published)
    for row in found:
        changed[row] = "validation"
    return replace(labels, published=changed, warnings=[*labels.warnings, told])


def _tied(labels: Labels, found: np.ndarray) -> list[str]:
    """Groups, each named after one of its own, in which rows of one group of the labels, and rows of one number of
    `found` int (rows,), are together."""
    own = labels.groups if labels.groups is not None else labels.entities
    ties = (np.unique(of_row, return_index=True, return_inverse=True) for of_row in (np.asarray(own, str), found))
    first = [begins[of_row] for _, begins, of_row in ties]
    joined = connected(len(found), np.tile(np.arange(len(found)), 2), np.concatenate(first))
    _, begins = np.unique(joined, return_index=True)
    return [own[i] for i in begins[joined].tolist()]


def on_one(groups: np.ndarray, alike: np.ndarray) -> np.ndarray:
    """Which rows are of the group, `groups` int (rows,), that most rows are of that have the same number in `alike`,
    int (rows,); of equals the least: bool (rows,)."""
    pairs, of_row, counts = np.unique(np.stack([alike, groups]), axis=1, return_inverse=True, return_counts=True)
    order = np.lexsort((pairs[1], -counts, pairs[0]))
    best = order[np.flatnonzero(np.diff(pairs[0][order], prepend=-1))]
    chosen = np.zeros(len(counts), bool)
    chosen[best] = True
    kept: np.ndarray = chosen[of_row.ravel()]
    return kept


def _is_value(settings: Settings, column: str) -> bool:
    """Whether the labels of a column are values, by the settings of a task."""
    target = settings.target
    if target.kind == "regression" or column in target.values or settings.clock.file:
        return True
    return target.kind == "auto" and column == "value"


class _Described(NamedTuple):
    """An entity with what is said of it: labels, event, group and published part."""

    entity_id: str
    texts: list[str | None]


class _Reading:
    """Reads columns of labels of some entities, each float64 (entities, numbers of its head),
    NaN where an entity has no label. `against`: positives bring negatives, so that classes are two, whether or not
    both are there."""

    def __init__(self, settings: Settings, kind: str, entities: list[str], against: bool = False) -> None:
        self.target, self.kind, self.entities, self.against = settings.target, kind, entities, against
        self.warnings: list[str] = []
        self.refused: list[tuple[str, str]] = []

    def _lacking(self, name: str, texts: Sequence[str | None]) -> None:
        lacking = sum(text is None for text in texts)
        if lacking:
            self.warnings.append(f"{lacking} of {len(texts)} {self.kind}s have no {name}")

    def classes(self, name: str, texts: list[str | None], given: Head | None) -> tuple[Head, np.ndarray]:
        """Class indices; `given`: the head of a model, whose classes are in its order."""
        self._lacking(name, texts)
        there = {text for text in texts if text is not None}
        names = list(given.classes) if given is not None else self.target.classes or sorted(there)
        absent = set(self.target.classes) - there if given is None else set()
        if self.against and given is None:
            names = self._against(name, names)
            absent -= {names[0]}
            if names[0] in there and not self.target.classes:
                self.warnings.append(f"{names[1]} is taken for the positive class of {name}, {names[0]} for the other")
        if absent:
            raise InputError(
                f"found no {self.kind} of class {sorted(absent)[0]!r} in {name}; expected some", "target.classes"
            )
        index = {class_: i for i, class_ in enumerate(names)}
        others = Counter(text for text in texts if text is not None and text not in index)
        if others:
            shown = ", ".join(repr(other) for other in sorted(others)[:CLASSES_NAMED]) + (
                " ..." if len(others) > CLASSES_NAMED else ""
            )
            self.warnings.append(
                f"{others.total()} {self.kind}s of other classes ({shown}) than {', '.join(names)} are left out"
            )
        target = np.array([[index.get(text, np.nan) if text is not None else np.nan] for text in texts], float).reshape(
            -1, 1
        )
        return Head(name, "classes", tuple(names)), target

    def _against(self, name: str, names: list[str]) -> list[str]:
        """The class of negatives and the positive one, in this order."""
        names = [NEGATIVE, *names] if len(names) == 1 else names
        if len(names) != 2 or names[1] == NEGATIVE:
            shown = ", ".join(map(repr, names[:CLASSES_NAMED]))
            text = f"found the classes {shown} in {name} for positives that bring negatives"
            raise InputError(f"{text}; expected two, the last one positive, or that one alone", "target.classes")
        return names

    def values(
        self, name: str, texts: list[str | None], together: list[str | None] | None = None
    ) -> tuple[Head, np.ndarray]:
        """Values; `together`: among which of them they are standard scores. Those of rows that do not say it, or that
        all have one value, are left out."""
        self._lacking(name, texts)
        found = self._numbers(name, texts)
        if together is not None:
            found, left_out = _standard_scores(found, together)
            if left_out:
                where = f"without a {self.target.within}, or that have one {name} there"
                self.warnings.append(f"{left_out} {self.kind}s {where}, are left out")
        return Head(name, "value"), found[:, None]

    def times(
        self, name: str, texts: list[str | None], event: str, came: list[str | None], given: Head | None
    ) -> tuple[Head, np.ndarray]:
        """Times and whether the event came; those that are not above 0 tell nothing, and are refused. `given`: the
        head of a model, which predicts survival at times of its own."""
        self._lacking(f"{name} and {event}", [a if b is not None else None for a, b in zip(texts, came, strict=True)])
        events = np.array(
            [
                np.nan if text is None else self._event(event, text, entity)
                for text, entity in zip(came, self.entities, strict=True)
            ]
        )
        target = np.column_stack([self._numbers(name, texts), events])
        early = target[:, 0] <= 0
        if early.any():
            found = [entity for entity, left_out in zip(self.entities, early, strict=True) if left_out]
            shown = ", ".join(found[:CLASSES_NAMED]) + (" ..." if len(found) > CLASSES_NAMED else "")
            told = f"{len(found)} {self.kind}s with a {name} of 0 or less are left out: {shown}"
            self.warnings.append(f"{told}; the table splits says why")
            for entity, value in zip(found, target[early, 0], strict=True):
                self.refused.append((entity, f"found {value:g} in {name}; expected a time above 0"))
            target[early] = np.nan
        target[np.isnan(target).any(1)] = np.nan
        known = target[labelled(target)]
        asked = tuple(self.target.horizons) or horizons(known[:, 0], known[:, 1] > 0)
        return Head(name, "time", (), asked if given is None else given.times), target

    def factors(
        self, head: Head, target: np.ndarray, column: str, factors: list[str | None], given: list[Head] | None
    ) -> list[tuple[Head, np.ndarray]]:
        """A head for each factor, the values of `column`, of whose rows alone it has the labels; `given`: those of a
        model. The one head as it is where there is one factor."""
        of = np.array(["" if factor is None else factor for factor in factors], object)
        known = labelled(target) & (of != "")
        self._lacking(column, factors)
        names = sorted(set(of[known].tolist())) if given is None else [one.label for one in given]
        others = known & ~np.isin(of, names)
        if others.any():
            first = min(of[others].tolist())
            self.warnings.append(f"{others.sum()} {self.kind}s of another {column} ({first!r} ...) are left out")
        if len(names) == 1:
            return [(head, np.where(known[:, None], target, np.nan))]
        return [(replace(head, label=name), np.where((of == name)[:, None], target, np.nan)) for name in names]

    def _event(self, column: str, text: str, entity: str) -> float:
        """1 where the event came, 0 where it had not; tables write 1:DECEASED, too."""
        found = _EVENTS.get(text.partition(":")[0].strip().lower())
        if found is None:
            raise InputError(
                f"found {text!r} in {column} of {self.kind} {entity}; expected 1 or 0, true or false, yes or no",
                "target.event",
            )
        return found

    def _numbers(self, name: str, texts: list[str | None]) -> np.ndarray:
        values = [np.nan if text is None else number(text) for text in texts]
        for entity, text, value in zip(self.entities, texts, values, strict=True):
            if value is None:
                found = f"found {text!r} in {name} of {self.kind} {entity}"
                raise InputError(f"{found}; expected a finite number, as {name} is to be regressed", name)
        return np.array(values, float)


def _standard_scores(values: np.ndarray, together: list[str | None]) -> tuple[np.ndarray, int]:
    """Values less the mean, over the standard deviation, of those of the same text; NaN where there is no text or no
    spread, and how many of these there are."""
    names, of = np.unique(np.array([text or "" for text in together], str), return_inverse=True)
    known = ~np.isnan(values)
    count = np.maximum(np.bincount(of[known], minlength=len(names)), 1)
    mean = np.bincount(of[known], values[known], len(names)) / count
    spread = np.sqrt(np.bincount(of[known], (values[known] - mean[of[known]]) ** 2, len(names)) / count)
    usable = (spread > 0) & (names != "")
    scores = np.where(usable[of], (values - mean[of]) / np.where(spread > 0, spread, 1)[of], np.nan)
    return scores, int((known & ~usable[of]).sum())


UNLABELLED = "none"  # label_column of what learns from rows alone
_EVENTS = {"1": 1.0, "true": 1.0, "yes": 1.0, "0": 0.0, "false": 0.0, "no": 0.0}
CLASSES_NAMED = 5  # classes that a warning names
