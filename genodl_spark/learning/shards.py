"""Training data beyond one machine: every rank decodes a part of the rows, and of each batch computes those it has.

A block is a training file. In an epoch all blocks stand in a row of places, and rank r of R holds those of the r-th
part of it. What every rank knows of all rows is their targets, folds, blocks and order, some forty bytes a row.

The order of an epoch's rows is a function of seed, epoch and blocks alone, so that neither the number of ranks nor the
loss of one changes a batch:

- The rows of each block are permuted exactly. End to end, in the order of places, they are the pool.
- The epoch goes through the pool with a stride that has no divisor in common with its length, and so comes by every
  row once. The stride is drawn for each epoch, such that any stretch of the order is spread evenly over the pool (see
  `stride`): each batch has its share of every part of the pool, and so of every rank.
- From one epoch to the next one place in DEALT, spread over the row, is dealt anew: its block goes to another of these
  places by chance. After DEALT epochs all have been. A rank reads what comes to it while it trains on the epoch before.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from genodl_spark.core import packing
from genodl_spark.lake.files import opened
from genodl_spark.learning import feed

DEALT = 20  # one place in so many is dealt anew after an epoch
_DRAWN = 32  # strides of which the best is taken


@dataclass(frozen=True)
class Blocks:
    """`rows`: the numbers of each block's rows, int64 and ascending. In all blocks together every row has one."""

    rows: list[np.ndarray]

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def digest(self) -> str:
        """Of which rows make which block, hexadecimal."""
        digest = hashlib.sha256()
        for rows in self.rows:
            digest.update(len(rows).to_bytes(8, "little") + rows.astype("<i8").tobytes())
        return digest.hexdigest()[:16]

    @property
    def decks(self) -> int:
        """Sets of places among which blocks are dealt, one set after an epoch."""
        return max(1, min(DEALT, len(self) // 2))

    def places(self, seed: int, epoch: int) -> np.ndarray:
        """Block at each place in an epoch, int64 (blocks,); place k is of the deck k % decks."""
        found = np.random.default_rng([seed, 0xB10C]).permutation(len(self))
        for deck in range(self.decks):
            times = (epoch + self.decks - 1 - deck) // self.decks
            if times:
                found[deck :: self.decks] = np.random.default_rng([seed, deck, times, 0xB10C]).permutation(
                    found[deck :: self.decks]
                )
        return found

    def of_rank(self, seed: int, epoch: int, rank: int, ranks: int) -> list[int]:
        """Blocks that a rank holds in an epoch."""
        found: list[int] = np.array_split(self.places(seed, epoch), ranks)[rank].tolist()
        return found

    def order(self, chosen: np.ndarray, seed: int, epoch: int) -> np.ndarray:
        """The chosen rows, bool (rows,), in an epoch's order, int64."""
        generator = np.random.default_rng([seed, epoch, 0xFEED])
        parts = [
            generator.permutation(rows[chosen[rows]]) for rows in map(self.rows.__getitem__, self.places(seed, epoch))
        ]
        pool = np.concatenate(parts)
        start = int(generator.integers(max(len(pool), 1)))
        return pool[(start + np.arange(len(pool)) * stride(len(pool), generator)) % max(len(pool), 1)]


def stride(n: int, generator: np.random.Generator) -> int:
    """A step through n rows, prime to n, that spreads evenly whatever stretch of steps one takes.

    How evenly follows from the terms of the continued fraction of stride / n: the smaller the largest, the better
    (Niederreiter 1992, Random Number Generation and Quasi-Monte Carlo Methods, chapter 3). The one with the smallest is
    taken of some that are drawn so that about half of their terms are 1 or 2.
    """
    drawn = []
    for _ in range(_DRAWN):
        ratio = 0.0
        for term in generator.integers(1, 3, 40).tolist():
            ratio = 1 / (term + ratio)
        found = max(1, round(n * ratio))
        while math.gcd(found, n) > 1:
            found += 1
        drawn.append(found)
    return min(drawn, key=lambda one: _largest_term(one, n))


def _largest_term(a: int, b: int) -> int:
    """Of the continued fraction of a / b, 0 < a <= b."""
    largest = 0
    while a:
        term, rest = divmod(b, a)
        a, b, largest = rest, a, max(largest, term)
    return largest


def shares(
    order: np.ndarray, batch: int, held: np.ndarray, first: int = 0
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Per step its number, the row numbers of the whole batch, and those of them that are `held`, bool (rows,);
    from step `first` on. Every rank has the same number of steps; its share of a batch may be empty."""
    for step in range(first, feed.steps(len(order), batch)):
        whole = order[step * batch : (step + 1) * batch]
        yield step, whole, whole[held[whole]]


def read(
    files: list[str],
    layout: feed.Layout,
    seed: int,
    backend: str = "petastorm",
    resident_bytes: int = 2 << 30,
    scratch: str | None = None,
    readers: int = 1,
) -> feed.Examples:
    """As `feed.read`, but `x` is a Shard, which decodes the rows of a rank when it is told which rank that is. Of all
    rows only targets and folds are read here."""
    target = np.empty((layout.rows, layout.targets))
    folds = np.empty((layout.rows, layout.repeats), np.int8)
    seen = np.zeros(layout.rows, np.uint8)
    columns = [name for name in layout.columns if name != "x"]

    def labels(uri: str) -> np.ndarray:
        with opened(uri, None, lambda footer: range(footer.num_row_groups), columns=columns) as file:
            table = file.read(columns, use_threads=False)
        rows: np.ndarray = table.column("row_id").to_numpy()
        if rows.max(initial=-1) >= layout.rows:
            raise RuntimeError(f"found rows that do not fit {layout}; the dataset is damaged, run prepare again")
        target[rows], folds[rows] = (
            feed.targets(table, layout.targets),
            feed.packed(table.column("folds"), "int8", layout.repeats),
        )
        np.add.at(seen, rows, 1)
        return np.sort(rows)

    with ThreadPoolExecutor(readers, "labels") as pool:
        found = [(rows, uri) for uri, rows in zip(files, pool.map(labels, files), strict=True) if len(rows)]
    feed.check_once(seen)
    found.sort(key=lambda block: block[0][0])  # so that an order does not depend on what files are called
    blocks = Blocks([rows for rows, _ in found])
    shard = Shard([uri for _, uri in found], blocks, layout, seed, backend, resident_bytes, scratch, readers)
    return feed.Examples(shard, target, folds)


class Shard:
    """Packed rows of a rank's blocks. Indexed by row numbers of the whole data set, it answers with these rows whole,
    as an array (rows, values); IndexError for rows that it does not hold.

    `held` bool (rows,): which rows it holds. `waited`: seconds that were spent on waiting for them to be decoded.
    """

    def __init__(
        self,
        files: list[str],
        blocks: Blocks,
        layout: feed.Layout,
        seed: int,
        backend: str,
        resident_bytes: int,
        scratch: str | None,
        readers: int,
    ) -> None:
        self.blocks, self.waited = blocks, 0.0
        self.dtype, self.shape = np.dtype(packing.values_of(layout.dtype)), (layout.rows, layout.values)
        self.held = np.zeros(layout.rows, bool)
        self._files, self._layout, self._seed = files, layout, seed
        self._backend, self._resident_bytes, self._scratch, self._readers = backend, resident_bytes, scratch, readers
        self._at = np.zeros(layout.rows, np.int64)  # the place of a row in the store
        self._turn: tuple[int, int, int] | None = None
        self._store: _Store
        self._rooms: dict[int, Any] = {}  # of the blocks that are held
        self._coming: tuple[dict[int, Any], Future[None]] | None = None
        self._ahead = ThreadPoolExecutor(1, "shard")

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        if not self.held[rows].all():
            raise IndexError("rows that another rank holds")
        return self._store.take(self._at[rows])

    def of(self, rows: np.ndarray) -> Some:
        return Some(self, rows)

    def turn(self, epoch: int, rank: int, ranks: int, ahead: bool = False) -> None:
        """Holds what a rank does in an epoch, from now on. `ahead`: begins to decode what comes to it in the next."""
        started = time.perf_counter()
        if (epoch, rank, ranks) != self._turn:
            if self._turn is None or self._turn[1:] != (rank, ranks):
                self._begin(rank, ranks)
            wanted = set(self.blocks.of_rank(self._seed, epoch, rank, ranks))
            if self._coming is not None:
                rooms, decoded = self._coming
                self._coming = None
                decoded.result()
                self._enter(rooms)
            for block in self._rooms.keys() - wanted:
                self._leave(block)
            rooms = self._made(wanted - self._rooms.keys())
            self._decode(rooms)
            self._enter(rooms)
            self._turn = epoch, rank, ranks
        if ahead and self._coming is None:
            after = set(self.blocks.of_rank(self._seed, epoch + 1, rank, ranks))
            if rooms := self._made(after - self._rooms.keys()):
                self._coming = rooms, self._ahead.submit(self._decode, rooms)
        self.waited += time.perf_counter() - started

    def close(self) -> None:
        self._ahead.shutdown(cancel_futures=True)

    def _begin(self, rank: int, ranks: int) -> None:
        """Gives up all that is held, for another rank's part."""
        if self._coming is not None:
            self._coming[1].exception()
            self._coming = None
        self.held[:] = False
        self._rooms = {}
        count = len(self.blocks)
        mine = np.array_split(np.arange(count), ranks)[rank]
        # What is dealt to it comes before what it held in its place leaves.
        most = min(count, len(mine) + int(np.bincount(mine % self.blocks.decks, minlength=1).max()))
        rows = sum(sorted(map(len, self.blocks.rows), reverse=True)[:most])
        spilled = feed.size(self._layout) * rows / max(len(self), 1) > self._resident_bytes
        kind = _Sparse if packing.is_sparse(self._layout.dtype) else _Dense
        self._store = kind(self._layout, rows, spilled, self._scratch)

    def _made(self, blocks: Iterable[int]) -> dict[int, Any]:
        return {block: self._store.room(len(self.blocks.rows[block])) for block in sorted(blocks)}

    def _decode(self, rooms: dict[int, Any]) -> None:
        """Decodes blocks into their rooms."""

        def decode(block: int) -> None:
            rows, room = self.blocks.rows[block], rooms[block]
            seen = np.zeros(len(rows), np.uint8)

            def put(table: pa.Table) -> None:
                numbers = table.column("row_id").to_numpy()
                local = np.searchsorted(rows, numbers).clip(max=len(rows) - 1)
                if not np.array_equal(rows[local], numbers):
                    raise RuntimeError("found rows that were not there before; expected the same, run prepare again")
                self._store.put(room, local, feed.packed(table.column("x"), self._layout.dtype, self._layout.values))
                np.add.at(seen, local, 1)

            feed.decode([self._files[block]], ["row_id", "x"], put, self._backend, self._scratch, 1)
            feed.check_once(seen)

        if self._readers == 1 or len(rooms) < 2:
            for block in rooms:
                decode(block)
            return
        with ThreadPoolExecutor(self._readers, "feed") as pool:
            list(pool.map(decode, rooms))

    def _enter(self, rooms: dict[int, Any]) -> None:
        for block, places in zip(rooms, self._store.settled(list(rooms.values())), strict=True):
            rows = self.blocks.rows[block]
            self._at[rows], self.held[rows] = places, True
        self._rooms |= rooms

    def _leave(self, block: int) -> None:
        self.held[self.blocks.rows[block]] = False
        self._store.free(self._rooms.pop(block))


@dataclass(frozen=True)
class Some:
    """Some of the rows that a shard holds, `rows` int64 (n,), as packed rows by themselves, numbered from 0."""

    shard: Shard
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.rows), self.shard.shape[1]

    def __getitem__(self, part: slice) -> np.ndarray:
        return self.shard[self.rows[part]]


class _Store(Protocol):
    """Where the rows of blocks are. A room is where those of one are, or will be."""

    def room(self, rows: int) -> Any: ...

    def put(self, room: Any, local: np.ndarray, x: packing.Rows) -> None:
        """Some rows of a block, `local` int64: which."""

    def settled(self, rooms: list[Any]) -> list[np.ndarray]:
        """Places of the rows of blocks, int64 (rows,), now that they are all there."""

    def free(self, room: Any) -> None: ...

    def take(self, places: np.ndarray) -> np.ndarray:
        """Rows whole, (places, values)."""


class _Dense:
    """All rows in one array. A block takes what places are free."""

    def __init__(self, layout: feed.Layout, rows: int, spilled: bool, scratch: str | None) -> None:
        self._x = feed.room((rows, layout.values), layout.dtype, spilled, scratch)
        self._free = np.arange(rows)

    def room(self, rows: int) -> np.ndarray:
        found, self._free = self._free[:rows], self._free[rows:]
        return found

    def put(self, room: np.ndarray, local: np.ndarray, x: packing.Rows) -> None:
        self._x[feed.run(room[local])] = x

    def settled(self, rooms: list[np.ndarray]) -> list[np.ndarray]:
        return rooms

    def free(self, room: np.ndarray) -> None:
        self._free = np.concatenate([room, self._free])

    def take(self, places: np.ndarray) -> np.ndarray:
        found: np.ndarray = self._x[places]
        return found


class _Sparse:
    """Each block by itself, as how many entries it has is known once it is decoded."""

    _BITS = 32  # of a place that number a block's rows; those above number blocks

    def __init__(self, layout: feed.Layout, rows: int, spilled: bool, scratch: str | None) -> None:
        self._layout, self._spilled, self._scratch = layout, spilled, scratch
        self._blocks: dict[int, packing.SparseRows] = {}
        self._made = 0

    def room(self, rows: int) -> _Entries:
        self._made += 1
        return _Entries(self._made, rows, [])

    def put(self, room: _Entries, local: np.ndarray, x: packing.Rows) -> None:
        room.found.append((local, x))

    def settled(self, rooms: list[_Entries]) -> list[np.ndarray]:
        if not rooms:
            return []
        sizes = [sum(len(x.entries) for _, x in room.found) for room in rooms]
        # A file for each block would be more than a process may have open.
        of_files = [sum(sizes)] if self._spilled else sizes
        type_ = packing.entry(self._layout.dtype)
        made = [feed.room((size,), type_, self._spilled, self._scratch) for size in of_files]
        parts = np.split(made[0], np.cumsum(sizes)[:-1]) if self._spilled else made
        for room, entries in zip(rooms, parts, strict=True):
            starts, counts, at = np.zeros(room.rows, np.int64), np.zeros(room.rows, np.int64), 0
            for local, x in room.found:
                entries[at : at + len(x.entries)] = x.entries
                starts[local], counts[local] = at + x.starts, x.counts
                at += len(x.entries)
            room.found.clear()
            self._blocks[room.number] = packing.SparseRows(entries, starts, counts, self._layout.values)
        return [(room.number << self._BITS) + np.arange(room.rows) for room in rooms]

    def free(self, room: _Entries) -> None:
        del self._blocks[room.number]

    def take(self, places: np.ndarray) -> np.ndarray:
        found = np.zeros((len(places), self._layout.values), packing.values_of(self._layout.dtype))
        numbers, local = places >> self._BITS, places & ((1 << self._BITS) - 1)
        order = np.argsort(numbers, kind="stable")
        starts = np.flatnonzero(np.diff(numbers[order], prepend=-1))
        for mine in np.split(order, starts[1:]) if len(places) else ():
            found[mine] = self._blocks[int(numbers[mine[0]])][local[mine]]
        return found


@dataclass(frozen=True)
class _Entries:
    """Rows of a block, of which some were found so far."""

    number: int
    rows: int
    found: list[tuple[np.ndarray, Any]]
