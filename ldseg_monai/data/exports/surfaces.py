"""Surfaces of the classes of volumes as STL and OBJ."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from ldseg_monai.data.exports.label_map import File, LabelClass, LabelMap

SIGMA = 0.7  # voxels, of the Gaussian that takes the steps off a mask
MARGIN = 0.05  # that a voxel's value stays away from the surface's, on its own side
PAD = 3  # voxels around a class, so that its surface is closed at the image's border too
SPACE = "SPACE=LPS"  # as 3D Slicer says and reads it: mm left, posterior, superior
HEADER = 80  # bytes of an STL file's
TRIANGLE = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])


def surface_files(label: LabelMap, ending: str) -> Iterator[File]:
    """The files ``NAME_surface.CLASS``, one for each class that the volume has.

    Args:
        label: of a volume.
        ending: of the files, ``stl`` or ``obj``.
    """
    write = write_stl if ending == "stl" else write_obj
    for item in label.classes:
        name = f"surface.{item.file_name}.{ending}"
        yield name, partial(write, label, item) if item in label.present else None


def surface_of(mask: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The closed surface of a mask, of which the centers of the same voxels are inside.

    It is the surface at 0.5 of the smoothed mask. A voxel keeps its side of it, so that nothing
    that is thin or small is lost.

    Args:
        mask: ``(*spatial)``, with at least one voxel.
        affine: from voxels to mm.

    Returns:
        Vertices in mm, float64 ``(vertices, 3)``, and the triangles' indices of them
        ``(triangles, 3)``, counterclockwise as seen from outside.
    """
    from scipy import ndimage
    from skimage.measure import marching_cubes

    [box] = ndimage.find_objects(mask.astype(np.uint8))
    inside = np.pad(mask[box], PAD)
    smooth = ndimage.gaussian_filter(inside.astype(np.float32), SIGMA, mode="constant")
    np.maximum(smooth, 0.5 + MARGIN, out=smooth, where=inside)
    np.minimum(smooth, 0.5 - MARGIN, out=smooth, where=~inside)
    vertices, triangles, _, _ = marching_cubes(smooth, 0.5, gradient_direction="ascent")
    places = vertices.astype(np.float64) - PAD + [side.start for side in box]
    if np.linalg.det(affine[:3, :3]) < 0:  # it mirrors
        triangles = triangles[:, ::-1]
    return places @ affine[:3, :3].T + affine[:3, 3], triangles


def write_stl(label: LabelMap, item: LabelClass, path: str) -> None:
    """Write the surface of a class as binary STL."""
    vertices, triangles = surface_of(label.voxels == item.number, label.lps)
    table = np.zeros(len(triangles), TRIANGLE)
    corners = vertices[triangles]  # (triangles, 3, 3)
    across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    length = np.linalg.norm(across, axis=1, keepdims=True)
    table["normal"] = across / np.where(length > 0, length, 1)
    table["corners"] = corners
    header = f"ldseg_monai {SPACE}; {label.remark}".encode("ascii", "replace")[:HEADER]
    with open(path, "wb") as file:
        file.write(header.ljust(HEADER))
        file.write(np.uint32(len(table)).astype("<u4").tobytes())
        file.write(table.tobytes())


def write_obj(label: LabelMap, item: LabelClass, path: str) -> None:
    """Write the surface of a class as OBJ."""
    vertices, triangles = surface_of(label.voxels == item.number, label.lps)
    with open(path, "w", encoding="utf-8") as file:
        file.write(f"# ldseg_monai {SPACE}\n")
        if label.remark:
            file.write(f"# {label.remark}\n")
        file.write(f"o {item.file_name}\n")
        np.savetxt(file, vertices, "v %.4f %.4f %.4f")
        np.savetxt(file, triangles + 1, "f %d %d %d")
