from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Orientationd, Spacing, Spacingd, SpatialResample

from ldseg_monai.data import resampling
from ldseg_monai.data.transforms import VoxelSpacingd
from ldseg_monai.runtime.errors import InputError

OBLIQUE = torch.tensor(
    [[0.9, 0.1, 0.05, 3.0], [-0.1, -1.1, 0.0, 5.0], [0.0, 0.1, 1.7, -8.0], [0, 0, 0, 1]]
)


def volume_of(affine: torch.Tensor) -> MetaTensor:
    return MetaTensor(
        torch.randn(2, 19, 14, 11, generator=torch.Generator().manual_seed(0)),
        affine=affine.double(),
    )


@pytest.mark.parametrize(
    "pixdim", [(0.6, 0.7, 0.8), (1.9, 1.3, 2.4), (0.6, 2.0, 1.0), (5.1, 6.3, 7.7)]
)
@pytest.mark.parametrize(
    "affine", [torch.diag(torch.tensor([0.9, 1.1, 1.7, 1])), OBLIQUE], ids=["straight", "oblique"]
)
def test_voxels_are_those_of_monai_there_and_back(
    affine: torch.Tensor, pixdim: tuple[float, ...]
) -> None:
    volume = volume_of(affine)
    transform, spacing = VoxelSpacingd("image", pixdim), Spacing(pixdim)
    there, expected = transform({"image": volume})["image"], spacing(volume)
    assert there.dtype == torch.float32 and there.shape == expected.shape
    torch.testing.assert_close(there.affine, expected.affine)
    torch.testing.assert_close(there.as_tensor(), expected.as_tensor(), rtol=1e-5, atol=1e-6)
    back, expected = transform.inverse({"image": there})["image"], spacing.inverse(expected)
    assert back.shape == volume.shape and not back.applied_operations
    torch.testing.assert_close(back.affine, volume.affine)
    torch.testing.assert_close(back.as_tensor(), expected.as_tensor(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_any_other_place_is_that_of_monai_too(mode: str) -> None:
    volume, wanted = (
        volume_of(torch.eye(4)),
        OBLIQUE.double(),
    )  # partly outside, where the border goes on
    wanted[:3, 3] += torch.tensor([0.0137, 0.0219, 0.0071])  # no voxel halfway between two
    result = resampling.resample(volume, wanted, [12, 17, 9], mode)
    expected = SpatialResample(mode, "border")(volume, wanted, [12, 17, 9])
    torch.testing.assert_close(result.as_tensor(), expected.as_tensor(), rtol=1e-5, atol=1e-6)


def test_inverse_leaves_what_came_before_to_be_inverted() -> None:
    volume = volume_of(OBLIQUE)
    steps = Compose(
        [Orientationd("image", "SPL", labels=None), VoxelSpacingd("image", (0.6, 2.0, 1.0))]
    )
    theirs = Compose(
        [Orientationd("image", "SPL", labels=None), Spacingd("image", (0.6, 2.0, 1.0))]
    )
    back, expected = (both.inverse(both({"image": volume}))["image"] for both in (steps, theirs))
    torch.testing.assert_close(back.as_tensor(), expected.as_tensor(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(back.affine, volume.affine)
    assert back.shape == volume.shape


def test_volume_that_has_the_voxels_already_stays() -> None:
    volume = volume_of(torch.diag(torch.tensor([0.9, 1.1, 1.7, 1])))
    transform = VoxelSpacingd("image", (0.9, 1.1, 1.7))
    result = transform({"image": volume, "image_path": "x"})
    assert np.array_equal(result["image"].numpy(), volume.numpy()) and result["image_path"] == "x"
    assert np.array_equal(transform.inverse(result)["image"].numpy(), volume.numpy())


def test_mode_that_there_is_not_is_an_error() -> None:
    volume = volume_of(OBLIQUE)
    with pytest.raises(InputError, match="^mode 'cubic': expected one of bilinear, nearest$"):
        resampling.resample(volume, torch.eye(4), [4, 4, 4], "cubic")
