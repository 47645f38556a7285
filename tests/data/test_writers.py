from __future__ import annotations

import errno
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import SaveImage

from ldseg_monai.data.writers import NiftiWriter, PictureWriter
from ldseg_monai.runtime.ownership import PARTIAL

FULL = Path("/dev/full")  # where every write finds the disk full


@pytest.mark.parametrize(("channels", "shape"), [(1, (3, 4, 1)), (2, (3, 4, 1, 2))])
def test_volume_of_one_slice_keeps_its_axes(
    tmp_path: Path, channels: int, shape: tuple[int, ...]
) -> None:
    volume = MetaTensor(torch.rand(channels, 3, 4, 1), meta={"filename_or_obj": "x.nii.gz"})
    SaveImage(tmp_path, "label", separate_folder=False, writer=NiftiWriter, print_log=False)(volume)
    assert nib.load(tmp_path / "x_label.nii.gz").shape == shape


@pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full, as Linux has it")
@pytest.mark.parametrize(
    ("writer", "size"), [(NiftiWriter, (80, 80, 80)), (PictureWriter, (800, 800))]
)
def test_full_disk_is_an_error_that_names_the_file(
    tmp_path: Path, writer: type, size: tuple[int, ...]
) -> None:
    path = tmp_path / ("x.nii" if len(size) == 3 else "x.png")
    (tmp_path / f"{PARTIAL}{os.getpid()}.{path.name}").symlink_to(FULL)
    backend = writer(output_dtype=np.uint8)
    backend.set_data_array(torch.randint(255, (1, *size)), channel_dim=0)
    backend.set_metadata({"affine": np.eye(4)})
    with pytest.raises(OSError, match=str(path)) as error:
        backend.write(path)
    assert error.value.errno == errno.ENOSPC
