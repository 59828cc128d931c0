"""A random forest (Breiman 2001, doi:10.1023/A:1010933404324) beside a network over measured values: it is fitted to
the rows that the network learns from, standardised as the network sees them, stored with its weights, and blended with
it (blend.py).

Its outputs are of the network's kind: logits of classes, logarithms of the shares that its leaves hold, or standardised
values. They are steps: what is blended with a forest has no gradient by it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from genodl_spark.learning.beside import forest_bounds
from genodl_spark.learning.heads import Head, labelled, places, targets
from genodl_spark.learning.model_files import check_shapes

if TYPE_CHECKING:
    from sklearn.tree._tree import Tree

TREES = 200
LEAVES = 250  # of a tree of values at most, as a leaf has so large a part of its rows: loci have many that are alike
NODES = 1 << 20  # of a forest at most: 20 bytes each, of two classes
DEEPEST = 64  # steps from a root to a leaf that are read
_GRAIN = 2.0**20  # values of leaves are multiples of its inverse, so that their sum has the same bits in any order


def fit(z: np.ndarray, target: np.ndarray, heads: Sequence[Head], seed: int) -> dict[str, np.ndarray]:
    """Fits TREES for each head to rows z float32 (rows, f) with targets (rows, numbers), NaN where there is no label.

    Returns, of all nodes side by side, `feature` and `child` int32 and `threshold` float32 (nodes,): a row goes on to
    `child`, or to the one after it where its value is above the threshold; a leaf is its own child, and its threshold
    infinite. `value` float32 (nodes, outputs): of leaves, 0 for outputs of other heads. `roots` int32 (heads * TREES,);
    each tree draws forest_bounds.ROWS rows at most, and of values has LEAVES leaves; a head whose labels are all alike
    has no trees, as there is nothing to tell apart. One thread, so that the number of cores changes no bit.
    """
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
    from threadpoolctl import threadpool_limits

    sizes = [head.scores for head in heads]
    parts: list[dict[str, np.ndarray]] = []
    with threadpool_limits(1):
        for number, (head, own, out) in enumerate(zip(heads, targets(heads), places(sizes), strict=True)):
            rows = np.flatnonzero(labelled(target[:, own]))
            y = target[rows, own.start]
            if len(np.unique(y)) < 2:
                continue
            drawn = min(len(rows), forest_bounds.ROWS)
            least = math.ceil(2 * TREES * len(heads) * drawn / NODES)
            options: dict[str, Any] = {
                "n_estimators": TREES,
                "max_depth": DEEPEST,
                "min_samples_leaf": least if head.classes else max(least, drawn // LEAVES),
                "max_samples": drawn,
                "random_state": np.random.RandomState((seed + number) % (1 << 32)),
                "n_jobs": 1,
            }
            if head.classes:
                y = y.astype(np.int64)
                model = RandomForestClassifier(max_features="sqrt", **options).fit(z[rows], y)
                columns = out.start + model.classes_
            else:
                y = (y - y.mean()) / (y.std() or 1.0)
                width = forest_bounds.candidates(z.shape[1], drawn)
                model = RandomForestRegressor(max_features=width, **options).fit(z[rows], y)
                columns = np.array([out.start])
            parts += [_nodes(one.tree_, columns, sum(sizes), bool(head.classes)) for one in model.estimators_]
    starts = np.cumsum([0, *(len(part["feature"]) for part in parts)])
    for part, start in zip(parts, starts[:-1], strict=True):
        part["child"] += np.int32(start)
    empty = {
        "feature": np.zeros(0, np.int32),
        "child": np.zeros(0, np.int32),
        "threshold": np.zeros(0, np.float32),
        "value": np.zeros((0, sum(sizes)), np.float32),
    }
    found = {name: np.concatenate([none, *(part[name] for part in parts)]) for name, none in empty.items()}
    return {**found, "roots": starts[:-1].astype(np.int32)}


def _nodes(tree: Tree, columns: np.ndarray, outputs: int, classes: bool) -> dict[str, np.ndarray]:
    """Nodes of a tree, those of a level side by side, siblings next to each other, as `fit` returns them."""
    left, right = tree.children_left, tree.children_right
    order, child, level, known = [], [], np.zeros(1, np.int64), 1
    while len(level):
        split = left[level] >= 0
        own = known - len(level) + np.arange(len(level))
        own[split] = known + 2 * np.arange(split.sum())
        order.append(level)
        child.append(own)
        level = np.stack([left[level[split]], right[level[split]]], 1).ravel()
        known += len(level)
    at = np.concatenate(order)
    leaf = left[at] < 0
    value = tree.value[at, 0].astype(np.float64)
    if classes:
        value /= value.sum(1, keepdims=True)
    found = np.zeros((len(at), outputs), np.float32)
    found[:, columns] = np.where(leaf[:, None], np.round(value * _GRAIN) / _GRAIN, 0)
    # rows are of single precision: the next lesser such number parts them as the threshold does
    threshold = tree.threshold[at].astype(np.float32)
    threshold = np.where(threshold > tree.threshold[at], np.nextafter(threshold, np.float32(-np.inf)), threshold)
    return {
        "feature": np.where(leaf, 0, tree.feature[at]).astype(np.int32),
        "child": np.concatenate(child).astype(np.int32),
        "threshold": np.where(leaf, np.float32(np.inf), threshold),
        "value": found,
    }


class ForestPart(nn.Module):
    """x (M or 1, B, F), standardised -> (M or 1, B, outputs). `tensors` are those of `fit`, for the same heads."""

    def __init__(self, tensors: Mapping[str, torch.Tensor], heads: Sequence[Head], depth: int) -> None:
        super().__init__()
        self.heads, self.depth = list(heads), depth
        self.feature: torch.Tensor
        self.child: torch.Tensor
        self.threshold: torch.Tensor
        self.value: torch.Tensor
        self.roots: torch.Tensor
        for name in ("feature", "child", "threshold", "value", "roots"):
            self.register_buffer(name, tensors[name])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        flat = x.flatten(0, 1)
        at = self.roots.long().expand(len(flat), -1)
        for _ in range(self.depth):
            above = flat.gather(1, self.feature[at].long()) > self.threshold[at]
            at = self.child[at].long() + above
        means = self.value[at].double().sum(1) / TREES
        found = []
        for head, own in zip(self.heads, places([head.scores for head in self.heads]), strict=True):
            mean = means[:, own]
            if head.classes:  # one more tree, of which each class has the same share: none is impossible
                mean = ((mean * TREES + 1 / len(head.classes)) / (TREES + 1)).log()
            found.append(mean)
        return torch.cat(found, 1).to(x.dtype).unflatten(0, x.shape[:2])


def part(tensors: Mapping[str, torch.Tensor], heads: Sequence[Head], features: int) -> ForestPart:
    """The forest of these tensors, for rows of so many features. ValueError where they are none."""
    nodes, trees = (tensors[name].numel() if name in tensors else 0 for name in ("feature", "roots"))
    flat = {"feature": (nodes,), "child": (nodes,), "threshold": (nodes,), "roots": (trees,)}
    check_shapes(tensors, {**flat, "value": (nodes, sum(head.scores for head in heads))})
    if nodes > NODES + 2 * TREES * len(heads) or trees > TREES * len(heads):
        raise ValueError(f"it has {nodes} nodes, at most {NODES} are expected")
    whole = [tensors[name].dtype == torch.int32 for name in ("feature", "child", "roots")]
    if not all(whole) or not all(tensors[name].dtype == torch.float32 for name in ("threshold", "value")):
        raise ValueError("its nodes are not of the types expected")
    child, own = tensors["child"].long(), torch.arange(nodes)
    leaf = child == own
    inside = (tensors["feature"] >= 0).all() and (tensors["feature"] < features).all()
    rooted = (tensors["roots"] >= 0).all() and (tensors["roots"] < max(nodes, 1)).all()
    if not (inside and rooted and (leaf | ((child > own) & (child + 1 < nodes))).all()):
        raise ValueError("its nodes point outside it")
    if not tensors["value"].isfinite().all() or not (tensors["threshold"][leaf] == math.inf).all():
        raise ValueError("its leaves have no values")
    return ForestPart(tensors, heads, depth(child, leaf, tensors["roots"].long(), DEEPEST))


def depth(child: torch.Tensor, leaf: torch.Tensor, roots: torch.Tensor, most: int) -> int:
    """Steps from a root to a leaf at most. ValueError where they are more than `most`, or trees share nodes."""
    level, steps = roots, 0
    while len(level := level[~leaf[level]]):
        level, steps = torch.cat([child[level], child[level] + 1]), steps + 1
        if steps > most or len(level) > len(child):
            raise ValueError(f"its trees are more than {most} nodes deep")
    return steps
