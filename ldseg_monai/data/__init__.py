"""Data sets as lists of files, what reads, checks and writes them, and phantoms where there is none."""

from ldseg_monai.data.checks import CheckImaged, CheckLabeld
from ldseg_monai.data.datalist import case_name, paired_datalist, resolve_datalist
from ldseg_monai.data.dicom import NiftiOrDicomReader, SaveImageDicomSegd
from ldseg_monai.data.draws import SeededCacheDataset, SeededSampler
from ldseg_monai.data.readers import LabelPictureReader, NiftiReader, PictureReader
from ldseg_monai.data.split import read_groups, split_datalist
from ldseg_monai.data.transforms import ClassIndicesd, RandStaind, VoxelSpacingd
from ldseg_monai.data.writers import NiftiWriter, PictureWriter

__all__ = [
    "CheckImaged",
    "CheckLabeld",
    "ClassIndicesd",
    "LabelPictureReader",
    "NiftiOrDicomReader",
    "NiftiReader",
    "NiftiWriter",
    "PictureReader",
    "PictureWriter",
    "RandStaind",
    "SaveImageDicomSegd",
    "SeededCacheDataset",
    "SeededSampler",
    "VoxelSpacingd",
    "case_name",
    "paired_datalist",
    "read_groups",
    "resolve_datalist",
    "split_datalist",
]
