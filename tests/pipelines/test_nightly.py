"""A chain of verbs: the commands of a day, and how it ends where one of them fails; the verbs are stand-ins."""

from __future__ import annotations

import json
import tomllib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import jobs
from genodl_spark.pipelines.nightly import chain_of
from jobs import ingest, nightly
from tests.cluster.harness import ROOT
from tests.docs.test_pages import parsed

EXAMPLE = ROOT / "conf" / "airflow" / "nightly.toml"
CHAIN = """\
lake = "LAKE"
steps = [
  { verb = "ingest", arguments = ["vcf", "in/{date}/{date}.vcf"] }, { verb = "predict", arguments = ["ancestry"] },
  { verb = "monitor" }, { verb = "maintain" },
]
"""


def test_the_example_is_a_chain_that_its_verbs_take() -> None:
    commands = chain_of(str(EXAMPLE), jobs.verbs()).commands("2026-11-26")
    assert [verb for verb, _ in commands] == ["ingest", "qc", "predict", "monitor", "maintain", "report"]
    taken = [parsed(verb, arguments) for verb, arguments in commands]
    assert taken[0].paths == ["/srv/genomes/incoming/2026-11-26"] and taken[0].may_be_empty
    assert {one.lake for one in taken} == {"/srv/genomes/lake"}
    needed = {"command", "schedule", "start_date", "retries", "retry_seconds", "ask_seconds", "wait_hours"}
    for path in EXAMPLE.parent.rglob("*.toml"):
        assert set(tomllib.loads(path.read_text())["airflow"]) >= needed, path


@pytest.mark.parametrize(
    ("codes", "code", "last"),
    [
        ((0, 0, 0, 0), 0, ""),
        ((0, 2, 0, 0), 2, "genodl: error: predict: what predict found"),
        ((4, 0, 0, 0), 4, "genodl: error: ingest: what ingest found"),
        ((0, 1, 0, 0), 1, "RuntimeError: predict: what predict found"),
        ((0, 0, 3, 0), 3, "genodl: breach: monitor: 2 limits; table findings says which"),
        ((0, 0, 3, 4), 4, "genodl: error: maintain: what maintain found"),
    ],
)
def test_the_first_verb_that_fails_ends_the_chain_as_it_ended_and_a_breach_does_not(
    codes: tuple[int, ...],
    code: int,
    last: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "chain.toml").write_text(CHAIN)
    called: list[list[str]] = []

    def stand_in(verb: str, argv: list[str]) -> dict[str, Any]:
        found = codes[len(called)]
        called.append([verb, *argv])
        report = {"job": verb, "status": "unchanged", "seconds": 1.0, "rows": {}, "metrics": {"breaches": 2}}
        return report | {"code": found, "error": f"what {verb} found"}

    monkeypatch.setattr(jobs, "report_of", stand_in)
    assert nightly.main([str(tmp_path / "chain.toml"), "--date", "2026-11-26", "--set", "seed=7"]) == code
    printed = capsys.readouterr()
    report = json.loads(printed.out)
    common = ["--lake", "LAKE", "--set", "seed=7"]
    whole = [["ingest", "vcf", "in/2026-11-26/2026-11-26.vcf"], ["predict", "ancestry"], ["monitor"], ["maintain"]]
    failed = next((i + 1 for i, one in enumerate(codes) if one not in (0, 3)), len(codes))
    assert called == [[*words, *common] for words in whole[:failed]]
    steps = [(step["verb"], step["code"]) for step in report["metrics"]["steps"]]
    assert steps == [(words[0], one) for words, one in zip(whole[:failed], codes, strict=False)]
    assert report["status"] == ("failed" if failed < len(codes) or code == 4 else "unchanged")
    told = [f"{type(e).__name__}: {e}" for record in caplog.records if record.exc_info and (e := record.exc_info[1])]
    assert last in "\n".join([printed.err, *caplog.messages, *told])


def test_what_is_no_chain_or_no_day_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for text, told in (
        ("", "lake: Field required"),
        (CHAIN.replace('"maintain"', '"vacuum"'), "steps: found verb 'vacuum'"),
        (CHAIN + 'lakes = "x"\n', "lakes: Extra inputs"),
        (
            CHAIN.replace('"ancestry"', '"ancestry", "--set", "tracking.uri=http://me:pw12345@lab"'),
            "steps: found a password",
        ),
    ):
        (tmp_path / "chain.toml").write_text(text)
        assert nightly.main([str(tmp_path / "chain.toml")]) == 2
        printed = capsys.readouterr().err
        assert f"chain.toml: {told}" in printed and "pw12345" not in printed
    assert nightly.main([str(EXAMPLE), "--date", "26.11.2026"]) == 2
    assert "--date: found '26.11.2026'" in capsys.readouterr().err


def test_without_a_date_it_is_the_day_before(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(nightly, "run_job", lambda verb, made, work, argv: asked.append(made.parse_args(argv)))
    before = datetime.now(UTC)
    nightly.main(["chain.toml"])
    days = {(at - timedelta(days=1)).date().isoformat() for at in (before, datetime.now(UTC))}
    assert asked[0].date in days


def test_a_night_without_files_is_nothing_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "_half.vcf").write_text("not whole yet")
    for folder in ("empty", "none"):
        asked = ["vcf", str(tmp_path / folder), "--cohort", "c", "--lake", str(tmp_path / "lake")]
        assert ingest.main([*asked, "--may-be-empty"]) == 0
        assert json.loads(capsys.readouterr().out)["status"] == "unchanged"
        assert ingest.main(asked) == 2
        assert str(tmp_path / folder) in capsys.readouterr().err.splitlines()[-1]
