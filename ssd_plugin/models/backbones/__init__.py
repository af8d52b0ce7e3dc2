"""Backbones: classification models of timm and torchvision, by name and feature maps."""

from ssd_plugin.models.backbones.timm_backbone import TimmBackbone
from ssd_plugin.models.backbones.torchvision_backbone import TorchvisionBackbone

__all__ = ['TimmBackbone', 'TorchvisionBackbone']
