"""Data sets as lists of files, and phantoms where there is none."""

from .checks import CheckImaged, CheckLabeld, RequireClasses
from .datalist import case_name, paired_datalist, read_groups, resolve_datalist, split_datalist
from .readers import NiftiReader, PictureReader

__all__ = [
    "CheckImaged",
    "CheckLabeld",
    "NiftiReader",
    "PictureReader",
    "RequireClasses",
    "case_name",
    "paired_datalist",
    "read_groups",
    "resolve_datalist",
    "split_datalist",
]
