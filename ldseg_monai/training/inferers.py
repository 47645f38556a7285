"""How a trainer calls LDSeg and cDAL."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from monai.inferers import Inferer

from ldseg_monai.diffusion.draws import draw_share
from ldseg_monai.networks.segmenter import diffusion_segmenter
from ldseg_monai.runtime.errors import InputError
from ldseg_monai.runtime.precision import Amp, autocast
from ldseg_monai.runtime.processes import plain, unwrapped


class TrainingInferer(Inferer):
    """Run one training pass under bfloat16 autocast, on the CPU too, where MONAI's engines do not.

    It draws all random numbers of the pass and hands them to the network.

    Args:
        amp: whether to compute in bfloat16 where autocast deems it safe; "auto" where that is
            faster on the device.
        pure_noise_share: share of the samples that are trained at the last timestep T, where the
            latent is all noise; the others get a uniform one (0 for the paper's Algorithm 1). A
            sampler of few steps spends half of them there, and has nothing but the image to go by.
        rollout_share: share of the samples whose noisy latent is made as sampling makes it, of the
            network's own estimate at T in place of the label's latent (Fu et al., 2023); 0 for the
            paper's Algorithm 1. What is learned is the label's latent all the same, so that further
            steps mend the first one's errors and do not keep them.

    Raises:
        ValueError: if a share is none.
    """

    def __init__(
        self, amp: Amp = "auto", pure_noise_share: float = 0.0, rollout_share: float = 0.0
    ) -> None:
        super().__init__()
        for name, share in (("pure_noise", pure_noise_share), ("rollout", rollout_share)):
            if not 0 <= share <= 1:
                raise InputError(f"{name}_share is {share}: expected 0 to 1")
        self.amp = amp
        self.pure_noise_share = pure_noise_share
        self.rollout_share = rollout_share

    def __call__(
        self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Any:
        """Return what a network makes of images ``(B, C, *spatial)`` and the keyword ``label``.

        Args:
            inputs: the images.
            network: a `DiffusionSegmenter` that trains on its `training_draws`, such as `LDSeg`.
            *args: further arguments of the network.
            **kwargs: further arguments of the network.

        Raises:
            ValueError: for another network.
        """
        model, image = diffusion_segmenter(network), plain(inputs)
        draws = model.training_draws(image, self.pure_noise_share)
        if self.rollout_share:
            draws = draws._replace(rollout=draw_share(len(image), self.rollout_share))
        tensors = {name: plain(value) for name, value in kwargs.items()}
        with autocast(image.device, self.amp):
            return network(image, *map(plain, args), draws=draws, **tensors)


class DistillingInferer(TrainingInferer):
    """A training pass beside a teacher's segmentation of the same images (Hinton et al., 2015).

    The teacher draws one sample with its own number of steps. What it learned goes into a network
    that may be smaller, and several teachers' mean into one network.

    Args:
        teachers: `DiffusionSegmenter` networks with their weights, of as many classes as the one
            that is trained.
        amp: as of `TrainingInferer`.
        pure_noise_share: as of `TrainingInferer`.

    Raises:
        ValueError: for no teacher.
    """

    def __init__(
        self,
        teachers: Sequence[torch.nn.Module],
        amp: Amp = "auto",
        pure_noise_share: float = 0.0,
    ) -> None:
        super().__init__(amp, pure_noise_share)
        if not teachers:
            raise InputError("no teachers: expected at least one network")
        self.teachers = [diffusion_segmenter(teacher).eval() for teacher in teachers]

    def __call__(
        self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> dict[str, torch.Tensor]:
        """Return what `TrainingInferer` does, and as ``teacher`` the mean class probabilities.

        Raises:
            ValueError: for teachers of other classes.
        """
        output = super().__call__(inputs, network, *args, **kwargs)
        image, shape = plain(inputs), output["logits"].shape
        probabilities = torch.zeros(shape, device=image.device)
        with torch.no_grad(), autocast(image.device, self.amp):
            for teacher in self.teachers:
                logits = teacher.to(image.device)(image)
                if logits.shape != shape:
                    raise InputError(
                        f"a teacher has logits of shape {list(logits.shape)}: expected "
                        f"{list(shape)}, those of the network that it teaches"
                    )
                probabilities += logits.float().softmax(dim=1) / len(self.teachers)
        output["teacher"] = probabilities
        return output


class ReconstructingInferer(Inferer):
    """Decode labels from their own latents: the validation of an autoencoder of labels.

    Args:
        amp: as of `TrainingInferer`.
    """

    def __init__(self, amp: Amp = "auto") -> None:
        super().__init__()
        self.amp = amp

    def __call__(
        self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        """Return the logits ``(B, classes, *spatial)`` of the keyword ``label``, in float32."""
        with autocast(inputs.device, self.amp):
            return unwrapped(network).reconstruct(plain(kwargs["label"])).float()


class CDALTrainingInferer(Inferer):
    """Run one pass of cDAL's generator or discriminator under bfloat16 autocast, on the CPU too.

    Args:
        amp: whether to compute in bfloat16 where autocast deems it safe; "auto" where that is
            faster on the device.
    """

    def __init__(self, amp: Amp = "auto") -> None:
        super().__init__()
        self.amp = amp

    def __call__(
        self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        """Return what a `CDAL` or `CDALDiscriminator` does, plain or wrapped, in float32."""
        with autocast(inputs.device, self.amp):
            return network(inputs, *args, **kwargs).float()
