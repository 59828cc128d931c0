"""bigWigs against pyBigWig, which wrote them, against a file written here byte by byte, and damaged in every way."""

from __future__ import annotations

import random
import struct
import zlib
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyBigWig
import pytest

from genodl_spark.core.errors import InputError
from genodl_spark.formats.bigwig import Track
from genodl_spark.formats.variant_tracks import VariantTracks
from genodl_spark.genome.reference import Reference

LENGTHS = {"chr1": 60_000, "chr2": 20_000, "chrUn_x": 500, "chrM": 300}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, np.ndarray]]:
    """A file with stretches of all three forms and gaps between, and the value of every base."""
    path, draw = tmp_path_factory.mktemp("bigwig") / "all.bw", np.random.default_rng(0)
    truth = {name: np.full(size, np.nan, np.float32) for name, size in LENGTHS.items()}
    with pyBigWig.open(str(path), "w") as file:
        file.addHeader(list(LENGTHS.items()))
        starts = np.arange(0, 30_000, 10)
        ends = starts + draw.integers(1, 11, len(starts))
        values = draw.normal(size=len(starts)).astype(np.float32)
        file.addEntries(["chr1"] * len(starts), starts.tolist(), ends=ends.tolist(), values=values.tolist())
        for start, end, value in zip(starts, ends, values, strict=True):
            truth["chr1"][start:end] = value
        starts = np.sort(draw.choice(np.arange(40_000, 59_000, 4), 2000, replace=False))
        values = draw.normal(size=len(starts)).astype(np.float32)
        file.addEntries("chr1", starts.tolist(), values=values.tolist(), span=3)
        for start, value in zip(starts, values, strict=True):
            truth["chr1"][start : start + 3] = value
        values = draw.normal(size=3000).astype(np.float32)
        file.addEntries("chr2", 100, values=values.tolist(), span=2, step=5)
        for place, value in enumerate(values):
            truth["chr2"][100 + 5 * place : 102 + 5 * place] = value
        file.addEntries(["chrM"], [0], ends=[300], values=[0.1])
        truth["chrM"][:] = 0.1
    return str(path), truth


def mean_of(values: np.ndarray, start: int, end: int) -> float:
    some = values[max(start, 0) : end].astype(np.float64)
    return float(some[~np.isnan(some)].mean()) if (~np.isnan(some)).any() else np.nan


def test_values_are_those_that_were_written(written: tuple[str, dict[str, np.ndarray]]) -> None:
    path, truth = written
    track, other, draw = Track(path), pyBigWig.open(path), np.random.default_rng(1)
    assert track.contigs == LENGTHS == other.chroms()
    for name, size in LENGTHS.items():
        start = draw.integers(0, size, 4000)
        end = start + np.where(draw.random(4000) < 0.7, 1, draw.integers(1, 400, 4000))
        found = track.means(name, start, end)
        expected = [mean_of(truth[name], a, b) for a, b in zip(start.tolist(), end.tolist(), strict=True)]
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-15)
        single = np.arange(0, size, 7)
        np.testing.assert_array_equal(track.means(name, single, single + 1).astype(np.float32), truth[name][single])
        theirs = np.array(other.values(name, 0, size), np.float32)
        np.testing.assert_array_equal(theirs, truth[name])
        again = draw.permutation(4000)  # the order of what is asked changes nothing, nor what is asked beside it
        np.testing.assert_array_equal(track.means(name, start[again], end[again]), found[again])
        np.testing.assert_array_equal(track.means(name, start[:5], end[:5]), found[:5])
    assert track.means("chr1", np.zeros(0, np.int64), np.zeros(0, np.int64)).shape == (0,)
    assert (track.contig("1"), track.contig("MT"), track.contig("chrUn_x"), track.contig("Un_x")) == (
        *("chr1", "chrM", "chrUn_x"),
        None,
    )


def by_hand(order: str, packed: bool, levels: int) -> bytes:
    """A bigWig of contigs a (100 bases) and b (50): values for bases 10 to 12, 90 and 92 of a, and for 7 of b, each in
    a block of its own. `levels` of nodes above the leaves of both trees."""
    o, body = order, bytearray(64)

    def put(data: bytes) -> int:
        body.extend(data)
        return len(body) - len(data)

    contigs = put(struct.pack(f"{o}IIIIQQ", 0x78CA8C91, 2, 3, 8, 2, 0))
    for _ in range(levels):
        put(struct.pack(f"{o}BBH3sQ", 0, 0, 1, b"a", len(body) + 15))
    put(struct.pack(f"{o}BBH3sII3sII", 1, 0, 2, b"a\0\0", 0, 100, b"b\0\0", 1, 50))
    rows = [(0, 10, 12, 0.5), (0, 90, 91, float("nan")), (0, 92, 93, -2.0), (1, 7, 8, 4.0)]
    places = []
    for contig, start, end, value in rows:
        block = struct.pack(f"{o}IIIIIBBHIIf", contig, start, end, 0, 0, 1, 0, 1, start, end, value)
        block = zlib.compress(block) if packed else block
        places.append((put(block), len(block)))
    index = put(struct.pack(f"{o}IIQIIIIQII", 0x2468ACE0, 4, 4, 0, 10, 1, 8, len(body), 1, 0))
    for _ in range(levels):
        put(struct.pack(f"{o}BBHIIIIQ", 0, 0, 1, 0, 10, 1, 8, len(body) + 28))
    put(struct.pack(f"{o}BBH", 1, 0, len(rows)))
    for (contig, start, end, _), place in zip(rows, places, strict=True):
        put(struct.pack(f"{o}IIIIQQ", contig, start, contig, end, *place))
    body[:64] = struct.pack(
        f"{o}IHHQQQHHQQIQ", 0x888FFC26, 4, 0, contigs, places[0][0], index, 0, 0, 0, 0, 64 * packed, 0
    )
    return bytes(body)


@pytest.mark.parametrize("levels", [0, 3])
@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("order", ["<", ">"])
def test_files_of_either_order_packed_or_not_and_of_any_depth(
    order: str, packed: bool, levels: int, tmp_path: Path
) -> None:
    path = tmp_path / "by hand.bw"
    path.write_bytes(by_hand(order, packed, levels))
    track = Track(str(path))
    assert track.contigs == {"a": 100, "b": 50}
    with fsspec.open("memory://tracks/by hand.bw", "wb") as file:  # a store that is no disk
        file.write(path.read_bytes())
    assert Track("memory://tracks/by hand.bw").means("b", np.array([7]), np.array([8])) == [4]
    starts, ends = np.array([9, 10, 11, 12, 90, 0, 92]), np.array([10, 11, 14, 13, 91, 100, 93])
    expected = [np.nan, 0.5, 0.5, np.nan, np.nan, (0.5 + 0.5 - 2) / 3, -2]
    np.testing.assert_allclose(track.means("a", starts, ends), expected)
    np.testing.assert_allclose(track.means("b", np.array([7, 8]), np.array([8, 9])), [4, np.nan])


def test_damage_is_told_and_ends_nothing(written: tuple[str, dict[str, np.ndarray]], tmp_path: Path) -> None:
    """Files cut off anywhere, and with bits turned in heads, trees, blocks: refused, or read as they were where what
    was hit is not read."""
    whole, path, draw = Path(written[0]).read_bytes(), tmp_path / "damaged.bw", random.Random(3)
    places = {name: np.arange(0, size - 5, 11) for name, size in LENGTHS.items()}
    good = Track(written[0])
    expected = {name: good.means(name, at, at + 3) for name, at in places.items()}
    told, same = 0, 0
    for attempt in range(400):
        data = bytearray(whole)
        if attempt % 4 == 0:
            del data[draw.randrange(len(data)) :]
        for _ in range(attempt % 4):
            data[draw.choice((draw.randrange(64), draw.randrange(len(data))))] ^= 1 << draw.randrange(8)
        path.write_bytes(data)
        error, found = None, {}
        try:
            track = Track(str(path))
            found = {name: track.means(name, at, at + 3) for name, at in places.items()}
        except InputError as caught:
            error = caught
        if error is None:
            same += 1
            assert attempt % 4 and all(np.array_equal(found[n], expected[n], equal_nan=True) for n in places)
        else:
            told += 1
            assert "\n" not in str(error) and "expected" in error.message and error.file == str(path)
            assert attempt % 4 or len(data) < 4 or "fetch it again" in error.message
    assert told > 250 and same > 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "found nothing; expected a bigWig"),
        (b"chr1\t1\t2\t0.5\n" * 9, "found 63 68 72 31 in front; expected a bigWig, which begins with 26 fc 8f 88"),
        (struct.pack("<I", 0x8789F2EB) + bytes(90), "found a bigBed; expected a bigWig"),
        (by_hand("<", True, 0)[:40], "found 40 bytes, where the file says that it has more"),
        (by_hand("<", True, 0)[:-9], "found [0-9]+ bytes, where the file says|an index that cannot be read"),
        (
            by_hand("<", True, 0)[:52] + b"\xff\xff\xff\xff" + by_hand("<", True, 0)[56:],
            "blocks of 4,294,967,295 bytes",
        ),
        (None, "no such file; expected a bigWig"),
    ],
)
def test_what_is_no_bigwig(content: bytes | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "x.bw"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        Track(str(path)).means("a", np.array([10]), np.array([11]))


def test_values_at_variants(written: tuple[str, dict[str, np.ndarray]]) -> None:
    """Of the bases that are replaced, or of both neighbours of what comes in, by brute force."""
    path, truth = written
    rows = {  # contig, pos, ref, alt -> 0-based bases that count
        ("1", 21, "A", "C"): [20],
        ("chr1", 24, "AC", "GT"): [23, 24],
        ("chr1", 24, "ACG", "A"): [24, 25],
        ("1", 24, "ACG", "-"): [23, 24, 25],
        ("1", 31, "A", "ATT"): [30, 31],
        ("1", 31, "-", "TT"): [29, 30],
        ("1", 1, "-", "TT"): [0],
        ("chr2", 101, "AC", "TGGGC"): [100],
        ("chr2", 104, "A", "C"): [103],
        ("1", 35_000, "A", "C"): [34_999],
        ("MT", 300, "A", "AC"): [299],
        ("3", 5, "A", "C"): [],
    }
    columns = {
        name: pa.array([str(row[place]) for row in rows]) for place, name in enumerate(("chrom", "pos", "ref", "alt"))
    }
    told: list[tuple[int, str]] = []
    tracks = VariantTracks({"phyloP 100": path}, None)
    found = tracks.texts(columns, None, np.arange(2, 2 + len(rows)), lambda *note: told.append(note))
    assert list(found) == ["phyloP 100"]
    texts = found["phyloP 100"].to_pylist()
    for (chrom, *_), places, text in zip(rows, rows.values(), texts, strict=True):
        contig = {"1": "chr1", "MT": "chrM"}.get(chrom, chrom)
        known = [float(truth[contig][at]) for at in places if not np.isnan(truth[contig][at])]
        assert known or not text, chrom
        assert not known or np.float32(text) == np.float32(np.mean(known)), chrom
    missing = [place for place, text in enumerate(texts) if not text]
    assert sorted(told) == [
        *((2 + place, "have no value of phyloP 100") for place in missing if place != 11),
        (13, "are of a contig that phyloP 100 does not have"),
    ]
    assert 8 in missing and 9 in missing and len(missing) < 7


def test_a_track_of_another_build_is_refused(tmp_path: Path) -> None:
    def track(name: str, **contigs: int) -> dict[str, str]:
        path = tmp_path / f"{name}.bw"
        with pyBigWig.open(str(path), "w") as file:
            file.addHeader(list(contigs.items()))
            file.addEntries([next(iter(contigs))], [1], ends=[3], values=[1.0])
        return {name: str(path)}

    def reference(text: str) -> dict[str, tuple[int, bool]]:
        path = tmp_path / "r.fa"
        path.write_text(text)
        return Reference(str(path)).reaches

    whole = reference(">chr1\nACGTA\n>M\nACG\n")
    assert whole == {"1": (5, True), "MT": (3, True)}
    assert VariantTracks(track("same", chr1=5, chrM=3, chr7=9), {None: whole})
    with pytest.raises(InputError, match=r"found 6 bases of chr1 where the reference has 5; expected contigs as long"):
        VariantTracks(track("longer", chr1=6), {None: whole})
    other = VariantTracks(track("mitochondrion", chrM=4), {None: whole})  # that of hg19 has another length
    columns = {"chrom": ["MT"], "pos": ["2"], "ref": ["C"], "alt": ["T"]}
    texts = other.texts({name: pa.array(of) for name, of in columns.items()}, None, np.array([2]), lambda *_: None)
    assert texts["mitochondrion"].to_pylist() == [""]

    part = reference(">x hg19_chr1:11-15\nACGTA\n>y hg19_chr1:1-5\nACGTA\n")
    assert part["1"] == (15, False)
    assert VariantTracks(track("enough", chr1=15), {"hg19": part})
    with pytest.raises(InputError, match="found 14 bases of 1 where the reference has 15"):
        VariantTracks(track("short", **{"1": 14}), {"hg19": part})
    both = {"GRCh37": {"17": (50, False)}, "GRCh38": {"17": (60, False)}}
    of38 = track("of38", chr17=83_257_441)
    with pytest.raises(InputError, match="found contigs of GRCh38; expected those of hg19, as the reference has it"):
        VariantTracks(of38, {"hg19": {"17": (50, False)}})
    with pytest.raises(InputError, match="found contigs of no known build; expected those of GRCh37 and GRCh38"):
        VariantTracks(track("unknown", chr17=70), both)
    columns = {"chrom": ["17"] * 2, "pos": ["2"] * 2, "ref": ["C"] * 2, "alt": ["T"] * 2}
    told: list[tuple[int, str]] = []
    texts = VariantTracks(of38, both).texts(
        {name: pa.array(of) for name, of in columns.items()},
        pa.array(["GRCh37", "GRCh38"]),
        np.array([2, 3]),
        lambda *note: told.append(note),
    )
    assert texts["of38"].to_pylist() == ["", "1"]
    assert told == [(2, "are of a build that of38 is not of")]
