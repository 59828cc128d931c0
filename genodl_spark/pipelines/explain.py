"""What a registered model goes by in the entities of a cohort, kept up to date in `attributions`, and of sequences the
motifs in that, in `motifs`; and where biomarkers are sought, those of its training sets."""

from __future__ import annotations

import logging
import uuid
from dataclasses import replace
from functools import partial
from typing import Any

import pyarrow as pa

from genodl_spark.core import storage
from genodl_spark.core.errors import InputError
from genodl_spark.job.run import Run
from genodl_spark.lake.tables.learning import ATTRIBUTIONS
from genodl_spark.learning.explain import Limits
from genodl_spark.learning.explain.explainer import Asked
from genodl_spark.learning.explain.references import row_numbers
from genodl_spark.registry import attributions, biomarkers, motifs
from genodl_spark.registry.incremental import Incremental, attempted, digest
from genodl_spark.registry.models import Chosen, chosen_model

log = logging.getLogger("genodl")

_OF_MOTIFS = ("label_column", "target", "motif", "consensus", "seqlets", "entities")


def explain(
    run: Run, cohort: str | None, label: str | None, model_id: str | None, output: str | None, force: bool = False
) -> None:
    """Explains the entities of the cohort that are not explained as they are now; all of them with `force`."""
    model = chosen_model(run, label, model_id)
    asked = asked_of(run, model)
    folder = None if output is None else _folder(run, model, output)
    name = run.cohort(cohort, model.features.cohorts(run.sources), f"data for {run.settings.task}")
    found = biomarkers.check(run, model, name)
    also = run.settings.biomarkers.attributions if found else []
    each = [asked, *(_by(model, asked, method) for method in also if method != asked.method)]
    done, written = [], 0
    for one in each:
        run.report.status = "done"
        attempted(ATTRIBUTIONS, model, partial(_bring_up_to_date, run, model, one, name, force))
        done.append(run.report.status)
        written += run.report.rows[ATTRIBUTIONS.name]["written"]
    run.wrote(ATTRIBUTIONS, written)
    if found:
        done.append("done" if biomarkers.bring_up_to_date(run, model, force) else "unchanged")
        run.report.metrics["biomarkers"] = biomarkers.figures(run, model)
    run.report.status = "unchanged" if set(done) == {"unchanged"} else "done"
    if model.encoding.letters and run.settings.explain.motif_rows:
        if motifs.bring_up_to_date(run, model, name, asked, force):
            run.report.status = "done"
        run.report.metrics["motifs"] = [
            {key: row[key] for key in _OF_MOTIFS} for row in motifs.stored(run, model, name, asked)
        ]
        if folder is not None:
            motifs.write(run, model, name, asked, folder)
    run.report.metrics.update(
        {
            "model_id": model.row.model_id,
            "model_version": model.row.model_version,
            "method": asked.method,
            "reference": asked.reference,
            **attributions.figures(run, model, name, asked),
        }
    )


def _folder(run: Run, model: Chosen, output: str) -> str:
    """Where motifs are to be written. InputError where there will be none, or a file is in the way."""
    if not model.encoding.letters:
        raise InputError(
            "found a model of measured values, which have no motifs; expected one of sequences", "--output"
        )
    if not run.settings.explain.motif_rows:
        raise InputError("found --output, and no motifs are sought; expected 1 or more", "explain.motif_rows")
    folder = storage.absolute(output)
    if storage.kind(folder) == "file":
        raise InputError("found a file; expected a folder, or nothing yet", output)
    return folder


def asked_of(run: Run, model: Chosen) -> Asked:
    """What the settings ask of the model. InputError where it cannot be explained so."""
    s = run.settings.explain
    limits = Limits(s.tolerance, s.floor, s.steps)
    asked = Asked(s.method, s.target, tuple(s.heads), s.reference, s.references, limits, run.settings.seed)
    return asked.of(model.encoding, len(model.card.features), model.card.predicted)


def _by(model: Chosen, asked: Asked, method: str) -> Asked:
    """The same by another method. InputError where there is none of the name."""
    return replace(asked, method=method).of(model.encoding, len(model.card.features), model.card.predicted)


def _bring_up_to_date(run: Run, model: Chosen, asked: Asked, cohort: str, force: bool) -> None:
    share = run.settings.explain.share
    shaped_by: dict[str, Any] = {name: value for name, value in vars(asked).items() if name != "limits"}
    of_features = [] if model.encoding.letters else [attributions.LEARNT]
    number = digest(shaped_by, vars(asked.limits), share, attributions.TOP, *of_features)
    marks, where = attributions.marks(model, cohort, asked), attributions.where(model, cohort, asked)
    rows = Incremental(run, model, cohort, marks, where, number)
    if rows.current and not force:
        rows.unchanged()
        return
    entities = None
    # Means over all entities are made of all entities.
    if not force and model.encoding.letters and (changed := rows.changed()) is not None:
        entities = changed[0]
        if not len(entities):
            rows.unchanged()
            return
    wanted = entities
    if share < 1:
        of = wanted if wanted is not None else pa.array(model.features.entities(run.sources, cohort), pa.string())
        wanted = of.filter(pa.array(row_numbers(of.to_pylist()) < share * 2.0**64))
        log.info("%d of %d entities are explained, by explain.share", len(wanted), len(of))
    model.files.weights()  # a worker that holds them in its memory would not see that the file has changed
    name = uuid.uuid4().hex[:12]
    rows.commit(
        name,
        lambda: attributions.explain(run, model, cohort, asked, rows.versions, wanted, name),
        entities,
        reached=True,
    )
