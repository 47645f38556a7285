from __future__ import annotations

import pytest
import torch
from monai.data import MetaTensor
from small_networks import Wrapper, count_calls, image_of, noisy_ldseg, pair_of, tiny_cdal

from ldseg_monai.inference.samplers import SamplingInferer
from ldseg_monai.inference.slices import SliceSamplingInferer


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("num_samples", [1, 3])
def test_volume_is_segmented_slice_by_slice_in_batches(num_samples: int, axis: int) -> None:
    network, sampler = noisy_ldseg(), SamplingInferer(num_samples, amp=False)
    volume, _ = pair_of((16, 16, 16))
    volume = volume[tuple(slice(7 if dimension == axis + 2 else None) for dimension in range(5))]
    denoised = count_calls(network.image_encoder)
    result = SliceSamplingInferer(sampler, roi_size=(16, 16), spatial_dim=axis, sw_batch_size=4)(
        volume, network
    )
    assert denoised == [4, 4, 4, 2]  # of 2 volumes of 7 slices
    expected = torch.stack([sampler(cut, network) for cut in volume.unbind(axis + 2)], dim=axis + 2)
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-5)


def test_slices_take_metadata_and_wrapped_networks_and_nothing_else() -> None:
    network, inferer = (
        noisy_ldseg(),
        SliceSamplingInferer(SamplingInferer(2, amp=False), roi_size=(16, 16), spatial_dim=2),
    )
    volume, _ = pair_of((16, 12, 3))
    assert torch.equal(inferer(MetaTensor(volume), Wrapper(network)), inferer(volume, network))
    with pytest.raises(TypeError, match="beside inputs and network: expected nothing else"):
        inferer(volume, network, noise=volume)


def test_volume_is_segmented_by_any_method_of_slices() -> None:
    network, volume = tiny_cdal(num_train_timesteps=2), image_of((16, 13, 5))
    sampler = SamplingInferer(3, amp=False)
    encoded = count_calls(network.image_encoder)
    result = SliceSamplingInferer(sampler, roi_size=(16, 13), spatial_dim=2, sw_batch_size=4)(
        volume, network
    )
    assert encoded == [4, 4, 2]  # of 2 volumes of 5 slices
    expected = torch.stack([sampler(cut, network) for cut in volume.unbind(-1)], dim=-1)
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-5)
