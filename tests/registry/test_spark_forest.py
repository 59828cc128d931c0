"""Spark ML's forest beside scikit-learn's: the same rows by role, missing values at training means, values on their own
scale, named or by size; and no row of `examples` on the driver."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from genodl_spark.core import packing
from genodl_spark.core.errors import InputError
from genodl_spark.lake.delta import Lake
from genodl_spark.lake.tables.learning import HELD_OUT
from genodl_spark.learning import baselines, feed, heads
from genodl_spark.learning.baseline_fits import Fits
from genodl_spark.learning.preprocessing import Chain
from genodl_spark.learning.settings import Evaluation
from genodl_spark.learning.training import plan
from genodl_spark.registry import spark_forest
from jobs import evaluate, ingest, train

FAST = ("train.epochs=2", "train.min_steps=4", "train.ensemble=1", "train.launcher=process", "tracking.uri=off")
SMALL = ("--procs", "1", *(part for one in FAST for part in ("--set", one)))


def test_rows_of_a_training_set_and_their_means() -> None:
    x = np.array([[1, np.nan], [3, 4], [np.nan, 8], [7, 2]], np.float32)
    codes = np.array([[0, 1], [1, 0], [1, 1], [0, 0]], np.int8)
    target = np.array([0.0, 1, np.nan, 1])
    columns = {"row_id": pa.array([5, 6, 7, 8]), "x": packing.column(x), "target": pa.array(target)}
    batch = pa.RecordBatch.from_pydict({**columns, "folds": packing.column(codes)})
    one = heads.one("label", ["a", "b"])
    layout = feed.Layout(4, 2, "float32", 2)
    fits = Fits([], layout, None, "none", one, 2, 0, 9, {}, None, {})

    def asked(fold: int, means: np.ndarray | None) -> list[dict]:
        made = spark_forest._kernel(fits, layout, 0, 0, fold, means)
        return pa.Table.from_batches(list(made(iter([batch])))).to_pylist()

    (sums,) = asked(plan.REGISTERED, None)
    assert np.frombuffer(sums["total"]).tolist() == [11, 6] and np.frombuffer(sums["known"]).tolist() == [3, 2]
    (sums,) = asked(0, None)  # of fold 1 the second row alone has a label
    assert np.frombuffer(sums["total"]).tolist() == [3, 4]
    found = asked(0, np.array([30.0, 40]))
    assert [row["x"] for row in found] == [[1, 40], [3, 4], [30, 8], [7, 2]]
    assert [row["learns"] for row in found] == [False, True, False, False]
    assert [row["held"] for row in found] == [True, False, False, True] and found[0]["row_id"] == 5


def files(folder: Path) -> tuple[str, str]:
    """120 samples of 6 genes, the product of two of which tells the class; a twentieth is missing."""
    generator = np.random.default_rng(2)
    x = generator.normal(size=(120, 6))
    label = np.where(x[:, 0] * x[:, 1] > 0, "up", "down")
    lines = ["sample_id\tlabel\tsplit"]
    lines += [f"s{i}\t{label[i]}\t{'test' if i % 3 == 0 else 'train'}" for i in range(120)]
    shown = np.where(generator.random(x.shape) < 0.05, "NA", np.char.mod("%.4f", x))
    matrix = ["gene\t" + "\t".join(f"s{i}" for i in range(120))]
    matrix += [f"g{j}\t" + "\t".join(shown[:, j]) for j in range(6)]
    (folder / "m.tsv").write_text("\n".join(matrix) + "\n")
    (folder / "t.tsv").write_text("\n".join(lines) + "\n")
    return str(folder / "m.tsv"), str(folder / "t.tsv")


def test_beside_a_model(genodl, lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of more rows than evaluate.spark_rows."""
    monkeypatch.setattr(spark_forest, "TREES", 20)
    matrix, table = files(tmp_path)
    at = ("--lake", lake.uri)
    assert genodl(ingest, "expression", matrix, "--samples", table, "--cohort", "c", *at)[0] == 0
    common = ("tumor_type", *at, "--label", "label")
    code, report, line = genodl(train, *common, *SMALL, "--set", "split.column=split")
    assert code == 0, line
    few = ("--set", "evaluate.resamples=0", "--set", "evaluate.baselines=majority,random_forest")
    code, report, line = genodl(evaluate, *common, *few, "--set", "evaluate.spark_rows=100")
    assert code == 0, line
    found = report["metrics"]["baselines"]
    assert set(found) == {"majority", "random_forest", "spark_forest"}
    ours, other = (found[name]["auroc"]["value"] for name in ("spark_forest", "random_forest"))
    assert ours > other - 0.12 and ours > 0.8
    rows = [row for row in lake.read(HELD_OUT).collect() if row.model_id == report["metrics"]["model_id"]]
    mine = {row.entity_id: row.scores for row in rows if row.predictor == "spark_forest"}
    assert set(mine) == {f"s{i}" for i in range(0, 120, 3)}
    assert all(np.isclose(sum(one), 1) for one in mine.values())


def test_where_it_stands_unasked_and_what_is_refused() -> None:
    settings = Evaluation(baselines=["majority", "spark_forest"])
    assert baselines.baseline_names(settings, heads.one("label", ["a", "b"])) == ["majority", "spark_forest"]
    assert baselines.baseline_names(settings, [heads.Head("t", "time")]) == ["majority"]
    chain = Chain(["log2"], {}, ["g"])
    with pytest.raises(InputError, match="found spark_forest with quality"):
        spark_forest.check(Fits([], None, None, "none", [], 2, 0, 9, {}, None, {}, chain))
