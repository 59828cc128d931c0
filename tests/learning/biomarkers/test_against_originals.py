"""Tests of differences against DESeq2 and limma on four simulated count sets: `make goldens` asks them again."""

from __future__ import annotations

import gzip
from functools import cache

import numpy as np
import pytest

from genodl_spark.learning.biomarkers import enrichment, moderated, negative_binomial
from tests.goldens import FOLDER, answer

HERE = FOLDER / "differential"
SETS = range(4)
NEAR = 1e-9


@cache
def answers() -> dict[tuple[int, str], np.ndarray]:
    inputs = {
        "originals.R": (HERE / "originals.R").read_bytes(),
        "counts.tsv": gzip.decompress((HERE / "counts.tsv.gz").read_bytes()),
    }
    found = {}
    for line in answer(["Rscript", "originals.R"], inputs, "answers.tsv"):
        if not line.startswith("#"):
            number, what, *values = line.split("\t")
            found[int(number), what] = np.array([float(v) if v != "NA" else np.nan for v in values])
    return found


@cache
def counts(number: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Counts (samples, genes), the class of each sample, and how many classes there are."""
    text = gzip.decompress((HERE / "counts.tsv.gz").read_bytes()).decode()
    table = np.array([line.split("\t") for line in text.splitlines()[1:]], np.float64)
    rows = table[table[:, 0] == number]
    codes = rows[:, 1].astype(int)
    return rows[:, 2:], codes, codes.max() + 1


@pytest.mark.parametrize("number", SETS)
def test_counts_are_tested_as_deseq2_does(number: int) -> None:
    x, codes, classes = counts(number)
    found = negative_binomial.compare(x, codes, classes)
    np.testing.assert_allclose(found.p_value, answers()[number, "p"], rtol=0, atol=NEAR)
    small = answers()[number, "p"] < 1e-3
    assert small.sum() > 10
    np.testing.assert_allclose(np.log(found.p_value[small]), np.log(answers()[number, "p"][small]), rtol=1e-6)
    np.testing.assert_allclose(found.q_value, answers()[number, "q"], rtol=0, atol=NEAR)
    np.testing.assert_allclose(found.statistic, answers()[number, "statistic"], rtol=1e-6)
    if classes == 2:
        np.testing.assert_allclose(found.effect, answers()[number, "effect"], rtol=NEAR)
    assert found.reason[0] == "no counts" and np.isnan(found.p_value[0]) and (found.reason[1:] == "").all()


@pytest.mark.parametrize("number", SETS)
def test_dispersions_are_those_of_deseq2(number: int) -> None:
    x, codes, classes = counts(number)
    has = x.sum(0) > 0
    size = negative_binomial.size_factors(x[:, has])
    np.testing.assert_allclose(size, answers()[number, "sizes"], rtol=NEAR)
    found = negative_binomial.dispersions(x[:, has], size, codes, classes)
    np.testing.assert_allclose(found.genewise, answers()[number, "genewise"][has], rtol=NEAR)
    np.testing.assert_allclose(found.coefficients, answers()[number, "trend"], rtol=NEAR)
    np.testing.assert_allclose(found.prior, answers()[number, "prior"][0], rtol=NEAR)
    np.testing.assert_allclose(found.used, answers()[number, "used"][has], rtol=NEAR)


@pytest.mark.parametrize("form", ["plain", "trend", "missing"])
@pytest.mark.parametrize("number", SETS)
def test_measured_values_are_tested_as_limma_does(number: int, form: str) -> None:
    _, codes, classes = counts(number)
    if form == "missing" and classes > 2:
        return  # its F then takes coefficients of all genes to go together as those of a gene without missing values
    x = answers()[number, "logs"].reshape(len(codes), -1)
    if form == "missing":
        gene, sample = np.meshgrid(np.arange(x.shape[1]) + 1, np.arange(len(x)) + 1)
        x = np.where((gene * 7 + sample * 5) % 23 == 0, np.nan, x)
    found = moderated.compare(x, codes, classes, trend=form == "trend")
    np.testing.assert_allclose(found.statistic, answers()[number, f"limma:{form}:statistic"], rtol=NEAR)
    np.testing.assert_allclose(found.p_value, answers()[number, f"limma:{form}:p"], rtol=NEAR)
    if classes == 2:
        np.testing.assert_allclose(found.effect, answers()[number, f"limma:{form}:effect"], rtol=NEAR, atol=NEAR)


@pytest.mark.parametrize("number", SETS)
def test_sets_of_genes_are_tested_as_limma_does(number: int) -> None:
    statistic = answers()[number, "statistic"]
    statistic = statistic[~np.isnan(statistic)]
    sets = [np.arange(first, len(statistic), 7) for first in range(6)]
    found = enrichment.enriched(sets, statistic > 2, statistic, signed=True)
    np.testing.assert_allclose(found.p_shift, answers()[number, "camera:p"], rtol=NEAR)
    assert (found.shift > 0).tolist() == answers()[number, "camera:up"].astype(bool).tolist()
