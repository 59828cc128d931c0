"""The ridge regression beside a network over measured values: its fit, its penalty, what is read back."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load, save
from scipy.optimize import minimize
from sklearn.linear_model import Ridge

from genodl_spark.core.errors import InputError
from genodl_spark.learning import baselines, feed, heads, losses
from genodl_spark.learning.beside import ridge
from genodl_spark.learning.explain.explainer import Asked, Explainer
from genodl_spark.learning.explain.outputs import sums
from genodl_spark.learning.losses import huber
from genodl_spark.learning.model_files import mixtures
from genodl_spark.learning.predictor import Predictor
from genodl_spark.learning.training import rank
from genodl_spark.registry.scores import PARTS
from tests.learning.beside.test_forest import FEATURES, THREE, VALUE, card, job, tensors
from tests.learning.beside.test_linear import scored, weights


def rows_of(n: int, f: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    x = random.normal(size=(n, f)) + random.normal(size=f)
    return x, x[:, 0] - 2 * x[:, 1] + random.standard_t(2, n)


@pytest.mark.parametrize(("n", "f"), [(60, 7), (20, 45)])
def test_a_path_is_scikit_learns_ridge(n: int, f: int) -> None:
    x, y = rows_of(n, f)
    strengths = np.array([0.01, 0.5, 8.0])
    weights, intercepts = ridge.path(x, y, strengths, np.inf)
    for i, strength in enumerate(strengths):
        model = Ridge(n * strength).fit(x, y)
        np.testing.assert_allclose(weights[:, i], model.coef_, atol=1e-9)
        assert intercepts[i] == pytest.approx(model.intercept_, abs=1e-9)


def test_beyond_a_bound_errors_count_by_their_size() -> None:
    x, y = rows_of(80, 3)
    y[:4] += 60

    def summed(told: np.ndarray) -> float:
        return float(ridge.loss(x @ told[:3] + told[3] - y, 1.5).sum() + 80 * 0.2 * (told[:3] ** 2).sum())

    expected = minimize(summed, np.zeros(4), tol=1e-12)
    weights, intercepts = ridge.path(x, y, np.array([0.2]), 1.5)
    assert summed(np.array([*weights[:, 0], intercepts[0]])) == pytest.approx(expected.fun, rel=1e-4)
    squares, _ = ridge.path(x, y, np.array([0.2]), np.inf)
    assert np.abs(weights[:, 0] - expected.x[:3]).max() < 0.02 < np.abs(squares[:, 0] - expected.x[:3]).max()
    np.testing.assert_allclose(ridge.loss(np.array([-1.0, 2.0, -4.0]), 2), [1, 4, 12])


def test_the_penalty_suits_folds_that_are_held_out() -> None:
    random = np.random.default_rng(1)
    family = np.repeat(np.arange(12), 25)
    of_family = random.normal(size=(12, 8))[family]  # tells families apart, and by that their means
    x = np.concatenate([random.normal(size=(300, 1)), of_family + 0.01 * random.normal(size=(300, 8))], 1)
    y = 0.5 * x[:, 0] + 3 * random.normal(size=12)[family] + random.normal(size=300)
    z = ((x - x.mean(0)) / x.std(0)).astype(np.float32)
    inside, mixed = (
        ridge.fit(z, y[:, None], VALUE, fold, 0)["weight"] for fold in (family % 4, np.zeros(300, np.int64))
    )
    assert np.abs(inside[1:]).sum() < 0.5 * np.abs(mixed[1:]).sum()


def test_what_is_stored_answers_as_it_was_fitted_and_other_heads_have_nothing() -> None:
    x, y = rows_of(90, 7)
    z = ((x - x.mean(0)) / x.std(0)).astype(np.float32)
    target = np.stack([np.arange(90) % 3, y], 1)
    target[::5, 1] = np.nan
    fold = np.arange(90) // 6 % 5
    fitted = ridge.fit(z, target, [*THREE, *VALUE], fold, 3)
    outputs = ridge.part(tensors(fitted), [*THREE, *VALUE], 7)(torch.from_numpy(z)[None])[0].numpy()
    assert (outputs[:, :3] == 0).all() and np.corrcoef(outputs[:, 3], y)[0, 1] > 0.4
    known = ~np.isnan(target[:, 1])
    order = np.random.default_rng(0).permutation(known.sum())
    alone = ridge.fit(z[known][order], y[known, None][order], VALUE, fold[known][order], 3)
    np.testing.assert_allclose(fitted["weight"][:, 3:], alone["weight"], atol=1e-6)
    same = ridge.fit(z, np.ones((90, 1)), VALUE, fold, 3)
    assert not same["weight"].any() and not same["bias"].any()


def test_what_is_stored_blends_as_training_did(tmp_path: Path) -> None:
    j = job(tmp_path, folds=3, value=True)
    j = dataclasses.replace(
        j, loss="huber", options=j.options.model_copy(update={"blend": ["forest", "ridge_regression"]})
    )
    rank.run_alone(j)
    data, found = feed.read(j.files, j.layout, "pyarrow"), scored(j)
    rows = sorted(found)
    blends = np.array([found[row]["blends"] for row in rows])
    np.testing.assert_array_equal(blends[:, 0], [found[row]["scores"] for row in rows])
    held = np.flatnonzero(data.folds[:, 0] == 1)
    learnt = np.flatnonzero(data.folds[:, 0] != 1)
    mean, spread = np.nanmean(data.x[learnt].astype(float), 0), np.nanstd(data.x[learnt].astype(float), 0)
    z = np.nan_to_num((data.x - mean) / spread).astype(np.float32)
    by_hand = ridge.fit(z[learnt], data.target[learnt], VALUE, data.folds[learnt, 0], 5, huber.BOUND)
    y = data.target[learnt, 0]
    expected = (z[held] @ by_hand["weight"] + by_hand["bias"]) * y.std() + y.mean()
    several = mixtures(2)
    np.testing.assert_allclose(blends[held, several.index((0.0, 1.0))], expected, atol=1e-4)
    stored = weights(j)
    ends = []
    for shares in ((0.0, 0.0), (0.4, 0.2), (0.0, 1.0)):
        of_shares = dataclasses.replace(card(j, 0.0), forest=shares[0], ridge_regression=shares[1])
        predictor = Predictor(of_shares, stored, "x", threads=1)
        ends.append(predictor.scores(data.x[held]).raw)
    assert np.abs(ends[2] - ends[0]).max() > 0.01 and np.abs(ends[1] - ends[0]).max() > 0.001
    broken = load(stored)
    broken["ridge_regression.bias"] = broken["ridge_regression.bias"] * torch.nan
    with pytest.raises(InputError, match=r"ridge_regression\.bias is not of finite numbers"):
        Predictor(dataclasses.replace(card(j, 0.0), ridge_regression=0.5), save(broken), "x")


def test_what_a_ridge_adds_has_gradients(tmp_path: Path) -> None:
    j = job(tmp_path, value=True)
    j = dataclasses.replace(j, options=j.options.model_copy(update={"blend": ["ridge_regression"]}))
    rank.run_alone(j)
    data = feed.read(j.files, j.layout, "pyarrow")
    alone, network = (
        Predictor(dataclasses.replace(card(j, 0.0), ridge_regression=r), weights(j), "x", threads=1) for r in (1, 0)
    )
    asked = Asked().of(alone.encoding, FEATURES, j.heads)
    names = [f"r{i}" for i in range(6)]
    found, other = (Explainer(one, asked)(data.x[:6], names)[0] for one in (alone, network))
    assert found.complete.all() and np.abs(found.found.contributions - other.found.contributions).max() > 0.01


def test_a_loss_of_hubers_is_bounded_in_its_slope() -> None:
    one = losses.loss("huber", VALUE, (FEATURES,))
    outputs = torch.tensor([[[0.0], [0.5], [3.0], [-4.0]]], requires_grad=True)
    found = one.rows(outputs, np.zeros((4, 1)), np.array([[0.0, 1.0]]), None, 0.0)
    np.testing.assert_allclose(found.detach().numpy(), [[0, 0.25, 5, 7]])
    of_value, squared = (losses.loss(name, VALUE, (FEATURES,)) for name in ("huber", "squared_error"))
    ((told, center),), ((same, middle),) = (sums(VALUE, each, np.array([3.0, 2.0])) for each in (of_value, squared))
    assert told.tolist() == same.tolist() == [[2.0]] and center == middle == 3.0  # contributions are in its unit
    (slope,) = torch.autograd.grad(found.sum(), outputs)
    np.testing.assert_allclose(slope[0, :, 0].numpy(), [0, 1, 2, -2])


def test_many_rows_and_features_are_drawn_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ridge, "WIDEST", 30)
    x, y = rows_of(70, 40)
    z = ((x - x.mean(0)) / x.std(0)).astype(np.float32)
    rows = np.sort(np.random.default_rng(5).choice(70, 30, replace=False))
    fold = np.arange(70) % 4
    drawn = ridge.fit(z[rows], y[rows, None], VALUE, fold[rows], 5)
    np.testing.assert_array_equal(ridge.fit(z, y[:, None], VALUE, fold, 5)["weight"], drawn["weight"])


def test_what_is_no_regression_is_refused() -> None:
    fitted = {"weight": torch.zeros(4, 1), "bias": torch.zeros(1)}
    cases: list[tuple[dict[str, Any], str]] = [
        ({"weight": torch.zeros(5, 1)}, "by the card"),
        ({"bias": None}, "by the card"),
        ({"bias": torch.zeros(1).double()}, "single precision"),
        ({"weight": torch.full((4, 1), torch.nan)}, "finite"),
        ({"more": torch.zeros(1)}, "more has shape"),
    ]
    for changed, said in cases:
        given = {name: value for name, value in {**fitted, **changed}.items() if value is not None}
        with pytest.raises(ValueError, match=said):
            ridge.part(given, [heads.Head("v", "value")], 4)


def test_no_part_of_a_model_is_called_as_a_baseline_is() -> None:
    assert not set(PARTS) & {*baselines.NAMES, *baselines.REGRESSION_NAMES, *baselines.OF_SEQUENCES}
