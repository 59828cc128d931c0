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
import subprocess
import sys
import tempfile
import time
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
LENGTH = 101
ROWS = 1_000_000
PART = 50_000
MODEL_ID = "bench"
CLASSES = ["0", "1"]
CODES = np.frombuffer(b"ACGT", np.uint8)


def contig(rows: int) -> np.ndarray:
    """Base codes of the contig, some 10 bases for each variant."""
    return np.random.default_rng(11).integers(0, 4, 10 * rows + 1000).astype(np.int8)


def variants(rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions, 1-based, in order, and base codes of ALT."""
    generator = np.random.default_rng(12)
    position = np.sort(generator.choice(10 * rows, rows, replace=False)) + 500
    return position, ((contig(rows)[position - 1] + generator.integers(1, 4, rows)) % 4).astype(np.int8)


def session(cpus: int) -> Any:
    from genodl_spark.core import session as sessions
    from genodl_spark.job import config

    return sessions.build("bench", config.load().spark, f"local[{cpus}]")


def letters(codes: np.ndarray) -> Any:
    import pyarrow as pa

    from genodl_spark.core import packing

    ends = np.arange(len(codes) + 1, dtype=np.int32)
    return packing.binary_array(np.ascontiguousarray(CODES[codes]), ends, type_=pa.string())


def make(folder: str, rows: int) -> None:
    """A lake with the cohorts `big` and `warm`, a reference, and a registered model."""
    import pyarrow as pa
    import torch
    from safetensors.torch import save

    from genodl_spark.job import config
    from genodl_spark.job.run import Report, Run
    from genodl_spark.lake.delta import Lake
    from genodl_spark.lake.parts import PartWriter
    from genodl_spark.lake.tables.genomes import CHUNK, REFERENCE_BASES
    from genodl_spark.lake.tables.ingested import VARIANTS
    from genodl_spark.lake.tables.learning import MODELS
    from genodl_spark.learning import encodings, model_files, models, predictor
    from genodl_spark.learning.scaling import Scaling

    spark = session(len(os.sched_getaffinity(0)))
    lake = Lake(spark, folder)

    def frame(table: Any, found: list[dict[str, Any]]) -> Any:
        return Run.frame(Run(Report("bench"), None, ""), table, found)  # type: ignore[arg-type]

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
    encoding, members = encodings.encoding("onehot"), settings.train.ensemble
    network = models.build(settings.model, list(range(members)), encoding.shape(LENGTH), len(CLASSES))
    x = np.random.default_rng(13).integers(0, 4, (2000, LENGTH)).astype(np.int8)
    scaling = Scaling(np.zeros((1, 1), np.float32), np.ones((1, 1), np.float32))
    learnt = encoding.learnt(x, np.ones(len(x), bool), scaling, False)
    tensors = {f"network.{name}": value for name, value in network.state_dict().items()}
    tensors |= {
        "mean": torch.zeros(1),
        "inverse": torch.ones(1),
        "target": torch.tensor([0.0, 1.0], dtype=torch.float64),
    }
    weights = save({**tensors, **{name: torch.from_numpy(value) for name, value in learnt.items()}})
    names = [f"position:{i + 1}" for i in range(LENGTH)]
    batch = predictor.batch_rows(0, encoding.shape(LENGTH))
    shape = ("int8", "onehot", settings.model, members, 1.0, batch)
    card = model_files.Card(model_files.FORMAT, MODEL_ID, "binding", "label", CLASSES, names, *shape)
    row = {
        **{"model_id": MODEL_ID, "task": "binding", "label_column": "label", "model_version": 1, "cohort": "none"},
        **{"dataset": "d", "split_hash": "s", "classes": CLASSES, "n_features": LENGTH, "seed": 0, "ranks": 1},
        **{"settings": settings.model_dump_json(), "code": "", "fingerprint": "", "source_versions": {}},
        **{"metrics": {}, "trained_at": datetime.now(UTC)},
        **model_files.columns(model_files.publish(lake.model_uri(MODEL_ID), card, weights, {})),
    }
    lake.merge(MODELS, frame(MODELS, [row]))
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
    print("ready", flush=True)
    sys.stdin.readline()
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


def child(cpus: list[int], *arguments: Any) -> subprocess.Popen[str]:
    command = [sys.executable, __file__, "--run", json.dumps(arguments)]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stdin=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        preexec_fn=lambda: os.sched_setaffinity(0, cpus),
    )


def answer(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"a run of the benchmark failed with exit code {process.returncode}")
    return dict(json.loads(out.splitlines()[-1]) or {})


def all_bare(folder: str, rows: int, cpus: list[int]) -> tuple[float, list[float]]:
    """Seconds of the bare loop over all variants, a process on each core, and effects of the first ones."""
    processes = [child([cpu], "bare", folder, rows, i, len(cpus)) for i, cpu in enumerate(cpus)]
    for process in processes:
        assert process.stdout is not None
        process.stdout.readline()
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    found = [answer(process) for process in processes]
    assert sum(one["rows"] for one in found) == rows
    return max(float(one["seconds"]) for one in found), found[0]["values"]


def main() -> int:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--repeat", type=int, default=1)
    made.add_argument("--scale", type=float, default=1.0, help="share of the million variants")
    made.add_argument("--run", help=argparse.SUPPRESS)
    a = made.parse_args()
    sys.path.insert(0, str(ROOT))
    if a.run:
        what, *arguments = json.loads(a.run)
        print(json.dumps(globals()[what](*arguments)))
        return 0
    import torch

    from genodl_spark.job import config

    cpus = sorted(os.sched_getaffinity(0))
    rows = int(ROWS * a.scale)
    found: dict[str, list[float]] = {"ours": [], "again": [], "bare": []}
    with tempfile.TemporaryDirectory(prefix="genodl-bench-variants-") as folder:
        answer(child(cpus, "make", folder, rows))
        for number in range(a.repeat):
            print(f"round {number + 1} of {a.repeat}", file=sys.stderr, flush=True)
            mine = answer(child(cpus, "ours", folder, rows, len(cpus)))
            seconds, values = all_bare(folder, rows, cpus)
            np.testing.assert_allclose(mine["values"][: len(values)], values, rtol=1e-6, atol=1e-6)
            found["ours"].append(mine["seconds"])
            found["again"].append(mine["again"])
            found["bare"].append(seconds)
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
    print(f"\n{json.dumps(settings.model)}, {settings.train.ensemble} networks")
    return 0


if __name__ == "__main__":
    sys.exit(main())
