"""Packed rows and a model in memory to attributions, for each head of the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from genodl_spark.core import packing
from genodl_spark.core.errors import InputError
from genodl_spark.learning import explain
from genodl_spark.learning.encodings import Encoding
from genodl_spark.learning.encodings.onehot import SequenceReader
from genodl_spark.learning.explain import Attributions, Limits, references
from genodl_spark.learning.explain.outputs import Outputs, sums
from genodl_spark.learning.heads import UNLABELLED, Head, answers

if TYPE_CHECKING:
    import torch

    from genodl_spark.learning.predictor import Predictor


@dataclass(frozen=True)
class Asked:
    """What is to be explained, as the settings `explain` have it; goes to tasks as it is."""

    method: str = "integrated_gradients"
    target: str = ""
    heads: tuple[str, ...] = ()
    reference: str = "auto"
    references: int = 8
    limits: Limits = field(default_factory=Limits)
    seed: int = 0

    def of(self, encoding: Encoding, features: int, heads: Sequence[Head]) -> Asked:
        """The same with its reference settled, for a model. InputError where such a model cannot be explained so."""
        explain.method(self.method, self.limits)
        shape = encoding.shape(features)
        if not (encoding.letters or encoding.scaled) or isinstance(shape, dict):
            raise InputError(
                f"found a model whose rows are {shape}; expected one of sequences or of measured values",
                "quality.transform",
            )
        reference = self.reference
        if reference == "auto":
            reference = "shuffles" if encoding.letters else "mean"
        if not encoding.letters and reference != "mean":
            raise InputError(f"found {reference!r} for measured values; expected mean, or auto", "explain.reference")
        chosen = self.chosen(heads)
        known = {name for head in chosen for name in head.classes}
        if self.target and any(head.classes and self.target not in head.classes for head in chosen):
            raise InputError(
                f"found {self.target!r}; expected a class of every head that is explained, such as "
                f"{', '.join(sorted(known)[:5])}",
                "explain.target",
            )
        if self.target and not known:
            raise InputError(f"found {self.target!r} for a value; expected none", "explain.target")
        return replace(self, reference=reference)

    def chosen(self, heads: Sequence[Head]) -> list[Head]:
        """The heads that are explained. InputError for names that there are not, and where nothing is predicted."""
        if unknown := [name for name in self.heads if name not in [head.label for head in heads]]:
            raise InputError(
                f"found {unknown[0]!r}; expected one of {', '.join(head.label for head in heads)}", "explain.heads"
            )
        found = [head for head in heads if not self.heads or head.label in self.heads]
        if any(head.kind in UNLABELLED for head in found):
            raise InputError(
                "found a model of rows without labels; expected one that predicts classes, a value or a time", "--model"
            )
        return found


@dataclass(frozen=True)
class OfHead:
    """Attributions of B rows for one head. `target` int64 (B,): the class that is explained; 0 of a value.
    `allowed` float64 (B,): the error that each may have."""

    head: Head
    target: np.ndarray
    found: Attributions
    allowed: np.ndarray

    @property
    def complete(self) -> np.ndarray:
        """Which rows' contributions add up as far as they are meant to, bool (B,)."""
        with np.errstate(invalid="ignore"):
            found: np.ndarray = np.isnan(self.found.error) | (np.abs(self.found.error) <= self.allowed)
        return found & np.isfinite(self.found.output)


class Explainer:
    """A model in memory, and what is asked of it (`Asked.of` it)."""

    def __init__(self, predictor: Predictor, asked: Asked) -> None:
        self.predictor, self.asked = predictor, asked
        shape = predictor.encoding.shape(len(predictor.card.features))
        assert isinstance(shape, tuple)
        self.heads = predictor.card.predicted
        self.chosen = asked.chosen(self.heads)
        self.method = explain.method(asked.method, asked.limits)
        self.outputs = Outputs(predictor.smooth, shape, predictor.device)
        self.sums = sums(self.heads, predictor.loss, predictor.standard)

    def __call__(self, x: packing.Rows, entities: Sequence[str]) -> list[OfHead]:
        """Attributions of rows x (B, values), packed as the model's card says; of sequences, an entity's name decides
        about its shuffles."""
        import torch

        codes = x[:]
        inputs = self.predictor.inputs(codes)
        against = self._references(codes, entities, inputs)
        raw = self.predictor.scores(codes).raw if any(len(head.classes) > 2 for head in self.chosen) else None
        found = []
        for head, (weights, center), own in zip(self.heads, self.sums, answers(self.heads), strict=True):
            if head not in self.chosen:
                continue
            target = self._targets(head, len(codes), None if raw is None else raw[:, own])
            of_rows = torch.from_numpy(weights[target]).to(self.predictor.device)
            made = self.method.attribute(self.outputs, inputs, against, of_rows)
            allowed = self.asked.limits.allowed(made.output - made.reference)
            moved = Attributions(
                made.contributions,
                made.hypothetical,
                made.output + center,
                made.reference + center,
                made.error,
                made.steps,
            )
            found.append(OfHead(head, target, moved, allowed))
        return found

    def _targets(self, head: Head, rows: int, probabilities: np.ndarray | None) -> np.ndarray:
        if not head.classes:
            return np.zeros(rows, np.int64)
        if self.asked.target:
            return np.full(rows, head.classes.index(self.asked.target))
        if len(head.classes) == 2 or probabilities is None:
            return np.full(rows, len(head.classes) - 1)
        best: np.ndarray = probabilities.argmax(1)
        return best

    def _references(self, codes: np.ndarray, entities: Sequence[str], inputs: torch.Tensor) -> torch.Tensor:
        """References of rows, (B, R, *shape), as the network takes them."""
        import torch

        if not self.predictor.encoding.letters:
            return torch.zeros_like(inputs)[:, None]
        if self.asked.reference == "shuffles":
            rows = references.row_numbers(entities)
            shuffles = references.shuffled(codes, rows, self.asked.references, self.asked.seed)
            flat = self.predictor.inputs(np.ascontiguousarray(shuffles.reshape(-1, codes.shape[1])))
            whole: torch.Tensor = flat.unflatten(0, (len(codes), -1))
            return whole
        shares = np.zeros(4)
        if self.asked.reference == "mean":
            reader = self.predictor.reader
            if not isinstance(reader, SequenceReader):
                raise InputError("found an encoding that knows no background; expected another", "explain.reference")
            shares = references.composition(reader.background)
        return torch.from_numpy(references.constant(codes, shares)).to(inputs.device)


def explainer_of(predictor: Predictor, asked: Asked) -> Explainer:
    """An explainer of a model in memory."""
    return Explainer(predictor, asked.of(predictor.encoding, len(predictor.card.features), predictor.card.predicted))
