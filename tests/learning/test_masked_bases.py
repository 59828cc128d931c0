"""Hidden bases: which are hidden, what a network says of them, what that costs, and the chain that stands beside it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from genodl_spark.core.errors import InputError
from genodl_spark.learning import losses, markov, models
from genodl_spark.learning.heads import Head
from genodl_spark.learning.losses.masked_bases import OF_BASE
from genodl_spark.learning.models import layers
from tests.learning.models.test_models import moved, sequences

LENGTH, SEEDS = 24, [3, 8]
SMALL: dict[str, Any] = {"kind": "cnn", "channels": [6], "stem_kernel": 5, "kernel": 3, "dilations": [1, 2]}
POOLED = {"channels": [6, 8], "pool": 2, "dilations": [1]}
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "pooled": POOLED,
    "augment": {"reverse_complement": "augment"},
    "equivariant": {"reverse_complement": "equivariant", **POOLED},
    "both strands": {"average_strands": True},
    "batch norm": {"norm": "batch"},
}
HEAD = Head("none", "bases")
ROWS = torch.arange(40, 46)


def network(length: int = LENGTH, seeds: list[int] = SEEDS, masked: float = 0.25, **options: Any) -> Any:
    made = models.build({**SMALL, "masked": masked, **options}, seeds, (4, length), OF_BASE * length)
    return moved(made.double(), seeds)


def rows_of(count: int = 6, length: int = LENGTH, seed: int = 1) -> torch.Tensor:
    """x (1, count, 4, length) float64, of which some bases are unknown and the second row is padded."""
    return sequences(count, length, torch.Generator().manual_seed(seed))


def told(outputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    numbers = outputs.unflatten(-1, (-1, OF_BASE))
    assert set(numbers[..., 4].unique().tolist()) <= {0.0, 1.0}
    return numbers[..., :4], numbers[..., 4] > 0


@pytest.mark.parametrize("options", OPTIONS.values(), ids=list(OPTIONS))
def test_which_bases_are_hidden_depends_on_member_row_and_epoch_alone(options: dict[str, Any]) -> None:
    made, x = network(**options), rows_of()
    known = x.ne(0).any(2)
    logits, hidden = told(made(x, ROWS, 2))
    assert not (hidden & ~known).any()
    assert not torch.equal(hidden[0], hidden[1])
    assert not torch.equal(told(made(x, ROWS, 3))[1], hidden)
    order = torch.tensor([4, 1, 5, 0])
    if options.get("norm") != "batch":
        part, same = told(made(x[:, order], ROWS[order], 2))
        torch.testing.assert_close(part, logits[:, order])
        assert torch.equal(same, hidden[:, order])
        alone = network(seeds=SEEDS[1:], **options)
        torch.testing.assert_close(told(alone(x, ROWS, 2))[0][0], logits[1])
    many = rows_of(400)
    found = told(network()(many, torch.arange(400), 0))[1].sum((1, 2)) / many.sum()
    assert found.tolist() == pytest.approx([0.25, 0.25], abs=0.02)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=list(OPTIONS))
@pytest.mark.parametrize("rows", [ROWS, None], ids=["training", "evaluation"])
def test_nothing_is_said_of_a_base_by_itself(options: dict[str, Any], rows: torch.Tensor | None) -> None:
    """Another base at a hidden place changes nothing that is said of that place; one nearby does."""
    made, x = network(**options), rows_of()
    logits, hidden = told(made(x, rows, 1))
    if rows is None:
        assert torch.equal(hidden, x.ne(0).any(2).expand(2, -1, -1))
    differs = False
    for place in (0, 7, 11):
        changed = x.clone()
        changed[..., place] = x[..., place].roll(1, 2)
        after, same = told(made(changed, rows, 1))
        assert torch.equal(same, hidden)
        if options.get("norm") == "batch" and rows is not None:
            continue  # whose rows depend on each other
        mine = hidden[..., place]
        torch.testing.assert_close(after[:, :, place][mine], logits[:, :, place][mine], rtol=0, atol=1e-12)
        differs = differs or not torch.allclose(after, logits)
    assert differs or options.get("norm") == "batch"


def test_in_evaluation_each_base_is_hidden_once_and_alike_for_all_rows() -> None:
    made, x = network(masked=0.15), rows_of()
    passes, seen = [], made._stages
    made._stages = lambda one, *rest: passes.append(one) or seen(one, *rest)
    logits, _ = told(made(x))
    assert len(passes) == 7
    gone = torch.stack([x.transpose(2, 3).ne(0).any(-1)[0] & ~one[0].ne(0).any(-1) for one in passes])
    assert torch.equal(gone.sum(0), x[0].sum(1).long())
    of_place = gone.any(1)  # (passes, L)
    assert (of_place.sum(0) == 1).all() and of_place.any(1).sum() >= 5
    part, _ = told(made(x[:, 3:4]))
    torch.testing.assert_close(part, logits[:, 3:4])


def other(x: torch.Tensor) -> torch.Tensor:
    return x.flip(2, 3)


@pytest.mark.parametrize("options", [{"reverse_complement": "augment"}, {"reverse_complement": "augment", **POOLED}])
def test_a_row_that_is_turned_round_is_told_as_it_lies(options: dict[str, Any]) -> None:
    made, x = network(**options), rows_of()
    plain = network(**{**options, "reverse_complement": "none"})
    logits, hidden = told(made(x, ROWS, 1))
    kept = layers.keyed_kept(1, 0.5, ROWS, layers.keys(SEEDS, 1, 0, x.device))[..., 0]
    assert kept.any() and not kept.all()
    for member, row in ((m, r) for m in range(2) for r in range(len(ROWS))):
        one, mine = x[:, row : row + 1], hidden[:, row : row + 1]
        seen = plain._logits(one, mine, None, True)
        turned = plain._logits(other(one), mine.flip(2), None, True).flip(2, 3)
        expected = seen if kept[member, row] else turned
        torch.testing.assert_close(logits[member, row], expected[member, 0])
        assert not torch.allclose(seen[member, 0], turned[member, 0])


def test_strands_that_are_one_are_told_alike() -> None:
    made, x = network(**OPTIONS["equivariant"]), rows_of()
    hidden = torch.rand(1, 6, LENGTH, generator=torch.Generator().manual_seed(0)) < 0.2
    one = made._logits(x, hidden, None, False)
    two = made._logits(other(x), hidden.flip(2), None, False)
    torch.testing.assert_close(two.flip(2, 3), one, rtol=0, atol=1e-9)
    averaged = network(**OPTIONS["both strands"])
    one, two = averaged._logits(x, hidden, None, False), averaged._logits(other(x), hidden.flip(2), None, False)
    torch.testing.assert_close(two.flip(2, 3), one)


@pytest.mark.parametrize("length", [22, 23])
def test_every_stage_says_something_of_a_base(length: int) -> None:
    made, x = network(length, **{**POOLED, "channels": [6, 8, 4], "pool": 3}), rows_of(length=length)
    kept: list[torch.Tensor] = []
    made._stages(x.transpose(2, 3).contiguous(), False, None, kept)
    assert [one.shape[2] for one in kept] == [length, -(-length // 3), -(-length // 9)]
    found = made.bases(kept).detach().numpy()
    of = [layer.weight.detach().numpy()[..., 0] for layer in made.bases.layers]
    bias = made.bases.layers[0].bias.detach().numpy()
    for place in range(length):
        said = bias[:, None]
        for stage, (x_of, weight) in enumerate(zip(kept, of, strict=True)):
            said = said + np.einsum("mbc,moc->mbo", x_of[:, :, place // 3**stage].detach().numpy(), weight)
        np.testing.assert_allclose(found[:, :, place], said, atol=1e-12)


@pytest.mark.parametrize("options", [{}, {"reverse_complement": "equivariant"}])
def test_padding_is_beyond_the_ends_and_a_hidden_base_at_an_end_is_not(options: dict[str, Any]) -> None:
    made, longer = network(**options), network(LENGTH + 6, **options)
    x = functional.one_hot(torch.arange(6 * LENGTH).reshape(1, 6, LENGTH) * 7 % 5 % 4, 4).double().transpose(2, 3)
    hidden = torch.zeros(1, 6, LENGTH, dtype=torch.bool)
    hidden[..., [0, 5, LENGTH - 1]] = True
    kept: list[torch.Tensor] = []
    made._stages((x * ~hidden[:, :, None]).transpose(2, 3).contiguous(), False, None, kept)
    wanted = made.bases(kept)
    torch.testing.assert_close(made._logits(x, hidden, None, False), wanted)
    padded = longer._logits(functional.pad(x, (0, 6)), functional.pad(hidden, (0, 6)), None, False)
    torch.testing.assert_close(padded[:, :, :LENGTH], wanted)


def parts(made: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(v.shape) for name, v in made.state_dict().items() if name.split(".")[0] in made.trunk}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=list(OPTIONS))
def test_the_trunk_is_that_of_networks_that_pool(options: dict[str, Any]) -> None:
    made = models.build({**SMALL, **options, "masked": 0.15}, SEEDS, (4, LENGTH), OF_BASE * LENGTH)
    plain = models.build({**SMALL, **options, "positional": 2}, SEEDS, (4, 30), 3)
    assert parts(made) == parts(plain) and set(made.state_dict()) - set(parts(made)) == {
        name for name in made.state_dict() if name.startswith("bases.")
    }
    assert made.trunk_options == plain.trunk_options
    for name in parts(made):
        assert torch.equal(made.state_dict()[name], plain.state_dict()[name])


@pytest.mark.parametrize(
    ("options", "outputs", "place", "found"),
    [
        ({}, 2, "model.masked", "found 0.25 for a task that predicts no hidden bases"),
        ({"shift": 2}, OF_BASE * LENGTH, "model.shift", "expected 0"),
        ({"masked": 1.0}, OF_BASE * LENGTH, "model.masked", "below 1"),
        ({"reverse_complement": "equivariant", **POOLED, "pool": 5}, OF_BASE * LENGTH, "model.pool", "multiple of 5"),
    ],
)
def test_what_cannot_hide_bases_is_refused(options: dict[str, Any], outputs: int, place: str, found: str) -> None:
    with pytest.raises(InputError, match=found) as caught:
        models.build({**SMALL, "masked": 0.25, **options}, [1], (4, LENGTH), outputs)
    assert caught.value.file == place
    with pytest.raises(InputError, match="unexpected keyword argument 'masked'; expected options of rnn"):
        models.build({"kind": "rnn", "masked": 0.25}, [1], (4, LENGTH), OF_BASE * LENGTH)


def by_hand(outputs: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean cost of each row under each member; of the mean probabilities; and what members disagree about."""
    members, rows = outputs.shape[:2]
    cost, whole, uncertain = np.zeros((members, rows)), np.full(rows, np.nan), np.full(rows, np.nan)
    for b in range(rows):
        each, informed = [[] for _ in range(members)], []
        together = []
        for place in range(x.shape[2]):
            said = []
            for m in range(members):
                numbers = outputs[m, b, place * 5 : place * 5 + 5]
                if numbers[4]:
                    p = np.exp(numbers[:4]) / np.exp(numbers[:4]).sum()
                    each[m].append(-np.log(p[x[b, :, place] > 0][0]))
                    said.append(p)
            if said:
                mean = np.mean(said, 0)
                together.append(-np.log(mean[x[b, :, place] > 0][0]))
                informed.append(-(mean * np.log(mean)).sum() + np.mean([(p * np.log(p)).sum() for p in said]))
        cost[:, b] = [np.mean(one) if one else 0.0 for one in each]
        if together:
            whole[b], uncertain[b] = np.mean(together), np.mean(informed)
    return cost, whole, uncertain


@pytest.mark.parametrize("training", [True, False])
def test_the_loss_is_the_cross_entropy_of_hidden_bases_alone(training: bool) -> None:
    x = rows_of()
    x[0, 4] = 0  # nothing is known of it
    outputs = network()(x, ROWS if training else None, 1).detach()
    loss = losses.loss("masked_bases", [HEAD], (4, LENGTH))
    assert loss.outputs == OF_BASE * LENGTH and losses.name_of("auto", [HEAD]) == "masked_bases"
    cost, whole, uncertain = by_hand(outputs.numpy(), x[0].numpy())
    none = np.empty((6, 0))
    np.testing.assert_allclose(loss.rows(outputs, none, none, x, 0.0).numpy(), cost, atol=1e-12)
    answer = loss.answer(outputs, np.zeros(2), x)
    assert answer.shape == (6, 1)
    np.testing.assert_allclose(answer[:, 0], whole, atol=1e-12)
    np.testing.assert_allclose(loss.uncertainty(outputs, answer, np.zeros(2)), uncertain, atol=1e-12)
    assert np.isnan(answer[4, 0]) and np.isnan(loss.uncertainty(outputs[:1], answer, np.zeros(2))).all()
    smooth = loss.rows(outputs, none, none, x, 0.2).numpy()
    spread = np.mean([by_hand(outputs.numpy(), np.roll(x[0].numpy(), k, 1))[0] for k in range(4)], 0)
    np.testing.assert_allclose(smooth, 0.8 * cost + 0.2 * spread, atol=1e-12)
    with pytest.raises(InputError, match="the target is a value; expected bases"):
        losses.loss("masked_bases", [Head("value", "value")], (4, LENGTH))
    with pytest.raises(InputError, match="rows are no sequences"):
        losses.loss("auto", [HEAD], (12,))


def chain_by_hand(train: np.ndarray, row: np.ndarray, order: int) -> float:
    """Mean cost of the known bases of a row: the probability of the row with each base at a place, over their sum."""

    def probability(base: int, before: tuple[int, ...]) -> float:
        below = 0.25 if not before else probability(base, before[1:])
        count = np.zeros(4)
        for one in train:
            for place in range(len(before), len(one)):
                if one[place] >= 0 and tuple(one[place - len(before) : place]) == before:
                    count[one[place]] += 1
        return float((count[base] + 4 * below) / (count.sum() + 4))

    def joint(codes: np.ndarray) -> float:
        found = 0.0
        for place in range(len(codes)):
            before: tuple[int, ...] = ()
            while len(before) < min(order, place) and codes[place - len(before) - 1] >= 0:
                before = (int(codes[place - len(before) - 1]), *before)
            if codes[place] >= 0:
                found += np.log(probability(int(codes[place]), before))
        return found

    costs = []
    for place in np.flatnonzero(row >= 0):
        each = []
        for base in range(4):
            changed = row.copy()
            changed[place] = base
            each.append(joint(changed))
        costs.append(np.log(np.exp(np.array(each) - max(each)).sum()) + max(each) - each[row[place]])
    return float(np.mean(costs)) if costs else np.nan


@pytest.mark.parametrize("order", [0, 1, 2, 3])
@pytest.mark.parametrize("length", [1, 2, 9])
def test_the_chain_tells_a_base_by_all_others(order: int, length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(order)
    train, test = (generator.integers(-1, 4, (count, length)).astype(np.int8) for count in (12, 6))
    test[0] = -1
    monkeypatch.setattr(markov, "_AT_ONCE", 2 * length)
    found = markov.cross_entropies("markov", train, test, {"order": order})
    wanted = [chain_by_hand(train, row, order) for row in test]
    np.testing.assert_allclose(found, wanted, atol=1e-10)
    if order == 0:
        np.testing.assert_array_equal(markov.cross_entropies("composition", train, test, {}), found)


def test_a_chain_of_a_higher_order_knows_words() -> None:
    """A repeated word of five bases costs next to nothing to a chain of order 5, and all it can to one of none."""
    row = np.tile([0, 2, 1, 3, 3], 40)[None].astype(np.int8)
    rows = np.concatenate([np.roll(row, k, 1) for k in range(5)])
    assert markov.cross_entropies("markov", rows, rows, {}).max() < 0.01
    assert markov.cross_entropies("composition", rows, rows, {}).min() > 1.3
    assert len(markov.cross_entropies("markov", rows, rows[:0], {})) == 0
