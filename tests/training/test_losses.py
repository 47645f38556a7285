from __future__ import annotations

import numpy as np
import pytest
import torch

from ldseg_monai.training.losses import LDSegLoss, LovaszLoss

SIZES = [(6, 5), (4, 3, 5)]


def outputs(size: tuple[int, ...], seed: int = 0) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """What a training pass of three classes and two latent channels may return, and a label."""
    generator = torch.Generator().manual_seed(seed)
    output = {
        name: torch.randn(2, channels, *size, generator=generator)
        for name, channels in (
            ("logits", 3),
            ("reconstruction", 3),
            ("prediction", 2),
            ("target", 2),
        )
    }
    return output, torch.randint(3, (2, 1, *size), generator=generator)


def perfect(label: torch.Tensor) -> dict[str, torch.Tensor]:
    one_hot = (label == torch.arange(3).reshape([1, 3] + [1] * (label.ndim - 2))).float()
    latent = torch.randn(2, 2, 3, 3)
    return {
        "logits": 50 * one_hot,
        "reconstruction": 50 * one_hot,
        "prediction": latent,
        "target": latent.clone(),
    }


def cross_entropy(logits: torch.Tensor, label: torch.Tensor) -> float:
    """Eq. 14, averaged over the voxels as the expectation of Eq. 16 asks."""
    probability, one_hot = probability_and_one_hot(logits, label)
    return float(-(one_hot * np.log(probability)).sum(axis=1).mean())


def dice(logits: torch.Tensor, label: torch.Tensor) -> float:
    """Eq. 15 with its sums over the voxels, averaged over classes and samples."""
    probability, one_hot = probability_and_one_hot(logits, label)
    voxels = tuple(range(2, logits.ndim))
    both, all_ = (probability * one_hot).sum(voxels), probability.sum(voxels) + one_hot.sum(voxels)
    return float((1 - 2 * both / all_).mean())


def probability_and_one_hot(
    logits: torch.Tensor, label: torch.Tensor
) -> tuple[np.ndarray, np.ndarray]:
    exponential = np.exp(logits.double().numpy())
    one_hot = np.stack([label.numpy()[:, 0] == index for index in range(logits.shape[1])], axis=1)
    return exponential / exponential.sum(axis=1, keepdims=True), one_hot.astype(float)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("gamma", "mse_weight", "reconstruction_weight"), [(2, 1, 0), (0, 0, 0), (0.5, 3, 0.7)]
)
def test_value_is_that_of_the_papers_equations(
    size: tuple[int, ...], gamma: float, mse_weight: float, reconstruction_weight: float
) -> None:
    output, label = outputs(size)
    expected = cross_entropy(output["logits"], label) + gamma * dice(output["logits"], label)
    expected += mse_weight * float(((output["prediction"] - output["target"]) ** 2).mean())
    clean = cross_entropy(output["reconstruction"], label) + gamma * dice(
        output["reconstruction"], label
    )
    expected += reconstruction_weight * clean
    loss = LDSegLoss(gamma, mse_weight, reconstruction_weight)(output, label)
    assert loss.ndim == 0
    assert loss.item() == pytest.approx(expected, rel=1e-4)


def test_defaults_are_the_papers_and_need_no_reconstruction() -> None:
    output, label = outputs((6, 5))
    del output["reconstruction"]
    assert torch.equal(LDSegLoss()(output, label), LDSegLoss(2.0, 1.0, 0.0)(output, label))


@pytest.mark.parametrize("size", SIZES)
def test_perfect_output_costs_nothing_and_every_fault_costs_something(
    size: tuple[int, ...],
) -> None:
    _, label = outputs(size)
    loss = LDSegLoss(reconstruction_weight=1.0)
    assert loss(perfect(label), label).item() == pytest.approx(0, abs=1e-4)
    for name in ("logits", "reconstruction", "prediction"):
        output = perfect(label)
        output[name] = output[name].flip(1)  # another class, another channel
        assert loss(output, label) > 0.1, name


@pytest.mark.parametrize("share", [0.25, 1.0])
def test_a_teacher_is_a_share_of_the_label(share: float) -> None:
    output, label = outputs((6, 5))
    sure = torch.randint(3, label.shape, generator=torch.Generator().manual_seed(1))
    output["teacher"] = (sure == torch.arange(3).reshape(1, 3, 1, 1)).float()
    latents = float(((output["prediction"] - output["target"]) ** 2).mean())
    entropies = [cross_entropy(output["logits"], answer) for answer in (label, sure)]
    cross_entropy_alone = LDSegLoss(gamma=0.0, teacher_share=share)(output, label).item() - latents
    expected = (1 - share) * entropies[0] + share * entropies[1]  # it is linear in the label
    assert cross_entropy_alone == pytest.approx(expected, rel=1e-4)
    whole = LDSegLoss(teacher_share=share)(output, label).item()
    if share == 1:
        expected += 2 * dice(output["logits"], sure)
        assert whole - latents == pytest.approx(expected, rel=1e-4)
    output["teacher"] = output["teacher"].flip(1)
    assert LDSegLoss(teacher_share=share)(output, label).item() != pytest.approx(whole)


def test_boundary_term_is_the_signed_distance_of_what_is_called_foreground() -> None:
    label = torch.zeros(1, 1, 9, 9, dtype=torch.long)
    label[..., 4, 4] = 1  # its own distance is 0, as inner pixels beside the outline have it
    logits = torch.where(label == torch.arange(2).reshape(1, 2, 1, 1), 50.0, 0.0)
    logits[0, :, 4, 7] = torch.tensor([0.0, 50.0])  # 3 pixels beside the label
    logits[0, :, 1, 0] = torch.tensor([50.0, 50.0])  # half of it, 5 pixels away
    latent = torch.zeros(1, 2, 3, 3)
    output = {"logits": logits, "prediction": latent, "target": latent}
    without = LDSegLoss()(output, label).item()
    weighted = LDSegLoss(boundary_weight=0.5)(output, label).item()
    assert weighted - without == pytest.approx(0.5 * (3 + 0.5 * 5) / 81, rel=1e-4)


def test_a_share_of_no_teacher_is_refused() -> None:
    output, label = outputs((6, 5))
    with pytest.raises(ValueError, match="teacher_share is not 0: expected a DistillingInferer"):
        LDSegLoss(teacher_share=0.5)(output, label)
    with pytest.raises(ValueError, match="teacher_share is 1.5: expected 0 to 1"):
        LDSegLoss(teacher_share=1.5)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float32])
def test_type_of_the_label_does_not_matter(dtype: torch.dtype) -> None:
    output, label = outputs((6, 5))
    assert torch.equal(LDSegLoss()(output, label.to(dtype)), LDSegLoss()(output, label))


def test_half_precision_logits_are_scored_in_float32() -> None:
    output, label = outputs((6, 5))
    halved = {
        **output,
        "logits": output["logits"].bfloat16(),
        "reconstruction": output["reconstruction"].bfloat16(),
    }
    loss = LDSegLoss(reconstruction_weight=1.0)
    assert loss(halved, label).dtype == torch.float32
    assert loss(halved, label).item() == pytest.approx(loss(output, label).item(), rel=1e-2)


@pytest.mark.parametrize("reconstruction_weight", [0.0, 0.5])
def test_gradients_reach_every_term_that_counts(reconstruction_weight: float) -> None:
    output, label = outputs((6, 5))
    for tensor in output.values():
        tensor.requires_grad_()
    LDSegLoss(reconstruction_weight=reconstruction_weight)(output, label).backward()
    for name in ("logits", "prediction", "target"):
        assert output[name].grad.isfinite().all() and output[name].grad.abs().max() > 0
    assert (output["reconstruction"].grad is not None) == (reconstruction_weight > 0)
    torch.testing.assert_close(
        output["prediction"].grad,
        2 * (output["prediction"] - output["target"]).detach() / output["target"].numel(),
    )


@pytest.mark.parametrize("size", SIZES)
def test_lovasz_loss_is_the_jaccard_loss_of_the_wrong_voxels_at_any_threshold(
    size: tuple[int, ...],
) -> None:
    """It is the integral over t, 0 to 1, of the Jaccard loss of the voxels with an error over t."""
    output, label = outputs(size)
    label[1][label[1] == 2] = 0  # a class that the second image has not
    probability, one_hot = probability_and_one_hot(output["logits"], label)
    images = []
    for own, true in zip(probability, one_hot, strict=True):
        classes = []
        for mine, mask in zip(own, true > 0, strict=True):
            if not mask.any():
                continue
            errors = np.abs(mask - mine)
            steps = np.unique(np.append(errors, 0))
            total = 0.0
            for low, high in zip(steps, steps[1:], strict=False):
                found = mask ^ (errors > low)
                total += (high - low) * (1 - (found & mask).sum() / (found | mask).sum())
            classes.append(total)
        images.append(np.mean(classes))
    loss = LovaszLoss()(output["logits"].double(), label)
    assert loss.item() == pytest.approx(np.mean(images), abs=1e-9)
    weighted = LDSegLoss(lovasz_weight=0.5)(output, label).item()
    assert weighted == pytest.approx(LDSegLoss()(output, label).item() + loss.item() / 2, rel=1e-5)
    sure = LovaszLoss()(perfect(label)["logits"], label)
    assert sure.item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    "name", ["gamma", "mse_weight", "reconstruction_weight", "boundary_weight", "lovasz_weight"]
)
def test_negative_weights_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is -0.1: expected 0 or more"):
        LDSegLoss(**{name: -0.1})


def test_reconstruction_that_the_network_did_not_make_is_an_error() -> None:
    output = {
        "logits": torch.zeros(1, 2, 4, 4),
        "prediction": torch.zeros(1),
        "target": torch.zeros(1),
    }
    with pytest.raises(ValueError, match="expected a network with decode_clean=True"):
        LDSegLoss(reconstruction_weight=1.0)(output, torch.zeros(1, 1, 4, 4))
