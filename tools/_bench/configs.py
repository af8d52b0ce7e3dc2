"""The contestants, from their own configs: the plugin's, MMDetection's and torchvision's SSD."""

from __future__ import annotations

from pathlib import Path

import ssd_plugin  # noqa: F401 - first: makes MMDetection importable without compiled ops

# isort: split
import mmdet
import torch
from mmdet.registry import DATASETS, MODELS
from mmengine.config import Config, ConfigDict
from mmengine.registry import init_default_scope
from torch import Tensor, nn
from torch.utils.data import Dataset
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.ssd import SSD

OUR_CONFIG = Path(__file__).resolve().parents[2] / 'configs' / 'ssd300_voc.py'
MMDET_CONFIGS = Path(mmdet.__file__).parent / '.mim' / 'configs' / 'pascal_voc'
NUM_CLASSES = 20

# The plugin's and torchvision's words for the priors of the models on VOC, by input size.
LEVELS = {
    300: dict(
        strides=[8, 16, 32, 64, 100, 300],
        ratios=[[2], [2, 3], [2, 3], [2, 3], [2], [2]],
        sizes=[30, 60, 111, 162, 213, 264, 315],
        channels=[512, 1024, 512, 256, 256, 256],
        maps=[38, 19, 10, 5, 3, 1],
    ),
    512: dict(
        strides=[8, 16, 32, 64, 128, 256, 512],
        ratios=[[2], [2, 3], [2, 3], [2, 3], [2, 3], [2], [2]],
        sizes=[35.84, 76.8, 153.6, 230.4, 307.2, 384, 460.8, 537.6],
        channels=[512, 1024, 512, 256, 256, 256, 256],
        maps=[64, 32, 16, 8, 4, 2, 1],
    ),
}


def our_config(path: Path = OUR_CONFIG) -> Config:
    """A recipe of the plugin's on VOC, as tools/train.py reads it; SSD300's by default."""
    return Config.fromfile(path)


def mmdet_config(input_size: int = 300) -> Config:
    """MMDetection's recipe of SSD on VOC, from the installed package."""
    return Config.fromfile(MMDET_CONFIGS / f'ssd{input_size}_voc0712.py')


def with_images(cfg: Config, root: Path, pipeline: list | None = None) -> ConfigDict:
    """A recipe's training set, with its own transforms, on the images under ``root``.

    Args:
        cfg: A recipe for VOC07+12.
        root: From :func:`_bench.images.write_images`.
        pipeline: Transforms in place of the recipe's.
    """
    dataset = cfg.train_dataloader.dataset
    while 'datasets' not in dataset:  # MMDetection's has it within a RepeatDataset
        dataset = dataset.dataset
    voc2007 = ConfigDict(dataset.datasets[0])
    voc2007.data_root = f'{root}/'
    if pipeline is not None:
        voc2007.pipeline = pipeline
    return voc2007


def build_dataset(cfg: ConfigDict) -> Dataset:
    """A data set, to be indexed as a loader's worker does."""
    init_default_scope('mmdet')
    return DATASETS.build(cfg)


def our_head(input_size: int = 300) -> nn.Module:
    """The head of the plugin's SSD on VOC."""
    init_default_scope('mmdet')
    model, levels = our_config().model, LEVELS[input_size]
    model.bbox_head.in_channels = levels['channels']
    model.bbox_head.anchor_generator.update(
        input_size=input_size,
        strides=levels['strides'],
        ratios=levels['ratios'],
        min_sizes=levels['sizes'][:-1],
        max_sizes=levels['sizes'][1:],
    )
    return MODELS.build(dict(model.bbox_head, train_cfg=model.train_cfg, test_cfg=model.test_cfg))


def mmdet_head(input_size: int = 300) -> nn.Module:
    """The head of MMDetection's SSD on VOC, with the plugin's limits of NMS (the paper's)."""
    init_default_scope('mmdet')
    model, test_cfg = mmdet_config(input_size).model, our_config().model.test_cfg
    head = MODELS.build(dict(model.bbox_head, train_cfg=model.train_cfg, test_cfg=test_cfg))
    head.loss_cls = None  # 3.2 and 3.3 ask it for an attribute in prediction, and it is not there
    return head


def torchvision_ssd(input_size: int = 300) -> SSD:
    """torchvision's SSD without convolutions: its head only lays out the maps it is given."""
    levels = LEVELS[input_size]
    backbone = nn.Identity()
    backbone.out_channels = levels['channels']
    priors = DefaultBoxGenerator(
        levels['ratios'],
        scales=[size / input_size for size in levels['sizes']],
        steps=levels['strides'],
        clip=False,  # so that it has the paper's priors, as the others
    )
    ssd = SSD(backbone, priors, (input_size, input_size), NUM_CLASSES + 1)
    for head in (ssd.head.classification_head, ssd.head.regression_head):
        head.module_list = nn.ModuleList(nn.Identity() for _ in levels['maps'])
    return ssd


def background_first(maps: list[Tensor]) -> list[Tensor]:
    """Scores (B, A * K, H, W) for torchvision, whose first class is background, not the last."""
    moved = []
    for scores in maps:
        classes = scores.detach().unflatten(1, (-1, NUM_CLASSES + 1)).roll(1, dims=2).flatten(1, 2)
        moved.append(to_format(classes, memory_format_of(scores)))
    return moved


def memory_format_of(maps: Tensor) -> torch.memory_format:
    """``contiguous_format`` or ``channels_last``; the former where there is no difference."""
    if maps.is_contiguous():
        return torch.contiguous_format
    return torch.channels_last


def to_format(maps: Tensor, memory_format: torch.memory_format) -> Tensor:
    return maps.contiguous(memory_format=memory_format)
