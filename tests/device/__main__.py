"""Our training loop and batch kernel on a machine with a GPU, where neither Spark nor Horovod need be: values beside
the CPU's, speeds beside bare torch loops and the card's peaks.

    python tests/device/__main__.py                         all of it on the GPU; where there is none it says so
    python tests/device/__main__.py --device cpu --small    the same road on a CPU, in seconds

Needs torch, numpy, pyarrow, pydantic, safetensors, scipy, threadpoolctl and isal. No kernel of genodl_spark/native is
asked: those read files, not tensors. A section that fails prints its traceback, and the next one follows; the exit
code is 1 then, or where a check failed. Every row is a line of JSON, which also goes to $OUT/device.jsonl.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from datetime import date
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))


def main(arguments: list[str] | None = None) -> int:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--device", choices=["auto", "cuda", "cpu"], default="auto")
    made.add_argument("--small", action="store_true", help="few rows, one round")
    told = "sections, or section/part with * and ?, in this order, with semicolons between; empty for all"
    made.add_argument("--only", default="*", help=told)
    made.add_argument("--seconds", type=float, default=240, help="no measurement begins later than this")
    a = made.parse_args(arguments)
    # before CUDA begins: products of matrices then repeat themselves to the last bit
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    import torch

    if a.device != "cpu" and not torch.cuda.is_available():
        print("skipped: torch sees no GPU here; --device cpu --small goes the same road on a CPU")
        return 0
    return run(torch, "cpu" if a.device == "cpu" else "cuda", a.small, a.only, time.monotonic() + a.seconds)


def run(torch: Any, name: str, small: bool, only: str, deadline: float) -> int:
    from genodl_spark.learning.training.ranks import Alone, device_of
    from tests.device import checks, speed
    from tests.device.work import Report

    device = device_of(Alone()) if name == "cuda" else torch.device("cpu")
    torch.set_num_threads(min(torch.get_num_threads(), 4))  # what the CPU has to do here is small
    report = Report()
    on = torch.cuda.get_device_name(device) if name == "cuda" else platform.processor() or platform.machine()
    versions = {"python": platform.python_version(), "torch": torch.__version__, "cuda": torch.version.cuda or ""}
    report.add("machine", device=on, date=str(date.today()), cores=os.cpu_count(), **versions)
    with tempfile.TemporaryDirectory(prefix="genodl-device-") as folder:
        measured = speed.Speed(report, folder, device, small, deadline)
        for name, part in chosen(parts(report, folder, device, small, checks, speed, measured), only).items():
            started = time.monotonic()
            try:
                part()
            except Exception as error:
                traceback.print_exc(file=sys.stdout)
                at = traceback.extract_tb(error.__traceback__)[-1]
                where = f"{os.path.basename(at.filename)}:{at.lineno}"
                report.add("errors", part=name, ok=False, error=f"{type(error).__name__}: {error}"[:300], at=where)
            print(f"# {name}: {time.monotonic() - started:.1f} s", flush=True)
    for section in dict.fromkeys(row["section"] for row in report.rows):
        print(f"\n## {section}\n{report.table(section)}")
    print(f"\n{report.failed} failed")
    return 1 if report.failed else 0


def chosen(made: dict[str, Callable[[], None]], only: str) -> dict[str, Callable[[], None]]:
    """Parts by their names, in the order of the patterns that ask for them."""
    wanted = [pattern.strip() for pattern in only.split(";")]
    names = [n for w in wanted for n in made if fnmatchcase(n, w) or n.partition("/")[0] == w]
    return {name: made[name] for name in names}


def parts(
    report: Any, folder: str, device: Any, small: bool, checks: Any, speed: Any, measured: Any
) -> dict[str, Callable[[], None]]:
    """All parts by section/part, in their order: what is most worth knowing comes first."""
    made: dict[str, Callable[[], None]] = {}

    def add(section: str, label: str, function: Callable[..., None], *given: Any) -> None:
        made[f"{section}/{label}"] = lambda: function(*given)

    gpu = device.type == "cuda"
    training = speed.TRAINING if gpu else [("mlp", 64, "off", False, 1), ("cnn", 64, "bf16", False, 2)]
    inference = speed.INFERENCE if gpu else [("mlp", "float32")]
    profiled = [("mlp", 512, "off"), ("cnn", 512, "bf16"), ("mlp", 8192, "bf16")]
    profiled += [("cnn", 4096, "bf16"), ("cnn", 4096, "off")]
    small_checks = (report, folder, device, small)
    add("checks", "randomness", checks.randomness, report, device)
    add("checks", "kernels", checks.kernels, report, device, small)
    add("checks", "waits", checks.waits, report, folder, device)
    for check in (checks.the_same_again, checks.inference, checks.precisions, checks.compiled, checks.against_the_cpu):
        add("checks", check.__name__, check, *small_checks)
    add("checks", "checkpoint_tensors", checks.checkpoint_tensors, report, folder, device)
    add("peaks", "peaks", measured.measure_peaks)
    add("peaks", "gather", measured.gather)
    for what in profiled if gpu else []:
        add("steps", ", ".join(map(str, what)), measured.profile, *what)
    for what in inference:
        add("inference", ", ".join(what), measured.inference, *what)
    for what in training:
        add("training", speed.training_label(*what), measured.training, *what)
    return made


if __name__ == "__main__":
    sys.exit(main())
