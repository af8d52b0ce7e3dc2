"""From annotation files to batches: data sets, transforms, and how samples are collated."""

from ssd_plugin.datasets.coco import CheckedCocoDataset
from ssd_plugin.datasets.collate import detection_collate
from ssd_plugin.datasets.transforms import SSDAugment, TrainOnDifficult
from ssd_plugin.datasets.voc import CheckedVOCDataset

__all__ = [
    'CheckedCocoDataset',
    'CheckedVOCDataset',
    'SSDAugment',
    'TrainOnDifficult',
    'detection_collate',
]
