"""What losses of one value have in common: one output for a row, the mean of the members,
the spread of their values."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from genodl_spark.learning.losses import undecided

if TYPE_CHECKING:
    import torch


class Values:
    """Targets are standardised in each training set, so that one learning rate suits all units."""

    def __init__(self, classes: list[str]) -> None:
        if classes:
            raise ValueError("the target is one of classes; expected a value, or a loss of classes")
        self.classes, self.outputs = classes, 1

    def check(self, target: np.ndarray) -> None:
        pass

    def standard(self, target: np.ndarray, learns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.array([target[rows].mean() for rows in learns]), np.array(
            [target[rows].std() or 1.0 for rows in learns]
        )

    def value(self, outputs: torch.Tensor) -> torch.Tensor:
        """What every member predicts of the standardised target, float64 (E, B), of outputs (E, B, 1)."""
        return outputs[..., 0].double()

    def answer(self, outputs: torch.Tensor, center: float, spread: float) -> np.ndarray:
        return (self.value(outputs).mean(0).cpu().numpy() * spread + center)[:, None]

    def uncertainty(self, outputs: torch.Tensor, answer: np.ndarray, spread: float) -> np.ndarray:
        """Standard deviation of the members' values."""
        return (
            self.value(outputs).std(0, correction=1).cpu().numpy() * spread
            if len(outputs) > 1
            else undecided(len(answer))
        )
