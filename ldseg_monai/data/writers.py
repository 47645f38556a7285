"""MONAI's writers of NIfTI and of pictures, whose errors name the file."""

from __future__ import annotations

from typing import Any

from monai.data import ImageWriter, NibabelWriter, PILWriter

from ldseg_monai.runtime.files import unwritable


class _NamingWriter(ImageWriter):
    """A writer whose errors name the file."""

    def write(self, filename: Any, verbose: bool = False, **kwargs: Any) -> None:
        """Write.

        Raises:
            OSError: if the file cannot be written, for example because the disk is full.
        """
        try:
            super().write(filename, verbose, **kwargs)
        except OSError as error:
            raise unwritable(filename, error) from error


class NiftiWriter(_NamingWriter, NibabelWriter):
    """MONAI's writer of NIfTI files that keeps the axes of a volume of one slice, which MONAI's drops."""

    def set_data_array(
        self,
        data_array: Any,
        channel_dim: int | None = 0,
        squeeze_end_dims: bool = True,
        **kwargs: Any,
    ) -> None:
        """Take an array ``(C, *spatial)`` to write; with ``squeeze_end_dims``, one channel gets no axis."""
        super().set_data_array(data_array, channel_dim, squeeze_end_dims=False, **kwargs)
        if squeeze_end_dims and self.data_obj.shape[-1] == 1:
            self.data_obj = self.data_obj[..., 0]


class PictureWriter(_NamingWriter, PILWriter):
    """MONAI's writer of pictures."""
