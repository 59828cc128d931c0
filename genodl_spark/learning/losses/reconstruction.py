"""Rows without labels: how well a network tells again what it was given, as an autoencoder learns it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from genodl_spark.learning.encodings import size
from genodl_spark.learning.heads import Head
from genodl_spark.learning.losses import SAID, undecided

if TYPE_CHECKING:
    import torch

    from genodl_spark.learning.encodings import Shape


class Loss:
    """The mean squared error over what networks take of a row, which is also the answer:
    rows unlike those of training have a larger one."""

    measures = 2  # of which it uses none

    def __init__(self, head: Head, inputs: Shape) -> None:
        if head.kind != "none":
            raise ValueError(f"the target is {SAID[head.kind]}; expected none (target.kind), or a loss of that")
        self.outputs = size(inputs)

    def check(self, target: np.ndarray) -> None:
        pass

    def standard(self, target: np.ndarray, learns: np.ndarray) -> np.ndarray:
        return np.tile([0.0, 1.0], (len(learns), 1))

    def rows(
        self, outputs: torch.Tensor, target: np.ndarray, standard: np.ndarray, inputs: Any, smoothing: float
    ) -> torch.Tensor:
        return ((outputs - _flat(inputs).to(outputs)) ** 2).mean(-1)

    def answer(self, outputs: torch.Tensor, standard: np.ndarray, inputs: Any) -> np.ndarray:
        """The mean of the members' errors."""
        return self._errors(outputs, inputs).mean(0).cpu().numpy()[:, None]

    def uncertainty(self, outputs: torch.Tensor, answer: np.ndarray, standard: np.ndarray) -> np.ndarray:
        """Root mean square of the standard deviation of the members' reconstructions."""
        if len(outputs) < 2:
            return undecided(len(answer))
        return outputs.double().var(0, correction=1).mean(-1).sqrt().cpu().numpy()

    def _errors(self, outputs: torch.Tensor, inputs: Any) -> torch.Tensor:
        return ((outputs.double() - _flat(inputs).double()) ** 2).mean(-1)


def _flat(inputs: Any) -> torch.Tensor:
    """What networks take of rows, (M or 1, B, *shape) or several of them by name,
    as numbers side by side, (M or 1, B, F)."""
    import torch

    parts = list(inputs.values()) if isinstance(inputs, dict) else [inputs]
    return torch.cat([part.flatten(2) for part in parts], -1)
