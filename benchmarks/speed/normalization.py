"""What a group normalization costs in training: PyTorch's in two layouts, and the networks' own.

    python -m benchmarks.speed.normalization bundles/ldseg_hippocampus

The largest feature map of the bundle's encoders, forward and backward, in bfloat16.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import nn

from benchmarks import report
from benchmarks.speed import measure, workload
from benchmarks.speed.measure import Call, Result
from benchmarks.speed.workload import Workload
from ldseg_monai.networks.blocks import ResidualEncoder, normalization

NUM_GROUPS = 8
OURS, LAST, FIRST = "ours, channels last", "PyTorch's, channels last", "PyTorch's, channels first"
ABOUT = """Group normalization of {shape} in {groups} groups, bfloat16, forward and backward.
Channels last is the layout of the networks, since convolutions are fastest in it; ours goes over to
channels first and back while it trains. Ratios are to ours, in the same round."""


def feature_shape(work: Workload) -> list[int]:
    """Of the largest feature map that a residual encoder makes of a batch, at its first level."""
    shapes = []
    for encoder in work.network().modules():
        if isinstance(encoder, ResidualEncoder):
            stem = cast(Any, encoder.levels[0])[0]
            sides = zip(work.training_size, stem.stride, strict=True)
            size = [side // step for side, step in sides]
            shapes.append([work.batch_size, stem.out_channels, *size])
    return max(shapes, key=math.prod)


def pass_call(name: str, shape: Sequence[int], device: str) -> Call:
    """Build a layer and its input; the call is a forward and a backward pass."""
    spatial_dims = len(shape) - 2
    last = torch.channels_last if spatial_dims == 2 else torch.channels_last_3d
    ours = normalization(("group", {"num_groups": NUM_GROUPS}), spatial_dims, shape[1])
    layer = (ours if name == OURS else nn.GroupNorm(NUM_GROUPS, shape[1])).to(
        device, torch.bfloat16
    )
    x = torch.randn(list(shape), generator=torch.Generator().manual_seed(0)).to(
        device, torch.bfloat16
    )
    x = x.contiguous(
        memory_format=torch.contiguous_format if name == FIRST else last
    ).requires_grad_()
    gradient = torch.ones_like(x)

    def call() -> None:
        x.grad = None
        layer(x).backward(gradient)

    return call


def table(results: Mapping[str, Result]) -> str:
    """A row for each."""
    return report.table(
        [
            {"normalization": name} | report.measured(result, results[OURS], "ours")
            for name, result in results.items()
        ]
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Write normalization.md for the bundle named on the command line, and print it."""
    arguments = workload.argument_parser(__doc__).parse_args(argv)
    work = workload.workload_of(arguments)
    shape = feature_shape(work)
    about = ABOUT.format(shape=" x ".join(map(str, shape)), groups=NUM_GROUPS)
    head = report.header(f"Normalization: {work.name}", about, "speed.normalization", argv, 0)
    chosen = {
        name: {"": partial(pass_call, name, shape, arguments.device)}
        for name in (OURS, LAST, FIRST)
    }
    results = measure.compare(chosen, arguments.rounds, budget=60, device=arguments.device)
    print(report.write(arguments.out / "normalization.md", head, table(results)))


if __name__ == "__main__":
    main()
