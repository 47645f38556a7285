from __future__ import annotations

import json
import resource
from pathlib import Path
from typing import Any

import bundle_kinds
import onnx
import onnxruntime
import pytest
import torch
from monai.data import load_net_with_metadata
from small_networks import build, ldseg_config

from ldseg_monai.bundle import Bundle
from ldseg_monai.inference import SamplingInferer
from ldseg_monai.networks.blocks import efficientnet
from ldseg_monai.networks.segmenter import DiffusionSegmenter, diffusion_segmenter
from ldseg_monai.tools.cli import main
from ldseg_monai.tools.export import export, random_inputs, side_multiple

BUNDLES = Path(__file__).parents[2] / "bundles"


def ldseg(spatial_dims: int) -> dict[str, Any]:
    """An LDSeg whose decoder sees the image's features."""
    return ldseg_config(
        spatial_dims,
        stem_stride=2,
        latent_channels=2,
        attention_levels=[False, True],
        denoiser_attention_levels=[False, True],
        prediction_type="sample",
        decoder_image_levels=[True, False],
    )


def pictures(spatial_dims: int) -> dict[str, Any]:
    """An LDSeg for colors, with a backbone."""
    return ldseg_config(
        spatial_dims,
        in_channels=3,
        channels=[8, 16],
        stem_stride=8,
        denoiser_channels=[8],
        attention_levels=[False, False],
        denoiser_attention_levels=[False],
        prediction_type="sample",
        num_inference_steps=1,
        image_backbone="efficientnet_lite0",
    )


def cdal(spatial_dims: int) -> dict[str, Any]:
    """A cDAL whose steps draw."""
    return {
        "_target_": "ldseg_monai.networks.CDAL",
        "image_encoder": {
            "_target_": "ldseg_monai.networks.ResidualEncoder",
            "spatial_dims": spatial_dims,
            "in_channels": 2,
            "out_channels": 8,
            "channels": [8],
            "num_res_blocks": 1,
        },
        "generator": {
            "_target_": "ldseg_monai.networks.CDALGenerator",
            "spatial_dims": spatial_dims,
            "out_channels": 3,
            "channels": [8, 16],
            "latent_size": 5,
            "num_head_channels": 8,
        },
        "scheduler": {
            "_target_": "ldseg_monai.diffusion.PosteriorScheduler",
            "num_train_timesteps": 2,
        },
        "stochastic": True,
    }


def cdal_pictures(spatial_dims: int) -> dict[str, Any]:
    """A cDAL for colors, with a backbone that pads pictures."""
    network = cdal(spatial_dims)
    encoder = {"in_channels": 3, "out_channels": 8, "decoder_channels": [8, 8, 8, 8]}
    encoder["_target_"] = "ldseg_monai.networks.EfficientNetFeatures"
    return {**network, "image_encoder": encoder}


CASES = [
    (ldseg(2), (16, 24)),
    (ldseg(3), (16, 8, 24)),
    (pictures(2), (48, 96)),
    (cdal(2), (17, 24)),
    (cdal(3), (10, 8, 9)),
    (cdal_pictures(2), (48, 96)),
]
SLOW = [(), *[pytest.mark.slow] * 4, ()]  # an export to ONNX takes half a minute
NAMES = ["LDSeg 2D", "LDSeg 3D", "LDSeg with a backbone", "cDAL 2D", "cDAL 3D"]
NAMES.append("cDAL with a backbone")


@pytest.fixture
def short_backbone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The backbone with a block of each stage, and once a further one: an export takes them one by one."""
    first, second, *others = (stage[:-1] for stage in efficientnet.STAGES)
    short = ((*first, 1), (*second, 2), *((*stage, 1) for stage in others))
    monkeypatch.setattr(efficientnet, "STAGES", short)


def make_bundle(
    folder: Path, network_def: dict[str, Any], num_samples: int = 3
) -> DiffusionSegmenter:
    """Write a bundle with weights whose output depends on the image and the noise; return its network."""
    torch.manual_seed(0)
    made = build(network_def).eval()
    sides = [64 if made.in_channels == 3 else 16] * made.spatial_dims
    image = {"num_channels": made.in_channels, "spatial_shape": sides}
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    config = {"num_samples": num_samples, "network_def": network_def}
    (folder / "configs" / "inference.json").write_text(json.dumps(config))
    metadata = {"version": "1.2.3", "network_data_format": {"inputs": {"image": image}}}
    (folder / "configs" / "metadata.json").write_text(json.dumps(metadata))
    torch.save(made.state_dict(), folder / "models" / "model.pt")
    return made


def segment(network: Any, image: torch.Tensor, seed: int, num_samples: int) -> torch.Tensor:
    """Class probabilities of the bundles' own inferer, in float32."""
    output = SamplingInferer(num_samples=num_samples, seed=seed, amp=False)(image, network)
    return output.softmax(dim=1) if num_samples == 1 else output[:, : network.out_channels]


def script_and_run() -> None:
    """Run another scripted network in this process, which once changed what a loaded one did."""
    network = build(ldseg(2)).eval()
    with torch.no_grad():
        torch.jit.script(network)(torch.zeros(1, 2, 16, 16))


@pytest.mark.usefixtures("short_backbone")
@pytest.mark.parametrize(("network", "size"), CASES, ids=NAMES)
def test_torchscript_segments_as_the_inferer_does(tmp_path: Path, network, size) -> None:
    own = make_bundle(tmp_path / "bundle", network)
    file = tmp_path / "segmenter.ts"
    export(tmp_path / "bundle", file)
    script_and_run()
    scripted, metadata, _ = load_net_with_metadata(str(file))
    assert metadata["version"] == "1.2.3"
    images = torch.randn(2, own.in_channels, *size)
    assert (scripted.seed, scripted.num_samples) == (0, 3)
    with torch.no_grad():
        for seed, num_samples in (
            (0, 3),
            (0, 3),
            (7, 1),
            (0, 3),
        ):  # from the second call on, the code is optimized
            scripted.seed, scripted.num_samples = seed, num_samples
            expected = segment(own, images, seed, num_samples)
            torch.testing.assert_close(scripted(images), expected, rtol=0, atol=1e-5)
    assert not torch.allclose(
        segment(own, images, 0, 1), segment(own, images, 7, 1), rtol=0, atol=1e-4
    )


@pytest.mark.usefixtures("short_backbone")
@pytest.mark.parametrize(
    ("network", "size"),
    [
        pytest.param(*case, id=name, marks=marks)
        for case, name, marks in zip(CASES, NAMES, SLOW, strict=True)
    ],
)
def test_onnx_segments_as_the_inferer_does(tmp_path: Path, network, size) -> None:
    own = make_bundle(tmp_path / "bundle", network, num_samples=2)
    file = tmp_path / "segmenter.onnx"
    export(tmp_path / "bundle", file)
    onnx.checker.check_model(str(file), full_check=True)
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    assert (
        json.loads(session.get_modelmeta().custom_metadata_map["metadata.json"])["version"]
        == "1.2.3"
    )
    image = torch.randn(1, own.in_channels, *size)
    inputs = {"image": image, **random_inputs(own, image, seed=5, num_samples=2)}
    output = session.run(["pred"], {name: value.numpy() for name, value in inputs.items()})[0]
    expected = segment(own, image, seed=5, num_samples=2)
    torch.testing.assert_close(torch.from_numpy(output), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("bundle", "multiple"), [("ldseg_glas", 16), ("cdal_cxr", 16), ("cdal_hippocampus", 1)]
)
def test_sides_of_an_onnx_file(bundle: str, multiple: int) -> None:
    network = diffusion_segmenter(Bundle(BUNDLES / bundle).network())
    assert side_multiple(network) == multiple


@pytest.mark.costly(by=bundle_kinds.network)
@pytest.mark.parametrize("bundle", [path.parent.name for path in sorted(BUNDLES.glob("*/configs"))])
def test_shipped_weights_in_torchscript_give_the_label_of_the_bundle(
    bundle: str, tmp_path: Path
) -> None:
    file = tmp_path / "segmenter.ts"
    assert main(["export", str(BUNDLES / bundle), str(file), "--num_samples", "2"]) == 0
    own = diffusion_segmenter(Bundle(BUNDLES / bundle).network())
    image = torch.randn(1, own.in_channels, *[32] * own.spatial_dims)
    with torch.no_grad():
        output = torch.jit.load(str(file))(image)
    assert torch.equal(
        output.argmax(dim=1), segment(own, image, seed=0, num_samples=2).argmax(dim=1)
    )


def test_torchscript_on_a_full_disk_is_an_error_of_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """PyTorch would end the process, and leave the hidden file."""
    make_bundle(tmp_path / "bundle", ldseg(2))
    out = tmp_path / "out"
    out.mkdir()
    size, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        code = main(["export", str(tmp_path / "bundle"), str(out / "segmenter.ts")])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    assert code == 2
    assert "segmenter.ts cannot be written" in capsys.readouterr().err.splitlines()[-1]
    assert list(out.iterdir()) == []


def test_samples_of_one_pass_are_those_of_several(tmp_path: Path) -> None:
    for network in (ldseg(2), cdal(2)):
        own = make_bundle(tmp_path / network["_target_"], network)
        images = torch.randn(2, 2, 16, 24)
        one = random_inputs(own, images, seed=1, num_samples=3)
        with torch.no_grad():
            together = own.segment(images, *one.values(), num_samples=3)
            for sample in range(3):
                alone = own.segment(
                    images, *[value[:, sample : sample + 1] for value in one.values()]
                )
                torch.testing.assert_close(
                    together.unflatten(0, (2, 3))[:, sample], alone, rtol=1e-4, atol=1e-5
                )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["bundle", "segmenter.pt"], "segmenter.pt ends in '.pt': expected .ts or .onnx"),
        (["elsewhere", "segmenter.ts"], "elsewhere is not a bundle: expected a folder"),
        (["bundle", "folder/segmenter.ts"], "folder is not there: expected a folder to write to"),
        (
            ["bundle", "segmenter.ts", "--weights", "no.pt"],
            "no.pt is not there: expected a state dict",
        ),
        (["bundle", "segmenter.ts", "--num-samples", "0"], "num_samples is 0: expected 1 or more"),
        (
            ["bundle", "segmenter.ts", "--weights", "other.pt"],
            "other.pt has weights of another network",
        ),
    ],
)
def test_user_error_writes_nothing(tmp_path: Path, monkeypatch, capsys, arguments, message) -> None:
    make_bundle(tmp_path / "bundle", ldseg(2))
    torch.save({"weight": torch.zeros(1)}, tmp_path / "other.pt")
    monkeypatch.chdir(tmp_path)
    assert main(["export", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "other.pt"]
