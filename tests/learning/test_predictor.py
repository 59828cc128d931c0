"""The batch kernel of a registered model: neighbours, batches, uncertainty, distances, and files that are no model."""

from __future__ import annotations

import itertools
import pickle
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from genodl_spark.core.errors import InputError
from genodl_spark.learning import encodings, model_files, models
from genodl_spark.learning import predictor as predict
from genodl_spark.learning import scaling as quality
from genodl_spark.learning.encodings import onehot

KINDS = {
    "mlp": ({"kind": "mlp", "hidden": [16], "dropout": 0.2}, 12, "float32", "none"),
    "cnn": (
        {"kind": "cnn", "channels": [8], "dilations": [1, 2], "stem_kernel": 5, "hidden": [8], "dropout": 0.2},
        30,
        "int8",
        "onehot",
    ),
    "dosage": ({"kind": "mlp", "hidden": [16]}, 20, "int8", "none"),
}


def rows_of(kind: str, count: int, seed: int = 0) -> np.ndarray:
    _, width, dtype, _ = KINDS[kind]
    generator = np.random.default_rng(seed)
    if dtype == "int8":
        return generator.integers(-1, 4 if kind == "cnn" else 3, (count, width)).astype(np.int8)
    x = generator.normal(size=(count, width)).astype(np.float32)
    return np.where(generator.random(x.shape) < 0.1, np.float32(np.nan), x)


def weights(kind: str, members: int, classes: int, shift: float = 0.0) -> bytes:
    options, width, _, transform = KINDS[kind]
    x = rows_of(kind, 500, 9)
    network = models.build(options, list(range(members)), encodings.encoding(transform).shape(width), max(classes, 1))
    scaling = quality.Scaling(np.zeros((1, 1), np.float32), np.ones((1, 1), np.float32))
    if transform != "onehot":
        values = encodings.encoding(transform).floats(x)
        sums = quality.moments(values, np.ones((1, len(x)), bool), np.zeros(width, np.float32))
        scaling = quality.fit(sums, np.array([len(x)]))
    learnt = encodings.encoding(transform).learnt(x, np.ones(len(x), bool), scaling, False)
    tensors = {f"network.{name}": value for name, value in network.state_dict().items()}
    more = {"mean": torch.from_numpy(scaling.mean[0]), "inverse": torch.from_numpy(scaling.inverse[0])}
    target = torch.tensor([shift, 2.0 if not classes else 1.0], dtype=torch.float64)
    return save(
        {**tensors, **more, "target": target, **{name: torch.from_numpy(value) for name, value in learnt.items()}}
    )


def card(kind: str, members: int, classes: int, batch: int = 64) -> model_files.Card:
    options, width, dtype, transform = KINDS[kind]
    names, labels = [f"f{i}" for i in range(width)], [f"c{i}" for i in range(classes)]
    return model_files.Card(
        model_files.FORMAT, "m", "t", "label", labels, names, dtype, transform, options, members, 1.5, batch
    )


def predictor(kind: str, members: int = 3, classes: int = 2, batch: int = 64, **options: Any) -> predict.Predictor:
    return predict.Predictor(
        card(kind, members, classes, batch), weights(kind, members, classes), "w", threads=1, **options
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("passes", [0, 3])
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_a_score_does_not_depend_on_neighbours_or_place(kind: str, passes: int, precision: str) -> None:
    """To the last bit: what makes a prediction repeatable from its row alone."""
    model = predictor(kind, members=1 if passes else 3, passes=passes, precision=precision)
    x = rows_of(kind, 150)
    whole = model.scores(x)
    order = np.random.default_rng(1).permutation(len(x))
    shuffled = model.scores(x[order])
    alone = [model.scores(x[i : i + 1]) for i in (0, 63, 64, 100, 149)]
    for name in ("raw", "uncertainty", "distance"):
        np.testing.assert_array_equal(getattr(shuffled, name), getattr(whole, name)[order])
        for i, one in zip((0, 63, 64, 100, 149), alone, strict=True):
            np.testing.assert_array_equal(getattr(one, name)[0], getattr(whole, name)[i])


@settings(max_examples=30, deadline=None)
@given(sizes=st.lists(st.integers(0, 90), min_size=1, max_size=6), at_once=st.sampled_from([1, 70, 128, 4096]))
def test_batches_are_put_together_and_taken_apart_in_order(sizes: list[int], at_once: int) -> None:
    model = predictor("dosage")
    x = rows_of("dosage", sum(sizes))
    ends = np.cumsum([0, *sizes])
    names = ["entity_id", "x", "missing"]
    batches = [
        pa.RecordBatch.from_arrays(
            [
                pa.array([f"e{i}" for i in range(a, b)], pa.string()),
                pa.array([r.tobytes() for r in x[a:b]], pa.binary()),
                pa.array([a] * (b - a), pa.int32()),
            ],
            names,
        )
        for a, b in itertools.pairwise(ends)
    ]
    before = predict._AT_ONCE
    predict._AT_ONCE = at_once
    try:
        found = list(predict.scored(model, batches))
    finally:
        predict._AT_ONCE = before
    assert [e for batch in found for e in batch.entities.to_pylist()] == [f"e{i}" for i in range(sum(sizes))]
    assert all(len(batch.entities) % 64 == 0 for batch in found[:-1])
    if found:
        np.testing.assert_array_equal(np.concatenate([b.scores.raw for b in found]), model.scores(x).raw)
        np.testing.assert_array_equal(np.concatenate([b.missing for b in found]), np.repeat(ends[:-1], sizes))


def test_a_row_of_another_width_is_an_error() -> None:
    batch = pa.RecordBatch.from_arrays(
        [pa.array(["a"]), pa.array([b"\0" * 19]), pa.array([0], pa.int32())], ["entity_id", "x", "missing"]
    )
    with pytest.raises(ValueError, match="not 20 of int8"):
        list(predict.scored(predictor("dosage"), [batch]))


def test_uncertainty_is_what_members_disagree_about() -> None:
    model, x = predictor("mlp", 4, 3), rows_of("mlp", 40)
    z = torch.nan_to_num((torch.from_numpy(x) - model.reader.mean) * model.reader.inverse)
    with torch.no_grad():
        each = torch.softmax(model.network(z[None]).double(), -1).numpy()
    entropy = lambda p: -(p * np.log(p)).sum(-1)  # noqa: E731
    found = model.scores(x)
    np.testing.assert_allclose(found.raw, each.mean(0), atol=1e-6)
    np.testing.assert_allclose(found.uncertainty[:, 0], entropy(each.mean(0)) - entropy(each).mean(0), atol=1e-6)
    assert found.uncertainty.min() >= 0
    assert np.isnan(predictor("mlp", 1, 3).scores(x).uncertainty).all()
    values = predict.Predictor(card("mlp", 4, 0), weights("mlp", 4, 0, 10.0), "w")
    with torch.no_grad():
        outputs = values.network(z[None])[..., 0].double().numpy()
    found = values.scores(x)
    np.testing.assert_allclose(found.raw[:, 0], outputs.mean(0) * 2 + 10, atol=1e-5)
    np.testing.assert_allclose(found.uncertainty[:, 0], outputs.std(0, ddof=1) * 2, atol=1e-5)


def test_passes_with_dropout_stand_in_for_members() -> None:
    x = rows_of("mlp", 40)
    model = predictor("mlp", 1, 2, passes=20)
    found, again = model.scores(x), model.scores(x)
    np.testing.assert_array_equal(found.raw, again.raw)
    assert (found.uncertainty > 0).mean() > 0.9
    assert np.abs(found.raw - predictor("mlp", 1, 2).scores(x).raw).max() > 1e-4
    assert json_of(model)["passes"] == 20
    assert json_of(predictor("mlp", 3, 2, passes=20))["passes"] == 0  # members are there already


def json_of(model: predict.Predictor) -> dict[str, Any]:
    import json

    found: dict[str, Any] = json.loads(model.computed_on)
    return found


def test_distances_are_those_of_the_definition() -> None:
    model, x = predictor("mlp"), rows_of("mlp", 60)
    z = (x.astype(np.float64) - model.reader.mean.numpy()) * model.reader.inverse.numpy()
    np.testing.assert_allclose(model.scores(x).distance, np.nanmean(z**2, 1), rtol=1e-5)
    assert np.isnan(model.scores(np.full((1, 12), np.nan, np.float32)).distance).all()
    assert model.reader.unusual(x[:2], np.array([np.nan, 1.0]), None).tolist() == [True, False]
    far = model.scores(x + 6)
    assert far.unusual.mean() > 0.95
    assert model.scores(rows_of("mlp", 4000, 5)).unusual.mean() < 0.01


def test_bits_per_base_of_a_markov_chain() -> None:
    generator = np.random.default_rng(3)
    chance = generator.dirichlet(np.full(4, 0.3), 16)

    def chain(rows: int, length: int) -> np.ndarray:
        made = generator.integers(0, 4, (rows, length)).astype(np.int8)
        for i in range(2, length):
            made[:, i] = [generator.choice(4, p=chance[4 * a + b]) for a, b in made[:, i - 2 : i]]
        return made

    seen = chain(200, 60)
    counts = np.zeros(64)
    for row in seen:  # by hand
        for a, b, c in zip(row, row[1:], row[2:], strict=False):
            counts[16 * a + 4 * b + c] += 1
    np.testing.assert_array_equal(onehot.triplets(seen), counts)
    bits = onehot.background(counts)
    np.testing.assert_allclose(2.0 ** -bits.reshape(16, 4).sum(1) >= 0, True)
    np.testing.assert_allclose((2.0**-bits).reshape(16, 4).sum(1), 1, rtol=1e-5)
    low, high = quality.fences(onehot.bits_per_base(seen, bits))
    own = onehot.bits_per_base(chain(100, 60), bits)
    other = onehot.bits_per_base(generator.integers(0, 4, (100, 60)).astype(np.int8), bits)
    assert ((own >= low) & (own <= high)).mean() >= 0.97
    assert (other > high).mean() > 0.97
    padded = np.concatenate([np.full((100, 7), -1, np.int8), seen[:100]], 1)
    np.testing.assert_allclose(onehot.bits_per_base(padded, bits), onehot.bits_per_base(seen[:100], bits))
    assert np.isnan(onehot.bits_per_base(np.full((1, 9), -1, np.int8), bits)).all()


def test_sequences_of_other_lengths_and_runs_of_a_base_are_unusual() -> None:
    """To a model of 30 bases: also where the composition is as in training, and where a row
    is the middle of a longer sequence."""
    model = predictor("cnn")
    generator = np.random.default_rng(4)
    known = generator.integers(0, 4, (200, 30)).astype(np.int8)
    assert model.scores(known).unusual.mean() < 0.02
    assert not model.scores(known[:1], np.array([31])).unusual.any()
    assert model.scores(known, np.full(200, 5000)).unusual.all()
    assert model.scores(np.zeros((1, 30), np.int8), np.array([5000])).unusual.all()
    short = np.full((200, 30), -1, np.int8)
    short[:, 11:19] = known[:, :8]
    assert model.scores(short).unusual.all() and model.scores(short, np.full(200, 8)).unusual.all()
    for base in range(4):
        assert model.scores(np.full((1, 30), base, np.int8)).unusual.all()
    assert model.scores(np.tile(np.array([[0, 1]], np.int8), 15)).unusual.all()
    together = model.scores(np.concatenate([known, short])).unusual
    np.testing.assert_array_equal(together, np.concatenate([model.scores(known).unusual, model.scores(short).unusual]))


def test_models_of_before_judge_sequences_by_composition_alone() -> None:
    from safetensors.torch import load

    tensors = load(weights("cnn", 3, 2))
    older = predict.Predictor(
        card("cnn", 3, 2), save({**tensors, "usual": tensors["usual"][0].clone()}), "w", threads=1
    )
    rows = rows_of("cnn", 50)
    found = older.scores(rows, np.full(50, 5000))
    np.testing.assert_array_equal(found.unusual, older.reader.unusual(rows, found.distance, None))
    np.testing.assert_array_equal(found.raw, predictor("cnn").scores(rows).raw)


def test_what_is_no_model_is_refused() -> None:
    with pytest.raises(InputError, match="not a safetensors file"):
        predict.Predictor(
            card("mlp", 1, 2), pickle.dumps({"network": [1.0]}), "file:///lake/models/m/model.safetensors"
        )
    with pytest.raises(InputError, match="not the weights of this model's card"):
        predict.Predictor(card("mlp", 2, 2), weights("mlp", 1, 2), "w")
    with pytest.raises(InputError, match="not the weights of this model's card"):
        predict.Predictor(card("mlp", 1, 2), save({"mean": torch.zeros(12)}), "w")


def test_batches_suit_the_width_of_a_row() -> None:
    assert [predict.batch_rows(0, (width,)) for width in (1, 100, 1000, 60_000)] == [4096, 2048, 256, 64]
    assert predict.batch_rows(0, (4, 150)) == 256
    assert predict.batch_rows(17, (1000,)) == 17
