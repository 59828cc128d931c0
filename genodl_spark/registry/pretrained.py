"""The model that networks of a training start from (`train.pretrained`), checked before ranks are."""

from __future__ import annotations

from typing import Any

import numpy as np

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
        text = f"found no model {s.train.pretrained}; expected one that has learnt of rows without labels"
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


def checked(
    run: Run, heads: list[Head], encoding: Encoding, model: dict[str, Any], features: list[str]
) -> tuple[ModelFiles | None, np.ndarray | None]:
    """The files of that model, whose networks those of `model`, over such features, can start from; and which feature
    of it each is, None where features have no names. InputError, which says in what they differ, where they cannot."""
    files, s = files_of(run), run.settings
    if files is None:
        return None, None
    import torch

    from genodl_spark.learning import models, pretrained

    bases = [head.kind for head in files.card().predicted] == ["bases"]
    if encoding.letters != bases or not (bases or encoding.scaled):
        of = "rows that are no sequences" if bases else "rows that are no measured values"
        raise InputError(f"found {s.train.pretrained} for {of}; expected none", pretrained.PLACE)
    stored, inputs = pretrained.network_of(files), encoding.shape(len(features))
    outputs = losses.loss(losses.name_of(s.train.loss, heads), heads, inputs, s.code_files).outputs
    with torch.device("meta"):
        network = models.build(model, [0], inputs, outputs, s.code_files)
    pretrained.check(network, str(model.get("kind")), stored, s.train.pretrained)
    named = None if bases else pretrained.places(features, files, s.min_feature_overlap)
    return files, named
