"""Ages on Horvath's scale: the transform by its definition, what networks and baselines learn, and answers in years."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from genodl_spark.core.errors import InputError
from genodl_spark.learning import baselines, feed, heads, losses
from genodl_spark.learning.baseline_fits import Fits, examples, fit
from genodl_spark.learning.losses.age import transformed, years

HEAD = heads.one("age", [])


def horvath(age: float) -> float:
    """As the paper writes it."""
    return math.log(age + 1) - math.log(21) if age <= 20 else (age - 20) / 21


def test_the_transform_is_that_of_the_paper_and_goes_back() -> None:
    ages = np.array([-0.5, 0, 1, 19.99, 20, 20.01, 60, 110])
    np.testing.assert_allclose(transformed(ages), [horvath(age) for age in ages], rtol=1e-12)
    np.testing.assert_allclose(years(transformed(ages)), ages, rtol=1e-12, atol=1e-12)
    assert transformed(np.array([20.0]))[0] == 0 and math.isnan(years(np.array([math.nan]))[0])
    assert (np.diff(years(np.linspace(-6, 6, 1000))) > 0).all()


def test_the_loss_learns_transformed_ages_and_answers_in_years() -> None:
    loss, squared = losses.loss("age", HEAD, (1,)), losses.loss("squared_error", HEAD, (1,))
    target, learns = np.array([[1.0], [8.0], [30.0], [60.0]]), np.array([[True, True, True, False]])
    standard = loss.standard(target, learns)
    np.testing.assert_allclose(standard, squared.standard(transformed(target), learns))
    outputs = torch.tensor([[[0.2], [0.4]], [[0.3], [-1.0]]])
    rows = loss.rows(outputs, target[:2], standard, None, 0.0)
    torch.testing.assert_close(rows, squared.rows(outputs, transformed(target[:2]), standard, None, 0.0))
    answer = loss.answer(outputs, standard[0], None)
    np.testing.assert_allclose(answer, years(squared.answer(outputs, standard[0], None)))
    of_members = years(outputs[..., 0].double().numpy() * standard[0, 1] + standard[0, 0])
    np.testing.assert_allclose(loss.uncertainty(outputs, answer, standard[0]), of_members.std(0, ddof=1))
    assert np.isnan(loss.uncertainty(outputs[:1], answer, standard[0])).all()


def test_what_is_no_age_is_refused() -> None:
    with pytest.raises(ValueError, match="found the age -1"):
        losses.loss("age", HEAD, (1,)).check(np.array([[3.0], [-1.0]]))
    with pytest.raises(InputError, match="expected a value"):
        losses.loss("age", heads.one("label", ["a", "b"]), (1,))


def test_baselines_learn_on_the_scale_of_the_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(4)
    x = generator.normal(size=(40, 5)).astype(np.float32)
    ages = years(x[:, 0].astype(float))
    data = feed.Examples(x, ages[:, None], (np.arange(40) % 2).astype(np.int8)[:, None])
    examples.cache_clear()
    monkeypatch.setattr(feed, "read", lambda *_: data)
    made = {}
    for loss in ("auto", "age"):
        examples.cache_clear()
        layout = feed.Layout(40, 5, "float32", 1)
        fits = Fits(["x"], layout, None, "none", HEAD, 2, 5, 1000, {}, None, {}, loss=loss)
        rows, made[loss] = fit(fits, "ridge", 0, 0, 0)
    examples.cache_clear()
    train = np.flatnonzero(np.arange(40) % 2 == 1)
    expected = years(baselines.fit_predict("ridge", x[train], transformed(ages[train]), x[rows], 0, 5))
    np.testing.assert_allclose(made["age"][:, 0], expected)
    # the scale on which ages are linear here
    assert np.abs(made["age"][:, 0] - ages[rows]).max() < 0.1 * np.abs(made["auto"][:, 0] - ages[rows]).max()
