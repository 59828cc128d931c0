"""How far attributions add up for every kind of network, and whether they find what was planted: the figures of
docs/accuracy.md. `.venv/bin/python -m tests.reference.attributions [--rows N] [--seeds N] [NAME ...]`, half an hour for
all of it; nothing is read.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from scipy.stats import t
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import nn

from genodl_spark.job import config
from genodl_spark.learning import models
from genodl_spark.learning.beside import blend, linear
from genodl_spark.learning.explain import Limits, method, motifs, references
from genodl_spark.learning.explain.outputs import Outputs
from tests.learning.explain import planted
from tests.learning.models.test_models import moved

ROWS, LENGTH, FEATURES, SEEDS = 1000, 101, 60, 5
LIMITS = Limits(floor=1e-6)  # networks that nobody taught differ by little
SEQUENCES: dict[str, dict[str, Any]] = {
    "cnn": {"kind": "cnn"},
    "cnn, max and mean": {"kind": "cnn", "pooling": ["attention", "max", "mean"]},
    "cnn, two stages, positional": {"kind": "cnn", "channels": [32, 64], "pool": 2, "positional": 8},
    "cnn, equivariant": {"kind": "cnn", "reverse_complement": "equivariant", "pooling": ["max", "mean"]},
    "cnn, both strands": {"kind": "cnn", "average_strands": True, "reverse_complement": "augment"},
    "cnn, batch norm": {"kind": "cnn", "norm": "batch"},
    "cnn, free energies": {"kind": "cnn", "boxes": 8},
    "gru": {"kind": "rnn"},
    "lstm": {"kind": "rnn", "cell": "lstm", "pooling": "last"},
    "mlp of a sequence": {"kind": "mlp"},
}
VALUES: dict[str, dict[str, Any]] = {
    "mlp": {"kind": "mlp"},
    "autoencoder": {"kind": "autoencoder"},
    "autoencoder, variational": {"kind": "autoencoder", "variational": True},
    "fusion": {"kind": "fusion", "sizes": [20, 40]},
    "fusion, gated": {"kind": "fusion", "sizes": [20, 40], "fusion": "gated"},
    "late": {"kind": "late", "sizes": [20, 40]},
}
TASKS = {"binding": 5, "sequence_class": 5}  # networks of an ensemble, with a linear part beside them, as registered
PLANTED = "planted"
STRANDS = "both strands: outputs differ by {:.1e} at most, probabilities by {:.1e}; outputs are {:.2g} large"


def random_network(options: dict[str, Any], shape: tuple[int, ...], members: int = 1) -> nn.Module:
    """Networks of random weights, off their start."""
    seeds = [1 + m for m in range(members)]
    return moved(models.build(options, seeds, shape, 2).double(), seeds).float()


def registered(task: str, shape: tuple[int, ...], members: int) -> nn.Module:
    """What `train` registers by the defaults of a task whose strands are one, weights apart: an ensemble, and a linear
    part that has three tenths of its outputs."""
    options = {**config.load(task).model, "reverse_complement": "equivariant"}
    generator = torch.Generator().manual_seed(0)
    weights = {"kmers": 0.02 * torch.randn(linear.width("kmers", shape[1]), 2, generator=generator)}
    part = linear.LinearPart(weights, torch.zeros(2), merged=True)
    return blend.Blended(random_network(options, shape, members), [part], torch.tensor([[0.3, 0.3]]))


def kinds() -> list[str]:
    return [*SEQUENCES, *TASKS, *VALUES]


def completeness(rows: int, names: list[str]) -> Iterator[str]:
    """Error of the sums, as a share of what they add up to, of kinds: most, median, and rows beyond 1%; and the
    difference of an equivariant network's outputs for both strands."""
    generator = np.random.default_rng(0)
    codes = generator.integers(0, 4, (rows, LENGTH)).astype(np.int8)
    codes[::5, :9] = codes[::5, -6:] = -1
    x = planted.one_hot(codes)
    against = planted.one_hot(references.shuffled(codes, np.arange(rows, dtype=np.uint64), 1, 0))
    values = torch.from_numpy(generator.normal(size=(rows, FEATURES)).astype(np.float32))
    values[::7, :20] = 0  # a block that some rows lack
    for name in (name for name in kinds() if name in names):
        of_values = name in VALUES
        inputs, reference = (values, torch.zeros(rows, 1, FEATURES)) if of_values else (x, against)
        shape = tuple(inputs.shape[1:])
        if name in TASKS:
            network = registered(name, shape, TASKS[name])
        else:
            network = random_network((VALUES if of_values else SEQUENCES)[name], shape)
        outputs = Outputs(network, shape, torch.device("cpu"))
        weights = torch.tensor([[-1.0, 1.0]], dtype=torch.float64).expand(rows, -1)
        for how in ("integrated_gradients", "deeplift"):
            started = time.perf_counter()
            found = method(how, LIMITS).attribute(outputs, inputs, reference, weights)
            difference = np.abs(found.output - found.reference)
            share = np.abs(found.error) / difference
            yield (
                f"  {name:28} {how:21} most {share.max():.2e}, median {np.median(share):.1e}; above 1%: "
                f"{(share > 0.01).sum()}; differences {np.median(difference):.2g}, least {difference.min():.1e}; "
                f"passes {found.steps.mean():.0f}, at most {found.steps.max()}; {time.perf_counter() - started:.0f} s"
            )
        if name in TASKS or SEQUENCES.get(name, {}).get("reverse_complement") == "equivariant":
            apart, of_shares, size = of_strands(network, codes[(codes >= 0).all(1)])
            yield f"  {name:28} {STRANDS.format(apart, of_shares, size)}"


def of_strands(network: nn.Module, codes: np.ndarray) -> tuple[float, float, float]:
    """How far an equivariant network's outputs, and its probabilities, for both strands are apart at most; and the
    median size of outputs."""
    with torch.no_grad():
        one, other = (network(planted.one_hot(strand)[None]).double().mean(0) for strand in (codes, 3 - codes[:, ::-1]))
    shares = (one.softmax(1) - other.softmax(1)).abs().max()
    return float((one - other).abs().max()), float(shares), float(one.abs().median())


def interval(values: list[float]) -> str:
    """Mean of values of independent seeds with its 95% interval by Student's t."""
    reach = t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    return f"{np.mean(values):.3f} [{np.mean(values) - reach:.3f}, {np.mean(values) + reach:.3f}]"


def of_planted(seeds: int = SEEDS) -> Iterator[str]:
    """Networks on sequences with two planted motifs, ones that did not learn, and ones that learnt shuffled labels: how
    well contributions tell planted bases, and how like the planted logos the best motif is."""
    found: dict[tuple[str, str], list[tuple[float, float, float]]] = {}
    strands: list[tuple[float, float, float]] = []
    for seed in range(seeds):
        codes, label, _ = planted.sequences(4000, seed)
        other, truth, where = planted.sequences(600, 100 + seed)
        shuffled = np.random.default_rng(seed).permutation(label)
        networks = {
            "trained": planted.trained(codes, label, 8, seed),
            "not trained": planted.network(seed),
            "trained on shuffled labels": planted.trained(codes, shuffled, 8, seed),
        }
        strands.append(of_strands(planted.trained(codes, label, 8, seed, reverse_complement="equivariant"), other))
        has = where.any(1)
        for name, network in networks.items():
            with torch.no_grad():
                outputs = network(planted.one_hot(other)[None])[0]
            auroc = roc_auc_score(truth, (outputs[:, 1] - outputs[:, 0]).numpy())
            for how in ("integrated_gradients", "deeplift", "saturation_mutagenesis"):
                made = planted.explained(network, other, how, 16).contributions.sum(1)
                auprc = average_precision_score(where[has].ravel(), made[has].ravel())
                logos = motifs.find(other, made, np.arange(len(other), dtype=np.uint64), True)[0]
                likeness = [
                    max((planted.pearson_of_logos(one.probabilities, motif) for one in logos), default=0.0)
                    for motif in planted.MOTIFS
                ]
                found.setdefault((name, how), []).append((auroc, auprc, float(np.mean(likeness))))
    yield f"  {where[has].mean():.3f} of the bases of sequences with motifs are planted"
    for (name, how), each in found.items():  # of each seed
        auroc, auprc, likeness = (list(values) for values in zip(*each, strict=True))
        yield (
            f"  {name:27} {how:23} AUROC {interval(auroc)}; AUPRC of planted bases {interval(auprc)}; "
            f"logo Pearson {interval(likeness)}"
        )
    most = np.max(strands, 0)
    yield f"  trained, equivariant        {STRANDS.format(*most)}"


if __name__ == "__main__":
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("names", nargs="*", help=f"some of {', '.join([*kinds(), PLANTED])}; default: all")
    made.add_argument("--rows", type=int, default=ROWS)
    made.add_argument("--seeds", type=int, default=SEEDS)
    asked = made.parse_args()
    if unknown := set(asked.names) - {*kinds(), PLANTED}:
        made.error(f"found {', '.join(sorted(unknown))}; expected some of {', '.join([*kinds(), PLANTED])}")
    print(f"{asked.rows} sequences of {LENGTH} bases, and rows of {FEATURES} values, networks of random weights")
    for line in completeness(asked.rows, asked.names or kinds()):
        print(line, flush=True)
    if not asked.names or PLANTED in asked.names:
        print(f"planted motifs, {asked.seeds} seeds: mean with its 95% interval")
        for line in of_planted(asked.seeds):
            print(line, flush=True)
