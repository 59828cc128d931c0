"""`genodl predict` beside a bare torch loop and pyspark's predict_batch_udf on the same rows and model:
`make bench-predict`.

Each run is a process of its own on the same cores: N tasks of Spark, or N processes of the bare loop with a share of
the rows each. Sessions are warm (a small cohort is scored before, and what is new in it), so that seconds are those of
the job: reading the lake, scoring, the commit. The bare loop has its rows in memory and keeps its probabilities there:
standardised or one-hot, forward, softmax. predict_batch_udf reads a table of its own, with the array column
that it wants, and its rows are written to Delta as ours are. Then 1% new rows come, and are scored alone.
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

from genodl_spark.core import packing  # noqa: E402
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

TASKS = {"cnn": "binding", "mlp": "tumor_type"}
MODELS: dict[str, dict[str, Any]] = {
    "cnn": {"kind": "cnn", "channels": [32], "dilations": [1, 2, 4], "hidden": [32]},
    "mlp": {"kind": "mlp", "hidden": [1024, 256]},
}
WIDTH = {"cnn": 150, "mlp": 256}
ROWS = {"cnn": 500_000, "mlp": 2_000_000}


def lake_uri(folder: str, kind: str) -> str:
    return f"{folder}/{kind}"


def values(kind: str, first: int, rows: int) -> np.ndarray:
    generator = np.random.default_rng([7, first])
    shape = (rows, WIDTH[kind])
    return (
        generator.integers(0, 4, shape).astype(np.int8)
        if kind == "cnn"
        else generator.standard_normal(shape, np.float32)
    )


def make(kind: str, folder: str, rows: int) -> None:
    """A lake with the cohorts `big` and `warm`, and a registered model."""
    from genodl_spark.job import config
    from genodl_spark.lake.delta import Lake
    from genodl_spark.lake.tables.ingested import FEATURES

    spark = session(len(os.sched_getaffinity(0)))
    lake = Lake(spark, lake_uri(folder, kind))
    width, one_hot = WIDTH[kind], kind == "cnn"
    names = [f"position:{i + 1}" if one_hot else f"g{i}" for i in range(width)]
    for cohort, count in (("warm", 2000), ("big", rows)):
        add(lake, kind, cohort, 0, count, "one")
        if not one_hot:
            ids = [
                {
                    "cohort": cohort,
                    "source": "expression",
                    "block": "",
                    "feature_set": "f",
                    "position": i,
                    "feature_id": n,
                }
                for i, n in enumerate(names)
            ]
            lake.append(FEATURES, frame(FEATURES, ids))
    register(lake, config.load(TASKS[kind]), MODELS[kind], [1], names, values(kind, 10**9, 2000))
    spark.stop()


def add(lake: Any, kind: str, cohort: str, first: int, rows: int, file: str) -> None:
    """Appends rows `first` to `first + rows` to a cohort, a file for each 50,000."""
    import pyarrow as pa

    from genodl_spark.lake.parts import PartWriter
    from genodl_spark.lake.tables.ingested import EXPRESSION, SEQUENCES

    into = SEQUENCES if kind == "cnn" else EXPRESSION
    lake.create(into)
    parts = []
    for start in range(first, first + rows, PART):
        count = min(PART, first + rows - start)
        x = values(kind, start, count)
        size = x.shape[1] * x.itemsize
        packed = packing.binary_array(x.view(np.uint8).reshape(-1), np.arange(count + 1, dtype=np.int32) * size)
        ids = pa.array([f"{cohort}{i}" for i in range(start, start + count)])
        same = {
            "cohort": cohort,
            "file": file,
            "block": "",
            "feature_set": "f",
            "length": x.shape[1],
            "n_features": x.shape[1],
        }
        columns = {
            "sequence_id": ids,
            "sample_id": ids,
            "codes": packed,
            "x": packed,
            "line": pa.array(np.arange(start, start + count)),
        }
        schema = into.arrow_schema()
        made = [
            columns[f.name] if f.name in columns else pa.repeat(pa.scalar(same.get(f.name), f.type), count)
            for f in schema
        ]
        writer = PartWriter(into, lake.path(into), f"{file}-{start}")
        writer.write(pa.RecordBatch.from_arrays(made, schema=schema))
        parts += writer.close()
    lake._transaction(into).commit([], parts, None)


def arrays(kind: str, folder: str, rows: int) -> None:
    """What predict_batch_udf reads: the same rows in an array column, in Parquet files as large."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    out = Path(folder) / f"{kind}-arrays"
    out.mkdir()
    for start in range(0, rows, PART):
        x = values(kind, start, min(PART, rows - start))
        x = x.view(np.int8) if kind == "cnn" else x
        ends = pa.array(np.arange(len(x) + 1, dtype=np.int32) * x.shape[1])
        made = pa.table(
            {
                "entity_id": [f"big{i}" for i in range(start, start + len(x))],
                "x": pa.ListArray.from_arrays(ends, pa.array(x.ravel())),
            }
        )
        pq.write_table(
            made, out / f"{start:09d}.parquet", compression="zstd", row_group_size=4096, use_dictionary=False
        )


def ours(kind: str, folder: str, rows: int, cpus: int) -> dict[str, Any]:
    from genodl_spark.job import config
    from genodl_spark.job.run import Report, Run
    from genodl_spark.lake.delta import Lake
    from genodl_spark.lake.tables.ingested import EXPRESSION, SEQUENCES
    from genodl_spark.lake.tables.learning import PREDICTIONS
    from genodl_spark.pipelines.predict import predict

    spark = session(cpus)
    lake, source = Lake(spark, lake_uri(folder, kind)), SEQUENCES if kind == "cnn" else EXPRESSION

    def scored(cohort: str, *, force: bool = False) -> tuple[float, int]:
        run = Run(Report("predict"), config.load(TASKS[kind]), lake_uri(folder, kind))
        run.__dict__["spark"] = spark
        started = time.perf_counter()
        predict(run, cohort, None, MODEL_ID, force)
        return time.perf_counter() - started, int(run.report.rows[PREDICTIONS.name]["written"])

    def come_and_gone(cohort: str, count: int) -> tuple[float, float]:
        """Seconds in which rows that are new are scored, and in which the scores of rows that are
        gone again are taken away."""
        add(lake, kind, cohort, 10 * rows, count, f"new{time.time_ns()}")
        come, few = scored(cohort)
        assert few == count, few
        new = [f for f in lake.files(source, lake.version(source) or 0) if "/part-new" in f"/{f.path}"]
        lake._transaction(source).commit(new, [], None)
        return come, scored(cohort)[0]

    scored("warm", force=True)
    come_and_gone("warm", 20)
    seconds, written = scored("big", force=True)
    assert written == rows, written
    more, again = come_and_gone("big", rows // 100)
    assert lake.count(PREDICTIONS, {"cohort": "big"}) == rows
    spark.stop()
    return {"seconds": seconds, "incremental": more, "gone": again}


def bare(kind: str, folder: str, rows: int, share: int, of: int) -> dict[str, Any]:
    """Shares of the rows of a loop of torch alone, one thread; it waits for the others before it starts."""
    import torch

    from genodl_spark.learning import model_files, predictor

    torch.set_num_threads(1)
    uri = f"file://{lake_uri(folder, kind)}/models/{MODEL_ID}"
    card = model_files.ModelFiles(uri).card()
    model = predictor.Predictor(
        card, model_files.ModelFiles(uri).weights(), uri, device="cuda" if torch.cuda.is_available() else "cpu"
    )
    network, reader, device = model.network, model.reader, model.device
    first, last = (rows * i // of for i in (share, share + 1))
    x = np.concatenate([values(kind, start, min(PART, last - start)) for start in range(first, last, PART)])
    bases = torch.arange(4, dtype=torch.int8, device=device)[:, None]
    wait_for_others()
    kept = []
    started = time.perf_counter()
    with torch.inference_mode():
        for start in range(0, len(x), card.batch):
            part = torch.from_numpy(x[start : start + card.batch]).to(device)
            part = (part[:, None] == bases).float() if kind == "cnn" else (part - reader.mean) * reader.inverse
            kept.append(torch.softmax(network(part[None])[0], -1).cpu().numpy())
    found = np.concatenate(kept)
    assert len(found) == len(x)
    return {"seconds": time.perf_counter() - started, "rows": len(x)}


def batch_udf(kind: str, folder: str, rows: int, cpus: int) -> dict[str, Any]:
    """As pyspark's documentation has it: a predict function made once a worker, NumPy batches in,
    an array of probabilities out."""
    from pyspark.ml.functions import predict_batch_udf
    from pyspark.sql import functions as F
    from pyspark.sql.types import ArrayType, FloatType

    spark = session(cpus)
    uri, out, root = (
        f"file://{lake_uri(folder, kind)}/models/{MODEL_ID}",
        f"{folder}/{kind}-udf-{time.time_ns()}",
        str(ROOT),
    )

    def make_predict() -> Any:
        sys.path.insert(0, root)
        import torch

        from genodl_spark.learning import model_files, predictor

        torch.set_num_threads(1)
        card = model_files.ModelFiles(uri).card()
        model = predictor.Predictor(card, model_files.ModelFiles(uri).weights(), uri)
        reader = model.reader
        bases = torch.arange(4, dtype=torch.int8)[:, None]

        def answer(x: np.ndarray) -> np.ndarray:
            with torch.inference_mode():
                part = torch.from_numpy(np.ascontiguousarray(x))
                part = (part[:, None] == bases).float() if kind == "cnn" else (part - reader.mean) * reader.inverse
                return torch.softmax(model.network(part[None])[0], -1).numpy()

        return answer

    from genodl_spark.learning import model_files

    size = model_files.ModelFiles(uri).card().batch
    spark.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", str(size * max(1, 4096 // size)))
    score = predict_batch_udf(
        make_predict, return_type=ArrayType(FloatType()), batch_size=size, input_tensor_shapes=[[WIDTH[kind]]]
    )

    def run(limit: int | None) -> float:
        table = spark.read.parquet(f"file://{folder}/{kind}-arrays")
        table = table if limit is None else table.limit(limit)
        started = time.perf_counter()
        scored = table.select("entity_id", score("x").alias("p")).select(
            "entity_id", "p", F.array_max("p").alias("value")
        )
        scored.write.format("delta").mode("overwrite").save(out)
        return time.perf_counter() - started

    run(2000)
    seconds = run(None)
    assert spark.read.format("delta").load(out).count() == rows
    spark.stop()
    return {"seconds": seconds}


def main() -> int:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--repeat", type=int, default=3)
    made.add_argument("--models", default="mlp,cnn")
    made.add_argument("--scale", type=float, default=1.0, help="share of the rows")
    made.add_argument("--run", help=argparse.SUPPRESS)
    a = made.parse_args()
    if a.run:
        called(globals(), a.run)
        return 0
    import torch

    cpus = sorted(os.sched_getaffinity(0))
    print(
        f"{len(cpus)} cores, {platform.machine()}, torch {torch.__version__}; {date.today()}; "
        f"{a.repeat} alternating rounds, medians\n"
    )
    print("| model | what | rows/s | ratio |\n| --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory(prefix="genodl-bench-predict-") as folder:
        for kind in a.models.split(","):
            rows = int(ROWS[kind] * a.scale) // 100 * 100
            answer(child(__file__, cpus, "make", kind, folder, rows))
            arrays(kind, folder, rows)
            found: dict[str, list[float]] = {"ours": [], "bare": [], "udf": [], "new": [], "gone": []}
            for number in range(a.repeat):
                print(f"{kind}: round {number + 1} of {a.repeat}", file=sys.stderr, flush=True)
                mine = answer(child(__file__, cpus, "ours", kind, folder, rows, len(cpus)))
                found["ours"].append(mine["seconds"])
                found["new"].append(mine["incremental"])
                found["gone"].append(mine["gone"])
                found["bare"].append(slowest(all_bare(__file__, cpus, rows, kind, folder)))
                found["udf"].append(
                    answer(child(__file__, cpus, "batch_udf", kind, folder, rows, len(cpus)))["seconds"]
                )
            median = {name: statistics.median(seconds) for name, seconds in found.items()}

            def ratio(name: str, other: str, found: dict[str, list[float]] = found) -> float:
                return statistics.median(x / y for x, y in zip(found[name], found[other], strict=True))

            print(f"| {kind} | bare torch loop, rows in memory | {rows / median['bare']:,.0f} | 1.000 of itself |")
            print(
                f"| {kind} | genodl predict | {rows / median['ours']:,.0f} | {ratio('bare', 'ours'):.3f} "
                "of the bare torch loop |"
            )
            print(
                f"| {kind} | the same | {rows / median['ours']:,.0f} | {ratio('udf', 'ours'):.3f} "
                "of predict_batch_udf |"
            )
            print(
                f"| {kind} | pyspark predict_batch_udf | {rows / median['udf']:,.0f} | {ratio('bare', 'udf'):.3f} "
                "of the bare torch loop |"
            )
            print(
                f"| {kind} | 1% new rows alone | {rows / 100 / median['new']:,.0f} | {100 * ratio('new', 'ours'):.1f}% "
                "of the time of all |"
            )
            print(
                f"| {kind} | and these gone again | | {100 * ratio('gone', 'ours'):.1f}% of the time of all |",
                flush=True,
            )
    for kind in a.models.split(","):
        rows = int(ROWS[kind] * a.scale) // 100 * 100
        print(
            f"\n{kind}: {json.dumps(MODELS[kind])}, one network, {rows:,} rows x {WIDTH[kind]:,} "
            f"{'base codes' if kind == 'cnn' else 'float32'}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
