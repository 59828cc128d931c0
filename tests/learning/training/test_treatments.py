"""Steps before networks, from training over the model's files to a score, without Spark."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load, save

from genodl_spark.core.errors import InputError
from genodl_spark.learning import baseline_fits, feed, heads
from genodl_spark.learning.baseline_fits import Fits
from genodl_spark.learning.model_files import Card, new_card
from genodl_spark.learning.predictor import Predictor
from genodl_spark.learning.preprocessing import Chain
from genodl_spark.learning.settings import Train
from genodl_spark.learning.training import plan, rank
from tests.learning.test_feed import write
from tests.learning.training.test_ranks import launched
from tests.learning.training.test_training import OPTIONS, scores

NAMES = [*(f"g{i}" for i in range(30)), "covariate:age", "covariate:lab=a", "covariate:lab=b"]
STEPS = ["impute_median", "low_counts", "tmm", "log_cpm", "combat"]
ENDS = {"combat": {"unseen": "reference"}, "low_counts": {"least": 1.0}}


def table(rows: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Counts of 30 genes whose first three tell two classes, age, and indicators of two labs; and the classes."""
    generator = np.random.default_rng(8)
    target, lab = generator.integers(0, 2, rows).astype(float), np.arange(rows) % 2
    means = np.exp(generator.normal(4, 1, 30)) * np.exp(lab[:, None] * generator.normal(0, 1, 30))
    means[:, :3] *= np.exp(2 * target[:, None])
    counts = generator.poisson(means * generator.uniform(0.5, 2, (rows, 1))).astype(np.float32)
    counts[generator.random(counts.shape) < 0.03] = np.nan
    counts[:, 29] = 0
    age = generator.normal(50, 9, (rows, 1))
    return np.concatenate([counts, age, lab[:, None] == [0, 1]], 1).astype(np.float32), target


def job(folder: Path, x: np.ndarray, target: np.ndarray, folds: int = 3, **more: object) -> plan.Job:
    codes = (np.random.default_rng(1).permutation(len(x)) % 3)[:, None].astype(np.int8)
    folder.mkdir(exist_ok=True)
    files = write(folder, x, target, codes, 2, 16)
    options = Train().model_copy(update={**OPTIONS, "dtype": "float32", "epochs": 30, "learning_rate": 0.02})
    made = plan.Job(
        files,
        feed.Layout(len(x), x.shape[1], "float32", 1),
        "pyarrow",
        1 << 30,
        heads.one("label", ["c0", "c1"]),
        folds,
        "none",
        1.0,
        0,
        {"kind": "mlp", "hidden": [8]},
        options,
        5,
        str(folder / "staging"),
        threads=1,
        chain=Chain(STEPS, ENDS, NAMES, "lab"),
    )
    return replace(made, **more)  # type: ignore[arg-type]


def card() -> Card:
    options = dict(ENDS)
    return new_card(
        heads.one("label", ["c0", "c1"]),
        model_id="m",
        task="t",
        label_column="label",
        features=NAMES,
        dtype="float32",
        transform="none",
        model={"kind": "mlp", "hidden": [8]},
        members=2,
        batch=16,
        steps=STEPS,
        options=options,
        batches="lab",
    )


def test_networks_baselines_and_the_model_see_treated_rows(tmp_path: Path) -> None:
    x, target = table()
    j = job(tmp_path / "a", x, target, 0)
    result = rank.run_alone(j)
    weights = (tmp_path / "a/staging/model.safetensors").read_bytes()
    predictor = Predictor(card(), weights, "m", device="cpu")
    data = feed.read(j.files, j.layout, "pyarrow")
    held = np.flatnonzero(data.folds[:, 0] > 0)
    own = np.array([scores(j)[0, i] for i in held])
    np.testing.assert_allclose(predictor(x[held], calibrated=False), own, atol=1e-5)
    assert ((own[:, 1] > 0.5) == (target[held] > 0)).mean() > 0.8
    # what was fitted is there for the one training set of a fixed split, and is the model's
    stored = pq.read_table(tmp_path / "a/staging" / result["treatments"][0]).to_pylist()
    assert [(row["repeat"], row["fold"], row["rows"]) for row in stored] == [(0, -1, (data.folds[:, 0] == 0).sum())]
    fitted = load(stored[0]["tensors"])
    for name, value in fitted.items():
        np.testing.assert_array_equal(value, load(weights)[name])
    # a row's score depends neither on its neighbours nor on how many there are
    np.testing.assert_array_equal(predictor(x[:7])[3], predictor(x[3:4])[0])
    # a depth that all genes share changes nothing
    whole = x[held[~np.isnan(x[held]).any(1)]]
    deeper = whole.copy()
    deeper[:, :30] *= 64
    np.testing.assert_allclose(predictor(deeper)[:, 1], predictor(whole)[:, 1], atol=0.1)
    fits = Fits(j.files, j.layout, None, "none", j.heads, 0, 5, 1000, {}, None, {}, j.chain)
    rows, found = baseline_fits.fit(fits, "logistic", 0, 0, plan.REGISTERED)
    np.testing.assert_array_equal(rows, held)
    raw = baseline_fits.fit(replace(fits, chain=None), "logistic", 0, 0, plan.REGISTERED)[1]
    assert np.abs(raw - found).max() > 0.01
    assert ((found[:, 1] > 0.5) == (target[held] > 0)).mean() > 0.8


def test_what_is_held_out_changes_nothing_that_is_fitted(tmp_path: Path) -> None:
    x, target = table()
    first = job(tmp_path / "a", x, target)
    rank.run_alone(first)
    codes = feed.read(first.files, first.layout, "pyarrow").folds[:, 0]
    changed = x.copy()
    changed[codes == 1, :30] *= 100
    rank.run_alone(job(tmp_path / "b", changed, target))
    a, b = (
        {row["fold"]: load(row["tensors"]) for row in pq.read_table(tmp_path / n / "staging/treatments").to_pylist()}
        for n in "ab"
    )
    assert sorted(a) == [-1, 0, 1, 2]
    for name, value in a[1].items():
        np.testing.assert_array_equal(value, b[1][name])
    assert any((a[0][name] != b[0][name]).any() for name in a[0])


def test_an_outlier_of_training_is_not_learnt_from(tmp_path: Path) -> None:
    x, target = table()
    x[5, :30] = 0
    x[5, 7] = 1e9
    chain = Chain(["impute_median", "outliers", "tmm", "log_cpm"], {"outliers": {"deviations": 20.0}}, NAMES)
    j = job(tmp_path / "a", x, target, chain=chain)
    result = rank.run_alone(j)
    found = {r["fold"]: r["rows"] for r in pq.read_table(tmp_path / "a/staging" / result["treatments"][0]).to_pylist()}
    codes = feed.read(j.files, j.layout, "pyarrow").folds[:, 0]
    assert found[-1] == 59 and found[int(codes[5])] == (codes != codes[5]).sum()
    assert result["history"][0]["rows"] == 59
    assert (0, 5) in scores(j)


def test_a_batch_that_training_has_not_seen_is_refused(tmp_path: Path) -> None:
    x, target = table()
    j = job(tmp_path / "a", x, target, 0)
    rank.run_alone(j)
    weights = (tmp_path / "a/staging/model.safetensors").read_bytes()
    strict = replace(card(), options={"low_counts": {"least": 1.0}})
    new = x[:3].copy()
    new[:, 31:] = 0
    assert np.isfinite(Predictor(card(), weights, "m", device="cpu")(new)).all()
    with pytest.raises(InputError, match=r"found rows of a batch that no training row has; .*unseen to reference"):
        Predictor(strict, weights, "m", device="cpu")(new)
    new[:, 31:] = np.nan
    with pytest.raises(InputError, match=r"found rows without a batch; .*unseen to reference"):
        Predictor(strict, weights, "m", device="cpu")(new)


def test_genotypes_that_lack_are_imputed(tmp_path: Path) -> None:
    """Packed int8 in, numbers of any kind after the step, whether a batch is full or not."""
    generator = np.random.default_rng(2)
    x, target = generator.integers(-1, 3, (60, 33)).astype(np.int8), generator.integers(0, 2, 60).astype(float)
    x[:, :3] = 2 * target[:, None]
    x[:, 3] = np.where(generator.random(60) < 0.3, -1, np.arange(60) % 2)  # whose median may be a half
    chain = Chain(["impute_model"], {}, [f"s{i}" for i in range(33)])
    j = job(tmp_path / "a", x, target, 0, chain=chain, layout=feed.Layout(60, 33, "int8", 1))
    rank.run_alone(j)
    weights = (tmp_path / "a/staging/model.safetensors").read_bytes()
    ours = replace(
        card(), dtype="int8", features=[f"s{i}" for i in range(33)], steps=["impute_model"], options={}, batches=""
    )
    own = scores(j)
    held = sorted(row for _, row in own)
    found = Predictor(ours, weights, "m", device="cpu")(x[held], calibrated=False)
    np.testing.assert_allclose(found, np.array([own[0, i] for i in held]), atol=1e-5)


def test_two_ranks_treat_rows_as_one_process(tmp_path: Path) -> None:
    x, target = table()
    options = Train().model_copy(update={**OPTIONS, "epochs": 2})
    alone, two = (job(tmp_path / name, x, target, 2, options=options) for name in "ab")
    results = [launched(alone, "process"), launched(two, "horovodrun")]
    a, b = (
        {row["fold"]: load(row["tensors"]) for row in pq.read_table(tmp_path / n / "staging" / name).to_pylist()}
        for n, (name,) in zip("ab", (result["treatments"] for result in results), strict=True)
    )
    assert sorted(a) == sorted(b) == [-1, 0, 1]
    for fold, tensors in a.items():
        for name, value in tensors.items():
            np.testing.assert_array_equal(value, b[fold][name])
    for one, other in zip(*(result["history"] for result in results), strict=True):
        np.testing.assert_allclose(one["train"], other["train"], rtol=1e-9)  # in float64


def test_tensors_that_do_not_fit_the_card_are_refused(tmp_path: Path) -> None:
    x, target = table()
    rank.run_alone(job(tmp_path / "a", x, target, 0))
    tensors = load((tmp_path / "a/staging/model.safetensors").read_bytes())
    for name, value, text in (
        ("step.2.reference", np.ones(3), "step.2.reference has shape"),
        ("step.4.gamma", np.ones((3, 29)), "step.4.gamma has shape"),
        ("step.9.mean", np.ones(3), "step.9.mean is no tensor"),
    ):
        with pytest.raises(InputError, match=text):
            Predictor(card(), save({**tensors, name: value}), "m", device="cpu")
    with pytest.raises(InputError, match="step"):
        Predictor(replace(card(), steps=[], options={}), save(tensors), "m", device="cpu")
