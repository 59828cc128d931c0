"""Networks over sequences that may tell one position from another: what the dense head sees of each, and rows that are
moved in training. And that networks of before have the parameters that they had."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn
from torch.nn import functional

from genodl_spark.learning import models
from genodl_spark.learning.models import cnn, layers
from tests.learning.models.test_models import BATCH, LENGTH, build, moved, sequences

SMALL = {"kind": "cnn", "channels": [6], "stem_kernel": 7, "kernel": 3, "dilations": [1]}


def bases(rows: int, length: int, seed: int = 0) -> torch.Tensor:
    """x (1, rows, 4, length) float64 without unknown bases."""
    codes = torch.randint(0, 4, (1, rows, length), generator=torch.Generator().manual_seed(seed))
    return functional.one_hot(codes, 4).double().transpose(2, 3)


def shapes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


@pytest.mark.parametrize("pooling", ["attention", "max", "mean"])
def test_parameters_of_before_are_as_they_were(pooling: str) -> None:
    """Their names, shapes and start: models of older versions are loaded by them."""
    expected = {"stem.weight": (2, 6, 4, 7), "stem.bias": (2, 6)}
    for name in ("first", "second"):
        expected |= {f"stages.0.0.{name}.weight": (2, 6), f"stages.0.0.{name}.bias": (2, 6)}
    expected |= {"stages.0.0.wide.weight": (2, 6, 6, 3), "stages.0.0.wide.bias": (2, 6)}
    expected |= {"stages.0.0.point.weight": (2, 6, 6, 1), "stages.0.0.point.bias": (2, 6)}
    expected |= {"norm.weight": (2, 6), "norm.bias": (2, 6)}
    if pooling == "attention":
        expected |= {"pooling.attention.weight": (2, 6)}
    expected |= {"head.layers.0.weight": (2, 6, 64), "head.layers.0.bias": (2, 1, 64)}
    expected |= {"head.layers.1.weight": (2, 64, 3), "head.layers.1.bias": (2, 1, 3)}
    network = models.build({**SMALL, "pooling": pooling}, [1, 2], (4, LENGTH), 3)
    assert shapes(network) == expected
    listed = models.build({**SMALL, "pooling": [pooling]}, [1, 2], (4, LENGTH), 3)
    x = bases(BATCH, LENGTH).float()
    assert torch.equal(listed(x), network(x))
    several = ["attention", "max", "mean"]
    more = models.build({**SMALL, "pooling": several, "positional": 2, "shift": 3}, [1, 2], (4, LENGTH), 3)
    start = more.state_dict()
    for name, tensor in network.state_dict().items():
        assert name == "head.layers.0.weight" or torch.equal(start[name], tensor), name
    assert torch.equal(start["pooling.attention.weight"], layers.keyed_start([1, 2], 3, (6,), 6**-0.5))
    assert shapes(more)["head.layers.0.weight"] == (2, 3 * 6 + LENGTH * 2, 64)
    recurrent = models.build({"kind": "rnn", "channels": 5, "units": 4, "pooling": pooling}, [1], (4, LENGTH), 3)
    of_pooling = {name: shape for name, shape in shapes(recurrent).items() if "recurrence" not in name}
    attention = {"pooling.attention.weight": (1, 8)} if pooling == "attention" else {}
    expected = {"stem.weight": (1, 5, 4, 9), "stem.bias": (1, 5), **attention}
    assert of_pooling == {**expected, "head.layers.0.weight": (1, 8, 3), "head.layers.0.bias": (1, 1, 3)}


@pytest.mark.parametrize("most", [1, 4, 7, 1000])
@pytest.mark.parametrize("length", [1, 5, 8, 9, 23, 24])
@pytest.mark.parametrize("shared", [False, True])
def test_places_are_positions_or_means_of_neighbours(
    shared: bool, length: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cnn, "PLACES", most)
    head = cnn._Places([1, 2], 6, 4, length, 0, shared).double()
    generator = torch.Generator().manual_seed(length)
    x = torch.randn(2, 3, length, 6, generator=generator, dtype=torch.float64)
    present = torch.arange(length) >= torch.tensor([[[0], [length // 3], [length - 1]]])
    weight = head.conv.weight.detach().numpy()[..., 0]
    if shared:
        weight = np.concatenate([weight, weight[:, ::-1, ::-1]], 1)
    each = next(n for n in range(1, length + 1) if -(-length // n) <= most)
    over = length % each if shared else 0
    starts = range(0, length - each - over + 1, each) if shared else range(0, length, each)
    kept = x.numpy() * present.numpy()[..., None]
    expected = np.stack([kept[:, :, start : start + each + over].mean(2) for start in starts], 2)
    expected = np.einsum("mblc,mpc->mblp", expected, weight)
    assert head.count == len(starts) <= most
    found = head(x, present)
    torch.testing.assert_close(found, torch.from_numpy(expected), rtol=0, atol=1e-12)
    if each == 1:
        assert (
            torch.equal(found.ne(0).all(3), present.expand(2, -1, -1)) and not found[~present.expand(2, -1, -1)].any()
        )
    assert torch.equal(head(x, None)[:, 0], found[:, 0])


@pytest.mark.parametrize("positional", [2, 4])
@pytest.mark.parametrize("pool", [1, 3])
@pytest.mark.parametrize("length", [1, 2, 13, 22, 23, 30])
def test_positions_of_shared_strands_are_met_from_the_other_end(
    length: int, pool: int, positional: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With several pools, and with places that are means."""
    monkeypatch.setattr(cnn, "PLACES", 5)
    options = {"channels": [6, 4], "pool": pool, "positional": positional, "pooling": ["max", "attention", "mean"]}
    network = models.build(
        {**SMALL, **options, "reverse_complement": "equivariant", "norm": "batch"}, [1, 2], (4, length), 3
    )
    network = moved(network.double(), [1, 2])
    x = sequences(5, length, torch.Generator().manual_seed(length))
    torch.testing.assert_close(network(x), network(x.flip(2, 3)), rtol=0, atol=1e-12)
    single, x = network.float(), x.float()
    torch.testing.assert_close(single(x), single(x.flip(2, 3)), rtol=0, atol=1e-6)
    if length > 12:
        assert not torch.allclose(single(x), single(x.flip(2)), atol=1e-4)  # the complement alone is another sequence
        assert not torch.allclose(single(x), single(x.flip(3)), atol=1e-4)


def by_hand(x: torch.Tensor, by: int) -> torch.Tensor:
    """x (..., L), the columns moved by so many positions to the right."""
    found, length = torch.zeros_like(x), x.shape[-1]
    for place in range(length):
        if 0 <= place - by < length:
            found[..., place] = x[..., place - by]
    return found


def shifts_of(found: torch.Tensor, x: torch.Tensor, most: int) -> np.ndarray:
    """By how many positions each row was moved, int (M, rows); each must be so exactly."""
    same = torch.stack([(found == by_hand(x, by)).all(3).all(2) for by in range(-most, most + 1)])
    assert (same.sum(0) == 1).all()
    return same.int().argmax(0).numpy() - most


@pytest.mark.parametrize("members", [1, 3])
def test_rows_are_moved_by_what_seed_epoch_and_row_say(members: int) -> None:
    most, rows, x = 4, torch.arange(600) * 7 + 5, bases(600, LENGTH)
    seeds, device = [4, 5, 6][:members], torch.device("cpu")
    key = layers.keys(seeds, 2, 1, device)
    found = layers.keyed_shift(x, most, rows, key)
    by = shifts_of(found, x, most)
    assert torch.equal(layers.keyed_shift(x.expand(members, *x.shape[1:]), most, rows, key), found)
    order = torch.randperm(600, generator=torch.Generator().manual_seed(1))[:50]
    assert torch.equal(layers.keyed_shift(x[:, order], most, rows[order], key), found[:, order])
    alone = layers.keyed_shift(x, most, rows, layers.keys(seeds[-1:], 2, 1, device))
    assert torch.equal(alone[0], found[-1])
    others = [layers.keyed_shift(x, most, rows, layers.keys(seeds, 3, 1, device))[0]]
    others += [layers.keyed_shift(x, most, rows + 1, key)[0], *found[1:]]
    for moves in (by[0], *(shifts_of(other[None], x, most)[0] for other in others)):
        counts = np.bincount(moves + most, minlength=2 * most + 1)
        assert stats.chisquare(counts).pvalue > 1e-3
    for other in others:
        moves = shifts_of(other[None], x, most)[0]
        assert stats.contingency.crosstab(by[0], moves).count.shape == (2 * most + 1, 2 * most + 1)
        assert 0.03 < (moves == by[0]).mean() < 0.2  # one in nine, as of numbers that know nothing of each other


@pytest.mark.parametrize("kind", ["cnn, positions", "cnn, positions of shared strands", "cnn"])
def test_a_network_learns_from_moved_rows_and_is_asked_about_rows_as_they_are(kind: str) -> None:
    network = build(kind, [1, 2], dropout=0.0, shift=5, pooling=["max", "mean"])
    x, rows = bases(40, LENGTH), torch.arange(40) + 100
    x[:, 3, :, 15:] = 0  # a shorter sequence
    by = shifts_of(layers.keyed_shift(x, 5, rows, layers.keys([1, 2], 7, 1, x.device)), x, 5)
    found = network(x, rows, 7)
    for m in range(2):
        row = torch.stack([by_hand(x[0, b], int(by[m, b])) for b in range(40)])[None]
        torch.testing.assert_close(found[m], network(row)[m], rtol=0, atol=1e-12)
    assert not torch.allclose(found, network(x))
    still = build(kind, [1, 2], dropout=0.0, shift=0, pooling=["max", "mean"])
    assert torch.equal(network(x), still(x))
    torch.testing.assert_close(still(x, rows, 7), still(x), rtol=0, atol=1e-12)


def test_a_row_may_be_turned_round_and_moved() -> None:
    network = build("cnn, both strands", [1], shift=3, average_strands=False)
    still = build("cnn, both strands", [1], average_strands=False)
    x, rows = bases(60, LENGTH), torch.arange(60)
    expected = torch.stack([still(by_hand(strand, by))[0] for strand in (x, x.flip(2, 3)) for by in range(-3, 4)])
    near = (expected - network(x, rows, 1)[0]).abs().amax(2) < 1e-12
    assert (near.sum(0) == 1).all()
    assert near.any(1).all()  # either strand, by every number of positions


LONG, SITE, MOTIF = 60, 33, [3, 2, 0, 1, 2, 3, 1]


def planted(rows: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """x (1, rows, 4, LONG), each with one copy of a motif, and labels (rows,): whether it stands at SITE."""
    draw = np.random.default_rng(seed)
    codes, label = draw.integers(0, 4, (rows, LONG)), np.arange(rows) % 2
    elsewhere = draw.choice([s for s in range(8, LONG - 15) if abs(s - SITE) > 3], rows)
    for row, start in enumerate(np.where(label == 1, SITE, elsewhere)):
        codes[row, start : start + len(MOTIF)] = MOTIF
    return functional.one_hot(torch.from_numpy(codes)[None], 4).float().transpose(2, 3), torch.from_numpy(label)


def share_right(options: dict[str, Any], steps: int = 120) -> float:
    """Of new rows, after a short training."""
    network = models.build({**SMALL, "channels": [8], "hidden": [16], **options}, [1], (4, LONG), 2)
    x, label = planted(512, 1)
    optimizer = torch.optim.AdamW(network.parameters(), 0.01, weight_decay=0.1)
    draw = np.random.default_rng(2)
    for step in range(steps):
        rows = torch.from_numpy(draw.choice(512, 64, replace=False))
        optimizer.zero_grad()
        functional.cross_entropy(network(x[:, rows], rows, step)[0], label[rows]).backward()
        optimizer.step()
    x, label = planted(400, 3)
    with torch.no_grad():
        return float((network(x)[0].argmax(1) == label).double().mean())


def test_a_site_that_counts_at_one_place_alone_is_learnt_where_places_are_seen() -> None:
    """Decoys are the same motif elsewhere: which of both it is, no maximum over positions tells."""
    assert share_right({"pooling": "max"}) < 0.65
    assert share_right({"pooling": "max", "positional": 4}) > 0.9
