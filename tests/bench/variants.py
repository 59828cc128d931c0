"""Effects of single-base variants through a model of sequences, beside a bare torch loop over the same windows:
`make bench-variants`.

The cohort's variants are distinct sites of a random contig, one ALT each, so that each has two windows of its own; the
network is that of conf/tasks/binding.toml, with its ensemble and random weights. `genodl predict variant_effect` reads
variants and reference from the lake, cuts the windows, scores both strands, and commits the rows. The bare loop has its
windows in memory, a process with one thread on each core: one-hot, forward, the mean of both strands.
Each run is a process of its own on the same cores, warm: a small cohort is scored before. A second run with nothing new
is timed too.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.bench.bare_loop import (  # noqa: E402
    MODEL_ID,
    PART,
    all_bare,
    answer,
    called,
    child,
    frame,
    register,
    session,
    slowest,
    wait_for_others,
)

LENGTH = 101
ROWS = 1_000_000
CODES = np.frombuffer(b"ACGT", np.uint8)


def contig(rows: int) -> np.ndarray:
    """Base codes of the contig, some 10 bases for each variant."""
    return np.random.default_rng(11).integers(0, 4, 10 * rows + 1000).astype(np.int8)


def variants(rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions, 1-based, in order, and base codes of ALT."""
    generator = np.random.default_rng(12)
    position = np.sort(generator.choice(10 * rows, rows, replace=False)) + 500
    return position, ((contig(rows)[position - 1] + generator.integers(1, 4, rows)) % 4).astype(np.int8)


def letters(codes: np.ndarray) -> Any:
    import pyarrow as pa

    from genodl_spark.core import packing

    ends = np.arange(len(codes) + 1, dtype=np.int32)
    return packing.binary_array(np.ascontiguousarray(CODES[codes]), ends, type_=pa.string())


def options(settings: Any) -> dict[str, Any]:
    """Of the network: those of the task, which leaves it to training rows whether strands are one."""
    return {**settings.model, "reverse_complement": "none"}


def make(folder: str, rows: int) -> None:
    """A lake with the cohorts `big` and `warm`, a reference, and a registered model."""
    import pyarrow as pa

    from genodl_spark.job import config
    from genodl_spark.lake.delta import Lake
    from genodl_spark.lake.parts import PartWriter
    from genodl_spark.lake.tables.genomes import CHUNK, REFERENCE_BASES
    from genodl_spark.lake.tables.ingested import VARIANTS

    spark = session(len(os.sched_getaffinity(0)))
    lake = Lake(spark, folder)

    codes = contig(rows)
    text = CODES[codes].tobytes()
    same = {"cohort": "reference", "contig": "1", "name": "1", "file": "g.fa"}
    chunks = [
        {
            **same,
            "chunk": at // CHUNK,
            "first": at + 1,
            "last": min(at + CHUNK, len(text)),
            "bases": text[at : at + CHUNK],
        }
        for at in range(0, len(text), CHUNK)
    ]
    lake.append(REFERENCE_BASES, frame(REFERENCE_BASES, chunks))
    position, alt = variants(rows)
    lake.create(VARIANTS)
    parts = []
    for cohort, count in (("warm", min(2000, rows)), ("big", rows)):
        for start in range(0, count, PART):
            pos, other = position[start : min(start + PART, count)], alt[start : min(start + PART, count)]
            of_all = {
                **{"cohort": cohort, "contig": "1", "chrom": "1", "bin": 0, "info": ".", "n_samples": 0},
                **{"sample_set": "", "alt_number": 0, "file": "v.vcf"},
            }
            columns = {
                "pos": pa.array(pos),
                "end": pa.array(pos),
                "line": pa.array(np.arange(start, start + len(pos))),
                "ref": letters(codes[pos - 1]),
                "alts": pa.ListArray.from_arrays(np.arange(len(pos) + 1, dtype=np.int32), letters(other)),
            }
            schema = VARIANTS.arrow_schema()
            made = [
                columns[f.name].cast(f.type)
                if f.name in columns
                else pa.repeat(pa.scalar(of_all.get(f.name), f.type), len(pos))
                for f in schema
            ]
            writer = PartWriter(VARIANTS, lake.path(VARIANTS), f"{cohort}-{start}")
            writer.write(pa.RecordBatch.from_arrays(made, schema=schema))
            parts += writer.close()
    lake._transaction(VARIANTS).commit([], parts, None)

    settings = config.load("binding")
    x = np.random.default_rng(13).integers(0, 4, (2000, LENGTH)).astype(np.int8)
    names = [f"position:{i + 1}" for i in range(LENGTH)]
    register(lake, settings, options(settings), list(range(settings.train.ensemble)), names, x)
    spark.stop()


def ours(folder: str, rows: int, cpus: int) -> dict[str, Any]:
    from genodl_spark.job import config
    from genodl_spark.job.run import Report, Run
    from genodl_spark.lake.tables.learning import PREDICTIONS
    from genodl_spark.pipelines.predict import predict

    spark = session(cpus)

    def scored(cohort: str, force: bool) -> tuple[float, Run]:
        run = Run(Report("predict"), config.load("variant_effect"), folder)
        run.__dict__["spark"] = spark
        started = time.perf_counter()
        predict(run, cohort, None, MODEL_ID, force)
        return time.perf_counter() - started, run

    scored("warm", True)
    seconds, run = scored("big", True)
    assert run.report.rows[PREDICTIONS.name]["written"] == rows and not run.report.metrics["without_effect"]
    again, run = scored("big", False)
    assert run.report.status == "unchanged"
    # what the bare loop has to say of the same variants
    mine = run.lake.read(PREDICTIONS).where("cohort = 'big'")
    first = mine.selectExpr("CAST(split(entity_id, ':')[1] AS BIGINT) AS pos", "value").orderBy("pos").limit(100)
    values = [row.value for row in first.collect()]
    spark.stop()
    return {"seconds": seconds, "again": again, "values": values}


def bare(folder: str, rows: int, share: int, of: int) -> dict[str, Any]:
    """A share of the variants by a loop of torch alone, one thread; it waits for the others before it starts."""
    import torch

    from genodl_spark.learning import model_files, predictor

    torch.set_num_threads(1)
    files = model_files.ModelFiles(f"file://{folder}/models/{MODEL_ID}")
    card = files.card()
    network = predictor.Predictor(card, files.weights(), files.uri, device="cpu").network
    position, alt = variants(rows)
    mine = slice(rows * share // of, rows * (share + 1) // of)
    codes = contig(rows)
    place = (position[mine] - 1 - LENGTH // 2)[:, None] + np.arange(LENGTH)
    ref = codes[place]
    other = ref.copy()
    other[:, LENGTH // 2] = alt[mine]
    windows = np.concatenate([ref, other])
    x = np.concatenate([windows, 3 - windows[:, ::-1]])
    bases = torch.arange(4, dtype=torch.int8)[:, None]
    wait_for_others()
    kept = []
    started = time.perf_counter()
    with torch.inference_mode():
        for start in range(0, len(x), card.batch):
            part = torch.from_numpy(x[start : start + card.batch])
            outputs = network((part[:, None] == bases).float()[None])
            kept.append(torch.softmax(outputs.double(), -1).mean(0).numpy())
    odds = np.log(np.concatenate(kept)) @ [-1, 1]
    both = odds.reshape(2, 2, -1).mean(0)
    found = both[1] - both[0]
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "rows": len(found), "values": found[:100].tolist()}


def main() -> int:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--repeat", type=int, default=1)
    made.add_argument("--scale", type=float, default=1.0, help="share of the million variants")
    made.add_argument("--run", help=argparse.SUPPRESS)
    a = made.parse_args()
    if a.run:
        called(globals(), a.run)
        return 0
    import torch

    from genodl_spark.job import config

    cpus = sorted(os.sched_getaffinity(0))
    rows = int(ROWS * a.scale)
    found: dict[str, list[float]] = {"ours": [], "again": [], "bare": []}
    with tempfile.TemporaryDirectory(prefix="genodl-bench-variants-") as folder:
        answer(child(__file__, cpus, "make", folder, rows))
        for number in range(a.repeat):
            print(f"round {number + 1} of {a.repeat}", file=sys.stderr, flush=True)
            mine = answer(child(__file__, cpus, "ours", folder, rows, len(cpus)))
            bare_of = all_bare(__file__, cpus, rows, folder)
            values = bare_of[0]["values"]
            np.testing.assert_allclose(mine["values"][: len(values)], values, rtol=1e-6, atol=1e-6)
            found["ours"].append(mine["seconds"])
            found["again"].append(mine["again"])
            found["bare"].append(slowest(bare_of))
    median = {name: statistics.median(seconds) for name, seconds in found.items()}
    ratio = statistics.median(x / y for x, y in zip(found["bare"], found["ours"], strict=True))
    print(
        f"{len(cpus)} cores, {platform.machine()}, torch {torch.__version__}; {date.today()}; {rows:,} variants x two "
        f"strands, {LENGTH} bases; {a.repeat} alternating rounds, medians\n"
    )
    print("| what | seconds | variants/s | a million takes, minutes | ratio |\n| --- | --- | --- | --- | --- |")
    for name, what, of in (
        ("bare", "bare torch loop, windows in memory", "1.000 of itself"),
        ("ours", "genodl predict variant_effect", f"{ratio:.3f} of the bare torch loop"),
    ):
        million = ROWS / rows * median[name] / 60
        print(f"| {what} | {median[name]:.1f} | {rows / median[name]:,.0f} | {million:.1f} | {of} |")
    print(f"| the same with nothing new | {median['again']:.1f} | | | |")
    settings = config.load("binding")
    print(f"\n{json.dumps(options(settings))}, {settings.train.ensemble} networks")
    return 0


if __name__ == "__main__":
    sys.exit(main())
