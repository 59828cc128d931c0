"""What is predicted beside one column of classes or values: several heads with a mask, times to an event,
and nothing that is labelled."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from scipy.stats import fisk

from genodl_spark.core import packing
from genodl_spark.core.errors import InputError
from genodl_spark.learning import baselines, feed, heads, losses, metrics
from genodl_spark.learning.baseline_fits import of_head
from genodl_spark.learning.heads import Head
from genodl_spark.learning.metrics import HeldOut
from genodl_spark.learning.model_files import card_of, new_card
from genodl_spark.learning.predictor import Predictor
from genodl_spark.learning.settings import Train
from genodl_spark.learning.training import plan, rank

ROWS = 300
SEVERAL = [Head("kind", "classes", ("a", "b", "c")), Head("size", "value"), Head("sex", "classes", ("f", "m"))]
TIME, NONE = [Head("months", "time")], [Head("none", "none")]


def rows_of(seed: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Rows float32 (300, 8), and a target of SEVERAL: a third of the labels of each head are missing,
    those of some rows but one."""
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(ROWS, 8)).astype(np.float32)
    target = np.column_stack([np.digitize(x[:, 0], [-0.5, 0.5]), 100 + 20 * x[:, 1], x[:, 2] > 0]).astype(float)
    target[generator.random(target.shape) < 0.33] = np.nan
    target[np.isnan(target).all(1), 0] = 1
    return x, target


def trained(
    folder: Path,
    of: list[Head],
    x: np.ndarray,
    target: np.ndarray,
    network: dict[str, Any] | None = None,
    **options: Any,
) -> tuple[Any, Predictor]:
    """The result of a training in this process, with every fifth row held out, and its model as one reads it back."""
    folder.mkdir(exist_ok=True)
    folds = np.where(np.arange(len(x)) % 5 == 0, 2, 0).astype(np.int8)[:, None]
    columns = {
        "row_id": pa.array(np.arange(len(x))),
        "x": packing.column(x),
        "target": pa.array(np.full(len(x), np.nan) if target.shape[1] != 1 else target[:, 0]),
        "targets": packing.column(target),
        "folds": packing.column(folds),
    }
    pq.write_table(pa.table(columns), folder / "rows.parquet")
    settings = Train(
        **{"ensemble": 3, "epochs": 60, "min_steps": 0, "learning_rate": 0.02, "warmup_epochs": 0, **options}
    )
    layout = feed.Layout(len(x), x.shape[1], "float32", 1, targets=target.shape[1])
    model = network or {"kind": "mlp", "hidden": [16], "dropout": 0.0}
    backend = options.get("backend", "petastorm")
    job = plan.Job(
        [f"file://{folder}/rows.parquet"],
        layout,
        backend,
        1 << 30,
        of,
        0,
        "none",
        1.0,
        0,
        model,
        settings,
        3,
        str(folder / "s"),
    )
    result = rank.run_alone(job)
    card = new_card(
        model_id="m",
        task="t",
        label_column="l",
        predicted=of,
        features=[f"f{i}" for i in range(x.shape[1])],
        dtype="float32",
        transform="none",
        model=model,
        members=3,
        batch=64,
        loss=losses.name_of("auto", of),
    )
    return result, Predictor(card, (folder / "s" / "model.safetensors").read_bytes(), "m")


def test_several_heads_learn_together_from_rows_that_lack_labels(tmp_path: Path) -> None:
    x, target = rows_of()
    result, model = trained(tmp_path / "one", SEVERAL, x, target)
    found = model.scores(x)
    held = np.arange(ROWS) % 5 == 0
    assert found.raw.shape == (ROWS, 6) and found.uncertainty.shape == (ROWS, 3)
    np.testing.assert_allclose([found.raw[:, :3].sum(1), found.raw[:, 4:].sum(1)], 1, atol=1e-12)
    for own, wanted in ((slice(0, 3), np.digitize(x[:, 0], [-0.5, 0.5])), (slice(4, 6), x[:, 2] > 0)):
        assert (found.raw[held, own].argmax(1) == wanted[held]).mean() > 0.8, result["history"][-1]
    assert np.corrcoef(found.raw[held, 3], x[held, 1])[0, 1] > 0.95
    assert 90 < found.raw[:, 3].mean() < 110  # in the unit of the labels
    # Labels that a mask hides change nothing, whatever the numbers are that stand for them in a batch.
    only = [(0.0, 0.25), (1.0, 3.0)]
    for kind, value in only:
        loss = losses.loss("auto", SEVERAL, (8,))
        outputs = torch.full((1, 1, 6), 0.5, dtype=torch.float64)
        rows = loss.rows(
            outputs, np.array([[np.nan, np.nan, kind]]), loss.standard(target, np.ones((1, ROWS), bool)), None, 0.0
        )
        assert float(rows[0, 0]) == pytest.approx(np.log(2)), value


def test_the_loss_of_several_heads_is_the_mean_of_those_with_a_label() -> None:
    _, target = rows_of()
    learns = np.stack([np.arange(ROWS) % 2 == 0, np.ones(ROWS, bool)])
    loss, parts = losses.loss("auto", SEVERAL, (8,)), [losses.loss("auto", [head], (8,)) for head in SEVERAL]
    standard = loss.standard(target, learns)
    outputs = torch.from_numpy(np.random.default_rng(1).normal(size=(4, ROWS, 6)))  # two sets of two members
    found = loss.rows(outputs, target, standard, None, 0.1).numpy()
    expected, counts = np.zeros((4, ROWS)), np.zeros(ROWS)
    for part, own, at, measured in zip(
        parts, (0, 1, 2), (slice(0, 3), slice(3, 4), slice(4, 6)), (0, 2, 4), strict=True
    ):
        known = ~np.isnan(target[:, own])
        of_part = part.standard(target[known, own : own + 1], learns[:, known])
        np.testing.assert_array_equal(of_part, standard[:, measured : measured + 2])
        expected[:, known] += part.rows(outputs[:, known, at], target[known, own : own + 1], of_part, None, 0.1).numpy()
        counts += known
    np.testing.assert_allclose(found, expected / counts, rtol=1e-12)


def test_backends_and_pieces_change_nothing_for_several_heads(tmp_path: Path) -> None:
    x, target = rows_of()
    histories = []
    for number, options in enumerate(({"backend": "pyarrow"}, {"accumulate": 3})):
        backend = options.pop("backend", "petastorm")
        result, _ = trained(tmp_path / str(number), SEVERAL, x, target, epochs=3, dtype="float64", **options)
        histories.append([entry["train"] for entry in result["history"]])
        again = feed.read(
            [f"file://{tmp_path}/{number}/rows.parquet"], feed.Layout(ROWS, 8, "float32", 1, targets=3), backend
        )
        np.testing.assert_array_equal(again.target, target)
    np.testing.assert_allclose(histories[0], histories[1], rtol=1e-9)


def test_times_are_log_logistic(tmp_path: Path) -> None:
    """Rows whose event has come have the density of scipy's distribution, the others its survival function."""
    loss = losses.loss("auto", TIME, (8,))
    target = np.array([[3.0, 1], [3.0, 0], [40.0, 1], [0.5, 0]])
    standard = np.array([[1.0, 2.0]])
    location, log_scale = np.array([0.3, -0.2, 1.0, 0.0]), np.array([-0.5, 0.1, 0.4, 0.0])
    outputs = torch.from_numpy(np.stack([location, log_scale], 1)[None])
    found = loss.rows(outputs, target, standard, None, 0.0)[0].numpy()
    # log t = 1 + 2 (location + scale * logistic): shape 1 / (2 scale), median e^(1 + 2 location).
    # The density is that of (log t - 1) / 2.
    of = fisk(1 / (2 * np.exp(log_scale)), scale=np.exp(1 + 2 * location))
    expected = np.where(target[:, 1] > 0, -of.logpdf(target[:, 0]) - np.log(2 * target[:, 0]), -of.logsf(target[:, 0]))
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    np.testing.assert_allclose(loss.answer(outputs, standard[0], None)[:, 0], of.median(), rtol=1e-12)

    generator = np.random.default_rng(9)
    x = generator.normal(size=(ROWS, 8)).astype(np.float32)
    came_at = np.exp(2 + 1.2 * x[:, 0] - 0.8 * x[:, 1] + 0.2 * generator.logistic(size=ROWS))
    until = generator.exponential(30, ROWS)  # nobody is followed for longer
    event = came_at <= until
    assert 0.2 < event.mean() < 0.8
    result, model = trained(tmp_path, TIME, x, np.column_stack([np.minimum(came_at, until), event]), epochs=100)
    scores = model.scores(x).raw[:, 0]
    held = np.arange(ROWS) % 5 == 0
    ids = np.arange(ROWS).astype(str)
    both = np.column_stack([np.minimum(came_at, until), event])
    measured = metrics.metrics(of_head(TIME[0], ids[held], ids[held], both[held], scores[None, held, None]))
    assert list(measured) == ["c_index", "c_index_uno"] and measured["c_index"] > 0.9, result["history"][-1]
    # though most of the long ones were never seen to come
    assert np.corrcoef(np.log(scores), np.log(came_at))[0, 1] > 0.9


def test_rows_without_labels_are_told_again(tmp_path: Path) -> None:
    generator = np.random.default_rng(2)
    inner = generator.normal(size=(ROWS, 2))
    x = (inner @ generator.normal(size=(2, 8)) + 0.05 * generator.normal(size=(ROWS, 8))).astype(np.float32)
    network = {"kind": "mlp", "hidden": [32, 2, 32], "dropout": 0.0}
    _, model = trained(tmp_path, NONE, x, np.empty((ROWS, 0)), network, epochs=150)
    usual = model.scores(x).raw[:, 0]
    strange = model.scores(generator.normal(size=(50, 8)).astype(np.float32) * 2).raw[:, 0]
    assert np.median(usual) < 0.1 and np.median(strange) > 5 * np.median(usual)
    # The answer is the mean square of what the first member makes of standardised rows, over the members.
    z, _ = model.reader(x[:64], torch.from_numpy(x[:64]))
    with torch.no_grad():
        outputs = model.network(z[None])
    np.testing.assert_allclose(usual[:64], ((outputs - z) ** 2).mean(-1).mean(0).numpy(), rtol=1e-4)


def test_concordance_of_times_is_over_pairs_whose_earlier_row_has_the_event() -> None:
    generator = np.random.default_rng(4)
    times, event = generator.integers(1, 9, 60).astype(float), generator.random(60) < 0.6
    scores = np.round(times + generator.normal(scale=3, size=60))
    ids = np.arange(60).astype(str)
    held = of_head(TIME[0], ids, ids, np.column_stack([times, event]), scores[None, :, None])
    agreed, pairs = 0.0, 0
    for i in range(60):
        for j in range(60):
            earlier = times[i] < times[j] or (times[i] == times[j] and not event[j])
            if event[i] and earlier and i != j:
                pairs += 1
                agreed += (scores[i] < scores[j]) + 0.5 * (scores[i] == scores[j])
    assert metrics.metrics(held)["c_index"] == pytest.approx(agreed / pairs, abs=1e-12)
    interval = metrics.intervals(held, 200)["c_index"]
    assert interval.low < interval.value < interval.high


def held_heads(flip: bool = False) -> list[HeldOut]:
    """Two heads of which some entities have both labels; of the second no entity comes first."""
    generator = np.random.default_rng(6)
    names = np.array([f"e{i:02}" for i in range(40)])
    found = []
    for label, part in (("x", slice(0, 30)), ("y", slice(20, 40))):
        ids = names[part]
        target = np.arange(len(ids)) % 2.0
        p = np.clip(target * 0.4 + generator.random(len(ids)) * 0.6, 0, 1)
        p = 1 - p if flip and label == "y" else p
        found.append(
            of_head(Head(label, "classes", ("n", "p")), ids, ids, target[:, None], np.stack([1 - p, p], 1)[None])
        )
    return found


def test_metrics_of_several_heads_are_means_over_them_in_one_draw() -> None:
    both = held_heads()
    each = [metrics.metrics(one) for one in both]
    assert metrics.metrics(both) == {
        name: pytest.approx((each[0][name] + each[1][name]) / 2, nan_ok=True) for name in each[0]
    }
    assert metrics.n_test(both) == 40
    # By hand: entities are drawn with replacement from those of both heads.
    names = np.unique(np.concatenate([one.entities for one in both]))
    generator = np.random.default_rng([5, 0, 0xB007])
    drawn = []
    for _ in range(50):
        counts = np.bincount(generator.integers(0, 40, 40), minlength=40)
        of_draw = []
        for one in both:
            copies = np.repeat(np.arange(len(one.entities)), counts[np.searchsorted(names, one.entities)])
            ids = np.arange(len(copies)).astype(str)
            part = replace(one, entities=ids, groups=ids, target=one.target[copies], scores=one.scores[:, copies])
            of_draw.append(metrics.metrics(part)["auroc"])
        drawn.append(np.mean(of_draw))
    interval = metrics.intervals(both, 50, 5)["auroc"]
    np.testing.assert_allclose([interval.low, interval.high], np.percentile(drawn, [2.5, 97.5]), rtol=1e-12)
    difference = metrics.paired(both, held_heads(flip=True), "auroc", 200)
    assert difference.value == pytest.approx(each[1]["auroc"] - 0.5, abs=1e-12) and difference.low > 0
    with pytest.raises(ValueError, match="differ in their heads"):
        metrics.paired(both, both[:1], "auroc")
    assert metrics.headline_metric("auroc", SEVERAL) == "auroc" and metrics.headline_metric("auroc", TIME) == "c_index"


def test_baselines_learn_times_by_residuals() -> None:
    times, event = np.array([2.0, 1.0, 3.0, 3.0]), np.array([True, True, False, True])
    # Nelson and Aalen: a quarter at 1, a third more at 2, a half more at 3.
    hazard = {1.0: 1 / 4, 2.0: 1 / 4 + 1 / 3, 3.0: 1 / 4 + 1 / 3 + 1 / 2}
    expected = [hazard[t] - came for t, came in zip(times, event, strict=True)]
    np.testing.assert_allclose(baselines.learning_times(times, event), expected, rtol=1e-12)
    settings = baselines.Evaluation()
    assert baselines.baseline_names(settings, NONE) == []
    assert baselines.baseline_names(settings, TIME) == [
        "majority",
        "linear_svm",
        "random_forest",
        "decision_tree",
        "ridge",
    ]
    assert "logistic" in baselines.baseline_names(settings, SEVERAL)


def test_shuffled_labels_stay_with_their_head() -> None:
    _, target = rows_of()
    codes = np.zeros((ROWS, 1), np.int8)
    dealt = plan.shuffled_labels(target, heads.targets(SEVERAL), codes, 0, 1)
    np.testing.assert_array_equal(np.isnan(dealt), np.isnan(target))
    np.testing.assert_array_equal(np.sort(dealt, 0), np.sort(target, 0))
    assert (dealt != target)[~np.isnan(target)].mean() > 0.3


def test_heads_are_stored_only_where_the_label_does_not_say_them() -> None:
    for of in (SEVERAL, TIME, NONE):
        shaped = heads.shapes(of)
        assert heads.heads_of("other", shaped["classes"], shaped["heads"]) == of
    one = heads.one("label", ["a", "b"])
    assert (
        heads.shapes(one) == {"classes": ["a", "b"], "heads": None} and heads.heads_of("label", ["a", "b"], None) == one
    )
    rest = {
        "model_id": "m",
        "task": "t",
        "label_column": "l",
        "features": ["f"],
        "dtype": "float32",
        "transform": "none",
        "model": {},
    }
    with pytest.raises(InputError, match="two classes at least"):
        new_card([Head("x", "classes", ("a",)), *TIME], members=1, batch=1, **rest)
    with pytest.raises(InputError, match="found cross_entropy for months: the target is a time to an event"):
        losses.loss("cross_entropy", TIME, (1,))
    with pytest.raises(InputError):
        card_of(b'{"format": 2, "heads": 3}', "model.json")


def test_balanced_losses_weigh_every_class_alike_and_values_not_at_all() -> None:
    _, target = rows_of()
    learns = np.stack([np.arange(ROWS) % 5 > 0, np.arange(ROWS) < 40])
    plain = losses.loss("auto", SEVERAL, (8,))
    even = losses.balanced(plain, target, learns)
    outputs = torch.from_numpy(np.random.default_rng(1).normal(size=(4, ROWS, plain.outputs)))  # 2 members each
    standard = plain.standard(target, learns)
    found = even.rows(outputs, target, standard, None, 0.0).numpy()
    expected = np.zeros_like(found)
    for member in range(4):
        for row in range(ROWS):
            parts = []
            for column, place, classes in ((0, slice(0, 3), 3), (2, slice(4, 6), 2)):
                if np.isnan(target[row, column]):
                    continue
                mine = target[learns[member // 2], column]
                mine = mine[~np.isnan(mine)]
                weight = len(mine) / (classes * (mine == target[row, column]).sum())
                parts.append(-weight * outputs[member, row, place].log_softmax(-1)[int(target[row, column])].item())
            if not np.isnan(target[row, 1]):
                mean, deviation = standard[member // 2, 2:4]
                parts.append((outputs[member, row, 3].item() - (target[row, 1] - mean) / deviation) ** 2)
            expected[member, row] = np.mean(parts)
    values = losses.loss("auto", SEVERAL[1:2], (8,))
    assert losses.balanced(values, target[:, 1:2], learns) is values
    one = losses.balanced(losses.loss("auto", SEVERAL[:1], (8,)), np.nan_to_num(target[:, :1]), learns)
    counts = np.bincount(np.nan_to_num(target[learns[0], 0]).astype(int))
    assert one.weights[0] @ counts == pytest.approx(learns[0].sum())
    ratio = found / expected
    assert ratio == pytest.approx(np.ones_like(ratio), rel=1e-9)
