"""Steps before networks, from counts and an annotation to predictions: lengths of genes, batches, noise."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from pyspark.sql import functions as F
from safetensors.numpy import load

from genodl_spark.lake.delta import Lake
from genodl_spark.lake.tables.learning import PREDICTIONS, TREATMENTS
from jobs import evaluate, ingest, lineage, predict, query, train
from jobs import report as report_job

SAMPLES, GENES = 600, 12
STEPS = ["impute_median", "tpm", "log2", "combat"]
TRAINED = [
    f"quality.steps={','.join(STEPS)}",
    "quality.batch=lab",
    "quality.annotation=genes",
    "split.folds=2",
    "split.repeats=1",
    "train.epochs=8",
    "train.min_steps=0",
    "train.ensemble=1",
    "train.learning_rate=0.02",
    "tracking.uri=off",
]
EVALUATED = ["evaluate.baselines=majority,logistic", "evaluate.resamples=20", "evaluate.null=false", "tracking.uri=off"]


def lengths() -> np.ndarray:
    """Of each gene two exons that overlap by 50 bases, of two transcripts; of the last one none."""
    return np.array([*(300 + 100.0 * np.arange(GENES - 1)), np.nan])


def annotation() -> str:
    lines = []
    for g, length in enumerate(lengths()[:-1].astype(int)):
        start = 1000 + 10_000 * g
        for t, (first, last) in enumerate(((start, start + 199), (start + 150, start + length - 1))):
            named = f'gene_id "ENSG{g:011}"; gene_version "4"; transcript_id "ENST{g}{t}"; gene_name "N{g}";'
            lines.append(f"chr1\ta\texon\t{first}\t{last}\t.\t+\t.\t{named}\n")
    return "".join(lines)


def cohort(folder: Path, name: str, labs: str, samples: int, seed: int) -> list[str]:
    """Counts in proportion to lengths, by labs with scales of their own; the first three genes tell a kind."""
    generator = np.random.default_rng(seed)
    lab, kind = np.arange(samples) % len(labs), np.arange(samples) // len(labs) % 2
    level = generator.normal(2, 1, GENES) + generator.normal(0, 0.7, (len(labs), GENES))[lab]
    level[:, :3] += 1.5 * kind[:, None]
    counts = generator.poisson(np.exp(level) * np.nan_to_num(lengths(), nan=500) / 20)
    noise = generator.permutation(np.arange(samples) % 2)
    ids = [f"{name}{i:03}" for i in range(samples)]
    lines = ["gene\t" + "\t".join(ids)]
    lines += [f"ENSG{g:011}.7\t" + "\t".join(map(str, counts[:, g])) for g in range(GENES)]
    (folder / f"{name}.tsv").write_text("\n".join(lines) + "\n")
    table = [f"{ids[i]}\t{labs[lab[i]]}\tkind{kind[i]}\tside{noise[i]}" for i in range(samples)]
    (folder / f"{name}_samples.tsv").write_text("sample_id\tlab\tkind\tside\n" + "\n".join(table) + "\n")
    samples_file = str(folder / f"{name}_samples.tsv")
    return ["expression", str(folder / f"{name}.tsv"), "--samples", samples_file, "--cohort", name]


def test_steps_from_counts_to_predictions(genodl, lake: Lake, tmp_path: Path) -> None:
    at = ("--lake", lake.uri)
    trained, evaluated = ([part for one in settings for part in ("--set", one)] for settings in (TRAINED, EVALUATED))
    (tmp_path / "genes.gtf").write_text(annotation())
    assert genodl(ingest, "annotations", str(tmp_path / "genes.gtf"), "--cohort", "genes", *at)[0] == 0
    assert genodl(ingest, *cohort(tmp_path, "c", "ab", SAMPLES, 4), *at)[0] == 0
    models = {}
    for label in ("kind", "side"):
        chosen = ("tumor_type", "--cohort", "c", "--label", label, *at)
        code, report, line = genodl(train, *chosen, *trained, "--procs", "1")
        assert code == 0, line
        models[label] = report["metrics"]["model_id"]
        assert any("1 of 12 features have no exon in annotation 'genes'" in text for text in report["warnings"])
        assert report["rows"]["treatments"]["written"] == 3 and "annotations" in report["tables"]["read"]
    # what the labs differ in is no sign of labels of noise
    code, report, line = genodl(evaluate, *chosen, *evaluated)
    assert code == 0, line
    for found in (report["metrics"]["model"], report["metrics"]["baselines"]["logistic"]):
        assert 0.45 < found["auroc"]["value"] < 0.55
    rows = lake.read(TREATMENTS).where(F.col("model_id") == models["kind"]).collect()
    learnt = {row.fold: load(bytes(row.tensors)) for row in rows}
    assert {(row.fold, row.rows) for row in rows} == {(-1, SAMPLES), (0, SAMPLES // 2), (1, SAMPLES // 2)}
    assert json.loads(rows[0].steps) == {"steps": STEPS, "options": {}}
    for tensors in learnt.values():
        np.testing.assert_array_equal(tensors["step.1.lengths"][:GENES], lengths())
        assert tensors["step.3.gamma"].shape == (2, GENES - 1)
    assert (learnt[0]["step.3.mean"] != learnt[1]["step.3.mean"]).all()
    _predicted(genodl, lake, tmp_path, at)


def _predicted(genodl, lake: Lake, folder: Path, at: tuple[str, ...]) -> None:
    """What a model with steps says: of the rows of its cohort, again, in SQL, and of another lab's."""
    code, report, line = genodl(predict, "tumor_type", "--cohort", "c", "--label", "kind", *at)
    assert (code, report["rows"]["predictions"]["written"]) == (0, SAMPLES), line
    scored = {row.entity_id: row for row in lake.read(PREDICTIONS).collect()}
    right = [scored[f"c{i:03}"].predicted == f"kind{i // 2 % 2}" for i in range(SAMPLES)]
    assert np.mean(right) > 0.9
    code, report, line = genodl(lineage, "predictions", *at, "--key", "c005")
    assert [row["scored_again"]["identical"] for row in report["result"]] == [True], line
    counts = [line.split("\t")[2] for line in (folder / "c.tsv").read_text().splitlines()[1:]]  # of c001, of lab b
    values = ", ".join(f"'ENSG{g:011}', float({count})" for g, count in enumerate(counts))
    for told, expected in ((", 'covariate:lab=b', float(1)", 0), ("", 2)):
        asked = f"genodl_predict('tumor_type:kind', map({values}{told})).value"
        code, report, line = genodl(query, f"SELECT {asked} AS v FROM samples WHERE sample_id = 'c001'", *at)
        assert code == expected, line
        if told:
            assert [row["v"] for row in report["result"]] == pytest.approx([scored["c001"].value], abs=1e-6)
        else:
            assert "found rows without a batch" in line and "quality.batch" in line
    assert genodl(report_job, "--output", str(folder / "page"), *at)[0] == 0
    page = (folder / "page" / "data-c.html").read_text()
    assert f"After {', '.join(STEPS)}" in page and "Before and after: tumor_type, kind" in page
    assert genodl(ingest, *cohort(folder, "d", "bz", 8, 5), *at)[0] == 0
    code, _, line = genodl(predict, "tumor_type", "--cohort", "d", "--label", "kind", *at)
    assert code == 2 and "found rows of a batch that no training row has" in line
    assert lake.read(PREDICTIONS).where("cohort = 'd'").isEmpty()
