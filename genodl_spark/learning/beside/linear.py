"""A linear model beside a network over sequences: over the k-mers of a sequence, or what stands at each of its
positions, up to three bases long. It is fitted to the rows that the network learns from (linear_fits.py), stored with
its weights, and blended with it (blend.py).

Features of one-hot rows are products and sums of them, so that what is blended has gradients.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from genodl_spark.learning.string_kernels import LONGEST, POSITIONS

WAYS = {"kmers": ("kmers",), "positions": ("positions",), "both": ("kmers", "positions")}  # blocks of features of each
DEGREE = 3  # bases of the longest word at a position

_KMERS = sum(4**k for k in range(1, LONGEST + 1))


def strands(model: Mapping[str, Any]) -> bool:
    """Whether a network of these options reads a sequence and its reverse complement as one: then so does what stands
    beside it, and k-mers alone can."""
    return model.get("reverse_complement", "none") != "none"


def width(block: str, length: int) -> int:
    """Features of a block, kmers or positions, of rows of so many bases."""
    return _KMERS if block == "kmers" else sum(of_places(length))


def of_places(length: int) -> list[int]:
    """Features of each length of words, 1 to DEGREE, among the positions of rows of so many bases."""
    seen = min(length, POSITIONS)
    return [max(seen - k + 1, 0) << (2 * k) for k in range(1, DEGREE + 1)]


def features(block: str, x: torch.Tensor, merged: bool) -> torch.Tensor:
    """Features (rows, f) of one-hot rows x (rows, 4, length), all-zero where a base is unknown, before they are
    weighted: `kmers` logarithms of 1 and the count of each k-mer, as `string_kernels.kmer_counts` has them;
    `positions` the indicators of `string_kernels.weighted_degree` of DEGREE, each 1."""
    if block == "kmers":
        return torch.log1p(_kmer_counts(x, merged))
    start = max(0, x.shape[2] - POSITIONS) // 2
    x = x[:, :, start : start + POSITIONS].transpose(1, 2)
    words = [x]
    for k in range(2, DEGREE + 1):
        places = max(x.shape[1] - k + 1, 0)
        words.append((words[-1][:, :places, :, None] * x[:, k - 1 : k - 1 + places, None]).flatten(2))
    return torch.cat([found.flatten(1) for found in words], 1)


def _kmer_counts(x: torch.Tensor, merged: bool) -> torch.Tensor:
    """A k-mer stands where its first three bases stand and the others behind them, so that one product of matrices
    counts all of them."""
    indicators = [x]
    for k in (2, 3):
        shorter = indicators[-1]
        number = max(x.shape[2] - k + 1, 0)
        pairs = shorter[:, :, None, :number] * x[:, None, :, k - 1 : k - 1 + number]
        indicators.append(pairs.flatten(1, 2))
    counts = [found.sum(2) for found in indicators]
    for k in range(4, LONGEST + 1):
        number = max(x.shape[2] - k + 1, 0)
        left, right = indicators[2][:, :, :number], indicators[k - 4][:, :, 3 : 3 + number]
        counts.append(torch.bmm(left, right.transpose(1, 2)).flatten(1))
    if merged:
        counts = [_merged(found, k) for k, found in enumerate(counts, 1)]
    return torch.cat(counts, 1)


def _merged(counts: torch.Tensor, k: int) -> torch.Tensor:
    """Counts (rows, 4**k) with those of the reverse complement, at the lesser of both."""
    digits = torch.arange(4**k, device=counts.device)
    other = torch.zeros_like(digits)
    left = digits
    for _ in range(k):
        other, left = other * 4 + (3 - left % 4), left // 4
    both = counts + counts[:, other] * (other != digits)
    return both * (digits <= other)


class LinearPart(nn.Module):
    """x (M or 1, B, 4, L), one-hot -> (M or 1, B, outputs). `weights`: of each block that it sees, (f, outputs);
    `bias` (outputs,)."""

    def __init__(self, weights: Mapping[str, torch.Tensor], bias: torch.Tensor, merged: bool) -> None:
        super().__init__()
        self.merged, self.blocks = merged, tuple(weights)
        self.bias: torch.Tensor
        self.register_buffer("bias", bias)
        for block, weight in weights.items():
            self.register_buffer(block, weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        flat, found = x.flatten(0, 1), self.bias
        for block in self.blocks:
            found = found + features(block, flat, self.merged) @ getattr(self, block)
        return found.unflatten(0, x.shape[:2])


def part(tensors: Mapping[str, np.ndarray], merged: bool) -> LinearPart:
    """The linear part of these tensors, as `fit` gives them."""
    found = {name: torch.from_numpy(value) for name, value in tensors.items()}
    return LinearPart({block: found[block] for block in WAYS["both"] if block in found}, found["bias"], merged)
