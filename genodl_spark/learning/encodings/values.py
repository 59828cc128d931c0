"""Features that are numbers of their own: allele counts, expression, methylation, covariates.
Missing values are NaN."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from genodl_spark.core import packing
from genodl_spark.learning.encodings import Pooled, alone
from genodl_spark.learning.scaling import Scaling, fences

if TYPE_CHECKING:
    import torch

LINEAR_SCALE = 50.0  # log-scaled expression stays below; counts, FPKM and array intensities go far above


def on_linear_scale(largest: float) -> bool:
    """Whether values up to `largest` are on a linear scale, so that asinh (log for large,
    linear for small values) suits them."""
    return largest > LINEAR_SCALE


class Values:
    """Stored values (rows, F), int8 with -1 missing, float32 with NaN missing, or counts, uint8 or uint16,
    standardised in every training set."""

    dtypes = packing.VALUES
    scaled = True
    projectable = True
    by_name = True
    letters = False

    def width(self, features: int) -> int:
        return features

    def shape(self, features: int) -> tuple[int, ...]:
        return (features,)

    def floats(self, x: np.ndarray) -> np.ndarray:
        """Float32 (rows, F) with NaN missing."""
        return (
            np.where(x < 0, np.float32(np.nan), x.astype(np.float32))
            if x.dtype == np.int8
            else x.astype(np.float32, copy=False)
        )

    def tensor(self, x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        import torch

        found = x.to(dtype)
        return found if x.is_floating_point() or not x.dtype.is_signed else found.masked_fill_(x < 0, torch.nan)

    def baseline(self, x: np.ndarray) -> np.ndarray:
        return self.floats(x)

    def tensors(self, features: int) -> dict[str, list[tuple[int, ...]]]:
        return {"mean": [(features,)], "inverse": [(features,)], "background": [(0,)], "usual": [(2,)]}

    def learnt(
        self, x: packing.Sliced, learns: np.ndarray, scaling: Scaling, cut: bool, pooled: Pooled = alone
    ) -> dict[str, np.ndarray]:
        """`usual` float64 (2,): ends of the mean squares of standardised training rows, all packed rows x those
        where `learns` bool (rows,)."""
        mean, inverse = scaling.mean[-1], scaling.inverse[-1]
        parts = (x[part][learns[part]] for part in packing.parts(x))
        found = [mean_square((self.floats(part) - mean) * inverse, inverse > 0) for part in parts]
        distances = pooled(np.concatenate([np.zeros(0), *found]))
        return {"background": np.zeros(0, np.float32), "usual": np.array(fences(distances))}

    def reader(self, tensors: Mapping[str, torch.Tensor], device: torch.device) -> ValuesReader:
        return ValuesReader(self, tensors, device)


class ValuesReader:
    """Standardised values, 0 where one is missing; the distance of a row is the mean square of those that it has."""

    def __init__(self, encoding: Values, tensors: Mapping[str, torch.Tensor], device: torch.device) -> None:
        self.encoding = encoding
        self.mean, self.inverse = tensors["mean"].to(device), tensors["inverse"].to(device)
        self.low, self.high = tensors["usual"].tolist()
        self.counted = (self.inverse > 0).sum()  # features that bear on a row's distance

    def __call__(self, x: np.ndarray, packed: torch.Tensor) -> tuple[torch.Tensor, np.ndarray]:
        import torch

        values = (self.encoding.tensor(packed, torch.float32) - self.mean).mul_(self.inverse)
        square, known = torch.linalg.vecdot(values, values), self.counted
        # a value of some row is missing: this takes longer than all else but the network
        if not bool(torch.isfinite(square).all()):
            known = (~torch.isnan(values) & (self.inverse > 0)).sum(1)
            values = torch.nan_to_num_(values, nan=0.0)
            square = torch.linalg.vecdot(values, values)
        return values, (square.double() / known).cpu().numpy()

    def unusual(self, x: np.ndarray, distance: np.ndarray, lengths: np.ndarray | None) -> np.ndarray:
        """Rows farther from those of training, or nearer, than is usual there; a row without any value is, too."""
        return ~((distance >= self.low) & (distance <= self.high))


def mean_square(z: np.ndarray, used: np.ndarray) -> np.ndarray:
    """How far rows lie from the centre of a training set: mean square of z float32 (rows, F), NaN missing,
    over the features `used` bool (F,) that a row has; float64 (rows,), NaN where it has none.
    1 on average over the training set."""
    known = ~np.isnan(z) & used
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.square(np.where(known, z, 0), dtype=np.float64).sum(1) / known.sum(1)
