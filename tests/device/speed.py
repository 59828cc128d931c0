"""Rows a second of training and inference beside bare torch loops, and the shares of the card's peaks.

Loops alternate; medians of the rounds count, and the spread is that of all rounds. Rows a second of several members
are multiplied by their number: a bare loop would train them one after the other.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from genodl_spark.learning.devices import allow_tf32, precision
from tests.bench.train import MODELS, own_layers
from tests.device.work import (
    Bare,
    OneMember,
    Ours,
    OwnLayers,
    Report,
    Rows,
    computing,
    examples,
    flops,
    job,
    predictor,
    standard,
)

WIDE = {"kind": "mlp", "hidden": [4096, 4096], "dropout": 0.1}
# network, rows of a batch, what it multiplies in, compiled, members; by how much they tell
TRAINING = [
    ("mlp", 512, "off", False, 1),
    ("mlp", 512, "bf16", False, 1),
    ("cnn", 512, "off", False, 1),
    ("cnn", 512, "bf16", False, 1),
    ("mlp", 8192, "off", False, 1),
    ("mlp", 8192, "bf16", False, 1),
    ("cnn", 4096, "off", False, 1),
    ("cnn", 4096, "bf16", False, 1),
    ("mlp", 512, "bf16", False, 8),
    ("mlp", 8192, "bf16", True, 1),
    ("cnn", 4096, "bf16", True, 1),
    ("mlp", 8192, "tf32", False, 1),
    ("wide", 8192, "bf16", False, 1),
    ("mlp", 512, "off", True, 1),
    ("cnn", 512, "bf16", True, 1),
    ("cnn", 4096, "tf32", False, 1),
    ("wide", 8192, "bf16", True, 1),
]
STEPS = 64  # of an epoch at most
INFERENCE = [("mlp", "float32"), ("mlp", "bf16"), ("cnn", "float32"), ("cnn", "bf16")]


class Speed:
    """The rows and peaks that all measurements share."""

    def __init__(self, report: Report, folder: str, device: torch.device, small: bool, deadline: float) -> None:
        self.report, self.folder, self.device, self.small, self.deadline = report, folder, device, small, deadline
        self.rounds, self.seconds = (1, 0.0) if small else (5, 0.4)
        features, sequences = ((512, 200), (128, 60)) if small else ((12 * 8192, 1000), (1 << 16, 200))
        self.rows = {"mlp": Rows("genotypes", *features), "cnn": Rows("sequences", *sequences)}
        self.rows["wide"] = self.rows["mlp"]
        self.peaks: dict[str, float] = {}
        self.copied = 0.0

    def job(self, network: str, **options: Any) -> Any:
        model = WIDE if network == "wide" else MODELS[network]
        if self.small:
            options["batch"] = 64
        rows = self.rows[network]
        rows = replace(rows, count=min(rows.count, STEPS * options["batch"]))
        return job(self.folder, rows, model, {"epochs": 1_000_000, "schedule": "constant", **options})

    def timed(self, what: Callable[[], Any]) -> float:
        """Seconds until the device has done it."""
        self._wait()
        started = time.perf_counter()
        what()
        self._wait()
        return time.perf_counter() - started

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def alternating(self, loops: dict[str, Callable[[int], Any]], first: int = 1) -> tuple[dict[str, list[float]], int]:
        """Seconds of every round of each loop, and how often a round repeats it. `first`: repeats before them, in which
        memory is reserved and networks are compiled."""
        for loop in loops.values():
            loop(first)
        times = max(1, min(200, int(self.seconds / max(self.timed(lambda: loops["ours"](1)), 1e-6))))
        found: dict[str, list[float]] = {name: [] for name in loops}
        for _ in range(self.rounds):
            for name, loop in loops.items():
                found[name].append(self.timed(lambda loop=loop: loop(times)))  # type: ignore[misc]
        return found, times

    def measure_peaks(self) -> None:
        """Rates of products of matrices of 8192 x 8192, and of a copy within the device's memory."""
        size = 8192 if self.device.type == "cuda" else 256
        a, b = (torch.randn(size, size, device=self.device) for _ in range(2))
        for kind in ("off", "tf32", "bf16"):
            allow_tf32(kind == "tf32")
            left, right = (a.bfloat16(), b.bfloat16()) if kind == "bf16" else (a, b)
            left @ right
            seconds = [self.timed(lambda: [left @ right for _ in range(5)]) / 5 for _ in range(self.rounds)]  # noqa: B023
            self.peaks[kind] = 2 * size**3 / statistics.median(seconds)
            name = f"product of {size} x {size}, {'float32' if kind == 'off' else kind}"
            self.report.add("peaks", what=name, value=self.peaks[kind] / 1e12, unit="TFLOP/s")
        allow_tf32(False)
        many = torch.ones((1 << 31) if self.device.type == "cuda" else 1 << 20, dtype=torch.uint8, device=self.device)
        to = torch.empty_like(many)
        seconds = [self.timed(lambda: [to.copy_(many) for _ in range(5)]) / 5 for _ in range(self.rounds)]
        self.copied = 2 * len(many) / statistics.median(seconds)
        self.report.add("peaks", what="a copy, bytes read and written", value=self.copied / 1e12, unit="TB/s")

    def gather(self) -> None:
        """Batches out of resident data, at random rows."""
        loop = Ours(self.job("mlp", batch=8192), self.device)
        data = loop.group.rank.data
        generator, size = np.random.default_rng(1), min(1 << 16, len(data))
        chosen = [generator.integers(0, len(data), size) for _ in range(8)]
        seconds = [self.timed(lambda: [loop.group.fetch(rows) for rows in chosen]) / 8 for _ in range(self.rounds)]
        rate = 2 * size * data.x.shape[1] / statistics.median(seconds)
        resident = loop.group.resident is not None
        self.report.add(
            "gather",
            rows=size,
            bytes_a_row=data.x.shape[1],
            resident=resident,
            gb_s=rate / 1e9,
            of_copy=rate / self.copied if self.copied else None,
        )

    def training(self, network: str, batch: int, amp: str, compiled: bool, members: int) -> None:
        label = training_label(network, batch, amp, compiled, members)
        if time.monotonic() > self.deadline:
            self.report.add("training", what=label, skipped="no time was left")
            return
        j = self.job(network, batch=batch, amp=amp, compile="on" if compiled else "off", ensemble=members)
        alone = replace(j, options=j.options.model_copy(update={"ensemble": 1}))
        loops: dict[str, Callable[[int], Any]] = {"ours": Ours(j, self.device)}
        loops["bare"] = Bare(alone, OneMember(alone).to(self.device), self.device)
        if network != "wide" and not compiled:  # a compiler takes half a minute for each
            for name in ("torch", "free") if network == "cnn" else ("torch",):  # products of matrices are alike
                layers = OwnLayers(own_layers(network, j.layout.features)).to(self.device)
                loops[name] = Bare(alone, layers, self.device, name == "free")
        # the first epochs are compiled one by one, until their number is a symbol
        seconds, times = self.alternating(loops, 4 if compiled else 1)
        rows = j.layout.rows * times
        rate = {name: [rows * (members if name == "ours" else 1) / s for s in found] for name, found in seconds.items()}
        middle = {name: statistics.median(found) for name, found in rate.items()}
        used = flops(alone, True) * middle["ours"]
        self.report.add(
            "training",
            what=label,
            rows_s=middle["ours"],
            spread=_spread(rate["ours"]),
            bare_rows_s=middle["bare"],
            of_bare=_ratio(seconds, "bare") * members,
            of_torch_layers=_ratio(seconds, "torch") * members if "torch" in seconds else None,
            of_free_layers=_ratio(seconds, "free") * members if "free" in seconds else None,
            tflop_s=used / 1e12,
            of_peak=used / self.peaks[amp] if self.peaks else None,
            epochs_a_round=times,
        )

    def inference(self, network: str, kind: str) -> None:
        """Rows of the host scored by the batch kernel, beside a bare loop over the same rows and over resident ones."""
        if time.monotonic() > self.deadline:
            self.report.add("inference", what=f"{network}, {kind}", skipped="no time was left")
            return
        j = self.job(network, batch=8192)
        group = Ours(j, self.device).group
        model = predictor(j, group.registered(group.learnt()), self.device, kind)
        x = examples(j).x[:]
        scale, network_alone = standard(x[:4096], j, self.device), OneMember(j).to(self.device).eval()
        resident = torch.from_numpy(np.ascontiguousarray(x)).to(self.device)

        def bare(times: int, rows: Any) -> None:
            with computing(kind == "tf32", free=False), torch.inference_mode():
                for _ in range(times):
                    for start in range(0, len(x), model.batch):
                        part = rows[start : start + model.batch]
                        part = (torch.from_numpy(part) if isinstance(part, np.ndarray) else part).to(self.device)
                        with precision(kind, self.device):
                            outputs = network_alone(scale(part))
                        outputs.float().softmax(-1).cpu()

        loops: dict[str, Callable[[int], Any]] = {
            "ours": lambda times: [model.scores(x) for _ in range(times)],
            "bare": lambda times: bare(times, x),
            "resident": lambda times: bare(times, resident),
        }
        seconds, times = self.alternating(loops)
        rate = {name: [len(x) * times / s for s in found] for name, found in seconds.items()}
        used = flops(j, False) * statistics.median(rate["ours"])
        peak = self.peaks.get("off" if kind == "float32" else kind)
        self.report.add(
            "inference",
            what=f"{network}, {kind}",
            batch=model.batch,
            rows_s=statistics.median(rate["ours"]),
            spread=_spread(rate["ours"]),
            bare_rows_s=statistics.median(rate["bare"]),
            of_bare=_ratio(seconds, "bare"),
            of_bare_resident=_ratio(seconds, "resident"),
            tflop_s=used / 1e12,
            of_peak=used / peak if peak else None,
        )

    def profile(self, network: str, batch: int, amp: str) -> None:
        """Where the time of a step goes: kernels that are started, how long they run, and the longest of them."""
        from torch.profiler import ProfilerActivity, profile

        loop, steps = Ours(self.job(network, batch=batch, amp=amp), self.device), 10
        loop.steps(5)
        seconds = self.timed(lambda: loop.steps(steps)) / steps
        with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
            self.timed(lambda: loop.steps(steps))
        kernels = [e for e in seen.key_averages() if e.device_type == torch.autograd.DeviceType.CUDA]
        busy = sum(e.self_device_time_total for e in kernels) / steps
        label = f"{network}, batch {batch}, {amp}"
        self.report.add(
            "steps",
            what=label,
            step_us=seconds * 1e6,
            device_us=busy,
            device_busy=busy / (seconds * 1e6),
            kernels=sum(e.count for e in kernels) / steps,
        )
        for e in sorted(kernels, key=lambda e: -e.self_device_time_total)[:8]:
            self.report.add(
                "kernels",
                what=label,
                us_a_step=e.self_device_time_total / steps,
                count=e.count / steps,
                name=e.key[:70],
            )


def training_label(network: str, batch: int, amp: str, compiled: bool, members: int) -> str:
    told = f"{network}, batch {batch}, {amp}"
    return told + ", compiled" * compiled + f", {members} members" * (members > 1)


def _ratio(seconds: dict[str, list[float]], other: str) -> float:
    """How much faster ours is than another, round by round: the median."""
    return statistics.median(b / a for a, b in zip(seconds["ours"], seconds[other], strict=True))


def _spread(rates: list[float]) -> str:
    middle = statistics.median(rates)
    return f"{100 * (min(rates) / middle - 1):+.1f}% {100 * (max(rates) / middle - 1):+.1f}%"
