from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch

from ldseg_monai.inference.views import AS_IT_IS, View, mirror_images, orientations
from ldseg_monai.runtime.errors import InputError

VOLUME = torch.arange(2 * 3 * 4 * 5).view(2, 3, 4, 5)


@pytest.mark.parametrize("views", [orientations(), mirror_images([0, 1, 2], 3)])
def test_each_view_is_another_and_can_be_undone(views: list[View]) -> None:
    assert views[0] == AS_IT_IS and len(views) == 8
    shown = [view.show(VOLUME) for view in views]
    for first, second in combinations(shown, 2):
        assert first.shape != second.shape or not torch.equal(first, second)
    for view, seen in zip(views, shown, strict=True):
        assert torch.equal(view.bring_back(seen), VOLUME)


def test_orientations_are_quarter_turns_then_those_of_the_mirror_image() -> None:
    picture = VOLUME[0, 0].numpy()
    for number, view in enumerate(orientations()):
        mirrored = np.fliplr(picture) if number >= 4 else picture
        assert np.array_equal(view.show(VOLUME[:1, :1])[0, 0].numpy(), np.rot90(mirrored, number))


@pytest.mark.parametrize("axes", [[], [2], [0, 1], [1, 2, 0]])
def test_mirror_images_are_along_every_choice_of_the_axes(axes: list[int]) -> None:
    expected = set()
    for number in range(len(axes) + 1):
        for chosen in combinations(axes, number):
            expected.add(np.flip(VOLUME.numpy(), [axis + 1 for axis in chosen]).tobytes())
    views = mirror_images(axes, 3)
    assert views[0] == AS_IT_IS and len(views) == 2 ** len(axes)
    assert {view.show(VOLUME).numpy().tobytes() for view in views} == expected


@pytest.mark.parametrize("axes", [[3], [-1], [0, 0]])
def test_axis_that_a_volume_lacks_is_refused(axes: list[int]) -> None:
    with pytest.raises(InputError, match="of an image with 3 axes: expected different ones"):
        mirror_images(axes, 3)
