"""A group of training sets that are trained together, as members of one module."""

from __future__ import annotations

import contextlib
import copy
import math
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from genodl_spark.core import splitmix, storage
from genodl_spark.core.errors import InputError
from genodl_spark.genome import shuffles
from genodl_spark.learning import feed, losses, shards
from genodl_spark.learning.devices import placed, precision
from genodl_spark.learning.encodings import each
from genodl_spark.learning.encodings.values import Values
from genodl_spark.learning.model_files import mixtures
from genodl_spark.learning.scaling import Scaling
from genodl_spark.learning.settings import BALANCED
from genodl_spark.learning.shards import Shard
from genodl_spark.learning.splits import VALIDATION
from genodl_spark.learning.training import beside, checkpoints, starts
from genodl_spark.learning.training.among import Among, gathered
from genodl_spark.learning.training.plan import epochs, held_out, learns, log
from genodl_spark.learning.training.standardise import Standardised, as_seen, fit_scaling

if TYPE_CHECKING:
    import torch

    from genodl_spark.learning.training.rank import Rank

COMPILED_STEPS = 2000  # fewer steps do not earn back what torch.compile takes


@dataclass
class Progress:
    """Where a group's training stands, but for its tensors. `epoch` and `step` are those to be done next;
    `summed` is the loss of every member over the rows of the epoch so far, `counted` how many rows it learnt from,
    `rows` how many all ranks saw."""

    epoch: int = 0
    step: int = 0
    rows: int = 0
    summed: list[float] = field(default_factory=list)
    counted: list[int] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)
    best: list[float] = field(default_factory=list)
    waited: int = 0
    plateau: dict[str, Any] = field(default_factory=dict)
    scaler: dict[str, Any] = field(default_factory=dict)


def file_of(data: feed.Examples, start: int) -> str:
    """Name of the checkpoint of the group that begins with a training set. Where rows are in shards it is good for
    the order that these blocks have."""
    return (
        f"{start:05d}-{data.x.blocks.digest}.safetensors" if isinstance(data.x, Shard) else f"{start:05d}.safetensors"
    )


class Group:
    """Training sets that are fitted together, S of them with E members each."""

    def __init__(self, rank: Rank, start: int = 0, stored: bytes | None = None) -> None:
        """`stored`: the checkpoint that it will be restored from."""
        import torch

        from genodl_spark.learning import models, pretrained
        from genodl_spark.learning.training.optimization import Average, Plateau, scaled_rate

        sets = rank.sets[start : start + rank.size]
        self.rank, self.sets, self.job, self.start, self.file = rank, sets, rank.job, start, file_of(rank.data, start)
        data, job, o = rank.data, rank.job, rank.job.options
        self.shard = data.x if isinstance(data.x, Shard) else None
        self.members = o.ensemble
        self.learns = learns(data.folds, sets, job.folds)
        allowed = None if job.allowed is None else job.allowed[start : start + rank.size]
        if self.shard is None:
            found = fit_scaling(data, self.learns, job, rank.encoding, rank.ranks, allowed)
        elif stored is None:
            self.turn(0)
            found = fit_scaling(data, self.learns, job, rank.encoding, rank.ranks, allowed)
        else:  # other ranks may have no part in it: they have had it from the start
            tensors, _ = checkpoints.unpack(stored)
            scaling = Scaling(tensors["scaling.mean"].numpy(), tensors["scaling.inverse"].numpy())
            found = Standardised(scaling, self.learns, data.x)
        self.learns, self.scaling, self.treated, self.treatments = (
            found.learns,
            found.scaling,
            found.x,
            found.treatments,
        )
        self.coordinates, self.projection = found.coordinates, found.projection
        self.rows = np.flatnonzero(self.learns.any(0))
        self.held_out = held_out(data.folds, sets, job.folds)
        self.validates = self._validates(data.folds)
        balances = o.class_weights == BALANCED
        self.loss = losses.balanced(rank.loss, data.target, self.learns) if balances else rank.loss
        self.standard = self.loss.standard(data.target, self.learns)
        parts = (data.target, self.learns, self.members, rank.ranks, rank.device)
        self.among = Among(self.loss, *parts) if hasattr(self.loss, "among") else None
        inputs = rank.encoding.shape(job.layout.features) if self.projection is None else (self.projection.shape[2],)
        seeds = [models.mix(job.seed, s.repeat, s.fold + 1, e) for s in sets for e in range(self.members)]
        self.network = models.build(job.model, seeds, inputs, rank.loss.outputs, job.code).to(rank.device, rank.dtype)
        if job.coefficients is not None:
            self._give(job.coefficients)
        if job.pretrained is not None and stored is None:
            pretrained.start(self.network, str(job.model.get("kind")), job.pretrained, self.members, job.matched)
        self.honest = found.start.left_out if found.start is not None else None
        if found.start is not None:
            weight, bias = (self.of_members(placed(v, rank.device, rank.dtype)) for v in found.start.linear)
            network: Any = self.network
            network.start_at(weight, bias)
        if hasattr(self.network, "linear_models") and self.shard is None and stored is None:
            starts.begin(self.network, self._seen, data.target, self.learns, job.heads, self.standard, job.seed)
        self.mean = placed(self.scaling.mean, rank.device, rank.dtype)
        self.inverse = placed(self.scaling.inverse, rank.device, rank.dtype)
        self.resident = self._resident()
        self.per_epoch = feed.steps(len(self.rows), o.batch)
        self.epochs = epochs(o, len(self.rows), self.job.redrawn > 0, self.honest is not None)
        if job.coefficients is not None:
            self.epochs = 0
        self.parameters = list(self.network.parameters())
        self.rate, self.warm_start = scaled_rate(o.learning_rate, o.batch, o.scale_from)
        self.optimizer = torch.optim.AdamW(self.parameters, lr=self.rate, weight_decay=o.weight_decay, fused=True)
        self.average = Average(self.parameters, o.ema) if o.ema else None
        self.plateau = Plateau(o.plateau_factor, o.plateau_patience)
        self.scaler = torch.amp.GradScaler(rank.device.type, enabled=o.amp == "fp16")
        self.kept = {name: value.clone() for name, value in self.network.state_dict().items()} if o.patience else {}
        self.forward: Any = self.network
        if o.compile == "on" or (
            o.compile == "auto" and rank.device.type == "cuda" and self.epochs * self.per_epoch >= COMPILED_STEPS
        ):
            # What torch compiles is loaded as code: not from a folder that anybody may have made.
            os.environ.setdefault(
                "TORCHINDUCTOR_CACHE_DIR", storage.private_folder(tempfile.gettempdir(), "genodl-compiled")
            )
            self.forward = torch.compile(self.network)
        self.progress = Progress(best=[math.inf] * len(seeds))
        self.ended = False
        self.beside: list[dict[str, torch.nn.Module]] = []  # the networks of every set, once they are fitted

    def _give(self, coefficients: np.ndarray) -> None:
        """Gives every network, linear in standardised features, the coefficients of a model of the features as they
        are."""
        import torch

        mean, inverse = self.scaling.mean.astype(np.float64), self.scaling.inverse.astype(np.float64)
        of_sets = {
            "layers.0.weight": (coefficients[:-1] / inverse)[:, :, None],
            "layers.0.bias": (coefficients[-1] + mean @ coefficients[:-1])[:, None, None],
        }
        state = self.network.state_dict()
        given = {name: torch.from_numpy(value.repeat(self.members, 0)) for name, value in of_sets.items()}
        if {name: value.shape for name, value in given.items()} != {name: value.shape for name, value in state.items()}:
            raise InputError("found a network of layers for given coefficients; expected a linear one", "model")
        self.network.load_state_dict(given)
        self.standard = np.tile([0.0, 1.0], (len(self.sets), 1))

    def _validates(self, codes: np.ndarray) -> np.ndarray:
        """Which rows validate each set, bool (S, rows)."""
        if self.job.folds:
            return self.held_out if self.job.validate_folds else np.zeros_like(self.held_out)
        return np.repeat((codes[:, 0] == VALIDATION)[None], len(self.sets), 0)

    def _resident(self) -> torch.Tensor | None:
        """Data that is small against the GPU's memory stays there."""
        import torch

        source = self.rank.data.x if self.coordinates is None else self.coordinates
        if isinstance(source, Shard) or self.job.redrawn:
            return None  # a part of it changes after every epoch
        if self.rank.device.type != "cuda" or math.prod(source.shape) * source.dtype.itemsize > self.job.device_bytes:
            return None
        return torch.from_numpy(np.ascontiguousarray(source[:])).to(self.rank.device)

    def turn(self, epoch: int, ahead: bool = False) -> None:
        """Where rows are in shards, this rank has those of an epoch from now on. `ahead`: another one follows."""
        if self.shard is not None:
            self.shard.turn(epoch, self.rank.ranks.rank, self.rank.ranks.size, ahead)

    def fetch(self, rows: np.ndarray, epoch: int | None = None) -> torch.Tensor:
        """Packed values (rows, F), or coordinates or treated rows (S, rows, width), of some rows, on the device.
        `epoch`: of training, which redraws some of them; None leaves all as they are stored."""
        import torch

        if self.resident is not None:
            return self.resident.index_select(int(self.coordinates is not None), placed(rows, self.rank.device))
        found = self.rank.data.x[rows] if self.coordinates is None else self.coordinates[:, rows]
        drawn = rows >= self.job.layout.rows - self.job.redrawn
        if epoch is not None and drawn.any():
            # A shuffle of a shuffle is as likely to be any sequence as one of the positive itself.
            found[drawn] = shuffles.shuffled(found[drawn], splitmix.keys_of(rows[drawn], self.job.seed, epoch))
        part = torch.from_numpy(found)
        return part.pin_memory().to(self.rank.device, non_blocking=True) if self.rank.device.type == "cuda" else part

    def inputs(self, fetched: torch.Tensor) -> Any:
        """What the networks take: standardised (S * E, rows, F), projected (S * E, rows, width) or of another
        encoding (1, rows, *shape)."""
        if self.coordinates is not None:
            z = fetched.to(self.rank.dtype)
        else:
            x = self.rank.encoding.tensor(fetched, self.rank.dtype)
            if not self.rank.encoding.scaled:
                return each(x, lambda value: value[None])
            z = (x - self.mean[:, None]).mul_(self.inverse[:, None]).nan_to_num_(nan=0.0)
        return self.of_members(z)

    def of_members(self, values: torch.Tensor) -> torch.Tensor:
        """Values of every set, (S, ...), for each of its members: (S * E, ...)."""
        return values.repeat_interleave(self.members, 0) if self.members > 1 else values

    def losses(self, outputs: torch.Tensor, rows: np.ndarray, inputs: Any, smoothing: float) -> torch.Tensor:
        """Loss of every row under every member, (S * E, rows)."""
        if self.among is not None:
            return self.among.rows(rows, outputs)
        return self.loss.rows(
            outputs.to(self.rank.dtype), self.rank.data.target[rows], self.standard, inputs, smoothing
        )

    def weights(self, rows: np.ndarray, chosen: np.ndarray) -> torch.Tensor:
        """`chosen` bool (S, all rows) at some rows, for each member: (S * E, rows)."""
        return self.of_members(placed(chosen[:, rows], self.rank.device, self.rank.dtype))

    def batches(self, epoch: int, first: int) -> Iterator[tuple[int, np.ndarray, list[Piece]]]:
        """Per step its number, the rows of the whole batch, and this rank's share in `accumulate` pieces."""
        from genodl_spark.learning.training.optimization import mixture

        job, o, ranks = self.job, self.job.options, self.rank.ranks
        pieces = o.accumulate
        for step, whole, mine in self._shares(epoch, first):
            partners, share = None, 1.0
            if o.mixup and self.shard is not None:  # a rank has no others
                share, places = mixture(len(mine), o.mixup, job.seed, epoch, step)
                partners = mine[places]
            elif o.mixup:
                share, places = mixture(len(whole), o.mixup, job.seed, epoch, step)
                partners = np.array_split(whole[places], ranks.size)[ranks.rank]
            made = []
            for part in np.array_split(np.arange(len(mine)), pieces) if pieces > 1 else [np.arange(len(mine))]:
                rows = mine[part]
                if partners is None:
                    made.append(Piece(rows, self.fetch(rows, epoch)))
                else:
                    other = self.fetch(partners[part], epoch)
                    made.append(Piece(rows, self.fetch(rows, epoch), partners[part], other, share))
            yield step, whole, made

    def _shares(self, epoch: int, first: int) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Per step its number, the rows of the whole batch, and this rank's share of them."""
        seed, batch, ranks = self.job.seed, self.job.options.batch, self.rank.ranks
        if self.shard is None:
            return feed.shares(self.rows, seed, epoch, batch, ranks.rank, ranks.size, first)
        self.turn(epoch, epoch + 1 < self.epochs)
        order = self.shard.blocks.order(self.learns.any(0), seed, epoch)
        return shards.shares(order, batch, self.shard.held, first)

    def backward(self, whole: np.ndarray, pieces: list[Piece], epoch: int) -> torch.Tensor:
        """Leaves in every parameter the gradient of the mean loss over a whole batch,
        of which `pieces` are this rank's share.

        Returns sums over all ranks: the losses of every member, 0 for rows that it does not learn from,
        how many ranks know of a change of ranks, and the rows seen: (S * E + 2,).
        """
        o, device, ranks = self.job.options, self.rank.device, self.rank.ranks
        counts = self.of_members(placed(self.learns[:, whole].sum(1).clip(min=1), device, self.rank.dtype))
        self.optimizer.zero_grad(set_to_none=True)
        # What the host knows is written there: a GPU would be waited for, or started once more for each number.
        known = np.zeros(len(self.sets) * self.members + 2)
        known[-2:] = ranks.changed, sum(len(piece.rows) for piece in pieces)
        measured = placed(known, device, self.rank.dtype)
        answers: Iterator[Said] = (self._forward(piece, epoch) for piece in pieces)
        if self.among is not None:  # a row's loss hangs on what is said of all others: their graphs are held at once
            asked = list(answers)
            for piece, said in zip(pieces, asked, strict=True):
                self.among.take(piece.rows, said.outputs)
            self.among.differentiate()
            answers = iter(asked)
        for piece, said in zip(pieces, answers, strict=True):
            outputs, z, share, learnt = said.outputs, said.z, said.share, said.learnt
            if self.honest is not None and share is None:
                # What a discriminant says of its own rows would leave nothing to learn.
                outputs = outputs + self.of_members(placed(self.honest[:, piece.rows], device, self.rank.dtype))
            of_rows = self.losses(outputs, piece.rows, z, o.label_smoothing)
            if share is not None and piece.partners is not None:
                of_rows = share * of_rows + (1 - share) * self.losses(outputs, piece.partners, z, o.label_smoothing)
            masked = of_rows * learnt
            of_member = masked.sum(1)
            measured[:-2].add_(of_member.detach())
            if said.auxiliary is not None:
                of_member = (masked + said.auxiliary.to(masked.dtype) * learnt).sum(1)
            self.scaler.scale((of_member / counts).sum()).backward()
        return ranks.sum_gradients(self.parameters, measured, o.compression == "fp16")

    def _forward(self, piece: Piece, epoch: int) -> Said:
        """What the networks say of a piece of a batch."""
        from genodl_spark.learning import models

        device = self.rank.device
        learnt = self.weights(piece.rows, self.learns)
        models.share_statistics(self.network, self.rank.ranks.reduce(), learnt)
        with precision(self.job.options.amp, device):
            z, share = self.inputs(piece.x), None
            if piece.partners is not None and piece.partner_x is not None:
                # A member must not meet a row that is held out from it: there the row stays unmixed.
                other = self.weights(piece.partners, self.learns)
                share = 1 - (1 - piece.share) * other
                z = mixed(z, self.inputs(piece.partner_x), share)
            outputs = self.forward(z, placed(piece.rows, device), epoch)
        return Said(outputs, z, share, learnt, getattr(self.network, "auxiliary", None))

    def update(self, step: int) -> None:
        """One step of the optimizer from the gradients at hand; `step` counts from the start of the training."""
        from genodl_spark.learning.training.optimization import clip_members, schedule

        o = self.job.options
        factor = schedule(
            step, self.epochs * self.per_epoch, o.warmup_epochs * self.per_epoch, o.schedule, self.warm_start
        )
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * factor * self.plateau.factor
        self.scaler.unscale_(self.optimizer)
        if o.clip:
            clip_members(self.parameters, o.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.average is not None:
            self.average.update(step)

    def fit(self) -> list[dict[str, Any]]:
        """Trains; returns per epoch the mean loss of each training set and, where there are validation rows,
        of each member on them."""
        uri = storage.join(self.job.checkpoint, self.file) if self.job.checkpoint and self.rank.ranks.rank == 0 else ""
        with contextlib.closing(checkpoints.Writer(uri)) if uri else contextlib.nullcontext() as writer:
            self._fit(writer)
        o, p = self.job.options, self.progress
        self.ended = p.epoch >= self.epochs or bool(o.patience and p.waited >= o.patience)
        if self.ended:
            self._settle()
            if self.among is not None:
                self.standard = self._fitted()
        return p.history

    def _fit(self, writer: checkpoints.Writer | None) -> None:
        from genodl_spark.learning.training.optimization import FirstBad

        job, o, ranks = self.job, self.job.options, self.rank.ranks
        written, shown = time.monotonic(), time.monotonic()
        p = self.progress
        last = min(self.epochs, job.stop_epoch or self.epochs)
        p.summed = p.summed or [0.0] * (len(self.sets) * self.members)
        p.counted = p.counted or [0] * len(self.sets)
        bad = FirstBad(self.rank.device)
        if self.among is not None and not self.among.asked:
            self.among.outputs = self._said(self.learns.any(0))
            self.among.asked = True
        while p.epoch < last and not (o.patience and p.waited >= o.patience):
            # On a CPU the networks use all cores already: a thread beside them would only take turns with them.
            fed = feed.Prefetch(self.batches(p.epoch, p.step), job.prefetch if self.rank.device.type == "cuda" else 0)
            summed: Any = 0.0
            began = time.perf_counter()
            try:
                for step, whole, pieces in fed:
                    measured = self.backward(whole, pieces, p.epoch)
                    done = p.epoch * self.per_epoch + step
                    bad.see(measured, done)
                    self.update(done)
                    summed = measured.double() if isinstance(summed, float) else summed + measured
                    self._count(whole)
                    p.step = step + 1
                    if ranks.elastic and float(measured[-2]):
                        ranks.regroup()
                    if writer is not None and time.monotonic() - written >= o.checkpoint_seconds and not writer.busy():
                        self._stop_at(bad.step())
                        summed = self._add(summed)
                        writer.write(*self.state())
                        written = time.monotonic()
                    if ranks.rank == 0 and time.monotonic() - shown > 30:
                        log.info("epoch %d of %d, step %d of %d", p.epoch + 1, self.epochs, step + 1, self.per_epoch)
                        shown = time.monotonic()
            finally:
                summed = self._add(summed)
                fed.close()
                self.rank.waited += fed.waited
                self.rank.looped += time.perf_counter() - began
            self._stop_at(bad.step())
            self._end_epoch()
        if writer is not None and p.epoch < self.epochs and job.stop_epoch:
            writer.write(*self.state())

    def _count(self, whole: np.ndarray) -> None:
        p = self.progress
        p.counted = [a + int(b) for a, b in zip(p.counted, self.learns[:, whole].sum(1), strict=True)]
        self.rank.rows_seen += len(whole)

    def _add(self, measured: Any) -> float:
        """Adds sums that were left on the device to those of the epoch."""
        p = self.progress
        if not isinstance(measured, float):
            values = measured.cpu().tolist()
            p.summed = [a + b for a, b in zip(p.summed, values[:-2], strict=True)]
            p.rows += round(values[-1])
        return 0.0

    def _stop_at(self, step: int | None) -> None:
        if step is not None:
            where = f"in epoch {step // self.per_epoch + 1}, step {step % self.per_epoch + 1}"
            raise InputError(
                f"found a loss that is not finite {where}; expected numbers, lower it or look for extreme values",
                "train.learning_rate",
            )

    def _end_epoch(self) -> None:
        import torch

        p, o = self.progress, self.job.options
        per_member = np.array(p.summed) / np.maximum(np.repeat(p.counted, self.members), 1)
        entry: dict[str, Any] = {
            "epoch": p.epoch + 1,
            "train": per_member.reshape(len(self.sets), -1).mean(1).tolist(),
            "rows": p.rows,
        }
        if self.validates.any():
            with self.average.instead() if self.average is not None else contextlib.nullcontext():
                validation = self._validation_loss()
                entry["validation"] = validation.tolist()
                self.plateau.see(float(validation.nanmean()))
                if o.patience:
                    better = validation < torch.tensor(p.best, dtype=torch.float64)
                    p.best = torch.where(better, validation, torch.tensor(p.best, dtype=torch.float64)).tolist()
                    for name, value in self.network.state_dict().items():
                        self.kept[name][better] = value[better]
                    p.waited = 0 if bool(better.any()) else p.waited + 1
        entry["sets"] = [(s.repeat, s.fold) for s in self.sets]
        p.history.append(entry)
        if self.rank.ranks.rank == 0 and (p.epoch + 1) % max(1, self.epochs // 5) == 0:
            shown = f"epoch {p.epoch + 1} of {self.epochs}: loss {float(per_member.mean()):.4f}"
            log.info(
                "%s",
                shown + (f", validation {float(np.nanmean(entry['validation'])):.4f}" if "validation" in entry else ""),
            )
        p.epoch, p.step, p.rows = p.epoch + 1, 0, 0
        p.summed, p.counted = [0.0] * len(p.summed), [0] * len(p.counted)

    def _settle(self) -> None:
        """Leaves in the network what scores and what is registered: each member at its best epoch,
        else the averages, else the last weights."""
        import torch

        if self.kept and all(math.isfinite(best) for best in self.progress.best):
            self.network.load_state_dict(self.kept)
        elif self.average is not None:
            with torch.no_grad():
                for p, value in zip(self.parameters, self.average.values, strict=True):
                    p.copy_(value)

    def state(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """All that a checkpoint holds."""
        import torch

        tensors = {f"network.{name}": value for name, value in self.network.state_dict().items()}
        for number, p in enumerate(self.parameters):
            tensors |= {f"optimizer.{number}.{key}": value for key, value in self.optimizer.state[p].items()}
        tensors |= {f"kept.{name}": value for name, value in self.kept.items()}
        if self.shard is not None:
            of_scaling = {"mean": self.scaling.mean, "inverse": self.scaling.inverse}
            tensors |= {f"scaling.{name}": torch.from_numpy(value) for name, value in of_scaling.items()}
        if self.average is not None:
            tensors |= {f"average.{number}": value for number, value in enumerate(self.average.values)}
        if self.among is not None and self.among.asked:
            tensors["among.said"] = self.among.outputs
        state = replace(self.progress, plateau=self.plateau.state(), scaler=self.scaler.state_dict())
        return tensors, asdict(state)

    def restore(self, content: bytes, state: dict[str, Any] | None = None) -> None:
        """Goes on from the tensors of a checkpoint and its state, or the state given."""
        from genodl_spark.learning.training.optimization import Plateau

        tensors, stored = checkpoints.unpack(content)

        def part(name: str) -> dict[str, torch.Tensor]:
            return {
                key.removeprefix(f"{name}."): value.to(self.rank.device)
                for key, value in tensors.items()
                if key.startswith(f"{name}.")
            }

        self.network.load_state_dict(part("network"))
        self.kept = part("kept") or self.kept
        for number, p in enumerate(self.parameters):
            if of_parameter := part(f"optimizer.{number}"):
                self.optimizer.state[p] = of_parameter
        if self.average is not None:
            averages = part("average")
            self.average.values = [averages[str(number)] for number in range(len(self.parameters))]
        if self.among is not None and (said := part("among")):
            self.among.outputs, self.among.asked = said["said"], True
        self.progress = Progress(**(stored if state is None else state))
        self.plateau = Plateau(**self.progress.plateau)
        if self.progress.scaler:
            self.scaler.load_state_dict(self.progress.scaler)
        if self.rank.ranks.rank == 0:
            log.info(
                "going on at epoch %d of %d, step %d of %d",
                self.progress.epoch + 1,
                self.epochs,
                self.progress.step + 1,
                self.per_epoch,
            )

    def _mine(self, chosen: np.ndarray, size: int) -> Iterator[np.ndarray]:
        """This rank's part of the chosen rows, in pieces."""
        if self.shard is not None:
            rows = np.flatnonzero(chosen & self.shard.held)
        else:
            rows = np.array_split(np.flatnonzero(chosen), self.rank.ranks.size)[self.rank.ranks.rank]
        for start in range(0, len(rows), size):
            yield rows[start : start + size]

    def _outputs(self, rows: np.ndarray) -> tuple[torch.Tensor, Any]:
        """Of rows what the networks say, (S * E, rows, outputs), and what they took."""
        with precision(self.job.options.amp, self.rank.device):
            z = self.inputs(self.fetch(rows))
            return self.network(z).to(self.rank.dtype), z

    def _taken(self, z: Any, s: int) -> Any:
        """What the networks of one set took, (1, B, ...): the same for all of its members."""
        return each(z, lambda value: value[s * self.members % len(value)][None])

    def _said(self, chosen: np.ndarray) -> torch.Tensor:
        """What the networks say of the rows `chosen` bool (rows,), without anything random, as every rank has it:
        float64 (S * E, rows, outputs), 0 of the others."""
        import torch

        self.network.eval()
        shape = (len(self.sets) * self.members, len(chosen), self.rank.loss.outputs)
        found = [(np.empty(0, np.int64), torch.empty(shape[0], 0, shape[2]))]
        with torch.no_grad():
            for rows in self._mine(chosen, self.job.options.batch):
                found.append((rows, self._outputs(rows)[0].cpu()))
        self.network.train()
        into = torch.zeros(shape, dtype=torch.float64, device=self.rank.device)
        rows, outputs = np.concatenate([one for one, _ in found]), torch.cat([one for _, one in found], 1)
        return gathered(self.rank.ranks, rows, outputs, into)

    def _fitted(self) -> np.ndarray:
        """What the rows of every set teach of a loss that compares them, by what the trained networks say of them:
        float64 (S, measures)."""
        loss: Any = self.loss
        of_sets = self._said(self.learns.any(0)).unflatten(0, (len(self.sets), -1)).cpu()
        return np.stack(
            [
                loss.fitted(said[:, own], self.rank.data.target[own])
                for said, own in zip(of_sets, self.learns, strict=True)
            ]
        )

    def _validation_loss(self) -> torch.Tensor:
        """Mean loss of every member on the rows that validate it, float64 (S * E,); NaN without such rows."""
        import torch

        counts = torch.from_numpy(self.validates.sum(1).repeat(self.members))
        if self.among is not None:  # among each other
            likelihood: Any = self.loss
            of_rows = likelihood.among(self.rank.data.target, self.validates)(self._said(self.validates.any(0)))
            return of_rows.sum(1).cpu() / counts
        self.network.eval()
        summed = torch.zeros(len(self.sets) * self.members, dtype=torch.float64, device=self.rank.device)
        with torch.no_grad():
            for rows in self._mine(self.validates.any(0), self.job.options.batch):
                outputs, z = self._outputs(rows)
                of_rows = self.losses(outputs, rows, z, 0.0) * self.weights(rows, self.validates)
                summed += of_rows.sum(1).double()
        self.network.train()
        return self.rank.ranks.sum(summed.cpu(), "validation loss") / counts

    def fit_beside(self) -> None:
        """Fits what stands beside the networks, where anything does."""
        if self.job.options.blend and not self.job.null:
            self.beside = beside.fit(self)

    def standardised(self, rows: np.ndarray, s: int) -> np.ndarray:
        """Some rows as the networks of one set take them, float32 (rows, features)."""
        at_once = self.job.options.batch
        parts = [self.inputs(self.fetch(rows[start : start + at_once])) for start in range(0, len(rows), at_once)]
        return np.concatenate([self._taken(z, s)[0].float().cpu().numpy() for z in parts])

    def _blends(self, outputs: torch.Tensor, z: Any, s: int, chosen: np.ndarray) -> np.ndarray:
        """Answers of set s to the rows `chosen` bool (rows,) with each of `mixtures` of what stands beside, float64
        (chosen rows, mixtures, scores), from its members' outputs (E, rows, outputs)."""
        from genodl_spark.learning.beside.blend import blended

        at = placed(np.flatnonzero(chosen), self.rank.device)
        taken = each(self._taken(z, s), lambda value: value.index_select(1, at))
        own, parts = outputs.index_select(1, at), [part(taken) for part in self.beside[s].values()]
        each_mixed = (blended(own, parts, shares) for shares in mixtures(len(parts)))
        return np.stack([self.rank.loss.answer(mixed, self.standard[s], taken) for mixed in each_mixed], 1)

    def _seen(self, rows: np.ndarray, s: int) -> np.ndarray:
        """Rows of these numbers as the networks of set s take them, float32 (rows, width)."""
        return self._as_seen(self.rank.data.x[rows], s)

    def _as_seen(self, x: np.ndarray, s: int) -> np.ndarray:
        return as_seen(x, s, self.scaling, self.treatments, self.projection, self.job, self.rank.encoding)

    @property
    def lacking(self) -> bool:
        """Whether held-out rows are scored without each block of features, too."""
        return bool(self.job.blocks) and self.shard is None and self.rank.encoding.scaled

    def _without(self, rows: np.ndarray) -> np.ndarray:
        """Answers of every set to some rows without each block of features, float64 (S, rows, blocks, scores)."""
        x, found = Values().floats(self.rank.data.x[rows]), []
        for places in self.job.blocks.values():
            part = x.copy()
            part[:, places] = np.nan
            seen = np.stack([self._as_seen(part, s) for s in range(len(self.sets))])
            with precision(self.job.options.amp, self.rank.device):
                z = self.of_members(placed(seen, self.rank.device, self.rank.dtype))
                outputs = self.network(z).to(self.rank.dtype).unflatten(0, (len(self.sets), -1))
            answers = [self.rank.loss.answer(one, self.standard[s], self._taken(z, s)) for s, one in enumerate(outputs)]
            found.append(np.stack(answers).reshape(len(self.sets), len(rows), -1))
        return np.stack(found, 2)

    def score(self) -> list[Any]:
        """Class probabilities, or values, of this rank's part of the held-out rows, averaged over an ensemble's
        members; and, in the column blends, the same with each mixture of what stands beside the networks, in the column
        lacking the same without each block of features."""
        import pyarrow as pa
        import torch

        self.network.eval()
        self.turn(max(self.progress.epoch - 1, 0))
        tables = []
        with torch.no_grad():
            for rows in self._mine(self.held_out.any(0), self.job.options.batch):
                outputs, z = self._outputs(rows)
                of_sets = outputs.unflatten(0, (len(self.sets), -1))
                taken = (self._taken(z, s) for s in range(len(self.sets)))
                without = self._without(rows) if self.lacking else None
                scores = np.stack(
                    [self.rank.loss.answer(*one) for one in zip(of_sets, self.standard, taken, strict=True)]
                )
                for s, which in enumerate(self.sets):
                    mine = self.held_out[s, rows]
                    if mine.any():
                        columns = [
                            pa.array(np.full(mine.sum(), which.repeat), pa.int32()),
                            pa.array(rows[mine], pa.int64()),
                        ]
                        columns.append(
                            pa.array(list(scores[s, mine].reshape(int(mine.sum()), -1)), pa.list_(pa.float64()))
                        )
                        names = ["repeat", "row_id", "scores"]
                        if self.beside:
                            columns.append(_nested(self._blends(of_sets[s], z, s, mine)))
                            names.append("blends")
                        if without is not None:
                            columns.append(_nested(without[s, mine]))
                            names.append("lacking")
                        tables.append(pa.Table.from_arrays(columns, names=names))
        return tables

    def learnt(self) -> dict[str, np.ndarray]:
        """What the rows that the last set learns from are like; where rows are in shards all ranks have to ask."""
        x, learns, encoding = self.treated, self.learns[-1], self.rank.encoding
        if not isinstance(x, Shard):
            return encoding.learnt(x, learns, self.scaling, self.job.cut)
        self.turn(max(self.progress.epoch - 1, 0))
        mine = np.flatnonzero(learns & x.held)
        pooled = partial(self.rank.ranks.all, name="learnt")
        return encoding.learnt(x.of(mine), np.ones(len(mine), bool), self.scaling, self.job.cut, pooled)

    def registered(self, learnt: dict[str, np.ndarray]) -> bytes:
        """The registered model as safetensors: its members' parameters, over features, its scaling,
        and what `learnt` says."""
        import torch
        from safetensors.torch import save

        network: Any = self.network
        if self.projection is not None:
            # ranks that are lost before the end are joined by others with the network as it is trained
            network = copy.deepcopy(network)
            network.fold(placed(self.projection, self.rank.device, self.rank.dtype).repeat_interleave(self.members, 0))
        last = slice(-self.members, None)
        tensors = {
            f"network.{name}": value[last].contiguous().cpu().float() for name, value in network.state_dict().items()
        }
        of_scaling = {"mean": self.scaling.mean, "inverse": self.scaling.inverse}
        declared = self.rank.encoding.tensors(self.job.layout.features)
        tensors |= {name: torch.from_numpy(value[-1].copy()) for name, value in of_scaling.items() if name in declared}
        tensors["target"] = torch.from_numpy(self.standard[-1].astype(np.float64))
        for name, value in self.treatments[-1].items() if self.treatments else ():
            tensors[name] = torch.from_numpy(value.copy())
        tensors |= {name: torch.from_numpy(value) for name, value in learnt.items()}
        for named, part in self.beside[-1].items() if self.beside else ():
            for name, value in part.state_dict().items():
                tensors[f"{named}.{name}"] = (value.float() if value.is_floating_point() else value).cpu().contiguous()
        return save(tensors)


def _nested(values: np.ndarray) -> Any:
    """float64 (rows, a, b) as a column of lists of lists."""
    import pyarrow as pa

    rows, several, numbers = values.shape
    inner = pa.ListArray.from_arrays(np.arange(rows * several + 1, dtype=np.int32) * numbers, values.ravel())
    return pa.ListArray.from_arrays(np.arange(rows + 1, dtype=np.int32) * several, inner)


def mixed(z: Any, other: Any, share: torch.Tensor) -> Any:
    """Inputs mixed with those of partners, row by row; `share` (S * E, rows) of the row itself."""
    if isinstance(z, dict):
        return {name: mixed(value, other[name], share) for name, value in z.items()}
    at = share[(slice(None), slice(None), *[None] * (z.dim() - 2))]
    at = at[:1] if z.shape[0] == 1 and bool((share == share[:1]).all()) else at
    return at * z + (1 - at) * other


@dataclass(frozen=True)
class Piece:
    """Rows of one forward, their packed values on the device, and of mixup each row's partner
    and the share of the row itself."""

    rows: np.ndarray
    x: torch.Tensor
    partners: np.ndarray | None = None
    partner_x: torch.Tensor | None = None
    share: float = 1.0


@dataclass(frozen=True)
class Said:
    """What networks say of a piece: outputs (S * E, rows, outputs) of what they took, `z`, of mixup with the share of
    the row itself; which rows each member learns from, (S * E, rows); and a loss of the network's own to be added."""

    outputs: torch.Tensor
    z: Any
    share: torch.Tensor | None
    learnt: torch.Tensor
    auxiliary: torch.Tensor | None
