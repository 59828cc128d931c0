"""Consequences of BRCA1's variants against the columns of a published table (Findlay 2018)."""

from __future__ import annotations

import csv
import gzip
import os
from pathlib import Path

import pytest

from tests.genome.test_consequences import _ONE, annotated

_SHARED = Path(os.environ.get("GENODL_SHARED_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
_DATA = _SHARED / "varimpact_brca1_sge_findlay"
# Exons of NM_007294.3 on hg19, 1-based, and the first and last base of its coding region.
_EXONS = """
    41196312-41197819 41199660-41199720 41201138-41201211 41203080-41203134 41209069-41209152 41215350-41215390
    41215891-41215968 41219625-41219712 41222945-41223255 41226348-41226538 41228505-41228631 41234421-41234592
    41242961-41243049 41243452-41246877 41247863-41247939 41249261-41249306 41251792-41251897 41256139-41256278
    41256885-41256973 41258473-41258550 41267743-41267796 41276034-41276132 41277288-41277500
"""
_CODING = (41197695, 41276113)
# Coding bases beside and between the table's windows, by position of the coding sequence, as its amino acids say.
_FURTHER = dict(zip([81, 133, 134, 296, 297, 299, 302, 303, 4973, 5074, 5159, 5467], "TAATGAACCGCG", strict=True))
_TABLE = {
    "Missense": "missense_variant",
    "Synonymous": "synonymous_variant",
    "Intronic": "intron_variant",
    "Nonsense": "stop_gained",
    "5' UTR": "5_prime_UTR_variant",
}
_CANONICAL = ("splice_donor_variant", "splice_acceptor_variant")
_SPLICE = "splice_region_variant"


def _expected(terms: list[str]) -> str:
    """The table's name for a set of terms: of its windows it has splice regions before all but changed amino acids."""
    named = [name for name, term in _TABLE.items() if term in terms]
    if any(term in terms for term in _CANONICAL):
        return "Canonical splice"
    if _SPLICE in terms and not {"missense_variant", "stop_gained"} & set(terms):
        return "Splice region"
    return named[0] if named else terms[0]


@pytest.mark.skipif(not _DATA.is_dir(), reason=f"no shared data in {_SHARED}")
def test_brca1_variants_have_the_consequences_that_the_table_says() -> None:
    with gzip.open(_DATA / "variants.tsv.gz", "rt") as file:
        table = list(csv.DictReader(file, delimiter="\t"))
    assert len(table) == 2699
    first, last = 41_190_001, 41_285_000
    genome = bytearray(b"N" * (last - first + 1))
    for row in table:
        genome[int(row["pos"]) - first] = ord(row["ref"])
    exons = [tuple(int(end) for end in text.split("-")) for text in _EXONS.split()]
    coding = [p for a, b in exons for p in range(max(a, _CODING[0]), min(b, _CODING[1]) + 1)][::-1]
    assert len(coding) == 5592
    for number, base in _FURTHER.items():
        place = coding[number - 1] - first
        assert genome[place] == ord("N")
        genome[place] = ord(base.translate(str.maketrans("ACGT", "TGCA")))
    gene: dict[str, object] = {"transcript_id": "NM_007294", "gene_id": "BRCA1", "strand": "-"}
    rows: list[dict[str, object]] = [
        {**gene, "type": "exon", "start": a - first + 1, "end": b - first + 1} for a, b in exons
    ]
    rows += [
        {
            **gene,
            "type": "CDS",
            "start": max(a, _CODING[0]) - first + 1,
            "end": min(b, _CODING[1]) - first + 1,
            "phase": 0,
        }
        for a, b in exons
        if b >= _CODING[0] and a <= _CODING[1]
    ]
    found = annotated(genome.decode(), rows, [(int(row["pos"]) - first + 1, row["ref"], row["alt"]) for row in table])
    assert len(found) == len(table)
    differ: list[tuple[str, str, str]] = []
    for row, mine in zip(table, found, strict=True):
        terms: list[str] = mine["terms"]  # type: ignore[assignment]
        assert mine["hgvs_c"] == row["transcript_variant"]
        if _expected(terms) != row["consequence"]:
            differ.append((row["transcript_variant"], row["consequence"], ",".join(terms)))
        if row["aa_pos"] != "NA" and "start_lost" not in terms:
            old, new = ({letter: three for three, letter in _ONE.items()}[row[name]] for name in ("aa_ref", "aa_alt"))
            after = "=" if old == new else new
            assert mine["hgvs_p"] == f"p.{old}{row['aa_pos']}{after}", row["transcript_variant"]
            assert mine["protein_position"] == int(row["aa_pos"])
    # The table has no name of its own for a lost start codon: all nine changes of ATG are Missense there.
    start = [f"c.{place}{old}>{new}" for place, old in enumerate("ATG", 1) for new in "ACGT" if new != old]
    assert sorted(differ) == [(change, "Missense", "start_lost") for change in start]
    assert 1 - len(differ) / len(table) >= 0.995
