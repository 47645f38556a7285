"""LSegDiff: what LDSeg trains by one loss, in two stages."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ldseg_monai.diffusion.draws import Draws
from ldseg_monai.networks.blocks import ResidualEncoder, one_hot
from ldseg_monai.networks.ldseg.network import LDSeg
from ldseg_monai.runtime.errors import InputError

AUTOENCODER = ("label_encoder", "standardization", "label_decoder")
DENOISER = ("image_encoder", "denoiser")


class VariationalEncoder(nn.Module):
    """Encoder of a variational autoencoder: a normal distribution of latents for each label.

    Args:
        spatial_dims: 2 or 3.
        in_channels: classes of a one-hot label.
        out_channels: channels of the latent.
        **encoder: further arguments of the `ResidualEncoder` that it is made of.
    """

    def __init__(
        self, spatial_dims: int, in_channels: int, out_channels: int, **encoder: Any
    ) -> None:
        super().__init__()
        self.encoder = ResidualEncoder(spatial_dims, in_channels, 2 * out_channels, **encoder)
        self.spatial_dims = spatial_dims
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.stride = self.encoder.stride

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Map ``(B, in_channels, *spatial)`` to the distribution's mean, as `ResidualEncoder`."""
        both, features = self.encoder(x)
        return both[:, : self.out_channels], features

    @torch.jit.unused
    def posterior(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The distribution's mean and the logarithm of its variance, ``(B, C_z, *latent)`` each."""
        mean, log_variance = self.encoder(x)[0].chunk(2, dim=1)
        return mean, log_variance


class LSegDiff(LDSeg):
    """Latent diffusion in two stages (Vu Quoc et al., 2023, LSegDiff), as LDSeg's paper compares.

    Stage 1 trains a variational autoencoder of labels alone. Stage 2 starts from its weights and
    trains the image encoder and the denoiser by the squared error of the latent alone; it leaves
    the autoencoder as it is. Everything else is as in `LDSeg`, so that the two differ by how they
    are trained.

    Args:
        stage: 1 or 2, which a training pass belongs to.
        **parts: the arguments of `LDSeg`, with a `VariationalEncoder` as ``label_encoder`` and a
            decoder without the image's features.

    Raises:
        ValueError: for another stage, or parts that do not fit.
    """

    def __init__(self, stage: int, **parts: Any) -> None:
        if stage not in (1, 2):
            raise InputError(f"stage is {stage}: expected 1, the autoencoder, or 2, the denoiser")
        if not isinstance(parts["label_encoder"], VariationalEncoder):
            raise InputError(
                f"label_encoder is a {type(parts['label_encoder']).__name__}: expected a "
                "VariationalEncoder"
            )
        super().__init__(**parts)
        if self.decoder_sees_image:
            raise InputError(
                "label_decoder has image_channels: expected none, since the autoencoder of "
                "LSegDiff is trained without images"
            )
        self.stage = stage
        for name in DENOISER if stage == 1 else AUTOENCODER:
            getattr(self, name).requires_grad_(False)

    def train(self, mode: bool = True) -> LSegDiff:
        """Set the mode; in stage 2 the autoencoder stays in that of evaluation."""
        super().train(mode)
        if self.stage == 2:
            for name in AUTOENCODER:
                getattr(self, name).eval()
        return self

    @torch.jit.unused
    def reconstruct(self, label: torch.Tensor) -> torch.Tensor:
        """Encode and decode class indices ``(B, 1, *spatial)``: logits ``(B, C, *spatial)``."""
        return self.label_decoder(self.encode_label(label))

    def _training_pass(
        self, image: torch.Tensor, label: torch.Tensor, draws: Draws | None
    ) -> dict[str, torch.Tensor]:
        """What the losses need: logits and divergence, or prediction, target and clean latents."""
        if draws is None:
            draws = self.training_draws(image)
        noise = draws.noise.to(image.device)
        if self.stage == 1:
            return self._autoencoding_pass(label, noise)
        with torch.no_grad():
            clean = self.encode_label(label)
        embedding, _ = self.encode_image(image)
        timesteps = draws.timesteps.to(image.device)
        noisy = self._noisy(clean, embedding, draws, noise, timesteps)
        prediction = self.denoiser(noisy, embedding, timesteps).float()
        return {
            "prediction": prediction,
            "target": self.scheduler.target(clean, noise, timesteps),
            "estimate": self.scheduler.denoise(prediction, timesteps, noisy),
            "clean": clean,
        }

    def _autoencoding_pass(
        self, label: torch.Tensor, noise: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        encoder: Any = self.label_encoder
        weight = next(self.label_decoder.parameters())
        mean, log_variance = encoder.posterior(one_hot(label, self.out_channels, weight.dtype))
        mean, log_variance = mean.float(), log_variance.float()
        latent = mean + (log_variance / 2).exp() * noise
        # Kullback-Leibler divergence from the standard normal distribution, of each number
        divergence = (mean**2 + log_variance.exp() - 1 - log_variance) / 2
        logits = self.label_decoder(self.standardization(latent))
        return {"logits": logits, "divergence": divergence.mean()}


def require_first_stage(initial_weights: str) -> None:
    """Check that a second stage starts from a first one.

    Args:
        initial_weights: the knob of train.yaml.

    Raises:
        ValueError: if it is empty.
    """
    if not initial_weights:
        raise InputError(
            "initial_weights is '': expected the model.pt of stage 1, whose autoencoder stage 2 "
            "leaves as it is; train with baselines/lsegdiff_1.yaml first"
        )
