"""Checkpoints of training: one file each, whole or not there, in the lake's filesystem and without pickle.

A checkpoint is a safetensors file whose metadata holds the rest of the state as JSON.
A newer one takes the place of the older.
"""

from __future__ import annotations

import json
import logging
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from genodl_spark.core import storage

if TYPE_CHECKING:
    import torch

log = logging.getLogger("genodl")
_STATE = "state"


def pack(tensors: dict[str, torch.Tensor], state: dict[str, Any]) -> bytes:
    """Tensors of any dtype and device, and JSON-able state, as the bytes of one file."""
    from safetensors.torch import save

    return save(
        {name: value.detach().cpu().contiguous() for name, value in tensors.items()}, {_STATE: json.dumps(state)}
    )


def unpack(content: bytes) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """What `pack` was given. ValueError for bytes that are no checkpoint."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        tensors = load(content)
    except SafetensorError as error:
        raise ValueError(f"not a safetensors file ({error})") from error
    # of the header (safetensors format): the loader of bytes keeps its metadata to itself
    length = int.from_bytes(content[:8], "little")
    metadata = json.loads(content[8 : 8 + length]).get("__metadata__", {})
    if _STATE not in metadata:
        raise ValueError("a safetensors file without the state of a training")
    return tensors, json.loads(metadata[_STATE])


class Writer:
    """Writes checkpoints to one URI beside the training; one at a time."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._pool = ThreadPoolExecutor(1, "checkpoint")
        self._pending: Future[None] | None = None

    def busy(self) -> bool:
        return self._pending is not None and not self._pending.done()

    def write(self, tensors: dict[str, torch.Tensor], state: dict[str, Any]) -> None:
        """Takes a copy and returns; an error of the write before is raised here."""
        self.wait()
        copies = {name: value.detach().to("cpu", copy=True) for name, value in tensors.items()}
        self._pending = self._pool.submit(self._write, copies, state)

    def _write(self, tensors: dict[str, torch.Tensor], state: dict[str, Any]) -> None:
        storage.write_bytes(self.uri, pack(tensors, state))

    def wait(self) -> None:
        if self._pending is not None:
            self._pending.result()
            self._pending = None

    def close(self) -> None:
        try:
            self.wait()
        finally:
            self._pool.shutdown()
