"""Alleles that are no bases: what kind each is, and terms by place."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from genodl_spark.genome import structural
from genodl_spark.genome.codons import code_of
from genodl_spark.genome.consequences import Stretch, Variants, consequences
from tests.genome.test_consequences import transcripts_of


def test_kinds_of_alleles() -> None:
    expected = {
        structural.SPELLED: ["C", "acgtn", "CAN"],
        structural.DELETION: ["<DEL>", "<DEL:ME:ALU>", "<CN0>"],
        structural.DUPLICATION: ["<DUP>", "<DUP:TANDEM>", "<CN2>", "<CN12>"],
        structural.INSERTION: ["<INS>", "<INS:ME>"],
        structural.INVERSION: ["<INV>"],
        structural.COPIES: ["<CNV>", "<CNV:TR>"],
        structural.BREAKEND: ["G]17:198982]", "]13:123456]T", "[17:198983[A", "G.", ".TGCA"],
        structural.UNKNOWN: ["<TRA>", "<DELETED>", "<CN>"],
        structural.NONE: ["*", "<*>", "<NON_REF>", "<CN1>", "g", "."],
    }
    pairs = [(kind, alt) for kind, alts in expected.items() for alt in alts]
    ref = pa.array(["G"] * len(pairs))
    assert structural.kinds(ref, pa.array([alt for _, alt in pairs])).tolist() == [kind for kind, _ in pairs]


def _found(pos: int, alt: str, end: int) -> tuple[dict[str, str], str | None]:
    """Terms by transcript, and the note: of a coding transcript of exons 101-200 and 301-400, coding region 151-350,
    and one without on the other strand, 391-450."""
    coding = {"transcript_id": "C", "gene_id": "G", "strand": "+"}
    rows: list[dict[str, object]] = [{**coding, "type": "exon", "start": a, "end": a + 99} for a in (101, 301)]
    rows += [{**coding, "type": "CDS", "start": a, "end": a + 49, "phase": 0} for a in (151, 301)]
    rows.append({"transcript_id": "N", "gene_id": "H", "strand": "-", "type": "exon", "start": 391, "end": 450})
    alts = pa.array([alt])
    kind = structural.kinds(pa.array(["A"]), alts)
    start, last, kind, note = structural.placed(np.array([pos]), np.array([end]), alts, kind)
    variants = Variants.of_stretches(start, last, kind)
    table = consequences(variants, transcripts_of(rows), Stretch(0, np.zeros(0, np.int8)), code_of("1"))
    for name in ("codons", "amino_acids", "hgvs_c", "hgvs_p"):
        assert table[name].null_count == len(table)
    terms = {row["transcript_id"] or "": " ".join(row["terms"]) for row in table.to_pylist()}
    return terms, note[0].as_py()


def test_terms_by_place() -> None:
    near = "upstream_gene_variant"  # of N, on the other strand
    gone = "transcript_ablation"
    assert _found(100, "<DEL>", 400) == (
        {"C": gone, "N": "feature_truncation non_coding_transcript_exon_variant"}, None)  # fmt: skip
    assert _found(50, "<DEL>", 500) == ({"C": gone, "N": gone}, None)
    beside = {"N": "downstream_gene_variant"}
    within = "splice_acceptor_variant splice_donor_variant feature_truncation splice_donor_5th_base_variant"
    terms, _ = _found(180, "<DEL>", 310)  # an intron with both its ends
    assert terms["C"].startswith(within) and terms["C"].endswith("coding_sequence_variant intron_variant")
    assert _found(220, "<DEL>", 240) == ({"C": "feature_truncation intron_variant", **beside}, None)
    assert _found(160, "<DUP>", 170) == ({"C": "feature_elongation coding_sequence_variant", **beside}, None)
    assert _found(50, "<DUP:TANDEM>", 440)[0]["C"] == "transcript_amplification"
    assert _found(50, "<DUP>", 120)[0]["C"] == "5_prime_UTR_variant"
    assert _found(120, "<INS:ME:ALU>", 120) == ({"C": "feature_elongation 5_prime_UTR_variant", **beside}, None)
    whole = "coding_sequence_variant 5_prime_UTR_variant 3_prime_UTR_variant intron_variant"
    assert _found(50, "<INV>", 600) == ({"C": whole, "N": "non_coding_transcript_exon_variant"}, None)
    assert _found(50, "<CNV>", 120)[1] == "how many copies there are is not known"
    assert _found(250, "A[2:9[", 250) == (
        {"C": "intron_variant", **beside}, "what this end of a breakend does")  # fmt: skip
    assert _found(460, "<DEL>", 470)[0] == {"C": "downstream_gene_variant", "N": near}
    assert _found(160, "<DEL>", 160) == ({"": "sequence_variant"}, "neither END nor SVLEN says where it ends")
    assert _found(160, "<ODD>", 200)[0] == {"": "sequence_variant"}
    assert _found(90_000, "<DEL>", 90_100)[0] == {"": "intergenic_variant"}


def test_a_breakend_that_joins_what_is_before_it_lies_before_its_base() -> None:
    alts = pa.array(["]2:9]A", "A[2:9[", ".A"])
    kind = structural.kinds(pa.array(["A"] * 3), alts)
    start, end, _, _ = structural.placed(np.array([7, 7, 7]), np.array([7, 7, 7]), alts, kind)
    assert (start.tolist(), end.tolist()) == ([6, 7, 6], [6, 7, 6])
