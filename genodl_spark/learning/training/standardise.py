"""Scaling of every training set, and the projection of those with fewer rows than features."""

from __future__ import annotations

import numpy as np

from genodl_spark.core import packing
from genodl_spark.learning import feed
from genodl_spark.learning import scaling as quality
from genodl_spark.learning.encodings import Encoding
from genodl_spark.learning.training.plan import Job

PROJECTED_ROWS = 4096  # larger training sets cost more to decompose than the projection saves


def projects(job: Job, encoding: Encoding) -> bool:
    """Whether the network can be trained on coordinates and turned into one over features afterwards."""
    from genodl_spark.learning import models

    # a network that tells its inputs again has no others as outputs
    retold = any(head.kind == "none" for head in job.heads)
    return (
        encoding.projectable and not retold and getattr(models.network(job.model, job.code), "fold", None) is not None
    )


def fit_scaling(
    data: feed.Examples, learns: np.ndarray, job: Job, encoding: Encoding, allowed: np.ndarray | None = None
) -> tuple[quality.Scaling, np.ndarray | None, np.ndarray | None]:
    """Scaling of every training set, of the features that it is `allowed`, and, for sets with fewer rows
    than features, their projection.

    Every rank computes them from all rows, on one thread: a few additions in another order would turn
    axes of nearly equal variance. Returns the scaling, coordinates float32 (S, rows, width) or None,
    and projections (S, features, width) or None.
    """
    from threadpoolctl import threadpool_limits

    if not encoding.scaled:
        return (
            quality.Scaling(np.zeros((len(learns), 1), np.float32), np.ones((len(learns), 1), np.float32)),
            None,
            None,
        )
    with threadpool_limits(1):
        origin = np.nan_to_num(encoding.floats(data.x[:1])[0])
        names = job.heads[0].classes if job.select else ()
        classes = data.target[:, 0].astype(int) if names else None
        sums: quality.Moments | None = None
        for part in packing.parts(data.x):
            values = encoding.floats(data.x[part])
            found = quality.moments(
                values, learns[:, part], origin, None if classes is None else classes[part], len(names)
            )
            sums = found if sums is None else sums + found
        assert sums is not None
        scaling = quality.fit(sums, learns.sum(1), job.max_missing, job.select, allowed)
        most = int(learns.sum(1).max())
        if most > PROJECTED_ROWS or job.layout.features <= most or not projects(job, encoding):
            return scaling, None, None
        found_axes = []
        parts = [slice(start, start + PROJECTED_ROWS) for start in range(0, len(data), PROJECTED_ROWS)]
        for mean, inverse, rows in zip(scaling.mean, scaling.inverse, map(np.flatnonzero, learns), strict=True):
            axes = quality.principal_axes(_standard(encoding.floats(data.x[rows]), mean, inverse))
            inside = np.concatenate([_standard(encoding.floats(data.x[part]), mean, inverse) @ axes for part in parts])
            found_axes.append((inside, axes))
        width = max(axes.shape[1] for _, axes in found_axes)
        coordinates = np.zeros((len(learns), len(data), width), np.float32)
        projection = np.zeros((len(learns), job.layout.features, width), np.float32)
        for s, (inside, axes) in enumerate(found_axes):
            coordinates[s, :, : axes.shape[1]], projection[s, :, : axes.shape[1]] = inside, axes
        return scaling, coordinates, projection


def _standard(values: np.ndarray, mean: np.ndarray, inverse: np.ndarray) -> np.ndarray:
    return np.nan_to_num((values - mean) * inverse)
