"""Data sets as lists of files: what reads, checks and writes them; phantoms where there is none."""

from ldseg_monai.data.checks import CheckImaged, CheckLabeld
from ldseg_monai.data.datalist import case_name, paired_datalist, resolve_datalist
from ldseg_monai.data.dicom import NiftiOrDicomReader, SaveImageDicomSegd
from ldseg_monai.data.draws import SeededCacheDataset, SeededSampler
from ldseg_monai.data.exports import SaveImageAsd, check_kinds
from ldseg_monai.data.known import CheckKnownImaged, KnownSpacingd
from ldseg_monai.data.loaders import LoadImagePictured, LoadImageVolumed
from ldseg_monai.data.readers import LabelPictureReader, NiftiReader, PictureReader
from ldseg_monai.data.sequences import LoadImageSequenced, resolve_sequences
from ldseg_monai.data.split import Split, read_groups
from ldseg_monai.data.transforms import ClassIndicesd, RandStaind, VoxelSpacingd
from ldseg_monai.data.writers import NiftiWriter, PictureWriter, SaveImagePictured, SaveImageVolumed
from ldseg_monai.data.wrong_headers import CorrectHeaderd

__all__ = [
    "CheckImaged",
    "CheckKnownImaged",
    "CheckLabeld",
    "ClassIndicesd",
    "CorrectHeaderd",
    "KnownSpacingd",
    "LabelPictureReader",
    "LoadImagePictured",
    "LoadImageSequenced",
    "LoadImageVolumed",
    "NiftiOrDicomReader",
    "NiftiReader",
    "NiftiWriter",
    "PictureReader",
    "PictureWriter",
    "RandStaind",
    "SaveImageAsd",
    "SaveImageDicomSegd",
    "SaveImagePictured",
    "SaveImageVolumed",
    "SeededCacheDataset",
    "SeededSampler",
    "Split",
    "VoxelSpacingd",
    "case_name",
    "check_kinds",
    "paired_datalist",
    "read_groups",
    "resolve_datalist",
    "resolve_sequences",
]
