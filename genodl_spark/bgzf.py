"""BGZF, the blocked gzip of bgzip and tabix (SAM specification, section 4.1), written with zlib alone."""

from __future__ import annotations

import struct
import zlib
from typing import Protocol

BLOCK = 0xFF00  # bytes of text per block, as bgzip has it: what does not compress still fits a block of 64 KiB


class Sink(Protocol):
    """What can take bytes."""

    def write(self, data: bytes) -> object: ...


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

    def close(self) -> None:
        if self._held:
            self._sink.write(block(bytes(self._held), self._level))
            self._held.clear()
        self._sink.write(block(b"", self._level))


def block(text: bytes, level: int = 6) -> bytes:
    """One block of at most BLOCK bytes of text; of none, the block that ends a file."""
    packer = zlib.compressobj(level, zlib.DEFLATED, -15)
    packed = packer.compress(text) + packer.flush()
    if len(packed) + 26 > 1 << 16:  # noise grows under deflate: store it
        packer = zlib.compressobj(0, zlib.DEFLATED, -15)
        packed = packer.compress(text) + packer.flush()
    header = struct.pack("<4BI2BH2B2H", 31, 139, 8, 4, 0, 0, 255, 6, ord("B"), ord("C"), 2, len(packed) + 25)
    return header + packed + struct.pack("<2I", zlib.crc32(text), len(text))
