"""What ConditionalPutLogStore.java answers, to calls of Delta's own interface."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from py4j.protocol import Py4JJavaError

from genodl_spark.core import session, storage
from genodl_spark.core.errors import InputError
from genodl_spark.job import config
from genodl_spark.lake.delta import Lake


@pytest.fixture(scope="module")
def jvm(spark_store: str) -> Iterator[Any]:
    spark = session.build("log store", config.load().spark, "local[1]")
    yield spark._jvm
    session.stop()


@contextmanager
def served(answer: Any) -> Iterator[str]:
    """An HTTP server on loopback; `answer` takes the handler of each request, its body, and is its reply."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do(self) -> None:
            answer(self, self.rfile.read(int(self.headers.get("Content-Length", 0))))

        do_GET = do_PUT = do_DELETE = do_HEAD = do_POST = do

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def log_store(jvm: Any, endpoint: str | None = None) -> tuple[Any, Any]:
    """A store, and the configuration that it is called with."""
    configuration = jvm.org.apache.hadoop.conf.Configuration(
        jvm.org.apache.spark.sql.SparkSession.active().sparkContext().hadoopConfiguration()
    )
    if endpoint is not None:
        configuration.set("fs.s3a.endpoint", endpoint)
        configuration.set("fs.s3a.impl.disable.cache", "true")
    return jvm.genodl.ConditionalPutLogStore(configuration), configuration


def write(jvm: Any, to: tuple[Any, Any], uri: str, *lines: str, overwrite: bool = False) -> None:
    actions = jvm.java.util.ArrayList()
    for line in lines:
        actions.add(line)
    to[0].write(jvm.org.apache.hadoop.fs.Path(uri), actions.iterator(), overwrite, to[1])


def refused(call: Any, *arguments: Any, **options: Any) -> tuple[str, str]:
    with pytest.raises(Py4JJavaError) as error:
        call(*arguments, **options)
    java = error.value.java_exception
    return java.getClass().getName(), java.getMessage()


def test_an_entry_is_put_once(jvm: Any) -> None:
    to, uri = log_store(jvm), "s3a://lakes/once/_delta_log/00000000000000000000.json"
    write(jvm, to, uri, "first", "é")
    assert refused(write, jvm, to, uri, "second") == ("java.nio.file.FileAlreadyExistsException", uri)
    assert storage.read_bytes(uri) == "first\né\n".encode()
    write(jvm, to, uri, "first", "é")  # what stands there is this very entry: its put was answered by silence
    write(jvm, to, uri, "second", overwrite=True)
    assert storage.read_bytes(uri) == b"second\n"
    assert storage.files_under("s3a://lakes/once") == [uri]  # of the trial nothing is left
    assert to[0].isPartialWriteVisible(jvm.org.apache.hadoop.fs.Path(uri), to[1]) is False


def test_an_answer_that_is_lost(jvm: Any, store: str) -> None:
    """The put is done, its answer never comes: tried again, the entry that is found is known for one's own."""
    seen: list[tuple[str, int]] = []

    def relay(request: Any, body: bytes) -> None:
        back = HTTPConnection(store.removeprefix("http://"))
        back.putrequest(request.command, request.path, skip_host=True, skip_accept_encoding=True)
        for name, value in request.headers.items():
            back.putheader(name, value)
        back.endheaders(body)
        answer = back.getresponse()
        content = answer.read()
        if request.command == "PUT" and request.path.endswith(".json"):
            seen.append((request.headers["If-None-Match"], answer.status))
            if len(seen) == 1:
                request.close_connection = True
                return
        request.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                request.send_header(name, value)
        length = answer.getheader("Content-Length") if request.command == "HEAD" else str(len(content))
        request.send_header("Content-Length", length or "0")
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(content)

    uri = "s3a://lakes/lost/_delta_log/00000000000000000000.json"
    with served(relay) as endpoint:
        write(jvm, log_store(jvm, endpoint), uri, "mine")
    assert seen == [("*", 200), ("*", 412)]
    assert storage.read_bytes(uri) == b"mine\n"


def test_a_store_that_knows_no_conditions_is_refused(jvm: Any) -> None:
    def obey(request: Any, _: bytes) -> None:
        request.send_response(204 if request.command == "DELETE" else 200)
        request.send_header("ETag", '"0"')
        request.send_header("Content-Length", "0")
        request.end_headers()

    uri = "s3a://heedless/t/_delta_log/00000000000000000000.json"
    with served(obey) as endpoint:
        name, message = refused(write, jvm, log_store(jvm, endpoint), uri, "mine")
    assert name == "java.io.IOException"
    assert message.startswith("found that the object store of s3a://heedless puts objects whatever If-None-Match says;")


def test_another_log_store_is_refused(jvm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from pyspark.sql import SparkSession

    monkeypatch.setattr(session, "S3_LOG_STORE", "io.delta.storage.S3SingleDriverLogStore")
    with pytest.raises(InputError, match="does not commit to S3 by conditional puts"):
        Lake(SparkSession.active(), "s3://lakes/x")
