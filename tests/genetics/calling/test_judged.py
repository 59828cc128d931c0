"""Likelihood and network as one decision: by cases worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from genodl_spark.genetics.calling.genotypes import Site, pairs
from genodl_spark.genetics.calling.judged import alone, judged, together


def site(
    posterior: list[float], genotype: tuple[int, int] | None, alts: tuple[str, ...] = ("G",), ref: str = "A"
) -> Site:
    chances = np.array(posterior)
    pl = np.zeros(len(chances), np.int64)
    return Site(9, ref, alts, genotype, pl, chances, 30.0, np.zeros(len(alts) + 1, np.int64), 20)


def said(*chances: float) -> np.ndarray:
    return np.array(chances)


def test_one_allele_has_the_chances_of_the_network() -> None:
    made = judged(site([0.1, 0.8, 0.1], (0, 1)), {(9, "A", "G"): said(0.001, 0.199, 0.8)})
    assert made is not None
    assert made.site.genotype == (1, 1)
    assert made.site.posterior == pytest.approx([0.001, 0.199, 0.8])
    assert made.site.variant == pytest.approx(30)
    assert made.site.quality == pytest.approx(-10 * np.log10(0.2))
    assert not made.overruled


@pytest.mark.parametrize(("wrong", "stays"), [(9e-6, True), (2e-5, False)])
def test_no_silent_reference_call_where_the_likelihood_is_sure(wrong: float, stays: bool) -> None:
    before = site([wrong, 1 - wrong, 0], (0, 1))
    made = judged(before, {(9, "A", "G"): said(0.999, 0.001, 0)})
    assert made is not None
    assert made.overruled is stays
    assert made.site.genotype == ((0, 1) if stays else (0, 0))
    assert (made.site is before) is stays


def test_a_reference_call_of_both_is_no_overruling() -> None:
    made = judged(site([1 - 1e-9, 1e-9, 0], (0, 0)), {(9, "A", "G"): said(0.9, 0.1, 0)})
    assert made is not None
    assert (made.site.genotype, made.overruled) == ((0, 0), False)


def test_several_alleles_share_two_chromosomes() -> None:
    genotypes = pairs(3)
    found = together(np.array([[0.1, 0.6, 0.3], [0.2, 0.7, 0.1]]), genotypes)
    expected = {
        (0, 0): 0.1 * 0.2,
        (0, 1): 0.6 * 0.2,
        (1, 1): 0.3 * 0.2,
        (0, 2): 0.1 * 0.7,
        (1, 2): 0.6 * 0.7,
        (2, 2): 0.01,
    }
    assert found == pytest.approx(np.array([expected[one] for one in genotypes]) / sum(expected.values()))
    assert genotypes[int(found.argmax())] == (1, 2)


def test_alleles_are_found_by_how_they_are_written_alone() -> None:
    assert alone(9, "AT", "GT") == (9, "A", "G")
    assert alone(9, "ATT", "AT") == (9, "AT", "A")
    assert alone(9, "ATT", "ATTT") == (9, "A", "AT")
    of = site([0.01, 0.2, 0.09, 0.2, 0.4, 0.1], (1, 2), ("A", "ATTT"), "ATT")
    network = {(9, "ATT", "A"): said(0.05, 0.9, 0.05), (9, "A", "AT"): said(0.04, 0.95, 0.01)}
    made = judged(of, network)
    assert made is not None
    assert made.site.genotype == (1, 2)
    assert made.network.tolist() == [[0.05, 0.9, 0.05], [0.04, 0.95, 0.01]]
    assert judged(of, {(9, "ATT", "A"): said(0.05, 0.9, 0.05)}) is None
    assert judged(site([1, 0, 0], None), {(9, "A", "G"): said(0.9, 0.1, 0)}) is None
