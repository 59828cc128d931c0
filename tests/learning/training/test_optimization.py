"""Learning rates, clipping, averages and mixing, against what their papers' formulas give."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from genodl_spark.learning.training import optimization


def test_warm_up_then_cosine() -> None:
    found = [optimization.schedule(step, 10, 4) for step in range(10)]
    assert found[:4] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert found[4:] == pytest.approx([0.5 * (1 + math.cos(math.pi * k / 6)) for k in range(6)])
    assert optimization.schedule(7, 10, 4, "constant") == 1.0


def test_larger_batches_take_larger_steps_after_a_warm_up_from_the_small_ones() -> None:
    rate, start = optimization.scaled_rate(0.1, 256, 32)
    assert (rate, start) == (pytest.approx(0.8), 0.125)
    assert optimization.schedule(-1, 10, 4, "constant", start) == pytest.approx(0.125)
    assert rate * optimization.schedule(3, 10, 4, "constant", start) == pytest.approx(0.8 * (0.125 + 0.875 * 0.8))
    assert optimization.scaled_rate(0.1, 256, 0) == (0.1, 0.0)
    assert optimization.scaled_rate(0.1, 16, 32) == (0.1, 0.0)


def test_plateau_is_that_of_torch() -> None:
    p = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([p], lr=1.0)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=2, threshold=0.0)
    ours = optimization.Plateau(0.5, 2)
    for loss in (3.0, 2.0, 2.5, 2.4, 2.3, 2.2, 2.1, 1.9, 2.0, 2.0, 2.0, 2.0):
        theirs.step(loss)
        ours.see(loss)
        assert ours.factor == optimizer.param_groups[0]["lr"]
    assert ours.factor < 0.5
    assert optimization.Plateau(**ours.state()) == ours


def test_clipping_keeps_members_apart() -> None:
    a, b = torch.nn.Parameter(torch.zeros(2, 3)), torch.nn.Parameter(torch.zeros(2, 1, 2))
    a.grad, b.grad = torch.tensor([[3.0, 0, 0], [0.1, 0, 0]]), torch.tensor([[[4.0, 0]], [[0.0, 0]]])
    optimization.clip_members([a, b], 1.0)
    torch.testing.assert_close(a.grad, torch.tensor([[0.6, 0, 0], [0.1, 0, 0]]))
    torch.testing.assert_close(b.grad, torch.tensor([[[0.8, 0]], [[0.0, 0]]]))


def test_averages_stand_in_and_step_back() -> None:
    p = torch.nn.Parameter(torch.tensor([0.0]))
    average = optimization.Average([p], 0.9)
    expected = 0.0
    for step in range(30):
        with torch.no_grad():
            p.fill_(step)
        average.update(step)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
    with average.instead():
        assert p.item() == pytest.approx(expected, rel=1e-5)
    assert p.item() == 29


def test_mixtures_are_a_function_of_their_key() -> None:
    shares = [optimization.mixture(8, 0.4, 1, 2, step)[0] for step in range(2000)]
    assert min(shares) >= 0.5 and max(shares) <= 1
    draws = np.random.default_rng(0).beta(0.4, 0.4, 100_000)
    assert np.mean(shares) == pytest.approx(np.maximum(draws, 1 - draws).mean(), abs=0.01)
    share, places = optimization.mixture(8, 0.4, 1, 2, 3)
    assert sorted(places) == list(range(8))
    assert (
        optimization.mixture(8, 0.4, 1, 2, 3)[0] == share and (optimization.mixture(8, 0.4, 1, 2, 3)[1] == places).all()
    )


def test_the_first_step_that_is_not_finite() -> None:
    bad = optimization.FirstBad(torch.device("cpu"))
    bad.see(torch.tensor([1.0, 2.0]), 3)
    assert bad.step() is None
    for step in (5, 4, 9):
        bad.see(torch.tensor([1.0, float("nan")]), step)
    bad.see(torch.tensor([0.0, 1.0]), 2)
    assert bad.step() == 4
