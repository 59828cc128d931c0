"""Tables of gaps by error against loops over reads, and fitted to reads whose errors were planted."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest

from genodl_spark.genetics.calling.alleles import piled
from genodl_spark.genetics.calling.gap_errors import counted, fitted_gaps, gathered
from genodl_spark.genetics.calling.haplotypes import EXTEND, gap_qualities
from genodl_spark.genetics.calling.tile import calls_of
from tests.genetics.calling.aligned import Read, letters, random_reference, reads
from tests.genetics.calling.test_haplotypes import forward

LENGTH, UNITS = 12, 12


def with_repeats() -> str:
    """One of each period and number of units; and runs of 12 A."""
    parts, random = [], np.random.default_rng(3)
    for number in range(60):
        period, units = 1 + number % 6, 2 + number // 6
        unit = random_reference(period, int(random.integers(10**6)))
        parts += [random_reference(30, 1_000 + number), unit * units]
    return "".join(parts)


def repeats(reference: str) -> list[tuple[int, int, int]]:
    """Start, end and period of every run of two units or more that is no run of a shorter period."""
    found = []
    for period in range(1, 7):
        start = 0
        while start + period < len(reference):
            end = start
            while end + period < len(reference) and reference[end] == reference[end + period] != "N":
                end += 1
            unit = reference[start : start + period]
            smaller = any(unit == unit[:d] * (period // d) for d in range(1, period) if period % d == 0)
            if end - start >= period and not smaller:
                found.append((start, end + period, period))
            start = max(end, start + 1)
    return found


def test_counts_are_those_of_a_loop_over_reads() -> None:
    reference = with_repeats()
    random = np.random.default_rng(5)
    runs, rows = repeats(reference), []
    for _ in range(900):
        start = int(random.integers(0, len(reference) - 150))
        row = Read(start, "100M", reference[start : start + 100])
        near = [r for r in runs if start + 8 < r[0] and r[1] < start + 88]
        if near and random.random() < 0.7:
            s, e, period = near[random.integers(len(near))]
            size = period * int(random.integers(1, 3)) + int(random.random() < 0.15)
            before = s - start
            if random.random() < 0.5 and e - s > size:
                row = Read(
                    start,
                    f"{before}M{size}D{100 - before}M",
                    reference[start:s] + reference[s + size : start + 100 + size],
                )
            else:
                unit = (reference[s : s + period] * 9)[:size] if random.random() < 0.8 else random_reference(size, 1)
                row = Read(
                    start, f"{before}M{size}I{100 - before}M", reference[start:s] + unit + reference[s : start + 100]
                )
        rows.append(row)
    rows.sort(key=lambda row: row.pos)
    expected: Counter[tuple[int, int, int, int]] = Counter()
    inside = {p for s, e, _ in runs for p in range(s, e)}
    places = [*runs, *((p, p + 1, 0) for p in range(len(reference)) if p not in inside)]
    found = reads(rows)
    pileup = piled(found, letters(reference), 0, 10)
    events = [
        (rows[r], w, n, pileup.pool[t : t + max(n, 0)].tobytes().decode())
        for r, w, n, t in zip(
            pileup.of.tolist(), pileup.where.tolist(), pileup.size.tolist(), pileup.text.tolist(), strict=True
        )
    ]
    ends = {id(row): row.pos + sum(int(n) for n, kind in re.findall(r"(\d+)([MD])", row.cigar)) for row in rows}
    for s, e, period in places:
        over = [row for row in rows if row.pos <= s - 3 and ends[id(row)] >= e + 3]
        gapped = 0
        for row, where, size, text in events:
            whole = period == 0 or (
                size % period == 0 and (size < 0 or text == (reference[s : s + period] * size)[:size])
            )
            gapped += where == s - 1 and whole and any(row is one for one in over)
        if over:
            expected[max(period, 1), min((e - s) // max(period, 1), 31), len(over), gapped] += 1
    counts = counted(pileup, found)
    assert {tuple(row[:4]): row[4] for row in counts.tolist()} == dict(expected)
    assert counts[:, 3].sum() > 200 and len(counts) == len(np.unique(counts[:, :4], axis=0))
    halves = [counts[::2], counts[1::2][::-1]]
    assert np.array_equal(gathered(halves), counts) and np.array_equal(
        gathered(halves[::-1] + halves)[:, 4], 2 * counts[:, 4]
    )


def test_without_reads_it_is_the_table_of_literature() -> None:
    empty = gathered([])
    assert empty.shape == (0, 5) and np.array_equal(fitted_gaps(empty), gap_qualities())
    nothing = counted(piled(reads([]), letters("ACGT" * 9), 0, 10), reads([]))
    assert len(nothing) == 0 and len(counted(piled(reads([]), letters("A"), 0, 10), reads([]))) == 0


@pytest.mark.parametrize("period", [1, 2, 3])
def test_planted_rates_come_back_though_some_repeats_hold_variants(period: int) -> None:
    random = np.random.default_rng(period)
    slips = 2 * EXTEND ** (period - 1) * (1 - EXTEND) / (1 - EXTEND**period)
    rates = {units: min(0.001 * 1.6 ** (units - 2), 0.15) * slips for units in range(2, 16)}
    rows, of_each = [], 2_000 * period
    for units, rate in rates.items():
        n, kind = random.poisson(30, of_each), random.random(of_each)
        chance = np.where(kind > 0.06, rate, np.where(kind > 0.02, (1 + rate) / 2, 1 - rate))
        columns = [
            np.full(of_each, period),
            np.full(of_each, units),
            n,
            random.binomial(n, chance),
            np.ones(of_each, int),
        ]
        rows += np.column_stack(columns).tolist()
    table = fitted_gaps(gathered([np.array(rows)]))
    seen = {units: rate for units, rate in rates.items() if rate * 30 * of_each > 60}
    assert len(seen) >= 5
    for units, rate in seen.items():
        assert abs(table[period - 1, units] + 10 * np.log10(rate / slips)) < 1.6, units
    assert (np.diff(table.astype(int), axis=1) <= 0).all()
    others = [p for p in range(1, 7) if p != period]
    assert np.array_equal(table[[p - 1 for p in others]], gap_qualities()[[p - 1 for p in others]])
    assert np.array_equal(table, fitted_gaps(gathered([np.array(rows[::-1])])))


def test_few_reads_change_little_and_more_units_never_slip_less() -> None:
    few = np.array([[1, 10, 30, 1, 1], [1, 11, 30, 0, 4]])
    assert np.abs(fitted_gaps(few).astype(int) - gap_qualities()).max() <= 4
    falling = np.array([[1, 8, 30, 2, 900], [1, 9, 30, 0, 900], [1, 10, 30, 1, 900]])
    table = fitted_gaps(falling).astype(int)[0]
    assert (np.diff(table) <= 0).all() and table[8] == table[9] == table[10]


def test_a_rate_is_what_the_likelihood_makes_of_its_quality() -> None:
    """A read that lacks a unit of a repeat, against one that has all: as likely as the table says."""
    for period, units in ((1, 12), (2, 12), (3, 12)):
        unit = "ACG"[:period]
        left, right = random_reference(30, 1) + "T", "T" + random_reference(30, 2)
        whole, short = left + unit * units + right, left + unit * (units - 1) + right
        one = forward(short, [40] * len(short), whole, -9, 9) - forward(whole, [40] * len(whole), whole, -9, 9)
        chance = 10 ** (-float(gap_qualities()[period - 1, units]) / 10) * EXTEND ** (period - 1) * (1 - EXTEND)
        assert np.exp(one) == pytest.approx(chance, rel=0.25)


def slipping(reference: str, runs: list[int], chance: float, seed: int, depth: int = 30) -> list[Read]:
    """Reads that lack a base of each run of 12, at `runs`, by chance."""
    random = np.random.default_rng(seed)
    rows = []
    for start in random.integers(0, len(reference) - 100, depth * len(reference) // 100).tolist():
        at, steps, bases = start, [], ""
        for run in (r for r in runs if start + 5 < r and r + LENGTH + 5 < start + 100):
            if random.random() < chance:
                steps += [f"{run - at}M", "1D"]
                bases, at = bases + reference[at:run], run + 1
        rows.append(Read(start, "".join(steps) + f"{start + 100 - at}M", bases + reference[at : start + 100]))
    return rows


def test_calls_by_a_fitted_table_leave_out_what_slipped() -> None:
    """A library that slips in a sixth of its reads: by the table of literature dozens of runs lack a base."""
    parts, runs = [], []
    for number in range(50):
        parts += ["C" + random_reference(58, number) + "G", "A" * LENGTH]
        runs.append(60 + number * (60 + LENGTH))
    reference = "".join(parts) + random_reference(100, 77)
    rows = slipping(reference, runs, 1 / 6, seed=1)
    other = reference[: runs[20]] + reference[runs[20] + 1 :]  # one run lacks a base on one chromosome
    lacking = [r - (r > runs[20]) for r in runs if r != runs[20]]
    moved = [
        Read(row.pos + (row.pos > runs[20]), row.cigar, row.bases)
        for row in slipping(other, lacking, 1 / 6, seed=2)
        if not row.pos <= runs[20] + LENGTH <= row.pos + 112 or row.cigar == "100M"
    ]
    spans = [
        Read(row.pos, f"{runs[20] - row.pos}M1D{row.pos + 100 - runs[20]}M", row.bases)
        if row.pos + 5 < runs[20] and runs[20] + LENGTH + 5 < row.pos + 100
        else row
        for row in moved
        if row.cigar == "100M" or not row.pos < runs[20] < row.pos + 101
    ]
    aligned = reads([*rows[::2], *spans[::2]])
    pileup = piled(aligned, letters(reference), 0, 10)
    table = fitted_gaps(counted(pileup, aligned))
    assert 7 <= table[0, LENGTH] <= 13 and gap_qualities()[0, LENGTH] > 20

    def called(gaps: np.ndarray | None) -> list[int]:
        found = calls_of(aligned, letters(reference), 0, 0, len(reference), gaps=gaps)
        return [s.pos + 1 for s in found if s.genotype != (0, 0) and s.variant > 10]

    assert len(called(None)) > 10 and called(table) == [runs[20]]
    assert called(gap_qualities()) == called(None)
