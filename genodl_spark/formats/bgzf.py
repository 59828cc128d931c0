"""BGZF, the blocked gzip of bgzip and tabix (SAM specification, section 4.1):
writing, and reading from any place in a file.

Blocks are independent gzip members of at most 64 KiB that say how long they are, so a file can be read in pieces.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Protocol, cast

from isal import isal_zlib

BLOCK = 0xFF00  # bytes of text per block, as bgzip has it: what does not compress still fits a block of 64 KiB
LARGEST = 1 << 16  # bytes of a block, and of the text in it
# Section 4.1.2: the empty block that ends every file.
END = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")
InflateError = cast("type[Exception]", isal_zlib.error)  # the stub of isal has it as an instance
_READ = 1 << 20
_MAGIC = b"\x1f\x8b\x08\x04"
_HEADER, _SUBFIELD, _TRAILER = struct.Struct("<4s6xH"), struct.Struct("<2sH"), struct.Struct("<2I")


class Sink(Protocol):
    """What can take bytes."""

    def write(self, data: bytes) -> object: ...


class Broken(Exception):
    """What is wrong with a compressed file. `at`: byte of the file where the bad block starts;
    None where no block is to blame."""

    def __init__(self, found: str, at: int | None = None) -> None:
        super().__init__(found)
        self.at = at


class Writer:
    """Compresses bytes into blocks; `close` writes the rest and the block that ends a file. The sink stays open."""

    def __init__(self, sink: Sink, level: int = 6) -> None:
        self._sink, self._level = sink, level
        self._held = bytearray()

    def write(self, data: bytes) -> None:
        self._held += data
        whole = len(self._held) - len(self._held) % BLOCK
        for start in range(0, whole, BLOCK):
            self._sink.write(block(bytes(self._held[start : start + BLOCK]), self._level))
        del self._held[:whole]

    def flush(self) -> None:
        """Ends a block here."""
        if self._held:
            self._sink.write(block(bytes(self._held), self._level))
            self._held.clear()

    def close(self) -> None:
        self.flush()
        self._sink.write(block(b"", self._level))


def block(text: bytes, level: int = 6) -> bytes:
    """One block of at most BLOCK bytes of text; of none, the block that ends a file.

    `level`: zlib's 4 to 9; 1 to 3 are isal's, which is 15 times as fast as 6 for a file a quarter larger.
    """
    library = isal_zlib if 0 < level <= 3 and text else zlib  # the block that ends a file is zlib's, byte for byte
    packer = library.compressobj(level, zlib.DEFLATED, -15)
    packed = packer.compress(text) + packer.flush()
    if len(packed) + 26 > 1 << 16:  # noise grows under deflate: store it
        packer = zlib.compressobj(0, zlib.DEFLATED, -15)
        packed = packer.compress(text) + packer.flush()
    header = struct.pack("<4BI2BH2B2H", 31, 139, 8, 4, 0, 0, 255, 6, ord("B"), ord("C"), 2, len(packed) + 25)
    return header + packed + struct.pack("<2I", zlib.crc32(text), len(text))


def is_bgzf(first: bytes) -> bool:
    """Whether a file with these first bytes (64 KiB, or all there are) is BGZF;
    also where only BGZF's own mark is left of its header."""
    return _header(first, 0) is not None or first[12:16] == b"BC\2\0"


def _header(data: bytes, at: int) -> tuple[int, int] | None:
    """Bytes of the header and of the whole block at `at`; None where there is no BGZF header, or not all of it."""
    if len(data) - at < _HEADER.size:
        return None
    magic, extra = _HEADER.unpack_from(data, at)
    if magic != _MAGIC:
        return None
    place, end, size = at + _HEADER.size, at + _HEADER.size + extra, 0
    if end > len(data):
        return None
    while place + _SUBFIELD.size <= end:  # others may stand beside BC
        name, length = _SUBFIELD.unpack_from(data, place)
        place += _SUBFIELD.size + length
        if name == b"BC" and length == 2 and place <= end:
            size = int.from_bytes(data[place - 2 : place], "little") + 1
    header = end - at
    return (header, size) if place == end and size >= header + _TRAILER.size else None


def _text(data: bytes, at: int, header: int, size: int) -> bytes:
    """The text of the block at `at`, whose lengths are known. ValueError where it is corrupt."""
    checksum, length = _TRAILER.unpack_from(data, at + size - _TRAILER.size)
    if length > LARGEST:
        raise ValueError(f"{length} bytes of text in one")
    try:
        # Room for one byte more lets the inflater see that it is at the end without growing its buffer.
        text = isal_zlib.decompress(memoryview(data)[at + header : at + size - _TRAILER.size], -15, length + 1)
    except InflateError as error:
        raise ValueError(str(error)) from error
    if len(text) != length or isal_zlib.crc32(text) != checksum:
        raise ValueError("wrong checksum or length")
    return text


def blocks(read: Callable[[int], bytes], offset: int = 0) -> Iterator[tuple[int, bytes]]:
    """Yields (byte of the file after the block, its text) for every block from `offset` on,
    which is where `read` stands.

    `read(n)` gives at most n bytes, none at the end of the file. Broken for a block whose header,
    length or checksum is wrong, a file that ends within a block, and one whose last block is not the empty
    one that says that the file is whole.
    """
    data, at, last = b"", 0, b""
    while True:
        found = _header(data, at)
        if found is None or at + found[1] > len(data):
            if len(data) - at < 2 * LARGEST and (more := read(_READ)):
                data, offset, at = data[at:] + more, offset + at, 0
                continue
            if at == len(data):
                break
            if found is not None or (len(data) - at < 18 and _MAGIC.startswith(data[at : at + 4])):
                raise Broken("found a bgzip file that is cut off", offset + at)
            raise Broken("found corrupt data where a bgzip block should start", offset + at)
        try:
            text = _text(data, at, *found)
        except ValueError as error:
            raise Broken(f"found a corrupt bgzip block ({error})", offset + at) from error
        last = data[at : at + found[1]] if not text else b""
        at += found[1]
        yield offset + at, text
    if last != END:
        raise Broken("found a bgzip file without its end-of-file block, so it is cut off")


def first_block(read_at: Callable[[int, int], bytes], at: int, size: int) -> int:
    """Byte at which the first block at or after byte `at` starts; `size`, that of the file
    in bytes, where there is none.

    `read_at(n, offset)` gives n bytes, fewer at the end of the file. Compressed data may look like a header, even
    like whole blocks (text that was itself bgzipped). But a block is at most 64 KiB, so what lies inside of one cannot
    be the start of a gapless run of sound blocks that long. The answer depends on the file and `at` alone. It is wrong
    in a file that is corrupt around `at`: who reads up to `at` from before must check that he arrives at the same byte.
    """
    if at <= 0 or at >= size:
        return min(max(at, 0), size)
    data = read_at(3 * LARGEST, at)
    candidate = data.find(_MAGIC, 0, LARGEST + len(_MAGIC) - 1)
    while candidate >= 0:
        if _sound(data, candidate, at + len(data) >= size):
            return at + candidate
        candidate = data.find(_MAGIC, candidate + 1, LARGEST + len(_MAGIC) - 1)
    if size - at >= LARGEST:
        raise Broken("found no bgzip block within 64 KiB", at)
    return size


def _sound(data: bytes, start: int, to_end: bool) -> bool:
    """Whether sound blocks follow each other from `start` for LARGEST bytes, or to the end of the data
    where that ends the file."""
    at = start
    while at < start + LARGEST and not (to_end and at == len(data)):
        found = _header(data, at)
        if found is None or at + found[1] > len(data):
            return False
        try:
            _text(data, at, *found)
        except ValueError:
            return False
        at += found[1]
    return True
