"""The forest beside a network over measured values: its fit, what is read back, and what becomes of both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load, save
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

from genodl_spark.core.errors import InputError
from genodl_spark.learning import feed, heads
from genodl_spark.learning.beside import forest, forest_bounds
from genodl_spark.learning.beside.forest import TREES
from genodl_spark.learning.explain.explainer import Asked, Explainer
from genodl_spark.learning.model_files import FORMAT, Card
from genodl_spark.learning.predictor import Predictor
from genodl_spark.learning.settings import Train
from genodl_spark.learning.training import plan, rank
from tests.learning.beside.test_linear import SHARES, scored, weights
from tests.learning.test_feed import write

THREE = [heads.Head("label", "classes", ("a", "b", "c"))]
VALUE = [heads.Head("value", "value")]
FEATURES = 7


def rows_of(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Values of few kinds, so that many rows stand at the thresholds, and classes that two of them tell together."""
    z = np.random.default_rng(seed).integers(-3, 4, (count, FEATURES)).astype(np.float32) / 3
    return z, ((z[:, 0] > 0) ^ (z[:, 1] > 0)).astype(float) + (z[:, 2] > 0.5)


def tensors(fitted: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(value) for name, value in fitted.items()}


@pytest.mark.parametrize("value", [False, True])
def test_its_outputs_are_those_of_scikit_learns_trees(value: bool) -> None:
    z, y = rows_of(150)
    other = rows_of(90, 1)[0]
    other[::3] *= np.float32(1.1)
    wanted = VALUE if value else THREE
    found = forest.part(tensors(forest.fit(z, y[:, None], wanted, 5)), wanted, FEATURES)
    outputs = found(torch.from_numpy(other)[None])[0].numpy()
    seed = np.random.RandomState(5)
    options: dict[str, Any] = {"n_estimators": TREES, "random_state": seed, "max_depth": 64}
    if value:
        model = RandomForestRegressor(max_features=3, **options).fit(z, (y - y.mean()) / y.std())
        expected = model.predict(other)[:, None]
    else:
        model = RandomForestClassifier(max_features="sqrt", **options).fit(z, y.astype(int))
        expected = np.log((model.predict_proba(other) * TREES + 1 / 3) / (TREES + 1))
    np.testing.assert_allclose(outputs, expected, atol=2e-6)
    alone = torch.cat([found(torch.from_numpy(other[i : i + 1])[None])[0] for i in range(len(other))])
    assert np.array_equal(alone.numpy(), outputs)  # to the last bit, whatever rows stand beside


def test_trees_of_values_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forest_bounds, "ROWS", 100)
    monkeypatch.setattr(forest_bounds, "SORTED", 200)
    monkeypatch.setattr(forest, "LEAVES", 20)
    z, y = rows_of(150)
    found = forest.part(tensors(forest.fit(z, y[:, None], VALUE, 5)), VALUE, FEATURES)
    options: dict[str, Any] = {"max_samples": 100, "min_samples_leaf": 5, "max_features": 2}
    seed = np.random.RandomState(5)
    model = RandomForestRegressor(n_estimators=TREES, random_state=seed, **options).fit(z, (y - y.mean()) / y.std())
    np.testing.assert_allclose(found(torch.from_numpy(z)[None])[0, :, 0], model.predict(z), atol=2e-6)


def test_each_head_has_trees_of_its_own_rows() -> None:
    z, y = rows_of(120)
    size = np.where(np.arange(120) < 40, np.nan, z[:, 3] * 2 + y)
    wanted = [*THREE, *VALUE, heads.Head("rare", "classes", ("n", "y"))]
    fitted = forest.fit(z, np.stack([y, size, np.ones(120)], 1), wanted, 2)
    assert len(fitted["roots"]) == 2 * TREES  # of one class there is nothing to tell
    outputs = forest.part(tensors(fitted), wanted, FEATURES)(torch.from_numpy(z)[None])[0]
    alone = forest.fit(z[40:], size[40:, None], VALUE, 3)  # the second head has the next seed
    own = forest.part(tensors(alone), VALUE, FEATURES)(torch.from_numpy(z)[None])[0]
    torch.testing.assert_close(outputs[:, 3:4], own)
    assert (outputs[:, 4:].softmax(1) == 0.5).all()
    assert (outputs[:, :3].argmax(1).numpy() == y).mean() > 0.9


@pytest.mark.parametrize(
    ("name", "place", "value"),
    [("child", 0, 10**6), ("child", 5, 0), ("child", 0, -1), ("feature", 0, FEATURES), ("roots", 1, -4)],
)
def test_what_is_no_forest_is_refused(name: str, place: int, value: int) -> None:
    z, y = rows_of(60)
    found = tensors(forest.fit(z, y[:, None], THREE, 0))
    found[name][place] = value
    with pytest.raises(ValueError, match="point outside"):
        forest.part(found, THREE, FEATURES)


def test_other_tensors_types_and_values_are_refused() -> None:
    z, y = rows_of(60)
    fitted = tensors(forest.fit(z, y[:, None], THREE, 0))
    cases: list[tuple[dict[str, Any], str]] = [
        ({"roots": None}, "roots"),
        ({"roots": fitted["roots"][0]}, "by the card"),
        ({"feature": fitted["feature"][:, None]}, "by the card"),
        ({"value": fitted["value"][:, :2]}, "by the card"),
        ({"more": fitted["value"]}, "more has shape"),
        ({"child": fitted["child"].float()}, "types"),
        ({"value": fitted["value"] * torch.nan}, "no values"),
        ({"roots": fitted["roots"].repeat(2)}, "nodes"),
    ]
    for changed, said in cases:
        given = {name: value for name, value in {**fitted, **changed}.items() if value is not None}
        with pytest.raises(ValueError, match=said):
            forest.part(given, THREE, FEATURES)
    chain = 201  # each even node goes on to the next two, of which the first is a leaf
    level = torch.arange(chain, dtype=torch.int32)
    own = {"child": torch.where(level % 2 == 0, (level + 1).clamp(max=chain - 1), level), "feature": level * 0}
    own["child"][-1] = chain - 1
    own["threshold"] = torch.where(own["child"] == level, torch.inf, 0.0)
    own |= {"value": torch.zeros(chain, 3), "roots": torch.zeros(1, dtype=torch.int32)}
    with pytest.raises(ValueError, match="64 nodes deep"):
        forest.part(own, THREE, FEATURES)


def job(folder: Path, folds: int = 0, value: bool = False) -> plan.Job:
    folder.mkdir(exist_ok=True)
    z, y = rows_of(120, 3)
    x = np.where(np.random.default_rng(4).random(z.shape) < 0.05, np.nan, 5 + 2 * z).astype(np.float32)
    codes = (np.random.default_rng(0).permutation(120) % (folds or 3)).astype(np.int8)[:, None]
    files = write(folder, x, 5 + 2 * y if value else y, codes, 2, 30)
    model = {"kind": "mlp", "hidden": [8], "dropout": 0.2}
    options = Train(ensemble=2, epochs=2, min_steps=0, batch=40, blend=["forest"])
    return plan.Job(
        files,
        feed.Layout(120, FEATURES, "float32", 1),
        "pyarrow",
        1 << 30,
        VALUE if value else THREE,
        folds,
        "none",
        1.0,
        0,
        model,
        options,
        5,
        str(folder / "s"),
        threads=1,
    )


def card(j: plan.Job, share: float) -> Card:
    names = [f"f{i}" for i in range(FEATURES)]
    classes = list(j.heads[0].classes)
    return Card(FORMAT, "id", "t", "label", classes, names, "float32", "none", j.model, 2, 1.0, 16, linear=share)


@pytest.mark.parametrize("value", [False, True])
def test_what_is_stored_blends_as_training_did(tmp_path: Path, value: bool) -> None:
    j = job(tmp_path, value=value)
    rank.run_alone(j)
    data, found = feed.read(j.files, j.layout, "pyarrow"), scored(j)
    rows = sorted(found)
    blends = np.array([found[row]["blends"] for row in rows])
    np.testing.assert_array_equal(blends[:, 0], [found[row]["scores"] for row in rows])
    for share in (0.0, 0.4, 1.0):
        predictor = Predictor(card(j, share), weights(j), "x", threads=1)
        expected = blends[:, SHARES.index(share)]
        np.testing.assert_allclose(predictor.scores(data.x[rows]).raw, expected, atol=1e-6, rtol=1e-6)
    learnt = np.flatnonzero(data.folds[:, 0] == 0)
    stored = load(weights(j))
    of_rows = data.x[learnt].astype(np.float64)
    np.testing.assert_allclose(stored["mean"], np.nanmean(of_rows, 0), rtol=1e-6)
    np.testing.assert_allclose(stored["inverse"], 1 / np.nanstd(of_rows, 0), rtol=1e-6)
    z = ((torch.from_numpy(data.x) - stored["mean"]) * stored["inverse"]).nan_to_num().numpy()
    alone = forest.part(tensors(forest.fit(z[learnt], data.target[learnt], j.heads, 5)), j.heads, FEATURES)
    by_hand = alone(torch.from_numpy(z[rows])[None])[0].double()
    standard = data.target[learnt].mean(), data.target[learnt].std()
    answer = by_hand * standard[1] + standard[0] if value else by_hand.softmax(1)
    np.testing.assert_allclose(blends[:, -1], answer.numpy(), atol=1e-5)


def test_contributions_are_those_of_the_network_which_has_gradients(tmp_path: Path) -> None:
    j = job(tmp_path)
    rank.run_alone(j)
    data = feed.read(j.files, j.layout, "pyarrow")
    blend, network = (Predictor(card(j, share), weights(j), "x", threads=1) for share in (0.5, 0.0))
    asked = Asked(target="b").of(blend.encoding, FEATURES, j.heads)
    names = [f"r{i}" for i in range(6)]
    found, wanted = (Explainer(one, asked)(data.x[:6], names)[0] for one in (blend, network))
    np.testing.assert_array_equal(found.found.contributions, wanted.found.contributions)
    assert found.complete.all() and np.abs(found.found.contributions).max() > 0
    assert np.abs(blend(data.x[:6]) - network(data.x[:6])).max() > 0.01


def test_folds_know_nothing_of_the_rows_that_they_are_tested_on_and_weights_that_are_none_are_refused(
    tmp_path: Path,
) -> None:
    j = job(tmp_path, folds=3)
    rank.run_alone(j)
    found = scored(j)
    blends = np.array([found[row]["blends"][-1] for row in sorted(found)])
    changed = job(tmp_path / "other", folds=3)
    data = feed.read(j.files, j.layout, "pyarrow")
    held = np.flatnonzero(data.folds[:, 0] == 1)
    target = data.target[:, 0].copy()
    target[held] = 2 - target[held]
    write(tmp_path / "other", data.x, target, data.folds, 2, 30)
    rank.run_alone(changed)
    other = scored(changed)
    again = np.array([other[row]["blends"][-1] for row in sorted(other)])
    np.testing.assert_array_equal(again[held], blends[held])
    assert (again != blends).any()
    broken = load(weights(j))
    broken["forest.child"][0] = 1 << 20
    with pytest.raises(InputError, match=r"forest\.its nodes point outside it"):
        Predictor(card(j, 0.5), save(broken), "x")


def test_a_blend_is_of_one_kind() -> None:
    with pytest.raises(ValidationError, match="these are for measured values"):
        Train(blend=["forest", "kmers"])
    with pytest.raises(ValidationError, match="is none"):
        Train(blend=["trees"])
