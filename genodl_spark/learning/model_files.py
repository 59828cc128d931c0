"""The files of a registered model below LAKE/models/ID: card, weights and the user's own code.
Its row of `models` holds their hashes.

What a reader gets are the bytes that were hashed; a card is checked before anything is made of it.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from pydantic.dataclasses import dataclass as checked

from genodl_spark.core import own_code, packing, storage
from genodl_spark.core.errors import Damaged, InputError
from genodl_spark.core.own_code import Code, sha256
from genodl_spark.lake.tables.learning import MODELS
from genodl_spark.learning import calibration, encodings, heads
from genodl_spark.learning.heads import Head
from genodl_spark.learning.preprocessing import Chain
from genodl_spark.learning.settings import BOOSTED, FOREST, OF_SEQUENCES, RIDGE

if TYPE_CHECKING:
    from genodl_spark.lake.delta import Lake

CARD, WEIGHTS, CODE = "model.json", "model.safetensors", "code"
FORMAT = 2
LINEAR = "linear"
# what may stand beside networks; with a dot behind it, so the names of its tensors begin
BESIDE = (LINEAR, FOREST, BOOSTED, RIDGE)
SMOOTH = (LINEAR, RIDGE)  # of these, what has a gradient: trees are steps
BATCH_BYTES = 16 << 30  # of the inputs of one batch, at most
_OPTION = 1 << 31  # size of a number among a network's options
_OPTIONS = 4096  # entries of a list among them
_ADVICE = "restore it from a copy, or train the model again with --force"

Name = Annotated[str, Field(max_length=4096)]
Temperature = Annotated[float, Field(ge=0.01, le=100)]  # what is fitted lies from e**-3 to e**3
Share = Annotated[float, Field(ge=0, le=1)]
Reach = Annotated[float, Field(ge=0)]
Cut = Annotated[float, Field(ge=0)]


@checked(frozen=True, config=ConfigDict(extra="forbid", strict=True, allow_inf_nan=False))
class HeadCard:
    """One of a model's heads: the column of its labels, its kind, its classes, the temperature of their probabilities,
    the shares of what stands beside its networks, and the times at which survival is predicted."""

    label: Name
    kind: Literal["classes", "value", "time", "none", "bases"]
    classes: Annotated[list[Name], Field(max_length=1 << 16)]
    temperature: Temperature = 1.0
    linear: Share = 0.0
    forest: Share = 0.0
    boosted: Share = 0.0
    ridge_regression: Share = 0.0
    times: Annotated[list[Annotated[float, Field(gt=0)]], Field(max_length=256)] = dataclasses.field(
        default_factory=list
    )

    @model_validator(mode="after")
    def _fits_together(self) -> HeadCard:
        if (len(self.classes) > 1) != (self.kind == "classes"):
            raise ValueError("two classes at least of the kind classes, else none")
        if self.times and (self.kind != "time" or sorted(set(self.times)) != self.times):
            raise ValueError("times of the kind time alone, in ascending order")
        return self


@checked(frozen=True, config=ConfigDict(extra="forbid", strict=True, allow_inf_nan=False))
class Card:
    """What is to be known of a model beside its weights; stored as model.json.

    `features`: identifiers in the order of the inputs. `classes`: empty for regression. `heads`: what is predicted,
    where `label_column` and `classes` do not say it all, with the temperature of each in `temperatures`. `dtype`: of
    packed inputs, one of `packing.TYPES`. `temperature`: of the probabilities. `batch`: rows computed at once, short
    batches are filled up, so that a row's score does not depend on its neighbours. `steps`, `options` and `batches`:
    what is done to measured values first, and the column that tells batches. `linear`, `forest`,
    `boosted` and `ridge_regression`: shares in the outputs of what stands beside the networks (linear.py and so
    on); those of each of several heads stand there. In models of before, `linear` is that of a forest, too. `reaches`:
    by block of features that rows may lack how far answers move without it (lacking.py), of each head; of blocks of
    which that is not known there are none. `cuts`: of each head what says which classes may be, or between which values
    the truth lies, for the share `coverage` of rows (conformal.py); None where that is not known, and models of before
    have none at all.
    """

    format: int
    model_id: Annotated[str, Field(pattern=r"^[\w.-]{1,64}$")]
    task: Name
    label_column: Name
    classes: Annotated[list[Name], Field(max_length=1 << 16)]
    features: Annotated[list[Name], Field(min_length=1)]
    dtype: Annotated[str, Field(pattern=f"^({'|'.join(packing.TYPES)})$")]
    transform: Annotated[str, Field(pattern=r"^\w[\w.-]{0,200}$")]
    model: dict[str, Any]
    members: Annotated[int, Field(ge=1, le=4096)]
    temperature: Temperature
    batch: Annotated[int, Field(ge=1, le=1 << 20)]
    # models of before have none: what their classes mean
    loss: Annotated[str, Field(pattern=r"^\w[\w.-]{0,200}$")] = "auto"
    heads: Annotated[list[HeadCard], Field(max_length=1 << 12)] = dataclasses.field(default_factory=list)
    steps: Annotated[list[Name], Field(max_length=64)] = dataclasses.field(default_factory=list)
    options: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    batches: Name = ""
    linear: Share = 0.0
    forest: Share = 0.0
    boosted: Share = 0.0
    ridge_regression: Share = 0.0
    reaches: dict[Name, Annotated[list[Reach], Field(max_length=1 << 12)]] = dataclasses.field(default_factory=dict)
    coverage: Annotated[float, Field(ge=0, lt=1)] = 0.0
    cuts: Annotated[list[Cut | None], Field(max_length=1 << 12)] = dataclasses.field(default_factory=list)

    @property
    def chain(self) -> Chain | None:
        """What is done to measured values first. InputError for what no chain is."""
        return Chain(self.steps, self.options, self.features, self.batches) if self.steps else None

    @property
    def predicted(self) -> list[Head]:
        """What the model predicts."""
        found = [Head(head.label, head.kind, tuple(head.classes), tuple(head.times)) for head in self.heads]
        return found or heads.one(self.label_column, self.classes)

    @property
    def temperatures(self) -> list[float]:
        """Of the probabilities of each head."""
        return [head.temperature for head in self.heads] or [self.temperature]

    @property
    def shares(self) -> list[dict[str, float]]:
        """Of what stands beside the networks, of each head: by its name of BESIDE, where it is more than nothing."""
        of_heads: Sequence[Any] = self.heads or [self]
        each = [{name: getattr(head, name) for name in BESIDE} for head in of_heads]
        return [{name: share for name, share in one.items() if share} for one in each]

    def tempered(self, temperatures: list[float]) -> Card:
        """The same card with other temperatures of its heads."""
        return self._with([{"temperature": one} for one in temperatures])

    def blended(self, shares: list[dict[str, float]]) -> Card:
        """The same card with other shares of what stands beside the networks in its heads, as `shares` has them."""
        return self._with([dict.fromkeys(BESIDE, 0.0) | one for one in shares])

    def reaching(self, reaches: dict[str, list[float]]) -> Card:
        """The same card with other reaches of its blocks."""
        return dataclasses.replace(self, reaches=reaches)

    def covering(self, coverage: float, cuts: list[float | None]) -> Card:
        """The same card with other cuts of its heads."""
        return dataclasses.replace(self, coverage=coverage, cuts=cuts)

    def _with(self, values: list[dict[str, float]]) -> Card:
        if not self.heads:
            return dataclasses.replace(self, **values[0])  # type: ignore[arg-type]
        pairs = zip(self.heads, values, strict=True)
        return dataclasses.replace(self, heads=[dataclasses.replace(head, **own) for head, own in pairs])  # type: ignore[arg-type]

    def calibrated(self, raw: np.ndarray) -> np.ndarray:
        """Scores (..., scores of all heads) with each head's probabilities at its temperature; values as they are."""
        found = raw.copy()
        for head, own, temperature in zip(
            self.predicted, heads.answers(self.predicted), self.temperatures, strict=True
        ):
            if head.classes:
                found[..., own] = calibration.sharpen(raw[..., own], temperature)
        return found

    @model_validator(mode="after")
    def _fits_together(self) -> Card:
        named = [("classes", self.classes), ("features", self.features), ("heads", [head.label for head in self.heads])]
        for what, names in [*named, *((f"classes of {head.label}", head.classes) for head in self.heads)]:
            if len(set(names)) < len(names):
                raise ValueError(f"{what} that are named once each")
        if len(self.classes) == 1:
            raise ValueError("no classes, or two at least")
        if any(sum(shares.values()) > 1 + 1e-9 for shares in self.shares):
            raise ValueError("shares of what stands beside the networks that are 1 together at most")
        if self.heads and self.classes:
            raise ValueError("classes of the heads alone, where there are heads")
        if not own_code.is_own(self.transform):  # one of the user's own is asked where its code may run
            try:
                encoding = encodings.encoding(self.transform)
            except InputError as error:
                raise ValueError(f"a transform that is known here, {self.transform!r} is not") from error
            if packing.values_of(self.dtype) not in encoding.dtypes:
                raise ValueError(f"values of {' or '.join(encoding.dtypes)} with transform {self.transform}")
            if self.batch * 4 * encodings.size(encoding.shape(len(self.features))) > BATCH_BYTES:
                raise ValueError("a batch of 16 GiB of inputs at most")
        try:
            treated = self.chain is not None
        except InputError as error:
            raise ValueError(f"steps that are known here: {error}") from error
        if treated and self.dtype not in ("int8", "float32"):
            raise ValueError("steps of measured values alone")
        if any(len(found) != len(self.predicted) for found in self.reaches.values()):
            raise ValueError("a reach of each head for every block that has any")
        if self.cuts and len(self.cuts) != len(self.predicted):
            raise ValueError("a cut of each head, where there is any")
        if not _small(self.options):
            raise ValueError("options of steps that are words, numbers, and short lists or tables of them")
        if not _small(self.model):
            raise ValueError("options of a network that are words, numbers, and short lists or tables of them")
        return self


def beside(blend: Sequence[str]) -> list[str]:
    """What stands beside the networks, names of BESIDE, by what `train.blend` asks for."""
    asked = {LINEAR} if set(OF_SEQUENCES) & set(blend) else set()
    return [name for name in BESIDE if name in asked | set(blend)]


def check_shapes(tensors: Mapping[str, Any], expected: Mapping[str, tuple[int, ...]]) -> None:
    """ValueError unless there are just the tensors expected, of these shapes."""
    found = {name: tuple(value.shape) for name, value in tensors.items()}
    for name in [*expected, *found]:
        if found.get(name) != expected.get(name):
            raise ValueError(f"{name} has shape {found.get(name)}, by the card {expected.get(name)}")


def mixtures(parts: int) -> list[tuple[float, ...]]:
    """Shares (parts,) that what stands beside the networks may have in a model's outputs, from none to all: tenths of
    one, fifths of several."""
    steps = 10 if parts == 1 else 5
    found = (part for part in itertools.product(range(steps + 1), repeat=parts) if sum(part) <= steps)
    return [tuple(step / steps for step in part) for part in sorted(found, key=lambda part: (sum(part), part))]


def _small(value: Any, depth: int = 0) -> bool:
    """Whether an option of a network is of a size that one may have."""
    if isinstance(value, list | dict):
        inner = value.values() if isinstance(value, dict) else value
        return depth < 4 and len(value) <= _OPTIONS and all(_small(one, depth + 1) for one in inner)
    if isinstance(value, str):
        return len(value) <= _OPTIONS
    return isinstance(value, bool | int | float) and abs(value) <= _OPTION


_CARDS = TypeAdapter(Card)


def card_of(content: bytes, origin: str) -> Card:
    """The card that the bytes of a model.json hold. InputError, with `origin`, for what is no card,
    or none that this code knows."""
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InputError(f"not readable as JSON ({error}); expected the card of a model, {_ADVICE}", origin) from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        found = document.get("format") if isinstance(document, dict) else None
        raise InputError(f"found model format {found!r}; expected {FORMAT}, train the model again with --force", origin)
    try:
        return _CARDS.validate_json(content)
    except ValidationError as error:
        raise InputError(f"{_what_is_wrong(error)}; {_ADVICE}", origin) from error


def new_card(predicted: Sequence[Head], **values: Any) -> Card:
    """The card of a model that is to be trained. InputError for what no card may say."""
    of_heads = heads.shapes(predicted)
    try:
        several = [
            HeadCard(head.label, head.kind, list(head.classes), times=list(head.times))  # type: ignore[arg-type]
            for head in predicted
            if of_heads["heads"]
        ]
        return Card(format=FORMAT, temperature=1.0, classes=of_heads["classes"], heads=several, **values)
    except ValidationError as error:
        raise InputError(_what_is_wrong(error), "model") from error


def _what_is_wrong(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    key = ".".join(str(part) for part in first["loc"])
    found = f"found {first['input']!r:.80} for {key}" if key else "found a card that does not fit together"
    return f"{found}; expected: {first['msg'].removeprefix('Value error, ')}"


@dataclasses.dataclass(frozen=True)
class ModelFiles:
    """Where a model's files are, and the SHA-256 (hex) of each by its name below `uri`;
    none of a model that was registered without.

    `trusted`: whether today's command lets code stored with the model run. `given`: the code that today's command names
    itself, for a model that was registered without any. It goes to Spark tasks as it is, and they read through it too.
    """

    uri: str
    hashes: tuple[tuple[str, str], ...] = ()
    trusted: bool = False
    given: tuple[tuple[str, bytes], ...] = ()

    def place(self, name: str) -> str:
        return storage.join(self.uri, name)

    def read(self, name: str) -> bytes:
        """The content of a file as it was registered. Damaged where it is another, InputError where it is gone."""
        content, expected = storage.read_bytes(self.place(name)), dict(self.hashes).get(name)
        if expected is None and self.hashes:
            raise InputError(
                "found a file that table models knows nothing of; expected its hash there, train the model again",
                self.place(name),
            )
        if expected is not None and (found := sha256(content)) != expected:
            text = (
                f"found SHA-256 {found[:16]}...; expected {expected[:16]}... as in table models: "
                "the file has changed since it was registered"
            )
            raise Damaged(f"{text}; {_ADVICE}", self.place(name))
        return content

    def card(self) -> Card:
        return card_of(self.read(CARD), self.place(CARD))

    def weights(self) -> bytes:
        return self.read(WEIGHTS)

    def code_hashes(self) -> dict[str, str]:
        """SHA-256 of each file of the user's own code, by base name."""
        found = {name.removeprefix(f"{CODE}/"): value for name, value in self.hashes if name.startswith(f"{CODE}/")}
        return found or {name: sha256(content) for name, content in self.given}

    def code(self) -> dict[str, bytes]:
        """The user's own code that the model was trained with, by base name;
        none where task and network are of this package.

        InputError where it may not run.
        """
        if not self.hashes:
            return dict(self.given)
        names = self.code_hashes()
        if names and not self.trusted:
            text = f"found the model's own code {', '.join(names)}; expected leave to run it"
            raise InputError(
                f"{text}: read it, then --set code.trusted=true, or name the TOML that it was trained with",
                self.place(CODE),
            )
        return {name: self.read(f"{CODE}/{name}") for name in names}


def publish(uri: str, card: Card, weights: bytes, code: Code) -> ModelFiles:
    """Writes the files of a model."""
    contents = {
        CARD: (json.dumps(dataclasses.asdict(card), indent=1, sort_keys=True) + "\n").encode(),
        WEIGHTS: weights,
    }
    contents |= {f"{CODE}/{name}": content for name, content in code.items()}
    for name, content in contents.items():
        storage.write_bytes(storage.join(uri, name), content)
    return ModelFiles(uri, tuple((name, sha256(content)) for name, content in contents.items()), bool(code))


def columns(files: ModelFiles) -> dict[str, Any]:
    """The columns of `models` that hold the hashes."""
    found = dict(files.hashes)
    return {"card_sha256": found[CARD], "weights_sha256": found[WEIGHTS], "code_sha256": files.code_hashes()}


def files_of(row: Any, uri: str, trusted: bool = False, given: Code | None = None) -> ModelFiles:
    """The files of a model of a row of `models`, at `uri`.

    Its code may run where the command says so (`trusted`), or is the very code that the command names itself (`given`).
    """
    given = given or {}
    if row.card_sha256 is None or row.weights_sha256 is None:
        return ModelFiles(uri, given=tuple(sorted(given.items())))
    code = dict(row.code_sha256 or {})
    named = all(name in given and sha256(given[name]) == value for name, value in code.items())
    hashes = {
        CARD: row.card_sha256,
        WEIGHTS: row.weights_sha256,
        **{f"{CODE}/{name}": value for name, value in code.items()},
    }
    return ModelFiles(uri, tuple(sorted(hashes.items())), trusted or named)


def registered(lake: Lake, model_id: str, trusted: bool = False) -> ModelFiles:
    """The files of a model of a lake. InputError where it is not registered."""
    found = lake.rows(MODELS, {"model_id": model_id}).to_pylist()
    if not found:
        raise InputError(f"found no model {model_id}; expected one of genodl list models", lake.uri)
    from pyspark.sql import Row

    return files_of(Row(**found[0]), lake.model_uri(model_id), trusted)
