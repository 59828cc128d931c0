"""Encodings. Each file but `values`, which two of them share, holds one way from packed rows to what networks,
baselines and distances see, as a class `Encoding`; the `transform` of a dataset names the file,
or one of the user's own.

    width(features) -> int                 packed values of a row of so many features
    shape(features) -> Shape               of one row as networks take it: (F,), (4, L), (C, H, W), or one shape
                                           for each of several named inputs
    tensor(x, dtype)                       packed values (B, width) on any device as networks take them, (B, *shape),
                                           NaN missing; or a dictionary
    baseline(x) -> (B, f)                  packed values as baselines take them, float32, NaN missing
    scaled                                 whether networks take every feature standardised on training rows;
                                           then `floats(x)` is `tensor` in NumPy
    projectable                            whether few rows of many features may be trained on by their coordinates
    by_name                                whether a row may be made of values by name or of another order of features,
                                           the rest missing
    letters                                whether rows are base codes, so that a sequence of letters may stand for one,
                                           and baselines of sequences take them as they are
    tensors(features) -> {name: shapes}    what a model's weights hold beside its network, and the shapes
                                           that each may have
    learnt(x, learns, scaling, cut, pooled)
                                           these tensors, but for `mean` and `inverse`: what training rows are like;
                                           pooled(values) are those of every rank, where each has rows of its own
    reader(tensors, device)                what a model sees of packed rows, see `Reader`
    dtypes                                 types that packed values may have; rows of sparse ones come whole,
                                           a batch at a time
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np

from genodl_spark.core import own_code, packing
from genodl_spark.core.own_code import Code

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import torch

    from genodl_spark.learning.scaling import Scaling

Shape = tuple[int, ...] | dict[str, tuple[int, ...]]
Pooled: TypeAlias = "Callable[[np.ndarray], np.ndarray]"


def alone(values: np.ndarray) -> np.ndarray:
    """`pooled` where one rank has all rows."""
    return values


class Reader(Protocol):
    """What a model sees of packed rows x (B, width), and how far they are from those of training."""

    def __call__(self, x: np.ndarray, packed: torch.Tensor) -> tuple[Any, np.ndarray]:
        """Inputs of the network, of `packed`, which is `x` on the device; and distances, float64 (B,),
        NaN where there is none."""

    def unusual(self, x: np.ndarray, distance: np.ndarray, lengths: np.ndarray | None) -> np.ndarray:
        """Which rows are unlike those of training, bool (B,). `lengths` int (B,): of sequences,
        where rows may be parts of them."""


class Encoding(Protocol):
    dtypes: tuple[str, ...]
    scaled: bool
    projectable: bool
    by_name: bool
    letters: bool

    def width(self, features: int) -> int: ...

    def shape(self, features: int) -> Shape: ...

    def floats(self, x: np.ndarray) -> np.ndarray: ...

    def tensor(self, x: torch.Tensor, dtype: torch.dtype) -> Any: ...

    def baseline(self, x: np.ndarray) -> np.ndarray: ...

    def tensors(self, features: int) -> dict[str, list[tuple[int, ...]]]: ...

    def learnt(
        self, x: packing.Sliced, learns: np.ndarray, scaling: Scaling, cut: bool, pooled: Pooled = alone
    ) -> dict[str, np.ndarray]: ...

    def reader(self, tensors: Mapping[str, torch.Tensor], device: torch.device) -> Reader: ...


class Shaped:
    """Rows of a shape of their own, which networks take as they are and nothing is measured of: a start for encodings
    of one file, which say `shape` and `tensor`, and `width` where it is not the product of the shape."""

    dtypes: tuple[str, ...] = packing.VALUES
    scaled = False
    projectable = False
    by_name = False
    letters = False

    def width(self, features: int) -> int:
        return size(self.shape(features))

    def shape(self, features: int) -> Shape:
        raise NotImplementedError

    def floats(self, x: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def tensor(self, x: torch.Tensor, dtype: torch.dtype) -> Any:
        raise NotImplementedError

    def baseline(self, x: np.ndarray) -> np.ndarray:
        """Every number that networks see, in one row."""
        import torch

        found = self.tensor(torch.from_numpy(np.ascontiguousarray(x)), torch.float32)
        parts = found.values() if isinstance(found, dict) else [found]
        return np.concatenate([part.flatten(1).numpy() for part in parts], 1)

    def tensors(self, features: int) -> dict[str, list[tuple[int, ...]]]:
        return {}

    def learnt(
        self, x: packing.Sliced, learns: np.ndarray, scaling: Scaling, cut: bool, pooled: Pooled = alone
    ) -> dict[str, np.ndarray]:
        return {}

    def reader(self, tensors: Mapping[str, torch.Tensor], device: torch.device) -> Reader:
        return _Unmeasured(self)


class _Unmeasured:
    def __init__(self, encoding: Shaped) -> None:
        self.encoding = encoding

    def __call__(self, x: np.ndarray, packed: torch.Tensor) -> tuple[Any, np.ndarray]:
        import torch

        return self.encoding.tensor(packed, torch.float32), np.full(len(x), np.nan)

    def unusual(self, x: np.ndarray, distance: np.ndarray, lengths: np.ndarray | None) -> np.ndarray:
        return np.zeros(len(x), bool)


def encoding(name: str, code: Code | None = None) -> Encoding:
    """The encoding of a file of this package, or of one of `code`, the user's own.
    InputError for one that is unknown."""
    made: Encoding = own_code.named(name, __name__, "Encoding", code or {}, "quality.transform")()
    return made


def each(inputs: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """Inputs of a network with each tensor changed, whether there is one or there are several by name."""
    return {name: change(value) for name, value in inputs.items()} if isinstance(inputs, dict) else change(inputs)


def size(shape: Shape) -> int:
    """Numbers in one row of a shape."""
    return sum(map(math.prod, shape.values())) if isinstance(shape, dict) else math.prod(shape)
