"""Predictions over the lake: incremental scoring, re-sends, two models, two runs at once, ranges,
views, SQL, streams, lineage."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyspark.sql import functions as F

from genodl_spark.core import storage
from genodl_spark.core.errors import Conflict
from genodl_spark.features import protocol
from genodl_spark.features.sequences import SequenceFeatures
from genodl_spark.lake.delta import Lake
from genodl_spark.lake.snapshot import Snapshot
from genodl_spark.lake.tables.ingested import SEQUENCES
from genodl_spark.lake.tables.learning import MODELS, PREDICTIONS
from genodl_spark.learning import model_files, predictor
from jobs import ingest, lineage, query, train
from jobs import predict as predict_job

FAST = (
    "--set",
    "train.epochs=2",
    "--set",
    "train.min_steps=20",
    "--set",
    "train.ensemble=2",
    "--set",
    "tracking.uri=off",
    "--set",
    "train.launcher=process",
    "--set",  # by positions these rows are told apart so well that a probability is 1
    "train.blend=[]",
)
SMALL = ("--set", "model.channels=[8]", "--set", "model.dilations=[1]", "--procs", "1")


def sequences(path: Path, names: list[str], seed: int, motif: str = "TATAAT") -> str:
    generator = np.random.default_rng(seed)
    lines = ["id\tsequence\tlabel"]
    for i, name in enumerate(names):
        bases = "".join("ACGT"[b] for b in generator.integers(0, 4, 40))
        lines.append(f"{name}\t{bases[:15] + motif + bases[21:] if i % 2 else bases}\t{i % 2}")
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def scores(lake: Lake, where: str = "true") -> dict[str, tuple[Any, ...]]:
    names = (
        "value",
        "raw_value",
        "uncertainty",
        "distance",
        "predicted",
        "abstained",
        "out_of_distribution",
        "in_training",
    )
    return {
        f"{r.model_id} {r.entity_id}": tuple(r[n] for n in names) for r in lake.read(PREDICTIONS).where(where).collect()
    }


def test_predictions_follow_the_lake(
    genodl, lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    at = ("--lake", lake.uri)
    one, two = [f"s{i:03}" for i in range(80)], [f"t{i:03}" for i in range(10)]
    assert genodl(ingest, "sequences", sequences(tmp_path / "one.tsv", one, 1), "--cohort", "c'1", *at)[0] == 0
    code, report, line = genodl(train, "binding", *at, *SMALL, *FAST)
    assert code == 0, line
    model = report["metrics"]["model_id"]

    code, report, line = genodl(predict_job, "binding", *at)
    assert (code, report["rows"]["predictions"]) == (0, {"written": 80, "total": 80, "quarantined": 0}), line
    rows = {r.entity_id: r for r in lake.read(PREDICTIONS).collect()}
    row = lake.read(MODELS).collect()[0]
    card = model_files.registered(lake, model).card()
    assert all(
        r.split_hash == row.split_hash and json.loads(r.computed_on)["batch"] == card.batch for r in rows.values()
    )
    assert all(
        r.probabilities[r.predicted] == r.value and abs(sum(r.probabilities.values()) - 1) < 1e-9 for r in rows.values()
    )
    assert all(r.abstained == r.out_of_distribution for r in rows.values())  # of two classes the best has half at least
    assert all(r.uncertainty >= 0 and 1.5 < r.distance < 2.5 for r in rows.values())
    assert {r.source_versions["sequences"] for r in rows.values()} == {lake.version(SEQUENCES)}
    # What the plain function over rows says, which other jobs and streams use.
    packed = SequenceFeatures().rows(Snapshot(lake), "c'1", card.features)
    plain = {r.entity_id: max(r.scores) for r in predictor.score(packed, lake.model_uri(model)).collect()}
    assert plain == {entity: r.value for entity, r in rows.items()}
    assert genodl(predict_job, "binding", *at)[1]["status"] == "unchanged"

    # Other settings are another answer, and so are the first ones again.
    assert (
        genodl(predict_job, "binding", *at, "--set", "predict.least_probability=1")[1]["rows"]["predictions"]["written"]
        == 80
    )
    assert {r.abstained for r in lake.read(PREDICTIONS).collect()} == {True}
    assert genodl(predict_job, "binding", *at)[1]["rows"]["predictions"]["written"] == 80
    assert {r.entity_id: r.abstained for r in lake.read(PREDICTIONS).collect()} == {
        entity: r.abstained for entity, r in rows.items()
    }

    # New rows: only they are scored.
    first, version = scores(lake), lake.version(PREDICTIONS)
    assert genodl(ingest, "sequences", sequences(tmp_path / "two.tsv", two, 2), "--cohort", "c'1", *at)[0] == 0
    code, report, _ = genodl(predict_job, "binding", *at)
    assert report["rows"]["predictions"] == {"written": 10, "total": 90, "quarantined": 0}
    assert {k: v for k, v in scores(lake).items() if k in first} == first
    assert len(lake.files(PREDICTIONS, lake.version(PREDICTIONS))) > len(lake.files(PREDICTIONS, version))
    assert {f.uri for f in lake.files(PREDICTIONS, version)} < {
        f.uri for f in lake.files(PREDICTIONS, lake.version(PREDICTIONS))
    }

    # Another cohort's rows change nothing here.
    assert genodl(ingest, "sequences", sequences(tmp_path / "three.tsv", ["x"], 2), "--cohort", "other", *at)[0] == 0
    assert genodl(predict_job, "binding", "--cohort", "c'1", *at)[1]["status"] == "unchanged"

    # A file sent again: two rows corrected, one gone, one new, seven as they were.
    text = (tmp_path / "two.tsv").read_text().splitlines()
    changed = [
        text[0],
        *(line[:5] + line[5:].replace("A", "G", 5) if line[:4] in ("t001", "t002") else line for line in text[1:10]),
        "t999" + text[3][4:],
    ]
    (tmp_path / "two.tsv").write_text("\n".join(changed) + "\n")
    assert genodl(ingest, "sequences", str(tmp_path / "two.tsv"), "--cohort", "c'1", *at)[0] == 0
    before = scores(lake)
    code, report, _ = genodl(predict_job, "binding", "--cohort", "c'1", *at)
    assert report["rows"]["predictions"] == {"written": 3, "total": 90, "quarantined": 0}
    after = scores(lake)
    assert {k.split()[1] for k in before.keys() ^ after.keys()} == {"t009", "t999"}
    assert {k.split()[1] for k in before.keys() & after.keys() if before[k] != after[k]} == {"t001", "t002"}

    # The same as scoring all of it anew, in other batches.
    assert genodl(predict_job, "binding", "--cohort", "c'1", *at, "--force")[1]["rows"]["predictions"]["written"] == 90
    assert scores(lake) == after
    assert genodl(
        predict_job, "binding", "--cohort", "c'1", *at, "--set", "predict.first=s005", "--set", "predict.last=s007"
    )[1]["rows"]["predictions"] == {
        "written": 3,
        "total": 90,
        "quarantined": 0,
    }
    assert scores(lake) == after
    assert genodl(predict_job, "binding", "--cohort", "c'1", *at)[1]["status"] == "unchanged"

    # A run that comes second to the same rows looks again, and leaves nothing behind.
    commit, raced = Lake.commit, []

    def late(self: Lake, table: Any, *arguments: Any, **options: Any) -> None:
        if table is PREDICTIONS and not raced:
            raced.append(1)
            # By its model's name, as a second run of the very same command would only wait for this one.
            assert genodl(predict_job, "binding", "--cohort", "c'1", "--model", model, *at, "--force")[0] == 0
            raise Conflict("the other one was first")
        commit(self, table, *arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(Lake, "commit", late)
        assert genodl(predict_job, "binding", "--cohort", "c'1", *at, "--force")[0] == 0
    assert scores(lake) == after
    live = {f.uri for f in lake.files(PREDICTIONS, lake.version(PREDICTIONS))}
    assert len([u for u in storage.files_under(lake.path(PREDICTIONS), ".parquet") if u not in live]) < 30

    # A second model stands beside the first; so do the views.
    code, report, line = genodl(train, "binding", "--cohort", "c'1", *at, *SMALL, *FAST, "--seed", "5")
    assert code == 0, line
    challenger = report["metrics"]["model_id"]
    assert genodl(predict_job, "binding", "--cohort", "c'1", *at)[1]["rows"]["predictions"] == {
        "written": 90,
        "total": 180,
        "quarantined": 0,
    }
    assert {k: v for k, v in scores(lake).items() if k.startswith(model)} == after
    newest = genodl(query, "SELECT DISTINCT model_id FROM predictions_latest", *at)[1]["result"]
    assert newest == [{"model_id": challenger}]
    typed = genodl(
        query, "SELECT entity_id, predicted, value, probability_0, probability_1 FROM predictions_binding", *at
    )[1]["result"]
    assert len(typed) == 90
    assert all(
        r["value"] == r[f"probability_{r['predicted']}"] and abs(r["probability_0"] + r["probability_1"] - 1) < 1e-9
        for r in typed
    )
    both = genodl(query, "SELECT * FROM predictions_compared", *at)[1]["result"]
    assert {(r["champion_model_id"], r["challenger_model_id"]) for r in both} == {(challenger, model)}
    assert len(both) == 90 and all(r["agree"] == (r["champion_predicted"] == r["challenger_predicted"]) for r in both)

    # SQL: the packed column, and text, of one model or the newest of a task.
    asked = f"genodl_predict('{model}', codes) AS p, genodl_predict('binding', codes).value AS newest"
    sql = f"SELECT sequence_id, {asked} FROM sequences WHERE cohort <> 'other'"
    answers = {r["sequence_id"]: r for r in genodl(query, sql, *at)[1]["result"]}
    stored = {r.entity_id: r for r in lake.read(PREDICTIONS).where(F.col("model_id") == model).collect()}
    assert answers.keys() == stored.keys()
    for name, answer in answers.items():
        assert answer["p"]["value"] == stored[name].value and answer["p"]["probabilities"] == stored[name].probabilities
        assert answer["newest"] == next(r["value"] for r in typed if r["entity_id"] == name)
    bases = (tmp_path / "one.tsv").read_text().splitlines()[1].split("\t")
    text_sql = (
        f"SELECT genodl_predict('{model}', '{bases[1].lower()}').value AS v, genodl_predict('{model}', "
        "CAST(NULL AS STRING)).value AS n"
    )
    assert genodl(query, text_sql, *at)[1]["result"] == [{"v": stored[bases[0]].value, "n": None}]
    for sql, found in (
        ("SELECT genodl_predict('nothing', 'ACGT')", "found no model 'nothing'"),
        ("SELECT genodl_predict(sequence_id, codes) FROM sequences", "without the name of a task"),
        (f"SELECT genodl_predict('{model}', 'AC!')", "found '!' at base 3"),
    ):
        code, _, line = genodl(query, sql, *at)
        assert code == 2 and found in line

    # A stream of the table is scored by the same function.
    stream = lake.spark.readStream.format("delta").load(lake.path(SEQUENCES)).where("cohort <> 'other'")
    pack = SequenceFeatures().stored(Snapshot(lake), "c'1", card.features)
    rows = predictor.score(stream.select(*pack.columns).mapInArrow(pack.pack, protocol.ROWS), lake.model_uri(model))
    running = (
        rows.writeStream.format("memory")
        .queryName("scored")
        .trigger(availableNow=True)
        .option("checkpointLocation", str(tmp_path / "stream"))
        .start()
    )
    assert running.awaitTermination(120)
    streamed = {r.entity_id: max(r.scores) for r in lake.spark.table("scored").collect()}
    assert streamed == {name: r.value for name, r in stored.items()}

    # Lineage: to file and line, and the same score again from the versions of then.
    line_of = next(r for r in lake.read(SEQUENCES).where("sequence_id = 't001'").collect()).line
    code, report, _ = genodl(lineage, "predictions", *at, "--key", "t001")
    assert code == 0 and len(report["result"]) == 2
    for traced in report["result"]:
        assert traced["scored_again"] == {"identical": True, "same_hardware": True}
        (file,) = traced["made_from"]["files"]
        assert (file["file"], file["line"], len(file["sha256"]), file["uri"]) == (
            "two.tsv",
            line_of,
            64,
            storage.absolute(str(tmp_path / "two.tsv")),
        )
        assert traced["model"]["trained_by"]["run"] and traced["scored_by"]["run"]
        assert traced["model"]["dataset"]["split_hash"] == row.split_hash or traced["model"]["model_id"] == challenger
    # A row scored before the table moved on is made again from what it was.
    assert genodl(ingest, "sequences", sequences(tmp_path / "one.tsv", one, 77), "--cohort", "c'1", *at)[0] == 0
    code, report, _ = genodl(lineage, "predictions", *at, "--key", "s003")
    assert [t["scored_again"] for t in report["result"]] == [{"identical": True, "same_hardware": True}] * 2
    for argv, found in (
        (("nonsense",), "found no table 'nonsense'"),
        (("predictions", "--key", "nobody"), "found no row of predictions"),
    ):
        code, _, line = genodl(lineage, argv[0], *at, *argv[1:])
        assert code == 2 and found in line
    assert genodl(lineage, "models", *at, "--key", model)[1]["result"][0]["dataset"]["sources"][0]["file"] == "one.tsv"
    assert genodl(lineage, "sequences", *at)[1]["result"][0]["written_by"][0]["job"] == "ingest"

    # Files that are no model, and tables that are not as declared.
    weights = storage.local_path(storage.join(lake.model_uri(challenger), model_files.WEIGHTS))
    Path(weights).write_bytes(b"\x80\x04\x95payload")
    code, _, line = genodl(predict_job, "binding", "--cohort", "c'1", *at)
    assert code == 2 and "model.safetensors: found SHA-256" in line
    lake.spark.sql(f"ALTER TABLE delta.`{lake.path(PREDICTIONS)}` ADD COLUMNS (spare string)")
    lake.spark.read.format("delta").load(lake.path(PREDICTIONS)).drop("distance").write.format("delta").mode(
        "overwrite"
    ).option("overwriteSchema", "true").save(lake.path(PREDICTIONS))
    code, _, line = genodl(predict_job, "binding", "--cohort", "c'1", "--model", model, *at)
    assert code == 2 and "table predictions has no column distance; expected double; run genodl maintain" in line
    assert not math.isnan(next(iter(after.values()))[0])
