"""Which variants of two sets say the same of one person, however each writes them. Pure Python, without input or
output.

A set may split a substitution of several bases or join it, place an indel elsewhere within its repeat, or have two
alleles in one record or in two: positions and alleles then differ where the two haplotypes do not. So variants near
each other are compared by the haplotypes that they make: of each cluster, the search finds the largest subset of both
sides that gives the same pair of haplotypes (the idea of vcfeval, Cleary et al. 2015, and of hap.py, Krusche et al.
2019).

Coordinates of edits are 0-based and half open: `(start, end, bases)` puts `bases` in place of [start, end) of the
contig; an insertion has start == end. Alleles are upper-case ASCII.

The search. Events are variants in order of their starts; each is left out, or put onto the haplotypes in one of the
ways that its genotype allows (phase is ignored). A state holds, for each of the two haplotypes, how far truth and query
have come in the reference, and the bases by which one of them is ahead of the other; edits that start later wait. Where
the bases of truth and query differ the state dies. States that look alike from here on are one: the one with more
variants in it stays. The two haplotypes have no names, so a state and its mirror image are one as well. Where truth and
query are level, what came since the last such place is a group: one that took variants of one side only (which undo
each other) is no match. After the last event only level states count. Distinct states are few, as most die at the next
event; where they are more than `STATES` the cluster is matched by normalised allele and genotype instead, and counted
as bounded.

A deletion of which REF holds more than what goes may stand further right in it; the search tries these places as well
where other variants of its side are near, as both could otherwise not be on one haplotype.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

GAP = 30  # bases between variants that may still be one cluster; that of hap.py's haplotype blocks
STATES = 4096  # states of the search at one position, beyond which it gives up
SHIFT = 1000  # bases that an indel is shifted along its repeat at most
ALIGNED = 300  # bases of an allele that is still taken apart by alignment

NO_VARIANT, MATCHED, GENOTYPE, ALLELE, MISSING = range(5)
UNTOLD = -1  # of a label: copies that cannot be told
_TRUTH, _QUERY = 0, 1
_NONE = (-1, -1, b"")  # no edit, where edits are put in order
_BASES = b"ACGTURYSWKMBDHVN"

Edit = tuple[int, int, bytes]
Pair = tuple[int, int, int, bytes, tuple[Edit, ...], tuple[Edit, ...]]
Option = tuple["Edit | None", "Edit | None", int]


@dataclass(frozen=True, slots=True)
class Variant:
    """A record of one person.

    position: POS, 1-based. ref, alts: upper-case; REF or an ALT may be empty (position is then that of the base
    behind). `*`, symbolic alleles, breakends and empty brackets change nothing: a haplotype with one is that of the
    reference here. genotype: indices of alleles, 0 for REF, -1 for one that is missing; one index is a haploid call,
    which counts as both haplotypes; () for a candidate. A half call (`./1`) matches one copy and two.
    """

    position: int
    ref: bytes
    alts: tuple[bytes, ...]
    genotype: tuple[int, ...] = ()


@dataclass(frozen=True)
class Side:
    """What became of the n variants of one side, in the order given.

    status int8 (n,): NO_VARIANT (no called allele changes anything, or no call), MATCHED, and of those that are not:
    GENOTYPE (an unmatched variant of the other side in its cluster has the same normalised alleles), else ALLELE (the
    other side has unmatched variants in its cluster), else MISSING. group int32 (n,): matched variants of both sides
    that match each other share a number; -1 otherwise. cluster int32 (n,): -1 for NO_VARIANT.
    """

    status: np.ndarray
    group: np.ndarray
    cluster: np.ndarray


@dataclass(frozen=True)
class Comparison:
    """bounded: clusters that were too entangled for the search, and were matched by normalised allele and genotype."""

    truth: Side
    query: Side
    bounded: int


@dataclass(frozen=True, slots=True)
class _Event:
    """A variant in the search. options: edits of either haplotype, and how many alleles they are."""

    side: int
    index: int
    edits: tuple[Edit, ...]  # all that it may make, sorted
    options: tuple[Option, ...]
    places: dict[Edit, tuple[Edit, ...]]  # of deletions that may stand further right within their record
    low: int  # where its edits may lie when they are shifted along repeats
    high: int

    def own(self, edit: Edit) -> Edit:
        """The edit that was put at another place of its record."""
        return next((first for first, places in self.places.items() if edit in places), edit)


class _Bounded(Exception):
    """More states than `STATES`."""


@dataclass(frozen=True, slots=True)
class _Reference:
    """Bases of a contig from `start` on, 0-based."""

    bases: bytes
    start: int

    def cut(self, start: int, end: int) -> bytes:
        return self.bases[max(start - self.start, 0) : max(end - self.start, 0)]


def compared(reference: bytes, start: int, truth: Sequence[Variant], query: Sequence[Variant]) -> Comparison:
    """Which variants of `truth` and `query` match, by the haplotypes they make.

    reference: upper-case bases from `start` (1-based) on, with those around all variants. Variants come in any order;
    the answer does not depend on it, but that of equal records the first is matched. ValueError for a genotype of more
    than two alleles.
    """
    bases = _Reference(reference, start - 1)
    events = [*_events(bases, truth, _TRUTH), *_events(bases, query, _QUERY)]
    sides = tuple(
        Side(np.full(n, NO_VARIANT, np.int8), np.full(n, -1, np.int32), np.full(n, -1, np.int32))
        for n in (len(truth), len(query))
    )
    groups = bounded = 0
    for number, cluster in enumerate(_clusters(events)):
        for event in cluster:
            sides[event.side].cluster[event.index] = number
        found = _alike(cluster)
        if found is None:
            searched = _search(bases, cluster, _WEIGHTS)
            if searched is None:
                bounded += 1
                found = _by_normalised(bases, cluster)
            else:
                found = [[event for event, _ in group] for group in searched]
        for group in found:
            for event in group:
                sides[event.side].status[event.index] = MATCHED
                sides[event.side].group[event.index] = groups
            groups += 1
        _near_misses(bases, cluster, sides)
    return Comparison(sides[0], sides[1], bounded)


def labels(reference: bytes, start: int, truth: Sequence[Variant], candidates: Sequence[Variant]) -> np.ndarray:
    """Copies of each candidate allele that the truth's haplotypes have: int8, one for each ALT of each candidate, in
    their order: 0, 1 or 2; UNTOLD where it cannot be told.

    `reference` and `start` as of `compared`. Truth variants are taken apart into primitives first, so that candidates
    that explain a part of a record are told. UNTOLD are: an ALT that is not spelled in bases; one that explains a half
    call; and one that is left with no copy where it may stand for a piece of the truth that no candidates explain, or
    for any where the search gave up: they overlap, indels anywhere within their repeats, and are not both substitutions
    of one base.
    """
    bases = _Reference(reference, start - 1)
    parts = [part for variant in truth for part in primitives(variant)]
    offset = np.cumsum([0, *(len(variant.alts) for variant in candidates)])
    copies = np.zeros(int(offset[-1]), np.int8)
    for i, variant in enumerate(candidates):
        for k, alt in enumerate(variant.alts):
            if _edit(variant.position, variant.ref, alt) is None:
                copies[offset[i] + k] = UNTOLD
    events = [*_events(bases, parts, _TRUTH), *_events(bases, candidates, _QUERY)]
    for cluster in _clusters(events):
        wanted = [event for event in cluster if event.side == _TRUTH]
        offered = [event for event in cluster if event.side == _QUERY]
        if not wanted or not offered:
            continue
        counts: Counter[tuple[int, Edit]] = Counter()
        half: set[tuple[int, Edit]] = set()
        explained: set[int] = set()
        searched = _search(bases, cluster, _LABELS)
        if searched is None:
            counts, half, explained = _labels_by_normalised(bases, wanted, offered, parts)
        else:
            for group in searched:
                used = [
                    (event.index, event.own(edit))
                    for event, option in group
                    if event.side == _QUERY
                    for edit in option[:2]
                    if edit is not None
                ]
                counts.update(used)
                explained.update(event.index for event, _ in group if event.side == _TRUTH)
                if any(-1 in parts[event.index].genotype for event, _ in group if event.side == _TRUTH):
                    half.update(used)
        # Where the search gave up nothing is known of alleles that no truth has as it stands.
        left = [event for event in wanted if searched is None or event.index not in explained]
        for event in offered:
            variant = candidates[event.index]
            for k, alt in enumerate(variant.alts):
                edit = _edit(variant.position, variant.ref, alt)
                if edit is None:
                    continue
                found = min(counts[event.index, edit], 2)
                doubted = (event.index, edit) in half or (not found and any(_confusable(bases, edit, e) for e in left))
                copies[offset[event.index] + k] = UNTOLD if doubted else found
    return copies


def primitives(variant: Variant) -> list[Variant]:
    """A called variant as the smallest ones that make the same haplotypes: substitutions of one base, insertions and
    deletions, without the bases that REF and ALT share (REF or ALT is then empty); but a whole allele that is a
    deletion keeps its REF, which says where else it may stand. Alleles of one stretch stay together in a record
    (`1/2`), as hap.py counts them. Empty where nothing changes.

    Alleles are aligned, gaps leftmost; beyond ALIGNED bases those of one length are compared base by base, and others
    left whole.
    """
    if len(variant.ref) == 1 and len(variant.alts) == 1 == len(variant.alts[0]):
        return [variant] if 1 in variant.genotype and changes(variant, 1) else []
    edits = [_edit(variant.position, variant.ref, alt) for alt in variant.alts]
    ploidy = len(variant.genotype)
    carried: dict[Edit, set[int]] = {}
    for haplotype, allele in enumerate(variant.genotype):
        for part in changes(variant, allele):
            carried.setdefault(part, set()).add(haplotype)
    missing = [h for h, allele in enumerate(variant.genotype) if allele < 0]
    by_stretch: dict[tuple[int, int], list[Edit]] = {}
    for edit in carried:
        by_stretch.setdefault(edit[:2], []).append(edit)
    found = []
    for (first, last), alleles in sorted(by_stretch.items()):
        alleles.sort()
        genotype = [0] * ploidy
        for h in missing:
            genotype[h] = -1
        for k, edit in enumerate(alleles):
            for h in carried[edit]:
                genotype[h] = k + 1
        if len(alleles) == 1 and not alleles[0][2] and alleles[0] in edits:
            whole = variant.alts[edits.index(alleles[0])]
            found.append(Variant(variant.position, variant.ref, (whole,), tuple(genotype)))
            continue
        ref = variant.ref[first + 1 - variant.position : last + 1 - variant.position]
        found.append(Variant(first + 1, ref, tuple(edit[2] for edit in alleles), tuple(genotype)))
    return found


def changes(variant: Variant, allele: int) -> list[Edit]:
    """What an allele changes, as `primitives` takes it apart: substitutions of one base, insertions and deletions.
    allele: as in a genotype; none for REF, a missing one, and one that changes nothing."""
    edit = _edit(variant.position, variant.ref, variant.alts[allele - 1]) if allele > 0 else None
    return [] if edit is None else _taken_apart(edit, variant)


def normalised(reference: bytes, start: int, position: int, ref: bytes, alt: bytes) -> Edit | None:
    """An allele as an edit without shared bases, leftmost within its repeat; None where it changes nothing, or is not
    spelled in bases. `reference` and `start` as of `compared`; `position` is 1-based."""
    edit = _edit(position, ref, alt)
    return None if edit is None else _leftmost(_Reference(reference, start - 1), edit)


def spelled(allele: bytes) -> bool:
    """Whether an allele is bases of IUPAC; an empty one is."""
    return not allele.translate(None, _BASES)


def _edit(position: int, ref: bytes, alt: bytes) -> Edit | None:
    """Without the bases that REF and ALT share, those at their ends first."""
    if ref == alt or not spelled(alt):
        return None
    if len(ref) == len(alt) == 1:
        return position - 1, position, alt
    r, a = len(ref), len(alt)
    while r and a and ref[r - 1] == alt[a - 1]:
        r, a = r - 1, a - 1
    shared = 0
    while shared < min(r, a) and ref[shared] == alt[shared]:
        shared += 1
    return position - 1 + shared, position - 1 + r, alt[shared:a]


def _leftmost(reference: _Reference, edit: Edit) -> Edit:
    """A pure insertion or deletion as far to the left as its repeat goes."""
    start, end, bases = edit
    if bases and end > start:
        return edit
    moved = bases or reference.cut(start, end)
    first = start
    limit = max(reference.start, start - SHIFT)
    size = len(moved)
    by = 0  # the bases that come in, or go, turn: their last becomes the first
    while start > limit and reference.bases[start - 1 - reference.start] == moved[size - 1 - by % size]:
        start, by = start - 1, by + 1
    if not by:
        return edit
    turned = by % size
    moved = moved[size - turned :] + moved[: size - turned]
    return start, end - (first - start), moved if bases else b""


def _rightmost(reference: _Reference, edit: Edit) -> int:
    """Where a pure insertion or deletion ends when it is as far to the right as its repeat goes."""
    start, end, bases = edit
    if bases and end > start:
        return end
    moved = bases or reference.cut(start, end)
    limit = min(reference.start + len(reference.bases), end + SHIFT)
    by, size = 0, len(moved)
    while end < limit and size and reference.bases[end - reference.start] == moved[by % size]:
        end, by = end + 1, by + 1
    return end


def _taken_apart(edit: Edit, variant: Variant) -> list[Edit]:
    start, end, bases = edit
    if end == start or not bases or len(bases) == end - start == 1:
        return [edit]
    ref = variant.ref[start + 1 - variant.position : end + 1 - variant.position]
    if max(len(ref), len(bases)) > ALIGNED and len(ref) != len(bases):
        return [edit]
    differ = [i for i, (r, a) in enumerate(zip(ref, bases, strict=False)) if r != a]
    if len(ref) == len(bases) and (len(differ) < _WORTH or len(ref) > ALIGNED):
        return [(start + i, start + i + 1, bases[i : i + 1]) for i in differ]
    return [(start + first, start + last, alt) for first, last, alt in _aligned(ref, bases)]


_MATCH, _MISMATCH, _OPEN, _EXTEND = 1, -4, -7, -1  # as hap.py aligns alleles
_WORTH = 3  # substitutions of one length that cost more than two gaps do
_PAIR, _GONE, _COME = range(3)  # kinds of a column: two bases, one of REF alone, one of ALT alone


def _aligned(ref: bytes, alt: bytes) -> list[tuple[int, int, bytes]]:
    """Edits that make `alt` of `ref`, by a global alignment with affine gaps (Gotoh 1982): substitutions of one base,
    insertions and deletions. Of equal alignments that with pairs at the end, so with gaps as far left as they go."""
    n, m = len(ref), len(alt)
    low = -(10**9)
    # score[kind][i][j]: best alignment of ref[:i] and alt[:j] that ends with a column of this kind.
    score = [[[low] * (m + 1) for _ in range(n + 1)] for _ in range(3)]
    score[_PAIR][0][0] = 0
    for i in range(n + 1):
        for j in range(m + 1):
            if i and j:
                best = max(score[kind][i - 1][j - 1] for kind in range(3))
                score[_PAIR][i][j] = best + (_MATCH if ref[i - 1] == alt[j - 1] else _MISMATCH)
            if i:
                score[_GONE][i][j] = max(
                    score[kind][i - 1][j] + (_EXTEND if kind == _GONE else _OPEN) for kind in range(3)
                )
            if j:
                score[_COME][i][j] = max(
                    score[kind][i][j - 1] + (_EXTEND if kind == _COME else _OPEN) for kind in range(3)
                )
    edits: list[tuple[int, int, bytes]] = []
    i, j = n, m
    kind = max(range(3), key=lambda k: score[k][n][m])
    while i or j:
        at, before = score[kind][i][j], kind
        if kind == _PAIR:
            i, j = i - 1, j - 1
            if ref[i] != alt[j]:
                edits.append((i, i + 1, alt[j : j + 1]))
            kind = max(range(3), key=lambda k: score[k][i][j])
            continue
        i, j = (i - 1, j) if kind == _GONE else (i, j - 1)
        start, end, bases = (i, i + 1, b"") if kind == _GONE else (i, i, alt[j : j + 1])
        kind = next(k for k in range(3) if score[k][i][j] + (_EXTEND if k == before else _OPEN) == at)
        if edits and edits[-1][:1] == (-1,):
            _, last, more = edits.pop()
            end, bases = max(end, last), bases + more
        edits.append((-1 if kind == before else start, end, bases))
    return edits[::-1]


def _events(reference: _Reference, variants: Sequence[Variant], side: int) -> list[_Event]:
    """Of the variants that change something."""
    events = []
    twice = Counter((v.position, v.ref, v.alts) for v in variants if len(v.ref) > 1)
    for index, variant in enumerate(variants):
        edits = [None, *(_edit(variant.position, variant.ref, alt) for alt in variant.alts)]
        options = _options(edits, variant)
        used = tuple(sorted({edit for option in options for edit in option[:2] if edit is not None}))
        if not used:
            continue
        low = min(_leftmost(reference, edit)[0] for edit in used)
        high = max(_rightmost(reference, edit) for edit in used)
        ends = variant.position - 1 + len(variant.ref)
        alone = (
            twice[variant.position, variant.ref, variant.alts] < 2
        )  # a record that stands twice is not one beside the other
        places = {edit: found for edit in used if alone and len(found := _places(reference, edit, ends)) > 1}
        events.append(_Event(side, index, used, options, places, low, max(high, low + 1)))
    return events


def _places(reference: _Reference, edit: Edit, ends: int) -> tuple[Edit, ...]:
    """A deletion, and where it may stand as well within REF, which ends before `ends`: without shared bases it stands
    leftmost, and may so come over another deletion that a base of REF keeps apart from it."""
    start, end, bases = edit
    if bases or start == end:
        return (edit,)
    by = 0
    while end + by < ends and reference.cut(start + by, start + by + 1) == reference.cut(end + by, end + by + 1):
        by += 1
    return tuple((start + i, end + i, b"") for i in range(by + 1))


def _options(edits: list[Edit | None], variant: Variant) -> tuple[Option, ...]:
    """Ways to put a variant onto two haplotypes; empty where it changes nothing."""
    genotype = variant.genotype
    if not genotype:
        pairs: Iterable[tuple[Edit | None, Edit | None]] = [(a, b) for a in edits for b in edits]
    elif len(genotype) == 1:
        pairs = [(edits[genotype[0]], edits[genotype[0]])] if genotype[0] >= 0 else []
    elif len(genotype) == 2:
        called = [edits[allele] for allele in genotype if allele >= 0]
        if len(called) == 2:
            pairs = [(called[0], called[1]), (called[1], called[0])]
        else:
            pairs = [pair for one in called for pair in ((one, None), (None, one), (one, one))]
    else:
        raise ValueError(f"found a genotype of {len(genotype)} alleles; expected one or two")
    return tuple(
        (a, b, (a is not None) + (b is not None)) for a, b in dict.fromkeys(pairs) if a is not None or b is not None
    )


def _clusters(events: list[_Event]) -> Iterable[list[_Event]]:
    """Events that lie within GAP bases of each other, wherever their repeats let them lie, by position."""
    cluster: list[_Event] = []
    high = 0
    for event in sorted(events, key=lambda e: (e.low, e.high, e.edits, e.side, _written(e), e.index)):
        if cluster and event.low - high >= GAP:
            yield cluster
            cluster = []
        high = max(high, event.high) if cluster else event.high
        cluster.append(event)
    if cluster:
        yield cluster


def _alike(cluster: list[_Event]) -> list[list[_Event]] | None:
    """Groups of a cluster that needs no search: one of one side alone, and one whose sides are the same in writing."""
    sides: tuple[list[_Event], list[_Event]] = ([], [])
    for event in cluster:
        sides[event.side].append(event)
    if not sides[0] or not sides[1]:
        return []
    if len(sides[0]) == len(sides[1]):
        pairs = [sorted(side, key=lambda e: (e.edits, _written(e), e.index)) for side in sides]
        if all(a.edits == b.edits and _written(a) == _written(b) for a, b in zip(*pairs, strict=True)):
            return [list(pair) for pair in zip(*pairs, strict=True)] if _apart(sides[0]) else None
    return None


def _written(event: _Event) -> tuple[tuple[Edit, Edit], ...]:
    """The ways it may be put onto haplotypes, comparable."""
    return tuple(sorted((a or _NONE, b or _NONE) for a, b, _ in event.options))


def _apart(events: list[_Event]) -> bool:
    """Whether no two variants touch: they then fit on any haplotype."""
    end = -1
    for first, last, _ in sorted(edit for event in events for edit in event.edits[:1]):
        if first < end:
            return False
        end = max(end, last, first + 1)
    return all(len(event.edits) == 1 for event in events)


# Score of a variant that is taken, by side, and of each allele that it puts onto a haplotype. Comparing: most variants,
# of equals most of the truth. Labelling: most of the truth, of equals the fewest copies of candidates.
_LARGE = 1 << 20
_WEIGHTS = ((_LARGE + 1, 0), (_LARGE, 0))
_LABELS = ((_LARGE, 0), (0, -1))


Weights = tuple[tuple[int, int], tuple[int, int]]
Groups = list[list[tuple[_Event, Option]]]


def _search(reference: _Reference, cluster: list[_Event], weights: Weights) -> Groups | None:
    """Groups of matched events with the option of each; None where the states are too many, even when deletions stay
    where they are leftmost."""
    for placed in (True, False) if any(event.places for event in cluster) else (False,):
        with contextlib.suppress(_Bounded):
            return _searched(reference, cluster, weights, placed)
    return None


def _searched(reference: _Reference, cluster: list[_Event], weights: Weights, placed: bool) -> Groups:
    events = sorted(cluster, key=lambda e: (e.edits[0][:2], e.side, e.edits, _written(e), e.index))
    first = events[0].edits[0][0]
    last = max(edit[1] for event in events for edit in event.edits) + 1
    level: Pair = (first, first, 0, b"", (), ())
    # A state: both pairs, smaller first, and of which sides the open group has variants (bits 1 and 2). Its value: the
    # score, and how it came about, as a chain of (earlier, event, option); event None closes a group.
    states: dict[tuple[Pair, Pair, int], tuple[int, tuple | None]] = {(level, level, 0): (0, None)}
    at = 0
    while at < len(events):
        position = events[at].edits[0][0]
        states = _advanced(reference, states, position)
        while at < len(events) and events[at].edits[0][0] == position:
            event = events[at]
            each, copy = weights[event.side]
            ways = _ways(event, cluster) if placed else event.options
            grown = dict(states)
            for (one, other, taken), (score, chain) in states.items():
                for option in ways:
                    a, b = _with(one, event.side, option[0]), _with(other, event.side, option[1])
                    if a is None or b is None:
                        continue
                    key = (a, b, taken | 1 << event.side) if a <= b else (b, a, taken | 1 << event.side)
                    gained = score + each + copy * option[2]
                    if key not in grown or grown[key][0] < gained:
                        grown[key] = gained, (chain, event, option)
            if len(grown) > STATES:
                raise _Bounded
            states, at = grown, at + 1
    states = _advanced(reference, states, last)
    best = max((value for (a, b, taken), value in states.items() if not taken and _level(a) and _level(b)), key=_score)
    groups: list[list[tuple[_Event, Option]]] = []
    chain = best[1]
    while chain is not None:
        earlier, event, option = chain
        if event is None:
            groups.append([])
        else:
            groups[-1].append((event, option))
        chain = earlier
    return [group[::-1] for group in groups[::-1]]


def _score(value: tuple[int, tuple | None]) -> int:
    return value[0]


def _ways(event: _Event, cluster: list[_Event]) -> Sequence[Option]:
    """Options of an event, with each place of a deletion where other edits of its side are near it."""
    if not event.places:
        return event.options
    others = [edit for other in cluster if other is not event and other.side == event.side for edit in other.edits]

    def places(edit: Edit | None) -> tuple[Edit | None, ...]:
        if edit is None or edit not in event.places:
            return (edit,)
        found = event.places[edit]
        near = any(start <= found[-1][1] and edit[0] <= end for start, end, _ in others)
        return found if near else (edit,)

    return [(a, b, option[2]) for option in event.options for a in places(option[0]) for b in places(option[1])]


def _with(pair: Pair, side: int, edit: Edit | None) -> Pair | None:
    """A haplotype with an edit of a side to come; None where it overlaps another."""
    if edit is None:
        return pair
    start, end, _ = edit
    truth_at, query_at, ahead, bases, truth_waiting, query_waiting = pair
    waiting = truth_waiting if side == _TRUTH else query_waiting
    if start < (truth_at if side == _TRUTH else query_at):
        return None
    at = len(waiting)
    while at and waiting[at - 1][:2] > edit[:2]:
        at -= 1
    if at and (waiting[at - 1][1] > start or waiting[at - 1][:2] == edit[:2]):
        return None
    if at < len(waiting) and waiting[at][0] < end:
        return None
    placed = (*waiting[:at], edit, *waiting[at:])
    if side == _TRUTH:
        return truth_at, query_at, ahead, bases, placed, query_waiting
    return truth_at, query_at, ahead, bases, truth_waiting, placed


def _level(pair: Pair) -> bool:
    return pair[0] == pair[1] and not pair[2] and not pair[4] and not pair[5]


def _advanced(
    reference: _Reference, states: dict[tuple[Pair, Pair, int], tuple[int, tuple | None]], position: int
) -> dict[tuple[Pair, Pair, int], tuple[int, tuple | None]]:
    """States with all haplotypes written up to a position; groups close where both are level."""
    known: dict[Pair, Pair | None] = {}
    found: dict[tuple[Pair, Pair, int], tuple[int, tuple | None]] = {}
    for (one, other, taken), (score, chain) in states.items():
        for pair in (one, other):
            if pair not in known:
                known[pair] = _moved(reference, pair, position)
        a, b = known[one], known[other]
        if a is None or b is None:
            continue
        if taken and _level(a) and _level(b):
            if taken != 3:
                continue
            taken, chain = 0, (chain, None, None)
        key = (a, b, taken) if a <= b else (b, a, taken)
        if key not in found or found[key][0] < score:
            found[key] = score, chain
    return found


def _moved(reference: _Reference, pair: Pair, position: int) -> Pair | None:
    """A haplotype with both sides written up to a position; None where they differ."""
    truth_at, query_at, ahead, bases, truth_waiting, query_waiting = pair
    if not ahead and truth_at == query_at and not truth_waiting and not query_waiting:
        place = max(truth_at, position)
        return place, place, 0, b"", (), ()
    truth_at, truth, truth_waiting = _written_to(reference, truth_at, truth_waiting, position)
    query_at, query, query_waiting = _written_to(reference, query_at, query_waiting, position)
    if ahead == 1:
        truth = bases + truth
    elif ahead == 2:
        query = bases + query
    shared = min(len(truth), len(query))
    if truth[:shared] != query[:shared]:
        return None
    if len(truth) > shared:
        return truth_at, query_at, 1, truth[shared:], truth_waiting, query_waiting
    return truth_at, query_at, 2 if len(query) > shared else 0, query[shared:], truth_waiting, query_waiting


def _written_to(
    reference: _Reference, at: int, waiting: tuple[Edit, ...], position: int
) -> tuple[int, bytes, tuple[Edit, ...]]:
    """Bases of a haplotype up to a position, where it then is in the reference, and the edits that still wait."""
    parts = []
    while waiting and waiting[0][0] < position:
        start, end, alt = waiting[0]
        parts += [reference.cut(at, start), alt]
        at, waiting = end, waiting[1:]
    if at < position:
        parts.append(reference.cut(at, position))
        at = position
    return at, b"".join(parts), waiting


def _normal(reference: _Reference, event: _Event) -> tuple[tuple, frozenset[Edit]]:
    """Normalised alleles and genotype, and the alleles alone."""
    at = {edit: _leftmost(reference, edit) for edit in event.edits}
    options = tuple(sorted((at[a] if a else _NONE, at[b] if b else _NONE) for a, b, _ in event.options))
    return options, frozenset(at.values())


def _by_normalised(reference: _Reference, cluster: list[_Event]) -> list[list[_Event]]:
    """Pairs of events with the same normalised alleles and genotype."""
    free: dict[tuple, list[_Event]] = {}
    for event in cluster:
        if event.side == _QUERY:
            free.setdefault(_normal(reference, event)[0], []).append(event)
    found = []
    for event in cluster:
        if event.side == _TRUTH and (same := free.get(_normal(reference, event)[0])):
            found.append([event, same.pop(0)])
    return found


def _near_misses(reference: _Reference, cluster: list[_Event], sides: tuple[Side, ...]) -> None:
    """Says of unmatched variants of a cluster how far they are from a match."""
    left = [event for event in cluster if sides[event.side].status[event.index] != MATCHED]
    if not left:
        return
    both = len({event.side for event in left}) == 2
    alleles: list[set[frozenset[Edit]]] = [set(), set()]
    if both:
        for event in left:
            alleles[event.side].add(_normal(reference, event)[1])
    for event in left:
        same = both and _normal(reference, event)[1] in alleles[1 - event.side]
        sides[event.side].status[event.index] = GENOTYPE if same else ALLELE if both else MISSING


def _labels_by_normalised(
    reference: _Reference, wanted: list[_Event], offered: list[_Event], truth: Sequence[Variant]
) -> tuple[Counter[tuple[int, Edit]], set[tuple[int, Edit]], set[int]]:
    """Copies of candidate edits, those that explain half calls, and truth that is explained, by normalised alleles."""
    by_allele = {_leftmost(reference, edit): (event.index, edit) for event in offered for edit in event.edits}
    counts: Counter[tuple[int, Edit]] = Counter()
    half: set[tuple[int, Edit]] = set()
    explained: set[int] = set()
    for event in wanted:
        made = [by_allele.get(_leftmost(reference, edit)) for edit in event.options[0][:2] if edit is not None]
        if None in made:
            continue
        explained.add(event.index)
        for one in made:
            if one is not None:
                counts[one] += 1
                if -1 in truth[event.index].genotype:
                    half.add(one)
    return counts, half, explained


def _confusable(reference: _Reference, edit: Edit, unexplained: _Event) -> bool:
    start, end, bases = edit
    single = end - start == len(bases) == 1
    if single and all(last - first == len(alt) == 1 for first, last, alt in unexplained.edits):
        return False
    low, high = _leftmost(reference, edit)[0], max(_rightmost(reference, edit), start + 1)
    return low <= unexplained.high and unexplained.low <= high
