"""Networks that start from the weights of another one, which has learnt of rows without labels: to tell hidden
bases, or measured values again.

What is taken over is the trunk: all that stands before positions are pooled, or an encoder and its decoder. A network
that can do so says which parts that is, `trunk`, and which options shape them, `trunk_options`. Weights of a feature go
to the feature of the same name (`by_feature`); of features that the other network does not know they start at random.
Each training set standardises its features by itself, so that cohorts need no common scale.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from genodl_spark.core.errors import InputError
from genodl_spark.learning.heads import UNLABELLED
from genodl_spark.learning.model_files import ModelFiles
from genodl_spark.learning.predictor import Predictor

PLACE = "train.pretrained"


def network_of(files: ModelFiles) -> Any:
    """The network of a model, on the CPU. InputError where it has not learnt to tell hidden bases, or where its files
    are not what was registered."""
    card = files.card()
    if [head.kind in UNLABELLED for head in card.predicted] != [True]:
        text = f"found model {card.model_id} of task {card.task}, which has learnt something else"
        tasks = "as of task sequence_pretraining or expression_pretraining"
        raise InputError(f"{text}; expected one that has learnt of rows without labels, {tasks}", PLACE)
    return Predictor(card, files.weights(), files.uri, device="cpu", code=files.code()).network


def check(network: Any, kind: str, stored: Any, model_id: str) -> None:
    """InputError, which says in what they differ, unless a network of `kind` can start from the stored one."""
    expected, other = type(stored).__module__.rpartition(".")[2], getattr(stored, "trunk_options", None)
    if other is None:
        text = f"found model {model_id}, a network of kind {expected}; expected one that others can start from"
        raise InputError(f"{text}, as an autoencoder or cnn", PLACE)
    own = getattr(network, "trunk_options", None)
    if own is None or own.keys() != other.keys():
        raise InputError(f"found {kind}, which cannot start from another network; expected {expected}", "model.kind")
    differs = [option for option in other if own.get(option) != other[option]]
    if differs:
        found = ", ".join(f"{option} {own.get(option)} for {other[option]}" for option in differs)
        asked = " ".join(f"--set model.{option}={_written(other[option])}" for option in differs)
        raise InputError(f"found a network with other options than model {model_id}, {found}; expected {asked}", PLACE)


def _written(value: Any) -> str:
    return str(value).replace(" ", "")


def places(features: Sequence[str], files: ModelFiles, least: float) -> np.ndarray:
    """Number of each of some features in a model, int64 (F,), -1 where it has none of that name. InputError where it
    has less than a share `least` of them."""
    card = files.card()
    numbers = {name: number for number, name in enumerate(card.features)}
    found = np.array([numbers.get(name, -1) for name in features], np.int64)
    share = float((found >= 0).mean()) if len(found) else 0.0
    if share < least:
        text = f"found that model {card.model_id} knows {share:.0%} of the {len(found)} features"
        raise InputError(
            f"{text}; expected {least:.0%} at least: harmonise the names, or lower it", "min_feature_overlap"
        )
    return found


def start(network: Any, kind: str, files: ModelFiles, members: int, of_features: np.ndarray | None = None) -> None:
    """Gives a network of ensembles of so many members the trunk of a model: a member of each ensemble that of the
    model's member of the same number, where it has as many, else of what is left of that number. `of_features`: as
    `places` has them, of the network's features; None where these have no names."""
    import torch

    stored = network_of(files)
    check(network, kind, stored, files.card().model_id)
    theirs = stored.state_dict()
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if name.split(".")[0] in network.trunk:
                of = torch.arange(len(value)) % members % len(theirs[name])
                axis = getattr(network, "by_feature", {}).get(name)
                if axis is None or of_features is None:
                    value.copy_(theirs[name][of])
                    continue
                own = torch.from_numpy(np.flatnonzero(of_features >= 0)).to(value.device)
                there = torch.from_numpy(of_features[of_features >= 0])
                value.index_copy_(axis, own, theirs[name][of].index_select(axis, there).to(value))
