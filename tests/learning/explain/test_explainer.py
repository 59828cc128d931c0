"""Packed rows and a model to attributions: which class is explained, against what, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from genodl_spark.core.errors import InputError
from genodl_spark.learning import encodings
from genodl_spark.learning.explain import Limits
from genodl_spark.learning.explain.explainer import Asked, explainer_of
from genodl_spark.learning.heads import Head
from tests.learning.test_predictor import predictor, rows_of

QUICK = Asked("deeplift", references=2)


def test_of_two_classes_the_last_is_explained_and_of_more_the_predicted_one() -> None:
    codes = rows_of("cnn", 5)
    names = [f"s{i}" for i in range(5)]
    model = predictor("cnn", members=1)
    (found,) = explainer_of(model, QUICK)(codes, names)
    p = model(codes, calibrated=False)
    assert found.target.tolist() == [1] * 5
    np.testing.assert_allclose(found.found.output, np.log(p[:, 1] / p[:, 0]), atol=1e-5)
    (other,) = explainer_of(model, replace(QUICK, target="c0"))(codes, names)
    np.testing.assert_allclose(other.found.contributions, -found.found.contributions, atol=1e-6)

    three, x = predictor("mlp", members=1, classes=3), rows_of("mlp", 40)
    (of_rows,) = explainer_of(three, QUICK)(x, [str(i) for i in range(40)])
    p = three(x, calibrated=False)
    assert len(set(of_rows.target)) > 1 and (of_rows.target == p.argmax(1)).all()
    logs = np.log(p)
    own = logs[np.arange(40), p.argmax(1)]
    np.testing.assert_allclose(of_rows.found.output, own - (logs.sum(1) - own) / 2, atol=1e-5)
    assert of_rows.complete.all() and of_rows.found.hypothetical is None


def test_a_value_is_explained_in_its_unit() -> None:
    model, x = predictor("dosage", members=2, classes=0), rows_of("dosage", 9)
    (found,) = explainer_of(model, Asked())(x, [str(i) for i in range(9)])
    np.testing.assert_allclose(found.found.output, model(x), atol=1e-5)
    missing = x < 0
    assert missing.any() and (found.found.contributions[missing] == 0).all()
    means = explainer_of(model, Asked()).predictor.reader.mean.numpy()[None]
    assert np.ptp(found.found.reference) < 1e-4 and means.shape == (1, 20)


def test_a_row_follows_from_its_name_and_the_seed_alone() -> None:
    codes, names = rows_of("cnn", 6), [f"s{i}" for i in range(6)]
    model = predictor("cnn")
    (whole,) = explainer_of(model, QUICK)(codes, names)
    (some,) = explainer_of(model, QUICK)(codes[[4, 1]], ["s4", "s1"])
    np.testing.assert_allclose(some.found.contributions, whole.found.contributions[[4, 1]], atol=1e-6)
    (other,) = explainer_of(model, replace(QUICK, seed=1))(codes, names)
    assert np.abs(other.found.contributions - whole.found.contributions).max() > 1e-4


def test_what_does_not_add_up_is_told() -> None:
    strict = Asked(references=2, limits=Limits(tolerance=1e-9, floor=0, steps=6))
    (found,) = explainer_of(predictor("cnn"), strict)(rows_of("cnn", 4), list("abcd"))
    assert not found.complete.any()
    (free,) = explainer_of(predictor("cnn"), replace(strict, method="saturation_mutagenesis"))(
        rows_of("cnn", 4), list("abcd")
    )
    assert free.complete.all() and np.isnan(free.found.error).all()


@pytest.mark.parametrize("reference", ["mean", "zero"])
def test_sequences_may_be_held_against_a_constant(reference: str) -> None:
    asked = Asked(reference=reference)
    (found,) = explainer_of(predictor("cnn"), asked)(rows_of("cnn", 4), list("abcd"))
    assert found.complete.all()


@pytest.mark.parametrize(
    ("asked", "heads", "told"),
    [
        (Asked("lime"), [Head("y", "value")], "found 'lime'; expected one of deeplift"),
        (Asked(target="z"), [Head("y", "classes", ("a", "b"))], "found 'z'; expected a class .* a, b"),
        (Asked(target="a"), [Head("y", "value")], "found 'a' for a value"),
        (Asked(heads=("z",)), [Head("y", "value")], "found 'z'; expected one of y"),
        (Asked(), [Head("none", "none")], "rows without labels"),
    ],
)
def test_what_cannot_be_explained_is_refused(asked: Asked, heads: list[Head], told: str) -> None:
    with pytest.raises(InputError, match=told):
        asked.of(encodings.encoding("onehot"), 12, heads)


def test_references_are_those_of_the_kind_of_rows() -> None:
    heads = [Head("y", "value")]
    assert Asked().of(encodings.encoding("onehot"), 12, heads).reference == "shuffles"
    assert Asked().of(encodings.encoding("asinh"), 12, heads).reference == "mean"
    with pytest.raises(InputError, match="found 'shuffles' for measured values"):
        Asked(reference="shuffles").of(encodings.encoding("none"), 12, heads)
