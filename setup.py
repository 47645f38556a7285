"""What setup.cfg cannot say: a wheel has the repository's bundles, as `ldseg_monai/bundles`."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent.resolve()
PACKAGE = "ldseg_monai"
WRITTEN = {"output", "eval", "__pycache__"}  # folders that commands write in a bundle


class BuildWithBundles(build_py):
    """Copies the bundles beside the modules, but for an editable install, which has them already.

    A source distribution gets them by `get_source_files`.
    """

    def run(self) -> None:
        """Build anew: what an earlier build left would get into the wheel."""
        if self.editable_mode:
            super().run()
            return
        built = Path(self.build_lib, PACKAGE)
        shutil.rmtree(built, ignore_errors=True)
        super().run()
        for file in self.bundle_files():
            (built / file).parent.mkdir(parents=True, exist_ok=True)
            self.copy_file(str(ROOT / file), str(built / file))

    def get_source_files(self) -> list[str]:
        """What a source distribution needs for this."""
        return [*super().get_source_files(), *map(str, self.bundle_files())]

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        """What this writes."""
        written = super().get_outputs(include_bytecode)
        if not self.editable_mode:
            written += [str(Path(self.build_lib, PACKAGE, file)) for file in self.bundle_files()]
        return written

    def bundle_files(self) -> list[Path]:
        """The bundles' files, from the root on: those that git tracks.

        Where there is no git, as in a source distribution, they are all but what commands write.
        """
        if (ROOT / ".git").exists():
            try:
                command = ["git", "-C", str(ROOT), "ls-files", "-z", "bundles"]
                listed = subprocess.run(command, capture_output=True, check=True, text=True).stdout
                tracked = [Path(name) for name in listed.split("\0") if name]
                return sorted(file for file in tracked if (ROOT / file).is_file())
            except (OSError, subprocess.CalledProcessError) as error:
                self.warn(f"git does not list the bundles' files ({error}): all are taken")
        files = [path.relative_to(ROOT) for path in (ROOT / "bundles").rglob("*")]
        return sorted(file for file in files if (ROOT / file).is_file() and not _is_left(file))


def _is_left(file: Path) -> bool:
    """Whether a file is none of a bundle's own."""
    return any(part in WRITTEN or part.startswith(".") for part in file.parts)


setup(cmdclass={"build_py": BuildWithBundles})
