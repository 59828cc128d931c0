"""Consequences of variants: held against transcripts that are mutated and read base by base."""

from __future__ import annotations

import random
import re
import time
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pytest

from genodl_spark.genome.bases import base_codes
from genodl_spark.genome.codons import code_of
from genodl_spark.genome.consequences import TERMS, Stretch, Variants, consequences
from genodl_spark.genome.transcripts import Transcripts, of_features

_CODONS = {
    a + b + c: "FFLLSSSSYY**CC*WLLLLPPPPHHQQRRRRIIIMTTTTNNKKSSRRVVVVAAAADDEEGGGG"[16 * i + 4 * j + k]
    for i, a in enumerate("TCAG")
    for j, b in enumerate("TCAG")
    for k, c in enumerate("TCAG")
}
_ONE = {
    "Ala": "A", "Arg": "R", "Asn": "N", "Asp": "D", "Cys": "C", "Gln": "Q", "Glu": "E", "Gly": "G", "His": "H",
    "Ile": "I", "Leu": "L", "Lys": "K", "Met": "M", "Phe": "F", "Pro": "P", "Ser": "S", "Thr": "T", "Trp": "W",
    "Tyr": "Y", "Val": "V", "Ter": "*",
}  # fmt: skip
_FLIP = str.maketrans("ACGT", "TGCA")


def flipped(text: str) -> str:
    return text.translate(_FLIP)[::-1]


def read(text: str) -> str:
    return "".join(_CODONS[text[i : i + 3]] for i in range(0, len(text) - len(text) % 3, 3))


def to_stop(protein: str) -> str:
    return protein[: protein.find("*") + 1] or protein


@dataclass
class Gene:
    """A transcript by hand: exons of a genome, 0-based, half open, in order; coding bases [c0, c1)."""

    name: str
    strand: str
    exons: list[tuple[int, int]]
    c0: int
    c1: int

    @property
    def start(self) -> int:
        return self.exons[0][0]

    @property
    def end(self) -> int:
        return self.exons[-1][1]

    def order(self) -> list[int]:
        """Positions of the genome in the order of transcription."""
        places = [p for first, last in self.exons for p in range(first, last)]
        return places if self.strand == "+" else places[::-1]

    def rows(self) -> list[dict[str, object]]:
        base = {"transcript_id": self.name, "gene_id": "G", "strand": self.strand}
        rows: list[dict[str, object]] = []
        order, left = self.order(), 0
        exons = self.exons if self.strand == "+" else self.exons[::-1]
        for first, last in exons:
            rows.append({**base, "type": "exon", "start": first + 1, "end": last})
            a, b = max(self.c0, left), min(self.c1, left + last - first)
            left += last - first
            if a < b:
                ends = sorted((order[a], order[b - 1]))
                phase = (3 - (a - self.c0) % 3) % 3
                rows.append({**base, "type": "CDS", "start": ends[0] + 1, "end": ends[1] + 1, "phase": phase})
        return rows


_FIELDS = pa.schema(
    [
        *((name, pa.string()) for name in ("type", "strand", "gene_id", "gene_name", "transcript_id")),
        *((name, pa.string()) for name in ("transcript_version", "protein_id", "transcript_biotype")),
        ("start", pa.int64()), ("end", pa.int64()), ("phase", pa.int8()), ("tags", pa.list_(pa.string())),
    ]
)  # fmt: skip


def transcripts_of(rows: list[dict[str, object]]) -> Transcripts:
    return of_features(pa.Table.from_pylist([{name: row.get(name) for name in _FIELDS.names} for row in rows], _FIELDS))


def annotated(
    genome: str, rows: list[dict[str, object]], variants: list[tuple[int, str, str]]
) -> list[dict[str, object]]:
    """Rows for variants (POS, REF, ALT)."""
    pos, ref, alt = zip(*variants, strict=True)
    made = Variants.of_alleles(np.array(pos), pa.array(ref), pa.array(alt))
    stretch = Stretch(0, base_codes(np.frombuffer(genome.encode(), np.uint8)))
    found: list[dict[str, object]] = consequences(made, transcripts_of(rows), stretch, code_of("1")).to_pylist()
    return found


def made_gene(rng: random.Random, genome: list[str], name: str, at: int, strand: str, exons: int) -> Gene:
    """A transcript whose coding region begins with ATG, ends with a stop and has none within."""
    places, here = [], at
    for _ in range(exons):
        size = rng.randint(60, 90) if exons < 3 else rng.randint(18, 60)
        places.append((here, here + size))
        here += size + rng.randint(45, 90)
    total = sum(last - first for first, last in places)
    c0 = rng.randint(4, 25)
    c1 = c0 + (total - c0 - rng.randint(4, 25)) // 3 * 3
    gene = Gene(name, strand, places, c0, c1)
    codons = [codon for codon, residue in _CODONS.items() if residue != "*"]
    text = "ATG" + "".join(rng.choice(codons) for _ in range((c1 - c0) // 3 - 2)) + rng.choice(["TAA", "TAG", "TGA"])
    for place, base in zip(gene.order()[c0:c1], text, strict=True):
        genome[place] = base if strand == "+" else flipped(base)
    return gene


def random_variants(rng: random.Random, genome: str, gene: Gene, count: int) -> list[tuple[int, str, str]]:
    """Substitutions, insertions (half of them copies of what stands there), deletions and longer substitutions, half of
    them near edges of exons and of the coding region."""
    order = gene.order()
    edges = [p for exon in gene.exons for p in exon] + [order[gene.c0], order[gene.c1 - 1]]
    made = []
    while len(made) < count:
        p = (
            rng.choice(edges) + rng.randint(-9, 9)
            if rng.random() < 0.5
            else rng.randint(gene.start - 20, gene.end + 20)
        )
        kind, size = rng.randrange(5), rng.choice([1, 1, 2, 3, 3, 4, 6, 9])
        text = "".join(rng.choice("ACGT") for _ in range(size))
        if kind == 1:
            text = genome[p + 1 : p + 1 + size] if rng.random() < 0.5 else text
            ref, alt = genome[p], genome[p] + text
        elif kind == 2:
            ref, alt = genome[p : p + size + 1], genome[p]
        elif kind == 3:
            ref, alt = genome[p : p + rng.choice([size, size, 1, 3])], text
        else:
            ref, alt = genome[p], rng.choice("ACGT")
        if ref != alt:
            made.append((p + 1, ref, alt))
    return made


class Oracle:
    """One transcript and one variant, by brute force."""

    def __init__(self, genome: str, gene: Gene, variant: tuple[int, str, str]) -> None:
        self.genome, self.gene = genome, gene
        pos, ref, alt = variant
        s = pos - 1
        while ref and alt and ref[0] == alt[0]:
            ref, alt, s = ref[1:], alt[1:], s + 1
        while ref and alt and ref[-1] == alt[-1]:
            ref, alt = ref[:-1], alt[:-1]
        self.s, self.e, self.alt = s, s + len(ref), alt
        self.inside = self.s < gene.end and self.e > gene.start
        self.order = gene.order()
        self.place = {p: i for i, p in enumerate(self.order)}

    def hits(self, first: int, last: int) -> bool:
        """Whether a base of [first, last] is changed, or something is inserted between two of them."""
        if self.s == self.e:
            return first <= self.s - 1 and self.s <= last
        return any(first <= p <= last for p in range(self.s, self.e))

    def exonic(self) -> bool:
        exons = [(a - 1, b) if self.s == self.e else (a, b - 1) for a, b in self.gene.exons]
        return self.inside and any(self.hits(a, b) for a, b in exons)

    def one_exon(self) -> bool:
        return any(a <= self.s and self.e <= b for a, b in self.gene.exons)

    def splice_terms(self) -> set[str]:
        found = set()
        plus = self.gene.strand == "+"
        for (_, a), (b, _) in zip(self.gene.exons, self.gene.exons[1:], strict=False):
            b -= 1  # bases a to b are the intron
            donor = (lambda i, j, a=a: (a + i, a + j)) if plus else (lambda i, j, b=b: (b - j, b - i))
            acceptor = (lambda i, j, b=b: (b - j, b - i)) if plus else (lambda i, j, a=a: (a + i, a + j))
            tests = {
                "splice_donor_variant": [donor(0, 1)],
                "splice_acceptor_variant": [acceptor(0, 1)],
                "splice_donor_5th_base_variant": [donor(4, 4)],
                "splice_donor_region_variant": [donor(2, 5)],
                "splice_polypyrimidine_tract_variant": [acceptor(2, 16)],
                "splice_region_variant": [donor(-3, -1), donor(2, 7), acceptor(2, 7), acceptor(-3, -1)],
                "intron_variant": [(a + 2, b - 2)],
            }
            for term, stretches in tests.items():
                found |= {term for first, last in stretches if self.hits(first, last)}
            if self.s == self.e and self.s in (a, b + 1, a + 2, b - 1):
                found.add("splice_region_variant")
                if self.s in (a + 2, b - 1):
                    found.add("intron_variant")
        if found & {"splice_donor_variant", "splice_acceptor_variant"}:
            found.discard("splice_region_variant")
        if "splice_donor_5th_base_variant" in found:
            found.discard("splice_donor_region_variant")
        return found

    def mutated(self) -> tuple[str, str, int]:
        """The transcript before and after, and the position of the transcript where they begin to differ, for a change
        within one exon."""
        text = "".join(self.genome[p] for p in sorted(self.order))
        at = sum(p < self.s for p in self.order)
        changed = text[:at] + self.alt + text[at + self.e - self.s :]
        if self.gene.strand == "+":
            return text, changed, at
        return flipped(text), flipped(changed), len(text) - at - (self.e - self.s)

    def coding_terms(self) -> set[str] | None:
        """Terms of the protein; None where it is not touched."""
        gene = self.gene
        if not self.exonic():
            return None
        if not self.one_exon():
            touched = any(gene.c0 <= self.place[p] < gene.c1 for p in range(self.s, self.e) if p in self.place)
            return {"coding_sequence_variant"} if touched else None
        old, new, at = self.mutated()
        size, shift = self.e - self.s, len(self.alt) - (self.e - self.s)
        touched = gene.c0 < at < gene.c1 if not size else at < gene.c1 and at + size > gene.c0
        if not touched:
            return None
        before, after = read(old[gene.c0 : gene.c1]), to_stop(read(new[gene.c0 :]))
        starts = at < gene.c0 + 3
        moves = starts and shift and (at < gene.c0 or new[gene.c0 : gene.c0 + 3] != "ATG")
        if moves and new.endswith(old[gene.c0 :]):
            return {"start_retained_variant"}
        if at < gene.c0:
            return {"start_lost"}
        if before == after and (shift or at + size > gene.c1 - 3):
            return {"stop_retained_variant"}
        if at + size > gene.c1:
            return {"stop_lost"}
        first = (at - gene.c0) // 3
        last = (at + max(size, 1) - 1 - gene.c0) // 3 if size or (at - gene.c0) % 3 else first - 1
        local = before[first : last + 1]
        codons = read(new[gene.c0 + 3 * first : gene.c0 + 3 * (last + 1) + shift])
        found = set()
        if starts and new[gene.c0 : gene.c0 + 3] != "ATG":
            found.add("start_lost")
        elif "*" in codons and "*" not in local:
            found.add("stop_gained")
        if "*" in local and "*" not in codons:
            found.add("stop_lost")
        if shift % 3:
            return found | {"frameshift_variant"}
        if not shift:
            return found or ({"synonymous_variant"} if before == after else {"missense_variant"})
        if shift < 0:
            return found | {"inframe_deletion"} if not self.alt else found or {"protein_altering_variant"}
        kept = to_stop(codons)
        if "start_lost" not in found and (kept.startswith(local) or kept.endswith(local)):
            return found | {"inframe_insertion"}
        return found or {"protein_altering_variant"}

    def terms(self) -> set[str]:
        gene = self.gene
        if not self.inside:
            before = self.e <= gene.start
            return {"upstream_gene_variant" if before == (gene.strand == "+") else "downstream_gene_variant"}
        if self.s <= gene.start and self.e >= gene.end:
            return {"transcript_ablation"}
        found = self.splice_terms() | (self.coding_terms() or set())
        if self.exonic():
            places = {self.place[p] for p in range(self.s, self.e) if p in self.place}
            at = self.mutated()[2] if self.s == self.e else None
            if any(i < gene.c0 for i in places) or (at is not None and at <= gene.c0):
                found.add("5_prime_UTR_variant")
            if any(i >= gene.c1 for i in places) or (at is not None and at >= gene.c1):
                found.add("3_prime_UTR_variant")
        return found

    def labels(self) -> dict[str, int]:
        """Positions of the genome by the name that HGVS has for them."""
        gene, found = self.gene, {}

        def named(i: int) -> str:
            return f"-{gene.c0 - i}" if i < gene.c0 else f"*{i - gene.c1 + 1}" if i >= gene.c1 else str(i - gene.c0 + 1)

        step = 1 if gene.strand == "+" else -1
        for i, p in enumerate(self.order):
            found[named(i)] = p
            if i + 1 < len(self.order) and self.order[i + 1] != p + step:
                gap = abs(self.order[i + 1] - p) - 1
                for k in range(1, gap + 1):
                    up = k <= gap - k + 1
                    name = f"{named(i)}+{k}" if up else f"{named(i + 1)}-{gap - k + 1}"
                    found[name] = p + step * k
        return found

    def applied(self, described: str, further: int = 0) -> str:
        """The genome after a change that HGVS describes, or after the same change `further` bases on."""
        match = re.fullmatch(r"c\.([-*]?\d+(?:[+-]\d+)?)(?:_([-*]?\d+(?:[+-]\d+)?))?(.*)", described)
        assert match is not None, described
        labels = self.labels()
        step = 1 if self.gene.strand == "+" else -1
        ends = [labels[name] + step * further for name in match.groups()[:2] if name is not None]
        low, high = min(ends), max(ends) + 1
        turn = (lambda text: text) if step > 0 else flipped
        what, before = match[3], self.genome[low:high]
        if ">" in what:
            assert turn(before) == what[0]
            middle = turn(what[2:])
        elif what.startswith("delins"):
            middle = turn(what[6:])
        elif what.startswith("ins"):
            assert high - low == 2
            middle = before[0] + turn(what[3:]) + before[1]
        else:
            middle = {"del": "", "dup": before * 2, "inv": flipped(before)}[what]
        return self.genome[:low] + middle + self.genome[high:]

    def changed_genome(self) -> str:
        return self.genome[: self.s] + self.alt + self.genome[self.e :]


def applied_to_protein(protein: str, described: str, after: str) -> str:
    """The protein that HGVS describes; what it leaves open (the new frame, a tail) is taken from `after`."""
    if described == "p.Met1?":
        return "?"
    if described == "p.=":
        return protein
    match = re.fullmatch(r"p\.([A-Z][a-z]{2})(\d+)(?:_([A-Z][a-z]{2})(\d+))?(.*)", described)
    assert match is not None, described
    first, last = int(match[2]) - 1, int(match[4] or match[2])
    assert protein[first] == _ONE[match[1]] and (match[3] is None or protein[last - 1] == _ONE[match[3]]), described
    what = match[5]
    letters = "".join(_ONE[what[-3:]] if len(what) == 3 else "" for _ in [0] if what in _ONE)
    if what == "=":
        return protein
    if what == "del":
        return protein[:first] + protein[last:]
    if what == "dup":
        return protein[:last] + protein[first:last] + protein[last:]
    for kind in ("delins", "ins"):
        if what.startswith(kind):
            text = "".join(_ONE[what[i : i + 3]] for i in range(len(kind), len(what), 3))
            rest = protein[last:] if kind == "delins" else protein[last - 1 :]
            return to_stop(protein[: first if kind == "delins" else last - 1] + text + rest)
    for kind in ("fsTer", "extTer"):
        if kind in what:
            count = what[what.index(kind) + len(kind) :]
            assert after[: first + 1] == protein[:first] + _ONE[what[:3]]
            stop = first + int(count) - (kind == "fsTer") if count != "?" else None
            assert (stop is None) == ("*" not in after) and (stop is None or after.index("*") == stop)
            return after
    return to_stop(protein[:first] + letters + protein[last:])


@pytest.mark.parametrize("strand", ["+", "-"])
def test_consequences_are_those_of_transcripts_mutated_base_by_base(strand: str) -> None:
    rng = random.Random(strand)
    seen: set[str] = set()
    for exons in (1, 2, 3, 5, 4, 3):
        genome = [rng.choice("ACGT" if exons % 2 else "AACT") for _ in range(1400)]
        gene = made_gene(rng, genome, f"T{exons}", 200, strand, exons)
        text = "".join(genome)
        variants = [*random_variants(rng, text, gene, 250), (gene.start, text[gene.start - 1 : gene.end + 3], "A")]
        rows = annotated(text, gene.rows(), variants)
        assert [row["variant"] for row in rows] == list(range(len(variants)))
        for row, variant in zip(rows, variants, strict=True):
            oracle = Oracle(text, gene, variant)
            assert set(row["terms"]) == oracle.terms(), (variant, gene, row)  # type: ignore[arg-type]
            seen |= set(row["terms"])  # type: ignore[arg-type]
            described, protein = row["hgvs_c"], row["hgvs_p"]
            reaches_out = oracle.s < gene.start or oracle.e > gene.end
            assert (described is None) == (reaches_out or not oracle.inside)
            if isinstance(described, str):
                assert oracle.applied(described) == oracle.changed_genome(), (described, variant, gene)
                ends = gene.end - 12 if strand == "+" else gene.start + 12
                far = max(oracle.s, oracle.e) < ends if strand == "+" else min(oracle.s, oracle.e) > ends
                if re.search("(del|dup)$", described) and far:
                    assert oracle.applied(described, 1) != oracle.changed_genome(), (described, variant)
            if isinstance(protein, str):
                old, new, _ = oracle.mutated()
                before, after = read(old[gene.c0 : gene.c1]), to_stop(read(new[gene.c0 :]))
                named = next((term for term in row["terms"] if term.startswith("start_")), "")  # type: ignore[attr-defined]
                expected = {"start_lost": "?", "start_retained_variant": before}.get(named, after)
                assert applied_to_protein(before, protein, after) == expected, (protein, variant, gene)
            protein_known = {"missense_variant", "frameshift_variant", "stop_gained", "inframe_deletion"}
            assert not protein_known & set(row["terms"]) or protein is not None, row  # type: ignore[arg-type]
    assert seen >= set(TERMS) - {
        "non_coding_transcript_exon_variant", "non_coding_transcript_variant", "NMD_transcript_variant",
        "intergenic_variant", "incomplete_terminal_codon_variant", "start_retained_variant",
        "transcript_amplification", "feature_elongation", "feature_truncation", "sequence_variant",
    }  # fmt: skip


def test_transcripts_without_coding_region_and_with_a_part_of_one() -> None:
    rng = random.Random(1)
    genome = "".join(rng.choice("ACGT") for _ in range(300)) + "GCATGCATAAACCTGGC" + "A" * 12_000
    rows: list[dict[str, object]] = [
        {"type": "exon", "start": 51, "end": 100, "strand": "+", "transcript_id": "N", "gene_id": "A"},
        {"type": "exon", "start": 201, "end": 260, "strand": "+", "transcript_id": "N", "gene_id": "A"},
        # a coding region that begins within a codon (GC, two bases) and ends within one (A), with no exon rows
        {"type": "CDS", "start": 301, "end": 318, "strand": "+", "phase": 2, "transcript_id": "P", "gene_id": "B"},
        {"type": "transcript", "start": 301, "end": 318, "strand": "+", "transcript_id": "P", "gene_id": "B",
         "transcript_biotype": "nonsense_mediated_decay"},
        {"type": "exon", "start": 1, "end": 9, "strand": None, "transcript_id": "no strand", "gene_id": "C"},
    ]  # fmt: skip

    def found(pos: int, ref: str, alt: str, name: str) -> tuple[object, ...]:
        (row,) = [row for row in annotated(genome, rows, [(pos, ref, alt)]) if row["transcript_id"] == name]
        return tuple(row[key] for key in ("terms", "hgvs_c", "hgvs_p", "codons", "cds_position", "protein_position"))

    nmd = "NMD_transcript_variant"
    base = genome[59]
    assert found(60, base, "G" if base != "G" else "T", "N")[0] == ["non_coding_transcript_exon_variant"]
    assert found(150, genome[149], "A" if genome[149] != "A" else "C", "N")[:2] == (
        ["intron_variant", "non_coding_transcript_variant"],
        f"n.50+50{genome[149]}>{'A' if genome[149] != 'A' else 'C'}",
    )
    assert found(302, "C", "T", "P") == (["coding_sequence_variant", nmd], "c.2C>T", None, None, 2, None)
    assert found(304, "T", "A", "P") == (["missense_variant", nmd], "c.4T>A", "p.Met1Lys", "aTg/aAg", 4, 1)
    assert found(310, "A", "AT", "P")[:2] == (["frameshift_variant", nmd], "c.10_11insT")
    assert found(318, "A", "G", "P")[0] == ["incomplete_terminal_codon_variant", "coding_sequence_variant", nmd]
    assert found(5300, "A", "C", "P")[0] == ["downstream_gene_variant"]
    alone = annotated(genome, rows, [(5_319, "A", "C")])
    assert [(row["terms"], row["transcript_id"], row["picked"]) for row in alone] == [
        (["intergenic_variant"], None, True)
    ]


def test_the_picked_row_is_the_most_severe_and_then_the_preferred_transcript() -> None:
    genome = "A" * 100 + "ATGAAACGGTAA" + "A" * 100
    exon = {"type": "exon", "start": 96, "end": 117, "strand": "+", "gene_id": "G"}
    cds = {"type": "CDS", "start": 101, "end": 112, "strand": "+", "phase": 0, "gene_id": "G"}
    rows: list[dict[str, object]] = [
        *({**part, "transcript_id": "T1"} for part in (exon, cds)),
        *({**part, "transcript_id": "T2", "tags": ["basic", "MANE_Select"]} for part in (exon, cds)),
        {**exon, "transcript_id": "T0"},
    ]
    found = annotated(genome, rows, [(108, "G", "A"), (98, "A", "G"), (5_000, "A", "G")])
    assert [(row["variant"], row["transcript_id"], row["terms"]) for row in found if row["picked"]] == [
        (0, "T2", ["missense_variant"]),
        (1, "T2", ["5_prime_UTR_variant"]),
        (2, "T2", ["downstream_gene_variant"]),
    ]


def test_mitochondrial_codons_and_unknown_bases() -> None:
    genome = "ATGTGAATAGGNAANTAA"
    rows: list[dict[str, object]] = [
        {"type": kind, "start": 1, "end": 18, "strand": "+", "phase": 0, "transcript_id": "T", "gene_id": "G"}
        for kind in ("exon", "CDS")
    ]
    made = Variants.of_alleles(np.array([6, 9, 11, 14]), pa.array(["A", "A", "g", "A"]), pa.array(["G", "G", "a", "C"]))
    stretch = Stretch(0, base_codes(np.frombuffer(genome.encode(), np.uint8)))
    found = {
        name: consequences(made, transcripts_of(rows), stretch, code_of(name)).column("hgvs_p").to_pylist()
        for name in ("1", "MT")
    }
    # TGA is a stop but in mitochondria; ATA is Ile there not, but Met; GGN is Gly whatever N is, AAN not known
    assert found["1"] == ["p.Ter2TrpextTer4", "p.Ile3Met", None, None]
    assert found["MT"] == ["p.Trp2=", "p.Met3=", None, None]


def test_a_million_substitutions_take_less_than_a_minute_of_a_core() -> None:
    """A tenth of that, at 3 transcripts a variant: what a human annotation has of them."""
    rng = np.random.default_rng(1)
    size, count = 1_000_000, 100_000
    rows: list[dict[str, object]] = []
    for number in range(80):
        base = {"transcript_id": f"T{number}", "gene_id": "G", "strand": "+-"[number % 2], "phase": 0}
        start = int(rng.integers(6_000, size - 60_000))
        for exon in range(9):
            ends = {"start": start + 3_500 * exon, "end": start + 3_500 * exon + 149}
            rows += [{**base, **ends, "type": kind} for kind in (("exon", "CDS") if number % 3 else ("exon",))]
    transcripts = transcripts_of(rows)
    codes = rng.integers(0, 4, size).astype(np.int8)
    pos = np.sort(rng.integers(1, size + 1, count))
    letters = np.array(list("ACGT"), object)
    ref, alt = letters[codes[pos - 1]], letters[(codes[pos - 1] + 1) % 4]
    started = time.process_time()
    variants = Variants.of_alleles(pos, pa.array(ref, pa.string()), pa.array(alt, pa.string()))
    found = consequences(variants, transcripts, Stretch(0, codes), code_of("1"))
    took = time.process_time() - started
    assert found.num_rows > 2.5 * count
    assert took < 6, took
