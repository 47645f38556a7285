"""Whose a file is: what commands wrote, of what, and which of them has a folder now.

One rule for every command: a file is written over only if this program wrote it, of the same image
or data set, and nobody changed it since. What was written is noted in ``written.jsonl`` beside it,
with its digest.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import hashlib
import json
import logging
import os
import shutil
import socket
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from ldseg_monai.runtime.errors import (
    BusyFolderError,
    ExistingFileError,
    FileError,
    LostFolderError,
    NotAFolderError,
    ReadOnlyError,
)

try:
    import fcntl
except ImportError:  # not on Windows, where nothing is locked
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger("ldseg_monai.runtime")

NOTES = "written.jsonl"
LOCK = ".lock"
PARTIAL = ".partial."  # what the name of a file that is not whole yet begins with
TAKEN = (errno.EACCES, errno.EAGAIN)  # what a lock that another process has fails with
SHOWN = 5  # files that a message names
PathLike = str | os.PathLike[str]
Ignore = Callable[[Any, list[str]], Iterable[str]]


class Note(NamedTuple):
    """What is known of a file that was written: its size, time, SHA-256, and what it is made of."""

    size: int
    time: int
    digest: str
    of: str


# Whose a file is
FREE = "there is none"
OWN = "as it was written"
CHANGED = "changed after it was written"
OTHERS = "made of something else"
UNKNOWN = "not written by this program"


class _Notes:
    """The notes in a folder, of which only new lines are read again."""

    def __init__(self, folder: str) -> None:
        self.path = os.path.join(folder, NOTES)
        self.position = 0
        self.files: dict[str, list[Note]] = {}

    def read(self) -> dict[str, list[Note]]:
        """The last two notes of each file, by its name; a line that is not whole is none.

        A file is noted before it gets its name: a command that is killed in between leaves the one
        before.
        """
        try:
            size = os.path.getsize(self.path)
        except OSError:
            size = 0
        if size < self.position:
            self.position = 0
            self.files = {}
        if size == self.position:
            return self.files
        with open(self.path, "rb") as file:
            file.seek(self.position)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self.position += len(line)
                with contextlib.suppress(ValueError, TypeError, KeyError):
                    content = json.loads(line)
                    name = content.pop("file")
                    self.files[name] = [*self.files.get(name, []), Note(**content)][-2:]
        return self.files


_notes: dict[str, _Notes] = {}


def place_of(path: Any) -> str:
    """What notes call an image: its path without links, wherever it is written from."""
    return os.path.realpath(os.fspath(path))


def note_written(
    path: PathLike, of: str, content: PathLike | None = None, root: PathLike | None = None
) -> None:
    """Note a file as written by this program.

    Args:
        path: of the file.
        of: what it is made of.
        content: file with what ``path`` is about to hold; None for itself.
        root: folder of the notes; None for the file's own.
    """
    written = os.fspath(path if content is None else content)
    info = os.stat(written)
    digest = _digest(written)
    note = Note(info.st_size, info.st_mtime_ns, digest, of)
    folder, name = _place(path, root)
    append_line(os.path.join(folder, NOTES), {"file": name, **note._asdict()})


def whose(path: PathLike, of: str, root: PathLike | None = None, read: bool = False) -> str:
    """Tell whose a file is: ``FREE``, ``OWN``, ``CHANGED``, ``OTHERS`` or ``UNKNOWN``.

    Args:
        path: of the file.
        of: what a command would make it of.
        root: folder of its notes; None for its own.
        read: whether it is read even if its size and time are as noted.
    """
    path = os.fspath(path)
    if not os.path.lexists(path):
        return FREE
    notes = noted(path, root)
    if not notes or not os.path.isfile(path):
        return UNKNOWN
    for note in reversed(notes):
        if _is_as_noted(path, note, read):
            return OWN if note.of == of else OTHERS
    return CHANGED


def _is_as_noted(path: str, note: Note, read: bool) -> bool:
    info = os.stat(path)
    if not read and (info.st_size, info.st_mtime_ns) == (note.size, note.time):
        return True
    return info.st_size == note.size and _digest(path) == note.digest


def noted(path: PathLike, root: PathLike | None = None) -> list[Note]:
    """The last notes of a file, if there are any."""
    folder, name = _place(path, root)
    return _notes.setdefault(folder, _Notes(folder)).read().get(name, [])


def _place(path: PathLike, root: PathLike | None) -> tuple[str, str]:
    """The folder of the note of a file, and what the note calls it."""
    folder = os.path.abspath(os.path.dirname(path) if root is None else root)
    return folder, os.path.relpath(os.path.abspath(path), folder)


def require_own(paths: Iterable[PathLike], of: str, root: PathLike | None = None) -> None:
    """Check that files are free, or this program's, of the same and unchanged.

    Raises:
        ExistingFileError: for those that are not.
    """
    foreign = {}
    for path in paths:
        state = whose(path, of, root, read=True)  # about to be written over
        if state not in (FREE, OWN):
            foreign[os.fspath(path)] = state
    refuse(foreign, of, root)


def require_new(path: PathLike) -> None:
    """Check that there is nothing yet where a tool is about to write, and that it can write there.

    Raises:
        ExistingFileError: if there is.
        NotAFolderError: if a folder that it is to be in is a file.
        ReadOnlyError: if that folder, or where it would be made, is read-only.
    """
    path = os.fspath(path)
    if os.path.lexists(path):
        raise ExistingFileError(
            f"{path} is there already: expected a new name; choose another, or move it away"
        )
    place = Path(path).absolute().parent
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir():
        raise NotAFolderError(f"{path}: {place} is a file; expected a folder; choose another place")
    if not os.access(place, os.W_OK | os.X_OK):
        raise ReadOnlyError(
            f"{path}: {place} is read-only; expected a folder that can be written to; choose "
            "another place"
        )


def make_folder(path: PathLike) -> None:
    """Make a folder, and those that it is in, unless they are there.

    Raises:
        FileError: if one cannot be made, such as where a file is.
    """
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as error:
        raise FileError(
            error.errno,
            f"the folder {os.fspath(path)} cannot be made ({error.strerror}): expected a place "
            "that can be written to, and no file there; choose another",
        ) from error


def copy_folder(source: PathLike, target: PathLike, ignore: Ignore | None = None) -> None:
    """Copy a folder, such as an installed bundle's, that may be read-only; the copy is not.

    Args:
        source: the folder.
        target: where its copy goes, which is not there yet.
        ignore: as of `shutil.copytree`.

    Raises:
        OSError: for the first file that cannot be copied, for example because the disk is full.
    """
    try:
        shutil.copytree(source, target, ignore=ignore, copy_function=shutil.copyfile)
    except shutil.Error as error:  # of all of them, with whole paths
        _, copy, reason = error.args[0][0]
        raise FileError(
            f"{copy} cannot be written ({reason}): make room, or choose another folder"
        ) from error
    for folder, _, _ in os.walk(target):
        os.chmod(folder, os.stat(folder).st_mode | stat.S_IRWXU)


def refuse(foreign: dict[str, str], of: str, root: PathLike | None = None) -> None:
    """Refuse to write over files.

    Args:
        foreign: whose each is, as of `whose`, by its path.
        of: what this command would make them of.
        root: folder of their notes; None for their own.

    Raises:
        ExistingFileError: if there are any.
    """
    if not foreign:
        return
    told = []
    for path, state in list(foreign.items())[:SHOWN]:
        if state == OTHERS:
            state = f"made of {noted(path, root)[-1].of}, not of {of}"
        told.append(f"{path} ({state})")
    more = f" and {len(foreign) - SHOWN} more" if len(foreign) > SHOWN else ""
    raise ExistingFileError(
        f"this would write over {', '.join(told)}{more}: expected a folder without them; choose "
        "another output_dir, or move these files away"
    )


def append_line(path: PathLike, content: dict[str, Any]) -> None:
    """Add a line of JSON to a file that several processes may add to."""
    with open(path, "ab+") as file:
        _lock(file, wait=True)
        if file.tell() and _last_byte(file) != b"\n":  # a killed run left a line incomplete
            file.write(b"\n")
        file.write(json.dumps(content).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


class Claim:
    """A folder that a command writes to, which no other one does meanwhile.

    Several processes of one command share it.

    Args:
        folder: the folder.
        of: what the command works on.
        command: text that is the same for all processes of the command.
        rank: number of this process among them.
    """

    def __init__(self, folder: str, of: str, command: str, rank: int) -> None:
        self.folder = folder
        self.of = of
        self.command = hashlib.sha256(command.encode()).hexdigest()
        self.rank = rank
        self.path = os.path.join(folder, LOCK)
        self.file: BinaryIO | None = None
        self.process = os.getpid()
        self.made_folder = False

    def check(self) -> None:
        """Check, without writing, that no other command has the folder.

        Raises:
            BusyFolderError: if one has.
        """
        if self.file is None and os.path.isfile(self.path) and os.access(self.path, os.W_OK):
            with open(self.path, "rb+") as file, self._looking(file):
                self._lock(file)

    def take(self) -> None:
        """Take the folder, or make sure that it is still the one that was taken.

        Raises:
            BusyFolderError: if another command has it.
            LostFolderError: if it was removed.
            FileError: if it cannot be made.
        """
        if os.getpid() != self.process:  # a process that loads data for this one
            return
        if self.file is not None:
            if not _is_at(self.file, self.path):
                raise LostFolderError(
                    errno.ENOENT,
                    f"output_dir {self.folder} was removed while this command wrote to it: what it "
                    "had written there is gone; run the same command again",
                )
            return
        self.made_folder = not os.path.isdir(self.folder)
        make_folder(self.folder)
        while True:
            file = open(self.path, "ab+")  # noqa: SIM115, it stays open
            with self._looking(file):
                if self._lock(file):
                    self._sign(file)
                    for path in Path(self.folder).glob(f"{PARTIAL}*"):  # of runs that were killed
                        path.unlink(missing_ok=True)
            if _is_at(file, self.path):  # else its last owner removed it meanwhile
                break
            file.close()
        self.file = file

    def release(self) -> None:
        """Give the folder back, and remove it if it is new and empty."""
        if self.file is None or os.getpid() != self.process:
            return
        file, self.file = self.file, None
        with file, contextlib.suppress(OSError), self._looking(file):
            if self._lock(file) and _is_at(file, self.path):
                os.unlink(self.path)
                if self.made_folder:
                    os.rmdir(self.folder)

    @contextlib.contextmanager
    def _looking(self, file: BinaryIO) -> Iterator[None]:
        """Keep others from looking at who has the folder, by byte 0 of the lock file."""
        _lock(file, 0, 1, wait=True)
        try:
            yield
        finally:
            _unlock(file, 0, 1)

    def _sign(self, file: BinaryIO) -> None:
        """Say in the lock file who has the folder."""
        owner = {
            "process": self.process,
            "host": socket.gethostname(),
            "since": time.strftime("%Y-%m-%d %H:%M:%S"),
            "command": self.command,
        }
        file.truncate(0)
        file.write(json.dumps(owner).encode())
        file.flush()

    def _lock(self, file: BinaryIO) -> bool:
        """Lock the byte of this process; tell whether no other process has one.

        The system frees what a killed process had.
        """
        alone = _lock(file, 1, 0)
        if alone:
            _unlock(file, 1, 0)
        elif self._owner(file).get("command") != self.command:
            raise self._busy(file)
        if not _lock(file, 1 + self.rank, 1):
            raise self._busy(file)
        return alone

    def _owner(self, file: BinaryIO) -> dict[str, Any]:
        file.seek(0)
        try:
            owner = json.loads(file.read())
        except ValueError:
            return {}
        return owner if isinstance(owner, dict) else {}

    def _busy(self, file: BinaryIO) -> BusyFolderError:
        owner = self._owner(file)
        who = f"process {owner.get('process')} on {owner.get('host')} since {owner.get('since')}"
        return BusyFolderError(
            f"output_dir {self.folder} is in use ({who}): expected a folder that no other command "
            "writes to; wait for that one, or choose another output_dir"
        )


_claims: dict[str, Claim] = {}


def claim(folder: PathLike, of: str, command: str, rank: int = 0) -> Claim:
    """Say that this process' command is about to write to a folder; nothing is written yet.

    Args:
        folder: the folder.
        of: what the command works on, such as the folder of its images.
        command: text that is the same for all processes of the command.
        rank: number of this process among them.

    Raises:
        BusyFolderError: if another command has it.
    """
    place = os.path.realpath(folder)
    if place in _claims:
        _claims.pop(place).release()
    new = Claim(place, of, command, rank)
    new.check()
    _claims[place] = new
    return new


def claim_of(folder: PathLike) -> Claim | None:
    """The claim of this process' command to a folder, if it has one."""
    return _claims.get(os.path.realpath(folder or "."))


def take_folder(folder: PathLike) -> None:
    """Take a folder that this process' command has claimed, before it works.

    Raises:
        BusyFolderError, LostFolderError: as of `Claim.take`.
    """
    there = claim_of(folder)
    if there is not None:
        there.take()


@atexit.register
def release_folders() -> None:
    """Give back what this process has."""
    for one in _claims.values():
        one.release()
    _claims.clear()


def outputs(
    folder: PathLike, names: Sequence[str], endings: Sequence[str]
) -> Iterator[tuple[str, str]]:
    """Files in a folder that are named after cases.

    Args:
        folder: the folder.
        names: of the cases.
        endings: what follows the name of a case, before the file's own ending.

    Yields:
        Name of the case and path of the file.
    """
    wanted = {f"{name}_{ending}": name for name in names for ending in endings}
    if not os.path.isdir(folder):
        return
    for entry in sorted(os.listdir(folder)):
        parts = entry.split(".")
        for end in range(1, len(parts) + 1):
            name = wanted.get(".".join(parts[:end]))
            if name is not None:
                yield name, os.path.join(folder, entry)


def _digest(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while part := file.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()


def _last_byte(file: BinaryIO) -> bytes:
    file.seek(-1, os.SEEK_END)
    return file.read(1)


def _is_at(file: BinaryIO, path: str) -> bool:
    """Whether an open file is the one at a path."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except OSError:
        return False


def _lock(file: BinaryIO, start: int = 0, length: int = 0, wait: bool = False) -> bool:
    """Lock bytes of a file for this process; a length of 0 means all that follow.

    Returns:
        Whether they are locked; True too where the file system knows no locks.
    """
    if fcntl is None:
        return True
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB), length, start)
    except OSError as error:
        return error.errno not in TAKEN
    return True


def _unlock(file: BinaryIO, start: int, length: int) -> None:
    if fcntl is not None:
        with contextlib.suppress(OSError):
            fcntl.lockf(file, fcntl.LOCK_UN, length, start)
