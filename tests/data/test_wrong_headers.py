from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Orientationd

from ldseg_monai.data.wrong_headers import CorrectHeaderd, WrongHeader, read_wrong_headers
from ldseg_monai.runtime.errors import InputError

ENTRY = {
    "size": [6, 4, 5],
    "axcodes": "LPS",
    "voxel_mm": [1, 1, 1],
    "true_axcodes": "PIR",
    "true_voxel_mm": [0.4, 0.3, 0.7],
}
PUBLISHED = np.diag([-1.0, -1.0, 1.0, 1.0])


@pytest.fixture
def metadata(tmp_path: Path) -> str:
    path = tmp_path / "metadata.json"
    path.write_text(json.dumps({"wrong_headers": [ENTRY]}))
    return str(path)


def volume(affine: np.ndarray, size: tuple[int, ...] = (6, 4, 5)) -> MetaTensor:
    values = torch.arange(np.prod(size), dtype=torch.float32).reshape(1, *size)
    return MetaTensor(values, affine=torch.as_tensor(affine))


@pytest.mark.parametrize("axcodes", ["LPS", "PIR", "RAS", "SLA", "ILP"])
def test_axes_are_those_that_nibabel_calls_by_these_codes(axcodes: str) -> None:
    header = WrongHeader((1, 1, 1), "RAS", (1, 1, 1), axcodes, (0.4, 0.3, 0.7))
    affine = header.corrected(np.eye(4))
    assert "".join(nib.aff2axcodes(affine)) == axcodes
    assert np.allclose(np.linalg.norm(affine[:3, :3], axis=0), [0.4, 0.3, 0.7])


def test_a_published_array_is_turned_as_what_it_is(metadata: str) -> None:
    steps = [CorrectHeaderd("image", metadata), Orientationd("image", "RIP", labels=None)]
    transform = Compose(steps)
    published = PUBLISHED.copy()
    published[:3, 3] = [12, -3, 40]  # wherever it is
    image = volume(published)
    turned = transform({"image": image})["image"]
    assert torch.equal(turned.as_tensor(), image.as_tensor().permute(0, 3, 2, 1))
    assert turned.pixdim.tolist() == pytest.approx([0.7, 0.3, 0.4])
    back = transform.inverse({"image": turned})["image"]
    assert torch.equal(back.as_tensor(), image.as_tensor())
    assert np.allclose(back.affine, published)


@pytest.mark.parametrize(
    ("affine", "size"),
    [
        (PUBLISHED, (6, 4, 6)),
        (np.diag([-0.4, -1.0, 1.0, 1.0]), (6, 4, 5)),
        (np.diag([1.0, -1.0, 1.0, 1.0]), (6, 4, 5)),
    ],
    ids=["another size", "another voxel", "another side"],
)
def test_any_other_header_is_true(metadata: str, affine: np.ndarray, size: tuple) -> None:
    image = CorrectHeaderd("image", metadata)({"image": volume(affine, size)})["image"]
    assert np.allclose(image.affine, affine)


def test_what_is_done_is_said_once(metadata: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "ldseg_monai")
    correct = CorrectHeaderd("image", metadata)
    for _ in range(2):
        correct({"image": volume(PUBLISHED)})
    (message,) = caplog.messages
    assert "its axes are taken as PIR, its voxels as 0.4 x 0.3 x 0.7 mm" in message


def test_an_entry_has_every_field_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "metadata.json"
    path.write_text(json.dumps({"wrong_headers": [{"size": [1, 1, 1], "axes": "LPS"}]}))
    with pytest.raises(InputError, match="expected size, axcodes, voxel_mm, true_axcodes"):
        read_wrong_headers(str(path))
    assert read_wrong_headers(str(tmp_path / "none.json")) == []
