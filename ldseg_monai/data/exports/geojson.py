"""Objects of pictures as GeoJSON, as QuPath opens it."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from functools import partial
from typing import Any

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
    head = {"type": "FeatureCollection"}
    if label.remark:
        head[OUTSIDE] = label.remark
    with open(path, "w", encoding="utf-8") as file:
        file.write(f'{json.dumps(head)[:-1]}, "features": [')
        separator = "\n"
        for item in label.present:
            for feature in _features(label, item):
                file.write(separator + json.dumps(feature))
                separator = ",\n"
        file.write("\n]}\n")


def _features(label: LabelMap, item: LabelClass) -> Iterator[dict[str, Any]]:
    """The objects of a class, in the order of their first pixels.

    Outlines go along pixels' edges, in pixels of the whole picture from its upper left corner on,
    so that an object of one pixel has an area of 1.
    """
    for mask, (row, column) in objects_of(label.voxels.T == item.number):
        polygon = []
        for ring in rings(mask):
            corners = without_straight_points(ring) + (column, row)
            polygon.append([*corners.tolist(), corners[0].tolist()])
        first = column + int(np.argmax(mask[0]))
        yield {
            "type": "Feature",
            "id": str(uuid.uuid5(NAMESPACE, f"{label.name}/{item.name}/{row},{first}")),
            "geometry": {"type": "Polygon", "coordinates": polygon},
            "properties": {
                "objectType": "detection",
                "classification": {"name": item.name, "color": list(item.color)},
                "measurements": {"Area px^2": int(np.count_nonzero(mask))},
            },
        }
