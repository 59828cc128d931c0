"""Writes a small lake of every kind of table, trains and scores models on it, and packs it beside this
file with what its tables hold.

    .venv/bin/python -m tests.frozen.make

The lake was written once, by the code of 2026-11-26, and stands for those that users have: code that comes later
has to read it as it is. To run this again would only show that today's code reads what today's code writes;
where formats grow, a second lake is frozen beside this one.

LAKE.tar.xz holds `inputs/`, the files that were ingested, and `lake/`, without what a lake does not need to be whole:
leases and work under way. FACTS has, for each table, its columns, the number of its rows and their SHA-256 (`digest`),
and the processor that computed the predictions.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import platform
import shutil
import tarfile
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from deltalake import DeltaTable, QueryBuilder

import jobs

HERE = Path(__file__).parent
LAKE, FACTS = HERE / "lake-2026-11.tar.xz", HERE / "facts-2026-11.json"
# where the lake was written: it says of its files where they were, and they are not there any more
_PLACE = Path("/tmp/genodl-frozen")
_WRITTEN = 1_764_115_200  # seconds: the date of all files in the archive
_LEFT_OUT = ("_locks", "_staging", "mlflow.db")

PEOPLE = [f"SUBJ{i:04}" for i in range(25)]
GONE = PEOPLE[24]  # withdrew consent before anything was trained
GENES = [f"GENE{i}" for i in range(8)]
PROBES = [f"cg{i:08}" for i in range(5)]
_MOTIF = "TATAAT"

SMALL = (
    "train.launcher=process tracking.uri=off train.epochs=3 train.min_steps=6 train.batch=8 "
    "spark.sql.shuffle.partitions=1"
)
# Of each model: its task, cohort and label, and the settings that it was trained with. One of each kind of network.
MODELS = (
    (
        "tumor_type",
        "people",
        "status",
        (
            "train.ensemble=2 model.hidden=[4] blocks=mrna covariates=age,smoker split.folds=2 "
            "split.repeats=2 split.group=family"
        ),
    ),
    (
        "tumor_type",
        "people",
        "site",
        "train.ensemble=1 model.kind=fusion model.encoder=[3] model.hidden=[] split.folds=2",
    ),
    ("compressed", "people", "grade", "train.ensemble=1"),
    ("ancestry", "people", "super_population", "train.ensemble=1 model.hidden=[4]"),
    (
        "binding",
        "bound",
        "label",
        "train.ensemble=2 model.channels=[4] model.dilations=[1] model.stem_kernel=5 split.column=split",
    ),
    (
        "sequence_expression",
        "driven",
        "value",
        "train.ensemble=2 model.channels=[3] model.dilations=[1] model.stem_kernel=3",
    ),
    ("recurrent", "driven", "value", "train.ensemble=1"),
)
# Tasks of a user's own, with networks that the tasks of the project do not have.
TASKS = {
    "compressed": """implementation = "tumor_type"
label = "grade"
metric = "accuracy"
blocks = ["mirna"]
split = { train = 0.6, validation = 0.2, test = 0.2 }
model = { kind = "autoencoder", hidden = [4], latent = 2 }
""",
    "recurrent": """implementation = "binding"
label = "value"
metric = "r2"
split = { train = 0.6, validation = 0.2, test = 0.2 }
model = { kind = "rnn", channels = 4, kernel = 3, pool = 2, units = 3 }
""",
}


def digest(rows: Iterable[Mapping[str, Any]], columns: Iterable[str]) -> str:
    """SHA-256, hexadecimal, of rows in whatever order: sorted lines of JSON with sorted keys, binary as hexadecimal,
    times as ISO 8601 in UTC, maps as sorted pairs, numbers as Python writes them (a double to its last bit)."""
    names = sorted(columns)
    lines = sorted(json.dumps([[name, _plain(row[name])] for name in names]) for row in rows)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, bytes | bytearray):
        return bytes(value).hex()
    if isinstance(value, datetime):
        return value.astimezone().isoformat() if value.tzinfo is None else value.isoformat()
    if isinstance(value, dict):
        return sorted([key, _plain(inner)] for key, inner in value.items())
    if isinstance(value, list | tuple):
        plain = [_plain(inner) for inner in value]
        return sorted(plain) if value and all(isinstance(inner, tuple) for inner in value) else plain
    return "NaN" if isinstance(value, float) and math.isnan(value) else value


def processor() -> dict[str, str]:
    """What decides the last bits of what torch computes here: its own kernels go by the instructions,
    those of MKL also by who made the processor."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    vendor = next((line.split(":")[1].strip() for line in lines if line.startswith("vendor_id")), "")
    return {
        "machine": platform.machine(),
        "vendor": vendor,
        "capability": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
    }


def _table(path: Path, *rows: Iterable[Any]) -> str:
    path.write_text("".join("\t".join(map(str, row)) + "\n" for row in rows))
    return str(path)


def _vcf(path: Path, draw: np.random.Generator) -> str:
    """60 sites on three contigs, of which the first 12 tell two populations apart; phased, partial,
    haploid and multi-allelic calls; a deletion without a sequence; and a record that no VCF may have."""
    keys = ('GT,Number=1,Type=String,Description="Genotype"', 'DP,Number=1,Type=Integer,Description="Reads"')
    head = [
        "##fileformat=VCFv4.3",
        "##contig=<ID=chr1,length=248956422>",
        "##contig=<ID=chr2,length=242193529>",
        "##contig=<ID=chrX,length=156040895>",
    ]
    head += ['##ALT=<ID=DEL,Description="Deletion">', '##FILTER=<ID=low,Description="Few reads">']
    head += [
        '##INFO=<ID=END,Number=1,Type=Integer,Description="End">',
        '##INFO=<ID=SVTYPE,Number=1,Type=String,Description="Kind">',
    ]
    head += [f"##FORMAT=<ID={key}>" for key in keys]
    lines = [*head, "\t".join(["#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO", "FORMAT", *PEOPLE])]
    for site in range(60):
        chrom = "chr1" if site < 40 else "chr2" if site < 55 else "chrX"
        alts, info = "ACGT"[site % 3 + 1], "."
        if site % 20 == 15:
            alts = "C,T"
        elif site == 30:
            alts, info = "<DEL>", "SVTYPE=DEL;END=4200"
        calls = []
        for i in range(len(PEOPLE)):
            rare = (0.85 if i % 2 else 0.1) if site < 12 else 0.3
            pair = (draw.random(2) < rare).astype(int) * (1 + draw.integers(0, 2, 2) * (alts == "C,T"))
            call = "|/"[site % 2].join(map(str, pair))
            if chrom == "chrX" and i % 3 == 0:
                call = str(pair[0])
            elif draw.random() < 0.04:
                call = "./." if site % 2 else f"{pair[0]}|."
            calls.append(f"{call}:{draw.integers(5, 60)}")
        fields = [
            chrom,
            1000 + 100 * site,
            f"rs{site}" if site % 4 == 0 else ".",
            "A",
            alts,
            "." if site % 7 == 0 else 30 + site / 2,
        ]
        lines.append("\t".join(map(str, [*fields, ("PASS", "low", ".")[site % 3], info, "GT:DP", *calls])))
    lines.append(lines[-1].replace("chrX\t6900", "chrX\tsomewhere"))
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def _sequences(path: Path, prefix: str, draw: np.random.Generator, value: bool) -> str:
    """40 sequences of 20 to 26 bases; odd ones have a motif, which their label or value tells;
    and a record that is no sequence."""
    rows = [["id", "sequence", "value" if value else "label", "split"]]
    for i in range(40):
        bases = "".join("ACGT"[b] for b in draw.integers(0, 4, 20 + i % 7))
        bases = bases[:7] + _MOTIF + bases[13:] if i % 2 else bases[:3] + "N" + bases[4:]
        told = f"{2 * (i % 2) + draw.normal() / 4:.3f}" if value else str(i % 2)
        rows.append([f"{prefix}-{i:03}", bases, told, ("train", "train", "train", "validation", "test")[i // 2 % 5]])
    rows.append([f"{prefix}-bad", "ACGT!CGT", rows[1][2], "train"])
    return _table(path, *rows)


def _matrix(path: Path, names: list[str], values: np.ndarray, missing: tuple[int, int] | None = None) -> str:
    texts = [[f"{value:.3f}" for value in row] for row in values]
    if missing is not None:
        texts[missing[0]][missing[1]] = "NA"
    return _table(path, ["id", *PEOPLE], *([name, *row] for name, row in zip(names, texts, strict=True)))


def _write(inputs: Path, lake: Path) -> None:
    """Files into `inputs`, and from them the lake."""
    draw = np.random.default_rng(20261126)
    kind = np.arange(len(PEOPLE)) % 2
    columns = ["sample_id", "status", "grade", "site", "super_population", "age", "smoker", "family"]
    rows = [
        [
            name,
            ("normal", "tumor")[i % 2],
            ("low", "high")[i // 2 % 2],
            ("left", "right")[i % 2],
            ("EAST", "WEST")[i % 2],
            40 + i,
            "ny"[i % 3 > 1],
            i // 2,
        ]
        for i, name in enumerate(PEOPLE)
    ]
    rows[3][5] = ""  # an age that is not known
    people = _table(inputs / "people.tsv", columns, *rows)
    mrna = draw.normal(5, 1, (len(GENES), len(PEOPLE)))
    mrna[:4] += 2 * kind
    mirna = draw.normal(2, 1, (4, len(PEOPLE))) + kind
    for source, path, *more in (
        ("vcf", _vcf(inputs / "people.vcf", draw), "--samples", people),
        ("expression", _matrix(inputs / "mrna.tsv", GENES, mrna, (2, 5)), "--block", "mrna"),
        ("expression", _matrix(inputs / "mirna.tsv", [f"mir-{i}" for i in range(4)], mirna), "--block", "mirna"),
        ("methylation", _matrix(inputs / "beta.tsv", PROBES, draw.random((len(PROBES), len(PEOPLE))))),
    ):
        _do("ingest", source, path, *more, "--cohort", "people", lake=lake)
    _do("ingest", "sequences", _sequences(inputs / "bound.tsv", "bound", draw, False), "--cohort", "bound", lake=lake)
    _do("ingest", "sequences", _sequences(inputs / "driven.tsv", "driven", draw, True), "--cohort", "driven", lake=lake)
    _do("forget", "--cohort", "people", "--sample", GONE, lake=lake)
    _do(
        "qc",
        "--cohort",
        "people",
        "--set",
        "qc.components=2",
        "--set",
        "qc.kinship=0.1",
        "--set",
        "qc.min_allele_frequency=0.05",
        lake=lake,
    )
    for name, text in TASKS.items():
        (inputs / f"{name}.toml").write_text(text)
    for task, cohort, label, settings in MODELS:
        of = (str(inputs / f"{task}.toml") if task in TASKS else task, "--cohort", cohort, "--label", label)
        _do("train", *of, "--procs", "1", *_set(f"{SMALL} {settings}"), lake=lake)
        if label == "status":
            _do(
                "evaluate",
                *of,
                *_set("evaluate.baselines=majority,logistic evaluate.resamples=20 report.by=site tracking.uri=off"),
                lake=lake,
            )
        _do("predict", *of, lake=lake)
    _do("query", "SELECT count(*) AS n FROM samples", lake=lake)
    _do("monitor", lake=lake)


def _set(settings: str) -> list[str]:
    return [part for setting in settings.split() for part in ("--set", setting)]


def _do(verb: str, *arguments: str, lake: Path) -> None:
    report = jobs.report_of(verb, [*arguments, "--lake", str(lake), "--master", "local[2]"])
    assert report["status"] == "done", (verb, arguments, report)


def _pack(folder: Path) -> None:
    """LAKE: the same bytes for the same files."""
    with tarfile.open(LAKE, "w:xz", preset=9, format=tarfile.USTAR_FORMAT) as archive:
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder)
            if path.is_file() and not set(_LEFT_OUT) & set(name.parts):
                entry = tarfile.TarInfo(str(name))
                entry.size, entry.mtime = path.stat().st_size, _WRITTEN
                archive.addfile(entry, io.BytesIO(path.read_bytes()))


def rows_of(table: Path) -> list[dict[str, Any]]:
    """The rows of a Delta table, asked of delta-rs: another reader than the one that has to find the same."""
    found = QueryBuilder().register("t", DeltaTable(str(table))).execute("SELECT * FROM t").read_all()
    names = list(found.column_names)
    return [
        dict(zip(names, values, strict=True))
        for values in zip(*(found[name].to_pylist() for name in names), strict=True)
    ]


def _facts(lake: Path) -> dict[str, Any]:
    """What the tables hold, and what the predictions were computed on."""
    tables = {log.parent.name: rows_of(log.parent) for log in sorted(lake.glob("*/_delta_log"))}
    told = {
        name: {"columns": list(rows[0]), "rows": len(rows), "sha256": digest(rows, rows[0])}
        for name, rows in tables.items()
    }
    return {"computed_on": processor(), "tables": told}


def main() -> None:
    # where the code of then has it; the tests take no more from here than what stands above
    from genodl_spark import session

    shutil.rmtree(_PLACE, ignore_errors=True)
    (_PLACE / "inputs").mkdir(parents=True)
    with session.shared():
        _write(_PLACE / "inputs", _PLACE / "lake")
    session.stop()
    _pack(_PLACE)
    FACTS.write_text(json.dumps(_facts(_PLACE / "lake"), indent=1) + "\n")
    shutil.rmtree(_PLACE)


if __name__ == "__main__":
    main()
