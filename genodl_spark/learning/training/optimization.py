"""What moves the weights beside the gradient: learning rates, clipping, averages of weights, mixed examples.
Pure functions of torch.

Members of a network (its leading dimension) stay independent of each other throughout.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from genodl_spark.learning.devices import placed


def schedule(step: int, total: int, warmup: float, kind: str = "cosine", start: float = 0.0) -> float:
    """Factor of the learning rate: a linear warm-up from `start`, then a cosine to 0 (Loshchilov and Hutter
    2017), or 1 for other kinds."""
    if step < warmup:
        return start + (1 - start) * (step + 1) / (warmup + 1)
    if kind != "cosine":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(total - warmup, 1)))


def scaled_rate(rate: float, batch: int, reference: int) -> tuple[float, float]:
    """Learning rate for a batch, in proportion to a reference batch (Goyal et al. 2017);
    and where the warm-up starts, as a share of it.

    A reference of 0 leaves the rate as it is, and the warm-up starts at 0.
    """
    if not reference or batch <= reference:
        return rate, 0.0
    return rate * batch / reference, reference / batch


@dataclass
class Plateau:
    """A factor of the learning rate that shrinks when the validation loss has not fallen for `patience` epochs."""

    shrink: float
    patience: int
    factor: float = 1.0
    best: float = math.inf
    waited: int = 0

    def see(self, loss: float) -> None:
        if loss < self.best:
            self.best, self.waited = loss, 0
            return
        self.waited += 1
        if self.waited > self.patience:
            self.factor, self.waited = self.factor * self.shrink, 0

    def state(self) -> dict[str, Any]:
        return asdict(self)


def clip_members(parameters: list[torch.nn.Parameter], limit: float) -> None:
    """Scales each member's gradient to a norm of at most `limit`; members stay independent of each other."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    # A GPU takes them all at once: launches one by one would take longer than the work.
    at_once = all(g.is_cuda and len(g) == 1 for g in gradients)
    norms = torch._foreach_norm(gradients) if at_once else [g.flatten(1).norm(dim=1) for g in gradients]
    factor = (limit / torch.stack(norms).norm(dim=0).clamp(min=1e-12)).clamp(max=1)
    if at_once:
        torch._foreach_mul_(gradients, factor)
        return
    for g in gradients:
        g.mul_(factor.view(-1, *[1] * (g.dim() - 1)))


class Average:
    """Exponential moving average of parameters, which stands in for them within `instead`.

    The decay grows with the steps, so that the start is soon forgotten: min(decay, (1 + step) / (10 + step)).
    """

    def __init__(self, parameters: list[torch.nn.Parameter], decay: float) -> None:
        self.parameters, self.decay = parameters, decay
        self.values = [p.detach().clone() for p in parameters]

    def update(self, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        with torch.no_grad():
            torch._foreach_lerp_(self.values, [p.detach() for p in self.parameters], 1 - decay)

    @contextlib.contextmanager
    def instead(self) -> Iterator[None]:
        """The averages are the parameters; afterwards the parameters are what they were."""
        with torch.no_grad():
            held = [p.detach().clone() for p in self.parameters]
            for p, value in zip(self.parameters, self.values, strict=True):
                p.copy_(value)
        try:
            yield
        finally:
            with torch.no_grad():
                for p, value in zip(self.parameters, held, strict=True):
                    p.copy_(value)


def mixture(rows: int, alpha: float, *key: int) -> tuple[float, np.ndarray]:
    """Of mixup (Zhang et al. 2018) for one batch: the share of each row itself, from 0.5 to 1,
    and the place of its partner, int64 (rows,)."""
    generator = np.random.default_rng([*key, 0x3187])
    share = float(generator.beta(alpha, alpha))
    return max(share, 1 - share), generator.permutation(rows)


class FirstBad:
    """The first step at which a value was not finite, noticed without waiting for the device at every step, and
    looked for in many steps at a time: half a dozen kernels each would take longer than the work.

    `at_once`: steps whose values are held until then.
    """

    def __init__(self, device: torch.device, at_once: int = 256) -> None:
        self.at_once = at_once
        self._first = torch.full((), torch.iinfo(torch.int64).max, dtype=torch.int64, device=device)
        self._seen: list[tuple[int, torch.Tensor]] = []

    def see(self, values: torch.Tensor, step: int) -> None:
        """`values` (n,), which nobody may change afterwards."""
        self._seen.append((step, values))
        if len(self._seen) >= self.at_once:
            self._look()

    def _look(self) -> None:
        steps, values = zip(*self._seen, strict=True)
        finite = torch.isfinite(torch.stack(values)).all(1)
        bad = placed(np.array(steps), finite.device).masked_fill(finite, torch.iinfo(torch.int64).max)
        self._first, self._seen = torch.minimum(self._first, bad.amin()), []

    def step(self) -> int | None:
        """Waits for the device."""
        if self._seen:
            self._look()
        found = int(self._first)
        return None if found == torch.iinfo(torch.int64).max else found
