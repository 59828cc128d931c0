"""Pairs of boxes at a distance that varies: their free energies by brute force, and a planted pair that is found."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from genodl_spark.core.errors import InputError
from genodl_spark.learning import models

PLAIN = {"kind": "cnn", "channels": [4], "stem_kernel": 3, "kernel": 3, "dilations": [1], "hidden": [4]}


def build(length: int, **options: object) -> torch.nn.Module:
    return models.build({**PLAIN, "boxes": 3, "box": 5, "spacers": [2, 4], **options}, [1, 2], (4, length), 2).double()


@pytest.mark.parametrize("length", [6, 8, 15, 24])
def test_free_energies_are_sums_over_starts_and_spacers(length: int) -> None:
    boxes = build(length).boxes
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        boxes.between.copy_(torch.randn(boxes.between.shape, generator=generator, dtype=torch.float64))
    codes = torch.randint(-1, 4, (4, length), generator=generator)
    x = (functional.one_hot(codes.clamp(min=0), 4) * (codes >= 0)[..., None]).double()[None]
    present = torch.arange(length)[None, None] >= torch.tensor([0, 0, 3, length // 2])[None, :, None]
    x = x * present[..., None]
    found = boxes(x, present)
    first, second = (conv.weight.detach().numpy() for conv in (boxes.first, boxes.second))
    padded = np.pad(x[0].numpy(), ((0, 0), (2, 2), (0, 0)))
    for m in range(2):
        for row in range(4):
            for k in range(3):
                energies = [-1e4]
                for start in range(length):
                    for number, bases in enumerate((2, 3, 4)):
                        other = start + 5 + bases
                        if other >= length:
                            continue
                        energy = boxes.between[m, number, k].item()
                        for conv, at in ((first, start), (second, other)):
                            inside = bool(present[0, row, at])
                            one = (conv[m, k].T * padded[row, at : at + 5]).sum() if inside else -1e4
                            energy += float(one)
                        energies.append(energy)
                most = max(energies)
                wanted = most + math.log(sum(math.exp(energy - most) for energy in energies))
                assert found[m, row, k].item() == pytest.approx(wanted, rel=1e-9)
    assert torch.isfinite(torch.autograd.grad(found.sum(), boxes.between)[0]).all()


def test_rows_do_not_depend_on_each_other_and_networks_of_before_are_as_they_were() -> None:
    network, before = build(20), models.build(PLAIN, [1, 2], (4, 20), 2)
    more = network.state_dict()
    for name, tensor in before.state_dict().items():
        assert name == "head.layers.0.weight" or torch.equal(more[name], tensor.double()), name
    assert more["head.layers.0.weight"].shape[1] == before.state_dict()["head.layers.0.weight"].shape[1] + 3
    codes = torch.randint(0, 4, (6, 20), generator=torch.Generator().manual_seed(2))
    x = functional.one_hot(codes, 4).double().transpose(1, 2)[None]
    x[0, 2, :, :4] = 0  # padding of one row: the others are computed with its mask
    together = network(x)
    for row in range(6):
        torch.testing.assert_close(network(x[:, row : row + 1])[:, 0], together[:, row], rtol=0, atol=1e-12)
    assert (network(x.roll(1, 3)) - together).abs().max() > 1e-6


def test_a_pair_whose_distance_varies_is_found() -> None:
    generator = np.random.default_rng(3)
    codes, y = generator.integers(0, 4, (400, 40)), np.arange(400) % 2
    for row in range(400):  # all rows have both words, but only half of them in this order
        start, gap = generator.integers(0, 10), generator.integers(13, 17)
        words = ([0, 0, 1, 2, 3], [3, 1, 1, 0, 2])
        for word, at in zip(words if y[row] else words[::-1], (start, start + 5 + gap), strict=True):
            codes[row, at : at + 5] = word
    x = functional.one_hot(torch.from_numpy(codes), 4).float().transpose(1, 2)[None]
    network = models.build({**PLAIN, "boxes": 4, "box": 5, "pooling": "mean"}, [1], (4, 40), 2)
    optimizer = torch.optim.Adam(network.parameters(), 0.02)
    target = torch.from_numpy(y)
    for _ in range(60):
        optimizer.zero_grad()
        functional.cross_entropy(network(x[:, :300])[0], target[:300]).backward()
        optimizer.step()
    right = (network(x[:, 300:])[0].argmax(1) == target[300:]).float().mean()
    assert right > 0.85


@pytest.mark.parametrize(
    ("options", "place"),
    [
        ({"boxes": -1}, "model.boxes"),
        ({"box": 0}, "model.box"),
        ({"spacers": [3]}, "model.spacers"),
        ({"spacers": [5, 3]}, "model.spacers"),
        ({"spacers": [1, 2, 3]}, "model.spacers"),
        ({"reverse_complement": "equivariant"}, "model.boxes"),
    ],
)
def test_what_no_boxes_are_is_refused(options: dict[str, object], place: str) -> None:
    with pytest.raises(InputError) as caught:
        build(20, **options)
    assert caught.value.file == place
