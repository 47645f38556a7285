"""How long one training step of a bundle takes and how much memory, beside a residual UNet's.

    python -m benchmarks.speed.training_step bundles/ldseg_knee3d

A step is a forward pass through the bundle's training inferer, its loss, the backward pass and its
optimizer's step, at its batch size; loading, gradient clipping and the averaging of the weights are
left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from monai.inferers import SimpleInferer
from monai.losses import DiceCELoss

from benchmarks import report
from benchmarks.speed import measure, workload
from benchmarks.speed.measure import Build, Call, Result
from benchmarks.speed.workload import Workload
from ldseg_monai.inference.autocast import AutocastInferer

UNET = "UNet"
ABOUT = """One step on {batch} of {size} voxels: forward, loss, backward, optimizer. {own}, its
inferer, loss and optimizer are the bundle's. UNet is MONAI's ({unet}) with Dice and cross-entropy
loss and AdamW, with the precision of {own}, in the faster of two memory layouts (see the remark),
on sides padded to multiples of {stride}. Images and labels are noise. Ratios are of the same round.
Memory is of a process of its own."""


def batch(work: Workload, stride: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise as a batch of images and labels, padded to a multiple of the stride."""
    size, number = workload.padded(work.training_size, stride), work.batch_size
    generator = torch.Generator().manual_seed(work.seed)
    classes = work.about.out_channels
    label = torch.randint(classes, [number, 1, *size], generator=generator, dtype=torch.uint8)
    return work.image(size, number), label.to(work.device)


def own_step(work: Workload) -> Call:
    """Build what the bundle trains with; the call is one step, and returns its loss."""
    torch.manual_seed(work.seed)
    config = work.config()
    network = work.prepare(config.get_parsed_content("network")).train()
    inferer, loss = config.get_parsed_content("train#inferer"), config.get_parsed_content("loss")
    image, label = batch(work)
    return _step(
        lambda: loss(inferer(image, network, label=label), label),
        config.get_parsed_content("optimizer"),
    )


def unet_step(work: Workload, layout: str) -> Call:
    """Build the UNet in a memory layout; the call is one step, and returns its loss."""
    image, label = batch(work, workload.PEERS[UNET].stride)
    network = work.prepare(workload.peer_network(work, UNET, work.training_size, layout)).train()
    inferer = AutocastInferer(
        SimpleInferer(), work.config().get_parsed_content("train#inferer").amp
    )
    loss = DiceCELoss(to_onehot_y=True, softmax=True)
    optimizer = torch.optim.AdamW(network.parameters())
    return _step(lambda: loss(inferer(image, network).float(), label), optimizer)


def candidates(work: Workload) -> dict[str, Mapping[str, Build]]:
    """Builds of both steps."""
    own = {"": partial(own_step, work)}
    return {work.about.method: own, UNET: workload.layouts(unet_step, work)}


def table(results: Mapping[str, Result], number: int) -> str:
    """A row for each network, the bundle's first, for steps of so many images."""
    rows, own = [], next(iter(results))
    for name, result in results.items():
        throughput = report.number(number / result.median) if result.seconds else report.NONE
        columns = report.measured(result, results[own], own)
        rows.append({"network": name, "images a second": throughput} | columns)
    return report.table(rows)


def main(argv: Sequence[str] | None = None) -> None:
    """Write training_step.md for the bundle named on the command line, and print it."""
    parser = workload.argument_parser(__doc__)
    workload.add_comparison(parser)
    arguments = parser.parse_args(argv)
    work = workload.workload_of(arguments)
    number = work.batch_size
    about = ABOUT.format(
        own=work.about.method,
        stride=workload.PEERS[UNET].stride,
        batch="one image" if number == 1 else f"{number} images",
        size="x".join(map(str, work.training_size)),
        unet=workload.PEERS[UNET].about,
    )
    head = report.header(
        f"One training step: {work.name}", about, "speed.training_step", argv, arguments.seed
    )
    chosen = candidates(work)
    memory = () if arguments.no_memory else tuple(chosen)
    results = measure.compare(chosen, arguments.rounds, arguments.budget, arguments.device, memory)
    print(report.write(arguments.out / "training_step.md", head, table(results, number)))


def _step(forward: Callable[[], torch.Tensor], optimizer: torch.optim.Optimizer) -> Call:
    """One step of an optimizer, after a first one, which makes its state."""

    def step() -> torch.Tensor:
        optimizer.zero_grad()
        loss = forward()
        loss.backward()
        optimizer.step()
        return loss.detach()

    step()
    return step


if __name__ == "__main__":
    main()
