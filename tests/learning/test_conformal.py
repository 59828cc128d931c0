"""Sets of classes and intervals of values: the quantile as defined, and how often they hold the truth of new rows."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from genodl_spark.learning import calibration, conformal, metrics
from genodl_spark.learning.heads import Head, one
from genodl_spark.learning.metrics import HeldOut
from genodl_spark.pipelines.train import calibrations


def drawn(seed: int, rows: int, classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities, too sure of themselves, and classes."""
    random = np.random.default_rng(seed)
    honest = random.dirichlet(np.full(classes, 0.5), rows)
    target = (honest.cumsum(1) > random.random((rows, 1))).argmax(1)
    return calibration.sharpen(honest, 0.7), target.astype(float)


def test_the_cut_is_the_quantile_of_one_row_more() -> None:
    values = np.arange(20.0)
    # the ceil(0.9 * 21) = 19th smallest distance of 20
    assert conformal.cut(values, np.zeros(20), 20, 0.9) == 18
    assert conformal.cut(values, np.zeros(20), 20, 0.95) == 19
    assert np.isnan(conformal.cut(values, np.zeros(20), 20, 0.96))
    assert np.isnan(conformal.cut(values, np.zeros(20), 8, 0.9))  # of 8 rows none is one in ten
    assert np.isnan(conformal.cut(np.empty((0, 3)), np.empty(0), 0, 0.5))
    assert conformal.cut(np.arange(99.0), np.zeros(99), 99, 0.9) == 89  # 99 * 0.9 * (1 + 1 / 99) is a little over 90
    assert conformal.cut(np.arange(99.0), np.zeros(99), 99, 0.99) == 98
    values[3] = np.nan
    assert conformal.cut(values, np.zeros(20), 20, 0.9) == 18  # of 19 distances the 18th
    p = np.array([[0.9, 0.1], [0.6, 0.4], [0.3, 0.7], [0.8, 0.2]])
    assert conformal.cut(p, np.array([0.0, 1, 1, 0]), 4, 0.6) == 0.7  # the third of four
    assert conformal.cut(p, np.array([0.0, 1, 1, 0]), 4, 0.8) == 0.4


def test_sets_hold_what_is_as_probable_as_the_cut_and_the_best_in_any_case() -> None:
    p = np.array([[0.5, 0.3, 0.2], [0.34, 0.33, 0.33], [np.nan] * 3, [0.1, 0.2, 0.7]])
    assert conformal.sets(p, 0.3).tolist() == [[True, True, False], [True] * 3, [False] * 3, [False, False, True]]
    assert conformal.sets(p, 0.9).sum(1).tolist() == [1, 1, 0, 1]


@pytest.mark.parametrize("coverage", [0.8, 0.9, 0.95])
def test_new_rows_are_covered_as_promised(coverage: float) -> None:
    """To within what as many rows tell, of probabilities that are not calibrated, and of values."""
    held, target = drawn(1, 5000)
    others, truth = drawn(2, 20_000)
    least = conformal.cut(held, target, 5000, coverage)
    inside = conformal.sets(others, least)
    assert inside[np.arange(20_000), truth.astype(int)].mean() == pytest.approx(coverage, abs=0.013)
    assert 1 <= inside.sum(1).mean() < 4
    noise = np.random.default_rng(3).standard_t(3, 25_000)
    far = conformal.cut(noise[:5000], np.zeros(5000), 5000, coverage)
    assert (np.abs(noise[5000:]) <= far).mean() == pytest.approx(coverage, abs=0.013)


def test_probabilities_are_as_often_right_as_they_say_also_where_a_model_does_not_abstain() -> None:
    held, target = drawn(7, 5000)
    others, truth = drawn(8, 5000)
    assert ece(others, truth) > 0.05
    said = calibration.sharpen(others, calibration.temperature(held, target))
    assert ece(said, truth) <= 0.03
    for least in (0.5, 0.8):  # predict.least_probability
        kept = said.max(1) >= least
        right = (said.argmax(1) == truth)[kept].mean()
        assert right == pytest.approx(said.max(1)[kept].mean(), abs=0.02) and right > least


def ece(probabilities: np.ndarray, target: np.ndarray) -> float:
    names = np.arange(len(target)).astype(str)
    classes = [str(k) for k in range(probabilities.shape[1])]
    return metrics.metrics(HeldOut(names, names, target, probabilities[None], classes))["ece"]


def test_few_rows_cover_on_average() -> None:
    covered = []
    for seed in range(400):
        (held, target), (others, truth) = drawn(seed, 30), drawn(seed + 1000, 200)
        inside = conformal.sets(others, conformal.cut(held, target, 30, 0.9))
        covered.append(inside[np.arange(200), truth.astype(int)].mean())
    assert 0.895 < np.mean(covered) < 0.95


def test_each_head_has_a_cut_by_its_own_rows() -> None:
    p, target = drawn(5, 60, 3)
    value = np.random.default_rng(6).normal(size=60)

    def rows(head: str, scores: np.ndarray, of: np.ndarray) -> pa.Table:
        names = [f"e{i:02}" for i in range(60)]
        columns = {"head": [head] * 60, "repeat": [0] * 60, "entity_id": names, "target": of, "scores": list(scores)}
        return pa.table(columns)

    kind, size, time = one("kind", ["a", "b", "c"])[0], one("size", [])[0], Head("time", "time", (), (1.0,))
    table = pa.concat_tables([rows("kind", p, target), rows("size", value[:, None], np.zeros(60))])
    (t, cut), (other, far), nothing = calibrations(table, [kind, size, time], 0.9)
    assert t == pytest.approx(calibration.temperature(p, target)) and t > 1
    assert cut == pytest.approx(conformal.cut(calibration.sharpen(p, t), target, 60, 0.9))
    assert (other, far) == (1.0, np.sort(np.abs(value))[54]) and nothing == (1.0, None)
    # rows in another order, and no coverage asked for
    assert calibrations(table.take(np.random.default_rng(1).permutation(120)), [kind, size, time], 0.9)[0] == (t, cut)
    assert [one_cut for _, one_cut in calibrations(table, [kind, size, time], 0.0)] == [None] * 3
