"""Counts of calls against a truth, by hand; pieces, confident regions, filters, intervals, and bcftools beside."""

from __future__ import annotations

import itertools
import math
import random
from pathlib import Path

import numpy as np
import pysam.bcftools
import pytest

from genodl_spark.genetics.calling import evaluation
from genodl_spark.genetics.calling.evaluation import ALL, ANY, INDEL, PASS, SNP, Call, Piece, Tally, pieces, tallied
from genodl_spark.genetics.calling.matching import Variant

#            1        10        20        30        40        50
REFERENCE = b"GATTACAGCGTCAAAAAATGCGTCTCTCTCAGGTACCAGTTGACTTGCATGC"


def calls(text: str) -> list[Call]:
    """`POS REF ALT,ALT GT [QUALITY [FILTER [DEPTH]]]; ...`"""
    found = []
    for record in filter(None, map(str.strip, text.split(";"))):
        position, ref, alts, genotype, *words = record.split()
        quality, passed, depth = [*words, *("nan", "PASS", "-1")[len(words) :]]
        called = tuple(-1 if a == "." else int(a) for a in genotype.split("/"))
        variant = Variant(int(position), ref.encode(), tuple(a.encode() for a in alts.split(",")), called)
        found.append(Call(variant, passed == "PASS", float(quality), int(depth)))
    return found


def piece(truth: str, query: str, confident: list[tuple[int, int]] | None = None) -> Piece:
    regions = None if confident is None else np.array(confident, np.int64).reshape(-1, 2)
    return Piece("1", 1, REFERENCE, calls(truth), calls(query), regions)


def counted(tally: Tally, name: str = ALL) -> dict[str, dict[str, int]]:
    """Columns that are not 0, by type."""
    return {
        kind: {column: n for column in evaluation.COLUMNS if (n := tally.counts[name, kind, ANY, ANY, column])}
        for kind in (SNP, INDEL)
    }


def test_types_and_columns() -> None:
    tally = tallied(
        piece(
            "5 A G 0/1; 13 AA A 1/1; 23 TCTCT T,TCT 1/2; 40 TT CA 0/1",
            "5 A G 1/1; 17 AA A 1/1; 27 TCT T 0/1; 40 TT CA 0/1; 47 G A 0/1",
        )
    )
    assert counted(tally) == {
        SNP: {"TRUTH.TP": 1, "TRUTH.FN": 1, "QUERY.TP": 2, "QUERY.FP": 2, "FP.gt": 1, "FP.al": 1},
        INDEL: {"TRUTH.TP": 1, "TRUTH.FN": 1, "QUERY.TP": 1, "QUERY.FP": 1, "FP.al": 1},
    }
    assert counted(tally, PASS) == counted(tally, ALL)
    row = evaluation.metrics(tally, 0, "QUAL")["counts"][SNP][ALL]
    assert (row["TRUTH.TOTAL"], row["QUERY.TOTAL"]) == (2, 4)
    assert (row["METRIC.Recall"], row["METRIC.Precision"], row["METRIC.F1_Score"]) == (0.5, 0.5, 0.5)
    assert row["METRIC.Frac_NA"] == 0
    assert row["QUERY.TOTAL.TiTv_ratio"] == 3  # A>G, T>C and G>A; T>A
    assert row["QUERY.TOTAL.het_hom_ratio"] == 3


SUBTYPES = {
    "5 A G 0/1": (SNP, {"ti"}),
    "5 A T 0/1": (SNP, {"tv"}),
    "5 A G,T 1/2": (SNP, {"ti", "tv"}),
    "4 TAC CAA 1/1": (SNP, {"ti", "tv"}),
    "12 C CAAAAA 0/1": (INDEL, {"I1_5"}),
    "12 C CAAAAAA 0/1": (INDEL, {"I6_15"}),
    "12 C CAAAAAAAAAAAAAAAA 0/1": (INDEL, {"I16_PLUS"}),
    "12 CAAAAA C 0/1": (INDEL, {"D1_5"}),
    "12 CAAAAAA C 0/1": (INDEL, {"D6_15"}),
    "12 CAAAAAATGCGTCTCTCTCAG C 0/1": (INDEL, {"D16_PLUS"}),
    "12 CA C,CAA 1/2": (INDEL, {"D1_5", "I1_5"}),
    "12 CA C,TA 1/2": (INDEL, {"D1_5"}),
    "7 AGCGT TGCGTAA 0/1": (INDEL, {"C1_5"}),
}


@pytest.mark.parametrize("record", SUBTYPES)
def test_subtypes_of_the_truth(record: str) -> None:
    tally = tallied(piece(record, ""))
    kind, subtypes = SUBTYPES[record]
    found = {key[2] for key, n in tally.counts.items() if n and key[0] == ALL and key[1] == kind}
    assert found - {ANY} == subtypes
    assert counted(tally)[kind] == {"TRUTH.FN": 1}


def test_genotypes() -> None:
    text = "2 A G 0/1; 5 A G 1/1; 8 G A,C 1/2; 11 T C ./1; 20 G A 1; 40 T C,* 1/2"
    tally = tallied(piece(text, text))
    found = {key[3]: n for key, n in tally.counts.items() if key[:3] == (ALL, SNP, ANY) and key[4] == "TRUTH.TP"}
    assert found == {ANY: 6, "het": 2, "homalt": 1, "hetalt": 1, "halfcall": 1, "hemi": 1}


def test_confident_regions() -> None:
    """What overlaps them counts; an insertion where both bases beside it are inside, of the truth the one before."""
    inside = [(4, 5), (12, 13), (39, 40)]
    assert counted(tallied(piece("", "5 A G 0/1; 6 C T 0/1", inside)))[SNP] == {"QUERY.FP": 1, "QUERY.UNK": 1}
    assert counted(tallied(piece("", "4 TAC T 0/1", inside)))[INDEL] == {"QUERY.FP": 1}
    assert counted(tallied(piece("", "13 A AG 0/1", inside)))[INDEL] == {"QUERY.UNK": 1}
    assert counted(tallied(piece("", "13 A AG 0/1", [(12, 14)])))[INDEL] == {"QUERY.FP": 1}
    assert counted(tallied(piece("", "13 A AG 0/1", [(12, 13), (14, 20)])))[INDEL] == {"QUERY.UNK": 1}
    assert counted(tallied(piece("", "13 A AG 0/1", [(13, 20)])))[INDEL] == {"QUERY.UNK": 1}
    assert counted(tallied(piece("13 A AG 0/1", "13 A AG 0/1", inside)))[INDEL] == {"TRUTH.TP": 1, "QUERY.TP": 1}
    assert counted(tallied(piece("14 A AG 0/1", "14 A AG 0/1", inside)))[INDEL] == {"QUERY.UNK": 1}
    assert counted(tallied(piece("40 T C 0/1; 41 T C 0/1", "40 TT CC 0/1", inside)))[SNP] == {
        "TRUTH.TP": 1,
        "QUERY.TP": 1,
        "QUERY.UNK": 1,
    }
    assert counted(tallied(piece("5 A G 0/1", "5 A G 0/1", []))) == {SNP: {"QUERY.UNK": 1}, INDEL: {}}


def test_filters() -> None:
    """PASS matches anew what is left; truth that does not pass is none."""
    tally = tallied(
        piece(
            "5 A G 1/1; 20 G A 0/1; 40 T C 0/1 0 Silver",
            "5 A G 0/1 10 LowQual; 5 A G 0/1 10 PASS; 20 G A 0/1 20; 40 T C 0/1 30 LowQual",
        )
    )
    assert counted(tally, ALL)[SNP] == {"TRUTH.TP": 2, "QUERY.TP": 3, "QUERY.FP": 1}
    assert counted(tally, PASS)[SNP] == {"TRUTH.TP": 1, "TRUTH.FN": 1, "QUERY.TP": 1, "QUERY.FP": 1, "FP.gt": 1}


def test_scores_and_depths() -> None:
    tally = tallied(
        piece(
            "4 TA CG 0/1; 20 G A 0/1; 40 T C 0/1",
            "4 T C 0/1 30 PASS 7; 5 A G 0/1 50 PASS 12; 20 G A 0/1 99 PASS 30; 47 G A 0/1 40.9 PASS 100; 50 T C 0/1",
        )
    )
    found = evaluation.metrics(tally, 0, "GQ")
    assert found["curve"]["score"] == "GQ"
    assert found["curve"][ALL][SNP] == [
        [0, pytest.approx(2 / 3), 3 / 5],  # one without a score
        [30, pytest.approx(2 / 3), 3 / 4],  # the truth's MNV counts with the lower score of its parts
        [40, pytest.approx(1 / 3), 2 / 3],
        [50, pytest.approx(1 / 3), 1],
        [99, pytest.approx(1 / 3), 1],
    ]
    assert found["depth"][PASS][SNP] == {
        "5-9": {"QUERY.TP": 1, "QUERY.FP": 0, "METRIC.Precision": 1},
        "10-14": {"QUERY.TP": 1, "QUERY.FP": 0, "METRIC.Precision": 1},
        "30-39": {"QUERY.TP": 1, "QUERY.FP": 0, "METRIC.Precision": 1},
        "100+": {"QUERY.TP": 0, "QUERY.FP": 1, "METRIC.Precision": 0},
    }


def test_a_long_curve_keeps_some_of_its_points() -> None:
    tally = Tally()
    tally.counts[ALL, SNP, ANY, ANY, "TRUTH.TP"] = 300
    for score in range(300):
        tally.scores[ALL, SNP, "TRUTH.TP", score] = 1
        tally.scores[ALL, SNP, "QUERY.TP", score] = 1
        tally.scores[ALL, SNP, "QUERY.FP", score] = int(score < 150)
    found = evaluation.curve(tally, ALL, SNP)
    assert 25 < len(found) <= 50
    assert found[0] == [0, 1, pytest.approx(2 / 3)] and found[-1] == [299, pytest.approx(1 / 300), 1]
    for score, recall, precision in found:
        assert recall == pytest.approx((300 - score) / 300)
        assert precision == pytest.approx((300 - score) / (300 - score + max(0, 150 - score)))


def test_nothing_to_count() -> None:
    found = evaluation.metrics(tallied(piece("", "")), 0, "QUAL")
    assert found["n_test"] == 0
    assert found["model"]["snp_f1"] == {"value": None, "low": None, "high": None}
    assert found["counts"][INDEL][PASS]["METRIC.Recall"] is None
    assert found["curve"][ALL] == {SNP: [], INDEL: []}


def randomly(seed: int, count: int = 400, every: int = 150) -> tuple[bytes, list[tuple[int, str, Call]], list]:
    """A reference, and SNVs and indels of a truth and a query that lacks some and has others."""
    chance = random.Random(seed)
    reference = bytes(chance.choice(b"ACGT") for _ in range(count * every + 3000))
    truth, query, at = [], [], 1000
    for _ in range(count):
        at += chance.randrange(3, 2 * every)
        ref = reference[at - 1 : at - 1 + chance.choice([1, 1, 1, 3])]
        alts = [bytes([b]) for b in b"ACGT" if b != ref[0]] if len(ref) == 1 else [ref[:1]]
        call = Call(
            Variant(at, ref, (chance.choice(alts),), chance.choice([(0, 1), (1, 1)])), True, chance.randrange(99), 30
        )
        kind = chance.random()
        if kind < 0.9:
            truth.append((0, "1", call))
        if kind > 0.05:
            passed = chance.random() < 0.9
            query.append((0, "1", Call(call.variant, passed, call.score, call.depth)))
    return reference, truth, query


def test_pieces_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces of any size, in any order, sum up to the same; windows grow the same way."""
    reference, truth, query = randomly(3, 200, 1200)
    monkeypatch.setattr(evaluation, "WINDOWS", 30)
    results = []
    for size, turn in itertools.product((1, 50, 10**6), (1, -1)):
        monkeypatch.setattr(evaluation, "_PIECE", size)
        cut = list(pieces(truth, query))
        assert [call for _, side, _ in cut for call in side] == [call for _, _, call in truth]
        assert (len(cut) > 1) == (size < 10**6)
        tally = Tally()
        for contig, one, other in cut[::turn]:
            tally.add(tallied(Piece(contig, 1, reference, one, other, None)))
        results.append(evaluation.metrics(tally, 7, "GQ"))
    assert all(result == results[0] for result in results)
    assert results[0]["window"] == 10_000
    model = results[0]["model"]["snp_f1"]
    assert 0 < model["low"] < model["value"] < model["high"] < 1


def test_windows_of_two_sizes_add_up() -> None:
    def tally(size: int, *numbers: int) -> Tally:
        made = Tally(window=size)
        made.windows = {("1", number): np.arange(8) for number in numbers}
        return made

    for order in (1, -1):
        one, other = [tally(1000, 3, 12, 14), tally(10_000, 1, 2)][::order]
        one.add(other)
        assert one.window == 10_000
        assert {key: row.tolist() for key, row in one.windows.items()} == {
            ("1", 0): [*range(8)],
            ("1", 1): [3 * n for n in range(8)],
            ("1", 2): [*range(8)],
        }


def test_contigs_are_pieces_of_their_own() -> None:
    call = calls("5 A G 0/1")[0]
    found = list(pieces([(0, "1", call), (2, "3", call)], [(1, "2", call), (2, "3", call)]))
    assert [(contig, len(one), len(other)) for contig, one, other in found] == [("1", 1, 0), ("2", 0, 1), ("3", 1, 1)]


def test_intervals_cover_what_is_estimated() -> None:
    """Of 60 genomes with a true recall of 0.8, some 95 % of intervals hold it."""
    held = 0
    for seed in range(60):
        chance = np.random.default_rng(seed)
        tally = Tally()
        for window in range(80):
            row = np.zeros(8, np.int64)
            row[0] = chance.binomial(10, 0.8)
            row[1], row[2] = 10 - row[0], 10
            tally.windows["1", window] = row
        found = evaluation.metrics(tally, seed, "GQ")["model"]
        held += found["snp_recall"]["low"] <= 0.8 <= found["snp_recall"]["high"]
        assert found["snp_precision"] == {"value": 1, "low": 1, "high": 1}
        assert math.isclose(
            found["snp_f1"]["value"], 2 * found["snp_recall"]["value"] / (1 + found["snp_recall"]["value"])
        )
    assert 52 <= held <= 60


def test_bcftools_agrees_where_writing_does_not_matter(tmp_path: Path) -> None:
    """Simple variants far from each other: norm and isec by alleles and genotypes find the same."""
    reference, truth, query = randomly(11, 300, 200)
    fasta = tmp_path / "r.fa"
    fasta.write_bytes(b">1\n" + reference + b"\n")
    head = (
        f"##fileformat=VCFv4.2\n##contig=<ID=1,length={len(reference)}>\n"
        '##FORMAT=<ID=GT,Number=1,Type=String,Description="G">\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\ts\n'
    )
    sites: list[set[tuple]] = []
    for name, side in (("t", truth), ("q", query)):
        path = tmp_path / f"{name}.vcf"
        rows = [
            f"1\t{c.variant.position}\t.\t{c.variant.ref.decode()}\t{c.variant.alts[0].decode()}\t.\tPASS\t.\tGT\t"
            f"{c.variant.genotype[0]}/{c.variant.genotype[1]}\n"
            for _, _, c in side
        ]
        path.write_text(head + "".join(rows))
        out = str(tmp_path / f"{name}.norm.vcf.gz")
        pysam.bcftools.norm("-f", str(fasta), "-Oz", "-o", out, str(path), catch_stdout=False)
        pysam.bcftools.index(out, catch_stdout=False)
    shared = tmp_path / "shared"
    pysam.bcftools.isec(
        "-p", str(shared), str(tmp_path / "t.norm.vcf.gz"), str(tmp_path / "q.norm.vcf.gz"), catch_stdout=False
    )
    for name in ("0002.vcf", "0003.vcf"):
        with pysam.VariantFile(str(shared / name)) as file:
            sites.append({(r.pos, r.ref, r.alts, r.samples[0]["GT"]) for r in file})
    tally = Tally()
    for contig, one, other in pieces(truth, query):
        tally.add(tallied(Piece(contig, 1, reference, one, other, None)))
    matched = sum(counted(tally)[kind]["TRUTH.TP"] for kind in (SNP, INDEL))
    assert matched == len(sites[0] & sites[1]) > 200
    assert sum(counted(tally)[kind]["TRUTH.FN"] for kind in (SNP, INDEL)) == len(truth) - matched
    assert sum(counted(tally)[kind]["QUERY.FP"] for kind in (SNP, INDEL)) == len(query) - matched
