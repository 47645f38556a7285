"""A bundle as a folder, and what its commands check first."""

from ldseg_monai.bundle.bundle import Bundle
from ldseg_monai.bundle.command import check_command
from ldseg_monai.bundle.components import config_text

__all__ = ["Bundle", "check_command", "config_text"]
