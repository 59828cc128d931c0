"""Alignments of proteins against a recursion that is written as the definition; what is computed of them, by hand."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genodl_spark.genome import residues
from genodl_spark.genome.orthologues import (
    BACKGROUND,
    EXTEND,
    GAP,
    LETTERS,
    NAMES,
    OPEN,
    aligned,
    features,
    profile,
)


def codes(text: str) -> np.ndarray:
    return np.frombuffer(text.encode(), np.uint8)


def pair(a: str, b: str) -> float:
    found = float(residues.blosum62(codes(a), codes(b))[0])
    return -1.0 if np.isnan(found) else found


def best_score(own: str, other: str) -> float:
    """Of all alignments, by trying every way on from every place: in no gap, or in one of either kind."""
    n, m = len(own), len(other)

    @lru_cache(None)
    def best(i: int, j: int, gap: str) -> float:
        if i == n or j == m:
            return 0.0  # what is left hangs over
        ways = [pair(own[i], other[j]) + best(i + 1, j + 1, "")]
        for kind, to in (("down", (i + 1, j)), ("across", (i, j + 1))):
            ways.append(best(*to, kind) - EXTEND - (0 if gap == kind else OPEN))
        return max(ways)

    # in front, too, one of the two may hang over
    return max(best(i, j, "") for i, j in [*((i, 0) for i in range(n + 1)), *((0, j) for j in range(m + 1))])


def score(own: str, other: str, found: np.ndarray) -> float:
    """Of an alignment that is given by what stands at each residue of `own`: letters of `other` in order. Where letters
    are alike it may be read in several ways; the best counts."""
    text = bytes(found).decode()
    core = text.strip(".")
    if not core:
        return 0.0
    first = len(text) - len(text.lstrip("."))
    own = own[first : first + len(core)]

    @lru_cache(None)
    def best(k: int, j: int, gap: str) -> float:
        """From column k of the core on, `j` letters of `other` used."""
        if k == len(core):
            return 0.0 if j == len(other) or first + len(core) == len(text) else -1e9
        if core[k] == "-":
            return best(k + 1, j, "down") - EXTEND - (0 if gap == "down" else OPEN)
        ways = [-1e9]
        if j < len(other) and other[j] == core[k]:
            ways.append(pair(own[k], other[j]) + best(k + 1, j + 1, ""))
        if j < len(other):
            ways.append(best(k, j + 1, "across") - EXTEND - (0 if gap == "across" else OPEN))
        return max(ways)

    starts = range(len(other) + 1) if first == 0 else [0]  # where residues of `own` are in front, no letter is
    return max(best(0, j, "") for j in starts)


@settings(max_examples=150, deadline=None)
@given(st.text("ACWLX", min_size=1, max_size=12), st.text("ACWLX", min_size=1, max_size=12))
def test_no_alignment_is_better(own: str, other: str) -> None:
    found = aligned(codes(own), codes(other))
    assert len(found) == len(own)
    assert score(own, other, found) == best_score(own, other)


@pytest.mark.parametrize(
    ("own", "other", "expected"),
    [
        ("MKWVTFISLL", "MKWVTFISLL", "MKWVTFISLL"),
        ("MKWVTFISLLFLFSSAYS", "MKWVTFVSLLLFSSAYS", "MKWVTFVSLL-LFSSAYS"),
        ("MKWVTFISLLFLFSS", "WVTFISLL", "..WVTFISLL....."),  # a fragment
        ("WVTFISLL", "MKWVTFISLLFLFSS", "WVTFISLL"),
        ("MKWVTFISLLFLFSSAYSRGVFRR", "MKWVTFISLLAYSRGVFRR", "MKWVTFISLL-----AYSRGVFRR"),
        ("MKWVTFISLLAYSRGVFRR", "MKWVTFISLLFLFSSAYSRGVFRR", "MKWVTFISLLAYSRGVFRR"),
    ],
)
def test_alignments_that_can_be_seen(own: str, other: str, expected: str) -> None:
    assert bytes(aligned(codes(own), codes(other))).decode() == expected


def test_a_protein_of_a_gene_is_found_again_where_it_was_changed() -> None:
    """A tenth of 1,500 residues exchanged, 40 in a row left out and 25 put in: nine in ten stand where they stood."""
    draw = np.random.default_rng(0)
    own = draw.choice(codes(residues.LETTERS), 1500, p=BACKGROUND)
    other, known = own.copy(), np.ones(1500, bool)
    hit = draw.random(1500) < 0.1
    other[hit] = draw.choice(codes(residues.LETTERS), hit.sum())
    changed = np.concatenate([other[:400], draw.choice(codes(residues.LETTERS), 25), other[400:900], other[940:]])
    known[900:940] = False
    found = aligned(own, changed)
    assert (found[known] == other[known]).mean() > 0.98 and (found[~known] == GAP).mean() > 0.8


def test_counts_of_columns() -> None:
    columns = pa.array(["zz", "AAR-..", None, "", "X-V"])[1:]
    found = profile(columns)
    expected = np.zeros((4, 21), int)
    expected[0, [0, 1, 20]] = 2, 1, 1
    expected[3, [19, 20]] = 1
    np.testing.assert_array_equal(found, expected)
    assert BACKGROUND.sum() == pytest.approx(1) and BACKGROUND[residues.LETTERS.index("L")] == pytest.approx(0.09019)
    assert set(residues.LETTERS) < set(LETTERS)


def test_features_by_hand() -> None:
    old, new = codes("ARAAA").copy(), codes("RAA*A").copy()
    residue, columns = pa.array(["A", "A", "A", "A", None]), pa.array(["AAR-", "AAR-", "AAR-", "AAR-", None])
    found = dict(zip(NAMES, features(old, new, residue, columns).T, strict=True))
    assert found["orthologues:known"].tolist() == [1, 0, 1, 1, 0]  # the second has another residue than the protein
    np.testing.assert_allclose(found["orthologues:same"], [2 / 3, 0, 2 / 3, 2 / 3, 0], rtol=1e-6)
    np.testing.assert_allclose(found["orthologues:other"], [1 / 3, 0, 2 / 3, 0, 0], rtol=1e-6)
    np.testing.assert_allclose(found["orthologues:gaps"], [0.25, 0, 0.25, 0.25, 0])
    entropy = -(2 / 3 * np.log2(2 / 3) + 1 / 3 * np.log2(1 / 3))
    np.testing.assert_allclose(found["orthologues:entropy"], [entropy, 0, entropy, entropy, 0], rtol=1e-6)
    before = np.log2((3 + 2 * 0.07805) / 6 / 0.07805)  # A three times with the protein's own, of four; 2 of background
    after = np.log2((1 + 2 * 0.05129) / 6 / 0.05129)
    np.testing.assert_allclose(found["orthologues:log_odds:before"], [before, 0, before, before, 0], rtol=1e-6)
    np.testing.assert_allclose(found["orthologues:log_odds:after"], [after, 0, before, 0, 0], rtol=1e-6)
    np.testing.assert_allclose(found["orthologues:log_odds:change"], [after - before, 0, 0, 0, 0], rtol=1e-5)
    assert features(old[:0], new[:0], residue[:0], columns[:0]).shape == (0, len(NAMES))
