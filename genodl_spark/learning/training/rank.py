"""One rank: it reads its rows, trains one group of training sets after another, and keeps what they score."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import math
import os
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from genodl_spark.core import storage
from genodl_spark.core.errors import InputError, input_error_within, outage_within
from genodl_spark.learning import encodings, feed, heads, losses, shards
from genodl_spark.learning.devices import allow_tf32
from genodl_spark.learning.shards import Shard
from genodl_spark.learning.training import checkpoints
from genodl_spark.learning.training.group import Group, file_of
from genodl_spark.learning.training.plan import (
    FAILURE,
    REGISTERED,
    Job,
    as_told,
    log,
    shuffled_labels,
    told,
    training_sets,
)
from genodl_spark.learning.training.ranks import Alone, Ranks, device_of, hardware, memory_kept, together
from genodl_spark.learning.training.standardise import PROJECTED_ROWS, projects

if TYPE_CHECKING:
    import torch

MEMORY = 1 << 30  # bytes of parameters, moments and scaled batches that one group of training sets may take
_WEIGHTS = "model.safetensors"


def run_rank(job: Job) -> dict[str, Any]:
    """One rank's part, in a process that Horovod started. Returns the measurements of the run;
    rank 0 also writes the registered model."""
    return _run(job, Ranks, Rank.run)


def run_alone(job: Job) -> dict[str, Any]:
    """The whole job in this process."""
    return _run(job, Alone, Rank.run)


def run_elastic_rank(job: Job) -> dict[str, Any]:
    """One rank's part where ranks may be lost and may join: those that are left go on from the step
    that they had done together."""
    return _run(job, Ranks, lambda rank: together(rank, rank.run))


def _run(job: Job, ranks: Callable[[], Ranks], work: Callable[[Rank], dict[str, Any]]) -> dict[str, Any]:
    if not log.handlers and not logging.getLogger().handlers:
        logging.basicConfig(
            stream=sys.stderr, level=logging.WARNING, format="%(asctime)s %(message)s", datefmt="%H:%M:%S"
        )
        log.setLevel(logging.INFO)
    try:
        return _read_and_work(job, ranks, work)
    except Exception as error:
        found = input_error_within(error) or outage_within(error)
        if found is not None:
            with contextlib.suppress(OSError):  # the lake's disk may be the full one
                storage.write_bytes(storage.join(job.staging, FAILURE), as_told(found))
        raise


def _read_and_work(job: Job, ranks: Callable[[], Ranks], work: Callable[[Rank], dict[str, Any]]) -> dict[str, Any]:
    import torch

    threads = torch.get_num_threads()
    started = time.perf_counter()
    # Before the ranks meet, so that none waits for one that reads.
    if job.shard:  # here labels alone: a rank decodes its part once it knows which
        data = shards.read(job.files, job.layout, job.seed, job.backend, job.resident_bytes, readers=job.readers)
    else:
        data = feed.read(job.files, job.layout, job.backend, job.resident_bytes, readers=job.readers)
    if job.null:
        data = replace(
            data, target=shuffled_labels(data.target, heads.targets(job.heads), data.folds, job.folds, job.seed)
        )
    feed_seconds = time.perf_counter() - started
    them = ranks()
    try:
        torch.set_num_threads(job.threads or max(1, len(os.sched_getaffinity(0)) // them.local_size))
        with memory_kept():
            found = work(Rank(job, them, device_of(them), data))
            waited = data.x.waited if isinstance(data.x, Shard) else 0.0
            return {**found, "feed_seconds": feed_seconds + waited}
    finally:
        torch.set_num_threads(threads)
        if isinstance(data.x, Shard):
            data.x.close()
        them.end()


class Rank:
    """The loop, with what it shares over groups of training sets."""

    def __init__(self, job: Job, ranks: Ranks, device: torch.device, data: feed.Examples) -> None:
        import torch

        self.job, self.ranks, self.device, self.data = job, ranks, device, data
        self.dtype = getattr(torch, job.options.dtype)
        allow_tf32(job.options.amp == "tf32")
        self.encoding = encodings.encoding(job.transform, job.code)
        inputs = self.encoding.shape(job.layout.features)
        self.loss = losses.loss(job.loss, job.heads, inputs, job.code)
        try:
            self.loss.check(data.target)
        except ValueError as error:
            raise InputError(str(error), "train.loss") from error
        if job.options.mixup and hasattr(self.loss, "among"):
            text = "found it for a loss of a row among others, which knows no mixture of two"
            raise InputError(f"{text}; expected 0, or another train.loss", "train.mixup")
        self.rows_seen, self.waited, self.looped, self.resets = 0, 0.0, 0.0, 0
        self.found: dict[int, dict[str, Any]] = {}  # by the first training set of a finished group
        self.group: Group | None = None
        self.sets = training_sets(job.layout.repeats if job.folds else 0, job.folds)
        self.size = self._group_size()

    def run(self) -> dict[str, Any]:
        started, busy = time.perf_counter(), time.process_time()
        for start in range(0, len(self.sets), self.size):
            if start not in self.found:
                self._fit(start)
        seconds = time.perf_counter() - started
        ordered = [self.found[start] for start in sorted(self.found)]
        return {
            "history": [entry for found in ordered for entry in found["history"]],
            "scored": [found["scored"] for found in ordered if "scored" in found],
            "treatments": [found["treatments"] for found in ordered if "treatments" in found],
            "seconds": seconds,
            "feed_stall_percent": 100 * self.waited / max(self.looped, 1e-9),
            "busy_percent": self._busy_percent(time.process_time() - busy, seconds),
            "rows_per_second": self.rows_seen / max(self.looped, 1e-9),
            "ranks": self.ranks.size,
            "resets": self.resets,
            "device": str(self.device),
            "hardware": hardware(self.device),
        }

    def _fit(self, start: int) -> None:
        """Trains and scores one group of training sets, or takes what an earlier run of the job found."""
        if self.group is None:
            earlier = self._earlier(f"{start:05d}.json")
            if earlier is not None:
                self.found[start] = json.loads(earlier)
                return
            stored = self._earlier(file_of(self.data, start))
            self.group = Group(self, start, stored)
            if stored is not None:
                self.group.restore(stored)
        group = self.group
        found: dict[str, Any] = {"history": group.fit()}
        if group.ended:  # else it stopped at stop_epoch, and the rest is for another call
            group.fit_beside()
            found["scored"] = self._keep_scores(group)
            if group.treatments:  # every rank tells, as the first may be lost later
                found["treatments"] = self._keep_treatments(group)
            if group.sets[-1].fold == REGISTERED and (self.job.shard or self.ranks.rank == 0):
                learnt = group.learnt()
                if self.ranks.rank == 0:
                    storage.write_bytes(storage.join(self.job.staging, _WEIGHTS), group.registered(learnt))
            self.ranks.meet()  # every rank has written its scores
            if self.job.checkpoint and self.ranks.rank == 0:
                storage.write_json(storage.join(self.job.checkpoint, f"{start:05d}.json"), found)
        self.found[start], self.group = found, None
        if self.ranks.rank == 0 and len(self.sets) > self.size:
            log.info("trained %d of %d networks", min(start + self.size, len(self.sets)), len(self.sets))

    def _earlier(self, name: str) -> bytes | None:
        """A file of the checkpoint folder, as rank 0 finds it."""
        return self._found(self.job.checkpoint, name) if self.job.checkpoint else None

    def _found(self, folder: str, name: str) -> bytes | None:
        """A file, None where it is absent, as rank 0 finds it."""
        content = None
        if self.ranks.rank == 0 and storage.is_file(storage.join(folder, name)):
            content = storage.read_bytes(storage.join(folder, name))
        return self.ranks.same(content)

    def join(self) -> None:
        """All ranks take the state of rank 0, which is never a new one: its step, or the one before,
        is what all have done together. What one of them has said of why none can go on ends them all."""
        failure = self._found(self.job.staging, FAILURE)
        if failure is not None:
            raise told(failure)
        mine = None
        if self.ranks.rank == 0:
            tensors, state = self.group.state() if self.group is not None else ({}, {})
            mine = checkpoints.pack(
                tensors, {"found": self.found, "start": self.group.start if self.group else -1, "progress": state}
            )
        content = self.ranks.same(mine)
        if self.ranks.rank == 0 or content is None:
            return
        _, shared = checkpoints.unpack(content)
        self.found = {int(start): found for start, found in shared["found"].items()}
        start = shared["start"]
        if start < 0:
            self.group = None
            return
        if self.group is None or self.group.start != start:
            self.group = Group(self, start, content)
        self.group.restore(content, shared["progress"])

    def _busy_percent(self, used: float, seconds: float) -> float:
        """Of the GPU as its driver tells it for the last moments, else of the CPU threads
        that this rank computes with."""
        import torch

        if self.device.type == "cuda":
            with contextlib.suppress(Exception):  # the driver's library may be absent
                return float(torch.cuda.utilization(self.device))
            return math.nan
        return 100 * used / max(seconds * torch.get_num_threads(), 1e-9)

    def _keep_scores(self, group: Group) -> str:
        """Writes this rank's held-out scores below staging, into a folder of this attempt;
        returns the folder's name."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        attempt = (self.ranks.same(uuid.uuid4().hex[:8].encode()) or b"").decode()
        name = f"held_out/{group.start:05d}-{attempt}"
        fs, path = storage.filesystem(storage.join(self.job.staging, name, f"part-{self.ranks.rank:05d}.parquet"))
        storage.make_folder(fs, os.path.dirname(path))
        scores = pa.list_(pa.float64())
        schema = pa.schema([("repeat", pa.int32()), ("row_id", pa.int64()), ("scores", scores)])
        schema = schema.append(pa.field("blends", pa.list_(scores))) if group.beside else schema
        schema = schema.append(pa.field("lacking", pa.list_(scores))) if group.lacking else schema
        scored = group.score()
        pq.write_table(pa.concat_tables(scored) if scored else schema.empty_table(), path, filesystem=fs)
        return name

    def _keep_treatments(self, group: Group) -> str:
        """Writes what each training set of a group has taught the steps before networks below staging, as the columns
        of `treatments`, on the first rank; returns the file's name."""
        import pyarrow as pa
        import pyarrow.parquet as pq
        from safetensors.numpy import save

        name = f"treatments/{group.start:05d}.parquet"
        if self.ranks.rank != 0:
            return name
        fs, path = storage.filesystem(storage.join(self.job.staging, name))
        storage.make_folder(fs, os.path.dirname(path))
        rows = [np.flatnonzero(learns) for learns in group.learns]
        columns = {
            "repeat": pa.array([s.repeat for s in group.sets], pa.int32()),
            "fold": pa.array([s.fold for s in group.sets], pa.int32()),
            "rows": pa.array([len(numbers) for numbers in rows], pa.int64()),
            "rows_sha256": pa.array([hashlib.sha256(numbers.astype("<i8").tobytes()).hexdigest() for numbers in rows]),
            "tensors": pa.array([save(tensors) for tensors in group.treatments], pa.binary()),
        }
        pq.write_table(pa.table(columns), path, filesystem=fs)
        return name

    def _group_size(self) -> int:
        """Training sets that fit in memory together."""
        from genodl_spark.learning import models

        job, layout = self.job, self.job.layout
        width = layout.features
        if layout.rows <= PROJECTED_ROWS and projects(job, self.encoding):
            width = min(layout.features, layout.rows)
        network = models.build(job.model, [0], self.encoding.shape(width), self.loss.outputs, job.code)
        scaled = (
            0
            if not self.encoding.scaled
            else width * 4 * (layout.rows if layout.rows <= PROJECTED_ROWS or job.chain else job.options.batch)
        )
        per_set = job.options.ensemble * sum(p.numel() for p in network.parameters()) * 4 * 4 + scaled
        return max(1, MEMORY // max(per_set, 1))
