"""Values of which some lie far off: Huber's loss (1964, doi:10.1214/aoms/1177703732) of the standardised target, the
squared error up to a standard deviation, and beyond it a straight line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from genodl_spark.learning.losses.values import Values

if TYPE_CHECKING:
    import torch

BOUND = 1.0  # standard deviations


class Loss(Values):
    def rows(
        self, outputs: torch.Tensor, target: np.ndarray, standard: np.ndarray, inputs: Any, smoothing: float
    ) -> torch.Tensor:
        error = (outputs[..., 0] - self.wanted(outputs, target, standard)).abs()
        within = error.clamp(max=BOUND)
        return within * (2 * error - within)
