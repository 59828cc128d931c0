"""Splice sites: counts against the published sequences, and changes against a loop over sites."""

from __future__ import annotations

import csv
import gzip
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from genodl_spark.genome.splice_sites import ACCEPTOR, DONOR, NAMES, SITES, at_place, changes
from genodl_spark.genome.surroundings import Surroundings

SHARED = Path(os.environ.get("GENODL_SHARED_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
TABLE = SHARED / "seq_uci_splice" / "sequences.tsv.gz"
OTHER = str.maketrans("ACGTN", "TGCAN")


@pytest.mark.skipif(not TABLE.exists(), reason=f"no shared data in {SHARED}")
def test_weights_are_those_of_the_published_sites() -> None:
    with gzip.open(TABLE, "rt") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    for site, label, first in ((DONOR, "EI", 27), (ACCEPTOR, "IE", 10)):
        texts = {row["sequence"] for row in rows if row["label"] == label}
        for place in range(len(site)):
            counts = np.array([sum(text[first + place] == base for text in texts) for base in "ACGT"]) + 0.5
            np.testing.assert_allclose(site[place, :4], np.log2(4 * counts / counts.sum()), rtol=1e-5)


def naively(before: str, allele: str, after: str, site: np.ndarray) -> list[float]:
    text, width = before + allele + after, len(site)
    found = []
    for start in range(len(before) - width + 1, len(before) + max(len(allele), 0)):
        if not allele and start >= len(before):
            continue
        there = [text[i] if 0 <= i < len(text) else "N" for i in range(start, start + width)]
        found.append(sum(site[i, "ACGTN".index(base)] for i, base in enumerate(there)))
    return found


def test_changes_are_those_of_a_loop_over_sites() -> None:
    draw = np.random.default_rng(5)
    text = lambda n: "".join(draw.choice(list("ACGT"), n))  # noqa: E731
    rows = [(text(30), text(1), text(1), text(30)) for _ in range(6)]
    rows += [(text(30), "A", "-", text(30)), (text(4), "-", "ACG", text(3)), (text(30), "AC", "G", text(30))]
    forward = np.arange(len(rows)) % 2 == 0
    columns = [pa.array(column) for column in zip(*rows, strict=True)]
    found = changes(Surroundings.of(*columns, 64), forward)
    for row, (before, ref, alt, after) in enumerate(rows):
        sides = [("" if allele == "-" else allele) for allele in (ref, alt)]
        if not forward[row]:
            before, after = (part[::-1].translate(OTHER) for part in (after, before))
            sides = [side[::-1].translate(OTHER) for side in sides]
        for number, site in enumerate(SITES.values()):
            of_ref, of_alt = (naively(before, side, after, site) for side in sides)
            lost = of_alt[int(np.argmax(of_ref))] - max(of_ref) if len(sides[0]) == len(sides[1]) == 1 else 0
            expected = [max(of_ref), max(of_alt) - max(of_ref), lost, max(of_alt)]
            np.testing.assert_allclose(found[row, 4 * number : 4 * number + 4], expected, atol=1e-4)
    assert len(NAMES) == found.shape[1]


def test_a_donor_that_loses_its_gt() -> None:
    bases = {base: code for code, base in enumerate("ACGT")}
    offset = np.array([1, 2, 6, 7, -1, -2, -20, -21, 0])
    old = np.array([bases[base] for base in "GTTAGACAC"], np.int8)
    new = np.array([bases[base] for base in "ACGCACTGA"], np.int8)
    found = at_place(offset, old, new)
    assert (found[[0, 1, 4, 5]] < -6).all() and (found[[3, 7, 8]] == 0).all()
    assert found[2] == pytest.approx(DONOR[8, 2] - DONOR[8, 3]) and found[6] == pytest.approx(
        ACCEPTOR[0, 3] - ACCEPTOR[0, 1]
    )
    consensus = [pa.array([text]) for text in ("CAG", "G", "A", "TAAGT")]
    made = dict(zip(NAMES, changes(Surroundings.of(*consensus, 64), np.array([True]))[0], strict=True))
    assert made["donor:best"] > 10 and made["donor:change"] < -6 and made["donor:lost"] < -6
