"""What is explained of a network: a sum of its outputs, the mean of its members, and its gradient."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from genodl_spark.learning.heads import Head

if TYPE_CHECKING:
    import torch

    from genodl_spark.learning.losses import Loss

_INPUT_BYTES, _GPU_INPUT_BYTES = 1 << 18, 1 << 22  # of the rows computed at once, with all that gradients need of them
_LEAST, _MOST = 8, 256  # rows at once, twice as many at most on a GPU


class Outputs:
    """A network (see models/) without anything random, on a device, asked for `batch` rows at a time: short batches are
    filled up, so that how many rows there are changes none of them. `batch`: 0 for what suits the shape of a row.

    Its parameters learn no more.
    """

    def __init__(self, network: Any, inputs: tuple[int, ...], device: torch.device, batch: int = 0) -> None:
        for parameter in network.parameters():
            parameter.requires_grad_(False)
        self.network, self.device = network.eval(), device
        held = _INPUT_BYTES if device.type == "cpu" else _GPU_INPUT_BYTES
        fits = 2 ** int(np.log2(max(held // (4 * int(np.prod(inputs))), 1)))
        self.batch = batch or int(np.clip(fits, _LEAST, _MOST * (1 if device.type == "cpu" else 2)))

    def values(self, x: torch.Tensor, weights: torch.Tensor) -> np.ndarray:
        """Outputs of rows x (n, *shape) in the sums that `weights` float64 (n, K) say: float64 (n,)."""
        import torch

        found = []
        with torch.no_grad():
            for part, count in self._batches(x, weights):
                found.append(self.weighted(*part)[:count].cpu().numpy())
        return np.concatenate([np.zeros(0), *found])

    def gradients(self, x: torch.Tensor, weights: torch.Tensor) -> tuple[np.ndarray, torch.Tensor]:
        """The same and its gradients at rows x (n, *shape): float64 (n,), float32 (n, *shape)."""
        import torch

        values, slopes = [], [x.new_empty((0, *x.shape[1:]))]
        for (part, of_part), count in self._batches(x, weights):
            at = part.detach().requires_grad_()
            with torch.enable_grad():
                found = self.weighted(at, of_part)
                (slope,) = torch.autograd.grad(found.sum(), at)
            values.append(found[:count].detach().cpu().numpy())
            slopes.append(slope[:count])
        return np.concatenate([np.zeros(0), *values]), torch.cat(slopes)

    def weighted(self, x: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """The sums of a batch, float64 (n,)."""
        outputs: torch.Tensor = self.network(x[None]).double().mean(0)
        return (outputs * weights).sum(1)

    def _batches(
        self, x: torch.Tensor, weights: torch.Tensor
    ) -> Iterator[tuple[tuple[torch.Tensor, torch.Tensor], int]]:
        import torch

        for start in range(0, len(x), self.batch):
            part, of_part = x[start : start + self.batch], weights[start : start + self.batch]
            count = len(part)
            if count < self.batch:
                again = torch.arange(self.batch, device=x.device) % count
                part, of_part = part[again], of_part[again]
            yield (part, of_part), count


def sums(heads: Sequence[Head], loss: Loss, standard: np.ndarray) -> list[tuple[np.ndarray, float]]:
    """What may be explained of each head, as sums of a network's K outputs: weights float64 (targets, K), and what is
    added to each sum.

    Of classes a target for each: its output less the mean of the other classes'. This is no matter of what all classes'
    outputs have in common, which says nothing, and of two classes it is the log odds. Of a value one: the value itself,
    in its unit, where the network's output is that, standardised; else the output that the loss links to the value, as
    the log of a rate or of a time; of Cox's model minus the log risk, which is its value. `standard` float64: what
    training taught the loss.
    """
    from genodl_spark.learning.losses import cox, cross_entropy, huber, log_logistic, squared_error

    parts = getattr(loss, "parts", [loss])
    found, place, measured = [], 0, 0
    for head, part in zip(heads, parts, strict=True):
        own = np.zeros((max(len(head.classes), 1), loss.outputs))
        center, spread = 0.0, 1.0
        if head.classes and isinstance(part, cross_entropy.Loss):
            others = len(head.classes) - 1
            own[:, place : place + len(head.classes)] = np.eye(len(head.classes)) * (1 + 1 / others) - 1 / others
        else:
            if isinstance(part, squared_error.Loss | huber.Loss | log_logistic.Loss):
                center, spread = standard[measured : measured + 2].tolist()
            elif isinstance(part, cox.Loss):
                center, spread = float(standard[measured]), -1.0
            own[:, place] = spread
        found.append((own, center))
        place, measured = place + part.outputs, measured + part.measures
    return found
