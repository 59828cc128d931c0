"""Networks. Each file holds one kind of model as a class `Network`; `model.kind` names the file.

Every parameter has a leading dimension of members: networks of the same shape that share nothing but the batches they see
(folds of a cross-validation, seeds of an ensemble). One member is an ensemble of one.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from genodl_spark.errors import InputError


class MemberLinear(nn.Module):
    """x (M, B, inputs) -> (M, B, outputs), with weights (M, inputs, outputs) of each member's own.

    `seeds`: one per member; a member's start depends on its seed alone, not on its neighbours.
    """

    def __init__(self, seeds: list[int], inputs: int, outputs: int, layer: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(max(inputs, 1))
        weight = torch.empty(len(seeds), inputs, outputs)
        for member, seed in enumerate(seeds):
            generator = torch.Generator().manual_seed(mix(seed, layer))
            nn.init.uniform_(weight[member], -bound, bound, generator=generator)
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(torch.zeros(len(seeds), 1, outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.baddbmm(self.bias, x, self.weight)


def mix(*parts: int) -> int:
    """One seed out of several numbers (the finalizer of SplitMix64), below 2**63."""
    state = 0
    for part in parts:
        state = (state + part + 0x9E3779B97F4A7C15) & (2**64 - 1)
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & (2**64 - 1)
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & (2**64 - 1)
        state ^= state >> 31
    return state >> 1


def keyed_dropout(x: torch.Tensor, rate: float, rows: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    """Dropout of x (M, B, H) whose mask depends on member key, row and unit only, so that ranks and batches do not matter.

    `rows` int64 (B,): row numbers in the dataset. `key` int64 (M,): made of seed, epoch and layer.
    """
    if rate == 0:
        return x
    units = torch.arange(x.shape[-1], device=x.device, dtype=torch.int64)
    state = key[:, None, None] + rows[None, :, None] * 0x632BE59BD9B4E019 + units * -0x61C8864680B583EB
    state = (state ^ (state >> 31)) * 0x7FB5D329728EA185
    state = (state ^ (state >> 27)) * -0x7E25210B43D22BB3
    uniform = ((state ^ (state >> 33)) & 0xFFFFFF).to(x.dtype) / 0x1000000
    return torch.where(uniform >= rate, x / (1 - rate), torch.zeros((), dtype=x.dtype, device=x.device))


def combine(outputs: torch.Tensor, sets: int, classes: int, center: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """Outputs (S * E, B, C) of the members as one answer per set: mean probabilities float64 (S, B, C), or values (S, B)."""
    grouped = outputs.double().view(sets, -1, *outputs.shape[1:])
    if classes:
        return torch.softmax(grouped, -1).mean(1).cpu().numpy()
    return grouped[..., 0].mean(1).cpu().numpy() * spread[:, None] + center[:, None]


def build(options: dict[str, Any], seeds: list[int], inputs: int, outputs: int) -> nn.Module:
    """The network that `options` describe: `kind` and the options of that kind. InputError for an unknown one."""
    rest = {key: value for key, value in options.items() if key != "kind"}
    try:
        return network(options)(seeds=seeds, inputs=inputs, outputs=outputs, **rest)
    except TypeError as error:
        raise InputError(f"{error}; expected options of {options.get('kind', 'mlp')}", "model") from error


def network(options: dict[str, Any]) -> Any:
    """The class `Network` that `options["kind"]` names: a file of this package, or the path of a Python file."""
    return _module(str(options.get("kind", "mlp"))).Network


def _module(kind: str) -> Any:
    if kind.endswith(".py"):
        spec = importlib.util.spec_from_file_location(Path(kind).stem, kind)
        if spec is None or spec.loader is None or not Path(kind).is_file():
            raise InputError(f"found no file {kind}; expected a Python file with a class Network", "model.kind")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
    try:
        return importlib.import_module(f"{__name__}.{kind}")
    except ModuleNotFoundError as error:
        raise InputError(f"found {kind!r}; expected a file under genodl_spark/models, or the path of a .py", "model.kind") from error
