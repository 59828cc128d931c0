"""The inverse hyperbolic sine of values on a linear scale: a logarithm for large ones, and linear where they are
small, so that 0 may stand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from genodl_spark.learning.encodings.values import Values

if TYPE_CHECKING:
    import torch


class Encoding(Values):
    def floats(self, x: np.ndarray) -> np.ndarray:
        return np.arcsinh(super().floats(x))

    def tensor(self, x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        import torch

        return torch.asinh(super().tensor(x, dtype))
