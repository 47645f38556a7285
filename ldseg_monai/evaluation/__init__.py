"""How good segmentations are: scores, pictures, and a page that shows both."""

from ldseg_monai.evaluation.areas import SaveAreasd
from ldseg_monai.evaluation.ejection import ejection_fraction
from ldseg_monai.evaluation.overlays import SaveOverlay
from ldseg_monai.evaluation.report import Report
from ldseg_monai.evaluation.scores import CaseScores, MeanCaseDice
from ldseg_monai.evaluation.statistics import SaveStatisticsd, StatisticsTable, label_statistics
from ldseg_monai.evaluation.strip_statistics import SaveStripStatisticsd

__all__ = [
    "CaseScores",
    "MeanCaseDice",
    "Report",
    "SaveAreasd",
    "SaveOverlay",
    "SaveStatisticsd",
    "SaveStripStatisticsd",
    "StatisticsTable",
    "ejection_fraction",
    "label_statistics",
]
