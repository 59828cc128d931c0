"""Files of a few nights, chains of verbs over them, and what a lake holds afterwards."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from deltalake import DeltaTable, QueryBuilder

from genodl_spark.lake.tables import TABLES
from tests.cluster.harness import ROOT
from tests.conftest import FOR_FEW_ROWS

GENODL = str(ROOT / ".venv" / "bin" / "genodl")
EXAMPLE = ROOT / "conf" / "airflow" / "nightly.toml"
_NUMBER = re.compile(r"-?\b\d+(?:\.\d+(?:e[+-]?\d+)?|e[+-]?\d+)\b")
DAYS = ["2026-10-05", "2026-10-06", "2026-10-07"]
NEW = 6  # people of a night
_FIRST = 40  # people whose population is known
# Settings of all verbs here: what is computed is small, and ranks and a store of MLflow take longer to start.
_SMALL = {
    "spark": {key.removeprefix("spark."): value for key, value in FOR_FEW_ROWS.items()},
    "tracking": {"uri": "off"},
    "train": {"epochs": 2, "min_steps": 20, "ensemble": 1, "launcher": "process"},
    "model": {"hidden": [4]},
}
_AIRFLOW = """
[airflow]
command = {command}
schedule = "0 2 * * *"
start_date = {start_date}
catchup = {catchup}
retries = {retries}
retry_seconds = 2
ask_seconds = 10  # a scheduler that is behind takes a task that runs again so soon for one that it has lost
wait_hours = 1
triggered_by = {triggered_by}
"""


def chain(path: Path, lake: Path, steps: list[list[str]], command: list[str] | None = None, **options: Any) -> Path:
    """Writes a chain. Without a command for Airflow it is cron's alone; by itself Airflow runs none."""
    lines = [f"lake = {json.dumps(str(lake))}"]
    for verb, *arguments in steps:
        lines += ["[[steps]]", f'verb = "{verb}"', f"arguments = {json.dumps(arguments)}"]
    options = {"retries": 3, "triggered_by": [], "start_date": "2100-01-01", "catchup": "false", **options}
    tail = "" if command is None else _AIRFLOW.format(command=json.dumps(command), **options)
    path.write_text("\n".join(lines) + tail)
    return path


def small(folder: Path) -> list[str]:
    """Options that every verb takes, with a file in the folder."""
    lines = [
        f"[{name}]\n" + "".join(f'"{k}" = {json.dumps(v)}\n' for k, v in of.items()) for name, of in _SMALL.items()
    ]
    (folder / "small.toml").write_text("\n".join(lines))
    return ["--config", str(folder / "small.toml")]


def example(folder: Path, report: str) -> list[list[str]]:
    """The steps of conf/airflow/nightly.toml, with the files of a folder, which a report of this name comes into."""
    steps = tomllib.loads(EXAMPLE.read_text())["steps"]
    moved = [
        [
            word.replace("/srv/genomes/report", f"{folder}/{report}").replace("/srv/genomes", str(folder))
            for word in words
        ]
        for words in (step.get("arguments", []) for step in steps)
    ]
    return [[step["verb"], *words, *small(folder)] for step, words in zip(steps, moved, strict=True)]


def files_of(folder: Path, day: str, number: int) -> None:
    """Genotypes of people who are new on a day."""
    (folder / "incoming" / day).mkdir(parents=True)
    genotypes(folder / "incoming" / day / f"{day}.vcf", [f"n{number}_{i}" for i in range(NEW)], 10 + number)


def first_files(folder: Path) -> list[str]:
    """Genotypes of those whose population is known; arguments of `ingest`."""
    people = [f"p{i:02}" for i in range(_FIRST)]
    genotypes(folder / "first.vcf", people, 1)
    labels = "".join(f"{name}\t{'AB'[i % 2]}\n" for i, name in enumerate(people))
    (folder / "first.tsv").write_text("sample_id\tsuper_population\n" + labels)
    return ["vcf", str(folder / "first.vcf"), "--samples", str(folder / "first.tsv"), "--cohort", "mine"]


def genotypes(path: Path, people: list[str], seed: int) -> None:
    """60 records of people, every second of whom is of the other of two populations."""
    frequencies = np.random.default_rng(0).uniform(0.1, 0.9, (60, 2))
    generator = np.random.default_rng(seed)
    meta = '##fileformat=VCFv4.2\n##contig=<ID=1>\n##FORMAT=<ID=GT,Number=1,Type=String,Description="Genotype">\n'
    lines = ["\t".join(["#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT", *people])]
    for i, of_site in enumerate(frequencies):
        carried = generator.random((len(people), 2)) < of_site[np.arange(len(people)) % 2, None]
        calls = "\t".join(f"{a}/{b}" for a, b in carried.astype(int).tolist())
        lines.append(f"1\t{1000 * i + 1}\t.\tA\tC\t.\tPASS\t.\tGT\t{calls}")
    path.write_text(meta + "\n".join(lines) + "\n")


def rows_of(table: Path) -> list[dict[str, Any]]:
    rows = QueryBuilder().register("t", DeltaTable(str(table))).execute("SELECT * FROM t").read_all()
    names = rows.column_names
    values = zip(*([value.as_py() for value in rows.column(name)] for name in names), strict=True)
    return [dict(zip(names, row, strict=True)) for row in values]


def contents(lake: Path) -> dict[str, list[str]]:
    """Rows of the tables of data, without times and versions."""
    found = {}
    for name in sorted(TABLES):
        if name not in ("runs", "findings") and (lake / name / "_delta_log").is_dir():
            found[name] = sorted(
                str({key: row[key] for key in sorted(row) if key != "source_versions" and not key.endswith("_at")})
                for row in rows_of(lake / name)
            )
    return found


def assert_same(found: dict[str, list[str]], expected: dict[str, list[str]]) -> None:
    """`contents` of two lakes. Components and their eigenvalues are sums of float32 products in the order in which a
    shuffle brings variants, which is another one each time: they are the same to within 1e-6."""
    assert found.keys() == expected.keys()
    for name, rows in found.items():
        if name not in ("principal_components", "qc_steps"):
            assert rows == expected[name]
            continue
        sides = [
            sorted((_NUMBER.sub("0", row), _NUMBER.findall(row)) for row in side) for side in (rows, expected[name])
        ]
        assert [text for text, _ in sides[0]] == [text for text, _ in sides[1]]
        mine, other = ([float(number) for _, numbers in side for number in numbers] for side in sides)
        assert mine == pytest.approx(other, rel=1e-6, abs=1e-6)


def files(lake: Path) -> dict[str, tuple[int, int]]:
    """Size and time of change of all files of a lake but those of what its runs leave about themselves."""
    return {
        str(path.relative_to(lake)): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in lake.rglob("*")
        if path.is_file() and path.relative_to(lake).parts[0] not in ("runs", "findings", "_locks")
    }
