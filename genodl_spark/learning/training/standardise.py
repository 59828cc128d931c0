"""Scaling of every training set, after what is done to measured values first, the projection of those
with fewer rows than features, and the linear discriminants that networks may start at."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from genodl_spark.core import packing
from genodl_spark.core.errors import InputError
from genodl_spark.learning import discriminant, feed
from genodl_spark.learning import scaling as quality
from genodl_spark.learning.encodings import Encoding
from genodl_spark.learning.encodings.values import Values
from genodl_spark.learning.heads import UNLABELLED, classes_of
from genodl_spark.learning.shards import Shard
from genodl_spark.learning.splits import UNUSED
from genodl_spark.learning.training.plan import Job, discriminates
from genodl_spark.learning.training.ranks import Ranks

PROJECTED_ROWS = 4096  # larger training sets cost more to decompose than the projection saves
DISCRIMINANT_ROWS = 2048  # of larger training sets so many, drawn, give a discriminant


@dataclass(frozen=True)
class Start:
    """Linear discriminants of S training sets: `linear`, weight float32 (S, width, outputs) over what networks take and
    bias (S, outputs). `left_out` float32 (S, rows, outputs): what a row's logits are more by all others than by all,
    0 for rows that a discriminant is not of."""

    linear: tuple[np.ndarray, np.ndarray]
    left_out: np.ndarray


@dataclass(frozen=True)
class Standardised:
    """What S training sets learn of their features, and rows as their networks take them.

    `coordinates` float32 (S, rows, width): standardised rows, projected where there is a `projection`
    (S, features, width); None where they are standardised batch by batch. `learns` bool (S, rows): the rows that are
    learnt from in the end. `start`: where networks start, None at random. `treatments`: tensors of each set's chain;
    `x`: packed rows as the last set has them.
    """

    scaling: quality.Scaling
    learns: np.ndarray
    x: packing.Rows | Shard
    coordinates: np.ndarray | None = None
    projection: np.ndarray | None = None
    treatments: list[dict[str, np.ndarray]] = field(default_factory=list)
    start: Start | None = None


def projects(job: Job, encoding: Encoding) -> bool:
    """Whether the network can be trained on coordinates and turned into one over features afterwards."""
    from genodl_spark.learning import models

    # a network that tells its inputs again has no others as outputs
    retold = any(head.kind in UNLABELLED for head in job.heads)
    return (
        not job.shard
        and job.coefficients is None
        and job.pretrained is None  # whose weights are of features
        and not job.options.blend  # a forest beside it sees features, and none learns from coordinates
        and encoding.projectable
        and not retold
        and getattr(models.network(job.model, job.code), "fold", None) is not None
    )


def fit_scaling(
    data: feed.Examples,
    learns: np.ndarray,
    job: Job,
    encoding: Encoding,
    ranks: Ranks,
    allowed: np.ndarray | None = None,
) -> Standardised:
    """Treatment and scaling of every training set, of the features that it is `allowed`, and, for sets with fewer
    rows than features, their projection.

    Every rank computes them from all rows, on one thread: a few additions in another order would turn
    axes of nearly equal variance. Of rows in shards there is no projection, and each rank adds up its own.
    """
    from threadpoolctl import threadpool_limits

    if discriminates(job) and (job.shard or not encoding.scaled):
        text = "found lda with rows in shards" if job.shard else "found lda for rows that are no measured values"
        raise InputError(f"{text}; expected random", "model.start")
    if not encoding.scaled:
        empty = np.zeros((len(learns), 1), np.float32)
        return Standardised(quality.Scaling(empty, empty + 1), learns, data.x)
    with threadpool_limits(1):
        if isinstance(data.x, Shard):
            return Standardised(_scaling_of_shards(data, data.x, learns, job, encoding, ranks, allowed), learns, data.x)
        if job.chain is not None:
            return _treated(data, learns, job, encoding, allowed)
        scaling = _scaling(data.x, data, learns, job, encoding, allowed)
        projected = _projected(learns, job, encoding)
        if not projected and not discriminates(job):
            return Standardised(scaling, learns, data.x)
        found, starts = [], []
        parts = [slice(start, start + PROJECTED_ROWS) for start in range(0, len(data), PROJECTED_ROWS)]
        for s in range(len(learns)):

            def standard(rows: np.ndarray, s: int = s) -> np.ndarray:
                return _standard(encoding.floats(data.x[rows]), scaling, s)

            axes, start = _axes(standard, data.target, learns[s], scaling.inverse[s], job, projected)
            starts.append(start)
            if axes is not None:
                inside = [_standard(encoding.floats(data.x[part]), scaling, s) @ axes for part in parts]
                found.append((np.concatenate(inside), axes))
        coordinates, projection = _stacked(found) if projected else (None, None)
        return Standardised(scaling, learns, data.x, coordinates, projection, start=_started(starts))


def _scaling(
    x: np.ndarray | packing.SparseRows,
    data: feed.Examples,
    learns: np.ndarray,
    job: Job,
    encoding: Encoding,
    allowed: np.ndarray | None,
) -> quality.Scaling:
    """Scaling of the sets that learn from packed rows x, which are those of `data` or what became of them."""
    sums = _moments(x, data.target, learns, job, encoding, np.nan_to_num(encoding.floats(x[:1])[0]))
    if job.coefficients is not None:  # every feature counts, whatever the training rows are like
        found = quality.fit(sums, learns.sum(1))
        return quality.Scaling(found.mean, np.where(found.inverse > 0, found.inverse, np.float32(1)))
    return quality.fit(sums, learns.sum(1), job.max_missing, job.select, allowed)


def _scaling_of_shards(
    data: feed.Examples,
    shard: Shard,
    learns: np.ndarray,
    job: Job,
    encoding: Encoding,
    ranks: Ranks,
    allowed: np.ndarray | None,
) -> quality.Scaling:
    """The same where each rank has rows of its own."""
    import torch

    def summed(values: np.ndarray) -> np.ndarray:
        return ranks.sum(torch.from_numpy(values), "scaling").numpy()

    first = shard[np.zeros(int(shard.held[0]), np.int64)]  # of the one rank that has it
    origin = summed(np.nan_to_num(encoding.floats(first)).sum(0).astype(np.float64)).astype(np.float32)
    mine = np.flatnonzero(shard.held)
    own = _moments(shard.of(mine), data.target[mine], learns[:, mine], job, encoding, origin)
    return quality.fit(own.over(summed), learns.sum(1), job.max_missing, job.select, allowed)


def _moments(
    x: packing.Sliced,
    target: np.ndarray,
    learns: np.ndarray,
    job: Job,
    encoding: Encoding,
    origin: np.ndarray,
) -> quality.Moments:
    names = job.heads[0].classes if job.select else ()
    classes = target[:, 0].astype(int) if names else None
    sums: quality.Moments | None = None
    for part in packing.parts(x):
        found = quality.moments(
            encoding.floats(x[part]), learns[:, part], origin, None if classes is None else classes[part], len(names)
        )
        sums = found if sums is None else sums + found
    assert sums is not None
    return sums


def _treated(
    data: feed.Examples, learns: np.ndarray, job: Job, encoding: Encoding, allowed: np.ndarray | None
) -> Standardised:
    """The same where every set treats all rows in its own way first."""
    assert job.chain is not None and isinstance(data.x, np.ndarray)
    learns = learns.copy()
    stored, classes, wanted = Values().floats(data.x), classes_of(job.heads, data.target), data.folds[:, 0] != UNUSED
    scalings, found, treatments, starts, x = [], [], [], [], stored
    projected = _projected(learns, job, encoding)
    shape = (0, 0, 0) if projected else (len(learns), len(data), job.layout.features)
    whole = feed.room(shape, np.float32, 4 * math.prod(shape) > job.resident_bytes)
    for s in range(len(learns)):
        rows = np.flatnonzero(learns[s])
        fitted = job.chain.fit(stored[rows], None if classes is None else classes[rows], job.lengths)
        learns[s, rows[~fitted.used]] = False
        x = np.full_like(stored, np.nan)
        x[wanted] = job.chain.apply(stored[wanted], fitted.tensors)
        one = slice(s, s + 1)
        scaling = _scaling(x, data, learns[one], job, encoding, None if allowed is None else allowed[one])
        z = _standard(encoding.floats(x), scaling, 0)
        axes, start = _axes(z.__getitem__, data.target, learns[s], scaling.inverse[0], job, projected)
        starts.append(start)
        if axes is not None:
            found.append((z @ axes, axes))
        else:
            whole[s] = z
        scalings.append(scaling)
        treatments.append(fitted.tensors)
    scaling = quality.Scaling(
        *(np.concatenate([getattr(one, name) for one in scalings]) for name in ("mean", "inverse"))
    )
    coordinates, projection = _stacked(found) if projected else (whole, None)
    return Standardised(scaling, learns, x, coordinates, projection, treatments, _started(starts))


def _axes(
    standard: Callable[[np.ndarray], np.ndarray],
    target: np.ndarray,
    learns: np.ndarray,
    inverse: np.ndarray,
    job: Job,
    projected: bool,
) -> tuple[np.ndarray | None, tuple[np.ndarray, np.ndarray, np.ndarray] | None]:
    """Of a training set that learns from the rows `learns` bool (rows,): the axes that it is projected on,
    None where it is not, and where its networks start, as one of each array of `Start`. `standard`: rows by number,
    standardised.

    The principal axes are those of a random start. Those of a discriminant are the axes in which the covariance within
    classes is the identity: large variance that tells no class apart, of which few rows have much, would lead the
    hidden layers of a network away from it.
    """
    rows = np.flatnonzero(learns)
    z = standard(rows) if projected or len(rows) <= DISCRIMINANT_ROWS else np.empty((0, 0), np.float32)
    axes = quality.principal_axes(z) if projected else None
    if not discriminates(job):
        return axes, None
    if len(rows) > DISCRIMINANT_ROWS:
        generator = np.random.default_rng([job.seed, len(rows), int(rows.sum())])
        chosen = np.sort(generator.permutation(len(rows))[:DISCRIMINANT_ROWS])
        of, x = rows[chosen], z[chosen] if projected else standard(rows[chosen])
    else:
        of, x = rows, z
    x = (x if axes is None else x @ axes).astype(np.float64)
    classes = target[of, 0].astype(np.int64)
    found = discriminant.fit(x, classes, len(job.heads[0].classes), int((inverse > 0).sum()))
    weight = found.weight
    if axes is not None and len(of) == len(rows):
        size = np.sqrt(((x @ found.axes) ** 2).mean()) or 1.0
        axes, weight = (axes @ (found.axes / size)).astype(np.float32), weight * size
    else:
        weight = found.axes @ weight
    alone = np.bincount(classes)[classes] < 2
    more = found.left_out - (x @ found.axes @ found.weight + found.bias)
    more -= more.mean(1, keepdims=True)
    left_out = np.zeros((len(learns), len(found.bias)), np.float32)
    left_out[of[~alone]] = more[~alone]
    return axes, (weight.astype(np.float32), found.bias.astype(np.float32), left_out)


def _started(starts: list[tuple[np.ndarray, np.ndarray, np.ndarray] | None]) -> Start | None:
    of_sets = [start for start in starts if start is not None]
    if not of_sets:
        return None
    width = max(len(weight) for weight, _, _ in of_sets)
    weights = np.zeros((len(of_sets), width, len(of_sets[0][1])), np.float32)
    for s, (weight, _, _) in enumerate(of_sets):
        weights[s, : len(weight)] = weight
    return Start((weights, np.stack([bias for _, bias, _ in of_sets])), np.stack([more for _, _, more in of_sets]))


def as_seen(
    x: np.ndarray,
    s: int,
    scaling: quality.Scaling,
    treatments: list[dict[str, np.ndarray]],
    projection: np.ndarray | None,
    job: Job,
    encoding: Encoding,
) -> np.ndarray:
    """Packed rows x (rows, F) as the networks of set s take them, float32: treated, standardised and projected."""
    if job.chain is not None:
        x = job.chain.apply(Values().floats(x), treatments[s])
    z = _standard(encoding.floats(x), scaling, s)
    return z if projection is None else z @ projection[s]


def _projected(learns: np.ndarray, job: Job, encoding: Encoding) -> bool:
    most = int(learns.sum(1).max())
    return most <= PROJECTED_ROWS and job.layout.features > most and projects(job, encoding)


def _standard(values: np.ndarray, scaling: quality.Scaling, s: int) -> np.ndarray:
    """Values float32 (rows, F) as set s has them: standardised, 0 where one is missing."""
    return np.nan_to_num((values - scaling.mean[s]) * scaling.inverse[s])


def _stacked(found: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates (S, rows, width) and projections (S, features, width) of sets of several widths."""
    width = max(axes.shape[1] for _, axes in found)
    rows, features = len(found[0][0]), len(found[0][1])
    coordinates = np.zeros((len(found), rows, width), np.float32)
    projection = np.zeros((len(found), features, width), np.float32)
    for s, (inside, axes) in enumerate(found):
        coordinates[s, :, : axes.shape[1]], projection[s, :, : axes.shape[1]] = inside, axes
    return coordinates, projection
