"""What every other room stands on: processes, precision, errors, whole files."""

from ldseg_monai.runtime.errors import (
    ArgumentError,
    ExistingFileError,
    FileError,
    InputError,
    ListedErrors,
    MissingFileError,
    MissingPackageError,
    NotAFolderError,
    ReadOnlyError,
    RunError,
    UserError,
    show_errors_in_one_line,
)
from ldseg_monai.runtime.files import note_saved, save_whole, saved_files, unwritable
from ldseg_monai.runtime.precision import autocast
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
    "ExistingFileError",
    "FileError",
    "InputError",
    "ListedErrors",
    "MissingFileError",
    "MissingPackageError",
    "NotAFolderError",
    "ReadOnlyError",
    "RunError",
    "UserError",
    "advise_at_end",
    "autocast",
    "end_in_one_line",
    "join_processes",
    "local_device",
    "note_saved",
    "plain",
    "rank_and_world_size",
    "save_whole",
    "saved_files",
    "show_errors_in_one_line",
    "unwrapped",
    "unwritable",
]
