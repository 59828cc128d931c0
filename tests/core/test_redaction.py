"""Secrets are known by their keys, and leave no text."""

from __future__ import annotations

import json
import logging

import pytest

from genodl_spark.core import redaction
from genodl_spark.core.errors import InputError
from genodl_spark.job import config
from genodl_spark.job.config import Settings


@pytest.fixture(autouse=True)
def _nothing_learnt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redaction, "_learnt", set())


@pytest.mark.parametrize(
    "key",
    [
        "spark.hadoop.fs.s3a.secret.key",
        "spark.hadoop.fs.s3a.access.key",
        "spark.hadoop.fs.s3a.session.token",
        "spark.hadoop.fs.s3a.bucket.b.encryption.key",
        "spark.hadoop.fs.azure.account.key.me.dfs.core.windows.net",
        "spark.hadoop.fs.azure.sas.fixed.token.me.dfs.core.windows.net",
        "spark.hadoop.fs.azure.account.oauth2.client.secret",
        "spark.ssl.keyPassword",
        "spark.ssl.keyStore",
        "spark.authenticate.secret",
        "spark.hadoop.google.cloud.auth.service.account.private.key",
        "password",
        "DB_PASSWD",
        "apiKey",
        "x.pwd",
        "sig",
    ],
)
def test_keys_that_are_secret(key: str) -> None:
    assert redaction.is_secret(key) and redaction.settings({key: "hunter"}) == {key: "***"}


def test_no_setting_of_the_package_is_secret() -> None:
    """What is stored with a run stays whole, but for what its user's own keys bring."""
    settings = config.load("tumor_type")
    assert {**json.loads(config.stored(settings))} == {"format": config.FORMAT, **settings.model_dump(mode="json")}


def test_texts_lose_secrets_and_nothing_else() -> None:
    redaction.learn(
        {
            "spark": {"spark.hadoop.fs.s3a.secret.key": 'a"b/c+d e'},
            "tracking": {"uri": "postgresql://me:p%40ss%2Fword@db:5432/x"},
        }
    )
    found = redaction.text(
        'cannot sign with a"b/c+d e, a%22b%2Fc%2Bd%20e or a\\"b/c+d e; '
        "store postgresql://me:p%40ss%2Fword@db:5432/x, p@ss/word"
    )
    assert found == "cannot sign with ***, *** or ***; store postgresql://me:***@db:5432/x, ***"
    for url in (
        "s3a://bucket/key=1/x.parquet",
        "abfss://container@account.dfs.core.windows.net/a",
        "hdfs://host:9000/cohort=a/b",
        "file:///a@b:c",
        "hdfs://h:90/a@b",
    ):
        assert redaction.text(url) == url
    assert (
        redaction.text("https://ghp_abc@host/x?token=t1&page=2&sig=s%2F")
        == "https://***@host/x?token=***&page=2&sig=***"
    )
    assert redaction.text("at mysql://me:a/b@c@h/d.") == "at mysql://me:***@h/d."
    assert redaction.text("jdbc:x:password=open;user=me") == "jdbc:x:password=***;user=me"
    assert (
        redaction.text("predict.passes=3 and spark.hadoop.x.token=3") == "predict.passes=3 and spark.hadoop.x.token=***"
    )
    document = {"key": {"task": "t"}, "warnings": ["store at http://u:pw@h"], "n": 3, "token": "as it is"}
    assert redaction.document(document) == {**document, "warnings": ["store at http://u:***@h"]}


def test_arguments_and_stored_settings_lose_secrets() -> None:
    given = [
        "query",
        "SELECT 1",
        "--set",
        "spark.hadoop.fs.s3a.secret.key='ab c'",
        "--set=x.password=q",
        "--key",
        "chr1:5",
        "--lake",
        "s3a://a:bcd@x/y",
    ]
    assert redaction.arguments(given) == [
        *[
            "query",
            "SELECT 1",
            "--set",
            "spark.hadoop.fs.s3a.secret.key=***",
            "--set=x.password=***",
            "--key",
            "chr1:5",
            "--lake",
            "s3a://a:***@x/y",
        ]
    ]
    settings = config.load(
        "binding",
        None,
        [
            "spark.hadoop.fs.s3a.secret.key=planted-secret",
            "tracking.uri=mysql://u:planted-secret@h/d",
            "tune.storage=mysql://u:planted-secret@h",
        ],
    )
    text = config.stored(settings)
    assert "planted-secret" not in text and json.loads(text)["tracking"]["uri"] == "mysql://u:***@h/d"
    assert settings.tracking.uri == "mysql://u:planted-secret@h/d"
    back, passed = config.from_stored(text, "x")
    assert (back.model, back.split, back.implementation, passed) == (
        settings.model,
        settings.split,
        settings.implementation,
        [],
    )


@pytest.mark.parametrize(
    "assignment",
    ["train.password=planted-secret", "spark.x.secret=planted-secret", "train.epochs=mysql://u:planted-secret@h"],
)
def test_errors_and_log_lines_lose_secrets(assignment: str) -> None:
    try:
        config.load(None, None, [assignment, "train.batch=no"])
    except InputError as error:
        shown = redaction.text(str(error))
    assert "planted" not in shown
    record = logging.LogRecord("genodl", logging.ERROR, "f", 1, "connecting with %s", ("planted-secret",), None)
    redaction.learn("planted-secret", "a.password")
    assert redaction.Formatter("%(message)s").format(record) == "connecting with ***"


def test_stored_settings_are_those_of_today() -> None:
    assert config.from_stored(config.stored(Settings()), "x") == (Settings(), [])
