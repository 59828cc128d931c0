"""The linear model beside a network over sequences: its features, its fit, and what becomes of both."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load, save
from sklearn.linear_model import LogisticRegression, Ridge

from genodl_spark.core import storage
from genodl_spark.core.errors import InputError
from genodl_spark.learning import encodings, feed, heads, models, penalties, string_kernels
from genodl_spark.learning.beside import blend, linear, linear_fits
from genodl_spark.learning.model_files import FORMAT, Card, HeadCard, mixtures
from genodl_spark.learning.predictor import Predictor
from genodl_spark.learning.settings import OF_SEQUENCES, Train
from genodl_spark.learning.training import plan, rank
from tests.learning.explain.test_methods import explained, sequences, shuffles_of
from tests.learning.test_feed import write

CLASSES = [heads.Head("label", "classes", ("a", "b", "c"))]
TWO = [heads.Head("label", "classes", ("a", "b"))]
VALUE = [heads.Head("value", "value")]
SHARES = [share for (share,) in mixtures(1)]


def one_hot(codes: np.ndarray) -> torch.Tensor:
    found: torch.Tensor = encodings.encoding("onehot").tensor(torch.from_numpy(codes), torch.float32)
    return found


def rows_of(count: int, length: int, seed: int = 0, unknown: bool = True) -> np.ndarray:
    return np.random.default_rng(seed).integers(-1 if unknown else 0, 4, (count, length)).astype(np.int8)


def planted(count: int, length: int, kinds: int, where: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Random bases with a word of each kind, at one place or at any."""
    generator = np.random.default_rng(5)
    x, y = rows_of(count, length, 4, False), np.arange(count) % kinds
    words = np.array([[0, 1, 1, 0, 2], [3, 3, 1, 0, 0], [2, 0, 3, 3, 2]], np.int8)
    starts = np.full(count, where) if where is not None else generator.integers(0, length - 5, count)
    x[np.arange(count)[:, None], starts[:, None] + np.arange(5)] = words[y]
    return x, y.astype(float)


@pytest.mark.parametrize("length", [1, 2, 5, 6, 40])
@pytest.mark.parametrize("merged", [False, True])
def test_features_are_those_of_the_string_kernels(length: int, merged: bool) -> None:
    x = rows_of(30, length)
    wanted = string_kernels.kmer_counts(x, merged).log1p().toarray()
    np.testing.assert_allclose(linear.features("kmers", one_hot(x), merged).numpy(), wanted, atol=3e-7)
    positions = linear.features("positions", one_hot(x), merged).numpy()
    np.testing.assert_array_equal(positions, string_kernels.weighted_degree(x, 3).toarray() > 0)
    for block, found in (("kmers", wanted), ("positions", positions)):
        assert found.shape[1] == linear.width(block, length)


def test_of_long_sequences_the_middle_has_positions(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (linear, string_kernels):
        monkeypatch.setattr(module, "POSITIONS", 9)
    x = rows_of(8, 14)
    found = linear.features("positions", one_hot(x), False).numpy()
    np.testing.assert_array_equal(found, string_kernels.weighted_degree(x, 3).toarray() > 0)
    assert found.shape[1] == linear.width("positions", 14) == 4 * 9 + 16 * 8 + 64 * 7


def test_it_is_the_logistic_regression_of_its_features() -> None:
    x, y = planted(300, 24, 3, None)
    tensors = linear_fits.fit(x, y[:, None], CLASSES, ["kmers"], False, 1)
    assert set(tensors) == {"bias", "kmers"} and tensors["kmers"].dtype == np.float32
    z = string_kernels.kmer_counts(x).log1p().toarray()
    z /= np.sqrt((z**2).sum() / len(z))
    penalty = penalties.of_logistic(z, y.astype(int), 1)
    wanted = LogisticRegression(C=penalty, max_iter=5000, tol=1e-8).fit(z, y).predict_proba(z)
    found = linear.part(tensors, False)(one_hot(x)[None])[0].softmax(1).numpy()
    np.testing.assert_allclose(found, wanted, atol=2e-3)
    assert (found.argmax(1) == y).mean() > 0.9


def test_two_classes_and_values(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = planted(200, 20, 2, 7)
    tensors = linear_fits.fit(x, y[:, None], TWO, ["positions"], False, 1)
    found = linear.part(tensors, False)(one_hot(x)[None])[0]
    torch.testing.assert_close(found[:, 0], -found[:, 1], atol=1e-5, rtol=0)
    assert ((found[:, 1] > 0).numpy() == (y > 0)).mean() > 0.95
    values = 3 + 10 * y + np.random.default_rng(1).normal(size=200)
    tensors = linear_fits.fit(x, values[:, None], VALUE, ["positions"], False, 1)
    z = string_kernels.weighted_degree(x, 3).toarray()
    z /= np.sqrt((z**2).sum() / len(z))
    standard = (values - values.mean()) / values.std()
    wanted = Ridge(penalties.of_ridge(string_kernels.sparse.csr_array(z), standard, 1)).fit(z, standard).predict(z)
    found = linear.part(tensors, False)(one_hot(x)[None])[0, :, 0]
    np.testing.assert_allclose(found.numpy(), wanted, atol=1e-4)


@pytest.mark.parametrize(("where", "chosen"), [(9, {"positions"}), (None, {"kmers"})])
def test_what_stands_at_one_place_is_told_by_positions_and_words_by_k_mers(where: int | None, chosen: set[str]) -> None:
    x, y = planted(400, 30, 2, where)
    found = linear_fits.fit(x, y[:, None], TWO, ["kmers", "positions"], False, 0)
    assert set(found) - {"bias"} == chosen
    both = linear_fits.fit(x, y[:, None], TWO, ["both"], False, 0)
    assert set(both) == {"bias", "kmers", "positions"}
    # either strand: positions tell nothing
    assert set(linear_fits.fit(x, y[:, None], TWO, ["positions", "both"], True, 0)) == {"bias", "kmers"}


def test_each_head_learns_from_the_rows_that_have_a_label_of_it() -> None:
    x, y = planted(240, 24, 2, None)
    other = np.where(np.arange(240) < 60, np.nan, np.random.default_rng(2).normal(size=240) + 3 * y)
    lacking = np.full(240, 1.0)
    three = [*TWO, heads.Head("size", "value"), heads.Head("rare", "classes", ("n", "y"))]
    found = linear_fits.fit(x, np.stack([y, other, lacking], 1), three, ["kmers"], False, 3)
    alone = linear_fits.fit(x, y[:, None], TWO, ["kmers"], False, 3)
    np.testing.assert_array_equal(found["kmers"][:, :2], alone["kmers"])
    seen = linear_fits.fit(x[60:], other[60:, None], VALUE, ["kmers"], False, 3)
    np.testing.assert_allclose(found["kmers"][:, 2], seen["kmers"][:, 0], atol=1e-4)
    assert not found["kmers"][:, 3:].any() and not found["bias"][3:].any()  # of one class there is nothing to tell
    # A class that a fold lacks is the least likely one.
    part = linear.part(linear_fits.fit(x, y[:, None] + 1, CLASSES, ["kmers"], False, 3), False)
    assert part(one_hot(x)[None])[0].softmax(1)[:, 0].max() < 0.01


def test_a_sequence_and_its_reverse_complement_are_one_where_strands_are() -> None:
    x, y = planted(200, 24, 2, None)
    turned = np.where(x < 0, x, 3 - x)[:, ::-1].copy()
    merged = linear.part(linear_fits.fit(x, y[:, None], TWO, ["kmers"], True, 0), True)
    assert torch.equal(merged(one_hot(x)[None]), merged(one_hot(turned)[None]))
    single = linear.part(linear_fits.fit(x, y[:, None], TWO, ["kmers"], False, 0), False)
    assert (single(one_hot(x)[None]) - single(one_hot(turned)[None])).abs().max() > 0.1
    assert [linear.strands({"reverse_complement": way}) for way in ("none", "augment", "equivariant")] == [0, 1, 1]
    assert not linear.strands({"kind": "rnn"})


def test_a_blend_is_the_weighted_mean_of_outputs_and_has_gradients() -> None:
    x, y = planted(60, 24, 3, None)
    part = linear.part(linear_fits.fit(x, y[:, None], CLASSES, ["both"], False, 0), False)
    network = models.build({"kind": "cnn", "channels": [8], "dilations": [1], "hidden": [8]}, [1, 2], (4, 24), 3)
    inputs = one_hot(x)[None].requires_grad_()
    shares = torch.tensor([0.0, 0.3, 1.0])
    outputs = blend.Blended(network, [part], shares[None])(inputs)
    wanted = (1 - shares) * network(inputs) + shares * part(inputs)
    assert outputs.shape == (2, 60, 3)
    torch.testing.assert_close(outputs, wanted)
    (slope,) = torch.autograd.grad(part(inputs)[0, :, 0].sum(), inputs)
    changed = inputs.detach().clone()
    changed[0, :, 2, 5] += 1e-2
    step = (part(changed) - part(inputs))[0, :, 0] / 1e-2
    torch.testing.assert_close(step, slope[0, :, 2, 5], atol=2e-2, rtol=2e-2)
    assert slope.abs().max() > 0.05


MODEL = {"kind": "cnn", "channels": [8], "dilations": [1], "stem_kernel": 5, "hidden": [8], "dropout": 0.2}


def job(folder: Path, folds: int = 0, value: bool = False, **options: Any) -> plan.Job:
    folder.mkdir(exist_ok=True)
    x, y = planted(120, 20, 2, 6)
    codes = (np.random.default_rng(0).permutation(120) % (folds or 3)).astype(np.int8)[:, None]
    target = 5 + 2 * y if value else y
    files = write(folder, x, target, codes, 2, 30)
    layout = feed.Layout(120, 20, "int8", 1)
    wanted = {"ensemble": 2, "epochs": 2, "min_steps": 0, "batch": 40, "blend": ["kmers", "positions"]} | options
    mine = VALUE if value else TWO
    return plan.Job(
        files,
        layout,
        "pyarrow",
        1 << 30,
        mine,
        folds,
        "onehot",
        1.0,
        0,
        MODEL,
        Train(**wanted),
        5,
        str(folder / "s"),
        threads=1,
    )


def scored(j: plan.Job) -> dict[int, dict[str, Any]]:
    import pyarrow.parquet as pq

    files = storage.files_under(storage.join(j.staging, "held_out"))
    return {row["row_id"]: row for file in files for row in pq.read_table(storage.local_path(file)).to_pylist()}


def card(j: plan.Job, share: float) -> Card:
    classes = list(j.heads[0].classes)
    names = [f"p{i}" for i in range(20)]
    return Card(FORMAT, "id", "t", "label", classes, names, "int8", "onehot", j.model, 2, 1.0, 16, linear=share)


def weights(j: plan.Job) -> bytes:
    return storage.read_bytes(storage.join(j.staging, "model.safetensors"))


@pytest.mark.parametrize("value", [False, True])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_what_is_stored_blends_as_training_did(tmp_path: Path, value: bool, share: float) -> None:
    j = job(tmp_path, value=value)
    rank.run_alone(j)
    data, found = feed.read(j.files, j.layout, "pyarrow"), scored(j)
    rows = sorted(found)
    assert rows == np.flatnonzero(data.folds[:, 0] > 0).tolist()
    blends = np.array([found[row]["blends"] for row in rows])
    assert blends.shape == (len(rows), len(SHARES), 1 if value else 2)
    np.testing.assert_array_equal(blends[:, 0], [found[row]["scores"] for row in rows])
    predictor = Predictor(card(j, share), weights(j), "x", threads=1)
    expected = blends[:, SHARES.index(share)]
    np.testing.assert_allclose(predictor.scores(data.x[rows]).raw, expected, atol=1e-6, rtol=1e-6)
    learnt = np.flatnonzero(data.folds[:, 0] == 0)
    tensors = linear_fits.fit(data.x[learnt], data.target[learnt], j.heads, j.options.blend, False, 5)
    stored = {name.removeprefix("linear."): value for name, value in load(weights(j)).items() if "linear." in name}
    assert set(stored) == set(tensors)
    for name, wanted in tensors.items():
        np.testing.assert_array_equal(stored[name].numpy(), wanted)
    by_hand = linear.part(tensors, False)(one_hot(data.x[rows])[None])[0].double()
    standard = data.target[learnt].mean(), data.target[learnt].std()
    answer = by_hand * standard[1] + standard[0] if value else by_hand.softmax(1)
    np.testing.assert_allclose(blends[:, -1], answer.numpy(), atol=1e-6, rtol=1e-6)


def test_folds_know_nothing_of_the_rows_that_they_are_tested_on(tmp_path: Path) -> None:
    j = job(tmp_path, folds=3)
    rank.run_alone(j)
    data, found = feed.read(j.files, j.layout, "pyarrow"), scored(j)
    for fold in range(3):
        inside = data.folds[:, 0] != fold
        tensors = linear_fits.fit(data.x[inside], data.target[inside], TWO, j.options.blend, False, 5)
        rows = np.flatnonzero(~inside)
        wanted = linear.part(tensors, False)(one_hot(data.x[rows])[None])[0].softmax(1).numpy()
        np.testing.assert_allclose([found[row]["blends"][-1] for row in rows], wanted, atol=1e-6)


def run_both(jobs: list[plan.Job]) -> None:
    for j in jobs:
        rank.run_rank(j)


def test_neither_ranks_nor_an_end_on_the_way_change_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import functools

    import horovod.runner

    from tests.cluster.harness import ROOT

    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    whole = job(tmp_path / "a", folds=3, ema=0.9)
    rank.run_alone(whole)
    parts = replace(whole, staging=str(tmp_path / "b"), checkpoint=str(tmp_path / "b" / "c"))
    rank.run_alone(replace(parts, stop_epoch=1))
    rank.run_alone(parts)
    assert weights(parts) == weights(whole)
    assert scored(parts) == scored(whole)
    shared = replace(whole, staging=str(tmp_path / "d"))
    horovod.runner.run(functools.partial(run_both, [shared]), num_proc=2, use_gloo=True)
    one, two = load(weights(whole)), load(weights(shared))
    for name in one:
        if name.startswith("linear."):
            assert torch.equal(one[name], two[name]), name
    ours, theirs = scored(whole), scored(shared)
    assert set(ours) == set(theirs) == set(range(120))
    for row, found in ours.items():
        np.testing.assert_allclose(found["blends"], theirs[row]["blends"], atol=1e-3)
        np.testing.assert_allclose(found["blends"][-1], theirs[row]["blends"][-1], atol=1e-6)


def test_weights_that_are_not_of_the_card_are_refused(tmp_path: Path) -> None:
    j = job(tmp_path)
    rank.run_alone(j)
    tensors = load(weights(j))
    plain = {name: value for name, value in tensors.items() if not name.startswith("linear.")}
    other = {**tensors, "linear.positions": tensors["linear.positions"][:-1]}
    strange = {**tensors, "linear.else": torch.zeros(2)}
    for changed in (plain, other, strange):
        with pytest.raises(InputError, match="not the weights of this model's card"):
            Predictor(card(j, 0.5), save(changed), "x")
    x = rows_of(5, 20)
    np.testing.assert_array_equal(  # of a share of nothing it need not be there, as in models of before
        Predictor(card(j, 0.0), save(plain), "x")(x), Predictor(card(j, 0.0), weights(j), "x")(x)
    )
    with pytest.raises(ValueError, match="less than or equal to 1"):
        card(j, 1.5)
    assert tuple(linear.WAYS) == OF_SEQUENCES
    with pytest.raises(ValueError, match=r"blend of .*, boosted or forest and ridge_regression, 'words' is none"):
        Train(blend=["words"])


def test_several_heads_have_shares_of_their_own() -> None:
    several = [HeadCard(label, "classes", ["x", "y"], 1.0) for label in "ab"]
    both = Card(FORMAT, "id", "t", "a,b", [], ["p0"], "int8", "onehot", MODEL, 1, 1.0, 16, heads=several)
    changed = both.blended([{"linear": 0.2, "boosted": 0.8}, {}]).tempered([1.5, 2.0])
    assert changed.shares == [{"linear": 0.2, "boosted": 0.8}, {}] and changed.temperatures == [1.5, 2.0]
    assert both.shares == [{}, {}] == changed.blended([{}, {}]).shares
    with pytest.raises(ValueError, match="1 together at most"):
        both.blended([{"linear": 0.6, "boosted": 0.6}, {}])


@pytest.mark.parametrize("name", ["integrated_gradients", "deeplift"])
def test_what_is_blended_is_explained_completely(name: str) -> None:
    codes = sequences(5, 30)
    x, y = planted(90, 30, 2, None)
    options = {"kind": "cnn", "channels": [4], "dilations": [1], "hidden": [4], "boxes": 2, "spacers": [2, 4]}
    network = models.build(options, [1, 2], (4, 30), 2)
    part = linear.part(linear_fits.fit(x, y[:, None], TWO, ["both"], False, 0), False)
    both = blend.Blended(network, [part], torch.tensor([[0.4, 0.4]]))
    found = explained(name, both, one_hot(codes), shuffles_of(codes), [-1.0, 1.0])
    allowed = np.maximum(0.01 * np.abs(found.output - found.reference), 1e-4)
    assert (np.abs(found.error) <= allowed).all()
    parts = [explained(name, one, one_hot(codes), shuffles_of(codes), [-1.0, 1.0]) for one in (network, part)]
    wanted = 0.6 * parts[0].contributions + 0.4 * parts[1].contributions
    np.testing.assert_allclose(found.contributions, wanted, atol=0.03 * np.abs(wanted).max())
