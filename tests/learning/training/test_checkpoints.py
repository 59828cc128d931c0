"""Checkpoints: what goes in comes out, whole or not at all, and nothing is unpickled."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch

from genodl_spark.core import storage
from genodl_spark.learning.training import checkpoints


def test_state_comes_back_bit_by_bit() -> None:
    tensors = {
        "a": torch.randn(3, 2, dtype=torch.float64),
        "b.c": torch.arange(4).bfloat16(),
        "scalar": torch.tensor(3.0),
        "t": torch.randn(2, 3).T,
    }
    state = {"epoch": 3, "best": [float("inf"), 0.1], "history": [{"train": [1e-17]}]}
    found, document = checkpoints.unpack(checkpoints.pack(tensors, state))
    assert document == state
    assert found.keys() == tensors.keys()
    for name, value in tensors.items():
        assert found[name].dtype == value.dtype and torch.equal(found[name], value)


def test_what_is_no_checkpoint_is_refused() -> None:
    for content in (pickle.dumps({"a": 1}), b"", checkpoints.pack({"a": torch.zeros(9)}, {})[:-5]):
        with pytest.raises(ValueError, match="not a safetensors file"):
            checkpoints.unpack(content)


def test_a_writer_copies_before_it_returns_and_the_newer_replaces_the_older(tmp_path: Path) -> None:
    uri = str(tmp_path / "c" / "0.safetensors")
    writer = checkpoints.Writer(uri)
    value = torch.zeros(1000)
    for step in range(3):
        value.fill_(step)
        writer.write({"v": value}, {"step": step})
        value.fill_(-1)
    writer.close()
    found, state = checkpoints.unpack(storage.read_bytes(uri))
    assert state == {"step": 2} and float(found["v"].min()) == 2
    assert [path.name for path in (tmp_path / "c").iterdir()] == ["0.safetensors"]


def test_a_failed_write_is_not_silent(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    writer = checkpoints.Writer(str(tmp_path / "file" / "below.safetensors"))
    writer.write({"v": torch.zeros(1)}, {})
    with pytest.raises(OSError, match="file"):
        writer.wait()
