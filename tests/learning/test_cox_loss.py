"""Cox's partial likelihood as a loss of networks: against statsmodels, over batches, pieces and ranks, and planted
hazards that networks find again."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.numpy import load, save
from statsmodels.duration.hazard_regression import PHReg

from genodl_spark.core import packing
from genodl_spark.core.errors import InputError
from genodl_spark.learning import feed, losses, metrics, survival
from genodl_spark.learning.baseline_fits import of_head
from genodl_spark.learning.explain import outputs
from genodl_spark.learning.heads import Head
from genodl_spark.learning.model_files import new_card
from genodl_spark.learning.predictor import Predictor
from genodl_spark.learning.settings import Train
from genodl_spark.learning.training import plan, rank
from genodl_spark.learning.training.among import Among
from genodl_spark.learning.training.ranks import Alone
from tests.learning.test_survival import TRUE, cohort

AT = (0.2, 0.5, 1.0)
HEAD = Head("t", "time", (), AT)
LINEAR: dict[str, Any] = {"kind": "mlp", "hidden": [], "dropout": 0.0}


def job(
    folder: Path, x: np.ndarray, target: np.ndarray, network: dict[str, Any], folds: int = 0, **options: Any
) -> Any:
    """A training in float64 on rows of which, without folds, every fifth is held out."""
    folder.mkdir(exist_ok=True)
    number = np.arange(len(x))
    codes = number % folds if folds else np.where(number % 5 == 0, 2, 0)
    columns = {
        "row_id": pa.array(number),
        "x": packing.column(x.astype(np.float32)),
        "target": pa.array(np.full(len(x), np.nan)),
        "targets": packing.column(target),
        "folds": packing.column(codes.astype(np.int8)[:, None]),
    }
    pq.write_table(pa.table(columns), folder / "rows.parquet")
    usual = {"ensemble": 1, "epochs": 1, "min_steps": 1, "warmup_epochs": 0, "weight_decay": 0.0, "dtype": "float64"}
    settings = Train(**{**usual, "loss": "cox", **options})
    layout = feed.Layout(len(x), x.shape[1], "float32", 1, targets=2)
    files, shaped = [f"file://{folder}/rows.parquet"], (network, settings, 3, str(folder / "s"))
    return plan.Job(files, layout, "pyarrow", 1 << 30, [HEAD], folds, "none", 1.0, 0, *shaped, loss="cox", threads=1)


def model(made: Any, weights: bytes | None = None) -> Predictor:
    rest = {"features": [f"f{i}" for i in range(made.layout.features)], "dtype": "float32", "transform": "none"}
    card = new_card(
        [HEAD], model_id="m", task="t", label_column="t", model=made.model, members=made.options.ensemble, batch=64,
        loss="cox", **rest,
    )  # fmt: skip
    return Predictor(card, weights or Path(made.staging, "model.safetensors").read_bytes(), "m")


class Threads(Alone):
    """Ranks that are threads of this process."""

    def __init__(self, number: int, board: list[Any], barrier: threading.Barrier) -> None:
        super().__init__()
        self.rank, self.size, self.board, self.barrier = number, len(board), board, barrier

    def _shared(self, value: Any) -> list[Any]:
        self.board[self.rank] = value
        self.barrier.wait()
        found = list(self.board)
        self.barrier.wait()
        return found

    def sum(self, values: torch.Tensor, name: str) -> torch.Tensor:
        return torch.stack(self._shared(values)).sum(0)

    def all(self, values: np.ndarray, name: str) -> np.ndarray:
        return np.concatenate(self._shared(values))

    def sum_gradients(self, parameters: Any, measured: torch.Tensor, compress: bool) -> torch.Tensor:
        grads = self._shared([p.grad for p in parameters])
        summed = [torch.stack([of_rank[i] for of_rank in grads]).sum(0) for i in range(len(parameters))]
        for p, value in zip(parameters, summed, strict=True):
            p.grad = value
        return self.sum(measured, "measured")

    def same(self, content: bytes | None) -> bytes | None:
        return self._shared(content)[0]

    def meet(self) -> None:
        self._shared(None)


def trained(made: Any, ranks: int = 1) -> dict[str, Any]:
    """What the first rank returns."""
    if ranks == 1:
        return rank.run_alone(made)
    data = feed.read(made.files, made.layout, made.backend)
    board, barrier, found = [None] * ranks, threading.Barrier(ranks), [None] * ranks

    def work(number: int) -> None:
        try:
            them = Threads(number, board, barrier)
            found[number] = rank.Rank(made, them, torch.device("cpu"), data).run()  # type: ignore[call-overload]
        except BaseException:
            barrier.abort()
            raise

    threads = [threading.Thread(target=work, args=(number,)) for number in range(ranks)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found[0] is not None
    return found[0]


@pytest.mark.parametrize("tied", [False, True])
def test_the_likelihood_is_efrons_as_statsmodels_has_it(tied: bool) -> None:
    """Value and slopes, of two training sets with two members each; what does not count is as if it were not there."""
    x, times, event = cohort(tied=tied)
    counts = np.stack([np.arange(len(x)) % 3 > 0, np.ones(len(x), bool)])
    loss: Any = losses.loss("cox", [HEAD], (4,))
    outside = np.column_stack([times, event])
    weights = torch.tensor(np.array([TRUE, TRUE * 0, [2.0, -1, 0.5, 3], -TRUE]), requires_grad=True)
    said = torch.einsum("mf,nf->mn", weights, torch.tensor(x))[..., None]
    found = loss.among(outside, counts)(said)
    for m, own in enumerate(counts.repeat(2, 0)):
        theirs = PHReg(times[own], x[own], event[own], ties="efron")
        of_mean = own.sum() * said[m, own, 0].mean() ** 2 / 2
        mine = found[m].sum() - of_mean
        (slope,) = torch.autograd.grad(mine, weights, retain_graph=True)
        assert mine.item() == pytest.approx(-theirs.loglike(weights[m].detach().numpy()), rel=1e-12)
        np.testing.assert_allclose(-slope[m].numpy(), theirs.score(weights[m].detach().numpy()), atol=1e-9)
        assert not found[m, ~own].any()
    # neither the unit of time nor the order of rows moves it, nor log risks that are far apart
    order = np.random.default_rng(1).permutation(len(x))
    again = loss.among(outside[order] * [365, 1], counts[:, order])(said[:, order])
    torch.testing.assert_close(again.sum(1), found.sum(1), rtol=1e-12, atol=0)
    slopes = [torch.autograd.grad(one.sum(), said, retain_graph=True)[0] for one in (found, again)]
    torch.testing.assert_close(slopes[1], slopes[0], rtol=1e-9, atol=1e-12)
    far = loss.among(outside, counts)((said * 1e4).detach().requires_grad_())
    assert torch.isfinite(far).all()


def test_the_slope_of_a_batch_is_that_of_all_rows() -> None:
    """What each row adds to the gradient is the derivative of the loss of all rows by what is said of it."""
    x, times, event = cohort(tied=True)
    loss: Any = losses.loss("cox", [HEAD], (4,))
    target, learns = np.column_stack([times, event]), np.arange(len(x))[None] % 4 > 0
    whole = torch.tensor(x @ TRUE)[None, :, None].requires_grad_()
    (expected,) = torch.autograd.grad(loss.among(target, learns)(whole).sum(), whole)
    among = Among(loss, target, learns, 1, Alone(), torch.device("cpu"))
    for part in np.array_split(np.random.default_rng(0).permutation(len(x)), 3):
        among.take(part, whole.detach()[:, part])
    among.differentiate()
    rows = np.array([7, 3, 100])
    said = whole.detach()[:, rows].requires_grad_()
    (slope,) = torch.autograd.grad(among.rows(rows, said).sum(), said)
    torch.testing.assert_close(slope, expected[:, rows], rtol=1e-12, atol=1e-14)


def test_batches_of_any_size_end_at_coxs_model(tmp_path: Path) -> None:
    """A linear network without decay: the coefficients of statsmodels, with batches of all rows and of a few of them.
    Risk sets within batches of 16 would be off by a tenth."""
    x, times, event = cohort(tied=True)
    target, learn = np.column_stack([times, event]), np.arange(len(x)) % 5 > 0
    theirs = PHReg(times[learn], x[learn], event[learn], ties="efron").fit()
    for batch, epochs, tolerance in ((1000, 400, 1e-4), (48, 120, 0.01), (16, 60, 0.02)):
        made = job(tmp_path / str(batch), x, target, LINEAR, batch=batch, epochs=epochs, learning_rate=0.03, clip=0.0)
        trained(made)
        found = load(Path(made.staging, "model.safetensors").read_bytes())
        coefficients = found["network.layers.0.weight"][0, :, 0] * found["inverse"]
        np.testing.assert_allclose(coefficients, theirs.params, atol=tolerance, err_msg=str(batch))
    # Breslow's baseline by these, and survival of rows as their definitions read
    said = model(made).scores(x.astype(np.float32)).raw
    log_risk = -said[:, 0]
    assert abs(log_risk[learn].mean()) < 1e-5
    at = np.array(AT)
    hazard = survival.breslow(times[learn], event[learn], log_risk[learn]).at(at)
    np.testing.assert_allclose(said[:, 1:], np.exp(-hazard * np.exp(log_risk)[:, None]), rtol=1e-5)
    np.testing.assert_allclose(found["target"][1:], hazard, rtol=1e-5)


SMALL: dict[str, Any] = {"kind": "mlp", "hidden": [6], "dropout": 0.3}


def test_ranks_pieces_and_interruptions_change_nothing(tmp_path: Path) -> None:
    """Batches of 50 in 2 folds, their histories, scores and what is stored: of one rank, of three, of batches in
    pieces, and of a training that was stopped and went on."""
    x, times, event = cohort(160, 4, tied=True)
    options = {"batch": 50, "epochs": 5, "learning_rate": 0.02, "ensemble": 2, "patience": 9}
    found = {}
    for name, ranks, more in (("one", 1, {}), ("three", 3, {}), ("pieces", 1, {"accumulate": 3}), ("stopped", 2, {})):
        made = job(tmp_path / name, x, np.column_stack([times, event]), SMALL, 2, **{**options, **more})
        made = replace(made, validate_folds=True, checkpoint=f"{made.staging}/c" if name == "stopped" else "")
        if name == "stopped":
            assert len(trained(replace(made, stop_epoch=2), 1)["history"]) == 2
        result = trained(made, ranks)
        parts = [pq.read_table(f"{made.staging}/{part}") for part in result["scored"]]
        scores = {row["row_id"]: row["scores"] for row in pa.concat_tables(parts).to_pylist()}
        found[name] = result["history"], scores, load(Path(made.staging, "model.safetensors").read_bytes())
    history, scores, stored = found.pop("one")
    assert len(scores) == 160 and np.isfinite(history[-1]["validation"][:-2]).all()
    for name, (other, others, weights) in found.items():
        for a, b in zip(history, other, strict=True):
            np.testing.assert_allclose(a["train"], b["train"], rtol=1e-9, err_msg=name)
            np.testing.assert_allclose(a["validation"], b["validation"], rtol=1e-9, err_msg=name)
        np.testing.assert_allclose([others[i] for i in range(160)], [scores[i] for i in range(160)], rtol=1e-9)
        for key, value in stored.items():
            np.testing.assert_allclose(weights[key], value, rtol=1e-5, atol=1e-7, err_msg=key)


def held_out(folder: Path, x: np.ndarray, target: np.ndarray, epochs: int) -> metrics.HeldOut:
    """Answers of a network to rows that it did not learn from, by 4 folds."""
    network = {"kind": "mlp", "hidden": [16], "dropout": 0.2}
    made = job(folder, x, target, network, 4, dtype="float32", ensemble=2, epochs=epochs, learning_rate=0.01)
    parts = [pq.read_table(f"{made.staging}/{part}") for part in trained(made)["scored"]]
    rows = sorted(pa.concat_tables(parts).to_pylist(), key=lambda row: row["row_id"])
    ids = np.arange(len(x)).astype(str)
    return of_head(HEAD, ids, ids, target, np.array([[row["scores"] for row in rows]]))


def test_a_planted_order_of_hazards_is_found_again(tmp_path: Path) -> None:
    """C index near that of the hazards themselves, where no line tells them; survival better than Kaplan and Meier's
    curve, by Brier's score, and near to what is true."""
    generator = np.random.default_rng(3)
    x = generator.normal(size=(500, 6))
    log_hazard = 1.2 * x[:, 0] + 1.2 * np.abs(x[:, 1]) - 0.6 * x[:, 2]
    times, until = generator.exponential(np.exp(-log_hazard)), generator.exponential(1.0, 500)
    target = np.column_stack([np.minimum(times, until), times <= until])
    held = held_out(tmp_path, x, target, 40)
    oracle = replace(held, scores=-log_hazard[None], survival=np.exp(-np.exp(log_hazard)[:, None] * AT)[None])
    curve = survival.kaplan_meier(target[:, 0], target[:, 1] > 0).at(np.array(AT))
    flat = replace(held, survival=np.tile(curve, (1, 500, 1)))
    found, best, usual = (metrics.metrics(one) for one in (held, oracle, flat))
    assert found["c_index"] > best["c_index"] - 0.03 and found["c_index_uno"] > best["c_index_uno"] - 0.03
    gain = usual["integrated_brier"] - best["integrated_brier"]
    assert found["integrated_brier"] < usual["integrated_brier"] - 0.7 * gain
    assert np.abs(held.survival - oracle.survival).mean() < 0.1  # type: ignore[operator]


def test_noise_scores_chance(tmp_path: Path) -> None:
    found = []
    for seed in range(3):
        generator = np.random.default_rng(seed)
        target = np.column_stack([generator.exponential(size=200), generator.random(200) < 0.5])
        found.append(metrics.metrics(held_out(tmp_path / str(seed), generator.normal(size=(200, 20)), target, 15)))
    for name in ("c_index", "c_index_uno"):
        assert 0.45 < np.mean([one[name] for one in found]) < 0.55, found


def test_what_is_no_such_loss_or_model_is_refused(tmp_path: Path) -> None:
    x, times, event = cohort(40)
    made = job(tmp_path, x, np.column_stack([times, event]), LINEAR, mixup=0.4)
    with pytest.raises(InputError, match=r"train\.mixup: found it for a loss of a row among others"):
        trained(made)
    with pytest.raises(InputError, match=r"train\.loss: found cox for k: the target is one of classes"):
        losses.loss("cox", [Head("k", "classes", ("a", "b"))], (3,))
    trained(replace(made, options=made.options.model_copy(update={"mixup": 0.0})))
    stored = load(Path(made.staging, "model.safetensors").read_bytes())
    assert np.isfinite(model(made).scores(x.astype(np.float32)).raw).all()
    for wrong in ([0, 0.1, 0.3, 0.2], [0, -0.1, 0.3, 0.4], [np.nan, 0.1, 0.3, 0.4]):
        with pytest.raises(InputError, match="no cumulative hazard"):
            model(made, save({**stored, "target": np.array(wrong)}))
    # what is explained is the value: minus the log risk beside the mean row
    loss: Any = losses.loss("cox", [HEAD], (4,))
    (weights, added), *_ = outputs.sums([HEAD], loss, np.array([0.3, 0.1, 0.2, 0.4]))
    said = torch.tensor([[[1.0]]])
    value = loss.answer(said, np.array([0.3, 0.1, 0.2, 0.4]), None)[0, 0]
    assert value == pytest.approx(-0.7) and float((weights * 1.0).sum()) + added == pytest.approx(value)
    # members are held at one mean: what they disagree about is no constant
    of_members = torch.tensor([[[1.0], [2.0]], [[3.0], [2.0]]])
    assert loss.uncertainty(of_members, np.empty((2, 4)), np.zeros(4)).tolist() == [pytest.approx(2**0.5), 0.0]
