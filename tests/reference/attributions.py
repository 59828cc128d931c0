"""How far attributions add up for every kind of network, and whether they find what was planted: the figures of
docs/accuracy.md. `.venv/bin/python -m tests.reference.attributions [rows]`, some minutes; nothing is read.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from scipy.stats import t
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import nn

from genodl_spark.learning import models
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
}


def random_network(options: dict[str, Any], shape: tuple[int, ...]) -> nn.Module:
    """A network of random weights, off its start."""
    return moved(models.build(options, [1], shape, 2).double(), [1]).float()


def completeness(rows: int) -> Iterator[str]:
    """Error of the sums, as a share of what they add up to, of every kind: most, median, and rows beyond 1%; and the
    difference of an equivariant network's outputs for both strands."""
    generator = np.random.default_rng(0)
    codes = generator.integers(0, 4, (rows, LENGTH)).astype(np.int8)
    codes[::5, :9] = codes[::5, -6:] = -1
    x = planted.one_hot(codes)
    against = planted.one_hot(references.shuffled(codes, np.arange(rows, dtype=np.uint64), 1, 0))
    values = torch.from_numpy(generator.normal(size=(rows, FEATURES)).astype(np.float32))
    values[::7, :20] = 0  # a block that some rows lack
    given = [(name, options, x, against) for name, options in SEQUENCES.items()]
    given += [(name, options, values, torch.zeros(rows, 1, FEATURES)) for name, options in VALUES.items()]
    for name, options, inputs, reference in given:
        network = random_network(options, tuple(inputs.shape[1:]))
        outputs = Outputs(network, tuple(inputs.shape[1:]), torch.device("cpu"))
        weights = torch.tensor([[-1.0, 1.0]], dtype=torch.float64).expand(rows, -1)
        for how in ("integrated_gradients", "deeplift"):
            started = time.perf_counter()
            found = method(how, LIMITS).attribute(outputs, inputs, reference, weights)
            difference = np.abs(found.output - found.reference)
            share = np.abs(found.error) / difference
            yield (
                f"  {name:28} {how:21} most {share.max():.2e}, median {np.median(share):.1e}; above 1%: "
                f"{(share > 0.01).sum()}; differences {np.median(difference):.2g}; passes "
                f"{found.steps.mean():.0f}, at most {found.steps.max()}; {time.perf_counter() - started:.0f} s"
            )
        if options.get("reverse_complement") == "equivariant":
            with torch.no_grad():
                both = [network(one[None]) for one in (x, x.flip(1, 2))]
            whole = torch.from_numpy((codes >= 0).all(1))
            apart = (both[0] - both[1]).abs()[:, whole].max()
            yield f"  {name:28} outputs of both strands differ by {apart:.1e} at most"


def interval(values: list[float]) -> str:
    """Mean of values of independent seeds with its 95% interval by Student's t."""
    reach = t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    return f"{np.mean(values):.3f} [{np.mean(values) - reach:.3f}, {np.mean(values) + reach:.3f}]"


def of_planted(seeds: int = SEEDS) -> Iterator[str]:
    """Networks on sequences with two planted motifs, ones that did not learn, and ones that learnt shuffled labels: how
    well contributions tell planted bases, and how like the planted logos the best motif is."""
    found: dict[tuple[str, str], list[tuple[float, float, float]]] = {}
    for seed in range(seeds):
        codes, label, _ = planted.sequences(4000, seed)
        other, truth, where = planted.sequences(600, 100 + seed)
        shuffled = np.random.default_rng(seed).permutation(label)
        networks = {
            "trained": planted.trained(codes, label, 8, seed),
            "not trained": planted.network(seed),
            "trained on shuffled labels": planted.trained(codes, shuffled, 8, seed),
        }
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
    for (name, how), each in found.items():
        auroc, auprc, likeness = (list(values) for values in zip(*each, strict=True))
        yield (
            f"  {name:27} {how:23} AUROC {interval(auroc)}; AUPRC of planted bases {interval(auprc)}; "
            f"logo Pearson {interval(likeness)}"
        )


if __name__ == "__main__":
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else ROWS
    print(f"{rows} sequences of {LENGTH} bases, and rows of {FEATURES} values, networks of random weights")
    for line in completeness(rows):
        print(line, flush=True)
    print(f"planted motifs, {SEEDS} seeds: mean with its 95% interval")
    for line in of_planted():
        print(line, flush=True)
