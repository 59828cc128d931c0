"""Text files as blocks of whole lines: bgzip, gzip or plain, told apart by their first bytes."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import BinaryIO

from genodl_spark.errors import InputError

BLOCK = 4 << 20
_READ = 1 << 20
# SAM specification, section 4.1.2: the empty block that ends every BGZF file.
BGZF_END = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")


def line_blocks(raw: BinaryIO, file: str, size: int = BLOCK) -> Iterator[tuple[int, bytes]]:
    """Yields (number of the first line, block): blocks of whole lines of about `size` bytes; lines count from 1.

    A byte-order mark is dropped, CRLF becomes LF, a last line without an end gets one. InputError, naming the last line
    read, for a compressed file that is cut off, corrupt, or (bgzip) without its end-of-file block.
    """
    number, held = 1, bytearray()
    start = True
    chunks = _inflated(raw, file)
    while True:
        try:
            chunk = next(chunks, None)
        except _Broken as broken:
            line = number + held.count(b"\n")
            raise InputError(f"{broken} after line {line}; expected a whole file, fetch or compress it again", file, line) from broken
        if chunk is None:
            break
        held += chunk
        if start and len(held) >= 3:
            start = False
            if held.startswith(b"\xef\xbb\xbf"):
                del held[:3]
        if len(held) >= size:
            end = held.rfind(b"\n") + 1
            if end:
                block = bytes(held[:end]).replace(b"\r\n", b"\n")
                del held[:end]
                yield number, block
                number += block.count(b"\n")
    if held.startswith(b"\xef\xbb\xbf"):
        del held[:3]
    if held:
        block = bytes(held).replace(b"\r\n", b"\n")
        yield number, block if block.endswith(b"\n") else block + b"\n"


class _Broken(Exception):
    pass


def _inflated(raw: BinaryIO, file: str) -> Iterator[bytes]:
    first = raw.read(_READ)
    if first[:2] != b"\x1f\x8b":
        while first:
            yield first
            first = raw.read(_READ)
        return
    bgzf = first[3] & 4 != 0 and first[12:14] == b"BC"
    member = zlib.decompressobj(wbits=31)
    data, tail = first, first[-len(BGZF_END) :]
    while data:
        try:
            text = member.decompress(data)
        except zlib.error as error:
            raise _Broken(f"found corrupt gzip data ({error})") from error
        if text:
            yield text
        if member.eof:
            data = member.unused_data
            if data.strip(b"\0") == b"" and data:  # padding after the last member is allowed
                data = b""
            if data:
                member = zlib.decompressobj(wbits=31)
                continue
        data = raw.read(_READ)
        tail = (tail + data)[-len(BGZF_END) :]
        if data and member.eof:
            member = zlib.decompressobj(wbits=31)
    if not member.eof:
        raise _Broken("found a gzip file that is cut off")
    if bgzf and tail != BGZF_END:
        raise _Broken("found a bgzip file without its end-of-file block, so it is cut off")
