"""The frames of an enhanced (multi-frame) DICOM image, each as the slice that it is."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ldseg_monai.runtime.errors import InputError, UserError, one_line

if TYPE_CHECKING:
    from pydicom import Dataset

SHARED_GROUPS = "SharedFunctionalGroupsSequence"
FRAME_GROUPS = "PerFrameFunctionalGroupsSequence"
# SOP classes of images whose frames are slices; of others, such as segmentations, they are not
ENHANCED = (
    "1.2.840.10008.5.1.4.1.1.2.1",  # CT
    "1.2.840.10008.5.1.4.1.1.2.2",  # CT, converted from single slices
    "1.2.840.10008.5.1.4.1.1.4.1",  # MR
    "1.2.840.10008.5.1.4.1.1.4.4",  # MR, converted
    "1.2.840.10008.5.1.4.1.1.130",  # PET
    "1.2.840.10008.5.1.4.1.1.128.1",  # PET, converted
)
# Functional groups with what a slice says of itself (PS3.3 C.7.6.16)
PLACE_GROUPS = ("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence")
GROUPS = (*PLACE_GROUPS, "FrameContentSequence", "MREchoSequence", "MRDiffusionSequence")
# What is one for all frames of a volume, and how several are called
ONE_OF_EACH = {
    "StackID": "stacks",
    "TemporalPositionIndex": "times",
    "EffectiveEchoTime": "echo times",
    "DiffusionBValue": "b-values",
}


def is_enhanced(header: Dataset) -> bool:
    """Whether the frames of an object are slices of volumes."""
    return header.get("SOPClassUID") in ENHANCED and bool(header.get(FRAME_GROUPS))


def frames_of(header: Dataset) -> list[Dataset]:
    """The frames of an enhanced image, in the file's order, as headers of slices.

    Each has what the image says of itself and what its functional groups say, and ``frame``, its
    number from 0 on.

    Raises:
        ValueError: if the image has another number of frames than it describes.
    """
    from pydicom import Dataset

    own_groups = header[FRAME_GROUPS].value
    if len(own_groups) != (header.get("NumberOfFrames") or 1):
        raise InputError(
            f"its NumberOfFrames is {header.get('NumberOfFrames')}: expected {len(own_groups)}, as "
            "many as it describes"
        )
    frames = []
    for number, own in enumerate(own_groups):
        frame = Dataset()
        for element in header:
            if element.keyword not in (SHARED_GROUPS, FRAME_GROUPS, "NumberOfFrames"):
                frame.add(element)
        for name in GROUPS:
            frame.update(group_of(header, own, name))
        frame.filename, frame.frame = header.filename, number
        frames.append(frame)
    return frames


def group_of(header: Dataset, own: Dataset, name: str) -> Dataset:
    """A functional group of a frame, its own or that of all frames; empty where there is none.

    Args:
        header: of the image.
        own: item of the frame in its sequence of functional groups.
        name: keyword of the group's sequence.
    """
    from pydicom import Dataset

    shared: Sequence[Dataset] = header.get(SHARED_GROUPS) or []
    for groups in (own, *shared[:1]):
        if items := groups.get(name):
            return items[0]
    return Dataset()


def place_name(item: Dataset) -> str:
    """The file of a slice and, of an enhanced image, the number of its frame."""
    number = getattr(item, "frame", None)
    return str(item.filename) if number is None else f"{item.filename} (frame {number + 1})"


def require_one_volume(slices: Sequence[Dataset]) -> None:
    """Check that frames are of one stack, time, echo and b-value.

    Raises:
        ValueError: naming those of which there are several.
    """
    found = []
    for keyword, name in ONE_OF_EACH.items():
        values = {str(item.get(keyword, "")) for item in slices}
        if len(values) > 1:
            found.append(f"{len(values)} {name}")
    if found:
        raise InputError(
            f"{slices[0].filename} has {len(slices)} frames of {' and '.join(found)}: expected one "
            "volume; write each volume as a series of its own, such as NIfTI by dcm2niix"
        )


def mirrored(pixels: NDArray[Any], item: Dataset) -> NDArray[np.int64]:
    """Pixels of MONOCHROME1, whose largest is the darkest, in the range that their bits have."""
    signed = bool(item.get("PixelRepresentation", 0))
    ends = -1 if signed else 2 ** int(item.BitsStored) - 1  # lowest and highest together
    return ends - pixels.astype(np.int64)


@contextmanager
def reading_header(path: str) -> Iterator[None]:
    """Read what the header of a file says.

    Raises:
        ValueError: if it is broken.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # whatever a broken file brings about
        raise InputError(
            f"{path} cannot be read as DICOM ({one_line(error)}): expected a whole file; repair it"
        ) from error


@contextmanager
def decoding(path: str) -> Iterator[None]:
    """Decode the pixels of a file: pydicom's logging of each decoder that fails is silenced.

    Raises:
        ValueError: if the pixels cannot be decoded.
    """
    pydicom = logging.getLogger("pydicom")
    level = pydicom.level
    try:
        pydicom.setLevel(logging.CRITICAL + 1)
        yield
    except InputError:
        raise
    except Exception as error:  # pydicom and the decoders that it may call raise many kinds
        raise InputError(
            f"{path}: pixels cannot be read ({one_line(error)}): repair the file or, if they are "
            "compressed, install decoders (pip install 'ldseg_monai[dicom]'), or decompress them"
        ) from error
    finally:
        pydicom.setLevel(level)
