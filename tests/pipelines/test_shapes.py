"""Images, pairs, sparse counts and several named inputs, each a task of one Python file and one TOML:
from the lake's tables to predictions, what they were made of, and whether they drift."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from genodl_spark import tasks
from genodl_spark.core import packing, storage
from genodl_spark.core.errors import InputError
from genodl_spark.job import config
from genodl_spark.job.run import Report, Run
from genodl_spark.lake.delta import Lake
from genodl_spark.lake.tables.learning import DATASETS, EXAMPLES
from genodl_spark.learning import model_files
from genodl_spark.learning.training import rank
from genodl_spark.pipelines.monitor import _names
from genodl_spark.registry.datasets import job_of
from jobs import evaluate, ingest, prepare, train

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


def test_what_stands_beside_sparse_rows_is_refused() -> None:
    s = config.load(str(TASKS / "counts.toml"), assignments=["covariates=site"])
    with pytest.raises(InputError, match="covariates for features that networks take as sparse:uint16; expected none"):
        tasks.features(s)


def test_values_of_a_row_have_names() -> None:
    assert _names(["a", "b"], 2) == ["a", "b"]
    assert _names(["a", "b"], 6) == ["a[1]", "a[2]", "a[3]", "b[1]", "b[2]", "b[3]"]
    assert _names(["a", "b"], 3) == ["value 1", "value 2", "value 3"] and _names(["a", "b"], 1) == ["value 1"]
