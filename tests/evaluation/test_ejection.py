"""Volumes and ejection fractions of cavities, beside shapes of which they are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ldseg_monai.data.phantoms.echo import beating_ventricle, end_systole, frame_spacing
from ldseg_monai.data.phantoms.echo import ejection_fraction as area_fraction
from ldseg_monai.evaluation import ejection_fraction
from ldseg_monai.runtime.errors import InputError

WIDTH, HEIGHT = 0.5, 0.4  # mm of a pixel
PIXEL = np.array([[WIDTH, 0], [0, HEIGHT], [0, 0]])


def ellipse(half_long: float, half_short: float, degrees: float = 0.0) -> torch.Tensor:
    """A frame with an ellipse whose half axes are in mm, ``(columns, rows)``."""
    x, y = np.meshgrid(
        (np.arange(240) - 120.3) * WIDTH, (np.arange(300) - 149.6) * HEIGHT, indexing="ij"
    )
    cosine, sine = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    along, over = cosine * x + sine * y, cosine * y - sine * x
    return torch.from_numpy((along / half_long) ** 2 + (over / half_short) ** 2 < 1)


def sequence(*frames: torch.Tensor) -> torch.Tensor:
    return torch.stack(frames, dim=-1)[None].to(torch.uint8)  # (1, columns, rows, frames)


def probabilities(*samples: torch.Tensor) -> torch.Tensor:
    """Of background and cavity, sample after sample, ``(samples * 2, columns, rows, frames)``."""
    return torch.cat([torch.cat([1 - sample, sample]) for sample in samples]).float()


@pytest.mark.parametrize("degrees", [0, 17, 45, 90, 133])
@pytest.mark.parametrize(("half_long", "half_short"), [(45, 20), (30, 12)])
def test_an_ellipse_has_the_volume_of_its_ellipsoid(
    half_long: float, half_short: float, degrees: float
) -> None:
    found = ejection_fraction(sequence(ellipse(half_long, half_short, degrees)), 1, PIXEL)
    area, length = np.pi * half_long * half_short, 2 * half_long
    volume = 8 * area**2 / (3 * np.pi * length) / 1000  # 4/3 pi a b^2
    assert found.volumes == pytest.approx([volume], rel=0.03) and found.unit == "ml"
    ends = found.axes[0] * [WIDTH, HEIGHT]
    assert np.linalg.norm(ends[1] - ends[0]) == pytest.approx(length, rel=0.02)
    turn = np.deg2rad(degrees)
    axis = (ends[1] - ends[0]) / length
    assert abs(axis @ [np.cos(turn), np.sin(turn)]) == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("pixel", [PIXEL, None])
def test_a_sequence_of_ellipses_has_its_fraction_with_and_without_a_size(
    pixel: np.ndarray | None,
) -> None:
    sides = [(40, 20), (42, 22), (36, 15), (30, 12), (35, 16)]
    frames = [ellipse(*side, degrees=90) for side in sides]
    found = ejection_fraction(sequence(*frames), 1, pixel)
    assert found.fraction == pytest.approx(1 - 30 * 12**2 / (42 * 22**2), abs=0.01)
    assert (found.diastole, found.systole) == (1, 3)
    assert found.sd is None and found.samples == 0 and found.note == ""
    assert found.unit == ("relative" if pixel is None else "ml")
    if pixel is None:
        assert found.volumes.max() == 1
        assert found.volumes[3] == pytest.approx(1 - found.fraction)


@pytest.mark.parametrize("seed", range(6))
def test_a_phantom_has_the_fraction_that_it_was_made_with(seed: int) -> None:
    _, labels = beating_ventricle(seed, 10)
    width, height = frame_spacing(seed)
    label = torch.from_numpy(np.ascontiguousarray(labels.transpose(2, 1, 0)))[None]
    found = ejection_fraction(label, 1, np.array([[width, 0], [0, height], [0, 0]]))
    # The phantom says what is left of its area; its length is that to the 0.3 (`contracted`), so
    # that A^2 / L is what is left to the 2 - 0.3
    left = (1 - area_fraction(seed)) ** 1.7
    assert found.fraction == pytest.approx(1 - left, abs=0.015)
    assert (found.diastole, found.systole) == (0, end_systole(10))
    assert 40 < found.volumes[0] < 130  # ml, of a left ventricle at end-diastole


def test_the_spread_is_that_of_the_samples() -> None:
    large = ellipse(40, 20)
    samples = [sequence(large, ellipse(40, half)) for half in (10, 12, 14)]
    found = ejection_fraction(samples[1], 1, PIXEL, probabilities(*samples), 2)
    alone = [ejection_fraction(sample, 1, PIXEL).fraction for sample in samples]
    assert found.fraction == alone[1] and found.samples == 3
    by_hand = [1 - (half / 20) ** 2 for half in (10, 12, 14)]  # 0.75, 0.64, 0.51
    assert found.sd == pytest.approx(np.std(by_hand, ddof=1), abs=0.005)
    assert found.sd == pytest.approx(np.std(alone, ddof=1))


def test_samples_without_a_fraction_are_left_out_of_the_spread() -> None:
    whole, nothing = sequence(ellipse(40, 20), ellipse(40, 10)), torch.zeros(1, 240, 300, 2)
    found = ejection_fraction(whole, 1, PIXEL, probabilities(whole, nothing), 2)
    assert found.fraction is not None
    assert found.samples == 1 and found.sd is None


def test_frames_without_the_cavity_have_no_volume() -> None:
    nothing = torch.zeros(240, 300, dtype=torch.bool)
    found = ejection_fraction(sequence(nothing, ellipse(40, 20), ellipse(30, 15)), 1, PIXEL)
    assert np.isnan(found.volumes[0]) and np.isnan(found.axes[0]).all()
    assert (found.diastole, found.systole) == (1, 2)
    assert found.as_dict()["volumes"][0] is None
    for frames, number in (((nothing, nothing), 0), ((nothing, ellipse(40, 20)), 1)):
        found = ejection_fraction(sequence(*frames), 1)
        assert found.fraction is None and found.diastole is None and found.sd is None
        assert found.note.startswith(f"the cavity was found in {number} of 2 frames: expected 2")


def test_a_stray_piece_does_not_count_and_a_single_pixel_does() -> None:
    clean = ellipse(30, 15)
    stray = clean.clone()
    stray[2:5, 2:5] = True
    found = ejection_fraction(sequence(clean, stray), 1, PIXEL)
    assert found.volumes[0] == found.volumes[1] and found.fraction == 0
    dot = torch.zeros(240, 300, dtype=torch.bool)
    dot[7, 9] = True
    assert ejection_fraction(sequence(dot), 1).axes[0].tolist() in (
        [[6.5, 9.0], [7.5, 9.0]],
        [[7.5, 9.0], [6.5, 9.0]],
        [[7.0, 8.5], [7.0, 9.5]],
        [[7.0, 9.5], [7.0, 8.5]],
    )


def test_a_picture_and_samples_of_another_shape_are_refused() -> None:
    label = sequence(ellipse(40, 20))
    with pytest.raises(InputError, match="expected \\(1, columns, rows, frames\\)"):
        ejection_fraction(label[..., 0], 1)
    for shape in ((3, 240, 300, 1), (4, 240, 300, 2)):
        with pytest.raises(InputError, match="expected 2 classes each"):
            ejection_fraction(label, 1, samples=torch.zeros(shape), num_classes=2)
