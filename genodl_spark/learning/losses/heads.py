"""Several heads at once, each with a loss of its own: a network's outputs, targets and answers stand
side by side in their order."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from genodl_spark.learning.devices import placed
from genodl_spark.learning.heads import Head, answers, labelled, places, targets
from genodl_spark.learning.losses import balanced

if TYPE_CHECKING:
    import torch

    from genodl_spark.learning.losses import Loss


class Heads:
    """The loss of a row is the mean over the heads of which it has a label;
    those of which it has none count for nothing."""

    def __init__(self, parts: Sequence[Loss], heads: Sequence[Head]) -> None:
        self.parts = list(parts)
        self.outputs, self.measures = sum(part.outputs for part in parts), sum(part.measures for part in parts)
        self.of_output = places([part.outputs for part in parts])
        self.of_measure = places([part.measures for part in parts])
        self.of_target, self.of_answer = targets(heads), answers(heads)

    def _each(self) -> Iterator[tuple[Loss, slice, slice, slice]]:
        return zip(self.parts, self.of_output, self.of_target, self.of_measure, strict=True)

    def balanced(self, target: np.ndarray, learns: np.ndarray) -> Self:
        """Each head of classes with weights of its own; of a label that a row lacks nothing is counted."""
        found = copy.copy(self)
        found.parts = [
            balanced(part, np.nan_to_num(target[:, own]), learns & labelled(target[:, own]))
            for part, _, own, _ in self._each()
        ]
        return found

    def check(self, target: np.ndarray) -> None:
        for part, _, own, _ in self._each():
            part.check(target[labelled(target[:, own]), own])

    def standard(self, target: np.ndarray, learns: np.ndarray) -> np.ndarray:
        return np.concatenate(
            [part.standard(target[:, own], learns & labelled(target[:, own])) for part, _, own, _ in self._each()], 1
        )

    def rows(
        self, outputs: torch.Tensor, target: np.ndarray, standard: np.ndarray, inputs: Any, smoothing: float
    ) -> torch.Tensor:
        import torch

        found = torch.zeros(outputs.shape[:2], dtype=outputs.dtype, device=outputs.device)
        heads = np.zeros(len(target))
        for part, output, own, measure in self._each():
            there = np.flatnonzero(labelled(target[:, own]))
            heads[there] += 1
            if len(there):  # a head of which no row of the batch has a label has no gradient of it
                at = placed(there, outputs.device)
                losses = part.rows(outputs[:, at, output], target[there, own], standard[:, measure], None, smoothing)
                found = found.index_add(1, at, losses)
        return found / placed(np.maximum(heads, 1), outputs.device, outputs.dtype)

    def answer(self, outputs: torch.Tensor, standard: np.ndarray, inputs: Any) -> np.ndarray:
        return np.concatenate(
            [part.answer(outputs[..., own], standard[m], inputs) for part, own, _, m in self._each()], 1
        )

    def uncertainty(self, outputs: torch.Tensor, answer: np.ndarray, standard: np.ndarray) -> np.ndarray:
        """Of each head, float64 (B, heads)."""
        each = zip(self._each(), self.of_answer, strict=True)
        return np.stack(
            [part.uncertainty(outputs[..., own], answer[:, a], standard[m]) for (part, own, _, m), a in each], 1
        )
