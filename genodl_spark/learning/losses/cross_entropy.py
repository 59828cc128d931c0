"""Classes: the negative log likelihood of the softmax of a network's outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from genodl_spark.learning.devices import placed
from genodl_spark.learning.heads import Head
from genodl_spark.learning.losses import SAID, undecided

if TYPE_CHECKING:
    import torch

    from genodl_spark.learning.encodings import Shape


class Loss:
    measures = 2  # of which it uses none: models have always held them

    def __init__(self, head: Head, inputs: Shape) -> None:
        if head.kind != "classes":
            raise ValueError(f"the target is {SAID[head.kind]}; expected classes, or a loss of that")
        self.outputs = len(head.classes)

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
        return functional.cross_entropy(flat, index.reshape(-1), label_smoothing=smoothing, reduction="none").view(
            index.shape
        )

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
