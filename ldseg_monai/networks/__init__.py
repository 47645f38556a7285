"""The diffusion segmenters, their parts, and peers that segment in one pass."""

from ldseg_monai.networks.blocks import (
    BatchStandardization,
    CaseStandardization,
    Downsampling,
    ResidualEncoder,
    SampleStandardization,
)
from ldseg_monai.networks.cdal import (
    CDAL,
    CDALDiscriminator,
    CDALGenerator,
    EfficientNetFeatures,
    SeparateDiscriminators,
)
from ldseg_monai.networks.ensemble import EnsembleSegmenter
from ldseg_monai.networks.ldseg import (
    EfficientNetEncoder,
    LabelDecoder,
    LatentDenoiser,
    LDSeg,
    LSegDiff,
    VariationalEncoder,
    require_first_stage,
)
from ldseg_monai.networks.peers import (
    EfficientNetUNet,
    FittedNetwork,
    MedT,
    MSUNet,
    SwinUNet,
)
from ldseg_monai.networks.pixel import (
    DistanceLogits,
    MedSegDiffDenoiser,
    OneHotLabel,
    OneHotLogits,
    RRDBEncoder,
    SignedDistance,
)
from ldseg_monai.networks.segmenter import DiffusionSegmenter, State
from ldseg_monai.networks.weights import (
    WeightsCheckpointLoader,
    load_imagenet_weights,
    load_weights,
    with_ensemble,
)

__all__ = [
    "BatchStandardization",
    "CDAL",
    "CDALDiscriminator",
    "CDALGenerator",
    "CaseStandardization",
    "DiffusionSegmenter",
    "DistanceLogits",
    "Downsampling",
    "EfficientNetEncoder",
    "EfficientNetFeatures",
    "EfficientNetUNet",
    "EnsembleSegmenter",
    "FittedNetwork",
    "LDSeg",
    "LSegDiff",
    "LabelDecoder",
    "LatentDenoiser",
    "MSUNet",
    "MedSegDiffDenoiser",
    "MedT",
    "OneHotLabel",
    "OneHotLogits",
    "RRDBEncoder",
    "ResidualEncoder",
    "SampleStandardization",
    "SeparateDiscriminators",
    "SignedDistance",
    "State",
    "SwinUNet",
    "VariationalEncoder",
    "WeightsCheckpointLoader",
    "load_imagenet_weights",
    "load_weights",
    "require_first_stage",
    "with_ensemble",
]
