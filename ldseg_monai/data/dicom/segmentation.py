"""Label maps as DICOM segmentations."""

from __future__ import annotations

import json
import logging
from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from monai.config import KeysCollection
from monai.transforms import SaveImaged

from ldseg_monai import __version__
from ldseg_monai.data.checks import OUTSIDE
from ldseg_monai.data.dicom.frames import FRAME_GROUPS, PLACE_GROUPS, SHARED_GROUPS
from ldseg_monai.data.dicom.series import (
    read_dicom,
    read_series,
    require_referred,
    slice_affine,
)
from ldseg_monai.data.writers import output_name
from ldseg_monai.runtime.errors import InputError, one_line, printable
from ldseg_monai.runtime.files import note_saved, whole_file
from ldseg_monai.runtime.ownership import place_of

if TYPE_CHECKING:
    from highdicom.seg import Segmentation, SegmentDescription
    from pydicom import Dataset
from ldseg_monai.data.dicom.reader import SERIES_UID

logger = logging.getLogger("ldseg_monai.data.dicom.segmentation")
MAY_BE_EMPTY = (
    "PatientID PatientName PatientBirthDate PatientSex AccessionNumber StudyID StudyDate "
    "StudyTime"  # but not missing
).split()
TISSUE = ("85756007", "SCT", "Tissue")


class SaveImageDicomSegd(SaveImaged):
    """Write label maps as DICOM segmentations, ``NAME_seg.dcm``, where the image was DICOM.

    One binary segment a class, on the slices of the series and with references to them. It is a
    ``SaveImaged`` so that clients which write results themselves, such as MONAI Label, leave it
    out.

    Args:
        keys: keys of label maps, ``(1, columns, rows, slices)`` in the image's own geometry.
        output_dir: folder that they are written to.
        metadata: the bundle's ``metadata.json``. Its ``name`` and ``version`` identify the
            algorithm; ``channel_def`` of the output of this key names the segments, and
            ``channel_codes`` beside it, where a class has any, gives the codes of each (value,
            scheme, meaning) as ``category``, ``type`` and, optional, ``modifier`` of the type. A
            class without codes is tissue.
        output_postfix: what follows the image's name.
        allow_missing_keys: whether a missing key is passed over.
    """

    def __init__(
        self,
        keys: KeysCollection,
        output_dir: str,
        metadata: str,
        output_postfix: str = "seg",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(
            keys,
            output_dir=output_dir,
            output_postfix=output_postfix,
            output_ext=".dcm",
            separate_folder=False,
            output_name_formatter=output_name,
            allow_missing_keys=allow_missing_keys,
        )
        self.metadata = metadata

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Write, and return ``data`` as it is.

        Raises:
            ValueError: if a label map is not in the geometry of its series.
        """
        for key in self.key_iterator(dict(data)):
            meta = getattr(data[key], "meta", {})
            if SERIES_UID not in meta:
                continue
            with open(self.metadata, encoding="utf-8") as file:
                metadata = json.load(file)
            # Files that cannot be read are left out: the reader has answered for them.
            slices = read_series(meta["filename_or_obj"], meta[SERIES_UID], skip_unreadable=True)
            check_geometry(data[key].shape[1:], data[key].affine.cpu().numpy(), slices)
            # (slices, rows, columns)
            labels = data[key][0].cpu().numpy().astype(np.uint8).transpose(2, 1, 0)
            descriptions = segment_descriptions(metadata, str(key))
            try:
                segmentation = dicom_segmentation(labels, slices, descriptions, metadata)
            except Exception as error:  # highdicom raises many kinds for headers that it refuses
                logger.warning(
                    "no DICOM segmentation of %s can be written (%s): the result is NIfTI alone",
                    printable(str(meta["filename_or_obj"])),
                    printable(one_line(error)),
                )
                continue
            path = self.saver.folder_layout.filename(**self.saver.fname_formatter(meta, self.saver))
            mark_outside(segmentation, metadata, meta)
            with whole_file(path, place_of(meta["filename_or_obj"])) as hidden:
                segmentation.save_as(hidden)
            note_saved(data[key], path)
            logger.info("writing: %s", path)
        return dict(data)


def check_geometry(shape: Sequence[int], affine: np.ndarray, slices: Sequence[Dataset]) -> None:
    """Check that a label map is in the geometry of its series.

    Args:
        shape: of the label map, ``(columns, rows, slices)``.
        affine: of the label map, ``(4, 4)``.
        slices: headers of the series, in order.

    Raises:
        ValueError: if it is not.
    """
    expected = (slices[0].Columns, slices[0].Rows, len(slices))
    if tuple(shape) != expected or not np.allclose(affine, slice_affine(slices), atol=1e-3):
        raise InputError(
            f"label map of shape {tuple(shape)} with affine {affine.tolist()}: expected that of "
            f"its DICOM series, {expected} and {slice_affine(slices).tolist()}; invert the "
            "preprocessing before it is written"
        )


def mark_outside(
    segmentation: Segmentation, metadata: Mapping[str, Any], meta: Mapping[Any, Any]
) -> None:
    """Say in a segmentation that the weights do not know the image, if they do not.

    Args:
        segmentation: that is changed.
        metadata: of the bundle.
        meta: of the image.
    """
    if OUTSIDE in meta:
        segmentation.SeriesDescription = f"OUTSIDE OF KNOWN IMAGES: {metadata['name']}"[:64]
        segmentation.ContentDescription = meta[OUTSIDE][:64]


def dicom_segmentation(
    labels: np.ndarray,
    slices: Sequence[Dataset],
    descriptions: Sequence[SegmentDescription],
    metadata: Mapping[str, Any],
    segmentation_type: str = "BINARY",
) -> Segmentation:
    """The DICOM object of a label map on the slices of its series.

    Args:
        labels: class indices, ``(slices, rows, columns)``.
        slices: headers of the series, in order.
        descriptions: of the segments, as of `segment_descriptions`.
        metadata: of the bundle.
        segmentation_type: ``BINARY``, a frame for each class and slice, or ``LABELMAP``, one for
            each slice whose values are the classes (DICOM Supplement 243).

    Raises:
        ValueError: if the series is of several enhanced images, or lacks what a segmentation refers
            to.
    """
    import highdicom

    require_referred(slices)
    paths = list(dict.fromkeys(item.filename for item in slices))
    sources = [read_dicom(path, stop_before_pixels=True) for path in paths]
    measures = sources
    if FRAME_GROUPS in sources[0]:
        if len(sources) > 1:
            raise InputError(f"it is of {len(sources)} enhanced images: expected one")
        _share_place(sources[0])
        measures = sources[0][SHARED_GROUPS].value[0].get("PixelMeasuresSequence") or []
        labels = labels[np.argsort([item.frame for item in slices])]  # in the order of its frames
    for source in sources:
        for keyword in ("ImageOrientationPatient", "PixelSpacing"):
            # The same but for what a scanner rounds (see `sorted_slices`), which highdicom refuses
            if keyword in source:
                setattr(source, keyword, sources[0][keyword].value)
        for keyword in MAY_BE_EMPTY:
            if keyword not in source:
                setattr(source, keyword, "")
    for item in measures:
        if not item.get("SliceThickness"):  # which a segmentation has to say, and an image need not
            apart = float(np.linalg.norm(slice_affine(slices)[:3, 2]))
            item.SliceThickness = round(apart, 6)
    sources[0].decode()  # its texts are copied
    return highdicom.seg.Segmentation(
        source_images=sources,
        pixel_array=labels,
        segmentation_type=segmentation_type,
        segment_descriptions=descriptions,
        series_instance_uid=highdicom.UID(),
        series_number=1000 + int(sources[0].get("SeriesNumber") or 0),
        series_description=metadata["name"][:64],
        sop_instance_uid=highdicom.UID(),
        instance_number=1,
        manufacturer="ldseg_monai",
        manufacturer_model_name=metadata["name"][:64],
        software_versions=f"{metadata['version']} (ldseg_monai {__version__})",
        device_serial_number="none",
        # UTF-8: of the image's own sets highdicom refuses some, such as those of Japan and Korea
        specific_character_set="ISO_IR 192",
    )


def _share_place(source: Dataset) -> None:
    """Say of all frames at once what is the same in each: highdicom looks for it there."""
    from pydicom import Dataset

    if not source.get(SHARED_GROUPS):
        setattr(source, SHARED_GROUPS, [Dataset()])
    shared = source[SHARED_GROUPS].value[0]
    first = source[FRAME_GROUPS].value[0]
    for name in PLACE_GROUPS[1:]:
        if name not in shared and name in first:
            setattr(shared, name, first[name].value)


def segment_descriptions(metadata: Mapping[str, Any], output: str) -> list[SegmentDescription]:
    """What each class but the background is, by the bundle's metadata.

    Args:
        metadata: of the bundle.
        output: of the network, whose ``channel_def`` names the classes.
    """
    import highdicom
    from pydicom.sr.codedict import codes
    from pydicom.sr.coding import Code

    algorithm = highdicom.AlgorithmIdentificationSequence(
        name=metadata["name"][:64],
        version=metadata["version"],
        family=codes.DCM.ArtificialIntelligence,
    )
    tensor = metadata["network_data_format"]["outputs"][output]
    descriptions = []
    for number in range(1, len(tensor["channel_def"])):
        code = tensor.get("channel_codes", {}).get(
            str(number), {"category": TISSUE, "type": TISSUE}
        )
        description = highdicom.seg.SegmentDescription(
            segment_number=number,
            segment_label=tensor["channel_def"][str(number)][:64],
            segmented_property_category=Code(*code["category"]),
            segmented_property_type=Code(*code["type"]),
            algorithm_type="AUTOMATIC",
            algorithm_identification=algorithm,
        )
        if "modifier" in code:
            kind = description.SegmentedPropertyTypeCodeSequence[0]
            kind.SegmentedPropertyTypeModifierCodeSequence = [
                highdicom.sr.CodedConcept(*code["modifier"])
            ]
        descriptions.append(description)
    return descriptions
