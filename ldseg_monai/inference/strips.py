"""Pictures of any height from file to file, in strips of rows: memory depends on their width alone.

A picture is read from its TIFF file, goes through a bundle's own preprocessing and its inferer, and
its label and maps are written, one strip after the other. They are those of the whole picture,
pixel by pixel.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Hashable, Mapping
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.inferers import Inferer
from monai.transforms import MapTransform
from monai.utils import MetaKeys
from tqdm import tqdm

from ldseg_monai.data.checks import OUTSIDE, remark
from ldseg_monai.data.datalist import case_name
from ldseg_monai.data.known import CheckKnownImaged
from ldseg_monai.inference.ensemble import most_probable_class
from ldseg_monai.inference.sliding_window import SlidingWindowSamplingInferer
from ldseg_monai.inference.tiff import TiffPicture, TiledFile, WholePicture, open_picture
from ldseg_monai.runtime.errors import ArgumentError, InputError
from ldseg_monai.runtime.ownership import place_of

BAND = 64  # rows of each part of a picture that tells its kind


class MeasurePictured(MapTransform):
    """Check that pictures can be read in strips, and put their sizes in the place of their pixels.

    Args:
        keys: keys of the pictures' paths.
        known: what refuses pictures that the weights do not know, by some of their rows; None for
            nothing.
        allow_missing_keys: whether a missing key is passed over.
    """

    def __init__(
        self,
        keys: KeysCollection,
        known: CheckKnownImaged | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.known = known

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy of ``data`` with columns and rows of each picture, ``(2,)``, and its path.

        The path is in the metadata.

        Raises:
            ValueError: for a picture that cannot be read in strips, or is none that the weights
                know.
        """
        result = dict(data)
        for key in self.key_iterator(result):
            path = os.fspath(result[key])
            with open_picture(path) as picture:
                size = MetaTensor(torch.tensor(picture.size), meta={"filename_or_obj": path})
                if self.known is not None:
                    rows = torch.from_numpy(_some_rows(picture))  # (3, rows, columns)
                    self.known.judge(size, list(self.known.reasons(MetaTensor(rows), picture.size)))
                result[key] = size
        return result


def _some_rows(picture: WholePicture | TiffPicture) -> np.ndarray:
    """Three bands of a picture's rows, red, green and blue, ``(3, rows, columns)``."""
    columns, rows = picture.size
    bands = []
    for share in (0.25, 0.5, 0.75):
        start = int(share * max(0, rows - BAND))
        band = picture.rows(start, min(rows, start + BAND)).convert("RGB")
        bands.append(np.asarray(band))  # (rows, columns, 3)
    return np.concatenate(bands).transpose(2, 0, 1)


class StripInferer(Inferer):
    """Segment pictures from file to file, a strip of rows at a time.

    For each picture ``NAME``, it writes ``NAME_label.tif`` and, for an ensemble, ``NAME_mean.tif``
    (probabilities of the classes beside the background) and ``NAME_sd.tif``, both with 255 for 1:
    tiled, compressed TIFF. A file of that name is always whole.

    Args:
        inferer: segments windows; its ``buffer_dim`` is that of a picture's rows, 1.
        preprocessing: makes of the path of a picture under ``image`` what the network takes. It is
            called with strips as files, so it must treat each pixel alone.
        output_dir: folder of the files.

    Raises:
        ValueError: for another ``buffer_dim``, or a sampler that keeps its samples.
    """

    def __init__(
        self,
        inferer: SlidingWindowSamplingInferer,
        preprocessing: Callable[[dict], Mapping],
        output_dir: str,
    ) -> None:
        super().__init__()
        if inferer.buffer_dim not in (1, -1):
            raise InputError(
                f"buffer_dim of the inferer is {inferer.buffer_dim}: expected 1, a picture's rows"
            )
        if inferer.sampler.keep_samples:
            raise InputError(
                "keep_samples of the sampler is true: expected false, since strips are written and "
                "not kept"
            )
        self.inferer = inferer
        self.preprocessing = preprocessing
        self.output_dir = output_dir

    @torch.no_grad()
    def __call__(
        self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        """Segment the pictures that a batch of `MeasurePictured` stands for.

        Args:
            inputs: sizes ``(B, 2)`` on the network's device, with the pictures' paths as metadata.
            network: as of `SamplingInferer`.
            args: nothing.
            kwargs: nothing.

        Returns:
            The sizes, with the paths of what was written as metadata.

        Raises:
            TypeError: for further arguments.
            ValueError: for a picture that cannot be read in strips, or a preprocessing that changes
                its size.
        """
        if args or kwargs:
            got = [*map(type, args), *kwargs]
            raise ArgumentError(f"got {got} beside inputs and network: expected nothing else")
        batch = MetaTensor(inputs)
        paths = batch.meta["filename_or_obj"]
        # Where a picture is none of the known
        reasons = batch.meta.get(OUTSIDE) or [""] * len(paths)
        written = []
        for path, reason in zip(paths, reasons, strict=True):
            written.append(self._segment(path, network, batch.device, remark({OUTSIDE: reason})))
        as_collated = [
            list(kind) for kind in zip(*written, strict=True)
        ]  # a list of each kind of file
        result = MetaTensor(batch.as_tensor(), meta={**batch.meta, MetaKeys.SAVED_TO: as_collated})
        result.is_batch = True
        return result

    def _segment(
        self, path: str, network: Callable[..., Any], device: torch.device, said: str
    ) -> list[str]:
        """Segment one picture, and return the paths of its files, the label first."""
        os.makedirs(self.output_dir, exist_ok=True)
        with ExitStack() as stack:
            picture = stack.enter_context(open_picture(path))
            os.makedirs(self.output_dir, exist_ok=True)
            files = [
                os.path.join(self.output_dir, f"{case_name(path)}_{name}") for name in self._maps()
            ]
            writers = [
                stack.enter_context(TiledFile(f"{file}.tif", picture.size, place_of(path), said))
                for file in files
            ]
            folder = stack.enter_context(tempfile.TemporaryDirectory(dir=self.output_dir))
            strip_path = os.path.join(folder, f"{case_name(path)}_strip.tif")
            progress = stack.enter_context(
                tqdm(total=picture.size[1], unit=" rows", desc=os.path.basename(path))
            )

            def read(start: int, stop: int) -> torch.Tensor:
                picture.rows(start, stop).save(strip_path)
                strip = torch.as_tensor(self.preprocessing({"image": strip_path})["image"])
                size, expected = list(strip.shape[1:]), [picture.size[0], stop - start]
                if size != expected:
                    raise InputError(
                        f"preprocessing made {size} of {expected} pixels: expected one that keeps "
                        "the size"
                    )
                return MetaTensor(strip).as_tensor()[None].to(device)

            for slab in self.inferer.slabs(read, picture.size, network):
                for writer, rows in zip(writers, self._split(slab), strict=True):
                    writer.append(rows[0].permute(2, 1, 0).cpu().numpy())
                progress.update(slab.shape[-1])
            for writer in reversed(writers):
                writer.save()
            return [writer.path for writer in writers]

    def _maps(self) -> list[str]:
        """What is written of a picture, the label first."""
        return ["label"] if self.inferer.sampler.num_samples == 1 else ["label", "mean", "sd"]

    def _split(self, slab: torch.Tensor) -> list[torch.Tensor]:
        """What is written of a slab: uint8 ``(1, K, columns, rows)`` each."""
        if self.inferer.sampler.num_samples == 1:
            return [most_probable_class(slab, dim=1)]
        maps = (slab.clamp(0, 1) * 255).to(torch.uint8)
        return [most_probable_class(slab[:, :-1], dim=1), maps[:, 1:-1], maps[:, -1:]]
