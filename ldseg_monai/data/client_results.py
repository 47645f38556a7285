"""What a client that writes masks itself is told before it does, so that none is wrong.

MONAI Label (0.8.5) writes a mask in the kind of its image, by ITK: a JPEG's with the losses of
JPEG, a NIfTI's by one affine, whatever the forms of the image's header are.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from monai.data import MetaTensor

from ldseg_monai.data.checks import MAX_SHIFT
from ldseg_monai.data.formats import FORMS, spread
from ldseg_monai.data.formats.kinds import NIFTI_ENDINGS
from ldseg_monai.runtime.errors import InputError

IMAGE_PATH = "image_path"  # in MONAI Label's data beside the image that it was sent
ENDING = "result_extension"  # in its data: of the file that the mask goes to, as the client asks
KEEPS_FORMS = "keeps_image_forms"  # in the data of a task that `write_image_forms` has changed
# Of files that are whole in one, and keep a volume's classes, or a picture's
VOLUMES = (*NIFTI_ENDINGS, ".nrrd", ".mha")
PICTURES = (".png", ".tif", ".tiff", *VOLUMES)


def prepare_client_result(data: dict[Any, Any], image: MetaTensor) -> None:
    """Choose the file of the mask that a client will write, in place; without a client do nothing.

    Args:
        data: the client's.
        image: that was read, ``(C, *spatial)``.

    Raises:
        ValueError: for an ending whose files do not keep classes, or a volume that programs see in
            several places, where the mask would be in one.
    """
    path = data.get(IMAGE_PATH)
    if not isinstance(path, str):
        return
    is_volume = image.ndim == 4
    allowed = VOLUMES if is_volume else PICTURES
    asked = data.get(ENDING)
    if asked:
        if not str(asked).lower().endswith(allowed):
            raise InputError(
                f"{ENDING} is {asked!r}: expected a kind of file that keeps the classes of "
                f"{path}, one of {', '.join(allowed)}"
            )
        ending = str(asked).lower()
    else:
        fitting = [end for end in allowed if path.lower().endswith(end)]
        ending = [*fitting, allowed[0]][0]
    data[ENDING] = ending
    if is_volume and not (data.get(KEEPS_FORMS) and ending.endswith(NIFTI_ENDINGS)):
        _require_one_place(path, image, ending)


def _require_one_place(path: str, image: MetaTensor, ending: str) -> None:
    affine = np.asarray(image.affine, dtype=float)
    apart = spread(affine, image.meta.get(FORMS), image.shape[1:])
    if apart <= MAX_SHIFT:
        return
    raise InputError(
        f"{path} has a header by which programs see it in places {apart:.3g} voxels apart, and a "
        f"mask in a {ending} by MONAI Label's own writer would be in one of them: expected one "
        "place; write the image with one affine and its code, or have a .nii.gz written by an app "
        "with with_image_forms (docs/monai_label.md)"
    )
