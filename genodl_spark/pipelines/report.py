"""Pages for people: what the lake holds, how every evaluated model does beside its baselines, and the data of every
cohort."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from genodl_spark.core import redaction, storage
from genodl_spark.core.errors import InputError
from genodl_spark.job.run import Run
from genodl_spark.lake.delta import condition
from genodl_spark.lake.tables.ingested import SOURCES
from genodl_spark.lake.tables.learning import ATTRIBUTIONS, DATASETS, EVALUATIONS, MODELS, MOTIFS, TRIALS
from genodl_spark.lake.tables.operations import RUNS
from genodl_spark.learning import tuning
from genodl_spark.learning.metrics import LOWER_IS_BETTER, Interval
from genodl_spark.learning.settings import Dimension
from genodl_spark.learning.tuning import as_trial
from genodl_spark.registry import biomarkers_shown
from genodl_spark.registry.models import HISTORY, Chosen, model_of
from genodl_spark.registry.motifs import in_order
from genodl_spark.registry.scores import BESIDE, HEAD, MODEL, headline, held_out
from genodl_spark.registry.treated import before_and_after
from genodl_spark.report import content, data_page
from genodl_spark.report import page as pages
from genodl_spark.sources.described import described

if TYPE_CHECKING:
    from pyspark.sql import Row

PAGE = "index.html"
RUNS_SHOWN, MOTIFS_SHOWN, FEATURES_SHOWN, CALLS_SHOWN = 50, 12, 10, 10
_SIZES = ("mean_absolute", "mean_contribution")


def report(run: Run, output: str) -> None:
    """Writes OUTPUT/index.html, whole or not at all, after a page data-COHORT.html for each cohort."""
    from pyspark.sql import functions as F

    run.require_lake()
    models = {row.model_id: row for row in run.lake.read(MODELS).collect()}
    evaluated: dict[tuple[str, str], list[Row]] = {}
    for row in run.lake.read(EVALUATIONS).collect():
        evaluated.setdefault((row.model_id, row.cohort), []).append(row)
    sections = []
    shown = [(models[model_id], cohort, rows) for (model_id, cohort), rows in evaluated.items() if model_id in models]
    for row, cohort, rows in sorted(shown, key=lambda one: (one[0].task, one[1], one[0].model_version)):
        try:
            sections.append(_section(run, model_of(run, row), cohort, rows))
        except InputError as error:  # one model that cannot be read hides no other
            run.report.warn(f"left out: {error}")
    data = _data_pages(run, output, models)
    tables = [
        content.TableRow(table.name, run.lake.count(table), version, table.doc)
        for table in run.lake.existing()
        if (version := run.lake.version(table)) is not None
    ]
    asked = F.col("job").isin("query", "serve")  # questions are no work on the lake
    runs = run.lake.read(RUNS).where(~asked).orderBy(F.col("started_at").desc(), "run_id").limit(RUNS_SHOWN).collect()
    warnings = list(dict.fromkeys(text for row in runs for text in json.loads(row.report)["warnings"]))
    page = content.Page(
        title="genodl-spark",
        lake=redaction.text(run.lake.uri),
        tables=tables,
        runs=[content.RunRow(row.job, row.status, row.seconds, f"{row.started_at:%Y-%m-%d %H:%M:%S}") for row in runs],
        warnings=warnings,
        models=sections,
        studies=studies(run.lake.read(TRIALS).collect()),
        data=data,
        calls=_calls(run),
    )
    uri = storage.join(storage.absolute(output), PAGE)
    storage.write_bytes(uri, pages.render(page).encode())
    counts = {"models": len(sections), "studies": len(page.studies), "cohorts": len(data), "calls": len(page.calls)}
    run.report.metrics.update({"page": uri, **counts})


def _calls(run: Run) -> list[content.CallsCompared]:
    """The newest comparisons of calls with a truth, of each pair of files the last."""
    from pyspark.sql import functions as F

    rows = run.lake.read(RUNS).where((F.col("job") == "evaluate") & F.col("report").contains('"QUERY.TP"'))
    newest: dict[tuple[str, ...], content.CallsCompared] = {}
    for row in rows.orderBy(F.col("started_at").desc(), "run_id").limit(RUNS_SHOWN).collect():
        found = json.loads(row.report)["metrics"]
        if "curve" not in found or len(newest) == CALLS_SHOWN:
            continue
        query, truth, confident = (str(found["files"][name] or "") for name in ("query", "truth", "confident"))
        intervals = {
            name: Interval(*(math.nan if one[end] is None else one[end] for end in ("value", "low", "high")))
            for name, one in found["model"].items()
        }
        curves = found["curve"]["ALL"]
        at = f"{row.started_at:%Y-%m-%d %H:%M}"
        counts, score = found["counts"], found["curve"]["score"]
        shown = content.CallsCompared(query, truth, confident, at, counts, intervals, score, curves)
        newest.setdefault((query, truth, confident), shown)
    return list(newest.values())


def _data_pages(run: Run, output: str, models: dict[str, Row]) -> list[content.DataLink]:
    """Writes a page about the data of each cohort, with what its newest models do to measured values."""
    made = []
    for cohort in sorted(set(run.sources.rows(SOURCES, {}).column("cohort").to_pylist())):
        mine = sorted((m for m in models.values() if m.cohort == cohort), key=lambda m: m.model_version)
        newest = {(m.task, m.label_column): m for m in mine}
        also, batches = [], []
        for _, row in sorted(newest.items()):
            try:
                model = model_of(run, row)
                treated = before_and_after(run.sources, model)
            except InputError as error:  # one model that cannot be read hides no other
                run.report.warn(f"{cohort}, model {row.model_id}: left out: {error}")
                continue
            batches.append(model.settings.quality.batch)
            also += [] if treated is None else [treated]
        found = described(run.sources, cohort, also)
        for text in found.warnings:
            run.report.warn(text)
        first = [*filter(None, batches), "batch", *sorted({m.label_column for m in newest.values()}), "label"]
        name = data_page.name_of(cohort)
        html = data_page.render(cohort, redaction.text(run.lake.uri), found.facts, found.columns, first, PAGE)
        storage.write_bytes(storage.join(storage.absolute(output), name), html.encode())
        made.append(content.DataLink(name, cohort, ", ".join(found.sources), found.files, found.rows))
    return made


def _section(run: Run, model: Chosen, cohort: str, rows: list[Row]) -> content.ModelSection:
    scores: dict[str, dict[str, Interval]] = {MODEL: {}}
    by: dict[str, dict[str, dict[str, Interval]]] = {}
    heads: dict[str, dict[str, Interval]] = {}
    difference, n_test = None, 0
    for row in rows:
        interval = Interval(*(math.nan if value is None else value for value in (row.value, row.low, row.high)))
        if row.predictor.startswith(f"{MODEL} - "):
            difference = (row.predictor.removeprefix(f"{MODEL} - "), interval)
        elif row.by.startswith(HEAD):
            if row.predictor == MODEL:
                heads.setdefault(row.by.removeprefix(HEAD), {})[row.metric] = interval
        elif row.by:
            what, _, value = row.by.removeprefix(BESIDE).partition("=")
            by.setdefault(what, {}).setdefault(value, {})[row.metric] = interval
        else:
            n_test = row.n_test if row.predictor == MODEL else n_test
            scores.setdefault(row.predictor, {})[row.metric] = interval
    held = held_out(run, model, cohort)[MODEL]
    external, of = cohort != model.row.cohort, {"dataset": model.row.dataset}
    split = (
        f"external: trained on {model.row.cohort}"
        if external
        else model.settings.split.model_dump_json(exclude_none=True)
    )
    train_loss, validation_loss = _curves(storage.read_json(storage.join(model.uri, HISTORY)))
    settings = {
        "features": model.row.n_features,
        "seed": model.row.seed,
        "ranks": model.row.ranks,
        **model.settings.model,
    }
    return content.ModelSection(
        task=model.row.task,
        cohort=cohort,
        label=model.row.label_column,
        model_id=model.row.model_id,
        version=model.row.model_version,
        settings={key: str(value) for key, value in settings.items()},
        split=split,
        n_test=n_test,
        metric=headline(model),
        scores=scores,
        difference=difference,
        by=by,
        train_loss=train_loss,
        validation_loss=validation_loss,
        held=held[0] if [one.kind in ("classes", "value", "time") for one in held] == [True] else None,
        heads=heads,
        **_explained(run, model, cohort),
        markers=[] if external else biomarkers_shown.shown(run, model),
        warnings=[text for row in run.lake.rows(DATASETS, of).to_pylist() for text in row["warnings"]],
    )


def _explained(run: Run, model: Chosen, cohort: str) -> dict[str, Any]:
    """Motifs and ranked features of a model, of the first method by name that has some."""
    from pyspark.sql import functions as F

    where = {"task": model.row.task, "cohort": cohort, "model_id": model.row.model_id}
    motifs = run.lake.rows(MOTIFS, where).to_pylist()
    first = min((row["method"] for row in motifs), default="")
    found = in_order([row for row in motifs if row["method"] == first])
    ranked: list[Row] = []
    if run.lake.exists(ATTRIBUTIONS):
        rows = run.lake.read(ATTRIBUTIONS, cohort=cohort).where(condition(where)).where(F.col("rank") <= FEATURES_SHOWN)
        ranked = rows.select("method", "label_column", "target", "rank", "feature", *_SIZES).collect()
    of = min((row.method for row in ranked), default="")
    ranked = sorted((row for row in ranked if row.method == of), key=lambda r: (r.label_column, r.target, r.rank))
    return {
        "motifs": [
            content.MotifShown(
                row["motif"],
                row["consensus"],
                row["seqlets"],
                row["entities"],
                row["among"],
                np.reshape(row["probabilities"], (-1, 4)),
            )
            for row in found[:MOTIFS_SHOWN]
        ],
        "ranked": [(r.target or r.label_column, r.feature, r.mean_absolute, r.mean_contribution) for r in ranked],
    }


def studies(rows: list[Row]) -> list[content.StudySection]:
    """The newest search of each task, cohort and label, out of rows of `trials`,
    with those of its baselines on the same dataset."""
    by_name: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: row.number):
        by_name.setdefault(row.study, []).append(row)
    newest: dict[tuple[str, ...], list[Row]] = {}
    for found in sorted(by_name.values(), key=lambda found: max(row.started_at for row in found)):
        first = found[0]
        newest[first.task, first.cohort, first.label_column, first.predictor] = found
    sections = []
    for (task, cohort, label, predictor), found in sorted(newest.items()):
        if predictor != MODEL:
            continue
        trials = [as_trial(row) for row in found]
        shares = [float(share) for share in found[0].rung_shares]
        space = tuning.Space(
            {key: Dimension(**values) for key, values in json.loads(found[0].space).items()}, trials[0].values
        )
        importance, measured_at = tuning.importance(space, trials, len(shares))
        best = tuning.best_of(trials, maximise=False) or trials[0]
        baselines = {}
        for (*of, name), others in sorted(newest.items()):
            searched = [as_trial(row) for row in others]
            top = tuning.best_of(searched, others[0].objective not in LOWER_IS_BETTER)
            if (
                of == [task, cohort, label]
                and name != MODEL
                and others[0].dataset == found[0].dataset
                and top is not None
            ):
                values = ", ".join(f"{key} {_shown(value)}" for key, value in top.values.items())
                first_value = math.nan if searched[0].value is None else searched[0].value
                baselines[name] = (others[0].objective, first_value, top.value or 0.0, values)
        sections.append(
            content.StudySection(
                task=task,
                cohort=cohort,
                label=label,
                study=found[0].study,
                objective=found[0].objective,
                rungs=[t.rungs for t in trials],
                states=[t.state for t in trials],
                shares=shares,
                settings={key: (_shown(space.start[key]), _shown(best.values[key])) for key in space.dimensions},
                importance=importance,
                measured_at=measured_at,
                baselines=baselines,
            )
        )
    return sections


def _shown(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _curves(history: list[dict[str, Any]]) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Training loss (epochs, training sets) and validation loss (epochs, members);
    groups of sets were trained one after another."""
    epochs = max((entry["epoch"] for entry in history), default=0)

    def curve(key: str) -> np.ndarray | None:
        columns: dict[str, list[tuple[int, list[float]]]] = {}
        for entry in history:
            if key in entry:
                columns.setdefault(json.dumps(entry["sets"]), []).append((entry["epoch"], entry[key]))
        parts = []
        for points in columns.values():
            part = np.full((epochs, len(points[0][1])), np.nan)
            for epoch, values in points:
                part[epoch - 1] = values
            parts.append(part)
        return np.concatenate(parts, 1) if parts else None

    return curve("train"), curve("validation")
