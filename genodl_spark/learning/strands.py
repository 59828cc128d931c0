"""Whether both strands of a sequence say the same of its labels, as they do of peaks of a transcription factor, but not
of sites in a transcript."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from genodl_spark.learning import penalties, string_kernels

AUTO = "auto"  # of model.reverse_complement: as the training rows say
ROWS = penalties.INNER_ROWS  # of which it is told at most


def merged_loss(codes: np.ndarray, y: np.ndarray, classes: bool, seed: int) -> float:
    """Loss of a linear model over k-mers of both strands, counted as one, as a share of that over k-mers of the strand
    that is given, both in inner folds of at most ROWS rows.

    codes: base codes int8 (rows, length), -1 for no base; y (rows,): indices of classes, at least two, else values.
    One thread, so that the number of cores changes nothing.
    """
    rows = np.sort(np.random.default_rng(seed).permutation(len(y))[:ROWS])
    codes, y = codes[rows], y[rows]
    path = penalties.path_of_logistic if classes else penalties.path_of_ridge
    if not classes:
        y = (y - y.mean()) / (y.std() or 1.0)
    with threadpool_limits(1):
        given, merged = (path(string_kernels.spectrum(codes, both), y, seed)[1] for both in (False, True))
    return merged / given if given > 0 else 1.0


def option(model: Mapping[str, Any], one: bool) -> str:
    """What model.reverse_complement=auto is where strands are `one`, or are not: weights that both share, or where
    other options of the network forbid that, rows turned round in training."""
    if not one:
        return "none"
    widths = [*model.get("channels", []), model.get("positional", 0)]
    shares = not model.get("boxes", 0) and not any(width % 2 for width in widths)
    return "equivariant" if shares else "augment"
