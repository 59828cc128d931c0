"""Splits by where sequences and variants lie, and by columns that say what they are parts of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pyspark.sql import functions as F

from genodl_spark.lake.delta import Lake
from genodl_spark.lake.schema import VARIANT
from genodl_spark.lake.snapshot import Snapshot
from genodl_spark.lake.tables.learning import DATASETS, SPLITS
from genodl_spark.registry.places import groups_of
from jobs import ingest, prepare


def test_of_sequences(genodl, lake: Lake, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    text = ["".join("ACGT"[b] for b in random.integers(0, 4, 50)) for _ in range(40)]
    text[31] = text[2]  # of chr2 and chr3: a repeat
    rows = []
    for i in range(40):
        contig, start = f"chr{1 + i % 4}", 1000 * (i // 4) + (5000 if i >= 20 else 0)
        rows.append((f"{contig}:{start}-{start + 50}", text[i], str(i // 4 % 2), contig, f"e{i % 5}"))
    rows.append(("decoy", "ACGTTGCAACGGATCGATTACGGATC", "0", "", "e0"))
    common, folds = ("--lake", lake.uri, "--cohort"), ("--set", "split.folds=2")

    def ingested(cohort: str, head: str, columns: list[int]) -> None:
        lines = ["\t".join(row[c] for c in columns) for row in rows]
        (tmp_path / f"{cohort}.tsv").write_text("\n".join([head, *lines, ""]))
        assert genodl(ingest, "sequences", str(tmp_path / f"{cohort}.tsv"), *common, cohort)[0] == 0

    def prepared(cohort: str, *options: str) -> tuple[list[str], dict[str, tuple[str, int]]]:
        code, report, last = genodl(prepare, "binding", *common, cohort, *folds, *options)
        assert code == 0, last
        newest = lake.read(DATASETS).orderBy(F.col("prepared_at").desc()).first().split_hash
        stored = lake.read(SPLITS).where((F.col("split_hash") == newest) & (F.col("cohort") == cohort)).collect()
        return report["warnings"], {row.entity_id: (row.group, row.fold) for row in stored}

    ingested("named", "id\tsequence\tlabel\texon", [0, 1, 2, 4])
    ingested("told", "id\tsequence\tlabel\tchrom", [0, 1, 2, 3])
    for cohort in ("named", "told"):
        for group in ("chromosome", "chrom"):
            warnings, stood = prepared(cohort, "--set", f"split.group={group}")
            assert len(stood) == 40
            told = "1 of 41 sequences share 0.9 or more of the bases with others on another chromosome"
            assert f"{told}: they are left out, so that none is tied to another" in warnings
            of = "chr" if (cohort, group) == ("told", "chrom") else ""
            for name, (found, fold) in stood.items():
                if name == "decoy":
                    continue
                assert found == of + name.partition(":")[0].removeprefix("chr")
                assert {f for g, f in stood.values() if g == found} == {fold}
    assert (
        "1 of 41 sequences lie at no known place: each is a group"
        in prepared("named", "--set", "split.group=chromosome")[0]
    )

    for distance, sizes in (("", {1: 1, 10: 4}), ("4000", {1: 1, 5: 8}), ("100", {1: 41})):
        more = ("--set", f"split.distance={distance}") if distance else ()
        _, stood = prepared("named", "--set", "split.group=locus", *more, "--set", "sequence.alike=0")
        groups = [group for group, _ in stood.values()]
        assert {n: sum(groups.count(g) == n for g in set(groups)) for n in sizes} == sizes
        assert stood["chr1:1000-1050"][0] == {"": "1:1-14050", "4000": "1:1-4050", "100": "1:1001-1050"}[distance]

    _, stood = prepared("named", "--set", "split.group=exon", "--set", "sequence.alike=0")
    assert {group for group, _ in stood.values()} == {f"e{i}" for i in range(5)}
    for group, found in (
        ("element", "no column 'element' in labels; expected one of "),
        ("exon", "no value of exon for any sequence of cohort told; expected some, name another column"),
    ):
        code, _, last = genodl(prepare, "binding", *common, "told", *folds, "--set", f"split.group={group}")
        assert code == 2 and last.startswith(f"genodl: error: split.group: found {found}"), last

    rows[:] = [(f"s{i}", *row[1:]) for i, row in enumerate(rows)]
    ingested("nowhere", "id\tsequence\tlabel", [0, 1, 2])
    code, _, last = genodl(prepare, "binding", *common, "nowhere", *folds, "--set", "split.group=locus")
    assert code == 2 and last.startswith(
        "genodl: error: split.group: found no column 'locus', and no place on a genome in columns chrom, start, end or "
        "the names of 41 sequences, such as 's0'; expected one of the three"
    )


def test_of_variants(genodl, lake: Lake, tmp_path: Path) -> None:
    (tmp_path / "v.tsv").write_text("chrom\tpos\tref\talt\tlabel\n1\t10\tA\tC\ta\n1\t400\tA\tC\tb\nchr2\t10\tA\tC\ta\n")
    sequences = "".join(f">chr{n}\n{'A' * 500}\n" for n in (1, 2))
    (tmp_path / "r.fa").write_text(sequences)
    reference = ("--reference", str(tmp_path / "r.fa"))
    assert genodl(ingest, "variants", str(tmp_path / "v.tsv"), "--lake", lake.uri, "--cohort", "v", *reference)[0] == 0
    entities = ["1:10:A:C", "1:400:A:C", "2:10:A:C"]
    for group, distance, groups in (
        ("chromosome", 0, ["1", "1", "2"]),
        ("locus", 389, ["1:10-400", "1:10-400", "2:10-10"]),
        ("locus", 388, ["1:10-10", "1:400-400", "2:10-10"]),
    ):
        assert groups_of(Snapshot(lake), VARIANT, "v", entities, group, distance) == groups
