"""Further kinds of files of label maps that were written in strips, made in strips as well."""

from __future__ import annotations

import logging
import os
from collections.abc import Hashable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from monai.config import KeysCollection

from ldseg_monai.data.checks import remark
from ldseg_monai.data.exports.geojson import Place, feature_of, write_features
from ldseg_monai.data.exports.outlines import objects_in_strips
from ldseg_monai.data.exports.saver import SaveImageAsd
from ldseg_monai.data.formats import Slide
from ldseg_monai.data.names import case_name
from ldseg_monai.inference.strip_reader import StripReader, label_strips
from ldseg_monai.runtime.files import note_saved, saved_files, whole_file
from ldseg_monai.runtime.ownership import place_of

logger = logging.getLogger("ldseg_monai.inference.strips")


class SaveStripsAsd(SaveImageAsd):
    """Write what `StripInferer` wrote of pictures in kinds of files that other programs open.

    That is ``geojson``, an outline an object in pixels of the image's file, of a slide those of its
    level 0: ``NAME_objects.geojson``. ``tiff`` is what the strips are written as anyway.

    Args:
        keys: keys of what `StripInferer` returns.
        output_dir: folder of the files.
        kinds: of files; may be none.
        metadata: the bundle's ``metadata.json``, which names the classes.
        reader: opens the pictures.
        colors: red, green, blue of classes, by their names.
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
        reader: StripReader,
        colors: Mapping[str, Sequence[int]] | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, output_dir, kinds, metadata, colors, 2, allow_missing_keys)
        self.reader = reader

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Write, and return ``data``, in whose metadata the files are named.

        Raises:
            FileExistsError: for a file that is there and not this program's, or was changed since.
            OSError: if a file cannot be written, for example because the disk is full.
        """
        for key in self.key_iterator(dict(data)):
            if "geojson" in self.kinds:
                meta = data[key].meta
                path = os.path.join(self.output_dir, f"{case_name(meta)}_objects.geojson")
                label, *_ = saved_files(data[key])
                features = self._features(key, label, self._place(meta))
                with whole_file(path, place_of(meta["filename_or_obj"])) as hidden:
                    write_features(hidden, features, remark(meta))
                note_saved(data[key], path)
                logger.info("writing: %s", path)
        return dict(data)

    def _place(self, meta: Mapping[Any, Any]) -> Place:
        with self.reader.open(meta["filename_or_obj"]) as picture:
            if not isinstance(picture, Slide):
                return Place(case_name(meta))
            return Place(case_name(meta), picture.scale, picture.own_microns)

    def _features(self, key: Hashable, label: str, place: Place) -> Iterator[dict[str, Any]]:
        for item in self.classes[key]:
            make = partial(feature_of, place, item)
            for mask, corner in objects_in_strips(label_strips(label), item.number):
                yield make(mask, corner)
