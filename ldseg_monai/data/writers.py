"""MONAI's writers of NIfTI and of pictures, whose errors name the file; all maps of a case.

The class names of the latter hold `SaveImage`, and they are derived from MONAI's `SaveImaged`:
clients which write results themselves leave them out, MONAI Deploy by the name, MONAI Label by the
class.
"""

from __future__ import annotations

import logging
import os
import zlib
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.data import ImageWriter, NibabelWriter, PILWriter
from monai.data.folder_layout import default_name_formatter
from monai.transforms import SaveImaged
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ldseg_monai.data.checks import OUTSIDE, remark
from ldseg_monai.data.formats import FORMS, header_with_forms, tell_once
from ldseg_monai.data.formats.geometry import largest_shift
from ldseg_monai.data.formats.volumes import MAX_DIFFERENCE
from ldseg_monai.data.names import case_name
from ldseg_monai.runtime.errors import InputError
from ldseg_monai.runtime.files import whole_file
from ldseg_monai.runtime.ownership import place_of

logger = logging.getLogger("ldseg_monai.data.writers")

DESCRIPTION = 79  # bytes of a NIfTI header's `descrip`, beside the one that ends it
# How Pillow packs a PNG file: maps in a fifth of the default's time, and no larger.
QUICK_PNG: Mapping[str, Any] = {"compress_level": 1, "compress_type": zlib.Z_RLE}


def output_name(meta: Mapping | None, saver: Any) -> dict[str, Any]:
    """The name of an image's results, for MONAI's `SaveImage`, by `case_name`.

    MONAI's own cuts an ending such as ``.NII.GZ`` by halves. It is given one to cut.
    """
    kwargs = default_name_formatter(dict(meta or {}), saver)
    if meta and "filename_or_obj" in meta:
        kwargs["subject"] = f"{case_name(meta)}.nii"
    return kwargs


class _WholeWriter(ImageWriter):
    """A writer whose files are whole and nobody else's, and whose errors name them.

    It is mixed into one of MONAI's. A volume of one slice and a picture of one row keep their axes.
    """

    of: str | None = None  # the image that a file is made of
    failure: Exception | None = None  # what kept the last file from being written

    def set_data_array(
        self,
        data_array: Any,
        channel_dim: int | None = 0,
        squeeze_end_dims: bool = True,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        """Take an array ``(C, *spatial)``; with ``squeeze_end_dims``, one channel gets no axis."""
        parent: Any = super()
        parent.set_data_array(data_array, channel_dim, False, *args, **kwargs)
        if squeeze_end_dims and self.data_obj.shape[-1] == 1:
            self.data_obj = self.data_obj[..., 0]

    def set_metadata(self, *args: Any, **kwargs: Any) -> None:
        """Take an image's metadata, with the path of its file."""
        super().set_metadata(*args, **kwargs)
        meta_dict = args[0] if args else kwargs.get("meta_dict")
        path = (meta_dict or {}).get("filename_or_obj")
        self.of = place_of(path) if isinstance(path, (str, os.PathLike)) else None

    def write(self, filename: Any, verbose: bool = False, **kwargs: Any) -> None:
        """Write.

        Raises:
            OSError: if the file cannot be written, for example because the disk is full, or is
                there and not this program's (see `whole_file`).
        """
        try:
            with whole_file(filename, self.of) as hidden:
                super().write(hidden, verbose=False, **kwargs)
        except Exception as error:
            type(self).failure = error
            raise
        if verbose:
            logger.info("writing: %s", filename)


class FormsWriter(NibabelWriter):
    """MONAI's writer of NIfTI files, which writes the forms of the image's header, and a remark."""

    of: str | None = None  # the image that a file is made of
    forms: str | None = None
    remark: str = ""

    def set_metadata(
        self, meta_dict: Mapping | None, resample: bool = True, **options: Any
    ) -> None:
        """Take an image's metadata; its forms are for voxels that lie where the image's do."""
        super().set_metadata(meta_dict, resample, **options)
        self.remark = remark(meta_dict)
        original, _, shape = self.get_meta_info(meta_dict)
        same_size = shape is None or list(self.data_obj.shape[:3]) == [int(side) for side in shape]
        if original is None or self.affine is None or not same_size:
            return
        if np.allclose(np.asarray(self.affine), np.asarray(original), atol=1e-3):
            self.forms = (meta_dict or {}).get(FORMS)

    def write(self, filename: Any, verbose: bool = False, **kwargs: Any) -> None:
        """Write; what was not read from NIfTI gets an sform and a qform of code 1, as of MONAI."""
        if self.forms is None and self.affine is not None:
            self._compare_forms(filename)
        if self.forms is None and not self.remark:
            super().write(filename, verbose, **kwargs)
            return
        image = self.create_backend_obj(self.data_obj, affine=self.affine, dtype=self.output_dtype)
        if self.forms is not None:
            voxels = np.asanyarray(image.dataobj)
            header = header_with_forms(self.forms)
            header.set_data_dtype(voxels.dtype)
            image = nib.Nifti1Image(voxels, None, header)
        else:
            image.set_sform(image.affine, code=1)
            image.set_qform(image.affine, code=1)
        if self.remark:
            image.header["descrip"] = self.remark.encode("ascii", "replace")[:DESCRIPTION]
        nib.save(image, filename)

    def _compare_forms(self, filename: Any) -> None:
        """Say where programs that use the qform see a volume whose axes are at no right angle."""
        affine = np.asarray(self.affine, dtype=float)
        header = nib.Nifti1Header()
        header.set_qform(affine)  # without what it cannot say
        shift = largest_shift(affine, header.get_qform(), self.data_obj.shape[:3])
        if shift > MAX_DIFFERENCE:
            tell_once(
                f"{self.of or filename} has axes at no right angle, as of a tilted gantry, which "
                "the sform of a NIfTI can say and its qform cannot: ITK's programs may show the "
                f"results up to {shift:.3g} voxels off; use other files for them, such as "
                "DICOM-SEG or MHA"
            )


class NiftiWriter(_WholeWriter, FormsWriter):
    """MONAI's writer of NIfTI files, which says where a volume is as the image's file does.

    A volume that was read from NIfTI gets the very forms, codes and units of its header.
    """


def png_remark(text: str) -> PngInfo | None:
    """A remark as Pillow writes it into a PNG file, under ``outside_of_known``; None for none."""
    if not text:
        return None
    info = PngInfo()
    info.add_text(OUTSIDE, text)
    return info


class _RemarkWriter(PILWriter):
    """MONAI's writer of pictures, which writes a remark."""

    remark: str = ""

    def set_metadata(self, meta_dict: Mapping | None = None, *args: Any, **options: Any) -> None:
        """Take an image's metadata."""
        super().set_metadata(meta_dict, *args, **options)
        self.remark = remark(meta_dict)

    def write(self, filename: Any, verbose: bool = False, **kwargs: Any) -> None:
        """Write."""
        if self.remark:
            kwargs["pnginfo"] = png_remark(self.remark)
        super().write(filename, verbose, **QUICK_PNG, **kwargs)


class PictureWriter(_WholeWriter, _RemarkWriter):
    """MONAI's writer of pictures."""

    colors: Sequence[Sequence[int]] = ()  # red, green, blue of the classes of a label from 0 on


class LabelPictureWriter(PictureWriter):
    """MONAI's writer of pictures, which gives class indices the colors of their classes.

    The values that a program reads stay the indices; a person sees colors.
    """

    @classmethod
    def create_backend_obj(cls, data_array: Any, *args: Any, **kwargs: Any) -> Any:
        """Pillow's picture of class indices, uint8, with a palette of the colors."""
        picture: Image.Image = super().create_backend_obj(data_array, *args, **kwargs)
        if cls.colors and int(np.max(data_array, initial=0)) < len(cls.colors):
            picture.putpalette([part for color in cls.colors for part in color])  # to mode P
        return picture


def label_picture_writer(colors: Mapping[str, Sequence[int]] | None) -> type[PictureWriter]:
    """The writer of label maps with a palette.

    Args:
        colors: red, green, blue from 0 to 255 of the classes from 1 on, in their order; one that
            another class has, or the black of the background, gets a little more blue. None for
            gray values; so is what a client's request has in their place, such as a name.

    Raises:
        ValueError: for what is no color.
    """
    if not colors or not isinstance(colors, Mapping):
        return PictureWriter
    known = {(0, 0, 0): "the background"}
    for name, color in colors.items():
        rgb = tuple(color)
        if len(rgb) != 3 or not all(type(part) is int and 0 <= part <= 255 for part in rgb):
            raise InputError(
                f"the color of {name} is {color!r}: expected red, green and blue, whole numbers "
                "from 0 to 255"
            )
        while rgb in known:  # of many classes: no two may look the same to a program
            rgb = (*rgb[:2], (rgb[2] + 1) % 256)
        known[rgb] = name

    class Writer(LabelPictureWriter):
        colors = tuple(known)

    return Writer


class _SaveMaps(SaveImaged):
    """Write a label map, and of an ensemble the mean and the SD beside it.

    Args:
        key: key of the label map; ``KEY_mean`` and ``KEY_sd`` are those of the maps.
        output_dir: folder of the files.
        writer: of the files.
        extension: of the files.
        scale: what a probability of 1 is written as; None for itself.
        label_writer: of the label map; None for ``writer``.
    """

    def __init__(
        self,
        key: str,
        output_dir: str,
        writer: type[_WholeWriter],
        extension: str,
        scale: float | None = None,
        label_writer: type[_WholeWriter] | None = None,
    ) -> None:
        common: dict[str, Any] = {
            "output_dir": output_dir,
            "output_ext": extension,
            "separate_folder": False,
            "writer": writer,
            "output_name_formatter": output_name,
            "savepath_in_metadict": True,
        }
        self.written_by = (writer, label_writer or writer)
        label: dict[str, Any] = {**common, "output_dtype": torch.uint8}
        label["writer"] = label_writer or writer
        maps: dict[str, Any] = {**common, "scale": scale, "allow_missing_keys": True}
        super().__init__(key, output_postfix="label", **label)
        self.save_maps = [
            SaveImaged(f"{key}_{name}", output_postfix=name, **maps) for name in ("mean", "sd")
        ]

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Write, and return a copy of ``data`` in whose metadata the files are named.

        Raises:
            OSError: if a file cannot be written, for example because the disk is full.
        """
        for writer in self.written_by:
            writer.failure = None
        try:
            result = super().__call__(data)
            for save in self.save_maps:
                result = save(result)
        except RuntimeError:
            # MONAI's `SaveImage` (1.6) loses what its writer raises, and asks to install another.
            failures = [writer.failure for writer in self.written_by if writer.failure is not None]
            if not failures:
                raise
            failure = failures[0]
            raise failure from failure.__cause__  # MONAI's error was raised from this one
        return result


class SaveImageVolumed(_SaveMaps):
    """Write the segmentation of a volume as NIfTI.

    ``NAME_label.nii.gz`` has class indices, uint8; of an ensemble, ``NAME_mean.nii.gz`` has the
    classes' probabilities and ``NAME_sd.nii.gz`` their SD, float32.

    Args:
        keys: key of the label map ``(1, *spatial)``; the maps are under ``KEY_mean`` and
            ``KEY_sd``.
        output_dir: folder of the files.
    """

    def __init__(self, keys: str, output_dir: str) -> None:
        super().__init__(keys, output_dir, NiftiWriter, ".nii.gz")


class SaveImagePictured(_SaveMaps):
    """Write the segmentation of a picture as PNG.

    ``NAME_label.png`` has class indices; of an ensemble, ``NAME_mean.png`` has the probability that
    a pixel is not background, 255 for 1, and ``NAME_sd.png`` the SD, 127 for the largest, 0.5.

    Args:
        keys: key of the label map ``(1, *spatial)``; the maps are under ``KEY_mean`` and
            ``KEY_sd``.
        output_dir: folder of the files.
        colors: of the classes, as of `label_picture_writer`: the palette of the label map.
    """

    def __init__(
        self, keys: str, output_dir: str, colors: Mapping[str, Sequence[int]] | None = None
    ) -> None:
        label_writer = label_picture_writer(colors)
        super().__init__(keys, output_dir, PictureWriter, ".png", 255, label_writer)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Write, and return a copy of ``data`` with one channel of the mean, as it is written.

        Raises:
            OSError: if a file cannot be written, for example because the disk is full.
        """
        mean_key = f"{self.keys[0]}_mean"
        result = dict(data)
        if mean_key in result:
            mean = result[mean_key]  # (classes, *spatial)
            result[mean_key] = mean[1:] if mean.shape[0] == 2 else 1 - mean[:1]
        return super().__call__(result)
