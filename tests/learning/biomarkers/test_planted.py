"""Tests find what was planted, and what else they find is as rare as they say, over a few simulations; 50 of each
design are in tests/reference/biomarkers.py."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.learning.biomarkers import planted
from tests.learning.biomarkers.planted import Design, Found

FEW = Design(genes=1500)


def mean(found: list[Found], name: str) -> float:
    return float(np.mean([getattr(one, name) for one in found]))


@pytest.mark.parametrize(
    ("draw", "design"),
    [
        (planted.values, FEW),
        (planted.values, replace(FEW, correlation=0.3)),
        (planted.values, replace(FEW, classes=3)),
        (planted.counts, FEW),
        (planted.counts, replace(FEW, classes=3)),
    ],
    ids=["t", "t of modules", "F", "negative binomial", "likelihood ratio"],
)
def test_what_was_planted_is_found(draw, design: Design) -> None:
    found = [planted.found(draw(design, seed)) for seed in range(4)]
    assert mean(found, "power") >= 0.9 and mean(found, "false") <= 0.12
    if design.classes == 2:  # no test can find more than one that knows variances, but by chance
        assert mean(found, "power") <= mean(found, "known_power") + 0.03


@pytest.mark.parametrize("draw", [planted.values, planted.counts])
def test_of_classes_that_are_alike_next_to_nothing_is_found(draw) -> None:
    found = [planted.found(draw(replace(FEW, share=0.0), seed), pairs=5) for seed in range(8)]
    # each simulation finds something with a chance of the rate
    assert sum(one.false > 0 for one in found) <= 3
    assert np.mean([one.stable_false for one in found]) <= 1


def test_counts_and_values_are_drawn_as_they_say() -> None:
    design = replace(FEW, rows=2000, genes=40, share=0.5, correlation=0.3, module=20)
    made = planted.counts(design, 0)
    for code in (0, 1):
        own = made.x[made.codes == code] / made.size[made.codes == code, None]
        level = own.mean(0)
        # of counts over libraries: (mean / size) + dispersion mean^2
        expected = level * (1 / made.size).mean() + made.variance * level**2
        assert np.median(own.var(0) / expected) == pytest.approx(1, abs=0.1)
    apart = np.log2([(made.x[made.codes == k] / made.size[made.codes == k, None]).mean(0) for k in (0, 1)])
    size = np.abs(apart[1] - apart[0])
    assert (size[made.true] > 0.85).all() and (size[made.true] < 2.15).all() and (size[~made.true] < 0.15).all()
    made = planted.values(design, 0)
    own = made.x[made.codes == 0]
    np.testing.assert_allclose(own.var(0), made.variance, rtol=0.15)
    together = np.corrcoef(own.T)
    inside = np.kron(np.eye(2), np.ones((20, 20))).astype(bool)
    assert together[inside & ~np.eye(40, dtype=bool)].mean() == pytest.approx(0.3, abs=0.04)
    assert together[~inside].mean() == pytest.approx(0, abs=0.04)
