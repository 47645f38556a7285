"""Pictures of any height from file to file, in strips of rows: memory depends on their width alone.

A picture is read from its TIFF file, goes through a bundle's own preprocessing and its inferer, and
its label and maps are written, one strip after the other. They are those of the whole picture,
pixel by pixel.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable, Hashable, Mapping
from contextlib import ExitStack
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.inferers import Inferer
from monai.transforms import MapTransform
from monai.utils import MetaKeys
from tqdm import tqdm

from ldseg_monai.data.checks import OUTSIDE, remark
from ldseg_monai.data.datalist import case_name
from ldseg_monai.data.formats import Slide
from ldseg_monai.data.formats.slides import Box
from ldseg_monai.data.known import CheckKnownImaged
from ldseg_monai.inference.ensemble import most_probable_class
from ldseg_monai.inference.slabs import Start
from ldseg_monai.inference.sliding_window import SlidingWindowSamplingInferer
from ldseg_monai.inference.strip_reader import Picture, StripReader
from ldseg_monai.inference.tiff import TiledFile
from ldseg_monai.networks.segmenter import diffusion_segmenter
from ldseg_monai.runtime.errors import ArgumentError, InputError
from ldseg_monai.runtime.ownership import place_of

logger = logging.getLogger("ldseg_monai.inference.strips")


class MeasurePictured(MapTransform):
    """Check that pictures can be read in strips, and put their sizes in the place of their pixels.

    Args:
        keys: keys of the pictures' paths.
        known: what refuses pictures that the weights do not know, by some of their rows, slides by
            their resolution and a small picture of them; None for nothing.
        reader: opens the pictures; None for one without a resolution.
        allow_missing_keys: whether a missing key is passed over.
    """

    def __init__(
        self,
        keys: KeysCollection,
        known: CheckKnownImaged | None = None,
        reader: StripReader | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.known = known
        self.reader = reader or StripReader()

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
            with self.reader.open(path) as picture:
                size = MetaTensor(torch.tensor(picture.size), meta={"filename_or_obj": path})
                if self.known is not None:
                    self.known.judge(size, list(self.reader.reasons(picture, self.known)))
                result[key] = size
        return result


class StripInferer(Inferer):
    """Segment pictures from file to file, a strip of rows at a time.

    For each picture ``NAME``, it writes ``NAME_label.ome.tif`` and, for an ensemble,
    ``NAME_mean.ome.tif`` (probabilities of the classes beside the background) and
    ``NAME_sd.ome.tif``, both with 255 for 1: OME-TIFF in compressed tiles and levels, with the
    micrometers of a slide's pixels as it was read. A file of that name is always whole. Windows of
    a slide that have no tissue are background.

    Args:
        inferer: segments windows; its ``buffer_dim`` is that of a picture's rows, 1.
        preprocessing: makes of the path of a picture under ``image`` what the network takes. It is
            called with strips as files, so it must treat each pixel alone.
        output_dir: folder of the files.
        reader: opens the pictures; None for one without a resolution.

    Raises:
        ValueError: for another ``buffer_dim``, or a sampler that keeps its samples.
    """

    def __init__(
        self,
        inferer: SlidingWindowSamplingInferer,
        preprocessing: Callable[[dict], Mapping],
        output_dir: str,
        reader: StripReader | None = None,
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
        self.reader = reader or StripReader()

    def empty_windows(self, picture: Picture) -> tuple[set[Start], int]:
        """Where the windows of a slide begin that have no tissue, and how many there are in all."""
        starts = self.inferer.starts(picture.size)
        tissue = self.reader.tissue(picture)
        if tissue is None:
            return set(), len(starts)
        columns, rows = self.inferer.window(picture.size)
        empty = set()
        for start in starts:
            left, top = start
            if not tissue.is_in((left, top, left + columns, top + rows)):
                empty.add(start)
        return empty, len(starts)

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
            picture = stack.enter_context(self.reader.open(path))
            microns = picture.microns if isinstance(picture, Slide) else None
            empty, number = self.empty_windows(picture)
            if isinstance(picture, Slide):
                _tell_slide(picture, number - len(empty), number)
            os.makedirs(self.output_dir, exist_ok=True)
            writers = []
            for name in self._maps():
                file = os.path.join(self.output_dir, f"{case_name(path)}_{name}.ome.tif")
                writer = TiledFile(file, picture.size, place_of(path), said, microns)
                writers.append(stack.enter_context(writer))
            folder = stack.enter_context(tempfile.TemporaryDirectory(dir=self.output_dir))
            strip_path = os.path.join(folder, f"{case_name(path)}_strip.tif")
            progress = stack.enter_context(
                tqdm(total=picture.size[1], unit=" rows", desc=os.path.basename(path))
            )

            starts = set(self.inferer.starts(picture.size)) - empty
            tops = {top for _, top in starts}
            channels = diffusion_segmenter(network).in_channels

            def read(start: int, stop: int) -> torch.Tensor:
                if start not in tops:  # no window sees it
                    return torch.zeros(1, channels, picture.size[0], stop - start, device=device)
                if isinstance(picture, Slide):
                    rows = picture.rows(start, stop, self._needed(picture))
                else:
                    rows = picture.rows(start, stop)
                rows.save(strip_path)
                strip = torch.as_tensor(self.preprocessing({"image": strip_path})["image"])
                size, expected = list(strip.shape[1:]), [picture.size[0], stop - start]
                if size != expected:
                    raise InputError(
                        f"preprocessing made {size} of {expected} pixels: expected one that keeps "
                        "the size"
                    )
                return MetaTensor(strip).as_tensor()[None].to(device)

            for slab in self.inferer.slabs(read, picture.size, network, empty):
                for writer, maps in zip(writers, self._split(slab), strict=True):
                    writer.append(maps[0].permute(2, 1, 0).cpu().numpy())
                progress.update(slab.shape[-1])
            for writer in reversed(writers):
                writer.save()
            return [writer.path for writer in writers]

    def _needed(self, slide: Slide) -> Callable[[Box], bool] | None:
        """What says whether a window that has tissue may touch a box."""
        tissue = self.reader.tissue(slide)
        if tissue is None:
            return None
        columns, rows = self.inferer.window(slide.size)

        def is_near(box: Box) -> bool:
            left, top, right, bottom = box
            return tissue.is_in((left - columns, top - rows, right + columns, bottom + rows))

        return is_near

    def _maps(self) -> list[str]:
        """What is written of a picture, the label first."""
        return ["label"] if self.inferer.sampler.num_samples == 1 else ["label", "mean", "sd"]

    def _split(self, slab: torch.Tensor) -> list[torch.Tensor]:
        """What is written of a slab: uint8 ``(1, K, columns, rows)`` each."""
        if self.inferer.sampler.num_samples == 1:
            return [most_probable_class(slab, dim=1)]
        maps = (slab.clamp(0, 1) * 255).to(torch.uint8)
        return [most_probable_class(slab[:, :-1], dim=1), maps[:, 1:-1], maps[:, -1:]]


def _tell_slide(slide: Slide, number: int, total: int) -> None:
    """Say at which resolution a slide is read, and how much of it is computed."""
    own, read = slide.own_microns, slide.microns
    how = "at its level 0, of unknown resolution"
    if own is not None and read is not None:
        how = f"at {read[0]:.3g} micrometers a pixel, its own {own[0]:.3g}"
    logger.info(
        "%s: read %s, %d x %d; %d of %d windows are computed, those without tissue are background",
        os.path.basename(slide.path),
        how,
        *slide.size,
        number,
        total,
    )
