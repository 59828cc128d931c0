"""docker/Dockerfile, docker/compose.yaml and what goes with them, as far as it can be held without a container."""

from __future__ import annotations

import fnmatch
import http.server
import os
import re
import shlex
import shutil
import subprocess
import threading
import tomllib
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from genodl_spark.job import config
from tests.cluster.harness import ROOT
from tests.containers import compose
from tests.docs.test_pages import parsed
from tests.job.test_cluster_conf import wrong

_SECRET = re.compile(r"PASSWORD|SECRET|USER|KEY|TOKEN")
_VALUES = dict.fromkeys(compose.secrets(compose.FILE.read_text()), "x" * 20)

# The Compose specification (2026-06) condensed to the fields that the file here uses; as SparkApplication beside it is.
_CHECK = {"test": [str], "disable": bool, "retries": int, **dict.fromkeys(["interval", "timeout", "start_period"], str)}
_COMPOSE = {
    "name": str,
    "services!": {
        "*": {
            "build!": {"context!": str, "dockerfile!": str, "target!": str},
            "depends_on": {"*": {"condition!": {"service_healthy", "service_completed_successfully"}}},
            "environment": {"*": str},
            "healthcheck": _CHECK,
            "restart!": {"no", "unless-stopped", "on-failure:3"},
            **dict.fromkeys(["image!", "user!", "hostname"], str),
            **{key: [str] for key in ["command!", "cap_drop!", "security_opt!", "ports", "profiles", "volumes"]},
        }
    },
    "volumes!": {"*": type(None)},
}


def once(service: dict[str, Any]) -> bool:
    """Whether it ends when its work is done."""
    return service["restart"] in ("no", "on-failure:3")


def wrong_services(document: dict[str, Any]) -> list[str]:
    """What of a compose file opens a door, or would never come up."""
    found = []
    services = document["services"]
    for name, one in services.items():
        if str(one.get("user", "root")).split(":")[0] in ("0", "root"):
            found.append(f"{name}: runs as root")
        if one.get("privileged") or one.get("cap_drop") != ["ALL"] or one.get("network_mode"):
            found.append(f"{name}: has more rights than it needs")
        found += [
            f"{name}: port {port} is open to others" for port in one.get("ports", []) if port[:10] != "127.0.0.1:"
        ]
        check = one.get("healthcheck", {})
        if not once(one) and not check.get("test"):
            found.append(f"{name}: no health check")
        elif check.get("test"):
            port = check["test"][2]
            if not any(port in str(word) for word in one["command"]) and name != "airflow":
                found.append(f"{name}: its health check asks port {port}, its command names another")
        for variable, value in one.get("environment", {}).items():
            if _SECRET.search(variable) and not re.fullmatch(r"\$\{\w+:\?[^}]+\}", value):
                found.append(f"{name}: {variable} is not asked of the environment")
        for other, wanted in one.get("depends_on", {}).items():
            kind = (
                "service_completed_successfully" if other in services and once(services[other]) else "service_healthy"
            )
            if other not in services or wanted["condition"] != kind:
                found.append(f"{name}: waits for {other} to be {wanted['condition']}")
        waiting = [
            other for other in services.values() if name in other.get("depends_on", {}) and "profiles" not in other
        ]
        if once(one) and "profiles" not in one and not waiting:
            found.append(f"{name}: ends, and nothing waits for that: compose up --wait takes it for a failure")
        found += [f"{name}: no volume {it}" for it in compose.volumes(one) if it not in document["volumes"]]
    return found


def spark_submit(command: list[str]) -> tuple[str, list[str]] | None:
    """Verb and arguments of a job that is sent to the cluster."""
    at = next((i for i, word in enumerate(command) if re.fullmatch(r"/opt/genodl/jobs/\w+\.py", word)), None)
    return None if at is None else (PurePosixPath(command[at]).stem, command[at + 1 :])


def ignored(path: str) -> bool:
    """Whether .dockerignore keeps a file from the builder: its last pattern that fits decides."""
    out = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.lstrip("!").rstrip("/")
        if not pattern or pattern.startswith("#"):
            continue
        parts = PurePosixPath(path).parts
        whole = ["/".join(parts[:n]) for n in range(1, len(parts) + 1)]
        if any(fnmatch.fnmatchcase(one, pattern) or fnmatch.fnmatchcase(f"/{one}", pattern) for one in whole):
            out = not line.startswith("!")
    return out


def test_services_are_closed_and_come_up() -> None:
    document = compose.document()
    assert wrong({name: one for name, one in document.items() if not name.startswith("x-")}, _COMPOSE) == []
    assert wrong_services(document) == []
    assert {"master", "worker-1", "worker-2", "store", "mlflow", "airflow", "sql", "demo"} <= set(document["services"])


def test_what_is_open_or_never_comes_up_is_found() -> None:
    text = compose.FILE.read_text()
    for old, new, told in (
        ('user: "185:185"', 'user: "0"', "master: runs as root"),
        ("cap_drop: [ALL]", "privileged: true", "master: has more rights than it needs"),
        ('"127.0.0.1:5000:5000"', '"5000:5000"', "mlflow: port 5000:5000 is open to others"),
        (
            'healthcheck:\n      <<: *quick\n      test: [CMD, /opt/genodl/docker/healthy.sh, "8080',
            'x:\n      a: ["',
            "master: no h",
        ),
        ('healthy.sh, "5000", /health]', 'healthy.sh, "5001", /health]', "mlflow: its health check asks port 5001"),
        ('"${GENODL_SQL_PASSWORD:?has no value; run docker/secrets.sh}"', "sesame", "sql: GENODL_SQL_PASSWORD is not"),
        ("store: {condition: service_healthy}", "store: {condition: service_started}", "bucket: waits for store"),
        (
            "cohort: {condition: service_completed_successfully}",
            "mlflow: {condition: service_healthy}",
            "cohort: ends, and",
        ),
        ("volumes:\n  objects:\n  mlflow:\n", "volumes:\n  objects:\n", "mlflow: no volume mlflow"),
    ):
        assert old in text, old
        found = wrong_services(compose.document(text.replace(old, new)))
        assert any(one.startswith(told) for one in found), (old, found)


def test_nothing_starts_without_secrets() -> None:
    assert len(compose.services(_VALUES)) == len(compose.document()["services"])
    for name in _VALUES:
        with pytest.raises(compose.Refused, match=name):
            compose.services({**_VALUES, name: ""})


def test_secrets_are_made_once(tmp_path: Path) -> None:
    for name in ("secrets.sh", "compose.yaml"):
        shutil.copy(ROOT / "docker" / name, tmp_path)
    given = {"PATH": os.environ["PATH"], "GENODL_SQL_PASSWORD": "of the environment"}
    subprocess.run([tmp_path / "secrets.sh"], env=given, check=True)
    made = (tmp_path / ".env").read_text()
    values = dict(line.split("=") for line in made.splitlines())
    assert values.keys() == _VALUES.keys() - given.keys() and len(set(values.values())) == len(values)
    assert all(re.fullmatch("[0-9a-f]{48}", value) for value in values.values())
    assert (tmp_path / ".env").stat().st_mode & 0o777 == 0o600
    subprocess.run([tmp_path / "secrets.sh"], env=given, check=True)
    assert (tmp_path / ".env").read_text() == made


def test_health_checks_tell_what_answers() -> None:
    class Answers(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/health" else 503)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    def code(*words: str) -> int:
        return subprocess.run([ROOT / "docker/healthy.sh", *words], capture_output=True, check=False).returncode

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        port = str(server.server_port)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        assert [code(port), code(port, "/health"), code(port, "/broken")] == [0, 0, 1]
        server.shutdown()
    assert [code(port), code(port, "/health")] == [1, 1]


def test_commands_are_those_that_verbs_and_settings_take() -> None:
    sent = {name: job for name, one in compose.services(_VALUES).items() if (job := spark_submit(one["command"]))}
    assert {verb for verb, _ in sent.values()} == {"ingest", "demo"}
    for verb, arguments in sent.values():
        config.load(None, None, parsed(verb, arguments).set)
    served = next(line for line in (ROOT / "docker/sql.sh").read_text().splitlines() if line.startswith("exec genodl"))
    options = compose.services(_VALUES)["sql"]["command"][2:]
    assert parsed("serve", [*shlex.split(served)[3:-1], *options]).host == "0.0.0.0"
    example = tomllib.loads((ROOT / "conf/airflow/nightly.toml").read_text())
    for path in (ROOT / "conf/airflow/containers").glob("*.toml"):
        chain = tomllib.loads(path.read_text())
        assert chain["airflow"].keys() == example["airflow"].keys(), path
        assert spark_submit([chain["airflow"]["command"][-1].format(verb="ingest")]) == ("ingest", [])
        for step in chain["steps"]:
            parsed(step["verb"], [*step.get("arguments", []), "--lake", chain["lake"]])


def test_files_of_images_are_there_and_reach_the_builder() -> None:
    stages = compose.stages()
    for instruction, arguments in compose.dockerfile():
        words = [word for word in arguments.split() if not word.startswith("--")]
        if instruction == "COPY" and "--from=" not in arguments:
            for source in words[:-1]:
                there = [path.relative_to(ROOT).as_posix() for path in ROOT.glob(source)]
                assert there and not any(map(ignored, there)), source
        elif instruction == "COPY":
            assert re.search(r"--from=(\S+)", arguments)[1] in stages, arguments  # type: ignore[index]
    assert all(map(ignored, [".venv/bin/python", "tests/conftest.py", "docker/.env", "jobs/__pycache__/demo.pyc"]))
    for script in ("entrypoint.sh", "healthy.sh", "builder.sh", "image.sh", "s3.sh", "setup.sh", "secrets.sh"):
        assert os.access(ROOT / "docker" / script, os.X_OK), script
    for path in (ROOT / "docker").glob("*.sh"):
        named = re.findall(r"(?:/opt/genodl/)?((?:docker|conf)/[\w./-]+\.\w+)", path.read_text())
        assert [one for one in named if not list(ROOT.glob(one)) and one != "docker/.env"] == [], path
    laid = (ROOT / "docker/image.sh").read_text()
    called = re.findall(r"/opt/genodl/(docker/\w+\.\w+)", compose.FILE.read_text())
    assert [one for one in called if one not in laid and one != "docker/schedule.sh"] == []


def test_images_run_as_nobody_and_say_how_they_are() -> None:
    stages = compose.stages()
    for name in ("cpu", "gpu", "airflow", "demo", "store"):
        assert [arguments for what, arguments in stages[name] if what == "USER"][-1] == "185:185", name
        assert [arguments for what, arguments in stages[name] if what == "HEALTHCHECK"], name
    assert {compose.target(one) for one in compose.document()["services"].values()} == {"demo", "airflow", "store"}


def test_versions_are_those_of_the_locks() -> None:
    locked = dict(re.findall(r"^([\w-]+)==(\S+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE))
    compiler = dict(re.findall(r"^([\w-]+)==(\S+)", (ROOT / "docker/nccl.lock").read_text(), re.MULTILINE))
    assert {version.split(".")[:2] == locked["cuda-toolkit"].split(".")[:2] for version in compiler.values()} == {True}
    properties = (ROOT / "conf/spark/containers.conf").read_text()
    python = re.search(r"^spark.pyspark.python\s+/opt/genodl/(\S+)$", properties, re.MULTILINE)
    assert python is not None and python[1] == ".venv/bin/python"
    debian = {"bookworm": "3.11"}[re.search(r"^ARG BASE=debian:(\w+)-slim$", _dockerfile(), re.MULTILINE)[1]]  # type: ignore[index]
    assert f"python{debian}" in (ROOT / "docker/image.sh").read_text()


def _dockerfile() -> str:
    return Path(ROOT, "docker/Dockerfile").read_text()
