"""Cohorts out of the lake again: real files against htslib's reading of the originals, shards,
joint sets, regions, refusals."""

from __future__ import annotations

import gzip
import os
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pysam.bcftools
import pytest

from genodl_spark.formats.vcf import reader
from genodl_spark.lake.delta import Lake
from genodl_spark.lake.tables.ingested import SOURCES, VARIANTS
from genodl_spark.pipelines import export as pipeline
from jobs import export

SHARED = Path(os.environ.get("GENODL_SHARED_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
STAMP = {"ingested_at": datetime(2026, 1, 1)}
META = '##fileformat=VCFv4.2\n##FORMAT=<ID=GT,Number=1,Type=String,Description="G">\n'


def write(path: Path, *records: str, samples: str = "s1 s2", meta: str = META) -> str:
    columns = "\t".join(["#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO", "FORMAT", *samples.split()])
    path.write_text(meta + columns + "\n" + "".join("\t".join(r.split(" ")) + "\n" for r in records))
    return str(path)


def put(lake: Lake, cohorts: dict[str, list[Path]]) -> None:
    """Rows of files as ingest leaves them, without the time that it takes here."""
    rows, manifest = [], []
    for cohort, paths in cohorts.items():
        for path in paths:
            with path.open("rb") as raw:
                read = list(reader.read(raw, str(path), cohort, path.name, 2000))
            assert not any(bad.num_rows for _, bad in read)
            rows += [good for good, _ in read]
            entry = {"cohort": cohort, "source": "vcf", "file": path.name, "header": reader.header_of(str(path)).text}
            manifest.append(
                tuple(
                    {
                        **dict.fromkeys(SOURCES.column_names, ""),
                        "bytes": 1,
                        "records": 1,
                        "quarantined": 0,
                        **entry,
                        **STAMP,
                    }.values()
                )
            )
    table = pa.Table.from_batches(rows)
    frame = table.to_pandas()
    frame["alts"] = frame["alts"].map(list)
    frame["filters"] = frame["filters"].map(lambda codes: None if codes is None else list(codes))
    lake.append(VARIANTS, lake.spark.createDataFrame(frame, VARIANTS.spark_schema()))
    lake.append(SOURCES, lake.spark.createDataFrame(manifest, SOURCES.spark_schema()))


def body(path: str | Path, *more: str) -> list[str]:
    return pysam.bcftools.view("-H", *more, str(path)).splitlines()


def contents(path: str | Path) -> tuple[list[str], list[str]]:
    lines = gzip.decompress(Path(path).read_bytes()).decode().splitlines()
    return [line for line in lines if line.startswith("#")], [line for line in lines if not line.startswith("#")]


REAL = {
    "exon": ("vcf_ceu_exon_seqarray/CEU_Exon.vcf.gz", "1:1105000-6000000"),
    "hail": ("vcf_hail_sample/sample2.vcf.gz", "22:16500000-17000000"),
    "sites": ("ref_grch38_chr20_21_10M/cohort-chr20_100k.vcf.gz", "chr20:70000-80003"),
    "gvcf": ("gvcf_bio2zarr/CEUTrio.20.21.gatk3.4.g.vcf.bgz", "20:10000100-10000140"),
}


def test_real_files_come_back_record_for_record(
    genodl, lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = {case: SHARED / name for case, (name, _) in REAL.items() if (SHARED / name).is_file()}
    if not there:
        pytest.skip(f"no shared data in {SHARED}")
    put(lake, {case: [source] for case, source in there.items()})
    monkeypatch.setattr(pipeline, "_PIECE_TEXT", 1 << 20)  # several pieces
    for case, source in there.items():
        out, part, again = (tmp_path / case / f"{name}.vcf.gz" for name in ("out", "part", "again"))
        common = ("vcf", "--lake", lake.uri, "--cohort", case, "--output")
        code, report, _ = genodl(export, *common, str(out))
        with pysam.VariantFile(str(source)) as theirs, pysam.VariantFile(str(out)) as ours:
            samples = list(theirs.header.samples)
            added = [line for line in str(ours.header).splitlines() if line not in str(theirs.header).splitlines()]
        original = body(source)
        assert (code, report["status"], body(out)) == (0, "done", original)
        assert report["metrics"] == {"records": len(original), "samples": len(samples), "bytes": out.stat().st_size}
        assert all(line.startswith("##contig=") for line in added)
        assert sorted(p.name for p in out.parent.iterdir()) == ["out.vcf.gz", "out.vcf.gz.tbi"]

        # A region is what bcftools makes of the whole file.
        region = REAL[case][1]
        chosen = ["--samples", ",".join(samples[5:2:-1])] if len(samples) > 5 else []
        assert genodl(export, *common, str(part), "--region", region, *chosen)[0] == 0
        expected = body(out, "-r", region, *(["--no-update", *chosen] if chosen else []))
        assert len(original) > len(expected) > 0
        assert body(part) == expected
        if case == "exon":  # what was there is replaced, and the bytes depend on the lake alone
            again.write_bytes(b"old")
            Path(f"{again}.csi").write_bytes(b"old")
            assert genodl(export, *common, str(again))[0] == 0
            assert again.read_bytes() == out.read_bytes()
            assert sorted(p.name for p in out.parent.glob("again*")) == ["again.vcf.gz", "again.vcf.gz.tbi"]


def test_shards_and_joint_sets(genodl, lake: Lake, tmp_path: Path) -> None:
    meta = META.replace("4.2", "4.1") + '##INFO=<ID=X,Number=1,Type=Float,Description="x">\n##contig=<ID=chr3>\n'
    write(tmp_path / "a.vcf", "chr3 8 . A T 1.50 . . GT 0|1 1|1", "chr3 70000 . A T . PASS . GT 0|1 0/1",
          "HLA:1 5 . A C . . . GT 0|0 0|1", meta=meta + "##contig=<ID=HLA:1>\n")  # fmt: skip
    write(
        tmp_path / "b.vcf",
        "chr3 8 r A C . . X=1 GT 1|1 0|0",
        "chr1 9 . AGG T . . . GT 0|1 ./.",
        meta=META + "##note=b\n",
    )
    common = ("--lake", lake.uri, "--cohort", "c")
    put(lake, {"c": [tmp_path / "a.vcf", tmp_path / "b.vcf"]})
    out = tmp_path / "out.vcf.gz"
    code, report, _ = genodl(export, "vcf", *common, "--output", f"local://{out}")
    assert (code, report["metrics"]["records"], report["warnings"]) == (0, 5, [])
    header, records = contents(out)
    expected = [*(meta.replace("4.1", "4.2") + "##contig=<ID=HLA:1>\n##contig=<ID=chr1>").split("\n"), "##note=b"]
    assert header[:-1] == expected
    assert [line.split("\t")[:6] for line in records] == [
        ["chr3", "8", ".", "A", "T", "1.5"],
        ["chr3", "8", "r", "A", "C", "."],
        ["chr3", "70000", ".", "A", "T", "."],
        ["HLA:1", "5", ".", "A", "C", "."],
        ["chr1", "9", ".", "AGG", "T", "."],
    ]
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith(("out", "."))) == [
        "out.vcf.gz",
        "out.vcf.gz.tbi",
    ]

    write(
        tmp_path / "c.vcf",
        "3 8 . A C . . . GT 0/1",
        "3 9 . A C . . . GT 1/1",
        samples="s9",
        meta=META + "##contig=<ID=3>\n",
    )
    put(lake, {"c": [tmp_path / "c.vcf"]})
    code, report, _ = genodl(export, "vcf", *common, "--output", str(out))
    header, records = contents(out)
    assert (code, report["metrics"]["records"], header[-1].split("\t")[-3:]) == (0, 6, ["s1", "s2", "s9"])
    assert report["warnings"] == ["contig 3 is named 3 and chr3 in the files; all its records have chr3"]
    assert "##contig=<ID=3>" not in header
    assert [line.split("\t")[0:2] + line.split("\t")[9:] for line in records[:3]] == [
        ["chr3", "8", "0|1", "1|1", "./."],
        ["chr3", "8", "1|1", "0|0", "0/1"],
        ["chr3", "9", "./.", "./.", "1/1"],
    ]

    # Regions: a record belongs when any of its reference bases does; names that look like one; nothing found.
    for region, positions in {"1:11-20": [9], "chr1:12-20": [], "HLA:1": [5], "chr3:9-": [9, 70000]}.items():
        code, report, _ = genodl(export, "vcf", *common, "--output", str(out), "--region", region)
        assert (code, [int(line.split("\t")[1]) for line in contents(out)[1]]) == (0, positions)
        assert report["warnings"][-1:] == (
            [f"no record overlaps {region}"] if not positions else report["warnings"][-1:]
        )
        assert (tmp_path / "out.vcf.gz.tbi").is_file()

    before = out.read_bytes()
    for more, found in {
        ("--region", "chr7:1-5"): "--region: found contig 'chr7'",
        ("--region", "chr1:5-4"): "--region: found 'chr1:5-4'",
        ("--region", "chr1:x"): "--region: found contig 'chr1:x'",
        ("--samples", "s1,s7"): "--samples: found sample 's7', which",
        ("--samples", "s1,s1"): "--samples: found sample 's1' twice",
        ("--output", str(tmp_path / "out.vcf")): "--output: found",
    }.items():
        arguments = ("vcf", *common, "--output", str(out), *more)
        code, report, line = genodl(export, *arguments)
        assert (code, report["status"], line.startswith(f"genodl: error: {found}")) == (2, "failed", True), line
    assert out.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith(("out", "."))) == [
        "out.vcf.gz",
        "out.vcf.gz.tbi",
    ]


def test_a_long_contig_has_a_csi(genodl, lake: Lake, tmp_path: Path) -> None:
    write(tmp_path / "a.vcf", "1 600000000 . A T . . . GT 0|1 1|1")
    put(lake, {"c": [tmp_path / "a.vcf"]})
    out = tmp_path / "out.vcf.gz"
    assert genodl(export, "vcf", "--lake", lake.uri, "--output", str(out))[0] == 0
    assert (tmp_path / "out.vcf.gz.csi").is_file()
    assert len(body(out, "-r", "1:600000000")) == 1
