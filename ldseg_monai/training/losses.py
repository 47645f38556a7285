"""The one loss that trains all four parts of LDSeg, and the losses of cDAL's two networks."""

from __future__ import annotations

import torch
from monai.losses import BoundaryLoss, DiceCELoss
from torch import nn
from torch.nn import functional

from ldseg_monai.networks.blocks import one_hot
from ldseg_monai.networks.cdal.labels import label_logits
from ldseg_monai.runtime.errors import InputError


class LDSegLoss(nn.Module):
    r"""Segmentation loss in the label domain plus denoiser loss in the latent domain.

    :math:`L = L_{CE} + \gamma L_{DSC} + \lambda \lVert prediction - target \rVert^2` (Zaman et al.,
    2024, Eq. 14-18). Beside the paper's terms, the segmentation loss of the label decoded from its
    own clean latent may be added: an autoencoder's loss, which lifts the ceiling that the decoder
    sets and keeps the latent in use.

    The label may be mixed with the class probabilities of a teacher (Hinton et al., 2015, arXiv
    1503.02531), which `DistillingInferer` brings. The boundary loss (Kervadec et al., 2019, arXiv
    1812.07032, Eq. 5) may be added: each foreground class's probability times the signed distance
    to its outline, averaged over the voxels. So may the `LovaszLoss`.

    Args:
        gamma: weight of the Dice loss (2 in the paper).
        mse_weight: lambda, weight of the denoiser loss (1 in the paper).
        reconstruction_weight: weight of the autoencoding term (0 in the paper).
        teacher_share: share of the teacher's probabilities in what the decoded label is compared
            with, 0 to 1 (0 in the paper).
        boundary_weight: weight of the boundary loss, whose distances are in voxels (0 in the
            paper).
        lovasz_weight: weight of the Lovasz loss (0 in the paper).

    Raises:
        ValueError: for a negative weight, or a share that is none.
    """

    def __init__(
        self,
        gamma: float = 2.0,
        mse_weight: float = 1.0,
        reconstruction_weight: float = 0.0,
        teacher_share: float = 0.0,
        boundary_weight: float = 0.0,
        lovasz_weight: float = 0.0,
    ) -> None:
        super().__init__()
        for name, weight in (
            ("gamma", gamma),
            ("mse_weight", mse_weight),
            ("reconstruction_weight", reconstruction_weight),
            ("boundary_weight", boundary_weight),
            ("lovasz_weight", lovasz_weight),
        ):
            if weight < 0:
                raise InputError(f"{name} is {weight}: expected 0 or more")
        if not 0 <= teacher_share <= 1:
            raise InputError(f"teacher_share is {teacher_share}: expected 0 to 1")
        self.segmentation = DiceCELoss(to_onehot_y=True, softmax=True, lambda_dice=gamma)
        self.distillation = DiceCELoss(softmax=True, lambda_dice=gamma)
        self.boundary = BoundaryLoss(include_background=False, to_onehot_y=True, softmax=True)
        self.boundary_weight = boundary_weight
        self.lovasz = LovaszLoss()
        self.lovasz_weight = lovasz_weight
        self.mse_weight = mse_weight
        self.reconstruction_weight = reconstruction_weight
        self.teacher_share = teacher_share

    def forward(self, output: dict[str, torch.Tensor], label: torch.Tensor) -> torch.Tensor:
        """Compute the scalar loss.

        Args:
            output: what a training pass of `LDSeg` returns.
            label: class indices ``(B, 1, *spatial)``.

        Returns:
            A scalar.

        Raises:
            ValueError: if there is a weight for a reconstruction that the network did not make, or
                a share of a teacher that there is not.
        """
        loss = self._segmentation(output, label)
        loss = loss + self.mse_weight * functional.mse_loss(output["prediction"], output["target"])
        if self.boundary_weight:
            loss = loss + self.boundary_weight * self.boundary(output["logits"].float(), label)
        if self.lovasz_weight:
            loss = loss + self.lovasz_weight * self.lovasz(output["logits"].float(), label)
        if self.reconstruction_weight:
            if "reconstruction" not in output:
                raise InputError(
                    "reconstruction_weight is not 0: expected a network with decode_clean=True"
                )
            reconstruction = self.segmentation(output["reconstruction"].float(), label)
            loss = loss + self.reconstruction_weight * reconstruction
        return loss

    def _segmentation(self, output: dict[str, torch.Tensor], label: torch.Tensor) -> torch.Tensor:
        """The loss of the decoded label, to the label and perhaps to what a teacher makes of it."""
        logits = output["logits"].float()
        if not self.teacher_share:
            return self.segmentation(logits, label)
        if "teacher" not in output:
            raise InputError("teacher_share is not 0: expected a DistillingInferer")
        true = one_hot(label, logits.shape[1], logits.dtype)
        return self.distillation(logits, torch.lerp(true, output["teacher"], self.teacher_share))


class LovaszLoss(nn.Module):
    r"""The Lovasz-Softmax loss (Berman et al., 2018, arXiv 1705.08790, Eq. 8-11).

    It is the Jaccard loss 1 - IoU of each class, a function of sets of wrong voxels, extended to
    the errors :math:`m = \lvert y - p \rvert` of its probabilities: :math:`\sum_i m_i g_i` of the
    errors in falling order, where :math:`g_i` is by how much the loss grows as voxel i joins the
    wrong ones. The mean is over the classes that an image's label has, then over the images.
    """

    def forward(self, logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """Compute the scalar loss.

        Args:
            logits: of the classes, ``(B, C, *spatial)``.
            label: class indices ``(B, 1, *spatial)``.
        """
        true = one_hot(label, logits.shape[1], logits.dtype).flatten(2)
        errors, order = (true - logits.softmax(1).flatten(2)).abs().sort(-1, descending=True)
        true = true.gather(-1, order)
        count = true.sum(-1, keepdim=True)
        both, either = count - true.cumsum(-1), count + (1 - true).cumsum(-1)
        growth = (1 - both / either).diff(dim=-1, prepend=torch.zeros_like(count))
        losses, present = (errors * growth).sum(-1), count[..., 0] > 0
        return ((losses * present).sum(1) / present.sum(1)).mean()


class LSegDiffLoss(nn.Module):
    r"""The losses of `LSegDiff`'s two stages.

    Stage 1: :math:`L_{CE} + \gamma L_{DSC} + w D_{KL}`, of the label decoded from a draw of its
    latent's distribution, and of that distribution from the standard normal one. Stage 2:
    :math:`\lVert prediction - target \rVert^2`, averaged.

    Args:
        gamma: weight of the Dice loss, as in `LDSegLoss`.
        divergence_weight: w, of the divergence's mean over the latent's numbers. The default is
            this project's, since LDSeg's paper gives none.

    Raises:
        ValueError: for a negative weight.
    """

    def __init__(self, gamma: float = 2.0, divergence_weight: float = 0.001) -> None:
        super().__init__()
        for name, weight in (("gamma", gamma), ("divergence_weight", divergence_weight)):
            if weight < 0:
                raise InputError(f"{name} is {weight}: expected 0 or more")
        self.segmentation = DiceCELoss(to_onehot_y=True, softmax=True, lambda_dice=gamma)
        self.divergence_weight = divergence_weight

    def forward(self, output: dict[str, torch.Tensor], label: torch.Tensor) -> torch.Tensor:
        """Compute the scalar loss.

        Args:
            output: what a training pass of `LSegDiff` returns.
            label: class indices ``(B, 1, *spatial)``.
        """
        if "prediction" in output:
            return functional.mse_loss(output["prediction"], output["target"])
        loss = self.segmentation(output["logits"].float(), label)
        return loss + self.divergence_weight * output["divergence"]


class SDSegLoss(nn.Module):
    r"""The loss of one-step latent estimation (Lin et al., 2024, SDSeg, arXiv 2406.18361).

    It is :math:`\lvert n - \tilde n \rvert + \lambda \lvert z_0 - \tilde z_0 \rvert`, absolute
    errors averaged over the latent's numbers. :math:`\tilde z_0` is the clean latent that the
    predicted noise stands for. Its error weighs the first timesteps of the reverse process most,
    where a single step starts.

    Args:
        latent_weight: lambda (1 in the paper).

    Raises:
        ValueError: for a negative weight.
    """

    def __init__(self, latent_weight: float = 1.0) -> None:
        super().__init__()
        if latent_weight < 0:
            raise InputError(f"latent_weight is {latent_weight}: expected 0 or more")
        self.latent_weight = latent_weight

    def forward(self, output: dict[str, torch.Tensor], label: torch.Tensor) -> torch.Tensor:
        """Compute the scalar loss.

        Args:
            output: what a training pass of `LSegDiff` returns in stage 2.
            label: unused; a trainer gives it.

        Raises:
            ValueError: if the output is another one's.
        """
        if "estimate" not in output:
            raise InputError(
                f"the network returned {', '.join(sorted(output))}: expected an LSegDiff of stage 2"
            )
        noise = functional.l1_loss(output["prediction"], output["target"])
        return noise + self.latent_weight * functional.l1_loss(output["estimate"], output["clean"])


class CDALLoss(nn.Module):
    r"""Loss of cDAL's generator (Hejrati et al., 2024, Eq. 4).

    It is :math:`\lVert x_0 - \hat x_0 \rVert^2`. The squares are averaged over channels and voxels.
    Beside the paper's term, Dice and cross-entropy of the class probabilities that the prediction
    stands for may be added, as `label_logits` has them.

    Args:
        segmentation_weight: weight of Dice plus cross-entropy (0 in the paper).

    Raises:
        ValueError: for a negative weight.
    """

    def __init__(self, segmentation_weight: float = 0.0) -> None:
        super().__init__()
        if segmentation_weight < 0:
            raise InputError(f"segmentation_weight is {segmentation_weight}: expected 0 or more")
        self.segmentation = DiceCELoss(softmax=True)
        self.segmentation_weight = segmentation_weight

    def forward(self, prediction: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
        """Compute the scalar loss.

        Args:
            prediction: the generator's estimate of ``x_0``, ``(B, classes, *spatial)``.
            clean: ``x_0``, of the same shape.

        Returns:
            A scalar.
        """
        loss = functional.mse_loss(prediction.float(), clean)
        if self.segmentation_weight:
            segmentation = self.segmentation(label_logits(prediction.float()), (clean + 1) / 2)
            loss = loss + self.segmentation_weight * segmentation
        return loss


def non_saturating_loss(
    real_logits: torch.Tensor | None, fake_logits: torch.Tensor | None
) -> torch.Tensor:
    """Cross-entropy of a discriminator (Goodfellow et al., 2014; Hejrati et al., Section 2.2).

    Args:
        real_logits: of true pairs, ``(B, 1)``; None for none.
        fake_logits: of generated ones, ``(B, 1)``; None for none.

    Returns:
        A scalar: the mean of each kind's, added.
    """
    loss = torch.zeros(())
    if real_logits is not None:
        loss = loss + functional.softplus(-real_logits).mean()
    if fake_logits is not None:
        loss = loss + functional.softplus(fake_logits).mean()
    return loss


def gradient_penalty(real_logits: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    r"""R1, a penalty of a discriminator's gradients at true labels (Mescheder et al., 2018).

    It is :math:`\frac{1}{2} E \lVert \nabla D(x) \rVert^2`.

    Args:
        real_logits: of true labels, ``(B, 1)``.
        real: these labels, ``(B, C, *spatial)``, requiring gradients.

    Returns:
        A scalar: the mean over the batch of half the squared norm, whose own gradients reach the
            discriminator.
    """
    (gradient,) = torch.autograd.grad(real_logits.sum(), real, create_graph=True)
    return gradient.square().flatten(1).sum(dim=1).mean() / 2
