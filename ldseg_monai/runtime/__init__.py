"""What every other room stands on: processes, precision, errors, whole files.

Importing this room does not import PyTorch, so that `ldseg --help` takes no time. What needs it is
in `files` and `precision`.
"""

from ldseg_monai.runtime.errors import (
    ArgumentError,
    BusyFolderError,
    ExistingFileError,
    FileError,
    InputError,
    ListedErrors,
    LostFolderError,
    MissingFileError,
    MissingPackageError,
    NotAFolderError,
    ReadOnlyError,
    RunError,
    UserError,
    show_errors_in_one_line,
)
from ldseg_monai.runtime.ownership import claim, place_of, require_own, take_folder
from ldseg_monai.runtime.processes import (
    join_processes,
    local_device,
    plain,
    rank_and_world_size,
    unwrapped,
)
from ldseg_monai.runtime.signals import advise_at_end, end_in_one_line

__all__ = [
    "ArgumentError",
    "BusyFolderError",
    "ExistingFileError",
    "FileError",
    "InputError",
    "ListedErrors",
    "LostFolderError",
    "MissingFileError",
    "MissingPackageError",
    "NotAFolderError",
    "ReadOnlyError",
    "RunError",
    "UserError",
    "advise_at_end",
    "claim",
    "end_in_one_line",
    "join_processes",
    "local_device",
    "plain",
    "rank_and_world_size",
    "require_own",
    "show_errors_in_one_line",
    "place_of",
    "take_folder",
    "unwrapped",
]
