"""Gradient-boosted trees (Friedman 2001, doi:10.1214/aos/1013203451) beside a network over sequences: a split asks
which base stands at a position, so that they tell what positions say together. They are fitted to the rows that the
network learns from, stored with its weights, and blended with it (blend.py).

Their outputs are logits of classes or standardised values. They are steps: what is blended with them has no gradient by
them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from genodl_spark.learning.beside.forest import depth
from genodl_spark.learning.heads import Head, labelled, places, targets
from genodl_spark.learning.model_files import check_shapes

ROUNDS, LEAVES, RATE = 200, 8, 0.1
SHARE = 0.1  # of the positions, drawn anew, among which a split chooses
POSITIONS = 256  # of longer rows the middle ones are seen: sequences are aligned there, and what it costs is bounded
TREES = 1 << 14  # of all heads at most, one for each class in each round
_UNKNOWN, _CODES = 4, 5  # what stands for no base, and how many codes there are
_GRAIN = 2.0**20  # values of leaves are multiples of its inverse, so that their sum has the same bits in any order
_NAMES = ("feature", "left", "child", "value", "roots", "outputs", "bias")


def fit(codes: np.ndarray, target: np.ndarray, heads: Sequence[Head], seed: int) -> dict[str, np.ndarray]:
    """Fits ROUNDS of trees for each head to base codes int8 (rows, length), -1 unknown, with targets (rows, numbers),
    NaN where there is no label.

    Returns, of all nodes side by side, `feature` int32 (nodes,), a position of the row, `left` uint8 (nodes,), whose
    bits say with which base, A C G T or none, a row goes on to `child` int32, with others to the one after it; a leaf
    is its own child. `value` float32 (nodes,): of leaves. `roots` int32 (trees,), and the output that each tree adds
    to, `outputs` int32 (trees,), where `bias` float32 (outputs,) stands before. A head whose labels are all alike has
    no trees, as there is nothing to tell apart. One thread, so that the number of cores changes no bit.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from threadpoolctl import threadpool_limits

    start = _start(codes.shape[1])
    x = codes[:, start : start + POSITIONS].astype(np.float32)
    x[x < 0] = np.nan
    sizes = [head.scores for head in heads]
    bias = np.zeros(sum(sizes), np.float32)
    parts: list[dict[str, np.ndarray]] = []
    outputs: list[int] = []
    with threadpool_limits(1):
        for head, own, out in zip(heads, targets(heads), places(sizes), strict=True):
            rows = np.flatnonzero(labelled(target[:, own]))
            y = target[rows, own.start]
            if len(np.unique(y)) < 2:
                continue
            options: dict[str, Any] = {
                "max_iter": max(min(ROUNDS, TREES // sum(sizes)), 1),
                "max_leaf_nodes": LEAVES,
                "learning_rate": RATE,
                "max_features": SHARE,
                "early_stopping": False,
                "categorical_features": np.ones(x.shape[1], bool),
                "random_state": seed % (1 << 32),
            }
            if head.classes:
                model = HistGradientBoostingClassifier(**options).fit(x[rows], y.astype(np.int64))
                columns = out.start + (model.classes_ if len(model.classes_) > 2 else model.classes_[1:])
                rare = sorted(set(range(head.scores)) - set(model.classes_.tolist()))
            else:
                y = (y - y.mean()) / (y.std() or 1.0)
                model = HistGradientBoostingRegressor(**options).fit(x[rows], y)
                columns, rare = np.array([out.start]), []
            known = [np.unique(column[~np.isnan(column)]).astype(np.int64) for column in x[rows].T]
            bias[columns] = np.ravel(model._baseline_prediction)
            # a class without any row is as rare as one in all that were seen
            bias[out.start + np.array(rare, np.int64)] = bias[out].min() - np.log(len(rows) + 1.0)
            for of_round in model._predictors:
                parts += [_nodes(tree, known, start) for tree in of_round]
                outputs += columns.tolist()
    starts = np.cumsum([0, *(len(part["feature"]) for part in parts)])
    for part, first in zip(parts, starts[:-1], strict=True):
        part["child"] += np.int32(first)
    types = {"feature": np.int32, "left": np.uint8, "child": np.int32, "value": np.float32}
    found = {name: np.concatenate([np.zeros(0, t), *(part[name] for part in parts)]) for name, t in types.items()}
    return {**found, "roots": starts[:-1].astype(np.int32), "outputs": np.array(outputs, np.int32), "bias": bias}


def _start(length: int) -> int:
    return max(0, length - POSITIONS) // 2


def _nodes(tree: Any, known: list[np.ndarray], start: int) -> dict[str, np.ndarray]:
    """Nodes of a tree, siblings next to each other, as `fit` returns them. `known`: of each column the codes that its
    rows have, in order, as trees number them."""
    given = tree.nodes
    order, child, level, count = [], [], np.zeros(1, np.int64), 1
    while len(level):
        split = given["is_leaf"][level] == 0
        own = count - len(level) + np.arange(len(level))
        own[split] = count + 2 * np.arange(split.sum())
        order.append(level)
        child.append(own)
        level = np.stack([given["left"][level[split]], given["right"][level[split]]], 1).astype(np.int64).ravel()
        count += len(level)
    at = np.concatenate(order)
    leaf = given["is_leaf"][at] != 0
    feature = np.where(leaf, 0, given["feature_idx"][at]).astype(np.int64)
    left = np.full(len(at), (1 << _CODES) - 1, np.uint8)
    for i in np.flatnonzero(~leaf):
        node = given[at[i]]
        bits = int(tree.raw_left_cat_bitsets[node["bitset_idx"]][0])
        # what no training row had goes where the most of them went
        mask = ((1 << _CODES) - 1) * int(node["missing_go_to_left"])
        for number, code in enumerate(known[feature[i]].tolist()):
            mask = mask & ~(1 << code) | (bits >> number & 1) << code
        left[i] = mask
    value = np.where(leaf, np.round(given["value"][at] * _GRAIN) / _GRAIN, 0)
    return {
        "feature": np.where(leaf, 0, feature + start).astype(np.int32),
        "left": left,
        "child": np.concatenate(child).astype(np.int32),
        "value": value.astype(np.float32),
    }


class BoostedPart(nn.Module):
    """x (M or 1, B, 4, L), one-hot -> (M or 1, B, outputs). `tensors` are those of `fit`."""

    def __init__(self, tensors: Mapping[str, torch.Tensor], depth: int) -> None:
        super().__init__()
        self.depth = depth
        self.feature: torch.Tensor
        self.left: torch.Tensor
        self.child: torch.Tensor
        self.value: torch.Tensor
        self.roots: torch.Tensor
        self.outputs: torch.Tensor
        self.bias: torch.Tensor
        for name in _NAMES:
            self.register_buffer(name, tensors[name])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        flat = x.flatten(0, 1)
        codes = torch.where(flat.sum(1) > 0.5, flat.argmax(1), _UNKNOWN)
        at = self.roots.long().expand(len(flat), -1)
        for _ in range(self.depth):
            base = codes.gather(1, self.feature[at].long())
            at = self.child[at].long() + 1 - (self.left[at].long() >> base & 1)
        added = self.value[at].double()
        found = self.bias.double().expand(len(flat), -1).contiguous().index_add(1, self.outputs.long(), added)
        return found.to(x.dtype).unflatten(0, x.shape[:2])


def part(tensors: Mapping[str, torch.Tensor], heads: Sequence[Head], length: int) -> BoostedPart:
    """The trees of these tensors, for rows of so many bases. ValueError where they are none."""
    nodes, trees = (tensors[name].numel() if name in tensors else 0 for name in ("feature", "roots"))
    outputs = sum(head.scores for head in heads)
    sizes = {"roots": trees, "outputs": trees, "bias": outputs}
    check_shapes(tensors, {name: (sizes.get(name, nodes),) for name in _NAMES})
    if trees > TREES + outputs or nodes > trees * 2 * LEAVES:
        raise ValueError(f"it has {nodes} nodes of {trees} trees, at most {2 * LEAVES} of each are expected")
    types = {"value": torch.float32, "bias": torch.float32, "left": torch.uint8}
    if any(tensors[name].dtype != types.get(name, torch.int32) for name in _NAMES):
        raise ValueError("its nodes are not of the types expected")
    child, own = tensors["child"].long(), torch.arange(nodes)
    leaf = child == own
    inside = all(
        bool((tensors[name] >= 0).all() and (tensors[name] < most).all())
        for name, most in (("feature", length), ("roots", max(nodes, 1)), ("outputs", outputs))
    )
    if not inside or not (leaf | ((child > own) & (child + 1 < nodes))).all():
        raise ValueError("its nodes point outside it")
    if not (tensors["left"][leaf] == (1 << _CODES) - 1).all():
        raise ValueError("its leaves go on")
    if not tensors["value"].isfinite().all() or not tensors["bias"].isfinite().all():
        raise ValueError("its leaves have no values")
    return BoostedPart(tensors, depth(child, leaf, tensors["roots"].long(), LEAVES))
