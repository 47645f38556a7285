"""A method of its own, as somebody may add one: this file, and its name in a YAML file."""

from collections.abc import Iterator

import torch
from torch import nn

from ldseg_monai.diffusion import seeded_noise
from ldseg_monai.networks import DiffusionSegmenter, State


class FewSteps(DiffusionSegmenter):
    """Takes noise away from a field of the image's size, the same share in each of some steps.

    Args:
        spatial_dims: 2.
        in_channels: channels of the image.
        out_channels: classes.
        num_inference_steps: steps.
    """

    def __init__(
        self, spatial_dims: int, in_channels: int, out_channels: int, num_inference_steps: int = 2
    ) -> None:
        super().__init__()
        self.spatial_dims = spatial_dims
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.num_train_timesteps = 10
        self.num_inference_steps = num_inference_steps
        self.encode = nn.Conv2d(in_channels, 4, kernel_size=3, padding=1)
        self.noise_of = nn.Conv2d(5, 1, kernel_size=3, padding=1)
        self.to_logits = nn.Conv2d(1, out_channels, kernel_size=1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.segment(image)

    def noise_shape(self, image: torch.Tensor) -> list[int]:
        return [1] + list(image.shape[2:])

    def num_draws(self, num_inference_steps: int | None = None) -> int:
        steps = self.num_inference_steps if num_inference_steps is None else num_inference_steps
        if steps < 1 or steps > self.num_train_timesteps:
            raise ValueError(f"num_inference_steps is {steps}: expected 1 to 10")
        return 1

    def segment(
        self,
        image: torch.Tensor,
        noise: torch.Tensor | None = None,
        latents: torch.Tensor | None = None,
        num_samples: int = 1,
        seed: int | None = None,
    ) -> torch.Tensor:
        if noise is None:
            noise = seeded_noise(
                self.noise_shape(image), self.seed if seed is None else seed, num_samples
            )
        features = self.encode(image).repeat_interleave(num_samples, dim=0)
        field = noise[0].repeat(features.shape[0] // noise.shape[1], 1, 1, 1).to(features.device)
        for _ in range(self.num_inference_steps):
            field = self.step(field, features, self.num_inference_steps)
        return self.to_logits(field)

    def draw(self, image, noise, num_inference_steps=None, callback=None) -> Iterator[torch.Tensor]:
        self.num_draws(num_inference_steps)  # which has an error of another number of steps
        steps = num_inference_steps or self.num_inference_steps
        features = self.encode(image)
        for field in noise.of_images(len(image)).field[0].to(features.device).unbind(1):
            for step in range(steps):
                if callback is not None:
                    callback(State(round(10 * (1 - step / steps)), field, self.to_logits))
                field = self.step(field, features, steps)
            if callback is not None:
                callback(State(0, field, self.to_logits))
            yield self.to_logits(field)

    def step(self, field: torch.Tensor, features: torch.Tensor, steps: int) -> torch.Tensor:
        return field - self.noise_of(torch.cat([field, features], dim=1)).float() / steps
