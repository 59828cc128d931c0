"""Training on rows in shards: any number of ranks, killed or not, ends where one rank does."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load

from genodl_spark.core.errors import InputError
from genodl_spark.learning import feed, heads
from genodl_spark.learning.settings import Train
from genodl_spark.learning.training import launch, plan, rank
from genodl_spark.learning.training.group import Group
from tests.cluster.harness import ROOT
from tests.learning.test_feed import write
from tests.learning.training.test_training import ALL, OPTIONS, job, killed_and_resumed, scores, weights


def jobs(folder: Path, checkpoint: bool = False) -> list[plan.Job]:
    """Of values with folds, selection and mixing; and of sequences, of which half are drawn anew in every epoch."""
    (folder / "values").mkdir(parents=True)
    (folder / "bases").mkdir()
    values = replace(job(folder / "values", folds=3, rows=150, files=20, options={"epochs": 6}), select=6)
    generator = np.random.default_rng(4)
    target = generator.integers(0, 2, 150) * 1.0
    x = np.where(generator.random((150, 12)) < 0.3 + 0.3 * target[:, None], 1, generator.integers(-1, 4, (150, 12)))
    codes = (generator.permutation(150) % 3)[:, None].astype(np.int8)
    bases = replace(
        values,
        files=write(folder / "bases", x.astype(np.int8), target, codes, 20, 4),
        layout=feed.Layout(150, 12, "int8", 1),
        heads=heads.one("label", ["a", "b"]),
        folds=0,
        transform="onehot",
        select=0,
        model={"kind": "cnn", "channels": [6], "dilations": [1], "hidden": [6], "dropout": 0.1},
        staging=str(folder / "bases" / "staging"),
        checkpoint=str(folder / "bases" / "checkpoint"),
        redrawn=75,
    )
    return [replace(one, shard=True, checkpoint=one.checkpoint if checkpoint else "") for one in (values, bases)]


def run_all(made: list[plan.Job]) -> list[dict[str, Any]]:
    return [rank.run_rank(one) for one in made]


def same(one: dict[str, Any], two: dict[str, Any]) -> None:
    assert len(one["history"]) == len(two["history"])
    for a, b in zip(one["history"], two["history"], strict=True):
        np.testing.assert_allclose(a["train"], b["train"], rtol=1e-9)  # in float64
        np.testing.assert_allclose(a.get("validation", 0), b.get("validation", 0), rtol=1e-9)
        assert a["rows"] == b["rows"]


def test_two_ranks_train_as_one_and_what_they_leave_is_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import horovod.runner

    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    whole, cut, alone = jobs(tmp_path / "whole"), jobs(tmp_path / "cut", True), jobs(tmp_path / "alone")
    stopped = [replace(one, stop_epoch=3) for one in cut]
    of_two = horovod.runner.run(functools.partial(run_all, [*whole, *stopped]), num_proc=2, use_gloo=True)[0][:2]
    for number, one in enumerate(alone):
        expected, resumed = rank.run_alone(one), rank.run_alone(cut[number])
        assert {entry["rows"] for entry in expected["history"]} == {150 if one.folds else 50}
        for found, j in ((of_two[number], whole[number]), (resumed, cut[number])):
            same(found, expected)
            mine, theirs = scores(j), scores(one)
            assert mine.keys() == theirs.keys() and len(mine) == (300 if one.folds else 100)
            np.testing.assert_allclose([mine[key] for key in theirs], list(theirs.values()), rtol=1e-8)
            tensors, others = load(weights(j)), load(weights(one))
            assert tensors.keys() == others.keys()
            for name, value in others.items():
                np.testing.assert_allclose(tensors[name], value, rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("options", [{}, ALL])
def test_what_was_killed_goes_on_as_if_it_had_not_been(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    """To the last bit, wherever a step was the last. With other files in its place it begins anew."""
    made = {}
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
        chosen = {"dtype": "float32", "epochs": 6, "checkpoint_seconds": 1e-9, **options}
        made[name] = replace(job(tmp_path / name, rows=90, files=12, options=chosen), shard=True)
    result = rank.run_alone(made["whole"])
    assert all(entry["rows"] == 30 for entry in result["history"])
    resumed = killed_and_resumed(made["killed"], monkeypatch)
    assert weights(made["killed"]) == weights(made["whole"])
    assert [entry["train"] for entry in resumed["history"]] == [entry["train"] for entry in result["history"]]
    assert scores(made["killed"]) == scores(made["whole"])


def test_a_checkpoint_is_of_its_files(tmp_path: Path) -> None:
    j = replace(job(tmp_path, rows=90, files=12, options={"epochs": 4}), shard=True)
    rank.run_alone(replace(j, stop_epoch=2))
    data = feed.read(j.files, j.layout, "pyarrow")
    (tmp_path / "other").mkdir()
    other = replace(j, files=write(tmp_path / "other", data.x, data.target[:, 0], data.folds, 13, 16))
    began: list[int] = []
    fit = Group.fit

    def seen(self: Group) -> list[dict[str, Any]]:
        began.append(self.progress.epoch)
        return fit(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Group, "fit", seen)
        rank.run_alone(replace(j, stop_epoch=3))
        rank.run_alone(replace(other, staging=str(tmp_path / "s")))
    assert began == [2, 0]


def test_the_same_is_scaled_learnt_and_scored_as_without_shards(tmp_path: Path) -> None:
    """But for the order of rows: before the first step all is the same."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    options = {"epochs": 1, "learning_rate": 1e-12, "warmup_epochs": 0.0, "weight_decay": 0.0}
    plain, sharded = (job(tmp_path / name, folds=3, files=20, options=options) for name in "ab")
    rank.run_alone(plain)
    rank.run_alone(replace(sharded, shard=True))
    one, two = load(weights(plain)), load(weights(sharded))
    assert one.keys() == two.keys()
    for name, value in one.items():
        np.testing.assert_allclose(two[name], value, rtol=1e-5, atol=1e-6)
    mine, theirs = scores(sharded), scores(plain)
    assert mine.keys() == theirs.keys()
    np.testing.assert_allclose([mine[key] for key in theirs], list(theirs.values()), rtol=1e-6)


def test_mixed_rows_are_of_the_same_rank(tmp_path: Path) -> None:
    from genodl_spark.learning import shards

    j = replace(job(tmp_path, rows=90, files=12, options={"mixup": 0.7}), shard=True)
    data = shards.read(j.files, j.layout, j.seed, "pyarrow")

    class Second(rank.Alone):
        def __init__(self) -> None:
            super().__init__()
            self.rank, self.size = 1, 3

        def sum(self, values: torch.Tensor, name: str) -> torch.Tensor:
            return values

    group = Group(rank.Rank(j, Second(), torch.device("cpu"), data))
    for _, whole, (piece,) in group.batches(1, 0):
        assert len(piece.rows) <= len(whole) // 3 + 4
        assert data.x.held[piece.rows].all()
        assert piece.partners is not None and sorted(piece.partners) == sorted(piece.rows)
    data.x.close()


def test_fewer_files_than_ranks_are_refused(tmp_path: Path) -> None:
    j = replace(job(tmp_path), shard=True)
    with pytest.raises(InputError, match=r"feed.shard: found 2 training files for 3 ranks to share; expected one"):
        launch.launch(None, replace(j, options=Train(**{**OPTIONS, "launcher": "process"})), 3)  # type: ignore[arg-type]
