"""What stands beside the networks of a group of training sets: one rank fits it to a set, then all have it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from genodl_spark.learning.losses import huber
from genodl_spark.learning.model_files import LINEAR, beside
from genodl_spark.learning.settings import FOREST, OF_SEQUENCES, RIDGE

if TYPE_CHECKING:
    import torch

    from genodl_spark.learning.training.group import Group


def fit(group: Group) -> list[dict[str, torch.nn.Module]]:
    """Of every set what `train.blend` asks for, by its name of BESIDE, on the rank's device."""
    from safetensors.numpy import load, save

    ranks, names = group.rank.ranks, beside(group.job.options.blend)
    found = dict[str, np.ndarray]()
    for s in range(ranks.rank, len(group.sets), ranks.size):
        for name in names:
            found |= {f"{s}.{name}.{key}": value for key, value in _fitted(group, s, name).items()}
    content = np.frombuffer(save(found), np.uint8)
    sizes = ranks.all(np.array([len(content)]), "sizes beside")
    pieces = np.split(ranks.all(content, "beside"), np.cumsum(sizes)[:-1])
    tensors = {name: value for one in pieces for name, value in load(one.tobytes()).items()}
    return [{name: _part(group, tensors, f"{s}.{name}.", name) for name in names} for s in range(len(group.sets))]


def _fitted(group: Group, s: int, name: str) -> dict[str, np.ndarray]:
    """One of them, fitted to the rows that the networks of set s learn from, as tensors."""
    from genodl_spark.learning.beside import boosted, forest, linear, linear_fits, ridge

    job, which, rows = group.job, group.sets[s], np.flatnonzero(group.learns[s])
    if len(rows) > linear_fits.ROWS:
        generator = np.random.default_rng([job.seed, which.repeat, which.fold + 1])
        rows = np.sort(generator.choice(rows, linear_fits.ROWS, replace=False))
    target = group.rank.data.target[rows]
    if name == FOREST:
        return forest.fit(group.standardised(rows, s), target, job.heads, job.seed)
    if name == RIDGE:
        z, fold = group.standardised(rows, s), group.rank.data.folds[rows, which.repeat]
        bound = huber.BOUND if job.loss == "huber" else np.inf
        return ridge.fit(z, target, job.heads, fold, job.seed, bound)
    codes = group.rank.data.x[rows]
    if name == LINEAR:
        ways = [way for way in job.options.blend if way in OF_SEQUENCES]
        return linear_fits.fit(codes, target, job.heads, ways, linear.strands(job.model), job.seed)
    return boosted.fit(codes, target, job.heads, job.seed)


def _part(group: Group, tensors: dict[str, np.ndarray], start: str, name: str) -> torch.nn.Module:
    import torch

    from genodl_spark.learning.beside import boosted, forest, linear, ridge

    job, rank = group.job, group.rank
    own = {key.removeprefix(start): value for key, value in tensors.items() if key.startswith(start)}
    if name == LINEAR:
        return linear.part(own, linear.strands(job.model)).to(rank.device, rank.dtype)
    found = {key: torch.from_numpy(value) for key, value in own.items()}
    if name == RIDGE:
        return ridge.part(found, job.heads, job.layout.features).to(rank.device, rank.dtype)
    read: Any = forest.part if name == FOREST else boosted.part
    part: torch.nn.Module = read(found, job.heads, job.layout.features).to(rank.device)
    return part
