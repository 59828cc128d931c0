"""Registered models: which one a run means, with its card, its files and the settings that it was made with."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from genodl_spark import tasks
from genodl_spark.core.errors import InputError
from genodl_spark.features.protocol import Features
from genodl_spark.job.config import Settings, from_stored
from genodl_spark.job.run import Run
from genodl_spark.lake.tables.learning import MODELS
from genodl_spark.learning import encodings, model_files
from genodl_spark.learning.encodings import Encoding
from genodl_spark.learning.model_files import CARD, Card, ModelFiles
from genodl_spark.registry.labels import label_of, several_of

if TYPE_CHECKING:
    from pyspark.sql import Row


@dataclass(frozen=True)
class Chosen:
    """A registered model: its row, card, files, and the settings that it was trained with.

    `through`: the task that it answers for, where that is another than its own, and the features that it then reads.
    """

    row: Row
    card: Card
    files: ModelFiles
    settings: Settings
    through: tuple[str, Features] | None = None

    @property
    def task(self) -> str:
        """The task that its predictions are of."""
        return str(self.row.task) if self.through is None else self.through[0]

    @property
    def uri(self) -> str:
        return self.files.uri

    @cached_property
    def encoding(self) -> Encoding:
        return encodings.encoding(self.card.transform, self.files.code())

    @cached_property
    def features(self) -> Features:
        return tasks.features(self.as_trained) if self.through is None else self.through[1]

    @cached_property
    def as_trained(self) -> Settings:
        """Its settings with the user's own code that it was trained with."""
        return self.settings.with_code(self.files.code())


def chosen_model(run: Run, label: str | None, model_id: str | None) -> Chosen:
    """The model named, else the newest of the task and label. InputError when there is none."""
    s = run.settings
    models = run.lake.rows(MODELS, {"task": s.task})
    if model_id is not None:
        models = models.filter(pc.equal(models.column("model_id"), model_id))
    if model_id is None or label is not None:
        models = of_label(models, label_of(s, label))
    if not models.num_rows:
        wanted = (
            f"model {model_id} of task {s.task}"
            if model_id is not None
            else f"model of task {s.task} for label {label_of(s, label)}"
        )
        raise InputError(f"found no {wanted}; expected one, run train first, or see genodl list models", "--model")
    return model_of(run, MODELS.row(newest(models)))


def scoring_model(run: Run, label: str | None, model_id: str | None) -> Chosen:
    """The same; or the model of another task that is named, where the run's task may be answered by such a model.
    InputError where it is none of the kind."""
    s = run.settings
    found = (
        run.lake.rows(MODELS, {"model_id": model_id}) if model_id is not None else MODELS.arrow_schema().empty_table()
    )
    through = tasks.through(s) if found.num_rows and found.column("task")[0].as_py() != s.task else None
    if through is None:
        return chosen_model(run, label, model_id)
    if label is not None and not of_label(found, label).num_rows:
        text = f"found model {model_id} of label {found.column('label_column')[0].as_py()}"
        raise InputError(f"{text}, not {label}; expected a model of that label, see genodl list models", "--model")
    model = model_of(run, MODELS.row(newest(found)))
    if not model.encoding.letters:
        text = f"found model {model_id} of task {model.row.task}, which reads no sequences; expected one that does"
        raise InputError(f"{text}, or one of task {s.task}, see genodl list models", "--model")
    return replace(model, through=(s.task, through))


def of_label(models: pa.Table, label: str) -> pa.Table:
    """Rows of `models` for a label column; where there is none, those for several that it is one of."""
    column = models.column("label_column")
    exact = models.filter(pc.equal(column, label))
    among = [label in several_of(text) for text in column.to_pylist()]
    return exact if exact.num_rows else models.filter(pa.array(among, pa.bool_()))


def newest(models: pa.Table) -> dict[str, Any]:
    """The newest of the rows of `models` that are of one task and label."""
    found: dict[str, Any] = models.sort_by([("model_version", "descending")]).slice(0, 1).to_pylist()[0]
    return found


def model_of(run: Run, row: Row) -> Chosen:
    """The model of a row of `models`. What it was trained on stays; how it is run, measured and reported is today's.

    InputError where its card or its settings cannot be read, or are not those that were registered.
    """
    files = model_files.files_of(
        row, run.lake.model_uri(row.model_id), run.settings.code.trusted, run.settings.code_files
    )
    if not files.hashes:
        run.report.warn(
            f"model {row.model_id} was registered without hashes of its files: "
            "whether they have changed is not known, train it again"
        )
    today = {
        key: getattr(run.settings, key)
        for key in ("spark", "tracking", "feed", "predict", "evaluate", "report", "min_feature_overlap")
    }
    settings, passed = from_stored(row.settings, f"model {row.model_id}")
    if passed:
        run.report.warn(
            f"settings of model {row.model_id} that are not known here are passed over, they shape no answer of it: "
            f"{', '.join(passed)}"
        )
    card = files.card()
    if card.model_id != row.model_id:
        raise InputError(
            f"found the card of model {card.model_id}; expected that of {row.model_id}, restore the file",
            files.place(CARD),
        )
    return Chosen(row, card, files, settings.model_copy(update=today))


HISTORY = "history.json"
