"""Genome builds told by contig lengths, and the names that cohorts share."""

from __future__ import annotations

import pytest

from genodl_spark.genome.builds import build_called, build_of
from genodl_spark.genome.contigs import shared_contig


@pytest.mark.parametrize(
    ("contigs", "build"),
    [
        ({"chr1": 248956422, "chr2": 242193529}, "GRCh38"),
        ({"1": 249250621, "MT": 16569}, "GRCh37"),
        ({"chrX": 154259566}, "CHM13v2"),
        ({"chr1": 248956422, "2": 242193529, "20": 63025520}, "GRCh38"),
        ({"1": None, "2": 5, "chrUn": 249250621}, None),
        ({}, None),
    ],
)
def test_build_by_most_lengths(contigs: dict[str, int | None], build: str | None) -> None:
    assert build_of(contigs) == build


def test_shared_names() -> None:
    names = ["chr20", "20", "chrM", "MT", "chrX", "Y", "chrUn_gl000220", "HLA-A*01:01", "CHR1", "chr1_random", "chr"]
    assert [shared_contig(n) for n in names] == [
        "20",
        "20",
        "MT",
        "MT",
        "X",
        "Y",
        "chrUn_gl000220",
        "HLA-A*01:01",
        "CHR1",
        "chr1_random",
        "chr",
    ]


@pytest.mark.parametrize(
    ("name", "build"),
    [
        *[("hg19", "GRCh37"), ("GRCh37.p13", "GRCh37"), ("hs37d5", None), ("b37", "GRCh37"), ("grch38", "GRCh38")],
        *[
            ("hg38", "GRCh38"),
            ("hg380", None),
            ("hs1", "CHM13v2"),
            ("T2T-CHM13v2.0", "CHM13v2"),
            ("mm10", None),
            ("", None),
        ],
    ],
)
def test_builds_by_what_people_call_them(name: str, build: str | None) -> None:
    assert build_called(name) == build
