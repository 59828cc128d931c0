"""What calls are worth beside a truth: counted as hap.py counts, summed over pieces of the genome, with intervals.

The definitions are those of hap.py (Krusche et al. 2019, its manual and its sources at v0.3.15), after whose columns
the counts are named. Query records are taken apart into primitives first, so that all callers are counted alike; truth
records are counted as they stand, and only those that pass their filters. A record counts once: as SNP where it changes
single bases only, else as INDEL, with every subtype that one of its alleles has. A record is inside the confident
regions where they overlap what its alleles change; an insertion has to have the bases on both sides inside, but of the
truth only the one before.

TRUTH.TP, TRUTH.FN     truth inside, matched or not             TRUTH.TOTAL    their sum
QUERY.TP, QUERY.FP     query inside, matched or not             QUERY.UNK      query outside
QUERY.TOTAL            all of the query
FP.gt                  of QUERY.FP: an unmatched truth record has the same alleles in another genotype
FP.al                  of QUERY.FP: other unmatched truth records stand in its cluster
METRIC.Recall          TRUTH.TP / TRUTH.TOTAL                   METRIC.Precision   QUERY.TP / (QUERY.TP + QUERY.FP)
METRIC.Frac_NA         QUERY.UNK / QUERY.TOTAL                  METRIC.F1_Score    harmonic mean of recall and precision

Filter ALL takes every query record, PASS only those that pass: they are matched anew where others stood beside them.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from genodl_spark.genetics.calling import matching
from genodl_spark.genetics.calling.matching import ALLELE, GENOTYPE, MATCHED, NO_VARIANT, Variant
from genodl_spark.genome.loci import union

TYPES = SNP, INDEL = ("SNP", "INDEL")
FILTERS = ALL, PASS = ("ALL", "PASS")
ANY = "*"
SUBTYPES = {
    SNP: ("ti", "tv"),
    INDEL: tuple(f"{kind}{size}" for kind in "IDC" for size in ("1_5", "6_15", "16_PLUS")),
}
GENOTYPES = ("het", "homalt", "hetalt", "hemi", "halfcall")
COLUMNS = ("TRUTH.TP", "TRUTH.FN", "QUERY.TP", "QUERY.FP", "QUERY.UNK", "FP.gt", "FP.al")
DEPTHS = (0, 5, 10, 15, 20, 30, 40, 60, 100)  # where bins of DP begin
TOP = 1000  # the highest score that curves tell apart
WINDOWS = 50_000  # windows that are resampled at most
_SMALLEST = 1000  # bases of a window at first
_MATCHED_TRUTH, _MISSED, _MATCHED_QUERY, _FALSE = range(4)  # columns of windows, of each type
_SIMPLE = {(0, 1): "het", (1, 0): "het", (1, 1): "homalt"}
_TRANSITIONS = frozenset([(65, 71), (71, 65), (67, 84), (84, 67)])
_APART = 2 * matching.SHIFT + matching.GAP  # bases over which no cluster reaches
_PIECE = 2000  # records of a piece
_DENSE = 20 * _PIECE  # records after which a piece ends at a smaller gap


@dataclass(frozen=True, slots=True)
class Call:
    """A record of a file. score: GQ or QUAL, NaN where it is missing. depth: DP, -1 where it is missing. line: of the
    file, from 1."""

    variant: Variant
    passed: bool
    score: float
    depth: int
    line: int = 0


@dataclass(frozen=True)
class Piece:
    """Calls of a stretch of a contig that no other call's cluster reaches. reference: upper-case bases from `start`
    (1-based) on. confident: int64 (n, 2), intervals [start, end), 0-based, sorted and apart; None for everywhere."""

    contig: str
    start: int
    reference: bytes
    truth: list[Call]
    query: list[Call]
    confident: np.ndarray | None


@dataclass
class Tally:
    """Sums over pieces. counts: by filter, type, subtype, genotype (ANY for all) and column. scores: by filter, type,
    column and score, in steps of one up to TOP. depths: by filter, type, bin and column. windows: by contig and
    number, int64 (8,), the columns of SNP and of INDEL under PASS; `window`: their size in bases. bounded: clusters
    that the search gave up."""

    counts: Counter[tuple[str, str, str, str, str]] = field(default_factory=Counter)
    scores: Counter[tuple[str, str, str, int]] = field(default_factory=Counter)
    depths: Counter[tuple[str, str, int, str]] = field(default_factory=Counter)
    windows: dict[tuple[str, int], np.ndarray] = field(default_factory=dict)
    window: int = _SMALLEST
    bounded: int = 0
    clusters: int = 0

    def add(self, other: Tally) -> None:
        self.counts.update(other.counts)
        self.scores.update(other.scores)
        self.depths.update(other.depths)
        self.bounded += other.bounded
        self.clusters += other.clusters
        self._widen(max(self.window, other.window))
        other._widen(self.window)
        for key, values in other.windows.items():
            self.windows[key] = self.windows[key] + values if key in self.windows else values
        while len(self.windows) > WINDOWS:  # the size that is left is the same in whatever order pieces come
            self._widen(self.window * 10)

    def _widen(self, size: int) -> None:
        by = size // self.window
        if by == 1:
            return
        wide: dict[tuple[str, int], np.ndarray] = {}
        for (contig, number), values in self.windows.items():
            key = contig, number // by
            wide[key] = wide[key] + values if key in wide else values
        self.windows, self.window = wide, size


def pieces(
    truth: Iterable[tuple[int, str, Call]], query: Iterable[tuple[int, str, Call]]
) -> Iterator[tuple[str, list[Call], list[Call]]]:
    """(Contig, truth, query) of stretches of some _PIECE records that clusters do not reach across. Both sides come as
    (number of the contig, contig, call), sorted by number and position."""

    def tagged(side: int, calls: Iterable[tuple[int, str, Call]]) -> Iterator[tuple[tuple[int, int, int], str, Call]]:
        for number, contig, call in calls:
            yield (number, call.variant.position, side), contig, call

    held: tuple[list[Call], list[Call]] = ([], [])
    before, high, of = -1, 0, ""
    for (number, position, side), contig, call in heapq.merge(tagged(0, truth), tagged(1, query), key=_place):
        size = len(held[0]) + len(held[1])
        gap = _APART if size < _DENSE else matching.GAP
        if size and (number != before or (size >= _PIECE and position - high > gap)):
            yield of, *held
            held, high = ([], []), 0
        before, of = number, contig
        held[side].append(call)
        high = max(high, position + len(call.variant.ref))
    if held[0] or held[1]:
        yield of, *held


def _place(item: tuple[tuple[int, int, int], str, Call]) -> tuple[int, int, int]:
    return item[0]


@dataclass(frozen=True, slots=True)
class _Counted:
    """A record as it is counted."""

    type: str
    subtypes: tuple[str, ...]
    genotype: str
    inside: bool


def tallied(piece: Piece) -> Tally:
    """Matches and counts a piece."""
    tally = Tally()
    truth = [call for call in piece.truth if call.passed]
    query = [
        Call(part, call.passed, call.score, call.depth, call.line)
        for call in piece.query
        for part in matching.primitives(call.variant)
    ]
    variants = [call.variant for call in truth], [call.variant for call in query]
    found = matching.compared(piece.reference, piece.start, *variants)
    tally.bounded = found.bounded
    tally.clusters = len(
        {*found.truth.cluster[found.truth.cluster >= 0], *found.query.cluster[found.query.cluster >= 0]}
    )
    confident = None if piece.confident is None else _padded(piece.confident, variants[0])
    of_truth = [_counted(variant, confident) for variant in variants[0]]
    of_query = [_counted(variant, confident) for variant in variants[1]]
    passing = np.array([call.passed for call in query], bool)
    again = found if passing.all() else _without(piece, found, variants, passing)
    for name, comparison in ((ALL, found), (PASS, again)):
        taken = np.ones(len(query), bool) if name == ALL else passing
        _count(tally, name, piece.contig, comparison, (truth, query), (of_truth, of_query), taken)
    return tally


def _without(
    piece: Piece, found: matching.Comparison, variants: tuple[list[Variant], list[Variant]], passing: np.ndarray
) -> matching.Comparison:
    """The comparison without query variants that do not pass: only their clusters are matched again."""
    touched = np.unique(found.query.cluster[~passing])
    touched = touched[touched >= 0]
    first = np.flatnonzero(np.isin(found.truth.cluster, touched))
    second = np.flatnonzero(np.isin(found.query.cluster, touched) & passing)
    again = matching.compared(
        piece.reference, piece.start, [variants[0][i] for i in first], [variants[1][i] for i in second]
    )
    groups = 1 + max(found.truth.group.max(initial=-1), found.query.group.max(initial=-1))
    sides = []
    for old, new, at in ((found.truth, again.truth, first), (found.query, again.query, second)):
        status, group = old.status.copy(), old.group.copy()
        status[at], group[at] = new.status, np.where(new.group >= 0, new.group + groups, -1)
        sides.append(matching.Side(status, group, old.cluster))
    return matching.Comparison(sides[0], sides[1], found.bounded)


def _count(
    tally: Tally,
    name: str,
    contig: str,
    found: matching.Comparison,
    calls: tuple[list[Call], list[Call]],
    counted: tuple[list[_Counted], list[_Counted]],
    taken: np.ndarray,
) -> None:
    """Adds a comparison under a filter. `taken`: bool, which of the query it is about."""
    counts: Counter[tuple[str, tuple[str, ...], str, str]] = Counter()
    scores: dict[int, int] = {}  # of a group: the lowest score of its query records, as hap.py has it
    for call, group, ours in zip(calls[1], found.query.group.tolist(), taken.tolist(), strict=True):
        if group >= 0 and ours:
            scores[group] = min(scores.get(group, TOP), _step(call.score))
    for call, status, group, one in zip(
        calls[0], found.truth.status.tolist(), found.truth.group.tolist(), counted[0], strict=True
    ):
        if status == NO_VARIANT or not one.inside:
            continue
        matched = status == MATCHED
        counts[one.type, one.subtypes, one.genotype, "TRUTH.TP" if matched else "TRUTH.FN"] += 1
        if matched:
            tally.scores[name, one.type, "TRUTH.TP", scores.get(group, 0)] += 1
        if name == PASS:
            _window(tally, contig, call, one.type)[_MATCHED_TRUTH if matched else _MISSED] += 1
    for call, status, one, ours in zip(calls[1], found.query.status.tolist(), counted[1], taken.tolist(), strict=True):
        if not ours or status == NO_VARIANT:
            continue
        if not one.inside:
            counts[one.type, one.subtypes, one.genotype, "QUERY.UNK"] += 1
            continue
        matched = status == MATCHED
        column = "QUERY.TP" if matched else "QUERY.FP"
        counts[one.type, one.subtypes, one.genotype, column] += 1
        if status in (GENOTYPE, ALLELE):
            counts[one.type, one.subtypes, one.genotype, "FP.gt" if status == GENOTYPE else "FP.al"] += 1
        tally.scores[name, one.type, column, _step(call.score)] += 1
        if call.depth >= 0:
            tally.depths[name, one.type, int(np.searchsorted(DEPTHS, call.depth, "right")) - 1, column] += 1
        if name == PASS:
            _window(tally, contig, call, one.type)[_MATCHED_QUERY if matched else _FALSE] += 1
    _add(tally, name, counts)


def _add(tally: Tally, name: str, counts: Counter[tuple[str, tuple[str, ...], str, str]]) -> None:
    """Adds records by type, subtypes, genotype and column."""
    for (kind, subtypes, genotype, column), records in counts.items():
        for subtype in (ANY, *subtypes):
            for called in (ANY, genotype):
                tally.counts[name, kind, subtype, called, column] += records


def _window(tally: Tally, contig: str, call: Call, kind: str) -> np.ndarray:
    """The columns of a type in the window where a call is."""
    key = contig, call.variant.position // tally.window
    if key not in tally.windows:
        tally.windows[key] = np.zeros(8, np.int64)
    return tally.windows[key][4 * TYPES.index(kind) :]


def _step(score: float) -> int:
    return 0 if math.isnan(score) else int(min(max(score, 0), TOP))


def _counted(variant: Variant, confident: np.ndarray | None) -> _Counted:
    """How a called variant is counted."""
    first = variant.position - 1
    if len(variant.ref) == 1 and len(variant.alts) == 1 == len(variant.alts[0]) and variant.genotype in _SIMPLE:
        subtype = "ti" if (variant.ref[0], variant.alts[0][0]) in _TRANSITIONS else "tv"
        inside = confident is None or _inside([(first, first + 1)], confident)
        return _Counted(SNP, (subtype,), _SIMPLE[variant.genotype], inside)
    single, other = False, False
    subtypes: set[str] = set()
    spans: list[tuple[int, int]] = []
    alleles = dict.fromkeys(allele for allele in variant.genotype if allele > 0)
    for allele in alleles:
        edits = matching.changes(variant, allele)
        if not edits:
            continue
        gone = sum(end - start for start, end, bases in edits if len(bases) != end - start)
        come = sum(len(bases) for start, end, bases in edits if len(bases) != end - start)
        swapped = [(start, bases) for start, end, bases in edits if len(bases) == end - start]
        for start, bases in swapped:
            for place, base in enumerate(bases, start):
                subtypes.add("ti" if (variant.ref[place - first], base) in _TRANSITIONS else "tv")
        single |= bool(swapped)
        other |= bool(gone or come)
        if swapped and (gone or come):
            subtypes.add("C" + _size(gone + come))
        elif not swapped:
            subtypes.update(kind + _size(bases) for kind, bases in (("I", come), ("D", gone)) if bases)
        spans.append((edits[0][0], max(end for _, end, _ in edits)))
    kind = INDEL if other else SNP
    return _Counted(
        kind,
        tuple(subtype for subtype in SUBTYPES[kind] if subtype in subtypes),
        _genotype(variant),
        confident is None or _inside(spans, confident),
    )


def _size(bases: int) -> str:
    return "1_5" if bases <= 5 else "6_15" if bases <= 15 else "16_PLUS"


def _genotype(variant: Variant) -> str:
    """One of GENOTYPES; hemi is a haploid call."""
    changed = [tuple(matching.changes(variant, allele)) for allele in variant.genotype]
    if -1 in variant.genotype:
        return "halfcall"
    if len(changed) == 1:
        return "hemi"
    if len(set(changed)) == 1:
        return "homalt"
    return "hetalt" if all(changed) else "het"


def _inside(spans: list[tuple[int, int]], confident: np.ndarray) -> bool:
    """Whether what alleles change is confident: any of it; of insertions alone the bases on both sides."""
    if not spans:
        return False
    insertions = all(start == end for start, end in spans)
    low = min(start - (start == end) for start, end in spans)
    high = max(end + (start == end) for start, end in spans)
    at = int(np.searchsorted(confident[:, 1], low, "right"))  # the first interval that ends behind `low`
    if at == len(confident):
        return False
    if insertions:
        return bool(confident[at, 0] <= low and high <= confident[at, 1])
    return bool(confident[at, 0] < high)


def _padded(confident: np.ndarray, truth: list[Variant]) -> np.ndarray:
    """Confident regions that hold the base behind an insertion of the truth where they hold the one before it."""
    more = []
    for variant in truth:
        for allele in variant.genotype:
            for start, end, _ in matching.changes(variant, allele):
                at = int(np.searchsorted(confident[:, 1], start - 1, "right"))
                if start == end and at < len(confident) and confident[at, 0] <= start - 1:
                    more.append((start, start + 1))
    return union(np.concatenate([confident, np.array(more, np.int64)])) if more else confident


def metrics(tally: Tally, seed: int, scored_by: str) -> dict[str, Any]:
    """What a report says of a tally.

    model: by type the metrics of filter PASS, {"value", "low", "high"}; value None where nothing was counted. The 95 %
    interval is that of 1,000 bootstrap samples of windows of the genome, drawn by `seed`.
    counts: by type and filter all columns and ratios. subtypes, genotypes: by filter and type, columns and metrics.
    depth: by filter, type and bin of the query's DP, QUERY.TP, QUERY.FP and precision. curve: by filter and type,
    [score, recall, precision] of the calls with at least that score. n_test: truth records.
    """
    return {
        "model": _intervals(tally, seed),
        "baselines": {},
        "n_test": sum(_total(tally, PASS, kind) for kind in TYPES),
        "counts": {kind: {name: _row(tally, name, kind) for name in FILTERS} for kind in TYPES},
        "subtypes": {
            name: {kind: {subtype: _row(tally, name, kind, subtype) for subtype in SUBTYPES[kind]} for kind in TYPES}
            for name in FILTERS
        },
        "genotypes": {
            name: {
                kind: {
                    genotype: _row(tally, name, kind, ANY, genotype)
                    for genotype in GENOTYPES
                    if any(tally.counts[name, kind, ANY, genotype, column] for column in COLUMNS)
                }
                for kind in TYPES
            }
            for name in FILTERS
        },
        "depth": {name: {kind: _by_depth(tally, name, kind) for kind in TYPES} for name in FILTERS},
        "curve": {
            "score": scored_by,
            **{name: {kind: curve(tally, name, kind) for kind in TYPES} for name in FILTERS},
        },
        "clusters": tally.clusters,
        "bounded": tally.bounded,
        "window": tally.window,
    }


def _total(tally: Tally, name: str, kind: str) -> int:
    return sum(tally.counts[name, kind, ANY, ANY, column] for column in ("TRUTH.TP", "TRUTH.FN"))


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def _row(tally: Tally, name: str, kind: str, subtype: str = ANY, genotype: str = ANY) -> dict[str, float | int | None]:
    """Columns of hap.py's summary."""

    def count(column: str, of: str = subtype, called: str = genotype) -> int:
        return tally.counts[name, kind, of, called, column]

    found: dict[str, float | int | None] = {column: count(column) for column in COLUMNS}
    truth, query = ("TRUTH.TP", "TRUTH.FN"), ("QUERY.TP", "QUERY.FP", "QUERY.UNK")
    found["TRUTH.TOTAL"] = sum(map(count, truth))
    found["QUERY.TOTAL"] = sum(map(count, query))
    recall = _ratio(count("TRUTH.TP"), sum(map(count, truth)))
    precision = _ratio(count("QUERY.TP"), count("QUERY.TP") + count("QUERY.FP"))
    found["METRIC.Recall"], found["METRIC.Precision"] = recall, precision
    found["METRIC.Frac_NA"] = _ratio(count("QUERY.UNK"), sum(map(count, query)))
    found["METRIC.F1_Score"] = _f1(recall, precision)
    if subtype == genotype == ANY:
        for side, columns in (("TRUTH", truth), ("QUERY", query)):
            if kind == SNP:
                each = [sum(count(column, of) for column in columns) for of in ("ti", "tv")]
                found[f"{side}.TOTAL.TiTv_ratio"] = _ratio(*each)
            each = [sum(count(column, ANY, called) for column in columns) for called in ("het", "homalt")]
            found[f"{side}.TOTAL.het_hom_ratio"] = _ratio(*each)
    return found


def _f1(recall: float | None, precision: float | None) -> float | None:
    if recall is None or precision is None:
        return None
    return 2 * recall * precision / (recall + precision) if recall + precision else 0.0


def _by_depth(tally: Tally, name: str, kind: str) -> dict[str, dict[str, float | int | None]]:
    found: dict[str, dict[str, float | int | None]] = {}
    for i, (low, high) in enumerate(zip(DEPTHS, (*DEPTHS[1:], None), strict=True)):
        right, wrong = (tally.depths[name, kind, i, column] for column in ("QUERY.TP", "QUERY.FP"))
        if right or wrong:
            label = f"{low}-{high - 1}" if high is not None else f"{low}+"
            found[label] = {"QUERY.TP": right, "QUERY.FP": wrong, "METRIC.Precision": _ratio(right, right + wrong)}
    return found


def curve(tally: Tally, name: str, kind: str, points: int = 50) -> list[list[float]]:
    """[Score, recall, precision] of the calls with at least that score, from the lowest on; of more than `points`
    scores some, even in scores and even in the calls that have them."""
    steps = sorted({score for n, k, _, score in tally.scores if (n, k) == (name, kind)})
    columns = np.array(
        [[tally.scores[name, kind, column, s] for s in steps] for column in ("TRUTH.TP", "QUERY.TP", "QUERY.FP")],
        np.int64,
    ).reshape(3, -1)
    at_least = columns[:, ::-1].cumsum(axis=1)[:, ::-1]
    total = _total(tally, name, kind)
    if not steps or not total:
        return []
    kept = np.arange(len(steps))
    if len(steps) > points:  # half of them even in scores, half even in calls
        reach = (columns[1] + columns[2]).cumsum()
        by_calls = np.searchsorted(reach, np.linspace(reach[0], reach[-1], points // 2))
        kept = np.union1d(np.linspace(0, len(steps) - 1, points // 2).round().astype(int), by_calls)
    truth, right, wrong = at_least[:, kept]
    shown = right + wrong > 0
    rows = zip(np.array(steps)[kept][shown], truth[shown] / total, right[shown] / (right + wrong)[shown], strict=True)
    return [[int(score), float(recall), float(precision)] for score, recall, precision in rows]


_SAMPLES = 1000


def _intervals(tally: Tally, seed: int) -> dict[str, dict[str, float | None]]:
    names = ("recall", "precision", "f1")
    counts = np.array([tally.windows[key] for key in sorted(tally.windows)], np.int64).reshape(-1, 8)
    drawn = np.zeros((_SAMPLES, 8))
    chance = np.random.default_rng(seed)
    for i in range(_SAMPLES if len(counts) else 0):
        drawn[i] = np.bincount(chance.integers(0, len(counts), len(counts)), minlength=len(counts)) @ counts
    found: dict[str, dict[str, float | None]] = {}
    for k, kind in enumerate(TYPES):
        values = _three(counts.sum(axis=0, keepdims=True)[:, 4 * k : 4 * k + 4])[0]
        samples = _three(drawn[:, 4 * k : 4 * k + 4])
        for j, name in enumerate(names):
            column = samples[~np.isnan(samples[:, j]), j]
            low, high = np.quantile(column, (0.025, 0.975)) if len(column) else (math.nan, math.nan)
            each = (("value", values[j]), ("low", low), ("high", high))
            found[f"{kind.lower()}_{name}"] = {key: None if math.isnan(v) else float(v) for key, v in each}
    return found


def _three(counts: np.ndarray) -> np.ndarray:
    """Recall, precision and F1, float64 (n, 3), of columns of windows (n, 4); NaN where nothing was counted."""
    with np.errstate(invalid="ignore", divide="ignore"):
        recall = counts[:, _MATCHED_TRUTH] / (counts[:, _MATCHED_TRUTH] + counts[:, _MISSED])
        precision = counts[:, _MATCHED_QUERY] / (counts[:, _MATCHED_QUERY] + counts[:, _FALSE])
        f1 = np.where(recall + precision == 0, 0, 2 * recall * precision / (recall + precision))
    return np.stack([recall, precision, f1], axis=1)
