"""One plain training loop over Horovod.

All networks of a job (every fold and repeat of a cross-validation, the registered model, each of them
an ensemble) are members of one module and see the same batches; a mask says which rows each of them learns from.
Gradients are sums over rows divided by counts that every rank knows, so that the number of ranks changes
nothing but the order of additions. Whatever is random is a function of seed, epoch, step and row,
so that a training that was cut off goes on as if it had not been.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from genodl_spark.core import storage
from genodl_spark.core.errors import InputError
from genodl_spark.learning.training.plan import FAILURE, Job, log, told
from genodl_spark.learning.training.rank import run_alone, run_elastic_rank, run_rank
from genodl_spark.learning.training.ranks import slots_left, start_ranks

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def launch(spark: SparkSession, job: Job, ranks: int) -> dict[str, Any]:
    """Runs the job on `ranks` processes at once, as `train.launcher` says; returns what rank 0 measured.

    Where a rank is lost, with its process or with its machine, the others are ended and the job goes on from its last
    checkpoint, with as many ranks as there are slots for, `train.restarts` times at most; `restarts` of the result
    counts them. InputError when there are too few slots at the start, and for what a rank says of the user's input;
    Outage where a disk is full.
    """
    from genodl_spark.core.session import task_slots

    o, restarts, asked = job.options, 0, ranks
    launcher = o.launcher
    if launcher == "spark" and task_slots(spark) < ranks:
        found = f"found {task_slots(spark)} task slots; expected at least {ranks}"
        raise InputError(f"{found}, one per rank: lower it or give the job more cores", "train.procs")
    if job.shard and len(job.files) < ranks:
        found = f"found {len(job.files)} training files for {ranks} ranks to share"
        raise InputError(f"{found}; expected one for each at least, lower feed.rows_per_file", "feed.shard")
    failure = storage.join(job.staging, FAILURE)
    while True:
        with contextlib.suppress(FileNotFoundError):
            storage.remove_file(failure)
        try:
            elastic = run_elastic_rank if o.elastic else None
            return {
                **start_ranks(spark, launcher, o.hosts, ranks, run_alone, run_rank, elastic, job),
                "restarts": restarts,
            }
        except Exception as error:
            if storage.is_file(failure):
                raise told(storage.read_bytes(failure)) from error
            lost = str(error).strip().split("\n")[0][:200]
            # Where the lake's disk is so full that a rank could not even say so, this says it.
            storage.write_json(storage.join(job.staging, "lost.json"), {"after": restarts, "what": lost})
            if restarts >= o.restarts or not job.checkpoint:
                raise
            restarts += 1
        if launcher == "spark":
            # A machine that has come back is taken again, and not waited for once it was given up.
            ranks = min(asked, slots_left(spark, ranks))
        log.warning(
            "a rank was lost (%s): going on from the last checkpoint with %d ranks, restart %d", lost, ranks, restarts
        )
