"""Networks that start from the weights of another one, which has learnt to tell hidden bases.

What is taken over is the trunk: all that stands before positions are pooled. A network that can do so says which parts
that is, `trunk`, and which options shape them, `trunk_options`.
"""

from __future__ import annotations

from typing import Any

from genodl_spark.core.errors import InputError
from genodl_spark.learning.model_files import ModelFiles
from genodl_spark.learning.predictor import Predictor

PLACE = "train.pretrained"


def network_of(files: ModelFiles) -> Any:
    """The network of a model, on the CPU. InputError where it has not learnt to tell hidden bases, or where its files
    are not what was registered."""
    card = files.card()
    if [head.kind for head in card.predicted] != ["bases"]:
        text = f"found model {card.model_id} of task {card.task}, which has learnt something else"
        raise InputError(f"{text}; expected one that tells hidden bases, as of task sequence_pretraining", PLACE)
    return Predictor(card, files.weights(), files.uri, device="cpu", code=files.code()).network


def check(network: Any, kind: str, stored: Any, model_id: str) -> None:
    """InputError, which says in what they differ, unless a network of `kind` can start from the stored one."""
    own, other = getattr(network, "trunk_options", None), stored.trunk_options
    if own is None:
        raise InputError(f"found {kind}, which cannot start from another network; expected cnn", "model.kind")
    differs = [option for option in other if own.get(option) != other[option]]
    if differs:
        found = ", ".join(f"{option} {own.get(option)} for {other[option]}" for option in differs)
        asked = " ".join(f"--set model.{option}={_written(other[option])}" for option in differs)
        raise InputError(f"found a network with other options than model {model_id}, {found}; expected {asked}", PLACE)


def _written(value: Any) -> str:
    return str(value).replace(" ", "")


def start(network: Any, kind: str, files: ModelFiles, members: int) -> None:
    """Gives a network of ensembles of so many members the trunk of a model: a member of each ensemble that of the
    model's member of the same number, where it has as many, else of what is left of that number."""
    import torch

    stored = network_of(files)
    check(network, kind, stored, files.card().model_id)
    theirs = stored.state_dict()
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if name.split(".")[0] in network.trunk:
                of = torch.arange(len(value)) % members % len(theirs[name])
                value.copy_(theirs[name][of])
