"""The transform that writes label maps in the kinds of files that are asked for."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from monai.config import KeysCollection
from monai.transforms import SaveImaged

from ldseg_monai.data.dicom.reader import SERIES_UID
from ldseg_monai.data.exports.geojson import geojson_files
from ldseg_monai.data.exports.itk import itk_files
from ldseg_monai.data.exports.kinds import check_kinds, kinds_of
from ldseg_monai.data.exports.label_map import File, LabelClass, LabelMap, classes_of
from ldseg_monai.data.exports.pyramid import pyramid_files
from ldseg_monai.data.exports.segmentation import labelmap_files
from ldseg_monai.data.exports.structure_set import structure_set_files
from ldseg_monai.data.exports.surfaces import surface_files
from ldseg_monai.data.names import case_name
from ldseg_monai.data.writers import output_name
from ldseg_monai.runtime.errors import InputError
from ldseg_monai.runtime.files import note_saved, whole_file
from ldseg_monai.runtime.ownership import make_folder, place_of, require_own

logger = logging.getLogger("ldseg_monai.data.exports")

FILES: dict[str, Callable[[LabelMap], Iterable[File]]] = {
    "mha": partial(itk_files, ending="mha"),
    "nrrd": partial(itk_files, ending="nrrd"),
    "stl": partial(surface_files, ending="stl"),
    "obj": partial(surface_files, ending="obj"),
    "rtstruct": structure_set_files,
    "labelmap": labelmap_files,
    "geojson": geojson_files,
    "tiff": pyramid_files,
}


class SaveImageAsd(SaveImaged):
    """Write label maps in kinds of files that other programs open, beside the bundle's own.

    Of volumes ``mha`` and ``nrrd`` (``NAME_label``), ``own`` (that of these two which the image is,
    if any), ``stl`` and ``obj`` (a surface for each class, ``NAME_surface.CLASS``), of DICOM series
    ``rtstruct`` (``NAME_rtstruct.dcm``) and ``labelmap`` (``NAME_labelmap.dcm``, beside the binary
    ``NAME_seg.dcm``); of pictures ``geojson`` (an outline an object, ``NAME_objects.geojson``) and
    ``tiff`` (OME-TIFF in tiles and levels, ``NAME_label.ome.tif``).

    It is a ``SaveImaged`` so that clients which write results themselves, such as MONAI Label,
    leave it out.

    Args:
        keys: keys of label maps, ``(1, *spatial)`` in the image's own geometry.
        output_dir: folder that they are written to.
        kinds: of files, each of ``ldseg_monai.data.exports.KINDS``; may be none.
        metadata: the bundle's ``metadata.json``, whose ``channel_def`` of the output of this key
            names the classes.
        colors: red, green, blue of classes, by their names; others get those of the overlays.
        spatial_dims: axes of the images, by which kinds that do not fit are refused at once; None
            where they are not known.
        allow_missing_keys: whether a missing key is passed over.

    Raises:
        ValueError, ImportError: as of `check_kinds`.
        ValueError: for a color of no class, or one that is none.
    """

    def __init__(
        self,
        keys: KeysCollection,
        output_dir: str,
        kinds: str | Sequence[str],
        metadata: str,
        colors: Mapping[str, Sequence[int]] | None = None,
        spatial_dims: int | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(
            keys,
            output_dir=output_dir,
            separate_folder=False,
            output_name_formatter=output_name,
            allow_missing_keys=allow_missing_keys,
        )
        self.output_dir = output_dir
        self.kinds = check_kinds(kinds, spatial_dims)
        self.metadata: dict[str, Any] = {}
        self.classes: dict[Hashable, list[LabelClass]] = {}
        if self.kinds:
            with open(metadata, encoding="utf-8") as file:
                self.metadata = json.load(file)
            self.classes = {key: classes_of(self.metadata, key, colors) for key in self.keys}

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Write, and return ``data`` as it is; in the label maps' metadata the files are named.

        Raises:
            ValueError: for a kind that does not fit the image, a value without a class, or a label
                map that is not in the geometry of its DICOM series.
            FileExistsError: for a file that is there and not this program's, or was changed since.
            OSError: if a file cannot be written, for example because the disk is full.
        """
        for key in self.key_iterator(dict(data)):
            if not self.kinds:
                break
            label = self._label_map(key, data[key])
            check_kinds(self.kinds, label.voxels.ndim, SERIES_UID in label.meta)
            if not label.present:
                logger.info("no class is in the label map of %s", label.name)
            image = str(label.meta["filename_or_obj"])
            place = place_of(image)
            make_folder(self.output_dir)
            for kind in kinds_of(self.kinds, image):
                for ending, write in FILES[kind](label):
                    path = os.path.join(self.output_dir, f"{label.name}_{ending}")
                    if write is None:
                        _remove(path, place)
                        continue
                    with whole_file(path, place) as hidden:
                        write(hidden)
                    note_saved(data[key], path)
                    logger.info("writing: %s", path)
        return dict(data)

    def _label_map(self, key: Hashable, image: Any) -> LabelMap:
        """A label map with what the bundle and the image say of it.

        Raises:
            ValueError: if it is none, or does not say what it is of.
        """
        meta = getattr(image, "meta", {})
        if "filename_or_obj" not in meta or image.shape[0] != 1:
            raise InputError(
                f"label map {key} of shape {list(image.shape)}: expected (1, *spatial), with "
                "filename_or_obj, the path of its image, in its metadata"
            )
        return LabelMap(
            voxels=image[0].cpu().numpy().astype(np.uint8),
            affine=np.asarray(image.affine.cpu(), dtype=float),
            classes=self.classes[key],
            name=case_name(meta),
            meta=meta,
            metadata=self.metadata,
            output=str(key),
        )


def _remove(path: str, of: str) -> None:
    """Remove a file of an earlier run that this one has no content for.

    Raises:
        FileExistsError: if it is not this program's, or was changed since.
    """
    if os.path.lexists(path):
        require_own([path], of)
        os.unlink(path)
        logger.info("removed, since there is none now: %s", path)
