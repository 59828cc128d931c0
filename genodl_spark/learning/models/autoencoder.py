"""Autoencoder and variational autoencoder (Kingma and Welling 2014) over standardised features,
with a supervised head."""

from __future__ import annotations

import torch
from torch import nn

from genodl_spark.learning.models import mlp
from genodl_spark.learning.models.layers import (
    all_in_range,
    has_shape,
    in_range,
    is_flag,
    is_rate,
    keyed_kept,
    keyed_normal,
    keys,
    part,
)

_LOG_VARIANCE = 10.0  # bound of the logarithm, so that its exponential stays finite


class Network(nn.Module):
    """x (M or 1, B, F), standardised -> logits or values (M, B, outputs), linear in the mean of the latent variables.

    `latent`: their number; `hidden`: widths of the encoder's hidden layers, in reverse those of the decoder.
    After a training forward `auxiliary` (M, B) is `reconstruction` * (mean over features of the squared error) +
    `beta` * (divergence of the latent distribution from a standard normal, of `variational` ones only, in nats).
    `denoising`: share of the inputs set to 0, their mean, while all of them are to be reconstructed (Vincent et al.
    2008). `dropout`: share of hidden units dropped in training.

    `trunk` names the parts of which another network may start from the weights, `trunk_options` shape them;
    `by_feature`: along which dimension which of their weights are of features.
    """

    trunk = ("encoder", "decoder")

    def __init__(
        self,
        seeds: list[int],
        inputs: tuple[int, ...],
        outputs: int,
        hidden: list[int] | None = None,
        latent: int = 16,
        variational: bool = False,
        beta: float = 1.0,
        reconstruction: float = 1.0,
        denoising: float = 0.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        has_shape("autoencoder", inputs, 1)
        hidden = [128] if hidden is None else hidden
        all_in_range("hidden", hidden, 1, least=0)
        in_range("latent", latent, 1)
        in_range("beta", beta, 0, whole=False)
        in_range("reconstruction", reconstruction, 0, whole=False)
        is_rate("denoising", denoising)
        is_flag("variational", variational)
        self.seeds, self.latent, self.variational = seeds, latent, variational
        self.beta, self.reconstruction, self.denoising = beta, reconstruction, denoising
        self.encoder = mlp.Network(part(seeds, 0), inputs, 2 * latent if variational else latent, hidden, dropout)
        self.decoder = mlp.Network(part(seeds, 1), (latent,), inputs[0], hidden[::-1], dropout)
        self.head = mlp.Network(part(seeds, 2), (latent,), outputs, [])
        self.auxiliary: torch.Tensor | None = None
        self.trunk_options = {"hidden": list(hidden), "latent": latent, "variational": variational}
        last = f"decoder.layers.{len(hidden)}"
        self.by_feature = {"encoder.layers.0.weight": 1, f"{last}.weight": 2, f"{last}.bias": 2}

    def forward(self, x: torch.Tensor, rows: torch.Tensor | None = None, epoch: int = 0) -> torch.Tensor:
        """`rows` int64 (B,) and `epoch` key noise, masks and dropout; without rows there is none of them."""
        self.auxiliary = None
        mean = self.encode(x) if rows is None else self._learn(x, rows, epoch)
        outputs: torch.Tensor = self.head(mean, rows, epoch)
        return outputs

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """Means of the latent variables, (M, B, latent)."""
        encoded: torch.Tensor = self.encoder(x)
        return encoded[..., : self.latent]

    def reconstruct(self, x: torch.Tensor) -> torch.Tensor:
        """Features (M, B, F) as the latent means tell them."""
        decoded: torch.Tensor = self.decoder(self.encode(x))
        return decoded

    def _learn(self, x: torch.Tensor, rows: torch.Tensor, epoch: int) -> torch.Tensor:
        """Latent means of a training batch; leaves its loss in `auxiliary`."""
        seen = x
        if self.denoising:
            seen = torch.where(
                keyed_kept(x.shape[-1], self.denoising, rows, keys(self.seeds, epoch, 0, x.device)),
                x,
                torch.zeros_like(x),
            )
        code = mean = self.encoder(seen, rows, epoch)
        divergence: torch.Tensor | float = 0.0
        if self.variational:
            mean, log_variance = code.to(torch.promote_types(code.dtype, torch.float32)).chunk(2, -1)
            log_variance = log_variance.clamp(-_LOG_VARIANCE, _LOG_VARIANCE)
            divergence = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).sum(-1)
            first, second = (keys(self.seeds, epoch, number, x.device) for number in (1, 2))
            code = mean + (log_variance / 2).exp() * keyed_normal(self.latent, rows, first, second, mean.dtype)
        error = (self.decoder(code, rows, epoch) - x) ** 2
        self.auxiliary = self.reconstruction * error.mean(-1) + self.beta * divergence
        return mean
