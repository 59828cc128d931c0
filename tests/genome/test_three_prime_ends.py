"""Where variants lie in spliced transcripts, and what they leave of these: 3' untranslated regions with and without
variants, against published sequences (kipoiseq's) and by hand."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from genodl_spark.formats import annotation
from genodl_spark.formats.streams import Split
from genodl_spark.genome.bases import base_codes, spelled
from genodl_spark.genome.codons import code_of
from genodl_spark.genome.consequences import Pairs, Stretch, Variants
from genodl_spark.genome.transcripts import Transcripts, of_features, replaced
from tests.genome.test_consequences import Gene, flipped, transcripts_of

_SHARED = Path(os.environ.get("GENODL_SHARED_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
_DATA = _SHARED / "gtf_fasta_samples"


def ends(transcripts: Transcripts, first: int, bases: str, variants: list[tuple[int, str, str]]) -> list[dict]:
    """Rows for variants (POS, REF, ALT) of a contig that is known from `first`, 0-based, on: those that lie in one exon
    and behind the stop codon, and the bases from there on `before` and `after`, in the order of transcription."""
    pos, ref, alt = zip(*variants, strict=True)
    made = Variants.of_alleles(np.array(pos), pa.array(ref), pa.array(alt))
    stretch = Stretch(first, base_codes(np.frombuffer(bases.encode(), np.uint8)))
    pairs = Pairs(made, transcripts, stretch, code_of("22"))
    found = []
    for row in np.flatnonzero(pairs.in_one & pairs.coding & ~pairs.entire & (pairs.q0 >= pairs.c1)):
        spliced, place, changed = pairs._change(row)
        behind = slice(pairs.c1[row], None)
        found.append(
            {
                "variant": int(pairs.variant[row]),
                "transcript_id": transcripts.names["transcript_id"][pairs.transcript[row]].as_py(),
                "before": spelled(spliced[behind]),
                "after": spelled(replaced(spliced, place, changed)[behind]),
            }
        )
    return found


@pytest.mark.skipif(not _DATA.is_dir(), reason=f"no shared data in {_SHARED}")
def test_untranslated_ends_are_the_published_ones() -> None:
    """Every allele of the VCF on its transcript of the GTF; the four published sequences are among them."""
    path = _DATA / "chr22_ENST00000319363.gtf"
    uri = path.as_uri()
    read = annotation.read(
        uri, Split(0, path.stat().st_size), 1, annotation.header_of(uri), "c", path.name, lambda *_: None
    )
    transcripts = of_features(pa.Table.from_batches([batch for batch, _ in read]))
    before = (_DATA / "chr22_ENST00000319363_3UTR.ref_seq.txt").read_text().strip()
    published = (_DATA / "chr22_ENST00000319363_3UTR.alt_seqs.txt").read_text().split()
    first = 17_590_710
    with gzip.open(_DATA / "chr22_ENST00000319363.vcf.gz", "rt") as lines:
        cells = [line.split("\t") for line in lines if not line.startswith("#")]
    variants = [(int(c[1]), c[3], c[4]) for c in cells]
    rows = ends(transcripts, first, before, variants)
    behind = [i for i, (pos, ref, _) in enumerate(variants) if pos > first and pos + len(ref) - 1 <= first + 5873]
    assert [row["variant"] for row in rows] == behind and len(rows) == 1464
    assert {(row["transcript_id"], row["before"]) for row in rows} == {("ENST00000319363", before)}
    for row in rows:
        pos, ref, alt = variants[row["variant"]]
        at = pos - 1 - first
        assert row["after"] == before[:at] + alt + before[at + len(ref) :]
    after = {variants[row["variant"]]: row["after"] for row in rows}
    four = [(17596132, "AAAATAAAT", "A"), (17596136, "T", "A"), (17596167, "T", "C"), (17596167, "T", "TATG")]
    assert [after[variant] for variant in four] == published


@pytest.mark.parametrize("strand", ["+", "-"])
def test_untranslated_ends_are_spliced_and_read_in_the_order_of_transcription(strand: str) -> None:
    genome = "CCCCCATGAAATAAGGTCAGTACGTAGCTTTACCC"
    # exons 3..17 and 24..33, with ATGAAATAA as the coding region: a 3' UTR over two exons
    gene = Gene("T", strand, [(3, 17), (24, 33)], 2, 11)
    text, variants = genome, [(16, "G", "C"), (28, "C", "CTT"), (32, "AC", "A"), (20, "G", "A"), (10, "A", "G")]
    if strand == "-":  # the same gene and changes, from the other end
        size = len(genome)
        text, gene = flipped(genome), Gene("T", strand, [(size - 33, size - 24), (size - 17, size - 3)], 2, 11)
        variants = [(size - pos - len(ref) + 2, flipped(ref), flipped(alt)) for pos, ref, alt in variants]
    rows = ends(transcripts_of(gene.rows()), 0, text, variants)
    utr = genome[14:17] + genome[24:33]
    assert utr == "GGTTAGCTTTAC"
    assert [(row["variant"], row["before"], row["after"]) for row in rows] == [
        (0, utr, "GCTTAGCTTTAC"),
        (1, utr, "GGTTAGCTTTTTAC"),
        (2, utr, "GGTTAGCTTTA"),
    ]
