"""From ingest to predictions through the command line: tumors, ancestry, another cohort, a user's own task."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pyspark.sql import functions as F
from torch.nn import functional

from genodl_spark.core import storage
from genodl_spark.core.errors import InputError
from genodl_spark.features import genotypes, matrices, protocol
from genodl_spark.lake.delta import Lake
from genodl_spark.lake.snapshot import Snapshot
from genodl_spark.lake.tables.ingested import EXPRESSION, VARIANTS
from genodl_spark.lake.tables.learning import DATASETS, HELD_OUT, MODELS, PREDICTIONS, SPLITS
from genodl_spark.learning import baselines, calibration, model_files, predictor
from genodl_spark.registry.datasets import allowed_of
from jobs import evaluate, ingest, monitor, prepare, query, train
from jobs import list as listing
from jobs import predict as predict_job

FAST = (
    "--set",
    "train.epochs=4",
    "--set",
    "train.min_steps=60",
    "--set",
    "train.ensemble=2",
    "--set",
    "tracking.uri=off",
)
TWO_RANKS = ("--set", "train.launcher=spark")
GENES = [f"G{i}" for i in range(20)]


def matrix(folder: Path, name: str, samples: list[str], genes: list[str], seed: int) -> list[str]:
    """A matrix whose first five genes tell two classes apart, and its sample table, in a folder of their own."""
    generator = np.random.default_rng(seed)
    kind = np.arange(len(samples)) % 2
    values = generator.normal(size=(len(genes), len(samples)))
    values[[g in GENES[:5] for g in genes]] += 2.5 * kind
    folder.mkdir(exist_ok=True)
    lines = ["gene\t" + "\t".join(samples)] + [
        "\t".join([g, *(f"{v:.4f}" for v in row)]) for g, row in zip(genes, values, strict=True)
    ]
    (folder / f"{name}.tsv").write_text("\n".join(lines) + "\n")
    table = ["sample_id\tstatus\tage\tsite"] + [
        f"{s}\t{'tumor' if k else 'normal'}\t{50 + 3 * k}\t{'ab'[k]}" for s, k in zip(samples, kind, strict=True)
    ]
    (folder / f"{name}_samples.tsv").write_text("\n".join(table) + "\n")
    return [
        "expression",
        str(folder / f"{name}.tsv"),
        "--samples",
        str(folder / f"{name}_samples.tsv"),
        "--cohort",
        name,
    ]


def contents(lake: Lake) -> dict[str, list[Any]]:
    """What models, predictions and splits hold, time stamps apart."""
    return {
        table.name: sorted(
            str(row.asDict()) for row in lake.read(table).drop("trained_at", "scored_at", "metrics").collect()
        )
        for table in (MODELS, PREDICTIONS, SPLITS, HELD_OUT)
    }


def test_tumors_from_matrix_to_predictions_and_on_another_cohort(genodl, lake: Lake, tmp_path: Path) -> None:
    at = ("--lake", lake.uri)
    assert genodl(ingest, *matrix(tmp_path, "one", [f"p{i}" for i in range(40)], GENES, 1), *at)[0] == 0
    label = ("--label", "status", "--set", "split.folds=2", "--set", "split.repeats=2")
    code, report, _ = genodl(train, "tumor_type", *at, *label, *FAST, *TWO_RANKS)
    assert (code, report["status"], report["rows"]["models"]["written"]) == (0, "done", 1)
    assert report["tables"]["read"].keys() >= {"expression", "samples", "examples"}
    model_id = report["metrics"]["model_id"]

    code, report, _ = genodl(evaluate, "tumor_type", *at, "--label", "status", "--set", "evaluate.resamples=200")
    metrics = report["metrics"]
    assert (code, metrics["n_test"], metrics["split"]["folds"]) == (0, 40, 2)
    assert metrics["model"]["accuracy"]["value"] > 0.9
    assert (
        metrics["model"]["accuracy"]["low"]
        <= metrics["model"]["accuracy"]["value"]
        <= metrics["model"]["accuracy"]["high"]
    )
    assert set(metrics["baselines"]) == set(baselines.NAMES)
    assert metrics["baselines"]["majority"]["accuracy"]["value"] == pytest.approx(0.5, abs=0.1)
    refused = ("--label", "status", "--set", "evaluate.baselines=majority,kmer_logistic")
    code, _, line = genodl(evaluate, "tumor_type", *at, *refused)
    assert code == 2 and "found baseline 'kmer_logistic' of rows that are no base codes; expected" in line
    own = lake.read(HELD_OUT).where("predictor = 'model'").collect()
    by_hand = [np.mean([np.argmax(r.scores) == r.target for r in own if r.repeat == k]) for k in range(2)]
    assert metrics["model"]["accuracy"]["value"] == pytest.approx(np.mean(by_hand))

    code, report, _ = genodl(predict_job, "tumor_type", *at, "--label", "status")
    assert (code, report["rows"]["predictions"]) == (0, {"written": 40, "total": 40, "quarantined": 0})
    rows = {r.entity_id: r for r in lake.read(PREDICTIONS).collect()}
    assert all(r.in_training for r in rows.values())

    # The same numbers from the tensors by hand.
    uri = lake.model_uri(model_id)
    card = model_files.registered(lake, model_id).card()
    from safetensors.torch import load

    tensors = load(storage.read_bytes(storage.join(uri, model_files.WEIGHTS)))
    found = {
        r.entity_id: np.frombuffer(r.x, np.float32)
        for r in matrices.MatrixFeatures(EXPRESSION).rows(Snapshot(lake), "one", card.features).collect()
    }
    for entity, x in found.items():
        z = (torch.tensor(x) - tensors["mean"]) * tensors["inverse"]
        outputs = []
        for m in range(card.members):
            h = functional.gelu(z @ tensors["network.layers.0.weight"][m] + tensors["network.layers.0.bias"][m, 0])
            logits = h @ tensors["network.layers.1.weight"][m] + tensors["network.layers.1.bias"][m, 0]
            logits += z @ tensors["network.discriminant"][m] + tensors["network.discriminant_bias"][m, 0]
            outputs.append(torch.softmax(logits.double(), -1))
        p = torch.stack(outputs).mean(0) ** (1 / card.temperature)
        expected = (p / p.sum()).tolist()
        assert [rows[entity].probabilities[c] for c in card.classes] == pytest.approx(expected, abs=1e-6)
        assert rows[entity].predicted == card.classes[int(np.argmax(expected))]
        may = {name for name, p in rows[entity].probabilities.items() if p >= (card.cuts[0] or 0)}
        assert set(rows[entity].prediction_set) == may | {rows[entity].predicted}
    # 9 of 10 of the rows held out, and a little more, were as probable as the cut at least
    raw = np.array([[*r.scores, r.target] for r in own])
    of_true = calibration.sharpen(raw[:, :-1], card.temperature)[np.arange(len(raw)), raw[:, -1].astype(int)]
    assert card.coverage == 0.9 and 0.9 * 41 / 40 <= np.mean(of_true >= card.cuts[0] - 1e-12) < 0.95

    before = contents(lake)
    assert genodl(prepare, "tumor_type", *at, *label)[1]["status"] == "unchanged"
    assert genodl(train, "tumor_type", *at, *label, *FAST, *TWO_RANKS)[1]["status"] == "unchanged"
    code, again, _ = genodl(evaluate, "tumor_type", *at, "--label", "status", "--set", "evaluate.resamples=200")
    assert (again["status"], again["metrics"]) == ("unchanged", metrics)
    assert genodl(predict_job, "tumor_type", *at, "--label", "status")[1]["status"] == "unchanged"
    assert contents(lake) == before

    # Another cohort: four genes lacking, one more, other order; two people that trained the model.
    others = [f"q{i}" for i in range(20)] + ["p0", "p1"]
    genes = [*reversed(GENES[:16]), "extra"]
    assert genodl(ingest, *matrix(tmp_path, "two", others, genes, 2), *at)[0] == 0
    code, _, line = genodl(
        predict_job, "tumor_type", *at, "--cohort", "two", "--label", "status", "--set", "min_feature_overlap=0.9"
    )
    assert code == 2 and "lacks 4 of the model's 20 features" in line
    code, report, _ = genodl(predict_job, "tumor_type", *at, "--cohort", "two", "--label", "status")
    assert (code, report["rows"]["predictions"]["written"]) == (0, 22)
    assert any("lacks 4 of the model's 20 features" in warning for warning in report["warnings"])
    seen = {r.entity_id: r.in_training for r in lake.read(PREDICTIONS).where("cohort = 'two'").collect()}
    assert {entity for entity, inside in seen.items() if inside} == {"p0", "p1"}
    code, report, _ = genodl(
        evaluate,
        "tumor_type",
        *at,
        "--cohort",
        "two",
        "--label",
        "status",
        "--set",
        "evaluate.baselines=logistic,majority",
    )
    assert (code, report["metrics"]["n_test"], report["metrics"]["split"]["external"]) == (0, 20, True)
    assert any("2 samples of two are left out" in warning for warning in report["warnings"])
    assert report["metrics"]["model"]["accuracy"]["value"] > 0.85
    assert report["metrics"]["baselines"]["logistic"]["accuracy"]["value"] > 0.85
    drop, here = report["metrics"]["drop"], report["metrics"]["model"]
    assert drop["from"] == "one"
    for name in ("accuracy", "auroc", "ece"):
        assert drop[name]["value"] == pytest.approx(metrics["model"][name]["value"] - here[name]["value"], abs=1e-9)
        assert drop[name]["low"] - 1e-9 <= drop[name]["value"] <= drop[name]["high"] + 1e-9 or name == "ece"

    # What a user may get wrong.
    for argv, found_text in (
        (("tumor_type", *at, "--label", "status"), "2 cohorts (one, two)"),
        (("tumor_type", *at, "--cohort", "three", "--label", "status"), "cohort three has no data"),
        (("tumor_type", *at, "--cohort", "one", "--label", "nonsense"), "found no column 'nonsense' in samples"),
        (("tumour", *at), "found no task 'tumour'"),
        (("tumor_type", *at, "--cohort", "one", "--set", "train.epohcs=3"), "such as train.epochs"),
    ):
        code, report, line = genodl(train, *argv)
        assert (code, report["status"]) == (2, "failed")
        assert line.startswith("genodl: error: ") and found_text in line
    code, _, line = genodl(
        evaluate, "tumor_type", *at, "--cohort", "one", "--label", "status", "--set", "split.folds=4"
    )
    assert code == 2 and "uses the one stored with the model" in line


def vcf(path: Path, people: list[str], shift: int = 0, swapped: bool = False) -> str:
    """Twelve sites, of which the first six tell two populations apart; in `swapped` files REF and ALT
    stand the other way round."""
    generator = np.random.default_rng(7)
    lines = [
        "##fileformat=VCFv4.2",
        "##contig=<ID=chr1>",
        '##FORMAT=<ID=GT,Number=1,Type=String,Description="Genotype">',
    ]
    lines.append("\t".join(["#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO", "FORMAT", *people]))
    for site in range(12):
        calls = []
        for person in people:
            rare = site < 6 and int(person[1:]) % 2
            pair = (generator.random(2) < (0.9 if rare else 0.1 if site < 6 else 0.5)).astype(int)
            calls.append("./." if generator.random() < 0.03 else "|".join(str(1 - a if swapped else a) for a in pair))
        lines.append(
            "\t".join(
                [
                    "chr1" if not swapped else "1",
                    str(100 + site),
                    ".",
                    *("GA" if swapped else "AG"),
                    ".",
                    "PASS",
                    ".",
                    "GT",
                    *calls,
                ]
            )
        )
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def test_ancestry_from_vcf(genodl, lake: Lake, tmp_path: Path) -> None:
    at = ("--lake", lake.uri)
    people = [f"h{i}" for i in range(60)]
    table = tmp_path / "samples.tsv"
    table.write_text("sample_id\tsuper_population\n" + "".join(f"{p}\t{'XY'[int(p[1:]) % 2]}\n" for p in people))
    assert genodl(ingest, "vcf", vcf(tmp_path / "a.vcf", people), "--samples", str(table), "--cohort", "a", *at)[0] == 0
    code, report, _ = genodl(train, "ancestry", *at, *FAST, "--procs", "1", "--seed", "3")
    assert (code, report["rows"]["models"]["written"]) == (0, 1)
    roles = {r["role"]: r["count"] for r in lake.read(SPLITS).groupBy("role").count().collect()}
    assert roles == {"train": 42, "validation": 6, "test": 12}
    code, report, _ = genodl(
        evaluate, "ancestry", *at, "--set", "evaluate.baselines=logistic", "--set", "evaluate.null=true"
    )
    assert (report["metrics"]["n_test"], report["metrics"]["split"]["test"]) == (12, 0.2)
    assert report["metrics"]["model"]["macro_f1"]["value"] > 0.9
    null = report["metrics"]["baselines"].pop("shuffled_labels")["macro_f1"]
    assert null["value"] < 0.8 and list(report["metrics"]["baselines"]) == ["logistic"]
    assert report["metrics"]["difference"]["baseline"] == "logistic"
    assert [path for path in storage.files_under(lake.uri) if "/_staging/null-" in path] == []
    # The same people's genotypes with REF and ALT exchanged, and no label: the same answers.
    assert genodl(ingest, "vcf", vcf(tmp_path / "b.vcf", people, swapped=True), "--cohort", "b", *at)[0] == 0
    for cohort in ("a", "b"):
        assert genodl(predict_job, "ancestry", *at, "--cohort", cohort)[1]["rows"]["predictions"]["written"] == 60
    found: dict[str, dict[str, dict[str, float]]] = {}
    for row in lake.read(PREDICTIONS).collect():
        found.setdefault(row.cohort, {})[row.entity_id] = row.probabilities
    assert found["a"] == found["b"]
    trained = {r.entity_id for r in lake.read(SPLITS).where(F.col("role") != "test").collect()}
    assert {r.entity_id for r in lake.read(PREDICTIONS).where("cohort = 'a' AND in_training").collect()} == trained
    # Every training set chooses by its own people, whoever else is there.
    snapshot, all_of_them = Snapshot(lake), np.ones((1, 60), bool)
    whole = genotypes.GenotypeFeatures().choose(snapshot, "a", people, all_of_them)
    every = whole.names
    assert every == [f"1:{100 + site}:A:G" for site in range(12)] and whole.allowed is None
    rows = {
        r.entity_id: np.frombuffer(r.x, np.int8)
        for r in genotypes.GenotypeFeatures().rows(snapshot, "a", every).collect()
    }
    values = np.stack([rows[p] for p in people])
    learns = np.random.default_rng(7).random((4, 60)) < np.array([[0.1], [0.3], [0.5], [1.0]])
    frequency = np.stack(
        [np.where(values[s] > 0, values[s], 0).sum(0) / np.maximum(2 * (values[s] >= 0).sum(0), 1) for s in learns]
    )
    passes = np.minimum(frequency, 1 - frequency) >= 0.2
    assert 0 < passes.sum() < passes.size and (passes != passes[0]).any()
    common = genotypes.GenotypeFeatures(min_allele_frequency=0.2).choose(snapshot, "a", people, learns)
    assert common.names == [name for name, some in zip(every, passes.any(0), strict=True) if some]
    assert common.allowed is not None and (common.allowed == passes[:, passes.any(0)]).all()
    most = int(passes.sum(1).min())
    few = genotypes.GenotypeFeatures(0.2, max_features=most)
    together = few.choose(snapshot, "a", people, learns)
    allowed = np.ones((4, most), bool) if together.allowed is None else together.allowed
    for s, mine in enumerate(learns):
        alone = few.choose(snapshot, "a", people, mine[None]).names
        assert alone == [name for name, may in zip(together.names, allowed[s], strict=True) if may]
        assert len(alone) == most and set(alone) <= {name for name, may in zip(every, passes[s], strict=True) if may}
    # Of a night's people they alone are scored; all of a file where a record of it has moved to another contig.
    late = Path(vcf(tmp_path / "c.vcf", ["h70", "h71"], swapped=True))
    assert genodl(ingest, "vcf", str(late), "--cohort", "b", *at)[0] == 0
    assert genodl(predict_job, "ancestry", *at, "--cohort", "b")[1]["rows"]["predictions"]["written"] == 2
    scored = lake.version(VARIANTS)
    late.write_text(late.read_text().replace("\n1\t111\t", "\n2\t111\t"))
    assert genodl(ingest, "vcf", str(late), "--cohort", "b", *at)[0] == 0
    moved = Snapshot(lake)
    for since, expected in ((scored, {"h70", "h71"}), (moved.version(VARIANTS), set())):
        changed = genotypes.GenotypeFeatures().changed(moved, "b", {VARIANTS.name: since})
        assert changed is not None and {row.entity_id for row in changed.entities.collect()} == expected


def test_a_held_out_row_changes_no_training_set(genodl, lake: Lake, tmp_path: Path) -> None:
    at = ("--lake", lake.uri)
    people = [f"p{i:02}" for i in range(30)]
    values = np.random.default_rng(2).normal(7, 1, (30, 6))
    values[0, 0] = 4000.0  # as on a linear scale
    values[1:13, 1] = np.nan
    lines = ["gene\t" + "\t".join(people)] + [
        f"g{j}\t" + "\t".join("NA" if v != v else f"{v:.4f}" for v in values[:, j]) for j in range(6)
    ]
    (tmp_path / "m.tsv").write_text("\n".join(lines) + "\n")
    table = ["sample_id\tlabel\tsplit"] + [
        f"{p}\t{'ab'[i % 2]}\t{'test' if i < 3 else 'train'}" for i, p in enumerate(people)
    ]
    (tmp_path / "s.tsv").write_text("\n".join(table) + "\n")
    assert (
        genodl(
            ingest, "expression", str(tmp_path / "m.tsv"), "--samples", str(tmp_path / "s.tsv"), "--cohort", "c", *at
        )[0]
        == 0
    )
    # One row alone says that values are on a linear scale: folds without it disagree,
    # a split that tests it does not see it.
    code, _, line = genodl(prepare, "tumor_type", *at, "--set", "split.repeats=1", "--set", "split.folds=5")
    assert code == 2 and "quality.transform: found that the training rows of 5 of 6 training sets" in line
    assert genodl(prepare, "tumor_type", *at, "--set", "split.column=split")[0] == 0
    # Twelve of thirty values are missing: .4 of all rows, more or less of each training set.
    chosen = (
        "--set",
        "quality.max_missing=0.4",
        "--set",
        "quality.transform=none",
        "--set",
        "split.folds=5",
        "--set",
        "split.repeats=1",
    )
    assert genodl(prepare, "tumor_type", *at, *chosen)[0] == 0
    fixed, folded = lake.read(DATASETS).orderBy("prepared_at").collect()
    assert (fixed.transform, fixed.allowed, fixed.n_features) == ("none", None, 6)
    codes = {
        row.entity_id: row.fold for row in lake.read(SPLITS).where(f"split_hash = '{folded.split_hash}'").collect()
    }
    fold = np.array([codes[p] for p in people])
    learns = np.stack([*(fold != k for k in range(5)), np.ones(30, bool)])
    enough = np.stack([(~np.isnan(values[mine, 1])).sum() >= 0.6 * mine.sum() for mine in learns])
    assert 0 < enough.sum() < 6
    allowed = allowed_of(folded)
    assert allowed is not None and (allowed[:, 1] == enough).all() and allowed[:, [0, 2, 3, 4, 5]].all()


def test_a_users_own_task_in_one_file(genodl, lake: Lake, tmp_path: Path) -> None:
    """A TOML and Python files anywhere: no registry, nothing of the package is touched;
    covariates and regression on the way.

    The code stays with the model, and runs by leave of today's command alone;
    what has changed since it was registered runs for nobody.
    """
    (tmp_path / "own.py").write_text(
        "from genodl_spark.features.matrices import MatrixFeatures\nfrom genodl_spark.features.protocol import ROWS\n"
        "from genodl_spark.lake.tables.ingested import EXPRESSION\n\n"
        # a function of the user's, on executors that do not have the file
        "def unchanged(batches):\n    yield from batches\n\n"
        "class Mine(MatrixFeatures):\n    def rows(self, lake, cohort, features):\n"
        "        return super().rows(lake, cohort, features).mapInArrow(unchanged, ROWS)\n\n"
        "def features(settings):\n    return Mine(EXPRESSION)\n"
    )
    (tmp_path / "net.py").write_text(
        "from genodl_spark.learning.models.mlp import Network as Mlp\n\nclass Network(Mlp):\n    pass\n"
    )
    (tmp_path / "enc.py").write_text(
        "from genodl_spark.learning.encodings import none\n\nclass Encoding(none.Encoding):\n    pass\n"
    )
    (tmp_path / "loss.py").write_text(
        "import torch\nfrom torch.nn import functional\nfrom genodl_spark.learning.losses.values import Values\n\n"
        "class Loss(Values):\n    def rows(self, outputs, target, standard, inputs, smoothing):\n"
        "        wanted = self.wanted(outputs, target, standard)\n"
        "        return functional.huber_loss(outputs[..., 0], wanted, reduction='none', delta=3.0)\n"
    )
    (tmp_path / "years.toml").write_text(
        'implementation = "own.py"\nlabel = "age"\nmetric = "r2"\ncovariates = ["site"]\n[quality]\n'
        'transform = "enc.py"\n[train]\nloss = "loss.py"\n[target]\nkind = "regression"\n[split]\nfolds = '
        '2\n[model]\nkind = "net.py"\n'
    )
    own = ("own.py", "net.py", "enc.py", "loss.py")
    task = str(tmp_path / "years.toml")
    at = ("--lake", lake.uri)
    assert genodl(ingest, *matrix(tmp_path, "one", [f"p{i}" for i in range(30)], GENES, 1), *at)[0] == 0
    code, report, line = genodl(train, task, *at, *FAST, "--procs", "1", "--set", "train.learning_rate=0.01")
    assert (code, report["rows"]["models"]["written"]) == (0, 1), line
    row = lake.read(MODELS).collect()[0]
    assert (row.task, row.n_features, list(row.classes)) == ("years", 22, [])
    assert model_files.registered(lake, row.model_id).card().features[-2:] == ["covariate:site=a", "covariate:site=b"]
    code, report, _ = genodl(evaluate, task, *at)
    assert report["metrics"]["model"]["r2"]["value"] > 0.8
    assert set(report["metrics"]["baselines"]) == {"majority", "linear_svm", "ridge", "random_forest", "decision_tree"}
    assert genodl(predict_job, task, *at)[0] == 0
    scored = lake.read(PREDICTIONS).collect()
    assert all(r.predicted is None and r.probabilities is None and 45 < r.value < 58 for r in scored)
    settings = json.loads(row.settings)
    assert (settings["target"]["kind"], settings["implementation"], settings["model"]["kind"]) == (
        "regression",
        "own.py",
        "net.py",
    )
    assert (
        str(tmp_path)
        not in row.settings + (tmp_path / "a lake, 100% odd" / "models" / row.model_id / "model.json").read_text()
    )

    stored = tmp_path / "a lake, 100% odd" / "models" / row.model_id
    assert {p.name: p.read_bytes() for p in (stored / "code").iterdir()} == {
        n: (tmp_path / n).read_bytes() for n in own
    }
    assert row.code_sha256 == {n: hashlib.sha256((tmp_path / n).read_bytes()).hexdigest() for n in own}
    values = {r.entity_id: r.value for r in scored}
    ran = tmp_path / "ran"
    for name in own:  # another file of the name is not the one that was registered
        (tmp_path / name).write_text(f"open({str(ran)!r}, 'w')\n" + (tmp_path / name).read_text())
    code, _, line = genodl(predict_job, task, *at, "--force")
    assert code == 2 and "code.trusted=true" in line
    assert genodl(predict_job, task, *at, "--force", "--set", "code.trusted=true")[0] == 0
    assert {r.entity_id: r.value for r in lake.read(PREDICTIONS).collect()} == values
    with pytest.raises(InputError, match=r"code\.trusted=true"):
        predictor.score(lake.spark.createDataFrame([], protocol.ROWS), lake.model_uri(row.model_id))
    for name in ("code/own.py", "code/enc.py", "code/loss.py", "model.json", "model.safetensors"):
        content = (stored / name).read_bytes()
        (stored / name).write_bytes(content[:-3] + bytes([content[-3] ^ 1]) + content[-2:])
        sql = "SELECT genodl_predict('years', x, feature_set) FROM expression"
        for verb, argv in ((predict_job, [task, "--force"]), (query, [sql])):
            # not in a worker yet
            code, _, line = genodl(verb, *argv, *at, "--set", "code.trusted=true", "--set", "predict.precision=bf16")
            assert code == 2 and f"{name}: found SHA-256" in line, (name, verb, line)
        (stored / name).write_bytes(content)
    assert not ran.exists()
    code, report, line = genodl(monitor, *at, "--set", "monitor.stale=1")
    assert (
        code == 3
        and [f["check"] for f in report["metrics"]["findings"]] == ["readable"]
        and "code.trusted=true" in line
    )
    # A model of an older version has no hashes: it is read, which is told, and code is only what the command names.
    lake.spark.sql(
        f"UPDATE delta.`{lake.path(MODELS)}` SET card_sha256 = NULL, weights_sha256 = NULL, code_sha256 = NULL"
    )
    code, report, _ = genodl(predict_job, task, *at, "--force")
    assert code == 0 and len([w for w in report["warnings"] if "registered without hashes" in w]) == 1 and ran.exists()
    assert {r.entity_id: r.value for r in lake.read(PREDICTIONS).collect()} == values
    # One whose settings nobody can read is a finding and a warning, and stops nothing else.
    lake.spark.sql(f"UPDATE delta.`{lake.path(MODELS)}` SET settings = '{{\"format\": 9}}'")
    code, report, line = genodl(monitor, *at)
    assert code == 3 and [f["check"] for f in report["metrics"]["findings"]] == ["readable"] and "format 9" in line
    code, report, _ = genodl(listing, "models", *at)
    assert code == 0 and len(report["result"]) == 1 and any("format 9" in warning for warning in report["warnings"])
