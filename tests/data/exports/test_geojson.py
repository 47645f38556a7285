"""Outlines of objects, filled again and held to what the OGC and QuPath want of them."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from export_phantoms import blobs, label_of, write_metadata
from jsonschema import validate
from matplotlib.path import Path as Outline
from scipy import ndimage

from ldseg_monai.data.exports import SaveImageAsd
from ldseg_monai.data.exports.geojson import Place, feature_of
from ldseg_monai.data.exports.label_map import LabelClass
from ldseg_monai.data.exports.outlines import between_pixels, objects_in_strips, objects_of, rings

SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["type", "features"],
    "properties": {
        "type": {"const": "FeatureCollection"},
        "features": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["type", "id", "geometry", "properties"],
                "additionalProperties": False,
                "properties": {
                    "type": {"const": "Feature"},
                    "id": {"type": "string", "format": "uuid"},
                    "geometry": {
                        "type": "object",
                        "required": ["type", "coordinates"],
                        "properties": {
                            "type": {"const": "Polygon"},
                            "coordinates": {
                                "type": "array",
                                "minItems": 1,
                                "items": {
                                    "type": "array",
                                    "minItems": 5,
                                    "items": {
                                        "type": "array",
                                        "minItems": 2,
                                        "maxItems": 2,
                                        "items": {"type": "integer", "minimum": 0},
                                    },
                                },
                            },
                        },
                    },
                    "properties": {
                        "type": "object",
                        "required": ["objectType", "classification", "measurements"],
                        "properties": {
                            "objectType": {"const": "detection"},
                            "classification": {
                                "type": "object",
                                "required": ["name", "color"],
                                "properties": {
                                    "name": {"type": "string"},
                                    "color": {
                                        "type": "array",
                                        "minItems": 3,
                                        "maxItems": 3,
                                        "items": {"type": "integer", "minimum": 0, "maximum": 255},
                                    },
                                },
                            },
                            "measurements": {
                                "type": "object",
                                "additionalProperties": {"type": "number"},
                            },
                        },
                    },
                },
            },
        },
    },
}  # fmt: skip


def written(folder: Path, voxels: np.ndarray, **arguments: Any) -> dict[str, Any]:
    """What is written of a picture `(rows, columns)`."""
    save = SaveImageAsd("pred", str(folder), "geojson", write_metadata(folder), **arguments)
    save({"pred": label_of("slide.png", voxels.T)})
    content: dict[str, Any] = json.loads((folder / "slide_objects.geojson").read_text())
    return content


def inside(shape: tuple[int, int], ring: Any) -> np.ndarray:
    """Which pixels' centers are inside a ring of (x, y), where the first center is at (0, 0)."""
    centers = np.indices(shape)[::-1].reshape(2, -1).T
    return Outline(ring).contains_points(centers).reshape(shape)


def area(ring: Any) -> float:
    """By the shoelace formula, positive if counterclockwise where y goes up."""
    x, y = np.array(ring, float).T
    return float((x[:-1] * y[1:] - x[1:] * y[:-1]).sum() / 2)


def filled(shape: tuple[int, int], polygon: list[Any]) -> np.ndarray:
    outer, *holes = polygon
    mask = inside(shape, np.array(outer) - 0.5)
    for hole in holes:
        lost = inside(shape, np.array(hole) - 0.5)
        assert mask[lost].all()
        mask &= ~lost
    return mask


def picture(*rows: str) -> np.ndarray:
    return np.array([[int(pixel) for pixel in row] for row in rows], np.uint8)


PICTURES = {
    "hole": picture("11111", "10001", "10201", "10001", "11111"),
    "corners": picture("1010", "0101", "1010"),
    "hole_at_corner": picture("1110", "1011", "1101", "0111"),
    "meets_itself_at_a_corner": picture("11100", "10100", "11011", "10001", "11111"),
    "border": picture("1111", "1111"),
    "one_pixel": picture("2"),
    "empty": picture("000", "000"),
    "chance": blobs((31, 43)),
    "more_chance": (blobs((60, 50), 1) > 0).astype(np.uint8),
}


@pytest.mark.parametrize("name", PICTURES)
def test_polygons_filled_again_are_the_mask(tmp_path: Path, name: str) -> None:
    voxels = PICTURES[name]
    content = written(tmp_path, voxels)
    validate(content, SCHEMA)
    back = np.zeros_like(voxels)
    for feature in content["features"]:
        number = {"femur": 1, "left/right lump": 2}[feature["properties"]["classification"]["name"]]
        polygon = feature["geometry"]["coordinates"]
        mask = filled(voxels.shape, polygon)
        assert not back[mask].any()
        assert feature["properties"]["measurements"] == {"Area px^2": mask.sum()}
        assert sum(map(area, polygon)) == mask.sum()
        back[mask] = number
    assert np.array_equal(back, voxels)
    objects = [ndimage.label(voxels == number)[1] for number in (1, 2)]
    assert len(content["features"]) == sum(objects)
    identities = [feature["id"] for feature in content["features"]]
    assert len({uuid.UUID(identity) for identity in identities}) == len(identities)


@pytest.mark.parametrize("name", PICTURES)
def test_rings_are_simple_closed_and_in_the_right_turn(tmp_path: Path, name: str) -> None:
    for feature in written(tmp_path, PICTURES[name])["features"]:
        outer, *holes = feature["geometry"]["coordinates"]
        assert area(outer) > 0 and all(area(hole) < 0 for hole in holes)
        for ring in (outer, *holes):
            assert ring[0] == ring[-1]
            corners = list(map(tuple, ring[:-1]))
            assert len(set(corners)) == len(corners)
            steps = np.diff(ring, axis=0)
            assert (np.count_nonzero(steps, axis=1) == 1).all()  # along the pixels' edges
            assert (steps[:, 0] * np.roll(steps[:, 0], 1) == 0).all()  # and each turns


def test_holes_are_rings_of_their_object(tmp_path: Path) -> None:
    outer, lump = written(tmp_path, PICTURES["hole"])["features"]
    assert outer["geometry"]["coordinates"] == [
        [[0, 0], [5, 0], [5, 5], [0, 5], [0, 0]],
        [[1, 1], [1, 4], [4, 4], [4, 1], [1, 1]],
    ]
    assert lump["geometry"]["coordinates"] == [[[2, 2], [3, 2], [3, 3], [2, 3], [2, 2]]]


def test_identities_stay_and_are_of_the_object(tmp_path: Path) -> None:
    voxels = PICTURES["chance"]
    first = [feature["id"] for feature in written(tmp_path, voxels)["features"]]
    assert first == [feature["id"] for feature in written(tmp_path, voxels)["features"]]
    voxels = voxels.copy()
    voxels[-1, -1] = 0 if voxels[-1, -1] else 1
    changed = [feature["id"] for feature in written(tmp_path, voxels)["features"]]
    assert len(set(first) ^ set(changed)) < 5


def test_colors_are_the_bundle_s(tmp_path: Path) -> None:
    features = written(tmp_path, PICTURES["hole"], colors={"femur": [1, 2, 3]})["features"]
    found = [feature["properties"]["classification"]["color"] for feature in features]
    assert found == [[1, 2, 3], [70, 170, 255]]


def test_features_are_written_one_after_the_other(tmp_path: Path) -> None:
    written(tmp_path, PICTURES["chance"])
    lines = (tmp_path / "slide_objects.geojson").read_text().splitlines()
    assert [json.loads(line.rstrip(","))["type"] for line in lines[1:-1]] == ["Feature"] * (
        len(lines) - 2
    )


# Outlines with their corners cut


@pytest.mark.parametrize("name", PICTURES)
def test_one_outline_with_channels_has_the_same_centers_inside(name: str) -> None:
    mask = PICTURES[name] == 1
    back = np.zeros(mask.shape, int)
    for part, (row, column) in objects_of(mask):
        outline = between_pixels(rings(part)) + (column, row)
        back += inside(mask.shape, np.concatenate([outline, outline[:1]]))
    assert np.array_equal(back, mask)


def test_outline_of_a_diagonal_is_straight() -> None:
    [(mask, _)] = objects_of(np.tri(50, dtype=bool))
    assert len(between_pixels(rings(mask))) == 6  # three sides, and a cut at each corner


@pytest.mark.parametrize("heights", [[60], [1] * 60, [7, 1, 30, 22], [59, 1]])
@pytest.mark.parametrize("share", [0.3, 0.5, 0.65])  # specks; snakes; one object with holes
def test_objects_of_strips_are_those_of_the_whole(heights: list[int], share: float) -> None:
    classes = np.random.default_rng(0).choice(3, (60, 40), p=[1 - share, share * 0.9, share * 0.1])
    strips = np.split(classes, np.cumsum(heights)[:-1])
    for number in (1, 2):
        found = objects_in_strips(strips, number)
        whole = [(place, mask.tolist()) for mask, place in objects_of(classes == number)]
        assert sorted((place, mask.tolist()) for mask, place in found) == sorted(whole)


def test_an_outline_is_in_pixels_of_the_slide_s_own_level() -> None:
    item = LabelClass(1, "gland", (255, 0, 0), "gland")
    place = Place("slide", (2.48, 2.5), (0.25, 0.24))
    feature = feature_of(place, item, np.ones((3, 4), bool), (10, 20))
    left, right, top, bottom = 49.6, 59.52, 25.0, 32.5
    assert feature["geometry"]["coordinates"] == [
        [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]
    ]
    area = (right - left) * (bottom - top)
    measured = feature["properties"]["measurements"]
    assert measured["Area px^2"] == pytest.approx(area)
    assert measured["Area µm^2"] == pytest.approx(area * 0.25 * 0.24)
