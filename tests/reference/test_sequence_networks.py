"""What the reference of networks over sequences computes itself."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from genodl_spark.learning.metrics import HeldOut
from tests.reference.sequence_networks import coded, of_folds


def test_sequences_of_several_lengths_are_coded():
    found = coded(pd.Series(["ACGT", "tgN", ""]))
    assert found.tolist() == [[0, 1, 2, 3], [3, 2, -1, -1], [-1, -1, -1, -1]]


def test_squared_correlation_is_taken_within_folds_and_beside_what_was_published():
    generator = np.random.default_rng(3)
    entities, fold = np.array([f"d{i:02d}" for i in range(40)]), np.arange(40) % 2
    target = generator.normal(size=40) + 100 * fold  # folds whose means differ: pooled, all correlate
    held, published = [], pd.Series(generator.normal(size=40), entities)
    for _ in range(2):
        scores = target + generator.normal(size=40)
        held.append({
            name: [HeldOut(entities, entities, target, values[None], [])]
            for name, values in {"model": scores, "majority": np.ones(40)}.items()
        })  # fmt: skip
    rows = {
        row[2]: row for row in of_folds("designs", held, [dict(zip(entities, fold, strict=True))] * 2, published, 9)
    }

    def squared(scores: np.ndarray, of: int) -> float:
        return float(np.corrcoef(scores[fold == of], target[fold == of])[0, 1]) ** 2

    expected = np.array([[squared(h["model"][0].scores[0], f) for f in (0, 1)] for h in held])
    other = np.array([squared(published.to_numpy(), f) for f in (0, 1)])
    assert rows["model"][3] == f"{expected.mean():.4f} [{expected.min():.4f}, {expected.max():.4f}]"
    assert float(rows["model"][4]) == pytest.approx(expected.mean(1).std(ddof=1), abs=1e-4)
    assert rows["model"][5] == f"better than published in {(expected > other).sum()} of 4 folds"
    assert rows["published"][3].startswith(f"{other.mean():.4f}")
    assert rows["majority"][3] == "0.0000 [0.0000, 0.0000]"  # of one value for all
