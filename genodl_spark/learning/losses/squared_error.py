"""Values: the squared error of the standardised target."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from genodl_spark.learning.losses.values import Values

if TYPE_CHECKING:
    import torch


class Loss(Values):
    def rows(self, outputs: torch.Tensor, target: np.ndarray, smoothing: float) -> torch.Tensor:
        import torch

        wanted = torch.from_numpy(target).to(outputs).repeat_interleave(len(outputs) // len(target), 0)
        return (outputs[..., 0] - wanted) ** 2
