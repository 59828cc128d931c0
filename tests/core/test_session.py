"""What a session derives from the machines that it runs on."""

from __future__ import annotations

from pathlib import Path

import pytest

from genodl_spark.core import session
from genodl_spark.job import config


@pytest.mark.parametrize(
    ("conf", "slots", "expected"),
    [
        ({"spark.master": "local[2]"}, 2, 4),
        ({"spark.master": "local[64]"}, 64, 64),
        ({"spark.master": "spark://a:7077", "spark.cores.max": "96", "spark.task.cpus": "2"}, 2, 144),
        ({"spark.master": "yarn", "spark.executor.instances": "10", "spark.executor.cores": "8"}, 2, 240),
        ({"spark.master": "yarn", "spark.executor.instances": "1"}, 40, 120),
        (
            {
                "spark.master": "k8s://a",
                "spark.dynamicAllocation.enabled": "true",
                "spark.dynamicAllocation.maxExecutors": "50",
            },
            2,
            150,
        ),
        ({"spark.master": "yarn", "spark.dynamicAllocation.enabled": "true", "spark.executor.instances": "3"}, 2, 200),
        ({"spark.master": "spark://a:7077"}, 2, 200),
        ({"spark.master": "spark://a:7077"}, 400, 1200),
    ],
)
def test_partitions_of_a_shuffle_follow_the_slots(conf: dict[str, str], slots: int, expected: int) -> None:
    assert session.shuffle_partitions(conf, slots) == expected


def test_the_settings_leave_the_partitions_of_a_shuffle_open() -> None:
    assert session._SHUFFLE not in config.load().spark


def test_a_cluster_has_settings_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(session.SUBMITTED, raising=False)
    masters = (None, "local", "local[2]", "local-cluster[2,1,1024]", "yarn", "spark://a:7077", "k8s://https://a")
    assert [session.place(master) for master in masters] == ["local"] * 4 + ["cluster"] * 3
    assert [config.load(place=place).spark["spark.ui.enabled"] for place in ("local", "cluster")] == ["false", "true"]
    assert config.load(None, None, ["spark.ui.enabled=true"]).spark["spark.ui.enabled"] == "true"


def test_an_archive_of_classes_is_used_whole_and_with_our_own_conf_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    conf = Path(session.__file__).parents[2] / "conf"
    (tmp_path / "jre").mkdir()
    monkeypatch.delenv(session.SUBMITTED, raising=False)
    monkeypatch.setenv("SPARK_CONF_DIR", str(conf))
    monkeypatch.setattr(session.sys, "prefix", str(tmp_path))
    found = session.ClassArchive.found.__wrapped__
    assert found(session.ClassArchive) is None
    archive = tmp_path / "jre" / "classes-4.jsa"
    archive.write_bytes(b"abc")  # cut off: a JVM crashes over it
    assert found(session.ClassArchive) is None
    archive.write_bytes(b"abcd")
    made = found(session.ClassArchive)
    assert made is not None and made.path == archive and f"-XX:SharedArchiveFile={archive}" in made.options
    monkeypatch.setenv("SPARK_CONF_DIR", str(tmp_path))
    assert found(session.ClassArchive) is None
    monkeypatch.setenv("SPARK_CONF_DIR", str(conf))
    monkeypatch.setenv(session.SUBMITTED, "1")  # the JVM runs already
    assert found(session.ClassArchive) is None


def test_the_jvm_finds_s3_where_python_does_and_no_secret_is_a_property(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "very-secret")
    s3 = "spark.hadoop.fs.s3a."
    chain = {f"{s3}aws.credentials.provider": "software.amazon.awssdk.auth.credentials.DefaultCredentialsProvider"}
    assert session._of_s3() == chain
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    endpoint = {f"{s3}endpoint": "http://127.0.0.1:9", "spark.executorEnv.AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9"}
    region = {f"{s3}endpoint.region": "us-east-1", "spark.executorEnv.AWS_REGION": "us-east-1"}
    how = {f"{s3}path.style.access": "true", f"{s3}connection.ssl.enabled": "false"}
    assert session._of_s3() == {**chain, **endpoint, **region, **how}
    given = {"spark.delta.logStore.s3a.impl": "io.delta.storage.S3SingleDriverLogStore", f"{s3}endpoint": "http://a"}
    chosen = session._chosen("x", given, "local[1]")
    assert chosen["spark.delta.logStore.s3a.impl"] == "genodl.ConditionalPutLogStore"
    assert chosen[f"{s3}endpoint"] == "http://a" and "very-secret" not in str(chosen)
