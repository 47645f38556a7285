"""From a network to segmentations of an image of any size, and of many images."""

from ldseg_monai.inference.autocast import AutocastInferer
from ldseg_monai.inference.case_evaluator import CaseDataset, CaseEvaluator, CaseLoader
from ldseg_monai.inference.finished_cases import FinishedCases
from ldseg_monai.inference.postprocessing import (
    DropSmallObjectsd,
    InvertLabeld,
    InvertMapsd,
    SplitPredictiond,
    SummarizeUncertaintyd,
)
from ldseg_monai.inference.samplers import SamplingInferer
from ldseg_monai.inference.sliding_window import SliceSamplingInferer, SlidingWindowSamplingInferer
from ldseg_monai.inference.strip_exports import SaveStripsAsd
from ldseg_monai.inference.strip_reader import StripReader
from ldseg_monai.inference.strips import MeasurePictured, StripInferer

__all__ = [
    "AutocastInferer",
    "CaseDataset",
    "CaseEvaluator",
    "CaseLoader",
    "DropSmallObjectsd",
    "FinishedCases",
    "InvertLabeld",
    "InvertMapsd",
    "MeasurePictured",
    "SamplingInferer",
    "SaveStripsAsd",
    "SliceSamplingInferer",
    "SlidingWindowSamplingInferer",
    "SplitPredictiond",
    "StripInferer",
    "StripReader",
    "SummarizeUncertaintyd",
]
