"""The one loss that trains all four parts of LDSeg."""

from __future__ import annotations

import torch
from monai.losses import DiceCELoss
from torch import nn
from torch.nn import functional


class LDSegLoss(nn.Module):
    r"""Segmentation loss in the label domain plus denoiser loss in the latent domain.

    :math:`L = L_{CE} + \gamma L_{DSC} + \lambda \lVert prediction - target \rVert^2` (Zaman et al., 2024, Eq. 14-18).
    Beside the paper's terms, the segmentation loss of the label decoded from its own clean latent may be added: an
    autoencoder's loss, which lifts the ceiling that the decoder sets and keeps the latent in use.

    Args:
        gamma: weight of the Dice loss (2 in the paper).
        mse_weight: lambda, weight of the denoiser loss (1 in the paper).
        reconstruction_weight: weight of the autoencoding term (0 in the paper).

    Raises:
        ValueError: for a negative weight.
    """

    def __init__(self, gamma: float = 2.0, mse_weight: float = 1.0, reconstruction_weight: float = 0.0) -> None:
        super().__init__()
        for name, weight in (
            ("gamma", gamma),
            ("mse_weight", mse_weight),
            ("reconstruction_weight", reconstruction_weight),
        ):
            if weight < 0:
                raise ValueError(f"{name} is {weight}: expected 0 or more")
        self.segmentation = DiceCELoss(to_onehot_y=True, softmax=True, lambda_dice=gamma)
        self.mse_weight = mse_weight
        self.reconstruction_weight = reconstruction_weight

    def forward(self, output: dict[str, torch.Tensor], label: torch.Tensor) -> torch.Tensor:
        """Compute the scalar loss.

        Args:
            output: what a training pass of `LDSeg` returns.
            label: class indices ``(B, 1, *spatial)``.

        Returns:
            A scalar.

        Raises:
            ValueError: if there is a weight for a reconstruction that the network did not make.
        """
        loss = self.segmentation(output["logits"].float(), label)
        loss = loss + self.mse_weight * functional.mse_loss(output["prediction"], output["target"])
        if self.reconstruction_weight:
            if "reconstruction" not in output:
                raise ValueError("reconstruction_weight is not 0: expected a network with decode_clean=True")
            reconstruction = self.segmentation(output["reconstruction"].float(), label)
            loss = loss + self.reconstruction_weight * reconstruction
        return loss
