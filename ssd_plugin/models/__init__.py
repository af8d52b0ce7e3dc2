"""The detector, in the order in which data pass through it."""

from ssd_plugin.models.assigner import BatchMaxIoUAssigner
from ssd_plugin.models.backbones import TimmBackbone, TorchvisionBackbone
from ssd_plugin.models.clipped_priors import CenterClippedPriorGenerator
from ssd_plugin.models.head import SSDMultiBoxHead
from ssd_plugin.models.losses import HardNegativeMiningLoss
from ssd_plugin.models.pisa import PISASSDMultiBoxHead
from ssd_plugin.models.preprocessor import SSDDataPreprocessor
from ssd_plugin.models.priors import SSDPriorGenerator
from ssd_plugin.models.separable_conv import DepthwiseSeparableConv2d

__all__ = [
    'BatchMaxIoUAssigner',
    'CenterClippedPriorGenerator',
    'DepthwiseSeparableConv2d',
    'HardNegativeMiningLoss',
    'PISASSDMultiBoxHead',
    'SSDDataPreprocessor',
    'SSDMultiBoxHead',
    'SSDPriorGenerator',
    'TimmBackbone',
    'TorchvisionBackbone',
]
