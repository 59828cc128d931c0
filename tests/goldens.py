"""Answers of tools that a machine may lack, kept beside the tests with the command and version that gave them.

`make goldens` asks the tools again. An answer is found by what was asked: the command and the bytes of its input files.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import subprocess
import tempfile
from pathlib import Path

FOLDER = Path(__file__).parent / "golden"
ASK = "GENODL_GOLDENS"  # set: the tools are asked, and their answers kept


def answer(command: list[str], inputs: dict[str, bytes], output: str) -> list[str]:
    """Lines of the file `output` that `command` makes, run in a folder that holds `inputs` (name -> content)."""
    digest = hashlib.sha256(repr((command, output)).encode())
    for name in sorted(inputs):
        digest.update(repr((name, hashlib.sha256(inputs[name]).hexdigest())).encode())
    path = FOLDER / command[0] / f"{output}-{digest.hexdigest()[:16]}.gz"
    if os.environ.get(ASK):
        version = subprocess.run([command[0], "--version"], capture_output=True, text=True, check=True).stdout.split(
            "\n"
        )[0]
        with tempfile.TemporaryDirectory() as folder:
            for name, content in inputs.items():
                Path(folder, name).write_bytes(content)
            subprocess.run(command, cwd=folder, check=True, capture_output=True)
            made = Path(folder, output).read_text()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(f"{version}: {' '.join(command)}\n{made}".encode(), mtime=0))
    assert path.is_file(), (
        f"no answer is kept for {' '.join(command)} on this input; run make goldens where {command[0]} is installed"
    )
    return gzip.decompress(path.read_bytes()).decode().splitlines()[1:]
