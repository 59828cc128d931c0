"""Windows of variants from files of the lake, without a JVM: pieces, order and spans change nothing."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from genodl_spark.core import packing
from genodl_spark.features import variant_windows
from genodl_spark.features.variant_windows import Share, in_order
from genodl_spark.genetics.stored_reference import StoredReference
from genodl_spark.genome.bases import NO_BASE, base_codes, spelled
from genodl_spark.lake.files import StoredFile

LENGTH = 10
GENOME = {"2": "".join(np.random.default_rng(1).choice(list("ACGTacgtN"), 700)), "X": "ACGT" * 60}


def stored(path: Path, rows: pa.Table, **partition: str) -> StoredFile:
    pq.write_table(rows, path, row_group_size=7)
    return StoredFile(f"file://{path}", path.name, partition, path.stat().st_size, {})


@pytest.fixture
def reference(tmp_path: Path) -> StoredReference:
    """In chunks of 100 bases, in two files; of X from base 101 on."""
    rows = [
        {"contig": contig, "name": f"chr{contig}", "first": at + 1, "last": min(at + 100, len(text)), "bases": chunk}
        for contig, text in GENOME.items()
        for at in range(0 if contig == "2" else 100, len(text), 100)
        for chunk in (text[at : at + 100].encode(),)
    ]
    halves = enumerate((rows[:5], rows[5:]))
    return StoredReference([stored(tmp_path / f"r{i}.parquet", pa.Table.from_pylist(half)) for i, half in halves])


def sites(count: int) -> pa.Table:
    generator = np.random.default_rng(count)
    rows = []
    for _ in range(count):
        contig = str(generator.choice(["chr2", "chrX", "2", "7"]))
        text = GENOME.get(contig.removeprefix("chr"), "A" * 300)
        pos = int(generator.integers(1, len(text) + 3))
        ref = text[pos - 1 : pos - 1 + int(generator.choice([1, 1, 3]))].upper() or "A"
        ref = "G" if generator.random() < 0.1 else ref
        alt = str(generator.choice(["A", "C", "GT", "-", "<DUP>", "*"]))
        rows.append({"entity_id": f"{contig}:{pos}:{ref}:{alt}", "contig": contig, "pos": pos, "ref": ref, "alt": alt})
    return pa.Table.from_pylist(rows)


def answers(rows: pa.Table, reference: StoredReference) -> dict[str, tuple[bytes | None, str | None]]:
    found = pa.Table.from_batches(list(in_order(rows, reference, LENGTH)))
    return {r["entity_id"]: (r["x"], r["note"]) for r in found.to_pylist()}


def test_codes_are_those_of_the_files(reference: StoredReference) -> None:
    for contig, text in GENOME.items():
        whole = base_codes(np.frombuffer(text.encode(), np.uint8)).copy()
        whole[: 100 if contig == "X" else 0] = NO_BASE
        for start, end in ((0, 50), (95, 105), (0, len(text)), (99, 101), (250, 251)):
            expected = np.full(end - start, NO_BASE, np.int8)
            expected[: len(whole[start:end])] = whole[start:end]
            np.testing.assert_array_equal(reference.codes(f"chr{contig}", start, end), expected)
    assert (reference.codes("chr2", 690, 720)[10:] == NO_BASE).all() and (reference.codes("3", 0, 5) == NO_BASE).all()


def test_neither_order_nor_blocks_nor_spans_matter(reference: StoredReference, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = sites(300)
    found = answers(rows, reference)
    assert len(found) == len(set(rows.column("entity_id").to_pylist()))
    assert all((x is None) != (note is None) for x, note in found.values())
    assert 50 < sum(x is not None for x, _ in found.values()) < len(found) - 50
    order = np.random.default_rng(2).permutation(300)
    assert answers(rows.take(pa.array(order)), reference) == found
    monkeypatch.setattr(variant_windows, "_CUT", 7)
    monkeypatch.setattr(variant_windows, "_SPAN", 40)
    assert answers(rows, reference) == found
    some = rows.slice(11, 1)
    assert answers(some, reference).items() <= found.items()


def test_windows_by_hand(reference: StoredReference) -> None:
    text = GENOME["2"].upper()
    pos = text.index("ACG", 40) + 1
    rows = pa.table({"entity_id": ["a"], "contig": ["chr2"], "pos": [pos], "ref": ["ACG"], "alt": ["-"]})
    ((packed, note),) = answers(rows, reference).values()
    codes = packing.rows(pa.array([packed], pa.binary()), "int8", 2 * LENGTH)[0]
    left = text[pos - 1 - LENGTH // 2 : pos - 1]
    assert note is None and spelled(codes[:LENGTH]) == (left + text[pos - 1 :])[:LENGTH]
    assert spelled(codes[LENGTH:]) == (left + text[pos + 2 :])[:LENGTH]


def test_shares_have_each_variant_once(tmp_path: Path) -> None:
    """Of a VCF's files, two of which have the same sites, and of a table; whatever the borders are."""
    generator = np.random.default_rng(3)
    records = [
        {"chrom": "chr2", "pos": int(p), "ref": "A", "alts": ["C", "G"] if p % 3 else ["T"], "gt": b"x"}
        for p in np.sort(generator.integers(1, 500, 90))
    ]
    one = stored(tmp_path / "a.parquet", pa.Table.from_pylist(records), contig="2")
    two = stored(tmp_path / "b.parquet", pa.Table.from_pylist(records[30:60]), contig="2")
    effects = [
        {"variant_id": f"2:{r['pos']}:A:C:E{i}", "contig": c, "pos": r["pos"], "ref": "A", "alt": "C"}
        for i, r in enumerate(records[:20])
        for c in ("2", "3")
    ]
    table = stored(tmp_path / "e.parquet", pa.Table.from_pylist(effects))
    expected = {f"chr2:{r['pos']}:A:{alt}" for r in records for alt in r["alts"]}
    expected |= {row["variant_id"] for row in effects if row["contig"] == "2"}
    for borders in ([0, 1000], [0, 100, 101, 333, 1000]):
        shares = [Share("2", a, b, (one, two, table)) for a, b in pairwise(borders)]
        found = pa.concat_tables(variant_windows._variants(share, None) for share in shares)
        names = found.column("entity_id").to_pylist()
        assert len(names) == len(set(names)) and set(names) == expected
        assert found.column("pos").to_pylist() == sorted(found.column("pos").to_pylist())
    some = pa.array(sorted(expected)[:5])
    (chosen,) = [variant_windows._variants(Share("2", 0, 1000, (one, two, table)), some)]
    assert pc.is_in(chosen.column("entity_id"), some).to_pylist() == [True] * 5
