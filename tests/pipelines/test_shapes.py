"""Images, pairs, sparse counts and several named inputs, each a task of one Python file and one TOML:
from the lake's tables to predictions, what they were made of, and whether they drift."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import load
from torch.nn import functional

from genodl_spark import tasks
from genodl_spark.core import packing, storage
from genodl_spark.core.errors import InputError
from genodl_spark.job import config
from genodl_spark.job.run import Report, Run
from genodl_spark.lake.delta import Lake
from genodl_spark.lake.tables.learning import DATASETS, EXAMPLES, MODELS, PREDICTIONS
from genodl_spark.learning import model_files
from genodl_spark.learning.training import rank
from genodl_spark.pipelines.monitor import _names
from genodl_spark.registry.datasets import job_of
from jobs import evaluate, ingest, lineage, monitor, predict, prepare, query, train

TASKS = Path(__file__).parent / "shapes"
PEOPLE, GENES, LENGTH = 48, 24, 22
KIND = np.arange(PEOPLE) % 2
OWN = ("--set", "code.trusted=true", "--set", "tracking.uri=off")


def counts(folder: Path) -> tuple[list[str], np.ndarray]:
    """A matrix of counts, most of them 0, whose first eight genes tell two classes apart;
    and its values (people, genes)."""
    generator = np.random.default_rng(11)
    x = generator.poisson(8, (PEOPLE, GENES)) * (generator.random((PEOPLE, GENES)) < 0.15)
    x[:, :8] += KIND[:, None] * generator.poisson(60, (PEOPLE, 8))
    names = [f"p{i:02}" for i in range(PEOPLE)]
    lines = ["gene\t" + "\t".join(names), *("\t".join([f"G{j}", *map(str, x[:, j])]) for j in range(GENES))]
    (folder / "m.tsv").write_text("\n".join(lines) + "\n")
    (folder / "s.tsv").write_text(
        "sample_id\tlabel\n" + "".join(f"{name}\t{'ab'[k]}\n" for name, k in zip(names, KIND, strict=True))
    )
    return ["expression", str(folder / "m.tsv"), "--samples", str(folder / "s.tsv")], x


def sequences(folder: Path) -> tuple[list[str], np.ndarray]:
    """Sequences whose halves differ in the middle base alone: A to G in one class, G to A in the other;
    and their base codes."""
    half = np.random.default_rng(12).integers(0, 4, (PEOPLE, LENGTH // 2))
    codes = np.concatenate([half, half], 1)
    codes[:, LENGTH // 4], codes[:, LENGTH // 2 + LENGTH // 4] = np.where(KIND == 1, 0, 2), np.where(KIND == 1, 2, 0)
    rows = [
        f"s{i:02}\t{''.join('ACGT'[c] for c in row)}\t{'ab'[k]}"
        for i, (row, k) in enumerate(zip(codes, KIND, strict=True))
    ]
    (folder / "seq.tsv").write_text("\n".join(["id\tsequence\tlabel", *rows]) + "\n")
    return ["sequences", str(folder / "seq.tsv")], codes


def outputs(task: str, x: np.ndarray, tensors: dict[str, torch.Tensor]) -> torch.Tensor:
    """What the members' networks say of counts, or base codes, (members, rows, classes),
    by the formulas of the tasks' files."""
    layers = {
        name.removeprefix("network."): value.double() for name, value in tensors.items() if name.startswith("network.")
    }

    def linear(name: str, z: np.ndarray | torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(z).double() @ layers[f"{name}.weight"] + layers[f"{name}.bias"]

    if task == "images":
        image = x.clip(0, 255).reshape(-1, 2, 12) / 32
        return linear("head", np.concatenate([image.mean(2), image.max(2)], 1))
    if task == "pairs":
        bases = np.arange(4)[:, None] == x[:, None]
        return linear("head", (bases[..., LENGTH // 2 :] * 1.0 - bases[..., : LENGTH // 2]).reshape(len(x), -1))
    if task == "counts":
        z = (np.arcsinh(x) - tensors["mean"].numpy()) * tensors["inverse"].numpy()
        return linear("layers.1", functional.gelu(linear("layers.0", z)))
    return linear("seen", np.log1p(x[:, :12])) + linear("read", np.log1p(x[:, 12:]))


EXPECTED = {  # what a row is packed as: type, features, values, encoding
    "images": ("uint8", 2, 24, "images.py"),
    "pairs": ("int8", LENGTH, LENGTH, "pairs.py"),
    "counts": ("sparse:uint16", GENES, GENES, "asinh"),
    "inputs": ("float32", GENES, GENES, "inputs.py"),
}


def test_rows_of_any_shape_go_the_whole_road(genodl, lake: Lake, tmp_path: Path) -> None:
    at = ("--lake", lake.uri)
    (matrix, of_people), (file, of_sequences) = counts(tmp_path), sequences(tmp_path)
    assert genodl(ingest, *matrix, "--cohort", "c", *at)[0] == 0
    assert genodl(ingest, *file, "--cohort", "c", *at)[0] == 0
    asked: dict[str, Any] = {}
    for task, (dtype, features, width, transform) in EXPECTED.items():
        toml, x = str(TASKS / f"{task}.toml"), of_sequences if task == "pairs" else of_people
        names = [f"{'s' if task == 'pairs' else 'p'}{i:02}" for i in range(PEOPLE)]
        code, report, line = genodl(prepare, toml, *at, *OWN)
        assert (code, report["metrics"]["rows"], report["metrics"]["features"]) == (0, PEOPLE, features), (task, line)
        (dataset,) = lake.read(DATASETS).where(f"task = '{task}'").collect()
        entries = int((x != 0).sum()) if task == "counts" else None
        assert (dataset.dtype, dataset.transform, dataset.entries) == (dtype, transform, entries), task
        packed = {
            row.entity_id: bytes(row.x) for row in lake.read(EXAMPLES).where(f"dataset = '{dataset.dataset}'").collect()
        }
        whole = packing.rows(pa.array([packed[name] for name in names], pa.binary()), dtype, width)
        np.testing.assert_array_equal(whole, x, task)

        code, report, line = genodl(train, toml, *at, *OWN, "--procs", "1")
        assert code == 0, (task, line)
        uri = lake.model_uri(report["metrics"]["model_id"])
        weights = storage.read_bytes(storage.join(uri, model_files.WEIGHTS))
        run = Run(Report("test"), config.load(toml), lake.uri)
        for backend in ("pyarrow", "petastorm"):
            job = replace(job_of(run, dataset, str(tmp_path / f"{task}-{backend}")), backend=backend)
            rank.run_alone(job)
            assert (tmp_path / f"{task}-{backend}" / "model.safetensors").read_bytes() == weights, (task, backend)

        quick = ("evaluate.resamples=50", "evaluate.baselines=majority,logistic")
        null = (f"evaluate.null={str(task == 'pairs').lower()}",)  # the network of the model's own file once more
        sets = [word for setting in quick + null for word in ("--set", setting)]
        code, report, line = genodl(evaluate, toml, *at, *OWN, *sets)
        assert code == 0, (task, line)
        assert ("shuffled_labels" in report["metrics"]["baselines"]) == (task == "pairs")
        measured = {"model": report["metrics"]["model"], **report["metrics"]["baselines"]}
        accuracy = {name: found["accuracy"]["value"] for name, found in measured.items()}
        assert accuracy["model"] > 0.8 and accuracy["logistic"] > 0.8 and accuracy["majority"] < 0.6, (task, accuracy)

        code, report, line = genodl(predict, toml, *at, *OWN)
        assert (code, report["rows"]["predictions"]["written"]) == (0, PEOPLE), (task, line)
        stored = {row.entity_id: row for row in lake.read(PREDICTIONS).where(f"task = '{task}'").collect()}
        card = model_files.card_of(storage.read_bytes(storage.join(uri, model_files.CARD)), uri)
        p = torch.softmax(outputs(task, x, load(weights)), -1).mean(0) ** (1 / card.temperature)
        expected = (p / p.sum(1, keepdim=True)).numpy()
        found = np.array([[stored[name].probabilities[c] for c in card.classes] for name in names])
        np.testing.assert_allclose(found, expected, atol=2e-6, err_msg=task)
        assert (found.argmax(1) == KIND).mean() > 0.9, task
        asked[task] = stored

    for name in ("p07", "s07"):
        code, report, line = genodl(lineage, "predictions", *at, *OWN, "--key", name)
        traced = {found["model"]["task"]: found["scored_again"] for found in report["result"]}
        kinds = {"pairs"} if name == "s07" else EXPECTED.keys() - {"pairs"}
        assert traced == {kind: {"identical": True, "same_hardware": True} for kind in kinds}, (line, report)

    # The column x of examples, as it is, is what the function takes.
    one = (
        "SELECT d.task, e.entity_id, genodl_predict('{0}', e.x).value AS value FROM examples e JOIN "
        "datasets d ON e.dataset = d.dataset"
    )
    sql = " UNION ALL ".join(f"{one.format(task)} WHERE d.task = '{task}'" for task in EXPECTED)
    sql += " UNION ALL SELECT 'map', '', genodl_predict('counts', map('G1', 70, 'none', 3)).value"
    code, report, line = genodl(query, sql, *at, *OWN)
    assert code == 0, line
    rows = {(row["task"], row["entity_id"]): row["value"] for row in report["result"]}
    by_map = rows.pop(("map", ""))
    assert rows == {(task, name): row.value for task, stored in asked.items() for name, row in stored.items()}
    (model,) = lake.read(MODELS).where("task = 'counts'").collect()
    tensors = load(storage.read_bytes(storage.join(lake.model_uri(model.model_id), model_files.WEIGHTS)))
    card = model_files.registered(lake, model.model_id).card()
    p = torch.softmax(outputs("counts", np.eye(1, GENES, 1) * 70, tensors), -1).mean(0) ** (1 / card.temperature)
    assert by_map == pytest.approx(float((p / p.sum()).max()), abs=2e-6)
    code, _, line = genodl(query, "SELECT genodl_predict('images', X'0102')", *at, *OWN)
    assert code == 2 and "found packed values that are not 24 of uint8" in line

    # Nothing has drifted; counts of another depth and images of another brightness have.
    code, report, line = genodl(monitor, *at, *OWN)
    assert (code, report["status"]) == (0, "done"), line
    checks = report["metrics"]["by_check"]
    assert checks["drifted"] == checks["missing"] == {"checks": 4, "breaches": 0} and "feature" not in checks, report[
        "metrics"
    ]
    worst = report["metrics"]["worst_features"]
    assert {name.partition(" ")[0] for name in worst} == set(EXPECTED)
    assert set(worst["images (label) on c"]) <= {
        f"{channel}[{i + 1}]" for channel in ("signal", "background") for i in range(12)
    }


def test_what_stands_beside_sparse_rows_is_refused() -> None:
    s = config.load(str(TASKS / "counts.toml"), assignments=["covariates=site"])
    with pytest.raises(InputError, match="covariates for features that networks take as sparse:uint16; expected none"):
        tasks.features(s)


def test_values_of_a_row_have_names() -> None:
    assert _names(["a", "b"], 2) == ["a", "b"]
    assert _names(["a", "b"], 6) == ["a[1]", "a[2]", "a[3]", "b[1]", "b[2]", "b[3]"]
    assert _names(["a", "b"], 3) == ["value 1", "value 2", "value 3"] and _names(["a", "b"], 1) == ["value 1"]
