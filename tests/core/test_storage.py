"""Clients of object stores."""

from __future__ import annotations

import multiprocessing

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
