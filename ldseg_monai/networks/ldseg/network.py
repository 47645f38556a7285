"""The whole of LDSeg: Figure 1 of the paper as one network."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import nn

from ldseg_monai.diffusion.draws import Draws, draw_training_step
from ldseg_monai.diffusion.noise import Noise, seeded_noise
from ldseg_monai.diffusion.schedulers import EvenlySpacedScheduler
from ldseg_monai.networks.blocks import SampleStandardization, channels_last, check_image, one_hot
from ldseg_monai.networks.segmenter import Callback, DiffusionSegmenter, State
from ldseg_monai.runtime.errors import InputError


class LDSeg(DiffusionSegmenter):
    """Latent diffusion for segmentation (Zaman et al., 2024, Figure 1, Algorithms 1 and 2).

    Its parts are trained together, by one loss. With a label, ``forward`` is a whole training pass
    (so that DistributedDataParallel can wrap it). With an image alone it runs the whole reverse
    process and returns class logits. The encoders' stride must divide every side of the image.

    Each part can be another one. What it has to take and to return:

    - ``image_encoder(image)`` returns ``z_i`` (Eq. 9), ``(B, C_i, *latent)``, and a list of
      features for the decoder, from the largest to the smallest, empty where it has none. It has
      the attributes ``spatial_dims``, ``in_channels`` and ``stride``.
    - ``label_encoder(one_hot)`` returns a latent (Eq. 10), ``(B, C_z, *latent)``, and a list that
      is not used. It has the attribute ``out_channels``, C_z.
    - ``standardization(latent)`` returns ``z_l(0)``.
    - ``denoiser(z_l(t), z_i, timesteps)`` returns a prediction (Eq. 12), ``(B, C_z, *latent)``, of
      the scheduler's kind.
    - ``label_decoder(latent, features)`` returns class logits (Eq. 13). It has the attribute
      ``out_channels``, the classes. ``sees_image`` says whether it uses features; ``together``, how
      many latents of one image it takes at once, beside the features of that image.

    Further attributes that neighbors both have, such as ``latent_channels``, must agree.

    Args:
        label_encoder, standardization, image_encoder, denoiser, label_decoder: the parts.
        scheduler: noise schedule and reverse steps.
        num_inference_steps: steps K of the reverse process (2 in the paper).
        restandardize: whether the latent gets mean 0 and standard deviation 1 again, per sample,
            after each step.
        image_dropout: share of the training samples whose label is decoded without the image's
            features, so that the latent has to carry it; the clean latent always is.
        decode_clean: whether a training pass also decodes the clean latent, for the loss's
            autoencoding term.
        start_at_mean: whether one sample alone starts at the mean of the noise, 0, not at a draw
            (the papers): see `DiffusionSegmenter`.
        seed: seed of the noise when none is passed.

    Raises:
        ValueError: for parts that do not fit together.

    Example:
        >>> from ldseg_monai.networks import LabelDecoder, LatentDenoiser, ResidualEncoder
        >>> network = LDSeg(
        ...     label_encoder=ResidualEncoder(2, in_channels=2, out_channels=1, channels=(8, 16)),
        ...     standardization=SampleStandardization(),
        ...     image_encoder=ResidualEncoder(2, in_channels=3, out_channels=4, channels=(8, 16)),
        ...     denoiser=LatentDenoiser(2, latent_channels=1, embedding_channels=4, channels=(32,)),
        ...     label_decoder=LabelDecoder(2, latent_channels=1, out_channels=2, channels=(8, 16)),
        ...     scheduler=EvenlySpacedScheduler(),
        ... ).eval()
        >>> network(torch.zeros(1, 3, 32, 48)).shape
        torch.Size([1, 2, 32, 48])
    """

    def __init__(
        self,
        label_encoder: nn.Module,
        standardization: nn.Module,
        image_encoder: nn.Module,
        denoiser: nn.Module,
        label_decoder: nn.Module,
        scheduler: EvenlySpacedScheduler,
        num_inference_steps: int = 2,
        restandardize: bool = False,
        image_dropout: float = 0.0,
        decode_clean: bool = False,
        start_at_mean: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        parts: dict[str, Any] = {
            "label_encoder": label_encoder,
            "standardization": standardization,
            "image_encoder": image_encoder,
            "denoiser": denoiser,
            "label_decoder": label_decoder,
        }
        check_neighbors(parts)
        if restandardize and not isinstance(standardization, SampleStandardization):
            raise InputError(
                "restandardize works per sample: expected a SampleStandardization, not "
                f"{type(standardization).__name__}"
            )
        sees_image = bool(getattr(label_decoder, "sees_image", False))
        if not 0 <= image_dropout <= 1:
            raise InputError(f"image_dropout is {image_dropout}: expected 0 to 1")
        if image_dropout and not sees_image:
            raise InputError(
                f"image_dropout is {image_dropout}, but the decoder gets no image features: "
                "expected 0 there"
            )
        self.spatial_dims = int(parts["image_encoder"].spatial_dims)
        self.in_channels = int(parts["image_encoder"].in_channels)
        self.out_channels = int(parts["label_decoder"].out_channels)
        self.latent_channels = int(parts["label_encoder"].out_channels)
        self.stride = int(parts["image_encoder"].stride)
        self.num_train_timesteps = int(scheduler.num_train_timesteps)
        self.num_inference_steps = num_inference_steps
        self.decode_clean = decode_clean
        self.image_dropout = image_dropout
        self.seed = seed
        self.start_at_mean = start_at_mean
        self.decoder_sees_image = sees_image
        self.decoded_together = int(getattr(label_decoder, "together", 1))
        self.decoder_interpolates = float(getattr(label_decoder, "interpolation", 1.0)) > 1

        self.label_encoder = label_encoder
        self.standardization = standardization
        self.image_encoder = image_encoder
        self.denoiser = denoiser
        self.label_decoder = label_decoder
        self.scheduler = scheduler
        self.scheduler.set_timesteps(num_inference_steps)
        self.after_step = SampleStandardization() if restandardize else nn.Identity()
        channels_last(self, self.spatial_dims)

    def forward(
        self,
        image: torch.Tensor,
        label: torch.Tensor | None = None,
        draws: Draws | None = None,
    ):
        """Train on a pair, or segment an image.

        Args:
            image: ``(B, in_channels, *spatial)``.
            label: class indices ``(B, 1, *spatial)`` for a training pass; None to segment.
            draws: with a label, the random numbers of the pass; drawn if None.

        Returns:
            Without a label: class logits ``(B, out_channels, *spatial)``. With one, what
            `LDSegLoss` needs: a dictionary of ``logits``, of ``prediction`` and ``target``
            ``(B, C_z, *latent)`` of the denoiser, and, with ``decode_clean``, of
            ``reconstruction``, the logits decoded from the clean latent.

        Raises:
            ValueError: if the stride does not divide the image, naming the size to pad to.
        """
        if torch.jit.is_scripting() or label is None:
            return self.segment(image)
        return self._training_pass(image, label, draws)

    def segment(
        self,
        image: torch.Tensor,
        noise: torch.Tensor | None = None,
        latents: torch.Tensor | None = None,
        num_samples: int = 1,
        seed: int | None = None,
    ) -> torch.Tensor:
        """Run the whole reverse process (Algorithm 2): see `DiffusionSegmenter.segment`."""
        embedding, features = self.encode_image(image)
        if noise is None:
            seed = self.seed if seed is None else seed
            shape, draws = self.noise_shape(image), self.num_draws()
            noise = seeded_noise(shape, seed, num_samples, draws, self.start_at_mean)
        if num_samples > 1:
            embedding = embedding.repeat_interleave(num_samples, dim=0)
            features = [feature.repeat_interleave(num_samples, dim=0) for feature in features]
            repeats = embedding.shape[0] // noise.shape[1]
            noise = noise.repeat([1, repeats] + [1] * (noise.ndim - 2))
        return self.label_decoder(self.sample_latent(embedding, noise), features)

    def draw(
        self,
        image: torch.Tensor,
        noise: Noise,
        num_inference_steps: int | None = None,
        callback: Callback | None = None,
    ) -> Iterator[torch.Tensor]:
        """Segment images: see `DiffusionSegmenter.draw`.

        All samples are denoised in one batch, since latents are small, and decoded a few at a time,
        without the interpolation at the decoder's end.
        """
        batch_size, num_samples = len(image), noise.field.shape[2]
        embedding, features = self.encode_image(image)
        embedding = embedding.repeat_interleave(num_samples, dim=0)
        field = noise.of_images(batch_size).field.flatten(
            1, 2
        )  # (draws, B * samples, C_z, *latent)
        told = None
        if callback is not None:
            told = partial(self._tell, callback, partial(self._decode, features))
        latents = self.sample_latent(embedding, field, num_inference_steps, told)
        latents = latents.unflatten(0, (batch_size, num_samples))  # (B, samples, C_z, *latent)
        together = self.decoded_together if batch_size == 1 else 1
        for chunk in latents.split(together, dim=1):
            latent = chunk.flatten(0, 1)  # (B * together, C_z, *latent)
            if self.decoder_interpolates:
                logits = self.label_decoder(latent, features, enlarged=False)
            else:
                logits = self.label_decoder(latent, features)
            yield from logits.split(batch_size)

    @torch.jit.unused
    def enlarge(self, maps: torch.Tensor) -> torch.Tensor:
        """Interpolate as the label decoder does: see `DiffusionSegmenter.enlarge`."""
        decoder: Any = self.label_decoder
        return decoder.enlarge(maps) if self.decoder_interpolates else maps

    def encode_image(self, image: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Return ``z_i`` (Eq. 9), ``(B, C_i, *latent)``, and the features for the decoder."""
        check_image(image, self.spatial_dims, self.in_channels)
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
        weight = next(self.parameters())
        classes = one_hot(label, self.out_channels, weight.dtype)  # (B, classes, *spatial)
        return self.standardization(self.label_encoder(classes)[0])

    def sample_latent(
        self,
        embedding: torch.Tensor,
        noise: torch.Tensor,
        num_inference_steps: int | None = None,
        told: Any = None,
    ) -> torch.Tensor:
        """Denoise from T to the clean latent (Algorithm 2).

        Args:
            embedding: ``z_i``, ``(B, C_i, *latent)``.
            noise: ``(draws, 1 or B, C_z, *latent)``; the first draw starts the process, each
                further one belongs to a stochastic step.
            num_inference_steps: steps K; None for the network's own.
            told: called with the paper's t and the latent, before each step and at the end.

        Returns:
            ``z_l(0)``, ``(B, C_z, *latent)``, float32.

        Raises:
            ValueError: if the steps are not 1 to T, or the draws are not one, or one a step if it
                is stochastic.
        """
        batch_size = embedding.shape[0]
        noise = noise.to(embedding.device).expand([-1, batch_size] + [-1] * (embedding.ndim - 1))
        steps = self.num_inference_steps if num_inference_steps is None else num_inference_steps
        if steps != self.scheduler.num_inference_steps:
            self.scheduler.set_timesteps(steps)
        if len(noise) != self.num_draws(steps):
            raise InputError(
                f"noise has {len(noise)} draws: expected {self.num_draws(steps)} for {steps} steps"
            )
        latent = noise[0]  # step 1: z_l(T) is all noise
        for step, timestep in enumerate(self.scheduler.indices):
            if not torch.jit.is_scripting() and told is not None:
                told(timestep + 1, latent)
            now = torch.full([latent.shape[0]], timestep, device=latent.device)
            prediction = self.denoiser(latent, embedding, now).float()  # step 2: Eq. 12
            fresh = noise[step + 1] if step + 1 < len(noise) else None
            latent = self.scheduler.step(prediction, timestep, latent, variance_noise=fresh)[0]
            latent = self.after_step(latent)  # step 3: z_l at the next timestep
        if not torch.jit.is_scripting() and told is not None:
            told(0, latent)
        return latent

    def noise_shape(self, image: torch.Tensor) -> list[int]:
        """``[C_z, *latent]`` for an image ``(B, in_channels, *spatial)``."""
        return [self.latent_channels] + [side // self.stride for side in image.shape[2:]]

    def num_draws(self, num_inference_steps: int | None = None) -> int:
        """How many draws of noise the process takes: one, or one a step if it is stochastic.

        Raises:
            ValueError: if the steps are not 1 to T.
        """
        steps = self.num_inference_steps if num_inference_steps is None else num_inference_steps
        if steps < 1 or steps > self.num_train_timesteps:
            raise InputError(
                f"num_inference_steps is {steps}: expected 1 to {self.num_train_timesteps}, the "
                "number of timesteps in training"
            )
        return 1 if self.scheduler.eta == 0 else steps

    @torch.jit.unused
    def training_draws(self, image: torch.Tensor, pure_noise_share: float = 0.0) -> Draws:
        """Draw the random numbers of a training pass: see `DiffusionSegmenter.training_draws`."""
        return draw_training_step(
            len(image),
            self.noise_shape(image),
            self.num_train_timesteps,
            pure_noise_share,
            chance=self.decoder_sees_image,
        )

    @torch.jit.unused
    def scale_logits(self, temperature: float) -> None:
        """Divide the logits by a temperature, in the decoder's last layer."""
        decoder: Any = self.label_decoder
        decoder.scale_logits(temperature)

    def _training_pass(
        self, image: torch.Tensor, label: torch.Tensor, draws: Draws | None
    ) -> dict[str, torch.Tensor]:
        """Algorithm 1, up to the loss."""
        if label.shape[2:] != image.shape[2:]:
            raise InputError(
                f"label of size {list(label.shape[2:])}: expected the image's "
                f"{list(image.shape[2:])}"
            )
        # 1. Encode the image (Eq. 9) and the label (Eq. 10).
        embedding, features = self.encode_image(image)
        clean = self.encode_label(label)
        # 2. Draw a timestep and noise for each sample.
        if draws is None:
            draws = self.training_draws(image)
        timesteps, noise = draws.timesteps.to(clean.device), draws.noise.to(clean.device)
        # 3. Diffuse the label's latent (Eq. 11).
        noisy = self._noisy(clean, embedding, draws, noise, timesteps)
        # 4. Denoise it beside the image's embedding (Eq. 12).
        prediction = self.denoiser(noisy, embedding, timesteps).float()
        denoised = self.scheduler.decodable(prediction, timesteps, noisy)
        # As constant as Eq. 17's noise: the latent must not shrink toward its prediction.
        target = self.scheduler.target(clean, noise, timesteps).detach()
        # 5. Decode it (Eq. 13); a share of the samples without the image's features.
        if self.training and self.decoder_sees_image:
            shown = (draws.chance >= self.image_dropout).to(image.device)
            shown = shown.reshape([-1] + [1] * (image.ndim - 1))  # (B, 1, ..., 1)
            features = [feature * shown for feature in features]
        logits = self.label_decoder(denoised, features)
        output = {"logits": logits, "prediction": prediction, "target": target}
        if self.decode_clean:
            output["reconstruction"] = self.label_decoder(clean)
        return output

    def _noisy(
        self,
        clean: torch.Tensor,
        embedding: torch.Tensor,
        draws: Draws,
        noise: torch.Tensor,
        timesteps: torch.Tensor,
    ) -> torch.Tensor:
        """Return z_t of the clean latent (Eq. 11), or of the own estimate where that is drawn.

        Raises:
            ValueError: for own estimates of a network that does not predict the clean latent, whose
                target they would change.
        """
        if draws.rollout.any():
            kind = self.scheduler.prediction_type
            if kind != "sample":
                raise InputError(
                    f"rollout_share is not 0, but the network predicts {kind}: expected 0, or "
                    "prediction_type sample"
                )
            last = self.num_train_timesteps - 1
            # z_T is all noise, of whatever latent
            chosen = draws.rollout.to(clean.device) & (timesteps < last)
            if chosen.any():
                now = torch.full_like(timesteps[chosen], last)
                with torch.no_grad():  # the first step of `sample_latent`, from the same noise
                    estimate = self.denoiser(noise[chosen], embedding[chosen], now)
                clean = clean.clone()
                clean[chosen] = estimate.to(clean.dtype)
        return self.scheduler.add_noise(clean, noise, timesteps)

    def _decode(self, features: list[torch.Tensor], latent: torch.Tensor) -> torch.Tensor:
        """Class logits of latents of all samples of the images that the features are of."""
        if features:
            num_samples = len(latent) // len(features[0])
            features = [feature.repeat_interleave(num_samples, dim=0) for feature in features]
        return self.label_decoder(latent, features)

    def _tell(self, callback: Any, decode: Any, timestep: int, latent: torch.Tensor) -> None:
        callback(State(timestep, latent, decode))

    def _check_size(self, image: torch.Tensor) -> None:
        spatial = image.shape[2:]
        padded = [-(-side // self.stride) * self.stride for side in spatial]
        if padded != list(spatial):
            got = "x".join([str(side) for side in spatial])
            fitting = "x".join([str(side) for side in padded])
            raise InputError(
                f"image size {got}: expected multiples of {self.stride}; pad to {fitting}"
            )


# What two parts both say of themselves has to be the same: part, attribute, part, attribute.
NEIGHBORS = (
    ("image_encoder", "spatial_dims", "label_encoder", "spatial_dims"),
    ("image_encoder", "spatial_dims", "denoiser", "spatial_dims"),
    ("image_encoder", "spatial_dims", "label_decoder", "spatial_dims"),
    ("image_encoder", "spatial_dims", "standardization", "spatial_dims"),
    ("image_encoder", "stride", "label_encoder", "stride"),
    ("image_encoder", "stride", "label_decoder", "stride"),
    ("image_encoder", "out_channels", "denoiser", "embedding_channels"),
    ("label_encoder", "out_channels", "standardization", "channels"),
    ("label_encoder", "out_channels", "denoiser", "latent_channels"),
    ("label_encoder", "out_channels", "label_decoder", "latent_channels"),
    ("label_encoder", "in_channels", "label_decoder", "out_channels"),
)


def check_neighbors(parts: dict[str, Any]) -> None:
    """Check that the parts of an LDSeg fit together, as far as they say of what they are made.

    Args:
        parts: by their names as arguments of `LDSeg`.

    Raises:
        ValueError: naming the two parts and what differs.
    """
    for one, attribute, other, other_attribute in NEIGHBORS:
        wanted = getattr(parts[one], attribute, None)
        got = getattr(parts[other], other_attribute, None)
        if got is not None and wanted is not None and got != wanted:
            raise InputError(
                f"{other} has {other_attribute} {got}: expected {wanted}, the {attribute} of "
                f"{one}; change one of them"
            )
    used = list(getattr(parts["label_decoder"], "image_channels", []))
    if not any(used):
        return
    features = list(getattr(parts["image_encoder"], "feature_channels", []))
    for level, channels in enumerate(used):
        if channels and (len(features) != len(used) or features[level] != channels):
            own = f"0 or the image encoder's own, {features}," if features else "0"
            why = "" if features else ", since this image encoder has no features"
            raise InputError(
                f"label_decoder has image_channels {used}: expected {own} for each level{why}"
            )
