"""conf/spark/ and conf/kubernetes/: properties that Spark knows, manifests that the operator takes, and names of things
that `make dist` makes and verbs that there are."""

from __future__ import annotations

import importlib
import re
import tomllib
import zipfile
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.harness import ROOT

_PROPERTIES = sorted((ROOT / "conf" / "spark").glob("*.conf"))
_MANIFESTS = sorted((ROOT / "conf" / "kubernetes").glob("*.yaml"))
_ENDING_IN_NAMES_OF_YOURS = (
    "spark.executorEnv.",
    "spark.yarn.appMasterEnv.",
    "spark.kubernetes.driverEnv.",
    "spark.kubernetes.driver.annotation.",
)

# SparkApplication v1beta2 as the operator's CRD has it (kubeflow/spark-operator v2.5.2), condensed to the fields that a
# manifest here may use. A list holds one kind of item;
# {"*": kind} any names; a set is all the texts that are taken; a name with ! has to be there.
_CONTEXT = {
    "runAsNonRoot": bool,
    "runAsUser": int,
    "runAsGroup": int,
    "allowPrivilegeEscalation": bool,
    "readOnlyRootFilesystem": bool,
    "privileged": bool,
    "capabilities": {"add": [str], "drop": [str]},
    "seccompProfile": {"type!": str, "localhostProfile": str},
}
_POD = {
    "annotations": {"*": str},
    "labels": {"*": str},
    "nodeSelector": {"*": str},
    "env": [{"name!": str, "value": str}],
    "envVars": {"*": str},
    "envSecretKeyRefs": {"*": {"name!": str, "key!": str}},
    "gpu": {"name!": str, "quantity!": int},
    "secrets": [{"name!": str, "path!": str, "secretType!": str}],
    "volumeMounts": [{"name!": str, "mountPath!": str, "readOnly": bool, "subPath": str}],
    "securityContext": _CONTEXT,
    **dict.fromkeys(["cores", "terminationGracePeriodSeconds"], int),
    **dict.fromkeys(["hostNetwork", "shareProcessNamespace"], bool),
    **dict.fromkeys(
        ["coreLimit", "coreRequest", "image", "javaOptions", "memory", "memoryLimit", "memoryOverhead"], str
    ),
    **dict.fromkeys(["priorityClassName", "schedulerName", "serviceAccount"], str),
}
_APPLICATION = {
    "apiVersion!": {"sparkoperator.k8s.io/v1beta2"},
    "kind!": {"SparkApplication"},
    "metadata!": {"name!": str, "namespace": str, "labels": {"*": str}, "annotations": {"*": str}},
    "spec!": {
        "type!": {"Java", "Python", "Scala", "R"},
        "mode": {"cluster", "client"},
        "pythonVersion": {"2", "3"},
        "sparkVersion!": str,
        "mainApplicationFile!": str,
        "arguments": [str],
        "deps": {name: [str] for name in ("archives", "files", "jars", "packages", "pyFiles", "repositories")},
        "driver!": {**_POD, "podName": str, "kubernetesMaster": str},
        "executor!": {**_POD, "instances": int, "deleteOnTermination": bool},
        "restartPolicy": {
            "type": {"Never", "Always", "OnFailure"},
            "onFailureRetries": int,
            "onFailureRetryInterval": int,
            "onSubmissionFailureRetries": int,
            "onSubmissionFailureRetryInterval": int,
        },
        "sparkConf": {"*": str},
        "hadoopConf": {"*": str},
        "nodeSelector": {"*": str},
        **dict.fromkeys(["failureRetries", "retryInterval", "timeToLiveSeconds"], int),
        **dict.fromkeys(["hadoopConfigMap", "sparkConfigMap", "image", "imagePullPolicy", "mainClass"], str),
        **dict.fromkeys(["memoryOverheadFactor", "proxyUser", "batchScheduler"], str),
        "imagePullSecrets": [str],
        "suspend": bool,
    },
}


def wrong(value: Any, kind: Any, at: str = "") -> list[str]:
    """Where a document is none of a kind."""
    if isinstance(kind, set):
        return [] if value in kind else [f"{at}: {value!r} is none of {sorted(kind)}"]
    if isinstance(kind, type):
        return [] if type(value) is kind else [f"{at}: {value!r} is no {kind.__name__}"]
    if isinstance(kind, list):
        if not isinstance(value, list):
            return [f"{at}: {value!r} is no list"]
        return [found for i, one in enumerate(value) for found in wrong(one, kind[0], f"{at}[{i}]")]
    if not isinstance(value, dict):
        return [f"{at}: {value!r} has no fields"]
    kinds = {name.rstrip("!"): its for name, its in kind.items()}
    found = [f"{at}: no {name[:-1]}" for name in kind if name[-1] == "!" and name[:-1] not in value]
    for name, one in value.items():
        its = kinds.get(name, kinds.get("*"))
        found += [f"{at}: no field {name}"] if its is None else wrong(one, its, f"{at}.{name}")
    return found


def properties(path: Path) -> dict[str, str]:
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    found = dict(line.split(maxsplit=1) for line in lines)
    assert len(found) == len(lines)
    return found


@cache
def declarations() -> bytes:
    """The classes in which Spark, its schedulers for YARN and Kubernetes among it, declares properties."""
    jars = ROOT / ".venv/lib/python3.11/site-packages/pyspark/jars"
    places = re.compile(r"org/apache/spark/(internal/config/.*|deploy/k8s/Config.*|deploy/yarn/config/.*)\.class")
    found = b""
    for jar in (path for kind in ("core", "yarn", "kubernetes") for path in jars.glob(f"spark-{kind}_*.jar")):
        with zipfile.ZipFile(jar) as classes:
            found += b"".join(classes.read(name) for name in classes.namelist() if places.fullmatch(name))
    return found


def unknown(names: Iterable[str]) -> set[str]:
    """Names of properties that Spark does not declare; a session takes any, and says nothing.

    A class file has each text that it uses as a constant, with its length before it.
    """
    mine = {name for name in names if name != "spark.master" and not name.startswith(_ENDING_IN_NAMES_OF_YOURS)}
    return {name for name in mine if len(name).to_bytes(2, "big") + name.encode() not in declarations()}


def test_spark_knows_every_property() -> None:
    assert [path.name for path in _PROPERTIES] == ["containers.conf", "kubernetes.conf", "standalone.conf", "yarn.conf"]
    for path in _PROPERTIES:
        found = properties(path)
        assert unknown(found) == set(), path
        assert found["spark.authenticate"] == found["spark.network.crypto.enabled"] == "true"
        assert "spark.authenticate.secret" not in found
    for path in _MANIFESTS:
        assert unknown(yaml.safe_load(path.read_text())["spec"]["sparkConf"]) == set(), path
    assert unknown(["spark.authenticat"]) == {"spark.authenticat"}


@pytest.mark.parametrize("path", _MANIFESTS, ids=lambda path: path.stem)
def test_the_operator_takes_the_manifests(path: Path) -> None:
    assert wrong(yaml.safe_load(path.read_text()), _APPLICATION) == []


def test_what_the_operator_would_refuse_is_found() -> None:
    manifest = yaml.safe_load((ROOT / "conf/kubernetes/train.yaml").read_text())
    manifest["spec"]["sparkConf"]["spark.task.cpus"] = 4
    manifest["spec"]["executor"]["gpus"] = manifest["spec"]["executor"].pop("gpu")
    manifest["spec"]["restartPolicy"]["type"] = "Sometimes"
    del manifest["spec"]["sparkVersion"]
    assert wrong(manifest, _APPLICATION) == [
        ".spec: no sparkVersion",
        ".spec.sparkConf.spark.task.cpus: 4 is no str",
        ".spec.restartPolicy.type: 'Sometimes' is none of ['Always', 'Never', 'OnFailure']",
        ".spec.executor: no field gpus",
    ]


@pytest.mark.parametrize("path", _MANIFESTS, ids=lambda path: path.stem)
def test_manifests_run_verbs_as_they_are(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = yaml.safe_load(path.read_text())["spec"]
    module = importlib.import_module(f"jobs.{path.stem}")
    parsed: list[Any] = []
    monkeypatch.setattr(module, "run_job", lambda _, made, work, argv: parsed.append(made.parse_args(argv)))
    module.main(spec["arguments"])
    assert parsed[0].lake.startswith("hdfs://") and spec["mainApplicationFile"].endswith(f"/jobs/{path.name[:-5]}.py")
    slots = (
        spec["executor"]["instances"] * spec["executor"]["cores"] // int(spec["sparkConf"].get("spark.task.cpus", 1))
    )
    assert getattr(parsed[0], "procs", 0) in (0, slots)  # a rank on each slot, and on each GPU


def test_files_are_called_as_make_dist_calls_them() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    jars = re.findall(r"(delta-\S+\.jar)", (ROOT / "docker/jars.sha256").read_text())
    spark = re.search(r"^pyspark==(\S+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    assert spark is not None
    for path in [*_PROPERTIES, *_MANIFESTS]:
        if path.name == "containers.conf":  # whose image has all of it
            continue
        text = path.read_text()
        assert sorted(re.findall(r"jars/([\w.-]+?\.jar)", text)) == sorted(jars), path
        assert re.findall(r"environment-(\w+)\.tar\.gz#environment", text) == ["gpu" if path.stem == "train" else "cpu"]
        assert set(re.findall(r"apache/spark:(\S+)|sparkVersion: (\S+)", text)) <= {(spark[1], ""), ("", spark[1])}
        assert set(re.findall(r"genodl_spark-(\S+?)-", text)) <= {version}
