"""Jobs on nodes that have Spark and nothing of this project, by conf/spark/standalone.conf as it is:
its Python comes as the archive that `make dist` packs, and who does not know the secret is kept out."""

from __future__ import annotations

import contextlib
import json
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.harness import ROOT, Cluster, cluster, two_classes, worker

pytestmark = pytest.mark.timeout(900)
_SPARK = ROOT / ".venv" / "lib" / "python3.11" / "site-packages" / "pyspark"


@pytest.fixture(scope="module")
def bare_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A worker of two cores whose Spark is as it is handed out: without Delta, and in no venv."""
    subprocess.run(["make", "-s", "dist"], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    (wheel,) = ROOT.glob("dist/*.whl")
    folder = tmp_path_factory.mktemp("bare")
    spark = folder / "spark"
    (spark / "jars").mkdir(parents=True)
    for jar in _SPARK.glob("jars/*.jar"):
        if not jar.name.startswith("delta-"):
            (spark / "jars" / jar.name).write_bytes(jar.read_bytes())
    (spark / "bin").symlink_to(_SPARK / "bin")
    (spark / "python" / "lib").mkdir(parents=True)
    for zipped in _SPARK.glob("python/lib/*.zip"):
        (spark / "python" / "lib" / zipped.name).write_bytes(zipped.read_bytes())
    properties = (ROOT / "conf" / "spark" / "standalone.conf").read_text()
    with cluster(
        folder / "cluster", wheel, workers=1, cores=2, memory="2g", spark_home=spark, properties=properties
    ) as running:
        yield running


@contextlib.contextmanager
def interpreters(running: Cluster) -> Iterator[set[tuple[str, bytes]]]:
    """What the processes of the first worker that have loaded Horovod run, file and command line, as it is seen twice
    a second."""
    found: set[tuple[str, bytes]] = set()
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.5):
            for pid in running.ranks(0):
                with contextlib.suppress(OSError):  # it has just ended
                    process = Path("/proc", str(pid))
                    found.add((str((process / "exe").readlink()), (process / "cmdline").read_bytes()))

    watch = threading.Thread(target=look)
    watch.start()
    try:
        yield found
    finally:
        over.set()
        watch.join()


def test_a_node_runs_the_python_of_the_archive_and_nothing_else(bare_node: Cluster, tmp_path: Path) -> None:
    with interpreters(bare_node) as started:
        done = bare_node.submit_file(
            Path(__file__).with_name("verbs.py"),
            *map(str, two_classes(tmp_path)),
            str(tmp_path / "lake"),
            conf={"spark.executor.cores": "2", "spark.cores.max": "2"},
            timeout=600,
        )
    assert done.code == 0, done.stdout + done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    node = bare_node.work[0]
    ranks = {path for path, command in started if b"horovod.spark.task.gloo_exec_fn" in command}
    assert ranks and {path for path in ranks if not path.startswith(f"{node}/")} == set()
    for task in found["tasks"]:
        assert task["python"].startswith(f"{node}/") and task["python"].endswith("/environment/bin/python")
        # Spark's own modules and the archive; of the machine, what glibc is made of
        strange = [path for path in task["files"] if not path.startswith((f"{node}/", f"{node.parents[1]}/spark/"))]
        assert [path for path in strange if "/.venv/" in path or "python" in path or "/lib/" not in path] == []
        assert any(path.endswith("/environment/lib/libstdc++.so.6") for path in task["files"])
    assert len(found["tasks"]) == 2
    assert found["encrypted"] == ["true", "true"]
    assert found["ingest"]["rows"]["expression"] == {"written": 40, "total": 40, "quarantined": 0}
    assert found["train"]["status"] == "done" and found["train"]["rows"]["models"]["written"] == 1
    assert found["predict"]["rows"]["predictions"] == {"written": 40, "total": 40, "quarantined": 0}


def test_a_worker_without_the_secret_is_refused(bare_node: Cluster, tmp_path: Path) -> None:
    own = tmp_path / "own.conf"
    own.write_text("spark.authenticate true\nspark.authenticate.secret guessed\nspark.network.crypto.enabled true\n")
    with contextlib.ExitStack() as strangers:
        strangers.enter_context(worker(tmp_path / "none", bare_node, []))
        strangers.enter_context(worker(tmp_path / "guessed", bare_node, ["--properties-file", str(own)]))
        # They have had their time once one that knows it, and asks after them, is there.
        with worker(tmp_path / "known", bare_node, ["--properties-file", str(bare_node.secret)]):
            deadline = time.monotonic() + 60
            while bare_node.state()["aliveworkers"] < 2:
                assert time.monotonic() < deadline
                time.sleep(0.5)
            time.sleep(10)
            assert bare_node.state()["aliveworkers"] == 2
