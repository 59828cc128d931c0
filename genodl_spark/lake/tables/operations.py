"""Tables of what was done with a lake: runs, findings of the monitor, people who were forgotten."""

from __future__ import annotations

from genodl_spark.lake.schema import COHORT, Column, Table, required

RUNS = Table(
    "runs",
    "One row per job run",
    (
        required("run_id", "string", "Run identifier"),
        required("job", "string", "Verb"),
        required("status", "string", "done, unchanged or failed"),
        required("started_at", "timestamp", "When, UTC"),
        required("seconds", "double", "Wall time"),
        required("arguments", "string", "Command line, JSON"),
        required("settings", "string", "Effective settings, JSON"),
        required("report", "string", "The run report, JSON"),
        required("code", "string", "Hash of the code"),
    ),
    key=("run_id",),
    checks={"status": "status IN ('done', 'unchanged', 'failed')"},
    entity="run_id",
    kind="run",
)
FINDINGS = Table(
    "findings",
    "One row per check of a monitoring run; of features and files those over their limit, the worst of them",
    (
        required("found_at", "timestamp", "When, UTC: one for all checks of a run"),
        required("check", "string", "What was checked: see genodl_spark/pipelines/monitor.py"),
        required("task", "string", "Task, empty for a check of what was ingested"),
        COHORT,
        required("label_column", "string", "Label column, empty likewise"),
        required("model_id", "string", "Model, empty likewise"),
        required("subject", "string", "Feature identifier, or source/block/file; empty for a check of the whole"),
        Column("value", "double", "What was measured; NULL where the check is no measurement"),
        Column("threshold", "double", "The limit that it was held against"),
        required("breached", "boolean", "Whether it alarms; a feature does where so many drifted that the whole does"),
        required("message", "string", "What was found"),
    ),
    key=("found_at", "check", "task", "cohort", "label_column", "model_id", "subject"),
    entity="model_id",
    kind="model",
)
FORGOTTEN = Table(
    "forgotten",
    "People who withdrew consent, and other entities that were taken out, by a hash: "
    "data that brings them again is refused",
    (
        COHORT,
        required(
            "person",
            "string",
            "SHA-256 of cohort, kind (person, sequence, ...) and identifier with zero bytes between, hexadecimal; "
            "of older versions without the kind",
        ),
        required("forgotten_at", "timestamp", "When, UTC"),
    ),
    key=("cohort", "person"),
)
