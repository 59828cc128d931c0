"""What is trained and scored on a device: simulated rows, jobs over them, our loop, and bare loops beside it."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch.nn import functional

from genodl_spark.core import storage
from genodl_spark.learning import encodings, feed, heads, model_files, models
from genodl_spark.learning.devices import allow_tf32, precision
from genodl_spark.learning.predictor import Predictor, batch_rows
from genodl_spark.learning.settings import Train
from genodl_spark.learning.splits import TEST, TRAIN, VALIDATION
from genodl_spark.learning.training import plan
from genodl_spark.learning.training.group import Group
from genodl_spark.learning.training.rank import Rank
from genodl_spark.learning.training.ranks import Alone

CLASSES = ("a", "b")


@dataclass(frozen=True)
class Rows:
    """Simulated rows of two classes. `kind`: genotypes (int8, -1 missing), values (float32, NaN missing) or sequences
    (base codes, -1 beyond the end). `split`: a quarter of the rows each validates and tests; else all of them train.
    `folds`: of a cross-validation, in place of that."""

    kind: str
    count: int
    width: int
    split: bool = False
    folds: int = 0

    @property
    def dtype(self) -> str:
        return "float32" if self.kind == "values" else "int8"

    @property
    def transform(self) -> str:
        return "onehot" if self.kind == "sequences" else "none"

    def simulated(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Packed values (rows, width), targets (rows,) and folds (rows, 1)."""
        generator = np.random.default_rng(7)
        target = generator.integers(0, 2, self.count)
        if self.kind == "sequences":
            x = generator.integers(0, 4, (self.count, self.width), np.int8)
            at = self.width // 3
            x[:, at : at + 6] = np.where(target[:, None] == 1, np.int8([0, 3, 0, 3, 2, 1]), x[:, at : at + 6])
            if self.split:  # speeds are of whole sequences, checks of padded ones
                ends = generator.integers(self.width * 2 // 3, self.width + 1, self.count)
                x[np.arange(self.width) >= ends[:, None]] = -1
        elif self.kind == "genotypes":
            x = generator.integers(0, 3, (self.count, self.width), np.int8)
            x[:, :5] = np.minimum(x[:, :5] + target[:, None].astype(np.int8) * (x[:, 5:6] > 0), 2)
            x[generator.random(x.shape, np.float32) < 0.02] = -1
        else:
            x = generator.normal(size=(self.count, self.width)).astype(np.float32)
            x[:, :3] += target[:, None]
            x[generator.random(x.shape) < 0.05] = np.nan
        codes = np.full((self.count, 1), TRAIN, np.int8)
        if self.folds:
            codes[:, 0] = np.arange(self.count) % self.folds
        elif self.split:
            codes[:, 0] = np.array([TRAIN, TRAIN, VALIDATION, TEST], np.int8)[np.arange(self.count) % 4]
        return x, target * 1.0, codes

    def file(self, folder: str) -> str:
        """URI of the rows as a training file of a dataset, written where it is not there yet."""
        path = Path(folder) / f"{self.kind}-{self.count}-{self.width}-{self.split}-{self.folds}.parquet"
        if not path.exists():
            x, target, codes = self.simulated()
            columns = {
                "row_id": pa.array(np.arange(self.count)),
                "x": pa.array([row.tobytes() for row in x], pa.binary()),
                "target": pa.array(target),
                "folds": pa.array([row.tobytes() for row in codes], pa.binary()),
            }
            pq.write_table(pa.table(columns), path, row_group_size=5000, compression="none")
        return f"file://{path}"


def job(folder: str, rows: Rows, model: dict[str, Any], options: dict[str, Any], **changes: Any) -> plan.Job:
    chosen = {"ensemble": 1, "min_steps": 0, "checkpoint_seconds": 1e9, "compile": "off", **options}
    made = plan.Job(
        files=[rows.file(folder)],
        layout=feed.Layout(rows.count, rows.width, rows.dtype, 1),
        backend="pyarrow",
        resident_bytes=1 << 34,
        heads=heads.one("label", list(CLASSES)),
        folds=rows.folds,
        transform=rows.transform,
        max_missing=1.0,
        select=0,
        model=model,
        options=Train(**chosen),
        seed=5,
        staging=tempfile.mkdtemp(dir=folder),
    )
    return replace(made, **changes)


def examples(j: plan.Job) -> feed.Examples:
    return _examples(j.files[0], j.layout)


@lru_cache(maxsize=2)
def _examples(file: str, layout: feed.Layout) -> feed.Examples:
    return feed.read([file], layout, "pyarrow", 1 << 34)


@dataclass(frozen=True)
class Trained:
    """What a training left: per epoch the losses of every set, then of every member on validation rows; the registered
    weights; the scores of held-out rows in the order of their numbers; and the bytes of the model's file."""

    losses: np.ndarray
    weights: dict[str, torch.Tensor]
    scores: np.ndarray
    file: bytes


def trained(j: plan.Job, device: torch.device, run: Callable[[plan.Job], dict[str, Any]] | None = None) -> Trained:
    """The whole road of a job on a device, in this process."""
    from safetensors.torch import load

    j = replace(j, staging=tempfile.mkdtemp(dir=Path(storage.local_path(j.staging)).parent))
    result = run(j) if run else Rank(j, Alone(), device, examples(j)).run()
    history = result["history"]
    losses = np.array([[*entry["train"], *entry.get("validation", [])] for entry in history])
    file = Path(j.staging, "model.safetensors").read_bytes()
    tensors = {name: value for name, value in load(file).items() if name.startswith("network.")}
    parts = [pq.read_table(path).to_pydict() for path in sorted(Path(j.staging).glob("held_out/*/*.parquet"))]
    found = {row: score for part in parts for row, score in zip(part["row_id"], part["scores"], strict=True)}
    return Trained(losses, tensors, np.array([found[row] for row in sorted(found)]), file)


class Ours:
    """The training loop of this package, as a rank runs it, a few epochs at a time."""

    def __init__(self, j: plan.Job, device: torch.device) -> None:
        self.group = Group(Rank(j, Alone(), device, examples(j)))

    def __call__(self, epochs: int) -> None:
        allow_tf32(self.group.job.options.amp == "tf32")
        self.group.job = replace(self.group.job, stop_epoch=self.group.progress.epoch + epochs)
        self.group.fit()

    def steps(self, count: int) -> None:
        """Steps on their own, without what the end of an epoch does."""
        group = self.group
        allow_tf32(group.job.options.amp == "tf32")
        for (step, whole, pieces), _ in zip(group.batches(group.progress.epoch, 0), range(count), strict=False):
            group.backward(whole, pieces, group.progress.epoch)
            group.update(step)


class Bare:
    """A loop as one would write it by hand for this one network: data resident on the device, a permutation made
    there, fused AdamW, clipped gradients, nothing that waits for the device. It computes as our loop does: with
    deterministic algorithms and TF32 only where the options say so; `free`: without the former, as torch comes."""

    def __init__(
        self,
        j: plan.Job,
        network: Callable[[torch.Tensor, torch.Tensor, int], torch.Tensor],
        device: Any,
        free: bool = False,
    ):
        data = examples(j)
        self.job, self.network, self.device, self.free = j, network, device, free
        self.x = torch.from_numpy(np.ascontiguousarray(data.x[:])).to(device)
        self.target = torch.from_numpy(data.target[:, 0].astype(np.int64)).to(device)
        self.scale = standard(data.x[:4096], j, device)
        self.parameters = list(network.parameters())  # type: ignore[attr-defined]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=1e-3, fused=True)
        self.forward = torch.compile(network) if j.options.compile == "on" else network
        self.epoch = 0

    def __call__(self, epochs: int) -> None:
        o = self.job.options
        with computing(o.amp == "tf32", self.free):
            for _ in range(epochs):
                order = torch.randperm(len(self.x), device=self.device)
                for start in range(0, len(order), o.batch):
                    rows = order[start : start + o.batch]
                    with precision(o.amp, self.device):
                        outputs = self.forward(self.scale(self.x[rows]), rows, self.epoch)
                    loss = functional.cross_entropy(outputs.float(), self.target[rows])
                    self.optimizer.zero_grad()
                    loss.backward()
                    torch.nn.utils.clip_grad_norm_(self.parameters, o.clip)
                    self.optimizer.step()
                self.epoch += 1


@contextlib.contextmanager
def computing(tf32: bool, free: bool) -> Iterator[None]:
    """Within, TF32 is allowed or not, and where it is `free` torch need not be deterministic."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(before and not free, warn_only=True)
    allow_tf32(tf32)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=True)


def standard(sample: np.ndarray, j: plan.Job, device: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    """Packed rows to what networks take, (B, ...), by hand."""
    if j.transform == "onehot":
        bases = torch.arange(4, dtype=torch.int8, device=device)[:, None]
        return lambda x: (x[:, None, :] == bases).float()
    values = np.where(sample < 0, np.nan, sample) if sample.dtype == np.int8 else sample
    mean = torch.from_numpy(np.nanmean(values, 0).astype(np.float32)).to(device)
    inverse = torch.from_numpy((1 / np.nanstd(values, 0)).astype(np.float32)).to(device)
    if sample.dtype != np.int8:
        return lambda x: ((x - mean) * inverse).nan_to_num_(nan=0.0)
    return lambda x: ((x.float() - mean) * inverse).masked_fill_(x < 0, 0.0)


class OneMember(torch.nn.Module):
    """A network of this package with one member, called with rows (B, ...)."""

    def __init__(self, j: plan.Job) -> None:
        super().__init__()
        shape = encodings.encoding(j.transform).shape(j.layout.features)
        self.network = models.build(j.model, [1], shape, len(CLASSES))

    def forward(self, x: torch.Tensor, rows: torch.Tensor | None = None, epoch: int = 0) -> torch.Tensor:
        return self.network(x[None], rows, epoch)[0]  # type: ignore[no-any-return]


class OwnLayers(torch.nn.Module):
    """A network of torch's own layers, called alike."""

    def __init__(self, stack: torch.nn.Module) -> None:
        super().__init__()
        self.stack = stack

    def forward(self, x: torch.Tensor, rows: torch.Tensor, epoch: int) -> torch.Tensor:
        return self.stack(x)  # type: ignore[no-any-return]


def predictor(j: plan.Job, file: bytes, device: torch.device, kind: str = "float32", batch: int = 0) -> Predictor:
    """The batch kernel over a registered model's file."""
    shape = encodings.encoding(j.transform).shape(j.layout.features)
    names = [f"f{i}" for i in range(j.layout.features)]
    card = model_files.Card(
        model_files.FORMAT,
        "m",
        "t",
        "label",
        list(CLASSES),
        names,
        j.layout.dtype,
        j.transform,
        j.model,
        j.options.ensemble,
        1.0,
        batch_rows(batch, shape),
    )
    return Predictor(card, file, "m", kind, device=str(device))


def flops(j: plan.Job, backward: bool) -> float:
    """Floating-point operations of matrix products and convolutions for one row under one member."""
    from torch.utils.flop_counter import FlopCounterMode

    network, rows = OneMember(j), 8
    x = torch.ones(rows, *encodings.encoding(j.transform).shape(j.layout.features))
    with FlopCounterMode(display=False) as counter:
        outputs = network(x, torch.arange(rows), 0)
        if backward:
            outputs.sum().backward()
    return counter.get_total_flops() / rows


class Report:
    """One JSON line a row, on standard output and below $OUT, and tables of them at the end."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.failed = 0
        self.path = os.path.join(os.environ["OUT"], "device.jsonl") if os.environ.get("OUT") else ""

    def add(self, section: str, **row: Any) -> None:
        found = {"section": section, **{key: _short(value) for key, value in row.items()}}
        self.rows.append(found)
        self.failed += found.get("ok") is False
        line = json.dumps(found)
        print(line, flush=True)
        if self.path:
            with open(self.path, "a") as out:
                out.write(line + "\n")

    def table(self, section: str) -> str:
        """The rows of a section as a table of Markdown."""
        rows = [{k: v for k, v in row.items() if k != "section"} for row in self.rows if row["section"] == section]
        names = list(dict.fromkeys(name for row in rows for name in row))
        lines = [names, ["---"] * len(names), *([_cell(row.get(name)) for name in names] for row in rows)]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines) if rows else ""


def _short(value: Any) -> Any:
    return float(f"{value:.4g}") if isinstance(value, float) else value


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if isinstance(value, float) and abs(value) >= 1000 else str(value)
