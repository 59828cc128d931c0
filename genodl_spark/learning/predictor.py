"""A registered model, from its files to a batch kernel and Spark functions over the lake."""

from __future__ import annotations

import gc
import json
import platform
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from genodl_spark.core import own_code, packing, storage
from genodl_spark.core.errors import InputError
from genodl_spark.core.own_code import Code
from genodl_spark.learning import devices, encodings, losses
from genodl_spark.learning.encodings.values import Values
from genodl_spark.learning.model_files import (
    BATCH_BYTES,
    BESIDE,
    CARD,
    LINEAR,
    SMOOTH,
    WEIGHTS,
    Card,
    ModelFiles,
    check_shapes,
    registered,
)
from genodl_spark.learning.preprocessing import STEP, Chain
from genodl_spark.learning.settings import FOREST, RIDGE

if TYPE_CHECKING:
    import torch
    from pyspark.sql import DataFrame

_INPUT_BYTES = 1 << 20  # float32 inputs of a batch: they and what networks make of them stay in a core's cache
_GPU_INPUT_BYTES, _GPU_ROWS = 1 << 24, 1 << 14  # of a batch on a GPU: most of it is idle with fewer
_DRAWS, _FEWEST, _DRAWN = 400, 50, 1 << 24  # draws of a row's missing values; inputs of all networks for them
WITHIN = (0.025, 0.975)  # shares of the draws between which the ends of an interval lie
_LEAST = 1e-6  # share that networks and linear parts have in a model of trees, at least, to be told of
_AT_ONCE = 8192  # rows whose scores are given back at once


def batch_rows(batch: int, shape: encodings.Shape) -> int:
    """Rows of a batch: `batch`, or where that is 0 a power of two that suits the shape of a row."""
    return batch or int(np.clip(2 ** int(np.log2(max(_INPUT_BYTES // (4 * encodings.size(shape)), 1))), 64, 4096))


@dataclass(frozen=True)
class Scores:
    """What a model says of B rows. `raw` float64 (B, scores): of each head, side by side,
    probabilities before calibration, or a value.

    `uncertainty` float64 (B, heads): what the members of an ensemble, or passes with dropout, disagree about,
    as the loss has it (see losses/); NaN where there is one answer only.
    `distance` float64 (B,): how far a row is from those of training, bits per base or mean square;
    NaN of a row without any value. `unusual` bool (B,): which rows are unlike those of training, by distance and,
    of sequences, by length and variety; a row without any value is.
    `filled` int (B,): measured features that a row lacks, of a model with steps. `low`, `high` float64 (B, scores):
    where the answer, calibrated, lies whatever these are, in 95 of 100 draws of them; NaN of a row that lacks none,
    of a model whose steps do not draw, and where they were not asked for.
    """

    raw: np.ndarray
    uncertainty: np.ndarray
    distance: np.ndarray
    unusual: np.ndarray
    filled: np.ndarray
    low: np.ndarray
    high: np.ndarray


def _tensors(weights: bytes, origin: str) -> dict[str, torch.Tensor]:
    """Tensors of a model.safetensors: numbers only, nothing is unpickled;
    what its header declares is as long as the file."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return load(weights)
    except (SafetensorError, ValueError, KeyError, RuntimeError, OverflowError) as error:
        raise InputError(
            f"not a safetensors file ({error}); expected the weights of a model, train it again", origin
        ) from error


def _treatment(chain: Chain, tensors: dict[str, torch.Tensor], origin: str) -> dict[str, np.ndarray]:
    """Takes out of a model's tensors those of its steps, float64. InputError where they are not this chain's."""
    found = {name: tensors.pop(name).double().numpy() for name in list(tensors) if name.startswith(STEP)}
    try:
        chain.check(found)
    except ValueError as error:
        text = f"not the weights of this model's card ({error}); expected those, train it again"
        raise InputError(text, origin) from error
    return found


def treatment_of(files: ModelFiles) -> tuple[Chain | None, dict[str, np.ndarray]]:
    """What a registered model does to measured values first, and what its training rows taught that; None of one
    without steps."""
    chain, origin = files.card().chain, files.place(WEIGHTS)
    return chain, {} if chain is None else _treatment(chain, _tensors(files.weights(), origin), origin)


def _network(
    card: Card,
    encoding: encodings.Encoding,
    loss: losses.Loss,
    tensors: dict[str, torch.Tensor],
    origin: str,
    code: Code,
) -> Any:
    """The card's network with its weights. InputError, with `origin`, where they do not belong together.

    A network of this package is first made without memory: what the card declares is held against the file before
    anything of that size is made.
    """
    import torch

    from genodl_spark.learning import models

    inputs = encoding.shape(len(card.features))
    if card.batch * 4 * encodings.size(inputs) > BATCH_BYTES:
        raise InputError(
            "found a batch of more than 16 GiB of inputs; expected a smaller one, train it again",
            storage.join(origin, CARD),
        )
    expected: dict[str, tuple[int, ...]] = {"target": (loss.measures,)}
    for name, shapes in encoding.tensors(len(card.features)).items():
        found = tuple(tensors[name].shape) if name in tensors else ()
        expected[name] = found if found in shapes else shapes[0]

    def made() -> Any:
        return models.build(card.model, list(range(card.members)), inputs, loss.outputs, code)

    try:
        if own_code.is_own(str(card.model.get("kind"))):
            network = made()
            check_shapes(tensors, {**expected, **_shapes(network)})
        else:
            with torch.device("meta"):
                declared = _shapes(made())
            check_shapes(tensors, {**expected, **declared})
            network = made()
        network.load_state_dict(
            {name.removeprefix("network."): value for name, value in tensors.items() if name not in expected}
        )
    except InputError as error:  # of what the card says
        raise InputError(str(error), error.file if error.line else storage.join(origin, CARD)) from error
    except (RuntimeError, ValueError, OverflowError) as error:
        text = f"not the weights of this model's card ({error}); expected those, train it again"
        raise InputError(text, storage.join(origin, WEIGHTS)) from error
    return network


def _blended(
    card: Card, network: Any, inputs: encodings.Shape, tensors: Mapping[str, torch.Tensor], origin: str
) -> tuple[Any, Any]:
    """The network blended with what these tensors are of and has a share in it, and with as much of that as has a
    gradient, which trees have not. InputError, with `origin`, where they are not of such a card."""
    shares = _shares(card, tensors)
    parts: dict[str, Any] = {}
    for named in shares:
        found = {key.removeprefix(f"{named}."): tensors[key] for key in tensors if key.startswith(f"{named}.")}
        try:
            parts[named] = _part(named, card, inputs, found)
        except ValueError as error:
            text = f"not the weights of this model's card ({named}.{error}); expected those, train it again"
            raise InputError(text, origin) from error
    smooth = {named: share for named, share in shares.items() if named in SMOOTH}
    left = 1 - sum(share for named, share in shares.items() if named not in SMOOTH)
    smooth = {named: np.where(left > _LEAST, share / np.maximum(left, _LEAST), 0) for named, share in smooth.items()}
    return _as_one(network, parts, shares), _as_one(network, parts, smooth)


def _shares(card: Card, tensors: Mapping[str, torch.Tensor]) -> dict[str, np.ndarray]:
    """Of what stands beside the network, float64 (outputs,), where it is more than nothing, by name."""
    numbers = [head.scores for head in card.predicted]
    found = {name: np.repeat([one.get(name, 0.0) for one in card.shares], numbers) for name in BESIDE}
    if f"{FOREST}.roots" in tensors and not any(name.startswith(f"{LINEAR}.") for name in tensors):
        found[FOREST], found[LINEAR] = found[FOREST] + found[LINEAR], np.zeros(sum(numbers))  # a model of before
    return {name: share for name, share in found.items() if share.any()}


def _as_one(network: Any, parts: Mapping[str, Any], shares: Mapping[str, np.ndarray]) -> Any:
    import torch

    from genodl_spark.learning.beside.blend import Blended

    if not shares:
        return network
    return Blended(network, [parts[name] for name in shares], torch.from_numpy(np.stack(list(shares.values()))))


def _part(named: str, card: Card, inputs: encodings.Shape, found: Mapping[str, torch.Tensor]) -> Any:
    """What stands beside the network, of these tensors. ValueError where they are not of such a card."""
    from genodl_spark.learning.beside import boosted, forest, ridge

    if named == LINEAR:
        return _linear(card, inputs, found)
    if named == FOREST:
        return forest.part(found, card.predicted, len(card.features))
    if named == RIDGE:
        return ridge.part(found, card.predicted, len(card.features))
    if not (isinstance(inputs, tuple) and len(inputs) == 2 and inputs[0] == 4):
        raise ValueError("trees are of bases, which this model does not read")
    return boosted.part(found, card.predicted, inputs[1])


def _linear(card: Card, inputs: encodings.Shape, found: Mapping[str, torch.Tensor]) -> Any:
    """The linear part of these tensors. ValueError where they are not of such a card."""
    from genodl_spark.learning.beside import linear

    outputs = sum(head.scores for head in card.predicted)
    expected: dict[str, tuple[int, ...]] = {"bias": (outputs,)}
    if isinstance(inputs, tuple) and len(inputs) == 2 and inputs[0] == 4:
        blocks = [block for block in linear.WAYS["both"] if block in found]
        expected |= {block: (linear.width(block, inputs[1]), outputs) for block in blocks}
    check_shapes(found, expected)
    weights = {name: value for name, value in found.items() if name != "bias"}
    return linear.LinearPart(weights, found["bias"], linear.strands(card.model))


def _shapes(network: Any) -> dict[str, tuple[int, ...]]:
    return {f"network.{name}": tuple(value.shape) for name, value in network.state_dict().items()}


class Predictor:
    """A model in memory: packed features in, probabilities or values out.

    `passes`: with dropout, in place of members, where the model is one network; 0 for none.
    `threads`: of torch on a CPU; None leaves them. `batch`: rows computed at once, the card's or on a GPU a multiple
    of them; short batches are filled up.
    """

    def __init__(
        self,
        card: Card,
        weights: bytes,
        origin: str,
        precision: str = "float32",
        passes: int = 0,
        device: str | None = None,
        threads: int | None = None,
        code: Code | None = None,
    ) -> None:
        import torch

        self.card, self.precision, self.passes = card, precision, passes if card.members == 1 else 0
        if threads is not None:
            torch.set_num_threads(threads)
        try:
            self.encoding = encodings.encoding(card.transform, code)
            inputs = self.encoding.shape(len(card.features))
            self.loss = losses.loss(losses.name_of(card.loss, card.predicted), card.predicted, inputs, code)
        except InputError as error:  # of what the card says
            raise InputError(str(error), storage.join(origin, CARD)) from error
        self.width = self.encoding.width(len(card.features))
        tensors = _tensors(weights, storage.join(origin, WEIGHTS))
        self.chain = card.chain
        self.treatment = {} if self.chain is None else _treatment(self.chain, tensors, storage.join(origin, WEIGHTS))
        beside = {name: tensors.pop(name) for name in list(tensors) if name.partition(".")[0] in BESIDE}
        self.network = _network(card, self.encoding, self.loss, tensors, origin, code or {})
        # `smooth`: what has a gradient
        self.network, self.smooth = _blended(card, self.network, inputs, beside, storage.join(origin, WEIGHTS))
        self.standard = tensors["target"].double().numpy()
        if hasattr(self.loss, "known"):
            try:
                self.loss.known(self.standard)
            except ValueError as error:
                text = f"not the weights of this model's card ({error}); expected those, train it again"
                raise InputError(text, storage.join(origin, WEIGHTS)) from error
        if self.passes and card.model.get("norm") == "batch":
            raise InputError(
                "found batch norm, which passes with dropout would feed with other rows; expected 0", "predict.passes"
            )
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.network.to(self.device).eval()
        self.smooth.to(self.device).eval()
        self.reader = self.encoding.reader(tensors, self.device)
        at_once = min(_GPU_INPUT_BYTES // (4 * encodings.size(inputs)), _GPU_ROWS) if self.device.type == "cuda" else 0
        self.batch = card.batch * max(at_once // card.batch, 1)

    @property
    def computed_on(self) -> str:
        """What the last bits of a score depend on, JSON."""
        import torch

        named = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else platform.machine()
        threads = torch.get_num_threads() if self.device.type == "cpu" else 0
        found = {
            "device": named,
            "precision": self.precision,
            "batch": self.batch,
            "threads": threads,
            "passes": self.passes,
        }
        return json.dumps({**found, "torch": torch.__version__}, sort_keys=True)

    def __call__(self, x: np.ndarray, calibrated: bool = True) -> np.ndarray:
        """Scores of rows x (rows, values), packed as the card says.

        Of each head, side by side, class probabilities, at the card's temperature unless `calibrated` is off,
        or a value: float64 (rows, scores); (rows,) of values alone.
        """
        raw = self.scores(x).raw
        if raw.shape[1] == 1:
            return raw[:, 0]
        return self.card.calibrated(raw) if calibrated else raw

    def scores(self, x: packing.Rows, lengths: np.ndarray | None = None, draw: bool = False) -> Scores:
        """All that is to be said of rows x, as for a call. `lengths` int (rows,): of sequences,
        where rows may be parts of them. `draw`: also what missing values may do to the answer."""
        import torch

        batch = self.batch
        parts: list[list[np.ndarray]] = []
        with torch.inference_mode():
            for start in range(0, len(x), batch):
                part = self._treated(x[start : start + batch])
                found = [one[: len(part)] for one in self._batch(_whole(part, batch))]
                of_part = None if lengths is None else lengths[start : start + batch]
                parts.append([*found, self.reader.unusual(part, found[-1], of_part)])
                parts[-1] += self._moved(x[start : start + batch], draw)
        if not parts:
            of_heads = self.card.predicted
            raw, uncertainty = np.empty((0, sum(head.scores for head in of_heads))), np.empty((0, len(of_heads)))
            nothing = np.empty(0, np.int32), np.empty_like(raw), np.empty_like(raw)
            return Scores(raw, uncertainty, np.empty(0), np.empty(0, bool), *nothing)
        return Scores(*(np.concatenate(found) for found in zip(*parts, strict=True)))

    def _moved(self, x: np.ndarray, draw: bool) -> list[np.ndarray]:
        """`filled`, `low` and `high` of packed rows x."""
        filled = np.zeros(len(x), np.int32)
        low = np.full((len(x), sum(head.scores for head in self.card.predicted)), np.nan)
        high = low.copy()
        if self.chain is None:
            return [filled, low, high]
        stored = Values().floats(x)
        filled[:] = np.isnan(stored[:, self.chain.measured]).sum(1)
        if draw and self.chain.draws:
            count = int(np.clip(_DRAWN // (stored.shape[1] * self.card.members), _FEWEST, _DRAWS))
            # one step per row that lacks a value, over all of its draws
            for row in np.flatnonzero(filled):
                drawn = self.chain.drawn(stored[row], self.treatment, count)
                parts = [drawn[at : at + self.batch] for at in range(0, count, self.batch)]
                answers = np.concatenate([self._batch(_whole(part, self.batch))[0][: len(part)] for part in parts])
                low[row], high[row] = np.quantile(self.card.calibrated(answers), WITHIN, axis=0)
        return [filled, low, high]

    def _treated(self, x: np.ndarray) -> np.ndarray:
        """Rows after what is done to measured values first: computed as many at once as ever, so that none depends on
        how many there are."""
        if self.chain is None:
            return x
        stored, size = Values().floats(x), self.card.batch
        parts = [stored[start : start + size] for start in range(0, len(x), size)]
        return np.concatenate(
            [self.chain.apply(part[np.arange(size) % len(part)], self.treatment)[: len(part)] for part in parts]
        )

    def inputs(self, x: packing.Rows) -> Any:
        """What the network takes of rows x (B, values), packed as the card says: (B, *shape), or several by name."""
        part = self._treated(x[:])
        return self.reader(part, self._placed(part))[0]

    def _placed(self, x: np.ndarray) -> torch.Tensor:
        with warnings.catch_warnings():  # torch warns of memory that it may not write to, and does not
            warnings.simplefilter("ignore", UserWarning)
            return devices.placed(x, self.device)

    def _batch(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        inputs, distance = self.reader(x, self._placed(x))
        first = encodings.each(inputs, lambda value: value[None])
        with devices.precision(self.precision, self.device):
            outputs = self._answers(first, len(x)).float()
        answer = self.loss.answer(outputs, self.standard, first)
        return answer, self.loss.uncertainty(outputs, answer, self.standard).reshape(len(answer), -1), distance

    def _answers(self, first: Any, rows: int) -> torch.Tensor:
        """Outputs of every member, or of every pass, (E, B, C), for inputs (1, B, ...)."""
        import torch

        if not self.passes:
            found: torch.Tensor = self.network(first)
            return found
        # Every row is given the same masks, so that neither its neighbours nor its place among them matter.
        same = torch.zeros(rows, dtype=torch.int64, device=self.device)
        return torch.cat([self.network(first, same, number) for number in range(self.passes)])


def _whole(part: np.ndarray, batch: int) -> np.ndarray:
    """Rows filled up to a batch with zeros."""
    if len(part) == batch:
        return part
    whole = np.zeros((batch, part.shape[1]), part.dtype)
    whole[: len(part)] = part
    return whole


def load(files: ModelFiles, precision: str = "float32", passes: int = 0) -> Predictor:
    """A model, on the GPU that the Spark task was given, else on any, else on the cores of the task,
    or on this process's."""
    return Predictor(files.card(), files.weights(), files.uri, precision, passes, *_task_resources(), code=files.code())


def _task_resources() -> tuple[str | None, int | None]:
    from pyspark import TaskContext

    task = TaskContext.get()
    if task is None:
        return None, None
    gpu = task.resources().get("gpu")
    return f"cuda:{gpu.addresses[0]}" if gpu else None, task.cpus()


@lru_cache(maxsize=2)
def cached(files: ModelFiles, precision: str = "float32", passes: int = 0) -> Predictor:
    """One model per worker process, loaded once."""
    found = load(files, precision, passes)
    # pyspark collects garbage after every task: an eighth of a second, if it goes through all that torch has imported
    gc.freeze()
    return found


@dataclass(frozen=True)
class Batch:
    """Rows that were scored together: their identifiers, their scores, and how many of the model's
    features each lacks, int (B,); of blocks that rows may lack, which each does, bool (B, blocks)."""

    entities: pa.Array
    scores: Scores
    missing: np.ndarray
    absent: np.ndarray | None = None


Blocks = Sequence[tuple[str, np.ndarray]]  # names of blocks, and where their features stand, int64


def scored(
    predictor: Predictor, batches: Iterable[pa.RecordBatch], blocks: Blocks = (), draw: bool = False
) -> Iterator[Batch]:
    """Scores batches of rows (entity_id string, x binary, missing int; length int of sequences that x may
    be a part of), some thousands at once. `blocks`: those that a row may lack; one that lacks all has no score, NaN.
    `draw`: as for `Predictor.scores`.

    No batch of the predictor but the last is filled up.
    """
    width = predictor.width
    held: list[Batch] = []
    for rows in whole(batches, predictor.batch):
        x = packing.packed(rows.column("x"), predictor.card.dtype, width)
        lengths = rows.column("length").to_numpy() if "length" in rows.schema.names else None
        scores, absent = predictor.scores(x, lengths, draw), None
        if blocks:
            known = ~np.isnan(predictor.encoding.floats(np.asarray(x[:])))
            absent = np.stack([~known[:, places].any(1) for _, places in blocks], 1)
            nothing = absent.all(1)
            scores.raw[nothing], scores.uncertainty[nothing] = np.nan, np.nan
        held.append(Batch(rows.column("entity_id"), scores, rows.column("missing").to_numpy(), absent))
        if sum(len(batch.missing) for batch in held) >= _AT_ONCE:
            yield _together(held)
            held = []
    if held:
        yield _together(held)


def whole(batches: Iterable[pa.RecordBatch], size: int) -> Iterator[pa.RecordBatch]:
    """The same rows in batches of a multiple of `size`, the last of what is left;
    what need not be put together is not copied."""
    held: list[pa.RecordBatch] = []
    rows = 0
    for batch in batches:
        start = 0
        if rows and rows + batch.num_rows >= size:
            start = size - rows
            yield _joined([*held, batch.slice(0, start)])
            held, rows = [], 0
        several = (batch.num_rows - start) // size * size if not rows else 0
        if several:
            yield batch.slice(start, several)
        if start + several < batch.num_rows:
            held.append(batch.slice(start + several))
            rows += held[-1].num_rows
    if rows:
        yield _joined(held)


def _joined(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    (found,) = pa.Table.from_batches(batches).combine_chunks().to_batches()
    return found


def _together(batches: list[Batch]) -> Batch:
    scores = (np.concatenate([getattr(batch.scores, field.name) for batch in batches]) for field in fields(Scores))
    return Batch(
        pa.concat_arrays([batch.entities for batch in batches]),
        Scores(*scores),
        np.concatenate([batch.missing for batch in batches]),
        None if batches[0].absent is None else np.concatenate([b.absent for b in batches if b.absent is not None]),
    )


SCORED = "entity_id string, scores array<double>, missing int"


def score(rows: DataFrame, model: ModelFiles | str, calibrated: bool = True, trusted: bool = False) -> DataFrame:
    """Scores rows (entity_id string, x binary, missing int) with a model, given by its files or as LAKE/models/ID;
    they may be a stream.

    `trusted`: whether code of its user's that is stored with it may run. Returns entity_id, scores (of each head, side
    by side, probabilities in the order of its classes, or one value) and missing, the number of the model's features
    that the row lacks. InputError where the model is not registered in its lake, or its files are not those that were.
    """
    if isinstance(model, str):
        from genodl_spark.lake.delta import Lake  # which the kernel does without

        folder, _, model_id = model.rstrip("/").rpartition("/")
        model = registered(Lake(rows.sparkSession, folder.rpartition("/")[0]), model_id, trusted)
    files = model
    files.card(), files.code()  # so that a model that is damaged or may not run is refused before a task starts

    def kernel(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        predictor = cached(files)
        for batch in scored(predictor, batches):
            found = predictor.card.calibrated(batch.scores.raw) if calibrated else batch.scores.raw
            offsets = np.arange(len(found) + 1, dtype=np.int32) * found.shape[1]
            packed = pa.ListArray.from_arrays(pa.array(offsets), pa.array(found.ravel()))
            columns = [batch.entities, packed, pa.array(batch.missing, pa.int32())]
            yield pa.RecordBatch.from_arrays(columns, ["entity_id", "scores", "missing"])

    return rows.mapInArrow(kernel, SCORED)
