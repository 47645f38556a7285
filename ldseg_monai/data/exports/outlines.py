"""Outlines of the objects of a mask, as simple polygons along the edges of its pixels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

# Along +x, +y, -x, -y: where an edge in this direction begins, in (row, column) from that of the
# pixel on its left hand, and the step that it makes. Rows grow along y.
BEGINS = np.array([(0, 0), (0, 1), (1, 1), (1, 0)])
STEPS = np.array([(0, 1), (1, 0), (0, -1), (-1, 0)])


def objects_of(mask: np.ndarray) -> Iterator[tuple[np.ndarray, tuple[int, int]]]:
    """The objects of a mask: pixels that hang together by their sides.

    Pixels that touch at corners alone are two objects, so that an outline never meets itself.

    Args:
        mask: ``(rows, columns)``.

    Yields:
        The mask of an object, cut out, and the row and column of its first pixel there.
    """
    from scipy import ndimage

    labels, _ = ndimage.label(mask)  # by sides
    for number, (rows, columns) in enumerate(ndimage.find_objects(labels), start=1):
        yield labels[rows, columns] == number, (rows.start, columns.start)


def objects_in_strips(
    strips: Iterable[np.ndarray], number: int
) -> Iterator[tuple[np.ndarray, tuple[int, int]]]:
    """The objects of a class of a label map whose rows come strip by strip.

    They are those of `objects_of`, each as soon as no further row touches it. Of the rows, those
    from the first of an object that is not complete are in memory.

    Args:
        strips: class indices, ``(rows, columns)`` each, the upper ones first.
        number: of the class.

    Yields:
        As of `objects_of`, in the whole label map.
    """
    top = 0  # the row that the mask begins at
    mask = np.zeros((0, 0), bool)
    for strip in strips:
        mask = np.concatenate([mask.reshape(-1, strip.shape[1]), strip == number])
        begin = len(mask)  # of what is not complete
        is_open = np.zeros_like(mask)
        for cut, (row, column) in objects_of(mask):
            if row + len(cut) < len(mask):
                yield cut, (top + row, column)
            else:
                is_open[row : row + len(cut), column : column + cut.shape[1]] |= cut
                begin = min(begin, row)
        mask, top = is_open[begin:].copy(), top + begin
    if mask.size:
        for cut, (row, column) in objects_of(mask):
            yield cut, (top + row, column)


def rings(mask: np.ndarray) -> list[np.ndarray]:
    """Outlines of one object of `objects_of`: the outer one, then those of its holes.

    Each is a simple polygon, no corner of which comes twice; two may share corners. So they are
    valid as the OGC has polygons.

    Args:
        mask: of the object, ``(rows, columns)``.

    Returns:
        Rings ``(points, 2)``, x and y of every corner of a pixel along the way, the last one not
        the first again. Pixel (row, column) is the square from (column, row) to (column + 1,
        row + 1). The area to the left of the way (x to the right, y up) is the object's, so that
        the outer ring has a positive area by the shoelace formula, and holes a negative one.
    """
    padded = np.pad(mask, 1)
    width = mask.shape[1] + 1  # corners in a row
    outside = [padded[:-2, 1:-1], padded[1:-1, 2:], padded[2:, 1:-1], padded[1:-1, :-2]]
    begins: list[np.ndarray] = []
    directions: list[np.ndarray] = []
    for direction in range(4):
        pixels = np.argwhere(mask & ~outside[direction])
        begins.append(pixels + BEGINS[direction])
        directions.append(np.full(len(pixels), direction))
    begin = np.concatenate(begins)
    direction_of = np.concatenate(directions)
    keys = (begin[:, 0] * width + begin[:, 1]) * 4 + direction_of
    order = np.argsort(keys)
    begin, direction_of, keys = begin[order], direction_of[order], keys[order]
    following = _following(begin, direction_of, keys, width).tolist()
    found = []
    is_done = [False] * len(keys)
    for first in range(len(keys)):  # the first edge of all is of the outer ring
        way = []
        edge = first
        while not is_done[edge]:
            is_done[edge] = True
            way.append(edge)
            edge = following[edge]
        if way:
            found.append(begin[way, ::-1])  # x, y
    return found


def _following(
    begin: np.ndarray, direction: np.ndarray, keys: np.ndarray, width: int
) -> np.ndarray:
    """Which edge follows each; where two may, the one around the same pixel of the background."""
    end = begin + STEPS[direction]
    corner = (end[:, 0] * width + end[:, 1]) * 4
    following = np.full(len(keys), -1)
    for turn in (1, 0, -1):  # the later has the last word
        wanted = corner + (direction + turn) % 4
        place = np.searchsorted(keys, wanted).clip(max=len(keys) - 1)
        is_there = keys[place] == wanted
        following[is_there] = place[is_there]
    return following


def without_straight_points(ring: np.ndarray) -> np.ndarray:
    """A ring without the points at which it goes straight on."""
    before = ring - np.roll(ring, 1, axis=0)
    after = np.roll(ring, -1, axis=0) - ring
    turns = before[:, 0] * after[:, 1] != before[:, 1] * after[:, 0]
    goes_back = (before * after).sum(axis=1) < 0
    return ring[turns | goes_back]


def between_pixels(parts: Sequence[np.ndarray]) -> np.ndarray:
    """One outline of an object, with its corners cut, through the middles between pixels' centers.

    The centers of the same pixels are inside, and it has fewer steps: without holes it is the
    outline at 0.5 of a mask of 0 and 1 that is interpolated between centers. Each hole is at the
    end of a channel without width, which DICOM calls keyhole, for formats in which an outline has
    no holes. Channels go between rows of pixels, so that no center is on one.

    Args:
        parts: rings of the object, as of `rings`.

    Returns:
        Points ``(points, 2)``, x and y, where (0, 0) is the center of the first pixel.
    """
    outer, *holes = parts
    points, is_kept = _with_middles(outer)
    # What is to the left of a hole is joined before it
    for hole in sorted(holes, key=lambda ring: int(ring[:, 0].min())):
        inner, is_kept_inside = _with_middles(hole)
        start = 2 * int(hole[:, 0].argmin())
        beside = (points[:, 1] == inner[start, 1]) & (points[:, 0] <= inner[start, 0])
        end = int(np.argmax(np.where(beside, points[:, 0], -1)))
        is_kept[end] = is_kept_inside[start] = True
        touches = int(points[end, 0] == inner[start, 0])  # a channel without length either
        way_in = slice(start + touches, None)
        way_out = slice(None, start + 1)
        points, is_kept = (
            np.concatenate([whole[: end + 1], part[way_in], part[way_out], whole[end + touches :]])
            for whole, part in ((points, inner), (is_kept, is_kept_inside))
        )
    return without_straight_points(points[is_kept]) - 0.5


def _with_middles(ring: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A ring with the middles between its points behind each, and which points are middles."""
    middles = (ring + np.roll(ring, -1, axis=0)) / 2
    points = np.stack([ring, middles], axis=1).reshape(-1, 2)
    return points, np.arange(len(points)) % 2 == 1
