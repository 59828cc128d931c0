"""Networks that start at a linear discriminant of the rows that they learn from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.covariance import ledoit_wolf_shrinkage
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from genodl_spark.core import storage
from genodl_spark.core.errors import InputError
from genodl_spark.learning import discriminant, feed, heads, models
from genodl_spark.learning.model_files import Card
from genodl_spark.learning.predictor import Predictor
from genodl_spark.learning.training import plan, rank, standardise
from genodl_spark.learning.training.group import Group
from genodl_spark.learning.training.ranks import Alone
from tests.learning.test_discriminant import trace_by_hand
from tests.learning.test_feed import write
from tests.learning.training.test_training import job, scores

MODEL = {"kind": "mlp", "hidden": [8], "dropout": 0.2, "input_dropout": 0.1, "start": "lda"}


def started(folder: Path, features: int, **options: object) -> plan.Job:
    """Two repeats of 3 folds; classes of several sizes; values missing."""
    folder.mkdir(exist_ok=True)
    return replace(job(folder, folds=3, features=features, options=dict(options)), model=MODEL)


def by_scikit_learn(x: np.ndarray, y: np.ndarray, learns: np.ndarray) -> np.ndarray:
    """Logits (rows, classes) of a discriminant of some rows, up to its temperature and a number of each row."""
    mean, spread = np.nanmean(x[learns], 0), np.nanstd(x[learns], 0)
    z = np.nan_to_num((x - mean) / spread)
    within = np.concatenate([z[learns & (y == k)] - z[learns & (y == k)].mean(0) for k in np.unique(y)])
    share = ledoit_wolf_shrinkage(within, assume_centered=True)
    oracle = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=share).fit(z[learns], y[learns])
    trace = trace_by_hand(z[learns], y[learns], share, (within**2).mean())
    return oracle.decision_function(z) - np.log(oracle.priors_) + 0.5 * trace / np.bincount(y[learns])


@pytest.mark.parametrize("features", [9, 90])
def test_networks_start_at_the_discriminants_of_scikit_learn(tmp_path: Path, features: int) -> None:
    j = started(tmp_path, features, epochs=1, learning_rate=1e-12)
    rank.run_alone(j)
    data = feed.read(j.files, j.layout, "pyarrow")
    x, y, found = data.x.astype(np.float64), data.target[:, 0].astype(int), scores(j)
    sets = plan.training_sets(2, 3)
    for which, learns in zip(sets[:-1], plan.learns(data.folds, sets, 3), strict=False):
        held = np.flatnonzero(data.folds[:, which.repeat] == which.fold)
        expected = by_scikit_learn(x, y, learns)[held]
        told = np.log([found[which.repeat, i] for i in held])
        told, expected = (a - a.mean(1, keepdims=True) for a in (told, expected))
        temperature = float((expected**2).sum() / (expected * told).sum())
        assert 0.1 < temperature < 1e4
        assert told == pytest.approx(expected / temperature, abs=1e-5)


def test_training_leaves_the_discriminant_and_the_registered_model_is_what_was_trained(tmp_path: Path) -> None:
    for features, rows in ((90, 61), (9, 61)):
        folder = tmp_path / str(features)
        folder.mkdir()
        j = replace(
            job(folder, features=features, rows=rows, options={"epochs": 10, "learning_rate": 0.01}), model=MODEL
        )
        rank.run_alone(j)
        names = [f"f{i}" for i in range(features)]
        card = Card(1, "id", "t", "label", ["a", "b", "c"], names, "float32", "none", MODEL, 2, 1.0, 16)
        predictor = Predictor(card, storage.read_bytes(storage.join(j.staging, "model.safetensors")), "x")
        data, found = feed.read(j.files, j.layout, "pyarrow"), scores(j)
        held = sorted(i for _, i in found)
        np.testing.assert_allclose(predictor(data.x[held]), [found[0, i] for i in held], atol=1e-5)
        hidden = predictor.network.layers[-1].weight.detach().abs().max()
        assert 1e-4 < float(hidden) < 1  # which started at 0


def test_a_held_out_label_changes_no_start_and_no_score_of_its_fold(tmp_path: Path) -> None:
    j = started(tmp_path / "a", 90)
    data = feed.read(j.files, j.layout, "pyarrow")
    rank.run_alone(j)
    mine = data.folds[:, 0] == 1
    changed = np.where(mine, (data.target[:, 0] + 1) % 3, data.target[:, 0])
    (tmp_path / "b").mkdir()
    files = write(tmp_path / "b", data.x, changed, data.folds, 2, 16)
    other = replace(j, files=files, staging=str(tmp_path / "b" / "staging"), checkpoint="")
    rank.run_alone(other)
    before, after = scores(j), scores(other)
    assert all((before[0, i] == after[0, i]) == mine[i] for i in range(61))


def test_what_training_adds_is_learnt_from_rows_that_are_left_out(tmp_path: Path) -> None:
    """The first loss is that of every row by all others; with classes that count alike."""
    j = started(tmp_path, 90, class_weights="balanced", batch=100)
    group = Group(rank.Rank(j, Alone(), torch.device("cpu"), feed.read(j.files, j.layout, "pyarrow")))
    _, whole, pieces = next(group.batches(0, 0))
    measured = group.backward(whole, pieces, 0)[:-2].numpy()
    data = feed.read(j.files, j.layout, "pyarrow")
    x, y = data.x.astype(np.float64), data.target[:, 0].astype(int)
    learns = plan.learns(data.folds, plan.training_sets(2, 3), 3)[0]
    told = []
    for i in np.flatnonzero(learns):
        mean, spread = np.nanmean(x[learns], 0), np.nanstd(x[learns], 0)
        z = np.nan_to_num((x - mean) / spread)
        others = learns & (np.arange(61) != i)
        # the trace, the shrinkage and the scaling of all rows are those of every row
        within = np.concatenate([z[learns & (y == k)] - z[learns & (y == k)].mean(0) for k in range(3)])
        share, scale = ledoit_wolf_shrinkage(within, assume_centered=True), (within**2).mean()
        rest = np.concatenate([z[others & (y == k)] - z[others & (y == k)].mean(0) for k in range(3)])
        inverse = np.linalg.inv((1 - share) * rest.T @ rest / learns.sum() + share * scale * np.eye(90))
        away = np.stack([z[i] - z[others & (y == k)].mean(0) for k in range(3)])
        told.append((-0.5 * (away @ inverse * away).sum(1), np.array([(others & (y == k)).sum() for k in range(3)])))
    within_trace = trace_by_hand(z[learns], y[learns], share, scale)
    logits = np.stack([d + 0.5 * within_trace / counts for d, counts in told])
    counts, mine = np.bincount(y[learns]), y[learns]
    weight = learns.sum() / (3 * counts[mine])

    def loss(t: float) -> float:
        z = logits / t - (logits / t).max(1, keepdims=True)
        return float(weight @ (np.log(np.exp(z).sum(1)) - z[np.arange(len(z)), mine]))

    assert measured[0] == measured[1]  # both members start there
    losses = [loss(float(t)) for t in np.exp(np.linspace(-2.0, 10.0, 121))]
    assert np.abs(np.array(losses) - measured[0]).min() < 1e-4


def test_where_there_is_no_discriminant_to_start_at(tmp_path: Path) -> None:
    values = replace(job(tmp_path, classes=0), model=MODEL)
    assert not plan.discriminates(values) and plan.epochs(values.options, 10) == 3
    assert rank.run_alone(values)["history"]
    several = [*heads.one("label", ["a", "b"]), *heads.one("other", ["c", "d"])]
    assert not plan.discriminates(replace(values, heads=several))
    with pytest.raises(InputError, match=r"model\.start: found 'near'; expected one of random, lda"):
        models.build({**MODEL, "start": "near"}, [1], (4,), 2)
    (tmp_path / "s").mkdir()
    with pytest.raises(InputError, match=r"model\.start: found lda with rows in shards; expected random"):
        rank.run_alone(replace(job(tmp_path / "s"), model=MODEL, shard=True))


def test_files_pieces_and_interruptions_change_nothing(tmp_path: Path) -> None:
    found, histories = [], []
    for number, (files, pieces) in enumerate(((1, 1), (3, 1), (2, 3))):
        folder = tmp_path / str(number)
        folder.mkdir()
        options = {"accumulate": pieces, "class_weights": "balanced", "epochs": 4, "learning_rate": 0.01}
        j = replace(job(folder, folds=3, features=90, files=files, options=options), model=MODEL)
        if number == 1:
            rank.run_alone(replace(j, stop_epoch=2))
        histories.append([entry["train"] for entry in rank.run_alone(j)["history"]])
        found.append(np.array([value for _, value in sorted(scores(j).items())]))
    assert (found[1] == found[0]).all() and histories[1] == histories[0]
    np.testing.assert_allclose(found[2], found[0], atol=1e-9)


@pytest.mark.parametrize("features", [9, 90])
def test_of_many_rows_some_give_the_discriminant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, features: int
) -> None:
    monkeypatch.setattr(standardise, "DISCRIMINANT_ROWS", 12)
    j = replace(started(tmp_path, features, epochs=1, learning_rate=1e-12), folds=0)
    data = feed.read(j.files, j.layout, "pyarrow")
    learns = data.folds[:, 0] == 0
    group = Group(rank.Rank(j, Alone(), torch.device("cpu"), data))
    drawn = (group.honest[0] != 0).any(1)
    assert drawn.sum() == 12 and learns[drawn].all()
    x, y = data.x.astype(np.float64), data.target[:, 0].astype(int)
    z = np.nan_to_num((x - np.nanmean(x[learns], 0)) / np.nanstd(x[learns], 0))
    expected = discriminant.fit(z[drawn], y[drawn], 3, features)
    with torch.no_grad():
        told = group._outputs(np.arange(61))[0][0].numpy()
    wanted = z @ expected.axes @ expected.weight + expected.bias
    inside = learns if features > 61 else np.ones(61, bool)  # what lies outside of the rows' span is left out there
    np.testing.assert_allclose(told[inside], wanted[inside], atol=2e-5)
