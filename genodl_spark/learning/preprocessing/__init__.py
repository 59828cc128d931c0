"""Treatments of measured values before networks and baselines see them. Each file but this one holds one, as a class
`Step`: a section of settings, its options, that learns from rows of one training set alone (`fit`) and is then done to
any row by itself (`apply`), so that nothing of a held-out row, nor of the rows beside it, reaches its result.

    fit(rows, about) -> tensors        what training rows teach, float64 arrays by name
    apply(rows, tensors) -> Rows       the same of any rows, in fewer columns where `tensors` has `kept`
    draw(rows, tensors) -> Rows        the same, with missing values drawn from what they may be: row k of several equal
                                       ones gets draw k; `draws` says whether it does
    dropped(rows, tensors) -> bool     training rows that nothing later shall learn from
    shapes(features, batches)          of its tensors, None for a length that is free
    scales, scaled                     whether it leaves sizes of rows for another step; whether it takes them

A `Chain` is an ordered list of them. Entries are `STEP`, for all measured values, or `STEP@BLOCK` for those of a block.
Covariates stay as they are; the indicators of batches become 0.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from pydantic import ValidationError

from genodl_spark.core.errors import InputError
from genodl_spark.core.toml import Section

COVARIATE = "covariate:"  # how features begin that are columns of the sample table
BURDEN = "burden:"  # how covariates begin that are burdens of genes
STEP = "step."  # how names of tensors begin
UNSEEN, UNKNOWN = -1, -2  # of a row's batch: none that training has seen, and none that is told
_ROWS = 1024  # rows that are treated at once
Tensors = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Rows:
    """Values x float64 (n, F), NaN missing; `batch` int (n,): number of each row's batch, or UNSEEN, or UNKNOWN;
    `sizes` float64 (n,): effective library sizes, where a step has found them."""

    x: np.ndarray
    batch: np.ndarray
    sizes: np.ndarray | None = None

    def of(self, x: np.ndarray) -> Rows:
        return replace(self, x=x)

    def library(self) -> np.ndarray:
        """Size of every row, float64 (n,): as a step has found it, else its sum."""
        return np.nansum(self.x, 1) if self.sizes is None else self.sizes


@dataclass(frozen=True)
class About:
    """What is known beside the rows that are learnt from: names of the batches; `classes` int (n,), -1 for none, where
    they are wanted and there are any; `lengths` float64 (F,) of the features in bases, NaN unknown."""

    batches: tuple[str, ...] = ()
    classes: np.ndarray | None = None
    lengths: np.ndarray | None = None


class Step(Section):
    """One treatment: see above."""

    scales: ClassVar[bool] = False
    scaled: ClassVar[bool] = False
    draws: ClassVar[bool] = False

    def fit(self, rows: Rows, about: About) -> dict[str, np.ndarray]:
        return {}

    def apply(self, rows: Rows, tensors: Tensors) -> Rows:
        return rows

    def draw(self, rows: Rows, tensors: Tensors) -> Rows:
        return self.apply(rows, tensors)

    def dropped(self, rows: Rows, tensors: Tensors) -> np.ndarray:
        return np.zeros(len(rows.x), bool)

    def shapes(self, features: int, batches: int) -> dict[str, tuple[int | None, ...]]:
        return {}


def not_negative(x: np.ndarray, name: str) -> None:
    """InputError where values that `name` takes for counts are below 0."""
    lowest = np.nanmin(x, initial=0)
    if lowest < 0:
        raise InputError(
            f"found {lowest:g} among the values for {name}; expected counts or others that are not negative, "
            "leave the step out or put it before those that take logarithms",
            "quality.steps",
        )


def without_missing(x: np.ndarray, name: str) -> None:
    """InputError where training rows of `name` lack values."""
    if np.isnan(x).any():
        text = f"found {int(np.isnan(x).sum())} missing values before {name}; expected none"
        raise InputError(f"{text}, put a step such as impute_median before it", "quality.steps")


def names() -> list[str]:
    """Names of the steps that there are, sorted."""
    return sorted(found.name for found in pkgutil.iter_modules(__path__))


def step_of(entry: str, options: Mapping[str, Any]) -> Step:
    """The step of an entry of `quality.steps` with its options. InputError for one that is unknown,
    or an option that it does not have."""
    name, _, _ = entry.partition("@")
    if name not in names():
        raise InputError(f"found {name!r}; expected one of {', '.join(names())}", "quality.steps")
    kind: type[Step] = importlib.import_module(f"{__name__}.{name}").Step
    try:
        return kind.model_validate(dict(options))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(("quality.options", entry, *map(str, first["loc"])))
        known = ", ".join(kind.model_fields) or "none"
        raise InputError(f"found {first['input']!r:.80}; expected: {first['msg']} (options: {known})", key) from error


def steps_of(entries: Sequence[str], options: Mapping[str, Mapping[str, Any]]) -> list[Step]:
    """The steps of `quality.steps` with the options of `quality.options`. InputError for what is unknown, options of
    a step that is not there, and sizes of rows that no later step takes."""
    for name in options:
        if name not in entries:
            text = (
                f"found options of {name}, which is none of the steps; expected one of {', '.join(entries) or 'none'}"
            )
            raise InputError(text, "quality.options")
    steps = [step_of(entry, options.get(entry, {})) for entry in entries]
    for place, (entry, step) in enumerate(zip(entries, steps, strict=True)):
        block = entry.partition("@")[2]
        later = zip(entries[place + 1 :], steps[place + 1 :], strict=True)
        if step.scales and not any(one.scaled and name.partition("@")[2] == block for name, one in later):
            raise InputError(
                f"found {entry} without a step that takes the sizes it finds; expected log_cpm after it",
                "quality.steps",
            )
    return steps


@dataclass(frozen=True)
class Fitted:
    """What a training set teaches a chain: tensors by `step.NUMBER.NAME`, and which of its rows stay, bool (n,)."""

    tensors: dict[str, np.ndarray]
    used: np.ndarray


class Chain:
    """Steps one after the other, over the columns of a data set or a model.

    `names`: of the features, in order. `batch`: the column of the sample table that tells batches;
    its indicators are among the features.
    """

    def __init__(
        self,
        entries: Sequence[str],
        options: Mapping[str, Mapping[str, Any]],
        names: Sequence[str],
        batch: str = "",
    ) -> None:
        self.entries, self.steps = list(entries), steps_of(entries, options)
        head = f"{COVARIATE}{batch}="
        self.features = len(names)
        self.measured = np.array([not name.startswith(COVARIATE) for name in names], bool)
        self.indicators = np.array([i for i, name in enumerate(names) if batch and name.startswith(head)], np.int64)
        self.batches = tuple(names[i].removeprefix(head) for i in self.indicators)
        self.columns = [self._columns(entry, names) for entry in entries]

    def _columns(self, entry: str, names: Sequence[str]) -> np.ndarray:
        """Columns of an entry, int64, before any is left out."""
        _, of_block, block = entry.partition("@")
        found = np.flatnonzero(self.measured)
        if of_block:
            found = np.array([i for i in found if names[i].startswith(f"{block}:")], np.int64)
        if not len(found):
            raise InputError(f"found no measured feature for {entry}; expected some", "quality.steps")
        return found

    def columns_of(self, name: str) -> np.ndarray:
        """Columns that steps of a name treat, int64, ascending."""
        found = [
            columns for entry, columns in zip(self.entries, self.columns, strict=True) if entry.split("@")[0] == name
        ]
        return np.unique(np.concatenate([np.empty(0, np.int64), *found]))

    def _rows(self, x: np.ndarray) -> np.ndarray:
        """Number of the batch of every row, int64 (n,)."""
        told = x[:, self.indicators]
        if not len(self.indicators):
            return np.full(len(x), UNKNOWN)
        unseen = np.where(np.isnan(told).all(1), UNKNOWN, UNSEEN)
        return np.where((told == 1).any(1), (told == 1).argmax(1), unseen)

    def fit(self, x: np.ndarray, classes: np.ndarray | None = None, lengths: np.ndarray | None = None) -> Fitted:
        """What training rows x (n, F), NaN missing, teach. `classes` int (n,), -1 for none, of the rows;
        `lengths` float64 (F,) of the features."""
        x = x.astype(np.float64)
        used, batch = np.ones(len(x), bool), self._rows(x)
        tensors: dict[str, np.ndarray] = {}
        alive = np.ones(self.features, bool)
        sizes: dict[str, np.ndarray] = {}
        for number, (entry, step) in enumerate(zip(self.entries, self.steps, strict=True)):
            columns, block = self._alive(number, alive), entry.partition("@")[2]
            rows = Rows(x[:, columns], batch, sizes.get(block))
            about = About(self.batches, classes, None if lengths is None else lengths[columns])
            # laid out row after row: safetensors writes the memory of an array as it lies
            found = {name: np.ascontiguousarray(value) for name, value in step.fit(rows, about).items()}
            stay = ~step.dropped(rows, found)
            if stay.sum() < 2:
                raise InputError(f"found {int(stay.sum())} training rows after {entry}; expected two at least", entry)
            if not stay.all():
                used[used] = stay
                x, batch, rows = x[stay], batch[stay], Rows(rows.x[stay], batch[stay], _some(rows.sizes, stay))
                classes, sizes = _some(classes, stay), {name: value[stay] for name, value in sizes.items()}
            tensors |= {f"{STEP}{number}.{name}": value for name, value in found.items()}
            self._done(number, step.apply(rows, found), found, x, alive, sizes)
        return Fitted(tensors, used)

    @property
    def draws(self) -> bool:
        """Whether a step knows how far missing values may lie from what it fills in."""
        return any(step.draws for step in self.steps)

    def drawn(self, x: np.ndarray, tensors: Tensors, count: int) -> np.ndarray:
        """One row x (F,), NaN missing, after all steps, float32 (count, F): its missing values drawn from what they
        may be, `count` of _ROWS at most."""
        return self.apply(np.repeat(x[None], min(count, _ROWS), 0), tensors, draw=True)

    def apply(self, x: np.ndarray, tensors: Tensors, draw: bool = False) -> np.ndarray:
        """Rows x (n, F), NaN missing, after all steps, float32 (n, F): 0 in columns that a step has left out.
        `draw`: see `drawn`."""
        made = np.empty((len(x), self.features), np.float32)
        for start in range(0, len(x), _ROWS):
            part = x[start : start + _ROWS].astype(np.float64)
            batch, alive = self._rows(part), np.ones(self.features, bool)
            sizes: dict[str, np.ndarray] = {}
            for number, step in enumerate(self.steps):
                own = self.tensors_of(number, tensors)
                rows = Rows(part[:, self._alive(number, alive)], batch, sizes.get(self._block(number)))
                done = step.draw(rows, own) if draw else step.apply(rows, own)
                self._done(number, done, own, part, alive, sizes)
            part[:, ~alive] = 0
            part[:, self.indicators] = 0
            made[start : start + _ROWS] = part
        return made

    def tensors_of(self, number: int, tensors: Tensors) -> dict[str, np.ndarray]:
        """Tensors of one step, by its own names."""
        head = f"{STEP}{number}."
        return {name.removeprefix(head): value for name, value in tensors.items() if name.startswith(head)}

    def check(self, tensors: Tensors) -> None:
        """ValueError unless there are just the tensors of these steps, of the shapes that they may have."""
        alive = np.ones(self.features, bool)
        expected = set()
        for number, step in enumerate(self.steps):
            columns = self._alive(number, alive)
            own = self.tensors_of(number, tensors)
            for name, shape in step.shapes(len(columns), len(self.batches)).items():
                found = own[name].shape if name in own else None
                fits = found is not None and len(found) == len(shape)
                if not fits or any(b is not None and a != b for a, b in zip(found or (), shape, strict=True)):
                    raise ValueError(f"{STEP}{number}.{name} has shape {found}, by the card {shape}")
                expected.add(f"{STEP}{number}.{name}")
            if "kept" in own:
                alive[columns[own["kept"] == 0]] = False
        if strange := sorted({name for name in tensors if name.startswith(STEP)} - expected):
            raise ValueError(f"{strange[0]} is no tensor of the card's steps")

    def _block(self, number: int) -> str:
        return self.entries[number].partition("@")[2]

    def _alive(self, number: int, alive: np.ndarray) -> np.ndarray:
        """Columns of a step that none before it has left out, int64."""
        columns = self.columns[number]
        return columns[alive[columns]]

    def _done(
        self,
        number: int,
        rows: Rows,
        tensors: Tensors,
        x: np.ndarray,
        alive: np.ndarray,
        sizes: dict[str, np.ndarray],
    ) -> None:
        """Puts what a step has made into x, and takes note of the columns that are left and the sizes of rows."""
        columns = self._alive(number, alive)
        if "kept" in tensors:
            alive[columns[tensors["kept"] == 0]] = False
            columns = self._alive(number, alive)
            if not len(columns):
                raise InputError(f"found no feature left after {self.entries[number]}; expected some", "quality.steps")
        x[:, columns] = rows.x
        if rows.sizes is not None:
            sizes[self._block(number)] = rows.sizes


def _some(values: np.ndarray | None, rows: np.ndarray) -> np.ndarray | None:
    return None if values is None else values[rows]
