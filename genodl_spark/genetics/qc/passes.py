"""Passes over the files of a cohort, in tasks: what each batch of records gives, and how the parts add up."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields, replace
from functools import reduce
from operator import add
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from genodl_spark.core import packing
from genodl_spark.genetics import genotypes
from genodl_spark.genetics.cohort import Samples
from genodl_spark.genetics.qc.components import gram_product, standardised
from genodl_spark.genetics.qc.counts import Measured, histogram, measures, subfield
from genodl_spark.genetics.qc.kinship import PairSums, add_pairs, kinship
from genodl_spark.genetics.qc.linkage import Pruner
from genodl_spark.genetics.qc.samples import SampleSums, sample_statistics, sample_sums
from genodl_spark.genetics.qc.variants import OTHER, substitution, variant_statistics
from genodl_spark.lake.files import StoredFile, opened
from genodl_spark.lake.parts import PartWriter
from genodl_spark.lake.tables.genetics import SAMPLE_QC, VARIANT_QC

if TYPE_CHECKING:
    Batches = Iterable[pa.RecordBatch]
    import pandas as pd

SITE = ["contig", "pos", "ref", "alt"]
COUNTS = ["hom_ref", "het", "hom_alt", "missing", "ac", "an", "depth", "depth_calls", "quality", "quality_calls"]
_CALLS = 4 << 20  # calls that a task unpacks at once: the matrices made of them stay in the tens of MB
_SUBSTITUTIONS = np.array(["other", "transition", "transversion"], object)  # by class
_RELATIONS = ["unrelated", "third", "second", "first", "duplicate"]
_BORDERS = 2.0 ** np.array([-4.5, -3.5, -2.5, -1.5])  # Manichaikul 2010, table 1
_MEASURES = {"depth": "DP", "quality": "GQ"}
_ROWS_READ = 2048
_ROWS_MADE = 1 << 16  # rows of VARIANT_QC that a task makes at once


def _measures(records: pa.RecordBatch, samples: int) -> dict[str, np.ndarray]:
    """Depths and genotype qualities int32 (V, S), -1 missing, of those that any record has."""
    found: dict[str, np.ndarray] = {}
    if "format" not in records.schema.names:
        return found
    known = pc.and_(records.column("format").is_valid(), records.column("fields").is_valid())
    formats = np.array(pc.if_else(known, records.column("format"), "").to_pylist(), object)
    for text in set(formats.tolist()):
        keys = text.split(":")[1:] if text.startswith("GT:") else text.split(":")
        rows = np.flatnonzero(formats == text)
        for name, key in _MEASURES.items():
            if key in keys:
                values = found.setdefault(name, np.full((len(formats), samples), -1, np.int32))
                values[rows] = subfield(
                    records.column("fields").take(pa.array(rows)).to_pylist(), keys.index(key), samples
                )
    return found


def _records_of(
    group: list[StoredFile], columns: list[str], depth: bool
) -> Iterator[tuple[StoredFile, pa.RecordBatch]]:
    """Records with genotypes of a group of files of `variants`, straight from Parquet:
    through the JVM they take ten times as long."""
    for file in group:
        with opened(file.uri, file.checksum) as stored:
            wanted = [*columns, *(["format", "fields"] if depth and _has_measures(stored) else [])]
            for batch in stored.iter_batches(_ROWS_READ, columns=wanted, use_threads=False):
                known = batch.filter(batch.column("gt").is_valid())
                if known.num_rows:
                    yield file, known


def _has_measures(stored: pq.ParquetFile) -> bool:
    return any(key in text.split(":") for text in _formats(stored) for key in _MEASURES.values())


def _formats(stored: pq.ParquetFile) -> set[str]:
    """The FORMAT texts of a file, from its footer where this tells."""
    metadata = stored.metadata
    place = metadata.schema.names.index("format")
    found = [metadata.row_group(group).column(place).statistics for group in range(metadata.num_row_groups)]
    if all(s is not None and s.has_min_max and s.min == s.max for s in found):
        return {s.min for s in found}
    formats: set[str] = set()
    for batch in stored.iter_batches(1 << 20, columns=["format"], use_threads=False):
        formats |= set(pc.unique(batch.column("format")).to_pylist())
    return formats - {None}


def write_variant_rows(
    batches: Batches,
    shares: list[list[list[StoredFile]]],
    cohort: str,
    autosomal: dict[str, bool],
    depth: bool,
    target: str,
    name: str,
) -> Iterator[pa.RecordBatch]:
    """For mapInArrow over indices into `shares`, groups of files each: writes their rows of VARIANT_QC,
    and gives the files written."""
    schema = VARIANT_QC.arrow_schema()
    for index in (i for batch in batches for i in batch.column(0).to_pylist()):
        writer = PartWriter(VARIANT_QC, target, f"{name}-{index:05d}")
        counted = (_counted(group, autosomal[group[0].partition["contig"]], depth) for group in shares[index])
        for made in _variant_rows(_joined(counted, _ROWS_MADE)):
            columns = [pa.repeat(pa.scalar(cohort), made.num_rows), *made.columns]
            writer.write(
                pa.RecordBatch.from_arrays(
                    [c.cast(f.type) for c, f in zip(columns, schema, strict=True)], schema=schema
                )
            )
        yield pa.RecordBatch.from_arrays([pa.array([part.as_json() for part in writer.close()], pa.string())], ["part"])


def _counted(group: list[StoredFile], autosomal: bool, depth: bool) -> Iterator[pa.RecordBatch]:
    """Counts of each site and ALT allele of a group of files, once each."""
    counted = list(_count_alleles(_alleles_of(group, depth)))
    if not counted:
        return
    rows = pa.Table.from_batches(counted)
    if len(group) > 1 or _repeats(rows):
        sums = rows.group_by(SITE).aggregate([("alt_number", "min"), *((c, "sum") for c in COUNTS)])
        rows = sums.rename_columns([c.removesuffix("_min").removesuffix("_sum") for c in sums.column_names]).select(
            rows.column_names
        )
        rows = rows.take(pc.sort_indices(rows, [(c, "ascending") for c in SITE]))
    yield from rows.append_column("autosomal", pa.repeat(pa.scalar(autosomal), rows.num_rows)).to_batches()


def _joined(parts: Iterable[Batches], rows: int) -> Iterator[pa.RecordBatch]:
    """The same rows in batches of `rows` and a smaller one: what follows costs by the batch."""
    held: list[pa.RecordBatch] = []
    for batch in (batch for part in parts for batch in part):
        held.append(batch)
        while sum(b.num_rows for b in held) >= rows:
            whole = pa.Table.from_batches(held).combine_chunks()
            yield from whole.slice(0, rows).to_batches()
            held = whole.slice(rows).to_batches()
    if held:
        yield from pa.Table.from_batches(held).combine_chunks().to_batches()


def _repeats(rows: pa.Table) -> bool:
    """Whether a site may stand twice: rows of a file are in order of position as a rule, and few share one."""
    pos = rows.column("pos").to_numpy()
    if (pos[1:] < pos[:-1]).any():
        return True
    shared = np.flatnonzero(np.isin(pos, pos[1:][pos[1:] == pos[:-1]]))
    sites = [rows.column(name).take(pa.array(shared)).to_pylist() for name in ("pos", "ref", "alt")]
    return len(set(zip(*sites, strict=True))) < len(shared)


def _alleles_of(group: list[StoredFile], depth: bool) -> Iterator[pa.RecordBatch]:
    """A row per record and ALT allele, as `_count_alleles` takes them."""
    for file, batch in _records_of(group, ["pos", "ref", "alts", "alt_number", "n_samples", "sample_set", "gt"], depth):
        alts = batch.column("alts")
        of = pc.list_parent_indices(alts).cast(pa.int64())
        sizes = pc.list_value_length(alts)
        first = np.cumsum(sizes.to_numpy()) - sizes.to_numpy()
        allele = np.arange(len(of)) - np.repeat(first, sizes.to_numpy()) + 1
        whole = len(of) == batch.num_rows and bool((sizes.to_numpy() == 1).all())
        rows = {
            name: batch.column(name) if whole else batch.column(name).take(of)
            for name in batch.schema.names
            if name != "alts"
        }
        stated = rows["alt_number"].to_numpy()
        rows["alt_number"] = pa.array(np.where(stated > 0, stated, allele).astype(np.int32))
        rows |= {
            "alt": alts.flatten(),
            "allele": pa.array(allele.astype(np.int32)),
            "alleles": sizes if whole else sizes.take(of),
        }
        rows["contig"] = pa.repeat(pa.scalar(file.partition["contig"]), len(of))
        yield pa.RecordBatch.from_arrays(list(rows.values()), list(rows))


def sum_samples_of(batches: Batches, groups: list[list[StoredFile]], depth: bool) -> Iterator[pa.RecordBatch]:
    """For mapInArrow over indices into `groups`: sums of each sample set."""
    columns = ["ref", "alts", "n_samples", "sample_set", "gt"]
    indices = (i for batch in batches for i in batch.column(0).to_pylist())
    yield from _sum_samples(batch for i in indices for _, batch in _records_of(groups[i], columns, depth))


def _count_alleles(batches: Batches) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        counts = np.zeros((len(COUNTS), batch.num_rows), np.int64)
        for rows, records, samples, _ in genotypes.alike(batch, _CALLS):
            gt, allele = records.column("gt"), records.column("allele").to_numpy()
            found = genotypes.counts(gt, samples, allele)
            counts[:4, rows], counts[4:6, rows] = found[:, 3:].T, found[:, :2].T
            several = records.column("alleles").to_numpy() > 1
            if several.any():  # heterozygous with any other allele is heterozygous; the rest has no copy of this one
                of_allele = genotypes.dosages(gt.filter(pa.array(several)), samples, allele[several])
                counts[:4, rows[several]] = histogram(of_allele).T
            for name, values in _measures(records, samples).items():
                measured, _ = measures(values)
                place = COUNTS.index(name)
                counts[place, rows], counts[place + 1, rows] = measured.total, measured.number
        columns = [batch.column(name) for name in SITE]
        number = batch.column("alt_number").cast(pa.int32())
        yield pa.RecordBatch.from_arrays(
            [*columns, number, *(pa.array(c) for c in counts)], [*SITE, "alt_number", *COUNTS]
        )


def _letters(alleles: pa.StringArray) -> np.ndarray:
    """The letter of alleles of one, uint8 (V,), 0 for others."""
    data, offsets = packing.binary(alleles)
    letters = np.zeros(len(alleles), np.uint8)
    single = np.diff(offsets) == 1
    letters[single] = data[offsets[:-1][single]]
    return letters


def _known(values: np.ndarray, known: np.ndarray) -> pa.Array:
    return pa.array(values, mask=~(known & np.isfinite(values)))


def _variant_rows(batches: Batches) -> Iterator[pa.RecordBatch]:
    names = [c.name for c in VARIANT_QC.columns if c.name != "cohort"]
    for batch in batches:
        c = {name: batch.column(name).to_numpy() for name in COUNTS}
        statistics = variant_statistics(np.stack([c[name] for name in COUNTS[:4]], 1))
        called = c["an"] > 0
        tested = called & batch.column("autosomal").to_numpy(zero_copy_only=False)
        kinds = substitution(_letters(batch.column("ref")), _letters(batch.column("alt")))
        made: dict[str, pa.Array] = {
            **{name: batch.column(name) for name in [*SITE, "alt_number", *COUNTS]},
            "substitution": pa.array(_SUBSTITUTIONS[kinds], pa.string()),
            "call_rate": _known(statistics.call_rate, np.ones(len(called), bool)),
            "frequency": _known(c["ac"] / np.maximum(c["an"], 1), called),
            "hwe_p": _known(statistics.hwe_p, tested),
            "hwe_mid_p": _known(statistics.hwe_mid_p, tested),
            **{
                f"mean_{name}": _known(c[name] / np.maximum(c[f"{name}_calls"], 1), c[f"{name}_calls"] > 0)
                for name in _MEASURES
            },
        }
        yield pa.RecordBatch.from_arrays([made[name] for name in names], names)


_SAMPLE_SUMS = [f.name for f in fields(SampleSums)]
SUMS = len(_SAMPLE_SUMS) + 2 * len(_MEASURES)  # rows of a matrix of sums: these, then total and number of each measure


def unpack_sums(packed: bytes) -> np.ndarray:
    return np.frombuffer(packed, "<f8").reshape(SUMS, -1)  # whole numbers below 2^53 are exact


def _sum_samples(batches: Batches) -> Iterator[pa.RecordBatch]:
    total: dict[str, np.ndarray] = {}
    for batch in batches:
        for _, records, samples, sample_set in genotypes.alike(batch, _CALLS):
            sums = total.setdefault(sample_set, np.zeros((SUMS, samples)))
            alleles = pc.list_value_length(records.column("alts")).to_numpy()
            for several, found in ((alleles == 1, _biallelic), (alleles != 1, _other_records)):
                if several.any():
                    part = found(records.filter(pa.array(several)), samples)
                    sums[: len(_SAMPLE_SUMS)] += np.stack([getattr(part, name) for name in _SAMPLE_SUMS])
            measured = _measures(records, samples)
            for place, name in enumerate(_MEASURES):
                if name in measured:
                    sums[len(_SAMPLE_SUMS) + 2 * place :][:2] += np.stack(measures(measured[name])[1])
    for sample_set, sums in total.items():
        yield pa.RecordBatch.from_arrays(
            [pa.array([sample_set]), pa.array([sums.tobytes()], pa.binary())], ["sample_set", "sums"]
        )


def _biallelic(records: pa.RecordBatch, samples: int) -> SampleSums:
    kinds = substitution(_letters(records.column("ref")), _letters(records.column("alts").flatten()))
    return sample_sums(genotypes.dosages(records.column("gt"), samples), kinds)


def _other_records(records: pa.RecordBatch, samples: int) -> SampleSums:
    """Of records with no ALT or several, which take part in neither Ti/Tv nor inbreeding.
    A call of two different ALT is heterozygous."""
    alleles, _ = genotypes.unpack(records.column("gt"), samples)
    there = alleles >= 0
    lowest, highest = np.where(there, alleles, 32767).min(2), alleles.max(2)
    code = np.where(highest == 0, 0, np.where(lowest == highest, 2, 1))
    code = np.where((alleles == genotypes.MISSING).any(2) | ~there.any(2), -1, code).astype(np.int8)
    none = np.zeros(len(code), bool)
    sums = sample_sums(code, np.full(len(code), OTHER), for_het=none)
    singletons = np.zeros(samples, np.int64)
    for allele in range(1, int(highest.max(initial=0)) + 1):
        copies = (alleles == allele).sum(2)
        singletons += copies[copies.sum(1) == 1].sum(0)
    return replace(sums, singletons=singletons)


def add_sums(parts: pd.DataFrame) -> pd.DataFrame:
    import pandas as pd

    total = reduce(add, (unpack_sums(packed) for packed in parts["sums"]))
    return pd.DataFrame({"sample_set": [parts["sample_set"].iloc[0]], "sums": [total.tobytes()]})


def sample_rows(cohort: str, names: list[str], total: np.ndarray) -> list[dict[str, Any]]:
    sums = SampleSums(*total[: len(_SAMPLE_SUMS)])
    found = sample_statistics(sums)
    columns: dict[str, np.ndarray] = {f.name: getattr(found, f.name) for f in fields(found)}
    columns |= {name: getattr(sums, name) for name in ("variants", "transitions", "transversions")}
    for place, name in enumerate(_MEASURES):
        measured, number = total[len(_SAMPLE_SUMS) + 2 * place :][:2]
        columns[f"mean_{name}"] = Measured(measured, number).mean()
    whole = {c.name for c in SAMPLE_QC.columns if c.type == "bigint"}
    lists = {
        name: values.astype(np.int64).tolist() if name in whole else [v if v == v else None for v in values.tolist()]
        for name, values in columns.items()
    }
    return [
        {"cohort": cohort, "sample_id": s, **{name: values[i] for name, values in lists.items()}}
        for i, s in enumerate(names)
    ]


def _dosage_blocks(batch: pa.RecordBatch, samples: Samples) -> Iterator[tuple[int, np.ndarray]]:
    """The batch's first row, and the genotypes of all samples of the cohort int8 (V, S),
    of as many records as are unpacked at once."""
    width = len(samples.names)
    size = max(_CALLS // max(width, 1), 1)
    for start in range(0, batch.num_rows, size):
        parts = batch.column("parts").slice(start, size)
        lengths = pc.list_value_length(parts).to_numpy()
        flat = parts.flatten()
        row, sets, gt = (
            np.repeat(np.arange(len(parts)), lengths),
            np.array(flat.field("sample_set").to_pylist(), object),
            flat.field("gt"),
        )
        dosages = np.full((len(parts), width), -1, np.int8)
        for sample_set in sorted(set(sets.tolist())):
            mine, places = np.flatnonzero(sets == sample_set), samples.places[sample_set]
            values = genotypes.dosages(gt.take(pa.array(mine)), len(places))
            at = (row[mine][:, None], places[None, :])
            if len(mine) == len(set(row[mine].tolist())):
                # a sample in several call sets: the call wins over the missing one
                dosages[at] = np.maximum(dosages[at], values)
            else:
                np.maximum.at(dosages, at, values)
        yield start, dosages


def choose(batches: Batches, samples: Samples, min_frequency: float, max_missing: float) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        kept = np.zeros(batch.num_rows, bool)
        for start, dosages in _dosage_blocks(batch, samples):
            counts = histogram(dosages)
            called = counts[:, :3].sum(1)
            frequency = (counts[:, 1] + 2 * counts[:, 2]) / np.maximum(2 * called, 1)
            rarer = np.minimum(frequency, 1 - frequency)
            kept[start : start + len(dosages)] = (
                (rarer > 0) & (rarer >= min_frequency) & (counts[:, 3] <= max_missing * dosages.shape[1])
            )
        yield batch.filter(pa.array(kept))


def prune(batches: Batches, samples: Samples, pruner: Callable[[], Pruner]) -> Iterator[pa.RecordBatch]:
    """Sites that stay, of contigs that come one after the other."""
    contig: str | None = None
    current, sites = pruner(), list[pa.RecordBatch]()
    for batch in batches:
        names = np.array(batch.column("contig").to_pylist(), object)
        ends = [*(np.flatnonzero(names[1:] != names[:-1]) + 1).tolist(), len(names)]
        start = 0
        for end in ends:
            if start == end:
                continue
            if names[start] != contig:
                yield from _kept(current, sites)
                contig, current, sites = names[start], pruner(), []
            run = batch.slice(start, end - start)
            positions = run.column("pos").to_numpy()
            for first, dosages in _dosage_blocks(run, samples):
                current.add(dosages, positions[first : first + len(dosages)])
            sites.append(run.select(SITE))
            start = end
    yield from _kept(current, sites)


def _kept(pruner: Pruner, sites: list[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    kept, start = pruner.finish(), 0
    for batch in sites:
        yield batch.filter(pa.array(kept[start : start + batch.num_rows]))
        start += batch.num_rows


def pair_sums(batches: Batches, samples: Samples, places: dict[int, tuple[slice, slice]]) -> Iterator[pa.RecordBatch]:
    sums = [PairSums.empty(a.stop - a.start, b.stop - b.start) for a, b in places.values()]
    for batch in batches:
        for _, dosages in _dosage_blocks(batch, samples):
            add_pairs(sums, list(places.values()), dosages)
    for number, part in zip(places, sums, strict=True):
        if part.variants:
            yield pa.RecordBatch.from_arrays(
                [pa.array([number], pa.int32()), pa.array([part.pack()], pa.binary())], ["tile", "sums"]
            )


def related(
    parts: pd.DataFrame, places: dict[int, tuple[slice, slice]], names: list[str], threshold: float
) -> pd.DataFrame:
    import pandas as pd

    sums = reduce(add, (PairSums.unpack(packed) for packed in parts["sums"]))
    pairs = kinship(sums, places[int(parts["tile"].iloc[0])], threshold)
    ids = np.array(names, object)
    return pd.DataFrame(
        {
            "sample_1": ids[pairs.first],
            "sample_2": ids[pairs.second],
            "variants": pairs.variants,
            "het_het": pairs.het_het,
            "ibs0": pairs.ibs0,
            "kinship": pairs.kinship,
            "relation": np.array(_RELATIONS, object)[np.searchsorted(_BORDERS, pairs.kinship)],
        }
    )


def gram_products(batches: Batches, samples: Samples, q: np.ndarray) -> Iterator[pa.RecordBatch]:
    product = np.zeros(q.shape)
    for batch in batches:
        for _, dosages in _dosage_blocks(batch, samples):
            product += gram_product(standardised(dosages), q)
    yield pa.RecordBatch.from_arrays([pa.array([product.astype("<f8").tobytes()], pa.binary())], ["product"])
