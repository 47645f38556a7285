"""The program that says which images look unlike those that weights know."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.accuracy import appearance
from ldseg_monai.bundle import Bundle
from ldseg_monai.data.known import read_known
from ldseg_monai.data.phantoms.files import write_phantoms
from ldseg_monai.data.trained_cases import TrainedCases

CXR = Path(__file__).parents[3] / "bundles" / "cdal_cxr"


def test_order_of_distances_is_the_area_under_the_curve() -> None:
    assert appearance.auroc([1, 2], [3, 4]) == 1
    assert appearance.auroc([1, 3], [2, 3]) == pytest.approx((1 + 1 + 0 + 0.5) / 4)


def test_images_of_another_kind_are_unlike_and_the_bundle_says_from_where_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(appearance, "FITTED", 10)
    monkeypatch.setattr(appearance, "PHANTOMS", 2)
    bundle, data = tmp_path / "bundle", tmp_path / "data"
    shutil.copytree(CXR / "configs", bundle / "configs")
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text())
    del metadata["known_images"]["appearance"], metadata["known_images"]["appearance_resized"]
    (bundle / "configs" / "metadata.json").write_text(json.dumps(metadata, indent=4))
    (bundle / "models").mkdir()
    (bundle / "models" / "model.pt").touch()
    write_phantoms("thorax", data, 14, seed=5)
    write_phantoms("gland", tmp_path / "glands", 3, seed=5)
    images = sorted((data / "images").iterdir())
    TrainedCases.of([{"image": str(path)} for path in images[:10]]).write(
        bundle / "models" / "model.pt"
    )
    arguments = [str(bundle), "--dataset_dir", str(data), "--phantoms", "thorax"]
    others = ["--other", "glands", str(tmp_path / "glands")]
    out = ["--out", str(tmp_path / "out"), "--declare"]
    appearance.main([*arguments, *others, *out])
    lines = capsys.readouterr().out.splitlines()
    table = [line for line in lines if line.count("|") == 8]
    cells = [[cell.strip() for cell in row.split("|")[1:-1]] for row in table[2:]]
    rows = {name: others for name, *others in cells}
    altered = ["half", "double", "blurred", "with noise", "inverted", "noise alone"]
    made = ["phantoms", *(f"phantoms: {kind}" for kind in ("gland", "nuclei", "echo"))]
    assert list(rows) == ["same data set", *altered, *made, "glands"]
    assert rows["same data set"][:2] == ["4", "0"] and rows["phantoms"][0] == "2"
    for name in ("glands", "phantoms: gland", "noise alone", "inverted"):
        read, _, _, unlike, _, area = rows[name]
        assert unlike == read and area == "1.000"
    known = read_known(str(Bundle(bundle).configs / "metadata.json"))
    assert list(known.appearance) == ["training images", "phantoms"]
    assert all(1 < group.limit < 5 for group in known.appearance.values())
    assert known.appearance_resized  # as cdal_cxr resizes each picture
    again = json.loads((bundle / "configs" / "metadata.json").read_text())
    for name in ("appearance", "appearance_resized"):
        assert again["known_images"].pop(name)
    assert again == metadata
    assert (bundle / "configs" / "metadata.json").read_text().startswith('{\n    "schema"')


def test_groups_of_fewer_images_are_compared_with_all_others() -> None:
    draw = np.random.default_rng(0)
    own, far, alike = (
        draw.normal(size=(60, 4)),
        50 + draw.normal(size=(9, 4)),
        draw.normal(size=(90, 4)),
    )
    others = {"far": appearance.Measured(far, 0, 0), "alike": appearance.Measured(alike, 0, 0)}
    rows = appearance.of_fewer(own, others)
    assert [row["images"] for row in rows] == ["8", "12", "24"]  # half of them at most
    for row in rows:
        assert row["far, AUROC"] == "1.000" and 0.4 < float(row["alike, AUROC"]) < 0.6
        assert float(row["same data set, unlike"]) < 0.1


def test_alterations_are_what_their_names_say() -> None:
    image = 100 * torch.rand(3, 64, 48, generator=torch.Generator().manual_seed(0))
    altered = {name: alter(image) for name, alter in appearance.alterations().items()}
    assert altered["half"].shape == (3, 32, 24) and altered["double"].shape == (3, 128, 96)
    torch.testing.assert_close(altered["half"].mean(), image.mean(), atol=1e-2, rtol=0)
    inverted = appearance.alterations()["inverted"](altered["inverted"])
    torch.testing.assert_close(inverted, image, atol=1e-3, rtol=0)  # of 0 to 100
    added = altered["with noise"] - image
    inside = (altered["with noise"] > image.min()) & (altered["with noise"] < image.max())
    inside = inside.all(0)
    torch.testing.assert_close(added[0][inside], added[2][inside], atol=1e-4, rtol=0)  # gray
    assert float(altered["blurred"].std()) < 0.3 * float(image.std())
    assert (
        abs(float(torch.corrcoef(torch.stack([altered["noise alone"], image]).flatten(1))[0, 1]))
        < 0.1
    )


def test_volumes_are_altered_alike() -> None:
    image = torch.rand(1, 16, 12, 8)
    altered = {name: alter(image) for name, alter in appearance.alterations().items()}
    assert altered["half"].shape == (1, 8, 6, 4) and altered["double"].shape == (1, 32, 24, 16)
    assert all(torch.isfinite(one).all() for one in altered.values())


def test_too_few_training_images_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_phantoms("thorax", tmp_path, 1, seed=5)
    with pytest.raises(SystemExit):
        appearance.main([str(CXR), "--dataset_dir", str(tmp_path), "--phantoms", "thorax"])
    assert "0 images trained the weights: expected 8 or more" in capsys.readouterr().err
