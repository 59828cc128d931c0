"""Which sequences of a cohort are nearly the same, so that no split divides them: found in tasks, by their sketches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from genodl_spark.core import packing
from genodl_spark.genome import similarity

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

_SKETCHED = "key bigint, turn bigint, id string, codes binary"
_BYTES = 32 << 20  # of sequences, each as often as its sketch has values, in one Arrow batch
_AT_ONCE = 200_000  # rows that are compared among each other at least
_ROUNDS = 64  # of comparisons within sequences that share a value


def links(sequences: DataFrame, identity: float) -> DataFrame:
    """Pairs of sequences that are alike (`similarity.alike`), columns a and b: not all of them, but enough that
    sequences hang together by them as far as they do by all. `sequences`: columns id string and codes binary, each id
    once. The same whatever the partitions.

    Sequences that share a value of their sketches meet. There each is compared with the first, those that are not like
    it with the first of them, and so on; who is first is another one for each value.
    """
    met = sequences.select("id", "codes").mapInArrow(_sketched, _SKETCHED).repartition("key")
    ordered = met.sortWithinPartitions("key", "turn", "id")
    return ordered.mapInArrow(partial(_compared, identity=identity), "a string, b string").distinct()


def _sketched(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """For mapInArrow over id and codes: a row for each value of a sketch."""
    for whole in batches:
        size = max(whole.column(1).nbytes // max(whole.num_rows, 1), 1) * similarity.HASHES
        step = max(_BYTES // size, 1)
        for start in range(0, whole.num_rows, step):
            batch = whole.slice(start, step)
            codes, ends = packing.binary(batch.column(1))
            keys = similarity.sketches(codes.view(np.int8), ends)
            order = np.repeat(np.arange(batch.num_rows), similarity.HASHES)
            ids = batch.column(0).take(pa.array(order))
            turn = np.roll(keys, 1, 1)
            columns = [
                *(pa.array(one.view(np.int64).ravel()) for one in (keys, turn)),
                ids,
                batch.column(1).take(pa.array(order)),
            ]
            yield pa.RecordBatch.from_arrays(columns, ["key", "turn", "id", "codes"])


def _compared(batches: Iterable[pa.RecordBatch], identity: float) -> Iterator[pa.RecordBatch]:
    """For mapInArrow over rows sorted by key: pairs of identifiers."""
    held, rows = list[pa.RecordBatch](), 0
    for batch in batches:
        held.append(batch)
        rows += batch.num_rows
        if rows >= _AT_ONCE:
            keys = batch.column("key").to_numpy()
            last = int(np.searchsorted(keys, keys[-1]))  # whose rows may go on in the next batch
            if last:
                yield _pairs([*held[:-1], batch.slice(0, last)], identity)
                held, rows = [batch.slice(last)], batch.num_rows - last
    if rows:
        yield _pairs(held, identity)


def _pairs(batches: list[pa.RecordBatch], identity: float) -> pa.RecordBatch:
    rows = pa.Table.from_batches(batches).combine_chunks()
    keys = rows.column("key").to_numpy()
    codes, ends = packing.binary(rows.column("codes").combine_chunks())
    codes = codes.view(np.int8)
    left = np.arange(len(keys))
    found: list[tuple[np.ndarray, np.ndarray]] = []
    for _ in range(_ROUNDS):
        begins = np.flatnonzero(np.append(True, keys[left][1:] != keys[left][:-1])[: len(left)])
        first = np.repeat(left[begins], np.diff(begins, append=len(left)))
        others = first != left
        if not others.any():
            break
        a, b = first[others], left[others]
        are = similarity.alike(codes, ends, a, b, identity)
        found.append((a[are], b[are]))
        left = b[~are]
    a, b = (
        np.concatenate([np.empty(0, np.int64), *side]) for side in (zip(*found, strict=True) if found else ((), ()))
    )
    ids = rows.column("id")
    return pa.RecordBatch.from_arrays([ids.take(pa.array(side)).combine_chunks() for side in (a, b)], ["a", "b"])
