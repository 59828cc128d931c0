"""How much what stands beside a network counts in a model, by what both say of rows that no training saw."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

from genodl_spark.learning.heads import Head
from genodl_spark.learning.model_files import mixtures
from genodl_spark.registry.scores import MODEL, NETWORK

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def chosen(losses: np.ndarray, parts: int) -> int:
    """Number of the mixture of least loss, of losses (mixtures,), the one of most network among equals; without any
    loss the one in which all count the same, or most nearly so."""
    if len(losses) and np.isfinite(losses).any():
        return int(losses.argmin())
    each = np.array([(1 - sum(shares), *shares) for shares in mixtures(parts)])
    return int(np.square(each).sum(1).round(9).argmin())


def shares(rows: DataFrame, heads: list[Head], parts: int) -> tuple[dict[tuple[int, int, int], int], list[int]]:
    """What suits rows (head, repeat, fold, target, mixture, scores) that are held out, `mixture` a number of `mixtures`
    of so many parts.

    Returns for each (head, repeat, fold) the number of the mixture that is best on the other folds of the repeat, so
    that no row chooses for itself; and that of each head that is best on all rows. Loss is the log loss of classes,
    else the squared error. Sums come from Spark, no row does.
    """
    from pyspark.sql import functions as F

    likelihood = F.expr("scores[cast(target as int)]")
    loss = F.when(F.size("scores") > 1, -F.log(F.greatest(likelihood, F.lit(1e-12))))
    loss = loss.otherwise(F.pow(F.col("target") - F.expr("scores[0]"), 2))
    names = [head.label for head in heads]
    sums = rows.groupBy("head", "repeat", "fold", "mixture").agg(F.sum(loss).alias("loss")).collect()
    keyed = sorted(
        (names.index(row.head) if row.head is not None else 0, row.repeat, -1 if row.fold is None else row.fold, row)
        for row in sums
    )
    found: dict[tuple[int, int, int], np.ndarray] = {}
    for head, repeat, fold, row in keyed:
        found.setdefault((head, repeat, fold), np.zeros(len(mixtures(parts))))[row.mixture] = row.loss
    best = {}
    for _, keys in groupby(found, key=lambda key: key[:2]):
        several = list(keys)
        whole = np.sum([found[key] for key in several], axis=0)
        for key in several:
            best[key] = chosen(whole - found[key] if len(several) > 1 else whole, parts)
    of_heads = [[losses for key, losses in found.items() if key[0] == number] for number in range(len(heads))]
    return best, [chosen(np.sum(losses, axis=0) if losses else np.empty(0), parts) for losses in of_heads]


def parts(
    rows: DataFrame,
    best: dict[tuple[int, int, int], int],
    registered: list[int],
    heads: list[Head],
    beside: Sequence[str],
) -> DataFrame:
    """Rows of `shares` and of tests as those of the predictors model, network and `beside`: what `best` and, where it
    says nothing of their fold, `registered` choose, and all parts alone."""
    from pyspark.sql import functions as F

    keys = [(head.label, 0, -1, place) for head, place in zip(heads, registered, strict=True)]
    keys = [key for key in keys if (key[0], 0, -1) not in {(heads[h].label, r, f) for h, r, f in best}]
    keys += [(heads[head].label, repeat, fold, place) for (head, repeat, fold), place in best.items()]
    wanted = rows.sparkSession.createDataFrame(keys, "of_head string, repeat int, of_fold int, chosen int")
    own = {"of_head": F.coalesce("head", F.lit(heads[0].label)), "of_fold": F.coalesce("fold", F.lit(-1))}
    rows = rows.withColumns(own).join(F.broadcast(wanted), ["of_head", "repeat", "of_fold"])
    several = mixtures(len(beside))
    alone = {several.index(tuple(float(name == one) for one in beside)): name for name in (NETWORK, *beside)}
    said = [F.when(F.col("mixture") == place, F.lit(name)) for place, name in alone.items()]
    predictors = F.array_compact(F.array(F.when(F.col("mixture") == F.col("chosen"), F.lit(MODEL)), *said))
    return rows.withColumn("predictor", F.explode(predictors)).drop("mixture", "chosen", "of_head", "of_fold")
