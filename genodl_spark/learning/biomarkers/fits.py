"""Biomarkers of one training set of a data set: of the rows, features and treatment that baselines of it learn from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from genodl_spark.core import packing
from genodl_spark.core.errors import InputError
from genodl_spark.learning import encodings, feed
from genodl_spark.learning.baseline_fits import Fits, examples, treatment
from genodl_spark.learning.biomarkers import consensus, stability
from genodl_spark.learning.biomarkers.consensus import OfSet
from genodl_spark.learning.biomarkers.differences import ranks
from genodl_spark.learning.biomarkers.negative_binomial import are_counts
from genodl_spark.learning.biomarkers.planted import Recovered, recovered
from genodl_spark.learning.encodings.values import Values
from genodl_spark.learning.heads import labelled, targets
from genodl_spark.learning.settings import Biomarkers
from genodl_spark.learning.training import plan

_STORED = Values()
_ROWS = 1024  # that are looked at together


@dataclass(frozen=True)
class _Drawn:
    """Rows of a training set: `x` (n, F) as it is tested, `scaled` (n, F) on the scale where differences are effects,
    `codes` int (n,), their classes; `allowed`: features that the set may use, and whether `counts` are tested."""

    x: np.ndarray
    scaled: np.ndarray
    codes: np.ndarray
    allowed: np.ndarray
    counts: bool
    seed: list[int]


@dataclass(frozen=True)
class Sought:
    """Data set and settings; goes to tasks as it is."""

    fits: Fits
    settings: Biomarkers

    def of(self, head: int, repeat: int, fold: int) -> OfSet:
        """What the training set says of its features, for a head of classes; a feature that the set may not use is last
        of all."""
        s, drawn = self.settings, self._drawn(head, repeat, fold)
        allowed, count = drawn.allowed, drawn.x.shape[1]
        most = stability.most_for(s.false, len(allowed), s.threshold)
        asked = consensus.Asked(drawn.counts, s.trend, s.rate, s.pairs, most)
        x, scaled = drawn.x[:, allowed], drawn.scaled[:, allowed]
        found = consensus.of_training_set(x, scaled, drawn.codes, self._classes(head), asked, drawn.seed)
        return found if len(allowed) == count else _spread(found, allowed, count)

    def planted(self, head: int) -> Recovered:
        """What a test would find of differences of known sizes in the rows that the registered model learnt from."""
        s, drawn = self.settings, self._drawn(head, 0, plan.REGISTERED)
        kind = (self._classes(head), drawn.counts, s.trend, s.rate, s.planted)
        return recovered(drawn.x[:, drawn.allowed], drawn.codes, *kind, [*drawn.seed, 1])

    def _classes(self, head: int) -> int:
        return len(self.fits.heads[head].classes)

    def _drawn(self, head: int, repeat: int, fold: int) -> _Drawn:
        """The rows of a training set that are tested."""
        fits, s = self.fits, self.settings
        data = examples(tuple(fits.files), fits.layout)
        own = targets(fits.heads)[head]
        learns = plan.learns(data.folds, [plan.TrainingSet(repeat, fold)], fits.folds)[0]
        rows = np.flatnonzero(learns & labelled(data.target[:, own]))
        seed = [fits.seed, repeat, fold + 1]
        if len(rows) > s.max_rows:
            rows = np.sort(np.random.default_rng(seed).choice(rows, s.max_rows, replace=False))
        counts = self._counts(data)
        if fits.chain is not None:
            rows, treated = treatment(fits, data, rows)
            scaled = encodings.encoding(fits.transform, fits.code).floats(treated(data.x[rows]))
        else:
            scaled = encodings.encoding(fits.transform, fits.code).floats(data.x[rows])
        codes = data.target[rows, own][:, 0].astype(np.int64)
        x = _STORED.floats(data.x[rows]) if counts else scaled
        allowed = np.arange(x.shape[1])
        if fits.allowed is not None:
            which = repeat * fits.folds + fold if fold != plan.REGISTERED else -1
            allowed = np.flatnonzero(fits.allowed[which])
        return _Drawn(x, scaled, codes, allowed, counts, seed)

    def _counts(self, data: feed.Examples) -> bool:
        """Whether counts are tested, in all training sets alike: as the settings say, or as all values are that the
        registered model learnt from; dosages are none. InputError where counts are asked for and there are others."""
        if self.settings.test == "moderated":
            return False
        dtype = packing.values_of(self.fits.layout.dtype)
        learns = plan.learns(data.folds, [plan.TrainingSet(0, plan.REGISTERED)], self.fits.folds)[0]
        rows = np.flatnonzero(learns)
        parts = (rows[start : start + _ROWS] for start in range(0, len(rows), _ROWS))
        found = dtype != "int8" and are_counts(data.x[part] for part in parts)
        if self.settings.test == "negative_binomial" and not found:
            text = f"found values of {dtype} that are no counts; expected whole numbers from 0 on, or moderated"
            raise InputError(text, "biomarkers.test")
        return found


def _spread(found: OfSet, places: np.ndarray, features: int) -> OfSet:
    """What is said of some features, said of all."""
    of = found.found
    whole = type(of).none(features)
    whole.reason[:] = "not chosen in training"
    for name in ("effect", "of", "statistic", "p_value", "reason"):
        getattr(whole, name)[places] = getattr(of, name)
    significant, frequency = np.zeros(features, bool), np.zeros(features)
    significant[places], frequency[places] = found.significant, found.frequency
    rank = ranks(consensus.order_of(whole))
    return OfSet(found.test, whole, rank, significant, frequency, found.stability)
