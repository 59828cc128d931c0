"""The network of candidates, and the encoding that it reads: by loops over rows, and by what must not matter."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from genodl_spark.core.errors import InputError
from genodl_spark.features.pileups import NAMES
from genodl_spark.genetics.calling import pileups as packed
from genodl_spark.learning.encodings import pileups as encoding
from genodl_spark.learning.encodings.pileups import Encoding
from genodl_spark.learning.models.pileup import Network

AT, IMAGE_AT = int(np.prod(packed.COUNTS)), int(np.prod(packed.COUNTS) + np.prod(packed.IMAGE))
SMALL = {"hidden": [8], "channels": [3, 4]}


def rows(n: int, seed: int = 0) -> np.ndarray:
    """Packed rows of random reads, of which the lower ones hold none, and random evidence."""
    random = np.random.default_rng(seed)
    x = np.zeros((n, packed.WIDTH), np.uint8)
    x[:, :AT] = random.integers(0, 9, (n, AT))
    image = x[:, AT:IMAGE_AT].reshape(n, *packed.IMAGE)
    image[:, 0, 0] = random.integers(1, 5, (n, packed.IMAGE[2]))
    for one in image:
        reads = random.integers(1, 31)
        for channel, (low, high) in enumerate([(1, 7), (2, 42), (10, 61), (1, 3), (2, 255), (0, 4)]):
            one[channel, 1 : reads + 1] = random.integers(low, high, (reads, packed.IMAGE[2]))
    x[:, IMAGE_AT:] = random.integers(0, 256, (n, len(packed.EVIDENCE)))
    return x


def inputs(x: np.ndarray) -> dict[str, torch.Tensor]:
    return {name: part[None] for name, part in Encoding().tensor(torch.from_numpy(x), torch.float32).items()}


def network(seeds: list[int], **options: object) -> Network:
    """One whose last layers, which begin at 0, say something."""
    made = Network(seeds, Encoding().shape(len(NAMES)), 3, **{**SMALL, **options})  # type: ignore[arg-type]
    with torch.no_grad():
        for number, weights in enumerate(made.parameters()):
            for member, seed in enumerate(seeds):
                generator = torch.Generator().manual_seed(seed + 100 * number)
                weights[member] += 0.2 * torch.randn(weights[member].shape, generator=generator)
    return made


def test_the_encoding_knows_the_layout() -> None:
    assert (packed.COUNTS, packed.IMAGE, len(packed.EVIDENCE)) == (encoding.COUNTS, encoding.IMAGE, encoding.EVIDENCE)
    assert Encoding().width(len(NAMES)) == packed.WIDTH
    names = np.array(packed.EVIDENCE)
    assert names[encoding._CHANCES].tolist() == [
        f"{what}_{n}" for what in ("likelihood", "posterior") for n in range(3)
    ]
    assert names[encoding._POSTERIOR].tolist() == ["posterior_0", "posterior_1", "posterior_2"]
    assert names[encoding._CHANGE] == "change"
    assert names[encoding._LOGARITHM].tolist() == [
        "molecules", "molecules_for", "molecules_against", "for_forward", "for_reverse", "against_forward",
        "against_reverse", "starts_for", *(f"units_{n}" for n in range(1, 7)), "nearest",
    ]  # fmt: skip
    scaled = {name: float(scale) for name, scale in zip(names, encoding._SCALE, strict=True)}
    assert [scaled[n] for n in ("quality_for", "mapping_against", "to_end_for", "different_for")] == [40, 40, 75, 40]
    assert [scaled[n] for n in ("strength_against", "alleles", "overlapping", "share", "gc")] == [112.5, 4, 4, 255, 255]


def test_inputs_are_what_rows_say() -> None:
    x = rows(5)
    found = {name: part[0].numpy() for name, part in inputs(x).items()}
    assert {name: part.shape[1:] for name, part in found.items()} == Encoding().shape(len(NAMES))
    for row in range(len(x)):
        counts = x[row, :AT].reshape(packed.COUNTS).astype(float)
        image = x[row, AT:IMAGE_AT].reshape(packed.IMAGE)
        for base in range(packed.COUNTS[0]):
            same = int(image[0, 0, base + 8]) - 1
            others = [b for b in range(4) if b != same]
            most = max(others, key=lambda b: (counts[base, :, b].sum(), -b))
            depth = counts[base, :, :6].sum()
            expected = [
                value / max(depth, 1)
                for strand in range(2)
                for value in (
                    counts[base, strand, same],
                    counts[base, strand, most],
                    sum(counts[base, strand, b] for b in others if b != most),
                    *counts[base, strand, 4:],
                )
            ]
            assert found["counts"][row, base] == pytest.approx([*expected, np.log1p(depth) / 4], rel=1e-5)
        reads = found["reads"][row]
        for read, base in ((0, 3), (1, 20), (31, 7), (4, 40)):
            letter, quality, mapping, strand, support, differs = image[:, read, base].astype(float)
            expected = [letter == 1, letter == 2, letter == 3, letter == 4, letter == 6, quality / 40, mapping / 60]
            there = support > 0
            expected += [2 * strand - 3 if there else 0, (support - 128) / 126 if there else 0, differs / 2]
            assert reads[:, read, base] == pytest.approx(np.array(expected, float), rel=1e-5)
        posterior = -np.minimum(x[row, IMAGE_AT + 3 : IMAGE_AT + 6].astype(float), 50) * np.log(10) / 10
        assert found["posterior"][row] == pytest.approx(posterior, rel=1e-5)
    assert Encoding().baseline(x).shape == (5, len(packed.EVIDENCE) + 3)


def test_it_begins_with_what_the_likelihood_says() -> None:
    made = Network([1, 2], Encoding().shape(len(NAMES)), 3)
    x = inputs(rows(4))
    assert torch.allclose(made(x), 0.7 * x["posterior"].expand(2, -1, -1))
    assert sum(p[0].numel() for p in made.parameters()) < 500_000


def test_members_share_nothing() -> None:
    x = inputs(rows(6))
    both, alone = network([5, 9]), [network([seed]) for seed in (5, 9)]
    numbers = torch.arange(6)
    for given in ((), (numbers, 2)):
        said = both(x, *given)
        for member, one in enumerate(alone):
            assert torch.allclose(said[member], one(x, *given)[0], atol=1e-5)
    assert not torch.allclose(both(x)[0], both(x)[1])


def test_no_row_depends_on_others() -> None:
    x, made = rows(150), network([3])
    with torch.no_grad():
        whole = made(inputs(x))[0]
        others = rows(150, 1)
        others[[7, 149, 70]] = x[[70, 7, 149]]
        assert torch.equal(made(inputs(others))[0][[7, 149, 70]], whole[[70, 7, 149]])
        order = torch.randperm(150, generator=torch.Generator().manual_seed(0))
        trained = made(inputs(x), torch.arange(150), 4)[0]
        turned = made(inputs(x[order.numpy()]), order, 4)[0]
    assert torch.allclose(turned, trained[order], atol=1e-5)


def test_half_of_the_reads_are_not_seen_in_training() -> None:
    x, made = rows(200), network([3], dropout=0.0, sure=1.0)
    blank = x.copy()
    blank[:, AT:IMAGE_AT].reshape(-1, *packed.IMAGE)[:, :, 1:] = 0
    with torch.no_grad():
        numbers = torch.arange(200)
        unread = (made(inputs(x), numbers, 1) == made(inputs(blank), numbers, 1)).all(-1)[0]
        other = (made(inputs(x), numbers, 2) == made(inputs(blank), numbers, 2)).all(-1)[0]
        seen = (made(inputs(x)) != made(inputs(blank))).any(-1)[0]
    assert 70 < int(unread.sum()) < 130
    assert not torch.equal(unread, other)
    assert bool(seen.all())


def test_reads_are_not_looked_at_where_all_agree() -> None:
    x = rows(40)
    x[:, IMAGE_AT + 3 : IMAGE_AT + 6] = [99, 0, 99]
    x[::2, IMAGE_AT + 3 : IMAGE_AT + 6] = [3, 3, 30]
    blank = x.copy()
    blank[:, AT:IMAGE_AT].reshape(-1, *packed.IMAGE)[:, :, 1:] = 0
    made = Network([0], Encoding().shape(len(NAMES)), 3, **SMALL, sure=0.99)  # type: ignore[arg-type]
    torch.nn.init.ones_(made.reads.head.weight)
    with torch.no_grad():
        same = (made(inputs(x)) == made(inputs(blank))).all(-1)[0]
    assert same[1::2].all()
    assert not same[::2].any()
    with torch.no_grad():  # now the layers are sure of another number
        made.layers.layers[-1].bias[..., 0] = 40
        same = (made(inputs(x)) == made(inputs(blank))).all(-1)[0]
    assert not same[1::2].any()


def test_what_only_reads_tell_is_learnt() -> None:
    x = rows(96)
    label = torch.arange(96) % 3
    image = x[:, AT:IMAGE_AT].reshape(-1, *packed.IMAGE)
    image[:, 5] = np.where(image[:, 4] > 0, label.numpy()[:, None, None], 0)
    made = Network([0], Encoding().shape(len(NAMES)), 3, **SMALL, unread=0.0)  # type: ignore[arg-type]
    optimizer, seen = torch.optim.Adam(made.parameters(), lr=0.02), inputs(x)
    for step in range(50):
        loss = torch.nn.functional.cross_entropy(made(seen, torch.arange(96), step)[0], label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert (made(seen)[0].argmax(-1) == label).float().mean() > 0.95


@pytest.mark.parametrize(
    ("shape", "outputs", "options"),
    [
        ({"counts": (25, 15)}, 3, {}),
        ((12,), 3, {}),
        (Encoding().shape(len(NAMES)), 2, {}),
        (Encoding().shape(len(NAMES)), 3, {"unread": 1.0}),
        (Encoding().shape(len(NAMES)), 3, {"channels": [0]}),
        (Encoding().shape(len(NAMES)), 3, {"sure": 2.0}),
    ],
)
def test_other_rows_and_options_are_refused(shape: object, outputs: int, options: dict[str, object]) -> None:
    with pytest.raises(InputError):
        Network([0], shape, outputs, **options)  # type: ignore[arg-type]
