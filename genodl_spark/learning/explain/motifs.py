"""Motifs: patterns of bases that contribute to a network's output again and again.

The steps are those of TF-MoDISco (Shrikumar et al. 2018, arXiv:1811.00416): find places that contribute more than
chance brings together (seqlets), compare them at every shift, group and align them, and take the mean.

- **Seqlets** are windows of a sequence whose contributions have a sum beyond a threshold, and that no higher one
  overlaps. The threshold is that beyond which chance has at most one window for twenty that are found. Chance is
  the same contributions with those of each row in another order, which follows from the row.
- Two of them are as alike as the cosine of their contributions, base by base, at the shift where that is largest;
  where strands do not matter, of either strand.
- **Groups.** The seqlet that most others are like begins a group; all that are like the group's mean belong to it,
  which is taken again from them, and so on a few times. Then the next one begins one of what is left. Groups whose
  means are alike become one.

Nothing depends on the order of rows: where two are equal, a row's number decides.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from genodl_spark.core import splitmix

CORE, HALF = 9, 10  # bases of a window that is summed; of a seqlet to either side of its middle
WIDTH = 2 * HALF + 1
SHIFT = 7  # positions that two seqlets may lie apart
CHANCE = 0.05  # windows by chance, for one that is found
ALIKE, SAME = 0.65, 0.8  # cosines of a seqlet and its group's mean; of the means of two groups that are one
MOST = 2000  # seqlets of each sign that are grouped
LEAST = 10  # seqlets of a motif
_ROUNDS = 4  # of taking a group's mean anew
_BEYOND = 0.2  # of the largest contribution of a position: what the ends of a motif have at least
_IUPAC = {"A": "A", "C": "C", "G": "G", "T": "T", "AG": "R", "CT": "Y", "CG": "S", "AT": "W", "GT": "K", "AC": "M"}


@dataclass(frozen=True)
class Motif:
    """`sign`: 1 where it raises the output, -1 where it lowers it. `probabilities`, `contributions` float64 (W, 4):
    of A, C, G, T, shares and mean contributions. `row`, `start` int64 (n,), `turned` bool (n,): where it stands,
    from 0, and whether on the other strand."""

    sign: int
    probabilities: np.ndarray
    contributions: np.ndarray
    row: np.ndarray
    start: np.ndarray
    turned: np.ndarray

    @property
    def seqlets(self) -> int:
        return len(self.row)

    @property
    def entities(self) -> int:
        return len(np.unique(self.row))

    @property
    def consensus(self) -> str:
        """Its bases by IUPAC, as Cavener (1987, Nucleic Acids Res 15:1353) has it: one that more than half have and
        twice as many as the next, two that more than three quarters have, else N."""
        found = []
        for shares in self.probabilities:
            order = np.argsort(-shares, kind="stable")
            first, second = shares[order[:2]]
            if first > 0.5 and first > 2 * second:
                found.append("ACGT"[order[0]])
            elif first + second > 0.75:
                found.append(_IUPAC["".join(sorted("ACGT"[i] for i in order[:2]))])
            else:
                found.append("N")
        return "".join(found)

    @property
    def information(self) -> np.ndarray:
        """Bits that each position tells, float64 (W,), and a logo draws."""
        shares = self.probabilities
        bits: np.ndarray = 2 + np.where(shares > 0, shares * np.log2(np.maximum(shares, 1e-300)), 0).sum(1)
        return bits


def find(
    codes: np.ndarray, contributions: np.ndarray, rows: np.ndarray, both_strands: bool
) -> tuple[list[Motif], float, float]:
    """Motifs of N sequences, those that most seqlets have first, those that raise the output before the others; and the
    thresholds of both, infinite where nothing is beyond chance.

    `codes` int8 (N, L): base codes, -1 beyond a sequence's ends and where unknown. `contributions` float (N, L),
    0 there. `rows` uint64 (N,): a number of each row's own, which decides about chance and ties.
    `both_strands`: whether a motif may stand on either.
    """
    order = np.argsort(rows, kind="stable")
    codes, values = codes[order], np.where(codes[order] >= 0, contributions[order].astype(np.float64), 0.0)
    numbers = rows[order]
    by_chance = _reordered(values, codes >= 0, numbers)
    found: list[Motif] = []
    thresholds = []
    for sign in (1, -1):
        sums, chance = sign * _window_sums(values, codes), sign * _window_sums(by_chance, codes)
        thresholds.append(threshold(sums, chance))
        row, middle = _peaks(sums, thresholds[-1])
        groups = _groups(codes, sign * values, row, middle, both_strands)
        made = [_motif(codes, values, sign, group, both_strands, order) for group in groups]
        made = [motif for motif in made if motif.seqlets >= LEAST]
        found += sorted(made, key=lambda motif: (-motif.seqlets, motif.consensus))
    return found, thresholds[0], thresholds[1]


def _reordered(values: np.ndarray, known: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Values (N, L) of each row in another order over its known positions, which a row's number decides."""
    length = values.shape[1]
    place = np.arange(length, dtype=np.uint64)
    keys = splitmix.keys_of(rows, 0x5EED)
    drawn = splitmix.mixed(keys[:, None] + place * splitmix.STEP) >> np.uint64(1)
    # known positions come first, in a random order; and so they are dealt to the known positions in their own order
    random = np.argsort(np.where(known, drawn, np.uint64(1 << 63)), 1, kind="stable")
    own = np.argsort(~known, 1, kind="stable")
    out = np.zeros_like(values)
    np.put_along_axis(out, own, np.take_along_axis(values, random, 1), 1)
    return out


def _window_sums(values: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Sums over CORE positions, (N, L - CORE + 1); NaN where one is no known base."""
    if values.shape[1] < CORE:
        return np.empty((len(values), 0))

    def over(of: np.ndarray) -> np.ndarray:
        total = np.concatenate([np.zeros((len(of), 1)), np.cumsum(of, 1)], 1)
        return total[:, CORE:] - total[:, :-CORE]

    return np.where(over((codes < 0).astype(np.float64)) > 0.5, np.nan, over(values))


def threshold(sums: np.ndarray, chance: np.ndarray) -> float:
    """The least sum above 0 beyond which there are `CHANCE` times as many by chance as are found, at most;
    infinite where there is none."""
    found, by_chance = (np.sort(of[of > 0]) for of in (sums, chance))
    if not len(found):
        return float("inf")
    above = len(found) - np.searchsorted(found, found, "left")
    above_by_chance = len(by_chance) - np.searchsorted(by_chance, found, "left")
    good = above_by_chance <= CHANCE * above
    return float(found[good.argmax()]) if good.any() else float("inf")


def _peaks(sums: np.ndarray, least: float) -> tuple[np.ndarray, np.ndarray]:
    """Rows and middles of windows with a sum of `least` or more that no higher one of the row overlaps, the highest
    first; at most MOST."""
    left = np.where(np.isfinite(sums), sums, -np.inf)
    rows: list[np.ndarray] = []
    starts: list[np.ndarray] = []
    heights: list[np.ndarray] = []
    place = np.arange(left.shape[1])
    active = np.flatnonzero((left >= least).any(1)) if left.shape[1] and np.isfinite(least) else np.zeros(0, np.int64)
    while len(active):
        best = left[active].argmax(1)
        height = left[active, best]
        active, best, height = (of[height >= least] for of in (active, best, height))
        for of, more in ((rows, active), (starts, best), (heights, height)):
            of.append(more)
        near = np.abs(place - best[:, None]) < CORE
        left[active] = np.where(near, -np.inf, left[active])
    row, start, height = (np.concatenate([np.zeros(0, np.int64), *of]) for of in (rows, starts, heights))
    order = np.lexsort([start, row, -height])[:MOST]
    return row[order].astype(np.int64), start[order].astype(np.int64) + CORE // 2


@dataclass
class _Group:
    """Seqlets of a group: their rows, the positions where the group's window begins in them, whether on the other
    strand."""

    row: np.ndarray
    start: np.ndarray
    turned: np.ndarray


def _cut(codes: np.ndarray, values: np.ndarray, group: _Group, width: int, before: int = 0) -> np.ndarray:
    """Contributions of bases, (n, width, 4), in windows that begin `before` positions ahead of the group's and are
    `width` long, on their strand; 0 beyond a sequence. With values of 1 they are the indicators of bases."""
    away = np.arange(width) - before
    # the group's window is WIDTH long; on the other strand it is read from its end
    place = np.where(group.turned[:, None], group.start[:, None] + WIDTH - 1 - away, group.start[:, None] + away)
    inside = (place >= 0) & (place < codes.shape[1])
    at = np.clip(place, 0, codes.shape[1] - 1)
    code, value = codes[group.row[:, None], at], values[group.row[:, None], at]
    known = inside & (code >= 0)
    base = np.where(group.turned[:, None], 3 - code, code)
    out = np.zeros((*place.shape, 4))
    np.put_along_axis(
        out, np.where(known, base, 0)[..., None].astype(np.int64), np.where(known, value, 0)[..., None], 2
    )
    return out


def _shifted(profiles: np.ndarray, by: int) -> np.ndarray:
    """Profiles (n, W, 4) moved by so many positions to the right, 0 coming in."""
    out = np.zeros_like(profiles)
    width = profiles.shape[1]
    if by >= 0:
        out[:, by:] = profiles[:, : width - by]
    else:
        out[:, :by] = profiles[:, -by:]
    return out


def _best_fit(
    profiles: np.ndarray, against: np.ndarray, both_strands: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cosines of each of profiles (n, W, 4) with each of `against` (m, W, 4) where they fit best, (n, m), by how much
    the former are moved to the right for that, and whether they are turned first."""

    def flat(of: np.ndarray) -> np.ndarray:
        sizes = np.sqrt((of**2).sum((1, 2), keepdims=True))
        found: np.ndarray = (of / np.where(sizes > 0, sizes, 1)).reshape(len(of), -1).astype(np.float32)
        return found

    targets = flat(against).T
    sizes = np.sqrt((profiles**2).sum((1, 2), keepdims=True))
    unit = profiles / np.where(sizes > 0, sizes, 1)
    best = np.full((len(profiles), len(against)), -np.inf, np.float32)
    shift, turn = np.zeros(best.shape, np.int8), np.zeros(best.shape, bool)
    # small shifts first, so that of equal fits the nearest is taken
    for by in sorted(range(-SHIFT, SHIFT + 1), key=lambda by: (abs(by), by)):
        for turned in (False, True) if both_strands else (False,):
            moved = _shifted(unit[:, ::-1, ::-1] if turned else unit, by)
            fit = moved.reshape(len(unit), -1).astype(np.float32) @ targets
            better = fit > best + 1e-6
            best[better], shift[better], turn[better] = fit[better], by, turned
    return best, shift.astype(np.int64), turn


def _moved(group: _Group, shift: np.ndarray, turn: np.ndarray) -> _Group:
    """Seqlets whose windows are turned, and then moved so that what is in them comes to lie further to the right."""
    turned = group.turned ^ turn
    return _Group(group.row, group.start + np.where(turned, shift, -shift), turned)


def _those(group: _Group, chosen: np.ndarray) -> _Group:
    return _Group(group.row[chosen], group.start[chosen], group.turned[chosen])


def _groups(
    codes: np.ndarray, values: np.ndarray, row: np.ndarray, middle: np.ndarray, both_strands: bool
) -> list[_Group]:
    """Seqlets by what they are like, each group aligned."""
    if len(row) < LEAST:
        return []
    seqlets = _Group(row, middle - HALF, np.zeros(len(row), bool))
    profiles = _cut(codes, values, seqlets, WIDTH)
    pairs, pair_shift, pair_turn = _best_fit(profiles, profiles, both_strands)
    near, left = np.where(pairs >= ALIKE, pairs, 0), np.ones(len(row), bool)
    groups: list[_Group] = []
    while left.sum() >= LEAST:
        first = int(np.where(left, near @ left, -1).argmax())
        inside = left & (pairs[:, first] >= ALIKE)
        moved = _moved(seqlets, pair_shift[:, first], pair_turn[:, first])
        for _ in range(_ROUNDS):
            if inside.sum() < LEAST:
                break
            mean = _cut(codes, values, _those(moved, inside), WIDTH).mean(0, keepdims=True)
            like, shift, turn = _best_fit(profiles, mean, both_strands)
            inside, moved = left & (like[:, 0] >= ALIKE), _moved(seqlets, shift[:, 0], turn[:, 0])
        if inside.sum() >= LEAST:
            groups.append(_those(moved, inside))
        inside[first] = True  # it stands for nothing, though others may be like another
        left &= ~inside
    return _merged(codes, values, groups, both_strands)


def _merged(codes: np.ndarray, values: np.ndarray, groups: list[_Group], both_strands: bool) -> list[_Group]:
    """Groups whose means are alike as one, the largest first."""
    kept: list[_Group] = []
    for group in sorted(groups, key=lambda one: -len(one.row)):
        mean = _cut(codes, values, group, WIDTH).mean(0, keepdims=True)
        if kept:
            means = np.concatenate([_cut(codes, values, one, WIDTH).mean(0, keepdims=True) for one in kept])
            like, shift, turn = _best_fit(mean, means, both_strands)
            into = int(like[0].argmax())
            if like[0, into] >= SAME:
                moved = _moved(group, shift[0, into], turn[0, into])
                kept[into] = _Group(
                    np.concatenate([kept[into].row, moved.row]),
                    np.concatenate([kept[into].start, moved.start]),
                    np.concatenate([kept[into].turned, moved.turned]),
                )
                continue
        kept.append(group)
    return kept


def _motif(
    codes: np.ndarray, values: np.ndarray, sign: int, group: _Group, both_strands: bool, order: np.ndarray
) -> Motif:
    """The mean of a group, between the ends where it contributes; `order`: which row each row was."""
    places = np.unique(np.column_stack([group.row, group.start, group.turned]), axis=0)  # a place may be found twice
    group = _Group(places[:, 0], places[:, 1], places[:, 2].astype(bool))
    if both_strands and group.turned.mean() > 0.5:  # as most of them stand
        group = _Group(group.row, group.start, ~group.turned)
    wide = WIDTH + 2 * SHIFT
    mean = _cut(codes, values, group, wide, SHIFT).mean(0)
    size = np.abs(mean.sum(1))
    kept = np.flatnonzero(size >= _BEYOND * size.max())
    first, last = int(kept[0]), int(kept[-1]) + 1
    counts = _cut(codes, np.ones_like(values), group, wide, SHIFT).sum(0)[first:last]
    shares = (counts + 0.25) / (counts.sum(1, keepdims=True) + 1)
    begins = np.where(group.turned, group.start + WIDTH - 1 + SHIFT - (last - 1), group.start - SHIFT + first)
    return Motif(sign, shares, mean[first:last], order[group.row], begins, group.turned)
