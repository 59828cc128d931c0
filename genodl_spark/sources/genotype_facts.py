"""What a page says of a cohort's genotypes: frequencies, missing calls, and where samples lie among each other. From
the tables of `genodl qc` where they are there, else from records taken evenly from all over the cohort's files."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genodl_spark.genetics import genotypes
from genodl_spark.genetics.cohort import Samples, samples_of
from genodl_spark.genetics.qc.components import standardised
from genodl_spark.genetics.qc.counts import column_sums
from genodl_spark.lake.schema import PERSON
from genodl_spark.lake.snapshot import Snapshot
from genodl_spark.lake.summaries import Reading
from genodl_spark.lake.tables.genetics import PRINCIPAL_COMPONENTS, QC_STEPS, SAMPLE_QC, VARIANT_QC
from genodl_spark.lake.tables.ingested import VARIANTS
from genodl_spark.report.clouds import DRAWN, cloud_of
from genodl_spark.report.content import several
from genodl_spark.report.facts import Bars, Cloud, Facts, Histogram, Listing
from genodl_spark.report.measures import Drawn, Greatest, Spread, lacking

_RECORDS = 20_000  # that are looked at without `genodl qc`
_FILES = 200
_CALLS = 4 << 20  # that are unpacked at once
_COMMON, _WHOLE, _FEWEST = 0.05, 0.9, 10  # least frequency, share of whole calls and samples of a record for components
_FREQUENCIES = np.linspace(0, 0.5, 26)


def facts_of(lake: Snapshot, cohort: str) -> list[Facts]:
    size = sum(file.statistics.get("numRecords") or 0 for file in lake.cohort_files(VARIANTS, cohort))
    samples = samples_of(lake, cohort)
    said = [f"{several(size, 'record')} of {several(len(samples.names), 'sample')}."]
    if not samples.names or not size:
        return [Facts("Genotypes", [f"{several(size, 'record')} without genotypes."])]
    steps = lake.rows(QC_STEPS, {"cohort": cohort}).to_pylist()
    made = min((row["done_at"] for row in steps), default=None)
    rates, cloud = _of_qc(lake, cohort, {row["step"]: dict(row["metrics"]) for row in steps})
    thinned = _thinned(lake, cohort, samples, size) if rates is None or cloud is None else None
    if rates is not None:
        said.append(f"Frequencies and missing calls are those of genodl qc, of {made:%Y-%m-%d}.")
    elif thinned is not None:
        rates = thinned.rates(samples)
        some = several(thinned.records, "record")
        some = f"{some} from all over the cohort" if thinned.records < size else "all records"
        said.append(f"Frequencies and missing calls are of {some}; genodl qc has tables of all.")
    assert rates is not None
    if cloud is None and thinned is not None:
        cloud = thinned.cloud(samples, size)
    more, bars, listings = rates.shown()
    return [Facts("Genotypes", said + more, bars, listings, [] if cloud is None else [cloud])]


class Rates:
    """How often calls are missing, by sample and by variant, and how frequent the rarer allele of each variant is."""

    def __init__(self) -> None:
        self.of_samples, self.worst_samples = Spread(), Greatest()
        self.of_variants, self.worst_variants = Spread(), Greatest()
        self.frequencies, self.single = np.zeros(len(_FREQUENCIES) - 1), 0

    def add_samples(self, names: pa.Array, missing: np.ndarray) -> None:
        """Share of missing calls of each, float64, NaN unknown."""
        self.of_samples.add(missing)
        self.worst_samples.add(names, np.nan_to_num(missing))

    def add_variants(self, names: pa.Array, missing: np.ndarray, frequency: np.ndarray) -> None:
        """The same of variants, and the frequency of the alternative allele."""
        self.of_variants.add(missing)
        self.worst_variants.add(names, np.nan_to_num(missing))
        known = frequency[~np.isnan(frequency)]
        rarer = np.minimum(known, 1 - known)
        self.single += int((rarer <= 0).sum())
        self.frequencies += np.histogram(rarer[rarer > 0], _FREQUENCIES)[0]

    def add(self, rows: pa.RecordBatch) -> None:
        """Rows of SAMPLE_QC or VARIANT_QC."""
        missing = 1 - _floats(rows.column("call_rate"))
        if "sample_id" in rows.schema.names:
            self.add_samples(rows.column("sample_id"), missing)
        else:
            self.add_variants(
                named(*(rows.column(c) for c in ("contig", "pos", "ref", "alt"))),
                missing,
                _floats(rows.column("frequency")),
            )

    def merge(self, other: Rates) -> None:
        for name in ("of_samples", "worst_samples", "of_variants", "worst_variants"):
            getattr(self, name).merge(getattr(other, name))
        self.frequencies += other.frequencies
        self.single += other.single

    def shown(self) -> tuple[list[str], list[Bars], list[Listing]]:
        n, varied = self.single + int(self.frequencies.sum()), int(self.frequencies.sum())
        rare = self.frequencies[:1].sum() / max(varied, 1)
        said = f"{varied:,} of {n:,} alleles vary; {rare:.1%} of these are below {_FREQUENCIES[1]:.0%}."
        title = "Frequency of the rarer allele"
        caption = f"{said} Heights are on a logarithmic scale; alleles that do not vary are left out."
        bars = [
            Bars(
                title,
                caption,
                f"{title}: {said}",
                Histogram(_FREQUENCIES, self.frequencies),
                "Frequency",
                "Alleles",
                True,
            )
        ]
        sides = {
            "sample": (self.of_samples, self.worst_samples),
            "variant": (self.of_variants, self.worst_variants),
        }
        more, pictures, listings = lacking(sides, "call")
        return [said, *more], bars + pictures, listings


def named(contig: pa.Array, pos: pa.Array, ref: pa.Array, alt: pa.Array) -> pa.Array:
    """contig:pos:ref:alt of each."""
    return pc.binary_join_element_wise(
        contig.cast(pa.string()), pos.cast(pa.string()), ref, pc.fill_null(alt, "."), ":"
    )


def _floats(column: pa.Array) -> np.ndarray:
    return np.asarray(column.cast(pa.float64()).to_numpy(zero_copy_only=False), np.float64)


class Coordinates:
    """A sample of rows of PRINCIPAL_COMPONENTS."""

    def __init__(self) -> None:
        self.drawn, self.rows = Drawn(DRAWN), 0
        self.of: dict[str, list[float]] = {}

    def add(self, rows: pa.RecordBatch) -> None:
        self.rows += rows.num_rows
        names = rows.column("sample_id")
        self.drawn.add(names)
        kept = pc.is_in(names, pa.array(self.drawn.names.tolist(), pa.string()))
        self.of |= dict(
            zip(names.filter(kept).to_pylist(), rows.column("components").filter(kept).to_pylist(), strict=True)
        )
        self._cut()

    def merge(self, other: Coordinates) -> None:
        self.rows += other.rows
        self.drawn.merge(other.drawn)
        self.of |= other.of
        self._cut()

    def _cut(self) -> None:
        self.of = {name: self.of[name] for name in self.drawn.names if name in self.of}


def _of_qc(lake: Snapshot, cohort: str, steps: dict[str, dict[str, float]]) -> tuple[Rates | None, Cloud | None]:
    """What the tables of `genodl qc` say, as far as they are there; `steps`: figures of those that were done."""
    rates = cloud = None
    where = {"cohort": cohort}
    if {"samples", "variants"} <= steps.keys():
        rates = Reading(SAMPLE_QC, where, ["sample_id", "call_rate"]).summarise(lake, Rates())
        columns = ["contig", "pos", "ref", "alt", "call_rate", "frequency"]
        rates.merge(Reading(VARIANT_QC, where, columns).summarise(lake, Rates()))
    if "components" in steps:
        found = Reading(PRINCIPAL_COMPONENTS, where, ["sample_id", "components"]).summarise(lake, Coordinates())
        ids = found.drawn.sorted
        if len(ids) > 2:
            points = np.array([found.of[name] for name in ids], np.float64)[:, :4]
            spread = np.square(points).sum(0)
            values = sorted((v for k, v in steps["components"].items() if k.startswith("eigenvalue")), reverse=True)
            shares = np.array(values[: points.shape[1]]) / found.rows if len(values) >= points.shape[1] else spread
            some = (
                f"{len(ids):,} of {found.rows:,} samples, drawn by chance" if len(ids) < found.rows else "All samples"
            )
            about = f"{some}, on the components of genodl qc; shares are those of the eigenvalues."
            cloud = Cloud("Principal components", about, PERSON, ids, points, shares)
    return rates, cloud


@dataclass
class Thinned:
    """Of records taken from all over: missing calls of each sample and of each record, frequencies, and the copies of
    common alleles in a sample of people.

    `places`: of each sample set its samples among all; `drawn`: of those the ones for components, int64 ascending.
    """

    places: dict[str, np.ndarray]
    drawn: np.ndarray
    samples: int

    def __post_init__(self) -> None:
        self.records = 0
        self.made = Rates()
        self.calls, self.lacking = np.zeros(self.samples, np.int64), np.zeros(self.samples, np.int64)
        self.common: list[np.ndarray] = []  # int8 (V, drawn), -1 missing

    def add(self, rows: pa.RecordBatch) -> None:
        rows = rows.filter(
            pc.and_(rows.column("gt").is_valid(), pc.greater(pc.list_value_length(rows.column("alts")), 0))
        )
        for _, records, samples, sample_set in genotypes.alike(rows, _CALLS):
            counts = genotypes.counts(records.column("gt"), samples)
            copies = genotypes.dosages(records.column("gt"), samples)
            self.records += len(counts)
            with np.errstate(invalid="ignore", divide="ignore"):
                frequency = counts[:, 0] / counts[:, 1]
            alt = pc.list_element(records.column("alts"), 0)
            names = named(records.column("contig"), records.column("pos"), records.column("ref"), alt)
            self.made.add_variants(names, 1 - counts[:, 2] / max(samples, 1), frequency)
            places = self.places[sample_set]
            self.calls[places] += len(counts)
            self.lacking[places] += column_sums(copies < 0)
            rarer = np.minimum(frequency, 1 - frequency)
            wanted = (rarer >= _COMMON) & (counts[:, 2] >= _WHOLE * samples) & (samples >= _FEWEST)
            if wanted.any():
                whole = np.full((int(wanted.sum()), self.samples), -1, np.int8)
                whole[:, places] = copies[wanted]
                self.common.append(whole[:, self.drawn])

    def merge(self, other: Thinned) -> None:
        self.records += other.records
        self.made.merge(other.made)
        self.calls += other.calls
        self.lacking += other.lacking
        self.common += other.common

    def rates(self, samples: Samples) -> Rates:
        whole = copy.deepcopy(self.made)
        with np.errstate(invalid="ignore", divide="ignore"):
            whole.add_samples(pa.array(samples.names, pa.string()), self.lacking / self.calls)
        return whole

    def cloud(self, samples: Samples, size: int) -> Cloud | None:
        if not self.common:
            return None
        copies = np.concatenate(self.common)
        ids = [samples.names[place] for place in self.drawn.tolist()]
        some = (
            f"{len(ids):,} of {self.samples:,} samples, drawn by chance," if len(ids) < self.samples else "All samples"
        )
        about = (
            f"{some} and {len(copies):,} alleles of {_COMMON:.0%} or more, of {self.records:,} records looked at"
            f" of {size:,}; in units of their expected deviation, without regard to linkage."
        )
        return cloud_of(about, PERSON, ids, standardised(copies).T)


def _thinned(lake: Snapshot, cohort: str, samples: Samples, size: int) -> Thinned:
    drawn = Drawn(DRAWN)
    drawn.add(pa.array(samples.names, pa.string()))
    chosen = set(drawn.names.tolist())
    places = np.array([place for place, name in enumerate(samples.names) if name in chosen], np.int64)
    reading = Reading(
        VARIANTS,
        {"cohort": cohort},
        ["contig", "pos", "ref", "alts", "gt", "n_samples", "sample_set"],
        at_once=2048,
    )
    files = sorted(reading.files(lake), key=lambda file: file.path)
    if size > _RECORDS:
        files = [files[len(files) * i // _FILES] for i in range(_FILES)] if len(files) > _FILES else files
        reading = replace(reading, most=-(-_RECORDS // len(files)))
    return reading.summarise(lake, Thinned(samples.places, places, len(samples.names)), files)
