from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from skimage.color import rgb2gray

from benchmarks.accuracy.disturbances import DISTURBANCES, Disturbance, area_under, value_range

BY_NAME = {disturbance.name: disturbance for disturbance in DISTURBANCES}


def picture(side: int = 48) -> torch.Tensor:
    """A smooth color picture in -1 to 1."""
    rows, columns = torch.meshgrid(torch.linspace(0, 3, side), torch.linspace(0, 2, side + 8))
    waves = [torch.sin(3 * rows + k) * torch.cos(2 * columns - k) for k in range(3)]
    return torch.stack(waves)[None]


def volume() -> torch.Tensor:
    """A standardized volume of noise, padded by three slices at each end of its last axis."""
    content = torch.randn(1, 1, 12, 10, 20, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.pad(content, (3, 3))


@pytest.mark.parametrize("disturbance", DISTURBANCES, ids=lambda one: one.name)
def test_each_is_of_the_case_alone_and_grows_with_its_strength(disturbance: Disturbance) -> None:
    assert disturbance.strengths[0] == 0 and list(disturbance.strengths) == sorted(
        disturbance.strengths
    )
    for image in (picture(), volume()):
        if not disturbance.fits(image):
            continue
        changes = []
        for strength in disturbance.strengths[1:]:
            torch.manual_seed(int(10 * strength))
            given = image.clone()
            changed = disturbance.apply(given, strength, 3)
            assert torch.equal(given, image) and type(changed) is torch.Tensor
            assert changed.shape == image.shape and changed.dtype == torch.float32
            assert torch.equal(disturbance.apply(image, strength, 3), changed)
            changes.append((changed - image).square().mean().item())
        assert changes == sorted(changes) and changes[0] > 0


def test_each_is_for_the_images_that_it_makes_sense_of() -> None:
    fitting = {
        kind: {one.name for one in DISTURBANCES if one.fits(image)}
        for kind, image in {
            "color": picture(),
            "gray": picture()[:, :1],
            "volume": volume(),
        }.items()
    }
    everywhere = {"noise", "blur", "gamma", "lower resolution"}
    assert fitting["gray"] == everywhere
    assert fitting["color"] == everywhere | {"stain shift", "JPEG"}
    assert fitting["volume"] == everywhere | {"missing slices"}


def test_blur_is_scipys_with_the_border_continued() -> None:
    blur = BY_NAME["blur"].apply
    for image in (picture(), volume()):
        expected = ndimage.gaussian_filter(
            image.numpy(), [0, 0, *[1.5] * (image.ndim - 2)], mode="nearest"
        )
        np.testing.assert_allclose(blur(image, 1.5, 0).numpy(), expected, atol=0.02)
    flat = torch.full((1, 3, 20, 20), 0.7)
    torch.testing.assert_close(blur(flat, 3.0, 0), flat, atol=1e-4, rtol=0)


def test_gamma_is_a_power_of_the_gray_levels_darker_and_brighter_in_turn() -> None:
    image = picture()
    low, high = image.min(), image.max()
    levels = (image - low) / (high - low)
    for index, exponent in ((0, 2.0), (1, 0.5)):
        changed = BY_NAME["gamma"].apply(image, 1.0, index)
        expected = levels**exponent * (high - low) + low
        torch.testing.assert_close(changed, expected, atol=1e-5, rtol=0)
    changed = BY_NAME["gamma"].apply(volume(), 1.0, 0)
    for kept in (torch.mean, torch.std):
        assert kept(changed).item() == pytest.approx(kept(volume()).item(), abs=1e-5)


def test_lower_resolution_is_of_block_means() -> None:
    lower = BY_NAME["lower resolution"].apply
    columns = torch.arange(12.0).expand(1, 1, 12, 12)
    # Blocks of four columns have the means 1.5, 5.5 and 9.5, in their middles; linear between
    expected = torch.arange(12.0).clamp(1.5, 9.5)
    torch.testing.assert_close(lower(columns, 3.0, 0), expected.expand(1, 1, 12, 12))
    flat = torch.full((1, 1, 15, 9, 7), -0.3)
    torch.testing.assert_close(lower(flat, 1.0, 0), flat)


def test_stain_shift_changes_the_color_and_not_the_tissue() -> None:
    image = picture()
    changed = BY_NAME["stain shift"].apply(image, 0.3, 0)
    hue = (changed - image).mean(dim=(0, 2, 3))
    assert changed.min() >= -1 and changed.max() <= 1 and hue.std() > 0.01
    gray = [rgb2gray((one[0].movedim(0, -1).numpy() + 1) / 2) for one in (image, changed)]
    assert np.corrcoef(gray[0].ravel(), gray[1].ravel())[0, 1] > 0.9  # the tissue is the same


def test_jpeg_is_what_pillow_makes_of_the_picture() -> None:
    image = picture()
    pixels = ((image[0] + 1) * 127.5).round().to(torch.uint8).movedim(0, -1).numpy()
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=30)
    expected = np.asarray(Image.open(file)).astype(np.float32)
    found = (BY_NAME["JPEG"].apply(image, 70.0, 0)[0].movedim(0, -1) + 1) * 127.5
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-3)


def test_missing_slices_are_a_share_of_those_that_have_something_more_with_more_strength() -> None:
    image = volume()
    gone_before: set[int] = set()
    for share in (0.1, 0.2, 0.4):
        changed = BY_NAME["missing slices"].apply(image, share, 5)
        gone = {
            index
            for index in range(image.shape[-1])
            if not torch.equal(changed[..., index], image[..., index])
        }
        assert len(gone) == share * 20 and gone <= set(range(3, 23)) and gone_before < gone
        assert all((changed[..., index] == image.min()).all() for index in gone)
        gone_before = gone


def test_range_is_2_for_pictures_and_robust_for_volumes() -> None:
    assert value_range(torch.tensor([-1.0, 0.0, 0.5])) == 2
    volume = torch.arange(1001.0) / 1000 * 8 - 3
    volume[-1] = 1000
    assert value_range(volume) == pytest.approx(0.98 * 8, rel=0.01)


def test_area_is_the_mean_height_of_the_curve() -> None:
    assert area_under({0.0: 0.8, 0.1: 0.8, 0.5: 0.8}) == pytest.approx(0.8)
    assert area_under({0.0: 1.0, 2.0: 0.0}) == pytest.approx(0.5)
    assert area_under({0.0: 1.0, 1.0: 0.5, 3.0: 0.5}) == pytest.approx((0.75 + 1.0) / 3)
