"""Data sets as lists of files, and phantoms where there is none."""

from .datalist import case_name, paired_datalist, read_groups, resolve_datalist, split_datalist

__all__ = ["case_name", "paired_datalist", "read_groups", "resolve_datalist", "split_datalist"]
