"""Data sets as lists of files, what is wrong with a file, what training draws, and phantoms where there is none."""

from .checks import CheckImaged, CheckLabeld, RequireClasses
from .datalist import (
    case_name,
    paired_datalist,
    read_groups,
    read_val_cases,
    resolve_datalist,
    shipped_val_cases,
    split_datalist,
)
from .draws import SeededCacheDataset, SeededSampler
from .readers import LabelPictureReader, NiftiReader, PictureReader
from .writers import NiftiWriter, PictureWriter

__all__ = [
    "CheckImaged",
    "CheckLabeld",
    "LabelPictureReader",
    "NiftiReader",
    "NiftiWriter",
    "PictureReader",
    "PictureWriter",
    "RequireClasses",
    "SeededCacheDataset",
    "SeededSampler",
    "case_name",
    "paired_datalist",
    "read_groups",
    "read_val_cases",
    "resolve_datalist",
    "shipped_val_cases",
    "split_datalist",
]
