"""Where networks of linear models start: at the linear discriminants of the rows that each training set learns from, or
at the ridge regressions of their values. Few rows then have an answer of a known kind before the first step."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from genodl_spark.learning import penalties, shrunken_discriminant
from genodl_spark.learning.devices import placed
from genodl_spark.learning.heads import Head, labelled

if TYPE_CHECKING:
    from genodl_spark.learning.models.layers import MemberLinear

ROWS = 4096  # of a training set, at most: the cost of a discriminant is their square
FEW = 3  # rows that a linear model is made of, at least


def begin(
    network: Any,
    rows_of: Callable[[np.ndarray, int], np.ndarray],
    target: np.ndarray,
    learns: np.ndarray,
    heads: list[Head],
    standard: np.ndarray,
    seed: int,
) -> None:
    """Puts the members of each training set where its rows say.

    `network.linear_models()` tells its linear models, each with the columns of the blocks that it sees, and
    `network.known` (M, models) is 0 for those of which no training row has all blocks. `rows_of(rows, s)`: rows as the
    networks of set s take them, float32 (rows, F), 0 where a value is missing. `target` float64 (rows, numbers);
    `learns` bool (S, rows); `standard` (S, measures): of the targets, as the loss has it. Nothing is done for several
    heads, nor for other targets than classes and values.
    """
    if len(heads) > 1 or heads[0].kind not in ("classes", "value"):
        return
    from threadpoolctl import threadpool_limits

    for s, rows in enumerate(np.flatnonzero(one & labelled(target)) for one in learns):
        if len(rows) > ROWS:
            rows = np.sort(np.random.default_rng([seed, s]).choice(rows, ROWS, replace=False))
        z, learnt = rows_of(rows, s).astype(np.float64), target[rows, 0]
        mine = slice(s * (len(network.known) // len(learns)), (s + 1) * (len(network.known) // len(learns)))
        for number, (layer, blocks) in enumerate(network.linear_models()):
            whole = np.all([(z[:, columns] != 0).any(1) for columns in blocks], axis=0)
            network.known[mine, number] = float(whole.sum() >= FEW)
            if whole.sum() < FEW:
                continue
            x = z[whole][:, np.concatenate(blocks)]
            with threadpool_limits(1):  # the number of cores is to change no bit
                if heads[0].classes:
                    found = shrunken_discriminant.fit(x, learnt[whole].astype(np.int64), len(heads[0].classes))
                    weight, bias = found.weight, found.bias
                else:
                    mean, spread = standard[s, 0], standard[s, 1] or 1.0
                    weight, bias = _ridge(x, (learnt[whole] - mean) / spread)
            _put(layer, mine, weight, bias)


def _ridge(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights (p, 1) and intercept (1,) of the penalty of least leave-one-out error, of rows x float64 (n, p)."""
    from sklearn.linear_model import RidgeCV

    scale = float(np.sqrt((x**2).sum(1).mean())) or 1.0
    found = RidgeCV(alphas=scale**2 * penalties.RIDGE_PENALTIES).fit(x, y)
    return found.coef_[:, None], np.array([found.intercept_])


def _put(layer: MemberLinear, members: slice, weight: np.ndarray, bias: np.ndarray) -> None:
    import torch

    with torch.no_grad():
        layer.weight[members] = placed(weight, layer.weight.device, layer.weight.dtype)
        layer.bias[members] = placed(bias[None], layer.bias.device, layer.bias.dtype)
