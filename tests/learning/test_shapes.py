"""Rows of other shapes than one value for each feature, and losses of other targets:
from packed rows to a trained model's answers, by files of one class that the package does not know."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from genodl_spark.core import packing
from genodl_spark.core.errors import InputError
from genodl_spark.learning import encodings, feed, heads, losses
from genodl_spark.learning.model_files import new_card
from genodl_spark.learning.predictor import Predictor, batch_rows
from genodl_spark.learning.settings import Train
from genodl_spark.learning.training import plan, rank
from tests.core.test_packing import sparse
from tests.learning.test_feed import write

ROWS = 240

IMAGE = b"""
from genodl_spark.learning.encodings import Shaped

class Encoding(Shaped):
    "Pileups: three channels of 5 x 7, quality as a share of 255."
    dtypes = ("uint8",)

    def shape(self, features):
        return (features, 5, 7)

    def tensor(self, x, dtype):
        return x.to(dtype).div(255).unflatten(1, (-1, 5, 7))
"""
CONVOLUTION = b"""
import torch
from genodl_spark.learning.models import MemberLinear

class Network(torch.nn.Module):
    def __init__(self, seeds, inputs, outputs):
        super().__init__()
        assert inputs == (3, 5, 7), inputs
        self.head = MemberLinear(seeds, 2 * inputs[0], outputs, 0)

    def forward(self, x, rows=None, epoch=0):
        pooled = torch.cat([x.mean((-2, -1)), x.amax((-2, -1))], -1)
        return self.head(pooled)
"""
PAIR = b"""
import torch
from genodl_spark.learning.encodings import Shaped, onehot

class Encoding(Shaped):
    "The alleles of a variant with what surrounds them: a sequence with REF beside one with ALT."
    dtypes = ("int8",)

    def width(self, features):
        return features

    def shape(self, features):
        return {"ref": (4, features // 2), "alt": (4, features // 2)}

    def tensor(self, x, dtype):
        ref, alt = x.chunk(2, 1)
        of = onehot.Encoding()
        return {"ref": of.tensor(ref, dtype), "alt": of.tensor(alt, dtype)}
"""
TWIN = b"""
import torch
from genodl_spark.learning.models import MemberLinear

class Network(torch.nn.Module):
    def __init__(self, seeds, inputs, outputs):
        super().__init__()
        channels, length = inputs["ref"]
        self.scan = MemberLinear(seeds, channels * length, 8, 0)
        self.head = MemberLinear(seeds, 8, outputs, 1)

    def forward(self, x, rows=None, epoch=0):
        ref, alt = (self.scan(x[name].flatten(2)) for name in ("ref", "alt"))
        return self.head(torch.relu(alt - ref))
"""
SPARSE = b"""
import torch
from genodl_spark.learning.encodings import Shaped

class Encoding(Shaped):
    "Counts of a cell: its first half the numbers of up to 6 genes that it has, \
65535 for none, the second their counts."
    dtypes = ("uint16",)

    def width(self, features):
        return 12

    def shape(self, features):
        return (features,)

    def tensor(self, x, dtype):
        genes, counts = x.to(torch.int64).chunk(2, 1)
        dense = torch.zeros(len(x), 21, dtype=dtype, device=x.device)
        dense.scatter_add_(1, genes.clamp(max=20), counts.to(dtype))
        return torch.log1p(dense[:, :20])
"""
HUBER = b"""
import torch
from torch.nn import functional
from genodl_spark.learning.losses.values import Values

class Loss(Values):
    def rows(self, outputs, target, standard, inputs, smoothing):
        return functional.huber_loss(outputs[..., 0], self.wanted(outputs, target, standard), reduction="none")
"""
COUNTS = b"""
import torch
from genodl_spark.learning.encodings import Shaped

class Encoding(Shaped):
    "Counts of a cell as logarithms of one more."

    def shape(self, features):
        return (features,)

    def tensor(self, x, dtype):
        return torch.log1p(x.to(dtype))
"""
CODE = {
    "counts.py": COUNTS,
    "image.py": IMAGE,
    "convolution.py": CONVOLUTION,
    "pair.py": PAIR,
    "twin.py": TWIN,
    "sparse.py": SPARSE,
    "huber.py": HUBER,
}


def data(kind: str) -> tuple[np.ndarray, np.ndarray, int]:
    """Packed rows, a target that they tell, and the number of features."""
    generator = np.random.default_rng(7)
    target = (np.arange(ROWS) % 2).astype(float)
    if kind == "image":
        x = generator.integers(0, 120, (ROWS, 3, 5, 7)).astype(np.uint8)
        x[target == 1, 1] += 100
        return x.reshape(ROWS, -1), target, 3
    if kind == "pair":
        ref = generator.integers(0, 4, (ROWS, 11)).astype(np.int8)
        alt = ref.copy()
        alt[:, 5] = (ref[:, 5] + 1 + 2 * (target == 1) * generator.integers(0, 1, ROWS)) % 4
        ref[target == 1, 5], alt[target == 1, 5] = 0, 2
        ref[target == 0, 5], alt[target == 0, 5] = 2, 0
        return np.concatenate([ref, alt], 1), target, 22
    x = np.full((ROWS, 12), 65535, np.uint16)
    x[:, 6:] = 0
    for row, label in enumerate(target):
        genes = generator.choice(np.arange(1, 20), 4, replace=False)
        genes[0] = 0 if label else genes[0]
        x[row, :4], x[row, 6:10] = genes, generator.integers(3, 9, 4)
    return x, target, 20


def trained(
    tmp_path: Path, kind: str, network: dict[str, Any], x: np.ndarray, target: np.ndarray, features: int, **options: Any
) -> tuple[Any, Predictor]:
    """The result of a training in this process on a fixed split, and its model as one reads it back."""
    folds = np.where(np.arange(ROWS) % 5 == 0, 2, 0).astype(np.int8)[:, None]
    transform = f"{kind}.py" if f"{kind}.py" in CODE else kind
    classes = options.pop("classes", ["a", "b"])
    loss = options.pop("loss", "auto")
    predicted = heads.one("l", classes)
    width = encodings.encoding(transform, CODE).width(features)
    dtype, entries = (f"sparse:{x.dtype}", int((x != 0).sum())) if options.pop("sparse", False) else (str(x.dtype), 0)
    layout = feed.Layout(ROWS, features, dtype, 1, width, entries)
    settings = Train(
        **{"ensemble": 2, "epochs": 60, "min_steps": 0, "learning_rate": 0.02, "warmup_epochs": 0, **options}
    )
    rows = sparse(x).to_pylist() if packing.is_sparse(dtype) else x
    files, staging = write(tmp_path, rows, target, folds, 4, 16), str(tmp_path / "staging")
    job = plan.Job(
        files,
        layout,
        "pyarrow",
        1 << 30,
        predicted,
        0,
        transform,
        1.0,
        0,
        network,
        settings,
        3,
        staging,
        loss=loss,
        code=CODE,
    )
    result = rank.run_alone(job)
    card = new_card(
        model_id="m",
        task="t",
        label_column="l",
        predicted=predicted,
        features=[f"f{i}" for i in range(features)],
        dtype=dtype,
        transform=transform,
        model=network,
        members=2,
        batch=batch_rows(0, encodings.encoding(transform, CODE).shape(features)),
        loss=losses.name_of(loss, predicted),
    )
    return result, Predictor(card, (tmp_path / "staging" / "model.safetensors").read_bytes(), "m", code=CODE)


@pytest.mark.parametrize(
    ("kind", "network"),
    [("image", {"kind": "convolution.py"}), ("pair", {"kind": "twin.py"}), ("sparse", {"kind": "mlp", "hidden": [16]})],
)
@pytest.mark.parametrize("mixup", [0.0, 0.2])
def test_rows_of_any_shape_are_learnt_and_scored(
    tmp_path: Path, kind: str, network: dict[str, Any], mixup: float
) -> None:
    x, target, features = data(kind)
    result, model = trained(tmp_path, kind, network, x, target, features, mixup=mixup)
    held = np.arange(ROWS) % 5 == 0
    found = model.scores(x)
    assert (found.raw[held].argmax(1) == target[held]).mean() > 0.9, result["history"][-1]
    assert np.isnan(found.distance).all() and not found.unusual.any()
    alone = model.scores(x[17:18])
    np.testing.assert_array_equal(alone.raw[0], found.raw[17])


@pytest.mark.parametrize(("transform", "features"), [("asinh", 300), ("none", 60), ("counts.py", 60)])
def test_sparse_rows_are_learnt_as_the_same_rows_whole(tmp_path: Path, transform: str, features: int) -> None:
    """Standardised, on coordinates where features are more than rows, or as an encoding of one's own has them:
    the same model to the last bit."""
    generator = np.random.default_rng(3)
    x = (generator.poisson(3, (ROWS, features)) * (generator.random((ROWS, features)) < 0.1)).astype(np.uint16)
    target = (np.arange(ROWS) % 2).astype(float)
    x[:, :4] = np.where(target[:, None] == 1, generator.poisson(6, (ROWS, 4)), 0)
    network = {"kind": "mlp", "hidden": [8]}
    (_, one), (_, other) = (
        trained(folder(tmp_path, int(packed)), transform, network, x, target, features, epochs=8, sparse=packed)
        for packed in (False, True)
    )
    weights = [(tmp_path / str(int(packed)) / "staging" / "model.safetensors").read_bytes() for packed in (False, True)]
    assert weights[0] == weights[1]
    found = other.scores(packing.packed(sparse(x), "sparse:uint16", features))
    for name in ("raw", "uncertainty", "distance", "unusual"):
        np.testing.assert_array_equal(getattr(found, name), getattr(one.scores(x), name))
    held = np.arange(ROWS) % 5 == 0
    assert (found.raw[held].argmax(1) == target[held]).mean() > 0.9


def test_baselines_see_what_networks_see() -> None:
    for kind, shape in (("image", (ROWS, 105)), ("pair", (ROWS, 88)), ("sparse", (ROWS, 20))):
        x, _, features = data(kind)
        encoding = encodings.encoding(f"{kind}.py", CODE)
        seen = encoding.baseline(x)
        assert seen.shape == shape and seen.dtype == np.float32
        assert encodings.size(encoding.shape(features)) == shape[1]
    dense = encodings.encoding("sparse.py", CODE).baseline(
        np.array([[3, 19, 65535, 65535, 65535, 65535, 7, 1, 0, 0, 0, 0]], np.uint16)
    )
    np.testing.assert_allclose(dense[0, [3, 19, 0]], [np.log(8), np.log(2), 0], rtol=1e-6)


@pytest.mark.parametrize(("loss", "least"), [("auto", 0.9), ("poisson", 0.8), ("huber.py", 0.9)])
def test_losses_of_values(tmp_path: Path, loss: str, least: float) -> None:
    generator = np.random.default_rng(5)
    x = generator.normal(size=(ROWS, 6)).astype(np.float32)
    rate = np.exp(1 + 0.8 * x[:, 0] - 0.4 * x[:, 1])
    target = (
        generator.poisson(rate).astype(float) if loss == "poisson" else x @ np.array([3, -1, 0, 0, 0, 2]) * 10 + 500
    )
    result, model = trained(
        tmp_path, "none", {"kind": "mlp", "hidden": [16], "dropout": 0.0}, x, target, 6, classes=[], loss=loss
    )
    held = np.arange(ROWS) % 5 == 0
    found = model.scores(x).raw[:, 0]
    truth = rate if loss == "poisson" else target
    assert 1 - ((found - truth)[held] ** 2).mean() / truth[held].var() > least, result["history"][-1]
    if loss == "poisson":
        assert found.min() > 0


def test_poisson_is_that_of_the_definition() -> None:
    from scipy.stats import poisson

    poisson_loss = losses.loss("poisson", heads.one("l", []), (1,))
    counts, logs = np.array([[0.0], [1.0], [4.0]]), torch.tensor([[[-1.0], [0.5], [1.0]]], dtype=torch.float64)
    found = poisson_loss.rows(logs, counts, poisson_loss.standard(counts, np.ones((1, 3), bool)), None, 0.0).numpy()
    # Stirling's formula stands for the logarithm of the factorial above 1.
    np.testing.assert_allclose(found[0], -poisson.logpmf(counts[:, 0], np.exp(logs[0, :, 0].numpy())), atol=0.03)


def test_what_does_not_fit_is_one_line(tmp_path: Path) -> None:
    for name, classes, found in (
        ("squared_error", ["a", "b"], "one of classes"),
        ("cross_entropy", [], "the target is a value"),
        ("values", [], "no class Loss"),
        ("../x", [], "expected a file under genodl_spark/learning/losses"),
        ("gone.py", [], "no file gone.py"),
    ):
        with pytest.raises(InputError, match=found):
            losses.loss(name, heads.one("l", classes), (3,), CODE)
    for name, found in (
        ("values", "no class Encoding"),
        ("os.path", "expected a file"),
        ("gone.py", "no file gone.py"),
    ):
        with pytest.raises(InputError, match=found):
            encodings.encoding(name, CODE)
    x, _, features = data("image")
    with pytest.raises(InputError, match="counts, 0 or more"):
        trained(
            tmp_path,
            "image",
            {"kind": "convolution.py"},
            x,
            np.arange(ROWS) - 1.0,
            features,
            classes=[],
            loss="poisson",
        )


def folder(parent: Path, number: int) -> Path:
    made = parent / str(number)
    made.mkdir()
    return made


def test_ranks_and_pieces_change_nothing_for_several_inputs(tmp_path: Path) -> None:
    x, target, features = data("pair")
    (one, _), (two, _) = (
        trained(
            folder(tmp_path, pieces),
            "pair",
            {"kind": "twin.py"},
            x,
            target,
            features,
            accumulate=pieces,
            epochs=3,
            dtype="float64",
        )
        for pieces in (1, 3)
    )
    np.testing.assert_allclose(
        [entry["train"] for entry in one["history"]], [entry["train"] for entry in two["history"]], rtol=1e-9
    )


def test_the_encoding_of_a_card_is_checked_without_running_code() -> None:
    card = new_card(
        model_id="m",
        task="t",
        label_column="l",
        predicted=heads.one("l", ["a", "b"]),
        features=["f"],
        dtype="uint8",
        transform="image.py",
        model={},
        members=1,
        batch=4,
    )
    assert replace(card, transform="other.py").transform == "other.py"
    with pytest.raises(InputError, match=r"no file image\.py"):
        Predictor(card, b"", "m")
