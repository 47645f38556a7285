"""A bundle as a Python object: an image in, its segmentation out."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor
from numpy.typing import NDArray
from PIL import Image

from ldseg_monai.bundle import Bundle
from ldseg_monai.bundle.bundle import SEQUENCES
from ldseg_monai.bundle.components import has_id
from ldseg_monai.bundle.knobs import check_values
from ldseg_monai.data.checks import OUTSIDE
from ldseg_monai.data.datalist import case_name, case_of_channels, find_cases
from ldseg_monai.data.exports.itk import save_itk
from ldseg_monai.data.formats.geometry import check_affine
from ldseg_monai.data.formats.kinds import NIFTI_ENDINGS
from ldseg_monai.data.listed_cases import compare_channel_names
from ldseg_monai.data.names import PathLike
from ldseg_monai.data.sequences import find_sequences
from ldseg_monai.data.writers import FormsWriter, label_picture_writer
from ldseg_monai.evaluation.statistics import label_statistics
from ldseg_monai.inference.case_evaluator import ORIGINAL
from ldseg_monai.networks.weights import load_weights
from ldseg_monai.runtime.errors import ArgumentError, InputError, MissingFileError, UserError, cause
from ldseg_monai.runtime.files import whole_file
from ldseg_monai.runtime.nearest import did_you_mean
from ldseg_monai.runtime.ownership import require_new
from ldseg_monai.runtime.shown import told_as

WRITES = "output_dir"  # an argument of transforms that write files
KNOB = re.compile(r"--(\w+) (\w+)")  # as commands take one
INTEGERS = (np.uint8, np.int16, np.int32)  # of arrays, which are written as they are
PNG_MODES = ("1", "L", "LA", "I;16", "P", "RGB", "RGBA")  # of a picture that a PNG keeps


class Segmentation:
    """What a `Segmenter` says of one image.

    Volumes have the axes of the array that was given, or those of the file as nibabel has them
    (of a SimpleITK image: slices, rows, columns, as its `GetArrayFromImage`). Pictures have rows,
    then columns.

    Args:
        segmenter: that made it.
        data: what the bundle's postprocessing left: ``pred`` and, of several samples, its maps.
        prediction: what the inferer returned of the image; None where ``data`` has its maps.
        backwards: whether the axes of arrays are those of the file in reverse order.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        data: dict[str, Any],
        item: dict[str, Any],
        prediction: torch.Tensor | None,
        backwards: bool,
    ) -> None:
        self._segmenter = segmenter
        self._data = data
        self._item = item
        self._prediction = prediction
        self._backwards = backwards
        meta = item["image"].meta
        self.case = case_name(meta)
        self.outside_of_known: str = meta.get(OUTSIDE, "")
        """Why the weights do not know the image; "" if they do (see the knob ``force``)."""

    @cached_property
    def label(self) -> NDArray[np.uint8]:
        """Index of each voxel's class, 0 for the background."""
        return np.ascontiguousarray(self._array(_with_channel(self._data["pred"])[0]), np.uint8)

    @cached_property
    def probability(self) -> NDArray[np.float32]:
        """Probability of each class, ``(classes, *axes)``: of several samples, their mean."""
        maps = self._maps["pred_mean"]
        return np.stack([self._array(channel) for channel in maps])

    @cached_property
    def sd(self) -> NDArray[np.float32]:
        """Standard deviation over the samples of each voxel's most uncertain class.

        Raises:
            ValueError: of one sample, which has none.
        """
        if "pred_sd" not in self._data:
            raise InputError("one sample has no standard deviation: give num_samples=5, or more")
        return np.ascontiguousarray(self._array(self._data["pred_sd"][0]))

    @cached_property
    def statistics(self) -> list[dict[str, Any]]:
        """Size, intensity and objects of each class: the rows of `label_statistics`.

        A size has a standard deviation over the samples where the segmenter keeps them.

        Raises:
            ValueError: for a sequence, whose frames are no volume.
        """
        if self._segmenter.is_sequence:
            raise InputError(
                "statistics are of a volume or a picture: got a sequence; take "
                "`ldseg_monai.evaluation.ejection_fraction` of its label"
            )
        pred = _with_channel(self._data["pred"])
        original = self._item[ORIGINAL]
        samples = self._data.get("pred_samples")
        return label_statistics(pred, self.class_names, original, samples=samples)

    @property
    def affine(self) -> NDArray[np.float64] | None:
        """From the file's voxels to mm right, anterior, superior; None of a picture."""
        if self._segmenter.is_picture:
            return None
        return np.array(self._data["pred"].affine.tolist())

    @property
    def class_names(self) -> dict[int, str]:
        """Names of the classes by their index, from the background on."""
        return self._segmenter.class_names

    def save(self, path: PathLike, overwrite: bool = False) -> None:
        """Write the label map.

        Args:
            path: of the file: ``.nii.gz``, ``.nii``, ``.mha`` or ``.nrrd`` of a volume, ``.png`` of
                a picture.
            overwrite: whether a file of this name is written over.

        Raises:
            FileExistsError: if there is one.
            ValueError: for another ending.
        """
        path = os.fspath(path)
        if not overwrite:
            require_new(path)
        folder = os.path.dirname(path) or "."
        if not os.path.isdir(folder):
            raise MissingFileError(f"{path}: there is no folder {folder}; make it")
        pred = _with_channel(self._data["pred"]).cpu()
        ending = path.lower()
        endings = (".png",) if self.affine is None else (*NIFTI_ENDINGS, ".mha", ".nrrd")
        if not ending.endswith(endings):
            wanted = ".png" if self.affine is None else ".nii.gz, .nii, .mha or .nrrd"
            raise InputError(f"{path}: expected a name that ends in {wanted}")
        with whole_file(path, new=not overwrite) as hidden:
            if self.affine is None:
                picture = Image.fromarray(self.label)
                picture.putpalette(self._segmenter.palette)
                picture.save(hidden)
            elif ending.endswith(NIFTI_ENDINGS):
                writer = FormsWriter(output_dtype=np.uint8)
                writer.set_data_array(pred, channel_dim=0)
                writer.set_metadata(pred.meta)
                writer.write(hidden)
            else:
                _write_itk(hidden, pred)

    def __reduce__(self) -> Any:
        raise ArgumentError(
            "a Segmentation holds its network and cannot be sent to another process: send its "
            "label, probability, sd, affine or statistics"
        )

    @cached_property
    def _maps(self) -> dict[str, Any]:
        """The maps of several samples; of one, the mean of this one."""
        if "pred_mean" in self._data:
            return self._data
        scores = self._prediction
        if scores is None or scores.dtype == torch.uint8:
            raise InputError(
                "this inferer keeps no probabilities of one sample: give num_samples=5, or more"
            )
        softmax = scores.softmax(dim=0, dtype=torch.float32)
        alone = torch.cat([softmax, torch.zeros_like(softmax[:1])])
        return self._segmenter.finish(self._item, alone)

    def _array(self, channel: Any) -> NDArray[Any]:
        array = np.asarray(channel.cpu())
        return array.transpose() if self._backwards else array


class Segmenter:
    """Segments images by a bundle, as its ``inference.yaml`` does, without writing anything.

    The network is loaded once. One object may be called by several threads at once; a copy, as for
    another process, loads it again.

    Args:
        bundle: folder or name of a bundle.
        weights: state dict in place of the bundle's own.
        device: where the network runs, such as ``cuda``; None for a GPU where there is one.
        configs: overlays on ``inference.yaml``, by their names in the bundle's configs, such as
            ``sequences.yaml``.
        keep_samples: whether each sample is kept, so that statistics have standard deviations; of
            a volume they take much memory.
        knobs: of ``inference.yaml``, such as ``num_samples=5`` or ``force=True``.

    Raises:
        FileNotFoundError: if the bundle or the weights are not there.
        ValueError: for a knob that the config does not have or a value that it cannot use.

    Example:
        >>> segmenter = Segmenter("ldseg_glas", num_samples=5)  # doctest: +SKIP
        >>> result = segmenter("gland.png")  # doctest: +SKIP
        >>> result.label, result.probability, result.sd  # doctest: +SKIP
    """

    def __init__(
        self,
        bundle: PathLike,
        weights: PathLike | None = None,
        device: str | torch.device | None = None,
        configs: Sequence[str] = (),
        keep_samples: bool = False,
        **knobs: Any,
    ) -> None:
        self.bundle = Bundle.find(bundle)
        self._given = {
            "bundle": os.path.abspath(self.bundle.root),
            "weights": None if weights is None else os.path.abspath(weights),
            "device": None if device is None else str(device),
            "configs": tuple(configs),
            "keep_samples": keep_samples,
            **knobs,
        }
        own = self.bundle.config("inference.yaml", *configs)
        for name in knobs:
            if not has_id(own, name):
                raise InputError(
                    f"{self.bundle.name} has no knob {name}: expected one of its inference.yaml"
                    f"{did_you_mean(name, own.get())}"
                )
        if keep_samples:
            knobs["save_statistics"] = True
        if device is not None:
            knobs["device"] = str(device)
        if weights is not None:
            knobs["model_path"] = os.path.abspath(weights)
        self._config = self.bundle.config("inference.yaml", *configs, **knobs)
        # What writes files is left out: `Segmentation.save` does.
        transforms = self._config["postprocessing"]["transforms"]
        silent = [item for item in transforms if not _writes(item)]
        self._config["postprocessing"]["transforms"] = silent
        check_values(self._config)
        self.is_sequence = SEQUENCES in configs
        self._prepare = self._config.get_parsed_content("preprocessing")
        self._inferer = self._config.get_parsed_content("inferer")
        self._finish = self._config.get_parsed_content("postprocessing")
        self.device = torch.device(self._config.get_parsed_content("device"))
        self.network: torch.nn.Module = self._config.get_parsed_content("network")
        load_weights(self.network, self._config.get_parsed_content("model_path"))
        self.network.eval()

    def __reduce__(self) -> Any:
        """In another process the bundle is loaded there."""
        return partial(Segmenter, **self._given), ()

    @property
    def class_names(self) -> dict[int, str]:
        """Names of the classes by their index, from the background on."""
        return self.bundle.class_names

    @property
    def palette(self) -> list[int]:
        """Red, green and blue of each class, one after the other, as Pillow's palettes have it."""
        colors = self._config.get("displayable_configs", {}).get("label_colors")
        return [part for color in label_picture_writer(colors).colors for part in color]

    def __call__(
        self,
        image: Any,
        affine: NDArray[Any] | None = None,
        spacing: Sequence[float] | None = None,
    ) -> Segmentation:
        """Segment one image.

        Args:
            image: path of a file or of a folder with one DICOM series; of a volume of several
                channels, a list of paths in their order; an image of Pillow, nibabel or SimpleITK;
                or an array: a picture ``(rows, columns)`` or ``(rows, columns, 3)``, uint8, or a
                volume, of several channels ``(C, *spatial)``.
            affine: of an array that is a volume: from voxels to mm right, anterior, superior,
                ``(4, 4)``.
            spacing: in its place, the size of a voxel in mm, for axes to the right, anterior and
                superior.

        Raises:
            ValueError: for an image that cannot be read, or that the weights do not know.
            TypeError: for another kind of image.
        """
        if isinstance(image, (str, os.PathLike)):
            if not os.fspath(image):
                raise InputError("got an empty path: expected that of an image")
            if affine is not None or spacing is not None:
                raise InputError("affine and spacing are of arrays: a file has its own")
            if not os.path.exists(image):
                raise MissingFileError(f"{os.fspath(image)} does not exist: expected an image")
            if os.path.isfile(image) and os.fspath(image).lower().endswith(".zip"):
                raise InputError(
                    f"{os.fspath(image)} is an archive: expected an image; unpack it, or segment "
                    "all that it holds by `ldseg predict -i`"
                )
            return self._segment(os.fspath(image), backwards=self.is_picture)
        if isinstance(image, (list, tuple)):
            if not image or not all(isinstance(path, (str, os.PathLike)) for path in image):
                raise ArgumentError(
                    "got a list of what are no paths: expected the path of each channel's file; "
                    "give several images one by one, and an array as (C, *spatial)"
                )
            if affine is not None or spacing is not None:
                raise InputError("affine and spacing are of arrays: a file has its own")
            return self._segment([os.fspath(path) for path in image], backwards=self.is_picture)
        with tempfile.TemporaryDirectory(prefix="ldseg_") as folder:
            path = self._write(image, Path(folder), affine, spacing)
            is_itk = type(image).__module__.startswith("SimpleITK")
            backwards = self.is_picture or is_itk
            shown = f"the {type(image).__name__} given"
            with told_as(lambda text: text.replace(path, shown)):
                return self._segment(path, backwards)

    def each(self, images: Iterable[Any]) -> Iterator[Segmentation]:
        """Segment one image after the other: see `__call__`."""
        return map(self, images)

    @property
    def is_picture(self) -> bool:
        """Whether images are pictures, whose arrays have rows first."""
        return self.bundle.spatial_dims == 2 and not self.is_sequence

    def _segment(self, path: str | list[str], backwards: bool) -> Segmentation:
        if isinstance(path, list):
            cases = case_of_channels(path)
            compare_channel_names(cases, self.bundle.channel_names)
        elif self.is_sequence:
            cases = find_sequences(path)
        else:
            cases = find_cases(
                path,
                False,
                self._series_uid,
                channels=self._channels,
                dicom_pictures=self._config.get("datalist", {}).get("dicom_pictures", False),
            )
        if len(cases) != 1:
            raise InputError(f"{path} holds {len(cases)} images: expected one at a time")
        try:
            loaded = self._prepare(cases[0], end=1)
            item = {**self._prepare(loaded, start=1), ORIGINAL: loaded["image"]}
            with torch.no_grad():
                images = item["image"][None].to(self.device)
                prediction = self._inferer(images, self.network)[0].cpu()
            data = self.finish(item, prediction)
        except Exception as error:
            told = cause(error)  # MONAI wraps what a transform says
            if isinstance(told, UserError):
                raise type(told)(KNOB.sub(r"\1=\2", str(told))) from error
            raise
        needed = None if "pred_mean" in data else prediction
        return Segmentation(self, data, item, needed, backwards)

    @property
    def _channels(self) -> int:
        """Of a volume; 1 of a picture."""
        number: int = self._config.get("load", {}).get("channels", 1)
        return number

    @property
    def _series_uid(self) -> str | None:
        """That of the config, "" for any; None where the bundle reads no DICOM."""
        if not has_id(self._config, "series_uid"):
            return None
        uid: str = self._config.get_parsed_content("series_uid")
        return uid

    def finish(self, item: dict[str, Any], prediction: torch.Tensor) -> dict[str, Any]:
        """Bring what the inferer returned to the geometry of the image's file.

        Args:
            item: the image as the bundle's preprocessing left it.
            prediction: ``(K, *spatial)``.
        """
        result: dict[str, Any] = self._finish({**item, "pred": MetaTensor(prediction)})
        return result

    def _write(
        self,
        image: Any,
        folder: Path,
        affine: NDArray[Any] | None,
        spacing: Sequence[float] | None,
    ) -> str:
        """Write an image to a file, as the bundle reads it, so that all of it is checked."""
        if isinstance(image, MetaTensor) and not self.is_picture:
            affine = image.affine.numpy() if affine is None and spacing is None else affine
        if isinstance(image, torch.Tensor):
            image = image.float() if image.dtype == torch.bfloat16 else image
            image = image.numpy(force=True)
        if isinstance(image, np.ma.MaskedArray) or (
            isinstance(image, np.ndarray) and image.dtype.kind not in "biuf"
        ):
            raise InputError(
                f"got a {type(image).__name__} of type {image.dtype}: expected a plain array of "
                "whole or floating-point numbers"
            )
        is_array = isinstance(image, np.ndarray)
        if not is_array and (affine is not None or spacing is not None):
            raise InputError(
                f"affine and spacing are of arrays: a {type(image).__name__} has its own"
            )
        if is_array and self.is_picture:
            image = _picture(image)
        elif is_array:
            image = _volume(image, affine, spacing)
        if isinstance(image, Image.Image):
            if image.mode not in PNG_MODES:
                raise InputError(
                    f"got a picture of mode {image.mode}: expected gray or colors (RGB); convert it"
                )
            path = folder / "image.png"
            image.save(path)
        elif isinstance(image, nib.spatialimages.SpatialImage):
            is_nifti = isinstance(image, nib.Nifti1Image)
            path = folder / "image.nii"
            nib.save(image if is_nifti else nib.Nifti1Image.from_image(image), path)
        elif type(image).__module__.startswith("SimpleITK"):
            import SimpleITK as sitk

            path = folder / "image.nrrd"
            sitk.WriteImage(image, path)
        else:
            raise ArgumentError(
                f"got an image of type {type(image).__name__}: expected a path, an array, or an "
                "image of Pillow, nibabel or SimpleITK"
            )
        return str(path)


def _writes(transform: Any) -> bool:
    return isinstance(transform, dict) and WRITES in transform


def _with_channel(label: Any) -> Any:
    """A picture's label may have none."""
    return label[None] if label.ndim == 2 else label


def _picture(array: NDArray[Any]) -> Image.Image:
    colors = array.ndim == 3 and array.shape[-1] == 3
    if array.dtype != np.uint8 or not (array.ndim == 2 or colors) or not array.size:
        raise InputError(
            f"got a picture of shape {list(array.shape)} and type {array.dtype}: expected (rows, "
            "columns) or (rows, columns, 3), uint8 from 0 to 255"
        )
    return Image.fromarray(array)


def _volume(
    array: NDArray[Any], affine: NDArray[Any] | None, spacing: Sequence[float] | None
) -> nib.Nifti1Image:
    if (affine is None) == (spacing is None):
        raise InputError(
            "got an array with both affine and spacing: expected one of them"
            if affine is not None
            else "got an array that says nothing of its voxels: expected affine or spacing in mm"
        )
    if affine is None:
        try:
            sides = np.asarray(spacing, dtype=float)
        except (TypeError, ValueError):
            sides = np.zeros(0)
        if sides.shape != (3,) or not np.all((sides > 0) & (sides < np.inf)):
            raise InputError(f"spacing is {spacing!r}: expected three positive numbers, in mm")
        affine = np.diag([*sides, 1.0])
    affine = np.asarray(affine, dtype=float)
    if affine.shape != (4, 4):
        raise InputError(f"affine is of shape {list(affine.shape)}: expected (4, 4)")
    check_affine("the array", affine)
    if not array.size or array.ndim not in (3, 4):
        raise InputError(
            f"got an array of shape {list(array.shape)}: expected a volume's three axes, or (C, "
            "*spatial) of several channels"
        )
    if array.ndim == 4:
        array = np.moveaxis(array, 0, -1)  # as NIfTI has them
    if array.dtype not in INTEGERS:
        array = array.astype(np.float32)
    return nib.Nifti1Image(array, np.asarray(affine, dtype=float))


def _write_itk(path: str, label: Any) -> None:
    """Write a label map ``(1, *spatial)`` by SimpleITK, compressed."""
    import SimpleITK as sitk

    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ np.array(label.affine.tolist())
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    image = sitk.GetImageFromArray(label[0].numpy().astype(np.uint8).transpose())
    image.SetSpacing(spacing.tolist())
    image.SetDirection((affine[:3, :3] / spacing).flatten().tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    save_itk(image, path)
