"""DICOM series as images, and label maps as DICOM segmentations."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from monai.config import KeysCollection
from monai.transforms import SaveImaged
from monai.utils import MetaKeys, SpaceKeys, ensure_tuple

from ldseg_monai import __version__
from ldseg_monai.data.dicom_series import read_series, slice_affine
from ldseg_monai.data.readers import NiftiReader
from ldseg_monai.data.writers import note_saved

if TYPE_CHECKING:
    from highdicom.seg import Segmentation, SegmentDescription
    from pydicom import Dataset

logger = logging.getLogger("ldseg_monai.dicom")

SERIES_UID = "dicom_series_uid"  # in the metadata of an image that was read from DICOM
MAY_BE_EMPTY = (
    "PatientID PatientName PatientBirthDate PatientSex AccessionNumber StudyID StudyDate StudyTime"  # but not missing
).split()
TISSUE = ("85756007", "SCT", "Tissue")


class _Place(NamedTuple):
    """Where a DICOM series is."""

    folder: str
    series_uid: str = ""


class NiftiOrDicomReader(NiftiReader):
    """The reader of NIfTI files that also reads a DICOM series where it is given a folder.

    A series becomes ``(columns, rows, slices)`` in RAS, with the modality's rescaling applied, its slices sorted along
    their normal; an item may be ``[folder, series_uid]`` where the folder has several. What is no volume is an error
    (see `ldseg_monai.data.dicom_series.sorted_slices`), which MONAI's own readers of DICOM do not raise.
    """

    def verify_suffix(self, filename: Any) -> bool:
        """Tell whether the reader is for this file or folder."""
        return os.path.isdir(ensure_tuple(filename)[0]) or super().verify_suffix(filename)

    def read(self, data: Any, **kwargs: Any) -> Any:
        """Return the paths, or the place of a series."""
        names = super().read(data)
        return _Place(*names) if os.path.isdir(names[0]) else names

    def get_data(self, img: Any) -> tuple[np.ndarray, dict]:
        """Return voxels and metadata.

        Raises:
            ValueError: if a folder has no such series, the series is no volume, or a slice's pixels cannot be decoded.
        """
        if not isinstance(img, _Place):
            return super().get_data(img)
        slices = read_series(*img)
        volume = np.stack([_pixels(item.filename) for item in slices]).transpose(2, 1, 0)
        return volume, {
            MetaKeys.AFFINE: slice_affine(slices),
            MetaKeys.ORIGINAL_AFFINE: slice_affine(slices),
            MetaKeys.SPATIAL_SHAPE: np.asarray(volume.shape),
            MetaKeys.SPACE: SpaceKeys.RAS,
            MetaKeys.ORIGINAL_CHANNEL_DIM: float("nan"),  # no channels
            SERIES_UID: str(slices[0].SeriesInstanceUID),
        }


class SaveImageDicomSegd(SaveImaged):
    """Write label maps as DICOM segmentations, ``NAME_seg.dcm``, where the image was read from DICOM.

    One binary segment a class, on the slices of the series and with references to them. It is a ``SaveImaged`` so that
    clients which write results themselves, such as MONAI Label, leave it out.

    Args:
        keys: keys of label maps, ``(1, columns, rows, slices)`` in the image's own geometry.
        output_dir: folder that they are written to.
        metadata: the bundle's ``metadata.json``. Its ``name`` and ``version`` identify the algorithm; ``channel_def``
            of the output of this key names the segments, and ``channel_codes`` beside it, where a class has any, gives
            the codes of each (value, scheme, meaning) as ``category``, ``type`` and, optional, ``modifier`` of the
            type. A class without codes is tissue.
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
            slices = read_series(meta["filename_or_obj"], meta[SERIES_UID])
            _check_geometry(data[key], slices)
            labels = data[key][0].cpu().numpy().astype(np.uint8).transpose(2, 1, 0)
            path = self.saver.folder_layout.filename(**self.saver.fname_formatter(meta, self.saver))
            _segmentation(labels, [item.filename for item in slices], metadata, str(key)).save_as(path)
            note_saved(data[key], path)
            logger.info("writing: %s", path)
        return dict(data)


def _pixels(path: str) -> np.ndarray:
    """Rescaled pixels of one slice, float32 ``(rows, columns)``."""
    import pydicom
    from pydicom.pixels import apply_modality_lut

    try:
        item = pydicom.dcmread(path)
        return apply_modality_lut(item.pixel_array, item).astype(np.float32)
    except Exception as error:  # pydicom and the decoders that it may call raise many kinds
        raise ValueError(
            f"{path}: pixels cannot be read ({error}): repair the file or, if they are compressed, install pylibjpeg "
            "with the decoder, or decompress them"
        ) from error


def _check_geometry(label: Any, slices: Sequence[Dataset]) -> None:
    shape = (slices[0].Columns, slices[0].Rows, len(slices))
    if tuple(label.shape[1:]) != shape or not np.allclose(label.affine.cpu(), slice_affine(slices), atol=1e-3):
        raise ValueError(
            f"label map of shape {tuple(label.shape[1:])} with affine {label.affine.tolist()}: expected that of its "
            f"DICOM series, {shape} and {slice_affine(slices).tolist()}; invert the preprocessing before it is written"
        )


def _segmentation(labels: np.ndarray, paths: Sequence[str], metadata: dict[str, Any], output: str) -> Segmentation:
    """The DICOM object of class indices ``(slices, rows, columns)`` on the slices in these files."""
    import highdicom
    import pydicom

    sources = [pydicom.dcmread(path, stop_before_pixels=True) for path in paths]
    for source in sources:
        if not source.get("SpecificCharacterSet", "default"):
            del source.SpecificCharacterSet  # empty, which highdicom refuses, means the same as missing
        for keyword in MAY_BE_EMPTY:
            if keyword not in source:
                setattr(source, keyword, "")
    return highdicom.seg.Segmentation(
        source_images=sources,
        pixel_array=labels,
        segmentation_type="BINARY",
        segment_descriptions=_segment_descriptions(metadata, output),
        series_instance_uid=highdicom.UID(),
        series_number=1000 + int(sources[0].get("SeriesNumber") or 0),
        series_description=metadata["name"][:64],
        sop_instance_uid=highdicom.UID(),
        instance_number=1,
        manufacturer="ldseg_monai",
        manufacturer_model_name=metadata["name"][:64],
        software_versions=f"{metadata['version']} (ldseg_monai {__version__})",
        device_serial_number="none",
    )


def _segment_descriptions(metadata: dict[str, Any], output: str) -> list[SegmentDescription]:
    """What each class but the background is, by the bundle's metadata."""
    import highdicom
    from pydicom.sr.codedict import codes
    from pydicom.sr.coding import Code

    algorithm = highdicom.AlgorithmIdentificationSequence(
        name=metadata["name"][:64], version=metadata["version"], family=codes.DCM.ArtificialIntelligence
    )
    tensor = metadata["network_data_format"]["outputs"][output]
    descriptions = []
    for number in range(1, len(tensor["channel_def"])):
        code = tensor.get("channel_codes", {}).get(str(number), {"category": TISSUE, "type": TISSUE})
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
            kind.SegmentedPropertyTypeModifierCodeSequence = [highdicom.sr.CodedConcept(*code["modifier"])]
        descriptions.append(description)
    return descriptions
