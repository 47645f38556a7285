"""DICOM series as images, and label maps as DICOM segmentations."""

from ldseg_monai.data.dicom.reader import NiftiOrDicomReader
from ldseg_monai.data.dicom.segmentation import SaveImageDicomSegd

__all__ = ["NiftiOrDicomReader", "SaveImageDicomSegd"]
