"""The training loop beside a bare torch loop on the same model and rows, and two ranks beside two
processes: `make bench-train`.

Every run is a process of its own, pinned to its cores; rounds alternate between what is compared, and medians count.
Seconds are those of the loop: reading the data, imports and launches are not in them. The bare loop is what one would
write by hand: a batch gathered by a permutation, made one-hot, forward, cross entropy, backward, clipping, AdamW;
with this network, or with torch's own layers of the same widths and dropout (and means in place of attention).
Two ranks share a batch twice as large and sum gradients at every step; two independent processes train a model each.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from genodl_spark.learning import encodings, heads
from genodl_spark.learning.training import plan, rank

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "bench"))
MODELS: dict[str, dict[str, Any]] = {
    "cnn": {"kind": "cnn", "channels": [32], "dilations": [1, 2, 4], "hidden": [32], "dropout": 0.1},
    "mlp": {"kind": "mlp", "hidden": [1024, 256], "dropout": 0.1},
}
SHAPES = {"cnn": (6144, 150), "mlp": (32768, 1000)}  # rows, positions or features
CLASSES, BATCH = 2, 512


def job(kind: str, folder: str, ranks: int, epochs: int, **options: Any) -> Any:
    """A job over simulated rows in `folder`, written where they are not there yet."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from genodl_spark.learning import feed
    from genodl_spark.learning.settings import Train

    rows, width = SHAPES[kind]
    dtype = "int8" if kind == "cnn" else "float32"
    path = Path(folder) / f"{kind}.parquet"
    if not path.exists():
        generator = np.random.default_rng(7)
        x = (
            generator.integers(0, 4, (rows, width)).astype(dtype)
            if kind == "cnn"
            else generator.normal(size=(rows, width)).astype(dtype)
        )
        columns = {
            "row_id": pa.array(np.arange(rows)),
            "x": pa.array([row.tobytes() for row in x], pa.binary()),
            "target": generator.integers(0, CLASSES, rows) * 1.0,
            "folds": pa.array([b"\0"] * rows, pa.binary()),
        }
        pq.write_table(pa.table(columns), path.with_suffix(".tmp"), row_group_size=5000, compression="zstd")
        path.with_suffix(".tmp").rename(path)
    chosen = {
        "ensemble": 1,
        "epochs": epochs,
        "min_steps": 0,
        "batch": BATCH * ranks,
        "checkpoint_seconds": 1e9,
        **options,
    }
    staging = tempfile.mkdtemp(dir=folder)
    return plan.Job(
        files=[f"file://{path}"],
        layout=feed.Layout(rows, width, dtype, 1),
        backend="pyarrow",
        resident_bytes=1 << 32,
        heads=heads.one("label", [f"c{i}" for i in range(CLASSES)]),
        folds=0,
        transform="onehot" if kind == "cnn" else "none",
        max_missing=1.0,
        select=0,
        model=MODELS[kind],
        options=Train(**chosen),
        seed=1,
        staging=staging,
        checkpoint=f"{staging}/checkpoint",
    )


def ours(kind: str, folder: str, epochs: int, options: dict[str, Any]) -> dict[str, Any]:

    return rank.run_alone(job(kind, folder, 1, epochs, **options))


def bare(kind: str, folder: str, epochs: int, options: dict[str, Any]) -> dict[str, Any]:
    """The same network and rows in a loop of its own."""
    import torch
    from torch.nn import functional

    from genodl_spark.learning import feed, models

    j = job(kind, folder, 1, epochs, **options)
    data = feed.read(j.files, j.layout, "pyarrow")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    network = models.build(j.model, [1], encodings.encoding(j.transform).shape(j.layout.features), CLASSES).to(device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, fused=True)
    mean, inverse = torch.from_numpy(data.x.mean(0)).to(device), torch.from_numpy(1 / data.x.std(0)).to(device)
    target = torch.from_numpy(data.target[:, 0].astype(np.int64))
    bases = torch.arange(4, dtype=torch.int8, device=device)[:, None]
    amp = torch.autocast(device.type, torch.bfloat16, enabled=options.get("amp") == "bf16")
    started = time.perf_counter()
    for epoch in range(epochs):
        order = np.random.default_rng(epoch).permutation(len(data))
        for start in range(0, len(order), BATCH):
            rows = order[start : start + BATCH]
            x = torch.from_numpy(data.x[rows]).to(device)
            x = (x[:, None, :] == bases).float() if kind == "cnn" else (x - mean) * inverse
            with amp:
                outputs = network(x[None], torch.from_numpy(rows).to(device), epoch)[0]
            loss = functional.cross_entropy(outputs.float(), target[rows].to(device))
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), j.options.clip)
            optimizer.step()
    float(loss.detach())
    return {"rows_per_second": len(data) * epochs / (time.perf_counter() - started)}


def own_layers(kind: str, width: int) -> Any:
    """A network of torch's own layers of the shape of MODELS[kind], over rows of so many features or positions."""
    import torch
    from torch import nn

    if kind == "mlp":
        first, second = MODELS[kind]["hidden"]
        drop = nn.Dropout(0.1)
        return nn.Sequential(
            nn.Linear(width, first),
            nn.GELU(),
            drop,
            nn.Linear(first, second),
            nn.GELU(),
            drop,
            nn.Linear(second, CLASSES),
        )
    channels = MODELS[kind]["channels"][0]

    class Block(nn.Module):
        def __init__(self, dilation: int) -> None:
            super().__init__()
            self.first, self.second = nn.GroupNorm(1, channels), nn.GroupNorm(1, channels)
            self.wide = nn.Conv1d(channels, channels, 5, padding="same", dilation=dilation)
            self.point = nn.Conv1d(channels, channels, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.wide(nn.functional.gelu(self.first(x)))
            return x + self.point(nn.functional.gelu(self.second(y)))

    return nn.Sequential(
        nn.Conv1d(4, channels, 15, padding="same"),
        *(Block(dilation) for dilation in MODELS[kind]["dilations"]),
        nn.GroupNorm(1, channels),
        nn.GELU(),
        nn.AdaptiveAvgPool1d(1),
        nn.Flatten(),
        *(nn.Dropout(0.1), nn.Linear(channels, 32), nn.GELU(), nn.Dropout(0.1), nn.Linear(32, CLASSES)),
    )


def plain(kind: str, folder: str, epochs: int, options: dict[str, Any]) -> dict[str, Any]:
    """That network in the bare loop: what members and keyed dropout cost."""
    import torch
    from torch import nn

    from genodl_spark.learning import models

    class Members(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stack = own_layers(kind, SHAPES[kind][1])

        def forward(self, x: torch.Tensor, rows: torch.Tensor, epoch: int) -> torch.Tensor:
            return self.stack(x[0])[None]

    models.build = lambda *a, **k: Members()  # type: ignore[assignment]
    return bare(kind, folder, epochs, options)


def two_ranks(kind: str, folder: str, epochs: int, options: dict[str, Any]) -> dict[str, Any]:
    import horovod.runner

    j = job(kind, folder, 2, epochs, **options)
    return dict(horovod.runner.run(pinned_rank, (j, str(ROOT)), num_proc=2, use_gloo=True)[0])


def pinned_rank(j: Any, root: str) -> dict[str, Any]:
    """A rank on the core of its number."""
    sys.path.insert(0, root)
    cpus = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cpus[int(os.environ["HOROVOD_LOCAL_RANK"]) % len(cpus)]})

    return rank.run_rank(j)


def start(
    what: str, kind: str, folder: str, epochs: int, cpus: list[int], options: dict[str, Any]
) -> subprocess.Popen[str]:
    command = [sys.executable, __file__, "--run", json.dumps([what, kind, folder, epochs, options])]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=ROOT, preexec_fn=lambda: os.sched_setaffinity(0, cpus)
    )


def measured(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"a run of the benchmark failed with exit code {process.returncode}")
    return dict(json.loads(out.splitlines()[-1]))


def median(values: list[float]) -> float:
    return statistics.median(values)


def main() -> int:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--repeat", type=int, default=5)
    made.add_argument("--models", default="cnn,mlp")
    made.add_argument(
        "--busy", action="store_true", help="loops of one process alone, by CPU seconds: where others use the machine"
    )
    made.add_argument("--run", help=argparse.SUPPRESS)
    a = made.parse_args()
    if a.run:
        what, kind, folder, epochs, options = json.loads(a.run)
        if options.pop("busy", False):
            time.perf_counter = time.process_time
        print(json.dumps({k: v for k, v in globals()[what](kind, folder, epochs, options).items() if k != "history"}))
        return 0
    import torch

    cpus = sorted(os.sched_getaffinity(0))
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    machine = f"{len(cpus)} cores, {platform.machine()}{', ' + gpu if gpu else ''}"
    print(f"{machine}, torch {torch.__version__}; {date.today()}; {a.repeat} alternating rounds, medians\n")
    print("| model | what | rows/s | ratio |\n| --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory(prefix="genodl-bench-train-") as folder:
        for kind in a.models.split(","):
            compare(kind, folder, cpus, a.repeat, a.busy)
            if gpu and not a.busy:
                on_gpu(kind, folder, cpus, a.repeat)
    for kind in a.models.split(","):
        rows, width = SHAPES[kind]
        print(f"\n{kind}: {json.dumps(MODELS[kind])}, {rows:,} rows x {width:,}, batch {BATCH} a rank, float32")
    return 0


def compare(kind: str, folder: str, cpus: list[int], repeat: int, busy: bool) -> None:
    epochs = 2 if kind == "cnn" else 4
    job(kind, folder, 1, epochs)  # writes the rows
    found: dict[str, list[float]] = {name: [] for name in ("bare", "ours", "plain", "both", "two", "often")}
    stall, cost = [], []
    for number in range(repeat):
        print(f"{kind}: round {number + 1} of {repeat}", file=sys.stderr, flush=True)
        one = cpus[:1]
        runs = {w: measured(start(w, kind, folder, epochs, one, {"busy": busy})) for w in ("bare", "ours", "plain")}
        for what, run in runs.items():
            found[what].append(run["rows_per_second"])
        stall.append(runs["ours"]["feed_stall_percent"])
        if busy:
            continue
        often = measured(start("ours", kind, folder, epochs, one, {"checkpoint_seconds": 1.0}))
        found["often"].append(often["rows_per_second"])
        cost.append(100 * (runs["ours"]["rows_per_second"] / often["rows_per_second"] - 1))
        if len(cpus) > 1:
            pair = [start("ours", kind, folder, epochs, [cpu], {}) for cpu in cpus[:2]]
            found["both"].append(sum(measured(p)["rows_per_second"] for p in pair))
            found["two"].append(measured(start("two_ranks", kind, folder, epochs, cpus[:2], {}))["rows_per_second"])

    def line(name: str, label: str, other: str, peer: str) -> None:
        if found[name]:
            ratio = median([x / y for x, y in zip(found[name], found[other], strict=True)])
            print(f"| {kind} | {label} | {median(found[name]):,.0f} | {ratio:.3f} of {peer} |", flush=True)

    line("bare", "bare torch loop, this network", "bare", "itself")
    line("ours", "genodl train", "bare", "the bare torch loop")
    line("plain", "bare torch loop, torch's own layers", "bare", "the bare loop of this network")
    line("ours", "genodl train", "plain", "the bare loop of torch's own layers")
    line("often", "genodl train, a checkpoint a second", "ours", "genodl train")
    line("both", "two independent processes, a core each", "ours", "one")
    line("two", "two ranks, a core each", "both", "two independent processes")
    print(f"| {kind} | feed stall | {median(stall):.2f}% | |", flush=True)
    if cost:
        print(f"| {kind} | cost of a checkpoint a second | {median(cost):.2f}% | |", flush=True)


def on_gpu(kind: str, folder: str, cpus: list[int], repeat: int) -> None:
    """bf16 beside the bare loop in bf16, and the floating-point rate beside that of large matrix
    products on the same card."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from genodl_spark.learning import models

    epochs = 10
    rates: dict[str, list[float]] = {"bare": [], "ours": []}
    for _ in range(repeat):
        for what in rates:
            rates[what].append(measured(start(what, kind, folder, epochs, cpus, {"amp": "bf16"}))["rows_per_second"])
    a = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(20):
        a @ a
    torch.cuda.synchronize()
    peak = 20 * 2 * 8192**3 / (time.perf_counter() - started)
    shape = encodings.encoding("onehot" if kind == "cnn" else "none").shape(SHAPES[kind][1])
    network = models.build(MODELS[kind], [1], shape, CLASSES)
    with FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 64, *shape), torch.arange(64), 0).sum().backward()
    used = counter.get_total_flops() / 64 * median(rates["ours"])
    ratio = median([x / y for x, y in zip(rates["ours"], rates["bare"], strict=True)])
    print(f"| {kind} | GPU, bf16: genodl train | {median(rates['ours']):,.0f} | {ratio:.3f} of the bare torch loop |")
    print(
        f"| {kind} | GPU, bf16: TFLOP/s | {used / 1e12:.1f} | {used / peak:.3f} of a large matrix "
        f"product ({peak / 1e12:.0f}) |",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
