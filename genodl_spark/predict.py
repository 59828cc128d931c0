"""A registered model, from its files to a batch kernel and a Spark function over the lake."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from genodl_spark import evaluate, feed, quality, storage
from genodl_spark.errors import InputError

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

WEIGHTS, CARD = "model.safetensors", "model.json"
FORMAT = 1


@dataclass(frozen=True)
class Card:
    """What is to be known of a model beside its weights; stored as model.json.

    `features`: identifiers in the order of the inputs. `classes`: empty for regression. `dtype`: of packed inputs, int8 with -1
    missing or float32 with NaN missing. `temperature`: of the probabilities. `batch`: rows computed at once, short batches are
    filled up, so that a row's score does not depend on its neighbours.
    """

    format: int
    model_id: str
    task: str
    label_column: str
    classes: list[str]
    features: list[str]
    dtype: str
    transform: str
    model: dict[str, Any]
    members: int
    temperature: float
    batch: int


class Predictor:
    """A model in memory: packed features in, probabilities or values out."""

    def __init__(self, card: Card, weights: bytes, origin: str) -> None:
        import torch
        from safetensors import SafetensorError
        from safetensors.torch import load

        from genodl_spark import models

        self.card = card
        try:
            tensors = load(weights)  # safetensors holds numbers only: nothing is unpickled
        except SafetensorError as error:
            raise InputError(f"not a safetensors file ({error}); expected the weights of a model, train it again", origin) from error
        scaling = tensors.pop("mean"), tensors.pop("inverse")
        self.center, self.spread = tensors.pop("target").numpy()[:, None]
        self.network = models.build(card.model, list(range(card.members)), feed.shape(len(card.features), card.transform), max(len(card.classes), 1))
        self.network.load_state_dict({name.removeprefix("network."): value for name, value in tensors.items()})
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.network.to(self.device).eval()
        self.mean, self.inverse = (values.to(self.device) for values in scaling)

    def __call__(self, x: np.ndarray, calibrated: bool = True) -> np.ndarray:
        """Scores of rows x (rows, features), int8 with -1 missing or float32 with NaN missing.

        Class probabilities float64 (rows, classes), at the card's temperature unless `calibrated` is off; or values float64 (rows,) for regression.
        """
        import torch

        from genodl_spark import models

        scores = []
        for start in range(0, len(x), self.card.batch):
            part = x[start : start + self.card.batch]
            filled = np.zeros((self.card.batch, x.shape[1]), x.dtype)
            filled[: len(part)] = part
            with torch.no_grad():
                values = feed.values(torch.from_numpy(filled).to(self.device), self.card.transform, torch.float32)
                if self.card.transform != quality.ONE_HOT:
                    values = torch.nan_to_num((values - self.mean) * self.inverse, nan=0.0)
                outputs = self.network(values[None])
            scores.append(models.combine(outputs, 1, len(self.card.classes), self.center, self.spread)[0, : len(part)])
        if not scores:
            return np.empty((0, len(self.card.classes))) if self.card.classes else np.empty(0)
        found = np.concatenate(scores)
        return evaluate.sharpen(found, self.card.temperature) if self.card.classes and calibrated else found


def write_card(uri: str, card: Card) -> None:
    storage.write_json(storage.join(uri, CARD), asdict(card))


def read_card(uri: str) -> Card:
    """The card of the model at `uri`. InputError when it is absent, or of a format that this code does not know."""
    document = storage.read_json(storage.join(uri, CARD))
    if document.get("format") != FORMAT:
        raise InputError(f"found model format {document.get('format')}; expected {FORMAT}, train the model again", uri)
    return Card(**document)


def load(uri: str) -> Predictor:
    return Predictor(read_card(uri), storage.read_bytes(storage.join(uri, WEIGHTS)), storage.join(uri, WEIGHTS))


@lru_cache(maxsize=1)
def _cached(uri: str) -> Predictor:
    """One model per worker process, loaded once."""
    import torch

    torch.set_num_threads(1)  # a Spark task has one core
    return load(uri)


SCORED = "entity_id string, scores array<double>, missing int"


def score(rows: DataFrame, uri: str, calibrated: bool = True) -> DataFrame:
    """Scores rows (entity_id string, x binary, missing int) with the model at `uri`.

    Returns entity_id, scores (probabilities in the order of the card's classes, or one value) and missing, the number of the
    model's features that the row lacks.
    """

    def kernel(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        predictor = _cached(uri)
        width = len(predictor.card.features)
        for batch in batches:
            x = np.frombuffer(b"".join(batch.column("x").to_pylist()), predictor.card.dtype).reshape(batch.num_rows, width)
            scores = predictor(x, calibrated).reshape(batch.num_rows, -1)
            offsets = np.arange(batch.num_rows + 1, dtype=np.int32) * scores.shape[1]
            packed = pa.ListArray.from_arrays(pa.array(offsets), pa.array(scores.ravel()))
            yield pa.RecordBatch.from_arrays([batch.column("entity_id"), packed, batch.column("missing")], ["entity_id", "scores", "missing"])

    return rows.mapInArrow(kernel, SCORED)
