"""Boosted trees beside a network over sequences: their fit, what is read back, and what becomes of all parts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load, save
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

from genodl_spark.core.errors import InputError
from genodl_spark.learning import feed, heads
from genodl_spark.learning.beside import blend, boosted
from genodl_spark.learning.model_files import FORMAT, Card, mixtures
from genodl_spark.learning.predictor import Predictor
from genodl_spark.learning.training import rank
from tests.learning.beside.test_linear import CLASSES, MODEL, TWO, VALUE, job, one_hot, rows_of, scored, weights

LENGTH = 12


def paired(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Bases, some unknown, one position without T, and classes that two positions tell together."""
    x = rows_of(count, LENGTH, seed)
    x[x[:, 4] == 3, 4] = 0
    return x, ((x[:, 2] >= 2) ^ (x[:, 7] >= 2)).astype(float) + (x[:, 4] == 1)


def tensors(fitted: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(value) for name, value in fitted.items()}


@pytest.mark.parametrize("of", [CLASSES, TWO, VALUE])
def test_its_outputs_are_those_of_scikit_learns_trees(of: list[heads.Head], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boosted, "ROUNDS", 15)
    x, y = paired(400)
    y = np.minimum(y, 1) if of is TWO else y + np.random.default_rng(0).normal(size=400) if of is VALUE else y
    other = rows_of(150, LENGTH, 1)
    found = boosted.part(tensors(boosted.fit(x, y[:, None], of, 5)), of, LENGTH)
    outputs = found(one_hot(other)[None])[0].numpy()
    seen, asked = (np.where(codes < 0, np.nan, codes.astype(float)) for codes in (x, other))
    options: dict[str, Any] = {
        "max_iter": 15,
        "early_stopping": False,
        "categorical_features": list(range(LENGTH)),
        "max_leaf_nodes": 8,
    }
    options |= {"max_features": 0.1, "random_state": 5}
    if of is VALUE:
        model = HistGradientBoostingRegressor(**options).fit(seen, (y - y.mean()) / y.std())
        np.testing.assert_allclose(outputs[:, 0], model.predict(asked), atol=2e-5)
    else:
        model = HistGradientBoostingClassifier(**options).fit(seen, y.astype(int))
        found_now = torch.from_numpy(outputs).softmax(1).numpy()
        np.testing.assert_allclose(found_now, model.predict_proba(asked), atol=2e-5)
    alone = torch.cat([found(one_hot(other[i : i + 1])[None])[0] for i in range(len(other))])
    assert np.array_equal(alone.numpy(), outputs)  # to the last bit, whatever rows stand beside


def test_it_tells_what_two_positions_say_together() -> None:
    x, y = paired(600)
    known = np.minimum(y, 1)
    found = boosted.part(tensors(boosted.fit(x[:400], known[:400, None], TWO, 0)), TWO, LENGTH)
    said = found(one_hot(x[400:])[None])[0].argmax(1).numpy()
    assert (said == known[400:]).mean() > 0.9


def test_of_long_sequences_the_middle_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boosted, "POSITIONS", 6)
    monkeypatch.setattr(boosted, "ROUNDS", 3)
    x, y = paired(300)
    fitted = boosted.fit(x, y[:, None], CLASSES, 0)
    inner = boosted.fit(x[:, 3:9], y[:, None], CLASSES, 0)
    splits = fitted["child"] != np.arange(len(fitted["child"]))
    np.testing.assert_array_equal(fitted["feature"][splits], inner["feature"][splits] + 3)
    assert set(fitted["feature"][splits].tolist()) <= set(range(3, 9))


def test_each_head_has_trees_of_its_own_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boosted, "ROUNDS", 4)
    x, y = paired(200)
    size = np.where(np.arange(200) < 60, np.nan, 3 * y + np.random.default_rng(2).normal(size=200))
    several = [*CLASSES, *VALUE, heads.Head("rare", "classes", ("n", "y"))]
    fitted = boosted.fit(x, np.stack([y, size, np.ones(200)], 1), several, 2)
    assert np.bincount(fitted["outputs"], minlength=6).tolist() == [4, 4, 4, 4, 0, 0]  # of one class nothing to tell
    outputs = boosted.part(tensors(fitted), several, LENGTH)(one_hot(x)[None])[0]
    alone = boosted.fit(x[60:], size[60:, None], VALUE, 2)
    own = boosted.part(tensors(alone), VALUE, LENGTH)(one_hot(x)[None])[0]
    torch.testing.assert_close(outputs[:, 3:4], own)
    assert not outputs[:, 4:].any()
    # a class that training rows lack is the least likely one
    lacking = boosted.fit(x, y[:, None] + (y[:, None] > 0), [heads.Head("l", "classes", tuple("abcd"))], 2)
    assert lacking["bias"][1] < np.delete(lacking["bias"], 1).min()


@pytest.mark.parametrize(
    ("name", "place", "value"),
    [
        ("child", 0, 10**6),
        ("child", 5, 0),
        ("child", 0, -1),
        ("feature", 0, LENGTH),
        ("roots", 1, -4),
        ("outputs", 0, 3),
    ],
)
def test_what_points_outside_is_refused(name: str, place: int, value: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boosted, "ROUNDS", 3)
    x, y = paired(150)
    found = tensors(boosted.fit(x, y[:, None], CLASSES, 0))
    found[name][place] = value
    with pytest.raises(ValueError, match="point outside"):
        boosted.part(found, CLASSES, LENGTH)


def test_other_tensors_types_and_values_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boosted, "ROUNDS", 3)
    x, y = paired(150)
    fitted = tensors(boosted.fit(x, y[:, None], CLASSES, 0))
    leaves = fitted["child"].long() == torch.arange(len(fitted["child"]))
    cases: list[tuple[dict[str, Any], str]] = [
        ({"roots": None}, "roots"),
        ({"roots": fitted["roots"][0]}, "by the card"),
        ({"bias": fitted["bias"][:2]}, "by the card"),
        ({"more": fitted["value"]}, "more has shape"),
        ({"child": fitted["child"].float()}, "types"),
        ({"value": fitted["value"] * torch.nan}, "no values"),
        ({"left": torch.where(leaves, 0, fitted["left"])}, "leaves go on"),
        ({"roots": fitted["roots"][:1], "outputs": fitted["outputs"][:1]}, "nodes"),
    ]
    for changed, said in cases:
        given = {name: value for name, value in {**fitted, **changed}.items() if value is not None}
        with pytest.raises(ValueError, match=said):
            boosted.part(given, CLASSES, LENGTH)


def card(j: Any, shares: dict[str, float]) -> Card:
    names = [f"p{i}" for i in range(20)]
    classes = list(j.heads[0].classes)
    return Card(FORMAT, "id", "t", "label", classes, names, "int8", "onehot", MODEL, 2, 1.0, 16, **shares)


@pytest.mark.parametrize("value", [False, True])
def test_what_is_stored_blends_as_training_did(tmp_path: Path, value: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boosted, "ROUNDS", 5)
    j = job(tmp_path, value=value, blend=["positions", "boosted"])
    rank.run_alone(j)
    data, found = feed.read(j.files, j.layout, "pyarrow"), scored(j)
    rows = sorted(found)
    blends = np.array([found[row]["blends"] for row in rows])
    assert blends.shape == (len(rows), 21, 1 if value else 2)
    np.testing.assert_array_equal(blends[:, 0], [found[row]["scores"] for row in rows])
    for place in (0, 3, 7, 12, 15, 20):
        linear, trees = mixtures(2)[place]
        predictor = Predictor(card(j, {"linear": linear, "boosted": trees}), weights(j), "x", threads=1)
        np.testing.assert_allclose(predictor.scores(data.x[rows]).raw, blends[:, place], atol=1e-5, rtol=1e-5)
        alone = {"linear": linear / (1 - trees) if trees < 1 else 0.0}
        rest = Predictor(card(j, alone), weights(j), "x", threads=1)
        z = one_hot(data.x[rows])[None]
        torch.testing.assert_close(predictor.smooth(z), rest.network(z))  # what has a gradient
    learnt = np.flatnonzero(data.folds[:, 0] == 0)
    alone = tensors(boosted.fit(data.x[learnt], data.target[learnt], j.heads, 5))
    by_hand = boosted.part(alone, j.heads, 20)(one_hot(data.x[rows])[None])[0].double()
    standard = data.target[learnt].mean(), data.target[learnt].std()
    answer = by_hand * standard[1] + standard[0] if value else by_hand.softmax(1)
    np.testing.assert_allclose(blends[:, mixtures(2).index((0.0, 1.0))], answer.numpy(), atol=1e-5)
    stored = load(weights(j))
    other = {name: value for name, value in stored.items() if name != "boosted.left"}
    with pytest.raises(InputError, match=r"not the weights of this model's card \(boosted.left"):
        Predictor(card(j, {"boosted": 0.2}), save(other), "x")
    np.testing.assert_array_equal(  # of a share of nothing it need not be there
        Predictor(card(j, {"linear": 0.4}), save(other), "x")(data.x[:5]),
        Predictor(card(j, {"linear": 0.4}), weights(j), "x")(data.x[:5]),
    )


def test_shares_of_several_parts_are_theirs_in_the_end() -> None:
    generator = torch.Generator().manual_seed(0)
    network, one, two = (torch.randn(2, 5, 3, generator=generator) for _ in range(3))
    for a, b in mixtures(2):
        wanted = (1 - a - b) * network + a * one + b * two
        torch.testing.assert_close(blend.blended(network, [one, two], (a, b)), wanted)
    assert mixtures(1) == [(tenth / 10,) for tenth in range(11)]
    several = mixtures(2)
    assert len(several) == len(set(several)) == 21 and several[0] == (0.0, 0.0)
    assert max(sum(shares) for shares in several) == 1.0
