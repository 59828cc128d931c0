"""A minute of the fuzzing that `make fuzz` does at length."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.fuzz.__main__ import runtime


@pytest.mark.skipif(runtime() is None, reason="gcc has no address sanitizer (libasan) here")
def test_mutated_payloads_and_text_under_the_sanitizers() -> None:
    command = [
        sys.executable,
        "-m",
        "tests.fuzz",
        "--payloads",
        "5000",
        "--texts",
        "100",
        "--rows",
        "1000",
        "--tables",
        "2000",
        "--seed",
        "1",
    ]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr[-4000:]
    assert ended.stdout.startswith("5,000 mutated packed payloads: ")
