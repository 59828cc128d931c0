"""One plain training loop over Horovod. The only file that imports it.

All networks of a job (every fold and repeat of a cross-validation, the registered model, each of them an ensemble) are
members of one module and see the same batches; a mask says which rows each of them learns from. Gradients are sums over
rows divided by counts that every rank knows, so that the number of ranks changes nothing but the order of additions.
"""

from __future__ import annotations

import logging
import math
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from genodl_spark import feed, quality, storage
from genodl_spark.errors import InputError
from genodl_spark.splits import TRAIN, UNUSED, VALIDATION

if TYPE_CHECKING:
    import torch
    from pyspark.sql import SparkSession

log = logging.getLogger("genodl")
REGISTERED = -1  # fold of the training set behind the registered model
PROJECTED_ROWS = 4096  # larger training sets cost more to decompose than the projection saves
_MEMORY = 1 << 30  # bytes of parameters, moments and scaled batches that one group of training sets may take


@dataclass(frozen=True)
class Job:
    """All that a rank needs. `classes` is 0 for regression; `folds` is 0 for a fixed split; `options` is the loop's `train` section
    of the settings; `staging` is the URI of a folder for what the ranks write."""

    files: list[str]
    layout: feed.Layout
    backend: str
    resident_bytes: int
    classes: int
    folds: int
    transform: str
    max_missing: float
    select: int
    model: dict[str, Any]
    options: dict[str, Any]
    seed: int
    staging: str


@dataclass(frozen=True)
class TrainingSet:
    """Rows that one ensemble learns from: all but one fold of one repeat, or those of the registered model (fold -1)."""

    repeat: int
    fold: int


def training_sets(repeats: int, folds: int) -> list[TrainingSet]:
    return [TrainingSet(r, k) for r in range(repeats) for k in range(folds)] + [TrainingSet(0, REGISTERED)]


def learns(codes: np.ndarray, sets: list[TrainingSet], folds: int) -> np.ndarray:
    """Which rows each set learns from, bool (S, rows). `codes` int8 (rows, repeats) as in the table `examples`."""
    if folds == 0:
        return np.stack([codes[:, 0] == TRAIN for _ in sets])
    used = codes[:, 0] != UNUSED
    return np.stack([used & (codes[:, s.repeat] != s.fold) if s.fold != REGISTERED else used for s in sets])


def held_out(codes: np.ndarray, sets: list[TrainingSet], folds: int) -> np.ndarray:
    """Which rows each set is tested on, bool (S, rows): its fold; of a fixed split the rows for validation and test."""
    if folds == 0:
        return np.stack([codes[:, 0] > TRAIN for _ in sets])
    return np.stack([codes[:, s.repeat] == s.fold if s.fold != REGISTERED else np.zeros(len(codes), bool) for s in sets])


def launch(spark: SparkSession, job: Job, ranks: int) -> dict[str, Any]:
    """Runs the job on `ranks` Spark tasks at once; returns what rank 0 measured. InputError when there are too few slots."""
    from genodl_spark.session import rank_environment, task_slots

    slots = task_slots(spark)
    if slots < ranks:
        raise InputError(f"found {slots} task slots; expected at least {ranks}, one per rank: lower it or give the job more cores", "train.procs")
    if ranks == 1:
        return next(iter(spark.sparkContext.parallelize([job], 1).map(run_rank).collect()))
    import horovod.spark

    local = (spark.sparkContext.master or "").startswith("local")
    results = horovod.spark.run(
        run_rank,
        args=(job,),
        num_proc=ranks,
        use_gloo=True,
        verbose=0,
        # Laid over the executors' own environment, so no more than they lack. A lost rank must end the others, not leave them waiting.
        env={**rank_environment(spark), "HOROVOD_STALL_CHECK_TIME_SECONDS": "60", "HOROVOD_STALL_SHUTDOWN_TIME_SECONDS": "300"},
        executable=spark.sparkContext.pythonExec,
        nics={"lo"} if local else None,
        # What ranks print is progress: stdout belongs to the run report.
        stdout=sys.stderr,
        stderr=sys.stderr,
    )
    return dict(results[0])


def run_rank(job: Job) -> dict[str, Any]:
    """One rank's part, in its process. Returns the measurements of the run; rank 0 also writes the registered model."""
    import horovod.torch as hvd
    import torch

    hvd.init()
    if hvd.rank() == 0:
        logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
        log.setLevel(logging.INFO)
    try:
        threads = max(1, len(os.sched_getaffinity(0)) // hvd.local_size())
        torch.set_num_threads(threads)
        return _Rank(job, hvd, torch.device("cuda", hvd.local_rank()) if torch.cuda.is_available() else torch.device("cpu")).run()
    finally:
        hvd.shutdown()


class _Rank:
    """The loop, with what it shares over groups of training sets."""

    def __init__(self, job: Job, hvd: Any, device: torch.device) -> None:
        import torch

        self.job, self.hvd, self.device = job, hvd, device
        self.dtype = getattr(torch, job.options["dtype"])
        started = time.perf_counter()
        self.data = feed.read(job.files, job.layout, job.backend, job.resident_bytes)
        self.feed_seconds = time.perf_counter() - started
        self.rows_seen = 0

    def run(self) -> dict[str, Any]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        sets = training_sets(self.job.layout.repeats if self.job.folds else 0, self.job.folds)
        started = time.perf_counter()
        history: list[dict[str, Any]] = []
        scored: list[pa.Table] = []
        size = self._group_size()
        for start in range(0, len(sets), size):
            group = _Group(self, sets[start : start + size])
            history += group.fit()
            scored += group.score()
            if group.sets[-1].fold == REGISTERED and self.hvd.rank() == 0:
                storage.write_bytes(storage.join(self.job.staging, "model.safetensors"), group.registered())
            if self.hvd.rank() == 0:
                log.info("trained %d of %d networks", min(start + size, len(sets)), len(sets))
        fs, path = storage.filesystem(storage.join(self.job.staging, "held_out", f"part-{self.hvd.rank():05d}.parquet"))
        fs.create_dir(os.path.dirname(path), recursive=True)
        schema = pa.schema([("repeat", pa.int32()), ("row_id", pa.int64()), ("scores", pa.list_(pa.float64()))])
        pq.write_table(pa.concat_tables(scored) if scored else schema.empty_table(), path, filesystem=fs)
        seconds = time.perf_counter() - started
        return {
            "history": history,
            "seconds": seconds,
            "feed_seconds": self.feed_seconds,
            "rows_per_second": self.rows_seen / max(seconds, 1e-9),
            "ranks": self.hvd.size(),
            "device": str(self.device),
        }

    def _group_size(self) -> int:
        """Training sets that fit in memory together."""
        from genodl_spark import models

        o, layout = self.job.options, self.job.layout
        width = min(layout.features, layout.rows) if layout.rows <= PROJECTED_ROWS else layout.features
        network = models.build(self.job.model, [0], (layout.features,), 1)
        first = next(network.parameters()).shape[-1]
        per_set = o["ensemble"] * width * first * 4 * 4 + width * 4 * (layout.rows if layout.rows <= PROJECTED_ROWS else o["batch"])
        return max(1, _MEMORY // max(per_set, 1))


class _Group:
    """Training sets that are fitted together, S of them with E members each."""

    def __init__(self, rank: _Rank, sets: list[TrainingSet]) -> None:
        import torch

        from genodl_spark import models

        self.rank, self.sets, self.job = rank, sets, rank.job
        data, job = rank.data, rank.job
        self.members = int(job.options["ensemble"])
        self.learns = learns(data.folds, sets, job.folds)
        self.held_out = held_out(data.folds, sets, job.folds)
        self.validates = (data.folds[:, 0] == VALIDATION) if job.folds == 0 else np.zeros(len(data), bool)
        target = data.target
        self.center, self.spread = np.zeros(len(sets)), np.ones(len(sets))
        if job.classes == 0:
            self.center = np.array([target[rows].mean() for rows in self.learns])
            self.spread = np.array([target[rows].std() or 1.0 for rows in self.learns])
        self.scaling, self.coordinates, self.projection = fit_scaling(data, self.learns, job)
        width = job.layout.features if self.projection is None else self.projection.shape[2]
        seeds = [models.mix(job.seed, s.repeat, s.fold + 1, e) for s in sets for e in range(self.members)]
        self.network = models.build(job.model, seeds, (width,), max(job.classes, 1)).to(rank.device, rank.dtype)
        self.mean = torch.from_numpy(self.scaling.mean).to(rank.device, rank.dtype)
        self.inverse = torch.from_numpy(self.scaling.inverse).to(rank.device, rank.dtype)

    def inputs(self, rows: np.ndarray) -> torch.Tensor:
        """Standardised (S, rows, F) or projected (S, rows, width) inputs of some rows, repeated for each member: (S * E, rows, .)."""
        import torch

        if self.coordinates is not None:
            z = torch.from_numpy(self.coordinates[:, rows]).to(self.rank.device, self.rank.dtype)
        else:
            values = quality.as_float(self.rank.data.x[rows], self.job.transform)
            x = torch.from_numpy(values).to(self.rank.device, self.rank.dtype)
            z = torch.nan_to_num((x - self.mean[:, None]) * self.inverse[:, None], nan=0.0)
        return z.repeat_interleave(self.members, 0)

    def losses(self, outputs: torch.Tensor, rows: np.ndarray, smoothing: float) -> torch.Tensor:
        """Loss of every row under every member, (S * E, rows)."""
        import torch
        from torch.nn import functional

        target = self.rank.data.target[rows]
        if self.job.classes == 0:
            scaled = (target[None, :] - self.center[:, None]) / self.spread[:, None]
            wanted = torch.from_numpy(scaled).to(outputs).repeat_interleave(self.members, 0)
            return (outputs[..., 0] - wanted) ** 2
        index = torch.from_numpy(target.astype(np.int64)).to(outputs.device).expand(outputs.shape[0], -1)
        return functional.cross_entropy(outputs.flatten(0, 1), index.reshape(-1), label_smoothing=smoothing, reduction="none").view(index.shape)

    def weights(self, rows: np.ndarray, chosen: np.ndarray) -> torch.Tensor:
        """`chosen` bool (S, all rows) at some rows, for each member: (S * E, rows)."""
        import torch

        return torch.from_numpy(chosen[:, rows]).to(self.rank.device, self.rank.dtype).repeat_interleave(self.members, 0)

    def optimizer(self) -> tuple[Any, list[tuple[str, torch.nn.Parameter]]]:
        """AdamW that sums gradients over ranks, and the parameters it moves; all ranks start from the same ones."""
        import torch

        o, hvd = self.job.options, self.rank.hvd
        parameters = list(self.network.named_parameters())
        inner = torch.optim.AdamW([p for _, p in parameters], lr=o["learning_rate"], weight_decay=o["weight_decay"])
        hvd.broadcast_parameters(self.network.state_dict(), root_rank=0)
        return hvd.DistributedOptimizer(inner, named_parameters=parameters, op=hvd.Sum), parameters

    def backward(self, optimizer: Any, whole: np.ndarray, mine: np.ndarray, epoch: int) -> torch.Tensor:
        """Leaves in every parameter the gradient of the mean loss over a whole batch, of which `mine` is this rank's share.

        Returns the losses of that share, (S * E, rows), 0 for rows that a member does not learn from.
        """
        import torch

        counts = torch.from_numpy(self.learns[:, whole].sum(1)).to(self.rank.device, self.rank.dtype).repeat_interleave(self.members)
        outputs = self.network(self.inputs(mine), torch.from_numpy(mine).to(self.rank.device), epoch)
        masked = self.losses(outputs, mine, self.job.options["label_smoothing"]) * self.weights(mine, self.learns)
        optimizer.zero_grad()
        (masked.sum(1) / counts.clamp(min=1)).sum().backward()
        optimizer.synchronize()
        return masked.detach()

    def fit(self) -> list[dict[str, Any]]:
        """Trains; returns per epoch the mean loss of each training set and, where there are validation rows, of each member on them."""
        import torch

        job, hvd, o = self.job, self.rank.hvd, self.job.options
        rows, batch = len(self.rank.data), int(o["batch"])
        per_epoch = feed.steps(rows, batch)
        epochs = max(int(o["epochs"]), math.ceil(int(o["min_steps"]) / per_epoch))
        optimizer, parameters = self.optimizer()
        warmup, total, step = o["warmup_epochs"] * per_epoch, epochs * per_epoch, 0
        best = torch.full((len(self.sets) * self.members,), math.inf, dtype=torch.float64)
        kept = [p.detach().clone() for _, p in parameters] if o["patience"] else []
        waited = 0
        history = []
        for epoch in range(epochs):
            summed = torch.zeros(2, len(self.sets) * self.members, dtype=torch.float64)
            for whole, mine in feed.shares(rows, job.seed, epoch, batch, hvd.rank(), hvd.size()):
                for group in optimizer.param_groups:
                    group["lr"] = o["learning_rate"] * schedule(step, total, warmup)
                masked = self.backward(optimizer, whole, mine, epoch)
                if o["clip"]:
                    clip_members([p for _, p in parameters], o["clip"])
                with optimizer.skip_synchronize():
                    optimizer.step()
                summed[0] += masked.sum(1).double().cpu()
                summed[1] += torch.from_numpy(self.learns[:, mine].sum(1).repeat(self.members))
                step += 1
                self.rank.rows_seen += len(whole)
            finite_or_stop(summed, epoch)
            summed = hvd.allreduce(summed, op=hvd.Sum, name="training loss")
            per_member = summed[0] / summed[1].clamp(min=1)
            entry: dict[str, Any] = {"epoch": epoch + 1, "train": per_member.view(len(self.sets), -1).mean(1).tolist()}
            if self.validates.any():
                validation = self._validation_loss()
                entry["validation"] = validation.tolist()
                if o["patience"]:
                    better = validation < best
                    best = torch.where(better, validation, best)
                    for copy, (_, p) in zip(kept, parameters, strict=True):
                        copy[better] = p.detach()[better]
                    waited = 0 if bool(better.any()) else waited + 1
            entry["sets"] = [(s.repeat, s.fold) for s in self.sets]
            history.append(entry)
            if hvd.rank() == 0 and (epoch + 1) % max(1, epochs // 5) == 0:
                shown = f"epoch {epoch + 1} of {epochs}: loss {float(per_member.mean()):.4f}"
                log.info("%s", shown + (f", validation {float(np.mean(entry['validation'])):.4f}" if "validation" in entry else ""))
            if o["patience"] and waited >= o["patience"]:
                break
        if kept and bool(torch.isfinite(best).all()):
            with torch.no_grad():
                for copy, (_, p) in zip(kept, parameters, strict=True):
                    p.copy_(copy)
        return history

    def _mine(self, chosen: np.ndarray, size: int) -> Iterator[np.ndarray]:
        """This rank's part of the chosen rows, in pieces."""
        rows = np.array_split(np.flatnonzero(chosen), self.rank.hvd.size())[self.rank.hvd.rank()]
        for start in range(0, len(rows), size):
            yield rows[start : start + size]

    def _validation_loss(self) -> torch.Tensor:
        """Mean loss of every member on the validation rows, float64 (S * E,)."""
        import torch

        summed = torch.zeros(len(self.sets) * self.members, dtype=torch.float64)
        with torch.no_grad():
            for rows in self._mine(self.validates, int(self.job.options["batch"])):
                summed += self.losses(self.network(self.inputs(rows)), rows, 0.0).sum(1).double().cpu()
        hvd = self.rank.hvd
        return hvd.allreduce(summed, op=hvd.Sum, name="validation loss") / int(self.validates.sum())

    def score(self) -> list[Any]:
        """Class probabilities, or values, of this rank's part of the held-out rows, averaged over an ensemble's members."""
        import pyarrow as pa
        import torch

        from genodl_spark import models

        tables = []
        with torch.no_grad():
            for rows in self._mine(self.held_out.any(0), int(self.job.options["batch"])):
                scores = models.combine(self.network(self.inputs(rows)), len(self.sets), self.job.classes, self.center, self.spread)
                for s, which in enumerate(self.sets):
                    mine = self.held_out[s, rows]
                    if mine.any():
                        columns = [pa.array(np.full(mine.sum(), which.repeat), pa.int32()), pa.array(rows[mine], pa.int64())]
                        columns.append(pa.array(list(scores[s, mine].reshape(int(mine.sum()), -1)), pa.list_(pa.float64())))
                        tables.append(pa.Table.from_arrays(columns, names=["repeat", "row_id", "scores"]))
        return tables

    def registered(self) -> bytes:
        """The registered model as safetensors: its members' parameters, over features, and its scaling."""
        import torch
        from safetensors.torch import save

        if self.projection is not None:
            fold: Any = self.network.fold
            fold(torch.from_numpy(self.projection).to(self.rank.device, self.rank.dtype).repeat_interleave(self.members, 0))
        last = slice(-self.members, None)
        tensors = {f"network.{name}": value[last].contiguous().cpu().float() for name, value in self.network.state_dict().items()}
        tensors["mean"] = torch.from_numpy(self.scaling.mean[-1].copy())
        tensors["inverse"] = torch.from_numpy(self.scaling.inverse[-1].copy())
        tensors["target"] = torch.tensor([self.center[-1], self.spread[-1]], dtype=torch.float64)
        return save(tensors)


def fit_scaling(data: feed.Examples, learns: np.ndarray, job: Job) -> tuple[quality.Scaling, np.ndarray | None, np.ndarray | None]:
    """Scaling of every training set and, for sets with fewer rows than features, their projection.

    Every rank computes them from all rows, on one thread: a few additions in another order would turn axes of nearly equal
    variance. Returns the scaling, coordinates float32 (S, rows, width) or None, and projections (S, features, width) or None.
    """
    from threadpoolctl import threadpool_limits

    from genodl_spark import models

    with threadpool_limits(1):
        origin = np.nan_to_num(quality.as_float(data.x[:1], job.transform)[0])
        classes = data.target.astype(int) if job.select and job.classes else None
        sums: quality.Moments | None = None
        for start in range(0, len(data), 4096):
            part = slice(start, start + 4096)
            values = quality.as_float(data.x[part], job.transform)
            found = quality.moments(values, learns[:, part], origin, None if classes is None else classes[part], job.classes)
            sums = found if sums is None else sums + found
        assert sums is not None
        scaling = quality.fit(sums, learns.sum(1), job.max_missing, job.select)
        most = int(learns.sum(1).max())
        if most > PROJECTED_ROWS or job.layout.features <= most or not getattr(models.network(job.model), "fold", None):
            return scaling, None, None
        values = quality.as_float(data.x, job.transform)
        found_axes = []
        for s in range(len(learns)):
            z = np.nan_to_num((values - scaling.mean[s]) * scaling.inverse[s])
            axes = quality.principal_axes(z[learns[s]])
            found_axes.append((z @ axes, axes))
        width = max(axes.shape[1] for _, axes in found_axes)
        coordinates = np.zeros((len(learns), len(data), width), np.float32)
        projection = np.zeros((len(learns), job.layout.features, width), np.float32)
        for s, (inside, axes) in enumerate(found_axes):
            coordinates[s, :, : axes.shape[1]], projection[s, :, : axes.shape[1]] = inside, axes
        return scaling, coordinates, projection


def schedule(step: int, total: int, warmup: float) -> float:
    """Factor of the learning rate: linear warm-up, then a cosine to 0 (Loshchilov and Hutter 2017)."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(total - warmup, 1)))


def clip_members(parameters: list[torch.nn.Parameter], limit: float) -> None:
    """Scales each member's gradient to a norm of at most `limit`; members stay independent of each other."""
    import torch

    norms = torch.stack([p.grad.flatten(1).norm(dim=1) for p in parameters if p.grad is not None]).norm(dim=0)
    factor = (limit / norms.clamp(min=1e-12)).clamp(max=1)
    for p in parameters:
        if p.grad is not None:
            p.grad.mul_(factor.view(-1, *[1] * (p.grad.dim() - 1)))


def finite_or_stop(summed: torch.Tensor, epoch: int) -> None:
    import torch

    if not bool(torch.isfinite(summed).all()):
        raise FloatingPointError(f"found a loss that is not finite in epoch {epoch + 1}; lower train.learning_rate, or look for extreme values")
