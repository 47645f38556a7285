"""MONAI's writer of NIfTI, for volumes of any number of slices."""

from __future__ import annotations

from typing import Any

from monai.data import NibabelWriter


class NiftiWriter(NibabelWriter):
    """MONAI's writer of NIfTI files that keeps the axes of a volume of one slice, which MONAI's drops."""

    def set_data_array(
        self, data_array: Any, channel_dim: int | None = 0, squeeze_end_dims: bool = True, **kwargs: Any
    ) -> None:
        """Take an array ``(C, *spatial)`` to write; with ``squeeze_end_dims``, one channel gets no axis."""
        super().set_data_array(data_array, channel_dim, squeeze_end_dims=False, **kwargs)
        if squeeze_end_dims and self.data_obj.shape[-1] == 1:
            self.data_obj = self.data_obj[..., 0]
