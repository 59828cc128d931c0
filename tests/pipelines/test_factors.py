"""A head for each value of a column, through the command line: each row teaches and measures that of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pyspark.sql import functions as F

from genodl_spark.lake.delta import Lake
from genodl_spark.lake.tables.learning import DATASETS, EXAMPLES, PREDICTIONS
from jobs import evaluate, ingest, predict, prepare, train
from tests.pipelines.test_negatives import FEW, SHUFFLED, SMALL

MOTIFS = {"A": "CACGTGAC", "B": "TTATCTAA"}
FACTOR = ("--set", "factor.column=tf")


def sequence(random: np.random.Generator, motif: str) -> str:
    row = ["ACGT"[b] for b in random.integers(0, 4, 31)]
    start = int(random.integers(0, 31 - len(motif)))
    row[start : start + len(motif)] = motif
    return "".join(row)


def table(path: Path, rows: list[tuple[str, ...]]) -> str:
    path.write_text("\n".join(["id\tsequence\tlabel\ttf\tsplit", *map("\t".join, rows), ""]))
    return str(path)


def test_one_head_for_each_factor(genodl, lake: Lake, tmp_path: Path) -> None:
    random = np.random.default_rng(5)
    rows = [
        (f"{factor}{i:03}", sequence(random, motif), "1", factor, "train")
        for factor, motif in MOTIFS.items()
        for i in range(120)
    ]
    held = [
        (f"{name}{factor}{i}", sequence(random, motif if i % 2 else ""), str(i % 2), factor, "test")
        for name in ("t", "x")
        for factor, motif in MOTIFS.items()
        for i in range(30)
    ]
    rows += [*held[:60], ("t?", sequence(random, ""), "0", "", "test")]
    lake_of = ("--lake", lake.uri)
    assert genodl(ingest, "sequences", table(tmp_path / "a.tsv", rows), *lake_of, "--cohort", "a")[0] == 0
    other = table(tmp_path / "b.tsv", [*held[60:], ("xC", sequence(random, ""), "0", "C", "test")])
    assert genodl(ingest, "sequences", other, *lake_of, "--cohort", "b")[0] == 0
    options = (*lake_of, "--cohort", "a", *FACTOR, *SHUFFLED, *SMALL, "--set", "split.column=split")
    code, report, last = genodl(train, "binding", *options, "--set", "sequence.alike=0")
    assert code == 0, last
    assert "1 of 301 sequences have no tf" in report["warnings"]
    dataset = lake.read(DATASETS).collect()[0]
    assert (dataset.rows, dataset.negatives, list(dataset.classes)) == (540, 240, [])
    for row in lake.read(EXAMPLES).where(F.col("dataset") == dataset.dataset).collect():
        known = ~np.isnan(np.frombuffer(row.targets, np.float64))
        assert known.tolist() == [f in row.entity_id.partition("~")[0] for f in MOTIFS], row.entity_id

    for cohort, n_test in (("a", 60), ("b", 60)):
        code, report, last = genodl(evaluate, "binding", *lake_of, "--cohort", cohort, *FEW)
        assert code == 0, last
        metrics = report["metrics"]
        assert metrics["n_test"] == n_test and set(metrics["heads"]) == set(MOTIFS)
        of_heads = [metrics["heads"][f]["model"]["auroc"]["value"] for f in MOTIFS]
        assert min(of_heads) > 0.8
        assert metrics["model"]["auroc"]["value"] == np.mean(of_heads)
        assert all(metrics["heads"][f]["n_test"] == 30 for f in MOTIFS)
    assert "1 sequences of another tf ('C' ...) are left out" in report["warnings"]

    code, report, last = genodl(predict, "binding", *lake_of, "--cohort", "b")
    assert code == 0, last
    scored = lake.read(PREDICTIONS).collect()
    assert len(scored) == 2 * 61 and {row.label_column for row in scored} == set(MOTIFS)
    of_a = {row.entity_id: row.probabilities["1"] for row in scored if row.label_column == "A"}
    assert np.mean([p for name, p in of_a.items() if name in {f"xA{i}" for i in range(1, 30, 2)}]) > 0.5
    assert np.mean([p for name, p in of_a.items() if name.startswith("xB")]) < 0.5


def test_of_one_factor_there_is_one_head(genodl, lake: Lake, tmp_path: Path) -> None:
    random = np.random.default_rng(6)
    rows = [(f"s{i:02}", sequence(random, ""), str(i % 2), "A" if i < 20 else "", "") for i in range(24)]
    common = ("--lake", lake.uri, "--cohort", "c", "--set", "split.folds=2", *FACTOR)
    assert genodl(ingest, "sequences", table(tmp_path / "s.tsv", rows), "--lake", lake.uri, "--cohort", "c")[0] == 0
    code, report, last = genodl(prepare, "binding", *common)
    assert code == 0, last
    assert "4 of 24 sequences have no tf" in report["warnings"]
    dataset = lake.read(DATASETS).collect()[0]
    assert (dataset.rows, list(dataset.classes), dataset.heads) == (20, ["0", "1"], None)
    for options, told in (
        (("--set", "factor.column=cell"), "factor.column: found no column 'cell' in labels; expected one of"),
        (("--label", "label,tf"), "factor.column: found 'tf' for label,tf; expected one label, classes or values"),
    ):
        code, _, last = genodl(prepare, "binding", *common, *options)
        assert code == 2 and last.startswith(f"genodl: error: {told}"), last
