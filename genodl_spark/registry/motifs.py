"""Motifs in the attributions of sequences: rows of `motifs`, files in MEME's format, and logos."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genodl_spark.core import packing, storage
from genodl_spark.genome import bases
from genodl_spark.job.run import Run, code_of, fingerprint, now
from genodl_spark.lake.delta import condition
from genodl_spark.lake.tables.learning import ATTRIBUTIONS, MOTIFS
from genodl_spark.learning.explain import meme, motifs
from genodl_spark.learning.explain.explainer import Asked
from genodl_spark.learning.explain.references import row_numbers
from genodl_spark.registry import attributions
from genodl_spark.registry.incremental import digest
from genodl_spark.registry.models import Chosen
from genodl_spark.report import logos

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def both_strands(model: Chosen) -> bool:
    """Whether the model was taught that a strand may be read either way."""
    options = model.card.model
    return options.get("reverse_complement", "none") != "none" or bool(options.get("average_strands"))


def bring_up_to_date(run: Run, model: Chosen, cohort: str, asked: Asked, force: bool) -> bool:
    """Seeks motifs in what `attributions` has of the model, unless that was done; returns whether it sought."""
    most = run.settings.explain.motif_rows
    where = attributions.where(model, cohort, asked)
    of_rows = attributions.marks(model, cohort, asked).read(run)
    made_of = digest(sorted(of_rows.items()), most, code_of(motifs.__name__))
    mark = f"motifs {fingerprint(where)}"
    if run.lake.marked(MOTIFS, [mark]) == {mark: made_of} and not force:
        return False
    rows = run.lake.read(ATTRIBUTIONS, cohort=cohort).where(condition(where)).where("contributions IS NOT NULL")
    of_classes = sorted(tuple(row) for row in rows.select("label_column", "target").distinct().collect())
    found: list[dict[str, Any]] = []
    for label, target in of_classes:
        mine = rows.where(condition({"label_column": label, "target": target}))
        found += [
            {**where, "label_column": label, "target": target, **row, "run_id": run.run_id, "found_at": now()}
            for row in _sought(mine, most, both_strands(model))
        ]
    run.lake.create(MOTIFS)
    run.lake.replace(MOTIFS, run.frame(MOTIFS, found), where, {mark: made_of})
    run.wrote(MOTIFS, len(found))
    return True


def _sought(rows: DataFrame, most: int, either: bool) -> list[dict[str, Any]]:
    """Motifs in `most` rows of `attributions`, drawn by their names, as rows of `motifs`."""
    from pyspark.sql import functions as F

    columns = ("entity_id", "sequence", "contributions")
    drawn = rows.select(*columns).orderBy(F.xxhash64("entity_id"), "entity_id").limit(most).toArrow().combine_chunks()
    if not drawn.num_rows:
        return []
    codes, contributions = _as_arrays(drawn)
    numbers = row_numbers(drawn.column("entity_id").to_pylist())
    found, *thresholds = motifs.find(codes, contributions, numbers, either)
    count, made = {1: 0, -1: 0}, []
    for motif in found:
        count[motif.sign] += 1
        made.append(
            {
                "motif": f"{'positive' if motif.sign > 0 else 'negative'}_{count[motif.sign]}",
                "consensus": motif.consensus,
                "seqlets": motif.seqlets,
                "entities": motif.entities,
                "among": len(codes),
                "probabilities": motif.probabilities.ravel().tolist(),
                "contributions": motif.contributions.ravel().tolist(),
                "threshold": thresholds[0 if motif.sign > 0 else 1],
            }
        )
    return made


def _as_arrays(drawn: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """Base codes int8 (N, L) and contributions float64 (N, L) of sequences of any length, from the left."""
    letters, ends = packing.binary(drawn.column("sequence").cast(pa.binary()))
    sizes = np.diff(ends)
    within = np.arange(sizes.max(initial=0)) < sizes[:, None]
    codes = np.full(within.shape, -1, np.int8)
    codes[within] = bases.base_codes(letters[ends[0] : ends[-1]])
    contributions = np.zeros(within.shape)
    contributions[within] = pc.list_flatten(drawn.column("contributions")).to_numpy()
    return codes, contributions


def stored(run: Run, model: Chosen, cohort: str, asked: Asked) -> list[dict[str, Any]]:
    """Rows of `motifs` of a model, a cohort and a method, in the order in which they were found."""
    return in_order(run.lake.rows(MOTIFS, attributions.where(model, cohort, asked)).to_pylist())


def in_order(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of `motifs` of one method by label, class, and as they were found."""
    return sorted(rows, key=lambda row: (row["label_column"], row["target"], *_place(row["motif"])))


def _place(motif: str) -> tuple[bool, int]:
    kind, _, number = motif.rpartition("_")
    return kind != "positive", int(number)


def write(run: Run, model: Chosen, cohort: str, asked: Asked, folder: str) -> int:
    """Writes motifs.meme and a logo of each motif to a folder; returns how many motifs there are."""
    rows = stored(run, model, cohort, asked)
    several = len({(row["label_column"], row["target"]) for row in rows}) > 1
    names = [f"{row['label_column']}.{row['target']}.{row['motif']}" if several else row["motif"] for row in rows]
    shares = [np.array(row["probabilities"]).reshape(-1, 4) for row in rows]
    listed = [
        (name.replace(" ", "_"), row["consensus"], of, row["seqlets"])
        for name, row, of in zip(names, rows, shares, strict=True)
    ]
    text = meme.text(listed, [0.25] * 4, both_strands(model))
    storage.write_bytes(storage.join(folder, "motifs.meme"), text.encode())
    for name, row, of in zip(names, rows, shares, strict=True):
        caption = f"{row['consensus']}: {row['seqlets']} places in {row['entities']} of {row['among']} sequences"
        storage.write_bytes(storage.join(folder, f"{_as_file(name)}.svg"), logos.document(of, caption).encode())
    return len(rows)


def _as_file(name: str) -> str:
    """A name as one of a file: other characters than letters, digits, dots and hyphens become a low line."""
    return "".join(c if c.isascii() and (c.isalnum() or c in ".-_") else "_" for c in name)
