"""What is done to an image and its boxes before training."""

from ssd_plugin.datasets.transforms.ssd_augment import SSDAugment
from ssd_plugin.datasets.transforms.train_on_difficult import TrainOnDifficult

__all__ = ['SSDAugment', 'TrainOnDifficult']
