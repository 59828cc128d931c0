"""Kernels of cells against other libraries, and that nothing but the cells decides what they give."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import scipy.stats
from sklearn.decomposition import PCA
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
from sklearn.neighbors import NearestNeighbors

from genodl_spark.cells import clusters, communities, markers, neighbours, stability, variable
from genodl_spark.cells.components import Products, components
from genodl_spark.cells.transform import COUNTS, EXPRESSION, SCALED, UNIT, Transform, kind_of


def groups(sizes: tuple[int, ...], apart: float, seed: int, width: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Scores, whole numbers, of normal groups, and which each is of."""
    random = np.random.default_rng(seed)
    of = np.repeat(np.arange(len(sizes)), sizes)
    centres = random.standard_normal((len(sizes), width)) * apart
    return np.rint((centres[of] + random.standard_normal((len(of), width))) * UNIT), of


def test_neighbours_are_those_of_scikit_learn_and_ties_go_by_number() -> None:
    scores, _ = groups((40, 30), 2, 0)
    found = neighbours.neighbours(scores, 7)
    theirs = NearestNeighbors(n_neighbors=7, algorithm="brute").fit(scores).kneighbors(return_distance=False)
    assert found.tolist() == theirs.tolist()
    same = np.zeros((6, 2))
    assert neighbours.neighbours(same, 3).tolist() == [[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2], [0, 1, 2], [0, 1, 2]]
    assert neighbours.nearest_of(same[:1], same, 2).tolist() == [[0, 1]]
    assert neighbours.neighbours(same[:1], 3).shape == (1, 0)
    with pytest.raises(ValueError, match="squared lengths"):
        neighbours.neighbours(np.full((3, 1), 2.0**26), 1)


def test_blocks_of_distances_change_no_neighbour(monkeypatch: pytest.MonkeyPatch) -> None:
    scores, _ = groups((50, 23), 1, 1)
    whole = neighbours.neighbours(scores, 9)
    monkeypatch.setattr(neighbours, "_AT_ONCE", 300)
    assert (neighbours.neighbours(scores, 9) == whole).all()


def test_shared_neighbours_weigh_edges_by_jaccard_index() -> None:
    nearest = neighbours.neighbours(groups((20, 12), 1, 2)[0], 4)
    graph = neighbours.shared_graph(nearest, 0.2)
    sets = [{i, *row} for i, row in enumerate(nearest.tolist())]
    expected = {
        (a, b): len(sets[a] & sets[b]) / len(sets[a] | sets[b])
        for a in range(len(sets))
        for b in range(a + 1, len(sets))
        if len(sets[a] & sets[b]) > 0.2 * len(sets[a] | sets[b])
    }
    found = dict(zip(zip(graph.row.tolist(), graph.col.tolist(), strict=True), graph.data.tolist(), strict=True))
    assert found == pytest.approx(expected)


def test_leiden_finds_cliques_and_leaves_lone_nodes_alone() -> None:
    clique = [
        (a, b)
        for start, size in ((0, 4), (4, 5))
        for a in range(start, start + size)
        for b in range(a + 1, start + size)
    ]
    rows, columns = np.array([*clique, (0, 4)]).T
    graph = sp.coo_matrix((np.ones(len(rows)), (rows, columns)), (10, 10))
    found = communities.leiden(graph, 1.0, 1)
    assert found.tolist() == [1, 1, 1, 1, 0, 0, 0, 0, 0, 2]
    assert communities.leiden(sp.coo_matrix((3, 3)), 1.0, 1).tolist() == [0, 1, 2]
    assert communities.by_size(np.array([7, 3, 3, 9])).tolist() == [1, 0, 0, 2]


def test_consensus_weighs_edges_by_the_runs_that_have_both_ends() -> None:
    graph = sp.coo_matrix((np.ones(2), ([0, 1], [1, 2])), (3, 3))
    runs = [np.array([0, 0, 1]), np.array([0, 0, -1]), np.array([0, 1, 1])]
    found = communities.consensus(graph, runs)
    assert found.data.tolist() == pytest.approx([0.05 + 0.95 * 2 / 3, 0.05 + 0.95 / 2])


def test_residuals_are_those_of_the_paper_on_a_grid() -> None:
    counts = np.array([[5.0, 0.0, 1.0], [2.0, 2.0, 0.0]])
    sums, totals = counts.sum(0), counts.sum(1)
    found = Transform(COUNTS, sums / sums.sum(), 2).rows(counts[:, 1:], totals, np.array([1, 2]))
    mean = np.outer(totals, sums / sums.sum())
    expected = np.clip((counts - mean) / np.sqrt(mean + mean**2 / 100), -np.sqrt(2), np.sqrt(2))[:, 1:]
    assert np.abs(found / UNIT - expected).max() <= 0.5 / UNIT and (found == np.rint(found)).all()
    plain = Transform(EXPRESSION, sums, 2).rows(np.array([[7.0, 0.0]]), totals[:1], np.array([0, 1]))
    assert plain.tolist() == [[3 * UNIT, 0]]
    assert Transform(SCALED, sums, 2).rows(np.array([[-1.5]]), totals[:1], np.array([0])).tolist() == [[-1.5 * UNIT]]


@pytest.mark.parametrize(
    ("lowest", "highest", "whole", "kind"),
    [(0, 900, True, COUNTS), (0, 900, False, EXPRESSION), (0, 9.5, False, SCALED), (-1, 9, True, SCALED)],
)
def test_what_values_are_shows_in_their_ends(lowest: float, highest: float, whole: bool, kind: str) -> None:
    assert kind_of(lowest, highest, whole) == kind


def test_components_are_principal_and_do_not_depend_on_how_rows_came() -> None:
    scores, _ = groups((60, 40), 3, 3, 12)
    whole, parts = Products.empty(12), Products.empty(12)
    whole.add(scores)
    for part in np.array_split(np.random.default_rng(0).permutation(scores), 7):
        more = Products.empty(12)
        more.add(part)
        parts.join(Products.unpack(more.pack(), 12))
    assert parts.cells == 100 and (parts.products == whole.products).all() and (parts.sums == whole.sums).all()
    found = components(whole, 4)
    theirs = PCA(4).fit(scores)
    assert found.shares == pytest.approx(theirs.explained_variance_ratio_)
    ours = found.loadings / np.linalg.norm(found.loadings, axis=0)
    assert np.abs((ours * theirs.components_.T).sum(0)) == pytest.approx(np.ones(4), abs=1e-3)
    assert (components(parts, 4).loadings == found.loadings).all()
    apart = found.scores(scores) - found.scores(scores).mean(0)
    assert np.abs(np.corrcoef(apart.T)[~np.eye(4, dtype=bool)]).max() < 0.01


def test_genes_of_no_variance_or_too_few_cells_are_not_chosen() -> None:
    x = np.array([[0, 5, 1, 9], [0, 1, 1, 0], [0, 2, 1, 9]], float)
    found = variable.variances(x.sum(0), (x * x).sum(0), 3)
    assert found == pytest.approx(x.var(0))
    assert variable.most_variable(found, (x > 0).sum(0), 4, 3).tolist() == [1]
    assert variable.most_variable(found, (x > 0).sum(0), 1, 1).tolist() == [3]


def test_indices_are_those_of_scikit_learn() -> None:
    random = np.random.default_rng(4)
    a, b = random.integers(0, 4, 80), random.integers(0, 6, 80)
    b[:40] = a[:40]
    assert stability.adjusted_rand(a, b) == pytest.approx(adjusted_rand_score(a, b))
    assert stability.mutual_information(a, b) == pytest.approx(normalized_mutual_info_score(a, b))
    one = np.zeros(5, np.int64)
    assert (stability.adjusted_rand(one, one), stability.mutual_information(one, one)) == (1, 1)


def test_agreement_counts_no_runs_that_tell_nothing_apart() -> None:
    runs = np.array([[0, 0, 1, 1, -1], [1, 1, 0, -1, 0], [0, 0, 0, 0, 0]])
    mean, error = stability.agreement(runs)
    assert mean == pytest.approx(1 / 3) and error > 0
    assert stability.agreement(runs[:2]) == (1.0, 0.0)


def test_the_finest_of_stable_resolutions_is_chosen_and_noise_has_a_p_value() -> None:
    nulls = np.array([[0, 0.4, 0.5], [0, 0.5, 0.5], [0, 0.3, 0.6]])
    stable, errors = np.array([0.9, 0.95, 0.7]), np.array([0.02, 0.03, 0.1])
    found = stability.choose(stable, errors, nulls)
    assert (found.place, found.p_value) == (1, 0.25) and found.null == pytest.approx(nulls.mean(0))
    assert stability.choose(np.array([0.0, 0.4, 0.5]), errors, nulls).p_value == 1


def test_cells_that_leave_their_cluster_are_less_stable() -> None:
    labels = np.array([0, 0, 0, 1, 1, 2])
    runs = np.array([[0, 0, 1, 1, 1, 2], [0, 0, 0, 1, -1, 2]])
    found = stability.of_cells(labels, runs)
    assert found[:5].tolist() == [0.75, 0.75, 0.5, 1, 1] and np.isnan(found[5])


def test_clusters_are_the_groups_and_others_join_them() -> None:
    scores, of = groups((90, 60, 30), 4, 5)
    n, k = len(of), clusters.neighbours_for(15, len(of))
    resolutions = stability.RESOLUTIONS[::3].tolist()
    runs = np.stack(
        [stability.communities_of(scores, stability.subsample(n, 0.8, 1, r), k, resolutions, r) for r in range(4)], 1
    )
    told = np.array([stability.agreement(one) for one in runs])
    drawn = [stability.one_cluster(scores, 1, number) for number in range(3)]
    nulls = [
        np.stack([stability.communities_of(x, stability.subsample(n, 0.8, 1, r), k, resolutions, r) for r in (0, 1)], 1)
        for x in drawn
    ]
    chosen = stability.choose(told[:, 0], told[:, 1], np.array([[stability.agreement(r)[0] for r in x] for x in nulls]))
    found = clusters.steady(scores, runs[chosen.place], k, resolutions[chosen.place], 1)
    assert adjusted_rand_score(of, found) == 1 and chosen.p_value == 0.25
    assert np.nanmin(stability.of_cells(found, runs[chosen.place])) > 0.9
    members = np.arange(0, n, 3)
    labels, share = clusters.joined(scores, members, found[members], 5)
    assert (labels == found).all() and (share == 1).all()


def test_markers_are_wilcoxons_with_ties() -> None:
    random = np.random.default_rng(6)
    of = np.repeat([0, 1, 2], (20, 30, 25))
    counts = random.poisson(1 + 2 * (of == 1)[:, None] * [1, 0, 1], (75, 3)).astype(float)
    totals = np.full(75, 400.0)
    kept = counts > 0
    counted = np.zeros((3, markers.LEVELS, 3), np.int64)
    rows, genes = np.nonzero(kept)
    np.add.at(counted, (genes, markers.levels(counts[rows, genes], totals[rows], COUNTS), of[rows]), 1)
    found = markers.rank_sums(counted, np.bincount(of))
    for gene in range(3):
        for cluster in range(3):
            a, b = counts[of == cluster, gene], counts[of != cluster, gene]
            test = scipy.stats.mannwhitneyu(a, b, method="asymptotic")
            assert found.p[gene, cluster] == pytest.approx(test.pvalue)
            assert found.auc[gene, cluster] == pytest.approx(test.statistic / len(a) / len(b))
            assert found.share[gene, cluster] == pytest.approx((a > 0).mean())
            assert found.share_rest[gene, cluster] == pytest.approx((b > 0).mean())
    logs = np.log1p(counts * 25)
    assert found.difference[0, 1] == pytest.approx(logs[of == 1, 0].mean() - logs[of != 1, 0].mean(), abs=0.04)
    q = markers.false_discovery(found.p)
    assert q == pytest.approx(scipy.stats.false_discovery_control(found.p, axis=0))
