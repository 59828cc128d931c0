"""Settings of the lake itself."""

from __future__ import annotations

from pydantic import Field

from genodl_spark.core.toml import Section


class Maintenance(Section):
    """What `genodl maintain` keeps. `retention_hours`: files that no version, model, prediction or training run needs any more are removed when
    they have been unneeded for so long. `small_bytes`, `fewest`: partitions with so many files below so many bytes are compacted. `log_versions`:
    a table's log loses the versions that nothing has needed for so long, once they are so many.
    """

    retention_hours: float = Field(168.0, ge=0)
    small_bytes: int = Field(32 << 20, ge=0)
    fewest: int = Field(8, ge=2)
    log_versions: int = Field(50, ge=1)


class Lock(Section):
    """`wait_seconds`: how long a run waits for another that is in its way, `forget` for those that write and they for it, before it gives up."""

    wait_seconds: float = Field(60.0, ge=0)
