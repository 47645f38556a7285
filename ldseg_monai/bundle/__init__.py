"""A bundle as a folder, and what its commands check first."""

from ldseg_monai.bundle.bundle import find_bundle
from ldseg_monai.bundle.command import check_command

__all__ = ["check_command", "find_bundle"]
