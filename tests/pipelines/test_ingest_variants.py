"""Variant tables and FASTA with labels through the command line, the data sets of ../shared/data among them."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pyBigWig
import pytest

from genodl_spark.lake.delta import Lake
from genodl_spark.lake.tables.ingested import LABELS, QUARANTINE, SEQUENCES, VARIANT_EFFECTS
from genodl_spark.lake.tables.learning import DATASETS, EXAMPLES
from jobs import forget, ingest, lineage, prepare

SHARED = Path(os.environ.get("GENODL_SHARED_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))


def test_variants_their_labels_and_a_reference(genodl, lake: Lake, tmp_path: Path) -> None:
    common = ("--lake", lake.uri, "--cohort", "c")
    table, fasta = tmp_path / "v.tsv", tmp_path / "r.fa"
    fasta.write_text(">slice hg19_chr7:101-110\nACGTACGTAC\n")
    table.write_text(
        "chrom\tpos\tref\talt\tvalue\texon\nchr7\t102\tC\tT\t1.5\t2\nchr7\t103\tA\tT\t2\t2\nchr7\t104\tt\t-\tNA\t3\n"
    )
    code, report, line = genodl(ingest, "variants", str(table), *common, "--reference", str(fasta))
    assert code == 0, line
    assert {t: report["rows"][t]["written"] for t in ("variant_effects", "labels", "quarantine")} == {
        "variant_effects": 2,
        "labels": 2,
        "quarantine": 1,
    }
    rows = {
        r.variant_id: (r.contig, r.pos, r.ref, r.alt, r.build, r.line) for r in lake.read(VARIANT_EFFECTS).collect()
    }
    assert rows == {
        "chr7:102:C:T": ("7", 102, "C", "T", "hg19", 2),
        "chr7:104:T:-": ("7", 104, "T", "-", "hg19", 4),
    }
    labels = {r.entity_id: (r.entity, r.value, r.exon) for r in lake.read(LABELS).collect()}
    assert labels == {"chr7:102:C:T": ("variant", "1.5", "2"), "chr7:104:T:-": ("variant", None, "3")}
    refused = lake.read(QUARANTINE).collect()
    assert [(r.source, r.line, r.reason) for r in refused] == [
        ("variants", 3, "found REF 'A'; expected G, as the reference has it")
    ]
    # The same file with fewer bases around its variants is read again.
    around = ("--reference", str(fasta), "--set", "ingest.flank=2")
    stored = {r.variant_id: (r.before, r.after) for r in lake.read(VARIANT_EFFECTS).collect()}
    assert stored == {"chr7:102:C:T": ("A", "GTACGTAC"), "chr7:104:T:-": ("ACG", "ACGTAC")}
    assert genodl(ingest, "variants", str(table), *common, *around)[0] == 0
    stored = {r.variant_id: (r.before, r.after) for r in lake.read(VARIANT_EFFECTS).collect()}
    assert stored == {"chr7:102:C:T": ("A", "GT"), "chr7:104:T:-": ("CG", "AC")}
    code, report, line = genodl(lineage, "variant_effects", "--lake", lake.uri, "--key", "chr7:102:C:T")
    assert (code, "v.tsv" in str(report)) == (0, True), line
    code, _, line = genodl(forget, *common, "--sample", "chr7:102:C:T")
    assert code == 0, line
    assert [r.variant_id for r in lake.read(VARIANT_EFFECTS).collect()] == ["chr7:104:T:-"]
    assert [r.entity_id for r in lake.read(LABELS).collect()] == ["chr7:104:T:-"]

    # None that fits: both sides are named, and nothing is stored.
    other = tmp_path / "w.tsv"
    other.write_text("chrom\tpos\tref\talt\n7\t102\tG\tT\n7\t9\tA\tT\n")
    code, _, line = genodl(ingest, "variants", str(other), *common, "--reference", str(fasta))
    assert (code, line) == (
        2,
        f"genodl: error: file://{other}:2: found no variant that can be stored, of 2 records against "
        "hg19 with contigs 7, slice, where the table has contigs 7: is it the same build?; the first: found REF 'G'; "
        "expected C, as the reference has it",
    )
    assert lake.read(VARIANT_EFFECTS).count() == 1


def test_tracks_become_columns_that_models_learn_from(genodl, lake: Lake, tmp_path: Path) -> None:
    """Values are written as they are told to pyBigWig; the last base has none."""
    common = ("--lake", lake.uri, "--cohort", "c")
    letters = "ACGT" * 10
    (tmp_path / "r.fa").write_text(f">chr7\n{letters}\n")
    values = [round(0.5 * place - 3, 1) for place in range(39)]
    tracks = []
    for name, column in (("phylo p.bw", "phyloP"), ("other=1.bw", "Other")):
        with pyBigWig.open(str(tmp_path / name), "w") as file:
            file.addHeader([("chr7", 40), ("chr8", 9)])
            file.addEntries("chr7", 0, values=values if column == "phyloP" else [2.0] * 40, span=1, step=1)
        tracks += ["--tracks", f"{column}={tmp_path / name}"]
    lines = [f"7\t{pos}\t{ref}\t{'G' if ref == 'A' else 'A'}\t{pos % 2}" for pos, ref in enumerate(letters, 1)]
    lines += ["7\t9\tACG\tA\t1", "7\t9\tA\tAT\t1"]
    (tmp_path / "v.tsv").write_text("\n".join(["chrom\tpos\tref\talt\tlabel", *lines]) + "\n")
    given = ("variants", str(tmp_path / "v.tsv"), *common, "--reference", str(tmp_path / "r.fa"))

    # What cannot be is refused in one line, and nothing is stored.
    (tmp_path / "cut.bw").write_bytes((tmp_path / "phylo p.bw").read_bytes()[:300])
    with pyBigWig.open(str(tmp_path / "longer.bw"), "w") as file:
        file.addHeader([("chr7", 41)])
        file.addEntries("chr7", 0, values=[1.0], span=1, step=1)
    for wrong, said in (
        (["phyloP"], "--tracks: found 'phyloP'; expected NAME=FILE"),
        (["label=" + str(tmp_path / "other=1.bw")], "--tracks: found a track called label, as a column of v.tsv is"),
        (["a=" + str(tmp_path / "no.bw")], "no.bw: no such file; expected a bigWig"),
        (["a=" + str(tmp_path / "r.fa")], "r.fa: found 3e 63 68 72 in front; expected a bigWig"),
        (["a=" + str(tmp_path / "cut.bw")], "cut.bw: found 300 bytes, where the file says that it has more"),
        (["a=" + str(tmp_path / "longer.bw")], "longer.bw: found 41 bases of chr7 where the reference has 40"),
    ):
        code, _, line = genodl(ingest, *given, "--tracks", *wrong)
        assert (code, said in line) == (2, True), line
    code, _, line = genodl(ingest, "sequences", str(tmp_path / "r.fa"), *common, *tracks)
    assert code == 2 and "--tracks: found tracks for sequences; expected none" in line, line
    assert not lake.exists(VARIANT_EFFECTS) and not lake.exists(LABELS)

    code, report, line = genodl(ingest, *given, *tracks)
    assert code == 0, line
    assert "1 lines of v.tsv have no value of phyloP; the first is line 41" in report["warnings"]
    assert not any("Other" in text for text in report["warnings"])
    stored = {row.entity_id: row for row in lake.read(LABELS).collect()}
    found = [stored[f"7:{pos}:{ref}:{'G' if ref == 'A' else 'A'}"].phyloP for pos, ref in enumerate(letters, 1)]
    assert [None if text is None else float(text) for text in found] == [*values, None]
    assert {row.Other for row in stored.values()} == {"2"}
    replaced, between = (float(stored[name].phyloP) for name in ("7:9:ACG:A", "7:9:A:AT"))
    assert (replaced, between) == (sum(values[9:11]) / 2, sum(values[8:10]) / 2)
    assert genodl(ingest, *given, *tracks)[1]["status"] == "unchanged"

    code, _, line = genodl(prepare, "variant_effect", *common, "--set", "covariates=phyloP,Other")
    assert code == 0, line
    (dataset,) = lake.rows(DATASETS, {"cohort": "c"}).to_pylist()
    assert dataset["features"][-2:] == ["covariate:phyloP", "covariate:Other"]
    rows = lake.read(EXAMPLES).select("entity_id", "x").collect()
    packed = {row.entity_id: np.frombuffer(bytes(row.x), np.float32)[-2:].tolist() for row in rows}
    assert packed["7:9:ACG:A"] == [replaced, 2.0] and np.isnan(packed["7:40:T:A"][0]) and len(packed) == 42


@pytest.mark.parametrize(
    ("name", "fasta", "rows", "refused", "labels"),
    [
        ("varimpact_brca1_sge_findlay", "regions.fa.gz", 2699, 0, {"FUNC": 1974, "INT": 166, "LOF": 559}),
        # Of 22 rows the table says no coordinates.
        ("varimpact_satmut_mpra_kircher", "elements.fa.gz", 75_930, 22, None),
    ],
)
def test_measured_variants(
    genodl, lake: Lake, name: str, fasta: str, rows: int, refused: int, labels: dict[str, int] | None
) -> None:
    folder = SHARED / name
    if not folder.exists():
        pytest.skip("no shared data")
    table, reference = str(folder / "variants.tsv.gz"), str(folder / fasta)
    code, report, line = genodl(
        ingest, "variants", table, "--cohort", "c", "--lake", lake.uri, "--reference", reference
    )
    assert code == 0, line
    assert report["rows"]["variant_effects"] == {"written": rows, "total": rows, "quarantined": refused}
    stored = lake.read(LABELS)
    assert stored.where("entity = 'variant'").count() == rows
    if labels is not None:
        assert Counter(r.label for r in stored.select("label").collect()) == labels
        values = lake.read(VARIANT_EFFECTS).where("build = 'hg19'").select("pos").distinct().count()
        assert (values, stored.select("exon").distinct().count()) == (920, 9)
    else:
        assert stored.select("element").distinct().count() == 24
        assert [r["count"] for r in stored.groupBy("release").count().collect()] == [37_965] * 2


def test_fasta_with_labels(genodl, lake: Lake, tmp_path: Path) -> None:
    path = tmp_path / "promoters.fa"
    path.write_text(">a|1\nACGT\nacgt\n\n>b|0\nNNAC\n>c|1\nAC-T\n")
    code, report, line = genodl(ingest, "sequences", str(path), "--cohort", "c", "--lake", lake.uri)
    assert code == 0, line
    assert report["rows"]["sequences"] == {"written": 2, "total": 2, "quarantined": 1}
    assert {r.sequence_id: (r.length, r.line) for r in lake.read(SEQUENCES).collect()} == {"a": (8, 1), "b": (4, 5)}
    assert {r.entity_id: r.label for r in lake.read(LABELS).collect()} == {"a": "1", "b": "0"}
