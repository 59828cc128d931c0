"""What losses of one value have in common: one output for a row, the mean of the members,
the spread of their values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from genodl_spark.learning.heads import Head
from genodl_spark.learning.losses import SAID, members, undecided

if TYPE_CHECKING:
    import torch

    from genodl_spark.learning.encodings import Shape


class Values:
    """Targets are standardised in each training set, by their mean and standard deviation,
    so that one learning rate suits all units. They may be learnt on another scale (`forward`), from which answers come
    back (`backward`)."""

    outputs = 1
    measures = 2

    def __init__(self, head: Head, inputs: Shape) -> None:
        if head.kind != "value":
            raise ValueError(f"the target is {SAID[head.kind]}; expected a value, or a loss of that")

    def check(self, target: np.ndarray) -> None:
        pass

    def forward(self, target: np.ndarray) -> np.ndarray:
        """Targets on the scale that is learnt; monotone."""
        return target

    def backward(self, value: np.ndarray) -> np.ndarray:
        """The inverse of `forward`."""
        return value

    def standard(self, target: np.ndarray, learns: np.ndarray) -> np.ndarray:
        of_sets = [self.forward(target[rows, 0]) for rows in learns]
        return np.array([(values.mean(), values.std() or 1.0) for values in of_sets])

    def wanted(self, outputs: torch.Tensor, target: np.ndarray, standard: np.ndarray) -> torch.Tensor:
        """The standardised target of every row for every member, (M, B)."""
        return members((self.forward(target[None, :, 0]) - standard[:, :1]) / standard[:, 1:], outputs)

    def value(self, outputs: torch.Tensor) -> torch.Tensor:
        """What every member predicts of the standardised target, float64 (E, B), of outputs (E, B, 1)."""
        return outputs[..., 0].double()

    def answer(self, outputs: torch.Tensor, standard: np.ndarray, inputs: Any) -> np.ndarray:
        center, spread = standard.tolist()
        return self.backward(self.value(outputs).mean(0).cpu().numpy() * spread + center)[:, None]

    def uncertainty(self, outputs: torch.Tensor, answer: np.ndarray, standard: np.ndarray) -> np.ndarray:
        """Standard deviation of the members' values."""
        if len(outputs) < 2:
            return undecided(len(answer))
        return self.value(outputs).std(0, correction=1).cpu().numpy() * standard[1]
