"""A network and what stands beside it as one: weighted means of their outputs (stacking, Wolpert 1992).

All of them put out the same numbers, logits of classes or standardised values.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn


class Blended(nn.Module):
    """A network's outputs (M, B, outputs), of which `shares` (parts, outputs) come from the parts beside it in place of
    its own. To each of an ensemble's members they are the same."""

    def __init__(self, network: nn.Module, parts: Sequence[nn.Module], shares: torch.Tensor) -> None:
        super().__init__()
        self.network, self.parts = network, nn.ModuleList(parts)
        self.steps: torch.Tensor
        self.register_buffer("steps", torch.stack(_steps(list(shares.double()))).float())

    def forward(self, x: torch.Tensor, rows: torch.Tensor | None = None, epoch: int = 0) -> torch.Tensor:
        found: torch.Tensor = self.network(x, rows, epoch)
        for part, step in zip(self.parts, self.steps, strict=True):
            found = torch.lerp(found, part(x).expand_as(found), step)
        return found


def blended(network: torch.Tensor, parts: Sequence[torch.Tensor], shares: Sequence[float]) -> torch.Tensor:
    """Outputs of a network and of what stands beside it, (M, B, outputs) each, as one."""
    for part, step in zip(parts, _steps([torch.tensor(share, dtype=torch.float64) for share in shares]), strict=True):
        network = torch.lerp(network, part.expand_as(network), float(step))
    return network


def _steps(shares: list[torch.Tensor]) -> list[torch.Tensor]:
    """How far each part moves what is blended so far, so that all have their shares in the end: a part's share of what
    is not of the parts behind it."""
    found: list[torch.Tensor] = []
    left = torch.ones_like(shares[0])
    for share in reversed(shares):
        found.insert(0, torch.where(left > 1e-9, share / left.clamp(min=1e-9), 0).clamp(max=1))
        left = left - share
    return found
