"""Rows of `evaluations` as a run report has them, without Spark."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from genodl_spark.job import config
from genodl_spark.learning.heads import one
from genodl_spark.pipelines.evaluate import as_metrics
from genodl_spark.registry.scores import HEAD


def test_labels_and_values_of_a_column_called_label_are_told_apart() -> None:
    def row(predictor: str, by: str, value: float, n_test: int) -> Any:
        same = {"metric": "accuracy", "low": None, "high": None}
        return SimpleNamespace(predictor=predictor, by=by, value=value, n_test=n_test, **same)

    rows = [
        row("model", "", 0.5, 9),
        row("model", "label=a", 0.6, 4),
        row("model", f"{HEAD}size", 0.7, 5),
        row("majority", f"{HEAD}size", 0.2, 5),
        row("model", "~drop from=a=b", 0.1, 9),
    ]
    named = SimpleNamespace(split_hash="s", model_id="m", model_version=1)
    model: Any = SimpleNamespace(
        row=named, settings=config.load(), card=SimpleNamespace(predicted=one("label", ["a", "b"]))
    )
    found = as_metrics(rows, model, external=False)

    def accuracy(value: float) -> dict[str, Any]:
        return {"accuracy": {"value": value, "low": None, "high": None}}

    assert (found["model"], found["n_test"], found["baselines"]) == (accuracy(0.5), 9, {})
    assert found["drop"] == {"from": "a=b", **accuracy(0.1)}
    assert found["by"] == {"a": {"n_test": 4, **accuracy(0.6)}}
    of_size = {"model": accuracy(0.7), "baselines": {"majority": accuracy(0.2)}, "n_test": 5}
    assert found["heads"] == {"size": of_size}
