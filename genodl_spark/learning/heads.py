"""What a task predicts. A head is one column of labels; a task has one, or several that its networks answer together.

A target is float64 (rows, numbers), the numbers of all heads side by side;
NaN in those of a head of which a row has no label.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate
from typing import Any

import numpy as np

_NUMBERS = {"classes": 1, "value": 1, "time": 2, "none": 0, "bases": 0}
KINDS = tuple(_NUMBERS)
UNLABELLED = tuple(kind for kind, numbers in _NUMBERS.items() if not numbers)  # what is learnt of rows alone


@dataclass(frozen=True)
class Head:
    """`label`: the column of its labels, by which `predictions` name it. `classes`: names in index order,
    of the kind classes alone. `times`: of a time, at which it is predicted whether the event has come, ascending.

    `kind` and the numbers of its target: classes, the index of one; value; time, until an event or until nothing was
    known any more, and 1 where the event came, else 0; none, for rows that nobody has labelled; bases, for sequences
    that nobody has, of which bases are hidden.
    """

    label: str
    kind: str
    classes: tuple[str, ...] = ()
    times: tuple[float, ...] = ()

    @property
    def numbers(self) -> int:
        return _NUMBERS[self.kind]

    @property
    def scores(self) -> int:
        """Numbers of an answer: a probability for each class, or a value and, of a time, the probability to be without
        the event at each of `times`."""
        return len(self.classes) or 1 + len(self.times)


def one(label: str, classes: Sequence[str]) -> list[Head]:
    """The one head of classes, or of values where there are none."""
    return [Head(label, "classes" if classes else "value", tuple(classes))]


def heads_of(label: str, classes: Sequence[str], stored: str | None) -> list[Head]:
    """Heads of a row of `datasets` or `models`, by its columns label_column, classes and heads."""
    if stored is None:
        return one(label, classes)
    return [
        Head(head["label"], head["kind"], tuple(head["classes"]), tuple(head.get("times", ())))
        for head in json.loads(stored)
    ]


def stored(heads: Sequence[Head]) -> str | None:
    """The column heads of a row of `datasets` or `models`: NULL where label_column and classes say it all."""
    plain = len(heads) == 1 and heads[0].kind in ("classes", "value")
    found = [{name: value for name, value in asdict(head).items() if name != "times" or value} for head in heads]
    return None if plain else json.dumps(found)


def shapes(heads: Sequence[Head]) -> dict[str, Any]:
    """`classes` of the only head, and the column heads: what rows of `datasets` and `models` hold of heads."""
    return {"classes": list(heads[0].classes) if len(heads) == 1 else [], "heads": stored(heads)}


def places(sizes: Sequence[int]) -> list[slice]:
    """Where each of some parts stands that lie side by side."""
    ends = list(accumulate(sizes))
    return [slice(end - size, end) for end, size in zip(ends, sizes, strict=True)]


def targets(heads: Sequence[Head]) -> list[slice]:
    """Where the numbers of each head stand in a target."""
    return places([head.numbers for head in heads])


def answers(heads: Sequence[Head]) -> list[slice]:
    """Where the scores of each head stand in an answer."""
    return places([head.scores for head in heads])


def classes_of(heads: Sequence[Head], target: np.ndarray) -> np.ndarray | None:
    """Class of every row, int64 (rows,), -1 for none, by its target (rows, numbers); None unless one column of classes
    is predicted."""
    if [head.kind for head in heads] != ["classes"]:
        return None
    return np.where(labelled(target), np.nan_to_num(target[:, 0]), -1).astype(np.int64)


def labelled(target: np.ndarray) -> np.ndarray:
    """Which rows have a label of the head whose numbers are `target` float64 (rows, numbers): bool (rows,)."""
    return ~np.isnan(target).any(-1)
