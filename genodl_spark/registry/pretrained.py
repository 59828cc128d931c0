"""The model that networks of a training start from (`train.pretrained`), checked before ranks are."""

from __future__ import annotations

from typing import Any

from genodl_spark.core.errors import InputError
from genodl_spark.job.run import Run
from genodl_spark.lake.tables.learning import MODELS
from genodl_spark.learning import losses, model_files
from genodl_spark.learning.encodings import Encoding
from genodl_spark.learning.heads import Head
from genodl_spark.learning.model_files import ModelFiles


def files_of(run: Run) -> ModelFiles | None:
    """The files of that model; None where none is named. InputError where it is not registered."""
    s = run.settings
    if not s.train.pretrained:
        return None
    rows = run.lake.rows(MODELS, {"model_id": s.train.pretrained}).to_pylist()
    if not rows:
        text = f"found no model {s.train.pretrained}; expected one that has learnt to tell hidden bases"
        raise InputError(f"{text}, see genodl list models", "train.pretrained")
    uri = run.lake.model_uri(s.train.pretrained)
    return model_files.files_of(MODELS.row(rows[0]), uri, s.code.trusted, s.code_files)


def shaping(run: Run) -> dict[str, Any]:
    """What shapes a training that starts from a model: the content of its files."""
    files = files_of(run)
    return {} if files is None else {"pretrained": files.hashes}


def fixed(run: Run) -> dict[str, Any]:
    """Settings that are as they are in that model, by their keys; none where none is named. Strands that are not
    shared may be read either way."""
    from genodl_spark.learning import pretrained

    files = files_of(run)
    options = {} if files is None else pretrained.network_of(files).trunk_options
    return {f"model.{option}": value for option, value in options.items()}


def checked(run: Run, heads: list[Head], encoding: Encoding, model: dict[str, Any], features: int) -> ModelFiles | None:
    """The files of that model, whose networks those of `model`, over so many features, can start from. InputError,
    which says in what they differ, where they cannot."""
    files, s = files_of(run), run.settings
    if files is None:
        return None
    import torch

    from genodl_spark.learning import models, pretrained

    if not encoding.letters:
        raise InputError(f"found {s.train.pretrained} for rows that are no sequences; expected none", pretrained.PLACE)
    stored, inputs = pretrained.network_of(files), encoding.shape(features)
    outputs = losses.loss(losses.name_of(s.train.loss, heads), heads, inputs, s.code_files).outputs
    with torch.device("meta"):
        network = models.build(model, [0], inputs, outputs, s.code_files)
    pretrained.check(network, str(model.get("kind")), stored, s.train.pretrained)
    return files
