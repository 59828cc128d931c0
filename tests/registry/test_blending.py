"""How much the linear part counts: least loss on the rows of other folds, and what `held_out` then holds."""

from __future__ import annotations

import numpy as np
import pytest
from pyspark.sql import SparkSession

from genodl_spark.learning import heads
from genodl_spark.learning.model_files import mixtures
from genodl_spark.registry import blending

ONE = [heads.Head("label", "classes", ("a", "b"))]
TWO = [*ONE, heads.Head("size", "value")]
SHARES = [share for (share,) in mixtures(1)]
SCHEMA = "row_id int, head string, repeat int, fold int, target double, mixture int, scores array<double>"


def rows(seed: int, count: int, head: str | None, folds: int | None, value: bool) -> list[tuple[object, ...]]:
    generator = np.random.default_rng(seed)
    made: list[tuple[object, ...]] = []
    for row in range(count):
        target = float(generator.normal() * 3) if value else float(row % 2)
        network, linear = target + generator.normal(size=2) if value else generator.normal(size=2) + target - 0.5
        for place, share in enumerate(SHARES):
            mixed = (1 - share) * network + share * linear
            scores = [float(mixed)] if value else [float(1 / (1 + np.exp(mixed))), float(1 / (1 + np.exp(-mixed)))]
            fold = None if folds is None else row % folds
            made.append((row + 1000 * (head == "size"), head, 0, fold, target, place, scores))
    return made


def by_hand(found: list[tuple[object, ...]], head: str | None, without: int | None) -> float:
    losses = np.zeros(len(SHARES))
    for _, of_head, _, fold, target, place, scores in found:
        if of_head == head and (without is None or fold != without):
            one = -np.log(scores[int(target)]) if len(scores) > 1 else (target - scores[0]) ** 2  # type: ignore[arg-type,call-overload,index,operator]
            losses[place] += one
    return SHARES[int(losses.argmin())]


def test_shares_are_chosen_on_other_folds_and_parts_stand_beside_the_blend(spark: SparkSession) -> None:
    made = [*rows(1, 40, "label", 4, False), *rows(2, 30, "size", 4, True)]
    frame = spark.createDataFrame(made, SCHEMA)
    best, of_heads = blending.shares(frame, TWO, 1)
    assert [SHARES[place] for place in of_heads] == [by_hand(made, "label", None), by_hand(made, "size", None)]
    wanted = {(n, 0, f): by_hand(made, head, f) for n, head in enumerate(("label", "size")) for f in range(4)}
    assert {key: SHARES[place] for key, place in best.items()} == wanted
    assert len({place for (head, _, _), place in best.items() if head == 0}) > 1  # else the test would show little

    found = blending.parts(frame, best, of_heads, TWO, ["linear"]).collect()
    assert len(found) == 3 * 70
    scores = {(row[0], row[5]): row[6] for row in made}
    for row in found:
        head = ["label", "size"].index(row.head)
        place = {"network": 0, "linear": 10, "model": best[head, 0, row.fold]}[row.predictor]
        assert row.scores == scores[row.row_id, place]


def test_of_a_fixed_split_the_rows_for_validation_choose_for_all(spark: SparkSession) -> None:
    made = rows(3, 30, None, None, False)
    frame = spark.createDataFrame(made, SCHEMA)
    best, of_heads = blending.shares(frame.where("row_id < 12"), ONE, 1)
    chosen = by_hand([row for row in made if row[0] < 12], None, None)  # type: ignore[operator]
    assert of_heads == list(best.values()) == [SHARES.index(chosen)]
    scores = {(row[0], row[5]): row[6] for row in made}
    found = blending.parts(frame, best, of_heads, ONE, ["linear"]).where("predictor = 'model'").collect()
    assert {row.row_id: row.scores for row in found} == {r: scores[r, SHARES.index(chosen)] for r in range(30)}

    # Without any row to choose by both count the same.
    best, of_heads = blending.shares(frame.where("false"), ONE, 1)
    assert (best, of_heads) == ({}, [SHARES.index(0.5)])
    found = blending.parts(frame, best, of_heads, ONE, ["linear"]).where("predictor = 'model'").collect()
    assert {row.row_id: row.scores for row in found} == {r: scores[r, 5] for r in range(30)}


def test_several_parts_have_shares_of_their_own(spark: SparkSession) -> None:
    generator = np.random.default_rng(3)
    made = []
    for row in range(24):
        target = float(generator.normal())
        network, linear, boosted = target + generator.normal(size=3) * np.array([1.0, 0.5, 0.3])
        for place, (a, b) in enumerate(mixtures(2)):
            value = (1 - a - b) * network + a * linear + b * boosted
            made.append((row, None, 0, row % 3, target, place, [float(value)]))
    frame = spark.createDataFrame(made, SCHEMA)
    best, of_heads = blending.shares(frame, [heads.Head("size", "value")], 2)
    losses = np.zeros((3, 21))
    for _, _, _, fold, target, place, (value,) in made:
        losses[fold, place] += (value - target) ** 2
    assert of_heads == [losses.sum(0).argmin()]
    assert best == {(0, 0, fold): (losses.sum(0) - losses[fold]).argmin() for fold in range(3)}
    rows = blending.parts(frame, best, of_heads, [heads.Head("size", "value")], ["linear", "boosted"]).collect()
    assert len(rows) == 4 * 24
    places = {"network": (0.0, 0.0), "linear": (1.0, 0.0), "boosted": (0.0, 1.0)}
    said = {(row[0], row[5]): row[6] for row in made}
    for row in rows:
        place = best[0, 0, row.fold] if row.predictor == "model" else mixtures(2).index(places[row.predictor])
        assert row.scores == said[row.row_id, place]
    nothing = blending.shares(frame.where("false"), [heads.Head("size", "value")], 2)
    shares = mixtures(2)[nothing[1][0]]
    assert sorted([1 - sum(shares), *shares]) == [pytest.approx(share) for share in (0.2, 0.4, 0.4)]
