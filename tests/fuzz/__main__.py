"""Mutated packed genotypes, mutated VCF text, rows of .bed files, mutated tables, mutated sequences and mutated BAMs
through the kernels under the sanitizers of address and undefined behaviour.

A read or write outside memory ends the process; what a kernel accepts must be what a slow decoder written
from the layout alone (for text: the record rules) reads, and what that refuses the kernel must refuse.
`--seed` decides everything.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

SOURCES = sorted((Path(__file__).resolve().parents[2] / "genodl_spark" / "native").glob("*.c"))
FLAGS = [
    "-std=gnu11",
    "-O1",
    "-g",
    "-shared",
    "-fPIC",
    "-fno-omit-frame-pointer",
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=all",
]
_INSIDE = "GENODL_FUZZED"


def runtime() -> str | None:
    """The sanitizer's library, which has to come first in the process; None where the compiler has none."""
    try:
        found = subprocess.run(
            ["gcc", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
    return os.path.realpath(found) if os.path.isabs(found) else None


def main() -> int:
    made = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    made.add_argument("--payloads", type=int, default=1_000_000, help="mutated packed records")
    made.add_argument("--texts", type=int, default=20_000, help="mutated blocks of VCF records")
    made.add_argument("--rows", type=int, default=50_000, help="rows of a PLINK .bed")
    made.add_argument("--tables", type=int, default=50_000, help="mutated tables of text")
    made.add_argument("--sequences", type=int, default=50_000, help="mutated batches of sequences to shuffle")
    made.add_argument("--alignments", type=int, default=5_000, help="mutated BAMs to call variants of")
    made.add_argument("--seed", type=int, default=0)
    arguments = made.parse_args()
    if _INSIDE in os.environ:
        from genodl_spark.native import kernels
        from tests.fuzz import alignments, bed, columns, packed, shuffles, text

        library = kernels.opened(os.environ[_INSIDE])
        kernels._library = lambda: library
        for work, n, what in (
            (packed.run, arguments.payloads, "mutated packed payloads"),
            (text.run, arguments.texts, "mutated blocks of VCF text"),
            (bed.run, arguments.rows, "rows of a .bed"),
            (columns.run, arguments.tables, "mutated tables"),
            (shuffles.run, arguments.sequences, "mutated batches of sequences"),
            (alignments.run, arguments.alignments, "mutated BAMs"),
        ):
            started = time.monotonic()
            accepted, refused = work(n, arguments.seed)
            print(
                f"{n:,} {what}: {accepted:,} read as by the slow rules, {refused:,} refused, "
                f"{time.monotonic() - started:.0f} s",
                flush=True,
            )
        return 0
    preloaded = runtime()
    if preloaded is None:
        print("skipped: gcc has no address sanitizer (libasan) here", file=sys.stderr)
        return 77
    with tempfile.TemporaryDirectory() as folder:
        built = os.path.join(folder, f"kernels{sysconfig.get_config_var('SHLIB_SUFFIX')}")
        subprocess.run(["gcc", *FLAGS, *map(str, SOURCES), "-o", built], check=True)
        # Memory of Python, NumPy and Arrow straight from malloc: small objects side by side in one arena would
        # hide what reads beyond one.
        hidden = {
            "PYTHONMALLOC": "malloc",
            "ARROW_DEFAULT_MEMORY_POOL": "system",
            "ASAN_OPTIONS": "detect_leaks=0:halt_on_error=1",
        }
        environment = {
            **os.environ,
            **hidden,
            "LD_PRELOAD": preloaded,
            "UBSAN_OPTIONS": "print_stacktrace=1",
            _INSIDE: built,
        }
        return subprocess.run(
            [sys.executable, "-m", "tests.fuzz", *sys.argv[1:]], env=environment, check=False
        ).returncode


if __name__ == "__main__":
    sys.exit(main())
