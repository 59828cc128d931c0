"""DeepLIFT (Shrikumar, Greenside and Kundaje 2017, arXiv:1704.02685), its mean over references being DeepSHAP
(Lundberg and Lee 2017, arXiv:1705.07874): two passes for each reference, where Integrated Gradients take a hundred.

The network runs once at the reference, and what goes into each of its steps is kept. It runs again at the row with
every step that is not linear drawn as a straight line through both, so that the gradient of this second run is what
contributions are multiplied by:

- a function of one number: its secant (the rescale rule), or where both are close its slope between them;
- a product: half of each factor's change at the other's mean, as Shapley has it for two; so for attention, gates, and
  layer norm, which are exponentials, roots and quotients of sums and products;
- a maximum: Shapley's shares of the place where it is and of that where it was, which are never larger than these
  have changed;
- a recurrence: these rules at each of its steps.

All of them keep the sum, so contributions add up to the difference of outputs, up to rounding. captum's DeepLIFT takes
functions that are no modules for linear, as almost all of these networks' are, and is not used.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from genodl_spark.learning.explain import Attributions, Limits, attributed, begun

if TYPE_CHECKING:
    from genodl_spark.learning.explain.outputs import Outputs

_CLOSE = 1e-6  # numbers that differ by less have a slope with more exact digits than a secant
Pair = tuple[torch.Tensor, torch.Tensor]  # what stands somewhere at the row, and at the reference


class _Line(torch.autograd.Function):
    """`y`, whose gradient for `x` is `slope`: for what need not be finite where nothing depends on it."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, y: torch.Tensor, slope: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(slope)
        return y.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (slope,) = ctx.saved_tensors
        return gradients[0] * slope, None, None


def _line(x: torch.Tensor, y: torch.Tensor, slope: torch.Tensor) -> torch.Tensor:
    found: torch.Tensor = _Line.apply(x, y, slope)
    return found


def secant(function: Callable[[torch.Tensor], torch.Tensor], x: Pair) -> Pair:
    """A function of each number, as the line through both. Infinite numbers have no slope."""
    own, other = x[0].detach(), x[1]
    with torch.enable_grad():
        middle = ((own.double() + other) / 2).requires_grad_()
        (slope,) = torch.autograd.grad(function(middle).sum(), middle)
    away = own.double() - other
    slope = torch.where(away.abs() > _CLOSE, (function(own.double()) - function(other.double())) / away, slope)
    slope = torch.where(torch.isfinite(slope), slope, 0.0).to(own.dtype)
    return _line(x[0], function(own), slope), function(other)


def squared(x: Pair) -> Pair:
    """Squares, whose secant is the sum."""
    return _line(x[0], x[0].detach().square(), x[0].detach() + x[1]), x[1].square()


def inverted(x: Pair, root: bool = False) -> Pair:
    """Reciprocals, or those of square roots, by secants without a difference of numbers that may be close."""
    own, other = (1 / x[0].detach(), 1 / x[1]) if not root else (x[0].detach().rsqrt(), x[1].rsqrt())
    slope = -own * other * (own * other / (own + other) if root else 1.0)
    return _line(x[0], own, slope), other


def product(multiply: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], a: Pair, b: Pair) -> Pair:
    """A product of any kind, linear in each factor."""
    whole = multiply(a[0].detach(), b[0].detach())
    # the terms added are 0, but for their gradients
    of_a = multiply(a[0] - a[0].detach(), (b[0].detach() + b[1]) / 2)
    of_b = multiply((a[0].detach() + a[1]) / 2, b[0] - b[0].detach())
    return whole + of_a + of_b, multiply(*(factor[1] for factor in (a, b)))


def normalised(x: Pair, shape: Any, weight: Any, bias: Any, eps: float) -> Pair:
    """Layer norm."""
    over = list(range(-len(shape), 0))
    away = (x[0] - x[0].mean(over, keepdim=True), x[1] - x[1].mean(over, keepdim=True))
    square = squared(away)
    inverse = inverted((square[0].mean(over, keepdim=True) + eps, square[1].mean(over, keepdim=True) + eps), root=True)
    y = product(torch.mul, away, inverse)
    if weight is not None:
        y = (y[0] * weight, y[1] * weight)
    return y if bias is None else (y[0] + bias, y[1] + bias)


def shares(x: Pair, dim: int) -> Pair:
    """Softmax."""
    most = torch.maximum(x[0].detach(), x[1]).amax(dim, keepdim=True)
    raised = secant(torch.exp, (x[0] - most, x[1] - most))
    inverse = inverted((raised[0].sum(dim, keepdim=True), raised[1].sum(dim, keepdim=True)))
    return product(torch.mul, raised, inverse)


def largest(x: Pair, here: torch.Tensor, there: torch.Tensor, dim: int) -> torch.Tensor:
    """Maxima along a dimension, which stand at index `here` at the row and `there` at the reference, and keep it."""
    own, other = x[0].detach(), x[1]
    i, j = own.gather(dim, here), own.gather(dim, there)
    was_i, was_j = other.gather(dim, here), other.gather(dim, there)
    # the maximum with neither, one, the other, and both of the two changed
    only_i, only_j = torch.maximum(i, was_j), torch.maximum(j, was_i)
    of_i, of_j = (only_i - was_j + i - only_j) / 2, (only_j - was_j + i - only_i) / 2
    same = here == there
    slopes = [
        torch.where(same, one, of / (now - was)).nan_to_num(0.0, 0.0, 0.0)
        for of, now, was, one in ((of_i, i, was_i, 1.0), (of_j, j, was_j, 0.0))
    ]
    moved = [_line(x[0].gather(dim, at), torch.zeros_like(i), s) for at, s in zip((here, there), slopes, strict=True)]
    return i + moved[0] + moved[1]


def recurrence(
    cell: str, x: Pair, weights: list[torch.Tensor], layers: int, both: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """All states (B, L, .) of torch.gru or torch.lstm over x (B, L, .), which starts at 0, those at the reference, and
    the last states of every layer and direction, (layers * directions, B, units)."""
    per, directions = 4, 2 if both else 1
    last = []
    for layer in range(layers):
        found: list[tuple[list[torch.Tensor], list[torch.Tensor]]] = []
        for direction in range(directions):
            own = weights[per * (layer * directions + direction) :][:per]
            states = _run(cell, x, own, backward=direction == 1)
            last.append(states[0][0 if direction else -1])
            found.append(states)
        x = (
            torch.cat([torch.stack(states[0], 1) for states in found], 2),
            torch.cat([torch.stack(states[1], 1) for states in found], 2),
        )
    return x[0], x[1], torch.stack(last)


def _run(
    cell: str, x: Pair, weights: list[torch.Tensor], backward: bool
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """States at every position of one direction of a layer, at the row and at the reference."""
    from_input, from_state, input_bias, state_bias = weights
    inputs = tuple(functional.linear(one, from_input, input_bias).unbind(1) for one in x)
    start = x[0].new_zeros(len(x[0]), from_state.shape[1])
    state, memory = (start, start), (start, start)
    places = range(len(inputs[0]))
    found: list[Pair] = []
    for place in reversed(places) if backward else places:
        at = [one[place].chunk(4 if cell == "lstm" else 3, 1) for one in inputs]
        of = [functional.linear(one, from_state, state_bias).chunk(len(at[0]), 1) for one in state]
        if cell == "lstm":
            gates = [(at[0][k] + of[0][k], at[1][k] + of[1][k]) for k in range(4)]
            taken, kept, told = (secant(torch.sigmoid, gates[k]) for k in (0, 1, 3))
            new = product(torch.mul, taken, secant(torch.tanh, gates[2]))
            old = product(torch.mul, kept, memory)
            memory = (new[0] + old[0], new[1] + old[1])
            state = product(torch.mul, told, secant(torch.tanh, memory))
        else:
            reset, kept = (secant(torch.sigmoid, (at[0][k] + of[0][k], at[1][k] + of[1][k])) for k in (0, 1))
            seen = product(torch.mul, reset, (of[0][2], of[1][2]))
            new = secant(torch.tanh, (at[0][2] + seen[0], at[1][2] + seen[1]))
            stays = product(torch.mul, kept, (state[0] - new[0], state[1] - new[1]))
            state = (new[0] + stays[0], new[1] + stays[1])
        found.append(state)
    if backward:
        found.reverse()
    return [one for one, _ in found], [other for _, other in found]


_NAMES = [
    *("gelu", "relu", "elu", "selu", "silu", "softplus", "leaky_relu", "mish", "hardtanh", "softsign", "tanh"),
    *("sigmoid", "exp", "expm1", "log", "log1p", "sqrt", "rsqrt", "square", "abs", "reciprocal", "cos", "sin"),
]
_OF_ONE = {
    getattr(owner, name) for owner in (torch, torch.Tensor, functional) for name in _NAMES if hasattr(owner, name)
}
_PRODUCTS = {torch.mul, torch.matmul, torch.bmm, torch.Tensor.mul, torch.Tensor.matmul, torch.Tensor.bmm} | {
    getattr(torch.Tensor, name) for name in ("__mul__", "__rmul__", "__matmul__")
}
_SOFTMAX = {torch.softmax, torch.Tensor.softmax, functional.softmax}
_LARGEST = {torch.amax, torch.Tensor.amax}
_NORMS = {functional.layer_norm, torch.layer_norm}
_POOLS = {torch.max_pool2d, functional.max_pool2d}
_CELLS = {torch.gru: "gru", torch.lstm: "lstm"}
_QUOTIENTS = {torch.div, torch.Tensor.div, torch.Tensor.__truediv__}


class _Straight(TorchFunctionMode):
    """While it is on, steps that are not linear are drawn as lines through what they got when `kept` was made, in the
    same order; with `keeping` that is made."""

    def __init__(self, keeping: bool, kept: list[tuple[torch.Tensor, ...]]) -> None:
        super().__init__()
        self.keeping, self.kept, self.at = keeping, kept, 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        named = kwargs or {}
        factors: tuple[Any, ...] = args[:1]
        if (
            func in _OF_ONE
            or func in _SOFTMAX
            or func in _LARGEST
            or func in _POOLS
            or func in _CELLS
            or func in _NORMS
        ):
            depends = _depends(args[0])
        elif func in _PRODUCTS or func in _QUOTIENTS:
            depends = _depends(args[1]) and (func in _QUOTIENTS or _depends(args[0]))
            factors = tuple(one if isinstance(one, torch.Tensor) else torch.as_tensor(one) for one in args[:2])
        else:
            depends = False
        if not depends:
            return func(*args, **named)
        if self.keeping:
            self.kept.append(tuple(one.detach() for one in factors))
            return func(*args, **named)
        others = self.kept[self.at]
        self.at += 1
        with _Off():
            return _straightened(func, list(zip(factors, others, strict=True)), args, named)


class _Off(TorchFunctionMode):
    """What is drawn is made of such steps itself."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


def _depends(x: Any) -> bool:
    return isinstance(x, torch.Tensor) and x.requires_grad


def _straightened(func: Any, pairs: list[Pair], args: Any, named: Any) -> torch.Tensor | tuple[torch.Tensor, ...]:
    """What a step gives, as a line through its inputs at the row and at the reference."""
    first = pairs[0]
    if func in _OF_ONE:
        return secant(lambda x: func(x, *args[1:], **named), first)[0]
    if func in _PRODUCTS:
        return product(func, first, pairs[1])[0]
    if func in _QUOTIENTS:
        return product(torch.mul, first, inverted(pairs[1]))[0]
    if func in _SOFTMAX:
        return shares(first, named.get("dim", args[1] if len(args) > 1 else -1))[0]
    if func in _LARGEST:
        dim, keeps = _asked(args, named, ("dim", None), ("keepdim", False))
        here, there = (one.detach().argmax(dim, keepdim=True) for one in first)
        found = largest(first, here, there, dim)
        return found if keeps else found.squeeze(dim)
    if func in _POOLS:
        indexed = {**named, "return_indices": True}
        here, there = (functional.max_pool2d(one.detach(), *args[1:], **indexed)[1] for one in first)
        flat = (first[0].flatten(-2), first[1].flatten(-2))
        return largest(flat, here.flatten(-2), there.flatten(-2), -1).view(here.shape)
    if func in _CELLS:
        cell = _CELLS[func]
        states, _, last = recurrence(cell, first, args[2], args[4], args[7])
        return (states, last) if cell == "gru" else (states, last, last)
    shape, weight, bias, eps = _asked(
        args, named, ("normalized_shape", None), ("weight", None), ("bias", None), ("eps", 1e-5)
    )
    return normalised(first, shape, weight, bias, eps)[0]


def _asked(args: Any, named: Any, *options: tuple[str, Any]) -> list[Any]:
    """Options behind the first argument, given by place or by name."""
    return [args[k] if len(args) > k else named.get(name, default) for k, (name, default) in enumerate(options, 1)]


class Method:
    complete = True

    def __init__(self, limits: Limits) -> None:
        pass

    def attribute(
        self, outputs: Outputs, x: torch.Tensor, references: torch.Tensor, weights: torch.Tensor
    ) -> Attributions:
        rows, count = references.shape[:2]
        begins = begun(x, references)
        starts = begins.flatten(0, 1)
        ends, of_ends = x.repeat_interleave(count, 0), weights.repeat_interleave(count, 0)
        slopes, own, other = [], [], []
        size = outputs.batch
        for start in range(0, len(ends), size):
            here = torch.arange(start, start + size, device=x.device) % len(ends)
            kept: list[tuple[torch.Tensor, ...]] = []
            with torch.enable_grad():
                with _Straight(True, kept):
                    was = outputs.weighted(starts[here].detach().requires_grad_(), of_ends[here])
                at = ends[here].detach().requires_grad_()
                with _Straight(False, kept):
                    now = outputs.weighted(at, of_ends[here])
                (slope,) = torch.autograd.grad(now.sum(), at)
            left = min(size, len(ends) - start)
            slopes.append(slope[:left])
            own.append(now[:left].detach().cpu().numpy())
            other.append(was[:left].detach().cpu().numpy())
        whole = torch.cat(slopes).double().unflatten(0, (rows, count))
        contributions, hypothetical = attributed(x, begins, whole)
        output = np.concatenate(own).reshape(rows, count)[:, 0]
        reference = np.concatenate(other).reshape(rows, count).mean(1)
        error = contributions.reshape(rows, -1).sum(1) - (output - reference)
        return Attributions(contributions, hypothetical, output, reference, error, np.full(rows, 2))
