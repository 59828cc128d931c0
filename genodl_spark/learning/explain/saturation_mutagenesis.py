"""Saturation mutagenesis in silico: what the output becomes with every input of a row changed, one at a time.

At each position of a sequence stands every other base in turn. `hypothetical` is the output with a base there less the
row's own output; the contribution of the base that is there is the row's output less the mean of the three others.
Of measured values each is set to the reference's in turn, and its contribution is what the output loses by that.
Effects of single changes need not add up to anything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from genodl_spark.learning.explain import Attributions, Limits

if TYPE_CHECKING:
    import torch

    from genodl_spark.learning.explain.outputs import Outputs


class Method:
    complete = False

    def __init__(self, limits: Limits) -> None:
        pass

    def attribute(
        self, outputs: Outputs, x: torch.Tensor, references: torch.Tensor, weights: torch.Tensor
    ) -> Attributions:
        own = outputs.values(x, weights)
        rows, count = references.shape[:2]
        at = outputs.values(references.flatten(0, 1), weights.repeat_interleave(count, 0)).reshape(rows, count).mean(1)
        made = _of_sequences if x.dim() == 3 else _of_values
        contributions, hypothetical, passes = made(outputs, x, references, weights, own)
        return Attributions(contributions, hypothetical, own, at, np.full(rows, np.nan), passes)


def _of_sequences(
    outputs: Outputs, x: torch.Tensor, references: torch.Tensor, weights: torch.Tensor, own: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    import torch

    known = x.ne(0).any(1, keepdim=True)
    row, base, position = torch.nonzero(known & x.eq(0), as_tuple=True)
    effect = np.zeros(x.shape)
    for part in _parts(len(row), outputs.batch):
        r, b, p = row[part], base[part], position[part]
        changed = x[r]
        changed[torch.arange(len(r), device=x.device), :, p] = 0.0
        changed[torch.arange(len(r), device=x.device), b, p] = 1.0
        places = (r.cpu().numpy(), b.cpu().numpy(), p.cpu().numpy())
        effect[places] = outputs.values(changed, weights[r]) - own[places[0]]
    contributions = x.double().cpu().numpy() * (-effect.sum(1, keepdims=True) / 3)
    return contributions, effect, np.bincount(row.cpu().numpy(), minlength=len(x))


def _of_values(
    outputs: Outputs, x: torch.Tensor, references: torch.Tensor, weights: torch.Tensor, own: np.ndarray
) -> tuple[np.ndarray, None, np.ndarray]:
    import torch

    width, reference = x.shape[1], references.mean(1)
    row, feature = torch.nonzero(x.ne(reference), as_tuple=True)
    lost = np.zeros(x.shape)
    for part in _parts(len(row), outputs.batch):
        r, f = row[part], feature[part]
        changed = x[r]
        changed[torch.arange(len(r), device=x.device), f] = reference[r, f]
        lost[r.cpu().numpy(), f.cpu().numpy()] = own[r.cpu().numpy()] - outputs.values(changed, weights[r])
    return lost.reshape(-1, width), None, np.bincount(row.cpu().numpy(), minlength=len(x))


def _parts(count: int, step: int) -> list[slice]:
    return [slice(start, start + step) for start in range(0, count, step)]
