"""A registered model out of a prepared dataset: one Horovod launch, then weights, card, scores and tracking."""

from __future__ import annotations

import json
import logging
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.compute as pc

from genodl_spark.core import storage
from genodl_spark.core.errors import Conflict
from genodl_spark.job.config import stored
from genodl_spark.job.run import Run, code_of, fingerprint, now
from genodl_spark.lake.tables.genomes import ANNOTATIONS
from genodl_spark.lake.tables.learning import HELD_OUT, MODELS, TREATMENTS
from genodl_spark.lake.transactions import retried
from genodl_spark.learning import calibration, conformal, encodings, lacking, losses, model_files
from genodl_spark.learning.heads import Head
from genodl_spark.learning.model_files import WEIGHTS, beside, mixtures
from genodl_spark.learning.predictor import batch_rows
from genodl_spark.learning.training import launch as training
from genodl_spark.learning.training import plan
from genodl_spark.registry import blending, clocks, pretrained, strands, tracking
from genodl_spark.registry.datasets import dataset_of, heads_of_row, job_of, part_of_split, with_blocks
from genodl_spark.registry.models import HISTORY, newest
from genodl_spark.registry.scores import MODEL, WITHOUT, with_targets

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import Row

log = logging.getLogger("genodl")


def train(run: Run, cohort: str | None, label: str | None, force: bool) -> None:
    """Trains and registers a model, unless the same dataset, settings, seed, ranks and code have already made one."""
    run = clocks.decided(run)
    dataset, _ = dataset_of(run, cohort, label)
    s = run.settings
    shaped_by = {
        "model": s.model,
        "train": s.train.model_dump(),
        "quality": s.quality.model_dump(),
        "batch": s.predict.batch,
        "coverage": s.predict.coverage,
        "lengths": _annotations(run),
        # it is another order of rows
        **({"shard": True} if s.feed.shard else {}),
        **pretrained.shaping(run),
        **clocks.shaping(run),
    }
    code = code_of(__name__, s)
    digest = fingerprint(dataset.dataset, shaped_by, s.seed, code)
    with run.holding(f"training {digest}"):  # two runs of it would write each other's checkpoints
        _train(run, dataset, digest, code, force)


def _train(run: Run, dataset: Row, digest: str, code: str, force: bool) -> None:
    s = run.settings
    mine = {"task": dataset.task, "label_column": dataset.label_column, "fingerprint": digest}
    made = run.lake.rows(MODELS, mine)
    if made.num_rows and not force:
        run.report.status = "unchanged"
        run.report.metrics.update(_figures(MODELS.row(newest(made))))
        run.wrote(MODELS, 0)
        run.wrote(HELD_OUT, 0)
        return
    run = strands.decided(run, dataset)
    s = run.settings
    model_id = fingerprint(digest, made.num_rows)[:12]
    # An interrupted run left its checkpoints here under the same name: this one goes on from them.
    staging = storage.join(run.lake.uri, "_staging", model_id)
    # Of a card that could not be written nobody learns after hours only.
    card = model_files.new_card(
        model_id=model_id,
        task=dataset.task,
        label_column=dataset.label_column,
        predicted=heads_of_row(dataset),
        features=list(dataset.features),
        dtype=dataset.dtype,
        transform=dataset.transform,
        loss=losses.name_of(s.train.loss, heads_of_row(dataset)),
        model=with_blocks(s.model, dataset.features),
        members=s.train.ensemble,
        steps=s.quality.steps,
        options=s.quality.options if s.quality.steps else {},
        batches=s.quality.batch,
        batch=batch_rows(
            s.predict.batch, encodings.encoding(dataset.transform, s.code_files).shape(dataset.n_features)
        ),
    )
    log.info("training %s on %d rows x %d features of %s", s.task, dataset.rows, dataset.n_features, dataset.cohort)
    job = job_of(run, dataset, staging)
    run.pin(staging)
    result = training.launch(run.spark, job, s.train.procs)
    written, temperatures, cuts, shares = _keep_held_out(
        run, dataset, model_id, [storage.join(staging, name) for name in result["scored"]], job
    )
    if not written:
        classes = any(head.classes for head in card.predicted)
        uncalibrated = " and the probabilities are not calibrated (temperature 1)" if classes else ""
        lack = f"`evaluate` has nothing to measure{uncalibrated}"
        run.report.warn(
            f"no row was held out from training, so that nothing tells how good the model is: {lack}; "
            "hold some out with split"
        )
    run.lake.create(MODELS)  # says what is wrong with the table before files stand beside it
    if result["treatments"]:
        _keep_treatments(run, dataset, model_id, [storage.join(staging, name) for name in result["treatments"]])
    uri = run.lake.model_uri(model_id)
    storage.write_json(storage.join(uri, HISTORY), result["history"])
    weights = storage.read_bytes(storage.join(staging, WEIGHTS))
    card = card.tempered(temperatures).covering(s.predict.coverage, cuts).blended(shares)
    card = card.reaching(_reaches(run, model_id, card, list(job.blocks)))
    files = model_files.publish(uri, card, weights, s.own_code())
    row = {
        "model_id": model_id,
        "task": dataset.task,
        "label_column": dataset.label_column,
        "cohort": dataset.cohort,
        "dataset": dataset.dataset,
        "split_hash": dataset.split_hash,
        "classes": list(dataset.classes),
        "heads": dataset.heads,
        "n_features": dataset.n_features,
        "settings": stored(s),
        "seed": s.seed,
        "ranks": s.train.procs,
        "code": code,
        "fingerprint": digest,
        "source_versions": {**dataset.source_versions, **_annotations(run)},
        "metrics": _metrics(result, card.predicted, temperatures, shares),
        "trained_at": now(),
        **model_files.columns(files),
    }
    # The row comes last: a model is there when its row is, and files without a row are overwritten by the next run.
    retried(lambda: _register(run, row), Conflict)
    storage.remove_directory(staging)
    run.wrote(MODELS, 1)
    run.wrote(HELD_OUT, written)
    registered = MODELS.row(run.lake.rows(MODELS, {"model_id": model_id}).to_pylist()[0])
    run.report.metrics.update(_figures(registered))
    tracking.log_model(run, registered, result, uri)


def _register(run: Run, row: dict[str, Any]) -> None:
    """Adds a row to `models`, as the newest version of its task and label.
    Conflict where another run adds one at this moment."""
    seen = run.lake.version(MODELS)
    others = run.lake.rows(MODELS, {"task": row["task"], "label_column": row["label_column"]}, seen).to_pylist()
    newest = max((other["model_version"] for other in others), default=0)
    run.lake.merge(MODELS, run.frame(MODELS, [{**row, "model_version": newest + 1}]), since=seen)


def _keep_held_out(
    run: Run, dataset: Row, model_id: str, folders: list[str], job: plan.Job
) -> tuple[int, list[float], list[float | None], list[dict[str, float]]]:
    """Moves what the ranks scored into `held_out`; returns the number of rows, the temperature that suits those of
    each head, its cut (conformal.py), and the shares in it of what stands beside the networks. Where anything does, all
    parts stand there, too; and where its features are of blocks the model without each."""
    from pyspark.sql import functions as F

    heads = heads_of_row(dataset)
    schema, blends = "repeat int, row_id bigint, scores array<double>", beside(job.options.blend)
    blocks = list(job.blocks) if not job.shard else []
    scored = run.spark.read.schema(
        f"{schema}, blends array<array<double>>" if blends else f"{schema}, lacking array<array<double>>"
    ).parquet(*folders)
    if blends:
        scored = scored.select("repeat", "row_id", F.posexplode("blends").alias("mixture", "scores"))
    else:
        predictors = F.array(*(F.lit(name) for name in (MODEL, *(f"{WITHOUT}{block}" for block in blocks))))
        every = F.concat(F.array("scores"), F.coalesce("lacking", F.array().cast("array<array<double>>")))
        scored = scored.select("repeat", "row_id", F.posexplode(every).alias("number", "scores"))
        scored = scored.select("repeat", "row_id", predictors[F.col("number")].alias("predictor"), "scores")
    role = F.lit("fold") if dataset.folds else F.when(F.col("code") == 1, "validation").otherwise("test")
    rows = with_targets(run, dataset, scored).withColumn("code", part_of_split(F.col("repeat")))
    if run.settings.clock.file:  # which answers for who has no label, too
        rows = rows.where(~F.isnan("target"))
    rows = rows.withColumn("fold", (F.col("code") if dataset.folds else F.lit(None)).cast("int"))
    rows = rows.withColumns({"role": role, "model_id": F.lit(model_id), "cohort": F.lit(dataset.cohort)})
    shares: list[dict[str, float]] = [{}] * len(heads)
    if blends:
        of_rows, of_heads = blending.shares(rows.where(F.col("role") != "test"), heads, len(blends))
        rows = blending.parts(rows, of_rows, of_heads, heads, blends)
        shares = [dict(zip(blends, mixtures(len(blends))[place], strict=True)) for place in of_heads]
    run.lake.replace(HELD_OUT, rows.select(*HELD_OUT.column_names), {"model_id": model_id})
    stored = run.lake.read(HELD_OUT).where(F.col("model_id") == model_id)
    measured = stored.where((F.col("role") != "test") & (F.col("predictor") == MODEL))
    measured = measured.select("head", "repeat", "entity_id", "target", "scores")
    suits: list[tuple[float, float | None]] = [(1.0, None)] * len(heads)
    if any(_calibrates(head) for head in heads):
        suits = calibrations(measured.toArrow(), heads, run.settings.predict.coverage)
    return stored.count(), [t for t, _ in suits], [cut for _, cut in suits], shares


def _calibrates(head: Head) -> bool:
    return bool(head.classes) or head.kind == "value"


def calibrations(rows: pa.Table, heads: list[Head], coverage: float) -> list[tuple[float, float | None]]:
    """The temperature that suits the scores of each head, 1 for what is no class, and its cut at that temperature, None
    where too few rows tell; out of rows of `held_out`: head, repeat, entity_id, target, scores."""
    # sums of rows in another order end in other bits
    found = rows.sort_by([("repeat", "ascending"), ("entity_id", "ascending")])
    suits: list[tuple[float, float | None]] = []
    for head in heads:
        mine = found.filter(pc.equal(found.column("head"), head.label)) if len(heads) > 1 else found
        if not _calibrates(head) or not mine.num_rows:
            suits.append((1.0, None))
            continue
        scores = mine.column("scores").combine_chunks().flatten().to_numpy().reshape(-1, head.scores)
        target, entities = mine.column("target").to_numpy(), len(pc.unique(mine.column("entity_id")))
        temperature = calibration.temperature(scores, target) if head.classes else 1.0
        said = calibration.sharpen(scores, temperature) if head.classes else scores[:, 0]
        cut = conformal.cut(said, target, entities, coverage) if coverage else math.nan
        suits.append((temperature, None if math.isnan(cut) else cut))
    return suits


def _reaches(run: Run, model_id: str, card: model_files.Card, blocks: list[str]) -> dict[str, list[float]]:
    """How far answers of each head move without each block, by rows that were held out, but for tests; nothing of
    blocks of which too few rows tell."""
    from pyspark.sql import functions as F

    if not blocks:
        return {}
    names, heads = [f"{WITHOUT}{block}" for block in blocks], card.predicted
    rows = run.lake.read(HELD_OUT).where((F.col("model_id") == model_id) & (F.col("role") != "test"))
    rows = rows.where(F.col("predictor").isin(MODEL, *names)).select(
        "head", "predictor", "repeat", "entity_id", "scores"
    )
    found = rows.toArrow().sort_by([("repeat", "ascending"), ("entity_id", "ascending")])
    reaches: dict[str, list[float]] = {block: [] for block in blocks}
    for head, temperature in zip(heads, card.temperatures, strict=True):
        mine = found.filter(pc.equal(found.column("head"), head.label)) if len(heads) > 1 else found
        rows_of = len(pc.unique(mine.column("entity_id")))

        def said(predictor: str, mine: pa.Table = mine, head: Head = head, t: float = temperature) -> np.ndarray:
            one = mine.filter(pc.equal(mine.column("predictor"), predictor)).column("scores")
            scores = one.combine_chunks().flatten().to_numpy().reshape(-1, head.scores)
            return calibration.sharpen(scores, t) if head.classes else scores

        whole = said(MODEL)
        for block, name in zip(blocks, names, strict=True):
            reaches[block].append(lacking.reach(whole, said(name), rows_of))
    return {block: each for block, each in reaches.items() if not np.isnan(each).any()}


def _annotations(run: Run) -> dict[str, int]:
    """Version of the annotations that a step takes lengths of genes from; empty where none does."""
    version = (
        run.sources.version(ANNOTATIONS)
        if "tpm" in {step.split("@")[0] for step in run.settings.quality.steps}
        else None
    )
    return {} if version is None else {ANNOTATIONS.name: version}


def _keep_treatments(run: Run, dataset: Row, model_id: str, files: list[str]) -> None:
    """Moves what the steps of every training set were fitted to into `treatments`."""
    from pyspark.sql import functions as F

    quality = run.settings.quality
    kept = run.spark.read.schema("repeat int, fold int, rows bigint, rows_sha256 string, tensors binary").parquet(
        *files
    )
    beside = {
        "model_id": model_id,
        "steps": json.dumps({"steps": quality.steps, "options": quality.options}, sort_keys=True),
        "dataset": dataset.dataset,
    }
    rows = kept.withColumns({name: F.lit(value) for name, value in beside.items()})
    run.lake.replace(TREATMENTS, rows.select(*TREATMENTS.column_names), {"model_id": model_id})
    run.wrote(TREATMENTS, kept.count())


def _metrics(
    result: dict[str, Any], heads: list[Head], temperatures: list[float], shares: list[dict[str, float]]
) -> dict[str, float]:
    """`shares`: in each head, of what stands beside the network."""
    of_heads = {f"temperature {head.label}": t for head, t in zip(heads, temperatures, strict=True) if head.classes}
    named = [(head.label, part, v) for head, one in zip(heads, shares, strict=True) for part, v in one.items()]
    of_part = {f"{part}_share {label}" if len(heads) > 1 else f"{part}_share": v for label, part, v in named}
    history = result["history"]
    last = history[-1] if history else {}  # none of a model that was given and not trained
    figures = {
        **({"epochs": float(last["epoch"]), "train_loss": float(last["train"][-1])} if last else {}),
        **(of_heads if len(heads) > 1 else {"temperature": temperatures[0]}),
        **of_part,
        "train_seconds": float(result["seconds"]),
        "feed_seconds": float(result["feed_seconds"]),
        "rows_per_second": float(result["rows_per_second"]),
        "feed_stall_percent": float(result["feed_stall_percent"]),
        "restarts": float(result["restarts"]),
        "resets": float(result["resets"]),
        # Over all ranks: what an epoch leaves out or sees twice, after whatever was lost, shows here.
        "rows_per_epoch_min": float(min((entry["rows"] for entry in history), default=0)),
        "rows_per_epoch_max": float(max((entry["rows"] for entry in history), default=0)),
    }
    if not math.isnan(result["busy_percent"]):
        figures["gpu_busy_percent" if result["device"].startswith("cuda") else "cpu_busy_percent"] = float(
            result["busy_percent"]
        )
    if "validation" in last:
        # Of each network at the epoch that was kept; the registered ensemble's members are the last.
        members = [entry["validation"] for entry in history if "validation" in entry]
        figures["validation_loss"] = float(np.mean(members[-1]))
        figures["best_validation_loss"] = float(np.mean(np.min(members, axis=0)))
    return figures


def _figures(model: Row) -> dict[str, Any]:
    return {
        "model_id": model.model_id,
        "model_version": model.model_version,
        "dataset": model.dataset,
        **json.loads(json.dumps(dict(model.metrics))),
    }
