"""Genome builds of human cohorts, told by the lengths of their contigs."""

from __future__ import annotations

from collections.abc import Mapping

from genodl_spark.genome.contigs import shared_contig

_CONTIGS = [*map(str, range(1, 23)), "X", "Y"]
# Bases of chromosomes 1 to 22, X and Y: Genome Reference Consortium (GRCh37, GRCh38), T2T Consortium (CHM13 v2.0).
_LENGTHS = {
    "GRCh37": """
        249250621 243199373 198022430 191154276 180915260 171115067 159138663 146364022 141213431 135534747
        135006516 133851895 115169878 107349540 102531392 90354753 81195210 78077248 59128983 63025520 48129895
        51304566 155270560 59373566
    """,
    "GRCh38": """
        248956422 242193529 198295559 190214555 181538259 170805979 159345973 145138636 138394717 133797422
        135086622 133275309 114364328 107043718 101991189 90338345 83257441 80373285 58617616 64444167 46709983
        50818468 156040895 57227415
    """,
    "CHM13v2": """
        248387328 242696752 201105948 193574945 182045439 172126628 160567428 146259331 150617247 134758134
        135127769 133324548 113566686 101161492 99753195 96330374 84276897 80542538 61707364 66210255 45090682
        51324926 154259566 62460029
    """,
}
_BUILD = {
    (name, int(length)): build
    for build, text in _LENGTHS.items()
    for name, length in zip(_CONTIGS, text.split(), strict=True)
}


def build_of(contigs: Mapping[str, int | None]) -> str | None:
    """The build whose lengths the declared contigs have, by most of them;
    None where no human chromosome has a known length."""
    votes: dict[str, int] = {}
    for name, length in contigs.items():
        build = None if length is None else _BUILD.get((shared_contig(name), length))
        if build is not None:
            votes[build] = votes.get(build, 0) + 1
    return max(votes, key=lambda build: votes[build]) if votes else None


_CALLED = {"hg19": "GRCh37", "b37": "GRCh37", "hs37": "GRCh37", "hg38": "GRCh38", "hs38": "GRCh38"}
_CALLED |= {"hs1": "CHM13v2", "chm13": "CHM13v2", "t2t": "CHM13v2", **{name.lower(): name for name in _LENGTHS}}


def build_called(name: str) -> str | None:
    """The build that people mean by a name, as hg19 or GRCh37.p13 GRCh37; None for one that is unknown."""
    text = name.lower()
    known = [called for called in _CALLED if text.startswith(called) and not text[len(called) :][:1].isalnum()]
    return _CALLED[known[0]] if known else None
