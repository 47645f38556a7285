"""Diffusion of the label's own pixels: parts that make SegDiff, SDF-DDPM and MedSegDiff of LDSeg.

LDSeg's reverse process, schedule and draws are theirs too. What they change is what is diffused
(`OneHotLabel`, `SignedDistance`), and how the image is seen (`RRDBEncoder`, `MedSegDiffDenoiser`).
"""

from ldseg_monai.networks.pixel.labels import (
    DistanceLogits,
    OneHotLabel,
    OneHotLogits,
    SignedDistance,
)
from ldseg_monai.networks.pixel.medsegdiff import MedSegDiffDenoiser
from ldseg_monai.networks.pixel.rrdb import RRDBEncoder

__all__ = [
    "DistanceLogits",
    "MedSegDiffDenoiser",
    "OneHotLabel",
    "OneHotLogits",
    "RRDBEncoder",
    "SignedDistance",
]
