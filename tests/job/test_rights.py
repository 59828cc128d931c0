"""A user who may read a lake and not write to it is told so in one line by every verb that writes;
nothing was begun then, and nothing is half-written."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from genodl_spark.job.execution import WRITES

ROOT = Path(__file__).parents[2]
NOBODY = 65534

# A process for all verbs, as its imports take longer than they do. None gets as far as a session.
SCRIPT = """
    import contextlib, importlib, io, json, os, sys

    given, place = json.loads(sys.argv[1]), sys.argv[2]
    answers = {}
    for verb, words in given.items():
        with contextlib.redirect_stderr(io.StringIO()) as err, contextlib.redirect_stdout(io.StringIO()) as out:
            code = importlib.import_module(f"jobs.{verb}").main([*words, "--lake", place])
        answers[verb] = [code, err.getvalue().splitlines(), json.loads(out.getvalue().splitlines()[-1])["status"]]
    print(json.dumps([os.geteuid(), "pyspark" in sys.modules, answers]))
"""
VERBS = {
    "ingest": ["expression", "m.tsv", "--cohort", "c"],
    "qc": ["--cohort", "c"],
    "annotate": ["--cohort", "c"],
    "call": ["--output", "c.vcf.gz"],
    "cluster": [],
    "prepare": ["tumor_type"],
    "train": ["tumor_type"],
    "tune": ["tumor_type"],
    "evaluate": ["tumor_type"],
    "predict": ["tumor_type"],
    "explain": ["tumor_type"],
    "monitor": [],
    "maintain": [],
    "forget": ["--cohort", "c", "--sample", "s"],
}


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder that others may go through, as those of pytest are not, with a lake that they may read."""
    folder = Path(tempfile.mkdtemp())
    (folder / "lake" / "samples").mkdir(parents=True)
    (folder / "lake" / "samples" / "a file").write_text("as it was")
    (folder / "m.tsv").write_text("gene\ts\nG\t1\n")
    for path in (folder, folder / "lake" / "samples", folder / "lake"):
        path.chmod(0o555)
    yield folder
    for path in (folder, folder / "lake", folder / "lake" / "samples"):
        path.chmod(0o755)
    shutil.rmtree(folder)


def as_reader(folder: Path, lake: str, verbs: dict[str, list[str]]) -> dict[str, list]:
    """What verbs answer a user without write rights: exit code, lines of stderr, status. Another user than root,
    whom nothing is forbidden."""
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "HOME": str(folder),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    command = [sys.executable, "-c", textwrap.dedent(SCRIPT), json.dumps(verbs), str(folder / lake)]
    if os.geteuid() == 0:
        # It may read everything, as the interpreter may lie in root's home, and write what others may.
        reads = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
        other = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", *reads]
        if shutil.which("setpriv") is None or subprocess.run([*other, "true"], capture_output=True).returncode:
            pytest.skip("root may write anywhere, and setpriv, which starts processes of other users, is not to be had")
        command = [*other, *command]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    user, started, answers = json.loads(done.stdout.splitlines()[-1])
    assert user != 0 and not started
    return answers


def test_a_user_without_write_rights_is_told_in_one_line(shared: Path) -> None:
    assert VERBS.keys() == WRITES | {"forget"}
    lake = shared / "lake"
    for place, verbs in (("lake", VERBS), ("no lake yet", {"ingest": VERBS["ingest"]})):
        for verb, (code, lines, status) in as_reader(shared, place, verbs).items():
            assert (code, status, len(lines)) == (2, "failed", 1), (verb, lines)
            assert lines[0].startswith("genodl: error: ") and str(shared / place) in lines[0], (verb, lines)
            assert "cannot be written" in lines[0] and "Permission denied" in lines[0], (verb, lines)
    assert sorted(path.name for path in shared.iterdir()) == ["lake", "m.tsv"]
    assert [str(path.relative_to(lake)) for path in sorted(lake.rglob("*"))] == ["samples", "samples/a file"]
    assert (lake / "samples" / "a file").read_text() == "as it was"
