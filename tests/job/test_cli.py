"""Help comes at once: no library of analysis is loaded for it."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import jobs

# What needs more than .6 s before the first line: libraries of data, and settings.
DATA = {"numpy", "pyarrow", "pydantic", "duckdb"}
HEAVY = DATA | {
    "sklearn",
    "pandas",
    "pyspark",
    "torch",
    "mlflow",
    "matplotlib",
    "scipy",
    "optuna",
    "petastorm",
    "horovod",
    "delta",
    "deltalake",
}
VERBS = sorted(path.stem for path in Path(jobs.__file__).parent.glob("[a-z]*.py"))


def ran(*command: str) -> tuple[str, float]:
    """Standard output of a Python process, and its CPU seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return done.stdout, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_the_list_of_verbs_says_what_each_does() -> None:
    shown, seconds = ran("-m", "jobs", "--help")
    lines = {line.split()[0]: line.split(maxsplit=1)[1] for line in shown.splitlines() if line.startswith("  ")}
    assert sorted(lines) == VERBS
    assert lines["ingest"].startswith("Reads files of a kind of source,") and all(
        line.endswith(".") for line in lines.values()
    )
    assert seconds < 1.5  # 0.1 on a quiet machine; with the libraries of analysis 4.8


def test_help_of_a_verb_loads_no_library_of_analysis() -> None:
    program = (
        "import contextlib, importlib, io, json, sys\nfound = {}\nfor verb in sys.argv[1:]:\n    "
        "with contextlib.redirect_stdout(io.StringIO()) as shown:\n        code = importlib.import_module('jobs.' + "
        "verb).main(['--help'])\n    found[verb] = (code, shown.getvalue().split()[:3], sorted({name.partition('.')[0] "
        "for name in sys.modules}))\nprint(json.dumps(found))\n"
    )
    shown, seconds = ran("-c", program, *VERBS)
    for verb, (code, usage, loaded) in json.loads(shown).items():
        assert (code, usage) == (0, ["usage:", "genodl", verb])
        assert not HEAVY & set(loaded), verb
    assert seconds < 4  # 0.8 for all of them
