"""Kinds of networks against plain torch networks of the same weights, and what all of them owe:
members, ranks and batches do not matter."""

from __future__ import annotations

import itertools
import threading
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import nn
from torch.nn import functional

from genodl_spark.core.errors import InputError
from genodl_spark.learning import models
from genodl_spark.learning.models import layers

LENGTH, FEATURES, BATCH = 23, 9, 6
KINDS: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {
    "mlp": ({"kind": "mlp", "hidden": [6], "dropout": 0.3, "input_dropout": 0.2}, (FEATURES,)),
    "mlp of a sequence": ({"kind": "mlp", "hidden": [6]}, (4, LENGTH)),
    "cnn": (
        {
            "kind": "cnn",
            "channels": [6, 8],
            "stem_kernel": 7,
            "kernel": 3,
            "dilations": [1, 2],
            "pool": 2,
            "dropout": 0.3,
        },
        (4, LENGTH),
    ),
    "cnn, both strands": (
        {
            "kind": "cnn",
            "channels": [6],
            "hidden": [],
            "reverse_complement": "augment",
            "average_strands": True,
            "pooling": "max",
        },
        (4, LENGTH),
    ),
    "cnn, shared strands": (
        {"kind": "cnn", "channels": [6], "norm": "none", "reverse_complement": "equivariant", "dropout": 0.3},
        (4, LENGTH),
    ),
    "cnn, batch norm": (
        {"kind": "cnn", "channels": [6], "dilations": [1], "norm": "batch", "pooling": "mean"},
        (4, LENGTH),
    ),
    "cnn, several pools": (
        {"kind": "cnn", "channels": [6], "dilations": [1], "pooling": ["attention", "max", "mean"], "dropout": 0.3},
        (4, LENGTH),
    ),
    "cnn, positions": (
        {"kind": "cnn", "channels": [6, 8], "dilations": [1], "pool": 2, "pooling": "max", "positional": 3, "shift": 4},
        (4, LENGTH),
    ),
    "cnn, positions of shared strands": (
        {
            "kind": "cnn",
            "channels": [6],
            "dilations": [1],
            "reverse_complement": "equivariant",
            "pooling": ["mean", "attention"],
            "positional": 2,
            "dropout": 0.3,
        },
        (4, LENGTH),
    ),
    "gru": ({"kind": "rnn", "channels": 5, "units": 4, "pool": 2, "layers": 2, "dropout": 0.3}, (4, LENGTH)),
    "lstm": (
        {"kind": "rnn", "channels": 5, "units": 4, "stride": 2, "pool": 1, "cell": "lstm", "pooling": "last"},
        (4, LENGTH),
    ),
    "gru, several pools": (
        {"kind": "rnn", "channels": 5, "units": 4, "pooling": ["max", "attention"], "dropout": 0.3},
        (4, LENGTH),
    ),
    "autoencoder": ({"kind": "autoencoder", "hidden": [7], "latent": 3, "denoising": 0.2, "dropout": 0.2}, (FEATURES,)),
    "variational": ({"kind": "autoencoder", "hidden": [7], "latent": 3, "variational": True, "beta": 0.5}, (FEATURES,)),
    "concat": (
        {"kind": "fusion", "sizes": [2, 3, 4], "encoder": [5, 6], "dropout": 0.2, "modality_dropout": 0.3},
        (FEATURES,),
    ),
    "gated": (
        {"kind": "fusion", "sizes": [2, 3, 4], "fusion": "gated", "input_dropout": 0.2, "modality_dropout": 0.3},
        (FEATURES,),
    ),
    "late": ({"kind": "late", "sizes": [2, 3, 4], "input_dropout": 0.2, "modality_dropout": 0.3}, (FEATURES,)),
}
# those that draw something in training
SAMPLED = [kind for kind in KINDS if kind not in ("mlp of a sequence", "cnn, batch norm", "lstm")]


def build(kind: str, seeds: list[int], outputs: int = 2, **options: Any) -> nn.Module:
    """A network in float64, moved off its start, where norms and biases are 1 and 0;
    each member in its own way, by its seed."""
    known, inputs = KINDS[kind]
    network = models.build({**known, **options}, seeds, inputs, outputs).double()
    return moved(network, seeds)


def moved(network: nn.Module, seeds: list[int]) -> nn.Module:
    with torch.no_grad():
        for m, seed in enumerate(seeds):
            generator = torch.Generator().manual_seed(seed)
            for p in network.parameters():
                p[m] += 0.2 * torch.randn(p.shape[1:], generator=generator, dtype=torch.float64)
            for b in network.buffers():
                b[m] += torch.rand(b.shape[1:], generator=generator, dtype=torch.float64)
    return network


def batch(kind: str, rows: int = BATCH, seed: int = 0) -> torch.Tensor:
    """x (1, rows, *inputs) float64; of sequences some bases are unknown and the second row is padded."""
    inputs = KINDS[kind][1]
    generator = torch.Generator().manual_seed(seed)
    if len(inputs) == 1:
        return torch.randn(1, rows, *inputs, generator=generator, dtype=torch.float64)
    return sequences(rows, inputs[1], generator)


def sequences(rows: int, length: int, generator: torch.Generator) -> torch.Tensor:
    codes = torch.randint(-1, 4, (1, rows, length), generator=generator)
    codes[:, 1:2, length - length // 4 :] = -1
    return functional.one_hot(codes + 1, 5)[..., 1:].double().transpose(2, 3)


def loss(network: nn.Module, x: torch.Tensor, rows: torch.Tensor | None, epoch: int = 3) -> torch.Tensor:
    """Per member and row, (M, B)."""
    found = (network(x, rows, epoch) - 1).square().sum(2)
    return found if network.auxiliary is None else found + network.auxiliary


@pytest.mark.parametrize("kind", KINDS)
def test_a_member_depends_on_its_seed_alone(kind: str) -> None:
    """Outputs, losses and gradients of one among three are those of one by itself,
    whose parameters are a slice of theirs."""
    x, rows = batch(kind), torch.arange(BATCH) + 40
    together, alone = build(kind, [7, 8, 9]), build(kind, [8])
    for name, tensor in together.state_dict().items():
        assert torch.equal(tensor[1:2], alone.state_dict()[name]), name
    torch.testing.assert_close(together(x)[1:2], alone(x), rtol=0, atol=1e-12)
    torch.testing.assert_close(together(x.expand(3, *x.shape[1:]))[1:2], alone(x), rtol=0, atol=1e-12)
    losses, own = loss(together, x, rows), loss(alone, x, rows)
    torch.testing.assert_close(losses[1:2], own, rtol=0, atol=1e-12)
    losses.sum().backward()
    own.sum().backward()
    for (name, p), q in zip(together.named_parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(p.grad[1:2], q.grad, rtol=0, atol=1e-10, msg=name)
    for name, tensor in together.state_dict().items():
        torch.testing.assert_close(tensor[1:2], alone.state_dict()[name], rtol=0, atol=1e-12, msg=name)
    assert not torch.allclose(together(x)[0], together(x)[1])


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_learns(kind: str) -> None:
    network, x = build(kind, [1, 2]), batch(kind, 12)
    loss(network, x, torch.arange(12)).sum().backward()
    for name, p in network.named_parameters():
        assert p.dim() > 1 and len(p) == 2, name
        assert p.grad is not None and (p.grad.flatten(1).abs().amax(1) > 1e-9).all(), name


@pytest.mark.parametrize("kind", KINDS)
def test_a_rank_without_rows_takes_part(kind: str) -> None:
    network, x = build(kind, [1, 2]), batch(kind)[:, :0]
    found = loss(network, x, torch.arange(0))
    assert found.shape == (2, 0)
    found.sum().backward()
    assert all(p.grad is None or not p.grad.any() for p in network.parameters())


@pytest.mark.parametrize("kind", SAMPLED)
def test_what_is_drawn_depends_on_seed_epoch_and_row_alone(kind: str) -> None:
    network, x, rows = build(kind, [1, 2]), batch(kind), torch.arange(BATCH) + 40
    whole = loss(network, x, rows)
    torch.manual_seed(99)
    order = torch.tensor([4, 0, 5, 3, 1, 2])
    torch.testing.assert_close(loss(network, x[:, order], rows[order]), whole[:, order], rtol=0, atol=1e-12)
    torch.testing.assert_close(loss(network, x[:, 2:5], rows[2:5]), whole[:, 2:5], rtol=0, atol=1e-12)
    assert torch.equal(loss(network, x, rows), whole)
    assert not torch.allclose(loss(network, x, rows, epoch=4), whole)
    assert not torch.allclose(loss(network, x, rows + 1), whole)
    same = network.state_dict()
    network.load_state_dict({name: tensor[:1].expand_as(tensor) for name, tensor in same.items()})
    first, second = loss(network, x, rows)
    assert not torch.allclose(first, second)  # members of equal weights draw each for itself


@pytest.mark.parametrize("kind", KINDS)
def test_evaluation_draws_nothing(kind: str) -> None:
    network, x = build(kind, [1, 2]), batch(kind)
    before = network(x)
    loss(network, x, torch.arange(BATCH))
    network(x, None, 5)
    assert network.auxiliary is None
    if kind != "cnn, batch norm":  # whose statistics have moved
        assert torch.equal(network(x), before)
    torch.testing.assert_close(network(x[:, 1:3]), network(x)[:, 1:3], rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_half_precision_stays_near(kind: str) -> None:
    network, x = build(kind, [1, 2]).float(), batch(kind).float()
    with torch.autocast("cpu", torch.bfloat16):
        found = loss(network, x, torch.arange(BATCH))
    expected = loss(network, x, torch.arange(BATCH))
    torch.testing.assert_close(found.float(), expected, rtol=0.1, atol=0.1)
    found.sum().backward()
    assert all(p.grad.isfinite().all() for p in network.parameters())


def member(network: nn.Module, m: int) -> dict[str, torch.Tensor]:
    return {name: tensor[m] for name, tensor in network.state_dict().items()}


def dense(own: dict[str, torch.Tensor], prefix: str, x: torch.Tensor) -> torch.Tensor:
    """A plain perceptron of a member's weights `prefix`layers.N; x (B, inputs)."""
    numbers = sorted(
        int(name.split(".")[-2]) for name in own if name.startswith(f"{prefix}layers.") and name.endswith("weight")
    )
    for number in numbers:
        x = x if number == 0 else functional.gelu(x)
        x = functional.linear(x, own[f"{prefix}layers.{number}.weight"].T, own[f"{prefix}layers.{number}.bias"][0])
    return x


@pytest.mark.parametrize("m", [0, 1])
@pytest.mark.parametrize("norm", ["layer", "batch", "none"])
@pytest.mark.parametrize(
    ("pooling", "positional"),
    [("attention", 0), (["max", "attention", "mean"], 0), (["mean"], 3), (["attention", "max"], 2)],
)
def test_cnn_is_a_plain_network(pooling: str | list[str], positional: int, norm: str, m: int) -> None:
    network = build("cnn", [3, 4], norm=norm, kernel=4, pooling=pooling, positional=positional)
    x = sequences(BATCH, LENGTH, torch.Generator().manual_seed(1))[:, [0, 2, 3, 4, 5]]
    x[..., 0], x[..., -1] = torch.eye(4)[0], torch.eye(4)[1]  # no padding
    own = member(network, m)

    def conv(name: str, x: torch.Tensor, dilation: int = 1) -> torch.Tensor:
        weight = own[f"{name}.weight"]
        plain = nn.Conv1d(
            weight.shape[1], weight.shape[0], weight.shape[2], dilation=dilation, bias=norm != "batch"
        ).double()
        plain.load_state_dict({part: own[f"{name}.{part}"] for part, _ in plain.named_parameters()})
        beyond = dilation * (weight.shape[2] - 1)
        return plain(functional.pad(x, (beyond // 2, beyond - beyond // 2)))

    def normalise(name: str, x: torch.Tensor) -> torch.Tensor:
        if norm == "none":
            return x
        gain, shift = own[f"{name}.weight"], own[f"{name}.bias"]
        if norm == "batch":
            return functional.batch_norm(x, own[f"{name}.running_mean"], own[f"{name}.running_variance"], gain, shift)
        return functional.layer_norm(x.transpose(1, 2), gain.shape, gain, shift).transpose(1, 2)

    y = conv("stem", x[0])
    for stage in (0, 1):
        if stage:
            y = conv("between.0", functional.max_pool1d(y, 2, ceil_mode=True))
        for block, dilation in ((0, 1), (1, 2)):
            name = f"stages.{stage}.{block}"
            z = conv(f"{name}.wide", functional.gelu(normalise(f"{name}.first", y)), dilation)
            y = y + conv(f"{name}.point", functional.gelu(normalise(f"{name}.second", z)))
    y = functional.gelu(normalise("norm", y))
    pooled = {"max": y.amax(2), "mean": y.mean(2)}
    if "attention" in pooling:
        attention = torch.softmax(torch.einsum("bcl,c->bl", y, own["pooling.attention.weight"]), 1)
        pooled["attention"] = torch.einsum("bcl,bl->bc", y, attention)
    seen = [pooled[way] for way in ([pooling] if isinstance(pooling, str) else pooling)]
    if positional:
        seen += torch.einsum("bcl,pc->lbp", y, own["positional.conv.weight"][..., 0])
    expected = dense(own, "head.", torch.cat(seen, 1))
    torch.testing.assert_close(network(x)[m], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("m", [0, 1])
@pytest.mark.parametrize("pooling", ["mean", "max", "last", ["max", "mean"]])
@pytest.mark.parametrize("cell", ["gru", "lstm"])
@pytest.mark.parametrize("padded", [True, False])
def test_rnn_is_a_plain_network(cell: str, pooling: str | list[str], m: int, padded: bool) -> None:
    """Row by row, without its padding."""
    network = build("gru", [3, 4], cell=cell, pooling=pooling, stride=2, kernel=5)
    x = batch("gru")
    if not padded:
        x[..., 0], x[..., -1] = torch.eye(4)[0], torch.eye(4)[1]
    own = member(network, m)
    plain = (nn.GRU if cell == "gru" else nn.LSTM)(5, 4, 2, bidirectional=True, batch_first=True).double()
    plain.load_state_dict(
        {name.removeprefix("recurrence."): tensor for name, tensor in own.items() if name.startswith("recurrence.")}
    )
    for row in range(BATCH):
        end = int(x[0, row].any(0).nonzero().max()) + 1
        y = functional.gelu(
            functional.conv1d(x[0, row : row + 1, :, :end], own["stem.weight"], own["stem.bias"], stride=2, padding=2)
        )
        states, last = plain(functional.max_pool1d(y, 2, ceil_mode=True).transpose(1, 2))
        last = last[0] if cell == "lstm" else last
        found = {"mean": states.mean(1), "max": states.amax(1), "last": torch.cat([last[-2], last[-1]], 1)}
        pooled = torch.cat([found[way] for way in ([pooling] if isinstance(pooling, str) else pooling)], 1)
        torch.testing.assert_close(network(x)[m, row : row + 1], dense(own, "head.", pooled), rtol=0, atol=1e-12)


@pytest.mark.parametrize("m", [0, 1])
def test_variational_autoencoder_is_a_plain_network(m: int) -> None:
    network, x, rows = (
        build("variational", [3, 4], denoising=0.3, reconstruction=0.7),
        batch("variational"),
        torch.arange(BATCH),
    )
    own = member(network, m)
    mean, log_variance = dense(own, "encoder.", x[0]).chunk(2, 1)
    torch.testing.assert_close(network.encode(x)[m], mean, rtol=0, atol=1e-12)
    torch.testing.assert_close(network.reconstruct(x)[m], dense(own, "decoder.", mean), rtol=0, atol=1e-12)
    torch.testing.assert_close(network(x)[m], dense(own, "head.", mean), rtol=0, atol=1e-12)

    outputs = network(x, rows, 3)[m]
    kept = layers.keyed_kept(FEATURES, 0.3, rows, layers.keys([3, 4], 3, 0, x.device))[m]
    assert 0.5 < kept.double().mean().item() < 0.9
    mean, log_variance = dense(own, "encoder.", x[0] * kept).chunk(2, 1)
    torch.testing.assert_close(outputs, dense(own, "head.", mean), rtol=0, atol=1e-12)
    noise = layers.keyed_normal(3, rows, *(layers.keys([3, 4], 3, n, x.device) for n in (1, 2)), dtype=torch.float64)[m]
    latent = torch.distributions.Normal(mean, (log_variance / 2).exp())
    divergence = torch.distributions.kl_divergence(latent, torch.distributions.Normal(torch.zeros_like(mean), 1.0)).sum(
        1
    )
    error = functional.mse_loss(dense(own, "decoder.", mean + latent.scale * noise), x[0], reduction="none").mean(1)
    torch.testing.assert_close(network.auxiliary[m], 0.7 * error + 0.5 * divergence, rtol=0, atol=1e-12)


def test_plain_autoencoder_reconstructs_what_it_encodes() -> None:
    network, x = build("autoencoder", [3], denoising=0.0, dropout=0.0), batch("autoencoder")
    network(x, torch.arange(BATCH))
    torch.testing.assert_close(network.auxiliary, (network.reconstruct(x) - x).square().mean(2), rtol=0, atol=1e-12)
    optimizer = torch.optim.Adam(network.parameters(), 0.01)
    start = network.auxiliary.mean().item()
    for _ in range(200):
        optimizer.zero_grad()
        network(x, torch.arange(BATCH))
        network.auxiliary.mean().backward()
        optimizer.step()
    assert network.auxiliary.mean().item() < 0.1 * start


@pytest.mark.parametrize("m", [0, 1])
@pytest.mark.parametrize("kind", ["concat", "gated"])
def test_fusion_is_a_plain_network(kind: str, m: int) -> None:
    network, x = build(kind, [3, 4], encoder=[5, 6]), batch(kind)
    x[0, 0, 2:5] = 0  # the first row lacks its second block
    x[0, 1] = 0  # and the second row has nothing, which is to be at the mean of everything
    own = member(network, m)
    present = torch.ones(BATCH, 3, dtype=torch.bool)
    present[0, 1] = False
    encoded = torch.stack(
        [functional.gelu(dense(own, f"encoders.{b}.", values)) for b, values in enumerate(x[0].split([2, 3, 4], 1))], 1
    )
    if kind == "concat":
        fused = (encoded * present[..., None]).flatten(1)
    else:

        def linear(name: str) -> torch.Tensor:
            return encoded @ own[f"{name}.weight"] + own[f"{name}.bias"]

        scores = (linear("content").tanh() * linear("gate").sigmoid()) @ own["attention.weight"]
        fused = (torch.softmax(scores.masked_fill(~present, -torch.inf), 1)[..., None] * encoded).sum(1)
    torch.testing.assert_close(network(x)[m], dense(own, "head.", fused), rtol=0, atol=1e-12)


@pytest.mark.parametrize("m", [0, 1])
def test_late_fusion_is_the_mean_of_the_models_of_what_a_row_has(m: int) -> None:
    network, x = build("late", [3, 4]), batch("late")
    network.known[:] = 1
    network.known[1, -1] = 0  # the second member has no model of all blocks
    x[0, 0, 2:5] = 0  # the first row lacks its second block, the second row has the third alone
    x[0, 1, :5] = 0
    own, columns = member(network, m), [[0, 1], [2, 3, 4], [5, 6, 7, 8]]
    sets = [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)]
    for row, has in enumerate([{0, 2}, {2}, {0, 1, 2}, {0, 1, 2}]):
        said = [
            x[0, row, [c for b in chosen for c in columns[b]]] @ own[f"experts.{number}.weight"]
            + own[f"experts.{number}.bias"][0]
            for number, chosen in enumerate(sets)
            if set(chosen) <= has and not (m == 1 and number == 6)
        ]
        torch.testing.assert_close(network(x)[m, row], torch.stack(said).mean(0), rtol=0, atol=1e-12)
    for expert, blocks in network.linear_models():
        assert expert.weight.shape[1] == sum(map(len, blocks))


@pytest.mark.parametrize("kind", ["concat", "gated", "late"])
def test_modalities_are_dropped_whole_and_never_all(kind: str) -> None:
    """What training makes of a row is what evaluation makes of it without some of its blocks,
    but never without all it has."""
    rate, rows = 0.6, torch.arange(200)
    options = {} if kind == "late" else {"dropout": 0.0}
    network, x = build(kind, [3], input_dropout=0.0, modality_dropout=rate, **options), batch(kind, 200)
    x[0, 150:, 2:5] = 0  # the last rows lack a block from the start
    subsets = [s for s in itertools.product([False, True], repeat=3) if any(s)]
    without = []
    for subset in subsets:
        part = x.clone()
        for kept, values in zip(subset, part.split([2, 3, 4], 2), strict=True):
            values.mul_(kept)
        without.append(network(part)[0])
    found = network(x, rows, 1)[0]
    distance = (torch.stack(without) - found).abs().amax(2)
    assert (distance.amin(0) < 1e-12).all()
    kept = torch.tensor(subsets)[distance.argmin(0)[:150]].sum(1)
    # of rows with 1, 2 and 3 blocks
    share = [rate**3 + 3 * (1 - rate) * rate**2, 3 * (1 - rate) ** 2 * rate, (1 - rate) ** 3]
    np.testing.assert_allclose(torch.bincount(kept, minlength=4)[1:] / 150, share, atol=0.1)
    lacking = subsets.index((False, True, False))
    assert (distance[lacking, 150:] > 1e-6).all()


@settings(max_examples=60, deadline=None)
@given(
    length=st.integers(1, 40),
    stem=st.integers(1, 9),
    kernel=st.integers(1, 6),
    dilations=st.lists(st.integers(1, 5), min_size=1, max_size=2),
    channels=st.lists(st.sampled_from([4, 6]), min_size=1, max_size=3),
    pool=st.integers(1, 5),
    norm=st.sampled_from(["layer", "batch", "none"]),
    pooling=st.sampled_from(["attention", "max", "mean", ["max", "attention"], ["mean", "max", "attention"]]),
    positional=st.sampled_from([0, 2, 4]),
    padded=st.booleans(),
    training=st.booleans(),
)
def test_shared_strands_give_a_sequence_and_its_reverse_complement_the_same_outputs(
    length: int,
    stem: int,
    kernel: int,
    dilations: list[int],
    channels: list[int],
    pool: int,
    norm: str,
    pooling: str | list[str],
    positional: int,
    padded: bool,
    training: bool,
) -> None:
    options = {
        "channels": channels,
        "stem_kernel": stem,
        "kernel": kernel,
        "dilations": dilations,
        "pool": pool,
        "norm": norm,
        "pooling": pooling,
        "positional": positional,
    }
    network = models.build(
        {"kind": "cnn", "reverse_complement": "equivariant", "dropout": 0.2, **options}, [1, 2], (4, length), 3
    ).double()
    moved(network, [1, 2])
    x = sequences(5, length, torch.Generator().manual_seed(length))
    if not padded:
        x[..., 0], x[..., -1] = torch.eye(4)[0], torch.eye(4)[1]
    rows = torch.arange(5) if training else None
    torch.testing.assert_close(
        network(x, rows, 2), network(x.flip(2, 3), rows, 2), rtol=0, atol=1e-11 if training else 1e-12
    )
    # In float32 not with layer norm: where few channels are nearly equal, it makes their rounding errors large.
    single = network.float()
    if norm != "layer":
        torch.testing.assert_close(single(x.float()), single(x.flip(2, 3).float()), rtol=0, atol=1e-5)


def test_unshared_strands_differ() -> None:
    network, x = build("cnn", [1]), batch("cnn")
    assert not torch.allclose(network(x), network(x.flip(2, 3)), atol=1e-3)


def test_strands_are_averaged_in_evaluation_and_drawn_in_training() -> None:
    network, rows = build("cnn, both strands", [1, 2]), torch.arange(200)
    x = batch("cnn, both strands", 200)
    forward, backward = (build("cnn, both strands", [1, 2], average_strands=False)(part) for part in (x, x.flip(2, 3)))
    torch.testing.assert_close(network(x), (forward + backward) / 2, rtol=0, atol=1e-12)
    found = network(x, rows, 1)
    turned = (found - backward).abs().amax(2) < 1e-12
    assert ((found - forward).abs().amax(2) < 1e-12).logical_xor(turned).all()
    np.testing.assert_allclose(turned.double().mean(1), 0.5, atol=0.1)
    assert (turned[0] == turned[1]).double().mean().item() == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize(
    ("kernel", "dilation", "stride", "length"),
    [(1, 1, 1, 5), (4, 1, 1, 7), (4, 3, 1, 6), (5, 2, 1, 3), (6, 1, 3, 11), (3, 1, 2, 8)],
)
def test_convolution_is_that_of_torch(kernel: int, dilation: int, stride: int, length: int) -> None:
    conv = layers.MemberConv([1, 2], 3, 4, kernel, 0, dilation, stride).double()
    x = torch.randn(1, 2, length, 3, dtype=torch.float64)
    beyond = dilation * (kernel - 1)
    padded = functional.pad(x[0].transpose(1, 2), (beyond // 2, beyond - beyond // 2))
    found = conv(x)
    assert found.shape == (2, 2, -(-length // stride), 4)
    for m in range(2):
        expected = functional.conv1d(padded, conv.weight[m], conv.bias[m], stride, 0, dilation)
        torch.testing.assert_close(found[m].transpose(1, 2), expected, rtol=0, atol=1e-12)


def at_start_and_end(network: nn.Module, x: torch.Tensor, extra: int) -> tuple[torch.Tensor, torch.Tensor]:
    return network(x), network(functional.pad(x, (0, extra)))


@pytest.mark.parametrize("extra", [1, 2, 6, 40])
@pytest.mark.parametrize("pooling", ["attention", "max", "mean", ["mean", "attention", "max"]])
@pytest.mark.parametrize("kind", ["cnn", "cnn, batch norm", "gru", "lstm"])
def test_padding_behind_a_sequence_changes_nothing(kind: str, pooling: str | list[str], extra: int) -> None:
    network, x = build(kind, [1, 2], pooling=pooling), batch(kind)
    torch.testing.assert_close(*at_start_and_end(network, x, extra), rtol=0, atol=1e-12)
    if kind == "lstm":
        torch.testing.assert_close(*at_start_and_end(build(kind, [1, 2], pooling="last"), x, extra), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("kind", "pooling"),
    [
        *itertools.product(
            [
                "cnn",
                "cnn, both strands",
                "cnn, shared strands",
                "cnn, batch norm",
                "cnn, positions",
                "cnn, positions of shared strands",
            ],
            ["attention", "mean", "max", ["attention", "mean", "max"]],
        ),
        *itertools.product(["gru", "lstm"], ["attention", "mean", "max", "last", ["attention", "mean", "max"]]),
    ],
)
def test_padding_of_other_rows_changes_no_bit(kind: str, pooling: str | list[str]) -> None:
    """A sequence without padding is scored alike beside others without and beside padded ones."""
    network, x = build(kind, [1, 2], pooling=pooling).float(), batch(kind).float()
    x[..., 0], x[..., -1] = torch.eye(4)[0], torch.eye(4)[1]
    padded = x.clone()
    padded[:, ::2, :, 15:] = 0
    padded[:, 2] = 0
    assert torch.equal(network(padded)[:, 1::2], network(x)[:, 1::2])


def test_padding_before_a_sequence_changes_nothing_without_pool() -> None:
    network, x = build("cnn", [1, 2], pool=1), batch("cnn")
    torch.testing.assert_close(network(x), network(functional.pad(x, (5, 0))), rtol=0, atol=1e-12)
    assert not torch.allclose(network(x), network(functional.pad(x[..., 1:], (1, 0))))  # what is missing is no padding


def test_unknown_bases_inside_are_no_padding() -> None:
    codes = torch.tensor([[[-1, 0, -1, 2, -1, -1], [3, -1, -1, -1, -1, 1], [-1, -1, -1, -1, -1, -1]]])
    x = functional.one_hot(codes + 1, 5)[..., 1:].float()
    assert layers.unpadded(x).int().tolist() == [[[0, 1, 1, 1, 0, 0], [1] * 6, [1] * 6]]
    assert layers.unpadded(x[:, 1:2]) is None


@settings(max_examples=50, deadline=None)
@given(length=st.integers(1, 30), factor=st.integers(2, 6), symmetric=st.booleans())
def test_maxima_are_taken_over_windows_that_cover_everything(length: int, factor: int, symmetric: bool) -> None:
    x = torch.randn(1, 2, length, 3)
    present = torch.arange(length).expand(1, 2, -1) < torch.tensor([[[length], [length // 2]]])
    found, kept = layers.max_pool(x, present, factor, symmetric)
    wide = min(length, factor + length % factor) if symmetric else factor
    starts = list(range(0, length - wide + 1, factor)) if symmetric else list(range(0, length, factor))
    assert not symmetric or [length - s - wide for s in reversed(starts)] == starts
    assert kept.shape[2] == len(starts) and max(starts) + wide >= length
    for row, end in enumerate((length, length // 2)):
        for w, start in enumerate(starts):
            part = x[0, row, start : min(start + wide, end)]
            assert bool(kept[0, row, w]) == (len(part) > 0)
            assert torch.equal(found[0, row, w], part.amax(0) if len(part) else torch.zeros(3))
    assert torch.equal(layers.max_pool(x, None, factor, symmetric)[0][0, 0], found[0, 0])


def test_batch_norm_is_that_of_torch() -> None:
    norm = moved(layers.MemberBatchNorm(2, 3).double(), [1, 2])
    norm.running_mean.zero_()
    norm.running_variance.fill_(1)
    plain = [nn.BatchNorm1d(3).double() for _ in range(2)]
    for m, p in enumerate(plain):
        p.load_state_dict({"weight": norm.weight[m], "bias": norm.bias[m]}, strict=False)
    for step in range(3):
        x = torch.randn(2, 4, 5, 3, dtype=torch.float64) * 3 + step
        ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
        norm.weights = torch.ones(2, 4) if step else None
        found = norm(ours, True)
        expected = torch.stack([p(theirs[m].transpose(1, 2)).transpose(1, 2) for m, p in enumerate(plain)])
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
        norm.zero_grad()
        found.pow(3).sum().backward()
        for p in plain:
            p.zero_grad()
        expected.pow(3).sum().backward()
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=0, atol=1e-10)
        for m, p in enumerate(plain):
            torch.testing.assert_close(norm.weight.grad[m], p.weight.grad, rtol=1e-12, atol=1e-12)
            torch.testing.assert_close(norm.running_mean[m], p.running_mean, rtol=0, atol=1e-12)
            torch.testing.assert_close(norm.running_variance[m], p.running_var, rtol=0, atol=1e-12)
    x = torch.randn(2, 4, 5, 3, dtype=torch.float64)
    expected = torch.stack([p.eval()(x[m].transpose(1, 2)).transpose(1, 2) for m, p in enumerate(plain)])
    torch.testing.assert_close(norm(x, False), expected, rtol=0, atol=1e-12)


def test_rows_that_a_member_does_not_learn_from_have_no_part_in_its_statistics() -> None:
    norm, x = layers.MemberBatchNorm(2, 3).double(), torch.randn(1, 6, 5, 3, dtype=torch.float64).expand(2, -1, -1, -1)
    norm.weights = torch.tensor([[1, 0, 1, 1, 0, 1], [0, 0, 0, 0, 0, 0]])
    present = torch.arange(5).expand(1, 6, -1) < 4
    found = norm(x, True, present)
    learnt = x[0, norm.weights[0].bool(), :4].flatten(0, 1)
    mean, variance = learnt.mean(0), learnt.var(0, correction=0)
    torch.testing.assert_close(found[0], (x[0] - mean) / (variance + 1e-5).sqrt(), rtol=0, atol=1e-12)
    torch.testing.assert_close(norm.running_variance[0], 0.9 + 0.1 * learnt.var(0), rtol=0, atol=1e-12)
    # it learns from none: its statistics stay
    torch.testing.assert_close(found[1], x[1] / (1 + 1e-5) ** 0.5, rtol=0, atol=1e-12)
    assert torch.equal(norm.running_mean[1], torch.zeros(3)) and torch.equal(norm.running_variance[1], torch.ones(3))


class Ranks:
    """A sum over threads that gradients pass through, as an all-reduce is."""

    def __init__(self, size: int) -> None:
        self.barrier = threading.Barrier(size, timeout=60)
        self.parts: list[torch.Tensor | None] = [None] * size

    def sum(self, rank: int, local: torch.Tensor) -> torch.Tensor:
        self.parts[rank] = local
        self.barrier.wait()
        total = sum(self.parts[1:], self.parts[0])
        self.barrier.wait()
        return total

    def reduce(self, rank: int) -> Any:
        ranks = self

        class Sum(torch.autograd.Function):
            @staticmethod
            def forward(ctx: Any, local: torch.Tensor) -> torch.Tensor:
                return ranks.sum(rank, local)

            @staticmethod
            def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
                return ranks.sum(rank, gradient)

        return Sum.apply


@pytest.mark.parametrize("strands", ["none", "equivariant"])
@pytest.mark.parametrize("shares", [[slice(0, 2), slice(2, 6)], [slice(0, 6), slice(6, 6)]])
def test_batch_norm_over_ranks_is_that_of_the_whole_batch(shares: list[slice], strands: str) -> None:
    """Two ranks, one of which may have no rows: outputs, summed gradients and running statistics are those of one."""
    x, rows = batch("cnn, batch norm"), torch.arange(BATCH)
    weights = torch.tensor([[1, 1, 0, 1, 0, 1], [1, 0, 1, 1, 1, 0.0]])
    whole = build("cnn, batch norm", [1, 2], reverse_complement=strands)
    models.share_statistics(whole, None, weights)
    expected = whole(x, rows)
    (expected.square().sum(2) * weights).sum().backward()

    ranks, networks, outputs = (
        Ranks(2),
        [build("cnn, batch norm", [1, 2], reverse_complement=strands) for _ in shares],
        [None, None],
    )
    failures: list[BaseException] = []

    def run(rank: int) -> None:
        try:
            mine = shares[rank]
            models.share_statistics(networks[rank], ranks.reduce(rank), weights[:, mine])
            found = networks[rank](x[:, mine], rows[mine])
            (found.square().sum(2) * weights[:, mine]).sum().backward()
            outputs[rank] = found.detach()
        except BaseException as error:
            failures.append(error)
            ranks.barrier.abort()

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    torch.testing.assert_close(torch.cat(outputs, 1), expected, rtol=0, atol=1e-11)
    for (name, p), a, b in zip(whole.named_parameters(), *(n.parameters() for n in networks), strict=True):
        torch.testing.assert_close(a.grad + b.grad, p.grad, rtol=1e-9, atol=1e-9, msg=name)
    for network in networks:
        for buffer, other in zip(whole.buffers(), network.buffers(), strict=True):
            torch.testing.assert_close(buffer, other, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("kernel", "dilation", "stride", "length", "rows"), [(5, 3, 1, 20, 6), (4, 1, 2, 13, 7), (3, 2, 1, 9, 0)]
)
def test_taps_are_a_convolution(kernel: int, dilation: int, stride: int, length: int, rows: int) -> None:
    x = torch.randn(rows, length, 3, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(5, 3, kernel, dtype=torch.float64, requires_grad=True)
    y = layers.Taps.apply(x, weight, dilation, stride)
    expected = functional.conv1d(x.transpose(1, 2), weight, None, stride, 0, dilation).transpose(1, 2)
    torch.testing.assert_close(y, expected)
    gradient = torch.randn(y.shape, dtype=torch.float64)
    found = torch.autograd.grad(y, (x, weight), gradient)
    torch.testing.assert_close(found, torch.autograd.grad(expected, (x, weight), gradient))


@pytest.mark.parametrize("affine", [True, False])
def test_row_norm_is_layer_norm(affine: bool) -> None:
    x = torch.randn(2, 3, 7, 6, dtype=torch.float64, requires_grad=True)
    given = [torch.randn(6, dtype=torch.float64, requires_grad=True) for _ in range(2)] if affine else []
    y, expected = layers.RowNorm.apply(x, 1e-5, *given), functional.layer_norm(x, (6,), *given)
    torch.testing.assert_close(y, expected)
    gradient = torch.randn(x.shape, dtype=torch.float64)
    found = torch.autograd.grad(y, (x, *given), gradient)
    torch.testing.assert_close(found, torch.autograd.grad(expected, (x, *given), gradient))


def test_compiled_states_of_units_are_the_same_whole_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, key = torch.tensor([0, 5, 1 << 40]), layers.keys([1, 2], 3, 4, torch.device("cpu"))
    expected = layers._unmixed(300, rows, key)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert torch.equal(layers._unmixed(300, rows, key), expected)


@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("threads", [1, 2])
def test_keyed_numbers_are_those_of_one_key_row_and_unit(members: int, threads: int) -> None:
    """However many are made at a time: here several pieces, the last one shorter."""
    units, rows = 700, torch.arange(301) * 12345678901 + 7
    key = layers.keys([5, 6, 7][:members], 2, 1, torch.device("cpu"))
    torch.set_num_threads(threads)
    try:
        bits = layers.keyed_bits(units, rows, key)
        as_floats = layers.keyed_bits(units, rows, key, torch.float32)
    finally:
        torch.set_num_threads(1)
    assert torch.equal(as_floats.long(), bits)
    for m, row, unit in [(0, 0, 0), (members - 1, 300, 699), (0, 93, 1), (members - 1, 94, 698), (0, 200, 350)]:
        state = int(key[m]) + int(rows[row]) * 0x632BE59BD9B4E019 - unit * 0x61C8864680B583EB
        for shift, factor in ((31, 0x7FB5D329728EA185), (27, -0x7E25210B43D22BB3), (33, 1)):
            signed = (state + 2**63) % 2**64 - 2**63
            state = (signed ^ (signed >> shift)) * factor
        assert int(bits[m, row, unit]) == state % layers.SCALE


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rate", [0.1, 2.0**-24, 1 - 2.0**-24])
def test_what_dropout_keeps_is_divided_by_its_share_and_the_rest_is_nought(rate: float, dtype: torch.dtype) -> None:
    rows, key = torch.arange(200), layers.keys([1, 2], 0, 0, torch.device("cpu"))
    x = torch.randn(1, 200, 30, generator=torch.Generator().manual_seed(1)).to(dtype).requires_grad_()
    dropped = layers.keyed_dropout(x, rate, rows, key)
    kept = layers.keyed_kept(30, rate, rows, key)
    assert dropped.dtype == dtype
    assert torch.equal(dropped, torch.where(kept, x / (1 - rate), torch.zeros((), dtype=dtype)))
    (slope,) = torch.autograd.grad(dropped[1].sum(), x)
    assert torch.equal(
        slope[0], torch.where(kept[1], torch.ones((), dtype=dtype) / (1 - rate), torch.zeros((), dtype=dtype))
    )


def test_keyed_noise_is_normal() -> None:
    first, second = (layers.keys([1, 2], 0, n, torch.device("cpu")) for n in (1, 2))
    noise = layers.keyed_normal(20, torch.arange(500), first, second, torch.float64)
    assert noise.shape == (2, 500, 20)
    for m in range(2):
        assert stats.kstest(noise[m].flatten().numpy(), "norm").pvalue > 0.01
    assert abs(np.corrcoef(noise[0].flatten(), noise[1].flatten())[0, 1]) < 0.03
    assert np.abs(np.corrcoef(noise[0].T) - np.eye(20)).max() < 0.2  # units


@pytest.mark.parametrize(
    ("kind", "option", "value", "place"),
    [
        ("mlp", "hidden", [0], "model.hidden"),
        ("mlp", "dropout", 1.0, "model.dropout"),
        ("mlp", "dropout", "high", "model.dropout"),
        ("cnn", "channels", [], "model.channels"),
        ("cnn", "channels", 64, "model.channels"),
        ("cnn", "kernel", 2.5, "model.kernel"),
        ("cnn", "kernel", True, "model.kernel"),
        ("cnn", "dilations", [1, 0], "model.dilations"),
        ("cnn", "norm", "group", "model.norm"),
        ("cnn", "pooling", "last", "model.pooling"),
        ("cnn", "pooling", [], "model.pooling"),
        ("cnn", "pooling", 3, "model.pooling"),
        ("cnn", "pooling", ["max", ["mean"]], "model.pooling"),
        ("cnn", "pooling", ["max", "mean", "max"], "model.pooling"),
        ("cnn", "positional", -1, "model.positional"),
        ("cnn", "positional", True, "model.positional"),
        ("cnn", "shift", 1.5, "model.shift"),
        ("cnn", "shift", (LENGTH - 1) // 2 + 1, "model.shift"),
        ("cnn", "reverse_complement", "yes", "model.reverse_complement"),
        ("cnn", "average_strands", "yes", "model.average_strands"),
        ("cnn, shared strands", "channels", [5], "model.channels"),
        ("cnn, shared strands", "positional", 3, "model.positional"),
        ("gru", "cell", "rnn", "model.cell"),
        ("gru", "pooling", ["max", "last"], "model.pooling"),
        ("gru", "stride", 0, "model.stride"),
        ("autoencoder", "latent", 0, "model.latent"),
        ("autoencoder", "beta", -1, "model.beta"),
        ("autoencoder", "variational", 1, "model.variational"),
        ("concat", "sizes", [2, 3], "model.sizes"),
        ("concat", "sizes", None, "model.sizes"),
        ("concat", "fusion", "sum", "model.fusion"),
        ("concat", "modality_dropout", -0.1, "model.modality_dropout"),
        ("cnn", "colour", "blue", "model"),
        ("autoencoder", "colour", "blue", "model"),
        ("cnn", "kind", "transformer", "model.kind"),
        ("cnn", "kind", "layers", "model.kind"),
        ("cnn", "kind", "autoencoder", "model.kind"),
        ("gated", "kind", "rnn", "model.kind"),
    ],
)
def test_an_option_out_of_range_is_the_users_to_mend(kind: str, option: str, value: Any, place: str) -> None:
    options, inputs = KINDS[kind]
    given = {option: value} if option == "kind" and value in ("autoencoder", "rnn") else {**options, option: value}
    with pytest.raises(InputError) as caught:
        models.build(given, [1], inputs, 2)
    assert caught.value.file == place
    assert "found" in caught.value.message or "unexpected" in caught.value.message


def test_strands_need_bases() -> None:
    assert models.build({"kind": "cnn"}, [1], (7, LENGTH), 2)(torch.randn(1, 2, 7, LENGTH)).shape == (1, 2, 2)
    with pytest.raises(InputError, match=r"model\.reverse_complement"):
        models.build({"kind": "cnn", "reverse_complement": "augment"}, [1], (7, LENGTH), 2)
