"""Batches are gone from held-out rows and classes are not, where ComBat learns from training rows alone:
the figures of docs/accuracy.md within bounds."""

from __future__ import annotations

import numpy as np
import pytest

from tests.reference import batches


def test_simulated_batches_are_gone_and_classes_stay() -> None:
    found = batches.of_simulated(0.5)
    assert min(found["as they are"]["batch"]) > 0.95
    for name in ("combat", "combat, protect_label"):
        assert max(found[name]["batch"]) <= 0.60
        assert np.mean(found["as they are"]["class"]) - np.mean(found[name]["class"]) <= 0.01


def test_studies_of_stem_cells_are_gone_and_kinds_of_cells_stay() -> None:
    if not batches.STEMCELLS.exists():
        pytest.skip(f"{batches.STEMCELLS} is absent; set GENODL_SHARED_DATA to the folder of public data sets")
    found = {
        name: {key: np.mean(values) for key, values in own.items()} for name, own in batches.of_stemcells(1).items()
    }
    before, after = found["as they are"], found["combat, protect_label"]
    print(before, after, found["combat"])
    assert before["batch share"] > 0.3 and after["batch share"] < 0.1
    assert after["class share"] > before["class share"]
    assert after["class accuracy"] >= before["class accuracy"] - 0.01
