"""The format `vcf`, and the SQL functions on what it reads and on a lake."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from pyspark.sql import SparkSession

from genodl_spark.core.errors import input_error_within
from genodl_spark.formats import bgzf
from genodl_spark.formats.vcf import datasource
from genodl_spark.genetics import sql_functions
from jobs import ingest, query

HEAD = """##fileformat=VCFv4.3
##INFO=<ID=AF,Number=A,Type=Float,Description="x">
##INFO=<ID=af,Number=1,Type=String,Description="x">
##INFO=<ID=DB,Number=0,Type=Flag,Description="x">
##FORMAT=<ID=GT,Number=1,Type=String,Description="x">
##FORMAT=<ID=AD,Number=R,Type=Integer,Description="x">
#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\ts1\ts2
"""
FIRST = "chr1\t5\trs1\tA\tG,T\t9.5\tPASS\tAF=0.5,.;af=a%3Bb;DB\tGT:AD\t0|1:3,4,5\t./.\n"


@pytest.fixture(scope="module")
def reading(spark: SparkSession) -> SparkSession:
    datasource.register(spark)
    sql_functions.register(spark)
    return spark


def test_typed_columns_options_and_broken_records(reading: SparkSession, tmp_path: Path) -> None:
    folder = tmp_path / "some files"
    folder.mkdir()
    (folder / "a.vcf").write_text(HEAD + FIRST + "chr1\tx\t.\tA\tG\t.\t.\t.\tGT\t0|0\t0|0\n")
    (folder / "b.vcf").write_text(HEAD + "2\t7\t.\tC\tG\t.\t.\t.\tGT:AD\t1|1\t0/0\n")
    (folder / "notes.txt").write_text("no VCF")
    rows = reading.read.format("vcf").option("format", "*").load(str(folder))
    assert rows.columns[-7:] == [
        "INFO_AF",
        "INFO_af_2",
        "INFO_DB",
        "FORMAT_GT",
        "FORMAT_AD",
        "_corrupt_record",
        "_reason",
    ]
    one, bad, two = rows.orderBy("file", "line").collect()
    assert (one.contig, one.chrom, one.pos, one.end, one.id, one.alts, one.qual) == (
        "1",
        "chr1",
        5,
        5,
        "rs1",
        ["G", "T"],
        9.5,
    )
    assert (one.INFO_AF, one.INFO_af_2, one.INFO_DB, one.line) == ([0.5, None], "a;b", True, 8)
    assert (one.FORMAT_GT, one.FORMAT_AD, one._reason) == (["0|1", "./."], [[3, 4, 5], None], None)
    assert (bad.file, bad.line, bad.pos, bad.gt, bad.INFO_DB) == ("a.vcf", 9, None, None, None)
    assert bad._corrupt_record.startswith("chr1\tx\t") and bad._reason.startswith("found POS 'x'")
    assert (two.FORMAT_GT, two.INFO_DB, two._corrupt_record) == (["1|1", "0/0"], False, None)

    chosen = reading.read.format("vcf").option("info", "DB").load(f"{folder}/b.vcf,{folder}/[a].vcf")
    assert [c for c in chosen.columns if c.startswith(("INFO_", "FORMAT_"))] == ["INFO_DB"]
    called = (
        chosen.where("pos is not null")
        .selectExpr("pos", "dosage(gt, n_samples) d", "genotype_at(gt, n_samples, 0) g")
        .orderBy("pos")
        .collect()
    )
    assert [tuple(row) for row in called] == [(5, [1, None], "0|1"), (7, [2, 0], "1|1")]
    with pytest.raises(Exception, match="found POS 'x'") as failed:
        reading.read.format("vcf").option("mode", "failfast").load(str(folder)).count()
    found = input_error_within(failed.value)
    assert found is not None and "a.vcf:9: found POS 'x'" in str(found)
    with pytest.raises(Exception, match="no such file"):
        reading.read.format("vcf").load(str(folder / "nothing*.vcf"))
    assert reading.read.format("vcf").load([str(folder / "a.vcf"), str(folder)]).count() == 3
    odd = folder / "a, [b].vcf"
    (folder / "b.vcf").rename(odd)
    assert datasource.samples(str(odd)) == datasource.samples(str(folder)) == ["s1", "s2"]


def test_splits_hold_every_record_once(reading: SparkSession, tmp_path: Path) -> None:
    path = tmp_path / "many.vcf.gz"
    text = HEAD + "".join(FIRST.replace("\t5\t", f"\t{i}\t") for i in range(1, 20001))
    with path.open("wb") as sink:
        writer = bgzf.Writer(sink)
        writer.write(text.encode())
        writer.close()
    rows = reading.read.format("vcf").option("splitSize", str(path.stat().st_size // 6)).load(str(path))
    assert rows.rdd.getNumPartitions() == 6
    found = rows.selectExpr("count(*) n", "count(distinct pos) d", "count(_reason) bad", "sum(INFO_AF[0]) af").first()
    assert tuple(found) == (20000, 20000, 0, 10000.0)


@pytest.mark.parametrize("size", [100, 700, 1 << 20])
def test_a_header_longer_than_a_split(tmp_path: Path, size: int) -> None:
    path = tmp_path / "a.vcf"
    path.write_text(
        HEAD.replace("#CHROM", "##note=" + "x" * 900 + "\n#CHROM")
        + "".join(FIRST.replace("\t5\t", f"\t{i}\t") for i in range(30))
    )
    source = datasource.VcfDataSource({"path": str(path), "splitSize": str(size), "format": "*", "mode": "failfast"})
    reader = source.reader(source.schema())
    rows = pa.Table.from_batches([batch for piece in reader.partitions() for batch in reader.read(piece)])
    assert rows.column_names == source.schema().names
    assert rows.column("pos").to_pylist() == list(range(30))
    assert rows.column("FORMAT_AD").to_pylist() == [[[3, 4, 5], None]] * 30
    assert [n for n in rows.column("line").to_pylist() if n is not None] == (
        list(range(9, 39)) if size == 1 << 20 else []
    )


def test_functions_in_a_query_over_a_lake(genodl, tmp_path: Path) -> None:
    path = tmp_path / "a.vcf"
    path.write_text(HEAD + FIRST + "2\t7\t.\tC\tG\t.\t.\t.\tAD\t1,1\t.\n")
    lake = str(tmp_path / "lake")
    assert genodl(ingest, "vcf", str(path), "--cohort", "c", "--lake", lake)[0] == 0
    join = "FROM variants v JOIN sample_sets s USING (sample_set) WHERE s.sample_id = 's1' ORDER BY pos"
    at = "genotype_at(v.gt, v.n_samples, s.position) g, dosage_at(v.gt, v.n_samples, s.position, 2) d"
    code, report, _ = genodl(
        query,
        f"SELECT v.pos, {at}, alleles(v.gt, v.n_samples) a, allele_counts(v.gt, v.n_samples) c {join}",
        "--lake",
        lake,
    )
    assert code == 0
    counted = {"copies": 1, "called": 2, "hom_ref": 0, "het": 1, "hom_alt": 0, "missing": 1}
    first, second = report["result"]
    assert first == {"pos": 5, "g": "0|1", "d": 0, "a": ["0|1", "./."], "c": counted}
    assert second == {"pos": 7, "g": None, "d": None, "a": None, "c": None}
    code, _, last = genodl(query, "SELECT genotype_at(gt, n_samples, 2) FROM variants", "--lake", lake)
    assert (code, last) == (2, "genodl: error: SQL: found position 2 of 2 samples; expected 0 to 1, as in sample_sets")
