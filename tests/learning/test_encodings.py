"""Scaling, selection and projection against NumPy and scikit-learn on the training rows alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.feature_selection import f_classif

from genodl_spark.learning import encodings, scaling
from genodl_spark.learning.encodings import onehot, values


def table(seed: int, rows: int = 30, features: int = 12) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    values = (generator.normal(size=(rows, features)) * 3 + 100).astype(np.float32)
    values[generator.random(values.shape) < 0.1] = np.nan
    values[:, 3] = 7.0
    return values, generator.integers(0, 3, rows)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 29))
def test_scaling_is_that_of_the_training_rows(seed: int, cut: int) -> None:
    values, _ = table(seed)
    learns = np.random.default_rng(seed + 1).random((3, 30)) < 0.7
    learns[:, :2] = True
    origin = np.nan_to_num(values[0])
    parts = [scaling.moments(values[p], learns[:, p], origin) for p in (slice(0, cut), slice(cut, None))]
    found = scaling.fit(parts[0] + parts[1], learns.sum(1))
    for s in range(3):
        rows = values[learns[s]]
        known = ~np.isnan(rows).all(0)
        mean, deviation = np.nanmean(rows[:, known].astype(float), 0), np.nanstd(rows[:, known].astype(float), 0)
        np.testing.assert_allclose(found.mean[s, known], mean, rtol=1e-6)
        varies = deviation > scaling.CONSTANT * np.abs(mean)
        np.testing.assert_allclose(found.inverse[s, known][varies], 1 / deviation[varies], rtol=1e-4)
        assert (found.inverse[s, known][~varies] == 0).all()
        assert found.inverse[s, 3] == 0


def test_a_held_out_row_changes_nothing() -> None:
    values, classes = table(0)
    learns = np.ones((1, 30), bool)
    learns[0, 5] = False
    before = scaling.fit(scaling.moments(values, learns, np.nan_to_num(values[0]), classes, 3), learns.sum(1), select=4)
    values[5] = 1e6
    after = scaling.fit(scaling.moments(values, learns, np.nan_to_num(values[0]), classes, 3), learns.sum(1), select=4)
    np.testing.assert_array_equal(before.mean, after.mean)
    np.testing.assert_array_equal(before.inverse, after.inverse)


def test_f_statistics_are_those_of_scikit_learn() -> None:
    values, classes = table(1)
    values = np.nan_to_num(values, nan=100.0)
    learns = np.ones((1, 30), bool)
    learns[0, ::4] = False
    m = scaling.moments(values, learns, values[0], classes, 3)
    keep = [i for i in range(12) if i != 3]
    expected = f_classif(values[learns[0]][:, keep].astype(float), classes[learns[0]])[0]
    np.testing.assert_allclose(scaling.f_statistics(m)[0, keep], expected, rtol=1e-6)
    selected = scaling.fit(m, learns.sum(1), select=4).inverse[0] > 0
    assert set(np.flatnonzero(selected)) == {keep[i] for i in np.argsort(-expected)[:4]}


def test_missing_and_genotype_codes() -> None:
    np.testing.assert_array_equal(
        encodings.encoding("none").floats(np.array([[-1, 0, 2]], np.int8)), np.array([[np.nan, 0, 2]], np.float32)
    )
    np.testing.assert_allclose(
        encodings.encoding("asinh").floats(np.array([[np.nan, 100.0]], np.float32)),
        [[np.nan, np.arcsinh(100.0)]],
        rtol=1e-6,
    )
    assert (values.on_linear_scale(16.0), values.on_linear_scale(3000.0)) == (False, True)


def test_too_often_missing_features_are_left_out() -> None:
    values = np.array([[1, np.nan], [2, np.nan], [3, 5], [4, 6]], np.float32)
    learns = np.ones((1, 4), bool)
    m = scaling.moments(values, learns, np.zeros(2, np.float32))
    assert (scaling.fit(m, learns.sum(1), max_missing=0.4).inverse > 0).tolist() == [[True, False]]
    assert (scaling.fit(m, learns.sum(1), max_missing=0.5).inverse > 0).tolist() == [[True, True]]


def test_features_that_a_set_may_not_use_are_left_out_before_the_best_are_selected() -> None:
    generator = np.random.default_rng(4)
    classes = np.arange(40) % 2
    values = generator.normal(size=(40, 3)).astype(np.float32) + classes[:, None] * np.array([3, 2, 1], np.float32)
    learns = np.ones((2, 40), bool)
    m = scaling.moments(values, learns, np.zeros(3, np.float32), classes, 2)
    allowed = np.array([[False, True, True], [True, True, True]])
    assert (scaling.fit(m, learns.sum(1), select=1, allowed=allowed).inverse > 0).tolist() == [
        [False, True, False],
        [True, False, False],
    ]


def test_principal_axes_keep_the_training_rows_whole() -> None:
    z = np.random.default_rng(2).normal(size=(9, 40)).astype(np.float32)
    z -= z.mean(0)
    axes = scaling.principal_axes(z)
    assert axes.shape == (40, 8)
    inside = z @ axes
    scale = (inside**2).mean()
    assert scale == pytest.approx(1.0, rel=1e-4)
    gram, expected = inside @ inside.T, z @ z.T
    np.testing.assert_allclose(gram / np.trace(gram), expected / np.trace(expected), atol=1e-6)
    np.testing.assert_allclose(scaling.principal_axes(z[:, ::-1].copy())[::-1], axes, atol=1e-4)


def test_variety_and_extent_of_sequences() -> None:
    codes = np.array(
        [[0, 0, 0, 0, 0, 0], [0, 1, 2, 3, 0, 1], [-1, 2, -1, 3, 1, -1], [-1] * 6, [-1, -1, 2, 2, 2, 1]], np.int8
    )
    np.testing.assert_allclose(onehot.triplet_entropy(codes), [0, 2, np.nan, np.nan, 1])
    assert onehot.spans(codes).tolist() == [6, 6, 4, 0, 4]
    assert onehot.usual_lengths(np.full(50, 30)) == (20, 45)
    assert onehot.usual_lengths(np.full(50, 30), cut=True) == (20, np.inf)


@pytest.mark.parametrize("length", [50, 3, 2])
def test_sequences_are_measured_on_a_device_as_in_numpy(length: int) -> None:
    generator = np.random.default_rng(0)
    codes = generator.integers(0, 4, (300, 50), np.int8)
    codes[generator.random(codes.shape) < 0.05] = -1
    codes[:5], codes[5], codes[6:40, 30:] = -1, 0, -1
    bits, codes = onehot.background(onehot.triplets(codes)), codes[:, :length].copy()
    packed = torch.from_numpy(codes)
    found = onehot.bits_per_base_there(packed, torch.from_numpy(bits)), onehot.triplet_entropy_there(packed)
    expected = onehot.bits_per_base(codes, bits), onehot.triplet_entropy(codes)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one.numpy(), other, rtol=1e-12, atol=1e-12)
    assert onehot.usual_lengths(np.empty(0, int)) == (0, np.inf)
