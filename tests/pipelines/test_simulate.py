"""Simulated cohorts, read back by cyvcf2 and pysam."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import cyvcf2
import numpy as np
import pysam
import pytest

from genodl_spark.formats import bgzf
from genodl_spark.formats.streams import BGZF_END
from genodl_spark.pipelines.simulate import DEPTH, READ_ERROR
from jobs.simulate import main


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, dict, str]:
    code = main(["cohort", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, json.loads(captured.out.splitlines()[-1]), captured.err


def test_a_cohort_is_read_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "c.vcf.gz"
    code, report, _ = run(capsys, "--samples", 31, "--length", 200_000, "--output", out, "--seed", 7)
    assert (code, report["status"], report["metrics"]["samples"]) == (0, "done", 31)
    table = [line.split("\t") for line in (tmp_path / "new" / "c.samples.tsv").read_text().splitlines()]
    assert table[0] == ["sample_id", "population"]
    assert [sum(p == name for _, p in table[1:]) for name in ("AFR", "EUR", "EAS")] == [11, 10, 10]
    vcf = cyvcf2.VCF(str(out), threads=1)
    assert vcf.samples == [name for name, _ in table[1:]]
    assert vcf.seqlens == [200_000]
    positions, alternatives = [], 0
    for record in vcf:
        assert record.REF in "ACGT" and len(record.ALT) >= 1 and record.REF not in record.ALT
        assert len(set(record.ALT)) == len(record.ALT)
        calls = record.genotype.array()
        assert calls.shape == (31, 3) and calls[:, 2].all()  # phased
        assert (
            set(range(1, len(record.ALT) + 1)) <= set(calls[:, :2].ravel().tolist()) <= set(range(len(record.ALT) + 1))
        )
        positions.append(record.POS)
        alternatives += len(record.ALT)
    assert len(positions) == report["metrics"]["variants"] > 300
    assert all(a < b for a, b in itertools.pairwise(positions))
    assert positions[0] >= 1 and positions[-1] <= 200_000
    assert sorted(p.name for p in out.parent.iterdir()) == ["c.samples.tsv", "c.vcf.gz"]
    assert report["metrics"]["bytes"] == out.stat().st_size
    pysam.tabix_index(str(out), preset="vcf", keep_original=True)  # takes blocked gzip only


def test_the_populations_differ_as_the_model_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Diversity: highest in Africa, lowest in East Asia; Africans farther from either than these from each other."""
    out = tmp_path / "c.vcf.gz"
    run(capsys, "--samples", 60, "--length", 1_000_000, "--output", out)
    counts = np.array([(r.genotype.array()[:, :2] > 0).sum(1) for r in cyvcf2.VCF(str(out)) if len(r.ALT) == 1])
    frequency = {name: counts[:, i * 20 : i * 20 + 20].mean(1) / 2 for i, name in enumerate(("AFR", "EUR", "EAS"))}
    diversity = {name: float((2 * p * (1 - p) * 40 / 39).sum() / 1e6) for name, p in frequency.items()}
    assert diversity["AFR"] > diversity["EUR"] > diversity["EAS"]
    assert 0.0007 < diversity["AFR"] < 0.0014
    apart = {
        (a, b): float(((frequency[a] - frequency[b]) ** 2).sum())
        for a, b in (("AFR", "EUR"), ("AFR", "EAS"), ("EUR", "EAS"))
    }
    assert apart["EUR", "EAS"] < min(apart["AFR", "EUR"], apart["AFR", "EAS"])


def test_the_seed_decides_the_bytes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [tmp_path / name for name in ("a.vcf.gz", "b.vcf.gz", "c.vcf.gz")]
    for file, seed in zip(files, (3, 3, 4), strict=True):
        run(capsys, "--samples", 5, "--length", 50_000, "--output", file, "--seed", seed)
    assert files[0].read_bytes() == files[1].read_bytes()
    assert files[0].read_bytes() != files[2].read_bytes()
    stamp = files[0].stat().st_mtime_ns
    assert (
        run(capsys, "--samples", 5, "--length", 50_000, "--output", files[0], "--seed", 3)[1]["status"] == "unchanged"
    )
    assert files[0].stat().st_mtime_ns == stamp
    assert run(capsys, "--samples", 5, "--length", 50_000, "--output", files[0], "--seed", 4)[1]["status"] == "done"
    assert files[0].read_bytes() == files[2].read_bytes()


def test_rich_records_hold_the_reads_of_the_same_genotypes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain, rich = tmp_path / "plain.vcf.gz", tmp_path / "rich.vcf.gz"
    common = ("--samples", 60, "--length", 200_000, "--seed", 7)
    run(capsys, *common, "--output", plain)
    code, report, _ = run(capsys, *common, "--output", rich, "--fields", "rich")
    assert (code, report["status"]) == (0, "done")
    alleles, depths, balance = [], [], []
    for bare, record in zip(cyvcf2.VCF(str(plain)), cyvcf2.VCF(str(rich)), strict=True):
        assert str(record).split("\t")[8] == "GT:AD:DP:GQ:PL"
        assert (bare.POS, bare.REF, bare.ALT) == (record.POS, record.REF, record.ALT)
        calls = record.genotype.array()
        np.testing.assert_array_equal(bare.genotype.array(), calls)
        reads, depth, pl = record.format("AD"), record.format("DP")[:, 0], record.format("PL")
        assert reads.shape == (60, 1 + len(record.ALT)) and (reads >= 0).all()
        np.testing.assert_array_equal(reads.sum(1), depth)
        assert (pl.min(1) == 0).all()
        np.testing.assert_array_equal(record.format("GQ")[:, 0], np.minimum(np.sort(pl, 1)[:, 1], 99))
        for sample in (0, 33, 59):
            assert np.abs(pl[sample] - likelihoods(reads[sample])).max() <= 1  # either rounds
        alleles.append(reads.shape[1])
        depths += depth.tolist()
        balance += [row[a] / row.sum() for row, (a, b, _) in zip(reads, calls, strict=True) if a != b]
    assert set(alleles) >= {2, 3}
    assert np.mean(depths) == pytest.approx(DEPTH, abs=0.2)
    assert np.var(depths) == pytest.approx(DEPTH, rel=0.05)
    assert np.mean(balance) == pytest.approx(0.5, abs=0.01)
    again = tmp_path / "again.vcf.gz"
    run(capsys, *common, "--output", again, "--fields", "rich")
    assert again.read_bytes() == rich.read_bytes()
    assert run(capsys, *common, "--output", again)[1]["status"] == "done"  # other fields are another file
    assert again.read_bytes() == plain.read_bytes()


def likelihoods(reads: np.ndarray) -> np.ndarray:
    """PL by its definition: genotypes in the specification's order, a read comes from either allele
    alike and is wrong at times."""

    def seen(read: int, allele: int) -> float:
        return 1 - READ_ERROR if read == allele else READ_ERROR / (len(reads) - 1)

    genotypes = [(a, b) for b in range(len(reads)) for a in range(b + 1)]
    each = [
        -10 * sum(n * math.log10((seen(r, a) + seen(r, b)) / 2) for r, n in enumerate(reads.tolist()))
        for a, b in genotypes
    ]
    return np.array(each) - min(each)


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (["--samples", "0", "--length", "10", "--output", "x.vcf.gz"], "--samples: found 0"),
        (["--samples", "3", "--length", "-1", "--output", "x.vcf.gz"], "--length: found -1"),
        (["--samples", "3", "--length", "10", "--output", "x.vcf"], "--output: found 'x.vcf'"),
        (["--samples", "three", "--length", "10", "--output", "x.vcf.gz"], "--samples: invalid int value: 'three'"),
        (["--samples", "3", "--length", "10", "--output", "x.vcf.gz", "--seed", "-1"], "--seed: found -1"),
        (["--length", "10", "--output", "x.vcf.gz"], "--samples"),
        (
            ["--samples", "3", "--length", "10", "--output", "x.vcf.gz", "--fields", "all"],
            "--fields: invalid choice: 'all'",
        ),
    ],
)
def test_wrong_arguments(
    arguments: list[str],
    found: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    code, report, err = run(capsys, *arguments)
    assert (code, report["status"]) == (2, "failed")
    assert err.startswith("genodl: error: ") and err.count("\n") == 1
    assert found in err
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_write_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: bgzf.Writer) -> None:
        raise KeyError("stopped")

    with monkeypatch.context() as patched:
        patched.setattr(bgzf.Writer, "close", broken)
        assert run(capsys, "--samples", 2, "--length", 1000, "--output", tmp_path / "c.vcf.gz")[0] == 1
    assert list(tmp_path.iterdir()) == []
    assert run(capsys, "--samples", 2, "--length", 1000, "--output", tmp_path / "c.vcf.gz")[1]["status"] == "done"


def test_blocks(tmp_path: Path) -> None:
    assert bgzf.block(b"") == BGZF_END
    noise = np.random.default_rng(0).bytes(3 * bgzf.BLOCK + 5)
    with (tmp_path / "n.gz").open("wb") as raw:
        out = bgzf.Writer(raw)
        for start in range(0, len(noise), 1000):
            out.write(noise[start : start + 1000])
        out.close()
    with pysam.BGZFile(str(tmp_path / "n.gz")) as read:
        assert read.read() == noise
