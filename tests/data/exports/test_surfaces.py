"""Surfaces, read by the test's own readers and measured by the divergence theorem."""

from __future__ import annotations

import math
import struct
from pathlib import Path

import numpy as np
import pytest
from export_phantoms import LPS, label_of, oblique, write_metadata

from ldseg_monai.data.exports import SaveImageAsd
from ldseg_monai.data.exports.surfaces import surface_of

RADIUS = 9.0  # mm


def read_stl(path: Path) -> tuple[bytes, np.ndarray, np.ndarray]:
    """Header, normals `(triangles, 3)` and corners `(triangles, 3, 3)`, one number after the other."""
    content = path.read_bytes()
    [count] = struct.unpack_from("<I", content, 80)
    assert len(content) == 84 + 50 * count
    numbers = np.array([struct.unpack_from("<12f", content, 84 + 50 * i) for i in range(count)])
    return content[:80], numbers[:, :3], numbers[:, 3:].reshape(-1, 3, 3)


def read_obj(path: Path) -> np.ndarray:
    lines = [line.split() for line in path.read_text().splitlines()]
    vertices = np.array([line[1:] for line in lines if line[0] == "v"], float)
    return vertices[np.array([line[1:] for line in lines if line[0] == "f"], int) - 1]


def volume_of(corners: np.ndarray) -> float:
    """What a surface encloses; positive if its triangles are counterclockwise from outside."""
    return float(np.linalg.det(corners).sum() / 6)


def assert_closed(corners: np.ndarray) -> None:
    """Whether every edge is of two triangles, which go along it in opposite ways."""
    _, vertices = np.unique(corners.reshape(-1, 3), axis=0, return_inverse=True)
    triangles = vertices.reshape(-1, 3)
    edges = {tuple(edge) for a in range(3) for edge in triangles[:, [a, (a + 1) % 3]].tolist()}
    assert len(edges) == 3 * len(triangles)
    assert edges == {(end, start) for start, end in edges}


def ball(
    affine: np.ndarray, shape: tuple[int, ...] = (36, 24, 18)
) -> tuple[np.ndarray, np.ndarray]:
    """A ball of `RADIUS` mm off the middle of a volume, and its center in mm RAS."""
    center = (affine @ [*(side / 2 + 0.3 for side in shape), 1])[:3]
    indices = np.moveaxis(np.indices(shape), 0, -1)
    places = indices @ affine[:3, :3].T + affine[:3, 3]
    return np.linalg.norm(places - center, axis=-1) < RADIUS, center


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("ending", ["stl", "obj"])
def test_surface_of_a_ball(tmp_path: Path, mirrored: bool, ending: str) -> None:
    affine = oblique(mirrored)
    voxels, center = ball(affine)
    SaveImageAsd("pred", str(tmp_path), ending, write_metadata(tmp_path))(
        {"pred": label_of("knee.nii.gz", voxels, affine)}
    )
    path = tmp_path / f"knee_surface.femur.{ending}"
    assert [file.name for file in tmp_path.glob("knee_surface*")] == [path.name]
    center = LPS[:3, :3] @ center
    if ending == "stl":
        header, normals, corners = read_stl(path)
        assert b"SPACE=LPS" in header and not header.startswith(b"solid")
        outward = corners.mean(axis=1) - center
        cosines = (normals * outward).sum(axis=1) / np.linalg.norm(outward, axis=1)
        assert np.median(cosines) > 0.97 and cosines.min() > 0.5
        np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-5)
        assert_closed(corners)
    else:
        corners = read_obj(path)
        assert path.read_text().splitlines()[0] == "# ldseg_monai SPACE=LPS"
        assert_closed(corners)
    of_voxels = np.count_nonzero(voxels) * 0.7 * 1.1 * 1.6
    assert volume_of(corners) == pytest.approx(of_voxels, rel=0.05)
    assert volume_of(corners) == pytest.approx(4 / 3 * math.pi * RADIUS**3, rel=0.05)
    distances = np.linalg.norm(corners - center, axis=-1)
    assert distances.mean() == pytest.approx(RADIUS, abs=0.2)
    # The center of what is enclosed: of the tetrahedra from the origin to each triangle
    parts = np.linalg.det(corners) / 6
    found = (parts[:, None] * corners.sum(axis=1) / 4).sum(axis=0) / parts.sum()
    np.testing.assert_allclose(found, center, atol=0.05)


def test_both_kinds_have_the_same_surface(tmp_path: Path) -> None:
    affine = oblique()
    SaveImageAsd("pred", str(tmp_path), ["stl", "obj"], write_metadata(tmp_path))(
        {"pred": label_of("knee.nii.gz", ball(affine)[0], affine)}
    )
    _, _, corners = read_stl(tmp_path / "knee_surface.femur.stl")
    np.testing.assert_allclose(corners, read_obj(tmp_path / "knee_surface.femur.obj"), atol=1e-4)


@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.98, 1.0])
def test_any_mask_has_a_closed_surface(share: float) -> None:
    rng = np.random.default_rng(0)
    for _ in range(10):
        mask = rng.random((6, 7, 5)) < share  # single voxels, touching corners, up to the border
        mask[-1, -1, -1] = True
        vertices, triangles = surface_of(mask, oblique())
        assert_closed(vertices[triangles])
        assert volume_of(vertices[triangles]) > 0


def test_centers_are_on_their_side_of_the_surface() -> None:
    """The winding number of a center is 1 inside and 0 outside (van Oosterom and Strackee 1983)."""
    mask = np.random.default_rng(1).random((4, 5, 4)) < 0.4
    vertices, triangles = surface_of(mask, np.diag([2.0, 1.0, 0.5, 1.0]))
    for index in np.ndindex(*mask.shape):
        a, b, c = np.moveaxis(vertices[triangles] - np.multiply(index, [2.0, 1.0, 0.5]), 1, 0)
        la, lb, lc = (np.linalg.norm(corner, axis=1) for corner in (a, b, c))
        dots = (a * b).sum(1) * lc + (b * c).sum(1) * la + (c * a).sum(1) * lb
        angles = 2 * np.arctan2((a * np.cross(b, c)).sum(1), la * lb * lc + dots)
        assert angles.sum() / (4 * math.pi) == pytest.approx(float(mask[index]), abs=1e-6)
