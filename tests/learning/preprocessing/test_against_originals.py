"""Normalisation and batch correction against edgeR, DESeq2, preprocessCore and sva on 200 simulated count sets:
`make goldens` asks them again."""

from __future__ import annotations

import gzip
from functools import cache

import numpy as np
import pytest

from genodl_spark.learning.preprocessing import About, Rows, Step, step_of
from genodl_spark.learning.preprocessing.combat import fitted
from tests.goldens import FOLDER, answer

HERE = FOLDER / "normalisation"
NEAR = 1e-6


@cache
def answers() -> dict[tuple[int, str], np.ndarray]:
    """What the originals say of every set, (samples, numbers), by set and quantity."""
    inputs = {
        "originals.R": (HERE / "originals.R").read_bytes(),
        "counts.tsv": gzip.decompress((HERE / "counts.tsv.gz").read_bytes()),
    }
    found: dict[tuple[int, str], list[list[float]]] = {}
    for line in answer(["Rscript", "originals.R"], inputs, "answers.tsv"):
        if not line.startswith("#"):
            number, what, *values = line.split("\t")
            found.setdefault((int(number), what), []).append([float(v) if v != "NA" else np.nan for v in values])
    return {key: np.array(value) for key, value in found.items()}


@cache
def sets() -> dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Counts float64 (samples, genes), batch from 0 and class of every set."""
    text = gzip.decompress((HERE / "counts.tsv.gz").read_bytes()).decode()
    table = np.array([line.split("\t") for line in text.splitlines()[1:]], np.float64)
    of = {int(s): table[table[:, 0] == s] for s in np.unique(table[:, 0])}
    return {s: (rows[:, 3:], rows[:, 1].astype(int) - 1, rows[:, 2].astype(int)) for s, rows in of.items()}


def done(step: Step, x: np.ndarray, batch: np.ndarray | None = None, names: tuple[str, ...] = ()) -> Rows:
    """Rows after a step that was fitted on all of them."""
    rows = Rows(x, np.zeros(len(x), int) if batch is None else batch)
    return step.apply(rows, step.fit(rows, About(names)))


def expected(what: str) -> dict[int, np.ndarray]:
    found = {number: value for (number, name), value in answers().items() if name == what}
    assert found
    return found


def test_tmm_and_log_cpm_are_those_of_edger() -> None:
    log = expected("log_cpm")
    factors = expected("tmm")
    assert len(log) == len(factors) == 200
    for number, (counts, _, _) in sets().items():
        rows = done(step_of("tmm", {}), counts)
        assert rows.sizes is not None
        np.testing.assert_allclose(rows.sizes / counts.sum(1), factors[number][:, 0], rtol=NEAR)
        log_cpm = step_of("log_cpm", {})
        found = log_cpm.apply(rows, log_cpm.fit(rows, About())).x
        np.testing.assert_allclose(found, log[number], rtol=NEAR)


@pytest.mark.parametrize("form", ["ratio", "poscounts"])
def test_median_of_ratios_is_that_of_deseq2(form: str) -> None:
    for number, factors in expected(f"median_of_ratios:{form}").items():
        counts = sets()[number][0]
        found = done(step_of("median_of_ratios", {"positive": form == "poscounts"}), counts).x
        np.testing.assert_allclose(found, counts / factors, rtol=NEAR)


@pytest.mark.parametrize("form", ["counts", "whole", "missing"])
def test_quantile_is_that_of_preprocesscore(form: str) -> None:
    """Counts have ties, which take the mean of their ranks."""
    for number, normalised in expected(f"quantile:{form}").items():
        counts = sets()[number][0]
        x = counts if form == "counts" else exact(number)
        if form == "missing":
            x = np.where(counts == 0, np.nan, x)
            assert np.isnan(x).any() or (counts > 0).all()
        np.testing.assert_allclose(done(step_of("quantile", {}), x).x, normalised, rtol=NEAR)


def exact(number: int) -> np.ndarray:
    """Log-CPM of a set, of which the answers have 8 digits only."""
    rows = done(step_of("tmm", {}), sets()[number][0])
    step = step_of("log_cpm", {})
    return step.apply(rows, step.fit(rows, About())).x


@pytest.mark.parametrize(
    ("form", "options"),
    [
        ("plain", {}),
        ("mean_only", {"mean_only": True}),
        ("reference", {"reference": "1"}),
        ("nonparametric", {"parametric": False}),
        ("missing", {}),
    ],
)
def test_combat_is_that_of_sva(form: str, options: dict[str, object]) -> None:
    compared = 0
    for number, corrected in expected(f"combat:{form}").items():
        x, batch = exact(number).round(10), sets()[number][1]
        if form == "missing":
            gene, sample = np.meshgrid(np.arange(x.shape[1]) + 1, np.arange(len(x)) + 1)
            x = np.where((gene * 7 + sample * 5) % 23 == 0, np.nan, x)
            if any(np.nanstd(x[np.ix_(batch == b, np.isnan(x).any(0))], 0).min() == 0 for b in np.unique(batch)):
                continue  # sva does not see that a gene with missing values is constant, and divides by 0
        compared += 1
        found = done(step_of("combat", options), x, batch, ("1", "2", "3")[: batch.max() + 1]).x
        np.testing.assert_allclose(found, corrected, rtol=NEAR, atol=NEAR)
    assert compared >= 28


def test_combat_beside_classes_is_that_of_sva() -> None:
    """There the effect of a class is put back, which a row without a class cannot have: what is learnt is the same."""
    for number, corrected in expected("combat:classes").items():
        x, (_, batch, classes) = exact(number).round(10), sets()[number]
        batches = batch.max() + 1
        design = classes[:, None].astype(float)
        made = fitted(x, batch, batches, design)
        whole = np.concatenate([batch[:, None] == np.arange(batches), design], 1)
        of_class = design * np.linalg.lstsq(whole, x, rcond=None)[0][-1]
        varies = made["spread"] != 1
        z = (x - of_class - made["mean"]) / made["spread"]
        z = (z - made["gamma"][batch]) / np.sqrt(made["delta"][batch])
        found = np.where(varies, z * made["spread"] + made["mean"] + of_class, x)
        np.testing.assert_allclose(found, corrected, rtol=NEAR, atol=NEAR)
