"""Pairs of sequences, REF and ALT of a variant with what is around it: the two halves of a sequence."""

from __future__ import annotations

from typing import Any

import torch

from genodl_spark.features.sequences import SequenceFeatures
from genodl_spark.learning.encodings import Shaped, onehot
from genodl_spark.learning.models import MemberLinear

_BASES = onehot.Encoding()


def features(settings: Any) -> SequenceFeatures:
    return SequenceFeatures(encoding="pairs.py")


class Encoding(Shaped):
    dtypes = ("int8",)

    def width(self, features: int) -> int:
        return features

    def shape(self, features: int) -> dict[str, tuple[int, ...]]:
        return {"ref": (4, features // 2), "alt": (4, features // 2)}

    def tensor(self, x: torch.Tensor, dtype: torch.dtype) -> dict[str, torch.Tensor]:
        ref, alt = x.chunk(2, 1)
        return {"ref": _BASES.tensor(ref, dtype), "alt": _BASES.tensor(alt, dtype)}


class Network(torch.nn.Module):
    """A linear layer over what differs between the two."""

    def __init__(self, seeds: list[int], inputs: dict[str, tuple[int, ...]], outputs: int) -> None:
        super().__init__()
        channels, length = inputs["ref"]
        self.head = MemberLinear(seeds, channels * length, outputs, 0)

    def forward(self, x: dict[str, torch.Tensor], rows: Any = None, epoch: int = 0) -> torch.Tensor:
        return self.head((x["alt"] - x["ref"]).flatten(2))
