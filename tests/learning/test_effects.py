"""Effects of variants through models whose answers are known in closed form, and through a network of ours."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save

from genodl_spark.learning import effects as kernel
from genodl_spark.learning import model_files
from genodl_spark.learning.effects import effects
from genodl_spark.learning.encodings import onehot
from genodl_spark.learning.model_files import HeadCard
from genodl_spark.learning.predictor import Predictor
from genodl_spark.learning.scaling import Scaling
from tests.learning.test_predictor import predictor

LENGTH = 12
LINEAR = b"""
from torch import nn
from genodl_spark.learning.models import MemberLinear

class Network(nn.Module):
    def __init__(self, seeds, inputs, outputs, average_strands=False):
        super().__init__()
        self.head = MemberLinear(seeds, inputs[0] * inputs[1], outputs, layer=0)

    def forward(self, x, rows=None, epoch=0):
        return self.head(x.flatten(2))
"""


def linear(
    weight: np.ndarray,
    classes: list[str],
    heads: list[HeadCard] | None = None,
    temperature: float = 1.0,
    members: int = 1,
    **options: Any,
) -> Predictor:
    """A model whose outputs are sums of `weight` (outputs, 4, LENGTH) over the bases of a sequence."""
    x = np.random.default_rng(1).integers(0, 4, (200, LENGTH)).astype(np.int8)
    scaling = Scaling(np.zeros((1, 1), np.float32), np.ones((1, 1), np.float32))
    learnt = onehot.Encoding().learnt(x, np.ones(len(x), bool), scaling, False)
    flat = torch.tensor(weight.reshape(1, len(weight), -1).transpose(0, 2, 1)).float()
    tensors = {
        "mean": torch.zeros(1),
        "inverse": torch.ones(1),
        "target": torch.tensor([0.0, 1.0] * (len(heads) if heads else 1), dtype=torch.float64),
        "network.head.weight": flat.repeat(members, 1, 1),
        "network.head.bias": torch.zeros(members, 1, len(weight)),
        **{name: torch.from_numpy(value) for name, value in learnt.items()},
    }
    names = [f"position:{i + 1}" for i in range(LENGTH)]
    kind = {"kind": "linear.py", **options}
    shape = ("int8", "onehot", kind, members, temperature, 64)
    card = model_files.Card(model_files.FORMAT, "m", "t", "label", classes, names, *shape, heads=heads or [])
    return Predictor(card, save(tensors), "w", threads=1, code={"linear.py": LINEAR})


def pairs(rows: int, seed: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Windows that differ in some bases, some unknown."""
    generator = np.random.default_rng(seed)
    ref = generator.integers(-1, 4, (rows, LENGTH)).astype(np.int8)
    alt = np.where(generator.random(ref.shape) < 0.2, generator.integers(0, 4, ref.shape), ref).astype(np.int8)
    return ref, alt


def summed(weight: np.ndarray, codes: np.ndarray, strands: str) -> np.ndarray:
    """Outputs (rows, outputs) of the linear model, a base after the other."""

    def one(row: list[int]) -> np.ndarray:
        return np.sum([weight[:, base, i] for i, base in enumerate(row) if base >= 0] or [np.zeros(len(weight))], 0)

    found = []
    for row in codes.tolist():
        other = [3 - base if base >= 0 else base for base in reversed(row)]
        both = {"forward": [one(row)], "reverse": [one(other)], "both": [one(row), one(other)]}[strands]
        found.append(np.mean(both, 0))
    return np.array(found)


@pytest.mark.parametrize("strands", kernel.STRANDS)
def test_a_linear_model_of_two_classes(strands: str) -> None:
    """The change of the log odds is that of the outputs, however far from one half the probabilities are."""
    weight = np.random.default_rng(3).normal(0, 3, (2, 4, LENGTH)).astype(np.float32)
    ref, alt = pairs(50)
    found = effects(linear(weight, ["n", "y"], temperature=2.5, members=2), ref, alt, strands)
    a, b = (summed(weight, x, strands) for x in (ref, alt))
    odds_a, odds_b = (x[:, 1] - x[:, 0] for x in (a, b))
    np.testing.assert_allclose(found.raw[:, 1], odds_b - odds_a, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(found.effect[:, 1], (odds_b - odds_a) / 2.5, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(found.effect[:, 0], -found.effect[:, 1], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(found.ref[:, 1], 1 / (1 + np.exp(-odds_a / 2.5)), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found.alt.sum(1), 1, rtol=1e-12)
    same = (ref == alt).all(1)
    assert same.any() and (found.effect[same] == 0).all()


def test_several_heads_of_classes_and_values() -> None:
    weight = np.random.default_rng(4).normal(0, 1, (4, 4, LENGTH)).astype(np.float32)
    heads = [HeadCard("kind", "classes", ["a", "b", "c"], 1.5), HeadCard("level", "value", [])]
    ref, alt = pairs(40)
    found = effects(linear(weight, [], heads), ref, alt)
    a, b = (summed(weight, x, "both") for x in (ref, alt))
    np.testing.assert_allclose(found.effect[:, 3], b[:, 3] - a[:, 3], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found.ref[:, 3], a[:, 3], rtol=1e-5, atol=1e-5)

    def odds(outputs: np.ndarray, one: int) -> np.ndarray:
        p = np.exp(outputs[:, :3] / 1.5)
        p /= p.sum(1, keepdims=True)
        return np.log(p[:, one] / (1 - p[:, one]))

    for one in range(3):
        np.testing.assert_allclose(found.effect[:, one], odds(b, one) - odds(a, one), rtol=1e-4, atol=1e-4)


def test_a_model_that_reads_both_strands_reads_each_window_once(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = np.random.default_rng(5).normal(size=(1, 4, LENGTH)).astype(np.float32)
    ref, alt = pairs(30)
    counts = []
    scores = Predictor.scores

    def counted(self: Predictor, x: Any, lengths: Any = None) -> Any:
        counts.append(len(x))
        return scores(self, x, lengths)

    monkeypatch.setattr(Predictor, "scores", counted)
    alone = effects(linear(weight, [], average_strands=True), ref, alt, "both")
    plain = linear(weight, [])
    several = effects(plain, np.concatenate([ref, ref]), np.concatenate([alt, alt]))
    windows = len({row.tobytes() for row in np.concatenate([ref, alt])})
    assert counts == [windows, 2 * windows]
    np.testing.assert_array_equal(several.effect[:30], several.effect[30:])
    change = summed(weight, alt, "forward") - summed(weight, ref, "forward")
    np.testing.assert_allclose(alone.effect, change, atol=1e-5)
    equivariant = replace(plain.card, model={"kind": "cnn", "reverse_complement": "equivariant"})
    assert kernel.reads_both(equivariant) and not kernel.reads_both(plain.card)
    assert not kernel.reads_both(equivariant.blended([{"linear": 0.3}]))


def test_an_effect_does_not_depend_on_others_nor_on_the_strand() -> None:
    """To the last bit, in a network of several members; read from the other strand, up to the order of a mean."""
    model = predictor("cnn")
    generator = np.random.default_rng(6)
    ref = generator.integers(-1, 4, (70, 30)).astype(np.int8)
    alt = ref.copy()
    alt[:, 15] = (alt[:, 15] + 1) % 4
    whole = effects(model, ref, alt)
    order = generator.permutation(70)
    shuffled = effects(model, ref[order], alt[order])
    for name in ("ref", "alt", "effect", "raw", "distance", "unusual"):
        np.testing.assert_array_equal(getattr(shuffled, name), getattr(whole, name)[order])
        np.testing.assert_array_equal(getattr(effects(model, ref[7:8], alt[7:8]), name)[0], getattr(whole, name)[7])
    other = effects(model, kernel.turned(ref), kernel.turned(alt))
    np.testing.assert_allclose(other.effect, whole.effect, rtol=1e-12, atol=1e-12)
    back = effects(model, alt, ref)
    np.testing.assert_array_equal(back.effect, -whole.effect)
    assert len(effects(model, ref[:0], alt[:0]).effect) == 0
