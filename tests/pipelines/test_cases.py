"""Small inputs that went wrong once, each with what must happen: the folders of ../shared/cases,
whose README says how they are read."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from genodl_spark.lake.delta import Lake
from jobs import export, ingest, query

CASES = Path(os.environ.get("GENODL_SHARED_CASES", Path(__file__).resolve().parents[3] / "shared" / "cases"))
NAMES = sorted(path.parent.name for path in CASES.glob("*/case.json"))
VERBS = {"ingest": ingest, "export": export, "query": query}
BCFTOOLS = """#!{python}
import sys
import pysam.bcftools
sys.stdout.write(getattr(pysam.bcftools, sys.argv[1])(*sys.argv[2:], catch_stdout=True))
"""


@dataclass
class Case:
    """A case whose commands have run; `ended`: of each its arguments, exit code, run report and last line on stderr."""

    folder: Path
    lake: Lake
    genodl: Callable[..., tuple[int, dict, str]]
    ended: list[tuple[list[str], int, dict, str]] = field(default_factory=list)

    def filled(self, text: str) -> str:
        return text.replace("{dir}", str(self.folder)).replace("{lake}", self.lake.uri)

    def run(self, command: list[str]) -> None:
        verb, *arguments = map(self.filled, command)
        self.ended.append(([verb, *arguments], *self.genodl(VERBS[verb], *arguments)))

    def rows(self, sql: str) -> list[list[Any]]:
        """Rows of a query as lists; none where a table is not there."""
        code, report, line = self.genodl(query, sql, "--lake", self.lake.uri)
        assert code in (0, 2), line
        return [list(row.values()) for row in report.get("result", [])]

    def check(self, check: dict[str, Any]) -> None:
        kind = check["type"]
        if kind == "query":
            assert self.rows(check["sql"]) == check["rows"]
        elif kind == "query_absent":
            found = self.rows(check["sql"])
            assert not [row for row in check["rows_must_not_contain"] if row in found]
        elif kind == "exit":
            words, codes = (
                check["error_must_contain"],
                check["code"] if isinstance(check["code"], list) else [check["code"]],
            )
            named = [
                one
                for one in self.ended
                if any(Path(argument).name in word for argument in one[0][2:] for word in words)
            ]
            for _, code, _, line in named or self.ended:
                assert code in codes, line
                assert code == 0 or all(word in line for word in words), line
        elif kind == "shell":
            tools = {**os.environ, "PATH": f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}"}
            done = subprocess.run(
                ["bash", "-c", self.filled(check["run"])],
                env=tools,
                capture_output=True,
                text=True,
                check=True,
                timeout=60,
            )
            assert done.stdout == check["stdout"]
        else:
            assert kind == "judge", kind
            JUDGED[self.folder.name](self)


def letters(case: Case) -> None:
    reasons = " | ".join(reason for _, reason in case.rows("SELECT line, reason FROM quarantine ORDER BY line"))
    assert "U+00A0" in reasons and "U+FF21" in reasons, reasons
    assert "\\xc2" not in reasons and "\\xef" not in reasons, reasons


def floats(case: Case) -> None:
    for _, code, report, line in case.ended:
        assert code == 0, line
        json.dumps(report, allow_nan=False)


def columns(case: Case) -> None:
    (_, nine, _, nine_line), (_, eight, _, eight_line) = case.ended[:2]
    sites = case.rows("SELECT file, pos, n_samples FROM variants ORDER BY file")
    expected = [[f"{name}.vcf", 1, 0] for name, code in (("eight", eight), ("nine", nine)) if code == 0]
    assert [[row[0], row[2]] for row in sites] == [[row[0], row[2]] for row in expected]
    for code, line in ((nine, nine_line), (eight, eight_line)):
        assert code == 0 or (code == 2 and ".vcf:" in line), line


JUDGED = {
    "sequences-whitespace-and-letters": letters,
    "vcf-floats-at-the-limits": floats,
    "vcf-format-column-no-samples": columns,
}


@pytest.mark.skipif(not NAMES, reason=f"no cases in {CASES}")
@pytest.mark.parametrize("name", NAMES or ["none"])
def test_case(name: str, genodl: Callable[..., tuple[int, dict, str]], lake: Lake, tmp_path: Path) -> None:
    folder = tmp_path / name
    shutil.copytree(CASES / name, folder)
    subprocess.run(["chmod", "-R", "u+w", str(folder)], check=True)
    case = Case(folder, lake, genodl)
    content = json.loads((folder / "case.json").read_text())
    for command in content["command"]:
        case.run(command)
    (folder / "bin").mkdir()
    (folder / "bin" / "bcftools").write_text(BCFTOOLS.format(python=sys.executable))
    (folder / "bin" / "bcftools").chmod(0o755)
    checks = content["check"] if isinstance(content["check"], list) else [content["check"]]
    for check in checks:
        case.check(check)
