"""Noise schedules under the papers' names, reverse steps to the next timestep, the posterior."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from monai.networks.schedulers import DDIMScheduler, DDPMScheduler, NoiseSchedules

from ldseg_monai.runtime.errors import ArgumentError, InputError
from ldseg_monai.runtime.nearest import did_you_mean

NoiseSchedules.add(
    "linear", "MONAI's linear_beta under the paper's name", NoiseSchedules["linear_beta"]
)
NoiseSchedules.add(
    "quadratic",
    "MONAI's scaled_linear_beta: linear in the root",
    NoiseSchedules["scaled_linear_beta"],
)

PREDICTION_TYPES = ("epsilon", "sample", "v_prediction", "flow")
TIMESTEP_SPACINGS = ("inclusive", "trailing")


def _check_schedule(schedule: str, arguments: Mapping[str, Any]) -> None:
    """Check that MONAI has a schedule, and that it takes some arguments.

    Raises:
        InputError: for no schedule, with the nearest name.
        ArgumentError: for an argument that it does not take, with the nearest of its own.
    """
    if schedule not in NoiseSchedules:
        raise InputError(
            f"schedule is {schedule!r}: expected one of {', '.join(NoiseSchedules.names)}"
            f"{did_you_mean(str(schedule), NoiseSchedules.names)}"
        )
    taken = [*inspect.signature(NoiseSchedules[schedule]).parameters]
    for name in arguments:
        if name not in taken:
            own = inspect.signature(EvenlySpacedScheduler).parameters
            raise ArgumentError(
                f"there is no argument {name} of the scheduler, nor of its schedule {schedule}, "
                f"which takes {', '.join(taken)}{did_you_mean(name, [*own, *taken])}"
            )


class EvenlySpacedScheduler(DDIMScheduler):
    """DDIM (``eta`` 0) to DDPM (``eta`` 1) over any number of evenly spaced timesteps.

    MONAI 1.6 spaces the timesteps from T to 1 but lets each step jump by ``T //
    num_inference_steps``, which with two steps leads from index 999 to 499 although the network is
    then told 0. Here a step goes to the next timestep of the list, and the last one to the clean
    latent. With ``eta`` 1 a step draws from the posterior :math:`q(z_s | z_t, z_0)` (Song et al.,
    2021, Eq. 12 and 16), which for neighboring timesteps is DDPM's. Tested against a closed form
    with the optimal denoiser of Gaussian data, which MONAI's own class fails.

    Indices run from 0 to T - 1 where the papers' timesteps run from 1 to T. Latents are not
    clipped.

    Args:
        num_train_timesteps: T.
        schedule: ``cosine`` (the paper), ``linear``, ``quadratic``, ``rectified_flow``,
            ``variance_exploding``, or any other of MONAI's ``NoiseSchedules``.
        prediction_type: what the network predicts: ``epsilon`` (the paper), ``sample``,
            ``v_prediction``, or ``flow``, the noise less the clean latent, which is the velocity of
            a rectified flow (Liu et al., 2023, arXiv 2209.03003, Eq. 1).
        eta: 0 for the deterministic step, 1 for DDPM's, or between.
        timestep_spacing: ``inclusive`` for timesteps from T to 1, both among them (the paper), of
            which the last has hardly any noise to remove; ``trailing`` for T, T - T/K, ..., T/K
            (Lin et al., 2024, Table 2), so that all K steps remove the same share of the timesteps.
        last_timestep: share of T at which the last step begins, which leads to the clean latent;
            None for that of the spacing. A network that was trained on true latents trusts a nearly
            clean one, and so keeps the errors of its own first estimate.
        schedule_args: further arguments of the schedule.

    Raises:
        ValueError: for an unknown schedule, prediction type or spacing, an ``eta`` or
            ``last_timestep`` outside 0 to 1, or ``epsilon`` where the schedule leaves nothing of
            the latent at T.
        TypeError: for an argument that the schedule does not take.
    """

    def __init__(
        self,
        num_train_timesteps: int = 1000,
        schedule: str = "cosine",
        prediction_type: str = "epsilon",
        eta: float = 0.0,
        timestep_spacing: str = "inclusive",
        last_timestep: float | None = None,
        **schedule_args,
    ) -> None:
        if prediction_type not in PREDICTION_TYPES:
            raise InputError(
                f"prediction_type is {prediction_type!r}: expected one of "
                f"{', '.join(PREDICTION_TYPES)}"
            )
        if timestep_spacing not in TIMESTEP_SPACINGS:
            raise InputError(
                f"timestep_spacing is {timestep_spacing!r}: expected "
                f"{' or '.join(TIMESTEP_SPACINGS)}"
            )
        if not (isinstance(eta, (int, float)) and 0 <= eta <= 1):
            raise InputError(f"eta is {eta!r}: expected 0 (DDIM) to 1 (DDPM)")
        is_share = isinstance(last_timestep, (int, float)) and 0 < last_timestep < 1
        if last_timestep is not None and not is_share:
            raise InputError(
                f"last_timestep is {last_timestep!r}: expected a share of T, above 0 and below 1, "
                "or null for that of the spacing"
            )
        _check_schedule(schedule, schedule_args)
        self.timestep_spacing: str = str(timestep_spacing)  # MONAI's __init__ sets the timesteps
        # The timesteps as plain numbers, which an export to ONNX takes as constants.
        self.indices: list[int] = []
        self.last_timestep: float = 0.0  # MONAI's __init__ sets all timesteps
        super().__init__(
            num_train_timesteps,
            schedule,
            clip_sample=False,
            prediction_type="sample",  # MONAI does not know flow; what asks for it is below
            **schedule_args,
        )
        if prediction_type == "epsilon" and float(self.alphas_cumprod[-1]) == 0:
            raise InputError(
                f"prediction_type is 'epsilon' with the schedule {schedule}, which is all noise at "
                "T: expected flow, sample or v_prediction"
            )
        self.prediction_type: str = str(prediction_type)
        self.eta = float(eta)
        if last_timestep is not None:
            self.last_timestep = float(last_timestep)

    def set_timesteps(  # type: ignore[override]
        self, num_inference_steps: int, device: torch.device | None = None
    ) -> None:
        """Choose the timesteps of the reverse process, 1 to T of them.

        Raises:
            ValueError: if ``num_inference_steps`` is below 1 or above T.
        """
        most = self.num_train_timesteps
        if self.last_timestep > 0:
            most = int((1 - self.last_timestep) * most + 0.5) + 1
        if num_inference_steps < 1 or num_inference_steps > most:
            raise InputError(
                f"num_inference_steps is {num_inference_steps}: expected 1 to {most}, the number "
                "of timesteps in training down to the last"
            )
        self.num_inference_steps = num_inference_steps
        last = self.num_train_timesteps - 1
        end = 0.0
        if self.timestep_spacing == "trailing":
            end = self.num_train_timesteps / num_inference_steps - 1
        if self.last_timestep > 0:
            end = self.last_timestep * self.num_train_timesteps - 1
        self.timesteps = (
            torch.linspace(last, end, num_inference_steps, device=device).round().long()
        )
        indices: list[int] = self.timesteps.tolist()
        self.indices = indices

    def denoise(
        self, model_output: torch.Tensor, timesteps: torch.Tensor, sample: torch.Tensor
    ) -> torch.Tensor:
        """Estimate the clean latent from a network output.

        Args:
            model_output: what the network predicts, of the kind ``prediction_type``, ``(B, C_z,
                *latent)``.
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
        if self.prediction_type == "flow":
            return (sample - noise * model_output) / (signal + noise)
        return signal * sample - noise * model_output

    def target(
        self, clean: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor
    ) -> torch.Tensor:
        """What a network learns to predict, of the kind ``prediction_type``.

        Args:
            clean: ``z_0``, ``(B, C_z, *latent)``.
            noise: that ``z_t`` was made with, of the same shape.
            timesteps: indices of ``z_t``, ``(B,)``.

        Returns:
            The noise, the clean latent, the velocity or the flow, of the same shape.
        """
        if self.prediction_type == "epsilon":
            return noise
        if self.prediction_type == "sample":
            return clean
        if self.prediction_type == "flow":
            return noise - clean
        return self.get_velocity(clean, noise, timesteps)

    def decodable(
        self, model_output: torch.Tensor, timesteps: torch.Tensor, sample: torch.Tensor
    ) -> torch.Tensor:
        """What the decoder gets in a training step.

        Of a network that predicts noise, that is ``z_t - eps_hat`` (Zaman et al., 2024, Eq. 12),
        and not the estimate of the clean latent, which is ill-conditioned near T.

        Args:
            model_output: as of `denoise`.
            timesteps: as of `denoise`.
            sample: as of `denoise`.
        """
        if self.prediction_type == "epsilon":
            return sample - model_output
        return self.denoise(model_output, timesteps, sample)

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

        name -> symbol: ``model_output`` -> output at ``z_t``; ``sample`` -> ``z_t``; ``signal``,
        ``noise`` -> square roots of ``abar_t`` and ``1 - abar_t``; ``spread`` -> ``sigma_t``.

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
        index = self.indices.index(timestep)
        timesteps = torch.full([sample.shape[0]], timestep, device=sample.device)
        clean = self.denoise(model_output, timesteps, sample)
        if index + 1 == len(self.indices):
            return clean, clean
        signal, noise = self._signal_and_noise(timesteps, sample)
        next_signal, next_noise = self._signal_and_noise(
            torch.full_like(timesteps, self.indices[index + 1]), sample
        )
        residual = model_output
        if self.prediction_type != "epsilon":
            residual = (sample - signal * clean) / noise
        if eta_ == 0:
            return next_signal * clean + next_noise * residual, clean
        spread = eta_ * next_noise / noise * (1 - (signal / next_signal).square()).sqrt()
        if variance_noise is None:
            variance_noise = torch.randn(sample.shape, generator=generator).to(sample)
        direction = (next_noise.square() - spread.square()).clamp(min=0.0).sqrt()
        return next_signal * clean + direction * residual + spread * variance_noise, clean

    def _signal_and_noise(
        self, timesteps: torch.Tensor, like: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        abar = self.alphas_cumprod.to(like.device)[timesteps].reshape([-1] + [1] * (like.ndim - 1))
        return abar.sqrt(), (1 - abar).sqrt()


@NoiseSchedules.add_def(
    "variance_preserving", "Betas of a variance-preserving process at T even steps"
)
def variance_preserving(
    num_train_timesteps: int, beta_min: float = 0.1, beta_max: float = 20.0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    r"""Few large steps of a process whose noise rate grows linearly.

    That is Algorithm 1 of Hejrati et al. (2024):
    :math:`\beta_t = 1 - \exp(-\beta_{min} / T - (\beta_{max} - \beta_{min}) (2t - 1) / (2 T^2))`,
    so that :math:`\bar\alpha_T` is the same for every T.

    Args:
        num_train_timesteps: T.
        beta_min: noise rate at the start.
        beta_max: noise rate at the end.

    Returns:
        The betas, alphas and products of alphas, each ``(T,)``.

    Raises:
        ValueError: for noise rates that are not positive or fall.
    """
    if not 0 < beta_min <= beta_max:
        raise InputError(
            f"beta_min is {beta_min} and beta_max {beta_max}: expected 0 < beta_min <= beta_max"
        )
    t = torch.arange(1, num_train_timesteps + 1, dtype=torch.float64)
    log_alphas = -beta_min / num_train_timesteps - (beta_max - beta_min) * (2 * t - 1) / (
        2 * num_train_timesteps**2
    )
    return -log_alphas.expm1().float(), log_alphas.exp().float(), log_alphas.cumsum(0).exp().float()


@NoiseSchedules.add_def("rectified_flow", "The straight path from data to noise, of variance 1")
def rectified_flow(num_train_timesteps: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    r"""Noise levels of the straight path of a rectified flow (Liu et al., 2023, arXiv 2209.03003).

    Its point :math:`(1 - t) x_0 + t \epsilon`, for t from 1/T to 1 in even steps, is divided by
    :math:`\sqrt{(1 - t)^2 + t^2}`. So :math:`\bar\alpha_t = (1 - t)^2 / ((1 - t)^2 + t^2)`, and
    DDIM's steps between trailing timesteps are Euler's along the path, exactly.

    Args:
        num_train_timesteps: T.

    Returns:
        The betas, alphas and products of alphas, each ``(T,)``; the last product is 0.
    """
    t = torch.arange(1, num_train_timesteps + 1, dtype=torch.float64) / num_train_timesteps
    abar = (1 - t).square() / ((1 - t).square() + t.square())
    alphas = abar / torch.cat([torch.ones(1, dtype=torch.float64), abar[:-1]])
    return (1 - alphas).float(), alphas.float(), abar.float()


@NoiseSchedules.add_def("variance_exploding", "Noise of growing SD on data that stay as they are")
def variance_exploding(
    num_train_timesteps: int, sigma_min: float = 0.001, sigma_max: float = 5.0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    r"""Noise levels of a process that adds noise and keeps the data (Song et al., 2021, Eq. 9).

    Its :math:`x_0 + \sigma_t \epsilon` (arXiv 2011.13456), with :math:`\sigma_t` from ``sigma_min``
    to ``sigma_max`` in even ratios, is divided by :math:`\sqrt{1 + \sigma_t^2}`. So
    :math:`\bar\alpha_t = 1 / (1 + \sigma_t^2)`, and steps with ``eta`` 1 over all timesteps are the
    ancestral ones of its Appendix F, exactly. The defaults are those of SDF-DDPM's program
    (Bogensperger et al., 2023), whose corrector steps there are none of.

    Args:
        num_train_timesteps: T.
        sigma_min: SD of the noise at the first timestep.
        sigma_max: at the last.

    Returns:
        The betas, alphas and products of alphas, each ``(T,)``.

    Raises:
        ValueError: for SDs that are not positive or fall.
    """
    if not 0 < sigma_min <= sigma_max:
        raise InputError(
            f"sigma_min is {sigma_min} and sigma_max {sigma_max}: expected 0 < sigma_min <= "
            "sigma_max"
        )
    share = torch.linspace(0, 1, num_train_timesteps, dtype=torch.float64)
    sigma = sigma_min * (sigma_max / sigma_min) ** share
    abar = 1 / (1 + sigma.square())
    alphas = abar / torch.cat([torch.ones(1, dtype=torch.float64), abar[:-1]])
    return (1 - alphas).float(), alphas.float(), abar.float()


class PosteriorScheduler(DDPMScheduler):
    """DDPM for a network that predicts the clean label, with the posterior that training needs too.

    MONAI's own step takes one timestep for a whole batch and draws its noise itself. Training wants
    a timestep for each sample, and sampling a step without noise, or with noise that depends on the
    sample's number alone.

    Indices run from 0 to T - 1 where the paper's timesteps run from 1 to T. Labels are not clipped.

    Args:
        num_train_timesteps: T.
        schedule: ``variance_preserving`` (the paper) or any other of MONAI's ``NoiseSchedules``.
        schedule_args: further arguments of the schedule.

    Raises:
        ValueError: for fewer than one timestep.
    """

    def __init__(
        self, num_train_timesteps: int = 4, schedule: str = "variance_preserving", **schedule_args
    ) -> None:
        if num_train_timesteps < 1:
            raise InputError(f"num_train_timesteps is {num_train_timesteps}: expected 1 or more")
        super().__init__(
            num_train_timesteps,
            schedule,
            clip_sample=False,
            prediction_type="sample",
            **schedule_args,
        )

    def posterior(
        self, clean: torch.Tensor, noisy: torch.Tensor, timesteps: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        r"""Mean and variance of :math:`q(x_{t-1} | x_t, x_0)` (Ho et al., 2020, Eq. 7).

        name -> symbol: ``abar`` -> :math:`\bar\alpha_t`; ``abar_before`` ->
        :math:`\bar\alpha_{t-1}`, 1 for t = 1.

        Args:
            clean: :math:`x_0`, ``(B, C, *spatial)``.
            noisy: :math:`x_t`, of the same shape.
            timesteps: index of ``noisy`` for each sample, ``(B,)``.

        Hejrati et al. print the coefficient of :math:`x_0` in Algorithm 2 of their supplement with
        :math:`\sqrt{\bar\alpha_{t-1} \beta_t}`. That is a slip: at t = 1 it comes to 1.04 for T = 2
        and to 1.45 for T = 4, where it must be 1. Here it is Ho et al.'s,
        :math:`\sqrt{\bar\alpha_{t-1}} \beta_t`.

        Returns:
            The mean, ``(B, C, *spatial)``, and the variance, ``(B, 1, ..., 1)``, which is 0 for
            index 0.
        """
        shape = [-1] + [1] * (noisy.ndim - 1)
        alpha = self.alphas.to(noisy.device)[timesteps].reshape(shape)
        abar = self.alphas_cumprod.to(noisy.device)[timesteps].reshape(shape)
        abar_before = self.alphas_cumprod.to(noisy.device)[(timesteps - 1).clamp(min=0)].reshape(
            shape
        )
        abar_before = torch.where(
            timesteps.reshape(shape) > 0, abar_before, torch.ones_like(abar_before)
        )
        of_clean = abar_before.sqrt() * (1 - alpha) / (1 - abar)
        of_noisy = alpha.sqrt() * (1 - abar_before) / (1 - abar)
        return of_clean * clean + of_noisy * noisy, (1 - abar_before) / (1 - abar) * (1 - alpha)

    def sample_previous(
        self,
        clean: torch.Tensor,
        noisy: torch.Tensor,
        timesteps: torch.Tensor,
        noise: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Take one reverse step.

        Args:
            clean: the true label or its estimate, ``(B, C, *spatial)``.
            noisy: the label at ``timesteps``, of the same shape.
            timesteps: ``(B,)``.
            noise: standard normal numbers of the same shape; None for the mean of the posterior.

        Returns:
            A sample of :math:`x_{t-1}`, or its mean, ``(B, C, *spatial)``; for index 0 the clean
            label itself.
        """
        mean, variance = self.posterior(clean, noisy, timesteps)
        return mean if noise is None else mean + variance.sqrt() * noise
