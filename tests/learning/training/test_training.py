"""The training loop without Spark: what members learn from, and that ranks change nothing."""

from __future__ import annotations

import contextlib
import functools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from genodl_spark.core import storage
from genodl_spark.core.errors import InputError
from genodl_spark.learning import feed, heads, models
from genodl_spark.learning.model_files import Card
from genodl_spark.learning.predictor import Predictor
from genodl_spark.learning.settings import Train
from genodl_spark.learning.training import plan, rank
from genodl_spark.learning.training.group import Group
from genodl_spark.learning.training.ranks import Alone, Ranks
from tests.cluster.harness import ROOT
from tests.learning.test_feed import write

OPTIONS = {**Train().model_dump(), "ensemble": 2, "epochs": 3, "min_steps": 0, "batch": 20, "dtype": "float64"}


def job(
    folder: Path,
    *,
    classes: int = 3,
    folds: int = 0,
    features: int = 9,
    rows: int = 61,
    files: int = 2,
    options: dict[str, Any] | None = None,
) -> plan.Job:
    """A dataset whose first features tell the class; float32 with missing values."""
    generator = np.random.default_rng(3)
    target = generator.integers(0, max(classes, 2), rows).astype(float)
    x = (generator.normal(size=(rows, features)) + target[:, None] * (np.arange(features) < 3)).astype(np.float32)
    x[generator.random(x.shape) < 0.05] = np.nan
    codes = np.stack([generator.permutation(rows) % (folds or 3) for _ in range(2 if folds else 1)], 1).astype(np.int8)
    if classes == 0:
        target = 100 + 10 * target + generator.normal(size=rows)
    paths = write(folder, x, target, codes, files, 16)
    layout = feed.Layout(rows, features, "float32", codes.shape[1])
    model = {"kind": "mlp", "hidden": [8], "dropout": 0.2, "input_dropout": 0.1}
    staging = str(folder / "staging")
    checkpoint = f"{staging}/checkpoint"
    chosen = Train().model_copy(update={**OPTIONS, **(options or {})})
    return plan.Job(
        paths,
        layout,
        "pyarrow",
        1 << 30,
        heads.one("label", [f"c{i}" for i in range(classes)]),
        folds,
        "none",
        1.0,
        0,
        model,
        chosen,
        5,
        staging,
        checkpoint,
    )


def scores(j: plan.Job) -> dict[tuple[int, int], list[float]]:
    import pyarrow.parquet as pq

    folders = {path.rsplit("/", 1)[0] for path in storage.files_under(storage.join(j.staging, "held_out"))}
    # of one group of training sets
    newest = max(folders, key=lambda folder: Path(storage.local_path(folder)).stat().st_mtime_ns)
    parts = [pq.read_table(storage.local_path(path)) for path in storage.files_under(newest)]
    return {(r["repeat"], r["row_id"]): r["scores"] for part in parts for r in part.to_pylist()}


@pytest.mark.parametrize("classes", [3, 0])
def test_every_fold_is_scored_by_networks_that_never_saw_it(tmp_path: Path, classes: int) -> None:
    j = job(tmp_path, classes=classes, folds=3, options={"epochs": 40, "learning_rate": 0.02})
    result = rank.run_alone(j)
    found = scores(j)
    assert set(found) == {(r, i) for r in range(2) for i in range(61)}
    assert len(result["history"]) == 40
    data = feed.read(j.files, j.layout, "pyarrow")
    learns = plan.learns(data.folds, plan.training_sets(2, 3), 3)
    held = plan.held_out(data.folds, plan.training_sets(2, 3), 3)
    assert not (learns & held).any()
    assert (held[:3].sum(0) == 1).all() and learns[-1].all() and not held[-1].any()
    predicted = np.array([found[0, i] for i in range(61)])
    if classes:
        np.testing.assert_allclose(predicted.sum(1), 1, atol=1e-12)
        assert (predicted.argmax(1) == data.target[:, 0]).mean() > 0.6
    else:
        assert np.corrcoef(predicted[:, 0], data.target[:, 0])[0, 1] > 0.6


def test_a_label_of_a_held_out_row_changes_no_score_of_its_fold(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    j = job(tmp_path / "a", folds=3)
    data = feed.read(j.files, j.layout, "pyarrow")
    rank.run_alone(j)
    fold = data.folds[0, 0]
    changed = data.target[:, 0].copy()
    mine = data.folds[:, 0] == fold
    changed[mine] = (changed[mine] + 1) % 3
    other = plan.Job(
        **{
            **j.__dict__,
            "files": write(tmp_path / "b", data.x, changed, data.folds, 2, 16),
            "staging": str(tmp_path / "b" / "staging"),
            "checkpoint": "",
        }
    )
    rank.run_alone(other)
    before, after = scores(j), scores(other)
    same = [before[0, i] == after[0, i] for i in range(61)]
    assert [s for s, m in zip(same, mine, strict=True) if m] == [True] * int(mine.sum())
    assert not any(s for s, m in zip(same, mine, strict=True) if not m)


def test_planted_noise_scores_chance(tmp_path: Path) -> None:
    """Labels that nothing tells: selection of the best of 400 features inside each training set must
    not lift the held-out rows."""
    generator = np.random.default_rng(11)
    x, target = generator.normal(size=(80, 400)).astype(np.float32), np.arange(80) % 2 * 1.0
    folds = np.stack([generator.permutation(80) % 4 for _ in range(3)], 1).astype(np.int8)
    files = write(tmp_path, x, target, folds, 1, 80)
    model = {"kind": "mlp", "hidden": [16]}
    options = Train(**{**OPTIONS, "epochs": 20, "learning_rate": 0.01})
    noise = plan.Job(
        files,
        feed.Layout(80, 400, "float32", 3),
        "pyarrow",
        1 << 30,
        heads.one("label", ["a", "b"]),
        4,
        "none",
        1.0,
        20,
        model,
        options,
        1,
        str(tmp_path / "s"),
    )
    result = rank.run_alone(noise)
    assert np.mean(result["history"][-1]["train"]) < 0.1  # it learnt its training rows by heart
    correct = [np.argmax(s) == target[row] for (_, row), s in scores(noise).items()]
    assert len(correct) == 240
    assert 0.35 < np.mean(correct) < 0.65


def test_shuffled_labels_teach_nothing(tmp_path: Path) -> None:
    generator = np.random.default_rng(13)
    target = np.arange(90) % 2 * 1.0
    x = (generator.normal(size=(90, 12)) + 2 * target[:, None]).astype(np.float32)
    folds = np.stack([generator.permutation(90) % 3 for _ in range(2)], 1).astype(np.int8)
    files = write(tmp_path, x, target, folds, 1, 90)
    model, options = {"kind": "mlp", "hidden": [8]}, Train(**{**OPTIONS, "epochs": 15, "learning_rate": 0.01})
    real = plan.Job(
        files,
        feed.Layout(90, 12, "float32", 2),
        "pyarrow",
        1 << 30,
        heads.one("label", ["a", "b"]),
        3,
        "none",
        1.0,
        0,
        model,
        options,
        1,
        str(tmp_path / "r"),
    )
    found = []
    for one in (real, replace(real, null=True, staging=str(tmp_path / "n"))):
        rank.run_alone(one)
        found.append(np.mean([np.argmax(s) == target[row] for (_, row), s in scores(one).items()]))
    assert found[0] > 0.95 and 0.25 < found[1] < 0.75

    # Each role is dealt by itself, and test rows keep their labels.
    codes = np.repeat([0, 1, 2, -1], [30, 30, 20, 10]).astype(np.int8)[:, None]
    dealt = plan.shuffled_labels(np.arange(90.0)[:, None], [slice(0, 1)], codes, 0, 1)[:, 0]
    assert sorted(dealt[:30]) == list(range(30)) and sorted(dealt[30:60]) == list(range(30, 60))
    assert (dealt[:30] != np.arange(30)).any() and (dealt[60:] == np.arange(60, 90)).all()


@pytest.mark.parametrize(("features", "rows", "classes"), [(9, 61, 3), (90, 40, 3), (9, 61, 0)])
def test_the_registered_model_is_the_network_that_was_trained(
    tmp_path: Path, features: int, rows: int, classes: int
) -> None:
    """Its scores of the test rows, through the file and the batch kernel, are those of training;
    with and without projection."""
    j = job(tmp_path, features=features, rows=rows, classes=classes)
    rank.run_alone(j)
    card = Card(
        1,
        "id",
        "t",
        "label",
        ["a", "b", "c"][:classes],
        [f"f{i}" for i in range(features)],
        "float32",
        "none",
        j.model,
        2,
        1.0,
        16,
    )
    predictor = Predictor(card, storage.read_bytes(storage.join(j.staging, "model.safetensors")), "x")
    data = feed.read(j.files, j.layout, "pyarrow")
    found = scores(j)
    rows_held = sorted(i for _, i in found)
    assert rows_held == np.flatnonzero(data.folds[:, 0] > 0).tolist()
    expected = np.array([found[0, i] for i in rows_held])
    if classes:
        np.testing.assert_allclose(predictor(data.x[rows_held]), expected, atol=1e-6)
    else:
        np.testing.assert_allclose(predictor(data.x[rows_held]), expected[:, 0], rtol=1e-5)
    one_by_one = np.concatenate([predictor(data.x[i : i + 1]) for i in rows_held])
    np.testing.assert_array_equal(predictor(data.x[rows_held]), one_by_one)


def test_members_do_not_depend_on_their_neighbours() -> None:
    x = torch.randn(1, 5, 4)
    together = models.build({"kind": "mlp", "hidden": [6]}, [7, 8], (4,), 2)
    alone = models.build({"kind": "mlp", "hidden": [6]}, [8], (4,), 2)
    torch.testing.assert_close(together(x.expand(2, -1, -1))[1:], alone(x), rtol=0, atol=1e-6)


def test_a_member_is_a_plain_network() -> None:
    network = models.build({"kind": "mlp", "hidden": [6]}, [1, 2], (4,), 3)
    x = torch.randn(2, 5, 4)
    first, second = network.layers
    for m in range(2):
        hidden = functional.gelu(functional.linear(x[m], first.weight[m].T, first.bias[m, 0]))
        torch.testing.assert_close(
            network(x)[m], functional.linear(hidden, second.weight[m].T, second.bias[m, 0]), rtol=1e-5, atol=1e-6
        )


def test_dropout_is_keyed_by_row_not_by_place() -> None:
    x, rows, key = (
        torch.ones(3, 40, 50),
        torch.arange(40),
        torch.tensor([models.mix(1, 2), models.mix(2, 2), models.mix(1, 3)]),
    )
    dropped = models.keyed_dropout(x, 0.25, rows, key)
    order = torch.randperm(40)
    torch.testing.assert_close(models.keyed_dropout(x, 0.25, rows[order], key), dropped[:, order])
    assert (dropped == 0).double().mean().item() == pytest.approx(0.25, abs=0.02)
    assert dropped.max().item() == pytest.approx(1 / 0.75)
    agree = [((dropped[a] == 0) == (dropped[b] == 0)).double().mean().item() for a, b in ((0, 1), (0, 2), (1, 2))]
    assert agree == pytest.approx([0.625] * 3, abs=0.04)  # what independent masks agree in


def gradients(j: plan.Job, ranks: Alone | Ranks) -> list[np.ndarray]:
    """Summed gradients of the first batch, on whatever number of ranks."""
    data = feed.read(j.files, j.layout, j.backend)
    group = Group(rank.Rank(j, ranks, torch.device("cpu"), data))
    _, whole, pieces = next(group.batches(0, 0))
    group.backward(whole, pieces, 0)
    return [p.grad.numpy().copy() for p in group.parameters]


def both(jobs: list[plan.Job], alone: bool = False) -> list[tuple[list[np.ndarray], dict[str, Any], dict[str, Any]]]:
    """First gradients, a whole run, and the same run stopped after three epochs and gone
    on with from its checkpoint."""
    run, found = rank.run_alone if alone else rank.run_rank, []
    for j in jobs:
        whole = gradients(j, Alone() if alone else Ranks()), run(replace(j, checkpoint=""))
        run(replace(j, stop_epoch=3))
        found.append((*whole, run(j)))
    return found


def test_ranks_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gradients to 1e-10 (float64) or 1e-5 of the largest (float32), the first epochs' loss to 1e-4,
    the last validation loss to 1%."""
    import horovod.runner

    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    jobs = [job(tmp_path, options={"dtype": dtype, "epochs": 6}) for dtype in ("float64", "float32")]
    results = {}
    for ranks in (1, 2, 3):
        mine = [replace(j, checkpoint=str(tmp_path / f"{ranks}-{number}")) for number, j in enumerate(jobs)]
        if ranks == 1:
            results[ranks] = both(mine, alone=True)
        else:
            results[ranks] = horovod.runner.run(functools.partial(both, mine), num_proc=ranks, use_gloo=True)[0]
        for _, whole, resumed in results[ranks]:
            assert [entry["train"] for entry in resumed["history"]] == [entry["train"] for entry in whole["history"]]
            assert [entry["validation"] for entry in resumed["history"]] == [
                entry["validation"] for entry in whole["history"]
            ]
    pairs = [pair for ranks in (2, 3) for pair in zip(("float64", "float32"), results[1], results[ranks], strict=True)]
    for dtype, alone, shared in pairs:
        for one, two in zip(alone[0], shared[0], strict=True):
            tolerance = 1e-10 if dtype == "float64" else 1e-5 * float(np.abs(one).max())
            assert np.abs(one - two).max() <= tolerance
            assert np.abs(one).max() > 1e-4
        histories = [alone[1]["history"], shared[1]["history"]]
        for a, b in list(zip(*histories, strict=True))[:3]:
            np.testing.assert_allclose(a["train"], b["train"], rtol=1e-4)
        np.testing.assert_allclose(histories[0][-1]["validation"], histories[1][-1]["validation"], rtol=0.01)


ALL = {
    "ema": 0.9,
    "mixup": 0.4,
    "accumulate": 2,
    "patience": 3,
    "schedule": "plateau",
    "plateau_patience": 0,
    "scale_from": 10,
}


def weights(j: plan.Job) -> bytes:
    return storage.read_bytes(storage.join(j.staging, "model.safetensors"))


class Killed(BaseException):
    pass


def killed_and_resumed(trained: plan.Job, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What a training says that dies at every second step, and goes on from its checkpoint each time."""
    update, steps = Group.update, [0]

    def dies(self: Group, step: int) -> None:
        steps[0] += 1
        if steps[0] % 2 == 0:
            raise Killed
        update(self, step)

    monkeypatch.setattr(Group, "update", dies)
    for _ in range(100):
        with contextlib.suppress(Killed):
            resumed = rank.run_alone(trained)
            break
    assert steps[0] > 6
    return resumed


@pytest.mark.parametrize("options", [{}, ALL, {"amp": "bf16", "ema": 0.5}])
def test_what_was_killed_goes_on_as_if_it_had_not_been(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    """Bit-identical weights and history, wherever a step was the last; and the same seed gives the same bits at all."""
    made = {}
    for name in ("whole", "again", "killed"):
        (tmp_path / name).mkdir()
        made[name] = job(
            tmp_path / name, options={"dtype": "float32", "epochs": 6, "checkpoint_seconds": 1e-9, **options}
        )
    result = rank.run_alone(made["whole"])
    assert all(entry["rows"] == 21 for entry in result["history"])  # a third of 61 rows trains
    rank.run_alone(replace(made["again"], checkpoint=""))
    assert weights(made["again"]) == weights(made["whole"])
    resumed = killed_and_resumed(made["killed"], monkeypatch)
    assert weights(made["killed"]) == weights(made["whole"])
    strip = lambda history: [{k: v for k, v in entry.items() if k != "sets"} for entry in history]  # noqa: E731 - tuples are lists in JSON
    assert strip(resumed["history"]) == strip(result["history"])
    assert scores(made["killed"]) == scores(made["whole"])


def test_rungs_of_a_schedule_are_the_whole_of_it(tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    (tmp_path / "rungs").mkdir()
    whole, rungs = (job(tmp_path / name, folds=3, options={"epochs": 6}) for name in ("whole", "rungs"))
    expected = rank.run_alone(replace(whole, validate_folds=True))["history"]
    for stop in (1, 3, 6):
        found = rank.run_alone(replace(rungs, stop_epoch=stop, validate_folds=True))["history"]
        assert [entry["train"] for entry in found] == [entry["train"] for entry in expected[:stop]]
        np.testing.assert_array_equal([e["validation"] for e in found], [e["validation"] for e in expected[:stop]])
    # six folds of two repeats and the registered set, which nothing validates
    held = np.array(found[-1]["validation"]).reshape(7, 2)
    assert np.isfinite(held[:6]).all() and np.isnan(held[6]).all()
    assert weights(rungs) == weights(whole)


def test_pieces_of_a_batch_add_up(tmp_path: Path) -> None:
    found = [gradients_alone(job(tmp_path, options={"accumulate": pieces})) for pieces in (1, 3)]
    for one, several in zip(*found, strict=True):
        assert np.abs(one - several).max() <= 1e-12


def gradients_alone(j: plan.Job) -> list[np.ndarray]:
    group = Group(rank.Rank(j, Alone(), torch.device("cpu"), feed.read(j.files, j.layout, j.backend)))
    _, whole, pieces = next(group.batches(0, 0))
    group.backward(whole, pieces, 0)
    return [p.grad.numpy().copy() for p in group.parameters]


def test_mixed_examples_are_those_of_the_formula(tmp_path: Path) -> None:
    """And no member meets a row that is held out from it."""
    j = job(tmp_path, folds=3, options={"mixup": 0.7, "ensemble": 1})
    j = replace(j, model={"kind": "mlp", "hidden": [8]})
    group = Group(rank.Rank(j, Alone(), torch.device("cpu"), feed.read(j.files, j.layout, j.backend)))
    _, whole, (piece,) = next(group.batches(0, 0))
    assert piece.partners is not None and piece.partner_x is not None and 0.5 < piece.share < 1
    assert sorted(piece.partners) == sorted(whole)
    z, other = group.inputs(piece.x), group.inputs(piece.partner_x)
    learnt = torch.from_numpy(group.learns[:, piece.rows] & True)
    mixed = torch.from_numpy(group.learns[:, piece.partners])
    share = torch.where(mixed, torch.tensor(piece.share, dtype=torch.float64), 1.0)
    outputs = group.network(share[..., None] * z + (1 - share[..., None]) * other)
    target = torch.from_numpy(group.rank.data.target[:, 0].astype(int))
    loss = sum(
        weight * functional.cross_entropy(outputs.flatten(0, 1), target[rows].repeat(7), reduction="none").view(7, -1)
        for weight, rows in ((share, piece.rows), (1 - share, piece.partners))
    )
    measured = group.backward(whole, [piece], 0)
    np.testing.assert_allclose(measured[:-2].numpy(), (loss * learnt).sum(1).detach().numpy(), rtol=1e-12)
    assert not mixed.all() and float(measured[-1]) == len(whole)


def test_a_loss_that_is_not_finite_stops_at_its_step(tmp_path: Path) -> None:
    j = job(
        tmp_path,
        classes=0,
        options={"learning_rate": 1e200, "clip": 0.0, "epochs": 50, "warmup_epochs": 0.0, "batch": 7},
    )
    with pytest.raises(
        InputError, match=r"train.learning_rate: found a loss that is not finite in epoch \d+, step \d+; expected"
    ):
        rank.run_alone(j)
    told = plan.told(storage.read_bytes(storage.join(j.staging, plan.FAILURE)))
    assert isinstance(told, InputError) and str(told).startswith("train.learning_rate: found a loss")


def test_compiled_networks_learn_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled_with = torch.compile
    # the graph, without minutes of C++
    monkeypatch.setattr(torch, "compile", lambda network: compiled_with(network, backend="eager"))
    histories = []
    for name in ("off", "on"):
        (tmp_path / name).mkdir()
        histories.append(rank.run_alone(job(tmp_path / name, options={"compile": name, "dtype": "float32"}))["history"])
    for plain, compiled in zip(*histories, strict=True):
        np.testing.assert_allclose(compiled["train"], plain["train"], rtol=1e-4)
