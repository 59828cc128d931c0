"""Places by name, and which of them are neighbours, beside definitions over all pairs."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.csgraph import connected_components

from genodl_spark.genome import loci
from genodl_spark.genome.loci import Loci


def test_names_say_where_they_are() -> None:
    for name, place in (
        ("chr1:1000-1200", ("chr1", 1000, 1200)),
        ("chrX:5-9(+)", ("chrX", 5, 9)),
        ("peak 7::20:5-9(-)", ("20", 5, 9)),
        ("KI270728.1:5-9", ("KI270728.1", 5, 9)),
        ("ELAVL1A_hg19:train:1", None),
        ("s1", None),
        ("chr1:1,000-1,200", None),
    ):
        assert loci.window(name) == place, name
    for name, place in (
        ("20:14370:G:A", ("20", 14369, 14370)),
        ("5:1295104:G:A:TERT-HEK", ("5", 1295103, 1295104)),
        ("20:10:ACG:-", ("20", 9, 12)),
        ("20:10:-:A", ("20", 9, 10)),
        ("20:10-20", None),
        ("20:10", None),
    ):
        assert loci.variant(name) == place, name
    found = Loci.of([("chr1", 5, 9), None, ("chrM", 9, 9), ("1", 0, 2)])
    assert found.contig.tolist() == ["1", "", "", "1"] and found.known.tolist() == [True, False, False, True]


_places = st.lists(
    st.one_of(
        st.none(),
        st.tuples(st.sampled_from(["a", "b"]), st.integers(0, 60), st.integers(1, 12)).map(
            lambda one: (one[0], one[1], one[1] + one[2])
        ),
    ),
    max_size=14,
)


def apart(one: tuple[str, int, int], two: tuple[str, int, int]) -> float:
    """Bases between two windows, 0 or less where they touch or overlap."""
    return np.inf if one[0] != two[0] else max(one[1], two[1]) - min(one[2], two[2])


@settings(max_examples=300, deadline=None)
@given(_places, st.integers(0, 9))
def test_neighbours_hang_together(places: list[tuple[str, int, int] | None], within: int) -> None:
    found = loci.neighbours(Loci.of(places), within)
    known = [i for i, place in enumerate(places) if place is not None]
    assert [i for i in range(len(places)) if found[i] < 0] == [i for i in range(len(places)) if places[i] is None]
    if known:
        near = np.array([[apart(places[i], places[j]) <= within for j in known] for i in known])  # type: ignore[arg-type]
        expected = connected_components(near, directed=False)[1]
        for one, i in enumerate(known):
            for two, j in enumerate(known):
                assert (found[i] == found[j]) == (expected[one] == expected[two])


@settings(max_examples=300, deadline=None)
@given(_places, st.tuples(st.integers(0, 70), st.integers(1, 9)))
def test_what_windows_cover(places: list[tuple[str, int, int] | None], asked: tuple[int, int]) -> None:
    merged = loci.merged(Loci.of(places))
    start, end = asked[0], asked[0] + asked[1]
    for contig in "ab":
        own = [place for place in places if place is not None and place[0] == contig]
        bases = {base for _, first, last in own for base in range(first, last)}
        starts, ends = merged.get(contig, (np.zeros(0, int), np.zeros(0, int)))
        assert [b for s, e in zip(starts, ends, strict=True) for b in range(s, e)] == sorted(bases)
        meets = loci.covered(np.array([start]), np.array([end]), merged.get(contig))
        assert meets.tolist() == [bool(bases & set(range(start, end)))]
