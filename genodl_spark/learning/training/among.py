"""Losses of a row among others, as Cox's partial likelihood is: what networks last said of every row that they learn
from, whatever batch and rank it was in.

All are asked once before the first step. At every step each rank tells the others what its networks say of its share
of the batch, before any gradient is taken, and the loss of all rows is differentiated by what was last said of them:
the slopes of the batch's own rows are then those of the loss over all rows, whatever the ranks and the pieces of a
batch. Other rows may have been asked some steps ago. As steps become small that matters less, and where training comes
to rest not at all: batches of any size end at the same networks, where risk sets within batches would not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from genodl_spark.learning.devices import placed

if TYPE_CHECKING:
    import torch

    from genodl_spark.learning.training.ranks import Ranks


class Among:
    """`loss`: one with `among` (see losses/); target (N, numbers); learns bool (S, N); E members of each set."""

    def __init__(
        self, loss: Any, target: np.ndarray, learns: np.ndarray, members: int, ranks: Ranks, device: torch.device
    ) -> None:
        import torch

        self.ranks, self.likelihood = ranks, loss.among(target, learns)
        shape = (len(learns) * members, len(target), loss.outputs)
        self.outputs = torch.zeros(shape, dtype=torch.float64, device=device)  # what was last said of every row
        self.asked = False  # whether all rows have been
        self.values = self.slopes = self.outputs

    def take(self, rows: np.ndarray, outputs: torch.Tensor) -> None:
        """What networks say, (M, B, outputs), of this rank's `rows` (B,), and of those of all others; each row once."""
        self.outputs = gathered(self.ranks, rows, outputs, self.outputs)

    def differentiate(self) -> None:
        """Losses of all rows and their slopes, by what was last said of them."""
        import torch

        said = self.outputs.detach().requires_grad_()
        with torch.enable_grad():
            values = self.likelihood(said)
            (self.slopes,) = torch.autograd.grad(values.sum(), said)
        self.values = values.detach()

    def rows(self, rows: np.ndarray, outputs: torch.Tensor) -> torch.Tensor:
        """Losses (M, B) of rows of the step's batch; their gradient by `outputs` (M, B, outputs) is the slope of the
        loss of all rows."""
        at = placed(rows, outputs.device)
        value, slope = (found.index_select(1, at).to(outputs.dtype) for found in (self.values, self.slopes))
        return value + (slope * (outputs - outputs.detach())).sum(-1)


def gathered(ranks: Ranks, rows: np.ndarray, outputs: torch.Tensor, into: torch.Tensor) -> torch.Tensor:
    """`into` (M, N, outputs) with what networks say of the rows of all ranks, of which `rows` (B,) and
    `outputs` (M, B, outputs) are this one's."""
    import torch

    of_rows = outputs.detach().double().transpose(0, 1).flatten(1).cpu().numpy()
    # numbers of rows are below 2^53: float64 holds them
    found = ranks.all(np.concatenate([rows[:, None].astype(np.float64), of_rows], 1), "said")
    said = torch.from_numpy(found[:, 1:]).view(len(found), len(into), -1).transpose(0, 1).to(into.device)
    return into.index_copy(1, placed(found[:, 0].astype(np.int64), into.device), said)
