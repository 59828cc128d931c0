"""Counts: the negative log likelihood of a Poisson distribution whose log mean is a network's output."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from genodl_spark.learning.losses.values import Values

if TYPE_CHECKING:
    import torch


class Loss(Values):
    def check(self, target: np.ndarray) -> None:
        if len(target) and target.min() < 0:
            raise ValueError(f"found the target {target.min():g}; expected counts, 0 or more")

    def standard(self, target: np.ndarray, learns: np.ndarray) -> np.ndarray:
        """Counts are not standardised; networks start at a log mean of 0."""
        return np.tile([0.0, 1.0], (len(learns), 1))

    def rows(
        self, outputs: torch.Tensor, target: np.ndarray, standard: np.ndarray, inputs: Any, smoothing: float
    ) -> torch.Tensor:
        from torch.nn import functional

        wanted = self.wanted(outputs, target, standard)
        return functional.poisson_nll_loss(outputs[..., 0], wanted, log_input=True, full=True, reduction="none")

    def value(self, outputs: torch.Tensor) -> torch.Tensor:
        return outputs[..., 0].double().exp()
