"""The Thrift server over the lake's views, asked through JDBC as a BI tool would: queries answer,
everything else is refused."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from genodl_spark.lake.delta import Lake
from genodl_spark.lake.tables.learning import PREDICTIONS
from genodl_spark.lake.tables.operations import RUNS
from genodl_spark.pipelines import serve as pipeline
from jobs import serve
from tests.lake.test_readers import predictions

REFUSED = {
    "SELECT * FROM delta.{path}": "found relation delta.`",
    "SELECT value FROM text.`/etc/passwd`": "found relation text.`/etc/passwd`",
    "INSERT INTO predictions SELECT * FROM predictions": "found INSERT INTO",
    "UPDATE predictions SET value = 0": "found UPDATE TABLE",
    "SET spark.sql.variable.substitute = true": "found SET",
    "SET -v": "found SET",
    "ADD JAR '/tmp/x.jar'": "found ADD JARS",
    "SELECT TRANSFORM (cohort) USING 'id' FROM predictions": "found TRANSFORM",
    "SELECT (SELECT reflect('java.lang.System', 'getenv', 'HOME'))": "found function reflect",
    "CREATE TEMPORARY FUNCTION f() RETURNS INT RETURN 1": "found CREATE SQL FUNCTION",
    "SELECT * FROM nowhere": "found relation nowhere",
    "SELECT '": "found [PARSE_SYNTAX_ERROR]",
}


def listening(port: int) -> set[str]:
    """Addresses, as the kernel writes them, that sockets of a port listen on."""
    rows = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
    return {row[1].split(":")[0] for row in rows if row[3] == "0A" and int(row[1].split(":")[1], 16) == port}


class Client:
    """A connection of Hive's JDBC driver."""

    def __init__(self, jvm: Any, url: str) -> None:
        jvm.java.lang.Class.forName("org.apache.hive.jdbc.HiveDriver")
        self.connection = jvm.java.sql.DriverManager.getConnection(url, "analyst", "")

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


def test_serve_answers_queries_and_nothing_else(
    lake: Lake, genodl: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    predictions(lake)
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
    with open(seen["stderr"], "w") as said:
        monkeypatch.setattr("sys.stderr", said)
        thread.start()
        code = serve.main(["--lake", lake.uri, "--port", "0", "--master", "local[2]"])
        thread.join()
    if failed:
        raise failed[0]
    report = json.loads(capsys.readouterr().out.strip().split("\n")[-1])
    assert (code, report["status"]) == (0, "done")
    assert handlers == [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    print({name: round(seen[name], 2) for name in ("connected", "answered", "answered again")})

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
    assert {rows[sql].status for sql in REFUSED if "{" not in sql} == {"failed"}
    assert (
        "found function reflect"
        in json.loads(rows["SELECT (SELECT reflect('java.lang.System', 'getenv', 'HOME'))"].report)["error"]
    )
    assert report["metrics"]["refused"] >= len(REFUSED) and report["metrics"]["answered"] >= 6


def test_a_port_that_is_taken_is_said(lake: Lake, genodl: Any, tmp_path: Path) -> None:
    import socket

    Path(lake.uri.removeprefix("file://")).mkdir(exist_ok=True)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        code, _, line = genodl(serve, "--lake", lake.uri, "--port", str(taken.getsockname()[1]))
    assert code == 2 and line.startswith("genodl: error: --port: found port ")
