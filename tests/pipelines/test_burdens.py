"""Burdens of genes: added up by hand, and of an annotated cohort as features and as covariates."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from genodl_spark.core.errors import InputError
from genodl_spark.features.burdens import BurdenFeatures, burdens
from genodl_spark.features.covariates import WithCovariates
from genodl_spark.features.genotypes import GenotypeFeatures
from genodl_spark.lake.delta import Lake
from genodl_spark.lake.snapshot import Snapshot
from jobs import annotate, forget, ingest, prepare

NAN = float("nan")


def test_called_copies_are_added_up() -> None:
    x = np.array([[0, 1, 2, -1], [-1, -1, 1, -1], [127, 127, 127, 0]], np.int8)
    site, feature = np.array([2, 0, 1, 3, 0]), np.array([4, 0, 0, 2, 4])  # site 0 counts for two features
    expected = [[1, NAN, NAN, NAN, 2], [NAN, NAN, NAN, NAN, 1], [254, NAN, 0, NAN, 254]]
    found = burdens(x, site, feature, 5)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, np.array(expected, np.float32))
    assert np.isnan(burdens(x, np.zeros(0, int), np.zeros(0, int), 2)).all()


def _gene(name: str, symbol: str, first: int) -> str:
    """A transcript ATG AAA CGG TAA, 20 bases of untranslated region on both sides of it."""
    fields = f'gene_id "{name}"; gene_name "{symbol}"; transcript_id "T{name}"; transcript_biotype "protein_coding";'
    parts = [("exon", -20, 31, "."), ("CDS", 0, 8, "0"), ("stop_codon", 9, 11, "0")]
    return "".join(f"20\tx\t{kind}\t{first + a}\t{first + b}\t.\t+\t{phase}\t{fields}\n" for kind, a, b, phase in parts)


def _vcf(path: Path, people: str, records: list[str]) -> str:
    head = ["##fileformat=VCFv4.2", "\t".join(["#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT", *people])]
    lines = [f"chr20\t{pos}\t.\t{ref}\t{alt}\t.\t.\t.\tGT\t{calls}" for pos, ref, alt, *rest in map(str.split, records)
             for calls in ["\t".join(rest)]]  # fmt: skip
    path.write_text("\n".join([*head, *lines]) + "\n")
    return str(path)


def _values(rows) -> dict[str, list[float]]:
    return {row.entity_id: np.frombuffer(row.x, np.float32).tolist() for row in rows.collect()}


def test_burdens_of_an_annotated_cohort(genodl, lake: Lake, tmp_path: Path) -> None:
    genome = bytearray(b"C" * 30_000)
    for first in (10_001, 20_001):
        genome[first - 1 : first + 11] = b"ATGAAACGGTAA"
    (tmp_path / "g.fa").write_text(f">20\n{genome.decode()}\n")
    (tmp_path / "g.gtf").write_text(_gene("G1", "ONE", 10_001) + _gene("G2", "TWO", 20_001))
    at = ("--lake", lake.uri)
    genodl(ingest, "reference", str(tmp_path / "g.fa"), "--cohort", "a", *at)
    genodl(ingest, "annotations", str(tmp_path / "g.gtf"), "--cohort", "a", *at)
    joint = [
        "10004 A T,G 0/1 2/2 ./. 0/0",  # AAA of ONE: T a stop, G a missense
        "10008 G A 0/0 0/1 1/1 ./.",  # CGG: CAG, missense
        "10008 G A ./. ./. 0/1 0/1",  # the same site again: what is called counts, once
        "20009 G A 1|1 .|. 0|1 0|0",  # CGG of TWO: CGA, synonymous
    ]
    genodl(ingest, "vcf", _vcf(tmp_path / "joint.vcf", "abcd", joint), "--cohort", "c", *at)
    alone = ["20004 A T 0/1", "20009 G A 1/1"]  # a call set of its own for b, of whom one site was missing
    code, *_ = genodl(ingest, "vcf", _vcf(tmp_path / "b.vcf", "b", alone), "--cohort", "c", *at)
    assert code == 0
    features = BurdenFeatures()
    assert features.cohorts(Snapshot(lake)) == []
    assert genodl(annotate, "--cohort", "c", *at)[0] == 0
    snapshot = Snapshot(lake)
    assert (features.cohorts(snapshot), features.entities(snapshot, "c")) == (["c"], ["a", "b", "c", "d"])
    learns = np.array([[True, True, True, True], [False, False, True, True]])
    choice = features.choose(snapshot, "c", ["a", "b", "c", "d"], learns)
    assert choice.names == ["G1:lof", "G1:missense", "G2:lof", "G2:synonymous"]
    assert choice.allowed is not None and choice.allowed.tolist() == [[True] * 4, [False, True, False, True]]
    rows = features.rows(snapshot, "c", [*choice.names, "G2:missense", "TWO:stop_gained", "NONE:lof"])
    assert sorted({row.missing for row in rows.collect()}) == [1]
    expected = {
        "a": [1, 0, NAN, 2, 0, NAN, NAN],
        "b": [0, 3, 1, 2, 0, 1, NAN],
        "c": [NAN, 2, NAN, 1, 0, NAN, NAN],
        "d": [0, 1, NAN, 0, 0, NAN, NAN],
    }
    assert {name: np.nan_to_num(x, nan=-1).tolist() for name, x in _values(rows).items()} == {
        name: np.nan_to_num(x, nan=-1).tolist() for name, x in expected.items()
    }
    both = WithCovariates(GenotypeFeatures(), ["burden:ONE:missense", "burden:G1:lof"])
    names = ["20:10004:A:T", "covariate:burden:ONE:missense", "covariate:burden:G1:lof"]
    chosen = both.choose(snapshot, "c", ["a", "b", "c", "d"], learns)
    assert chosen.names[-2:] == names[1:] and "consequences" in [table.name for table in both.tables]
    made = {name: np.nan_to_num(x, nan=-1).tolist() for name, x in _values(both.rows(snapshot, "c", names)).items()}
    assert made == {"a": [1, 0, 1], "b": [0, 3, 0], "c": [-1, 2, -1], "d": [0, 1, 0]}
    for asked, said in (
        ("THREE:lof", "found no gene 'THREE' in the consequences of cohort c: THREE asked for, G1, G2, ONE there"),
        ("ONE:harmful", "found 'harmful' as a class of consequences; expected one of lof, missense, synonymous"),
    ):
        with pytest.raises(InputError, match=said):
            WithCovariates(GenotypeFeatures(), [f"burden:{asked}"]).choose(snapshot, "c", ["a"], learns[:, :1])
    (tmp_path / "s.tsv").write_text("sample_id\tvalue\na\t1\nb\t2\nc\t3\nd\t4\n")
    more = _vcf(tmp_path / "late.vcf", "abcd", ["25000 C A 0/0 0/1 0/0 0/0"])
    code, *_ = genodl(ingest, "vcf", more, "--samples", str(tmp_path / "s.tsv"), "--cohort", "c", *at)
    assert code == 0
    code, _, told = genodl(prepare, "gene_burden", "--label", "value", "--set", "split.folds=2", *at)
    assert code == 2 and "found no consequences of 20:25000:C:A" in told and "genodl annotate again" in told
    assert genodl(forget, "--cohort", "c", "--sample", "b", *at)[0] == 0
    assert genodl(annotate, "--cohort", "c", *at)[0] == 0
    code, report, _ = genodl(prepare, "gene_burden", "--label", "value", "--set", "split.folds=2", *at)
    assert code == 0 and report["rows"]["examples"]["written"] == 3
