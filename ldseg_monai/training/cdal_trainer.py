"""The one trainer that MONAI has no form of: cDAL's."""

from __future__ import annotations

from typing import Any, Literal

import torch
from monai.engines import SupervisedTrainer
from monai.engines.utils import IterationEvents
from monai.utils import AdversarialKeys
from monai.utils.enums import CommonKeys as Keys
from torch import nn
from torch.optim import Optimizer

from ldseg_monai.diffusion.draws import AdversarialDraws, draw_adversarial_step
from ldseg_monai.networks.cdal.discriminator import CDALDiscriminator, SeparateDiscriminators
from ldseg_monai.networks.cdal.network import CDAL
from ldseg_monai.runtime.errors import InputError
from ldseg_monai.runtime.processes import plain, unwrapped
from ldseg_monai.training.losses import gradient_penalty, non_saturating_loss


class CDALTrainer(SupervisedTrainer):
    """Train cDAL's two networks in turn (Hejrati et al., 2024, Algorithm 1).

    The discriminator learns from true and generated pairs, the generator after it.

    The generator learns to restore the true label from a noisy one that the discriminator's
    attention map weighted; the discriminator has no other say in it. Where the paper leaves a
    choice, or this departs from it:

    - Section 2.2 and Algorithm 1 differ in the pairs: see ``pairs``.
    - The discriminator takes one step on the sum of both losses, where the paper takes one for
      each: see ``discriminator_steps``.
    - The attention map is made of the true pair, by the discriminator as this step left it.
    - The gradient penalty is that of the denoising diffusion GAN that the paper builds on (Xiao et
      al., 2022).

    A handler for the generator's optimizer, loss and weights works as with MONAI's
    `SupervisedTrainer`. Further output of each iteration: ``discriminator_loss`` and, in the
    iterations that have it, ``gradient_penalty``.

    Args:
        discriminator: a `CDALDiscriminator` or `SeparateDiscriminators`, plain or wrapped in
            ``DistributedDataParallel``; None to train the generator alone, on labels that no
            attention map weighted (the ablation of Table 1).
        discriminator_optimizer: of its parameters.
        pairs: "posterior", Section 2.2's: ``x_{t-1}`` and its counterfeit are drawn from the
            posterior given ``x_t`` and the true or predicted label; or "same_noise", Algorithm 1's:
            ``q(x_0, t - 1)`` with the noise of ``x_t``, from which the true label follows exactly.
        discriminator_steps: 1, on the sum of the losses of true and generated pairs, or 2, one for
            each (Algorithm 1).
        penalty_weight: weight of the gradient penalty.
        penalty_interval: iterations from one gradient penalty to the next.
        normalize_attention: whether each sample's attention map is scaled to the range 0 to 1 (the
            paper: not).
        rollout_share: share of the samples, of those before the last timestep, whose noisy label is
            made as sampling makes it: by a reverse step from the generator's own estimate, and not
            from the true label (0: the paper). Without it the generator learns to trust a noisy
            label that it will never see so good again (Fu et al., 2023, arXiv 2303.06040).
        kwargs: as of `monai.engines.SupervisedTrainer`: ``network`` is a `CDAL`, plain or wrapped,
            ``loss_function`` is `CDALLoss` or another of predicted and true ``x_0``, and
            ``inferer`` calls both networks, such as `CDALTrainingInferer`, which also does the
            autocast.

    Raises:
        ValueError: for a discriminator without optimizer or the other way round, a weight or
            interval out of range, or an option of MONAI's trainer that this one would ignore.
    """

    def __init__(
        self,
        *,
        discriminator: nn.Module | None = None,
        discriminator_optimizer: Optimizer | None = None,
        pairs: Literal["posterior", "same_noise"] = "posterior",
        discriminator_steps: int = 1,
        penalty_weight: float = 1.0,
        penalty_interval: int = 10,
        normalize_attention: bool = False,
        rollout_share: float = 0.0,
        **kwargs: Any,
    ) -> None:
        if (discriminator is None) != (discriminator_optimizer is None):
            raise InputError(
                "got one of discriminator and discriminator_optimizer: expected both, or none"
            )
        if pairs not in ("posterior", "same_noise"):
            raise InputError(f"pairs is {pairs!r}: expected posterior or same_noise")
        if discriminator_steps not in (1, 2):
            raise InputError(f"discriminator_steps is {discriminator_steps}: expected 1 or 2")
        if penalty_weight < 0:
            raise InputError(f"penalty_weight is {penalty_weight}: expected 0 or more")
        if penalty_interval < 1:
            raise InputError(
                f"penalty_interval is {penalty_interval}: expected 1 or more; penalty_weight 0 "
                "turns it off"
            )
        if not 0 <= rollout_share <= 1:
            raise InputError(f"rollout_share is {rollout_share}: expected 0 to 1")
        if kwargs.get("amp") or kwargs.get("amp_kwargs"):
            raise InputError(
                "amp is the inferer's here: expected CDALTrainingInferer(amp=True) as inferer "
                "instead"
            )
        if kwargs.get("accumulation_steps", 1) != 1:
            raise InputError(
                f"accumulation_steps is {kwargs['accumulation_steps']}: expected 1; raise the "
                "batch size"
            )
        super().__init__(**kwargs)
        self.discriminator = discriminator
        self.discriminator_optimizer = discriminator_optimizer
        self.pairs = pairs
        self.discriminator_steps = discriminator_steps
        self.penalty_weight = penalty_weight
        self.penalty_interval = penalty_interval
        self.normalize_attention = normalize_attention
        self.rollout_share = rollout_share

    def _iteration(self, engine: Any, batchdata: dict[str, torch.Tensor]) -> dict:
        """Take one step of each network on a batch, by the steps of Algorithm 1."""
        image, label = self.prepare_batch(
            batchdata, self.state.device, self.non_blocking, **self.to_kwargs
        )
        image, label = plain(image), plain(label)
        self.state.output = {Keys.IMAGE: image, Keys.LABEL: label}
        network: CDAL = unwrapped(self.network)
        scheduler = network.scheduler
        clean = network.encode_label(label)  # x_0, (B, C, *spatial)
        # 1. Draw a timestep, z and all noise.
        draws = draw_adversarial_step(
            len(clean),
            list(clean.shape[1:]),
            network.latent_size,
            network.num_train_timesteps,
            rollout=self.rollout_share > 0,
        ).to(clean.device)
        timesteps = draws.timesteps
        condition = {"timesteps": timesteps, "latent": draws.latent}

        self.network.train()
        attended = clean
        if self.discriminator is not None:
            # 2. Make the pairs: x_t with x_{t-1} of the true and of the predicted label.
            noisy = scheduler.add_noise(clean, draws.noise, timesteps)
            with torch.no_grad():
                predicted = self.inferer(image, network, noisy_label=noisy, **condition)
            real = self._previous(clean, noisy, draws, draws.noise_of_true)
            fake = self._previous(predicted, noisy, draws, draws.noise_of_predicted)
            # 3. Train the discriminator on them.
            self._train_discriminator(real, fake, noisy, timesteps)
            # 4. Weight the true label by its attention map.
            attended = clean * self._attend(real, noisy, timesteps)
        # 5. Train the generator on x_t of the weighted label.
        noisy = scheduler.add_noise(attended, draws.noise, timesteps)
        if draws.rollout is not None:
            noisy = self._roll_out(noisy, image, clean, draws)
        self._train_generator(image, clean, noisy_label=noisy, **condition)
        self.fire_event(IterationEvents.MODEL_COMPLETED)
        return self.state.output

    def _previous(
        self,
        clean: torch.Tensor,
        noisy: torch.Tensor,
        draws: AdversarialDraws,
        fresh: torch.Tensor,
    ) -> torch.Tensor:
        """x_{t-1} of a true or a predicted label, beside x_t, by the law of ``pairs``."""
        scheduler = unwrapped(self.network).scheduler
        if self.pairs == "posterior":
            return scheduler.sample_previous(clean, noisy, draws.timesteps, fresh)
        previous = scheduler.add_noise(clean, draws.noise, (draws.timesteps - 1).clamp(min=0))
        is_first = (draws.timesteps == 0).reshape([-1] + [1] * (clean.ndim - 1))
        return torch.where(is_first, clean, previous)  # q(x_0, 0) is x_0

    @torch.no_grad()
    def _roll_out(
        self,
        noisy: torch.Tensor,
        image: torch.Tensor,
        clean: torch.Tensor,
        draws: AdversarialDraws,
    ) -> torch.Tensor:
        """Return x_t, a share of it as sampling makes it: from x_{t+1} and the own estimate."""
        network: CDAL = unwrapped(self.network)
        own = draws.rollout
        assert own is not None
        is_early = draws.timesteps < network.num_train_timesteps - 1
        chosen = is_early & (own.chance < self.rollout_share)
        if not chosen.any():
            return noisy
        earlier = draws.timesteps[chosen] + 1
        before = network.scheduler.add_noise(clean[chosen], own.noise[chosen], earlier)
        estimate = self.inferer(
            image[chosen],
            network,
            noisy_label=before,
            timesteps=earlier,
            latent=own.latent[chosen],
        )
        fresh = own.fresh[chosen] if network.stochastic else None
        rolled_out = noisy.clone()
        rolled_out[chosen] = network.scheduler.sample_previous(estimate, before, earlier, fresh)
        return rolled_out

    def _train_discriminator(
        self, real: torch.Tensor, fake: torch.Tensor, noisy: torch.Tensor, timesteps: torch.Tensor
    ) -> None:
        """Take a step on pairs of x_{t-1}, true and generated, and x_t, or a step on each kind."""
        assert self.discriminator is not None
        self.discriminator.train()
        if self.discriminator_steps == 1:
            loss = self._step_discriminator({"real": real, "fake": fake}, noisy, timesteps)
        else:
            loss = self._step_discriminator({"real": real}, noisy, timesteps)
            loss = loss + self._step_discriminator({"fake": fake}, noisy, timesteps)
        self.state.output[AdversarialKeys.DISCRIMINATOR_LOSS] = loss

    def _step_discriminator(
        self, previous: dict[str, torch.Tensor], noisy: torch.Tensor, timesteps: torch.Tensor
    ) -> torch.Tensor:
        """Take one step on kinds of x_{t-1} in one pass, and return the loss before the penalty."""
        assert self.discriminator is not None and self.discriminator_optimizer is not None
        due = self.penalty_weight > 0 and self.state.iteration % self.penalty_interval == 0
        penalized = due and "real" in previous
        self.discriminator_optimizer.zero_grad(set_to_none=self.optim_set_to_none)
        if "real" in previous:
            previous["real"].requires_grad_(penalized)
        kinds = len(previous)
        pairs = (
            torch.cat(list(previous.values())),
            torch.cat([noisy] * kinds),
            torch.cat([timesteps] * kinds),
        )
        if penalized:  # gradients of gradients, in float32
            logits = self.discriminator(*pairs)
        else:
            logits = self.inferer(pairs[0], self.discriminator, *pairs[1:])
        by_kind = dict(zip(previous, logits.chunk(kinds), strict=True))
        loss = non_saturating_loss(by_kind.get("real"), by_kind.get("fake"))
        told = loss.detach()
        if penalized:
            penalty = gradient_penalty(by_kind["real"], previous["real"])
            self.state.output["gradient_penalty"] = penalty.detach()
            loss = loss + self.penalty_weight * penalty
        loss.backward()
        self.discriminator_optimizer.step()
        return told

    @torch.no_grad()
    def _attend(
        self, real: torch.Tensor, noisy: torch.Tensor, timesteps: torch.Tensor
    ) -> torch.Tensor:
        """A_D of Section 2.2, ``(B, 1, *spatial)``."""
        discriminator: CDALDiscriminator | SeparateDiscriminators = unwrapped(self.discriminator)
        attention = discriminator.attention_map(real, noisy, timesteps)
        if not self.normalize_attention:
            return attention
        positions = list(range(1, attention.ndim))
        low, high = attention.amin(positions, keepdim=True), attention.amax(positions, keepdim=True)
        return (attention - low) / (high - low).clamp(min=1e-6)

    def _train_generator(
        self, image: torch.Tensor, clean: torch.Tensor, **condition: torch.Tensor
    ) -> None:
        """Take a step toward the true label, as MONAI's `SupervisedTrainer` does (Eq. 4)."""
        self.optimizer.zero_grad(set_to_none=self.optim_set_to_none)
        self.state.output[Keys.PRED] = self.inferer(image, self.network, **condition)
        self.fire_event(IterationEvents.FORWARD_COMPLETED)
        self.state.output[Keys.LOSS] = self.loss_function(
            self.state.output[Keys.PRED], clean
        ).mean()
        self.fire_event(IterationEvents.LOSS_COMPLETED)
        self.state.output[Keys.LOSS].backward()
        self.fire_event(IterationEvents.BACKWARD_COMPLETED)
        self.optimizer.step()
