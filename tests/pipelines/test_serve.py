"""The Thrift server over the lake's views, asked through JDBC as a BI tool would: who has a password is let in,
queries answer, everything else is refused."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import tarfile
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from genodl_spark.core import passwords as core_passwords
from genodl_spark.core import storage
from genodl_spark.job import config
from genodl_spark.job.run import Report, Run
from genodl_spark.lake.delta import Lake
from genodl_spark.lake.tables.learning import PREDICTIONS
from genodl_spark.lake.tables.operations import RUNS
from genodl_spark.pipelines import serve as pipeline
from genodl_spark.pipelines.serve import Asked, Door, Logins, server
from jobs import query, serve
from tests.frozen.make import LAKE
from tests.lake.test_readers import predictions

REFUSED = {
    "SELECT * FROM delta.{path}": "found relation delta.`",
    "SELECT value FROM text.`/etc/passwd`": "found relation text.`/etc/passwd`",
    "INSERT INTO predictions SELECT * FROM predictions": "found INSERT INTO",
    "DROP TABLE predictions": "found DROP TABLE",
    "DROP VIEW predictions_latest": "found DROP VIEW",
    "UPDATE predictions SET value = 0": "found UPDATE TABLE",
    "SET spark.sql.variable.substitute = true": "found SET",
    "SET -v": "found SET",
    "ADD JAR '/tmp/x.jar'": "found ADD JARS",
    "SELECT TRANSFORM (cohort) USING 'id' FROM predictions": "found TRANSFORM",
    "SELECT (SELECT reflect('java.lang.System', 'getenv', 'HOME'))": "found function reflect",
    "SELECT java_method('java.lang.Runtime', 'getRuntime')": "found function java_method",
    "SELECT * FROM read_files('/etc/passwd')": "found table function read_files",
    "CREATE TEMPORARY FUNCTION f() RETURNS INT RETURN 1": "found CREATE SQL FUNCTION",
    "SELECT * FROM nowhere": "found relation nowhere",
    "SELECT '": "found [PARSE_SYNTAX_ERROR]",
}


KEYSTORE = "pl4nted-keystore"
NAME, PASSWORD = "ana.b-1", "pl4nted pässwörd: 4711"


def write_password(path: Path, monkeypatch: pytest.MonkeyPatch, name: str = NAME, password: str = PASSWORD) -> int:
    monkeypatch.setattr("sys.stdin", io.StringIO(password + "\n"))
    return serve.main(["--passwords", str(path), "--set-password", name])


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hashes that take no quarter of a second each."""
    monkeypatch.setattr(core_passwords, "_COST", 4)


def login(port: int, message: bytes, certificate: Path | None = None) -> bool:
    """Whether SASL PLAIN takes a message, as Thrift frames it: byte of status, length, bytes."""
    made = socket.create_connection(("127.0.0.1", port), timeout=60)
    if certificate is not None:
        context = ssl.create_default_context(cafile=str(certificate))
        made = context.wrap_socket(made, server_hostname="127.0.0.1")
    with contextlib.suppress(ConnectionError), made:
        for status, content in ((1, b"PLAIN"), (5, message)):
            made.sendall(struct.pack(">bI", status, len(content)) + content)
        return made.recv(1) == b"\x05"
    return False


def listening(port: int) -> set[str]:
    """Addresses, as the kernel writes them, that sockets of a port listen on."""
    rows = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
    return {row[1].split(":")[0] for row in rows if row[3] == "0A" and int(row[1].split(":")[1], 16) == port}


class Client:
    """A connection of Hive's JDBC driver."""

    def __init__(self, jvm: Any, url: str, name: str = NAME, password: str = PASSWORD) -> None:
        jvm.java.lang.Class.forName("org.apache.hive.jdbc.HiveDriver")
        self.connection = jvm.java.sql.DriverManager.getConnection(url, name, password)

    def rows(self, sql: str) -> list[list[str | None]]:
        return self.all(self.connection.createStatement().executeQuery(sql))

    @staticmethod
    def all(found: Any) -> list[list[str | None]]:
        rows = []
        while found.next():
            rows.append([found.getString(i + 1) for i in range(found.getMetaData().getColumnCount())])
        return rows

    def refusal(self, sql: str) -> str:
        with pytest.raises(Exception, match=r"java\.sql\.SQLException|HiveSQLException") as raised:
            self.rows(sql)
        return str(raised.value)


# SASL PLAIN: a name to act for, the name, the password
LOGINS = {
    f"\0{NAME}\0{PASSWORD}".encode(): True,
    f"bob\0{NAME}\0{PASSWORD}".encode(): True,  # and asks as who has the password
    f"\0bob\0{PASSWORD}".encode(): True,
    f"\0{NAME}\0{PASSWORD} ".encode(): False,
    f"\0{NAME}\0".encode(): False,
    f"\0{PASSWORD}\0{PASSWORD}".encode(): False,
    f"\0eve\0{PASSWORD}".encode(): False,
    f"{NAME}\0\0{PASSWORD}".encode(): False,
    b"": False,
}


def test_serve_answers_queries_and_nothing_else(
    lake: Lake,
    genodl: Any,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    predictions(lake)
    passwords = tmp_path / "passwords"
    assert [write_password(passwords, monkeypatch, name) for name in ("bob", NAME)] == [0, 0]
    monkeypatch.setattr(pipeline, "_KEPT_WITHIN", 0.5)
    jvm: Any = lake.spark._jvm
    lake.append(RUNS, lake.spark.createDataFrame([], RUNS.spark_schema()))
    before = lake.version(PREDICTIONS)
    secret = "GENODL_" + "TEST_SECRET"
    failed: list[BaseException] = []
    seen: dict[str, Any] = {}

    def clients() -> None:
        try:
            deadline, said = time.monotonic() + 120, ""
            while "jdbc:" not in said and time.monotonic() < deadline:
                said += Path(seen["stderr"]).read_text()
                time.sleep(0.1)
            url = re.search(r"jdbc:hive2://127\.0\.0\.1:(\d+)/default", said)
            assert url is not None, said
            addresses = listening(int(url.group(1)))
            assert addresses and all(address.endswith("0100007F") for address in addresses)
            seen["logins"] = {message: login(int(url.group(1)), message) for message in LOGINS}
            for given in (PASSWORD[1:], ""):
                with pytest.raises(Exception, match="Could not open client transport"):
                    Client(jvm, url.group(), password=given)
            with pytest.raises(Exception, match="Proxy user substitution is not allowed"):
                Client(jvm, f"{url.group()};hive.server2.proxy.user=bob")
            began = time.monotonic()
            client = Client(jvm, url.group())
            seen["connected"], began = time.monotonic() - began, time.monotonic()
            columns = "cohort, entity_id, predicted, probabilities['b c'] AS p, value, in_training, scored_at"
            seen["rows"] = client.rows(
                f"SELECT {columns} FROM predictions_latest WHERE cohort LIKE 'c\\'%' ORDER BY entity_id"
            )
            seen["answered"], began = time.monotonic() - began, time.monotonic()
            seen["again"] = client.rows(
                "WITH a AS (SELECT count(*) AS n FROM predictions) SELECT n, (SELECT max(value) "
                "FROM predictions) FROM a"
            )
            seen["answered again"] = time.monotonic() - began
            seen["environment"] = client.rows(f"SELECT '${{env:{secret}}}' AS s")
            seen["function"] = client.rows("SELECT allele_counts(CAST(NULL AS BINARY), 1) AS c")
            listed = client.all(client.connection.getMetaData().getTables(None, None, "predictions%", None))
            seen["listed"] = sorted(str(row[2]) for row in listed)
            # Rows that come later are seen by the next statement.
            lake.delete(PREDICTIONS, {"entity_id": "e1"})
            seen["later"] = client.rows("SELECT count(*) AS n FROM predictions")
            path = "`" + lake.path(PREDICTIONS).replace("`", "``") + "`"
            seen["refused"] = {sql: client.refusal(sql.format(path=path)) for sql in REFUSED}
            seen["after"] = client.rows("SELECT 1 AS one")
            client.connection.close()
            other = Client(jvm, f"{url.group()}?spark.sql.variable.substitute=true")
            seen["settings"] = other.refusal(f"SELECT '${{env:{secret}}}' AS s")
            other.connection.close()
            # Who is taken out of the file is refused from then on, by threads that have run statements, too.
            lines = passwords.read_text().splitlines(keepends=True)
            passwords.write_text("".join(line for line in lines if not line.startswith("bob:")))
            seen["bob"] = login(int(url.group(1)), f"\0bob\0{PASSWORD}".encode())
            passwords.chmod(0o644)
            seen["readable by others"] = login(int(url.group(1)), f"\0{NAME}\0{PASSWORD}".encode())
            passwords.chmod(0o600)
            # A judgement that fails for another reason is no permission.
            with monkeypatch.context() as patched:
                patched.setattr("genodl_spark.lake.statements.judged", lambda *_: 1 / 0)
                broken = Client(jvm, url.group())
                seen["broken"] = broken.refusal("SELECT 1")
                broken.connection.close()
        except BaseException as error:
            failed.append(error)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setenv(secret, "secret")
    seen["stderr"] = lake.path(PREDICTIONS).removeprefix("file://") + "/../stderr"
    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    thread = threading.Thread(target=clients)
    local = ("--master", "local[2]")
    with open(seen["stderr"], "w") as said:
        monkeypatch.setattr("sys.stderr", said)
        thread.start()
        code = serve.main(["--lake", lake.uri, "--port", "0", "--passwords", str(passwords), *local])
        thread.join()
    if failed:
        raise failed[0]
    out = capsys.readouterr()
    report = json.loads(out.out.strip().split("\n")[-1])
    assert (code, report["status"]) == (0, "done")
    assert handlers == [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    print({name: round(seen[name], 2) for name in ("connected", "answered", "answered again")})

    assert seen["logins"] == LOGINS
    assert (seen["bob"], seen["readable by others"]) == (False, False)
    said_at_last = Path(seen["stderr"]).read_text()
    # Of those that were refused, one message was none and two had no password: the server asks nobody about these.
    assert report["metrics"]["refused_logins"] == 7
    told = [record.getMessage() for record in caplog.records]
    assert told.count(f"refused a login as {NAME}") == 3
    assert told.count("refused a login as a name that is not in the file of passwords") == 3
    assert any(f"{passwords}: found a file of user {os.geteuid()} with mode 644" in line for line in told)

    odd = "c'o=h%20 ü"
    assert seen["rows"] == [
        [odd, "e0", "b c", "0.75", "0.75", "true", "2026-01-02 03:04:05.678901"],
        [odd, "e1", None, None, "-1.5", "false", "2026-01-02 03:04:05.678901"],
    ]
    assert (seen["again"], seen["later"], seen["after"]) == ([["3", "0.75"]], [["2"]], [["1"]])
    assert seen["environment"] == [[f"${{env:{secret}}}"]]
    assert seen["function"] == [[None]]
    assert seen["listed"] == ["predictions", "predictions_compared", "predictions_latest"]
    for sql, found in REFUSED.items():
        assert found in seen["refused"][sql], (sql, seen["refused"][sql][:500])
    assert re.search(
        r"found settings that came with the connection \(.*spark\.sql\.variable\.substitute.*\); expected none",
        seen["settings"],
    )
    assert "'secret'" not in seen["settings"]
    assert "could not be judged" in seen["broken"]
    assert lake.version(PREDICTIONS) == before + 1

    rows = {json.loads(r.arguments)[0]: r for r in lake.read(RUNS).where("job = 'serve'").collect()}
    assert rows["SELECT count(*) AS n FROM predictions"].status == "done"
    assert json.loads(rows["SELECT count(*) AS n FROM predictions"].arguments)[1:] == ["--user", NAME]
    hidden = [PASSWORD, PASSWORD[1:], *(line.rpartition("$")[2] for line in passwords.read_text().split())]
    stored = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and path != passwords)
    for text in hidden:
        assert text not in said_at_last + caplog.text + out.out + out.err + str(rows) and text.encode() not in stored
    assert {rows[sql].status for sql in REFUSED if "{" not in sql} == {"failed"}
    assert (
        "found function reflect"
        in json.loads(rows["SELECT (SELECT reflect('java.lang.System', 'getenv', 'HOME'))"].report)["error"]
    )
    assert report["metrics"]["refused"] >= len(REFUSED) and report["metrics"]["answered"] >= 6


def test_what_is_refused_before_a_server_starts(
    lake: Lake, genodl: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, keystore: Path
) -> None:
    Path(lake.uri.removeprefix("file://")).mkdir(exist_ok=True)
    passwords = tmp_path / "passwords"
    assert write_password(passwords, monkeypatch) == 0
    secret = tmp_path / "keystore password"
    secret.write_text(KEYSTORE + "\n")
    secret.chmod(0o600)
    wrong = tmp_path / "wrong password"
    wrong.write_text("wrong\n")
    wrong.chmod(0o600)
    all_can_read = tmp_path / "readable"
    all_can_read.write_text(passwords.read_text())
    all_can_read.chmod(0o640)
    anywhere = ("--host", "0.0.0.0")
    for given, found in (
        (anywhere, "--host: found 0.0.0.0, which other machines reach, without --passwords and --keystore; expected"),
        (
            (*anywhere, "--passwords", passwords),
            "--host: found 0.0.0.0, which other machines reach, without --keystore;",
        ),
        (
            (*anywhere, "--keystore", keystore, "--keystore-password", secret),
            "--host: found 0.0.0.0, which other machines reach, without --passwords;",
        ),
        (
            ("--host", "203.0.113.7", "--passwords", passwords, "--keystore", keystore, "--keystore-password", secret),
            "--port: found port 0 of 203.0.113.7 taken or not to be had",
        ),
        (("--host", "no.such.invalid"), "--host: found no.such.invalid ("),
        (("--passwords", all_can_read), f"{all_can_read}: found a file of user {os.geteuid()} with mode 640; expected"),
        (("--keystore", keystore), "--keystore: found no password of the keystore; expected it in the environment"),
        (("--keystore", keystore, "--keystore-password", wrong), f"{keystore}: found keystore password was incorrect;"),
        (("--keystore", passwords, "--keystore-password", secret), f"{passwords}: found "),
        (("--set-password", "x"), "--set-password: found no --passwords;"),
    ):
        code, _, line = genodl(serve, "--lake", lake.uri, "--port", "0", *map(str, given))
        assert code == 2 and line.startswith(f"genodl: error: {found}"), line
        assert KEYSTORE not in line
    code, _, line = genodl(serve)
    assert (
        code == 2
        and line == "genodl: error: arguments: the following arguments are required: --lake; see genodl serve --help"
    )


def test_a_port_that_is_taken_is_said(lake: Lake, genodl: Any, tmp_path: Path) -> None:
    Path(lake.uri.removeprefix("file://")).mkdir(exist_ok=True)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        code, _, line = genodl(serve, "--lake", lake.uri, "--port", str(taken.getsockname()[1]))
    assert code == 2 and line.startswith("genodl: error: --port: found port ")


@pytest.fixture
def keystore(tmp_path: Path) -> Path:
    """A certificate for 127.0.0.1, `certificate.pem`, and its key, as a keystore of password KEYSTORE."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl here, which makes certificates")
    names = ("-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1")
    made = ("-keyout", "key.pem", "-out", "certificate.pem", "-days", "2")
    for command in (
        ("req", "-x509", "-newkey", "rsa:2048", "-nodes", *made, *names),
        ("pkcs12", "-export", "-inkey", "key.pem", "-in", "certificate.pem", "-out", "keystore", "-passout", "stdin"),
    ):
        subprocess.run(["openssl", *command], cwd=tmp_path, input=KEYSTORE, text=True, check=True, capture_output=True)
    return tmp_path / "keystore"


def trusting(jvm: Any, certificate: Path) -> Path:
    """A keystore of Java that trusts a certificate."""
    path, none = certificate.with_name("trusted"), jvm.org.apache.hadoop.conf.Configuration(False)
    none.set("password", KEYSTORE)
    store = jvm.java.security.KeyStore.getInstance("PKCS12")
    store.load(None, none.getPassword("password"))
    kind = jvm.java.security.cert.CertificateFactory.getInstance("X.509")
    store.setCertificateEntry("one", kind.generateCertificate(jvm.java.io.FileInputStream(str(certificate))))
    written = jvm.java.io.FileOutputStream(str(path))
    store.store(written, none.getPassword("password"))
    written.close()
    return path


def test_models_and_typed_views_over_tls(
    lake: Lake, genodl: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, keystore: Path
) -> None:
    """A model of the frozen lake as a function gives the scores that stand in `predictions` and its view."""
    with tarfile.open(LAKE) as archive:
        archive.extractall(tmp_path / "frozen", filter="data")
    (tmp_path / "frozen" / "lake").rename(storage.local_path(lake.uri))
    for table in lake.existing():
        lake.upgrade(table)
    assert write_password(tmp_path / "passwords", monkeypatch) == 0
    monkeypatch.setenv(pipeline.KEYSTORE_PASSWORD, KEYSTORE)
    sql = (
        "SELECT p.entity_id, p.predicted, t.value, t.probability_1, genodl_predict('binding', s.codes).value "
        "FROM predictions_latest p JOIN predictions_binding t USING (entity_id) "
        "JOIN sequences s ON s.sequence_id = p.entity_id WHERE p.task = 'binding' ORDER BY 1 LIMIT 3"
    )
    door, certificate = (
        Door.of(0, "127.0.0.1", str(tmp_path / "passwords"), str(keystore)),
        tmp_path / "certificate.pem",
    )
    run, jvm = Run(Report("serve"), config.load(), lake.uri, "local[2]"), lake.spark._jvm
    assert door.names is not None and jvm is not None
    with server(run, Asked(run), door, Logins(door.names)):
        message = f"\0{NAME}\0{PASSWORD}".encode()
        assert [login(door.port, message, certificate), login(door.port, message)] == [True, False]
        client = Client(jvm, f"{door.url};sslTrustStore={trusting(jvm, certificate)};trustStorePassword={KEYSTORE}")
        found = client.rows(sql)
        client.connection.close()
        assert KEYSTORE not in str(jvm.java.lang.System.getProperties())
    assert [row[0] for row in found] == ["bound-000", "bound-001", "bound-002"]
    for _, predicted, value, positive, scored in found:
        assert value is not None and positive is not None and scored is not None
        assert float(value) == pytest.approx(float(positive) if predicted == "1" else 1 - float(positive), abs=1e-9)
        assert float(scored) == pytest.approx(float(value), rel=1e-6)
    for refused, what in REFUSED.items():
        if "{" not in refused and not refused.startswith("SET -v"):
            code, _, line = genodl(query, refused, "--lake", lake.uri)
            assert code == 2 and what in line, line
