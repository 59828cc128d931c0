"""Examples and splits of a task, out of the lake's tables and into tables of their own."""

from __future__ import annotations

import pyarrow.compute as pc

from genodl_spark.job.run import Run
from genodl_spark.lake.tables.learning import DATASETS, EXAMPLES, SPLITS
from genodl_spark.registry.datasets import dataset_of


def prepare(run: Run, cohort: str | None, label: str | None) -> None:
    dataset, fresh = dataset_of(run, cohort, label)
    run.report.status = "done" if fresh else "unchanged"
    run.report.metrics.update(
        {
            "dataset": dataset.dataset,
            "rows": dataset.rows,
            "features": dataset.n_features,
            "split_hash": dataset.split_hash,
        }
    )
    written = dataset.rows if fresh else 0
    run.wrote(EXAMPLES, written)
    mine = {name: dataset[name] for name in ("task", "cohort", "label_column", "split_hash")}
    found = run.lake.rows(SPLITS, mine, columns=["entity_id", "reason"])
    refused = len(pc.unique(found.column("entity_id").filter(pc.is_valid(found.column("reason")))))
    run.wrote(SPLITS, (written + refused) * dataset.repeats if fresh else 0, quarantined=refused)
    run.wrote(DATASETS, int(fresh))
