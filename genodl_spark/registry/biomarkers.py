"""Features that tell classes apart, by tests in the training sets of a registered model and by its attributions: rows
of `biomarkers`, and of `enrichment` where gene sets are given."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from genodl_spark.core import storage
from genodl_spark.core.errors import InputError
from genodl_spark.core.session import task_slots
from genodl_spark.formats import gmt
from genodl_spark.job.run import Run, code_of, fingerprint, now
from genodl_spark.lake.delta import condition
from genodl_spark.lake.tables.learning import ATTRIBUTIONS, BIOMARKERS, DATASETS, ENRICHMENT, EXAMPLES
from genodl_spark.learning.biomarkers import consensus, enrichment, planted
from genodl_spark.learning.biomarkers.consensus import Consensus
from genodl_spark.learning.biomarkers.differences import Differences, benjamini_hochberg, ranks
from genodl_spark.learning.biomarkers.fits import Sought
from genodl_spark.learning.biomarkers.stability import Stability
from genodl_spark.learning.heads import Head
from genodl_spark.learning.training import plan
from genodl_spark.registry.incremental import digest
from genodl_spark.registry.models import Chosen
from genodl_spark.registry.scores import fits_of
from genodl_spark.report.content import several
from genodl_spark.sources.person import WITHDRAWN

if TYPE_CHECKING:
    from pyspark.sql import Row

log = logging.getLogger("genodl")

_SAID = (
    "head int, repeat int, fold int, test string, rank binary, significant binary, frequency binary, "
    "stability array<double>, effect binary, of binary, statistic binary, p_value binary, reason array<string>, "
    "planted array<double>"
)
_NAMED = 20  # biomarkers that the run report names
_PLANTED = 100  # differences from which on it counts how much of what is found is false


def check(run: Run, model: Chosen, cohort: str) -> bool:
    """Whether biomarkers are to be found; warns where they are, and cannot be in that cohort. InputError where the
    model has none, and for a file of gene sets that cannot be read."""
    if not run.settings.biomarkers.find:
        if run.settings.enrichment.gmt:
            text = f"found {run.settings.enrichment.gmt}, and no biomarkers are sought; expected biomarkers.find=true"
            raise InputError(text, "enrichment.gmt")
        return False
    if model.encoding.letters or not model.encoding.scaled:
        raise InputError("found a model of sequences; expected one of measured values", "biomarkers.find")
    if not _heads(model):
        text = f"found a model of {', '.join(head.kind for head in model.card.predicted)}; expected one of classes"
        raise InputError(text, "biomarkers.find")
    if run.settings.enrichment.gmt:
        gmt.read(run.settings.enrichment.gmt)
    if cohort != model.row.cohort:
        run.report.warn(
            f"biomarkers are found in the training sets of cohort {model.row.cohort}, which trained the model: "
            f"none are of {cohort}"
        )
        return False
    return True


def _heads(model: Chosen) -> list[tuple[int, Head]]:
    return [(i, head) for i, head in enumerate(model.card.predicted) if head.classes]


def where(model: Chosen) -> dict[str, str]:
    """What rows of `biomarkers` and `enrichment` of a model have in common."""
    return {"task": model.row.task, "cohort": model.row.cohort, "model_id": model.row.model_id}


def bring_up_to_date(run: Run, model: Chosen, force: bool) -> bool:
    """Finds biomarkers of a model in its training sets, and gene sets among them, unless that was done; returns whether
    it did. Rows of who has withdrawn are in no test; whether they were is warned of."""
    from pyspark.sql import functions as F

    dataset = DATASETS.row(run.lake.rows(DATASETS, {"dataset": model.row.dataset}).to_pylist()[0])
    rows = run.lake.read(EXAMPLES).where(condition({"dataset": dataset.dataset}))
    withdrawn = F.col("entity_id") == F.concat(F.lit(f"{WITHDRAWN} "), "row_id")
    there = rows.agg(F.count("*").alias("rows"), F.count_if(withdrawn).alias("withdrawn")).collect()[0]
    if there.rows != dataset.rows:
        run.report.warn("the training data is not in the lake any more: biomarkers stay as they are, train again")
        return False
    if there.withdrawn:
        text = f"found {several(there.withdrawn, 'row')} of the training data withdrawn: biomarkers are of the others"
        run.report.warn(f"{text}, and the model is of all; train it again")
    attributed = _attributed(run, model)
    asked = run.settings.biomarkers.model_dump()
    numbers = {name: hashlib.sha256(rank.tobytes()).hexdigest() for name, rank in attributed.items()}
    gone = [there.withdrawn] if there.withdrawn else []
    code = [code_of(module.__name__, model.settings) for module in (consensus, planted)]
    made_of = digest(asked, sorted(map(str, numbers.items())), *code, *gone)
    mark = f"biomarkers {fingerprint(where(model))}"
    done = False
    if run.lake.marked(BIOMARKERS, [mark]) != {mark: made_of} or force:
        rows = _found(run, model, dataset, attributed)
        run.lake.create(BIOMARKERS)
        run.lake.replace(BIOMARKERS, rows, where(model), {mark: made_of})
        run.wrote(BIOMARKERS, rows.num_rows)
        done = True
    else:
        run.wrote(BIOMARKERS, 0)
    return _sets(run, model, made_of, force) or done


# --- biomarkers


def _attributed(run: Run, model: Chosen) -> dict[tuple[str, str], np.ndarray]:
    """Ranks of the model's features float64 (F,) by the sizes of attributions in the rows that the model learnt from,
    over all classes, by label column and method; those of the settings alone."""
    if not run.lake.exists(ATTRIBUTIONS):
        return {}
    place = {name: i for i, name in enumerate(model.card.features)}
    rows = run.lake.read(ATTRIBUTIONS, cohort=model.row.cohort).where(condition(where(model)))
    columns = ("label_column", "method", "feature", "learnt_absolute", "learnt")
    table = rows.where("feature IS NOT NULL AND learnt > 0").select(*columns).toArrow().to_pydict()
    sums: dict[tuple[str, str], np.ndarray] = {}
    for label, method, feature, size, entities in zip(*(table[name] for name in columns), strict=True):
        if method in run.settings.biomarkers.attributions and feature in place:
            own = sums.setdefault((label, method), np.zeros(len(place)))
            own[place[feature]] += size * entities
    return {key: ranks(own) for key, own in sorted(sums.items())}


def _found(run: Run, model: Chosen, dataset: Row, attributed: dict[tuple[str, str], np.ndarray]) -> pa.Table:
    """Rows of `biomarkers` of all heads of classes."""
    fits = fits_of(run.under(model.as_trained), dataset, None, model.row.seed, model.settings.evaluate)
    sought = Sought(fits, run.settings.biomarkers)
    sets = plan.training_sets(dataset.repeats if dataset.folds else 0, dataset.folds)
    # The registered model's first, as differences are planted into its rows, too.
    work = [(head, one.repeat, one.fold) for head, _ in _heads(model) for one in reversed(sets)]
    log.info("testing %d features in %d training sets", dataset.n_features, len(work))
    tasks = min(len(work), 4 * task_slots(run.spark))

    def kernel(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for task in batch.column(0).to_pylist():
                for head, repeat, fold in work[task::tasks]:
                    also = sought.planted(head) if fold == plan.REGISTERED else None
                    yield _as_row(sought.of(head, repeat, fold), head, repeat, fold, also)

    said = run.spark.range(0, tasks, 1, tasks).mapInArrow(kernel, _SAID).toArrow().to_pylist()
    parts = []
    for number, head in _heads(model):
        mine = sorted((row for row in said if row["head"] == number), key=lambda row: (row["repeat"], row["fold"]))
        of = {method: rank for (label, method), rank in attributed.items() if label == head.label}
        parts.append(_rows(run, model, head, mine, of))
    return pa.concat_tables(parts)


def _as_row(
    found: consensus.OfSet, head: int, repeat: int, fold: int, also: planted.Recovered | None
) -> pa.RecordBatch:
    """What a task says of a training set: of tests of folds only the ranks, and which are significant."""
    of, whole = found.found, fold == plan.REGISTERED
    row = {
        "head": (pa.int32(), head),
        "repeat": (pa.int32(), repeat),
        "fold": (pa.int32(), fold),
        "test": (pa.string(), found.test),
        "rank": (pa.binary(), found.rank.astype(np.float32).tobytes()),
        "significant": (pa.binary(), np.packbits(found.significant).tobytes()),
        "frequency": (pa.binary(), found.frequency.astype(np.float32).tobytes()),
        "stability": (pa.list_(pa.float64()), [found.stability.value, found.stability.low, found.stability.high]),
        "effect": (pa.binary(), of.effect.tobytes() if whole else None),
        "of": (pa.binary(), of.of.astype(np.int64).tobytes() if whole else None),
        "statistic": (pa.binary(), of.statistic.tobytes() if whole else None),
        "p_value": (pa.binary(), of.p_value.tobytes() if whole else None),
        "reason": (pa.list_(pa.string()), of.reason.tolist() if whole else None),
        "planted": (pa.list_(pa.float64()), None if also is None else [*also.found, also.false]),
    }
    return pa.RecordBatch.from_pydict({name: pa.array([value], type_) for name, (type_, value) in row.items()})


def _rows(run: Run, model: Chosen, head: Head, said: list[dict[str, Any]], others: dict[str, np.ndarray]) -> pa.Table:
    """Rows of `biomarkers` of one head, from what tasks said of its training sets."""
    features = list(model.card.features)
    count = len(features)
    (whole,) = (row for row in said if row["fold"] == plan.REGISTERED)
    folds = [row for row in said if row["fold"] != plan.REGISTERED] or [whole]
    of = Differences(
        np.frombuffer(whole["effect"]),
        np.frombuffer(whole["of"], np.int64),
        np.frombuffer(whole["statistic"]),
        np.frombuffer(whole["p_value"]),
        np.array(whole["reason"], object),
    )
    significant = np.stack([_bits(row["significant"], count) for row in folds])
    found = consensus.agreed(
        [np.frombuffer(row["rank"], np.float32) for row in folds],
        significant,
        [np.frombuffer(row["frequency"], np.float32) for row in folds],
        _bits(whole["significant"], count),
        others,
        run.settings.biomarkers.agreement,
        features,
    )
    untested = np.isnan(of.p_value)
    columns: dict[str, Any] = {
        **where(model),
        "label_column": head.label,
        "model_version": model.row.model_version,
        "feature": pa.array(features, pa.string()),
        "test": whole["test"],
        "class": pa.array(np.array(head.classes, object)[of.of], pa.string(), mask=untested),
        "effect": pa.array(of.effect, mask=untested),
        "statistic": pa.array(of.statistic, mask=untested),
        "p_value": pa.array(of.p_value, mask=untested),
        "q_value": pa.array(of.q_value, mask=untested),
        "reason": pa.array(of.reason, pa.string(), mask=~untested),
        "test_rank": pa.array(found.test_rank.astype(np.float64)),
        "training_sets": len(folds),
        "significant_share": pa.array(found.share),
        "frequency": pa.array(found.frequency.astype(np.float64), mask=np.isnan(found.frequency)),
        "attribution_ranks": _maps(others, count),
        "consensus_score": pa.array(found.score.astype(np.float64)),
        "consensus_rank": pa.array(found.rank.astype(np.int32)),
        "selected": pa.array(found.selected),
        "stability": pa.scalar(
            [(k, v) for k, v in _stability(found, Stability(*whole["stability"])).items() if np.isfinite(v)],
            pa.map_(pa.string(), pa.float64()),
        ),
        "planted": _planted(whole["planted"]),
        "asked": pa.scalar(
            [(name, float(getattr(run.settings.biomarkers, name))) for name in ("rate", "agreement", "threshold")],
            pa.map_(pa.string(), pa.float64()),
        ),
        "run_id": run.run_id,
        "code": code_of(__name__, model.settings, own=model.files.code_hashes()),
        "found_at": pa.scalar(now(), pa.timestamp("us", tz="UTC")),
    }
    schema = BIOMARKERS.arrow_schema()
    arrays = []
    for field in schema:
        value = columns[field.name]
        if not isinstance(value, pa.Array):
            value = pa.repeat(value if isinstance(value, pa.Scalar) else pa.scalar(value, field.type), count)
        arrays.append(value.cast(field.type))
    return pa.Table.from_arrays(arrays, schema=schema)


def _bits(packed: bytes, count: int) -> np.ndarray:
    return np.unpackbits(np.frombuffer(packed, np.uint8), count=count).astype(bool)


def _maps(others: dict[str, np.ndarray], count: int) -> pa.Array:
    """For each feature its ranks by method, as a map."""
    methods = sorted(others)
    values = np.stack([others[name] for name in methods], 1) if methods else np.zeros((count, 0))
    ends = np.arange(count + 1, dtype=np.int32) * len(methods)
    keys = pa.array(methods * count, pa.string())
    return pa.MapArray.from_arrays(ends, keys, pa.array(values.ravel().astype(np.int32)))


def _planted(numbers: list[float]) -> pa.Scalar:
    """What was found of planted differences, as the table has it."""
    names = [*(f"found@{size:g}" for size in planted.SIZES), "false"]
    said = None if np.isnan(numbers).any() else list(zip(names, numbers, strict=True))
    return pa.scalar(said, pa.map_(pa.string(), pa.float64()))


def _stability(found: Consensus, halves: Stability) -> dict[str, float]:
    return {
        f"{name}{end}": getattr(of, part)
        for name, of in (("training_sets", found.stability), ("halves", halves))
        for end, part in (("", "value"), ("_low", "low"), ("_high", "high"))
    }


def figures(run: Run, model: Chosen) -> dict[str, Any]:
    """What the run report says of biomarkers and gene sets, by label column. Warns of features that have no test."""
    from pyspark.sql import functions as F

    found: dict[str, Any] = {}
    if not run.lake.exists(BIOMARKERS):
        return found
    table = run.lake.read(BIOMARKERS, cohort=model.row.cohort).where(condition(where(model)))
    stable = F.col("frequency") >= run.settings.biomarkers.threshold
    counted = table.groupBy("label_column").agg(
        F.first("test").alias("test"),
        F.first("training_sets").alias("training_sets"),
        F.first("stability").alias("stability"),
        F.first("planted").alias("planted"),
        F.count("*").alias("features"),
        F.count("p_value").alias("tested"),
        F.count_if("selected").alias("selected"),
        F.count_if(stable).alias("stable"),
    )
    for row in counted.collect():
        if row.tested < row.features:
            text = f"{row.features - row.tested} features of {row.features} are not tested for {row.label_column}"
            run.report.warn(f"{text}: column reason of table biomarkers says why")
        found[row.label_column] = {
            **{name: row[name] for name in ("test", "features", "tested", "training_sets", "selected", "stable")},
            "stability": dict(row.stability),
            "planted": row.planted,
            "first": [],
        }
        _warn_of_false(run, row)
    best = table.where("selected AND consensus_rank IS NOT NULL").select("label_column", "feature", "consensus_rank")
    for row in best.orderBy("consensus_rank").limit(_NAMED * max(len(found), 1)).collect():
        if len(found[row.label_column]["first"]) < _NAMED:
            found[row.label_column]["first"].append(row.feature)
    if run.settings.enrichment.gmt and run.lake.exists(ENRICHMENT):
        mine = where(model) | {"collection": _collection(run)}
        rate = run.settings.biomarkers.rate
        rows = run.lake.read(ENRICHMENT, cohort=model.row.cohort).where(condition(mine))
        sets = rows.groupBy("label_column").agg(
            F.count("*").alias("sets"),
            F.count("p_over").alias("tested"),
            F.count_if(F.col("q_over") <= rate).alias("over"),
            F.count_if(F.col("q_shift") <= rate).alias("shifted"),
        )
        for row in sets.collect():
            found[row.label_column]["enrichment"] = {n: row[n] for n in ("sets", "tested", "over", "shifted")}
    return found


def _warn_of_false(run: Run, row: Row) -> None:
    """Warns where far more of what a test finds is false than was asked for; of few features chance decides that."""
    rate, times = run.settings.biomarkers.rate, run.settings.biomarkers.planted
    enough = planted.SHARE * row.tested * times >= _PLANTED
    if enough and row.planted is not None and row.planted["false"] > 2 * rate:
        run.report.warn(
            f"{row.planted['false']:.0%} of what {row.test} finds of differences planted for {row.label_column} is "
            f"false; expected {rate:.0%}: rows are few, or do not follow the test's distribution, try another "
            "(biomarkers.test)"
        )


# --- gene sets


@dataclass(frozen=True)
class _Genes:
    """Genes that were tested: names, `selected` bool (G,), `score` float64 (G,), `place` in the consensus int (G,)."""

    names: list[str]
    selected: np.ndarray
    score: np.ndarray
    place: np.ndarray


def _sets(run: Run, model: Chosen, made_of: int, force: bool) -> bool:
    """Tests the gene sets of the file that is given, unless that was done."""
    s = run.settings.enrichment
    if not s.gmt:
        return False
    content = storage.read_bytes(s.gmt)
    name = _collection(run)
    sha = hashlib.sha256(content).hexdigest()
    shaped_by = digest(made_of, sha, s.smallest, s.largest, s.correlation, code_of(enrichment.__name__, model.settings))
    mine = {**where(model), "collection": name}
    mark = f"enrichment {fingerprint(mine)}"
    if run.lake.marked(ENRICHMENT, [mark]) == {mark: shaped_by} and not force:
        run.wrote(ENRICHMENT, 0)
        return False
    collection = gmt.read(s.gmt)
    rows: list[dict[str, Any]] = []
    for _, head in _heads(model):
        genes = _genes(run, model, head, collection, s.gmt)
        made = _tested(genes, collection, s.smallest, s.largest, s.correlation, len(head.classes) == 2)
        constant = {
            **mine,
            "label_column": head.label,
            "collection_sha256": sha,
            "run_id": run.run_id,
            "found_at": now(),
        }
        rows += [{**mine, "label_column": head.label, **constant, **row} for row in made]
    run.lake.create(ENRICHMENT)
    run.lake.replace(ENRICHMENT, run.frame(ENRICHMENT, rows), mine, {mark: shaped_by})
    run.wrote(ENRICHMENT, len(rows))
    return True


def _collection(run: Run) -> str:
    """The name of the file of gene sets."""
    return run.settings.enrichment.gmt.rstrip("/").rpartition("/")[2]


def _genes(run: Run, model: Chosen, head: Head, collection: list[gmt.GeneSet], file: str) -> _Genes:
    """Genes among the features that were tested. A feature is known by its name, or what stands in it behind a block;
    of features of one gene the scores are averaged, and one selected is enough. InputError where no gene is known."""
    rows = run.lake.read(BIOMARKERS, cohort=model.row.cohort).where(
        condition(where(model) | {"label_column": head.label})
    )
    columns = ("feature", "effect", "statistic", "p_value", "consensus_rank", "selected")
    table = rows.where("p_value IS NOT NULL").select(*columns).orderBy("consensus_rank").toArrow()
    known = {gene for one in collection for gene in one.genes}
    names: dict[str, list[int]] = {}
    for i, feature in enumerate(table.column("feature").to_pylist()):
        gene = feature if feature in known or ":" not in feature else feature.partition(":")[2]
        names.setdefault(gene, []).append(i)
    if not known & names.keys():
        example = next(iter(names), "nothing that was tested")
        text = f"found no gene of {len(known)} among the features, such as {example}; expected sets of the same names"
        raise InputError(f"{text}: give a file with identifiers of that kind", file)
    effect, statistic, p = (table.column(n).to_numpy() for n in ("effect", "statistic", "p_value"))
    of = Differences(effect, np.zeros(len(p), np.int64), statistic, p, np.full(len(p), "", object))
    score = enrichment.normal_scores(of, len(head.classes) == 2)
    selected = table.column("selected").to_numpy(zero_copy_only=False)
    return _Genes(
        list(names),
        np.array([selected[own].any() for own in names.values()]),
        np.array([score[own].mean() for own in names.values()]),
        np.array([own[0] for own in names.values()]),
    )


def _tested(
    genes: _Genes, collection: list[gmt.GeneSet], smallest: int, largest: int, correlation: float, signed: bool
) -> list[dict[str, Any]]:
    """Columns of rows of `enrichment` that the sets decide."""
    place = {name: i for i, name in enumerate(genes.names)}
    members = [np.array([place[g] for g in one.genes if g in place], np.int64) for one in collection]
    reasons = [
        f"{len(own)} genes were tested, fewer than {smallest}"
        if len(own) < smallest
        else f"{len(own)} genes were tested, more than {largest}"
        if len(own) > largest
        else "all genes that were tested are in it"
        if len(own) == len(genes.names)
        else None
        for own in members
    ]
    found = enrichment.enriched(members, genes.selected, genes.score, signed, correlation)
    left = np.array([reason is not None for reason in reasons], bool)
    over, shifted = (np.where(left, np.nan, p) for p in (found.p_over, found.p_shift))
    numbers = {
        "expected": np.where(left, np.nan, found.expected),
        "p_over": over,
        "q_over": benjamini_hochberg(over),
        "shift": np.where(left, np.nan, found.shift),
        "p_shift": shifted,
        "q_shift": benjamini_hochberg(shifted),
    }
    rows = []
    for i, one in enumerate(collection):
        chosen = members[i][genes.selected[members[i]]]
        rows.append(
            {
                "gene_set": one.name,
                "description": one.description or None,
                "genes": len(one.genes),
                "tested": len(members[i]),
                "background": len(genes.names),
                "selected": len(chosen),
                "selected_genes": [genes.names[g] for g in chosen[np.argsort(genes.place[chosen])]],
                "reason": reasons[i],
                **{name: None if np.isnan(values[i]) else float(values[i]) for name, values in numbers.items()},
            }
        )
    return rows
