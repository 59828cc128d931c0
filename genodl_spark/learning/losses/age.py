"""Ages in years: the squared error of Horvath's transform of them, the logarithm while people grow, linear from 20
years on (Horvath 2013, doi:10.1186/gb-2013-14-10-r115). Answers are years again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from genodl_spark.learning.losses import squared_error, undecided

if TYPE_CHECKING:
    import torch

ADULT = 20.0  # years, at which the transform is 0, and goes from the logarithm to a line with the same slope


class Loss(squared_error.Loss):
    def check(self, target: np.ndarray) -> None:
        if len(target) and not np.nanmin(target, initial=0) > -1:
            raise ValueError(f"found the age {np.nanmin(target):g}; expected years, above -1")

    def forward(self, target: np.ndarray) -> np.ndarray:
        return transformed(target)

    def backward(self, value: np.ndarray) -> np.ndarray:
        return years(value)

    def uncertainty(self, outputs: torch.Tensor, answer: np.ndarray, standard: np.ndarray) -> np.ndarray:
        """Standard deviation of the members' ages, years."""
        if len(outputs) < 2:
            return undecided(len(answer))
        center, spread = standard.tolist()
        found: np.ndarray = years(self.value(outputs).cpu().numpy() * spread + center).std(0, ddof=1)
        return found


def transformed(age: np.ndarray) -> np.ndarray:
    """Horvath's transform of ages in years, above -1; NaN stays."""
    return np.where(age <= ADULT, np.log1p(np.minimum(age, ADULT)) - np.log1p(ADULT), (age - ADULT) / (ADULT + 1))


def years(value: np.ndarray) -> np.ndarray:
    """Ages in years of transformed ones; NaN stays."""
    return np.where(value <= 0, (ADULT + 1) * np.exp(np.minimum(value, 0)) - 1, (ADULT + 1) * value + ADULT)
