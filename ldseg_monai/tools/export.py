"""The whole sampler of a bundle as one file without this package: TorchScript or ONNX."""

from __future__ import annotations

import io
import json
import logging
import math
from pathlib import Path
from typing import Any

import torch
from monai.data import save_net_with_metadata
from torch import nn
from torch.export import Dim

from ldseg_monai.bundle.bundle import Bundle
from ldseg_monai.data.datalist import PathLike
from ldseg_monai.networks.peers import EfficientNetUNet
from ldseg_monai.networks.segmenter import DiffusionSegmenter, diffusion_segmenter
from ldseg_monai.runtime.errors import InputError, MissingFileError, MissingPackageError, counted
from ldseg_monai.runtime.files import whole_file
from ldseg_monai.runtime.ownership import require_new

logger = logging.getLogger(__name__)


class Segmenter(nn.Module):
    """Image in, class probabilities out: the whole reverse process, for TorchScript.

    ``seed`` and ``num_samples`` are attributes of the scripted module too, and may be set there.
    The mean of several samples is taken on the image's grid, that of `SamplingInferer` on the
    network's own, where that is a coarser one: they differ a little at outlines then.

    Args:
        network: in eval mode.
        num_samples: segmentations of each image whose mean is returned.
        seed: of the noise, as in `SamplingInferer`: the same numbers give the same segmentation.
    """

    def __init__(self, network: DiffusionSegmenter, num_samples: int = 1, seed: int = 0) -> None:
        super().__init__()
        self.network = network
        self.num_samples = num_samples
        self.seed = seed

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Segment preprocessed images ``(B, in_channels, *spatial)``.

        Returns:
            Class probabilities ``(B, classes, *spatial)``.
        """
        logits = self.network.segment(image, num_samples=self.num_samples, seed=self.seed)
        return _mean_probabilities(logits, self.num_samples)


class NoiseSegmenter(nn.Module):
    """The same with all that is random as an input, for ONNX, whose random numbers are its own.

    Args:
        network: in eval mode.
        num_samples: segmentations of each image whose mean is returned.
    """

    def __init__(self, network: DiffusionSegmenter, num_samples: int = 1) -> None:
        super().__init__()
        self.network = network
        self.num_samples = num_samples

    def forward(self, image: torch.Tensor, *random: torch.Tensor) -> torch.Tensor:
        """Segment one preprocessed image.

        Args:
            image: ``(1, in_channels, *spatial)``.
            random: the numbers of `random_inputs`.
        """
        noise, *latents = random
        logits = self.network.segment(
            image, noise, latents[0] if latents else None, self.num_samples
        )
        return _mean_probabilities(logits, self.num_samples)


def _mean_probabilities(logits: torch.Tensor, num_samples: int) -> torch.Tensor:
    return logits.softmax(dim=1).unflatten(0, [-1, num_samples]).mean(dim=1)


def random_inputs(
    network: DiffusionSegmenter, image: torch.Tensor, seed: int, num_samples: int
) -> dict[str, torch.Tensor]:
    """Everything random in the segmentation of an image, by the names of the ONNX file's inputs.

    Args:
        network: whose reverse process it is.
        image: ``(1, in_channels, *spatial)``.
        seed: of the noise, as in `SamplingInferer`.
        num_samples: segmentations of the image.

    Returns:
        ``noise``, standard normal, ``(draws, num_samples, C, *latent)``, and, of a network that has
        a random latent, such as cDAL, ``latents``, ``(steps, num_samples, latent_size)``.
    """
    noise = network.seeded_noise(network.noise_shape(image), seed, num_samples)
    numbers = {"noise": noise.field[:, 0]}
    if network.latent_size:
        numbers["latents"] = noise.latents[:, 0]
    return numbers


def side_multiple(network: DiffusionSegmenter) -> int:
    """What divides the sides of the images that a network's ONNX file takes.

    It is the network's stride, or what a part pads images to: PyTorch's export (2.13) follows no
    padding that depends on the size.
    """
    parts = [part for part in network.modules() if isinstance(part, EfficientNetUNet)]
    return math.lcm(network.stride, *(part.multiple for part in parts))


def export(
    bundle: PathLike,
    path: PathLike,
    weights: PathLike | None = None,
    num_samples: int | None = None,
) -> None:
    """Write a bundle's network with its reverse process and its weights as one file.

    Its samples see each image as it is: no views.

    Args:
        bundle: folder of the bundle, or its name, as of `Bundle.find`.
        path: file to write, ``.ts`` for TorchScript or ``.onnx``; the bundle's metadata goes into
            it too. The ONNX file takes one image whose sides are multiples of `side_multiple`, and
            `random_inputs`.
        weights: state dict; None for the bundle's own.
        num_samples: segmentations of an image whose mean is returned; None for the number of
            ``inference.yaml``.

    Raises:
        ValueError: for another ending of ``path``, fewer than one sample, or weights of another
            network.
        FileNotFoundError: without the bundle's files, its weights, or the folder to write to.
        FileExistsError: if there is a file at ``path``.
    """
    source, path = Bundle.find(bundle), Path(path)
    writers = {".ts": _write_torchscript, ".onnx": _write_onnx}
    if path.suffix not in writers:
        raise InputError(f"{path} ends in {path.suffix!r}: expected {' or '.join(writers)}")
    weights = Path(weights or source.weights)
    if not weights.exists():
        raise MissingFileError(
            f"{weights} is not there: expected a state dict; name one with --weights"
        )
    if not path.parent.exists():
        raise MissingFileError(
            f"{path.parent} is not there: expected a folder to write to; make it first"
        )
    require_new(path)
    if num_samples is None:
        num_samples = int(source.config("inference.yaml").get_parsed_content("num_samples"))
    if num_samples < 1:
        raise InputError(f"num_samples is {num_samples}: expected 1 or more")
    network = diffusion_segmenter(source.network(weights))
    with torch.no_grad():
        with whole_file(path, new=True) as hidden:
            writers[path.suffix](network, num_samples, Path(hidden), source.metadata)
    logger.info("wrote %s: %s of each image", path, counted(num_samples, "sample"))


def _write_torchscript(
    network: DiffusionSegmenter, num_samples: int, path: Path, metadata: dict[str, Any]
) -> None:
    scripted = torch.jit.script(Segmenter(network, num_samples).eval())
    buffer = io.BytesIO()  # since PyTorch ends the process where it writes to a disk that is full
    save_net_with_metadata(scripted, buffer, meta_values=metadata)
    path.write_bytes(buffer.getvalue())


def _write_onnx(
    network: DiffusionSegmenter, num_samples: int, path: Path, metadata: dict[str, Any]
) -> None:
    try:
        import onnxscript  # noqa: F401, PyTorch's export needs it
    except ImportError as error:
        raise MissingPackageError(
            "onnxscript is not installed: pip install 'ldseg_monai[onnx]'"
        ) from error
    data = metadata["network_data_format"]["inputs"]["image"]
    number = len(data["spatial_shape"])
    multiple = side_multiple(network)
    # Two cells are refused as a special case, and PyTorch would trace all again without them.
    cells = [Dim(f"cells{axis}", min=3) for axis in range(number)]
    sides, noise = (
        [factor * side for side in cells] if factor > 1 else cells
        for factor in (multiple, multiple // network.stride)
    )
    image = torch.zeros(
        [1, data["num_channels"]] + [(8 + 2 * axis) * multiple for axis in range(number)]
    )
    random = random_inputs(network, image, seed=0, num_samples=num_samples)
    shapes = {"noise": dict(enumerate(noise, start=3)), "latents": {}}
    exported = torch.onnx.export(
        NoiseSegmenter(network, num_samples).eval(),
        (image, *random.values()),
        input_names=["image", *random],
        output_names=["pred"],
        dynamic_shapes=(dict(enumerate(sides, start=2)), tuple(shapes[name] for name in random)),
        dynamo=True,
        verbose=False,
    )
    assert exported is not None  # it is None only where a file is named above
    exported.model.metadata_props["metadata.json"] = json.dumps(metadata)
    exported.save(path, external_data=False)
