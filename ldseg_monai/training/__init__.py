"""What MONAI's engines lack to train a diffusion segmenter."""

from ldseg_monai.training.average import UpdateAverage, average_weights
from ldseg_monai.training.cdal_trainer import CDALTrainer
from ldseg_monai.training.handlers import (
    Conclude,
    GradientClipping,
    Progress,
    RequireClasses,
    Reseed,
    TensorBoard,
    Validate,
)
from ldseg_monai.training.inferers import (
    CDALTrainingInferer,
    DistillingInferer,
    ReconstructingInferer,
    TrainingInferer,
)
from ldseg_monai.training.losses import (
    CDALLoss,
    LDSegLoss,
    LovaszLoss,
    LSegDiffLoss,
    SDSegLoss,
)
from ldseg_monai.training.resume import ResumableCheckpoint, SaveBest

__all__ = [
    "CDALLoss",
    "CDALTrainer",
    "CDALTrainingInferer",
    "Conclude",
    "DistillingInferer",
    "GradientClipping",
    "LDSegLoss",
    "LSegDiffLoss",
    "LovaszLoss",
    "Progress",
    "ReconstructingInferer",
    "RequireClasses",
    "Reseed",
    "ResumableCheckpoint",
    "SDSegLoss",
    "SaveBest",
    "TensorBoard",
    "TrainingInferer",
    "UpdateAverage",
    "Validate",
    "average_weights",
]
