"""A ridge regression (Hoerl and Kennard 1970, doi:10.1080/00401706.1970.10488634) beside a network over measured
values: it is fitted to the rows that the network learns from, standardised as the network sees them, stored with its
weights, and blended with it (blend.py).

Its penalty is chosen by the folds of the split: rows of one family, locus or position lie in one of them, so that a
penalty which suits rows of no training row's family is found. Where the network learns by Huber's loss, so does it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import nn

from genodl_spark.learning import penalties
from genodl_spark.learning.heads import Head, labelled, places, targets
from genodl_spark.learning.model_files import check_shapes

PENALTIES = np.logspace(-3, 2, 11)  # for each row, of features of variance 1
ROUNDS = 10  # of Huber's pseudo-values: what is left of a step shrinks by the share of rows that are far off
WIDEST = 4096  # features, or else rows, of which more than so many are not decomposed


def fit(
    z: np.ndarray, target: np.ndarray, heads: Sequence[Head], fold: np.ndarray, seed: int, bound: float = np.inf
) -> dict[str, np.ndarray]:
    """Fits it to rows z float32 (rows, f) with targets (rows, numbers), NaN where there is no label.

    `fold` int (rows,): the part of the split that each row is of; where all are of one, rows are dealt to three.
    `bound`: standard deviations beyond which the loss grows no faster than the error does (Huber 1964); infinite for
    squared errors. The penalty is the one of PENALTIES of least loss on the folds in turn, the strongest of equals.
    Returns `weight` (f, outputs) and `bias` (outputs,), float32, of values standardised; 0 for heads of other kinds,
    and for those whose labels are all alike. Of more than WIDEST rows and features so many rows are drawn. One thread,
    so that the number of cores changes no bit.
    """
    from threadpoolctl import threadpool_limits

    sizes = [head.scores for head in heads]
    weight, bias = np.zeros((z.shape[1], sum(sizes)), np.float32), np.zeros(sum(sizes), np.float32)
    with threadpool_limits(1):
        for head, own, out in zip(heads, targets(heads), places(sizes), strict=True):
            rows = np.flatnonzero(labelled(target[:, own]))
            if head.kind != "value" or len(np.unique(target[rows, own.start])) < 2:
                continue
            if min(len(rows), z.shape[1]) > WIDEST:
                rows = np.sort(np.random.default_rng(seed).choice(rows, WIDEST, replace=False))
            y = target[rows, own.start]
            y = (y - y.mean()) / (y.std() or 1.0)
            x, part = z[rows].astype(np.float64), fold[rows]
            if len(np.unique(part)) < 2:
                order, dealt = penalties.dealt(y, seed, len(y))
                part = np.empty(len(y), np.int64)
                part[order] = dealt
            losses = np.zeros(len(PENALTIES))
            for k in np.unique(part):
                weights, biases = path(x[part != k], y[part != k], PENALTIES, bound)
                losses += loss(x[part == k] @ weights + biases - y[part == k, None], bound).sum(0)
            best = len(PENALTIES) - 1 - losses[::-1].argmin()
            weights, biases = path(x, y, PENALTIES[best : best + 1], bound)
            weight[:, out], bias[out] = weights, biases
    return {"weight": weight, "bias": bias}


def loss(error: np.ndarray, bound: float) -> np.ndarray:
    """Squared errors, which beyond `bound` become straight lines."""
    within = np.minimum(np.abs(error), bound)
    found: np.ndarray = within * (2 * np.abs(error) - within)
    return found


def path(x: np.ndarray, y: np.ndarray, strengths: np.ndarray, bound: float) -> tuple[np.ndarray, np.ndarray]:
    """Weights (f, P) and intercepts (P,) of rows x float64 (n, f) and values y (n,), of least summed loss and `n *
    strengths` (P,) times the squared weights.

    Huber's loss by his method of pseudo-values: what is fitted and the error, cut at the bound, are fitted again by
    squares, so that one decomposition serves all rounds and strengths.
    """
    n, f = x.shape
    middle = x.mean(0)
    x = x - middle
    if f <= n:
        squares, axes = np.linalg.eigh(x.T @ x)
    else:
        squares, vectors = np.linalg.eigh(x @ x.T)
        kept = squares > 1e-10 * max(squares[-1], 1e-300)
        squares, axes = squares[kept], x.T @ (vectors[:, kept] / np.sqrt(squares[kept]))
    shrunk = 1 / (np.maximum(squares, 0)[:, None] + n * strengths)
    fitted = np.full((n, len(strengths)), y.mean())
    for _ in range(1 if np.isinf(bound) else ROUNDS):
        wanted = fitted + np.clip(y[:, None] - fitted, -bound, bound)
        intercepts = wanted.mean(0)
        weights = axes @ ((axes.T @ (x.T @ (wanted - intercepts))) * shrunk)
        fitted = x @ weights + intercepts
    return weights, intercepts - middle @ weights


class RidgePart(nn.Module):
    """x (M or 1, B, F), standardised -> (M or 1, B, outputs)."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor) -> None:
        super().__init__()
        self.weight: torch.Tensor
        self.bias: torch.Tensor
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.weight + self.bias


def part(tensors: Mapping[str, torch.Tensor], heads: Sequence[Head], features: int) -> RidgePart:
    """The regression of these tensors, for rows of so many features. ValueError where they are none."""
    outputs = sum(head.scores for head in heads)
    shapes = {"weight": (features, outputs), "bias": (outputs,)}
    check_shapes(tensors, shapes)
    for name in shapes:
        if tensors[name].dtype != torch.float32 or not tensors[name].isfinite().all():
            raise ValueError(f"{name} is not of finite numbers of single precision")
    return RidgePart(tensors["weight"], tensors["bias"])
