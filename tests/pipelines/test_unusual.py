"""What a model cannot know is said: rows unlike those of training, and how good it is where nothing was held out."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from genodl_spark.lake.delta import Lake
from genodl_spark.lake.tables.learning import PREDICTIONS
from genodl_spark.learning import baselines
from jobs import evaluate, ingest, query, train
from jobs import predict as predict_job

FAST = (
    "train.epochs=2 train.min_steps=10 train.ensemble=1 tracking.uri=off train.launcher=process "
    "model.channels=[8] model.dilations=[1]"
)


def test_sequences_of_other_lengths_and_a_model_that_nothing_tests(genodl, lake: Lake, tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    common = ("--lake", lake.uri)

    def sent(name: str, rows: dict[str, str], classes: int = 2) -> None:
        lines = [f"{entity}\t{bases}\t{'abcd'[i % classes]}" for i, (entity, bases) in enumerate(rows.items())]
        (tmp_path / f"{name}.tsv").write_text("\n".join(["id\tsequence\tlabel", *lines]) + "\n")
        assert genodl(ingest, "sequences", str(tmp_path / f"{name}.tsv"), "--cohort", name, *common)[0] == 0

    def drawn(length: int) -> str:
        return "".join(random.choice(list("AACGTT"), length))

    sent("seen", {f"s{i:02}": drawn(20) for i in range(60)})
    settings = [part for key in FAST.split() for part in ("--set", key)]
    code, _, line = genodl(train, "binding", "--cohort", "seen", "--procs", "1", *common, *settings)
    assert code == 0, line
    new = {"long_run": "A" * 5000, "run": "A" * 20, "long": drawn(5000), "short": drawn(7)}
    new |= {f"alike{i}": drawn(20 + i % 3) for i in range(20)}
    sent("new", new)
    code, _, line = genodl(predict_job, "binding", "--cohort", "new", *common)
    assert code == 0, line
    found = {row.entity_id: row.out_of_distribution for row in lake.read(PREDICTIONS).where("cohort = 'new'").collect()}
    assert {name for name, odd in found.items() if odd and not name.startswith("alike")} == {
        "long_run",
        "run",
        "long",
        "short",
    }
    assert sum(odd for name, odd in found.items() if name.startswith("alike")) <= 1
    asked = (
        f"SELECT genodl_predict('binding', '{'A' * 5000}').out_of_distribution AS long, "
        f"genodl_predict('binding', '{new['alike0']}')"
    )
    code, report, line = genodl(query, f"{asked}.out_of_distribution AS alike", *common)
    assert code == 0, line
    assert report["result"] == [{"long": True, "alike": found["alike0"]}]

    # Beside the network stand the baselines that its task names, some of which see bases.
    for cohort in ("seen", "new"):
        code, report, line = genodl(evaluate, "binding", "--cohort", cohort, *common, "--set", "evaluate.resamples=20")
        assert code == 0, line
        assert set(report["metrics"]["baselines"]) == set(baselines.names(2, letters=True)) - {"lda", "elastic_net"}
        assert report["metrics"]["n_test"] == {"seen": 12, "new": 24}[cohort]

    # Of four rows of four classes none can be held out.
    sent("few", {f"f{i}": drawn(20) for i in range(4)}, 4)
    code, report, line = genodl(train, "binding", "--cohort", "few", "--procs", "1", *common, *settings)
    assert code == 0, line
    (said,) = [text for text in report["warnings"] if "held out" in text]
    assert "nothing tells how good the model is" in said and "temperature 1" in said
    assert (report["metrics"]["temperature"], report["rows"]["held_out"]["written"]) == (1.0, 0)
    code, report, line = genodl(evaluate, "binding", "--cohort", "few", *common)
    assert (code, report["status"]) == (2, "failed") and "no row was held out" in line, line
