"""Transforms of an image and its ground-truth boxes before training."""

from ssd_plugin.datasets.transforms.ssd_augment import SSDAugment
from ssd_plugin.datasets.transforms.train_on_difficult import TrainOnDifficult

__all__ = ['SSDAugment', 'TrainOnDifficult']
