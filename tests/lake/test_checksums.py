"""Checksums of stored files: whatever byte changes, a reader says so or answers as before;
and what has none is read as it is."""

from __future__ import annotations

import json
import os
import random
import zlib
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from genodl_spark.core import errors
from genodl_spark.core.errors import Damaged, input_error_within
from genodl_spark.formats.vcf import reader as vcf
from genodl_spark.genetics import region
from genodl_spark.lake import checksums, parts
from genodl_spark.lake.checksums import Checked, Checksums, Summed
from genodl_spark.lake.files import StoredFile, opened, read_file
from genodl_spark.lake.tables.ingested import VARIANTS
from genodl_spark.learning import feed, shards
from tests.genetics.test_region import COHORT, SPAN, Made, made_text


@pytest.fixture
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
    """A small cohort in one file of several row groups, of many blocks."""
    monkeypatch.setattr(checksums, "BLOCK", 100)
    monkeypatch.setattr(parts, "_GROUP_ROWS", 20)
    reader = vcf.Reader
    monkeypatch.setattr(vcf, "Reader", lambda *arguments, bin_width: reader(*arguments))
    made = Made(tmp_path / "a lake, 100% odd")
    made.path.mkdir()
    made.add("one", made_text([f"s{i}" for i in range(40)], "7", 60, 1))
    return made


def files(made: Made) -> list[Path]:
    return sorted(path for path in (made.path / VARIANTS.name).rglob("*.parquet"))


def ask(made: Made, start: int = 0, end: int = SPAN) -> dict:
    region._lake.cache_clear()
    region._footer.cache_clear()
    return region.read(str(made.path), COHORT, "7", start, end).to_pydict()


def chunks(path: Path, column: str) -> list[range]:
    """Bytes of the column chunks of a file."""
    footer = pq.read_metadata(path)
    (place,) = [i for i in range(footer.num_columns) if footer.schema.column(i).path == column]
    found = [footer.row_group(group).column(place) for group in range(footer.num_row_groups)]
    return [range(c.data_page_offset, c.data_page_offset + c.total_compressed_size) for c in found]


def test_the_checksum_of_a_file_is_that_of_each_of_its_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checksums, "BLOCK", 8)
    for size in (0, 1, 8, 17, 24):
        data = random.Random(size).randbytes(size)
        sink = pa.BufferOutputStream()
        summed = Summed(sink)
        for start in range(0, size, 5):
            summed.write(data[start : start + 5])
        assert sink.getvalue().to_pybytes() == data
        assert summed.checksum() == "".join(f"{zlib.crc32(data[i : i + 8]):08x}" for i in range(0, size, 8))
        sums = Checksums.of_tag(summed.checksum())
        assert checksums.check(pa.BufferReader(data), "f", sums) == size
        for at in range(size):
            changed = bytearray(data)
            changed[at] ^= 4
            with pytest.raises(
                Damaged, match=f"between byte {at // 8 * 8} and {min(at // 8 * 8 + 8, size)}; genodl verify"
            ):
                checksums.check(pa.BufferReader(bytes(changed)), "f", sums)
            if not 8 <= at < 16:
                assert checksums.check(
                    pa.BufferReader(bytes(changed)), "f", sums, [(9, min(15, size))] if size > 9 else []
                ) == (8 if size > 9 else 0)
        with pytest.raises(Damaged):
            checksums.check(pa.BufferReader(data + bytes(8)), "f", sums)


def test_what_is_far_away_is_checked_as_it_is_fetched_and_fetched_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checksums, "BLOCK", 8)
    monkeypatch.setattr(checksums, "_FETCH", 16)
    random_ = random.Random(5)
    for size in (1, 8, 61, 64):
        data = random_.randbytes(size)
        sums = Checksums.of_tag("".join(f"{zlib.crc32(data[i : i + 8]):08x}" for i in range(0, size, 8)))
        fetched: list[int] = []

        class Far:
            def __init__(self, content: bytes) -> None:
                self.content = content

            def size(self) -> int:
                return len(self.content)

            def read_at(self, count: int, at: int, fetched: list[int] = fetched) -> bytes:
                fetched.extend(range(at // 8, -(-(at + count) // 8)))
                return self.content[at : at + count]

        at = random_.randrange(size)
        changed = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        whole, other = Checked(Far(data), "f", sums), Checked(Far(changed), "f", sums)
        for _ in range(50):
            start, count = random_.randrange(size + 3), random_.choice([-1, *range(size)])
            end = size if count < 0 else min(start + count, size)
            assert whole.seek(start) == start and bytes(whole.read(count)) == data[start:end]
            assert whole.tell() == max(start, end)
            other.seek(start - size, os.SEEK_END)
            if start < end and start // 8 <= at // 8 <= (end - 1) // 8:
                with pytest.raises(Damaged, match=f"between byte {at // 8 * 8} "):
                    other.read(count)
            else:
                assert bytes(other.read(count)) == data[start:end]
        in_turn = Checked(Far(data), "f", sums)
        fetched.clear()
        assert b"".join(iter(lambda one=in_turn: bytes(one.read(5)), b"")) == data
        assert fetched == list(range(-(-size // 8)))
        with pytest.raises(Damaged, match="expected the length"):
            Checked(Far(data + bytes(8)), "f", sums)


def test_flips_in_a_file_far_away(lake: Made) -> None:
    (path,) = files(lake)
    (added,) = (
        entry["add"]
        for log in (lake.path / VARIANTS.name / "_delta_log").glob("*.json")
        for entry in map(json.loads, log.read_text().splitlines())
        if "add" in entry
    )
    good, uri, tag = path.read_bytes(), "memory://far/part.parquet", added["tags"][checksums.TAG]
    expected = pq.read_table(path)

    def read(content: bytes) -> pa.Table:
        fsspec.filesystem("memory").pipe("/far/part.parquet", content)
        with opened(uri, tag) as file:
            return file.read()

    assert read(good) == expected
    footer, random_ = pq.read_metadata(path).serialized_size, random.Random(8)
    for at in [*random_.choices(range(4, len(good) - footer - 8), k=40), *range(len(good) - footer - 8, len(good), 97)]:
        changed = bytearray(good)
        changed[at] ^= random_.randrange(1, 256)
        with pytest.raises(Damaged) as raised:
            read(bytes(changed))
        assert raised.value.file == uri


def test_200_flips_in_the_genotypes_and_every_byte_of_the_footer(lake: Made) -> None:
    (path,) = files(lake)
    good, expected = path.read_bytes(), ask(lake)
    random_, footer = random.Random(7), pq.read_metadata(path).serialized_size
    genotypes = [at for chunk in chunks(path, "gt") for at in chunk]
    for at in [*random_.choices(genotypes, k=200), *range(len(good) - footer - 8, len(good), 7)]:
        changed = bytearray(good)
        changed[at] ^= random_.randrange(1, 256)
        path.write_bytes(changed)
        with pytest.raises(Damaged) as raised:
            ask(lake)
        assert raised.value.file is not None and raised.value.file.endswith(path.name), raised.value
    path.write_bytes(good)
    assert ask(lake) == expected


def test_a_region_is_held_against_the_blocks_that_it_reads(lake: Made) -> None:
    (path,) = files(lake)
    good, first = path.read_bytes(), sorted(row["pos"] for row in lake.rows)[2]
    expected = ask(lake, 0, first)
    changed, far = bytearray(good), chunks(path, "gt")[-1]
    changed[far[5]] ^= 1
    path.write_bytes(changed)
    assert ask(lake, 0, first) == expected
    with pytest.raises(Damaged):
        ask(lake)


def test_files_without_checksums_are_read(lake: Made) -> None:
    expected = ask(lake)
    for log in (lake.path / VARIANTS.name / "_delta_log").glob("*.json"):
        entries = [json.loads(line) for line in log.read_text().splitlines()]
        for entry in entries:
            entry.get("add", {}).pop("tags", None)
        log.write_text("\n".join(map(json.dumps, entries)))
    assert ask(lake) == expected
    (path,) = files(lake)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(Damaged, match=r"found what is no whole Parquet file .*genodl verify") as raised:
        ask(lake)
    assert raised.value.file is not None and raised.value.file.endswith(path.name)


def test_checksums_come_from_the_list_beside_a_version_from_commits_and_from_a_checkpoint(lake: Made) -> None:
    log = lake.path / VARIANTS.name / "_delta_log"
    (path,) = files(lake)
    name, version = str(path.relative_to(lake.path / VARIANTS.name)), len(list(log.glob("*.json"))) - 1
    tag = checksums.logged(str(log), version, [name])[name]
    assert checksums.logged(str(log), version, [name, "other"]) == {name: tag, "other": None}
    add = next(
        json.loads(line)["add"] for line in (log / f"{version:020}.json").read_text().splitlines() if "add" in line
    )
    (log / f"{version:020}.json").unlink()
    schema = pa.schema([("add", pa.struct([("path", pa.string()), ("tags", pa.map_(pa.string(), pa.string()))]))])
    entries = [{"add": {"path": add["path"], "tags": list(add["tags"].items())}}, {"add": None}]
    pq.write_table(pa.Table.from_pylist(entries, schema), log / f"{version:020}.checkpoint.parquet")
    assert checksums.logged(str(log), version, [name]) == {name: tag}
    (log / f"{version:020}.crc").write_text(json.dumps({"allFiles": [{**add, "tags": {checksums.TAG: "00"}}]}))
    assert checksums.logged(str(log), version, [name]) == {name: "00"}
    assert (
        read_file(
            VARIANTS, StoredFile(str(path), name, {"cohort": COHORT, "contig": "7", "bin": "0"}, 0, {}, tag)
        ).num_rows
        == 60
    )
    for wrong, found in (("00" * 4, "found .* bytes; expected the length"), ("xyz", "a checksum that is none")):
        with pytest.raises(Damaged, match=found):
            read_file(VARIANTS, StoredFile(str(path), name, {}, 0, {}, wrong))


def sidecar(path: Path, block: int = 512) -> None:
    data = path.read_bytes()
    sums = np.array([zlib.crc32(data[i : i + block]) for i in range(0, len(data), block)], ">u4")
    (path.parent / f".{path.name}.crc").write_bytes(b"crc\0" + block.to_bytes(4, "big") + sums.tobytes())


@pytest.mark.parametrize("backend", ["pyarrow", "petastorm"])
def test_training_files_that_spark_wrote_are_held_against_what_stands_beside_them(tmp_path: Path, backend: str) -> None:
    rows, path = 30, tmp_path / "part.parquet"
    x = np.arange(rows * 4, dtype=np.float32).reshape(rows, 4)
    columns = {
        "row_id": np.arange(rows),
        "x": [row.tobytes() for row in x],
        "target": np.zeros(rows),
        "folds": [b"\0"] * rows,
    }
    pq.write_table(pa.table(columns), path, compression="none")
    sidecar(path)
    layout = feed.Layout(rows, 4, "float32", 1)
    np.testing.assert_array_equal(feed.read([f"file://{path}"], layout, backend).x, x)
    changed = bytearray(path.read_bytes())
    changed[changed.index(x[9].tobytes())] ^= 1
    path.write_bytes(changed)
    with pytest.raises(Damaged, match="found other bytes than were written") as raised:
        feed.read([f"file://{path}"], layout, backend)
    assert raised.value.file == str(path)
    with pytest.raises(Damaged), opened(f"file://{path}", None):
        pass
    (tmp_path / ".part.parquet.crc").write_bytes(b"crc\0")
    with pytest.raises(Damaged, match="a checksum that is none"):
        feed.read([f"file://{path}"], layout, backend)


def test_labels_of_rows_in_shards_are_held_against_it_too_and_rows_once_they_are_decoded(tmp_path: Path) -> None:
    """Each with its own bytes: a rank reads labels of all files, and rows of its own."""
    rows, path = 1000, tmp_path / "part.parquet"
    x = np.arange(rows * 4, dtype=np.float32).reshape(rows, 4)
    target = np.arange(rows) + 0.125
    columns = {"row_id": np.arange(rows), "x": [row.tobytes() for row in x], "target": target, "folds": [b"\0"] * rows}
    pq.write_table(pa.table(columns), path, compression="none", use_dictionary=False)
    sidecar(path)
    content, layout = path.read_bytes(), feed.Layout(rows, 4, "float32", 1)

    def changed(value: bytes) -> feed.Examples:
        found = bytearray(content)
        found[found.index(value)] ^= 1
        path.write_bytes(found)
        return shards.read([f"file://{path}"], layout, 1, "pyarrow")

    data = changed(x[500].tobytes())
    np.testing.assert_array_equal(data.target[:, 0], target)
    with pytest.raises(Damaged, match="found other bytes than were written"):
        data.x.turn(0, 0, 1)
    with pytest.raises(Damaged, match="found other bytes than were written"):
        changed(target[500].tobytes())


def test_what_spark_says_of_a_file_that_it_cannot_read() -> None:
    said = """An error occurred while calling o1.collectToPython.
: org.apache.spark.SparkException: Job aborted: Task 0 failed:
org.apache.spark.SparkException: [FAILED_READ_FILE.NO_HINT] Encountered error while reading file \
file:/a%20lake/part-1.zstd.parquet. SQLSTATE: KD001
Caused by: org.apache.parquet.io.ParquetDecodingException: could not verify page integrity, \
CRC checksum verification failed
\tat org.apache.parquet
"""
    found = input_error_within(RuntimeError(said))
    assert isinstance(found, Damaged)
    assert str(found) == (
        "file:///a lake/part-1.zstd.parquet: found a file that Spark cannot read (could not verify page integrity, "
        f"CRC checksum verification failed); expected whole Parquet, {errors.MEND}"
    )
    raised = input_error_within(RuntimeError("Traceback\ngenodl_spark.core.errors.Damaged: f: found other bytes"))
    assert str(raised) == "f: found other bytes"
