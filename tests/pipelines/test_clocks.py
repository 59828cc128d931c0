"""A published clock in a lake: its answers, and what values that a sample lacks may do to them, by the coefficients and
the conditional Gaussian alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from genodl_spark.job import config
from genodl_spark.job.run import Report, Run
from genodl_spark.lake.delta import Lake
from genodl_spark.lake.tables.learning import PREDICTIONS
from genodl_spark.learning import predictor
from genodl_spark.learning.preprocessing import Rows
from genodl_spark.registry.models import chosen_model
from jobs import ingest, predict, train, tune

PROBES = [f"cg{i:08}" for i in range(9)]
WEIGHTS = {"cg00000007": 2.5, "cg00000000": -1.5, "cg00000003": 4.0, "cg00000005": -0.8, "cg00000002": 1.2}
INTERCEPT = -2.0
PEOPLE = 24
# of the second cohort, which probes of the clock each lacks
LACKS = {"whole": [], "one": ["cg00000003"], "two": ["cg00000007", "cg00000002"], "all": list(WEIGHTS)}


def years(found: np.ndarray) -> np.ndarray:
    """Horvath's transform back, as the paper writes it."""
    return np.where(found < 0, 21 * np.exp(found) - 1, 21 * found + 20)


def shares(seed: int, rows: int) -> np.ndarray:
    draw = np.random.default_rng(seed)
    axis = draw.normal(size=(rows, 1)) * np.random.default_rng(1).normal(size=(1, len(PROBES)))
    return (1 / (1 + np.exp(-axis - 0.3 * draw.normal(size=(rows, len(PROBES)))))).round(4)


def matrix(path: Path, names: list[str], values: list[list[str]]) -> str:
    lines = [["id", *names], *([probe, *row] for probe, row in zip(PROBES, zip(*values, strict=True), strict=True))]
    path.write_text("".join("\t".join(line) + "\n" for line in lines))
    return str(path)


def test_a_clock_answers_and_says_what_missing_values_may_do(genodl, lake: Lake, tmp_path: Path) -> None:
    at, names = ("--lake", lake.uri), [f"p{i:02}" for i in range(PEOPLE)]
    learnt, asked = shares(2, PEOPLE), shares(3, len(LACKS))
    clock, table = tmp_path / "clock.tsv", tmp_path / "samples.tsv"
    lines = [f"{probe}\t{weight}" for probe, weight in WEIGHTS.items()]
    clock.write_text("\n".join(["CpG\tCoefficient", f"(Intercept)\t{INTERCEPT}", *lines, ""]))
    # who has no age has a clock's answer, and teaches what fills
    table.write_text(
        "sample_id\tage\n" + "".join(f"{name}\t{'NA' if i < 3 else 20 + i}\n" for i, name in enumerate(names))
    )
    path = matrix(tmp_path / "learnt.tsv", names, [[str(v) for v in row] for row in learnt])
    assert genodl(ingest, "methylation", path, "--samples", str(table), "--cohort", "learnt", *at)[0] == 0
    cells = [
        ["NA" if probe in lacks else str(value) for probe, value in zip(PROBES, row, strict=True)]
        for lacks, row in zip(LACKS.values(), asked, strict=True)
    ]
    path = matrix(tmp_path / "asked.tsv", list(LACKS), cells)
    assert genodl(ingest, "methylation", path, "--cohort", "asked", *at)[0] == 0

    chosen = ("--cohort", "learnt", "--label", "age", "--set", f"clock.file={clock}", "--set", "train.loss=age", *at)
    quiet = ("--set", "tracking.uri=off", "--set", "split.folds=3", "--set", "split.repeats=1")
    code, _, line = genodl(tune, "methylation", *chosen, *quiet)
    assert (
        code == 2 and "clock.file: found" in line and "tune nothing to search" in line and "train takes it" in line
    ), line
    code, report, line = genodl(train, "methylation", *chosen, *quiet, "--procs", "1")
    assert code == 0, line
    for cohort in ("learnt", "asked"):
        code, report, line = genodl(predict, "methylation", "--cohort", cohort, "--label", "age", *at)
        assert (code, report["rows"]["predictions"]["written"]) == (
            0,
            {"learnt": PEOPLE, "asked": len(LACKS)}[cohort],
        ), line

    places, weights = [PROBES.index(probe) for probe in WEIGHTS], np.array(list(WEIGHTS.values()))
    rows = {row.entity_id: row for row in lake.read(PREDICTIONS).collect()}
    expected = years(learnt[:, places] @ weights + INTERCEPT)
    assert [rows[name].value for name in names] == pytest.approx(expected.tolist(), rel=1e-5)
    assert {(rows[name].low, rows[name].high, rows[name].filled) for name in [*names, "whole"]} == {(None, None, None)}

    model = chosen_model(Run(Report("test"), config.load("methylation"), lake.uri), "age", None)
    loaded = predictor.load(model.files)
    features = list(model.card.features)
    assert set(features) == set(WEIGHTS) and loaded.chain is not None
    own, weights = learnt[:, [PROBES.index(f) for f in features]], np.array([WEIGHTS[f] for f in features])
    tensors = loaded.chain.tensors_of(0, loaded.treatment)
    np.testing.assert_allclose(tensors["mean"], own.mean(0), rtol=1e-5)  # of all 24 people
    whole = tensors["loadings"] @ tensors["loadings"].T + np.diag(tensors["noise"])
    for (name, lacks), values in zip(LACKS.items(), asked, strict=True):
        row, known = rows[name], np.array([f not in lacks for f in features])
        x = values[[PROBES.index(f) for f in features]]
        gain = whole[np.ix_(~known, known)] @ np.linalg.inv(whole[np.ix_(known, known)])
        x[~known] = tensors["mean"][~known] + gain @ (x - tensors["mean"])[known]
        assert row.value == pytest.approx(float(years(x @ weights + INTERCEPT)), rel=1e-4), name
        assert (row.filled or 0) == len(lacks)
        if lacks:
            lacking = np.where(known, x, np.nan)
            drawn = loaded.chain.steps[0].draw(Rows(np.repeat(lacking[None], 400, 0), np.zeros(400, int)), tensors).x
            ends = np.quantile(years(drawn @ weights + INTERCEPT), [0.025, 0.975])
            assert [row.low, row.high] == pytest.approx(ends.tolist(), rel=1e-3), name
            assert row.low < row.value < row.high
    widths = [rows[name].high - rows[name].low for name in ("one", "all")]
    assert widths[0] < widths[1]
