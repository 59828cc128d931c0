"""Candidate alleles of a caller as four inputs of one row: counts around the site, reads as an image, the evidence, and
what the likelihood says.

Packed rows are uint8 as genodl_spark/genetics/calling/pileups.py lays them out: counts (25 bases, 2 strands, 8 kinds:
A, C, G, T, low quality, deleted, an insertion or deletion follows, clipped), reads (6 channels, 32 rows, 41 bases),
evidence (a value for each feature beyond the first two, in the order of `EVIDENCE` there).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from genodl_spark.learning.encodings import Shaped

if TYPE_CHECKING:
    import torch

COUNTS, IMAGE = (25, 2, 8), (6, 32, 41)
EVIDENCE = 46  # values of it
PLANES = 10  # of reads: four bases, deleted, quality, mapping quality, strand, support, differs
_SEEN = 15  # values of a base of counts: seven shares of each strand, and the depth
_AT, _IMAGE_AT = math.prod(COUNTS), math.prod(COUNTS) + math.prod(IMAGE)
_CHANCES, _POSTERIOR = slice(0, 6), slice(3, 6)
_HIGHEST = 50.0  # of a phred-scaled chance: what is rarer is not told apart
_NATS = math.log(10) / 10  # of a phred
# values that grow without bound are seen as logarithms; the others are divided
_LOGARITHM = [6, 7, 8, 10, 11, 12, 13, 24, *range(36, 42), 43]
_CHANGE = 27
_SCALE = np.full(EVIDENCE, 255.0, np.float32)
_SCALE[_CHANCES] = 20
_SCALE[[*range(14, 18)]] = 40  # qualities, of bases and of mapping
_SCALE[[18, 19]] = 75  # bases to an end
_SCALE[[20, 21]] = 40  # eighths of a base that differs
_SCALE[[25, 26]] = 25 * 4.5
_SCALE[[42, 44]] = 4


class Encoding(Shaped):
    """`counts` (25, 15): of each base shares of the reads by strand that show the reference, the commonest other base,
    the rest, and the last four kinds, and the logarithm of the depth. `reads` (10, 32, 41). `evidence` (46) on scales
    of about 1. `posterior` (3): natural logarithms of the likelihood's chances of 0, 1, 2 copies, -11.5 at least."""

    dtypes = ("uint8",)

    def width(self, features: int) -> int:
        return _IMAGE_AT + features - 2

    def shape(self, features: int) -> dict[str, tuple[int, ...]]:
        return {
            "counts": (COUNTS[0], _SEEN),
            "reads": (PLANES, *IMAGE[1:]),
            "evidence": (features - 2,),
            "posterior": (3,),
        }

    def tensor(self, x: torch.Tensor, dtype: torch.dtype) -> dict[str, torch.Tensor]:
        image = x[:, _AT:_IMAGE_AT].unflatten(1, IMAGE)
        beside = (IMAGE[2] - COUNTS[0]) // 2
        evidence, posterior = _evidence(x[:, _IMAGE_AT:], dtype)
        return {
            "counts": _counts(x[:, :_AT], image[:, 0, 0, beside : beside + COUNTS[0]], dtype),
            "reads": _reads(image, dtype),
            "evidence": evidence,
            "posterior": posterior,
        }

    def baseline(self, x: np.ndarray) -> np.ndarray:
        """The evidence, and what the likelihood says."""
        import torch

        return np.concatenate(
            [
                part.numpy()
                for part in _evidence(torch.from_numpy(np.ascontiguousarray(x[:, _IMAGE_AT:])), torch.float32)
            ],
            1,
        )


def _counts(x: torch.Tensor, reference: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """`reference` (B, 25): 1 to 4 for A, C, G, T."""
    import torch

    counts = x.unflatten(1, COUNTS).to(dtype)
    is_reference = (reference[..., None] == torch.arange(1, 5, device=x.device)).to(dtype)[:, :, None]
    bases = counts[..., :4]
    same = (bases * is_reference).sum(-1)
    others = bases * (1 - is_reference)
    commonest = others.sum(2).argmax(-1)[:, :, None, None].expand(-1, -1, 2, 1)
    most = others.gather(3, commonest).squeeze(-1)
    rest = others.sum(-1) - most
    depth = counts[..., :6].sum((2, 3))
    kinds = torch.stack([same, most, rest, *counts[..., 4:].unbind(-1)], -1)
    shares = (kinds / depth.clamp(min=1)[:, :, None, None]).flatten(2)
    return torch.cat([shares, depth.log1p()[..., None] / 4], 2)


def _reads(image: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """uint8 (B, 6, rows, bases) -> (B, PLANES, rows, bases); all 0 where no read is."""
    import torch

    base, quality, mapping, strand, support, differs = image.unbind(1)
    there = (support > 0).to(dtype)
    return torch.stack(
        [
            *((base == code).to(dtype) for code in (1, 2, 3, 4, 6)),
            quality.to(dtype) / 40,
            mapping.to(dtype) / 60,
            strand.to(dtype) * 2 - 3 * there,
            (support.to(dtype) - 128 * there) / 126,
            differs.to(dtype) / 2,
        ],
        1,
    )


def _evidence(x: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    import torch

    values = x.to(dtype)
    found = values / torch.from_numpy(_SCALE[: x.shape[1]]).to(device=x.device, dtype=dtype)
    found[:, _LOGARITHM] = values[:, _LOGARITHM].log1p() / 3
    found[:, _CHANCES] = values[:, _CHANCES].clamp(max=99) / 33
    found[:, _CHANGE] = ((values[:, _CHANGE] - 128) / 8).clamp(-3, 3)
    return found, -values[:, _POSTERIOR].clamp(max=_HIGHEST) * _NATS
