"""Settings of the lake itself."""

from __future__ import annotations

from pydantic import Field

from genodl_spark.core.toml import Section


class Maintenance(Section):
    """What genodl maintain keeps."""

    retention_hours: float = Field(
        168.0,
        ge=0,
        description="Files that no version, model, prediction or training run needs any more are removed when they "
        "have been unneeded for so long.",
    )
    small_bytes: int = Field(
        32 << 20, ge=0, description="Partitions with maintain.fewest files below so many bytes are compacted."
    )
    fewest: int = Field(8, ge=2, description="Partitions with so many files below maintain.small_bytes are compacted.")
    log_versions: int = Field(
        50,
        ge=1,
        description="Once a table's log has so many versions, it loses those that nothing has needed "
        "for maintain.retention_hours.",
    )


class Lock(Section):
    """Runs that are in each other's way."""

    wait_seconds: float = Field(
        60.0,
        ge=0,
        description="How long a run waits for another that is in its way, forget for those that write and they "
        "for it, before it gives up.",
    )
