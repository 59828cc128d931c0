"""Tables of what is found of cells: their clusters, and genes that mark these."""

from __future__ import annotations

from genodl_spark.lake.schema import CELL, COHORT, Column, Table, required

CLUSTERS = Table(
    "clusters",
    "One row per cell of a cohort and block: its cluster",
    (
        COHORT,
        required("block", "string", "Block of features that the cells were clustered by"),
        required("cell_id", "string", "Cell identifier, as in `cells`"),
        Column("cluster", "int", "Number of the cluster, from 0, the largest first; NULL for a cell that has none"),
        Column(
            "stability",
            "double",
            "Mean over subsamples of the share of the cell's cluster that comes back with it; of a cell that joined by "
            "its neighbours the share of these in the cluster; NULL without",
        ),
        Column("note", "string", "Why the cell has no cluster; NULL where it has"),
        required("fingerprint", "string", "Hash of what the rows were made from"),
    ),
    key=("cohort", "block", "cell_id"),
    partitioned_by=("cohort",),
    entity="cell_id",
    kind=CELL,
    made_by="cluster",
)
MARKERS = Table(
    "markers",
    "One row per cluster and gene that marks it, by the rank-sum test of its cells against all others",
    (
        COHORT,
        required("block", "string", "Block of features"),
        required("cluster", "int", "Number of the cluster, as in `clusters`"),
        required("rank", "int", "Place of the gene among the cluster's markers, from 1, the largest auc first"),
        required("feature_id", "string", "Gene, as in `features`"),
        required("auc", "double", "Chance that a cell of the cluster has a higher value than another; ties count half"),
        required("difference", "double", "Difference of mean logarithms (natural; of counts to 10,000 of a cell)"),
        required("share", "double", "Share of the cluster's cells in which the gene is not 0"),
        required("share_rest", "double", "Share of the other cells"),
        required("p_value", "double", "Two-sided p-value of the rank-sum test, ties corrected"),
        required("q_value", "double", "Benjamini and Hochberg's q-value among the genes of the cluster"),
        required("fingerprint", "string", "Hash of what the rows were made from"),
    ),
    key=("cohort", "block", "cluster", "feature_id"),
    partitioned_by=("cohort",),
    made_by="cluster",
)
