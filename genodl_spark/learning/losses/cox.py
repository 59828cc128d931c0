"""Times to an event, of which some have not come: Cox's partial likelihood (1972, JRSS B 34), by Efron's (1977, JASA
72) rule of ties.

A network puts out the log risk of a row: its hazard at any time is e to that times a baseline that all rows share. An
event costs minus the logarithm of its share in the hazard of all rows that are at risk then, so that a row's loss is
one among others: those at risk are all rows that a training set learns from, in whatever batch and on whatever rank
they are (training/among.py). At the end Breslow's (1972) hazard of the baseline, by the log risks that the trained
networks give these rows, makes survival of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from genodl_spark.learning import survival
from genodl_spark.learning.devices import placed
from genodl_spark.learning.heads import Head
from genodl_spark.learning.losses import undecided
from genodl_spark.learning.losses.times import Times

if TYPE_CHECKING:
    import torch

    from genodl_spark.learning.encodings import Shape

_LOWEST, _HIGHEST = -500.0, 50.0  # of log risks beside others: e to them is a number, and not 0


class Loss(Times):
    """Of target rows (time, event). Answers are minus the log risk beside the mean training row, greater for a longer
    time, without a unit, and the probabilities that the event has not come by each of the head's times. `standard`
    holds the mean log risk of the training rows, and the baseline's cumulative hazard at each of these times: no time
    of a single row is stored."""

    outputs = 1

    def __init__(self, head: Head, inputs: Shape) -> None:
        super().__init__(head, inputs)
        self.measures = 1 + len(head.times)

    def standard(self, target: np.ndarray, learns: np.ndarray) -> np.ndarray:
        """Nothing yet: it follows from what trained networks say of the rows (`fitted`)."""
        return np.zeros((len(learns), self.measures))

    def among(self, target: np.ndarray, counts: np.ndarray) -> Likelihood:
        return Likelihood(target, counts)

    def rows(
        self, outputs: torch.Tensor, target: np.ndarray, standard: np.ndarray, inputs: Any, smoothing: float
    ) -> torch.Tensor:
        """Of these rows among each other."""
        return Likelihood(target, np.ones((1, len(target)), bool))(outputs)

    def fitted(self, outputs: torch.Tensor, target: np.ndarray) -> np.ndarray:
        log_risk = self._log_risk(outputs)
        center = float(log_risk.mean()) if len(log_risk) else 0.0
        hazard = survival.breslow(target[:, 0], target[:, 1] > 0, log_risk - center)
        return np.concatenate([[center], hazard.at(np.array(self.times, np.float64))])

    def known(self, standard: np.ndarray) -> None:
        hazard = standard[1:]
        if not np.isfinite(standard).all() or (hazard < 0).any() or (np.diff(hazard) < 0).any():
            raise ValueError("target holds no cumulative hazard, which is 0 or more and falls at no time")

    def answer(self, outputs: torch.Tensor, standard: np.ndarray, inputs: Any) -> np.ndarray:
        """By the mean of the members' log risks."""
        log_risk = self._log_risk(outputs) - standard[0]
        hazard = standard[1:] * np.exp(log_risk.clip(_LOWEST, _HIGHEST))[:, None]
        return np.concatenate([-log_risk[:, None], np.exp(-hazard)], 1)

    def uncertainty(self, outputs: torch.Tensor, answer: np.ndarray, standard: np.ndarray) -> np.ndarray:
        """Standard deviation of the members' log risks."""
        if len(outputs) < 2:
            return undecided(len(answer))
        return outputs[..., 0].double().std(0, correction=1).cpu().numpy()

    def _log_risk(self, outputs: torch.Tensor) -> np.ndarray:
        found: np.ndarray = outputs[..., 0].double().mean(0).cpu().numpy()
        return found


class Likelihood:
    """Minus the log partial likelihood of some rows, of which each of S training sets counts its own, by what its
    members say of them.

    The likelihood knows log risks but for a constant, and networks of different seeds would come to lie at different
    ones: half the square of their mean is added to every row's loss, which moves no ratio of two hazards.
    """

    def __init__(self, target: np.ndarray, counts: np.ndarray) -> None:
        """target float64 (N, 2): time and event; counts bool (S, N)."""
        times = target[:, 0]
        self.order = np.argsort(-times, kind="stable")  # so that those at risk are the first ones
        self.back = np.argsort(self.order, kind="stable")
        ranked = -times[self.order]
        first = np.searchsorted(ranked, ranked, "left")
        self.last = np.searchsorted(ranked, ranked, "right") - 1
        self.tie = np.cumsum(np.r_[False, ranked[1:] != ranked[:-1]])[: len(ranked)]
        self.counts = counts[:, self.order]
        self.event = self.counts & (target[self.order, 1] > 0)
        # Of d events at one time the k-th, from 0, is held against all at risk less k of d parts of their hazard.
        before = np.concatenate([np.zeros((len(counts), 1), np.int64), np.cumsum(self.event, 1)], 1)
        place, of_tie = before[:, :-1] - before[:, first], before[:, self.last + 1] - before[:, first]
        self.less = np.where(self.event, place / np.maximum(of_tie, 1), 0.0)
        self.ties = bool(self.less.any())

    def __call__(self, outputs: torch.Tensor) -> torch.Tensor:
        """Loss of every row, 0 where it does not count, float64 (M, N), of outputs (M, N, 1), M a multiple of S; it
        has a gradient."""
        import torch

        device, members = outputs.device, len(outputs) // len(self.counts)

        def of_members(values: np.ndarray) -> torch.Tensor:
            return placed(values, device).repeat_interleave(members, 0)

        log_risk = outputs[..., 0].double().index_select(1, placed(self.order, device))
        counts, event = of_members(self.counts), of_members(self.event)
        top = log_risk.detach().masked_fill(~counts, -torch.inf).amax(1, keepdim=True).nan_to_num(0, 0, 0)
        beside = (log_risk - top).clamp(_LOWEST, _HIGHEST)
        risk = beside.exp() * counts
        at_risk = risk.cumsum(1).index_select(1, placed(self.last, device))
        if self.ties:
            tie = placed(self.tie, device)
            tied = risk.new_zeros(len(risk), int(self.tie[-1]) + 1).index_add(1, tie, risk * event)
            at_risk = at_risk - of_members(self.less) * tied.index_select(1, tie)
        found = torch.where(event, torch.where(event, at_risk, 1.0).log() - beside, 0.0)
        number = counts.sum(1, keepdim=True).clamp(min=1)
        mean = (log_risk * counts).sum(1, keepdim=True) / number
        found = found + counts * mean**2 / 2
        return found.index_select(1, placed(self.back, device))
