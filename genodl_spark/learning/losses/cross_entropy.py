"""Classes: the negative log likelihood of the softmax of a network's outputs."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from genodl_spark.learning.devices import placed
from genodl_spark.learning.heads import Head
from genodl_spark.learning.losses import SAID, members, undecided

if TYPE_CHECKING:
    import torch

    from genodl_spark.learning.encodings import Shape


class Loss:
    measures = 2  # of which it uses none: models have always held them

    def __init__(self, head: Head, inputs: Shape) -> None:
        if head.kind != "classes":
            raise ValueError(f"the target is {SAID[head.kind]}; expected classes, or a loss of that")
        self.outputs = len(head.classes)
        self.weights: np.ndarray | None = None  # of the classes, float64 (S, outputs)

    def balanced(self, target: np.ndarray, learns: np.ndarray) -> Self:
        """n / (K n_k) for a row of one of the K classes that a training set has, so that each of them counts alike."""
        found = copy.copy(self)
        index = target[:, 0].astype(np.int64)
        counts = np.stack([np.bincount(index[own], minlength=self.outputs) for own in learns])
        there = np.maximum((counts > 0).sum(1, keepdims=True), 1)
        found.weights = counts.sum(1, keepdims=True) / (there * np.maximum(counts, 1))
        return found

    def check(self, target: np.ndarray) -> None:
        pass  # an index below the number of classes, as labels are read

    def standard(self, target: np.ndarray, learns: np.ndarray) -> np.ndarray:
        return np.tile([0.0, 1.0], (len(learns), 1))

    def rows(
        self, outputs: torch.Tensor, target: np.ndarray, standard: np.ndarray, inputs: Any, smoothing: float
    ) -> torch.Tensor:
        """`smoothing`: share of a label that is spread over all classes."""
        from torch.nn import functional

        index = placed(target[:, 0].astype(np.int64), outputs.device).expand(outputs.shape[0], -1)
        flat = outputs.flatten(0, 1)
        losses = functional.cross_entropy(flat, index.reshape(-1), label_smoothing=smoothing, reduction="none")
        if self.weights is None:
            return losses.view(index.shape)
        return losses.view(index.shape) * members(self.weights, outputs).gather(1, index)

    def answer(self, outputs: torch.Tensor, standard: np.ndarray, inputs: Any) -> np.ndarray:
        """Mean probabilities of the members."""
        import torch

        return torch.softmax(outputs.double(), -1).mean(0).cpu().numpy()

    def uncertainty(self, outputs: torch.Tensor, answer: np.ndarray, standard: np.ndarray) -> np.ndarray:
        """Mutual information of class and member in nats (Houlsby et al. 2011)."""
        if len(outputs) < 2:
            return undecided(len(answer))
        each = outputs.double().log_softmax(-1)
        expected = -(each.exp() * each).sum(-1).mean(0).cpu().numpy()
        whole = -(answer * np.log(np.maximum(answer, 1e-300))).sum(1)
        return np.maximum(whole - expected, 0)
