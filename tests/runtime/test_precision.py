from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from monai.inferers import SimpleInferer
from prepared_python import Command
from torch import nn

from ldseg_monai.inference.autocast import AutocastInferer
from ldseg_monai.runtime.precision import (
    _has_fast_one_dnn,
    autocast,
    cpu_has_bfloat16,
    use_bfloat16,
)

CPU = torch.device("cpu")


def convolution(kind: type[nn.Module], depth: int) -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(depth)
    return kind(8, 16, kernel_size=3, padding=1), torch.randn(2, 8, depth, 6, 5)


@pytest.mark.parametrize("kind", [nn.Conv3d, nn.ConvTranspose3d])
@pytest.mark.parametrize(
    ("depth", "dtype"), [(1, torch.float32), (2, torch.float32), (3, torch.bfloat16)]
)
def test_volumes_up_to_two_positions_deep_train_in_float32(
    kind, depth: int, dtype: torch.dtype
) -> None:
    layer, volume = convolution(kind, depth)
    with autocast(CPU, True):
        output = layer(volume)
    assert output.dtype == dtype
    (expected,) = torch.autograd.grad(layer(volume).square().sum(), layer.weight)
    (gradient,) = torch.autograd.grad(output.float().square().sum(), layer.weight)
    if dtype == torch.float32:
        assert torch.equal(gradient, expected)
    else:
        assert not torch.equal(gradient, expected)


def test_depth_is_that_of_the_output() -> None:
    volume = torch.randn(1, 4, 8, 8, 8)
    with autocast(CPU, True):
        assert nn.Conv3d(4, 4, kernel_size=4, stride=4)(volume).dtype == torch.float32
        assert nn.Conv3d(4, 4, kernel_size=2, stride=2)(volume).dtype == torch.bfloat16


def test_pictures_and_inference_stay_in_bfloat16() -> None:
    layer, volume = convolution(nn.Conv3d, 2)
    with autocast(CPU, True):
        assert nn.Conv2d(8, 4, kernel_size=3)(volume[:, :, 0]).dtype == torch.bfloat16
    with torch.no_grad(), autocast(CPU, True):
        assert layer(volume).dtype == torch.bfloat16


def test_nothing_changes_where_it_is_off_and_after_it() -> None:
    layer, volume = convolution(nn.Conv3d, 2)
    with autocast(CPU, False):
        assert torch.equal(layer(volume), layer(volume).float())
        assert not torch.is_autocast_enabled("cpu")
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(volume).dtype == torch.bfloat16


# oneDNN reads the variable that holds it to an older processor when it first computes, which the
# prepared interpreter has not.


def test_gradients_are_right_on_a_processor_with_avx512_bf16_and_no_amx(tmp_path: Path) -> None:
    program = """
import torch
from ldseg_monai.runtime.precision import autocast

torch.manual_seed(0)
layer, volume = torch.nn.Conv3d(32, 32, 3, padding=1), torch.randn(2, 32, 2, 8, 8)
gradients = []
for enabled in (False, True, True, True):
    with autocast(torch.device("cpu"), enabled):
        output = layer(volume)
    gradients.append(torch.autograd.grad(output.float().square().sum(), layer.weight)[0])
    del output
    rubbish = [torch.full([10**5 * size], float("nan")) for size in range(1, 5)]  # freed memory that a bug may show
    del rubbish
assert all((gradient - gradients[0]).norm() < 0.02 * gradients[0].norm() for gradient in gradients)
"""
    printed_on("AVX512_CORE_BF16", program, tmp_path)


def printed_on(instructions: str, program: str, folder: Path) -> list[str]:
    """The lines that a program prints where the processor has these instructions at most."""
    (folder / "program.py").write_text(program)
    environment = os.environ | {"ONEDNN_MAX_CPU_ISA": instructions}
    with Command("program", cwd=folder, env=environment) as command:
        assert command.wait() == 0, command.printed
    return command.printed.splitlines()


def test_a_flat_peer_trains_in_float32_where_it_must() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv3d(1, 8, 3, padding=1), nn.Conv3d(8, 8, 3, 4, 1), nn.Conv3d(8, 2, 3, padding=1)
    )
    seen: list[torch.dtype] = []
    for layer in network:
        layer.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    AutocastInferer(SimpleInferer(), True)(torch.randn(1, 1, 8, 8, 8), network)
    assert seen == [torch.bfloat16, torch.float32, torch.float32]


def test_what_a_person_says_is_done() -> None:
    assert use_bfloat16(True, CPU) and not use_bfloat16(False, CPU)
    with pytest.raises(ValueError, match="amp is 'yes': expected True, False or auto"):
        use_bfloat16("yes", CPU)


def test_auto_is_what_the_processor_has() -> None:
    flags = Path("/proc/cpuinfo").read_text().split()
    native = bool({"avx512_bf16", "amx_bf16", "bf16"} & set(flags))
    assert use_bfloat16("auto", CPU) == cpu_has_bfloat16() == native
    with autocast(CPU):
        output = nn.Conv2d(1, 1, 1)(torch.zeros(1, 1, 2, 2))
    assert output.dtype == (torch.bfloat16 if native else torch.float32)


@pytest.mark.parametrize("instructions", ["AVX2", "AVX512_CORE", "AVX512_CORE_VNNI"])
def test_an_older_processor_computes_in_float32(instructions: str, tmp_path: Path) -> None:
    code = """
import logging
logging.basicConfig(level="INFO", format="%(message)s")
import torch
from ldseg_monai.runtime.precision import autocast
for _ in range(2):
    with autocast(torch.device("cpu")):
        print(torch.nn.Conv2d(1, 1, 1)(torch.zeros(1, 1, 2, 2)).dtype)
"""
    said = "amp is auto: computing in float32, since this CPU only emulates bfloat16"
    lines = [line for line in printed_on(instructions, code, tmp_path) if "float" in line]
    assert lines == [said, "torch.float32", "torch.float32"]


SMALL_MAP = (1, 16, 32, 32, 64)  # which PyTorch takes for small: 16 * 32 * 32 is below 20,480


@pytest.mark.parametrize(
    "settings",
    [{"padding": 1}, {"stride": 2}, {"dilation": 2}, {"groups": 4}, {"bias": False}],
    ids=str,
)
def test_small_volumes_have_the_same_convolution(settings: dict) -> None:
    torch.manual_seed(0)
    layer, volume = nn.Conv3d(16, 8, kernel_size=3, **settings), torch.randn(1, 16, 9, 9, 9)
    with torch.no_grad():
        expected = layer.double()(volume.double()).float()
        layer.float()
        with autocast(CPU, False):
            got = layer(volume)
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


def convolutions_of(volume: torch.Tensor, train: bool) -> set[str]:
    """Which kernels a 3D convolution ran in."""
    layer = nn.Conv3d(volume.shape[1], 8, kernel_size=3, padding=1)
    with torch.profiler.profile() as profile, torch.set_grad_enabled(train), autocast(CPU, False):
        layer(volume)
    names = {event.key for event in profile.key_averages()}
    return names & {"aten::slow_conv3d_forward", "aten::mkldnn_convolution"}


@pytest.mark.skipif(not _has_fast_one_dnn(), reason="no oneDNN for x86")
def test_small_volumes_are_segmented_by_one_dnn() -> None:
    volume = torch.randn(SMALL_MAP)
    assert convolutions_of(volume, train=False) == {"aten::mkldnn_convolution"}
    # Where PyTorch takes oneDNN here too, what this class is for is gone
    assert convolutions_of(volume, train=True) == {"aten::slow_conv3d_forward"}
