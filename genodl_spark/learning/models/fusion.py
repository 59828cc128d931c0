"""Fusion of several blocks of features of one row (multi-omics): an encoder for each block,
a fusion of what they say, a shared head."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from genodl_spark.core.errors import InputError
from genodl_spark.learning.models import mlp
from genodl_spark.learning.models.layers import (
    SCALE,
    Attention,
    MemberLinear,
    all_in_range,
    has_shape,
    is_rate,
    keyed_bits,
    keys,
    one_of,
    part,
)


class Network(nn.Module):
    """x (M or 1, B, F), standardised -> logits or values (M, B, outputs).

    `sizes`: features of each block, in the order of the features. `encoder`: widths of the layers of every block's
    encoder. `fusion`: `concat` puts the blocks' encodings side by side, `gated` takes their mean under gated attention
    (Ilse et al. 2018). `hidden`: widths of the dense layers after it. `dropout`: share of hidden units dropped
    in training, `input_dropout`: of inputs, `modality_dropout`: of blocks, but never all that a row has.

    A block whose features are all 0, the mean, is one that the row lacks: it has no part in the fusion,
    as a dropped one has none.
    """

    def __init__(
        self,
        seeds: list[int],
        inputs: tuple[int, ...],
        outputs: int,
        sizes: list[int] | None = None,
        encoder: list[int] | None = None,
        fusion: str = "concat",
        hidden: list[int] | None = None,
        dropout: float = 0.0,
        input_dropout: float = 0.0,
        modality_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        has_shape("fusion", inputs, 1)
        encoder, hidden = [64] if encoder is None else encoder, [64] if hidden is None else hidden
        all_in_range("sizes", sizes, 1)
        all_in_range("encoder", encoder, 1)
        one_of("fusion", fusion, ["concat", "gated"])
        is_rate("modality_dropout", modality_dropout)
        if sizes is None or sum(sizes) != inputs[0]:
            raise InputError(
                f"found {sizes}; expected the sizes of the blocks, {inputs[0]} features in all", "model.sizes"
            )
        self.seeds, self.sizes, self.rate, self.dropout = seeds, sizes, modality_dropout, dropout
        blocks, width = len(sizes), encoder[-1]
        self.encoders = nn.ModuleList(
            mlp.Network(part(seeds, 3 + b), (size,), width, encoder[:-1], dropout, input_dropout)
            for b, size in enumerate(sizes)
        )
        self.gated = fusion == "gated"
        if self.gated:
            self.content, self.gate = (MemberLinear(part(seeds, number), width, width, 0) for number in (1, 2))
            self.attention = Attention(seeds, width, 0)
        self.head = mlp.Network(
            part(seeds, 0), (width if self.gated else blocks * width,), outputs, hidden, dropout, dropout
        )

    def forward(self, x: torch.Tensor, rows: torch.Tensor | None = None, epoch: int = 0) -> torch.Tensor:
        """`rows` int64 (B,) and `epoch` key what is dropped; without rows nothing is."""
        parts = x.split(self.sizes, 2)
        present = present_blocks(parts, self.rate, self.seeds, rows, epoch)
        encoded = torch.stack(
            [functional.gelu(encode(values, rows, epoch)) for encode, values in zip(self.encoders, parts, strict=True)],
            2,
        )
        if not self.gated:
            fused = (encoded * present[..., None]).flatten(2)
        else:
            flat = encoded.flatten(1, 2)
            evidence = self.content(flat).tanh() * self.gate(flat).sigmoid()
            weights = self.attention(evidence.view_as(encoded), present)
            fused = (weights[..., None] * encoded).sum(2)
        outputs: torch.Tensor = self.head(fused, rows, epoch)
        return outputs


def present_blocks(
    parts: tuple[torch.Tensor, ...], rate: float, seeds: list[int], rows: torch.Tensor | None, epoch: int
) -> torch.Tensor:
    """Which blocks take part, bool (M or 1, B, blocks): of parts (M or 1, B, features of a block) those that are not
    all 0; in training, where there are `rows`, less a share `rate` of them, but never the last one that a row has."""
    present = torch.stack([values.ne(0).any(2) for values in parts], 2)
    present = present | ~present.any(2, keepdim=True)  # a row without anything: its blocks are all at their means
    if rows is None or not rate:
        return present
    drawn = keyed_bits(len(parts), rows, keys(seeds, epoch, 0, parts[0].device))
    order = torch.where(present, drawn, -1)
    first = functional.one_hot(order.argmax(2), len(parts)).bool()
    return present & ((drawn >= rate * SCALE) | first)
