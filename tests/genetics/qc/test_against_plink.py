"""Quality control against PLINK 2, statsmodels, exact fractions and literal loops;
and any division of the variants gives the same sums."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields
from fractions import Fraction
from functools import reduce
from operator import add

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genodl_spark.genetics.qc import kinship as king
from genodl_spark.genetics.qc.components import Components, gram_product, principal_components, standardised
from genodl_spark.genetics.qc.counts import histogram, measures, subfield
from genodl_spark.genetics.qc.kinship import THIRD_DEGREE, PairSums, add_pairs, tiles
from genodl_spark.genetics.qc.linkage import Pruner
from genodl_spark.genetics.qc.samples import SampleSums, sample_statistics, sample_sums
from genodl_spark.genetics.qc.variants import (
    OTHER,
    TRANSITION,
    TRANSVERSION,
    hardy_weinberg,
    substitution,
    variant_statistics,
)
from tests.goldens import answer

Plink = Callable[..., list[list[str]]]


def genotypes(
    variants: int, samples: int, seed: int = 0, missing: float = 0.02, populations: int = 3, linked: float = 0.5
) -> np.ndarray:
    """Dosages of a structured cohort with linkage, parents and a twin: sample 1 is the child
    of 0 and 2, 3 is a copy of 4."""
    random = np.random.default_rng(seed)
    base = random.beta(0.4, 0.8, variants).clip(0.005, 0.995)
    share = np.stack([random.beta(9 * base, 9 * (1 - base)) for _ in range(populations)], 1)[
        :, np.arange(samples) % populations
    ]
    haplotypes = random.random((2, variants, samples)) < share
    for v in range(1, variants):
        if random.random() < linked:
            same = random.random((2, samples)) < random.choice([0.5, 0.8, 0.97])
            haplotypes[:, v] = np.where(same, haplotypes[:, v - 1], haplotypes[:, v])
    haplotypes[:, :, 1] = haplotypes[0][:, [0, 2]].T
    haplotypes[:, :, 3] = haplotypes[:, :, 4]
    dosages = haplotypes.sum(0).astype(np.int8)
    dosages[random.random(dosages.shape) < missing * random.exponential(1, variants)[:, None]] = -1
    dosages[5], dosages[6], dosages[7] = 0, 1, -1  # one genotype; no calls
    return dosages


def positions(variants: int) -> np.ndarray:
    # many pairs are as far apart as a window is wide
    return np.cumsum(np.random.default_rng(5).integers(0, 5, variants)) * 100 + 1


@pytest.fixture(scope="module", params=[0.0, 0.03], ids=["complete", "missing"])
def cohort(request: pytest.FixtureRequest) -> np.ndarray:
    return genotypes(1500, 130, 1, request.param)


def plink(dosages: np.ndarray) -> Plink:
    """What PLINK 2 says of a cohort: call(suffix of the output, arguments...) gives rows of columns."""
    variants, samples = dosages.shape
    code = np.array([3, 2, 0, 1], np.uint8)[dosages]  # of a .bed, by dosage; the last is missing
    quads = np.pad(code, ((0, 0), (0, -samples % 4))).reshape(variants, -1, 4)
    packed = (quads << np.array([0, 2, 4, 6], np.uint8)).sum(2).astype(np.uint8)
    at = positions(variants)
    inputs = {
        "d.bed": b"\x6c\x1b\x01" + packed.tobytes(),
        "d.bim": "".join(f"1\tv{i}\t0\t{at[i]}\t{'GC'[i % 2]}\tA\n" for i in range(variants)).encode(),
        "d.fam": "".join(f"0\ts{i}\t0\t0\t1\t-9\n" for i in range(samples)).encode(),
    }

    def call(suffix: str, *arguments: str) -> list[list[str]]:
        command = [
            "plink2",
            "--bfile",
            "d",
            "--threads",
            "1",
            "--memory",
            "800",
            "--bad-freqs",
            "--out",
            "o",
            *arguments,
        ]
        return [line.split() for line in answer(command, inputs, f"o.{suffix}") if not line.startswith("#")]

    return call


def blocks(dosages: np.ndarray, cuts: list[int]) -> list[np.ndarray]:
    return [block for block in np.split(dosages, sorted(cuts)) if len(block)]


def test_histogram_counts_calls() -> None:
    for samples in (1, 7, 256, 700, 66_000):
        dosages = np.random.default_rng(samples).integers(-1, 3, (9, samples)).astype(np.int8)
        expected = np.stack([(dosages == k).sum(1) for k in (0, 1, 2, -1)], 1)
        np.testing.assert_array_equal(histogram(dosages), expected)


def exact(hom_ref: int, het: int, hom_alt: int) -> tuple[float, float]:
    """p and mid-p in fractions, over every table with the same alleles."""
    n, rare = hom_ref + het + hom_alt, 2 * min(hom_ref, hom_alt) + het
    weights = {
        h: Fraction(2**h, math.factorial((rare - h) // 2) * math.factorial(h) * math.factorial(n - (rare + h) // 2))
        for h in range(rare % 2, rare + 1, 2)
    }
    total, found = sum(weights.values()), weights[het]
    p = sum(w for w in weights.values() if w <= found) / total
    return float(p), float(p - sum(w for w in weights.values() if w == found) / total / 2)


def test_hardy_weinberg_is_exact_for_every_small_table() -> None:
    tables = [(a, b, c) for a in range(12) for b in range(12) for c in range(12)]
    p, mid_p = hardy_weinberg(np.array(tables))
    np.testing.assert_allclose(np.stack([p, mid_p], 1), [exact(*t) for t in tables], rtol=1e-9)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 100), st.integers(0, 100), st.integers(0, 100))
def test_hardy_weinberg_is_exact(a: int, b: int, c: int) -> None:
    found = hardy_weinberg(np.array([[a, b, c], [c, b, a]]))
    np.testing.assert_allclose(np.stack(found, 1), [exact(a, b, c)] * 2, rtol=1e-9)


def test_hardy_weinberg_of_large_cohorts() -> None:
    from scipy import special

    counts = np.array(
        [[250_400, 499_000, 250_600], [81_000, 18_030, 970], [400, 5_000, 400], [0, 0, 1_000_000], [999_000, 1_000, 0]]
    )
    p, mid_p = hardy_weinberg(counts)
    for (hom_ref, het, hom_alt), one, mid in zip(counts.tolist(), p, mid_p, strict=True):
        n, rare = hom_ref + het + hom_alt, 2 * min(hom_ref, hom_alt) + het
        h = np.arange(rare % 2, rare + 1, 2)
        weights = (
            h * np.log(2)
            - special.gammaln((rare - h) / 2 + 1)
            - special.gammaln(h + 1)
            - special.gammaln(n - (rare + h) / 2 + 1)
        )
        found = weights[het // 2]
        expected = special.logsumexp(weights[weights <= found + 1e-8]) - special.logsumexp(weights)
        ties = special.logsumexp(weights[np.abs(weights - found) <= 1e-8]) - special.logsumexp(weights)
        np.testing.assert_allclose([one, mid], [np.exp(expected), np.exp(expected) - np.exp(ties) / 2], rtol=1e-6)
    assert p[3] == 1 and mid_p[3] == pytest.approx(0.5)


def test_variants_are_those_of_plink(cohort: np.ndarray) -> None:
    found, call = variant_statistics(histogram(cohort)), plink(cohort)
    # PLINK prints six digits, so that half a unit of the last is 5e-6 of the value.
    np.testing.assert_allclose(found.hwe_p, [float(row[-1]) for row in call("hardy", "--hardy")], rtol=5.1e-6)
    np.testing.assert_allclose(
        found.hwe_mid_p, [float(row[-1]) for row in call("hardy", "--hardy", "midp")], rtol=5.1e-6
    )
    frequencies = call("afreq", "--freq")
    np.testing.assert_allclose(found.frequency, [float(row[4]) for row in frequencies], rtol=5.1e-6)
    assert found.an.tolist() == [int(row[5]) for row in frequencies]
    np.testing.assert_allclose(1 - found.call_rate, [float(row[4]) for row in call("vmiss", "--missing")], atol=1e-6)


def test_substitutions() -> None:
    pairs = ["AG", "ga", "CT", "TC", "AC", "GT", "AT", "CG", "AA", "A*", "NA", "A<"]
    expected = [TRANSITION] * 4 + [TRANSVERSION] * 4 + [OTHER] * 4
    assert substitution([p[0] for p in pairs], [p[1] for p in pairs]).tolist() == expected
    letters = [np.frombuffer("".join(p[i] for p in pairs).encode(), np.uint8) for i in (0, 1)]
    assert substitution(*letters).tolist() == expected
    assert substitution(["AT", "A", "A", "A", ""], ["G", "GT", "<DEL>", "Á", "A"]).tolist() == [OTHER] * 5


def summed(dosages: np.ndarray, kinds: np.ndarray, cuts: list[int]) -> SampleSums:
    return reduce(add, (sample_sums(d, k) for d, k in zip(np.split(dosages, cuts), np.split(kinds, cuts), strict=True)))


def test_samples_are_those_of_plink(cohort: np.ndarray) -> None:
    call, kinds = plink(cohort), np.array([TRANSITION, TRANSVERSION] * (len(cohort) // 2))
    found = sample_statistics(summed(cohort, kinds, [100, 700]))
    np.testing.assert_allclose(found.inbreeding, [float(row[-1]) for row in call("het", "--het")], atol=1e-6)
    counts = np.array(
        [row[2:] for row in call("scount", "--sample-counts", "cols=maybefid,homref,homalt,het,missing,dipsingle")], int
    ).T
    for numbers, name in zip(counts, ("hom_ref", "hom_alt", "het", "singletons", "missing"), strict=True):
        assert numbers.tolist() == getattr(found, name).tolist(), name
    np.testing.assert_allclose(found.call_rate, 1 - found.missing / len(cohort))
    carried = [((cohort[kinds == k] > 0).sum(0)) for k in (TRANSITION, TRANSVERSION)]
    np.testing.assert_allclose(found.ti_tv, carried[0] / carried[1])


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.lists(st.integers(0, 60), max_size=4))
def test_any_division_of_the_variants_gives_the_same_sums(seed: int, cuts: list[int]) -> None:
    dosages, cuts = genotypes(60, 23, seed, 0.1), sorted(cuts)
    kinds = np.random.default_rng(seed).integers(0, 3, 60)
    whole, parts = summed(dosages, kinds, []), summed(dosages, kinds, cuts)
    for field in fields(whole):
        np.testing.assert_allclose(getattr(parts, field.name), getattr(whole, field.name), rtol=1e-12, atol=1e-12)
    for (a, b), one in zip(places := tiles(23, 10), tile_sums(dosages, [], 10), strict=True):
        other = tile_sums(dosages, cuts, 10)[places.index((a, b))]
        assert PairSums.unpack(other.pack()).pack() == one.pack()
    q = np.random.default_rng(seed).normal(size=(23, 4))
    products = [sum(gram_product(standardised(b), q) for b in blocks(dosages, c)) for c in ([], cuts)]
    np.testing.assert_allclose(products[0], products[1], rtol=1e-4, atol=1e-3)


def tile_sums(dosages: np.ndarray, cuts: list[int], size: int) -> list[PairSums]:
    places = tiles(dosages.shape[1], size)
    total = [PairSums.empty(a.stop - a.start, b.stop - b.start) for a, b in places]
    for block in blocks(dosages, cuts):
        part = [PairSums.empty(a.stop - a.start, b.stop - b.start) for a, b in places]
        add_pairs(part, places, block)
        total = [x + y for x, y in zip(total, part, strict=True)]
    return total


def relatives(
    dosages: np.ndarray, threshold: float = -math.inf, size: int = 50
) -> dict[tuple[int, int], tuple[float, ...]]:
    found = {}
    for place, sums in zip(tiles(dosages.shape[1], size), tile_sums(dosages, [333], size), strict=True):
        p = king.kinship(sums, place, threshold)
        rows = zip(p.first, p.second, p.variants, p.het_het, p.ibs0, p.kinship, strict=True)
        found.update({(int(i), int(j)): tuple(map(float, rest)) for i, j, *rest in rows})
    return found


def test_kinship_is_that_of_plink(cohort: np.ndarray) -> None:
    found = relatives(cohort)
    rows = plink(cohort)("kin0", "--make-king-table", "counts")
    assert len(rows) == len(found) == 130 * 129 // 2
    pairs = [sorted((int(row[1][1:]), int(row[3][1:]))) for row in rows]
    ours, theirs = np.array([found[i, j] for i, j in pairs]), np.array([row[4:8] for row in rows], float)
    np.testing.assert_array_equal(ours[:, :3], theirs[:, :3])
    np.testing.assert_allclose(ours[:, 3], theirs[:, 3], atol=1e-6)


@pytest.mark.parametrize("missing", [0.0, 0.02, 0.3])
def test_kinship_by_hand(missing: float) -> None:
    dosages = genotypes(700, 12, 3, missing)
    for (i, j), (variants, het_het, ibs0, kinship) in relatives(dosages, size=5).items():
        both = (dosages[:, i] >= 0) & (dosages[:, j] >= 0)
        a, b = dosages[both, i].astype(int), dosages[both, j].astype(int)
        assert (variants, het_het, ibs0) == (both.sum(), ((a == 1) & (b == 1)).sum(), (abs(a - b) == 2).sum())
        assert kinship == pytest.approx(
            0.5 - ((a - b) ** 2).sum() / (4 * min((a == 1).sum(), (b == 1).sum())), abs=1e-12
        )
    close = relatives(dosages, THIRD_DEGREE, 5)
    assert {(0, 1), (1, 2), (3, 4)} <= set(close)
    assert close[3, 4][3] == 0.5 and close[0, 1][3] == pytest.approx(0.25, abs=0.1)
    assert all(values[3] > THIRD_DEGREE for values in close.values())


def test_kinship_of_many_homozygous_variants() -> None:
    dosages = np.random.default_rng(0).choice([0, 2], (2000, 6), p=[0.9, 0.1]).astype(np.int8)
    dosages[:700] = np.array([0, 0, 2, 2, 1, -1])
    dosages[1900:, :4] = 1
    for (i, j), (variants, het_het, ibs0, _) in relatives(dosages).items():
        a, b = dosages[:, i], dosages[:, j]
        expected = (
            ((a >= 0) & (b >= 0)).sum(),
            ((a == 1) & (b == 1)).sum(),
            ((a == 0) & (b == 2) | (a == 2) & (b == 0)).sum(),
        )
        assert (variants, het_het, ibs0) == expected


def informative(dosages: np.ndarray) -> np.ndarray:
    frequency = variant_statistics(histogram(dosages)).frequency
    return (frequency > 0) & (frequency < 1)


def components(dosages: np.ndarray, count: int, passes: int = 20) -> Components:
    def product(q: np.ndarray) -> np.ndarray:
        return sum((gram_product(standardised(block), q) for block in blocks(dosages, [400, 900])), np.zeros(q.shape))

    variants = int(informative(dosages).sum())
    return principal_components(product, dosages.shape[1], variants, count, passes=passes)


def test_components_are_eigenvectors() -> None:
    dosages = genotypes(1500, 130, 1, 0.03)
    z = standardised(dosages).astype(np.float64)
    np.testing.assert_allclose(z[3], reference_z(dosages[3]), atol=1e-5)
    found = components(dosages, 5)
    values, vectors = np.linalg.eigh(z.T @ z / informative(dosages).sum())
    values, vectors = values[::-1], vectors[:, ::-1]
    apart = np.flatnonzero((values[:5] - values[1:6]) / values[:5] > 0.05)
    assert {0, 1} <= set(apart)
    np.testing.assert_allclose(found.values, values[:5], rtol=1e-5)
    assert (np.abs((found.vectors * vectors[:, :5]).sum(0))[apart] > 1 - 1e-6).all()
    assert (found.residuals < 1e-4).all() and found.passes < 20
    np.testing.assert_allclose(found.vectors.T @ found.vectors, np.eye(5), atol=1e-5)
    assert (found.vectors[np.abs(found.vectors).argmax(0), np.arange(5)] > 0).all()
    again = components(dosages, 5)
    assert again.vectors.tobytes() == found.vectors.tobytes()


def reference_z(row: np.ndarray) -> np.ndarray:
    p = row[row >= 0].mean() / 2
    return np.where(row < 0, 0, (row - 2 * p) / math.sqrt(2 * p * (1 - p)))


def test_components_of_few_samples() -> None:
    dosages = genotypes(200, 8, 4, 0.0)
    z = standardised(dosages).astype(np.float64)
    found = components(dosages, 6)
    np.testing.assert_allclose(
        found.values, np.linalg.eigvalsh(z.T @ z / informative(dosages).sum())[::-1][:6], rtol=1e-4, atol=1e-4
    )


def test_components_are_those_of_plink(cohort: np.ndarray) -> None:
    kept = cohort[informative(cohort)]
    call = plink(kept)
    found = components(kept, 3)
    vectors = np.array([row[2:] for row in call("eigenvec", "--pca", "3", "meanimpute")], float)
    np.testing.assert_allclose(
        found.values, [float(row[0]) for row in call("eigenval", "--pca", "3", "meanimpute")], rtol=1e-5
    )
    assert (np.abs((found.vectors * vectors).sum(0)) > 1 - 1e-6)[:2].all()


def pruned(dosages: np.ndarray, cuts: list[int], *settings: float) -> list[int]:
    window, step, threshold, by_position = settings
    pruner = Pruner(int(window), int(step), threshold, bool(by_position))
    at = positions(len(dosages))
    for block, where in zip(np.split(dosages, cuts), np.split(at, cuts), strict=True):
        pruner.add(block, where)
    return np.flatnonzero(pruner.finish()).tolist()


@pytest.mark.parametrize(
    ("window", "step", "threshold"),
    [
        ("50", 5, 0.2),
        ("20", 1, 0.5),
        ("300", 7, 0.1),
        ("3000", 1, 0.2),
        ("2", 2, 0.3),
        ("10kb", 1, 0.2),
        ("300kb", 1, 0.05),
    ],
)
def test_pruning_is_that_of_plink(cohort: np.ndarray, window: str, step: int, threshold: float) -> None:
    kilobases = window.endswith("kb")
    rows = plink(cohort)("prune.in", "--indep-pairwise", window, *([] if kilobases else [str(step)]), str(threshold))
    size = int(window.removesuffix("kb")) * (1000 if kilobases else 1)
    kept = pruned(cohort, [10, 777], size, step, threshold, kilobases)
    assert kept == [int(row[0][1:]) for row in rows]
    assert 0 < len(kept) < len(cohort)


@settings(max_examples=12, deadline=None)
@given(
    st.integers(0, 1000),
    st.lists(st.integers(0, 150), max_size=4),
    st.integers(2, 60),
    st.integers(1, 20),
    st.booleans(),
    st.sampled_from([0.0, 0.05, 0.4]),
)
def test_pruning_does_not_depend_on_blocks(
    seed: int, cuts: list[int], window: int, step: int, by_position: bool, missing: float
) -> None:
    dosages = genotypes(150, 20, seed, missing)
    size = window * (100 if by_position else 1)
    kept = pruned(dosages, sorted(cuts), size, step, 0.3, by_position)
    assert kept == pruned(dosages, [], size, step, 0.3, by_position)
    # What stays is not correlated within the window that begins with it, whatever was removed.
    at = positions(150)
    for i in kept:
        for j in (j for j in kept if j > i and (at[j] - at[i] <= size if by_position else j - i < window - step)):
            both = (dosages[i] >= 0) & (dosages[j] >= 0)
            a, b = dosages[i][both].astype(float), dosages[j][both].astype(float)
            if a.size and a.std() > 0 and b.std() > 0:
                assert np.corrcoef(a, b)[0, 1] ** 2 <= 0.3 + 1e-9


def test_means_of_depth() -> None:
    values = np.random.default_rng(0).integers(-1, 60, (300, 40)).astype(np.int32)
    values[3], values[:, 2] = -1, -1
    by_variant, by_sample = measures(values)
    for found, rows in ((by_variant, values), (by_sample, values.T)):
        expected = [row[row >= 0].mean() if (row >= 0).any() else math.nan for row in rows]
        np.testing.assert_allclose(found.mean(), expected)


def test_subfields_of_sample_columns() -> None:
    texts = [b"12:99\t.:5\t\t7", b"3:x:8\t4:\t1234567890:2\t0:0"]
    assert subfield(texts, 0, 4).tolist() == [[12, -1, -1, 7], [3, 4, -1, 0]]
    assert subfield(texts, 1, 4).tolist() == [[99, 5, -1, -1], [-1, -1, 2, 0]]
    assert subfield(texts, 2, 4).tolist() == [[-1] * 4, [8, -1, -1, -1]]
    with pytest.raises(ValueError, match="expected 3"):
        subfield(texts, 0, 3)
