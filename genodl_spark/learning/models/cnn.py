"""Convolutional network (CNN) over one-hot sequences: a wide stem, residual dilated blocks,
pooling over positions, a dense head.

Blocks are pre-activated (He et al. 2016) and widen by dilation (Yu and Koltun 2016; in genomics Kelley et al. 2018).
"""

from __future__ import annotations

from itertools import count, pairwise
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from genodl_spark.core.errors import InputError
from genodl_spark.learning.losses.masked_bases import OF_BASE
from genodl_spark.learning.models import mlp
from genodl_spark.learning.models.layers import (
    NORMS,
    MemberConv,
    PositionPool,
    all_in_range,
    has_shape,
    in_range,
    is_flag,
    is_rate,
    keyed_bits,
    keyed_kept,
    keyed_shift,
    keys,
    masked,
    max_pool,
    mean_pool,
    one_of,
    part,
    some_of,
    unpadded,
    windows,
)

_NOWHERE = -1e4  # energy of what is not in the sequence
PLACES = 1000  # that the dense head sees apart at most: its weights are bounded, however long sequences are


class _Block(nn.Module):
    """x (M, B, L, C) plus what a dilated and a pointwise convolution make of it."""

    def __init__(
        self, seeds: list[int], channels: int, kernel: int, dilation: int, norm: str, shared: bool, layer: count[int]
    ) -> None:
        super().__init__()
        bias = norm != "batch"
        self.first = NORMS[norm](len(seeds), channels, shared)
        self.wide = MemberConv(
            seeds, channels, channels, kernel, next(layer), dilation, bias=bias, shared_strands=shared
        )
        self.second = NORMS[norm](len(seeds), channels, shared)
        self.point = MemberConv(seeds, channels, channels, 1, next(layer), bias=bias, shared_strands=shared)

    def forward(self, x: torch.Tensor, training: bool, present: torch.Tensor | None) -> torch.Tensor:
        y = self.wide(masked(functional.gelu(self.first(x, training, present)), present))
        return x + self.point(functional.gelu(self.second(y, training, present)))


class _Places(nn.Module):
    """x (M, B, L, C) -> (M, B, places, `channels`): what stands where, 0 where there is padding. There are L places,
    or where these are more than PLACES the means of as few positions each as do."""

    def __init__(self, seeds: list[int], inputs: int, channels: int, length: int, layer: int, shared: bool) -> None:
        super().__init__()
        self.shared, self.positions = shared, -(-length // PLACES)
        self.count = windows(length, self.positions, shared)[1]
        # A bias would say again what that of the dense head does.
        self.conv = MemberConv(seeds, inputs, channels, 1, layer, bias=False, shared_strands=shared)

    def forward(self, x: torch.Tensor, present: torch.Tensor | None) -> torch.Tensor:
        x = masked(x, present)
        found: torch.Tensor = self.conv(mean_pool(x, self.positions, self.shared) if self.positions > 1 else x)
        return found


class _Boxes(nn.Module):
    """x (M or 1, B, L, 4), one-hot -> (M, B, boxes): of each pair of boxes the logarithm of the sum over all starts and
    spacers of e to the power of their energies (in units of kT, the more the tighter): of the first box, of the second,
    and of the bases between, of which there are from `spacers[0]` to `spacers[1]`.

    That is the free energy of a polymerase that may bind anywhere (Berg and von Hippel 1987; with spacers, Brewster et
    al. 2012). All energies are learnt, those of spacers from 0. Where no pair fits in, all of its places are as good
    as _NOWHERE.
    """

    def __init__(self, seeds: list[int], boxes: int, taps: int, spacers: list[int], layer: count[int]) -> None:
        super().__init__()
        self.taps, self.spacers = taps, range(spacers[0], spacers[1] + 1)
        self.first, self.second = (MemberConv(seeds, 4, boxes, taps, next(layer), bias=False) for _ in range(2))
        self.between = nn.Parameter(torch.zeros(len(seeds), len(self.spacers), boxes))

    def forward(self, x: torch.Tensor, present: torch.Tensor | None) -> torch.Tensor:
        first, second = self.first(x), self.second(x)
        if present is not None:  # by its middle a box lies in the sequence or does not
            outside = ~present[..., None]
            first, second = first.masked_fill(outside, _NOWHERE), second.masked_fill(outside, _NOWHERE)
        length, found = x.shape[2], []
        for number, bases in enumerate(self.spacers):
            places = max(length - self.taps - bases, 0)
            pairs = first[:, :, :places] + second[:, :, length - places :]
            found.append(pairs + self.between[:, None, None, number])
        nowhere = first.new_full((*first.shape[:2], 1, first.shape[3]), _NOWHERE)
        energies = torch.cat([*found, nowhere], 2)
        # torch.logsumexp, in steps that DeepLIFT has rules for
        most = energies.amax(2, keepdim=True)
        return (most + (energies - most).exp().sum(2, keepdim=True).log()).squeeze(2)


class _Bases(nn.Module):
    """What each stage makes of a row, (M, B, L / `pool` as often as stages came before, channels) -> (M, B, `length`,
    4): logits of A, C, G and T, a sum of pointwise layers, each over what its stage says of the window around a base.
    """

    def __init__(
        self, seeds: list[int], channels: list[int], pool: int, length: int, layer: count[int], shared: bool
    ) -> None:
        super().__init__()
        self.pool, self.length = pool, length
        self.layers = nn.ModuleList(
            MemberConv(seeds, width, 4, 1, next(layer), bias=number == 0, shared_strands=shared)
            for number, width in enumerate(channels)
        )

    def forward(self, stages: list[torch.Tensor]) -> torch.Tensor:
        each = [
            layer(x).repeat_interleave(self.pool**number, 2)[:, :, : self.length]
            for number, (layer, x) in enumerate(zip(self.layers, stages, strict=True))
        ]
        return torch.stack(each).sum(0)


class Network(nn.Module):
    """x (M or 1, B, 4, L), one-hot in the order A, C, G, T, all-zero where unknown -> logits or values (M, B, outputs).

    `channels`: one stage for each of them, of one block for each of `dilations`; `pool`: maxima over so many positions
    between stages. `stem_kernel`, `kernel`: taps of the stem and of the blocks. `norm`: layer, batch or none.
    `pooling` over positions: attention, max or mean, or a list of several, whose vectors stand side by side.
    `hidden`: widths of the dense layers after it; `dropout`: share of their inputs dropped in training.

    `positional`: channels of each position that the dense layers see beside what is pooled, for sites that lie at a
    fixed place of their sequences, such as splice sites; 0 for none. Where more than 1000 positions are left after
    `pool`, `positional` channels are means over neighbours, the fewest that leave at most 1000.
    `shift`: in training each row is moved by a random number of positions, so many at most, to either side.
    `boxes`: pairs of boxes of `box` bases, such as those of promoters at -35 and -10, whose free energies the dense
    layers see too: the logarithm of the sum over all starts and over spacers of so many bases as `spacers`, least and
    most, of e to the power of learnt energies; 0 for none. They read one strand.

    `reverse_complement`: `augment` turns a random half of the rows round in training; `equivariant` shares weights
    between the strands, so that a sequence and its reverse complement have the same outputs (Shrikumar et al.
    2017, Zhou et al. 2022): up to the dense head, each channel has a twin that sees the other strand, and the head
    is averaged over both ways to read twins and positions. `average_strands`: outputs of both strands are averaged in
    evaluation.

    `masked`: for a task that predicts hidden bases (`target.kind` bases): the share of a row's known bases that is
    hidden in training, 0 for other tasks. A hidden base is an all-zero column. Nothing is pooled over positions then,
    and there is no dense head: of every base of the row there are OF_BASE outputs, (M, B, L * OF_BASE), its logits by
    pointwise layers over all stages, and whether it was hidden, 1 or 0. In evaluation each known base is hidden once,
    in one of 1 / `masked` passes (rounded) that are the same for all rows.

    `trunk` names the parts of which another network may start from the weights; `trunk_options` shape them.

    Padding (zero columns before the first and after the last known base) counts as being beyond the ends, and is 0
    to `positional`. Its amount after the last base changes nothing else, unless strands are shared and pooled, whose
    windows are counted from both ends.
    """

    trunk = ("stem", "stages", "between", "norm")

    def __init__(
        self,
        seeds: list[int],
        inputs: tuple[int, ...],
        outputs: int,
        channels: list[int] | None = None,
        stem_kernel: int = 15,
        kernel: int = 5,
        dilations: list[int] | None = None,
        pool: int = 1,
        norm: str = "layer",
        pooling: str | list[str] = "attention",
        hidden: list[int] | None = None,
        dropout: float = 0.0,
        reverse_complement: str = "none",
        average_strands: bool = False,
        positional: int = 0,
        shift: int = 0,
        boxes: int = 0,
        box: int = 9,
        spacers: list[int] | None = None,
        masked: float = 0.0,
    ) -> None:
        super().__init__()
        channels = [64] if channels is None else channels
        dilations = [1, 2, 4, 8] if dilations is None else dilations
        has_shape("cnn", inputs, 2)
        for option, widths in (("channels", channels), ("dilations", dilations)):
            all_in_range(option, widths, 1)
        for option, taps in (("stem_kernel", stem_kernel), ("kernel", kernel), ("pool", pool)):
            in_range(option, taps, 1)
        one_of("norm", norm, list(NORMS))
        ways = some_of("pooling", pooling, ["attention", "max", "mean"])
        one_of("reverse_complement", reverse_complement, ["none", "augment", "equivariant"])
        is_flag("average_strands", average_strands)
        is_rate("dropout", dropout)
        in_range("positional", positional, 0)
        in_range("boxes", boxes, 0)
        in_range("box", box, 1)
        spacers = [13, 19] if spacers is None else spacers
        all_in_range("spacers", spacers, 0, 2)
        if len(spacers) > 2 or spacers[0] > spacers[1]:
            raise InputError(f"found {spacers}; expected the least and the most bases", "model.spacers")
        in_range("shift", shift, 0, (inputs[1] - 1) // 2)  # the middle of a row stays in it
        is_rate("masked", masked)
        self.shared = shared = reverse_complement == "equivariant"
        if inputs[0] != 4 and (average_strands or reverse_complement != "none"):
            raise InputError(
                f"found {inputs[0]} channels; only A, C, G, T have a reverse complement", "model.reverse_complement"
            )
        if shared and any(width % 2 for width in channels):
            raise InputError(
                f"found {channels}; expected even numbers: with equivariant, every channel has a twin", "model.channels"
            )
        if boxes and (inputs[0] != 4 or shared):
            raise InputError("found boxes for strands that are one; expected 0", "model.boxes")
        if shared and positional % 2:
            raise InputError(
                f"found {positional}; expected an even number: with equivariant, every channel has a twin",
                "model.positional",
            )
        self.seeds, self.pool, self.shift, self.masked = seeds, pool, shift, masked
        self.augment, self.average = reverse_complement == "augment", average_strands and not shared
        layer, bias = count(), norm != "batch"  # which would take away any bias before it
        self.stem = MemberConv(
            seeds, inputs[0], channels[0], stem_kernel, next(layer), bias=bias, shared_strands=shared
        )
        self.stages = nn.ModuleList(
            nn.ModuleList(_Block(seeds, width, kernel, dilation, norm, shared, layer) for dilation in dilations)
            for width in channels
        )
        self.between = nn.ModuleList(
            MemberConv(seeds, a, b, 1, next(layer), bias=bias, shared_strands=shared) for a, b in pairwise(channels)
        )
        self.norm = NORMS[norm](len(seeds), channels[-1], shared)
        self.trunk_options: dict[str, Any] = {
            "channels": list(channels),
            "stem_kernel": stem_kernel,
            "kernel": kernel,
            "dilations": list(dilations),
            "pool": pool if len(channels) > 1 else 1,
            "norm": norm,
            "reverse_complement": "equivariant" if shared else "none",
        }
        if masked:
            self._tells_bases(inputs, outputs, channels, layer)
            return
        self.pooling = PositionPool(ways, seeds, channels[-1], next(layer), shared)
        length, seen = inputs[1], len(ways) * channels[-1]
        for _ in self.between:
            length = windows(length, pool, shared)[1]
        self.positional = _Places(seeds, channels[-1], positional, length, next(layer), shared) if positional else None
        if self.positional is not None:
            seen += self.positional.count * positional
        self.boxes = _Boxes(seeds, boxes, box, spacers, layer) if boxes else None
        seen += boxes
        self.head = mlp.Network(part(seeds, 0), (seen,), outputs, [64] if hidden is None else hidden, dropout, dropout)

    def _tells_bases(self, inputs: tuple[int, ...], outputs: int, channels: list[int], layer: count[int]) -> None:
        """The layers in place of pooling and head. InputError where hidden bases cannot be told."""
        (letters, length), deepest = inputs, len(channels) - 1
        if letters != 4 or outputs != OF_BASE * length:
            raise InputError(
                f"found {self.masked:g} for a task that predicts no hidden bases; expected 0, or target.kind=bases",
                "model.masked",
            )
        if self.shift:
            raise InputError("found a shift where hidden bases are told; expected 0", "model.shift")
        if self.shared and deepest and length % self.pool**deepest:
            raise InputError(
                f"found {self.pool} for rows of {length} bases whose strands are one, where hidden bases are told; "
                f"expected 1, or a sequence.length that is a multiple of {self.pool**deepest}",
                "model.pool",
            )
        self.bases = _Bases(self.seeds, channels, self.pool, length, layer, self.shared)

    def forward(self, x: torch.Tensor, rows: torch.Tensor | None = None, epoch: int = 0) -> torch.Tensor:
        """`rows` int64 (B,) and `epoch` key the dropout, the strand, the shift and the bases that are hidden; without
        rows nothing is random."""
        if self.masked:
            return self._of_bases(x, rows, epoch)
        if self.augment and rows is not None:
            x = torch.where(keyed_kept(1, 0.5, rows, keys(self.seeds, epoch, 0, x.device))[..., None], x, x.flip(2, 3))
        if self.shift and rows is not None:
            x = keyed_shift(x, self.shift, rows, keys(self.seeds, epoch, 1, x.device))
        outputs = self._outputs(x, rows, epoch)
        if self.average and rows is None:
            outputs = (outputs + self._outputs(x.flip(2, 3), rows, epoch)) / 2
        return outputs

    def _outputs(self, x: torch.Tensor, rows: torch.Tensor | None, epoch: int) -> torch.Tensor:
        x = x.transpose(2, 3).contiguous()
        present = unpadded(x)
        free = [] if self.boxes is None else [self.boxes(x, present)]
        x, present = self._stages(x, rows is not None, present)
        seen = [self.pooling(x, present)]
        if self.positional is not None:
            seen.append(self.positional(x, present))
        outputs: torch.Tensor = self.head(_beside([*seen, *free]), rows, epoch)
        if not self.shared:
            return outputs
        turned = [seen[0].flip(3), *(found.flip(2, 3) for found in seen[1:])]
        return (outputs + self.head(_beside(turned), rows, epoch)) / 2

    def _stages(
        self, x: torch.Tensor, training: bool, present: torch.Tensor | None, kept: list[torch.Tensor] | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """What the last stage makes of x (M or 1, B, L, 4), normalised, and which positions are present. `kept` takes
        what each makes of it."""
        x = self.stem(x)
        for number, stage in enumerate(self.stages):
            if number > 0:
                if kept is not None:
                    kept.append(x)
                x, present = max_pool(x, present, self.pool, self.shared) if self.pool > 1 else (x, present)
                x = self.between[number - 1](x)
            for block in stage:  # type: ignore[attr-defined]
                x = block(x, training, present)
        x = functional.gelu(self.norm(x, training, present))
        if kept is not None:
            kept.append(x)
        return x, present

    def _of_bases(self, x: torch.Tensor, rows: torch.Tensor | None, epoch: int) -> torch.Tensor:
        """(M, B, L * OF_BASE): logits of every base that was hidden, and that it was."""
        known, length = x.ne(0).any(2), x.shape[3]
        if rows is not None:
            hidden = known & ~keyed_kept(length, self.masked, rows, keys(self.seeds, epoch, 2, x.device))
            turned = None
            if self.augment:
                turned = ~keyed_kept(1, 0.5, rows, keys(self.seeds, epoch, 0, x.device))[..., None]
            logits = self._logits(x, hidden, turned, True)
        else:
            hidden, logits = known, x.new_zeros(1)
            passes = max(round(1 / self.masked), 1)
            of_place = keyed_bits(length, x.new_zeros(1, dtype=torch.int64), keys([0], 0, 2, x.device)) % passes
            for number in range(passes):
                mine = of_place == number
                logits = logits + self._logits(x, known & mine, None, False) * mine[..., None]
        numbers = torch.cat([logits, hidden.expand(len(logits), -1, -1)[..., None].to(logits.dtype)], 3)
        return numbers.flatten(2)

    def _logits(
        self, x: torch.Tensor, hidden: torch.Tensor, turned: torch.Tensor | None, training: bool
    ) -> torch.Tensor:
        """Logits (M, B, L, 4) of rows of which some bases are `hidden` bool (M or 1, B, L). `turned` bool (M or 1, B
        or 1, 1, 1): rows whose other strand is read; None for none, in evaluation with `average_strands` for both."""
        if not training and self.average and turned is None:
            ways = (hidden.new_full((1, 1, 1, 1), way) for way in (False, True))
            return torch.stack([self._logits(x, hidden, way, training) for way in ways]).mean(0)
        seen = x * ~hidden[:, :, None]
        if turned is not None:
            seen, x = (torch.where(turned, one.flip(2, 3), one) for one in (seen, x))
        stages: list[torch.Tensor] = []
        self._stages(seen.transpose(2, 3).contiguous(), training, unpadded(x.transpose(2, 3)), stages)
        logits: torch.Tensor = self.bases(stages)
        return logits if turned is None else torch.where(turned, logits.flip(2, 3), logits)


def _beside(found: list[torch.Tensor]) -> torch.Tensor:
    return torch.cat([one.flatten(2) for one in found], 2)
