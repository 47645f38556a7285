from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from ldseg_monai.data.phantoms.nuclei import nuclei_phantom


@pytest.fixture(scope="module")
def phantoms() -> list[tuple[NDArray, NDArray]]:
    return [nuclei_phantom([7, index]) for index in range(4)]


def darkness(image: NDArray) -> NDArray:
    """Optical density of the red channel, which hematoxylin absorbs and eosin lets pass."""
    return -np.log((image[..., 0].astype(float) + 1) / 256)


def test_arrays_are_what_scanners_and_annotators_write(phantoms) -> None:
    for image, label in phantoms:
        assert (image.dtype, label.dtype) == (np.uint8, np.int32)
        assert image.shape == (*label.shape, 3)
        assert all(abs(n - about) <= 17 for n, about in zip(label.shape, (256, 320), strict=True))
        assert np.unique(label).tolist() == list(range(label.max() + 1))
        assert 50 <= label.max() <= 250 and 0.05 < (label > 0).mean() < 0.4


def test_each_nucleus_is_one_blob_of_a_nucleus_size(phantoms) -> None:
    for _, label in phantoms:
        inner = [index for index in range(1, label.max() + 1) if inside(label == index)]
        assert len(inner) > 30
        for index in inner:
            pieces, _ = ndimage.label(label == index)
            sizes = np.bincount(pieces.ravel())[1:]
            assert sizes.max() > 0.95 * sizes.sum() and 25 < sizes.sum() < 700


def inside(mask: NDArray) -> bool:
    """Whether a mask touches no border of the picture."""
    return not (mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any())


def test_nuclei_are_darker_but_color_does_not_do(phantoms) -> None:
    for image, label in phantoms:
        dark = darkness(image)
        nuclei, others = dark[label > 0], dark[label == 0]
        assert nuclei.mean() > others.mean() + 2 * others.std()
        best = 0.0
        for threshold in np.linspace(others.min(), nuclei.max(), 60):
            found = dark > threshold
            overlap = 2 * (found & (label > 0)).sum() / (found.sum() + (label > 0).sum())
            best = max(best, overlap)
        assert best < 0.97


def test_some_nuclei_touch(phantoms) -> None:
    pairs = 0
    for _, label in phantoms:
        for one, other in ((label[1:], label[:-1]), (label[:, 1:], label[:, :-1])):
            borders = (one != other) & (one > 0) & (other > 0)
            pairs += len({*zip(one[borders].tolist(), other[borders].tolist(), strict=True)})
    assert pairs >= 4
