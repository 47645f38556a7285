"""Which cases a data set has: the one place that every command asks."""

from __future__ import annotations

import contextlib
import filecmp
import logging
import os
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import ignite.distributed as idist
import numpy as np
from monai.utils import ensure_tuple

from ldseg_monai.data.channels import count_channels, join_channels, require_channels
from ldseg_monai.data.dicom.frames import reading_header
from ldseg_monai.data.dicom.pictures import require_picture, why_no_picture
from ldseg_monai.data.dicom.series import (
    ENDINGS,
    DicomSeries,
    SeriesFiles,
    dicom_name,
    is_dicom,
    kind_without_image,
    one_slice_each,
    read_dicom,
    series_datalist,
    series_files,
)
from ldseg_monai.data.formats import VOLUME_ENDINGS, data_files, is_volume
from ldseg_monai.data.formats.detached import HEADERS
from ldseg_monai.data.formats.kinds import require_file
from ldseg_monai.data.leftovers import (
    Leftovers,
    is_beside,
    is_hidden,
    is_text,
    mask_of,
    require_targets,
    tell,
)
from ldseg_monai.data.leftovers import some as _some
from ldseg_monai.data.listed_cases import Cases, add_names, listed_cases
from ldseg_monai.data.names import (
    CHANNEL,
    EXTENSIONS,
    PathLike,
    image_place,
    name_cases,
    plain_name,
)
from ldseg_monai.data.names import case_name as case_name  # where others look for it
from ldseg_monai.data.phantoms.files import (
    PhantomKind,
    phantom_files,
    phantoms_complete,
    write_phantoms,
)
from ldseg_monai.runtime.errors import FileError, InputError, MissingFileError, counted

logger = logging.getLogger("ldseg_monai.data")
LABEL_ENDINGS = ("_anno", "_label", "_gt")
PARTS = ("images", "labels")


def paired_datalist(dataset_dir: PathLike, require_labels: bool = True) -> Cases:
    """List the cases of a data set and say what is not used: see `find_cases`."""
    cases = find_cases(dataset_dir, require_labels)
    tell_cases(dataset_dir, cases)
    return cases


def find_cases(
    dataset_dir: PathLike,
    require_labels: bool = True,
    series_uid: str | None = None,
    skip_unreadable: bool = False,
    channels: int = 1,
    dicom_pictures: bool = False,
) -> Cases:
    """List the cases of a data set, before anything is read.

    It is a folder with `images/` and `labels/` paired by stem, where a label's stem may end in
    `_anno`, `_label` or `_gt`, or with a `dataset.json` (see `listed_cases`). Where a label has the
    name of a case, its images may be a file for each channel, ``CASE_0000``, ``CASE_0001``.
    Whatever is left out is in the `leftovers` of what is returned; hidden files are not.

    Args:
        dataset_dir: the folder, or the `dataset.json` itself. Without labels, also one image.
        require_labels: whether every image needs a label. Without, the images alone are listed:
            those of `dataset.json`, or in `images/`, or else in `dataset_dir` itself. Masks beside
            their images are left out.
        series_uid: where no labels are required, Series Instance UID of the only DICOM series that
            is wanted, "" for every one in the folder and all below it, beside other images; None
            where DICOM is not read.
        skip_unreadable: whether a DICOM series is taken without files that cannot be read.
        channels: that an image has. Where no labels are required, files ``CASE_0000`` and on are
            one image where it has several, and an image each where it has one.
        dicom_pictures: where no labels are required, whether every DICOM file in the folder and all
            below it is a picture, beside others; not with ``series_uid``.

    Returns:
        `{"image": path, "label": path}` each; no "label" if labels are not required. The image of
        a DICOM series is its folder, or `[folder, UID]` where that has several. That of files of
        several channels is their list. They are in the order of names; series come last, in that of
        folders.

    Raises:
        FileNotFoundError: a folder or a listed file is missing, a link leads to nowhere, or there
            are no images.
        ValueError: an image or a label without its partner, two files for one case, an unreadable
            `dataset.json`, or DICOM that cannot be used (see `series_datalist`).
    """
    root = Path(dataset_dir)
    if root.is_file():
        return _one_file(
            root, require_labels, series_uid, skip_unreadable, channels, dicom_pictures
        )
    if not root.is_dir():
        raise MissingFileError(
            f"dataset_dir {root} does not exist: expected a folder; {_layouts()}"
        )
    if not (root / "images").is_dir() and (root / "dataset.json").is_file():
        if series_uid:
            raise InputError(
                f"series_uid {series_uid} but {root} has a dataset.json: leave one of them out"
            )
        return _with_own_labels(listed_cases(root / "dataset.json", require_labels))
    if require_labels:
        cases = _with_own_labels(_pairs(root))
    else:
        cases = _images(root, series_uid, skip_unreadable, channels, dicom_pictures)
    if (root / "dataset.json").is_file():  # beside images/
        add_names(cases, root / "dataset.json", require_labels)
    return cases


def case_of_channels(paths: Sequence[PathLike]) -> Cases:
    """The case whose channels are these files, in this order.

    Raises:
        FileNotFoundError: if one is not there.
        ValueError: if one is no volume, or their names have the numbers of channels in another
            order.
    """
    files = [os.fspath(path) for path in paths]
    for file in files:
        require_file(file)
        if not is_volume(file):
            raise InputError(
                f"{file} is no volume: expected a file for each channel, ending in "
                f"{', '.join(VOLUME_ENDINGS)}"
            )
    numbers = [CHANNEL.fullmatch(plain_name(file)) for file in files]
    if all(numbers) and files != sorted(files, key=lambda file: plain_name(file)[-4:]):
        raise InputError(
            f"got the channels {', '.join(files)}: expected them in the order of their numbers, "
            "as the network was trained; turn them round"
        )
    image = files if len(files) > 1 else files[0]
    return _named([{"image": image}], Path(files[0]).parent, Leftovers())


def find_together(
    places: Sequence[PathLike], find: Callable[[PathLike], Cases], channels: int = 1
) -> Cases:
    """List the cases of several files and folders, each image once.

    Images of one name are called by their whole paths below the folder that all are in.

    Args:
        places: the files and folders.
        find: lists the cases of one, such as `find_cases`.
        channels: that an image has; where it has several, files of one case are put together.

    Raises:
        FileNotFoundError, ValueError: as of ``find``.
    """
    items: dict[tuple[str, ...], dict[str, Any]] = {}
    names: dict[tuple[str, ...], str] = {}
    leftovers = Leftovers()
    for place in places:
        cases = find(place)
        for case in cases:
            path, *series = image_place(case["image"])
            key = (os.path.realpath(path), *series)
            if key not in items:
                items[key] = case
                names[(path, *series)] = case_name(case["image"])
        for reason, left in cases.leftovers.by_reason.items():
            leftovers.add(reason, *left)
    if channels > 1:
        _join_items(items, names, channels)
    folders = [os.path.dirname(os.path.abspath(path)) for path, *_ in names]
    name_cases([case["image"] for case in items.values()], os.path.commonpath(folders), names)
    return Cases(list(items.values()), leftovers)


def _join_items(
    items: dict[tuple[str, ...], dict[str, Any]], names: dict[tuple[str, ...], str], channels: int
) -> None:
    """Put files of one case that were given one by one together, in place."""
    alone = {}
    for key, item in items.items():
        if isinstance(item["image"], str) and CHANNEL.fullmatch(plain_name(item["image"])):
            alone[item["image"]] = key
    for name, image in join_channels(alone, channels):
        files = ensure_tuple(image)
        for path in files:
            names.pop((path,))
            items.pop(alone[path])
        names[(files[0],)] = name
        items[alone[files[0]]] = {"image": image}


def tell_cases(dataset_dir: PathLike | Sequence[PathLike], cases: Cases) -> None:
    """Say once what is used of a data set, or of several places, and what is not."""
    places = ensure_tuple(dataset_dir)
    told = os.fspath(places[0])
    if len(places) > 1:
        told += f" and {len(places) - 1} more"
    tell(f"{told}: {counted(len(cases), 'case')}", cases.leftovers)


def image_folder(dataset_dir: PathLike) -> Path:
    """The folder of which inference takes every image, unless a `dataset.json` lists them."""
    images = Path(dataset_dir) / "images"
    return images if images.is_dir() else Path(dataset_dir)


def resolve_datalist(
    dataset_dir: PathLike | Sequence[PathLike] | None,
    phantom: str,
    phantom_dir: PathLike,
    num_phantoms: int = 12,
    seed: int = 0,
    require_labels: bool = True,
    series_uid: str | None = None,
    label_values: Sequence[int | str] | None = None,
    phantoms: bool = True,
    skip_unreadable: bool = False,
    channels: int = 1,
    dicom_pictures: bool = False,
) -> list[dict[str, Any]]:
    """List the cases of `dataset_dir`, or of generated phantoms where no `dataset_dir` is given.

    Args:
        dataset_dir: as in `find_cases`; where no labels are required, also a list of files and
            folders. None or "" for phantoms.
        phantom: kind of phantom, as of `write_phantoms`.
        phantom_dir: folder that the phantoms are written to unless they are there already.
        num_phantoms: number of phantoms.
        seed: seed of the phantoms.
        require_labels: as in `find_cases`.
        series_uid: as in `find_cases`.
        label_values: of the phantoms, as in `write_phantoms`.
        phantoms: whether phantoms may stand in for a data set.
        skip_unreadable: as in `find_cases`.
        channels: of a volume, that the network takes; 1 of a picture, whatever its colors.
        dicom_pictures: as in `find_cases`.

    Raises:
        FileNotFoundError: `dataset_dir` was given and does not exist; phantoms are no answer to a
            misspelt path. Or none was given, and phantoms are not wanted.
        ValueError: as of `find_cases`, a `series_uid` for other data, or volumes of another number
            of channels.
    """
    if dataset_dir:
        places = ensure_tuple(dataset_dir)
        if len(places) > 1 and require_labels:
            raise InputError(
                f"dataset_dir is a list of {len(places)}: expected one folder, since a label goes "
                "with each image here"
            )
        for place in places:
            if not os.path.exists(place):
                raise MissingFileError(
                    f"dataset_dir {os.fspath(place)!r} does not exist: expected a folder; correct "
                    "the path, or write generated phantoms there with "
                    f"`ldseg phantom {phantom} --out {os.fspath(place)}`"
                )
        wanted = None if require_labels else series_uid
        # Else a series would be looked through for each of its slices
        different = places if wanted is None else one_slice_each(places)
        if len(different) == 1:
            cases = find_cases(
                different[0], require_labels, wanted, skip_unreadable, channels, dicom_pictures
            )
        else:
            cases = find_together(
                different,
                lambda place: find_cases(
                    place,
                    series_uid=wanted,
                    require_labels=False,
                    skip_unreadable=skip_unreadable,
                    channels=1 if os.path.isfile(place) else channels,
                    dicom_pictures=dicom_pictures,
                ),
                channels,
            )
        require_channels(cases, channels)
        tell_cases(places, cases)
        return cases
    if series_uid:
        raise InputError(
            f"series_uid {series_uid} without dataset_dir: give the folder that has the series"
        )
    if not phantoms:
        raise MissingFileError(
            "no dataset_dir given: expected --dataset_dir DIR, a folder of images, or "
            f"--phantoms True for generated ones ({phantom})"
        )
    logger.warning(
        "no dataset_dir given: using %d generated %s phantoms in %s",
        num_phantoms,
        phantom,
        phantom_dir,
    )
    with idist.one_rank_first():
        given = (phantom_dir, num_phantoms, seed, label_values, channels)
        if not phantoms_complete(phantom, *given):
            write_phantoms(cast(PhantomKind, phantom), *given)
    files = phantom_files(phantom, phantom_dir, num_phantoms, channels)
    if channels > 1:
        name_cases([item["image"] for item in files], phantom_dir)
    return files if require_labels else [{"image": item["image"]} for item in files]


def _one_file(
    path: Path,
    require_labels: bool,
    series_uid: str | None,
    skip_unreadable: bool,
    channels: int = 1,
    dicom_pictures: bool = False,
) -> Cases:
    """The cases of a file: a `dataset.json`, an image, or the series of a DICOM file."""
    if path.suffix.lower() == ".json":
        return _with_own_labels(listed_cases(path, require_labels))
    if require_labels:
        raise InputError(
            f"dataset_dir {path} is one file: expected a folder, since a label goes with each "
            f"image here; {_layouts()}"
        )
    leftovers = Leftovers()
    if path.name.lower().endswith(EXTENSIONS):
        given: dict[tuple[str, ...], str] = {}
        if channels > 1 and count_channels(path) == channels:
            ((name, image),) = join_channels([str(path)], channels)  # as in its folder
            given = {(image,): name}
        return _named([{"image": str(path)}], path.parent, leftovers, given)
    if not is_dicom(str(path)):
        raise InputError(
            f"dataset_dir {path} is no image: expected a file ending in {', '.join(EXTENSIONS)}, "
            "a DICOM file, or a folder"
        )
    if dicom_pictures:
        require_picture(str(path))
        own: dict[tuple[str, ...], str] = {(str(path),): dicom_name(path)}
        return _named([{"image": str(path)}], path.parent, leftovers, own)
    if series_uid is None:
        raise _no_dicom(path)
    kind = kind_without_image(path)
    if kind:
        raise InputError(
            f"dataset_dir {path} is DICOM without an image ({kind}): expected a slice, or "
            "the folder of a series; give that"
        )
    with reading_header(str(path)):
        uid = str(read_dicom(path, stop_before_pixels=True).get("SeriesInstanceUID") or "")
    series = series_datalist([path.parent], series_uid or uid, skip_unreadable, leftovers)
    leftovers.by_reason.pop(f"series_uid is {uid}", None)  # one file was asked for
    return _named_series([], series, path.parent, leftovers)


def _images(
    root: Path,
    series_uid: str | None,
    skip_unreadable: bool,
    channels: int = 1,
    dicom_pictures: bool = False,
) -> Cases:
    """Every image of a folder, and where they are read the DICOM in it and all below."""
    folder, leftovers = image_folder(root), Leftovers()
    found = {below: series_files(below) for below in folders_in(folder)}
    with_dicom = [below for below, files in found.items() if files.dicom or files.doubtful]
    plain = _image_files(folder, leftovers, str(folder) in with_dicom, looked_into=with_dicom)
    images: dict[str, Any] = dict(plain)
    if channels > 1:
        images = _joined(plain.values(), channels)
    _leave_masks(images, leftovers)
    if folder != root:
        _leave_beside(root, leftovers)
    for below, files in found.items():
        if below == str(folder):
            continue
        if below in with_dicom:
            leftovers.add("beside a DICOM series", *files.beside)
        else:
            lonely = [path for path in files.beside if path.lower().endswith(EXTENSIONS)]
            leftovers.add("in a folder of its own: give that as dataset_dir", *lonely)
    names: dict[tuple[str, ...], str] = {}
    if dicom_pictures:
        for below in with_dicom:
            names |= _dicom_pictures(found[below], leftovers)
        with_dicom = []
    if with_dicom and series_uid is None:
        if not images:
            raise _no_dicom(with_dicom[0])
        leftovers.add("DICOM, which this bundle does not read", *with_dicom)
        with_dicom = []
    if series_uid and not with_dicom:
        raise InputError(
            f"series_uid {series_uid} but no DICOM files in {root}: leave it out, or correct "
            "dataset_dir"
        )
    if series_uid:
        leftovers.add(f"series_uid is {series_uid}", *plain.values())
        images = {}
    if not with_dicom and not images and not names:
        raise _no_images(folder, leftovers)
    series: list[DicomSeries] = []
    if with_dicom:
        series = series_datalist(
            with_dicom, series_uid or "", skip_unreadable, leftovers, check=not images
        )
    in_order = [*(images[name] for name in sorted(images)), *(path for (path,) in names)]
    if channels > 1:
        names |= {(image,): name for name, image in images.items() if isinstance(image, str)}
    return _named_series(in_order, series, folder, leftovers, names)


def _dicom_pictures(files: SeriesFiles, leftovers: Leftovers) -> dict[tuple[str, ...], str]:
    """The names of a folder's DICOM files that are pictures, or that cannot be read, by path."""
    names: dict[tuple[str, ...], str] = {}
    for path in sorted([*files.dicom, *files.doubtful]):
        reason = why_no_picture(path) if path in files.dicom else ""
        if reason:
            leftovers.add(f"DICOM, but no picture: {reason}", path)
        elif path in files.dicom or path.lower().endswith(ENDINGS):
            names[(path,)] = dicom_name(path)
        else:
            leftovers.add("neither a picture nor DICOM", path)
    return names


def _joined(paths: Iterable[str], channels: int | None = None) -> dict[str, Any]:
    """Images by the names of their cases, where a case may have a file for each channel."""
    by_case: dict[str, Any] = {}
    for name, image in join_channels(paths, channels):
        other = by_case.setdefault(name, image)
        if other is not image:
            raise InputError(
                f"two images for case {name!r}, {ensure_tuple(other)[0]} and "
                f"{ensure_tuple(image)[0]}: expected one; remove one"
            )
    return by_case


def _named_series(
    images: list[Any],
    series: list[DicomSeries],
    root: Path,
    leftovers: Leftovers,
    names: Mapping[tuple[str, ...], str] | None = None,
) -> Cases:
    """Cases of files and of DICOM series, which have a number where they share a folder.

    Files may have names that are not their own: see `name_cases`.
    """
    items: list[dict[str, Any]] = [{"image": image} for image in images]
    given = dict(names or {})
    counts = Counter(one.folder for one in series)
    for one in series:
        items.append({"image": one.image})
        if counts[one.folder] > 1:
            given[(one.folder, one.uid)] = f"{plain_name(one.folder)}_{one.number}"
    return _named(items, root.absolute(), leftovers, given)


def _named(
    items: list[dict[str, Any]],
    root: Path,
    leftovers: Leftovers,
    given: dict[tuple[str, ...], str] | None = None,
) -> Cases:
    """The cases of items, by names that are all different."""
    name_cases([item["image"] for item in items], root, given)
    return Cases(items, leftovers)


def _pairs(root: Path) -> Cases:
    """The pairs of `images/` and `labels/`."""
    for folder in PARTS:
        if not (root / folder).is_dir():
            above = root.absolute().parent
            is_part = all((above / part).is_dir() for part in PARTS)
            advice = f"expected the folder that has both, {above}" if is_part else _layouts()
            raise MissingFileError(f"{root} has no folder {folder}/: {advice}")
    leftovers = Leftovers()
    require_targets(path for folder in PARTS for path in _visible(root / folder))
    images, labels = (_image_files(root / folder, leftovers) for folder in PARTS)
    for folder, found in (("images", images), ("labels", labels)):
        if not found:
            raise _no_images(root / folder, leftovers)
    if (root / "dataset.json").is_file():
        leftovers.add("its lists, since there is images/", str(root / "dataset.json"))
    _leave_beside(root, leftovers)
    pairs = _pair(images, labels)
    given = {image_place(item["image"]): name for name, item in pairs.items()}
    return _named([*pairs.values()], root, leftovers, given)


def _with_own_labels(cases: Cases) -> Cases:
    """Cases, of which no label is its image: a network would learn to copy it.

    Raises:
        ValueError: naming one that is.
    """
    for case in cases:
        image, label = ensure_tuple(case["image"])[0], case.get("label")
        with contextlib.suppress(OSError):  # of a file that cannot be opened, which is told later
            if label is None or not os.path.getsize(label):  # likewise
                continue
            may_be_header = label.lower().endswith(HEADERS)  # of voxels in another file
            same = os.path.samefile if may_be_header else partial(filecmp.cmp, shallow=False)
            if same(image, label) and not _is_blank(label):
                raise InputError(
                    f"{label} is the label of {image}, and both hold the same: expected an image "
                    "and a label; put the image in its place"
                )
    return cases


def _is_blank(path: str) -> bool:
    """Whether a file holds one value alone, as a black slice and its empty label do."""
    import SimpleITK as sitk

    with contextlib.suppress(RuntimeError):  # of a file that cannot be read, likewise
        return not np.ptp(sitk.GetArrayFromImage(sitk.ReadImage(path)))
    return False


def _leave_beside(root: Path, leftovers: Leftovers) -> None:
    """Note whatever lies beside a data set's folders, but for texts."""
    others = [path for path in _visible(root) if os.path.basename(path) not in PARTS]
    leftovers.add("beside images/ and labels/", *(path for path in others if not is_text(path)))


def _no_images(folder: Path, leftovers: Leftovers) -> MissingFileError:
    told = f"; {leftovers}" if leftovers else ""
    return MissingFileError(
        f"no images in {folder}: expected files ending in {', '.join(EXTENSIONS)}; {_layouts()}"
        f"{told}"
    )


def _no_dicom(place: PathLike) -> InputError:
    return InputError(
        f"{os.fspath(place)} holds DICOM files, which this bundle does not read: expected files "
        f"ending in {', '.join(EXTENSIONS)}; convert them, or add a bundle's sequences.yaml for "
        "sequences of frames"
    )


def folders_in(root: Path) -> Iterator[str]:
    """A folder and all visible ones below it, links to folders included, each once."""
    seen: set[str] = set()
    for folder, below, _ in os.walk(root, onerror=_refuse_folder, followlinks=True):
        below[:] = sorted(name for name in below if not is_hidden(name))
        place = os.path.realpath(folder)
        if place in seen:
            below.clear()
            continue
        seen.add(place)
        yield folder


def _refuse_folder(error: OSError) -> None:
    """Raise for a folder that cannot be looked into, which may hold images."""
    raise FileError(
        error.errno,
        f"{error.filename} cannot be looked into ({error.strerror}): expected a folder that can be "
        "read; allow it, or move it away",
    ) from error


def _visible(folder: Path) -> list[str]:
    """Everything right in a folder that is not hidden, in order."""
    return sorted(str(folder / name) for name in os.listdir(folder) if not is_hidden(name))


def _image_files(
    folder: Path,
    leftovers: Leftovers,
    is_series: bool = False,
    looked_into: Container[str] | None = None,
) -> dict[str, str]:
    """Map the name of every image file right in a folder to its path.

    Args:
        folder: the folder.
        leftovers: gets whatever else is there, but for the voxels of a header.
        is_series: whether whatever else is there may be slices of a DICOM series.
        looked_into: folders that are used. Others are left over if they are called like an image;
            None for none, where all are left over.
    """
    paths: list[str] = []
    others: list[str] = []
    visible = _visible(folder)
    if not is_series:
        require_targets(visible)
    for path in visible:
        if os.path.isdir(path):
            is_expected = path in (looked_into or ()) or not path.lower().endswith(EXTENSIONS)
            if looked_into is None or not is_expected:
                leftovers.add("a folder, not an image", path)
        elif path.lower().endswith(EXTENSIONS):
            paths.append(path)
        elif not is_series or is_beside(path):
            others.append(path)
    used: set[str] = set()
    for path in visible:
        used.update(data_files(path, others))
    leftovers.add("not the ending of an image", *(path for path in others if path not in used))
    return _unique_by_case(paths)


def _leave_masks(images: dict[str, Any], leftovers: Leftovers) -> None:
    """Leave out files that are masks of others beside them."""
    for name in list(images):
        image = mask_of(name, images.keys() - {name})
        if image is not None:
            leftovers.add("a mask or map of an image beside it", images.pop(name))


def _unique_by_case(paths: Iterable[str]) -> dict[str, str]:
    by_case: dict[str, str] = {}
    for path in paths:
        name = plain_name(path)
        other = by_case.setdefault(name, path)
        if other != path:
            raise InputError(
                f"two files for case {name!r}, {other} and {path}: expected one; remove one"
            )
    return by_case


def _pair(files: dict[str, str], labels: dict[str, str]) -> dict[str, dict[str, Any]]:
    """Give every image its label, by the names of the cases.

    Files of channels are one image where the label has the name of their case.
    """
    images: dict[str, Any] = dict(files)
    label_of: dict[str, str] = {}
    stems = {stem.removesuffix(end) for stem in labels for end in ("", *LABEL_ENDINGS)}
    numbered = {name: CHANNEL.fullmatch(name) for name in files.keys() - stems}
    parts = [files[name] for name, found in sorted(numbered.items()) if found and found[1] in stems]
    if parts:
        images = {name: path for name, path in files.items() if path not in parts}
        images |= _joined(parts)
    for stem, path in labels.items():
        stripped = (stem.removesuffix(end) for end in LABEL_ENDINGS if stem.endswith(end))
        name = stem if stem in images else next(stripped, stem)
        other = label_of.setdefault(name, path)
        if other != path:
            raise InputError(
                f"two labels for image {name!r}, {other} and {path}: expected one; remove one"
            )
    unlabeled = [ensure_tuple(images[name])[0] for name in images.keys() - label_of.keys()]
    for what, partner, lonely in (
        ("images", "label", unlabeled),
        ("labels", "image", [label_of[name] for name in label_of.keys() - images.keys()]),
    ):
        if lonely:
            raise InputError(
                f"{len(lonely)} {what} without {partner}, {_some(lonely)}: expected equal stems (a "
                "label's may end in "
                f"{', '.join(LABEL_ENDINGS)}); add the missing files or remove these"
            )
    return {name: {"image": images[name], "label": label_of[name]} for name in sorted(images)}


def _layouts() -> str:
    return (
        "lay the data out as images/ and labels/ paired by file stem, or with a Decathlon "
        "dataset.json"
    )
