"""Images of two channels, (2, 3, 4), made of the first 24 values of an expression matrix: bytes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import torch

from genodl_spark.core import packing
from genodl_spark.features.matrices import MatrixFeatures
from genodl_spark.features.protocol import ROWS, Choice, batch_of
from genodl_spark.lake.tables.ingested import EXPRESSION
from genodl_spark.learning.encodings import Shaped
from genodl_spark.learning.models import MemberLinear

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

SHAPE = (2, 3, 4)
VALUES = [f"G{i}" for i in range(24)]


def drawn(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        values = packing.rows(batch.column("x"), "float32", len(VALUES))
        yield batch_of(batch.column("entity_id"), values.clip(0, 255).astype(np.uint8), np.zeros(len(values)))


@dataclass(frozen=True)
class Images(MatrixFeatures):
    dtype: str = "uint8"

    def choose(self, lake: Any, cohort: str, entities: list[str], learns: np.ndarray) -> Choice:
        return Choice(["signal", "background"])

    def rows(self, lake: Any, cohort: str, features: list[str]) -> DataFrame:
        return super().rows(lake, cohort, VALUES).mapInArrow(drawn, ROWS)


def features(settings: Any) -> Images:
    return Images(EXPRESSION)


class Encoding(Shaped):
    dtypes = ("uint8",)

    def shape(self, features: int) -> tuple[int, ...]:
        return SHAPE

    def tensor(self, x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        return x.to(dtype).div(32).unflatten(1, SHAPE)


class Network(torch.nn.Module):
    """The mean and the highest value of each channel, and a linear layer."""

    def __init__(self, seeds: list[int], inputs: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        self.head = MemberLinear(seeds, 2 * inputs[0], outputs, 0)

    def forward(self, x: torch.Tensor, rows: Any = None, epoch: int = 0) -> torch.Tensor:
        return self.head(torch.cat([x.mean((-2, -1)), x.amax((-2, -1))], -1))
