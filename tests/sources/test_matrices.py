"""What tasks make of matrices, without a JVM: the rows of many files, read and put together,
are those of the files one after another."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from genodl_spark.core import storage
from genodl_spark.core.errors import InputError
from genodl_spark.features.matrices import MatrixFeatures
from genodl_spark.formats import matrix
from genodl_spark.lake.parts import Part
from genodl_spark.lake.tables.ingested import EXPRESSION, FEATURES
from genodl_spark.sources import matrices as pipeline
from genodl_spark.sources import matrix_rows

Values = dict[str, dict[str, float | None]]  # sample -> feature -> value
genes = st.lists(st.sampled_from("ABCDE"), min_size=1, max_size=4, unique=True)
file = st.builds(
    lambda samples, features, numbers: {
        s: {f: numbers[(i * 5 + j) % 6] for j, f in enumerate(features)} for i, s in enumerate(samples)
    },
    st.lists(st.sampled_from(["s1", "s2", "s3", "s4"]), min_size=1, max_size=3, unique=True),
    genes,
    st.lists(st.sampled_from([None, 0.0, 1.0, -2.5, 3.0]), min_size=6, max_size=6),
)


def written(path: Path, values: Values) -> tuple[str, matrix.Header]:
    names = list(next(iter(values.values())))
    cells = [
        ["gene", *values],
        *([name, *("NA" if row[name] is None else str(row[name]) for row in values.values())] for name in names),
    ]
    path.write_text("".join("\t".join(row) + "\n" for row in cells))
    uri = f"file://{path}"
    with storage.open_input(uri) as raw:
        return uri, matrix.read_header(raw, uri)


def indices(count: int) -> list[pa.RecordBatch]:
    return [pa.RecordBatch.from_arrays([pa.array(range(count))], ["id"])]


def reports(batches: Any) -> list[Any]:
    return [type("Report", (), row) for batch in batches for row in batch.to_pylist()]


def rows_of(folder: str, parts: list[Part]) -> list[dict[str, Any]]:
    return [
        row
        for part in parts
        for row in pq.read_table(storage.local_path(storage.join(folder, unquote(part.path)))).to_pylist()
    ]


def ingested(
    folder: Path, files: dict[str, Values], stored: list[dict[str, Any]], orders: dict[str, list[str]]
) -> list[dict[str, Any]]:
    """All that `_ingest` does between two commits: rows of the table after `files` have come to `stored`."""
    where = [f"file://{folder}/{name}" for name in ("table", "features", "staging")]
    target = matrix_rows.Target(EXPRESSION, "c", "", where[0], where[1], where[2], 2, "n")
    times = [sample for values in files.values() for sample in values]
    shared = {s for s in times if times.count(s) > 1}
    touched = [row for row in stored if row["sample_id"] in times or set(row["files"]) & set(files)]
    shared |= {row["sample_id"] for row in touched if set(row["files"]) - set(files)}
    matrices = [
        matrix_rows.Matrix(*((at := written(folder / name, values))[0], name, at[1], frozenset(shared & values.keys())))
        for name, values in files.items()
    ]
    groups = pipeline._dealt(matrices, [1] * len(matrices), 2)
    parts, new = pipeline._sorted(reports(matrix_rows.read(indices(len(groups)), groups, target, frozenset(orders))))
    orders |= {key: [row["feature_id"] for row in rows_of(where[1], [part])] for key, part in new.items()}
    joined = [{**row, "stored": False} for row in rows_of(where[2], parts[matrix_rows.STAGED])]
    joined += [{**row, "stored": True} for row in touched if row["sample_id"] in shared]
    joined.sort(key=lambda row: row["sample_id"])
    if joined:
        numbers = {name: i for i, name in enumerate(files)}
        batches = pa.Table.from_pylist(joined).to_batches(2)
        more, joint = pipeline._sorted(reports(matrix_rows.join(batches, target, dict(orders), numbers)))
        parts[EXPRESSION.name] += more[EXPRESSION.name]
        orders |= {key: [row["feature_id"] for row in rows_of(where[1], [part])] for key, part in joint.items()}
    assert all(matrix.feature_set(names) == key for key, names in orders.items())
    kept = [row for row in stored if row not in touched]
    return kept + rows_of(where[0], parts[EXPRESSION.name])


def said(rows: list[dict[str, Any]], orders: dict[str, list[str]]) -> Values:
    found: Values = {}
    for row in rows:
        assert row["sample_id"] not in found
        values = np.frombuffer(row["x"], np.float32).tolist()
        assert (
            row["n_features"] == len(values)
            and row["file"] == row["files"][-1]
            and (row["origin"] is None) == (len(row["files"]) == 1)
        )
        found[row["sample_id"]] = {
            f: None if v != v else v for f, v in zip(orders[row["feature_set"]], values, strict=True)
        }
    return found


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(file, min_size=1, max_size=4), file)
def test_files_at_once_are_files_one_after_another(
    tmp_path_factory: pytest.TempPathFactory, files: list[Values], again: Values
) -> None:
    named = {f"f{i}.tsv": values for i, values in enumerate(files)}
    at_once: dict[str, list[str]] = {}
    together = ingested(tmp_path_factory.mktemp("m"), named, [], at_once)
    one_by_one: dict[str, list[str]] = {}
    rows: list[dict[str, Any]] = []
    for name, values in named.items():
        rows = ingested(tmp_path_factory.mktemp("m"), {name: values}, rows, one_by_one)
    expected: dict[str, dict[str, tuple[float | None, str]]] = {}

    def come(name: str, values: Values) -> None:
        for sample, row in values.items():
            have = expected.setdefault(sample, {})
            have.update({f: (v, name) for f, v in row.items() if v is not None or have.get(f, (None,))[0] is None})

    for name, values in named.items():
        come(name, values)
    plain = {sample: {f: v for f, (v, _) in row.items()} for sample, row in expected.items()}
    assert said(together, at_once) == said(rows, one_by_one) == plain
    # The first file comes again with other content: what it brought goes first.
    for sample in list(expected):
        expected[sample] = {f: of for f, of in expected[sample].items() if of[1] != "f0.tsv"}
        if not expected[sample]:
            del expected[sample]
    come("f0.tsv", again)
    rows = ingested(tmp_path_factory.mktemp("m"), {"f0.tsv": again}, together, at_once)
    assert said(rows, at_once) == {sample: {f: v for f, (v, _) in row.items()} for sample, row in expected.items()}


def test_stored_values_that_their_features_do_not_fit_are_refused() -> None:
    row = {"files": ["a.tsv"], "feature_set": "x", "file": "a.tsv", "origin": None}
    with pytest.raises(InputError, match="found 2 stored values of sample s for 3 features of set x"):
        matrix_rows._stored_row(row, np.zeros(2, np.float32), ["a", "b", "c"], "s", {"b.tsv": 0})
    assert matrix_rows._stored_row(row, np.zeros(2, np.float32), ["a", "b", "c"], "s", {"a.tsv": 0}) is None


def test_features_are_written_once_for_each_order(tmp_path: Path) -> None:
    target = matrix_rows.Target(EXPRESSION, "c", "b", "", f"file://{tmp_path}", "", 2, "n")
    (part,) = target.order("f00", ["B", "A"], "00000")
    assert [list(row.values()) for row in rows_of(f"file://{tmp_path}", [part])] == [
        ["c", "expression", "b", "f00", 0, "B"],
        ["c", "expression", "b", "f00", 1, "A"],
    ]
    report = type("Report", (), {"table": FEATURES.name, "feature_set": "f00", "part": part.as_json()})
    parts, orders = pipeline._sorted([report, report])
    assert (parts[pipeline._UNUSED], orders) == ([part], {"f00": part})


def test_rows_that_their_features_do_not_fit_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    found = MatrixFeatures(EXPRESSION)
    lake: Any = type("Lake", (), {"cohort_files": lambda *_: []})()
    monkeypatch.setattr(MatrixFeatures, "_orders", lambda *_: {("", "x"): ["a", "b"]})
    stored = found.stored(lake, "c", ["b", "a"])
    assert stored is not None

    def rows(values: list[bytes]) -> list[pa.RecordBatch]:
        n = len(values)
        return [
            pa.RecordBatch.from_arrays(
                [pa.array(["s"] * n), pa.array([""] * n), pa.array(["x"] * n), pa.array(values)], stored.columns
            )
        ]

    (batch,) = stored.pack(rows([np.array([1, 2], np.float32).tobytes()]))
    assert np.frombuffer(batch.column("x")[0].as_py(), np.float32).tolist() == [2, 1]
    with pytest.raises(InputError, match="rows of 4 values for the 2 features of set x"):
        list(stored.pack(rows([np.zeros(4, np.float32).tobytes()])))
