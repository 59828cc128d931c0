"""Whether a network takes both strands of a data set's sequences as one, where its options leave that to the data."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np

from genodl_spark.core import packing
from genodl_spark.job.run import Run
from genodl_spark.lake.tables.learning import EXAMPLES
from genodl_spark.learning import encodings, feed, strands
from genodl_spark.learning.heads import labelled, targets
from genodl_spark.learning.splits import TRAIN, UNUSED
from genodl_spark.learning.training import plan
from genodl_spark.registry import pretrained
from genodl_spark.registry.datasets import heads_of_row, layout_of, part_of_split

if TYPE_CHECKING:
    from pyspark.sql import Row

_BYTES = 64 << 20  # of sequences that the driver sees, at most
_SEEN = 4 * strands.ROWS  # rows, as not every one has a label of every head

log = logging.getLogger("genodl")


def decided(run: Run, dataset: Row) -> Run:
    """The same run, with model.reverse_complement=auto as the training rows of a data set say: none where what stands
    on one strand says another thing than on the other, to one training set of the first repeat or to all rows that
    train. Networks that start from a model share weights if it does."""
    s = run.settings
    if s.model.get("reverse_complement") != strands.AUTO:
        return run
    letters = encodings.encoding(dataset.transform, s.code_files).letters
    begun = pretrained.fixed(run).get("model.reverse_complement")  # whose trunk shares weights or does not
    chosen = "equivariant"
    if begun != chosen:
        found = strands.option(s.model, letters and _one(run, dataset))
        chosen = "augment" if begun is not None and found == chosen else found
    log.info("model.reverse_complement=auto is %s for these rows", chosen)
    run.report.metrics["reverse_complement"] = chosen
    return run.under(s.model_copy(update={"model": {**s.model, "reverse_complement": chosen}}))


def _one(run: Run, dataset: Row) -> bool:
    """Whether strands are one to all training sets of the first repeat, by a sample of the rows."""
    from pyspark.sql import functions as F

    s, layout, heads = run.settings, layout_of(dataset, run.settings.code_files), heads_of_row(dataset)
    code = part_of_split(0)
    rows = run.lake.read(EXAMPLES).where(F.col("dataset") == dataset.dataset)
    rows = rows.where(code != (UNUSED & 255) if dataset.folds else code == TRAIN)
    most = max(min(_SEEN, _BYTES // max(layout.values, 1)), 1)
    drawn = rows.orderBy(F.xxhash64(F.lit(s.seed), "row_id")).limit(most)
    found = drawn.select(*layout.columns).toArrow().sort_by("row_id")
    x = packing.rows(found.column("x"), dataset.dtype, layout.values)
    folds = packing.rows(found.column("folds"), "int8", layout.repeats)
    target = feed.targets(found, layout.targets)
    sets = plan.training_sets(1 if dataset.folds else 0, dataset.folds)
    for learns in plan.learns(folds, sets, dataset.folds):
        losses = []
        for head, own in zip(heads, targets(heads), strict=True):
            mine = learns & labelled(target[:, own])
            y = target[mine, own.start]
            if head.kind in ("classes", "value") and len(np.unique(y)) > 1:
                y = y.astype(np.int64) if head.classes else y
                losses.append(strands.merged_loss(x[mine], y, bool(head.classes), s.seed))
        if not losses or np.mean(losses) > 1:
            return False
    return True
