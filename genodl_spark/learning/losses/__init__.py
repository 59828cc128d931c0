"""Losses. Each file but `values`, on which some are built, holds one as a class `Loss`;
`train.loss` names the file, or one of the user's own.

The loop knows sums over rows and counts of them, nothing else of a loss.
S training sets have E members each; M is S * E.

    Loss(classes)                               names of the classes in index order; none where a value is predicted
    outputs                                     numbers that a network puts out for a row
    check(target)                               ValueError for targets that this loss does not take
    standard(target, learns) -> center, spread  by which the targets of each set are standardised, float64 (S,) each,
                                                over the rows of `learns` (S, N)
    rows(outputs, target, smoothing) -> (M, B)  loss of every row under every member: outputs (M, B, outputs),
                                                target float64 (S, B) standardised
    answer(outputs, center, spread)             scores of a set, float64 (B, K), from its members' outputs (E, B,
                                                outputs): probabilities of classes or, with K 1, values
    uncertainty(outputs, answer, spread)        what the members disagree about, float64 (B,); NaN of one member

Baselines, metrics and what `predictions` holds follow from the classes: probabilities of each, or a value.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from genodl_spark.core import own_code
from genodl_spark.core.errors import InputError
from genodl_spark.core.own_code import Code

if TYPE_CHECKING:
    import torch


class Loss(Protocol):
    classes: list[str]
    outputs: int

    def check(self, target: np.ndarray) -> None: ...

    def standard(self, target: np.ndarray, learns: np.ndarray) -> tuple[np.ndarray, np.ndarray]: ...

    def rows(self, outputs: torch.Tensor, target: np.ndarray, smoothing: float) -> torch.Tensor: ...

    def answer(self, outputs: torch.Tensor, center: float, spread: float) -> np.ndarray: ...

    def uncertainty(self, outputs: torch.Tensor, answer: np.ndarray, spread: float) -> np.ndarray: ...


def name_of(setting: str, classes: list[str]) -> str:
    """The loss that `train.loss` means: auto is cross_entropy of classes, squared_error of values."""
    return setting if setting != "auto" else "cross_entropy" if classes else "squared_error"


def loss(name: str, classes: list[str], code: Code | None = None) -> Loss:
    """The loss of a file of this package, or of one of `code`, the user's own.
    InputError for one that is unknown or takes no such targets."""
    kind = own_code.named(name, __name__, "Loss", code or {}, "train.loss")
    try:
        made: Loss = kind(classes)
    except ValueError as error:
        raise InputError(f"found {name}: {error}", "train.loss") from error
    return made


def undecided(rows: int) -> np.ndarray:
    """The uncertainty of one network alone, which has nobody to disagree with."""
    return np.full(rows, np.nan)
