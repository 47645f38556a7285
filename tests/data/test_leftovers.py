from __future__ import annotations

import pytest

from ldseg_monai.data.leftovers import mask_of


@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("a_label", "a"),
        ("a_label_v2", "a"),
        ("a_seg-new_03", "a"),
        ("a2_seg", None),
        ("a_label_v2b", None),
        ("a12", None),
    ],
)
def test_masks_are_known_by_their_names_and_versions(name: str, image: str | None) -> None:
    assert mask_of(name, ["a", "b"]) == image


def test_names_of_long_numbers_take_no_time() -> None:
    # Where a number could be read in many ways, one of 30 digits took minutes
    uid = "1.2.840.113619.2.55.3.604688119868123456789012345678.868_x"
    assert mask_of(uid, ["a"]) is None
    assert mask_of("1" * 200 + "x", ["a"]) is None
