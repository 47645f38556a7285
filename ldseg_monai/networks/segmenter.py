"""What the diffusion methods of this package have in common."""

# No `from __future__ import annotations`: TorchScript reads a class's annotations as they are.

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import nn

from ldseg_monai.diffusion.draws import Draws, draw_training_step
from ldseg_monai.diffusion.noise import Noise, seeded_noise
from ldseg_monai.networks.matching import check_weights
from ldseg_monai.runtime.errors import InputError
from ldseg_monai.runtime.processes import unwrapped

LARGEST_SEED = 2**63 - 1  # of PyTorch's generators
ORIENTATIONS = 8  # of a picture: four quarter turns, and their mirror images


class State(NamedTuple):
    """Where a reverse process is, as a ``callback`` is told before each step and at the end.

    Attributes:
        timestep: the paper's t, from T down to 0.
        value: what is diffused, ``(B * samples, C, *latent)``, the samples of an image together.
        decode: makes class logits ``(B * samples, classes, *spatial)`` of such a value.
    """

    timestep: int
    value: torch.Tensor
    decode: Callable[[torch.Tensor], torch.Tensor]


Callback = Callable[[State], None]


class DiffusionSegmenter(nn.Module):
    """A network that segments by a reverse diffusion process: all that a sampler may ask of it.

    An image is encoded once; each segmentation of it starts from noise, which a few steps turn into
    a label. Samplers, exports, calibration, reports and benchmarks ask for nothing but this. A new
    method derives from this class, sets the attributes and defines the methods that raise
    ``NotImplementedError`` here; `ldseg_monai.networks.LDSeg` and `ldseg_monai.networks.CDAL` are
    examples. ``forward(image)`` is one segmentation, by `segment`; what it takes in training is the
    method's own.

    Attributes:
        spatial_dims: 2 or 3.
        in_channels: channels of the image.
        out_channels: classes of the label, background included.
        stride: sides of the image over sides of what is diffused; a method starts with 1.
        num_train_timesteps: T.
        num_inference_steps: steps of the reverse process where nothing else is said.
        latent_size: numbers of the random latent z that each reverse step takes for the whole
            image; 0 for none, which is what a method starts with.
        seed: seed of the noise where none is passed; a method starts with 0.
        start_at_mean: whether one sample alone starts at the mean of the noise, 0, and not at a
            draw; a method starts with a draw. What a network estimates from noise alone depends on
            the image, and beyond that on chance, which the mean leaves out.
    """

    spatial_dims: int
    in_channels: int
    out_channels: int
    stride: int
    num_train_timesteps: int
    num_inference_steps: int
    latent_size: int
    seed: int
    start_at_mean: bool

    def __init__(self) -> None:
        super().__init__()
        self.stride = 1  # not the class's, of which TorchScript takes no attribute
        self.latent_size = 0
        self.seed = 0
        self.start_at_mean = False

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Load weights; those of another network are refused, ``strict`` or not.

        Clients such as MONAI Label load what fits and go on with a line in their log: the rest
        stays random, and so does each segmentation.

        Raises:
            ValueError: if names or shapes differ, as of `check_weights`.
        """
        check_weights(state_dict, self, "the state dict")
        return super().load_state_dict(state_dict, strict, assign)

    def noise_shape(self, image: torch.Tensor) -> list[int]:
        """``[C, *latent]`` of what is diffused for an image ``(B, in_channels, *spatial)``."""
        raise NotImplementedError

    def num_draws(self, num_inference_steps: int | None = None) -> int:
        """How many draws of noise the reverse process takes.

        One where its steps are deterministic, one a step where they draw.

        Raises:
            ValueError: for a number of steps that the network cannot take.
        """
        raise NotImplementedError

    def draw(
        self,
        image: torch.Tensor,
        noise: Noise,
        num_inference_steps: int | None = None,
        callback: Callback | None = None,
    ) -> Iterator[torch.Tensor]:
        """Segment images, each as often as there is noise for; an image is encoded once.

        Args:
            image: ``(B, in_channels, *spatial)``.
            noise: as of `seeded_noise`.
            num_inference_steps: steps of the reverse process; None for the network's own.
            callback: is told each `State` of the process.

        Yields:
            Class logits, one sample after the other: ``(B, out_channels, *spatial)``, or smaller,
            where a network computes them on a coarser grid. What several samples say together is
            computed there, and brought up once by `enlarge`.
        """
        raise NotImplementedError

    @torch.jit.unused
    def enlarge(self, maps: torch.Tensor) -> torch.Tensor:
        """Bring maps on the grid of `draw` to the image's size, ``(B, C, *spatial)``."""
        return maps

    def segment(
        self,
        image: torch.Tensor,
        noise: torch.Tensor | None = None,
        latents: torch.Tensor | None = None,
        num_samples: int = 1,
        seed: int | None = None,
    ) -> torch.Tensor:
        """`draw` in one batch, in a form that TorchScript compiles and ONNX can hold.

        Args:
            image: ``(B, in_channels, *spatial)``.
            noise: ``(draws, num_samples or B * num_samples, C, *latent)``; drawn if None.
            latents: ``(draws, num_samples or B * num_samples, latent_size)``; drawn if None.
            num_samples: segmentations of each image, which is encoded once.
            seed: of what is drawn; None for the network's own.

        Returns:
            Class logits ``(B * num_samples, out_channels, *spatial)``, the samples of an image one
            after the other.
        """
        raise NotImplementedError

    def scale_logits(self, temperature: float) -> None:
        """Divide the logits by a temperature, in the weights.

        Raises:
            ValueError: for a network whose output is no logits of its own.
        """
        raise InputError(
            f"network is a {type(self).__name__}, which has no logits to scale: expected one that "
            "ends in class logits, such as an LDSeg"
        )

    @torch.jit.unused
    def training_draws(self, image: torch.Tensor, pure_noise_share: float = 0.0) -> Draws:
        """Draw the random numbers of a training pass by one loss, as `TrainingInferer` wants them.

        Args:
            image: ``(B, in_channels, *spatial)``.
            pure_noise_share: as of `draw_training_step`.
        """
        shape = self.noise_shape(image)
        return draw_training_step(len(image), shape, self.num_train_timesteps, pure_noise_share)

    @torch.jit.unused
    def seeded_noise(
        self,
        shape: list[int],
        seed: int,
        num_samples: int = 1,
        num_inference_steps: int | None = None,
    ) -> Noise:
        """Draw everything random in some segmentations of an image: see ``start_at_mean``.

        Args:
            shape: ``[C, *latent]``, as of `noise_shape`, or of a larger field of noise.
            seed: any integer; the same one makes the same segmentation.
            num_samples: segmentations.
            num_inference_steps: steps of the reverse process; None for the network's own.

        Returns:
            ``field`` ``(draws, 1, num_samples, C, *latent)`` and ``latents`` ``(draws, 1,
            num_samples, latent_size)``, on the CPU.
        """
        draws, at_mean = self.num_draws(num_inference_steps), self.start_at_mean
        field = seeded_noise(shape, seed, num_samples, draws, at_mean)
        steps = num_inference_steps or self.num_inference_steps
        latents = seeded_latents(self.latent_size, seed, num_samples, steps, at_mean)
        return Noise(field[:, None], latents[:, None])

    @classmethod
    def check_steps(cls, num_inference_steps: int, num_train_timesteps: int) -> None:
        """Check a number of reverse steps before a network is built.

        Raises:
            ValueError: if a network of this kind that was trained with T steps cannot take them.
        """
        if not 1 <= num_inference_steps <= num_train_timesteps:
            raise InputError(
                f"num_inference_steps is {num_inference_steps}: expected 1 to {num_train_timesteps}"
            )


def seeded_latents(
    size: int, seed: int, num_samples: int, num_draws: int, at_mean: bool = False
) -> torch.Tensor:
    """``z`` of each step and sample, ``(num_draws, num_samples, size)``; see `seeded_noise`.

    The seed's complement makes them, so that they are not the numbers that the noise of this seed
    begins with.
    """
    return seeded_noise([size], -1 - seed, num_samples, num_draws, at_mean)


def diffusion_segmenter(network: Any) -> DiffusionSegmenter:
    """The network without its wrapper.

    Raises:
        ValueError: for one that is no `DiffusionSegmenter`, such as a peer whose own inferer was
            left out.
    """
    model = unwrapped(network)
    if not isinstance(model, DiffusionSegmenter):
        raise InputError(
            f"network is a {type(model).__name__}: expected a DiffusionSegmenter, such as LDSeg or "
            "CDAL; a peer's overlay comes after baselines/unet.yaml, which has the inferer of peers"
        )
    return model
