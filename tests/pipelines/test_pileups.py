"""Reads whose truth is known to candidates with labels, and to a network that judges them, through the command line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from genodl_spark.genetics.calling.pileups import WIDTH
from genodl_spark.lake.delta import Lake
from genodl_spark.lake.tables.calls import CALLS, PILEUPS
from genodl_spark.lake.tables.genomes import ALIGNMENTS
from genodl_spark.lake.tables.ingested import LABELS
from genodl_spark.lake.tables.learning import EXAMPLES, MODELS, PREDICTIONS, SPLITS
from jobs import call, evaluate, forget, ingest, predict, train
from tests.genetics.calling.labelled_reads import written

LENGTH, SURE = 4_000, (600, 3_400)


@pytest.fixture(scope="module")
def reads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("calling")


@pytest.fixture(scope="module")
def given(reads: Path) -> list[str]:
    return ["alignments", *written(reads, LENGTH, 20, SURE), "--cohort", "c", "--set", "call.depths=6"]


def test_candidates_get_labels_and_a_network_learns_them(
    genodl, lake: Lake, reads: Path, given: list[str], tmp_path: Path
) -> None:
    at = ("--lake", lake.uri)
    code, report, said = genodl(ingest, *given, *at)
    assert code == 0, said
    assert genodl(ingest, *given, *at)[1]["status"] == "unchanged"
    rows = {row.variant_id: row for row in lake.read(PILEUPS).collect()}
    told = {row.entity_id: row for row in lake.read(LABELS).collect()}
    assert rows.keys() == told.keys()
    assert report["rows"]["pileups"]["total"] == report["rows"]["labels"]["total"] == len(rows) > 100
    assert all(len(row.x) == WIDTH for row in rows.values())
    asked = (
        "variant_calling", *at, "--set", "split.group=chromosome", "--set", "split.train=0.5",
        "--set", "split.validation=0.25", "--set", "split.test=0.25", "--set", "train.launcher=process",
        "--set", "train.epochs=2", "--set", "model.channels=[4]", "--set", "model.hidden=[16]",
    )  # fmt: skip
    code, _, said = genodl(train, *asked)
    assert code == 0, said
    code, report, said = genodl(evaluate, "variant_calling", *at, "--set", "evaluate.baselines=majority")
    assert code == 0, said
    assert report["metrics"]["model"]["accuracy"]["value"] > 0.9
    assert set(report["metrics"]["by"]) == {"0", "6"}
    assert genodl(predict, "variant_calling", *at)[0] == 0
    predicted = lake.read(PREDICTIONS).select("entity_id", "predicted", "probabilities").collect()
    assert {row.entity_id for row in predicted} == rows.keys()
    assert np.mean([row.predicted == told[row.entity_id].label for row in predicted]) > 0.9
    out = ("--output", str(tmp_path / "o.vcf.gz"))
    code, report, said = genodl(call, *out, *at)
    assert code == 0, said
    (model,) = {row.model_id for row in lake.read(MODELS).collect()}
    calls = lake.read(CALLS).collect()
    assert len(calls) == report["metrics"]["records"] > 20
    assert {row.model_id for row in calls} == {model}
    for row in calls:
        said_by_network = [row.evidence[f"network_{copies}"] for copies in range(3)]
        assert sum(said_by_network) == pytest.approx(1, abs=1e-5)
        if "," not in row.alt and row.filter == "PASS":
            assert row.gt == ("0/0", "0/1", "1/1")[int(np.argmax(said_by_network))]
    assert genodl(call, *out, "--model", model, *at)[1]["status"] == "unchanged"
    assert genodl(call, *out, "--set", "call.network=false", *at)[0] == 0
    assert {row.model_id for row in lake.read(CALLS).collect()} == {None}
    assert "found no model nobody of task variant_calling" in genodl(call, *out, "--model", "nobody", *at)[2]
    assert genodl(forget, "--cohort", "c", "--sample", "S", *at)[0] == 0
    assert lake.count(PILEUPS) == lake.count(LABELS) == lake.count(PREDICTIONS) == lake.count(SPLITS) == 0
    examples = lake.read(EXAMPLES).select("entity_id", "x").collect()
    assert not {row.entity_id for row in examples} & rows.keys()
    assert all(set(bytes(row.x)) == {255} for row in examples)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (("--truth", None), ("--truth", "expected both")),
        (("--confident", None), ("--confident", "expected both")),
        (("--reference", None), ("--reference", "as --truth needs it")),
        (("--truth", "bare.vcf.gz"), ("no index beside the file",)),
        (("--confident", "other.bed"), ("is it the same build",)),
    ],
)
def test_what_does_not_go_together_is_refused(
    genodl, lake: Lake, reads: Path, given: list[str], changed: tuple[str, str | None], words: tuple[str, ...]
) -> None:
    (reads / "bare.vcf.gz").write_bytes((reads / "truth.vcf.gz").read_bytes())
    (reads / "other.bed").write_text("X\t0\t100\n")
    option, name = changed
    at = given.index(option)
    rest = given[:at] + ([option, str(reads / name)] if name else []) + given[at + 2 :]
    code, _, said = genodl(ingest, *rest, "--lake", lake.uri)
    assert code == 2
    assert all(word in said for word in words), said
    assert not lake.exists(ALIGNMENTS)
