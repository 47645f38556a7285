"""Generated knees, hippocampi, glands, nuclei, chests and hearts with their labels."""

from ldseg_monai.data.phantoms.files import phantom_files, phantoms_complete, write_phantoms

__all__ = ["phantom_files", "phantoms_complete", "write_phantoms"]
