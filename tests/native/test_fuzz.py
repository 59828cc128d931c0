"""A minute of the fuzzing that `make fuzz` does at length."""

from __future__ import annotations

import subprocess
import sys

import pytest

from genodl_spark.formats.vcf.reader import Reader
from tests.fuzz.__main__ import runtime
from tests.fuzz.text import Ruled, head


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
        "--sequences",
        "1000",
        "--alignments",
        "150",
        "--seed",
        "1",
    ]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr[-4000:]
    assert ended.stdout.startswith("5,000 mutated packed payloads: ")


@pytest.mark.parametrize("usual", ["0|0", "0|1", "1|0", "1|1"])
@pytest.mark.parametrize("others", [0, 1, 30, 50])
def test_calls_are_packed_in_the_same_bytes_by_kernel_and_rules(usual: str, others: int) -> None:
    """Whichever call is the usual one; in the fuzz it is nearly always 0|0."""
    rest = [call for call in ("1|1", "1|0", "0|1", "0|0") if call != usual]
    calls = [rest[i % 3] for i in range(others)] + [usual] * (100 - others)
    text = ("\t".join(["1", "10", ".", "A", "C", ".", ".", ".", "GT", *calls]) + "\n").encode()
    header = head(2, len(calls))
    (mine,), (ruled,) = (list(kind(header, "c", "v.vcf").batches(1, text, 1000)) for kind in (Reader, Ruled))
    assert mine[0].to_pylist() == ruled[0].to_pylist() and mine[0].num_rows == 1
