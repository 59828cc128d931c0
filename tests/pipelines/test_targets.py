"""Several labels at once, times to an event, and no labels, from ingest to predictions: a task of each is one TOML."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from pyspark.sql import functions as F

from genodl_spark.lake.delta import Lake
from genodl_spark.lake.tables.learning import DATASETS, EVALUATIONS, HELD_OUT, MODELS, PREDICTIONS, SPLITS
from genodl_spark.lake.tables.operations import FINDINGS
from genodl_spark.learning import model_files, predictor
from jobs import evaluate, ingest, lineage, monitor, predict, prepare, query, train

GENES, SAMPLES = 12, 90
FAST = "train.epochs=15 train.min_steps=40 train.ensemble=2 train.learning_rate=0.02 tracking.uri=off"
BASELINES = "evaluate.baselines=majority,decision_tree,logistic"
SETTINGS = [part for one in [*FAST.split(), "evaluate.resamples=20", BASELINES] for part in ("--set", one)]
TOMLS = {
    "heads": 'label = "kind, size"\n[target]\nvalues = ["size"]\n',
    "survival": 'label = "months"\nmetric = "c_index"\n[target]\nevent = "died"\nhorizons = [5.0, 20.0]\n',
    "unlabelled": '[target]\nkind = "none"\n[model]\nkind = "mlp"\nhidden = [4]\ndropout = 0.0\n',
}


def cohort(folder: Path) -> list[str]:
    """A matrix whose first genes tell a class, a value and a time; labels are missing, and not in the same rows."""
    generator = np.random.default_rng(8)
    x = generator.normal(size=(SAMPLES, GENES))
    kind = np.where(x[:, 0] > 0, "odd", "even")
    size = 100 + 20 * x[:, 1]
    months = np.exp(3 + 1.5 * x[:, 2] + 0.1 * generator.normal(size=SAMPLES))
    until = generator.exponential(60, SAMPLES)
    died = months <= until
    names = [f"p{i:02}" for i in range(SAMPLES)]
    lines = ["gene\t" + "\t".join(names)]
    lines += [f"G{g}\t" + "\t".join(f"{v:.4f}" for v in x[:, g]) for g in range(GENES)]
    (folder / "matrix.tsv").write_text("\n".join(lines) + "\n")
    rows = ["sample_id\tkind\tsize\tmonths\tdied\tage\tnever"]
    for i, name in enumerate(names):
        row = [
            name,
            kind[i],
            f"{size[i]:.3f}",
            f"{min(months[i], until[i]):.4f}",
            "1:DECEASED" if died[i] else "0:LIVING",
            f"{50 + 10 * x[i, 2] + generator.normal(scale=10):.1f}",
            "0",
        ]
        if i % 4 == 0:
            row[1] = ""
        if i % 3 == 0:
            row[2] = "NA"
        if i in (5, 6):
            row[3], row[4] = ("0.0", row[4]) if i == 5 else (row[3], "")
        if i == 7:
            row[3] = "-2"
        rows.append("\t".join(row))
    (folder / "samples.tsv").write_text("\n".join(rows) + "\n")
    return ["expression", str(folder / "matrix.tsv"), "--samples", str(folder / "samples.tsv"), "--cohort", "c"]


def test_targets_of_every_kind(lake: Lake, genodl, tmp_path: Path) -> None:
    at = ("--lake", lake.uri)
    assert genodl(ingest, *cohort(tmp_path), *at)[0] == 0
    for name, toml in TOMLS.items():
        head, _, tables = toml.partition("[")
        rest = f"[{tables}" if tables else ""
        text = f'implementation = "tumor_type"\n{head}{rest}[split]\nfolds = 2\n'
        (tmp_path / f"{name}.toml").write_text(text)
    _heads(lake, genodl, str(tmp_path / "heads.toml"), at)
    _survival(lake, genodl, str(tmp_path / "survival.toml"), at)
    _unlabelled(lake, genodl, str(tmp_path / "unlabelled.toml"), at)
    assert genodl(monitor, *at)[0] in (0, 3)
    watched = lake.read(FINDINGS).where(F.col("check") == "unscored").select("task", "label_column", "value").collect()
    expected = {("heads", "kind"), ("heads", "size"), ("survival", "months"), ("unlabelled", "none")}
    assert {(row.task, row.label_column) for row in watched} == expected and {row.value for row in watched} == {0.0}


def _heads(lake: Lake, genodl, task: str, at: tuple[str, ...]) -> None:
    code, report, line = genodl(prepare, task, *at, *SETTINGS)
    assert code == 0, line
    # Every fourth lacks the kind, every third the size, every twelfth both.
    dataset = lake.read(DATASETS).collect()[0]
    assert (dataset.rows, dataset.label_column, list(dataset.classes)) == (SAMPLES - 8, "kind, size", [])
    assert json.loads(dataset.heads) == [
        {"label": "kind", "kind": "classes", "classes": ["even", "odd"]},
        {"label": "size", "kind": "value", "classes": []},
    ]
    assert any("have no kind" in text for text in report["warnings"]) and any(
        "have no size" in text for text in report["warnings"]
    )
    assert genodl(train, task, *at, *SETTINGS)[0] == 0
    model = lake.read(MODELS).collect()[0]
    code, report, line = genodl(evaluate, task, *at, *SETTINGS)
    assert code == 0, line
    found = report["metrics"]
    by_kind, by_size = found["heads"]["kind"], found["heads"]["size"]
    assert by_kind["model"]["balanced_accuracy"]["value"] > 0.8 and by_size["model"]["r2"]["value"] > 0.7
    assert (by_kind["n_test"], by_size["n_test"], found["n_test"]) == (67, 60, 82)
    # The mean over heads that have a metric: of one.
    assert found["model"]["r2"]["value"] == by_size["model"]["r2"]["value"]
    names = {"majority", "decision_tree", "logistic"}
    assert set(found["baselines"]) == set(by_kind["baselines"]) == set(by_size["baselines"]) == names
    assert by_size["baselines"]["logistic"]["r2"]["value"] > 0.9  # ridge, of values
    held = lake.read(HELD_OUT).where(F.col("model_id") == model.model_id)
    counts = {
        (row["predictor"], row["head"]): row["count"] for row in held.groupBy("predictor", "head").count().collect()
    }
    assert counts == {(p, h): n for p in {"model", *names} for h, n in (("kind", 67), ("size", 60))}
    # As one reads the model back, every entity is scored for both labels, whichever it has.
    code, report, line = genodl(predict, task, *at)
    assert (code, report["rows"]["predictions"]["written"]) == (0, 2 * SAMPLES), line
    rows = {(row.entity_id, row.label_column): row for row in lake.read(PREDICTIONS).collect()}
    files = model_files.registered(lake, model.model_id)
    scored = predictor.score(_packed(lake, files.card().features), files).collect()
    assert len(scored) == SAMPLES
    for row in scored:
        kind, size = rows[row.entity_id, "kind"], rows[row.entity_id, "size"]
        assert [kind.probabilities[name] for name in ("even", "odd")] == list(row.scores[:2])
        assert (kind.predicted, kind.value) == (
            max(kind.probabilities, key=kind.probabilities.get),
            max(row.scores[:2]),
        )
        assert (size.predicted, size.probabilities, size.value) == (None, None, row.scores[2])
    assert genodl(predict, task, *at)[1]["status"] == "unchanged"
    code, report, line = genodl(lineage, "predictions", *at, "--key", "p03")
    again = {found["prediction"]["label_column"]: found["scored_again"]["identical"] for found in report["result"]}
    assert again == {"kind": True, "size": True}, line
    sql = "SELECT e.sample_id, genodl_predict('heads:size', e.x, e.feature_set).value AS v FROM expression e ORDER BY 1"
    code, report, line = genodl(query, sql, *at)
    assert code == 0, line
    assert [row["v"] for row in report["result"]] == [rows[f"p{i:02}", "size"].value for i in range(SAMPLES)]
    code, _, line = genodl(query, "SELECT genodl_predict('heads', x, feature_set).value FROM expression", *at)
    assert code == 2 and "expected one of 'heads:kind', 'heads:size'" in line
    code, _, line = genodl(train, task, *at, "--label", "kind,kind", *SETTINGS)
    assert code == 2 and "found 'kind' twice" in line
    code, _, line = genodl(train, task, *at, "--set", "quality.select=3", *SETTINGS)
    assert code == 2 and "quality.select" in line


def _packed(lake: Lake, names: list[str]):
    """Rows of the cohort as models take them."""
    from genodl_spark.features.matrices import MatrixFeatures
    from genodl_spark.lake.snapshot import Snapshot
    from genodl_spark.lake.tables.ingested import EXPRESSION

    return MatrixFeatures(EXPRESSION).rows(Snapshot(lake), "c", names)


def _survival(lake: Lake, genodl, task: str, at: tuple[str, ...]) -> None:
    cox = ["--set", "evaluate.baselines=majority,logistic,cox_elastic_net,cox_covariates", "--set", "covariates=age"]
    code, report, line = genodl(train, task, *at, *SETTINGS, *cox)
    assert code == 0, line
    assert any("2 samples with a months of 0 or less are left out: p05, p07" in text for text in report["warnings"])
    code, report, line = genodl(prepare, task, *at, *SETTINGS, *cox)
    assert code == 0 and report["rows"]["splits"]["quarantined"] == 2, line
    refused = lake.read(SPLITS).where(F.col("reason").isNotNull()).collect()
    assert {(row.entity_id, row.role, row.reason) for row in refused} == {
        ("p05", "unused", "found 0 in months; expected a time above 0"),
        ("p07", "unused", "found -2 in months; expected a time above 0"),
    }
    code, report, line = genodl(evaluate, task, *at, *SETTINGS, *cox)
    assert code == 0, line
    found = report["metrics"]
    of_times = {f"{name}@{time}" for name in ("brier", "auroc") for time in (5, 20)}
    assert set(found["model"]) == {"c_index", "c_index_uno", "integrated_brier", "mean_auroc", *of_times}
    assert found["n_test"] == SAMPLES - 3
    by_name = {"model": found["model"], **found["baselines"]}
    c_index = {name: of["c_index"]["value"] for name, of in by_name.items()}
    assert c_index["majority"] == 0.5 and 0.55 < c_index["cox_covariates"] < 0.87
    assert min(c_index[name] for name in ("model", "ridge", "cox_elastic_net")) > 0.8
    brier = {name: of["integrated_brier"]["value"] for name, of in by_name.items()}
    assert brier["ridge"] is None and brier["cox_elastic_net"] < brier["cox_covariates"] < brier["majority"]
    assert brier["model"] < brier["majority"] and by_name["model"]["integrated_brier"]["low"] < brier["model"]
    assert found["difference"]["baseline"] in c_index
    held = lake.read(HELD_OUT).where((F.col("head") == "months") | F.col("event").isNotNull())
    assert held.where(F.col("predictor") == "model").count() == SAMPLES - 3
    assert genodl(predict, task, *at)[0] == 0
    rows = lake.read(PREDICTIONS).where(F.col("task") == "survival").collect()
    assert len(rows) == SAMPLES and all(
        row.value > 0 and row.uncertainty >= 0 and row.predicted is None for row in rows
    )
    assert all(list(row.probabilities) == ["5", "20"] for row in rows)
    assert all(1 >= row.probabilities["5"] >= row.probabilities["20"] >= 0 for row in rows)
    refused = {"target.event=never": "no training row whose event", "target.horizons=[9,3]": "ascending"}
    for settings, words in refused.items():
        code, _, line = genodl(train, task, *at, "--set", settings, *SETTINGS)
        assert code == 2 and words in line, line
    code, _, line = genodl(train, task, *at, "--set", "target.event=kind", *SETTINGS)
    assert code == 2 and "in kind of sample" in line and "expected 1 or 0" in line


def _unlabelled(lake: Lake, genodl, task: str, at: tuple[str, ...]) -> None:
    assert genodl(train, task, *at, *SETTINGS)[0] == 0
    code, report, line = genodl(evaluate, task, *at, *SETTINGS)
    assert code == 0, line
    found = report["metrics"]
    assert list(found["model"]) == ["reconstruction_error"] and found["baselines"] == {} and found["n_test"] == SAMPLES
    assert genodl(predict, task, *at)[0] == 0
    rows = lake.read(PREDICTIONS).where(F.col("task") == "unlabelled").collect()
    assert {row.label_column for row in rows} == {"none"} and len(rows) == SAMPLES
    held = {row.entity_id: row.scores[0] for row in lake.read(HELD_OUT).where(F.isnan("target")).collect()}
    measured = np.mean(list(held.values()))
    assert found["model"]["reconstruction_error"]["value"] == pytest.approx(measured)
    stored = lake.read(EVALUATIONS).where(F.col("metric") == "reconstruction_error").collect()
    assert len(stored) == 1 and stored[0].value == pytest.approx(measured)
    code, _, line = genodl(train, task, *at, "--label", "kind", *SETTINGS)
    assert code == 2 and "expected none of the two" in line
