"""Noise schedules under the paper's names, and reverse steps that go to the true next timestep."""

from __future__ import annotations

import torch
from monai.networks.schedulers import DDIMScheduler, NoiseSchedules

NoiseSchedules.add("linear", "MONAI's linear_beta under the paper's name", NoiseSchedules["linear_beta"])
NoiseSchedules.add("quadratic", "MONAI's scaled_linear_beta: linear in the root", NoiseSchedules["scaled_linear_beta"])

PREDICTION_TYPES = ("epsilon", "sample", "v_prediction")
TIMESTEP_SPACINGS = ("inclusive", "trailing")


class EvenlySpacedScheduler(DDIMScheduler):
    """DDIM (``eta`` 0) to DDPM (``eta`` 1) over any number of evenly spaced timesteps.

    MONAI 1.6 spaces the timesteps from T to 1 but lets each step jump by ``T // num_inference_steps``, which with two
    steps leads from index 999 to 499 although the network is then told 0. Here a step goes to the next timestep of the
    list, and the last one to the clean latent. With ``eta`` 1 a step draws from the posterior
    :math:`q(z_s | z_t, z_0)` (Song et al., 2021, Eq. 12 and 16), which for neighboring timesteps is DDPM's.
    Tested against a closed form with the optimal denoiser of Gaussian data, which MONAI's own class fails.

    Indices run from 0 to T - 1 where the papers' timesteps run from 1 to T. Latents are not clipped.

    Args:
        num_train_timesteps: T.
        schedule: ``cosine`` (the paper), ``linear``, ``quadratic``, or any other of MONAI's ``NoiseSchedules``.
        prediction_type: what the network predicts: ``epsilon`` (the paper), ``sample`` or ``v_prediction``.
        eta: 0 for the deterministic step, 1 for DDPM's, or between.
        timestep_spacing: ``inclusive`` for timesteps from T to 1, both among them (the paper), of which the last has
            hardly any noise to remove; ``trailing`` for T, T - T/K, ..., T/K (Lin et al., 2024, Table 2), so that all
            K steps remove the same share of the timesteps.
        schedule_args: further arguments of the schedule.

    Raises:
        ValueError: for an unknown prediction type or spacing, or an ``eta`` outside 0 to 1.
    """

    def __init__(
        self,
        num_train_timesteps: int = 1000,
        schedule: str = "cosine",
        prediction_type: str = "epsilon",
        eta: float = 0.0,
        timestep_spacing: str = "inclusive",
        **schedule_args,
    ) -> None:
        if prediction_type not in PREDICTION_TYPES:
            raise ValueError(f"prediction_type is {prediction_type!r}: expected one of {', '.join(PREDICTION_TYPES)}")
        if timestep_spacing not in TIMESTEP_SPACINGS:
            raise ValueError(f"timestep_spacing is {timestep_spacing!r}: expected {' or '.join(TIMESTEP_SPACINGS)}")
        if not 0 <= eta <= 1:
            raise ValueError(f"eta is {eta}: expected 0 (DDIM) to 1 (DDPM)")
        self.timestep_spacing: str = str(timestep_spacing)  # MONAI's __init__ sets the timesteps
        super().__init__(
            num_train_timesteps, schedule, clip_sample=False, prediction_type=prediction_type, **schedule_args
        )
        self.prediction_type: str = str(prediction_type)
        self.eta = float(eta)

    def set_timesteps(self, num_inference_steps: int, device: torch.device | None = None) -> None:  # type: ignore[override]
        """Choose the timesteps of the reverse process, 1 to T of them.

        Raises:
            ValueError: if ``num_inference_steps`` is below 1 or above T.
        """
        if num_inference_steps < 1 or num_inference_steps > self.num_train_timesteps:
            raise ValueError(
                f"num_inference_steps is {num_inference_steps}: expected 1 to {self.num_train_timesteps}, "
                "the number of timesteps in training"
            )
        self.num_inference_steps = num_inference_steps
        last = self.num_train_timesteps - 1
        end = 0.0
        if self.timestep_spacing == "trailing":
            end = self.num_train_timesteps / num_inference_steps - 1
        self.timesteps = torch.linspace(last, end, num_inference_steps, device=device).round().long()

    def denoise(self, model_output: torch.Tensor, timesteps: torch.Tensor, sample: torch.Tensor) -> torch.Tensor:
        """Estimate the clean latent from a network output.

        Args:
            model_output: what the network predicts, of the kind ``prediction_type``, ``(B, C_z, *latent)``.
            timesteps: indices of the noisy latent, ``(B,)``.
            sample: the noisy latent.

        Returns:
            The estimate of ``z_0``, ``(B, C_z, *latent)``.
        """
        if self.prediction_type == "sample":
            return model_output
        signal, noise = self._signal_and_noise(timesteps, sample)
        if self.prediction_type == "epsilon":
            return (sample - noise * model_output) / signal
        return signal * sample - noise * model_output

    def step(
        self,
        model_output: torch.Tensor,
        timestep: int,
        sample: torch.Tensor,
        eta: float | None = None,
        generator: torch.Generator | None = None,
        variance_noise: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Go from ``timestep`` to the next one of `set_timesteps`.

        name -> symbol: ``model_output`` -> output at ``z_t``; ``sample`` -> ``z_t``; ``signal``, ``noise`` -> square
        roots of ``abar_t`` and ``1 - abar_t``; ``spread`` -> ``sigma_t``.

        Args:
            model_output: prediction of the network, ``(B, C_z, *latent)``.
            timestep: index of ``sample``, one of ``self.timesteps``.
            sample: the noisy latent.
            eta: overrides the scheduler's own.
            generator: draws the noise of a stochastic step, unless ``variance_noise`` is given.
            variance_noise: standard normal noise for a stochastic step, shaped like ``sample``.

        Returns:
            The latent at the next timestep and the estimate of the clean latent.
        """
        eta_ = self.eta if eta is None else eta
        index = int((self.timesteps == timestep).nonzero()[0])
        timesteps = torch.full([sample.shape[0]], timestep, device=sample.device)
        clean = self.denoise(model_output, timesteps, sample)
        if index + 1 == len(self.timesteps):
            return clean, clean
        signal, noise = self._signal_and_noise(timesteps, sample)
        next_signal, next_noise = self._signal_and_noise(
            torch.zeros_like(timesteps) + self.timesteps[index + 1], sample
        )
        residual = model_output if self.prediction_type == "epsilon" else (sample - signal * clean) / noise
        if eta_ == 0:
            return next_signal * clean + next_noise * residual, clean
        spread = eta_ * next_noise / noise * (1 - (signal / next_signal).square()).sqrt()
        if variance_noise is None:
            variance_noise = torch.randn(sample.shape, generator=generator).to(sample)
        direction = (next_noise.square() - spread.square()).clamp(min=0.0).sqrt()
        return next_signal * clean + direction * residual + spread * variance_noise, clean

    def _signal_and_noise(self, timesteps: torch.Tensor, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        abar = self.alphas_cumprod.to(like.device)[timesteps].reshape([-1] + [1] * (like.ndim - 1))
        return abar.sqrt(), (1 - abar).sqrt()
