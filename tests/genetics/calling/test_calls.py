"""Which sites leave as records, and with which FILTER, by likelihood and network."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from genodl_spark.genetics.calling.alleles import Allele
from genodl_spark.genetics.calling.calls import recorded as made
from genodl_spark.genetics.calling.calls import rows
from genodl_spark.genetics.calling.genotypes import Site

HET = Site(99, "A", ("G",), (0, 1), np.array([40, 0, 60]), np.array([1e-4, 0.9998, 1e-4]), 40.0, np.array([9, 8]), 18)
NONE = replace(HET, genotype=(0, 0), posterior=np.array([0.9, 0.1, 0.0]), variant=0.5)
PLACE = (99, "A", "G")


def test_a_site_without_another_allele_leaves_where_it_was_asked_for() -> None:
    assert [r.site.genotype for r in made([HET, NONE], [], 3)] == [(0, 1)]
    asked = [Allele(99, 100, b"G"), Allele(200, 201, b"T")]
    assert [(r.site.genotype, r.filter) for r in made([NONE], asked, 3)] == [((0, 0), "PASS")]
    assert [r.filter for r in made([replace(HET, genotype=None)], asked, 3)] == ["NoReads"]
    # an insertion at the same base of a VCF is another site
    assert made([NONE], [Allele(100, 100, b"T")], 3) == []
    assert [r.filter for r in made([replace(HET, variant=2.9)], [], 3)] == ["LowQual"]


@pytest.mark.parametrize(
    ("site", "filters"),
    [
        (HET, []),  # the likelihood has GQ 37
        (replace(HET, posterior=np.array([1e-7, 1, 1e-7])), ["NetworkReference"]),
        (replace(HET, shown=True), ["NetworkReference"]),
        (NONE, []),
    ],
)
def test_a_network_undoes_no_call_that_is_sure(site: Site, filters: list[str]) -> None:
    found = made([site], [], 3, {PLACE: np.array([0.98, 0.01, 0.01])})
    assert [r.filter for r in found] == filters
    for record in found:
        assert record.site.genotype == (0, 1) and record.quality == site.variant
        assert record.calls[0].evidence["network_0"] == 0.98 and record.calls[0].evidence["likelihood_0/1"] > 0.99


def test_a_network_changes_what_is_not_sure() -> None:
    (record,) = made([NONE], [], 3, {PLACE: np.array([0.001, 0.009, 0.99])})
    assert (record.site.genotype, record.filter, record.calls[0].quality) == ((1, 1), "PASS", 20)
    assert record.quality == pytest.approx(30, abs=0.01) and record.site.pl.tolist() == [40, 0, 60]
    (row,) = rows([record], "1", "chr1", ["s"], {"cohort": "c", "fingerprint": "f", "model_id": "m"}).to_pylist()
    assert (row["pos"], row["gt"], row["gq"], row["ad"], row["model_id"]) == (100, "1/1", 20, [9, 8], "m")
    assert dict(row["evidence"])["likelihood_0/0"] == 0.9
