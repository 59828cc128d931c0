"""A network blended with a linear model, through the command line: trained, measured, predicted, asked in SQL."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from genodl_spark.core import storage
from genodl_spark.lake.delta import Lake
from genodl_spark.lake.tables.learning import HELD_OUT, PREDICTIONS, SPLITS
from genodl_spark.learning import calibration, model_files
from jobs import evaluate, ingest, query, train
from jobs import predict as predict_job

FAST = [f"train.{one}" for one in ("epochs=3", "min_steps=20", "ensemble=2", "launcher=process", "blend=kmers,both")]
FAST += ["tracking.uri=off", "model.channels=[8]", "model.dilations=[1]"]
SMALL = ("--procs", "1", *(part for one in FAST for part in ("--set", one)))
FEW = ("--set", "evaluate.resamples=50", "--set", "evaluate.baselines=majority,decision_tree")


def table(path: Path, count: int) -> str:
    """Half of the sequences have a word somewhere; of a hundred in a hundred and forty it is published who trains."""
    generator = np.random.default_rng(7)
    lines = ["id\tsequence\tlabel\tsplit\tvalue"]
    for i in range(count):
        bases = "".join("ACGT"[b] for b in generator.integers(0, 4, 40))
        start = generator.integers(0, 32)
        bases = bases[:start] + "TATAATGC" + bases[start + 8 :] if i % 2 else bases
        lines.append(f"s{i:03}\t{bases}\t{i % 2}\t{'test' if i % 7 > 4 else 'train'}\t{i % 2 + generator.normal():.3f}")
    path.write_text("\n".join(lines) + "\n")
    return str(path)


@pytest.mark.parametrize(
    ("split", "beside"), [("split.folds=3", ["linear", "boosted"]), ("split.column=split", ["linear"])]
)
def test_the_blend_is_what_is_measured_and_predicted(
    genodl, lake: Lake, tmp_path: Path, split: str, beside: list[str]
) -> None:
    at = ("--lake", lake.uri)
    assert genodl(ingest, "sequences", table(tmp_path / "s.tsv", 140), "--cohort", "c", *at)[0] == 0
    blend = "train.blend=kmers,both" + (",boosted" if "boosted" in beside else "")
    common = (*at, "--set", split, *SMALL, "--set", "train.validation=0.2", "--set", blend)
    parts = ("network", *beside)
    code, report, line = genodl(train, "sequence_class", *common)
    assert code == 0, line
    model = report["metrics"]["model_id"]
    shares = tuple(report["metrics"][f"{part}_share"] for part in beside)
    assert shares in model_files.mixtures(len(beside))
    card = model_files.registered(lake, model).card()
    assert card.shares == [{part: share for part, share in zip(beside, shares, strict=True) if share}]
    split_rows = {row.entity_id: row.role for row in lake.read(SPLITS).collect()}
    told = "the published split has no rows for validation: 20 of its 100 training rows are these"
    assert any(told in text for text in report["warnings"]) == (split == "split.column=split")
    counts = {role: list(split_rows.values()).count(role) for role in set(split_rows.values())}
    assert counts == ({"fold": 140} if "folds" in split else {"train": 80, "validation": 20, "test": 40})

    held = lake.read(HELD_OUT).collect()
    scores = {(row.predictor, row.entity_id): np.array(row.scores) for row in held}
    assert {row.predictor for row in held} == {"model", *parts}
    others = {row.fold for row in held}
    assert others == ({0, 1, 2} if "folds" in split else {None})
    measured = [row for row in held if row.role != "test"]
    # By hand: of two members' mean probabilities and the linear part's, each mixture's log loss on the other folds.
    assert len(held) == (1 + len(parts)) * (140 if "folds" in split else 60)
    for row in held:
        low, *_, high = sorted(scores[part, row.entity_id][1] for part in parts)
        assert low - 1e-3 <= scores["model", row.entity_id][1] <= high + 1e-3
    loss = {
        predictor: -np.mean([np.log(r.scores[int(r.target)]) for r in measured if r.predictor == predictor])
        for predictor in ("model", *parts)
    }
    assert loss["model"] <= min(loss[part] for part in parts) + (0.05 if "folds" in split else 0)

    code, report, line = genodl(evaluate, "sequence_class", *at, *FEW)
    assert code == 0, line
    found = report["metrics"]
    assert set(found["parts"]) == set(parts) and set(found["baselines"]) == {"majority", "decision_tree"}
    for predictor, said in (("linear", found["parts"]["linear"]), ("model", found["model"])):
        rows = [row for row in held if row.predictor == predictor and row.role != "validation"]
        positive = np.array([row.scores[1] for row in rows])
        target = np.array([row.target for row in rows])
        above = (positive[target == 1][:, None] > positive[target == 0]).mean()
        if "folds" not in split or predictor == "linear":  # with folds each one has a temperature of its own
            assert said["auroc"]["value"] == pytest.approx(above, abs=1e-9)
    assert found["difference"]["baseline"] in found["baselines"]
    assert found["model"]["auroc"]["value"] > 0.8

    assert genodl(predict_job, "sequence_class", *at)[0] == 0
    predicted = {row.entity_id: row.probabilities for row in lake.read(PREDICTIONS).collect()}
    if split == "split.column=split":  # there the model that was measured is the registered one
        for row in (row for row in held if row.predictor == "model"):
            wanted = calibration.sharpen(np.array(row.scores), card.temperature)
            assert predicted[row.entity_id]["1"] == pytest.approx(wanted[1], abs=1e-6)
    statement = "SELECT sequence_id, genodl_predict('sequence_class', codes) AS p FROM sequences WHERE cohort = 'c'"
    for row in genodl(query, statement, *at)[1]["result"]:
        said = json.loads(row["p"]) if isinstance(row["p"], str) else row["p"]
        value = max(predicted[row["sequence_id"]].values())
        assert said["value"] == pytest.approx(value, abs=1e-6)
    assert storage.is_file(storage.join(lake.model_uri(model), model_files.WEIGHTS))
    assert genodl(train, "sequence_class", *common)[1]["status"] == "unchanged"


def test_what_cannot_be_blended_is_refused_or_told(genodl, lake: Lake, tmp_path: Path) -> None:
    at = ("--lake", lake.uri)
    assert genodl(ingest, "sequences", table(tmp_path / "s.tsv", 140), "--cohort", "c", *at)[0] == 0
    code, report, _ = genodl(train, "sequence_expression", *at, *SMALL, "--set", "train.loss=poisson")
    assert code == 2  # a negative value; but of the blend there is a warning first
    assert any("no linear model or tree is blended with the network" in text for text in report["warnings"])
    code, report, line = genodl(
        train, "sequence_class", *at, *SMALL, "--label", "label,value", "--set", "target.values=value"
    )
    assert code == 0, line
    shares = [value for name, value in report["metrics"].items() if name.startswith("linear_share ")]
    card = model_files.registered(lake, report["metrics"]["model_id"]).card()
    assert len(shares) == 2 and [one.get("linear", 0) for one in card.shares] == shares
    code, report, line = genodl(evaluate, "sequence_class", *at, *FEW, "--label", "label,value")
    assert code == 0, line
    assert set(report["metrics"]["parts"]) == {"network", "linear"}
    assert set(report["metrics"]["heads"]["value"]["parts"]["linear"]) >= {"r2", "pearson"}
    code, _, line = genodl(train, "sequence_class", *at, *SMALL, "--set", "train.blend=words")
    assert code == 2 and "kmers, positions, both" in line
