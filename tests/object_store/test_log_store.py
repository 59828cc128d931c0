"""What ConditionalPutLogStore.java answers, to calls of Delta's own interface."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from py4j.protocol import Py4JJavaError

from genodl_spark.core import storage
from tests.cluster.harness import ROOT
from tests.object_store.java import EXISTS, LogStore, gateway

VERSIONS = 200  # of each of two


@pytest.fixture(scope="module")
def jvm(spark_store: str) -> Iterator[Any]:
    opened = gateway()
    yield opened.jvm
    opened.shutdown()


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


def refused(call: Any, *arguments: Any, **options: Any) -> tuple[str, str]:
    with pytest.raises(Py4JJavaError) as error:
        call(*arguments, **options)
    java = error.value.java_exception
    return java.getClass().getName(), java.getMessage()


def test_an_entry_is_put_once(jvm: Any) -> None:
    log, uri = LogStore(jvm), "s3a://lakes/once/_delta_log/00000000000000000000.json"
    log.write(uri, "first", "é")
    assert refused(log.write, uri, "second") == (EXISTS, uri)
    assert storage.read_bytes(uri) == "first\né\n".encode()
    log.write(uri, "first", "é")  # what stands there is this very entry: its put was answered by silence
    log.write(uri, "second", overwrite=True)
    assert storage.read_bytes(uri) == b"second\n"
    assert storage.files_under("s3a://lakes/once") == [uri]  # of the trial nothing is left
    assert not log.partly_visible(uri)


def test_two_processes_that_write_the_same_versions(spark_store: str) -> None:
    """Each version is one's own: none is missing, none was written twice."""
    log, names = "s3a://lakes/race/_delta_log", ("a", "b")
    command = [sys.executable, str(Path(__file__).with_name("java.py")), log]
    environment = {**os.environ, "PYTHONPATH": "."}
    racers = [
        subprocess.Popen(
            [*command, name, str(VERSIONS)],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in names
    ]
    try:
        for racer in racers:
            assert racer.stdout is not None and racer.stdout.readline() == "ready\n"
        for racer in racers:
            assert racer.stdin is not None
            racer.stdin.write("go\n")
            racer.stdin.flush()
        assert [racer.wait(300) for racer in racers] == [0, 0]
    finally:
        for racer in racers:
            racer.kill()
            racer.wait()
    entries = storage.files_under(log)
    assert entries == [f"{log}/{version:020}.json" for version in range(2 * VERSIONS)]
    written = [storage.read_bytes(uri).decode().strip() for uri in entries]
    assert sorted(written) == sorted(f"{name} {number}" for name in names for number in range(VERSIONS))
    turns = sum(one[0] != another[0] for one, another in itertools.pairwise(written))
    assert turns > 10  # they did meet


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
        LogStore(jvm, endpoint=endpoint).write(uri, "mine")
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
        name, message = refused(LogStore(jvm, endpoint=endpoint).write, uri, "mine")
    assert name == "java.io.IOException"
    assert message.startswith("found that the object store of s3a://heedless puts objects whatever If-None-Match says;")
