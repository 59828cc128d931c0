"""Shuffles that training draws anew in every epoch: of the same dinucleotides, whatever ranks, batches and ends."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from genodl_spark.core.splitmix import keys_of
from genodl_spark.genome.bases import kmer_counts
from genodl_spark.genome.shuffles import shuffled
from genodl_spark.learning import feed, heads
from genodl_spark.learning.settings import Train
from genodl_spark.learning.training import plan, rank
from genodl_spark.learning.training.group import Group
from genodl_spark.learning.training.ranks import Alone
from tests.learning.test_feed import write
from tests.learning.training.test_training import OPTIONS, killed_and_resumed, scores, weights

POSITIVES = 40


def job(folder: Path, positives: int = POSITIVES, **options: object) -> plan.Job:
    """Sequences with a motif, some padded or with an unknown base, and behind them a shuffle of each."""
    folder.mkdir()
    random = np.random.default_rng(2)
    x = random.integers(0, 4, (positives, 40)).astype(np.int8)
    x[np.arange(positives)[:, None], random.integers(3, 30, positives)[:, None] + np.arange(5)] = [0, 1, 0, 1, 2]
    x[::3, :2] = -1
    x[1::5, 20] = -1
    whole = np.concatenate([x, shuffled(x, keys_of(np.arange(positives), 7))])
    target = np.repeat([1.0, 0.0], positives)
    codes = np.tile(np.where(np.arange(positives) % 4, 0, 2).astype(np.int8), 2)[:, None]
    chosen = Train().model_copy(update={**OPTIONS, "ensemble": 1, "batch": 13, **options})
    return plan.Job(
        write(folder, whole, target, codes, 3, 16),
        feed.Layout(2 * positives, 40, "int8", 1),
        "pyarrow",
        1 << 30,
        heads.one("label", ["negative", "1"]),
        0,
        "onehot",
        1.0,
        0,
        {"kind": "cnn", "channels": [4], "dilations": [1], "stem_kernel": 5, "hidden": [4]},
        chosen,
        5,
        str(folder / "staging"),
        str(folder / "staging" / "checkpoint"),
        redrawn=positives,
    )


def seen(j: plan.Job, epoch: int, ranks: int = 1, first: int = 0) -> dict[int, np.ndarray]:
    """What all ranks together train on in an epoch, from a step on, by row number; partners of mixing too."""
    data, found = feed.read(j.files, j.layout, j.backend), dict[int, np.ndarray]()
    for number in range(ranks):
        them = Alone()
        them.rank, them.size = number, ranks
        group = Group(rank.Rank(j, them, torch.device("cpu"), data))
        for _, _, pieces in group.batches(epoch, first):
            for piece in pieces:
                parts = [(piece.rows, piece.x)]
                if piece.partners is not None and piece.partner_x is not None:
                    parts.append((piece.partners, piece.partner_x))
                for rows, x in parts:
                    for row, codes in zip(rows.tolist(), x.numpy(), strict=True):
                        np.testing.assert_array_equal(found.setdefault(row, codes), codes)
    return found


def test_every_epoch_has_others_of_the_same_dinucleotides(tmp_path: Path) -> None:
    j = job(tmp_path / "a", mixup=0.3)
    data = feed.read(j.files, j.layout, j.backend)
    epochs = [seen(j, epoch) for epoch in range(4)]
    trains = np.flatnonzero(data.folds[:, 0] == 0)
    drawn = trains[trains >= POSITIVES]
    assert all(sorted(found) == trains.tolist() for found in epochs) and len(drawn) == 30
    for found in epochs:
        for row in trains[trains < POSITIVES]:
            np.testing.assert_array_equal(found[row], data.x[row])
        shuffles = np.stack([found[row] for row in drawn])
        positives = data.x[drawn - POSITIVES]
        np.testing.assert_array_equal(kmer_counts(shuffles, 2), kmer_counts(positives, 2))
        np.testing.assert_array_equal(shuffles < 0, positives < 0)
    draws = np.stack([data.x[drawn], *(np.stack([found[row] for row in drawn]) for found in epochs)])
    for one in range(5):
        for two in range(one):
            assert (draws[one] != draws[two]).any(1).all()
    others = seen(replace(j, seed=6), 1)
    assert all((others[row] != epochs[1][row]).any() for row in drawn)


def test_neither_ranks_nor_batches_nor_where_it_goes_on_change_a_draw(tmp_path: Path) -> None:
    j = job(tmp_path / "a")
    whole = seen(j, 2)
    other = replace(j, options=j.options.model_copy(update={"batch": 29, "accumulate": 3}))
    for found in (seen(j, 2, ranks=3), seen(other, 2), seen(j, 2, first=3)):
        assert found
        for row, codes in found.items():
            np.testing.assert_array_equal(codes, whole[row])


def test_what_was_killed_goes_on_with_the_same_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the last bit. Rows that are held out are scored as they are stored."""
    options = {"dtype": "float32", "epochs": 3, "checkpoint_seconds": 1e-9, "batch": 40}
    whole, killed, plain = (job(tmp_path / name, **options) for name in ("whole", "killed", "plain"))
    expected = rank.run_alone(whole)["history"]
    resumed = killed_and_resumed(killed, monkeypatch)["history"]
    monkeypatch.undo()
    assert [entry["train"] for entry in resumed] == [entry["train"] for entry in expected]
    assert weights(killed) == weights(whole) and scores(killed) == scores(whole)
    rank.run_alone(replace(plain, redrawn=0))
    assert weights(plain) != weights(whole)
    held = feed.read(whole.files, whole.layout, whole.backend).x[[row for _, row in sorted(scores(whole))]]
    group = Group(rank.Rank(whole, Alone(), torch.device("cpu"), feed.read(whole.files, whole.layout, "pyarrow")))
    rows = np.array(sorted(row for _, row in scores(whole)))
    np.testing.assert_array_equal(group.fetch(rows).numpy(), held)
