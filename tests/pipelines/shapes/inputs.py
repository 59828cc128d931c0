"""Two named inputs of one row: an image (1, 3, 4) of the first twelve values of an expression matrix,
and the others as they are."""

from __future__ import annotations

from typing import Any

import torch

from genodl_spark.features.matrices import MatrixFeatures
from genodl_spark.features.protocol import Features
from genodl_spark.lake.tables.ingested import EXPRESSION
from genodl_spark.learning.encodings import Shaped
from genodl_spark.learning.models import MemberLinear


def features(settings: Any) -> Features:
    return MatrixFeatures(EXPRESSION)


class Encoding(Shaped):
    dtypes = ("float32",)

    def shape(self, features: int) -> dict[str, tuple[int, ...]]:
        return {"image": (1, 3, 4), "values": (features - 12,)}

    def tensor(self, x: torch.Tensor, dtype: torch.dtype) -> dict[str, torch.Tensor]:
        values = torch.log1p(x.to(dtype))
        return {"image": values[:, :12].unflatten(1, (1, 3, 4)), "values": values[:, 12:]}


class Network(torch.nn.Module):
    """A linear layer for each input, added up."""

    def __init__(self, seeds: list[int], inputs: dict[str, tuple[int, ...]], outputs: int) -> None:
        super().__init__()
        self.seen = MemberLinear(seeds, 12, outputs, 0)
        self.read = MemberLinear(seeds, inputs["values"][0], outputs, 1)

    def forward(self, x: dict[str, torch.Tensor], rows: Any = None, epoch: int = 0) -> torch.Tensor:
        return self.seen(x["image"].flatten(2)) + self.read(x["values"])
