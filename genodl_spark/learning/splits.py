"""Which rows train and which test: group-aware, stratified, seeded, and audited for leaks."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from genodl_spark.core.errors import InputError

DISTANCE = 10_000  # bases between neighbours, where split.distance does not say it
TRAIN, VALIDATION, TEST, UNUSED = 0, 1, 2, -1
ROLES = {"train": TRAIN, "validation": VALIDATION, "test": TEST}


class Split(BaseModel):
    """Who trains and who tests, in one of three forms: a published column; folds with repeats;
    or shares train, validation, test."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    column: str | None = Field(
        None, description="A published split: the column of the sample table that says train, validation or test."
    )
    folds: int | None = Field(None, ge=2, le=127, description="Folds of a cross-validation.")
    repeats: int = Field(1, ge=1, le=1000, description="How often the rows are dealt into folds anew.")
    train: float | None = Field(None, gt=0, lt=1, description="Share of the rows that train.")
    validation: float = Field(0.0, ge=0, lt=1, description="Share of the rows that say when to stop.")
    test: float | None = Field(None, gt=0, lt=1, description="Share of the rows that are measured on.")
    group: str | None = Field(
        None,
        description="Column whose values no split divides; tcga_patient means the first 12 "
        "characters of the identifier. Where there is no such column, chromosome (or chrom) and locus follow from "
        "where sequences and variants lie: their columns chrom, start and end, or names such as chr1:1000-1200.",
    )
    distance: int | None = Field(
        None,
        ge=0,
        description="Bases between one and the next on a chromosome at most, of those that split.group=locus keeps "
        "together; 10,000 where it is not said.",
    )
    stratify: str | None = Field(
        None,
        description="With shares: label deals each class in these shares; not set, "
        "rows are dealt whatever their class.",
    )
    inner: int | None = Field(
        None,
        ge=2,
        le=127,
        description="Deals the training rows of a column or of shares into so many folds; "
        "the rows for validation and test are not used then.",
    )

    @model_validator(mode="after")
    def _one_form(self) -> Split:
        shares = self.train is not None or self.test is not None
        if (self.column is not None) + (self.folds is not None) + shares != 1:
            raise ValueError("one of column, folds, or the shares train and test")
        if shares and (
            self.train is None or self.test is None or abs(self.train + self.validation + self.test - 1) > 1e-6
        ):
            raise ValueError("shares train, validation and test that add up to 1")
        if self.folds is None and self.repeats != 1:
            raise ValueError("repeats together with folds")
        if self.folds is not None and self.inner is not None:
            raise ValueError("inner together with column or shares")
        return self


@dataclass(frozen=True)
class Assignment:
    """`codes`, int8 (rows, repeats): the fold, or 0 train, 1 validation, 2 test; -1 not used.
    `folds` is 0 for fixed splits."""

    codes: np.ndarray
    folds: int
    warnings: list[str]


def assign(
    entities: Sequence[str],
    labels: Sequence[str] | None,
    groups: Sequence[str] | None,
    published: Sequence[str | None] | None,
    split: Split,
    seed: int,
) -> Assignment:
    """Assigns every row; the outcome depends on identifiers, labels, groups and seed, not on the order of rows.

    `labels` None means a continuous target, which is not stratified. `published` holds the values of `split.column`.
    InputError for a published value that is no role, or too few groups for two folds.
    """
    if split.inner is not None:
        outer = assign(entities, labels, groups, published, split.model_copy(update={"inner": None}), seed)
        return _within(entities, labels, groups, outer, split.inner, seed)
    ids = np.asarray(entities, dtype=object).astype(str)
    order = np.argsort(ids, kind="stable")
    if split.column is not None:
        assert published is not None
        return _published(published, split.column)
    names = [str(value) for value in (groups if groups is not None else entities)]
    group = np.unique(np.asarray(names)[order], return_inverse=True)[1]
    wanted = [str(value) for value in labels] if labels is not None else [""] * len(ids)
    classes, label = np.unique(np.asarray(wanted)[order], return_inverse=True)
    counts = np.zeros((group.max() + 1, label.max() + 1))
    np.add.at(counts, (group, label), 1)
    warnings: list[str] = []
    if split.folds is not None:
        # Groups that hold a class bound the folds in which it can be tested.
        holding = (counts > 0).sum(0)
        smallest = int(holding.min()) if labels is not None else len(counts)
        folds = max(2, min(split.folds, smallest, len(counts)))
        if len(counts) < 2:
            raise InputError("found one group in all; expected at least two, name another group column", "split.group")
        if folds < split.folds:
            least = f"the smallest class, {str(classes[holding.argmin()])!r}," if labels is not None else "the table"
            warnings.append(f"folds reduced from {split.folds} to {folds}: {least} has {smallest} groups")
        codes = np.empty((len(ids), split.repeats), np.int8)
        for repeat in range(split.repeats):
            codes[order, repeat] = _deal(counts, np.full(folds, 1 / folds), seed, repeat)[group]
        return Assignment(codes, folds, warnings)
    shares = np.array([split.train, split.validation, split.test], float)
    strata = counts if split.stratify is not None else counts.sum(1, keepdims=True)
    codes = np.empty((len(ids), 1), np.int8)
    codes[order, 0] = _deal(strata, shares, seed, 0)[group]
    return Assignment(codes, 0, warnings)


def _within(
    entities: Sequence[str],
    labels: Sequence[str] | None,
    groups: Sequence[str] | None,
    outer: Assignment,
    folds: int,
    seed: int,
) -> Assignment:
    """The training rows of `outer` dealt into `folds`; all other rows are not used."""
    rows = np.flatnonzero(outer.codes[:, 0] == TRAIN)

    def chosen(values: Sequence[str] | None) -> list[str] | None:
        return None if values is None else [values[i] for i in rows]

    if not rows.size:
        return Assignment(np.full_like(outer.codes, UNUSED), folds, outer.warnings)
    inner = assign([entities[i] for i in rows], chosen(labels), chosen(groups), None, Split(folds=folds), seed)
    codes = np.full_like(outer.codes, UNUSED)
    codes[rows] = inner.codes
    return Assignment(codes, inner.folds, [*outer.warnings, *inner.warnings])


def _deal(counts: np.ndarray, shares: np.ndarray, seed: int, repeat: int) -> np.ndarray:
    """Deals groups (groups, classes) to parts with the given shares, the largest first, each to the part
    most short of its classes."""
    generator = np.random.default_rng([seed, repeat, 0x5011])
    shuffled = generator.permutation(len(counts))
    ordered = shuffled[np.argsort(-counts[shuffled].sum(1), kind="stable")]
    totals = counts.sum(0)
    part = np.empty(len(counts), np.int8)
    filled = np.zeros((len(shares), counts.shape[1]))
    open_parts = shares > 0
    only = np.where((counts > 0).sum(1) == 1, counts.argmax(1), -1).tolist()
    sizes, parts = np.maximum(totals, 1).tolist(), [(s, max(s, 1e-9)) for s in shares.tolist()]
    for group in ordered.tolist():
        c = only[group]
        # of one class, as single rows are: the arithmetic below on plain numbers, for there may be a million
        if c >= 0:
            rows, size = float(counts[group, c]), sizes[c]
            mine_c = rows / size
            wants = [
                round((s - f / size) / least * mine_c / max(mine_c, 1e-12) * 1e9) if s > 0 else -math.inf
                for (s, least), f in zip(parts, filled[:, c].tolist(), strict=True)
            ]
            part[group] = best = wants.index(max(wants))
            filled[best, c] += rows
            continue
        mine = counts[group] / np.maximum(totals, 1)
        short = (shares[:, None] - filled / np.maximum(totals, 1)) / np.maximum(shares[:, None], 1e-9)
        want = np.where(open_parts, (short * mine).sum(1) / max(mine.sum(), 1e-12), -np.inf)
        best = int(np.argmax(np.round(want, 9)))
        part[group] = best
        filled[best] += counts[group]
    return part


def _published(values: Sequence[str | None], column: str) -> Assignment:
    bad = {value for value in values if value is not None and value not in ROLES}
    if bad:
        raise InputError(
            f"found {sorted(bad)[0]!r} in column {column}; expected train, validation or test", "split.column"
        )
    codes = np.array([ROLES[value] if value is not None else UNUSED for value in values], np.int8)
    for name, code in (("train", TRAIN), ("test", TEST)):
        if not (codes == code).any():
            raise InputError(f"found no row marked {name} in column {column}; expected some", "split.column")
    return Assignment(codes[:, None], 0, [])


def validating(
    entities: Sequence[str], labels: Sequence[str] | None, groups: Sequence[str] | None, share: float, seed: int
) -> np.ndarray:
    """Which of some training rows are to say when to stop, bool (rows,): so large a share of them, class by class and
    whole groups, as `assign` deals them."""
    split = Split(train=1 - share, test=share, stratify="label" if labels is not None else None)
    return assign(entities, labels, groups, None, split, seed).codes[:, 0] == TEST


def connected(rows: int, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Numbers of groups, int32 (rows,): the connected components of rows by pairs of them, whole numbers (pairs,)
    each, which no split may divide."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(first), bool), (first, second)), (rows, rows))
    groups: np.ndarray = connected_components(graph, directed=False)[1]
    return groups


def audit(assignment: Assignment, entities: Sequence[str], groups: Sequence[str] | None) -> None:
    """InputError when an entity stands twice, or a group spans folds or roles."""
    if len(set(entities)) != len(entities):
        raise InputError("an entity stands twice in the split; expected each once", "split")
    if groups is None:
        return
    index = np.unique(np.asarray([str(g) for g in groups]), return_inverse=True)[1]
    for repeat in range(assignment.codes.shape[1]):
        codes = assignment.codes[:, repeat].astype(int)
        used = codes != UNUSED
        low = np.full(index.max() + 1, 127)
        high = np.full(index.max() + 1, -1)
        np.minimum.at(low, index[used], codes[used])
        np.maximum.at(high, index[used], codes[used])
        leaks = np.flatnonzero((high >= 0) & (low != high))
        if leaks.size:
            name = next(str(g) for g, i in zip(groups, index, strict=True) if i == leaks[0])
            raise InputError(
                f"group {name} is divided between parts of the split; expected it whole, "
                "name its column as split.group",
                "split",
            )


def split_hash(entities: Sequence[str], codes: np.ndarray) -> str:
    """SHA-256 (hex) of the assignment, independent of the order of rows."""
    digest = hashlib.sha256()
    for i in sorted(range(len(entities)), key=lambda i: entities[i]):
        digest.update(entities[i].encode() + b"\0" + codes[i].tobytes() + b"\n")
    return digest.hexdigest()
