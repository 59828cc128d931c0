"""Quality control through the command line: tables against plain NumPy over the genotypes that were written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from genodl_spark.lake.delta import Lake
from genodl_spark.lake.tables.genetics import LD_PRUNED, PRINCIPAL_COMPONENTS, RELATEDNESS, SAMPLE_QC, VARIANT_QC
from jobs import ingest, qc

HEAD = "".join(
    f'##FORMAT=<ID={key},Number=1,Type={kind},Description="x">\n' for key, kind in (("GT", "String"), ("DP", "Integer"))
)
TEXTS = np.array(["./.", "0/0", "0/1", "1/1"])


def write(path: Path, names: list[str], dosages: np.ndarray, depth: np.ndarray, repeated: int = 0) -> str:
    """A VCF of dosages (sites, samples), -1 missing; every `repeated`-th site has two records."""
    lines = [
        "##fileformat=VCFv4.2\n" + HEAD + "\t".join(["#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT", *names])
    ]
    for row, (calls, reads) in enumerate(zip(dosages, depth, strict=True)):
        samples = "\t".join(f"{TEXTS[c + 1]}:{d}" for c, d in zip(calls, reads, strict=True))
        lines += [f"chr{1 + (row >= 100)}\t{row + 1}\t.\tA\t{'GC'[row % 2]}\t.\t.\t.\tGT:DP\t{samples}"] * (
            2 if repeated and row % repeated == 0 else 1
        )
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def test_a_cohort_in_two_files(genodl, lake: Lake, tmp_path: Path) -> None:
    generator = np.random.default_rng(3)
    frequency = np.concatenate([np.full(150, 0.4), np.full(50, 0.05)])[:, None]
    dosages = generator.binomial(2, frequency, (200, 30))
    dosages[:, 1] = dosages[:, 0]  # a twin
    dosages[::17, 4] = -1
    depth = generator.integers(0, 90, dosages.shape)
    names = [f"s{i:02}" for i in range(30)]
    common = ("--lake", lake.uri, "--cohort", "c")
    one = write(tmp_path / "a.vcf", names[:20], dosages[:, :20], depth[:, :20])
    two = write(tmp_path / "b.vcf", names[20:], dosages[:, 20:], depth[:, 20:])
    assert genodl(ingest, "vcf", one, two, *common)[0] == 0
    chosen = ("--set", "qc.min_allele_frequency=0.2", "--set", "qc.components=2", "--set", "qc.r2=0.9")
    code, report, line = genodl(qc, *common, *chosen)
    assert (code, report["status"]) == (0, "done"), line

    variants = lake.read(VARIANT_QC).orderBy("pos").collect()
    assert [(v.contig, v.pos, v.alt, v.substitution) for v in variants[99:101]] == [
        ("1", 100, "C", "transversion"),
        ("2", 101, "G", "transition"),
    ]
    expected = np.stack([(dosages == k).sum(1) for k in (0, 1, 2, -1)], 1)
    np.testing.assert_array_equal([[v.hom_ref, v.het, v.hom_alt, v.missing] for v in variants], expected)
    np.testing.assert_array_equal(
        [(v.ac, v.an) for v in variants], np.stack([expected @ [0, 1, 2, 0], 2 * expected[:, :3].sum(1)], 1)
    )
    np.testing.assert_allclose([v.mean_depth for v in variants], depth.mean(1))
    for v in variants[::40]:  # the exact test is the sum over all tables as likely or less
        n, rare = v.hom_ref + v.het + v.hom_alt, min(v.ac, v.an - v.ac)
        hets = np.arange(rare % 2, rare + 1, 2)
        logs = [
            stats.multinomial.logpmf([(rare - h) // 2, h, n - h - (rare - h) // 2], n, [0.25, 0.5, 0.25]) for h in hets
        ]
        p = np.exp(np.array(logs) - max(logs))
        assert v.hwe_p == pytest.approx((p[p <= p[hets == v.het] * (1 + 1e-9)] / p.sum()).sum(), rel=1e-6)

    samples = {s.sample_id: s for s in lake.read(SAMPLE_QC).collect()}
    assert sorted(samples) == names
    np.testing.assert_array_equal([samples[n].het for n in names], (dosages == 1).sum(0))
    np.testing.assert_array_equal([samples[n].missing for n in names], (dosages == -1).sum(0))
    np.testing.assert_allclose([samples[n].mean_depth for n in names], depth.mean(0))

    [pair, *_] = lake.read(RELATEDNESS).orderBy("kinship", ascending=False).collect()
    assert (pair.sample_1, pair.sample_2, pair.relation, pair.ibs0, pair.kinship) == (
        "s00",
        "s01",
        "duplicate",
        0,
        pytest.approx(0.5),
    )
    kept = {p.pos for p in lake.read(LD_PRUNED).collect()}
    rarer = np.minimum(expected @ [0, 1, 2, 0], expected @ [2, 1, 0, 0]) / (2 * expected[:, :3].sum(1))
    assert kept == set((np.flatnonzero((rarer >= 0.2) & (expected[:, 3] <= 3)) + 1).tolist())
    used = dosages[sorted(p - 1 for p in kept)]
    known = used >= 0
    p = np.where(known, used, 0).sum(1) / (2 * known.sum(1))
    z = np.where(known, (used - 2 * p[:, None]) / np.sqrt(2 * p * (1 - p))[:, None], 0)
    values, vectors = np.linalg.eigh(z.T @ z / len(z))
    found = {c.sample_id: c.components for c in lake.read(PRINCIPAL_COMPONENTS).collect()}
    assert abs(np.array([found[n][0] for n in names]) @ vectors[:, -1]) == pytest.approx(1, abs=1e-4)
    assert report["metrics"]["components"]["eigenvalue_1"] == pytest.approx(values[-1], rel=1e-4)

    code, report, _ = genodl(qc, *common, *chosen)
    assert (code, report["status"], report["rows"]["variant_qc"]) == (
        0,
        "unchanged",
        {"written": 0, "total": 200, "quarantined": 0},
    )


def test_a_site_of_two_records_counts_once(genodl, lake: Lake, tmp_path: Path) -> None:
    generator = np.random.default_rng(5)
    dosages = generator.binomial(2, generator.uniform(0.2, 0.5, (120, 1)), (120, 12))
    names, found = [f"s{i:02}" for i in range(12)], {}
    # A cohort may have the name of a table.
    for cohort, repeated in (("once", 0), ("variants", 3)):
        file = write(tmp_path / f"{cohort}.vcf", names, dosages, dosages, repeated)
        common = ("--lake", lake.uri, "--cohort", cohort)
        assert genodl(ingest, "vcf", file, *common)[0] == 0
        chosen = (
            "--set",
            "qc.steps=relatedness,components",
            "--set",
            "qc.pruned=",
            "--set",
            "qc.components=2",
            "--set",
            "qc.kinship=-10",
        )
        code, report, line = genodl(qc, *common, *chosen)
        assert code == 0, line
        pairs = lake.read(RELATEDNESS).where(f"cohort = '{cohort}'").orderBy("sample_1", "sample_2").collect()
        axes = lake.read(PRINCIPAL_COMPONENTS).where(f"cohort = '{cohort}'").orderBy("sample_id").collect()
        found[cohort] = (
            report["metrics"]["components"]["variants"],
            [(p.sample_1, p.sample_2, p.variants, p.het_het, p.ibs0, p.kinship) for p in pairs],
            np.array([a.components for a in axes]),
        )
    assert found["once"][0] == found["variants"][0] == ((dosages > 0).any(1) & (dosages < 2).any(1)).sum()
    assert len(found["once"][1]) == 66 and found["once"][1] == found["variants"][1]
    np.testing.assert_allclose(np.abs(found["once"][2]), np.abs(found["variants"][2]), atol=1e-5)
