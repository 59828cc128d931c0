"""Files read in splits against the same files read whole, and damage of every kind, which must never pass for text."""

from __future__ import annotations

import gzip
import io
import itertools
import random
import shutil
import struct
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from genodl_spark.core.errors import InputError
from genodl_spark.formats import bgzf
from genodl_spark.formats.streams import Split, count_lines, line_blocks, split_blocks, splits

FAST = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def whole(content: bytes) -> bytes:
    return b"".join(block for _, block in line_blocks(io.BytesIO(content), "x"))


def pieces(path: Path, cut: list[Split], size: int = 1 << 22) -> list[bytes]:
    """The text of each split, whose lines are counted by the way."""
    found = [b"".join(split_blocks(str(path), split, size)) for split in cut]
    if any(found):  # a byte-order mark alone is counted as a line
        assert [count_lines(str(path), split) for split in cut] == [text.count(b"\n") for text in found]
    return found


def cuts(at: list[int], size: int) -> list[Split]:
    """Splits at any bytes of a file, whatever `splits` would choose."""
    edges = [0, *sorted(a % (size + 1) for a in at), size]
    return [Split(a, b) for a, b in itertools.pairwise(edges) if a < b]


def packed(text: bytes, sizes: list[int], level: int = 6) -> bytes:
    """BGZF with blocks of these bytes of text, over and over."""
    out, at, i = b"", 0, 0
    while at < len(text):
        n = sizes[i % len(sizes)]
        out += bgzf.block(text[at : at + n], level)
        at, i = at + n, i + 1
    return out + bgzf.END


def stored(text: bytes) -> bytes:
    """A block whose text stands in it as it is."""
    return bgzf.block(text, 0)


def expected_lines(text: bytes) -> bytes:
    text = text.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n")
    return text if text.endswith(b"\n") or not text else text.removesuffix(b"\r") + b"\n"


line = st.one_of(st.binary(max_size=6), st.integers(0, 120).map(lambda n: b"0|1\t" * n)).map(
    lambda b: b.replace(b"\n", b"\r")
)
text = st.tuples(st.booleans(), st.lists(line, max_size=12), st.sampled_from([b"\n", b"\r\n"]), st.booleans()).map(
    lambda t: b"\xef\xbb\xbf" * t[0] + t[2].join(t[1]) + t[2] * t[3]
)
sizes = st.lists(st.sampled_from([0, 1, 2, 3, 7, 50, 400, 3000]), min_size=1, max_size=6).filter(any)


@FAST
@given(
    text,
    sizes,
    st.sampled_from([0, 6]),
    st.integers(1, 1500),
    st.lists(st.integers(0, 1 << 20), max_size=8),
    st.integers(1, 3000),
)
def test_splits_of_bgzip_hold_every_line_once(
    tmp_path: Path, text: bytes, sizes: list[int], level: int, target: int, at: list[int], size: int
) -> None:
    content = packed(text, sizes, level)
    path = tmp_path / "x.gz"
    path.write_bytes(content)
    assert whole(content) == expected_lines(text)
    for cut in (splits(str(path), max(target, len(content) // 20)), cuts(at, len(content))):
        seen = pieces(path, cut, size)
        assert b"".join(seen) == expected_lines(text)
        assert all(piece == b"" or piece.endswith(b"\n") for piece in seen)


@FAST
@given(text, st.integers(1, 500), st.lists(st.integers(0, 1 << 20), max_size=8), st.integers(1, 300))
def test_splits_of_plain_text_hold_every_line_once(
    tmp_path: Path, text: bytes, target: int, at: list[int], size: int
) -> None:
    if text[:2] == b"\x1f\x8b":
        return
    path = tmp_path / "x.txt"
    path.write_bytes(text)
    for cut in (splits(str(path), target), cuts(at, len(text))):
        assert b"".join(pieces(path, cut, size)) == expected_lines(text)


def test_a_split_at_every_byte(tmp_path: Path) -> None:
    text = b"\xef\xbb\xbfa\nbb\r\n" + b"c" * 300 + b"\n\n\nd\ne"
    content = packed(text, [1, 5, 0, 100, 0, 0, 2])
    path = tmp_path / "x.gz"
    path.write_bytes(content)
    for at in range(1, len(content)):
        assert b"".join(pieces(path, [Split(0, at), Split(at, len(content))])) == expected_lines(text), at
    assert b"".join(pieces(path, [Split(at, at + 1) for at in range(len(content))])) == expected_lines(text)


def test_blocks_are_whole_lines_of_about_the_size_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "x.gz"
    path.write_bytes(packed(b"".join(b"%d\n" % (i * 2654435761 % (1 << 32)) for i in range(100_000)), [bgzf.BLOCK]))
    cut = splits(str(path), path.stat().st_size // 3)
    assert len(cut) == 3 and (cut[0].start, cut[-1].end) == (0, path.stat().st_size)
    blocks = [list(split_blocks(str(path), split, 100_000)) for split in cut]
    assert all(block.endswith(b"\n") for one in blocks for block in one)
    assert all(90_000 < len(block) < 170_000 for one in blocks for block in one[:-1])
    assert all(len(one) > 1 for one in blocks)


def test_gzip_is_one_split(tmp_path: Path) -> None:
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(b"a\nb") + gzip.compress(b"c\r\n") + b"\0" * 9)
    assert splits(str(path), 5) == [Split(0, path.stat().st_size)]
    assert pieces(path, splits(str(path), 5)) == [b"a\nbc\n"]
    with pytest.raises(ValueError, match="read whole"):
        pieces(path, [Split(3, 9)])
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match="cut off"):
        pieces(path, splits(str(path), 5))
    path.write_bytes(b"")
    assert pieces(path, splits(str(path), 5)) == [b""]
    with pytest.raises(InputError, match="no such file"):
        splits(str(tmp_path / "absent"), 5)


def test_files_of_bgzip_and_extra_subfields(tmp_path: Path) -> None:
    text = b"".join(b"%d\n" % i for i in range(60_000))
    content = (
        subprocess.run(["bgzip", "-c"], input=text, capture_output=True, check=True).stdout
        if shutil.which("bgzip")
        else packed(text, [bgzf.BLOCK])
    )
    one = bgzf.block(b"first\n")
    # 11 bytes more of extra field: a subfield before BC and one behind it.
    extra = (
        struct.pack("<2sH3s", b"XY", 3, b"BC\2")
        + struct.pack("<2sHH", b"BC", 2, len(one) + 11 - 1)
        + struct.pack("<2sH", b"ZZ", 0)
    )
    content = one[:10] + struct.pack("<H", len(extra)) + extra + one[18:] + content
    path = tmp_path / "x.gz"
    path.write_bytes(content)
    assert whole(content) == b"first\n" + text
    assert b"".join(pieces(path, splits(str(path), 20_000))) == b"first\n" + text


def false_header(size: int) -> bytes:
    return bgzf.block(b"x")[:16] + struct.pack("<H", size - 1)


def test_what_looks_like_a_block_within_one_is_not_taken_for_it(tmp_path: Path) -> None:
    filler = b"\n".join(b"%d" % i for i in range(3000)) + b"\n"
    rng = random.Random(1)
    inner = packed(bytes(rng.randrange(256) for _ in range(40_000)), [500])  # sound blocks, one behind the other
    # The false block ends where the outer one does: a chain of headers from it never breaks.
    to_end = filler + false_header(18 + 300 + 8) + b"q" * 299 + b"\n"
    text = [filler, to_end, inner[:30_000], inner[30_000:], false_header(30) * 20 + b"\n", filler]
    content = b"".join(map(stored, text)) + bgzf.END
    joined = expected_lines(b"".join(text))
    at = content.index(false_header(326))
    after = len(stored(filler)) + len(stored(to_end))
    assert content[at + 326 :].startswith(stored(text[2])[:18]), "the false block must lead to a sound one"
    assert bgzf.first_block(lambda n, o: content[o : o + n], at - 3, len(content)) == after
    path = tmp_path / "x.gz"
    path.write_bytes(content)
    for target in (400, 1000, 7777, 30_000):
        assert b"".join(pieces(path, splits(str(path), target))) == joined


def or_refused(read: Callable[[], bytes]) -> bytes | InputError:
    try:
        return read()
    except InputError as error:
        return error


def refused_or_same(content: bytes, text: bytes, path: Path) -> bool:
    """Whether damage is refused, whole and in splits alike; where it is not, the text must be right."""
    path.write_bytes(content)
    in_whole = or_refused(lambda: whole(content))
    in_splits = or_refused(lambda: b"".join(pieces(path, splits(str(path), max(1, len(content) // 5)))))
    if isinstance(in_whole, InputError):
        assert in_whole.file == "x" and in_whole.line is not None
        assert isinstance(in_splits, InputError) and in_splits.file == str(path)
        return True
    assert in_whole == in_splits == text
    return False


TEXT = b"".join(b"%d\t%d\n" % (i, i * i % 977) for i in range(4000))


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_flipped_bits_are_refused_or_mean_nothing(tmp_path: Path, data: st.DataObject) -> None:
    block_size = data.draw(st.sampled_from([700, 5000, 40_000]))
    content = bytearray(packed(TEXT, [block_size], data.draw(st.sampled_from([0, 6]))))
    bounds = [0]
    while bounds[-1] < len(content):
        bounds.append(bounds[-1] + struct.unpack_from("<H", content, bounds[-1] + 16)[0] + 1)
    # Half of the flips go to headers and trailers, which are few bytes of many.
    near = st.tuples(st.sampled_from(bounds), st.integers(-8, 17)).map(lambda p: min(max(sum(p), 0), len(content) - 1))
    at, bit = data.draw(st.one_of(near, st.integers(0, len(content) - 1))), data.draw(st.integers(0, 7))
    content[at] ^= 1 << bit
    refused = refused_or_same(bytes(content), TEXT, tmp_path / "x.gz")
    offset = at - max(b for b in bounds if b <= at)
    if not refused and at >= bounds[1]:
        # MTIME, XFL and OS; bits of padding behind the deflated data are the rest that may flip.
        assert offset in range(4, 10) or offset >= 18, (at, bit)


@pytest.mark.parametrize("level", [0, 6])
def test_a_file_cut_anywhere_is_refused(tmp_path: Path, level: int) -> None:
    text = b"".join(b"%d\n" % i for i in range(150))
    content = packed(text, [150], level)
    for end in range(1, len(content), 2 if level else 5):
        assert refused_or_same(content[:end], text, tmp_path / "x.gz"), end


def test_wrong_trailers_missing_blocks_and_garbage_are_refused(tmp_path: Path) -> None:
    blocks = [bgzf.block(b"line %d\n" % i * 50) for i in range(9)]
    good = b"".join(blocks) + bgzf.END
    joined = b"".join(b"line %d\n" % i * 50 for i in range(9))
    assert not refused_or_same(good, joined, tmp_path / "x.gz")
    # bgzip files joined
    assert not refused_or_same(b"".join([*blocks[:4], bgzf.END, *blocks[4:]]) + bgzf.END, joined, tmp_path / "x.gz")
    for i in range(9):
        crc, length = struct.unpack("<2I", blocks[i][-8:])
        for trailer in ((crc ^ 1, length), (crc, length - 1), (crc, length + 1), (crc, 1 << 31)):
            wrong = [*blocks[:i], blocks[i][:-8] + struct.pack("<2I", *trailer), *blocks[i + 1 :], bgzf.END]
            assert refused_or_same(b"".join(wrong), joined, tmp_path / "x.gz"), (i, trailer)
        for garbage in (b"\0" * 5, b"\0" * 70_000, b"x", b"\x1f\x8b\x08\x04" * 9, gzip.compress(b"text\n")):
            wrong = [*blocks[: i + 1], garbage, *blocks[i + 1 :], bgzf.END]
            assert refused_or_same(b"".join(wrong), joined, tmp_path / "x.gz"), (i, garbage[:9])
    assert refused_or_same(b"".join(blocks), joined, tmp_path / "x.gz")
    assert refused_or_same(good + b"\0", joined, tmp_path / "x.gz")
    # more text than a block may have
    assert refused_or_same(bgzf.block(b"\n" * (bgzf.LARGEST + 1)) + good, joined, tmp_path / "x.gz")


def test_an_error_names_the_place(tmp_path: Path) -> None:
    blocks = [bgzf.block(b"line\n" * 50) for _ in range(9)]
    content = bytearray(b"".join(blocks) + bgzf.END)
    at = 4 * len(blocks[0])
    content[at + len(blocks[0]) - 8] ^= 1
    path = tmp_path / "x.gz"
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"x\.gz: found a corrupt bgzip block .* at byte {at}; expected a whole file"):
        pieces(path, [Split(0, len(content))])
    with pytest.raises(
        InputError, match=r"^x:201: found a corrupt bgzip block .* after line 201; expected a whole file"
    ):
        whole(bytes(content))


def test_damage_that_hides_a_block_from_a_split_is_found_by_the_one_before(tmp_path: Path) -> None:
    blocks = [bgzf.block(b"line %d\n" % i * 50) for i in range(9)]
    edge, path = sum(map(len, blocks[:4])), tmp_path / "x.gz"
    for hit in (edge, edge + len(blocks[4]) - 8, edge + len(blocks[4]), edge + len(blocks[4]) + 30):
        content = bytearray(b"".join(blocks) + bgzf.END)
        content[hit] ^= 0x10
        path.write_bytes(content)
        with pytest.raises(InputError):
            pieces(path, [Split(0, edge - 10)])


@FAST
@given(st.integers(1, 1 << 17), st.integers(1, 9), st.booleans())
def test_gzip_of_any_length_is_read_whole(repeats: int, level: int, second: bool) -> None:
    text = b"0|0\t0|1\t" * repeats + b"\n"
    packer = zlib.compressobj(level, zlib.DEFLATED, 31)
    content = packer.compress(text) + packer.flush()
    assert whole(content * (1 + second)) == text * (1 + second)
