"""A MinIO of our own on loopback for all tests of this folder, which skip where there is none."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pyarrow.fs as pafs
import pytest

from tests.cluster.harness import ROOT

_START_SECONDS = 60
BUCKET = "lakes"


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of an object store with an empty bucket; the environment names it and has its credentials."""
    binary = os.environ.get("GENODL_MINIO") or shutil.which("minio")
    if binary is None:
        pytest.skip("no minio on PATH nor in GENODL_MINIO")
    folder = tmp_path_factory.mktemp("minio")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    user, password = f"u{secrets.token_hex(8)}", secrets.token_hex(20)
    url = f"http://127.0.0.1:{port}"
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [binary, "server", str(folder / "data"), "--address", f"127.0.0.1:{port}", "--console-address=127.0.0.1:0"],
            env={**os.environ, "MINIO_ROOT_USER": user, "MINIO_ROOT_PASSWORD": password, "MINIO_BROWSER": "off"},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    patch = pytest.MonkeyPatch()
    try:
        _wait(url, process, folder / "log")
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL"):
            patch.delenv(name, raising=False)
        patch.setenv("AWS_ENDPOINT_URL_S3", url)
        patch.setenv("AWS_ACCESS_KEY_ID", user)
        patch.setenv("AWS_SECRET_ACCESS_KEY", password)
        patch.setenv("AWS_REGION", "us-east-1")
        made = pafs.S3FileSystem(
            endpoint_override=url.removeprefix("http://"), scheme="http", allow_bucket_creation=True
        )
        made.create_dir(BUCKET)
        yield url
    finally:
        patch.undo()
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="session")
def spark_store(store: str) -> str:
    """The same, for tests in which Spark writes there."""
    if not list((ROOT / ".venv").glob("lib/*/site-packages/pyspark/jars/genodl-s3.jar")):
        pytest.skip("Spark has no way to S3: make object-store")
    return store


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(urllib.error.URLError, OSError):
            urllib.request.urlopen(f"{url}/minio/health/ready", timeout=5).close()
            return
        time.sleep(0.1)
    raise AssertionError(f"minio did not start: {log.read_text()[-2000:]}")
