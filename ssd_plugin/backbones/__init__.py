"""Backbones: torchvision's classification models, by name and feature maps."""

from .backbone import TorchvisionBackbone

__all__ = ['TorchvisionBackbone']
