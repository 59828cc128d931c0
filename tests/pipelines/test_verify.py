"""What verify finds wrong with one file, and what it names to bring its rows back."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from genodl_spark.lake import parts
from genodl_spark.lake.files import StoredFile
from genodl_spark.lake.tables import TABLES
from genodl_spark.lake.tables.genetics import QC_STEPS
from genodl_spark.lake.tables.ingested import VARIANTS
from genodl_spark.lake.tables.learning import MODELS
from genodl_spark.pipelines import verify
from tests.genetics.test_region import COHORT, Made, made_text


@pytest.fixture
def stored(tmp_path: Path) -> StoredFile:
    """A file of `variants` as its log has it."""
    made = Made(tmp_path / "lake")
    made.path.mkdir()
    made.add("one", made_text(["a", "b", "c"], "7", 5, 1))
    path = next((made.path / VARIANTS.name).rglob("*.parquet"))
    rows = pq.read_metadata(path).num_rows
    part = parts.Part(str(path), {"cohort": COHORT, "contig": "7", "bin": "0"}, path.stat().st_size, rows, "{}", 0)
    summed = parts.Summed(pa.BufferOutputStream())
    summed.write(path.read_bytes())
    return StoredFile(str(path), path.name, part.partition, part.size, {"numRecords": rows}, summed.checksum())


def check(stored: StoredFile, **changed: object) -> tuple[int, str, str | None]:
    return verify.check(verify._Item(VARIANTS, stored.uri, dataclasses.replace(stored, **changed)))


def test_what_may_be_wrong_with_a_file_of_a_table(stored: StoredFile) -> None:
    path, good = Path(stored.uri), Path(stored.uri).read_bytes()
    assert check(stored) == (stored.size, "checksum", None)
    assert check(stored, checksum=None) == (stored.size, "none", None)
    rows = stored.statistics["numRecords"]
    assert check(stored, statistics={"numRecords": rows + 1}) == (
        stored.size,
        "checksum",
        f"found {rows} rows; expected {rows + 1}",
    )
    assert check(stored, size=stored.size + 1)[2] == f"found {stored.size} bytes; expected {stored.size + 1}"
    path.write_bytes(good[:100] + bytes([good[100] ^ 1]) + good[101:])
    assert str(check(stored)[2]).startswith(f"found other bytes than were written, between byte 0 and {stored.size}")
    path.unlink()
    assert check(stored)[2] == "found no such file; expected the one that the table's log names"


def test_genotypes_that_nobody_can_take_apart_are_found_without_a_checksum(stored: StoredFile) -> None:
    path = Path(stored.uri)
    rows = pq.ParquetFile(path).read()
    broken = pa.array(
        [None if value is None else b"\xff" + value[1:] for value in rows.column("gt").to_pylist()], pa.binary()
    )
    pq.write_table(rows.set_column(rows.column_names.index("gt"), "gt", broken), path)
    wrong = check(stored, checksum=None, size=path.stat().st_size)[2]
    assert str(wrong).startswith(
        "found a first byte or palette that is none in record 0 of the batch; expected packed genotypes of 3 samples"
    )


def test_files_of_a_model(tmp_path: Path) -> None:
    path = tmp_path / "model.json"
    path.write_bytes(b"{}")
    digest = hashlib.sha256(b"{}").hexdigest()
    assert verify.check(verify._Item(MODELS, str(path), sha256=digest)) == (2, "checksum", None)
    assert verify.check(verify._Item(MODELS, str(path))) == (2, "none", None)
    assert (
        verify.check(verify._Item(MODELS, str(path), sha256="0" * 64))[2]
        == f"found the SHA-256 {digest}; expected {'0' * 64}"
    )
    assert str(verify.check(verify._Item(MODELS, str(tmp_path / "gone")))[2]).startswith("no such file")


def source(cohort: str, kind: str, name: str) -> dict[str, str]:
    return {"cohort": cohort, "source": kind, "file": name, "uri": f"file:///in/{name}"}


def test_what_brings_a_file_back(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = [source("c", "vcf", f"{name}.vcf") for name in "abcdefgh"] + [
        source("c", "expression", "m.tsv"),
        source("d", "vcf", "b.vcf"),
    ]
    monkeypatch.setattr(verify, "_rows", lambda *_: listed)

    def mend(table: str, low: str | None, high: str | None, cohort: str = "c") -> str:
        ends = {} if low is None else {"minValues": {"file": low}, "maxValues": {"file": high}}
        return verify._mend(None, verify._Item(TABLES[table], "f", StoredFile("f", "f", {"cohort": cohort}, 1, ends)))  # type: ignore[arg-type]

    assert mend("variants", "b.vcf", "b.vcf") == "run genodl ingest vcf file:///in/b.vcf --cohort c"
    assert mend("variants", "b.vcf", "c.vcf") == "run genodl ingest vcf file:///in/b.vcf file:///in/c.vcf --cohort c"
    five = " ".join(f"file:///in/{name}.vcf" for name in "abcde")
    assert mend("variants", None, None) == f"run genodl ingest vcf {five} and 3 more --cohort c"
    assert mend("sample_sets", None, None, "d") == "run genodl ingest vcf file:///in/b.vcf --cohort d"
    assert mend("expression", None, None) == "run genodl ingest expression file:///in/m.tsv --cohort c"
    assert mend("variants", None, None, "e") == "ingest the files of cohort e again"
    assert mend("predictions", None, None) == "run genodl predict TASK --force again"
    assert mend(QC_STEPS.name, None, None) == "run genodl qc again"
    assert mend("runs", None, None) == "no job brings it back: restore it from a copy"
