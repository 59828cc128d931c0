"""Two jobs on one lake at the same time: afterwards the tables are as if one had come after the other,
and no job has failed for it.

GENODL_ROUNDS: how often each pair is run.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from deltalake import DeltaTable, QueryBuilder

from genodl_spark.lake.tables import TABLES
from tests.faults.test_kill import FAST, contents, finish

ROUNDS = int(os.environ.get("GENODL_ROUNDS", "2"))
GENODL = [sys.executable, "-m", "jobs"]
pytestmark = pytest.mark.timeout(7200)


def matrix(folder: Path, name: str, first: int, count: int = 20) -> list[str]:
    """Expression of so many samples from a number on, half of each label, and their sample table."""
    generator = np.random.default_rng(first)
    samples = [f"s{i:03}" for i in range(first, first + count)]
    values = generator.normal(size=(40, count)) + 2 * (np.arange(count) % 2) * (np.arange(40) < 8)[:, None]
    lines = ["gene\t" + "\t".join(samples)] + [
        f"g{i}\t" + "\t".join(f"{v:.3f}" for v in row) for i, row in enumerate(values)
    ]
    (folder / f"{name}.tsv").write_text("\n".join(lines) + "\n")
    (folder / f"{name}-samples.tsv").write_text(
        "sample_id\tlabel\n" + "".join(f"{s}\t{'ab'[i % 2]}\n" for i, s in enumerate(samples))
    )
    return [
        "ingest",
        "expression",
        str(folder / f"{name}.tsv"),
        "--samples",
        str(folder / f"{name}-samples.tsv"),
        "--cohort",
        "c",
    ]


def vcf(folder: Path, contig: str) -> list[str]:
    """A VCF of one chromosome; one of its records is broken."""
    head = (
        f'##fileformat=VCFv4.2\n##contig=<ID={contig}>\n##FORMAT=<ID=GT,Number=1,Type=String,Description="Genotype">\n'
    )
    lines = [f"{contig}\t{i + 1}\t.\tA\t{'T' if i else 'U'}\t.\tPASS\t.\tGT\t0|1\t1|1\n" for i in range(50)]
    (folder / f"{contig}.vcf").write_text(
        head + "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\tp1\tp2\n" + "".join(lines)
    )
    return ["ingest", "vcf", str(folder / f"{contig}.vcf"), "--cohort", "v"]


def both(lake: Path, *commands: list[str]) -> list[tuple[int, dict]]:
    """Exit code and report of commands that start at the same time; one that another was in the way
    of is run once more, alone."""
    jobs = [
        subprocess.Popen(
            [*GENODL, *argv, "--lake", str(lake)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for argv in commands
    ]
    found = []
    for job, (out, err) in [(job, job.communicate(timeout=1800)) for job in jobs]:
        assert job.returncode in (0, 4), err
        if job.returncode == 4:
            last = err.strip().split("\n")[-1]
            assert last.startswith("genodl: error: ") and "Traceback" not in err, err
        found.append((job.returncode, json.loads(out.strip().split("\n")[-1])))
    for (code, _), argv in zip(found, commands, strict=True):
        if code == 4:
            finish(argv, lake)
    return found


def assert_keys(lake: Path) -> None:
    """No two rows of a table have the same key."""
    for table in TABLES.values():
        if (lake / table.name / "_delta_log").is_dir():
            names = ", ".join(f'"{name}"' for name in table.key)
            asked = f"SELECT {names}, count(*) AS n FROM t GROUP BY {names} HAVING count(*) > 1"
            twice = QueryBuilder().register("t", DeltaTable(str(lake / table.name))).execute(asked).read_all()
            assert twice.num_rows == 0, (table.name, twice.num_rows)


def rounds(folder: Path, start: Path | None, expected: Path, *commands: list[str]) -> list[list[tuple[int, dict]]]:
    """Runs the commands beside each other, from a copy of `start`, as often as asked;
    the tables must be those of `expected`."""
    wanted, found = contents(expected), []
    for number in range(ROUNDS):
        lake = folder / f"round {number}"
        if start is not None:
            shutil.copytree(start, lake)
        found.append(both(lake, *commands))
        assert_keys(lake)
        assert contents(lake) == wanted
        assert not list((lake / "_locks").rglob("*.json"))
        shutil.rmtree(lake)
    return found


def test_two_files_into_one_new_cohort(tmp_path: Path) -> None:
    commands = [matrix(tmp_path, "one", 0), matrix(tmp_path, "two", 100)]
    for argv in commands:
        finish(argv, tmp_path / "serial")
    rounds(tmp_path, None, tmp_path / "serial", *commands)


def test_two_chromosomes_into_one_new_cohort_and_one_twice(tmp_path: Path) -> None:
    commands = [vcf(tmp_path, "1"), vcf(tmp_path, "2")]
    for argv in commands:
        finish(argv, tmp_path / "serial")
    rounds(tmp_path, None, tmp_path / "serial", *commands)
    rounds(tmp_path, None, tmp_path / "serial", *commands, commands[0])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A folder, a lake with one cohort, and one with its model, too."""
    folder = tmp_path_factory.mktemp("trained")
    finish(matrix(folder, "one", 0), folder / "lake")
    shutil.copytree(folder / "lake", folder / "model")
    finish(["train", "tumor_type", *FAST], folder / "model")
    return folder, folder / "lake", folder / "model"


def test_the_same_preparation_twice(trained: tuple[Path, Path, Path], tmp_path: Path) -> None:
    argv = ["prepare", "tumor_type", *FAST]
    shutil.copytree(trained[1], tmp_path / "serial")
    finish(argv, tmp_path / "serial")
    rounds(tmp_path, trained[1], tmp_path / "serial", argv, argv)


def test_the_same_training_twice(trained: tuple[Path, Path, Path], tmp_path: Path) -> None:
    argv = ["train", "tumor_type", *FAST]
    for found in rounds(tmp_path, trained[1], trained[2], argv, argv):
        assert sorted((code, report["status"]) for code, report in found) in (
            [(0, "done"), (0, "unchanged")],
            [(0, "done"), (4, "failed")],
        )


def test_two_models_of_one_task(trained: tuple[Path, Path, Path], tmp_path: Path) -> None:
    """Either may come first; their versions tell them apart."""
    commands = [["train", "tumor_type", *FAST, "--seed", str(seed)] for seed in (1, 2)]
    for number in range(ROUNDS):
        lake = tmp_path / f"round {number}"
        shutil.copytree(trained[1], lake)
        assert [code for code, _ in both(lake, *commands)] == [0, 0]
        assert_keys(lake)
        models = (
            QueryBuilder()
            .register("t", DeltaTable(str(lake / "models")))
            .execute("SELECT seed, model_version FROM t")
            .read_all()
        )
        for name in ("seed", "model_version"):
            assert sorted(value.as_py() for value in models.column(name)) == [1, 2], name


def test_the_same_evaluation_twice(trained: tuple[Path, Path, Path], tmp_path: Path) -> None:
    argv = ["evaluate", "tumor_type"]
    shutil.copytree(trained[2], tmp_path / "serial")
    finish(argv, tmp_path / "serial")
    rounds(tmp_path, trained[2], tmp_path / "serial", argv, argv)


def test_predictions_beside_an_ingest(trained: tuple[Path, Path, Path], tmp_path: Path) -> None:
    """Whichever of the samples it saw: predicting again afterwards scores the others."""
    more = matrix(tmp_path, "more", 200)
    shutil.copytree(trained[2], tmp_path / "serial")
    for argv in (more, ["predict", "tumor_type"]):
        finish(argv, tmp_path / "serial")
    for number in range(ROUNDS):
        lake = tmp_path / f"round {number}"
        shutil.copytree(trained[2], lake)
        both(lake, more, ["predict", "tumor_type"])
        finish(["predict", "tumor_type"], lake)
        assert_keys(lake)
        assert contents(lake) == contents(tmp_path / "serial")
