"""Images of this checkout, and their files as roots. Skips where this machine cannot make any."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from tests.containers import builder
from tests.containers.hosts import Image
from tests.faults.hosts import lacking


@pytest.fixture(scope="session")
def able() -> None:
    why = builder.lacking() or lacking()
    if why:
        pytest.skip(why)


def _image(target: str) -> Image:
    name = builder.build(target)
    told = json.loads(builder.buildah("inspect", "--type", "image", name))["Docker"]["config"]
    return Image(builder.root_of(name), told["Entrypoint"], dict(one.split("=", 1) for one in told["Env"]))


@pytest.fixture(scope="session")
def demo(able: None) -> Image:
    return _image("demo")


@pytest.fixture(scope="session")
def airflow(able: None) -> Image:
    return _image("airflow")


@pytest.fixture(scope="session")
def store(demo: Image, tmp_path_factory: pytest.TempPathFactory) -> Image:
    """MinIO as it is here, in the root of another image: its own is built by Go, of which Debian has too old a one."""
    binary = os.environ.get("GENODL_MINIO") or shutil.which("minio")
    if binary is None:
        pytest.skip("no minio on PATH nor in GENODL_MINIO")
    folder = tmp_path_factory.mktemp("bin")
    folder.chmod(0o755)  # the service is nobody of this machine
    shutil.copyfile(binary, folder / "minio")
    (folder / "minio").chmod(0o755)
    return Image(demo.root, ["minio"], {"PATH": "/usr/local/bin:/usr/bin:/bin"}, {Path(folder): "/usr/local/bin"})
