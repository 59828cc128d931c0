"""Files of a registered model: what has changed since is refused, and a card asks for nothing
that its weights do not have."""

from __future__ import annotations

import dataclasses
import json
import resource
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from genodl_spark.core.errors import InputError
from genodl_spark.learning import model_files, predictor
from genodl_spark.learning.model_files import CARD, WEIGHTS, Card, ModelFiles
from tests.learning.test_predictor import card, rows_of, weights

NETWORK = "from genodl_spark.learning.models.mlp import Network as Mlp\n\nclass Network(Mlp):\n    pass\n"


def published(folder: Path, code: dict[str, bytes] | None = None, **options: Any) -> ModelFiles:
    return model_files.publish(
        str(folder / "m"), dataclasses.replace(card("mlp", 2, 3), **options), weights("mlp", 2, 3), code or {}
    )


def flipped(content: bytes, generator: np.random.Generator) -> bytes:
    changed = bytearray(content)
    changed[generator.integers(len(content))] ^= 1 << generator.integers(8)
    return bytes(changed)


def refusal(files: ModelFiles) -> InputError | None:
    try:
        predictor.load(files)
    except InputError as error:
        return error
    return None


@pytest.mark.parametrize("name", [CARD, WEIGHTS])
def test_a_byte_that_has_changed_is_found(tmp_path: Path, name: str) -> None:
    files = published(tmp_path)
    path, generator = Path(files.place(name)), np.random.default_rng(7)
    content = path.read_bytes()
    for _ in range(200):
        path.write_bytes(flipped(content, generator))
        with pytest.raises(InputError, match="found SHA-256") as caught:
            predictor.load(files)
        assert caught.value.file == str(path) and "train the model again" in caught.value.message
    path.write_bytes(content)
    x = rows_of("mlp", 20)
    np.testing.assert_array_equal(
        predictor.load(files)(x), predictor.Predictor(card("mlp", 2, 3), weights("mlp", 2, 3), "w")(x)
    )


def test_flips_of_a_model_without_hashes_end_in_an_input_error_or_a_model(tmp_path: Path) -> None:
    """Nothing else: no crash, and no other exception. What was not hashed cannot be known to be the same."""
    files = ModelFiles(published(tmp_path).uri)
    generator, refused = np.random.default_rng(8), 0
    for name in (CARD, WEIGHTS):
        path = Path(files.place(name))
        content = path.read_bytes()
        for _ in range(200):
            path.write_bytes(flipped(content, generator))
            error = refusal(files)
            assert error is None or error.file in (files.place(CARD), files.place(WEIGHTS)), error
            refused += error is not None
        path.write_bytes(content)
    assert refused > 150


def test_other_weights_another_card_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    files = published(tmp_path)
    tensors = load(Path(files.place(WEIGHTS)).read_bytes())
    Path(files.place(WEIGHTS)).write_bytes(save({name: torch.rand_like(value) for name, value in tensors.items()}))
    with pytest.raises(InputError, match=f"{WEIGHTS}: found SHA-256"):
        predictor.load(files)
    document = json.loads(Path(files.place(CARD)).read_bytes())
    Path(files.place(CARD)).write_text(json.dumps({**document, "classes": document["classes"][::-1]}))
    with pytest.raises(InputError, match=f"{CARD}: found SHA-256"):
        files.card()
    Path(files.place(CARD)).unlink()
    with pytest.raises(InputError, match="no such file"):
        files.card()
    with pytest.raises(InputError, match="table models knows nothing of"):
        (published(tmp_path), Path(files.place("more")).write_bytes(b"x"), files.read("more"))


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"temperature": -1.0}, "temperature"),
        ({"temperature": 0}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"temperature": float("inf")}, "temperature"),
        ({"temperature": "1.5"}, "temperature"),
        ({"members": 0}, "members"),
        ({"members": 1 << 40}, "members"),
        ({"members": True}, "members"),
        ({"batch": 0}, "batch"),
        ({"batch": 1 << 40}, "batch"),
        ({"batch": 1 << 20, "features": [f"f{i}" for i in range(5000)]}, "16 GiB"),
        ({"classes": ["a", "a", "b"]}, "classes that are named once"),
        ({"classes": ["a"]}, "two at least"),
        ({"features": ["f0"] * 12}, "features that are named once"),
        ({"features": []}, "features"),
        ({"features": [1, 2]}, "features"),
        ({"dtype": "float16"}, "dtype"),
        ({"transform": "log"}, "transform"),
        ({"transform": "onehot"}, "int8"),
        ({"model_id": "../../etc"}, "model_id"),
        ({"more": 1}, "more"),
        ({"format": 1}, "format 1"),
        ({"model": {"kind": "mlp", "hidden": [1 << 40]}}, "options of a network"),
        ({"model": {"kind": "mlp", "hidden": [1] * 5000}}, "options of a network"),
        ({"model": {"kind": "mlp", "hidden": [1 << 30]}}, "not the weights"),
        ({"model": {"kind": "mlp", "hidden": [1 << 30, 1 << 30, 1 << 30]}}, "not the weights"),
        ({"model": {"kind": "mlp", "widths": [8]}}, "widths"),
        ({"model": {"kind": "layers"}}, "no class Network"),
        ({"model": {"kind": "..tasks.binding"}}, "expected a file under"),
        ({"model": {"kind": "/tmp/own.py"}}, "found no file own.py"),
        ({"members": 3}, "not the weights"),
        ({"classes": ["a", "b"]}, "not the weights"),
    ],
)
def test_a_card_that_asks_for_what_it_must_not_is_refused(tmp_path: Path, change: dict[str, Any], found: str) -> None:
    """Also without a hash: none of these makes anything large, or runs a file that it names."""
    files = ModelFiles(published(tmp_path).uri)
    document = json.loads(Path(files.place(CARD)).read_bytes())
    Path(files.place(CARD)).write_text(json.dumps({**document, **change}))
    with pytest.raises(InputError, match=found) as caught:
        predictor.load(files)
    assert caught.value.file in (files.place(CARD), files.place(WEIGHTS)) and "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"[1]", b"\xff\xfe", b"[" * 100_000, b'{"format": 2}', b"null"])
def test_what_is_no_card_is_refused(content: bytes) -> None:
    with pytest.raises(InputError) as caught:
        model_files.card_of(content, "lake/models/m/model.json")
    assert caught.value.file == "lake/models/m/model.json"


def header(shape: list[int], end: int) -> bytes:
    declared = json.dumps({"mean": {"dtype": "F32", "shape": shape, "data_offsets": [0, end]}}).encode()
    return struct.pack("<Q", len(declared)) + declared


@pytest.mark.parametrize(
    "content",
    [
        header([1 << 38], 1 << 40),
        header([1 << 62], 48) + b"\0" * 48,
        header([12], 48),
        struct.pack("<Q", 1 << 60) + b"{}",
        b"",
    ],
)
def test_weights_that_declare_more_than_the_file_has_are_refused(content: bytes) -> None:
    with pytest.raises(InputError, match=WEIGHTS):
        predictor.Predictor(card("mlp", 2, 3), content, "lake/models/m")


def test_stored_code_runs_from_the_lake_alone_and_by_leave(tmp_path: Path) -> None:
    """A network in a file of the user's: where the command trusts it, or names the same bytes itself;
    never another file of that name."""
    code = {"own.py": NETWORK.encode()}
    files = published(tmp_path, code, model={**card("mlp", 2, 3).model, "kind": "own.py"})
    row = type("Row", (), model_files.columns(files))
    x = rows_of("mlp", 20)
    expected = predictor.Predictor(card("mlp", 2, 3), weights("mlp", 2, 3), "w")(x)
    for opened in (
        model_files.files_of(row, files.uri, trusted=True),
        model_files.files_of(row, files.uri, given=code),
    ):
        np.testing.assert_array_equal(predictor.load(opened)(x), expected)
    planted = {"own.py": b"raise SystemExit('this ran')"}
    for closed in (model_files.files_of(row, files.uri), model_files.files_of(row, files.uri, given=planted)):
        with pytest.raises(InputError, match=r"code\.trusted=true") as caught:
            predictor.load(closed)
        assert caught.value.file == files.place("code")
    Path(files.place("code/own.py")).write_bytes(planted["own.py"])
    with pytest.raises(InputError, match=r"code/own.py: found SHA-256"):
        predictor.load(model_files.files_of(row, files.uri, trusted=True))
    # A model that was registered without hashes runs what the command names, and nothing that lies in the lake.
    old = type("Row", (), {"card_sha256": None, "weights_sha256": None, "code_sha256": None})
    np.testing.assert_array_equal(
        predictor.load(model_files.files_of(old, files.uri, trusted=True, given=code))(x), expected
    )
    with pytest.raises(InputError, match=r"found no file own\.py"):
        predictor.load(model_files.files_of(old, files.uri, trusted=True))


def test_a_card_comes_back_as_it_was(tmp_path: Path) -> None:
    made: Card = card("mlp", 2, 3)
    files = model_files.publish(str(tmp_path / "m"), made, weights("mlp", 2, 3), {})
    assert files.card() == made and dict(files.hashes).keys() == {CARD, WEIGHTS}


def test_what_a_card_asks_for_is_not_made_before_it_is_held_against_the_file(tmp_path: Path) -> None:
    files = ModelFiles(published(tmp_path).uri)
    document = json.loads(Path(files.place(CARD)).read_bytes())
    # 4 GiB of weights
    Path(files.place(CARD)).write_text(json.dumps({**document, "model": {"kind": "mlp", "hidden": [1 << 25]}}))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match=r"by the card \(2, 12, 33554432\)"):
        predictor.load(files)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB
