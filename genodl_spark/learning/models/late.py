"""Late fusion of several blocks of features of one row (multi-omics): a linear model for every set of blocks,
and the mean of those whose blocks a row has."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import numpy as np
import torch
from torch import nn

from genodl_spark.core.errors import InputError
from genodl_spark.learning.models.fusion import present_blocks
from genodl_spark.learning.models.layers import (
    MemberLinear,
    all_in_range,
    has_shape,
    is_rate,
    keyed_dropout,
    keys,
    part,
)

MOST = 6  # blocks: there are 2 ** blocks - 1 sets of them


class Network(nn.Module):
    """x (M or 1, B, F), standardised -> logits or values (M, B, outputs).

    `sizes`: features of each block, in the order of the features. `input_dropout`: share of inputs dropped in training,
    `modality_dropout`: of blocks, but never all that a row has.

    Outputs are the mean over all sets of blocks that a row has whole of what the set's linear model says. Of classes
    that is the geometric mean of their probabilities (a product of experts: Hinton 2002). A block whose features are
    all 0, the mean, is one that the row lacks, so that a row is answered by the models that were made for what it has.
    `known` (M, sets): 1 for sets that some training row has whole, else 0: those have no say.
    """

    known: torch.Tensor

    def __init__(
        self,
        seeds: list[int],
        inputs: tuple[int, ...],
        outputs: int,
        sizes: list[int] | None = None,
        input_dropout: float = 0.0,
        modality_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        has_shape("late", inputs, 1)
        all_in_range("sizes", sizes, 1)
        is_rate("input_dropout", input_dropout)
        is_rate("modality_dropout", modality_dropout)
        if sizes is None or sum(sizes) != inputs[0] or len(sizes) > MOST:
            text = f"found {sizes}; expected the sizes of at most {MOST} blocks, {inputs[0]} features in all"
            raise InputError(text, "model.sizes")
        self.seeds, self.sizes, self.rate, self.dropout = seeds, sizes, modality_dropout, input_dropout
        blocks = range(len(sizes))
        self.sets = [chosen for count in range(1, len(sizes) + 1) for chosen in combinations(blocks, count)]
        self.experts = nn.ModuleList(
            MemberLinear(part(seeds, number), sum(sizes[b] for b in chosen), outputs, 0)
            for number, chosen in enumerate(self.sets)
        )
        self.register_buffer("known", torch.ones(len(seeds), len(self.sets)))

    def forward(self, x: torch.Tensor, rows: torch.Tensor | None = None, epoch: int = 0) -> torch.Tensor:
        """`rows` int64 (B,) and `epoch` key what is dropped; without rows nothing is."""
        parts = x.split(self.sizes, 2)
        present = present_blocks(parts, self.rate, self.seeds, rows, epoch)
        if rows is not None and self.dropout:
            parts = tuple(
                keyed_dropout(values, self.dropout, rows, keys(self.seeds, epoch, 1 + number, x.device))
                for number, values in enumerate(parts)
            )
        has = torch.stack([present[..., list(chosen)].all(2) for chosen in self.sets], 2) * self.known[:, None]
        has = has / has.sum(2, keepdim=True).clamp(min=1)
        said = [
            has[..., number, None] * expert(torch.cat([parts[b] for b in chosen], 2))
            for number, (chosen, expert) in enumerate(zip(self.sets, self.experts, strict=True))
        ]
        return torch.stack(said).sum(0)

    def linear_models(self) -> Iterator[tuple[MemberLinear, list[np.ndarray]]]:
        """Each set's model, and the columns of x of each block that it sees, in its order, int64: training starts them
        where its rows say (training/starts.py)."""
        columns = np.split(np.arange(sum(self.sizes)), np.cumsum(self.sizes)[:-1])
        for chosen, expert in zip(self.sets, self.experts, strict=True):
            assert isinstance(expert, MemberLinear)
            yield expert, [columns[b] for b in chosen]
