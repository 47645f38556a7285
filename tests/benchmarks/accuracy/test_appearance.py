"""The program that says which images look unlike those that weights know."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

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
    monkeypatch.setattr(appearance, "PHANTOMS", 10)
    bundle, data = tmp_path / "bundle", tmp_path / "data"
    shutil.copytree(CXR / "configs", bundle / "configs")
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text())
    del metadata["known_images"]["appearance"], metadata["known_images"]["appearance_limit"]
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
    table = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    own, phantoms, glands = ([cell.strip() for cell in row.split("|")[1:-1]] for row in table[2:])
    assert own[:3] == ["same data set", "4", "0"] and phantoms[:2] == ["phantoms", "10"]
    assert glands[:2] == ["glands", "3"] and glands[-3] == "3" and glands[-1] == "1.000"
    known = read_known(str(Bundle(bundle).configs / "metadata.json"))
    assert list(known.appearance) == ["training images", "phantoms"]
    assert 1 < known.appearance_limit < 5
    again = json.loads((bundle / "configs" / "metadata.json").read_text())
    assert again["known_images"].pop("appearance") and again["known_images"].pop("appearance_limit")
    assert again == metadata
    assert (bundle / "configs" / "metadata.json").read_text().startswith('{\n    "schema"')


def test_too_few_training_images_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_phantoms("thorax", tmp_path, 1, seed=5)
    with pytest.raises(SystemExit):
        appearance.main([str(CXR), "--dataset_dir", str(tmp_path), "--phantoms", "thorax"])
    assert "0 images trained the weights: expected 8 or more" in capsys.readouterr().err
