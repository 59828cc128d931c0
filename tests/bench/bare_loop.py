"""What benchmarks of predictions share: a registered model with random weights, runs that are processes of their own on
given cores, and a bare torch loop as a process on each core."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from genodl_spark.job.config import Settings
    from genodl_spark.lake.delta import Lake

ROOT = Path(__file__).resolve().parents[2]
PART = 50_000  # rows of a file
MODEL_ID = "bench"


def session(cpus: int) -> Any:
    from genodl_spark.core import session as sessions
    from genodl_spark.job import config

    return sessions.build("bench", config.load().spark, f"local[{cpus}]")


def frame(table: Any, rows: list[dict[str, Any]]) -> Any:
    from genodl_spark.job.run import Report, Run

    return Run.frame(Run(Report("bench"), None, ""), table, rows)  # type: ignore[arg-type]


def register(
    lake: Lake, settings: Settings, model: dict[str, Any], seeds: list[int], names: list[str], x: np.ndarray
) -> None:
    """A model of the task of `settings` that tells two classes apart, under MODEL_ID: a network for each of `seeds`;
    `names` of its features, and rows `x` like those that it is to see, int8 base codes or float32."""
    import torch
    from safetensors.torch import save

    from genodl_spark.lake.tables.learning import MODELS
    from genodl_spark.learning import encodings, model_files, models, predictor
    from genodl_spark.learning.scaling import Scaling

    classes, width, letters = ["0", "1"], len(names), x.dtype == np.int8
    transform = "onehot" if letters else "none"
    encoding = encodings.encoding(transform)
    network = models.build(model, seeds, encoding.shape(width), len(classes))
    scaled = 1 if letters else width
    scaling = Scaling(np.zeros((1, scaled), np.float32), np.ones((1, scaled), np.float32))
    learnt = encoding.learnt(x, np.ones(len(x), bool), scaling, False)
    weights = save(
        {
            **{f"network.{name}": value for name, value in network.state_dict().items()},
            "mean": torch.from_numpy(scaling.mean[0]),
            "inverse": torch.from_numpy(scaling.inverse[0]),
            "target": torch.tensor([0.0, 1.0], dtype=torch.float64),
            **{name: torch.from_numpy(value) for name, value in learnt.items()},
        }
    )
    batch = predictor.batch_rows(0, encoding.shape(width))
    shape = (str(x.dtype), transform, model, len(seeds), 1.0, batch)
    card = model_files.Card(model_files.FORMAT, MODEL_ID, settings.task, settings.label, classes, names, *shape)
    row = {
        **{"model_id": MODEL_ID, "task": settings.task, "label_column": settings.label, "model_version": 1},
        **{"cohort": "none", "dataset": "d", "split_hash": "s", "classes": classes, "n_features": width, "seed": 0},
        **{"settings": settings.model_dump_json(), "code": "", "fingerprint": "", "source_versions": {}, "ranks": 1},
        **{"metrics": {}, "trained_at": datetime.now(UTC)},
        **model_files.columns(model_files.publish(lake.model_uri(MODEL_ID), card, weights, {})),
    }
    lake.merge(MODELS, frame(MODELS, [row]))


def child(script: str, cpus: list[int], *arguments: Any) -> subprocess.Popen[str]:
    """`script` with `--run` and the name and arguments of a function of its own, on some cores."""
    command = [sys.executable, script, "--run", json.dumps(arguments)]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stdin=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        preexec_fn=lambda: os.sched_setaffinity(0, cpus),
    )


def called(functions: dict[str, Any], asked: str) -> None:
    """In such a process: calls the function, and prints what it returns."""
    what, *arguments = json.loads(asked)
    print(json.dumps(functions[what](*arguments)))


def answer(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"a run of the benchmark failed with exit code {process.returncode}")
    return dict(json.loads(out.splitlines()[-1]) or {})


def wait_for_others() -> None:
    """In a process of the bare loop that has its rows: until all have theirs."""
    print("ready", flush=True)
    sys.stdin.readline()


def all_bare(script: str, cpus: list[int], rows: int, *arguments: Any) -> Sequence[dict[str, Any]]:
    """What a script's function `bare` returns of all rows, a process on each core with a share of them; it gets
    `arguments`, how many rows there are, the number of its share, and how many shares there are."""
    processes = [child(script, [cpu], "bare", *arguments, rows, i, len(cpus)) for i, cpu in enumerate(cpus)]
    for process in processes:
        assert process.stdout is not None
        process.stdout.readline()
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    found = [answer(process) for process in processes]
    assert sum(one["rows"] for one in found) == rows
    return found


def slowest(found: Sequence[dict[str, Any]]) -> float:
    """Seconds until the last process was done."""
    return max(float(one["seconds"]) for one in found)
