"""From a random prediction of every task that the project ships, back to its files; and the same score again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from genodl_spark.core import storage
from genodl_spark.lake.delta import Lake
from genodl_spark.lake.tables.calls import PILEUPS
from genodl_spark.lake.tables.learning import PREDICTIONS, SPLITS
from jobs import annotate, ingest, lineage, predict, simulate, train
from tests.genetics.calling.labelled_reads import written
from tests.pipelines.test_consequence_features import genes, vcf

TASKS = sorted(path.stem for path in (Path(__file__).resolve().parents[2] / "conf" / "tasks").glob("*.toml"))
ANNOTATED = ("gene_burden", "variant_effect")  # from consequences of variants for the genes of `genes`
MATRICES = ("expression_pretraining", "biomarkers", "methylation", "multi_omics", "survival", "tumor_type")
ROWS = 40
QUICK = ("train.epochs=2", "train.min_steps=20", "train.ensemble=2", "tracking.uri=off", "train.launcher=process")


def inputs(genodl, task: str, folder: Path) -> list[str]:
    """Files for a task, as `ingest` takes them."""
    draw = np.random.default_rng(3)
    if task == "ancestry":
        path = folder / "people.vcf.gz"
        assert (
            genodl(
                simulate, "cohort", "--samples", str(ROWS), "--length", "40000", "--output", str(path), "--seed", "3"
            )[0]
            == 0
        )
        table = folder / "people.samples.tsv"
        table.write_text(table.read_text().replace("population", "super_population", 1))
        return ["vcf", str(path), "--samples", str(table)]
    if task in MATRICES:
        names, values = [f"p{i}" for i in range(ROWS)], draw.random(size=(12, ROWS))
        matrix, table = folder / "matrix.tsv", folder / "samples.tsv"
        rows = [["gene", *names], *([f"G{g}", *(f"{v:.3f}" for v in row)] for g, row in enumerate(values))]
        matrix.write_text("".join("\t".join(row) + "\n" for row in rows))
        told = [f"{name}\t{'AB'[i % 2]}\t{1 + i % 7}\t{int(i % 3 > 0)}" for i, name in enumerate(names)]
        table.write_text("\n".join(["sample_id\tlabel\ttime\tevent", *told, ""]))
        source = "methylation" if task == "methylation" else "expression"
        return [source, str(matrix), "--samples", str(table)]
    if task == "gene_burden":
        people, table = [f"p{i}" for i in range(ROWS)], folder / "samples.tsv"
        table.write_text("sample_id\tlabel\n" + "".join(f"{name}\t{'AB'[i % 2]}\n" for i, name in enumerate(people)))
        called = [" ".join(f"{a}/{b}" for a, b in draw.integers(0, 2, (ROWS, 2))) for _ in range(3)]
        sites = ("10004 A T", "10008 G A", "20009 G A")
        records = [f"{site} {calls}" for site, calls in zip(sites, called, strict=True)]
        return ["vcf", vcf(folder / "people.vcf", people, records), "--samples", str(table)]
    if task == "variant_effect":
        path = folder / "effects.tsv"
        changed = [f"chr20\t{10_001 + i}\t{base}" for i, base in enumerate("ATGAAACGGTAA")]
        found = [f"{at}\t{alt}" for at in changed for alt in "ACGT" if alt != at[-1]]
        found += [f"chr20\t{9_990 + i}\tC\tT" for i in range(4)]
        lines = [f"{variant}\t{'AB'[i % 2]}" for i, variant in enumerate(found)]
        path.write_text("\n".join(["chrom\tpos\tref\talt\tlabel", *lines]) + "\n")
        return ["variants", str(path)]
    if task == "variant_calling":
        return ["alignments", *written(folder, 3_000, 12, (400, 2_600)), "--set", "call.depths=6"]
    path, label = folder / "sequences.tsv", {"sequence_expression": "value"}.get(task, "label")
    found = [
        f"s{i}\t{''.join('ACGT'[b] for b in draw.integers(0, 4, 30))}\t{i % 2 if label == 'label' else draw.normal()}"
        for i in range(ROWS)
    ]
    path.write_text("\n".join([f"id\tsequence\t{label}", *found]) + "\n")
    return ["sequences", str(path)]


@pytest.mark.parametrize("task", TASKS)
def test_a_random_prediction_is_traced_and_made_again(genodl, lake: Lake, tmp_path: Path, task: str) -> None:
    at = ("--lake", lake.uri)
    kind, path, *more = inputs(genodl, task, tmp_path)
    assert genodl(ingest, kind, path, *more, "--cohort", "c", *at)[0] == 0
    if task in ANNOTATED:
        for source, file in zip(("reference", "annotations"), genes(tmp_path), strict=True):
            assert genodl(ingest, source, file, "--cohort", "genome", *at)[0] == 0
        assert genodl(annotate, *at)[0] == 0
    code, report, line = genodl(train, task, *at, "--procs", "1", *(x for setting in QUICK for x in ("--set", setting)))
    assert code == 0, line
    model = report["metrics"]["model_id"]
    of = lake.count(PILEUPS) if task == "variant_calling" else ROWS
    assert genodl(predict, task, *at)[1]["rows"]["predictions"]["written"] == of

    rows = lake.read(PREDICTIONS).collect()
    row = rows[np.random.default_rng().integers(len(rows))]  # another one each time: the message names it
    code, report, line = genodl(lineage, "predictions", *at, "--key", row.entity_id)
    (found,) = report["result"]
    assert (code, found["scored_again"]) == (0, {"identical": True, "same_hardware": True}), (
        row.entity_id,
        found,
        line,
    )
    assert found["prediction"]["value"] == row.value
    assert found["made_from"]["table_versions"] == row.source_versions
    (file,) = found["made_from"]["files"]
    assert (file["uri"], len(file["sha256"])) == (storage.absolute(path), 64)
    assert {"ancestry": "records", "gene_burden": "records", **dict.fromkeys(MATRICES, "column")}.get(
        task, "sha256" if task == "variant_calling" else "line"
    ) in file
    assert found["model"]["model_id"] == model and found["model"]["trained_by"]["run"] and found["scored_by"]["run"]
    hashes = {r.split_hash for r in lake.read(SPLITS).select("split_hash").distinct().collect()}
    assert {found["model"]["dataset"]["split_hash"]} == hashes

    # A score that is not the one stored is told.
    lake.spark.sql(
        f"UPDATE delta.`{lake.path(PREDICTIONS)}` SET value = value + 1e-12 WHERE entity_id = '{row.entity_id}'"
    )
    found = genodl(lineage, "predictions", *at, "--key", row.entity_id)[1]["result"][0]
    assert found["scored_again"] == {"identical": False, "same_hardware": True, "differs": ["value"]}
