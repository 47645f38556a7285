"""A stand-in for a module that MONAI Label imports at once and uses for DICOM servers alone.

pydicom-seg 0.4.1, its last version, imports a module that pydicom 3 no longer has.
"""
