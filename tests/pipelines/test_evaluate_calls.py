"""genodl evaluate calls: its report, files of every kind, refusals with their lines, and tasks that count."""

from __future__ import annotations

import json
from pathlib import Path

import pysam.bcftools
import pytest
from pyspark.sql import SparkSession

from genodl_spark.core import session
from genodl_spark.pipelines import evaluate_calls
from jobs import evaluate
from jobs import report as report_job

REFERENCE = "GATTACAGCGTCAAAAAATGCGTCTCTCTCAGGTACCAGTTGACTTGCATGC"
META = """##fileformat=VCFv4.2
##contig=<ID=chr1>
##contig=<ID=chr2>
##FILTER=<ID=LowQual,Description="l">
##FORMAT=<ID=GT,Number=1,Type=String,Description="g">
##FORMAT=<ID=GQ,Number=1,Type=Integer,Description="q">
"""
TRUTH = "chr1 4 TA CG 0/1; chr1 13 AA A 1/1; chr1 40 T C 0/1; chr2 5 A G 0/1"
QUERY = "chr1 4 T C 0/1; chr1 5 A G 0/1; chr1 17 AA A 1/1; chr1 47 G A 0/1; chr2 5 A G 1/1"


def written(path: Path, text: str) -> str:
    """`CHROM POS REF ALT GT; ...` as a VCF."""
    rows = [record.split() for record in text.split(";") if record.strip()]
    lines = [f"{c}\t{pos}\t.\t{ref}\t{alt}\t.\tPASS\t.\tGT:GQ\t{gt}:40\n" for c, pos, ref, alt, gt in rows]
    head = "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\ts\n"
    path.write_text(META + head + "".join(lines))
    return str(path)


@pytest.fixture(autouse=True)
def keeps_the_session(monkeypatch: pytest.MonkeyPatch) -> None:
    """The verb is called as from a command line, which ends the session of the other tests, too."""
    monkeypatch.setattr(session, "stop", lambda: None)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    fasta = tmp_path / "r.fa"
    fasta.write_text(f">chr1\n{REFERENCE}\n>chr2\n{REFERENCE}\n")
    return {
        "--reference": str(fasta),
        "--truth": written(tmp_path / "t.vcf", TRUTH),
        "--query": written(tmp_path / "q.vcf", QUERY),
        "--lake": str(tmp_path / "lake"),
    }


def run(files: dict[str, str], capsys: pytest.CaptureFixture[str]) -> tuple[int, dict, str]:
    words = [word for pair in files.items() for word in pair]
    code = evaluate.main([*words[:2], "calls", *words[2:]])
    captured = capsys.readouterr()
    return code, json.loads(captured.out.splitlines()[-1]), (captured.err.splitlines() or [""])[-1]


def apart(report: dict) -> dict:
    """Metrics without the names of files."""
    return {name: value for name, value in report["metrics"].items() if name != "files"}


def test_a_report(files: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, report, _ = run(files, capsys)
    assert (code, report["job"], report["status"], report["warnings"]) == (0, "evaluate", "done", [])
    found = report["metrics"]
    assert found["n_test"] == 4
    row = found["counts"]["SNP"]["PASS"]
    assert [row[c] for c in ("TRUTH.TP", "TRUTH.FN", "QUERY.TP", "QUERY.FP", "FP.gt")] == [1, 2, 2, 2, 1]
    assert found["model"]["snp_recall"]["value"] == pytest.approx(1 / 3)
    assert found["model"]["indel_f1"] == {"value": 1, "low": 1, "high": 1}
    assert not Path(files["--lake"]).exists()  # nothing is made where there is no lake

    bed = tmp_path / "c.bed"
    bed.write_text("1\t0\t20\nnowhere\t0\t20\n")
    code, report, _ = run({**files, "--confident": str(bed)}, capsys)
    row = report["metrics"]["counts"]["SNP"]["ALL"]
    assert [row[c] for c in ("TRUTH.TOTAL", "TRUTH.TP", "QUERY.TP", "QUERY.FP", "QUERY.UNK")] == [1, 1, 2, 0, 2]
    assert report["warnings"] == [f"1 contigs of {bed} are not in the reference, such as nowhere"]


def test_files_of_any_kind_give_the_same(
    files: dict[str, str], spark: SparkSession, tmp_path: Path, capsys: pytest.CaptureFixture[str], genodl, monkeypatch
) -> None:
    expected = apart(run(files, capsys)[1])
    other = dict(files)
    for side, kind in (("--truth", "b"), ("--query", "z")):
        other[side] = str(tmp_path / f"x{side}.{kind}")
        pysam.bcftools.view("--no-version", f"-O{kind}", "-o", other[side], files[side], catch_stdout=False)
    assert apart(run(other, capsys)[1]) == expected
    # tasks count what would else be counted here
    monkeypatch.setattr(evaluate_calls, "_LARGE", 1)
    Path(other["--lake"]).mkdir()
    code, report, _ = genodl(evaluate, "calls", *[word for pair in other.items() for word in pair])
    assert code == 0
    assert apart(report) == expected
    # the run stands in the lake, and its figures on the page
    code, report, _ = genodl(report_job, "--lake", other["--lake"], "--output", str(tmp_path / "page"))
    assert (code, report["metrics"]["calls"]) == (0, 1)
    page = (tmp_path / "page" / "index.html").read_text()
    assert f"<h2>Calls: {Path(other['--query']).name}</h2>" in page
    assert "0.333 [" in page and "Precision against recall by GQ: SNP recall 0.333" in page


def test_samples_and_genotypes_may_be_missing(
    files: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    query = written(tmp_path / "q.vcf", "chr1 5 A . 0/0; chr1 6 C <NON_REF> 0/0; chr1 7 A <DEL> 0/1; chr2 5 A G ./.")
    code, report, _ = run({**files, "--query": query}, capsys)
    assert code == 0
    assert report["metrics"]["counts"]["SNP"]["ALL"]["QUERY.TOTAL"] == 0
    assert report["metrics"]["model"]["snp_recall"]["value"] == 0
    assert report["warnings"] == [f"1 records of {query} are left out: alleles that are not spelled in bases"]


REFUSED = {
    "another reference": (
        "chr1 4 TA CG 0/1; chr1 5 G C 0/1",
        9,
        "found REF G at 1:5; expected A, as the reference has it",
    ),
    "no such contig": ("chr1 4 TA CG 0/1; chr3 5 A G 0/1", 9, "found contig chr3, which the reference lacks"),
    "beyond the end": ("chr2 60 A G 0/1", 8, "found REF at 2:60; expected it within the reference, which ends at 52"),
    "contigs in another order": ("chr2 5 A G 0/1; chr1 5 A G 0/1", 9, "found contig chr1 behind 2"),
    "not sorted": ("chr1 5 A G 0/1; chr1 4 T G 0/1", 9, "found POS 4 behind 5"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals_name_the_line(
    files: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    text, line, found = REFUSED[case]
    for side in ("--truth", "--query"):
        bad = written(tmp_path / "bad.vcf", text)
        code, report, last = run({**files, side: bad}, capsys)
        assert code == 2 and report["status"] == "failed"
        assert last.startswith(f"genodl: error: {bad}:{line}: {found}")


def test_refusals_of_files(files: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bed = tmp_path / "c.bed"
    bed.write_text("7\t0\t20\n")
    for changed, found in (
        ({"--confident": str(bed)}, f"{bed}: found contigs 7; expected those of the reference: 1, 2"),
        ({"--truth": str(tmp_path / "none.vcf")}, f"{tmp_path}/none.vcf: "),
        ({"--reference": files["--truth"]}, f"{files['--truth']}: found no FASTA"),
    ):
        code, _, last = run({**files, **changed}, capsys)
        assert code == 2 and last.startswith(f"genodl: error: {found}"), last


def test_the_word_calls_is_told_from_a_task(capsys: pytest.CaptureFixture[str]) -> None:
    assert not evaluate._asks_for_calls(["ancestry", "--cohort", "calls", "--lake", "x"])
    assert not evaluate._asks_for_calls(["--lake", "calls"])
    assert evaluate._asks_for_calls(["--lake", "x", "--query", "q", "calls", "--truth", "t"])
    assert evaluate.main(["calls", "--lake", "x", "--truth", "t"]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert "--query, --reference" in last
    assert evaluate.main(["calls", "--help"]) == 0
    assert "--confident" in capsys.readouterr().out
