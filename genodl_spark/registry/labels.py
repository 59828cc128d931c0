"""Labels of a cohort: which entities have one, what it is, and the group that must not be divided by a split."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from genodl_spark.core.errors import InputError
from genodl_spark.core.text_values import known, number
from genodl_spark.features.protocol import Features, entity_of
from genodl_spark.job.run import Run
from genodl_spark.lake.entities import all_rows_about, check_column
from genodl_spark.lake.schema import PERSON, identifier

TCGA_PATIENT = "tcga_patient"  # the first 12 characters of a TCGA barcode


@dataclass(frozen=True)
class Labels:
    """Labelled entities in the order of their identifiers; `target` is the class index, or the value for regression."""

    entities: list[str]
    target: np.ndarray
    classes: list[str]
    groups: list[str] | None
    published: list[str | None] | None
    warnings: list[str]


def labelled_cohorts(run: Run, features: Features, label: str, named: str | None) -> list[str]:
    """Cohorts with features, less those without any label where that leaves a choice;
    the one `named` stays in any case."""
    from pyspark.sql import functions as F

    found = features.cohorts(run.sources)
    if len(found) < 2 or named is not None:
        return found
    rows = all_rows_about(run.sources, entity_of(features))
    if label not in rows.columns:
        return found
    column = F.col(identifier(label))
    labelled = {row.cohort for row in rows.where(column.isNotNull()).select("cohort").distinct().collect()}
    return [name for name in found if name in labelled] or found


def read_labels(run: Run, features: Features, cohort: str, label: str, classes: list[str] | None = None) -> Labels:
    """Labels of a cohort's entities that have features; those without a label are left out and counted.

    `classes`: those of a model, in its order; rows of other classes are left out. None: the task's own.
    """
    from pyspark.sql import functions as F

    s = run.settings
    kind = entity_of(features)
    kind_is = "sample" if kind == PERSON else kind
    entities_are = f"{kind_is}s"
    described = all_rows_about(run.sources, kind, cohort).drop("cohort")
    group, published = (s.split.group, s.split.column) if classes is None else (s.split.group, None)
    wanted = {"label": label, "group": group if group != TCGA_PATIENT else None, "published": published}
    for key, column in wanted.items():
        if column is not None:
            check_column(
                described, kind, column, {"label": "--label", "group": "split.group", "published": "split.column"}[key]
            )
    columns = [
        F.col(identifier(column)).alias(key) if column else F.lit(None).cast("string").alias(key)
        for key, column in wanted.items()
    ]
    with_data = set(features.entities(run.sources, cohort))
    # there may be millions of sequences, which are long as rows of Spark's
    found = described.select("entity_id", *columns).toArrow().columns
    values = zip(*(column.to_pylist() for column in found), strict=True)
    rows = [
        _Labelled(entity, *(None if text is None else known(text) for text in texts))
        for entity, *texts in values
        if entity in with_data
    ]
    rows.sort(key=lambda row: row.entity_id)
    labelled = [row for row in rows if row.label is not None]
    warnings = (
        [f"{len(rows) - len(labelled)} of {len(rows)} {entities_are} have no {label}"]
        if len(labelled) < len(rows)
        else []
    )
    regression = s.target.kind == "regression" or (s.target.kind == "auto" and label == "value")
    if classes is not None:
        regression = not classes
    if regression:
        target = _values(labelled, label, kind_is)
        names: list[str] = []
    else:
        names = classes or s.target.classes or sorted({row.label for row in labelled})
        absent = set(s.target.classes) - {row.label for row in labelled} if classes is None else set()
        if absent:
            raise InputError(
                f"found no {kind_is} of class {sorted(absent)[0]!r} in {label}; expected some", "target.classes"
            )
        index = {name: i for i, name in enumerate(names)}
        others = Counter(row.label for row in labelled if row.label not in index)
        if others:
            named = ", ".join(repr(name) for name in sorted(others)[:CLASSES_NAMED]) + (
                " ..." if len(others) > CLASSES_NAMED else ""
            )
            warnings.append(
                f"{others.total()} {entities_are} of other classes ({named}) than {', '.join(names)} are left out"
            )
        labelled = [row for row in labelled if row.label in index]
        target = np.array([index[row.label] for row in labelled], float)
    if not labelled:
        advice = "ingest a sample table with it" if kind == PERSON else "ingest a table that has it"
        raise InputError(
            f"found no {kind_is} of cohort {cohort} with data and a {label}; expected some, {advice}", "--label"
        )
    entities = [row.entity_id for row in labelled]
    groups = None
    if group == TCGA_PATIENT:
        groups = [entity[:12] for entity in entities]
    elif group is not None:
        groups = [row.group if row.group is not None else f"\0{row.entity_id}" for row in labelled]
    return Labels(entities, target, names, groups, [row.published for row in labelled] if published else None, warnings)


class _Labelled(NamedTuple):
    entity_id: str
    label: Any
    group: str | None
    published: str | None


def _values(rows: list[_Labelled], label: str, kind: str) -> np.ndarray:
    values = [number(row.label or "") for row in rows]
    for row, value in zip(rows, values, strict=True):
        if value is None:
            found = f"found {row.label!r} in {label} of {kind} {row.entity_id}"
            raise InputError(f"{found}; expected a finite number, as {label} is to be regressed", label)
    return np.array(values, float)


CLASSES_NAMED = 5  # classes that a warning names
