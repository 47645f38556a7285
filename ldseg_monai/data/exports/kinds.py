"""Which kinds of files a label map can be written as, and which image each fits."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import NamedTuple

from monai.utils import ensure_tuple

from ldseg_monai.runtime.errors import InputError, MissingPackageError
from ldseg_monai.runtime.nearest import did_you_mean


class Kind(NamedTuple):
    """A kind of file.

    Attributes:
        spatial_dims: of the images that it fits.
        of_dicom: whether it fits DICOM series alone.
        module: that writes it, of a package that need not be installed; "" for none.
        package: with that module.
        extra: of this package, that brings it.
    """

    spatial_dims: int
    of_dicom: bool = False
    module: str = ""
    package: str = ""
    extra: str = ""

    @property
    def fits(self) -> str:
        """The images that it fits, in words."""
        if self.of_dicom:
            return "DICOM series"
        return "volumes" if self.spatial_dims == 3 else "pictures"


OWN = "own"  # the kind of the image itself, where it is one of these
OWN_ENDINGS = {"mha": (".mha", ".mhd"), "nrrd": (".nrrd", ".nhdr")}
KINDS = {
    "mha": Kind(3),
    "nrrd": Kind(3),
    "stl": Kind(3, module="skimage", package="scikit-image", extra="exports"),
    "obj": Kind(3, module="skimage", package="scikit-image", extra="exports"),
    "rtstruct": Kind(3, of_dicom=True, module="pydicom", package="pydicom", extra="dicom"),
    "labelmap": Kind(3, of_dicom=True, module="highdicom", package="highdicom", extra="dicom"),
    "geojson": Kind(2),
    "tiff": Kind(2, module="tifffile", package="tifffile", extra="exports"),
    OWN: Kind(3),
}


def check_kinds(
    kinds: str | Sequence[str], spatial_dims: int | None = None, is_dicom: bool | None = None
) -> tuple[str, ...]:
    """Check that label maps can be written as these kinds of files, before they are made.

    Args:
        kinds: of files, each of `KINDS`.
        spatial_dims: of the images, 3 for volumes and 2 for pictures; None for not known yet.
        is_dicom: whether they are DICOM series; None for not known yet.

    Returns:
        The kinds, each once.

    Raises:
        ValueError: for a kind that there is none of, or that does not fit the images.
        ImportError: for a kind whose package is not installed.
    """
    names = tuple(dict.fromkeys(ensure_tuple(kinds)))
    for name in names:
        if name not in KINDS:
            near = did_you_mean(str(name), KINDS)
            raise InputError(f"kind of file {name!r}: expected some of {', '.join(KINDS)}{near}")
        kind = KINDS[name]
        is_other = spatial_dims is not None and spatial_dims != kind.spatial_dims
        if is_other or (kind.of_dicom and is_dicom is False):
            shown = "a volume that is no DICOM series" if spatial_dims == 3 else "a picture"
            if is_other and spatial_dims == 3:
                shown = "a volume"
            fitting = [
                other
                for other, each in KINDS.items()
                if each.spatial_dims == spatial_dims and (is_dicom or not each.of_dicom)
            ]
            raise InputError(
                f"kind of file {name!r} for {shown}: it fits {kind.fits}; expected some of "
                f"{', '.join(fitting)}"
            )
        if kind.module and find_spec(kind.module) is None:
            raise MissingPackageError(
                f"kind of file {name!r} takes {kind.package}: pip install "
                f"'ldseg_monai[{kind.extra}]', or leave it out"
            )
    return names


def kinds_of(kinds: Sequence[str], image: str) -> tuple[str, ...]:
    """The kinds of files of one image's label map, each once: ``own`` is what the image is.

    Args:
        kinds: of files, as of `check_kinds`.
        image: path of its file.
    """
    own = [kind for kind, ends in OWN_ENDINGS.items() if image.lower().endswith(ends)]
    found: list[str] = []
    for kind in kinds:
        found += own if kind == OWN else [kind]
    return tuple(dict.fromkeys(found))
