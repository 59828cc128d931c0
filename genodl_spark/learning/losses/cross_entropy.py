"""Classes: the negative log likelihood of the softmax of a network's outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from genodl_spark.learning.losses import undecided

if TYPE_CHECKING:
    import torch


class Loss:
    def __init__(self, classes: list[str]) -> None:
        if not classes:
            raise ValueError("the target is a value; expected classes, or a loss of values")
        self.classes, self.outputs = classes, len(classes)

    def check(self, target: np.ndarray) -> None:
        pass  # an index below the number of classes, as labels are read

    def standard(self, target: np.ndarray, learns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.zeros(len(learns)), np.ones(len(learns))

    def rows(self, outputs: torch.Tensor, target: np.ndarray, smoothing: float) -> torch.Tensor:
        """`smoothing`: share of a label that is spread over all classes."""
        import torch
        from torch.nn import functional

        index = torch.from_numpy(target[0].astype(np.int64)).to(outputs.device).expand(outputs.shape[0], -1)
        return functional.cross_entropy(
            outputs.flatten(0, 1), index.reshape(-1), label_smoothing=smoothing, reduction="none"
        ).view(index.shape)

    def answer(self, outputs: torch.Tensor, center: float, spread: float) -> np.ndarray:
        """Mean probabilities of the members."""
        import torch

        return torch.softmax(outputs.double(), -1).mean(0).cpu().numpy()

    def uncertainty(self, outputs: torch.Tensor, answer: np.ndarray, spread: float) -> np.ndarray:
        """Mutual information of class and member in nats (Houlsby et al. 2011)."""
        if len(outputs) < 2:
            return undecided(len(answer))
        each = outputs.double().log_softmax(-1)
        expected = -(each.exp() * each).sum(-1).mean(0).cpu().numpy()
        whole = -(answer * np.log(np.maximum(answer, 1e-300))).sum(1)
        return np.maximum(whole - expected, 0)
