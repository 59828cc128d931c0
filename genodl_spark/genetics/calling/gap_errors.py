"""How often reads have gaps by error in short repeats, fitted to the reads at hand.

Libraries differ: with PCR a run of ten bases slips in one of some ten reads, without in one of some hundred. Reads that
span a repeat are counted by its period and units, with those that have a gap of whole units there. A repeat may as well
hold a variant, of which half or all reads have a gap: each is weighed by how likely it holds none. Where few reads are,
rates of the literature stand, scaled to what other repeats of the period show; more units never slip less. Positions
are 0-based, half-open.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from genodl_spark.genetics.calling.alleles import Pileup
from genodl_spark.genetics.calling.haplotypes import EXTEND, PERIODS, UNITS, gap_qualities
from genodl_spark.genetics.calling.reads import Reads

FITTED_TILES = 64  # of a file, all over the genome, that a table is fitted to
COLUMNS = ("period", "units", "spanning", "gapped", "repeats")
_BESIDE = 3  # bases on either side that a read has to cover, too
_LEAST_SPANNING = 6  # reads; of fewer it is not told whether there is a variant
_WORTH, _MOST_WORTH = 2.0, 1_000.0  # reads with gaps that what is expected counts as; reads at most
_VARIANT = 1e-3  # a repeat that holds an indel, per unit
_ROUNDS = 6
_LOWEST, _HIGHEST = 3, 45  # of the table: a gap as likely as none; and what it is without a repeat
_HIGHEST_RATE = 0.4


def counted(pileup: Pileup, reads: Reads) -> np.ndarray:
    """Repeats of a pileup, int64 (n, 5), see COLUMNS: so many `repeats` of that period and units that so many reads
    span, so many of which have a gap of whole units. Period 1 with one unit: bases in no repeat, each alone.
    `reads`: those of the pileup."""
    found = []
    inside = np.zeros(len(pileup.reference) + 1, bool)
    for period in range(1, PERIODS + 1):
        start, end = _repeats(pileup.reference, period)
        for s, e in zip(start.tolist(), end.tolist(), strict=True):
            inside[s:e] = True
        found.append(_counts(pileup, reads, start, end, period))
    alone = np.flatnonzero(~inside[:-1] & (pileup.reference != ord("N")))
    found.append(_counts(pileup, reads, alone, alone + 1, 1, units_of_one=False))
    return gathered(found)


def gathered(counts: Iterable[np.ndarray]) -> np.ndarray:
    """The same of several pileups together, in order."""
    rows = np.concatenate([np.zeros((0, len(COLUMNS)), np.int64), *counts])
    kinds, of = np.unique(rows[:, :4], axis=0, return_inverse=True)
    repeats = np.bincount(of.ravel(), rows[:, 4], len(kinds)).astype(np.int64)
    return np.column_stack([kinds, repeats])


def fitted_gaps(counts: np.ndarray) -> np.ndarray:
    """The table of `haplotypes.gap_qualities`, uint8 (6, 32), by reads that were `counted`."""
    literature = gap_qualities().astype(float)
    table = np.empty((PERIODS, UNITS), np.uint8)
    for period in range(1, PERIODS + 1):
        slips, low = _slips(period), 1 if period == 1 else 2
        known = np.minimum(10 ** (-literature[period - 1] / 10) * slips, _HIGHEST_RATE)
        expected = known
        cells = [
            counts[(counts[:, 0] == period) & (counts[:, 1] == units) & (counts[:, 2] >= _LEAST_SPANNING)]
            for units in range(UNITS)
        ]
        repeated = literature[period - 1] < _HIGHEST
        for _ in range(_ROUNDS):
            # how the library differs from the literature as a whole, and then each number of units from that
            found = np.array([_without_variants(c, e, u) for u, (c, e) in enumerate(zip(cells, expected, strict=True))])
            gapped, spanning = found[:, 0], found[:, 1]
            scale = (gapped[repeated].sum() + _WORTH) / ((spanning * known)[repeated].sum() + _WORTH)
            expected = np.where(repeated, np.minimum(known * scale, _HIGHEST_RATE), known)
        weight = _weight(expected)
        rate = _rising((gapped + weight * expected)[low:], (spanning + weight)[low:])
        lowest = _LOWEST if period == 1 else 0
        table[period - 1, low:] = np.clip(-10 * np.log10(rate / slips), lowest, _HIGHEST).round()
        table[period - 1, :low] = _HIGHEST if period > 1 else table[0, low]
    return table


def _weight(expected: np.ndarray | float) -> np.ndarray:
    """How many reads what is expected counts as."""
    found: np.ndarray = np.minimum(_WORTH / np.asarray(expected), _MOST_WORTH)
    return found


def _slips(period: int) -> float:
    """How often a read has a gap of one or more units, in units of the chance that a gap opens: it may insert or
    delete, and goes on as long as the unit is."""
    longer = EXTEND ** (period - 1)
    return float(2 * longer * (1 - EXTEND) / (1 - EXTEND**period))


def _repeats(reference: np.ndarray, period: int) -> tuple[np.ndarray, np.ndarray]:
    """Starts and ends of all runs of two units or more that repeat after `period` bases and after no fewer."""
    same = reference[period:] == reference[:-period] if len(reference) > period else np.zeros(0, bool)
    same &= reference[period:] != ord("N")
    steps = np.diff(np.concatenate([[0], same.view(np.int8), [0]]))
    start, end = np.flatnonzero(steps == 1), np.flatnonzero(steps == -1) + period
    kept = end - start >= 2 * period
    for shorter in range(1, period):
        if period % shorter == 0:
            unit = start[kept][:, None] + np.arange(period - shorter)
            smaller = (reference[unit] == reference[unit + shorter]).all(1)
            kept[np.flatnonzero(kept)[smaller]] = False
    return start[kept], end[kept]


def _counts(
    pileup: Pileup, reads: Reads, start: np.ndarray, end: np.ndarray, period: int, units_of_one: bool = True
) -> np.ndarray:
    left, right = start + pileup.start - _BESIDE, end + pileup.start + _BESIDE
    before, over = np.searchsorted(np.sort(reads.pos), left, "right"), np.searchsorted(np.sort(reads.end), right)
    spanning = np.maximum(before - over, 0)
    at = np.searchsorted(start, pileup.where + 1 - pileup.start) if len(start) else np.zeros(len(pileup.where), int)
    at = np.minimum(at, max(len(start) - 1, 0))
    fits = np.zeros(len(pileup.where), bool)
    if len(start):
        # an insertion or deletion of whole units stands leftmost, before the first
        fits = (start[at] == pileup.where + 1 - pileup.start) & (np.abs(pileup.size) % period == 0)
        fits &= (reads.pos[pileup.of] <= left[at]) & (reads.end[pileup.of] >= right[at])
        if units_of_one:
            fits &= _of_units(pileup, start[at], period)
    gapped = np.bincount(at[fits], minlength=len(start))
    units = np.minimum((end - start) // period, UNITS - 1)
    kept = spanning > 0
    columns = [np.full(len(start), period), units, spanning, np.minimum(gapped, spanning), np.ones(len(start), int)]
    return np.column_stack(columns)[kept].astype(np.int64)


def _of_units(pileup: Pileup, start: np.ndarray, period: int) -> np.ndarray:
    """Whether what each event inserts are the units of the repeat at `start`; of deletions it always is."""
    sizes = np.maximum(pileup.size, 0).astype(np.int64)
    event = np.repeat(np.arange(len(sizes)), sizes)
    place = np.arange(len(event)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    unit = np.minimum(start[event] + place % period, len(pileup.reference) - 1)
    wrong = pileup.pool[pileup.text[event] + place] != pileup.reference[unit]
    found: np.ndarray = np.bincount(event[wrong], minlength=len(sizes)) == 0
    return found


def _without_variants(counts: np.ndarray, rate: float, units: int) -> tuple[float, float]:
    """Reads with a gap and reads in all at repeats that hold no variant: each counts as it is likely to hold none, with
    gaps by error, rather than one on one chromosome or on both (expectation and maximisation over `rate`)."""
    if not len(counts):
        return 0.0, 0.0
    n, k, weight = (counts[:, c].astype(float) for c in (2, 3, 4))
    variant = min(_VARIANT * units, 0.2)
    expected, weighed = rate, float(_weight(rate))
    share = np.zeros(len(n))
    for _ in range(_ROUNDS):
        none = k * np.log(rate) + (n - k) * np.log1p(-rate) + np.log1p(-1.5 * variant)
        half = (1 + rate) / 2
        one = k * np.log(half) + (n - k) * np.log1p(-half) + np.log(variant)
        both = k * np.log1p(-rate) + (n - k) * np.log(rate) + np.log(variant / 2)
        share = np.exp(none - np.logaddexp(np.logaddexp(none, one), both))
        counted_k, counted_n = (weight * share * k).sum(), (weight * share * n).sum()
        rate = min((counted_k + weighed * expected) / (counted_n + weighed), _HIGHEST_RATE)
    return float((weight * share * k).sum()), float((weight * share * n).sum())


def _rising(gapped: np.ndarray, spanning: np.ndarray) -> np.ndarray:
    """Rates that nowhere fall, the likeliest (pooled neighbours: Ayer et al. 1955, doi:10.1214/aoms/1177728423)."""
    pooled: list[tuple[float, float, int]] = []
    for k, n in zip(gapped.tolist(), spanning.tolist(), strict=True):
        one = (k, n, 1)
        while pooled and pooled[-1][0] / pooled[-1][1] > one[0] / one[1]:
            last = pooled.pop()
            one = (last[0] + one[0], last[1] + one[1], last[2] + one[2])
        pooled.append(one)
    return np.concatenate([np.full(count, k / n) for k, n, count in pooled])
