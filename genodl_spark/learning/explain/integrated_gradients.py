"""Integrated Gradients (Sundararajan, Taly and Yan 2017, arXiv:1703.01365): the gradient, averaged over the straight
way from a reference to the row, times the difference of both.

On a piece of the way the contributions should add up to what the output changes by, which is known from two passes
without a gradient. So the error of every piece is known, not estimated, and pieces are halved where most of it is: at
the bends of maxima, and where a layer norm sees inputs come out of nothing.

A long piece has three gradients, exact where the way is smooth. A short one is as good as straight, or has a bend: one
gradient, in its middle, tells in which half the bend is, and stays that of the other half. So a bend, of which a
network with maxima has a hundred and more, is closed in upon by one gradient for each halving.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from genodl_spark.learning.explain import START, Attributions, Limits, attributed, begun

if TYPE_CHECKING:
    import torch

    from genodl_spark.learning.explain.outputs import Outputs

_NODES = 3  # of Gauss and Legendre on a piece: exact where the gradient is a polynomial of degree 5; one is its middle
_PIECES = 2  # that a way begins with
_SHORT = 1 / 32  # of a way: pieces that are shorter have one node
_STRAIGHT = 0.25  # of the other half's error: a half that has less keeps the gradient of its piece
_UNEVEN = 30  # times the error that a row may have: what the errors of its pieces may add up to without their signs
_HELD = 1 << 26  # numbers of pieces that are held at once
_EXPECTED = 8  # pieces of a way, for that
_OF_PIECES = ("way", "low", "high", "at_low", "at_middle", "at_high", "error")


@dataclass
class _Pieces:
    """Pieces of ways, way b * R + r being that from reference r to row b: from `low` to `high` of it, the outputs there
    and between, NaN where that is not known as the gradient is not of there; the integral of the gradient, float32
    (n, *shape), and how far that is from the outputs' difference."""

    way: np.ndarray
    low: np.ndarray
    high: np.ndarray
    at_low: np.ndarray
    at_middle: np.ndarray
    at_high: np.ndarray
    slopes: torch.Tensor
    error: np.ndarray

    def joined(self, other: _Pieces, kept: np.ndarray) -> _Pieces:
        """Those of these pieces that are kept, bool (n,), and the others."""
        import torch

        arrays = {name: np.concatenate([getattr(self, name)[kept], getattr(other, name)]) for name in _OF_PIECES}
        held = torch.from_numpy(np.flatnonzero(kept)).to(self.slopes.device)
        return _Pieces(**arrays, slopes=torch.cat([self.slopes[held], other.slopes]))

    def of_halves(self) -> tuple[np.ndarray, np.ndarray]:
        """The errors of both halves of pieces of one node, if its gradient is that of either; their sum is the piece's.
        NaN where the output between is not known."""
        half = (self.error + self.at_high - self.at_low) / 2
        return half - (self.at_middle - self.at_low), half - (self.at_high - self.at_middle)

    def kept(self, chosen: np.ndarray, upper: bool, error: np.ndarray) -> _Pieces:
        """The lower, or upper, halves of those `chosen`, bool (n,), with the gradient of the whole; `error` of all."""
        import torch

        middle = (self.low + self.high) / 2
        lows, highs = ((middle, self.at_middle), (self.high, self.at_high)) if upper else (
            (self.low, self.at_low), (middle, self.at_middle),
        )  # fmt: skip
        held = torch.from_numpy(np.flatnonzero(chosen)).to(self.slopes.device)
        return _Pieces(
            self.way[chosen],
            lows[0][chosen],
            highs[0][chosen],
            lows[1][chosen],
            np.full(len(held), np.nan),
            highs[1][chosen],
            self.slopes[held] / 2,
            error[chosen],
        )


class _Ways:
    """Straight ways from references (B, R, *shape) to rows x (B, *shape), and the outputs on them."""

    def __init__(self, outputs: Outputs, x: torch.Tensor, references: torch.Tensor, weights: torch.Tensor) -> None:
        self.outputs, self.x, self.weights = outputs, x, weights
        self.references, self.count = references.flatten(0, 1), references.shape[1]

    def _ends(self, way: np.ndarray) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        import torch

        place = torch.from_numpy(way).to(self.x.device)
        row = place // self.count
        return self.references[place], self.x[row], self.weights[row]

    def points(self, way: np.ndarray, at: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Points at so much of ways, (n, *shape), and the weights of their outputs."""
        import torch

        start, end, weights = self._ends(way)
        share = torch.from_numpy(at.astype(np.float32)).to(self.x.device).view(-1, *[1] * (start.dim() - 1))
        return start + share * (end - start), weights

    def values(self, way: np.ndarray, at: np.ndarray) -> np.ndarray:
        """Outputs there, float64 (n,)."""
        step = self.outputs.batch
        parts = [
            self.outputs.values(*self.points(way[s : s + step], at[s : s + step])) for s in range(0, len(way), step)
        ]
        return np.concatenate([np.zeros(0), *parts])

    def measured(
        self, way: np.ndarray, low: np.ndarray, high: np.ndarray, at_low: np.ndarray, at_high: np.ndarray
    ) -> _Pieces:
        """Integrals of the gradient over pieces, the long ones first."""
        short = high - low < _SHORT
        long, others = (
            self._measured(nodes, *(one[mine] for one in (way, low, high, at_low, at_high)))
            for nodes, mine in ((_NODES, ~short), (1, short))
        )
        return long.joined(others, np.ones(len(long.way), bool))

    def _measured(
        self, count: int, way: np.ndarray, low: np.ndarray, high: np.ndarray, at_low: np.ndarray, at_high: np.ndarray
    ) -> _Pieces:
        """By so many nodes, an odd number."""
        import torch

        nodes, shares = np.polynomial.legendre.leggauss(count)
        step, found, gained, middle = self.outputs.batch, [], [], []
        for first in range(0, len(way), step):
            part = slice(first, first + step)
            width = (high - low)[part, None]
            at = low[part, None] + width * (nodes + 1) / 2
            values, gradients = self.outputs.gradients(*self.points(np.repeat(way[part], count), at.ravel()))
            scale = torch.from_numpy(width * shares / 2).to(self.x.device)
            slopes = torch.einsum("nk...,nk->n...", gradients.double().unflatten(0, (-1, count)), scale)
            start, end, _ = self._ends(way[part])
            gained.append((slopes * (end - start)).flatten(1).sum(1).cpu().numpy())
            middle.append(values.reshape(-1, count)[:, count // 2])
            found.append(slopes.float())
        error = np.concatenate([np.zeros(0), *gained]) - (at_high - at_low)
        at_middle = np.concatenate([np.zeros(0), *middle])
        return _Pieces(way, low, high, at_low, at_middle, at_high, torch.cat([self.x[:0], *found]), error)


class Method:
    complete = True

    def __init__(self, limits: Limits) -> None:
        self.limits = limits

    def attribute(
        self, outputs: Outputs, x: torch.Tensor, references: torch.Tensor, weights: torch.Tensor
    ) -> Attributions:
        rows = max(1, _HELD // max(_EXPECTED * references.shape[1] * x[0].numel(), 1))
        parts = [slice(start, start + rows) for start in range(0, len(x), rows)]
        return Attributions.together([self._of(outputs, x[part], references[part], weights[part]) for part in parts])

    def _of(self, outputs: Outputs, x: torch.Tensor, references: torch.Tensor, weights: torch.Tensor) -> Attributions:
        import torch

        rows, count = references.shape[:2]
        ways = _Ways(outputs, x, references, weights)
        way = np.arange(rows * count)
        at_start = outputs.values(begun(x, references).flatten(0, 1), weights.repeat_interleave(count, 0))
        at_row = outputs.values(x, weights)
        ends = np.concatenate([[START], np.arange(1, _PIECES) / _PIECES, [1.0]])
        between = ways.values(np.repeat(way, _PIECES - 1), np.tile(ends[1:-1], len(way))).reshape(len(way), -1)
        at = np.column_stack([at_start, between, np.repeat(at_row, count)])
        pieces = ways.measured(
            np.repeat(way, _PIECES),
            np.tile(ends[:-1], len(way)),
            np.tile(ends[1:], len(way)),
            at[:, :-1].ravel(),
            at[:, 1:].ravel(),
        )
        difference = at_row - at_start.reshape(rows, count).mean(1)
        allowed = self.limits.allowed(difference)
        steps = np.full(rows, _PIECES * _NODES * count)
        while True:
            row = pieces.way // count
            off = np.abs(pieces.error) / count
            mean = np.bincount(row, off, rows) / np.bincount(row, minlength=rows)
            uneven = np.bincount(row, off, rows) > _UNEVEN * allowed
            wrong = np.abs(np.bincount(row, pieces.error, rows)) / count > allowed
            halved = ((uneven | wrong) & (mean > 0))[row] & (off >= mean[row])
            pieces, more = self._halved(ways, pieces, halved, row, self.limits.steps * count - steps)
            if not more.any():
                break
            steps += more
        order = np.lexsort([pieces.low, pieces.way])
        starts = np.searchsorted(pieces.way[order], way)
        slopes = np.add.reduceat(pieces.slopes.double().cpu().numpy()[order], starts, 0)
        whole = torch.from_numpy(slopes).to(x.device).unflatten(0, (rows, count))
        contributions, hypothetical = attributed(x, references, whole)
        error = contributions.reshape(rows, -1).sum(1) - difference
        return Attributions(contributions, hypothetical, at_row, at_row - difference, error, steps // count)

    @staticmethod
    def _halved(
        ways: _Ways, pieces: _Pieces, chosen: np.ndarray, row: np.ndarray, left: np.ndarray
    ) -> tuple[_Pieces, np.ndarray]:
        """Pieces of which those `chosen`, bool (n,), are halved, as many of each row, int (n,), as gradients are `left`
        for it, int64 (rows,), those of the largest errors first; and how many gradients rows took, int64 (rows,)."""
        width, middle = pieces.high - pieces.low, (pieces.low + pieces.high) / 2
        moved = np.isnan(
            pieces.at_middle
        )  # their gradient is not of their middle: they get that before they are halved
        of_low, of_high = pieces.of_halves()
        single = (width < _SHORT) & ~moved
        keeps_low = single & (np.abs(of_low) < _STRAIGHT * np.abs(of_high))
        keeps_high = single & (np.abs(of_high) < _STRAIGHT * np.abs(of_low))
        both = np.where(width / 2 < _SHORT, 2, 2 * _NODES)
        cost = np.where(chosen, np.where(moved | keeps_low | keeps_high, 1, both), 0)
        order = np.lexsort([-np.abs(pieces.error), row])
        spent = np.concatenate([[0], np.cumsum(cost[order])])
        of_row = spent[1:] - spent[np.searchsorted(row[order], row[order])]
        chosen = chosen.copy()
        chosen[order] &= of_row <= left[row[order]]
        low, high = chosen & ~moved & ~keeps_low, chosen & ~moved & ~keeps_high
        again = chosen & moved
        made = ways.measured(
            np.concatenate([pieces.way[one] for one in (again, low, high)]),
            np.concatenate([pieces.low[again], pieces.low[low], middle[high]]),
            np.concatenate([pieces.high[again], middle[low], pieces.high[high]]),
            np.concatenate([pieces.at_low[again], pieces.at_low[low], pieces.at_middle[high]]),
            np.concatenate([pieces.at_high[again], pieces.at_middle[low], pieces.at_high[high]]),
        )
        for keeps, upper, error in ((keeps_low, False, of_low), (keeps_high, True, of_high)):
            made = made.joined(pieces.kept(chosen & keeps, upper, error), np.ones(len(made.way), bool))
        return pieces.joined(made, ~chosen), np.bincount(row, np.where(chosen, cost, 0), len(left)).astype(np.int64)
