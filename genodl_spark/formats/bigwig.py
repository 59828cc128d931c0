"""Tracks (bigWig): values of stretches of a genome, wherever a file lies, whole or not.

A file has a head, a tree of contigs, blocks of values that are compressed one by one, and a tree that says which block
holds which stretch (Kent et al. 2010, doi:10.1093/bioinformatics/btq351). Of the trees and blocks only those are read
that hold what is asked for. Whatever a file says of itself is held against its size before it is believed: damage is
an InputError, never a process that ends.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence

import numpy as np

from genodl_spark.core import packing, storage
from genodl_spark.core.errors import InputError
from genodl_spark.genome.contigs import shared_contig

_MAGIC, _MAGIC_OF_BED, _MAGIC_OF_CONTIGS, _MAGIC_OF_INDEX = 0x888FFC26, 0x8789F2EB, 0x78CA8C91, 0x2468ACE0
_HEAD, _ZOOM, _CONTIGS_HEAD, _INDEX_HEAD, _BLOCK_HEAD = 64, 24, 32, 48, 24
_LARGEST = 64 << 20  # bytes of a block: writers put some 1,000 values into one
_MOST_CONTIGS = 1 << 24
_GAP, _AT_ONCE = 1 << 16, 4 << 20  # bytes between what is read together, and of what is


class Track:
    """A bigWig. `contigs`: bases by name, as the file has them. Pickles as its URI.

    InputError for what is none, or is cut off or damaged: a file is opened to its trees, and blocks show their damage
    when they are asked for.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri
        if storage.kind(uri) != "file":
            raise InputError("no such file; expected a bigWig, check the path", uri)
        fs, path = storage.filesystem(uri)
        self._file = fs.open_input_file(path)
        self._size = self._file.size()
        head = self._file.read_at(_HEAD, 0)
        self._order = next((o for o in "<>" if head[:4] == struct.pack(f"{o}I", _MAGIC)), "")
        if not self._order:
            bed = head[:4] in (struct.pack("<I", _MAGIC_OF_BED), struct.pack(">I", _MAGIC_OF_BED))
            found = "a bigBed" if bed else f"{head[:4].hex(' ')} in front" if head else "nothing"
            raise InputError(f"found {found}; expected a bigWig, which begins with 26 fc 8f 88", uri)
        if len(head) < _HEAD:
            raise self._cut_off()
        zooms, contigs, _, index = struct.unpack_from(f"{self._order}HQQQ", head, 6)
        (self._unpacked,) = struct.unpack_from(f"{self._order}I", head, 52)
        if self._unpacked > _LARGEST:
            raise self._damaged(f"blocks of {self._unpacked:,} bytes")
        levels = self._bytes(_HEAD, zooms * _ZOOM)
        # Summaries stand at the end and are not read: where they are not there, nor is all that is in front of them.
        for at in (index, *(struct.unpack_from(f"{self._order}Q", levels, i * _ZOOM + 16)[0] for i in range(zooms))):
            if struct.unpack_from(f"{self._order}I", self._bytes(at, _INDEX_HEAD))[0] != _MAGIC_OF_INDEX:
                raise self._damaged(f"no index at byte {at:,}")
        self._root = index + _INDEX_HEAD
        self._per_node = struct.unpack_from(f"{self._order}I", self._bytes(index, _INDEX_HEAD), 4)[0]
        self._numbers: dict[str, int] = {}
        self.contigs: dict[str, int] = {}
        self._read_contigs(contigs)
        self._shared = {shared_contig(name): name for name in self.contigs}

    def __reduce__(self) -> tuple[type[Track], tuple[str]]:
        return (Track, (self.uri,))

    def contig(self, name: str) -> str | None:
        """The file's name of a contig, which may have chr in front or not; None where it lacks it."""
        return name if name in self.contigs else self._shared.get(shared_contig(name))

    def means(self, contig: str, start: np.ndarray, end: np.ndarray) -> np.ndarray:
        """Mean of the values of the bases [start, end), 0-based int64 (N,), of a contig that the file has by this name,
        float64 (N,): over those bases that have one, NaN where none has."""
        order = np.argsort(start, kind="stable")
        first, last = start[order], end[order]
        reach = np.maximum.accumulate(last) if len(last) else last
        total, bases = np.zeros(len(order)), np.zeros(len(order), np.int64)
        for low, high, value in self._blocks(contig, first, reach):
            some = slice(int(np.searchsorted(reach, low[0], "right")), int(np.searchsorted(first, high[-1], "left")))
            begin = np.searchsorted(high, first[some], "right")
            counts = np.maximum(np.searchsorted(low, last[some], "left") - begin, 0)
            stretch = packing.runs(begin, counts)
            query = np.repeat(np.arange(some.start, some.start + len(counts)), counts)
            common = np.minimum(high[stretch], last[query]) - np.maximum(low[stretch], first[query])
            total += np.bincount(query, value[stretch] * common, len(order))
            bases += np.bincount(query, common, len(order)).astype(np.int64)
        found = np.full(len(order), np.nan)
        np.divide(total, bases, out=found, where=bases > 0)
        result = np.empty(len(order))
        result[order] = found
        return result

    def _blocks(
        self, contig: str, first: np.ndarray, reach: np.ndarray
    ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """(start, end, value) int64, int64, float64 of the stretches of blocks that hold a base of [first, last): in
        order, none empty. `reach`: the greatest `last` so far."""
        number, length = self._numbers[contig], self.contigs[contig]
        nodes, blocks, seen = [self._root], [], set[int]()
        while nodes:
            below: list[int] = []
            size = min(self._per_node, 0xFFFF) * 32 + 4
            for at, data in self._several(nodes, [min(size, self._size - at) for at in nodes], short=True):
                if at in seen:
                    raise self._damaged("an index that leads back to itself")
                seen.add(at)
                leaf, items = self._node(data)
                touched = self._touched(items, number, first, reach)
                if leaf:
                    blocks += list(zip(items["offset"][touched].tolist(), items["size"][touched].tolist(), strict=True))
                else:
                    below += items["offset"][touched].tolist()
            nodes = self._within(below)
        blocks.sort()
        self._within([at for at, _ in blocks])
        for _, data in self._several([at for at, _ in blocks], [size for _, size in blocks]):
            found = self._values(data, number, length)
            if len(found[0]):
                yield found

    def _node(self, data: bytes) -> tuple[bool, np.ndarray]:
        """Whether a node of the index is a leaf, and its items."""
        if len(data) < 4:
            raise self._cut_off()
        leaf, _, count = struct.unpack_from(f"{self._order}BBH", data)
        o = self._order
        fields = [("contig", f"{o}u4"), ("start", f"{o}u4"), ("contig_end", f"{o}u4"), ("end", f"{o}u4")]
        type_ = np.dtype([*fields, ("offset", f"{o}u8"), *([("size", f"{o}u8")] if leaf == 1 else [])])
        if leaf > 1 or len(data) < 4 + count * type_.itemsize:
            raise self._damaged("an index that cannot be read")
        return leaf == 1, np.frombuffer(data, type_, count, 4)

    def _touched(self, items: np.ndarray, number: int, first: np.ndarray, reach: np.ndarray) -> np.ndarray:
        """Which items hold a base of any [first, last) of a contig, bool (items,)."""
        start = np.where(items["contig"] == number, items["start"].astype(np.int64), 0)
        end = np.where(items["contig_end"] == number, items["end"].astype(np.int64), 1 << 40)
        here = (items["contig"] <= number) & (items["contig_end"] >= number)
        begun = np.searchsorted(first, end, "left")  # of those in order, how many begin before an item ends
        found: np.ndarray = here & (begun > 0)
        found[found] = reach[begun[found] - 1] > start[found]
        return found

    def _values(self, data: bytes, number: int, length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What a block says of a contig of `length` bases; nothing where it is another's."""
        if self._unpacked:
            inflate = zlib.decompressobj()
            try:
                data = inflate.decompress(data, self._unpacked)
            except zlib.error as error:
                raise self._damaged(f"a block that cannot be unpacked ({error})") from error
            if not inflate.eof:
                raise self._damaged("a block that does not end")
        if len(data) < _BLOCK_HEAD:
            raise self._damaged("a block without a head")
        o = self._order
        contig, begin, _, step, span, kind, _, count = struct.unpack_from(f"{o}IIIIIBBH", data)
        fields = {1: ["start", "end"], 2: ["start"], 3: []}.get(kind)
        type_ = np.dtype([*((name, f"{o}u4") for name in fields or ()), ("value", f"{o}f4")])
        if fields is None or len(data) < _BLOCK_HEAD + count * type_.itemsize:
            raise self._damaged("a block of another form")
        rows = np.frombuffer(data, type_, count, _BLOCK_HEAD)
        start = rows["start"].astype(np.int64) if "start" in fields else begin + np.arange(count) * step
        end = rows["end"].astype(np.int64) if "end" in fields else start + span
        value = rows["value"].astype(np.float64)
        if contig == number and ((start >= end).any() or (end[:-1] > start[1:]).any() or (end > length).any()):
            raise self._damaged("a block whose stretches are not in order")
        kept = np.isfinite(value) & (contig == number)
        return start[kept], end[kept], value[kept]

    def _read_contigs(self, at: int) -> None:
        """The tree of contigs, whose head is at byte `at`."""
        magic, per_node, key, rest, count = struct.unpack_from(f"{self._order}IIIIQ", self._bytes(at, _CONTIGS_HEAD))
        if magic != _MAGIC_OF_CONTIGS or rest != 8 or not 0 < key < 1 << 16 or not 0 < count <= _MOST_CONTIGS:
            raise self._damaged("no list of contigs")
        nodes, seen, numbers = [at + _CONTIGS_HEAD], set[int](), set[int]()
        while nodes:
            node = nodes.pop()
            if node in seen:
                raise self._damaged("a list of contigs that leads back to itself")
            seen.add(node)
            leaf, _, here = struct.unpack(f"{self._order}BBH", self._bytes(node, 4))
            if leaf > 1 or here > per_node:
                raise self._damaged("a list of contigs that cannot be read")
            data = self._bytes(node + 4, here * (key + 8))
            for place in range(0, len(data), key + 8):
                if not leaf:
                    nodes.append(struct.unpack_from(f"{self._order}Q", data, place + key)[0])
                    continue
                name = data[place : place + key].rstrip(b"\0").decode("utf-8", "replace")
                number, length = struct.unpack_from(f"{self._order}II", data, place + key)
                if name in self.contigs or number in numbers:
                    raise self._damaged(f"contig {name[:40]!r} twice")
                self._numbers[name], self.contigs[name] = number, length
                numbers.add(number)
        if len(self.contigs) != count:
            raise self._damaged(f"{len(self.contigs)} of {count} contigs")

    def _within(self, offsets: list[int]) -> list[int]:
        if any(not 0 < at < self._size for at in offsets):
            raise self._cut_off()
        return offsets

    def _several(
        self, offsets: Sequence[int], sizes: Sequence[int], short: bool = False
    ) -> Iterator[tuple[int, bytes]]:
        """(Offset, bytes) of stretches of the file, those that lie near one another in one read. With `short` they may
        lie in one another."""
        if not short and any(not 0 < size <= _LARGEST for size in sizes):
            raise self._damaged("a block without an end")
        pairs = sorted(zip(offsets, sizes, strict=True))
        group: list[tuple[int, int]] = []
        end = 0
        for at, size in [*pairs, (1 << 62, 0)]:
            if group and (at > end + _GAP or max(end, at + size) - group[0][0] > _AT_ONCE):
                first = group[0][0]
                data = self._bytes(first, end - first)
                yield from ((one, data[one - first : one - first + length]) for one, length in group)
                group, end = [], 0
            group.append((at, size))
            end = max(end, at + size)

    def _bytes(self, at: int, size: int) -> bytes:
        if at < 0 or at + size > self._size:
            raise self._cut_off()
        data: bytes = self._file.read_at(size, at)
        if len(data) < size:
            raise self._cut_off()
        return data

    def _cut_off(self) -> InputError:
        found = f"found {self._size:,} bytes, where the file says that it has more"
        return InputError(f"{found}; expected a whole bigWig, fetch it again", self.uri)

    def _damaged(self, found: str) -> InputError:
        return InputError(f"found {found}; expected a whole bigWig, fetch it again", self.uri)
