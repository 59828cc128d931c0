"""PLINK and BGEN files through the command line: told apart by content, with what belongs to them, and out again."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from genodl_spark.genetics import genotypes
from genodl_spark.lake.delta import Lake
from genodl_spark.lake.tables.ingested import SAMPLES, SOURCES, VARIANTS
from jobs import export, forget, ingest
from tests.formats.test_plink import files

SHARED = Path(os.environ.get("GENODL_SHARED_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))


def test_plink_files_of_a_folder(genodl, lake: Lake, tmp_path: Path) -> None:
    common = ("--lake", lake.uri, "--cohort", "c")
    folder = tmp_path / "in"
    folder.mkdir()
    codes = np.array([[0, 2, 3], [1, 3, 3], [3, 0, 1]])
    fam = b"f1 x 0 0 1 2\nf1 y 0 0 2 1\nf1 child x y 0 -9\n"
    files(folder, b"1 a 0 5 C A\n23 b 0 6 C A\n1 bad 0 ? C A\n", fam, codes)
    (folder / "peaks.bed").write_text("chr1\t10\t20\n")
    code, report, line = genodl(ingest, "vcf", str(folder), *common)
    assert (code, report["status"]) == (0, "done"), line
    assert report["rows"]["variants"] == {"written": 2, "total": 2, "quarantined": 1}
    assert report["warnings"] == [
        f"passed over 1 files of file://{folder} that are hidden or not named as vcf: peaks.bed",
        "1 of 3 records of d.bed are in quarantine, first line 3: found position '?' in the .bim; "
        "expected 0 to 2,147,483,647",
        "REF and ALT of d.bed are as it has them; --reference holds them against a FASTA",
    ]
    rows = {r.id: r for r in lake.read(VARIANTS).orderBy("line").collect()}
    assert [(r.contig, r.chrom, r.ref, r.alts) for r in rows.values()] == [
        ("1", "1", "A", ["C"]),
        ("X", "23", "A", ["C"]),
    ]
    gt = pa.array([bytes(rows[name].gt) for name in "ab"], pa.binary())
    np.testing.assert_array_equal(genotypes.dosages(gt, 3), [[2, 1, 0], [-1, 0, 0]])
    people = {r.sample_id: (r.family_id, r.father, r.mother, r.sex, r.phenotype) for r in lake.read(SAMPLES).collect()}
    assert people == {
        "x": ("f1", None, None, "male", "2"),
        "y": ("f1", None, None, "female", "1"),
        "child": ("f1", "x", "y", None, None),
    }
    code, report, _ = genodl(ingest, "vcf", *(str(folder / f"d.{end}") for end in ("fam", "bed", "bim")), *common)
    assert (code, report["status"]) == (0, "unchanged")

    # The .bim belongs to it: with another one the file is another.
    (folder / "d.bim").write_bytes(b"1 a 0 5 C A\n23 b 0 6 C A\n1 good 0 7 C A\n")
    code, report, _ = genodl(ingest, "vcf", str(folder / "d.bed"), *common)
    assert (code, report["rows"]["variants"]) == (0, {"written": 3, "total": 3, "quarantined": 0})

    made = tmp_path / "out.vcf.gz"
    code, _, line = genodl(export, "vcf", *common, "--output", str(made))
    assert code == 0, line
    import pysam

    with pysam.VariantFile(str(made)) as vcf:
        found = [(r.chrom, r.pos, r.id, r.alleles, [s["GT"] for s in r.samples.values()]) for r in vcf]
    assert ("1", 5, "a", ("A", "C"), [(1, 1), (0, 1), (0, 0)]) in found and len(found) == 3

    code, _, line = genodl(forget, *common, "--sample", "x")
    assert code == 0, line
    assert {r.sample_id: r.father for r in lake.read(SAMPLES).collect()}.keys() == {"y", "child"}
    assert {r.n_samples for r in lake.read(VARIANTS).collect()} == {2}
    assert "\tx\t" not in lake.read(SOURCES).collect()[0].header
    (folder / "d.bim").write_bytes(b"1 a 0 5 C A\n23 b 0 6 C A\n1 good 0 8 C A\n")
    code, _, line = genodl(ingest, "vcf", str(folder / "d.bed"), *common)
    assert (code, "withdrawn consent" in line) == (2, True), line


def test_bgen_with_probabilities(genodl, lake: Lake) -> None:
    path = SHARED / "gwas_regenie_example" / "example.bgen"
    if not path.exists():
        pytest.skip("no shared data")
    code, report, line = genodl(ingest, "vcf", str(path), "--lake", lake.uri, "--cohort", "c")
    assert code == 0, line
    assert report["rows"]["variants"] == {"written": 1000, "total": 1000, "quarantined": 0}
    first = lake.read(VARIANTS).where("pos = 1").collect()[0]
    assert (first.format, first.info, first.n_samples, len(bytes(first.fields).split(b"\t"))) == (
        "GT:DS",
        "PR",
        500,
        500,
    )
    assert lake.read(SAMPLES).count() == 500
