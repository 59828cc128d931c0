"""Methods of attribution against closed forms, hand-made loops and each other; what they owe: completeness for every
kind of network, and the same bits whatever stands beside a row."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn
from torch.nn import functional

from genodl_spark.core.errors import InputError
from genodl_spark.genome import bases
from genodl_spark.learning import encodings, heads, losses, models
from genodl_spark.learning.explain import Attributions, Limits, deeplift, method, methods, references
from genodl_spark.learning.explain.outputs import Outputs, sums
from genodl_spark.learning.heads import Head
from tests.learning.models.test_models import KINDS, moved
from tests.learning.models.test_models import build as random_network
from tests.learning.test_predictor import predictor, rows_of

CPU = torch.device("cpu")
ALL = ["integrated_gradients", "deeplift", "saturation_mutagenesis"]
COMPLETE = ALL[:2]


class Function(nn.Module):
    """A network of one output that is a given function of x (1, B, ...)."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x)[..., None]


def explained(
    name: str,
    network: nn.Module,
    x: torch.Tensor,
    reference: torch.Tensor,
    weights: list[float] | None = None,
    batch: int = 0,
    **limits: Any,
) -> Attributions:
    outputs = Outputs(network, tuple(x.shape[1:]), CPU, batch)
    of_rows = torch.tensor(weights or [1.0], dtype=torch.float64).expand(len(x), -1)
    return method(name, Limits(**limits)).attribute(outputs, x, reference, of_rows)


def one_hot(codes: np.ndarray) -> torch.Tensor:
    flat = codes.reshape(-1, codes.shape[-1])
    return torch.from_numpy(encodings.encoding("onehot").floats(flat)).unflatten(0, codes.shape[:-1])


def sequences(rows: int, length: int, seed: int = 0, padded: bool = True) -> np.ndarray:
    codes = np.random.default_rng(seed).integers(0, 4, (rows, length)).astype(np.int8)
    if padded:
        codes[::3, :3] = codes[::3, -2:] = codes[1, length // 2] = -1
    return codes


def shuffles_of(codes: np.ndarray, count: int = 3) -> torch.Tensor:
    return one_hot(references.shuffled(codes, np.arange(len(codes), dtype=np.uint64), count, 7))


def test_methods_are_the_files_of_the_package() -> None:
    assert methods() == sorted(ALL)
    with pytest.raises(InputError, match="found 'lime'; expected one of deeplift"):
        method("lime", Limits())


@pytest.mark.parametrize("start", ["random", "lda"])
@pytest.mark.parametrize("name", ALL)
def test_a_linear_function_is_explained_by_its_weights(name: str, start: str) -> None:
    network = models.build({"kind": "mlp", "hidden": [3] if start == "lda" else [], "start": start}, [1, 2], (7,), 2)
    generator = np.random.default_rng(0)
    if start == "lda":  # whose layers say nothing yet
        network.start_at(torch.from_numpy(generator.normal(size=(2, 7, 2))), torch.ones(2, 2))
    x, reference = (torch.from_numpy(generator.normal(size=s).astype(np.float32)) for s in ((5, 7), (5, 2, 7)))
    found = explained(name, network, x, reference, [-1.0, 1.0])
    weight = (network.discriminant if start == "lda" else network.layers[0].weight.detach()).mean(0)
    wanted = ((weight[:, 1] - weight[:, 0]) * (x - reference.mean(1))).double().numpy()
    np.testing.assert_allclose(found.contributions, wanted, atol=5e-6)
    np.testing.assert_allclose(found.output - found.reference, wanted.sum(1), atol=5e-6)
    assert found.hypothetical is None
    if name != "saturation_mutagenesis":
        assert np.abs(found.error).max() < 1e-6


def test_integrated_gradients_of_a_quadratic_function_are_its_integral() -> None:
    """Of x'Ax: (A + A')(x + r) / 2 * (x - r)."""
    generator = np.random.default_rng(1)
    a = generator.normal(size=(6, 6))
    x, reference = generator.normal(size=(4, 6)), generator.normal(size=(4, 1, 6))
    matrix = torch.from_numpy(a).float()
    network = Function(lambda v: ((v @ matrix) * v).sum(-1))
    found = explained("integrated_gradients", network, torch.from_numpy(x).float(), torch.from_numpy(reference).float())
    r = reference[:, 0]
    np.testing.assert_allclose(found.contributions, (x + r) / 2 @ (a + a.T) * (x - r), atol=1e-4)
    assert (found.steps == 6).all()  # two pieces: a straight gradient needs no more


@pytest.mark.parametrize("name", COMPLETE)
def test_a_function_of_a_sum_is_shared_out_as_the_sum_is(name: str) -> None:
    """Both methods agree there: w * (x - r) times the secant of the function."""
    generator = np.random.default_rng(2)
    weight = torch.from_numpy(generator.normal(size=9).astype(np.float32))
    x, r = (torch.from_numpy(generator.normal(size=(6, 9)).astype(np.float32)) for _ in range(2))
    x[5] = r[5] * 1.0000001  # hardly any difference
    found = explained(name, Function(lambda v: functional.gelu(v @ weight)), x, r[:, None], tolerance=1e-4, floor=1e-7)
    z, other = ((one.double() @ weight.double()) for one in (x, r))
    secant = (functional.gelu(z) - functional.gelu(other)) / (z - other)
    wanted = (weight * (x - r)).double() * torch.where((z - other).abs() > 1e-6, secant, 0.0)[:, None]
    np.testing.assert_allclose(found.contributions, wanted.numpy(), atol=1e-4)


def test_bends_are_closed_in_upon() -> None:
    """Sixty bends of each way, whose integrals are known: a * w * (x - r) times the secant of |w x - b|."""
    generator = np.random.default_rng(6)
    w, b, a = generator.normal(size=(9, 60)), generator.normal(size=60), generator.normal(size=60)
    x, r = generator.normal(size=(2, 20, 9))
    of, less, times = (torch.from_numpy(one).float() for one in (w, b, a))
    network = Function(lambda v: (v @ of - less).abs() @ times)
    rows, against = torch.from_numpy(x).float(), torch.from_numpy(r).float()[:, None]
    found = explained("integrated_gradients", network, rows, against, tolerance=1e-3, floor=1e-5)
    z, other = x @ w - b, r @ w - b
    wanted = (x - r) * (((np.abs(z) - np.abs(other)) / (z - other) * a) @ w.T)
    assert (np.abs(found.error) <= np.maximum(1e-3 * np.abs(found.output - found.reference), 1e-5)).all()
    np.testing.assert_allclose(found.contributions, wanted, atol=0.005 * np.abs(wanted).max())
    assert found.steps.mean() < 250  # 370 by halves of which each has three gradients
    few = explained("integrated_gradients", network, rows, against, tolerance=1e-3, floor=1e-5, steps=60)
    assert (few.steps <= 60).all() and (few.steps > 50).mean() > 0.5  # what a limit leaves room for is taken


def test_a_product_and_a_maximum_are_shared_out_as_shapley_has_it() -> None:
    def shapley(f: Any, x: np.ndarray, r: np.ndarray) -> list[float]:
        none, first, second, both = (f(np.where(m, x, r)) for m in ([0, 0], [1, 0], [0, 1], [1, 1]))
        return [(first - none + both - second) / 2, (second - none + both - first) / 2]

    x = np.random.default_rng(3).normal(size=(50, 2))
    r = np.random.default_rng(4).normal(size=(50, 2))
    rows, against = torch.from_numpy(x).float(), torch.from_numpy(r).float()[:, None]
    for network, plain in (
        (Function(lambda v: v.amax(2)), np.max),
        (Function(lambda v: v[..., 0] * v[..., 1]), np.prod),
        (Function(lambda v: functional.max_pool2d(v.unsqueeze(2), (1, 2)).flatten(2)[..., 0]), np.max),
    ):
        found = explained("deeplift", network, rows, against)
        wanted = np.array([shapley(plain, *pair) for pair in zip(x, r, strict=True)])
        if plain is np.max:  # one that is the largest at both ends has it all
            same = x.argmax(1) == r.argmax(1)
            wanted[same] = np.where(np.arange(2) == x[same].argmax(1)[:, None], x[same] - r[same], 0.0)
        np.testing.assert_allclose(found.contributions, wanted, atol=1e-5)


@pytest.mark.parametrize("name", COMPLETE)
def test_against_the_mean_contributions_rank_features_as_shapley_values_do(name: str) -> None:
    """Deep SHAP as it was first given: DeepLIFT against the mean of the rows (Lundberg and Lee 2017). Shapley's own
    values by all 256 coalitions, features outside of one at the mean."""
    network = moved(models.build({"kind": "mlp", "hidden": [16, 8]}, [1], (8,), 1), [1])
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32))
    member = np.array([[(number >> i) & 1 for i in range(8)] for number in range(256)])
    with torch.no_grad():
        rows = x[:, None] * torch.from_numpy(member).float()
        value = network(rows.reshape(1, -1, 8))[0, :, 0].double().numpy().reshape(50, 256)
    exact = np.zeros((50, 8))
    for i in range(8):
        for number in np.flatnonzero(member[:, i] == 0):
            weight = 1 / (8 * math.comb(7, int(member[number].sum())))
            exact[:, i] += weight * (value[:, number + (1 << i)] - value[:, number])
    found = explained(name, network, x, torch.zeros(50, 1, 8)).contributions
    np.testing.assert_allclose(exact.sum(1), found.sum(1), atol=0.02 * np.abs(exact).sum(1).max())
    assert np.corrcoef(exact.ravel(), found.ravel())[0, 1] > 0.97
    ours, theirs = np.abs(found).mean(0), np.abs(exact).mean(0)
    assert stats.spearmanr(ours, theirs).statistic > 0.9


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", COMPLETE)
def test_contributions_add_up_for_every_kind_of_network(kind: str, name: str) -> None:
    shape = KINDS[kind][1]
    network = random_network(kind, [3, 4]).float()
    if len(shape) == 2:
        codes = sequences(8, shape[1])
        x, reference = one_hot(codes), shuffles_of(codes)
    else:
        x = torch.from_numpy(np.random.default_rng(5).normal(size=(8, *shape)).astype(np.float32))
        x[::2, : shape[0] // 3] = 0
        reference = torch.zeros(8, 1, *shape)
    found = explained(name, network, x, reference, [-1.0, 1.0], floor=1e-5)
    difference = found.output - found.reference
    assert np.abs(difference).max() > 1e-3
    np.testing.assert_array_equal(found.error, found.contributions.reshape(8, -1).sum(1) - difference)
    assert (np.abs(found.error) <= np.maximum(0.01 * np.abs(difference), 1e-5)).all()
    with torch.no_grad():
        plain = network(x[None]).double().mean(0)
    np.testing.assert_allclose(found.output, (plain[:, 1] - plain[:, 0]).numpy(), atol=1e-6)


@pytest.mark.parametrize("kind", ["cnn", "cnn, several pools", "cnn, shared strands"])
def test_deeplift_adds_up_to_rounding(kind: str) -> None:
    codes = sequences(8, KINDS[kind][1][1])
    network = random_network(kind, [3]).float()
    found = explained("deeplift", network, one_hot(codes), shuffles_of(codes), [-1.0, 1.0])
    assert np.abs(found.error).max() < 2e-6


@pytest.mark.parametrize("reference", ["mean", "zero"])
def test_integrated_gradients_add_up_against_constant_references(reference: str) -> None:
    """Of padded rows too, where a network sees other positions at the reference itself than on the way from it."""
    options, shape = KINDS["cnn"]
    network, codes = models.build(options, [3], shape, 2), sequences(6, shape[1])
    shares = np.full(4, 0.25) if reference == "mean" else np.zeros(4)
    against = torch.from_numpy(references.constant(codes, shares))
    found = explained("integrated_gradients", network, one_hot(codes), against, [-1.0, 1.0], floor=1e-5)
    difference = found.output - found.reference
    assert (np.abs(found.error) <= np.maximum(0.01 * np.abs(difference), 1e-5)).all()
    assert (found.contributions[:, :, codes[0] < 0][::3] == 0).all()


@pytest.mark.parametrize("name", ALL)
def test_hypothetical_contributions_are_those_of_the_base_that_is_there(name: str) -> None:
    options, shape = KINDS["cnn"]
    codes = sequences(6, shape[1])
    x = one_hot(codes)
    found = explained(name, models.build(options, [3], shape, 2), x, shuffles_of(codes), [-1.0, 1.0])
    hypothetical, known = found.hypothetical, codes >= 0
    assert hypothetical is not None and (hypothetical.transpose(0, 2, 1)[~known] == 0).all()
    if name == "saturation_mutagenesis":
        others = hypothetical.sum(1) / 3
        np.testing.assert_allclose(found.contributions.sum(1), -others, atol=1e-9)
        assert (hypothetical * x.numpy() == 0).all()
    else:
        np.testing.assert_allclose((hypothetical * x.numpy()).sum(1), found.contributions.sum(1), atol=1e-6)


def test_saturation_mutagenesis_is_a_loop_over_mutated_rows() -> None:
    """Through the predictor, whose probabilities say what the log odds are."""
    model = predictor("cnn", members=1)
    codes = rows_of("cnn", 3)

    def log_odds(row: np.ndarray) -> float:
        p = model(row[None], calibrated=False)[0]
        return float(np.log(p[1] / p[0]))

    found = explained(
        "saturation_mutagenesis", model.network, one_hot(codes), shuffles_of(codes, 1), [-1.0, 1.0], batch=16
    )
    assert found.hypothetical is not None
    for i, row in enumerate(codes):
        assert found.output[i] == pytest.approx(log_odds(row), abs=1e-5)
        for place in range(len(row)):
            for base in range(4):
                changed = row.copy()
                changed[place] = base
                wanted = log_odds(changed) - log_odds(row) if row[place] >= 0 else 0.0
                assert found.hypothetical[i, base, place] == pytest.approx(wanted, abs=1e-5)


def test_values_are_set_to_their_references_one_at_a_time() -> None:
    network = models.build({"kind": "mlp", "hidden": [5]}, [1, 2], (4,), 1)
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32))
    x[0, 2] = 0
    found = explained("saturation_mutagenesis", network, x, torch.zeros(3, 1, 4))
    for i in range(3):
        for j in range(4):
            changed = x.clone()
            changed[i, j] = 0
            with torch.no_grad():
                lost = (network(x[None]) - network(changed[None])).mean(0)[i, 0]
            assert found.contributions[i, j] == pytest.approx(float(lost), abs=1e-6)
    assert found.steps.tolist() == [3, 4, 4]


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("kind", ["cnn, several pools", "mlp"])
def test_what_stands_beside_a_row_does_not_matter(name: str, kind: str) -> None:
    """Rows in another order, alone, and among others are explained alike, but for rounding; of ways with many bends it
    may decide which of two pieces of like errors is halved, so that contributions are as exact and not the same."""
    options, shape = KINDS[kind]
    network = models.build(options, [3, 4], shape, 2)
    if len(shape) == 2:
        codes = sequences(11, shape[1])
        x, reference = one_hot(codes), shuffles_of(codes, 2)
    else:
        x = torch.from_numpy(np.random.default_rng(5).normal(size=(11, *shape)).astype(np.float32))
        reference = torch.zeros(11, 1, *shape)
    whole = explained(name, network, x, reference, [-1.0, 1.0], batch=16)
    allowed = 3 * Limits().allowed(whole.output - whole.reference)
    agreeing = []

    def agree(found: Attributions, rows: np.ndarray) -> None:
        same = found.steps == whole.steps[rows]
        agreeing.extend(same.tolist())
        for field in ("contributions", "output", "reference", "error"):
            away = np.abs(getattr(found, field) - getattr(whole, field)[rows]).reshape(len(rows), -1)
            assert not (away.max(1) > np.where(same, 1e-6, allowed[rows])).any(), field

    order = np.random.default_rng(1).permutation(11)
    agree(explained(name, network, x[order], reference[order], [-1.0, 1.0], batch=16), order)
    for i in (0, 7, 10):
        alone = explained(name, network, x[i : i + 1], reference[i : i + 1], [-1.0, 1.0], batch=16)
        agree(alone, np.array([i]))
    assert np.mean(agreeing) > (0.7 if name == "integrated_gradients" and kind != "mlp" else 0.99)


def test_a_function_that_jumps_is_not_passed_over_in_silence() -> None:
    x = torch.ones(2, 3)
    found = explained(
        "integrated_gradients", Function(lambda v: (v.sum(-1) > 1.234).float() + v[..., 0]), x, 0 * x[:, None], steps=99
    )
    np.testing.assert_allclose(found.error, -1.0, atol=0.5)
    assert (found.steps <= 99).all() and (np.abs(found.error) > Limits().allowed(found.output)).all()


def test_an_equivariant_network_explains_both_strands_alike() -> None:
    options = {**KINDS["cnn, shared strands"][0], "norm": "layer", "positional": 2, "pooling": ["attention", "max"]}
    length = 25  # the middle base of an odd length stays the middle
    network = models.build(options, [3, 4], (4, length), 2)
    codes = sequences(12, length, padded=False)
    x, reference = one_hot(codes), shuffles_of(codes, 2)
    forth = explained("integrated_gradients", network, x, reference, [-1.0, 1.0])
    back = explained("integrated_gradients", network, x.flip(1, 2), reference.flip(2, 3), [-1.0, 1.0])
    assert np.abs(forth.output - back.output).max() <= 1e-6
    np.testing.assert_allclose(back.contributions[:, ::-1, ::-1], forth.contributions, atol=2e-4)
    forth, back = (
        explained("deeplift", network, *rows, [-1.0, 1.0])
        for rows in ((x, reference), (x.flip(1, 2), reference.flip(2, 3)))
    )
    np.testing.assert_allclose(back.contributions[:, ::-1, ::-1], forth.contributions, atol=1e-5)


def test_steps_that_are_not_known_show_in_the_error() -> None:
    """A function that no rule is for is taken for linear."""
    x = torch.tensor([[0.5, 2.0]])
    found = explained("deeplift", Function(lambda v: torch.erf(v).sum(-1)), x, torch.zeros(1, 1, 2))
    assert abs(found.error[0]) > 0.1
    assert torch.erf not in deeplift._OF_ONE


def test_what_is_explained_of_heads() -> None:
    several = [Head("kind", "classes", ("a", "b", "c")), Head("size", "value"), Head("sex", "classes", ("f", "m"))]
    loss = losses.loss("auto", several, (3,))
    found = sums(several, loss, np.array([0.0, 1.0, 5.0, 2.0, 0.0, 1.0]))
    assert [weights.tolist() for weights, _ in found] == [
        [[1.0, -0.5, -0.5, 0, 0, 0], [-0.5, 1.0, -0.5, 0, 0, 0], [-0.5, -0.5, 1.0, 0, 0, 0]],
        [[0, 0, 0, 2.0, 0, 0]],
        [[0, 0, 0, 0, 1.0, -1.0], [0, 0, 0, 0, -1.0, 1.0]],
    ]
    assert [center for _, center in found] == [0.0, 5.0, 0.0]
    counts = heads.one("n", [])
    assert sums(counts, losses.loss("poisson", counts, (3,)), np.array([0.0, 1.0]))[0][0].tolist() == [[1.0]]
    months = [Head("months", "time")]
    weights, center = sums(months, losses.loss("auto", months, (3,)), np.array([1.0, 3.0]))[0]
    assert (weights.tolist(), center) == ([[3.0, 0.0]], 1.0)


def test_references_follow_from_a_row_alone() -> None:
    codes = sequences(9, 40)
    rows = references.row_numbers([f"s{i}" for i in range(9)])
    found = references.shuffled(codes, rows, 4, 0)
    order = np.random.default_rng(0).permutation(9)
    np.testing.assert_array_equal(references.shuffled(codes[order], rows[order], 4, 0), found[order])
    np.testing.assert_array_equal(references.shuffled(codes, rows, 2, 0), found[:, :2])
    assert (references.shuffled(codes, rows, 4, 1) != found).any((1, 2)).all()
    assert ((found < 0) == (codes < 0)[:, None]).all()
    for number in range(4):
        np.testing.assert_array_equal(bases.kmer_counts(found[:, number], 2), bases.kmer_counts(codes, 2))
    assert len(set(rows.tolist())) == 9


def test_the_composition_of_a_background_is_that_of_long_sequences() -> None:
    from genodl_spark.learning.encodings import onehot

    generator = np.random.default_rng(0)
    chance = generator.dirichlet([1, 1, 1, 1], size=16)
    bits = -np.log2(chance).ravel()
    state, counts = [0, 0], np.zeros(4)
    for draw in generator.random(200_000):
        base = int(np.searchsorted(np.cumsum(chance[state[0] * 4 + state[1]])[:3], draw))
        counts[base] += 1
        state = [state[1], base]
    np.testing.assert_allclose(references.composition(bits), counts / counts.sum(), atol=0.01)
    codes = generator.choice(4, (50, 400), p=[0.4, 0.1, 0.2, 0.3]).astype(np.int8)
    learnt = onehot.background(onehot.triplets(codes))
    np.testing.assert_allclose(references.composition(learnt), [0.4, 0.1, 0.2, 0.3], atol=0.01)
    codes[0, 1] = -1
    assert references.constant(codes[:1, :2], np.full(4, 0.25))[0, 0].tolist() == [[0.25, 0.0]] * 4


@pytest.mark.parametrize("name", COMPLETE)
def test_what_stands_beside_a_network_is_explained_with_it(name: str) -> None:
    """A linear part over k-mers and positions, and pairs of boxes, whose gradients are those of products and sums."""
    from genodl_spark.learning.beside import blend, linear

    options, length = {"kind": "cnn", "channels": [6], "dilations": [1], "boxes": 2, "box": 4, "spacers": [1, 3]}, 24
    generator = torch.Generator().manual_seed(0)
    blocks = {
        block: 0.1 * torch.randn(linear.width(block, length), 2, generator=generator) for block in linear.WAYS["both"]
    }
    part = linear.LinearPart(blocks, torch.zeros(2), merged=True)
    network = blend.Blended(models.build(options, [1, 2], (4, length), 2), [part], torch.tensor([[0.4, 0.4]]))
    codes = sequences(6, length)
    found = explained(name, network, one_hot(codes), shuffles_of(codes, 2), [-1.0, 1.0], floor=1e-5)
    difference = found.output - found.reference
    assert np.abs(difference).max() > 1e-2
    assert (np.abs(found.error) <= np.maximum(0.01 * np.abs(difference), 1e-5)).all()
