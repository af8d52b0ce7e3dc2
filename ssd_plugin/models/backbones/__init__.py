"""Backbones: torchvision's classification models, by name and feature maps."""

from ssd_plugin.models.backbones.torchvision_backbone import TorchvisionBackbone

__all__ = ['TorchvisionBackbone']
