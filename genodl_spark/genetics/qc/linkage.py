"""Pruning of variants in linkage disequilibrium, along a contig. Pure NumPy."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from typing import Any

import numpy as np

from genodl_spark.genetics.qc.counts import HET, HOM_ALT, UNCALLED, common, histogram, indicator


@dataclass(frozen=True)
class _Coded:
    """Variants ready to be correlated. `ids` int64 (V,): which. `values` float32 (V, S): dosage - 1, 0 where missing.
    `total`, `squares`, `lost` float64 (V,): sums of values and their squares, missing calls. Where any is missing,
    `gone` is their factor (V, S), and `across` float32 (S, 2V) holds the values and their squares."""

    ids: np.ndarray
    values: np.ndarray
    total: np.ndarray
    squares: np.ndarray
    lost: np.ndarray
    gone: Any = None
    across: Any = None

    @classmethod
    def of(cls, ids: np.ndarray, dosages: np.ndarray, counts: np.ndarray) -> _Coded:
        values = dosages.astype(np.float32)
        values -= 1
        hom_ref, _, hom_alt, lost = counts.T.astype(np.float64)
        sums = (hom_alt - hom_ref, hom_alt + hom_ref, lost)
        if not lost.any():
            return cls(ids, values, *sums)
        absent = dosages < 0
        values[absent] = 0
        return cls(ids, values, *sums, indicator(absent), _across(values))

    def take(self, kept: np.ndarray) -> _Coded:
        gone, across = (None, None) if self.gone is None else (self.gone[kept], self.across[:, np.tile(kept, 2)])
        return _Coded(
            self.ids[kept], self.values[kept], self.total[kept], self.squares[kept], self.lost[kept], gone, across
        )


def _correlated(a: _Coded, b: _Coded, threshold: float) -> np.ndarray:
    """Whether the squared correlation of dosages, over samples called in both, is above `threshold`,
    bool (A, B). All sums are exact."""
    n: Any = float(a.values.shape[1])
    product = (a.values @ b.values.T).astype(np.float64)
    total_a, squares_a, total_b, squares_b = a.total[:, None], a.squares[:, None], b.total[None, :], b.squares[None, :]
    if a.gone is not None or b.gone is not None:
        n = n - a.lost[:, None] - b.lost[None, :]
        if a.gone is not None and b.gone is not None:
            n = n + common(a.gone, b.gone)
        # What the one's values add up to where the other is missing.
        if b.gone is not None:
            total, squares = np.split(b.gone @ (a.across if a.across is not None else _across(a.values)), 2, axis=1)
            total_a, squares_a = total_a - total.T, squares_a - squares.T
        if a.gone is not None:
            total, squares = np.split(a.gone @ (b.across if b.across is not None else _across(b.values)), 2, axis=1)
            total_b, squares_b = total_b - total, squares_b - squares
    covariance = product * n - total_a * total_b
    return np.asarray(covariance**2 > threshold * (squares_a * n - total_a**2) * (squares_b * n - total_b**2))


def _across(values: np.ndarray) -> np.ndarray:
    return np.concatenate([values, np.square(values)]).T.copy()


class Pruner:
    """Thins the variants of one contig, given in the order of their positions,
    to some in approximate linkage equilibrium.

    As PLINK's --indep-pairwise: a window goes along the contig; of two variants in it whose squared correlation
    of dosages, over samples called in both, is above `threshold`, the one with the rarer minor allele is removed, or
    the later of two alike. Variants of one genotype are removed. `window`: variants, or base pairs where `by_position`;
    `step`: variants that the window moves by (1 where `by_position`). Genotypes are held only while their window lasts.
    """

    _BLOCK = 64  # variants that are correlated with those before at once

    def __init__(self, window: int, step: int, threshold: float, by_position: bool = False) -> None:
        self.window, self.step, self.threshold, self.by_position = (
            window,
            1 if by_position else min(step, window),
            threshold,
            by_position,
        )
        self._removed: list[bool] = []
        self._major: list[float] = []  # frequency of the commoner allele
        self._positions: list[int] = []
        self._partners: list[list[int]] = []  # per variant the earlier ones that it is correlated with
        self._start = self._end = 0  # the window before
        self._held: list[_Coded] = []  # variants that a window may still hold

    def add(self, dosages: np.ndarray, positions: np.ndarray) -> None:
        """Takes the next variants, int8 (V, S) at positions int (V,)."""
        for start in range(0, len(dosages), self._BLOCK):
            block = dosages[start : start + self._BLOCK]
            self._correlate(block, positions[start : start + self._BLOCK])
            self._advance(False)
            self._held = [self._living(held) for held in self._held if held.ids[-1] >= self._start]

    def _living(self, held: _Coded) -> _Coded:
        alive = np.array([not self._removed[i] for i in held.ids.tolist()], bool)
        return held.take(alive) if 0 < alive.sum() <= len(alive) // 2 else held

    def finish(self) -> np.ndarray:
        """Whether each variant stays, bool (V,)."""
        self._advance(True)
        return ~np.array(self._removed, bool)

    def _correlate(self, block: np.ndarray, positions: np.ndarray) -> None:
        first = len(self._removed)
        counts = histogram(block)
        called = counts[:, :UNCALLED].sum(1)
        frequency = (counts[:, HET] + 2 * counts[:, HOM_ALT]) / np.maximum(2 * called, 1)
        varies = (counts[:, :UNCALLED] > 0).sum(1) > 1
        self._major += np.maximum(frequency, 1 - frequency).tolist()
        self._positions += positions.tolist()
        self._removed += (~varies).tolist()
        self._partners += [[] for _ in range(len(varies))]
        if not varies.any():
            return
        new = _Coded.of(first + np.flatnonzero(varies), block[varies], counts[varies])
        self._held.append(new)
        for held in self._held:
            later, earlier = np.nonzero(_correlated(new, held, self.threshold))
            inside = held.ids[earlier] < new.ids[later]
            for j, i in zip(new.ids[later[inside]].tolist(), held.ids[earlier[inside]].tolist(), strict=True):
                self._partners[j].append(i)

    def _advance(self, ended: bool) -> None:
        """Goes through the windows that are known to be whole."""
        total = len(self._removed)
        while self._end < total:
            start, end = self._bounds(total)
            if end > total or (end == total and self.by_position):  # more variants may belong to it
                if not ended:
                    return
                end = total
            self._thin(start, end)
            for j in range(self._end, end):
                self._partners[j] = []
            self._start, self._end = start, end

    def _bounds(self, total: int) -> tuple[int, int]:
        """The next window: it holds at least one new variant. The end may lie behind the variants that are there."""
        if not self.by_position:
            start = self._start + self.step if self._end else 0
            return start, start + self.window
        at = self._positions
        start = bisect_left(at, at[self._end] - self.window, self._start + 1) if self._end else 0
        return start, bisect_right(at, at[start] + self.window, self._end + 1)

    def _thin(self, start: int, end: int) -> None:
        """Removes from the window start..end until no two in it are correlated;
        only its last variants have not been compared yet."""
        removed, major = self._removed, self._major
        pending: dict[int, list[int]] = {}
        for j in range(end - 1, self._end - 1, -1):
            if not removed[j]:
                for i in self._partners[j]:
                    if i >= start and not removed[i]:
                        pending.setdefault(i, []).append(j)
        order = sorted(pending)
        found = bool(order)
        while found:
            found = False
            for i in order:
                rest = pending[i]
                while rest and removed[rest[-1]]:
                    rest.pop()
                if removed[i] or not rest:
                    continue
                found = True
                if major[i] > major[rest[-1]] * (1 + 2.0**-44):  # rounding of a frequency decides nothing
                    removed[i] = True
                else:
                    removed[rest.pop()] = True
