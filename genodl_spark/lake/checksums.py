"""Checksums of stored files, by the block: made while a file is written, held against what is read of it.

The checksum of a file that a task of ours wrote is a text in the table's log: the CRC-32 of every MiB of it,
eight hexadecimal digits each, so that who reads a part checks the blocks that hold it. What Spark wrote
to a local or network disk has Hadoop's own beside it, the file `.NAME.crc`: the CRC-32 of every 512 bytes.
HDFS and object stores check what they give out themselves.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import struct
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from isal import isal_zlib

from genodl_spark.core import storage
from genodl_spark.core.errors import MEND, Damaged, InputError

TAG = "crc32"  # of the action that adds a file to a table
BLOCK = 1 << 20
_READ = 4 << 20
_FETCH, _FETCHES = 8 << 20, 4  # bytes of one request, and requests at once: a store is slow to answer, not to send
_COMMIT = re.compile(r"/\d{20}\.json$")
_SIDECAR = struct.Struct(">4sI")


@dataclass(frozen=True)
class Checksums:
    """`values` uint32: the CRC-32 of each `block` bytes of a file, the last block perhaps shorter."""

    block: int
    values: np.ndarray

    @classmethod
    def of_tag(cls, text: str) -> Checksums:
        return cls(BLOCK, np.frombuffer(bytes.fromhex(text), ">u4"))

    @classmethod
    def known(cls, uri: str, tag: str | None) -> Checksums | None:
        """Those of the file at `uri`, None where there are none. ValueError for what is none."""
        if tag:
            return cls.of_tag(tag)
        if not storage.is_local(uri):
            return None
        folder, _, name = uri.rpartition("/")
        sidecar = storage.join(folder, f".{name}.crc")
        if not storage.is_file(sidecar):
            return None
        content = storage.read_bytes(sidecar)
        magic, block = _SIDECAR.unpack_from(content)
        if magic != b"crc\0" or not block:
            raise ValueError("a head that is none")
        return cls(block, np.frombuffer(content, ">u4", offset=_SIDECAR.size))


class Summed:
    """A sink for bytes that hands them on to another and sums them up."""

    def __init__(self, sink: Any) -> None:
        self._sink = sink
        self._done: list[int] = []
        self._sum = 0
        self.size = 0
        self.closed = False

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        at = 0
        while at < len(view):
            piece = view[at : at + BLOCK - self.size % BLOCK]
            self._sum = isal_zlib.crc32(piece, self._sum)
            self.size += len(piece)
            at += len(piece)
            if self.size % BLOCK == 0:
                self._done.append(self._sum)
                self._sum = 0
        self._sink.write(view)
        return len(view)

    def writable(self) -> bool:
        return True

    def flush(self) -> None:
        self._sink.flush()

    def tell(self) -> int:
        return self.size

    def close(self) -> None:
        self.closed = True
        self._sink.close()

    def checksum(self) -> str:
        """The checksum of all bytes so far, as a table's log has it."""
        return "".join(f"{value:08x}" for value in (*self._done, *([self._sum] if self.size % BLOCK else [])))


def check(source: pa.NativeFile, uri: str, sums: Checksums, ranges: Iterable[tuple[int, int]] | None = None) -> int:
    """Holds the blocks of an open file in which some bytes (from, to) lie, or all, against its checksums;
    returns the bytes that were read.

    Damaged, with the file's name, for one that differs and for a file of another length.
    """
    size, block = _length(source, uri, sums), sums.block
    at = done = 0
    for start, end in sorted(ranges) if ranges is not None else [(0, size)]:
        at, end = max(at, start // block * block), min(-(-end // block) * block, size)
        while at < end:
            data = _fetched(source, uri, sums, at, min(at + max(_READ // block, 1) * block, end))
            at += len(data)
            done += len(data)
    return done


def _length(source: pa.NativeFile, uri: str, sums: Checksums) -> int:
    """Bytes of a file, that may be as many as it has checksums for."""
    size: int = source.size()
    if -(-size // sums.block) != len(sums.values):
        raise Damaged(f"found {size} bytes; expected the length that was written, {MEND}", uri)
    return size


def _fetched(source: pa.NativeFile, uri: str, sums: Checksums, start: int, end: int) -> bytes:
    """The bytes from `start`, where a block begins, to `end`, where one ends, held against their checksums."""
    data: bytes = source.read_at(end - start, start)
    if len(data) < end - start:
        raise Damaged(f"found the end of the file at byte {start + len(data)}; expected more, {MEND}", uri)
    view = memoryview(data)
    for k in range(0, len(view), sums.block):
        piece = view[k : k + sums.block]
        if isal_zlib.crc32(piece) != sums.values[(start + k) // sums.block]:
            place = f"between byte {start + k} and {start + k + len(piece)}"
            raise Damaged(f"found other bytes than were written, {place}; {MEND}", uri)
    return data


class Checked:
    """A file far away, as Arrow reads files of Python's: what it gives out was fetched once, by blocks that were held
    against their checksums. Damaged as for `check`."""

    def __init__(self, source: pa.NativeFile, uri: str, sums: Checksums) -> None:
        self._source, self._uri, self._sums = source, uri, sums
        self._size, self._at = _length(source, uri, sums), 0
        self._ends: dict[int, bytes] = {}  # by their first bytes, the last blocks that a read may have taken in part
        self.closed = False

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, count: int = -1) -> memoryview:
        start = min(self._at, self._size)
        end = self._size if count < 0 else min(start + count, self._size)
        if start == end:
            return memoryview(b"")
        self._at = end
        block = self._sums.block
        first, last = start // block * block, min(-(-end // block) * block, self._size)
        return memoryview(self._whole(first, last))[start - first : end - first]

    def _whole(self, first: int, last: int) -> bytes:
        """The blocks from one byte to another."""
        block = self._sums.block
        step = max(_FETCH // block, 1) * block
        head = self._ends.get(first, b"")
        wanted = [(at, min(at + step, last)) for at in range(first + len(head), last, step)]
        if len(wanted) < 2:
            found = [self._part(*part) for part in wanted]
        else:
            with ThreadPoolExecutor(min(len(wanted), _FETCHES), "fetch") as pool:
                found = list(pool.map(lambda part: self._part(*part), wanted))
        data = b"".join([head, *found]) if head or len(found) != 1 else found[0]
        ends = {first, first + max(last - first - 1, 0) // block * block}
        self._ends = {at: bytes(memoryview(data)[at - first : at - first + block]) for at in ends if at < last}
        return data

    def _part(self, start: int, end: int) -> bytes:
        return _fetched(self._source, self._uri, self._sums, start, end)

    def close(self) -> None:
        self.closed = True


def logged(log: str, version: int, paths: Iterable[str]) -> dict[str, str | None]:
    """Checksums of files of a table at a version, by their paths below it, decoded; None of one that has none.

    Delta's list beside the version, where it is whole; else the commits, the newest first,
    and the newest checkpoint before them.
    """
    found: dict[str, str | None] = dict.fromkeys(paths)
    with contextlib.suppress(InputError, ValueError):
        listed = storage.read_json(storage.join(log, f"{version:020}.crc")).get("allFiles")
        if listed is not None:
            stated = {unquote(f["path"]): (f.get("tags") or {}).get(TAG) for f in listed}
            return {path: stated.get(path) for path in found}
    missing = set(found)
    for uri in reversed(storage.files_under(log)):
        if not missing:
            break
        adds: Iterable[tuple[str, Any]] = ()
        if _COMMIT.search(uri):
            adds = (
                (e["add"]["path"], e["add"].get("tags"))
                for e in map(json.loads, storage.read_bytes(uri).splitlines())
                if "add" in e
            )
        elif uri.endswith(".parquet"):
            fs, path = storage.filesystem(uri)
            entries = pq.read_table(path, filesystem=fs, columns=["add"]).column("add").drop_null().to_pylist()
            adds = ((entry["path"], entry.get("tags")) for entry in entries)
        for path, tags in ((unquote(name), tags) for name, tags in adds):
            if path in missing:
                missing.discard(path)
                found[path] = dict(tags or {}).get(TAG)
    return found


def check_file(uri: str, tag: str | None) -> int | None:
    """Holds a whole file against its checksums; returns its bytes, None where there are none to hold it against.
    Damaged as for `check`."""
    fs, path = storage.filesystem(uri)
    with fs.open_input_file(path) as source:
        sums = known(uri, tag)
        return None if sums is None else check(source, uri, sums)


def known(uri: str, tag: str | None) -> Checksums | None:
    """Checksums of the file at `uri`. Damaged where they are none."""
    try:
        return Checksums.known(uri, tag)
    except (ValueError, struct.error) as error:
        raise Damaged(f"found a checksum that is none ({error}); {MEND}", uri) from error
