"""Steps against scikit-learn and arithmetic, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.impute import KNNImputer

from genodl_spark.core.errors import InputError
from genodl_spark.learning.preprocessing import About, Chain, Rows, step_of, steps_of
from genodl_spark.registry.gene_lengths import covered


def done(name: str, x: np.ndarray, other: np.ndarray | None = None, **options: object) -> np.ndarray:
    step = step_of(name, options)
    tensors = step.fit(Rows(x, np.zeros(len(x), int)), About())
    other = x if other is None else other
    return step.apply(Rows(other, np.zeros(len(other), int)), tensors).x


def holes(seed: int, rows: int = 40, features: int = 12) -> np.ndarray:
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(rows, 3)) @ generator.normal(size=(3, features)) + 0.1 * generator.normal(
        size=(rows, features)
    )
    x[generator.random(x.shape) < 0.15] = np.nan
    return x


def test_neighbours_are_those_of_scikit_learn() -> None:
    train, test = holes(1), holes(2)
    ours = done("impute_knn", train, test, neighbours=4)
    np.testing.assert_allclose(ours, KNNImputer(n_neighbors=4).fit(train).transform(test), rtol=1e-10)


def test_a_model_imputes_what_a_gaussian_expects() -> None:
    """Of whole training rows the covariance is W W' + s I; what is missing follows from it by conditioning."""
    generator = np.random.default_rng(3)
    train = generator.normal(size=(500, 2)) @ generator.normal(size=(2, 8)) + 0.3 * generator.normal(size=(500, 8))
    values, vectors = np.linalg.eigh(np.cov(train.T, bias=True))
    noise = values[:-2].mean()
    covariance = vectors[:, -2:] @ np.diag(values[-2:] - noise) @ vectors[:, -2:].T + noise * np.eye(8)
    row = train[:1].copy()
    row[0, :3] = np.nan
    mean, known = train.mean(0), np.arange(8) >= 3
    expected = mean[:3] + covariance[:3, 3:] @ np.linalg.solve(covariance[3:, 3:], (row[0] - mean)[known])
    np.testing.assert_allclose(done("impute_model", train, row, rank=2)[0, :3], expected, rtol=1e-6)


def test_values_by_arithmetic() -> None:
    counts = np.array([[10.0, 20, 70], [0, 50, 50]])
    step = step_of("tpm", {})
    found = step.apply(
        Rows(counts, np.zeros(2, int)),
        step.fit(Rows(counts, np.zeros(2, int)), About(lengths=np.array([1000.0, 2000, np.nan]))),
    ).x
    np.testing.assert_allclose(found, [[5e5, 5e5], [0, 1e6]])
    beta = np.array([[0.5, 0.2, 0.8]])
    np.testing.assert_allclose(done("beta_to_m", beta), [[0, -2, 2]], atol=1e-12)
    np.testing.assert_allclose(done("m_to_beta", done("beta_to_m", beta)), beta)
    np.testing.assert_allclose(done("log2", np.array([[0.0, 1, 3], [0, 1, 3]])), [[0, 1, 2]] * 2)
    genes = np.array(["a", "b", "a", "a", "b"])
    assert covered(genes, np.array([1, 5, 8, 100, 5]), np.array([10, 9, 20, 109, 9])) == {"a": 30, "b": 5}


def test_which_class_is_the_first_changes_no_batch() -> None:
    """Rows of unknown class are stretched about the mean of all classes."""
    generator = np.random.default_rng(5)
    classes, batch = generator.integers(0, 3, 90), np.arange(90) % 2
    x = generator.normal(size=(90, 8)) * (1 + batch[:, None]) + 5.0 * classes[:, None] + batch[:, None]
    step, rows = step_of("combat", {"protect_label": True}), Rows(x, batch)
    found = [step.apply(rows, step.fit(rows, About(("a", "b"), c))).x for c in (classes, 2 - classes)]
    np.testing.assert_allclose(*found, rtol=1e-9)


@pytest.mark.parametrize(
    ("steps", "options", "text"),
    [
        (["tmm"], {}, "without a step that takes the sizes"),
        (["tmm@a", "log_cpm"], {}, "without a step that takes the sizes"),
        (["nothing"], {}, "found 'nothing'"),
        (["combat"], {"combat": {"unseen": "ask"}}, "found 'ask'"),
        (["combat"], {"log_cpm": {}}, "options of log_cpm"),
    ],
)
def test_lists_that_make_no_chain_are_refused(
    steps: list[str], options: dict[str, dict[str, object]], text: str
) -> None:
    with pytest.raises(InputError, match=text):
        steps_of(steps, options)


@pytest.mark.parametrize(
    ("steps", "value", "text"),
    [
        (["log_cpm"], -1.0, "found -1 among the values for log_cpm"),
        (["beta_to_m"], 3.0, "expected shares from 0 to 1"),
        (["combat"], 1.0, "found no column that tells batches"),
        (["tpm"], 1.0, "found a length of 0 of 4"),
        (["low_counts"], 1.0, "no feature left after low_counts"),
        (["median_of_ratios"], 0.0, "found a 0 in every feature"),
    ],
)
def test_values_that_a_step_cannot_take_are_refused(steps: list[str], value: float, text: str) -> None:
    with pytest.raises(InputError, match=text):
        Chain(steps, {}, list("abcd")).fit(np.full((6, 4), value))
