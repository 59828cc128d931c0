"""Which model of rows without labels a training of measured values may start from, and which features it knows."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from genodl_spark.core.errors import InputError
from genodl_spark.job import config
from genodl_spark.learning import encodings, heads
from genodl_spark.learning.training import rank
from genodl_spark.registry import pretrained
from tests.learning.training.test_pretrained import CODING, TWO, of_values, stored


def test_what_fits_a_model_of_measured_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs, ours = ["g0", "g1", "g2"], ["g2", "new", "g0"]
    coding = of_values(tmp_path / "a", theirs, [heads.Head("none", "none")])
    rank.run_alone(coding)
    files = stored(tmp_path, coding, features=theirs, dtype="float32", transform="none")
    monkeypatch.setattr(pretrained, "files_of", lambda run: files)
    settings = config.load("tumor_type", None, ["train.pretrained=m0", "min_feature_overlap=0.6"])
    run = SimpleNamespace(settings=settings)
    values, bases = encodings.encoding("none"), encodings.encoding("onehot")
    found, matched = pretrained.checked(run, TWO, values, CODING, ours)
    assert found is files and matched is not None and matched.tolist() == [2, -1, 0]
    assert pretrained.fixed(run) == {"model.hidden": [5], "model.latent": 3, "model.variational": False}
    for encoding, model, said in (
        (bases, CODING, "found m0 for rows that are no measured values; expected none"),
        (values, {**CODING, "latent": 4}, "latent 4 for 3; expected --set model.latent=3"),
        (values, {"kind": "mlp", "hidden": [5]}, "found mlp, which cannot start from another network; expected auto"),
    ):
        with pytest.raises(InputError) as caught:
            pretrained.checked(run, TWO, encoding, model, ours)
        assert said in str(caught.value)
    run.settings = config.load("tumor_type", None, ["train.pretrained=m0", "min_feature_overlap=0.9"])
    with pytest.raises(InputError, match="knows 67% of the 3 features; expected 90% at least"):
        pretrained.checked(run, TWO, values, CODING, ours)
