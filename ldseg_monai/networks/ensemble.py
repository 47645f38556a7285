"""Several networks of one kind as one, such as those of a cross-validation's folds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import nn

from ldseg_monai.diffusion.noise import Noise
from ldseg_monai.networks.segmenter import Callback, DiffusionSegmenter, diffusion_segmenter
from ldseg_monai.runtime.errors import InputError


class EnsembleSegmenter(DiffusionSegmenter):
    """Networks of which each draws its share of the samples: sample i is of network i modulo n.

    With as many samples as networks their mean is the ensemble's, and the standard deviation says
    where networks disagree, not the noise alone.

    Args:
        networks: of one kind, which differ in their weights.
    """

    def __init__(self, networks: Sequence[DiffusionSegmenter]) -> None:
        super().__init__()
        first = networks[0]
        self.networks = nn.ModuleList(networks)
        self.spatial_dims = first.spatial_dims
        self.in_channels = first.in_channels
        self.out_channels = first.out_channels
        self.stride = first.stride
        self.num_train_timesteps = first.num_train_timesteps
        self.num_inference_steps = first.num_inference_steps
        self.latent_size = first.latent_size
        self.seed = first.seed

    @property
    def first(self) -> DiffusionSegmenter:
        """The network that a bundle's own weights are loaded into."""
        return diffusion_segmenter(self.networks[0])

    def noise_shape(self, image: torch.Tensor) -> list[int]:
        """``[C, *latent]`` of what is diffused for an image ``(B, in_channels, *spatial)``."""
        return self.first.noise_shape(image)

    def num_draws(self, num_inference_steps: int | None = None) -> int:
        """How many draws of noise the reverse process takes."""
        return self.first.num_draws(num_inference_steps)

    def draw(
        self,
        image: torch.Tensor,
        noise: Noise,
        num_inference_steps: int | None = None,
        callback: Callback | None = None,
    ) -> Iterator[torch.Tensor]:
        """Segment images: see `DiffusionSegmenter.draw`; each network encodes them once.

        Raises:
            ValueError: for fewer samples than networks, some of which would have no say.
        """
        number, samples = len(self.networks), noise.field.shape[2]
        if samples < number:
            raise InputError(
                f"{samples} samples of an ensemble of {number} networks: expected {number} or "
                "more, one of each"
            )
        draws = []
        for index, network in enumerate(self.networks):
            own = noise.of_samples(slice(index, None, number))
            draw = diffusion_segmenter(network).draw
            draws.append(draw(image, own, num_inference_steps, callback))
        for sample in range(samples):
            yield next(draws[sample % number])

    def enlarge(self, maps: torch.Tensor) -> torch.Tensor:
        """Interpolate as each of the networks does: see `DiffusionSegmenter.enlarge`."""
        return self.first.enlarge(maps)
