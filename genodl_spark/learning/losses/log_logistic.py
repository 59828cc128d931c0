"""Times to an event, of which some have not come: the log-logistic accelerated failure time model (Bennett
1983, Applied Statistics 32).

The logarithm of the time is logistic around a network's first output, with a scale whose logarithm is the second:
a time t lies z = (log t - mean) / scale from the middle, the event has not come by t with probability 1 / (1 + e^z),
and its density follows. A row whose event has come by its time has the density there, another the probability
to have come as far. It is a sum over rows, so that the rows of a batch, and the ranks that share it,
need not know of each other, as they would for Cox's partial likelihood.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from genodl_spark.learning.devices import placed
from genodl_spark.learning.losses import members, undecided
from genodl_spark.learning.losses.times import Times

if TYPE_CHECKING:
    import torch

_LOG_SCALE = 5.0  # bound of the logarithm of the scale, of standardised log times


class Loss(Times):
    """Of target rows (time, event). Answers are medians of the time, in its unit, and the probabilities that the event
    has not come by each of the head's times; networks learn standardised log times."""

    outputs = 2
    measures = 2

    def standard(self, target: np.ndarray, learns: np.ndarray) -> np.ndarray:
        """Mean and standard deviation of the log times, of rows with and without the event."""
        of_sets = [np.log(target[rows, 0]) for rows in learns]
        return np.array([(values.mean(), values.std() or 1.0) for values in of_sets])

    def rows(
        self, outputs: torch.Tensor, target: np.ndarray, standard: np.ndarray, inputs: Any, smoothing: float
    ) -> torch.Tensor:
        from torch.nn import functional

        at = members((np.log(target[None, :, 0]) - standard[:, :1]) / standard[:, 1:], outputs)
        log_scale = outputs[..., 1].clamp(-_LOG_SCALE, _LOG_SCALE)
        z = (at - outputs[..., 0]) / log_scale.exp()
        came = placed(target[:, 1], outputs.device, outputs.dtype)
        return functional.softplus(z) - came * (z - functional.softplus(z) - log_scale)

    def answer(self, outputs: torch.Tensor, standard: np.ndarray, inputs: Any) -> np.ndarray:
        """The geometric mean of the members' medians, and the mean of what they say of each time."""
        center, spread = standard.tolist()
        of_members: np.ndarray = outputs.double().cpu().numpy()
        median = np.exp(of_members[..., 0].mean(0) * spread + center)[:, None]
        if not self.times:
            return median
        scale = np.exp(of_members[..., 1:].clip(-_LOG_SCALE, _LOG_SCALE))
        z = ((np.log(self.times) - center) / spread - of_members[..., :1]) / scale
        return np.concatenate([median, (1 / (1 + np.exp(z.clip(-500, 500)))).mean(0)], 1)

    def uncertainty(self, outputs: torch.Tensor, answer: np.ndarray, standard: np.ndarray) -> np.ndarray:
        """Standard deviation of the members' medians, in the unit of the time, near their mean."""
        if len(outputs) < 2:
            return undecided(len(answer))
        return outputs[..., 0].double().std(0, correction=1).cpu().numpy() * standard[1] * answer[:, 0]
