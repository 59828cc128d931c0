"""How much what stands beside a network counts in a model, by what both say of rows that no training saw."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

from genodl_spark.learning.heads import Head
from genodl_spark.learning.model_files import SHARES
from genodl_spark.registry.scores import MODEL, NETWORK

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

EQUAL = len(SHARES) // 2  # where nothing was held out to choose by, both count the same


def chosen(losses: np.ndarray) -> int:
    """Number of the share of least loss, of losses (shares,); the least share of equals, EQUAL without any."""
    return int(losses.argmin()) if len(losses) and np.isfinite(losses).any() else EQUAL


def shares(rows: DataFrame, heads: list[Head]) -> tuple[dict[tuple[int, int, int], int], list[float]]:
    """What suits rows (head, repeat, fold, target, share, scores) that are held out, `share` a number of SHARES.

    Returns for each (head, repeat, fold) the number of the share that is best on the other folds of the repeat, so that
    no row chooses for itself; and the share of each head that is best on all rows. Loss is the log loss of classes,
    else the squared error. Sums come from Spark, no row does.
    """
    from pyspark.sql import functions as F

    likelihood = F.expr("scores[cast(target as int)]")
    loss = F.when(F.size("scores") > 1, -F.log(F.greatest(likelihood, F.lit(1e-12))))
    loss = loss.otherwise(F.pow(F.col("target") - F.expr("scores[0]"), 2))
    names = [head.label for head in heads]
    sums = rows.groupBy("head", "repeat", "fold", "share").agg(F.sum(loss).alias("loss")).collect()
    keyed = sorted(
        (names.index(row.head) if row.head is not None else 0, row.repeat, -1 if row.fold is None else row.fold, row)
        for row in sums
    )
    found: dict[tuple[int, int, int], np.ndarray] = {}
    for head, repeat, fold, row in keyed:
        found.setdefault((head, repeat, fold), np.zeros(len(SHARES)))[row.share] = row.loss
    best = {}
    for _, keys in groupby(found, key=lambda key: key[:2]):
        several = list(keys)
        whole = np.sum([found[key] for key in several], axis=0)
        for key in several:
            best[key] = chosen(whole - found[key] if len(several) > 1 else whole)
    of_heads = [[losses for key, losses in found.items() if key[0] == number] for number in range(len(heads))]
    return best, [SHARES[chosen(np.sum(losses, axis=0) if losses else np.empty(0))] for losses in of_heads]


def parts(
    rows: DataFrame, best: dict[tuple[int, int, int], int], registered: list[float], heads: list[Head], beside: str
) -> DataFrame:
    """Rows of `shares` and of tests as those of the predictors model, network and `beside`: what `best` and, where it
    says nothing of their fold, `registered` choose, and both parts alone."""
    from pyspark.sql import functions as F

    keys = [(head.label, 0, -1, SHARES.index(share)) for head, share in zip(heads, registered, strict=True)]
    keys = [key for key in keys if (key[0], 0, -1) not in {(heads[h].label, r, f) for h, r, f in best}]
    keys += [(heads[head].label, repeat, fold, place) for (head, repeat, fold), place in best.items()]
    wanted = rows.sparkSession.createDataFrame(keys, "of_head string, repeat int, of_fold int, chosen int")
    own = {"of_head": F.coalesce("head", F.lit(heads[0].label)), "of_fold": F.coalesce("fold", F.lit(-1))}
    rows = rows.withColumns(own).join(F.broadcast(wanted), ["of_head", "repeat", "of_fold"])
    names = {0: NETWORK, len(SHARES) - 1: beside}
    said = [F.when(F.col("share") == place, F.lit(name)) for place, name in names.items()]
    predictors = F.array_compact(F.array(F.when(F.col("share") == F.col("chosen"), F.lit(MODEL)), *said))
    return rows.withColumn("predictor", F.explode(predictors)).drop("share", "chosen", "of_head", "of_fold")
