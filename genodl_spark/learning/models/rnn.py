"""Recurrent network (RNN) over one-hot sequences: a convolution, a bidirectional GRU or LSTM,
pooling over positions, a linear head.

The form of DanQ (Quang and Xie 2016). The recurrence runs in torch's own kernels, once per member and layer.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from genodl_spark.core.errors import InputError
from genodl_spark.learning.models import mlp
from genodl_spark.learning.models.layers import (
    MemberConv,
    PositionPool,
    each_member,
    has_shape,
    in_range,
    is_rate,
    keyed_start,
    max_pool,
    one_of,
    part,
    some_of,
    unpadded,
)


class MemberRecurrence(nn.Module):
    """x (M, B, L, inputs) -> states of both directions (M, B, L, 2 * units), or with `last` those
    where they end, (M, B, 2 * units).

    Parameters have the names, order and shapes of nn.GRU or nn.LSTM, behind a dimension of members.
    `present` bool (M or 1, B, L): positions after the last one that is have no part; None for whole rows.
    """

    def __init__(
        self, cell: str, seeds: list[int], inputs: int, units: int, layers: int, layer: int, last: bool
    ) -> None:
        super().__init__()
        self.units, self.layers, self.last, self.lstm = units, layers, last, cell == "lstm"
        with torch.device("meta"):
            plain = (nn.LSTM if self.lstm else nn.GRU)(inputs, units, layers, bidirectional=True)
        self.names = [name for name, _ in plain.named_parameters()]
        for number, (name, parameter) in enumerate(plain.named_parameters()):
            self.register_parameter(
                name, keyed_start(part(seeds, layer), number, parameter.shape, 1 / math.sqrt(units))
            )

    def forward(self, x: torch.Tensor, present: torch.Tensor | None) -> torch.Tensor:
        weights = [self.get_parameter(name) for name in self.names]
        if present is None:
            return each_member(self._whole, x, *weights)
        position, length = torch.arange(x.shape[2], device=x.device), present.sum(2, keepdim=True)
        turned = torch.where(position < length, length - 1 - position, position).expand(len(x), -1, -1)
        return each_member(self._padded, x, turned, *weights)

    def _whole(self, x: torch.Tensor, *weights: torch.Tensor) -> torch.Tensor:
        states, last = self._run(x, weights, self.layers, True)
        return torch.cat([last[-2], last[-1]], 1) if self.last else states

    def _padded(self, x: torch.Tensor, turned: torch.Tensor, *weights: torch.Tensor) -> torch.Tensor:
        """The same, where the other direction reads each row turned round within its length:
        `turned` (B, L) are the positions.

        Not as packed sequences, whose products have shapes, and so roundings, that depend
        on the other rows of the batch.
        """
        turned = turned[..., None]
        for start in range(0, len(weights), 8):
            ahead = self._run(x, weights[start : start + 4], 1, False)[0]
            back = self._run(x.gather(1, turned.expand_as(x)), weights[start + 4 : start + 8], 1, False)[0]
            x = torch.cat([ahead, back.gather(1, turned.expand_as(back))], 2)
        if not self.last:
            return x
        end = turned[:, :1].expand(-1, -1, self.units)
        return torch.cat([ahead.gather(1, end), back.gather(1, end)], 2).squeeze(1)

    def _run(
        self, x: torch.Tensor, weights: tuple[torch.Tensor, ...], layers: int, both: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """All states (B, L, .) and the last ones (layers and directions, B, units) of `layers` of the recurrence."""
        zero = x.new_zeros((2 if both else 1) * layers, len(x), self.units)
        # cuDNN has a backward pass in its training mode only; there is no dropout here that could differ.
        settings: Any = (list(weights), True, layers, 0.0, torch.is_grad_enabled(), both, True)
        found: Any = torch.lstm(x, (zero, zero), *settings) if self.lstm else torch.gru(x, zero, *settings)
        return found[0], found[1]


class Network(nn.Module):
    """x (M or 1, B, 4, L), one-hot, all-zero where unknown -> logits or values (M, B, outputs).

    `channels`, `kernel`, `stride`: of the convolution; `pool`: maxima over so many of its positions.
    `cell`: gru or lstm; `units`: of each direction; `layers`: of the recurrence. `pooling` over positions:
    attention, max or mean, or a list of several; or `last`, the state after the last position and, of the other
    direction, after the first.
    `dropout`: share of the pooled units dropped in training. All-zero columns behind the last known base are left out:
    their number changes nothing.
    """

    def __init__(
        self,
        seeds: list[int],
        inputs: tuple[int, ...],
        outputs: int,
        channels: int = 64,
        kernel: int = 9,
        stride: int = 1,
        pool: int = 4,
        cell: str = "gru",
        units: int = 64,
        layers: int = 1,
        pooling: str | list[str] = "attention",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        has_shape("rnn", inputs, 2)
        sizes = {
            "channels": channels,
            "kernel": kernel,
            "stride": stride,
            "pool": pool,
            "units": units,
            "layers": layers,
        }
        for option, size in sizes.items():
            in_range(option, size, 1)
        one_of("cell", cell, ["gru", "lstm"])
        ways = some_of("pooling", pooling, ["attention", "max", "mean", "last"])
        last = "last" in ways
        if last and len(ways) > 1:
            raise InputError(f"found {pooling!r}; expected last alone", "model.pooling")
        is_rate("dropout", dropout)
        self.stride, self.pool = stride, pool
        self.stem = MemberConv(seeds, inputs[0], channels, kernel, 0, stride=stride)
        self.recurrence = MemberRecurrence(cell, seeds, channels, units, layers, 1, last)
        self.pooling = None if last else PositionPool(ways, seeds, 2 * units, 2)
        self.head = mlp.Network(part(seeds, 0), (len(ways), 2 * units), outputs, [], input_dropout=dropout)

    def forward(self, x: torch.Tensor, rows: torch.Tensor | None = None, epoch: int = 0) -> torch.Tensor:
        """`rows` int64 (B,) and `epoch` key the dropout; without rows nothing is dropped."""
        x = x.transpose(2, 3).contiguous()
        present = unpadded(x)
        if present is not None:
            # what precedes the first base stays
            present = present.flip(2).cumsum(2).flip(2).ne(0)[:, :, :: self.stride]
        x = functional.gelu(self.stem(x))
        if self.pool > 1:
            x, present = max_pool(x, present, self.pool, symmetric=False)
        x = self.recurrence(x, present)
        outputs: torch.Tensor = self.head(x if self.pooling is None else self.pooling(x, present), rows, epoch)
        return outputs
