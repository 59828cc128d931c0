"""Values of a device beside those of the CPU, to stated tolerances; and that a device repeats itself to the last bit.

Losses are compared by their largest relative difference, weights by ||found - expected|| / ||expected|| over all
of them, scores (probabilities) by their largest difference.
"""

from __future__ import annotations

import copy
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from genodl_spark.learning.models import layers
from genodl_spark.learning.training import checkpoints, rank
from tests.device.work import Ours, Report, Rows, Trained, job, predictor, trained

MLP = {"kind": "mlp", "hidden": [64, 32], "dropout": 0.2, "input_dropout": 0.1}
CNN = {"kind": "cnn", "channels": [16, 16], "dilations": [1, 2], "pool": 2, "hidden": [16], "dropout": 0.1}
NETWORKS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "mlp, one member": ("values", MLP, {}),
    "mlp, 8 members": ("genotypes", MLP, {"ensemble": 8, "ema": 0.9, "mixup": 0.2}),
    "mlp, 4 sets x 2 members": ("folds", MLP, {"ensemble": 2}),
    "mlp, few rows, projected": ("projected", MLP, {"ensemble": 2}),
    "cnn": ("sequences", CNN, {}),
    "cnn, batch norm, 2 members": (
        "sequences",
        {**CNN, "norm": "batch", "reverse_complement": "augment"},
        {"ensemble": 2},
    ),
    "cnn, places and boxes": (
        "sequences",
        {**CNN, "pooling": ["max", "mean", "attention"], "positional": 8, "shift": 2, "boxes": 4},
        {"ensemble": 2},
    ),
    "rnn": ("sequences", {"kind": "rnn"}, {}),
}
# of losses, weights and scores
TOLERANCES = {
    "float64": (1e-8, 1e-6, 1e-7),
    "float32": (2e-3, 3e-2, 1e-2),
    "tf32": (1e-2, 1e-1, 5e-2),
    "bf16": (5e-2, 3e-1, 1e-1),
    "fp16": (5e-2, 3e-1, 1e-1),
}


def rows(kind: str, small: bool) -> Rows:
    count = 96 if small else 768
    if kind == "folds":
        return Rows("genotypes", count, 24, folds=3)
    if kind == "projected":
        return Rows("values", count, 2 * count, split=True)
    return Rows(kind, count, 60 if kind == "sequences" else 40, split=True)


def chosen(folder: str, name: str, small: bool, **options: Any) -> Any:
    kind, model, own = NETWORKS[name]
    given = {"epochs": 2 if small else 4, "batch": 50, "learning_rate": 0.003, **own, **options}
    return job(folder, rows(kind, small), model, given)


def apart(found: Trained, expected: Trained) -> tuple[float, float, float]:
    """How far losses, weights and scores are from what is expected."""
    loss = float(np.nanmax(np.abs(found.losses / expected.losses - 1)))
    pairs = [(found.weights[name].double(), value.double()) for name, value in expected.weights.items()]
    weight = sum(float(((a - b) ** 2).sum()) for a, b in pairs) / sum(float((b**2).sum()) for _, b in pairs)
    scores = np.abs(found.scores - expected.scores).max(initial=0.0)
    return loss, weight**0.5, float(scores)


def compared(report: Report, name: str, what: str, found: Trained, expected: Trained, limits: str) -> None:
    names = ("losses", "weights", "scores")
    distances = dict(zip(names, apart(found, expected), strict=True))
    allowed = dict(zip(names, TOLERANCES[limits], strict=True))
    ok = all(distances[n] <= allowed[n] for n in names)
    whole = bool(np.isfinite(found.losses).any() and np.isfinite(found.scores).all())
    report.add(
        "checks", network=name, what=what, ok=ok and whole, **distances, limits="/".join(map(str, allowed.values()))
    )


def against_the_cpu(report: Report, folder: str, device: torch.device, small: bool) -> None:
    """The same seeds on the CPU and on the device."""
    cpu = torch.device("cpu")
    for name in NETWORKS if not small else ("mlp, 8 members", "cnn"):
        for dtype in ("float64", "float32") if not small else ("float32",):
            j = chosen(folder, name, small, dtype=dtype)
            compared(report, name, f"{dtype}, the CPU's", trained(j, device), trained(j, cpu), dtype)


def precisions(report: Report, folder: str, device: torch.device, small: bool) -> None:
    """Mixed precision beside float32 on the CPU."""
    for name in ("mlp, 8 members", "cnn") if not small else ("mlp, one member",):
        exact = trained(chosen(folder, name, small), torch.device("cpu"))
        for kind in ("tf32", "bf16", "fp16") if device.type == "cuda" else ("bf16",):
            found = trained(chosen(folder, name, small, amp=kind), device)
            compared(report, name, f"{kind}, float32 on the CPU", found, exact, kind)


def compiled(report: Report, folder: str, device: torch.device, small: bool) -> None:
    """Compiled networks beside the same on the device."""
    if device.type != "cuda":  # a compiler of C++ takes half a minute for the CPU
        return
    for name in ("mlp, 8 members", "cnn"):
        eager = trained(chosen(folder, name, small), device)
        found = trained(chosen(folder, name, small, compile="on"), device)
        compared(report, name, "compiled, not compiled", found, eager, "float32")


def the_same_again(report: Report, folder: str, device: torch.device, small: bool) -> None:
    """Runs of one device, to the last bit: repeated, stopped and gone on with, with data that is not resident; and
    through the entrance of a job of one process."""
    for name in ("mlp, 8 members", "cnn, batch norm, 2 members") if not small else ("mlp, one member",):
        j = chosen(folder, name, small, epochs=3)
        whole = trained(j, device)

        def same(what: str, found: Trained, name: str = name, whole: Trained = whole) -> None:
            equal = np.array_equal(found.losses, whole.losses, equal_nan=True) and found.file == whole.file
            equal = equal and np.array_equal(found.scores, whole.scores)
            report.add("checks", network=name, what=what, ok=bool(equal))

        same("a repeated run, bit for bit", trained(j, device))
        stopped = replace(j, checkpoint=tempfile.mkdtemp(dir=folder), stop_epoch=1)
        Ours(stopped, device).group.fit()
        same("a resumed run, bit for bit", trained(replace(stopped, stop_epoch=0), device))
        Ours(replace(stopped, checkpoint=(cut := tempfile.mkdtemp(dir=folder))), device).group.fit()
        elsewhere = trained(replace(j, checkpoint=cut), torch.device("cpu"))
        compared(report, name, "begun on the device, ended on the CPU", elsewhere, whole, "float32")
        same("data that is not resident, bit for bit", trained(replace(j, device_bytes=0), device))
        if device.type == "cuda":
            same("run_alone, bit for bit", trained(j, device, run=rank.run_alone))


def inference(report: Report, folder: str, device: torch.device, small: bool) -> None:
    """Scores of one file of weights on both devices, and of rows alone and among others."""
    for name in ("mlp, 8 members", "cnn") if not small else ("mlp, one member",):
        j = chosen(folder, name, small)
        file = trained(j, torch.device("cpu")).file
        x = rows(NETWORKS[name][0], small).simulated()[0]
        expected = predictor(j, file, torch.device("cpu")).scores(x)
        for kind, limit in (("float32", 1e-5), ("tf32", 1e-2), ("bf16", 3e-2)):
            model = predictor(j, file, device, kind)
            found = model.scores(x)
            far = float(np.abs(found.raw - expected.raw).max())
            distance = float(np.nanmax(np.abs(found.distance / expected.distance - 1)))
            told = f"inference, {kind}, float32 on the CPU"
            report.add("checks", network=name, what=told, ok=far <= limit and distance < 1e-5, scores=far, limits=limit)
            alone = [model.scores(x[i : i + 1]).raw[0] for i in (0, len(x) - 1)]
            report.add(
                "checks",
                network=name,
                what=f"inference, {kind}, a row alone, bit for bit",
                ok=bool(np.array_equal(alone, found.raw[[0, -1]])),
            )


def randomness(report: Report, device: torch.device) -> None:
    """Keyed numbers, which no device may draw otherwise."""

    def drawn(on: torch.device, draw: Callable[..., torch.Tensor] = layers.keyed_bits) -> torch.Tensor:
        return draw(300, torch.arange(1000, device=on), layers.keys([1, 2, 3], 4, 5, on)).cpu()

    expected = drawn(torch.device("cpu"))
    report.add("checks", network="keyed_bits", what="the CPU's, bit for bit", ok=torch.equal(drawn(device), expected))
    if device.type == "cuda":
        compiled = drawn(device, torch.compile(layers.keyed_bits))
        report.add("checks", network="keyed_bits", what="compiled, bit for bit", ok=torch.equal(compiled, expected))


def kernels(report: Report, device: torch.device, small: bool) -> None:
    """Layers that a GPU computes by formulas of their own, forth and back, beside torch's on the CPU: the largest
    difference over the largest value of outputs and gradients; and that they repeat themselves."""
    width = 32
    count = 8 if small else layers.MANY // (128 * width)
    for dtype, limit in ((torch.float64, 1e-11), (torch.float32, 1e-4)):
        generator = torch.Generator().manual_seed(3)
        x = torch.randn(1, count, 128, width, generator=generator, dtype=torch.float64)
        gradient = torch.randn(x.shape, generator=generator, dtype=torch.float64)
        for name, layer in (
            ("layer norm", layers.MemberLayerNorm(1, width)),
            ("convolution", layers.MemberConv([1], width, width, 5, 0, dilation=3)),
        ):

            def passed(on: torch.device, as_: torch.dtype, layer: torch.nn.Module = layer) -> list[torch.Tensor]:
                own = copy.deepcopy(layer).to(on, as_)
                given = x.to(on, as_, copy=True).requires_grad_()  # noqa: B023
                y = own(given, True) if isinstance(own, layers.MemberLayerNorm) else own(given)
                y.backward(gradient.to(on, as_))  # noqa: B023
                return [t.detach().double().cpu() for t in (y, given.grad, *(p.grad for p in own.parameters()))]

            expected = passed(torch.device("cpu"), torch.float64)
            found, again = passed(device, dtype), passed(device, dtype)
            far = max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(found, expected, strict=True))
            told = f"{str(dtype).removeprefix('torch.')}, float64 on the CPU"
            report.add("checks", network=name, what=told, ok=far <= limit, scores=far, limits=limit)
            same = all(torch.equal(a, b) for a, b in zip(found, again, strict=True))
            report.add("checks", network=name, what=f"{told}, again, bit for bit", ok=same)


def waits(report: Report, folder: str, device: torch.device) -> None:
    """What waits for the device within steps of training: nothing, but for a network that looks for padding."""
    if device.type != "cuda":
        return
    for name, allowed in (("mlp, 8 members", 0), ("cnn", 1)):
        loop, steps = Ours(chosen(folder, name, False), device), 5
        loop.steps(3)
        torch.cuda.synchronize()
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                loop.steps(steps)
            finally:
                torch.cuda.set_sync_debug_mode("default")
        told = "called a synchronizing CUDA operation"  # and not that the mode is a prototype
        places = [f"{w.filename.rpartition('/')[2]}:{w.lineno}" for w in seen if told in str(w.message)]
        report.add(
            "checks",
            network=name,
            what="times a step waits for the device",
            ok=len(places) <= allowed * steps,
            found=len(places) / steps,
            limits=allowed,
            places=sorted(set(places)),
        )


def checkpoint_tensors(report: Report, folder: str, device: torch.device) -> None:
    """What a checkpoint holds of a group on the device comes back as it was."""
    tensors, state = Ours(chosen(folder, "mlp, one member", True), device).group.state()
    found, _ = checkpoints.unpack(checkpoints.pack(tensors, state))
    same = all(torch.equal(found[name], value.cpu()) for name, value in tensors.items())
    report.add("checks", network="mlp, one member", what="a checkpoint of its tensors, bit for bit", ok=same)
