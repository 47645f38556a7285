from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from PIL import Image, ImageDraw

from ldseg_monai.data.checks import OUTSIDE
from ldseg_monai.data.formats import MICROMETERS, UNKNOWN_SIDES
from ldseg_monai.evaluation.pictures import COLORS, HEAT, MAX_SD, upright
from ldseg_monai.evaluation.sheets import GAP, INK, WARNING, font, round_length, sheet

FAR = 200  # rows of a panel that no legend reaches


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """All that is written into pictures."""
    texts = []
    write = ImageDraw.ImageDraw.text

    def text(self: Any, place: Any, content: str, *args: Any, **options: Any) -> None:
        texts.append(content)
        write(self, place, content, *args, **options)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", text)
    return texts


def volume(spacing: float = 1.0, **meta: Any) -> MetaTensor:
    """An upright label of 40 x 50 x 40 mm, or larger."""
    label = MetaTensor(torch.zeros(1, 40, 50, 40), np.diag([spacing] * 3 + [1.0]), meta)
    label[:, 10:20, 15:25, 20:30] = 1
    return upright(label)


def picture(**meta: Any) -> MetaTensor:
    label = MetaTensor(torch.zeros(1, 400, 500), meta=meta)
    label[:, 100:150, 100:200] = 1
    return label


def has_color(drawn: Image.Image, color: Any) -> np.ndarray:
    return (np.asarray(drawn) == color).all(axis=-1)


def longest_run(mask: np.ndarray) -> int:
    """Of True in a row."""
    return max(len(run) for run in "".join("x" if one else " " for one in mask).split())


def test_volume_has_the_names_and_sides_of_its_planes_and_a_bar_in_mm(said: list[str]) -> None:
    label = volume()
    drawn = sheet(torch.zeros(label.shape), label)
    assert drawn.width == 320 + 320 + 400 + 2 * GAP  # columns of the planes, at 8 pixels a mm
    for text in ("axial, slice 25 of 40", "coronal, slice 20 of 50", "10 mm"):
        assert text in said
    for name, number in {"R": 2, "L": 2, "A": 2, "P": 2, "S": 2, "I": 2}.items():
        assert said.count(name) == number
    assert any("radiological" in text for text in said)
    rows = has_color(drawn, INK)[: FAR + 250, :320]
    assert longest_run(rows[rows.sum(axis=1).argmax()]) == 10 * 8 + 1


def test_volume_of_unknown_sides_has_none_said(said: list[str]) -> None:
    label = volume(**{UNKNOWN_SIDES: True})
    sheet(torch.zeros(label.shape), label)
    assert not {"R", "L", "A", "P", "S", "I"} & set(said)
    assert not any("radiological" in text for text in said)
    assert "which side is left is not known" in said
    assert "10 mm" in said  # the size of its voxels is known


def test_only_a_picture_of_known_pixels_has_a_bar(said: list[str]) -> None:
    image = torch.zeros(3, 400, 500)
    sheet(image, picture())
    assert not any("m" in text for text in said if text != "class 1")
    sheet(image, picture(**{MICROMETERS: (0.5, 0.5)}))
    assert "50 µm" in said


def test_legend_has_the_classes_with_their_colors(said: list[str]) -> None:
    classes = {"gland": (10, 200, 30), "vessel": (1, 2, 3)}
    drawn = sheet(torch.zeros(3, 400, 500), picture(), picture(), None, classes)
    assert {"true outline", "predicted gland", "predicted vessel"} <= set(said)
    legend = np.asarray(drawn)[400 + GAP :]
    for color in ((255, 255, 255), *classes.values()):
        assert (legend == color).all(axis=-1).sum() > 50
    said.clear()
    sheet(torch.zeros(3, 400, 500), picture())
    assert said == ["class 1"]


def test_sd_is_beside_a_picture_and_below_a_volume_with_its_scale(said: list[str]) -> None:
    sd = picture() * MAX_SD
    drawn = sheet(torch.zeros(3, 400, 500), picture(), sd=sd)
    hottest = np.nonzero(has_color(drawn, HEAT[-1])[:FAR])
    assert (hottest[0].min(), hottest[1].min()) == (100, 500 + GAP + 100)
    assert any("SD" in text for text in said) and "0.5" in said
    label = volume()
    high = sheet(torch.zeros(label.shape), label, sd=label * MAX_SD).height
    assert high >= sheet(torch.zeros(label.shape), label).height + 400
    said.clear()
    sheet(torch.zeros(3, 400, 500), picture())
    assert not any("SD" in text for text in said)


def test_picture_says_that_it_is_not_in_its_own_size(said: list[str]) -> None:
    small, large = torch.zeros(1, 100, 90), torch.zeros(1, 90, 2500)
    sheet(small, small)
    sheet(large, large)
    assert said == ["4 times the picture's size", "1/2 of the picture's size"]


def test_warning_is_in_full_and_in_its_color(said: list[str]) -> None:
    why = "its field of view is 12 x 12 x 12 mm: " + "expected more " * 12
    drawn = sheet(torch.zeros(3, 400, 500), picture(**{OUTSIDE: why}))
    words = f"outside of known images: {why}".split()
    assert [text for text in said if text in words] == words
    assert has_color(drawn, WARNING).any() and not has_color(drawn, WARNING)[:400].any()


def test_lines_of_the_legend_end_at_the_picture(said: list[str]) -> None:
    classes = {f"class of a long name, number {number}": COLORS[number % 6] for number in range(20)}
    drawn = sheet(torch.zeros(3, 400, 500), picture(), picture(), None, classes)
    assert drawn.width == 500 and drawn.height > 400 + 10 * 13
    long = sheet(torch.zeros(3, 400, 500), picture(), None, None, {"long " * 40: (1, 2, 3)})
    assert long.width > 500  # nothing is cut off


def test_letters_are_those_of_europe() -> None:
    missing = font(20).getmask("\U0010ffff")
    for letter in "µ²äéžσЖ":
        assert bytes(font(20).getmask(letter)) != bytes(missing)


@pytest.mark.parametrize(
    ("most", "length"), [(0.9, 0.5), (1, 1), (4.99, 2), (25, 20), (60, 50), (199, 100)]
)
def test_scale_bar_has_a_round_length(most: float, length: float) -> None:
    assert round_length(most) == pytest.approx(length)
