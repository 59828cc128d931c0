"""Regions read from a lake's files against a plain scan of the records, in a lake of two files and many
small row groups, without Spark."""

from __future__ import annotations

import io
import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import deltalake
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genodl_spark.core.errors import InputError
from genodl_spark.formats.vcf import reader as vcf
from genodl_spark.genetics import genotypes, region
from genodl_spark.lake import live, parts
from genodl_spark.lake.schema import Table
from genodl_spark.lake.tables.ingested import SAMPLE_SETS, VARIANTS

HEAD = """##fileformat=VCFv4.2
##INFO=<ID=END,Number=1,Type=Integer,Description="End">
##FORMAT=<ID=GT,Number=1,Type=String,Description="Genotype">
##FORMAT=<ID=DP,Number=1,Type=Integer,Description="Depth">
#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\t"""
COHORT = "c 1%/x"
SPAN = 3000


@dataclass
class Made:
    """A lake under `path`, with what was put into `variants` as dictionaries and the sample sets' names."""

    path: Path
    rows: list[dict] = field(default_factory=list)
    sets: dict[str, list[str]] = field(default_factory=dict)

    def commit(self, table: Table, actions: list[dict]) -> None:
        log = self.path / table.name / "_delta_log"
        if not log.exists():
            deltalake.DeltaTable.create(str(log.parent), table.arrow_schema(), partition_by=list(table.partitioned_by))
        (log / f"{len(list(log.glob('*.json'))):020}.json").write_text("\n".join(map(json.dumps, actions)))

    def add(self, name: str, text: str, cohort: str = COHORT) -> list[dict]:
        """Ingests a VCF given as text; returns the actions that added its rows."""
        writer = parts.PartWriter(VARIANTS, str(self.path / VARIANTS.name), name)
        header = vcf.read_header(vcf.line_blocks(io.BytesIO(text.encode()), name), name)[0]
        reader = vcf.Reader(header, cohort, name, bin_width=1000)
        body = "".join(text.splitlines(keepends=True)[header.lines :]).encode()
        for rows, bad in reader.batches(header.lines + 1, body, 100):
            assert bad.num_rows == 0
            writer.write(rows)
            self.rows += rows.to_pylist()
        added = [part.add() for part in writer.close()]
        self.commit(VARIANTS, added)
        if header.sample_set not in self.sets:
            self.sets[header.sample_set] = header.samples
            listed = [
                {"sample_set": header.sample_set, "position": i, "sample_id": s} for i, s in enumerate(header.samples)
            ]
            sets = parts.PartWriter(SAMPLE_SETS, str(self.path / SAMPLE_SETS.name), name)
            sets.write(pa.RecordBatch.from_pylist(listed, SAMPLE_SETS.arrow_schema()))
            self.commit(SAMPLE_SETS, [part.add() for part in sets.close()])
        return added


def made_text(samples: list[str], contig: str, records: int, seed: int) -> str:
    """Records at random places: SNVs, long deletions, reference blocks, haploid and missing calls, some without GT."""
    rng = np.random.default_rng(seed)
    lines = []
    for pos in np.sort(rng.integers(0, SPAN, records)).tolist():
        kind = rng.integers(0, 10)
        ref = "A" * (int(rng.integers(20, 900)) if kind == 0 else 1)
        info = f"END={pos + int(rng.integers(0, 1500))}" if kind == 1 else "X=é"
        alt = "G,T" if kind in (2, 3) else "G"
        calls = [
            ["0|0", "0|1", "1|1", "./.", ".|1", "1", "1/0"][i]
            for i in rng.choice(7, len(samples), p=[0.6, 0.1, 0.1, 0.05, 0.05, 0.05, 0.05])
        ]
        form, calls = ("DP", [str(i) for i in range(len(samples))]) if kind == 4 else ("GT", calls)
        lines.append(
            "\t".join(
                [
                    contig,
                    str(pos),
                    f"v{pos}",
                    ref,
                    alt,
                    "9.5" if kind else ".",
                    "PASS" if kind else ".",
                    info,
                    form,
                    *calls,
                ]
            )
        )
    return HEAD + "\t".join(samples) + "\n" + "\n".join(lines) + "\n"


FIRST, SECOND = [f"s{i}" for i in range(30)], ["t1", "s3", "s0", "t2"]


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Made:
    made = Made(tmp_path_factory.mktemp("lake") / "a lake, 100% odd")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "_GROUP_ROWS", 7)
        made.add("one", made_text(FIRST, "chr7", 300, 1))
        made.add("two", made_text(SECOND, "7", 80, 2))
        made.add("far", made_text(FIRST, "8", 20, 3))
        made.add("other", made_text(FIRST, "7", 20, 4), cohort="other")
    return made


def calls_of(row: dict, samples: list[str], names: list[str]) -> list[str | None]:
    if row["gt"] is None:
        return [None] * len(names)
    text = genotypes.sample_text(row["gt"], None, len(samples), False).decode().split("\t")
    return [text[samples.index(name)] if name in samples else None for name in names]


def dosage_of(call: str | None) -> int:
    return -2 if call is None else -1 if "." in call else call.count("1")


def scanned(lake: Made, contig: str, start: int, end: int) -> list[dict]:
    found = [
        r for r in lake.rows if (r["cohort"], r["contig"]) == (COHORT, contig) and r["pos"] <= end and r["end"] >= start
    ]
    return sorted(found, key=lambda r: (r["pos"], r["file"], r["line"]))


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, SPAN + 200),
    st.integers(0, 1500),
    st.none() | st.lists(st.sampled_from([*FIRST, *SECOND]), max_size=6),
    st.booleans(),
)
def test_a_region_is_what_a_plain_scan_finds(
    lake: Made, start: int, length: int, samples: list[str] | None, alleles: bool
) -> None:
    rows = region.read(
        str(lake.path), COHORT, "chr7", start, start + length, samples, "alleles" if alleles else "dosage"
    )
    expected = scanned(lake, "7", start, start + length)
    shown = rows.column_names[:9]
    assert shown == ["chrom", "pos", "end", "id", "ref", "alts", "qual", "filters", "info"]
    assert rows.select(shown).to_pylist() == [{name: row[name] for name in shown} for row in expected]
    assert all(rows.field(name).type == VARIANTS.arrow_schema().field(name).type for name in shown)
    names = json.loads(rows.schema.metadata[b"samples"])
    if samples is not None:
        assert names == samples
    else:
        assert names == list(dict.fromkeys(s for row in expected for s in lake.sets[row["sample_set"]]))
    texts = [calls_of(row, lake.sets[row["sample_set"]], names) for row in expected]
    column = rows.column("alleles" if alleles else "dosage")
    assert column.is_valid().to_pylist() == [row["gt"] is not None for row in expected]
    if not alleles:
        wanted = [
            None if row["gt"] is None else [dosage_of(call) for call in text]
            for row, text in zip(expected, texts, strict=True)
        ]
        assert column.to_pylist() == wanted
        assert region.matrix(rows).tolist() == [[-1] * len(names) if row is None else row for row in wanted]
        return
    values, phased = region.matrix(rows, "alleles"), region.matrix(rows, "phased")
    assert values.shape == phased.shape and values.shape[:2] == (len(rows), len(names))
    for row, text, value, phase in zip(expected, texts, values.tolist(), phased.tolist(), strict=True):
        for call, numbers, marks in zip(text, value, phase, strict=True):
            present = [n for n in numbers if n != -2]
            if row["gt"] is None:
                assert set(numbers) == {-1}
            elif call is None:
                assert not present and not any(marks)
            else:
                separator = "|" if marks[1:2] == [True] else "/"
                assert separator.join("." if n == -1 else str(n) for n in present) == call


def test_what_starts_before_the_region_and_reaches_into_it(lake: Made) -> None:
    longest = max(
        (r for r in lake.rows if r["contig"] == "7" and r["cohort"] == COHORT), key=lambda r: r["end"] - r["pos"]
    )
    assert longest["end"] // 1000 > longest["pos"] // 1000  # its partition is not that of the region
    rows = region.read(str(lake.path), COHORT, "7", longest["end"], longest["end"])
    assert longest["pos"] in rows.column("pos").to_pylist()


def test_only_files_and_row_groups_that_overlap_are_read(lake: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[tuple[str, int]] = []
    taken = region._table

    def table(file: live.LiveFile, groups: list[int] | None, names: list[str]) -> pa.Table:
        read.extend((file.uri, group) for group in groups or [])
        return taken(file, groups, names)

    region.read(str(lake.path), COHORT, "8", 5, 5, ["s1"])
    monkeypatch.setattr(region, "_table", table)
    region.read(str(lake.path), COHORT, "8", SPAN - 100, SPAN, ["s1"])
    assert read and all("contig=8" in uri and "c%201%25%2Fx" in uri for uri, _ in read)
    read.clear()
    first = min(r["pos"] for r in lake.rows if r["contig"] == "7" and r["cohort"] == COHORT)
    region.read(str(lake.path), COHORT, "7", 0, first, ["s1"])
    assert read and all("bin=0" in uri for uri, _ in read)
    for uri, group in read:
        statistics = pq.ParquetFile(uri.removeprefix("file://")).metadata.row_group(group).column(1).statistics
        assert statistics.min <= first
    assert region.read(str(lake.path), COHORT, "X", 0, 10**9).num_rows == 0


def test_newer_versions_and_tables_made_anew(tmp_path: Path) -> None:
    made = Made(tmp_path / "lake")
    first = made.add("one", made_text(["a", "b"], "1", 5, 1))
    assert len(region.read(str(made.path), COHORT, "1", 0, SPAN)) == 5
    made.add("two", made_text(["b", "c"], "1", 3, 2))
    rows = region.read(str(made.path), COHORT, "1", 0, SPAN, ["c", "a"])
    assert len(rows) == 8
    removed = [{"remove": {"path": a["add"]["path"], "deletionTimestamp": 1, "dataChange": True}} for a in first]
    made.commit(VARIANTS, removed)
    assert len(region.read(str(made.path), COHORT, "1", 0, SPAN)) == 3
    for added in first:  # vacuumed: the log says so already
        next((made.path / VARIANTS.name).rglob(Path(added["add"]["path"]).name)).unlink()
    assert len(region.read(str(made.path), COHORT, "1", 0, SPAN)) == 3
    shutil.rmtree(made.path)
    again = Made(made.path)
    again.add("one", made_text(["d"], "1", 4, 3))
    again.add("two", made_text(["d"], "2", 4, 3))
    again.commit(VARIANTS, [])
    rows = region.read(str(made.path), COHORT, "1", 0, SPAN)
    assert (len(rows), json.loads(rows.schema.metadata[b"samples"])) == (4, ["d"])


@pytest.mark.parametrize("drop", ["stats", "part of them"])
def test_files_without_statistics_are_read(tmp_path: Path, drop: str) -> None:
    made = Made(tmp_path / "lake")
    added = made.add("one", made_text(["a", "b"], "1", 50, 1))
    again = []
    for action in added:
        stats = json.loads(action["add"]["stats"])
        kept = {"numRecords": stats["numRecords"], "minValues": {"pos": stats["minValues"]["pos"]}, "maxValues": {}}
        other = {name: value for name, value in action["add"].items() if name != "stats"}
        again.append({"add": other if drop == "stats" else {**other, "stats": json.dumps(kept)}})
    made.commit(VARIANTS, again)
    assert region.read(str(made.path), COHORT, "1", 700, 900, ["b"]).column("pos").to_pylist() == [
        r["pos"] for r in scanned(made, "1", 700, 900)
    ]


def test_refusals(lake: Made, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such table"):
        region.read(str(tmp_path / "nowhere"), COHORT, "7", 1, 2)
    with pytest.raises(InputError, match="cohort nobody has no variants; expected one of c 1%/x, other"):
        region.read(str(lake.path), "nobody", "7", 1, 2)
    with pytest.raises(InputError, match="no sample s99"):
        region.read(str(lake.path), COHORT, "7", 1, 2, ["s1", "s99"])
    with pytest.raises(InputError, match="7:3-2"):
        region.read(str(lake.path), COHORT, "7", 3, 2)
    # known to the lake, not in these records
    assert region.read(str(lake.path), COHORT, "8", 0, SPAN, ["t1"]).num_rows == 20
