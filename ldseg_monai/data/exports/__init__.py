"""Label maps in the kinds of files that other programs open, a module a kind."""

from ldseg_monai.data.exports.kinds import KINDS, check_kinds
from ldseg_monai.data.exports.saver import SaveImageAsd

__all__ = ["KINDS", "SaveImageAsd", "check_kinds"]
