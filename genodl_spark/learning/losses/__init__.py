"""Losses of one head. Each file but `values`, `times` and `heads`, on which losses are built, holds one as a class
`Loss`; `train.loss` names the file, or one of the user's own.

The loop knows sums over rows and counts of them, nothing else of a loss, unless a row's loss is one among
others. S training sets have E members each; M is S * E. A target is float64 (rows, numbers) as its head has
it (see heads.py), without NaN.

    Loss(head, inputs)                          ValueError for a head that it is not for; `inputs` is the shape
                                                of what networks take of a row
    outputs                                     numbers that a network puts out for a row
    measures                                    numbers that training rows teach it of a target
    check(target)                               ValueError for targets that it does not take
    standard(target, learns)                    these numbers, float64 (S, measures), of the rows
                                                of `learns` bool (S, rows)
    rows(outputs, target, standard, inputs, smoothing) -> (M, B)
                                                loss of every row under every member: outputs (M, B, outputs), target
                                                (B, numbers), and what networks took of the rows, (M or 1, B, ...)
    answer(outputs, standard, inputs)           scores of a set, float64 (B, scores), from its members' outputs (E, B,
                                                outputs): probabilities of classes, or one value; standard (measures,),
                                                inputs (1, B, ...)
    balanced(target, learns)                    of losses of classes alone: the same, but every class counts alike
                                                among the rows of `learns` bool (S, rows)
    among(target, counts)                       of losses of a row among others alone, as Cox's (training/among.py):
                                                the losses of all rows as a function of what networks say of them,
                                                (M, N, outputs) -> (M, N), among those of `counts` bool (S, N);
                                                target (N, numbers)
    fitted(outputs, target)                     of these: what the rows of a set teach, float64 (measures,), by what
                                                its trained members say of them, (E, N, outputs)
    known(standard)                             of these: ValueError where stored numbers, (measures,), are no such
    uncertainty(outputs, answer, standard)      what the members disagree about, float64 (B,); NaN of one member

Baselines, metrics and what `predictions` hold follow from the head.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from genodl_spark.core import own_code
from genodl_spark.core.errors import InputError
from genodl_spark.core.own_code import Code
from genodl_spark.learning.devices import placed
from genodl_spark.learning.heads import Head

if TYPE_CHECKING:
    import torch

    from genodl_spark.learning.encodings import Shape

OF_KIND = {
    "classes": "cross_entropy",
    "value": "squared_error",
    "time": "log_logistic",
    "none": "reconstruction",
    "bases": "masked_bases",
}
SAID = {
    "classes": "one of classes",
    "value": "a value",
    "time": "a time to an event",
    "none": "none",
    "bases": "bases that are hidden",
}


class Loss(Protocol):
    outputs: int
    measures: int

    def check(self, target: np.ndarray) -> None: ...

    def standard(self, target: np.ndarray, learns: np.ndarray) -> np.ndarray: ...

    def rows(
        self, outputs: torch.Tensor, target: np.ndarray, standard: np.ndarray, inputs: Any, smoothing: float
    ) -> torch.Tensor: ...

    def answer(self, outputs: torch.Tensor, standard: np.ndarray, inputs: Any) -> np.ndarray: ...

    def uncertainty(self, outputs: torch.Tensor, answer: np.ndarray, standard: np.ndarray) -> np.ndarray: ...


def name_of(setting: str, heads: Sequence[Head]) -> str:
    """The loss that `train.loss` means for the only head, or for all of several:
    auto where each has that of its kind."""
    return OF_KIND[heads[0].kind] if setting == "auto" and len(heads) == 1 else setting


def loss(name: str, heads: Sequence[Head], inputs: Shape, code: Code | None = None) -> Loss:
    """The loss of these heads, each with that of a file of this package, of one of `code`, the user's own,
    or, by auto, that of its kind.

    InputError for one that is unknown or not for such heads.
    """
    from genodl_spark.learning.losses.heads import Heads

    parts: list[Loss] = []
    for head in heads:
        wanted = OF_KIND[head.kind] if name == "auto" else name
        kind = own_code.named(wanted, __name__, "Loss", code or {}, "train.loss")
        try:
            parts.append(kind(head, inputs))
        except ValueError as error:
            raise InputError(f"found {wanted} for {head.label}: {error}", "train.loss") from error
    return parts[0] if len(parts) == 1 else Heads(parts, heads)


def balanced(loss: Loss, target: np.ndarray, learns: np.ndarray) -> Loss:
    """The loss with every class counting alike, where it knows classes; else as it is."""
    weighted = getattr(loss, "balanced", None)
    return loss if weighted is None else weighted(target, learns)


def undecided(rows: int) -> np.ndarray:
    """The uncertainty of one network alone, which has nobody to disagree with."""
    return np.full(rows, np.nan)


def members(values: np.ndarray, outputs: torch.Tensor) -> torch.Tensor:
    """Values of each training set, (S, ...), for each of its members, as `outputs` (M,
    ...) has them: a tensor (M, ...)."""
    return placed(values, outputs.device, outputs.dtype).repeat_interleave(len(outputs) // len(values), 0)
