"""Sequences that are nearly the same, beside a plain count of edits and a plain set of k-mers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genodl_spark.genome import similarity

Rows = list[np.ndarray]


def edits(a: list[int], b: list[int]) -> int:
    """Levenshtein's distance, cell by cell; an unknown base is unlike any other."""
    before = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        now = [i]
        for j, y in enumerate(b, 1):
            now.append(min(before[j - 1] + (x != y or x < 0), before[j] + 1, now[-1] + 1))
        before = now
    return before[-1]


def turned(a: np.ndarray) -> np.ndarray:
    return np.where(a[::-1] < 0, -1, 3 - a[::-1]).astype(np.int8)


def flat(rows: Rows) -> tuple[np.ndarray, np.ndarray]:
    return np.concatenate([np.empty(0, np.int8), *rows]), np.cumsum([0, *map(len, rows)])


@st.composite
def families(draw: st.DrawFn) -> Rows:
    """Sequences, each made of an earlier one by a few edits, or by those and a turn."""
    base = st.integers(-1 if draw(st.booleans()) else 0, 3)
    rows = [draw(st.lists(base, min_size=1, max_size=40))]
    for _ in range(draw(st.integers(1, 5))):
        row = list(rows[draw(st.integers(0, len(rows) - 1))])
        for _ in range(draw(st.integers(0, 5))):
            place, kind = draw(st.integers(0, len(row) - 1)), draw(st.integers(0, 2))
            if kind == 0:
                row[place] = draw(base)
            elif kind == 1:
                row.insert(place, draw(base))
            elif len(row) > 1:
                row.pop(place)
        rows.append(turned(np.array(row, np.int8)).tolist() if draw(st.booleans()) else row)
    return [np.array(row, np.int8) for row in rows]


@settings(max_examples=150, deadline=None)
@given(families(), st.sampled_from([0.5, 0.7, 0.8, 0.9, 0.97, 1.0]))
def test_pairs_are_alike_as_their_edits_say(rows: Rows, identity: float) -> None:
    first, second = np.triu_indices(len(rows), 1)
    found = similarity.alike(*flat(rows), first, second, identity)
    for i, j, are in zip(first, second, found, strict=True):
        most = int((1 - identity) * max(len(rows[i]), len(rows[j])) + 1e-9)
        ways = [rows[j], turned(rows[j])]
        assert are == any(edits(rows[i], way) <= most or np.array_equal(rows[i], way) for way in ways)


def test_a_pair_does_not_depend_on_those_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    start = random.integers(0, 4, 300).astype(np.int8)
    rows = []
    for i in range(40):
        row = start[: 40 + 6 * i].copy()
        row[random.integers(0, len(row), i // 4)] = 0
        rows.append(np.delete(row, random.integers(0, len(row), i % 7)))
    codes, ends = flat(rows)
    first, second = np.triu_indices(len(rows), 1)
    whole = similarity.alike(codes, ends, first, second, 0.85)
    assert 0.05 < whole.mean() < 0.5
    monkeypatch.setattr(similarity, "_PAIRS", 7)
    monkeypatch.setattr(similarity, "_PRUNED", 3)
    assert (similarity.alike(codes, ends, second, first, 0.85) == whole).all()


def test_sketches_share_values_as_sequences_share_kmers() -> None:
    random = np.random.default_rng(1)
    whole = random.integers(0, 4, 6000).astype(np.int8)
    rows = [whole[:4000], whole[2000:], turned(whole[:4000]), random.integers(0, 4, 4000).astype(np.int8)]
    shared = []
    for seed in range(40):
        exchange = random.permutation(4).astype(np.int8) if seed else np.arange(4, dtype=np.int8)
        if exchange[3] != 3 - exchange[0] or exchange[2] != 3 - exchange[1]:
            continue  # such an exchange of letters leaves reverse complements what they are
        a, b, c, d = similarity.sketches(*flat([exchange[row] for row in rows]))
        assert (a == c).all() and not (a == d).any()
        shared.append((a == b).mean())
    # 1,989 of 5,989 k-mers
    assert len(shared) > 5 and abs(np.mean(shared) - 1 / 3) < 0.08


def test_sketches_do_not_depend_on_the_others() -> None:
    random = np.random.default_rng(2)
    rows = [random.integers(-1, 4, size).astype(np.int8) for size in (0, 3, 11, 12, 13, 40, 40, 100, 1000)]
    rows += [np.full(50, -1, np.int8), np.full(60, 2, np.int8), np.full(70, 2, np.int8)]
    whole = similarity.sketches(*flat(rows))
    order = random.permutation(len(rows))
    assert (similarity.sketches(*flat([rows[i] for i in order])) == whole[order]).all()
    for i, row in enumerate(rows):
        assert (similarity.sketches(*flat([row]))[0] == whole[i]).all()
    assert (whole[-1] == whole[-2]).all()  # the same k-mer
    assert not (whole[1] == whole[2]).any()
    short = similarity.sketches(*flat([rows[2], turned(rows[2]), rows[1]]))
    assert (short[0] == short[1]).all() and not (short[0] == short[2]).any()


def test_most_pairs_at_the_border_meet() -> None:
    """Of pairs with a tenth of their bases exchanged, the least that counts by default."""
    random = np.random.default_rng(3)
    for length, least in ((60, 0.95), (100, 0.98), (300, 0.99)):
        rows = []
        for _ in range(200):
            row = random.integers(0, 4, length).astype(np.int8)
            other = row.copy()
            places = random.choice(length, length // 10, replace=False)
            other[places] = (other[places] + random.integers(1, 4, len(places))) % 4
            rows += [row, other]
        found = similarity.sketches(*flat(rows))
        assert (found[::2] == found[1::2]).any(1).mean() >= least


def test_the_nearest_sketch_is_that_of_all_pairs_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(9)
    known = generator.integers(0, 6, (40, similarity.HASHES)).astype(np.uint64)
    known[:, :40] += (np.arange(40, dtype=np.uint64) * np.uint64(100))[:, None]  # few values in common
    asked = np.concatenate([known[[3, 3, 17]], generator.integers(0, 6, (30, similarity.HASHES)).astype(np.uint64)])
    asked[-1] = 10_000
    shared = (asked[:, None] == known[None]).sum(2)
    expected = np.where(shared.max(1) > 0, shared.argmax(1), -1)
    for most in (1, 50, 1 << 22):
        monkeypatch.setattr(similarity, "_MATCHES", most)
        row, share = similarity.Sketched(known).nearest(asked)
        np.testing.assert_array_equal(row, expected)
        np.testing.assert_allclose(share, shared.max(1) / similarity.HASHES)
    nothing = similarity.Sketched(known[:0]).nearest(asked)
    assert (
        (nothing[0] == -1).all()
        and (nothing[1] == 0).all()
        and len(similarity.Sketched(known).nearest(asked[:0])[0]) == 0
    )
