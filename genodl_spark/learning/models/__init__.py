"""Networks. Each file but `layers`, of which they are built, holds one kind of model as a class `Network`;
`model.kind` names the file.

Every parameter and buffer has a leading dimension of members: networks of the same shape that share nothing but
the batches they see (folds of a cross-validation, seeds of an ensemble). One member is an ensemble of one.

    Network(seeds, inputs, outputs, **options)     one seed per member; `inputs` the shape of a row by its encoding (see
                                                   encodings/): (F,) for features, (4, L) for one-hot sequences in the
                                                   order A, C, G, T, where an unknown base or padding is an all-zero
                                                   column; a dictionary of shapes for several inputs by name
    network(x, rows, epoch) -> (M, B, outputs)     x (M or 1, B, *inputs), or a dictionary of such;
                                                   `rows` int64 (B,) and `epoch` key all that is random in training;
                                                   without rows it is evaluation, where nothing is
    network.trunk, network.trunk_options           of a network that can start from the weights of another one: names of
                                                   the parts that are taken over, and the options that shape them
                                                   (pretrained.py); network.by_feature: along which dimension
                                                   which of their weights are of features
    network.start_at(weight, bias)                 of a network that takes start="lda": the linear discriminants that
                                                   it starts at, (M, inputs, outputs) and (M, outputs)
                                                   (training/standardise.py)
    network.auxiliary                              None, or after a training forward a loss per row, (M, B), to be added
"""

from __future__ import annotations

import inspect
from typing import Any

from torch import nn

from genodl_spark.core import own_code
from genodl_spark.core.errors import InputError
from genodl_spark.core.own_code import Code
from genodl_spark.core.splitmix import mix
from genodl_spark.learning.encodings import Shape
from genodl_spark.learning.models.layers import MemberLinear, keyed_dropout, share_statistics

__all__ = ["MemberLinear", "build", "keyed_dropout", "mix", "network", "options", "share_statistics"]


def build(
    options: dict[str, Any], seeds: list[int], inputs: Shape, outputs: int, code: Code | None = None
) -> nn.Module:
    """The network that `options` describe: `kind` and the options of that kind.
    InputError for one that is unknown or out of range."""
    rest = {key: value for key, value in options.items() if key != "kind"}
    try:
        made = network(options, code)(seeds=seeds, inputs=inputs, outputs=outputs, **rest)
    except TypeError as error:
        raise InputError(f"{error}; expected options of {options.get('kind', 'mlp')}", "model") from error
    made.auxiliary = getattr(made, "auxiliary", None)
    return made


def network(options: dict[str, Any], code: Code | None = None) -> Any:
    """The class `Network` that `options["kind"]` names: a file of this package, or one of `code`, the user's own."""
    return own_code.named(str(options.get("kind", "mlp")), __name__, "Network", code or {}, "model.kind")


def options(model: dict[str, Any], code: Code | None = None) -> dict[str, Any]:
    """Options of a kind of network and their values by default; those that only `model` names,
    where the kind takes any."""
    parameters = inspect.signature(network(model, code).__init__).parameters
    found = {
        name: p.default
        for name, p in parameters.items()
        if name not in ("self", "seeds", "inputs", "outputs") and p.kind is not p.VAR_KEYWORD
    }
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        found |= {name: value for name, value in model.items() if name not in found and name != "kind"}
    return found
