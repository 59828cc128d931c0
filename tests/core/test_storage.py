"""Object stores: their clients, names and folders."""

from __future__ import annotations

import io
import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow.fs as pafs
import pytest

from genodl_spark.core import storage


def test_a_client_for_each_endpoint_identity_and_process(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[dict] = []
    monkeypatch.setattr(storage.pafs, "S3FileSystem", lambda **given: made.append(given) or object())
    for name in (*storage._S3_IDENTITY, "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9000")
    storage._s3.cache_clear()
    first, path = storage.filesystem("s3a://bucket/a lake, 100% odd/x")
    assert path == "bucket/a lake, 100% odd/x"
    assert storage.filesystem("s3://other/y")[0] is first and made == [
        {"endpoint_override": "127.0.0.1:9000", "scheme": "http"}
    ]
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "other")
    assert storage.filesystem("s3a://bucket/x")[0] is not first and len(made) == 2
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://127.0.0.1:9001")
    storage.filesystem("s3a://bucket/x")
    assert made[2:] == [{"endpoint_override": "127.0.0.1:9001", "scheme": "https"}]
    context = multiprocessing.get_context("fork")
    with context.Pool(1) as pool:
        assert pool.apply(_clients_after, (len(made),)) == 1
    storage._s3.cache_clear()


def _clients_after(before: int) -> int:
    """Clients that a forked process makes where its parent has one."""
    misses = storage._s3.cache_info().misses
    assert misses == before
    storage.filesystem("s3a://bucket/x")
    return storage._s3.cache_info().misses - misses


def test_a_lake_on_s3_has_one_name() -> None:
    assert [storage.absolute(f"{scheme}://b/a lake/") for scheme in ("s3", "s3a", "s3n")] == ["s3a://b/a lake"] * 3
    assert storage.absolute("hdfs://b/x/") == "hdfs://b/x" and not storage.is_s3("hdfs://b/x")
    assert storage.is_s3("s3://b/x") and not storage.is_s3("/s3/x")


def test_endpoint_and_region(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    assert storage.s3_endpoint() is storage.s3_region() is storage.delta_rs_options("s3a://b/x") is None
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://a:1")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-north-1")
    expected = {"endpoint": "https://a:1", "region": "eu-north-1", "allow_http": "false"}
    assert storage.delta_rs_options("s3a://b/x") == expected and storage.delta_rs_options("/x") is None
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:2")
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    expected = {"endpoint": "http://127.0.0.1:2", "region": "us-east-1", "allow_http": "true"}
    assert storage.delta_rs_options("s3a://b/x") == expected


class _ObjectStore:
    """Takes one object and makes no folder."""

    type_name = "s3"

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}

    @contextmanager
    def open_output_stream(self, path: str, compression: str | None) -> Iterator[io.BytesIO]:
        stream = io.BytesIO()
        yield stream
        self.objects[path] = stream.getvalue()


def test_an_object_is_put_where_it_belongs_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    store = _ObjectStore()
    monkeypatch.setattr(storage, "filesystem", lambda uri: (store, uri.split("://")[1]))
    storage.write_bytes("s3a://b/folder/x", b"content")
    storage.make_directory("s3a://b/other")
    assert store.objects == {"b/folder/x": b"content"}
    storage.make_folder(pafs.LocalFileSystem(), str(tmp_path / "a" / "b"))
    assert (tmp_path / "a" / "b").is_dir()


def test_what_cannot_be_written_whole_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(pafs.LocalFileSystem):
        def move(self, source: str, target: str) -> None:
            raise OSError(28, "No space left on device")

    storage.write_bytes(str(tmp_path / "f"), b"before")
    monkeypatch.setattr(storage, "filesystem", lambda uri: (Full(), uri))
    with pytest.raises(OSError, match="No space left"):
        storage.write_bytes(str(tmp_path / "f"), b"after")
    assert [path.name for path in tmp_path.iterdir()] == ["f"] and (tmp_path / "f").read_bytes() == b"before"
