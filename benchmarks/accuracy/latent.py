"""How good a bundle's label latent is, and whether it is used: the figures that a Dice alone hides.

    python -m benchmarks.accuracy.latent bundles/ldseg_knee3d --dataset_dir DIR --cases case4

For the named cases (all others only lend their latents for the swaps) it prints a table of mean
foreground Dice against the original label in its own geometry:

- resize: the true label resized to the network's grid and back, the limit of any network on that
  grid;
- ceiling: the true label encoded and decoded (and resized so), the limit of any denoiser;
- swapped: the latent of another case decoded, which must be far lower if the latent carries the
  case;
- K = 1, 2, 10: the segmentation in K steps;
- own, other at T/2: one denoising of the noised true latent, or of another case's, beside the same
  image: equal if the denoiser does not listen to the latent.

Below it, the share of the latents' variance that lies between cases rather than within the mean
picture.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from monai.metrics import compute_dice
from monai.networks.utils import one_hot
from monai.transforms import Compose

from benchmarks import command
from ldseg_monai.bundle import Bundle
from ldseg_monai.data.datalist import PathLike, case_name, resolve_datalist
from ldseg_monai.diffusion.noise import seeded_noise
from ldseg_monai.networks.ldseg.network import LDSeg
from ldseg_monai.networks.weights import load_weights
from ldseg_monai.runtime.precision import use_bfloat16

STEPS = (1, 2, 10)


def share_between_cases(latents: torch.Tensor) -> float:
    """Share of the variance of latents ``(cases, C_z, *latent)`` that their mean does not have."""
    positions = list(range(2, latents.ndim))
    between = latents.var(dim=0).mean(dim=[axis - 1 for axis in positions])
    return (between / latents.var(dim=[0, *positions])).mean().item()


def denoised_from_middle(
    network: LDSeg, clean: torch.Tensor, embedding: torch.Tensor, noise: torch.Tensor
) -> torch.Tensor:
    """One denoising of a clean latent that was noised to T/2, beside this embedding."""
    middle = torch.tensor([network.scheduler.num_train_timesteps // 2])
    noisy = network.scheduler.add_noise(clean, noise, middle)
    return network.scheduler.denoise(
        network.denoiser(noisy, embedding, middle).float(), middle, noisy
    )


class GridScores:
    """Scores in the files' geometry of what is on the grid of a bundle's network.

    Args:
        bundle: whose network and cases they are.
        model_path: weights; None for the bundle's own.
        overrides: items of its `train.yaml` to override, such as ``dataset_dir``.
    """

    def __init__(
        self, bundle: Bundle, model_path: PathLike | None = None, **overrides: Any
    ) -> None:
        parser = bundle.config("train.yaml", **overrides)
        self.num_classes: int = parser["num_classes"]
        self.network: Any = parser.get_parsed_content("network_def").eval()
        load_weights(self.network, str(model_path or bundle.weights))
        self.on_grid = Compose(parser.get_parsed_content("train#deterministic_transforms"))
        self.original = parser.get_parsed_content("validate#preprocessing")
        self.to_label = parser.get_parsed_content("validate#postprocessing")
        self.spatial_size: list[int] | None = parser.get_parsed_content(
            "spatial_size", default=None
        )
        cpu = torch.device("cpu")
        self.amp = use_bfloat16(parser.get_parsed_content("amp"), cpu)
        self.bfloat16 = torch.autocast("cpu", torch.bfloat16, enabled=self.amp)

    def dice(self, logits: torch.Tensor, case: dict) -> float:
        """Mean foreground Dice of logits ``(1, classes, *grid)`` in the geometry of the file."""
        prediction = self.to_label({**case, "pred": logits[0].float()})["pred"]
        masks = [
            one_hot(x.as_tensor()[None].long(), self.num_classes)
            for x in (prediction, case["label"])
        ]
        return compute_dice(*masks, include_background=False).nanmean().item()


class LatentReport(GridScores):
    """The scores of latents of LDSeg: true, swapped and sampled ones."""

    @torch.no_grad()
    def rows(
        self, datalist: list[dict], cases: list[str]
    ) -> tuple[dict[str, dict[str, float]], float]:
        """Score the named cases.

        Returns:
            A row of scores for each, and the share of variance between all cases.
        """
        latents = []
        with self.bfloat16:
            for item in datalist:
                latents.append(
                    self.network.encode_label(self.on_grid(item)["label"].as_tensor()[None])
                )
            rows = {}
            for index, item in enumerate(datalist):
                if case_name(item["image"]) in cases:
                    rows[case_name(item["image"])] = self._row(
                        item, latents[index], latents[index - 1]
                    )
        return rows, share_between_cases(torch.cat(latents))

    def _row(self, item: dict, own: torch.Tensor, other: torch.Tensor) -> dict[str, float]:
        network, case = self.network, self.original(item)
        resized = one_hot(self.on_grid(item)["label"].as_tensor()[None].long(), self.num_classes)
        embedding, features = network.encode_image(case["image"].as_tensor()[None])
        shape = list(own.shape[1:])  # [C_z, *latent]
        row = {
            "resize": self.dice(resized, case),
            "ceiling": self.dice(network.label_decoder(own), case),
            "swapped": self.dice(network.label_decoder(other, features), case),
        }
        for steps in STEPS:
            draws = seeded_noise(shape, 0, 1, network.num_draws(steps))
            latent = network.sample_latent(embedding, draws, steps)
            row[f"K = {steps}"] = self.dice(network.label_decoder(latent, features), case)
        for name, clean in (("own at T/2", own), ("other at T/2", other)):
            latent = denoised_from_middle(network, clean, embedding, seeded_noise(shape, 0)[0])
            row[name] = self.dice(network.label_decoder(latent, features), case)
        return row


def main() -> None:
    """Print the table of the bundle and cases named on the command line."""
    parser = command.argument_parser(__doc__)
    command.add_bundle(parser)
    parser.add_argument("--dataset_dir", required=True)
    parser.add_argument("--cases", nargs="+", help="names of the cases to score (default: all)")
    parser.add_argument("--model_path", type=Path, help="weights (default: the bundle's)")
    arguments = parser.parse_args()
    bundle, dataset_dir = arguments.bundle, arguments.dataset_dir
    report = LatentReport(bundle, arguments.model_path, dataset_dir=dataset_dir)
    datalist = resolve_datalist(dataset_dir, phantom="", phantom_dir="")
    rows, share = report.rows(
        datalist, arguments.cases or [case_name(item["image"]) for item in datalist]
    )
    columns = list(next(iter(rows.values())))
    print("| case | " + " | ".join(columns) + " |")
    print("|---" * (len(columns) + 1) + "|")
    for name, row in rows.items():
        print(f"| {name} | " + " | ".join(f"{row[column]:.4f}" for column in columns) + " |")
    print(f"\nShare of latent variance between the {len(datalist)} cases: {share:.3f}")


if __name__ == "__main__":
    main()
