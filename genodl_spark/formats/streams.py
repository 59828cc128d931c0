"""Text files as blocks of whole lines: bgzip, gzip or plain, told apart by their first bytes; whole, or in splits.

A split is a range of a file's bytes that is read on its own. Its lines are those that follow a line end within its own
text, and in the first split also the file's first line. So a line belongs to the split that holds the line end before
it, each line to one, wherever the ranges are cut; and no split needs to know what lies before it.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

import pyarrow as pa
import pyarrow.fs as pafs
from isal import isal_zlib

from genodl_spark.core import storage
from genodl_spark.core.errors import InputError
from genodl_spark.formats import bgzf
from genodl_spark.formats.bgzf import Broken
from genodl_spark.native import kernels

BLOCK = 4 << 20
LONGEST = 1 << 30  # bytes of a line: places within a block of lines are 32-bit
BGZF_END = bgzf.END
_READ = 1 << 20
_MOST = 8 << 20  # read at a time: small files whole, so that nothing is put together
# What the inflater leaves unused after a gzip member is copied: small pieces keep that cheap
# for files of thousands of members.
_PIECE = 1 << 16
_TOLD = 8  # bytes that tell UTF-16 without a mark
_BOM = b"\xef\xbb\xbf"
# is told of a line that is not stored as it is: its number, from 1, and the end of "lines ..."
Note = Callable[[int, str], None]
_MEND = "expected a whole file, fetch or compress it again"
# What files that are no text, or text in a form that is not read here, start with.
_FOREIGN = {
    b"BZh": "a bzip2 file",
    b"\xfd7zXZ\0": "an xz file",
    b"\x28\xb5\x2f\xfd": "a zstd file",
    b"\x04\x22\x4d\x18": "an lz4 file",
    b"\x1f\x9d": "a file of compress (.Z)",
    b"7z\xbc\xaf\x27\x1c": "a 7-Zip archive",
    b"PK\x03\x04": "a zip archive, as spreadsheets (xlsx) are too",
    b"\xd0\xcf\x11\xe0": "an old Office file (xls)",
    b"\x89HDF": "an HDF5 file",
    b"PAR1": "a Parquet file",
    b"\xff\xfe": "text in UTF-16",
    b"\xfe\xff": "text in UTF-16",
}


@dataclass(frozen=True)
class Split:
    """Bytes `start` to `end` (not included) of a file, as stored. A bgzip block is the split's in which it starts."""

    start: int
    end: int


class _Overlong(Exception):
    """A line is longer than it may be."""


def line_blocks(raw: BinaryIO, file: str, size: int = BLOCK, longest: int = LONGEST) -> Iterator[tuple[int, bytes]]:
    """Yields (number of the first line, block): blocks of whole lines of about `size` bytes; lines count from 1.

    A byte-order mark at the start of the file is dropped, CRLF becomes LF, a last line without an end gets one.
    Memory stays within a few times `size` or the longest line. InputError, naming the last line read,
    for a compressed file that is cut off, corrupt, or (bgzip) without its end-of-file block,
    for a file that is no such text by its first bytes, and for a line of more than `longest` bytes.
    """
    number = 1
    lines = _Lines(((True, text) for text in _inflated(raw.read, file, size)), size, True, longest)
    try:
        for block in lines:
            yield number, block
            number += kernels.call("count_lines", block, len(block))
    except Broken as broken:
        line = number + lines.ends_held()
        raise InputError(f"{broken} after line {line}; {_MEND}", file, line) from broken
    except _Overlong as overlong:
        raise InputError(str(overlong), file, number) from overlong


def splits(uri: str, target: int) -> list[Split]:
    """Cuts a file into ranges of about `target` bytes as stored, by its size and first bytes alone;
    gzip that is not bgzip is one range.

    InputError when the file is absent.
    """
    with _opened(uri) as (raw, size):
        first = raw.read_at(bgzf.LARGEST, 0)
    pieces = max(1, round(size / target)) if bgzf.is_bgzf(first) or not _is_gzip(first) else 1
    return [Split(size * i // pieces, size * (i + 1) // pieces) for i in range(pieces)]


def whole(uri: str) -> Split:
    """A file as one piece."""
    return Split(0, storage.size(uri))


def split_blocks(uri: str, split: Split, size: int = BLOCK, longest: int = LONGEST) -> Iterator[bytes]:
    """Yields the lines of one split (the module says which these are) in blocks of whole lines of about `size` bytes.

    Over all splits of a file, in order, the blocks join to the text that `line_blocks` gives. A split reads past
    its end only to the end of its last line. InputError, naming the file's byte, for a file that is cut off or corrupt
    where the split reads it; damage that hides the start of a block from one split is found by the split before.
    Also for a line of more than `longest` bytes.
    """
    with _chunks(uri, split) as chunks:
        try:
            yield from _Lines(chunks, size, split.start == 0, longest)
        except _Overlong as overlong:
            raise InputError(str(overlong), uri) from overlong


def numbered_blocks(uri: str, split: Split, first: int) -> Iterator[tuple[int, bytes]]:
    """(Number of its first line, block of whole lines) of one split, whose first line has the number `first`.
    InputError as for the others."""
    if splits(uri, split.end - split.start or 1) == [split]:
        with storage.open_input(uri) as raw:  # the whole file: its errors name the last line read
            yield from line_blocks(raw, uri)
        return
    for block in split_blocks(uri, split):
        yield first, block
        first += kernels.call("count_lines", block, len(block))


def first_line(uri: str) -> bytes:
    """The first line of a file, without its end; nothing for an empty file. InputError as for `line_blocks`."""
    with storage.open_input(uri) as raw:
        return next(line_blocks(raw, uri), (1, b""))[1].partition(b"\n")[0]


def first_lines(uri: str, count: int) -> list[bytes]:
    """The first lines of a file, at most so many, without their ends. InputError as for `line_blocks`."""
    found: list[bytes] = []
    with storage.open_input(uri) as raw:
        for _, block in line_blocks(raw, uri, 1 << 16):
            found += block.split(b"\n", count)[:-1]
            if len(found) >= count:
                break
    return found[:count]


def count_lines(uri: str, split: Split) -> int:
    """Lines that `split_blocks` gives, without putting blocks together; one for a file of a byte-order mark alone.
    InputError as there."""
    lines, inside, open_ = 0, split.start == 0, False
    with _chunks(uri, split) as chunks:
        for own, chunk in chunks:
            if not own:
                if not inside:
                    return 0
                if b"\n" in chunk:
                    return lines + 1
            ends = kernels.call("count_lines", chunk, len(chunk))
            if not inside and not ends:
                continue
            lines += ends if inside else ends - 1
            inside, open_ = True, not chunk.endswith(b"\n") if chunk else open_
    return lines + open_


@contextlib.contextmanager
def _chunks(uri: str, split: Split) -> Iterator[Iterator[tuple[bool, bytes]]]:
    """(Whether it is the split's own, text) from where the split starts to the end of the file.
    InputError as for `split_blocks`."""
    with _opened(uri) as (raw, stored):
        first = raw.read_at(bgzf.LARGEST, 0)
        _refuse_foreign(first, uri)
        if bgzf.is_bgzf(first):
            chunks = _bgzf_chunks(raw, split, stored)
        elif not _is_gzip(first):
            chunks = _plain_chunks(raw, split)
        elif (split.start, split.end) == (0, stored):
            chunks = ((True, text) for text in _inflated(_reader(raw, 0), uri))
        else:
            raise ValueError(f"{split} of {uri}: gzip is read whole")
        try:
            yield chunks
        except Broken as broken:
            place = "" if broken.at is None else f" at byte {broken.at}"
            raise InputError(f"{broken}{place}; {_MEND}", uri) from broken


@contextlib.contextmanager
def _opened(uri: str) -> Iterator[tuple[pa.NativeFile, int]]:
    """A file to read anywhere in, and its size in bytes."""
    fs, path = storage.filesystem(uri)
    info = fs.get_file_info(path)
    if info.type != pafs.FileType.File:
        raise InputError("no such file; expected a readable file, check the path", uri)
    with fs.open_input_file(path) as raw:
        yield raw, int(info.size)


class _Lines:
    """Chunks of text to blocks of whole lines. A chunk is (whether it is the split's own, text);
    those that are not come last.

    _Overlong for a line of more than `longest` bytes, before more of it is held.
    """

    def __init__(self, chunks: Iterator[tuple[bool, bytes]], size: int, first: bool, longest: int) -> None:
        self._chunks, self._size, self._first, self._longest = chunks, size, first, longest
        self._parts: list[bytes] = []

    def ends_held(self) -> int:
        """Line ends in the text that has come and not left."""
        return sum(part.count(b"\n") for part in self._parts)

    def __iter__(self) -> Iterator[bytes]:
        parts, held, searched, inside, start = self._parts, 0, 0, self._first, self._first
        for own, chunk in self._chunks:
            if not own and not inside:
                return
            end = chunk.find(b"\n") + 1 if not (inside and own) else 0
            if held > max(self._longest, self._size):
                raise _Overlong(
                    f"found a line of more than {self._longest:,} bytes; expected at most that, "
                    "mend the file's line ends or allow more"
                )
            if not own:
                parts.append(chunk[:end] if end else chunk)
                held += len(chunk)
                if end:
                    break
                continue
            if not inside:
                if not end:
                    continue
                inside, chunk = True, chunk[end:]
            parts.append(chunk)
            held += len(chunk)
            if held < self._size:
                continue
            # A line of many megabytes comes in many chunks: look for its end in the new ones only.
            last = next((i for i in range(len(parts) - 1, searched - 1, -1) if b"\n" in parts[i]), None)
            if last is None:
                searched = len(parts)
                continue
            end = parts[last].rfind(b"\n") + 1
            rest = [parts[last][end:], *parts[last + 1 :]]
            block = b"".join([*parts[:last], memoryview(parts[last])[:end]])
            parts[:], held, searched = rest, sum(map(len, rest)), len(rest)
            yield from _ended(block, start)
            start = False
        block = b"".join(parts)
        parts.clear()
        yield from _ended(block, start)


def _ended(block: bytes, start: bool) -> Iterator[bytes]:
    """The block, if anything is left of it, without the mark at the `start` of a file and with lines that end in LF."""
    if start:
        block = block.removeprefix(_BOM)
    if block and not block.endswith(b"\n"):
        block += b"\n"
    if block:
        yield block.replace(b"\r\n", b"\n") if b"\r" in block else block


def _reader(raw: pa.NativeFile, start: int) -> Callable[[int], bytes]:
    """`read(n)` from byte `start` on; pyarrow's own position is lost where `read_at` is used too."""
    at = start

    def read(count: int) -> bytes:
        nonlocal at
        data = raw.read_at(count, at)
        at += len(data)
        return data

    return read


def _bgzf_chunks(raw: pa.NativeFile, split: Split, stored: int) -> Iterator[tuple[bool, bytes]]:
    def start_after(byte: int) -> int:
        return bgzf.first_block(raw.read_at, byte, stored)

    at = start_after(split.start)
    if at >= split.end:
        return  # the whole range lies within one block, which starts in a split before
    own = True

    def check_end() -> None:
        if at >= split.end and start_after(split.end) != at:
            raise Broken("found a bgzip block that cannot be told from the damage around it", at)

    for after, text in bgzf.blocks(_reader(raw, at), at):
        if own and at >= split.end:
            check_end()
            own = False
        yield own, text
        at = after
    if own:
        check_end()


def _plain_chunks(raw: pa.NativeFile, split: Split) -> Iterator[tuple[bool, bytes]]:
    read, left = _reader(raw, split.start), split.end - split.start
    while left and (chunk := read(min(_READ, left))):
        left -= len(chunk)
        yield True, chunk
    while chunk := read(_PIECE):
        yield False, chunk


def _is_gzip(first: bytes) -> bool:
    return first[:2] in (b"\x1f\x8b", b"\x1f")  # the second: a file cut off after one byte


def _refuse_foreign(first: bytes, file: str) -> None:
    kind = next((kind for magic, kind in _FOREIGN.items() if first.startswith(magic)), None)
    if kind is None and _alternating(first[:_TOLD]):
        kind = "text in UTF-16"
    if kind is not None:
        raise InputError(
            f"found {kind}; expected text in UTF-8, plain or compressed by gzip or bgzip: convert the file", file, 1
        )


def _alternating(first: bytes) -> bool:
    """Whether every other byte is zero and none between: letters of UTF-16 without a mark in front."""
    halves = first[::2], first[1::2]
    return len(first) == _TOLD and any(not any(a) and all(b) for a, b in (halves, halves[::-1]))


def _inflated(read: Callable[[int], bytes], file: str, size: int = _READ) -> Iterator[bytes]:
    """The text of a whole file in chunks of about `size` bytes, but 64 KiB at least and 8 MiB at most. Broken as for
    `bgzf.blocks`, InputError for what is no text by its first bytes, as they are stored and as they are inflated."""
    texts = _texts(read, file, min(max(size, bgzf.LARGEST), _MOST))
    head = next(texts, b"")
    _refuse_foreign(head, file)
    yield from itertools.chain([head] if head else [], texts)


def _texts(read: Callable[[int], bytes], file: str, size: int) -> Iterator[bytes]:
    first = read(size)
    while 0 < len(first) < bgzf.LARGEST and (more := read(size)):  # a stream may return less than it was asked for
        first += more
    _refuse_foreign(first, file)
    pieces = itertools.chain([first] if first else [], iter(lambda: read(size), b""))
    if bgzf.is_bgzf(first):
        yield from (text for _, text in bgzf.blocks(lambda _: next(pieces, b"")))
    elif _is_gzip(first):
        yield from _members(piece[start : start + _PIECE] for piece in pieces for start in range(0, len(piece), _PIECE))
    else:
        yield from pieces


def _members(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The text of gzip members, one behind the other, perhaps with zeros between and after them."""
    member = None
    data = b""
    while True:
        if member is not None and member.eof:
            member = None
        if member is None:
            data = data.lstrip(b"\0")  # padding after a member is allowed, and no member starts with it
        if not data:
            data = next(pieces, b"")
            if not data:
                break
            continue
        if member is None:
            member = isal_zlib.decompressobj(wbits=31)
        try:
            text = member.decompress(data, _READ)
        except bgzf.InflateError as error:
            raise Broken(f"found corrupt gzip data ({error})") from error
        data = member.unused_data if member.eof else member.unconsumed_tail
        if text:
            yield text
    if member is not None:
        raise Broken("found a gzip file that is cut off")
