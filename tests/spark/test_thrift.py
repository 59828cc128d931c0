"""The Spark Thrift server over the lake's tables, asked through JDBC as a BI tool would."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from genodl_spark.lake import Lake
from genodl_spark.tables import PREDICTIONS
from tests.spark.test_readers import predictions


@pytest.fixture
def server(lake: Lake, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The server's port, on loopback, within the tests' session."""
    jvm: Any = lake.spark._jvm
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mine = {
        "hive.server2.thrift.port": str(port),
        "hive.server2.thrift.bind.host": "127.0.0.1",
        "derby.stream.error.file": str(tmp_path / "derby.log"),
    }
    for name, value in mine.items():
        jvm.java.lang.System.setProperty(name, value)
    running = jvm.org.apache.spark.sql.hive.thriftserver.HiveThriftServer2.startWithContext(lake.spark._jsparkSession.sqlContext())
    yield port
    running.stop()
    for name in mine:
        jvm.java.lang.System.clearProperty(name)


def listening(port: int) -> set[str]:
    """Addresses, as the kernel writes them, that sockets of a port listen on."""
    rows = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
    return {row[1].split(":")[0] for row in rows if row[3] == "0A" and int(row[1].split(":")[1], 16) == port}


def test_predictions_over_jdbc(lake: Lake, server: int) -> None:
    predictions(lake)
    assert all(address.endswith("0100007F") for address in listening(server)) and listening(server)
    jvm: Any = lake.spark._jvm
    jvm.java.lang.Class.forName("org.apache.hive.jdbc.HiveDriver")
    connection = jvm.java.sql.DriverManager.getConnection(f"jdbc:hive2://127.0.0.1:{server}/default", "analyst", "")
    try:
        path = lake.path(PREDICTIONS).replace("`", "``")
        columns = "cohort, entity_id, predicted, probabilities['b c'] AS p, value, in_training, scored_at"
        found = connection.createStatement().executeQuery(f"SELECT {columns} FROM delta.`{path}` WHERE cohort LIKE 'c\\'%' ORDER BY entity_id")
        rows = []
        while found.next():
            rows.append([found.getString(i) for i in range(1, 8)])
    finally:
        connection.close()
    odd = "c'o=h%20 ü"
    assert rows == [
        [odd, "e0", "b c", "0.75", "0.75", "true", "2026-01-02 03:04:05.678901"],
        [odd, "e1", None, None, "-1.5", "false", "2026-01-02 03:04:05.678901"],
    ]
