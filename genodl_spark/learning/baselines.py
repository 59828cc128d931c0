"""The models that stand beside every network in its table: majority, linear, trees; more for sequences.

One call fits one baseline on one training set and scores other rows, so that Spark tasks run them side by side.
Settings are fixed here in advance, the same for every task, unless options are given, which a search over SPACES finds;
nothing is fitted on the rows to be scored. One thread, so that the number of cores changes no bit.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import ElasticNet, LogisticRegression, Ridge, RidgeCV
from sklearn.svm import LinearSVC, LinearSVR
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor
from threadpoolctl import threadpool_limits

from genodl_spark.core.errors import InputError
from genodl_spark.learning import cox, discriminant, markov, penalties, sequence_baselines, survival
from genodl_spark.learning.beside import forest_bounds
from genodl_spark.learning.heads import UNLABELLED, Head
from genodl_spark.learning.preprocessing import COVARIATE
from genodl_spark.learning.settings import Evaluation

NAMES = (
    *("majority", "linear_svm", "logistic", "elastic_net", "lda"),
    *("random_forest", "decision_tree", "gradient_boosting"),
)
REGRESSION_NAMES = (
    *("majority", "linear_svm", "ridge", "random_forest", "decision_tree", "gradient_boosting", "elastic_net"),
)
SPARK_FOREST = "spark_forest"  # fitted by Spark ML out of tasks, not by `fit_predict`
OF_SEQUENCES = frozenset((*sequence_baselines.NAMES, *sequence_baselines.REGRESSION_NAMES, *markov.NAMES))
_OF_VALUES = {"logistic": "ridge", "kmer_logistic": "kmer_ridge"}  # what each is where values are learnt

TREES = 500
SVM_C = 0.01
BOOSTED_FEATURES = ELASTIC_FEATURES = 2000
ELASTIC_PENALTIES, ELASTIC_MIXINGS, ELASTIC_PASSES = (1.0, 10.0, 100.0), (0.1, 0.5, 0.9), 200
ELASTIC_VALUE_PENALTIES = (0.1, *ELASTIC_PENALTIES)  # of many rows of noise the weaker ones leave some coefficients
LDA_ROWS = 4096  # the discriminant's cost is their square

_FOREST: dict[str, dict[str, Any]] = {
    "max_features": {"choices": ["default", "sqrt", "log2", 0.05, 0.1, 0.3, 0.6]},
    "min_samples_leaf": {"low": 1, "high": 20, "log": True},
    "max_depth": {"choices": [0, 2, 4, 8, 16, 32]},
}
_TREE: dict[str, dict[str, Any]] = {
    "max_depth": {"choices": [0, 1, 2, 3, 4, 6, 8, 12, 16, 24]},
    "min_samples_leaf": {"low": 1, "high": 50, "log": True},
    "ccp_alpha": {"low": 0.0, "high": 0.05},
}
_BOOSTING: dict[str, dict[str, Any]] = {
    "learning_rate": {"low": 0.01, "high": 0.5, "log": True},
    "max_iter": {"low": 25, "high": 400, "log": True},
    "max_leaf_nodes": {"low": 2, "high": 63, "log": True},
    "min_samples_leaf": {"low": 1, "high": 100, "log": True},
    "max_features": {"choices": ["default", 0.03, 0.1, 0.3, 1.0]},
}
# What a search may choose for each baseline, in the form of tune.space: C of the SVM; C of the logistic penalty
# and alpha of ridge, for rows scaled to mean squared norm 1; a share of the features at each node of a forest
# or of boosted trees, where "default" is that of the fixed settings; a depth of 0 grows a tree in full.
SPACES: dict[str, dict[str, dict[str, Any]]] = {
    "linear_svm": {"C": {"low": 1e-5, "high": 10.0, "log": True}},
    "logistic": {"C": {"low": 0.01, "high": 100_000.0, "log": True}},
    "elastic_net": {"C": {"low": 0.01, "high": 10_000.0, "log": True}, "l1_ratio": {"low": 0.0, "high": 1.0}},
    "ridge": {"alpha": {"low": 1e-5, "high": 1e4, "log": True}},
    "random_forest": _FOREST,
    "decision_tree": _TREE,
    "gradient_boosting": _BOOSTING,
    **sequence_baselines.SPACES,
    **cox.SPACES,
    "markov": {"order": {"low": 0, "high": markov.LONGEST}},
}
# Where a search starts: the fixed settings; the middle of the path for those whose penalty is chosen
# within the training rows there.
STARTS: dict[str, dict[str, Any]] = {
    "linear_svm": {"C": SVM_C},
    "logistic": {"C": 10.0},
    "elastic_net": {"C": 10.0, "l1_ratio": 0.5},
    "ridge": {"alpha": 1.0},
    "random_forest": {"max_features": "default", "min_samples_leaf": 1, "max_depth": 0},
    "decision_tree": {"max_depth": 0, "min_samples_leaf": 1, "ccp_alpha": 0.0},
    "gradient_boosting": {
        "learning_rate": 0.1,
        "max_iter": 100,
        "max_leaf_nodes": 31,
        "min_samples_leaf": 20,
        "max_features": "default",
    },
    **sequence_baselines.STARTS,
    **cox.STARTS,
    "markov": {"order": markov.ORDER},
}

Pair = tuple[float, float]  # C and the share of L1
_BLOCK = 2048  # features standardised at a time


def names(n_classes: int, letters: bool = False) -> tuple[str, ...]:
    """Names of the baselines for `n_classes` classes, 0 for regression; where rows are `letters`, base codes,
    with those OF_SEQUENCES."""
    own = (sequence_baselines.NAMES if n_classes else sequence_baselines.REGRESSION_NAMES) if letters else ()
    return (*(NAMES if n_classes else REGRESSION_NAMES), *own)


def fit_predict(
    name: str,
    x_train: np.ndarray,
    y_train: np.ndarray,
    x_test: np.ndarray,
    n_classes: int,
    seed: int,
    options: Mapping[str, Any] | None = None,
    balanced: bool = False,
) -> np.ndarray:
    """Fits baseline `name` on (x_train, y_train) and scores x_test.

    x_train (n, f) and x_test (m, f): float32, NaN missing; for a baseline OF_SEQUENCES base codes, int8, -1 unknown.
    y_train (n,): class index, or value where `n_classes` is 0.
    Returns float64: class probabilities (m, n_classes), 0 for classes absent from y_train; or values (m,).
    The same for the same seed. Missing values become the feature's mean in training, 0 where it was never seen.
    ValueError for an unknown name, or option, and where there is no training row.
    `options`: some of those of SPACES, in place of what follows.
    `balanced`: every class counts alike, however many rows it has: each row of class k weighs n / (K n_k), or priors
    are equal. majority, values, and baselines OF_SEQUENCES have no such weights.

    majority: shares of the classes, or mean of the target. random_forest: 500 trees, else scikit-learn's defaults,
    but for regression a third of the features at each node, at most 200, and a tree draws at most 5,000 rows and sorts
    at most 160,000 numbers at its root (forest_bounds.py). decision_tree: defaults, grown in full,
    so that its probabilities are 0 or 1. The linear models see features standardised on the training rows. linear_svm:
    LinearSVC, squared hinge, C 0.01, intercept all but unpenalised; its probabilities are the softmax (two classes:
    the logistic function) of its decision values, of which the order and the highest mean something, the size does not.
    logistic: L2, the penalty of least log loss in 3 folds of at most 2,000 training rows.
    elastic_net: logistic regression, of the 2,000 features that share most variance with the classes, with C
    of 1, 10 and 100, for rows scaled as above, and shares of L1 of 0.1, 0.5 and 0.9: the pair of least log loss in such
    folds, in each of which features are chosen anew. lda: a linear discriminant, its covariance by Ledoit and Wolf in
    each class (discriminant.scores), of at most 4,096 training rows.
    For regression, linear_svm is LinearSVR (epsilon 0.1 of the target's standard deviation, C 0.01), and "ridge",
    or "logistic", is ridge with the penalty of least leave-one-out error. elastic_net: C times half the sum of squared
    errors of the standardised target takes the place of C times the log loss, and C may be 0.1, too; the pair of
    least squared error.
    gradient_boosting: scikit-learn's on histograms, 100 rounds of trees with at most 31 leaves, each of at least 20
    rows or, where that is fewer, a third of all; a tenth of the features at each node, but at least 50; of more than
    2,000 features those that share most variance with the target. It takes missing values as they are.

    weighted_degree: an SVM (hinge loss) on the bases and the pairs of bases at each position, the kernel of that name
    of degree 2; its C, of 0.1, 0.3, 1 and 3, has the least log loss in 3 folds of at most 2,000 training rows, and its
    probabilities are Platt's, by 3 folds of all. For regression weighted_degree is LinearSVR (squared loss, epsilon
    0.1), with the C of least squared error. kmer_logistic: L2, on logarithms of 1 and the counts of 1- to 6-mers, each
    row scaled to length 1, and a penalty of least log loss as above; with `strands` both a k-mer counts with its
    reverse complement, with auto where that tells no less in such folds. kmer_ridge: the same for regression, its
    penalty of least leave-one-out error in at most 2,000 training rows. nearest_neighbour: shares of the classes, or
    the mean value, among the 5 training sequences
    (`neighbours`) that are most similar, weighted by similarity, the cosine of which 8-mers (`k`) of either strand two
    sequences have.

    Of hidden bases, whatever y_train is: what those of a row cost (markov.py), (m,). composition: told by the shares of
    bases. markov: by a Markov chain of order 5 (`order`), given all other bases.
    """
    name = name if n_classes else _OF_VALUES.get(name, name)
    if name not in (*names(n_classes, letters=True), *markov.NAMES):
        raise ValueError(f"found baseline {name!r}; expected one of {', '.join(names(n_classes, letters=True))}")
    options = dict(options or {})
    _check_options(name, options)
    if not len(x_train):
        raise ValueError("found no training row for a baseline; expected some")
    if name in markov.NAMES:
        return markov.cross_entropies(name, x_train, x_test, options)
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        if not n_classes:
            return _values(name, x_train, np.asarray(y_train, np.float64), x_test, seed, options)
        present, y = np.unique(np.asarray(y_train).astype(np.int64), return_inverse=True)
        probabilities = np.zeros((len(x_test), n_classes))
        probabilities[:, present] = _probabilities(name, x_train, y, x_test, seed, options, balanced)
        return probabilities


def _check_options(name: str, options: Mapping[str, Any]) -> None:
    unknown = options.keys() - SPACES.get(name, {}).keys()
    if unknown:
        raise ValueError(
            f"found option {min(unknown)!r} of {name}; expected one of {', '.join(SPACES.get(name, {})) or 'none'}"
        )


def fit_predict_times(
    name: str,
    x_train: np.ndarray,
    times: np.ndarray,
    event: np.ndarray,
    x_test: np.ndarray,
    horizons: Sequence[float],
    seed: int,
    options: Mapping[str, Any] | None = None,
) -> np.ndarray:
    """Fits baseline `name` to times (n,) above 0 and whether the event came then, (n,) bool, and scores x_test (m, f).

    Returns float64 (m, 1 + horizons): a value, greater for a longer time, and the probability that the event has not
    come by each of `horizons`, NaN for baselines that say nothing of that. majority: one value, and the curve of Kaplan
    and Meier. cox_elastic_net and cox_covariates, which is given covariates alone: Cox's model of features standardised
    on the training rows (cox.py), minus its log risk, and Breslow's curve. The others: what `fit_predict` makes of
    `learning_times`.
    """
    found = np.full((len(x_test), 1 + len(horizons)), np.nan)
    at, options = np.asarray(horizons, np.float64), dict(options or {})
    _check_options(_OF_VALUES.get(name, name), options)
    if name == "majority":
        found[:, 0], found[:, 1:] = 0.0, survival.kaplan_meier(times, event).at(at)
    elif name in cox.NAMES:
        mean = _mean(x_train)
        train, test = (_impute(x.astype(np.float64), mean) - mean for x in (x_train, x_test))
        spread = train.std(0)
        kept = spread > 1e-12
        train, test = train[:, kept] / spread[kept], test[:, kept] / spread[kept]
        with threadpool_limits(1), warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            if name == "cox_elastic_net":
                coefficients = cox.elastic_net(train, times, event, seed, options)
            else:
                coefficients = cox.newton(train, times, event, cox.RIDGE)
        log_risk = test @ coefficients
        found[:, 0] = -log_risk
        found[:, 1:] = cox.survives(log_risk, survival.breslow(times, event, train @ coefficients), at)
    else:
        found[:, 0] = fit_predict(name, x_train, learning_times(times, event), x_test, 0, seed, options)
    # sums of residuals are 0 but for their last bits, which are not to put rows of different folds in an order
    found[:, 0] = found[:, 0].round(12)
    return found


def _probabilities(
    name: str,
    x_train: np.ndarray,
    y: np.ndarray,
    x_test: np.ndarray,
    seed: int,
    options: Mapping[str, Any],
    balanced: bool,
) -> np.ndarray:
    """y: indices 0 to k - 1, all present; returns (m, k)."""
    shares = np.bincount(y) / len(y)
    if name == "majority" or len(shares) == 1 or not len(x_test):
        return np.tile(shares, (len(x_test), 1))
    if name in OF_SEQUENCES:
        return sequence_baselines.probabilities(name, x_train, y, x_test, seed, options)
    weights = penalties.BALANCED if balanced else None
    if name == "gradient_boosting":
        boosted = HistGradientBoostingClassifier(random_state=seed, class_weight=weights, **_boosting(x_train, options))
        train, test = _telling(x_train, np.eye(len(shares))[y], x_test, BOOSTED_FEATURES)
        return boosted.fit(train, y).predict_proba(test)
    if name in ("random_forest", "decision_tree"):
        kind = RandomForestClassifier if name == "random_forest" else DecisionTreeClassifier
        size = {"n_estimators": TREES} if name == "random_forest" else {}
        model = kind(random_state=seed, class_weight=weights, **size, **_grown(options, "sqrt"))
        mean = _mean(x_train)
        return model.fit(_impute(x_train, mean), y).predict_proba(_impute(x_test, mean))
    if name == "lda":
        return _lda(x_train, y, x_test, seed, np.full(len(shares), 1 / len(shares)) if balanced else None)
    if name == "elastic_net":
        return _elastic_net(x_train, y, x_test, seed, options, balanced)
    train, test = _standardise(x_train, x_test)
    scale = _norm(train)
    if name == "linear_svm":
        # The faster solver by far where there are more features than rows; else the slower.
        dual = x_train.shape[1] > len(x_train)
        penalty = options.get("C", SVM_C)
        shape: dict[str, Any] = {"dual": dual, "intercept_scaling": scale, "class_weight": weights}
        model = LinearSVC(C=penalty, max_iter=10_000, random_state=seed, **shape)
        decision = model.fit(train, y).decision_function(test)
        return _softmax(decision if decision.ndim == 2 else np.column_stack([np.zeros(len(test)), decision]))
    train, test = train / scale, test / scale
    penalty = options["C"] if "C" in options else penalties.of_logistic(train, y, seed, balanced)
    return penalties.logistic(penalty, 1e-6, balanced).fit(train, y).predict_proba(test)


def _lda(x_train: np.ndarray, y: np.ndarray, x_test: np.ndarray, seed: int, priors: np.ndarray | None) -> np.ndarray:
    """`priors`: None for the shares of the classes."""
    shares = np.bincount(y) / len(y)
    if len(y) > LDA_ROWS:  # of each class its share, and at least a row
        order = np.random.default_rng(seed).permutation(len(y))
        order = order[np.argsort(y[order], kind="stable")]
        place = np.arange(len(y)) - np.searchsorted(y[order], y[order])
        rows = np.sort(order[place < np.maximum(np.floor(shares * LDA_ROWS), 1)[y[order]]])
        x_train, y = x_train[rows], y[rows]
    mean = _mean(x_train)
    train, test = (_impute(x.astype(np.float64), mean) - mean for x in (x_train, x_test))
    return _softmax(discriminant.scores(train, y, test, shares if priors is None else priors))


def _elastic_net(
    x_train: np.ndarray, y: np.ndarray, x_test: np.ndarray, seed: int, options: Mapping[str, Any], balanced: bool
) -> np.ndarray:
    def seen(rows: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        present, index = np.unique(y[rows], return_inverse=True)
        return _telling_scaled(x_train[rows], np.eye(len(present))[index], others)

    def model(pair: Pair, tolerance: float) -> LogisticRegression:
        shape: dict[str, Any] = {"l1_ratio": pair[1], "solver": "saga", "class_weight": weights, "random_state": seed}
        return LogisticRegression(C=pair[0], tol=tolerance, max_iter=ELASTIC_PASSES, **shape)

    def losses(inside: np.ndarray, held: np.ndarray, pairs: Sequence[Pair]) -> list[float]:
        train, test = seen(inside, x_train[held])
        fitted = (model(pair, 1e-2).fit(train, y[inside]) for pair in pairs)
        return [penalties.log_loss(one, test, y[held], balanced) for one in fitted]

    weights = penalties.BALANCED if balanced else None
    train, test = seen(np.arange(len(y)), x_test)
    best = _best_pair(y, seed, options, ELASTIC_PENALTIES, losses)
    return model(best, 1e-3).fit(train, y).predict_proba(test)


def _elastic_net_of_values(
    x_train: np.ndarray, y: np.ndarray, x_test: np.ndarray, seed: int, options: Mapping[str, Any]
) -> np.ndarray:
    """y float64 (n,): standardised, and not constant; returns (m,) on its scale."""

    def seen(rows: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return _telling_scaled(x_train[rows], (y[rows] - y[rows].mean())[:, None], others)

    def model(pair: Pair, rows: int, tolerance: float) -> ElasticNet:
        # scikit-learn's alpha is beside the mean of the squared errors, C beside their sum
        return ElasticNet(1 / (pair[0] * rows), l1_ratio=pair[1], tol=tolerance, max_iter=ELASTIC_PASSES)

    def losses(inside: np.ndarray, held: np.ndarray, pairs: Sequence[Pair]) -> list[float]:
        train, test = seen(inside, x_train[held])
        fitted = (model(pair, len(inside), 1e-2).fit(train, y[inside]) for pair in pairs)
        return [float(np.square(one.predict(test) - y[held]).sum()) for one in fitted]

    train, test = seen(np.arange(len(y)), x_test)
    best = _best_pair(y, seed, options, ELASTIC_VALUE_PENALTIES, losses)
    found: np.ndarray = model(best, len(y), 1e-4).fit(train, y).predict(test)
    return found


def _best_pair(
    y: np.ndarray,
    seed: int,
    options: Mapping[str, Any],
    choices: Sequence[float],
    losses: Callable[[np.ndarray, np.ndarray, Sequence[Pair]], list[float]],
) -> Pair:
    """Of `choices` of C and ELASTIC_MIXINGS, unless `options` say, the pair of least loss in inner folds. `losses` of
    rows that are learnt from, rows that are held out, and pairs: of each of these, summed over the rows held out."""
    asked = ((options.get("C", c), options.get("l1_ratio", m)) for m in ELASTIC_MIXINGS for c in choices)
    pairs = list(dict.fromkeys(asked))
    total = np.zeros(len(pairs))
    rows, fold = penalties.dealt(y, seed, penalties.INNER_ROWS)
    for k in range(penalties.INNER_FOLDS if len(pairs) > 1 else 0):
        inside, held = rows[fold != k], rows[fold == k]
        if len(held) and len(np.unique(y[inside])) > 1:
            total += losses(inside, held, pairs)
    return pairs[int(total.argmin())]


def _telling_scaled(x: np.ndarray, basis: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both parts with the ELASTIC_FEATURES that tell most in training rows x, standardised; rows of x have a mean
    squared length of 1."""
    train, test = _standardise(*_telling(x, basis, others, ELASTIC_FEATURES), rotates=False)
    scale = _norm(train)
    return train / scale, test / scale


def _values(
    name: str, x_train: np.ndarray, y: np.ndarray, x_test: np.ndarray, seed: int, options: Mapping[str, Any]
) -> np.ndarray:
    mean, spread = y.mean(), y.std()
    if name == "majority" or spread == 0 or not len(x_test):
        return np.full(len(x_test), mean)
    if name in OF_SEQUENCES:
        return sequence_baselines.values(name, x_train, y, x_test, seed, options)
    if name == "gradient_boosting":
        boosted = HistGradientBoostingRegressor(random_state=seed, **_boosting(x_train, options))
        train, test = _telling(x_train, (y - mean)[:, None], x_test, BOOSTED_FEATURES)
        return boosted.fit(train, y).predict(test)
    if name in ("random_forest", "decision_tree"):
        if name == "random_forest":
            drawn = min(len(x_train), forest_bounds.ROWS)
            width = forest_bounds.candidates(x_train.shape[1], drawn)
            grown = {"max_features": width, **_grown(options, width)}
            model = RandomForestRegressor(TREES, random_state=seed, max_samples=drawn, **grown)
        else:
            model = DecisionTreeRegressor(random_state=seed, **_grown(options, None))
        middle = _mean(x_train)
        return model.fit(_impute(x_train, middle), y).predict(_impute(x_test, middle))
    if name == "elastic_net":
        return _elastic_net_of_values(x_train, (y - mean) / spread, x_test, seed, options) * spread + mean
    train, test = _standardise(x_train, x_test)
    scale = _norm(train)
    if name == "ridge":
        model = (
            Ridge(scale**2 * options["alpha"])
            if "alpha" in options
            else RidgeCV(alphas=scale**2 * penalties.RIDGE_PENALTIES)
        )
    else:
        model = LinearSVR(
            C=options.get("C", SVM_C), epsilon=0.1, intercept_scaling=scale, max_iter=10_000, random_state=seed
        )
    return model.fit(train, (y - mean) / spread).predict(test) * spread + mean


def _grown(options: Mapping[str, Any], width: int | str | None) -> dict[str, Any]:
    """Options of a tree or forest as scikit-learn takes them; `width` is the number
    of features at a node by default."""
    translated: dict[str, dict[Any, Any]] = {"max_depth": {0: None}, "max_features": {"default": width}}
    return {key: translated.get(key, {}).get(value, value) for key, value in options.items()}


def _boosting(x: np.ndarray, options: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of boosted trees on training rows x, as scikit-learn takes them."""
    chosen = {**STARTS["gradient_boosting"], **options}
    if chosen["max_features"] == "default":
        chosen["max_features"] = min(1.0, max(0.1, 50 / min(x.shape[1], BOOSTED_FEATURES)))
    chosen["min_samples_leaf"] = max(1, min(chosen["min_samples_leaf"], len(x) // 3))
    # 63 bins: counts and alleles have fewer, and histograms take a quarter of the memory of 255
    return {**chosen, "max_bins": 63, "early_stopping": False}


def _telling(x_train: np.ndarray, basis: np.ndarray, x_test: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Both parts with the at most so many features that share most variance with the target in the training rows.
    `basis` as `_shared` has it."""
    used = np.flatnonzero(~np.isnan(x_train).all(0))  # histograms take no feature of which nothing is known
    if not len(used):
        return np.zeros((len(x_train), 1)), np.zeros((len(x_test), 1))
    if len(used) > most:
        used = used[np.sort(np.argsort(-_shared(x_train[:, used], basis), kind="stable")[:most])]
    return x_train[:, used], x_test[:, used]


def _shared(x: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """Share of each feature's variance that the target explains, (f,): of classes' indicators `basis` (n, k),
    or of a centred target (n, 1). Missing values are the mean."""
    found = np.zeros(x.shape[1])
    for start in range(0, x.shape[1], _BLOCK):
        part = x[:, start : start + _BLOCK].astype(np.float64)
        mean = _mean(part)
        part = _impute(part, mean) - mean
        total = (part**2).sum(0)
        explained = ((basis.T @ part) ** 2 / (basis**2).sum(0)[:, None]).sum(0)
        found[start : start + _BLOCK] = np.where(total > 0, explained / np.where(total > 0, total, 1), 0)
    return found


def _standardise(x_train: np.ndarray, x_test: np.ndarray, rotates: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Both parts imputed and standardised by the training rows, float64;
    rotated into their span where features are many and it `rotates`.

    A linear model with an L2 penalty depends on the rows through their inner products alone, so that the coordinates
    of the rows in the span of the training rows, at most n of them, give the same model as all f features:
    what lies outside that span has weight 0. That is exact, and linear in f.
    """
    n, f = x_train.shape
    parts: list[tuple[np.ndarray, np.ndarray]] = []
    rotate = rotates and f > 2 * n
    within, across = np.zeros((n, n) if rotate else 0), np.zeros((len(x_test), n) if rotate else 0)
    for start in range(0, f, _BLOCK):
        columns = slice(start, start + _BLOCK)
        mean = _mean(x_train[:, columns])
        train, test = (_impute(x[:, columns].astype(np.float64), mean) - mean for x in (x_train, x_test))
        spread = train.std(0)
        spread[spread == 0] = np.inf  # constant in training: 0 for every row
        train /= spread
        test /= spread
        if rotate:
            within += train @ train.T
            across += test @ train.T
        else:
            parts.append((train, test))
    if not rotate:
        return np.hstack([train for train, _ in parts]), np.hstack([test for _, test in parts])
    squares, vectors = np.linalg.eigh(within)
    kept = squares > 1e-10 * max(squares[-1], 1e-300)
    roots, vectors = np.sqrt(squares[kept])[::-1], vectors[:, kept][:, ::-1]
    return vectors * roots, across @ (vectors / roots)


def _norm(train: np.ndarray) -> float:
    """Root mean square length of the rows; 1 where all are 0.

    As liblinear's intercept_scaling it leaves the intercept all but unpenalised: at its default of 1 the SVM
    of imbalanced classes and thousands of features is crippled (DLBCL against FL: accuracy 0.85 for 0.95).
    """
    return float(np.sqrt((train**2).sum(1).mean())) or 1.0


def _mean(x: np.ndarray) -> np.ndarray:
    """(f,) float64: mean of what is known in each column, 0 where nothing is."""
    known = ~np.isnan(x)
    return np.where(known, x, 0).sum(0, dtype=np.float64) / np.maximum(known.sum(0), 1)


def _impute(x: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """x with its missing values replaced by `mean` (f,); the dtype of x."""
    return np.where(np.isnan(x), mean.astype(x.dtype), x)


def _softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def learning_times(times: np.ndarray, event: np.ndarray) -> np.ndarray:
    """What baselines of values learn of times, so that a greater value stands for a longer time: float64 (n,).

    times (n,) above 0, event (n,) whether it came then. Minus the martingale residuals of a model without features:
    the hazard that has been accumulated by a row's time (Nelson 1972, Aalen 1978), less 1 where the event came.
    Residuals of that kind let any regression learn from times of which some are cut off (Therneau,
    Grambsch and Fleming 1990, Biometrika 77).
    """
    order = np.argsort(times, kind="stable")
    distinct, first, of_row = np.unique(times[order], return_index=True, return_inverse=True)
    came = np.bincount(of_row, event[order].astype(np.float64), len(distinct))
    hazard = np.cumsum(came / (len(times) - first))
    found = np.empty(len(times))
    found[order] = hazard[of_row] - event[order]
    return found


def of_features(name: str, features: Sequence[str]) -> np.ndarray | None:
    """Which of some features a baseline is given, by number; None for all."""
    if name != "cox_covariates":
        return None
    return np.array([i for i, feature in enumerate(features) if feature.startswith(COVARIATE)], np.int64)


def baseline_names(settings: Evaluation, heads: Sequence[Head], letters: bool = True) -> list[str]:
    """The baselines asked for that there are for such heads; what is logistic for classes is ridge for values.

    `letters`: whether rows are base codes. InputError for an unknown one, or option of one, and for one OF_SEQUENCES
    where they are not.
    """
    known = {*NAMES, *REGRESSION_NAMES, SPARK_FOREST, *cox.NAMES, *(OF_SEQUENCES if letters else ())}
    for name in settings.baselines:
        if name not in known:
            of = " of rows that are no base codes" if name in OF_SEQUENCES else ""
            raise InputError(
                f"found baseline {name!r}{of}; expected some of {', '.join(sorted(known))}", "evaluate.baselines"
            )
    for name, options in settings.options.items():
        for option in options:
            if option not in SPACES.get(name, {}):
                expected = ", ".join(f"{n}.{o}" for n, space in SPACES.items() for o in space)
                raise InputError(f"found option {name}.{option}; expected some of {expected}", "evaluate.options")
            value, place = options[option], f"evaluate.options.{name}.{option}"
            if name in OF_SEQUENCES and (wanted := sequence_baselines.expected(option, value)) is not None:
                raise InputError(f"found {value!r}; expected {wanted}", place)
    most = max((len(head.classes) for head in heads if head.kind not in UNLABELLED), default=None)
    kind = (*names(most, letters), SPARK_FOREST) if most is not None else ()
    if any(head.kind == "bases" for head in heads):
        kind = markov.NAMES
    if any(head.kind == "time" for head in heads):
        kind = (*(name for name in kind if name != SPARK_FOREST), *cox.NAMES)
    same = {} if most else _OF_VALUES
    return list(dict.fromkeys(n for name in settings.baselines if (n := same.get(name, name)) in kind))
