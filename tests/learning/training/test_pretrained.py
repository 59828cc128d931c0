"""Trainings that hide bases, whatever the ranks; and trainings of which the networks start from such a model."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load

from genodl_spark.core import packing, storage
from genodl_spark.core.errors import Damaged, InputError
from genodl_spark.learning import feed, heads, model_files, pretrained
from genodl_spark.learning.model_files import FORMAT, Card, HeadCard, ModelFiles
from genodl_spark.learning.predictor import Predictor
from genodl_spark.learning.settings import Train
from genodl_spark.learning.training import group, plan, rank, ranks
from tests.learning.beside.test_linear import TWO, planted, scored, weights
from tests.learning.test_feed import write

BASES = [heads.Head("none", "bases")]
TRUNK = {"kind": "cnn", "channels": [6], "dilations": [1], "stem_kernel": 5}
HIDING = {**TRUNK, "masked": 0.2}
LENGTH, COUNT = 20, 90


def job(folder: Path, model: dict[str, Any], mine: list[heads.Head], folds: int = 0, **options: Any) -> plan.Job:
    folder.mkdir(exist_ok=True)
    x, y = planted(COUNT, LENGTH, 2, 6)
    codes = (np.random.default_rng(0).permutation(COUNT) % (folds or 3)).astype(np.int8)[:, None]
    labelled = mine == TWO
    files = write(folder, x, y, codes, 2, 30)
    for file in [] if labelled else map(storage.local_path, files):
        rows = pq.read_table(file).drop_columns("target")
        pq.write_table(rows.append_column(feed.TARGETS, packing.column(np.empty((len(rows), 0)))), file)
    layout = feed.Layout(COUNT, LENGTH, "int8", 1, targets=1 if labelled else 0)
    wanted = {"ensemble": 2, "epochs": 2, "min_steps": 0, "batch": 40} | options
    place = str(folder / "s")
    return plan.Job(
        files, layout, "pyarrow", 1 << 30, mine, folds, "onehot", 1.0, 0, model, Train(**wanted), 5, place, threads=1
    )


def stored(folder: Path, j: plan.Job, **changes: Any) -> ModelFiles:
    """What a training has left, as a registered model."""
    several = [HeadCard(head.label, head.kind, list(head.classes)) for head in j.heads]
    names = [f"p{i}" for i in range(LENGTH)]
    model, members = j.model, j.options.ensemble
    card = Card(FORMAT, "m0", "t", "none", [], names, "int8", "onehot", model, members, 1.0, 16, heads=several)
    return model_files.publish(str(folder / "model"), replace(card, **changes), weights(j), {})


def begun(j: plan.Job) -> group.Group:
    data = feed.read(j.files, j.layout, j.backend, j.resident_bytes)
    return group.Group(rank.Rank(j, ranks.Alone(), torch.device("cpu"), data))


def test_networks_start_from_the_trunk_that_was_stored_and_nothing_else(tmp_path: Path) -> None:
    hiding = job(tmp_path / "a", HIDING, BASES)
    rank.run_alone(hiding)
    files, theirs = stored(tmp_path, hiding), load(weights(hiding))
    for folds in (0, 2):
        plain = job(tmp_path / f"b{folds}", {**TRUNK, "positional": 2}, TWO, folds, ensemble=3, ema=0.9, patience=2)
        made, before = begun(replace(plain, pretrained=files)), begun(plain)
        own, start = made.network.state_dict(), before.network.state_dict()
        sets = 1 if not folds else 3
        taken = [name for name in own if f"network.{name}" in theirs]
        assert {name.split(".")[0] for name in taken} == {"stem", "stages", "norm"}
        for name, value in own.items():
            assert len(value) == 3 * sets
            if name in taken:
                wanted = torch.cat([theirs[f"network.{name}"][[0, 1, 0]]] * sets)
                assert torch.equal(value, wanted), name
                assert not torch.equal(value, start[name]) or "bias" in name
            else:
                assert torch.equal(value, start[name]), name
        # What keeps weights beside the network has these.
        assert made.average is not None
        kept = made.kept
        assert all(torch.equal(kept[name], own[name]) for name in own)
    found = rank.run_alone(replace(job(tmp_path / "c", TRUNK, TWO), pretrained=files))
    assert np.isfinite(found["history"][-1]["train"]).all()
    # A training that is gone on with has what it had learnt, not the start.
    whole = replace(job(tmp_path / "d", TRUNK, TWO), pretrained=files)
    rank.run_alone(whole)
    parts = replace(whole, staging=str(tmp_path / "e"), checkpoint=str(tmp_path / "e" / "c"))
    rank.run_alone(replace(parts, stop_epoch=1))
    rank.run_alone(parts)
    assert weights(parts) == weights(whole)


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"channels": [8]}, "channels [8] for [6]; expected --set model.channels=[6]"),
        (
            {"stem_kernel": 7, "norm": "batch"},
            "stem_kernel 7 for 5, norm batch for layer; expected --set model.stem_kernel=5 --set model.norm=layer",
        ),
        ({"channels": [6, 8]}, "channels [6, 8] for [6], pool"),
        ({"reverse_complement": "equivariant"}, "reverse_complement equivariant for none"),
        ({"kind": "rnn"}, "found rnn, which cannot start from another network; expected cnn"),
    ],
)
def test_networks_with_other_options_are_told_which(tmp_path: Path, options: dict[str, Any], found: str) -> None:
    hiding = job(tmp_path / "a", HIDING, BASES, epochs=1)
    rank.run_alone(hiding)
    files = stored(tmp_path, hiding)
    other = {**(TRUNK if "kind" not in options else {}), **options}
    other |= {"pool": 2} if other.get("channels") == [6, 8] else {}
    with pytest.raises(InputError) as caught:
        begun(replace(job(tmp_path / "b", other, TWO), pretrained=files))
    assert found in str(caught.value) and "\n" not in str(caught.value)


def test_what_is_no_such_model_is_refused(tmp_path: Path) -> None:
    labelled = job(tmp_path / "a", TRUNK, TWO, epochs=1)
    rank.run_alone(labelled)
    with pytest.raises(
        InputError, match="found model m0 of task t, which has learnt something else; expected one that"
    ):
        pretrained.network_of(stored(tmp_path, labelled))
    hiding = job(tmp_path / "b", HIDING, BASES, epochs=1)
    rank.run_alone(hiding)
    files = stored(tmp_path, hiding)
    place = storage.local_path(files.place(model_files.WEIGHTS))
    content = bytearray(Path(place).read_bytes())
    content[-3] ^= 1
    Path(place).write_bytes(bytes(content))
    with pytest.raises(Damaged, match="the file has changed since it was registered"):
        pretrained.network_of(files)


def run_both(jobs: list[plan.Job]) -> None:
    for j in jobs:
        rank.run_rank(j)


def test_neither_ranks_nor_pieces_of_a_batch_change_what_is_hidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import horovod.runner

    from tests.cluster.harness import ROOT

    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    turning = {**HIDING, "reverse_complement": "augment"}
    whole = job(tmp_path / "a", turning, BASES)
    alone = rank.run_alone(whole)
    pieces = replace(whole, staging=str(tmp_path / "b"), options=whole.options.model_copy(update={"accumulate": 3}))
    found = rank.run_alone(pieces)
    np.testing.assert_allclose(found["history"][-1]["train"], alone["history"][-1]["train"], rtol=1e-5)
    shared = replace(whole, staging=str(tmp_path / "c"))
    horovod.runner.run(functools.partial(run_both, [shared]), num_proc=2, use_gloo=True)
    ours = scored(whole)
    assert sorted(ours) == np.flatnonzero(feed.read(whole.files, whole.layout).folds[:, 0] > 0).tolist()
    for other in (pieces, shared):
        theirs = scored(other)
        assert set(theirs) == set(ours)
        np.testing.assert_allclose(
            [theirs[row]["scores"] for row in ours], [ours[row]["scores"] for row in ours], atol=1e-4
        )
    # What is stored says of the rows what training said.
    files = stored(tmp_path, whole)
    predictor = Predictor(files.card(), files.weights(), files.uri, threads=1)
    data = feed.read(whole.files, whole.layout)
    rows = sorted(ours)
    said = predictor.scores(data.x[rows])
    np.testing.assert_allclose(said.raw, [ours[row]["scores"] for row in rows], atol=1e-6)
    assert said.raw.shape == (len(rows), 1) and np.isfinite(said.uncertainty).all()
    passes = Predictor(replace(files.card(), members=1), one_of(files.weights()), files.uri, passes=3, threads=1)
    assert np.isfinite(passes.scores(data.x[rows]).raw).all()


def one_of(content: bytes) -> bytes:
    """The weights of the first member alone."""
    from safetensors.torch import save

    return save({name: v[:1].clone() if name.startswith("network.") else v for name, v in load(content).items()})


CODING = {"kind": "autoencoder", "hidden": [5], "latent": 3}


def of_values(folder: Path, names: list[str], mine: list[heads.Head], **options: Any) -> plan.Job:
    """30 rows of measured values of some features."""
    folder.mkdir(exist_ok=True)
    generator = np.random.default_rng(len(names))
    x = generator.normal(size=(30, len(names))).astype(np.float32)
    columns = {"row_id": np.arange(30), "x": packing.column(x), "folds": packing.column(np.zeros((30, 1), np.int8))}
    if mine[0].numbers:
        columns["target"] = np.arange(30.0) % 2
    else:
        columns[feed.TARGETS] = packing.column(np.empty((30, 0)))
    pq.write_table(pa.table(columns), folder / "rows.parquet")
    layout = feed.Layout(30, len(names), "float32", 1, targets=mine[0].numbers)
    wanted = Train(**{"ensemble": 2, "epochs": 1, "min_steps": 0, "batch": 40} | options)
    rest = (0, "none", 1.0, 0, CODING, wanted, 5, str(folder / "s"))
    return plan.Job([f"file://{folder}/rows.parquet"], layout, "pyarrow", 1 << 30, mine, *rest, threads=1)


def test_weights_of_features_go_to_those_of_the_same_name(tmp_path: Path) -> None:
    theirs = [f"g{i}" for i in range(7)]
    ours = ["g6", "new", "g0", "covariate:age", "g3"]
    coding = of_values(tmp_path / "a", theirs, [heads.Head("none", "none")])
    rank.run_alone(coding)
    files = stored(tmp_path, coding, features=theirs, dtype="float32", transform="none")
    with pytest.raises(InputError, match="found that model m0 knows 60% of the 5 features; expected 70% at least"):
        pretrained.places(ours, files, 0.7)
    matched = pretrained.places(ours, files, 0.6)
    assert matched.tolist() == [6, -1, 0, -1, 3]
    plain = of_values(tmp_path / "b", ours, TWO, ensemble=3)
    made, before = begun(replace(plain, pretrained=files, matched=matched)), begun(plain)
    own, start, of = made.network.state_dict(), before.network.state_dict(), load(weights(coding))
    for name, value in own.items():
        wanted = start[name].clone()
        if not name.startswith("head."):
            given = of[f"network.{name}"][[0, 1, 0]]
            axis = {"encoder.layers.0.weight": 1, "decoder.layers.1.weight": 2, "decoder.layers.1.bias": 2}.get(name)
            if axis is None:
                wanted = given
            else:
                for place, number in enumerate(matched.tolist()):
                    if number >= 0:
                        wanted.select(axis, place).copy_(given.select(axis, number))
        assert torch.equal(value, wanted), name
    assert not torch.equal(own["encoder.layers.0.weight"], start["encoder.layers.0.weight"])
    x = torch.from_numpy(np.random.default_rng(1).normal(size=(1, 4, 5)).astype(np.float32))
    x[..., [1, 3]] = 0  # of what both know, the code is that of the model
    whole = torch.zeros(1, 4, 7)
    whole[..., [6, 0, 3]] = x[..., [0, 2, 4]]
    with torch.no_grad():
        theirs_code = pretrained.network_of(files).encode(whole)
        torch.testing.assert_close(made.network.encode(x), theirs_code[[0, 1, 0]])
    found = rank.run_alone(replace(plain, pretrained=files, matched=matched))
    assert np.isfinite(found["history"][-1]["train"]).all()
