"""Settings of what is computed from cells."""

from __future__ import annotations

from pydantic import Field

from genodl_spark.core.toml import Section, Text


class Cluster(Section):
    """Clusters of cells."""

    block: Text = Field("", description="Block of features that the cells are clustered by.")
    values: str = Field(
        "auto",
        pattern="^(auto|counts|expression|scaled)$",
        description="What the values are: counts; expression, not negative, of which logarithms are taken; scaled, "
        "taken as they are; or auto, which goes by whether they are whole, negative or large.",
    )
    min_genes: int = Field(1, ge=1, description="Cells in which fewer genes are counted have no cluster.")
    min_cells: int = Field(3, ge=1, description="Genes that fewer cells have tell no cells apart.")
    genes: int = Field(2000, ge=2, le=10_000, description="Genes that vary most, of which components are made.")
    components: int = Field(50, ge=1, le=500, description="Principal components that distances are measured in.")
    neighbours: int = Field(
        15, ge=1, description="Neighbours of a cell; among fewer than ten times as many cells a tenth of these."
    )
    resolution: float = Field(
        0.0, ge=0, le=100, description="Resolution of the clusters; 0: the one at which they are most stable."
    )
    count: int = Field(
        0, ge=0, description="How many clusters there are, where that is known; 0: as many as the resolution gives."
    )
    subsamples: int = Field(60, ge=2, description="Subsamples of the cells that are clustered to see what comes back.")
    share: float = Field(0.8, gt=0.5, lt=1, description="Share of the cells that a subsample has.")
    null_sets: int = Field(
        19, ge=2, description="Sets of cells drawn from one normal distribution that stability is held against."
    )
    cells: int = Field(
        20_000,
        ge=100,
        description="Cells that are clustered; where there are more, the others join the cluster of most of their "
        "neighbours among these.",
    )
    markers: int = Field(50, ge=0, description="Markers of a cluster that are kept, at most.")
    max_q: float = Field(0.05, gt=0, le=1, description="Their largest q-value.")
    seed: int = Field(1, ge=0, description="Seed of subsamples, null sets and communities.")
