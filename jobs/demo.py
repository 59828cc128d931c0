"""Takes two public cohorts from their files to queried predictions: 1000 Genomes genotypes,
and breast tumors of GEO."""

from __future__ import annotations

import shutil
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jobs
from genodl_spark.core import session
from genodl_spark.core.errors import InputError
from genodl_spark.job.cli import Arguments, parser, run_job

if TYPE_CHECKING:
    from genodl_spark.job.run import Run

SQL = """
SELECT task, cohort, label_column, predicted, count(*) AS people, round(avg(value), 3) AS mean_probability
FROM predictions_latest GROUP BY ALL ORDER BY task, cohort, predicted
"""


@dataclass
class Tour:
    """One task of the demo: the verbs that it goes through, and what came of them."""

    task: str
    cohort: str
    label: str
    source: str
    data: str
    samples: str
    reports: dict[str, dict[str, Any]] = field(default_factory=dict)
    seconds: float = 0.0


TOURS = (
    Tour("ancestry", "1000genomes", "super_population", "vcf", "seldin.vcf", "ancestry_samples.tsv"),
    Tour("tumor_type", "gse7390", "er", "expression", "gse7390.tsv", "gse7390_samples.tsv"),
)


def demo(run: Run, given: Arguments) -> None:
    """Runs every verb in one Spark application, as a user would one by one: on a new lake in OUTPUT/lake,
    or on the one that --lake names, where what is done already is found `unchanged`."""
    from genodl_spark.report import content

    inputs, output = given.inputs, given.output
    lake = given.lake or str(Path(output) / "lake")
    for tour in TOURS:
        for name in (tour.data, tour.samples):
            if not (Path(inputs) / name).is_file():
                raise InputError(
                    "no such file; expected the demo's inputs, make demo fetches them", str(Path(inputs) / name)
                )
    if not given.lake:
        shutil.rmtree(lake, ignore_errors=True)
    settings = [word for one in given.set for word in ("--set", one)] + (
        ["--config", given.config] if given.config else []
    )
    shared = [*settings, *(["--master", run.master] if run.master else [])]
    with session.shared():
        for tour in TOURS:
            started = time.perf_counter()
            common = ["--lake", lake, "--cohort", tour.cohort]
            files = [str(Path(inputs) / tour.data), "--samples", str(Path(inputs) / tour.samples)]
            tour.reports["ingest"] = _verb(shared, "ingest", [tour.source, *files, *common])
            for verb in ("train", "evaluate", "predict"):
                tour.reports[verb] = _verb(shared, verb, [tour.task, *common, "--label", tour.label])
            tour.seconds = time.perf_counter() - started
        answer = _verb(shared, "query", [" ".join(SQL.split()), "--lake", lake])
        _verb(shared, "report", ["--lake", lake, "--output", str(Path(output) / "report")])
    print(
        "\n"
        + content.table(
            [row for tour in TOURS for row in _rows(tour)], ["task", "cohort", "rows", "predictor", *METRICS, "seconds"]
        )
    )
    print(f'\ngenodl query "{" ".join(SQL.split())}" --lake {lake}\n')
    names = list(answer["result"][0])
    print(content.table([[str(row[name]) for name in names] for row in answer["result"]], names))
    print(f"\nlake    {lake}\nreport  {Path(output) / 'report' / 'index.html'}\n")
    run.report.metrics.update({tour.task: tour.reports["evaluate"]["metrics"] for tour in TOURS})


METRICS = ("accuracy", "macro_f1", "auroc")


def _verb(shared: list[str], verb: str, argv: list[str]) -> dict[str, Any]:
    """Runs a verb, telling what and how long; RuntimeError when it fails. `shared`: options that all get, untold."""
    print(f"\n$ genodl {verb} {' '.join(repr(a) if ' ' in a else a for a in argv)}", file=sys.stderr, flush=True)
    document = jobs.report_of(verb, [*argv, *shared])
    if document["code"]:
        raise RuntimeError(f"genodl {verb} failed: {document.get('error')}")
    print(f"{verb}: {document['status']} in {document['seconds']:.1f} s", file=sys.stderr, flush=True)
    return document


def _rows(tour: Tour) -> list[list[str]]:
    found = tour.reports["evaluate"]["metrics"]
    predictors = {"model": found["model"], **found["baselines"]}
    rows = []
    for name, metrics in predictors.items():
        shown = [
            f"{m['value']:.3f} [{m['low']:.3f}, {m['high']:.3f}]"
            if (m := metrics.get(key)) and m["value"] is not None
            else ""
            for key in METRICS
        ]
        first = name == "model"
        rows.append(
            [tour.task, tour.cohort, str(found["n_test"]), name, *shown, f"{tour.seconds:.0f}" if first else ""]
        )
    return rows


def main(argv: list[str] | None = None) -> int:
    made = parser("demo", __doc__)
    made.add_argument("--inputs", metavar="DIR", required=True, help="folder of the input files that make demo fetches")
    made.add_argument(
        "--output",
        metavar="DIR",
        required=True,
        help="folder for the lake and the report; an old demo there is replaced",
    )
    made.add_argument(
        "--lake", metavar="URI", default="", help="a lake elsewhere, of which nothing is removed; default: OUTPUT/lake"
    )
    return run_job("demo", made, demo, argv)


if __name__ == "__main__":
    sys.exit(main())
