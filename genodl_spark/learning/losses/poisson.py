"""Counts: the negative log likelihood of a Poisson distribution whose log mean is a network's output."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from genodl_spark.learning.losses.values import Values

if TYPE_CHECKING:
    import torch


class Loss(Values):
    def check(self, target: np.ndarray) -> None:
        if len(target) and target.min() < 0:
            raise ValueError(f"found the target {target.min():g}; expected counts, 0 or more")

    def standard(self, target: np.ndarray, learns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Counts are not standardised; networks start at a log mean of 0."""
        return np.zeros(len(learns)), np.ones(len(learns))

    def rows(self, outputs: torch.Tensor, target: np.ndarray, smoothing: float) -> torch.Tensor:
        import torch
        from torch.nn import functional

        wanted = torch.from_numpy(target).to(outputs).repeat_interleave(len(outputs) // len(target), 0)
        return functional.poisson_nll_loss(outputs[..., 0], wanted, log_input=True, full=True, reduction="none")

    def value(self, outputs: torch.Tensor) -> torch.Tensor:
        return outputs[..., 0].double().exp()
