"""How arrays of the host get to the device that networks compute on, and in which numbers they multiply there."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import torch


def placed(values: np.ndarray, device: torch.device, dtype: torch.dtype | None = None) -> torch.Tensor:
    """Values of the host on a device, as `dtype` or as their own; on a CPU it may be the same memory.

    Nobody waits for a GPU here: CUDA has taken its copy of memory that is not pinned by the time that it returns.
    """
    import torch

    return torch.from_numpy(values).to(device, dtype, non_blocking=True)


@contextlib.contextmanager
def precision(kind: str, device: torch.device) -> Iterator[None]:
    """Within, networks multiply in `kind`: bf16, fp16, or tf32, which is float32 but on a GPU; else in float32."""
    import torch

    half = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(kind)
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    allow_tf32(kind == "tf32")
    try:
        with torch.autocast(device.type, half) if half else contextlib.nullcontext():
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def allow_tf32(allowed: bool) -> None:
    """Whether this process's GPU may multiply float32 with ten bits of mantissa (TF32), which is many times as fast:
    also outside of `precision`, where backward passes are.

    Without this call torch lets convolutions do so and products of matrices not.
    """
    import torch

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed
