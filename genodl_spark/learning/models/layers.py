"""What the networks are built of: layers with a leading dimension of members, and randomness
keyed by member, epoch and row.

Keys stay out of compiled graphs: there the epoch is a symbol, which whole numbers beyond 64 bits break. So does what is
drawn by them on a CPU; on a GPU a compiled graph draws it where it is used, which spares the memory a dozen passes.
`unpadded` stays out too, whose answer decides what is to be computed.
A GPU that computes with float32 or float64 trains convolutions as products of matrices (`Taps`) and normalises narrow
rows in several kernels (`RowNorm`): the libraries' own are many times slower there.
Sequences lie as (M, B, L, C), channels last: layer norm needs no transposition then, and oneDNN computes convolutions
of this layout at least as fast as of (B, C, L).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache, wraps
from typing import Any, ParamSpec, TypeVar

import torch
from torch import nn
from torch._compile import _disable_dynamo
from torch.nn import functional

from genodl_spark.core.errors import InputError
from genodl_spark.core.splitmix import mix

_FIRST, _SECOND = 0x7FB5D329728EA185, -0x7E25210B43D22BB3  # of Mix01 (Stafford 2011, Better Bit Mixing), as int64
SCALE = 1 << 24  # of keyed random numbers: all that float32 can tell apart
CACHED = 1 << 16  # of them that a thread makes at a time
_ROW, _UNIT = 0x632BE59BD9B4E019, -0x61C8864680B583EB  # odd: what a row and a unit add to a state
_PER_UNIT = pow(_UNIT, -1, 1 << 64) - (1 << 64)  # its inverse modulo 2**64, as int64
NARROW, MANY = 64, 1 << 23  # channels at most, and values at least, that `RowNorm` is for


_P = ParamSpec("_P")
_T = TypeVar("_T")


def uncompiled(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """`function`, which a compiler leaves as it is. As torch.compiler.disable, whose first call loads the whole
    compiler (a second of CPU time in each of Spark's workers): here only where something is being compiled."""
    disabled = _disable_dynamo(function)

    @wraps(function)
    def call(*args: _P.args, **named: _P.kwargs) -> _T:
        return disabled(*args, **named) if torch.compiler.is_compiling() else function(*args, **named)

    return call


def part(seeds: list[int], number: int) -> list[int]:
    """Seeds for a part of a network that is a network itself."""
    return [mix(seed, number, 2) for seed in seeds]


@uncompiled
def keys(seeds: list[int], epoch: int, layer: int, device: torch.device) -> torch.Tensor:
    """Keys int64 (M,) of what a layer draws in an epoch, which nobody may change: every step of it has the same."""
    return _keys(tuple(seeds), epoch, layer, device)


@lru_cache(maxsize=64)
def _keys(seeds: tuple[int, ...], epoch: int, layer: int, device: torch.device) -> torch.Tensor:
    with torch.inference_mode(False):  # training may ask for them after a prediction did
        made = torch.tensor([mix(seed, epoch, layer, 1) for seed in seeds], dtype=torch.int64)
        return made.to(device, non_blocking=True)


def keyed_bits(units: int, rows: torch.Tensor, key: torch.Tensor, dtype: torch.dtype = torch.int64) -> torch.Tensor:
    """Random whole numbers `dtype` (M, B, units), below SCALE, that depend on member key, row and unit only, so that
    ranks and batches do not matter.

    `rows` int64 (B,): row numbers in the dataset. `key` int64 (M,): made of seed, epoch and layer.
    """
    if rows.is_cpu:
        return _keyed_bits_on_cpu(units, rows, key, dtype)
    state = _unmixed(units, rows, key)
    state = (state ^ (state >> 31)) * _FIRST
    state = (state ^ (state >> 27)) * _SECOND
    return ((state ^ (state >> 33)) & (SCALE - 1)).to(dtype)


@uncompiled
def _keyed_bits_on_cpu(units: int, rows: torch.Tensor, key: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The same: so many rows at a time, and in place, as stay in the caches from one pass to the next."""
    start, unit = _keyed_states(rows, key), _of_units(units, rows.device)
    found = torch.empty(len(key), len(rows), units, dtype=dtype)
    at_once = max(CACHED * torch.get_num_threads() // max(len(key) * units, 1), 1)
    for state, out in zip(start.split(at_once, 1), found.split(at_once, 1), strict=True):
        state = state + unit
        state.bitwise_xor_(state >> 31).mul_(_FIRST)
        state.bitwise_xor_(state >> 27).mul_(_SECOND)
        out.copy_(state.bitwise_xor_(state >> 33).bitwise_and_(SCALE - 1))
    return found


def _unmixed(units: int, rows: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    """The states of all units, (M, B, units), before they are mixed."""
    if not torch.compiler.is_compiling():
        return _keyed_states(rows, key) + _of_units(units, rows.device)
    # A compiler takes a product of places and a constant for an index of memory, which has 32 bits: so the places are
    # added first, and the rest is divided by their factor.
    return (_keyed_states(rows, key) * _PER_UNIT + torch.arange(units, device=rows.device)) * _UNIT


def _keyed_states(rows: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    return (key[:, None] + rows * _ROW)[..., None]


def _of_units(units: int, device: torch.device) -> torch.Tensor:
    return torch.arange(units, device=device, dtype=torch.int64) * _UNIT


def keyed_kept(units: int, rate: float, rows: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    """bool (M, B, units), false for a share `rate` of them; see `keyed_bits`."""
    return keyed_bits(units, rows, key) >= math.ceil(rate * SCALE)


def keyed_divisor(units: int, rate: float, rows: torch.Tensor, key: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """`dtype` (M, B, units): 1 - rate of what `keyed_kept` keeps, else infinite.
    CPUs divide sooner than they choose."""
    return keyed_bits(units, rows, key, dtype).ge_(math.ceil(rate * SCALE)).reciprocal_().mul_(1 - rate)


def keyed_dropout(x: torch.Tensor, rate: float, rows: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    """Dropout of x (M or 1, B, H) with a mask for every member; see `keyed_bits`."""
    if rate == 0:
        return x
    exact = torch.promote_types(x.dtype, torch.float32)  # half precision does not tell so many numbers apart
    return (x / keyed_divisor(x.shape[-1], rate, rows, key, exact)).to(x.dtype)


def keyed_normal(
    units: int, rows: torch.Tensor, first: torch.Tensor, second: torch.Tensor, dtype: torch.dtype
) -> torch.Tensor:
    """Standard normal (M, B, units) out of two keys (Box and Muller 1958); see `keyed_bits`. Its tails end at 5.8."""
    radius, angle = ((keyed_bits(units, rows, key).to(dtype) + 1) / SCALE for key in (first, second))
    return (-2 * radius.log()).sqrt() * (2 * math.pi * angle).cos()


def keyed_shift(x: torch.Tensor, most: int, rows: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    """x (M or 1, B, C, L), every row moved by -`most` to `most` positions, zeros coming in: (M, B, C, L);
    see `keyed_bits`."""
    start = keyed_bits(1, rows, key) % (2 * most + 1)
    place = (torch.arange(x.shape[3], device=x.device) + start).unsqueeze(2).expand(-1, -1, x.shape[2], -1)
    return functional.pad(x, (most, most)).expand(len(key), -1, -1, -1).gather(3, place)


def keyed_start(seeds: list[int], layer: int, shape: Sequence[int], bound: float) -> nn.Parameter:
    """Parameter (M, *shape), uniform within `bound`; a member's start depends on its seed alone,
    not on its neighbours."""
    values = torch.empty(len(seeds), *shape)
    for member, seed in enumerate(seeds):
        nn.init.uniform_(values[member], -bound, bound, generator=torch.Generator().manual_seed(mix(seed, layer)))
    return nn.Parameter(values)


def each_member(function: Callable[..., torch.Tensor], x: torch.Tensor, *parameters: torch.Tensor) -> torch.Tensor:
    """function(x of a member, its parameters) stacked over members; x (M or 1, ...). A single member costs no copy."""
    members = len(parameters[0])
    if members == 1:
        return function(x.squeeze(0), *(p.squeeze(0) for p in parameters)).unsqueeze(0)
    return torch.stack([function(*own) for own in zip(x.expand(members, *x.shape[1:]), *parameters, strict=True)])


def tied(half: torch.Tensor, *dims: int) -> torch.Tensor:
    """Parameters (M, C / 2, ...) completed to (M, C, ...) so that a flip of `dims` changes
    nothing (Shrikumar et al. 2017).

    Channel c on one strand is channel C - 1 - c on the other, as A, C, G, T is flipped to T, G, C, A.
    """
    return torch.cat([half, half.flip(dims)], 1)


class MemberLinear(nn.Module):
    """x (M or 1, B, inputs) -> (M, B, outputs), with weights (M, inputs, outputs) of each member's own.
    `seeds`: one per member."""

    def __init__(self, seeds: list[int], inputs: int, outputs: int, layer: int) -> None:
        super().__init__()
        self.weight = keyed_start(seeds, layer, (inputs, outputs), 1 / math.sqrt(max(inputs, 1)))
        self.bias = nn.Parameter(torch.zeros(len(seeds), 1, outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.baddbmm(self.bias, x.expand(len(self.weight), -1, -1), self.weight)


class MemberConv(nn.Module):
    """x (M or 1, B, L, inputs) -> (M, B, L / stride rounded up, outputs), with weights (M, outputs,
    inputs, kernel) as of nn.Conv1d.

    Zeros stand beyond the ends; an even kernel has one more of its taps to the right.
    `shared_strands`: the convolution of the reverse complement is the reverse complement of the convolution;
    an even kernel has no middle, so it gets an empty tap.
    """

    def __init__(
        self,
        seeds: list[int],
        inputs: int,
        outputs: int,
        kernel: int,
        layer: int,
        dilation: int = 1,
        stride: int = 1,
        bias: bool = True,
        shared_strands: bool = False,
    ) -> None:
        super().__init__()
        self.dilation, self.stride, self.shared_strands = dilation, stride, shared_strands
        stored = outputs // 2 if shared_strands else outputs
        self.weight = keyed_start(seeds, layer, (stored, inputs, kernel), 1 / math.sqrt(inputs * kernel))
        self.bias = nn.Parameter(torch.zeros(len(seeds), stored)) if bias else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight: torch.Tensor = self.weight
        bias: list[torch.Tensor] = [] if self.bias is None else [self.bias]
        if self.shared_strands:
            weight = tied(functional.pad(weight, (0, 1 - weight.shape[-1] % 2)), 1, 2, 3)
            bias = [tied(b, 1) for b in bias]
        return each_member(self._one, x, weight, *bias)

    def _one(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        kernel = weight.shape[-1]
        if kernel == self.stride == 1:
            return functional.linear(x, weight[..., 0], bias)
        beyond = self.dilation * (kernel - 1)
        if x.is_cuda and weight.requires_grad and torch.is_grad_enabled() and not torch.is_autocast_enabled("cuda"):
            padded = functional.pad(x, (0, 0, beyond // 2, beyond - beyond // 2))
            # a compiler makes a backward pass of its own, in which it keeps or makes again what is the cheaper
            product: Callable[..., torch.Tensor] = _taps if torch.compiler.is_compiling() else Taps.apply
            found = product(padded, weight, self.dilation, self.stride)
            return found if bias is None else found + bias
        if beyond % 2:
            x = functional.pad(x, (0, 0, 0, 1))
        # As an image of height 1, because conv1d would first copy x into the order (B, C, L).
        image = x.transpose(1, 2).unsqueeze(2)
        y = functional.conv2d(image, weight.unsqueeze(2), bias, (1, self.stride), (0, beyond // 2), (1, self.dilation))
        return y.squeeze(2).transpose(1, 2)


class Taps(torch.autograd.Function):
    """Convolution of x (B, L, C), padded, with weights (O, C, K) -> (B, places, O), as one product of matrices: what is
    under the K taps lies side by side, is made again for the backward pass, and is never kept.

    Deterministic, as cuDNN's is only at a fifth of its speed in float32.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, dilation: int, stride: int) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        ctx.apart = dilation, stride
        return _taps(x, weight, dilation, stride)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None, None, None]:
        (x, weight), (dilation, stride), gradient = ctx.saved_tensors, ctx.apart, gradients[0]
        outputs, channels, taps = weight.shape
        of_x = of_weight = None
        if ctx.needs_input_grad[1]:
            # In parts, whose products are added up: the result alone is too small to keep a GPU busy.
            parts = math.gcd(len(x), 64)
            size = len(x) // parts * gradient.shape[1]
            under = _under_taps(x, taps, dilation, stride).reshape(parts, size, taps * channels)
            product = torch.bmm(under.transpose(1, 2), gradient.reshape(parts, size, outputs)).sum(0)
            of_weight = product.view(taps, channels, outputs).permute(2, 1, 0)
        if ctx.needs_input_grad[0]:
            places = gradient.shape[1]
            under = (gradient @ _by_taps(weight).t()).view(len(x), places, taps, channels)
            of_x = torch.zeros_like(x)
            for tap in range(taps):
                _at_tap(of_x, tap * dilation, places, stride).add_(under[:, :, tap])
        return of_x, of_weight, None, None


def _taps(x: torch.Tensor, weight: torch.Tensor, dilation: int, stride: int) -> torch.Tensor:
    return _under_taps(x, weight.shape[2], dilation, stride) @ _by_taps(weight)


def _at_tap(x: torch.Tensor, start: int, places: int, stride: int) -> torch.Tensor:
    return x[:, start : start + (places - 1) * stride + 1 : stride]


def _under_taps(x: torch.Tensor, taps: int, dilation: int, stride: int) -> torch.Tensor:
    places = (x.shape[1] - dilation * (taps - 1) - 1) // stride + 1
    return torch.cat([_at_tap(x, tap * dilation, places, stride) for tap in range(taps)], 2)


def _by_taps(weight: torch.Tensor) -> torch.Tensor:
    return weight.permute(2, 1, 0).reshape(-1, len(weight))


class NoNorm(nn.Module):
    """x as it is."""

    def forward(self, x: torch.Tensor, training: bool, present: torch.Tensor | None = None) -> torch.Tensor:
        return x


class _MemberNorm(nn.Module):
    """Gain and shift of every channel, (M, C) or with `shared_strands` (M, C / 2)."""

    eps = 1e-5

    def __init__(self, members: int, channels: int, shared_strands: bool = False) -> None:
        super().__init__()
        stored = channels // 2 if shared_strands else channels
        self.shared_strands = shared_strands
        self.weight = nn.Parameter(torch.ones(members, stored))
        self.bias = nn.Parameter(torch.zeros(members, stored))

    def whole(self, *stored: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Values of every channel, (M, C), out of those stored."""
        return tuple(tied(values, 1) for values in stored) if self.shared_strands else stored


class MemberLayerNorm(_MemberNorm):
    """x (M, B, L, C), normalised over the channels of every position."""

    def forward(self, x: torch.Tensor, training: bool, present: torch.Tensor | None = None) -> torch.Tensor:
        weight, bias = self.whole(self.weight, self.bias)
        if len(weight) == 1:
            return self._normalised(x, weight[0], bias[0])
        return torch.addcmul(bias[:, None, None], self._normalised(x), weight[:, None, None])

    def _normalised(self, x: torch.Tensor, *affine: torch.Tensor) -> torch.Tensor:
        weight, bias = affine or (None, None)
        few = x.shape[-1] > NARROW or x.numel() < MANY
        if not x.is_cuda or few or torch.compiler.is_compiling():  # compiled, it is one kernel
            return functional.layer_norm(x, x.shape[-1:], weight, bias, self.eps)
        found: torch.Tensor = RowNorm.apply(x.to(self.weight.dtype), self.eps, *affine)
        return found


class RowNorm(torch.autograd.Function):
    """Layer norm of x (..., C), with the gain and the shift (C,) or neither.

    torch gives every row a block of 128 threads: on an H200 rows of 32 channels took 25 times what their memory takes.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, eps: float, *affine: torch.Tensor) -> torch.Tensor:
        variance, mean = torch.var_mean(x, -1, correction=0, keepdim=True)
        inverse = variance.add_(eps).rsqrt_()
        ctx.save_for_backward(x, mean, inverse, *affine)
        y = (x - mean).mul_(inverse)
        return torch.addcmul(affine[1], y, affine[0]) if affine else y

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, mean, inverse, *affine = ctx.saved_tensors
        given = affine or [None, None]
        wanted = [ctx.needs_input_grad[0], bool(affine), bool(affine)]
        of_x, *of_affine = torch.ops.aten.native_layer_norm_backward(
            gradients[0].contiguous(), x, x.shape[-1:], mean, inverse, *given, wanted
        )
        return of_x, None, *(of_affine if affine else [])


class MemberBatchNorm(_MemberNorm):
    """x (M, B, L, C), normalised over the rows and positions of a whole batch, whatever the number of ranks;
    nn.BatchNorm1d for one of them.

    The training loop sets `reduce`, a sum over ranks that gradients pass through (None: there is one rank), and,
    before a forward, `weights` (M, B), 0 for rows that a member does not learn from (None: it learns from all); see
    `share_statistics`. Padding takes no part. Every rank must call the layer equally often, if need be with no rows.
    In a batch without any row to learn from the running statistics are used, as they are in evaluation.
    """

    momentum = 0.1

    def __init__(self, members: int, channels: int, shared_strands: bool = False) -> None:
        super().__init__(members, channels, shared_strands)
        self.running_mean: torch.Tensor
        self.running_variance: torch.Tensor
        self.register_buffer("running_mean", torch.zeros_like(self.bias))
        self.register_buffer("running_variance", torch.ones_like(self.weight))
        self.reduce: Callable[[torch.Tensor], torch.Tensor] | None = None
        self.weights: torch.Tensor | None = None

    def forward(self, x: torch.Tensor, training: bool, present: torch.Tensor | None = None) -> torch.Tensor:
        weight, bias, running_mean, running_variance = self.whole(
            self.weight, self.bias, self.running_mean, self.running_variance
        )
        with torch.autocast(x.device.type, enabled=False):  # sums over a batch in half precision would be too coarse
            x = x.to(weight.dtype)
            if not training:
                scale = weight * (running_variance + self.eps).rsqrt()
                return torch.addcmul((bias - running_mean * scale)[:, None, None], x, scale[:, None, None])
            share = torch.ones_like(x[..., 0])
            if self.weights is not None:
                share = share * self.weights.to(x.dtype)[..., None]
            if present is not None:
                share = share * present
            share = share.flatten(1).unsqueeze(1)
            sums = self._sum(torch.cat([torch.bmm(share, x.flatten(1, 2)), share.sum(2, keepdim=True)], 2))[:, 0]
            count = sums[:, -1:].detach()
            mean = torch.where(count > 0, self._both(sums[:, :-1]) / count.clamp(min=1), running_mean)
            x = x - mean[:, None, None]
            squares = self._both(self._sum(torch.bmm(share, (x * x).flatten(1, 2)))[:, 0])
            variance = torch.where(count > 0, squares / count.clamp(min=1), running_variance)
            with torch.no_grad():
                unbiased = torch.where(count > 1, squares / (count - 1).clamp(min=1), running_variance)
                stored = self.running_mean.shape[1]
                self.running_mean.lerp_(mean[:, :stored], self.momentum)
                self.running_variance.lerp_(unbiased[:, :stored], self.momentum)
            return torch.addcmul(bias[:, None, None], x, (weight * (variance + self.eps).rsqrt())[:, None, None])

    def _sum(self, local: torch.Tensor) -> torch.Tensor:
        return local if self.reduce is None else self.reduce(local)

    def _both(self, sums: torch.Tensor) -> torch.Tensor:
        return (sums + sums.flip(1)) / 2 if self.shared_strands else sums


NORMS: dict[str, Any] = {"layer": MemberLayerNorm, "batch": MemberBatchNorm, "none": lambda *_: NoNorm()}


def share_statistics(
    network: nn.Module, reduce: Callable[[torch.Tensor], torch.Tensor] | None, weights: torch.Tensor | None
) -> None:
    """Tells every batch norm of a network how to sum over ranks, and which rows of the next batch each
    member learns from, (M, B)."""
    for module in network.modules():
        if isinstance(module, MemberBatchNorm):
            module.reduce, module.weights = reduce, weights


class Attention(nn.Module):
    """x (M, B, L, C) -> weights (M, B, L) of the positions, which sum to 1; those that are not `present` get 0."""

    def __init__(self, seeds: list[int], channels: int, layer: int, shared_strands: bool = False) -> None:
        super().__init__()
        self.shared_strands = shared_strands
        self.weight = keyed_start(
            seeds, layer, (channels // 2 if shared_strands else channels,), 1 / math.sqrt(channels)
        )

    def forward(self, x: torch.Tensor, present: torch.Tensor | None = None) -> torch.Tensor:
        weight = tied(self.weight, 1) if self.shared_strands else self.weight
        scores = torch.matmul(x, weight[:, None, :, None]).squeeze(-1)
        if present is not None:
            scores = scores.masked_fill(~present, -math.inf)
        return scores.softmax(-1)


class PositionPool(nn.Module):
    """x (M, B, L, C) -> (M, B, K, C): what each of K ways, attention, max or mean, makes of the positions that are
    `present`."""

    def __init__(
        self, ways: list[str], seeds: list[int], channels: int, layer: int, shared_strands: bool = False
    ) -> None:
        super().__init__()
        self.ways = ways
        self.attention = Attention(seeds, channels, layer, shared_strands) if "attention" in ways else None

    def forward(self, x: torch.Tensor, present: torch.Tensor | None = None) -> torch.Tensor:
        return torch.stack([self._pooled(way, x, present) for way in self.ways], 2)

    def _pooled(self, way: str, x: torch.Tensor, present: torch.Tensor | None) -> torch.Tensor:
        if way == "attention" and self.attention is not None:
            return torch.matmul(self.attention(x, present).unsqueeze(2), x).squeeze(2)
        if way == "max":
            return (x if present is None else x.masked_fill(~present[..., None], -math.inf)).amax(2)
        # Divided alike with and without a mask, so that no row depends on whether others of its batch have padding.
        return masked(x, present).sum(2) / (
            x.new_full((1,), x.shape[2]) if present is None else present.sum(2, keepdim=True)
        )


@uncompiled
def unpadded(x: torch.Tensor) -> torch.Tensor | None:
    """Positions of sequences x (M or 1, B, L, C) between their first and last known base, bool (M or 1, B, L).

    None where all rows begin and end with one, which spares the layers their masks.
    A row without any known base is taken as it is.
    """
    ends = x[:, :, :: max(x.shape[2] - 1, 1)]  # a list of places would wait for the device once more
    if bool(ends.ne(0).any(-1).all()):
        return None
    known = x.ne(0).any(-1)
    inside = known.cumsum(2).ne(0) & known.flip(2).cumsum(2).flip(2).ne(0)
    return inside | ~known.any(2, keepdim=True)


def masked(x: torch.Tensor, present: torch.Tensor | None) -> torch.Tensor:
    """x (M, B, L, C), zero at positions that are not present, as it is beyond the ends."""
    return x if present is None else x * present[..., None]


def windows(length: int, factor: int, symmetric: bool) -> tuple[int, int]:
    """How wide the windows of `max_pool` and `mean_pool` are, and how many."""
    width = min(length, factor + length % factor) if symmetric else factor
    return width, -((width - length) // factor) + 1


def max_pool(
    x: torch.Tensor, present: torch.Tensor | None, factor: int, symmetric: bool
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Maxima of x (M, B, L, C) over windows of `factor` positions, the last one being shorter:
    (M, B, L / factor rounded up, C).

    `symmetric`: the windows of the reversed sequence are the reversed windows; there are L / factor rounded down,
    at least one, longer than `factor` where L is no multiple of it, so that they meet both ends.
    """
    width, _ = windows(x.shape[2], factor, symmetric)
    if present is not None:
        x = x.masked_fill(~present[..., None], -math.inf)
        kept = functional.max_pool1d(present.to(x.dtype).flatten(0, 1), width, factor, ceil_mode=True)
        present = kept.ne(0).unflatten(0, present.shape[:2])
    y = functional.max_pool2d(_image(x), (1, width), (1, factor), ceil_mode=True)
    y = y.squeeze(2).transpose(1, 2).unflatten(0, x.shape[:2])
    return (y if present is None else y.masked_fill(~present[..., None], 0)), present


def mean_pool(x: torch.Tensor, factor: int, symmetric: bool) -> torch.Tensor:
    """Means of x (M, B, L, C) over the windows of `max_pool`."""
    width, _ = windows(x.shape[2], factor, symmetric)
    y = functional.avg_pool2d(_image(x), (1, width), (1, factor), ceil_mode=True)
    return y.squeeze(2).transpose(1, 2).unflatten(0, x.shape[:2])


def _image(x: torch.Tensor) -> torch.Tensor:
    return x.flatten(0, 1).transpose(1, 2).unsqueeze(2)


def in_range(option: str, value: Any, low: float, high: float = math.inf, whole: bool = True) -> None:
    """InputError unless `value` is a number from low to high; `whole`: an integer."""
    right = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool) and low <= value <= high
    if not right:
        limit = f" from {low} to {high}" if high < math.inf else f" of at least {low}"
        raise InputError(f"found {value!r}; expected {'an integer' if whole else 'a number'}{limit}", f"model.{option}")


def all_in_range(option: str, values: Any, low: int, least: int = 1) -> None:
    """InputError unless `values` is a list of at least `least` integers of at least `low`."""
    if not isinstance(values, list | tuple) or len(values) < least:
        raise InputError(f"found {values!r}; expected a list of {least} or more integers", f"model.{option}")
    for value in values:
        in_range(option, value, low)


def is_rate(option: str, value: Any) -> None:
    """InputError unless `value` is a share that may be dropped: from 0 to below 1."""
    in_range(option, value, 0, 1, whole=False)
    if value == 1:
        raise InputError("found 1; expected a share below 1", f"model.{option}")


def is_flag(option: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise InputError(f"found {value!r}; expected true or false", f"model.{option}")


def one_of(option: str, value: Any, allowed: Sequence[str]) -> None:
    """InputError unless `value` is among the words allowed."""
    if value not in allowed:
        raise InputError(f"found {value!r}; expected one of {', '.join(allowed)}", f"model.{option}")


def some_of(option: str, value: Any, allowed: Sequence[str]) -> list[str]:
    """`value`, one of the words allowed or a list of several, as a list. InputError for anything else."""
    found = value if isinstance(value, list | tuple) else [value]
    for word in found:
        one_of(option, word, allowed)
    if not found or len(set(found)) < len(found):
        raise InputError(f"found {value!r}; expected one or more of {', '.join(allowed)}, each once", f"model.{option}")
    return list(found)


def has_shape(kind: str, inputs: tuple[int, ...], dimensions: int) -> None:
    """InputError unless the inputs are what a kind takes: a vector of features (1 dimension) or a sequence (2)."""
    if len(inputs) != dimensions:
        wanted = "a vector of features" if dimensions == 1 else "a sequence (channels, positions)"
        raise InputError(
            f"found {kind!r} for inputs of shape {tuple(inputs)}; it takes {wanted}: choose another kind", "model.kind"
        )
