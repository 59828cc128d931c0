"""Many matrices of one cohort: one commit, the values of one file after another,
and what a file sent again takes back."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from genodl_spark.core import storage
from genodl_spark.features import covariates, matrices
from genodl_spark.lake.delta import Lake
from genodl_spark.lake.files import read_file
from genodl_spark.lake.snapshot import Snapshot
from genodl_spark.lake.tables.ingested import EXPRESSION, FEATURES, SAMPLES, SOURCES
from genodl_spark.sources import manifest
from jobs import ingest

Values = dict[str, dict[str, float | None]]  # sample -> feature -> value


def write(path: Path, values: Values) -> str:
    names = list(next(iter(values.values())))
    lines = ["\t".join(["gene", *values])]
    lines += [
        "\t".join([name, *("NA" if row[name] is None else str(row[name]) for row in values.values())]) for name in names
    ]
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def stored(lake: Lake, cohort: str) -> Values:
    orders: dict[str, list[str]] = {}
    for row in lake.read(FEATURES).where(f"cohort = '{cohort}'").orderBy("feature_set", "position").collect():
        orders.setdefault(row.feature_set, []).append(row.feature_id)
    found: Values = {}
    for row in lake.read(EXPRESSION).where(f"cohort = '{cohort}'").collect():
        assert row.sample_id not in found
        values = np.frombuffer(row.x, np.float32).tolist()
        found[row.sample_id] = {f: None if v != v else v for f, v in zip(orders[row.feature_set], values, strict=True)}
    return found


def after_another(files: list[Values]) -> Values:
    found: Values = {}
    for file in files:
        for sample, values in file.items():
            row = found.setdefault(sample, {})
            row.update({f: v for f, v in values.items() if v is not None or row.get(f) is None})
    return found


def commits(lake: Lake) -> list[int]:
    logs = [
        storage.files_under(lake.path(table) + "/_delta_log", ".json")
        for table in (EXPRESSION, FEATURES, SAMPLES, SOURCES)
    ]
    return [len(log) for log in logs]


def test_many_files_are_one_commit_and_a_file_sent_again_takes_back_what_it_brought(
    genodl, lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = ("--lake", lake.uri)
    # 200 files of a sample each, and two samples that several of them have, with other features and missing values.
    many = [{f"s{i:03d}": {"A": i, "B": i / 4}} for i in range(200)]
    for i in (3, 70, 140):
        many[i]["shared"] = {"A": None, "B": 7.0} if i == 70 else {"A": float(i), "B": None}
    many[150] = {"s150": {"C": 1.5, "A": 2.0}, "shared": {"C": 2.5, "A": None}, "s003": {"C": 3.5, "A": None}}
    folder = tmp_path / "many"
    folder.mkdir()
    for i, values in enumerate(many):
        write(folder / f"f{i:03d}.tsv", values)
    few = manifest._FEW_BYTES
    monkeypatch.setattr(manifest, "_FEW_BYTES", 0)
    code, report, line = genodl(ingest, "expression", str(folder), "--cohort", "many", *at)
    assert code == 0, line
    assert report["rows"]["expression"] == {"written": sum(map(len, many)), "total": 201, "quarantined": 0}
    assert all(count <= 2 for count in commits(lake)), commits(lake)
    assert stored(lake, "many") == after_another(many)
    hashes = {row.file: row.sha256 for row in lake.read(SOURCES).collect()}
    assert hashes == {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    assert lake.read(EXPRESSION).where("sample_id = 'shared'").collect()[0].files == [
        "f070.tsv",
        "f140.tsv",
        "f150.tsv",
    ]
    assert not [uri for uri in storage.files_under(lake.uri) if "_staging" in uri]
    # one for each order: AB, CA, and the two together in one order
    assert len(storage.files_under(lake.path(FEATURES), ".parquet")) == 3
    assert genodl(ingest, "expression", str(folder), "--cohort", "many", *at)[1]["status"] == "unchanged"

    # One after another, then one of them again: without s2, without B, with another A.
    monkeypatch.setattr(manifest, "_FEW_BYTES", few)
    one = {"s1": {"A": 1.0, "B": 2.0}, "s2": {"A": 3.0, "B": 4.0}, "s4": {"A": 8.0, "B": 9.0}}
    two = {"s2": {"C": 5.0, "A": None}, "s3": {"C": 6.0, "A": 7.0}}
    paths = [write(tmp_path / "one.tsv", one), write(tmp_path / "two.tsv", two)]
    for path in paths:
        assert genodl(ingest, "expression", path, "--cohort", "few", *at)[0] == 0
    assert stored(lake, "few") == after_another([one, two])
    one = {"s1": {"A": 10.0}, "s3": {"A": 11.0}}
    write(tmp_path / "one.tsv", one)
    code, report, _ = genodl(ingest, "expression", *paths, "--cohort", "few", *at)
    assert (code, report["rows"]["expression"]["total"]) == (0, 204)
    assert stored(lake, "few") == {"s1": {"A": 10.0}, "s2": {"C": 5.0}, "s3": {"C": 6.0, "A": 11.0}}
    write(tmp_path / "two.tsv", {"s5": {"C": 1.0}})  # takes back what is left of s2, and the C of s3
    code, report, _ = genodl(
        ingest, "expression", paths[1], "--cohort", "few", "--set", "ingest.same_name=edition", *at
    )
    assert (code, report["warnings"]) == (
        0,
        ["two.tsv comes without 2 samples that it had, such as s2: their data from it is gone"],
    )
    assert stored(lake, "few") == {"s1": {"A": 10.0}, "s3": {"A": 11.0}, "s5": {"C": 1.0}}
    assert len(stored(lake, "many")) == 201
    # A stored file that has changed is brought again by all that may have been in it.
    version = lake.version(EXPRESSION)
    assert version is not None
    # Of s3 both files have values.
    held = [
        file
        for file in lake.files(EXPRESSION, version)
        if file.partition["cohort"] == "few" and file.may_hold("sample_id", ["s3"])
    ]
    damaged = Path(
        storage.local_path(
            next(file.uri for file in held if "s3" in read_file(EXPRESSION, file).column("sample_id").to_pylist())
        )
    )
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    code, _, line = genodl(ingest, "expression", paths[0], "--cohort", "few", *at)
    assert (code, "ingest all of 2 files in one run" in line) == (2, True), line
    assert genodl(ingest, "expression", *paths, "--cohort", "few", *at)[0] == 0
    lake = Lake(lake.spark, lake.uri)
    assert stored(lake, "few") == {"s1": {"A": 10.0}, "s3": {"A": 11.0}, "s5": {"C": 1.0}}

    write(tmp_path / "one.tsv", {"s1": {"A": 1.0}})
    (tmp_path / "two.tsv").write_text("gene\ts5\nA\tx\n")
    before = stored(lake, "few"), commits(lake), storage.files_under(lake.path(EXPRESSION), ".parquet")
    code, _, line = genodl(ingest, "expression", *paths, "--cohort", "few", *at)
    assert (code, "two.tsv:2: found 'x' for feature A, sample s5" in line) == (2, True)
    assert (stored(lake, "few"), commits(lake), storage.files_under(lake.path(EXPRESSION), ".parquet")) == before

    # A covariate that is a number where the features were chosen, and a text elsewhere.
    for number, text in enumerate(
        ("sample_id\tage\tsite\ns1\t41\tx\n", "sample_id\tage\tsite\ns3\t> 60\tx \ns5\tnull\ty\n")
    ):
        (tmp_path / f"p{number}.tsv").write_text(text)
    code, report, _ = genodl(
        ingest, "phenotypes", str(tmp_path / "p0.tsv"), str(tmp_path / "p1.tsv"), "--cohort", "few", *at
    )
    assert (code, report["warnings"]) == (
        0,
        [
            "p1.tsv: column site: 1 values without the blanks around them, of 'x' the first",
            "p1.tsv: column age: 1 cells 'null' are read as missing",
        ],
    )
    both = covariates.WithCovariates(matrices.MatrixFeatures(EXPRESSION), ["age", "site"])
    snapshot = Snapshot(lake)
    names = both.choose(snapshot, "few", ["s1"], np.ones((1, 1), bool)).names
    assert names == ["A", "C", "covariate:age", "covariate:site=x"]
    rows = {
        row.entity_id: np.frombuffer(row.x, np.float32)[2:].tolist()
        for row in both.rows(snapshot, "few", names).collect()
    }
    assert repr(rows["s1"] + rows["s3"] + rows["s5"]) == "[41.0, 1.0, nan, 1.0, nan, 0.0]"
    assert covariates.told(both, snapshot, "few", names) == [
        "covariate age is a number, and 1 samples of cohort few have a text there, as '> 60': they count as missing"
    ]
