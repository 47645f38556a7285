from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from monai.inferers import Inferer
from scipy.stats import spearmanr
from small_networks import small_ldseg
from torch import nn

from benchmarks.accuracy.quality import (
    Calibration,
    average,
    cell,
    expected_dice,
    foreground_dice,
    ldseg_scores,
    peer_scores,
    with_noise,
)
from ldseg_monai.diffusion.noise import seeded_noise
from ldseg_monai.inference.samplers import SamplingInferer
from ldseg_monai.networks.ldseg.network import LDSeg

CLASSES, STRIDE, GRID = 3, 4, (4, 6)
LOUD = 20.0  # a latent so far above the noise of T/2 that it is heard there
STEPS = ("K = 1", "K = 2", "K = 10")


def hand_dice(prediction: np.ndarray, label: np.ndarray) -> float:
    """Mean Dice of the classes 1 and up that the label has."""
    scores = [
        2
        * np.sum((prediction == c) & (label == c))
        / (np.sum(prediction == c) + np.sum(label == c))
        for c in range(1, CLASSES)
        if np.any(label == c)
    ]
    return float(np.mean(scores))


def logits_of(classes: list[list[int]]) -> torch.Tensor:
    return nn.functional.one_hot(torch.tensor(classes), CLASSES).movedim(-1, 0)[None].float()


# foreground_dice


def test_dice_is_the_hand_computed_mean_of_the_classes_but_the_background() -> None:
    label = torch.tensor([[[[1, 1, 1, 1], [0, 0, 2, 0]]]])
    # class 1: two of three right, of four true ones; class 2: one of two right, of one true
    prediction = logits_of([[1, 1, 2, 0], [1, 0, 2, 0]])
    assert foreground_dice(prediction, label) == pytest.approx(
        (2 * 2 / (3 + 4) + 2 * 1 / (2 + 1)) / 2
    )
    assert foreground_dice(7 * prediction.bfloat16() - 3, label.float()) == pytest.approx(
        (4 / 7 + 2 / 3) / 2
    )
    assert foreground_dice(logits_of([[1, 1, 1, 1], [0, 0, 2, 0]]), label) == 1
    assert foreground_dice(logits_of([[2, 2, 2, 2], [1, 1, 1, 1]]), label) == 0


def test_class_that_the_label_lacks_does_not_count_and_an_empty_label_has_no_dice() -> None:
    label = torch.tensor([[[[1, 1], [0, 0]]]])
    assert foreground_dice(logits_of([[1, 1], [2, 2]]), label) == 1
    assert math.isnan(foreground_dice(logits_of([[1, 1], [2, 2]]), torch.zeros_like(label)))


# with_noise


def test_noise_is_seeded_by_the_case_alone() -> None:
    image = torch.rand(1, 2, 40, 50)
    torch.manual_seed(0)
    state = torch.get_rng_state()
    first = with_noise(image, 0.5, 3)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(1)
    assert torch.equal(with_noise(image, 0.5, 3), first)
    torch.testing.assert_close(with_noise(image + 5, 0.5, 3) - 5, first, rtol=0, atol=1e-5)
    other = with_noise(image, 0.5, 4) - image
    assert abs(np.corrcoef(other.flatten(), (first - image).flatten())[0, 1]) < 0.06


@pytest.mark.parametrize("sigma", [0.0, 0.5, 2.0])
def test_noise_is_normal_with_the_deviation_asked_for(sigma: float) -> None:
    image = torch.rand(1, 1, 100, 100)
    noise = with_noise(image, sigma, 0) - image
    assert noise.mean().item() == pytest.approx(0, abs=5 * sigma / 100)
    assert noise.std().item() == pytest.approx(sigma, rel=0.04)
    assert (noise.abs() < sigma).float().mean().item() == pytest.approx(
        0.683 if sigma else 0, abs=0.03
    )
    torch.testing.assert_close(
        noise, sigma * (with_noise(image, 1.0, 0) - image), rtol=0, atol=1e-5
    )


# Calibration


def random_case(
    seed: int, size: tuple[int, ...] = (9, 11)
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Probabilities, deviation, and a label that the probabilities are right about more often than not."""
    generator = torch.Generator().manual_seed(seed)
    mean = (2 * torch.randn(1, CLASSES, *size, generator=generator)).softmax(dim=1)
    label = torch.where(
        torch.rand(1, 1, *size, generator=generator) < 0.7,
        mean.argmax(dim=1, keepdim=True),
        torch.randint(CLASSES, (1, 1, *size), generator=generator),
    )
    return mean, 0.5 * torch.rand(1, 1, *size, generator=generator), label


def gathered(cases: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]) -> dict[str, float]:
    calibration = Calibration()
    for case in cases:
        calibration.add(*case)
    return calibration.scores()


def flat(
    cases: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Confidence, deviation and whether it is right, of every voxel of every case, with NumPy."""
    means = np.concatenate([mean[0].flatten(1).numpy() for mean, _, _ in cases], axis=1)
    labels = np.concatenate([label.flatten().numpy() for _, _, label in cases])
    deviations = np.concatenate([deviation.flatten().numpy() for _, deviation, _ in cases])
    return means.max(axis=0), deviations, means.argmax(axis=0) == labels


def area_by_counting_pairs(deviation: np.ndarray, right: np.ndarray) -> float:
    """Share of the pairs of a wrong and a right voxel whose wrong one has the larger deviation, half for ties."""
    wins = 0.0
    for wrong in deviation[~right]:
        for other in deviation[right]:
            wins += float(wrong > other) + 0.5 * float(wrong == other)
    return wins / (np.sum(right) * np.sum(~right))


def tied(
    case: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The case with 26 different deviations, none 0 and further apart than the bins are wide."""
    return case[0], (case[1] * 50).floor() / 50 + 0.00025, case[2]


def test_area_under_the_roc_is_the_share_of_pairs_in_the_right_order_with_ties_as_halves() -> None:
    cases = [tied(random_case(seed)) for seed in range(2)]
    _, deviation, right = flat(cases)
    assert len(np.unique(deviation)) <= 26 and 20 < np.sum(~right) < 100
    assert gathered(cases)["AUROC"] == pytest.approx(
        area_by_counting_pairs(deviation, right), abs=1e-9
    )


def test_area_under_the_roc_is_off_by_no_more_than_the_pairs_within_a_bin() -> None:
    cases = [random_case(seed) for seed in range(3)]
    _, deviation, right = flat(cases)
    closest = np.abs(np.log(deviation[~right][:, None] / deviation[right][None])) < 23 / 10000
    assert 0 < closest.mean() < 0.005
    expected = area_by_counting_pairs(deviation, right)
    assert gathered(cases)["AUROC"] == pytest.approx(expected, abs=closest.mean() / 2)


@pytest.mark.parametrize(
    ("deviations", "expected"),
    [
        ((0.1, 0.4), 1.0),
        ((0.4, 0.1), 0.0),
        ((0.3, 0.3), 0.5),
        ((1e-6, 1.1e-6), 1.0),
        ((0.0, 1e-9), 1.0),
    ],
)
def test_area_under_the_roc_of_a_deviation_that_knows(
    deviations: tuple[float, float], expected: float
) -> None:
    mean, _, label = random_case(0)
    wrong = mean.argmax(dim=1, keepdim=True) != label
    deviation = torch.where(wrong, deviations[1], deviations[0])
    result = gathered([(mean, deviation, label)])
    assert result["AUROC"] == expected
    assert (result["SD right"], result["SD wrong"]) == pytest.approx(deviations)


@pytest.mark.parametrize("size", [(9, 11), (4, 5, 6)])
def test_mean_deviations_and_calibration_error_are_those_of_a_plain_loop(
    size: tuple[int, ...],
) -> None:
    cases = [random_case(seed, size) for seed in range(3)]
    confidence, deviation, right = flat(cases)
    result = gathered(cases)
    assert result["SD right"] == pytest.approx(deviation[right].mean(), rel=1e-5)
    assert result["SD wrong"] == pytest.approx(deviation[~right].mean(), rel=1e-5)

    bins: dict[int, list[tuple[float, bool]]] = {}
    for one, hit in zip(confidence, right, strict=True):
        bins.setdefault(min(int(one * np.float32(15)), 14), []).append((float(one), bool(hit)))
    error = 0.0
    for members in bins.values():
        confident, hits = (np.mean(column) for column in zip(*members, strict=True))
        error += len(members) / len(confidence) * abs(confident - hits)
    assert len(bins) > 6
    assert result["ECE"] == pytest.approx(error, rel=1e-5)


def claiming(
    confidences: list[float], shares_right: list[float]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A case of two classes with 1000 voxels of each confidence, of which this share is right."""
    first = torch.tensor(confidences).repeat_interleave(1000)
    label = torch.cat([(torch.arange(1000) >= 1000 * share).long() for share in shares_right])
    mean = torch.stack([first, 1 - first])[None, ..., None]
    return mean, torch.full((1, 1, len(first), 1), 0.1), label[None, None, :, None]


@pytest.mark.parametrize(
    ("confidences", "shares_right", "expected"),
    [
        ([0.55, 0.65, 0.75, 0.85, 0.95], [0.55, 0.65, 0.75, 0.85, 0.95], 0.0),
        ([1.0], [1.0], 0.0),
        ([1.0], [0.0], 1.0),
        ([0.95], [0.7], 0.25),
        ([0.6], [0.9], 0.3),  # less confident than it might be
        (
            [0.95, 0.6],
            [0.75, 0.7],
            0.15,
        ),  # too much in one bin and too little in another do not cancel
    ],
)
def test_calibration_error_is_the_gap_of_confidence_and_accuracy(
    confidences: list[float], shares_right: list[float], expected: float
) -> None:
    assert gathered([claiming(confidences, shares_right)])["ECE"] == pytest.approx(
        expected, abs=1e-6
    )


def striped(errors: int, spread: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A case with a foreground of 20 voxels, some of them missed, of this deviation, in a large sure background."""
    label = torch.zeros(1, 1, 30, 30, dtype=torch.long)
    label[..., 0, :20] = 1
    prediction = label.clone()
    prediction[..., 0, :errors] = 0
    mean = torch.cat([0.9 - 0.8 * prediction, 0.1 + 0.8 * prediction], dim=1)
    deviation = torch.where(label > 0, spread, 0.001)
    return mean, deviation, label


def test_spread_of_a_case_is_correlated_with_its_dice() -> None:
    errors, spreads = [0, 3, 6, 12], [0.06, 0.2, 0.1, 0.4]
    dice = [2 * (20 - n) / (40 - n) for n in errors]
    warning = gathered([striped(n, spread) for n, spread in zip(errors, spreads, strict=True)])[
        "SD-Dice r"
    ]
    assert warning == pytest.approx(np.corrcoef(spreads, dice)[0, 1], abs=1e-4)
    assert warning < -0.8
    misleading = gathered(
        [striped(n, spread) for n, spread in zip(errors, spreads[::-1], strict=True)]
    )["SD-Dice r"]
    assert misleading == pytest.approx(np.corrcoef(spreads[::-1], dice)[0, 1], abs=1e-4)
    assert misleading > 0.4


def test_spread_of_a_case_is_that_of_its_foreground_and_of_what_might_be() -> None:
    calibration = Calibration()
    calibration.add(*striped(0, 0.3))
    calibration.add(*striped(20, 0.2))  # nothing is predicted, but 20 voxels are in doubt
    calibration.add(*striped(10, 0.04))  # as sure of what it misses as of the background
    assert [spread for spread, _ in calibration.per_case] == pytest.approx([0.3, 0.2, 0.04])
    assert [dice for _, dice in calibration.per_case] == pytest.approx([1, 0, 2 / 3])


def test_figures_that_nothing_can_be_said_about_are_no_numbers() -> None:
    mean, deviation, label = striped(0, 0.3)
    result = gathered([(mean, deviation, label)])
    assert all(math.isnan(result[name]) for name in ("SD wrong", "AUROC", "SD-Dice r"))
    assert result["SD right"] == pytest.approx((20 * 0.3 + 880 * 0.001) / 900)
    assert result["ECE"] == pytest.approx(0.1)


# LDSeg: its parts are replaced by ones whose scores are known


class BlockEncoder(nn.Module):
    """A label of square blocks as one position of the latent each, a channel a class."""

    def forward(self, one_hot: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        return LOUD * one_hot[..., ::STRIDE, ::STRIDE], []


class BlockDecoder(nn.Module):
    """The inverse of `BlockEncoder`, to which the image's features mean nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.from_latent = nn.Conv2d(CLASSES, 1, 1)  # tells the network its type

    def forward(
        self, latent: torch.Tensor, features: list[torch.Tensor] | None = None
    ) -> torch.Tensor:
        return latent.repeat_interleave(STRIDE, dim=-2).repeat_interleave(STRIDE, dim=-1)


class ImageDecoder(BlockDecoder):
    """Ignores the latent where it is shown the image."""

    def forward(
        self, latent: torch.Tensor, features: list[torch.Tensor] | None = None
    ) -> torch.Tensor:
        return features[0] if features else super().forward(latent)


class PixelEncoder(nn.Module):
    """The image's first pixel of each block, and the image itself as a feature."""

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        return image[..., ::STRIDE, ::STRIDE], [image]


class Seeing(nn.Module):
    """Denoiser that knows the latent from the image, whatever the noise."""

    def forward(
        self, noisy: torch.Tensor, embedding: torch.Tensor, timesteps: torch.Tensor
    ) -> torch.Tensor:
        return LOUD * embedding


class Listening(nn.Module):
    """Denoiser that takes the loudest channel of the noisy latent, whatever the image."""

    def forward(
        self, noisy: torch.Tensor, embedding: torch.Tensor, timesteps: torch.Tensor
    ) -> torch.Tensor:
        return LOUD * nn.functional.one_hot(noisy.argmax(dim=1), CLASSES).movedim(-1, 1).float()


class Deaf(nn.Module):
    """Denoiser that always says the same."""

    def __init__(self, latent: torch.Tensor) -> None:
        super().__init__()
        self.latent = latent

    def forward(
        self, noisy: torch.Tensor, embedding: torch.Tensor, timesteps: torch.Tensor
    ) -> torch.Tensor:
        return self.latent.expand_as(noisy)


def tiny(**arguments) -> LDSeg:
    defaults = {
        "in_channels": CLASSES,
        "out_channels": CLASSES,
        "stem_stride": 2,
        "latent_channels": CLASSES,
        "prediction_type": "sample",
    }
    return small_ldseg(**{**defaults, **arguments}).eval()


def replaced(denoiser: nn.Module, decoder: nn.Module | None = None) -> LDSeg:
    network = tiny()
    network.label_encoder, network.image_encoder = BlockEncoder(), PixelEncoder()
    network.standardization = nn.Identity()
    network.denoiser, network.label_decoder = denoiser, decoder or BlockDecoder()
    network.decoder_sees_image = isinstance(decoder, ImageDecoder)
    return network


def enlarged(blocks: np.ndarray) -> np.ndarray:
    return np.kron(blocks, np.ones((STRIDE, STRIDE), dtype=int))


def block_labels(num_cases: int = 3) -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return [generator.integers(CLASSES, size=GRID) for _ in range(num_cases)]


def pairs_of(blocks: list[np.ndarray]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Cases whose image is the one-hot label."""
    labels = [torch.from_numpy(enlarged(one)) for one in blocks]
    return [
        (nn.functional.one_hot(label, CLASSES).movedim(-1, 0)[None].float(), label[None, None])
        for label in labels
    ]


def share_by_hand(blocks: list[np.ndarray]) -> float:
    """Share of the variance of the latents of block labels that is around the mean latent of each position."""
    latents = np.stack([[LOUD * (one == c) for c in range(CLASSES)] for one in blocks])
    shares = []
    for c in range(CLASSES):
        channel = latents[:, c].reshape(len(blocks), -1)
        shares.append(np.var(channel, axis=0, ddof=1).mean() / np.var(channel, ddof=1))
    return float(np.mean(shares))


def mean_dice(blocks: list[np.ndarray], predictions: list[np.ndarray]) -> float:
    return float(
        np.mean(
            [
                hand_dice(prediction, one)
                for prediction, one in zip(predictions, blocks, strict=True)
            ]
        )
    )


def neighbors(blocks: list[np.ndarray]) -> list[np.ndarray]:
    """Of each case, the one before it, whose latent is swapped in."""
    return [blocks[index - 1] for index in range(len(blocks))]


def test_network_that_knows_the_latent_reaches_the_ceiling_in_any_number_of_steps() -> None:
    blocks = block_labels()
    scores = ldseg_scores(replaced(Seeing()), pairs_of(blocks), [0.0])
    for name in ("ceiling", *STEPS, "noise 0", "mean of 8", "own at T/2", "other at T/2"):
        assert scores[name] == 1, name
    assert scores["swapped"] == pytest.approx(mean_dice(blocks, neighbors(blocks)))
    assert 0 < scores["swapped"] < 0.7
    assert scores["between cases"] == pytest.approx(share_by_hand(blocks), rel=1e-5)
    assert scores["SD right"] == 0 and scores["ECE"] < 1e-6
    assert all(math.isnan(scores[name]) for name in ("SD wrong", "AUROC"))  # it is never wrong


def test_noise_on_the_image_costs_what_it_does_to_each_position() -> None:
    blocks, sigmas = block_labels(), [0.3, 1.0]
    pairs = pairs_of(blocks)
    scores = ldseg_scores(replaced(Seeing()), pairs, sigmas)
    for sigma in sigmas:
        seen = [
            with_noise(image, sigma, index)[0, :, ::STRIDE, ::STRIDE].argmax(dim=0).numpy()
            for index, (image, _) in enumerate(pairs)
        ]
        assert scores[f"noise {sigma:g}"] == pytest.approx(mean_dice(blocks, seen))
    assert 1 >= scores["noise 0.3"] > scores["noise 1"] > 0.2
    assert scores["K = 2"] == 1


def test_denoiser_that_listens_to_the_latent_alone_keeps_it_from_the_middle_and_is_lost_from_noise() -> (
    None
):
    blocks = block_labels()
    scores = ldseg_scores(replaced(Listening()), pairs_of(blocks), [0.5])
    assert scores["own at T/2"] == 1
    assert (
        scores["other at T/2"]
        == scores["swapped"]
        == pytest.approx(mean_dice(blocks, neighbors(blocks)))
    )
    start = seeded_noise([CLASSES, *GRID], 0)[0, 0].argmax(dim=0).numpy()
    for name in (*STEPS, "noise 0.5"):
        assert scores[name] == pytest.approx(mean_dice(blocks, [start] * len(blocks)))
    draws = seeded_noise([CLASSES, *GRID], 0, 8)[0]
    votes = (
        nn.functional.one_hot(draws.argmax(dim=1), CLASSES).double().mean(dim=0)
    )  # of a decoder that is certain
    deviation = (votes * (1 - votes)).sqrt().amax(dim=-1).numpy()
    wrong = np.stack([votes.argmax(dim=-1).numpy() != one for one in blocks])
    assert scores["SD wrong"] == pytest.approx(
        np.stack([deviation] * len(blocks))[wrong].mean(), rel=1e-4
    )
    assert scores["SD right"] == pytest.approx(
        np.stack([deviation] * len(blocks))[~wrong].mean(), rel=1e-4
    )


def test_denoiser_that_always_says_the_same_scores_as_that_and_hears_no_latent() -> None:
    blocks = block_labels()
    pairs = pairs_of(blocks)
    network = replaced(Seeing())
    network.denoiser = Deaf(network.encode_label(pairs[0][1]))
    scores = ldseg_scores(network, pairs, [2.0])
    expected = mean_dice(blocks, [blocks[0]] * len(blocks))
    assert expected < 0.8
    for name in (*STEPS, "noise 2", "mean of 8", "own at T/2", "other at T/2"):
        assert scores[name] == pytest.approx(expected), name
    assert scores["ceiling"] == 1


def test_decoder_that_ignores_the_latent_gives_itself_away_by_the_swap_and_not_by_the_share() -> (
    None
):
    blocks, sigma = block_labels(), 0.4
    pairs = pairs_of(blocks)
    blind = ldseg_scores(replaced(Listening()), pairs, [sigma])
    scores = ldseg_scores(replaced(Listening(), ImageDecoder()), pairs, [sigma])
    for name in ("swapped", *STEPS, "own at T/2", "other at T/2", "mean of 8"):
        assert scores[name] == 1, name
    assert scores["ceiling"] == blind["ceiling"] == 1  # decoded without the image
    assert (
        scores["between cases"]
        == blind["between cases"]
        == pytest.approx(share_by_hand(blocks), rel=1e-5)
    )
    assert blind["swapped"] < 0.7 and blind["K = 2"] < 0.7
    noisy = [
        foreground_dice(with_noise(image, sigma, index), label)
        for index, (image, label) in enumerate(pairs)
    ]
    assert scores[f"noise {sigma:g}"] == pytest.approx(np.mean(noisy))
    assert noisy[0] < 1


def test_cases_that_are_all_alike_share_all_of_the_variance() -> None:
    scores = ldseg_scores(replaced(Seeing()), pairs_of(block_labels()[:1] * 3), [])
    assert scores["between cases"] == 0
    assert scores["swapped"] == 1


@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize(
    "arguments", [{}, {"decoder_image_levels": [True, True]}], ids=["blind", "seeing"]
)
def test_scores_are_those_of_what_the_samplers_return(arguments: dict, eta: float) -> None:
    network = tiny(eta=eta, prediction_type="v_prediction", **arguments)
    pairs = pairs_of(block_labels())
    scores = ldseg_scores(network, pairs, [0.5])

    def expected(inferer: Inferer, sigma: float = 0.0) -> float:
        return np.mean([
            foreground_dice(inferer(with_noise(image, sigma, index), network)[:, :CLASSES], label)
            for index, (image, label) in enumerate(pairs)
        ])  # fmt: skip

    for steps in (1, 2, 10):
        sampler = SamplingInferer(num_inference_steps=steps, amp=False)
        assert scores[f"K = {steps}"] == pytest.approx(expected(sampler), abs=1e-6)
    assert scores["noise 0.5"] == pytest.approx(expected(SamplingInferer(amp=False), 0.5), abs=1e-6)
    eight = SamplingInferer(8, amp=False)
    assert scores["mean of 8"] == pytest.approx(expected(eight), abs=1e-6)
    assert scores["K = 2"] > 0.05 and network.num_inference_steps == 2

    calibration = Calibration()
    for image, label in pairs:
        mean, deviation = eight(image, network).split([CLASSES, 1], dim=1)
        calibration.add(mean, deviation, label)
    for name, value in calibration.scores().items():
        assert scores[name] == pytest.approx(value, abs=1e-5), name
    assert 0 < scores["SD wrong"] < 0.5 and 0 < scores["AUROC"] < 1


def test_scores_may_be_taken_under_autocast() -> None:
    network = tiny()
    pairs = pairs_of(block_labels())
    exact = ldseg_scores(network, pairs, [0.5])
    with torch.autocast("cpu", torch.bfloat16):
        scores = ldseg_scores(network, pairs, [0.5])
    assert list(scores) == list(exact)
    for name in ("K = 2", "SD right", "ECE", "between cases"):
        assert scores[name] == pytest.approx(exact[name], abs=0.1), name


def test_cases_of_several_sizes_are_refused() -> None:
    small, large = pairs_of(block_labels(2))
    small = tuple(tensor[..., :16] for tensor in small)
    with pytest.raises(ValueError, match="expected one size, to swap latents"):
        ldseg_scores(replaced(Seeing()), [small, large], [])


# Peers


def test_peer_that_returns_the_label_has_a_dice_of_one_without_noise() -> None:
    sigmas = [0.0, 0.3, 1.0]
    pairs = pairs_of(block_labels())
    scores = peer_scores(nn.Identity(), pairs, sigmas)  # the image is the one-hot label
    assert scores["K = 1"] == scores["noise 0"] == 1
    for sigma in sigmas:
        dice = [
            hand_dice(with_noise(image, sigma, index)[0].argmax(dim=0).numpy(), label[0, 0].numpy())
            for index, (image, label) in enumerate(pairs)
        ]
        assert scores[f"noise {sigma:g}"] == pytest.approx(np.mean(dice))
    assert 1 > scores["noise 0.3"] > scores["noise 1"]
    likely = math.e / (math.e + 2)  # softmax of (1, 0, 0)
    assert scores["ECE"] == pytest.approx(1 - likely, rel=1e-5)
    assert scores["SD right"] == pytest.approx(math.sqrt(likely * (1 - likely)), rel=1e-5)
    assert all(math.isnan(scores[name]) for name in ("SD wrong", "AUROC"))


def test_peer_that_is_less_sure_where_it_is_wrong_ranks_its_errors() -> None:
    blocks = block_labels()
    pairs = pairs_of(blocks)
    unsure = [(4 * image, label) for image, label in pairs]
    for image, _ in unsure:
        image[..., :5, :] = 0.25 * image.flip(1)[..., :5, :]  # class 1 stays itself
    scores = peer_scores(nn.Identity(), unsure, [])
    predictions = [image[0].argmax(dim=0).numpy() for image, _ in unsure]
    assert scores["K = 1"] == pytest.approx(
        mean_dice([enlarged(one) for one in blocks], predictions)
    )
    assert scores["AUROC"] > 0.8
    probabilities = [image.softmax(dim=1)[0].flatten(1).numpy() for image, _ in unsure]
    deviation = np.concatenate([np.sqrt(one * (1 - one)).max(axis=0) for one in probabilities])
    right = np.concatenate([
        prediction.ravel() == enlarged(one).ravel() for prediction, one in zip(predictions, blocks, strict=True)
    ])  # fmt: skip
    assert scores["SD wrong"] == pytest.approx(deviation[~right].mean(), rel=1e-4)
    assert scores["AUROC"] == pytest.approx(
        area_by_counting_pairs(deviation.round(5), right), abs=1e-6
    )


def test_peer_has_no_figures_of_a_latent() -> None:
    pairs = pairs_of(block_labels())
    peer, ldseg = (
        peer_scores(nn.Identity(), pairs, [0.5]),
        ldseg_scores(replaced(Seeing()), pairs, [0.5]),
    )
    assert list(peer) == ["K = 1", "noise 0.5", "SD wrong", "SD right", "AUROC", "ECE", "SD-Dice r"]
    assert set(peer) < set(ldseg)


# Tables


def test_average_is_over_the_cases_that_have_a_figure() -> None:
    rows = [
        {"a": 1.0, "b": math.nan},
        {"a": 2.0, "b": 0.5},
        {"a": 6.0, "b": 0.25, "c": 1.0},
        {"d": math.nan},
    ]
    result = average(rows)
    assert math.isnan(result.pop("d"))
    assert result == {"a": 3.0, "b": 0.375, "c": 1.0}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.12345, "0.123"),
        (-0.5, "-0.500"),
        (9.5, "9.500"),
        (12.0, "12.0"),
        (1234.56, "1234.6"),
        (0.0, "0.000"),
    ]
    + [(None, "–"), (math.nan, "–")],
)
def test_cell_has_three_decimals_below_ten_or_a_dash(value: float | None, expected: str) -> None:
    assert cell(value) == expected


# Further figures of the calibration


def test_expected_dice_is_that_of_labels_drawn_by_the_probabilities() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(1, 3, 60, 60, generator=generator)
    probabilities = logits.softmax(dim=1)
    drawn = torch.multinomial(probabilities[0].flatten(1).T, 200, True, generator=generator)
    dice = [foreground_dice(logits, label.reshape(1, 1, 60, 60)) for label in drawn.T]
    assert expected_dice(probabilities) == pytest.approx(np.mean(dice), abs=0.001)
    too_sure = (2 * logits).softmax(dim=1)
    assert expected_dice(too_sure) > np.mean(dice) + 0.05
    # By hand: the first pixel alone is foreground, 2 * 0.8 / (1 + 0.8 + 0.4)
    two = torch.tensor([[0.2, 0.6], [0.8, 0.4]])[None, :, None]
    assert expected_dice(two) == pytest.approx(1.6 / 2.2)
    assert math.isnan(expected_dice(torch.tensor([0.9, 0.1])[None, :, None, None]))


def test_briers_score_is_the_squared_error_of_all_classes() -> None:
    cases = [random_case(seed) for seed in range(2)]
    calibration = Calibration()
    for case in cases:
        calibration.add(*case)
    errors = []
    for mean, _, label in cases:
        truth = np.eye(CLASSES)[label.flatten().numpy()].T
        errors.append(((mean[0].flatten(1).numpy() - truth) ** 2).sum(axis=0))
    assert calibration.brier() == pytest.approx(np.concatenate(errors).mean(), rel=1e-5)


@pytest.mark.parametrize(("confidence", "expected"), [(1.0, 0.0), (0.5, 0.5), (0.0, 2.0)])
def test_briers_score_of_two_classes_is_from_0_to_2(confidence: float, expected: float) -> None:
    calibration = Calibration()
    mean = torch.tensor([confidence, 1 - confidence])[None, :, None, None].expand(1, 2, 3, 3)
    calibration.add(mean, torch.zeros(1, 1, 3, 3), torch.zeros(1, 1, 3, 3).long())
    assert calibration.brier() == pytest.approx(expected)


def test_rank_correlation_is_spearmans_and_leaves_out_cases_without_a_dice() -> None:
    errors, spreads = [0, 3, 3, 12, 6], [0.06, 0.2, 0.1, 0.3, 0.3]
    calibration = Calibration()
    for number, spread in zip(errors, spreads, strict=True):
        calibration.add(*striped(number, spread))
    expected = spearmanr(spreads, [-number for number in errors]).statistic
    assert calibration.rank_correlation() == pytest.approx(expected)
    calibration.per_case.append((0.9, math.nan))
    assert calibration.rank_correlation() == pytest.approx(expected)
    assert math.isnan(Calibration().rank_correlation())


def test_dice_of_the_surest_is_without_the_tenth_that_a_human_takes() -> None:
    calibration = Calibration()
    calibration.per_case = [(0.01 * number, 1 - 0.04 * number) for number in range(20)]
    assert calibration.surest_dice() == pytest.approx(np.mean([1 - 0.04 * n for n in range(18)]))
    calibration.per_case = [(0.2, 0.5), (0.1, 0.9), (0.3, math.nan)]
    assert calibration.surest_dice() == pytest.approx(0.9)  # one of two, rounded up
