"""Whether label values number the things in an image, instead of naming their kinds."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

FEWEST = 5  # values in some case: fewer are taken for classes
SINGLE = 0.9  # share of the values, each in its case, that are one piece
COMMON = 0.5  # share of the cases that have a value, on average: classes are in more than it


def values_in_one_piece(label: NDArray) -> int:
    """How many values of a label are one connected piece; 0 of so few that they are no instances.

    Args:
        label: whole numbers, ``(*spatial)``, 0 for the background.
    """
    values = np.unique(label)
    values = values[values > 0]
    if len(values) < FEWEST:
        return 0
    # Ids without gaps, since `find_objects` has an entry for each number up to the largest.
    ids = np.where(label > 0, np.searchsorted(values, label) + 1, 0)  # (*spatial)
    touching = ndimage.generate_binary_structure(label.ndim, label.ndim)
    single = 0
    for number, place in enumerate(ndimage.find_objects(ids), start=1):
        _, pieces = ndimage.label(ids[place] == number, touching)
        single += pieces == 1
    return single


def are_instances(values: Sequence[Collection[int]], single: Sequence[int]) -> bool:
    """Whether the label values of a data set look like numbers of things.

    Numbers of things are many, each of one piece; and either each case has some of its own, or they
    are counted from 1 in every case, up to another number.

    Args:
        values: those of each case, without 0.
        single: of each case, how many are one piece: `values_in_one_piece`.
    """
    counted = [(own, pieces) for own, pieces in zip(values, single, strict=True) if pieces]
    total = sum(len(own) for own, _ in counted)
    if not total or sum(pieces for _, pieces in counted) < SINGLE * total:
        return False
    every = set().union(*map(set, values))
    share = sum(len(own) for own in values) / (len(values) * len(every))
    from_one = all(len(own) == max(own, default=0) for own in values)
    sizes = {len(own) for own in values}
    return share <= COMMON or (from_one and len(sizes) > 1)
