"""Sequences without labels: how well a network tells bases that were hidden from it, from those around them (as
words of a text, Devlin et al. 2019; of DNA, Ji et al. 2021)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from genodl_spark.learning.heads import Head
from genodl_spark.learning.losses import SAID, undecided

if TYPE_CHECKING:
    import torch

    from genodl_spark.learning.encodings import Shape

OF_BASE = 5  # outputs for each base of a row: logits of A, C, G and T, and 1 where it was hidden, else 0


class Loss:
    """The mean cross entropy, in nats, of the bases of a row that were hidden, which is also the answer. The others
    cost nothing; nor does a row of which none was, and its answer is NaN."""

    measures = 2  # of which it uses none

    def __init__(self, head: Head, inputs: Shape) -> None:
        if head.kind != "bases":
            raise ValueError(f"the target is {SAID[head.kind]}; expected bases (target.kind), or a loss of that")
        if not isinstance(inputs, tuple) or len(inputs) != 2 or inputs[0] != 4:
            raise ValueError("rows are no sequences; expected a task of sequences")
        self.outputs = OF_BASE * inputs[1]

    def check(self, target: np.ndarray) -> None:
        pass

    def standard(self, target: np.ndarray, learns: np.ndarray) -> np.ndarray:
        return np.tile([0.0, 1.0], (len(learns), 1))

    def rows(
        self, outputs: torch.Tensor, target: np.ndarray, standard: np.ndarray, inputs: Any, smoothing: float
    ) -> torch.Tensor:
        """`smoothing`: share of a base that is spread over all four."""
        logits, hidden = _parts(outputs)
        bases = inputs.transpose(2, 3).to(logits)
        wanted = (1 - smoothing) * bases + smoothing / 4 * bases.sum(-1, keepdim=True)
        costs = -(wanted * logits.log_softmax(-1)).sum(-1) * hidden
        return costs.sum(-1) / hidden.sum(-1).clamp(min=1)

    def answer(self, outputs: torch.Tensor, standard: np.ndarray, inputs: Any) -> np.ndarray:
        """Of the mean probabilities of the members that did not see a base."""
        probabilities, told, _ = _together(outputs)
        costs = -(probabilities * inputs[0].transpose(1, 2).double()).sum(-1).clamp(min=1e-300).log() * told
        return (costs.sum(-1) / told.sum(-1)).cpu().numpy()[:, None]

    def uncertainty(self, outputs: torch.Tensor, answer: np.ndarray, standard: np.ndarray) -> np.ndarray:
        """Mutual information of base and member in nats (Houlsby et al. 2011), mean over hidden bases."""
        import torch

        if len(outputs) < 2:
            return undecided(len(answer))
        whole, told, each = _together(outputs)
        logits, hidden = _parts(outputs.double())
        expected = (torch.special.entr(logits.softmax(-1)).sum(-1) * hidden).sum(0) / each
        information = (torch.special.entr(whole).sum(-1) - expected).clamp(min=0) * told
        return (information.sum(-1) / told.sum(-1)).cpu().numpy()


def _parts(outputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (M, B, L, 4) and which bases were hidden, 1 or 0, (M, B, L), out of outputs (M, B, L * OF_BASE)."""
    numbers = outputs.unflatten(-1, (-1, OF_BASE))
    return numbers[..., :4], numbers[..., 4]


def _together(outputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Mean probabilities, float64 (B, L, 4), over the members from which a base was hidden; from any, 1 or 0, (B, L);
    and from how many, 1 at least."""
    logits, hidden = _parts(outputs.double())
    count = hidden.sum(0).clamp(min=1)
    told = (hidden.sum(0) > 0).double()
    return (logits.softmax(-1) * hidden[..., None]).sum(0) / count[..., None], told, count
