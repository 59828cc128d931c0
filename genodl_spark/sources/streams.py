"""Text files as blocks of whole lines: bgzip, gzip or plain, told apart by their first bytes."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import BinaryIO

from genodl_spark.errors import InputError

BLOCK = 4 << 20
_READ = 1 << 20
# What zlib leaves unused after a gzip member is copied: small pieces keep that cheap for bgzip, which has thousands of members.
_PIECE = 1 << 16
_BOM = b"\xef\xbb\xbf"
# SAM specification, section 4.1.2: the empty block that ends every BGZF file.
BGZF_END = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")


def line_blocks(raw: BinaryIO, file: str, size: int = BLOCK) -> Iterator[tuple[int, bytes]]:
    """Yields (number of the first line, block): blocks of whole lines of about `size` bytes; lines count from 1.

    A byte-order mark at the start of the file is dropped, CRLF becomes LF, a last line without an end gets one. Memory stays
    within a few times `size` or the longest line. InputError, naming the last line read, for a compressed file that is cut
    off, corrupt, or (bgzip) without its end-of-file block.
    """
    number, held = 1, bytearray()
    start = True
    chunks = _inflated(raw)
    while True:
        try:
            chunk = next(chunks, None)
        except _Broken as broken:
            line = number + held.count(b"\n")
            raise InputError(f"{broken} after line {line}; expected a whole file, fetch or compress it again", file, line) from broken
        if chunk is None:
            break
        searched = len(held)
        held += chunk
        if start:
            if len(held) < len(_BOM):
                continue  # nothing leaves before it is known whether the file starts with a mark
            start = False
            if held.startswith(_BOM):
                del held[: len(_BOM)]
        if len(held) >= size:
            # A line of many megabytes comes in many chunks: look for its end in the new one only.
            end = held.rfind(b"\n", max(0, searched - len(_BOM))) + 1
            if end:
                block = bytes(held[:end]).replace(b"\r\n", b"\n")
                del held[:end]
                yield number, block
                number += block.count(b"\n")
    if held:
        block = bytes(held).replace(b"\r\n", b"\n")
        yield number, block if block.endswith(b"\n") else block.removesuffix(b"\r") + b"\n"


class _Broken(Exception):
    pass


def _pieces(raw: BinaryIO) -> Iterator[bytes]:
    """The bytes of a file in pieces, the first of at least 18 bytes (a BGZF header) where the file has them."""
    block = raw.read(_READ)
    while 0 < len(block) < 18 and (more := raw.read(_READ)):  # a stream may return less than it was asked for
        block += more
    while block:
        for start in range(0, len(block), _PIECE):
            yield block[start : start + _PIECE]
        block = raw.read(_READ)


def _inflated(raw: BinaryIO) -> Iterator[bytes]:
    """The text of a file in chunks of at most 1 MiB."""
    pieces = _pieces(raw)
    first = next(pieces, b"")
    if first[:2] != b"\x1f\x8b":
        if first:
            yield first
        yield from pieces
        return
    bgzf = first[12:14] == b"BC" and first[3] & 4 != 0
    member: zlib._Decompress | None = None
    data, tail = first, first[-len(BGZF_END) :]
    while True:
        if member is not None and member.eof:
            member = None
        if member is None:
            data = data.lstrip(b"\0")  # padding after a member is allowed, and no member starts with it
        if not data:
            data = next(pieces, b"")
            tail = (tail + data)[-len(BGZF_END) :]
            if not data:
                break
            continue
        if member is None:
            member = zlib.decompressobj(wbits=31)
        try:
            text = member.decompress(data, _READ)
        except zlib.error as error:
            raise _Broken(f"found corrupt gzip data ({error})") from error
        data = member.unused_data if member.eof else member.unconsumed_tail
        if text:
            yield text
    if member is not None:
        raise _Broken("found a gzip file that is cut off")
    if bgzf and tail != BGZF_END:
        raise _Broken("found a bgzip file without its end-of-file block, so it is cut off")
