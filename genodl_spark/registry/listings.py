"""What `genodl list` shows, apart from what runs it: its help loads nothing else."""

from __future__ import annotations

LISTINGS = {
    "models": (
        "SELECT model_id, task, label_column, cohort, model_version, n_features, seed, ranks, "
        "trained_at FROM models ORDER BY trained_at"
    ),
    "cohorts": (
        "SELECT cohort, count(sample_id) AS samples, count(entity_id) AS labels FROM (SELECT cohort, "
        "sample_id, NULL AS entity_id FROM samples UNION ALL SELECT cohort, NULL, entity_id FROM labels) "
        "GROUP BY cohort ORDER BY cohort"
    ),
    "runs": "SELECT started_at, job, status, seconds, arguments, run_id FROM runs ORDER BY started_at, run_id",
    "tables": "",
}
