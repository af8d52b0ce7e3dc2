"""The contestants: recipes, data sets and heads of the plugin, MMDetection and torchvision."""

from __future__ import annotations

from pathlib import Path

import ssd_plugin  # noqa: F401 - first: makes MMDetection importable without compiled ops

# isort: split
import mmdet
import torch
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from mmdet.registry import DATASETS, MODELS
from mmengine.config import Config, ConfigDict
from mmengine.dataset import BaseDataset
from mmengine.registry import init_default_scope
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.ssd import SSD
from torchvision.ops import box_iou

OUR_CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
OUR_CONFIG = OUR_CONFIGS / 'ssd300_voc.py'
MMDET_CONFIGS = Path(mmdet.__file__).parent / '.mim' / 'configs' / 'pascal_voc'
NUM_CLASSES = 20


def our_config(path: Path = OUR_CONFIG) -> Config:
    """One of the plugin's recipes for VOC, as tools/train.py reads it; SSD300's by default."""
    return Config.fromfile(path)


def mmdet_config(input_size: int = 300) -> Config:
    """MMDetection's recipe of SSD on VOC, from the installed package."""
    return Config.fromfile(MMDET_CONFIGS / f'ssd{input_size}_voc0712.py')


def with_images(cfg: Config, root: Path, pipeline: list | None = None) -> ConfigDict:
    """The training set of a recipe for VOC07+12, on the images that ``write_images`` has written.

    ``pipeline`` has transforms in place of the recipe's.
    """
    dataset = cfg.train_dataloader.dataset
    while 'datasets' not in dataset:  # MMDetection wraps it in a RepeatDataset
        dataset = dataset.dataset
    voc2007 = ConfigDict(dataset.datasets[0], data_root=f'{root}/')
    return voc2007 if pipeline is None else ConfigDict(voc2007, pipeline=pipeline)


def build_dataset(cfg: ConfigDict) -> BaseDataset:
    """A data set, to be indexed as a loader's worker does."""
    init_default_scope('mmdet')
    return DATASETS.build(cfg)


def our_model(input_size: int = 300) -> ConfigDict:
    """The model of the plugin's SSD300 or SSD512 on VOC."""
    return our_config(OUR_CONFIGS / f'ssd{input_size}_voc.py').model


def our_head(input_size: int = 300) -> BaseDenseHead:
    """The head of the plugin's SSD on VOC."""
    init_default_scope('mmdet')
    model = our_model(input_size)
    return MODELS.build(dict(model.bbox_head, train_cfg=model.train_cfg, test_cfg=model.test_cfg))


def mmdet_head(input_size: int = 300) -> BaseDenseHead:
    """The head of MMDetection's SSD on VOC, with the plugin's (and the paper's) limits of NMS."""
    init_default_scope('mmdet')
    model, test_cfg = mmdet_config(input_size).model, our_model().test_cfg
    head = MODELS.build(dict(model.bbox_head, train_cfg=model.train_cfg, test_cfg=test_cfg))
    head.loss_cls = None  # MMDetection 3.2 and 3.3 read this attribute, but do not set it
    return head


class TorchvisionHead:
    """The steps of torchvision's ``SSD.forward`` behind the convolutions, on given maps.

    The maps are (B, A * K, H, W) and (B, A * 4, H, W), a pair a level, with background as the last
    class.
    """

    def __init__(self, input_size: int, cls_scores: list[Tensor], bbox_preds: list[Tensor]) -> None:
        device, size = cls_scores[0].device, (input_size, input_size)
        self.ssd = torchvision_ssd(input_size).to(device)
        self.cls_scores = [background_first(m).requires_grad_() for m in cls_scores]
        self.bbox_preds = bbox_preds
        # The prior generator reads only the shape and the device of the images.
        batch = len(cls_scores[0])
        self.images = ImageList(torch.zeros(batch, 3, *size, device=device), [size] * batch)

    def loss(self, targets: list[dict[str, Tensor]]) -> Tensor:
        """The loss, given boxes (G, 4) and labels (G,) from 1 of each image."""
        outputs, priors = self.outputs(), self.priors()
        overlaps = [box_iou(target['boxes'], prior) for prior, target in zip(priors, targets)]
        matches = [self.ssd.proposal_matcher(overlap) for overlap in overlaps]
        return sum(self.ssd.compute_loss(targets, outputs, priors, matches).values())

    def detect(self) -> list[dict[str, Tensor]]:
        """The detections of each image: boxes, scores, and labels from 1."""
        sizes = self.images.image_sizes
        return self.ssd.postprocess_detections(self.outputs(), self.priors(), sizes)

    def outputs(self) -> dict[str, Tensor]:
        """Scores (B, P, K) and deltas (B, P, 4), under torchvision's names."""
        return dict(
            bbox_regression=self.ssd.head.regression_head(self.bbox_preds),
            cls_logits=self.ssd.head.classification_head(self.cls_scores),
        )

    def priors(self) -> list[Tensor]:
        """The priors (P, 4) xyxy of each image."""
        return self.ssd.anchor_generator(self.images, self.bbox_preds)


def torchvision_ssd(input_size: int = 300) -> SSD:
    """torchvision's SSD with our priors, whose head only lays out the maps it is given."""
    head = our_model(input_size).bbox_head
    levels, backbone = head.anchor_generator, nn.Identity()
    backbone.out_channels = head.in_channels
    scales = [size / input_size for size in (*levels.min_sizes, levels.max_sizes[-1])]
    # Not clipped, as in the paper and in the other contestants.
    priors = DefaultBoxGenerator(levels.ratios, scales=scales, steps=levels.strides, clip=False)
    ssd = SSD(backbone, priors, (input_size, input_size), NUM_CLASSES + 1)
    for branch in (ssd.head.classification_head, ssd.head.regression_head):
        branch.module_list = nn.ModuleList(nn.Identity() for _ in head.in_channels)
    return ssd


def background_first(scores: Tensor) -> Tensor:
    """A copy of scores (B, A * K, H, W) with background as the first class, not the last."""
    classes = scores.detach().unflatten(1, (-1, NUM_CLASSES + 1)).roll(1, dims=2).flatten(1, 2)
    if scores.is_contiguous():
        return classes.contiguous()
    return classes.contiguous(memory_format=torch.channels_last)
