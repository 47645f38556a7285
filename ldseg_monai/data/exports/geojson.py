"""Objects of pictures as GeoJSON, as QuPath opens it."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from ldseg_monai.data.checks import OUTSIDE
from ldseg_monai.data.exports.label_map import File, LabelClass, LabelMap
from ldseg_monai.data.exports.outlines import objects_of, rings, without_straight_points

NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "ldseg_monai/objects")


def geojson_files(label: LabelMap) -> Iterator[File]:
    """The file ``NAME_objects.geojson``."""
    yield "objects.geojson", partial(write_geojson, label)


def write_geojson(label: LabelMap, path: str) -> None:
    """Write a feature an object, one after the other, so that one at a time is in memory."""
    place = Place(label.name)
    features = (
        feature_of(place, item, *found)
        for item in label.present
        for found in objects_of(label.voxels.T == item.number)
    )
    write_features(path, features, label.remark)


class Place(NamedTuple):
    """Where the objects of a label map are.

    Attributes:
        name: of the case.
        scale: pixels of the image's file a pixel of the label map, along columns and rows.
        microns: micrometers of a pixel of the image's file; None where they are not known.
    """

    name: str
    scale: tuple[float, float] = (1, 1)
    microns: tuple[float, float] | None = None


def write_features(path: str, features: Iterable[dict[str, Any]], remark: str = "") -> None:
    """Write features as they come.

    Args:
        path: of the file.
        features: of `feature_of`.
        remark: why the weights do not know the image; "" if they do.
    """
    head = {"type": "FeatureCollection"}
    if remark:
        head[OUTSIDE] = remark
    with open(path, "w", encoding="utf-8") as file:
        file.write(f'{json.dumps(head)[:-1]}, "features": [')
        separator = "\n"
        for feature in features:
            file.write(separator + json.dumps(feature))
            separator = ",\n"
        file.write("\n]}\n")


def feature_of(
    place: Place, item: LabelClass, mask: np.ndarray, corner: tuple[int, int]
) -> dict[str, Any]:
    """An object as a feature.

    Its outline goes along pixels' edges, in pixels of the image's file from its upper left corner
    on, so that an object of one pixel has an area of 1.

    Args:
        place: of the label map.
        item: the object's class.
        mask: of the object, cut out, ``(rows, columns)``.
        corner: row and column of the mask's first pixel.
    """
    row, column = corner
    polygon = []
    for ring in rings(mask):
        corners = without_straight_points(ring) + (column, row)
        if place.scale != (1, 1):
            corners = (corners * place.scale).round(2)
        polygon.append([*corners.tolist(), corners[0].tolist()])
    first = column + int(np.argmax(mask[0]))
    pixels = int(np.count_nonzero(mask))
    area = pixels * place.scale[0] * place.scale[1]
    measurements = {"Area px^2": pixels if place.scale == (1, 1) else round(area, 2)}
    if place.microns is not None:
        measurements["Area µm^2"] = round(area * place.microns[0] * place.microns[1], 3)
    return {
        "type": "Feature",
        "id": str(uuid.uuid5(NAMESPACE, f"{place.name}/{item.name}/{row},{first}")),
        "geometry": {"type": "Polygon", "coordinates": polygon},
        "properties": {
            "objectType": "detection",
            "classification": {"name": item.name, "color": list(item.color)},
            "measurements": measurements,
        },
    }
