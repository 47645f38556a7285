"""Data sets as lists of files, what training draws from them, and phantoms where there is none."""

from .datalist import case_name, paired_datalist, read_groups, resolve_datalist, split_datalist
from .draws import SeededCacheDataset, SeededSampler

__all__ = [
    "SeededCacheDataset",
    "SeededSampler",
    "case_name",
    "paired_datalist",
    "read_groups",
    "resolve_datalist",
    "split_datalist",
]
