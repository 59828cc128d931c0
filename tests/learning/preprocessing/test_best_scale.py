"""The scale of best_scale: planted ones are found, losses are those of a plain loop, rows that are scored later teach
nothing."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm, rankdata
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from genodl_spark.core.errors import InputError
from genodl_spark.learning import discriminant
from genodl_spark.learning.preprocessing import About, Chain, Rows, Tensors, best_scale, step_of

ROWS, GENES = 48, 120
Y = np.arange(ROWS) % 3


def planted(kind: str, seed: int = 1) -> np.ndarray:
    """Values whose classes differ by a shift of some genes: of logarithms over a floor of noise, of values as they are
    where samples are brighter than others, or of values alone."""
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(ROWS, GENES))
    x[:, :12] += 1.2 * generator.choice([-1, 1], size=(3, 12))[Y]
    if kind == "log":
        return np.maximum(np.exp(2.5 * x + 4), 1e-3)
    if kind == "brightness":
        return (x + 3 * generator.normal(size=GENES)) * np.exp(generator.normal(size=(ROWS, 1))) + 5
    return x


def fitted(x: np.ndarray, y: np.ndarray | None = Y, **options: object) -> Tensors:
    return step_of("best_scale", options).fit(Rows(x, np.zeros(len(x), int)), About(classes=y))


def told(found: Tensors) -> tuple[str, bool]:
    return best_scale.SCALES[int(found["scale"][0])], bool(found["alike"][0])


def test_planted_scales_are_found() -> None:
    few = {"repeats": 3, "among": ["values", "asinh", "log"]}
    assert told(fitted(20 * planted("values"), among=["asinh", "values"], repeats=3))[0] == "values"
    assert told(fitted(planted("log"), **few))[0] == "log"
    assert told(fitted(planted("brightness"), **few))[1]


def test_losses_are_those_of_discriminants_over_features() -> None:
    x, folds = planted("values"), 4
    z, total = (x - x.mean(0)) / x.std(0), 0.0
    for repeat in range(2):
        generator, fold = np.random.default_rng(repeat), np.empty(ROWS, int)
        for k in range(3):
            own = generator.permutation(np.flatnonzero(k == Y))
            fold[own] = (np.arange(len(own)) + generator.integers(folds)) % folds
        for number in range(folds):
            held = fold == number
            of = discriminant.fit(z[~held], Y[~held], 3, GENES)
            logits = z[held] @ of.axes @ of.weight + of.bias
            chance = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
            total -= np.log(chance[np.arange(held.sum()), Y[held]]).sum() / 16 / 3 / 2
    assert best_scale.left_out_loss(best_scale.standardised(x), Y, folds, 2) == pytest.approx(total, rel=1e-6)
    assert total < np.log(3)  # and they do tell classes, as scikit-learn's does
    other = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(z[::2], Y[::2])
    assert other.score(z[1::2], Y[1::2]) > 0.6


def test_scales_by_arithmetic() -> None:
    x = np.array([[4.0, 1, 16, np.nan], [2, 8, 2, 1]])
    step = step_of("best_scale", {})

    def applied(scale: str, alike: float = 0.0, floor: float = np.nan) -> np.ndarray:
        numbers = {"scale": float(best_scale.SCALES.index(scale)), "alike": alike, "floor": floor}
        tensors = {key: np.array([value]) for key, value in numbers.items()} | {"target": np.arange(4.0)}
        return step.apply(Rows(x, np.zeros(2, int)), tensors).x

    np.testing.assert_allclose(applied("log", floor=2.0), [[2, 1, 4, np.nan], [1, 3, 1, 1]])
    np.testing.assert_allclose(applied("ranks")[0, :3], norm.ppf((rankdata(x[0, :3]) - 0.5) / 3))
    assert np.isnan(applied("ranks")[0, 3])
    np.testing.assert_allclose(applied("quantiles")[1], [1.5, 3, 1.5, 0])
    alike = applied("asinh", 1.0)
    np.testing.assert_allclose([np.nanmean(alike, 1), np.nanstd(alike, 1)], [[0, 0], [1, 1]], atol=1e-12)


def test_nothing_but_training_rows_and_their_classes() -> None:
    """Rows get what they get alone, and rows without a class bear on the quantiles alone."""
    chain = Chain(["best_scale"], {"best_scale": {"repeats": 1}}, [f"g{i}" for i in range(GENES)])
    x = planted("log").astype(np.float32)
    found = chain.fit(x[:30], Y[:30])
    chain.check(found.tensors)
    whole = chain.apply(x, found.tensors)
    np.testing.assert_array_equal(whole[40:41], chain.apply(x[40:41], found.tensors))
    again = chain.fit(x[:30], Y[:30])
    assert all(np.array_equal(value, again.tensors[name], True) for name, value in found.tensors.items())
    some = fitted(np.concatenate([x, x[:5] * 100]), np.append(Y, [-1] * 5), repeats=1)
    assert np.array_equal(some["losses"][:4], fitted(x, repeats=1)["losses"][:4])  # values and asinh know no others


def test_few_rows_and_what_is_refused() -> None:
    assert best_scale.left_out_loss(np.eye(3), np.array([0, 0, 1]), 5, 2) == 0.0
    assert told(fitted(np.ones((6, 4)), np.arange(6) % 2, among=["asinh", "values"]))[0] == "asinh"
    lacking = planted("values")
    lacking[:, 3], lacking[5] = np.nan, np.nan
    assert np.isfinite(fitted(lacking, repeats=1)["losses"]).all()
    for options, classes, said in (
        ({"among": ["cube"]}, Y, "found cube; expected some of values"),
        ({"among": ["log"]}, Y, "found no value above 0"),
        ({}, None, "not one column of classes"),
    ):
        with pytest.raises(InputError, match=said):
            fitted(-np.abs(planted("values")), classes, **options)
