"""What runs on a machine with a GPU goes the same road on a CPU, without what such a machine need not have."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.device.__main__ import chosen, main

ROOT = Path(__file__).resolve().parents[2]
ABSENT = ("pyspark", "delta", "deltalake", "duckdb", "horovod", "petastorm", "mlflow", "optuna", "matplotlib", "pysam")
NEEDED = ("tests.device.checks", "tests.device.speed")  # and through them the loop and the batch kernel


def test_neither_spark_nor_a_lake_need_be_there(tmp_path: Path) -> None:
    for name in ABSENT:
        (tmp_path / f"{name}.py").write_text("raise ModuleNotFoundError(__name__)\n")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    command = [sys.executable, "-c", f"import {', '.join(NEEDED)}"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


def test_the_small_road_on_a_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUT", str(tmp_path))
    code = main(["--device", "cpu", "--small"])
    rows = [json.loads(line) for line in (tmp_path / "device.jsonl").read_text().splitlines()]
    assert code == 0, [row for row in rows if row.get("ok") is False]
    assert {row["section"] for row in rows} == {"machine", "checks", "peaks", "gather", "inference", "training"}
    assert sum(row["section"] == "checks" and row["ok"] for row in rows) >= 14
    assert all(row["of_bare"] > 0 for row in rows if row["section"] in ("inference", "training"))


def test_parts_are_chosen_in_the_order_asked_for() -> None:
    made = dict.fromkeys(["checks/waits", "training/mlp, batch 8, off", "training/mlp, batch 8, off, compiled"], print)
    assert list(chosen(made, "*")) == list(made)
    assert list(chosen(made, "training/*, compiled; checks; training/mlp, batch 8, off")) == [
        list(made)[i] for i in (2, 0, 1)
    ]
    assert not chosen(made, "waits")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU: all of it would run")
def test_a_machine_without_a_gpu_is_told_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "torch sees no GPU" in capsys.readouterr().out
