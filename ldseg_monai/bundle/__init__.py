"""A bundle as a folder, and what its commands check first."""

from ldseg_monai.bundle.bundle import Bundle, class_names
from ldseg_monai.bundle.command import check_command
from ldseg_monai.bundle.components import config_text
from ldseg_monai.bundle.settings import next_command, run_settings

__all__ = ["Bundle", "check_command", "class_names", "config_text", "next_command", "run_settings"]
