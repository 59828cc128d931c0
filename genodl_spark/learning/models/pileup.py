"""Candidate alleles of a caller: what the likelihood says, corrected by layers over counts and evidence (MLP) and by a
residual convolutional network over the reads (He et al. 2016) where those are not sure."""

from __future__ import annotations

import math
from itertools import count, pairwise

import torch
from torch import nn
from torch.nn import functional

from genodl_spark.core.errors import InputError
from genodl_spark.learning.models import mlp
from genodl_spark.learning.models.layers import (
    MemberLinear,
    all_in_range,
    each_member,
    in_range,
    is_rate,
    keyed_kept,
    keyed_start,
    keys,
    part,
)

_TAKES = {"counts", "reads", "evidence", "posterior"}
_AT_ONCE = 64  # rows whose reads are looked at together in evaluation, always so many, so that no other row matters
_START = 0.7  # how much the likelihood counts before anything is learnt: it is surer than it should be


class _Conv(nn.Module):
    """x (M or 1, B, inputs, H, W) -> (M, B, outputs, H / stride, W / stride, rounded up), 3 x 3, with zeros beyond the
    ends."""

    def __init__(self, seeds: list[int], inputs: int, outputs: int, layer: int, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride
        self.weight = keyed_start(seeds, layer, (outputs, inputs, 3, 3), 1 / math.sqrt(3 * inputs))
        self.bias = nn.Parameter(torch.zeros(len(seeds), outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return each_member(self._one, x, self.weight, self.bias)

    def _one(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return functional.conv2d(x, weight, bias, self.stride, 1)


class _Reads(nn.Module):
    """Reads (M or 1, B, planes, rows, bases) -> (M, B, outputs), of 0 before anything is learnt. Every stage halves
    rows and bases, and has a residual block, whose second convolution starts at 0."""

    def __init__(self, seeds: list[int], planes: int, channels: list[int], outputs: int) -> None:
        super().__init__()
        layer = count()
        widths = list(pairwise([planes, *channels]))
        self.into = nn.ModuleList(_Conv(seeds, a, b, next(layer), 2) for a, b in widths)
        self.first = nn.ModuleList(_Conv(seeds, b, b, next(layer)) for _, b in widths)
        second = [_Conv(seeds, b, b, next(layer)) for _, b in widths]
        self.second = nn.ModuleList(second)
        self.head = MemberLinear(seeds, 2 * channels[-1], outputs, next(layer))
        for module in second:
            nn.init.zeros_(module.weight)
        nn.init.zeros_(self.head.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for into, first, second in zip(self.into, self.first, self.second, strict=True):
            x = functional.relu(into(x))
            x = x + second(functional.relu(first(x)))
        found: torch.Tensor = self.head(torch.cat([x.mean((-2, -1)), x.amax((-2, -1))], -1))
        return found


class Network(nn.Module):
    """The four inputs of `encodings/pileups.py` -> logits of 0, 1 and 2 copies (M, B, 3): the likelihood's logarithms,
    times a learnt factor, and what layers over counts and evidence and a network over reads add.

    `hidden`: widths of the layers. `channels`: of each stage of the network over reads. `dropout`: share of hidden
    units of the layers dropped in training. `unread`: share of rows whose reads are not looked at in training, so that
    the layers learn to answer alone. `sure`: chance of one number of copies, by layers and likelihood alike, from
    which on reads are not looked at in evaluation.
    """

    def __init__(
        self,
        seeds: list[int],
        inputs: dict[str, tuple[int, ...]],
        outputs: int,
        hidden: list[int] | None = None,
        channels: list[int] | None = None,
        dropout: float = 0.1,
        unread: float = 0.5,
        sure: float = 0.9999,
    ) -> None:
        super().__init__()
        hidden, channels = hidden or [96, 48], channels or [24, 32, 48]
        if not isinstance(inputs, dict) or set(inputs) != _TAKES or outputs != 3:
            raise InputError(
                "found other rows than candidates of a caller, of 0, 1 or 2 copies; expected these", "model.kind"
            )
        all_in_range("hidden", hidden, 1)
        all_in_range("channels", channels, 1)
        is_rate("dropout", dropout)
        is_rate("unread", unread)
        in_range("sure", sure, 0, 1, whole=False)
        self.seeds, self.unread, self.sure = seeds, unread, sure
        width = math.prod(inputs["counts"]) + inputs["evidence"][0] + inputs["posterior"][0]
        self.layers = mlp.Network(part(seeds, 0), (width,), outputs, hidden, dropout)
        last = self.layers.layers[-1]
        assert isinstance(last, MemberLinear)
        nn.init.zeros_(last.weight)
        self.reads = _Reads(part(seeds, 1), inputs["reads"][0], channels, outputs)
        self.factor = nn.Parameter(torch.full((len(seeds), 1, 1), _START))

    def forward(self, x: dict[str, torch.Tensor], rows: torch.Tensor | None = None, epoch: int = 0) -> torch.Tensor:
        posterior = x["posterior"]
        flat = torch.cat([x["counts"].flatten(2), x["evidence"], posterior], -1)
        found = self.layers(flat, rows, epoch) + self.factor * posterior
        if rows is not None:
            wanted = keyed_kept(1, self.unread, rows, keys(self.seeds, epoch, 0, flat.device))[..., 0]
        else:
            wanted = ~self._agreed(found, posterior)
        return found + self._read(x["reads"], wanted, rows is None)

    def _agreed(self, found: torch.Tensor, posterior: torch.Tensor) -> torch.Tensor:
        """Rows (M, B) of which layers and likelihood are sure, and of the same."""
        chance, copies = found.softmax(-1).max(-1)
        said, likeliest = posterior.softmax(-1).max(-1)
        return (copies == likeliest) & (chance >= self.sure) & (said >= self.sure)

    def _read(self, reads: torch.Tensor, wanted: torch.Tensor, filled: bool) -> torch.Tensor:
        """What the reads of rows `wanted` (M, B) say, 0 of others: (M, B, outputs). `filled`: so many at a time as
        _AT_ONCE, empty ones behind the last."""
        union = wanted.any(0).nonzero()[:, 0]
        if not len(union):
            return self.reads.head.weight.new_zeros(*wanted.shape, self.reads.head.weight.shape[2])
        some = reads[:, union]
        if filled:
            some = functional.pad(some, (0,) * 6 + (0, -len(union) % _AT_ONCE))
            said = torch.cat([self.reads(each) for each in some.split(_AT_ONCE, 1)], 1)[:, : len(union)]
        else:
            said = self.reads(some)
        whole = said.new_zeros(len(said), wanted.shape[1], said.shape[2]).index_copy(1, union, said)
        return whole * wanted[..., None]
