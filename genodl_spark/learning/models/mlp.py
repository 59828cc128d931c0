"""Multi-layer perceptron over standardised features (DNN)."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional

from genodl_spark.core.errors import InputError
from genodl_spark.learning.models.layers import MemberLinear, all_in_range, is_rate, keyed_dropout, keys

STARTS = ("random", "lda")


class Network(nn.Module):
    """x (M or 1, B, *inputs), standardised -> logits or values (M, B, outputs).

    `hidden`: widths of the hidden layers; none of them makes a linear model. `dropout`: share of hidden units dropped
    in training, `input_dropout`: of inputs. `start`: random; or lda, for one column of classes: a linear discriminant
    of the training rows, which stays as it is, stands beside the layers, the last of which starts at 0.
    """

    discriminant: torch.Tensor | None
    discriminant_bias: torch.Tensor | None

    def __init__(
        self,
        seeds: list[int],
        inputs: tuple[int, ...],
        outputs: int,
        hidden: list[int] | None = None,
        dropout: float = 0.0,
        input_dropout: float = 0.0,
        start: str = "random",
    ) -> None:
        super().__init__()
        hidden = [128] if hidden is None else hidden
        all_in_range("hidden", hidden, 1, least=0)
        is_rate("dropout", dropout)
        is_rate("input_dropout", input_dropout)
        widths = [math.prod(inputs), *hidden, outputs]
        layers = [MemberLinear(seeds, a, b, i) for i, (a, b) in enumerate(pairwise(widths))]
        self.layers = nn.ModuleList(layers)
        self.seeds = seeds
        self.rates = [input_dropout, *[dropout] * (len(widths) - 2)]
        if start not in STARTS:
            raise InputError(f"found {start!r}; expected one of {', '.join(STARTS)}", "model.start")
        self.register_buffer("discriminant", None)
        self.register_buffer("discriminant_bias", None)
        if start == "lda":
            self.register_buffer("discriminant", torch.zeros(len(seeds), widths[0], outputs))
            self.register_buffer("discriminant_bias", torch.zeros(len(seeds), 1, outputs))
            nn.init.zeros_(layers[-1].weight)

    def start_at(self, weight: torch.Tensor, bias: torch.Tensor) -> None:
        """The linear discriminants beside the layers: weight (M, inputs, outputs), bias (M, outputs)."""
        assert self.discriminant is not None and self.discriminant_bias is not None
        self.discriminant.copy_(weight)
        self.discriminant_bias.copy_(bias[:, None])

    def forward(self, x: torch.Tensor, rows: torch.Tensor | None = None, epoch: int = 0) -> torch.Tensor:
        """`rows` int64 (B,) and `epoch` key the dropout; without rows nothing is dropped."""
        x = x.flatten(2)
        beside = None
        if self.discriminant is not None and self.discriminant_bias is not None:
            beside = torch.baddbmm(self.discriminant_bias, x.expand(len(self.discriminant), -1, -1), self.discriminant)
        for number, layer in enumerate(self.layers):
            if number > 0:
                x = functional.gelu(x)
            if rows is not None and self.rates[number] > 0:
                x = keyed_dropout(x, self.rates[number], rows, keys(self.seeds, epoch, number, x.device))
            x = layer(x)
        return x if beside is None else x + beside

    def fold(self, axes: torch.Tensor) -> None:
        """Turns a network over coordinates x @ axes into the same network over x; axes (M, F, inputs)."""
        first = self.layers[0]
        assert isinstance(first, MemberLinear)
        first.weight = nn.Parameter(torch.bmm(axes, first.weight.detach()))
        if self.discriminant is not None:
            self.discriminant = torch.bmm(axes, self.discriminant)
