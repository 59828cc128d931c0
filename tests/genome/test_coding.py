"""HGVS read back, and what it says of residues and splice sites, of a transcript made by hand on either strand."""

from __future__ import annotations

import csv
import gzip
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from genodl_spark.genome.coding import (
    RESIDUE_NAMES,
    SPLICING_NAMES,
    Coding,
    protein_features,
    splicing_features,
)
from genodl_spark.genome.residues import LETTERS, PROPERTIES, grantham, properties
from genodl_spark.genome.surroundings import Surroundings

SHARED = Path(os.environ.get("GENODL_SHARED_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
BRCA1 = SHARED / "varimpact_brca1_sge_findlay" / "variants.tsv.gz"
OTHER = str.maketrans("ACGTN", "TGCAN")
# 5' region, ATG, 12 codons of an exon (MKRLGWDPAESCV), and the intron behind it
LEADER, CODONS, INTRON = "GGCACC", "ATGAAACGTCTGGGTTGGGATCCGGCTGAATCTTGCGTT", "GTAAGTCCCTTTTTT"
PROTEIN = "MKRLGWDPAESCV"


def texts(values: list[str | None]) -> pa.Array:
    return pa.array(values, pa.string())


def read(c: list[str | None], p: list[str | None], ref: list[str], alt: list[str], strand: str | None = None) -> Coding:
    return Coding.read(texts(c), texts(p), texts([strand] * len(c)), texts(ref), texts(alt))


def test_places_of_hgvs() -> None:
    c = ["c.188T>A", "NM_1.2:c.5193+26C>A", "c.-19-3A>C", "c.*7A>G", "c.100_102del", "n.5A>T", None, "c.7+1G>N"]
    ref, alt = ["A", "C", "T", "A", "ACG", "A", "A", "G"], ["T", "A", "G", "G", "A", "T", "T", "A"]
    found = read(c, [None] * len(c), ref, alt)
    assert found.placed.tolist() == [True] * 5 + [False, False, True]
    assert found.base.tolist() == [188, 5193, -19, 7, 100, 0, 0, 7]
    assert found.offset.tolist() == [0, 26, -3, 0, 0, 0, 0, 1]
    assert found.behind.tolist() == [False] * 3 + [True] + [False] * 4
    assert found.known.tolist() == [True, True, True, True, False, False, False, False]
    assert found.forward.tolist()[:4] == [False, True, False, True]
    assert found.coding.tolist() == [True, False, False, False, True, False, False, False]


@pytest.mark.parametrize(
    ("text", "kind", "old", "new"),
    [
        ("p.L63*", "stop_gained", "L", "*"),
        ("NP_1.1:p.(Leu63Ter)", "stop_gained", "L", "*"),
        ("p.Leu63=", "synonymous", "L", "L"),
        ("p.L63L", "synonymous", "L", "L"),
        ("p.Arg97Pro", "missense", "R", "P"),
        ("p.Arg97ProfsTer23", "frameshift", "R", "P"),
        ("p.Q5fs", "frameshift", "Q", None),
        ("p.Ter110GlnextTer17", "stop_lost", "*", "Q"),
        ("p.Met1?", "start_lost", "M", None),
        ("p.M1V", "start_lost", "M", "V"),
        ("p.Lys2_Met3insGlnSerLys", "inframe", "K", None),
        ("p.Lys23del", "inframe", "K", None),
        ("p.Xaa5Leu", None, "X", "L"),
        ("p.=", None, None, None),
        ("p.?", None, None, None),
        (None, None, None, None),
    ],
)
def test_changes_of_proteins(text: str | None, kind: str | None, old: str | None, new: str | None) -> None:
    found = read([None], [text], ["A"], ["C"])
    kinds = [name.removeprefix("protein:") for name in RESIDUE_NAMES[:7]]
    said = [name for name, holds in zip(kinds, found.kinds[0], strict=True) if holds]
    if kind is None and old == "X":
        said = []  # what is not known changes into something
    assert said == ([kind] if kind else [])
    assert [chr(code) if code else None for code in (found.old[0], found.new[0])] == [old, new]


def variants(forward: bool, changes: list[tuple[int, str, str]]) -> tuple[Surroundings, list[str], list[str]]:
    """Of the transcript above: position from 0, bases there and in their stead; on the other strand turned round."""
    whole = LEADER + CODONS + INTRON
    rows = []
    for place, ref, alt in changes:
        size = 0 if ref == "-" else len(ref)
        assert size == 0 or whole[place : place + size] == ref
        sides = [whole[:place], ref, alt, whole[place + size :]]
        if not forward:
            sides = [side[::-1].translate(OTHER) for side in sides]
            sides = [sides[3], sides[1], sides[2], sides[0]]
        rows.append(sides)
    columns = [texts(list(column)) for column in zip(*rows, strict=True)]
    return Surroundings.of(columns[0], columns[1], columns[2], columns[3], 64), *(c.to_pylist() for c in columns[1:3])


def values(x: np.ndarray, names: list[str]) -> list[dict[str, float]]:
    return [dict(zip(names, row.astype(float), strict=True)) for row in x]


@pytest.mark.parametrize("forward", [True, False])
def test_residues_in_their_surroundings(forward: bool) -> None:
    start = len(LEADER)
    changes = [(start + 16, "G", "T"), (start + 18, "G", "C"), (start + 5, "A", "G"), (start + 15, "TGG", "-")]
    made, ref, alt = variants(forward, changes)  # W6L, D7H, K2=, and W6 deleted
    c = ["c.17G>T", "c.19G>C", "c.6A>G", "c.16_18del"]
    coding = read(c, ["p.W6L", "p.Asp7His", "p.Lys2=", "p.Trp6del"], ref, alt, "+" if forward else "-")
    x = values(protein_features(coding, made, "17"), RESIDUE_NAMES)
    lookup = dict(zip(LETTERS, properties(np.frombuffer(LETTERS.encode(), np.uint8)), strict=True))
    for row, (place, old, new) in enumerate(((5, "W", "L"), (6, "D", "H"))):
        got = x[row]
        pair = [np.array([ord(letter)], np.uint8) for letter in (old, new)]
        assert got["exchange:grantham"] == pytest.approx(float(grantham(*pair)[0]))
        assert [name for name in RESIDUE_NAMES if name.startswith("protein:") and got[name]] == [
            "protein:missense", f"protein:codon_position:{2 - row}", f"protein:before:{old}", f"protein:after:{new}"
        ]  # fmt: skip
        for name in ("hydropathy", "charge", "helix", "strand", "volume"):
            which = PROPERTIES.index(name)
            before, after = lookup[old][which], lookup[new][which]
            said = [got[f"exchange:{name}:{what}"] for what in ("before", "after", "change", "size")]
            np.testing.assert_allclose(said, [before, after, after - before, abs(after - before)], rtol=1e-5, atol=1e-6)
            for step in (-4, -1, 1, 4):
                there = PROTEIN[place + step] if 0 <= place + step < len(PROTEIN) else None
                expected = lookup[there][which] if there else 0
                assert got[f"neighbour:{name}:{step:+d}"] == pytest.approx(float(expected), abs=1e-5)
            near = [lookup[PROTEIN[place + step]][which] for step in (-3, -2, -1, 1, 2, 3)]
            assert got[f"neighbours:{name}:3"] == pytest.approx(float(np.mean(near)), abs=1e-4)
    silent = {name for name, value in x[2].items() if value}
    assert silent == {"protein:synonymous", "protein:codon_position:3", "protein:before:K", "protein:after:K"}
    deleted = {name for name, value in x[3].items() if value and not name.startswith("neighbour")}
    assert deleted == {"protein:inframe", "protein:codon_position:1"}
    assert x[3]["neighbour:hydropathy:+1"] == pytest.approx(-3.5) and x[3]["neighbour:hydropathy:-1"] == pytest.approx(
        -0.4
    )


@pytest.mark.parametrize("forward", [True, False])
def test_the_site_of_an_intron(forward: bool) -> None:
    border = len(LEADER + CODONS)
    made, ref, alt = variants(
        forward, [(border, "G", "A"), (border + 9, "T", "C"), (border - 2, "T", "G"), (2, "C", "A")]
    )
    c = ["c.39+1G>A", "c.39+10T>C", "c.38T>G", "c.-4C>A"]
    for strand in (None, "+" if forward else "-"):
        coding = read(c, [None] * 4, ref, alt, strand)
        assert coding.known.all() and (coding.forward == forward).all()
        x = values(splicing_features(coding, made), SPLICING_NAMES)
        parts = [[name for name in SPLICING_NAMES[:4] if row[name]] for row in x]
        assert parts == [
            ["transcript:intron"],
            ["transcript:intron"],
            ["transcript:coding"],
            ["transcript:5_prime_UTR"],
        ]
        assert [row["splice:at_donor"] for row in x] == [1, 0, 0, 0] and not any(row["splice:at_acceptor"] for row in x)
        assert x[0]["splice:own_site"] < -6 and x[1]["splice:own_site"] == 0
        assert x[0]["splice:donor:lost"] == pytest.approx(x[0]["splice:own_site"], abs=1e-4)
        assert x[1]["splice:depth"] == pytest.approx(np.log(11))
    # Where the strand is not known both are looked at, and the better site counts.
    unknown = values(splicing_features(read([None] * 4, [None] * 4, ref, alt), made), SPLICING_NAMES)
    assert unknown[0]["splice:donor:best"] >= x[0]["splice:donor:best"]


@pytest.mark.skipif(not BRCA1.exists(), reason=f"no shared data in {SHARED}")
def test_a_published_table_is_read() -> None:
    with gzip.open(BRCA1, "rt") as file:
        table = list(csv.DictReader(file, delimiter="\t"))
    column = {name: [None if row[name] == "NA" else row[name] for row in table] for name in table[0]}
    coding = read(column["transcript_variant"], column["protein_variant"], column["ref"], column["alt"])
    assert len(table) == 2699 and coding.placed.all() and coding.known.all() and not coding.forward.any()
    old, new = ([chr(code) if code else None for code in letters] for letters in (coding.old, coding.new))
    assert old == column["aa_ref"] and new == column["aa_alt"]
    said = np.array(column["consequence"])
    assert (coding.kinds[:, 2] == (said == "Nonsense")).all()
    assert ((coding.offset != 0) & (np.abs(coding.offset) <= 2) == (said == "Canonical splice")).all()
