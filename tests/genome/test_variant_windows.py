"""Windows of variants beside those that are cut by hand from chromosomes written out as text."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from genodl_spark.genome import variant_windows
from genodl_spark.genome.bases import NO_BASE, base_codes, spelled
from genodl_spark.genome.consequences import Stretch, Variants


def codes(text: str) -> np.ndarray:
    return base_codes(np.frombuffer(text.encode(), np.uint8))


def cut(genome: str, alleles: list[tuple[int, str, str]], length: int) -> list[tuple[str, str]]:
    """Windows as text, N beyond the ends."""
    position, ref, alt = (list(column) for column in zip(*alleles, strict=True))
    variants = Variants.of_alleles(np.array(position), pa.array(ref), pa.array([a.replace("-", "") for a in alt]))
    first, last = variant_windows.reach(variants, length)
    whole = np.full(last - first, NO_BASE, np.int8)
    held = codes(genome)[first:last]
    whole[: len(held)] = held
    found = variant_windows.windows(variants, Stretch(first, whole), length)
    return [(spelled(a), spelled(b)) for a, b in zip(*found, strict=True)]


def by_hand(genome: str, position: int, ref: str, alt: str, length: int) -> tuple[str, str]:
    """The chromosome with the other allele written into it; both from half a window before the first base that
    differs, where insertions and deletions are seen by the bases before them alone."""
    alt = alt.replace("-", "")
    shared = next((i for i, (a, b) in enumerate(zip(ref, alt, strict=False)) if a != b), min(len(ref), len(alt)))
    first = position - 1 + shared - length // 2
    changed = genome[: position - 1] + alt + genome[position - 1 + len(ref) :]
    return tuple(  # type: ignore[return-value]
        "".join(text[i] if 0 <= i < len(text) else "N" for i in range(first, first + length))
        for text in (genome, changed)
    )


def test_windows_written_out() -> None:
    genome = "AACCGGTTACGTACGTNACGT"
    found = cut(
        genome,
        [
            *((8, "T", "G"), (8, "T", "TGGG"), (8, "TACG", "T"), (9, "ACG", "-"), (8, "TAC", "TGT")),
            *((1, "A", "C"), (21, "T", "A")),
        ],
        6,
    )
    assert found == [
        ("GGTTAC", "GGTGAC"),  # the base that is another stands at 3
        ("GTTACG", "GTTGGG"),  # comes in behind TGT, and pushes the rest out on the right
        ("GTTACG", "GTTTAC"),  # three bases less, three more from the right
        ("GTTACG", "GTTTAC"),
        ("GTTACG", "GTTGTG"),
        ("NNNAAC", "NNNCAC"),
        ("ACGTNN", "ACGANN"),
    ]


@pytest.mark.parametrize("length", [1, 2, 7, 20])
def test_any_variant_has_the_windows_of_its_chromosome(length: int) -> None:
    generator = np.random.default_rng(length)
    genome = "".join("ACGTN"[i] for i in generator.choice(5, 60, p=[0.24] * 4 + [0.04]))
    alleles = []
    while len(alleles) < 400:  # both ends of the contig among them, and alleles longer than a window
        position, size = int(generator.integers(1, 61)), int(generator.choice([1, 1, 2, 3, 30]))
        ref = genome[position - 1 : position - 1 + size]
        alt = "".join(generator.choice(list("ACGT"), generator.choice([1, 1, 2, 4, 25])))
        alt = ref[0] + alt if generator.random() < 0.4 else alt + ref[-1] if generator.random() < 0.2 else alt
        alt = "-" if generator.random() < 0.1 else alt
        if alt != ref:
            alleles.append((position, ref, alt))
    assert cut(genome, alleles, length) == [by_hand(genome, *one, length) for one in alleles]
    # Alone, and in another order, each has the same.
    order = generator.permutation(len(alleles))[:50]
    shuffled = cut(genome, [alleles[i] for i in order], length)
    assert shuffled == [cut(genome, [alleles[i]], length)[0] for i in order]


def test_what_has_no_window_says_why() -> None:
    ref = pa.array(["A", "A", "A", "a", "-", "R", "A", "AC"])
    alt = pa.array(["<DEL>", "*", "<*>", "A", "C", "C", "G]2:5]", "-"])
    assert variant_windows.unspelled(ref, alt).to_pylist() == [
        "found ALT <DEL>; expected one that is spelled in bases",
        "found ALT *, which is no change",
        "found ALT <*>, which is no change",
        "found ALT A, which is no change",
        "found REF -; expected one that is spelled in bases",
        "found REF R; expected one that is spelled in bases",
        "found ALT G]2:5]; expected one that is spelled in bases",
        None,
    ]


def test_a_ref_that_is_not_there_says_why() -> None:
    text = codes("ACGTNA")
    held = Stretch(10, np.concatenate([text, np.full(2, NO_BASE, np.int8)]))
    cases = [
        (11, "ACG", None),
        (11, "acgtc", None),  # an unknown base of the reference
        (12, "N", None),
        (12, "GG", "found REF GG; expected CG, as the reference has it"),
        (14, "TAC", "found REF TAC; expected TNA, as the reference has it"),
        (16, "AA", "found REF AA where the reference has no bases; expected a place that it has"),
        (10, "TA", "found REF TA where the reference has no bases; expected a place that it has"),
        (400, "T", "found REF T where the reference has no bases; expected a place that it has"),
    ]
    position, ref, expected = (list(column) for column in zip(*cases, strict=True))
    assert variant_windows.misplaced(np.array(position), pa.array(ref), held).to_pylist() == expected
    for one, allele, text_ in cases:
        assert variant_windows.misplaced(np.array([one]), pa.array([allele]), held).to_pylist() == [text_]
