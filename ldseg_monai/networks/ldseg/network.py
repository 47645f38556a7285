"""The whole of LDSeg: Figure 1 of the paper as one network."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from ldseg_monai.diffusion.draws import draw_per_sample
from ldseg_monai.diffusion.noise import seeded_noise
from ldseg_monai.diffusion.schedulers import EvenlySpacedScheduler
from ldseg_monai.networks.blocks import SampleStandardization, one_hot
from ldseg_monai.networks.ldseg.efficientnet_encoder import STRIDE as EFFICIENTNET_STRIDE
from ldseg_monai.networks.ldseg.image_encoder import ImageEncoder
from ldseg_monai.networks.ldseg.label_decoder import LabelDecoder
from ldseg_monai.networks.ldseg.label_encoder import LabelEncoder
from ldseg_monai.networks.ldseg.latent_denoiser import LatentDenoiser


class LDSeg(nn.Module):
    """Latent diffusion for segmentation, trained end to end (Zaman et al., 2024, Figure 1, Algorithms 1 and 2).

    With a label, ``forward`` is a whole training pass (so that DistributedDataParallel can wrap
    it); with an image alone it runs the whole reverse process and returns class logits. The latent
    is smaller than the image by ``stride = stem_stride * 2 ** (len(channels) - 1)``, which must
    divide every side of the image.

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the image.
        out_channels: classes of the label, background included.
        channels: channels of each level of the image encoder.
        label_channels: channels of each level of the label encoder, as many levels; None for the
            image encoder's. A label is simpler than an image.
        decoder_channels: channels of each level of the decoder, mirrored; None for the label
            encoder's. Every further sample costs a decoder's pass.
        stem_stride: side in voxels of the patches that the first layer makes and the last one
            fills: it stands for the first ``log2(stem_stride)`` down-samplings; 1 keeps the full
            resolution (the paper).
        num_res_blocks: residual blocks in each level of the image encoder.
        label_res_blocks: of the label encoder and of the decoder; None for the image encoder's.
        denoiser_res_blocks: of the denoiser; None for the image encoder's.
        latent_channels: channels of the label latent (1 in the paper).
        embedding_channels: channels of the image embedding (1 in the paper).
        denoiser_channels: channels of each level of the denoiser's U-Net.
        attention_levels: levels of the image encoder with self-attention; None for the last two
            (the paper).
        denoiser_attention_levels: levels of the denoiser with self-attention; None for all but the
            first.
        num_head_channels: channels of one attention head; must divide the channels of the levels
            with attention.
        norm: normalization as MONAI writes it.
        latent_norm: ``sample`` (the paper), ``cases`` or ``batch``: see `LabelEncoder`.
        latent_shape: spatial shape of the latent for ``latent_norm='cases'``: see
            `CaseStandardization`.
        num_train_timesteps: T.
        schedule: ``cosine`` (the paper), ``linear`` or ``quadratic``.
        prediction_type: ``epsilon`` (the paper: the decoder then gets ``z_t - eps_hat``, Eq. 12),
            ``sample`` or ``v_prediction`` (the decoder gets the estimate of the clean latent).
        num_inference_steps: steps K of the reverse process (2 in the paper).
        eta: 0 for DDIM, 1 for DDPM.
        timestep_spacing: ``inclusive`` (the paper) or ``trailing``: see `EvenlySpacedScheduler`.
        decoder_image_levels: for each level, whether the decoder also gets the image encoder's
            features there; None for nowhere (the paper).
        image_dropout: share of the training samples whose label is decoded without these features,
            so that the latent has to carry it; the clean latent is always decoded without them.
        decode_clean: whether a training pass also decodes the clean latent, for the loss's
            autoencoding term.
        learned_label_encoder, learned_image_encoder: False to down-sample the label, or the image,
            instead of encoding it: see `Downsampling`.
        image_backbone: ``efficientnet_lite0`` for an image encoder of color pictures that can start
            from ImageNet's weights, `EfficientNetEncoder` (it has only the last of ``channels`` and
            ``attention_levels``); None for the paper's.
        restandardize: whether the latent gets mean 0 and standard deviation 1 again, per sample,
            after each step.
        seed: seed of the noise when none is passed.

    Raises:
        ValueError: for arguments that contradict each other, before anything is built.

    Example:
        >>> small = {"channels": (8, 16), "denoiser_channels": (8, 16), "num_head_channels": 8}
        >>> network = LDSeg(spatial_dims=2, in_channels=3, out_channels=2, **small).eval()
        >>> network(torch.zeros(1, 3, 32, 48)).shape
        torch.Size([1, 2, 32, 48])
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        channels: Sequence[int] = (16, 32, 64, 128, 128),
        stem_stride: int = 1,
        num_res_blocks: int = 1,
        label_channels: Sequence[int] | None = None,
        decoder_channels: Sequence[int] | None = None,
        label_res_blocks: int | None = None,
        denoiser_res_blocks: int | None = None,
        latent_channels: int = 1,
        embedding_channels: int = 1,
        denoiser_channels: Sequence[int] = (64, 128),
        attention_levels: Sequence[bool] | None = None,
        denoiser_attention_levels: Sequence[bool] | None = None,
        num_head_channels: int = 32,
        norm: tuple | str = ("group", {"num_groups": 8}),
        latent_norm: str = "sample",
        latent_shape: Sequence[int] | None = None,
        num_train_timesteps: int = 1000,
        schedule: str = "cosine",
        prediction_type: str = "epsilon",
        num_inference_steps: int = 2,
        eta: float = 0.0,
        timestep_spacing: str = "inclusive",
        restandardize: bool = False,
        decoder_image_levels: Sequence[bool] | None = None,
        image_dropout: float = 0.0,
        decode_clean: bool = False,
        learned_label_encoder: bool = True,
        learned_image_encoder: bool = True,
        image_backbone: str | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if attention_levels is None:
            attention_levels = [level >= len(channels) - 2 for level in range(len(channels))]
        if denoiser_attention_levels is None:
            denoiser_attention_levels = [level > 0 for level in range(len(denoiser_channels))]
        label_channels = channels if label_channels is None else label_channels
        decoder_channels = label_channels if decoder_channels is None else decoder_channels
        for name, levels in (
            ("label_channels", label_channels),
            ("decoder_channels", decoder_channels),
        ):
            if len(levels) != len(channels):
                raise ValueError(
                    f"{name} has {len(levels)} levels: expected the {len(channels)} of channels, so that label latent "
                    "and image embedding have one size"
                )
        _check_arguments(
            spatial_dims,
            channels,
            stem_stride,
            attention_levels,
            denoiser_channels,
            denoiser_attention_levels,
            num_head_channels,
            latent_shape,
        )
        if restandardize and latent_norm != "sample":
            raise ValueError(
                f"restandardize works per sample: expected latent_norm 'sample', not {latent_norm!r}"
            )
        if decoder_image_levels is not None and len(decoder_image_levels) != len(channels):
            raise ValueError(
                f"decoder_image_levels has {len(decoder_image_levels)} entries: expected one for each of the "
                f"{len(channels)} levels"
            )
        sees_image = any(decoder_image_levels or [])
        if sees_image and not learned_image_encoder:
            raise ValueError(
                "decoder_image_levels need the image encoder's features: leave them out, or let it learn"
            )
        if image_backbone is not None:
            _check_backbone(
                image_backbone, spatial_dims, in_channels, stem_stride * 2 ** (len(channels) - 1)
            )
            if sees_image or not learned_image_encoder:
                raise ValueError(
                    "image_backbone gives the decoder no features, and is learned: expected neither "
                    "decoder_image_levels nor learned_image_encoder=False"
                )
        if not 0 <= image_dropout <= 1:
            raise ValueError(f"image_dropout is {image_dropout}: expected 0 to 1")
        if image_dropout and not sees_image:
            raise ValueError(
                f"image_dropout is {image_dropout}, but no decoder_image_levels: expected 0 there"
            )
        self.out_channels = out_channels
        self.latent_channels = latent_channels
        self.decode_clean = decode_clean
        self.image_dropout = image_dropout
        self.stride = stem_stride * 2 ** (len(channels) - 1)
        self.num_inference_steps = num_inference_steps
        self.seed = seed

        label_parts = (
            stem_stride,
            num_res_blocks if label_res_blocks is None else label_res_blocks,
            norm,
        )
        self.label_encoder = LabelEncoder(
            spatial_dims,
            out_channels,
            latent_channels,
            label_channels,
            *label_parts,
            latent_norm,
            latent_shape,
            learned_label_encoder,
        )
        self.image_encoder = ImageEncoder(
            spatial_dims,
            in_channels,
            embedding_channels,
            channels,
            stem_stride,
            num_res_blocks,
            attention_levels,
            num_head_channels,
            norm,
            learned_image_encoder,
            image_backbone,
        )
        self.denoiser = LatentDenoiser(
            spatial_dims,
            latent_channels,
            embedding_channels,
            denoiser_channels,
            num_res_blocks if denoiser_res_blocks is None else denoiser_res_blocks,
            denoiser_attention_levels,
            num_head_channels,
            norm,
        )
        decoder_image_levels = decoder_image_levels or [False] * len(channels)
        self.decoder_sees_image = sees_image
        image_channels = [
            width * used for width, used in zip(channels, decoder_image_levels, strict=True)
        ]
        self.label_decoder = LabelDecoder(
            spatial_dims,
            latent_channels,
            out_channels,
            decoder_channels,
            *label_parts,
            image_channels,
        )
        self.scheduler = EvenlySpacedScheduler(
            num_train_timesteps, schedule, prediction_type, eta, timestep_spacing
        )
        self.scheduler.set_timesteps(num_inference_steps)
        self.after_step = SampleStandardization() if restandardize else nn.Identity()
        # Convolutions follow the layout of their weights: channels-last is the faster one on a CPU.
        self.to(memory_format=torch.channels_last if spatial_dims == 2 else torch.channels_last_3d)  # type: ignore[call-overload]

    def forward(
        self,
        image: torch.Tensor,
        label: torch.Tensor | None = None,
        timesteps: torch.Tensor | None = None,
        noise: torch.Tensor | None = None,
    ):
        """Train on a pair, or segment an image.

        Args:
            image: ``(B, in_channels, *spatial)``.
            label: class indices ``(B, 1, *spatial)`` for a training pass; None to segment.
            timesteps: with a label, indices from 0 to T - 1, ``(B,)``; drawn uniformly if None.
            noise: with a label, ``(B, C_z, *latent)``, drawn if None; without one, the noise of the
                reverse process, as `segment` takes it.

        Returns:
            Without a label: class logits ``(B, out_channels, *spatial)``. With one, what
                `LDSegLoss` needs: a
            dictionary of ``logits``, of ``prediction`` and ``target`` ``(B, C_z, *latent)`` of the
            denoiser, and, with ``decode_clean``, of ``reconstruction``, the logits decoded from the
            clean latent.

        Raises:
            ValueError: if the stride does not divide the image, naming the size to pad to.
        """
        if torch.jit.is_scripting() or label is None:
            return self.segment(image, noise)
        return self._training_pass(image, label, timesteps, noise)

    def segment(
        self,
        image: torch.Tensor,
        noise: torch.Tensor | None = None,
        num_samples: int = 1,
        seed: int | None = None,
    ) -> torch.Tensor:
        """Run the whole reverse process (Algorithm 2), in one batch for several samples of an image.

        Args:
            image: ``(B, in_channels, *spatial)``.
            noise: ``(draws, num_samples or B * num_samples, C_z, *latent)`` as of `seeded_noise`;
                drawn if None.
            num_samples: segmentations of each image, which is encoded once.
            seed: of the noise that is drawn; None for the network's own.

        Returns:
            Class logits ``(B * num_samples, out_channels, *spatial)``, the samples of an image one
            after the other.
        """
        embedding, features = self.encode_image(image)
        if noise is None:
            seed = self.seed if seed is None else seed
            noise = seeded_noise(self.noise_shape(image), seed, num_samples, self.num_draws())
        if num_samples > 1:
            embedding = embedding.repeat_interleave(num_samples, dim=0)
            features = [feature.repeat_interleave(num_samples, dim=0) for feature in features]
            noise = noise.repeat([1, embedding.shape[0] // noise.shape[1]] + [1] * (noise.ndim - 2))
        return self.label_decoder(self.sample_latent(embedding, noise), features)

    def encode_image(self, image: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """``z_i`` of Eq. 9, ``(B, embedding_channels, *latent)``, and the features that the decoder may use."""
        self._check_size(image)
        embedding, features = self.image_encoder(image)
        if not self.decoder_sees_image:
            features = []
        return embedding, features

    def encode_label(self, label: torch.Tensor) -> torch.Tensor:
        """``z_l(0)`` of Eq. 10 for class indices ``(B, 1, *spatial)``: ``(B, C_z, *latent)``.

        Raises:
            ValueError: if the label has a class that the network does not know.
        """
        return self.label_encoder(
            one_hot(label, self.out_channels).to(self.label_decoder.from_latent.weight.dtype)
        )

    def sample_latent(
        self, embedding: torch.Tensor, noise: torch.Tensor, num_inference_steps: int | None = None
    ) -> torch.Tensor:
        """Denoise from T to the clean latent.

        Args:
            embedding: ``z_i``, ``(B, embedding_channels, *latent)``.
            noise: ``(draws, 1 or B, C_z, *latent)``; the first draw starts the process, each
                further one belongs to a stochastic step.
            num_inference_steps: steps K; None for the network's own.

        Returns:
            ``z_l(0)``, ``(B, C_z, *latent)``, float32.

        Raises:
            ValueError: if the steps are not 1 to T, or the draws are not one, or one a step if it
                is stochastic.
        """
        noise = noise.to(embedding.device).expand(
            [-1, embedding.shape[0]] + [-1] * (embedding.ndim - 1)
        )
        steps = self.num_inference_steps if num_inference_steps is None else num_inference_steps
        if steps != self.scheduler.num_inference_steps:
            self.scheduler.set_timesteps(steps)
        if len(noise) != self.num_draws(steps):
            raise ValueError(
                f"noise has {len(noise)} draws: expected {self.num_draws(steps)} for {steps} steps"
            )
        latent = noise[0]
        for step, timestep in enumerate(self.scheduler.indices):
            now = torch.full([latent.shape[0]], timestep, device=latent.device)
            prediction = self.denoiser(latent, embedding, now).float()
            fresh = noise[step + 1] if step + 1 < len(noise) else None
            latent = self.after_step(
                self.scheduler.step(prediction, timestep, latent, variance_noise=fresh)[0]
            )
        return latent

    def noise_shape(self, image: torch.Tensor) -> list[int]:
        """``[C_z, *latent]`` for an image ``(B, in_channels, *spatial)``."""
        return [self.latent_channels] + [side // self.stride for side in image.shape[2:]]

    def num_draws(self, num_inference_steps: int | None = None) -> int:
        """How many draws of noise the reverse process takes: one, or one a step if it is stochastic."""
        steps = self.num_inference_steps if num_inference_steps is None else num_inference_steps
        return 1 if self.scheduler.eta == 0 else steps

    def _training_pass(
        self,
        image: torch.Tensor,
        label: torch.Tensor,
        timesteps: torch.Tensor | None,
        noise: torch.Tensor | None,
    ) -> dict[str, torch.Tensor]:
        """Algorithm 1, up to the loss."""
        if label.shape[2:] != image.shape[2:]:
            raise ValueError(
                f"label of size {list(label.shape[2:])}: expected the image's {list(image.shape[2:])}"
            )
        embedding, features = self.encode_image(image)
        clean = self.encode_label(label)
        if timesteps is None:
            num_timesteps = self.scheduler.num_train_timesteps
            timesteps = draw_per_sample(
                len(clean), lambda each: torch.randint(num_timesteps, [], generator=each)
            )
        if noise is None:
            noise = draw_per_sample(
                len(clean), lambda each: torch.randn(clean.shape[1:], generator=each)
            )
        timesteps, noise = timesteps.to(clean.device), noise.to(clean.device)
        noisy = self.scheduler.add_noise(clean, noise, timesteps)
        prediction = self.denoiser(noisy, embedding, timesteps).float()
        if self.scheduler.prediction_type == "epsilon":
            denoised, target = noisy - prediction, noise  # Eq. 12
        else:
            denoised = self.scheduler.denoise(prediction, timesteps, noisy)
            velocity = self.scheduler.prediction_type == "v_prediction"
            target = self.scheduler.get_velocity(clean, noise, timesteps) if velocity else clean
            target = (
                target.detach()
            )  # as constant as Eq. 17's noise: the latent must not shrink toward its prediction
        if self.training and self.decoder_sees_image:
            chance = draw_per_sample(
                len(image), lambda each: torch.rand([1] * (image.ndim - 1), generator=each)
            )
            shown = (chance >= self.image_dropout).to(image.device)
            features = [feature * shown for feature in features]
        output = {
            "logits": self.label_decoder(denoised, features),
            "prediction": prediction,
            "target": target,
        }
        if self.decode_clean:
            output["reconstruction"] = self.label_decoder(clean)
        return output

    def _check_size(self, image: torch.Tensor) -> None:
        spatial = image.shape[2:]
        padded = [-(-side // self.stride) * self.stride for side in spatial]
        if padded != list(spatial):
            got, fitting = (
                "x".join([str(side) for side in spatial]),
                "x".join([str(side) for side in padded]),
            )
            raise ValueError(
                f"image size {got}: expected multiples of {self.stride}; pad to {fitting}"
            )


def _check_backbone(name: str, spatial_dims: int, in_channels: int, stride: int) -> None:
    if name != "efficientnet_lite0":
        raise ValueError(f"image_backbone is {name!r}: expected 'efficientnet_lite0' or None")
    if (spatial_dims, in_channels, stride) != (2, 3, EFFICIENTNET_STRIDE):
        raise ValueError(
            f"image_backbone with spatial_dims {spatial_dims}, in_channels {in_channels} and a stride of {stride}: "
            f"expected 2, 3 and {EFFICIENTNET_STRIDE} (stem_stride * 2 ** (len(channels) - 1))"
        )


def _check_arguments(
    spatial_dims: int,
    channels: Sequence[int],
    stem_stride: int,
    attention_levels: Sequence[bool],
    denoiser_channels: Sequence[int],
    denoiser_attention_levels: Sequence[bool],
    num_head_channels: int,
    latent_shape: Sequence[int] | None,
) -> None:
    if spatial_dims not in (2, 3):
        raise ValueError(f"spatial_dims is {spatial_dims}: expected 2 or 3")
    if stem_stride < 1 or stem_stride & (stem_stride - 1):
        raise ValueError(
            f"stem_stride is {stem_stride}: expected a power of two, 1 for a full-resolution stem"
        )
    if latent_shape is not None and len(latent_shape) != spatial_dims:
        raise ValueError(
            f"latent_shape has {len(latent_shape)} sides: expected {spatial_dims}, one for each axis"
        )
    for name, levels, attends in (
        ("attention_levels", channels, attention_levels),
        ("denoiser_attention_levels", denoiser_channels, denoiser_attention_levels),
    ):
        if len(levels) != len(attends):
            raise ValueError(
                f"{name} has {len(attends)} entries: expected one for each of the {len(levels)} levels"
            )
        uneven = [
            width
            for width, attend in zip(levels, attends, strict=True)
            if attend and width % num_head_channels
        ]
        if uneven:
            raise ValueError(
                f"num_head_channels is {num_head_channels}: expected a divisor of {uneven[0]} channels"
            )
