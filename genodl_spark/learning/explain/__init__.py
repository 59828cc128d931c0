"""Attributions: what each input of a row did to what a network puts out. Each file but `outputs` and `references`, on
which they are built, `explainer`, which asks them, and `motifs` and `meme`, which read what comes out, holds one method
as a class `Method`; `explain.method` names the file.

    Method(limits)                                  `limits`: how exact, and for how many passes
    attribute(outputs, x, references, weights)      Attributions of B rows x (B, *shape), as the network takes them,
                                                    against R references of each, (B, R, *shape); `weights` float64
                                                    (B, K): which sum of its K outputs is explained
    complete                                        whether contributions add up to the output less that of the
                                                    references, so that `error` says something

A reference has the padding of its row. An output at it is taken where the way from it to the row begins, a millionth
along: there a network sees already which positions are padding, and which blocks of features a row lacks.
"""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from genodl_spark.core.errors import InputError

if TYPE_CHECKING:
    import torch

    from genodl_spark.learning.explain.outputs import Outputs

START = 1e-6  # of the way from a reference to its row, where it begins
_NO_METHODS = ("outputs", "references", "explainer", "motifs", "meme")


@dataclass(frozen=True)
class Limits:
    """How exact attributions have to be. `tolerance`: error of their sum, as a share of the difference that they
    explain, or `floor` where that is less, in the unit of the output. `steps`: gradients taken on the way from one
    reference to a row, at most."""

    tolerance: float = 0.01
    floor: float = 1e-4
    steps: int = 8192

    def allowed(self, difference: np.ndarray) -> np.ndarray:
        """The error that rows may have whose output differs so much from that of their references."""
        return np.maximum(self.tolerance * np.abs(difference), self.floor)


@dataclass(frozen=True)
class Attributions:
    """Of B rows. `contributions` float64 (B, *shape): of every input, the mean over its row's references.

    `hypothetical` float64 (B, 4, L): of sequences, what each base would contribute in the place of the one that is
    there (Shrikumar et al. 2018, arXiv:1811.00416, of its TF-MoDISco); else None. `output`, `reference` float64 (B,):
    of the row, and the mean of its references'. `error` float64 (B,): how far the contributions' sum is from
    `output` - `reference`; NaN where they are not meant to add up. `steps` int64 (B,): passes for each reference.
    """

    contributions: np.ndarray
    hypothetical: np.ndarray | None
    output: np.ndarray
    reference: np.ndarray
    error: np.ndarray
    steps: np.ndarray

    @classmethod
    def together(cls, parts: list[Attributions]) -> Attributions:
        """Those of several sets of rows, one after the other."""
        found: dict[str, Any] = {}
        for field in fields(cls):
            values = [getattr(part, field.name) for part in parts]
            found[field.name] = None if values[0] is None else np.concatenate(values)
        return cls(**found)


class Method(Protocol):
    complete: bool

    def attribute(
        self, outputs: Outputs, x: torch.Tensor, references: torch.Tensor, weights: torch.Tensor
    ) -> Attributions: ...


def methods() -> list[str]:
    """Names of the methods, sorted."""
    return sorted({found.name for found in pkgutil.iter_modules(__path__)} - set(_NO_METHODS))


def method(name: str, limits: Limits) -> Method:
    """The method of a file of this package. InputError for one that is unknown."""
    if name not in methods():
        raise InputError(f"found {name!r}; expected one of {', '.join(methods())}", "explain.method")
    made: Method = importlib.import_module(f"{__name__}.{name}").Method(limits)
    return made


def attributed(x: torch.Tensor, references: torch.Tensor, slopes: torch.Tensor) -> tuple[np.ndarray, np.ndarray | None]:
    """Contributions and hypothetical ones of rows x (B, *shape) against references (B, R, *shape), by float64 slopes
    (B, R, *shape): what an input's contribution to each difference is multiplied by."""
    away = x.double()[:, None] - references.double()
    contributions = (slopes * away).mean(1)
    if x.dim() != 3:
        return contributions.cpu().numpy(), None
    # A base is there instead of the reference's mixture of bases; nothing is where there is no base.
    instead = (slopes - (slopes * references.double()).sum(2, keepdim=True)).mean(1)
    known = x.ne(0).any(1, keepdim=True)
    return contributions.cpu().numpy(), (instead * known).cpu().numpy()


def begun(x: torch.Tensor, references: torch.Tensor) -> torch.Tensor:
    """References (B, R, *shape) where the way from them to their rows x (B, *shape) begins."""
    return references + START * (x[:, None] - references)
